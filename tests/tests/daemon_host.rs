//! Host rings when netmapd is killed: a host goes on working through a program that has them, the next netmapd does not take
//! them from it, and serves whoever comes after.

use netmap_xdp_tests::{Cmd, Daemons, Pair, Running, Veth, needs_root, tool, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn at_a(pair: &Pair, daemons: &Daemons, name: &str, args: &[&str]) -> Cmd {
    daemons.with(pair.a.command(tool(name)).args(args), "daemon").env("NETMAP_XDP_LOG", "warn")
}

/// Carries the packets of host `a` between its NIC and itself.
fn bridge(pair: &Pair, daemons: &Daemons) -> Running {
    let args = ["-i", "netmap:veth0", "-i", "netmap:veth0^", "-w", "0"];
    let mut bridge = at_a(pair, daemons, "bridge", &args).spawn();
    bridge.wait_for(" <-> ", SOON);
    bridge
}

fn kill(mut running: Running) {
    running.signal(libc::SIGKILL);
    running.wait(SOON);
}

/// The host talks to the other, in both directions.
#[track_caller]
fn talks(pair: &Pair, when: &str) {
    for (end, to) in [(&pair.a, "10.59.0.2"), (&pair.b, "10.59.0.1")] {
        let done = end.command("ping").args(["-c", "3", "-i", "0.2", "-W", "2", to]).run();
        assert!(done.success(), "{when}: {done}");
    }
}

fn a_survivor_keeps_its_host_rings(mode: &str) {
    let pair = Veth::new().addresses("10.59.0.1/24", "10.59.0.2/24").build();
    let daemons = Daemons::new();
    let start = || daemons.start_with(&[], &[("NETMAP_XDP_MODE", mode)]);
    let first = start();
    let survivor = bridge(&pair, &daemons);
    talks(&pair, "through the bridge");
    kill(first);
    talks(&pair, "without netmapd");
    let second = start();
    let refused = at_a(&pair, &daemons, "pkt-gen", &["-i", "netmap:veth0^", "-f", "rx", "-n", "1", "-w", "0"]).run();
    assert!(!refused.success(), "two have the host rings: {refused}");
    for part in ["host rings", &format!("process {}", survivor.pid())] {
        assert!(refused.stderr.contains(part), "{part}: {refused}");
    }
    talks(&pair, "after somebody was refused");
    // To the host, everybody may send beside it.
    let beside = ["-i", "netmap:veth0^/T", "-f", "tx", "-n", "100", "-w", "0"];
    at_a(&pair, &daemons, "pkt-gen", &beside).run().expect_success();
    talks(&pair, "after somebody sent beside it");
    kill(survivor);
    talks(&pair, "without anybody");
    let next = bridge(&pair, &daemons);
    talks(&pair, "through the next bridge");
    kill(next);
    pair.assert_no_xdp();
    let devices = || pair.a.command("ip").args(["-o", "link"]).run().expect_success().stdout;
    assert!(wait_until(SOON, || !devices().contains("netmap")), "{}", devices());
    talks(&pair, "as before");
    kill(second);
}

#[test]
fn a_survivor_keeps_its_host_rings_in_native_mode() {
    needs_root!();
    a_survivor_keeps_its_host_rings("native");
}

#[test]
fn a_survivor_keeps_its_host_rings_in_generic_mode() {
    needs_root!();
    a_survivor_keeps_its_host_rings("generic");
}

#[test]
fn a_host_that_was_cut_off_by_a_dead_netmapd_is_heard_by_who_binds_its_rings_next() {
    needs_root!();
    let pair = Veth::new().addresses("10.59.0.1/24", "10.59.0.2/24").build();
    let daemons = Daemons::new();
    let first = daemons.start(&[]);
    // It has the NIC alone, so nothing of the host leaves.
    let mut survivor = at_a(&pair, &daemons, "pkt-gen", &["-i", "netmap:veth0", "-f", "rx", "-w", "0"]).spawn();
    survivor.wait_for("pps", SOON);
    kill(first);
    assert!(survivor.is_alive());
    let _second = daemons.start(&[]);
    let listener = ["-i", "netmap:veth0^", "-f", "rx", "-n", "3", "-w", "0"];
    let mut listener = at_a(&pair, &daemons, "pkt-gen", &listener).spawn();
    let heard = wait_until(SOON, || {
        pair.a.command("ping").args(["-c", "1", "-W", "1", "10.59.0.2"]).run();
        !listener.is_alive()
    });
    assert!(heard, "it hears nothing: {}", listener.stderr());
    listener.wait(SOON).expect_success();
    kill(survivor);
    assert!(wait_until(SOON, || pair.a.command("ping").args(["-c", "1", "-W", "1", "10.59.0.2"]).run().success()));
}
