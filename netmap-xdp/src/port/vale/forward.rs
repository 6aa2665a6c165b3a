//! Forwarding: a batch of the sender's slots, sorted by destination ring, each destination served once.
//!
//! A batch is walked twice: `gather` reads slots and headers and finds destinations, `fill` copies. Nearly every packet is
//! one slot with nothing special about it, and takes the short way through both; a packet that follows another of the same
//! addresses costs no look into the switch. Both ask for the lines of later packets in time, for buffers are 2048 bytes
//! apart, so that few of their first lines fit into the caches that are near.
//!
//! The working memory belongs to one transmit ring and lives in the sender's process alone, so what is in it is true;
//! everything read from the ring, the switch or a destination is checked where it is used.

use super::switch::{BROADCAST, Head, MAX_PORTS, MAX_RINGS, NOWHERE, Switch, addresses};
use super::{Destination, Directory, Inlet, Seat, lease};
use crate::abi::{
    NETMAP_MAX_FRAGS, NS_BUF_CHANGED, NS_INDIRECT, NS_MOREFRAG, NS_NO_LEARN, NS_PORT_MASK, NS_PORT_SHIFT,
};
use crate::index::next_slot;
use crate::ring::{Drop, Kring, SlotView};
use crate::shm::BUF_SIZE;
use crate::sync::Ordering::*;
use crate::sys::{OwnProcess, UserMem};
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
    /// The buffer; with `NS_INDIRECT` the address of the data in the sender's memory.
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
}

const NOTHING: Queue = Queue { head: NIL, tail: NIL, slots: 0, packets: 0 };

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
    queues: Vec<Queue>,
    /// Queues that are not empty, but for that of what goes everywhere.
    waiting: Vec<u16>,
    mates: Vec<Option<Mate>>,
    indirect: Box<[u8; BUF_SIZE as usize]>,
}

impl Scratch {
    pub(super) fn new() -> Scratch {
        Scratch {
            frames: Box::new([Frame::default(); MOST]),
            used: 0,
            queues: vec![NOTHING; FLOOD + 1],
            waiting: Vec::with_capacity(FLOOD),
            mates: (0..MAX_PORTS).map(|_| None).collect(),
            indirect: Box::new([0; BUF_SIZE as usize]),
        }
    }

    /// Takes packets from slot `i` on and finds their destinations; returns the slot after the last of them.
    pub(super) fn gather(&mut self, k: &Kring, seat: &Seat, mut i: u32, head: u32) -> u32 {
        let n = k.num_slots();
        let header = seat.switch.port(seat.port).header.load(Relaxed).min(12) as u16;
        let ring = usize::from(k.id()) % RINGS;
        let (slots, buffers) = (k.slots(), k.packets());
        let mut known = Known::new(seat);
        self.used = 0;
        let (mut packets, mut bytes) = (0, 0);
        while i != head && self.used < BATCH {
            // Cursors of a ring that another process scribbled; nothing is left to be done with it.
            let Some(slot) = slots.get(i as usize) else { return head };
            if let Some(later) = slots.get(i as usize + AHEAD) {
                buffers.prefetch(later.buf_idx.load(Relaxed));
            }
            let (flags, len, idx) = (slot.flags.load(Relaxed), slot.len.load(Relaxed), slot.buf_idx.load(Relaxed));
            if flags & SPECIAL == 0
                && u32::from(len) <= BUF_SIZE
                && len >= header + ETH
                && let Some(bytes_of) = buffers.head(idx, header)
            {
                if flags & NS_BUF_CHANGED != 0 {
                    slot.flags.store(flags & !NS_BUF_CHANGED, Relaxed);
                }
                let to = known.destination(&bytes_of, true);
                let frame = Frame { at: idx.into(), len, flags: 0, next: NIL, frags: 1 };
                let first = self.used;
                if let Some(place) = self.frames.get_mut(first) {
                    *place = frame;
                    self.used += 1;
                }
                self.enqueue(seat, first, to, ring);
                bytes += u64::from(len);
                i = next_slot(i, n);
            } else {
                let (next, more) = self.gather_any(k, &mut known, i, head, header, ring);
                bytes += more;
                i = next;
            }
            packets += 1;
        }
        k.count(packets, bytes);
        i
    }

    /// The same for the one packet at slot `i`, whatever is special about it; returns its bytes too.
    #[cold]
    fn gather_any(
        &mut self,
        k: &Kring,
        known: &mut Known<'_>,
        mut i: u32,
        head: u32,
        header: u16,
        ring: usize,
    ) -> (u32, u64) {
        let (n, first) = (k.num_slots(), self.used);
        let (mut whole, mut bytes) = (true, 0);
        // No chain is longer than the ring, whatever the cursors say.
        for _ in 0..n {
            let mut frame = take(k, i);
            i = next_slot(i, n);
            let more = frame.flags & NS_MOREFRAG != 0 && i != head;
            if !more {
                // An incomplete chain at the end is sent as far as it goes, as the original does.
                frame.flags &= !NS_MOREFRAG;
            }
            bytes += u64::from(frame.len);
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
        if whole {
            let to = self.destination(k, known, first, header);
            self.enqueue(known.seat, first, to, ring);
        } else {
            k.dropped(Drop::BadChain);
            self.used = first;
        }
        (i, bytes)
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

    #[inline]
    fn enqueue(&mut self, seat: &Seat, first: usize, to: u8, ring: usize) {
        let q = match to {
            BROADCAST => FLOOD,
            to if to == seat.port || to > BROADCAST => return,
            to => usize::from(to) * RINGS + ring,
        };
        let frags = (self.used - first) as u16;
        let Some(queue) = self.queues.get_mut(q) else { return };
        if queue.head == NIL {
            queue.head = first as u16;
            if q != FLOOD {
                self.waiting.push(q as u16);
            }
        } else if let Some(before) = self.frames.get_mut(usize::from(queue.tail)) {
            before.next = first as u16;
        }
        queue.tail = first as u16;
        queue.slots += u32::from(frags);
        queue.packets += 1;
        if frags != 1 {
            self.frames[first].frags = frags;
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
        let mate = known.unwrap_or_else(|| Mate { generation, to: directory.resolve(seat.id, port, generation) });
        if let Some(Some(inlet)) = mate.to.as_ref().and_then(|to| to.rings.get(ring as usize)) {
            let headers = [seat.switch.port(seat.port), entry].map(|p| p.header.load(Relaxed).min(12) as u16);
            self.fill(k, inlet, self.queues[q], flood, headers);
        }
        self.mates[usize::from(port)] = Some(mate);
    }

    fn fill(&mut self, k: &Kring, inlet: &Inlet, own: Queue, flood: Queue, headers: [u16; 2]) {
        // Whoever syncs holds the ring's lock, with its own number in it.
        let client = k.state().lock.load(Relaxed).clamp(1, i32::MAX as u32);
        let to = &inlet.kring;
        let (want, packets) = (own.slots + flood.slots, own.packets + flood.packets);
        let Some(lease) = lease::reserve(to, want, packets, client) else { return };
        let n = to.num_slots();
        let (slots, from, into) = (to.slots(), k.packets(), to.packets());
        let same_headers = headers[0] == headers[1];
        let (mut own, mut flood) = (own.head, flood.head);
        let (mut j, mut used, mut done) = (lease.start, 0, 0);
        for ahead in slots.iter().skip(lease.start as usize).take(AHEAD.min(lease.slots as usize)) {
            into.prefetch_to_write(ahead.buf_idx.load(Relaxed));
        }
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
            if same_headers && frame.frags == 1 && frame.flags & NS_INDIRECT == 0 {
                let Some(slot) = slots.get(j as usize) else { break };
                if let Some(later) = slots.get(j as usize + AHEAD) {
                    into.prefetch_to_write(later.buf_idx.load(Relaxed));
                }
                if let Some(next) = self.frames.get(usize::from(own.min(flood))) {
                    from.prefetch(next.at as u32);
                }
                let good = from.copy(frame.at as u32, into, slot.buf_idx.load(Relaxed), frame.len);
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
        if lease::report(to, lease, used, packets - done, client) {
            inlet.wake.rouse(to);
        }
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
            let len = usize::from(frame.len) + before.len();
            let good = len <= BUF_SIZE as usize
                && to.buffer(slot.buf_idx.load(Relaxed)).is_some_and(|at| {
                    let data = at + before.len() as u64;
                    to.region().write(at, before).is_ok() && self.copy_any(k, &frame, skip, to, data)
                });
            if !good {
                k.dropped(if len > BUF_SIZE as usize { Drop::TooLong } else { Drop::BadBuffer });
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
            let from = k.buffer(frame.at as u32).map(|from| from + u64::from(skip));
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
    if u32::from(len) > BUF_SIZE {
        return empty(k, Drop::TooLong);
    }
    let at = if indirect { slot.ptr.load(Relaxed) } else { idx.into() };
    Frame { at, len, flags, next: NIL, frags: 1 }
}

#[cold]
fn empty(k: &Kring, why: Drop) -> Frame {
    k.dropped(why);
    Frame { at: 0, len: 0, flags: 0, next: NIL, frags: 1 }
}

/// The bytes of a frame from `skip` on, as far as there are any.
fn read(k: &Kring, frame: &Frame, skip: u16) -> Option<Head> {
    if frame.flags & NS_INDIRECT == 0 {
        return k.packets().head(frame.at as u32, skip);
    }
    let mut head: Head = [0; 16];
    let n = usize::from(frame.len.saturating_sub(skip)).min(head.len());
    OwnProcess.read(frame.at.wrapping_add(skip.into()), &mut head[..n]).ok()?;
    Some(head)
}

const _: () = assert!(NS_PORT_MASK >> NS_PORT_SHIFT == 0xff && MOST < NIL as usize);
