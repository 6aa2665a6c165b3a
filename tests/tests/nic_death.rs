//! Ends of all kinds: kill -9 in the middle of traffic, exit without a close, many openings and closings. What a program
//! held is free at once, the interface belongs to the host again, and nothing stays behind.

mod nic_common;

use libc::{SIGKILL, SIGTERM};
use netmap_xdp::api::{Interest, Port};
use netmap_xdp_tests::{End, Pair, Running, Veth, c_program, needs_root, tool, wait_until};
use nic_common::*;
use std::time::Duration;

/// Names the port that a process of [`a_rust_program_for_the_others`] opens, and what it does.
const PORT: &str = "NMX_VICTIM_PORT";
const ROLE: &str = "NMX_VICTIM_ROLE";

/// Not a test by itself: other tests run it in a process of its own, to be killed.
#[test]
fn a_rust_program_for_the_others() {
    let (Ok(name), Ok(role)) = (std::env::var(PORT), std::env::var(ROLE)) else { return };
    let mut port = Port::open(&name).unwrap();
    eprintln!("ready");
    let (mut seq, mut received) = (0, 0);
    loop {
        if role == "send" {
            port.wait(Interest::WRITE, None).unwrap();
            while push(&mut port.tx(0), &frame(seq, 200)) {
                seq += 1;
            }
        } else {
            port.wait(Interest::READ, None).unwrap();
            let more = take(&mut port, 0).len();
            if received < 1000 && received + more >= 1000 {
                eprintln!("1000 frames, and counting");
            }
            received += more;
        }
    }
}

fn rust_program(end: &End, role: &str) -> Running {
    let exe = std::env::current_exe().unwrap();
    let again = end.command(exe).args(["--exact", "a_rust_program_for_the_others", "--nocapture"]);
    let mut running = again.env(PORT, format!("netmap:{}", end.dev)).env(ROLE, role).spawn();
    running.wait_for("ready", SOON);
    running
}

fn c_example(end: &End, name: &str, args: &[&str]) -> Running {
    let port = format!("netmap:{}", end.dev);
    let mut running = end.command(c_program(name)).preload().args(["-i", &port]).args(args).spawn();
    running.wait_for("ready", SOON);
    running
}

fn pair() -> Pair {
    Veth::new().addresses("10.7.0.1/24", "10.7.0.2/24").build()
}

fn kill(mut victim: Running) {
    victim.signal(SIGKILL);
    assert!(!victim.wait(SOON).success());
}

/// The interface belongs to the host, and the next program can bind it at once.
#[track_caller]
fn is_free_again(end: &End) {
    end.assert_no_xdp();
    let next = c_example(end, "nm-send", &["-n", "10"]);
    next.wait(SOON).expect_success();
    end.assert_no_xdp();
}

#[track_caller]
fn hosts_talk(pair: &Pair) {
    pair.assert_no_xdp();
    assert_ping(&pair.a, "10.7.0.2");
    assert_ping(&pair.b, "10.7.0.1");
}

/// A receiver that says when packets come in, within a second of their coming.
fn watcher(end: &End) -> Running {
    c_example(end, "nm-recv", &[])
}

#[track_caller]
fn traffic_flows(watcher: &mut Running) {
    watcher.wait_for("frames, ", SOON);
}

fn a_sender_dies(start: impl Fn(&End) -> Running) {
    let pair = pair();
    let mut receiver = watcher(&pair.b);
    let sender = start(&pair.a);
    traffic_flows(&mut receiver);
    kill(sender);
    is_free_again(&pair.a);
    assert!(receiver.is_alive(), "the receiver died with its sender");
    receiver.signal(SIGTERM);
    receiver.wait(SOON).expect_success();
    hosts_talk(&pair);
}

fn a_receiver_dies(start: impl Fn(&End) -> Running) {
    let pair = pair();
    let mut receiver = start(&pair.b);
    let mut sender = c_example(&pair.a, "nm-send", &[]);
    traffic_flows(&mut receiver);
    kill(receiver);
    is_free_again(&pair.b);
    let mut next = watcher(&pair.b);
    traffic_flows(&mut next);
    drop(next);
    sender.signal(SIGTERM);
    sender.wait(SOON).expect_success();
    hosts_talk(&pair);
}

#[test]
fn a_c_sender_is_killed() {
    needs_root!();
    a_sender_dies(|end| c_example(end, "nm-send", &[]));
}

#[test]
fn a_rust_sender_is_killed() {
    needs_root!();
    a_sender_dies(|end| rust_program(end, "send"));
}

#[test]
fn a_c_receiver_is_killed() {
    needs_root!();
    a_receiver_dies(|end| c_example(end, "nm-recv", &[]));
}

#[test]
fn a_rust_receiver_is_killed() {
    needs_root!();
    a_receiver_dies(|end| rust_program(end, "receive"));
}

/// Two lines that meet in the namespace of `left.b`, where `start` forwards between veth1 and veth0.
fn a_forwarder_dies(start: impl Fn(&End) -> Running) {
    let (left, right) = (pair(), Veth::new().build());
    right.a.set(&["netns", left.b.ns.name()]);
    let there = || left.b.command("ip").args(["link", "set", "dev", right.a.dev, "up"]);
    there().run().expect_success();
    let mut receiver = watcher(&right.b);
    let forwarder = start(&left.b);
    let mut sender = c_example(&left.a, "nm-send", &[]);
    traffic_flows(&mut receiver);
    kill(forwarder);
    left.b.assert_no_xdp();
    assert!(wait_until(SOON, || left.b.ns.xdp(right.a.dev).is_none()));
    drop(start(&left.b));
    sender.signal(SIGTERM);
    sender.wait(SOON).expect_success();
    drop(receiver);
    hosts_talk(&left);
}

#[test]
fn a_c_forwarder_is_killed() {
    needs_root!();
    a_forwarder_dies(|end| {
        let forward = end.command(c_program("nm-forward")).preload();
        let mut running = forward.args(["-i", "netmap:veth1", "-i", "netmap:veth0"]).spawn();
        running.wait_for("ready", SOON);
        running
    });
}

#[test]
fn a_rust_forwarder_is_killed() {
    needs_root!();
    a_forwarder_dies(|end| {
        let mut running = end.command(tool("bridge")).args(["-i", "netmap:veth1", "-i", "netmap:veth0"]).spawn();
        running.wait_for("<->", SOON);
        running
    });
}

#[test]
fn a_program_is_killed_while_it_binds_and_frees() {
    needs_root!();
    let program = c_test("nic_fd");
    let pair = loop_pair(Veth::new());
    for turn in 0..10u64 {
        let mut victim = pair.a.command(&program).arg("open_and_close_for_ever").preload().spawn();
        victim.wait_for("ready", SOON);
        // Any moment will do, and each time another one.
        std::thread::sleep(Duration::from_millis(13 * turn));
        kill(victim);
        assert!(wait_until(SOON, || pair.a.xdp().is_none() && pair.a.ns.xdp(pair.b.dev).is_none()));
    }
    let after = pair.a.command(&program).arg("exit_without_a_close").preload().run();
    after.expect_success();
}

#[test]
fn a_program_that_ends_by_itself_leaves_nothing() {
    needs_root!();
    let pair = pair();
    for _ in 0..3 {
        transfer(&pair.a, &pair.b, 200, "60,1514", &[], &[]);
        pair.assert_no_xdp();
    }
    hosts_talk(&pair);
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn many_ports_leave_neither_descriptors_nor_buffers() {
    alone!();
    let pair = Veth::new().queues(2).build();
    let mut before = 0;
    for turn in 0..20 {
        if turn == 2 {
            before = open_descriptors();
        }
        let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}-1"));
        let first = netmap_xdp::client::settled();
        for _ in 0..10 {
            drop((open(&pair.a, "netmap:{}-0/R"), open(&pair.b, "netmap:{}-1/T"), open(&pair.a, "netmap:{}")));
        }
        assert_eq!(netmap_xdp::client::settled(), first);
        carry(&mut a, 1, &mut b, 0, &frames(20, 60, 200));
        drop((a, b));
        assert_all_buffers_returned();
    }
    assert_eq!(open_descriptors(), before);
    pair.assert_no_xdp();
}

#[test]
fn buffers_of_a_port_return_while_another_stays() {
    alone!();
    let (left, right) = (Veth::new().build(), Veth::new().queues(2).build());
    let _stays = open(&left.a, "netmap:{}");
    let before = netmap_xdp::client::settled().unwrap();
    assert!(before.free < before.usable);
    for _ in 0..5 {
        let (mut a, mut b) = (open(&right.a, "netmap:{}"), open(&right.b, "netmap:{}"));
        carry(&mut a, 1, &mut b, 1, &frames(100, 60, 1514));
        // With packets under way and packets unread.
        assert!(push(&mut b.tx(0), &frame(0, 60)) && push(&mut a.tx(0), &frame(0, 60)));
        b.sync_tx().unwrap();
        a.sync_tx().unwrap();
        drop((b, a));
        assert_eq!(netmap_xdp::client::settled(), Some(before));
    }
}
