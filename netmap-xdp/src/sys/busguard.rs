//! Mappings of files that somebody else may truncate: a page that is gone becomes zeroes of our own instead of the end of
//! the process.
//!
//! For netmapd, which maps memory of programs. The handler of `SIGBUS` is installed with the first guard and knows the
//! ranges from a table of atomics; a fault anywhere else takes its ordinary course. Programs are never given the handler:
//! what they map themselves is theirs to keep.

use super::{Errno, syscall};
use crate::sync::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::Once;

/// Ranges at most.
const RANGES: usize = 256;

/// A range of addresses; free if it ends at 0, just being changed if it ends at 1.
struct Range {
    start: AtomicUsize,
    end: AtomicUsize,
    broken: AtomicBool,
}

static TABLE: [Range; RANGES] =
    [const { Range { start: AtomicUsize::new(0), end: AtomicUsize::new(0), broken: AtomicBool::new(false) } }; RANGES];
const FREE: usize = 0;
const TAKEN: usize = 1;

/// While it lives, a fault in its range is survived: the whole range becomes private memory, zero-filled. To be dropped
/// after the range was unmapped.
#[derive(Debug)]
pub struct Guard(usize);

impl Guard {
    /// Over whole pages of a mapping. `ENOMEM`: there are too many.
    pub fn over(start: usize, len: usize) -> Result<Guard, Errno> {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(install);
        for (i, range) in TABLE.iter().enumerate() {
            if range.end.compare_exchange(FREE, TAKEN, Acquire, Relaxed).is_ok() {
                range.start.store(start, Relaxed);
                range.broken.store(false, Relaxed);
                // SYNC guard: release pairs with the acquire in `handle`: the start is there.
                range.end.store(start + len, Release);
                return Ok(Guard(i));
            }
        }
        Err(Errno(libc::ENOMEM))
    }

    /// Whether pages did vanish: nothing that is written there reaches anybody any more.
    pub fn broken(&self) -> bool {
        TABLE[self.0].broken.load(Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        TABLE[self.0].end.store(FREE, Release);
    }
}

fn install() {
    // SAFETY: all zero bytes are a valid action; the handler calls nothing but `mmap` and `sigaction` and touches atomics.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn handle(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid structure, which has an address for this signal.
    let at = unsafe { (*info).si_addr() } as usize;
    for range in &TABLE {
        // SYNC guard: acquire pairs with the release in `Guard::over`.
        let end = range.end.load(Acquire);
        let start = range.start.load(Relaxed);
        if end > TAKEN && (start..end).contains(&at) {
            let prot = (libc::PROT_READ | libc::PROT_WRITE) as usize;
            let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as usize;
            // SAFETY: replaces the guarded mapping, which is shared memory that tolerates any contents.
            let done = unsafe { syscall(libc::SYS_mmap, [start, end - start, prot, flags, usize::MAX, 0]) };
            if done.is_ok() {
                range.broken.store(true, Relaxed);
                return;
            }
        }
    }
    // Not ours: what follows the return is the ordinary end.
    // SAFETY: all zero bytes are the default action.
    unsafe {
        let action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use crate::sys::{Map, PAGE};
    use std::os::fd::AsRawFd;

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn a_file_that_is_truncated_under_a_guarded_mapping_does_not_kill() {
        // SAFETY: the name is a C string, the other calls take integers; the mapping is read where it lies.
        unsafe {
            let fd = super::super::Fd::from_raw_high(libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC));
            assert_eq!(libc::ftruncate(fd.as_raw_fd(), 4 * PAGE as i64), 0);
            let map = Map::of_file(&fd, PAGE as u64, 3 * PAGE, true).unwrap();
            let byte = map.addr().as_ptr().add(2 * PAGE);
            byte.write_volatile(7);
            assert_eq!(byte.read_volatile(), 7);
            assert!(!map.broken());
            assert_eq!(libc::ftruncate(fd.as_raw_fd(), 0), 0);
            assert_eq!(byte.read_volatile(), 0, "zeroes of our own");
            byte.write_volatile(8);
            assert_eq!(byte.read_volatile(), 8);
            assert!(map.broken());
        }
    }
}
