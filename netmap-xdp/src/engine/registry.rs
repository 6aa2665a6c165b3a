//! The ports that exist, by kind and key, and what the engine does with any of them.

use super::grant::RingGrant;
use super::nic::NicPort;
use super::null::NullPort;
use super::pipe::Pipe;
use super::region::Region;
use super::rings::RingTable;
use crate::ctl::{Condition, Failure, PipeRole, PortName, Selection};
use crate::ring::Kring;
use crate::sys::netdev::NetDev;
use crate::sys::{Fd, Mode, namespace_id};
use crate::xsk::Geometry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A netdev in a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NicKey {
    namespace: (u64, u64),
    ifindex: u32,
}

impl NicKey {
    /// Whether the netdev is in this network namespace.
    pub fn is_in(&self, namespace: (u64, u64)) -> bool {
        self.namespace == namespace
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
    /// A null port.
    Null(u64),
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
            PortKey::Null(k) => {
                let port = self.nulls.get(k)?;
                View { name: port.name.clone(), rings: port.rings(), mode: None }
            }
        })
    }

    fn rings_mut(&mut self, key: &PortKey) -> Option<&mut RingTable> {
        match key {
            PortKey::Nic(k) => Some(self.nics.get_mut(k)?.rings_mut()),
            PortKey::Pipe(k, role) => Some(self.pipes.get_mut(k)?.rings_mut(*role)),
            PortKey::Null(k) => Some(self.nulls.get_mut(k)?.rings_mut()),
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

    /// Makes the selected rings work.
    pub fn start(&mut self, key: &PortKey, selection: &Selection, region: &mut Region) -> Result<(), Failure> {
        match key {
            PortKey::Nic(k) => {
                // Out of the map meanwhile: its siblings are asked for their sockets.
                let mut port = self.nics.remove(k).ok_or_else(gone)?;
                let sibling = |g: Geometry| self.nics.values().find_map(|p| p.sibling(g));
                let started = port.start(selection, region, &sibling);
                self.nics.insert(*k, port);
                started
            }
            PortKey::Pipe(k, role) => self.pipes.get_mut(k).ok_or_else(gone)?.start(*role, selection, region),
            PortKey::Null(k) => self.nulls.get_mut(k).ok_or_else(gone)?.start(selection, region),
        }
    }

    /// What a client needs of the selected rings.
    pub fn grants(&self, key: &PortKey, selection: &Selection) -> [Vec<RingGrant>; 2] {
        let granted = match key {
            PortKey::Nic(k) => self.nics.get(k).map(|p| p.grants(selection)),
            PortKey::Pipe(k, role) => self.pipes.get(k).map(|p| p.grants(*role, selection)),
            PortKey::Null(k) => self.nulls.get(k).map(|p| p.grants(selection)),
        };
        granted.unwrap_or_default()
    }

    /// What keeps a NIC's XDP program in place, for a client.
    pub fn share_link(&self, key: &PortKey) -> Result<Option<Arc<Fd>>, Failure> {
        match key {
            PortKey::Nic(k) => self.nics.get(k).map_or(Ok(None), NicPort::share_link),
            PortKey::Pipe(..) | PortKey::Null(_) => Ok(None),
        }
    }

    /// Every ring that was made, of all ports.
    pub fn krings(&self, region: &Region) -> Vec<Kring> {
        let nics = self.nics.values().map(NicPort::rings);
        let pipes = self.pipes.values().flat_map(|p| [PipeRole::Master, PipeRole::Slave].map(|role| p.rings(role)));
        let nulls = self.nulls.values().map(NullPort::rings);
        nics.chain(pipes).chain(nulls).flat_map(|rings| rings.krings(region)).collect()
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
            PortKey::Null(k) => self.nulls.get_mut(k).filter(|p| p.rings().idle()).map(|port| {
                let buffers = port.buffers(region);
                (port.stop(region), buffers)
            }),
        }
        .unwrap_or_default()
    }

    /// Every buffer that a live ring names.
    pub fn buffers(&self, region: &Region) -> HashSet<u32> {
        let nics = self.nics.values().flat_map(|p| p.buffers(region));
        let pipes = self.pipes.values().flat_map(|p| p.buffers(region));
        let nulls = self.nulls.values().flat_map(|p| p.buffers(region));
        nics.chain(pipes).chain(nulls).collect()
    }

    /// Drops ports that nobody uses.
    pub fn drop_idle(&mut self) {
        self.nics.retain(|_, p| !p.rings().idle());
        self.pipes.retain(|_, p| !p.idle());
        self.nulls.retain(|_, p| !p.rings().idle());
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nics.is_empty() && self.pipes.is_empty() && self.nulls.is_empty()
    }
}
