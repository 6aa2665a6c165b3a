//! Addresses: which UMEM address means which buffer. Pure arithmetic.
//!
//! Buffers lie `stride` bytes apart, 2048 or 4096, and 256 bytes into the UMEM, since that is where the kernel places received
//! data in a chunk (`KERNEL-FACTS` 3 and 4 of the design notes). No chunk is larger than a page: the kernel refuses that, of
//! hugepages too.
//!
//! * unaligned: a fill address is `i * stride`, the chunk has 2304 bytes, or all 4096 of a page. A buffer of 2048 bytes is
//!   received and sent in one piece; of 4096 bytes, all can be sent, and 3840 are received.
//! * aligned: chunks of `stride` bytes. A buffer begins 256 bytes into its chunk and ends 256 bytes into the next, where nobody
//!   writes. Received frames have `stride - 256` bytes at most; a longer one to be sent takes two descriptors.
//!
//! The kernel can leave more room before what it receives, the *headroom*: the offset at which packets are to begin.

use crate::shm::FRAME_SHIFT;
use crate::sys::{NIC_BUF_SIZES, PAGE};

/// Low 48 bits of an address are the chunk's, the rest is an offset (`XSK_UNALIGNED_BUF_OFFSET_SHIFT`).
const BASE_BITS: u32 = 48;
const BASE_MASK: u64 = (1 << BASE_BITS) - 1;

/// How chunks lie in the UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chunks {
    /// Anywhere: as long as a buffer and what the kernel keeps before it, as far as a page has room for both.
    Unaligned,
    /// At multiples of their size.
    Aligned,
}

/// How buffers lie in the UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    chunks: Chunks,
    /// Bytes from one buffer to the next.
    stride: u32,
    /// Bytes of a buffer before what is received.
    headroom: u32,
}

/// What headroom leaves of a buffer at least. Kernels of late ask for 128 bytes and what their own structure behind a frame takes
/// (`xdp_umem_reg`, `skb_shared_info`: 320 bytes, or 384).
const LEAST: u32 = 512;

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
    /// Buffers of `size` bytes in such chunks; nothing if it is none of [`NIC_BUF_SIZES`].
    pub fn new(chunks: Chunks, size: u32) -> Option<Geometry> {
        NIC_BUF_SIZES.contains(&size).then_some(Geometry { chunks, stride: size, headroom: 0 })
    }

    /// How chunks lie.
    #[inline]
    pub fn chunks(self) -> Chunks {
        self.chunks
    }

    /// The same buffers in other chunks.
    #[must_use]
    pub fn with(self, chunks: Chunks) -> Geometry {
        Geometry { chunks, ..self }
    }

    /// The same, where the kernel puts what it receives `offset` bytes into the buffers, if that leaves enough of them.
    #[must_use]
    pub fn behind(self, offset: u64) -> Geometry {
        let most = self.room() - LEAST;
        let headroom = u32::try_from(offset).ok().filter(|offset| *offset <= most).unwrap_or(0);
        Geometry { headroom, ..self }
    }

    /// Bytes of a buffer before what is received in it: `headroom` of the UMEM.
    #[inline]
    pub fn headroom(self) -> u32 {
        self.headroom
    }

    /// Bytes of a buffer, and the distance from one to the next.
    #[inline]
    pub fn stride(self) -> u32 {
        self.stride
    }

    /// `chunk_size` of the UMEM.
    pub fn chunk(self) -> u32 {
        match self.chunks {
            Chunks::Unaligned => (self.stride() + FRAME_SHIFT).min(PAGE as u32),
            Chunks::Aligned => self.stride(),
        }
    }

    /// Bytes of a buffer that lie in its chunk.
    #[inline]
    fn room(self) -> u32 {
        self.chunk() - FRAME_SHIFT
    }

    /// Bytes of the largest frame that is received in one buffer.
    pub fn rx_limit(self) -> u32 {
        self.room() - self.headroom
    }

    /// Address that puts buffer `i` into the fill ring.
    #[inline]
    pub fn fill(self, i: u32) -> u64 {
        u64::from(i) * u64::from(self.stride)
    }

    /// Address by which buffer `i` is received, unless an XDP program moved its data.
    #[inline]
    pub fn arrival(self, i: u32) -> u64 {
        let shift = u64::from(FRAME_SHIFT + self.headroom);
        self.fill(i) + if self.chunks == Chunks::Unaligned { shift << BASE_BITS } else { shift }
    }

    /// Buffer of a received descriptor's address, and where its data begins relative to the buffer's start: the headroom,
    /// unless the XDP program moved it.
    #[inline]
    pub fn received(self, addr: u64) -> (u64, i64) {
        let (base, shift) = match self.chunks {
            Chunks::Unaligned => (addr & BASE_MASK, addr >> BASE_BITS),
            Chunks::Aligned => (addr, 0),
        };
        // An unaligned base is where the fill address was; bit 0 is the kernel's.
        let inside = base % u64::from(self.stride);
        (base / u64::from(self.stride), shift as i64 + inside as i64 - i64::from(FRAME_SHIFT))
    }

    /// The descriptor that sends `len` bytes (1 to a buffer's) of buffer `i`, of unaligned chunks.
    #[inline]
    pub fn whole(self, i: u32, len: u32, more: bool) -> TxPlan {
        let addr = self.fill(i) + u64::from(FRAME_SHIFT);
        TxPlan { first: TxDesc { addr, len, more }, second: None, key: Self::key(addr) }
    }

    /// Descriptors that send `len` bytes (1 to a buffer's) of buffer `i`.
    #[inline]
    pub fn transmit(self, i: u32, len: u32, more: bool) -> TxPlan {
        self.transmit_at(i, 0, len, more)
    }

    /// The same for bytes that begin `offset` bytes into the buffer and end in it. Of an unaligned chunk the offset is a
    /// field of its own; of an aligned one it moves the address, though never into the address of another buffer.
    #[inline]
    pub fn transmit_at(self, i: u32, offset: u32, len: u32, more: bool) -> TxPlan {
        let addr = self.fill(i) + u64::from(FRAME_SHIFT);
        if self.chunks == Chunks::Unaligned {
            let addr = addr | u64::from(offset) << BASE_BITS;
            return TxPlan { first: TxDesc { addr, len, more }, second: None, key: Self::key(addr) };
        }
        let addr = addr + u64::from(offset);
        let head = self.room().saturating_sub(offset);
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
        // The offset of an unaligned address lies above what is left.
        (addr / u64::from(FRAME_SHIFT)) as u32
    }
}

/// What a frame has beside its MTU: an Ethernet header and one VLAN tag.
pub const HEADERS: u32 = 18;

/// The largest MTU whose frames fit in one received buffer.
pub fn mtu_that_fits(g: Geometry) -> u32 {
    g.rx_limit() - HEADERS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(chunks: Chunks, size: u32) -> Geometry {
        Geometry::new(chunks, size).unwrap()
    }

    fn all() -> impl Iterator<Item = Geometry> {
        let chunks = [Chunks::Unaligned, Chunks::Aligned];
        chunks.into_iter().flat_map(|c| NIC_BUF_SIZES.map(|size| geometry(c, size)))
    }

    #[test]
    fn the_kernel_takes_every_chunk_and_no_frame_leaves_its_buffer() {
        for g in all() {
            assert!((2048..=4096).contains(&g.chunk()), "{g:?}");
            assert!(g.chunks() == Chunks::Unaligned || g.chunk() == g.stride(), "{g:?}");
            assert!(g.rx_limit() <= g.stride(), "{g:?}");
        }
        let limits = all().map(|g| (g.stride(), g.rx_limit())).collect::<Vec<_>>();
        assert_eq!(limits, [(2048, 2048), (4096, 3840), (2048, 1792), (4096, 3840)]);
        assert_eq!(Geometry::new(Chunks::Unaligned, 8192), None);
        assert_eq!(Geometry::new(Chunks::Aligned, 3840), None);
    }

    #[test]
    fn a_filled_buffer_comes_back_as_itself() {
        for size in NIC_BUF_SIZES {
            for i in [2, 3, 1000, (1 << 24) - 1] {
                let g = geometry(Chunks::Unaligned, size);
                assert_eq!(g.received(g.fill(i) | 256 << 48), (u64::from(i), 0));
                assert_eq!(g.received(g.fill(i) | 192 << 48), (u64::from(i), -64));
                let g = geometry(Chunks::Aligned, size);
                assert_eq!(g.received(g.fill(i) + 256), (u64::from(i), 0));
                for g in all() {
                    assert_eq!(g.received(g.arrival(i)), (u64::from(i), 0));
                }
            }
        }
    }

    #[test]
    fn what_is_received_leaves_the_headroom_free_and_stays_in_its_buffer() {
        for g in all() {
            for offset in [1, 64, 100, 1000, 1280, 1536, 3328] {
                let behind = g.behind(offset);
                let there = u64::from(behind.headroom());
                assert_eq!(there, if offset <= u64::from(g.rx_limit() - 512) { offset } else { 0 }, "{g:?} {offset}");
                assert_eq!(u64::from(behind.rx_limit()) + there, g.rx_limit().into());
                for i in [2, 3, 1000, (1 << 24) - 1] {
                    assert_eq!(behind.received(behind.arrival(i)), (u64::from(i), there as i64), "{behind:?} {i}");
                    assert_eq!(behind.fill(i), g.fill(i));
                    assert_eq!(behind.transmit(i, g.stride(), false), g.transmit(i, g.stride(), false));
                }
            }
            assert_eq!(g.behind(u64::MAX).headroom(), 0);
            assert_eq!(g.behind(100).behind(0), g);
        }
    }

    #[test]
    fn nonsense_addresses_give_nonsense_indexes_and_no_panic() {
        for g in all() {
            for addr in [0, 1, u64::MAX, 1 << 48, (1 << 48) - 1, 255 << 48] {
                let _ = g.received(addr);
                let _ = Geometry::key(addr);
            }
        }
    }

    #[test]
    fn an_unaligned_buffer_is_one_descriptor_whatever_its_length() {
        for size in NIC_BUF_SIZES {
            let g = geometry(Chunks::Unaligned, size);
            let plan = g.transmit(5, size, false);
            assert_eq!(plan.first, TxDesc { addr: u64::from(5 * size + 256), len: size, more: false });
            assert_eq!(plan.second, None);
            assert_eq!(g.whole(5, size, false), plan);
            assert!(plan.first.len <= g.chunk());
        }
    }

    #[test]
    fn a_long_aligned_buffer_is_cut_at_its_chunk() {
        for size in NIC_BUF_SIZES {
            let g = geometry(Chunks::Aligned, size);
            let plan = g.transmit(5, size, true);
            assert_eq!(plan.first, TxDesc { addr: u64::from(5 * size + 256), len: size - 256, more: true });
            assert_eq!(plan.second, Some(TxDesc { addr: u64::from(6 * size), len: 256, more: true }));
            assert_eq!(g.transmit(5, size - 256, false).second, None);
        }
    }

    #[test]
    fn an_offset_moves_the_data_and_not_the_key_of_an_unaligned_buffer() {
        let g = geometry(Chunks::Unaligned, 2048);
        let plan = g.transmit_at(5, 100, 60, false);
        assert_eq!(plan.first, TxDesc { addr: (5 * 2048 + 256) | (100 << 48), len: 60, more: false });
        assert_eq!(plan.key, g.transmit(5, 60, false).key);
    }

    #[test]
    fn aligned_pieces_with_offsets_stay_in_their_chunks_and_buffers() {
        for size in NIC_BUF_SIZES {
            let g = geometry(Chunks::Aligned, size);
            for (offset, len) in (0..size).flat_map(|offset| [(offset, 1), (offset, size - offset)]) {
                let plan = g.transmit_at(5, offset, len, false);
                let pieces = std::iter::once(plan.first).chain(plan.second);
                let (mut at, size) = (u64::from(5 * size + 256 + offset), u64::from(size));
                for d in pieces {
                    assert_eq!((d.addr, d.addr / size), (at, (d.addr + u64::from(d.len) - 1) / size), "{offset} {len}");
                    let keys = (5 * size / 256 + 1)..=(6 * size / 256);
                    assert!(keys.contains(&Geometry::key(d.addr).into()), "{offset} {len}");
                    at += u64::from(d.len);
                }
                assert_eq!(at, 5 * size + 256 + u64::from(offset + len));
            }
        }
    }

    #[test]
    fn keys_of_all_descriptors_differ() {
        for size in NIC_BUF_SIZES {
            let mut seen = std::collections::HashSet::new();
            for i in 2..5000 {
                let plan = geometry(Chunks::Aligned, size).transmit(i, size, false);
                assert!(seen.insert(Geometry::key(plan.first.addr)));
                assert!(seen.insert(plan.key), "{i}");
            }
            assert!(!seen.contains(&0));
        }
    }

    #[test]
    fn the_kernels_bit_zero_does_not_matter() {
        let a = geometry(Chunks::Unaligned, 2048).transmit(77, 60, false).first.addr;
        assert_eq!(Geometry::key(a), Geometry::key(a | 1));
    }
}
