//! Random deaths of clients under load, through netmapd: the others go on, no ring stays locked, every buffer is accounted for, and
//! netmapd keeps nothing of the dead. `make soak` runs ten thousand of them. No rights needed.

use netmap_xdp_tests::{Cmd, Daemons, compile_c, open_files, tool, wait_until, workspace};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SOON: Duration = Duration::from_secs(60);
/// Bytes that netmapd may grow by: what its allocator keeps, not what it forgets to free.
const GROWTH: u64 = 8 << 20;

fn kills() -> u64 {
    std::env::var("NMX_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn status(daemons: &Daemons) -> serde_json::Value {
    let nmx = Cmd::new(tool("nmx")).args(["status", "--json"]).env("NETMAP_XDP_ENGINE", "daemon");
    let done = nmx.env("NETMAP_XDP_SOCKET", daemons.socket()).run().expect_success();
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done}"))
}

fn list<'a>(of: &'a serde_json::Value, what: &str) -> &'a [serde_json::Value] {
    of[what].as_array().map_or(&[], Vec::as_slice)
}

/// Checks what is told of every region and ring.
#[track_caller]
fn expect_sound(now: &serde_json::Value) {
    for region in list(now, "regions") {
        assert_eq!((region["missing"].as_u64(), region["twice"].as_u64()), (Some(0), Some(0)), "{region}");
        let parts = ["free", "slots", "kernel", "extra", "private"].iter().filter_map(|p| region[p].as_u64());
        assert_eq!(Some(parts.sum()), region["buffers"].as_u64(), "{region}");
    }
    for port in list(now, "ports") {
        let pids: Vec<_> = list(port, "holders").iter().map(|h| h["pid"].clone()).collect();
        assert_eq!(pids.len(), 1, "{port}");
        for ring in list(port, "rings") {
            // Of a pipe, either end may hold the lock at any moment; nobody else.
            let by = ring["syncing"].as_u64().unwrap_or(u64::MAX);
            let alive = by == 0 || std::path::Path::new(&format!("/proc/{by}")).exists();
            assert!(alive, "a ring is locked by the dead: {port}");
        }
    }
}

#[test]
fn random_deaths_of_clients_harm_nobody_and_leave_nothing() {
    let daemons = Daemons::new();
    let mut daemon = daemons.start(&[]);
    let program = compile_c(&workspace().join("tests/c/deaths.c"), "deaths", &[]);
    let files = open_files(daemon.pid());
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.subsec_nanos());
    println!("seed {seed}");
    let (kills, begun) = (kills(), Instant::now());
    let command = Cmd::new(program).arg(kills.to_string()).arg(seed.to_string());
    let mut run = daemons.with(command, "daemon").spawn();
    run.wait_for("moved=1", SOON);
    let before = resident(daemon.pid());
    expect_sound(&status(&daemons));
    // A tenth of a second each, at the very worst.
    run.wait_for("alone", SOON + Duration::from_millis(100 * kills));
    let took = begun.elapsed();
    assert!(daemon.is_alive(), "{}", daemon.stderr());

    let mut now = serde_json::Value::Null;
    let left = wait_until(SOON, || {
        now = status(&daemons);
        list(&now, "ports").len() == 4
    });
    assert!(left, "ports of the dead: {now}");
    expect_sound(&now);
    let after = resident(daemon.pid());
    assert!(after < before + GROWTH, "netmapd grew from {before} to {after} bytes");

    run.signal(libc::SIGTERM);
    run.wait(SOON).expect_success();
    assert!(wait_until(SOON, || list(&status(&daemons), "ports").is_empty()), "{}", status(&daemons));
    assert!(
        wait_until(SOON, || open_files(daemon.pid()) == files),
        "{} files, {files} before",
        open_files(daemon.pid())
    );
    println!("{kills} deaths in {took:?}; netmapd: {files} files before and after, {before} bytes, then {after}");
}
