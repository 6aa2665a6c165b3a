//! Random deaths of clients under load, through netmapd: the others go on, no ring stays locked, every buffer is
//! accounted for, and netmapd keeps nothing of the dead. `make soak` runs ten thousand of them. No rights needed.

use netmap_xdp_tests::{Cmd, Daemons, compile_c, list, mappings, open_files, wait_until, workspace};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SOON: Duration = Duration::from_secs(60);
/// Bytes that netmapd may grow by: what its allocator keeps, not what it forgets to free.
const GROWTH: u64 = 4 << 20;

fn kills() -> u64 {
    std::env::var("NMX_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

/// Memory of its own that a process has; regions and ring states are shared, and count as mappings.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
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
    daemons.expect_sound(SOON);
    // A tenth of a second each, at the very worst.
    run.wait_for("alone", SOON + Duration::from_millis(100 * kills));
    let took = begun.elapsed();
    assert!(daemon.is_alive(), "{}", daemon.stderr());

    let mut now = serde_json::Value::Null;
    let left = wait_until(SOON, || {
        now = daemons.status();
        list(&now, "ports").len() == 4
    });
    assert!(left, "ports of the dead: {now}");
    daemons.expect_sound(SOON);
    let after = resident(daemon.pid());
    assert!(after < before + GROWTH, "netmapd grew from {before} to {after} bytes");
    // The regions of the pipe and of the ports of the switch, state of two pipe ends and two ports, the switch itself.
    assert!(mappings(daemon.pid()) <= 12, "{} mappings", mappings(daemon.pid()));

    run.signal(libc::SIGTERM);
    run.wait(SOON).expect_success();
    assert!(wait_until(SOON, || list(&daemons.status(), "ports").is_empty()), "{}", daemons.status());
    assert!(
        wait_until(SOON, || open_files(daemon.pid()) == files),
        "{} files, {files} before",
        open_files(daemon.pid())
    );
    assert_eq!(mappings(daemon.pid()), 0);
    println!(
        "{kills} deaths in {took:?}; netmapd: {files} files before and after, {before} bytes of its own, then {after}"
    );
}
