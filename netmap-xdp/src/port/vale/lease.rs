//! Several senders, one receive ring: a sender reserves slots under a lock, fills them without it, and reports them done.
//!
//! ```text
//!   hwcur .. peer_tail   the receiver's           peer_tail .. lease   reserved by senders
//! ```
//! `held` of the first slot of a reservation says whose it is, or that it is done and where it ends; `peer_tail` passes over
//! reservations in their order, whoever finishes first. The lock ([`Hold`]) is never held while packets are copied, so a
//! sender that was put to sleep in the middle of a copy delays packets and loses none. What a dead sender leaves behind, lock
//! and reservations, [`bury`] clears.
//!
//! All of it lies in memory that other processes write: indexes are checked, loops are bounded.

use crate::index::{distance, next_slot};
use crate::ring::{Drop, Kring};
use crate::shm::{Hold, Patience};
use crate::sync::Ordering::*;

/// What the engine's own senders, which serve attached ports, write into locks and reservations: no client has this number.
/// They die together.
pub const SERVER: u32 = (1 << 31) - 2;
/// In `held`: a reservation that is being filled, by the client in the other bits.
const FILLING: u32 = 1 << 31;

/// Slots that a sender may fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The first.
    pub start: u32,
    /// How many.
    pub slots: u32,
}

#[inline]
fn ahead(i: u32, by: u32, n: u32) -> u32 {
    let to = i + by;
    if to >= n { to - n } else { to }
}

/// Reserves up to `want` slots of receive ring `k` for `client` (not 0, below 2^31). None: the ring is full or nobody gets at
/// it, and `packets` are counted as dropped; or it is gone, or in a state that cannot be.
#[inline]
pub fn reserve(k: &Kring, want: u32, packets: u32, client: u32, patience: &Patience) -> Option<Lease> {
    let Some(_hold) = Hold::take(&k.state().producer, client, patience) else {
        k.dropped_many(Drop::NoRoom, packets.into());
        return None;
    };
    let (s, n) = (k.state(), k.num_slots());
    if s.stopped.load(Relaxed) != 0 {
        return None;
    }
    // SYNC vale-cur: acquire pairs with the release in `ValeRx::sync`: the receiver is done with slots before hwcur.
    let (start, cur) = (s.lease.load(Relaxed), s.hwcur.load(Acquire));
    if start >= n || cur >= n {
        return None;
    }
    let slots = want.min(n - 1 - distance(cur, start, n));
    if slots == 0 {
        k.dropped_many(Drop::NoRoom, packets.into());
        return None;
    }
    k.held(start).store(FILLING | client, Relaxed);
    s.lease.store(ahead(start, slots, n), Relaxed);
    Some(Lease { start, slots })
}

/// The first `used` slots of a reservation hold packets, and `lost` packets found no room; returns whether the receiver
/// has something new.
#[inline]
pub fn report(k: &Kring, lease: Lease, used: u32, lost: u32, client: u32, patience: &Patience) -> bool {
    let (s, n) = (k.state(), k.num_slots());
    if lost > 0 {
        k.dropped_many(Drop::NoRoom, lost.into());
    }
    let Some(_hold) = Hold::take(&k.state().producer, client, patience) else {
        // Whoever holds the lock passes over it later, with a reservation of its own.
        let reserved = ahead(lease.start, lease.slots, n);
        empty(k, ahead(lease.start, used.min(lease.slots), n), reserved);
        // SYNC vale-mark: release pairs with the acquire in `advance`: the slots of the reservation are filled.
        k.held(lease.start).store(reserved + 1, Release);
        return false;
    };
    let mut end = ahead(lease.start, used.min(lease.slots), n);
    if used < lease.slots {
        let reserved = ahead(lease.start, lease.slots, n);
        if s.lease.load(Relaxed) == reserved {
            s.lease.store(end, Relaxed);
        } else {
            // Somebody reserved behind this: empty packets fill the gap, as the original has it.
            empty(k, end, reserved);
            end = reserved;
        }
    }
    if end == lease.start {
        k.held(end).store(0, Relaxed);
        return false;
    }
    k.held(lease.start).store(end + 1, Relaxed);
    advance(k)
}

/// Marks slots as packets without bytes.
fn empty(k: &Kring, from: u32, to: u32) {
    let mut i = from;
    for _ in 0..k.num_slots() {
        if i == to {
            break;
        }
        k.slot(i).len.store(0, Relaxed);
        k.slot(i).flags.store(0, Relaxed);
        i = next_slot(i, k.num_slots());
    }
}

/// Lets `peer_tail` pass over reservations that are done; the lock is held.
#[inline]
fn advance(k: &Kring) -> bool {
    let (s, n) = (k.state(), k.num_slots());
    let (first, lease) = (s.peer_tail.load(Relaxed), s.lease.load(Relaxed));
    let mut at = first;
    for _ in 0..n {
        if at >= n || at == lease {
            break;
        }
        // SYNC vale-mark: acquire pairs with the release in `report`, of a mark that was set without the lock.
        let mark = k.held(at).load(Acquire);
        if mark == 0 || mark > n {
            break;
        }
        k.held(at).store(0, Relaxed);
        at = mark - 1;
    }
    if at == first {
        return false;
    }
    // SYNC vale-tail: release pairs with the acquire in `ValeRx::sync`: the slots before the tail are filled.
    s.peer_tail.store(at, Release);
    true
}

/// No sender reserves from now on; false if the lock could not be had, because its holder is dead or stopped.
pub fn halt(k: &Kring, client: u32) -> bool {
    let hold = Hold::take(&k.state().producer, client, &Patience::none());
    k.state().stopped.store(1, Relaxed);
    hold.is_some()
}

/// Whether no reservation is being filled.
pub fn quiet(k: &Kring, client: u32) -> bool {
    let s = k.state();
    Hold::take(&k.state().producer, client, &Patience::none()).is_some_and(|_hold| {
        advance(k);
        s.peer_tail.load(Relaxed) == s.lease.load(Relaxed)
    })
}

/// A client died: its lock is opened, and what it reserved becomes empty packets. Returns whether the receiver has
/// something new. For whoever knows who is dead.
pub fn bury(k: &Kring, dead: u32, client: u32, patience: &Patience) -> bool {
    let (s, n) = (k.state(), k.num_slots());
    let inherited = Hold::inherit(&s.producer, dead, client);
    let died_inside = inherited.is_some();
    let Some(_hold) = inherited.or_else(|| Hold::take(&k.state().producer, client, patience)) else { return false };
    let lease = s.lease.load(Relaxed);
    let mut at = s.peer_tail.load(Relaxed);
    for _ in 0..n {
        if at >= n || lease >= n || at == lease {
            break;
        }
        // A reservation without a mark is one whose holder died between two stores of `advance`.
        let mark = k.held(at).load(Relaxed);
        let mut end = next_slot(at, n);
        while end != lease && k.held(end).load(Relaxed) == 0 {
            end = next_slot(end, n);
        }
        if mark == FILLING | dead || (mark == 0 && died_inside) {
            empty(k, at, end);
            k.held(at).store(end + 1, Relaxed);
        }
        at = end;
    }
    advance(k)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Dir, KringPlace, RingPlace};
    use crate::shm::Memory;
    use crate::sys::sealed_memfd;
    use std::time::Duration;

    fn ring(slots: u32) -> Kring {
        let map = |n| Memory::map(&sealed_memfd(c"test", n).unwrap(), n, 0, false).unwrap();
        let place = RingPlace { offset: 0, slots, buffers_at: 8192, buffers: 64, buf_size: 2048, dir: Dir::Rx, id: 0 };
        let k = Kring::attach(&map(1 << 18), place, &map(1 << 16), KringPlace { offset: 0, room: 0 }).unwrap();
        k.format();
        k
    }

    fn reserve(k: &Kring, want: u32, packets: u32, client: u32) -> Option<Lease> {
        super::reserve(k, want, packets, client, &Patience::lasting())
    }

    fn report(k: &Kring, lease: Lease, used: u32, lost: u32, client: u32) -> bool {
        super::report(k, lease, used, lost, client, &Patience::lasting())
    }

    fn bury(k: &Kring, dead: u32, client: u32) -> bool {
        super::bury(k, dead, client, &Patience::once())
    }

    fn tail(k: &Kring) -> u32 {
        k.state().peer_tail.load(Relaxed)
    }

    #[test]
    fn reservations_appear_in_their_order_whoever_is_done_first() {
        let k = ring(16);
        for round in 0..40 {
            let base = tail(&k);
            let (a, b, c) =
                (reserve(&k, 3, 3, 1).unwrap(), reserve(&k, 2, 2, 2).unwrap(), reserve(&k, 4, 4, 3).unwrap());
            assert!(!report(&k, c, 4, 0, 3) && !report(&k, b, 2, 0, 2));
            assert_eq!(tail(&k), base, "round {round}");
            assert!(report(&k, a, 3, 0, 1));
            assert_eq!(tail(&k), (base + 9) % 16);
            k.set_hwcur(tail(&k));
        }
    }

    #[test]
    fn a_full_ring_is_full_and_says_how_much_was_lost() {
        let k = ring(8);
        assert_eq!(reserve(&k, 100, 100, 1), Some(Lease { start: 0, slots: 7 }));
        assert_eq!(reserve(&k, 1, 1, 1), None);
        assert_eq!(k.drops()[Drop::NoRoom as usize].2, 1);
    }

    #[test]
    fn what_was_reserved_too_much_goes_back_or_becomes_empty_packets() {
        let k = ring(16);
        let a = reserve(&k, 8, 8, 1).unwrap();
        assert!(report(&k, a, 3, 0, 1));
        assert_eq!((tail(&k), k.state().lease.load(Relaxed)), (3, 3));
        let (a, b) = (reserve(&k, 4, 4, 1).unwrap(), reserve(&k, 2, 2, 2).unwrap());
        k.slot(4).len.store(99, Relaxed);
        assert!(report(&k, a, 1, 0, 1));
        assert_eq!((tail(&k), k.slot(4).len.load(Relaxed)), (7, 0));
        assert!(report(&k, b, 2, 0, 2));
        assert_eq!(tail(&k), 9);
        let a = reserve(&k, 4, 4, 1).unwrap();
        assert!(!report(&k, a, 0, 4, 1));
        assert_eq!((tail(&k), k.state().lease.load(Relaxed)), (9, 9));
    }

    #[test]
    fn a_sender_waits_for_one_that_lost_its_processor_with_the_lock() {
        let k = ring(16);
        for _ in 0..3 {
            k.state().producer.store(7, Relaxed);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(30));
                    k.state().producer.store(0, Release);
                });
                let lease = reserve(&k, 3, 3, 1).unwrap();
                assert!(report(&k, lease, 3, 0, 1));
            });
            k.set_hwcur(tail(&k));
        }
        assert_eq!(k.drops()[Drop::NoRoom as usize].2, 0);
    }

    #[test]
    fn what_was_sent_past_one_that_was_stopped_with_the_lock_arrives_when_it_goes_on() {
        let k = ring(16);
        let (stopped, lease) = (reserve(&k, 2, 2, 7).unwrap(), reserve(&k, 4, 4, 1).unwrap());
        (0..3).for_each(|i| k.slot(lease.start + i).len.store(99, Relaxed));
        k.state().producer.store(7, Relaxed);
        let start = std::time::Instant::now();
        let patience = Patience::lasting();
        assert!(!super::report(&k, lease, 3, 1, 1, &patience));
        assert_eq!(super::reserve(&k, 4, 4, 1, &patience), None);
        for _ in 0..20 {
            assert_eq!(super::reserve(&k, 4, 4, 1, &patience), None);
        }
        assert!(start.elapsed() < Duration::from_secs(2), "it was waited for again and again");
        assert_eq!((tail(&k), k.drops()[Drop::NoRoom as usize].2), (0, 1 + 21 * 4));
        k.state().producer.store(0, Relaxed);
        assert!(report(&k, stopped, 2, 0, 7));
        assert_eq!(tail(&k), 6);
        let lengths: Vec<_> = (2..6).map(|i| k.slot(i).len.load(Relaxed)).collect();
        assert_eq!(lengths, [99, 99, 99, 0]);
    }

    #[test]
    fn a_ring_that_is_halted_settles_with_the_last_mark_set_without_the_lock() {
        let k = ring(16);
        let lease = reserve(&k, 4, 4, 1).unwrap();
        k.state().producer.store(7, Relaxed);
        assert!(!halt(&k, 2) && !quiet(&k, 2));
        assert!(!super::report(&k, lease, 4, 0, 1, &Patience::none()));
        k.state().producer.store(0, Relaxed);
        assert!(quiet(&k, 2));
    }

    #[test]
    fn the_dead_are_buried_and_the_living_go_on() {
        let k = ring(16);
        let (_dead, alive) = (reserve(&k, 3, 3, 7).unwrap(), reserve(&k, 2, 2, 2).unwrap());
        let _dead_too = reserve(&k, 4, 4, 7).unwrap();
        assert!(!report(&k, alive, 2, 0, 2));
        k.state().producer.store(7, Relaxed);
        assert!(bury(&k, 7, 1));
        assert_eq!((tail(&k), k.state().producer.load(Relaxed)), (9, 0));
        assert!(quiet(&k, 1));
        assert!(halt(&k, 1) && reserve(&k, 1, 1, 2).is_none());
    }

    #[test]
    fn scribbled_state_neither_panics_nor_hangs() {
        let k = ring(16);
        let mut x = 1u32;
        for _ in 0..20_000 {
            let mut random = || {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if x & 0x100 == 0 { x >> 16 } else { (x >> 16) % 20 }
            };
            let s = k.state();
            s.lease.store(random(), Relaxed);
            s.peer_tail.store(random(), Relaxed);
            s.hwcur.store(random(), Relaxed);
            k.held(random() % 16).store(random(), Relaxed);
            if let Some(l) = reserve(&k, random() % 40, 1, 1) {
                report(&k, l, random() % 40, 0, 1);
            }
            bury(&k, 3, 1);
        }
    }

    /// Sends `count` packets of `len` bytes, as the forwarding does.
    fn send(k: &Kring, client: u32, count: u32, len: u16) {
        let Some(lease) = reserve(k, count, count, client) else { return };
        for i in 0..lease.slots {
            k.slot((lease.start + i) % k.num_slots()).len.store(len, Relaxed);
        }
        report(k, lease, lease.slots, count - lease.slots, client);
    }

    #[test]
    fn a_sender_that_dies_at_any_store_costs_its_own_packets_at_most() {
        use crate::sync::dying::dies_at;
        let mut deaths = 0;
        for wide in [false, true] {
            for n in 0..40 {
                let k = ring(16);
                // Somebody began before, and is done after.
                send(&k, 2, 5, 100);
                k.set_hwcur(5);
                let open = reserve(&k, 3, 3, 3).unwrap();
                let died = dies_at(n, || {
                    if wide {
                        // More than is used in the end, and more than once.
                        let lease = reserve(&k, 6, 6, 7).unwrap();
                        (0..2).for_each(|i| k.slot((lease.start + i) % 16).len.store(77, Relaxed));
                        report(&k, lease, 2, 4, 7);
                    }
                    send(&k, 7, 3, 77);
                });
                deaths += u32::from(died);
                (0..3).for_each(|i| k.slot(open.start + i).len.store(100, Relaxed));
                bury(&k, 7, 1);
                assert!(report(&k, open, 3, 0, 3), "store {n}");
                assert!(quiet(&k, 1), "store {n}: a reservation is left open");
                send(&k, 2, 2, 100);
                let (mut at, mut seen) = (5, Vec::new());
                while at != tail(&k) {
                    seen.push(k.slot(at).len.load(Relaxed));
                    at = next_slot(at, 16);
                }
                let (own, theirs): (Vec<u16>, Vec<u16>) = seen.iter().partition(|&&len| len == 100);
                assert_eq!(own.len(), 5, "store {n}: {seen:?}");
                assert!(theirs.iter().all(|&len| len == 0 || len == 77), "store {n}: {seen:?}");
                k.state().hwcur.store(at, Relaxed);
                assert_eq!(reserve(&k, 100, 100, 2).map(|l| l.slots), Some(15), "store {n}: slots are lost");
            }
        }
        assert!(deaths > 20, "{deaths}");
    }
}
