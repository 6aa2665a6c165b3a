//! Forwarding: a batch of the sender's slots, sorted by destination ring, each destination served once.
//!
//! The working memory belongs to one transmit ring and lives in the sender's process alone, so what is in it is true;
//! everything read from the ring, the switch or a destination is checked where it is used.

use super::switch::{BROADCAST, Head, MAX_PORTS, MAX_RINGS, NOWHERE};
use super::{Destination, Directory, Inlet, Seat, lease};
use crate::abi::{
    NETMAP_MAX_FRAGS, NS_BUF_CHANGED, NS_INDIRECT, NS_MOREFRAG, NS_NO_LEARN, NS_PORT_MASK, NS_PORT_SHIFT,
};
use crate::index::next_slot;
use crate::ring::{Drop, Kring};
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
/// Packets shorter than this are copied in whole cache lines.
const LINES_BELOW: u16 = 1024;
/// How far ahead buffers are asked for.
const AHEAD: u32 = 4;
/// Length of the Ethernet header.
const ETH: u16 = 14;

/// A slot of the batch.
#[derive(Clone, Copy, Default)]
struct Frame {
    /// Offset of the data in the sender's region; its address in the sender's memory with `NS_INDIRECT`.
    at: u64,
    len: u16,
    flags: u16,
    /// First slot of the next packet for the same destination.
    next: u16,
    /// Slots of the packet that starts here.
    frags: u16,
}

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
    frames: Vec<Frame>,
    queues: Vec<Queue>,
    /// Queues that are not empty, but for that of what goes everywhere.
    waiting: Vec<u16>,
    mates: Vec<Option<Mate>>,
    indirect: Box<[u8; BUF_SIZE as usize]>,
}

impl Scratch {
    pub(super) fn new() -> Scratch {
        Scratch {
            frames: Vec::with_capacity(BATCH + NETMAP_MAX_FRAGS),
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
        self.frames.clear();
        let (mut packets, mut bytes) = (0, 0);
        while i != head && self.frames.len() < BATCH {
            let first = self.frames.len();
            let mut whole = true;
            loop {
                let mut frame = take(k, i);
                i = next_slot(i, n);
                let more = frame.flags & NS_MOREFRAG != 0 && i != head;
                if !more {
                    // An incomplete chain at the end is sent as far as it goes, as the original does.
                    frame.flags &= !NS_MOREFRAG;
                }
                bytes += u64::from(frame.len);
                if self.frames.len() - first < NETMAP_MAX_FRAGS {
                    self.frames.push(frame);
                } else {
                    whole = false;
                }
                if !more {
                    break;
                }
            }
            packets += 1;
            if !whole {
                k.dropped(Drop::BadChain);
                self.frames.truncate(first);
                continue;
            }
            let to = self.destination(k, seat, first, header);
            self.enqueue(seat, first, to, ring);
        }
        k.count(packets, bytes);
        i
    }

    /// The port that the packet at `first` goes to.
    #[inline]
    fn destination(&self, k: &Kring, seat: &Seat, first: usize, header: u16) -> u8 {
        let start = self.frames[first];
        // The Ethernet header follows the virtio-net header, or begins the second fragment.
        let (frame, skip) = if start.len > header {
            (start, header)
        } else if start.len == header && start.flags & NS_MOREFRAG != 0 && first + 1 < self.frames.len() {
            (self.frames[first + 1], 0)
        } else {
            k.dropped(Drop::TooShort);
            return NOWHERE;
        };
        if frame.len - skip < ETH {
            k.dropped(Drop::TooShort);
            return NOWHERE;
        }
        let mut head: Head = [0; 16];
        if !read(k, &frame, skip, &mut head) {
            k.dropped(Drop::BadBuffer);
            return NOWHERE;
        }
        if start.flags & NS_NO_LEARN == 0 {
            seat.switch.learn(&head, seat.port);
        }
        match start.flags >> NS_PORT_SHIFT {
            0 => seat.switch.lookup(&head),
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
        let frags = (self.frames.len() - first) as u16;
        let Some(queue) = self.queues.get_mut(q) else { return };
        self.frames[first].frags = frags;
        if queue.head == NIL {
            queue.head = first as u16;
            if q != FLOOD {
                self.waiting.push(q as u16);
            }
        } else {
            self.frames[usize::from(queue.tail)].next = first as u16;
        }
        queue.tail = first as u16;
        queue.slots += u32::from(frags);
        queue.packets += 1;
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
        let known = self.mates[usize::from(port)].as_ref().is_some_and(|m| m.generation == generation);
        if !known {
            self.mates[usize::from(port)] = Some(Mate { generation, to: directory.resolve(seat.id, port, generation) });
        }
        let Some(to) = self.mates[usize::from(port)].as_ref().and_then(|m| m.to.clone()) else { return };
        let Some(Some(inlet)) = to.rings.get(ring as usize) else { return };
        let headers = [seat.switch.port(seat.port), entry].map(|p| p.header.load(Relaxed).min(12) as u16);
        self.fill(k, inlet, self.queues[q], flood, headers);
        if inlet.stale() {
            // Its monitors changed under our hands, and those of now are to see it too.
            let generation = entry.generation.load(Acquire);
            let now = directory.resolve(seat.id, port, generation);
            if let Some(Some(inlet)) = now.as_ref().and_then(|to| to.rings.get(ring as usize)) {
                inlet.announce(k.state().lock.load(Relaxed).clamp(1, i32::MAX as u32));
            }
            self.mates[usize::from(port)] = Some(Mate { generation, to: now });
        }
    }

    fn fill(&mut self, k: &Kring, inlet: &Inlet, own: Queue, flood: Queue, headers: [u16; 2]) {
        // Whoever syncs holds the ring's lock, with its own number in it.
        let client = k.state().lock.load(Relaxed).clamp(1, i32::MAX as u32);
        let to = &inlet.kring;
        let (want, packets) = (own.slots + flood.slots, own.packets + flood.packets);
        let Some(lease) = lease::reserve(to, want, packets, client) else { return };
        let n = to.num_slots();
        let (mut own, mut flood) = (own.head, flood.head);
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
            if headers[0] == headers[1] && frame.frags == 1 && frame.flags & NS_INDIRECT == 0 {
                let slot = to.slot(j);
                if let Some(next) = self.frames.get(usize::from(own.min(flood))) {
                    k.region().prefetch(next.at);
                }
                let len = match to.buffer(slot.buf_idx.load(Relaxed)) {
                    Some(at) if copy(k, &frame, to, at) => frame.len,
                    _ => 0,
                };
                slot.len.store(len, Relaxed);
                slot.flags.store(1 << NS_PORT_SHIFT, Relaxed);
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
            inlet.announce(client);
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
            let mut before: &[u8] = &[];
            if f == 0 && headers[0] != headers[1] {
                before = &added[..usize::from(headers[1])];
                frame.at = frame.at.wrapping_add(u64::from(headers[0]));
                frame.len -= headers[0];
                if frame.len == 0 && before.is_empty() {
                    continue;
                }
            }
            let slot = to.slot(i);
            let len = usize::from(frame.len) + before.len();
            let good = len <= BUF_SIZE as usize
                && to.buffer(slot.buf_idx.load(Relaxed)).is_some_and(|at| {
                    let data = at + before.len() as u64;
                    to.region().write(at, before).is_ok() && self.copy_any(k, &frame, to, data)
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
        let mut head: Head = [0; 16];
        let frame = self.frames[first];
        if frame.len < mine || !read(k, &frame, 0, &mut head) {
            k.dropped(Drop::TooShort);
            return None;
        }
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

    fn copy_any(&mut self, k: &Kring, frame: &Frame, to: &Kring, at: u64) -> bool {
        let len = usize::from(frame.len);
        if frame.flags & NS_INDIRECT == 0 {
            return k.region().copy(frame.at, to.region(), at, len).is_ok();
        }
        let bytes = &mut self.indirect[..len];
        OwnProcess.read(frame.at, bytes).is_ok() && to.region().write(at, bytes).is_ok()
    }
}

/// Reads slot `i`; one that names no buffer or is too long becomes a packet without bytes.
#[inline]
fn take(k: &Kring, i: u32) -> Frame {
    let slot = k.slot(i);
    let (flags, len) = (slot.flags.load(Relaxed), slot.len.load(Relaxed));
    if flags & NS_BUF_CHANGED != 0 {
        slot.flags.store(flags & !NS_BUF_CHANGED, Relaxed);
    }
    let ahead = i + AHEAD;
    if ahead < k.num_slots()
        && let Some(at) = k.buffer(k.slot(ahead).buf_idx.load(Relaxed))
    {
        k.region().prefetch(at);
    }
    let at = if flags & NS_INDIRECT != 0 { Some(slot.ptr.load(Relaxed)) } else { k.buffer(slot.buf_idx.load(Relaxed)) };
    match at {
        Some(at) if u32::from(len) <= BUF_SIZE => Frame { at, len, flags, next: NIL, frags: 1 },
        Some(_) => empty(k, Drop::TooLong),
        None => empty(k, Drop::BadBuffer),
    }
}

#[cold]
fn empty(k: &Kring, why: Drop) -> Frame {
    k.dropped(why);
    // A place inside the region, of which no byte is used.
    Frame { at: k.place().buffers_at, len: 0, flags: 0, next: NIL, frags: 1 }
}

/// The bytes of a frame from `skip` on, as far as there are any.
#[inline]
fn read(k: &Kring, frame: &Frame, skip: u16, into: &mut Head) -> bool {
    let at = frame.at.wrapping_add(u64::from(skip));
    if frame.flags & NS_INDIRECT != 0 {
        let n = usize::from(frame.len.saturating_sub(skip)).min(into.len());
        return OwnProcess.read(at, &mut into[..n]).is_ok();
    }
    // A buffer is longer than the longest header and these bytes; past its end lies the next one, or padding.
    k.region().read(at, into).is_ok()
}

/// Copies a frame into the buffer at `at`, to the end of the last cache line where that is faster.
#[inline]
fn copy(k: &Kring, frame: &Frame, to: &Kring, at: u64) -> bool {
    let len = usize::from(frame.len);
    if frame.len < LINES_BELOW {
        k.region().copy_lines(frame.at, to.region(), at, len.div_ceil(64)).is_ok()
    } else {
        k.region().copy(frame.at, to.region(), at, len).is_ok()
    }
}

const _: () = assert!(NS_PORT_MASK >> NS_PORT_SHIFT == 0xff && BATCH + NETMAP_MAX_FRAGS < NIL as usize);
