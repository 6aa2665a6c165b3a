//! Clients that mean harm, against a real netmapd: messages that make no sense, floods of connections and requests,
//! shared memory that is scribbled over while ports come and go, answers that nobody reads. A bystander binds and frees
//! ports all the while, in time; at the end nothing is left. No rights needed.

use netmap_xdp::ctl::Spec;
use netmap_xdp::engine::{Grant, Part};
use netmap_xdp::proto::{
    Assembly, FromEngine, PIECE, RegisterToken, StatusAsked, ToEngine, open as open_piece, pieces,
};
use netmap_xdp::shm::Memory;
use netmap_xdp::sys::{Errno, Fd, connect_to, receive_message, sealed_memfd, send_message};
use netmap_xdp_tests::{Cmd, Daemons, Running, open_files, tool, wait_until};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
/// How long the attack lasts.
const SPAN: Duration = Duration::from_secs(3);
/// The longest that a request of the bystander may take: generous for a machine of two cores that is busy with the attack.
const IN_TIME: Duration = Duration::from_secs(2);

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A place with a daemon, and an end of the attack.
struct Scene {
    daemons: Daemons,
    daemon: Running,
    over: AtomicBool,
}

fn send(fd: &Fd, message: &ToEngine, flags: i32) -> Result<(), Errno> {
    let piece = pieces(message, 1).remove(0);
    let fds: Vec<_> = piece.fds.iter().map(|fd| fd.as_raw_fd()).collect();
    send_message(fd, &piece.bytes, &fds, flags)
}

fn call(fd: &Fd, message: &ToEngine) -> Result<FromEngine, Errno> {
    send(fd, message, 0)?;
    let (mut buffer, mut assembly) = (vec![0; PIECE], Assembly::default());
    loop {
        let got = receive_message(fd, &mut buffer, 0, true)?;
        if got.len == 0 {
            return Err(Errno(libc::ECONNRESET));
        }
        let (header, rest) = open_piece(&buffer[..got.len]).map_err(|_| Errno(libc::EBADMSG))?;
        assembly.add(rest, got.fds).map_err(|_| Errno(libc::EBADMSG))?;
        if !header.more {
            return assembly.finish().map_err(|_| Errno(libc::EBADMSG));
        }
    }
}

fn status() -> ToEngine {
    ToEngine::Status(StatusAsked { namespace: None, part: Part { from: 0, accounts: true } })
}

impl Scene {
    fn new() -> Scene {
        let daemons = Daemons::new();
        let daemon = daemons.start(&["--buffers", "200000"]);
        Scene { daemons, daemon, over: AtomicBool::new(false) }
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Relaxed)
    }

    fn connect(&self) -> Result<Fd, Errno> {
        connect_to(&self.daemons.socket(), SOON)
    }

    fn greeted(&self) -> Result<Fd, Errno> {
        let fd = self.connect()?;
        match call(&fd, &ToEngine::Hello("hostile".into()))? {
            FromEngine::Welcome(_) => Ok(fd),
            _ => Err(Errno(libc::EPROTO)),
        }
    }

    fn bind(&self, fd: &Fd, port: &str) -> Result<(Arc<Fd>, Box<Grant>), Errno> {
        let FromEngine::Opened(token) = call(fd, &ToEngine::Open)? else { return Err(Errno(libc::EPROTO)) };
        let register = Spec::parse(port).expect("a name of a port").register();
        let ask = RegisterToken { token: token.clone(), namespace: None, register, memory: None };
        match call(fd, &ToEngine::Register(ask))? {
            FromEngine::Granted(granted) => {
                Ok((token, Box::new(Arc::into_inner(granted.grant).expect("it was made of this answer"))))
            }
            FromEngine::Failed(failure) => Err(failure.errno),
            _ => Err(Errno(libc::EPROTO)),
        }
    }

    /// Runs `attacks` beside a bystander, then sees that everything is as it was.
    fn play(mut self, attacks: &[&(dyn Fn(&Scene) + Sync)]) {
        let files = open_files(self.daemon.pid());
        let (slowest, served) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let scene = &self;
            let bystander = scope.spawn(|| {
                let fd = scene.greeted().expect("served before the attack");
                while scene.goes_on() {
                    for port in ["netmap:bystander{1", "valeby:stander"] {
                        let begun = Instant::now();
                        let (token, _) = scene.bind(&fd, port).unwrap_or_else(|e| panic!("{port}: {e}"));
                        let done = call(&fd, &ToEngine::Release(token));
                        assert!(matches!(done, Ok(FromEngine::Done)), "{done:?}");
                        slowest.fetch_max(begun.elapsed().as_micros() as u64, Relaxed);
                        served.fetch_add(1, Relaxed);
                    }
                }
            });
            for attack in attacks {
                scope.spawn(move || attack(scene));
            }
            let begun = Instant::now();
            wait_until(SPAN, || bystander.is_finished());
            self.over.store(true, Relaxed);
            assert!(begun.elapsed() >= SPAN, "the bystander gave up");
        });
        let slowest = Duration::from_micros(slowest.load(Relaxed));
        println!("{} binds beside the attack, the slowest in {slowest:?}", served.load(Relaxed));
        assert!(slowest < IN_TIME, "{slowest:?}");
        assert!(served.load(Relaxed) >= 20, "{} binds", served.load(Relaxed));
        assert!(self.daemon.is_alive(), "{}", self.daemon.stderr());
        let now = || open_files(self.daemon.pid());
        assert!(wait_until(SOON, || now() == files), "{} files, {files} before", now());
        let nmx = Cmd::new(tool("nmx")).args(["status", "--check"]).env("NETMAP_XDP_ENGINE", "daemon");
        let done = nmx.env("NETMAP_XDP_SOCKET", self.daemons.socket()).run().expect_success();
        assert!(done.stdout.contains("no netmap port is open"), "{done}");
    }
}

/// Noise, right headers with wrong bodies, more descriptors than are referred to, messages cut off or too long.
fn nonsense(scene: &Scene) {
    let file = sealed_memfd(c"noise", 4096).unwrap();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    while scene.goes_on() {
        let Ok(fd) = (if noise.next().is_multiple_of(2) { scene.connect() } else { scene.greeted() }) else { continue };
        let seeds = [ToEngine::Open, status(), ToEngine::Attach(Arc::new(file.try_clone().unwrap()))];
        let mut bytes = pieces(&seeds[noise.next() as usize % 3], 1).remove(0).bytes;
        match noise.next() % 4 {
            0 => bytes = (0..noise.next() % 300 + 1).map(|_| noise.next() as u8).collect(),
            1 => bytes.truncate((noise.next() as usize % bytes.len()).max(1)),
            2 => bytes.resize(PIECE + 7, 0),
            _ => {
                let at = 12 + noise.next() as usize % (bytes.len() - 11);
                bytes.insert(at.min(bytes.len()), noise.next() as u8);
            }
        }
        let fds = vec![file.as_raw_fd(); (noise.next() % 254) as usize];
        // It may be refused before all of it was sent, and is not answered if it ends the connection.
        let _ = send_message(&fd, &bytes, &fds, libc::MSG_DONTWAIT);
    }
}

/// Connections that say nothing, come and go.
fn crowd(scene: &Scene) {
    let mut all = Vec::new();
    while scene.goes_on() {
        match scene.connect() {
            Ok(fd) if all.len() < 300 => all.push(fd),
            _ => all.clear(),
        }
    }
}

/// The most expensive question, as fast as it is answered, on several connections.
fn questions(scene: &Scene) {
    let all: Vec<Fd> = (0..8).filter_map(|_| scene.greeted().ok()).collect();
    while scene.goes_on() {
        for fd in &all {
            assert!(matches!(call(fd, &status()), Ok(FromEngine::Status(_))));
        }
    }
}

/// Questions whose answers nobody reads.
fn deaf(scene: &Scene) {
    while scene.goes_on() {
        let Ok(fd) = scene.greeted() else { continue };
        for _ in 0..2000 {
            match send(&fd, &status(), libc::MSG_DONTWAIT) {
                Ok(()) => {}
                Err(Errno(libc::EAGAIN)) => std::thread::sleep(Duration::from_millis(1)),
                Err(_) => break,
            }
            if !scene.goes_on() {
                return;
            }
        }
    }
}

/// Ports that come and go while noise is written over all of their private state and their rings.
fn scribbler(scene: &Scene, port: &str) {
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    let Ok(fd) = scene.greeted() else { return };
    while scene.goes_on() {
        let Ok((token, grant)) = scene.bind(&fd, port) else { continue };
        let private = Memory::map(&grant.private, grant.private_size as usize, 0, false).unwrap();
        let region = Memory::map(&grant.region.fd, grant.reply.memsize as usize, 0, false).unwrap();
        for _ in 0..300 {
            let word = match noise.next() % 3 {
                0 => noise.next() as u32 % 2000,
                1 => u32::MAX - noise.next() as u32 % 4,
                _ => noise.next() as u32,
            };
            private.write(noise.next() % (grant.private_size / 4) * 4, &word.to_ne_bytes()).unwrap();
            for ring in grant.tx.iter().chain(&grant.rx) {
                // Header and slots of its own rings: region 1 is everybody's.
                let bytes = 256 + u64::from(ring.ring.slots) * 16;
                region.write(ring.ring.offset + noise.next() % (bytes / 4) * 4, &word.to_ne_bytes()).unwrap();
            }
        }
        if noise.next().is_multiple_of(2) {
            let _ = call(&fd, &ToEngine::Release(token));
        }
    }
}

#[test]
fn nonsense_and_crowds_delay_nobody_for_long() {
    Scene::new().play(&[&nonsense, &crowd]);
}

#[test]
fn questions_without_end_and_answers_that_nobody_reads_delay_nobody_for_long() {
    Scene::new().play(&[&questions, &deaf]);
}

#[test]
fn shared_memory_that_is_scribbled_over_harms_its_own_port_alone() {
    Scene::new().play(&[
        &|scene| scribbler(scene, "netmap:scribbled{1"),
        &|scene| scribbler(scene, "valescr:ibbled"),
        &|scene| scribbler(scene, "netmap:scribbled{1/z"),
        &|scene| scribbler(scene, "valescr:ibbled/r"),
    ]);
}
