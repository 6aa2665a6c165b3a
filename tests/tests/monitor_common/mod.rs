//! Ports, numbered frames and their checks, for the tests of monitors.

use netmap_xdp::api::{Builder, Port};
use netmap_xdp::client::settled;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long anything may take that ought to happen at once: generous, for machines that are busy with other things.
pub const SOON: Duration = Duration::from_secs(30);

/// The buffers of the process's regions are counted, so tests take turns.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn pipe(name: &str, slots: u32) -> (Port, Port) {
    let open = |bracket: &str| Builder::new(&format!("netmap:{name}{bracket}1")).tx_slots(slots).rx_slots(slots).open();
    (open("{").expect("master"), open("}").expect("slave"))
}

#[track_caller]
pub fn every_buffer_is_somewhere() {
    let counts = settled().expect("the region exists while a port is open");
    assert_eq!(counts.free + counts.held, counts.usable, "{counts:?}");
}

pub fn frame(seq: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    bytes.extend(seq.to_be_bytes());
    bytes.extend((bytes.len()..len).map(|i| (seq as usize * 31 + i * 7) as u8));
    bytes
}

pub fn length(seq: u64) -> usize {
    60 + (seq as usize * 7919) % 1400
}

#[track_caller]
pub fn check(bytes: &[u8]) -> u64 {
    let seq = u64::from_be_bytes(bytes[14..22].try_into().unwrap());
    assert!(bytes == frame(seq, length(seq)), "frame {seq} of {} bytes is wrong", bytes.len());
    seq
}

#[track_caller]
pub fn send(port: &mut Port, ring: usize, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        assert!(port.tx(ring).push(&frame(seq, length(seq))), "no room for {seq}");
    }
    port.sync_tx().unwrap();
}

/// Everything that waits in a ring, with its flags; given back.
#[track_caller]
pub fn drain(port: &mut Port, ring: usize) -> Vec<(u64, u16)> {
    port.sync_rx().unwrap();
    let got = read(port, ring);
    port.sync_rx().unwrap();
    got
}

#[track_caller]
pub fn read(port: &mut Port, ring: usize) -> Vec<(u64, u16)> {
    let mut rx = port.rx(ring);
    let n = rx.available();
    let one = |i| {
        let slot = rx.slot(i).unwrap();
        let mut bytes = vec![0; slot.len()];
        slot.read_at(0, &mut bytes);
        (check(&bytes), slot.flags())
    };
    let got = (0..n).map(one).collect();
    rx.release(n);
    got
}

pub fn seqs(got: &[(u64, u16)]) -> Vec<u64> {
    got.iter().map(|(seq, _)| *seq).collect()
}
