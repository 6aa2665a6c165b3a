//! What the tests of NIC ports share: a process of their own for tests that use the Rust API, frames whose every byte is
//! known, carrying them from port to port, and C programs that run scenarios.
//!
//! A netmap engine lives as long as its process, reads its settings once, and has one region for all ports. So a test that
//! counts buffers or descriptors, or wants a setting, starts with [`alone!`](crate::alone): it runs in a child of its own.
#![allow(dead_code, reason = "each test file uses its part")]

use netmap_xdp::api::{Interest, Port};
use netmap_xdp::sys::netdev::bpf;
use netmap_xdp_tests::{Cmd, End, Finished, Pair, Veth, c_program, compile_c, patient, wait_until, workspace};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub const SECOND: Duration = Duration::from_secs(1);
/// How long anything may take that ought to happen at once: generous, for machines that are busy with other things.
pub const SOON: Duration = Duration::from_secs(5);
/// Frames under way at most, so that no ring on the way ever overflows.
const WINDOW: usize = 48;
const MARK: &str = "NMX_ALONE";
const ALONE_LIMIT: Duration = Duration::from_secs(90);
const SOAK_LIMIT: Duration = Duration::from_secs(3600);

/// How much of everything a long run asks for, by `NMX_SOAK`; none in the usual one.
pub fn soak() -> Option<u64> {
    std::env::var("NMX_SOAK").ok()?.parse().ok()
}

/// Whether the kernel has AF_XDP frames of several buffers.
pub fn has_chains() -> bool {
    bpf::kernel_version() >= (6, 6)
}

/// Goes on in a process of the test's own, as root, with the given environment: `alone!("NETMAP_XDP_MODE" = "generic")`.
#[macro_export]
macro_rules! alone {
    ($($name:literal = $value:expr),*) => {
        netmap_xdp_tests::needs_root!();
        {
            fn here() {}
            if !$crate::nic_common::is_alone(std::any::type_name_of_val(&here), &[$(($name, $value)),*]) {
                return;
            }
        }
    };
}

/// In the child: true. Else starts the child, and false once it has succeeded. `here` is the path of an item in the test.
pub fn is_alone(here: &str, env: &[(&str, &str)]) -> bool {
    let path = here.strip_suffix("::here").expect("the path of a function in the test");
    let name = path.split_once("::").expect("a path in this crate").1;
    if std::env::var(MARK).as_deref() == Ok(name) {
        return true;
    }
    let mut child = this_test(name).env(MARK, name);
    for (variable, value) in env {
        child = child.env(variable, value);
    }
    let limit = if soak().is_some() { SOAK_LIMIT } else { ALONE_LIMIT };
    let done = child.timeout(limit).run().expect_success();
    print!("{}", done.stdout);
    assert!(done.stdout.contains("1 passed"), "the test did not find itself\n{done}");
    false
}

/// A command that runs one test of this binary.
pub fn this_test(name: &str) -> Cmd {
    Cmd::new(std::env::current_exe().expect("the path of the running test")).args(["--exact", name, "--nocapture"])
}

/// The frame `seq` of `len` bytes, 28 or more, as `compat-c/examples/pattern.h` has it.
pub fn frame(seq: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xff; 6];
    bytes.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    bytes.extend(0x4e4d_5844_u32.to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend((len as u16).to_be_bytes());
    bytes.extend((28..len as u64).map(|i| (seq * 31 + i * 7 + (seq >> 8)) as u8));
    bytes
}

/// Frames of lengths that go from `min` to `max` in no particular order.
pub fn frames(count: u64, min: usize, max: usize) -> Vec<Vec<u8>> {
    (0..count).map(|seq| frame(seq, min + (seq as usize * 7919) % (max - min + 1))).collect()
}

/// Takes every frame that waits in receive ring `i`, in order; frames of several slots in one piece.
pub fn take(port: &mut Port, i: usize) -> Vec<Vec<u8>> {
    let mut ring = port.rx(i);
    let (mut whole, mut part, mut done) = (Vec::new(), Vec::new(), 0);
    for n in 0..ring.available() {
        let slot = ring.slot(n).expect("an available slot");
        let at = part.len();
        part.resize(at + slot.len(), 0);
        assert_eq!(slot.read_at(0, &mut part[at..]), slot.len(), "a received slot has no buffer");
        if slot.flags() & netmap_xdp::api::NS_MOREFRAG == 0 {
            whole.push(std::mem::take(&mut part));
            done = n + 1;
        }
    }
    ring.release(done);
    whole
}

/// Sends `frames` on transmit ring `tx` of one port and checks that they arrive, in order and whole, at receive ring `rx` of
/// the other. At most [`WINDOW`] are under way.
#[track_caller]
pub fn carry(from: &mut Port, tx: usize, to: &mut Port, rx: usize, frames: &[Vec<u8>]) {
    let deadline = Instant::now() + patient(SOON);
    let (mut sent, mut got) = (0, 0);
    while got < frames.len() {
        assert!(
            Instant::now() < deadline,
            "{got} of {} frames arrived, {sent} sent; {:?} {:?}",
            frames.len(),
            from.drops(),
            to.drops()
        );
        let mut ring = from.tx(tx);
        while sent < frames.len() && sent - got < WINDOW && push(&mut ring, &frames[sent]) {
            sent += 1;
        }
        drop(ring);
        from.sync_tx().unwrap();
        let ready = to.wait(Interest::READ, Some(SECOND / 10)).unwrap();
        assert!(!ready.error, "the receiving port failed");
        for frame in take(to, rx) {
            assert!(got < sent, "a frame that nobody sent: {frame:02x?}");
            assert!(frame == frames[got], "frame {got} arrived wrong: {} bytes for {}", frame.len(), frames[got].len());
            got += 1;
        }
    }
}

/// Puts a frame into as many slots as it takes.
pub fn push(ring: &mut netmap_xdp::api::TxRing<'_>, frame: &[u8]) -> bool {
    let Some(room) = ring.slot(0).map(|slot| slot.capacity()) else { return false };
    let pieces: Vec<_> = frame.chunks(room).collect();
    if pieces.len() > ring.space() as usize {
        return false;
    }
    for (n, piece) in pieces.iter().enumerate() {
        let slot = ring.slot(n as u32).expect("there is space");
        assert_eq!(slot.write_at(0, piece), piece.len());
        slot.set_len(piece.len());
        slot.set_flags(if n + 1 < pieces.len() { netmap_xdp::api::NS_MOREFRAG } else { 0 });
    }
    ring.advance(pieces.len() as u32);
    true
}

/// Opens a port in the namespace of `end`: `"netmap:{}-1"` names its device by the braces.
#[track_caller]
pub fn open(end: &End, name: &str) -> Port {
    try_open(end, name).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The same, with what went wrong.
pub fn try_open(end: &End, name: &str) -> Result<Port, netmap_xdp::api::Error> {
    let name = name.replace("{}", end.dev);
    end.ns.run(|| Port::open(&name))
}

/// Checks that no port is open in this process: the region went with the last one.
#[track_caller]
pub fn assert_all_buffers_returned() {
    assert_eq!(netmap_xdp::client::settled(), None, "ports or buffers remain: (free, usable)");
}

/// A veth pair whose ends both lie in the namespace of end `a`, for programs that use both.
pub fn loop_pair(shape: Veth) -> Pair {
    let pair = shape.build();
    pair.b.set(&["netns", pair.a.ns.name()]);
    let peer = || pair.a.command("ip").args(["link", "set", "dev", pair.b.dev, "up"]);
    peer().run().expect_success();
    for dev in [pair.a.dev, pair.b.dev] {
        let show = pair.a.command("ip").args(["-j", "link", "show", "dev", dev]);
        assert!(wait_until(SOON, || show.clone().run().stdout.contains("LOWER_UP")), "{dev} has no carrier");
    }
    pair
}

/// A program of `tests/c`.
pub fn c_test(name: &str) -> PathBuf {
    compile_c(&workspace().join("tests/c").join(format!("{name}.c")), name, &[])
}

/// Runs a scenario of a C program where both ends of a veth pair lie in one namespace, with the library preloaded.
#[track_caller]
pub fn run_scenario(program: &PathBuf, scenario: &str, shape: Veth, env: &[(&str, &str)]) -> Finished {
    let pair = loop_pair(shape);
    let mut command = pair.a.command(program).arg(scenario).preload().timeout(Duration::from_secs(60));
    for (name, value) in env {
        command = command.env(name, value);
    }
    let done = command.run().expect_success();
    assert!(done.stdout.contains("ok"), "{done}");
    if let Some(why) = done.stderr.lines().find(|line| line.contains("left out, needs")) {
        netmap_xdp_tests::skipped(why);
    }
    // Some scenarios delete or rename the devices, so all of them are asked about.
    let links = || pair.a.command("ip").args(["-d", "-j", "link"]).run().expect_success().stdout;
    assert!(wait_until(SOON, || !links().contains("\"xdp\":{")), "an XDP program is left: {}", links());
    done
}

/// Sends on, without a copy, what waits in receive ring 0, as far as transmit ring 0 has room.
pub fn swap_on(from: &mut Port, to: &mut Port) {
    let (mut rx, mut tx) = (from.rx(0), to.tx(0));
    let n = rx.available().min(tx.space());
    for i in 0..n {
        rx.slot(i).unwrap().swap_into(&tx.slot(i).unwrap()).unwrap();
    }
    rx.release(n);
    tx.advance(n);
    drop((rx, tx));
    to.sync_tx().unwrap();
}

/// `ping` from one end to an address, `count` times.
pub fn ping(from: &End, address: &str) -> bool {
    from.command("ping").args(["-c", "2", "-i", "0.2", "-W", "1", address]).run().success()
}

/// Checks that the host stacks at both ends talk to each other.
#[track_caller]
pub fn assert_ping(from: &End, address: &str) {
    assert!(wait_until(SOON, || ping(from, address)), "no ping from {} to {address}", from.dev);
}

/// Carries `count` frames from `nm-send -V` to `nm-recv -V`, the C examples, each with settings of its own.
#[track_caller]
pub fn transfer(from: &End, to: &End, count: u64, lengths: &str, send_env: &[(&str, &str)], recv_env: &[(&str, &str)]) {
    let with = |cmd: Cmd, env: &[(&str, &str)]| env.iter().fold(cmd, |cmd, (name, value)| cmd.env(name, value));
    // Both compiled before the receiver begins to wait.
    let (receive, send) = (c_program("nm-recv"), c_program("nm-send"));
    let receive = to.command(receive).preload().args(["-i", &format!("netmap:{}", to.dev), "-V"]);
    let mut receiver = with(receive, recv_env).args(["-n", &count.to_string(), "-t", "15"]).spawn();
    receiver.wait_for("ready", SOON);
    let send = from.command(send).preload().args(["-i", &format!("netmap:{}", from.dev), "-V"]);
    let rate = ["-R", "10000", "-l", lengths, "-n", &count.to_string()];
    with(send, send_env).args(rate).timeout(Duration::from_secs(20)).run().expect_success();
    let got = receiver.wait(Duration::from_secs(30)).expect_success();
    assert_eq!(
        (got.field("received"), got.field("lost"), got.field("corrupt")),
        (Some(count), Some(0), Some(0)),
        "{got}"
    );
}
