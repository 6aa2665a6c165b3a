//! The engine in another process: this process's connection to netmapd.
//!
//! One connection per process, made at the first request and made again when it breaks; a lock serves one request at a time.
//! A forked child makes its own: it has other credentials perhaps, and another number in ring locks certainly. Nothing here
//! is on the data path but [`client_id`], which is one load.

use super::launch::{self, Absent, Look};
use crate::ctl::{Condition, Failure, PoolsInfo, PortName, Register, Reply, Request};
use crate::engine::{Answers, Grant, Part, ProgramMemory, Status, TapsGrant, ValePeer};
use crate::proto::{
    Asked, Assembly, FromEngine, Granted, PIECE, PeerAsked, RegisterToken, RingOf, StatusAsked, Steer, ToEngine,
    VERSION, Welcome, open as open_piece, pieces, version_mismatch,
};
use crate::ring::Dir;
use crate::sync::{AtomicI32, AtomicU32, Ordering::*};
use crate::sys::{
    EngineChoice, Errno, Error, Fd, Level, close_inherited, generation, in_forked_child, log, namespace, process_id,
    receive_message, send_message, settings,
};
use crate::xsk::Steering;
use arc_swap::ArcSwapOption;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

/// Numbers from here on are made up by processes that cannot ask for one.
const MADE_UP: u32 = 1 << 30;

/// The connection of one process; a child of `fork` leaves its parent's alone, whatever state it is in.
struct Session {
    generation: u64,
    link: Mutex<Option<Link>>,
}

/// A connection that was greeted.
pub(super) struct Link {
    fd: Fd,
    number: u32,
    welcome: Welcome,
}

static SESSION: ArcSwapOption<Session> = ArcSwapOption::const_empty();
/// What this process writes into ring locks; 0: not known yet.
static CLIENT: AtomicU32 = AtomicU32::new(0);
/// The connection's descriptor, for a forked child to close: as long as it were open there, nobody would learn of the
/// parent's death. -1: none.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);

fn in_child() {
    CLIENT.store(0, Relaxed);
    let fd = DESCRIPTOR.swap(-1, Relaxed);
    if fd >= 0 {
        close_inherited(fd);
    }
}

/// Whether netmapd plays the kernel's part.
#[inline]
pub(super) fn chosen() -> bool {
    settings().engine != EngineChoice::Embedded
}

fn session() -> Arc<Session> {
    in_forked_child(in_child);
    let now = generation();
    loop {
        let known = SESSION.load_full();
        if let Some(session) = known.as_ref().filter(|s| s.generation == now) {
            return session.clone();
        }
        let fresh = Arc::new(Session { generation: now, link: Mutex::new(None) });
        let before = SESSION.compare_and_swap(&known, Some(fresh.clone()));
        let ours = match (&*before, &known) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        if ours {
            // The parent's: its lock may be held for ever, and its descriptor is closed already.
            std::mem::forget(known);
            return fresh;
        }
    }
}

/// What this process writes into the locks of rings.
#[inline]
pub(super) fn client_id() -> u32 {
    match CLIENT.load(Relaxed) {
        0 => find_client_id(),
        id => id,
    }
}

#[cold]
fn find_client_id() -> u32 {
    in_forked_child(in_child);
    let made_up = MADE_UP | process_id();
    if chosen() {
        // Without netmapd nobody clears the locks of the dead, so any number does that others do not have.
        let session = session();
        let mut link = session.link.lock().unwrap_or_else(PoisonError::into_inner);
        if link.is_none() {
            *link = launch::reach_quietly();
        }
        let id = link.as_ref().map_or(made_up, |l| l.welcome.client);
        DESCRIPTOR.store(link.as_ref().map_or(-1, Link::raw), Relaxed);
        CLIENT.store(id, Relaxed);
        return id;
    }
    CLIENT.store(made_up, Relaxed);
    made_up
}

/// Why a connection did not carry a request to its answer.
pub(super) enum Broken {
    /// It is of no use any more.
    Lost(Errno),
    /// The other side makes no sense.
    Nonsense(Failure),
}

impl From<Errno> for Broken {
    fn from(e: Errno) -> Broken {
        Broken::Lost(e)
    }
}

impl Link {
    /// Greets whoever listens at the other end of `fd`.
    pub(super) fn greet(fd: Fd, program: String) -> Result<Link, Broken> {
        let mut link = Link { fd, number: 0, welcome: Welcome { client: 0, admitted: false } };
        match link.call(&ToEngine::Hello(program), true)? {
            FromEngine::Welcome(welcome) => link.welcome = welcome,
            FromEngine::Failed(failure) => return Err(Broken::Nonsense(failure)),
            _ => return Err(Broken::Nonsense(Condition::System.says("netmapd does not greet back"))),
        }
        Ok(link)
    }

    /// Whether any rule admits this user.
    pub(super) fn admitted(&self) -> bool {
        self.welcome.admitted
    }

    fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// One request and its answer. `high`: descriptors that come belong to this library, not to the program.
    fn call(&mut self, message: &ToEngine, high: bool) -> Result<FromEngine, Broken> {
        self.number = self.number.wrapping_add(1);
        for piece in pieces(message, self.number) {
            let fds: Vec<RawFd> = piece.fds.iter().map(|fd| fd.as_raw_fd()).collect();
            send_message(&self.fd, &piece.bytes, &fds, 0)?;
        }
        let mut buffer = vec![0; PIECE];
        let mut assembly = Assembly::default();
        loop {
            let got = receive_message(&self.fd, &mut buffer, 0, high)?;
            if got.len == 0 {
                return Err(Broken::Lost(Errno(libc::ECONNRESET)));
            }
            let nonsense = |why| Broken::Nonsense(Failure::from(why));
            let (header, rest) = open_piece(&buffer[..got.len]).map_err(nonsense)?;
            if header.version != VERSION {
                return Err(Broken::Nonsense(version_mismatch(header.version, VERSION)));
            }
            if got.cut || header.number != self.number {
                return Err(Broken::Nonsense(
                    Condition::System.says("netmapd's answer is cut off or to something else"),
                ));
            }
            assembly.add(rest, got.fds).map_err(nonsense)?;
            if !header.more {
                return assembly.finish().map_err(nonsense);
            }
        }
    }
}

/// Carries a request to netmapd and its answer back, over a new connection if the old one broke: netmapd may have been
/// restarted.
fn call(message: &ToEngine, high: bool) -> Result<FromEngine, Failure> {
    call_after(launch::reach, message, high)
}

/// The same over a connection that `reach` makes if need be.
fn call_after(reach: fn() -> Result<Link, Absent>, message: &ToEngine, high: bool) -> Result<FromEngine, Failure> {
    let session = session();
    let mut link = session.link.lock().unwrap_or_else(PoisonError::into_inner);
    let mut tries = 2;
    loop {
        tries -= 1;
        let connected = match &mut *link {
            Some(link) => link,
            empty => {
                let fresh = reach().map_err(|Absent(failure)| failure)?;
                DESCRIPTOR.store(fresh.raw(), Relaxed);
                CLIENT.store(fresh.welcome.client, Relaxed);
                empty.insert(fresh)
            }
        };
        let broken = match connected.call(message, high) {
            Ok(FromEngine::Failed(failure)) => return Err(failure),
            Ok(answer) => return Ok(answer),
            Err(broken) => broken,
        };
        DESCRIPTOR.store(-1, Relaxed);
        *link = None;
        match broken {
            Broken::Nonsense(failure) => return Err(failure),
            // It works on something that takes long, or hangs: a second request would not help.
            Broken::Lost(errno @ Errno(libc::EAGAIN)) => {
                return Err(Failure {
                    errno: Errno(libc::ETIMEDOUT),
                    message: format!("netmapd does not answer ({errno}); restart it"),
                });
            }
            Broken::Lost(errno) if tries == 0 => {
                return Err(Failure { errno, message: format!("the connection to netmapd breaks: {errno}") });
            }
            Broken::Lost(_) => log(Level::Debug, format_args!("netmapd is gone; looking for the next one")),
        }
    }
}

fn unexpected() -> Failure {
    Condition::System.says("netmapd answers something else than was asked")
}

/// The namespace in which names count for the calling thread.
fn here() -> Option<Arc<Fd>> {
    namespace().ok().map(Arc::new)
}

/// What netmapd knows of a descriptor.
pub(super) enum Known {
    /// It is bound.
    Bound(Box<Grant>, u64),
    /// It is netmap's, and not bound.
    Unbound,
    /// It never heard of it: the descriptor is not netmap's, or netmapd was restarted.
    Unknown,
}

fn granted(granted: Granted) -> Result<(Box<Grant>, u64), Failure> {
    // Nobody else has it: it was made of this answer.
    let grant = Arc::into_inner(granted.grant).ok_or_else(unexpected)?;
    Ok((Box::new(grant), granted.flags))
}

/// `open("/dev/netmap")`: a descriptor at the lowest free number, close-on-exec, or (`high`) out of the program's way.
pub(super) fn open(high: bool) -> Result<Fd, Failure> {
    match call(&ToEngine::Open, high)? {
        FromEngine::Opened(fd) => Arc::into_inner(fd).ok_or_else(unexpected),
        _ => Err(unexpected()),
    }
}

/// Binds the descriptor, in memory of the program if there is any, and says what became of the options.
pub(super) fn register(
    token: &Arc<Fd>,
    register: &Register,
    memory: Option<&ProgramMemory>,
    answers: &mut Answers,
) -> Result<Known, Failure> {
    let memory = match memory {
        Some(ProgramMemory::File { fd, file, .. }) => Some((fd.clone(), file.offset)),
        Some(ProgramMemory::Here { .. }) | None => None,
    };
    let ask = RegisterToken { token: token.clone(), namespace: here(), register: register.clone(), memory };
    match call(&ToEngine::Register(ask), true)? {
        FromEngine::Granted(g) => {
            *answers = g.answers;
            granted(g).map(|(grant, flags)| Known::Bound(grant, flags))
        }
        FromEngine::Refused(refused) => {
            *answers = refused.answers;
            Err(refused.failure)
        }
        FromEngine::Unknown => Ok(Known::Unknown),
        _ => Err(unexpected()),
    }
}

/// What is this descriptor?
pub(super) fn attach(token: &Arc<Fd>) -> Result<Known, Failure> {
    match call(&ToEngine::Attach(token.clone()), true)? {
        FromEngine::Granted(g) => granted(g).map(|(grant, flags)| Known::Bound(grant, flags)),
        FromEngine::Unbound => Ok(Known::Unbound),
        FromEngine::Unknown => Ok(Known::Unknown),
        _ => Err(unexpected()),
    }
}

/// What was granted is mapped.
pub(super) fn mapped(token: &Arc<Fd>) -> Result<(), Failure> {
    match call(&ToEngine::Mapped(token.clone()), true)? {
        FromEngine::Done => Ok(()),
        _ => Err(unexpected()),
    }
}

/// The monitors of a ring of a bound descriptor.
pub(super) fn taps(token: &Arc<Fd>, dir: Dir, ring: u16) -> Option<TapsGrant> {
    match call(&ToEngine::Taps(RingOf { token: token.clone(), dir, ring }), true) {
        Ok(FromEngine::Taps(taps)) => taps,
        _ => None,
    }
}

/// What a sender needs to fill the rings of a port of a switch.
pub(super) fn vale_peer(switch: u64, port: u8, generation: u32) -> Option<ValePeer> {
    match call(&ToEngine::ValePeer(PeerAsked { switch, port, generation }), true) {
        Ok(FromEngine::ValePeer(peer)) => peer,
        _ => None,
    }
}

/// Changes the steering rules of the NIC that a descriptor is bound to.
pub(super) fn steer(token: &Arc<Fd>, rules: Option<Steering>) -> Result<(), Failure> {
    match call(&ToEngine::Steer(Steer { token: token.clone(), rules }), true)? {
        FromEngine::Done => Ok(()),
        FromEngine::Unknown => {
            Err(Condition::System.says("netmapd was restarted since the port was bound: bind it again"))
        }
        _ => Err(unexpected()),
    }
}

/// What was granted is of no use.
pub(super) fn release(token: &Arc<Fd>) {
    // If netmapd is gone, so is the registration.
    let _ = call(&ToEngine::Release(token.clone()), true);
}

/// Carries out a request that binds nothing.
pub(super) fn ask(request: &Request) -> Result<Reply, Failure> {
    match call(&ToEngine::Ask(Asked { namespace: here(), request: request.clone() }), true)? {
        FromEngine::Answer(reply) => Ok(reply),
        _ => Err(unexpected()),
    }
}

/// Bytes of a buffer of region 1, if a netmapd runs.
pub(super) fn buf_size() -> Option<u32> {
    // A pipe can be asked about before it is there.
    let request = Request::PoolsInfo(PoolsInfo { name: PortName::from_field(b"buffers{1\0"), mem_id: 0 });
    match call_after(launch::reach_running, &ToEngine::Ask(Asked { namespace: here(), request }), true).ok()? {
        FromEngine::Answer(Reply::PoolsInfo(told)) => Some(told.0.buffers.size),
        _ => None,
    }
}

/// What a registration would meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// No netmapd runs; why not.
    Absent(String),
    /// What answers is of no use; why.
    Broken(String),
    /// The netmapd at this place admits this user to nothing.
    Stranger(String),
    /// The netmapd at this place would carry it out, as far as can be told.
    Serves(String),
    /// It would refuse; why.
    Refuses(String, String),
}

/// What a registration would meet now. Starts nothing, binds nothing.
pub fn outlook(register: &Register) -> Outlook {
    let mut outlook = Outlook::Absent("there is nowhere to look for netmapd".into());
    for look in launch::survey() {
        match look {
            Look::Nobody(at, errno) => {
                if matches!(outlook, Outlook::Absent(_)) {
                    outlook = Outlook::Absent(format!("nobody answers at {} ({errno})", at.display()));
                }
            }
            Look::Nonsense(at, why) => return Outlook::Broken(format!("{}: {why}", at.display())),
            Look::Daemon(at, link) if !link.admitted() => outlook = Outlook::Stranger(at.display().to_string()),
            Look::Daemon(at, mut link) => {
                let request = Request::Register(register.clone());
                let at = at.display().to_string();
                return match link.call(&ToEngine::Ask(Asked { namespace: here(), request }), true) {
                    Ok(FromEngine::Failed(why)) | Err(Broken::Nonsense(why)) => Outlook::Refuses(at, why.message),
                    Err(Broken::Lost(errno)) => Outlook::Broken(format!("{at}: it does not answer ({errno})")),
                    Ok(_) => Outlook::Serves(at),
                };
            }
        }
    }
    outlook
}

/// A part of what there is, as far as this user may know of it.
pub(super) fn status(part: Part) -> Result<Status, Failure> {
    // Who looks at what there is starts nothing.
    match call_after(launch::reach_running, &ToEngine::Status(StatusAsked { namespace: here(), part }), true)? {
        FromEngine::Status(status) => Ok(status),
        _ => Err(unexpected()),
    }
}

/// Whether a registration would be refused at once; binds nothing.
pub(super) fn check(register: &Register) -> Result<(), Failure> {
    ask(&Request::Register(register.clone())).map(drop)
}

/// A failed system call of ours on the way.
pub(super) fn failed(call: &'static str, errno: Errno) -> Failure {
    Failure::system(&Error::new(call, "a netmap descriptor", errno))
}
