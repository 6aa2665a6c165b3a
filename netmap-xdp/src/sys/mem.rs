//! Shared memory: sealed memfds and mappings that unmap themselves.

use super::program::page_size;
use super::{Errno, Fd, Guard, OwnProcess, UserMem, syscall};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// Size of a page of every machine that runs AF_XDP here.
pub const PAGE: usize = 4096;

/// A memfd of `len` bytes, zero-filled, sealed against shrinking, growing and further seals.
///
/// A peer that holds the descriptor can therefore never make a mapping of ours fault.
pub fn sealed_memfd(name: &std::ffi::CStr, len: usize) -> Result<Fd, Errno> {
    memfd(name, len, 0)
}

/// The same of huge pages of the usual size, of which `len` is a multiple (else `EINVAL`). Whether enough are free is seen
/// when it is mapped.
pub fn huge_memfd(name: &std::ffi::CStr, len: usize) -> Result<Fd, Errno> {
    memfd(name, len, libc::MFD_HUGETLB)
}

fn memfd(name: &std::ffi::CStr, len: usize, more: u32) -> Result<Fd, Errno> {
    let flags = (libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | more) as usize;
    // SAFETY: `name` is a C string; the other calls take integers; the new descriptor is ours.
    unsafe {
        let fd =
            Fd::from_raw_high(syscall(libc::SYS_memfd_create, [name.as_ptr() as usize, flags, 0, 0, 0, 0])? as i32);
        syscall(libc::SYS_ftruncate, [fd.as_raw_fd() as usize, len, 0, 0, 0, 0])?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        syscall(libc::SYS_fcntl, [fd.as_raw_fd() as usize, libc::F_ADD_SEALS as usize, seals as usize, 0, 0, 0])?;
        Ok(fd)
    }
}

/// A file in memory that holds `bytes`, to be read from its start; the descriptor is the program's.
pub fn memory_file(name: &std::ffi::CStr, bytes: &[u8], cloexec: bool) -> Result<i32, Errno> {
    let flags = if cloexec { libc::MFD_CLOEXEC } else { 0 };
    // SAFETY: `name` is a C string, `bytes` a live slice; the other arguments are integers.
    unsafe {
        let fd = syscall(libc::SYS_memfd_create, [name.as_ptr() as usize, flags as usize, 0, 0, 0, 0])?;
        let written = syscall(libc::SYS_pwrite64, [fd, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]);
        match written {
            Ok(n) if n == bytes.len() => Ok(fd as i32),
            other => {
                super::close(fd as i32);
                Err(other.err().unwrap_or(Errno(libc::EIO)))
            }
        }
    }
}

/// A shared, writable mapping; unmapped when dropped.
#[derive(Debug)]
pub struct Map {
    addr: NonNull<u8>,
    len: usize,
    /// What is ours to unmap: address and length, which is 0 if it is not.
    whole: (usize, usize),
    /// Set if its pages may vanish.
    guard: Option<Guard>,
}

// SAFETY: a mapping belongs to the process, not to a thread; whoever reads and writes it answers for the order.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `len` bytes of `fd` from `offset`, shared and writable. `populate` faults the pages in at once.
    pub fn shared(fd: &impl AsRawFd, len: usize, offset: u64, populate: bool) -> Result<Map, Errno> {
        let prot = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let flags = libc::MAP_SHARED | if populate { libc::MAP_POPULATE } else { 0 };
        // SAFETY: the kernel chooses the address, so nothing that exists is overwritten.
        let addr = unsafe {
            syscall(libc::SYS_mmap, [0, len, prot, flags as usize, fd.as_raw_fd() as usize, offset as usize])?
        };
        let addr = NonNull::new(addr as *mut u8).ok_or(Errno(libc::ENOMEM))?;
        Ok(Map { addr, len, whole: (addr.as_ptr() as usize, len), guard: None })
    }

    /// Maps `len` bytes of a file of somebody else's from `offset`: of a file of huge pages whole ones. With `guarded`, pages
    /// that vanish (the owner truncates the file) are replaced by private zeroes instead of ending this process; see
    /// [`Guard`].
    pub fn of_file(fd: &impl AsRawFd, offset: u64, len: usize, guarded: bool) -> Result<Map, Errno> {
        let unit = page_size(fd)?;
        let from = offset / unit * unit;
        let end = offset.checked_add(len as u64).and_then(|end| end.checked_next_multiple_of(unit));
        let whole = usize::try_from(end.ok_or(Errno(libc::EINVAL))? - from).map_err(|_| Errno(libc::EINVAL))?;
        let mut map = Map::shared(fd, whole, from, false)?;
        let start = map.addr;
        map.guard = if guarded { Some(Guard::over(start.as_ptr() as usize, whole)?) } else { None };
        // SAFETY: `offset` lies in the mapping, which begins less than a page before it.
        map.addr = unsafe { start.add((offset - from) as usize) };
        map.len = len;
        Ok(map)
    }

    /// Memory of the program at `addr`, used in its place and not unmapped when dropped; every page of it can be read now
    /// (`EFAULT` if not).
    ///
    /// The kernel would fault safely if the program unmapped it later; here that ends the program with `SIGSEGV`, as any
    /// use of its own after it would. What the program passes as memory to work in is trusted to stay that long.
    pub fn borrowed(addr: usize, len: usize) -> Result<Map, Errno> {
        let end = addr.checked_add(len).filter(|_| len > 0).ok_or(Errno(libc::EFAULT))?;
        for at in std::iter::once(addr).chain((addr / PAGE * PAGE + PAGE..end).step_by(PAGE)) {
            OwnProcess.read(at as u64, &mut [0])?;
        }
        let addr = NonNull::new(addr as *mut u8).ok_or(Errno(libc::EFAULT))?;
        Ok(Map { addr, len, whole: (0, 0), guard: None })
    }

    /// A second mapping of the shared memory at `addr`, which stays when the program unmaps its own. `EINVAL`: it is not one
    /// shared mapping.
    pub fn second(addr: usize, len: usize) -> Result<Map, Errno> {
        // SAFETY: of a length of 0 `mremap` makes another mapping of the same pages, where the kernel chooses.
        let addr = unsafe { syscall(libc::SYS_mremap, [addr, 0, len, libc::MREMAP_MAYMOVE as usize, 0, 0])? };
        let addr = NonNull::new(addr as *mut u8).ok_or(Errno(libc::ENOMEM))?;
        Ok(Map { addr, len, whole: (addr.as_ptr() as usize, len), guard: None })
    }

    /// Makes the pages of `range` present, bytes from its start (`MADV_POPULATE_WRITE`, Linux 5.14): the first use of each is
    /// no fault then. Where that cannot be had, nothing is different.
    pub fn populate(&self, range: Range<usize>) {
        let start = self.addr.as_ptr() as usize;
        let (from, to) = (start + range.start.min(self.len), start + range.end.min(self.len));
        let from = from / PAGE * PAGE;
        // SAFETY: within the mapping and the pages that it begins and ends in; they become present, nothing else changes.
        let _ = unsafe {
            let len = to.saturating_sub(from);
            syscall(libc::SYS_madvise, [from, len, libc::MADV_POPULATE_WRITE as usize, 0, 0, 0])
        };
    }

    /// Whether pages of a [guarded](Map::of_file) mapping vanished.
    pub fn broken(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::broken)
    }

    /// Start of the mapping.
    #[inline]
    pub fn addr(&self) -> NonNull<u8> {
        self.addr
    }

    /// Its length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes; it always has some.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.whole.1 == 0 {
            return;
        }
        // SAFETY: the range is ours, and whoever holds a reference into it holds the mapping too.
        let _ = unsafe { syscall(libc::SYS_munmap, [self.whole.0, self.whole.1, 0, 0, 0, 0]) };
        self.guard = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn pages_are_present_before_they_are_used() {
        let fd = sealed_memfd(c"test", 9 * PAGE).unwrap();
        let map = Map::shared(&fd, 9 * PAGE, 0, false).unwrap();
        let present = || {
            let (mut entries, first) = ([0; 9 * 8], map.addr().as_ptr() as usize / PAGE * 8);
            std::fs::File::open("/proc/self/pagemap").unwrap().read_exact_at(&mut entries, first as u64).unwrap();
            entries.chunks(8).map(|e| e[7] >> 7).collect::<Vec<_>>()
        };
        assert_eq!(present(), [0; 9]);
        map.populate(20 * PAGE..90 * PAGE);
        assert_eq!(present(), [0; 9], "nothing in it");
        map.populate(2 * PAGE + 1..4 * PAGE + 1);
        // The kernel may add others.
        assert_eq!(present()[2..5], [1; 3]);
        map.populate(8 * PAGE..90 * PAGE);
        assert_eq!(present()[8], 1);
    }

    #[test]
    fn a_second_mapping_stays_when_the_first_goes() {
        let fd = sealed_memfd(c"test", PAGE).unwrap();
        let first = Map::shared(&fd, PAGE, 0, false).unwrap();
        let at = first.addr().as_ptr() as usize;
        let second = Map::second(at, PAGE).unwrap();
        OwnProcess.write(at as u64, b"netmap").unwrap();
        drop(first);
        let mut got = [0; 6];
        OwnProcess.read(second.addr().as_ptr() as u64, &mut got).unwrap();
        assert_eq!(&got, b"netmap");
    }

    #[test]
    fn borrowed_memory_must_be_there_and_is_not_unmapped() {
        assert_eq!(Map::borrowed(0x10, 64).unwrap_err(), Errno(libc::EFAULT));
        let word = 7u64;
        drop(Map::borrowed(&raw const word as usize, 8).unwrap());
        assert_eq!(word, 7);
    }
}
