//! A lane carries packets from a receive ring to a transmit ring of another port in the same region, by exchanging buffers:
//! how a port that is attached to a switch is served.
//!
//! A lane is the only user of its two rings. It keeps its cursors to itself, since the rings lie in memory that senders of the
//! switch map, and believes of what it reads there only what it has checked. The engine's threads call it, one at a time.

use super::{PortRing, Synced};
use crate::abi::{NS_BUF_CHANGED, NS_MOREFRAG};
use crate::index::{distance, next_slot};
use crate::ring::{Cursors, Dir, Kring};
use crate::sync::Ordering::*;

/// Slots that one turn carries at most, so that the lanes of a thread take turns.
const BATCH: u32 = 256;

/// A ring and the lane's place in it: `head` of a program.
struct End {
    ring: PortRing,
    head: u32,
}

/// What a turn of a lane found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Slots carried.
    pub carried: u32,
    /// What carries the receive ring is gone, or the transmit ring.
    pub gone: [bool; 2],
}

/// See the head of the file.
pub struct Lane {
    from: End,
    to: End,
    client: u32,
}

impl End {
    fn new(ring: PortRing) -> End {
        End { head: ring.kring().hwcur() % ring.kring().num_slots(), ring }
    }

    fn kring(&self) -> &Kring {
        self.ring.kring()
    }

    /// Hands over what lies before `head` and takes in what there is; false: what carries the ring is gone.
    #[inline]
    fn sync(&mut self, client: u32) -> bool {
        match self.ring.sync_at(client, Cursors { head: self.head, cur: self.head }).0 {
            Synced::Done | Synced::Busy | Synced::Stale => true,
            Synced::Stopped => false,
            Synced::Reinit => {
                // Somebody scribbled. What was under way is lost: a receive ring gives everything back.
                let k = self.kring();
                let at = if k.dir() == Dir::Rx { k.hwtail() } else { k.hwcur() };
                self.head = at % k.num_slots();
                true
            }
        }
    }

    /// Slots that are the lane's now.
    #[inline]
    fn mine(&self) -> u32 {
        let (tail, n) = (self.kring().hwtail(), self.kring().num_slots());
        if tail < n { distance(self.head, tail, n) } else { 0 }
    }

    #[inline]
    fn advance(&mut self) {
        self.head = next_slot(self.head, self.kring().num_slots());
    }
}

impl Lane {
    /// From a receive ring to a transmit ring that nobody else syncs; `client` (not 0) is what their locks say meanwhile.
    pub fn new(from: PortRing, to: PortRing, client: u32) -> Lane {
        Lane { from: End::new(from), to: End::new(to), client }
    }

    /// The receive ring.
    pub fn from(&self) -> &PortRing {
        &self.from.ring
    }

    /// The transmit ring.
    pub fn to(&self) -> &PortRing {
        &self.to.ring
    }

    /// Carries what there is, up to a batch.
    pub fn turn(&mut self) -> Turn {
        let mut turn = Turn::default();
        turn.gone[0] = !self.from.sync(self.client);
        let waiting = self.from.mine().min(BATCH);
        let stalled = self.to.ring.carrier().stalled();
        if stalled || self.to.mine() < waiting {
            turn.gone[1] = !self.to.sync(self.client);
        }
        let n = waiting.min(self.to.mine());
        for _ in 0..n {
            self.exchange();
        }
        if n > 0 {
            // What was emptied can be filled before anybody has seen what it held.
            turn.gone[0] |= !self.from.sync(self.client);
            turn.gone[1] |= !self.to.sync(self.client);
        }
        turn.carried = n;
        turn
    }

    /// Whether packets wait for room at the far end, or for the kernel to take them.
    pub fn waiting(&self) -> bool {
        self.from.mine() > 0 || self.to.ring.carrier().stalled()
    }

    /// Moves the packet of one slot; the receive ring gets an empty buffer for it.
    #[inline]
    fn exchange(&mut self) {
        let (a, b) = (self.from.kring().slot(self.from.head), self.to.kring().slot(self.to.head));
        let (full, empty) = (a.buf_idx.load(Relaxed), b.buf_idx.load(Relaxed));
        if !self.from.kring().is_buffer(full) || !self.to.kring().is_buffer(empty) {
            // Somebody scribbled: the packet is lost, and both slots stay as they are, for their rings to judge.
            self.from.advance();
            return;
        }
        b.buf_idx.store(full, Relaxed);
        b.len.store(a.len.load(Relaxed), Relaxed);
        // The high bits mean a destination in a switch and nothing on a line; others are for programs.
        b.flags.store(a.flags.load(Relaxed) & NS_MOREFRAG | NS_BUF_CHANGED, Relaxed);
        a.buf_idx.store(empty, Relaxed);
        a.flags.store(NS_BUF_CHANGED, Relaxed);
        self.from.advance();
        self.to.advance();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BadSlot, Carrier};
    use super::*;
    use crate::index::prev_slot;
    use crate::ring::{KringPlace, RingPlace};
    use crate::shm::Memory;
    use crate::sync::AtomicU32;
    use crate::sys::sealed_memfd;
    use std::os::fd::RawFd;
    use std::sync::Arc;

    /// A receive ring into which a packet falls for each that is asked for.
    struct Source(Arc<AtomicU32>);
    /// A transmit ring that takes as many as it may.
    struct Sink(Arc<AtomicU32>);

    impl Carrier for Source {
        fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
            k.set_hwcur(k.rhead());
            let (n, mut at) = (k.num_slots(), k.hwtail());
            while next_slot(at, n) != k.hwcur() && self.0.load(Relaxed) > 0 {
                k.slot(at).len.store((self.0.fetch_sub(1, Relaxed) % 2000) as u16, Relaxed);
                k.slot(at).flags.store(NS_MOREFRAG | 0x700, Relaxed);
                at = next_slot(at, n);
            }
            k.set_hwtail(at);
            Ok(())
        }

        fn signal(&self) -> Option<(RawFd, i32)> {
            None
        }
    }

    impl Carrier for Sink {
        fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
            while k.hwcur() != k.rhead() && self.0.load(Relaxed) > 0 {
                self.0.fetch_sub(1, Relaxed);
                k.set_hwcur(next_slot(k.hwcur(), k.num_slots()));
            }
            k.set_hwtail(prev_slot(k.hwcur(), k.num_slots()));
            Ok(())
        }

        fn signal(&self) -> Option<(RawFd, i32)> {
            None
        }
    }

    struct Bench {
        lane: Lane,
        offered: Arc<AtomicU32>,
        taken: Arc<AtomicU32>,
    }

    fn bench(slots: [u32; 2]) -> Bench {
        let memory = |size| Memory::map(&sealed_memfd(c"test", size).unwrap(), size, 0, false).unwrap();
        let (region, private) = (memory(1 << 20), memory(1 << 16));
        let ring = |dir: Dir, offset, state, first| {
            let slots = slots[1 - dir as usize];
            let place = RingPlace { offset, slots, buffers_at: 1 << 18, buffers: 300, buf_size: 2048, dir, id: 0 };
            let k = Kring::attach(&region, place, &private, KringPlace { offset: state, room: 0 }).unwrap();
            (0..slots).for_each(|i| k.slot(i).buf_idx.store(first + i, Relaxed));
            k.format();
            k
        };
        let (offered, taken) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let from = PortRing::new(ring(Dir::Rx, 0, 0, 2), Box::new(Source(offered.clone())));
        let to = PortRing::new(ring(Dir::Tx, 1 << 17, 1 << 15, 2 + slots[0]), Box::new(Sink(taken.clone())));
        Bench { lane: Lane::new(from, to, 9), offered, taken }
    }

    fn every_buffer_once(lane: &Lane) {
        let of = |r: &PortRing| -> Vec<u32> {
            (0..r.kring().num_slots()).map(|i| r.kring().slot(i).buf_idx.load(Relaxed)).collect()
        };
        let mut all = [of(lane.from()), of(lane.to())].concat();
        all.sort_unstable();
        let expected: Vec<u32> = (2..2 + all.len() as u32).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn packets_pass_in_batches_whatever_the_sizes_of_the_rings() {
        for slots in [[16, 16], [7, 64], [64, 5], [128, 128]] {
            let mut b = bench(slots);
            b.offered.store(1000, Relaxed);
            b.taken.store(2000, Relaxed);
            let mut carried = 0;
            for _ in 0..2000 {
                carried += b.lane.turn().carried;
            }
            assert_eq!((carried, b.taken.load(Relaxed)), (1000, 1000), "{slots:?}");
            assert!(!b.lane.waiting());
            every_buffer_once(&b.lane);
        }
    }

    #[test]
    fn a_far_end_that_takes_nothing_blocks_and_loses_nothing() {
        let mut b = bench([16, 8]);
        b.offered.store(100, Relaxed);
        let carried: u32 = (0..50).map(|_| b.lane.turn().carried).sum();
        assert_eq!(carried, 7, "as much as fits");
        assert!(b.lane.waiting());
        b.taken.store(100, Relaxed);
        let carried: u32 = (0..50).map(|_| b.lane.turn().carried).sum();
        assert_eq!((carried, b.offered.load(Relaxed)), (93, 0));
        every_buffer_once(&b.lane);
    }

    #[test]
    fn marks_for_a_switch_do_not_pass_and_chains_do() {
        let mut b = bench([8, 8]);
        b.offered.store(1, Relaxed);
        b.taken.store(1, Relaxed);
        assert_eq!(b.lane.turn().carried, 1);
        assert_eq!(b.lane.to().kring().slot(0).flags.load(Relaxed), NS_MOREFRAG | NS_BUF_CHANGED);
        assert_eq!(b.lane.to().kring().slot(0).len.load(Relaxed), 1);
    }

    #[test]
    fn scribbled_rings_neither_panic_nor_hang() {
        let mut b = bench([16, 16]);
        let mut x = 1u32;
        b.taken.store(u32::MAX, Relaxed);
        for _ in 0..20_000 {
            let mut random = || {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if x & 0x100 == 0 { x >> 16 } else { (x >> 16) % 20 }
            };
            for ring in [b.lane.from(), b.lane.to()] {
                let (k, s) = (ring.kring(), ring.kring().state());
                k.slot(random() % 16).buf_idx.store(random(), Relaxed);
                s.hwcur.store(random() % 16, Relaxed);
                s.hwtail.store(random() % 16, Relaxed);
                s.rtail.store(random(), Relaxed);
                s.rhead.store(random(), Relaxed);
            }
            b.offered.store(random() % 4, Relaxed);
            b.lane.turn();
        }
    }

    #[test]
    fn a_ring_that_lost_what_carried_it_is_told_apart() {
        let mut b = bench([8, 8]);
        b.lane.from().kring().state().stopped.store(1, Relaxed);
        assert_eq!(b.lane.turn().gone, [true, false]);
    }
}
