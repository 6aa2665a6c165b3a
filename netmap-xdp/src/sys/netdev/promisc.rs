//! Promiscuous mode by membership: the kernel counts who wants it, and a membership goes with its socket.

use crate::sys::{Error, Fd, syscall};
use std::os::fd::{AsRawFd, RawFd};

/// Has the interface receive what is for others too, as long as a copy of the descriptor is open (`PACKET_ADD_MEMBERSHIP`).
pub fn promiscuous(ifindex: u32) -> Result<Fd, Error> {
    let failed = |call: &'static str| move |e| Error::new(call, format!("promiscuous mode of interface {ifindex}"), e);
    let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as usize;
    // SAFETY: takes integers; the descriptor is new and ours. Of protocol 0, it receives nothing.
    let socket = unsafe {
        syscall(libc::SYS_socket, [libc::AF_PACKET as usize, kind, 0, 0, 0, 0])
            .map(|fd| Fd::from_raw_high(fd as RawFd))
            .map_err(failed("socket"))?
    };
    let wanted = libc::packet_mreq {
        mr_ifindex: ifindex as i32,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let (level, option) = (libc::SOL_PACKET as usize, libc::PACKET_ADD_MEMBERSHIP as usize);
    let (at, len) = (&raw const wanted as usize, size_of_val(&wanted));
    // SAFETY: the structure outlives the call, and the length is its own.
    let set = unsafe { syscall(libc::SYS_setsockopt, [socket.as_raw_fd() as usize, level, option, at, len, 0]) };
    set.map(|_| socket).map_err(failed("setsockopt"))
}
