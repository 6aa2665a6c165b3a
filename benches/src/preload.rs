//! The price of entry: what a call costs that finds nothing to do, through the preload, and what the preload costs calls
//! that are not about netmap.
//!
//! The peers are the same kind of call on a pipe, without the preload: a system call that finds nothing to do, which a
//! kernel module would need at least.

use crate::machine::{cdylib, pair_of_cores};
use crate::stats::Sample;
use crate::{Effort, Reached};
use netmap_xdp_tests::{Namespace, Veth, compile_c, is_root, workspace};
use std::path::Path;

/// One line of the table.
struct Line {
    title: &'static str,
    kind: &'static str,
    /// The port that is open meanwhile.
    dev: &'static str,
    preload: bool,
    /// The line that it is compared with.
    peer: usize,
}

const LINES: [Line; 7] = [
    Line { title: "ioctl on a pipe", kind: "foreign-ioctl", dev: "-", preload: false, peer: 0 },
    Line { title: "poll of a pipe", kind: "foreign-poll", dev: "-", preload: false, peer: 1 },
    Line { title: "poll of a pipe, preload", kind: "foreign-poll", dev: "-", preload: true, peer: 1 },
    Line { title: "poll of a pipe, preload, port open", kind: "foreign-poll", dev: "veth0", preload: true, peer: 1 },
    Line { title: "NIOCTXSYNC, nothing to send", kind: "txsync", dev: "veth0", preload: true, peer: 0 },
    Line { title: "NIOCRXSYNC, nothing received", kind: "rxsync", dev: "veth0", preload: true, peer: 0 },
    Line { title: "poll of a port, nothing received", kind: "poll", dev: "veth0", preload: true, peer: 1 },
];

/// The whole benchmark.
pub fn run(effort: &Effort) -> Reached {
    if !is_root() {
        println!("\npreload: left out, since network namespaces need root");
        return false;
    }
    let pair = Veth::new().build();
    let program = compile_c(&workspace().join("benches/c/nm-calls.c"), "nm-calls", &[]);
    let count = if effort.quick { 50_000 } else { 300_000 };
    let mut ns: [Sample; LINES.len()] = Default::default();
    for _ in 0..effort.rounds() {
        for (line, ns) in LINES.iter().zip(&mut ns) {
            ns.add(time(&pair.a.ns, line, &program, count));
        }
    }
    println!("\npreload: calls that find nothing to do; the ratio is to a call on a pipe without the preload");
    println!("{:<36} {:<22} {:<20} {:>12}", "", "ns (min..max)", "ratio (min..max)", "instructions");
    for (i, line) in LINES.iter().enumerate() {
        let ratio = ns[i].ratio_to(&ns[line.peer]);
        println!(
            "{:<36} {:<22} {:<20} {:>12}",
            line.title,
            ns[i].show(0),
            ratio.show(2),
            instructions(&pair.a.ns, line, &program).unwrap_or_else(|| "unknown".into())
        );
    }
    true
}

/// Nanoseconds per call.
fn time(ns: &Namespace, line: &Line, program: &Path, count: u64) -> f64 {
    let [_, core] = pair_of_cores().map(|c| c.to_string());
    let mut cmd = ns.command(program);
    if line.preload {
        cmd = cmd.env("LD_PRELOAD", cdylib()).env("NETMAP_XDP_LOG", "warn");
    }
    let done = cmd.args([line.kind, line.dev, &core, &count.to_string()]).run().expect_success();
    let spent = done.field("ns").unwrap_or_else(|| panic!("no time: {done}"));
    spent as f64 / count as f64
}

/// Instructions per call outside of the kernel, the loop's own few among them; none without valgrind.
fn instructions(ns: &Namespace, line: &Line, program: &Path) -> Option<String> {
    const CALLS: u64 = 1000;
    let mut cmd = ns.command("valgrind");
    if line.preload {
        cmd = cmd.env("LD_PRELOAD", cdylib()).env("NETMAP_XDP_LOG", "warn");
    }
    let tool = ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=calls_of_interest"];
    let done = cmd.args(tool).arg(program).args([line.kind, line.dev, "0", &CALLS.to_string()]).run();
    let (_, collected) = done.stderr.split_once("Collected :")?;
    let total: f64 = collected.split_whitespace().next()?.parse().ok()?;
    Some(format!("{:.0}", total / CALLS as f64))
}
