//! What goes wrong and how it is said: each refusal with its errno, and one line on standard error that names the cause and
//! what mends it, and nothing at all with `NETMAP_XDP_LOG=off`.

mod nic_common;

use netmap_xdp::api::{Interest, Port};
use netmap_xdp_tests::{Cmd, End, Finished, Veth, c_program, needs_root, wait_until};
use nic_common::*;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| c_test("nic_register"))
}

/// A registration in a program of its own.
fn register(end: &End, args: &[&str], env: &[(&str, &str)]) -> Finished {
    let command = end.command(program()).args(args).preload();
    env.iter().fold(command, |command, (name, value)| command.env(name, value)).run().expect_success()
}

fn result(done: &Finished) -> &str {
    done.stdout.split_whitespace().find_map(|word| word.strip_prefix("result=")).expect("a result")
}

/// Checks that the registration is refused with `errno` and one line of netmap-xdp that has all of `words`; and without a
/// line when none are wanted.
#[track_caller]
fn refused(end: &End, args: &[&str], env: &[(&str, &str)], errno: &str, words: &[&str]) -> String {
    let loud = register(end, args, env);
    assert_eq!(result(&loud), errno, "{loud}");
    let is_ours = |line: &&str| line.starts_with("netmap-xdp: ");
    let lines: Vec<_> = loud.stderr.lines().filter(is_ours).collect();
    let line = lines.iter().find(|line| words.iter().all(|word| line.contains(word)));
    let line = line.unwrap_or_else(|| panic!("no line with {words:?}\n{loud}"));
    let quiet = register(end, args, &[env, &[("NETMAP_XDP_LOG", "off")]].concat());
    assert_eq!((result(&quiet), quiet.stderr.as_str()), (errno, ""), "{quiet}");
    end.assert_no_xdp();
    (*line).to_string()
}

#[test]
fn no_such_interface() {
    needs_root!();
    let pair = Veth::new().build();
    refused(&pair.a, &["nowhere7"], &[], "ENXIO", &["nowhere7", "no such interface", "ip link"]);
    // That of the other namespace is not ours.
    refused(&pair.a, &["veth1"], &[], "ENXIO", &["veth1", "ip link"]);
    refused(&pair.a, &["a-name-that-is-longer-than-any-interface"], &[], "ENXIO", &["ip link"]);
    refused(&pair.a, &["-l", "-v", "11", "nowhere7"], &[], "ENXIO", &["nowhere7"]);
}

#[test]
fn a_ring_or_a_mode_that_does_not_exist() {
    needs_root!();
    let pair = Veth::new().queues(2).build();
    refused(&pair.a, &["-m", "4", "-r", "2", "veth0"], &[], "EINVAL", &["ring 2", "0 to 1"]);
    refused(&pair.a, &["-m", "4", "-r", "4095", "veth0"], &[], "EINVAL", &["ring 4095", "0 to 1"]);
    refused(&pair.a, &["-m", "77", "veth0"], &[], "EINVAL", &["mode 77"]);
    assert_eq!(result(&register(&pair.a, &["-m", "4", "-r", "1", "veth0"], &[])), "ok");
}

#[test]
fn a_version_that_is_not_understood() {
    needs_root!();
    let pair = Veth::new().build();
    for version in ["13", "99", "0"] {
        refused(&pair.a, &["-v", version, "veth0"], &[], "EINVAL", &[version]);
    }
    refused(&pair.a, &["-l", "-v", "10", "veth0"], &[], "EINVAL", &["10"]);
    for version in ["11", "12", "13", "14", "15"] {
        assert_eq!(result(&register(&pair.a, &["-l", "-v", version, "veth0"], &[])), "ok", "NIOCREGIF {version}");
    }
}

#[test]
fn an_mtu_that_does_not_fit_a_buffer_is_refused_where_frames_must_be_whole() {
    needs_root!();
    let pair = Veth::new().build();
    pair.a.set(&["mtu", "3000"]);
    // The kernel that has no frames of several buffers is imitated, where it has them.
    let whole = [("NETMAP_XDP_FRAGS", "off")];
    refused(&pair.a, &["veth0"], &whole, "EINVAL", &["veth0", "MTU 3000", "does not fit", "mtu 2030"]);
    if has_chains() {
        assert_eq!(result(&register(&pair.a, &["veth0"], &[])), "ok");
    }
    pair.a.set(&["mtu", "1500"]);
    assert_eq!(result(&register(&pair.a, &["veth0"], &whole)), "ok");
}

#[test]
fn a_port_that_failed_is_to_be_closed_by_all_before_it_is_bound_again() {
    needs_root!();
    let pair = Veth::new().build();
    let open = || pair.a.ns.run(|| Port::open("netmap:veth0"));
    let mut port = open().unwrap();
    let id = pair.a.xdp().expect("our program").id.to_string();
    Cmd::new(c_test("xdp_detach")).arg(id).run().expect_success();
    let failed = wait_until(Duration::from_secs(10), || {
        port.wait(Interest::READ, Some(Duration::from_millis(100))).is_ok_and(|ready| ready.error)
    });
    assert!(failed);
    let refused = open().map(drop).unwrap_err();
    assert_eq!(refused.errno, libc::ENXIO, "{refused}");
    assert!(refused.message.contains("close what still has netmap:veth0 open"), "{refused}");
    drop(port);
    drop(open().unwrap());
    pair.a.assert_no_xdp();
}

#[test]
fn a_memory_that_does_not_exist() {
    needs_root!();
    let pair = Veth::new().build();
    refused(&pair.a, &["-i", "7", "veth0"], &[], "EINVAL", &["memory id 7"]);
}

#[test]
fn a_missing_capability_is_named() {
    needs_root!();
    let pair = Veth::new().build();
    let without = |drop: &str, log: &str| {
        let command = pair.a.command("setpriv").args(["--bounding-set", drop, "--inh-caps", drop]);
        command.arg(program()).arg("veth0").preload().env("NETMAP_XDP_LOG", log).run().expect_success()
    };
    for (drop, word) in [
        ("-all", "CAP_NET_ADMIN"),
        ("-bpf,-sys_admin", "CAP_BPF"),
        ("-net_admin,-sys_admin", "CAP_NET_ADMIN"),
        ("-net_raw", "CAP_NET_RAW"),
    ] {
        let done = without(drop, "info");
        assert_eq!(result(&done), "EPERM", "without {drop}: {done}");
        assert!(done.stderr.lines().any(|l| l.starts_with("netmap-xdp: ") && l.contains(word)), "{drop}: {done}");
        assert_eq!(without(drop, "off").stderr, "");
        pair.a.assert_no_xdp();
    }
}

/// Puts a trivial program of another origin on the device, in the given mode (`xdp`, `xdpgeneric`).
fn attach_foreign(end: &End, mode: &str) {
    let object = std::env::temp_dir().join(format!("nmx-{}-{mode}.o", std::process::id()));
    let source = object.with_extension("c");
    let text = "__attribute__((section(\"xdp\"), used)) int let_all_pass(void *ctx) { (void)ctx; return 2; }\n";
    std::fs::write(&source, text).unwrap();
    let clang = Cmd::new("clang").args(["-O2", "-target", "bpf", "-c", "-o"]).arg(&object).arg(&source).run();
    let _ = std::fs::remove_file(&source);
    clang.expect_success();
    end.set(&[mode, "obj", object.to_str().unwrap(), "sec", "xdp"]);
    let _ = std::fs::remove_file(&object);
}

#[test]
fn an_interface_with_the_program_of_somebody_else_is_left_alone() {
    needs_root!();
    let pair = Veth::new().build();
    for mode in ["xdp", "xdpgeneric"] {
        attach_foreign(&pair.a, mode);
        let theirs = pair.a.wait_xdp(SOON);
        for log in ["info", "off"] {
            let done = register(&pair.a, &["veth0"], &[("NETMAP_XDP_LOG", log)]);
            assert_eq!(result(&done), "EBUSY", "{done}");
            let id = theirs.id.to_string();
            let told = ["veth0", "let_all_pass", id.as_str(), "ip link set"].iter().all(|w| done.stderr.contains(w));
            assert_eq!((told, done.stderr.is_empty()), (log == "info", log == "off"), "{done}");
            assert_eq!(pair.a.xdp(), Some(theirs), "it was replaced");
        }
        pair.a.set(&[mode, "off"]);
        assert_eq!(result(&register(&pair.a, &["veth0"], &[])), "ok", "once it is gone");
    }
}

#[test]
fn a_queue_of_another_process_is_not_taken() {
    needs_root!();
    let pair = Veth::new().build();
    let mut holder = pair.a.command(program()).args(["-w", "veth0"]).preload().spawn();
    holder.wait_for("result=ok", SOON);
    let done = register(&pair.a, &["veth0"], &[]);
    assert_eq!(result(&done), "EBUSY", "{done}");
    assert!(done.stderr.contains("veth0") && done.stderr.contains("netmap"), "{done}");
    assert!(holder.is_alive());
}

#[test]
fn memory_that_is_too_small_is_said_with_the_number_that_suffices() {
    needs_root!();
    let pair = Veth::new().build();
    let small = [("NETMAP_XDP_BUFFERS", "256")];
    let line = refused(&pair.a, &["veth0"], &small, "ENOMEM", &["NETMAP_XDP_BUFFERS="]);
    // Each refusal names what the next step needs; following the advice gets there.
    let mut line = line;
    let mut turns = 0;
    loop {
        let number = line.split("NETMAP_XDP_BUFFERS=").nth(1).unwrap();
        let number: String = number.chars().take_while(char::is_ascii_digit).collect();
        let done = register(&pair.a, &["veth0"], &[("NETMAP_XDP_BUFFERS", &number)]);
        if result(&done) == "ok" {
            break;
        }
        turns += 1;
        assert!(turns < 2, "the advice does not suffice: {done}");
        line = done.stderr;
    }
}

#[test]
fn rings_of_any_size_that_is_asked_for_are_bounded() {
    needs_root!();
    let pair = Veth::new().build();
    let slots = |asked: &str| {
        let done = register(&pair.a, &["-s", asked, "veth0"], &[]);
        (result(&done).to_string(), done.field("slots"))
    };
    assert_eq!(slots("100"), ("ok".into(), Some(100)));
    assert_eq!(slots("1"), ("ok".into(), Some(8)));
    assert_eq!(slots("0xffffffff"), ("ok".into(), Some(16384)));
    let small = [("NETMAP_XDP_BUFFERS", "1000")];
    refused(&pair.a, &["-s", "16384", "veth0"], &small, "ENOMEM", &["NETMAP_XDP_BUFFERS="]);
}

#[test]
fn fewer_extra_buffers_are_given_than_there_are_not() {
    needs_root!();
    let pair = Veth::new().build();
    let env = [("NETMAP_XDP_BUFFERS", "3000")];
    let done = register(&pair.a, &["-e", "2000", "veth0"], &env);
    assert_eq!((result(&done), done.field("extra")), ("ok", Some(3000 - 2 - 2048)), "{done}");
    assert!(done.stderr.contains("extra buffers") && done.stderr.contains("NETMAP_XDP_BUFFERS="), "{done}");
}

#[test]
fn a_setting_that_makes_no_sense_is_said_and_left_out() {
    needs_root!();
    let pair = Veth::new().build();
    let done = register(&pair.a, &["veth0"], &[("NETMAP_XDP_MODE", "fast"), ("NETMAP_XDP_SLOTS", "many")]);
    assert_eq!((result(&done), done.field("slots")), ("ok", Some(1024)));
    assert!(done.stderr.contains("NETMAP_XDP_MODE=fast") && done.stderr.contains("NETMAP_XDP_SLOTS=many"), "{done}");
}

#[test]
fn zero_copy_that_is_forced_and_not_there_is_refused() {
    needs_root!();
    let pair = Veth::new().build();
    refused(&pair.a, &["veth0"], &[("NETMAP_XDP_MODE", "zerocopy")], "EOPNOTSUPP", &["veth0"]);
}

#[test]
fn an_mtu_above_a_buffer_is_served_by_chains_which_is_said() {
    needs_root!();
    let pair = Veth::new().mtu(2034).build();
    if !has_chains() {
        refused(&pair.a, &["veth0"], &[], "EINVAL", &["veth0", "MTU 2034", "mtu 2030", "Linux 6.6"]);
        return;
    }
    // What the aligned fallback receives in one buffer is less; with chains it may be any.
    for umem in ["unaligned", "aligned"] {
        let done = register(&pair.a, &["veth0"], &[("NETMAP_XDP_UMEM", umem)]);
        assert_eq!(result(&done), "ok", "{done}");
        assert!(done.stderr.contains("MTU 2034") && done.stderr.contains("NS_MOREFRAG"), "{done}");
    }
}

#[test]
fn an_interface_that_is_down_is_bound_and_starts_when_it_comes_up() {
    needs_root!();
    for queues in [1, 2] {
        let pair = Veth::new().queues(queues).build();
        pair.b.set(&["down"]);
        let mut waiter = pair.b.command(program()).args(["-w", "veth1"]).preload().spawn();
        waiter.wait_for("result=ok", SOON);
        waiter.wait_for("veth1 is down", SOON);
        waiter.wait_for("ip link set veth1 up", SOON);
        pair.b.set(&["up"]);
        let send = pair.a.command(c_program("nm-send")).args(["-i", "netmap:veth0", "-R", "200", "-T", "5"]);
        let mut sender = send.preload().spawn();
        waiter.wait(SOON).expect_success();
        sender.signal(libc::SIGTERM);
        sender.wait(SOON);
        pair.assert_no_xdp();
    }
}

#[test]
fn two_ports_that_were_down_start_one_after_the_other() {
    alone!();
    let longest = if has_chains() { 9014 } else { 1514 };
    let pair = Veth::new().queues(2).mtu(longest - 14).build();
    pair.a.set(&["down"]);
    pair.b.set(&["down"]);
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    assert!(!a.wait(netmap_xdp::api::Interest::READ, Some(SECOND / 20)).unwrap().read);
    pair.b.set(&["up"]);
    pair.a.set(&["up"]);
    let running = || pair.a.ns.run(|| a.link_up());
    assert!(wait_until(SOON, running));
    // Of several buffers too: whether there are such frames is known since now.
    carry(&mut a, 1, &mut b, 1, &frames(100, 60, longest as usize));
    carry(&mut b, 0, &mut a, 0, &frames(100, 60, longest as usize));
    assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
}
