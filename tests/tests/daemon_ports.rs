//! NIC ports through netmapd: who shares, who is refused, who keeps what alive, and what death leaves behind.

use netmap_xdp::sys::netdev::bpf;
use netmap_xdp_tests::{
    Cmd, Daemons, Namespace, Pair, Running, Veth, compile_c, needs_root, open_files, since, wait_until, workspace,
};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn fds() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile_c(&workspace().join("tests/c/daemon_fds.c"), "daemon_fds", &[]))
}

/// `daemon_fds` in the namespace of end `a`, with a daemon that somebody started.
fn at_a(pair: &Pair, daemons: &Daemons, args: &[&str]) -> Cmd {
    daemons.with(pair.a.command(fds()).args(args), "daemon")
}

fn holder(pair: &Pair, daemons: &Daemons, args: &[&str]) -> Running {
    let mut running = at_a(pair, daemons, args).spawn();
    running.wait_for("bound", SOON);
    running
}

/// Kills, and returns when it is dead.
fn kill(mut running: Running) {
    running.signal(libc::SIGKILL);
    running.wait(SOON);
}

fn exclusive(pair: &Pair, daemons: &Daemons) -> i32 {
    at_a(pair, daemons, &["exclusive", "veth0"]).run().status.code().expect("it exits")
}

#[test]
fn a_port_lives_as_long_as_any_copy_of_its_descriptor() {
    needs_root!();
    since!((6, 4), "two processes on a queue");
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let daemon = daemons.start(&[]);
    let run = at_a(&pair, &daemons, &["lifetimes", "veth0"]).timeout(Duration::from_secs(60)).run().expect_success();
    assert_eq!(run.field("all"), Some(1));
    pair.assert_no_xdp();
    assert!(daemon.stderr().contains("listens"));
}

#[test]
fn a_port_is_shared_between_processes_or_had_alone() {
    needs_root!();
    since!((6, 4), "two processes on a queue");
    let (pair, daemons) = (Veth::new().queues(2).build(), Daemons::new());
    let _daemon = daemons.start(&[]);
    let first = holder(&pair, &daemons, &["hold", "veth0"]);
    let second = holder(&pair, &daemons, &["hold", "veth0"]);
    let third = holder(&pair, &daemons, &["hold", "veth0", "1"]);
    assert_eq!(exclusive(&pair, &daemons), libc::EBUSY);
    kill(first);
    kill(second);
    assert_eq!(exclusive(&pair, &daemons), libc::EBUSY, "one ring is bound");
    kill(third);
    assert_eq!(exclusive(&pair, &daemons), 0);
    pair.assert_no_xdp();
}

#[test]
fn two_processes_on_one_port_see_the_same_rings() {
    needs_root!();
    since!((6, 4), "two processes on a queue");
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let _daemon = daemons.start(&[]);
    let mut first = at_a(&pair, &daemons, &["mark", "veth0"]).spawn();
    first.wait_for("marked", SOON);
    let second = at_a(&pair, &daemons, &["read", "veth0"]).run().expect_success();
    assert_eq!(second.field("mark"), Some(12345));
}

#[test]
fn the_same_name_in_three_namespaces_is_three_ports() {
    needs_root!();
    let daemons = Daemons::new();
    let _daemon = daemons.start(&[]);
    let pairs: Vec<Pair> = (0..3).map(|_| Veth::new().build()).collect();
    let holders: Vec<Running> = pairs.iter().map(|pair| holder(pair, &daemons, &["hold", "veth0"])).collect();
    for pair in &pairs {
        assert!(pair.a.xdp().is_some());
        assert_eq!(exclusive(pair, &daemons), libc::EBUSY);
    }
    let mut holders = holders.into_iter();
    kill(holders.next().unwrap());
    assert_eq!(exclusive(&pairs[0], &daemons), 0);
    assert_eq!(exclusive(&pairs[1], &daemons), libc::EBUSY, "the others are as they were");
    let other = Namespace::new();
    let none = daemons.with(other.command(fds()).args(["exclusive", "veth0"]), "daemon").run();
    assert_eq!(none.status.code(), Some(libc::ENXIO), "{none}");
}

#[test]
fn packets_pass_between_two_processes_of_one_daemon() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let _daemon = daemons.start(&[]);
    let args = |program, dev: &str, more: &[&str]| {
        let program = netmap_xdp_tests::c_program(program);
        let end = if dev == "veth0" { &pair.a } else { &pair.b };
        let port = format!("netmap:{dev}");
        daemons.with(end.command(program).args(["-i", &port]).args(more), "daemon")
    };
    let mut receiver = args("nm-recv", "veth1", &["-V", "-n", "2000"]).spawn();
    receiver.wait_for("ready", SOON);
    args("nm-send", "veth0", &["-V", "-n", "2000", "-R", "5000"]).run().expect_success();
    assert_eq!(receiver.wait(SOON).expect_success().field("received"), Some(2000));
    assert!(wait_until(SOON, || pair.a.xdp().is_none() && pair.b.xdp().is_none()));
}

#[test]
fn who_may_bind_is_decided_by_user_and_group() {
    needs_root!();
    if !Cmd::new("sh").args(["-c", "command -v setpriv"]).run().success() {
        netmap_xdp_tests::skip!("needs setpriv");
    }
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let file = daemons.dir().join("netmapd.conf");
    std::fs::write(&file, "allow = user:60001 veth*\nallow = user:60002 eth7 software\n").unwrap();
    let daemon = daemons.start(&["--config", &file.to_string_lossy(), "--group", "60100"]);
    // The artefacts may lie where other users cannot look.
    let copy = |from: &Path| {
        let to = daemons.dir().join(from.file_name().expect("a file"));
        std::fs::copy(from, &to).unwrap();
        to
    };
    let (program, library) = (copy(fds()), copy(&netmap_xdp_tests::cdylib()));
    let as_user = |uid: &str, groups: &str| {
        let command = pair.a.command("setpriv").args(["--reuid", uid, "--regid", uid, groups, "env"]);
        let command = command.arg(format!("LD_PRELOAD={}", library.display()));
        let command = command.arg(format!("NETMAP_XDP_SOCKET={}", daemons.socket().display()));
        command.arg("NETMAP_XDP_ENGINE=daemon").arg(&program).args(["exclusive", "veth0"]).run()
    };
    let stranger = as_user("60000", "--clear-groups");
    assert_eq!(stranger.status.code(), Some(libc::EPERM), "{stranger}");
    assert!(stranger.stderr.contains("user 60000 may not bind veth0"), "{stranger}");
    assert_eq!(as_user("60002", "--clear-groups").status.code(), Some(libc::EPERM), "another interface");
    let named = as_user("60001", "--clear-groups");
    assert_eq!(named.status.code(), Some(0), "{named}");
    let member = as_user("60003", "--groups=60100");
    assert_eq!(member.status.code(), Some(0), "{member}");
    let log = daemon.stderr();
    assert!(log.contains("user 60000, process") && log.contains("may not bind veth0"), "{log}");
    assert!(!log.contains("user 60001"), "{log}");
}

#[test]
fn a_thousand_deaths_leave_no_descriptor_no_port_and_no_locked_ring() {
    needs_root!();
    since!((6, 4), "two processes on a queue");
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let daemon = daemons.start(&[]);
    let churn = |n: &str| {
        let run = at_a(&pair, &daemons, &["churn", "veth0", n]).timeout(Duration::from_secs(200)).run();
        run.expect_success();
    };
    churn("100");
    assert_eq!(exclusive(&pair, &daemons), 0);
    pair.assert_no_xdp();
    let alone = open_files(daemon.pid());

    // With somebody who stays: those who are killed hold the lock of a ring now and then.
    let mut there = at_a(&pair, &daemons, &["stay", "veth0", "100"]).spawn();
    there.wait_for("bound", SOON);
    churn("900");
    let sent = last(&there, "sent=");
    assert!(wait_until(SOON, || last(&there, "sent=") > sent + 100), "{}{}", there.stdout(), daemon.stderr());
    kill(there);
    assert_eq!(exclusive(&pair, &daemons), 0);
    assert!(wait_until(SOON, || open_files(daemon.pid()) <= alone), "{} descriptors", open_files(daemon.pid()));
    pair.assert_no_xdp();
}

/// The last number after `field` that a program has printed.
fn last(running: &Running, field: &str) -> u64 {
    let text = running.stdout();
    let number = text.rsplit(field).next().unwrap_or_default().split_whitespace().next().unwrap_or_default();
    number.parse().unwrap_or(0)
}

#[test]
fn traffic_goes_on_when_netmapd_is_killed_and_the_next_one_serves() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let daemon = daemons.start(&[]);
    let mut there = at_a(&pair, &daemons, &["stay", "veth0", "6"]).spawn();
    there.wait_for("bound", SOON);
    let at_b = |args: &[&str]| daemons.with(pair.b.command(fds()).args(args), "daemon");
    let mut peer = at_b(&["stay", "veth1", "6"]).spawn();
    peer.wait_for("received=1", SOON);
    kill(daemon);
    let last = |running: &Running| last(running, "received=");
    let (a, b) = (last(&there), last(&peer));
    assert!(wait_until(SOON, || last(&there) > a + 100 && last(&peer) > b + 100), "traffic stopped");

    let _next = daemons.start(&[]);
    let other = Veth::new().build();
    assert_eq!(exclusive(&other, &daemons), 0, "the next one serves");
    assert_ne!(exclusive(&pair, &daemons), 0, "a port of the dead one is busy, and not taken away");
    let (a, b) = (last(&there), last(&peer));
    assert!(wait_until(SOON, || last(&there) > a + 100 && last(&peer) > b + 100), "traffic stopped");
    there.wait(SOON).expect_success();
    peer.wait(SOON).expect_success();
    // The kernel takes some time to free the queues.
    assert!(wait_until(SOON, || exclusive(&pair, &daemons) == 0));
    pair.assert_no_xdp();
}

#[test]
fn other_queues_of_an_interface_are_served_while_a_survivor_has_its_own() {
    needs_root!();
    other_queues_are_served_while_a_survivor_has_its_own(&[], "netmap_redirect");
}

#[test]
fn the_same_with_a_program_that_asks_the_nic_for_times() {
    needs_root!();
    since!((6, 3), "times of drivers");
    let settings = [("NETMAP_XDP_TIMESTAMPS", "hardware"), ("NETMAP_XDP_MODE", "native")];
    other_queues_are_served_while_a_survivor_has_its_own(&settings, "netmap_stamped");
}

fn other_queues_are_served_while_a_survivor_has_its_own(settings: &[(&str, &str)], name: &str) {
    let (pair, daemons) = (Veth::new().queues(2).build(), Daemons::new());
    let daemon = daemons.start_with(&[], settings);
    let survivor = holder(&pair, &daemons, &["hold", "veth0", "0"]);
    let program = pair.a.wait_xdp(SOON);
    assert_eq!(bpf::program_name(program.id).as_deref(), Some(name));
    kill(daemon);
    let _next = daemons.start_with(&[], settings);
    // Packets of queue 1 arrive by the program that was there.
    let at = |end: &netmap_xdp_tests::End, program, port, more: &[&str]| {
        let program = netmap_xdp_tests::c_program(program);
        daemons.with(end.command(program).args(["-i", port, "-V", "-n", "500"]).args(more), "daemon")
    };
    let mut receiver = at(&pair.a, "nm-recv", "netmap:veth0-1", &[]).spawn();
    receiver.wait_for("ready", SOON);
    at(&pair.b, "nm-send", "netmap:veth1-1", &["-R", "10000"]).run().expect_success();
    assert_eq!(receiver.wait(SOON).expect_success().field("received"), Some(500));
    assert_eq!(pair.a.xdp(), Some(program), "the survivor's program stays");
    let refused = at_a(&pair, &daemons, &["hold", "veth0", "0"]).run();
    assert!(!refused.success(), "{refused}");
    for part in ["queue 0", &format!("process {}", survivor.pid()), "daemon_fds"] {
        assert!(refused.stderr.contains(part), "{part} is not in {refused}");
    }
    kill(survivor);
    assert!(wait_until(SOON, || exclusive(&pair, &daemons) == 0), "it let go");
    pair.assert_no_xdp();
}

#[test]
fn an_interface_that_another_engine_drives_is_refused_with_its_name() {
    needs_root!();
    let (pair, daemons) = (Veth::new().queues(2).build(), Daemons::new());
    let _daemon = daemons.start(&[]);
    let mut alone = daemons.with(pair.a.command(fds()).args(["hold", "veth0", "0"]), "embedded").spawn();
    alone.wait_for("bound", SOON);
    let refused = at_a(&pair, &daemons, &["hold", "veth0", "1"]).run();
    for part in [&format!("process {}", alone.pid()), "another engine"] {
        assert!(refused.stderr.contains(part), "{part} is not in {refused}");
    }
}

#[test]
fn an_unbound_descriptor_outlives_its_daemon() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let daemon = daemons.start(&[]);
    let mut late = at_a(&pair, &daemons, &["late", "veth0"]).spawn();
    late.wait_for("open", SOON);
    kill(daemon);
    let _next = daemons.start(&[]);
    late.signal(libc::SIGUSR1);
    late.wait(SOON).expect_success();
    assert_eq!(exclusive(&pair, &daemons), 0);
}

#[test]
fn the_rust_api_meets_other_processes_too() {
    needs_root!();
    since!((6, 4), "two processes on a queue");
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let _daemon = daemons.start(&[]);
    let me = std::env::current_exe().unwrap();
    let mut api = pair.a.command(me).args(["--exact", "the_api_child", "--nocapture"]);
    api = api.env("NMX_API_CHILD", "veth0").env("NETMAP_XDP_ENGINE", "daemon");
    let mut api = api.env("NETMAP_XDP_SOCKET", daemons.socket()).spawn();
    api.wait_for("api bound", SOON);
    assert_eq!(exclusive(&pair, &daemons), libc::EBUSY);
    holder(&pair, &daemons, &["hold", "veth0"]);
    api.wait(SOON).expect_success();
    assert_eq!(exclusive(&pair, &daemons), 0);
}

/// The other half of [`the_rust_api_meets_other_processes_too`]; on its own it does nothing.
#[test]
fn the_api_child() {
    let Ok(dev) = std::env::var("NMX_API_CHILD") else { return };
    use netmap_xdp::api::{Interest, Port};
    let mut port = Port::open(&format!("netmap:{dev}")).unwrap();
    port.tx(0).advance(0);
    assert!(port.wait(Interest::WRITE, Some(SOON)).unwrap().write);
    println!("api bound");
    std::thread::sleep(Duration::from_secs(1));
    drop(port);
    // A dropped port is free for who comes next, in this process too.
    netmap_xdp::api::Builder::new(&format!("netmap:{dev}"))
        .exclusive()
        .open()
        .map(drop)
        .unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn an_interface_that_is_down_starts_when_it_comes_up() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let _daemon = daemons.start(&[]);
    pair.a.set(&["down"]);
    let mut there = at_a(&pair, &daemons, &["stay", "veth0", "20"]).spawn();
    there.wait_for("sent=", SOON);
    std::thread::sleep(Duration::from_millis(300));
    pair.a.set(&["up"]);
    // More than the ring holds: something takes it.
    assert!(wait_until(SOON, || last(&there, "sent=") > 2048), "{}", there.stdout());
}

#[test]
fn auto_starts_a_daemon_that_serves_several_programs() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let auto = |args: &[&str]| daemons.with(pair.a.command(fds()).args(args), "auto");
    let mut holder = auto(&["hold", "veth0"]).spawn();
    holder.wait_for("bound", SOON);
    assert_eq!(auto(&["exclusive", "veth0"]).run().status.code(), Some(libc::EBUSY));
    assert_eq!(daemons.pids().len(), 1);
}

#[test]
fn buffers_are_as_many_as_the_daemon_was_told() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let daemon = daemons.start(&["--buffers", "1000"]);
    let few = at_a(&pair, &daemons, &["exclusive", "veth0"]).run();
    assert_eq!(few.status.code(), Some(libc::ENOMEM), "{few}");
    assert!(few.stderr.contains("NETMAP_XDP_BUFFERS"), "{few}");
    kill(daemon);
    let _more = daemons.start(&["--buffers", "5000"]);
    assert_eq!(exclusive(&pair, &daemons), 0);
}
