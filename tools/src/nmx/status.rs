//! `nmx status`: all there is, once, for people or as JSON. The shape of the JSON is in docs/nmx.md, and only grows.

use super::{short, table};
use clap::Args;
use netmap_xdp::api::status::{Dir, PortStatus, RegionStatus, RingStatus, Status, status};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

/// How often, and after which pause, buffers that seem to be lost are looked for again.
const LOOKS: usize = 5;
const PAUSE: Duration = Duration::from_millis(30);
/// Version of the JSON: changed when something that is there is changed.
const SHAPE: u32 = 1;

#[derive(Args, Debug)]
pub struct Options {
    /// As JSON, on one line
    #[arg(long)]
    json: bool,
    /// Fail (status 1) if a buffer is missing or in two places
    #[arg(long)]
    check: bool,
}

pub fn run(options: &Options) -> Result<ExitCode, String> {
    let now = settled().map_err(|e| e.to_string())?;
    if options.json {
        println!("{}", as_json(&now));
    } else {
        print!("{}", as_text(&now));
    }
    let sound = now.regions.iter().all(|r| r.missing == 0 && r.twice == 0);
    Ok(if options.check && !sound { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// What there is. A buffer that a program is just moving seems to be nowhere, or in two places: what stays so is told.
fn settled() -> Result<Status, netmap_xdp::api::Error> {
    let odd = |s: &Status| s.regions.iter().flat_map(|r| r.examples.iter().map(|&b| (r.id, b))).collect::<HashSet<_>>();
    let mut now = status()?;
    for _ in 1..LOOKS {
        if odd(&now).is_empty() {
            break;
        }
        std::thread::sleep(PAUSE);
        let then = status()?;
        // Others each time: they move.
        if odd(&then).is_disjoint(&odd(&now)) && !odd(&then).is_empty() {
            continue;
        }
        now = then;
    }
    Ok(now)
}

/// Name of a ring, as in `tx 0` or `host rx 0`.
pub fn ring_name(port: &PortStatus, ring: &RingStatus) -> String {
    let way = direction(ring.dir);
    if !ring.host {
        return format!("{way} {}", ring.id);
    }
    let first = port.rings.iter().filter(|r| r.host && r.dir == ring.dir).map(|r| r.id).min().unwrap_or(0);
    format!("host {way} {}", ring.id - first)
}

fn direction(dir: Dir) -> &'static str {
    if dir == Dir::Tx { "tx" } else { "rx" }
}

fn drops(ring: &RingStatus) -> String {
    let words: Vec<String> = ring.drops.iter().map(|(why, n)| format!("{why} {}", short(*n))).collect();
    words.join(", ")
}

fn state(ring: &RingStatus) -> String {
    let words = [
        (ring.users == 0, "unused"),
        (ring.exclusive, "exclusive"),
        (ring.pending, "waits for the interface"),
        (ring.stopped, "dead"),
        (ring.monitored, "monitored"),
    ];
    words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect::<Vec<_>>().join(", ")
}

fn region_text(r: &RegionStatus) -> String {
    let whose = if r.owner.is_empty() { String::new() } else { format!(" of {}", r.owner) };
    let mut text = format!(
        "region {}{whose}: {} buffers of {} bytes: {} free, {} in slots, {} with the kernel, {} spare, {} extra, {} in hand\n",
        r.id, r.buffers, r.buf_size, r.free, r.slots, r.kernel, r.spare, r.extra, r.private
    );
    if r.missing + r.twice > 0 {
        let named: Vec<String> = r.examples.iter().map(u32::to_string).collect();
        text.push_str(&format!("  {} missing, {} in two places: {}\n", r.missing, r.twice, named.join(" ")));
    }
    text
}

fn as_text(now: &Status) -> String {
    if now.ports.is_empty() {
        return "no netmap port is open\n".to_string();
    }
    let mut text: String = now.regions.iter().map(region_text).collect();
    for port in &now.ports {
        let mode = port.mode.map_or_else(String::new, |m| format!(", {m}"));
        text.push_str(&format!("\n{}: {}{mode}, region {}", port.name, port.kind, port.region));
        if port.namespace != 0 {
            text.push_str(&format!(", netns {}", port.namespace));
        }
        text.push('\n');
        for h in &port.holders {
            let what = if h.comm.is_empty() { "(gone; others have its descriptor)" } else { &h.comm };
            text.push_str(&format!("  held by process {} {what}, user {}\n", h.pid, h.uid));
        }
        let mut rows: Vec<Vec<String>> =
            vec![["ring", "state", "drops", "slots", "kernel", "packets", "bytes", "syncs"].map(String::from).to_vec()];
        for r in &port.rings {
            let words = [ring_name(port, r), state(r), drops(r)];
            let numbers = [u64::from(r.slots), u64::from(r.kernel), r.packets, r.bytes, r.syncs];
            rows.push(words.into_iter().chain(numbers.map(short)).collect());
        }
        if rows.len() > 1 {
            text.push_str(&table(&rows, 3, "  "));
        }
    }
    text
}

fn as_json(now: &Status) -> Value {
    let region = |r: &RegionStatus| {
        json!({
            "id": r.id, "owner": r.owner, "buf_size": r.buf_size, "buffers": r.buffers, "free": r.free, "slots": r.slots, "kernel": r.kernel,
            "spare": r.spare, "extra": r.extra, "private": r.private, "missing": r.missing, "twice": r.twice, "examples": r.examples,
        })
    };
    let ring = |r: &RingStatus| {
        let drops: serde_json::Map<String, Value> = r.drops.iter().map(|(why, n)| (why.clone(), json!(n))).collect();
        json!({
            "dir": direction(r.dir), "id": r.id, "host": r.host, "slots": r.slots, "users": r.users,
            "exclusive": r.exclusive, "pending": r.pending, "dead": r.stopped, "monitored": r.monitored,
            "syncing": r.syncing, "kernel": r.kernel, "packets": r.packets, "bytes": r.bytes, "syncs": r.syncs,
            "reinits": r.reinits, "drops": drops,
        })
    };
    let port = |p: &PortStatus| {
        let holders = p.holders.iter().map(|h| json!({ "pid": h.pid, "uid": h.uid, "comm": h.comm }));
        json!({
            "name": p.name, "kind": p.kind.to_string(), "mode": p.mode.map(|m| m.to_string()), "region": p.region,
            "netns": p.namespace, "holders": holders.collect::<Vec<_>>(),
            "rings": p.rings.iter().map(ring).collect::<Vec<_>>(),
        })
    };
    json!({
        "shape": SHAPE,
        "regions": now.regions.iter().map(region).collect::<Vec<_>>(),
        "ports": now.ports.iter().map(port).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use netmap_xdp::api::Port;

    #[test]
    fn what_is_open_is_told_for_people_and_for_programs() {
        let mut a = Port::open("netmap:nmxstatus{1").unwrap();
        let mut b = Port::open("netmap:nmxstatus}1").unwrap();
        assert!(a.tx(0).push(&[0; 60]));
        a.sync_tx().unwrap();
        b.sync_rx().unwrap();
        b.rx(0).release(1);
        b.sync_rx().unwrap();
        let mut now = settled().unwrap();
        // Other tests of this process have ports too.
        now.ports.retain(|p| p.name.starts_with("nmxstatus"));
        let text = as_text(&now);
        let pid = std::process::id();
        for part in ["region 1: ", "nmxstatus{1: pipe, region 1", &format!("held by process {pid} "), "rx 0", "syncs"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let json = as_json(&now);
        assert_eq!(json["shape"], 1);
        let region = &json["regions"][0];
        let sum: u64 = ["free", "slots", "kernel", "spare", "extra", "private", "missing"]
            .iter()
            .filter_map(|k| region[k].as_u64())
            .sum();
        assert_eq!(Some(sum), region["buffers"].as_u64());
        assert_eq!(json["ports"][0]["holders"][0]["pid"], pid);
        let ring = &json["ports"][0]["rings"][0];
        assert_eq!((&ring["dir"], &ring["packets"], &ring["bytes"]), (&json!("tx"), &json!(1), &json!(60)));
        assert_eq!(as_text(&Status::default()), "no netmap port is open\n");
    }
}
