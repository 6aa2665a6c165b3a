//! Answers to requests: the fields that netmap writes back, typed.

use super::options::Pools;
use super::request::PortName;
use crate::abi::{nmreq_pools_info, nmreq_port_info_get, nmreq_register, nmreq_vale_newif};

/// The answer to a [`Request`](super::Request), variant by variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done, with nothing to tell: `HdrSet`, `ValeDelif`, `PollingOn`, `PollingOff`, `KloopStart`, `KloopStop`,
    /// `CsbEnable`.
    Done,
    /// To `Register`.
    Register(RegisterReply),
    /// To `PortInfo`.
    PortInfo(PortInfoReply),
    /// To `ValeAttach`: index of the port in the switch.
    ValeAttach(u32),
    /// To `ValeDetach`: index that the port had in the switch.
    ValeDetach(u32),
    /// To `ValeList`.
    ValeList(ValeListReply),
    /// To `HdrGet`: bytes of the virtio-net header.
    HdrLen(u32),
    /// To `ValeNewif`.
    ValeNewif(ValeNewifReply),
    /// To `PoolsInfo`.
    PoolsInfo(PoolsInfoReply),
    /// To `ValeConfig`: the module's data.
    ValeConfig(Box<[u8; 256]>),
}

/// To `Register`: what the fd is bound to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RegisterReply {
    /// Offset of the fd's `netmap_if` in the region, bytes.
    pub offset: u64,
    /// Size of the region, bytes.
    pub memsize: u64,
    /// Slots in a transmit ring.
    pub tx_slots: u32,
    /// Slots in a receive ring.
    pub rx_slots: u32,
    /// NIC transmit rings of the port, bound or not.
    pub tx_rings: u16,
    /// NIC receive rings of the port, bound or not.
    pub rx_rings: u16,
    /// Host transmit rings of the port.
    pub host_tx_rings: u16,
    /// Host receive rings of the port.
    pub host_rx_rings: u16,
    /// Id of the region.
    pub mem_id: u16,
    /// Extra buffers that were given, perhaps fewer than asked for.
    pub extra_bufs: u32,
}

impl RegisterReply {
    pub(super) fn put(&self, body: &mut nmreq_register) {
        body.nr_offset = self.offset;
        body.nr_memsize = self.memsize;
        body.nr_tx_slots = self.tx_slots;
        body.nr_rx_slots = self.rx_slots;
        body.nr_tx_rings = self.tx_rings;
        body.nr_rx_rings = self.rx_rings;
        body.nr_host_tx_rings = self.host_tx_rings;
        body.nr_host_rx_rings = self.host_rx_rings;
        body.nr_mem_id = self.mem_id;
        body.nr_extra_bufs = self.extra_bufs;
    }
}

/// Rings and slots of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Geometry {
    /// Slots in a transmit ring.
    pub tx_slots: u32,
    /// Slots in a receive ring.
    pub rx_slots: u32,
    /// NIC transmit rings.
    pub tx_rings: u16,
    /// NIC receive rings.
    pub rx_rings: u16,
    /// Host transmit rings.
    pub host_tx_rings: u16,
    /// Host receive rings.
    pub host_rx_rings: u16,
}

/// To `PortInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PortInfoReply {
    /// Size of the region, bytes; 0 while nothing has made it yet.
    pub memsize: u64,
    /// Id of the region.
    pub mem_id: u16,
    /// The port's rings; `None` for a request without a name, which asks for the region only.
    pub geometry: Option<Geometry>,
}

impl PortInfoReply {
    pub(super) fn put(&self, body: &mut nmreq_port_info_get) {
        body.nr_memsize = self.memsize;
        body.nr_mem_id = self.mem_id;
        if let Some(geometry) = self.geometry {
            body.nr_tx_slots = geometry.tx_slots;
            body.nr_rx_slots = geometry.rx_slots;
            body.nr_tx_rings = geometry.tx_rings;
            body.nr_rx_rings = geometry.rx_rings;
            body.nr_host_tx_rings = geometry.host_tx_rings;
            body.nr_host_rx_rings = geometry.host_rx_rings;
        }
    }
}

/// To `ValeList`: one port of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValeListReply {
    /// Name of the port, written into the header of the request; `None` leaves the name that was asked for.
    pub name: Option<PortName>,
    /// Index of the switch.
    pub bridge: u16,
    /// Index of the port.
    pub port: u32,
}

/// To `ValeNewif`: what the new port got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ValeNewifReply {
    /// Slots in a transmit ring.
    pub tx_slots: u32,
    /// Slots in a receive ring.
    pub rx_slots: u32,
    /// Transmit rings.
    pub tx_rings: u16,
    /// Receive rings.
    pub rx_rings: u16,
    /// Id of the region.
    pub mem_id: u16,
}

impl ValeNewifReply {
    pub(super) fn put(&self, body: &mut nmreq_vale_newif) {
        body.nr_tx_slots = self.tx_slots;
        body.nr_rx_slots = self.rx_slots;
        body.nr_tx_rings = self.tx_rings;
        body.nr_rx_rings = self.rx_rings;
        body.nr_mem_id = self.mem_id;
    }
}

/// To `PoolsInfo`: where the pools of a region lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PoolsInfoReply(pub Pools);

impl PoolsInfoReply {
    pub(super) fn put(&self, body: &mut nmreq_pools_info) {
        self.0.put(body);
    }
}
