//! The buffers of a region, checked once: on the data path an index is all that is left to check.

use super::memory::{Memory, OutOfRange};
use crate::abi::NETMAP_FIRST_BUF;
use crate::sys::{BUF_ALIGN, is_buf_size};
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes that are copied at once: a cache line.
const LINE: u32 = BUF_ALIGN;
/// Packets shorter than this are copied in whole lines, without a call.
const LINES_BELOW: u16 = 1024;

/// All buffers of a region; keeps its mapping alive. Their bytes are written by others at any time: what is copied may be a
/// mixture of old and new, as a network card would leave it.
pub struct Packets {
    /// Where number 0 lies.
    start: NonNull<u8>,
    usable: Usable,
    /// Bytes of one, whole lines.
    size: usize,
    _memory: Arc<Memory>,
}

/// How many buffers may be given out, from number [`NETMAP_FIRST_BUF`] on.
#[derive(Clone, Copy, Debug)]
pub struct Usable(u32);

impl Usable {
    /// Whether `idx` names one of them.
    #[inline]
    pub fn has(self, idx: u32) -> bool {
        idx.wrapping_sub(NETMAP_FIRST_BUF) < self.0
    }
}

// SAFETY: a place in a mapping that belongs to the process; it is read and written by copies alone.
unsafe impl Send for Packets {}
// SAFETY: as above.
unsafe impl Sync for Packets {}

impl Packets {
    /// `count` buffers of `size` bytes, of which number 0 lies at `offset`.
    pub fn at(memory: &Arc<Memory>, offset: u64, count: u32, size: u32) -> Result<Packets, OutOfRange> {
        if !is_buf_size(size) {
            return Err(OutOfRange { offset, len: size.into(), size: memory.size() as u64 });
        }
        // 64 bits hold the product of any two numbers of 32.
        let size = size as usize;
        let start = memory.locate::<u8>(offset, count as usize * size)?;
        Ok(Packets { start, usable: Usable(count.saturating_sub(NETMAP_FIRST_BUF)), size, _memory: memory.clone() })
    }

    /// Bytes of a buffer.
    #[inline]
    pub fn size(&self) -> u32 {
        self.size as u32
    }

    /// Whether `idx` names a buffer that may be given out.
    #[inline]
    pub fn has(&self, idx: u32) -> bool {
        self.usable.has(idx)
    }

    /// Which ones may be given out, for a loop that asks of many.
    #[inline]
    pub fn usable(&self) -> Usable {
        self.usable
    }

    /// Where a buffer lies.
    ///
    /// # Safety
    /// There is such a buffer: [`Packets::has`].
    #[inline]
    unsafe fn place(&self, idx: u32) -> NonNull<u8> {
        // SAFETY: all buffers lie in the mapping, as `at` checked.
        unsafe { self.start.add(idx as usize * self.size) }
    }

    /// Sixteen bytes of a buffer from `skip` on, if they are there.
    #[inline]
    pub fn head(&self, idx: u32, skip: u16) -> Option<[u8; 16]> {
        if !self.has(idx) || usize::from(skip) + 16 > self.size {
            return None;
        }
        // SAFETY: within the buffer, as just checked; bytes need no alignment.
        Some(unsafe { self.place(idx).add(skip.into()).cast::<[u8; 16]>().read() })
    }

    /// For copies of packets from these buffers to those of `to`.
    #[inline]
    pub fn copies<'a>(&'a self, to: &'a Packets) -> Copies<'a> {
        Copies { from: self, to, most: self.size.min(to.size) }
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
        self.start.as_ptr().wrapping_add(idx as usize * self.size)
    }
}

/// Copies from some buffers to others.
pub struct Copies<'a> {
    from: &'a Packets,
    to: &'a Packets,
    /// Bytes that fit in either's.
    most: usize,
}

impl Copies<'_> {
    /// Copies the first `len` bytes of a buffer into another, up to the end of the last line where that is faster. False if
    /// either is no buffer, or shorter.
    #[inline]
    pub fn copy(&self, idx: u32, into: u32, len: u16) -> bool {
        if !self.from.has(idx) || !self.to.has(into) || usize::from(len) > self.most {
            return false;
        }
        // SAFETY: there are such buffers, as just checked.
        let (from, at) = unsafe { (self.from.place(idx), self.to.place(into)) };
        if len >= LINES_BELOW {
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

    fn packets(count: u32, bytes: u32) -> (Arc<Memory>, Packets) {
        let size = 64 * 1024;
        let memory = Memory::map(&sealed_memfd(c"test", size).unwrap(), size, 0, false).unwrap();
        let packets = Packets::at(&memory, OFFSET, count, bytes).unwrap();
        (memory, packets)
    }

    #[test]
    fn buffers_end_where_the_mapping_ends() {
        let (memory, _) = packets(8, 2048);
        for (count, size) in [(29, 2048), (14, 4096), (956, 64)] {
            assert!(Packets::at(&memory, OFFSET, count, size).is_ok(), "{size}");
            assert!(Packets::at(&memory, OFFSET, count + 1, size).is_err(), "{size}");
        }
        assert!(Packets::at(&memory, u64::MAX, 1, 2048).is_err());
    }

    #[test]
    fn sizes_that_no_buffer_has_are_refused() {
        let (memory, _) = packets(8, 2048);
        for size in [0, 1, 63, 2000, 65600, u32::MAX - 63] {
            assert!(Packets::at(&memory, OFFSET, 1, size).is_err(), "{size}");
        }
        assert!(Packets::at(&memory, OFFSET, u32::MAX, 65536).is_err());
    }

    #[test]
    fn a_packet_that_is_too_long_for_the_other_buffers_is_not_copied() {
        let (memory, p) = packets(8, 2048);
        let small = Packets::at(&memory, OFFSET + 32768, 8, 128).unwrap();
        assert!(p.copies(&small).copy(2, 2, 128) && small.copies(&p).copy(2, 2, 128));
        assert!(!p.copies(&small).copy(2, 2, 129) && !small.copies(&p).copy(2, 2, 129));
    }

    #[test]
    fn an_index_that_names_no_buffer_does_nothing() {
        let (_memory, p) = packets(8, 2048);
        for idx in [0, 1, 8, 9, u32::MAX] {
            assert!(!p.has(idx) && p.head(idx, 0).is_none());
            assert!(!p.copies(&p).copy(idx, 2, 60) && !p.copies(&p).copy(2, idx, 60));
            p.prefetch(idx);
            p.prefetch_to_write(idx);
        }
        assert!(p.head(2, 2032).is_some() && p.head(2, 2033).is_none());
        assert!(!p.copies(&p).copy(2, 3, 2049));
    }

    #[test]
    fn every_length_is_copied_and_neighbours_stay_intact() {
        for size in [1088, 2048, 4096] {
            let (memory, p) = packets(8, size);
            let (at, whole) = (|idx: u32| OFFSET + u64::from(idx * size), size as u16);
            let bytes: Vec<u8> = (0..size).map(|i| i as u8 ^ 0x5a).collect();
            memory.write(at(2), &bytes).unwrap();
            let lengths = (0..=130).chain([1000, 1023, 1024, 1025, 1514, 2047, 2048, 4095]).chain([whole]);
            for len in lengths.filter(|&len| len <= whole) {
                memory.write(at(4), &vec![0xee; 3 * size as usize]).unwrap();
                assert!(p.copies(&p).copy(2, 5, len));
                let mut got = vec![0; 3 * size as usize];
                memory.read(at(4), &mut got).unwrap();
                let (before, rest) = got.split_at(size as usize);
                let (copied, after) = rest.split_at(size as usize);
                assert_eq!(copied[..len.into()], bytes[..len.into()], "{len}");
                assert!(before.iter().chain(after).all(|&b| b == 0xee), "{len}");
            }
            assert!(p.copies(&p).copy(2, 2, whole), "onto itself");
            assert!(!p.copies(&p).copy(2, 3, whole + 1));
            assert_eq!(p.head(2, 3), Some(std::array::from_fn(|i| bytes[i + 3])));
        }
    }
}
