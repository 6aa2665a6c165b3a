//! Host rings: TCP of a host whose NIC is netmap's, through `bridge` between the NIC and the host, both ways.
//!
//! ```text
//! a: TCP ─ stack ─ host rings ─ bridge ─ NIC rings ─ veth0 ═ veth1 ─ stack ─ TCP :b
//! ```
//! The peer is the same pair without netmap, which hands over segments of 64 KB that were never cut and checksums that were
//! never made; so the goal is a rate, not a share. Sender, bridge and receiver share the processors.

use crate::machine::beside;
use crate::stats::Sample;
use crate::{Effort, Reached};
use netmap_xdp_tests::{Pair, Veth, is_root};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Mbit/s that native mode must reach each way.
const GOAL: f64 = 1000.0;
const START: Duration = Duration::from_secs(20);

const CONTENDERS: [(&str, Option<&str>); 3] =
    [("no netmap", None), ("bridge, native", Some("native")), ("bridge, generic", Some("generic"))];

/// The whole benchmark.
pub fn run(effort: &Effort) -> Reached {
    if !is_root() {
        println!("\nhost: left out, since network namespaces need root");
        return false;
    }
    let window = effort.window() * 2;
    let mut rates: [[Sample; 2]; CONTENDERS.len()] = Default::default();
    for _ in 0..effort.rounds() {
        for ((_, mode), rates) in CONTENDERS.iter().zip(&mut rates) {
            let pair = Veth::new().addresses("10.58.0.1/24", "10.58.0.2/24").build();
            let _bridge = mode.map(|mode| {
                let ports = ["-i", "netmap:veth0", "-i", "netmap:veth0^", "-w", "0"];
                let mut bridge = pair
                    .a
                    .command(beside("bridge"))
                    .env("NETMAP_XDP_MODE", mode)
                    .env("NETMAP_XDP_ENGINE", "embedded")
                    .args(ports)
                    .spawn();
                bridge.wait_for(" <-> ", START);
                bridge
            });
            for (out, rate) in rates.iter_mut().enumerate() {
                rate.add(carry(&pair, out == 0, window));
            }
        }
    }
    println!(
        "\nhost: one TCP connection, {} rounds of {} ms; goal {GOAL} Mbit/s in native mode",
        effort.rounds(),
        window.as_millis()
    );
    println!("{:<20} {:<28} Mbit/s in (min..max)", "", "Mbit/s out (min..max)");
    let mut reached = true;
    for ((name, mode), [out, into]) in CONTENDERS.iter().zip(&rates) {
        let met = *mode != Some("native") || (out.median() >= GOAL && into.median() >= GOAL);
        println!("{name:<20} {:<28} {}{}", out.show(0), into.show(0), if met { "" } else { "  missed" });
        reached &= met;
    }
    reached
}

/// Mbit/s of one connection, out of host `a` or into it.
fn carry(pair: &Pair, out: bool, window: Duration) -> f64 {
    let listener = pair.b.ns.run(|| TcpListener::bind("10.58.0.2:0")).expect("an address to listen at");
    let to = listener.local_addr().expect("its address");
    let patient = |stream: TcpStream| {
        stream.set_read_timeout(Some(START)).expect("a timeout");
        stream.set_write_timeout(Some(START)).expect("a timeout");
        stream
    };
    std::thread::scope(|scope| {
        let far = scope.spawn(|| pair.b.ns.run(|| patient(listener.accept().expect("a connection").0)));
        let near = pair.a.ns.run(|| patient(TcpStream::connect(to).expect("a connection")));
        let far = far.join().expect("the other side");
        let (mut from, mut to) = if out { (near, far) } else { (far, near) };
        scope.spawn(move || {
            let data = vec![0x5a; 1 << 17];
            // It ends when the other side is closed.
            while from.write_all(&data).is_ok() {}
        });
        let mut room = vec![0; 1 << 18];
        let (mut bytes, start) = (0, Instant::now());
        while start.elapsed() < window {
            bytes += to.read(&mut room).expect("data");
        }
        bytes as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e6
    })
}
