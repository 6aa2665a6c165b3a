//! Memory of the program as files: what is mapped where, and a descriptor of it that another process can map.
//!
//! Called in the program's own process by the thread that made the request.

use super::{
    Errno, Fd, Map, OwnProcess, PAGE, UserMem, duplicate, huge_memfd, identity, is_internal, sealed_memfd, syscall,
};
use std::ffi::CString;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, PoisonError};

/// Descriptors of the program that are looked through for the file behind a mapping.
const DESCRIPTORS: RawFd = 4096;

/// What a shared mapping maps: device, inode and offset of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFile {
    /// Device and inode, as `stat` has them.
    pub identity: (u64, u64),
    /// Where in the file, bytes.
    pub offset: u64,
}

/// A range of addresses of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    from: u64,
    to: u64,
    access: String,
    file: SharedFile,
    path: String,
}

impl Range {
    fn parse(line: &str) -> Option<Range> {
        let hex = |s: &str| u64::from_str_radix(s, 16).ok();
        let mut words = line.splitn(6, ' ');
        let (from, to) = words.next()?.split_once('-')?;
        let access = words.next()?.to_owned();
        let offset = hex(words.next()?)?;
        let (major, minor) = words.next()?.split_once(':')?;
        let device = libc::makedev(hex(major)? as u32, hex(minor)? as u32);
        let inode = words.next()?.parse().ok()?;
        let path = words.next().unwrap_or_default().trim_start().to_owned();
        let file = SharedFile { identity: (device, inode), offset };
        Some(Range { from: hex(from)?, to: hex(to)?, access, file, path })
    }

    /// Memory that is the process's alone: no file behind it, and not the stack.
    fn anonymous(&self) -> bool {
        let plain = self.path.is_empty() || self.path == "[heap]" || self.path.starts_with("[anon:");
        self.access.starts_with("rw-p") && (self.file.identity.1 == 0 && plain || self.huge())
    }

    /// Anonymous memory of huge pages, which the kernel gives a file of its own.
    fn huge(&self) -> bool {
        self.path.starts_with("/anon_hugepage")
    }
}

/// The ranges that the `len` bytes at `addr` lie in, without a gap. `EFAULT`: there are none, or not all.
fn ranges(maps: &str, addr: u64, len: u64) -> Result<Vec<Range>, Errno> {
    let fault = Errno(libc::EFAULT);
    let end = addr.checked_add(len).filter(|_| len > 0).ok_or(fault)?;
    let mut all: Vec<Range> = Vec::new();
    for range in maps.lines().filter_map(Range::parse) {
        if range.to <= addr || range.from >= end {
            continue;
        }
        let expected = all.last().map_or(addr, |r| r.to);
        if range.from > expected {
            return Err(fault);
        }
        all.push(range);
    }
    if all.last().is_some_and(|r| r.to >= end) { Ok(all) } else { Err(fault) }
}

/// The one shared and writable mapping that the bytes lie in, and what they map. `EINVAL`: they do not.
fn shared(maps: &str, addr: u64, len: u64) -> Result<(Range, SharedFile), Errno> {
    let mut all = ranges(maps, addr, len)?;
    let Some(range) = all.pop().filter(|r| all.is_empty() && r.access == "rw-s") else {
        return Err(Errno(libc::EINVAL));
    };
    let file = SharedFile { offset: range.file.offset + (addr - range.from), ..range.file };
    Ok((range, file))
}

/// What the `len` bytes at `addr` map. `EFAULT`: nothing, or not all of them; `EINVAL`: not one shared and writable mapping.
pub fn shared_mapping(addr: u64, len: u64) -> Result<SharedFile, Errno> {
    Ok(shared(&read_whole(c"/proc/self/maps")?, addr, len)?.1)
}

/// A descriptor of what the `len` bytes at `addr` map, writable, and where in it they lie. It is found by the kernel's own
/// link to the mapping, which needs rights; among the process's descriptors; or by its path.
///
/// Errors as for [`shared_mapping`], and `EACCES`: none of that leads to it.
pub fn file_of_mapping(addr: u64, len: u64) -> Result<(Fd, SharedFile), Errno> {
    let (range, file) = shared(&read_whole(c"/proc/self/maps")?, addr, len)?;
    let link = format!("/proc/self/map_files/{:x}-{:x}", range.from, range.to);
    if let Ok(fd) = open_writable(&link) {
        // What the file system calls itself is what counts from here on.
        let identity = identity(fd.as_raw_fd())?;
        return Ok((fd, SharedFile { identity, ..file }));
    }
    let held = |fd: &RawFd| identity(*fd) == Ok(file.identity) && writable(*fd);
    let converted = CONVERTED.lock().unwrap_or_else(PoisonError::into_inner);
    let of_ours = converted.iter().map(|fd| fd.as_raw_fd()).find(held);
    let known = of_ours.or_else(|| (0..DESCRIPTORS).filter(|fd| !is_internal(*fd)).find(held));
    if let Some(fd) = known {
        return Ok((duplicate(fd)?, file));
    }
    if let Ok(fd) = open_writable(&range.path)
        && identity(fd.as_raw_fd()) == Ok(file.identity)
    {
        return Ok((fd, file));
    }
    Err(Errno(libc::EACCES))
}

/// Descriptors of memory that was made shared, as long as it is mapped.
static CONVERTED: Mutex<Vec<Fd>> = Mutex::new(Vec::new());

/// Puts shared memory in the place of the private memory at `addr`, with its contents: the same bytes at the same address,
/// that others can be given too. Whole pages only; of huge pages the whole mapping, by huge pages if as many are free.
/// Returns whether huge pages became ordinary ones.
///
/// Errors: `EFAULT` not all of it is there; `EINVAL` it is not anonymous memory, or not whole pages. What another thread
/// writes there meanwhile may be lost.
pub fn make_shared(addr: u64, len: u64) -> Result<bool, Errno> {
    let maps = read_whole(c"/proc/self/maps")?;
    let all = ranges(&maps, addr, len)?;
    let page = PAGE as u64;
    if !all.iter().all(Range::anonymous) || !addr.is_multiple_of(page) || !len.is_multiple_of(page) {
        return Err(Errno(libc::EINVAL));
    }
    let huge = all.iter().any(Range::huge);
    let (addr, end) = match (all.first(), all.last()) {
        // A part of a huge page cannot be replaced.
        (Some(first), Some(last)) if huge => (first.from, last.to),
        _ => (addr, addr + len),
    };
    let (at, len) = (addr as usize, (end - addr) as usize);
    let of_huge = || {
        let fd = huge.then(|| huge_memfd(c"netmap-extmem", len).ok()).flatten()?;
        Some((Map::shared(&fd, len, 0, false).ok()?, fd))
    };
    let (copy, fd, lost) = match of_huge() {
        Some((copy, fd)) => (copy, fd, false),
        None => {
            let fd = sealed_memfd(c"netmap-extmem", len)?;
            (Map::shared(&fd, len, 0, false)?, fd, huge)
        }
    };
    let mut bytes = vec![0; 1 << 20];
    for start in (0..len).step_by(bytes.len()) {
        let part = &mut bytes[..(len - start).min(1 << 20)];
        OwnProcess.read((at + start) as u64, part)?;
        // Pages of zeroes need not exist.
        for (i, page) in part.chunks(PAGE).enumerate().filter(|(_, page)| page.iter().any(|b| *b != 0)) {
            OwnProcess.write((copy.addr().as_ptr() as usize + start + i * PAGE) as u64, page)?;
        }
    }
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
    let mut converted = CONVERTED.lock().unwrap_or_else(PoisonError::into_inner);
    converted.retain(|fd| identity(fd.as_raw_fd()).is_ok_and(|id| mapped(&maps, id)));
    // SAFETY: the program offered this memory as a region, whose contents are about to change; the range is whole pages of
    // private memory, which stay readable and writable and keep their contents.
    unsafe {
        syscall(libc::SYS_mmap, [at, len, prot as usize, flags as usize, fd.as_raw_fd() as usize, 0])?;
    }
    converted.push(fd);
    Ok(lost)
}

/// Whether any range maps a file.
fn mapped(maps: &str, identity: (u64, u64)) -> bool {
    maps.lines().filter_map(Range::parse).any(|r| r.file.identity == identity)
}

/// Why a file that another process passed is not to be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is no file, cannot be written, or ends before the range does.
    Range,
    /// Its file system may keep a reader waiting, or is not known not to.
    FileSystem,
}

/// Whether `len` bytes from `offset` of a file that another process passed can be mapped without waiting for whoever serves
/// the file: file systems in memory, and local disks.
pub fn check_passed_file(fd: &Fd, offset: u64, len: u64) -> Result<(), Unfit> {
    const BTRFS: i64 = 0x9123_683e;
    const RAMFS: i64 = 0x8584_58f6;
    // SAFETY: all zero bytes are valid structures of integers, and the kernel fills them.
    let (stat, fs) = unsafe {
        let (mut stat, mut fs): (libc::stat, libc::statfs) = std::mem::zeroed();
        let raw = fd.as_raw_fd() as usize;
        syscall(libc::SYS_fstat, [raw, &raw mut stat as usize, 0, 0, 0, 0]).map_err(|_| Unfit::Range)?;
        syscall(libc::SYS_fstatfs, [raw, &raw mut fs as usize, 0, 0, 0, 0]).map_err(|_| Unfit::Range)?;
        (stat, fs)
    };
    let end = offset.checked_add(len).ok_or(Unfit::Range)?;
    let regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    if !regular || !writable(fd.as_raw_fd()) || u64::try_from(stat.st_size).is_ok_and(|size| size < end) {
        return Err(Unfit::Range);
    }
    let prompt =
        [libc::TMPFS_MAGIC, libc::HUGETLBFS_MAGIC, RAMFS, libc::EXT4_SUPER_MAGIC, libc::XFS_SUPER_MAGIC, BTRFS];
    if prompt.contains(&fs.f_type) { Ok(()) } else { Err(Unfit::FileSystem) }
}

/// Bytes of a page of this file: more than usual for one of huge pages.
pub(super) fn page_size(fd: &impl AsRawFd) -> Result<u64, Errno> {
    // SAFETY: all zero bytes are a valid structure of integers, and the kernel fills it.
    let fs = unsafe {
        let mut fs: libc::statfs = std::mem::zeroed();
        syscall(libc::SYS_fstatfs, [fd.as_raw_fd() as usize, &raw mut fs as usize, 0, 0, 0, 0])?;
        fs
    };
    let huge = fs.f_type == libc::HUGETLBFS_MAGIC;
    Ok(if huge { u64::try_from(fs.f_bsize).unwrap_or(0).max(PAGE as u64) } else { PAGE as u64 })
}

fn writable(fd: RawFd) -> bool {
    // SAFETY: fcntl with integers.
    let flags = unsafe { syscall(libc::SYS_fcntl, [fd as usize, libc::F_GETFL as usize, 0, 0, 0, 0]) };
    flags.is_ok_and(|flags| flags as i32 & libc::O_ACCMODE == libc::O_RDWR && flags as i32 & libc::O_PATH == 0)
}

fn open_at(path: &std::ffi::CStr, flags: i32) -> Result<Fd, Errno> {
    // SAFETY: the path is a C string; the new descriptor is ours.
    unsafe {
        let args = [libc::AT_FDCWD as usize, path.as_ptr() as usize, (flags | libc::O_CLOEXEC) as usize, 0, 0, 0];
        Ok(Fd::from_raw_high(syscall(libc::SYS_openat, args)? as i32))
    }
}

fn open_writable(path: &str) -> Result<Fd, Errno> {
    if !path.starts_with('/') {
        return Err(Errno(libc::ENOENT));
    }
    // A FIFO or a device of the same name is not to be waited for.
    open_at(&CString::new(path).map_err(|_| Errno(libc::EINVAL))?, libc::O_RDWR | libc::O_NONBLOCK)
}

/// Maps a whole file, shared and writable.
pub fn map_whole_file(path: &str) -> Result<Map, Errno> {
    let path = CString::new(path).map_err(|_| Errno(libc::EINVAL))?;
    // Opening a FIFO or a device is not to be waited for.
    let fd = open_at(&path, libc::O_RDWR | libc::O_NONBLOCK)?;
    // SAFETY: an integer; the position in the file is nobody else's.
    let size = unsafe { syscall(libc::SYS_lseek, [fd.as_raw_fd() as usize, 0, libc::SEEK_END as usize, 0, 0, 0])? };
    Map::shared(&fd, size, 0, false)
}

/// The contents of a small file, by system calls.
fn read_whole(path: &std::ffi::CStr) -> Result<String, Errno> {
    let fd = open_at(path, libc::O_RDONLY)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7f0000000000-7f0000004000 rw-s 00001000 00:01 1234                      /dev/zero (deleted)
7f0000004000-7f0000006000 rw-p 00000000 00:00 0
7f0000006000-7f0000008000 r--s 00000000 08:02 99                        /tmp/a file
7f0000008000-7f0000009000 rw-p 00000000 00:00 0                         [anon:arena]
7f0000009000-7f000000a000 rw-p 00000000 00:00 0                         [stack]
";

    #[test]
    fn a_shared_mapping_is_known_by_its_file() {
        let whole = shared(MAPS, 0x7f0000000000, 0x4000).unwrap().1;
        assert_eq!(whole, SharedFile { identity: (libc::makedev(0, 1), 1234), offset: 0x1000 });
        assert_eq!(shared(MAPS, 0x7f0000001000, 0x1000).unwrap().1.offset, 0x2000);
        assert_eq!(ranges(MAPS, 0x7f0000006000, 1).unwrap()[0].path, "/tmp/a file");
    }

    #[test]
    fn what_is_private_read_only_longer_or_absent_is_refused() {
        for (addr, len, errno) in [
            (0x7f0000004000, 0x1000, libc::EINVAL),
            (0x7f0000006000, 0x1000, libc::EINVAL),
            (0x7f0000003000, 0x2000, libc::EINVAL),
            (0x7f0000009000, 0x2000, libc::EFAULT),
            (0x1000, 0x1000, libc::EFAULT),
            (u64::MAX, 2, libc::EFAULT),
            (0x7f0000000000, 0, libc::EFAULT),
        ] {
            assert_eq!(shared(MAPS, addr, len).map(drop), Err(Errno(errno)), "{addr:#x} {len:#x}");
        }
    }

    #[test]
    fn the_stack_and_files_are_not_anonymous_memory() {
        let kinds: Vec<_> = MAPS.lines().filter_map(Range::parse).map(|r| r.anonymous()).collect();
        assert_eq!(kinds, [false, true, false, true, false]);
    }

    fn private(len: usize) -> usize {
        let prot = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
        // SAFETY: a new mapping that the test leaves behind.
        unsafe { syscall(libc::SYS_mmap, [0, len, prot, flags, usize::MAX, 0]).unwrap() }
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn private_memory_becomes_shared_and_keeps_its_bytes() {
        let at = private(8 * PAGE) as u64;
        OwnProcess.write(at + 5 * PAGE as u64 + 7, b"netmap").unwrap();
        assert_eq!(shared_mapping(at + PAGE as u64, PAGE as u64).map(drop), Err(Errno(libc::EINVAL)));
        assert_eq!(make_shared(at + 64, PAGE as u64).map(drop), Err(Errno(libc::EINVAL)), "not whole pages");
        make_shared(at + PAGE as u64, 6 * PAGE as u64).unwrap();
        let (fd, file) = file_of_mapping(at + PAGE as u64, 6 * PAGE as u64).unwrap();
        assert_eq!(file.offset, 0);
        let second = Map::of_file(&fd, 0, 6 * PAGE, false).unwrap();
        let mut got = [0; 6];
        OwnProcess.read(second.addr().as_ptr() as u64 + 4 * PAGE as u64 + 7, &mut got).unwrap();
        assert_eq!(&got, b"netmap");
        OwnProcess.write(second.addr().as_ptr() as u64, b"there").unwrap();
        OwnProcess.read(at + PAGE as u64, &mut got[..5]).unwrap();
        assert_eq!(&got[..5], b"there");
        assert_eq!(
            shared_mapping(at, PAGE as u64).map(drop),
            Err(Errno(libc::EINVAL)),
            "what lies before stays private"
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn a_file_is_found_by_its_descriptor_and_by_its_path() {
        let dir = std::env::temp_dir().join(format!("nmx-program-{}", std::process::id()));
        let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&dir).unwrap();
        file.set_len(4 * PAGE as u64).unwrap();
        let map = Map::shared(&file, 3 * PAGE, PAGE as u64, false).unwrap();
        let at = map.addr().as_ptr() as u64 + PAGE as u64;
        let known = identity(file.as_raw_fd()).unwrap();
        for _ in 0..2 {
            let (fd, found) = file_of_mapping(at, PAGE as u64).unwrap();
            assert_eq!((identity(fd.as_raw_fd()).unwrap(), found.offset), (known, 2 * PAGE as u64));
        }
        drop(file);
        let (fd, _) = file_of_mapping(at, PAGE as u64).unwrap();
        assert_eq!(identity(fd.as_raw_fd()).unwrap(), known);
        std::fs::remove_file(&dir).unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn what_is_no_file_or_too_short_is_not_mapped_for_others() {
        let fd = sealed_memfd(c"test", 2 * PAGE).unwrap();
        assert_eq!(check_passed_file(&fd, 0, 2 * PAGE as u64), Ok(()));
        assert_eq!(check_passed_file(&fd, PAGE as u64, 2 * PAGE as u64), Err(Unfit::Range));
        assert_eq!(check_passed_file(&fd, u64::MAX, 2), Err(Unfit::Range));
        for path in [c"/dev/zero", c"/proc/self/maps"] {
            let fd = open_at(path, libc::O_RDONLY).unwrap();
            assert!(check_passed_file(&fd, 0, 0).is_err(), "{path:?}");
        }
        let (socket, _other) = crate::sys::socket_pair(0).unwrap();
        assert_eq!(check_passed_file(&socket, 0, 0), Err(Unfit::Range));
    }
}
