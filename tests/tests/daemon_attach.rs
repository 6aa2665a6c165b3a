//! Attaching to switches through netmapd: what is attached outlives the program that asked, belongs to the namespace that it
//! was asked from, and leaves nothing on the interface whoever dies.

use netmap_xdp_tests::{Cmd, Daemons, Finished, Pair, Running, Veth, c_program, needs_root, tool, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// A place for a daemon that says where it is.
fn with(daemons: &Daemons, command: Cmd, engine: &str) -> Cmd {
    let command = command.env("NETMAP_XDP_ENGINE", engine).env("NETMAP_XDP_SOCKET", daemons.socket());
    command.env("NETMAP_XDP_DAEMON", tool("netmapd"))
}

/// `vale-ctl` in the namespace of end `a`.
fn vale_ctl(pair: &Pair, daemons: &Daemons, args: &[&str]) -> Finished {
    with(daemons, pair.a.command(tool("vale-ctl")).args(args), "daemon").run()
}

fn done(pair: &Pair, daemons: &Daemons, args: &[&str]) -> String {
    vale_ctl(pair, daemons, args).expect_success().stdout
}

/// A C example on a port, at either end, once the port is open.
fn start(pair: &Pair, daemons: &Daemons, program: &str, port: &str, more: &[&str]) -> Running {
    let end = if port.ends_with("veth1") { &pair.b } else { &pair.a };
    let command = end.command(c_program(program)).args(["-i", port, "-V"]).args(more);
    let mut running = daemons.with(command, "daemon").spawn();
    running.wait_for("ready", SOON);
    running
}

/// Frames from one port to another, all of them whole and in order.
fn passes(pair: &Pair, daemons: &Daemons, from: &str, to: &str) {
    let there = start(pair, daemons, "nm-recv", to, &["-n", "2000"]);
    let sent = start(pair, daemons, "nm-send", from, &["-n", "2000", "-R", "10000", "-l", "60,1514"]);
    sent.wait(SOON).expect_success();
    let got = there.wait(SOON).expect_success();
    assert_eq!((got.field("received"), got.field("lost")), (Some(2000), Some(0)), "{got}");
}

fn kill(mut running: Running) {
    running.signal(libc::SIGKILL);
    running.wait(SOON);
}

#[test]
fn a_nic_stays_attached_until_another_process_detaches_it() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let daemon = daemons.start(&[]);
    assert_eq!(done(&pair, &daemons, &["-v", "-a", "vale0:veth0"]), "port_index: 0\n");
    assert_eq!(done(&pair, &daemons, &[]), "vale0:veth0 bridge_idx 0 port_idx 0\n");
    assert!(pair.a.xdp().is_some());
    passes(&pair, &daemons, "vale0:p", "netmap:veth1");
    passes(&pair, &daemons, "netmap:veth1", "vale0:p");
    assert!(done(&pair, &daemons, &["-g", "vale0:veth0"]).contains("tx_rings:   1\n"));
    // Names count where they are said.
    let elsewhere = with(&daemons, pair.b.command(tool("vale-ctl")), "daemon").run().expect_success();
    assert_eq!(elsewhere.stdout, "");
    assert_eq!(done(&pair, &daemons, &["-v", "-d", "vale0:veth0"]), "port_index: 0\n");
    pair.assert_no_xdp();
    assert_eq!(done(&pair, &daemons, &[]), "");
    assert!(daemon.stderr().contains("listens"));
}

#[test]
fn a_nic_receives_what_is_for_others_while_it_is_attached() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let daemon = daemons.start(&[]);
    done(&pair, &daemons, &["-a", "vale0:veth0"]);
    assert_eq!(pair.a.promiscuity(), 1);
    done(&pair, &daemons, &["-d", "vale0:veth0"]);
    assert_eq!(pair.a.promiscuity(), 0);
    done(&pair, &daemons, &["-a", "vale0:veth0"]);
    assert_eq!(pair.a.promiscuity(), 1);
    kill(daemon);
    assert!(wait_until(SOON, || pair.a.promiscuity() == 0), "the dead still listens");
}

#[test]
fn a_nic_that_a_program_binds_receives_what_is_for_others_only_by_setting() {
    needs_root!();
    let pair = Veth::new().build();
    for (setting, want) in [("auto", 0), ("on", 1), ("off", 0)] {
        let command = pair.a.command(tool("pkt-gen")).env("NETMAP_XDP_ENGINE", "embedded");
        let command = command.env("NETMAP_XDP_PROMISC", setting).args(["-i", "netmap:veth0", "-f", "rx", "-w", "0"]);
        let holder = command.spawn();
        pair.a.wait_xdp(SOON);
        assert!(wait_until(SOON, || pair.a.promiscuity() == want), "{setting}");
        kill(holder);
        assert!(wait_until(SOON, || pair.a.promiscuity() == 0), "{setting}: the dead still listens");
        pair.a.assert_no_xdp();
    }
}

#[test]
fn attaching_again_and_again_leaves_no_descriptor_behind() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let daemon = daemons.start(&[]);
    let files = || netmap_xdp_tests::open_files(daemon.pid());
    let first = files();
    for _ in 0..4 {
        done(&pair, &daemons, &["-h", "vale0:veth0"]);
        done(&pair, &daemons, &["-d", "vale0:veth0"]);
    }
    // The connection of the last one may take a moment to go.
    assert!(wait_until(SOON, || files() <= first), "{first} files at first, then {}", files());
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().count();
    assert_eq!(tasks, 1, "threads");
}

#[test]
fn a_daemon_that_was_started_for_it_stays_as_long_as_something_is_attached_or_persistent() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let _daemon = daemons.start(&["--idle-exit", "1"]);
    done(&pair, &daemons, &["-a", "vale0:veth0"]);
    done(&pair, &daemons, &["-n", "stays"]);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(daemons.pids().len(), 1, "it has something to serve");
    done(&pair, &daemons, &["-d", "vale0:veth0"]);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(daemons.pids().len(), 1, "a persistent port would be lost");
    done(&pair, &daemons, &["-r", "stays"]);
    assert!(wait_until(SOON, || daemons.pids().is_empty()), "nothing keeps it");
}

#[test]
fn a_killed_daemon_leaves_nothing_on_the_interface_and_its_clients_go_on() {
    needs_root!();
    let (pair, daemons) = (Veth::new().addresses("10.57.0.1/24", "10.57.0.2/24").build(), Daemons::new());
    let daemon = daemons.start(&[]);
    done(&pair, &daemons, &["-h", "vale0:veth0"]);
    let mut there = start(&pair, &daemons, "nm-recv", "vale0:r", &["-n", "20000"]);
    let sender = start(&pair, &daemons, "nm-send", "vale0:s", &["-n", "20000", "-R", "10000"]);
    // They have met.
    there.wait_for("per second", SOON);
    kill(daemon);
    pair.a.assert_no_xdp();
    let devices = pair.a.command("ip").args(["-o", "link"]).run().expect_success().stdout;
    assert!(!devices.contains("netmap"), "{devices}");
    sender.wait(SOON).expect_success();
    let got = there.wait(SOON).expect_success();
    assert_eq!((got.field("received"), got.field("lost")), (Some(20_000), Some(0)), "{got}");
    let ping = || pair.b.command("ping").args(["-c", "1", "-W", "1", "10.57.0.1"]).run().success();
    assert!(wait_until(SOON, ping), "the stack does not answer");
    let _next = daemons.start(&[]);
    done(&pair, &daemons, &["-a", "vale0:veth0"]);
    passes(&pair, &daemons, "netmap:veth1", "vale0:p");
}

#[test]
fn a_daemon_that_dies_with_packets_in_its_hands_blocks_nobody() {
    needs_root!();
    let rounds = std::env::var("NMX_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    for round in 0..rounds {
        let (pair, daemons) = (Veth::new().build(), Daemons::new());
        let daemon = daemons.start(&[]);
        done(&pair, &daemons, &["-a", "vale0:veth0"]);
        let there = start(&pair, &daemons, "nm-recv", "vale0:r", &["-T", "20"]);
        let _sender = start(&pair, &daemons, "nm-send", "vale0:s", &["-R", "2000", "-T", "20"]);
        let _flood = start(&pair, &daemons, "nm-send", "netmap:veth1", &["-T", "20"]);
        let reports = || -> Vec<u64> {
            let text = there.stdout() + &there.stderr();
            let rate = |line: &str| line.split(" frames, ").nth(1)?.split(' ').next()?.parse().ok();
            text.lines().filter_map(rate).collect()
        };
        assert!(wait_until(SOON, || !reports().is_empty()), "nothing arrives");
        kill(daemon);
        let before = reports().len();
        // The one of the second in which it died, and whole ones after it.
        assert!(wait_until(SOON, || reports().len() > before + 2), "round {round}: {:?}", reports());
        let after = &reports()[before + 1..];
        assert!(after.iter().all(|&rate| rate > 0), "round {round}: {after:?}");
    }
}

#[test]
fn an_orderly_end_of_the_daemon_puts_the_interface_back_as_it_was() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let gro = || pair.a.command("ethtool").args(["-k", "veth0"]).run().expect_success().stdout;
    pair.a.command("ethtool").args(["-K", "veth0", "gro", "on"]).run().expect_success();
    let before = gro();
    let mut daemon = daemons.start(&[]);
    done(&pair, &daemons, &["-h", "vale0:veth0"]);
    daemon.signal(libc::SIGTERM);
    daemon.wait(SOON).expect_success();
    pair.a.assert_no_xdp();
    assert_eq!(gro(), before);
}

#[test]
fn an_interface_that_vanishes_is_detached_without_anybody_asking() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let mut daemon = daemons.start(&[]);
    done(&pair, &daemons, &["-a", "vale0:veth0"]);
    let fds = netmap_xdp_tests::open_files(daemon.pid());
    pair.a.command("ip").args(["link", "del", "dev", "veth0"]).run().expect_success();
    daemon.wait_for("detached", SOON);
    assert!(wait_until(SOON, || netmap_xdp_tests::open_files(daemon.pid()) < fds), "its sockets are still open");
    assert_eq!(done(&pair, &daemons, &[]), "");
}

#[test]
fn an_interface_that_is_down_starts_when_it_comes_up() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let _daemon = daemons.start(&[]);
    pair.a.set(&["down"]);
    done(&pair, &daemons, &["-a", "vale0:veth0"]);
    pair.a.set(&["up"]);
    // Where the kernel does not bind to an interface that is down, the daemon does so a moment after.
    let one = || {
        let there = start(&pair, &daemons, "nm-recv", "netmap:veth1", &["-n", "1", "-T", "4"]);
        start(&pair, &daemons, "nm-send", "vale0:p", &["-n", "50", "-R", "100"]).wait(SOON);
        there.wait(SOON).field("received") == Some(1)
    };
    assert!(wait_until(3 * SOON, one), "nothing passes");
    passes(&pair, &daemons, "vale0:p", "netmap:veth1");
}

#[test]
fn who_may_attach_an_interface_is_who_may_bind_it() {
    needs_root!();
    if !Cmd::new("sh").args(["-c", "command -v setpriv"]).run().success() {
        netmap_xdp_tests::skip!("needs setpriv");
    }
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let file = daemons.dir().join("netmapd.conf");
    std::fs::write(&file, "allow = user:60001 veth0\nallow = user:60002 software\n").unwrap();
    let daemon = daemons.start(&["--config", &file.to_string_lossy()]);
    // The artefacts may lie where other users cannot look.
    let program = daemons.dir().join("vale-ctl");
    std::fs::copy(tool("vale-ctl"), &program).unwrap();
    let as_user = |uid: &str, args: &[&str]| {
        let command = pair.a.command("setpriv").args(["--reuid", uid, "--regid", uid, "--clear-groups"]);
        with(&daemons, command.arg(&program).args(args), "daemon").run()
    };
    let refused = as_user("60002", &["-a", "vale0:veth0"]);
    assert!(!refused.success() && refused.stderr.contains("user 60002 may not bind veth0"), "{refused}");
    as_user("60001", &["-a", "vale0:veth0"]).expect_success();
    let refused = as_user("60002", &["-d", "vale0:veth0"]);
    assert!(!refused.success() && refused.stderr.contains("may not"), "{refused}");
    as_user("60001", &["-d", "vale0:veth0"]).expect_success();
    assert!(daemon.stderr().contains("user 60002, process"));
    pair.assert_no_xdp();
}
