//! netmapd dies under load: programs on pipes and switches go on among themselves, the next netmapd serves the same
//! names in memory of its own, and nothing of the survivors is left when they end. No rights needed.

use netmap_xdp_tests::{
    Cmd, Daemons, Finished, Running, c_program, compile_c, list, mappings, open_files, wait_until, workspace,
};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// Frames a second of those under load.
const RATE: &str = "20000";

static SEND: LazyLock<PathBuf> = LazyLock::new(|| c_program("nm-send"));
static RECEIVE: LazyLock<PathBuf> = LazyLock::new(|| c_program("nm-recv"));
static SURVIVOR: LazyLock<PathBuf> =
    LazyLock::new(|| compile_c(&workspace().join("tests/c/survivor.c"), "survivor", &[]));

/// One of the examples, checking or checkable, once its port is open.
fn start(daemons: &Daemons, engine: &str, program: &PathBuf, port: &str, more: &[&str]) -> Running {
    let command = Cmd::new(program).args(["-i", port, "-V"]).args(more);
    let mut running = daemons.with(command, engine).spawn();
    running.wait_for("ready", SOON);
    running
}

/// Frames that one of the examples has sent or received so far, by what it says every second.
fn frames(running: &Running) -> u64 {
    let text = running.stderr();
    let line = text.lines().rev().find_map(|l| l.split_once(" frames, "));
    line.and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
}

/// The same of those that throw a frame to and fro.
fn turns(running: &Running) -> u64 {
    let text = running.stdout();
    text.lines().rev().find_map(|l| l.strip_prefix("turns=")?.parse().ok()).unwrap_or(0)
}

/// Programs of one netmapd under load, who are to outlive it.
struct Survivors {
    /// Sender and receiver on a pipe, on a switch, and a copy monitor of the pipe.
    load: [Running; 5],
    /// Two on a pipe and two on a switch that sleep without a limit until the other wakes them.
    sleepers: [Running; 4],
}

impl Survivors {
    fn start(daemons: &Daemons) -> Survivors {
        let start = |program, port, more| start(daemons, "daemon", program, port, more);
        // Receivers first: what is sent to nobody is lost.
        let pipe = start(&RECEIVE, "netmap:load}1", &[]);
        let switch = start(&RECEIVE, "vale7:r", &[]);
        let load = [
            start(&SEND, "netmap:load{1", &["-R", RATE, "-l", "60,1514"]),
            pipe,
            start(&SEND, "vale7:s", &["-R", RATE, "-l", "60,1514"]),
            switch,
            start(&RECEIVE, "netmap:load{1/t", &[]),
        ];
        let sleeper = |role, port, again| {
            let command = Cmd::new(&*SURVIVOR).args([role, port, again]);
            let mut running = daemons.with(command, "daemon").spawn();
            running.wait_for("open", SOON);
            running
        };
        let sleepers = [
            sleeper("echo", "netmap:turns{1", "netmap:again{1"),
            sleeper("ping", "netmap:turns}1", "netmap:again}1"),
            sleeper("echo", "vale8:e", "vale9:e"),
            sleeper("ping", "vale8:p", "vale9:p"),
        ];
        Survivors { load, sleepers }
    }

    fn counts(&self) -> Vec<u64> {
        self.load.iter().map(frames).chain(self.sleepers.iter().map(turns)).collect()
    }

    /// Waits until every one of them has moved packets since now: two reports of each, since the first may be about before.
    fn expect_moving(&self, when: &str) {
        for _ in 0..2 {
            let before = self.counts();
            let moved = wait_until(SOON, || self.counts().iter().zip(&before).all(|(now, before)| now > before));
            let said: Vec<_> = self.load.iter().chain(&self.sleepers).map(|r| r.stderr()).collect();
            assert!(moved, "{when}: {before:?}, then {:?}\n{}", self.counts(), said.join("\n"));
        }
    }

    /// Each sleeper opens its second port.
    fn bind_again(&mut self) {
        for sleeper in &mut self.sleepers {
            sleeper.signal(libc::SIGUSR1);
            sleeper.wait_for("again", SOON);
        }
    }

    /// All end by themselves; nothing was lost in the pipe, and nothing was corrupt anywhere.
    fn end(self) {
        let end = |mut running: Running| -> Finished {
            running.signal(libc::SIGTERM);
            running.wait(SOON)
        };
        for sleeper in self.sleepers {
            end(sleeper).expect_success();
        }
        let [pipe_sender, pipe, switch_sender, switch, monitor] = self.load;
        let captured = end(monitor);
        let sent = end(pipe_sender).expect_success().field("sent");
        assert!(wait_until(SOON, || Some(frames(&pipe)) >= sent), "{sent:?} sent: {}", pipe.stderr());
        let received = end(pipe).expect_success();
        assert_eq!((received.field("received"), received.field("lost")), (sent, Some(0)), "{received}");
        end(switch_sender).expect_success();
        // A receiver that has no processor for a while loses frames on a switch, and a monitor does.
        for finished in [captured, end(switch)] {
            for fault in ["corrupt", "reordered", "other"] {
                assert_eq!(finished.field(fault), Some(0), "{finished}");
            }
        }
    }
}

/// Kills, and returns when it is dead.
fn kill(mut running: Running) {
    running.signal(libc::SIGKILL);
    running.wait(SOON);
}

/// All that is sent from one port arrives at another, and nothing else: what the survivors of the same names send would
/// be out of order. A ring has room for all of it, so that a receiver of a switch loses nothing however long it waits
/// for a processor.
fn passes(daemons: &Daemons, engine: &str, from: &str, to: &str) {
    let there = start(daemons, engine, &RECEIVE, to, &["-n", "1000"]);
    start(daemons, engine, &SEND, from, &["-n", "1000", "-R", "5000"]).wait(SOON).expect_success();
    let received = there.wait(SOON).expect_success();
    for (what, count) in [("received", 1000), ("lost", 0), ("reordered", 0), ("other", 0)] {
        assert_eq!(received.field(what), Some(count), "{received}");
    }
}

#[test]
fn pipes_and_switches_go_on_when_netmapd_is_killed_and_the_next_one_begins_anew() {
    let daemons = Daemons::new();
    let daemon = daemons.start(&[]);
    let mut survivors = Survivors::start(&daemons);
    survivors.expect_moving("before");
    kill(daemon);
    survivors.expect_moving("without netmapd");

    let next = daemons.start(&[]);
    let files = open_files(next.pid());
    for (from, to) in [("netmap:load{1", "netmap:load}1"), ("vale7:s", "vale7:r")] {
        passes(&daemons, "daemon", from, to);
    }
    survivors.expect_moving("beside others of the same names");

    // Nothing that the next one knows is the survivors', until they ask it for something.
    assert!(wait_until(SOON, || list(&daemons.status(), "ports").is_empty()), "{}", daemons.status());
    survivors.bind_again();
    let now = daemons.status();
    daemons.expect_sound(SOON);
    let mut holders: Vec<_> = list(&now, "ports").iter().map(|p| p["holders"][0]["pid"].as_u64()).collect();
    let mut sleepers: Vec<_> = survivors.sleepers.iter().map(|s| Some(u64::from(s.pid()))).collect();
    holders.sort();
    sleepers.sort();
    assert_eq!(holders, sleepers, "{now}");
    survivors.expect_moving("with ports of both");

    survivors.end();
    let gone = || list(&daemons.status(), "ports").is_empty() && open_files(next.pid()) <= files;
    assert!(wait_until(SOON, gone), "{} files, {files} at first: {}", open_files(next.pid()), daemons.status());
    daemons.expect_sound(SOON);
    assert_eq!(mappings(next.pid()), 0);
    assert_eq!(daemons.pids(), [next.pid()]);
}

#[test]
fn the_next_program_starts_the_next_netmapd() {
    let daemons = Daemons::new();
    let daemon = daemons.start(&[]);
    let dead = daemon.pid();
    let survivors = Survivors::start(&daemons);
    survivors.expect_moving("before");
    kill(daemon);
    for (from, to) in [("netmap:load{1", "netmap:load}1"), ("vale7:s", "vale7:r")] {
        passes(&daemons, "auto", from, to);
    }
    let pids = daemons.pids();
    assert!(pids.len() == 1 && pids[0] != dead, "{pids:?}");
    survivors.expect_moving("beside others of the same names");
    survivors.end();
    daemons.expect_sound(SOON);
}
