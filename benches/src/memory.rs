//! Pipes and switches between two processes through a netmapd of the bench's own, each end on a processor of its own, both
//! busy all the time: by the Rust API and by a C program under the preload.
//!
//! The peer is a bare ring in shared memory, at the same batch: for pipes one that passes descriptors, for switches one that
//! also copies each packet, which is the least that a switch must do. Rates are the receiver's. What a switch's sender
//! sends while the receiver's ring is full is lost, as in the original, and not counted.

use crate::machine::{Calm, beside, cdylib, pair_of_cores};
use crate::pairs::SHARED;
use crate::stats::Sample;
use crate::{Effort, Reached};
use netmap_xdp::sys::sealed_memfd;
use netmap_xdp_tests::{Cmd, Finished, Running, compile_c, workspace};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A netmapd for one bench, with its socket in a directory of its own; both go with it.
pub struct Daemon {
    dir: PathBuf,
    _running: Running,
}

impl Daemon {
    /// Starts it, and waits until it listens.
    pub fn start() -> Daemon {
        let dir = std::env::temp_dir().join(format!("nmx-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("cannot make {}: {e}", dir.display()));
        let program = Cmd::new(beside("netmapd")).args(["--foreground", "--socket"]).arg(dir.join("socket"));
        let mut running = program.spawn();
        running.wait_for("listens", Duration::from_secs(10));
        Daemon { dir, _running: running }
    }

    /// A place for a file of the bench.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// One end of a pair, from Rust.
    pub fn rust(&self, words: [&str; 3], core: usize) -> Cmd {
        let own = std::env::current_exe().expect("the path of this program");
        self.place(Cmd::new(own).arg("pair").args(words).args(["--core", &core.to_string()]))
    }

    /// The same from C, under the preload.
    pub fn c(&self, program: &Path, end: &str, port: &str, core: usize) -> Cmd {
        self.place(Cmd::new(program).env("LD_PRELOAD", cdylib()).args([end, port, &core.to_string()]))
    }

    fn place(&self, cmd: Cmd) -> Cmd {
        let cmd = cmd.env("NETMAP_XDP_ENGINE", "daemon").env("NETMAP_XDP_SOCKET", self.file("socket"));
        cmd.env("NETMAP_XDP_LOG", "warn")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The C ends.
pub fn c_ends() -> PathBuf {
    compile_c(&workspace().join("benches/c/nm-pairs.c"), "nm-pairs", &[])
}

/// What is measured.
struct Scene {
    title: &'static str,
    len: u16,
    batch: u32,
    /// Whether the receiver reads packets.
    look: bool,
    goal: Option<Goal>,
}

#[derive(Clone, Copy)]
enum Goal {
    Mpps(f64),
    Gbits(f64),
}

impl Goal {
    fn met(self, mpps: f64, len: u16) -> bool {
        match self {
            Goal::Mpps(goal) => mpps >= goal,
            Goal::Gbits(goal) => gbits(mpps, len) >= goal,
        }
    }
}

fn gbits(mpps: f64, len: u16) -> f64 {
    mpps * f64::from(len) * 8e-3
}

/// Two ports that lead to each other.
struct Kind {
    name: &'static str,
    ends: [&'static str; 2],
    /// Whether packets are copied.
    copies: bool,
    scenes: &'static [Scene],
}

const PIPE: Kind = Kind {
    name: "pipe",
    ends: ["netmap:bench{1", "netmap:bench}1"],
    copies: false,
    scenes: &[
        Scene { title: "60 bytes, batch 256", len: 60, batch: 256, look: false, goal: Some(Goal::Mpps(60.0)) },
        Scene { title: "60 bytes, batch 256, packets read", len: 60, batch: 256, look: true, goal: None },
        Scene { title: "60 bytes, batch 32", len: 60, batch: 32, look: false, goal: None },
    ],
};

const VALE: Kind = Kind {
    name: "vale",
    ends: ["vale0:a", "vale0:b"],
    copies: true,
    scenes: &[
        Scene { title: "60 bytes, batch 256", len: 60, batch: 256, look: false, goal: Some(Goal::Mpps(15.0)) },
        Scene { title: "60 bytes, batch 256, packets read", len: 60, batch: 256, look: true, goal: None },
        Scene { title: "60 bytes, batch 32", len: 60, batch: 32, look: false, goal: None },
        Scene { title: "1514 bytes, batch 256", len: 1514, batch: 256, look: false, goal: Some(Goal::Gbits(50.0)) },
        Scene { title: "1514 bytes, batch 256, packets read", len: 1514, batch: 256, look: true, goal: None },
    ],
};

/// `pipe`.
pub fn pipe(effort: &Effort) -> Reached {
    run(effort, &PIPE)
}

/// `vale`.
pub fn vale(effort: &Effort) -> Reached {
    run(effort, &VALE)
}

const CONTENDERS: [&str; 3] = ["bare ring", "Rust API", "C, preload"];

fn run(effort: &Effort, kind: &Kind) -> Reached {
    let daemon = Daemon::start();
    let program = c_ends();
    let cores = pair_of_cores();
    println!(
        "\n{}: two busy processes on processors {} and {}, {} rounds of {} ms",
        kind.name,
        cores[0],
        cores[1],
        effort.rounds(),
        effort.window().as_millis()
    );
    if cores[0] == cores[1] {
        println!("  only one processor: the two take turns, and the numbers say little");
    }
    let mut reached = true;
    for scene in kind.scenes {
        let mut columns: [Sample; CONTENDERS.len()] = Default::default();
        let mut calm = Calm::new(effort);
        for round in 0..effort.rounds() {
            for turn in 0..CONTENDERS.len() {
                let i = (round + turn) % CONTENDERS.len();
                let run = || contend(&daemon, kind, scene, i, cores, effort.window(), &program);
                columns[i].add(calm.measure(None, run));
            }
        }
        reached &= show(scene, &columns);
        calm.report();
    }
    let seal = sealed(&daemon, kind, cores, &program);
    println!("system calls of a busy pair: {}", if seal { "none" } else { "some, it was killed for them" });
    reached && seal
}

fn show(scene: &Scene, columns: &[Sample]) -> Reached {
    println!("{:<40} {:<24} {:<8} ratio to the bare ring", scene.title, "Mpps (min..max)", "Gbit/s");
    let mut reached = true;
    for (name, mpps) in CONTENDERS.iter().zip(columns) {
        let goal = scene.goal.filter(|_| *name != CONTENDERS[0]);
        let met = goal.is_none_or(|goal| goal.met(mpps.median(), scene.len));
        let verdict = match (goal, met) {
            (Some(Goal::Mpps(goal)), false) => format!("  missed {goal} Mpps"),
            (Some(Goal::Gbits(goal)), false) => format!("  missed {goal} Gbit/s"),
            _ => String::new(),
        };
        let rate = gbits(mpps.median(), scene.len);
        println!("  {name:<38} {:<24} {rate:<8.1} {}{verdict}", mpps.show(1), mpps.ratio_to(&columns[0]).show(2));
        reached &= met;
    }
    reached
}

/// Packets that the receiver got, in millions a second.
fn contend(
    daemon: &Daemon,
    kind: &Kind,
    scene: &Scene,
    contender: usize,
    cores: [usize; 2],
    window: Duration,
    program: &Path,
) -> f64 {
    let shared = sealed_memfd(c"bare ring", SHARED).expect("a memfd");
    let shared = format!("/proc/{}/fd/{}", std::process::id(), shared.as_raw_fd());
    let [len, batch] = [scene.len.to_string(), scene.batch.to_string()];
    let end = |end: &str, port: &str, core: usize, millis: u64| {
        let millis = millis.to_string();
        if contender == 2 {
            let look = if scene.look { "1" } else { "0" };
            return daemon.c(program, end, port, core).args([&millis, &len, &batch, look]);
        }
        let how = ["bare", "api"][contender];
        let port = if contender == 0 { &shared } else { port };
        let cmd = daemon.rust([end, how, port], core).args(["--window", &millis, "--len", &len, "--batch", &batch]);
        let cmd = if scene.look { cmd.arg("--look") } else { cmd };
        if kind.copies { cmd.arg("--copy") } else { cmd }
    };
    // The sender goes on until it is no longer needed.
    let millis = window.as_millis() as u64;
    let _sender = end("tx", kind.ends[0], cores[0], 60_000).spawn();
    let receiver = end("rx", kind.ends[1], cores[1], millis);
    let done: Finished = receiver.timeout(window + Duration::from_secs(10)).run().expect_success();
    let field = |name| done.field(name).unwrap_or_else(|| panic!("no {name}: {done}")) as f64;
    field("packets") / field("ns") * 1e3
}

/// A pair of C ends that the kernel kills at their first system call once they are warm; whether they live.
fn sealed(daemon: &Daemon, kind: &Kind, cores: [usize; 2], program: &Path) -> bool {
    const PACKETS: &str = "2000000";
    const FOR_EVER: &str = "1000000000000";
    let end = |end: &str, port: &str, core: usize, packets: &str| {
        daemon.c(program, end, port, core).args([packets, "60", "256", "0"])
    };
    // A sender asks netmapd once for the receivers of a switch, so they are there first.
    let mut receiver = end("sealed-rx", kind.ends[1], cores[1], PACKETS).spawn();
    receiver.wait_for("ready", Duration::from_secs(10));
    let mut sender = end("sealed-tx", kind.ends[0], cores[0], FOR_EVER).spawn();
    let receiver = receiver.wait(Duration::from_secs(30));
    receiver.success() && receiver.field("sealed") == Some(1) && sender.is_alive()
}
