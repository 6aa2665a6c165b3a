//! What the daemon knows and decides: sessions, netmap descriptors and what each is bound to, permissions, reaping.
//!
//! One request in, one answer out; nothing here waits for a client or sends to one, and time is an argument. The edge
//! (`server`) calls it in the daemon's only thread.

use super::policy::{Policy, Subject, subject_of, subject_of_request};
use super::quiet::Quiet;
use crate::ctl::{Condition, Failure, Register, Reply, Request};
use crate::engine::{
    Answers, CarrierGrant, Engine, Grant, GrantId, Holder, Kind, Part, ProgramMemory, RingGrant, Seen, Status,
    TapsGrant, ValePeer, extmem_size,
};
use crate::proto::{
    Asked, FromEngine, Granted, PeerAsked, Refused, RegisterToken, RingOf, StatusAsked, Steer, TOKEN_NAME, ToEngine,
    Welcome,
};
use crate::ring::Dir;
use crate::sys::{
    Error, Fd, Inside, Level, Peer, SharedFile, Unfit, check_passed_file, comm, identity, is_namespace, lives_in,
    monotonic, name_socket, process_id, socket_pair,
};
use crate::xsk::Steering;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Descriptors that one user other than root may have open at once, and all users together.
const TOKENS_OF_USER: usize = 4096;
const TOKENS: usize = 65536;
/// Numbers of clients stay below this; a client that has lost the daemon makes up one above it.
const CLIENTS: u32 = 1 << 30;

/// How often interfaces are looked at while rings wait for one to come up, and else.
const TEND_EVERY: Duration = Duration::from_millis(50);
const TEND_CALM: Duration = Duration::from_millis(500);

/// What the core needs of an engine.
pub trait Registry {
    /// Binds, in memory of the program if there is any, and says what became of the options.
    fn register(
        &mut self,
        register: &Register,
        memory: Option<ProgramMemory>,
        answers: &mut Answers,
    ) -> Result<Grant, Failure>;
    /// Whether a registration would be refused at once; binds nothing.
    fn check(&mut self, register: &Register) -> Result<(), Failure>;
    /// Carries out a request that binds nothing.
    fn ask(&mut self, request: &Request) -> Result<Reply, Failure>;
    /// Undoes a registration.
    fn release(&mut self, id: GrantId);
    /// Looks after interfaces of all network namespaces; returns whether any waits to come up.
    fn tend(&mut self) -> bool;
    /// Looks after interfaces that are attached to switches; returns how soon it wants to do so again, if there are any.
    fn tend_attached(&mut self) -> Option<Duration> {
        None
    }
    /// Whether something is there that stays without any program that uses it.
    fn lasting(&self) -> bool {
        false
    }
    /// A client died.
    fn abandon(&mut self, client: u32);
    /// Changes the steering rules of a NIC.
    fn steer(&mut self, id: GrantId, rules: Option<Steering>) -> Result<(), Failure>;
    /// A client has mapped what it was granted.
    fn mapped(&mut self, id: GrantId) -> Result<(), Failure>;
    /// The monitors of a ring.
    fn taps(&mut self, id: GrantId, dir: Dir, ring: u16) -> Option<TapsGrant>;
    /// What a sender needs to fill the rings of a port of a switch.
    fn vale_peer(&mut self, asked: PeerAsked) -> Option<ValePeer>;
    /// A part of what there is, of the ports that `may_see` admits.
    fn status(&mut self, part: Part, may_see: &dyn Fn(Seen<'_>) -> bool) -> Status;
    /// Whether the last registration failed for a reason that passes within milliseconds.
    fn queue_busy(&self) -> bool;
    /// Whether [`Registry::tend`] has something to do, interfaces or not.
    fn unsettled(&self) -> bool;
}

impl Registry for Engine {
    fn register(
        &mut self,
        register: &Register,
        memory: Option<ProgramMemory>,
        answers: &mut Answers,
    ) -> Result<Grant, Failure> {
        Engine::register_with(self, register, memory, answers)
    }
    fn check(&mut self, register: &Register) -> Result<(), Failure> {
        Engine::check(self, register)
    }
    fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        Engine::ask(self, request)
    }
    fn release(&mut self, id: GrantId) {
        Engine::release(self, id);
    }
    fn tend(&mut self) -> bool {
        Engine::tend(self)
    }
    fn tend_attached(&mut self) -> Option<Duration> {
        Engine::tend_attached(self)
    }

    fn lasting(&self) -> bool {
        Engine::lasting(self)
    }

    fn abandon(&mut self, client: u32) {
        Engine::abandon(self, client);
    }
    fn steer(&mut self, id: GrantId, rules: Option<Steering>) -> Result<(), Failure> {
        Engine::steer(self, id, rules)
    }
    fn mapped(&mut self, id: GrantId) -> Result<(), Failure> {
        Engine::mapped(self, id)
    }
    fn taps(&mut self, id: GrantId, dir: Dir, ring: u16) -> Option<TapsGrant> {
        Engine::taps(self, id, dir, ring)
    }
    fn vale_peer(&mut self, asked: PeerAsked) -> Option<ValePeer> {
        Engine::vale_peer(self, asked.switch, asked.port, asked.generation)
    }
    fn status(&mut self, part: Part, may_see: &dyn Fn(Seen<'_>) -> bool) -> Status {
        Engine::status(self, part, may_see)
    }
    fn queue_busy(&self) -> bool {
        Engine::queue_busy(self)
    }
    fn unsettled(&self) -> bool {
        Engine::unsettled(self)
    }
}

/// One connection.
struct Session {
    peer: Arc<Peer>,
    program: String,
    /// Its number in ring locks; 0 before `Hello`.
    client: u32,
}

/// One netmap descriptor, however many copies of it there are.
struct Token {
    /// Our end of its pair.
    end: Fd,
    opener: Arc<Peer>,
    inode: (u64, u64),
    held: Option<Held>,
    /// Connections that have bound it, or asked what it is bound to.
    users: Vec<u64>,
}

/// What it is bound to.
struct Held {
    grant: Arc<Grant>,
    flags: u64,
    answers: Answers,
}

/// An answer, and what the edge has to do about it.
#[derive(Debug)]
pub struct Outcome {
    /// For the client.
    pub answer: FromEngine,
    /// A new token: its key, and the descriptor whose hang-up is to be reported by [`Core::hung_up`].
    pub watch: Option<(u64, RawFd)>,
    /// A request that binds, and may succeed a moment later: to be tried again before the answer goes out.
    pub again: Option<ToEngine>,
}

/// The daemon's state.
pub struct Core<R> {
    registry: R,
    policy: Policy,
    sessions: HashMap<u64, Session>,
    tokens: HashMap<u64, Token>,
    by_inode: HashMap<(u64, u64), u64>,
    last_client: u32,
    last_token: u64,
    waiting: bool,
    /// Descriptors that are bound to a NIC.
    nics: usize,
    tended: Duration,
    /// When to look after what is attached, if anything is.
    attached: Option<Duration>,
    tokens_of_user: usize,
    /// Who brought a region of program memory, by its id.
    memory_of: HashMap<u16, u32>,
    quiet: Quiet,
}

impl<R: Registry> Core<R> {
    /// Nobody is there yet.
    pub fn new(registry: R, policy: Policy) -> Core<R> {
        Core {
            registry,
            policy,
            sessions: HashMap::new(),
            tokens: HashMap::new(),
            by_inode: HashMap::new(),
            last_client: 0,
            last_token: 0,
            waiting: false,
            nics: 0,
            tended: Duration::ZERO,
            attached: None,
            tokens_of_user: TOKENS_OF_USER,
            memory_of: HashMap::new(),
            quiet: Quiet::new(),
        }
    }

    /// Netmap descriptors that one user other than root may have open at once.
    pub fn limit_tokens(&mut self, of_user: usize) {
        self.tokens_of_user = of_user;
    }

    /// The engine.
    pub fn registry(&self) -> &R {
        &self.registry
    }

    /// Whether nobody uses the daemon, and nothing is left with it to stay.
    pub fn idle(&self) -> bool {
        self.sessions.is_empty() && self.tokens.is_empty() && !self.registry.lasting()
    }

    /// Sessions and open descriptors.
    pub fn counts(&self) -> (usize, usize) {
        (self.sessions.len(), self.tokens.len())
    }

    /// Connections of a user.
    pub fn sessions_of(&self, uid: u32) -> usize {
        self.sessions.values().filter(|s| s.peer.uid == uid).count()
    }

    /// Somebody connected; `key` is the edge's name for the connection.
    pub fn connect(&mut self, key: u64, peer: Peer) {
        self.sessions.insert(key, Session { peer: Arc::new(peer), program: String::new(), client: 0 });
    }

    /// A connection is gone: its process died, or has no more use for us.
    pub fn disconnect(&mut self, key: u64) {
        if let Some(session) = self.sessions.remove(&key)
            && session.client != 0
        {
            self.registry.abandon(session.client);
        }
    }

    /// The last copy of a descriptor was closed.
    pub fn hung_up(&mut self, key: u64) {
        let Some(token) = self.tokens.remove(&key) else { return };
        self.by_inode.remove(&token.inode);
        if let Some(held) = token.held {
            self.let_go(held);
        }
    }

    fn let_go(&mut self, held: Held) {
        let id = held.grant.id;
        self.nics -= usize::from(held.on_nic());
        // The grant holds the sockets, which the engine wants closed.
        drop(held);
        self.registry.release(id);
        self.waiting |= self.registry.unsettled();
    }

    /// Looks after the interfaces that are bound, if it is time.
    pub fn tend(&mut self, now: Duration) {
        if self.attached.is_some_and(|due| now >= due) {
            self.attached = self.registry.tend_attached().map(|again| now + again);
        }
        if self.tend_every().is_some_and(|every| now.saturating_sub(self.tended) >= every) {
            self.tended = now;
            self.waiting = self.registry.tend();
        }
        self.waiting |= self.registry.unsettled();
    }

    fn tend_every(&self) -> Option<Duration> {
        if self.waiting { Some(TEND_EVERY) } else { (self.nics > 0).then_some(TEND_CALM) }
    }

    /// Answers a request of a connection.
    pub fn handle(&mut self, key: u64, message: ToEngine) -> Outcome {
        let mut watch = None;
        let ask = match &message {
            ToEngine::Register(ask) => Some(ToEngine::Register(ask.clone())),
            ToEngine::Ask(ask) if matches!(ask.request, Request::ValeAttach(_)) => Some(ToEngine::Ask(ask.clone())),
            _ => None,
        };
        let answer = self.answer(key, message, &mut watch).unwrap_or_else(FromEngine::Failed);
        let busy = matches!(answer, FromEngine::Refused(_)) && self.registry.queue_busy();
        Outcome { answer, watch, again: ask.filter(|_| busy) }
    }

    fn answer(&mut self, key: u64, message: ToEngine, watch: &mut Option<(u64, RawFd)>) -> Result<FromEngine, Failure> {
        let Some(session) = self.sessions.get(&key) else { return Err(Condition::System.says("no such session")) };
        let peer = session.peer.clone();
        match message {
            ToEngine::Hello(program) => Ok(FromEngine::Welcome(self.hello(key, program))),
            _ if session.client == 0 => Err(Condition::System.says("the first message is a greeting")),
            ToEngine::Open => self.open(peer, watch),
            ToEngine::Attach(fd) => Ok(match self.token_mut(&fd) {
                Some(Token { held: Some(held), users, .. }) => {
                    note_user(users, key);
                    FromEngine::Granted(held.granted())
                }
                Some(_) => FromEngine::Unbound,
                None => FromEngine::Unknown,
            }),
            ToEngine::Release(fd) => {
                let held = self.token_mut(&fd).and_then(|t| t.held.take());
                if let Some(held) = held {
                    self.let_go(held);
                }
                Ok(FromEngine::Done)
            }
            ToEngine::Register(ask) => self.register(key, &peer, ask),
            ToEngine::Mapped(fd) => {
                let id = self.token(&fd).and_then(|(_, t)| t.held.as_ref()).map(|held| held.grant.id);
                let Some(id) = id else { return Ok(FromEngine::Unknown) };
                self.registry.mapped(id)?;
                // An interface that is down is looked after until it is up.
                self.waiting |= self.registry.tend();
                Ok(FromEngine::Done)
            }
            ToEngine::Taps(RingOf { token, dir, ring }) => {
                let id = self.token(&token).and_then(|(_, t)| t.held.as_ref()).map(|held| held.grant.id);
                Ok(FromEngine::Taps(id.and_then(|id| self.registry.taps(id, dir, ring))))
            }
            ToEngine::Steer(Steer { token, rules }) => {
                let Some((_, known)) = self.token(&token) else { return Ok(FromEngine::Unknown) };
                let id = known.held.as_ref().ok_or_else(Failure::not_bound)?.grant.id;
                self.registry.steer(id, rules).map(|()| FromEngine::Done)
            }
            ToEngine::ValePeer(asked) => {
                // Ports of a switch trust each other; a user without any on it has no business there.
                let sits =
                    |t: &Token| t.opener.uid == peer.uid && t.held.as_ref().is_some_and(|h| h.sends_to(asked.switch));
                let admitted = peer.uid == 0 || self.tokens.values().any(sits);
                Ok(FromEngine::ValePeer(if admitted { self.registry.vale_peer(asked) } else { None }))
            }
            ToEngine::Status(StatusAsked { namespace, part }) => {
                self.permit(key, &[&peer], &Subject::Facts)?;
                Ok(FromEngine::Status(self.status(&peer, namespace.as_ref(), part)))
            }
            ToEngine::Ask(Asked { namespace, request }) => {
                let subject = subject_of_request(&request);
                self.permit(key, &[&peer], &subject)?;
                let _inside = self.enter(key, &peer, namespace.as_ref(), &subject)?;
                if matches!(request, Request::ValeAttach(_)) {
                    self.attached = Some(Duration::ZERO);
                }
                match &request {
                    Request::Register(register) => self.registry.check(register).map(|()| Reply::Done),
                    _ => self.registry.ask(&request),
                }
                .map(FromEngine::Answer)
            }
        }
    }

    fn hello(&mut self, key: u64, program: String) -> Welcome {
        let mut client = self.last_client;
        loop {
            client = (client + 1) % CLIENTS;
            if client != 0 && self.sessions.values().all(|s| s.client != client) {
                break;
            }
        }
        self.last_client = client;
        let mut admitted = false;
        let mut before = 0;
        if let Some(session) = self.sessions.get_mut(&key) {
            admitted = self.policy.admits(&session.peer);
            session.program = program.chars().filter(|c| !c.is_control()).take(32).collect();
            before = std::mem::replace(&mut session.client, client);
        }
        if before != 0 {
            self.registry.abandon(before);
        }
        Welcome { client, admitted }
    }

    fn open(&mut self, opener: Arc<Peer>, watch: &mut Option<(u64, RawFd)>) -> Result<FromEngine, Failure> {
        let of_user = self.tokens.values().filter(|t| t.opener.uid == opener.uid).count();
        if self.tokens.len() >= TOKENS || (opener.uid != 0 && of_user >= self.tokens_of_user) {
            return Err(Failure {
                errno: crate::sys::Errno(libc::EMFILE),
                message: format!("user {} has {of_user} netmap descriptors open; close some", opener.uid),
            });
        }
        let failed = |call| move |e| Failure::system(&Error::new(call, "a netmap descriptor", e));
        let (theirs, end) = socket_pair(libc::SOCK_CLOEXEC).map_err(failed("socketpair"))?;
        let theirs = theirs.high();
        self.last_token += 1;
        let key = self.last_token;
        // Unique as long as no two daemons share a process id, a count and a nanosecond.
        let name = format!("{TOKEN_NAME}{}/{key}/{}", process_id(), monotonic().as_nanos());
        name_socket(&end, &name).map_err(failed("bind"))?;
        let inode = identity(theirs.as_raw_fd()).map_err(failed("fstat"))?;
        *watch = Some((key, end.as_raw_fd()));
        self.tokens.insert(key, Token { end, opener, inode, held: None, users: Vec::new() });
        self.by_inode.insert(inode, key);
        Ok(FromEngine::Opened(Arc::new(theirs)))
    }

    fn token(&self, fd: &Fd) -> Option<(u64, &Token)> {
        let key = *self.by_inode.get(&identity(fd.as_raw_fd()).ok()?)?;
        Some((key, self.tokens.get(&key)?))
    }

    fn token_mut(&mut self, fd: &Fd) -> Option<&mut Token> {
        self.tokens.get_mut(self.by_inode.get(&identity(fd.as_raw_fd()).ok()?)?)
    }

    fn register(&mut self, key: u64, peer: &Peer, ask: RegisterToken) -> Result<FromEngine, Failure> {
        let RegisterToken { token, namespace, register, memory } = ask;
        let Some((_, known)) = self.token(&token) else { return Ok(FromEngine::Unknown) };
        if let Some(held) = &known.held {
            return Err(Failure::already_bound(&held.grant.name));
        }
        let opener = known.opener.clone();
        let subject = subject_of(&register);
        // As with a device file, who opened it counts: a helper may have, and passed it on.
        self.permit(key, &[peer, &opener], &subject)?;
        let inside = self.enter(key, peer, namespace.as_ref(), &subject)?;
        let mut answers = Answers::default();
        let bound = passed_memory(&register, memory).inspect_err(|e| answers.extmem = Some(Err(e.errno)));
        let bound = bound.and_then(|memory| self.registry.register(&register, memory, &mut answers));
        let bound = bound.and_then(|grant| self.admit_to_memory(peer, &register, grant));
        let grant = match bound {
            Ok(grant) => Arc::new(grant),
            Err(failure) => return Ok(FromEngine::Refused(Refused { failure, answers })),
        };
        self.waiting |= matches!(subject, Subject::Interface(_)) && self.registry.tend();
        drop(inside);
        let held = Held { grant, flags: register.flags, answers };
        self.nics += usize::from(held.on_nic());
        let granted = held.granted();
        match self.token_mut(&token) {
            Some(token) => {
                token.held = Some(held);
                note_user(&mut token.users, key);
            }
            None => self.let_go(held),
        }
        Ok(FromEngine::Granted(granted))
    }

    /// Memory of a program is for its own user and for root, whichever way its region is named: whoever binds a port there
    /// gets all of it.
    fn admit_to_memory(&mut self, peer: &Peer, register: &Register, grant: Grant) -> Result<Grant, Failure> {
        if !grant.region.of_program {
            return Ok(grant);
        }
        let id = grant.reply.mem_id;
        let in_use = |t: &Token| t.held.as_ref().is_some_and(|h| h.grant.reply.mem_id == id);
        if !self.tokens.values().any(in_use) {
            self.memory_of.insert(id, peer.uid);
        }
        let owner = self.memory_of.get(&id).copied().unwrap_or(0);
        // Who brings the same file could map it anyway.
        if peer.uid == 0 || peer.uid == owner || register.options.extmem.is_some() {
            return Ok(grant);
        }
        let gone = grant.id;
        drop(grant);
        self.registry.release(gone);
        Err(Condition::MissingCapability.says(format!(
            "{} lives in memory of a program of user {owner}, which is not shared with others",
            register.name
        )))
    }

    fn permit(&mut self, key: u64, peers: &[&Peer], subject: &Subject) -> Result<(), Failure> {
        if peers.iter().any(|peer| self.policy.allows(peer, subject)) {
            return Ok(());
        }
        let uid = peers.first().map_or(u32::MAX, |p| p.uid);
        self.refused(key, format_args!("may not {subject}"));
        Err(Condition::MissingCapability.says(format!(
            "user {uid} may not {subject}: join the group `netmap`, or have root add `allow = user:{uid} ...` to \
             netmapd.conf"
        )))
    }

    fn refused(&mut self, key: u64, what: std::fmt::Arguments<'_>) {
        let Some(session) = self.sessions.get(&key) else { return };
        let (peer, program) = (session.peer.clone(), session.program.clone());
        let line = format_args!("user {}, process {} ({program:?}): {what}", peer.uid, peer.pid);
        self.quiet.log(monotonic(), Level::Warn, line);
    }

    /// Moves into the client's network namespace. Where that is not permitted, ports in memory still work: their names count
    /// in the daemon's own then.
    fn enter(
        &mut self,
        key: u64,
        peer: &Peer,
        namespace: Option<&Arc<Fd>>,
        subject: &Subject,
    ) -> Result<Option<Inside>, Failure> {
        let Some(fd) = namespace else { return Ok(None) };
        if !is_namespace(fd) {
            return Err(Condition::System.says("what was passed is no network namespace"));
        }
        // Whoever can open a file can pass any namespace that has a name; only one's own counts.
        if peer.uid != 0 && !lives_in(peer.pid, fd) {
            self.refused(key, format_args!("is not in the network namespace that it passed"));
            return Err(Condition::MissingCapability.says("the process is not in the network namespace that it names"));
        }
        match Inside::enter(fd) {
            Ok(inside) => Ok(inside),
            Err(_) if matches!(subject, Subject::Facts | Subject::Software) => Ok(None),
            Err(e) => Err(Failure::missing_capability(
                format!("netmapd cannot work in the network namespace of the program: {e}"),
                "CAP_SYS_ADMIN",
            )),
        }
    }

    /// What `peer` may know. Who owns the daemon sees everything; others see the ports that they may bind, and those of their
    /// own network namespace alone.
    fn status(&mut self, peer: &Peer, namespace: Option<&Arc<Fd>>, part: Part) -> Status {
        let own = namespace.filter(|fd| is_namespace(fd) && lives_in(peer.pid, fd));
        let own = own.and_then(|fd| identity(fd.as_raw_fd()).ok()).map(|(_, inode)| inode);
        let policy = &self.policy;
        let may_see = |port: Seen<'_>| {
            policy.sees_all(peer) || {
                let subject = match port.kind {
                    Kind::Nic => Subject::Interface(port.name.to_string()),
                    _ => Subject::Software,
                };
                (port.namespace == 0 || Some(port.namespace) == own) && policy.allows(peer, &subject)
            }
        };
        let mut status = self.registry.status(part, &may_see);
        let clients: HashMap<u32, u32> = self.sessions.values().map(|s| (s.client, s.peer.pid as u32)).collect();
        let mut tokens: HashMap<GrantId, &Token> = HashMap::new();
        for token in self.tokens.values() {
            tokens.extend(token.held.as_ref().map(|held| (held.grant.id, token)));
        }
        for port in &mut status.ports {
            let open = port.grants.iter().filter_map(|id| tokens.get(id));
            port.holders = open.flat_map(|token| self.holders(token)).collect();
            for ring in &mut port.rings {
                // Numbers of clients mean nothing to others; somebody unknown is nobody's process.
                ring.syncing = clients.get(&ring.syncing).copied().unwrap_or(ring.syncing);
            }
        }
        status
    }

    /// The processes that use a descriptor; who opened it, if none of them is left.
    fn holders(&self, token: &Token) -> Vec<Holder> {
        let holder = |peer: &Peer| Holder {
            pid: peer.pid as u32,
            uid: peer.uid,
            comm: comm(peer.pid as u32).unwrap_or_default(),
        };
        let users: Vec<Holder> =
            token.users.iter().filter_map(|key| self.sessions.get(key)).map(|s| holder(&s.peer)).collect();
        if users.is_empty() { vec![holder(&token.opener)] } else { users }
    }

    /// Descriptors whose end hung up without anybody saying so; none unless the edge lost an event.
    pub fn sweep(&mut self) -> usize {
        let gone: Vec<u64> =
            self.tokens.iter().filter(|(_, t)| crate::sys::hung_up(&t.end)).map(|(key, _)| *key).collect();
        gone.iter().for_each(|key| self.hung_up(*key));
        gone.len()
    }

    /// How long until something has to be done unasked.
    pub fn patience(&self, now: Duration) -> Option<Duration> {
        let attached = self.attached.map(|due| due.saturating_sub(now));
        [self.tend_every(), attached].into_iter().flatten().min()
    }
}

/// Notes that a connection uses a descriptor; a list that somebody could make long stays short.
fn note_user(users: &mut Vec<u64>, key: u64) {
    const MOST: usize = 64;
    if !users.contains(&key) && users.len() < MOST {
        users.push(key);
    }
}

impl Held {
    /// Whether it is a port of a network interface.
    fn on_nic(&self) -> bool {
        self.grant.mode.is_some()
    }

    /// Whether it is a port of this switch.
    fn sends_to(&self, switch: u64) -> bool {
        let seat = |g: &RingGrant| matches!(&g.carrier, CarrierGrant::ValeTx { seat: Some(s) } if s.switch == switch);
        self.grant.tx.iter().any(seat)
    }

    fn granted(&self) -> Granted {
        Granted { grant: self.grant.clone(), flags: self.flags, answers: self.answers }
    }
}

/// Memory that came with a registration, if it asks for any, checked as far as that needs no look into it.
fn passed_memory(register: &Register, memory: Option<(Arc<Fd>, u64)>) -> Result<Option<ProgramMemory>, Failure> {
    let Some(extmem) = &register.options.extmem else { return Ok(None) };
    let Some((fd, offset)) = memory else { return Ok(None) };
    check_passed_file(&fd, offset, extmem_size(&extmem.pools)?).map_err(|unfit| match unfit {
        Unfit::Range => Condition::ExtmemAddress.says("the file of external memory does not hold all of it, writable"),
        Unfit::FileSystem => Condition::ExtmemShared
            .says("netmapd maps files of tmpfs, hugetlbfs and local disks only: put the external memory into one"),
    })?;
    let identity = identity(fd.as_raw_fd()).map_err(|e| Failure::system(&Error::new("fstat", "external memory", e)))?;
    // Its owner can truncate it at any time.
    Ok(Some(ProgramMemory::File { fd, file: SharedFile { identity, offset }, guarded: true }))
}
