//! What the numbers were measured on, and the clocks.

use crate::Effort;
use netmap_xdp_tests::workspace;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Prints processor, kernel and commit.
pub fn describe() {
    let first = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_string()
    };
    let git = |args: &[&str]| {
        let out = Command::new("git").arg("-C").arg(workspace()).args(args).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_string())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".into());
    let dirty = git(&["status", "--porcelain"]).is_some_and(|s| !s.is_empty());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("machine  {}, {} cores", first("/proc/cpuinfo", "model name"), cores());
    println!("kernel   {}", kernel.trim());
    println!("commit   {commit}{}", if dirty { " and changes" } else { "" });
    if cfg!(debug_assertions) {
        println!("note: a debug build; run `make bench`");
    }
}

/// Processors that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Where two threads that work for each other run: the one that feeds, the one that is measured.
pub fn pair_of_cores() -> [usize; 2] {
    [0, cores().min(2) - 1]
}

/// The cdylib that lies beside this program.
pub fn cdylib() -> PathBuf {
    beside("libnetmap_xdp.so")
}

/// Something else that was built and lies there.
pub fn beside(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the path of this program");
    let path = own.with_file_name(name);
    assert!(path.exists(), "{} is missing: run `make build`", path.display());
    path
}

/// Puts the calling thread on one processor. A processor that it may not use changes nothing: all contenders share that.
pub fn pin(core: usize) {
    // SAFETY: an all-zero set is an empty one; CPU_SET writes inside it for a core below its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the structure.
    unsafe { libc::clock_gettime(id, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// Nanoseconds since boot.
pub fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds of processor time of this process, in its own code and in the kernel.
pub fn cpu_time() -> u64 {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// A run during which others took more of a processor than this is repeated, as long as there is patience.
const QUIET: f64 = 0.10;
/// For all runs that belong together.
const PATIENCE: Duration = Duration::from_secs(18);

/// Repeats runs during which others worked.
pub struct Calm {
    until: u64,
    runs: usize,
    disturbed: usize,
}

impl Calm {
    /// Patience begins now; a short run has none.
    pub fn new(effort: &Effort) -> Calm {
        let patience = if effort.quick { 0 } else { PATIENCE.as_nanos() as u64 };
        Calm { until: now() + patience, runs: 0, disturbed: 0 }
    }

    /// Does `run`, again while it was disturbed; `helper` as in [`Bystanders::watch`].
    pub fn measure<T>(&mut self, helper: Option<u32>, mut run: impl FnMut() -> T) -> T {
        self.runs += 1;
        loop {
            let bystanders = Bystanders::watch(helper);
            let done = run();
            let quiet = bystanders.share() <= QUIET;
            if quiet || now() > self.until {
                self.disturbed += usize::from(!quiet);
                return done;
            }
        }
    }

    /// Says how many runs were disturbed all the same.
    pub fn report(&self) {
        if self.disturbed > 0 {
            println!("  others were busy in {} of {} runs", self.disturbed, self.runs);
        }
    }
}

/// Processor time of the whole machine, to tell whether others worked while something was measured.
struct Bystanders {
    start: [f64; 2],
    wall: u64,
    helper: Option<u32>,
}

impl Bystanders {
    /// Begins. `helper` is a child of ours that will not have ended by the end; those that have are known anyway.
    fn watch(helper: Option<u32>) -> Bystanders {
        Bystanders { start: [busy(), known(helper)], wall: now(), helper }
    }

    /// Share of one processor that went to others since then: neither to us and our children nor to kernel threads.
    fn share(&self) -> f64 {
        let others = (busy() - self.start[0]) - (known(self.helper) - self.start[1]);
        others.max(0.0) / ((now() - self.wall) as f64 * 1e-9)
    }
}

/// Seconds from clock ticks.
fn seconds(ticks: f64) -> f64 {
    // SAFETY: takes an integer.
    ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
}

/// Seconds that all processors worked: user, nice, system, irq, softirq, steal.
fn busy() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    seconds([0, 1, 2, 5, 6, 7].iter().filter_map(|&i| fields.get(i)).sum())
}

/// Seconds of this process, its children that have ended, `helper`, and kernel threads.
fn known(helper: Option<u32>) -> f64 {
    let own = [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN].map(|who| {
        // SAFETY: fills the structure; all zeros is a valid one.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(who, &mut usage);
            usage
        };
        [usage.ru_utime, usage.ru_stime].iter().map(|t| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6).sum::<f64>()
    });
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let other: f64 = pids.filter_map(|pid| process_time(pid, helper)).sum();
    own.iter().sum::<f64>() + other
}

/// Seconds of `pid` if it is the helper or a kernel thread.
fn process_time(pid: u32, helper: Option<u32>) -> Option<f64> {
    const KTHREADD: &str = "2";
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold anything: state, parent, ..., utime and stime as 12th and 13th.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let counts = helper == Some(pid) || *fields.get(1)? == KTHREADD;
    counts.then(|| Some(seconds(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)))?
}
