//! Offloads that would falsify received frames: off while a port is open, and on again whoever dies and how. VLAN tags.

mod nic_common;

use netmap_xdp_tests::{
    Cmd, Daemons, End, Namespace, Pair, Running, Veth, compile_c, needs_root, wait_until, workspace,
};
use nic_common::*;

const NAMES: [&str; 2] = ["generic-receive-offload", "rx-vlan-offload"];

/// Whether GRO and VLAN stripping are on.
fn offloads(end: &End) -> [bool; 2] {
    features(end.command("ethtool"), end.dev)
}

fn features(ethtool: Cmd, dev: &str) -> [bool; 2] {
    let all = ethtool.args(["-k", dev]).run().expect_success().stdout;
    NAMES.map(|name| all.lines().find(|l| l.starts_with(&format!("{name}:"))).is_some_and(|l| l.contains(": on")))
}

fn pair() -> Pair {
    let pair = Veth::new().build();
    pair.a.command("ethtool").args(["-K", "veth0", "gro", "on", "rxvlan", "on"]).run().expect_success();
    assert_eq!(offloads(&pair.a), [true; 2]);
    pair
}

fn holder(command: Cmd) -> Running {
    let mut running = command.args(["recv", "veth0"]).env("NETMAP_XDP_LOG", "warn").spawn();
    running.wait_for("ready", SOON);
    running
}

fn die(mut running: Running, signal: i32) {
    running.signal(signal);
    running.wait(SOON);
}

#[track_caller]
fn become_on(pair: &Pair) {
    assert!(wait_until(SOON, || offloads(&pair.a) == [true; 2]), "not restored: {:?}", offloads(&pair.a));
}

#[test]
fn a_program_that_ends_or_is_killed_leaves_offloads_as_they_were() {
    needs_root!();
    let program = compile_c(&workspace().join("tests/c/nic_mishap.c"), "nic_mishap_offloads", &[]);
    // In native mode frames come to us before they can be merged.
    for (mode, off) in [("generic", [false, false]), ("native", [true, false])] {
        let pair = pair();
        for signal in [libc::SIGTERM, libc::SIGKILL] {
            let embedded = pair.a.command(&program).preload().env("NETMAP_XDP_ENGINE", "embedded");
            let running = holder(embedded.env("NETMAP_XDP_MODE", mode));
            assert_eq!(offloads(&pair.a), off, "{mode}");
            die(running, signal);
            become_on(&pair);
        }
    }
}

#[test]
fn offloads_stay_off_for_a_program_that_outlives_netmapd_and_are_restored_after_it() {
    needs_root!();
    let program = compile_c(&workspace().join("tests/c/nic_mishap.c"), "nic_mishap_daemon", &[]);
    let (pair, daemons) = (pair(), Daemons::new());
    for kill_daemon in [false, true] {
        let daemon = daemons.start_with(&[], &[("NETMAP_XDP_MODE", "generic")]);
        let running = holder(daemons.with(pair.a.command(&program), "daemon"));
        assert_eq!(offloads(&pair.a), [false; 2]);
        if kill_daemon {
            die(daemon, libc::SIGKILL);
            let restored = wait_until(SECOND, || offloads(&pair.a) != [false; 2]);
            assert!(!restored, "the program still needs them off");
        }
        die(running, libc::SIGKILL);
        become_on(&pair);
    }
}

#[test]
fn offloads_of_an_interface_that_was_moved_are_restored_where_it_is_now() {
    needs_root!();
    let program = compile_c(&workspace().join("tests/c/nic_mishap.c"), "nic_mishap_moved", &[]);
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        // In both of the others the interface gets another index.
        let (pair, first, second) = (pair(), Namespace::new(), Namespace::new());
        for ns in [&first, &second] {
            let taken = ["link", "add", "taken", "type", "veth", "peer", "name", "too"];
            Cmd::new("ip").args(["-n", ns.name()]).args(taken).run().expect_success();
        }
        let embedded = pair.a.command(&program).preload().env("NETMAP_XDP_ENGINE", "embedded");
        let mut running = holder(embedded.env("NETMAP_XDP_MODE", "generic"));
        assert_eq!(offloads(&pair.a), [false; 2]);
        // It would give its port up after the first move.
        running.signal(libc::SIGSTOP);
        pair.a.set(&["netns", first.name()]);
        // Whoever restores them follows, and is to see the next move from there.
        let followed = || !Cmd::new("ip").args(["netns", "pids", first.name()]).run().stdout.is_empty();
        assert!(wait_until(SOON, followed), "nobody follows");
        Cmd::new("ip")
            .args(["-n", first.name(), "link", "set", "veth0", "netns", second.name()])
            .run()
            .expect_success();
        let moved = || features(second.command("ethtool"), "veth0");
        assert_eq!(moved(), [false; 2]);
        running.signal(libc::SIGCONT);
        die(running, signal);
        assert!(wait_until(SOON, || moved() == [true; 2]), "not restored: {:?}", moved());
    }
}

/// Frames with a VLAN tag, as a trunk carries them.
fn trunk() {
    let pair = Veth::new().build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    let mut tagged = frames(100, 60, 1500);
    tagged.iter_mut().for_each(|f| drop(f.splice(12..12, [0x81, 0, 0x60, 5])));
    carry(&mut a, 0, &mut b, 0, &tagged);
    carry(&mut b, 0, &mut a, 0, &tagged);
}

#[test]
fn vlan_tags_arrive_with_their_frames_in_native_mode() {
    alone!("NETMAP_XDP_MODE" = "native");
    trunk();
}

#[test]
fn vlan_tags_arrive_with_their_frames_in_generic_mode() {
    alone!("NETMAP_XDP_MODE" = "generic");
    trunk();
}
