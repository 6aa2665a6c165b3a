//! The harness itself: what it makes it undoes, what it starts it ends.

use libc::SIGTERM;
use netmap_xdp_tests::{Cmd, Namespace, Veth, compile_c, namespaces_of, needs_root, skip, wait_until};
use std::path::Path;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn exists(ns: &str) -> bool {
    namespaces_of(std::process::id()).iter().any(|name| name == ns)
}

fn has_ended(pid: u32) -> bool {
    let stat = Path::new("/proc").join(pid.to_string()).join("stat");
    // An orphan may stay a zombie for as long as its new parent likes.
    wait_until(SECOND, || std::fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z ")))
}

#[test]
fn a_pair_has_the_shape_that_was_asked_for() {
    needs_root!();
    let pair = Veth::new().queues(2).mtu(2000).addresses("10.9.0.1/24", "10.9.0.2/24").build();
    for end in [&pair.a, &pair.b] {
        let link = end.command("ip").args(["-j", "-d", "link", "show", "dev", end.dev]).run().expect_success().stdout;
        for part in ["\"mtu\":2000", "\"num_tx_queues\":2", "\"num_rx_queues\":2", "\"LOWER_UP\""] {
            assert!(link.contains(part), "{part} is not in {link}");
        }
        let features = end.command("ethtool").args(["-k", end.dev]).run().expect_success().stdout;
        assert!(features.contains("tx-checksumming: off"), "{features}");
        let addresses = end.command("ip").args(["-6", "addr", "show"]).run().expect_success().stdout;
        assert_eq!(addresses, "", "IPv6 would talk on the line");
    }
    pair.a.command("ping").args(["-c", "1", "-W", "1", "10.9.0.2"]).run().expect_success();
    pair.assert_no_xdp();
}

#[test]
fn a_line_without_addresses_is_silent() {
    needs_root!();
    let pair = Veth::new().build();
    std::thread::sleep(SECOND / 2);
    let link = pair.a.command("ip").args(["-s", "-j", "link", "show", "dev", "veth0"]).run().expect_success().stdout;
    assert!(link.contains("\"rx\":{\"bytes\":0,\"packets\":0,"), "{link}");
}

#[test]
fn an_attached_xdp_program_is_seen() {
    needs_root!();
    let pair = Veth::new().build();
    let object = std::env::temp_dir().join(format!("nmx-{}-pass.o", std::process::id()));
    let source = object.with_extension("c");
    std::fs::write(&source, "__attribute__((section(\"xdp\"), used)) int pass(void *ctx) { (void)ctx; return 2; }\n")
        .unwrap();
    let clang = Cmd::new("clang").args(["-O2", "-target", "bpf", "-c", "-o"]).arg(&object).arg(&source).run();
    let _ = std::fs::remove_file(&source);
    clang.expect_success();
    pair.b.set(&["xdpgeneric", "obj", object.to_str().unwrap(), "sec", "xdp"]);
    let _ = std::fs::remove_file(&object);
    assert_eq!(pair.b.wait_xdp(SECOND).mode, 2);
    let caught = std::panic::catch_unwind(|| pair.b.assert_no_xdp());
    assert!(caught.is_err(), "a program that was left behind was not noticed");
    pair.b.set(&["xdpgeneric", "off"]);
    pair.assert_no_xdp();
}

#[test]
fn everything_is_undone_when_a_test_panics() {
    needs_root!();
    let mut names = Vec::new();
    let mut pid = 0;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let pair = Veth::new().build();
        names = vec![pair.a.ns.name().to_string(), pair.b.ns.name().to_string()];
        let sleeper = pair.a.command("sleep").arg("60").spawn();
        pid = sleeper.pid();
        std::panic::resume_unwind(Box::new("a failed test"));
    }));
    assert!(panicked.is_err());
    assert!(names.iter().all(|ns| !exists(ns)), "a namespace is left of {names:?}");
    assert!(has_ended(pid));
}

#[test]
fn a_namespace_takes_its_processes_along() {
    needs_root!();
    let ns = Namespace::new();
    let name = ns.name().to_string();
    // The shell ends, and leaves behind a process that is nobody's child and in a group of its own.
    let shell = ns.command("sh").args(["-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!"]).run().expect_success();
    let orphan = shell.stdout.trim().parse().unwrap();
    drop(ns);
    assert!(!exists(&name));
    assert!(has_ended(orphan));
}

#[test]
fn a_closure_runs_inside_a_namespace() {
    needs_root!();
    let pair = Veth::new().build();
    let devices = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    assert!(pair.a.ns.run(devices).contains("veth0:"));
    assert!(!devices().contains("veth0:"), "the caller stays where it was");
}

#[test]
fn a_command_that_takes_too_long_is_killed() {
    let start = Instant::now();
    let sleeper = Cmd::new("sh").args(["-c", "echo begun; sleep 60"]).timeout(SECOND / 2).run();
    assert!(sleeper.timed_out && !sleeper.success());
    assert_eq!(sleeper.stdout, "begun\n");
    assert!(start.elapsed() < 5 * SECOND);
}

#[test]
fn output_and_numbers_are_captured() {
    let talk = "echo first; echo complaint >&2; echo received=10 lost=0; echo received=12 mpps=1.25; exit 3";
    let done = Cmd::new("sh").args(["-c", talk]).run();
    assert!(!done.success() && !done.timed_out);
    assert_eq!(done.status.code(), Some(3));
    assert_eq!(done.stderr, "complaint\n");
    assert_eq!((done.field("received"), done.field("lost"), done.field("mpps")), (Some(12), Some(0), Some(1)));
    assert_eq!(done.field("eceived"), None);
}

#[test]
fn a_running_command_is_watched_and_signalled() {
    let talk = "trap 'echo caught; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let mut shell = Cmd::new("sh").args(["-c", talk]).spawn();
    shell.wait_for("ready", 5 * SECOND);
    assert!(shell.is_alive());
    shell.signal(SIGTERM);
    let done = shell.wait(5 * SECOND).expect_success();
    assert!(done.stdout.ends_with("caught\n"));
}

#[test]
fn the_environment_reaches_the_program() {
    let done = Cmd::new("sh").args(["-c", "echo value=$NMX_SELF_TEST"]).env("NMX_SELF_TEST", "7").run();
    assert_eq!(done.expect_success().field("value"), Some(7));
}

#[test]
fn a_c_program_is_compiled_and_runs() {
    let source = std::env::temp_dir().join(format!("nmx-{}-self.c", std::process::id()));
    std::fs::write(&source, "#include <stdio.h>\nint main(void) { printf(\"answer=%d\\n\", 42); return 0; }\n")
        .unwrap();
    let program = compile_c(&source, "harness-self-test", &[]);
    let _ = std::fs::remove_file(&source);
    assert_eq!(Cmd::new(program).run().expect_success().field("answer"), Some(42));
}

#[test]
fn the_inner_test_skips_when_told_to() {
    if std::env::var_os("NMX_SELF_TEST").is_some() {
        skip!("nothing to test {}", "here");
    }
}

#[test]
fn a_skip_is_a_failure_in_ci_and_counted_elsewhere() {
    let skips = std::env::temp_dir().join(format!("nmx-{}-skips", std::process::id()));
    let again = |ci: &str| {
        let this = std::env::current_exe().unwrap();
        let inner = Cmd::new(this).args(["--exact", "the_inner_test_skips_when_told_to"]).env("NMX_SELF_TEST", "skip");
        inner.env("NMX_SKIPS", &skips).env("CI", ci).run()
    };
    assert!(!again("true").success());
    assert!(!skips.exists());
    again("").expect_success();
    let line = std::fs::read_to_string(&skips).unwrap();
    let _ = std::fs::remove_file(&skips);
    assert_eq!(line, "SKIP the_inner_test_skips_when_told_to: nothing to test here\n");
}

/// The other half of [`what_a_killed_test_started_dies_with_it`]; on its own it does nothing.
#[test]
fn the_inner_test_starts_a_program_and_waits() {
    if std::env::var_os("NMX_INNER_STARTS").is_none() {
        return;
    }
    let sleeper = Cmd::new("sleep").arg("300").spawn();
    println!("started={}", sleeper.pid());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn what_a_killed_test_started_dies_with_it() {
    let me = std::env::current_exe().unwrap();
    let args = ["--exact", "the_inner_test_starts_a_program_and_waits", "--nocapture"];
    let mut inner = Cmd::new(me).args(args).env("NMX_INNER_STARTS", "1").spawn();
    inner.wait_for("started=", 10 * SECOND);
    let text = inner.stdout();
    let number = text.split("started=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let sleeper: u32 = number.parse().unwrap();
    assert!(Path::new("/proc").join(sleeper.to_string()).exists());
    // The process alone, not its group, in which the sleeper is not anyway.
    inner.signal(libc::SIGKILL);
    assert!(has_ended(sleeper), "{sleeper} goes on");
}
