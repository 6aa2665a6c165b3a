//! Pipes, switches and monitors of several processes, through a netmapd of the test's own; and what is left of them when a
//! process is killed in mid traffic. No rights needed.

use netmap_xdp_tests::{Cmd, Daemons, Finished, Running, c_program, open_files, wait_until};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SOON: Duration = Duration::from_secs(10);
/// Frames a second at which a receiver that shares two cores with the others loses nothing.
const GENTLE: &str = "5000";

static SEND: LazyLock<PathBuf> = LazyLock::new(|| c_program("nm-send"));
static RECEIVE: LazyLock<PathBuf> = LazyLock::new(|| c_program("nm-recv"));

/// Starts one of them on a port, checking or checkable, and waits until the port is open.
fn start(daemons: &Daemons, program: &PathBuf, port: &str, more: &[&str]) -> Running {
    let command = Cmd::new(program).args(["-i", port, "-V"]).args(more);
    let mut running = daemons.with(command, "daemon").spawn();
    running.wait_for("ready", SOON);
    running
}

fn receiver(daemons: &Daemons, port: &str, more: &[&str]) -> Running {
    start(daemons, &RECEIVE, port, more)
}

fn send(daemons: &Daemons, port: &str, more: &[&str]) -> Finished {
    start(daemons, &SEND, port, more).wait(SOON).expect_success()
}

/// All `count` frames arrived whole and in order: the exit code says so too.
fn expect_all(there: Running, count: u64) {
    let received = there.wait(SOON).expect_success();
    assert_eq!(received.field("received"), Some(count), "{received}");
    assert_eq!(received.field("lost"), Some(0), "{received}");
}

#[test]
fn a_pipe_carries_both_ways_between_processes() {
    let daemons = Daemons::new();
    let _daemon = daemons.start(&[]);
    for (from, to) in [("netmap:both{7", "netmap:both}7"), ("netmap:both}7", "netmap:both{7")] {
        let there = receiver(&daemons, to, &["-n", "100000"]);
        send(&daemons, from, &["-n", "100000", "-l", "60,1514"]);
        expect_all(there, 100_000);
    }
}

#[test]
fn a_switch_carries_one_sender_to_ten_processes() {
    let daemons = Daemons::new();
    let _daemon = daemons.start(&[]);
    let there = (0..10).map(|i| receiver(&daemons, &format!("vale7:r{i}"), &["-n", "10000"]));
    let there: Vec<_> = there.collect();
    send(&daemons, "vale7:s", &["-n", "10000", "-R", GENTLE, "-l", "60,1514"]);
    there.into_iter().for_each(|r| expect_all(r, 10_000));
}

#[test]
fn two_switches_of_one_daemon_do_not_mix() {
    let daemons = Daemons::new();
    let _daemon = daemons.start(&[]);
    let other = receiver(&daemons, "vale9:r", &["-t", "1"]);
    let there = receiver(&daemons, "vale8:r", &["-n", "5000"]);
    send(&daemons, "vale8:s", &["-n", "5000", "-R", GENTLE]);
    expect_all(there, 5000);
    assert_eq!(other.wait(SOON).field("received"), Some(0));
}

/// Sends from one process to another while a third one captures, which comes in the middle of the traffic.
fn capture(from: &str, to: &str, monitor: &str) {
    let daemons = Daemons::new();
    let _daemon = daemons.start(&[]);
    let there = receiver(&daemons, to, &["-n", "20000"]);
    let mut sender = start(&daemons, &SEND, from, &["-n", "20000", "-R", GENTLE, "-l", "60,1514"]);
    // If its port goes with the traffic, so does it.
    let captured = receiver(&daemons, monitor, &["-T", "4"]);
    expect_all(there, 20_000);
    assert!(wait_until(SOON, || !sender.is_alive()), "{}", sender.stderr());
    let captured = captured.wait(SOON);
    assert!(captured.field("received") > Some(1000), "{captured}");
    for fault in ["corrupt", "reordered", "other"] {
        assert_eq!(captured.field(fault), Some(0), "{captured}");
    }
}

#[test]
fn a_third_process_captures_a_busy_pipe() {
    for monitor in ["netmap:tap{1/t", "netmap:tap}1/r", "netmap:tap{1/z"] {
        capture("netmap:tap{1", "netmap:tap}1", monitor);
    }
}

#[test]
fn a_third_process_captures_a_port_of_a_switch() {
    for monitor in ["vale6:s/t", "vale6:r/r", "vale6:s/z", "vale6:r/z"] {
        capture("vale6:s", "vale6:r", monitor);
    }
}

#[test]
fn a_third_process_captures_a_pipe_on_a_port_of_a_switch() {
    for monitor in ["vale6:p{1/t", "vale6:p}1/r", "vale6:p}1/z"] {
        capture("vale6:p{1", "vale6:p}1", monitor);
    }
}

/// One of the programs that are killed and started again.
struct Part {
    program: &'static LazyLock<PathBuf>,
    port: &'static str,
    /// The part that it captures from: it ends with it.
    parent: Option<usize>,
    process: Option<Running>,
}

impl Part {
    fn new(program: &'static LazyLock<PathBuf>, port: &'static str, parent: Option<usize>) -> Part {
        Part { program, port, parent, process: None }
    }

    fn start(&mut self, daemons: &Daemons) {
        self.process = Some(start(daemons, self.program, self.port, &[]));
    }

    fn process(&mut self) -> &mut Running {
        self.process.as_mut().expect("started")
    }

    /// Lines that it has printed once a second so far, without the first, which says that it is ready.
    fn lines(&mut self) -> Vec<String> {
        self.process().stderr().lines().filter(|l| l.contains("per second")).map(String::from).collect()
    }
}

/// The number in front of `what`, or behind it.
fn number(line: &str, what: &str) -> Option<f64> {
    let words: Vec<_> = line.split([' ', ',']).filter(|w| !w.is_empty()).collect();
    let at = words.iter().position(|w| *w == what)?;
    let beside = |i: Option<usize>| words.get(i?)?.parse().ok();
    if what == "per" { beside(at.checked_sub(1)) } else { beside(Some(at + 1)) }
}

/// Random enough, and the seed is printed.
struct Dice(u64);

impl Dice {
    fn new() -> Dice {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
        println!("seed {now}");
        Dice(now | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

#[test]
fn a_client_killed_in_mid_traffic_harms_nobody_else() {
    let daemons = Daemons::new();
    let mut daemon = daemons.start(&[]);
    let mut parts = vec![
        Part::new(&RECEIVE, "netmap:k}1", None),
        Part::new(&SEND, "netmap:k{1", None),
        Part::new(&RECEIVE, "netmap:k{1/t", Some(1)),
        Part::new(&RECEIVE, "vale5:a", None),
        Part::new(&RECEIVE, "vale5:b", None),
        Part::new(&SEND, "vale5:c", None),
        Part::new(&SEND, "vale5:d", None),
    ];
    parts.iter_mut().for_each(|p| p.start(&daemons));
    let mut dice = Dice::new();
    let end = Instant::now() + Duration::from_secs(8);
    let (mut rounds, mut files) = (0, 0);
    while Instant::now() < end && rounds < 60 {
        std::thread::sleep(Duration::from_millis(20 + dice.below(60)));
        let victim = dice.below(parts.len() as u64) as usize;
        parts[victim].process().signal(libc::SIGKILL);
        parts[victim].process.take().expect("started").wait(SOON);
        assert!(daemon.is_alive(), "{}", daemon.stderr());
        for (i, part) in parts.iter_mut().enumerate().filter(|(i, _)| *i != victim) {
            if part.parent == Some(victim) {
                // It has nothing to capture any more, and says so by ending.
                part.process.take().expect("started").wait(SOON);
            } else {
                assert!(part.process().is_alive(), "part {i}, round {rounds}: {}", part.process().stderr());
            }
        }
        parts.iter_mut().filter(|p| p.process.is_none()).for_each(|p| p.start(&daemons));
        rounds += 1;
        if rounds == 10 {
            files = open_files(daemon.pid());
        }
    }
    println!("{rounds} rounds");
    assert!(rounds >= 20, "only {rounds} rounds");

    // Everybody who is there now gets or sends packets, all of them whole.
    let before: Vec<_> = parts.iter_mut().map(|p| p.lines().len()).collect();
    for (i, part) in parts.iter_mut().enumerate() {
        let moved = wait_until(SOON, || {
            let lines = part.lines();
            lines.len() > before[i] + 1 && lines.last().and_then(|l| number(l, "per")) > Some(0.0)
        });
        assert!(moved, "part {i} stands still: {}", part.process().stderr());
        let corrupt = part.lines().last().and_then(|l| number(l, "corrupt"));
        assert!(corrupt.is_none_or(|c| c == 0.0), "part {i}: {}", part.process().stderr());
    }
    let now = open_files(daemon.pid());
    assert!(now <= files + 8, "{now} descriptors, {files} after ten rounds");

    // All are killed, and fresh ones find everything free.
    for part in &mut parts {
        part.process().signal(libc::SIGKILL);
    }
    parts.into_iter().filter_map(|p| p.process).for_each(|p| drop(p.wait(SOON)));
    for (from, to) in [("netmap:k{1", "netmap:k}1"), ("vale5:c", "vale5:a")] {
        let there = receiver(&daemons, to, &["-n", "5000"]);
        send(&daemons, from, &["-n", "5000", "-R", GENTLE]);
        expect_all(there, 5000);
    }
    assert_eq!(daemons.pids(), [daemon.pid()]);
}
