//! Sends every frame back where it came from, addresses exchanged, without copying.
//!
//! `cargo run --release --example reflect netmap:eth1`

use netmap_xdp::api::{Error, Interest, Port};

fn main() -> Result<(), Error> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "netmap:veth0".to_string());
    let mut port = Port::open(&name)?;
    loop {
        // Packets to answer; the sync that `wait` makes also pushes the answers of the last turn.
        port.wait(Interest::READ, None)?;
        for i in 0..port.rx_count().min(port.tx_count()) {
            let (mut rx, mut tx) = port.pair(i, i);
            let n = rx.available().min(tx.space());
            for k in 0..n {
                let (Some(from), Some(to)) = (rx.slot(k), tx.slot(k)) else { break };
                let mut addresses = [0; 12];
                if from.read_at(0, &mut addresses) == 12 {
                    addresses.rotate_left(6);
                    from.write_at(0, &addresses);
                }
                from.swap_into(&to)?;
            }
            rx.release(n);
            tx.advance(n);
        }
        port.sync_tx()?;
    }
}
