//! The sync loop: syncs the rings of a descriptor on behalf of a program that only reads and writes its CSB
//! (`NETMAP_REQ_SYNC_KLOOP_START`). Runs in the thread that asked for it, until another one stops it or the descriptor is
//! closed.
//!
//! ```text
//! without eventfds   sync every ring, sleep, again
//! with eventfds      sync every ring; sleep until a kick, the port, or the stop; again
//!    kern_need_kick  0 while a ring is being served, 1 when it has nothing to do: then the program must kick
//!    appl_need_kick  the program wants `irqfd` written when `hwtail` moves
//! ```
//! In the direct modes the original serves a ring in the context of the kick, in the thread that writes the eventfd. Nothing
//! can run there here: this thread serves the ring instead, `kern_need_kick` stays 1 as it does there, and `irqfd` is written
//! whenever `hwtail` moved, since the program cannot see it on return of its write.

use super::binding::{Binding, Bound, RETRY};
use super::csb::{Atok, Csb, Ktoa, Running};
use super::ears::Ears;
use super::host;
use super::remote::client_id;
use crate::ctl::{Condition, Failure, KloopStart, OptionAnswer, OptionList};
use crate::index::prev_slot;
use crate::port::{PortRing, Synced};
use crate::ring::Dir;
use crate::sync::Ordering::Relaxed;
use crate::sys::{EdgeSet, Errno, Error, Fd, hold_eventfd, pause, signal_eventfd};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Longest sleep of a loop with eventfds.
const LONGEST_SLEEP: Duration = Duration::from_secs(3);
/// How often somebody who stops a loop looks whether it ended.
const STOP_PAUSE: Duration = Duration::from_millis(1);
/// Syncs that are tried in a row on a ring whose monitors change: they may change again, but not for ever.
const LEARN: u32 = 4;
/// Syncs that may bring nothing before a receive ring is left.
const DRY: u32 = 2;
/// What the loop waits for at the port.
const BOTH: i16 = libc::POLLIN | libc::POLLOUT;

/// One ring as the loop sees it.
struct Served<'a> {
    bound: &'a Bound,
    ring: &'a PortRing,
    atok: &'a Atok,
    ktoa: &'a Ktoa,
    irq: Option<Fd>,
    /// The loop sleeps for a time, and nobody kicks.
    timed: bool,
    direct: bool,
}

/// How the loop left a ring.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// A kick, or the port, says when there is more to do.
    Waiting,
    /// Somebody else had it: to be tried again soon.
    Busy,
}

/// How a loop is notified.
struct Signals {
    kicks: EdgeSet,
    /// Those of the program, kept open meanwhile.
    _held: Vec<Fd>,
}

impl Binding {
    /// `NETMAP_REQ_SYNC_KLOOP_START`: returns when the loop is stopped. Errors: `ENXIO` not bound; `EINVAL` no CSB, or wrong
    /// options; `EBUSY` a loop is running; `EBADF`, `EINVAL` for what is no eventfd.
    pub(super) fn run_kloop(&self, request: &KloopStart, options: &mut OptionList) -> Result<(), Failure> {
        let bound = self.bound().ok_or_else(Failure::not_bound)?;
        let running = self.csb.start(bound.name())?;
        let mut direct = (false, false);
        if let Some(mode) = request.mode {
            direct = mode.directions().inspect_err(|e| options.answer(OptionAnswer::KloopMode(Err(e.errno))))?;
            options.answer(OptionAnswer::KloopMode(Ok(())));
        }
        let mut served = served(bound, &running.csb, direct);
        let mut signals = None;
        if let Some(eventfds) = &request.eventfds {
            let refuse = |options: &mut OptionList, message: String| {
                let failure = Condition::KloopEventfds.says(message);
                options.answer(OptionAnswer::KloopEventfds(Err(failure.errno)));
                failure
            };
            if !eventfds.fits(served.len()) {
                let message = format!("the option needs one pair of eventfds for each of {} rings", served.len());
                return Err(refuse(options, message));
            }
            options.answer(OptionAnswer::KloopEventfds(Ok(())));
            let timed = eventfds.pairs.iter().any(|p| p.io < 0);
            if timed && (direct.0 || direct.1) {
                return Err(refuse(options, "the direct modes need every ioeventfd".into()));
            }
            let held = |fd| hold_eventfd(fd).map_err(|e| Failure::system(&Error::new("eventfd", format!("{fd}"), e)));
            let mut kicks = Vec::new();
            for (ring, pair) in served.iter_mut().zip(&eventfds.pairs) {
                ring.timed = timed;
                ring.irq = (pair.irq >= 0).then(|| held(pair.irq)).transpose()?;
                if !timed {
                    kicks.push(held(pair.io)?);
                }
            }
            if !timed {
                signals =
                    Some(self.signals(kicks).map_err(|e| Failure::system(&Error::new("epoll", bound.name(), e)))?);
            }
        }
        self.serve(bound, &running, &served, signals.as_ref(), request.sleep)
    }

    fn signals(&self, held: Vec<Fd>) -> Result<Signals, Errno> {
        let kicks = EdgeSet::new()?;
        for fd in held.iter().chain(self.csb.stop_signal()) {
            kicks.add(fd.as_raw_fd(), libc::EPOLLIN)?;
        }
        Ok(Signals { kicks, _held: held })
    }

    fn serve(
        &self,
        bound: &Bound,
        running: &Running<'_>,
        served: &[Served<'_>],
        signals: Option<&Signals>,
        sleep: Duration,
    ) -> Result<(), Failure> {
        let mut ears = Ears::default();
        while !running.stopping() {
            if signals.is_some() {
                // Before the syncs: what is published after them wakes us.
                bound.arm_alone();
            }
            let mut busy = false;
            for ring in served {
                let left = match ring.ring.kring().dir() {
                    Dir::Tx => ring.transmit(),
                    Dir::Rx => ring.receive(),
                };
                busy |= left == Left::Busy;
            }
            if served.iter().any(|s| s.ring.kring().state().pending.load(Relaxed) != 0) {
                host::tend();
            }
            match signals {
                None => pause(sleep),
                Some(signals) => {
                    let edges = ears.open(bound, BOTH, false);
                    let mut fds: Vec<_> = edges.iter().flatten().map(|set| entry(set)).collect();
                    fds.push(entry(&signals.kicks));
                    let most = bound.patience(BOTH, edges.iter().all(Option::is_none)).min(LONGEST_SLEEP);
                    // Nobody will kick for a ring that says that it is being served.
                    let most = if busy { most.min(RETRY) } else { most };
                    match crate::sys::ppoll(&mut fds, Some(most), None) {
                        Ok(0) => bound.look_after(),
                        Ok(_) => {
                            for set in edges.into_iter().flatten().chain([&signals.kicks]) {
                                // Taken now; the syncs that follow see what these edges announced.
                                let _ = set.take();
                            }
                        }
                        Err(Errno(libc::EINTR)) => {}
                        Err(e) => return Err(Failure::system(&Error::new("ppoll", bound.name(), e))),
                    }
                }
            }
        }
        Ok(())
    }

    /// `NETMAP_REQ_SYNC_KLOOP_STOP`: returns when the loop has ended. `ENXIO`: not bound.
    pub(super) fn stop_kloop(&self) -> Result<(), Failure> {
        self.bound().ok_or_else(Failure::not_bound)?;
        self.csb.ask_to_stop();
        while self.csb.running() {
            pause(STOP_PAUSE);
        }
        Ok(())
    }
}

fn entry(set: &EdgeSet) -> libc::pollfd {
    libc::pollfd { fd: set.raw(), events: libc::POLLIN, revents: 0 }
}

/// The rings, transmit first, each with its entry.
fn served<'a>(bound: &'a Bound, csb: &'a Csb, direct: (bool, bool)) -> Vec<Served<'a>> {
    let rings = bound.rings(Dir::Tx).iter().chain(bound.rings(Dir::Rx));
    let entries = csb.atok.iter().zip(csb.ktoa.iter());
    let served = rings.zip(entries).map(|(ring, (atok, ktoa))| {
        let direct = if ring.kring().dir() == Dir::Tx { direct.0 } else { direct.1 };
        Served { bound, ring, atok, ktoa, irq: None, timed: true, direct }
    });
    served.collect()
}

impl Served<'_> {
    /// One sync; returns whether `tail` moved, or why the ring must be left alone.
    fn sync(&self) -> Result<bool, Left> {
        for _ in 0..LEARN {
            let (how, moved) = self.ring.sync_at(client_id(), self.atok.cursors());
            match how {
                Synced::Done => {
                    let k = self.ring.kring();
                    self.ktoa.tell(k.hwcur(), k.hwtail());
                    if moved && (self.direct || self.atok.wants_irq()) {
                        self.irq.iter().for_each(signal_eventfd);
                    }
                    return Ok(moved);
                }
                Synced::Busy => return Err(Left::Busy),
                Synced::Stale => self.bound.learn_monitors(self.ring),
                Synced::Reinit | Synced::Stopped => {
                    self.want_kicks(true);
                    return Err(Left::Waiting);
                }
            }
        }
        Err(Left::Busy)
    }

    fn want_kicks(&self, wanted: bool) {
        if !self.timed && !self.direct {
            self.ktoa.want_kicks(wanted);
        }
    }

    /// Asks for kicks because there is nothing to do; returns whether there is after all.
    fn raced(&self, idle: impl Fn() -> bool) -> bool {
        if self.timed {
            return false;
        }
        self.want_kicks(true);
        if idle() {
            return false;
        }
        self.want_kicks(false);
        true
    }

    /// `netmap_sync_kloop_tx_ring`.
    fn transmit(&self) -> Left {
        let (k, s) = (self.ring.kring(), self.ring.kring().state());
        if !self.direct {
            self.ktoa.want_kicks(false);
        }
        loop {
            if let Err(left) = self.sync() {
                return left;
            }
            let idle = || self.atok.cursors().head == s.rhead.load(Relaxed);
            if idle() {
                if !self.raced(idle) {
                    break;
                }
            } else if s.rhead.load(Relaxed) == k.hwtail() {
                // No room: the port tells when there is.
                break;
            }
        }
        Left::Waiting
    }

    /// `netmap_sync_kloop_rx_ring`.
    fn receive(&self) -> Left {
        let (k, s) = (self.ring.kring(), self.ring.kring().state());
        if !self.direct {
            self.ktoa.want_kicks(false);
        }
        let mut dry = 0;
        loop {
            let moved = match self.sync() {
                Ok(moved) => moved,
                Err(left) => return left,
            };
            dry = if moved { 0 } else { dry + 1 };
            let n = k.num_slots();
            let full = || k.hwtail() == prev_slot(self.atok.cursors().head.min(n - 1), n);
            if full() {
                if !self.raced(full) {
                    break;
                }
            } else if k.hwtail() == s.rhead.load(Relaxed) || dry >= DRY {
                break;
            }
        }
        Left::Waiting
    }
}
