//! The control requests of `ctl` and their answers on the wire, field by field.

use super::wire::{Malformed, Reader, Wire, Writer, wire_enum, wire_struct};
use crate::ctl::{
    Csb, EventFdPair, EventFds, Extmem, Failure, Geometry, HdrSet, KloopMode, KloopStart, Mode, Offsets, Options,
    Polling, Pool, Pools, PoolsInfo, PoolsInfoReply, PortInfo, PortInfoReply, PortName, Register, Reply, Request,
    ValeAttach, ValeConfig, ValeList, ValeListReply, ValeNewif, ValeNewifReply,
};
use crate::xsk::Steering;

wire_struct! {
    Register {
        name, mode, ring_id, flags, mem_id, tx_slots, rx_slots, tx_rings, rx_rings, host_tx_rings, host_rx_rings,
        extra_bufs, options
    }
    PortInfo { name, mem_id, tx_slots, rx_slots, tx_rings, rx_rings, host_tx_rings, host_rx_rings }
    ValeAttach { register }
    ValeList { name, bridge, port }
    HdrSet { name, len }
    ValeNewif { name, tx_slots, rx_slots, tx_rings, rx_rings, mem_id }
    Polling { name, mode, first_cpu, cpus }
    PoolsInfo { name, mem_id }
    KloopStart { sleep, eventfds, mode }
    ValeConfig { name, data }
    Options { extmem, csb, offsets, kloop_eventfds, kloop_mode, steering }
    Extmem { address, pools }
    Pools { memsize, mem_id, interfaces, rings, buffers }
    Pool { offset, count, size }
    Csb { atok, ktoa }
    Offsets { max, initial, bits, tx_align, min_gap }
    EventFds { pairs, size }
    EventFdPair { io, irq }
    KloopMode { bits }
    Failure { errno, message }
    PortInfoReply { memsize, mem_id, geometry }
    Geometry { tx_slots, rx_slots, tx_rings, rx_rings, host_tx_rings, host_rx_rings }
    ValeListReply { name, bridge, port }
    ValeNewifReply { tx_slots, rx_slots, tx_rings, rx_rings, mem_id }
}

wire_enum! {
    Request {
        1 => Register(r), 2 => PortInfo(r), 3 => ValeAttach(r), 4 => ValeDetach(r), 5 => ValeList(r), 6 => HdrSet(r),
        7 => HdrGet(r), 8 => ValeNewif(r), 9 => ValeDelif(r), 10 => PollingOn(r), 11 => PollingOff(r),
        12 => PoolsInfo(r), 13 => KloopStart(r), 14 => KloopStop, 15 => CsbEnable(r), 16 => ValeConfig(r),
    }
    Reply {
        0 => Done, 1 => Register(r), 2 => PortInfo(r), 3 => ValeAttach(r), 4 => ValeDetach(r), 5 => ValeList(r),
        6 => HdrLen(r), 7 => ValeNewif(r), 8 => PoolsInfo(r), 9 => ValeConfig(r),
    }
}

impl Wire for PoolsInfoReply {
    fn put(&self, to: &mut Writer) {
        self.0.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Pools::take(from).map(PoolsInfoReply)
    }
}

/// Its text, which is read again: what a client says is not believed.
impl Wire for Steering {
    fn put(&self, to: &mut Writer) {
        self.text().to_string().put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Steering::parse(&String::take(from)?).map_err(|_| Malformed("steering rules that cannot be understood"))
    }
}

impl Wire for Mode {
    fn put(&self, to: &mut Writer) {
        self.raw().put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        u32::take(from).map(Mode::from_raw)
    }
}

/// Its length, then its bytes.
impl Wire for PortName {
    fn put(&self, to: &mut Writer) {
        self.as_bytes().to_vec().put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bytes = Vec::<u8>::take(from)?;
        if bytes.len() > PortName::MAX || bytes.contains(&0) {
            return Err(Malformed("a name of a port that cannot be one"));
        }
        Ok(PortName::from_field(&bytes))
    }
}
