//! Shared memory: sealed memfds and mappings that unmap themselves.

use super::{Errno, Fd, OwnProcess, UserMem, syscall};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// Size of a page of every machine that runs AF_XDP here.
pub const PAGE: usize = 4096;

/// A memfd of `len` bytes, zero-filled, sealed against shrinking, growing and further seals.
///
/// A peer that holds the descriptor can therefore never make a mapping of ours fault.
pub fn sealed_memfd(name: &std::ffi::CStr, len: usize) -> Result<Fd, Errno> {
    let flags = (libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) as usize;
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

/// A shared, writable mapping; unmapped when dropped.
#[derive(Debug)]
pub struct Map {
    addr: NonNull<u8>,
    len: usize,
    /// Not ours to unmap.
    borrowed: bool,
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
        Ok(Map { addr, len, borrowed: false })
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
        Ok(Map { addr, len, borrowed: true })
    }

    /// A second mapping of the shared memory at `addr`, which stays when the program unmaps its own. `EINVAL`: it is not one
    /// shared mapping.
    pub fn second(addr: usize, len: usize) -> Result<Map, Errno> {
        // SAFETY: of a length of 0 `mremap` makes another mapping of the same pages, where the kernel chooses.
        let addr = unsafe { syscall(libc::SYS_mremap, [addr, 0, len, libc::MREMAP_MAYMOVE as usize, 0, 0])? };
        let addr = NonNull::new(addr as *mut u8).ok_or(Errno(libc::ENOMEM))?;
        Ok(Map { addr, len, borrowed: false })
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

/// What a shared mapping maps: device, inode and offset of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFile {
    device: [u32; 2],
    inode: u64,
    offset: u64,
}

/// What the `len` bytes at `addr` map. `EFAULT`: nothing, or not all of them; `EINVAL`: not one shared and writable mapping.
pub fn shared_mapping(addr: u64, len: u64) -> Result<SharedFile, Errno> {
    parse_mapping(&read_whole(c"/proc/self/maps")?, addr, len)
}

fn parse_mapping(maps: &str, addr: u64, len: u64) -> Result<SharedFile, Errno> {
    let end = addr.checked_add(len).filter(|_| len > 0).ok_or(Errno(libc::EFAULT))?;
    let hex = |s: &str| u64::from_str_radix(s, 16).ok();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((from, to)) = words.next().and_then(|w| w.split_once('-')) else { continue };
        let (Some(from), Some(to)) = (hex(from), hex(to)) else { continue };
        if !(from..to).contains(&addr) {
            continue;
        }
        let shared = words.next() == Some("rw-s");
        let offset = words.next().and_then(hex);
        let device = words.next().and_then(|w| w.split_once(':')).and_then(|(a, b)| hex(a).zip(hex(b)));
        let inode = words.next().and_then(|w| w.parse().ok());
        return match (offset, device, inode) {
            (Some(offset), Some((major, minor)), Some(inode)) if shared && end <= to => {
                Ok(SharedFile { device: [major as u32, minor as u32], inode, offset: offset + (addr - from) })
            }
            _ => Err(Errno(libc::EINVAL)),
        };
    }
    Err(Errno(libc::EFAULT))
}

/// The contents of a small file, by system calls.
fn read_whole(path: &std::ffi::CStr) -> Result<String, Errno> {
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    // SAFETY: the path is a C string; the new descriptor is ours.
    let fd = unsafe {
        let at = libc::AT_FDCWD as usize;
        Fd::from_raw_high(syscall(libc::SYS_openat, [at, path.as_ptr() as usize, flags, 0, 0, 0])? as i32)
    };
    let (mut all, mut part) = (Vec::new(), [0u8; 4096]);
    loop {
        // SAFETY: the buffer has the size that is told.
        let n = unsafe {
            let args = [fd.as_raw_fd() as usize, part.as_mut_ptr() as usize, part.len(), 0, 0, 0];
            syscall(libc::SYS_read, args)?
        };
        if n == 0 {
            return Ok(String::from_utf8_lossy(&all).into_owned());
        }
        all.extend_from_slice(&part[..n]);
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.borrowed {
            return;
        }
        // SAFETY: the range is ours, and whoever holds a reference into it holds the mapping too.
        let _ = unsafe { syscall(libc::SYS_munmap, [self.addr.as_ptr() as usize, self.len, 0, 0, 0, 0]) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7f0000000000-7f0000004000 rw-s 00001000 00:01 1234 /dev/zero (deleted)
7f0000004000-7f0000006000 rw-p 00000000 00:00 0
7f0000006000-7f0000008000 r--s 00000000 08:02 99 /tmp/a file
";

    #[test]
    fn a_shared_mapping_is_known_by_its_file() {
        let whole = parse_mapping(MAPS, 0x7f0000000000, 0x4000).unwrap();
        assert_eq!(whole, SharedFile { device: [0, 1], inode: 1234, offset: 0x1000 });
        assert_eq!(parse_mapping(MAPS, 0x7f0000001000, 0x1000).unwrap().offset, 0x2000);
    }

    #[test]
    fn what_is_private_read_only_longer_or_absent_is_refused() {
        for (addr, len, errno) in [
            (0x7f0000004000, 0x1000, libc::EINVAL),
            (0x7f0000006000, 0x1000, libc::EINVAL),
            (0x7f0000003000, 0x2000, libc::EINVAL),
            (0x1000, 0x1000, libc::EFAULT),
            (u64::MAX, 2, libc::EFAULT),
            (0x7f0000000000, 0, libc::EFAULT),
        ] {
            assert_eq!(parse_mapping(MAPS, addr, len), Err(Errno(errno)), "{addr:#x} {len:#x}");
        }
    }

    #[test]
    fn a_second_mapping_stays_when_the_first_goes() {
        let fd = sealed_memfd(c"test", PAGE).unwrap();
        let first = Map::shared(&fd, PAGE, 0, false).unwrap();
        let at = first.addr().as_ptr() as usize;
        shared_mapping(at as u64, PAGE as u64).unwrap();
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
