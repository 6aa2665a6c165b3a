//! Ports in memory between processes, through netmapd. No rights needed.

use netmap_xdp_tests::{Cmd, Daemons, Finished, Running, c_program, open_files, wait_until};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// A C example, compiled once.
fn program(name: &'static str) -> PathBuf {
    static PROGRAMS: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    PROGRAMS[usize::from(name == "nm-send")].get_or_init(|| c_program(name)).clone()
}

fn receiver(daemons: &Daemons, port: &str, frames: &str) -> Running {
    let command = Cmd::new(program("nm-recv")).args(["-i", port, "-V", "-n", frames]);
    let mut running = daemons.with(command, "auto").spawn();
    running.wait_for("ready", SOON);
    running
}

fn sender(daemons: &Daemons, port: &str, frames: &str) -> Finished {
    let command = Cmd::new(program("nm-send")).args(["-i", port, "-V", "-n", frames]);
    daemons.with(command, "auto").run().expect_success()
}

#[test]
fn a_pipe_joins_two_processes() {
    let daemons = Daemons::new();
    let there = receiver(&daemons, "netmap:here{1", "50000");
    sender(&daemons, "netmap:here}1", "50000");
    let received = there.wait(SOON).expect_success();
    assert_eq!(received.field("received"), Some(50000), "{received}");
    assert_eq!(daemons.pids().len(), 1);
}

#[test]
fn an_end_that_is_killed_leaves_the_other_and_comes_back() {
    let daemons = Daemons::new();
    let keeper = receiver(&daemons, "netmap:here{2", "1000000");
    let daemon = daemons.pids()[0];
    let mut before = 0;
    for round in 0..20 {
        let command = Cmd::new(program("nm-send")).args(["-i", "netmap:here}2", "-V"]);
        let mut end = daemons.with(command, "auto").spawn();
        end.wait_for("ready", SOON);
        std::thread::sleep(Duration::from_millis(5 * round));
        end.signal(libc::SIGKILL);
        end.wait(SOON);
        if round == 2 {
            before = open_files(daemon);
        }
    }
    assert!(wait_until(SOON, || open_files(daemon) <= before), "{} descriptors, {before} before", open_files(daemon));
    drop(keeper);
    let there = receiver(&daemons, "netmap:here{2", "1000");
    sender(&daemons, "netmap:here}2", "1000");
    assert_eq!(there.wait(SOON).expect_success().field("received"), Some(1000));
    assert_eq!(daemons.pids(), [daemon]);
}
