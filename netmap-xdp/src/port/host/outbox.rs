//! What the host is to receive: frames that follow each other in one TCP connection are handed to its TAP in one piece, as a
//! NIC's driver hands them to the stack (GRO), which then has one segment to deal with and not dozens.
//!
//! Only frames whose checksums are right are put together, so the stack may be told that they are; all others go as they
//! are. The order of frames stays.

use super::packet::{
    ETH_LEN, FRAME_MAX, GSO_TCPV4, GSO_TCPV6, TCP_ACK, TCP_CSUM, TCP_PSH, Tcp, VNET_LEN, VnetHeader, be16, folded,
};

/// The most that an IP header can say.
const IP_MAX: usize = 65535;

/// Frames that are gathered for one write.
pub struct Outbox {
    /// The header, and the first frame with the payload of the others behind.
    train: Box<[u8]>,
    /// A frame that may become a part of it.
    frame: Box<[u8]>,
    /// Bytes of the train without the header, 0 for none, how many frames, and the payload of the first.
    len: usize,
    frames: u32,
    size: usize,
    /// Bytes of all of them.
    bytes: u64,
    tail: Option<Tail>,
}

/// A train that may grow.
#[derive(Clone, Copy)]
struct Tail {
    tcp: Tcp,
    /// Payload of each frame.
    size: usize,
    next_seq: u32,
}

/// What is to be written.
pub struct Train<'a> {
    /// With the header.
    pub bytes: &'a [u8],
    /// Frames that are in it, and their bytes.
    pub frames: u32,
    pub frame_bytes: u64,
}

impl Outbox {
    /// An empty one.
    pub fn new() -> Outbox {
        let room = || vec![0; VNET_LEN + FRAME_MAX].into();
        Outbox { train: room(), frame: room(), len: 0, frames: 0, size: 0, bytes: 0, tail: None }
    }

    /// Where the next frame is to be put.
    #[inline]
    pub fn room(&mut self) -> &mut [u8] {
        if self.len == 0 { &mut self.train[VNET_LEN..] } else { &mut self.frame[..FRAME_MAX] }
    }

    /// Takes the frame of `len` bytes, not 0, in [`Outbox::room`]; false if the train must leave first: then write
    /// [`Outbox::train`], and call [`Outbox::restart`].
    #[inline]
    pub fn push(&mut self, len: usize) -> bool {
        if self.len == 0 {
            self.begin(len);
            return true;
        }
        let frame = &self.frame[..len];
        let Some(tail) = self.tail else { return false };
        let first = &self.train[VNET_LEN..VNET_LEN + self.len];
        let Some(payload) = tail.continues(first, self.frames, frame) else { return false };
        let payload = &frame[payload..];
        let at = VNET_LEN + self.len;
        self.train[at..at + payload.len()].copy_from_slice(payload);
        self.len += payload.len();
        self.frames += 1;
        self.bytes += len as u64;
        let push = frame[tail.tcp.flags()] & TCP_PSH;
        self.train[VNET_LEN + tail.tcp.flags()] |= push;
        let more = push == 0 && payload.len() == tail.size;
        let next_seq = tail.next_seq.wrapping_add(payload.len() as u32);
        self.tail = more.then_some(Tail { next_seq, ..tail });
        true
    }

    fn begin(&mut self, len: usize) {
        let frame = &self.train[VNET_LEN..VNET_LEN + len];
        (self.len, self.frames, self.bytes) = (len, 1, len as u64);
        self.tail = Tcp::plain(frame).filter(|t| frame[t.flags()] == TCP_ACK && t.payload < len).map(|tcp| {
            let size = len - tcp.payload;
            self.size = size;
            Tail { tcp, size, next_seq: tcp.seq(frame).wrapping_add(size as u32) }
        });
    }

    /// The frame that was given to [`Outbox::push`] in vain begins a train, now that the one before has left.
    pub fn restart(&mut self, len: usize) {
        self.train[VNET_LEN..VNET_LEN + len].copy_from_slice(&self.frame[..len]);
        self.begin(len);
    }

    /// What was gathered, if anything, ready to be written; the next frame begins a train of its own.
    #[inline]
    pub fn train(&mut self) -> Option<Train<'_>> {
        if self.len == 0 {
            return None;
        }
        let (len, frames) = (std::mem::take(&mut self.len), self.frames);
        let (header, frame) = self.train[..VNET_LEN + len].split_at_mut(VNET_LEN);
        let mut vnet = VnetHeader::default();
        if frames > 1
            && let Some(tcp) = Tcp::at(frame, tcp_of(frame))
        {
            tcp.set_len(frame, len);
            // Complemented twice: the sum itself, which the rest is to be added to.
            let pseudo = folded(tcp.pseudo_sum(frame, len - tcp.tcp)).map(|b| !b);
            let at = tcp.checksum();
            frame[at..at + 2].copy_from_slice(&pseudo);
            let gso = if tcp.v6 { GSO_TCPV6 } else { GSO_TCPV4 };
            vnet = VnetHeader {
                needs_csum: true,
                gso,
                hdr_len: tcp.payload as u16,
                gso_size: self.size as u16,
                csum_start: tcp.tcp as u16,
                csum_offset: TCP_CSUM as u16,
            };
        }
        header.copy_from_slice(&vnet.bytes());
        Some(Train { bytes: &self.train[..VNET_LEN + len], frames, frame_bytes: self.bytes })
    }
}

/// Where the TCP header of a plain frame begins.
fn tcp_of(frame: &[u8]) -> usize {
    ETH_LEN + if be16(frame, 12) == 0x86dd { 40 } else { 20 }
}

impl Tail {
    /// Whether `frame` goes on where the train of `frames` frames ends that begins with `first`: where its payload begins.
    fn continues(&self, first: &[u8], frames: u32, frame: &[u8]) -> Option<usize> {
        let (t, head) = (&self.tcp, self.tcp.payload);
        let payload = frame.len().checked_sub(head).filter(|n| (1..=self.size).contains(n))?;
        if first.len() - ETH_LEN + payload > IP_MAX || first[..ETH_LEN] != frame[..ETH_LEN] {
            return None;
        }
        let (a, b) = (&first[t.ip..t.tcp], &frame[t.ip..t.tcp]);
        let same_ip = if t.v6 {
            a[..4] == b[..4] && a[6..] == b[6..]
        } else {
            // Where fragments are forbidden the number means nothing.
            let ids = be16(a, 6) == 0x4000 || be16(b, 4) == be16(a, 4).wrapping_add(frames as u16);
            a[..2] == b[..2] && a[6..10] == b[6..10] && a[12..] == b[12..] && ids
        };
        let (a, b) = (&first[t.tcp..head], &frame[t.tcp..head]);
        let flags = b[13] & !TCP_PSH == TCP_ACK;
        let same_tcp = a[..4] == b[..4] && a[8..13] == b[8..13] && a[14..16] == b[14..16] && a[18..] == b[18..];
        let good = same_ip && same_tcp && flags && t.seq(frame) == self.next_seq;
        (good && Tcp::plain(frame) == Some(*t)).then_some(head)
    }
}
