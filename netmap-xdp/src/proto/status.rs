//! [`Status`] on the wire: see `grant` about new fields.

use super::wire::{wire_enum, wire_struct};
use crate::engine::{Holder, Kind, Part, PortStatus, RegionStatus, RingStatus, Status};

wire_struct! {
    Part { from, accounts }
    Status { regions, ports, next }
    RegionStatus { id, owner, buf_size, buffers, free, slots, kernel, spare, extra, private, missing, twice, examples }
    PortStatus { name, kind, namespace, region, mode, rings, grants, holders }
    Holder { pid, uid, comm }
    RingStatus {
        dir, id, host, slots, users, exclusive, pending, stopped, monitored, syncing, kernel, packets, bytes, syncs, reinits, drops
    }
}

wire_enum! {
    Kind { 0 => Nic, 1 => Pipe, 2 => Monitor, 3 => Null, 4 => Vale }
}
