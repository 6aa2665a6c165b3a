//! The shared structures, as atomics: what `netmap.h` defines, and the private state that it does not show.

use crate::abi;
use crate::shm::shared_struct;
use crate::sync::{AtomicI64, AtomicU16, AtomicU32, AtomicU64};
use std::mem::{align_of, offset_of, size_of};

shared_struct! {
    /// `struct netmap_ring` without its slots, as a peer of the program sees it.
    #[repr(align(128))]
    pub struct RingHeader {
        /// Distance to buffer 0.
        pub buf_ofs: AtomicI64,
        /// Slots.
        pub num_slots: AtomicU32,
        /// Bytes in a buffer.
        pub nr_buf_size: AtomicU32,
        /// Index of the ring.
        pub ringid: AtomicU16,
        /// 0 transmit, 1 receive.
        pub dir: AtomicU16,
        /// First slot of the program's; the program writes it.
        pub head: AtomicU32,
        /// Wakeup point; the program writes it.
        pub cur: AtomicU32,
        /// First slot of ours.
        pub tail: AtomicU32,
        /// `NR_*`; the program writes it.
        pub flags: AtomicU32,
        _pad0: AtomicU32,
        /// Seconds of the last sync.
        pub ts_sec: AtomicI64,
        /// Microseconds of the last sync.
        pub ts_usec: AtomicI64,
        /// Part of `slot.ptr` that holds an offset.
        pub offset_mask: AtomicU64,
        /// Alignment of transmitted packets.
        pub buf_align: AtomicU64,
        _pad1: [AtomicU64; 7],
        /// The program's own.
        _sem: [AtomicU64; 16],
    }
}

shared_struct! {
    /// `struct netmap_slot`.
    pub struct SlotView {
        /// Index of the buffer.
        pub buf_idx: AtomicU32,
        /// Bytes.
        pub len: AtomicU16,
        /// `NS_*`.
        pub flags: AtomicU16,
        /// The program's own, but for offsets and indirect buffers.
        pub ptr: AtomicU64,
    }
}

shared_struct! {
    /// `struct netmap_if` without its offsets.
    pub struct IfHeader {
        /// Name of the interface.
        pub ni_name: [AtomicU32; 4],
        /// API version.
        pub ni_version: AtomicU32,
        /// `NI_PRIV_MEM`.
        pub ni_flags: AtomicU32,
        /// NIC transmit rings.
        pub ni_tx_rings: AtomicU32,
        /// NIC receive rings.
        pub ni_rx_rings: AtomicU32,
        /// First extra buffer; the program writes it.
        pub ni_bufs_head: AtomicU32,
        /// Host transmit rings.
        pub ni_host_tx_rings: AtomicU32,
        /// Host receive rings.
        pub ni_host_rx_rings: AtomicU32,
        _spare: [AtomicU32; 3],
    }
}

/// How many reasons for drops a ring counts.
pub(super) const REASONS: usize = 9;

shared_struct! {
    /// Private state of one ring, in the port's own memfd: what the module keeps in `struct netmap_kring`.
    ///
    /// Written only by the holder of `lock`; read by anyone.
    #[repr(align(64))]
    pub struct KringState {
        /// 0, or the client that syncs this ring.
        pub lock: AtomicU32,
        /// Not 0 once what carries the ring is gone for good.
        pub stopped: AtomicU32,
        /// Not 0 while what carries the ring has not started (an interface that is down).
        pub pending: AtomicU32,
        /// 0 without monitors; else a number that is new whenever their set is.
        pub taps: AtomicU32,
        /// Not 0 if who synced the ring died over it.
        pub repair: AtomicU32,
        /// NIC rings: not 0 if frames of several buffers can be sent. Known once an interface has been up.
        pub chains: AtomicU32,
        _pad0: [AtomicU32; 10],
        /// Next slot to be processed: `nr_hwcur`.
        pub hwcur: AtomicU32,
        /// First slot of the kernel's: `nr_hwtail`.
        pub hwtail: AtomicU32,
        /// `head` at the last sync.
        pub rhead: AtomicU32,
        /// `cur` at the last sync.
        pub rcur: AtomicU32,
        /// `tail` as the program was told.
        pub rtail: AtomicU32,
        /// Monitored transmit rings, and receive rings of switches: slots before it were shown to the monitors.
        pub shown: AtomicU32,
        /// How often `rtail` changed.
        pub moves: AtomicU32,
        /// NIC rings, for whoever finds the ring after a death: once the producer of the AF_XDP ring that slots are handed over
        /// by (fill, transmit) stands here, hwcur is `handed_to`.
        pub handed_at: AtomicU32,
        /// As above.
        pub handed_to: AtomicU32,
        /// The same for what is received: once the consumer of the receive ring stands here, hwtail is `received_to`.
        pub received_at: AtomicU32,
        /// As above.
        pub received_to: AtomicU32,
        /// NIC receive rings: the slot before which, from hwtail on, `held` names the buffers that the kernel has.
        pub filled: AtomicU32,
        /// The same: how many buffers are spare.
        pub spares: AtomicU32,
        _pad1: [AtomicU32; 3],
        /// Software ports: the `hwtail` that the other side has published.
        pub peer_tail: AtomicU32,
        _pad3: [AtomicU32; 15],
        /// Not 0 if somebody sleeps on this ring and is to be woken. A line of its own with what else the other side alone
        /// writes, for the owner of the ring looks at `peer_tail` all the time.
        pub sleeping: AtomicU32,
        /// Monitors: 0, or the client that writes to this ring. Monitored receive rings of switches: who shows it to them.
        pub tap_lock: AtomicU32,
        /// VALE receive rings: 0, or the client that reserves or publishes slots now.
        pub producer: AtomicU32,
        /// VALE receive rings: the next slot to be reserved by a sender.
        pub lease: AtomicU32,
        _pad4: [AtomicU32; 12],
        /// Packets that crossed the ring.
        pub packets: AtomicU64,
        /// Their bytes.
        pub bytes: AtomicU64,
        /// Syncs.
        pub syncs: AtomicU64,
        /// Times that the ring was reinitialised.
        pub reinits: AtomicU64,
        /// Packets dropped, by reason.
        pub drops: [AtomicU64; REASONS],
        /// Bits of `slot.ptr` that hold an offset, 0 for none.
        pub offset_mask: AtomicU64,
        /// Largest offset.
        pub offset_max: AtomicU64,
        /// Most bytes that a received packet may take behind the offset of a slot, 0 for the rest of the buffer.
        pub offset_gap: AtomicU64,
    }
}

macro_rules! same_place {
    ($view:ident . $field:ident, $abi:ident) => {
        assert!(offset_of!($view, $field) == offset_of!(abi::$abi, $field));
    };
}

const _: () = {
    assert!(size_of::<RingHeader>() == size_of::<abi::netmap_ring>());
    assert!(align_of::<RingHeader>() == align_of::<abi::netmap_ring>());
    assert!(size_of::<SlotView>() == size_of::<abi::netmap_slot>());
    assert!(size_of::<IfHeader>() == size_of::<abi::netmap_if>());
    assert!(size_of::<KringState>() == 384 && offset_of!(KringState, hwcur) == 64);
    assert!(offset_of!(KringState, peer_tail) == 128 && offset_of!(KringState, packets) == 256);
    same_place!(RingHeader.num_slots, netmap_ring);
    same_place!(RingHeader.dir, netmap_ring);
    same_place!(RingHeader.head, netmap_ring);
    same_place!(RingHeader.cur, netmap_ring);
    same_place!(RingHeader.tail, netmap_ring);
    same_place!(RingHeader.flags, netmap_ring);
    same_place!(RingHeader.offset_mask, netmap_ring);
    same_place!(RingHeader.buf_align, netmap_ring);
    assert!(offset_of!(RingHeader, ts_sec) == offset_of!(abi::netmap_ring, ts));
    assert!(offset_of!(RingHeader, _sem) == offset_of!(abi::netmap_ring, sem));
    same_place!(SlotView.buf_idx, netmap_slot);
    same_place!(SlotView.len, netmap_slot);
    same_place!(SlotView.flags, netmap_slot);
    same_place!(SlotView.ptr, netmap_slot);
    same_place!(IfHeader.ni_version, netmap_if);
    same_place!(IfHeader.ni_bufs_head, netmap_if);
    same_place!(IfHeader.ni_host_rx_rings, netmap_if);
};
