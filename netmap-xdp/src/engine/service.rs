//! The threads that serve an attached port: they carry packets between what is attached and its side of the switch.
//!
//! ```text
//! worker    every lane that is not polled; sleeps when there is nothing to do, woken by sockets, senders and the engine
//! poller    the receive lanes that polling was asked for, on a CPU of its own, never asleep
//! ```
//! A lane belongs to one thread at a time. The engine starts and stops the threads and never waits for more than the
//! turn of a lane; they never ask the engine anything. When what is attached vanishes, the worker ends and says so
//! ([`Service::over`]).

use crate::port::PortRing;
use crate::port::lane::{Lane, Turn};
use crate::sync::{AtomicBool, Ordering::*};
use crate::sys::{EdgeSet, Errno, Error, Fd, block_signals, eventfd, monotonic, pause, ppoll, signal_eventfd, stay_on};
use std::os::fd::AsRawFd;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, current, yield_now};
use std::time::Duration;

/// How often a sleeper looks whether what is attached is still there.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// The same while an interface is down.
const LOOK_FOR_UP: Duration = Duration::from_millis(50);
/// How soon packets that wait for room are tried again, whatever the sockets say; twice as late each time that nothing moved.
const RETRY: Duration = Duration::from_millis(1);
const RETRY_AT_LAST: Duration = Duration::from_millis(64);

/// Lets the engine look after what is attached; false if it was busy, perhaps with waiting for the very thread that calls.
pub type Nudge = fn() -> bool;

/// Which side of a lane is what is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Into the switch.
    In,
    /// Out of it.
    Out,
}

/// A lane, and who serves it.
struct Served {
    way: Way,
    lane: Mutex<Lane>,
    polled: AtomicBool,
}

struct Common {
    lanes: Vec<Served>,
    stop: Arc<AtomicBool>,
    /// What is attached is gone.
    lost: AtomicBool,
    /// The worker has ended, and uses nothing any more.
    over: AtomicBool,
    bell: Fd,
    nudge: Option<Nudge>,
}

/// A thread that polls.
struct Poller {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// The threads of one attached port.
pub struct Service {
    common: Arc<Common>,
    worker: Option<JoinHandle<()>>,
    pollers: Vec<Poller>,
}

/// Which rings are polled by which CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollPlan {
    /// The first receive ring.
    pub first: u32,
    /// How many.
    pub rings: u32,
    /// The first CPU.
    pub cpu: u32,
    /// Whether each ring has a CPU of its own, instead of all sharing one.
    pub each: bool,
}

fn thread_failed(e: &std::io::Error) -> Error {
    Error::new("clone", "a thread that serves an attached port", Errno(e.raw_os_error().unwrap_or(libc::EAGAIN)))
}

impl Served {
    fn lock(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is attached is what the turn found gone; the switch's side is not ours to judge.
    fn lost(&self, turn: Turn) -> bool {
        turn.gone[if self.way == Way::In { 0 } else { 1 }]
    }

    /// The ring of what is attached.
    fn outside<'a>(&self, lane: &'a Lane) -> &'a PortRing {
        if self.way == Way::In { lane.from() } else { lane.to() }
    }
}

impl Common {
    /// One turn of each lane that is the worker's; whether anything moved.
    fn round(&self) -> bool {
        let mut moved = false;
        for served in self.lanes.iter().filter(|s| !s.polled.load(Relaxed)) {
            let turn = served.lock().turn();
            moved |= turn.carried > 0;
            if served.lost(turn) {
                self.lost.store(true, Relaxed);
            }
        }
        moved
    }

    fn done(&self) -> bool {
        self.stop.load(Relaxed) || self.lost.load(Relaxed)
    }

    /// Finds out whether what is attached is still there; returns whether it is an interface that is down.
    fn look_after(&self, mine: impl Fn(&Served) -> bool) -> bool {
        let mut down = false;
        for served in self.lanes.iter().filter(|s| mine(s)) {
            let lane = served.lock();
            let ring = served.outside(&lane);
            if ring.kring().state().pending.load(Relaxed) != 0 {
                down = true;
            } else {
                ring.carrier().probe(ring.kring());
            }
        }
        down
    }

    /// The worker's whole life.
    fn work(&self) -> Result<(), Errno> {
        // Whoever wakes by eventfd does not expect anybody to read it, so its edges are what counts.
        let bells = EdgeSet::new()?;
        bells.add(self.bell.as_raw_fd(), libc::EPOLLIN)?;
        for served in &self.lanes {
            let lane = served.lock();
            if let Some((fd, events)) = lane.from().carrier().signal().filter(|_| rung(lane.from())) {
                bells.add(fd, events)?;
            }
        }
        let (mut looked, mut every, mut retry) = (Duration::ZERO, LOOK_AFTER, RETRY);
        while !self.done() {
            if self.round() {
                retry = RETRY;
                continue;
            }
            for served in &self.lanes {
                let lane = served.lock();
                lane.from().carrier().arm(lane.from().kring());
            }
            if self.round() || self.done() {
                continue;
            }
            if monotonic().saturating_sub(looked) >= every {
                every = if self.look_after(|s| !s.polled.load(Relaxed)) { LOOK_FOR_UP } else { LOOK_AFTER };
                looked = monotonic();
                if let Some(nudge) = self.nudge.filter(|_| every == LOOK_FOR_UP) {
                    nudge();
                }
                continue;
            }
            self.sleep(&bells, every, retry)?;
            retry = (retry * 2).min(RETRY_AT_LAST);
        }
        Ok(())
    }

    /// Sleeps until a lane may have something to carry.
    fn sleep(&self, bells: &EdgeSet, mut most: Duration, retry: Duration) -> Result<(), Errno> {
        let watch = |fd, events| libc::pollfd { fd, events: events as i16, revents: 0 };
        let mut fds = vec![watch(bells.raw(), i32::from(libc::POLLIN))];
        // Completions have no level to wait for. The set lives as long as the sleep: it costs the kernel a call for each one.
        let mut completions: Option<EdgeSet> = None;
        for served in self.lanes.iter().filter(|s| !s.polled.load(Relaxed)) {
            let mut lane = served.lock();
            if !lane.waiting() {
                let signal = lane.from().carrier().signal().filter(|_| !rung(lane.from()));
                fds.extend(signal.map(|(fd, events)| watch(fd, events)));
                continue;
            }
            if lane.to().kring().state().pending.load(Relaxed) != 0 {
                continue;
            }
            // Packets on both sides of a full ring: their level would let nobody sleep.
            most = most.min(retry);
            if let Some((fd, events)) = lane.to().carrier().signal() {
                let set = match completions.take() {
                    Some(set) => set,
                    None => EdgeSet::new()?,
                };
                set.add(fd, events)?;
                completions = Some(set);
                // What came back before anybody watched made no edge.
                if lane.turn().carried > 0 {
                    return Ok(());
                }
            }
        }
        fds.extend(completions.as_ref().map(|set| watch(set.raw(), i32::from(libc::POLLIN))));
        match ppoll(&mut fds, Some(most), None) {
            Ok(_) | Err(Errno(libc::EINTR)) => {}
            Err(e) => return Err(e),
        }
        if fds[0].revents != 0 {
            bells.take()?;
        }
        Ok(())
    }

    /// Polls some lanes until told to stop.
    fn poll(&self, lanes: &[usize], stop: &AtomicBool) {
        let mine = || lanes.iter().filter_map(|&i| self.lanes.get(i));
        let mut looked = monotonic();
        let mut idle = 0u32;
        while !stop.load(Relaxed) && !self.done() {
            let mut moved = false;
            for served in mine() {
                let turn = served.lock().turn();
                moved |= turn.carried > 0;
                if served.lost(turn) {
                    self.lost.store(true, Relaxed);
                    signal_eventfd(&self.bell);
                }
            }
            if moved {
                idle = 0;
                continue;
            }
            // Others may run on this CPU, and a clock is not free.
            idle = idle.wrapping_add(1);
            yield_now();
            if idle.is_multiple_of(1024) && monotonic().saturating_sub(looked) >= LOOK_AFTER {
                looked = monotonic();
                self.look_after(|s| mine().any(|m| std::ptr::eq(m, s)));
            }
        }
    }
}

/// Whether a ring is one that senders announce by eventfd, not one with a socket or device that is ready by level.
fn rung(ring: &PortRing) -> bool {
    ring.carrier().bell()
}

impl Service {
    /// Starts the worker; `nudge` is what it calls when an interface that was down may have come up, and when it has ended.
    pub fn start(name: &str, lanes: Vec<(Way, Lane)>, nudge: Option<Nudge>) -> Result<Service, Error> {
        let served = |(way, lane)| Served { way, lane: Mutex::new(lane), polled: AtomicBool::new(false) };
        let bell = eventfd().map_err(|e| Error::new("eventfd", name, e))?;
        let flag = || AtomicBool::new(false);
        let lanes = lanes.into_iter().map(served).collect();
        let stop = Arc::new(flag());
        let common = Arc::new(Common { lanes, stop: stop.clone(), lost: flag(), over: flag(), bell, nudge });
        let theirs = common.clone();
        let run = move || {
            block_signals();
            // An error here is one of a wait: the port is taken off the switch, as if it had vanished.
            if theirs.work().is_err() {
                theirs.lost.store(true, Relaxed);
            }
            let nudge = theirs.nudge;
            theirs.over.store(true, Release);
            // Before the engine takes the rings down.
            drop(theirs);
            while let Some(nudge) = nudge
                && !stop.load(Relaxed)
                && !nudge()
            {
                pause(RETRY_AT_LAST);
            }
        };
        let worker = Builder::new().name("netmap-port".into()).spawn(run).map_err(|e| thread_failed(&e))?;
        Ok(Service { common, worker: Some(worker), pollers: Vec::new() })
    }

    /// Whether what is attached is gone, and nobody serves it any more.
    pub fn over(&self) -> bool {
        self.common.over.load(Acquire)
    }

    /// Whether an interface waits to come up.
    pub fn pending(&self) -> bool {
        let waits = |s: &Served| s.outside(&s.lock()).kring().state().pending.load(Relaxed) != 0;
        self.common.lanes.iter().any(waits)
    }

    /// Whether it is polled.
    pub fn polled(&self) -> bool {
        !self.pollers.is_empty()
    }

    /// Starts polling receive rings. Nothing of it stays when it fails.
    pub fn poll(&mut self, plan: PollPlan) -> Result<(), Error> {
        let inward = self.common.lanes.iter().enumerate().filter(|(_, s)| s.way == Way::In).map(|(i, _)| i);
        let lanes: Vec<usize> = inward.skip(plan.first as usize).take(plan.rings as usize).collect();
        let share = if plan.each { 1 } else { lanes.len().max(1) };
        for (n, part) in lanes.chunks(share).enumerate() {
            match self.start_poller(part.to_vec(), plan.cpu + n as u32) {
                Ok(poller) => self.pollers.push(poller),
                Err(e) => {
                    self.unpoll();
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    fn start_poller(&self, lanes: Vec<usize>, cpu: u32) -> Result<Poller, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, common) = (stop.clone(), self.common.clone());
        let (ready, started) = sync_channel(1);
        let run = move || {
            block_signals();
            let bound = stay_on(cpu);
            if ready.send(bound).is_err() || bound.is_err() {
                return;
            }
            for served in lanes.iter().filter_map(|&i| common.lanes.get(i)) {
                served.polled.store(true, Relaxed);
            }
            common.poll(&lanes, &told);
            for served in lanes.iter().filter_map(|&i| common.lanes.get(i)) {
                served.polled.store(false, Relaxed);
            }
        };
        let thread = Builder::new().name("netmap-poll".into()).spawn(run).map_err(|e| thread_failed(&e))?;
        match started.recv() {
            Ok(Ok(())) => Ok(Poller { stop, thread }),
            bound => {
                let _ = thread.join();
                let why = bound.map_or(Errno(libc::EFAULT), |b| b.err().unwrap_or(Errno(libc::EFAULT)));
                Err(Error::new("sched_setaffinity", format!("CPU {cpu}"), why))
            }
        }
    }

    /// Ends polling; the worker serves the rings again.
    pub fn unpoll(&mut self) {
        self.pollers.iter().for_each(|p| p.stop.store(true, Relaxed));
        for poller in self.pollers.drain(..) {
            let _ = poller.thread.join();
        }
        signal_eventfd(&self.common.bell);
    }
}

impl Drop for Service {
    /// Ends the threads; the rings are unmapped after this.
    fn drop(&mut self) {
        self.common.stop.store(true, Relaxed);
        self.unpoll();
        let worker = self.worker.take().filter(|w| w.thread().id() != current().id());
        if let Some(worker) = worker {
            let _ = worker.join();
        }
    }
}
