//! The core and the edge over an engine that only takes notes: no NIC, no rights needed.

use super::*;
use crate::ctl::{Condition, Failure, PortName, Register, RegisterReply, Reply, Request};
use crate::engine::{
    Answers, Grant, GrantId, Kind, Part, PortStatus, ProgramMemory, RegionGrant, Seen, Status, TapsGrant, ValePeer,
};
use crate::proto::{
    Asked, Assembly, FromEngine, PIECE, PeerAsked, Refused, RegisterToken, RingOf, StatusAsked, ToEngine, VERSION,
    Welcome, open as open_piece, pieces,
};
use crate::ring::Dir;
use crate::sys::{
    Errno, Fd, Mode, Peer, accept, connect_to, effective_uid, listen_at, namespace, receive_message, sealed_memfd,
    send_message, socket_pair,
};
use crate::xsk::Steering;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The region that is memory of a program.
const OF_PROGRAM: u16 = 0x8000;

/// Takes notes.
#[derive(Default)]
struct Notes {
    bound: Vec<GrantId>,
    abandoned: Vec<u32>,
    next: u64,
    /// How often an interface is still down when it is looked at, and how often that was.
    down: u32,
    tended: u32,
    /// How often a queue of `settling` is still busy.
    settles: u32,
    queue_busy: bool,
}

impl Registry for Notes {
    fn register(
        &mut self,
        register: &Register,
        _: Option<ProgramMemory>,
        answers: &mut Answers,
    ) -> Result<Grant, Failure> {
        if register.name == name("busy") {
            answers.offsets = Some(Err(Errno(libc::EBUSY)));
            return Err(Condition::RingsBusy.plain());
        }
        self.queue_busy = register.name == name("never") || (register.name == name("settling") && self.settles < 20);
        if self.queue_busy {
            self.settles += 1;
            return Err(Condition::RingsBusy.plain());
        }
        self.next += 1;
        self.bound.push(GrantId(self.next));
        let file = || Arc::new(sealed_memfd(c"notes", 4096).unwrap());
        Ok(Grant {
            id: GrantId(self.next),
            reply: RegisterReply { mem_id: register.mem_id, ..RegisterReply::default() },
            region: RegionGrant {
                fd: file(),
                at: 0,
                size: 4096,
                buf_size: 2048,
                of_program: register.mem_id == OF_PROGRAM,
                here: None,
            },
            private: file(),
            private_size: 4096,
            tx: vec![],
            rx: vec![],
            name: register.name.to_string(),
            mode: Some(Mode::Native),
            links: vec![],
            awaited: false,
        })
    }
    fn check(&mut self, register: &Register) -> Result<(), Failure> {
        if register.name == name("busy") { Err(Condition::RingsBusy.plain()) } else { Ok(()) }
    }
    fn steer(&mut self, id: GrantId, _: Option<Steering>) -> Result<(), Failure> {
        if self.bound.contains(&id) { Ok(()) } else { Err(Failure::not_bound()) }
    }
    fn ask(&mut self, _: &Request) -> Result<Reply, Failure> {
        Ok(Reply::HdrLen(12))
    }
    fn release(&mut self, id: GrantId) {
        let before = self.bound.len();
        self.bound.retain(|b| *b != id);
        assert_eq!(self.bound.len() + 1, before, "released once");
    }
    fn tend(&mut self) -> bool {
        self.tended += 1;
        self.tended <= self.down
    }
    fn abandon(&mut self, client: u32) {
        self.abandoned.push(client);
    }
    fn mapped(&mut self, id: GrantId) -> Result<(), Failure> {
        if self.bound.contains(&id) { Ok(()) } else { Err(Condition::System.plain()) }
    }
    fn taps(&mut self, id: GrantId, _: Dir, ring: u16) -> Option<TapsGrant> {
        self.bound.contains(&id).then(|| TapsGrant { number: u32::from(ring), taps: vec![] })
    }
    fn vale_peer(&mut self, asked: PeerAsked) -> Option<ValePeer> {
        let file = Arc::new(sealed_memfd(c"notes", 4096).unwrap());
        let region = RegionGrant { fd: file.clone(), at: 0, size: 0, buf_size: 2048, of_program: false, here: None };
        (asked.switch == 7).then(|| ValePeer { region, private: file, private_size: 0, rings: vec![] })
    }
    fn status(&mut self, part: Part, may_see: &dyn Fn(Seen<'_>) -> bool) -> Status {
        let port = |(i, (name, kind)): (usize, (&str, Kind))| PortStatus {
            name: name.into(),
            kind,
            namespace: 0,
            region: 1,
            mode: None,
            rings: vec![],
            grants: self.bound.get(i).copied().into_iter().collect(),
            holders: vec![],
        };
        let all = [("eth0", Kind::Nic), ("eth1", Kind::Nic), ("x{1", Kind::Pipe)];
        let seen = all.into_iter().enumerate().map(port);
        let seen = seen.filter(|p| may_see(Seen { name: &p.name, kind: p.kind, namespace: p.namespace }));
        Status { ports: seen.skip(part.from as usize).collect(), ..Status::default() }
    }
    fn queue_busy(&self) -> bool {
        self.queue_busy
    }
    fn unsettled(&self) -> bool {
        false
    }
}

fn name(text: &str) -> PortName {
    PortName::new(text).unwrap()
}

fn peer(uid: u32) -> Peer {
    Peer { pid: std::process::id() as i32, uid, gid: uid, groups: vec![] }
}

fn core(rules: Vec<Rule>) -> Core<Notes> {
    Core::new(Notes::default(), Policy { own: 77, rules })
}

/// A connected client that has said hello.
fn greeted(core: &mut Core<Notes>, key: u64, uid: u32) -> Welcome {
    core.connect(key, peer(uid));
    match core.handle(key, ToEngine::Hello("test".into())).answer {
        FromEngine::Welcome(welcome) => welcome,
        other => panic!("{other:?}"),
    }
}

fn open(core: &mut Core<Notes>, key: u64) -> (Arc<Fd>, u64) {
    let outcome = core.handle(key, ToEngine::Open);
    let FromEngine::Opened(fd) = outcome.answer else { panic!("{:?}", outcome.answer) };
    (fd, outcome.watch.unwrap().0)
}

fn bind(core: &mut Core<Notes>, key: u64, token: &Arc<Fd>, port: &str) -> FromEngine {
    let (token, register) = (token.clone(), Register::new(name(port)));
    core.handle(key, ToEngine::Register(RegisterToken { token, namespace: None, register, memory: None })).answer
}

fn errno(answer: &FromEngine) -> i32 {
    match answer {
        FromEngine::Failed(failure) | FromEngine::Refused(Refused { failure, .. }) => failure.errno.0,
        _ => 0,
    }
}

#[test]
fn a_descriptor_is_bound_once_known_by_every_copy_and_free_after_the_last() {
    let mut core = core(vec![]);
    greeted(&mut core, 1, 0);
    greeted(&mut core, 2, 0);
    let (fd, key) = open(&mut core, 1);
    let copy = Arc::new(fd.try_clone().unwrap());
    assert!(matches!(core.handle(2, ToEngine::Attach(copy.clone())).answer, FromEngine::Unbound));
    assert!(matches!(bind(&mut core, 1, &fd, "eth0"), FromEngine::Granted(_)));
    assert_eq!(errno(&bind(&mut core, 2, &copy, "eth1")), libc::EBUSY);
    let FromEngine::Granted(granted) = core.handle(2, ToEngine::Attach(copy.clone())).answer else { panic!() };
    assert_eq!(granted.grant.name, "eth0");
    drop((granted, fd));
    core.disconnect(1);
    assert_eq!((core.sweep(), core.registry().bound.len()), (0, 1), "a copy is open");
    drop(copy);
    assert_eq!((core.sweep(), core.registry().bound.len()), (1, 0));
    core.hung_up(key);
    core.disconnect(2);
    assert!(core.idle());
}

#[test]
fn a_registration_that_fails_leaves_nothing_and_may_be_tried_again() {
    let mut core = core(vec![]);
    greeted(&mut core, 1, 0);
    let (fd, _) = open(&mut core, 1);
    assert_eq!(errno(&bind(&mut core, 1, &fd, "busy")), libc::EBUSY);
    assert!(matches!(bind(&mut core, 1, &fd, "eth0"), FromEngine::Granted(_)));
    assert!(matches!(core.handle(1, ToEngine::Release(fd.clone())).answer, FromEngine::Done));
    assert!(core.registry().bound.is_empty());
    assert!(matches!(bind(&mut core, 1, &fd, "eth1"), FromEngine::Granted(_)), "the descriptor stays");
}

#[test]
fn a_registration_can_be_tried_without_being_made() {
    let mut core = core(vec![]);
    greeted(&mut core, 1, 0);
    let ask = |port| {
        let request = Request::Register(Register::new(name(port)));
        ToEngine::Ask(Asked { namespace: None, request })
    };
    assert!(matches!(core.handle(1, ask("eth0")).answer, FromEngine::Answer(Reply::Done)));
    assert_eq!(errno(&core.handle(1, ask("busy")).answer), libc::EBUSY);
    assert!(core.registry().bound.is_empty());
}

#[test]
fn a_descriptor_of_somebody_else_is_unknown() {
    let mut core = core(vec![]);
    greeted(&mut core, 1, 0);
    let (a, _b) = socket_pair(libc::SOCK_CLOEXEC).unwrap();
    let a = Arc::new(a);
    assert!(matches!(core.handle(1, ToEngine::Attach(a.clone())).answer, FromEngine::Unknown));
    assert!(matches!(bind(&mut core, 1, &a, "eth0"), FromEngine::Unknown));
    assert!(matches!(core.handle(1, ToEngine::Release(a)).answer, FromEngine::Done));
}

#[test]
fn nothing_goes_before_the_greeting() {
    let mut core = core(vec![]);
    core.connect(1, peer(0));
    assert_ne!(errno(&core.handle(1, ToEngine::Open).answer), 0);
    assert_ne!(errno(&core.handle(9, ToEngine::Open).answer), 0, "nor without a connection");
}

#[test]
fn every_client_has_a_number_of_its_own_and_its_death_is_told() {
    let mut core = core(vec![]);
    let (a, b) = (greeted(&mut core, 1, 0), greeted(&mut core, 2, 0));
    assert!(a.client != 0 && b.client != 0 && a.client != b.client && a.admitted);
    core.disconnect(1);
    assert_eq!(core.registry().abandoned, [a.client]);
    let again = greeted(&mut core, 3, 0);
    assert_ne!(again.client, b.client);
    core.connect(4, peer(0));
    core.disconnect(4);
    assert_eq!(core.registry().abandoned.len(), 1, "who never said hello holds no lock");
}

#[test]
fn who_may_bind_depends_on_who_opened_and_who_asks() {
    let rule = Rule { who: Who::User(500), what: vec![What::Interfaces("eth1".into())] };
    let mut core = core(vec![rule]);
    assert!(!greeted(&mut core, 1, 501).admitted);
    assert!(greeted(&mut core, 2, 500).admitted);
    greeted(&mut core, 3, 0);
    let (stranger, _) = open(&mut core, 1);
    assert_eq!(errno(&bind(&mut core, 1, &stranger, "eth1")), libc::EPERM);
    let (member, _) = open(&mut core, 2);
    assert_eq!(errno(&bind(&mut core, 2, &member, "eth0")), libc::EPERM);
    assert!(matches!(bind(&mut core, 2, &member, "eth1"), FromEngine::Granted(_)));
    // A helper of root's opened it.
    let (given, _) = open(&mut core, 3);
    assert!(matches!(bind(&mut core, 1, &given, "eth0"), FromEngine::Granted(_)));
    let ask = || ToEngine::Ask(Asked { namespace: None, request: Request::HdrGet(name("x")) });
    assert_eq!(errno(&core.handle(1, ask()).answer), libc::EPERM);
    assert_eq!(errno(&core.handle(2, ask()).answer), 0);
}

#[test]
fn a_namespace_is_ones_own_or_refused() {
    let mut core = core(vec![Rule { who: Who::Everyone, what: vec![What::All] }]);
    greeted(&mut core, 1, 500);
    let (token, _) = open(&mut core, 1);
    let with = |fd: Fd| {
        let register = Register::new(name("eth0"));
        ToEngine::Register(RegisterToken {
            token: token.clone(),
            namespace: Some(Arc::new(fd)),
            register,
            memory: None,
        })
    };
    let other = sealed_memfd(c"no-namespace", 4096).unwrap();
    assert_ne!(errno(&core.handle(1, with(other)).answer), 0);
    assert_eq!(errno(&core.handle(1, with(namespace().unwrap())).answer), 0, "the one it lives in");
}

#[test]
fn one_user_cannot_take_all_descriptors() {
    let mut core = core(vec![]);
    core.limit_tokens(10);
    greeted(&mut core, 1, 500);
    greeted(&mut core, 2, 501);
    let mut all: Vec<_> = (0..10).map(|_| open(&mut core, 1)).collect();
    assert_eq!(errno(&core.handle(1, ToEngine::Open).answer), libc::EMFILE);
    open(&mut core, 2);
    all.pop();
    assert_eq!(core.sweep(), 2, "one was closed, and that of the other user");
    open(&mut core, 1);
}

#[test]
fn interfaces_are_looked_at_often_while_one_is_awaited_and_else_now_and_then() {
    let mut core = Core::new(Notes { down: 3, ..Notes::default() }, Policy { own: 77, rules: vec![] });
    greeted(&mut core, 1, 0);
    let (token, _) = open(&mut core, 1);
    bind(&mut core, 1, &token, "eth0");
    assert!(core.patience(Duration::ZERO).is_some());
    let mut now = Duration::from_secs(5);
    for _ in 0..100 {
        core.tend(now);
        now += Duration::from_millis(10);
    }
    assert_eq!((core.registry().tended, core.patience(now)), (5, Some(Duration::from_millis(500))));
}

/// A daemon in a thread of this process.
struct Daemon {
    socket: PathBuf,
    stop: Option<Fd>,
    thread: Option<std::thread::JoinHandle<Core<Notes>>>,
}

impl Daemon {
    fn start(limits: Limits) -> Daemon {
        static COUNT: crate::sync::AtomicU32 = crate::sync::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, crate::sync::Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("nmx-daemon-{}-{n}", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        let listener = listen_at(&socket).unwrap();
        let (stop, stopped) = socket_pair(libc::SOCK_CLOEXEC).unwrap();
        let policy = Policy { own: effective_uid(), rules: vec![] };
        let core = Core::new(Notes::default(), policy);
        let mut server = Server::new(core, listener, Some(stopped), limits).unwrap();
        let thread = std::thread::spawn(move || {
            server.run().unwrap();
            server.into_core()
        });
        Daemon { socket, stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self) -> Fd {
        connect_to(&self.socket, Duration::from_secs(5)).unwrap()
    }

    fn greeted(&self) -> Fd {
        let fd = self.connect();
        assert!(matches!(call(&fd, &ToEngine::Hello("x".into())), Ok(FromEngine::Welcome(_))));
        fd
    }

    fn stop(mut self) -> Core<Notes> {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn call(fd: &Fd, message: &ToEngine) -> Result<FromEngine, Errno> {
    for piece in pieces(message, 1) {
        let fds: Vec<_> = piece.fds.iter().map(|fd| fd.as_raw_fd()).collect();
        send_message(fd, &piece.bytes, &fds, 0)?;
    }
    answer(fd).map(|(_, message)| message)
}

fn answer(fd: &Fd) -> Result<(u16, FromEngine), Errno> {
    let mut buffer = vec![0; PIECE];
    let got = receive_message(fd, &mut buffer, 0, true)?;
    if got.len == 0 {
        return Err(Errno(libc::ECONNRESET));
    }
    let (header, rest) = open_piece(&buffer[..got.len]).unwrap();
    let mut assembly = Assembly::default();
    assembly.add(rest, got.fds).unwrap();
    Ok((header.version, assembly.finish().unwrap()))
}

#[test]
fn the_edge_serves_and_sees_hang_ups_before_later_requests() {
    let daemon = Daemon::start(Limits::default());
    let fd = daemon.greeted();
    for _ in 0..200 {
        let Ok(FromEngine::Opened(token)) = call(&fd, &ToEngine::Open) else { panic!() };
        let register = Register::new(name("eth0"));
        let ask = RegisterToken { token, namespace: None, register, memory: None };
        assert!(matches!(call(&fd, &ToEngine::Register(ask)), Ok(FromEngine::Granted(_))));
    }
    let Ok(FromEngine::Opened(_last)) = call(&fd, &ToEngine::Open) else { panic!() };
    let core = daemon.stop();
    // Everything but the last was closed, and the daemon knew it when it answered.
    assert_eq!((core.counts().1, core.registry().bound.len()), (1, 0));
}

#[test]
fn another_version_is_told_both_numbers() {
    let daemon = Daemon::start(Limits::default());
    let fd = daemon.connect();
    let mut piece = pieces(&ToEngine::Hello("old".into()), 7).remove(0);
    piece.bytes[4..6].copy_from_slice(&(VERSION + 5).to_le_bytes());
    send_message(&fd, &piece.bytes, &[], 0).unwrap();
    let (version, FromEngine::Failed(failure)) = answer(&fd).unwrap() else { panic!() };
    assert_eq!((version, failure.errno.0), (VERSION, libc::EPROTO));
    let words = [format!("version {VERSION}"), format!("version {}", VERSION + 5)];
    assert!(words.iter().all(|w| failure.message.contains(w)), "{failure}");
    assert!(answer(&fd).is_err(), "and the connection ends");
    daemon.stop();
}

#[test]
fn noise_ends_its_own_connection_and_no_other() {
    let daemon = Daemon::start(Limits::default());
    let good = daemon.greeted();
    let file = sealed_memfd(c"noise", 4096).unwrap();
    let mut seed = 88172645463325252u64;
    for round in 0..300 {
        let fd = daemon.connect();
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let mut bytes: Vec<u8> = (0..next() % 300 + 1).map(|_| next() as u8).collect();
        if round % 2 == 0 {
            // As far as the header goes it looks right.
            let head = pieces(&ToEngine::Open, 1).remove(0).bytes;
            bytes.splice(0..0, head[..12].iter().copied());
        }
        if round % 7 == 0 {
            bytes = vec![0; PIECE + 5];
        }
        let fds = vec![file.as_raw_fd(); (next() % 254) as usize];
        // It may have been refused before all of this was sent.
        let _ = send_message(&fd, &bytes, &fds, 0);
        if let Ok((_, message)) = answer(&fd) {
            assert!(matches!(message, FromEngine::Failed(_)), "{message:?}");
        }
    }
    assert!(matches!(call(&good, &ToEngine::Open), Ok(FromEngine::Opened(_))), "the other one is served");
    drop(good);
    let core = daemon.stop();
    assert_eq!(core.registry().bound.len(), 0);
}

#[test]
fn who_does_not_read_is_not_read_and_dropped() {
    let daemon = Daemon::start(Limits { unread: Duration::from_millis(300), ..Limits::default() });
    let (deaf, good) = (daemon.greeted(), daemon.greeted());
    let piece = pieces(&ToEngine::Open, 1).remove(0);
    let start = Instant::now();
    let mut sent = 0;
    let ended = loop {
        match send_message(&deaf, &piece.bytes, &[], libc::MSG_DONTWAIT) {
            Ok(()) => sent += 1,
            Err(Errno(libc::EAGAIN)) => std::thread::sleep(Duration::from_millis(5)),
            Err(e) => break e,
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{sent} requests and still there");
        if sent % 100 == 0 {
            assert!(
                matches!(call(&good, &ToEngine::Hello("x".into())), Ok(FromEngine::Welcome(_))),
                "others are served"
            );
        }
    };
    assert!(matches!(ended.0, libc::EPIPE | libc::ECONNRESET), "{ended}");
    assert!(sent < 5000, "{sent} requests were taken from a client that reads no answer");
    drop(deaf);
    assert!(matches!(call(&good, &ToEngine::Open), Ok(FromEngine::Opened(_))));
    assert_eq!(daemon.stop().counts().0, 1);
}

#[test]
fn connections_are_bounded_and_come_back() {
    let daemon = Daemon::start(Limits { connections: 8, ..Limits::default() });
    let mut all: Vec<Fd> = (0..8).map(|_| daemon.greeted()).collect();
    let ninth = daemon.connect();
    assert!(call(&ninth, &ToEngine::Hello("x".into())).is_err());
    all.pop();
    drop(ninth);
    let start = Instant::now();
    while call(&daemon.connect(), &ToEngine::Hello("x".into())).is_err() {
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    daemon.stop();
}

#[test]
fn a_daemon_that_nobody_uses_ends() {
    let daemon = Daemon::start(Limits { idle_exit: Some(Duration::from_millis(200)), ..Limits::default() });
    let fd = daemon.greeted();
    let Ok(FromEngine::Opened(token)) = call(&fd, &ToEngine::Open) else { panic!() };
    drop(fd);
    std::thread::sleep(Duration::from_millis(500));
    assert!(!daemon.thread.as_ref().unwrap().is_finished(), "a descriptor is open");
    drop(token);
    let start = Instant::now();
    while !daemon.thread.as_ref().unwrap().is_finished() {
        assert!(start.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[test]
fn accepting_takes_no_descriptor_from_a_listener_without_callers() {
    let path = std::env::temp_dir().join(format!("nmx-accept-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = listen_at(&path).unwrap();
    assert_eq!(accept(&listener).unwrap_err(), Errno(libc::EAGAIN));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn monitors_are_told_to_who_has_the_descriptor_and_switches_to_who_sits_there() {
    let mut core = core(vec![Rule { who: Who::Everyone, what: vec![What::Software] }]);
    greeted(&mut core, 1, 1000);
    let (fd, _) = open(&mut core, 1);
    let taps = |core: &mut Core<Notes>| {
        core.handle(1, ToEngine::Taps(RingOf { token: fd.clone(), dir: Dir::Rx, ring: 3 })).answer
    };
    assert!(matches!(taps(&mut core), FromEngine::Taps(None)), "not bound yet");
    assert!(matches!(bind(&mut core, 1, &fd, "x{1"), FromEngine::Granted(_)));
    assert!(matches!(taps(&mut core), FromEngine::Taps(Some(TapsGrant { number: 3, .. }))));
    let peer = |core: &mut Core<Notes>, key| {
        core.handle(key, ToEngine::ValePeer(PeerAsked { switch: 7, port: 0, generation: 1 })).answer
    };
    assert!(matches!(peer(&mut core, 1), FromEngine::ValePeer(None)), "no port of that switch");
    greeted(&mut core, 2, 0);
    assert!(matches!(peer(&mut core, 2), FromEngine::ValePeer(Some(_))), "root");
}

#[test]
fn memory_of_a_program_is_for_its_user_and_for_root() {
    let all = || Rule { who: Who::Everyone, what: vec![What::All] };
    let mut core = core(vec![all()]);
    let in_memory = |core: &mut Core<Notes>, key: u64| {
        let (token, _) = open(core, key);
        let register = Register { mem_id: OF_PROGRAM, ..Register::new(name("p{1")) };
        let answer = core.handle(
            key,
            ToEngine::Register(RegisterToken { token: token.clone(), namespace: None, register, memory: None }),
        );
        (errno(&answer.answer), token)
    };
    for (key, uid) in [(1, 500), (2, 500), (3, 501), (4, 0)] {
        greeted(&mut core, key, uid);
    }
    let (first, _kept) = in_memory(&mut core, 1);
    assert_eq!(first, 0);
    assert_eq!(in_memory(&mut core, 2).0, 0, "another process of the same user");
    let bound = core.registry().bound.len();
    assert_eq!(in_memory(&mut core, 3).0, libc::EPERM);
    assert_eq!(core.registry().bound.len(), bound, "what was refused is released");
    assert_eq!(in_memory(&mut core, 4).0, 0);
}

#[test]
fn a_file_that_cannot_be_memory_is_refused_before_the_engine_sees_it() {
    let mut core = core(vec![]);
    greeted(&mut core, 1, 0);
    let pools = crate::ctl::Pools { memsize: 8 << 20, ..Default::default() };
    let options = crate::ctl::Options { extmem: Some(crate::ctl::Extmem { address: 0, pools }), ..Default::default() };
    let (short, whole) = (sealed_memfd(c"short", 4096).unwrap(), sealed_memfd(c"whole", 9 << 20).unwrap());
    for (file, expected) in [(short, libc::EFAULT), (whole, 0)] {
        let (token, _) = open(&mut core, 1);
        let register = Register { options: options.clone(), ..Register::new(name("p{1")) };
        let memory = Some((Arc::new(file), 0));
        let answer =
            core.handle(1, ToEngine::Register(RegisterToken { token, namespace: None, register, memory })).answer;
        assert_eq!(errno(&answer), expected);
        if let FromEngine::Refused(refused) = answer {
            assert_eq!(refused.answers.extmem, Some(Err(Errno(libc::EFAULT))));
        }
    }
}

#[test]
fn nothing_is_answered_before_the_greeting() {
    let mut core = core(vec![]);
    core.connect(1, peer(0));
    assert_eq!(errno(&core.handle(1, ToEngine::Open).answer), libc::EIO);
    assert_eq!(errno(&core.handle(2, ToEngine::Hello("nobody".into())).answer), libc::EIO, "no such session");
}

#[test]
fn who_asks_what_there_is_sees_what_policy_lets_them_bind_and_who_holds_it() {
    let rule = Rule { who: Who::User(500), what: vec![What::Interfaces("eth1".into())] };
    let mut core = core(vec![rule]);
    greeted(&mut core, 1, 500);
    greeted(&mut core, 2, 0);
    greeted(&mut core, 3, 501);
    let (fd, _) = open(&mut core, 2);
    assert!(matches!(bind(&mut core, 2, &fd, "eth0"), FromEngine::Granted(_)));
    let mut ask = |key| {
        let part = Part::default();
        core.handle(key, ToEngine::Status(StatusAsked { namespace: None, part })).answer
    };
    let names = |answer: FromEngine| match answer {
        FromEngine::Status(status) => status.ports.iter().map(|p| p.name.clone()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(names(ask(1)), ["eth1"]);
    assert_eq!(errno(&ask(3)), libc::EPERM);
    let FromEngine::Status(all) = ask(2) else { panic!() };
    assert_eq!(all.ports.len(), 3);
    let holder = &all.ports[0].holders[0];
    assert_eq!((holder.pid, holder.uid), (std::process::id(), 0));
    assert!(!holder.comm.is_empty());
    // A process that came by the descriptor is told too, and one that is gone is not.
    greeted(&mut core, 4, 0);
    assert!(matches!(core.handle(4, ToEngine::Attach(fd.clone())).answer, FromEngine::Granted(_)));
    let mut holders = || {
        let ask = ToEngine::Status(StatusAsked { namespace: None, part: Part::default() });
        let FromEngine::Status(all) = core.handle(4, ask).answer else { panic!() };
        all.ports[0].holders.len()
    };
    assert_eq!(holders(), 2);
    core.disconnect(2);
    let ask = ToEngine::Status(StatusAsked { namespace: None, part: Part::default() });
    let FromEngine::Status(all) = core.handle(4, ask).answer else { panic!() };
    assert_eq!(all.ports[0].holders.len(), 1);
}

#[test]
fn a_queue_that_was_just_closed_is_waited_for_by_who_asked_and_by_nobody_else() {
    let daemon = Daemon::start(Limits::default());
    let (asking, other) = (daemon.greeted(), daemon.greeted());
    let bind = |port: &str| {
        let Ok(FromEngine::Opened(token)) = call(&asking, &ToEngine::Open) else { panic!() };
        for piece in pieces(
            &ToEngine::Register(RegisterToken {
                token,
                namespace: None,
                register: Register::new(name(port)),
                memory: None,
            }),
            9,
        ) {
            let fds: Vec<_> = piece.fds.iter().map(|fd| fd.as_raw_fd()).collect();
            send_message(&asking, &piece.bytes, &fds, 0).unwrap();
        }
    };
    let meanwhile = |span: Duration| {
        let start = Instant::now();
        let (mut slowest, mut calls) = (Duration::ZERO, 0);
        while start.elapsed() < span {
            let begun = Instant::now();
            assert!(matches!(call(&other, &ToEngine::Hello("x".into())), Ok(FromEngine::Welcome(_))));
            slowest = slowest.max(begun.elapsed());
            calls += 1;
        }
        // Half a second is what one such bind may take.
        assert!(slowest < Duration::from_millis(200) && calls > 20, "{slowest:?}, {calls} calls");
    };
    let start = Instant::now();
    bind("settling");
    meanwhile(Duration::from_millis(80));
    assert!(matches!(answer(&asking), Ok((_, FromEngine::Granted(_)))));
    assert!(start.elapsed() >= Duration::from_millis(95), "twenty tries");
    bind("never");
    meanwhile(Duration::from_millis(300));
    let Ok((_, FromEngine::Refused(Refused { failure, .. }))) = answer(&asking) else { panic!() };
    assert_eq!(failure.errno.0, libc::EBUSY);
    // Who leaves while it waits is forgotten.
    bind("never");
    drop(asking);
    let core = daemon.stop();
    assert!(core.registry().bound.is_empty());
}
