//! Capturing with copy monitors: what arrives is seen before the monitored program looks, each packet once, in order and
//! unchanged, whoever fills the ring and however many watch.

mod monitor_common;

use monitor_common::*;
use netmap_xdp::api::{Builder, Interest, NS_TXMON, Port};
use netmap_xdp::client::settled;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

#[test]
fn the_receive_ring_of_a_switch_is_shown_before_its_reader_looks_and_not_again_then() {
    let _turn = alone();
    let (mut reader, mut sender) = (monitor_of("vale901:r"), monitor_of("vale901:s"));
    let mut watch = [monitor_of("vale901:r/r"), monitor_of("vale901:r/r")];
    for round in 0..50 {
        let sent = round * 7..round * 7 + 7;
        send(&mut sender, 0, sent.clone());
        for m in &mut watch {
            assert_eq!(seqs(&drain(m, 0)), sent.clone().collect::<Vec<_>>(), "before the reader looks");
        }
        assert_eq!(seqs(&drain(&mut reader, 0)), sent.collect::<Vec<_>>());
        assert!(watch.iter_mut().all(|m| drain(m, 0).is_empty()), "nothing is seen twice");
    }
    let [one, two] = watch;
    drop(one);
    send(&mut sender, 0, 1000..1005);
    drop(two);
    send(&mut sender, 0, 1005..1009);
    assert_eq!(seqs(&drain(&mut reader, 0)), (1000..1009).collect::<Vec<_>>(), "shown or not, everything arrives");
    let mut late = monitor_of("vale901:r/r");
    send(&mut sender, 0, 2000..2003);
    assert_eq!(seqs(&drain(&mut late, 0)), [2000, 2001, 2002]);
    assert_eq!(seqs(&drain(&mut reader, 0)), [2000, 2001, 2002]);
}

/// A port by name without `netmap:`.
fn monitor_of(name: &str) -> Port {
    Port::open(name).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn senders_that_fill_one_ring_at_once_show_each_packet_once_in_the_order_of_the_ring() {
    let _turn = alone();
    const SENDERS: u64 = 3;
    const EACH: u64 = 4000;
    let mut reader = monitor_of("vale902:r");
    // Deep enough that it loses nothing: what is to be shown is the ring's order, not the monitor's patience.
    let mut watch = Builder::new("vale902:r/r").rx_slots(4096).open().unwrap();
    let mut ports: Vec<Port> = (0..SENDERS).map(|i| monitor_of(&format!("vale902:s{i}"))).collect();
    let (received, captured) = (AtomicU64::new(0), AtomicU64::new(0));
    let deadline = Instant::now() + SOON;
    let on = || assert!(Instant::now() < deadline, "{received:?} received, {captured:?} captured");
    let (got, seen) = std::thread::scope(|scope| {
        for (t, port) in ports.iter_mut().enumerate() {
            let (received, captured) = (&received, &captured);
            scope.spawn(move || {
                let mut sent = 0;
                while sent < EACH {
                    // No faster than both are read, so that neither the ring nor the monitor drops.
                    if sent * SENDERS < received.load(Relaxed).min(captured.load(Relaxed)) + 300 {
                        let from = t as u64 * EACH + sent;
                        send(port, 0, from..from + 4);
                        sent += 4;
                    }
                    on();
                }
            });
        }
        let reader = scope.spawn(|| {
            let mut got = Vec::new();
            while (got.len() as u64) < SENDERS * EACH {
                on();
                reader.wait(Interest::READ, Some(Duration::from_millis(200))).unwrap();
                got.extend(seqs(&read(&mut reader, 0)));
                received.store(got.len() as u64, Relaxed);
            }
            got
        });
        let mut seen = Vec::new();
        while (seen.len() as u64) < SENDERS * EACH {
            on();
            watch.wait(Interest::READ, Some(Duration::from_millis(200))).unwrap();
            seen.extend(seqs(&read(&mut watch, 0)));
            captured.store(seen.len() as u64, Relaxed);
        }
        (reader.join().unwrap(), seen)
    });
    assert!(got == seen, "the monitor saw something else than the reader, or in another order");
    let all: std::collections::BTreeSet<_> = got.iter().collect();
    assert_eq!(all.len() as u64, SENDERS * EACH);
}

#[test]
fn several_monitors_capture_a_busy_pipe_and_every_byte_of_it() {
    let _turn = alone();
    const PACKETS: u64 = 30_000;
    let (mut a, mut b) = pipe("capture", 256);
    let open = |name: &str| Builder::new(&format!("netmap:capture{name}")).rx_slots(2048).open().unwrap();
    let watches = ["{1/rt", "{1/t", "}1/r", "}1/rt"].map(|name| (name, open(name)));
    // The slowest of all readers sets the pace, so that nothing is lost and all can be compared.
    let seen: [AtomicU64; 5] = Default::default();
    let failed = AtomicBool::new(false);
    let deadline = Instant::now() + SOON;
    let on = || !failed.load(Relaxed) && Instant::now() < deadline;
    std::thread::scope(|scope| {
        let seen = &seen;
        let mut threads = Vec::new();
        for (i, (name, mut port)) in watches.into_iter().enumerate() {
            threads.push(scope.spawn(move || {
                let sender = name.starts_with('{');
                let mut next = 0;
                while next < PACKETS && on() {
                    port.wait(Interest::READ, Some(Duration::from_millis(100))).unwrap();
                    // `read` compares every byte.
                    for (seq, flags) in read(&mut port, 0) {
                        assert_eq!((seq, flags & NS_TXMON != 0), (next, sender), "{name}");
                        next += 1;
                    }
                    seen[i].store(next, Relaxed);
                }
                assert_eq!(next, PACKETS, "{name}");
            }));
        }
        threads.push(scope.spawn(|| {
            let mut next = 0;
            while next < PACKETS && on() {
                b.wait(Interest::READ, Some(Duration::from_millis(100))).unwrap();
                for (seq, _) in read(&mut b, 0) {
                    assert_eq!(seq, next);
                    next += 1;
                }
                seen[4].store(next, Relaxed);
            }
            assert_eq!(next, PACKETS);
        }));
        let mut sent = 0;
        while sent < PACKETS && on() {
            let slowest = seen.iter().map(|n| n.load(Relaxed)).min().unwrap();
            let mut tx = a.tx(0);
            while sent < PACKETS.min(slowest + 1500) && tx.push(&frame(sent, length(sent))) {
                sent += 1;
            }
            drop(tx);
            a.sync_tx().unwrap();
        }
        let fine = threads.into_iter().map(|t| t.join().inspect_err(|_| failed.store(true, Relaxed)));
        assert!(fine.filter(Result::is_err).count() == 0);
    });
    every_buffer_is_somewhere();
    drop((a, b));
    assert_eq!(settled(), None);
}
