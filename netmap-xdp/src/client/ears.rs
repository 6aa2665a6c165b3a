//! What a sleeper on bound rings watches and says: the half of [`Bound`] that waiting needs.
//!
//! A sleeper announces itself on its rings ([`Bound::arm`]), looks once more, and watches the sockets of the receive rings,
//! where their level is exact, or edges: of sockets, of the eventfds of software ports, and of the *bell* of rings over a
//! NIC or a TAP, which is rung by whoever else syncs them and finds something. A thread that sleeps has [`Ears`] of its own:
//! edges are taken once, and two sleepers on one set would take them from each other.

use super::binding::{Bound, WANT_RX, WANT_TX};
use super::{host, remote};
use crate::port::PortRing;
use crate::ring::Dir;
use crate::sync::{AtomicU64, Ordering::*};
use crate::sys::{EdgeSet, generation, monotonic};
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

/// A transmit ring that could not be emptied is kicked again this often.
const REKICK: Duration = Duration::from_millis(1);
/// A sleeper looks after its rings this often, whatever the edges say: an interface may have vanished.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// The same for one that waits for completions; and no more often than this, however often its sleeps run out.
const LOOK_AFTER_TX: Duration = Duration::from_millis(20);

/// The edges that one sleeper watches.
#[derive(Default)]
pub(super) struct Ears {
    /// Forks before it was made: a child shares its parent's sets, and would take its edges.
    forks: u64,
    tx: Option<EdgeSet>,
    rx: Option<EdgeSet>,
    bell: Option<EdgeSet>,
}

/// Ears that nobody wears: the last to be put down is the first to be taken, so that one thread has the same ones always.
#[derive(Default)]
pub(super) struct Rack {
    ears: Mutex<Vec<Ears>>,
    /// When somebody looked after the rings, nanoseconds.
    looked: AtomicU64,
}

impl Rack {
    /// Takes a pair.
    pub(super) fn take(&self) -> Ears {
        let forks = generation();
        self.free()
            .and_then(|mut free| free.pop())
            .filter(|ears| ears.forks == forks)
            .unwrap_or(Ears { forks, ..Ears::default() })
    }

    /// Puts it down.
    pub(super) fn put(&self, ears: Ears) {
        if let Some(mut free) = self.free() {
            free.push(ears);
        }
    }

    /// Whether it is time to look after the rings. Each look costs a call for each of them, and programs that sleep for a
    /// millisecond at a time would make these more often than calls of their own.
    fn due(&self) -> bool {
        let now = monotonic().as_nanos() as u64;
        let due = now.saturating_sub(self.looked.load(Relaxed)) >= LOOK_AFTER_TX.as_nanos() as u64;
        if due {
            self.looked.store(now, Relaxed);
        }
        due
    }

    /// Not waited for: whoever has it may not be there any more, in a forked child.
    fn free(&self) -> Option<MutexGuard<'_, Vec<Ears>>> {
        match self.ears.try_lock() {
            Ok(free) => Some(free),
            Err(TryLockError::Poisoned(free)) => Some(free.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// The set in `place`, made of `signals` at first use.
fn open(place: &mut Option<EdgeSet>, signals: impl Iterator<Item = (RawFd, i32)>) -> Option<&EdgeSet> {
    if place.is_none() {
        let set = EdgeSet::new().ok()?;
        let mut signals: Vec<_> = signals.collect();
        // The rings of a port have one bell.
        signals.sort_unstable();
        signals.dedup();
        signals.iter().try_for_each(|&(fd, events)| set.add(fd, events)).ok()?;
        *place = Some(set);
    }
    place.as_ref()
}

impl Ears {
    /// What a sleeper that waits for `events` of `bound` watches for edges; `level` is what [`Bound::level`] said.
    pub(super) fn open(&mut self, bound: &Bound, events: i16, level: bool) -> [Option<&EdgeSet>; 3] {
        let signals = |dir| bound.rings(dir).iter().filter_map(|r| r.carrier().signal());
        let bells = bound.rings(Dir::Tx).iter().chain(bound.rings(Dir::Rx)).filter_map(PortRing::bell);
        let (tx, rx) = (events & WANT_TX != 0, events & WANT_RX != 0 && !level);
        let any = events & (WANT_TX | WANT_RX) != 0 && bells.clone().next().is_some();
        if level {
            // From when that did not do: it would go on costing what `Bound::level` says.
            self.rx = None;
        }
        [
            tx.then(|| open(&mut self.tx, signals(Dir::Tx))).flatten(),
            rx.then(|| open(&mut self.rx, signals(Dir::Rx))).flatten(),
            any.then(|| open(&mut self.bell, bells.map(|fd| (fd, libc::EPOLLIN)))).flatten(),
        ]
    }
}

/// Names the calling thread where sleepers announce themselves; not 0.
fn sleeper() -> u32 {
    thread_local!(static HERE: u8 = const { 0 });
    // Distinct in a process, since it is an address, and among processes by the client's number; two that are alike by
    // chance would cost one of them a late wake-up.
    let here = HERE.with(|h| &raw const *h as usize as u64) ^ u64::from(remote::client_id()) << 32;
    ((here.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32).max(1)
}

impl Bound {
    /// The rings that a sleeper for `events` waits for.
    fn awaited(&self, events: i16) -> impl Iterator<Item = &PortRing> {
        let tx = self.rings(Dir::Tx).iter().filter(move |_| events & WANT_TX != 0);
        let rx = self.rings(Dir::Rx).iter().filter(move |_| events & WANT_RX != 0);
        tx.chain(rx)
    }

    /// Whether there are any.
    pub(super) fn awaits(&self, events: i16) -> bool {
        self.awaited(events).next().is_some()
    }

    fn all_rings(&self) -> impl Iterator<Item = &PortRing> {
        self.rings(Dir::Tx).iter().chain(self.rings(Dir::Rx))
    }

    /// Announces the sync loop, which has its rings to itself, to peers.
    pub(super) fn arm_alone(&self) {
        self.all_rings().for_each(|r| {
            r.carrier().arm(r.kring());
        });
    }

    /// Announces a sleeper that waits for `events`; returns whether it must sync once more before it sleeps.
    pub(super) fn arm(&self, events: i16) -> bool {
        let me = sleeper();
        self.awaited(events).filter(|r| r.arm(me)).count() > 0
    }

    /// The sleeper of [`arm`](Bound::arm) is awake: what it does itself needs no bell.
    pub(super) fn disarm(&self, events: i16) {
        let me = sleeper();
        self.awaited(events).for_each(|r| r.disarm(me));
    }

    /// Whether a sleeper that waits for `events` watches the sockets of the receive rings themselves. It should where it
    /// can: an edge set stays in the sockets' wait queues, and costs the kernel's side a callback per wakeup even while
    /// nobody sleeps.
    pub(super) fn level(&self, events: i16) -> bool {
        let rx = self.rings(Dir::Rx);
        events & WANT_RX != 0 && !rx.is_empty() && rx.iter().all(PortRing::level)
    }

    /// The sockets of the receive rings.
    pub(super) fn rx_signals(&self) -> impl Iterator<Item = libc::pollfd> {
        let signals = self.rings(Dir::Rx).iter().filter_map(|r| r.carrier().signal());
        signals.map(|(fd, events)| libc::pollfd { fd, events: events as i16, revents: 0 })
    }

    /// How long a sleeper may go without looking after the rings itself. `deaf`: it has nothing to watch for
    /// what it awaits.
    pub(super) fn patience(&self, events: i16, deaf: bool) -> Duration {
        let mut most = LOOK_AFTER;
        for ring in self.all_rings() {
            if ring.kring().state().pending.load(Relaxed) != 0 {
                most = most.min(host::TEND_EVERY);
            }
            if ring.carrier().stalled() {
                most = most.min(if ring.carrier().resting() { host::TEND_EVERY } else { REKICK });
            }
        }
        if deaf {
            return most.min(REKICK);
        }
        let completions = events & WANT_TX != 0 && self.rings(Dir::Tx).iter().any(|r| r.carrier().socket().is_some());
        if completions { most.min(LOOK_AFTER_TX) } else { most }
    }

    /// Done when patience ran out, unless it was done a moment ago: interfaces that were down may have come up, others may have
    /// vanished, or netmapd with a packet in its hands.
    pub(super) fn look_after(&self) {
        if !self.rack.due() {
            return;
        }
        let orphaned = self.orphaned();
        for ring in self.all_rings() {
            if orphaned {
                ring.carrier().bury_engine(ring.kring(), remote::client_id());
            }
            if ring.kring().state().pending.load(Relaxed) != 0 {
                host::tend();
            } else {
                ring.carrier().probe(ring.kring());
            }
        }
        if self.mode().is_some() {
            host::tend_calmly();
        }
    }
}
