//! mmap and munmap.
//!
//! A netmap fd is a socket; what gets mapped in its place is the memory of its region. Protection and flags are passed on
//! as they come, but for MAP_PRIVATE, which `client::mmap_target` refuses with EINVAL: it would be a silent copy of the rings.

use crate::guard::ours;
use crate::slots;
use libc::{ENODEV, MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, c_int, c_void, off64_t, size_t};
use netmap_xdp::client;
use netmap_xdp::sys::Errno;

/// # Safety
/// As for mmap(2).
#[inline]
pub unsafe fn mmap(
    _libc: impl FnOnce() -> *mut c_void,
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off64_t,
) -> *mut c_void {
    // SAFETY: the caller's arguments.
    let ours_maybe = || unsafe { mmap_ours(addr, len, prot, flags, fd, offset) };
    if client::in_use()
        && let Some(at) = ours_maybe()
    {
        return at;
    }
    // SAFETY: the caller's arguments.
    let at = unsafe { slots::mmap.get_without_looking()(addr, len, prot, flags, fd, offset) };
    // A socket cannot be mapped. One that came from another process may be a netmap fd that this one does not know yet.
    if at == MAP_FAILED
        && flags & MAP_ANONYMOUS == 0
        && Errno::last() == Errno(ENODEV)
        && ours(false, move || Some(Ok(client::adopt(fd)))) == Some(true)
    {
        return ours_maybe().unwrap_or(at);
    }
    at
}

/// The mapping if it is about netmap.
///
/// # Safety
/// As for mmap(2).
unsafe fn mmap_ours(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off64_t,
) -> Option<*mut c_void> {
    let netmap = flags & MAP_ANONYMOUS == 0 && client::is_netmap(fd);
    // A fixed mapping takes the place of what was there.
    let replaces = flags & MAP_FIXED != 0 && client::touches_mapping(addr as usize, len);
    if !netmap && !replaces {
        return None;
    }
    let call = move || {
        let target = if netmap { client::mmap_target(fd, len, flags, offset) } else { None };
        let target = match target {
            Some(Ok(target)) => Some(target),
            Some(Err(errno)) => return Some(Err(errno)),
            None if replaces => None,
            None => return None,
        };
        // SAFETY: the caller's arguments; only the file is another.
        let at = unsafe { slots::mmap.get_without_looking()(addr, len, prot, flags, target.unwrap_or(fd), offset) };
        if at == MAP_FAILED {
            return Some(Err(Errno::last()));
        }
        if replaces {
            client::unmapped(addr as usize, len);
        }
        if target.is_some() {
            client::mapped(fd, at as usize, len);
        }
        Some(Ok(at))
    };
    ours(MAP_FAILED, call)
}

/// # Safety
/// As for munmap(2).
#[inline]
pub unsafe fn munmap(_libc: impl FnOnce() -> c_int, addr: *mut c_void, len: size_t) -> c_int {
    // SAFETY: the caller's arguments.
    let real = move || unsafe { slots::munmap.get_without_looking()(addr, len) };
    if client::in_use() && client::touches_mapping(addr as usize, len) {
        let call = move || {
            if real() != 0 {
                return Some(Err(Errno::last()));
            }
            client::unmapped(addr as usize, len);
            Some(Ok(0))
        };
        if let Some(result) = ours(-1, call) {
            return result;
        }
    }
    real()
}
