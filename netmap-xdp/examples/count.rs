//! Counts what arrives on a port, once a second.
//!
//! `cargo run --release --example count netmap:eth1`

use netmap_xdp::api::{Error, Interest, Port};
use std::time::{Duration, Instant};

fn main() -> Result<(), Error> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "netmap:veth0".to_string());
    let mut port = Port::open(&name)?;
    println!("{name}: {} receive rings, {} mode", port.rx_count(), port.mode());
    let (mut packets, mut bytes, mut since) = (0u64, 0u64, Instant::now());
    loop {
        port.wait(Interest::READ, Some(Duration::from_secs(1)))?;
        for i in 0..port.rx_count() {
            let mut ring = port.rx(i);
            let n = ring.available();
            bytes += (0..n).filter_map(|k| ring.slot(k)).map(|slot| slot.len() as u64).sum::<u64>();
            packets += u64::from(n);
            ring.release(n);
        }
        if since.elapsed() >= Duration::from_secs(1) {
            println!("{packets} packets, {bytes} bytes; dropped: {:?}", port.drops());
            (packets, bytes, since) = (0, 0, Instant::now());
        }
    }
}
