//! NIC rings: a transmit or receive ring of netmap over the rings of one AF_XDP socket.
//!
//! ```text
//! txsync: completion ring -> held[] -> hwtail      slots [hwcur, head) -> transmit ring -> kick
//! rxsync: slots [hwcur, head) -> spare buffers      receive ring -> slots from hwtail on
//!         spare buffers -> fill ring, held[], until the kernel has as many as the ring can hold
//! ```
//! A receive ring has more buffers than slots, so that slots that the program keeps take nothing from what the NIC can receive.
//! Runs in the thread that calls the sync, in any process that holds the socket. Buffers are never copied.

use super::{BadSlot, Carrier};
use crate::abi::{NS_BUF_CHANGED, NS_MOREFRAG, NS_REPORT};
use crate::index::{distance, next_slot, prev_slot, run, slots_on};
use crate::ring::{Dir, Drop, Kring, NO_BUFFER, SlotView};
use crate::shm::{Memory, Ref};
use crate::sync::{AtomicBool, AtomicU64, Ordering::*, compiler_fence};
use crate::sys::xdp;
use crate::sys::{Errno, Error, Fd};
use crate::xsk::{Chunks, Completion, Desc, Fill, Geometry, QueueError, Rings, Rx, Tx, TxBatch, TxPlan, Walk};
use std::iter::zip;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Shortest frame that a device takes: an Ethernet header.
const MIN_FRAME: u32 = 14;
/// Frames that the kernel takes in one go, unless it was told otherwise: `TX_BATCH_SIZE`.
const KICK: u32 = 32;
/// Most buffers in one frame: `MAX_SKB_FRAGS` + 1.
pub const MAX_CHAIN: u32 = 17;

/// What the engine tells of a socket to whoever maps its rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicPlan {
    /// Entries of the receive ring; the fill ring has [`fill_size`] of them.
    pub rx_size: u32,
    /// Entries of transmit and completion ring.
    pub tx_size: u32,
    /// How buffers lie in the UMEM.
    pub geometry: Geometry,
    /// The driver does not say when it waits to be told.
    pub always: bool,
    /// Who syncs polls the queue.
    pub busy: bool,
    /// The kernel copies what is sent, on the processor that tells it.
    pub copies: bool,
}

/// The transmit side of a socket.
pub struct NicTx {
    tx: Tx,
    completion: Completion,
    plan: NicPlan,
    /// The last kick found the interface down.
    down: AtomicBool,
    /// Kept for other ports of this process on the queue.
    _rings: Option<Arc<Rings>>,
    // After the rings: a mapping counts as a reference to the socket, so it goes first.
    socket: Arc<Fd>,
}

/// The receive side of a socket.
pub struct NicRx {
    fill: Fill,
    rx: Rx,
    plan: NicPlan,
    /// When the NIC received the last frame of the queue, nanoseconds by its clock; 0: not yet.
    arrived: Option<Ref<AtomicU64>>,
    /// As above.
    _rings: Option<Arc<Rings>>,
    // After the rings, as above.
    socket: Arc<Fd>,
}

impl NicTx {
    /// Maps transmit and completion ring of `socket`.
    pub fn map(socket: Arc<Fd>, plan: NicPlan) -> Result<NicTx, QueueError> {
        let rings = Rings::of(&*socket, plan.rx_size, plan.tx_size)?;
        Ok(NicTx { _rings: Some(rings.clone()), ..NicTx::over(rings.tx()?, rings.completion()?, plan, socket) })
    }

    /// The same over rings that are mapped already: for a stand-in of the kernel's side.
    pub fn over(tx: Tx, completion: Completion, plan: NicPlan, socket: Arc<Fd>) -> NicTx {
        NicTx { tx, completion, plan, down: AtomicBool::new(false), _rings: None, socket }
    }

    /// Takes completions and lets `hwtail` follow.
    #[inline]
    fn reclaim(&self, k: &Kring) {
        let Ok(mut done) = self.completion.filled() else { return };
        if done.left() == 0 {
            return;
        }
        let mut returns = k.returns();
        while done.left() > 0 {
            let addrs = done.run();
            // An address that no slot waits for is the first part of a buffer that took two descriptors.
            returns.take(addrs.iter().map(|addr| Geometry::key(addr.load(Relaxed))));
            done.pass(addrs.len() as u32);
        }
        done.publish();
        returns.finish();
    }

    /// Turns slots `[hwcur, rhead)` into descriptors. `reported` becomes true if one of them has `NS_REPORT`.
    #[inline]
    fn submit(&self, k: &Kring, reported: &mut bool) -> Result<(), BadSlot> {
        let (head, mut i) = (k.rhead(), k.hwcur());
        if i == head {
            return Ok(());
        }
        let Ok(mut batch) = self.tx.batch() else { return Err(BadSlot) };
        let plain = self.plan.geometry.chunks() == Chunks::Unaligned && !k.has_offsets();
        let mut sent = Sent::default();
        loop {
            if plain {
                i = self.submit_plain(k, &mut batch, i, head, &mut sent.total);
            }
            if i == head {
                break;
            }
            let Some(next) = self.submit_other(k, &mut batch, i, head, &mut sent) else { break };
            i = next;
        }
        k.hand_over(batch.end(), i, || {
            batch.publish();
        });
        k.count(sent.total.packets, sent.total.bytes);
        if sent.left_out {
            // No completion will tell of these slots.
            k.advance_tx_tail();
        }
        *reported = sent.reported;
        if sent.bad { Err(BadSlot) } else { Ok(()) }
    }

    /// What nearly every frame is, one slot and one descriptor, of slots from `i` on: up to the first one that is something
    /// else, or for which there is no room. Returns that one. No offsets, chunks unaligned.
    #[inline]
    fn submit_plain(&self, k: &Kring, batch: &mut TxBatch<'_>, i: u32, head: u32, total: &mut Total) -> u32 {
        // All in registers: after each of the loads and stores here the compiler would look at fields again.
        let (geometry, most, packets) = (self.plan.geometry, k.buf_size(), k.packets());
        let (buffers, copies) = (packets.usable(), self.plan.copies);
        let (mut i, mut sum) = (i, *total);
        loop {
            let (slots, held) = (run(k.slots(), i, head), run(k.all_held(), i, head));
            let mut done = 0;
            for ((entry, slot), cell) in zip(batch.run(), slots).zip(held) {
                let (idx, flags) = (slot.buf_idx.load(Relaxed), slot.flags.load(Relaxed));
                let len = u32::from(slot.len.load(Relaxed)).min(most);
                if flags & (NS_MOREFRAG | NS_REPORT) != 0 || !buffers.has(idx) || len < MIN_FRAME {
                    break;
                }
                if flags & NS_BUF_CHANGED != 0 {
                    slot.flags.store(flags & !NS_BUF_CHANGED, Relaxed);
                }
                if copies {
                    // Whoever received it may be another processor. Here the kernel would wait for each; see `Bound::map`.
                    packets.prefetch(idx);
                }
                let plan = geometry.whole(idx, len, false);
                cell.store(plan.key, Relaxed);
                entry.write(plan.first);
                sum.add(len, false);
                done += 1;
            }
            batch.wrote(done);
            i = slots_on(i, done, k.num_slots());
            if done == 0 || i == head {
                *total = sum;
                return i;
            }
        }
    }

    /// Any frame, from slot `i` on, which is not `head`. Returns the slot after it; none: it has to wait.
    #[inline(never)]
    fn submit_other(&self, k: &Kring, batch: &mut TxBatch<'_>, i: u32, head: u32, sent: &mut Sent) -> Option<u32> {
        let slot = k.slot(i);
        let flags = slot.flags.load(Relaxed);
        if flags & NS_MOREFRAG != 0 {
            return match self.chain(k, batch, i, head, &mut sent.reported) {
                Chain::Sent(next, len) => {
                    sent.total.add(len, false);
                    Some(next)
                }
                Chain::Dropped(next, why) => {
                    sent.leave_out(k, why);
                    Some(next)
                }
                Chain::Wait => None,
            };
        }
        if !batch.fits(2) {
            return None;
        }
        let idx = slot.buf_idx.load(Relaxed);
        let offset = k.offset(slot);
        let len = u32::from(slot.len.load(Relaxed)).min(k.buf_size() - offset);
        match self.plan_frame(k, idx, offset, len) {
            Ok(plan) => {
                batch.push(plan.first);
                plan.second.into_iter().for_each(|d| batch.push(d));
                k.held(i).store(plan.key, Relaxed);
                sent.total.add(len, false);
            }
            Err(why) => {
                k.held(i).store(NO_BUFFER, Relaxed);
                sent.leave_out(k, why);
                sent.bad |= why == Drop::BadBuffer;
            }
        }
        if flags & (NS_BUF_CHANGED | NS_REPORT) != 0 {
            slot.flags.store(flags & !(NS_BUF_CHANGED | NS_REPORT), Relaxed);
            sent.reported |= flags & NS_REPORT != 0;
        }
        Some(next_slot(i, k.num_slots()))
    }

    /// The descriptors of a frame of one slot, or why there are none.
    #[inline]
    fn plan_frame(&self, k: &Kring, idx: u32, offset: u32, len: u32) -> Result<TxPlan, Drop> {
        if !k.is_buffer(idx) {
            return Err(Drop::BadBuffer);
        }
        if len < MIN_FRAME {
            return Err(Drop::TooShort);
        }
        let plan = self.plan.geometry.transmit_at(idx, offset, len, false);
        if plan.second.is_some() && k.state().chains.load(Relaxed) == 0 { Err(Drop::TooLong) } else { Ok(plan) }
    }

    /// One frame of several slots, from `first`; it is sent whole or not at all.
    #[cold]
    fn chain(&self, k: &Kring, batch: &mut TxBatch<'_>, first: u32, head: u32, reported: &mut bool) -> Chain {
        let n = k.num_slots();
        let (mut slots, mut last) = (1, first);
        while k.slot(last).flags.load(Relaxed) & NS_MOREFRAG != 0 {
            last = next_slot(last, n);
            if last == head {
                // The rest has not been handed over. A ring full of it never will be.
                return if slots + 1 >= n { Chain::Dropped(head, Drop::BadChain) } else { Chain::Wait };
            }
            slots += 1;
        }
        let next = next_slot(last, n);
        let walk = std::iter::successors(Some(first), |&i| (i != last).then(|| next_slot(i, n)));
        let give_up = |why| {
            walk.clone().for_each(|i| k.held(i).store(NO_BUFFER, Relaxed));
            Chain::Dropped(next, why)
        };
        if k.state().chains.load(Relaxed) == 0 || slots > MAX_CHAIN {
            return give_up(Drop::BadChain);
        }
        if !batch.fits(2 * slots) {
            return Chain::Wait;
        }
        let (mut total, mut pieces) = (0, 0);
        for i in walk.clone() {
            let slot = k.slot(i);
            let (idx, offset) = (slot.buf_idx.load(Relaxed), k.offset(slot));
            let len = u32::from(slot.len.load(Relaxed)).min(k.buf_size() - offset);
            if !k.is_buffer(idx) || len == 0 {
                batch.abandon_frame();
                return give_up(if len == 0 { Drop::BadChain } else { Drop::BadBuffer });
            }
            let plan = self.plan.geometry.transmit_at(idx, offset, len, i != last);
            pieces += 1 + u32::from(plan.second.is_some());
            if pieces > MAX_CHAIN {
                batch.abandon_frame();
                return give_up(Drop::BadChain);
            }
            batch.push(plan.first);
            plan.second.into_iter().for_each(|d| batch.push(d));
            k.held(i).store(plan.key, Relaxed);
            *reported |= slot.flags.fetch_and(!(NS_BUF_CHANGED | NS_REPORT), Relaxed) & NS_REPORT != 0;
            total += len;
        }
        Chain::Sent(next, total)
    }

    /// Tells the kernel of what it has not taken, if it wants to be told.
    #[inline]
    fn kick(&self, k: &Kring) {
        let (end, at) = self.tx.0.positions();
        if at != end && self.wants_kick() {
            self.kick_until(k, end, at);
        }
    }

    #[inline]
    fn wants_kick(&self) -> bool {
        self.plan.always || self.tx.0.needs_wakeup()
    }

    /// Tells the kernel until it has taken everything, from `at` to `end`, or takes no more.
    ///
    /// Before Linux 6.17 it does not say what it has taken until it has come to the end of what it knows of. Then completions
    /// tell that it moves, and where these are late, it is told as often as the rest may need.
    #[inline(never)]
    fn kick_until(&self, k: &Kring, end: u32, mut at: u32) {
        let (mut done, mut blind) = (self.completion.positions().0, 0);
        while at != end && self.wants_kick() {
            let answer = xdp::kick_tx(self.socket.as_raw_fd());
            let now = self.tx.0.positions().1;
            if self.down.load(Relaxed) != (answer == Err(Errno(libc::ENETDOWN))) {
                self.down.store(!self.down.load(Relaxed), Relaxed);
            }
            let again = match answer {
                Ok(()) => now != at,
                // A frame was refused (EBUSY), it has taken as many as it does in one go (EAGAIN), or memory or room is short
                // for the moment: the rest is still queued.
                Err(Errno(libc::EBUSY | libc::EAGAIN | libc::ENOBUFS | libc::EINTR)) => {
                    let before = (at, std::mem::replace(&mut done, self.completion.positions().0));
                    blind = if (now, done) == before { blind + 1 } else { 0 };
                    blind <= end.wrapping_sub(now).div_ceil(KICK)
                }
                Err(e) => {
                    // Down: nothing moves until it is up.
                    note(k, e);
                    false
                }
            };
            if !again {
                break;
            }
            at = now;
        }
    }
}

/// Frames that crossed.
#[derive(Clone, Copy, Default)]
struct Total {
    packets: u64,
    bytes: u64,
}

impl Total {
    #[inline]
    fn add(&mut self, len: u32, more: bool) {
        self.packets += u64::from(!more);
        self.bytes += u64::from(len);
    }
}

/// What a sync sent.
#[derive(Default)]
struct Sent {
    total: Total,
    /// One had `NS_REPORT`.
    reported: bool,
    /// One was left out.
    left_out: bool,
    /// One named a buffer that there is not.
    bad: bool,
}

impl Sent {
    fn leave_out(&mut self, k: &Kring, why: Drop) {
        k.dropped(why);
        self.left_out = true;
    }
}

/// What became of a frame of several slots.
enum Chain {
    /// In the ring; the slot after it, and its bytes.
    Sent(u32, u32),
    /// Left out; the slot after it.
    Dropped(u32, Drop),
    /// Not complete, or no room yet.
    Wait,
}

impl Carrier for NicTx {
    #[inline]
    fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
        self.reclaim(k);
        if k.state().pending.load(Relaxed) != 0 {
            return Ok(());
        }
        let mut reported = false;
        let result = self.submit(k, &mut reported);
        self.kick(k);
        if reported || k.state().rcur.load(Relaxed) == k.hwtail() {
            // The program wants to know at once, or has nothing left to fill: then what came back meanwhile decides whether
            // it sleeps.
            self.reclaim(k);
        }
        result
    }

    fn signal(&self) -> Option<(RawFd, i32)> {
        Some((self.socket.as_raw_fd(), libc::EPOLLOUT))
    }

    fn stalled(&self) -> bool {
        self.tx.0.waiting() != 0
    }

    fn resting(&self) -> bool {
        self.down.load(Relaxed)
    }

    fn socket(&self) -> Option<RawFd> {
        Some(self.socket.as_raw_fd())
    }

    /// Slots that were published belong to the kernel, others do not; completions that were processed are not looked at again.
    fn repair(&self, k: &Kring) {
        let (sent, done) = (self.tx.0.positions().0, self.completion.positions().1);
        k.recover_handed(sent);
        if self.plan.geometry.chunks() == Chunks::Unaligned {
            // Each descriptor has one completion, and here each slot one descriptor.
            let twice = sent.wrapping_sub(done).wrapping_sub(k.under_way());
            if twice <= self.completion.waiting() {
                self.completion.skip(twice);
            }
        }
        k.advance_tx_tail();
    }

    fn probe(&self, k: &Kring) {
        probe(&self.socket, k);
    }
}

impl NicRx {
    /// Maps fill and receive ring of `socket`.
    pub fn map(socket: Arc<Fd>, plan: NicPlan) -> Result<NicRx, QueueError> {
        let rings = Rings::of(&*socket, plan.rx_size, plan.tx_size)?;
        Ok(NicRx { _rings: Some(rings.clone()), ..NicRx::over(rings.fill()?, rings.rx()?, plan, socket) })
    }

    /// The same over rings that are mapped already: for a stand-in of the kernel's side.
    pub fn over(fill: Fill, rx: Rx, plan: NicPlan, socket: Arc<Fd>) -> NicRx {
        NicRx { fill, rx, plan, arrived: None, _rings: None, socket }
    }

    /// `stamps` is where the XDP program notes when frames of `queue` arrived: two words a queue, the first of which counts.
    pub fn with_stamps(self, stamps: &Fd, queue: u16) -> Result<NicRx, QueueError> {
        const ENTRY: u64 = 16;
        let at = u64::from(queue) * ENTRY;
        let memory = Memory::map(stamps, (at + ENTRY) as usize, 0, false);
        let memory = memory.map_err(|e| Error::new("mmap", "of the NIC's times", e))?;
        Ok(NicRx { arrived: Some(memory.object(at)?), ..self })
    }

    /// Hands the buffers of a fresh ring's slots to the kernel; once more, if the socket that had them came to nothing.
    pub fn start(&self, k: &Kring) -> Result<(), QueueError> {
        debug_assert!(k.dir() == Dir::Rx && k.hwcur() == 0 && k.hwtail() == 0);
        k.state().filled.store(0, Relaxed);
        k.set_spare(0);
        // The last one is taken first.
        for i in (0..k.num_slots()).rev() {
            k.add_spare(k.slot(i).buf_idx.load(Relaxed));
        }
        self.post(k)
    }

    /// The buffers of slots `[hwcur, rhead)` are spare.
    #[inline]
    fn release(&self, k: &Kring) -> Result<(), BadSlot> {
        let (from, head) = (k.hwcur(), k.rhead());
        if from == head {
            return Ok(());
        }
        let (mut count, buffers) = (k.spare(), k.packets().usable());
        let mut room = k.spares().get(count as usize..).unwrap_or_default().iter();
        let mut result = Ok(());
        let mut at = from;
        while at != head {
            let slots = run(k.slots(), at, head);
            if slots.is_empty() {
                break;
            }
            for slot in slots {
                let idx = slot.buf_idx.load(Relaxed);
                if buffers.has(idx)
                    && let Some(cell) = room.next()
                {
                    cell.store(idx, Relaxed);
                    count += 1;
                } else {
                    // The ring works on with one buffer less.
                    k.dropped(Drop::BadBuffer);
                    result = Err(BadSlot);
                }
            }
            at = slots_on(at, slots.len() as u32, k.num_slots());
        }
        k.set_spare(count);
        // SYNC death: in this order, so that a death in between loses nothing: see `Kring::recover_held`.
        compiler_fence(SeqCst);
        k.set_hwcur(head);
        result
    }

    /// Spare buffers go to the fill ring, until the kernel has a ring full.
    #[inline]
    fn post(&self, k: &Kring) -> Result<(), QueueError> {
        let (n, end) = (k.num_slots(), prev_slot(k.hwtail(), k.num_slots()));
        let (at, have) = (k.filled(), k.spare());
        let want = distance(at, end, n).min(have);
        if want == 0 {
            return Ok(());
        }
        // See `fill_size`.
        let used = distance(k.hwtail(), at, n).saturating_add(self.plan.rx_size);
        let mut fill = self.fill.room_for(want, used)?;
        // Those on top, the last one first.
        let mut spares = k.spares().get(..have as usize).unwrap_or_default();
        let geometry = self.plan.geometry;
        let mut to = at;
        while fill.left() > 0 {
            let (entries, held) = (fill.run(), run(k.all_held(), to, end));
            let many = entries.len().min(held.len()).min(spares.len());
            if many == 0 {
                break;
            }
            let (rest, top) = spares.split_at(spares.len() - many);
            for ((entry, cell), spare) in zip(entries, held).zip(top.iter().rev()) {
                let idx = spare.load(Relaxed);
                cell.store(idx, Relaxed);
                entry.store(geometry.fill(idx), Relaxed);
            }
            spares = rest;
            fill.pass(many as u32);
            to = slots_on(to, many as u32, n);
        }
        let posted = fill.passed();
        if posted > 0 {
            k.hand_over(fill.position(), to, || fill.publish());
        }
        // SYNC death: what the kernel has, or what it may have, is not spare: in this order again.
        compiler_fence(SeqCst);
        k.set_spare(have - posted);
        if self.fill.needs_wakeup() {
            // Nothing to do about an error: the driver asks again.
            let _ = xdp::kick_rx(self.socket.as_raw_fd());
        }
        Ok(())
    }

    /// Buffer of a received descriptor, and where its data begins relative to the buffer's start.
    #[cold]
    fn unexpected(&self, addr: u64) -> (u32, i64) {
        let (idx, shift) = self.plan.geometry.received(addr);
        (u32::try_from(idx).unwrap_or(NO_BUFFER), shift)
    }

    /// Gives one buffer back to the kernel at once.
    #[cold]
    fn refill(&self, idx: u32) -> bool {
        self.fill.add(self.plan.geometry.fill(idx)).is_ok()
    }

    /// Received descriptors become slots from `hwtail` on.
    #[inline]
    fn receive(&self, k: &Kring) -> Result<(), BadSlot> {
        let mut bounced = None;
        loop {
            let received = self.receive_until(k, &mut bounced);
            // Only now that its descriptor is gone: a death in between must not give the kernel a buffer twice.
            match bounced.take() {
                Some(idx) if received.is_ok() && self.refill(idx) => {}
                _ => return received,
            }
        }
    }

    /// The same, up to a frame that cannot be received, whose buffer goes to `bounced`.
    #[inline]
    fn receive_until(&self, k: &Kring, bounced: &mut Option<u32>) -> Result<(), BadSlot> {
        let (stop, n) = (k.rx_stop(), k.num_slots());
        // Where frames arrive at the place where they are to be.
        let plain = !k.has_offsets() && self.plan.geometry.headroom() == 0;
        let Ok(mut frames) = self.rx.0.filled() else { return Err(BadSlot) };
        let (mut next, mut total) = (k.hwtail(), Total::default());
        loop {
            if plain {
                next = self.receive_plain(k, &mut frames, next, stop, &mut total);
            }
            let Some(frame) = frames.run().first() else { break };
            if next == stop || bounced.is_some() {
                break;
            }
            let (addr, len, more) = frame.read();
            if let Some(idx) = self.receive_other(k, next, addr, len, bounced) {
                total.add(len, more);
                fill_slot(k.slot(next), idx, len, more);
                next = next_slot(next, n);
            }
            frames.pass(1);
        }
        if frames.passed() > 0 {
            k.take_over(frames.position(), next, || frames.publish());
            k.count(total.packets, total.bytes);
        }
        Ok(())
    }

    /// What nearly every frame is, the buffer that is expected: up to the first one that is something else. Returns the slot
    /// for that one.
    #[inline]
    fn receive_plain(&self, k: &Kring, frames: &mut Walk<'_, Desc>, next: u32, stop: u32, total: &mut Total) -> u32 {
        // All in registers: after each of the loads and stores here the compiler would look at fields again.
        let (geometry, most, buffers) = (self.plan.geometry, k.buf_size(), k.packets().usable());
        let (mut next, mut sum) = (next, *total);
        while frames.left() > 0 {
            let (slots, held) = (run(k.slots(), next, stop), run(k.all_held(), next, stop));
            let mut done = 0;
            for ((frame, slot), cell) in zip(frames.run(), slots).zip(held) {
                let (addr, len, more) = frame.read();
                // The kernel returns buffers in the order it got them, or nearly so.
                let idx = cell.load(Relaxed);
                if addr != geometry.arrival(idx) || !buffers.has(idx) || len > most {
                    break;
                }
                cell.store(NO_BUFFER, Relaxed);
                fill_slot(slot, idx, len, more);
                sum.add(len, more);
                done += 1;
            }
            if done == 0 {
                break;
            }
            frames.pass(done);
            next = slots_on(next, done, k.num_slots());
        }
        *total = sum;
        next
    }

    /// A frame for slot `at` that is not simply the expected buffer, or of a ring or a socket with offsets: the buffer, if it is
    /// received.
    #[inline(never)]
    fn receive_other(&self, k: &Kring, at: u32, addr: u64, len: u32, bounced: &mut Option<u32>) -> Option<u32> {
        let held = k.held(at).load(Relaxed);
        let expected = addr == self.plan.geometry.arrival(held);
        let there = (held, i64::from(self.plan.geometry.headroom()));
        let (idx, shift) = if expected { there } else { self.unexpected(addr) };
        if !k.is_buffer(idx) || len > k.buf_size() || !(expected || k.take_rx(at, idx)) {
            k.dropped(Drop::Foreign);
            return None;
        }
        k.held(at).store(NO_BUFFER, Relaxed);
        let offset = k.offset(k.slot(at));
        if offset + len > k.buf_size() {
            // What the kernel wrote does not fit behind the offset. The slot stays the kernel's, with this buffer.
            k.held(at).store(idx, Relaxed);
            k.dropped(Drop::TooLong);
            *bounced = Some(idx);
            return None;
        }
        if shift != i64::from(offset) {
            place(k, idx, shift, offset, len);
        }
        Some(idx)
    }
}

/// A received frame is in the slot now.
#[inline]
fn fill_slot(slot: &SlotView, idx: u32, len: u32, more: bool) {
    let mut flags = if more { NS_MOREFRAG } else { 0 };
    if slot.buf_idx.load(Relaxed) != idx {
        slot.buf_idx.store(idx, Relaxed);
        flags |= NS_BUF_CHANGED;
    }
    slot.len.store(len as u16, Relaxed);
    slot.flags.store(flags, Relaxed);
}

/// Moves a frame to where its slot has it: behind the offset that the program asked for, if the headroom of the socket is
/// another; else to the start of the buffer, if an XDP program that we did not write moved it. The kernel knows one place for
/// all frames, hence the copy.
#[cold]
fn place(k: &Kring, idx: u32, shift: i64, offset: u32, len: u32) {
    let Some(start) = k.buffer(idx) else { return };
    if let Some(from) = start.checked_add_signed(shift) {
        // Out of range means a scribbled descriptor: the frame then holds whatever lay there.
        let _ = k.region().shift(from, start + u64::from(offset), len as usize);
    }
}

impl Carrier for NicRx {
    #[inline]
    fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
        let released = self.release(k);
        let mut received = self.receive(k);
        if self.plan.busy && received.is_ok() && k.hwtail() == k.state().rtail.load(Relaxed) {
            // Nothing there: this takes in what waits at the NIC. An interface that is down shows elsewhere.
            let _ = xdp::kick_rx(self.socket.as_raw_fd());
            received = self.receive(k);
        }
        let posted = self.post(k).map_err(|_| BadSlot);
        released.and(received).and(posted)
    }

    fn signal(&self) -> Option<(RawFd, i32)> {
        Some((self.socket.as_raw_fd(), libc::EPOLLIN))
    }

    fn socket(&self) -> Option<RawFd> {
        Some(self.socket.as_raw_fd())
    }

    /// Buffers that were published are the kernel's; frames that were taken and not yet released are received again.
    fn repair(&self, k: &Kring) {
        k.recover_handed(self.fill.positions().0);
        k.recover_received(self.rx.0.positions().1);
        let index = |addr| u32::try_from(self.plan.geometry.received(addr).0).unwrap_or(NO_BUFFER);
        k.recover_held(self.rx.addresses().into_iter().map(index));
    }

    fn arrived(&self) -> Option<Duration> {
        let ns = self.arrived.as_ref()?.load(Relaxed);
        (ns != 0).then(|| Duration::from_nanos(ns))
    }

    fn level(&self, k: &Kring) -> bool {
        // What is in the kernel's ring has room in ours.
        k.hwtail() != k.rx_stop()
    }

    fn probe(&self, k: &Kring) {
        probe(&self.socket, k);
    }
}

/// A socket that was bound and is not any more has lost its device for good (`xsk_notifier`): `poll` on it stays silent.
fn note(k: &Kring, e: Errno) {
    if e == Errno(libc::ENXIO) && k.state().pending.load(Relaxed) == 0 {
        k.state().stopped.store(1, Relaxed);
    }
}

#[cold]
fn probe(socket: &Fd, k: &Kring) {
    if let Err(e) = xdp::kick_tx(socket.as_raw_fd()) {
        note(k, e);
    }
}

#[cfg(test)]
mod tests;
