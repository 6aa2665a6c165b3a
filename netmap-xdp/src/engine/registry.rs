//! The ports that exist, by kind and key, and what the engine does with any of them.

use super::ghosts::Ghost;
use super::grant::RingGrant;
use super::monitor::{self, Links, MonitorPort};
use super::nic::{NicPort, Registration};
use super::null::NullPort;
use super::pipe::Pipe;
use super::region::Region;
use super::rings::RingTable;
use super::vale::{Switchboard, ValeId};
use crate::ctl::{Condition, Failure, PipeRole, PortName, Selection};
use crate::ring::Kring;
use crate::sys::netdev::NetDev;
use crate::sys::{Fd, Level, Mode, log, namespace_id};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// A netdev in a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NicKey {
    namespace: (u64, u64),
    ifindex: u32,
}

impl NicKey {
    /// The network namespace that it is in.
    pub fn namespace(&self) -> (u64, u64) {
        self.namespace
    }
}

/// The key of a netdev of the calling thread's namespace.
pub fn nic_key(dev: &NetDev) -> NicKey {
    NicKey { namespace: namespace_id(), ifindex: dev.ifindex }
}

/// A pipe of a parent, in a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PipeKey {
    /// Namespace in which the parent's name has its meaning.
    pub namespace: (u64, u64),
    /// The parent, whether or not there is such a port.
    pub parent: PortName,
    /// Which of its pipes.
    pub id: PortName,
}

/// One port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortKey {
    /// A NIC.
    Nic(NicKey),
    /// An end of a pipe.
    Pipe(PipeKey, PipeRole),
    /// A monitor.
    Monitor(u64),
    /// A null port.
    Null(u64),
    /// A port of a switch.
    Vale(ValeId),
}

/// What all ports have.
pub struct View<'a> {
    /// Name, for the program and for people.
    pub name: String,
    /// The rings.
    pub rings: &'a RingTable,
    /// How a NIC is driven.
    pub mode: Option<Mode>,
}

/// All ports.
#[derive(Default)]
pub struct Ports {
    /// NICs.
    pub nics: HashMap<NicKey, NicPort>,
    /// Pipes, both ends of each.
    pub pipes: HashMap<PipeKey, Pipe>,
    /// Null ports.
    pub nulls: HashMap<u64, NullPort>,
    /// Monitors, the oldest first.
    pub monitors: BTreeMap<u64, MonitorPort>,
    /// Monitors that are closed, and whose rings somebody may still write to.
    pub ghosts: Vec<Ghost>,
    /// Which rings they tap.
    pub links: Links,
    /// Regions of ports that do not live in region 1; of a pipe, under its master.
    pub abroad: HashMap<PortKey, u16>,
    /// Switches and their ports.
    pub vales: Switchboard,
    /// Whether the last start failed since somebody has a queue, or had it a moment ago.
    pub queue_busy: bool,
    /// Switch ports that pipes hang on, and which keep them there.
    pub parents: HashMap<PipeKey, ValeId>,
}

fn gone() -> Failure {
    Condition::System.says("the port is gone")
}

impl Ports {
    /// A port, to look at.
    pub fn view(&self, key: &PortKey) -> Option<View<'_>> {
        Some(match key {
            PortKey::Nic(k) => {
                let port = self.nics.get(k)?;
                View { name: port.dev().name.clone(), rings: port.rings(), mode: Some(port.mode()) }
            }
            PortKey::Pipe(k, role) => {
                let pipe = self.pipes.get(k)?;
                View { name: pipe.name(*role).to_string(), rings: pipe.rings(*role), mode: None }
            }
            PortKey::Monitor(k) => {
                let port = self.monitors.get(k)?;
                View { name: port.name.clone(), rings: port.rings(), mode: None }
            }
            PortKey::Null(k) => {
                let port = self.nulls.get(k)?;
                View { name: port.name.clone(), rings: port.rings(), mode: None }
            }
            PortKey::Vale(k) => {
                let port = self.vales.get(*k)?;
                View { name: port.name().to_string(), rings: port.rings(), mode: None }
            }
        })
    }

    /// The region that a port lives in.
    pub fn mem_id(&self, key: &PortKey) -> u16 {
        let vale = match key {
            PortKey::Vale(k) => self.vales.get(*k).map(|p| p.mem_id()),
            _ => None,
        };
        let key = match key {
            PortKey::Pipe(k, _) => PortKey::Pipe(*k, PipeRole::Master),
            key => *key,
        };
        vale.or_else(|| self.abroad.get(&key).copied()).unwrap_or(super::MAIN_REGION)
    }

    fn rings_mut(&mut self, key: &PortKey) -> Option<&mut RingTable> {
        match key {
            PortKey::Nic(k) => Some(self.nics.get_mut(k)?.rings_mut()),
            PortKey::Pipe(k, role) => Some(self.pipes.get_mut(k)?.rings_mut(*role)),
            PortKey::Monitor(k) => Some(self.monitors.get_mut(k)?.rings_mut()),
            PortKey::Null(k) => Some(self.nulls.get_mut(k)?.rings_mut()),
            PortKey::Vale(k) => Some(self.vales.get_mut(*k)?.rings_mut()),
        }
    }

    /// Counts a user of the selected rings.
    pub fn take(&mut self, key: &PortKey, selection: &Selection, exclusive: bool) -> Result<(), Failure> {
        let name = self.view(key).ok_or_else(gone)?.name;
        self.rings_mut(key).ok_or_else(gone)?.take(&name, selection, exclusive)
    }

    /// Counts it off.
    pub fn leave(&mut self, key: &PortKey, selection: &Selection, exclusive: bool) {
        if let Some(rings) = self.rings_mut(key) {
            rings.leave(selection, exclusive);
        }
    }

    /// Makes the selected rings work; `offset` is the largest offset of packets that is asked for.
    pub fn start(
        &mut self,
        key: &PortKey,
        selection: &Selection,
        offset: u64,
        region: &mut Region,
    ) -> Result<(), Failure> {
        let region_id = region.id;
        match key {
            PortKey::Nic(k) => {
                // Out of the map meanwhile: its siblings are asked for their sockets.
                let mut port = self.nics.remove(k).ok_or_else(gone)?;
                let sibling = |like: Registration| {
                    let here = self.nics.iter().filter(|(k, _)| self.mem_id(&PortKey::Nic(**k)) == region_id);
                    here.map(|(_, p)| p).find_map(|p| p.sibling(like))
                };
                let started = port.start(selection, offset, region, &sibling);
                self.queue_busy = started.is_err() && port.queue_busy();
                self.nics.insert(*k, port);
                started
            }
            PortKey::Pipe(k, role) => self.pipes.get_mut(k).ok_or_else(gone)?.start(*role, selection, region),
            PortKey::Monitor(k) => self.monitors.get_mut(k).ok_or_else(gone)?.start(selection, region),
            PortKey::Null(k) => self.nulls.get_mut(k).ok_or_else(gone)?.start(selection, region),
            PortKey::Vale(k) => self.vales.start(*k, selection, region),
        }
    }

    /// Gives the selected receive rings of a NIC the spare buffers that they lack, as far as there are any.
    pub fn give_spares(&self, key: &PortKey, selection: &Selection, region: &mut Region) {
        if let PortKey::Nic(k) = key
            && let Some(nic) = self.nics.get(k)
        {
            nic.give_spares(selection, region);
        }
    }

    /// Spare buffers that a port gets at most.
    pub fn most_spares(&self, key: &PortKey) -> u32 {
        match key {
            PortKey::Nic(k) => self.nics.get(k).map_or(0, NicPort::most_spares),
            PortKey::Pipe(..) | PortKey::Null(_) | PortKey::Monitor(_) | PortKey::Vale(_) => 0,
        }
    }

    /// Takes spare buffers from receive rings of NICs, so that `need` are free: slots come before spares.
    pub fn spare(&self, need: u32, region: &mut Region) {
        let home = region.id;
        for (_, nic) in self.nics.iter().filter(|(k, _)| self.mem_id(&PortKey::Nic(**k)) == home) {
            let short = need.saturating_sub(region.available());
            if short > 0 {
                nic.take_spares(short, region);
            }
        }
    }

    /// What a client needs of the selected rings.
    pub fn grants(&self, key: &PortKey, selection: &Selection) -> [Vec<RingGrant>; 2] {
        let granted = match key {
            PortKey::Nic(k) => self.nics.get(k).map(|p| p.grants(selection)),
            PortKey::Pipe(k, role) => self.pipes.get(k).map(|p| p.grants(*role, selection)),
            PortKey::Monitor(k) => self.monitors.get(k).map(|p| p.grants(selection)),
            PortKey::Null(k) => self.nulls.get(k).map(|p| p.grants(selection)),
            PortKey::Vale(k) => Some(self.vales.grants(*k, selection)),
        };
        granted.unwrap_or_default()
    }

    /// What keeps a NIC's XDP program in place, for a client.
    pub fn share_links(&self, key: &PortKey) -> Result<Vec<Arc<Fd>>, Failure> {
        match key {
            PortKey::Nic(k) => self.nics.get(k).map_or(Ok(vec![]), NicPort::share_links),
            PortKey::Pipe(..) | PortKey::Null(_) | PortKey::Monitor(_) | PortKey::Vale(_) => Ok(vec![]),
        }
    }

    /// A client died: rings of any port that it held locked are freed, and marked for the next one to repair.
    pub fn abandon(&self, client: u32, regions: &HashMap<u16, Region>) {
        let nics = self.nics.iter().map(|(k, p)| (PortKey::Nic(*k), p.rings()));
        let roles = [PipeRole::Master, PipeRole::Slave];
        let pipes = self.pipes.iter().flat_map(|(k, p)| roles.map(|role| (PortKey::Pipe(*k, role), p.rings(role))));
        let nulls = self.nulls.iter().map(|(k, p)| (PortKey::Null(*k), p.rings()));
        let vales = self.vales.iter().map(|(k, p)| (PortKey::Vale(k), p.rings()));
        let of_regions = nics.chain(pipes).chain(nulls).chain(vales).filter_map(|(key, rings)| {
            let region = regions.get(&self.mem_id(&key))?;
            Some(rings.krings(region))
        });
        let shared = |id: &u64| regions.get(&self.mem_id(&PortKey::Monitor(*id)));
        let monitors = self.monitors.iter().map(|(id, m)| m.krings(shared(id)));
        for ring in of_regions.chain(monitors).flatten() {
            if ring.break_lock(client) {
                log(Level::Debug, format_args!("client {client} died in a sync; the next sync repairs its ring"));
            }
            ring.break_tap_lock(client);
        }
        for (key, pipe) in &self.pipes {
            if let Some(region) = regions.get(&self.mem_id(&PortKey::Pipe(*key, PipeRole::Master))) {
                pipe.mend(region, monitor::ENGINE);
            }
        }
        self.vales.abandon(client, regions);
    }

    /// Takes down what nobody uses of a port: its rings and their buffers, which are the region's to free.
    pub fn stop(&mut self, key: &PortKey, region: &Region) -> (Vec<Kring>, Vec<u32>) {
        match key {
            PortKey::Nic(k) => self.nics.get_mut(k).map(|port| {
                let rings = port.stop(region);
                let buffers = rings.iter().flat_map(Kring::buffers).collect();
                (rings, buffers)
            }),
            PortKey::Pipe(k, _) => self.pipes.get_mut(k).filter(|p| p.idle()).map(|pipe| {
                let buffers = pipe.buffers(region);
                (pipe.stop(region), buffers)
            }),
            PortKey::Monitor(k) => self.monitors.get_mut(k).filter(|p| p.rings().idle()).map(|port| {
                let rings = port.stop(region);
                let buffers = rings.iter().flat_map(monitor::ring_buffers).collect();
                (rings, buffers)
            }),
            PortKey::Null(k) => self.nulls.get_mut(k).filter(|p| p.rings().idle()).map(|port| {
                let buffers = port.buffers(region);
                (port.stop(region), buffers)
            }),
            PortKey::Vale(k) => Some(self.vales.stop(*k, region)),
        }
        .unwrap_or_default()
    }

    /// The region that a port has to itself, to work with; it is given back by putting it there again.
    pub fn own_region(&mut self, key: &PortKey) -> Option<&mut Option<Region>> {
        match key {
            PortKey::Monitor(k) => self.monitors.get_mut(k).filter(|m| !m.shares_region()).map(MonitorPort::region_mut),
            _ => None,
        }
    }

    /// The region that a port has to itself, to look at.
    pub fn private_region(&self, key: &PortKey) -> Option<&Region> {
        match key {
            PortKey::Monitor(k) => self.monitors.get(k)?.region(),
            _ => None,
        }
    }

    /// Every buffer of a region that a live ring names.
    pub fn buffers(&self, region: &Region) -> HashSet<u32> {
        self.named(region).into_iter().collect()
    }

    /// The same, each as often as rings name it.
    pub fn named(&self, region: &Region) -> Vec<u32> {
        if let Some(own) = self.monitors.values().find(|m| m.has(region)) {
            return own.krings(None).iter().flat_map(monitor::ring_buffers).collect();
        }
        let here = |key: PortKey| self.mem_id(&key) == region.id;
        let nics = self.nics.iter().filter(|(k, _)| here(PortKey::Nic(**k))).flat_map(|(_, p)| p.buffers(region));
        let pipes = self.pipes.iter().filter(|(k, _)| here(PortKey::Pipe(**k, PipeRole::Master)));
        let nulls = self.nulls.iter().filter(|(k, _)| here(PortKey::Null(**k))).flat_map(|(_, p)| p.buffers(region));
        let monitors = self.monitors.iter().filter(|(k, p)| p.shares_region() && here(PortKey::Monitor(**k)));
        let monitors = monitors.flat_map(|(_, p)| p.buffers(region));
        let vales = self.vales.iter().filter(|(_, p)| p.mem_id() == region.id).flat_map(|(_, p)| p.buffers(region));
        let vales = vales.chain(self.vales.haunted(region)).chain(self.of_ghosts(region));
        nics.chain(pipes.flat_map(|(_, p)| p.buffers(region))).chain(nulls).chain(monitors).chain(vales).collect()
    }

    /// Drops ports that nobody uses.
    pub fn drop_idle(&mut self) {
        self.nics.retain(|_, p| !p.rings().idle());
        self.pipes.retain(|_, p| !p.idle());
        self.nulls.retain(|_, p| !p.rings().idle());
        let closed: Vec<u64> = self.monitors.iter().filter(|(_, p)| p.rings().idle()).map(|(&id, _)| id).collect();
        for id in closed {
            let mem_id = self.mem_id(&PortKey::Monitor(id));
            if let Some(port) = self.monitors.remove(&id).filter(MonitorPort::haunts) {
                self.haunt(port, mem_id);
            }
        }
        let (nics, pipes, nulls, monitors) = (&self.nics, &self.pipes, &self.nulls, &self.monitors);
        self.abroad.retain(|key, _| match key {
            PortKey::Nic(k) => nics.contains_key(k),
            PortKey::Pipe(k, _) => pipes.contains_key(k),
            PortKey::Null(k) => nulls.contains_key(k),
            PortKey::Monitor(k) => monitors.contains_key(k),
            PortKey::Vale(_) => false,
        });
        self.parents.retain(|k, _| pipes.contains_key(k));
        self.vales.drop_idle(|id| self.parents.values().any(|&p| p == id));
    }

    /// Whether somebody uses a port of this region.
    pub fn live_in(&self, region: u16) -> bool {
        let here = |key: PortKey| self.mem_id(&key) == region;
        self.nics.keys().any(|k| here(PortKey::Nic(*k)))
            || self.pipes.keys().any(|k| here(PortKey::Pipe(*k, PipeRole::Master)))
            || self.nulls.keys().any(|k| here(PortKey::Null(*k)))
            || self.monitors.iter().any(|(k, p)| p.shares_region() && here(PortKey::Monitor(*k)))
            || self.vales.iter().any(|(_, p)| p.mem_id() == region && !p.rings().idle())
    }
}
