//! The API before 14: everything in one `struct nmreq`, in terms of the same requests.
//!
//! The original has refused versions below 14 since the layout of `netmap_if` changed, so that binaries built with
//! older headers cannot work. Programs do send 11 to 14, though, being built with today's headers and a number of their
//! own, or counting up until one is accepted. So 11, the first version with today's `nmreq`, and later are accepted,
//! also beyond 14, as in the original: the request has not changed, only what it is worth to old binaries.

use super::errno::{Condition, Failure};
use super::options::Options;
use super::reply::{Geometry, Reply};
use super::request::{HdrSet, Polling, PortInfo, PortName, Register, Request, ValeAttach, ValeList, ValeNewif};
use crate::abi::*;
use crate::sys::{Errno, UserMem, write_pod};

/// The first version whose `nmreq` has today's layout and meaning.
const OLDEST: u32 = 11;

/// A legacy request that waits for its answer.
#[derive(Debug)]
pub(super) struct Legacy {
    arg: u64,
    raw: nmreq,
}

impl Legacy {
    pub(super) fn new(arg: u64, raw: nmreq) -> Legacy {
        Legacy { arg, raw }
    }

    /// Writes the answer back; as the kernel copies the whole structure, so it is done after a failure too.
    pub(super) fn finish(mut self, mem: &dyn UserMem, outcome: Result<Reply, Errno>) -> Result<(), Errno> {
        if let Ok(reply) = &outcome {
            put(&mut self.raw, reply);
        }
        write_pod(mem, self.arg, &self.raw)?;
        outcome.map(|_| ())
    }
}

/// The request in `raw`, which came with `NIOCREGIF` or `NIOCGINFO`. Ends its name with a zero byte.
///
/// Errors: `EINVAL` for a version below 11 and for an unknown command, `ENOMEM` for the passthrough commands, which the
/// original does not support either. A pipe's suffix always fits behind a name of 15 bytes, so that the case of no
/// space, `ENOBUFS` inside the original, cannot occur.
///
/// Source: `netmap_ioctl_legacy`, `nmreq_from_legacy`.
pub(super) fn decode(cmd: u64, raw: &mut nmreq) -> Result<Request, Failure> {
    if raw.nr_version < OLDEST {
        let message = format!("API version {} is not served; {OLDEST} and later are", raw.nr_version);
        return Err(Condition::BadVersion.says(message));
    }
    raw.nr_name[IFNAMSIZ - 1] = 0;
    let raw = &*raw;
    let name = PortName::from_field(&raw.nr_name);
    if cmd == NIOCGINFO {
        return Ok(match raw.nr_cmd {
            NETMAP_BDG_LIST => Request::ValeList(ValeList { name, bridge: raw.nr_arg1, port: u32::from(raw.nr_arg2) }),
            _ => Request::PortInfo(port_info(name, raw)),
        });
    }
    Ok(match raw.nr_cmd {
        0 => Request::Register(register(name, raw)),
        NETMAP_BDG_ATTACH => {
            let mode = if raw.nr_arg1 & NETMAP_BDG_HOST != 0 { NR_REG_NIC_SW } else { NR_REG_ALL_NIC };
            let register = Register { mode: super::Mode::from_raw(mode), ..register(name, raw) };
            Request::ValeAttach(ValeAttach { register })
        }
        NETMAP_BDG_DETACH => Request::ValeDetach(name),
        NETMAP_BDG_VNET_HDR => Request::HdrSet(HdrSet::new(name, u32::from(raw.nr_arg1))?),
        NETMAP_VNET_HDR_GET => Request::HdrGet(name),
        NETMAP_BDG_NEWIF => Request::ValeNewif(ValeNewif {
            name,
            tx_slots: raw.nr_tx_slots,
            rx_slots: raw.nr_rx_slots,
            tx_rings: raw.nr_tx_rings,
            rx_rings: raw.nr_rx_rings,
            mem_id: raw.nr_arg2,
        }),
        NETMAP_BDG_DELIF => Request::ValeDelif(name),
        NETMAP_BDG_POLLING_ON => Request::PollingOn(polling(name, raw)),
        NETMAP_BDG_POLLING_OFF => Request::PollingOff(polling(name, raw)),
        NETMAP_PT_HOST_CREATE | NETMAP_PT_HOST_DELETE => Err(Condition::LegacyPassthrough.plain())?,
        other => Err(Condition::UnknownRequest.says(format!("legacy command {other} is not known")))?,
    })
}

/// Mode and ring are spread over `nr_flags` and `nr_ringid`; pipes had a mode and now have a name.
fn register(name: PortName, raw: &nmreq) -> Register {
    let ring = raw.nr_ringid & NETMAP_RING_MASK;
    let mode = match raw.nr_flags & NR_REG_MASK {
        NR_REG_DEFAULT if raw.nr_ringid & NETMAP_SW_RING != 0 => NR_REG_SW,
        NR_REG_DEFAULT if raw.nr_ringid & NETMAP_HW_RING != 0 => NR_REG_ONE_NIC,
        NR_REG_DEFAULT => NR_REG_ALL_NIC,
        mode => mode,
    };
    let (name, mode, ring) = match mode {
        NR_REG_PIPE_MASTER => (piped(name, '{', ring), NR_REG_ALL_NIC, 0),
        NR_REG_PIPE_SLAVE => (piped(name, '}', ring), NR_REG_ALL_NIC, 0),
        mode => (name, mode, ring),
    };
    let mut flags = u64::from(raw.nr_flags & !NR_REG_MASK);
    if raw.nr_ringid & NETMAP_NO_TX_POLL != 0 {
        flags |= NR_NO_TX_POLL;
    }
    if raw.nr_ringid & NETMAP_DO_RX_POLL != 0 {
        flags |= NR_DO_RX_POLL;
    }
    let body = nmreq_register {
        nr_offset: 0,
        nr_memsize: 0,
        nr_tx_slots: raw.nr_tx_slots,
        nr_rx_slots: raw.nr_rx_slots,
        nr_tx_rings: raw.nr_tx_rings,
        nr_rx_rings: raw.nr_rx_rings,
        nr_host_tx_rings: 0,
        nr_host_rx_rings: 0,
        nr_mem_id: raw.nr_arg2,
        nr_ringid: ring,
        nr_mode: mode,
        nr_extra_bufs: raw.nr_arg3,
        _pad: 0,
        nr_flags: flags,
    };
    Register::from_raw(name, &body, Options::default())
}

/// At most 15 bytes, a bracket and four digits: it fits.
fn piped(name: PortName, bracket: char, id: u16) -> PortName {
    let mut bytes = name.as_bytes().to_vec();
    bytes.extend_from_slice(format!("{bracket}{id}").as_bytes());
    PortName::from_field(&bytes)
}

fn port_info(name: PortName, raw: &nmreq) -> PortInfo {
    let body = nmreq_port_info_get {
        nr_memsize: 0,
        nr_tx_slots: raw.nr_tx_slots,
        nr_rx_slots: raw.nr_rx_slots,
        nr_tx_rings: raw.nr_tx_rings,
        nr_rx_rings: raw.nr_rx_rings,
        nr_host_tx_rings: 0,
        nr_host_rx_rings: 0,
        nr_mem_id: raw.nr_arg2,
        pad: [0; 3],
    };
    PortInfo::from_raw(name, &body)
}

/// The mode of polling hides in the mode of registration; any other is left for the port to refuse.
fn polling(name: PortName, raw: &nmreq) -> Polling {
    let mode = match raw.nr_flags & NR_REG_MASK {
        NR_REG_ONE_NIC => NETMAP_POLLING_MODE_MULTI_CPU,
        NR_REG_ALL_NIC => NETMAP_POLLING_MODE_SINGLE_CPU,
        _ => 0,
    };
    let first_cpu = u32::from(raw.nr_ringid & NETMAP_RING_MASK);
    Polling { name, mode, first_cpu, cpus: u32::from(raw.nr_arg1) }
}

/// Puts a reply where legacy programs look for it. Offsets and sizes beyond 32 bits are cut, as in the original.
///
/// Source: `nmreq_to_legacy`.
fn put(raw: &mut nmreq, reply: &Reply) {
    match reply {
        Reply::Register(reply) => {
            raw.nr_offset = reply.offset as u32;
            raw.nr_memsize = reply.memsize as u32;
            raw.nr_tx_slots = reply.tx_slots;
            raw.nr_rx_slots = reply.rx_slots;
            raw.nr_tx_rings = reply.tx_rings;
            raw.nr_rx_rings = reply.rx_rings;
            raw.nr_arg2 = reply.mem_id;
            raw.nr_arg3 = reply.extra_bufs;
        }
        Reply::PortInfo(reply) => {
            raw.nr_memsize = reply.memsize as u32;
            raw.nr_arg2 = reply.mem_id;
            if let Some(Geometry { tx_slots, rx_slots, tx_rings, rx_rings, .. }) = reply.geometry {
                raw.nr_tx_slots = tx_slots;
                raw.nr_rx_slots = rx_slots;
                raw.nr_tx_rings = tx_rings;
                raw.nr_rx_rings = rx_rings;
            }
        }
        Reply::ValeList(reply) => {
            if let Some(name) = reply.name {
                raw.nr_name.copy_from_slice(&name.to_field()[..IFNAMSIZ]);
                raw.nr_name[IFNAMSIZ - 1] = 0;
            }
            raw.nr_arg1 = reply.bridge;
            raw.nr_arg2 = reply.port as u16;
        }
        Reply::HdrLen(len) => raw.nr_arg1 = *len as u16,
        Reply::ValeNewif(reply) => {
            raw.nr_tx_slots = reply.tx_slots;
            raw.nr_rx_slots = reply.rx_slots;
            raw.nr_tx_rings = reply.tx_rings;
            raw.nr_rx_rings = reply.rx_rings;
            raw.nr_arg2 = reply.mem_id;
        }
        Reply::Done | Reply::ValeAttach(_) | Reply::ValeDetach(_) | Reply::PoolsInfo(_) | Reply::ValeConfig(_) => {}
    }
}
