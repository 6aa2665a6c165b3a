//! Descriptors: open, close, dup and what goes by other names.

use crate::guard::{inside, ours};
use crate::{params, slots};
use libc::{EBADF, EBUSY, EFAULT, EINVAL, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_PATH, O_TRUNC, c_char, c_int, c_uint};
use netmap_xdp::client;
use netmap_xdp::sys::{self, Errno, syscall};

const NAME: &[u8] = b"/dev/netmap\0";

/// Flags with which an open is not about the device: a handle on the name, a directory, a nameless file in one.
const NOT_THE_DEVICE: c_int = O_PATH | O_DIRECTORY;

/// # Safety
/// As for open(2).
#[inline]
pub unsafe fn open(libc: impl FnOnce() -> c_int, path: *const c_char, flags: c_int, _mode: c_uint) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { open_device(libc, path, flags) }
}

/// # Safety
/// As for openat(2).
#[inline]
pub unsafe fn openat(
    libc: impl FnOnce() -> c_int,
    _dir: c_int,
    path: *const c_char,
    flags: c_int,
    _mode: c_uint,
) -> c_int {
    // The name is absolute, so the directory does not matter, not even a bad one.
    // SAFETY: the caller's arguments.
    unsafe { open_device(libc, path, flags) }
}

/// # Safety
/// As for open(2) without a mode.
#[inline]
pub unsafe fn open_2(libc: impl FnOnce() -> c_int, path: *const c_char, flags: c_int) -> c_int {
    // With O_CREAT, which wants a mode, this function of libc stops the program; let it.
    if flags & O_CREAT != 0 {
        return libc();
    }
    // SAFETY: the caller's arguments.
    unsafe { open_device(libc, path, flags) }
}

/// # Safety
/// As for openat(2) without a mode.
#[inline]
pub unsafe fn openat_2(libc: impl FnOnce() -> c_int, _dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { open_2(libc, path, flags) }
}

/// Opens what `path` names: our device, or a file by `libc`.
///
/// A bad pointer must give EFAULT and not a crash, at no cost to the opens of a program's ordinary files. So libc goes
/// first, and once it did not say EFAULT the name can be read. Mostly there is no such file, and if there is, it is closed
/// again. That would not do for an open that creates or truncates: for those the kernel is asked whether the name can be
/// read.
///
/// # Safety
/// As for open(2).
unsafe fn open_device(libc: impl FnOnce() -> c_int, path: *const c_char, flags: c_int) -> c_int {
    if flags & NOT_THE_DEVICE != 0 {
        return libc();
    }
    if flags & (O_CREAT | O_TRUNC) != 0 {
        let whole = readable(path) && readable(path.wrapping_add(NAME.len() - 1));
        // SAFETY: readable from its first to its last byte.
        let device = whole && unsafe { is_name(path) };
        if device && let Some(fd) = ours(-1, move || Some(client::open(flags))) {
            return fd;
        }
        return libc();
    }
    let before = Errno::last();
    let file = libc();
    // EINVAL may come before the kernel looks at the name.
    if file < 0 && matches!(Errno::last(), Errno(EFAULT | EINVAL)) {
        return file;
    }
    // SAFETY: the kernel just read the name, to its end or as far as a name can be long.
    if !unsafe { is_name(path) } || inside() {
        if file < 0 {
            // SAFETY: as above.
            return unsafe { params::open(path, flags) }.unwrap_or(file);
        }
        return file;
    }
    if file >= 0 {
        sys::close(file);
    }
    before.set();
    ours(-1, move || Some(client::open(flags))).unwrap_or(-1)
}

/// # Safety
/// `path` is readable as a C string, or for the length of [`NAME`].
#[inline]
unsafe fn is_name(path: *const c_char) -> bool {
    // SAFETY: reading stops at the first difference, thus not after the end of a string.
    NAME.iter().enumerate().all(|(i, &byte)| unsafe { path.add(i).cast::<u8>().read() } == byte)
}

/// Whether the byte at `at` can be read, from a system call that reads eight bytes and has no effect: no such way to
/// change the signal mask exists.
fn readable(at: *const c_char) -> bool {
    let word = at as usize & !7;
    let no_such_way = usize::MAX;
    let errno = Errno::last();
    // SAFETY: the kernel checks the address, and then refuses the way.
    let answer = unsafe { syscall(libc::SYS_rt_sigprocmask, [no_such_way, word, 0, 8, 0, 0]) };
    errno.set();
    word != 0 && answer == Err(Errno(EINVAL))
}

/// # Safety
/// As for close(2).
#[inline]
pub unsafe fn close(libc: impl FnOnce() -> c_int, fd: c_int) -> c_int {
    if client::in_use() {
        if client::is_netmap(fd) {
            if let Some(result) = ours(-1, move || client::close(fd).map(|closed| closed.map(|()| 0))) {
                return result;
            }
        } else if client::is_internal(fd) && !inside() {
            Errno(EBADF).set();
            return -1;
        } else {
            client::epoll_closed(fd as u32, fd as u32);
        }
    }
    libc()
}

/// # Safety
/// As for close_range(2).
#[inline]
pub unsafe fn close_range(libc: impl FnOnce() -> c_int, first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // Other flags close nothing, or are not known.
    if client::in_use() && first <= last && flags as c_uint & !libc::CLOSE_RANGE_UNSHARE == 0 {
        let call = move || {
            client::close_range(first, last);
            client::epoll_closed(first, last);
            let mut result = Ok(0);
            between_internal(first, last, |first, last| {
                // SAFETY: integers only; descriptors in the range are the program's to close.
                if unsafe { slots::close_range.get()(first, last, flags) } != 0 {
                    result = Err(Errno::last());
                }
            });
            Some(result)
        };
        if let Some(result) = ours(-1, call) {
            return result;
        }
    }
    libc()
}

/// # Safety
/// As for closefrom(3).
#[inline]
pub unsafe fn closefrom(libc: impl FnOnce(), low: c_int) {
    if client::in_use() {
        let call = move || {
            let first = low.max(0) as u32;
            client::close_range(first, u32::MAX);
            client::epoll_closed(first, u32::MAX);
            between_internal(first, u32::MAX, |first, last| {
                // SAFETY: integers only; descriptors in the range are the program's to close.
                if unsafe { slots::close_range.get()(first, last, 0) } != 0 {
                    close_each(first, last);
                }
            });
            Some(Ok(()))
        };
        if let Some(()) = ours((), call) {
            return;
        }
    }
    libc()
}

/// Closes descriptors one by one, for kernels without close_range. Failures are those of numbers not open.
pub fn close_each(first: u32, last: u32) {
    for fd in first..=last.min(HIGHEST) {
        sys::close(fd as c_int);
    }
}

/// No descriptor is above this: the kernel's default limit of what a limit can be raised to.
const HIGHEST: u32 = (1 << 20) - 1;

/// Calls `each` with the ranges that remain of `first..=last` without the descriptors that we need ourselves.
fn between_internal(first: u32, last: u32, mut each: impl FnMut(u32, u32)) {
    let mut from = first;
    while let Some(fd) = client::next_internal(from, last).map(|fd| fd as u32) {
        if from < fd {
            each(from, fd - 1);
        }
        from = fd + 1;
    }
    if from <= last {
        each(from, last);
    }
}

/// # Safety
/// As for dup(2).
#[inline]
pub unsafe fn dup(libc: impl FnOnce() -> c_int, old: c_int) -> c_int {
    if client::in_use()
        && client::is_netmap(old)
        && let Some(fd) = ours(-1, move || client::dup(old, 0, false))
    {
        return fd;
    }
    copied(old, libc())
}

/// An epoll fd got another number.
#[inline]
fn copied(old: c_int, new: c_int) -> c_int {
    if new >= 0 && client::in_use() {
        client::epoll_copied(old, new);
    }
    new
}

/// # Safety
/// As for dup2(2).
#[inline]
pub unsafe fn dup2(libc: impl FnOnce() -> c_int, old: c_int, new: c_int) -> c_int {
    dup_onto(libc, old, new, false)
}

/// # Safety
/// As for dup3(2).
#[inline]
pub unsafe fn dup3(libc: impl FnOnce() -> c_int, old: c_int, new: c_int, flags: c_int) -> c_int {
    // Other flags are libc's to refuse.
    if flags & !O_CLOEXEC != 0 { libc() } else { dup_onto(libc, old, new, flags == O_CLOEXEC) }
}

/// Numbers that are the same change nothing, and are libc's to answer. A number that we need ourselves is refused with
/// the error that Linux gives for a number that is being opened at this moment.
#[inline]
fn dup_onto(libc: impl FnOnce() -> c_int, old: c_int, new: c_int, cloexec: bool) -> c_int {
    if client::in_use() && old != new {
        if client::is_internal(new) && !inside() {
            Errno(EBUSY).set();
            return -1;
        }
        if (client::is_netmap(old) || client::is_netmap(new))
            && let Some(fd) = ours(-1, move || client::dup_onto(old, new, cloexec))
        {
            return copied(old, fd);
        }
    }
    copied(old, libc())
}

/// Flags and owners of a netmap fd are those of the file behind it.
///
/// # Safety
/// As for fcntl(2).
#[inline]
pub unsafe fn fcntl(libc: impl FnOnce() -> c_int, fd: c_int, command: c_int, arg: usize) -> c_int {
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
        if client::in_use()
            && client::is_netmap(fd)
            && let Some(fd) = ours(-1, move || client::dup(fd, arg as c_int, command == libc::F_DUPFD_CLOEXEC))
        {
            return fd;
        }
        return copied(fd, libc());
    }
    libc()
}
