//! A memory region: the memfd that programs map, its objects and its buffers.
//!
//! The bookkeeping is the engine's alone. Buffers change hands by index among all ports of a region, so what belongs to a
//! port is read off its rings when it goes, and never what a live ring still names is freed.

use super::extmem::Source;
use super::grant::RegionGrant;
use crate::abi::{NETMAP_FIRST_BUF, NI_PRIV_MEM};
use crate::ctl::{Condition, Failure};
use crate::ring::{Dir, IfHeader, Kring, KringPlace, RingHeader, RingPlace, SlotView};
use crate::shm::{Arena, BufPool, Layout, Memory};
use crate::sync::Ordering::*;
use crate::sys::{Error, Fd, sealed_memfd};
use crate::xsk::{Geometry, Umem};
use std::collections::{HashMap, HashSet};
use std::mem::size_of;
use std::sync::Arc;

/// The setting that sizes region 1.
const SETTING: &str = "NETMAP_XDP_BUFFERS";
/// Rings and interfaces that fit whatever their sizes.
pub const OBJECTS: u32 = 1024;

/// A region.
pub struct Region {
    /// Its memory id.
    pub id: u16,
    fd: Fd,
    memory: Arc<Memory>,
    layout: Layout,
    objects: Arena,
    buffers: BufPool,
    /// Rings that were given buffers, by offset, and how many each.
    filled: HashMap<u64, u32>,
    /// The `netmap_if` objects, and how many extra buffers each was lent.
    ifs: HashMap<u64, u32>,
    /// Which memory of the program it is, if it is.
    source: Option<Source>,
}

impl Region {
    /// Makes a region of `buffers` buffers of `buf_size` bytes.
    pub fn new(id: u16, buffers: u32, buf_size: u32) -> Result<Region, Failure> {
        let layout = Layout::plan(buffers, buf_size, OBJECTS);
        let failed = |call, e| Failure::system(&Error::new(call, format!("{} bytes of region {id}", layout.size), e));
        let fd = sealed_memfd(c"netmap-region", layout.size as usize).map_err(|e| failed("memfd_create", e))?;
        let memory = Memory::map(&fd, layout.size as usize, 0, false).map_err(|e| failed("mmap", e))?;
        Ok(Region {
            id,
            fd,
            memory,
            layout,
            objects: Arena::new(layout.meta),
            buffers: BufPool::new(buffers),
            filled: HashMap::new(),
            ifs: HashMap::new(),
            source: None,
        })
    }

    /// A region in memory of the program.
    pub fn of_program(id: u16, memory: Arc<Memory>, layout: Layout, source: Source) -> Result<Region, Failure> {
        let failed = |e| Failure::system(&Error::new("memfd_create", format!("region {id}"), e));
        // Stands for memory of this process whose file cannot be had.
        let fd = sealed_memfd(c"netmap-extmem", 0).map_err(failed)?;
        let (objects, buffers) = (Arena::new(layout.meta), BufPool::new(layout.buffers));
        let (filled, ifs) = (HashMap::new(), HashMap::new());
        Ok(Region { id, fd, memory, layout, objects, buffers, filled, ifs, source: Some(source) })
    }

    /// Which memory of the program it is.
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// Its size in bytes: `nr_memsize`.
    pub fn size(&self) -> u64 {
        self.layout.size
    }

    /// Sizes and offsets.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The mapping.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// A descriptor for a client.
    pub fn share(&self) -> Result<Fd, Failure> {
        self.fd.try_clone().map_err(|e| Failure::system(&Error::new("fcntl F_DUPFD_CLOEXEC", "a region", e)))
    }

    /// The region, for a client to map.
    pub fn grant(&self) -> Result<RegionGrant, Failure> {
        let (fd, at, here) = match &self.source {
            None => (Arc::new(self.share()?), 0, None),
            Some(source) => match &source.fd {
                Some(fd) => (fd.clone(), source.offset(), None),
                None => (Arc::new(self.share()?), 0, Some(self.memory.clone())),
            },
        };
        let Layout { size, buf_size, .. } = self.layout;
        Ok(RegionGrant { fd, at, size, buf_size, of_program: self.source.is_some(), here })
    }

    /// The buffer pool as a UMEM.
    pub fn umem(&self, geometry: Geometry) -> Umem {
        Umem::new(self.memory.clone(), self.layout.pool, self.layout.umem_len(), geometry)
    }

    /// Free buffers.
    pub fn available(&self) -> u32 {
        self.buffers.available()
    }

    /// Buffers that could be free at most.
    pub fn usable(&self) -> u32 {
        self.buffers.usable()
    }

    fn short_of(&self, need: u32) -> Failure {
        let have = self.buffers.available();
        if self.source.is_some() {
            let message =
                format!("{need} buffers or their rings do not fit in the external memory; {have} buffers are left");
            return Condition::ExtmemTooSmall.says(message);
        }
        Failure::out_of_buffers(need.into(), have.into(), SETTING, self.layout.buffers.into())
    }

    /// Makes a ring of `slots` slots; `filled` gives each a buffer of its own.
    pub fn new_ring(
        &mut self,
        dir: Dir,
        id: u16,
        slots: u32,
        private: &Arc<Memory>,
        kring: KringPlace,
        filled: bool,
    ) -> Result<RingPlace, Failure> {
        if filled && self.buffers.available() < slots {
            return Err(self.short_of(slots));
        }
        let len = size_of::<RingHeader>() as u64 + u64::from(slots) * size_of::<SlotView>() as u64;
        let offset = self.objects.alloc(len).ok_or_else(|| self.short_of(slots))?;
        let Layout { buffers, buf_size, .. } = self.layout;
        let place = RingPlace { offset, slots, buffers_at: self.layout.buffer(0), buffers, buf_size, dir, id };
        let ring =
            Kring::attach(&self.memory, place, private, kring).map_err(|e| Condition::System.says(e.to_string()))?;
        for i in 0..slots {
            let buffer = if filled { self.buffers.alloc() } else { None };
            let (slot, buffer) = (ring.slot(i), buffer.unwrap_or(0));
            slot.buf_idx.store(buffer, Relaxed);
            slot.len.store(0, Relaxed);
            slot.flags.store(0, Relaxed);
            slot.ptr.store(0, Relaxed);
            ring.held(i).store(0, Relaxed);
        }
        ring.format();
        if filled {
            self.filled.insert(offset, slots);
        }
        Ok(place)
    }

    /// Gives a ring so many spare buffers, as far as there are any. Its lock is the caller's, or nobody has it yet.
    pub fn give_spares(&mut self, ring: &Kring, want: u32) {
        let mut given = 0;
        while given < want {
            let Some(idx) = self.buffers.alloc() else { break };
            if !ring.add_spare(idx) {
                let _ = self.buffers.free(idx);
                break;
            }
            given += 1;
        }
        *self.filled.entry(ring.place().offset).or_default() += given;
    }

    /// How many buffers a ring was given, for its slots and as spare ones.
    pub fn given(&self, ring: &Kring) -> u32 {
        self.filled.get(&ring.place().offset).copied().unwrap_or(0)
    }

    /// Takes up to `want` spare buffers from a ring whose lock is the caller's; returns how many.
    pub fn take_spares(&mut self, ring: &Kring, want: u32) -> u32 {
        let Some(given) = self.filled.get_mut(&ring.place().offset) else { return 0 };
        let mut taken = 0;
        while taken < want.min(given.saturating_sub(ring.num_slots())) {
            let Some(idx) = ring.take_spare() else { break };
            // What a scribbled state names twice stays where it is.
            taken += u32::from(self.buffers.free(idx).is_ok());
        }
        *given -= taken;
        taken
    }

    /// Frees a ring; its buffers are another matter.
    pub fn free_ring(&mut self, ring: &Kring) {
        self.objects.free(ring.place().offset);
        self.filled.remove(&ring.place().offset);
    }

    /// Frees buffers, but for those that are `kept` by a live ring: a program may have written any index into its slots.
    pub fn give_back(&mut self, candidates: Vec<u32>, kept: &HashSet<u32>) {
        for i in candidates {
            if !kept.contains(&i) {
                // Twice the same index, or one out of range: a program wrote it, and nothing is lost by leaving it.
                let _ = self.buffers.free(i);
            }
        }
    }

    /// Makes a `netmap_if` with the given ring offsets (relative to the region, `None` for a ring that is not bound), in
    /// netmap's order: NIC tx, host tx, NIC rx, host rx.
    pub fn new_if(&mut self, name: &str, counts: [u32; 4], rings: &[Option<u64>]) -> Result<u64, Failure> {
        let len = (size_of::<IfHeader>() + rings.len() * 8) as u64;
        let offset = self.objects.alloc(len).ok_or_else(|| self.short_of(1))?;
        let failed = |e: crate::shm::OutOfRange| Condition::System.says(e.to_string());
        let head = self.memory.object::<IfHeader>(offset).map_err(failed)?;
        let mut bytes = [0u8; 16];
        let n = name.len().min(15);
        bytes[..n].copy_from_slice(&name.as_bytes()[..n]);
        for (cell, word) in head.ni_name.iter().zip(bytes.chunks_exact(4)) {
            cell.store(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]), Relaxed);
        }
        head.ni_version.store(crate::abi::NETMAP_API.into(), Relaxed);
        head.ni_flags.store(if self.id > 1 { NI_PRIV_MEM } else { 0 }, Relaxed);
        head.ni_tx_rings.store(counts[0], Relaxed);
        head.ni_host_tx_rings.store(counts[1], Relaxed);
        head.ni_rx_rings.store(counts[2], Relaxed);
        head.ni_host_rx_rings.store(counts[3], Relaxed);
        head.ni_bufs_head.store(0, Relaxed);
        let table = offset + size_of::<IfHeader>() as u64;
        let cells = self.memory.slice::<crate::sync::AtomicI64>(table, rings.len()).map_err(failed)?;
        for (cell, ring) in cells.iter().zip(rings) {
            cell.store(ring.map_or(0, |r| r as i64 - offset as i64), Relaxed);
        }
        self.ifs.insert(offset, 0);
        Ok(offset)
    }

    /// Takes up to `want` extra buffers, chained through their first word from `ni_bufs_head`; returns how many.
    pub fn lend_extra(&mut self, nifp: u64, want: u32) -> u32 {
        let Ok(head) = self.memory.object::<IfHeader>(nifp) else { return 0 };
        let (mut n, mut next) = (0, 0u32);
        while n < want {
            let Some(i) = self.buffers.alloc() else { break };
            // In range by construction.
            let _ = self.memory.write(self.layout.buffer(i), &next.to_ne_bytes());
            next = i;
            n += 1;
        }
        head.ni_bufs_head.store(next, Relaxed);
        *self.ifs.entry(nifp).or_default() += n;
        n
    }

    /// Frees a `netmap_if` and the extra buffers that hang on it now, however many the program left there.
    pub fn free_if(&mut self, nifp: u64, kept: &HashSet<u32>) {
        let chain = self.extra_list(nifp);
        self.ifs.remove(&nifp);
        let elsewhere: HashSet<u32> = self.extra_lists().into_iter().chain(kept.iter().copied()).collect();
        self.give_back(chain, &elsewhere);
        self.objects.free(nifp);
    }

    /// The extra buffers that hang on a `netmap_if` now, as far as the list makes sense: its program writes it.
    fn extra_list(&self, nifp: u64) -> Vec<u32> {
        let (mut chain, mut seen) = (Vec::new(), HashSet::new());
        let mut i = self.memory.object::<IfHeader>(nifp).map_or(0, |head| head.ni_bufs_head.load(Relaxed));
        while (NETMAP_FIRST_BUF..self.layout.buffers).contains(&i) && seen.insert(i) {
            chain.push(i);
            let mut word = [0; 4];
            let _ = self.memory.read(self.layout.buffer(i), &mut word);
            i = u32::from_ne_bytes(word);
        }
        chain
    }

    /// The same of all of them.
    pub fn extra_lists(&self) -> Vec<u32> {
        let lending = self.ifs.iter().filter(|(_, lent)| **lent > 0);
        lending.flat_map(|(&nifp, _)| self.extra_list(nifp)).collect()
    }

    /// Extra buffers that were lent to registrations that still exist.
    pub fn lent(&self) -> u32 {
        self.ifs.values().sum()
    }

    /// Buffers that did not come back: those that are out, less those that live rings and registrations were given. Their
    /// programs had them outside of any slot when they died.
    pub fn owed(&self) -> u32 {
        let given = self.filled.values().sum::<u32>() + self.lent();
        (self.usable() - self.available()).saturating_sub(given)
    }

    /// Which buffers are free, by index; the first two, which nobody gets, count as such.
    pub fn free_map(&self) -> Vec<bool> {
        self.buffers.free_map()
    }
}
