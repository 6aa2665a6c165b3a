//! What can be asked of ports without opening them: VALE switches, persistent ports, sizes.
//!
//! Errors carry the errno that the same request of the C API gives.

use super::Error;
use crate::client;
use crate::ctl::{
    HdrSet, Mode, Polling, PortInfo, PortInfoReply, PortName, Register, Reply, Request, ValeAttach, ValeList, ValeNewif,
};

pub use crate::abi::{NETMAP_POLLING_MODE_MULTI_CPU, NETMAP_POLLING_MODE_SINGLE_CPU};

/// Rings and slots; 0 is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Shape {
    /// Slots in a transmit ring.
    pub tx_slots: u32,
    /// Slots in a receive ring.
    pub rx_slots: u32,
    /// Transmit rings.
    pub tx_rings: u16,
    /// Receive rings.
    pub rx_rings: u16,
    /// The region, 0 for one of its own.
    pub mem_id: u16,
}

/// A port, or the region that it lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Bytes of its region.
    pub memsize: u64,
    /// Rings, slots and memory id.
    pub shape: Shape,
}

/// A port of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Index of the switch.
    pub bridge: u16,
    /// Index of the port; 255 for a switch that has no such port.
    pub port: u32,
}

fn ask(request: &Request) -> Result<Reply, Error> {
    client::ask(request).map_err(Error::from)
}

fn strange() -> Error {
    Error { errno: libc::EIO, message: "the engine answered something else".to_string() }
}

/// Attaches a NIC or a persistent port, `valeS:NAME`, to switch `valeS`, with its host rings if `host`; returns its index.
/// `EINVAL`: nothing is called so; `EBUSY`: it is attached or open.
///
/// It stays attached as long as the engine lives: `netmapd`, or this process if the engine is in it.
pub fn attach(name: &str, host: bool, shape: Shape) -> Result<u32, Error> {
    let register = Register {
        mode: if host { Mode::NicSw } else { Mode::AllNic },
        mem_id: shape.mem_id,
        tx_slots: shape.tx_slots,
        rx_slots: shape.rx_slots,
        tx_rings: shape.tx_rings,
        rx_rings: shape.rx_rings,
        ..Register::new(PortName::new(name)?)
    };
    match ask(&Request::ValeAttach(ValeAttach { register }))? {
        Reply::ValeAttach(port) => Ok(port),
        _ => Err(strange()),
    }
}

/// Detaches a port; returns the index that it had. `ENXIO`: there is no such port.
pub fn detach(name: &str) -> Result<u32, Error> {
    match ask(&Request::ValeDetach(PortName::new(name)?))? {
        Reply::ValeDetach(port) => Ok(port),
        _ => Err(strange()),
    }
}

/// Every port of every switch.
pub fn list() -> Result<Vec<Listed>, Error> {
    let (mut all, mut bridge, mut port) = (Vec::new(), 0, 0);
    loop {
        match ask(&Request::ValeList(ValeList { name: PortName::new("")?, bridge, port })) {
            Ok(Reply::ValeList(found)) => {
                let name = found.name.map_or(String::new(), |n| n.to_string());
                all.push(Listed { name, bridge: found.bridge, port: found.port });
                (bridge, port) = (found.bridge, found.port + 1);
            }
            Ok(_) => return Err(strange()),
            Err(e) if e.errno == libc::ENOENT => return Ok(all),
            Err(e) => return Err(e),
        }
    }
}

/// Indexes of a port. `ENOENT`: there is no such switch.
pub fn find(name: &str) -> Result<Listed, Error> {
    match ask(&Request::ValeList(ValeList { name: PortName::new(name)?, bridge: 0, port: 0 }))? {
        Reply::ValeList(found) => Ok(Listed { name: name.to_string(), bridge: found.bridge, port: found.port }),
        _ => Err(strange()),
    }
}

/// Makes a persistent port, and tells what it got. `EEXIST`: the name is taken; `EINVAL`: it cannot be one.
pub fn create(name: &str, shape: Shape) -> Result<Shape, Error> {
    let newif = ValeNewif {
        name: PortName::new(name)?,
        tx_slots: shape.tx_slots,
        rx_slots: shape.rx_slots,
        tx_rings: shape.tx_rings,
        rx_rings: shape.rx_rings,
        mem_id: shape.mem_id,
    };
    match ask(&Request::ValeNewif(newif))? {
        Reply::ValeNewif(r) => Ok(Shape {
            tx_slots: r.tx_slots,
            rx_slots: r.rx_slots,
            tx_rings: r.tx_rings,
            rx_rings: r.rx_rings,
            mem_id: r.mem_id,
        }),
        _ => Err(strange()),
    }
}

/// Deletes a persistent port. `ENXIO`: there is none; `EBUSY`: it is attached or open.
pub fn remove(name: &str) -> Result<(), Error> {
    ask(&Request::ValeDelif(PortName::new(name)?)).map(drop)
}

/// Lets threads of the engine poll an attached NIC, or ends that.
pub fn polling(name: &str, on: bool, mode: u32, first_cpu: u32, cpus: u32) -> Result<(), Error> {
    let polling = Polling { name: PortName::new(name)?, mode, first_cpu, cpus };
    ask(&if on { Request::PollingOn(polling) } else { Request::PollingOff(polling) }).map(drop)
}

/// Describes a port.
pub fn info(name: &str) -> Result<Info, Error> {
    let info = PortInfo {
        name: PortName::new(name)?,
        mem_id: 0,
        tx_slots: 0,
        rx_slots: 0,
        tx_rings: 0,
        rx_rings: 0,
        host_tx_rings: 0,
        host_rx_rings: 0,
    };
    match ask(&Request::PortInfo(info))? {
        Reply::PortInfo(PortInfoReply { memsize, mem_id, geometry }) => {
            let g = geometry.unwrap_or_default();
            let (tx_slots, rx_slots, tx_rings, rx_rings) = (g.tx_slots, g.rx_slots, g.tx_rings, g.rx_rings);
            Ok(Info { memsize, shape: Shape { tx_slots, rx_slots, tx_rings, rx_rings, mem_id } })
        }
        _ => Err(strange()),
    }
}

/// Sets the length of the virtio-net header of a VALE port: 0, 10 or 12 bytes. `ENXIO`: there is no such port.
pub fn set_header(name: &str, bytes: u32) -> Result<(), Error> {
    let name = PortName::new(name)?;
    ask(&Request::HdrSet(HdrSet::new(name, bytes)?)).map(drop)
}

/// Length of the virtio-net header of a port.
pub fn header(name: &str) -> Result<u32, Error> {
    match ask(&Request::HdrGet(PortName::new(name)?))? {
        Reply::HdrLen(bytes) => Ok(bytes),
        _ => Err(strange()),
    }
}
