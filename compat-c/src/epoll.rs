//! epoll_ctl, epoll_wait, epoll_pwait, epoll_pwait2.
//!
//! Netmap fds are kept out of the kernel's set, where they would be as ready as the socket behind them, and in
//! [`netmap_xdp::client`], under the number of the epoll fd. A set without any is libc's alone.

use crate::guard::ours;
use crate::wait::{duration, in_slices, plausible};
use libc::{c_int, epoll_event, sigset_t, timespec};
use netmap_xdp::client;
use netmap_xdp::sys::Errno;
use std::time::Duration;

/// # Safety
/// As for epoll_ctl(2).
#[inline]
pub unsafe fn epoll_ctl(
    libc: impl FnOnce() -> c_int,
    epfd: c_int,
    op: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    if client::in_use() && client::is_netmap(fd) {
        // SAFETY: the caller's event, which need not be aligned.
        let event = plausible(event).then(|| unsafe { event.read_unaligned() });
        if let Some(result) = ours(-1, move || client::epoll_ctl(epfd, op, fd, event)) {
            return result;
        }
    }
    libc()
}

/// # Safety
/// As for epoll_wait(2).
#[inline]
pub unsafe fn epoll_wait(
    libc: impl FnOnce() -> c_int,
    epfd: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { epoll_pwait(libc, epfd, events, room, timeout, std::ptr::null()) }
}

/// # Safety
/// As for epoll_pwait(2).
#[inline]
pub unsafe fn epoll_pwait(
    libc: impl FnOnce() -> c_int,
    epfd: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    let limit = || Ok(u64::try_from(timeout).ok().map(Duration::from_millis));
    // SAFETY: the caller's arguments.
    unsafe { wait(libc, epfd, events, room, limit, mask) }
}

/// # Safety
/// As for epoll_pwait2(2).
#[inline]
pub unsafe fn epoll_pwait2(
    libc: impl FnOnce() -> c_int,
    epfd: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's pointer, null or valid.
    let limit = || duration(unsafe { timeout.as_ref() });
    // SAFETY: the caller's arguments.
    unsafe { wait(libc, epfd, events, room, limit, mask) }
}

/// By our wait or by libc's; from that one to ours when the set's first netmap fd comes in the middle of it. The time limit
/// then starts anew.
///
/// # Safety
/// As for [`wait_ours`].
#[inline]
unsafe fn wait(
    libc: impl FnOnce() -> c_int,
    epfd: c_int,
    events: *mut epoll_event,
    room: c_int,
    limit: impl Fn() -> Result<Option<Duration>, Errno>,
    mask: *const sigset_t,
) -> c_int {
    if client::in_use() && client::is_epoll(epfd) {
        // SAFETY: the caller's arguments.
        if let Some(ready) = unsafe { wait_ours(epfd, events, room, limit(), mask) } {
            return ready;
        }
    }
    let ready = libc();
    if ready > 0 && client::in_use() {
        // SAFETY: libc has written so many.
        let told = unsafe { std::slice::from_raw_parts_mut(events, ready as usize) };
        match client::epoll_nudged(epfd, told) {
            // SAFETY: the caller's arguments.
            Some(0) => return unsafe { wait_ours(epfd, events, room, limit(), mask) }.unwrap_or(0),
            Some(left) => return left as c_int,
            None => {}
        }
    }
    ready
}

/// A bad array or count is libc's to refuse.
///
/// # Safety
/// `events` has room for `room`, used by nobody else meanwhile; `mask` is null or valid.
unsafe fn wait_ours(
    epfd: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: Result<Option<Duration>, Errno>,
    mask: *const sigset_t,
) -> Option<c_int> {
    let room = usize::try_from(room).ok().filter(|&n| (1..1 << 20).contains(&n))?;
    if !plausible(events) {
        return None;
    }
    in_slices(timeout, |limit, _| {
        // SAFETY: the caller's promise. Plain numbers are written to the array, and nothing is read that was not.
        let (into, mask) = unsafe { (std::slice::from_raw_parts_mut(events, room), mask.as_ref()) };
        client::epoll_wait(epfd, into, limit, mask)
    })
}
