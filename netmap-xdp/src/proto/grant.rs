//! A [`Grant`] on the wire. A new field is one more word here, in its structure's line, and one more in
//! [`VERSION`](super::VERSION).

use super::wire::{Malformed, Reader, Wire, Writer, wire_enum, wire_struct};
use crate::ctl::RegisterReply;
use crate::engine::{
    Answers, CarrierGrant, Grant, GrantId, InletGrant, RegionGrant, RingGrant, SeatGrant, TapGrant, TapsGrant, ValePeer,
};
use crate::port::monitor::TapKind;
use crate::port::nic::NicPlan;
use crate::ring::{Dir, KringPlace, RingPlace};
use crate::shm::Memory;
use crate::sys::Mode;
use crate::xsk::{Chunks, Geometry};
use std::sync::Arc;

wire_struct! {
    Grant { id, reply, region, private, private_size, tx, rx, name, mode, links, awaited }
    TapsGrant { number, taps }
    TapGrant { region, private, private_size, ring, kring, kind, wake }
    SeatGrant { memory, switch, port, tenant }
    Answers { extmem, offsets }
    RegionGrant { fd, at, size, buf_size, of_program, here }
    ValePeer { region, private, private_size, rings }
    InletGrant { ring, kring, wake, taps }
    RingGrant { ring, kring, carrier, bell }
    RingPlace { offset, slots, buffers_at, buffers, buf_size, dir, id }
    KringPlace { offset, room }
    NicPlan { rx_size, tx_size, geometry, always, busy, copies }
    RegisterReply {
        offset, memsize, tx_slots, rx_slots, tx_rings, rx_rings, host_tx_rings, host_rx_rings, mem_id, extra_bufs
    }
}

wire_enum! {
    CarrierGrant {
        0 => Nic { socket, plan, stamps }, 1 => Null, 2 => Pipe { peer, peer_kring, wake, wake_peer },
        3 => Host { tap, links }, 4 => Monitor { wake }, 5 => ValeTx { seat }, 6 => ValeRx { wake },
    }
    TapKind { 0 => Copy, 1 => Exchange, 2 => Chain, 3 => Arrival }
    Dir { 0 => Tx, 1 => Rx }
    Mode { 0 => ZeroCopy, 1 => Native, 2 => Generic }
    Chunks { 0 => Unaligned, 1 => Aligned }
}

/// A mapping stays in its process: netmapd takes memory of programs by its descriptor only, so a grant on the wire has none.
impl Wire for Arc<Memory> {
    fn put(&self, _: &mut Writer) {}
    fn take(_: &mut Reader<'_>) -> Result<Self, Malformed> {
        Err(Malformed("a mapping, which cannot be passed on"))
    }
}

impl Wire for Geometry {
    fn put(&self, to: &mut Writer) {
        self.chunks().put(to);
        self.stride().put(to);
        self.headroom().put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let chunks = Chunks::take(from)?;
        let (geometry, headroom) = (Geometry::new(chunks, u32::take(from)?), u32::take(from)?);
        let geometry = geometry.map(|g| g.behind(headroom.into())).filter(|g| g.headroom() == headroom);
        geometry.ok_or(Malformed("no such Geometry"))
    }
}

impl Wire for GrantId {
    fn put(&self, to: &mut Writer) {
        self.0.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        u64::take(from).map(GrantId)
    }
}
