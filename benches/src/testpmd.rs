//! Forwarding from NIC to NIC against DPDK's own forwarder: Debian's `dpdk-testpmd` in io mode over its AF_XDP port
//! (net_af_xdp), under the same flood and in the same run.
//!
//! ```text
//! feeder ─ nmx0 ═ nmx1 ─ contender ─ nmx2 ═ nmx3 ─ nobody
//! ```
//! Nobody is asked how much it did: what counts is what arrives at `nmx3`. testpmd and `bridge` serve both directions,
//! of which one has traffic; the Rust API, C and bare loops are those of [`nic`](crate::nic) and serve one. As for
//! those, the contender's thread has the second processor, and the feeder the first. testpmd runs twice, with and
//! without the busy polling that its port asks the kernel for, and the better of the two is the peer. Its memory is of
//! plain pages (`--no-huge`): copies of packets are the kernel's work here, so nothing hangs on it.

use crate::machine::{Calm, beside, now, pair_of_cores};
use crate::nic::{self, Feed};
use crate::stats::Sample;
use crate::{Effort, Reached};
use netmap_xdp_tests::{Cmd, Namespace, Running, compile_c, is_root, wait_until, workspace};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The least share of testpmd's rate that is good enough.
const GOAL: f64 = 1.0;
const PROGRAM: &str = "dpdk-testpmd";
const PACKAGE: &str = "dpdk-dev";
/// It starts within a second or two; a busy machine gets more.
const START: Duration = Duration::from_secs(20);
/// Between the first packet and the measurement.
const WARM_UP: Duration = Duration::from_millis(200);
const END: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// With arguments of each of its ports.
    Testpmd(&'static str),
    Bridge,
    Worker(&'static str),
    C,
}

const CONTENDERS: [(&str, How); 6] = [
    ("testpmd io", How::Testpmd("")),
    ("testpmd io, busy_budget=0", How::Testpmd(",busy_budget=0")),
    ("bridge", How::Bridge),
    ("Rust API", How::Worker("api")),
    ("C, preload", How::C),
    ("bare AF_XDP", How::Worker("bare")),
];

/// The whole benchmark; installs testpmd where it is missing.
pub fn run(effort: &Effort) -> Reached {
    if !is_root() {
        println!("\ntestpmd: left out, since network namespaces need root");
        return false;
    }
    if let Err(why) = installed().or_else(|_| install()) {
        println!("\ntestpmd: left out: {why}");
        return false;
    }
    measure(effort)
}

/// The same as part of a run of everything: whoever has no testpmd is told how to get it.
pub fn run_if_installed(effort: &Effort) -> Reached {
    if installed().is_err() {
        println!(
            "\ntestpmd: left out, since {PROGRAM} is not installed; `make bench BENCH=testpmd` does that (Debian)"
        );
        return true;
    }
    run(effort)
}

fn installed() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(PROGRAM)).find(|file| file.is_file());
    found.ok_or_else(|| format!("there is no {PROGRAM}"))
}

fn install() -> Result<PathBuf, String> {
    println!("\ntestpmd: installing {PACKAGE}");
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

fn measure(effort: &Effort) -> Reached {
    let ns = nic::wires();
    let c_program = compile_c(&workspace().join("benches/c/nm-loops.c"), "nm-loops", &[]);
    let cpus = pair_of_cores();
    let mut rates: [Sample; CONTENDERS.len()] = Default::default();
    let feeder = nic::feeder(&ns, Feed::Flood, cpus);
    let mut calm = Calm::new(effort);
    for round in 0..effort.most_rounds() {
        if round >= effort.rounds() && ours(&rates).all(|(_, ratio)| ratio.decided(GOAL)) {
            break;
        }
        for turn in 0..CONTENDERS.len() {
            let i = (round + turn) % CONTENDERS.len();
            let (name, how) = CONTENDERS[i];
            let helper = feeder.as_ref().map(Running::pid);
            match calm.measure(helper, || forwarded(&ns, how, cpus[1], &c_program, effort.window())) {
                Ok(rate) => rates[i].add(rate),
                Err(why) => {
                    println!("\ntestpmd: {name}: {why}");
                    return false;
                }
            }
        }
    }
    println!(
        "\ntestpmd: forwarding a flood of 60-byte packets over veth, {} rounds of {} ms; goal {GOAL}",
        rates[0].count(),
        effort.window().as_millis()
    );
    println!("{:<28} {:<22} ratio to testpmd (min..max)", "", "Mpps (min..max)");
    let mut reached = true;
    for (i, (name, _)) in CONTENDERS.iter().enumerate() {
        let ratio = rates[i].ratio_to(best(&rates));
        let met = ours(&rates).all(|(which, ratio)| which != i || ratio.median() >= GOAL);
        println!("{name:<28} {:<22} {}{}", rates[i].show(3), ratio.show(2), if met { "" } else { "  missed" });
        reached &= met;
    }
    calm.report();
    reached
}

/// The better one of the two testpmds.
fn best(rates: &[Sample; CONTENDERS.len()]) -> &Sample {
    &rates[usize::from(rates[1].median() > rates[0].median())]
}

/// Which contenders are ours, and their shares of testpmd's rate.
fn ours(rates: &[Sample; CONTENDERS.len()]) -> impl Iterator<Item = (usize, Sample)> {
    let ours = |how| matches!(how, How::Bridge | How::C | How::Worker("api"));
    (0..CONTENDERS.len()).filter(move |&i| ours(CONTENDERS[i].1)).map(|i| (i, rates[i].ratio_to(best(rates))))
}

/// Millions of packets a second that a contender brings to the far end.
fn forwarded(ns: &Namespace, how: How, core: usize, c_program: &Path, window: Duration) -> Result<f64, String> {
    let mut running = command(ns, how, core, c_program).spawn();
    let before = arrived(ns);
    // A few packets are not the flood: neighbours of whoever starts may say something.
    let begun = wait_until(START, || arrived(ns) > before + 1000 || !running.is_alive());
    let alive = running.is_alive();
    if !begun || !alive {
        let said = running.wait(Duration::ZERO);
        return Err(if alive { format!("it forwards nothing\n{said}") } else { format!("it has ended\n{said}") });
    }
    std::thread::sleep(WARM_UP);
    let (from, start) = (arrived(ns), now());
    std::thread::sleep(window);
    let (to, end) = (arrived(ns), now());
    // In good order, since the XDP programs of testpmd would outlive it.
    running.signal(libc::SIGTERM);
    let done = running.wait(END);
    if done.timed_out {
        return Err(format!("it does not end\n{done}"));
    }
    let clean = wait_until(END, || ["nmx1", "nmx2"].iter().all(|dev| ns.xdp(dev).is_none()));
    if clean {
        Ok((to - from) as f64 / (end - start) as f64 * 1e3)
    } else {
        Err("it left an XDP program behind".into())
    }
}

fn command(ns: &Namespace, how: How, core: usize, c_program: &Path) -> Cmd {
    // Longer than anything that is done with it.
    let span = START + WARM_UP + END;
    let ours = |cmd: Cmd| cmd.env("NETMAP_XDP_LOG", "warn").env("NETMAP_XDP_ENGINE", "embedded");
    match how {
        How::Testpmd(options) => {
            // Its first thread, which sleeps, beside the one that forwards.
            let threads = format!("0@{core},1@{core}");
            let prefix = format!("--file-prefix={}", ns.name());
            let port = |i: usize, dev: &str| format!("--vdev=net_af_xdp{i},iface={dev}{options}");
            let environment = ["--no-huge", "-m", "256", "--no-pci", "--no-telemetry", &prefix, "--lcores", &threads];
            // With statistics now and then it goes on without input. Rings and batches are as everybody's here.
            let forward = ["--forward-mode=io", "--auto-start", "--stats-period=3600", "--no-mlockall"];
            let shape = ["--total-num-mbufs=16384", "--burst=64", "--rxd=1024", "--txd=1024"];
            let ports = [port(0, "nmx1"), port(1, "nmx2")];
            ns.command(PROGRAM).args(environment).args(ports).arg("--").args(forward).args(shape)
        }
        How::Bridge => {
            let taskset = ns.command("taskset").args(["-c", &core.to_string()]);
            ours(taskset.arg(beside("bridge")).args(["-i", "nmx1", "-i", "nmx2", "-w", "0"]))
        }
        How::Worker(how) => ours(nic::worker(ns, ["forward", how, "nmx1,nmx2"], core, span)),
        How::C => ours(nic::c_loop(ns, c_program, "forward", "nmx1,nmx2", core, span)),
    }
}

/// Packets that have come to `nmx3` so far.
fn arrived(ns: &Namespace) -> u64 {
    let table = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").expect("the interfaces of a namespace"));
    let fields = table.lines().find_map(|l| l.trim().strip_prefix("nmx3:")).expect("nmx3");
    fields.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("packets received")
}
