//! A busy pair makes no system call: two C programs under the preload, each in a process of its own, that have asked the
//! kernel to kill them at the first one.

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
