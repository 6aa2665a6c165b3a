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
use crate::ring::{Dir, Drop, Kring, SlotView};
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
    if from.has_offsets() || to.has_offsets() {
        run_with(from, to, end, p, |source, target| (from.offset(source), to.offset(target)));
    } else {
        run_with(from, to, end, p, |_, _| (0, 0));
    }
}

/// The same; `offsets` are those of a packet in the sender's slot, and of what the receiver wants in its own.
#[inline(always)]
fn run_with(from: &Kring, to: &Kring, end: u32, p: &mut Passed, offsets: impl Fn(&SlotView, &SlotView) -> (u32, u32)) {
    // Both ends lie in one region.
    let (first, size) = (p.at, from.buf_size());
    let range = first as usize..end as usize;
    let all = (from.slots().get(range.clone()), to.slots().get(range.clone()), to.all_held().get(range));
    let (Some(sources), Some(targets), Some(held)) = all else {
        p.result = Err(BadSlot);
        return;
    };
    // Parts of packets, and the slots up to the end of the last packet.
    let (mut done, mut parts, mut bytes, mut whole) = (0, 0, 0, 0);
    for ((source, target), held) in sources.iter().zip(targets).zip(held) {
        let idx = source.buf_idx.load(Relaxed);
        if !from.is_buffer(idx) {
            source.buf_idx.store(from.held(first + done).load(Relaxed), Relaxed);
            from.dropped(Drop::BadBuffer);
            p.result = Err(BadSlot);
            break;
        }
        let (flags, ptr) = (source.flags.load(Relaxed), source.ptr.load(Relaxed));
        let (offset, wanted) = offsets(source, target);
        let len = source.len.load(Relaxed).min((size - offset).min(u16::MAX.into()) as u16);
        // What is there already is not written again: the line stays with both ends, and nothing travels but the tail.
        let other = (target.buf_idx.load(Relaxed) ^ idx) | (held.load(Relaxed) ^ idx);
        let marks = (target.len.load(Relaxed) ^ len) | (target.flags.load(Relaxed) ^ flags);
        if u64::from(other) | u64::from(marks) | (target.ptr.load(Relaxed) ^ ptr) != 0 {
            target.buf_idx.store(idx, Relaxed);
            target.len.store(len, Relaxed);
            target.flags.store(flags, Relaxed);
            target.ptr.store(ptr, Relaxed);
            held.store(idx, Relaxed);
        }
        if wanted > offset && from.dir() == Dir::Tx {
            make_room(to, first + done, idx, offset, wanted);
        }
        if flags & NS_BUF_CHANGED != 0 {
            source.flags.store(flags & !NS_BUF_CHANGED, Relaxed);
        }
        done += 1;
        bytes += u64::from(len);
        if flags & NS_MOREFRAG == 0 {
            whole = done;
        } else {
            parts += 1;
        }
    }
    p.at += done;
    p.packets += u64::from(done - parts);
    p.bytes += bytes;
    if whole > 0 {
        p.complete = Some(first + whole);
    }
}

/// The receiver wants its packets further into the buffer than the sender put this one: it moves, if there is room.
#[cold]
fn make_room(to: &Kring, i: u32, idx: u32, offset: u32, wanted: u32) {
    let slot = to.slot(i);
    let len = u32::from(slot.len.load(Relaxed));
    let Some(start) = to.buffer(idx).filter(|_| wanted + len <= to.buf_size()) else { return };
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
