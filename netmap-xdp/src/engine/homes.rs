//! Which region a port lives in, and the ids of regions.
//!
//! | port | region, if no id is given |
//! |---|---|
//! | NIC, with its host rings | 1 |
//! | pipe of a NIC | that of the NIC |
//! | port of a switch, and its pipes | one of its own |
//! | pipe of anything else | one that it shares with the pipes of the same parent, as long as there is one |
//! | copy monitor | one of its own |
//! | zero-copy monitor | that of the monitored port |
//!
//! The original makes a port of no switch for a parent that is none, for as long as there are pipes of it; there is no
//! such port here, but its memory is.

use super::registry::{self, PipeKey, PortKey};
use super::{DEFAULT_BUFFERS, Engine, Held, MAIN_REGION, MOST_EXTRA, Target, extmem, interface, monitor, region, vale};
use crate::abi::NETMAP_FIRST_BUF;
use crate::ctl::{Condition, Failure, PipeRole, PortName, Register, RingCounts};
use crate::shm::Layout;
use crate::sys::settings;
use std::time::Duration;

/// Ids that are given unasked.
const IDS: std::ops::Range<u16> = MAIN_REGION + 1..extmem::FIRST_ID;

/// Where an engine that begins at this time starts to count regions: elsewhere than the one before it. Libraries of
/// programs tell regions by their ids, and a program that outlived another engine has regions of that one.
pub fn first_id(now: Duration) -> u16 {
    IDS.start + (now.as_millis() % IDS.len() as u128) as u16
}

/// Whether a name can only be that of a port of a switch.
pub fn on_switch(name: PortName) -> bool {
    name.as_bytes().starts_with(b"vale")
}

/// How large the region of a parent's pipes is to be when a pipe of this shape is the first: it does not grow, so there
/// is room for eight of them, unless that is out of reason.
fn buffers_of_pipes(counts: RingCounts, slots: [u32; 2], extra_bufs: u32) -> u32 {
    let pipe = u32::from(counts.tx) * slots[0] + u32::from(counts.rx) * slots[1];
    let more = pipe.saturating_mul(7).min(MOST_EXTRA);
    let need = pipe.saturating_add(more).saturating_add(extra_bufs.min(MOST_EXTRA)).saturating_add(NETMAP_FIRST_BUF);
    settings().buffers.unwrap_or(need.max(DEFAULT_BUFFERS))
}

impl Engine {
    fn knows(&self, id: u16) -> bool {
        id <= MAIN_REGION || self.regions.contains_key(&id) || self.vale_of(id).is_some()
    }

    /// Refuses an id that no region has.
    pub(super) fn check_mem_id(&self, id: u16) -> Result<(), Failure> {
        if self.knows(id) { Ok(()) } else { Err(Failure::unknown_mem_id(id)) }
    }

    /// The region that is asked for, or the id that the next one gets. Ids are given in turn, since a program may still have a
    /// region mapped that is gone.
    pub(super) fn mem_id_for(&self, asked: u16) -> u16 {
        if asked != 0 {
            return asked;
        }
        let of_monitor = |id: u16| self.ports.monitors.values().any(|m| m.region().is_some_and(|r| r.id == id));
        let taken = |id: u16| self.knows(id) || of_monitor(id);
        let after = (self.last_mem_id + 1).max(IDS.start);
        (after..IDS.end).chain(IDS.start..after).find(|&id| !taken(id)).unwrap_or(IDS.end - 1)
    }

    /// Somebody is given this region.
    pub(super) fn settle_on(&mut self, mem_id: u16) {
        if mem_id == self.mem_id_for(0) {
            self.last_mem_id = mem_id;
        }
    }

    /// The region that a port lives in, or would live in.
    pub(super) fn home(&self, target: &Target, register: &Register) -> u16 {
        if let Some(key) = self.existing(target) {
            return self.ports.mem_id(&key);
        }
        match target {
            Target::NewVale => self.mem_id_for(register.mem_id),
            Target::Monitor(parent) if monitor::shares_region(register.flags) => self.ports.mem_id(parent),
            Target::Pipe(key) => match self.ports.vales.find(key.parent) {
                Some(parent) => self.ports.mem_id(&PortKey::Vale(parent)),
                None if register.mem_id != 0 => register.mem_id,
                None => self.home_of_pipes(key),
            },
            _ => register.mem_id.max(MAIN_REGION),
        }
    }

    /// The region of a new pipe whose parent is no port of a switch. Memory of a program is only for those who ask for it.
    fn home_of_pipes(&self, key: &PipeKey) -> u16 {
        let open = |mem_id: &u16| self.regions.get(mem_id).is_some_and(|r| r.source().is_none());
        if !on_switch(key.parent)
            && let Ok(dev) = interface(key.parent)
        {
            let nic = PortKey::Nic(registry::nic_key(&dev));
            return Some(self.ports.mem_id(&nic)).filter(open).unwrap_or(MAIN_REGION);
        }
        let siblings = self.ports.pipes.iter().filter(|(k, _)| k.namespace == key.namespace && k.parent == key.parent);
        let homes = siblings.map(|(k, p)| (p.made(), self.ports.mem_id(&PortKey::Pipe(*k, PipeRole::Master))));
        let eldest = homes.filter(|(_, mem_id)| open(mem_id)).min();
        eldest.map_or_else(|| self.mem_id_for(0), |(_, mem_id)| mem_id)
    }

    /// Whether a port that lives in one region is asked for in another.
    pub(super) fn check_home(&self, target: &Target, register: &Register) -> Result<(), Failure> {
        let home = self.home(target, register);
        if register.mem_id == 0 || register.mem_id == home {
            return Ok(());
        }
        let message = format!("{} is in use in region {home}, not {}; close it there", register.name, register.mem_id);
        Err(Condition::RegionInUse.says(message))
    }

    /// Sizes of a region: as it is, or as it would be made.
    pub(super) fn layout(&self, mem_id: u16) -> Layout {
        let planned = || match self.vale_of(mem_id) {
            Some(port) if mem_id != MAIN_REGION => {
                Layout::plan(port.planned(), settings().priv_buf_size(), region::OBJECTS)
            }
            _ => Layout::plan(settings().buffers.unwrap_or(DEFAULT_BUFFERS), settings().buf_size, region::OBJECTS),
        };
        self.regions.get(&mem_id).map_or_else(planned, |r| *r.layout())
    }

    /// The region that a port lives in, or would live in, and its sizes.
    pub(super) fn home_layout(&self, target: &Target, register: &Register) -> (u16, Layout) {
        let id = self.home(target, register);
        if matches!(target, Target::NewVale) && register.mem_id == 0 {
            let (counts, slots) = vale::shape(register);
            let buffers = vale::buffers(counts, slots, register.extra_bufs);
            return (id, Layout::plan(buffers, settings().priv_buf_size(), region::OBJECTS));
        }
        if matches!(target, Target::Pipe(_)) && !self.knows(id) {
            let (counts, slots) = self.shape(target, register);
            let buffers = buffers_of_pipes(counts, slots, register.extra_bufs);
            return (id, Layout::plan(buffers, settings().priv_buf_size(), region::OBJECTS));
        }
        (id, self.layout(id))
    }

    /// How large a region is to be that a pipe is the first to use.
    pub(super) fn buffers_of_parent(&self, held: &Held, register: &Register) -> u32 {
        let rings = self.ports.view(&held.port).map(|p| (p.rings.counts(), p.rings.slots()));
        let (counts, slots) = rings.unwrap_or_default();
        buffers_of_pipes(counts, slots, register.extra_bufs)
    }
}
