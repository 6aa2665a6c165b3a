//! What a driver says of itself, and its receive offloads, by the ethtool ioctl. Every question may go unanswered, and most
//! software devices leave some so.

use crate::sys::{Errno, retry, syscall};
use std::os::fd::RawFd;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// VLAN tags are stripped.
pub const ETH_FLAG_RXVLAN: u32 = 1 << 8;
/// Received frames are merged.
pub const ETH_FLAG_LRO: u32 = 1 << 15;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_drvinfo`, as far as it is read.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

const _: () = assert!(size_of::<Channels>() == 36 && size_of::<DriverInfo>() == 196);

/// Receive and transmit queues in use, at least one each.
pub fn queues(socket: RawFd, name: &str) -> (u32, u32) {
    let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Default::default() };
    // SAFETY: the kernel fills a `struct ethtool_channels` for this command.
    match unsafe { ask(socket, name, &mut channels) } {
        Ok(()) => count(&channels),
        Err(_) => (1, 1),
    }
}

fn count(channels: &Channels) -> (u32, u32) {
    let sum = |n: u32| channels.combined.saturating_add(n).max(1);
    (sum(channels.rx), sum(channels.tx))
}

/// The driver's name.
pub fn driver(socket: RawFd, name: &str) -> Option<String> {
    let mut info = DriverInfo { cmd: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    // SAFETY: the kernel fills a `struct ethtool_drvinfo` for this command.
    unsafe { ask(socket, name, &mut info) }.ok()?;
    let driver = info.driver.split(|&b| b == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(driver).into_owned()).filter(|s| !s.is_empty())
}

/// Offloads that change received frames: `gro`, and the bits of [`LYING_FLAGS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lying {
    pub gro: bool,
    pub flags: u32,
}

pub const LYING_FLAGS: u32 = ETH_FLAG_LRO | ETH_FLAG_RXVLAN;

fn get(socket: RawFd, name: &str, cmd: u32) -> Result<u32, Errno> {
    let mut value = Value { cmd, data: 0 };
    // SAFETY: these commands fill a `struct ethtool_value`.
    unsafe { ask(socket, name, &mut value) }.map(|()| value.data)
}

fn set(socket: RawFd, name: &str, cmd: u32, data: u32) -> Result<(), Errno> {
    // SAFETY: these commands read a `struct ethtool_value`.
    unsafe { ask(socket, name, &mut Value { cmd, data }) }
}

/// Which of them are on.
pub fn lying(socket: RawFd, name: &str) -> Lying {
    let gro = get(socket, name, ETHTOOL_GGRO).is_ok_and(|v| v != 0);
    Lying { gro, flags: get(socket, name, ETHTOOL_GFLAGS).unwrap_or(0) & LYING_FLAGS }
}

/// Switches those of `which` on or off; the others stay as they are.
pub fn switch(socket: RawFd, name: &str, which: Lying, on: bool) -> Result<(), Errno> {
    let gro = if which.gro { set(socket, name, ETHTOOL_SGRO, on.into()) } else { Ok(()) };
    if which.flags == 0 {
        return gro;
    }
    let now = get(socket, name, ETHTOOL_GFLAGS)?;
    let then = if on { now | which.flags } else { now & !which.flags };
    gro.and(set(socket, name, ETHTOOL_SFLAGS, then))
}

/// # Safety
/// `T` is the structure that its command, in the first word, has the kernel fill.
unsafe fn ask<T>(socket: RawFd, name: &str, value: &mut T) -> Result<(), Errno> {
    let mut ifr_name = [0 as libc::c_char; libc::IFNAMSIZ];
    if name.len() >= ifr_name.len() {
        return Err(Errno(libc::EINVAL));
    }
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: (value as *mut T).cast() };
    let mut request = libc::ifreq { ifr_name, ifr_ifru };
    // SAFETY: the request is a whole `ifreq` that points to `value`, which the caller vouches for.
    retry(|| unsafe {
        syscall(libc::SYS_ioctl, [socket as usize, libc::SIOCETHTOOL as usize, &raw mut request as usize, 0, 0, 0])
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_the_combined_ones_and_those_of_one_direction() {
        let count = |rx, tx, combined| count(&Channels { rx, tx, combined, ..Default::default() });
        assert_eq!(count(0, 0, 8), (8, 8));
        assert_eq!(count(2, 4, 0), (2, 4));
        assert_eq!(count(1, 0, 4), (5, 4));
        assert_eq!(count(0, 0, 0), (1, 1));
        assert_eq!(count(u32::MAX, 0, 2), (u32::MAX, 2));
    }
}
