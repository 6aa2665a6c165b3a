//! `net/netmap.h`: rings, slots, the control request and its options.

use super::{Pod, io, iowr};
use std::mem::{offset_of, size_of};

/// Version of the API that requests carry.
pub const NETMAP_API: u16 = 14;
/// Oldest version that `NIOCCTRL` accepts.
pub const NETMAP_MIN_API: u16 = 14;
/// Newest version that `NIOCCTRL` accepts.
pub const NETMAP_MAX_API: u16 = 15;
/// Alignment of `netmap_ring`.
pub const NM_CACHE_ALIGN: usize = 128;
/// The control device.
pub const NETMAP_DEVICE_NAME: &str = "/dev/netmap";
/// Length of an interface name with its terminator.
pub const IFNAMSIZ: usize = 16;
/// Length of a port name with its terminator.
pub const NETMAP_REQ_IFNAMSIZ: usize = 64;
/// Largest request with all its options, in bytes.
pub const NETMAP_REQ_MAXSIZE: usize = 4096;
/// Fragments in one packet at most.
pub const NETMAP_MAX_FRAGS: usize = 64;
/// Buffers below this index are never given out.
pub const NETMAP_FIRST_BUF: u32 = 2;

/// Slot flag: `buf_idx` changed.
pub const NS_BUF_CHANGED: u16 = 0x0001;
/// Slot flag: tell when this slot was sent.
pub const NS_REPORT: u16 = 0x0002;
/// Slot flag: pass the packet on between NIC and host.
pub const NS_FORWARD: u16 = 0x0004;
/// Slot flag: the switch does not learn from this packet.
pub const NS_NO_LEARN: u16 = 0x0008;
/// Slot flag: the data is where `ptr` points.
pub const NS_INDIRECT: u16 = 0x0010;
/// Slot flag: the packet goes on in the next slot.
pub const NS_MOREFRAG: u16 = 0x0020;
/// Slot flag: a monitored packet that was sent.
pub const NS_TXMON: u16 = 0x0040;
/// Shift of the destination port (VALE) or of the fragment count in slot flags.
pub const NS_PORT_SHIFT: u16 = 8;
/// Mask of the same.
pub const NS_PORT_MASK: u16 = 0xff << 8;

/// Ring flag: set `ts` at each sync.
pub const NR_TIMESTAMP: u32 = 0x0002;
/// Ring flag: `NS_FORWARD` is honoured.
pub const NR_FORWARD: u32 = 0x0004;

/// `netmap_if.ni_flags`: the port has a region of its own.
pub const NI_PRIV_MEM: u32 = 0x1;

/// Monitor the transmit side.
pub const NR_MONITOR_TX: u64 = 0x100;
/// Monitor the receive side.
pub const NR_MONITOR_RX: u64 = 0x200;
/// Monitor without copying.
pub const NR_ZCOPY_MON: u64 = 0x400;
/// Nobody else may bind these rings.
pub const NR_EXCLUSIVE: u64 = 0x800;
/// Bind receive rings only.
pub const NR_RX_RINGS_ONLY: u64 = 0x2000;
/// Bind transmit rings only.
pub const NR_TX_RINGS_ONLY: u64 = 0x4000;
/// The program understands virtio-net headers.
pub const NR_ACCEPT_VNET_HDR: u64 = 0x8000;
/// `poll()` releases receive slots even without `POLLIN`.
pub const NR_DO_RX_POLL: u64 = 0x10000;
/// `poll()` pushes transmit slots only with `POLLOUT`.
pub const NR_NO_TX_POLL: u64 = 0x20000;
/// Every flag of `nr_flags` that netmap 14 defines.
pub const NR_FLAGS_KNOWN: u64 = NR_MONITOR_TX
    | NR_MONITOR_RX
    | NR_ZCOPY_MON
    | NR_EXCLUSIVE
    | NR_RX_RINGS_ONLY
    | NR_TX_RINGS_ONLY
    | NR_ACCEPT_VNET_HDR
    | NR_DO_RX_POLL
    | NR_NO_TX_POLL;

/// `nr_mode`: not to be used.
pub const NR_REG_DEFAULT: u32 = 0;
/// `nr_mode`: all NIC rings.
pub const NR_REG_ALL_NIC: u32 = 1;
/// `nr_mode`: the host rings.
pub const NR_REG_SW: u32 = 2;
/// `nr_mode`: all NIC rings and the host rings.
pub const NR_REG_NIC_SW: u32 = 3;
/// `nr_mode`: one pair of NIC rings.
pub const NR_REG_ONE_NIC: u32 = 4;
/// `nr_mode`: deprecated.
pub const NR_REG_PIPE_MASTER: u32 = 5;
/// `nr_mode`: deprecated.
pub const NR_REG_PIPE_SLAVE: u32 = 6;
/// `nr_mode`: rings with nothing behind them.
pub const NR_REG_NULL: u32 = 7;
/// `nr_mode`: one pair of host rings.
pub const NR_REG_ONE_SW: u32 = 8;

/// Request: bind the fd to a port.
pub const NETMAP_REQ_REGISTER: u16 = 1;
/// Request: describe a port.
pub const NETMAP_REQ_PORT_INFO_GET: u16 = 2;
/// Request: attach a port to a switch.
pub const NETMAP_REQ_VALE_ATTACH: u16 = 3;
/// Request: detach a port from a switch.
pub const NETMAP_REQ_VALE_DETACH: u16 = 4;
/// Request: list the ports of a switch.
pub const NETMAP_REQ_VALE_LIST: u16 = 5;
/// Request: set the length of the virtio-net header.
pub const NETMAP_REQ_PORT_HDR_SET: u16 = 6;
/// Request: get the length of the virtio-net header.
pub const NETMAP_REQ_PORT_HDR_GET: u16 = 7;
/// Request: make a persistent switch port.
pub const NETMAP_REQ_VALE_NEWIF: u16 = 8;
/// Request: delete a persistent switch port.
pub const NETMAP_REQ_VALE_DELIF: u16 = 9;
/// Request: start polling a switch port.
pub const NETMAP_REQ_VALE_POLLING_ENABLE: u16 = 10;
/// Request: stop polling a switch port.
pub const NETMAP_REQ_VALE_POLLING_DISABLE: u16 = 11;
/// Request: describe the pools of a region.
pub const NETMAP_REQ_POOLS_INFO_GET: u16 = 12;
/// Request: run the sync loop in the calling thread.
pub const NETMAP_REQ_SYNC_KLOOP_START: u16 = 13;
/// Request: stop that loop.
pub const NETMAP_REQ_SYNC_KLOOP_STOP: u16 = 14;
/// Request: exchange cursors through memory of the program.
pub const NETMAP_REQ_CSB_ENABLE: u16 = 15;

/// Option: memory of the program's.
pub const NETMAP_REQ_OPT_EXTMEM: u32 = 1;
/// Option: eventfds for the sync loop.
pub const NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS: u32 = 2;
/// Option: cursors in memory of the program.
pub const NETMAP_REQ_OPT_CSB: u32 = 3;
/// Option: direct modes of the sync loop.
pub const NETMAP_REQ_OPT_SYNC_KLOOP_MODE: u32 = 4;
/// Option: packet offsets in `slot.ptr`.
pub const NETMAP_REQ_OPT_OFFSETS: u32 = 5;
/// One past the last option.
pub const NETMAP_REQ_OPT_MAX: u32 = 6;

/// `nmreq_opt_sync_kloop_mode`: transmit in the context of the kick.
pub const NM_OPT_SYNC_KLOOP_DIRECT_TX: u32 = 1;
/// `nmreq_opt_sync_kloop_mode`: receive in the context of the kick.
pub const NM_OPT_SYNC_KLOOP_DIRECT_RX: u32 = 2;
/// `nmreq_vale_polling`: one thread.
pub const NETMAP_POLLING_MODE_SINGLE_CPU: u32 = 1;
/// `nmreq_vale_polling`: a thread per CPU.
pub const NETMAP_POLLING_MODE_MULTI_CPU: u32 = 2;

/// The control ioctl.
pub const NIOCCTRL: u64 = iowr(151, size_of::<nmreq_header>());
/// Sync the transmit rings.
pub const NIOCTXSYNC: u64 = io(148);
/// Sync the receive rings.
pub const NIOCRXSYNC: u64 = io(149);

macro_rules! pod {
    ($($t:ty = $size:expr),* $(,)?) => { $(
        // SAFETY: repr(C), integers only, and the size below equals the sum of the fields' (checked by eye and by
        // tests/tests/abi.rs, which prints every offset).
        unsafe impl Pod for $t {}
        const _: () = assert!(size_of::<$t>() == $size, stringify!($t));
    )* };
}
pub(super) use pod;

/// A buffer descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct netmap_slot {
    /// Index of the buffer.
    pub buf_idx: u32,
    /// Bytes in this slot.
    pub len: u16,
    /// `NS_*`.
    pub flags: u16,
    /// Address of an indirect buffer, or the packet's offset, or the program's own.
    pub ptr: u64,
}

/// `struct timeval` of 64-bit Linux.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct timeval {
    /// Seconds.
    pub tv_sec: i64,
    /// Microseconds.
    pub tv_usec: i64,
}

/// Head of a ring; `num_slots` slots follow it.
#[repr(C, align(128))]
#[derive(Clone, Copy)]
pub struct netmap_ring {
    /// Distance from this structure to buffer 0, in bytes.
    pub buf_ofs: i64,
    /// Slots in the ring.
    pub num_slots: u32,
    /// Bytes in a buffer, and the distance from one to the next.
    pub nr_buf_size: u32,
    /// Index of the ring.
    pub ringid: u16,
    /// 0 transmit, 1 receive.
    pub dir: u16,
    /// First slot of the program's.
    pub head: u32,
    /// Wakeup point.
    pub cur: u32,
    /// First slot of the kernel's.
    pub tail: u32,
    /// `NR_TIMESTAMP`, `NR_FORWARD`.
    pub flags: u32,
    _pad0: [u8; 4],
    /// Time of the last sync.
    pub ts: timeval,
    /// Part of `slot.ptr` that holds an offset.
    pub offset_mask: u64,
    /// Alignment of transmitted packets.
    pub buf_align: u64,
    _pad1: [u8; 56],
    /// Room for the program.
    pub sem: [u8; 128],
}

/// Describes the rings of a bound fd; `ring_ofs` follows it: NIC tx, host tx, NIC rx, host rx, 8 bytes each, relative to
/// this structure, 0 for a ring that the fd has not bound.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct netmap_if {
    /// Name of the interface.
    pub ni_name: [u8; IFNAMSIZ],
    /// API version.
    pub ni_version: u32,
    /// `NI_PRIV_MEM`.
    pub ni_flags: u32,
    /// NIC transmit rings.
    pub ni_tx_rings: u32,
    /// NIC receive rings.
    pub ni_rx_rings: u32,
    /// First of the extra buffers.
    pub ni_bufs_head: u32,
    /// Host transmit rings.
    pub ni_host_tx_rings: u32,
    /// Host receive rings.
    pub ni_host_rx_rings: u32,
    /// Unused.
    pub ni_spare1: [u32; 3],
}

/// Header of every option.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nmreq_option {
    /// Next option.
    pub nro_next: u64,
    /// `NETMAP_REQ_OPT_*`.
    pub nro_reqtype: u32,
    /// 0 or an errno.
    pub nro_status: u32,
    /// Size of an option that has no fixed one.
    pub nro_size: u64,
}

/// Header of every request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct nmreq_header {
    /// API version.
    pub nr_version: u16,
    /// `NETMAP_REQ_*`.
    pub nr_reqtype: u16,
    /// Zero.
    pub nr_reserved: u32,
    /// Name of the port.
    pub nr_name: [u8; NETMAP_REQ_IFNAMSIZ],
    /// First option.
    pub nr_options: u64,
    /// The body.
    pub nr_body: u64,
}

/// Body of `NETMAP_REQ_REGISTER`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct nmreq_register {
    /// Offset of the `netmap_if` in the region.
    pub nr_offset: u64,
    /// Size of the region.
    pub nr_memsize: u64,
    /// Slots in transmit rings.
    pub nr_tx_slots: u32,
    /// Slots in receive rings.
    pub nr_rx_slots: u32,
    /// Transmit rings.
    pub nr_tx_rings: u16,
    /// Receive rings.
    pub nr_rx_rings: u16,
    /// Host transmit rings.
    pub nr_host_tx_rings: u16,
    /// Host receive rings.
    pub nr_host_rx_rings: u16,
    /// Region.
    pub nr_mem_id: u16,
    /// Ring to bind.
    pub nr_ringid: u16,
    /// `NR_REG_*`.
    pub nr_mode: u32,
    /// Extra buffers.
    pub nr_extra_bufs: u32,
    /// Spells out the padding that C has here.
    pub _pad: u32,
    /// `NR_*`.
    pub nr_flags: u64,
}

/// Body of `NETMAP_REQ_PORT_INFO_GET`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct nmreq_port_info_get {
    /// Size of the region.
    pub nr_memsize: u64,
    /// Slots in transmit rings.
    pub nr_tx_slots: u32,
    /// Slots in receive rings.
    pub nr_rx_slots: u32,
    /// Transmit rings.
    pub nr_tx_rings: u16,
    /// Receive rings.
    pub nr_rx_rings: u16,
    /// Host transmit rings.
    pub nr_host_tx_rings: u16,
    /// Host receive rings.
    pub nr_host_rx_rings: u16,
    /// Region.
    pub nr_mem_id: u16,
    /// Unused.
    pub pad: [u16; 3],
}

/// Body of `NETMAP_REQ_VALE_ATTACH`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nmreq_vale_attach {
    /// How to register the port.
    pub reg: nmreq_register,
    /// Where it was attached.
    pub port_index: u32,
    /// Unused.
    pub pad1: u32,
}

/// Body of `NETMAP_REQ_VALE_DETACH`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nmreq_vale_detach {
    /// Where it was attached.
    pub port_index: u32,
    /// Unused.
    pub pad1: u32,
}

/// Body of `NETMAP_REQ_VALE_LIST`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nmreq_vale_list {
    /// Switch.
    pub nr_bridge_idx: u16,
    /// Unused.
    pub pad1: u16,
    /// Port.
    pub nr_port_idx: u32,
}

/// Body of `NETMAP_REQ_PORT_HDR_SET` and `_GET`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nmreq_port_hdr {
    /// Bytes of the virtio-net header.
    pub nr_hdr_len: u32,
    /// Unused.
    pub pad1: u32,
}

/// Body of `NETMAP_REQ_VALE_NEWIF`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nmreq_vale_newif {
    /// Slots in transmit rings.
    pub nr_tx_slots: u32,
    /// Slots in receive rings.
    pub nr_rx_slots: u32,
    /// Transmit rings.
    pub nr_tx_rings: u16,
    /// Receive rings.
    pub nr_rx_rings: u16,
    /// Region.
    pub nr_mem_id: u16,
    /// Unused.
    pub pad1: u16,
}

/// Body of `NETMAP_REQ_VALE_POLLING_*`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nmreq_vale_polling {
    /// `NETMAP_POLLING_MODE_*`.
    pub nr_mode: u32,
    /// First CPU.
    pub nr_first_cpu_id: u32,
    /// How many CPUs.
    pub nr_num_polling_cpus: u32,
    /// Unused.
    pub pad1: u32,
}

/// Body of `NETMAP_REQ_POOLS_INFO_GET`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nmreq_pools_info {
    /// Size of the region.
    pub nr_memsize: u64,
    /// Region.
    pub nr_mem_id: u16,
    /// Unused.
    pub pad1: [u16; 3],
    /// Start of the `netmap_if` pool.
    pub nr_if_pool_offset: u64,
    /// Objects in it.
    pub nr_if_pool_objtotal: u32,
    /// Bytes of one.
    pub nr_if_pool_objsize: u32,
    /// Start of the ring pool.
    pub nr_ring_pool_offset: u64,
    /// Objects in it.
    pub nr_ring_pool_objtotal: u32,
    /// Bytes of one.
    pub nr_ring_pool_objsize: u32,
    /// Start of the buffer pool.
    pub nr_buf_pool_offset: u64,
    /// Buffers in it.
    pub nr_buf_pool_objtotal: u32,
    /// Bytes of one.
    pub nr_buf_pool_objsize: u32,
}

/// Body of `NETMAP_REQ_SYNC_KLOOP_START`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nmreq_sync_kloop_start {
    /// Microseconds to sleep when idle.
    pub sleep_us: u32,
    /// Unused.
    pub pad1: u32,
}

/// Cursors that the program writes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nm_csb_atok {
    /// Head.
    pub head: u32,
    /// Cur.
    pub cur: u32,
    /// The program wants to be notified.
    pub appl_need_kick: u32,
    /// Flags of the sync.
    pub sync_flags: u32,
    /// To a cache line.
    pub pad: [u32; 12],
}

/// Cursors that the kernel's side writes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nm_csb_ktoa {
    /// Next slot to be processed.
    pub hwcur: u32,
    /// First slot of the kernel's.
    pub hwtail: u32,
    /// The kernel's side wants to be notified.
    pub kern_need_kick: u32,
    /// To a cache line.
    pub pad: [u32; 13],
}

/// Option `NETMAP_REQ_OPT_SYNC_KLOOP_MODE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nmreq_opt_sync_kloop_mode {
    /// Header.
    pub nro_opt: nmreq_option,
    /// `NM_OPT_SYNC_KLOOP_DIRECT_*`.
    pub mode: u32,
    /// Spells out the padding that C has here.
    pub _pad: u32,
}

/// Option `NETMAP_REQ_OPT_EXTMEM`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nmreq_opt_extmem {
    /// Header.
    pub nro_opt: nmreq_option,
    /// Address of the memory.
    pub nro_usrptr: u64,
    /// Its pools.
    pub nro_info: nmreq_pools_info,
}

/// Option `NETMAP_REQ_OPT_CSB`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nmreq_opt_csb {
    /// Header.
    pub nro_opt: nmreq_option,
    /// Array of [`nm_csb_atok`].
    pub csb_atok: u64,
    /// Array of [`nm_csb_ktoa`].
    pub csb_ktoa: u64,
}

/// Option `NETMAP_REQ_OPT_OFFSETS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct nmreq_opt_offsets {
    /// Header.
    pub nro_opt: nmreq_option,
    /// Largest offset.
    pub nro_max_offset: u64,
    /// First value of all slots.
    pub nro_initial_offset: u64,
    /// Bits of `ptr` that hold the offset.
    pub nro_offset_bits: u32,
    /// Alignment of transmitted packets.
    pub nro_tx_align: u32,
    /// Zero.
    pub nro_min_gap: u64,
}

pod! {
    netmap_slot = 16,
    timeval = 16,
    netmap_ring = 256,
    netmap_if = 56,
    nmreq_option = 24,
    nmreq_header = 88,
    nmreq_register = 56,
    nmreq_port_info_get = 32,
    nmreq_vale_attach = 64,
    nmreq_vale_detach = 8,
    nmreq_vale_list = 8,
    nmreq_port_hdr = 8,
    nmreq_vale_newif = 16,
    nmreq_vale_polling = 16,
    nmreq_pools_info = 64,
    nmreq_sync_kloop_start = 8,
    nm_csb_atok = 64,
    nm_csb_ktoa = 64,
    nmreq_opt_sync_kloop_mode = 32,
    nmreq_opt_extmem = 96,
    nmreq_opt_csb = 40,
    nmreq_opt_offsets = 56,
}

const _: () = {
    assert!(offset_of!(netmap_ring, head) == 20);
    assert!(offset_of!(netmap_ring, tail) == 28);
    assert!(offset_of!(netmap_ring, ts) == 40);
    assert!(offset_of!(netmap_ring, offset_mask) == 56);
    assert!(offset_of!(netmap_ring, sem) == 128);
    assert!(offset_of!(netmap_if, ni_bufs_head) == 32);
    assert!(offset_of!(nmreq_header, nr_options) == 72);
    assert!(offset_of!(nmreq_register, nr_flags) == 48);
    assert!(NIOCCTRL == 0xc058_6997);
};
