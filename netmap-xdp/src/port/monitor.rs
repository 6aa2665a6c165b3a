//! Monitors: receive rings that are filled from the rings of another port.
//!
//! A monitored ring is *tapped*: [`PortRing::sync`](super::PortRing::sync), in whatever thread or process it runs, delivers to
//! the monitors what passes. A copy monitor gets a copy before the packet is sent, and when it arrives, which where a peer
//! fills the ring is before the monitored program looks: the taps of arrivals at one end of a pipe are on the transmit ring
//! of the other end, and a receive ring of a switch is shown to its monitors by the sender ([`show`]). A zero-copy monitor
//! gets the buffer itself once its user is done with it (sent, or given back by the program), and a buffer of its own in
//! exchange; a second one taps the first, and so on.
//!
//! ```text
//! ring state    taps: 0, or a number that changes with the set of monitors; written by the engine, under the ring's lock
//!               shown: how far a transmit ring, or a receive ring of a switch, was shown to copy monitors
//!               tap_lock: of a receive ring of a switch, held by whoever shows it
//! Taps          the set that this process has mapped, and its number: a sync that finds another one stops (Synced::Stale)
//! Tap           monitor ring: peer_tail is where the taps write, under tap_lock; hwcur is what its reader has given back
//! ```
//! A full monitor ring loses packets and counts them; nothing here waits for a reader. Two rings at most fill a monitor ring
//! (transmit and receive of one number), and hold `tap_lock` for a few packets at a time.

use super::{BadSlot, Carrier, Wake};
use crate::abi::{NS_BUF_CHANGED, NS_MOREFRAG, NS_TXMON};
use crate::index::{distance, next_slot};
use crate::ring::{Dir, Drop, Kring, NO_BUFFER};
use crate::shm::{Hold, Patience};
use crate::sync::{AtomicU32, Ordering::*, fence};
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError, TryLockError};

/// Packets that are delivered under one hold of a monitor ring's `tap_lock`.
const BATCH: u32 = 32;
/// How often somebody who shows what arrived looks for more: who reports meanwhile does not wait. What is left then is
/// shown by the receiver, who is woken.
const ROUNDS: u32 = 8;

/// The transmit ring of a monitor: nothing can be sent.
pub struct MonitorTx;

/// A receive ring of a monitor.
pub struct MonitorRx {
    wake: Wake,
}

impl MonitorRx {
    /// `wake` is what taps write to.
    pub fn new(wake: Wake) -> MonitorRx {
        MonitorRx { wake }
    }
}

impl Carrier for MonitorTx {
    fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
        if k.hwcur() == k.rhead() { Ok(()) } else { Err(BadSlot) }
    }

    fn signal(&self) -> Option<(RawFd, i32)> {
        None
    }
}

impl Carrier for MonitorRx {
    #[inline]
    fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
        // SYNC monitor-tail: acquire pairs with the release in `Tap::deliver`: the slots before the tail are filled.
        let tail = k.state().peer_tail.load(Acquire);
        if tail < k.num_slots() {
            k.set_hwtail(tail);
        }
        // SYNC monitor-free: release pairs with the acquire in `Tap::deliver`: what the reader saw of the slots that it gives
        // back, it saw before.
        fence(Release);
        k.set_hwcur(k.rhead());
        Ok(())
    }

    fn signal(&self) -> Option<(RawFd, i32)> {
        self.wake.signal()
    }

    fn arm(&self, k: &Kring) -> bool {
        self.wake.arm(k)
    }
}

/// How a monitor gets packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapKind {
    /// Copies, as they are sent and received.
    Copy,
    /// Copies of what a peer sends into the monitored ring: a tap of the peer's transmit ring.
    Arrival,
    /// The buffers, when they are done with.
    Exchange,
    /// The buffers that another zero-copy monitor is done with.
    Chain,
}

/// One monitor ring, as the ring that it monitors sees it.
pub struct Tap {
    ring: Kring,
    wake: Wake,
    kind: TapKind,
    patience: Patience,
}

impl Tap {
    /// `ring` is the monitor's; `wake` wakes its reader.
    pub fn new(ring: Kring, wake: Wake, kind: TapKind) -> Tap {
        Tap { ring, wake, kind, patience: Patience::lasting() }
    }

    /// Whether the monitor gets copies.
    fn copies(&self) -> bool {
        matches!(self.kind, TapKind::Copy | TapKind::Arrival)
    }

    /// Counts packets that the monitor does not get. Not only under the lock, so with a locked instruction.
    #[cold]
    fn lost(&self, n: u32, why: Drop) {
        self.ring.state().drops[why as usize].fetch_add(n.into(), Relaxed);
    }

    /// Delivers `count` slots of `from`, the first of which is `first`; the latest of them if not all fit.
    fn deliver(&self, client: u32, from: &Kring, first: u32, count: u32) {
        let (n, m, s) = (from.num_slots(), self.ring.num_slots(), self.ring.state());
        let (mut at, mut left, mut some) = (first, count, false);
        while left > 0 {
            let Some(_hold) = Hold::take(&s.tap_lock, client, &self.patience) else { break };
            let (mut to, hwcur) = (s.peer_tail.load(Relaxed), self.ring.hwcur());
            // SYNC monitor-free: see `MonitorRx::sync`.
            fence(Acquire);
            if to >= m || hwcur >= m {
                break;
            }
            let free = m - 1 - distance(hwcur, to, m);
            if let Some(over @ 1..) = left.checked_sub(free) {
                self.lost(over, Drop::Full);
                at = (at + over) % n;
                left = free;
            }
            let batch = left.min(BATCH);
            let (mut packets, mut bytes) = (0, 0);
            for _ in 0..batch {
                match self.pass(from, at, to) {
                    Some((flags, len)) => {
                        to = next_slot(to, m);
                        packets += u64::from(flags & NS_MOREFRAG == 0);
                        bytes += u64::from(len);
                    }
                    None => self.lost(1, Drop::BadBuffer),
                }
                at = next_slot(at, n);
            }
            left -= batch;
            some |= batch > 0;
            self.ring.count(packets, bytes);
            // SYNC monitor-tail: release pairs with the acquire in `MonitorRx::sync`.
            s.peer_tail.store(to, Release);
        }
        if left > 0 {
            self.lost(left, Drop::Full);
        }
        if some {
            self.wake.rouse(&self.ring);
        }
    }

    /// Slot `i` of `from` becomes slot `j` of the monitor, by whichever way this one has. Nothing if either names no buffer:
    /// both are written by programs.
    #[inline]
    fn pass(&self, from: &Kring, i: u32, j: u32) -> Option<(u16, u16)> {
        let (source, target) = (from.slot(i), self.ring.slot(j));
        let (idx, theirs) = (source.buf_idx.load(Relaxed), target.buf_idx.load(Relaxed));
        let (at, to) = (from.buffer(idx)?, self.ring.buffer(theirs)?);
        let most = |k: &Kring, offset: u32| (k.buf_size() - offset).min(u16::MAX.into()) as u16;
        let mut len = source.len.load(Relaxed).min(most(from, 0));
        let flags = source.flags.load(Relaxed);
        if self.copies() {
            let (skip, room) = (from.offset(source), self.ring.offset(target));
            len = len.min(most(from, skip)).min(self.ring.rx_room(target).min(u16::MAX.into()) as u16);
            from.region().copy(at + u64::from(skip), self.ring.region(), to + u64::from(room), len.into()).ok()?;
        } else {
            source.len.store(target.len.load(Relaxed), Relaxed);
            // Should this process die in between, no slot would name the monitor's buffer: the engine finds it here.
            self.ring.held(j).store(theirs, Relaxed);
            target.buf_idx.store(idx, Relaxed);
            source.buf_idx.store(theirs, Relaxed);
            if from.held(i).load(Relaxed) == idx {
                // Some rings remember what their program was given.
                from.held(i).store(theirs, Relaxed);
            }
            source.flags.store(flags | NS_BUF_CHANGED, Relaxed);
            self.ring.held(j).store(NO_BUFFER, Relaxed);
        }
        let sent = match (from.dir(), self.kind) {
            (_, TapKind::Arrival) => 0,
            (Dir::Tx, _) => NS_TXMON,
            (Dir::Rx, TapKind::Chain) => flags & NS_TXMON,
            (Dir::Rx, _) => 0,
        };
        target.len.store(len, Relaxed);
        target.flags.store((flags & !NS_TXMON) | sent, Relaxed);
        Some((flags, len))
    }
}

/// The monitors of one ring, as far as this process has them mapped.
#[derive(Default)]
pub struct Taps {
    number: AtomicU32,
    set: Mutex<Vec<Tap>>,
}

impl Taps {
    /// Whether the ring, whose lock is held, has other monitors than these.
    #[inline]
    pub fn stale(&self, k: &Kring) -> bool {
        k.state().taps.load(Relaxed) != self.number.load(Relaxed)
    }

    /// Whether there are none.
    #[inline]
    pub fn none(&self) -> bool {
        self.number.load(Relaxed) == 0
    }

    /// From now on these are the monitors; `number` is that of the ring's state when they were.
    pub fn replace(&self, number: u32, set: Vec<Tap>) {
        let mut now = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, set);
        self.number.store(number, Relaxed);
        drop(now);
        drop(before);
    }

    /// Syncs `k`, whose lock is held, and delivers what passes. `None`: the set is just being replaced.
    #[cold]
    pub fn sync(&self, client: u32, k: &Kring, carrier: &dyn Carrier) -> Option<Result<(), BadSlot>> {
        let set = match self.set.try_lock() {
            Ok(set) => set,
            Err(TryLockError::Poisoned(set)) => set.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let deliver = |copies: bool, first: u32, end: u32| {
            let count = distance(first, end, k.num_slots());
            let fitting = set.iter().filter(|t| t.copies() == copies);
            fitting.for_each(|t| t.deliver(client, k, first, count));
        };
        let (hwcur, hwtail, n) = (k.hwcur(), k.hwtail(), k.num_slots());
        if k.dir() == Dir::Rx {
            deliver(false, hwcur, k.rhead());
            if carrier.filled_by_peers() {
                show(client, k, self.number.load(Relaxed), &set);
                return Some(carrier.sync(k));
            }
            let moved = carrier.sync(k);
            deliver(true, hwtail, k.hwtail());
            return Some(moved);
        }
        // Slots that were shown and that the carrier did not take are not shown again.
        let shown = &k.state().shown;
        let fresh = shown.load(Relaxed);
        let fresh = if fresh < n && distance(hwcur, fresh, n) <= distance(hwcur, k.rhead(), n) { fresh } else { hwcur };
        deliver(true, fresh, k.rhead());
        shown.store(k.rhead(), Relaxed);
        let moved = carrier.sync(k);
        deliver(false, next_slot(hwtail, n), next_slot(k.hwtail(), n));
        Some(moved)
    }
}

/// Shows what senders have reported in `k`, a receive ring of a switch, to the copy monitors among `taps`, which is set number
/// `number`: each packet once and in order, whoever comes first, sender or receiver. The receiver takes what was shown.
/// Returns whether there was anything.
#[cold]
pub fn show(client: u32, k: &Kring, number: u32, taps: &[Tap]) -> bool {
    let (s, n, mut any) = (k.state(), k.num_slots(), false);
    for _ in 0..ROUNDS {
        // SYNC shown: this fence and the one below are the two sides of one handshake: who finds the lock taken has reported
        // before, and either its holder sees that when it looks again, or the lock was free.
        fence(SeqCst);
        let Some(hold) = Hold::try_take(&s.tap_lock, client) else { break };
        // SYNC vale-tail: acquire pairs with the release in `lease::advance`: the slots before the tail are filled.
        let (from, to) = (s.shown.load(Relaxed), s.peer_tail.load(Acquire));
        if s.taps.load(Relaxed) != number || to >= n {
            break;
        }
        if from < n && from != to {
            taps.iter().filter(|t| t.copies()).for_each(|t| t.deliver(client, k, from, distance(from, to, n)));
            any = true;
        }
        // SYNC vale-shown: release pairs with the acquire in `ValeRx::sync`: what the receiver writes comes after the copies.
        s.shown.store(to, Release);
        drop(hold);
        // SYNC shown: see above.
        fence(SeqCst);
        if s.peer_tail.load(Relaxed) == to {
            break;
        }
    }
    any
}

#[cfg(test)]
mod tests;
