//! poll, ppoll, select, pselect.
//!
//! Arrays and sets are looked at for netmap fds once netmap is in use; without one, libc gets the call. So from then on a
//! pointer into nowhere may fault here and not give EFAULT, except the usual bad pointers, which are seen. Asking the
//! kernel about each would cost a system call in every poll.

use crate::guard::contained;
use crate::select::{self, Sets};
use libc::{EINVAL, c_int, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};
use netmap_xdp::client;
use netmap_xdp::sys::Errno;
use std::time::{Duration, Instant};

unsafe extern "C-unwind" {
    /// Ends the thread here if it was cancelled.
    fn pthread_testcancel();
}

/// A thread that sleeps in a wait of ours ends at most this long after it was cancelled.
const SLICE: Duration = Duration::from_millis(250);

/// Waits as `wait(limit, last)` does, in slices: cancellation unwinds, so it may come only here, where no value of ours waits
/// to be dropped, and not in the middle of our code. All but the last slice find nothing if they return 0.
#[inline]
pub fn in_slices(
    limit: Result<Option<Duration>, Errno>,
    mut wait: impl FnMut(Option<Duration>, bool) -> Option<Result<c_int, Errno>>,
) -> Option<c_int> {
    let mut start = None;
    loop {
        // SAFETY: takes nothing; what is unwound here are plain numbers.
        unsafe { pthread_testcancel() };
        let ready = match limit {
            Err(errno) => return contained(-1, || Some(Err(errno))),
            Ok(Some(limit)) if start.is_none() && limit <= SLICE => return contained(-1, || wait(Some(limit), true)),
            Ok(limit) => {
                let start = *start.get_or_insert_with(Instant::now);
                let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
                let last = left.is_some_and(|left| left <= SLICE);
                let ready = contained(-1, || wait(if last { left } else { Some(SLICE) }, last));
                if last {
                    return ready;
                }
                ready
            }
        };
        if ready != Some(0) {
            return ready;
        }
    }
}

/// # Safety
/// As for poll(2).
#[inline]
pub unsafe fn poll(libc: impl FnOnce() -> c_int, fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller's array.
    if client::in_use() && unsafe { any_netmap(fds, count) } {
        let timeout = u64::try_from(timeout).ok().map(Duration::from_millis);
        // SAFETY: the caller's array.
        if let Some(ready) = unsafe { poll_ours(fds, count, Ok(timeout), None) } {
            return ready;
        }
    }
    libc()
}

/// # Safety
/// As for poll(2); `room` is the size of the array in bytes.
#[inline]
pub unsafe fn poll_chk(
    libc: impl FnOnce() -> c_int,
    fds: *mut pollfd,
    count: nfds_t,
    timeout: c_int,
    room: size_t,
) -> c_int {
    // libc stops a program whose array is too small.
    if room / size_of::<pollfd>() < count as usize {
        return libc();
    }
    // SAFETY: the caller's arguments.
    unsafe { poll(libc, fds, count, timeout) }
}

/// # Safety
/// As for ppoll(2).
#[inline]
pub unsafe fn ppoll(
    libc: impl FnOnce() -> c_int,
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's array.
    if client::in_use() && unsafe { any_netmap(fds, count) } {
        // SAFETY: the caller's pointers, null or valid.
        let (timeout, mask) = unsafe { (duration(timeout.as_ref()), mask.as_ref()) };
        // SAFETY: the caller's array.
        if let Some(ready) = unsafe { poll_ours(fds, count, timeout, mask) } {
            return ready;
        }
    }
    libc()
}

/// # Safety
/// As for ppoll(2); `room` is the size of the array in bytes.
#[inline]
pub unsafe fn ppoll_chk(
    libc: impl FnOnce() -> c_int,
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    if room / size_of::<pollfd>() < count as usize {
        return libc();
    }
    // SAFETY: the caller's arguments.
    unsafe { ppoll(libc, fds, count, timeout, mask) }
}

/// # Safety
/// As for select(2).
#[inline]
pub unsafe fn select(
    libc: impl FnOnce() -> c_int,
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    if !client::in_use() {
        return libc();
    }
    // SAFETY: the caller's sets.
    let sets = unsafe { Sets::new(count, [read, write, except]) };
    let Some(sets) = sets.filter(|sets| sets.any(is_ours)) else { return libc() };
    // SAFETY: null or valid.
    let limit = match unsafe { timeout.as_ref() } {
        // libc carries microseconds above a second over into seconds.
        Some(t) if t.tv_sec >= 0 && t.tv_usec >= 0 => {
            let seconds = Duration::from_secs(t.tv_sec as u64);
            Ok(Some(seconds.saturating_add(Duration::from_micros(t.tv_usec as u64))))
        }
        Some(_) => Err(Errno(EINVAL)),
        None => Ok(None),
    };
    let say_left = |left: Duration| {
        let left = timeval { tv_sec: left.as_secs().min(i64::MAX as u64) as i64, tv_usec: left.subsec_micros().into() };
        // SAFETY: not null, since there is a limit.
        unsafe { timeout.write(left) };
    };
    // SAFETY: the caller's sets.
    unsafe { select_ours(sets, limit, None, say_left) }.unwrap_or_else(libc)
}

/// # Safety
/// As for pselect(2).
#[inline]
pub unsafe fn pselect(
    libc: impl FnOnce() -> c_int,
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    if !client::in_use() {
        return libc();
    }
    // SAFETY: the caller's sets.
    let sets = unsafe { Sets::new(count, [read, write, except]) };
    let Some(sets) = sets.filter(|sets| sets.any(is_ours)) else { return libc() };
    // SAFETY: the caller's pointers, null or valid.
    unsafe { select_ours(sets, duration(timeout.as_ref()), mask.as_ref(), |_| ()) }.unwrap_or_else(libc)
}

/// Whether a wait on `fd` is ours: a netmap fd, or an epoll set that holds one.
#[inline]
fn is_ours(fd: c_int) -> bool {
    client::is_netmap(fd) || client::is_epoll(fd)
}

/// Whether a netmap fd is in the array. No array is longer than the highest descriptor number: a longer one, as a null or
/// wild one, is left to the kernel to refuse.
///
/// # Safety
/// `fds` is an array of `count`, or one of the bad pointers that [`plausible`] knows.
#[inline]
unsafe fn any_netmap(fds: *mut pollfd, count: nfds_t) -> bool {
    // SAFETY: within the array. Read one by one and as they are, since nothing says that they are aligned.
    let fd = |i: usize| unsafe { (&raw const (*fds.add(i)).fd).read_unaligned() };
    count <= 1 << 20 && plausible(fds) && (0..count as usize).any(|i| is_ours(fd(i)))
}

/// Whether a pointer can be one: not null or a small number, nor a negative one.
#[inline]
pub fn plausible<T>(p: *const T) -> bool {
    (0x1000..1 << 56).contains(&(p as usize))
}

/// # Safety
/// `fds` is an array of `count`, used by nobody else meanwhile.
unsafe fn poll_ours(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: Result<Option<Duration>, Errno>,
    mask: Option<&sigset_t>,
) -> Option<c_int> {
    in_slices(timeout, |limit, _| {
        // SAFETY: the caller's promise.
        let fds = unsafe { std::slice::from_raw_parts_mut(fds, count as usize) };
        client::poll(fds, limit, mask)
    })
}

/// `say_left` is told what is left of a time limit after success and failure alike, as Linux does it.
///
/// # Safety
/// The sets are used by nobody else meanwhile.
unsafe fn select_ours(
    sets: Sets,
    limit: Result<Option<Duration>, Errno>,
    mask: Option<&sigset_t>,
    say_left: impl FnOnce(Duration),
) -> Option<c_int> {
    let start = matches!(limit, Ok(Some(_))).then(Instant::now);
    let ready =
        in_slices(limit, |slice, last| select::wait(&sets, slice, last, |fds, limit| client::poll(fds, limit, mask)))?;
    if let (Ok(Some(limit)), Some(start)) = (limit, start) {
        say_left(limit.saturating_sub(start.elapsed()));
    }
    Some(ready)
}

/// A time limit as the kernel takes it.
pub fn duration(limit: Option<&timespec>) -> Result<Option<Duration>, Errno> {
    match limit {
        None => Ok(None),
        Some(t) if t.tv_sec >= 0 && (0..1_000_000_000).contains(&t.tv_nsec) => {
            Ok(Some(Duration::new(t.tv_sec as u64, t.tv_nsec as u32)))
        }
        Some(_) => Err(Errno(EINVAL)),
    }
}
