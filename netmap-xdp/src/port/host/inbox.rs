//! What the host sends, as its TAP gives it: one frame, or a long TCP segment that is still to be cut to the size that fits
//! on the wire, with a checksum each. So the rings see frames as they leave a NIC, while the stack is asked once in a while.

use super::packet::{
    FRAME_MAX, GSO_ECN, GSO_TCPV4, GSO_TCPV6, TCP_CWR, TCP_FIN, TCP_PSH, Tcp, VNET_LEN, VnetHeader, folded, sum,
};
use crate::ring::Drop;
use std::ops::Range;

/// Most bytes of headers that are copied before each segment.
const HEAD_MAX: usize = 256;

/// A buffer for one read, and what of it was not taken yet.
pub struct Inbox {
    bytes: Box<[u8]>,
    rest: Option<Rest>,
    head: [u8; HEAD_MAX],
}

/// Frames yet to come.
#[derive(Clone, Copy)]
struct Rest {
    end: usize,
    /// Where the payload begins that comes next.
    at: usize,
    /// How it is cut, if it is.
    cut: Option<Cut>,
}

#[derive(Clone, Copy)]
struct Cut {
    tcp: Tcp,
    size: usize,
    /// Number of the segment that comes next.
    n: u32,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Inbox {
        Inbox { bytes: vec![0; VNET_LEN + FRAME_MAX].into(), rest: None, head: [0; HEAD_MAX] }
    }

    /// Where to read into; what was left is forgotten.
    pub fn room(&mut self) -> &mut [u8] {
        self.rest = None;
        &mut self.bytes
    }

    /// So many bytes were read, the header before the frame included.
    pub fn filled(&mut self, n: usize) -> Result<(), Drop> {
        let header = VnetHeader::read(&self.bytes[..n]).ok_or(Drop::TooShort)?;
        let frame = &mut self.bytes[VNET_LEN..n];
        let (start, end) = (usize::from(header.csum_start), frame.len());
        let cut = match header.gso & !GSO_ECN {
            0 => {
                if header.needs_csum {
                    let at = start + usize::from(header.csum_offset);
                    if at + 2 > end {
                        return Err(Drop::Offload);
                    }
                    let checksum = folded(sum(&frame[start..]));
                    // 0 says of UDP that there is none, and is as good as its opposite everywhere.
                    let checksum = if checksum == [0, 0] { [0xff, 0xff] } else { checksum };
                    frame[at..at + 2].copy_from_slice(&checksum);
                }
                None
            }
            GSO_TCPV4 | GSO_TCPV6 if header.needs_csum && header.gso_size > 0 => {
                let tcp = Tcp::at(frame, start).filter(|t| t.payload <= HEAD_MAX).ok_or(Drop::Offload)?;
                Some(Cut { tcp, size: header.gso_size.into(), n: 0 })
            }
            _ => return Err(Drop::Offload),
        };
        self.rest = Some(Rest { end, at: cut.map_or(0, |c| c.tcp.payload), cut });
        Ok(())
    }

    /// Bytes of the frame that comes next, if there is one.
    #[inline]
    pub fn next_len(&self) -> Option<usize> {
        let rest = self.rest.as_ref()?;
        Some(match &rest.cut {
            None => rest.end,
            Some(cut) => cut.tcp.payload + cut.size.min(rest.end - rest.at),
        })
    }

    /// Takes the next frame, in two parts.
    #[inline]
    pub fn next(&mut self) -> Option<[&[u8]; 2]> {
        let rest = self.rest.as_mut()?;
        let frame = &self.bytes[VNET_LEN..VNET_LEN + rest.end];
        let Some(cut) = &mut rest.cut else {
            self.rest = None;
            return Some([&[], frame]);
        };
        let payload = rest.at..(rest.at + cut.size).min(rest.end);
        let head = &mut self.head[..cut.tcp.payload];
        cut.head(frame, head, &payload, payload.end == rest.end);
        (rest.at, cut.n) = (payload.end, cut.n + 1);
        if rest.at == rest.end {
            self.rest = None;
        }
        Some([head, &frame[payload]])
    }

    /// Forgets the next frame.
    pub fn skip(&mut self) {
        let _ = self.next();
    }
}

impl Cut {
    /// The headers of the segment that carries `payload`.
    fn head(&self, frame: &[u8], head: &mut [u8], payload: &Range<usize>, last: bool) {
        let tcp = &self.tcp;
        head.copy_from_slice(&frame[..tcp.payload]);
        if !tcp.v6 {
            let id = super::packet::be16(head, tcp.ip + 4).wrapping_add(self.n as u16);
            head[tcp.ip + 4..tcp.ip + 6].copy_from_slice(&id.to_be_bytes());
        }
        let len = tcp.payload + payload.len();
        tcp.set_len(head, len);
        let seq = tcp.seq(head).wrapping_add((payload.start - tcp.payload) as u32);
        head[tcp.tcp + 4..tcp.tcp + 8].copy_from_slice(&seq.to_be_bytes());
        let not = if last { 0 } else { TCP_FIN | TCP_PSH } | if self.n == 0 { 0 } else { TCP_CWR };
        head[tcp.flags()] &= !not;
        let at = tcp.checksum();
        head[at..at + 2].fill(0);
        let total = tcp.pseudo_sum(head, len - tcp.tcp) + sum(&head[tcp.tcp..]) + sum(&frame[payload.clone()]);
        head[at..at + 2].copy_from_slice(&folded(total));
    }
}
