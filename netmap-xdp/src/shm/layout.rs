//! Layout of a region: `netmap_if` objects and rings, then the page-aligned buffer pool, which is the UMEM.
//!
//! ```text
//!  0            pool                                                      size
//!  | nifps, rings | 256 | buffer 0 | buffer 1 | ...          | buffer N-1 | pad |
//!                 ^ UMEM starts here: the kernel places data 256 bytes into a chunk
//! ```
//! Buffer `i` lies at `pool + 256 + i * buf_size`; programs find it with `buf_ofs`, which absorbs the 256 bytes.

use crate::sys::PAGE;

/// Where the kernel places received data in a chunk (`XDP_PACKET_HEADROOM`).
pub const FRAME_SHIFT: u32 = 256;

/// Sizes and offsets of one region, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes for `netmap_if` objects and rings.
    pub meta: u64,
    /// Offset of the buffer pool, page aligned.
    pub pool: u64,
    /// Buffers.
    pub buffers: u32,
    /// Bytes of a buffer, and the distance from one to the next.
    pub buf_size: u32,
    /// Size of the region, whole pages.
    pub size: u64,
}

impl Layout {
    /// A region of `buffers` buffers of `buf_size` bytes with room for as many slots, and for `objects` rings and interfaces.
    pub fn plan(buffers: u32, buf_size: u32, objects: u32) -> Layout {
        let pages = |bytes: u64| bytes.next_multiple_of(PAGE as u64);
        let meta = pages(u64::from(buffers) * 16 + u64::from(objects) * 512);
        let pool = pages(u64::from(buffers) * u64::from(buf_size) + u64::from(FRAME_SHIFT));
        Layout { meta, pool: meta, buffers, buf_size, size: meta + pool }
    }

    /// Offset of buffer `i` in the region; `i < buffers`.
    #[inline]
    pub fn buffer(&self, i: u32) -> u64 {
        self.pool + u64::from(FRAME_SHIFT) + u64::from(i) * u64::from(self.buf_size)
    }

    /// Length of the UMEM: chunks of any alignment, the last one whole.
    pub fn umem_len(&self) -> u64 {
        self.size - self.pool
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_lie_inside_and_apart() {
        for (n, size) in
            [64, 65, 1000, 4096, 16384].into_iter().flat_map(|n| [64, 2048, 4096, 65536].map(|size| (n, size)))
        {
            let l = Layout::plan(n, size, 8);
            assert_eq!(l.pool % PAGE as u64, 0);
            assert_eq!(l.size % PAGE as u64, 0);
            assert!(l.buffer(n - 1) + u64::from(size) <= l.size);
            assert_eq!(l.buffer(1) - l.buffer(0), u64::from(size));
            assert!(l.meta >= u64::from(n) * 16 + 8 * 512);
        }
    }
}
