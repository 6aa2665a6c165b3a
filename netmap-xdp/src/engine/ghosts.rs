//! Zero-copy monitors that are closed while somebody may still deliver to them: a sync that began before, of a process that is
//! busy, stopped or dead. Their rings and buffers, which lie in the region of the monitored port, come back when every ring
//! there is was seen without a holder once: by then each such sync is over.

use super::Engine;
use super::monitor::{ENGINE, MonitorPort, ring_buffers};
use super::region::Region;
use super::registry::{PortKey, Ports};
use crate::ctl::PipeRole;
use crate::ring::{Dir, Kring};
use std::collections::{HashMap, HashSet};

/// One of them.
pub struct Ghost {
    port: MonitorPort,
    mem_id: u16,
    /// Rings that were held whenever they were looked at since; none: not looked yet.
    held: Option<HashSet<(PortKey, Dir, u16)>>,
}

impl Ports {
    /// Sets a monitor aside whose rings were not freed.
    pub fn haunt(&mut self, port: MonitorPort, mem_id: u16) {
        self.ghosts.push(Ghost { port, mem_id, held: None });
    }

    /// Every buffer of theirs in a region.
    pub fn of_ghosts(&self, region: &Region) -> Vec<u32> {
        let here = self.ghosts.iter().filter(|g| g.mem_id == region.id);
        here.flat_map(|g| g.port.buffers(region)).collect()
    }

    /// Every ring that could be held, but for those of ghosts.
    fn all_rings(&self, regions: &HashMap<u16, Region>) -> Vec<((PortKey, Dir, u16), Kring)> {
        let nics = self.nics.keys().map(|k| PortKey::Nic(*k));
        let ends = [PipeRole::Master, PipeRole::Slave];
        let pipes = self.pipes.keys().flat_map(|k| ends.map(|role| PortKey::Pipe(*k, role)));
        let monitors = self.monitors.keys().map(|k| PortKey::Monitor(*k));
        let vales = self.vales.iter().map(|(k, _)| PortKey::Vale(k));
        let all = nics.chain(pipes).chain(monitors).chain(vales);
        let rings = all.filter_map(|key| {
            let home = self.private_region(&key).or_else(|| regions.get(&self.mem_id(&key)))?;
            let rings = self.view(&key)?.rings.krings(home);
            Some(rings.into_iter().map(move |k| ((key, k.dir(), k.id()), k)))
        });
        rings.flatten().collect()
    }

    /// Looks at all rings; returns the regions in which there are rings of ghosts.
    fn look_for_ghosts(&mut self, regions: &HashMap<u16, Region>) -> HashSet<u16> {
        if self.ghosts.is_empty() {
            return HashSet::new();
        }
        let held = self.all_rings(regions).into_iter().filter(|(_, k)| k.try_lock(ENGINE).is_none());
        let held: HashSet<_> = held.map(|(place, _)| place).collect();
        self.ghosts.retain(|g| regions.contains_key(&g.mem_id));
        for ghost in &mut self.ghosts {
            ghost.held = Some(match &ghost.held {
                Some(before) => before.intersection(&held).copied().collect(),
                None => held.clone(),
            });
        }
        self.ghosts.iter().map(|g| g.mem_id).collect()
    }
}

impl Engine {
    /// Frees what belonged to ghosts that are at rest by now.
    pub(super) fn lay_ghosts(&mut self) {
        for mem_id in self.ports.look_for_ghosts(&self.regions) {
            let Some(region) = self.regions.get_mut(&mem_id) else { continue };
            let at_rest = |g: &mut Ghost| g.mem_id == mem_id && g.held.as_ref().is_some_and(HashSet::is_empty);
            let gone: Vec<Ghost> = self.ports.ghosts.extract_if(.., at_rest).collect();
            for mut ghost in gone {
                let rings = ghost.port.retire(region);
                let buffers = rings.iter().flat_map(ring_buffers).collect();
                let kept = self.ports.buffers(region);
                region.give_back(buffers, &kept);
                rings.iter().for_each(|ring| region.free_ring(ring));
            }
        }
    }
}
