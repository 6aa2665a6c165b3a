//! What changes hands between a ring and the kernel's, so that a death in between leaves no doubt about it, and how the next
//! one to sync sets the ring right after that. For whoever holds the ring's lock.

use super::{Dir, Kring, NO_BUFFER};
use crate::index::distance;
use crate::sync::{AtomicU32, Ordering::*, compiler_fence};
use std::collections::HashSet;

impl Kring {
    /// What moves when slots are handed over: hwcur, and of a NIC's receive ring `filled`.
    #[inline]
    fn handed(&self) -> &AtomicU32 {
        match self.place.dir {
            Dir::Tx => &self.state.hwcur,
            Dir::Rx => &self.state.filled,
        }
    }

    /// Hands slots before `to` over by `publish`, which moves a producer to `at`, so that a death in between leaves no doubt
    /// about where hwcur, or `filled`, is: see [`Kring::recover_handed`].
    #[inline]
    pub fn hand_over(&self, at: u32, to: u32, publish: impl FnOnce()) {
        self.state.handed_at.store(at, Relaxed);
        self.state.handed_to.store(to, Relaxed);
        // SYNC death: a death is a signal to this very thread, so what matters is the order of its own stores; `recover_*` run
        // after it.
        compiler_fence(SeqCst);
        publish();
        compiler_fence(SeqCst);
        self.handed().store(to, Relaxed);
    }

    /// The same for `[hwtail, to)`, received by `publish`, which moves a consumer to `at`.
    #[inline]
    pub fn take_over(&self, at: u32, to: u32, publish: impl FnOnce()) {
        self.state.received_at.store(at, Relaxed);
        self.state.received_to.store(to, Relaxed);
        // SYNC death: as above.
        compiler_fence(SeqCst);
        publish();
        compiler_fence(SeqCst);
        self.set_hwtail(to);
    }

    /// After a death: hwcur, or `filled`, follows the producer if that was moved. It stands at `producer` now.
    pub fn recover_handed(&self, producer: u32) {
        let (at, to) = (self.state.handed_at.load(Relaxed), self.state.handed_to.load(Relaxed));
        if at == producer && to < self.place.slots {
            self.handed().store(to, Relaxed);
        }
    }

    /// After a death: hwtail follows the consumer if that was moved. It stands at `consumer` now.
    pub fn recover_received(&self, consumer: u32) {
        let (at, to) = (self.state.received_at.load(Relaxed), self.state.received_to.load(Relaxed));
        if at == consumer && to < self.place.slots {
            self.set_hwtail(to);
        }
    }

    /// After a death, receive: `held` of the kernel's slots names each buffer once, and those of `back` again, which had been
    /// taken for slots that never became the program's, in order, from hwtail. What is left of the spare ones is spare.
    pub fn recover_held(&self, back: impl IntoIterator<Item = u32>) {
        let n = self.place.slots;
        let (hwcur, first, filled) = (self.hwcur() % n, self.hwtail() % n, self.filled() % n);
        let spares = !self.spares.is_empty();
        // Without spares all of them if the two cursors meet.
        let count = if spares { distance(first, filled, n) } else { n - distance(hwcur, first, n) };
        let kernels = || (0..count).map(|k| (first + k) % n);
        let mut named: HashSet<u32> = self.span(hwcur, first).map(|i| self.slot(i).buf_idx.load(Relaxed)).collect();
        if spares {
            // Written, and not published.
            (count..n).for_each(|k| self.held((first + k) % n).store(NO_BUFFER, Relaxed));
        }
        // The later of two names is where the buffer was put when two slots changed places.
        for i in kernels().collect::<Vec<_>>().into_iter().rev() {
            let idx = self.held(i).load(Relaxed);
            if idx != NO_BUFFER && !named.insert(idx) {
                self.held(i).store(NO_BUFFER, Relaxed);
            }
        }
        let mut vacant = kernels().filter(|&i| self.held(i).load(Relaxed) == NO_BUFFER).collect::<Vec<_>>().into_iter();
        for idx in back.into_iter().filter(|&idx| self.is_buffer(idx)) {
            if named.insert(idx)
                && let Some(i) = vacant.next()
            {
                self.held(i).store(idx, Relaxed);
            }
        }
        let mut left = 0;
        for cell in self.spares.iter().take(self.spare() as usize) {
            let idx = cell.load(Relaxed);
            if self.is_buffer(idx) && named.insert(idx) {
                self.spares[left].store(idx, Relaxed);
                left += 1;
            }
        }
        self.set_spare(left as u32);
    }
}
