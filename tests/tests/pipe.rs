//! Pipes and null ports, inside one process: no interface, no privileges.

use netmap_xdp::api::{Builder, Interest, NS_BUF_CHANGED, NS_MOREFRAG, Port};
use netmap_xdp::client::settled;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The buffers of the process's regions are counted, so tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pipe(name: &str, slots: u32) -> (Port, Port) {
    ends(name, "1", slots)
}

/// Another pipe of the same parent.
fn pipe_beside(name: &str, slots: u32) -> (Port, Port) {
    ends(name, "2", slots)
}

fn ends(name: &str, id: &str, slots: u32) -> (Port, Port) {
    let open =
        |bracket: &str| Builder::new(&format!("netmap:{name}{bracket}{id}")).tx_slots(slots).rx_slots(slots).open();
    (open("{").expect("master"), open("}").expect("slave"))
}

#[track_caller]
fn every_buffer_is_somewhere() {
    let counts = settled().expect("the region exists while a port is open");
    assert_eq!(counts.free + counts.held, counts.usable, "{counts:?}");
}

fn frame(seq: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seq as usize * 31 + i * 7) as u8).collect()
}

#[test]
fn packets_cross_in_order_and_unchanged_in_both_directions() {
    let _turn = alone();
    for slots in [8, 9, 64, 1000] {
        let (mut a, mut b) = pipe("cross", slots);
        for direction in 0..2 {
            let (from, to) = if direction == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
            let (mut sent, mut got) = (0u64, 0u64);
            while got < 5000 {
                let mut tx = from.tx(0);
                while sent < 5000 && tx.push(&frame(sent, 60 + (sent as usize * 7919) % 1455)) {
                    sent += 1;
                }
                drop(tx);
                from.sync_tx().unwrap();
                to.sync_rx().unwrap();
                let mut rx = to.rx(0);
                // Now and then leave some behind: partial reads.
                let n = if got % 3 == 0 { rx.available().div_ceil(2) } else { rx.available() };
                for i in 0..n {
                    let slot = rx.slot(i).unwrap();
                    let mut bytes = vec![0; slot.len()];
                    slot.read_at(0, &mut bytes);
                    assert_eq!(bytes, frame(got, 60 + (got as usize * 7919) % 1455));
                    got += 1;
                }
                rx.release(n);
                drop(rx);
                to.sync_rx().unwrap();
            }
        }
        every_buffer_is_somewhere();
    }
    assert_eq!(settled(), None);
}

#[test]
fn a_receiver_that_sleeps_is_woken_and_a_sender_that_waits_for_room_too() {
    let _turn = alone();
    let (mut a, mut b) = pipe("sleep", 16);
    let receiver = std::thread::spawn(move || {
        let mut got = 0;
        while got < 2000 {
            let ready = b.wait(Interest::READ, Some(Duration::from_secs(10))).unwrap();
            assert!(ready.read, "woken without a packet after {got}");
            let mut rx = b.rx(0);
            let n = rx.available();
            rx.release(n);
            got += n;
            drop(rx);
            if got % 5 == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        b.sync_rx().unwrap();
        b
    });
    for seq in 0..2000 {
        while !a.tx(0).push(&frame(seq, 60)) {
            assert!(a.wait(Interest::WRITE, Some(Duration::from_secs(10))).unwrap().write);
        }
        if seq % 7 == 0 {
            a.sync_tx().unwrap();
        }
    }
    a.sync_tx().unwrap();
    let b = receiver.join().unwrap();
    every_buffer_is_somewhere();
    drop((a, b));
}

#[test]
fn an_idle_wait_lasts_as_long_as_it_should_and_costs_no_time() {
    let _turn = alone();
    let (_a, mut b) = pipe("idle", 16);
    let start = Instant::now();
    let ready = b.wait(Interest::READ, Some(Duration::from_millis(120))).unwrap();
    let took = start.elapsed();
    assert!(!ready.read && took >= Duration::from_millis(119) && took < Duration::from_millis(1000), "{took:?}");
}

#[test]
fn a_buffer_that_the_receiver_exchanged_comes_back_to_the_sender() {
    let _turn = alone();
    let (mut a, mut b) = pipe("swap", 16);
    let (mut c, mut d) = pipe_beside("swap", 16);
    a.tx(0).push(&frame(1, 100));
    a.sync_tx().unwrap();
    b.sync_rx().unwrap();
    let passed = {
        let (mut rx, mut tx) = (b.rx(0), c.tx(0));
        let (from, to) = (rx.slot(0).unwrap(), tx.slot(0).unwrap());
        let passed = from.buf_idx();
        from.swap_into(&to).unwrap();
        assert_eq!(to.buf_idx(), passed);
        rx.release(1);
        tx.advance(1);
        passed
    };
    b.sync_rx().unwrap();
    c.sync_tx().unwrap();
    d.sync_rx().unwrap();
    let rx = d.rx(0);
    let slot = rx.slot(0).unwrap();
    let mut bytes = vec![0; slot.len()];
    slot.read_at(0, &mut bytes);
    assert_eq!((slot.buf_idx(), bytes), (passed, frame(1, 100)));
    assert_ne!(slot.flags() & NS_BUF_CHANGED, 0);
    drop(rx);
    every_buffer_is_somewhere();
    drop((a, b, c, d));
    assert_eq!(settled(), None);
}

#[test]
fn a_packet_of_several_slots_appears_when_its_end_does() {
    let _turn = alone();
    let (mut a, mut b) = pipe("frags", 16);
    for last in [false, true] {
        let mut tx = a.tx(0);
        assert!(tx.slot(0).unwrap().write_at(0, &frame(9, 500)) == 500);
        tx.slot(0).unwrap().set_len(500);
        tx.slot(0).unwrap().set_flags(if last { 0 } else { NS_MOREFRAG });
        tx.advance(1);
        drop(tx);
        a.sync_tx().unwrap();
        b.sync_rx().unwrap();
        assert_eq!(b.rx(0).available(), if last { 2 } else { 0 });
    }
    assert_ne!(b.rx(0).slot(0).unwrap().flags() & NS_MOREFRAG, 0);
    assert_eq!(b.rx(0).slot(1).unwrap().flags() & NS_MOREFRAG, 0);
}

#[test]
fn an_end_may_come_and_go_while_the_other_keeps_what_was_sent() {
    let _turn = alone();
    let (mut a, b) = pipe("again", 16);
    for seq in 0..5 {
        a.tx(0).push(&frame(seq, 60));
    }
    a.sync_tx().unwrap();
    drop(b);
    every_buffer_is_somewhere();
    let mut b = Port::open("netmap:again}1").unwrap();
    b.sync_rx().unwrap();
    assert_eq!(b.rx(0).available(), 5);
    drop(a);
    b.sync_rx().unwrap();
    assert_eq!(b.rx(0).available(), 5);
    every_buffer_is_somewhere();
}

#[test]
fn several_rings_are_as_many_pipes() {
    let _turn = alone();
    let mut a = Port::open("netmap:multi{x@conf:rings=3,slots=32").unwrap();
    let mut b = Port::open("netmap:multi}x").unwrap();
    assert_eq!((a.tx_count(), a.rx_count(), b.tx_count(), b.rx_count()), (3, 3, 3, 3));
    for i in 0..3 {
        a.tx(i).push(&frame(i as u64, 60 + i));
    }
    a.sync_tx().unwrap();
    b.sync_rx().unwrap();
    for i in 0..3 {
        assert_eq!(b.rx(i).slot(0).unwrap().len(), 60 + i);
    }
}

#[test]
fn what_names_no_pipe_is_refused_with_the_errno_of_the_original() {
    let _turn = alone();
    for (name, errno) in [("netmap:x{1^", libc::EINVAL), ("netmap:{1", libc::EINVAL), ("netmap:x{", libc::EINVAL)] {
        assert_eq!(Port::open(name).map(drop).unwrap_err().errno, errno, "{name}");
    }
    let _a = Builder::new("netmap:x{1").exclusive().open().unwrap();
    assert_eq!(Port::open("netmap:x{1").map(drop).unwrap_err().errno, libc::EBUSY);
    assert!(Port::open("netmap:x}1").is_ok(), "the other end is another port");
}

#[test]
fn the_pipes_of_a_parent_share_memory_that_no_other_port_is_in() {
    let _turn = alone();
    let open =
        |name: &str| Port::open(&format!("netmap:{name}@conf:slots=64")).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (a, b) = (open("home{1"), open("home}1"));
    let (sibling, stranger) = (open("home}2"), open("away{1"));
    let home = a.mem_id();
    assert!(home > 1 && stranger.mem_id() > 1, "region 1 is for NICs");
    assert_eq!((b.mem_id(), sibling.mem_id()), (home, home));
    assert_ne!(stranger.mem_id(), home);
    // As long as one of them is there; an id chooses.
    drop((a, b));
    assert_eq!(open("home{3").mem_id(), home);
    let chosen = Port::open("netmap:home{4@1").unwrap();
    assert_eq!((chosen.mem_id(), open("home}4").mem_id(), open("home{5").mem_id()), (1, 1, home));
    let guest = Port::open(&format!("netmap:away{{2@{home}")).unwrap();
    assert_eq!((guest.mem_id(), open("away{3").mem_id()), (home, stranger.mem_id()));
    let elsewhere = Port::open("netmap:home}2@1").map(drop).unwrap_err();
    assert_eq!(elsewhere.errno, libc::EBUSY, "{elsewhere}");
    drop((sibling, guest));
    let gone = Port::open(&format!("netmap:home{{1@{home}")).map(drop).unwrap_err();
    assert_eq!(gone.errno, libc::EINVAL, "the region went with its last port: {gone}");
    // What goes first to region 1 makes it the home of the others, as the parent of the original would have it.
    assert_eq!(open("home{6").mem_id(), 1);
    drop((chosen, stranger));
    assert_eq!(settled(), None);
    let again = open("home{1");
    assert!(again.mem_id() > 1 && again.mem_id() != home, "ids are given in turn");
}

#[test]
fn the_region_of_a_parent_holds_several_pipes_of_the_usual_size() {
    let _turn = alone();
    let ends: Vec<Port> = (0..8)
        .flat_map(|i| ['{', '}'].map(|bracket| format!("netmap:crowd{bracket}{i}")))
        .map(|name| Port::open(&name).unwrap_or_else(|e| panic!("{name}: {e}")))
        .collect();
    assert!(ends.iter().all(|end| end.mem_id() == ends[0].mem_id()));
    every_buffer_is_somewhere();
    drop(ends);
    assert_eq!(settled(), None);
}
