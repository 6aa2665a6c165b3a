//! The engine: the part that a kernel module would play. It owns regions and ports, carries out typed requests, and hands
//! out grants; packets never pass through it, but for those of ports that are attached to switches, which threads of its own
//! carry (`service`).
//!
//! ```text
//! ask        describe ports and regions
//! register   resolve (which port, which rings) -> take (users) -> start (rings, buffers, carrier) -> Grant
//! release    leave -> stop what nobody uses -> buffers and rings back to the region
//! ```
//! It is a library: hosted by the process itself now, by `netmapd` for all processes later. It knows neither file
//! descriptors of programs nor sockets of clients. One thread at a time, which the host sees to.

mod attach;
mod extmem;
mod ghosts;
mod grant;
mod homes;
mod host;
mod mates;
mod monitor;
mod nic;
mod null;
mod offsets;
mod pipe;
mod region;
mod registry;
mod rings;
mod service;
mod status;
mod steering;
mod vale;
mod vale_name;
mod vale_requests;

pub use extmem::{Answers, ProgramMemory, extmem_size, not_shared};
pub use grant::{
    CarrierGrant, Grant, GrantId, InletGrant, RegionGrant, RingGrant, SeatGrant, TapGrant, TapsGrant, ValePeer,
};
pub use service::Nudge;
pub use status::{Holder, Kind, Part, PortStatus, RegionStatus, RingStatus, Seen, Status};
pub use steering::SteeringByName;

use crate::abi::NR_EXCLUSIVE;
use crate::ctl::{
    self, Condition, Failure, Geometry as PortGeometry, PipeRole, Pool, Pools, PoolsInfoReply, PortInfoReply, PortKind,
    PortName, Register, RegisterReply, Reply, Request, RingCounts, Selection,
};
use crate::ring::Dir;
use crate::shm::Layout;
use crate::sys::netdev::NetDev;
use crate::sys::{Level, log, namespace_id, realtime, settings};
use crate::xsk::Loader;
use attach::Attachment;
use monitor::{MonitorPlan, MonitorPort};
use nic::{NicPort, Terms};
use null::NullPort;
use pipe::Pipe;
use region::Region;
use registry::{PipeKey, PortKey, Ports};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use vale::ValeId;

/// The region of all NIC and host ports, and of the pipes of NICs.
const MAIN_REGION: u16 = 1;
/// Buffers of region 1 unless more are asked for or the setting says otherwise: rings of 1024 slots for four queues.
const DEFAULT_BUFFERS: u32 = 16384;
/// Extra buffers for which a region is made larger, 256 MB of them, unless the setting makes room for more. Who asks for
/// all there could be would make whoever hosts the engine touch gigabytes.
const MOST_EXTRA: u32 = 1 << 17;
/// Bounds of a ring's size.
const SLOTS: std::ops::RangeInclusive<u32> = 8..=16384;
/// Bytes of the two kinds of object at the head of a region, as `NETMAP_REQ_POOLS_INFO_GET` tells them.
const OBJECT: u32 = 512;

/// Where the buffers of a region are: each is free, or held by a port, or lent as an extra buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferCounts {
    /// Free ones.
    pub free: u32,
    /// Those that the rings of ports name.
    pub held: u32,
    /// All that could be free.
    pub usable: u32,
}

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
    /// A monitor of this port.
    Monitor(PortKey),
    Null,
    Vale(ValeId),
    /// A port of a switch that is to be made.
    NewVale,
}

/// The registry.
pub struct Engine {
    loader: &'static dyn Loader,
    steering: SteeringByName,
    chains: Vec<(String, u32)>,
    regions: HashMap<u16, Region>,
    ports: Ports,
    grants: HashMap<GrantId, Held>,
    next_grant: u64,
    attachments: Vec<Attachment>,
    nudge: Option<Nudge>,
    /// The id that was given last without being asked for.
    last_mem_id: u16,
}

impl Engine {
    /// An engine without ports. Its threads call `nudge` when [`Engine::tend_attached`] has something to do, for a host that
    /// does not call it from time to time anyway; it must not wait for the engine.
    pub fn new(loader: &'static dyn Loader, nudge: Option<Nudge>) -> Engine {
        for line in &settings().complaints {
            log(Level::Warn, format_args!("{line}"));
        }
        let mut ports = Ports::default();
        let now = realtime();
        ports.vales.count_from(now.as_nanos() as u64);
        Engine {
            loader,
            steering: Vec::new(),
            chains: Vec::new(),
            regions: HashMap::new(),
            ports,
            grants: HashMap::new(),
            next_grant: 1,
            attachments: Vec::new(),
            nudge,
            last_mem_id: homes::first_id(now),
        }
    }

    /// Carries out a request that binds nothing.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        match request {
            Request::PortInfo(info) if info.name.is_empty() => {
                self.check_mem_id(info.mem_id)?;
                let mem_id = info.mem_id.max(MAIN_REGION);
                Ok(Reply::PortInfo(PortInfoReply { memsize: self.layout(mem_id).size, mem_id, geometry: None }))
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
                let (mem_id, layout) = self.home_layout(&target, &register);
                Ok(Reply::PortInfo(PortInfoReply { memsize: layout.size, mem_id, geometry: Some(geometry) }))
            }
            Request::PoolsInfo(info) => {
                let register = Register { mem_id: info.mem_id, ..Register::new(info.name) };
                let target = self.target(&register)?;
                let (mem_id, layout) = self.home_layout(&target, &register);
                Ok(Reply::PoolsInfo(PoolsInfoReply(pools(mem_id, &layout))))
            }
            Request::HdrGet(name) => self.header(*name).map(Reply::HdrLen),
            Request::HdrSet(set) => self.ports.vales.set_header(set.name, set.len).map(|()| Reply::Done),
            Request::ValeAttach(attach) => self.attach(&attach.register).map(Reply::ValeAttach),
            Request::ValeDetach(name) => self.detach(*name).map(Reply::ValeDetach),
            Request::ValeList(list) => self.list(list).map(Reply::ValeList),
            Request::ValeNewif(newif) => self.newif(newif).map(Reply::ValeNewif),
            Request::ValeDelif(name) => self.delif(*name).map(|()| Reply::Done),
            Request::PollingOn(polling) => self.polling(polling, true).map(|()| Reply::Done),
            Request::PollingOff(polling) => self.polling(polling, false).map(|()| Reply::Done),
            Request::Register(_) => Err(Condition::System.says("a registration needs a descriptor")),
            Request::ValeConfig(config) => Err(Condition::NoSwitchModule
                .says(format!("{}: switches learn addresses, and have no module to configure", config.name))),
            Request::KloopStart(_) | Request::KloopStop | Request::CsbEnable(_) => {
                Err(Condition::System.says("the sync loop runs in the program"))
            }
        }
    }

    /// The port that a registration names, or why there is none: `netmap_get_na`.
    fn target(&self, register: &Register) -> Result<Target, Failure> {
        self.check_mem_id(register.mem_id)?;
        match register.kind()? {
            PortKind::Nic => match self.ports.vales.find(register.name) {
                Some(id) => self.vale_target(id, register),
                None => interface(register.name).map(Target::Nic),
            },
            PortKind::Null if register.mem_id == 0 => Err(Failure::null_without_region(register.name)),
            PortKind::Null => Ok(Target::Null),
            PortKind::Pipe { parent, id, .. } => {
                if parent.as_bytes().starts_with(b"vale") && self.ports.vales.find(parent).is_none() {
                    self.new_vale(parent)?;
                }
                Ok(Target::Pipe(PipeKey { namespace: namespace_id(), parent, id }))
            }
            PortKind::Monitor => self.monitored(register).map(Target::Monitor),
            PortKind::Vale => match self.ports.vales.find(register.name) {
                Some(id) => self.vale_target(id, register),
                None => self.new_vale(register.name),
            },
        }
    }

    /// The port that a monitor is for: open, and with the rings that are asked for. `netmap_get_monitor_na`.
    fn monitored(&self, register: &Register) -> Result<PortKey, Failure> {
        let parent = register.monitored();
        let target = self.target(&parent)?;
        let key = match (&target, parent.kind()?) {
            (Target::Nic(dev), _) => PortKey::Nic(registry::nic_key(dev)),
            (Target::Pipe(key), PortKind::Pipe { role, .. }) => PortKey::Pipe(*key, role),
            (Target::Vale(id), _) => PortKey::Vale(*id),
            _ => return Err(Failure::not_open(register.name)),
        };
        if self.ports.unused(&key) {
            return Err(Failure::not_open(register.name));
        }
        let (counts, _) = self.shape(&target, &parent);
        ctl::interp_ringid(parent.mode, parent.flags, parent.ring_id, counts)?;
        Ok(key)
    }

    /// Rings and slots of a port: as it is, if it exists, or as the registration would make it.
    fn shape(&self, target: &Target, register: &Register) -> (RingCounts, [u32; 2]) {
        let bound = |n: u32, most: u32| if n == 0 { settings().slots.min(most) } else { n.clamp(*SLOTS.start(), most) };
        let asked = [register.tx_slots, register.rx_slots];
        match target {
            Target::Nic(dev) => match self.ports.nics.get(&registry::nic_key(dev)) {
                Some(port) => (port.rings().counts(), port.rings().slots()),
                None => (NicPort::counts(dev, register), asked.map(|n| bound(n, *SLOTS.end()))),
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
            Target::Monitor(parent) => {
                let parent = self.ports.view(parent).map(|p| (p.rings.counts(), p.rings.slots()));
                let (counts, slots) = parent.unwrap_or_default();
                monitor::shape(counts, slots, asked)
            }
            Target::Null => {
                let counts = RingCounts { tx: register.tx_rings, rx: register.rx_rings, host_tx: 0, host_rx: 0 };
                (counts, asked.map(|n| bound(n, *SLOTS.end())))
            }
            Target::Vale(id) => match self.ports.vales.get(*id) {
                Some(port) => (port.rings().counts(), port.rings().slots()),
                None => vale::shape(register),
            },
            Target::NewVale => vale::shape(register),
        }
    }

    /// The port, if it exists.
    fn existing(&self, target: &Target) -> Option<PortKey> {
        let key = match target {
            Target::Nic(dev) => PortKey::Nic(registry::nic_key(dev)),
            Target::Pipe(key) => PortKey::Pipe(*key, PipeRole::Master),
            Target::Vale(id) => PortKey::Vale(*id),
            Target::Null | Target::Monitor(_) | Target::NewVale => return None,
        };
        self.ports.view(&key).map(|_| key)
    }

    /// The port and the rings that a registration names, or why there are none.
    fn resolve(&self, register: &Register) -> Result<(Target, Selection, [u32; 2]), Failure> {
        let target = self.target(register)?;
        self.check_attached(&target, register.name)?;
        self.check_home(&target, register)?;
        let (counts, slots) = self.shape(&target, register);
        let selection = ctl::interp_ringid(register.mode, register.flags, register.ring_id, counts)?;
        Ok((target, selection, slots))
    }

    /// Whether a registration would be refused for what it names; changes nothing.
    pub fn check(&self, register: &Register) -> Result<(), Failure> {
        self.resolve(register).map(drop)
    }

    /// Binds: `netmap_do_regif`. Nothing of it stays when it fails.
    pub fn register(&mut self, register: &Register) -> Result<Grant, Failure> {
        self.ports.queue_busy = false;
        let (target, selection, slots) = self.resolve(register)?;
        let (home, new) = (self.home(&target, register), self.existing(&target).is_none());
        self.settle_on(home);
        let port = match self.find_or_make(target, register, slots, home) {
            Ok(port) => port,
            Err(e) => {
                self.drop_idle();
                return Err(e);
            }
        };
        if new && home != MAIN_REGION && !matches!(port, PortKey::Vale(_)) {
            let key = if let PortKey::Pipe(k, _) = port { PortKey::Pipe(k, PipeRole::Master) } else { port };
            self.ports.abroad.insert(key, home);
        }
        self.admit(port, selection, register)
    }

    /// Binds rings of a port that is there.
    fn admit(&mut self, port: PortKey, selection: Selection, register: &Register) -> Result<Grant, Failure> {
        let exclusive = register.flags & NR_EXCLUSIVE != 0;
        if let Err(e) = self.ports.take(&port, &selection, exclusive) {
            self.drop_idle();
            return Err(e);
        }
        let held = Held { port, selection, exclusive, nifp: 0 };
        match self.bind(&held, register) {
            Ok((grant, nifp)) => {
                self.grants.insert(grant.id, Held { nifp, ..held });
                self.ports.relink(&self.regions);
                Ok(grant)
            }
            Err(e) => {
                self.undo(&held);
                Err(e)
            }
        }
    }

    /// Whether the last registration failed since a queue is another socket's, which it is for some milliseconds after the
    /// last close: it may succeed if it is tried again.
    pub fn queue_busy(&self) -> bool {
        self.ports.queue_busy
    }

    fn find_or_make(
        &mut self,
        target: Target,
        register: &Register,
        slots: [u32; 2],
        home: u16,
    ) -> Result<PortKey, Failure> {
        let (counts, _) = self.shape(&target, register);
        match target {
            Target::Nic(dev) => {
                let key = registry::nic_key(&dev);
                let asked = register.options.steering.as_ref();
                if self.ports.nics.contains_key(&key) {
                    self.check_steering(&PortKey::Nic(key), asked)?;
                } else {
                    let terms =
                        Terms { steering: self.steering_for(&dev.name, asked)?, chain: self.chain_for(&dev.name) };
                    self.ports.nics.insert(key, NicPort::open(dev, counts, slots, self.loader, terms)?);
                }
                Ok(PortKey::Nic(key))
            }
            Target::Pipe(key) => {
                let PortKind::Pipe { parent, id, role } = register.kind()? else {
                    return Err(Condition::BadPipeName.plain());
                };
                let new = !self.ports.pipes.contains_key(&key);
                if new {
                    let made = self.next_grant;
                    let pipe = Pipe::new(&parent.to_string(), &id.to_string(), counts, slots, made)?;
                    self.ports.pipes.insert(key, pipe);
                    self.hang_on_vale(key, home)?;
                }
                Ok(PortKey::Pipe(key, role))
            }
            Target::Monitor(parent) => {
                let name = self.ports.view(&parent).map_or_else(String::new, |p| p.name);
                let selection = &ctl::interp_ringid(register.mode, register.flags, register.ring_id, counts)?;
                let (flags, extra_bufs) = (register.flags, register.extra_bufs);
                let home = self.ports.mem_id(&parent);
                let buf_size = self.regions.get(&home).map_or(settings().buf_size, |r| r.layout().buf_size);
                let mem_id = self.mem_id_for(0);
                if !monitor::shares_region(flags) {
                    self.settle_on(mem_id);
                }
                let plan =
                    MonitorPlan { name: &name, parent, flags, counts, slots, selection, extra_bufs, buf_size, mem_id };
                let id = self.next_grant;
                self.ports.monitors.insert(id, MonitorPort::new(id, &plan)?);
                Ok(PortKey::Monitor(id))
            }
            Target::Null => {
                let id = self.next_grant;
                self.ports.nulls.insert(id, NullPort::new(&register.name.to_string(), counts, slots)?);
                if register.mem_id > MAIN_REGION {
                    self.ports.abroad.insert(PortKey::Null(id), register.mem_id);
                }
                Ok(PortKey::Null(id))
            }
            Target::Vale(id) => Ok(PortKey::Vale(id)),
            Target::NewVale => self.ports.vales.open(register, home).map(PortKey::Vale),
        }
    }

    /// The part of a registration that `undo` undoes.
    fn bind(&mut self, held: &Held, register: &Register) -> Result<(Grant, u64), Failure> {
        if let Some(mut own) = self.ports.own_region(&held.port).and_then(Option::take) {
            let bound = self.bind_in(&mut own, held, register);
            if let Some(place) = self.ports.own_region(&held.port) {
                *place = Some(own);
            }
            return bound;
        }
        let mem_id = self.ports.mem_id(&held.port);
        let mut region = match self.regions.remove(&mem_id) {
            Some(region) => region,
            None => {
                let (buffers, buf_size) = match self.vale_of(mem_id) {
                    Some(port) if mem_id != MAIN_REGION => (port.planned(), settings().priv_buf_size()),
                    _ if mem_id != MAIN_REGION => (self.buffers_of_parent(held, register), settings().priv_buf_size()),
                    _ => (self.buffers_for(&held.port, register), settings().buf_size),
                };
                Region::new(mem_id, buffers, buf_size)?
            }
        };
        let bound = self.bind_in(&mut region, held, register);
        self.regions.insert(mem_id, region);
        bound
    }

    /// The same in a region that was taken out of its place.
    fn bind_in(&mut self, region: &mut Region, held: &Held, register: &Register) -> Result<(Grant, u64), Failure> {
        self.ports.spare(self.need(held, register), region);
        let offset = register.options.offsets.as_ref().map_or(0, |o| o.max);
        self.ports.start(&held.port, &held.selection, offset, region)?;
        let port = self.ports.view(&held.port).ok_or_else(|| Condition::System.says("no port"))?;
        let counts = port.rings.counts();
        let table = [counts.tx, counts.host_tx, counts.rx, counts.host_rx].map(u32::from);
        let nifp = region.new_if(&port.name, table, &port.rings.offsets(&held.selection))?;
        let id = GrantId(self.next_grant);
        self.next_grant += 1;
        let mut grant = || -> Result<Grant, Failure> {
            let [tx, rx] = self.ports.grants(&held.port, &held.selection);
            let (private, private_size) = port.rings.private().share()?;
            let shared = region.grant()?;
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
            let (region, private, links) = (shared, Arc::new(private), self.ports.share_links(&held.port)?);
            let awaited = matches!(held.port, PortKey::Nic(key) if self.ports.nics[&key].awaits(&held.selection));
            Ok(Grant { id, reply, region, private, private_size, tx, rx, name, mode, links, awaited })
        };
        match grant() {
            Ok(grant) => {
                // Last of all, from what is left.
                self.ports.give_spares(&held.port, &held.selection, region);
                Ok((grant, nifp))
            }
            Err(e) => {
                region.free_if(nifp, &HashSet::new());
                Err(e)
            }
        }
    }

    /// Buffers that a registration needs at most: slots of its rings, and extra ones.
    fn need(&self, held: &Held, register: &Register) -> u32 {
        let [tx, rx] = self.ports.view(&held.port).map_or([0; 2], |p| p.rings.slots());
        let Selection { tx: of_tx, rx: of_rx } = &held.selection;
        let rings = (of_tx.len() as u32).saturating_mul(tx).saturating_add((of_rx.len() as u32).saturating_mul(rx));
        rings.saturating_add(register.extra_bufs.min(MOST_EXTRA))
    }

    /// How large region 1 is to be when `port` is the first to use it.
    fn buffers_for(&self, port: &PortKey, register: &Register) -> u32 {
        let rings = self.ports.view(port).map_or(0, |p| {
            let (counts, [tx, rx]) = (p.rings.counts(), p.rings.slots());
            let rings = |nic: u16, host: u16| u32::from(nic) + u32::from(host);
            let tx = rings(counts.tx, counts.host_tx).saturating_mul(tx);
            tx.saturating_add(rings(counts.rx, counts.host_rx).saturating_mul(rx))
        });
        let spares = self.ports.most_spares(port);
        // Room for a second port of the same size, as a bridge needs it.
        let need = rings
            .saturating_add(spares)
            .saturating_mul(2)
            .saturating_add(register.extra_bufs.min(MOST_EXTRA))
            .saturating_add(2);
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
        self.ports.relink(&self.regions);
        // What lies in a region of its own goes with it.
        let own = self.ports.own_region(&held.port).is_some();
        let mem_id = self.ports.mem_id(&held.port);
        if let Some(region) = self.regions.get_mut(&mem_id).filter(|_| !own) {
            let (rings, buffers) = self.ports.stop(&held.port, region);
            let kept = self.ports.buffers(region);
            region.give_back(buffers, &kept);
            rings.iter().for_each(|ring| region.free_ring(ring));
            if held.nifp != 0 {
                region.free_if(held.nifp, &kept);
            }
        }
        self.drop_idle();
        self.settle();
    }

    /// Gives back what could not be given back when its port went, as far as that is possible by now.
    fn settle(&mut self) {
        for mem_id in self.ports.vales.haunts() {
            let Some(region) = self.regions.get_mut(&mem_id) else { continue };
            let (rings, buffers) = self.ports.vales.settle(region);
            let kept = self.ports.buffers(region);
            region.give_back(buffers, &kept);
            rings.iter().for_each(|ring| region.free_ring(ring));
        }
        self.lay_ghosts();
        self.reclaim();
    }

    /// The client has mapped what it was granted ([`Grant::awaited`]): NIC queues begin to work. A failure is one of the
    /// registration, which the client is to release.
    pub fn mapped(&mut self, id: GrantId) -> Result<(), Failure> {
        let Some(Held { port: PortKey::Nic(key), selection, .. }) = self.grants.get(&id) else { return Ok(()) };
        let home = self.ports.mem_id(&PortKey::Nic(*key));
        let port = self.ports.nics.get_mut(key).zip(self.regions.get(&home));
        port.map_or(Ok(()), |(nic, region)| nic.mapped(selection, region))
    }

    /// The monitors of a ring of a grant, for a client that found that they changed.
    pub fn taps(&self, id: GrantId, dir: Dir, ring: u16) -> Option<TapsGrant> {
        self.ports.taps(&self.grants.get(&id)?.port, dir, ring, &self.regions)
    }

    /// Drops ports that nobody uses, and regions with the last of theirs.
    pub fn drop_idle(&mut self) {
        self.ports.drop_idle();
        let ports = &self.ports;
        self.regions.retain(|&id, region| {
            let live = ports.live_in(id);
            let missing = region.usable() - region.available();
            if !live && missing > 0 {
                log(Level::Debug, format_args!("{missing} buffers did not come back; region {id} is gone anyway"));
            }
            live
        });
        for mem_id in self.ports.vales.haunts() {
            if !self.regions.contains_key(&mem_id) {
                self.ports.vales.forget_region(mem_id);
            }
        }
    }

    /// Looks after all interfaces, of whatever network namespace; returns whether any that was down when it was bound still
    /// waits.
    pub fn tend(&mut self) -> bool {
        self.settle();
        let homes: Vec<_> = self.ports.nics.keys().map(|&k| (k, self.ports.mem_id(&PortKey::Nic(k)))).collect();
        let mut waits = false;
        for (key, home) in homes {
            if let (Some(port), Some(region)) = (self.ports.nics.get_mut(&key), self.regions.get(&home)) {
                waits |= port.tend(region);
            }
        }
        waits
    }

    /// A client died: rings that it held locked are freed, and marked for the next one to repair.
    pub fn abandon(&mut self, client: u32) {
        self.ports.abandon(client, &self.regions);
        self.settle();
    }

    /// Buffers of all regions that ports share; there is none while nobody has a port open.
    pub fn all_buffers(&self) -> Option<BufferCounts> {
        self.regions.keys().filter_map(|&id| self.buffers(id)).reduce(|a, b| BufferCounts {
            free: a.free + b.free,
            held: a.held + b.held,
            usable: a.usable + b.usable,
        })
    }

    /// Buffers of a region; there is none while nobody has a port of it open.
    pub fn buffers(&self, mem_id: u16) -> Option<BufferCounts> {
        let region = self.regions.get(&mem_id)?;
        let held = self.ports.buffers(region).len() as u32;
        Some(BufferCounts { free: region.available(), held, usable: region.usable() })
    }
}

/// A region as `NETMAP_REQ_POOLS_INFO_GET` tells it.
fn pools(mem_id: u16, layout: &Layout) -> Pools {
    let objects = Pool { offset: 0, count: (layout.meta / u64::from(OBJECT)) as u32, size: OBJECT };
    let buffers = Pool { offset: layout.buffer(0), count: layout.buffers, size: layout.buf_size };
    Pools { memsize: layout.size, mem_id, interfaces: objects, rings: objects, buffers }
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
