//! The engine: the part that a kernel module would play. It owns regions and ports, carries out typed requests, and hands
//! out grants; packets never pass through it.
//!
//! ```text
//! ask        describe ports and regions
//! register   resolve (which port, which rings) -> take (users) -> start (rings, buffers, carrier) -> Grant
//! release    leave -> stop what nobody uses -> buffers and rings back to the region
//! ```
//! It is a library: hosted by the process itself now, by `netmapd` for all processes later. It knows neither file
//! descriptors of programs nor sockets of clients. One thread at a time, which the host sees to.

mod grant;
mod nic;
mod null;
mod pipe;
mod region;
mod registry;
mod rings;

pub use grant::{CarrierGrant, Grant, GrantId, RingGrant};

use crate::abi::NR_EXCLUSIVE;
use crate::ctl::{
    self, Condition, Failure, Geometry as PortGeometry, Pool, Pools, PoolsInfoReply, PortInfoReply, PortKind, PortName,
    Register, RegisterReply, Reply, Request, RingCounts, Selection,
};
use crate::shm::{BUF_SIZE, Layout};
use crate::sys::netdev::NetDev;
use crate::sys::{Level, log, namespace_id, settings};
use crate::xsk::Loader;
use nic::NicPort;
use null::NullPort;
use pipe::Pipe;
use region::Region;
use registry::{PipeKey, PortKey, Ports};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The region of all NIC, host, pipe and null ports.
const MAIN_REGION: u16 = 1;
/// Buffers of region 1 unless more are asked for or the setting says otherwise: rings of 1024 slots for four queues.
const DEFAULT_BUFFERS: u32 = 16384;
/// Bounds of a ring's size.
const SLOTS: std::ops::RangeInclusive<u32> = 8..=16384;
/// Bytes of the two kinds of object at the head of a region, as `NETMAP_REQ_POOLS_INFO_GET` tells them.
const OBJECT: u32 = 512;

/// What is to be undone when a grant goes.
struct Held {
    port: PortKey,
    selection: Selection,
    exclusive: bool,
    nifp: u64,
}

/// The port that a registration is for.
enum Target {
    Nic(NetDev),
    Pipe(PipeKey),
    Null,
}

/// The registry.
pub struct Engine {
    loader: &'static dyn Loader,
    region: Option<Region>,
    ports: Ports,
    grants: HashMap<GrantId, Held>,
    next_grant: u64,
}

impl Engine {
    /// An engine without ports.
    pub fn new(loader: &'static dyn Loader) -> Engine {
        for line in &settings().complaints {
            log(Level::Warn, format_args!("{line}"));
        }
        Engine { loader, region: None, ports: Ports::default(), grants: HashMap::new(), next_grant: 1 }
    }

    /// Carries out a request that binds nothing.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        match request {
            Request::PortInfo(info) if info.name.is_empty() => {
                self.check_mem_id(info.mem_id)?;
                Ok(Reply::PortInfo(PortInfoReply { memsize: self.memsize(), mem_id: MAIN_REGION, geometry: None }))
            }
            Request::PortInfo(info) => {
                let register = info.as_register();
                let target = self.target(&register)?;
                let (counts, slots) = self.shape(&target, &register);
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
                self.target(&Register { mem_id: info.mem_id, ..Register::new(info.name) })?;
                Ok(Reply::PoolsInfo(PoolsInfoReply(self.pools())))
            }
            Request::HdrGet(name) => {
                self.target(&Register::new(*name))?;
                Ok(Reply::HdrLen(0))
            }
            Request::HdrSet(set) => Err(Failure::no_vnet_header(set.name)),
            Request::Register(_) => Err(Condition::System.says("a registration needs a descriptor")),
            _ => Err(Failure::not_supported_yet("this request", "a switch, a sync loop or a CSB")),
        }
    }

    /// The port that a registration names, or why there is none: `netmap_get_na`.
    fn target(&self, register: &Register) -> Result<Target, Failure> {
        self.check_mem_id(register.mem_id)?;
        match register.kind()? {
            PortKind::Nic => interface(register.name).map(Target::Nic),
            PortKind::Null if register.mem_id == 0 => Err(Failure::null_without_region(register.name)),
            PortKind::Null => Ok(Target::Null),
            PortKind::Pipe { parent, id, .. } => {
                if parent.as_bytes().starts_with(b"vale") {
                    return Err(Failure::not_supported_yet(register.name, "a pipe on a VALE port"));
                }
                Ok(Target::Pipe(PipeKey { namespace: namespace_id(), parent, id }))
            }
            PortKind::Monitor => Err(Failure::not_supported_yet(register.name, "a monitor")),
            PortKind::Vale => Err(Failure::not_supported_yet(register.name, "a VALE port")),
        }
    }

    fn check_mem_id(&self, id: u16) -> Result<(), Failure> {
        if id > MAIN_REGION { Err(Failure::unknown_mem_id(id)) } else { Ok(()) }
    }

    /// Rings and slots of a port: as it is, if it exists, or as the registration would make it.
    fn shape(&self, target: &Target, register: &Register) -> (RingCounts, [u32; 2]) {
        let bound = |n: u32, most: u32| if n == 0 { settings().slots.min(most) } else { n.clamp(*SLOTS.start(), most) };
        let asked = [register.tx_slots, register.rx_slots];
        match target {
            Target::Nic(dev) => match self.ports.nics.get(&registry::nic_key(dev)) {
                Some(port) => (port.rings().counts(), port.rings().slots()),
                None => (NicPort::counts(dev), asked.map(|n| bound(n, *SLOTS.end()))),
            },
            Target::Pipe(key) => match (self.ports.pipes.get(key), register.kind()) {
                (Some(pipe), Ok(PortKind::Pipe { role, .. })) => (pipe.rings(role).counts(), pipe.rings(role).slots()),
                _ => {
                    let rings = |n: u16| n.clamp(1, pipe::MAX_RINGS);
                    let counts = RingCounts {
                        tx: rings(register.tx_rings),
                        rx: rings(register.rx_rings),
                        host_tx: 0,
                        host_rx: 0,
                    };
                    (counts, asked.map(|n| bound(n, pipe::MAX_SLOTS)))
                }
            },
            Target::Null => {
                let counts = RingCounts { tx: register.tx_rings, rx: register.rx_rings, host_tx: 0, host_rx: 0 };
                (counts, asked.map(|n| bound(n, *SLOTS.end())))
            }
        }
    }

    fn planned(&self) -> Layout {
        Layout::plan(settings().buffers.unwrap_or(DEFAULT_BUFFERS), region::OBJECTS)
    }

    fn memsize(&self) -> u64 {
        self.region.as_ref().map_or_else(|| self.planned().size, Region::size)
    }

    fn pools(&self) -> Pools {
        let planned = self.planned();
        let layout = self.region.as_ref().map_or(&planned, Region::layout);
        let objects = Pool { offset: 0, count: (layout.meta / u64::from(OBJECT)) as u32, size: OBJECT };
        let buffers = Pool { offset: layout.buffer(0), count: layout.buffers, size: BUF_SIZE };
        Pools { memsize: layout.size, mem_id: MAIN_REGION, interfaces: objects, rings: objects, buffers }
    }

    /// The port and the rings that a registration names, or why there are none.
    fn resolve(&self, register: &Register) -> Result<(Target, Selection, [u32; 2]), Failure> {
        let target = self.target(register)?;
        let (counts, slots) = self.shape(&target, register);
        let selection = ctl::interp_ringid(register.mode, register.flags, register.ring_id, counts)?;
        if selection.tx.end > counts.tx || selection.rx.end > counts.rx {
            return Err(Failure::not_supported_yet(register.name, "a host ring"));
        }
        Ok((target, selection, slots))
    }

    /// Whether a registration would be refused for what it names; changes nothing.
    pub fn check(&self, register: &Register) -> Result<(), Failure> {
        self.resolve(register).map(drop)
    }

    /// Binds: `netmap_do_regif`. Nothing of it stays when it fails.
    pub fn register(&mut self, register: &Register) -> Result<Grant, Failure> {
        let (target, selection, slots) = self.resolve(register)?;
        let port = self.find_or_make(target, register, slots)?;
        let exclusive = register.flags & NR_EXCLUSIVE != 0;
        if let Err(e) = self.ports.take(&port, &selection, exclusive) {
            self.drop_idle();
            return Err(e);
        }
        let held = Held { port, selection, exclusive, nifp: 0 };
        match self.bind(&held, register) {
            Ok((grant, nifp)) => {
                self.grants.insert(grant.id, Held { nifp, ..held });
                Ok(grant)
            }
            Err(e) => {
                self.undo(&held);
                Err(e)
            }
        }
    }

    fn find_or_make(&mut self, target: Target, register: &Register, slots: [u32; 2]) -> Result<PortKey, Failure> {
        let (counts, _) = self.shape(&target, register);
        match target {
            Target::Nic(dev) => {
                let key = registry::nic_key(&dev);
                if !self.ports.nics.contains_key(&key) {
                    self.ports.nics.insert(key, NicPort::open(dev, slots, self.loader)?);
                }
                Ok(PortKey::Nic(key))
            }
            Target::Pipe(key) => {
                let PortKind::Pipe { parent, id, role } = register.kind()? else {
                    return Err(Condition::BadPipeName.plain());
                };
                if !self.ports.pipes.contains_key(&key) {
                    let pipe = Pipe::new(&parent.to_string(), &id.to_string(), counts, slots)?;
                    self.ports.pipes.insert(key, pipe);
                }
                Ok(PortKey::Pipe(key, role))
            }
            Target::Null => {
                let id = self.next_grant;
                self.ports.nulls.insert(id, NullPort::new(&register.name.to_string(), counts, slots)?);
                Ok(PortKey::Null(id))
            }
        }
    }

    /// The part of a registration that `undo` undoes.
    fn bind(&mut self, held: &Held, register: &Register) -> Result<(Grant, u64), Failure> {
        if self.region.is_none() {
            self.region = Some(Region::new(MAIN_REGION, self.buffers_for(&held.port, register))?);
        }
        let Some(region) = &mut self.region else { return Err(Condition::System.says("no region")) };
        self.ports.start(&held.port, &held.selection, region)?;
        let port = self.ports.view(&held.port).ok_or_else(|| Condition::System.says("no port"))?;
        let counts = port.rings.counts();
        let table = [counts.tx, counts.host_tx, counts.rx, counts.host_rx].map(u32::from);
        let nifp = region.new_if(&port.name, table, &port.rings.offsets(&held.selection))?;
        let id = GrantId(self.next_grant);
        self.next_grant += 1;
        let mut grant = || -> Result<Grant, Failure> {
            let [tx, rx] = self.ports.grants(&held.port, &held.selection);
            let (private, private_size) = port.rings.private().share()?;
            let shared = region.share()?;
            let extra_bufs = lend_extra(region, nifp, &port.name, register.extra_bufs);
            let [tx_slots, rx_slots] = port.rings.slots();
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
            let (name, mode) = (port.name.clone(), port.mode);
            let (region, private, link) = (Arc::new(shared), Arc::new(private), self.ports.share_link(&held.port)?);
            Ok(Grant { id, reply, region, private, private_size, tx, rx, name, mode, link })
        };
        match grant() {
            Ok(grant) => Ok((grant, nifp)),
            Err(e) => {
                region.free_if(nifp, &HashSet::new());
                Err(e)
            }
        }
    }

    /// How large region 1 is to be when `port` is the first to use it.
    fn buffers_for(&self, port: &PortKey, register: &Register) -> u32 {
        let rings = self.ports.view(port).map_or(0, |p| {
            let (counts, [tx, rx]) = (p.rings.counts(), p.rings.slots());
            u32::from(counts.tx).saturating_mul(tx).saturating_add(u32::from(counts.rx).saturating_mul(rx))
        });
        // Room for a second port of the same size, as a bridge needs it.
        let need = rings.saturating_mul(2).saturating_add(register.extra_bufs.min(1 << 22)).saturating_add(2);
        settings().buffers.unwrap_or(need.max(DEFAULT_BUFFERS))
    }

    /// Undoes a registration. The client has unmapped what it was granted.
    pub fn release(&mut self, id: GrantId) {
        if let Some(held) = self.grants.remove(&id) {
            self.undo(&held);
        }
    }

    fn undo(&mut self, held: &Held) {
        self.ports.leave(&held.port, &held.selection, held.exclusive);
        if let Some(region) = &mut self.region {
            let (rings, buffers) = self.ports.stop(&held.port, region);
            let kept = self.ports.buffers(region);
            region.give_back(buffers, &kept);
            rings.iter().for_each(|ring| region.free_ring(ring));
            if held.nifp != 0 {
                region.free_if(held.nifp, &kept);
            }
        }
        self.drop_idle();
    }

    /// Drops ports that nobody uses, and the region with the last of them.
    fn drop_idle(&mut self) {
        self.ports.drop_idle();
        if self.ports.is_empty()
            && let Some(region) = self.region.take()
        {
            let missing = region.usable() - region.available();
            if missing > 0 {
                log(Level::Debug, format_args!("{missing} buffers did not come back; the region is gone anyway"));
            }
        }
    }

    /// Gives interfaces of the calling thread's network namespace that were down when they were bound another try; returns
    /// whether any still waits.
    pub fn tend(&mut self) -> bool {
        let Some(region) = &self.region else { return false };
        let here = namespace_id();
        let ports = self.ports.nics.iter_mut().filter(|(key, _)| key.is_in(here));
        ports.fold(false, |waits, (_, port)| port.tend(region) || waits)
    }

    /// A client died: rings that it held locked are freed, and marked for the next one to repair.
    pub fn abandon(&mut self, client: u32) {
        let Some(region) = &self.region else { return };
        for ring in self.ports.krings(region) {
            if ring.break_lock(client) {
                log(Level::Debug, format_args!("client {client} died in a sync; the next sync repairs its ring"));
            }
        }
    }

    /// Buffers of region 1: those that are free, those that ports hold, and those that there are. While no port is open
    /// there is no region.
    pub fn buffers(&self) -> Option<(u32, u32, u32)> {
        let region = self.region.as_ref()?;
        Some((region.available(), self.ports.buffers(region).len() as u32, region.usable()))
    }
}

/// The interface called `name` in the caller's network namespace.
fn interface(name: PortName) -> Result<NetDev, Failure> {
    let name = name.as_str().ok_or_else(|| Failure::no_such_interface(name))?;
    NetDev::by_name(name).map_err(|e| match e.errno.0 {
        libc::ENODEV | libc::ENXIO | libc::EINVAL | libc::ENAMETOOLONG => Failure::no_such_interface(name),
        _ => Failure::system(&e),
    })
}

/// Lends extra buffers, and says so if there are fewer than asked for.
fn lend_extra(region: &mut Region, nifp: u64, name: &str, asked: u32) -> u32 {
    if asked == 0 {
        return 0;
    }
    let got = region.lend_extra(nifp, asked);
    if got < asked {
        let enough = u64::from(region.layout().buffers) + u64::from(asked - got);
        log(
            Level::Warn,
            format_args!("{name}: {got} of {asked} extra buffers; for all of them set NETMAP_XDP_BUFFERS={enough}"),
        );
    }
    got
}
