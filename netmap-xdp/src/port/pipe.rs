//! Pipes: a transmit ring and the receive ring at the other end share one set of buffers, and slots pass between them.
//!
//! Slot `k` of the transmit ring and slot `k` of the receive ring are the two names of one place: `txsync` copies the slot
//! (not the packet) forward, `rxsync` copies it back, with whatever buffer the receiver left there. So a packet crosses a
//! pipe without being copied, and both ends may exchange the buffer for another.
//!
//! ```text
//! transmit   hwcur: taken so far           peer_tail: given back so far, written by the receiver
//! receive    hwcur: given back so far      peer_tail: complete packets, written by the sender
//! ```
//! Each end runs under the lock of its own ring, in its own thread or process; the two meet in `peer_tail`.

use super::{BadSlot, Carrier, Wake};
use crate::abi::{NS_BUF_CHANGED, NS_MOREFRAG};
use crate::index::{next_slot, prev_slot};
use crate::ring::{Dir, Drop, Kring};
use crate::shm::BUF_SIZE;
use crate::sync::Ordering::*;
use std::os::fd::RawFd;

/// The sending end of one ring of a pipe.
pub struct PipeTx {
    peer: Kring,
    wake: Wake,
}

/// The receiving end.
pub struct PipeRx {
    peer: Kring,
    wake: Wake,
}

impl PipeTx {
    /// `peer` is the receive ring at the other end.
    pub fn new(peer: Kring, wake: Wake) -> PipeTx {
        PipeTx { peer, wake }
    }
}

impl PipeRx {
    /// `peer` is the transmit ring at the other end.
    pub fn new(peer: Kring, wake: Wake) -> PipeRx {
        PipeRx { peer, wake }
    }
}

/// How far slots were passed on.
struct Passed {
    /// The first that was not.
    at: u32,
    /// The one after the last complete packet, if there was one.
    complete: Option<u32>,
    packets: u64,
    bytes: u64,
    result: Result<(), BadSlot>,
}

/// Passes slots `[first, end)` of `from` on to `to`; the program may have written anything into them. A bad index is replaced
/// by the one that the program was given.
#[inline]
fn pass(from: &Kring, to: &Kring, first: u32, end: u32) -> Passed {
    let mut p = Passed { at: first, complete: None, packets: 0, bytes: 0, result: Ok(()) };
    if first > end {
        run(from, to, from.num_slots(), &mut p);
        if p.at == from.num_slots() {
            p.at = 0;
            p.complete = p.complete.map(|c| if c == from.num_slots() { 0 } else { c });
        }
    }
    if p.result.is_ok() && p.at < end {
        run(from, to, end, &mut p);
    }
    p
}

/// The same for slots `[p.at, end)`, which lie side by side.
#[inline]
fn run(from: &Kring, to: &Kring, end: u32, p: &mut Passed) {
    let range = p.at as usize..end as usize;
    let all = (from.slots().get(range.clone()), to.slots().get(range.clone()), to.all_held().get(range));
    let (Some(sources), Some(targets), Some(held)) = all else {
        p.result = Err(BadSlot);
        return;
    };
    let offsets = from.has_offsets() || to.has_offsets();
    for ((source, target), held) in sources.iter().zip(targets).zip(held) {
        let idx = source.buf_idx.load(Relaxed);
        if !from.is_buffer(idx) {
            source.buf_idx.store(from.held(p.at).load(Relaxed), Relaxed);
            from.dropped(Drop::BadBuffer);
            p.result = Err(BadSlot);
            return;
        }
        let (flags, ptr) = (source.flags.load(Relaxed), source.ptr.load(Relaxed));
        let offset = if offsets { from.offset(source) } else { 0 };
        let wanted = if offsets { to.offset(target) } else { 0 };
        let len = source.len.load(Relaxed).min((BUF_SIZE - offset) as u16);
        // What is there already is not written again: the line stays with both ends, and nothing travels but the tail.
        let same = target.buf_idx.load(Relaxed) == idx
            && target.len.load(Relaxed) == len
            && target.flags.load(Relaxed) == flags
            && target.ptr.load(Relaxed) == ptr
            && held.load(Relaxed) == idx;
        if !same {
            target.buf_idx.store(idx, Relaxed);
            target.len.store(len, Relaxed);
            target.flags.store(flags, Relaxed);
            target.ptr.store(ptr, Relaxed);
            held.store(idx, Relaxed);
        }
        if wanted > offset && from.dir() == Dir::Tx {
            make_room(to, p.at, idx, offset, wanted);
        }
        if flags & NS_BUF_CHANGED != 0 {
            source.flags.store(flags & !NS_BUF_CHANGED, Relaxed);
        }
        p.at += 1;
        p.bytes += u64::from(len);
        if flags & NS_MOREFRAG == 0 {
            p.packets += 1;
            p.complete = Some(p.at);
        }
    }
}

/// The receiver wants its packets further into the buffer than the sender put this one: it moves, if there is room.
#[cold]
fn make_room(to: &Kring, i: u32, idx: u32, offset: u32, wanted: u32) {
    let slot = to.slot(i);
    let len = u32::from(slot.len.load(Relaxed));
    let Some(start) = to.buffer(idx).filter(|_| wanted + len <= BUF_SIZE) else { return };
    // In range, as both ends were just computed within the buffer.
    let _ = to.region().shift(start + u64::from(offset), start + u64::from(wanted), len as usize);
    to.set_offset(slot, wanted.into());
}

/// Adopts what the other end has published.
#[inline]
fn adopt(k: &Kring) {
    // SYNC pipe-tail: acquire pairs with the release below: the slots before the tail are there.
    let tail = k.state().peer_tail.load(Acquire);
    if tail < k.num_slots() {
        k.set_hwtail(tail);
    }
}

/// Lets the other end see everything up to `tail`, and wakes it if it sleeps.
#[inline]
fn publish(peer: &Kring, wake: &Wake, tail: u32) {
    // SYNC pipe-tail: release pairs with the acquire in `adopt`.
    peer.state().peer_tail.store(tail, Release);
    wake.rouse(peer);
}

impl Carrier for PipeTx {
    #[inline]
    fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
        adopt(k);
        let passed = pass(k, &self.peer, k.hwcur(), k.rhead());
        k.set_hwcur(passed.at);
        if let Some(tail) = passed.complete {
            k.count(passed.packets, passed.bytes);
            publish(&self.peer, &self.wake, tail);
        }
        passed.result
    }

    fn signal(&self) -> Option<(RawFd, i32)> {
        self.wake.signal()
    }

    fn arm(&self, k: &Kring) -> bool {
        self.wake.arm(k)
    }

    /// Whole packets that crossed are published. What did not cross is copied again.
    fn repair(&self, k: &Kring) {
        let (n, sent) = (k.num_slots(), k.hwcur());
        let (mut i, mut complete) = (self.peer.state().peer_tail.load(Relaxed), None);
        if i >= n || sent >= n {
            return;
        }
        while i != sent {
            let more = self.peer.slot(i).flags.load(Relaxed) & NS_MOREFRAG != 0;
            i = next_slot(i, n);
            complete = if more { complete } else { Some(i) };
        }
        if let Some(tail) = complete {
            publish(&self.peer, &self.wake, tail);
        }
    }
}

impl Carrier for PipeRx {
    #[inline]
    fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
        adopt(k);
        let first = k.hwcur();
        let passed = pass(k, &self.peer, first, k.rhead());
        if passed.at != first {
            k.set_hwcur(passed.at);
            k.count(passed.packets, passed.bytes);
            publish(&self.peer, &self.wake, prev_slot(passed.at, k.num_slots()));
        }
        passed.result
    }

    fn signal(&self) -> Option<(RawFd, i32)> {
        self.wake.signal()
    }

    fn arm(&self, k: &Kring) -> bool {
        self.wake.arm(k)
    }

    /// What was given back is published.
    fn repair(&self, k: &Kring) {
        let n = k.num_slots();
        if k.hwcur() < n {
            publish(&self.peer, &self.wake, prev_slot(k.hwcur(), n));
        }
    }
}

#[cfg(test)]
mod tests;
