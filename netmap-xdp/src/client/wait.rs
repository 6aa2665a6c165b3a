//! Waiting on netmap descriptors and others at once: the implicit syncs of `poll`, then sleep on what carries readiness.
//!
//! A descriptor of netmap is ready when a sync says so. Until then the thread sleeps on the sockets of receive rings and on
//! the program's other descriptors themselves, and on the edges ([`EdgeSet`]) of sockets whose level says nothing. When
//! nothing of the program's own has to be asked, a ready ring costs no system call.

use super::binding::{Binding, Bound, RETRY};
use super::ears::Ears;
use crate::sys::{EdgeSet, Errno, Fd, monotonic, ppoll};
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
    // Looked up once: as a call of the kernel's, a wait goes on with what the numbers stood for when it began.
    let mut kinds: List<Kind<B>> = List::new();
    for (i, p) in fds.iter().enumerate() {
        kinds.push(if p.fd < 0 { Kind::None } else { binding(i, p.fd).map_or(Kind::Other, Kind::Netmap) });
    }
    let others = kinds.iter().any(|kind| matches!(kind, Kind::Other));
    let in_memory = !others && all_in_memory(&kinds);
    let mut deadline = None;
    let mut ask_others = timeout == Some(Duration::ZERO);
    let (mut armed, mut lingered) = (false, false);
    loop {
        let (mut ready, mut busy) = (0, false);
        for (i, (p, kind)) in fds.iter_mut().zip(&kinds).enumerate() {
            p.revents = 0;
            if let Kind::Netmap(b) = kind {
                let now = b.poll_now(p.events);
                p.revents = accept(i, now.revents);
                busy |= now.busy;
            }
            ready += i32::from(p.revents != 0);
        }
        if ready > 0 || ask_others {
            if others {
                ready += poll_others(fds, &kinds)?;
            }
            if ready > 0 || timeout == Some(Duration::ZERO) {
                if armed {
                    disarm(fds, &kinds);
                }
                return Ok(Woken::Ready(ready));
            }
        }
        if in_memory && !armed && !lingered {
            lingered = true;
            if linger(fds, &kinds, timeout) {
                continue;
            }
        }
        if !armed {
            // Who is woken only on request asks now, and looks once more before sleeping.
            armed = true;
            if netmaps(fds, &kinds).filter(|(b, events)| b.bound().is_some_and(|bound| bound.arm(*events))).count() > 0
            {
                continue;
            }
        }
        let most = match timeout {
            None => busy.then_some(RETRY),
            Some(t) => {
                let now = monotonic();
                let end = *deadline.get_or_insert(now + t);
                if now >= end {
                    disarm(fds, &kinds);
                    return if others { poll_others(fds, &kinds).map(Woken::Ready) } else { Ok(Woken::Ready(0)) };
                }
                Some(if busy { RETRY.min(end - now) } else { end - now })
            }
        };
        let start = in_memory.then(monotonic);
        let [others_ready, again] = sleep(fds, &kinds, changed, most, sigmask)?;
        if again {
            return Ok(Woken::Changed);
        }
        if let Some(start) = start {
            let short = monotonic() - start < SHORT;
            CREDIT.set(if short { CREDIT.get().max(LEAST_CREDIT) } else { CREDIT.get() / 2 });
        }
        lingered = false;
        ask_others = others_ready;
        armed = false;
    }
}

/// What an entry of the array is.
enum Kind<B> {
    /// Nothing: a number below 0.
    None,
    Netmap(B),
    Other,
}

/// Netmap's entries, and what is asked of them.
fn netmaps<'a, B: Deref<Target = Binding>>(
    fds: &'a [libc::pollfd],
    kinds: &'a [Kind<B>],
) -> impl Iterator<Item = (&'a Binding, i16)> {
    fds.iter().zip(kinds).filter_map(|(p, kind)| match kind {
        Kind::Netmap(b) => Some((&**b, p.events)),
        _ => None,
    })
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

/// Whether nothing but ports in memory is waited for. Rings of NICs are the kernel's to look at.
fn all_in_memory<B: Deref<Target = Binding>>(kinds: &[Kind<B>]) -> bool {
    kinds.iter().all(|kind| match kind {
        Kind::None => true,
        Kind::Netmap(b) => b.bound().is_some_and(|bound| bound.mode().is_none()),
        Kind::Other => false,
    })
}

/// Looks again at ports in memory for a few microseconds, if that paid lately; returns whether something happened there.
fn linger<B: Deref<Target = Binding>>(fds: &[libc::pollfd], kinds: &[Kind<B>], timeout: Option<Duration>) -> bool {
    let credit = CREDIT.get();
    if credit == 0 {
        return false;
    }
    let limit = Duration::from_micros(credit.into()).min(timeout.unwrap_or(Duration::MAX));
    let start = monotonic();
    while monotonic() - start < limit {
        (0..4).for_each(|_| std::hint::spin_loop());
        if netmaps(fds, kinds).any(|(b, events)| b.poll_now(events).revents != 0) {
            CREDIT.set((credit + 2).min(MOST_CREDIT));
            return true;
        }
    }
    CREDIT.set(credit / 2);
    false
}

/// Nobody sleeps after all.
#[cold]
fn disarm<B: Deref<Target = Binding>>(fds: &[libc::pollfd], kinds: &[Kind<B>]) {
    for (b, events) in netmaps(fds, kinds) {
        if let Some(bound) = b.bound() {
            bound.disarm(events);
        }
    }
}

/// Events of the descriptors that are not netmap's, now.
fn poll_others<B>(fds: &mut [libc::pollfd], kinds: &[Kind<B>]) -> Result<i32, Errno> {
    let mut copy: List<libc::pollfd> = SmallVec::from_slice(fds);
    for (p, kind) in copy.iter_mut().zip(kinds) {
        if !matches!(kind, Kind::Other) {
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
    kinds: &[Kind<B>],
    changed: Option<&Fd>,
    left: Option<Duration>,
    sigmask: Option<&libc::sigset_t>,
) -> Result<[bool; 2], Errno> {
    // The program's other descriptors, then sockets of receive rings, then edges.
    let mut watched: List<libc::pollfd> = List::new();
    for (p, _) in fds.iter().zip(kinds).filter(|(_, kind)| matches!(kind, Kind::Other)) {
        watched.push(libc::pollfd { revents: 0, ..*p });
    }
    let foreign = watched.len();
    watched.extend(changed.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }));
    let mut worn: List<(&Bound, i16, Ears)> = List::new();
    for (bound, events) in netmaps(fds, kinds).filter_map(|(b, events)| Some((b.bound()?, events))) {
        worn.push((bound, events, bound.rack.take()));
    }
    let mut patience = Duration::MAX;
    let mut sets: List<&EdgeSet> = List::new();
    for (bound, events, ears) in &mut worn {
        let level = bound.level(*events);
        let edges = ears.open(bound, *events, level);
        let deaf = bound.awaits(*events) && !level && edges.iter().all(Option::is_none);
        patience = patience.min(bound.patience(*events, deaf));
        edges.into_iter().flatten().for_each(|set| sets.push(set));
        if level {
            bound.rx_signals().for_each(|signal| watched.push(signal));
        }
    }
    let signals = watched.len();
    let most = left.map_or(patience, |l| l.min(patience));
    // Not by epoll_wait, which the kernel ends with EINTR whenever a signal passes by, even one without a handler: ppoll goes
    // on when a program was stopped and continued.
    for set in &sets {
        watched.push(libc::pollfd { fd: set.raw(), events: libc::POLLIN, revents: 0 });
    }
    let woken = ppoll(&mut watched, Some(most), sigmask);
    for (p, set) in watched[signals..].iter().zip(&sets) {
        if p.revents != 0 {
            // Taken now: the syncs that follow see whatever these edges announced.
            let _ = set.take();
        }
    }
    drop(sets);
    for (bound, events, ears) in &mut worn {
        bound.disarm(*events);
        bound.rack.put(std::mem::take(ears));
        if woken == Ok(0) {
            bound.look_after();
        }
    }
    woken?;
    let changed = changed.is_some() && watched[foreign].revents != 0;
    Ok([watched[..foreign].iter().any(|p| p.revents != 0), changed])
}
