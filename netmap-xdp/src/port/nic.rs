//! NIC rings: a transmit or receive ring of netmap over the rings of one AF_XDP socket.
//!
//! ```text
//! txsync: completion ring -> held[] -> hwtail      slots [hwcur, head) -> transmit ring -> kick
//! rxsync: slots [hwcur, head) -> fill ring, held[]  receive ring -> slots from hwtail on
//! ```
//! Runs in the thread that calls the sync, in any process that holds the socket. Buffers are never copied.

use super::{BadSlot, Carrier};
use crate::abi::{NS_BUF_CHANGED, NS_MOREFRAG, NS_REPORT};
use crate::index::next_slot;
use crate::ring::{Dir, Drop, Kring, NO_BUFFER};
use crate::shm::BUF_SIZE;
use crate::sync::{AtomicBool, Ordering::*};
use crate::sys::xdp;
use crate::sys::{Errno, Fd};
use crate::xsk::{Completion, Fill, Geometry, QueueError, Rx, Tx, TxPlan};
use std::cell::Cell;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// Shortest frame that a device takes: an Ethernet header.
const MIN_FRAME: u32 = 14;
/// Most buffers in one frame: `MAX_SKB_FRAGS` + 1.
const MAX_CHAIN: u32 = 17;

/// What the engine tells of a socket to whoever maps its rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicPlan {
    /// Entries of fill and receive ring.
    pub rx_size: u32,
    /// Entries of transmit and completion ring.
    pub tx_size: u32,
    /// How buffers lie in the UMEM.
    pub geometry: Geometry,
    /// Whether frames may span buffers.
    pub multi_buffer: bool,
}

/// The transmit side of a socket.
pub struct NicTx {
    tx: Tx,
    completion: Completion,
    plan: NicPlan,
    /// The last kick found the interface down.
    down: AtomicBool,
    // After the rings: a mapping counts as a reference to the socket, so it goes first.
    socket: Arc<Fd>,
}

/// The receive side of a socket.
pub struct NicRx {
    fill: Fill,
    rx: Rx,
    plan: NicPlan,
    // After the rings, as above.
    socket: Arc<Fd>,
}

impl NicTx {
    /// Maps transmit and completion ring of `socket`.
    pub fn map(socket: Arc<Fd>, plan: NicPlan) -> Result<NicTx, QueueError> {
        let completion = Completion::map(&*socket, xdp::Which::Completion, plan.tx_size)?;
        Ok(NicTx::over(Tx::map(&*socket, plan.tx_size)?, completion, plan, socket))
    }

    /// The same over rings that are mapped already: for a stand-in of the kernel's side.
    pub fn over(tx: Tx, completion: Completion, plan: NicPlan, socket: Arc<Fd>) -> NicTx {
        NicTx { tx, completion, plan, down: AtomicBool::new(false), socket }
    }

    /// Takes completions and lets `hwtail` follow.
    #[inline]
    fn reclaim(&self, k: &Kring) {
        let mut at = next_slot(k.hwtail(), k.num_slots());
        let done = self.completion.consume(|addr| {
            // An address that no slot waits for is the first part of a buffer that took two descriptors.
            if let Some(next) = k.complete_tx(at, Geometry::key(addr)) {
                at = next;
            }
        });
        if !matches!(done, Ok(0)) {
            k.advance_tx_tail();
        }
    }

    /// Turns slots `[hwcur, rhead)` into descriptors.
    #[inline]
    fn submit(&self, k: &Kring) -> Result<(), BadSlot> {
        let (head, n) = (k.rhead(), k.num_slots());
        let mut i = k.hwcur();
        if i == head {
            return Ok(());
        }
        let Ok(mut batch) = self.tx.batch() else { return Err(BadSlot) };
        let (mut packets, mut bytes, mut result, mut left_out) = (0, 0, Ok(()), false);
        let plain = self.plan.geometry == Geometry::Unaligned && !k.has_offsets();
        while i != head {
            let slot = k.slot(i);
            let flags = slot.flags.load(Relaxed);
            if flags & NS_MOREFRAG != 0 {
                match self.chain(k, &mut batch, i, head) {
                    Chain::Sent(next, total) => {
                        packets += 1;
                        bytes += u64::from(total);
                        i = next;
                    }
                    Chain::Dropped(next, why) => {
                        k.dropped(why);
                        left_out = true;
                        i = next;
                    }
                    Chain::Wait => break,
                }
                continue;
            }
            if !batch.fits(2) {
                break;
            }
            let idx = slot.buf_idx.load(Relaxed);
            let offset = if plain { 0 } else { k.offset(slot) };
            let len = u32::from(slot.len.load(Relaxed)).min(BUF_SIZE - offset);
            let planned = if plain && k.is_buffer(idx) && len >= MIN_FRAME {
                // What nearly every frame is: one descriptor, all of it known here.
                Ok(Geometry::Unaligned.transmit(idx, len, false))
            } else {
                self.plan_frame(k, idx, offset, len)
            };
            match planned {
                Ok(plan) => {
                    batch.push(plan.first);
                    plan.second.into_iter().for_each(|d| batch.push(d));
                    k.held(i).store(plan.key, Relaxed);
                    packets += 1;
                    bytes += u64::from(len);
                }
                Err(why) => {
                    k.dropped(why);
                    k.held(i).store(NO_BUFFER, Relaxed);
                    left_out = true;
                    if why == Drop::BadBuffer {
                        result = Err(BadSlot);
                    }
                }
            }
            if flags & (NS_BUF_CHANGED | NS_REPORT) != 0 {
                slot.flags.store(flags & !(NS_BUF_CHANGED | NS_REPORT), Relaxed);
            }
            i = next_slot(i, n);
        }
        k.hand_over(batch.end(), i, || {
            batch.publish();
        });
        k.count(packets, bytes);
        if left_out {
            // No completion will tell of these slots.
            k.advance_tx_tail();
        }
        result
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
        if plan.second.is_some() && !self.plan.multi_buffer { Err(Drop::TooLong) } else { Ok(plan) }
    }

    /// One frame of several slots, from `first`; it is sent whole or not at all.
    #[cold]
    fn chain(&self, k: &Kring, batch: &mut crate::xsk::TxBatch<'_>, first: u32, head: u32) -> Chain {
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
        if !self.plan.multi_buffer || slots > MAX_CHAIN {
            return give_up(Drop::BadChain);
        }
        if !batch.fits(2 * slots) {
            return Chain::Wait;
        }
        let mut total = 0;
        for i in walk.clone() {
            let slot = k.slot(i);
            let (idx, offset) = (slot.buf_idx.load(Relaxed), k.offset(slot));
            let len = u32::from(slot.len.load(Relaxed)).min(BUF_SIZE - offset);
            if !k.is_buffer(idx) || len == 0 {
                batch.abandon_frame();
                return give_up(if len == 0 { Drop::BadChain } else { Drop::BadBuffer });
            }
            let plan = self.plan.geometry.transmit_at(idx, offset, len, i != last);
            batch.push(plan.first);
            plan.second.into_iter().for_each(|d| batch.push(d));
            k.held(i).store(plan.key, Relaxed);
            slot.flags.fetch_and(!(NS_BUF_CHANGED | NS_REPORT), Relaxed);
            total += len;
        }
        Chain::Sent(next, total)
    }

    /// Tells the kernel until it has taken everything or takes no more.
    #[inline]
    fn kick(&self, k: &Kring) {
        let (end, mut at) = self.tx.0.positions();
        while at != end && self.tx.0.needs_wakeup() {
            let answer = xdp::kick_tx(self.socket.as_raw_fd());
            let now = self.tx.0.positions().1;
            if self.down.load(Relaxed) != (answer == Err(Errno(libc::ENETDOWN))) {
                self.down.store(!self.down.load(Relaxed), Relaxed);
            }
            let again = match answer {
                Ok(()) => true,
                // A frame was refused (EBUSY), or memory or room is short for the moment: the rest is still queued.
                Err(Errno(libc::EBUSY | libc::EAGAIN | libc::ENOBUFS | libc::EINTR)) => true,
                Err(e) => {
                    // Down: nothing moves until it is up.
                    note(k, e);
                    false
                }
            };
            if !again || now == at {
                break;
            }
            at = now;
        }
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
        let result = self.submit(k);
        self.kick(k);
        if k.state().rcur.load(Relaxed) == k.hwtail() {
            // The program has nothing left to fill: what came back meanwhile decides whether it sleeps.
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
        if self.plan.geometry == Geometry::Unaligned {
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
        let fill = Fill::map(&*socket, xdp::Which::Fill, plan.rx_size)?;
        Ok(NicRx { fill, rx: Rx::map(&*socket, plan.rx_size)?, plan, socket })
    }

    /// The same over rings that are mapped already: for a stand-in of the kernel's side.
    pub fn over(fill: Fill, rx: Rx, plan: NicPlan, socket: Arc<Fd>) -> NicRx {
        NicRx { fill, rx, plan, socket }
    }

    /// Hands every slot's buffer of a fresh ring to the kernel.
    pub fn start(&self, k: &Kring) -> Result<(), QueueError> {
        debug_assert!(k.dir() == Dir::Rx && k.hwcur() == k.hwtail());
        let mut slots = 0..k.num_slots();
        self.fill.produce(|| {
            let i = slots.next()?;
            let idx = k.slot(i).buf_idx.load(Relaxed);
            k.held(i).store(idx, Relaxed);
            Some(self.plan.geometry.fill(idx))
        })?;
        Ok(())
    }

    /// Slots `[hwcur, rhead)` go to the fill ring.
    #[inline]
    fn release(&self, k: &Kring) -> Result<(), BadSlot> {
        let (head, n) = (k.rhead(), k.num_slots());
        let i = Cell::new(k.hwcur());
        if i.get() == head {
            return Ok(());
        }
        let mut result = Ok(());
        let next = || {
            while i.get() != head {
                let (at, slot) = (i.get(), k.slot(i.get()));
                i.set(next_slot(at, n));
                let idx = slot.buf_idx.load(Relaxed);
                if k.is_buffer(idx) {
                    k.held(at).store(idx, Relaxed);
                    return Some(self.plan.geometry.fill(idx));
                }
                // The slot gives nothing to the kernel: the ring works on with one buffer less.
                k.held(at).store(NO_BUFFER, Relaxed);
                k.dropped(Drop::BadBuffer);
                result = Err(BadSlot);
            }
            None
        };
        let sent = self.fill.produce_by(next, |at, publish| k.hand_over(at, i.get(), publish));
        // Slots that gave nothing are done with too.
        k.set_hwcur(i.get());
        if sent.is_err() {
            result = Err(BadSlot);
        }
        if self.fill.needs_wakeup() {
            // Nothing to do about an error: the driver asks again.
            let _ = xdp::kick_rx(self.socket.as_raw_fd());
        }
        result
    }

    /// Gives one buffer back to the kernel at once.
    #[cold]
    fn refill(&self, idx: u32) -> bool {
        let mut once = Some(self.plan.geometry.fill(idx));
        self.fill.produce(|| once.take()).is_ok()
    }

    /// Received descriptors become slots from `hwtail` on.
    #[inline]
    fn receive(&self, k: &Kring) -> Result<(), BadSlot> {
        let bounced = Cell::new(None);
        loop {
            let received = self.receive_until(k, &bounced);
            // Only now that its descriptor is gone: a death in between must not give the kernel a buffer twice.
            match bounced.take() {
                Some(idx) if received.is_ok() && self.refill(idx) => {}
                _ => return received,
            }
        }
    }

    /// The same, up to a frame that cannot be received, whose buffer goes to `bounced`.
    #[inline]
    fn receive_until(&self, k: &Kring, bounced: &Cell<Option<u32>>) -> Result<(), BadSlot> {
        let (n, stop) = (k.num_slots(), k.rx_stop());
        let next = Cell::new(k.hwtail());
        let (mut packets, mut bytes) = (0, 0);
        let take = |addr, len, more| {
            let at = next.get();
            if at == stop || bounced.get().is_some() {
                return false;
            }
            let (idx, shift) = self.plan.geometry.received(addr);
            let idx = u32::try_from(idx).unwrap_or(NO_BUFFER);
            if !k.is_buffer(idx) || len > BUF_SIZE || !k.take_rx(at, idx) {
                k.dropped(Drop::Foreign);
                return true;
            }
            let slot = k.slot(at);
            let offset = k.offset(slot);
            if offset + len > BUF_SIZE {
                // What the kernel wrote does not fit behind the offset. The slot stays the kernel's, with this buffer.
                k.held(at).store(idx, Relaxed);
                k.dropped(Drop::TooLong);
                bounced.set(Some(idx));
                return true;
            }
            if shift != i64::from(offset) {
                place(k, idx, shift, offset, len);
            }
            let mut flags = if more { NS_MOREFRAG } else { 0 };
            if slot.buf_idx.load(Relaxed) != idx {
                slot.buf_idx.store(idx, Relaxed);
                flags |= NS_BUF_CHANGED;
            }
            slot.len.store(len as u16, Relaxed);
            slot.flags.store(flags, Relaxed);
            packets += u64::from(!more);
            bytes += u64::from(len);
            next.set(next_slot(at, n));
            true
        };
        let taken = self.rx.consume_by(take, |at, publish| k.take_over(at, next.get(), publish));
        if packets > 0 {
            k.count(packets, bytes);
        }
        taken.map(drop).map_err(|_| BadSlot)
    }
}

/// Moves a frame to where its slot has it: behind the offset that the program asked for, else to the start of the buffer, if
/// an XDP program that we did not write moved it. The kernel knows one place for all frames, hence the copy.
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
        let received = self.receive(k);
        released.and(received)
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
