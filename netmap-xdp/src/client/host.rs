//! The engine inside this process (`NETMAP_XDP_ENGINE=embedded`): one for all its descriptors, made at the first request.

use super::remote;
use crate::ctl::{Failure, Register, Reply, Request};
use crate::engine::{
    Answers, BufferCounts, Engine, Grant, GrantId, Holder, Part, ProgramMemory, Status, TapsGrant, ValePeer,
};
use crate::ring::Dir;
use crate::sync::{AtomicU64, Ordering::*};
use crate::sys::{Fd, comm, effective_uid, hung_up, monotonic, process_id, settings};
use crate::xsk::{self, Steering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often an interface that is down is looked at, and any.
pub const TEND_EVERY: Duration = Duration::from_millis(50);
const TEND_CALM: Duration = Duration::from_millis(500);

struct Host {
    engine: Option<Engine>,
    /// Registrations that this process closed while another still has the descriptor (after `fork`).
    orphans: Vec<(GrantId, Fd)>,
}

static HOST: Mutex<Host> = Mutex::new(Host { engine: None, orphans: Vec::new() });
static TENDED: AtomicU64 = AtomicU64::new(0);

impl Host {
    fn engine(&mut self) -> &mut Engine {
        self.engine.get_or_insert_with(|| Engine::new(xsk::embedded(), Some(nudge)))
    }

    /// Releases what the last other holder of its descriptor has closed meanwhile.
    fn sweep(&mut self) {
        let gone: Vec<_> = self.orphans.extract_if(.., |(_, end)| hung_up(end)).collect();
        for (id, _) in gone {
            self.engine().release(id);
        }
    }
}

fn host() -> MutexGuard<'static, Host> {
    HOST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread of the engine has something for it to do: [`engine::Nudge`](crate::engine::Nudge).
fn nudge() -> bool {
    let Ok(mut host) = HOST.try_lock() else { return false };
    host.engine().tend_attached();
    true
}

/// Binds, in memory of the program if there is any, and says what became of the options.
pub(super) fn register(
    register: &Register,
    memory: Option<ProgramMemory>,
    answers: &mut Answers,
) -> Result<Grant, Failure> {
    let mut host = host();
    host.sweep();
    host.engine().register_with(register, memory, answers)
}

/// Whether a registration would be refused at once; binds nothing.
pub(super) fn check(register: &Register) -> Result<(), Failure> {
    if remote::chosen() {
        return remote::check(register);
    }
    let mut host = host();
    host.sweep();
    host.engine().check(register)
}

/// Changes the steering rules of a NIC.
pub(super) fn steer(id: GrantId, rules: Option<Steering>) -> Result<(), Failure> {
    host().engine().steer(id, rules)
}

/// What was granted is mapped.
pub(super) fn mapped(id: GrantId) -> Result<(), Failure> {
    host().engine().mapped(id)
}

/// The monitors of a ring.
#[cold]
pub(super) fn taps(id: GrantId, dir: Dir, ring: u16) -> Option<TapsGrant> {
    host().engine().taps(id, dir, ring)
}

/// Carries out a request that binds nothing.
pub fn ask(request: &Request) -> Result<Reply, Failure> {
    if remote::chosen() {
        return remote::ask(request);
    }
    let mut host = host();
    host.sweep();
    host.engine().ask(request)
}

/// Bytes of a buffer of region 1: as netmapd says, if one runs, else by the settings of this process. Starts nothing.
pub fn buf_size() -> u32 {
    let asked = if remote::chosen() { remote::buf_size() } else { None };
    asked.unwrap_or(settings().buf_size)
}

/// What there is: in netmapd, as far as this user may know of it, or in this process. With `accounts` every buffer is
/// looked for.
pub fn status(accounts: bool) -> Result<Status, Failure> {
    let mut all = Status::default();
    let mut from = Some(0);
    while let Some(at) = from {
        let mut part = status_part(Part { from: at, accounts })?;
        // Ports come and go between two parts; the answer to a wrong question would have no end.
        from = part.next.filter(|&next| next > at);
        all.ports.append(&mut part.ports);
        for region in part.regions {
            let known = all.regions.iter().position(|r| r.id == region.id && r.owner == region.owner);
            match known {
                Some(i) => all.regions[i] = region,
                None => all.regions.push(region),
            }
        }
    }
    Ok(all)
}

fn status_part(part: Part) -> Result<Status, Failure> {
    if remote::chosen() {
        return remote::status(part);
    }
    let mut host = host();
    host.sweep();
    let mut status = host.engine().status(part, &|_| true);
    let (pid, uid) = (process_id(), effective_uid());
    for port in status.ports.iter_mut().filter(|p| !p.grants.is_empty()) {
        port.holders = vec![Holder { pid, uid, comm: comm(pid).unwrap_or_default() }];
    }
    Ok(status)
}

/// A binding has gone; `end` is the engine's end of its descriptor. The rings are unmapped.
pub(super) fn release(id: GrantId, end: Option<Fd>) {
    let mut host = host();
    match end {
        Some(end) if !hung_up(&end) => host.orphans.push((id, end)),
        _ => host.engine().release(id),
    }
}

/// Lets the engine look after interfaces soon, since some ring waits for one. netmapd does so unasked.
#[cold]
pub(super) fn tend() {
    tend_every(TEND_EVERY);
}

/// The same now and then.
#[cold]
pub(super) fn tend_calmly() {
    tend_every(TEND_CALM);
}

/// The same at once.
#[cold]
pub(super) fn tend_now() {
    tend_every(Duration::ZERO);
}

fn tend_every(every: Duration) {
    if remote::chosen() {
        return;
    }
    let now = monotonic().as_millis() as u64;
    let last = TENDED.load(Relaxed);
    let due = now.saturating_sub(last) >= every.as_millis() as u64;
    if due && TENDED.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
        host().engine().tend();
    }
}

/// What a sender needs to fill the rings of a port of a switch.
pub(super) fn vale_peer(switch: u64, port: u8, generation: u32) -> Option<ValePeer> {
    if remote::chosen() {
        return remote::vale_peer(switch, port, generation);
    }
    host().engine().vale_peer(switch, port, generation)
}

/// Where the buffers of all regions are, but for those of copy monitors; none: there are no regions. For tests that count them.
pub fn settled() -> Option<BufferCounts> {
    let mut host = host();
    host.sweep();
    host.engine().all_buffers()
}

/// The same of one region.
pub fn settled_in(mem_id: u16) -> Option<BufferCounts> {
    let mut host = host();
    host.sweep();
    host.engine().buffers(mem_id)
}
