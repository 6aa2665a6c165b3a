//! Locks in shared memory that senders hold for a moment: whoever has its number in the cell holds it.
//!
//! A holder may lose its processor, or be of a container that has used its time up: it then keeps the others waiting for
//! milliseconds, which they do, for what they carry would be lost. One that was stopped, or that is no friend, may keep them
//! for ever: what they give it is a part of their time, see [`Patience`]. Of the dead, the engine takes the locks away.

use crate::sync::{AtomicU32, AtomicU64, Ordering::*};
use crate::sys::{monotonic, pause};
use std::time::Duration;

/// Attempts before the clock is looked at.
const SPINS: u32 = 200;
/// After so long, yields become naps.
const YIELDING: Duration = Duration::from_micros(100);
const NAP: Duration = Duration::from_micros(50);
/// The most that can be waited: twice as long as a container without time waits for more.
const MOST: Duration = Duration::from_millis(200);
/// One part in so many of the time that passes may be waited again.
const SHARE: u64 = 20;

/// Time that may be spent waiting.
pub struct Patience {
    /// Nanoseconds that are left, as of the moment below.
    left: AtomicU64,
    counted: AtomicU64,
}

impl Patience {
    const fn of(left: Duration, counted: u64) -> Patience {
        Patience { left: AtomicU64::new(left.as_nanos() as u64), counted: AtomicU64::new(counted) }
    }

    /// That of whoever comes to the same lock again and again: what was spent comes back slowly.
    pub const fn lasting() -> Patience {
        Patience::of(MOST, 0)
    }

    /// As much, to be spent once.
    pub const fn once() -> Patience {
        Patience::of(MOST, u64::MAX)
    }

    /// None: it is tried for some microseconds.
    pub const fn none() -> Patience {
        Patience::of(Duration::ZERO, u64::MAX)
    }

    /// What may be spent at `now`. Threads that share it may each take what is there for their own: no harm.
    fn left(&self, now: Duration) -> Duration {
        let now = now.as_nanos() as u64;
        let counted = self.counted.load(Relaxed);
        self.counted.store(counted.max(now), Relaxed);
        let passed = now.saturating_sub(counted);
        let left = (self.left.load(Relaxed) + passed / SHARE).min(MOST.as_nanos() as u64);
        self.left.store(left, Relaxed);
        Duration::from_nanos(left)
    }

    fn spend(&self, time: Duration) {
        let left = self.left.load(Relaxed).saturating_sub(time.as_nanos() as u64);
        self.left.store(left, Relaxed);
    }
}

/// A lock, held.
pub struct Hold<'a>(&'a AtomicU32);

impl<'a> Hold<'a> {
    /// Takes a lock for `client` (not 0) unless somebody has it.
    #[inline]
    pub fn try_take(cell: &'a AtomicU32, client: u32) -> Option<Hold<'a>> {
        // SYNC hold: acquire pairs with the release in `Hold::drop`.
        cell.compare_exchange(0, client, Acquire, Relaxed).is_ok().then(|| Hold(cell))
    }

    /// The same, and waits for whoever has it. None: that was worth no more patience.
    #[inline]
    pub fn take(cell: &'a AtomicU32, client: u32, patience: &Patience) -> Option<Hold<'a>> {
        Hold::try_take(cell, client).or_else(|| contend(cell, client, patience))
    }

    /// Takes a lock over from `dead`, if that has it.
    pub fn inherit(cell: &'a AtomicU32, dead: u32, client: u32) -> Option<Hold<'a>> {
        // SYNC hold: acquire, for what the dead had written under it.
        cell.compare_exchange(dead, client, Acquire, Relaxed).is_ok().then(|| Hold(cell))
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        // SYNC hold: release pairs with the acquire in `Hold::try_take`.
        self.0.store(0, Release);
    }
}

#[cold]
fn contend<'a>(cell: &'a AtomicU32, client: u32, patience: &Patience) -> Option<Hold<'a>> {
    let attempt = || if cell.load(Relaxed) == 0 { Hold::try_take(cell, client) } else { None };
    for _ in 0..SPINS {
        std::hint::spin_loop();
        if let Some(hold) = attempt() {
            return Some(hold);
        }
    }
    let start = monotonic();
    let most = patience.left(start);
    let (mut hold, mut waited) = (None, Duration::ZERO);
    while hold.is_none() && waited < most {
        if waited < YIELDING {
            std::thread::yield_now()
        } else {
            pause(NAP)
        }
        hold = attempt();
        waited = monotonic() - start;
    }
    patience.spend(waited);
    hold
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn patience_is_spent_and_comes_back_slowly() {
        let start = Duration::from_secs(1000);
        let p = Patience::lasting();
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
        let p = Patience::once();
        assert_eq!(p.left(1000 * MS), MOST);
        p.spend(MOST);
        assert_eq!(p.left(1_000_000 * MS), Duration::ZERO);
    }

    #[test]
    fn a_lock_is_its_holders_alone_whoever_gives_up_or_takes_it_over() {
        let cell = AtomicU32::new(0);
        let hold = Hold::take(&cell, 3, &Patience::none());
        assert!(hold.is_some() && Hold::try_take(&cell, 4).is_none());
        assert!(Hold::take(&cell, 4, &Patience::none()).is_none() && Hold::inherit(&cell, 5, 4).is_none());
        assert_eq!(cell.load(Relaxed), 3);
        std::mem::forget(hold);
        drop(Hold::inherit(&cell, 3, 4));
        assert_eq!(cell.load(Relaxed), 0);
    }
}
