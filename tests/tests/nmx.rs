//! `nmx` from outside: what it tells of a NIC port that another process holds, to whom, and what it says of interfaces.

use netmap_xdp_tests::{
    Cmd, Daemons, End, Finished, Pair, Running, Veth, c_program, compile_c, needs_root, tool, wait_until, workspace,
};
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn nmx(end: &End, daemons: &Daemons, args: &[&str]) -> Finished {
    let command = end.command(tool("nmx")).args(args).env("NETMAP_XDP_ENGINE", "auto");
    command.env("NETMAP_XDP_SOCKET", daemons.socket()).run()
}

fn json(done: &Finished) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done}"))
}

fn holder(pair: &Pair, daemons: &Daemons) -> Running {
    let program = compile_c(&workspace().join("tests/c/daemon_fds.c"), "daemon_fds", &[]);
    let mut held = daemons.with(pair.a.command(program).args(["hold", "veth0", "1"]), "daemon").spawn();
    held.wait_for("bound", SOON);
    held
}

#[test]
fn a_held_nic_port_is_told_with_its_holder_and_its_buffers() {
    needs_root!();
    let (pair, daemons) = (Veth::new().queues(2).build(), Daemons::new());
    let none = nmx(&pair.a, &daemons, &["status"]);
    assert_eq!(none.status.code(), Some(2), "{none}");
    assert!(none.stderr.contains("nobody answers") && daemons.pids().is_empty(), "it starts no netmapd: {none}");
    let _daemon = daemons.start(&[]);
    let held = holder(&pair, &daemons);
    let now = json(&nmx(&pair.a, &daemons, &["status", "--json", "--check"]).expect_success());
    let port = &now["ports"][0];
    assert_eq!((&port["name"], &port["kind"], &port["mode"]), (&"veth0".into(), &"nic".into(), &"native".into()));
    assert_eq!(port["holders"][0]["pid"], held.pid());
    assert_eq!(port["holders"][0]["comm"], "daemon_fds");
    let rx = port["rings"].as_array().unwrap().iter().find(|r| r["dir"] == "rx").expect("a receive ring");
    let slots = rx["slots"].as_u64().unwrap();
    assert_eq!((&rx["id"], &rx["users"], &rx["kernel"]), (&1.into(), &1.into(), &(slots - 1).into()));
    let region = &now["regions"][0];
    let parts =
        ["free", "slots", "kernel", "spare", "extra", "private", "missing"].map(|p| region[p].as_u64().unwrap());
    assert_eq!(Some(parts.iter().sum()), region["buffers"].as_u64(), "{region}");
    assert_eq!((&region["kernel"], &region["spare"]), (&(slots - 1).into(), &(slots + 1).into()));
    let text = nmx(&pair.a, &daemons, &["status"]).expect_success().stdout;
    assert!(text.contains("veth0: nic, native, region 1") && text.contains("rx 1"), "{text}");
}

#[test]
fn a_stranger_learns_nothing_and_an_admitted_user_what_is_his() {
    needs_root!();
    if !Cmd::new("sh").args(["-c", "command -v setpriv"]).run().success() {
        netmap_xdp_tests::skip!("needs setpriv");
    }
    let (pair, daemons) = (Veth::new().queues(2).build(), Daemons::new());
    let file = daemons.dir().join("netmapd.conf");
    std::fs::write(&file, "allow = user:60001 veth*\nallow = user:60002 eth7\n").unwrap();
    let _daemon = daemons.start(&["--config", &file.to_string_lossy(), "--group", "none"]);
    let _held = holder(&pair, &daemons);
    // The tool may lie where other users cannot look.
    let copy = daemons.dir().join("nmx");
    std::fs::copy(tool("nmx"), &copy).unwrap();
    let ask = |uid: &str| {
        let command = pair.a.command("setpriv").args(["--reuid", uid, "--regid", uid, "--clear-groups"]).arg(&copy);
        let command = command.args(["status", "--json"]).env("NETMAP_XDP_ENGINE", "daemon");
        command.env("NETMAP_XDP_SOCKET", daemons.socket()).run()
    };
    let stranger = ask("60000");
    assert!(stranger.status.code() == Some(2) && stranger.stderr.contains("60000"), "{stranger}");
    assert_eq!(json(&ask("60002").expect_success())["ports"], Value::Array(vec![]));
    assert_eq!(json(&ask("60001").expect_success())["ports"][0]["name"], "veth0");
}

#[test]
fn rates_are_shown_by_ring() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let _daemon = daemons.start(&[]);
    let send = pair.a.command(c_program("nm-send")).args(["-i", "netmap:veth0", "-R", "5000"]);
    let mut sender = daemons.with(send, "daemon").spawn();
    sender.wait_for("ready", SOON);
    let mut last = String::new();
    let seen = wait_until(SOON, || {
        last = nmx(&pair.a, &daemons, &["top", "-n", "1", "-i", "0.5"]).expect_success().stdout;
        last.contains("veth0  tx 0")
    });
    assert!(seen && last.contains("pps"), "{last}");
}

#[test]
fn the_doctor_says_what_will_work_and_what_mends_the_rest() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let well = json(&nmx(&pair.a, &daemons, &["doctor", "veth0", "--json"]).expect_success());
    assert_eq!((&well["works"], &well["mode"]), (&true.into(), &"native".into()), "{well}");
    let topic = |report: &Value, topic: &str| {
        report["findings"].as_array().unwrap().iter().find(|f| f["topic"] == topic).expect("a finding").clone()
    };
    assert_eq!(topic(&well, "netmapd")["verdict"], "note", "nobody answers, and programs start one");
    assert!(daemons.pids().is_empty(), "and it starts none");

    let _daemon = daemons.start(&[]);
    let _held = holder(&Veth::new().queues(2).build(), &daemons);
    assert_eq!(topic(&json(&nmx(&pair.a, &daemons, &["doctor", "veth0", "--json"])), "netmapd")["verdict"], "good");
    pair.a.set(&["down"]);
    let down = topic(&json(&nmx(&pair.a, &daemons, &["doctor", "veth0", "--json"])), "link");
    assert_eq!((&down["verdict"], &down["mend"]), (&"warn".into(), &"ip link set dev veth0 up".into()));
    pair.a.set(&["up"]);

    // Somebody else's program.
    let object = daemons.dir().join("pass.o");
    let source = daemons.dir().join("pass.c");
    std::fs::write(&source, "__attribute__((section(\"xdp\"), used)) int pass(void *ctx) { (void)ctx; return 2; }\n")
        .unwrap();
    let clang = Cmd::new("clang").args(["-O2", "-target", "bpf", "-c", "-o"]).arg(&object).arg(&source).run();
    clang.expect_success();
    pair.a.set(&["xdpgeneric", "obj", object.to_str().unwrap(), "sec", "xdp"]);
    let taken = nmx(&pair.a, &daemons, &["doctor", "veth0"]);
    assert_eq!(taken.status.code(), Some(1), "{taken}");
    assert!(taken.stdout.contains("ip link set dev veth0 xdpgeneric off"), "{taken}");
    assert!(taken.stdout.contains("veth0 will not work"), "{taken}");
    assert_eq!(nmx(&pair.a, &daemons, &["doctor", "no-such-if"]).status.code(), Some(2));
}
