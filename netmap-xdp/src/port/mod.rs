//! What a sync does, for each kind of port.
//!
//! A [`PortRing`] is one netmap ring with its [`Carrier`]: the upper half here checks what the program wrote and reports as
//! the module's `netmap_ioctl` and `netmap_poll` do; the carrier moves packets. Carriers are siblings that meet only
//! through the trait. A port does not know which process runs it, and never allocates, logs or waits in a sync.

pub mod host;
pub mod lane;
pub mod monitor;
pub mod nic;
pub mod null;
pub mod pipe;
pub mod vale;

use crate::ring::{BadCursor, Cursors, Dir, Kring};
use crate::sync::{Ordering::*, fence};
use crate::sys::{self, Fd, realtime};
use monitor::{Tap, Taps};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Moves packets between a netmap ring and whatever is behind it.
pub trait Carrier: Send + Sync {
    /// Works on a ring whose lock is held and whose cursors are checked: takes `[hwcur, rhead)` and moves `hwtail`.
    fn sync(&self, ring: &Kring) -> Result<(), BadSlot>;

    /// The descriptor whose edges tell that a sync may find more, and the events to watch it for.
    fn signal(&self) -> Option<(RawFd, i32)>;

    /// Whether the signal is an eventfd that nobody reads: its edges count, its level says nothing.
    fn bell(&self) -> bool {
        false
    }

    /// Whether the level of the signal says as much as its edges: it is false by now unless a sync would move something.
    fn level(&self, _ring: &Kring) -> bool {
        false
    }

    /// Whether handed-over packets wait for another kick, without an edge that would tell when.
    fn stalled(&self) -> bool {
        false
    }

    /// Whether what is stalled waits for a link that is down: there is no use in trying often.
    fn resting(&self) -> bool {
        false
    }

    /// When the last packet arrived, by the clock of what received it, where that tells.
    fn arrived(&self) -> Option<Duration> {
        None
    }

    /// The AF_XDP socket behind the ring, if there is one: for statistics.
    fn socket(&self) -> Option<RawFd> {
        None
    }

    /// Whether peers fill the ring, and so show it to its monitors.
    fn filled_by_peers(&self) -> bool {
        false
    }

    /// Somebody is about to sleep on [`Carrier::signal`] and will sync once more before that; returns whether that second
    /// sync is needed, which it is where the other side wakes only those who said that they sleep.
    fn arm(&self, _ring: &Kring) -> bool {
        false
    }

    /// Who synced the ring before died in the middle of it: makes the private state true again. The lock is held.
    fn repair(&self, _ring: &Kring) {}

    /// The engine that granted the ring is dead: clears what its threads may have left in the middle of. `client` does so.
    fn bury_engine(&self, _ring: &Kring, _client: u32) {}

    /// Finds out whether what carries the ring is gone, and marks the ring stopped if so. Called now and then by sleepers.
    fn probe(&self, _ring: &Kring) {}
}

/// How the two sides of a software ring wake each other: by eventfd, and only a side that said that it sleeps. A busy pair
/// makes no system call.
#[derive(Clone, Debug)]
pub struct Wake {
    mine: Arc<Fd>,
    theirs: Arc<Fd>,
}

impl Wake {
    /// `mine` is written by the other side, `theirs` by this one.
    pub fn new(mine: Arc<Fd>, theirs: Arc<Fd>) -> Wake {
        Wake { mine, theirs }
    }

    /// What a sleeper on this side watches.
    pub fn signal(&self) -> Option<(RawFd, i32)> {
        Some((self.mine.as_raw_fd(), libc::EPOLLIN))
    }

    /// Says that somebody is about to sleep on `ring`, this side's.
    pub fn arm(&self, ring: &Kring) -> bool {
        ring.state().sleeping.store(1, Relaxed);
        // SYNC wake: this fence and the one in `rouse` are the two sides of one handshake: either the sync that follows
        // here sees what the other side published, or the other side sees `sleeping`.
        fence(SeqCst);
        true
    }

    /// Wakes whoever sleeps on `ring`, the other side's, after something was published to it.
    #[inline]
    pub fn rouse(&self, ring: &Kring) {
        // SYNC wake: see `arm`.
        fence(SeqCst);
        if ring.state().sleeping.load(Relaxed) != 0 {
            self.write(ring);
        }
    }

    #[cold]
    fn write(&self, ring: &Kring) {
        if ring.state().sleeping.swap(0, Relaxed) != 0 {
            sys::signal_eventfd(&self.theirs);
        }
    }
}

/// The monitors of a ring, as somebody sees them who fills it and does not sync it.
pub struct Audience {
    /// None for somebody who leaves the showing to the receiver.
    number: Option<u32>,
    taps: Vec<Tap>,
}

impl Audience {
    /// The ring has had these monitors since its state got `number`, 0 for none.
    pub fn new(number: u32, taps: Vec<Tap>) -> Audience {
        Audience { number: Some(number), taps }
    }

    /// For the engine's own threads, which leave it to the receiver.
    pub fn unseen() -> Audience {
        Audience { number: None, taps: Vec::new() }
    }

    /// Whether `k` has other monitors than these.
    #[inline]
    pub fn stale(&self, k: &Kring) -> bool {
        self.number.is_some_and(|number| k.state().taps.load(Relaxed) != number)
    }

    /// Shows them what was reported in `k` and not shown yet.
    #[inline]
    pub fn show(&self, client: u32, k: &Kring) {
        if let Some(number @ 1..) = self.number {
            monitor::show(client, k, number, &self.taps);
        }
    }
}

/// A slot that the program handed over names no buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSlot;

/// How a sync ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synced {
    /// It was done.
    Done,
    /// Another thread is at it: the ring was skipped, as the module does.
    Busy,
    /// The ring was in a state that cannot be, and was reinitialised: `POLLERR`.
    Reinit,
    /// What carried the ring is gone: `POLLERR`, `EIO`.
    Stopped,
    /// Nothing was done: the ring has other monitors than before. [`PortRing::monitor`] tells it which, then sync again.
    Stale,
}

/// In `sleeping` of a ring with a bell: several sleep there; else it is the only one's number.
const CROWD: u32 = u32::MAX;

/// One netmap ring and what carries it.
pub struct PortRing {
    kring: Kring,
    carrier: Box<dyn Carrier>,
    taps: Taps,
    bell: Option<Arc<Fd>>,
}

impl PortRing {
    /// Joins the two.
    pub fn new(kring: Kring, carrier: Box<dyn Carrier>) -> PortRing {
        PortRing { kring, carrier, taps: Taps::default(), bell: None }
    }

    /// `bell` wakes those who sleep on the ring when somebody else's sync found something: what that sync took in wakes
    /// nobody by itself.
    pub fn with_bell(self, bell: Option<Arc<Fd>>) -> PortRing {
        PortRing { bell, ..self }
    }

    /// What a sleeper watches for the edges of, if the ring has a bell.
    pub fn bell(&self) -> Option<RawFd> {
        self.bell.as_ref().map(|bell| bell.as_raw_fd())
    }

    /// `sleeper` (not 0) is about to sleep on the ring; returns whether it must sync once more before that.
    pub fn arm(&self, sleeper: u32) -> bool {
        if self.bell.is_none() {
            return self.carrier.arm(&self.kring);
        }
        let cell = &self.kring.state().sleeping;
        if cell.load(Relaxed) != sleeper && cell.compare_exchange(0, sleeper, Relaxed, Relaxed).is_err() {
            cell.store(CROWD, Relaxed);
        }
        // SYNC bell: this fence and the one in `toll` are the two sides of one handshake: either the sleeper sees what the
        // other's sync found, or that sees the sleeper.
        fence(SeqCst);
        self.kring.ready()
    }

    /// `sleeper` is awake. If it was the only one, its own syncs ring for nobody; one of several is rung for once more.
    pub fn disarm(&self, sleeper: u32) {
        if self.bell.is_some() {
            let _ = self.kring.state().sleeping.compare_exchange(sleeper, 0, Relaxed, Relaxed);
        }
    }

    /// Wakes whoever sleeps on the ring, after a sync found something and let the lock go: who is asleep then either had
    /// seen it, or found the lock taken and is seen here.
    #[inline]
    fn toll(&self) {
        if let Some(bell) = &self.bell {
            // SYNC bell: see `arm`.
            fence(SeqCst);
            if self.kring.state().sleeping.load(Relaxed) != 0 {
                self.strike(bell);
            }
        }
    }

    #[cold]
    fn strike(&self, bell: &Fd) {
        if self.kring.state().sleeping.swap(0, Relaxed) != 0 {
            sys::signal_eventfd(bell);
        }
    }

    /// The ring.
    #[inline]
    pub fn kring(&self) -> &Kring {
        &self.kring
    }

    /// These are the monitors that the ring has had since its state got `number`.
    pub fn monitor(&self, number: u32, taps: Vec<Tap>) {
        self.taps.replace(number, taps);
    }

    /// What carries it.
    pub fn carrier(&self) -> &dyn Carrier {
        &*self.carrier
    }

    /// Whether a sleeper can watch the signal itself, and needs no edges: see [`Carrier::level`]. Not while somebody else
    /// syncs the ring, since the level then stays however often it is looked at.
    pub fn level(&self) -> bool {
        self.kring.state().lock.load(Relaxed) == 0 && self.carrier.level(&self.kring)
    }

    /// Whether the program handed over slots that no sync has taken.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.kring.ring().head.load(Relaxed) != self.kring.hwcur()
    }

    /// Syncs the ring with cursors that the program keeps in a CSB; `head`, `cur` and `tail` of the ring itself are not
    /// touched. Returns, beside how it ended, whether `tail` moved.
    pub fn sync_at(&self, client: u32, cursors: Cursors) -> (Synced, bool) {
        self.sync_by(client, |k| k.begin_at(cursors), Kring::finish_at)
    }

    /// Repairs the ring for those who wait at its other end, if a death left it so and nobody syncs it now.
    pub fn mend_for(&self, client: u32) {
        if let Some(_lock) = self.kring.try_lock(client) {
            self.mend();
        }
    }

    /// Repairs a ring whose last holder died over it; its lock is held.
    #[inline]
    fn mend(&self) {
        let k = &self.kring;
        if k.state().repair.load(Relaxed) != 0 {
            self.carrier.repair(k);
            k.state().repair.store(0, Relaxed);
        }
    }

    /// Syncs the ring on behalf of `client` (not 0).
    #[inline]
    pub fn sync(&self, client: u32) -> Synced {
        self.sync_by(client, Kring::begin, Kring::finish).0
    }

    /// The same, where `begin` takes the program's cursors and `finish` tells it what was reached, and whether that is news.
    #[inline]
    fn sync_by(
        &self,
        client: u32,
        begin: impl FnOnce(&Kring) -> Result<(), BadCursor>,
        finish: impl FnOnce(&Kring) -> bool,
    ) -> (Synced, bool) {
        let k = &self.kring;
        if k.state().stopped.load(Relaxed) != 0 {
            return (Synced::Stopped, false);
        }
        let Some(lock) = k.try_lock(client) else { return (Synced::Busy, false) };
        self.mend();
        if self.taps.stale(k) {
            return (Synced::Stale, false);
        }
        if begin(k).is_err() {
            k.reinit();
            return (Synced::Reinit, false);
        }
        let done = if self.taps.none() {
            self.carrier.sync(k)
        } else {
            let Some(done) = self.taps.sync(client, k, &*self.carrier) else { return (Synced::Busy, false) };
            done
        };
        k.count_sync();
        if done.is_err() {
            k.reinit();
            return (Synced::Reinit, false);
        }
        let moved = finish(k);
        if k.dir() == Dir::Rx {
            k.stamp(self.carrier.arrived().unwrap_or_else(realtime));
        }
        drop(lock);
        if moved {
            self.toll();
        }
        (Synced::Done, moved)
    }
}
