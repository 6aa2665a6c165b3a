//! What becomes of a bound interface: each mishap with the engine in the process and with netmapd, under traffic. What
//! can go on goes on, all else is `POLLERR` within seconds; either way with one line that says why, without a busy
//! loop, and with nothing left.

use netmap_xdp::sys::netdev::bpf::kernel_version;
use netmap_xdp_tests::{
    Cmd, Daemons, Namespace, Pair, Running, Veth, compile_c, needs_root, open_files, patient, wait_until, workspace,
};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn program(name: &'static str, cell: &'static OnceLock<PathBuf>) -> &'static PathBuf {
    cell.get_or_init(|| compile_c(&workspace().join(format!("tests/c/{name}.c")), name, &[]))
}

fn mishap() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    program("nic_mishap", &PROGRAM)
}

/// Whose engine it is: a place for daemons, and a running one, or nobody.
struct Engine(Option<(Daemons, Running)>);

impl Engine {
    fn new(daemon: bool) -> Engine {
        Engine(daemon.then(|| {
            let daemons = Daemons::new();
            let running = daemons.start_with(&[], &[("NETMAP_XDP_LOG", "debug")]);
            (daemons, running)
        }))
    }

    fn command(&self, command: Cmd) -> Cmd {
        match &self.0 {
            Some((daemons, _)) => daemons.with(command, "daemon"),
            None => command.preload().env("NETMAP_XDP_ENGINE", "embedded"),
        }
    }

    /// What the engine has logged.
    fn log(&self, program: &Running) -> String {
        match &self.0 {
            Some((_, daemon)) => daemon.stderr(),
            None => program.stderr(),
        }
    }

    fn files(&self) -> Option<usize> {
        self.0.as_ref().map(|(_, daemon)| open_files(daemon.pid()))
    }
}

/// Broadcasts datagrams from end `b`, some thousand a second, from many ports, whether or not there is a way.
fn feed<T>(pair: &Pair, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let _end = End(&over);
        scope.spawn(|| {
            pair.b.ns.run(|| {
                let sockets: Vec<_> = (0..32).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect();
                sockets.iter().for_each(|s| s.set_broadcast(true).unwrap());
                while !over.load(Ordering::Relaxed) {
                    for socket in &sockets {
                        let _ = socket.send_to(b"one of many", "10.66.0.255:9");
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        });
        work()
    })
}

fn hosts(veth: Veth) -> Pair {
    veth.addresses("10.66.0.1/24", "10.66.0.2/24").build()
}

/// The last `name=N` that a program printed.
fn last(program: &Running, name: &str) -> u64 {
    let text = program.stdout();
    let value = |w: &str| w.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
    text.split_whitespace().filter_map(value).next_back().unwrap_or(0)
}

/// The program, bound; with traffic it has seen.
fn bound(pair: &Pair, engine: &Engine, what: &str, port: &str) -> Running {
    let mut running = engine.command(pair.a.command(mishap()).args([what, port])).spawn();
    running.wait_for("ready", SOON);
    assert!(wait_until(SOON, || last(&running, "count") > 100), "no traffic: {}{}", running.stdout(), running.stderr());
    running
}

#[track_caller]
fn goes_on(program: &Running) {
    let before = last(program, "count");
    assert!(wait_until(SOON, || last(program, "count") > before + 200), "no traffic: {}", said(program));
}

fn said(program: &Running) -> String {
    format!("{}{}", program.stdout(), program.stderr())
}

/// Checks that `line` was logged once, and returns when it was.
#[track_caller]
fn says_once(engine: &Engine, program: &Running, line: &str) {
    assert!(wait_until(SOON, || engine.log(program).contains(line)), "not said: {line}\n{}", engine.log(program));
    assert_eq!(engine.log(program).matches(line).count(), 1, "{}", engine.log(program));
}

#[track_caller]
fn ends(mut program: Running, how: &str) {
    if how == "stopped" {
        program.signal(libc::SIGTERM);
    }
    let done = program.wait(SOON).expect_success();
    assert!(done.stdout.contains(how), "{done}");
}

/// That time passes without much processor time.
#[track_caller]
fn rests(program: &Running) {
    std::thread::sleep(Duration::from_millis(200));
    let before = last(program, "cpu_ms");
    std::thread::sleep(Duration::from_secs(1));
    let spent = last(program, "cpu_ms") - before;
    assert!(
        Duration::from_millis(spent) < patient(Duration::from_millis(200)),
        "{spent} ms of processor time in a second without traffic"
    );
}

/// Runs `mishap` on a bound, busy interface, both ways and with both engines.
fn each(veth: &Veth, port: &str, mishap: impl Fn(&Pair, &Engine, Running)) {
    needs_root!();
    for (daemon, what) in [(false, "recv"), (false, "send"), (true, "recv")] {
        let (pair, engine) = (hosts(veth.clone()), Engine::new(daemon));
        let files = engine.files();
        feed(&pair, || {
            let program = bound(&pair, &engine, what, port);
            mishap(&pair, &engine, program);
        });
        if let Some(files) = files {
            let clean = wait_until(SOON, || engine.files() == Some(files));
            assert!(clean, "netmapd has {:?} files open, and had {files}", engine.files());
        }
        let links = || Cmd::new("ip").args(["-n", pair.a.ns.name(), "-d", "link"]).run().expect_success().stdout;
        let clean = wait_until(SOON, || !links().contains("xdp") && !links().contains("netmap"));
        assert!(clean, "left behind: {}", links());
    }
}

#[test]
fn an_interface_goes_down_and_comes_up() {
    each(&Veth::new(), "veth0", |pair, engine, program| {
        pair.a.set(&["down"]);
        says_once(engine, &program, "veth0: is down");
        rests(&program);
        pair.a.set(&["up"]);
        says_once(engine, &program, "veth0: is up again");
        goes_on(&program);
        ends(program, "stopped");
    });
}

#[test]
fn a_link_loses_its_carrier_and_has_it_again() {
    each(&Veth::new(), "veth0", |pair, engine, program| {
        pair.b.set(&["down"]);
        says_once(engine, &program, "veth0: has lost its carrier");
        pair.b.set(&["up"]);
        says_once(engine, &program, "veth0: has carrier again");
        goes_on(&program);
        ends(program, "stopped");
    });
}

#[test]
fn the_mtu_changes() {
    each(&Veth::new(), "veth0", |pair, engine, program| {
        for mtu in ["9000", "1400"] {
            pair.a.set(&["mtu", mtu]);
            pair.b.set(&["mtu", mtu]);
            says_once(engine, &program, &format!("veth0: has an MTU of {mtu} now"));
            goes_on(&program);
        }
        let longer = if kernel_version() >= (6, 6) { "bytes arrive as NS_MOREFRAG" } else { "is not received" };
        assert!(engine.log(&program).contains(longer), "{}", engine.log(&program));
        ends(program, "stopped");
    });
}

#[test]
fn an_interface_gets_another_name() {
    each(&Veth::new(), "veth0", |pair, engine, program| {
        pair.a.set(&["down"]);
        pair.a.set(&["name", "other0"]);
        Cmd::new("ip").args(["-n", pair.a.ns.name(), "link", "set", "other0", "up"]).run().expect_success();
        says_once(engine, &program, "other0: this is the new name of veth0");
        goes_on(&program);
        ends(program, "stopped");
    });
}

#[test]
fn an_interface_is_moved_to_another_namespace() {
    each(&Veth::new(), "veth0", |pair, engine, program| {
        let elsewhere = Namespace::new();
        pair.a.set(&["netns", elsewhere.name()]);
        says_once(engine, &program, "veth0: is gone");
        ends(program, "failed");
        assert!(wait_until(SOON, || elsewhere.xdp("veth0").is_none()), "the program went with it");
    });
}

#[test]
fn an_interface_is_deleted_and_made_again() {
    each(&Veth::new(), "veth0", |pair, engine, program| {
        Cmd::new("ip").args(["-n", pair.a.ns.name(), "link", "del", "veth0"]).run().expect_success();
        says_once(engine, &program, "veth0: is gone");
        ends(program, "failed");
        let again = ["link", "add", "veth0", "type", "veth", "peer", "name", "veth9"];
        Cmd::new("ip").args(["-n", pair.a.ns.name()]).args(again).run().expect_success();
        let mut second = engine.command(pair.a.command(mishap()).args(["recv", "veth0"])).spawn();
        second.wait_for("ready", SOON);
        ends(second, "stopped");
    });
}

#[test]
fn somebody_detaches_the_program() {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    each(&Veth::new(), "veth0", |pair, engine, running| {
        let id = pair.a.xdp().expect("our program").id.to_string();
        Cmd::new(program("xdp_detach", &PROGRAM)).arg(id).run().expect_success();
        says_once(engine, &running, "veth0: has lost its XDP program");
        ends(running, "failed");
        let second = bound(pair, engine, "recv", "veth0");
        ends(second, "stopped");
    });
}

#[test]
fn queues_are_added() {
    // The kernel takes a moment to forget the sockets of a port.
    let few = |pair: &Pair, n: &str| {
        let change = pair.a.command("ethtool").args(["-L", "veth0", "rx", n, "tx", n]);
        assert!(wait_until(SOON, || change.clone().run().success()), "{}", change.run());
    };
    let shape = Veth::new().queues(4);
    each(&shape, "veth0", |pair, engine, program| {
        ends(program, "stopped");
        few(pair, "2");
        let program = bound(pair, engine, "recv", "veth0");
        assert!(program.stdout().contains("rings=2"));
        few(pair, "4");
        says_once(engine, &program, "has 4 receive and 4 transmit queues now, and had 2 and 2");
        ends(program, "failed");
        let program = bound(pair, engine, "recv", "veth0");
        assert!(program.stdout().contains("rings=4"));
        ends(program, "stopped");
        // Whoever has one of them only never had all.
        few(pair, "2");
        let program = bound(pair, engine, "recv", "veth0/0");
        few(pair, "3");
        says_once(engine, &program, "has 3 receive");
        goes_on(&program);
        few(pair, "1");
        says_once(engine, &program, "has 1 receive");
        goes_on(&program);
        ends(program, "stopped");
        few(pair, "4");
    });
}

#[test]
fn host_rings_end_with_their_interface() {
    each(&Veth::new(), "veth0/+", |pair, engine, program| {
        Cmd::new("ip").args(["-n", pair.a.ns.name(), "link", "del", "veth0"]).run().expect_success();
        says_once(engine, &program, "veth0: is gone");
        ends(program, "failed");
    });
}

/// Numbers that a seed tells, so that a round can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(self.below(80) as u64));
    }
}

/// Something that happens to `veth0`; it may not be there any more.
fn something(pair: &Pair, elsewhere: &Namespace, program: &mut Running, chance: &mut Chance) -> String {
    static DETACH: OnceLock<PathBuf> = OnceLock::new();
    let kind = chance.below(11);
    let ip = |ns: &Namespace, words: &str| {
        // It fails where something else has happened before.
        Cmd::new("ip").args(["-n", ns.name()]).args(words.split(' ')).run();
        words.to_string()
    };
    let a = &pair.a.ns;
    match kind {
        0 => [ip(a, "link set veth0 down"), ip(a, "link set veth0 up")].join(", "),
        1 => [ip(&pair.b.ns, "link set veth1 down"), ip(&pair.b.ns, "link set veth1 up")].join(", "),
        2 => ip(a, &format!("link set veth0 mtu {}", chance.of(&["1500", "9000", "600", "3000"]))),
        3 => ip(a, "link set veth0 name veth7"),
        4 => ip(a, "link set veth7 name veth0"),
        5 => ip(a, &format!("link set veth0 netns {}", elsewhere.name())),
        6 => ip(a, "link del veth0"),
        7 => {
            let id = Cmd::new("ip").args(["-n", a.name(), "link", "show", "dev", "veth0"]).run().success();
            if let Some(xdp) = id.then(|| pair.a.xdp()).flatten() {
                Cmd::new(self::program("xdp_detach", &DETACH)).arg(xdp.id.to_string()).run();
            }
            "detach".into()
        }
        8 => {
            let n = chance.of(&["1", "2", "3", "4"]);
            pair.a.command("ethtool").args(["-L", "veth0", "rx", n, "tx", n]).run();
            format!("{n} queues")
        }
        9 => {
            program.signal(libc::SIGKILL);
            "kill".into()
        }
        _ => ip(a, "link set veth0 down"),
    }
}

/// One round: a program of either engine on a fresh pair, up to four things that happen to it, and nothing left.
fn round(engine: &Engine, chance: &mut Chance) {
    let pair = hosts(Veth::new().queues(4));
    let elsewhere = Namespace::new();
    let files = engine.files();
    let (what, port) = (chance.of(&["recv", "send"]), chance.of(&["veth0", "veth0/0", "veth0/^", "veth0/+"]));
    // A sender has no frames for the host, which is told so by its address.
    let what = if port == "veth0/^" { "recv" } else { what };
    let mode = chance.of(&["native", "native", "generic"]);
    let mut story = format!("{what} {port} {mode}");
    let mut program = feed(&pair, || {
        let command = engine.command(pair.a.command(mishap()).args([what, port]));
        let command = if engine.0.is_none() { command.env("NETMAP_XDP_MODE", mode) } else { command };
        let mut program = command.env("NETMAP_XDP_LOG", "debug").spawn();
        program.wait_for("ready", SOON);
        for _ in 0..=chance.below(4) {
            chance.pause();
            story += &format!("; {}", something(&pair, &elsewhere, &mut program, chance));
        }
        program
    });
    let killed = chance.below(2) == 0;
    program.signal(if killed { libc::SIGKILL } else { libc::SIGTERM });
    let log = engine.log(&program);
    let done = program.wait(SOON);
    assert!(!done.timed_out, "it hangs: {story}\n{done}\n{log}");
    assert!(done.success() || done.status.code().is_none(), "{story}\n{done}");
    assert!(!log.contains("did not come back") && !done.stderr.contains("did not come back"), "{story}\n{log}{done}");
    let links = || {
        let of = |ns: &Namespace| Cmd::new("ip").args(["-n", ns.name(), "-d", "link"]).run().expect_success().stdout;
        of(&pair.a.ns) + &of(&elsewhere)
    };
    let clean = wait_until(SOON, || !links().contains("xdp") && !links().contains("netmap"));
    assert!(clean, "left behind: {story}\n{}", links());
    if let Some(files) = files {
        let clean = wait_until(SOON, || engine.files() == Some(files));
        assert!(clean, "{story}: netmapd has {:?} files open, and had {files}", engine.files());
    }
}

/// `NMX_SOAK` says how many rounds a long run has, `NMX_SEED` where it begins.
#[test]
fn rounds_of_random_mishaps_leave_nothing() {
    needs_root!();
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let rounds = number("NMX_SOAK").unwrap_or(10);
    let seed = number("NMX_SEED").unwrap_or_else(|| std::process::id().into());
    let engines = [Engine::new(false), Engine::new(true)];
    for i in 0..rounds {
        println!("round {i}, NMX_SEED={}", seed + i);
        let mut chance = Chance((seed + i).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        chance.below(1);
        round(&engines[i as usize % 2], &mut chance);
    }
}
