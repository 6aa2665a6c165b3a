//! TAP devices: an interface whose other end is a file descriptor. It exists while any of its descriptors is open, in any
//! process, and vanishes with the last one. Source: `drivers/net/tun.c`, `include/uapi/linux/if_tun.h`.
//!
//! Each frame that is read or written has a `virtio_net_hdr` before it, by which many segments of a TCP connection cross in
//! one call, and leave their checksums to the other side.

use super::{Errno, Error, Fd, retry, syscall};
use std::os::fd::{AsRawFd, RawFd};

const IFF_TAP: libc::c_short = 0x0002;
const IFF_MULTI_QUEUE: libc::c_short = 0x0100;
const IFF_ATTACH_QUEUE: libc::c_short = 0x0200;
const IFF_DETACH_QUEUE: libc::c_short = 0x0400;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;
/// Checksums; TCP segmentation of both families, also with ECN.
const TUN_F_CSUM: usize = 1;
const TUN_F_TSO4: usize = 2;
const TUN_F_TSO6: usize = 4;
const TUN_F_TSO_ECN: usize = 8;

/// An `ifreq` for the interface called `name`.
fn request(name: &str) -> libc::ifreq {
    let mut ifr_name = [0 as libc::c_char; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_metric: 0 } }
}

/// # Safety
/// `call` takes an `ifreq`, and pointers in it are valid.
unsafe fn ioctl(fd: RawFd, call: u64, request: &mut libc::ifreq) -> Result<(), Errno> {
    // SAFETY: the request outlives the call; the rest is the caller's promise.
    retry(|| unsafe { syscall(libc::SYS_ioctl, [fd as usize, call as usize, &raw mut *request as usize, 0, 0, 0]) })
        .map(drop)
}

/// One queue of a TAP device.
///
/// `pattern` is a name, or one with `%d` for a number that the kernel chooses; the answer holds the real name. With
/// `several`, the same name again makes further queues. The descriptor does not block; whoever reads it computes checksums
/// and cuts TCP segments.
pub fn open(pattern: &str, several: bool) -> Result<(Fd, String), Error> {
    let path = c"/dev/net/tun";
    let flags = (libc::O_RDWR | libc::O_CLOEXEC | libc::O_NONBLOCK) as usize;
    // SAFETY: the path is a C string; the new descriptor is ours.
    let fd = unsafe {
        syscall(libc::SYS_openat, [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0, 0])
            .map(|fd| Fd::from_raw_high(fd as RawFd))
    };
    let fd = fd.map_err(|e| Error::new("open", "/dev/net/tun", e))?;
    let mut ifr = request(pattern);
    ifr.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | if several { IFF_MULTI_QUEUE } else { 0 };
    // SAFETY: TUNSETIFF reads name and flags and writes the name; TUNSETOFFLOAD takes an integer.
    unsafe {
        ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &mut ifr)
            .map_err(|e| Error::new("TUNSETIFF", pattern.to_string(), e))?;
        let offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
        syscall(libc::SYS_ioctl, [fd.as_raw_fd() as usize, libc::TUNSETOFFLOAD as usize, offloads, 0, 0, 0])
            .map_err(|e| Error::new("TUNSETOFFLOAD", pattern.to_string(), e))?;
    }
    let name: Vec<u8> = ifr.ifr_name.iter().map(|&c| c as u8).take_while(|&b| b != 0).collect();
    Ok((fd, String::from_utf8_lossy(&name).into_owned()))
}

/// Reads one frame with its header. `EAGAIN`: there is none; `EBADFD`: the device is gone.
#[inline]
pub fn read(fd: RawFd, into: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the buffer is alive for the call, and the length is its own.
    retry(|| unsafe { syscall(libc::SYS_read, [fd as usize, into.as_mut_ptr() as usize, into.len(), 0, 0, 0]) })
}

/// Writes one frame with its header.
#[inline]
pub fn write(fd: RawFd, from: &[u8]) -> Result<usize, Errno> {
    // SAFETY: as in `read`.
    retry(|| unsafe { syscall(libc::SYS_write, [fd as usize, from.as_ptr() as usize, from.len(), 0, 0, 0]) })
}

/// Whether the device spreads packets to this queue, one of several; frames can be written all the same.
pub fn attach_queue(fd: &Fd, attached: bool) -> Result<(), Error> {
    let mut ifr = request("");
    ifr.ifr_ifru.ifru_flags = if attached { IFF_ATTACH_QUEUE } else { IFF_DETACH_QUEUE };
    // SAFETY: TUNSETQUEUE reads the flags.
    unsafe { ioctl(fd.as_raw_fd(), libc::TUNSETQUEUE, &mut ifr) }
        .map_err(|e| Error::new("TUNSETQUEUE", "of a TAP device", e))
}

/// Gives the device its MTU and the packets that each of its queues holds, and sets it up.
pub fn start(name: &str, mtu: u32, queue_len: u32) -> Result<(), Error> {
    let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as usize;
    // SAFETY: socket takes integers; the descriptor is new and ours.
    let socket = unsafe {
        syscall(libc::SYS_socket, [libc::AF_UNIX as usize, kind, 0, 0, 0, 0]).map(|fd| Fd::from_raw(fd as RawFd))
    };
    let socket = socket.map_err(|e| Error::new("socket", "AF_UNIX", e))?;
    let set = |what: &'static str, call: u64, change: &dyn Fn(&mut libc::ifreq)| {
        let mut ifr = request(name);
        change(&mut ifr);
        // SAFETY: each call below reads one integer from the request.
        unsafe { ioctl(socket.as_raw_fd(), call, &mut ifr) }.map_err(|e| Error::new(what, name, e))
    };
    set("SIOCSIFMTU", libc::SIOCSIFMTU, &|r| r.ifr_ifru.ifru_mtu = mtu as i32)?;
    set("SIOCSIFTXQLEN", libc::SIOCSIFTXQLEN, &|r| r.ifr_ifru.ifru_metric = queue_len as i32)?;
    set("SIOCSIFFLAGS", libc::SIOCSIFFLAGS, &|r| r.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short)
}

/// Fills `bytes` with random ones.
pub fn random(bytes: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: the buffer is alive for the call, and the length is its own.
    let got =
        retry(|| unsafe { syscall(libc::SYS_getrandom, [bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0, 0]) })?;
    if got == bytes.len() { Ok(()) } else { Err(Errno(libc::EIO)) }
}
