//! The lock of those who fill one receive ring, and how long they wait for it.
//!
//! It is held for a few instructions, never while packets are copied; but a holder that loses its processor there, or whose
//! container has used its time up, holds it for milliseconds. A sender waits so long, and loses nothing. A holder that was
//! stopped, or that is no friend, costs every other one a twentieth of its time at most: see [`Patience`].

use crate::ring::Kring;
use crate::sync::{AtomicU32, Ordering::*};
use crate::sys::{monotonic, pause};
use std::time::Duration;

/// Attempts before the first yield, and yields before the first nap.
const SPINS: u32 = 200;
const YIELDS: u32 = 200;
const NAP: Duration = Duration::from_micros(50);
/// What a sender has to spend: as long as a container without time waits for more, twice.
const MOST: Duration = Duration::from_millis(200);
/// What it is given back: one part in so many of the time that passes.
const SHARE: u32 = 20;

/// Time that may be spent waiting, for one ring or for several.
#[derive(Clone)]
pub struct Patience {
    left: Duration,
    counted: Duration,
}

impl Patience {
    /// What a sender has for each ring. It comes back slowly.
    pub fn sender() -> Patience {
        Patience { left: MOST, counted: Duration::ZERO }
    }

    /// What the engine has for everything that a dead client left: without the lock, that would stay.
    pub fn burial() -> Patience {
        Patience { left: MOST, counted: Duration::MAX }
    }

    /// None: a few yields must do.
    pub fn none() -> Patience {
        Patience { left: Duration::ZERO, counted: Duration::MAX }
    }

    /// What may be spent at `now`.
    fn left(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.counted);
        self.counted = self.counted.max(now);
        self.left = (self.left + passed / SHARE).min(MOST);
        self.left
    }

    fn spend(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }
}

/// The lock of a ring, held.
pub(super) struct Turn<'a>(&'a AtomicU32);

impl std::ops::Drop for Turn<'_> {
    fn drop(&mut self) {
        // SYNC producer-lock: pairs with the acquire in `take`.
        self.0.store(0, Release);
    }
}

/// Takes the lock of ring `k` for `client`. None: that was worth no more patience.
#[inline]
pub(super) fn take<'a>(k: &'a Kring, client: u32, patience: &mut Patience) -> Option<Turn<'a>> {
    let cell = &k.state().producer;
    // SYNC producer-lock: acquire pairs with the release in `Turn::drop`.
    if cell.compare_exchange(0, client, Acquire, Relaxed).is_ok() {
        return Some(Turn(cell));
    }
    contend(cell, client, patience)
}

/// Takes the lock over from a dead client, if that held it.
pub(super) fn inherit(k: &Kring, dead: u32, client: u32) -> Option<Turn<'_>> {
    let cell = &k.state().producer;
    cell.compare_exchange(dead, client, Acquire, Relaxed).is_ok().then(|| Turn(cell))
}

#[cold]
fn contend<'a>(cell: &'a AtomicU32, client: u32, patience: &mut Patience) -> Option<Turn<'a>> {
    let won = || cell.load(Relaxed) == 0 && cell.compare_exchange(0, client, Acquire, Relaxed).is_ok();
    for i in 0..SPINS + YIELDS {
        if i < SPINS {
            std::hint::spin_loop()
        } else {
            std::thread::yield_now()
        }
        if won() {
            return Some(Turn(cell));
        }
    }
    let start = monotonic();
    let most = patience.left(start);
    let mut waited = Duration::ZERO;
    let mut have = false;
    while !have && waited < most {
        pause(NAP);
        have = won();
        waited = monotonic() - start;
    }
    patience.spend(waited);
    have.then(|| Turn(cell))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn patience_is_spent_and_comes_back_slowly() {
        let start = Duration::from_secs(1000);
        let mut p = Patience::sender();
        assert_eq!(p.left(start), MOST);
        p.spend(150 * MS);
        assert_eq!(p.left(start), 50 * MS);
        p.spend(300 * MS);
        assert_eq!(p.left(start), Duration::ZERO);
        assert_eq!(p.left(start + 100 * MS), 5 * MS);
        assert_eq!(p.left(start + 100 * MS), 5 * MS);
        // A clock that went back gives nothing.
        assert_eq!(p.left(start), 5 * MS);
        assert_eq!(p.left(start + 100_000 * MS), MOST);
    }

    #[test]
    fn what_is_given_once_does_not_come_back() {
        let mut p = Patience::burial();
        p.spend(MOST);
        assert_eq!(p.left(Duration::from_secs(1 << 40)), Duration::ZERO);
    }
}
