//! epoll sets that hold netmap descriptors. The kernel's set keeps the program's other descriptors; those of netmap are kept
//! here, under the number of the epoll descriptor, and waited for as `poll` does it, together with the kernel's set.
//!
//! ```text
//! Set      the netmap descriptors of one epoll set; shared by the numbers that dup gave it
//! Watch    one of them: what is asked, the program's data, and what was reported last, for EPOLLET and EPOLLONESHOT
//! ```
//! A thread that was waiting in the kernel's set alone, when the first netmap descriptor came, is fetched from there by an
//! event of an eventfd of ours in that set, which the program never sees.
//!
//! Level-triggered descriptors are reported while a sync says ready; edge-triggered ones when a sync of anybody's has found
//! something since the last report. A forked child has copies of the sets, which its parent's changes do not reach.

use super::binding::{Binding, WANT_RX, WANT_TX};
use super::table::{self, Table};
use super::wait::{self, Woken};
use crate::ring::Dir;
use crate::sync::{AtomicU64, AtomicUsize, Ordering::*};
use crate::sys::{self, Errno, Fd, eventfd, monotonic, signal_eventfd};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// The flags of `epoll_event.events`, which are no events.
const ET: u32 = libc::EPOLLET as u32;
const ONESHOT: u32 = libc::EPOLLONESHOT as u32;
const EXCLUSIVE: u32 = libc::EPOLLEXCLUSIVE as u32;
/// What may stand beside `EPOLLEXCLUSIVE`.
const WITH_EXCLUSIVE: u32 =
    EXCLUSIVE | ET | (libc::EPOLLWAKEUP | libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP) as u32;
/// The part that is events.
const EVENTS: u32 = 0xffff;

/// In `Watch::last`: nothing was reported yet; and: a one-shot entry has fired.
const NEVER: u64 = 0;
const SPENT: u64 = 1;

/// By the number of the epoll descriptor.
static SETS: Table<Set> = Table::new();
/// How many numbers have ever been entered.
static ANY: AtomicUsize = AtomicUsize::new(0);

struct Watch {
    fd: RawFd,
    binding: Weak<Binding>,
    event: libc::epoll_event,
    /// [`NEVER`], [`SPENT`], or what was reported: the moves of the rings and the events.
    last: AtomicU64,
}

struct Watches {
    all: Vec<Arc<Watch>>,
    /// Readable once they have changed.
    changed: Arc<Fd>,
}

/// The netmap descriptors of one epoll set.
struct Set {
    watches: Mutex<Watches>,
    waiters: AtomicUsize,
    /// In the kernel's set as well, where it fetches those who wait there.
    nudge: Fd,
    /// Who is reported first, so that nobody starves where there is room for few events.
    turn: AtomicUsize,
}

impl Watch {
    fn events(&self) -> u32 {
        self.event.events
    }

    /// What of `revents`, which hold now, is to be reported; claims it, so that nobody else reports it too. Returns what to
    /// put back should there be no room for it.
    fn claim(&self, binding: &Binding, revents: i16) -> Option<u64> {
        let last = self.last.load(Relaxed);
        if revents == 0 || last == SPENT {
            return None;
        }
        let now = self.moves(binding) << 24 | u64::from(revents as u16) << 8 | 2;
        if self.events() & ET != 0 && last != NEVER {
            let news = last >> 24 != now >> 24 || now >> 8 & !(last >> 8) & 0xffff != 0;
            if !news {
                return None;
            }
        }
        let next = if self.events() & ONESHOT != 0 { SPENT } else { now };
        if self.events() & (ET | ONESHOT) == 0 {
            return Some(last);
        }
        self.last.compare_exchange(last, next, Relaxed, Relaxed).ok()
    }

    /// How often syncs have found something in the rings that are asked for, modulo 2^32.
    fn moves(&self, binding: &Binding) -> u64 {
        let Some(bound) = binding.bound() else { return 0 };
        let asked = self.events() as i16;
        let of = |dir, on: bool| bound.rings(dir).iter().filter(move |_| on).map(|r| r.kring().moves());
        let all = of(Dir::Tx, asked & WANT_TX != 0).chain(of(Dir::Rx, asked & WANT_RX != 0));
        // Bound, it differs from unbound.
        u64::from(all.fold(1, u32::wrapping_add))
    }
}

impl Set {
    fn new(epfd: RawFd) -> Result<Set, Errno> {
        let watches = Mutex::new(Watches { all: Vec::new(), changed: Arc::new(eventfd()?) });
        let nudge = eventfd()?;
        sys::epoll_edges(epfd, nudge.as_raw_fd(), nudge_data())?;
        Ok(Set { watches, waiters: AtomicUsize::new(0), turn: AtomicUsize::new(0), nudge })
    }

    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the watches; who waits on them starts anew.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<Watch>>) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut watches = self.lock();
        let done = change(&mut watches.all)?;
        if self.waiters.load(Relaxed) > 0 {
            // Who waits has the old one, which stays readable; the new one is not.
            let before = std::mem::replace(&mut watches.changed, Arc::new(eventfd()?));
            signal_eventfd(&before);
        }
        Ok(done)
    }
}

/// The set of `epfd`, if it holds netmap descriptors.
#[inline]
fn set_of(epfd: RawFd) -> Option<Arc<Set>> {
    if ANY.load(Relaxed) == 0 {
        return None;
    }
    let entry = SETS.get(epfd);
    let set = entry.as_ref()?;
    let some = !set.lock().all.is_empty();
    some.then(|| set.clone())
}

/// Whether `epfd` is an epoll set that holds netmap descriptors, so that waiting on it is ours.
#[inline]
pub fn watches(epfd: RawFd) -> bool {
    ANY.load(Relaxed) != 0 && SETS.get(epfd).as_ref().is_some_and(|set| !set.lock().all.is_empty())
}

/// Number `new` is what `old` is: after `dup` and the like, where the kernel has done it.
pub fn copied(old: RawFd, new: RawFd) {
    if ANY.load(Relaxed) != 0 && old != new {
        SETS.set(new, SETS.get(old).as_ref().cloned());
    }
}

/// The numbers in `first..=last` are closed, or will be at once.
pub fn closed(first: u32, last: u32) {
    if ANY.load(Relaxed) != 0 {
        let numbers = if first == last { vec![first as RawFd] } else { SETS.numbers(first, last) };
        numbers.into_iter().for_each(|fd| drop(SETS.take(fd)));
    }
}

/// No number stands for `binding` any more: it leaves every set, as a file does that is closed.
pub(super) fn gone(binding: &Arc<Binding>) {
    if ANY.load(Relaxed) == 0 || table::holds(binding) {
        return;
    }
    for epfd in SETS.numbers(0, u32::MAX) {
        if let Some(set) = SETS.get(epfd).as_ref() {
            let _ = set.change(|all| {
                all.retain(|w| !std::ptr::eq(w.binding.as_ptr(), Arc::as_ptr(binding)));
                Ok(())
            });
        }
    }
}

/// `epoll_ctl` for a netmap descriptor; `None`: it is not netmap's. Errors as Linux has them.
pub fn epoll_ctl(epfd: RawFd, op: i32, fd: RawFd, event: Option<libc::epoll_event>) -> Option<Result<i32, Errno>> {
    let entry = table::get(fd);
    let binding = entry.as_ref()?;
    Some(control(epfd, op, fd, binding, event).map(|()| 0))
}

fn control(
    epfd: RawFd,
    op: i32,
    fd: RawFd,
    binding: &Arc<Binding>,
    event: Option<libc::epoll_event>,
) -> Result<(), Errno> {
    let event = match op {
        libc::EPOLL_CTL_DEL => None,
        libc::EPOLL_CTL_ADD | libc::EPOLL_CTL_MOD => Some(event.ok_or(Errno(libc::EFAULT))?),
        _ => return Err(Errno(libc::EINVAL)),
    };
    // Whether `epfd` is such a set the kernel knows, and that this descriptor is not in it.
    match sys::epoll_forget(epfd, fd) {
        Ok(()) | Err(Errno(libc::ENOENT)) => {}
        Err(e) => return Err(e),
    }
    let asked = event.map_or(0, |e| e.events);
    if asked & EXCLUSIVE != 0 && (op == libc::EPOLL_CTL_MOD || asked & !WITH_EXCLUSIVE != 0) {
        return Err(Errno(libc::EINVAL));
    }
    let known = SETS.get(epfd).as_ref().cloned();
    let set = match known {
        Some(set) => set,
        None if op == libc::EPOLL_CTL_ADD => {
            let set = Arc::new(Set::new(epfd)?);
            ANY.fetch_add(1, Relaxed);
            if !SETS.set(epfd, Some(set.clone())) {
                return Err(Errno(libc::ENOSPC));
            }
            set
        }
        None => return Err(Errno(libc::ENOENT)),
    };
    let same = |w: &Arc<Watch>| w.fd == fd && std::ptr::eq(w.binding.as_ptr(), Arc::as_ptr(binding));
    let first = set.change(|all| {
        let first = all.is_empty();
        let at = all.iter().position(same);
        let watch =
            |event| Arc::new(Watch { fd, binding: Arc::downgrade(binding), event, last: AtomicU64::new(NEVER) });
        match (event, at) {
            (None, Some(at)) => drop(all.remove(at)),
            (Some(_), Some(_)) if op == libc::EPOLL_CTL_ADD => return Err(Errno(libc::EEXIST)),
            (Some(_), Some(at)) if all[at].events() & EXCLUSIVE != 0 => return Err(Errno(libc::EINVAL)),
            (Some(event), Some(at)) => all[at] = watch(event),
            (Some(event), None) if op == libc::EPOLL_CTL_ADD => all.push(watch(event)),
            (_, None) => return Err(Errno(libc::ENOENT)),
        }
        Ok(first)
    })?;
    if first {
        signal_eventfd(&set.nudge);
    }
    Ok(())
}

/// What the event of a nudge holds: nothing that a program would choose.
fn nudge_data() -> u64 {
    (&raw const ANY as u64).rotate_left(32) ^ 0x6e65_746d_6170_2d78
}

/// Takes the event of a nudge out of `events`, which libc has collected from `epfd`: there are netmap descriptors in the set
/// now. Returns how many are left, if there was one.
#[inline]
pub fn nudged(epfd: RawFd, events: &mut [libc::epoll_event]) -> Option<usize> {
    if ANY.load(Relaxed) == 0 {
        return None;
    }
    let left = without_nudge(events);
    if left == events.len() {
        return None;
    }
    if let Some(set) = SETS.get(epfd).as_ref() {
        // The next one who waits there, if anybody does.
        signal_eventfd(&set.nudge);
    }
    Some(left)
}

fn without_nudge(events: &mut [libc::epoll_event]) -> usize {
    let (mut left, nudge) = (0, nudge_data());
    for i in 0..events.len() {
        if { events[i].u64 } != nudge {
            events[left] = events[i];
            left += 1;
        }
    }
    left
}

/// Counts a waiter as long as it lives.
struct Waiter<'a>(&'a Set);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Relaxed);
    }
}

/// `epoll_wait` and its kin; `None`: the set holds no netmap descriptor. `into` has room for one event at least.
pub fn epoll_wait(
    epfd: RawFd,
    into: &mut [libc::epoll_event],
    timeout: Option<Duration>,
    sigmask: Option<&libc::sigset_t>,
) -> Option<Result<i32, Errno>> {
    let set = set_of(epfd)?;
    let end = timeout.map(|t| monotonic().saturating_add(t));
    set.waiters.fetch_add(1, Relaxed);
    let _waiter = Waiter(&set);
    loop {
        let left = end.map(|end| end.saturating_sub(monotonic()));
        match set.wait_once(epfd, into, left, sigmask) {
            Ok(Some(n)) => return Some(Ok(n)),
            Ok(None) => {}
            Err(e) => return Some(Err(e)),
        }
    }
}

impl Set {
    /// Waits until something is ready, or nothing for `left`; `None` if the watches changed meanwhile.
    fn wait_once(
        &self,
        epfd: RawFd,
        into: &mut [libc::epoll_event],
        left: Option<Duration>,
        sigmask: Option<&libc::sigset_t>,
    ) -> Result<Option<i32>, Errno> {
        let (all, changed) = {
            let watches = self.lock();
            (watches.all.clone(), watches.changed.clone())
        };
        let live: Vec<_> = all.iter().map(|w| w.binding.upgrade()).collect();
        let mut fds = vec![libc::pollfd { fd: epfd, events: libc::POLLIN, revents: 0 }];
        fds.extend(all.iter().zip(&live).map(|(w, b)| {
            let there = b.is_some() && w.last.load(Relaxed) != SPENT;
            libc::pollfd { fd: if there { w.fd } else { -1 }, events: w.events() as i16, revents: 0 }
        }));
        let mut claimed = vec![None; all.len()];
        let binding = |i: usize, _| live.get(i.wrapping_sub(1))?.as_deref();
        let accept = |i: usize, revents: i16| {
            let Some((w, Some(b))) = all.get(i.wrapping_sub(1)).zip(live.get(i.wrapping_sub(1))) else {
                return revents;
            };
            claimed[i - 1] = w.claim(b, revents);
            if claimed[i - 1].is_some() { revents } else { 0 }
        };
        let woken = wait::wait_with(&mut fds, binding, accept, Some(&changed), left, sigmask)?;
        if woken == Woken::Changed {
            return Ok(None);
        }
        // Whoever was last becomes first, the kernel's among them as one.
        let (sources, turn) = (all.len() + 1, self.turn.fetch_add(1, Relaxed));
        let mut n = 0;
        let mut waiting = fds[1..].iter().filter(|p| p.revents != 0).count();
        for i in (0..sources).map(|k| (turn + k) % sources) {
            let p = &fds[i];
            if p.revents == 0 {
                continue;
            }
            if i == 0 {
                let most = (into.len() - n).saturating_sub(waiting).max(1).min(into.len() - n);
                let got = sys::epoll_collect(epfd, &mut into[n..n + most])?;
                n += without_nudge(&mut into[n..n + got]);
            } else {
                waiting -= 1;
                let w = &all[i - 1];
                if let Some(slot) = into.get_mut(n) {
                    *slot = libc::epoll_event { events: u32::from(p.revents as u16) & EVENTS, u64: w.event.u64 };
                    n += 1;
                } else if let Some(before) = claimed[i - 1] {
                    w.last.store(before, Relaxed);
                }
            }
        }
        // What the kernel had may have been taken by another thread: then there is nothing yet.
        let over = left == Some(Duration::ZERO) || woken == Woken::Ready(0);
        Ok((n > 0 || over).then_some(n as i32))
    }
}

/// For `poll` on an epoll descriptor: the netmap descriptors in it, and what is asked of them. Nothing is claimed.
pub(super) fn inside(epfd: RawFd) -> Vec<(Arc<Binding>, i16)> {
    let Some(set) = set_of(epfd) else { return Vec::new() };
    let watches = set.lock();
    let live = watches.all.iter().filter(|w| w.last.load(Relaxed) != SPENT);
    live.filter_map(|w| Some((w.binding.upgrade()?, w.events() as i16))).collect()
}
