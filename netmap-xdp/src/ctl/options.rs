//! Options of requests, typed. Addresses in them are unchecked, and values are judged by whoever carries the request
//! out, since most depend on the port.

use super::errno::{Condition, Failure};
use crate::abi::*;
use crate::xsk::Steering;

/// Name of an option, as libnetmap's messages have it.
pub fn option_name(option: u32) -> &'static str {
    match option {
        NETMAP_REQ_OPT_EXTMEM => "extmem",
        NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS => "sync-kloop-eventfds",
        NETMAP_REQ_OPT_CSB => "csb",
        NETMAP_REQ_OPT_SYNC_KLOOP_MODE => "sync-kloop-mode",
        NETMAP_REQ_OPT_OFFSETS => "offsets",
        _ => "unknown",
    }
}

/// Options of a request, typed; each at most once.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// Memory of the program's.
    pub extmem: Option<Extmem>,
    /// Cursors in memory of the program.
    pub csb: Option<Csb>,
    /// Packet offsets.
    pub offsets: Option<Offsets>,
    /// Eventfds for the sync loop.
    pub kloop_eventfds: Option<EventFds>,
    /// Direct modes of the sync loop.
    pub kloop_mode: Option<KloopMode>,
    /// Which frames of a NIC netmap gets; no option of netmap's, but of this library's own settings and API.
    pub steering: Option<Steering>,
}

/// `NETMAP_REQ_OPT_EXTMEM`: use memory of the program as the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extmem {
    /// Where it starts, unchecked.
    pub address: u64,
    /// Its size, and what the program would like in it.
    pub pools: Pools,
}

/// Pools of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Pools {
    /// Size of the region, bytes.
    pub memsize: u64,
    /// Its id.
    pub mem_id: u16,
    /// `netmap_if` objects.
    pub interfaces: Pool,
    /// Rings.
    pub rings: Pool,
    /// Buffers.
    pub buffers: Pool,
}

/// Objects of one kind in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Pool {
    /// Where they start, bytes from the start of the region.
    pub offset: u64,
    /// How many.
    pub count: u32,
    /// Bytes of one.
    pub size: u32,
}

impl Pools {
    pub(super) fn from_raw(raw: &nmreq_pools_info) -> Pools {
        let pool = |offset, count, size| Pool { offset, count, size };
        Pools {
            memsize: raw.nr_memsize,
            mem_id: raw.nr_mem_id,
            interfaces: pool(raw.nr_if_pool_offset, raw.nr_if_pool_objtotal, raw.nr_if_pool_objsize),
            rings: pool(raw.nr_ring_pool_offset, raw.nr_ring_pool_objtotal, raw.nr_ring_pool_objsize),
            buffers: pool(raw.nr_buf_pool_offset, raw.nr_buf_pool_objtotal, raw.nr_buf_pool_objsize),
        }
    }

    pub(super) fn put(&self, raw: &mut nmreq_pools_info) {
        *raw = nmreq_pools_info {
            nr_memsize: self.memsize,
            nr_mem_id: self.mem_id,
            pad1: raw.pad1,
            nr_if_pool_offset: self.interfaces.offset,
            nr_if_pool_objtotal: self.interfaces.count,
            nr_if_pool_objsize: self.interfaces.size,
            nr_ring_pool_offset: self.rings.offset,
            nr_ring_pool_objtotal: self.rings.count,
            nr_ring_pool_objsize: self.rings.size,
            nr_buf_pool_offset: self.buffers.offset,
            nr_buf_pool_objtotal: self.buffers.count,
            nr_buf_pool_objsize: self.buffers.size,
        };
    }
}

/// `NETMAP_REQ_OPT_CSB`: cursors in memory of the program, one entry per bound ring, transmit first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Csb {
    /// Array of `nm_csb_atok`, unchecked.
    pub atok: u64,
    /// Array of `nm_csb_ktoa`, unchecked.
    pub ktoa: u64,
}

/// `NETMAP_REQ_OPT_OFFSETS`: packets start at an offset in their buffer. Judged against the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// Largest offset, bytes.
    pub max: u64,
    /// First offset of every slot, bytes.
    pub initial: u64,
    /// Bits of `slot.ptr` that hold it, 0 for all.
    pub bits: u32,
    /// Alignment wanted of transmitted packets, bytes.
    pub tx_align: u32,
    /// Smallest distance of two packets in one buffer, bytes; 0 if buffers are not shared.
    pub min_gap: u64,
}

/// `NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS`: one pair per bound ring, transmit first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFds {
    /// As many as the option has room for.
    pub pairs: Vec<EventFdPair>,
    /// `nro_size` as sent, bytes.
    pub size: u64,
}

impl EventFds {
    /// Whether the option has exactly one pair for each of `rings`; if not, the loop refuses it with `EINVAL`.
    pub fn fits(&self, rings: usize) -> bool {
        self.size == (size_of::<nmreq_option>() + 8 * rings) as u64 && self.pairs.len() == rings
    }
}

/// Eventfds of one ring; below 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventFdPair {
    /// The program kicks the loop.
    pub io: i32,
    /// The loop notifies the program.
    pub irq: i32,
}

/// `NETMAP_REQ_OPT_SYNC_KLOOP_MODE`: sync in the context of the kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KloopMode {
    /// `NM_OPT_SYNC_KLOOP_DIRECT_*`, unchecked.
    pub bits: u32,
}

impl KloopMode {
    /// Whether transmission and reception are direct; `EINVAL` if there are unknown bits.
    pub fn directions(self) -> Result<(bool, bool), Failure> {
        let (tx, rx) = (NM_OPT_SYNC_KLOOP_DIRECT_TX, NM_OPT_SYNC_KLOOP_DIRECT_RX);
        if self.bits & !(tx | rx) != 0 {
            return Err(
                Condition::KloopModeBits.says(format!("mode {:#x} of the sync loop has unknown bits", self.bits))
            );
        }
        Ok((self.bits & tx != 0, self.bits & rx != 0))
    }
}
