//! ioctl.

use crate::guard::ours;
use libc::{c_int, c_ulong};
use netmap_xdp::abi::{NIOCCTRL, NIOCGINFO};
use netmap_xdp::client;

/// # Safety
/// As for ioctl(2).
#[inline]
pub unsafe fn ioctl(libc: impl FnOnce() -> c_int, fd: c_int, request: c_ulong, arg: usize) -> c_int {
    // A descriptor that arrived by SCM_RIGHTS or exec is known by its first netmap request only.
    if is_netmap_request(request) || (client::in_use() && client::is_netmap(fd)) {
        // The kernel reads 32 bits of the request; a program that keeps it in an `int` passes a sign-extended one.
        if let Some(result) = ours(-1, move || client::ioctl(fd, u64::from(request as u32), arg)) {
            return result;
        }
    }
    libc()
}

/// Whether type and number of the request are of netmap's block. Sizes and directions are the client's to judge.
#[inline]
fn is_netmap_request(request: c_ulong) -> bool {
    const FIRST: u16 = NIOCGINFO as u16;
    const LAST: u16 = NIOCCTRL as u16;
    (FIRST..=LAST).contains(&(request as u16))
}

const _: () = assert!(NIOCGINFO as u16 >> 8 == NIOCCTRL as u16 >> 8);
