//! Addresses: which UMEM address means which buffer. Pure arithmetic.
//!
//! Buffers have a stride of 2048 bytes and lie 256 bytes into the UMEM, since that is where the kernel places received data
//! in a chunk (`KERNEL-FACTS` 3 and 4 of the design notes).
//!
//! * unaligned: a fill address is `i * 2048`, the chunk has 2304 bytes, and a buffer carries all its 2048 bytes.
//! * aligned: chunks of 2048 bytes. A buffer begins 256 bytes into its chunk and ends 256 bytes into the next, where nobody
//!   writes. Received frames have 1792 bytes at most; a longer one to be sent takes two descriptors.

use crate::shm::{BUF_SIZE, FRAME_SHIFT};

/// Low 48 bits of an address are the chunk's, the rest is an offset (`XSK_UNALIGNED_BUF_OFFSET_SHIFT`).
const BASE_BITS: u32 = 48;
const BASE_MASK: u64 = (1 << BASE_BITS) - 1;

/// How buffers lie in the UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Geometry {
    /// Chunks of 2304 bytes, 2048 apart.
    Unaligned,
    /// Chunks of 2048 bytes.
    Aligned,
}

/// One transmit descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxDesc {
    /// Address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// Whether the frame goes on in the next descriptor.
    pub more: bool,
}

/// The descriptors of one buffer, and the key by which its last completion is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxPlan {
    /// First descriptor.
    pub first: TxDesc,
    /// Second one, for a buffer that leaves its aligned chunk.
    pub second: Option<TxDesc>,
    /// [`Geometry::key`] of the last one's address.
    pub key: u32,
}

impl Geometry {
    /// `chunk_size` of the UMEM.
    pub fn chunk(self) -> u32 {
        match self {
            Geometry::Unaligned => BUF_SIZE + FRAME_SHIFT,
            Geometry::Aligned => BUF_SIZE,
        }
    }

    /// Bytes of the largest frame that is received in one buffer.
    pub fn rx_limit(self) -> u32 {
        self.chunk() - FRAME_SHIFT
    }

    /// Address that puts buffer `i` into the fill ring.
    #[inline]
    pub fn fill(self, i: u32) -> u64 {
        u64::from(i) * u64::from(BUF_SIZE)
    }

    /// Buffer of a received descriptor's address, and where its data begins relative to the buffer's start: 0 unless the
    /// XDP program moved it.
    #[inline]
    pub fn received(self, addr: u64) -> (u64, i64) {
        let (base, shift) = match self {
            Geometry::Unaligned => (addr & BASE_MASK, addr >> BASE_BITS),
            Geometry::Aligned => (addr / u64::from(BUF_SIZE) * u64::from(BUF_SIZE), addr % u64::from(BUF_SIZE)),
        };
        // An unaligned base is where the fill address was; bit 0 is the kernel's.
        (base / u64::from(BUF_SIZE), shift as i64 + (base % u64::from(BUF_SIZE)) as i64 - i64::from(FRAME_SHIFT))
    }

    /// Descriptors that send `len` bytes (1 to 2048) of buffer `i`.
    #[inline]
    pub fn transmit(self, i: u32, len: u32, more: bool) -> TxPlan {
        self.transmit_at(i, 0, len, more)
    }

    /// The same for bytes that begin `offset` bytes into the buffer and end in it. Of an unaligned chunk the offset is a
    /// field of its own; of an aligned one it moves the address, though never into the address of another buffer.
    #[inline]
    pub fn transmit_at(self, i: u32, offset: u32, len: u32, more: bool) -> TxPlan {
        let addr = self.fill(i) + u64::from(FRAME_SHIFT);
        if self == Geometry::Unaligned {
            let addr = addr | u64::from(offset) << BASE_BITS;
            return TxPlan { first: TxDesc { addr, len, more }, second: None, key: Self::key(addr) };
        }
        let addr = addr + u64::from(offset);
        let head = self.rx_limit().saturating_sub(offset);
        if head == 0 || len <= head {
            return TxPlan { first: TxDesc { addr, len, more }, second: None, key: Self::key(addr) };
        }
        let second = TxDesc { addr: addr + u64::from(head), len: len - head, more };
        TxPlan { first: TxDesc { addr, len: head, more: true }, second: Some(second), key: Self::key(second.addr) }
    }

    /// What is remembered of an address until its completion: every address that [`Geometry::transmit`] makes lies in 256
    /// bytes of its own buffer and not in the first of all, so this fits, is not 0, and names the buffer.
    #[inline]
    pub fn key(addr: u64) -> u32 {
        ((addr & BASE_MASK) / u64::from(FRAME_SHIFT)) as u32
    }
}

/// The largest MTU whose frames, with Ethernet header and one VLAN tag, fit in one received buffer.
pub fn mtu_that_fits(g: Geometry) -> u32 {
    g.rx_limit() - 18
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_buffer_comes_back_as_itself() {
        for i in [2, 3, 1000, (1 << 24) - 1] {
            let g = Geometry::Unaligned;
            assert_eq!(g.received(g.fill(i) | 256 << 48), (u64::from(i), 0));
            assert_eq!(g.received(g.fill(i) | 192 << 48), (u64::from(i), -64));
            let g = Geometry::Aligned;
            assert_eq!(g.received(g.fill(i) + 256), (u64::from(i), 0));
        }
    }

    #[test]
    fn nonsense_addresses_give_nonsense_indexes_and_no_panic() {
        for g in [Geometry::Unaligned, Geometry::Aligned] {
            for addr in [0, 1, u64::MAX, 1 << 48, (1 << 48) - 1, 255 << 48] {
                let _ = g.received(addr);
                let _ = Geometry::key(addr);
            }
        }
    }

    #[test]
    fn an_unaligned_buffer_is_one_descriptor_whatever_its_length() {
        let plan = Geometry::Unaligned.transmit(5, 2048, false);
        assert_eq!(plan.first, TxDesc { addr: 5 * 2048 + 256, len: 2048, more: false });
        assert_eq!(plan.second, None);
    }

    #[test]
    fn a_long_aligned_buffer_is_cut_at_its_chunk() {
        let plan = Geometry::Aligned.transmit(5, 2048, true);
        assert_eq!(plan.first, TxDesc { addr: 5 * 2048 + 256, len: 1792, more: true });
        assert_eq!(plan.second, Some(TxDesc { addr: 6 * 2048, len: 256, more: true }));
        assert_eq!(Geometry::Aligned.transmit(5, 1792, false).second, None);
    }

    #[test]
    fn an_offset_moves_the_data_and_not_the_key_of_an_unaligned_buffer() {
        let plan = Geometry::Unaligned.transmit_at(5, 100, 60, false);
        assert_eq!(plan.first, TxDesc { addr: (5 * 2048 + 256) | (100 << 48), len: 60, more: false });
        assert_eq!(plan.key, Geometry::Unaligned.transmit(5, 60, false).key);
    }

    #[test]
    fn aligned_pieces_with_offsets_stay_in_their_chunks_and_buffers() {
        for offset in 0..2048u32 {
            for len in [1, 2048 - offset] {
                let plan = Geometry::Aligned.transmit_at(5, offset, len, false);
                let pieces = std::iter::once(plan.first).chain(plan.second);
                let mut at = 5 * 2048 + 256 + u64::from(offset);
                for d in pieces {
                    assert_eq!((d.addr, d.addr / 2048), (at, (d.addr + u64::from(d.len) - 1) / 2048), "{offset} {len}");
                    assert!((5 * 8 + 1..=6 * 8).contains(&Geometry::key(d.addr)), "{offset} {len}");
                    at += u64::from(d.len);
                }
                assert_eq!(at, 5 * 2048 + 256 + u64::from(offset + len));
            }
        }
    }

    #[test]
    fn keys_of_all_descriptors_differ() {
        let mut seen = std::collections::HashSet::new();
        for i in 2..5000 {
            let plan = Geometry::Aligned.transmit(i, 2048, false);
            assert!(seen.insert(Geometry::key(plan.first.addr)));
            assert!(seen.insert(plan.key), "{i}");
        }
        assert!(!seen.contains(&0));
    }

    #[test]
    fn the_kernels_bit_zero_does_not_matter() {
        let a = Geometry::Unaligned.transmit(77, 60, false).first.addr;
        assert_eq!(Geometry::key(a), Geometry::key(a | 1));
    }
}
