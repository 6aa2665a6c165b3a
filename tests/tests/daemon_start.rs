//! netmapd starts, once, and ends; whoever cannot have it is told. No rights are needed here, and no NIC.

use netmap_xdp_tests::{Cmd, Daemons, Running, cdylib, compile_c, needs_root, tool, wait_until, workspace};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Opens `/dev/netmap`, says so, and waits to be killed.
fn opener() -> PathBuf {
    compile_c(&workspace().join("tests/c/daemon_open.c"), "daemon_open", &[])
}

#[test]
fn many_programs_that_start_at_once_meet_in_one_daemon() {
    let daemons = Daemons::new();
    let opener = opener();
    let mut all: Vec<Running> = (0..24).map(|_| daemons.with(Cmd::new(&opener), "auto").spawn()).collect();
    for program in &mut all {
        program.wait_for("open", SOON);
    }
    assert_eq!(daemons.pids().len(), 1, "{}", daemons.log());
    assert_eq!(daemons.log().matches("listens").count(), 1, "{}", daemons.log());
    let daemon = daemons.pids()[0];
    for name in ["LD_PRELOAD", "NETMAP_XDP_ENGINE"] {
        let environ = std::fs::read(format!("/proc/{daemon}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&environ).contains(name), "{name} reached the daemon");
    }
    // Nobody's child, no descriptor of a program's, no terminal.
    let stat = std::fs::read_to_string(format!("/proc/{daemon}/stat")).unwrap();
    let parent: u32 = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(all.iter().all(|p| p.pid() != parent));
    assert_eq!(std::fs::read_link(format!("/proc/{daemon}/cwd")).unwrap(), PathBuf::from("/"));
    let pipes = std::fs::read_dir(format!("/proc/{daemon}/fd")).unwrap().flatten();
    let pipes = pipes.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|t| t.to_string_lossy().starts_with("pipe")));
    assert_eq!(pipes.count(), 0);
}

#[test]
fn netmapd_is_the_engine_unless_the_environment_says_otherwise() {
    let daemons = Daemons::new();
    let path = |name: &str, path: PathBuf| format!("{name}={}", path.display());
    // What cargo sets for the tests is taken back.
    let mut program = Cmd::new("env")
        .args(["-u", "NETMAP_XDP_ENGINE"])
        .arg(path("NETMAP_XDP_SOCKET", daemons.socket()))
        .arg(path("NETMAP_XDP_DAEMON", tool("netmapd")))
        .arg(path("LD_PRELOAD", cdylib()))
        .arg(opener())
        .spawn();
    program.wait_for("open", SOON);
    assert_eq!(daemons.pids().len(), 1, "{}", daemons.log());
}

#[test]
fn a_daemon_that_was_killed_is_replaced_at_the_next_request() {
    let daemons = Daemons::new();
    let mut first = daemons.with(Cmd::new(opener()), "auto").spawn();
    first.wait_for("open", SOON);
    let killed = daemons.pids();
    // SAFETY: kill takes integers; this test's program started it.
    unsafe { libc::kill(killed[0] as i32, libc::SIGKILL) };
    assert!(wait_until(SOON, || daemons.pids().is_empty()));
    assert!(std::fs::metadata(daemons.socket()).unwrap().file_type().is_socket(), "a stale socket lies there");
    let mut second = daemons.with(Cmd::new(opener()), "auto").spawn();
    second.wait_for("open", SOON);
    assert_eq!(daemons.pids().len(), 1);
    assert_ne!(daemons.pids(), killed);
    // The first one reconnects.
    first.signal(libc::SIGUSR1);
    first.wait_for("again", SOON);
}

#[test]
fn without_a_daemon_the_message_says_what_to_do() {
    let daemons = Daemons::new();
    let refused = daemons.with(Cmd::new(opener()), "daemon").run();
    assert_eq!(refused.status.code(), Some(libc::ENXIO), "{refused}");
    let words = ["netmapd", "nobody answers", "NETMAP_XDP_ENGINE=embedded"];
    assert!(words.iter().all(|w| refused.stderr.contains(w)), "{refused}");
    assert!(daemons.pids().is_empty());

    let missing = daemons.with(Cmd::new(opener()), "auto").env("NETMAP_XDP_DAEMON", "/nonexistent/netmapd").run();
    assert_eq!(missing.status.code(), Some(libc::ENXIO), "{missing}");
    assert!(missing.stderr.contains("/nonexistent/netmapd") && missing.stderr.contains("embedded"), "{missing}");

    let broken = daemons.with(Cmd::new(opener()), "auto").env("NETMAP_XDP_DAEMON", "/bin/false").run();
    assert_eq!(broken.status.code(), Some(libc::ENXIO), "{broken}");
    assert!(broken.stderr.contains("ends as soon as it is started"), "{broken}");

    let embedded = daemons.with(Cmd::new(opener()), "embedded").arg("once").run();
    embedded.expect_success();
    assert!(daemons.pids().is_empty());
}

#[test]
fn a_second_daemon_on_the_same_socket_refuses_to_start() {
    let daemons = Daemons::new();
    let mut first = daemons.start(&[]);
    let second = Cmd::new(tool("netmapd")).args(["--foreground", "--socket"]).arg(daemons.socket()).run();
    assert!(!second.success() && second.stderr.contains("runs on"), "{second}");
    daemons.with(Cmd::new(opener()), "daemon").arg("once").run().expect_success();
    first.signal(libc::SIGTERM);
    let ended = first.wait(SOON).expect_success();
    assert!(ended.stderr.contains("ends"), "{ended}");
    assert!(!daemons.socket().exists());
}

#[test]
fn it_goes_to_the_background_and_ends_when_idle() {
    let daemons = Daemons::new();
    let start = Cmd::new(tool("netmapd")).arg("--socket").arg(daemons.socket()).args(["--idle-exit", "1"]);
    start.run().expect_success();
    assert_eq!(daemons.pids().len(), 1);
    let mut user = daemons.with(Cmd::new(opener()), "daemon").spawn();
    user.wait_for("open", SOON);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(daemons.pids().len(), 1, "it is used");
    drop(user);
    assert!(wait_until(SOON, || daemons.pids().is_empty()));
    assert!(!daemons.socket().exists(), "it takes its socket along");
}

#[test]
fn a_service_manager_may_pass_the_socket() {
    let daemons = Daemons::new();
    let activator = compile_c(&workspace().join("tests/c/activate.c"), "activate", &[]);
    let mut daemon = Cmd::new(activator).arg(daemons.socket()).arg(tool("netmapd")).args(["--idle-exit", "1"]).spawn();
    daemon.wait_for("listens", SOON);
    daemons.with(Cmd::new(opener()), "daemon").arg("once").run().expect_success();
    daemon.wait(SOON).expect_success();
    assert!(daemons.socket().exists(), "the socket is the manager's");
}

#[test]
fn what_it_cannot_understand_on_its_command_line_it_names() {
    let daemons = Daemons::new();
    let file = daemons.dir().join("netmapd.conf");
    std::fs::write(&file, "buffers = 4096\nspeed = 5\n").unwrap();
    let start = Cmd::new(tool("netmapd")).args(["--foreground", "--socket"]).arg(daemons.socket());
    let refused = start.clone().arg("--config").arg(&file).run();
    assert!(!refused.success() && refused.stderr.contains("line 2") && refused.stderr.contains("speed"), "{refused}");
    let refused = start.clone().args(["--group", "no-such-group-x"]).run();
    assert!(!refused.success() && refused.stderr.contains("no-such-group-x"), "{refused}");
    let refused = start.arg("--config").arg("/nonexistent.conf").run();
    assert!(!refused.success() && refused.stderr.contains("/nonexistent.conf"), "{refused}");
}

#[test]
fn a_user_without_rights_gets_a_daemon_of_their_own() {
    // To become one.
    needs_root!();
    const UID: &str = "60007";
    let daemons = Daemons::new();
    let copy = |from: PathBuf| {
        let to = daemons.dir().join(from.file_name().expect("a file"));
        std::fs::copy(from, &to).unwrap();
        to
    };
    let (program, library, daemon) = (copy(opener()), copy(cdylib()), copy(tool("netmapd")));
    let runtime = daemons.dir().join("run");
    std::fs::create_dir(&runtime).unwrap();
    Cmd::new("chown").arg(UID).arg(&runtime).run().expect_success();
    let as_user = |arg: &str| {
        let command = Cmd::new("setpriv").args(["--reuid", UID, "--regid", UID, "--clear-groups", "env"]);
        let command = command.args(["-u", "NETMAP_XDP_SOCKET", "-u", "NETMAP_XDP_DAEMON"]);
        let command = command.arg(format!("LD_PRELOAD={}", library.display())).arg("NETMAP_XDP_ENGINE=auto");
        let command = command.arg(format!("XDG_RUNTIME_DIR={}", runtime.display())).arg(&program);
        if arg.is_empty() { command } else { command.arg(arg) }
    };
    let mut first = as_user("").spawn();
    first.wait_for("open", SOON);
    as_user("once").run().expect_success();
    let of_user: Vec<u32> = netmap_xdp_tests::daemons_at(&runtime.join("netmap-xdp/netmapd.sock"));
    assert_eq!(of_user.len(), 1, "found beside the library: {}", daemon.display());
    let status = std::fs::read_to_string(format!("/proc/{}/status", of_user[0])).unwrap();
    assert!(status.lines().any(|l| l.starts_with("Uid:") && l.contains(UID)), "{status}");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(runtime.join("netmap-xdp")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // SAFETY: kill takes integers; this test's program started it.
    unsafe { libc::kill(of_user[0] as i32, libc::SIGKILL) };
}
