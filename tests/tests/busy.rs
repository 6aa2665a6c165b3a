//! A busy pair makes no system call: two C programs under the preload, each in a process of its own, that have asked the
//! kernel to kill them at the first one. One that sleeps makes the calls that sleep and wake, and no other.

use netmap_xdp_tests::{Cmd, Daemons, compile_c, workspace};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn sealed_pair_works(from: &str, to: &str) {
    let program = compile_c(&workspace().join("benches/c/nm-pairs.c"), "nm-pairs", &[]);
    let daemons = Daemons::new();
    let _daemon = daemons.start(&[]);
    let end = |end: &str, port: &str, packets: &str| {
        // On whatever processor.
        let words = [end, port, "1023", packets, "60", "64", "1"];
        daemons.with(Cmd::new(&program).args(words), "daemon")
    };
    // A sender asks netmapd once for the receivers of a switch, so they are there first.
    let mut receiver = end("sealed-rx", to, "100000").spawn();
    receiver.wait_for("ready", SOON);
    // It goes on until it is no longer needed, or killed.
    let mut sender = end("sealed-tx", from, "1000000000000").spawn();
    let received = receiver.wait(SOON).expect_success();
    assert_eq!(received.field("sealed"), Some(1), "{received}");
    assert!(sender.is_alive(), "the sender made a system call: {}", sender.stderr());
}

#[test]
fn a_busy_pipe_makes_no_system_call() {
    sealed_pair_works("netmap:busy{1", "netmap:busy}1");
}

#[test]
fn a_busy_switch_makes_no_system_call() {
    sealed_pair_works("vale3:a", "vale3:b");
}

/// A packet every 300 microseconds, which is longer than anybody looks for it before going to sleep.
fn sealed_sleepers_work(from: &str, to: &str) {
    const COUNT: &str = "1000";
    let program = compile_c(&workspace().join("benches/c/nm-pairs.c"), "nm-pairs", &[]);
    let daemons = Daemons::new();
    let _daemon = daemons.start(&[]);
    let end = |end: &str, port: &str| daemons.with(Cmd::new(&program).args([end, port, "1023", COUNT]), "daemon");
    let mut receiver = end("sealed-answer", to).spawn();
    receiver.wait_for("ready", SOON);
    let sent = end("sealed-call", from).timeout(SOON).run().expect_success();
    assert_eq!(sent.field("sealed"), Some(1), "{sent}");
    let received = receiver.wait(SOON).expect_success();
    assert_eq!(received.field("sealed"), Some(1), "{received}");
}

#[test]
fn a_pipe_whose_receiver_sleeps_makes_the_calls_that_sleep_and_wake_alone() {
    sealed_sleepers_work("netmap:drowsy{1", "netmap:drowsy}1");
}

#[test]
fn a_switch_whose_receiver_sleeps_makes_the_calls_that_sleep_and_wake_alone() {
    sealed_sleepers_work("vale4:a", "vale4:b");
}
