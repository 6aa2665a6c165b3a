//! Waiting on netmap descriptors and others at once: the implicit syncs of `poll`, then sleep on what carries readiness.
//!
//! A descriptor of netmap is ready when a sync says so. Until then the thread sleeps on the sockets of receive rings and on
//! the program's other descriptors themselves, and on the edges ([`EdgeSet`]) of sockets whose level says nothing. When
//! nothing of the program's own has to be asked, a ready ring costs no system call.

use super::binding::{Binding, RETRY};
use crate::sys::{Errno, Fd, monotonic, ppoll};
use smallvec::SmallVec;
use std::cell::Cell;
use std::ops::Deref;
use std::os::fd::{AsRawFd, RawFd};
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
    match wait_with(fds, binding, |_, revents| revents, None, timeout, sigmask)? {
        Woken::Ready(n) => Ok(n),
        Woken::Changed => Ok(0),
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// So many entries have events.
    Ready(i32),
    /// The other descriptor became readable.
    Changed,
}

/// The same, where `accept(index, revents)` says what of a netmap descriptor's events counts, and `changed` ends a sleep when
/// it is readable.
pub(super) fn wait_with<B: Deref<Target = Binding>>(
    fds: &mut [libc::pollfd],
    binding: impl Fn(usize, RawFd) -> Option<B>,
    mut accept: impl FnMut(usize, i16) -> i16,
    changed: Option<&Fd>,
    timeout: Option<Duration>,
    sigmask: Option<&libc::sigset_t>,
) -> Result<Woken, Errno> {
    let mut deadline = None;
    let mut ask_others = timeout == Some(Duration::ZERO);
    let (mut armed, mut lingered) = (false, false);
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
                    p.revents = accept(i, now.revents);
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
                if armed {
                    disarm(fds, &binding);
                }
                return Ok(Woken::Ready(ready));
            }
        }
        if !armed && !others && !lingered {
            lingered = true;
            if linger(fds, &binding, timeout) {
                continue;
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
                    disarm(fds, &binding);
                    return if others { poll_others(fds, &binding).map(Woken::Ready) } else { Ok(Woken::Ready(0)) };
                }
                Some(if busy { RETRY.min(end - now) } else { end - now })
            }
        };
        let start = monotonic();
        let [others_ready, again] = sleep(fds, &binding, changed, most, sigmask)?;
        if again {
            return Ok(Woken::Changed);
        }
        if monotonic() - start < SHORT {
            CREDIT.set(CREDIT.get().max(LEAST_CREDIT));
        } else {
            CREDIT.set(CREDIT.get() / 2);
        }
        lingered = false;
        ask_others = others_ready;
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

/// Looks again at ports in memory for a few microseconds, if that paid lately; returns whether something happened there.
fn linger<B: Deref<Target = Binding>>(
    fds: &[libc::pollfd],
    binding: &impl Fn(usize, RawFd) -> Option<B>,
    timeout: Option<Duration>,
) -> bool {
    let credit = CREDIT.get();
    // Rings of NICs are the kernel's to look at.
    let in_memory = |b: Option<B>| b.is_some_and(|b| b.bound().is_some_and(|bound| bound.mode().is_none()));
    if credit == 0 || !fds.iter().enumerate().all(|(i, p)| p.fd < 0 || in_memory(binding(i, p.fd))) {
        return false;
    }
    let limit = Duration::from_micros(credit.into()).min(timeout.unwrap_or(Duration::MAX));
    let start = monotonic();
    while monotonic() - start < limit {
        (0..4).for_each(|_| std::hint::spin_loop());
        let ready = |(i, p): (usize, &libc::pollfd)| {
            p.fd >= 0 && binding(i, p.fd).is_some_and(|b| b.poll_now(p.events).revents != 0)
        };
        if fds.iter().enumerate().any(ready) {
            CREDIT.set((credit + 2).min(MOST_CREDIT));
            return true;
        }
    }
    CREDIT.set(credit / 2);
    false
}

/// Nobody sleeps after all.
#[cold]
fn disarm<B: Deref<Target = Binding>>(fds: &[libc::pollfd], binding: &impl Fn(usize, RawFd) -> Option<B>) {
    for (i, p) in fds.iter().enumerate().filter(|(_, p)| p.fd >= 0) {
        if let Some(bound) = binding(i, p.fd).as_ref().and_then(|b| b.bound()) {
            bound.disarm(p.events);
        }
    }
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

/// Sleeps until something may have changed; returns whether a descriptor that is not netmap's has events, and whether
/// `changed` has.
fn sleep<B: Deref<Target = Binding>>(
    fds: &[libc::pollfd],
    binding: &impl Fn(usize, RawFd) -> Option<B>,
    changed: Option<&Fd>,
    left: Option<Duration>,
    sigmask: Option<&libc::sigset_t>,
) -> Result<[bool; 2], Errno> {
    // The program's other descriptors, then sockets of receive rings, then edges.
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
    watched.extend(changed.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }));
    let mut worn: List<_> =
        ours.iter().filter_map(|(b, events)| b.bound().map(|bound| (bound, *events, bound.rack.take()))).collect();
    let mut sets = List::new();
    for (bound, events, ears) in &mut worn {
        let level = bound.level(*events);
        let edges = ears.open(bound, *events, level);
        let deaf = bound.awaits(*events) && !level && edges.iter().all(Option::is_none);
        patience = patience.min(bound.patience(*events, deaf));
        sets.extend(edges.into_iter().flatten());
        if level {
            watched.extend(bound.rx_signals());
        }
    }
    let signals = watched.len();
    let most = left.map_or(patience, |l| l.min(patience));
    // Not by epoll_wait, which the kernel ends with EINTR whenever a signal passes by, even one without a handler: ppoll goes
    // on when a program was stopped and continued.
    watched.extend(sets.iter().map(|s| libc::pollfd { fd: s.raw(), events: libc::POLLIN, revents: 0 }));
    let woken = ppoll(&mut watched, Some(most), sigmask);
    for (p, set) in watched[signals..].iter().zip(&sets) {
        if p.revents != 0 {
            // Taken now: the syncs that follow see whatever these edges announced.
            let _ = set.take();
        }
    }
    drop(sets);
    for (bound, events, ears) in worn {
        bound.disarm(events);
        bound.rack.put(ears);
    }
    if woken? == 0 {
        ours.iter().filter_map(|(b, _)| b.bound()).for_each(|bound| bound.look_after());
    }
    let changed = changed.is_some() && watched[foreign].revents != 0;
    Ok([watched[..foreign].iter().any(|p| p.revents != 0), changed])
}
