//! `nmx top`: rates of every ring over an interval. On a terminal the screen is drawn anew each time; else, or with
//! `--batch`, each interval is a block of lines of its own.

use super::status::ring_name;
use super::table;
use crate::signal;
use crate::units::{parse_seconds, show};
use clap::Args;
use netmap_xdp::api::status::{Status, counters};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
pub struct Options {
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// End after so many
    #[arg(short = 'n', long, value_name = "NUMBER")]
    count: Option<u64>,
    /// Lines instead of a screen; always so unless the output is a terminal
    #[arg(short, long)]
    batch: bool,
    /// Rings on which nothing happens too
    #[arg(short, long)]
    all: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let span = parse_seconds(text)?;
    if span < Duration::from_millis(10) { Err("at least 0.01 seconds".into()) } else { Ok(span) }
}

/// Counters of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    packets: u64,
    bytes: u64,
    drops: u64,
    syncs: u64,
}

/// A ring: port, namespace, direction and index.
type Key = (String, u64, u32, u16);

/// Counters of every ring, with its name.
fn count(now: &Status) -> Vec<(Key, String, Count)> {
    let mut all = Vec::new();
    for port in &now.ports {
        for r in &port.rings {
            let drops = r.drops.iter().map(|d| d.1).sum();
            let count = Count { packets: r.packets, bytes: r.bytes, drops, syncs: r.syncs };
            all.push(((port.name.clone(), port.namespace, r.dir as u32, r.id), ring_name(port, r), count));
        }
    }
    all
}

/// One report. A ring that was not there before, or started anew, has no rate yet.
fn report(before: &HashMap<Key, Count>, now: &[(Key, String, Count)], span: Duration, all: bool) -> String {
    let seconds = span.as_secs_f64().max(1e-6);
    let mut rows = vec![["PORT", "RING", "pps", "bit/s", "batch", "drops/s"].map(String::from).to_vec()];
    for (key, ring, c) in now {
        let Some(b) = before.get(key).filter(|b| b.packets <= c.packets && b.bytes <= c.bytes) else { continue };
        let (packets, bytes) = (c.packets - b.packets, c.bytes - b.bytes);
        let (drops, syncs) = (c.drops.saturating_sub(b.drops), c.syncs.saturating_sub(b.syncs));
        if packets + drops == 0 && !all {
            continue;
        }
        let batch = if syncs == 0 { 0.0 } else { packets as f64 / syncs as f64 };
        rows.push(vec![
            key.0.clone(),
            ring.clone(),
            show(packets as f64 / seconds, "", true),
            show(8.0 * bytes as f64 / seconds, "", true),
            format!("{batch:.1}"),
            show(drops as f64 / seconds, "", true),
        ]);
    }
    if rows.len() == 1 { "nothing moves\n".to_string() } else { table(&rows, 2, "") }
}

pub fn run(options: &Options) -> Result<ExitCode, String> {
    signal::install()?;
    let screen = !options.batch && std::io::stdout().is_terminal();
    let look = || counters().map(|s| count(&s)).map_err(|e| e.to_string());
    let mut before = look()?;
    let mut since = Instant::now();
    let mut reports = 0;
    while !signal::stopped() && options.count.is_none_or(|n| reports < n) {
        let left = options.interval.saturating_sub(since.elapsed());
        if !left.is_zero() {
            std::thread::sleep(left.min(Duration::from_millis(50)));
            continue;
        }
        let now = look()?;
        let span = since.elapsed();
        since = Instant::now();
        let map: HashMap<Key, Count> = before.into_iter().map(|(key, _, count)| (key, count)).collect();
        let text = report(&map, &now, span, options.all);
        // Home, and clear what is below.
        let text = if screen { format!("\x1b[H\x1b[J{text}") } else { format!("{text}\n") };
        signal::print(&text, false);
        before = now;
        reports += 1;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_over_time_and_quiet_rings_are_left_out() {
        let key = |id| ("eth0".to_string(), 1, 0, id);
        let count = |packets, drops| Count { packets, bytes: packets * 100, drops, syncs: packets / 10 };
        let before = HashMap::from([(key(0), count(100, 0)), (key(1), count(5, 5)), (key(3), count(900, 0))]);
        let ring = |id, c| (key(id), format!("tx {id}"), c);
        let now = [ring(0, count(2100, 6)), ring(1, count(5, 5)), ring(2, count(9, 9)), ring(3, count(1, 0))];
        let text = report(&before, &now, Duration::from_secs(2), false);
        assert_eq!(text.lines().count(), 2, "{text}");
        for part in ["eth0", "tx 0", "1.000 K", "800.000 K", "10.0", "3.000"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert_eq!(report(&before, &now[1..2], Duration::from_secs(2), false), "nothing moves\n");
        assert_eq!(report(&before, &now, Duration::from_secs(2), true).lines().count(), 3, "new rings have no rate");
    }
}
