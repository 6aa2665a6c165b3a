//! Queues: traffic that the NIC spreads over them is accounted for to the frame, whoever has which; rings of odd sizes; slots
//! that a program holds.

mod nic_common;

use netmap_xdp::api::{Interest, Port};
use netmap_xdp_tests::{Daemons, Pair, Running, Veth, compile_c, needs_root, wait_until, workspace};
use nic_common::*;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Instant;

const QUEUES: usize = 4;
const UNDER_WAY: u64 = 128;

/// The queue that a flow falls to.
fn spread(seq: u64) -> usize {
    (seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62) as usize
}

#[test]
fn four_threads_with_a_queue_each_get_every_frame_once() {
    alone!();
    let count = 8000;
    let pair = Veth::new().queues(QUEUES as u32).build();
    let ports: Vec<Port> = (0..QUEUES).map(|i| open(&pair.a, &format!("netmap:{{}}-{i}"))).collect();
    let mut sender = open(&pair.b, "netmap:{}");
    let received = AtomicU64::new(0);
    let got: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let end = Instant::now() + 20 * SECOND;
        let threads: Vec<_> = ports
            .into_iter()
            .map(|mut port| {
                let received = &received;
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    while received.load(Acquire) < count && Instant::now() < end {
                        assert!(!port.wait(Interest::READ, Some(SECOND / 20)).unwrap().error);
                        for frame in take(&mut port, 0) {
                            let seq = u64::from_be_bytes(frame[18..26].try_into().unwrap());
                            assert!(frame == self::frame(seq, frame.len()), "frame {seq} was changed");
                            mine.push(seq);
                            received.fetch_add(1, AcqRel);
                        }
                    }
                    assert_eq!(port.drops(), vec![]);
                    mine
                })
            })
            .collect();
        let mut seq = 0;
        while seq < count && Instant::now() < end {
            while seq < count && seq - received.load(Acquire) < UNDER_WAY {
                let frame = frame(seq, 60 + (seq % 1400) as usize);
                if !push(&mut sender.tx(spread(seq)), &frame) {
                    break;
                }
                seq += 1;
            }
            sender.sync_tx().unwrap();
        }
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for (i, mine) in got.iter().enumerate() {
        let expected: Vec<u64> = (0..count).filter(|&seq| spread(seq) == i).collect();
        assert!(*mine == expected, "queue {i}: {} frames for {}", mine.len(), expected.len());
    }
    drop(sender);
    assert_all_buffers_returned();
}

/// Sends numbered datagrams from many ports of end `b`, so that the kernel's hash spreads them over the queues; returns
/// how many.
fn send_from_many_ports(pair: &Pair) -> u64 {
    pair.b.ns.run(|| {
        let sockets: Vec<_> = (0..64).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect();
        sockets.iter().for_each(|s| s.set_broadcast(true).unwrap());
        let mut number = 0_u64;
        for _ in 0..40 {
            for socket in &sockets {
                assert!(socket.send_to(&number.to_ne_bytes(), "10.66.0.255:9").is_ok());
                number += 1;
            }
            std::thread::sleep(SECOND / 100);
        }
        number
    })
}

#[test]
fn what_the_kernel_hashes_to_four_queues_reaches_four_threads_every_frame_once_and_every_flow_at_one() {
    alone!();
    let pair = Veth::new().queues(QUEUES as u32).addresses("10.66.0.1/24", "10.66.0.2/24").build();
    let ports: Vec<Port> = (0..QUEUES).map(|i| open(&pair.a, &format!("netmap:{{}}-{i}"))).collect();
    let (received, sent) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    // Of each queue, port of the sender and number of each datagram.
    let got: Vec<Vec<(u16, u64)>> = std::thread::scope(|scope| {
        let end = Instant::now() + 20 * SECOND;
        let work = |mut port: Port| {
            let (received, sent) = (&received, &sent);
            scope.spawn(move || {
                let mut mine = Vec::new();
                while received.load(Acquire) < sent.load(Acquire) && Instant::now() < end {
                    assert!(!port.wait(Interest::READ, Some(SECOND / 20)).unwrap().error);
                    for frame in take(&mut port, 0) {
                        // The line may carry other things, such as a report of who listens to which group.
                        if frame.len() >= 50 && frame[12..14] == [8, 0] && frame[36..38] == [0, 9] {
                            let from = u16::from_be_bytes(frame[34..36].try_into().unwrap());
                            mine.push((from, u64::from_ne_bytes(frame[42..50].try_into().unwrap())));
                            received.fetch_add(1, AcqRel);
                        }
                    }
                }
                assert_eq!(port.drops(), vec![]);
                mine
            })
        };
        let threads: Vec<_> = ports.into_iter().map(work).collect();
        sent.store(send_from_many_ports(&pair), Release);
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let mut numbers: Vec<u64> = got.iter().flatten().map(|g| g.1).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..sent.into_inner()), "{} datagrams, not each once", numbers.len());
    let flows = got.iter().map(|queue| queue.iter().map(|g| g.0).collect::<std::collections::BTreeSet<_>>());
    let flows: Vec<_> = flows.collect();
    assert!(flows.iter().all(|f| !f.is_empty()), "a queue without a flow");
    assert_eq!(flows.iter().map(|f| f.len()).sum::<usize>(), 64, "a flow at two queues");
    assert_all_buffers_returned();
}

#[test]
fn two_processes_with_two_queues_each_get_every_frame_between_them() {
    needs_root!();
    let program = compile_c(&workspace().join("tests/c/nic_mishap.c"), "nic_mishap_queues", &[]);
    let (pair, daemons) = (Veth::new().queues(4).addresses("10.66.0.1/24", "10.66.0.2/24").build(), Daemons::new());
    let _daemon = daemons.start(&[]);
    let receiver = |ports: [&str; 2]| {
        let command = pair.a.command(&program).arg("recv").args(ports);
        let mut running = daemons.with(command, "daemon").spawn();
        running.wait_for("ready", SOON);
        running
    };
    let both = [receiver(["veth0/0", "veth0/1"]), receiver(["veth0/2", "veth0/3"])];
    let last = |program: &Running, name: &str| {
        let text = program.stdout();
        let value = |w: &str| w.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok();
        text.split_whitespace().filter_map(value).next_back().unwrap_or(0)
    };
    let sent = send_from_many_ports(&pair);
    // How many, and which: their sum and that of their squares.
    let expected = [sent, (0..sent).sum(), (0..sent).map(|n| n * n).sum()];
    let both_have = || {
        let of = |name: &str| both.iter().map(|r| last(r, name)).fold(0, u64::wrapping_add);
        ["count", "sum", "squares"].map(of)
    };
    wait_until(SOON, || both_have() == expected);
    assert_eq!(both_have(), expected);
    let [one, other] = both.each_ref().map(|r| last(r, "count"));
    assert!(one > 100 && other > 100, "not spread: {one} and {other}");
}

/// A pair whose one end receives on four queues and sends on two, and the other the reverse.
fn uneven() -> Pair {
    let pair = Veth::new().queues(4).build();
    for (end, [rx, tx]) in [(&pair.a, ["4", "2"]), (&pair.b, ["2", "4"])] {
        end.command("ethtool").args(["-L", end.dev, "rx", rx, "tx", tx]).run().expect_success();
    }
    pair
}

/// `same`: a veth pair takes frames from queue to queue of the same number, as it does without generic XDP.
fn counts_that_differ(same: bool) {
    let pair = uneven();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    assert_eq!((a.tx_count(), a.rx_count(), b.tx_count(), b.rx_count()), (2, 4, 4, 2));
    for i in 0..if same { 4 } else { 1 } {
        carry(&mut b, i, &mut a, i, &frames(200, 60, 1514));
    }
    for i in 0..if same { 2 } else { 1 } {
        carry(&mut a, i, &mut b, i, &frames(200, 60, 1514));
    }
    drop((a, b));
    // A ring that there is in one direction alone; in the other one it is the first.
    let (mut three, mut one) = (open(&pair.a, "netmap:{}-3"), open(&pair.a, "netmap:{}-1/R"));
    let mut b = open(&pair.b, "netmap:{}");
    assert_eq!((three.tx_count(), three.rx_count(), one.tx_count(), one.rx_count()), (1, 1, 0, 1));
    if same {
        carry(&mut b, 3, &mut three, 0, &frames(200, 60, 1514));
        carry(&mut b, 1, &mut one, 0, &frames(200, 60, 1514));
    }
    carry(&mut three, 0, &mut b, 0, &frames(200, 60, 1514));
    let e = try_open(&pair.a, "netmap:{}-4").err().expect("there is no fifth ring");
    assert_eq!(e.errno, libc::EINVAL, "{e}");
    drop((three, one, b));
    assert_all_buffers_returned();
}

#[test]
fn receive_and_transmit_queues_may_differ_in_number_in_native_mode() {
    alone!("NETMAP_XDP_MODE" = "native");
    counts_that_differ(true);
}

#[test]
fn receive_and_transmit_queues_may_differ_in_number_in_generic_mode() {
    alone!("NETMAP_XDP_MODE" = "generic");
    counts_that_differ(false);
}

#[test]
fn rings_of_odd_sizes_carry_frames_round_and_round() {
    alone!();
    for slots in [9, 100, 1000] {
        let pair = Veth::new().build();
        let name = format!("netmap:{{}}@conf:slots={slots}");
        let (mut a, mut b) = (open(&pair.a, &name), open(&pair.b, &name));
        assert_eq!((a.tx(0).num_slots(), b.rx(0).num_slots()), (slots, slots));
        // A window that the smallest ring holds.
        for part in frames(2000, 60, 1514).chunks(7) {
            carry(&mut a, 0, &mut b, 0, part);
        }
        assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
    }
}

/// All slots of a receive ring are held while many more frames come; then they are given back.
fn held() {
    let pair = Veth::new().build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}@conf:slots=64"), open(&pair.b, "netmap:{}@conf:slots=64"));
    for turn in 0..3 {
        let (end, mut sent) = (Instant::now() + SOON, 0);
        while sent < 500 && Instant::now() < end {
            sent += usize::from(push(&mut a.tx(0), &frame(sent as u64, 60)));
            a.sync_tx().unwrap();
            b.sync_rx().unwrap();
        }
        assert_eq!(sent, 500, "the sender waits for a receiver that is full");
        assert_eq!(b.rx(0).available(), 63);
        // The first ones are there, and were not written over.
        let kept = take(&mut b, 0);
        assert!(kept.iter().enumerate().all(|(i, f)| *f == frame(i as u64, 60)), "turn {turn}: a held frame changed");
        // What the kernel had taken in when the ring was full.
        while b.wait(Interest::READ, Some(SECOND / 10)).unwrap().read {
            take(&mut b, 0);
        }
        carry(&mut a, 0, &mut b, 0, &frames(300, 60, 1514));
        let counts = netmap_xdp::client::settled().unwrap();
        assert_eq!(counts.free + counts.held, counts.usable, "{counts:?}");
    }
}

#[test]
fn a_nic_whose_slots_were_all_held_receives_again_in_native_mode() {
    alone!("NETMAP_XDP_MODE" = "native");
    held();
}

#[test]
fn a_nic_whose_slots_were_all_held_receives_again_in_generic_mode() {
    alone!("NETMAP_XDP_MODE" = "generic");
    held();
}

/// Frames that the kernel dropped on the way to a port.
fn dropped(port: &Port) -> u64 {
    port.drops().iter().filter(|(why, _)| ["rx-dropped", "rx-ring-full"].contains(why)).map(|(_, n)| n).sum()
}

/// Frames that get through to a program that keeps 60 of its 63 slots and looks only when a burst of 60 is over, in so
/// many bursts.
fn through_bursts(bursts: u64) -> u64 {
    const BURST: u64 = 60;
    let pair = Veth::new().build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}@conf:slots=256"), open(&pair.b, "netmap:{}@conf:slots=64"));
    let burst = |a: &mut Port, number: u64| {
        (0..BURST).for_each(|i| assert!(push(&mut a.tx(0), &frame(number * BURST + i, 60))));
        a.sync_tx().unwrap();
    };
    burst(&mut a, 0);
    let filled = wait_until(SOON, || {
        b.sync_rx().unwrap();
        u64::from(b.rx(0).available()) == BURST
    });
    assert!(filled, "{:?}", b.drops());
    let mut next = BURST;
    for number in 1..=bursts {
        burst(&mut a, number);
        // Three slots are free: it takes what comes there, and gives back as many of the oldest that it kept.
        let over = wait_until(SOON, || {
            b.sync_rx().unwrap();
            let more = b.rx(0).available() - BURST as u32;
            b.rx(0).release(more);
            next += u64::from(more);
            next + dropped(&b) == (number + 1) * BURST
        });
        assert!(over, "burst {number}: {next} frames came, {:?}", b.drops());
    }
    drop(a);
    drop(b);
    assert_all_buffers_returned();
    next - BURST
}

#[test]
fn a_program_that_keeps_its_slots_loses_no_burst() {
    alone!();
    assert_eq!(through_bursts(20), 20 * 60);
}

#[test]
fn without_spare_buffers_what_a_program_keeps_is_what_the_nic_lacks() {
    alone!("NETMAP_XDP_SPARES" = "0");
    let got = through_bursts(20);
    println!("{got} of {} frames came", 20 * 60);
    assert!((20..20 * 10).contains(&got), "{got}");
}

#[test]
fn spare_buffers_give_way_to_slots_of_other_ports() {
    // Both ports, and for spare buffers too few: 2 * 1024 each, and two that nobody gets.
    alone!("NETMAP_XDP_BUFFERS" = "4200");
    let pair = Veth::new().build();
    let mut a = open(&pair.a, "netmap:{}");
    let spare = || {
        let now = netmap_xdp::api::status::status().unwrap();
        assert!(now.regions.iter().all(|r| r.missing + r.twice == 0), "{now:?}");
        now.regions[0].spare
    };
    assert_eq!(spare(), 1024 + 1);
    let mut b = open(&pair.b, "netmap:{}");
    assert!(spare() < 200, "{}", spare());
    carry(&mut a, 0, &mut b, 0, &frames(3000, 60, 1514));
    drop((a, b));
    assert_all_buffers_returned();
}
