//! `net/netmap_legacy.h`: the request that programs used before API 14, and still do.

use super::netmap::pod;
use super::{IFNAMSIZ, Pod, iowr};
use std::mem::size_of;

/// `nr_ringid`: one pair of NIC rings.
pub const NETMAP_HW_RING: u16 = 0x4000;
/// `nr_ringid`: only the host rings.
pub const NETMAP_SW_RING: u16 = 0x2000;
/// `nr_ringid`: `poll()` does not push transmit slots.
pub const NETMAP_NO_TX_POLL: u16 = 0x1000;
/// `nr_ringid`: `poll()` releases receive slots.
pub const NETMAP_DO_RX_POLL: u16 = 0x8000;
/// `nr_ringid`: the index of the ring.
pub const NETMAP_RING_MASK: u16 = 0x0fff;
/// `nr_flags`: the mode.
pub const NR_REG_MASK: u32 = 0xf;

/// `nr_cmd`: attach to a switch.
pub const NETMAP_BDG_ATTACH: u16 = 1;
/// `nr_cmd`: detach from a switch.
pub const NETMAP_BDG_DETACH: u16 = 2;
/// `nr_cmd`: not from user space.
pub const NETMAP_BDG_REGOPS: u16 = 3;
/// `nr_cmd`: list a switch.
pub const NETMAP_BDG_LIST: u16 = 4;
/// `nr_cmd`: set the virtio-net header.
pub const NETMAP_BDG_VNET_HDR: u16 = 5;
/// `nr_cmd`: make a persistent port.
pub const NETMAP_BDG_NEWIF: u16 = 6;
/// `nr_cmd`: delete it.
pub const NETMAP_BDG_DELIF: u16 = 7;
/// `nr_cmd`: not supported by the original either.
pub const NETMAP_PT_HOST_CREATE: u16 = 8;
/// `nr_cmd`: not supported by the original either.
pub const NETMAP_PT_HOST_DELETE: u16 = 9;
/// `nr_cmd`: poll a switch port.
pub const NETMAP_BDG_POLLING_ON: u16 = 10;
/// `nr_cmd`: stop polling it.
pub const NETMAP_BDG_POLLING_OFF: u16 = 11;
/// `nr_cmd`: get the virtio-net header.
pub const NETMAP_VNET_HDR_GET: u16 = 12;
/// `nr_arg1` of `NETMAP_BDG_ATTACH`: the host rings too.
pub const NETMAP_BDG_HOST: u16 = 1;

/// The legacy request.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct nmreq {
    /// Name of the port.
    pub nr_name: [u8; IFNAMSIZ],
    /// API version.
    pub nr_version: u32,
    /// Offset of the `netmap_if` in the region.
    pub nr_offset: u32,
    /// Size of the region.
    pub nr_memsize: u32,
    /// Slots in transmit rings.
    pub nr_tx_slots: u32,
    /// Slots in receive rings.
    pub nr_rx_slots: u32,
    /// Transmit rings.
    pub nr_tx_rings: u16,
    /// Receive rings.
    pub nr_rx_rings: u16,
    /// Ring and flags.
    pub nr_ringid: u16,
    /// `NETMAP_BDG_*`.
    pub nr_cmd: u16,
    /// Depends on `nr_cmd`.
    pub nr_arg1: u16,
    /// Region.
    pub nr_arg2: u16,
    /// Extra buffers.
    pub nr_arg3: u32,
    /// `NR_REG_*` and `NR_*`.
    pub nr_flags: u32,
    /// Unused.
    pub spare2: [u32; 1],
}

/// Argument of `NIOCCONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct nm_ifreq {
    /// Name of the switch.
    pub nifr_name: [u8; IFNAMSIZ],
    /// For the module that runs it.
    pub data: [u8; 256],
}

/// Legacy: describe a port.
pub const NIOCGINFO: u64 = iowr(145, size_of::<nmreq>());
/// Legacy: bind the fd to a port.
pub const NIOCREGIF: u64 = iowr(146, size_of::<nmreq>());
/// Legacy: configure a module.
pub const NIOCCONFIG: u64 = iowr(150, size_of::<nm_ifreq>());

pod! {
    nmreq = 60,
    nm_ifreq = 272,
}
