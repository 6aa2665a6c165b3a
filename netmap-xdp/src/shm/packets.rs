//! The buffers of a region, checked once: on the data path an index is all that is left to check.

use super::BUF_SIZE;
use super::memory::{Memory, OutOfRange};
use crate::abi::NETMAP_FIRST_BUF;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes that are copied at once: a cache line.
const LINE: u32 = 64;
/// Packets shorter than this are copied in whole lines, without a call.
const LINES_BELOW: u16 = 1024;

const _: () = assert!(BUF_SIZE.is_multiple_of(LINE) && BUF_SIZE <= u16::MAX as u32);

/// All buffers of a region; keeps its mapping alive. Their bytes are written by others at any time: what is copied may be a
/// mixture of old and new, as a network card would leave it.
pub struct Packets {
    /// Where number [`NETMAP_FIRST_BUF`] lies, the first that may be given out, and how many there are from there on.
    first: NonNull<u8>,
    usable: u32,
    _memory: Arc<Memory>,
}

// SAFETY: a place in a mapping that belongs to the process; it is read and written by copies alone.
unsafe impl Send for Packets {}
// SAFETY: as above.
unsafe impl Sync for Packets {}

impl Packets {
    /// `count` buffers, of which number 0 lies at `offset`.
    pub fn at(memory: &Arc<Memory>, offset: u64, count: u32) -> Result<Packets, OutOfRange> {
        let all = memory.locate::<[u8; BUF_SIZE as usize]>(offset, count as usize)?;
        let usable = count.saturating_sub(NETMAP_FIRST_BUF);
        // SAFETY: if there are fewer, none is usable, and `first` is never used; the address is still one of the mapping.
        let first = unsafe { all.add((count - usable) as usize) };
        Ok(Packets { first: first.cast(), usable, _memory: memory.clone() })
    }

    /// Whether `idx` names a buffer that may be given out.
    #[inline]
    pub fn has(&self, idx: u32) -> bool {
        idx.wrapping_sub(NETMAP_FIRST_BUF) < self.usable
    }

    /// Where a buffer lies.
    ///
    /// # Safety
    /// There is such a buffer: [`Packets::has`].
    #[inline]
    unsafe fn place(&self, idx: u32) -> NonNull<u8> {
        // SAFETY: the buffers from `first` on lie in the mapping, as `at` checked.
        unsafe { self.first.add((idx - NETMAP_FIRST_BUF) as usize * BUF_SIZE as usize) }
    }

    /// Sixteen bytes of a buffer from `skip` on, if they are there.
    #[inline]
    pub fn head(&self, idx: u32, skip: u16) -> Option<[u8; 16]> {
        if !self.has(idx) || u32::from(skip) + 16 > BUF_SIZE {
            return None;
        }
        // SAFETY: within the buffer, as just checked; bytes need no alignment.
        Some(unsafe { self.place(idx).add(skip.into()).cast::<[u8; 16]>().read() })
    }

    /// Copies the first `len` bytes of a buffer into another, up to the end of the last line where that is faster. False if
    /// either is no buffer, or shorter.
    #[inline]
    pub fn copy(&self, idx: u32, to: &Packets, into: u32, len: u16) -> bool {
        if !self.has(idx) || !to.has(into) {
            return false;
        }
        // SAFETY: there are such buffers, as just checked.
        let (from, at) = unsafe { (self.place(idx), to.place(into)) };
        if len >= LINES_BELOW {
            if u32::from(len) > BUF_SIZE {
                return false;
            }
            // SAFETY: both buffers are that long. They may be the same.
            unsafe { from.copy_to(at, len.into()) };
            return true;
        }
        let (from, at) = (from.cast::<[u8; LINE as usize]>(), at.cast::<[u8; LINE as usize]>());
        // SAFETY: a buffer consists of whole lines. A line is read before it is written, so the two may be the same.
        unsafe { at.write(from.read()) };
        for i in 1..usize::from(len).div_ceil(LINE as usize) {
            // SAFETY: as above.
            unsafe { at.add(i).write(from.add(i).read()) };
        }
        true
    }

    /// Asks for the first line of a buffer. What is no buffer costs nothing but the time.
    #[inline]
    pub fn prefetch(&self, idx: u32) {
        prefetch(self.anywhere(idx));
    }

    /// The same for a buffer that will be written.
    #[inline]
    pub fn prefetch_to_write(&self, idx: u32) {
        prefetch_to_write(self.anywhere(idx));
    }

    /// Where a buffer would lie: an address to hint at, and for nothing else.
    #[inline]
    fn anywhere(&self, idx: u32) -> *const u8 {
        let first = self.first.as_ptr().wrapping_sub((NETMAP_FIRST_BUF * BUF_SIZE) as usize);
        first.wrapping_add(idx as usize * BUF_SIZE as usize)
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
fn prefetch(at: *const u8) {
    // SAFETY: a hint, which faults for no address.
    unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast()) };
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
fn prefetch_to_write(at: *const u8) {
    // The intrinsic for it becomes a prefetch to read unless the compiler may assume newer processors; the instruction is
    // known to all of x86-64, to some as one that does nothing.
    // SAFETY: a hint, which faults for no address.
    unsafe { std::arch::asm!("prefetchw byte ptr [{0}]", in(reg) at, options(nostack, preserves_flags, readonly)) };
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn prefetch(_: *const u8) {}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn prefetch_to_write(_: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sealed_memfd;

    const OFFSET: u64 = 4096 + 256;

    fn packets(count: u32) -> (Arc<Memory>, Packets) {
        let size = 64 * 1024;
        let memory = Memory::map(&sealed_memfd(c"test", size).unwrap(), size, 0, false).unwrap();
        let packets = Packets::at(&memory, OFFSET, count).unwrap();
        (memory, packets)
    }

    fn at(idx: u32) -> u64 {
        OFFSET + u64::from(idx * BUF_SIZE)
    }

    #[test]
    fn buffers_end_where_the_mapping_ends() {
        let (memory, _) = packets(8);
        assert!(Packets::at(&memory, OFFSET, 29).is_ok());
        assert!(Packets::at(&memory, OFFSET, 30).is_err());
        assert!(Packets::at(&memory, u64::MAX, 1).is_err());
    }

    #[test]
    fn an_index_that_names_no_buffer_does_nothing() {
        let (_memory, p) = packets(8);
        for idx in [0, 1, 8, 9, u32::MAX] {
            assert!(!p.has(idx) && p.head(idx, 0).is_none());
            assert!(!p.copy(idx, &p, 2, 60) && !p.copy(2, &p, idx, 60));
            p.prefetch(idx);
            p.prefetch_to_write(idx);
        }
        assert!(p.head(2, 2032).is_some() && p.head(2, 2033).is_none());
        assert!(!p.copy(2, &p, 3, 2049));
    }

    #[test]
    fn every_length_is_copied_and_neighbours_stay_intact() {
        let (memory, p) = packets(8);
        let bytes: Vec<u8> = (0..BUF_SIZE).map(|i| i as u8 ^ 0x5a).collect();
        memory.write(at(2), &bytes).unwrap();
        for len in (0..=130).chain([1000, 1023, 1024, 1025, 1514, 2047, 2048]) {
            memory.write(at(4), &vec![0xee; 3 * BUF_SIZE as usize]).unwrap();
            assert!(p.copy(2, &p, 5, len));
            let mut got = vec![0; 3 * BUF_SIZE as usize];
            memory.read(at(4), &mut got).unwrap();
            let (before, rest) = got.split_at(BUF_SIZE as usize);
            let (copied, after) = rest.split_at(BUF_SIZE as usize);
            assert_eq!(copied[..len.into()], bytes[..len.into()], "{len}");
            assert!(before.iter().chain(after).all(|&b| b == 0xee), "{len}");
        }
        assert!(p.copy(2, &p, 2, 2048), "onto itself");
        assert_eq!(p.head(2, 3), Some(std::array::from_fn(|i| bytes[i + 3])));
    }
}
