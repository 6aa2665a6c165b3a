//! The edge: connections, readiness, queues. What requests mean is the core's business.
//!
//! Each turn reads one message of every connection that has one, so that a flood by one client delays the others by one
//! request. A connection whose answer does not fit into its socket is not read until the answer is gone, and dropped when
//! that takes too long.

use super::core::{Core, Registry};
use crate::proto::{
    Assembly, FromEngine, Malformed, PIECE, Piece, RegisterToken, ToEngine, VERSION, open, pieces, version_mismatch,
};
use crate::sys::{Epoll, Errno, Fd, Level, REBIND_WAIT, accept, log, monotonic, peer, receive_message, send_message};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// Keys of connections start at the last of these; the others are the daemon's own.
const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const TOKENS: u64 = 2;
const FIRST_CONNECTION: u64 = 16;
/// Connections that are taken in one turn.
const ACCEPTS: usize = 16;
/// How often a registration is tried again that finds a queue just closed; [`REBIND_WAIT`] says how long.
const RETRY: Duration = Duration::from_millis(5);
/// How long the listener rests when no descriptor is left.
const REST: Duration = Duration::from_millis(200);

/// How much clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once of one user other than root.
    pub connections_of_user: usize,
    /// How long an answer may wait for its client.
    pub unread: Duration,
    /// How long nobody may use the daemon before it ends; `None`: for ever.
    pub idle_exit: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: 4096, connections_of_user: 512, unread: Duration::from_secs(5), idle_exit: None }
    }
}

struct Connection {
    fd: Fd,
    out: VecDeque<Piece>,
    /// Since when the first of `out` waits.
    stuck: Duration,
    /// A registration that is tried again and again.
    parked: Option<Parked>,
}

struct Parked {
    ask: RegisterToken,
    /// Number of its request.
    number: u32,
    /// The next try.
    due: Duration,
    /// The last one.
    until: Duration,
}

/// The daemon's loop.
pub struct Server<R> {
    core: Core<R>,
    epoll: Epoll,
    /// Our ends of all netmap descriptors, in a set of their own: a `close` that came before a request is to be seen before
    /// it, as if `close` had waited for us.
    tokens: Epoll,
    listener: Fd,
    /// Watched until the end.
    _signals: Option<Fd>,
    limits: Limits,
    connections: HashMap<u64, Connection>,
    next: u64,
    resting_until: Option<Duration>,
    idle_since: Option<Duration>,
}

/// What became of a connection's turn.
enum Turn {
    Goes,
    Ends,
}

impl<R: Registry> Server<R> {
    /// Serves on `listener`, until `signals` is readable.
    pub fn new(core: Core<R>, listener: Fd, signals: Option<Fd>, limits: Limits) -> Result<Server<R>, Errno> {
        let (epoll, tokens) = (Epoll::new()?, Epoll::new()?);
        epoll.add(tokens.raw(), libc::EPOLLIN, TOKENS)?;
        epoll.add(listener.as_raw_fd(), libc::EPOLLIN, LISTENER)?;
        if let Some(fd) = &signals {
            epoll.add(fd.as_raw_fd(), libc::EPOLLIN, SIGNALS)?;
        }
        Ok(Server {
            core,
            epoll,
            tokens,
            listener,
            _signals: signals,
            limits,
            connections: HashMap::new(),
            next: FIRST_CONNECTION,
            resting_until: None,
            idle_since: Some(monotonic()),
        })
    }

    /// Runs until a signal says stop or nobody has used it for long enough.
    pub fn run(&mut self) -> Result<(), Errno> {
        while self.turn()? {}
        Ok(())
    }

    /// One turn: waits for something to do, and does it. False: it is over.
    pub fn turn(&mut self) -> Result<bool, Errno> {
        let ready = self.epoll.wait(self.patience(monotonic()))?;
        for event in &ready {
            match event.key {
                SIGNALS => return Ok(false),
                LISTENER => self.accept(),
                TOKENS => self.hang_ups()?,
                key => self.connection(key, event.events),
            }
        }
        let now = monotonic();
        self.drop_stuck(now);
        self.retry(now);
        self.core.tend(now);
        if self.resting_until.is_some_and(|until| now >= until) {
            self.resting_until = None;
            self.epoll.change(self.listener.as_raw_fd(), libc::EPOLLIN, LISTENER)?;
        }
        if !self.core.idle() {
            self.idle_since = None;
            return Ok(true);
        }
        let since = *self.idle_since.get_or_insert(now);
        if self.limits.idle_exit.is_some_and(|limit| now.saturating_sub(since) >= limit) {
            // Somebody may be at the door.
            self.accept();
            return Ok(!self.core.idle());
        }
        Ok(true)
    }

    /// How long to wait at most.
    fn patience(&self, now: Duration) -> Option<Duration> {
        let unread =
            self.connections.values().filter(|c| !c.out.is_empty()).map(|c| c.stuck + self.limits.unread).min();
        let idle = self.limits.idle_exit.zip(self.idle_since).map(|(limit, since)| since + limit);
        let parked = self.connections.values().filter_map(|c| Some(c.parked.as_ref()?.due)).min();
        let until = [unread, idle, parked, self.resting_until].into_iter().flatten().min();
        let until = until.map(|at| at.saturating_sub(now));
        [until, self.core.patience(now)].into_iter().flatten().min()
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS {
            let fd = match accept(&self.listener) {
                Ok(fd) => fd,
                Err(Errno(libc::EAGAIN)) => return,
                Err(Errno(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)) => {
                    self.resting_until = Some(monotonic() + REST);
                    // It stays watched, and is merely asked too often, if that fails.
                    let _ = self.epoll.change(self.listener.as_raw_fd(), 0, LISTENER);
                    return;
                }
                // The client has gone again.
                Err(_) => continue,
            };
            let Ok(peer) = peer(&fd) else { continue };
            let too_many = self.connections.len() >= self.limits.connections
                || (peer.uid != 0 && self.core.sessions_of(peer.uid) >= self.limits.connections_of_user);
            let key = self.next;
            self.next += 1;
            if too_many || self.epoll.add(fd.as_raw_fd(), libc::EPOLLIN, key).is_err() {
                continue;
            }
            self.core.connect(key, peer);
            self.connections.insert(key, Connection { fd, out: VecDeque::new(), stuck: Duration::ZERO, parked: None });
        }
    }

    /// Lets go of what the descriptors were bound to whose last copy was closed.
    fn hang_ups(&mut self) -> Result<(), Errno> {
        loop {
            let gone = self.tokens.wait(Some(Duration::ZERO))?;
            if gone.is_empty() {
                return Ok(());
            }
            // Who died lets go of locks before it lets go of ports, so that nobody waits for the dead.
            self.bury()?;
            // A hang-up is all that is watched for.
            gone.iter().for_each(|event| self.core.hung_up(event.key));
        }
    }

    /// Ends the connections of those who are gone.
    fn bury(&mut self) -> Result<(), Errno> {
        let gone = self.epoll.wait(Some(Duration::ZERO))?;
        let gone = gone.iter().filter(|e| e.key >= FIRST_CONNECTION && e.events & libc::EPOLLHUP != 0);
        gone.for_each(|event| self.disconnect(event.key));
        Ok(())
    }

    /// Tries registrations again that found a queue busy.
    fn retry(&mut self, now: Duration) {
        let due = |c: &Connection| c.parked.as_ref().is_some_and(|p| p.due <= now);
        let keys: Vec<u64> = self.connections.iter().filter(|(_, c)| due(c)).map(|(key, _)| *key).collect();
        for key in keys {
            let Some(parked) = self.connections.get_mut(&key).and_then(|c| c.parked.take()) else { continue };
            let outcome = self.core.handle(key, ToEngine::Register(parked.ask));
            let turn = match outcome.again {
                Some(ask) if now < parked.until => {
                    let due = monotonic() + RETRY;
                    self.park(key, Parked { ask, due, ..parked });
                    Turn::Goes
                }
                _ => self.answer(key, parked.number, &outcome.answer),
            };
            match turn {
                Turn::Goes => self.watch(key),
                Turn::Ends => self.disconnect(key),
            }
        }
    }

    fn park(&mut self, key: u64, parked: Parked) {
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.parked = Some(parked);
        }
    }

    fn connection(&mut self, key: u64, events: i32) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let turn = if connection.parked.is_some() {
            if events & (libc::EPOLLERR | libc::EPOLLHUP) != 0 { Turn::Ends } else { Turn::Goes }
        } else if !connection.out.is_empty() {
            if events & (libc::EPOLLERR | libc::EPOLLHUP) != 0 { Turn::Ends } else { connection.flush() }
        } else {
            self.read(key)
        };
        match turn {
            Turn::Goes => self.watch(key),
            Turn::Ends => self.disconnect(key),
        }
    }

    /// Reads one message, and answers it.
    fn read(&mut self, key: u64) -> Turn {
        let Some(connection) = self.connections.get_mut(&key) else { return Turn::Ends };
        let mut buffer = [0; PIECE];
        let received = match receive_message(&connection.fd, &mut buffer, libc::MSG_DONTWAIT, true) {
            Ok(received) if received.len > 0 => received,
            Err(Errno(libc::EAGAIN)) => return Turn::Goes,
            _ => return Turn::Ends,
        };
        let (number, message) = understand(&buffer[..received.len], received.fds, received.cut);
        let (answer, turn) = match message {
            Ok(message) => {
                if self.hang_ups().is_err() {
                    return Turn::Ends;
                }
                let outcome = self.core.handle(key, message);
                if let Some((token, fd)) = outcome.watch
                    && self.watch_token(token, fd).is_err()
                {
                    return Turn::Ends;
                }
                if let Some(ask) = outcome.again {
                    let now = monotonic();
                    self.park(key, Parked { ask, number, due: now + RETRY, until: now + REBIND_WAIT });
                    return Turn::Goes;
                }
                (outcome.answer, Turn::Goes)
            }
            Err(failure) => (failure, Turn::Ends),
        };
        match (self.answer(key, number, &answer), turn) {
            (Turn::Goes, Turn::Goes) => Turn::Goes,
            _ => Turn::Ends,
        }
    }

    fn answer(&mut self, key: u64, number: u32, answer: &FromEngine) -> Turn {
        let Some(connection) = self.connections.get_mut(&key) else { return Turn::Ends };
        connection.out.extend(pieces(answer, number));
        connection.stuck = monotonic();
        connection.flush()
    }

    fn watch_token(&mut self, token: u64, fd: RawFd) -> Result<(), Errno> {
        let watched = self.tokens.add(fd, 0, token);
        if watched.is_err() {
            self.core.hung_up(token);
        }
        watched
    }

    /// Watches for what the connection's turn left to be done.
    fn watch(&mut self, key: u64) {
        let Some(connection) = self.connections.get(&key) else { return };
        let events = match (&connection.parked, connection.out.is_empty()) {
            // A hang-up is told anyway.
            (Some(_), _) => 0,
            (None, true) => libc::EPOLLIN,
            (None, false) => libc::EPOLLOUT,
        };
        if self.epoll.change(connection.fd.as_raw_fd(), events, key).is_err() {
            self.disconnect(key);
        }
    }

    fn disconnect(&mut self, key: u64) {
        if let Some(connection) = self.connections.remove(&key) {
            // Closing it does the same, unless a copy exists.
            let _ = self.epoll.remove(connection.fd.as_raw_fd());
        }
        self.core.disconnect(key);
    }

    fn drop_stuck(&mut self, now: Duration) {
        let late = |c: &Connection| !c.out.is_empty() && now.saturating_sub(c.stuck) >= self.limits.unread;
        let gone: Vec<u64> = self.connections.iter().filter(|(_, c)| late(c)).map(|(key, _)| *key).collect();
        for key in gone {
            log(Level::Warn, format_args!("a client that does not read its answers is dropped"));
            self.disconnect(key);
        }
    }

    /// The core, once the loop is over.
    pub fn into_core(self) -> Core<R> {
        self.core
    }
}

impl Connection {
    /// Sends what waits, as far as it fits.
    fn flush(&mut self) -> Turn {
        while let Some(piece) = self.out.front() {
            let fds: Vec<RawFd> = piece.fds.iter().map(|fd| fd.as_raw_fd()).collect();
            match send_message(&self.fd, &piece.bytes, &fds, libc::MSG_DONTWAIT) {
                Ok(()) => drop(self.out.pop_front()),
                Err(Errno(libc::EAGAIN | libc::ENOBUFS | libc::ETOOMANYREFS)) => return Turn::Goes,
                Err(_) => return Turn::Ends,
            }
        }
        Turn::Goes
    }
}

/// The message in a piece and the number of its request; or what to answer to something that is none.
fn understand(bytes: &[u8], fds: Vec<Fd>, cut: bool) -> (u32, Result<ToEngine, FromEngine>) {
    let refuse = |why: Malformed| FromEngine::Failed(why.into());
    let (header, rest) = match open(bytes) {
        Ok(opened) => opened,
        Err(why) => return (0, Err(refuse(why))),
    };
    if header.version != VERSION {
        let why = version_mismatch(VERSION, header.version);
        return (header.number, Err(FromEngine::Failed(why)));
    }
    let message = || {
        if cut || header.more {
            return Err(Malformed("too large"));
        }
        let mut assembly = Assembly::default();
        assembly.add(rest, fds)?;
        assembly.finish()
    };
    (header.number, message().map_err(refuse))
}
