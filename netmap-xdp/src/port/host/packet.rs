//! What host rings know of packets: the header that a TAP device puts before a frame (`struct virtio_net_hdr`), Internet
//! checksums, and where the parts of a TCP segment lie. Pure functions over bytes of our own.

/// Bytes of a [`VnetHeader`].
pub const VNET_LEN: usize = 10;
/// The longest frame that a TAP takes or gives, with room for its Ethernet header and two VLAN tags.
pub const FRAME_MAX: usize = 65536 + 22;
/// An Ethernet header.
pub const ETH_LEN: usize = 14;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`, `_TCPV6`, and `_ECN`, which may come with either.
pub const GSO_TCPV4: u8 = 1;
pub const GSO_TCPV6: u8 = 4;
pub const GSO_ECN: u8 = 0x80;

/// Offset of the checksum in a TCP header.
pub const TCP_CSUM: usize = 16;
pub const TCP_ACK: u8 = 0x10;
pub const TCP_PSH: u8 = 0x08;
pub const TCP_FIN: u8 = 0x01;
pub const TCP_CWR: u8 = 0x80;
const IPPROTO_TCP: u8 = 6;

/// What the kernel says of a frame, or is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// The checksum is only that of the pseudo header: the bytes from `csum_start` on are still to be added.
    pub needs_csum: bool,
    /// 0, or how the frame is to be cut.
    pub gso: u8,
    pub hdr_len: u16,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
}

impl VnetHeader {
    /// The header at the start of `bytes`, if they are long enough.
    pub fn read(bytes: &[u8]) -> Option<VnetHeader> {
        let bytes = bytes.first_chunk::<VNET_LEN>()?;
        let word = |i: usize| u16::from_ne_bytes([bytes[i], bytes[i + 1]]);
        Some(VnetHeader {
            needs_csum: bytes[0] & NEEDS_CSUM != 0,
            gso: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        })
    }

    /// As the kernel reads it.
    pub fn bytes(&self) -> [u8; VNET_LEN] {
        let mut bytes = [0; VNET_LEN];
        bytes[0] = if self.needs_csum { NEEDS_CSUM } else { 0 };
        bytes[1] = self.gso;
        let words = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        for (to, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// Sum of 16-bit words for an Internet checksum; parts of one checksum are added, all but the last of even length.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    // Four bytes at a time, since 2^16 is 1 modulo 2^16 - 1, in the order of memory.
    words.iter().fold(u64::from(u32::from_ne_bytes(last)), |n, w| n.wrapping_add(u64::from(u32::from_ne_bytes(*w))))
}

/// The checksum of a sum, as it is stored.
#[inline]
pub fn folded(mut sum: u64) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_ne_bytes()
}

/// `n` as a word of a sum.
#[inline]
pub fn word(n: u16) -> u64 {
    u64::from(n.to_be())
}

/// Two bytes of `bytes` at `at`, as a number.
#[inline]
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The same of four bytes.
#[inline]
pub fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Where the parts of a TCP segment lie in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Of IPv6, else of IPv4.
    pub v6: bool,
    /// Offsets: IP header, TCP header, payload.
    pub ip: usize,
    pub tcp: usize,
    pub payload: usize,
}

impl Tcp {
    /// The segment whose TCP header begins at `tcp`, in a frame that may have VLAN tags and IP options.
    pub fn at(frame: &[u8], tcp: usize) -> Option<Tcp> {
        let (mut ip, mut kind) = (ETH_LEN, 12);
        while matches!(be16(frame.get(kind..kind + 2)?, 0), 0x8100 | 0x88a8) {
            (ip, kind) = (ip + 4, kind + 4);
        }
        let v6 = frame.get(ip)? >> 4 == 6;
        let least = if v6 { 40 } else { 20 };
        let payload = tcp + usize::from(frame.get(tcp + 12)? >> 4) * 4;
        (tcp >= ip + least && payload >= tcp + 20 && payload <= frame.len()).then_some(Tcp { v6, ip, tcp, payload })
    }

    /// The segment in a frame of the plain kind, neither tagged nor fragmented nor with IP options, if that fills the frame
    /// and its checksums are right.
    pub fn plain(frame: &[u8]) -> Option<Tcp> {
        if frame.len() < ETH_LEN + 40 {
            return None;
        }
        let (ip, v6) = match be16(frame, 12) {
            0x0800 => (&frame[ETH_LEN..ETH_LEN + 20], false),
            0x86dd => (&frame[ETH_LEN..ETH_LEN + 40], true),
            _ => return None,
        };
        let (proto, len) = if v6 {
            (ip[6], 40 + usize::from(be16(ip, 4)))
        } else {
            let whole = ip[0] == 0x45 && be16(ip, 6) & !0x4000 == 0;
            if !whole || folded(sum(ip)) != [0, 0] {
                return None;
            }
            (ip[9], usize::from(be16(ip, 2)))
        };
        if proto != IPPROTO_TCP || (v6 && ip[0] >> 4 != 6) || ETH_LEN + len != frame.len() {
            return None;
        }
        let at = Tcp::at(frame, ETH_LEN + ip.len())?;
        let right = folded(at.pseudo_sum(frame, frame.len() - at.tcp) + sum(&frame[at.tcp..])) == [0, 0];
        right.then_some(at)
    }

    /// Sum of the pseudo header of a segment of `len` bytes.
    #[inline]
    pub fn pseudo_sum(&self, frame: &[u8], len: usize) -> u64 {
        let addresses = if self.v6 { &frame[self.ip + 8..self.ip + 40] } else { &frame[self.ip + 12..self.ip + 20] };
        // A length above 16 bits comes with neither family.
        sum(addresses) + word(IPPROTO_TCP.into()) + word(len as u16)
    }

    /// Writes the lengths of a frame of `len` bytes into its IP header, and the header's checksum.
    pub fn set_len(&self, frame: &mut [u8], len: usize) {
        let put = |frame: &mut [u8], at: usize, n: usize| frame[at..at + 2].copy_from_slice(&(n as u16).to_be_bytes());
        if self.v6 {
            put(frame, self.ip + 4, len - self.ip - 40);
            return;
        }
        put(frame, self.ip + 2, len - self.ip);
        let options = usize::from(frame[self.ip] & 15) * 4;
        let header = self.ip..(self.ip + options.max(20)).min(self.tcp);
        frame[self.ip + 10..self.ip + 12].fill(0);
        let checksum = folded(sum(&frame[header]));
        frame[self.ip + 10..self.ip + 12].copy_from_slice(&checksum);
    }

    /// Bytes of the flags.
    pub fn flags(&self) -> usize {
        self.tcp + 13
    }

    /// The sequence number.
    pub fn seq(&self, frame: &[u8]) -> u32 {
        be32(frame, self.tcp + 4)
    }

    /// The offset in a header where its checksum is.
    pub fn checksum(&self) -> usize {
        self.tcp + TCP_CSUM
    }
}
