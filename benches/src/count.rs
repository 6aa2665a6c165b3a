//! Instructions per packet, counted by callgrind: a number that does not depend on what else the machine does, so that a
//! change that costs something is seen on any machine. Each sync has a budget, a tenth above what it was when the budget was
//! set; who goes over it has to say why and set another.
//!
//! What is counted runs in a process of its own, this program again (`count`), inside of functions that callgrind finds by
//! their names. The other end of the pair is in the same process and not counted.

use crate::layer;
use crate::{Effort, Reached};
use clap::{Args, ValueEnum};
use netmap_xdp::api::Port;
use netmap_xdp::ring::Dir;
use std::process::{Command, ExitCode};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    Txsync,
    Rxsync,
    PipeTx,
    PipeRx,
    ValeTx,
    ValeRx,
    ValeLongTx,
}

/// What a packet may cost at a batch of 64.
const BUDGETS: [(What, &str, f64); 7] = [
    (What::Txsync, "NIC txsync", 59.0),
    (What::Rxsync, "NIC rxsync", 75.0),
    (What::PipeTx, "pipe txsync", 56.0),
    (What::PipeRx, "pipe rxsync", 56.0),
    (What::ValeTx, "VALE txsync, 60 bytes", 125.0),
    (What::ValeRx, "VALE rxsync, 60 bytes", 27.0),
    (What::ValeLongTx, "VALE txsync, 1514 bytes", 309.0),
];
const BATCH: u32 = 64;
/// Syncs before rings and caches of ours are in their steady state: several times around.
const WARM: u32 = 80;

/// The table, with `--check` as a guard.
pub fn run(effort: &Effort) -> Reached {
    println!("\ninstructions: per packet at batches of {BATCH}, without the kernel; the budget is what they may be");
    println!("{:<28} {:>12} {:>8}", "", "instructions", "budget");
    let mut reached = true;
    for (what, title, budget) in BUDGETS {
        match instructions(what, BATCH, effort) {
            Ok(n) => {
                let verdict = if n <= budget { "" } else { "  missed" };
                println!("{title:<28} {n:>12.1} {budget:>8.0}{verdict}");
                reached &= n <= budget;
            }
            Err(why) => {
                println!("{title:<28} {why:>12}  missed");
                reached = false;
            }
        }
    }
    reached
}

/// Runs this program under callgrind.
pub fn instructions(what: What, batch: u32, effort: &Effort) -> Result<f64, &'static str> {
    let turns = if effort.quick { 32 } else { 256 };
    let own = std::env::current_exe().map_err(|_| "unknown")?;
    let name = what.to_possible_value().ok_or("unknown")?;
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*sync_of_interest*"])
        .arg(own)
        .args(["count", name.get_name(), &batch.to_string(), &turns.to_string()])
        // The other end has to be in the same process.
        .env("NETMAP_XDP_ENGINE", "embedded")
        .output()
        .map_err(|_| "no valgrind")?;
    if !out.status.success() {
        return Err("failed");
    }
    let text = String::from_utf8_lossy(&out.stderr);
    let collected = text.lines().find_map(|l| l.split_once("Collected :"));
    let total: f64 = collected.and_then(|(_, n)| n.trim().parse().ok()).ok_or("failed")?;
    Ok(total / f64::from(turns) / f64::from(batch))
}

/// What runs under callgrind.
#[derive(Args)]
pub struct Count {
    what: What,
    batch: u32,
    turns: u32,
}

/// A few syncs, after as many as fill the rings.
pub fn count(c: &Count) -> ExitCode {
    match c.what {
        What::Txsync => layer::count(Dir::Tx, c.batch, c.turns),
        What::Rxsync => layer::count(Dir::Rx, c.batch, c.turns),
        What::PipeTx => pair(["netmap:count{1", "netmap:count}1"], Dir::Tx, 60, c),
        What::PipeRx => pair(["netmap:count{1", "netmap:count}1"], Dir::Rx, 60, c),
        What::ValeTx => pair(["vale0:a", "vale0:b"], Dir::Tx, 60, c),
        What::ValeRx => pair(["vale0:a", "vale0:b"], Dir::Rx, 60, c),
        What::ValeLongTx => pair(["vale0:a", "vale0:b"], Dir::Tx, 1514, c),
    }
    ExitCode::SUCCESS
}

/// What is counted. Not inlined, so that callgrind finds it by its name.
#[inline(never)]
fn tx_sync_of_interest(port: &mut Port) {
    port.sync_tx().expect("a port in memory");
}

/// As above.
#[inline(never)]
fn rx_sync_of_interest(port: &mut Port) {
    port.sync_rx().expect("a port in memory");
}

/// Sends batches from one end and takes them at the other; only the syncs of one side are counted, and those not before
/// everything is warm.
fn pair(names: [&str; 2], counted: Dir, len: usize, c: &Count) {
    let [mut a, mut b] = names.map(|name| Port::open(name).expect("a port in memory"));
    let mut frame = vec![0; len];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    if names[0].starts_with("vale") {
        // The switch learns where b is.
        b.tx(0).push(&[[2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 2], [0; 12], [0; 12], [0; 12], [0; 12]].concat());
        b.sync_tx().expect("a port in memory");
    }
    for turn in 0..WARM + c.turns {
        let mut tx = a.tx(0);
        for slot in (0..c.batch).filter_map(|i| tx.slot(i)) {
            slot.write_at(0, &frame);
            slot.set_len(len);
            slot.set_flags(0);
        }
        assert!(tx.space() >= c.batch, "no room for a batch");
        tx.advance(c.batch);
        drop(tx);
        let warm = turn >= WARM;
        if warm && counted == Dir::Tx {
            tx_sync_of_interest(&mut a)
        } else {
            a.sync_tx().expect("a port in memory")
        }
        if warm && counted == Dir::Rx {
            rx_sync_of_interest(&mut b)
        } else {
            b.sync_rx().expect("a port in memory")
        }
        let mut rx = b.rx(0);
        assert_eq!(rx.available(), c.batch, "every packet crosses");
        rx.release(c.batch);
    }
}
