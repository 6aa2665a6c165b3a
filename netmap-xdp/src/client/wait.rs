//! Waiting on netmap descriptors and others at once: the implicit syncs of `poll`, then sleep on what carries readiness.
//!
//! A descriptor of netmap is ready when a sync says so. Until then the thread sleeps on the sockets of receive rings and on
//! the program's other descriptors themselves, and on the edges ([`EdgeSet`]) of sockets whose level says nothing. When
//! nothing of the program's own has to be asked, a ready ring costs no system call.

use super::binding::{Binding, RETRY};
use crate::sys::{Errno, monotonic, ppoll};
use smallvec::SmallVec;
use std::cell::Cell;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::time::Duration;

/// A list for each descriptor that is waited for; few of them need no memory of the allocator's.
type List<T> = SmallVec<[T; 8]>;

/// `ppoll` where `binding(index, fd)` says which descriptors are netmap's.
///
/// As the kernel does: entries below 0 are skipped; the answer counts entries with events; `EINTR` when a signal came.
pub fn wait<B: Deref<Target = Binding>>(
    fds: &mut [libc::pollfd],
    binding: impl Fn(usize, RawFd) -> Option<B>,
    timeout: Option<Duration>,
    sigmask: Option<&libc::sigset_t>,
) -> Result<i32, Errno> {
    let mut deadline = None;
    let mut ask_others = timeout == Some(Duration::ZERO);
    let mut armed = false;
    loop {
        let (mut ready, mut others, mut busy) = (0, false, false);
        for (i, p) in fds.iter_mut().enumerate() {
            p.revents = 0;
            if p.fd < 0 {
                continue;
            }
            match binding(i, p.fd) {
                Some(b) => {
                    let now = b.poll_now(p.events);
                    p.revents = now.revents;
                    busy |= now.busy;
                }
                None => others = true,
            }
            ready += i32::from(p.revents != 0);
        }
        if ready > 0 || ask_others {
            if others {
                ready += poll_others(fds, &binding)?;
            }
            if ready > 0 || timeout == Some(Duration::ZERO) {
                return Ok(ready);
            }
        }
        if !armed && !others {
            let ready = linger(fds, &binding, timeout);
            if ready > 0 {
                return Ok(ready);
            }
        }
        if !armed {
            // Who is woken only on request asks now, and looks once more before sleeping.
            armed = true;
            let arm = |(i, p): (usize, &libc::pollfd)| {
                binding(i, p.fd).is_some_and(|b| b.bound().is_some_and(|bound| bound.arm(p.events)))
            };
            if fds.iter().enumerate().filter(|(_, p)| p.fd >= 0).filter(|e| arm(*e)).count() > 0 {
                continue;
            }
        }
        let most = match timeout {
            None => busy.then_some(RETRY),
            Some(t) => {
                let now = monotonic();
                let end = *deadline.get_or_insert(now + t);
                if now >= end {
                    return if others { poll_others(fds, &binding) } else { Ok(0) };
                }
                Some(if busy { RETRY.min(end - now) } else { end - now })
            }
        };
        let start = monotonic();
        ask_others = sleep(fds, &binding, most, sigmask)?;
        if monotonic() - start < SHORT {
            CREDIT.set(CREDIT.get().max(LEAST_CREDIT));
        } else {
            CREDIT.set(CREDIT.get() / 2);
        }
        armed = false;
    }
}

/// A sleep that ends sooner than this would better have been spent awake.
const SHORT: Duration = Duration::from_micros(60);
/// Microseconds for which a thread looks again before it sleeps: so many at first, and at most. Falling asleep, being woken
/// and running again takes longer than that.
const LEAST_CREDIT: u32 = 4;
const MOST_CREDIT: u32 = 20;

thread_local! {
    /// How long this thread lingers before its next sleep. Grows while that pays, so that a pair that is busy all the time
    /// makes no system call; and is nothing for one that sleeps for long, as most do.
    static CREDIT: Cell<u32> = const { Cell::new(0) };
}

/// Looks again at ports in memory for a few microseconds, if that paid lately; returns how many have events.
fn linger<B: Deref<Target = Binding>>(
    fds: &mut [libc::pollfd],
    binding: &impl Fn(usize, RawFd) -> Option<B>,
    timeout: Option<Duration>,
) -> i32 {
    let credit = CREDIT.get();
    // Rings of NICs are the kernel's to look at.
    let in_memory = |b: Option<B>| b.is_some_and(|b| b.bound().is_some_and(|bound| bound.mode().is_none()));
    if credit == 0 || !fds.iter().enumerate().all(|(i, p)| p.fd < 0 || in_memory(binding(i, p.fd))) {
        return 0;
    }
    let limit = Duration::from_micros(credit.into()).min(timeout.unwrap_or(Duration::MAX));
    let start = monotonic();
    while monotonic() - start < limit {
        (0..4).for_each(|_| std::hint::spin_loop());
        let mut ready = 0;
        for (i, p) in fds.iter_mut().enumerate().filter(|(_, p)| p.fd >= 0) {
            p.revents = binding(i, p.fd).map_or(0, |b| b.poll_now(p.events).revents);
            ready += i32::from(p.revents != 0);
        }
        if ready > 0 {
            CREDIT.set((credit + 2).min(MOST_CREDIT));
            return ready;
        }
    }
    CREDIT.set(credit / 2);
    0
}

/// Events of the descriptors that are not netmap's, now.
fn poll_others<B: Deref<Target = Binding>>(
    fds: &mut [libc::pollfd],
    binding: &impl Fn(usize, RawFd) -> Option<B>,
) -> Result<i32, Errno> {
    let mut copy: List<libc::pollfd> = SmallVec::from_slice(fds);
    for (i, p) in copy.iter_mut().enumerate() {
        if p.fd >= 0 && binding(i, p.fd).is_some() {
            p.fd = -1;
        }
    }
    let n = ppoll(&mut copy, Some(Duration::ZERO), None)?;
    for (p, c) in fds.iter_mut().zip(&copy).filter(|(_, c)| c.fd >= 0) {
        p.revents = c.revents;
    }
    Ok(n as i32)
}

/// Sleeps until something may have changed; returns whether a descriptor that is not netmap's has events.
fn sleep<B: Deref<Target = Binding>>(
    fds: &[libc::pollfd],
    binding: &impl Fn(usize, RawFd) -> Option<B>,
    left: Option<Duration>,
    sigmask: Option<&libc::sigset_t>,
) -> Result<bool, Errno> {
    // The program's other descriptors, then sockets of receive rings, then the edges of transmit rings, or of receive rings
    // whose sockets would not let anybody sleep.
    let mut watched: List<libc::pollfd> = List::new();
    let mut ours = List::new();
    let mut patience = Duration::MAX;
    for (i, p) in fds.iter().enumerate().filter(|(_, p)| p.fd >= 0) {
        match binding(i, p.fd) {
            Some(b) => ours.push((b, p.events)),
            None => watched.push(libc::pollfd { revents: 0, ..*p }),
        }
    }
    let foreign = watched.len();
    let mut sets = List::new();
    let mut syncs = List::new();
    for (b, events) in &ours {
        if let Some(bound) = b.bound() {
            syncs.push((bound, *events, bound.syncs(*events)));
            let level = bound.level(*events);
            patience = patience.min(bound.patience(*events, level));
            sets.extend(bound.edges(*events, level).into_iter().flatten());
            if level {
                watched.extend(bound.rx_signals());
            }
        }
    }
    let signals = watched.len();
    let most = left.map_or(patience, |l| l.min(patience));
    // Not by epoll_wait, which the kernel ends with EINTR whenever a signal passes by, even one without a handler: ppoll goes
    // on when a program was stopped and continued.
    watched.extend(sets.iter().map(|s| libc::pollfd { fd: s.raw(), events: libc::POLLIN, revents: 0 }));
    let woken = ppoll(&mut watched, Some(most), sigmask)? != 0;
    syncs.iter().for_each(|&(bound, events, before)| bound.slept(events, before));
    for (p, set) in watched[signals..].iter().zip(&sets) {
        if p.revents != 0 {
            // Taken now: the syncs that follow see whatever these edges announced.
            set.take()?;
        }
    }
    if !woken {
        ours.iter().filter_map(|(b, _)| b.bound()).for_each(|bound| bound.look_after());
    }
    Ok(watched[..foreign].iter().any(|p| p.revents != 0))
}
