//! Monitors of pipes, inside one process without privileges, and of NICs, in namespaces.

mod monitor_common;

use monitor_common::*;
use netmap_xdp::api::{Builder, Interest, NS_BUF_CHANGED, NS_MOREFRAG, NS_TXMON, Port};
use netmap_xdp::client::settled;
use netmap_xdp_tests::{Veth, needs_root};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

fn monitor(name: &str) -> Port {
    Port::open(&format!("netmap:{name}")).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn errno(name: &str) -> i32 {
    Port::open(&format!("netmap:{name}")).map(drop).expect_err(name).errno
}

#[test]
fn a_copy_monitor_sees_what_is_sent_and_what_is_received_and_tells_them_apart() {
    let _turn = alone();
    let (mut a, mut b) = pipe("both", 16);
    let mut m = monitor("both{1/rt");
    assert_eq!((m.nic_tx_rings(), m.nic_rx_rings()), (1, 1));
    send(&mut a, 0, 0..5);
    assert_eq!(drain(&mut m, 0), (0..5).map(|seq| (seq, NS_TXMON)).collect::<Vec<_>>(), "before the receiver looks");
    assert_eq!(seqs(&drain(&mut b, 0)), [0, 1, 2, 3, 4]);
    send(&mut b, 0, 10..13);
    assert_eq!(drain(&mut m, 0), [(10, 0), (11, 0), (12, 0)], "before the monitored end looks");
    assert_eq!(seqs(&drain(&mut a, 0)), [10, 11, 12]);
    assert!(drain(&mut m, 0).is_empty(), "nothing is seen twice");
    every_buffer_is_somewhere();
    drop((a, b));
    assert_eq!(settled(), None, "a copy monitor has memory of its own");
    drop(m);
}

#[test]
fn one_direction_can_be_monitored_and_several_monitors_see_the_same() {
    let _turn = alone();
    let (mut a, mut b) = pipe("several", 32);
    let mut tx = [monitor("several{1/t"), monitor("several{1/t")];
    let mut rx = monitor("several{1/r");
    let mut other = monitor("several}1/r");
    for round in 0..100 {
        let (out, back) = (round * 20..round * 20 + 10, round * 20 + 10..round * 20 + 20);
        send(&mut a, 0, out.clone());
        assert_eq!(seqs(&drain(&mut b, 0)), out.clone().collect::<Vec<_>>());
        send(&mut b, 0, back.clone());
        assert_eq!(seqs(&drain(&mut a, 0)), back.clone().collect::<Vec<_>>());
        for m in &mut tx {
            assert_eq!(seqs(&drain(m, 0)), out.clone().collect::<Vec<_>>());
        }
        assert_eq!(seqs(&drain(&mut rx, 0)), back.collect::<Vec<_>>());
        assert_eq!(seqs(&drain(&mut other, 0)), out.collect::<Vec<_>>());
    }
    every_buffer_is_somewhere();
}

#[test]
fn a_full_monitor_loses_the_oldest_and_counts_while_traffic_goes_on() {
    let _turn = alone();
    for kind in ["rt", "z"] {
        let (mut a, mut b) = pipe("full", 16);
        let mut m = Builder::new(&format!("netmap:full{{1/{kind}")).rx_slots(8).open().unwrap();
        for round in 0..100 {
            send(&mut a, 0, round * 10..round * 10 + 10);
            assert_eq!(seqs(&drain(&mut b, 0)), (round * 10..round * 10 + 10).collect::<Vec<_>>());
            a.sync_tx().unwrap();
        }
        m.sync_rx().unwrap();
        assert_eq!(m.drops(), [("ring-full", 993)]);
        assert_eq!(seqs(&drain(&mut m, 0)), (3..10).collect::<Vec<_>>(), "of a batch the latest, /{kind}");
        assert_eq!(m.rx_counters(0).packets, 7);
        every_buffer_is_somewhere();
    }
    assert_eq!(settled(), None);
}

#[test]
fn a_zero_copy_monitor_gets_the_buffers_once_they_are_done_with() {
    let _turn = alone();
    let (mut a, mut b) = pipe("zero", 16);
    let mut m = monitor("zero{1/z");
    let sent: Vec<u32> = {
        let tx = a.tx(0);
        (0..5).map(|i| tx.slot(i).unwrap().buf_idx()).collect()
    };
    send(&mut a, 0, 0..5);
    b.sync_rx().unwrap();
    assert!(drain(&mut m, 0).is_empty(), "the receiver has them");
    assert_eq!(seqs(&drain(&mut b, 0)), [0, 1, 2, 3, 4]);
    a.sync_tx().unwrap();
    m.sync_rx().unwrap();
    let got: Vec<u32> = {
        let rx = m.rx(0);
        (0..5).map(|i| rx.slot(i).unwrap().buf_idx()).collect()
    };
    assert_eq!(got, sent, "nothing was copied");
    every_buffer_is_somewhere();
    assert_eq!(drain(&mut m, 0), (0..5).map(|seq| (seq, NS_TXMON)).collect::<Vec<_>>());
    // The free slots of the sender name other buffers now, and say so; the fifth is the one that a ring keeps.
    let tx = a.tx(0);
    let changed = (0..tx.space()).filter(|&i| tx.slot(i).unwrap().flags() & NS_BUF_CHANGED != 0).count();
    assert_eq!(changed, 4);
    drop(tx);
    // The other way: what this end receives, when its program gives it back.
    send(&mut b, 0, 7..9);
    a.sync_rx().unwrap();
    assert!(drain(&mut m, 0).is_empty(), "the program has them");
    assert_eq!(seqs(&drain(&mut a, 0)), [7, 8]);
    assert_eq!(drain(&mut m, 0), [(7, 0), (8, 0)]);
    for round in 0..200 {
        send(&mut a, 0, round * 9..round * 9 + 9);
        assert_eq!(drain(&mut b, 0).len(), 9);
        send(&mut b, 0, round..round + 1);
        assert_eq!(drain(&mut a, 0).len(), 1);
        a.sync_tx().unwrap();
        assert_eq!(drain(&mut m, 0).len(), 10);
        every_buffer_is_somewhere();
    }
    drop((a, b));
    every_buffer_is_somewhere();
    drop(m);
    assert_eq!(settled(), None);
}

#[test]
fn zero_copy_monitors_of_one_ring_see_it_one_after_the_other() {
    let _turn = alone();
    let (mut a, mut b) = pipe("chain", 32);
    let names = ["first", "second", "third"];
    let mut chain: Vec<Port> = names.iter().map(|_| monitor("chain{1/z")).collect();
    let mut copy = monitor("chain{1/t");
    let pass = |a: &mut Port, b: &mut Port, from: u64| {
        send(a, 0, from..from + 6);
        drain(b, 0);
        a.sync_tx().unwrap();
    };
    pass(&mut a, &mut b, 0);
    assert_eq!(seqs(&drain(&mut copy, 0)), [0, 1, 2, 3, 4, 5]);
    for (i, name) in names.iter().enumerate() {
        if i + 1 < names.len() {
            assert!(drain(&mut chain[i + 1], 0).is_empty(), "{name} has them");
        }
        let got = drain(&mut chain[i], 0);
        assert_eq!(got, (0..6).map(|seq| (seq, NS_TXMON)).collect::<Vec<_>>(), "{name}");
        every_buffer_is_somewhere();
    }
    // One leaves: those behind it follow on.
    drop(chain.remove(1));
    every_buffer_is_somewhere();
    pass(&mut a, &mut b, 10);
    assert_eq!(drain(&mut chain[0], 0).len(), 6);
    assert_eq!(drain(&mut chain[1], 0).len(), 6);
    drop(chain.remove(0));
    pass(&mut a, &mut b, 20);
    assert_eq!(seqs(&drain(&mut chain[0], 0)), (20..26).collect::<Vec<_>>());
    every_buffer_is_somewhere();
}

#[test]
fn one_ring_of_several_can_be_monitored_and_all_of_them() {
    let _turn = alone();
    let mut a = Port::open("netmap:rings{x@conf:rings=3,slots=32").unwrap();
    let mut b = Port::open("netmap:rings}x").unwrap();
    let (mut one, mut all) = (monitor("rings{x-1/t"), monitor("rings{x/t"));
    let mut zero = monitor("rings{x-2/z");
    assert_eq!((one.rx_count(), all.rx_count(), all.tx_count(), all.nic_rx_rings()), (1, 3, 1, 3));
    for ring in 0..3 {
        send(&mut a, ring, ring as u64 * 10..ring as u64 * 10 + 4);
    }
    for ring in 0..3 {
        assert_eq!(drain(&mut b, ring).len(), 4);
        assert_eq!(seqs(&drain(&mut all, ring)), (ring as u64 * 10..ring as u64 * 10 + 4).collect::<Vec<_>>());
    }
    a.sync_tx().unwrap();
    assert_eq!(seqs(&drain(&mut one, 0)), [10, 11, 12, 13]);
    assert_eq!(seqs(&drain(&mut zero, 0)), [20, 21, 22, 23]);
    assert_eq!(errno("rings{x-3/t"), libc::EINVAL, "no such ring");
}

#[test]
fn slots_that_wait_for_room_are_seen_once_and_fragments_keep_their_flags() {
    let _turn = alone();
    let (mut a, mut b) = pipe("frags", 16);
    let mut m = monitor("frags{1/t");
    for last in [false, true] {
        let mut tx = a.tx(0);
        tx.slot(0).unwrap().write_at(0, &frame(9, length(9)));
        tx.slot(0).unwrap().set_len(length(9));
        tx.slot(0).unwrap().set_flags(if last { 0 } else { NS_MOREFRAG });
        tx.advance(1);
        drop(tx);
        a.sync_tx().unwrap();
        a.sync_tx().unwrap();
    }
    assert_eq!(drain(&mut m, 0), [(9, NS_TXMON | NS_MOREFRAG), (9, NS_TXMON)]);
    assert_eq!(drain(&mut b, 0).len(), 2);
}

#[test]
fn what_cannot_be_monitored_is_refused_with_the_errno_of_the_original() {
    let _turn = alone();
    assert_eq!(errno("nobody{1/t"), libc::EINVAL, "nobody has it open");
    assert_eq!(errno("nosuchif0/t"), libc::ENXIO, "no such interface");
    let a = Port::open("netmap:half{1").unwrap();
    assert_eq!(errno("half}1/z"), libc::EINVAL, "the other end is another port");
    assert_eq!(errno("half{1^/t"), libc::EINVAL, "a pipe has no host rings");
    let m = monitor("half{1/t");
    assert_eq!(m.tx_count(), 1, "a transmit ring is there, as in the original");
    drop(a);
    assert_eq!(errno("half{1/t"), libc::EINVAL, "a monitor does not keep a port open");
}

#[test]
fn nothing_can_be_sent_through_a_monitor() {
    let _turn = alone();
    let (mut a, mut b) = pipe("mute", 16);
    let mut m = monitor("mute{1/t");
    assert!(m.tx(0).push(&frame(1, length(1))));
    m.sync_tx().unwrap();
    assert_eq!(m.tx(0).space(), 15, "it stays where it was");
    assert!(drain(&mut a, 0).is_empty() && drain(&mut b, 0).is_empty());
}

#[test]
fn a_monitor_that_sleeps_is_woken_by_packets_and_by_the_end_of_the_port() {
    let _turn = alone();
    let (mut a, b) = pipe("sleep", 64);
    let mut m = monitor("sleep{1/t");
    let reader = std::thread::spawn(move || {
        let mut got = 0;
        loop {
            let ready = m.wait(Interest::READ, Some(SOON)).unwrap();
            assert!(ready.read || ready.error, "woken for nothing after {got}");
            got += read(&mut m, 0).len();
            if ready.error {
                return (m, got);
            }
        }
    });
    let mut b = b;
    for seq in 0..500 {
        send(&mut a, 0, seq..seq + 1);
        drain(&mut b, 0);
        a.sync_tx().unwrap();
        if seq % 50 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    std::thread::sleep(Duration::from_millis(20));
    drop(a);
    let (mut m, got) = reader.join().unwrap();
    assert!(got <= 500 && got as u64 + m.drops().iter().map(|d| d.1).sum::<u64>() == 500, "{got}, {:?}", m.drops());
    assert_eq!(m.sync_rx().unwrap_err().errno, libc::EIO, "the monitored port has gone");
    drop((b, m));
    assert_eq!(settled(), None);
}

#[test]
fn what_was_captured_can_be_read_after_the_port_has_gone_and_a_new_port_needs_a_new_monitor() {
    let _turn = alone();
    for kind in ["t", "z"] {
        let (mut a, mut b) = pipe("gone", 16);
        let mut m = monitor(&format!("gone{{1/{kind}"));
        send(&mut a, 0, 0..4);
        drain(&mut b, 0);
        a.sync_tx().unwrap();
        drop(a);
        assert_eq!(seqs(&read(&mut m, 0)), [0, 1, 2, 3], "/{kind}");
        every_buffer_is_somewhere();
        let mut a = Port::open("netmap:gone{1").unwrap();
        send(&mut a, 0, 4..8);
        assert!(m.wait(Interest::READ, Some(Duration::ZERO)).unwrap().error);
        assert_eq!(m.rx(0).available(), 0, "restarted it has to be, as in the original");
        let mut again = monitor("gone{1/t");
        send(&mut a, 0, 8..9);
        assert_eq!(seqs(&drain(&mut again, 0)), [8]);
        drop((a, b, again));
        drop(m);
        assert_eq!(settled(), None);
    }
}

/// Two threads exchange packets over a pipe while `with` runs; checks that all arrive, and counts the buffers.
fn under_traffic(name: &str, with: impl FnOnce(&AtomicU64)) {
    let (mut a, mut b) = pipe(name, 64);
    let (stop, moved) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let (mut seq, mut back) = (0, 0);
            while !stop.load(Relaxed) {
                let mut tx = a.tx(0);
                while tx.push(&frame(seq, length(seq))) {
                    seq += 1;
                }
                drop(tx);
                a.sync_tx().unwrap();
                for (got, _) in drain(&mut a, 0) {
                    assert_eq!(got, back);
                    back += 1;
                }
            }
            seq
        });
        let receiver = scope.spawn(|| {
            let mut next = 0;
            let (mut idle, mut answer) = (Instant::now(), 0);
            while !stop.load(Relaxed) || idle.elapsed() < Duration::from_millis(100) {
                for (seq, _) in drain(&mut b, 0) {
                    assert_eq!(seq, next, "lost by a monitored port");
                    next += 1;
                    idle = Instant::now();
                }
                if b.tx(0).push(&frame(answer, length(answer))) {
                    answer += 1;
                }
                b.sync_tx().unwrap();
                moved.store(next, Relaxed);
            }
            next
        });
        with(&moved);
        stop.store(true, Relaxed);
        assert_eq!(sender.join().unwrap(), receiver.join().unwrap());
    });
    every_buffer_is_somewhere();
    drop((a, b));
    assert_eq!(settled(), None);
}

#[test]
fn monitors_come_and_go_under_traffic() {
    let _turn = alone();
    under_traffic("busy", |moved| {
        std::thread::scope(|scope| {
            for (t, kind) in ["rt", "z", "t", "z"].into_iter().enumerate() {
                scope.spawn(move || {
                    for round in 0..30 {
                        let mut m = monitor(&format!("busy{{1/{kind}"));
                        let (start, mut got) = (Instant::now(), 0);
                        while got < 20 * (t + 1) && start.elapsed() < SOON {
                            if m.wait(Interest::READ, Some(Duration::from_millis(20))).unwrap().read {
                                got += drain(&mut m, 0).len();
                            }
                            if kind == "z" && round % 2 == 0 {
                                // The one before it in the chain may be one that reads nothing any more.
                                got += 1;
                            }
                        }
                        assert!(start.elapsed() < SOON, "/{kind} saw {got} packets");
                    }
                });
            }
        });
        assert!(moved.load(Relaxed) > 0);
    });
}

#[test]
fn a_monitor_that_reads_nothing_does_not_stall_traffic() {
    let _turn = alone();
    under_traffic("stall", |moved| {
        let _idle = [monitor("stall{1/rt"), monitor("stall{1/z"), monitor("stall}1/z"), monitor("stall}1/rt")];
        let (start, from) = (Instant::now(), moved.load(Relaxed));
        while moved.load(Relaxed) < from + 20_000 {
            assert!(start.elapsed() < SOON, "{} packets", moved.load(Relaxed) - from);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn the_monitored_port_comes_and_goes_while_monitors_are_there() {
    let _turn = alone();
    for round in 0..20 {
        let (mut a, mut b) = pipe("flap", 32);
        let mut monitors = [monitor("flap{1/rt"), monitor("flap{1/z"), monitor("flap}1/rt"), monitor("flap{1/z")];
        let reader = std::thread::spawn(move || {
            let mut open: Vec<&mut Port> = monitors.iter_mut().collect();
            while !open.is_empty() {
                open.retain_mut(|m| {
                    let ready = m.wait(Interest::READ, Some(Duration::from_millis(1))).unwrap();
                    read(m, 0);
                    !ready.error
                });
            }
            monitors
        });
        for seq in 0..50 {
            send(&mut a, 0, seq * 8..seq * 8 + 8);
            assert_eq!(drain(&mut b, 0).len(), 8);
            a.sync_tx().unwrap();
        }
        if round % 2 == 0 {
            drop(a);
            drop(b);
        } else {
            drop(b);
            drop(a);
        }
        drop(reader.join().unwrap());
        assert_eq!(settled(), None);
    }
}

#[test]
fn nic_rings_can_be_monitored_with_and_without_copies() {
    needs_root!();
    let _turn = alone();
    let pair = Veth::new().queues(2).build();
    let open = |end: &netmap_xdp_tests::End, suffix: &str| {
        let name = format!("netmap:{}{suffix}", end.dev);
        end.ns.run(move || Port::open(&name).map_err(|e| e.errno))
    };
    assert_eq!(open(&pair.a, "/t").map(drop).unwrap_err(), libc::EINVAL, "nobody has it open");
    let (mut a, mut b) = (open(&pair.a, "").unwrap(), open(&pair.b, "").unwrap());
    for (copies, zeros) in [(true, false), (false, true), (true, true)] {
        let watch =
            |suffix: &str, on: bool| on.then(|| [open(&pair.a, suffix).unwrap(), open(&pair.b, suffix).unwrap()]);
        let mut monitors = [watch("/rt", copies), watch("/z", zeros)];
        let mut seen = [[(0, 0); 2]; 2];
        const EACH: u64 = 400;
        let (mut sent, mut got, deadline) = (0, [0; 2], Instant::now() + SOON);
        let done = |seen: &[[(u64, u64); 2]; 2], got: &[u64; 2]| {
            let want = [copies, zeros];
            *got == [EACH; 2] && (0..2).all(|k| !want[k] || seen[k] == [(EACH, EACH); 2])
        };
        while !done(&seen, &got) {
            assert!(Instant::now() < deadline, "sent {sent}, got {got:?}, seen {seen:?}");
            while sent < EACH && sent - got[0].min(got[1]) < 32 {
                send(&mut a, (sent % 2) as usize, sent..sent + 1);
                send(&mut b, (sent % 2) as usize, sent..sent + 1);
                sent += 1;
            }
            for (n, port) in [&mut a, &mut b].into_iter().enumerate() {
                port.sync_tx().unwrap();
                got[n] += (0..2).map(|ring| drain(port, ring).len() as u64).sum::<u64>();
            }
            for (kind, two) in monitors.iter_mut().enumerate() {
                for (n, m) in two.iter_mut().flatten().enumerate() {
                    for (_, flags) in (0..2).flat_map(|ring| drain(m, ring)).collect::<Vec<_>>() {
                        let cell = &mut seen[kind][n];
                        *if flags & NS_TXMON != 0 { &mut cell.0 } else { &mut cell.1 } += 1;
                    }
                }
            }
        }
        every_buffer_is_somewhere();
        drop(monitors);
        every_buffer_is_somewhere();
    }
    let mut m = open(&pair.a, "-1/z").unwrap();
    drop(a);
    assert!(m.wait(Interest::READ, Some(Duration::ZERO)).unwrap().error);
    drop((b, m));
    assert_eq!(settled(), None);
    pair.assert_no_xdp();
}
