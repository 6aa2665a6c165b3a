//! File descriptors: an owned one that closes by system call, socket pairs, passing.

use super::{Errno, ppoll, syscall};
use crate::sync::{AtomicU64, Ordering::Relaxed};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// Internal descriptors live at or above this number where the limit allows, out of the way of programs that close or
/// `select()` low ones.
const HIGH_FD: RawFd = 512;

/// Which numbers below 65536 are internal, a bit each.
static INTERNAL: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];

/// How many there are.
static INTERNALS: AtomicU64 = AtomicU64::new(0);

fn mark(fd: RawFd, internal: bool) {
    let (word, bit) = (fd as usize / 64, 1u64 << (fd as u32 % 64));
    let Some(cell) = INTERNAL.get(word) else { return };
    let before = if internal { cell.fetch_or(bit, Relaxed) } else { cell.fetch_and(!bit, Relaxed) };
    match (before & bit != 0, internal) {
        (false, true) => INTERNALS.fetch_add(1, Relaxed),
        (true, false) => INTERNALS.fetch_sub(1, Relaxed),
        _ => 0,
    };
}

/// Whether any number is internal.
#[inline]
pub fn any_internal() -> bool {
    INTERNALS.load(Relaxed) != 0
}

/// The first internal number in `from..=last`.
pub fn next_internal(from: u32, last: u32) -> Option<RawFd> {
    let last = last.min(INTERNAL.len() as u32 * 64 - 1);
    let mut fd = from;
    while fd <= last {
        let word = INTERNAL[fd as usize / 64].load(Relaxed) >> (fd % 64);
        if word == 0 {
            fd = (fd / 64 + 1) * 64;
            continue;
        }
        fd += word.trailing_zeros();
        return (fd <= last).then_some(fd as RawFd);
    }
    None
}

/// Whether `fd` is one of this library's own.
#[inline]
pub fn is_internal(fd: RawFd) -> bool {
    let (word, bit) = (fd as usize / 64, 1u64 << (fd as u32 % 64));
    INTERNAL.get(word).is_some_and(|cell| cell.load(Relaxed) & bit != 0)
}

/// A file descriptor that closes when dropped, by system call and not by libc's `close`.
#[derive(Debug)]
pub struct Fd(RawFd);

impl Fd {
    /// Takes ownership of `raw`.
    ///
    /// # Safety
    /// `raw` is open and nobody else closes it.
    pub unsafe fn from_raw(raw: RawFd) -> Fd {
        Fd(raw)
    }

    /// Takes ownership of `raw` and moves it to a high number where the limit allows.
    ///
    /// # Safety
    /// `raw` is open and nobody else closes it.
    pub unsafe fn from_raw_high(raw: RawFd) -> Fd {
        let low = Fd(raw);
        let fd = low.dup_high().unwrap_or(low);
        mark(fd.0, true);
        fd
    }

    /// The number, given up.
    pub fn into_raw(self) -> RawFd {
        let raw = self.0;
        mark(raw, false);
        std::mem::forget(self);
        raw
    }

    /// Another descriptor for the same open file, close-on-exec, at a high number.
    pub fn try_clone(&self) -> Result<Fd, Errno> {
        let fd = self.dup_high().or_else(|_| dup_from(self.0, 0, true).map(Fd))?;
        mark(fd.0, true);
        Ok(fd)
    }

    /// The same at a high number where the limit allows, as one of this library's own.
    pub fn high(self) -> Fd {
        let fd = self.dup_high().unwrap_or(self);
        mark(fd.0, true);
        fd
    }

    fn dup_high(&self) -> Result<Fd, Errno> {
        dup_from(self.0, HIGH_FD, true).map(Fd)
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        mark(self.0, false);
        close(self.0);
    }
}

/// Another descriptor, internal, for a program's eventfd. `EBADF`; `EINVAL` if it is not an eventfd.
pub fn hold_eventfd(fd: RawFd) -> Result<Fd, Errno> {
    let held = dup_from(fd, HIGH_FD, true).or_else(|_| dup_from(fd, 0, true)).map(Fd)?;
    mark(held.0, true);
    let path = format!("/proc/self/fd/{}\0", held.0);
    let mut name = [0u8; 32];
    // SAFETY: the path is a C string, the buffer has the size that is told.
    let got = unsafe {
        let (path, at) = (path.as_ptr() as usize, name.as_mut_ptr() as usize);
        syscall(libc::SYS_readlinkat, [libc::AT_FDCWD as usize, path, at, name.len(), 0, 0])
    };
    match got {
        Ok(n) if !name[..n].starts_with(b"anon_inode:[eventfd]") => Err(Errno(libc::EINVAL)),
        // Without /proc it is believed.
        _ => Ok(held),
    }
}

/// Closes one of this library's own descriptors by number, in a forked child whose `Fd` for it will never be dropped.
pub fn close_inherited(fd: RawFd) {
    mark(fd, false);
    close(fd);
}

/// Closes a descriptor by number; errors say nothing that anyone could act on.
pub fn close(fd: RawFd) {
    // SAFETY: close takes an integer.
    let _ = unsafe { syscall(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]) };
}

/// `fcntl` with `F_DUPFD` or `F_DUPFD_CLOEXEC`: the lowest free number from `least` on.
pub fn dup_from(fd: RawFd, least: RawFd, cloexec: bool) -> Result<RawFd, Errno> {
    let cmd = if cloexec { libc::F_DUPFD_CLOEXEC } else { libc::F_DUPFD };
    // SAFETY: takes integers.
    unsafe { syscall(libc::SYS_fcntl, [fd as usize, cmd as usize, least as usize, 0, 0, 0]).map(|n| n as RawFd) }
}

/// `dup3`.
pub fn dup_onto(old: RawFd, new: RawFd, cloexec: bool) -> Result<(), Errno> {
    let flags = if cloexec { libc::O_CLOEXEC as usize } else { 0 };
    // SAFETY: takes integers.
    unsafe { syscall(libc::SYS_dup3, [old as usize, new as usize, flags, 0, 0, 0]).map(drop) }
}

/// Another descriptor, one of this library's own, for whatever `raw` is open on.
pub fn duplicate(raw: RawFd) -> Result<Fd, Errno> {
    let fd = dup_from(raw, HIGH_FD, true).or_else(|_| dup_from(raw, 0, true)).map(Fd)?;
    mark(fd.0, true);
    Ok(fd)
}

/// Sets close-on-exec, or clears it.
pub fn set_cloexec(fd: RawFd, on: bool) -> Result<(), Errno> {
    let flags = if on { libc::FD_CLOEXEC as usize } else { 0 };
    // SAFETY: takes integers.
    unsafe { syscall(libc::SYS_fcntl, [fd as usize, libc::F_SETFD as usize, flags, 0, 0, 0]).map(drop) }
}

/// Whether a descriptor is close-on-exec.
pub fn cloexec(fd: RawFd) -> bool {
    // SAFETY: takes integers.
    unsafe { syscall(libc::SYS_fcntl, [fd as usize, libc::F_GETFD as usize, 0, 0, 0, 0]) }
        .is_ok_and(|flags| flags & libc::FD_CLOEXEC as usize != 0)
}

/// Sets the status flags of an open file, such as `O_NONBLOCK`.
pub fn set_status(fd: RawFd, flags: i32) -> Result<(), Errno> {
    // SAFETY: takes integers.
    unsafe { syscall(libc::SYS_fcntl, [fd as usize, libc::F_SETFL as usize, flags as usize, 0, 0, 0]).map(drop) }
}

/// Number of this process.
pub fn process_id() -> u32 {
    // SAFETY: takes nothing.
    unsafe { libc::syscall(libc::SYS_getpid) as u32 }
}

/// Whether the other end of a socket pair is closed everywhere.
pub fn hung_up(fd: &Fd) -> bool {
    let mut p = [libc::pollfd { fd: fd.0, events: 0, revents: 0 }];
    ppoll(&mut p, Some(Duration::ZERO), None).is_ok() && p[0].revents & (libc::POLLHUP | libc::POLLERR) != 0
}

/// A pair of connected stream sockets: the first with the given flags (`SOCK_CLOEXEC`, `SOCK_NONBLOCK`) at the lowest
/// free number, as `open` would give it, the second internal.
pub fn socket_pair(flags: i32) -> Result<(Fd, Fd), Errno> {
    let mut pair = [0i32; 2];
    let kind = (libc::SOCK_STREAM | flags) as usize;
    // SAFETY: `pair` has room for two integers.
    unsafe {
        syscall(libc::SYS_socketpair, [libc::AF_UNIX as usize, kind, 0, pair.as_mut_ptr() as usize, 0, 0])?;
        Ok((Fd(pair[0]), Fd::from_raw_high(pair[1])))
    }
}

/// Inode and device of an open file, its identity however many descriptors it has.
pub fn identity(fd: RawFd) -> Result<(u64, u64), Errno> {
    let mut st = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: fstat fills the structure; all zero bytes are a valid one to start from.
    unsafe {
        syscall(libc::SYS_fstat, [fd as usize, st.as_mut_ptr() as usize, 0, 0, 0, 0])?;
        let st = st.assume_init();
        Ok((st.st_dev, st.st_ino))
    }
}

/// Identity of the calling thread's network namespace.
pub fn namespace_id() -> (u64, u64) {
    let path = c"/proc/thread-self/ns/net";
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    // SAFETY: the path is a C string; the new descriptor is ours.
    let fd = unsafe {
        syscall(libc::SYS_openat, [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0, 0])
            .map(|fd| Fd::from_raw(fd as RawFd))
    };
    // Without /proc there is one namespace, as far as this process can tell.
    fd.and_then(|fd| identity(fd.as_raw_fd())).unwrap_or((0, 0))
}

/// How often this process is a fork of another one that had the library, and what to do in the next.
static GENERATION: AtomicU64 = AtomicU64::new(0);
static IN_CHILD: std::sync::OnceLock<fn()> = std::sync::OnceLock::new();
/// Number of the process that the library's memory belongs to.
static OWNER: AtomicU64 = AtomicU64::new(0);

/// Counts forks: another number means another process. The first call makes it count.
pub fn generation() -> u64 {
    watch_forks();
    GENERATION.load(Relaxed)
}

/// Runs `hook` in every child of `fork` from now on, before `fork` returns there: it may make system calls and touch
/// atomics, nothing else. Only the first hook counts.
pub fn in_forked_child(hook: fn()) {
    IN_CHILD.get_or_init(|| hook);
    watch_forks();
}

/// Whether this is the process that the library's memory belongs to, and not a child of `vfork`, which runs in its
/// parent's memory but has descriptors of its own. A child of `fork` has its own memory and is told by a handler.
pub fn own_memory() -> bool {
    watch_forks();
    OWNER.load(Relaxed) == u64::from(process_id())
}

/// From now on forks are noticed in the child, without a system call here.
#[inline]
fn watch_forks() {
    extern "C" fn note() {
        OWNER.store(process_id().into(), Relaxed);
        GENERATION.fetch_add(1, Relaxed);
        if let Some(hook) = IN_CHILD.get() {
            hook();
        }
    }
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        note();
        // SAFETY: the handler makes a system call and touches atomics. Where it cannot be registered, a forked child looks
        // like one of vfork, and merely leaves its descriptors to the kernel.
        unsafe { libc::pthread_atfork(None, None, Some(note)) };
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_numbers_are_found_in_order_and_forgotten_when_closed() {
        let (low, high) = socket_pair(libc::SOCK_CLOEXEC).unwrap();
        let again = high.try_clone().unwrap();
        let (a, b) = (high.as_raw_fd(), again.as_raw_fd());
        assert!(is_internal(a) && is_internal(b) && !is_internal(low.as_raw_fd()) && any_internal());
        assert_eq!(next_internal(a as u32, a as u32), Some(a));
        assert_eq!(next_internal(0, a as u32 - 1).filter(|&n| n >= a), None);
        drop((high, again));
        assert!(!is_internal(a) && !is_internal(b));
    }

    #[test]
    fn the_end_of_a_pair_tells_when_every_copy_of_the_other_is_closed() {
        let (ours, theirs) = socket_pair(libc::SOCK_CLOEXEC).unwrap();
        let copy = ours.try_clone().unwrap();
        drop(ours);
        assert!(!hung_up(&theirs));
        drop(copy);
        assert!(hung_up(&theirs));
    }
}
