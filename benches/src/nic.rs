//! Sending and receiving over a veth pair in a network namespace of its own, three ways: a bare AF_XDP loop, the Rust API,
//! and a C program under the preload.
//!
//! ```text
//! transmit   contender ─ nmx0 ═ nmx1 ─ nobody: the stack drops what it does not know
//! receive    feeder ─ nmx0 ═ nmx1 ─ contender
//! ```
//! On veth the receiving end's softirq work runs on the sender's processor. So the feeder has the first processor, and with
//! it everything up to the receive ring; the contender has the second, and with it what becomes of the packets that it
//! sends. A receiver that is fed from the other processor is faster than its feeder and sleeps after every few packets: its
//! rate is the feeder's, and what tells is its processor time per packet, mostly that of going to sleep. On one processor
//! with its feeder it finds whole bursts, and the rate is that of both together; processor time there says little, since
//! softirq work goes to whoever runs. Contenders take turns in every round, each in a process of its own.

use crate::machine::{Calm, cdylib, pair_of_cores};
use crate::stats::Sample;
use crate::{Effort, Reached};
use clap::Args;
use netmap_xdp_tests::{Cmd, Finished, Namespace, Running, compile_c, is_root, workspace};
use std::path::Path;
use std::time::Duration;

/// The least share of the bare loop's rate that is good enough.
const GOAL: f64 = 0.95;
/// Of the paced feeder: below what anybody here can send.
const PACE: u64 = 200_000;

const CONTENDERS: [(&str, How); 3] =
    [("bare AF_XDP", How::Worker("bare")), ("Rust API", How::Worker("api")), ("C, preload", How::C)];

#[derive(Clone, Copy)]
enum How {
    Worker(&'static str),
    C,
}

/// One way to load the contenders.
struct Scene {
    title: &'static str,
    kind: &'static str,
    dev: &'static str,
    feed: Feed,
    /// Whether its rate is the contender's own doing.
    rated: bool,
}

/// What loads a contender.
#[derive(Clone, Copy)]
enum Feed {
    /// Nothing: the contender is the sender.
    None,
    /// As fast as it goes, on the feeder's processor.
    Flood,
    /// As fast as it goes, on the contender's.
    SameCore,
    /// [`PACE`] packets a second in bursts.
    Paced,
}

const SCENES: [Scene; 4] = [
    Scene { title: "transmit", kind: "tx", dev: "nmx0", feed: Feed::None, rated: true },
    Scene { title: "receive, flood from the other core", kind: "rx", dev: "nmx1", feed: Feed::Flood, rated: true },
    Scene { title: "receive, flood from the same core", kind: "rx", dev: "nmx1", feed: Feed::SameCore, rated: true },
    Scene { title: "receive, 0.2 Mpps", kind: "rx", dev: "nmx1", feed: Feed::Paced, rated: false },
];

/// What a contender did in all rounds.
#[derive(Default)]
struct Column {
    mpps: Sample,
    cpu: Sample,
}

/// Which scenes.
#[derive(Args)]
pub struct Choice {
    /// Only scenes with this in their title, such as `receive`
    #[arg(long, value_parser = part_of_title)]
    only: Option<String>,
}

fn part_of_title(text: &str) -> Result<String, String> {
    if SCENES.iter().any(|scene| scene.title.contains(text)) {
        return Ok(text.to_string());
    }
    Err(format!("the scenes are: {}", SCENES.map(|scene| scene.title).join("; ")))
}

impl Column {
    /// Its rate as a share of the bare loop's.
    fn rate(&self, columns: &[Column]) -> Sample {
        self.mpps.ratio_to(&columns[0].mpps)
    }
}

/// The whole benchmark.
pub fn run(effort: &Effort) -> Reached {
    some(effort, &Choice { only: None })
}

/// Some scenes of it.
pub fn some(effort: &Effort, choice: &Choice) -> Reached {
    if !is_root() {
        println!("\nnic: left out, since network namespaces need root");
        return false;
    }
    let ns = Namespace::new();
    wire(&ns, "nmx0", "nmx1");
    let c_program = compile_c(&workspace().join("benches/c/nm-loops.c"), "nm-loops", &[]);
    let [feeder_core, core] = pair_of_cores();
    println!(
        "\nnic: veth, batches of 64, {} rounds of {} ms; feeder on processor {feeder_core}, contenders on {core}; goal {GOAL}",
        effort.rounds(),
        effort.window().as_millis()
    );
    let mut reached = true;
    let chosen = |scene: &&Scene| choice.only.as_deref().is_none_or(|only| scene.title.contains(only));
    for scene in SCENES.iter().filter(chosen) {
        let feeder = feeder(&ns, scene.feed, [feeder_core, core]);
        let mut calm = Calm::new(effort);
        let mut columns: [Column; 3] = Default::default();
        let mut mode = String::new();
        for round in 0..effort.most_rounds() {
            if round >= effort.rounds() && columns.iter().all(|c| !scene.rated || c.rate(&columns).decided(GOAL)) {
                break;
            }
            for turn in 0..CONTENDERS.len() {
                let i = (round + turn) % CONTENDERS.len();
                let done = calm.measure(feeder.as_ref().map(Running::pid), || {
                    contend(&ns, CONTENDERS[i].1, scene, core, effort.window(), &c_program)
                });
                let field = |name| done.field(name).unwrap_or_else(|| panic!("no {name}: {done}")) as f64;
                let packets = field("packets");
                columns[i].mpps.add(packets / field("ns") * 1e3);
                columns[i].cpu.add(field("cpu") / packets.max(1.0));
                if let Some((_, m)) = done.stdout.split_once("mode=") {
                    mode = m.trim().to_string();
                }
            }
        }
        reached &= show(scene, &columns, &mode);
        calm.report();
    }
    reached
}

/// A wire of one queue each way.
pub fn wire(ns: &Namespace, one: &str, other: &str) {
    let ip = |args: &[&str]| {
        Cmd::new("ip").args(["-n", ns.name()]).args(args).run().expect_success();
    };
    let shape = ["numtxqueues", "1", "numrxqueues", "1"];
    ip(&[&["link", "add", one][..], &shape, &["type", "veth", "peer", "name", other], &shape].concat());
    ip(&["link", "set", one, "up"]);
    ip(&["link", "set", other, "up"]);
}

fn show(scene: &Scene, columns: &[Column], mode: &str) -> Reached {
    println!(
        "{:<54} {:<18} {:<18} {:<16} ratio",
        format!("{} ({mode}), {} rounds", scene.title, columns[0].mpps.count()),
        "Mpps (min..max)",
        "ratio to bare",
        "CPU ns/packet"
    );
    let mut reached = true;
    for ((name, _), c) in CONTENDERS.iter().zip(columns) {
        let rate = c.rate(columns);
        let cpu = c.cpu.ratio_to(&columns[0].cpu);
        let met = !scene.rated || rate.median() >= GOAL;
        println!(
            "  {name:<52} {:<18} {:<18} {:<16} {:.2}{}",
            c.mpps.show(2),
            rate.show(2),
            c.cpu.show(0),
            cpu.median(),
            if met { "" } else { "  missed" }
        );
        reached &= met;
    }
    reached
}

/// One of the loops of this program.
pub fn worker(ns: &Namespace, words: [&str; 3], core: usize, window: Duration) -> Cmd {
    let own = std::env::current_exe().expect("the path of this program");
    let (core, window) = (core.to_string(), window.as_millis().to_string());
    ns.command(own).env("NETMAP_XDP_LOG", "warn").arg("worker").args(words).args(["--core", &core, "--window", &window])
}

/// The C program under the preload.
pub fn c_loop(ns: &Namespace, program: &Path, kind: &str, dev: &str, core: usize, window: Duration) -> Cmd {
    let preload = ns.command(program).env("LD_PRELOAD", cdylib()).env("NETMAP_XDP_LOG", "warn");
    preload.args([kind, dev, &core.to_string(), &window.as_millis().to_string()])
}

/// The sender that loads a scene; it ends when dropped.
fn feeder(ns: &Namespace, feed: Feed, cores: [usize; 2]) -> Option<Running> {
    let core = if matches!(feed, Feed::SameCore) { cores[1] } else { cores[0] };
    let cmd = worker(ns, ["feed", "bare", "nmx0"], core, Duration::from_secs(3600));
    match feed {
        Feed::None => None,
        Feed::Flood | Feed::SameCore => Some(cmd.spawn()),
        Feed::Paced => Some(cmd.args(["--rate", &PACE.to_string()]).spawn()),
    }
}

fn contend(ns: &Namespace, how: How, scene: &Scene, core: usize, window: Duration, c_program: &Path) -> Finished {
    let cmd = match how {
        How::Worker(how) => worker(ns, [scene.kind, how, scene.dev], core, window),
        How::C => c_loop(ns, c_program, scene.kind, scene.dev, core, window),
    };
    cmd.timeout(window + Duration::from_secs(10)).run().expect_success()
}
