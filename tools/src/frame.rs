//! UDP frames over IPv4 and IPv6, with checksums that are kept right while addresses, ports and lengths change.

use std::net::IpAddr;

use crate::addr::{Family, Flow};
use crate::checksum;

/// Length of an Ethernet header.
pub const ETHER: usize = 14;
const UDP: usize = 8;
const PROTO_UDP: u8 = 17;
/// Repeated to fill the payload.
const TEXT: &[u8] = b"sent by pkt-gen of netmap-xdp, a netmap API on AF_XDP - ";

/// A MAC address.
pub type Mac = [u8; 6];

/// Reads `aa:bb:cc:dd:ee:ff`.
pub fn parse_mac(text: &str) -> Result<Mac, String> {
    let bad = || format!("`{text}` is not a MAC address; write aa:bb:cc:dd:ee:ff");
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|p| (1..=2).contains(&p.len()) && !p.starts_with('+')).ok_or_else(bad)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
    }
    parts.next().is_none().then_some(mac).ok_or_else(bad)
}

/// `aa:bb:cc:dd:ee:ff`.
pub fn show_mac(mac: &Mac) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// Length of all headers before the UDP payload.
pub const fn headers(family: Family) -> usize {
    match family {
        Family::V4 => ETHER + 20 + UDP,
        Family::V6 => ETHER + 40 + UDP,
    }
}

/// A frame that is always complete and correct.
#[derive(Debug, Clone)]
pub struct UdpFrame {
    /// As long as the longest frame.
    bytes: Vec<u8>,
    len: usize,
    family: Family,
    flow: Flow,
    /// UDP checksum before 0 is replaced by 0xffff (RFC 768).
    udp_check: u16,
}

impl UdpFrame {
    /// A frame of `max` bytes, which is at least `headers(family)` and at most 65535; it can be made shorter later.
    pub fn new(src_mac: Mac, dst_mac: Mac, flow: Flow, max: usize) -> UdpFrame {
        let family = if flow.src.addr.is_ipv4() { Family::V4 } else { Family::V6 };
        let mut bytes = vec![0; max.max(headers(family))];
        bytes[..6].copy_from_slice(&dst_mac);
        bytes[6..12].copy_from_slice(&src_mac);
        match family {
            Family::V4 => {
                bytes[12..14].copy_from_slice(&[0x08, 0x00]);
                // Version 4, header of five words; don't fragment; TTL 64.
                bytes[ETHER..ETHER + 10].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, PROTO_UDP]);
            }
            Family::V6 => {
                bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
                bytes[ETHER..ETHER + 8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, PROTO_UDP, 64]);
            }
        }
        for (byte, text) in bytes[headers(family)..].iter_mut().zip(TEXT.iter().cycle()) {
            *byte = *text;
        }
        let len = bytes.len();
        let mut frame = UdpFrame { bytes, len, family, flow, udp_check: 0 };
        let (src, dst) = frame.addr_offsets();
        frame.put_addr(src, flow.src.addr);
        frame.put_addr(dst, flow.dst.addr);
        let udp = frame.udp();
        frame.bytes[udp..udp + 2].copy_from_slice(&flow.src.port.to_be_bytes());
        frame.bytes[udp + 2..udp + 4].copy_from_slice(&flow.dst.port.to_be_bytes());
        frame.set_len(len);
        frame
    }

    /// The frame as it goes on the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Offset of the UDP payload.
    pub fn payload(&self) -> usize {
        headers(self.family)
    }

    fn udp(&self) -> usize {
        self.payload() - UDP
    }

    fn addr_offsets(&self) -> (usize, usize) {
        match self.family {
            Family::V4 => (ETHER + 12, ETHER + 16),
            Family::V6 => (ETHER + 8, ETHER + 24),
        }
    }

    fn put_addr(&mut self, at: usize, addr: IpAddr) {
        match addr {
            IpAddr::V4(a) => self.bytes[at..at + 4].copy_from_slice(&a.octets()),
            IpAddr::V6(a) => self.bytes[at..at + 16].copy_from_slice(&a.octets()),
        }
    }

    fn put_udp_check(&mut self) {
        let at = self.udp() + 6;
        let check = if self.udp_check == 0 { 0xffff } else { self.udp_check };
        self.bytes[at..at + 2].copy_from_slice(&check.to_be_bytes());
    }

    /// Makes the frame `len` bytes long, within `headers(family)` and the length it was made with.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.clamp(self.payload(), self.bytes.len());
        let udp_len = (self.len - self.udp()) as u16;
        match self.family {
            Family::V4 => {
                let total = (self.len - ETHER) as u16;
                self.bytes[ETHER + 2..ETHER + 4].copy_from_slice(&total.to_be_bytes());
                self.bytes[ETHER + 10..ETHER + 12].fill(0);
                let check = checksum::finish(checksum::sum(0, &self.bytes[ETHER..ETHER + 20]));
                self.bytes[ETHER + 10..ETHER + 12].copy_from_slice(&check.to_be_bytes());
            }
            Family::V6 => self.bytes[ETHER + 4..ETHER + 6].copy_from_slice(&udp_len.to_be_bytes()),
        }
        let udp = self.udp();
        self.bytes[udp + 4..udp + 6].copy_from_slice(&udp_len.to_be_bytes());
        self.bytes[udp + 6..udp + 8].fill(0);
        let (addrs, _) = self.addr_offsets();
        // Pseudo header: both addresses, which lie side by side before the UDP header, protocol and UDP length.
        let pseudo = checksum::sum(u32::from(PROTO_UDP) + u32::from(udp_len), &self.bytes[addrs..udp]);
        self.udp_check = checksum::finish(checksum::sum(pseudo, &self.bytes[udp..self.len]));
        self.put_udp_check();
    }

    /// Changes addresses and ports; they are of the family that the frame was made for. Costs what changes.
    pub fn set_flow(&mut self, flow: Flow) {
        let old = std::mem::replace(&mut self.flow, flow);
        let (src, dst) = self.addr_offsets();
        let udp = self.udp();
        self.change_addr(src, old.src.addr, flow.src.addr);
        self.change_addr(dst, old.dst.addr, flow.dst.addr);
        if old.src.port != flow.src.port {
            self.change(udp, &flow.src.port.to_be_bytes(), false);
        }
        if old.dst.port != flow.dst.port {
            self.change(udp + 2, &flow.dst.port.to_be_bytes(), false);
        }
        self.put_udp_check();
    }

    fn change_addr(&mut self, at: usize, old: IpAddr, new: IpAddr) {
        match new {
            _ if old == new => {}
            IpAddr::V4(a) => self.change(at, &a.octets(), true),
            IpAddr::V6(a) => self.change(at, &a.octets(), false),
        }
    }

    /// Replaces the start of the payload; an even number of bytes, and no more than the payload has.
    pub fn set_payload(&mut self, data: &[u8]) {
        self.change(self.payload(), data, false);
        self.put_udp_check();
    }

    /// Replaces whole words at an even distance from the UDP header, and updates the checksums that cover them.
    fn change(&mut self, at: usize, new: &[u8], in_ip_header: bool) {
        for (i, word) in new.chunks_exact(2).enumerate() {
            let at = at + 2 * i;
            let before = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
            let after = u16::from_be_bytes([word[0], word[1]]);
            self.bytes[at..at + 2].copy_from_slice(word);
            self.udp_check = checksum::update(self.udp_check, before, after);
            if in_ip_header {
                let check = u16::from_be_bytes([self.bytes[ETHER + 10], self.bytes[ETHER + 11]]);
                let check = checksum::update(check, before, after);
                self.bytes[ETHER + 10..ETHER + 12].copy_from_slice(&check.to_be_bytes());
            }
        }
    }
}

/// Turns a received frame into its answer: MAC addresses, IP addresses and UDP ports change places. A group address
/// cannot be a source, so `own` takes its place. Checksums stay right, since sums do not depend on order.
///
/// Works on the first bytes of a frame; what is cut off or is not IP stays as it is.
pub fn turn_around(frame: &mut [u8], own: Option<Mac>) {
    if frame.len() < ETHER {
        return;
    }
    let (dst, rest) = frame.split_at_mut(6);
    dst.swap_with_slice(&mut rest[..6]);
    if frame[6] & 1 != 0
        && let Some(own) = own
    {
        frame[6..12].copy_from_slice(&own);
    }
    let (addrs, width, ports) = match [frame[12], frame[13]] {
        [0x08, 0x00] if frame.len() >= ETHER + 20 => {
            let header = usize::from(frame[ETHER] & 0x0f) * 4;
            let first_fragment = frame[ETHER + 6] & 0x1f == 0 && frame[ETHER + 7] == 0;
            let udp = frame[ETHER + 9] == PROTO_UDP && first_fragment && header >= 20;
            (ETHER + 12, 4, udp.then_some(ETHER + header))
        }
        [0x86, 0xdd] if frame.len() >= ETHER + 40 => {
            (ETHER + 8, 16, (frame[ETHER + 6] == PROTO_UDP).then_some(ETHER + 40))
        }
        _ => return,
    };
    swap_neighbours(frame, addrs, width);
    if let Some(ports) = ports.filter(|p| p + 4 <= frame.len()) {
        swap_neighbours(frame, ports, 2);
    }
}

/// Bytes at the start of a frame that [`turn_around`] can change: the longest IPv4 header with options, and the ports.
pub const TURN_AROUND_BYTES: usize = ETHER + 60 + 4;

fn swap_neighbours(bytes: &mut [u8], at: usize, width: usize) {
    let (left, right) = bytes[at..at + 2 * width].split_at_mut(width);
    left.swap_with_slice(right);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Flows, Range};
    use crate::sizes::Rng;

    const A: Mac = [2, 0, 0, 0, 0, 0xa];
    const B: Mac = [2, 0, 0, 0, 0, 0xb];

    fn flows(src: &str, dst: &str) -> Flows {
        Flows::new(Range::parse(src).unwrap(), Range::parse(dst).unwrap(), false, false)
    }

    /// Checks a frame from scratch, as a receiver would.
    fn check(frame: &[u8]) {
        let be = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
        let (udp, addrs) = match be(12) {
            0x0800 => {
                assert_eq!(frame[14], 0x45);
                assert_eq!(be(16), frame.len() - 14, "IPv4 total length");
                assert_eq!(checksum::finish(checksum::sum(0, &frame[14..34])), 0, "IPv4 checksum");
                (34, &frame[26..34])
            }
            0x86dd => {
                assert_eq!(be(18), frame.len() - 54, "IPv6 payload length");
                (54, &frame[22..54])
            }
            other => panic!("ethertype {other:#x}"),
        };
        assert_eq!(be(udp + 4), frame.len() - udp, "UDP length");
        assert_ne!(be(udp + 6), 0, "a UDP checksum of zero means none");
        let pseudo = checksum::sum(17 + (frame.len() - udp) as u32, addrs);
        assert_eq!(checksum::finish(checksum::sum(pseudo, &frame[udp..])), 0, "UDP checksum");
    }

    #[test]
    fn frames_of_all_lengths_are_correct() {
        for (src, dst) in [("10.0.0.1", "10.1.0.1"), ("fd00::1", "fd00:1::1")] {
            let flow = flows(src, dst).current();
            let mut frame = UdpFrame::new(A, B, flow, 1514);
            check(frame.bytes());
            for len in frame.payload()..=200 {
                frame.set_len(len);
                assert_eq!(frame.bytes().len(), len);
                check(frame.bytes());
            }
            check(UdpFrame::new(A, B, flow, 9014).bytes());
        }
    }

    #[test]
    fn header_fields_are_where_they_belong() {
        let frame = UdpFrame::new(A, B, flows("10.0.0.1:1234", "10.1.0.1:53").current(), 60);
        let f = frame.bytes();
        assert_eq!(f[..6], B);
        assert_eq!(f[6..12], A);
        assert_eq!(f[26..30], [10, 0, 0, 1]);
        assert_eq!(f[30..34], [10, 1, 0, 1]);
        assert_eq!(f[34..38], [0x04, 0xd2, 0, 53]);
    }

    #[test]
    fn stepping_through_ranges_keeps_checksums_right() {
        for (src, dst) in [
            ("10.0.255.250:65530-10.1.0.5:65535", "10.1.0.1:1-10.1.0.2:3"),
            ("[fd00::fffa]:65530-[fd00::1:5]:65535", "[fd00:1::1]:1-[fd00:1::2]:3"),
        ] {
            let mut flows = flows(src, dst);
            let mut frame = UdpFrame::new(A, B, flows.current(), 61.max(headers(Family::V6)) + 5);
            let mut rng = Rng::new(1);
            for step in 0..2000 {
                check(frame.bytes());
                if step % 7 == 0 {
                    frame.set_len(frame.payload() + step % 9);
                }
                flows.advance(&mut rng);
                frame.set_flow(flows.current());
            }
        }
    }

    #[test]
    fn random_flows_keep_checksums_right() {
        let one = Range::parse("10.0.0.1").unwrap();
        let mut flows = Flows::new(one, one, true, true);
        let mut frame = UdpFrame::new(A, B, flows.current(), 60);
        let mut rng = Rng::new(9);
        for _ in 0..20_000 {
            flows.advance(&mut rng);
            frame.set_flow(flows.current());
            check(frame.bytes());
        }
    }

    #[test]
    fn payload_changes_keep_the_checksum_right() {
        let mut frame = UdpFrame::new(A, B, flows("10.0.0.1", "10.1.0.1").current(), 60);
        for i in 0..10_000u64 {
            frame.set_payload(&(i * 0x1234_5678_9abc).to_be_bytes());
            check(frame.bytes());
        }
    }

    #[test]
    fn turned_around_frames_stay_correct_and_turn_back() {
        for (src, dst) in [("10.0.0.1:7", "10.1.0.1:9"), ("[fd00::1]:7", "[fd00:1::1]:9")] {
            let frame = UdpFrame::new(A, B, flows(src, dst).current(), 80);
            let expected = UdpFrame::new(B, A, flows(dst, src).current(), 80);
            let mut bytes = frame.bytes().to_vec();
            turn_around(&mut bytes, None);
            assert_eq!(bytes, expected.bytes());
            check(&bytes);
            turn_around(&mut bytes, None);
            assert_eq!(bytes, frame.bytes());
        }
    }

    #[test]
    fn an_answer_to_a_broadcast_comes_from_the_own_address() {
        let mut bytes = UdpFrame::new(A, [0xff; 6], flows("10.0.0.1", "10.1.0.1").current(), 60).bytes().to_vec();
        turn_around(&mut bytes, Some(B));
        assert_eq!(bytes[..6], A);
        assert_eq!(bytes[6..12], B);
    }

    #[test]
    fn turning_around_takes_any_bytes() {
        let whole = UdpFrame::new(A, B, flows("fd00::1", "fd00:1::1").current(), 80).bytes().to_vec();
        for len in 0..whole.len() {
            turn_around(&mut whole[..len].to_vec(), Some(A));
        }
        let mut odd = vec![0xff; 64];
        odd[12..14].copy_from_slice(&[8, 0]);
        for header in 0..=255 {
            odd[ETHER] = header;
            turn_around(&mut odd, None);
        }
    }

    #[test]
    fn mac_addresses_are_read_and_shown() {
        assert_eq!(parse_mac("02:00:00:0:a:ff"), Ok([2, 0, 0, 0, 0xa, 0xff]));
        assert_eq!(show_mac(&A), "02:00:00:00:00:0a");
        for bad in
            ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "02:00:00:00:00:zz", "02-00-00-00-00-00", "002:0:0:0:0:0"]
        {
            assert!(parse_mac(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
