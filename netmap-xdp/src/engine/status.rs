//! What there is: regions with an account of their buffers, ports, rings with their counters. Plain data, as it travels
//! to whoever asks; nothing here changes anything.
//!
//! Programs sync while this looks. So a buffer that seems to be nowhere, or in two places, is looked for again, and only what
//! seems so each time is told: two stores of a program that exchanges buffers are soon over.

use super::region::Region;
use super::registry::{PortKey, Ports};
use super::rings::RingTable;
use super::{Engine, GrantId};
use crate::ctl::PipeRole;
use crate::index::distance;
use crate::ring::{Dir, Kring, NO_BUFFER};
use crate::sync::Ordering::*;
use crate::sys::Mode;
use std::collections::{BTreeSet, HashMap};

/// How often a buffer is looked for.
const LOOKS: usize = 4;
/// Most buffers that are named of those that are not where they should be.
const NAMED: usize = 16;
/// Rings in one part of the answer: a bound for its size, not for that of the whole.
const RINGS: usize = 4096;

/// All of it, or a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The regions of the ports below.
    pub regions: Vec<RegionStatus>,
    /// Ports, in the order of their names.
    pub ports: Vec<PortStatus>,
    /// Where to go on asking, if there are more ports.
    pub next: Option<u32>,
}

/// A region, and where its buffers are: `free + slots + kernel + spare + extra + private + missing` is
/// `buffers`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionStatus {
    /// Its memory id.
    pub id: u16,
    /// The port that has it to itself; empty for one that ports share by id.
    pub owner: String,
    /// Bytes of a buffer.
    pub buf_size: u32,
    /// Buffers that could be free.
    pub buffers: u32,
    /// Those that are.
    pub free: u32,
    /// In slots of programs.
    pub slots: u32,
    /// With the kernel: to be received into, or on their way out.
    pub kernel: u32,
    /// In NIC receive rings, to step in for what programs keep.
    pub spare: u32,
    /// On lists of extra buffers.
    pub extra: u32,
    /// Taken off such lists by programs, and in no slot.
    pub private: u32,
    /// Nowhere: a program wrote over the slot that named them, or died while it exchanged buffers. They come back with
    /// the port.
    pub missing: u32,
    /// In two places.
    pub twice: u32,
    /// Some of the missing ones and of those in two places.
    pub examples: Vec<u32>,
}

/// Kinds of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A network interface.
    Nic,
    /// An end of a pipe.
    Pipe,
    /// A monitor.
    Monitor,
    /// A null port.
    Null,
    /// A port of a switch, or a persistent one outside of any.
    Vale,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Nic => "nic",
            Kind::Pipe => "pipe",
            Kind::Monitor => "monitor",
            Kind::Null => "null",
            Kind::Vale => "vale",
        })
    }
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Inode of the network namespace in which the name counts, 0 where none does.
    pub namespace: u64,
    /// The region that it lives in.
    pub region: u16,
    /// How a NIC is driven.
    pub mode: Option<Mode>,
    /// Its rings, as far as they were made.
    pub rings: Vec<RingStatus>,
    /// Its registrations.
    pub grants: Vec<GrantId>,
    /// Who made them.
    pub holders: Vec<Holder>,
}

/// A process that has a port open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Its process id, 0 if it has none where netmapd runs.
    pub pid: u32,
    /// Its effective user when it connected.
    pub uid: u32,
    /// Name of its program, as the kernel has it; empty when the process is gone and others have its descriptor.
    pub comm: String,
}

/// A ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingStatus {
    /// Direction.
    pub dir: Dir,
    /// Index among those of its direction; host rings follow the NIC's.
    pub id: u16,
    /// Whether it is a host ring.
    pub host: bool,
    /// Slots.
    pub slots: u32,
    /// Registrations that bind it.
    pub users: u32,
    /// Whether one of them has it to itself.
    pub exclusive: bool,
    /// Whether the interface is still to come up.
    pub pending: bool,
    /// Whether what carried it is gone.
    pub stopped: bool,
    /// Whether it is monitored.
    pub monitored: bool,
    /// Who syncs it at this moment: its number as a client, for those who know it; 0 for nobody.
    pub syncing: u32,
    /// Buffers with the kernel.
    pub kernel: u32,
    /// Packets that crossed it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Syncs.
    pub syncs: u64,
    /// Times that it was reinitialised.
    pub reinits: u64,
    /// Drops by reason, those that occurred; the kernel's are named `rx-...` and `tx-...`.
    pub drops: Vec<(String, u64)>,
}

/// What decides whether somebody may see a port.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its name; that of the monitored port for a monitor.
    pub name: &'a str,
    /// What it is; likewise.
    pub kind: Kind,
    /// Likewise.
    pub namespace: u64,
}

/// Which part is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The first port, by its place in the order of all that may be seen.
    pub from: u32,
    /// Whether buffers are to be accounted for, which looks at each of them.
    pub accounts: bool,
}

impl Engine {
    /// A part of what there is, of the ports that `may_see` admits.
    pub fn status(&mut self, part: Part, may_see: &dyn Fn(Seen<'_>) -> bool) -> Status {
        if part.accounts {
            self.settle();
        }
        let mut grants: HashMap<PortKey, Vec<GrantId>> = HashMap::new();
        self.grants.iter().for_each(|(id, held)| grants.entry(held.port).or_default().push(*id));
        let mut keys: Vec<(String, PortKey)> =
            self.ports.keys().into_iter().filter_map(|key| Some((self.ports.view(&key)?.name, key))).collect();
        keys.sort_by_cached_key(|(name, key)| (name.clone(), self.ports.namespace(key), format!("{key:?}")));
        keys.retain(|(name, key)| {
            let of = self.ports.monitored(key).unwrap_or(*key);
            let name = name.split('/').next().unwrap_or_default();
            may_see(Seen { name, kind: kind(&of), namespace: self.ports.namespace(&of) })
        });
        let mut status = Status::default();
        let mut homes = BTreeSet::new();
        let mut rings = 0;
        for (at, (name, key)) in keys.iter().enumerate().skip(part.from as usize) {
            if rings >= RINGS {
                status.next = Some(at as u32);
                break;
            }
            let port = self.port(name, key, grants.remove(key).unwrap_or_default());
            rings += port.rings.len().max(1);
            if let Some(own) = self.ports.private_region(key) {
                status.regions.push(self.account(own, name, part.accounts));
            } else if homes.insert(port.region)
                && let Some(region) = self.regions.get(&port.region)
            {
                status.regions.push(self.account(region, "", part.accounts));
            }
            status.ports.push(port);
        }
        status
    }

    fn port(&self, name: &str, key: &PortKey, mut grants: Vec<GrantId>) -> PortStatus {
        grants.sort_unstable();
        let region = self.ports.private_region(key).or_else(|| self.regions.get(&self.ports.mem_id(key)));
        let view = self.ports.view(key);
        let rings = match (region, &view) {
            (Some(region), Some(view)) => {
                let ring = |k: &Kring| ring(view.rings, k, self.ports.kernel_drops(key, k));
                view.rings.krings(region).iter().map(ring).collect()
            }
            _ => Vec::new(),
        };
        PortStatus {
            name: name.to_string(),
            kind: kind(key),
            namespace: self.ports.namespace(key),
            region: region.map_or(0, |r| r.id),
            mode: view.and_then(|v| v.mode),
            rings,
            grants,
            holders: Vec::new(),
        }
    }

    /// Where the buffers of a region are.
    fn account(&self, region: &Region, owner: &str, accounts: bool) -> RegionStatus {
        let (buffers, free) = (region.usable(), region.available());
        let (id, buf_size) = (region.id, region.layout().buf_size);
        let mut told = RegionStatus { id, owner: owner.into(), buf_size, buffers, free, ..RegionStatus::default() };
        if !accounts {
            return told;
        }
        let private = |lists: usize| region.lent().saturating_sub(lists as u32);
        let mut look = Look::new(self, region);
        for _ in 1..LOOKS {
            if look.missing.len() <= private(look.extra) as usize && look.twice.is_empty() {
                break;
            }
            let again = Look::new(self, region);
            let missing = look.missing.intersection(&again.missing).copied().collect();
            let twice = look.twice.intersection(&again.twice).copied().collect();
            look = Look { missing, twice, ..again };
        }
        let missing = look.missing.len() as u32;
        told.extra = look.extra as u32;
        told.private = private(look.extra).min(missing);
        told.missing = missing - told.private;
        told.twice = look.twice.len() as u32;
        let named = if told.missing > 0 { look.missing.iter().take(NAMED).copied().collect() } else { Vec::new() };
        told.examples = named.into_iter().chain(look.twice.iter().take(NAMED).copied()).collect();
        let rest = buffers.saturating_sub(free + told.extra + missing);
        told.kernel = look.kernel.min(rest);
        told.spare = look.spare.min(rest - told.kernel);
        told.slots = rest - told.kernel - told.spare;
        told
    }

    /// Buffers that dead programs had outside of their slots, back to those that are free: see [`Region::owed`].
    pub(super) fn reclaim(&mut self) {
        let owing: Vec<u16> = self.regions.values().filter(|r| r.owed() > 0).map(|r| r.id).collect();
        for id in owing {
            let Some(region) = self.regions.get(&id) else { continue };
            let look = Look::new(self, region);
            // As long as somebody may have one in hand, or moves one just now, more seem to be missing than are owed.
            if look.extra == region.lent() as usize && look.missing.len() == region.owed() as usize {
                let missing = look.missing.into_iter().collect();
                if let Some(region) = self.regions.get_mut(&id) {
                    region.give_back(missing, &Default::default());
                }
            }
        }
    }

    /// Whether something is still to be done without being asked.
    pub fn unsettled(&self) -> bool {
        self.ports.vales.unsettled() || !self.ports.ghosts.is_empty()
    }
}

/// One look at all buffers of a region.
struct Look {
    missing: BTreeSet<u32>,
    twice: BTreeSet<u32>,
    extra: usize,
    kernel: u32,
    spare: u32,
}

impl Look {
    fn new(engine: &Engine, region: &Region) -> Look {
        let mut seen = region.free_map();
        let lists = region.extra_lists();
        let mut twice = BTreeSet::new();
        for idx in engine.ports.named(region).into_iter().chain(lists.iter().copied()) {
            match seen.get_mut(idx as usize) {
                Some(true) => drop(twice.insert(idx)),
                Some(place) => *place = true,
                None => {}
            }
        }
        let missing = (0..).zip(&seen).filter(|(_, seen)| !**seen).map(|(i, _)| i).collect();
        let [kernel, spare] = engine.ports.with_kernel(region);
        Look { missing, twice, extra: lists.len(), kernel, spare }
    }
}

fn kind(key: &PortKey) -> Kind {
    match key {
        PortKey::Nic(_) => Kind::Nic,
        PortKey::Pipe(..) => Kind::Pipe,
        PortKey::Monitor(_) => Kind::Monitor,
        PortKey::Null(_) => Kind::Null,
        PortKey::Vale(_) => Kind::Vale,
    }
}

/// Buffers of a NIC ring, or a host ring, that the kernel has.
pub(super) fn kernels(k: &Kring) -> u32 {
    let n = k.num_slots();
    match k.dir() {
        Dir::Tx => k.under_way(),
        Dir::Rx if !k.spares().is_empty() => k.with_kernel(),
        Dir::Rx => {
            let ours = distance(k.hwcur() % n, k.hwtail() % n, n);
            let theirs = (ours..n).map(|i| (k.hwcur() % n + i) % n);
            theirs.filter(|&i| k.held(i).load(Relaxed) != NO_BUFFER).count() as u32
        }
    }
}

fn ring(table: &RingTable, k: &Kring, kernel: Option<Vec<(&'static str, u64)>>) -> RingStatus {
    let (s, counts) = (k.state(), table.counts());
    let of_kernel = if kernel.is_some() { kernels(k) } else { 0 };
    let own = k.drops().map(|(_, name, n)| (name, n));
    let all = own.into_iter().chain(kernel.into_iter().flatten()).filter(|&(_, n)| n > 0);
    RingStatus {
        dir: k.dir(),
        id: k.id(),
        host: k.id() >= if k.dir() == Dir::Tx { counts.tx } else { counts.rx },
        slots: k.num_slots(),
        users: table.users(k.dir(), k.id()),
        exclusive: table.exclusive(k.dir(), k.id()),
        pending: s.pending.load(Relaxed) != 0,
        stopped: s.stopped.load(Relaxed) != 0,
        monitored: s.taps.load(Relaxed) != 0,
        syncing: s.lock.load(Relaxed),
        kernel: of_kernel,
        packets: s.packets.load(Relaxed),
        bytes: s.bytes.load(Relaxed),
        syncs: s.syncs.load(Relaxed),
        reinits: s.reinits.load(Relaxed),
        drops: all.map(|(name, n)| (name.to_string(), n)).collect(),
    }
}

impl Ports {
    /// Every port; of a pipe, the ends that somebody has open.
    fn keys(&self) -> Vec<PortKey> {
        let nics = self.nics.keys().map(|k| PortKey::Nic(*k));
        let ends = self.pipes.iter().flat_map(|(k, pipe)| {
            let open = [PipeRole::Master, PipeRole::Slave].into_iter().filter(|role| !pipe.rings(*role).idle());
            open.map(|role| PortKey::Pipe(*k, role))
        });
        let nulls = self.nulls.keys().map(|k| PortKey::Null(*k));
        let monitors = self.monitors.keys().map(|k| PortKey::Monitor(*k));
        let vales = self.vales.iter().map(|(k, _)| PortKey::Vale(k));
        nics.chain(ends).chain(nulls).chain(monitors).chain(vales).collect()
    }

    /// Inode of the namespace in which the name of a port counts; 0: it has none.
    fn namespace(&self, key: &PortKey) -> u64 {
        match key {
            PortKey::Nic(k) => k.namespace().1,
            PortKey::Pipe(k, _) => k.namespace.1,
            PortKey::Monitor(_) => self.monitored(key).map_or(0, |parent| self.namespace(&parent)),
            PortKey::Null(_) => 0,
            PortKey::Vale(k) => self.vales.get(*k).map_or(0, |p| p.namespace().1),
        }
    }

    /// The port that a monitor is for.
    fn monitored(&self, key: &PortKey) -> Option<PortKey> {
        match key {
            PortKey::Monitor(k) => self.monitors.get(k).map(|m| m.parent()),
            _ => None,
        }
    }

    /// What the kernel says it dropped, for a ring that it is behind.
    fn kernel_drops(&self, key: &PortKey, ring: &Kring) -> Option<Vec<(&'static str, u64)>> {
        match key {
            PortKey::Nic(k) => self.nics.get(k).map(|nic| nic.kernel_drops(ring)),
            _ => None,
        }
    }

    /// Buffers of a region that the kernel has, and spare ones.
    fn with_kernel(&self, region: &Region) -> [u32; 2] {
        let here = self.nics.iter().filter(|(k, _)| self.mem_id(&PortKey::Nic(**k)) == region.id);
        let rings = here.flat_map(|(_, nic)| nic.rings().krings(region));
        rings.fold([0; 2], |[kernel, spare], k| [kernel + kernels(&k), spare + k.spare()])
    }
}

#[cfg(test)]
mod tests;
