//! VALE switches, inside one process: no interface, no privileges.

use netmap_xdp::api::control::{self, Shape};
use netmap_xdp::api::{Builder, Interest, NS_INDIRECT, NS_MOREFRAG, NS_NO_LEARN, NS_PORT_SHIFT, Port};
use netmap_xdp::client::settled_in;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Switches are counted, and memory ids given out again, so tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A frame to `to` from `from`, ports of a switch by number.
fn frame(to: u8, from: u8, seq: u64, len: usize) -> Vec<u8> {
    let mut f: Vec<u8> = (0..len).map(|i| (seq as usize * 31 + i * 7) as u8).collect();
    f[..12].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from]);
    f
}

fn broadcast(from: u8, seq: u64) -> Vec<u8> {
    let mut f = frame(0, from, seq, 60);
    f[..6].fill(0xff);
    f
}

fn open(name: &str) -> Port {
    Port::open(name).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn send(port: &mut Port, frame: &[u8]) {
    send_with(port, frame, 0);
}

fn send_with(port: &mut Port, frame: &[u8], flags: u16) {
    let mut tx = port.tx(0);
    let slot = tx.slot(0).expect("a sync of a VALE port takes everything");
    slot.write_at(0, frame);
    slot.set_len(frame.len());
    slot.set_flags(flags);
    tx.advance(1);
    drop(tx);
    port.sync_tx().unwrap();
}

/// What has arrived: flags and bytes of each slot.
fn take_slots(port: &mut Port) -> Vec<(u16, Vec<u8>)> {
    port.sync_rx().unwrap();
    let mut rx = port.rx(0);
    let n = rx.available();
    let read = |i| {
        let slot = rx.slot(i).unwrap();
        let mut bytes = vec![0; slot.len()];
        slot.read_at(0, &mut bytes);
        (slot.flags(), bytes)
    };
    let all = (0..n).map(read).collect();
    rx.release(n);
    drop(rx);
    port.sync_rx().unwrap();
    all
}

fn take(port: &mut Port) -> Vec<Vec<u8>> {
    take_slots(port).into_iter().map(|(_, bytes)| bytes).collect()
}

fn drops(port: &Port, reason: &str) -> u64 {
    port.drops().iter().find(|d| d.0 == reason).map_or(0, |d| d.1)
}

#[track_caller]
fn every_buffer_is_somewhere(ports: &[&Port]) {
    for port in ports {
        let counts = settled_in(port.mem_id()).expect("the region exists while the port is open");
        assert_eq!(counts.free + counts.held, counts.usable, "{counts:?}");
    }
}

#[test]
fn unknown_destinations_are_flooded_and_known_ones_are_not() {
    let _turn = alone();
    let (mut a, mut b, mut c) = (open("vale0:a"), open("vale0:b"), open("vale0:c"));
    let mut other = open("vale1:a");
    send(&mut a, &frame(2, 1, 0, 60));
    assert_eq!(take(&mut b), [frame(2, 1, 0, 60)]);
    assert_eq!(take(&mut c), [frame(2, 1, 0, 60)]);
    send(&mut b, &frame(1, 2, 1, 77));
    assert_eq!(take(&mut a), [frame(1, 2, 1, 77)], "learned from the first packet");
    send(&mut a, &frame(2, 1, 2, 1514));
    assert_eq!(take(&mut b), [frame(2, 1, 2, 1514)]);
    assert_eq!(take(&mut c), Vec::<Vec<u8>>::new());
    send(&mut a, &broadcast(1, 3));
    assert_eq!((take(&mut b), take(&mut c), take(&mut a)), (vec![broadcast(1, 3)], vec![broadcast(1, 3)], vec![]));
    assert!(take(&mut other).is_empty(), "another switch");
    every_buffer_is_somewhere(&[&a, &b, &c, &other]);
    let ids = [a.mem_id(), b.mem_id(), c.mem_id(), other.mem_id()];
    assert!(ids.iter().all(|&i| i >= 2) && ids.iter().collect::<std::collections::HashSet<_>>().len() == 4, "{ids:?}");
    drop((a, b, c, other));
    assert_eq!(settled_in(ids[0]), None);
}

#[test]
fn every_length_arrives_unchanged_in_rings_of_any_size() {
    let _turn = alone();
    for slots in [2u32, 9, 64, 1000, 4096] {
        let (mut a, mut b) =
            (open(&format!("vale0:a@conf:slots={slots}")), open(&format!("vale0:b@conf:slots={slots}")));
        let (mut sent, mut got) = (0u64, 0u64);
        while got < 3000 {
            let mut tx = a.tx(0);
            // No more than the receiver has room for.
            while sent < 3000 && sent - got < u64::from(slots) - 1 && tx.push(&frame(2, 1, sent, length(sent))) {
                sent += 1;
            }
            drop(tx);
            a.sync_tx().unwrap();
            for bytes in take(&mut b) {
                assert_eq!(bytes, frame(2, 1, got, length(got)), "{slots} slots, packet {got}");
                got += 1;
            }
        }
        assert!(a.drops().is_empty() && b.drops().is_empty(), "{:?} {:?}", a.drops(), b.drops());
        every_buffer_is_somewhere(&[&a, &b]);
    }
}

fn length(seq: u64) -> usize {
    14 + (seq as usize * 7919) % 2035
}

#[test]
fn order_is_kept_between_unicast_and_broadcast() {
    let _turn = alone();
    let (mut a, mut b, _c) = (open("vale0:a"), open("vale0:b"), open("vale0:c"));
    send(&mut b, &frame(9, 2, 0, 60));
    take(&mut a);
    let all: Vec<_> = (0..100).map(|i| if i % 3 == 0 { broadcast(1, i) } else { frame(2, 1, i, 100) }).collect();
    let mut tx = a.tx(0);
    assert!(all.iter().all(|f| tx.push(f)));
    drop(tx);
    a.sync_tx().unwrap();
    assert_eq!(take(&mut b), all);
}

#[test]
fn what_was_learned_moves_and_goes_with_its_port() {
    let _turn = alone();
    let (mut a, mut b, mut c) = (open("vale0:a"), open("vale0:b"), open("vale0:c"));
    send(&mut b, &frame(9, 2, 0, 60));
    send(&mut c, &frame(9, 2, 1, 60));
    for port in [&mut a, &mut b, &mut c] {
        take(port);
    }
    send(&mut a, &frame(2, 1, 2, 60));
    assert_eq!((take(&mut b).len(), take(&mut c).len()), (0, 1), "the address has moved to c");
    drop(c);
    send(&mut a, &frame(2, 1, 3, 60));
    assert_eq!(take(&mut b).len(), 1, "nobody has it now: flooded");
    let mut c = open("vale0:c");
    send(&mut a, &frame(2, 1, 3, 60));
    assert_eq!((take(&mut b).len(), take(&mut c).len()), (1, 1), "a new port in the same place inherits nothing");
}

#[test]
fn no_learn_and_port_flags_go_past_the_table() {
    let _turn = alone();
    let (mut a, mut b, mut c) = (open("vale0:a"), open("vale0:b"), open("vale0:c"));
    send_with(&mut b, &frame(9, 2, 0, 60), NS_NO_LEARN);
    take(&mut a);
    take(&mut c);
    send(&mut a, &frame(2, 1, 1, 60));
    assert_eq!((take(&mut b).len(), take(&mut c).len()), (1, 1));
    let index = control::find("vale0:c").unwrap().port as u16;
    send_with(&mut a, &frame(2, 1, 2, 60), index << NS_PORT_SHIFT);
    assert_eq!((take(&mut b).len(), take(&mut c).len()), (0, 1));
    for nowhere in [200u16, 255] {
        send_with(&mut a, &frame(2, 1, 3, 60), nowhere << NS_PORT_SHIFT);
        assert_eq!((take(&mut b).len(), take(&mut c).len()), (0, 0));
    }
    send_with(&mut a, &frame(2, 1, 4, 60), 254 << NS_PORT_SHIFT);
    assert_eq!((take(&mut b).len(), take(&mut c).len()), (1, 1));
}

#[test]
fn indirect_packets_come_from_the_senders_own_memory() {
    let _turn = alone();
    let (mut a, mut b) = (open("vale0:a"), open("vale0:b"));
    let bytes = frame(2, 1, 5, 1000);
    for (address, want) in [(bytes.as_ptr() as u64, vec![bytes.clone()]), (16, vec![])] {
        let mut tx = a.tx(0);
        let slot = tx.slot(0).unwrap();
        slot.set_ptr(address);
        slot.set_len(bytes.len());
        slot.set_flags(NS_INDIRECT);
        tx.advance(1);
        drop(tx);
        a.sync_tx().unwrap();
        assert_eq!(take(&mut b), want, "address {address:#x}");
    }
    let slot = a.tx(0).slot(0).map(|s| s.flags());
    assert_eq!(slot, Some(0), "the next slot is untouched");
}

#[test]
fn chains_arrive_whole_and_say_how_long_they_are() {
    let _turn = alone();
    let (mut a, mut b) = (open("vale0:a"), open("vale0:b"));
    for frags in [1, 2, 3, 64] {
        let mut tx = a.tx(0);
        for i in 0..frags {
            let slot = tx.slot(i).unwrap();
            slot.write_at(0, &frame(2, 1, i.into(), 100));
            slot.set_len(100);
            slot.set_flags(if i + 1 < frags { NS_MOREFRAG } else { 0 });
        }
        tx.advance(frags);
        drop(tx);
        a.sync_tx().unwrap();
        let got = take_slots(&mut b);
        assert_eq!(got.len(), frags as usize);
        for (i, (flags, bytes)) in got.into_iter().enumerate() {
            assert_eq!(bytes, frame(2, 1, i as u64, 100));
            let more = if i + 1 < frags as usize { NS_MOREFRAG } else { 0 };
            assert_eq!(flags, (frags as u16) << NS_PORT_SHIFT | more);
        }
    }
    let mut tx = a.tx(0);
    for i in 0..66 {
        let slot = tx.slot(i).unwrap();
        slot.write_at(0, &frame(2, 1, i.into(), 100));
        slot.set_len(100);
        slot.set_flags(if i < 65 { NS_MOREFRAG } else { 0 });
    }
    tx.advance(66);
    drop(tx);
    a.sync_tx().unwrap();
    assert!(take(&mut b).is_empty());
    assert_eq!(drops(&a, "bad-chain"), 1);
}

#[test]
fn a_chain_that_does_not_fit_is_dropped_whole() {
    let _turn = alone();
    let (mut a, mut b) = (open("vale0:a"), open("vale0:b@conf:slots=8"));
    let mut tx = a.tx(0);
    for i in 0..9 {
        let slot = tx.slot(i).unwrap();
        slot.write_at(0, &frame(2, 1, i.into(), 60));
        slot.set_len(60);
        slot.set_flags(if i % 3 < 2 { NS_MOREFRAG } else { 0 });
    }
    tx.advance(9);
    drop(tx);
    a.sync_tx().unwrap();
    assert_eq!((take(&mut b).len(), drops(&b, "no-room")), (6, 1));
    send(&mut a, &frame(2, 1, 1, 60));
    assert_eq!(take(&mut b).len(), 1);
}

#[test]
fn a_full_receiver_loses_packets_and_counts_them() {
    let _turn = alone();
    let (mut a, mut b) = (open("vale0:a"), open("vale0:b@conf:slots=16"));
    for round in 0..3 {
        let mut tx = a.tx(0);
        for i in 0..20 {
            tx.push(&frame(2, 1, round * 20 + i, 60));
        }
        drop(tx);
        a.sync_tx().unwrap();
        assert_eq!(a.tx(0).space(), 1023, "the sender is never held up");
    }
    assert_eq!(drops(&b, "no-room"), 45);
    let got = take(&mut b);
    assert_eq!(got, (0..15).map(|i| frame(2, 1, i, 60)).collect::<Vec<_>>());
    send(&mut a, &frame(2, 1, 99, 60));
    assert_eq!(take(&mut b), [frame(2, 1, 99, 60)]);
}

#[test]
fn headers_are_added_taken_away_and_translated() {
    let _turn = alone();
    let header = |n: usize| -> Vec<u8> { (0..n).map(|i| if i < 2 { 0 } else { i as u8 }).collect() };
    for (mine, theirs) in [(0, 10), (0, 12), (10, 0), (12, 0), (10, 12), (12, 10), (10, 10), (12, 12)] {
        let (mut a, mut b) = (open("vale0:a"), open("vale0:b"));
        control::set_header("vale0:a", mine).unwrap();
        control::set_header("vale0:b", theirs).unwrap();
        assert_eq!(control::header("vale0:a").unwrap(), mine);
        let refused = Port::open("vale0:a").map(drop).map_err(|e| e.errno);
        assert_eq!(refused, if mine == 0 { Ok(()) } else { Err(libc::EIO) });
        assert!(Builder::new("vale0:a").accept_vnet_header().open().is_ok());

        let (mine, theirs) = (mine as usize, theirs as usize);
        let mut sent = header(mine);
        sent.extend(frame(2, 1, 7, 60));
        let mut want = match (mine, theirs) {
            (_, 0) => vec![],
            (0, n) => vec![0; n],
            (m, n) if m == n => header(n),
            (_, n) => {
                let mut h = header(10);
                h.resize(n, 0);
                h
            }
        };
        want.extend(frame(2, 1, 7, 60));
        send(&mut a, &sent);
        assert_eq!(take(&mut b), [want.clone()], "{mine} to {theirs}");

        // The same with the header in a fragment of its own.
        if mine > 0 {
            let mut tx = a.tx(0);
            for (i, part) in [&sent[..mine], &sent[mine..]].into_iter().enumerate() {
                let slot = tx.slot(i as u32).unwrap();
                slot.write_at(0, part);
                slot.set_len(part.len());
                slot.set_flags(if i == 0 { NS_MOREFRAG } else { 0 });
            }
            tx.advance(2);
            drop(tx);
            a.sync_tx().unwrap();
            let parts = if theirs == 0 { vec![want] } else { vec![want[..theirs].to_vec(), want[theirs..].to_vec()] };
            assert_eq!(take(&mut b), parts, "{mine} to {theirs}, apart");
        }
        if mine > 0 && theirs == 0 {
            sent[1] = 1;
            send(&mut a, &sent);
            assert!(take(&mut b).is_empty());
            assert_eq!(drops(&a, "offload"), 1, "a packet to be segmented has nobody to do it");
        }
    }
}

#[test]
fn rings_of_a_port_are_chosen_by_the_senders_ring() {
    let _turn = alone();
    let mut a = open("vale0:a@conf:rings=4,slots=32");
    let mut b = open("vale0:b@conf:rings=2,slots=32");
    assert_eq!((a.tx_count(), b.rx_count()), (4, 2));
    send(&mut b, &frame(9, 2, 0, 60));
    for i in 0..4 {
        a.tx(i).push(&frame(2, 1, i as u64, 60 + i));
    }
    a.sync_tx().unwrap();
    b.sync_rx().unwrap();
    let lengths = |b: &mut Port, i| -> Vec<usize> {
        let rx = b.rx(i);
        (0..rx.available()).map(|s| rx.slot(s).unwrap().len()).collect()
    };
    assert_eq!((lengths(&mut b, 0), lengths(&mut b, 1)), (vec![60, 62], vec![61, 63]));
    let capped = open("vale0:c@conf:rings=99,slots=9999");
    assert_eq!((capped.tx_count(), capped.rx_count()), (16, 16));
    assert_eq!(control::info("vale0:c").unwrap().shape.tx_slots, 4096);
}

#[test]
fn a_ring_that_nobody_bound_gets_nothing() {
    let _turn = alone();
    let (mut a, b) = (open("vale0:a"), open("vale0:b/T"));
    send(&mut a, &frame(2, 1, 0, 60));
    let mut late = open("vale0:b/R");
    assert!(take(&mut late).is_empty());
    send(&mut a, &frame(2, 1, 1, 60));
    assert_eq!(take(&mut late), [frame(2, 1, 1, 60)]);
    drop((b, late));
    send(&mut a, &frame(2, 1, 2, 60));
    assert!(take(&mut open("vale0:b")).is_empty(), "a port that went and came back starts empty");
}

#[test]
fn a_receiver_that_sleeps_is_woken() {
    let _turn = alone();
    let (mut a, mut b) = (open("vale0:a"), open("vale0:b@conf:slots=64"));
    let receiver = std::thread::spawn(move || {
        let mut last = 0;
        while last < 2000 {
            assert!(b.wait(Interest::READ, Some(Duration::from_secs(10))).unwrap().read, "after {last}");
            for bytes in take(&mut b) {
                last = u64::from(u16::from_le_bytes([bytes[20], bytes[21]]));
            }
        }
    });
    for seq in 1..=2000u16 {
        let mut f = frame(2, 1, 0, 60);
        f[20..22].copy_from_slice(&seq.to_le_bytes());
        send(&mut a, &f);
        if seq % 16 == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    // The last one may have found the ring full: once more until it is through.
    let mut f = frame(2, 1, 0, 60);
    f[20..22].copy_from_slice(&2000u16.to_le_bytes());
    let end = Instant::now() + Duration::from_secs(10);
    while !receiver.is_finished() && Instant::now() < end {
        send(&mut a, &f);
        std::thread::sleep(Duration::from_millis(1));
    }
    receiver.join().unwrap();
}

#[test]
fn many_senders_share_one_receiver_and_none_of_their_packets_is_torn_or_out_of_order() {
    let _turn = alone();
    const SENDERS: u8 = 4;
    const EACH: u64 = 30_000;
    let mut sink = open("vale0:sink@conf:slots=512");
    send(&mut sink, &frame(9, 99, 0, 60));
    let senders: Vec<_> = (0..SENDERS)
        .map(|n| {
            let mut port = open(&format!("vale0:s{n}@conf:slots=64"));
            std::thread::spawn(move || {
                let mut seq = 0;
                while seq < EACH {
                    let mut tx = port.tx(0);
                    while seq < EACH && seq % 16 != 15 && tx.push(&numbered(n, seq)) {
                        seq += 1;
                    }
                    if seq < EACH && tx.push(&numbered(n, seq)) {
                        seq += 1;
                    }
                    drop(tx);
                    port.sync_tx().unwrap();
                }
                port
            })
        })
        .collect();
    let (mut next, mut got) = ([0u64; SENDERS as usize], 0u64);
    loop {
        let finished = senders.iter().all(|s| s.is_finished());
        let packets = take(&mut sink);
        for bytes in packets.iter().filter(|b| !b.is_empty()) {
            let (n, seq) = (bytes[11], u64::from_le_bytes(bytes[16..24].try_into().unwrap()));
            assert_eq!(*bytes, numbered(n, seq));
            assert!(seq >= next[usize::from(n)], "sender {n}: {seq} after {}", next[usize::from(n)]);
            next[usize::from(n)] = seq + 1;
            got += 1;
        }
        if finished && packets.is_empty() {
            break;
        }
    }
    let lost = drops(&sink, "no-room");
    assert_eq!(got + lost, u64::from(SENDERS) * EACH, "got {got}, lost {lost}");
    let ports: Vec<_> = senders.into_iter().map(|s| s.join().unwrap()).collect();
    every_buffer_is_somewhere(&ports.iter().chain([&sink]).collect::<Vec<_>>());
}

fn numbered(n: u8, seq: u64) -> Vec<u8> {
    let mut f = frame(99, n, seq, 60 + (seq as usize * 13 + usize::from(n)) % 200);
    f[16..24].copy_from_slice(&seq.to_le_bytes());
    f
}

#[test]
fn ports_come_and_go_under_traffic() {
    let _turn = alone();
    let stop = AtomicBool::new(false);
    let stop = &stop;
    let mut a = open("vale0:a@conf:slots=64");
    let shared = open("vale0:shared@conf:slots=64").mem_id();
    assert!(shared >= 2);
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut seq = 0;
            while !stop.load(Relaxed) {
                let mut tx = a.tx(0);
                for i in 0..32 {
                    tx.push(&if i % 4 == 0 { broadcast(1, seq) } else { frame((seq % 8) as u8, 1, seq, 64) });
                    seq += 1;
                }
                drop(tx);
                a.sync_tx().unwrap();
            }
        });
        for n in 2..5u8 {
            s.spawn(move || {
                let mut round = 0;
                while !stop.load(Relaxed) {
                    // Every third one lives in region 1, whose buffers go from hand to hand.
                    let memory = if round % 3 == 0 { "@1" } else { "" };
                    let mut port = open(&format!("vale0:p{n}{memory}@conf:slots=32"));
                    for seq in 0..20 {
                        send(&mut port, &frame(1, n, seq, 64));
                        for bytes in take(&mut port).iter().filter(|b| !b.is_empty()) {
                            assert!(bytes.len() == 60 || bytes.len() == 64, "{}", bytes.len());
                        }
                    }
                    round += 1;
                }
            });
        }
        std::thread::sleep(Duration::from_secs(2));
        stop.store(true, Relaxed);
    });
    every_buffer_is_somewhere(&[&a]);
    drop(a);
    assert_eq!(control::list().unwrap(), []);
    assert_eq!(settled_in(1), None);
}

#[test]
fn a_port_may_live_in_the_region_of_another() {
    let _turn = alone();
    let mut a = open("vale0:a");
    let id = a.mem_id();
    let mut b = open(&format!("vale0:b@{id}@conf:slots=32"));
    assert_eq!(b.mem_id(), id);
    send(&mut a, &frame(2, 1, 0, 60));
    assert_eq!(take(&mut b), [frame(2, 1, 0, 60)]);
    every_buffer_is_somewhere(&[&a]);
    drop(a);
    every_buffer_is_somewhere(&[&b]);
    assert_eq!(Port::open("vale0:c@77").map(drop).unwrap_err().errno, libc::EINVAL);
}

#[test]
fn pipes_hang_on_ports_and_live_in_their_region() {
    let _turn = alone();
    let parent = open("vale0:a");
    let (mut m, mut s) = (open("vale0:a{1"), open("vale0:a}1"));
    assert_eq!((m.mem_id(), s.mem_id()), (parent.mem_id(), parent.mem_id()));
    drop(parent);
    m.tx(0).push(&frame(1, 2, 3, 99));
    m.sync_tx().unwrap();
    s.sync_rx().unwrap();
    assert_eq!(s.rx(0).slot(0).unwrap().len(), 99);
    assert_eq!(control::list().unwrap().len(), 1, "the pipe keeps its parent");
    every_buffer_is_somewhere(&[&m]);
    drop((m, s));
    assert_eq!(control::list().unwrap(), []);
    let _alone = open("vale0:b{x");
    assert_eq!(control::list().unwrap()[0].name, "vale0:b", "made by its pipe");
}

#[test]
fn persistent_ports_are_made_attached_detached_and_deleted() {
    let _turn = alone();
    let got = control::create("pers1", Shape { tx_slots: 64, rx_rings: 3, ..Shape::default() }).unwrap();
    assert_eq!((got.tx_slots, got.rx_slots, got.tx_rings, got.rx_rings), (64, 1024, 1, 3));
    let errno = |r: Result<(), netmap_xdp::api::Error>| r.unwrap_err().errno;
    assert_eq!(errno(control::create("pers1", Shape::default()).map(drop)), libc::EEXIST);
    assert_eq!(errno(control::create("valeX", Shape::default()).map(drop)), libc::EINVAL);
    assert_eq!(errno(control::create("sixteen-letters-", Shape::default()).map(drop)), libc::EINVAL);
    assert_eq!(errno(control::create("lo", Shape::default()).map(drop)), libc::EEXIST);
    assert_eq!(errno(Port::open("vale0:pers1").map(drop)), libc::EINVAL, "not attached");
    assert_eq!(control::attach("vale0:pers1", false, Shape::default()).unwrap(), 0);
    assert_eq!(errno(control::attach("vale0:pers1", false, Shape::default()).map(drop)), libc::EBUSY);
    assert_eq!(errno(control::remove("pers1")), libc::EBUSY);

    let (mut p, mut a) = (open("vale0:pers1"), open("vale0:a"));
    assert_eq!((p.rx_count(), p.mem_id()), (3, got.mem_id));
    send(&mut a, &frame(2, 1, 0, 60));
    assert_eq!(take(&mut p).len(), 1);
    send(&mut p, &frame(1, 2, 0, 60));
    assert_eq!(take(&mut a).len(), 1);
    assert_eq!(control::detach("vale0:pers1").unwrap(), 0);
    send(&mut p, &frame(1, 2, 0, 60));
    send(&mut a, &frame(2, 1, 0, 60));
    assert_eq!((take(&mut a).len(), take(&mut p).len()), (0, 0), "no longer in the switch");
    assert_eq!(errno(control::attach("vale0:pers1", false, Shape::default()).map(drop)), libc::EBUSY, "open");
    assert_eq!(errno(control::remove("pers1")), libc::EBUSY);
    drop(p);
    assert!(Port::open("netmap:pers1").is_ok(), "by its own name");
    control::remove("pers1").unwrap();
    assert_eq!(errno(control::remove("pers1")), libc::ENXIO);
    assert_eq!(errno(control::remove("lo")), libc::EINVAL);
}

#[test]
fn requests_are_refused_with_the_errno_of_the_original() {
    let _turn = alone();
    let errno = |r: Result<(), netmap_xdp::api::Error>| r.map_err(|e| e.errno).err();
    assert_eq!(errno(control::find("vale0:a").map(drop)), Some(libc::ENOENT));
    let _a = open("vale0:a");
    let _b = open("vale3:b");
    assert_eq!(control::find("vale0:zzz").unwrap().port, 255);
    assert_eq!(errno(control::find("eth0").map(drop)), Some(libc::EINVAL));
    let names: Vec<_> = control::list().unwrap().into_iter().map(|l| (l.name, l.bridge, l.port)).collect();
    assert_eq!(names, [("vale0:a".to_string(), 0, 0), ("vale3:b".to_string(), 1, 0)]);

    assert_eq!(control::detach("vale0:a"), Ok(0), "nothing happens to a port that is not persistent");
    assert_eq!(errno(control::detach("vale0:x").map(drop)), Some(libc::ENXIO));
    assert_eq!(errno(control::detach("eth0").map(drop)), Some(libc::EINVAL));
    assert_eq!(errno(control::attach("vale0:a", false, Shape::default()).map(drop)), Some(libc::EBUSY));
    assert_eq!(errno(control::attach("vale0:x", false, Shape::default()).map(drop)), Some(libc::EINVAL));
    assert_eq!(errno(control::attach("eth0", false, Shape::default()).map(drop)), Some(libc::EINVAL));
    for on in [false, true] {
        assert_eq!(errno(control::polling("vale0:a", on, 1, 0, 1)), Some(libc::EOPNOTSUPP));
        assert_eq!(errno(control::polling("vale0:x", on, 1, 0, 1)), Some(libc::ENXIO));
        assert_eq!(errno(control::polling("eth0", on, 1, 0, 1)), Some(libc::EINVAL));
    }
    assert_eq!(errno(control::set_header("vale0:a", 11)), Some(libc::EINVAL));
    assert_eq!(errno(control::set_header("vale0:x", 10)), Some(libc::ENXIO));
    assert_eq!(errno(control::set_header("lo", 10)), Some(libc::ENXIO));
    assert_eq!(errno(control::header("vale0:x").map(drop)), Some(libc::ENXIO));
    for (name, want) in [("vale0:x^", libc::EINVAL), ("vale0:lo", libc::EINVAL), ("vale0:x-1", libc::EINVAL)] {
        assert_eq!(errno(Port::open(name).map(drop)), Some(want), "{name}");
    }
    assert_eq!(errno(Port::open("vale0:1234567890123456").map(drop)), Some(libc::ENOMEM));
    let _x = Builder::new("vale0:x").exclusive().open().unwrap();
    assert_eq!(errno(Port::open("vale0:x").map(drop)), Some(libc::EBUSY));
}

#[test]
fn a_switch_has_room_for_254_ports_and_floods_them_all() {
    let _turn = alone();
    let mut ports: Vec<_> = (0..254).map(|i| open(&format!("vale0:p{i}@conf:slots=4"))).collect();
    assert_eq!(Port::open("vale0:more").map(drop).unwrap_err().errno, libc::ENOMEM);
    let (first, rest) = ports.split_first_mut().unwrap();
    send(first, &broadcast(1, 5));
    assert!(rest.iter_mut().all(|p| take(p) == [broadcast(1, 5)]));
}

#[test]
fn a_program_that_scribbles_over_its_ring_hurts_only_itself() {
    let _turn = alone();
    let (mut a, mut b, mut c) = (open("vale0:a"), open("vale0:b"), open("vale0:c"));
    // A slot of the receiver's that names no buffer.
    for _ in 0..2 {
        send(&mut a, &frame(2, 1, 0, 60));
        take(&mut b);
    }
    let mut tx = a.tx(0);
    let slot = tx.slot(0).unwrap();
    let zero = slot.as_ptr().is_null();
    assert!(!zero);
    slot.set_len(5);
    slot.set_flags(0);
    tx.advance(1);
    drop(tx);
    a.sync_tx().unwrap();
    assert!(take(&mut b).is_empty());
    assert_eq!(drops(&a, "too-short"), 1);
    send(&mut a, &frame(2, 1, 1, 60));
    assert_eq!((take(&mut b).len(), take(&mut c).len()), (1, 3));
}
