//! VALE unicast inside one process: `cargo run --release -p netmap-xdp-benches --example vale [LEN [MODE [PACKETS]]]`.
//!
//! Mode `alternate` (one thread sends a batch and takes it; the default) or `threads` (a sender and a receiver). Prints
//! nanoseconds of time and of CPU for each packet that arrived, both sides together. For instructions, run it under callgrind
//! with two numbers of packets and divide the difference.

use netmap_xdp::api::Port;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

fn cpu_ns() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the structure; cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

fn frame(len: usize, to: u8, from: u8) -> Vec<u8> {
    let mut f = vec![0u8; len];
    f[..12].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from]);
    f
}

fn fill(port: &mut Port, frame: &[u8]) {
    // Once: the slots keep their contents, as a generator relies on.
    let tx = port.tx(0);
    for i in 0..tx.space() {
        if let Some(slot) = tx.slot(i) {
            slot.write_at(0, frame);
            slot.set_len(frame.len());
        }
    }
}

fn push(port: &mut Port, n: u32) {
    let mut tx = port.tx(0);
    // All slots but one were filled; the last is as long as the others after a round.
    tx.advance(n);
    drop(tx);
    port.sync_tx().expect("sync");
}

fn pull(port: &mut Port) -> u32 {
    port.sync_rx().expect("sync");
    let mut rx = port.rx(0);
    let n = rx.available();
    rx.release(n);
    n
}

fn main() {
    let mut args = std::env::args().skip(1);
    let len: usize = args.next().and_then(|a| a.parse().ok()).unwrap_or(60);
    let mode = args.next().unwrap_or_else(|| "alternate".into());
    let mut a = Port::open("vale0:a").expect("port a");
    let mut b = Port::open("vale0:b").expect("port b");
    // b makes itself known, and so does every slot of a.
    b.tx(0).push(&frame(60, 1, 2));
    b.sync_tx().expect("sync");
    pull(&mut a);
    fill(&mut a, &frame(len, 2, 1));
    push(&mut a, 1);
    fill(&mut a, &frame(len, 2, 1));
    pull(&mut b);
    pull(&mut b);

    let total: u64 = args.next().and_then(|a| a.parse().ok()).unwrap_or(40_000_000);
    let (start, cpu) = (Instant::now(), cpu_ns());
    let mut got = 0u64;
    if mode == "threads" {
        let (stop, taken) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|s| {
            s.spawn(|| {
                let mut sent = 0;
                while !stop.load(Relaxed) {
                    // No faster than the receiver: packets that find no room are not what is measured.
                    if sent - taken.load(Relaxed) <= 512 {
                        push(&mut a, 256);
                        sent += 256;
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
            while got < total {
                let n = pull(&mut b);
                if n == 0 {
                    std::thread::yield_now();
                }
                got += u64::from(n);
                taken.store(got, Relaxed);
            }
            stop.store(true, Relaxed);
        });
    } else {
        while got < total {
            push(&mut a, 512);
            got += u64::from(pull(&mut b));
        }
    }
    let ns = start.elapsed().as_secs_f64() * 1e9 / got as f64;
    let cpu = (cpu_ns() - cpu) / got as f64;
    let gbits = len as f64 * 8.0 / ns;
    println!(
        "{mode}: {len} bytes: {ns:.1} ns ({cpu:.1} of CPU), {:.2} Mpps, {gbits:.1} Gbit/s; {got} packets, {:?}",
        1e3 / ns,
        b.drops()
    );
}
