//! VALE switches and their ports: who sits where. The forwarding is `port/vale`; here ports come and go.
//!
//! ```text
//! ephemeral    made by the first registration of valeS:P, gone with the last
//! persistent   made by NEWIF under a plain name; attached to a switch it is valeS:NAME too; stays until DELIF
//! attached     the switch's side of a NIC, host rings or a port of another switch, which `attach` serves; ephemeral
//! ```
//! A switch exists while it has ports. A port's private state lives exactly as long as somebody uses the port, and is then
//! dropped with its memfd, so that a sender with an old mapping never writes into what a later user has.

use super::grant::{CarrierGrant, InletGrant, RegionGrant, RingGrant, SeatGrant, TapsGrant, ValePeer};
use super::mates::Mates;
use super::region::Region;
use super::rings::{Private, RingTable};
use super::vale_name::{LONGEST, split};
use crate::ctl::{Condition, Failure, PortName, Register, RingCounts, Selection};
use crate::port::vale::switch::{MAX_PORTS, MAX_RINGS, MAX_SLOTS, SIZE, Switch};
use crate::port::vale::{Destination, Inlet, Seat, lease};
use crate::port::{Audience, Wake};
use crate::ring::{Dir, Kring};
use crate::shm::{Memory, Patience};
use crate::sync::Ordering::*;
use crate::sys::{Error, Fd, Level, eventfd, log, monotonic, namespace_id, sealed_memfd};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Switches at a time; the original has 8 unless told otherwise.
const MAX_SWITCHES: usize = 256;
/// Slots of a ring when nobody asks: `NM_BRIDGE_RINGSIZE`.
const SLOTS: u32 = 1024;
/// Pipes that a private region has room for, on each port: two, as in the original.
const PIPES: u32 = 2;
/// Who the engine is in a ring's lock.
const ENGINE: u32 = (1 << 31) - 1;
/// After so long a sender that does not let go of a port that is gone is told of.
const DRAIN: Duration = Duration::from_secs(1);

/// Names a VALE port while it exists.
pub type ValeId = u64;

/// A network namespace, in which names have their meaning.
type Namespace = (u64, u64);

/// A switch.
struct SwitchBox {
    namespace: Namespace,
    /// With its prefix: `vale0`.
    name: Vec<u8>,
    id: u64,
    memory: Arc<Fd>,
    switch: Switch,
    ports: Vec<Option<ValeId>>,
}

/// Where a port sits.
#[derive(Clone, Copy)]
struct Place {
    switch: usize,
    port: u8,
    tenant: u32,
}

/// A port.
pub struct ValePort {
    namespace: Namespace,
    /// `valeS:P`, or the plain name of a persistent port that was never attached.
    name: PortName,
    /// The plain name, if it is persistent.
    persistent: Option<PortName>,
    place: Option<Place>,
    counts: RingCounts,
    slots: [u32; 2],
    header: u32,
    mem_id: u16,
    /// How large its private region is to be.
    buffers: u32,
    rings: RingTable,
    wakes: Vec<Arc<Fd>>,
    shared: Option<Shared>,
    made: usize,
}

/// The region of a port that somebody uses.
#[derive(Clone)]
struct Shared {
    grant: RegionGrant,
    memory: Arc<Memory>,
}

/// Rings of a port that is gone, which a sender still fills: it is busy, stopped or dead.
struct Haunted {
    name: PortName,
    mem_id: u16,
    rings: RingTable,
    told: bool,
    since: Duration,
}

/// All switches and VALE ports.
#[derive(Default)]
pub struct Switchboard {
    switches: Vec<Option<SwitchBox>>,
    ports: HashMap<ValeId, ValePort>,
    haunted: Vec<Haunted>,
    next: u64,
    /// What senders in the engine's own process know.
    mates: Arc<Mates>,
}

/// What the switch's side of an attached port is to be.
pub struct Attached {
    /// Its rings: those of what is attached, with directions exchanged.
    pub counts: RingCounts,
    /// Slots of transmit and receive rings.
    pub slots: [u32; 2],
    /// The region of what is attached.
    pub mem_id: u16,
    /// Bytes of the virtio-net header.
    pub header: u32,
}

/// Rings and slots of a new port: the original's bounds.
pub fn shape(register: &Register) -> (RingCounts, [u32; 2]) {
    let rings = |n: u16| n.clamp(1, MAX_RINGS);
    let slots = |n: u32| if n == 0 { SLOTS } else { n.min(MAX_SLOTS) };
    let counts = RingCounts { tx: rings(register.tx_rings), rx: rings(register.rx_rings), host_tx: 0, host_rx: 0 };
    (counts, [slots(register.tx_slots), slots(register.rx_slots)])
}

/// Buffers of the private region of such a port: its rings, room for pipes, extra buffers (`netmap_mem_private_new`).
pub fn buffers(counts: RingCounts, slots: [u32; 2], extra: u32) -> u32 {
    let rings = |n: u16, slots: u32| (u32::from(n) + 1 + 4 * PIPES) * slots;
    rings(counts.tx, slots[0]) + rings(counts.rx, slots[1]) + 2 + extra.min(super::MOST_EXTRA)
}

fn private(counts: RingCounts, slots: [u32; 2]) -> Result<RingTable, Failure> {
    Ok(RingTable::new(counts, slots, Private::new(RingTable::size(counts, slots))?, 0))
}

impl ValePort {
    /// The network namespace in which its name counts.
    pub fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// Its name.
    pub fn name(&self) -> PortName {
        self.name
    }

    /// The region that it lives in.
    pub fn mem_id(&self) -> u16 {
        self.mem_id
    }

    /// How large its region is to be, if it is the port's own.
    pub fn planned(&self) -> u32 {
        self.buffers
    }

    /// Bytes of the virtio-net header.
    pub fn header(&self) -> u32 {
        self.header
    }

    /// The rings.
    pub fn rings(&self) -> &RingTable {
        &self.rings
    }

    /// The rings, to count users.
    pub fn rings_mut(&mut self) -> &mut RingTable {
        &mut self.rings
    }

    /// Whether it goes when nobody uses it.
    pub fn is_ephemeral(&self) -> bool {
        self.persistent.is_none()
    }

    /// Every buffer that the port holds: all stay in their slots.
    pub fn buffers(&self, region: &Region) -> Vec<u32> {
        let in_slots = |k: &Kring| -> Vec<u32> {
            (0..k.num_slots()).map(|i| k.slot(i).buf_idx.load(Relaxed)).filter(|&i| k.is_buffer(i)).collect()
        };
        self.rings.krings(region).iter().flat_map(in_slots).collect()
    }

    /// The receive rings that were made, to be filled.
    fn destination(&self) -> Option<Destination> {
        let Shared { memory, .. } = self.shared.as_ref()?;
        let inlet = |i: u16| {
            let (ring, state) = self.rings.place(Dir::Rx, i)?;
            let kring = Kring::attach(memory, ring, self.rings.private().memory(), state).ok()?;
            Some(Inlet::new(kring, self.wakes.get(usize::from(i))?.clone(), Audience::unseen()))
        };
        Some(Destination { rings: (0..self.counts.rx).map(inlet).collect() })
    }

    /// A bit for each receive ring that somebody uses.
    fn bound(&self) -> u16 {
        (0..self.counts.rx).filter(|&i| self.rings.users(Dir::Rx, i) > 0).fold(0, |all, i| all | 1 << i)
    }
}

impl Switchboard {
    /// Ids are taken from here on: a program that outlived another engine must not take this one's switches for its own.
    pub fn count_from(&mut self, first: u64) {
        self.next = first;
    }

    /// The port of this name in the caller's namespace, by either of its names.
    pub fn find(&self, name: PortName) -> Option<ValeId> {
        let namespace = namespace_id();
        let mine = |p: &ValePort| p.namespace == namespace;
        let called = |p: &ValePort| (p.name == name && p.place.is_some()) || p.persistent == Some(name);
        self.ports.iter().find(|(_, p)| mine(p) && called(p)).map(|(&id, _)| id)
    }

    /// The port of this name that sits in a switch. `ENXIO`: there is none; `EINVAL`: no name of a switch's port.
    pub fn seated(&self, name: PortName) -> Result<ValeId, Failure> {
        if !name.as_bytes().starts_with(b"vale") {
            return Err(Failure::not_a_vale_port(name));
        }
        self.find(name).ok_or_else(|| Failure::no_such_vale_port(name))
    }

    /// A port.
    pub fn get(&self, id: ValeId) -> Option<&ValePort> {
        self.ports.get(&id)
    }

    /// A port, to change.
    pub fn get_mut(&mut self, id: ValeId) -> Option<&mut ValePort> {
        self.ports.get_mut(&id)
    }

    /// All ports.
    pub fn iter(&self) -> impl Iterator<Item = (ValeId, &ValePort)> {
        self.ports.iter().map(|(&id, p)| (id, p))
    }

    /// Makes a port `valeS:P`, and its switch if that is new.
    pub fn open(&mut self, register: &Register, mem_id: u16) -> Result<ValeId, Failure> {
        let id = self.make(register, None, mem_id)?;
        match self.sit(id, register.name) {
            Ok(_) => Ok(id),
            Err(e) => {
                self.ports.remove(&id);
                Err(e)
            }
        }
    }

    /// Makes a persistent port, not attached to a switch.
    pub fn create(&mut self, register: &Register, mem_id: u16) -> Result<ValeId, Failure> {
        let name = register.name;
        let bytes = name.as_bytes();
        if bytes.starts_with(b"vale") || bytes.is_empty() || bytes.len() > LONGEST {
            return Err(Condition::BadName.says(format!(
                "{name}: a persistent port has a name of its own, of 15 characters at most, that does not begin with vale"
            )));
        }
        if self.find(name).is_some() {
            return Err(Failure::port_exists(name));
        }
        let id = self.make(register, Some(name), mem_id)?;
        if let Some(port) = self.ports.get_mut(&id) {
            // Room for its side of a second switch.
            let rings = |n: u16, slots: u32| u32::from(n) * slots;
            port.buffers += rings(port.counts.tx, port.slots[0]) + rings(port.counts.rx, port.slots[1]);
        }
        Ok(id)
    }

    fn make(&mut self, register: &Register, persistent: Option<PortName>, mem_id: u16) -> Result<ValeId, Failure> {
        self.add(register.name, persistent, shape(register), mem_id, register.extra_bufs)
    }

    fn add(
        &mut self,
        name: PortName,
        persistent: Option<PortName>,
        (counts, slots): (RingCounts, [u32; 2]),
        mem_id: u16,
        extra: u32,
    ) -> Result<ValeId, Failure> {
        let failed = |e| Failure::system(&Error::new("eventfd", name.to_string(), e));
        let wakes = (0..counts.rx).map(|_| eventfd().map(Arc::new)).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let port = ValePort {
            namespace: namespace_id(),
            name,
            persistent,
            place: None,
            counts,
            slots,
            header: 0,
            mem_id,
            buffers: buffers(counts, slots, extra),
            rings: private(counts, slots)?,
            wakes,
            shared: None,
            made: 0,
        };
        self.next += 1;
        self.ports.insert(self.next, port);
        Ok(self.next)
    }

    /// Makes the switch's side of what is to be attached under the name `valeS:P`. `ENOMEM`: there must be room for two ports,
    /// whether or not the second is needed.
    pub fn open_attached(&mut self, name: PortName, shape: Attached) -> Result<ValeId, Failure> {
        let Attached { counts, slots, mem_id, header } = shape;
        let id = self.add(name, None, (counts, slots), mem_id, 0)?;
        if let Some(port) = self.ports.get_mut(&id) {
            port.header = header;
        }
        match self.sit(id, name) {
            Ok(_) => Ok(id),
            Err(e) => {
                self.ports.remove(&id);
                Err(e)
            }
        }
    }

    /// Whether the switch of `valeS:P` has room for two ports more: the original asks for as much, needed or not.
    pub fn check_room(&self, name: PortName) -> Result<(), Failure> {
        let parts = split(name).ok_or_else(|| Failure::bad_switch_name(name))?;
        let namespace = namespace_id();
        let same = |s: &&SwitchBox| s.namespace == namespace && s.name == parts.switch;
        let taken = self.switches.iter().flatten().find(same).map_or(0, |s| s.ports.iter().flatten().count());
        if taken + 2 > MAX_PORTS { Err(Failure::switch_full(name, MAX_PORTS)) } else { Ok(()) }
    }

    /// Index of a port in its switch, if it sits in one.
    pub fn index(&self, id: ValeId) -> Option<u8> {
        Some(self.ports.get(&id)?.place?.port)
    }

    /// A sender's place at a port, for a thread of the engine's process.
    pub fn seat(&self, id: ValeId) -> Option<Seat> {
        let (bridge, place) = self.bridge(self.ports.get(&id)?)?;
        Some(Seat { switch: bridge.switch.clone(), id: bridge.id, port: place.port, tenant: place.tenant })
    }

    /// The directory for such a thread.
    pub fn mates(&self) -> Arc<Mates> {
        self.mates.clone()
    }

    /// Seats a port under the name `valeS:P`; returns its index.
    fn sit(&mut self, id: ValeId, name: PortName) -> Result<u8, Failure> {
        let parts = split(name).ok_or_else(|| Failure::bad_switch_name(name))?;
        let at = self.switch(&parts.switch)?;
        let tenant = (self.next % u64::from(u32::MAX)) as u32 + 1;
        self.next += 1;
        let port = self.ports.get_mut(&id).ok_or_else(|| Failure::no_such_vale_port(name))?;
        let Some(Some(bridge)) = self.switches.get_mut(at) else { return Err(Failure::bad_switch_name(name)) };
        let free = bridge.ports.iter().position(Option::is_none);
        let seat = free.ok_or_else(|| Failure::switch_full(name, MAX_PORTS))? as u8;
        bridge.ports[usize::from(seat)] = Some(id);
        bridge.switch.enter(seat, tenant, port.header);
        port.name = name;
        port.place = Some(Place { switch: at, port: seat, tenant });
        self.announce(id, true);
        Ok(seat)
    }

    /// The index of a switch, made if it is new.
    fn switch(&mut self, name: &[u8]) -> Result<usize, Failure> {
        let namespace = namespace_id();
        let same = |s: &SwitchBox| s.namespace == namespace && s.name == name;
        if let Some(at) = self.switches.iter().position(|s| s.as_ref().is_some_and(same)) {
            return Ok(at);
        }
        let at = self.switches.iter().position(Option::is_none).unwrap_or(self.switches.len());
        if at >= MAX_SWITCHES {
            return Err(Failure::too_many_switches(MAX_SWITCHES));
        }
        let shown = String::from_utf8_lossy(name).into_owned();
        let failed = |call, e| Failure::system(&Error::new(call, format!("switch {shown}"), e));
        let fd = sealed_memfd(c"netmap-switch", SIZE).map_err(|e| failed("memfd_create", e))?;
        let memory = Memory::map(&fd, SIZE, 0, false).map_err(|e| failed("mmap", e))?;
        let switch = Switch::attach(&memory).map_err(|e| Condition::System.says(e.to_string()))?;
        self.next += 1;
        let made = SwitchBox {
            namespace,
            name: name.to_vec(),
            id: self.next,
            memory: Arc::new(fd),
            switch,
            ports: vec![None; MAX_PORTS],
        };
        if at == self.switches.len() {
            self.switches.push(None);
        }
        self.switches[at] = Some(made);
        Ok(at)
    }

    /// Takes a port out of its switch, and the switch away with its last port.
    fn stand_up(&mut self, id: ValeId) {
        let Some(place) = self.ports.get_mut(&id).and_then(|p| p.place.take()) else { return };
        let Some(slot) = self.switches.get_mut(place.switch) else { return };
        if let Some(bridge) = slot {
            self.mates.publish(bridge.id, place.port, || {
                bridge.switch.leave(place.port);
                None
            });
            bridge.ports[usize::from(place.port)] = None;
            if bridge.ports.iter().all(Option::is_none) {
                *slot = None;
            }
        }
    }

    /// Tells senders which receive rings a port has; `changed`: they are to ask what they need to fill them.
    pub fn announce(&self, id: ValeId, changed: bool) {
        let Some(port) = self.ports.get(&id) else { return };
        let Some((bridge, place)) = self.bridge(port) else { return };
        let tell = || bridge.switch.rings(place.port, port.counts.rx, port.bound(), changed);
        if !changed {
            return tell();
        }
        self.mates.publish(bridge.id, place.port, || {
            tell();
            Some((bridge.switch.port(place.port).generation.load(Acquire), port.destination()?))
        });
    }

    fn bridge(&self, port: &ValePort) -> Option<(&SwitchBox, Place)> {
        let place = port.place?;
        Some((self.switches.get(place.switch)?.as_ref()?, place))
    }

    /// `NETMAP_REQ_VALE_ATTACH` of a persistent port, by the name that it is to have in the switch.
    pub fn attach(&mut self, id: ValeId, name: PortName) -> Result<u8, Failure> {
        let port = self.ports.get(&id).ok_or_else(|| Failure::no_such_vale_port(name))?;
        if port.place.is_some() || !port.rings.idle() {
            return Err(Failure::port_busy(name));
        }
        self.sit(id, name)
    }

    /// `NETMAP_REQ_VALE_DETACH`: nothing happens to an ephemeral port. Returns the index that the port had.
    pub fn detach(&mut self, name: PortName) -> Result<u8, Failure> {
        let id = self.seated(name)?;
        let port = self.ports.get(&id).ok_or_else(|| Failure::no_such_vale_port(name))?;
        let index = port.place.map_or(0, |p| p.port);
        if !port.is_ephemeral() {
            self.stand_up(id);
        }
        Ok(index)
    }

    /// `NETMAP_REQ_VALE_DELIF`.
    pub fn delete(&mut self, name: PortName) -> Result<(), Failure> {
        let found = self.ports.iter().find(|(_, p)| p.persistent == Some(name) && p.namespace == namespace_id());
        let (&id, port) = found.ok_or_else(|| Failure::no_such_vale_port(name))?;
        if port.place.is_some() || !port.rings.idle() {
            return Err(Failure::port_busy(name));
        }
        self.ports.remove(&id);
        Ok(())
    }

    /// `NETMAP_REQ_VALE_LIST` with a name: indexes of the switch, and of the port if there is such a one.
    pub fn indexes(&self, name: PortName) -> Result<(u16, u32), Failure> {
        if !name.as_bytes().starts_with(b"vale") {
            return Err(Failure::not_a_vale_port(name));
        }
        let none = || Condition::NoSuchSwitch.says(format!("{name}: there is no such switch"));
        let parts = split(name).ok_or_else(none)?;
        let namespace = namespace_id();
        let same = |s: &SwitchBox| s.namespace == namespace && s.name == parts.switch;
        let at = self.switches.iter().position(|s| s.as_ref().is_some_and(same)).ok_or_else(none)?;
        let port = self.find(name).and_then(|id| self.ports.get(&id)?.place);
        Ok((at as u16, port.map_or(MAX_PORTS as u32 + 1, |p| p.port.into())))
    }

    /// The same without a name: the first port from these indexes on. `ENOENT`: there are no more.
    pub fn next_from(&self, bridge: u16, port: u32) -> Result<(PortName, u16, u32), Failure> {
        let namespace = namespace_id();
        for (at, slot) in self.switches.iter().enumerate().skip(bridge.into()) {
            let Some(s) = slot.as_ref().filter(|s| s.namespace == namespace) else { continue };
            let first = if at == usize::from(bridge) { port as usize } else { 0 };
            for (i, id) in s.ports.iter().enumerate().skip(first) {
                if let Some(p) = id.and_then(|id| self.ports.get(&id)) {
                    return Ok((p.name, at as u16, i as u32));
                }
            }
        }
        // Every list ends so: nothing that anybody need be told.
        Err(Condition::NoSuchSwitch.says(""))
    }

    /// `NETMAP_REQ_PORT_HDR_SET`.
    pub fn set_header(&mut self, name: PortName, len: u32) -> Result<(), Failure> {
        let id = self.seated(name).map_err(|_| Failure::no_vnet_header(name))?;
        let Some(port) = self.ports.get_mut(&id) else { return Ok(()) };
        port.header = len;
        let port = &*port;
        if let Some(place) = port.place
            && let Some(Some(bridge)) = self.switches.get(place.switch)
        {
            bridge.switch.port(place.port).header.store(len, Relaxed);
        }
        Ok(())
    }

    /// Makes the selected rings of a port.
    pub fn start(&mut self, id: ValeId, selection: &Selection, region: &mut Region) -> Result<(), Failure> {
        let port = self.ports.get_mut(&id).ok_or_else(|| Condition::System.says("the port is gone"))?;
        for (dir, range) in RingTable::ranges(selection) {
            for i in range {
                port.rings.make(dir, i, region, true)?;
            }
        }
        if port.shared.is_none() {
            port.shared = Some(Shared { grant: region.grant()?, memory: region.memory().clone() });
        }
        let made = port.rings.krings(region).len();
        let changed = std::mem::replace(&mut port.made, made) != made;
        self.announce(id, changed);
        Ok(())
    }

    /// What a client needs of the selected rings.
    pub fn grants(&self, id: ValeId, selection: &Selection) -> [Vec<RingGrant>; 2] {
        let Some(port) = self.ports.get(&id) else { return Default::default() };
        let seat = self.bridge(port).map(|(bridge, place)| SeatGrant {
            memory: bridge.memory.clone(),
            switch: bridge.id,
            port: place.port,
            tenant: place.tenant,
        });
        RingTable::ranges(selection).map(|(dir, range)| {
            let grant = |i: u16| {
                let (ring, kring) = port.rings.place(dir, i)?;
                let carrier = match dir {
                    Dir::Tx => CarrierGrant::ValeTx { seat: seat.clone() },
                    Dir::Rx => CarrierGrant::ValeRx { wake: port.wakes.get(usize::from(i))?.clone() },
                };
                Some(RingGrant { ring, kring, carrier, bell: None })
            };
            range.filter_map(grant).collect()
        })
    }

    /// A client died: what it reserved in receive rings becomes empty packets, and who waits for them is woken.
    pub fn abandon(&self, client: u32, regions: &HashMap<u16, Region>) {
        let patience = Patience::once();
        for port in self.ports.values() {
            let Some(region) = regions.get(&port.mem_id) else { continue };
            for ring in port.rings.krings(region).iter().filter(|k| k.dir() == Dir::Rx) {
                // What the dead was about to show to the ring's monitors, the receiver shows.
                let hidden = ring.state().shown.load(Relaxed) != ring.state().peer_tail.load(Relaxed);
                if (lease::bury(ring, client, ENGINE, &patience) || hidden)
                    && let Some(wake) = port.wakes.get(usize::from(ring.id()))
                {
                    Wake::new(wake.clone(), wake.clone()).rouse(ring);
                }
            }
        }
        for gone in &self.haunted {
            let rings = regions.get(&gone.mem_id).map_or_else(Vec::new, |region| gone.rings.krings(region));
            for ring in rings.iter().filter(|k| k.dir() == Dir::Rx) {
                // The port is gone: nobody waits for what comes of it.
                let _ = lease::bury(ring, client, ENGINE, &patience);
            }
        }
    }

    /// Rings of ports that are gone, and that nobody fills any more: they and their buffers are the region's to free.
    pub fn settle(&mut self, region: &Region) -> (Vec<Kring>, Vec<u32>) {
        let (mut rings, mut buffers) = (Vec::new(), Vec::new());
        self.haunted.retain_mut(|gone| {
            if gone.mem_id != region.id {
                return true;
            }
            let all = gone.rings.krings(region);
            if quiet(&all) {
                buffers.extend(all.iter().flat_map(Kring::slot_buffers));
                rings.extend(all);
                return false;
            }
            if !gone.told && monotonic() > gone.since + DRAIN {
                gone.told = true;
                let name = gone.name;
                log(Level::Warn, format_args!("{name}: a sender does not let go; the port's buffers wait for that"));
            }
            true
        });
        (rings, buffers)
    }

    /// Buffers of such rings that somebody may still write to.
    pub fn haunted(&self, region: &Region) -> Vec<u32> {
        let here = self.haunted.iter().filter(|gone| gone.mem_id == region.id);
        here.flat_map(|gone| gone.rings.krings(region)).flat_map(|k| k.slot_buffers()).collect()
    }

    /// Regions with such rings.
    pub fn haunts(&self) -> Vec<u16> {
        self.haunted.iter().map(|gone| gone.mem_id).collect()
    }

    /// Whether there are such rings.
    pub fn unsettled(&self) -> bool {
        !self.haunted.is_empty()
    }

    /// A region is gone, and such rings with it.
    pub fn forget_region(&mut self, mem_id: u16) {
        self.haunted.retain(|gone| gone.mem_id != mem_id);
    }

    /// What a sender needs to fill the receive rings of a port, if its generation is still that. `taps` tells the monitors of
    /// a receive ring.
    pub fn peer(
        &self,
        switch: u64,
        port: u8,
        generation: u32,
        taps: impl Fn(ValeId, u16) -> Option<TapsGrant>,
    ) -> Option<ValePeer> {
        let bridge = self.switches.iter().flatten().find(|s| s.id == switch)?;
        if bridge.switch.port(port).generation.load(Acquire) != generation {
            return None;
        }
        let &id = bridge.ports.get(usize::from(port))?.as_ref()?;
        let port = self.ports.get(&id)?;
        let region = port.shared.as_ref()?.grant.clone();
        let (private, private_size) = port.rings.private().share().ok()?;
        let ring = |i: u16| {
            let (ring, kring) = port.rings.place(Dir::Rx, i)?;
            Some(InletGrant { ring, kring, wake: port.wakes.get(usize::from(i))?.clone(), taps: taps(id, i)? })
        };
        let rings = (0..port.counts.rx).map(ring).collect();
        Some(ValePeer { region, private: Arc::new(private), private_size, rings })
    }

    /// A user of a port has left: with the last one its rings go, which are the region's to free, with their buffers.
    pub fn stop(&mut self, id: ValeId, region: &Region) -> (Vec<Kring>, Vec<u32>) {
        self.announce(id, false);
        let Some(port) = self.ports.get_mut(&id).filter(|p| p.rings.idle()) else { return Default::default() };
        let fresh = private(port.counts, port.slots);
        let Some(port) = self.ports.get(&id) else { return Default::default() };
        if let Some((bridge, place)) = self.bridge(port) {
            self.mates.publish(bridge.id, place.port, || {
                bridge.switch.rings(place.port, port.counts.rx, 0, true);
                None
            });
        }
        let Some(port) = self.ports.get_mut(&id) else { return Default::default() };
        let all = port.rings.krings(region);
        for ring in all.iter().filter(|k| k.dir() == Dir::Rx) {
            // Whether its lock could be had shows below.
            let _ = lease::halt(ring, ENGINE);
        }
        port.made = 0;
        port.shared = None;
        let (name, mem_id) = (port.name, port.mem_id);
        let Ok(fresh) = fresh else {
            // No memory for state of its own: what is not quiet now is lost until the region goes.
            let quiet = quiet(&all);
            let buffers = if quiet { all.iter().flat_map(Kring::slot_buffers).collect() } else { Vec::new() };
            all.iter().for_each(|k| drop(port.rings.retire(k.dir(), k.id(), region)));
            return if quiet { (all, buffers) } else { Default::default() };
        };
        let rings = std::mem::replace(&mut port.rings, fresh);
        if quiet(&all) {
            let buffers = all.iter().flat_map(Kring::slot_buffers).collect();
            return (all, buffers);
        }
        // Somebody is still at it, or died over it: see `settle`.
        self.haunted.push(Haunted { name, mem_id, rings, told: false, since: monotonic() });
        Default::default()
    }

    /// Drops ephemeral ports that nobody uses and `pinned` does not name.
    pub fn drop_idle(&mut self, pinned: impl Fn(ValeId) -> bool) {
        let idle = |(&id, p): (&ValeId, &ValePort)| (p.is_ephemeral() && p.rings.idle() && !pinned(id)).then_some(id);
        let gone: Vec<_> = self.ports.iter().filter_map(idle).collect();
        for id in gone {
            self.stand_up(id);
            self.ports.remove(&id);
        }
    }
}

/// Whether nobody fills these rings; senders have been told that they are halted.
fn quiet(rings: &[Kring]) -> bool {
    rings.iter().filter(|k| k.dir() == Dir::Rx).all(|k| lease::quiet(k, ENGINE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_and_slots_keep_the_bounds_of_the_original() {
        let asked = Register { tx_rings: 99, rx_slots: 9999, ..Register::new(PortName::new("vale0:1").unwrap()) };
        let (counts, slots) = shape(&asked);
        assert_eq!((counts.tx, counts.rx, slots), (16, 1, [1024, 4096]));
        assert_eq!(buffers(counts, [8, 8], 5), (16 + 9) * 8 + 10 * 8 + 7);
        assert_eq!(buffers(counts, [8, 8], u32::MAX), (16 + 9) * 8 + 10 * 8 + 2 + super::super::MOST_EXTRA);
    }
}
