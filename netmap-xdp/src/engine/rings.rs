//! The rings of one port: who uses them, where they lie, and the private memory of their state. Every kind of port has one
//! of these; what carries the rings is the kind's own.

use super::region::Region;
use crate::ctl::{Failure, RingCounts, Selection};
use crate::ring::{Dir, Kring, KringPlace, RingPlace};
use crate::shm::Memory;
use crate::sys::{Error, Fd, sealed_memfd};
use std::ops::Range;
use std::sync::Arc;

/// A memfd with the private state of rings: of one port, or of both ends of a pipe.
pub struct Private {
    fd: Fd,
    memory: Arc<Memory>,
}

impl Private {
    /// Room for `size` bytes.
    pub fn new(size: u64) -> Result<Arc<Private>, Failure> {
        // A memfd of no bytes cannot be mapped; a port without rings still has one.
        let size = size.max(64);
        let failed = |call, e| Failure::system(&Error::new(call, format!("{size} bytes of ring state"), e));
        let fd = sealed_memfd(c"netmap-krings", size as usize).map_err(|e| failed("memfd_create", e))?;
        let memory = Memory::map(&fd, size as usize, 0, false).map_err(|e| failed("mmap", e))?;
        Ok(Arc::new(Private { fd, memory }))
    }

    /// The mapping.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// For a client: the memfd and its size.
    pub fn share(&self) -> Result<(Fd, u64), Failure> {
        let fd = self.fd.try_clone();
        let fd = fd.map_err(|e| Failure::system(&Error::new("fcntl F_DUPFD_CLOEXEC", "ring state", e)))?;
        Ok((fd, self.memory.size() as u64))
    }
}

/// One ring, whether or not anybody bound it.
struct Ring {
    users: u32,
    exclusive: bool,
    place: Option<RingPlace>,
    kring: KringPlace,
}

/// The rings of one port.
pub struct RingTable {
    private: Arc<Private>,
    counts: RingCounts,
    slots: [u32; 2],
    rings: [Vec<Ring>; 2],
}

impl RingTable {
    /// Bytes of private state that such a table takes.
    pub fn size(counts: RingCounts, slots: [u32; 2]) -> u64 {
        RingTable::size_with(counts, slots, 0)
    }

    /// The same with room for so many spare buffers in each receive ring.
    pub fn size_with(counts: RingCounts, slots: [u32; 2], room: u32) -> u64 {
        let [tx, rx] = RingTable::all(counts);
        u64::from(tx) * KringPlace::size(slots[0], 0) + u64::from(rx) * KringPlace::size(slots[1], room)
    }

    /// How many rings there are in each direction; the host rings follow the others.
    fn all(counts: RingCounts) -> [u16; 2] {
        [counts.tx.saturating_add(counts.host_tx), counts.rx.saturating_add(counts.host_rx)]
    }

    /// A table of rings; their state lies in `private` from offset `base`.
    pub fn new(counts: RingCounts, slots: [u32; 2], private: Arc<Private>, base: u64) -> RingTable {
        RingTable::new_with(counts, slots, private, base, 0)
    }

    /// The same with room for so many spare buffers in each receive ring, but for the host's.
    pub fn new_with(counts: RingCounts, slots: [u32; 2], private: Arc<Private>, base: u64, room: u32) -> RingTable {
        let mut at = base;
        let mut rings = |n: u16, sparing: u16, slots: u32, room: u32| {
            let ring = |i| {
                let kring = KringPlace { offset: at, room: if i < sparing { room } else { 0 } };
                at += KringPlace::size(slots, room);
                Ring { users: 0, exclusive: false, place: None, kring }
            };
            (0..n).map(ring).collect()
        };
        let [tx, rx] = RingTable::all(counts);
        RingTable { counts, slots, rings: [rings(tx, 0, slots[0], 0), rings(rx, counts.rx, slots[1], room)], private }
    }

    /// How many rings there are.
    pub fn counts(&self) -> RingCounts {
        self.counts
    }

    /// Slots of transmit and receive rings.
    pub fn slots(&self) -> [u32; 2] {
        self.slots
    }

    /// The private memory.
    pub fn private(&self) -> &Private {
        &self.private
    }

    /// Both directions of a selection.
    pub fn ranges(selection: &Selection) -> [(Dir, Range<u16>); 2] {
        [(Dir::Tx, selection.tx.clone()), (Dir::Rx, selection.rx.clone())]
    }

    fn selected(&mut self, selection: &Selection) -> impl Iterator<Item = (u16, &mut Ring)> {
        let ranges = [selection.tx.clone(), selection.rx.clone()];
        self.rings.iter_mut().zip(ranges).flat_map(|(rings, range)| {
            let numbered = rings.iter_mut().enumerate().map(|(i, ring)| (i as u16, ring));
            numbered.filter(move |(i, _)| range.contains(i))
        })
    }

    /// Counts a user of every selected ring: `netmap_krings_get`.
    pub fn take(&mut self, name: &str, selection: &Selection, exclusive: bool) -> Result<(), Failure> {
        if let Some((i, ring)) = self.selected(selection).find(|(_, r)| r.exclusive || (exclusive && r.users > 0)) {
            return Err(Failure::rings_busy(name, i, !ring.exclusive));
        }
        for (_, ring) in self.selected(selection) {
            ring.users += 1;
            ring.exclusive |= exclusive;
        }
        Ok(())
    }

    /// Counts it off again: `netmap_krings_put`.
    pub fn leave(&mut self, selection: &Selection, exclusive: bool) {
        for (_, ring) in self.selected(selection) {
            ring.users = ring.users.saturating_sub(1);
            ring.exclusive &= !exclusive;
        }
    }

    /// Whether nobody uses any ring.
    pub fn idle(&self) -> bool {
        self.rings.iter().flatten().all(|r| r.users == 0)
    }

    /// Users of a ring; none of one that does not exist.
    pub fn users(&self, dir: Dir, i: u16) -> u32 {
        self.rings[dir as usize].get(usize::from(i)).map_or(0, |r| r.users)
    }

    /// Whether somebody has a ring to himself.
    pub fn exclusive(&self, dir: Dir, i: u16) -> bool {
        self.rings[dir as usize].get(usize::from(i)).is_some_and(|r| r.exclusive)
    }

    /// Where a ring and its state lie, once it was made.
    pub fn place(&self, dir: Dir, i: u16) -> Option<(RingPlace, KringPlace)> {
        let ring = self.rings[dir as usize].get(usize::from(i))?;
        Some((ring.place?, ring.kring))
    }

    /// Makes a ring unless it exists; `filled` says whether its slots get buffers of their own.
    pub fn make(&mut self, dir: Dir, i: u16, region: &mut Region, filled: bool) -> Result<(), Failure> {
        let slots = self.slots[dir as usize];
        let Some(ring) = self.rings[dir as usize].get_mut(usize::from(i)).filter(|r| r.place.is_none()) else {
            return Ok(());
        };
        ring.place = Some(region.new_ring(dir, i, slots, &self.private.memory, ring.kring, filled)?);
        Ok(())
    }

    /// The handle of a ring that was made.
    pub fn kring(&self, dir: Dir, i: u16, region: &Region) -> Option<Kring> {
        let (place, kring) = self.place(dir, i)?;
        Kring::attach(region.memory(), place, &self.private.memory, kring).ok()
    }

    /// Every ring that was made.
    pub fn krings(&self, region: &Region) -> Vec<Kring> {
        let [tx, rx] = RingTable::all(self.counts);
        let all = [(Dir::Tx, tx), (Dir::Rx, rx)];
        all.into_iter().flat_map(|(dir, n)| (0..n).filter_map(move |i| self.kring(dir, i, region))).collect()
    }

    /// Forgets a ring, which is the region's to free.
    pub fn retire(&mut self, dir: Dir, i: u16, region: &Region) -> Option<Kring> {
        let kring = self.kring(dir, i, region);
        self.rings[dir as usize].get_mut(usize::from(i))?.place = None;
        kring
    }

    /// Offsets of the selected rings for the `netmap_if`: NIC tx, host tx, NIC rx, host rx.
    pub fn offsets(&self, selection: &Selection) -> Vec<Option<u64>> {
        let mut all = Vec::new();
        for (dir, range) in RingTable::ranges(selection) {
            let rings = self.rings[dir as usize].iter().enumerate();
            all.extend(rings.map(|(i, r)| r.place.filter(|_| range.contains(&(i as u16))).map(|p| p.offset)));
        }
        all
    }
}
