//! The handle that a sync works on: a ring in the region and its private state.
//!
//! ```text
//! transmit:  hwcur .. head   handed over by the program, not yet taken
//!            hwtail+1 .. hwcur   taken, not yet sent: `held[slot]` names what is under way, 0 once it came back
//! receive:   hwcur .. hwtail received, the program's
//!            hwtail .. hwcur   the kernel's: `held[slot]` names the buffer that it may write
//! ```
//! `held` is private, so the buffers that are out of the program's hands are known whatever the program writes.
//!
//! A NIC's receive ring has more buffers than slots. Those that are neither the program's nor the kernel's are spare, and
//! step in for those that the program keeps: the kernel's are `held[hwtail .. filled)`, which goes on past hwcur, since what
//! the kernel will put into a slot need not wait until the program has done with what is in it.

mod handover;
mod spares;

use super::cursor::{BadCursor, Cursors, rx_cursors, tx_cursors};
use super::layout::{KringState, REASONS, RingHeader, SlotView};
use crate::index::{distance, next_slot, prev_slot, run};
use crate::shm::{Memory, OutOfRange, Packets, Ref, Slice};
use crate::sync::{AtomicU32, AtomicU64, Ordering::*};
use std::mem::size_of;
use std::sync::Arc;

/// Entry of `held` for a slot that holds nothing of the kernel's.
pub const NO_BUFFER: u32 = 0;

/// Direction of a ring; the value is that of `netmap_ring.dir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dir {
    /// Transmit.
    Tx = 0,
    /// Receive.
    Rx = 1,
}

/// Why a packet was dropped in this layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// The slot's `buf_idx` names no buffer.
    BadBuffer = 0,
    /// Shorter than an Ethernet header.
    TooShort = 1,
    /// Longer than the port can send in one frame.
    TooLong = 2,
    /// Too many fragments, or a chain that does not end.
    BadChain = 3,
    /// The kernel's ring returned a buffer that it did not have.
    Foreign = 4,
    /// The host stack did not take it.
    Refused = 5,
    /// Transparent forwarding found the transmit rings full.
    NoRoom = 6,
    /// The receiver's ring was full, or too busy.
    Full = 7,
    /// VALE: the packet asks for an offload (checksum, segmentation) and its receiver knows no virtio-net headers.
    Offload = 8,
}

impl Drop {
    /// Every reason, with the name that tools print.
    pub const ALL: [(Drop, &'static str); 9] = [
        (Drop::BadBuffer, "bad-buffer"),
        (Drop::TooShort, "too-short"),
        (Drop::TooLong, "too-long"),
        (Drop::BadChain, "bad-chain"),
        (Drop::Foreign, "foreign-frame"),
        (Drop::Refused, "host-refused"),
        (Drop::NoRoom, "no-room"),
        (Drop::Full, "ring-full"),
        (Drop::Offload, "offload"),
    ];
}

/// Where a ring lies in its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPlace {
    /// Offset of the `netmap_ring`.
    pub offset: u64,
    /// Its slots.
    pub slots: u32,
    /// Offset of buffer 0 in the region.
    pub buffers_at: u64,
    /// Buffers of the region.
    pub buffers: u32,
    /// Bytes of each.
    pub buf_size: u32,
    /// Direction.
    pub dir: Dir,
    /// Index of the ring in its direction.
    pub id: u16,
}

/// Where its private state lies in the port's memfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KringPlace {
    /// Offset of the [`KringState`]; `held` follows it, then the spare buffers.
    pub offset: u64,
    /// How many spare buffers there is room for: none but in a NIC's receive rings, where all can be spare for a moment.
    pub room: u32,
}

impl KringPlace {
    /// Bytes that a ring of `slots` slots takes, with room for so many spare buffers.
    pub fn size(slots: u32, room: u32) -> u64 {
        (size_of::<KringState>() as u64 + (u64::from(slots) + u64::from(room)) * 4).next_multiple_of(64)
    }
}

/// A ring and its private state.
pub struct Kring {
    ring: Ref<RingHeader>,
    slots: Slice<SlotView>,
    state: Ref<KringState>,
    held: Slice<AtomicU32>,
    spares: Slice<AtomicU32>,
    packets: Packets,
    place: RingPlace,
}

/// The right to sync a ring, given back when dropped.
pub struct LockGuard<'a>(&'a AtomicU32);

impl std::ops::Drop for LockGuard<'_> {
    fn drop(&mut self) {
        // SYNC ring-lock: pairs with the acquire in `try_lock`; what this sync wrote is seen by the next holder.
        self.0.store(0, Release);
    }
}

/// What comes back of a transmit ring: see [`Kring::returns`].
pub struct Returns<'a> {
    k: &'a Kring,
    /// Of slots that wait, the oldest first, as far as they lie side by side.
    waiting: &'a [AtomicU32],
    /// Behind those.
    to: u32,
    /// Behind the last that waits.
    end: u32,
}

impl<'a> Returns<'a> {
    /// Marks the slots that sent `whats` as done; of several that sent the same, the oldest one. Completions in order cost
    /// one step each; an unknown one is nothing.
    #[inline]
    pub fn take(&mut self, whats: impl Iterator<Item = u32>) {
        // In a register, and not in `self`, to which the rare case has a reference.
        let mut waiting = self.waiting;
        for what in whats {
            match waiting.split_first() {
                Some((cell, rest)) if cell.load(Relaxed) == what => {
                    cell.store(NO_BUFFER, Relaxed);
                    waiting = rest;
                }
                _ => waiting = self.take_other(waiting, what),
            }
        }
        self.waiting = waiting;
    }

    /// One that `waiting`, what is left of the run, does not begin with; returns what is left then.
    #[cold]
    fn take_other(&mut self, waiting: &'a [AtomicU32], what: u32) -> &'a [AtomicU32] {
        if waiting.is_empty() && self.to != self.end {
            // From the start of the ring.
            (self.waiting, self.to) = (run(&self.k.held, 0, self.end), self.end);
            self.take(std::iter::once(what));
            return self.waiting;
        }
        self.k.complete_tx_out_of_order(what);
        waiting
    }

    /// Lets `tail` follow.
    #[inline]
    pub fn finish(self) {
        let last = self.to.wrapping_sub(self.waiting.len() as u32).wrapping_sub(1);
        self.k.advance_tx_tail_from(if last == u32::MAX { self.k.num_slots() - 1 } else { last });
    }
}

impl Kring {
    /// Attaches to a ring that was laid out earlier.
    pub fn attach(
        region: &Arc<Memory>,
        place: RingPlace,
        private: &Arc<Memory>,
        kplace: KringPlace,
    ) -> Result<Kring, OutOfRange> {
        let n = place.slots as usize;
        Ok(Kring {
            ring: region.object(place.offset)?,
            slots: region.slice(place.offset + size_of::<RingHeader>() as u64, n)?,
            state: private.object(kplace.offset)?,
            held: private.slice(kplace.offset + size_of::<KringState>() as u64, n)?,
            spares: private.slice(kplace.offset + (size_of::<KringState>() + n * 4) as u64, kplace.room as usize)?,
            packets: Packets::at(region, place.buffers_at, place.buffers, place.buf_size)?,
            place,
        })
    }

    /// Writes a fresh ring: the program's header, and cursors that give it all slots but one (transmit) or none (receive).
    /// Slots and `held` are the caller's to fill.
    pub fn format(&self) {
        let (r, s) = (&self.ring, &self.state);
        r.buf_ofs.store(self.place.buffers_at as i64 - self.place.offset as i64, Relaxed);
        r.num_slots.store(self.place.slots, Relaxed);
        r.nr_buf_size.store(self.place.buf_size, Relaxed);
        r.ringid.store(self.place.id, Relaxed);
        r.dir.store(self.place.dir as u16, Relaxed);
        r.flags.store(0, Relaxed);
        r.ts_sec.store(0, Relaxed);
        r.ts_usec.store(0, Relaxed);
        r.offset_mask.store(0, Relaxed);
        r.buf_align.store(0, Relaxed);
        let tail = if self.place.dir == Dir::Tx { self.place.slots - 1 } else { 0 };
        for (cell, value) in [(&s.hwcur, 0), (&s.hwtail, tail), (&s.rhead, 0), (&s.rcur, 0), (&s.rtail, tail)] {
            cell.store(value, Relaxed);
        }
        s.offset_mask.store(0, Relaxed);
        s.offset_max.store(0, Relaxed);
        s.offset_gap.store(0, Relaxed);
        for cell in [&s.packets, &s.bytes, &s.syncs, &s.reinits].into_iter().chain(&s.drops) {
            cell.store(0, Relaxed);
        }
        s.lock.store(0, Relaxed);
        s.stopped.store(0, Relaxed);
        s.pending.store(0, Relaxed);
        s.chains.store(0, Relaxed);
        s.peer_tail.store(tail, Relaxed);
        s.producer.store(0, Relaxed);
        s.lease.store(0, Relaxed);
        s.sleeping.store(0, Relaxed);
        for cell in [&s.taps, &s.shown, &s.tap_lock, &s.repair, &s.moves, &s.filled, &s.spares] {
            cell.store(0, Relaxed);
        }
        // Positions of AF_XDP rings of which nothing is known: a producer that never moved leaves the cursors where they are.
        for (at, to, now) in [(&s.handed_at, &s.handed_to, 0), (&s.received_at, &s.received_to, tail)] {
            at.store(0, Relaxed);
            to.store(now, Relaxed);
        }
        self.publish();
    }

    /// Direction.
    #[inline]
    pub fn dir(&self) -> Dir {
        self.place.dir
    }

    /// Index in its direction.
    pub fn id(&self) -> u16 {
        self.place.id
    }

    /// Slots.
    #[inline]
    pub fn num_slots(&self) -> u32 {
        self.place.slots
    }

    /// Where it lies in the region.
    pub fn place(&self) -> RingPlace {
        self.place
    }

    /// The program's header.
    #[inline]
    pub fn ring(&self) -> &RingHeader {
        &self.ring
    }

    /// The region.
    pub fn region(&self) -> &Arc<Memory> {
        self.ring.memory()
    }

    /// The private state.
    #[inline]
    pub fn state(&self) -> &KringState {
        &self.state
    }

    /// Slot `i`; below `num_slots()`.
    #[inline]
    pub fn slot(&self, i: u32) -> &SlotView {
        &self.slots[i as usize]
    }

    /// What the kernel's side holds for slot `i`; below `num_slots()`.
    #[inline]
    pub fn held(&self, i: u32) -> &AtomicU32 {
        &self.held[i as usize]
    }

    /// All slots.
    #[inline]
    pub fn slots(&self) -> &[SlotView] {
        &self.slots
    }

    /// What the kernel's side holds, slot by slot.
    #[inline]
    pub fn all_held(&self) -> &[AtomicU32] {
        &self.held
    }

    /// Bytes of a buffer: `nr_buf_size`.
    #[inline]
    pub fn buf_size(&self) -> u32 {
        self.packets.size()
    }

    /// The buffers of the region.
    #[inline]
    pub fn packets(&self) -> &Packets {
        &self.packets
    }

    /// Offset of a buffer in the region, if there is such a buffer.
    #[inline]
    pub fn buffer(&self, idx: u32) -> Option<u64> {
        self.is_buffer(idx).then(|| self.place.buffers_at + u64::from(idx) * u64::from(self.buf_size()))
    }

    /// Whether slots have offsets at all.
    #[inline]
    pub fn has_offsets(&self) -> bool {
        self.state.offset_mask.load(Relaxed) != 0
    }

    /// Where in its buffer the packet of `slot` begins: `nm_get_offset`. 0 unless somebody asked for offsets.
    #[inline]
    pub fn offset(&self, slot: &SlotView) -> u32 {
        let mask = self.state.offset_mask.load(Relaxed);
        if mask == 0 {
            return 0;
        }
        let most = self.state.offset_max.load(Relaxed).min(u64::from(self.buf_size()));
        (slot.ptr.load(Relaxed) & mask).min(most) as u32
    }

    /// Sets it and leaves the other bits alone: `nm_write_offset`.
    pub fn set_offset(&self, slot: &SlotView, offset: u64) {
        let mask = self.state.offset_mask.load(Relaxed);
        slot.ptr.store(slot.ptr.load(Relaxed) & !mask | offset & mask, Relaxed);
    }

    /// How many bytes of a received packet `slot` takes behind its offset.
    #[inline]
    pub fn rx_room(&self, slot: &SlotView) -> u32 {
        let rest = self.buf_size() - self.offset(slot);
        match self.state.offset_gap.load(Relaxed) {
            0 => rest,
            gap => gap.min(rest.into()) as u32,
        }
    }

    /// Lets slots have offsets, of at most `max`, in the bits of `mask`; `gap` is the room of a slot, see
    /// [`rx_room`](Kring::rx_room).
    pub fn allow_offsets(&self, mask: u64, max: u64, gap: u64) {
        self.state.offset_mask.store(mask, Relaxed);
        self.state.offset_max.store(max, Relaxed);
        self.state.offset_gap.store(gap, Relaxed);
        self.ring.offset_mask.store(mask, Relaxed);
    }

    /// Whether `idx` names a buffer that may be given out.
    #[inline]
    pub fn is_buffer(&self, idx: u32) -> bool {
        self.packets.has(idx)
    }

    /// Takes the lock for `client` (not 0) unless somebody has it.
    #[inline]
    pub fn try_lock(&self, client: u32) -> Option<LockGuard<'_>> {
        // SYNC ring-lock: acquire pairs with the release in `LockGuard::drop`.
        self.state.lock.compare_exchange(0, client, Acquire, Relaxed).ok()?;
        Some(LockGuard(&self.state.lock))
    }

    /// `client` is dead: frees the lock if it held it, and marks the ring for repair.
    pub fn break_lock(&self, client: u32) -> bool {
        if self.state.lock.load(Relaxed) != client || client == 0 {
            return false;
        }
        self.state.repair.store(1, Relaxed);
        // SYNC ring-lock: release, as the dead client would have done it, so that whoever gets the lock sees the mark.
        self.state.lock.compare_exchange(client, 0, Release, Relaxed).is_ok()
    }

    /// `client` is dead: frees the lock of taps if it held it.
    pub fn break_tap_lock(&self, client: u32) {
        // SYNC hold: release, as the dead client would have done it. What it was about to publish is not published.
        let _ = self.state.tap_lock.compare_exchange(client, 0, Release, Relaxed);
    }

    /// Next slot to be processed.
    #[inline]
    pub fn hwcur(&self) -> u32 {
        self.state.hwcur.load(Relaxed)
    }

    /// Sets it.
    #[inline]
    pub fn set_hwcur(&self, i: u32) {
        self.state.hwcur.store(i, Relaxed);
    }

    /// First slot of the kernel's.
    #[inline]
    pub fn hwtail(&self) -> u32 {
        self.state.hwtail.load(Relaxed)
    }

    /// Sets it.
    #[inline]
    pub fn set_hwtail(&self, i: u32) {
        self.state.hwtail.store(i, Relaxed);
    }

    /// The `head` that this sync works with.
    #[inline]
    pub fn rhead(&self) -> u32 {
        self.state.rhead.load(Relaxed)
    }

    /// Whether the last sync left something for the program: `cur` has not met `tail`.
    #[inline]
    pub fn ready(&self) -> bool {
        self.state.rcur.load(Relaxed) != self.state.rtail.load(Relaxed)
    }

    /// Packets received and not yet given back, or slots handed over and not yet taken.
    pub fn owed(&self) -> u32 {
        distance(self.hwcur(), self.ring.head.load(Relaxed) % self.place.slots, self.place.slots)
    }

    /// Reads and checks what the program wrote: `nm_txsync_prologue`, `nm_rxsync_prologue`.
    #[inline]
    pub fn begin(&self) -> Result<(), BadCursor> {
        // SYNC ring-head: acquire, so that slots filled by another thread of the program before it moved head are seen.
        let head = self.ring.head.load(Acquire);
        self.begin_at(Cursors { head, cur: self.ring.cur.load(Relaxed) })
    }

    /// The same with cursors that the program wrote elsewhere, in a CSB.
    #[inline]
    pub fn begin_at(&self, c: Cursors) -> Result<(), BadCursor> {
        let s = &self.state;
        let n = self.place.slots;
        // The private state is ours, but other processes that bound the port can reach it too.
        if [&s.hwcur, &s.hwtail, &s.rhead, &s.rtail, &s.filled].iter().any(|c| c.load(Relaxed) >= n) {
            return Err(BadCursor::Outside);
        }
        let c = match self.place.dir {
            Dir::Tx => tx_cursors(c, s.rhead.load(Relaxed), s.rtail.load(Relaxed), n)?,
            Dir::Rx => rx_cursors(c, s.hwcur.load(Relaxed), s.hwtail.load(Relaxed), n)?,
        };
        s.rhead.store(c.head, Relaxed);
        s.rcur.store(c.cur, Relaxed);
        Ok(())
    }

    /// Notes what the sync reached, for a program that reads it elsewhere: the ring's own `tail` is left alone. Returns
    /// whether it is news.
    #[inline]
    pub fn finish_at(&self) -> bool {
        let tail = self.hwtail();
        self.state.rtail.swap(tail, Relaxed) != tail
    }

    /// Tells the program what the sync reached: `nm_sync_finalize`. Returns whether it is news.
    #[inline]
    pub fn finish(&self) -> bool {
        let (tail, s) = (self.hwtail(), &self.state);
        let moved = s.rtail.load(Relaxed) != tail;
        if moved {
            s.rtail.store(tail, Relaxed);
            s.moves.store(s.moves.load(Relaxed).wrapping_add(1), Relaxed);
        }
        // SYNC ring-tail: release, so that a thread of the program that sees the new tail sees the slots behind it.
        self.ring.tail.store(tail, Release);
        moved
    }

    /// How often a sync found something, of any one's.
    #[inline]
    pub fn moves(&self) -> u32 {
        self.state.moves.load(Relaxed)
    }

    fn publish(&self) {
        let s = &self.state;
        self.ring.head.store(s.rhead.load(Relaxed), Relaxed);
        self.ring.cur.store(s.rcur.load(Relaxed), Relaxed);
        self.finish();
    }

    /// After a bad cursor or slot: head and cur return to `hwcur`, tail to `hwtail`, and slots that the program spoilt
    /// become harmless; `netmap_ring_reinit`.
    ///
    /// The module resets the cursors only when they leave the ring, and adopts them otherwise, however wrong; here
    /// nothing of what the program wrote is adopted.
    #[cold]
    pub fn reinit(&self) {
        let s = &self.state;
        let n = self.place.slots;
        let (hwcur, hwtail) = (self.hwcur() % n, self.hwtail() % n);
        for i in 0..n {
            let slot = self.slot(i);
            if !self.is_buffer(slot.buf_idx.load(Relaxed)) {
                slot.buf_idx.store(0, Relaxed);
                slot.len.store(0, Relaxed);
            } else if u32::from(slot.len.load(Relaxed)) > self.buf_size() {
                slot.len.store(0, Relaxed);
            }
        }
        s.rhead.store(hwcur, Relaxed);
        s.rcur.store(hwcur, Relaxed);
        s.hwcur.store(hwcur, Relaxed);
        s.hwtail.store(hwtail, Relaxed);
        s.shown.store(hwcur, Relaxed);
        bump(&s.reinits, 1);
        self.publish();
    }

    /// Sets the ring's time stamp.
    #[inline]
    pub fn stamp(&self, since_epoch: std::time::Duration) {
        self.ring.ts_sec.store(since_epoch.as_secs() as i64, Relaxed);
        self.ring.ts_usec.store(i64::from(since_epoch.subsec_micros()), Relaxed);
    }

    /// Transmit: counts what was taken, and remembers it.
    #[inline]
    pub fn count(&self, packets: u64, bytes: u64) {
        bump(&self.state.packets, packets);
        bump(&self.state.bytes, bytes);
    }

    /// Counts a sync.
    #[inline]
    pub fn count_sync(&self) {
        bump(&self.state.syncs, 1);
    }

    /// Counts a drop.
    #[cold]
    pub fn dropped(&self, why: Drop) {
        self.dropped_many(why, 1);
    }

    /// Counts several drops. Whoever drops counts: with switches that is any sender, whatever lock it holds.
    #[cold]
    pub fn dropped_many(&self, why: Drop, n: u64) {
        self.state.drops[why as usize].fetch_add(n, Relaxed);
    }

    /// Drops by reason.
    pub fn drops(&self) -> [(Drop, &'static str, u64); Drop::ALL.len()] {
        const _: () = assert!(Drop::ALL.len() <= REASONS);
        Drop::ALL.map(|(why, name)| (why, name, self.state.drops[why as usize].load(Relaxed)))
    }

    /// Transmit: lets `tail` follow over the slots that came back.
    #[inline]
    pub fn advance_tx_tail(&self) {
        self.advance_tx_tail_from(self.hwtail());
    }

    /// The same where it is known of the slots up to `tail` that they came back.
    #[inline]
    fn advance_tx_tail_from(&self, mut tail: u32) {
        let (n, hwcur) = (self.place.slots, self.hwcur());
        loop {
            let i = next_slot(tail, n);
            if i == hwcur || self.held(i).load(Relaxed) != NO_BUFFER {
                break;
            }
            tail = i;
        }
        self.set_hwtail(tail);
    }

    /// Transmit: takes what comes back, slot by slot from the oldest one on.
    #[inline]
    pub fn returns(&self) -> Returns<'_> {
        let (oldest, end) = (next_slot(self.hwtail(), self.place.slots), self.hwcur());
        let to = if oldest <= end { end } else { self.place.slots };
        Returns { k: self, waiting: run(&self.held, oldest, end), to, end }
    }

    #[cold]
    fn complete_tx_out_of_order(&self, what: u32) {
        let (n, hwcur) = (self.place.slots, self.hwcur());
        let mut i = next_slot(self.hwtail(), n);
        while i != hwcur {
            if self.held(i).load(Relaxed) == what {
                self.held(i).store(NO_BUFFER, Relaxed);
                return;
            }
            i = next_slot(i, n);
        }
    }

    /// Receive: takes buffer `idx`, which the kernel returned, for slot `at`, the next to be filled. The kernel returns
    /// buffers in the order it got them, or nearly so; a buffer that belongs to a later slot changes places.
    #[inline]
    pub fn take_rx(&self, at: u32, idx: u32) -> bool {
        if self.held(at).load(Relaxed) == idx {
            self.held(at).store(NO_BUFFER, Relaxed);
            return true;
        }
        self.take_rx_out_of_order(at, idx)
    }

    #[cold]
    fn take_rx_out_of_order(&self, at: u32, idx: u32) -> bool {
        let (n, filled) = (self.place.slots, self.filled());
        let mut i = next_slot(at, n);
        while i != filled && i != at {
            if self.held(i).load(Relaxed) == idx {
                self.held(i).store(self.held(at).load(Relaxed), Relaxed);
                self.held(at).store(NO_BUFFER, Relaxed);
                return true;
            }
            i = next_slot(i, n);
        }
        false
    }

    /// Every buffer of this ring: the kernel's by `held`, the program's by its slots. A slot that the program spoilt
    /// yields nothing. For teardown and for tests that count buffers.
    pub fn buffers(&self) -> Vec<u32> {
        let n = self.place.slots;
        if !self.spares.is_empty() {
            let slots = self.span(self.hwcur(), self.hwtail()).map(|i| self.slot(i).buf_idx.load(Relaxed));
            let held = self.span(self.hwtail(), self.filled()).map(|i| self.held(i).load(Relaxed));
            let spare = self.spares.iter().take(self.spare() as usize).map(|cell| cell.load(Relaxed));
            return slots.chain(held).chain(spare).filter(|&idx| self.is_buffer(idx)).collect();
        }
        let mut all = Vec::with_capacity(n as usize);
        for i in 0..n {
            let kernels = match self.place.dir {
                Dir::Rx => distance(self.hwcur(), i, n) >= distance(self.hwcur(), self.hwtail(), n),
                // Transmitted buffers stay named by their slots.
                Dir::Tx => false,
            };
            let idx = if kernels { self.held(i).load(Relaxed) } else { self.slot(i).buf_idx.load(Relaxed) };
            if self.is_buffer(idx) {
                all.push(idx);
            }
        }
        all
    }

    /// The buffers that the slots name, of a ring all of whose buffers stay there. A slot that the program spoilt yields
    /// nothing.
    pub fn slot_buffers(&self) -> Vec<u32> {
        let slots = self.slots.iter().map(|slot| slot.buf_idx.load(Relaxed));
        slots.filter(|&i| self.is_buffer(i)).collect()
    }

    /// Slots from `from` to before `to`.
    fn span(&self, from: u32, to: u32) -> impl Iterator<Item = u32> {
        let n = self.place.slots;
        (0..distance(from % n, to % n, n)).map(move |k| (from % n + k) % n)
    }

    /// Transmit: how many slots wait for a completion.
    pub fn under_way(&self) -> u32 {
        let (n, hwcur) = (self.place.slots, self.hwcur());
        let first = next_slot(self.hwtail() % n, n);
        let slots = (0..distance(first, hwcur % n, n)).map(|k| (first + k) % n);
        slots.filter(|&i| self.held(i).load(Relaxed) != NO_BUFFER).count() as u32
    }

    /// The last slot that may be filled in a receive ring.
    #[inline]
    pub fn rx_stop(&self) -> u32 {
        prev_slot(self.hwcur(), self.place.slots)
    }
}

/// Adds to a counter that only the holder of the ring's lock writes: no locked instruction.
#[inline]
fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}
