//! Forwarding from NIC to NIC under more than anybody can forward, by a bare AF_XDP loop, the Rust API, a C program under
//! the preload, `bridge`, and DPDK's own forwarder: Debian's `dpdk-testpmd` in io mode over its AF_XDP port (net_af_xdp).
//!
//! ```text
//! feeder ─ nmxNa ═ nmxNb ─ contender N ─ nmxNc ═ nmxNd ─ nobody
//! ```
//! Each contender has wires of its own. All of them are there at once, stopped but for one, and that one is fed: every
//! 30 ms it is another's turn, since what a processor of a virtual machine can do changes several times a second by
//! a third. Rates of one turn say nothing; those of a round, all contenders started anew and 40 turns of each, differ
//! from the next round's by some hundredths when divided by each other.
//!
//! The feeder is the kernel, on the first processor: it redirects one frame again and again (`BPF_F_TEST_XDP_LIVE_FRAMES`),
//! four times as often as anybody here can send it on, which is what makes this a measurement of contenders. A socket that
//! sends on the first processor, softirq work of the receiving end included, would be slower than any of them.
//!
//! Nobody is asked how much it did: what counts is what arrives at `nmxNd`. testpmd and `bridge` serve both directions, of
//! which one has traffic; the others serve one. All have one thread, on the second processor. testpmd runs twice, with
//! and without the busy polling that its port asks the kernel for, and the better of the two is the peer. Its memory is
//! of plain pages (`--no-huge`): copies of packets are the kernel's work here.

use crate::machine::{beside, now, pair_of_cores, pin};
use crate::nic;
use crate::stats::Sample;
use crate::worker::{BATCH, FRAME};
use crate::{Effort, Reached, bare};
use netmap_xdp::sys::netdev::NetDev;
use netmap_xdp_tests::{Cmd, Namespace, Redirect, Running, compile_c, is_root, wait_until, workspace};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::time::Duration;

/// The least share of the bare loop's rate that is good enough, and of testpmd's.
const GOALS: [f64; 2] = [0.95, 1.0];
const PROGRAM: &str = "dpdk-testpmd";
const PACKAGE: &str = "dpdk-dev";
/// It starts within a second or two; a busy machine gets more.
const START: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(10);
/// Of one contender's turn, what is not measured: its caches are another's.
const WARM_UP: Duration = Duration::from_millis(5);
const TURN: Duration = Duration::from_millis(25);
/// Frames between two looks at whether the feeder is to end: a second's.
const FRAMES: u32 = 1 << 22;

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Worker(&'static str),
    C,
    Bridge,
    /// With arguments of each of its ports.
    Testpmd(&'static str),
}

const CONTENDERS: [(&str, How); 6] = [
    ("bare AF_XDP", How::Worker("bare")),
    ("Rust API", How::Worker("api")),
    ("C, preload", How::C),
    ("bridge", How::Bridge),
    ("testpmd io", How::Testpmd("")),
    ("testpmd io, busy_budget=0", How::Testpmd(",busy_budget=0")),
];

/// The whole benchmark; installs testpmd where it is missing.
pub fn run(effort: &Effort) -> Reached {
    if let Err(why) = installed().or_else(|_| install()) {
        println!("\nforward: {why}");
        return false;
    }
    measure(effort, true)
}

/// The same as part of a run of everything: without testpmd where that is missing.
pub fn run_with_what_is_installed(effort: &Effort) -> Reached {
    let testpmd = installed().is_ok();
    if !testpmd {
        println!("\nforward: without testpmd; `make bench BENCH=forward` installs it (Debian)");
    }
    measure(effort, testpmd)
}

fn installed() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(PROGRAM)).find(|file| file.is_file());
    found.ok_or_else(|| format!("there is no {PROGRAM}"))
}

fn install() -> Result<PathBuf, String> {
    println!("\nforward: installing {PACKAGE}");
    let apt = |words: &[&str]| {
        let command = std::process::Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-y", "--no-install-recommends"])
            .args(words)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .status();
        matches!(command, Ok(status) if status.success())
    };
    let done = apt(&["install", PACKAGE]) || (apt(&["update"]) && apt(&["install", PACKAGE]));
    match installed() {
        Ok(path) if done => Ok(path),
        Ok(_) | Err(_) => Err(format!(
            "{PROGRAM} could not be installed; on Debian it is in the package {PACKAGE}: apt-get install {PACKAGE}"
        )),
    }
}

fn measure(effort: &Effort, testpmd: bool) -> Reached {
    if !is_root() {
        println!("\nforward: left out, since network namespaces need root");
        return false;
    }
    if bare::mode() != "native" {
        println!("\nforward: left out, since a veth pair takes redirected frames in native mode alone");
        return true;
    }
    let ns = Namespace::new();
    let lines: Vec<Line> = CONTENDERS
        .into_iter()
        .filter(|(_, how)| testpmd || !matches!(how, How::Testpmd(_)))
        .enumerate()
        .map(|(i, (name, how))| Line::new(&ns, i, name, how))
        .collect();
    let flood = match Redirect::load() {
        Ok(redirect) => Flood { redirect, over: AtomicBool::new(false) },
        Err(e) => {
            println!("\nforward: a program for the feeder cannot be loaded: {e}");
            return false;
        }
    };
    let done = std::thread::scope(|scope| {
        scope.spawn(|| ns.run(|| flood.go_on()));
        let _stop = Stop(&flood);
        rounds(&ns, &lines, &flood, effort)
    });
    match done {
        Ok(rates) => show(&lines, &rates, effort),
        Err(why) => {
            println!("\nforward: {why}");
            false
        }
    }
}

/// A contender and its wires.
struct Line {
    name: &'static str,
    how: How,
    /// From the feeder to nobody.
    devs: [String; 4],
    /// Where the feeder sends for it.
    ifindex: u32,
}

impl Line {
    fn new(ns: &Namespace, i: usize, name: &'static str, how: How) -> Line {
        let devs = ["a", "b", "c", "d"].map(|end| format!("nmx{i}{end}"));
        nic::wire(ns, &devs[0], &devs[1]);
        nic::wire(ns, &devs[2], &devs[3]);
        let ifindex = ns.run(|| NetDev::by_name(&devs[0]).expect("a device just made").ifindex);
        Line { name, how, devs, ifindex }
    }

    fn ours(&self) -> bool {
        matches!(self.how, How::Bridge | How::C | How::Worker("api"))
    }

    /// Packets that have arrived so far.
    fn arrived(&self, ns: &Namespace) -> u64 {
        let table = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").expect("a namespace's interfaces"));
        let mut lines = table.lines().filter_map(|l| l.trim().split_once(':'));
        let (_, fields) = lines.find(|(dev, _)| *dev == self.devs[3]).expect("the last device");
        fields.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("packets received")
    }

    fn command(&self, ns: &Namespace, core: usize, c_program: &Path) -> Cmd {
        let [_, from, to, _] = &self.devs;
        let both = format!("{from},{to}");
        // Longer than anything that is done with it.
        let span = Duration::from_secs(3600);
        let ours = |cmd: Cmd| cmd.env("NETMAP_XDP_LOG", "warn").env("NETMAP_XDP_ENGINE", "embedded");
        match self.how {
            How::Testpmd(options) => {
                // Its first thread, which sleeps, beside the one that forwards.
                let threads = format!("0@{core},1@{core}");
                let prefix = format!("--file-prefix={from}-{}", ns.name());
                let port = |i: usize, dev: &str| format!("--vdev=net_af_xdp{i},iface={dev}{options}");
                let environment =
                    ["--no-huge", "-m", "256", "--no-pci", "--no-telemetry", &prefix, "--lcores", &threads];
                // With statistics now and then it goes on without input. Rings and batches are as everybody's here.
                let forward = ["--forward-mode=io", "--auto-start", "--stats-period=3600", "--no-mlockall"];
                let shape = ["--total-num-mbufs=16384", "--burst=64", "--rxd=1024", "--txd=1024"];
                let ports = [port(0, from), port(1, to)];
                ns.command(PROGRAM).args(environment).args(ports).arg("--").args(forward).args(shape)
            }
            How::Bridge => {
                let taskset = ns.command("taskset").args(["-c", &core.to_string()]);
                ours(taskset.arg(beside("bridge")).args(["-i", from, "-i", to, "-w", "0"]))
            }
            How::Worker(how) => ours(nic::worker(ns, ["forward", how, &both], core, span)),
            How::C => ours(nic::c_loop(ns, c_program, "forward", &both, core, span)),
        }
    }
}

/// Sends the same frame until it is over, to whoever has the turn.
struct Flood {
    redirect: Redirect,
    over: AtomicBool,
}

impl Flood {
    fn go_on(&self) {
        pin(pair_of_cores()[0]);
        while !self.over.load(Relaxed) {
            self.redirect.send(&FRAME, FRAMES, BATCH).expect("live frames, which Linux has since 5.18");
        }
    }
}

/// Ends the flood on the way out, whichever that is.
struct Stop<'a>(&'a Flood);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Relaxed);
    }
}

/// Millions of packets a second, of each contender in each round.
fn rounds(ns: &Namespace, lines: &[Line], flood: &Flood, effort: &Effort) -> Result<Vec<Sample>, String> {
    let c_program = compile_c(&workspace().join("benches/c/nm-loops.c"), "nm-loops", &[]);
    let mut rates = vec![Sample::default(); lines.len()];
    for round in 0..effort.most_rounds() {
        let decided =
            |peer: &Sample, goal| lines.iter().zip(&rates).all(|(l, r)| !l.ours() || r.ratio_to(peer).decided(goal));
        let all_decided = || peers(lines, &rates).into_iter().flatten().zip(GOALS).all(|(p, goal)| decided(p, goal));
        if round >= effort.rounds() && all_decided() {
            break;
        }
        let new = one_round(ns, lines, flood, effort.turns(), &c_program)?;
        rates.iter_mut().zip(new).for_each(|(sample, rate)| sample.add(rate));
    }
    Ok(rates)
}

/// What ours are measured against: the bare loop, and the better one of the two testpmds.
fn peers<'a>(lines: &[Line], rates: &'a [Sample]) -> [Option<&'a Sample>; 2] {
    let of = |testpmd| move |(l, _): &(&Line, &Sample)| matches!(l.how, How::Testpmd(_)) == testpmd;
    let both = || lines.iter().zip(rates);
    let best = both().filter(of(true)).map(|(_, r)| r).max_by(|a, b| a.median().total_cmp(&b.median()));
    [both().find(of(false)).map(|(_, r)| r), best]
}

fn one_round(
    ns: &Namespace,
    lines: &[Line],
    flood: &Flood,
    turns: usize,
    c_program: &Path,
) -> Result<Vec<f64>, String> {
    let core = pair_of_cores()[1];
    let mut running: Vec<Running> = lines.iter().map(|l| l.command(ns, core, c_program).spawn()).collect();
    for (line, program) in lines.iter().zip(&mut running) {
        flood.redirect.aim(line.ifindex);
        let before = line.arrived(ns);
        // A few packets are not the flood: neighbours of whoever starts may say something.
        let begun = wait_until(START, || line.arrived(ns) > before + 1000 || !program.is_alive());
        if !begun || !program.is_alive() {
            let what = if begun { "has ended" } else { "forwards nothing" };
            return Err(format!("{} {what}\n{}{}", line.name, program.stdout(), program.stderr()));
        }
        program.signal(libc::SIGSTOP);
    }
    let mut sums = vec![[0; 2]; lines.len()];
    for turn in 0..turns {
        for step in 0..lines.len() {
            // Forwards and backwards, so that nobody always has the same one before it.
            let step = if turn % 2 == 0 { step } else { lines.len() - 1 - step };
            let i = (turn + step) % lines.len();
            let (line, program) = (&lines[i], &mut running[i]);
            program.signal(libc::SIGCONT);
            flood.redirect.aim(line.ifindex);
            std::thread::sleep(WARM_UP);
            let (from, start) = (line.arrived(ns), now());
            std::thread::sleep(TURN);
            let (to, end) = (line.arrived(ns), now());
            program.signal(libc::SIGSTOP);
            sums[i][0] += to - from;
            sums[i][1] += end - start;
        }
    }
    flood.redirect.aim(0);
    for (line, mut program) in lines.iter().zip(running) {
        program.signal(libc::SIGCONT);
        // In good order, since the XDP programs of testpmd would outlive it.
        program.signal(libc::SIGTERM);
        let done = program.wait(END);
        if done.timed_out {
            return Err(format!("{} does not end\n{done}", line.name));
        }
        let clean = wait_until(END, || line.devs[1..3].iter().all(|dev| ns.xdp(dev).is_none()));
        if !clean {
            return Err(format!("{} left an XDP program behind", line.name));
        }
    }
    Ok(sums.iter().map(|[packets, ns]| *packets as f64 / *ns as f64 * 1e3).collect())
}

fn show(lines: &[Line], rates: &[Sample], effort: &Effort) -> Reached {
    println!(
        "\nforward: 60-byte packets over veth ({}), {} rounds of {} turns of {} ms; goals {} and {}",
        bare::mode(),
        rates[0].count(),
        effort.turns(),
        TURN.as_millis(),
        GOALS[0],
        GOALS[1]
    );
    println!("{:<28} {:<22} {:<24} ratio to testpmd", "", "Mpps (min..max)", "ratio to bare (min..max)");
    let mut reached = true;
    for (line, rate) in lines.iter().zip(rates) {
        let ratios = peers(lines, rates).map(|peer| peer.map(|p| rate.ratio_to(p)));
        let shown = ratios.each_ref().map(|r| r.as_ref().map_or_else(String::new, |r| r.show(2)));
        let met = ratios.iter().zip(GOALS).all(|(r, goal)| r.as_ref().is_none_or(|r| r.median() >= goal));
        let met = met || !line.ours();
        let verdict = if met { "" } else { "  missed" };
        println!("{:<28} {:<22} {:<24} {}{verdict}", line.name, rate.show(3), shown[0], shown[1]);
        reached &= met;
    }
    reached
}
