//! Waiting: `ppoll`, `epoll`, clocks.

use super::{Errno, Fd, syscall};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

fn timespec(d: Duration) -> libc::timespec {
    libc::timespec { tv_sec: d.as_secs().min(i64::MAX as u64) as i64, tv_nsec: i64::from(d.subsec_nanos()) }
}

/// `ppoll`; `None` waits without limit.
pub fn ppoll(
    fds: &mut [libc::pollfd],
    timeout: Option<Duration>,
    sigmask: Option<&libc::sigset_t>,
) -> Result<usize, Errno> {
    let ts = timeout.map(timespec);
    let ts = ts.as_ref().map_or(0, |t| t as *const libc::timespec as usize);
    let mask = sigmask.map_or(0, |m| m as *const libc::sigset_t as usize);
    // SAFETY: array, timespec and mask outlive the call; the kernel's sigset has 8 bytes. The kernel may write the rest of
    // the time into the timespec, which is a local copy that nobody reads again.
    unsafe { syscall(libc::SYS_ppoll, [fds.as_mut_ptr() as usize, fds.len(), ts, mask, 8, 0]) }
}

/// An epoll instance that watches sockets edge by edge: each call of the socket's wakeup counts as one event, so that a
/// waiter learns of completions even where the level (`POLLOUT`) was true all along.
#[derive(Debug)]
pub struct EdgeSet(Fd);

impl EdgeSet {
    /// An empty set.
    pub fn new() -> Result<EdgeSet, Errno> {
        // SAFETY: takes an integer; the new descriptor is ours.
        unsafe {
            let fd = syscall(libc::SYS_epoll_create1, [libc::EPOLL_CLOEXEC as usize, 0, 0, 0, 0, 0])?;
            Ok(EdgeSet(Fd::from_raw_high(fd as i32)))
        }
    }

    /// Watches `fd` for `events` (`EPOLLIN`, `EPOLLOUT`).
    pub fn add(&self, fd: RawFd, events: i32) -> Result<(), Errno> {
        let ev = libc::epoll_event { events: (events | libc::EPOLLET) as u32, u64: fd as u64 };
        let op = libc::EPOLL_CTL_ADD as usize;
        // SAFETY: the event outlives the call.
        unsafe {
            syscall(libc::SYS_epoll_ctl, [self.raw() as usize, op, fd as usize, &raw const ev as usize, 0, 0])?;
        }
        Ok(())
    }

    /// Takes all events that lie in the set and returns their union; does not wait.
    pub fn take(&self) -> Result<u32, Errno> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        // SAFETY: the array outlives the call; no timeout and no mask.
        let n = unsafe {
            let (ep, at, room) = (self.raw() as usize, events.as_mut_ptr() as usize, events.len());
            syscall(libc::SYS_epoll_pwait, [ep, at, room, 0, 0, 8])?
        };
        Ok(events[..n.min(64)].iter().fold(0, |all, e| all | e.events))
    }

    /// The descriptor, readable while events lie in the set.
    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Takes `fd` out of the epoll set `epfd`, which is the program's. `ENOENT`: it was not in it.
pub fn epoll_forget(epfd: RawFd, fd: RawFd) -> Result<(), Errno> {
    let args = [epfd as usize, libc::EPOLL_CTL_DEL as usize, fd as usize, 0, 0, 0];
    // SAFETY: takes integers; no event is read for this operation.
    unsafe { syscall(libc::SYS_epoll_ctl, args).map(drop) }
}

/// Puts `fd` into the epoll set `epfd`, which is the program's, for the edges of its readability.
pub fn epoll_edges(epfd: RawFd, fd: RawFd, data: u64) -> Result<(), Errno> {
    let event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: data };
    let args = [epfd as usize, libc::EPOLL_CTL_ADD as usize, fd as usize, &raw const event as usize, 0, 0];
    // SAFETY: the event outlives the call.
    unsafe { syscall(libc::SYS_epoll_ctl, args).map(drop) }
}

/// Collects the events that lie in the epoll set `epfd`, which is the program's; does not wait. Returns how many there are.
pub fn epoll_collect(epfd: RawFd, into: &mut [libc::epoll_event]) -> Result<usize, Errno> {
    if into.is_empty() {
        return Ok(0);
    }
    // SAFETY: the slice outlives the call; no timeout and no mask.
    unsafe { syscall(libc::SYS_epoll_pwait, [epfd as usize, into.as_mut_ptr() as usize, into.len(), 0, 0, 8]) }
}

/// A new eventfd, internal and non-blocking.
pub fn eventfd() -> Result<Fd, Errno> {
    let flags = (libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) as usize;
    // SAFETY: takes integers; the new descriptor is ours.
    unsafe { syscall(libc::SYS_eventfd2, [0, flags, 0, 0, 0, 0]).map(|fd| Fd::from_raw_high(fd as i32)) }
}

/// Adds one to an eventfd, which wakes everybody who watches its edges. Nobody reads it; a full counter starts over.
pub fn signal_eventfd(fd: &Fd) {
    let (fd, one, mut old) = (fd.as_raw_fd() as usize, 1u64, 0u64);
    // SAFETY: eight bytes are read from, or written to, a local.
    unsafe {
        if syscall(libc::SYS_write, [fd, &raw const one as usize, 8, 0, 0, 0]) == Err(Errno(libc::EAGAIN)) {
            let _ = syscall(libc::SYS_read, [fd, &raw mut old as usize, 8, 0, 0, 0]);
            let _ = syscall(libc::SYS_write, [fd, &raw const one as usize, 8, 0, 0, 0]);
        }
    }
}

/// Sleeps; a signal ends it early.
pub fn pause(time: Duration) {
    let ts = libc::timespec { tv_sec: time.as_secs() as libc::time_t, tv_nsec: time.subsec_nanos().into() };
    // SAFETY: the structure outlives the call.
    let _ = unsafe { syscall(libc::SYS_nanosleep, [&raw const ts as usize, 0, 0, 0, 0, 0]) };
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the structure; cannot fail for the clocks used here.
    unsafe { libc::clock_gettime(id, &mut ts) };
    Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32)
}

/// Time since boot, which never goes back.
pub fn monotonic() -> Duration {
    clock(libc::CLOCK_MONOTONIC)
}

/// Time of day since 1970.
pub fn realtime() -> Duration {
    clock(libc::CLOCK_REALTIME)
}
