//! The engine: the part that a kernel module would play. It owns regions and ports, carries out typed requests, and hands
//! out grants; packets never pass through it.
//!
//! It is a library: hosted by the process itself now, by `netmapd` for all processes later. It knows neither file
//! descriptors of programs nor sockets of clients. One thread at a time, which the host sees to.

mod grant;
mod nic;
mod region;

pub use grant::{Grant, GrantId, RingGrant};

use crate::abi::NR_EXCLUSIVE;
use crate::ctl::{
    self, Condition, Failure, Geometry as PortGeometry, Pool, Pools, PoolsInfoReply, PortInfoReply, PortKind, Register,
    RegisterReply, Reply, Request, Selection,
};
use crate::ring::Kring;
use crate::shm::Layout;
use crate::sys::netdev::NetDev;
use crate::sys::{Level, log, namespace_id, settings};
use crate::xsk::{Geometry, Loader};
use nic::NicPort;
use region::Region;
use std::collections::HashMap;

/// The region of all NIC, host and pipe ports.
const MAIN_REGION: u16 = 1;
/// Buffers of region 1 unless more are asked for or the setting says otherwise: rings of 1024 slots for four queues.
const DEFAULT_BUFFERS: u32 = 16384;
/// Bounds of a ring's size.
const SLOTS: std::ops::RangeInclusive<u32> = 8..=16384;

/// A netdev in a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PortKey {
    namespace: (u64, u64),
    ifindex: u32,
}

/// What is to be undone when a grant goes.
struct Held {
    port: PortKey,
    selection: Selection,
    exclusive: bool,
    nifp: u64,
}

/// The registry.
pub struct Engine {
    loader: &'static dyn Loader,
    region: Option<Region>,
    nics: HashMap<PortKey, NicPort>,
    grants: HashMap<GrantId, Held>,
    next_grant: u64,
}

impl Engine {
    /// An engine without ports.
    pub fn new(loader: &'static dyn Loader) -> Engine {
        for line in &settings().complaints {
            log(Level::Warn, format_args!("{line}"));
        }
        Engine { loader, region: None, nics: HashMap::new(), grants: HashMap::new(), next_grant: 1 }
    }

    /// Carries out a request that binds nothing.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        match request {
            Request::PortInfo(info) if info.name.is_empty() => {
                self.check_mem_id(info.mem_id)?;
                Ok(Reply::PortInfo(PortInfoReply { memsize: self.memsize(), mem_id: MAIN_REGION, geometry: None }))
            }
            Request::PortInfo(info) => {
                let dev = self.interface(&info.as_register())?;
                let counts = NicPort::counts(&dev);
                let slots = self.slots_of(&dev, [info.tx_slots, info.rx_slots]);
                let geometry = PortGeometry {
                    tx_slots: slots[0],
                    rx_slots: slots[1],
                    tx_rings: counts.tx,
                    rx_rings: counts.rx,
                    host_tx_rings: counts.host_tx,
                    host_rx_rings: counts.host_rx,
                };
                let memsize = self.memsize();
                Ok(Reply::PortInfo(PortInfoReply { memsize, mem_id: MAIN_REGION, geometry: Some(geometry) }))
            }
            Request::PoolsInfo(info) => {
                self.interface(&Register { mem_id: info.mem_id, ..Register::new(info.name) })?;
                Ok(Reply::PoolsInfo(PoolsInfoReply(self.pools())))
            }
            Request::HdrGet(name) => {
                self.interface(&Register::new(*name))?;
                Ok(Reply::HdrLen(0))
            }
            Request::HdrSet(set) => Err(Failure::no_vnet_header(set.name)),
            Request::Register(_) => Err(Condition::System.says("a registration needs a descriptor")),
            _ => Err(Failure::not_supported_yet("this request", "a switch, a sync loop or a CSB")),
        }
    }

    /// The interface that a registration names, or why there is none: `netmap_get_na`.
    fn interface(&self, register: &Register) -> Result<NetDev, Failure> {
        self.check_mem_id(register.mem_id)?;
        let kind = match register.kind()? {
            PortKind::Nic => {
                let name = register.name.as_str().ok_or_else(|| Failure::no_such_interface(register.name))?;
                return NetDev::by_name(name).map_err(|e| match e.errno.0 {
                    libc::ENODEV | libc::ENXIO | libc::EINVAL | libc::ENAMETOOLONG => Failure::no_such_interface(name),
                    _ => Failure::system(&e),
                });
            }
            PortKind::Null => "a null port",
            PortKind::Monitor => "a monitor",
            PortKind::Pipe { .. } => "a pipe",
            PortKind::Vale => "a VALE port",
        };
        Err(Failure::not_supported_yet(register.name, kind))
    }

    fn check_mem_id(&self, id: u16) -> Result<(), Failure> {
        if id > MAIN_REGION { Err(Failure::unknown_mem_id(id)) } else { Ok(()) }
    }

    fn slots_of(&self, dev: &NetDev, asked: [u32; 2]) -> [u32; 2] {
        let key = PortKey { namespace: namespace_id(), ifindex: dev.ifindex };
        match self.nics.get(&key) {
            Some(port) => port.slots(),
            None => asked.map(|n| if n == 0 { settings().slots } else { n.clamp(*SLOTS.start(), *SLOTS.end()) }),
        }
    }

    fn memsize(&self) -> u64 {
        match &self.region {
            Some(region) => region.size(),
            None => Layout::plan(settings().buffers.unwrap_or(DEFAULT_BUFFERS), 1024).size,
        }
    }

    fn pools(&self) -> Pools {
        let planned = Layout::plan(settings().buffers.unwrap_or(DEFAULT_BUFFERS), 1024);
        let layout = self.region.as_ref().map_or(&planned, Region::layout);
        let rings = (layout.meta / 512) as u32;
        Pools {
            memsize: layout.size,
            mem_id: MAIN_REGION,
            interfaces: Pool { offset: 0, count: rings, size: 512 },
            rings: Pool { offset: 0, count: rings, size: 512 },
            buffers: Pool { offset: layout.buffer(0), count: layout.buffers, size: crate::shm::BUF_SIZE },
        }
    }

    /// The interface and the rings that a registration names, or why there are none.
    fn resolve(&self, register: &Register) -> Result<(NetDev, Selection), Failure> {
        let dev = self.interface(register)?;
        let counts = NicPort::counts(&dev);
        let selection = ctl::interp_ringid(register.mode, register.flags, register.ring_id, counts)?;
        if selection.tx.end > counts.tx || selection.rx.end > counts.rx {
            return Err(Failure::not_supported_yet(register.name, "a host ring"));
        }
        Ok((dev, selection))
    }

    /// Whether a registration would be refused for what it names; changes nothing.
    pub fn check(&self, register: &Register) -> Result<(), Failure> {
        self.resolve(register).map(drop)
    }

    /// Binds: `netmap_do_regif`. Nothing of it stays when it fails.
    pub fn register(&mut self, register: &Register) -> Result<Grant, Failure> {
        let (dev, selection) = self.resolve(register)?;
        let key = PortKey { namespace: namespace_id(), ifindex: dev.ifindex };
        let exclusive = register.flags & NR_EXCLUSIVE != 0;
        let mut port = match self.nics.remove(&key) {
            Some(port) => port,
            None => {
                let slots = self.slots_of(&dev, [register.tx_slots, register.rx_slots]);
                NicPort::open(dev, slots, self.loader)?
            }
        };
        if let Err(e) = port.take(&selection, exclusive) {
            self.put_back(key, port);
            return Err(e);
        }
        let held = Held { port: key, selection, exclusive, nifp: 0 };
        match self.bind(&mut port, &held.selection, register) {
            Ok((grant, nifp)) => {
                self.nics.insert(key, port);
                self.grants.insert(grant.id, Held { nifp, ..held });
                Ok(grant)
            }
            Err(e) => {
                self.free(&mut port, &held);
                self.put_back(key, port);
                Err(e)
            }
        }
    }

    /// The part of a registration that `free` undoes.
    fn bind(
        &mut self,
        port: &mut NicPort,
        selection: &Selection,
        register: &Register,
    ) -> Result<(Grant, u64), Failure> {
        if self.region.is_none() {
            self.region = Some(Region::new(MAIN_REGION, self.buffers_for(port, register))?);
        }
        let Some(region) = &mut self.region else { return Err(Condition::System.says("no region")) };
        let nics = &self.nics;
        port.start(selection, region, &|g: Geometry| nics.values().find_map(|p| p.sibling(g)))?;
        let counts = NicPort::counts(port.dev());
        let table = [counts.tx, counts.host_tx, counts.rx, counts.host_rx].map(u32::from);
        let nifp = region.new_if(&port.dev().name, table, &port.offsets(selection))?;
        let id = GrantId(self.next_grant);
        self.next_grant += 1;
        match grant(id, port, selection, region, nifp, register) {
            Ok(grant) => Ok((grant, nifp)),
            Err(e) => {
                region.free_if(nifp, &[]);
                Err(e)
            }
        }
    }

    /// How large region 1 is to be when `port` is the first to use it.
    fn buffers_for(&self, port: &NicPort, register: &Register) -> u32 {
        let counts = NicPort::counts(port.dev());
        let [tx, rx] = port.slots();
        let rings = u32::from(counts.tx).saturating_mul(tx).saturating_add(u32::from(counts.rx).saturating_mul(rx));
        // Room for a second port of the same size, as a bridge needs it.
        let need = rings.saturating_mul(2).saturating_add(register.extra_bufs.min(1 << 22)).saturating_add(2);
        settings().buffers.unwrap_or(need.max(DEFAULT_BUFFERS))
    }

    /// Undoes a registration. The client has unmapped the sockets.
    pub fn release(&mut self, id: GrantId) {
        let Some(held) = self.grants.remove(&id) else { return };
        let Some(mut port) = self.nics.remove(&held.port) else { return };
        self.free(&mut port, &held);
        self.put_back(held.port, port);
    }

    fn free(&mut self, port: &mut NicPort, held: &Held) {
        let Some(region) = &mut self.region else { return };
        let freed = port.release(&held.selection, held.exclusive, region);
        let live: Vec<Kring> = self.nics.values().chain([&*port]).flat_map(|p| p.krings(region)).collect();
        for ring in &freed {
            region.free_ring(ring, &live);
        }
        if held.nifp != 0 {
            region.free_if(held.nifp, &live);
        }
    }

    /// Keeps a port that is in use, drops one that is not, and the region with the last of them.
    fn put_back(&mut self, key: PortKey, port: NicPort) {
        if !port.idle() {
            self.nics.insert(key, port);
        } else if self.nics.is_empty()
            && let Some(region) = self.region.take()
        {
            let missing = region.usable() - region.available();
            if missing > 0 {
                log(Level::Debug, format_args!("{missing} buffers did not come back; the region is gone anyway"));
            }
        }
    }

    /// Gives interfaces that were down when they were bound another try; returns whether any still waits.
    pub fn tend(&mut self) -> bool {
        let Some(region) = &self.region else { return false };
        self.nics.values_mut().filter_map(|port| port.tend(region).then_some(())).count() > 0
    }

    /// Buffers of region 1: those that are free, and those that could be.
    pub fn buffers(&self) -> Option<(u32, u32)> {
        self.region.as_ref().map(|r| (r.available(), r.usable()))
    }
}

/// What the client gets for the rings that work by now.
fn grant(
    id: GrantId,
    port: &NicPort,
    selection: &Selection,
    region: &mut Region,
    nifp: u64,
    register: &Register,
) -> Result<Grant, Failure> {
    let [tx, rx] = port.grants(selection);
    let (private, private_size) = port.share_private()?;
    let share = region.share()?;
    let extra_bufs = if register.extra_bufs > 0 { region.lend_extra(nifp, register.extra_bufs) } else { 0 };
    if extra_bufs < register.extra_bufs {
        let enough = u64::from(region.layout().buffers) + u64::from(register.extra_bufs - extra_bufs);
        let name = &port.dev().name;
        let asked = register.extra_bufs;
        log(
            Level::Warn,
            format_args!(
                "{name}: {extra_bufs} of {asked} extra buffers; for all of them set NETMAP_XDP_BUFFERS={enough}"
            ),
        );
    }
    let counts = NicPort::counts(port.dev());
    let [tx_slots, rx_slots] = port.slots();
    let reply = RegisterReply {
        offset: nifp,
        memsize: region.size(),
        tx_slots,
        rx_slots,
        tx_rings: counts.tx,
        rx_rings: counts.rx,
        host_tx_rings: counts.host_tx,
        host_rx_rings: counts.host_rx,
        mem_id: region.id,
        extra_bufs,
    };
    let (ifname, mode) = (port.dev().name.clone(), port.mode());
    Ok(Grant { id, reply, region: share, private, private_size, tx, rx, ifname, mode })
}
