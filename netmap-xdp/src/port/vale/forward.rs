//! Forwarding: a batch of the sender's slots, sorted by destination ring, each destination served once.
//!
//! A batch is walked twice: `gather` reads slots and headers and finds destinations, `fill` copies. Nearly every packet is
//! one slot with nothing special about it, and takes the short way through both; a packet that follows another of the same
//! addresses costs no look into the switch. Both ask for the lines of later packets in time, for buffers are far
//! apart, so that few of their first lines fit into the caches that are near.
//!
//! The working memory belongs to one transmit ring and lives in the sender's process alone, so what is in it is true;
//! everything read from the ring, the switch or a destination is checked where it is used.

use super::lease::{self, Lease};
use super::switch::{BROADCAST, Head, MAX_PORTS, MAX_RINGS, NOWHERE, Switch, addresses};
use super::{Destination, Directory, Inlet, Seat};
use crate::abi::{
    NETMAP_MAX_FRAGS, NS_BUF_CHANGED, NS_INDIRECT, NS_MOREFRAG, NS_NO_LEARN, NS_PORT_MASK, NS_PORT_SHIFT,
};
use crate::index::next_slot;
use crate::ring::{Drop, Kring, SlotView};
use crate::shm::Patience;
use crate::sync::Ordering::*;
use crate::sys::{BUF_SIZES, OwnProcess, UserMem};
use std::sync::Arc;

/// Slots in a batch: `NM_BDG_BATCH`; the last packet may go beyond.
const BATCH: usize = 1024;
/// Ends a list.
const NIL: u16 = u16::MAX;
/// Queues of a port.
const RINGS: usize = MAX_RINGS as usize;
/// The queue of what goes everywhere.
const FLOOD: usize = MAX_PORTS * RINGS;
/// How many packets ahead buffers are asked for: in time for another processor to give them up.
const AHEAD: usize = 8;
/// What makes a slot special: it is part of a chain, or its sender says how it is to be switched.
const SPECIAL: u16 = NS_INDIRECT | NS_MOREFRAG | NS_NO_LEARN | NS_PORT_MASK;
/// Length of the Ethernet header.
const ETH: u16 = 14;

/// A slot of the batch.
#[derive(Clone, Copy, Default)]
struct Frame {
    /// The buffer, and above 32 bits the offset in it; with `NS_INDIRECT` the address of the data in the sender's memory.
    at: u64,
    len: u16,
    flags: u16,
    /// First slot of the next packet for the same destination.
    next: u16,
    /// Slots of the packet that starts here.
    frags: u16,
}

/// Most slots in a batch.
const MOST: usize = BATCH + NETMAP_MAX_FRAGS;

/// Packets for one destination ring.
#[derive(Clone, Copy)]
struct Queue {
    head: u16,
    tail: u16,
    slots: u32,
    packets: u32,
    /// Nothing is special about any of them.
    plain: bool,
}

const NOTHING: Queue = Queue { head: NIL, tail: NIL, slots: 0, packets: 0, plain: false };

/// What was taken from the ring.
#[derive(Default)]
struct Total {
    packets: u64,
    bytes: u64,
}

/// What a port looked like when it was last asked for.
struct Mate {
    generation: u32,
    to: Option<Arc<Destination>>,
}

/// Working memory of a transmit ring.
pub(super) struct Scratch {
    frames: Box<[Frame; MOST]>,
    /// How many there are.
    used: usize,
    /// Of the first packet of each train of plain packets: how many they are.
    trains: Box<[u16; MOST]>,
    queues: Vec<Queue>,
    /// Queues that are not empty, but for that of what goes everywhere.
    waiting: Vec<u16>,
    mates: Vec<Option<Mate>>,
    /// With each port.
    patience: Vec<Patience>,
    indirect: Box<[u8]>,
}

impl Scratch {
    pub(super) fn new() -> Scratch {
        Scratch {
            frames: Box::new([Frame::default(); MOST]),
            used: 0,
            trains: Box::new([0; MOST]),
            queues: vec![NOTHING; FLOOD + 1],
            waiting: Vec::with_capacity(FLOOD),
            mates: (0..MAX_PORTS).map(|_| None).collect(),
            patience: (0..MAX_PORTS).map(|_| Patience::lasting()).collect(),
            indirect: vec![0; *BUF_SIZES.end() as usize].into_boxed_slice(),
        }
    }

    /// Takes packets from slot `i` on and finds their destinations; returns the slot after the last of them.
    pub(super) fn gather(&mut self, k: &Kring, seat: &Seat, mut i: u32, head: u32) -> u32 {
        let header = seat.switch.port(seat.port).header.load(Relaxed).min(12) as u16;
        let ring = usize::from(k.id()) % RINGS;
        let mut known = Known::new(seat);
        let trains = !k.has_offsets();
        self.used = 0;
        let mut total = Total::default();
        while i != head && self.used < BATCH {
            if i >= k.num_slots() {
                // Another process scribbled the cursors; nothing is left to be done with this ring.
                i = head;
                break;
            }
            let first = self.used;
            if let Some(start) = plain(k, i, header).filter(|_| trains) {
                let to = known.destination(&start, true);
                i = self.train(k, header, &start, i, head, &mut total);
                self.enqueue(seat, first, to, ring, true);
            } else {
                i = self.gather_any(k, &mut known, i, head, header, ring, &mut total);
            }
        }
        k.count(total.packets, total.bytes);
        i
    }

    /// Takes plain packets from slot `i` on as long as their addresses are those of `start`, which the first one has.
    #[inline]
    fn train(&mut self, k: &Kring, header: u16, start: &Head, i: u32, head: u32, total: &mut Total) -> u32 {
        let end = if head > i { head } else { k.num_slots() };
        let (slots, buffers, first) = (k.slots(), k.packets(), self.used);
        let Some(run) = slots.get(i as usize..end as usize) else { return head };
        let pattern = pattern(start);
        let (mut taken, mut bytes) = (0, 0);
        // A length less than the shortest wraps around.
        let most = buffers.size().min(u16::MAX.into()) as u16;
        let (shortest, span) = (header + ETH, most - (header + ETH));
        // The last place of the batch is a chain's; `next` of the last packet is set by whoever links the train.
        let frames = self.frames.get_mut(first..BATCH).unwrap_or_default();
        let mut goes_along = |slot: &SlotView, frame: &mut Frame| {
            let (flags, len, idx) = (slot.flags.load(Relaxed), slot.len.load(Relaxed), slot.buf_idx.load(Relaxed));
            if flags & SPECIAL != 0 || len.wrapping_sub(shortest) > span {
                return false;
            }
            let Some(head) = buffers.head(idx, header) else { return false };
            // The first one may have changed since it was looked at, but its way is known; it goes with the train.
            if self::pattern(&head) != pattern && taken > 0 {
                return false;
            }
            if flags & NS_BUF_CHANGED != 0 {
                slot.flags.store(flags & !NS_BUF_CHANGED, Relaxed);
            }
            taken += 1;
            bytes += u64::from(len);
            *frame = Frame { at: idx.into(), len, flags: 0, next: (first + taken) as u16, frags: 1 };
            true
        };
        // As long as there are slots to look ahead to, then the rest.
        let later = slots.get(i as usize + AHEAD..).unwrap_or_default();
        let ahead = later.len().min(run.len()).min(frames.len());
        let ((run, last), (frames, last_frames)) = (run.split_at(ahead), frames.split_at_mut(ahead));
        let whole = run.iter().zip(frames).zip(later).all(|((slot, frame), later)| {
            buffers.prefetch(later.buf_idx.load(Relaxed));
            goes_along(slot, frame)
        });
        if whole {
            last.iter().zip(last_frames).all(|(slot, frame)| goes_along(slot, frame));
        }
        if taken == 0 {
            // It changed into something else under our hands. What is not there cannot be sent.
            k.dropped(Drop::BadBuffer);
            return next_slot(i, k.num_slots());
        }
        self.used = first + taken;
        total.packets += taken as u64;
        total.bytes += bytes;
        let next = i + taken as u32;
        if next == k.num_slots() { 0 } else { next }
    }

    /// Takes the one packet at slot `i`, whatever is special about it.
    #[cold]
    #[expect(clippy::too_many_arguments, reason = "the rest of a loop, kept out of the way of plain packets")]
    fn gather_any(
        &mut self,
        k: &Kring,
        known: &mut Known<'_>,
        mut i: u32,
        head: u32,
        header: u16,
        ring: usize,
        total: &mut Total,
    ) -> u32 {
        let (n, first) = (k.num_slots(), self.used);
        let mut whole = true;
        // No chain is longer than the ring, whatever the cursors say.
        for _ in 0..n {
            let mut frame = take(k, i);
            i = next_slot(i, n);
            let more = frame.flags & NS_MOREFRAG != 0 && i != head;
            if !more {
                // An incomplete chain at the end is sent as far as it goes, as the original does.
                frame.flags &= !NS_MOREFRAG;
            }
            total.bytes += u64::from(frame.len);
            match self.frames.get_mut(self.used) {
                Some(place) if self.used - first < NETMAP_MAX_FRAGS => {
                    *place = frame;
                    self.used += 1;
                }
                _ => whole = false,
            }
            if !more {
                break;
            }
        }
        total.packets += 1;
        if whole {
            let to = self.destination(k, known, first, header);
            self.enqueue(known.seat, first, to, ring, false);
        } else {
            k.dropped(Drop::BadChain);
            self.used = first;
        }
        i
    }

    /// The port that the packet at `first` goes to.
    fn destination(&self, k: &Kring, known: &mut Known<'_>, first: usize, header: u16) -> u8 {
        let start = self.frames[first];
        // The Ethernet header follows the virtio-net header, or begins the second fragment.
        let (frame, skip) = if start.len > header {
            (start, header)
        } else if start.len == header && start.flags & NS_MOREFRAG != 0 && first + 1 < self.used {
            (self.frames[first + 1], 0)
        } else {
            k.dropped(Drop::TooShort);
            return NOWHERE;
        };
        if frame.len - skip < ETH {
            k.dropped(Drop::TooShort);
            return NOWHERE;
        }
        let Some(head) = read(k, &frame, skip) else {
            k.dropped(Drop::BadBuffer);
            return NOWHERE;
        };
        let to = known.destination(&head, start.flags & NS_NO_LEARN == 0);
        match start.flags >> NS_PORT_SHIFT {
            0 => to,
            port => port as u8,
        }
    }

    /// Links what was taken since `first`, a train of plain packets or one packet of any kind, to where it goes.
    #[inline]
    fn enqueue(&mut self, seat: &Seat, first: usize, to: u8, ring: usize, train: bool) {
        let q = match to {
            BROADCAST => FLOOD,
            to if to == seat.port || to > BROADCAST => {
                self.used = first;
                return;
            }
            to => usize::from(to) * RINGS + ring,
        };
        let slots = self.used - first;
        let (Some(queue), true) = (self.queues.get_mut(q), slots > 0) else { return };
        let last = if train { first + slots - 1 } else { first };
        self.frames[last].next = NIL;
        if queue.head == NIL {
            queue.head = first as u16;
            queue.plain = true;
            if q != FLOOD {
                self.waiting.push(q as u16);
            }
        } else if let Some(before) = self.frames.get_mut(usize::from(queue.tail)) {
            before.next = first as u16;
        }
        queue.tail = last as u16;
        queue.slots += slots as u32;
        if train {
            queue.packets += slots as u32;
            self.trains[first] = slots as u16;
        } else {
            queue.packets += 1;
            queue.plain = false;
            self.frames[first].frags = slots as u16;
        }
    }

    /// Delivers what was gathered.
    pub(super) fn flush(&mut self, k: &Kring, seat: &Seat, directory: &dyn Directory) {
        if self.queues[FLOOD].head != NIL {
            // Ring 0 of everybody else.
            for port in seat.switch.active().filter(|&p| p != seat.port && usize::from(p) < MAX_PORTS) {
                let q = usize::from(port) * RINGS;
                if self.queues[q].head == NIL {
                    self.waiting.push(q as u16);
                }
            }
        }
        for w in 0..self.waiting.len() {
            let q = usize::from(self.waiting[w]);
            let flood = if q % RINGS == 0 { self.queues[FLOOD] } else { NOTHING };
            self.deliver(k, seat, directory, q, flood);
            self.queues[q] = NOTHING;
        }
        self.queues[FLOOD] = NOTHING;
        self.waiting.clear();
    }

    /// Serves one destination ring: its own packets, and between them what goes everywhere.
    fn deliver(&mut self, k: &Kring, seat: &Seat, directory: &dyn Directory, q: usize, flood: Queue) {
        let (port, ring) = ((q / RINGS) as u8, (q % RINGS) as u32);
        let entry = seat.switch.port(port);
        let rings = entry.rings.load(Relaxed);
        let count = rings & 0xffff;
        if count == 0 {
            return;
        }
        let ring = ring % count;
        if ring < 16 && rings >> 16 & 1 << ring == 0 {
            return;
        }
        // SYNC vale-generation: acquire pairs with the releases in `Switch`: the engine has made what it announced.
        let generation = entry.generation.load(Acquire);
        let known = self.mates[usize::from(port)].take().filter(|m| m.generation == generation);
        let mut mate = known.unwrap_or_else(|| Mate { generation, to: directory.resolve(seat.id, port, generation) });
        if let Some(Some(inlet)) = mate.to.as_ref().and_then(|to| to.rings.get(ring as usize)) {
            let headers = [seat.switch.port(seat.port), entry].map(|p| p.header.load(Relaxed).min(12) as u16);
            self.fill(k, inlet, q, flood, headers);
            if inlet.stale() {
                // Its monitors changed under our hands, and those of now are to see it too. SYNC vale-generation: as above.
                let generation = entry.generation.load(Acquire);
                mate = Mate { generation, to: directory.resolve(seat.id, port, generation) };
                if let Some(Some(inlet)) = mate.to.as_ref().and_then(|to| to.rings.get(ring as usize)) {
                    inlet.announce(k.state().lock.load(Relaxed).clamp(1, i32::MAX as u32));
                }
            }
        }
        self.mates[usize::from(port)] = Some(mate);
    }

    fn fill(&mut self, k: &Kring, inlet: &Inlet, q: usize, flood: Queue, headers: [u16; 2]) {
        let (own, port) = (self.queues[q], q / RINGS);
        // Whoever syncs holds the ring's lock, with its own number in it.
        let client = k.state().lock.load(Relaxed).clamp(1, i32::MAX as u32);
        let to = &inlet.kring;
        let (want, packets) = (own.slots + flood.slots, own.packets + flood.packets);
        let Some(lease) = lease::reserve(to, want, packets, client, &self.patience[port]) else { return };
        // Packets are copied as they lie: same header, same offset.
        let alike = headers[0] == headers[1] && !k.has_offsets() && !to.has_offsets();
        let plain = alike && own.plain && flood.head == NIL && to.buf_size() >= k.buf_size();
        let (used, done) = if plain {
            self.fill_plain(k, to, lease, own.head)
        } else {
            self.fill_any(k, to, lease, own.head, flood.head, headers)
        };
        if lease::report(to, lease, used, packets - done, client, &self.patience[port]) {
            inlet.announce(client);
        }
    }

    /// Fills a reservation with the plain packets from `at` on; returns how many. Called once for many packets, and by
    /// itself it has more registers to work with.
    #[inline(never)]
    fn fill_plain(&self, k: &Kring, to: &Kring, lease: Lease, at: u16) -> (u32, u32) {
        let (slots, into) = (to.slots(), to.packets());
        let copies = k.packets().copies(into);
        let start = lease.start as usize;
        for slot in slots.iter().skip(start).take(AHEAD) {
            into.prefetch_to_write(slot.buf_idx.load(Relaxed));
        }
        let copy = |frame: &Frame, slot: &SlotView| {
            let good = copies.copy(frame.at as u32, slot.buf_idx.load(Relaxed), frame.len);
            write(slot, if good { frame.len } else { 0 }, 1 << NS_PORT_SHIFT);
        };
        let (mut at, mut j, mut used) = (usize::from(at), start, 0);
        // Train by train, and each in pieces that end with the ring.
        while let Some(&length) = self.trains.get(at).filter(|_| used < lease.slots) {
            let Some(mut train) = self.frames.get(at..at + usize::from(length)) else { break };
            at = train.last().map_or(usize::from(NIL), |last| last.next.into());
            train = &train[..train.len().min((lease.slots - used) as usize)];
            used += train.len() as u32;
            while !train.is_empty() {
                let Some(free) = slots.get(j..).filter(|free| !free.is_empty()) else { return (used, used) };
                let (piece, rest) = train.split_at(train.len().min(free.len()));
                // As long as there are slots to look ahead to, then the others.
                let later = free.get(AHEAD..).unwrap_or_default();
                let ahead = later.len().min(piece.len());
                let ((piece, last), (free, last_free)) = (piece.split_at(ahead), free.split_at(ahead));
                for ((frame, slot), later) in piece.iter().zip(free).zip(later) {
                    into.prefetch_to_write(later.buf_idx.load(Relaxed));
                    copy(frame, slot);
                }
                last.iter().zip(last_free).for_each(|(frame, slot)| copy(frame, slot));
                j = if rest.is_empty() { j + ahead + last.len() } else { 0 };
                train = rest;
            }
            if j == slots.len() {
                j = 0;
            }
        }
        (used, used)
    }

    /// Fills a reservation with packets of any kind, those of this destination and those that go everywhere in their order;
    /// returns how many slots and how many packets.
    #[cold]
    fn fill_any(&mut self, k: &Kring, to: &Kring, lease: Lease, own: u16, flood: u16, headers: [u16; 2]) -> (u32, u32) {
        let n = to.num_slots();
        let alike = headers[0] == headers[1] && !k.has_offsets() && !to.has_offsets();
        let (mut own, mut flood) = (own, flood);
        let (mut j, mut used, mut done) = (lease.start, 0, 0);
        loop {
            let first = own.min(flood);
            let Some(&frame) = self.frames.get(usize::from(first)) else { break };
            if lease.slots - used < u32::from(frame.frags) {
                break;
            }
            if own < flood {
                own = frame.next
            } else {
                flood = frame.next
            }
            done += 1;
            let frags = self.frames.get(usize::from(first)..).unwrap_or_default().iter().take(frame.frags.into());
            if frags.clone().any(|f| u32::from(f.len) > to.buf_size()) {
                // The receiver's buffers are smaller than ours.
                k.dropped(Drop::TooLong);
                continue;
            }
            if alike && frame.frags == 1 && frame.flags & NS_INDIRECT == 0 {
                let slot = to.slot(j);
                let good =
                    k.packets().copies(to.packets()).copy(frame.at as u32, slot.buf_idx.load(Relaxed), frame.len);
                write(slot, if good { frame.len } else { 0 }, 1 << NS_PORT_SHIFT);
                j = next_slot(j, n);
                used += 1;
            } else {
                let filled = self.pass(k, to, usize::from(first), j, headers);
                used += filled;
                j += filled;
                if j >= n {
                    j -= n;
                }
            }
        }
        (used, done)
    }

    /// Passes the packet at `first` on to the slots from `j`, whatever is special about it; returns how many it took.
    #[cold]
    fn pass(&mut self, k: &Kring, to: &Kring, first: usize, j: u32, headers: [u16; 2]) -> u32 {
        let n = to.num_slots();
        let frags = usize::from(self.frames[first].frags);
        let Some(added) = self.prefix(k, first, headers) else { return 0 };
        let (mut i, mut filled) = (j, 0);
        for f in 0..frags {
            let mut frame = self.frames[first + f];
            let (mut before, mut skip): (&[u8], u16) = (&[], 0);
            if f == 0 && headers[0] != headers[1] {
                before = &added[..usize::from(headers[1])];
                skip = headers[0];
                frame.len -= skip;
                if frame.len == 0 && before.is_empty() {
                    continue;
                }
            }
            let slot = to.slot(i);
            let (len, offset) = (usize::from(frame.len) + before.len(), to.offset(slot));
            let room = to.rx_room(slot) as usize;
            let good = len <= room
                && to.buffer(slot.buf_idx.load(Relaxed)).is_some_and(|at| {
                    let at = at + u64::from(offset);
                    let data = at + before.len() as u64;
                    to.region().write(at, before).is_ok() && self.copy_any(k, &frame, skip, to, data)
                });
            if !good {
                k.dropped(if len > room { Drop::TooLong } else { Drop::BadBuffer });
            }
            slot.len.store(if good { len as u16 } else { 0 }, Relaxed);
            slot.flags.store(NS_MOREFRAG, Relaxed);
            i = next_slot(i, n);
            filled += 1;
        }
        let mut i = j;
        for f in 0..filled {
            let more = if f + 1 < filled { NS_MOREFRAG } else { 0 };
            to.slot(i).flags.store((filled as u16) << NS_PORT_SHIFT | more, Relaxed);
            i = next_slot(i, n);
        }
        filled
    }

    /// The virtio-net header that the receiver gets in place of the sender's: zeroes, or its first ten bytes where both have
    /// one. `None` if the packet is lost, because it needs an offload that nobody would do.
    fn prefix(&self, k: &Kring, first: usize, [mine, theirs]: [u16; 2]) -> Option<[u8; 12]> {
        let mut header = [0; 12];
        if mine == theirs || mine == 0 {
            return Some(header);
        }
        let frame = self.frames[first];
        let Some(head) = read(k, &frame, 0).filter(|_| frame.len >= mine) else {
            k.dropped(Drop::TooShort);
            return None;
        };
        if theirs == 0 {
            // flags bit 0: the checksum is to be filled in; gso_type: the packet is to be cut.
            if head[0] & 1 != 0 || head[1] != 0 {
                k.dropped(Drop::Offload);
                return None;
            }
        } else {
            header[..10].copy_from_slice(&head[..10]);
        }
        Some(header)
    }

    /// Copies a frame, whose first `skip` bytes are left out, to offset `at` of the receiver's region.
    fn copy_any(&mut self, k: &Kring, frame: &Frame, skip: u16, to: &Kring, at: u64) -> bool {
        let len = usize::from(frame.len);
        if frame.flags & NS_INDIRECT == 0 {
            let from = k.buffer(frame.at as u32).map(|from| from + (frame.at >> 32) + u64::from(skip));
            return len == 0 || from.is_some_and(|from| k.region().copy(from, to.region(), at, len).is_ok());
        }
        let bytes = &mut self.indirect[..len];
        OwnProcess.read(frame.at.wrapping_add(skip.into()), bytes).is_ok() && to.region().write(at, bytes).is_ok()
    }
}

/// What a batch has found out already: packets come in trains of the same addresses.
struct Known<'a> {
    seat: &'a Seat,
    /// The address that was learned last.
    source: u64,
    /// The one that was looked up last, and where it is.
    destination: u64,
    port: u8,
}

impl Known<'_> {
    fn new(seat: &Seat) -> Known<'_> {
        // No address has that many bits.
        Known { seat, source: u64::MAX, destination: u64::MAX, port: NOWHERE }
    }

    /// Learns from a header, if it may be, and looks its destination up.
    #[inline]
    fn destination(&mut self, head: &Head, learn: bool) -> u8 {
        let (destination, source) = addresses(head);
        let switch: &Switch = &self.seat.switch;
        if learn && source != self.source {
            switch.learn(source, self.seat.port);
            self.source = source;
            if source == self.destination {
                self.destination = u64::MAX;
            }
        }
        if destination != self.destination {
            self.port = switch.lookup(destination);
            self.destination = destination;
        }
        self.port
    }
}

/// Writes a slot of a receive ring. What it holds already is not written again: the line then stays with the receiver too.
#[inline]
fn write(slot: &SlotView, len: u16, flags: u16) {
    if slot.len.load(Relaxed) != len || slot.flags.load(Relaxed) != flags {
        slot.len.store(len, Relaxed);
        slot.flags.store(flags, Relaxed);
    }
}

/// What tells trains apart: the two addresses.
#[inline]
fn pattern(head: &Head) -> (u64, u32) {
    let word = u64::from_le_bytes(std::array::from_fn(|i| head[i]));
    (word, u32::from_le_bytes(std::array::from_fn(|i| head[8 + i])))
}

/// The start of the packet in slot `i`, if nothing is special about it.
#[inline]
fn plain(k: &Kring, i: u32, header: u16) -> Option<Head> {
    let slot = k.slots().get(i as usize)?;
    let len = slot.len.load(Relaxed);
    let fits = slot.flags.load(Relaxed) & SPECIAL == 0 && u32::from(len) <= k.buf_size() && len >= header + ETH;
    k.packets().head(slot.buf_idx.load(Relaxed), header).filter(|_| fits)
}

/// Reads slot `i`; one that names no buffer or is too long becomes a packet without bytes.
fn take(k: &Kring, i: u32) -> Frame {
    let slot = k.slot(i);
    let (flags, len, idx) = (slot.flags.load(Relaxed), slot.len.load(Relaxed), slot.buf_idx.load(Relaxed));
    if flags & NS_BUF_CHANGED != 0 {
        slot.flags.store(flags & !NS_BUF_CHANGED, Relaxed);
    }
    let indirect = flags & NS_INDIRECT != 0;
    if !indirect && !k.is_buffer(idx) {
        return empty(k, Drop::BadBuffer);
    }
    // Of what lies in the program's memory the offset is the address.
    let offset = if indirect { 0 } else { k.offset(slot) };
    if u32::from(len) > k.buf_size() - offset {
        return empty(k, Drop::TooLong);
    }
    let at = if indirect { slot.ptr.load(Relaxed) } else { u64::from(offset) << 32 | u64::from(idx) };
    Frame { at, len, flags, next: NIL, frags: 1 }
}

#[cold]
fn empty(k: &Kring, why: Drop) -> Frame {
    k.dropped(why);
    Frame { at: 0, len: 0, flags: 0, next: NIL, frags: 1 }
}

/// The bytes of a frame from `skip` on, as far as there are any.
fn read(k: &Kring, frame: &Frame, skip: u16) -> Option<Head> {
    let offset = frame.at >> 32;
    if frame.flags & NS_INDIRECT == 0 && offset == 0 {
        return k.packets().head(frame.at as u32, skip);
    }
    let mut head: Head = [0; 16];
    let n = usize::from(frame.len.saturating_sub(skip)).min(head.len());
    if frame.flags & NS_INDIRECT == 0 {
        let at = k.buffer(frame.at as u32)? + offset + u64::from(skip);
        return k.region().read(at, &mut head[..n]).is_ok().then_some(head);
    }
    OwnProcess.read(frame.at.wrapping_add(skip.into()), &mut head[..n]).ok()?;
    Some(head)
}

const _: () = assert!(NS_PORT_MASK >> NS_PORT_SHIFT == 0xff && MOST < NIL as usize);
