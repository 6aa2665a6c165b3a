//! A busy pair makes no system call: two C programs under the preload, each in a process of its own, that have asked the
//! kernel to kill them at the first one. And what a packet costs, in instructions, has not grown.

use netmap_xdp_tests::{Cmd, Daemons, compile_c, skip, workspace};
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

/// Counted in an optimised build of its own: instructions of a debug build say nothing.
#[test]
fn a_packet_costs_no_more_instructions_than_its_budget() {
    if std::process::Command::new("valgrind").arg("--version").output().is_err() {
        skip!("valgrind is not installed: make deps");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let own = std::env::current_exe().expect("the path of this test");
    let target = own.ancestors().nth(3).expect("a test lies in target/PROFILE/deps");
    let build =
        Cmd::new(cargo).args(["build", "--profile", "count", "-p", "netmap-xdp-benches", "--locked", "--quiet"]);
    let build = build.arg("--target-dir").arg(target).arg("--manifest-path").arg(workspace().join("Cargo.toml"));
    build.timeout(Duration::from_secs(600)).run().expect_success();
    let count = Cmd::new(target.join("count/netmap-xdp-benches")).args(["instructions", "--check"]);
    print!("{}", count.timeout(Duration::from_secs(120)).run().expect_success().stdout);
}
