//! How long it takes from handing a packet over until a receiver that slept holds it: percentiles. The sender sends one
//! packet at a time and rests in between, so the receiver sleeps in `poll` each time.
//!
//! The peer is a FIFO: the same two processes, a system call to send and one to sleep and receive.

use crate::machine::pair_of_cores;
use crate::memory::{Daemon, c_ends};
use crate::{Effort, Reached};
use hdrhistogram::Histogram;
use netmap_xdp_tests::Cmd;
use std::time::Duration;

const CONTENDERS: [(&str, &str); 5] = [
    ("bare FIFO", "fifo"),
    ("pipe, Rust API", "netmap:wake"),
    ("pipe, C, preload", "netmap:wake"),
    ("VALE, Rust API", "vale1:"),
    ("VALE, C, preload", "vale1:"),
];

/// The whole benchmark; it has no goal.
pub fn run(effort: &Effort) -> Reached {
    let daemon = Daemon::start();
    let program = c_ends();
    let fifo = daemon.file("fifo");
    Cmd::new("mkfifo").arg(&fifo).run().expect_success();
    let cores = pair_of_cores();
    let count: u64 = if effort.quick { 300 } else { 2000 };
    println!("\nwakeup: microseconds from handing a packet over to a sleeper's having it; {count} packets a round");
    println!("{:<24} {:>8} {:>8} {:>8} {:>8} {:>8}", "", "50 %", "90 %", "99 %", "99.9 %", "max");
    let mut times = CONTENDERS.map(|_| Histogram::<u64>::new(3).expect("a histogram"));
    for _ in 0..effort.rounds().min(5) {
        for ((name, port), times) in CONTENDERS.iter().zip(&mut times) {
            let port = match *port {
                "fifo" => [fifo.to_string_lossy().into_owned(), fifo.to_string_lossy().into_owned()],
                vale if vale.starts_with("vale") => [format!("{vale}a"), format!("{vale}b")],
                pipe => [format!("{pipe}{{1"), format!("{pipe}}}1")],
            };
            let how = if port[0].starts_with('/') { "bare" } else { "api" };
            let n = count.to_string();
            let end = |end: &str, i: usize| {
                if name.contains("C, preload") {
                    return daemon.c(&program, end, &port[i], cores[i]).arg(&n);
                }
                daemon.rust([end, how, &port[i]], cores[i]).args(["--count", &n])
            };
            let mut answer = end("answer", 1).spawn();
            answer.wait_for("ready", Duration::from_secs(10));
            end("call", 0).run().expect_success();
            let done = answer.wait(Duration::from_secs(10)).expect_success();
            for line in done.stdout.lines().filter_map(|l| l.strip_prefix("took=")) {
                times.record(line.parse().expect("nanoseconds")).expect("a histogram that grows");
            }
        }
    }
    for ((name, _), times) in CONTENDERS.iter().zip(&times) {
        let at = |q: f64| times.value_at_quantile(q) as f64 / 1e3;
        let max = times.max() as f64 / 1e3;
        println!("{name:<24} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {max:>8.1}", at(0.5), at(0.9), at(0.99), at(0.999));
    }
    true
}
