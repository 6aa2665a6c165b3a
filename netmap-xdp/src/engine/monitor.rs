//! Monitors: who taps which ring. Each registration makes a monitor port of its own; it lives while its descriptor does, and
//! goes silent when the port that it monitors is closed, as in the original.
//!
//! A monitor's receive ring `i` gets what passes transmit ring `i` or receive ring `i` of the monitored port, or both. Copy
//! monitors have a region of their own, so that who captures cannot disturb the traffic; zero-copy monitors live in that of
//! the monitored port. The second zero-copy monitor of a ring taps the first one.
//!
//! [`Ports::relink`] works out afresh who taps what whenever a port came or went, and gives rings whose monitors changed a new
//! number, under their locks: no sync that began before still delivers to a monitor that is gone.

use super::grant::{CarrierGrant, RingGrant, TapGrant, TapsGrant};
use super::region::Region;
use super::registry::{PortKey, Ports};
use super::rings::{Private, RingTable};
use crate::abi::{NETMAP_FIRST_BUF, NR_MONITOR_RX, NR_MONITOR_TX, NR_ZCOPY_MON};
use crate::ctl::{Failure, PipeRole, RingCounts, Selection};
use crate::port::Wake;
use crate::port::monitor::TapKind;
use crate::ring::{Dir, Kring, LockGuard};
use crate::shm::Hold;
use crate::sync::Ordering::*;
use crate::sys::{Error, Fd, eventfd, monotonic};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Most slots of a monitor's ring: `NM_MONITOR_MAXSLOTS`.
pub const MAX_SLOTS: u32 = 4096;
/// Who holds a ring's lock when the engine does.
pub const ENGINE: u32 = u32::MAX;
/// How long the engine waits for a sync to end. Who takes longer was stopped, or died.
const PATIENCE: Duration = Duration::from_millis(5);

/// A ring of a port.
type Place = (PortKey, Dir, u16);

/// Who taps each ring, first come first: the numbers of monitors.
#[derive(Default)]
pub struct Links {
    taps: HashMap<Place, Vec<u64>>,
    last_number: u32,
}

/// A monitor port.
pub struct MonitorPort {
    /// Name, for the program and for people.
    pub name: String,
    parent: PortKey,
    directions: Vec<Dir>,
    zero_copy: bool,
    rings: RingTable,
    selected: Range<u16>,
    /// The memory of a copy monitor; lent out while its rings are worked on.
    region: Option<Region>,
    wakes: Vec<Arc<Fd>>,
    /// Whether the monitored port is still there.
    attached: bool,
    /// Whether a tap may still be at work, so that the rings cannot be freed.
    haunted: bool,
}

/// What a monitor is to be.
pub struct MonitorPlan<'a> {
    /// Name of the monitored port.
    pub name: &'a str,
    /// The monitored port.
    pub parent: PortKey,
    /// `NR_*`.
    pub flags: u64,
    /// Rings of the monitor.
    pub counts: RingCounts,
    /// Their slots.
    pub slots: [u32; 2],
    /// Those that are bound.
    pub selection: &'a Selection,
    /// Buffers beside theirs.
    pub extra_bufs: u32,
    /// Bytes of a buffer in a region of its own: those of the monitored port.
    pub buf_size: u32,
    /// Memory id of such a region.
    pub mem_id: u16,
}

/// Rings of a monitor of a port with `parent` rings.
pub fn shape(parent: RingCounts, slots: [u32; 2], asked: [u32; 2]) -> (RingCounts, [u32; 2]) {
    let counts = RingCounts { tx: 1, rx: parent.rx.max(parent.tx), ..parent };
    // A ring of one slot would hold nothing.
    let bound = |n: u32, default: u32| if n == 0 { default.min(MAX_SLOTS) } else { n.clamp(2, MAX_SLOTS) };
    (counts, [bound(asked[0], slots[0]), bound(asked[1], slots[1])])
}

/// Whether a monitor with these flags lives in the region of the port that it monitors.
pub fn shares_region(flags: u64) -> bool {
    flags & NR_ZCOPY_MON != 0
}

impl MonitorPort {
    /// Makes one, number `id`; nothing is tapped yet.
    pub fn new(id: u64, plan: &MonitorPlan<'_>) -> Result<MonitorPort, Failure> {
        let zero_copy = shares_region(plan.flags);
        let wanted = |flag, dir| (zero_copy || plan.flags & flag != 0).then_some(dir);
        let directions = [wanted(NR_MONITOR_TX, Dir::Tx), wanted(NR_MONITOR_RX, Dir::Rx)];
        let letters = [(zero_copy, "z"), (directions[1].is_some(), "r"), (directions[0].is_some(), "t")];
        let letters: String = letters.iter().filter(|(on, _)| *on).map(|(_, letter)| *letter).collect();
        let name = format!("{}/{letters}#{id}", plan.name);
        let region = if zero_copy {
            None
        } else {
            let rings = plan.selection.tx.len() as u32 * plan.slots[0] + plan.selection.rx.len() as u32 * plan.slots[1];
            let buffers = rings.saturating_add(plan.extra_bufs.min(super::MOST_EXTRA)) + NETMAP_FIRST_BUF;
            Some(Region::new(plan.mem_id, buffers, plan.buf_size)?)
        };
        let failed = |e| Failure::system(&Error::new("eventfd", &name, e));
        let wakes = (0..plan.counts.rx).map(|_| eventfd().map(Arc::new)).collect::<Result<_, _>>().map_err(failed)?;
        let private = Private::new(RingTable::size(plan.counts, plan.slots))?;
        Ok(MonitorPort {
            parent: plan.parent,
            directions: directions.into_iter().flatten().collect(),
            zero_copy,
            rings: RingTable::new(plan.counts, plan.slots, private, 0),
            selected: plan.selection.rx.clone(),
            region,
            wakes,
            attached: true,
            haunted: false,
            name,
        })
    }

    /// The rings.
    pub fn rings(&self) -> &RingTable {
        &self.rings
    }

    /// The rings, to count users.
    pub fn rings_mut(&mut self) -> &mut RingTable {
        &mut self.rings
    }

    /// Its rings that were made; `shared` is the region that a monitor without one of its own lives in.
    pub fn krings(&self, shared: Option<&Region>) -> Vec<Kring> {
        self.home(shared).map_or_else(Vec::new, |region| self.rings.krings(region))
    }

    /// The region of its own, if it has one.
    pub fn region_mut(&mut self) -> &mut Option<Region> {
        &mut self.region
    }

    /// The same, to look at.
    pub fn region(&self) -> Option<&Region> {
        self.region.as_ref()
    }

    /// Whether this very region is its own.
    pub fn has(&self, region: &Region) -> bool {
        self.region.as_ref().is_some_and(|own| std::ptr::eq(own, region))
    }

    /// The port that it monitors.
    pub fn parent(&self) -> PortKey {
        self.parent
    }

    /// Whether it lives in the region of the port that it monitors.
    pub fn shares_region(&self) -> bool {
        self.zero_copy
    }

    /// Makes the selected rings.
    pub fn start(&mut self, selection: &Selection, region: &mut Region) -> Result<(), Failure> {
        for (dir, range) in RingTable::ranges(selection) {
            for i in range {
                self.rings.make(dir, i, region, true)?;
            }
        }
        Ok(())
    }

    /// What a client needs of the selected rings.
    pub fn grants(&self, selection: &Selection) -> [Vec<RingGrant>; 2] {
        RingTable::ranges(selection).map(|(dir, range)| {
            let grant = |i: u16| {
                let (ring, kring) = self.rings.place(dir, i)?;
                let wake = self.wakes.get(usize::from(i))?.clone();
                Some(RingGrant { ring, kring, carrier: CarrierGrant::Monitor { wake }, bell: None })
            };
            range.filter_map(grant).collect()
        })
    }

    /// The region that its rings lie in, if there is one; `shared` is that of the monitored port.
    fn home<'a>(&'a self, shared: Option<&'a Region>) -> Option<&'a Region> {
        if self.zero_copy { shared } else { self.region.as_ref() }
    }

    /// Every buffer that the port holds of the region that it shares.
    pub fn buffers(&self, shared: &Region) -> Vec<u32> {
        if !self.zero_copy {
            return Vec::new();
        }
        self.rings.krings(shared).iter().flat_map(ring_buffers).collect()
    }

    /// Forgets all rings, which are the region's to free, unless somebody may still write to them: see `ghosts`.
    pub fn stop(&mut self, region: &Region) -> Vec<Kring> {
        if self.haunted { Vec::new() } else { self.retire(region) }
    }

    /// Whether it lives in a region of others, and somebody may still write to its rings.
    pub fn haunts(&self) -> bool {
        self.haunted && self.zero_copy
    }

    /// Forgets all rings, which are the region's to free.
    pub fn retire(&mut self, region: &Region) -> Vec<Kring> {
        let counts = self.rings.counts();
        let all = [(Dir::Tx, counts.tx), (Dir::Rx, counts.rx)];
        let all = all.into_iter().flat_map(|(dir, n)| (0..n).map(move |i| (dir, i)));
        all.filter_map(|(dir, i)| self.rings.retire(dir, i, region)).collect()
    }

    /// The monitored port has gone: what was delivered can still be read, then the rings say that they are dead.
    fn orphan(&mut self, shared: Option<&Region>) {
        self.attached = false;
        for k in self.krings(shared) {
            if k.dir() == Dir::Rx {
                let _lock = lock(&k);
                // SYNC monitor-tail: as in `MonitorRx::sync`.
                let tail = k.state().peer_tail.load(Acquire);
                if tail < k.num_slots() {
                    k.set_hwtail(tail);
                    k.finish();
                }
            }
            k.state().stopped.store(1, Relaxed);
            if let Some(wake) = self.wakes.get(usize::from(k.id())) {
                Wake::new(wake.clone(), wake.clone()).rouse(&k);
            }
        }
    }

    /// The ring whose syncs show what passes ring `i` of the monitored port. What arrives at one end of a pipe is shown by who
    /// sends it at the other, before the monitored program looks.
    fn source(&self, dir: Dir, i: u16) -> Place {
        match self.parent {
            PortKey::Pipe(pipe, role) if dir == Dir::Rx && !self.zero_copy => {
                let far = if role == PipeRole::Master { PipeRole::Slave } else { PipeRole::Master };
                (PortKey::Pipe(pipe, far), Dir::Tx, i)
            }
            parent => (parent, dir, i),
        }
    }

    /// What a client needs to deliver to receive ring `i`.
    fn tap(&self, i: u16, kind: TapKind) -> Option<TapGrant> {
        let (ring, kring) = self.rings.place(Dir::Rx, i)?;
        let (private, private_size) = self.rings.private().share().ok()?;
        let region = match &self.region {
            Some(own) => Some((Arc::new(own.share().ok()?), own.size())),
            None => None,
        };
        let wake = self.wakes.get(usize::from(i))?.clone();
        Some(TapGrant { region, private: Arc::new(private), private_size, ring, kring, kind, wake })
    }
}

/// The buffers of a monitor's ring: all lie in its slots, but for one that a tap was about to give away when it died.
pub fn ring_buffers(k: &Kring) -> Vec<u32> {
    let mut all = k.slot_buffers();
    all.extend((0..k.num_slots()).map(|i| k.held(i).load(Relaxed)).filter(|&i| k.is_buffer(i)));
    all
}

/// Waits for the lock of a ring, but not for ever.
pub(super) fn lock(k: &Kring) -> Option<LockGuard<'_>> {
    patiently(|| k.try_lock(ENGINE))
}

fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let start = monotonic();
    loop {
        if let Some(held) = attempt() {
            return Some(held);
        }
        if monotonic() - start > PATIENCE {
            return None;
        }
        std::thread::yield_now();
    }
}

impl Ports {
    /// The region that the rings of a port lie in.
    pub fn home<'a>(&'a self, key: &PortKey, regions: &'a HashMap<u16, Region>) -> Option<&'a Region> {
        let shared = regions.get(&self.mem_id(key));
        match key {
            PortKey::Monitor(id) => self.monitors.get(id)?.home(shared),
            _ => shared,
        }
    }

    /// Whether nobody uses a port, or it is not there.
    pub fn unused(&self, key: &PortKey) -> bool {
        self.view(key).is_none_or(|port| port.rings.idle())
    }

    /// Who ought to tap what.
    fn wanted(&self) -> HashMap<Place, Vec<u64>> {
        let mut taps: HashMap<Place, Vec<u64>> = HashMap::new();
        let mut last_of_chain: HashMap<(PortKey, u16), u64> = HashMap::new();
        for (&id, m) in self.monitors.iter().filter(|(_, m)| m.attached && !m.rings.idle()) {
            let Some(parent) = self.view(&m.parent) else { continue };
            let counts = parent.rings.counts();
            for i in m.selected.clone() {
                let before = if m.zero_copy { last_of_chain.insert((m.parent, i), id) } else { None };
                if let Some(before) = before {
                    taps.entry((PortKey::Monitor(before), Dir::Rx, i)).or_default().push(id);
                    continue;
                }
                for &dir in &m.directions {
                    let n = if dir == Dir::Tx { counts.tx } else { counts.rx };
                    if i < n {
                        taps.entry(m.source(dir, i)).or_default().push(id);
                    }
                }
            }
        }
        taps
    }

    /// Brings the taps up to date after ports came or went.
    pub fn relink(&mut self, regions: &HashMap<u16, Region>) {
        if self.monitors.is_empty() && self.links.taps.is_empty() {
            return;
        }
        let lost: Vec<u64> =
            self.monitors.iter().filter(|(_, m)| m.attached && self.unused(&m.parent)).map(|(&id, _)| id).collect();
        for id in lost {
            let shared = regions.get(&self.mem_id(&PortKey::Monitor(id)));
            if let Some(m) = self.monitors.get_mut(&id) {
                m.orphan(shared);
            }
        }
        let wanted = self.wanted();
        let before = std::mem::take(&mut self.links.taps);
        let places: HashSet<&Place> = wanted.keys().chain(before.keys()).collect();
        let (mut haunted, mut asked_anew) = (HashSet::new(), HashSet::new());
        for place in places {
            let (key, dir, i) = place;
            let (now, then) = (wanted.get(place), before.get(place));
            let ring = self.home(key, regions).zip(self.view(key)).and_then(|(home, v)| v.rings.kring(*dir, *i, home));
            let Some(ring) = ring else { continue };
            // A ring that was made again has forgotten its monitors.
            let forgot = now.is_some() && ring.state().taps.load(Relaxed) == 0;
            if now == then && !forgot {
                continue;
            }
            self.links.last_number = self.links.last_number.wrapping_add(1).max(1);
            if !renumber(&ring, if now.is_some() { self.links.last_number } else { 0 }) {
                haunted.extend(then.into_iter().flatten().copied());
            }
            if let (PortKey::Vale(id), Dir::Rx) = (key, dir) {
                asked_anew.insert(*id);
            }
        }
        for id in haunted {
            if let Some(m) = self.monitors.get_mut(&id) {
                m.haunted = true;
            }
        }
        self.links.taps = wanted;
        // Senders show what they put into the ring of a switch to its monitors.
        asked_anew.into_iter().for_each(|id| self.vales.announce(id, true));
    }

    /// The monitors of a ring, for a client that syncs it.
    pub fn taps(&self, key: &PortKey, dir: Dir, i: u16, regions: &HashMap<u16, Region>) -> Option<TapsGrant> {
        let ring = self.view(key)?.rings.kring(dir, i, self.home(key, regions)?)?;
        let monitors = self.links.taps.get(&(*key, dir, i)).into_iter().flatten();
        let tap = |id: &u64| {
            let m = self.monitors.get(id)?;
            let kind = match (m.zero_copy, key) {
                (false, key) if *key != m.parent => TapKind::Arrival,
                (false, _) => TapKind::Copy,
                (true, PortKey::Monitor(_)) => TapKind::Chain,
                (true, _) => TapKind::Exchange,
            };
            m.tap(i, kind)
        };
        Some(TapsGrant { number: ring.state().taps.load(Relaxed), taps: monitors.filter_map(tap).collect() })
    }
}

/// Gives a ring a new number of its set of monitors, 0 for none, between two syncs; false if a sync did not end.
fn renumber(ring: &Kring, number: u32) -> bool {
    let held = lock(ring);
    // Receive rings of switches are shown by senders, who do not hold the ring's lock.
    let shows = patiently(|| Hold::try_take(&ring.state().tap_lock, ENGINE));
    let state = ring.state();
    if state.taps.load(Relaxed) == 0 {
        // SYNC vale-tail: acquire pairs with the release in `lease`, as a receiver's.
        let passed = if ring.dir() == Dir::Tx { ring.hwcur() } else { state.peer_tail.load(Acquire) };
        state.shown.store(passed, Relaxed);
    }
    state.taps.store(number, Relaxed);
    held.is_some() && shows.is_some()
}
