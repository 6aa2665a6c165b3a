//! One process gives to many, through netmapd: a NIC's packets to consumers by pipes without copying, a switch's sender to ten
//! ports in ten processes; and two tools at the ends of a pipe and of a switch.

use netmap_xdp_tests::{
    Cmd, Daemons, Finished, Pair, Running, Veth, c_program, compile_c, needs_root, tool, wait_until,
};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

/// How long anything may take on a loaded machine.
const SOON: Duration = Duration::from_secs(30);
const CONSUMERS: usize = 3;
const PORTS: usize = 10;

static PROGRAM: LazyLock<PathBuf> =
    LazyLock::new(|| compile_c(&netmap_xdp_tests::workspace().join("tests/c/fan_out.c"), "fan_out", &[]));

fn ready(mut running: Running) -> Running {
    running.wait_for("ready", SOON);
    running
}

fn start(daemons: &Daemons, command: Cmd, args: &[&str]) -> Running {
    ready(daemons.with(command.args(args), "daemon").spawn())
}

fn end(mut running: Running) -> Finished {
    running.signal(libc::SIGTERM);
    running.wait(SOON).expect_success()
}

fn consumer(pair: &Pair, daemons: &Daemons, k: usize) -> Running {
    let (k, n) = (k.to_string(), CONSUMERS.to_string());
    start(daemons, pair.a.command(&*PROGRAM), &["take", "veth0", &k, &n])
}

/// Frames that a consumer says it has, in thousands.
fn thousands(running: &Running) -> usize {
    running.stdout().matches("sofar=").count()
}

/// Waits until a consumer got `n` thousand frames more.
#[track_caller]
fn wait_thousands(running: &mut Running, n: usize) {
    let before = thousands(running);
    let went_on = wait_until(SOON, || thousands(running) >= before + n || !running.is_alive());
    assert!(went_on && running.is_alive(), "it stands still: {}{}", running.stdout(), running.stderr());
}

fn status(pair: &Pair, daemons: &Daemons) -> serde_json::Value {
    let nmx = pair.a.command(tool("nmx")).args(["status", "--json", "--check"]).env("NETMAP_XDP_ENGINE", "daemon");
    let done = nmx.env("NETMAP_XDP_SOCKET", daemons.socket()).run().expect_success();
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done}"))
}

fn list<'a>(of: &'a serde_json::Value, what: &str) -> &'a [serde_json::Value] {
    of[what].as_array().map_or(&[], Vec::as_slice)
}

/// Every buffer of the one region is known, and none is at two places.
#[track_caller]
fn expect_accounted(now: &serde_json::Value) {
    assert_eq!(list(now, "regions").len(), 1, "{now}");
    let region = &now["regions"][0];
    assert_eq!((region["missing"].as_u64(), region["twice"].as_u64()), (Some(0), Some(0)), "{region}");
    let parts = ["free", "slots", "kernel", "spare", "extra", "private"].iter().filter_map(|p| region[p].as_u64());
    assert_eq!(Some(parts.sum()), region["buffers"].as_u64(), "{region}");
}

#[test]
fn a_nic_is_handed_to_consumers_without_copying_and_one_may_die_and_come_back() {
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let mut daemon = daemons.start(&[]);
    let mut hand = start(&daemons, pair.a.command(&*PROGRAM), &["hand", "veth0", &CONSUMERS.to_string()]);
    let mut consumers: Vec<Running> = (0..CONSUMERS).map(|k| consumer(&pair, &daemons, k)).collect();
    let send = ["-i", "netmap:veth1", "-V", "-R", "20000", "-l", "60,1514"];
    let sender = start(&daemons, pair.b.command(c_program("nm-send")), &send);
    consumers.iter_mut().for_each(|c| wait_thousands(c, 1));

    let mut victim = consumers.remove(1);
    victim.signal(libc::SIGKILL);
    assert!(!victim.wait(SOON).success());
    // The others take more than the pipe of the dead one holds.
    consumers.iter_mut().for_each(|c| wait_thousands(c, 3));
    let mut again = consumer(&pair, &daemons, 1);
    wait_thousands(&mut again, 2);
    consumers.iter_mut().for_each(|c| wait_thousands(c, 1));
    end(sender);

    hand.signal(libc::SIGUSR1);
    hand.wait_for("finished", SOON);
    let now = status(&pair, &daemons);
    // The NIC, and two ends of each pipe.
    assert_eq!(list(&now, "ports").len(), 1 + 2 * CONSUMERS, "{now}");
    expect_accounted(&now);

    let (first, third) = (end(consumers.remove(0)), end(consumers.remove(0)));
    let again = end(again);
    let hand = end(hand);
    for (k, got) in [(0, &first), (2, &third)] {
        assert_eq!(got.field("got"), hand.field(&format!("given{k}")), "consumer {k}: {got}{hand}");
        assert_eq!(got.field("digest"), hand.field(&format!("digest{k}")), "consumer {k}: {got}{hand}");
    }
    assert!(again.field("got") < hand.field("given1"), "{again}{hand}");
    assert!(daemon.is_alive(), "{}", daemon.stderr());
    pair.assert_no_xdp();
    assert!(wait_until(SOON, || list(&status(&pair, &daemons), "ports").is_empty()), "{}", status(&pair, &daemons));
}

#[test]
fn each_of_ten_processes_on_a_switch_gets_its_own_and_what_is_for_all() {
    const BATCHES: &str = "20";
    let daemons = Daemons::new();
    let mut daemon = daemons.start(&[]);
    let ports = PORTS.to_string();
    let sender = start(&daemons, Cmd::new(&*PROGRAM), &["spread", "vale3:s", &ports, BATCHES]);
    let own =
        |k: usize| start(&daemons, Cmd::new(&*PROGRAM), &["own", &format!("vale3:r{k}"), &k.to_string(), BATCHES]);
    let there: Vec<Running> = (0..PORTS).map(own).collect();
    let sent = sender.wait(2 * SOON).expect_success();
    assert_eq!(sent.field("sent"), Some(20 * 64), "{sent}");
    for got in there.into_iter().map(end) {
        assert_eq!((got.field("mine"), got.field("all")), (sent.field("sent"), sent.field("sent")), "{got}");
    }
    assert!(daemon.is_alive(), "{}", daemon.stderr());
}

/// `pkt-gen` in two processes: all that one sends arrives whole at the other.
fn pkt_gens(from: &str, to: &str, frames: u64) {
    let daemons = Daemons::new();
    let mut daemon = daemons.start(&[]);
    let pkt_gen = |port: &str, function: &str| {
        let command = Cmd::new(tool("pkt-gen")).args(["-i", port, "-f", function, "--verify", "-w", "0", "-n"]);
        command.arg(frames.to_string()).env("NETMAP_XDP_ENGINE", "daemon").env("NETMAP_XDP_SOCKET", daemons.socket())
    };
    let mut receiver = pkt_gen(to, "rx").spawn();
    receiver.wait_for("queues, ", SOON);
    let sent = pkt_gen(from, "tx").timeout(SOON).run().expect_success();
    assert!(sent.stdout.contains(&format!("Sent {frames} packets ")), "{sent}");
    let got = receiver.wait(SOON).expect_success();
    assert_eq!(got.field("received"), Some(frames), "{got}");
    for fault in ["lost", "corrupt"] {
        assert_eq!(got.field(fault), Some(0), "{got}");
    }
    assert!(daemon.is_alive(), "{}", daemon.stderr());
}

#[test]
fn two_pkt_gens_meet_over_a_pipe() {
    pkt_gens("netmap:meet{4", "netmap:meet}4", 20_000);
}

#[test]
fn two_pkt_gens_meet_over_a_switch() {
    // A switch drops what finds a port full, so as many as a port has room for.
    pkt_gens("vale4:s", "vale4:r", 1000);
    pkt_gens("vale4:r", "vale4:s", 1000);
}
