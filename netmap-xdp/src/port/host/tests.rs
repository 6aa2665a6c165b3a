//! Cutting and joining of TCP segments, one against the other and against checksums computed the slow way.

use super::inbox::Inbox;
use super::outbox::Outbox;
use super::packet::{FRAME_MAX, TCP_ACK, TCP_CWR, TCP_FIN, TCP_PSH, Tcp, VNET_LEN, VnetHeader, folded, sum};
use crate::ring::Drop;

/// A TCP segment of `payload` bytes, with right checksums.
#[derive(Clone, Copy)]
struct Segment {
    v6: bool,
    seq: u32,
    payload: usize,
    flags: u8,
    port: u16,
    id: u16,
    fragment: u16,
    timestamp: u32,
}

const SEGMENT: Segment =
    Segment { v6: false, seq: 7, payload: 1000, flags: TCP_ACK, port: 80, id: 5, fragment: 0, timestamp: 1 };

/// An Internet checksum as RFC 1071 says it.
fn slow(words: &[u8]) -> u16 {
    let mut n = 0u32;
    for pair in words.chunks(2) {
        n += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        n = (n & 0xffff) + (n >> 16);
    }
    !(n as u16)
}

impl Segment {
    fn frame(self) -> Vec<u8> {
        let mut f = vec![2; 12];
        let tcp_len = 32 + self.payload;
        let mut pseudo = Vec::new();
        if self.v6 {
            f.extend([0x86, 0xdd, 0x60, 0, 0, 1]);
            f.extend((tcp_len as u16).to_be_bytes());
            f.extend([6, 64]);
            f.extend([0xfd; 32]);
            pseudo.extend([0xfd; 32]);
        } else {
            f.extend([8, 0, 0x45, 0]);
            f.extend((20 + tcp_len as u16).to_be_bytes());
            f.extend(self.id.to_be_bytes());
            f.extend(self.fragment.to_be_bytes());
            f.extend([64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            let checksum = slow(&f[14..34]);
            f[24..26].copy_from_slice(&checksum.to_be_bytes());
            pseudo.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        }
        pseudo.extend([0, 6]);
        pseudo.extend((tcp_len as u16).to_be_bytes());
        let tcp = f.len();
        f.extend(self.port.to_be_bytes());
        f.extend([1, 1]);
        f.extend(self.seq.to_be_bytes());
        f.extend([0, 0, 0, 9, 0x80, self.flags, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10]);
        f.extend(self.timestamp.to_be_bytes());
        f.extend([0, 0, 0, 3]);
        f.extend((0..self.payload).map(|i| (i as u32).wrapping_add(self.seq) as u8));
        pseudo.extend(&f[tcp..]);
        f[tcp + 16..tcp + 18].copy_from_slice(&slow(&pseudo).to_be_bytes());
        f
    }

    fn next(self) -> Segment {
        Segment { seq: self.seq.wrapping_add(self.payload as u32), id: self.id.wrapping_add(1), ..self }
    }
}

/// What leaves an outbox for these frames: the writes, and how many frames are in each.
fn joined(frames: &[Vec<u8>]) -> Vec<(Vec<u8>, u32)> {
    let (mut out, mut writes) = (Outbox::new(), Vec::new());
    for frame in frames {
        out.room()[..frame.len()].copy_from_slice(frame);
        if !out.push(frame.len()) {
            writes.extend(out.train().map(|t| (t.bytes.to_vec(), t.frames)));
            out.restart(frame.len());
        }
    }
    writes.extend(out.train().map(|t| (t.bytes.to_vec(), t.frames)));
    writes
}

/// The frames that an inbox makes of a read.
fn cut(read: &[u8]) -> Result<Vec<Vec<u8>>, Drop> {
    let mut inbox = Inbox::new();
    inbox.room()[..read.len()].copy_from_slice(read);
    inbox.filled(read.len())?;
    let mut frames = Vec::new();
    while let Some(len) = inbox.next_len() {
        frames.push(inbox.next().unwrap().concat());
        assert_eq!(frames.last().unwrap().len(), len);
    }
    Ok(frames)
}

#[test]
fn sums_are_those_of_the_standard() {
    let bytes: Vec<u8> = (0..3000u32).map(|i| (i * 7 + i / 100) as u8).collect();
    for len in (0..40).chain([1499, 1500, 2999]) {
        for at in [0, 2, 6] {
            let part = &bytes[at..(at + len).min(bytes.len())];
            assert_eq!(u16::from_be_bytes(folded(sum(part))), slow(part), "{len} bytes at {at}");
        }
    }
    assert_eq!(folded(sum(&[0xff; 4096])), [0, 0]);
}

#[test]
fn a_header_is_what_was_written() {
    let header = VnetHeader { needs_csum: true, gso: 4, hdr_len: 66, gso_size: 1448, csum_start: 54, csum_offset: 16 };
    assert_eq!(VnetHeader::read(&header.bytes()), Some(header));
    assert_eq!(VnetHeader::read(&[0; VNET_LEN - 1]), None);
}

#[test]
fn segments_that_follow_each_other_go_in_one_piece_and_come_apart_the_same() {
    for v6 in [false, true] {
        for last in [1, 999, 1000] {
            for seq in [7, u32::MAX - 2500] {
                let first = Segment { v6, seq, ..SEGMENT };
                let mut all: Vec<Segment> = std::iter::successors(Some(first), |s| Some(s.next())).take(6).collect();
                all.last_mut().unwrap().payload = last;
                all.last_mut().unwrap().flags |= TCP_PSH;
                let frames: Vec<_> = all.iter().map(|s| s.frame()).collect();
                let writes = joined(&frames);
                assert_eq!(writes.iter().map(|w| w.1).collect::<Vec<_>>(), [6], "v6 {v6}, last {last}");
                assert_eq!(cut(&writes[0].0).unwrap(), frames, "v6 {v6}, last {last}, seq {seq}");
            }
        }
    }
}

#[test]
fn a_train_is_never_longer_than_an_ip_header_can_say() {
    let all: Vec<_> = std::iter::successors(Some(SEGMENT), |s| Some(s.next())).take(100).map(Segment::frame).collect();
    let writes = joined(&all);
    assert_eq!(writes.iter().map(|w| w.1).sum::<u32>(), 100);
    assert!(writes.len() == 2 && writes.iter().all(|w| w.0.len() <= VNET_LEN + FRAME_MAX), "{}", writes.len());
    let apart: Vec<_> = writes.iter().flat_map(|w| cut(&w.0).unwrap()).collect();
    assert_eq!(apart, all);
}

#[test]
fn what_does_not_belong_together_goes_as_it_is_and_in_order() {
    let one = SEGMENT;
    let after = one.next();
    let mut wrong = after.frame();
    *wrong.last_mut().unwrap() ^= 1;
    let mut udp = after.frame();
    udp[23] = 17;
    let others = [
        ("a gap", Segment { seq: after.seq + 1, ..after }.frame()),
        ("another connection", Segment { port: 81, ..after }.frame()),
        ("its end", Segment { flags: TCP_ACK | TCP_FIN, ..after }.frame()),
        ("a longer one", Segment { payload: 1001, ..after }.frame()),
        ("nothing but an acknowledgement", Segment { payload: 0, ..after }.frame()),
        ("another time", Segment { timestamp: 2, ..after }.frame()),
        ("a number out of turn", Segment { id: 99, ..after }.frame()),
        ("a fragment", Segment { fragment: 0x2000, ..after }.frame()),
        ("the other family", Segment { v6: true, ..after }.frame()),
        ("a wrong checksum", wrong),
        ("another protocol", udp),
        ("something short", vec![1; 14]),
    ];
    for (what, other) in others {
        let frames = [one.frame(), other];
        let writes = joined(&frames);
        assert_eq!(writes.len(), 2, "{what}");
        for (write, frame) in writes.iter().zip(&frames) {
            assert_eq!(write.0[..VNET_LEN], [0; VNET_LEN], "{what}");
            assert_eq!(&write.0[VNET_LEN..], frame, "{what}");
        }
    }
    // Nor after a pushed one, or a short one.
    for first in [Segment { flags: TCP_ACK | TCP_PSH, ..one }, one] {
        let second = first.next();
        let short = Segment { payload: 10, ..second };
        let writes = joined(&[first.frame(), short.frame(), short.next().frame()]);
        assert!(writes.len() > 1);
    }
    // Where fragments are forbidden, the number is free.
    let fixed = Segment { fragment: 0x4000, id: 0, ..one };
    assert_eq!(joined(&[fixed.frame(), Segment { id: 0, ..fixed.next() }.frame()]).len(), 1);
}

#[test]
fn flags_of_a_long_segment_go_to_the_frame_they_are_for() {
    let long = Segment { payload: 2500, flags: TCP_ACK | TCP_PSH | TCP_FIN | TCP_CWR, ..SEGMENT };
    let frame = long.frame();
    let header =
        VnetHeader { needs_csum: true, gso: 0x81, hdr_len: 66, gso_size: 1000, csum_start: 34, csum_offset: 16 };
    let parts = cut(&[&header.bytes()[..], &frame].concat()).unwrap();
    let flags: Vec<u8> = parts.iter().map(|p| p[47]).collect();
    assert_eq!(flags, [TCP_ACK | TCP_CWR, TCP_ACK, TCP_ACK | TCP_PSH | TCP_FIN]);
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1066, 1066, 566]);
    for part in &parts {
        assert!(Tcp::plain(part).is_some(), "a checksum is wrong");
    }
}

#[test]
fn a_tagged_segment_keeps_its_tag() {
    let mut frame = Segment { payload: 3000, ..SEGMENT }.frame();
    frame.splice(12..12, [0x81, 0, 0, 5]);
    let header = VnetHeader { needs_csum: true, gso: 1, hdr_len: 70, gso_size: 1000, csum_start: 38, csum_offset: 16 };
    for mut part in cut(&[&header.bytes()[..], &frame].concat()).unwrap() {
        assert_eq!(part[12..16], [0x81, 0, 0, 5]);
        part.drain(12..16);
        assert_eq!(part.len(), 1066);
        assert!(Tcp::plain(&part).is_some(), "a checksum is wrong");
    }
}

#[test]
fn a_checksum_that_was_left_to_the_card_is_made() {
    let whole = SEGMENT.frame();
    let mut frame = whole.clone();
    let tcp = Tcp::plain(&frame).unwrap();
    let pseudo = folded(tcp.pseudo_sum(&frame, frame.len() - 34)).map(|b| !b);
    frame[50..52].copy_from_slice(&pseudo);
    let header = VnetHeader { needs_csum: true, csum_start: 34, csum_offset: 16, ..Default::default() };
    assert_eq!(cut(&[&header.bytes()[..], &frame].concat()).unwrap(), [whole]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let frame = Segment { payload: 3000, ..SEGMENT }.frame();
    let good = VnetHeader { needs_csum: true, gso: 1, hdr_len: 66, gso_size: 1000, csum_start: 34, csum_offset: 16 };
    let bad = [
        VnetHeader { gso_size: 0, ..good },
        VnetHeader { needs_csum: false, ..good },
        VnetHeader { csum_start: 20, ..good },
        VnetHeader { csum_start: 9000, ..good },
        VnetHeader { gso: 3, ..good },
        VnetHeader { gso: 0, csum_start: 3060, csum_offset: 8, ..good },
        VnetHeader { gso: 0, csum_start: 9999, ..good },
    ];
    for header in bad {
        assert_eq!(cut(&[&header.bytes()[..], &frame].concat()), Err(Drop::Offload), "{header:?}");
    }
    assert_eq!(cut(&[1; 5]), Err(Drop::TooShort));
    assert!(cut(&good.bytes()).is_err());
}
