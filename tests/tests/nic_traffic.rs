//! Packets over NIC ports: every byte of every frame, on one queue and on several, in every mode, in Rust and in C.

mod nic_common;

use libc::{EBUSY, EINVAL};
use netmap_xdp::api::{Interest, NS_MOREFRAG, Port, wait_many};
use netmap_xdp_tests::{Cmd, Daemons, End, Pair, Veth, c_program, cdylib, needs_root, since, wait_until, workspace};
use nic_common::*;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

#[test]
fn frames_of_all_lengths_cross_both_ways_byte_by_byte() {
    alone!();
    let pair = Veth::new().build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    carry(&mut a, 0, &mut b, 0, &frames(3000, 28, 1514));
    carry(&mut b, 0, &mut a, 0, &frames(3000, 28, 1514));
    assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
    assert_eq!((a.tx_counters(0).packets, a.rx_counters(0).packets), (3000, 3000));
    assert_eq!(a.tx_counters(0).bytes, b.rx_counters(0).bytes);
    drop((a, b));
    assert_all_buffers_returned();
    pair.assert_no_xdp();
}

#[test]
fn all_queues_of_a_port_carry_traffic_of_their_own() {
    alone!();
    let pair = Veth::new().queues(2).build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    assert_eq!((a.tx_count(), a.rx_count(), a.nic_tx_rings(), a.nic_rx_rings()), (2, 2, 2, 2));
    for queue in [0, 1, 1, 0] {
        carry(&mut a, queue, &mut b, queue, &frames(500, 60, 1514));
        carry(&mut b, queue, &mut a, queue, &frames(500, 60, 1514));
    }
    for queue in 0..2 {
        assert_eq!((b.tx_counters(queue).packets, b.rx_counters(queue).packets), (1000, 1000), "queue {queue}");
    }
}

#[test]
fn a_port_of_one_queue_sees_that_queue_alone() {
    alone!();
    let pair = Veth::new().queues(2).build();
    let mut a = open(&pair.a, "netmap:{}");
    let (mut zero, mut one) = (open(&pair.b, "netmap:{}-0"), open(&pair.b, "netmap:{}-1"));
    assert_eq!((one.tx_count(), one.rx_count(), one.nic_rx_rings()), (1, 1, 2));
    carry(&mut a, 0, &mut zero, 0, &frames(200, 60, 1514));
    carry(&mut a, 1, &mut one, 0, &frames(300, 60, 1514));
    carry(&mut one, 0, &mut a, 1, &frames(300, 60, 1514));
    carry(&mut zero, 0, &mut a, 0, &frames(200, 60, 1514));
    assert_eq!((zero.rx_counters(0).packets, one.rx_counters(0).packets), (200, 300));
}

#[test]
fn the_suffixes_r_and_t_bind_one_direction() {
    alone!();
    let pair = Veth::new().build();
    let mut a = open(&pair.a, "netmap:{}");
    let (mut rx, mut tx) = (open(&pair.b, "netmap:{}/R"), open(&pair.b, "netmap:{}/T"));
    assert_eq!((rx.tx_count(), rx.rx_count(), tx.tx_count(), tx.rx_count()), (0, 1, 1, 0));
    carry(&mut a, 0, &mut rx, 0, &frames(500, 60, 1514));
    carry(&mut tx, 0, &mut a, 0, &frames(500, 60, 1514));
    assert_eq!(a.drops(), vec![]);
}

#[test]
fn one_thread_sends_and_another_receives_on_one_queue() {
    alone!();
    let pair = Veth::new().build();
    let (mut near_tx, mut near_rx) = (open(&pair.a, "netmap:{}/T"), open(&pair.a, "netmap:{}/R"));
    let (mut far_tx, mut far_rx) = (open(&pair.b, "netmap:{}/T"), open(&pair.b, "netmap:{}/R"));
    std::thread::scope(|scope| {
        scope.spawn(|| carry(&mut near_tx, 0, &mut far_rx, 0, &frames(3000, 60, 1514)));
        carry(&mut far_tx, 0, &mut near_rx, 0, &frames(3000, 60, 1514));
    });
}

/// An ICMP echo request in an Ethernet frame.
fn echo_request(to_mac: [u8; 6], from_mac: [u8; 6], from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let sum = |bytes: &[u8]| {
        let total: u32 = bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        (!((total & 0xffff) + (total >> 16)) as u16).to_be_bytes()
    };
    let mut icmp = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
    icmp.extend([0; 24]);
    let check = sum(&icmp);
    icmp[2..4].copy_from_slice(&check);
    let mut ip = vec![0x45, 0, 0, 20 + icmp.len() as u8, 0, 0, 0, 0, 64, 1, 0, 0];
    ip.extend(from.into_iter().chain(to));
    let check = sum(&ip);
    ip[10..12].copy_from_slice(&check);
    [&to_mac[..], &from_mac, &[8, 0], &ip, &icmp].concat()
}

#[test]
fn a_queue_that_nobody_bound_passes_to_the_host() {
    alone!();
    let pair = Veth::new().queues(2).addresses("10.8.0.1/24", "10.8.0.2/24").build();
    let mut a = open(&pair.a, "netmap:{}");
    let mut b = open(&pair.b, "netmap:{}-1");
    let (mac_a, mac_b) = (pair.a.ns.run(|| a.mac()).unwrap(), pair.b.ns.run(|| b.mac()).unwrap());
    let text = mac_a.map(|byte| format!("{byte:02x}")).join(":");
    let neighbour = ["neigh", "replace", "10.8.0.1", "lladdr", &text, "dev", pair.b.dev];
    pair.b.command("ip").args(neighbour).run().expect_success();
    let request = echo_request(mac_b, mac_a, [10, 8, 0, 1], [10, 8, 0, 2]);
    // Queue 0 is the host's, and it answers.
    let answered = wait_until(SOON, || {
        assert!(push(&mut a.tx(0), &request));
        a.wait(Interest::READ, Some(SECOND / 5)).unwrap();
        let reply =
            |f: &Vec<u8>| f.len() == request.len() && f[12..14] == [8, 0] && f[34] == 0 && f[38..] == request[38..];
        (0..2).any(|ring| take(&mut a, ring).iter().any(reply))
    });
    assert!(answered, "the host did not answer over queue 0");
    // Queue 1 is netmap's, and the host does not hear of it.
    carry(&mut a, 1, &mut b, 0, std::slice::from_ref(&request));
    assert!(!a.wait(Interest::READ, Some(SECOND / 5)).unwrap().read || (0..2).all(|i| take(&mut a, i).is_empty()));
}

/// How many of `count` datagrams, sent at once from `from` to the `address` of `to`, its socket receives. It has room for 48:
/// before Linux 6.6 each takes a page.
fn datagrams(from: &End, to: &End, address: &str, count: usize) -> usize {
    let socket = to.ns.run(|| UdpSocket::bind((address, 0)).unwrap());
    socket.set_read_timeout(Some(SECOND / 2)).unwrap();
    let target = socket.local_addr().unwrap();
    from.ns.run(|| {
        let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
        // A host without a way out may hear of it: what arrives is what counts.
        (0..count).for_each(|n| drop(sender.send_to(&n.to_be_bytes(), target)));
    });
    let mut bytes = [0; 64];
    (0..count).take_while(|n| socket.recv(&mut bytes).is_ok_and(|len| bytes[..len] == n.to_be_bytes())).count()
}

/// A pair whose hosts know each other's hardware addresses, so that one way alone is enough to carry datagrams.
fn acquainted() -> Pair {
    let pair = Veth::new().queues(2).addresses("10.8.0.1/24", "10.8.0.2/24").build();
    for (end, peer, address) in [(&pair.a, &pair.b, "10.8.0.2"), (&pair.b, &pair.a, "10.8.0.1")] {
        let mac = peer.command("cat").arg(format!("/sys/class/net/{}/address", peer.dev)).run().expect_success().stdout;
        let neighbour = ["neigh", "replace", address, "lladdr", mac.trim(), "nud", "permanent", "dev", end.dev];
        end.command("ip").args(neighbour).run().expect_success();
    }
    pair
}

#[test]
fn a_port_that_only_sends_leaves_receiving_to_the_host() {
    alone!();
    since!((6, 6), "cutting a host off its NIC");
    let pair = acquainted();
    let to_host = || datagrams(&pair.a, &pair.b, "10.8.0.2", 40);
    let from_host = || datagrams(&pair.b, &pair.a, "10.8.0.1", 40);
    assert_eq!((to_host(), from_host()), (40, 40));
    // All its transmit rings are netmap's: it takes nothing from its host, and gives it all it receives.
    let all = open(&pair.b, "netmap:{}/T");
    assert_eq!((to_host(), from_host()), (40, 0));
    drop(all);
    assert_eq!((to_host(), from_host()), (40, 40));
    // One of two leaves it the other.
    let one = open(&pair.b, "netmap:{}-1/T");
    assert_eq!((to_host(), from_host()), (40, 40));
    drop(one);
    assert_ping(&pair.a, "10.8.0.2");
}

#[test]
fn a_port_that_only_sends_leaves_the_host_sending_by_setting() {
    alone!("NETMAP_XDP_HOST_TX" = "pass");
    let pair = acquainted();
    let _all = open(&pair.b, "netmap:{}/T");
    assert_eq!(datagrams(&pair.a, &pair.b, "10.8.0.2", 40), 40);
    assert_eq!(datagrams(&pair.b, &pair.a, "10.8.0.1", 40), 40);
    assert_ping(&pair.a, "10.8.0.2");
}

/// Before Linux 6.4 the rings of a bound socket cannot be mapped.
#[test]
fn ports_of_one_process_on_a_queue_share_the_mappings_of_its_rings() {
    alone!();
    let pair = Veth::new().build();
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().matches("socket:[").count();
    let first = open(&pair.a, "netmap:{}/T");
    let before = mapped();
    let second = open(&pair.a, "netmap:{}/R");
    let third = open(&pair.a, "netmap:{}");
    assert_eq!((before, mapped()), (4, 4));
    drop((first, third));
    assert_eq!(mapped(), 4);
    drop(second);
    assert_eq!(mapped(), 0);
}

#[test]
fn two_ports_on_one_ring_see_the_same_ring() {
    alone!();
    let pair = Veth::new().build();
    let mut a = open(&pair.a, "netmap:{}");
    let (mut first, mut second) = (open(&pair.b, "netmap:{}"), open(&pair.b, "netmap:{}-0"));
    carry(&mut a, 0, &mut first, 0, &frames(100, 60, 1514));
    carry(&mut a, 0, &mut second, 0, &frames(100, 60, 1514));
    // What the second put into the ring, the first sends.
    let sent = frame(7, 100);
    assert!(push(&mut second.tx(0), &sent));
    first.sync_tx().unwrap();
    assert!(a.wait(Interest::READ, Some(SOON)).unwrap().read);
    assert_eq!(take(&mut a, 0), [sent]);
    assert_eq!(first.rx_counters(0), second.rx_counters(0));
    // The ring outlives each of them, and goes with the last.
    drop(first);
    carry(&mut a, 0, &mut second, 0, &frames(100, 60, 1514));
    drop((a, second));
    assert_all_buffers_returned();
}

#[test]
fn exclusive_use_is_refused_where_a_ring_is_bound_and_keeps_others_out() {
    alone!();
    let pair = Veth::new().queues(2).build();
    let errno = |name: &str| try_open(&pair.a, name).err().map(|e| e.errno);
    let shared = open(&pair.a, "netmap:{}-0");
    assert_eq!(errno("netmap:{}-0/x"), Some(EBUSY));
    assert_eq!(errno("netmap:{}/x"), Some(EBUSY));
    let other = open(&pair.a, "netmap:{}-1/x");
    assert_eq!(
        (errno("netmap:{}-1"), errno("netmap:{}"), errno("netmap:{}-1/T")),
        (Some(EBUSY), Some(EBUSY), Some(EBUSY))
    );
    drop((shared, other));
    let all = open(&pair.a, "netmap:{}/x");
    assert_eq!(errno("netmap:{}-0/R"), Some(EBUSY));
    drop(all);
    assert_eq!(errno("netmap:{}"), None);
    assert_all_buffers_returned();
    pair.assert_no_xdp();
}

#[test]
fn a_refused_bind_says_which_ring_and_what_to_do() {
    alone!();
    let pair = Veth::new().build();
    let _held = open(&pair.a, "netmap:{}/x");
    let refused = try_open(&pair.a, "netmap:{}").err().expect("a refusal");
    assert!(refused.message.contains("veth0") && refused.message.contains("close"), "{refused}");
    let outside = try_open(&pair.a, "netmap:{}-3").err().expect("a refusal");
    assert_eq!(outside.errno, EINVAL, "{outside}");
}

#[test]
fn packets_are_forwarded_by_exchanging_buffers() {
    alone!();
    let (left, right) = (Veth::new().build(), Veth::new().build());
    let (mut source, mut sink) = (open(&left.a, "netmap:{}"), open(&right.b, "netmap:{}"));
    let (mut inner, mut outer) = (open(&left.b, "netmap:{}"), open(&right.a, "netmap:{}"));
    assert_eq!(inner.mem_id(), outer.mem_id());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let ready = wait_many(
                    &mut [(&mut inner, Interest::READ), (&mut outer, Interest::default())],
                    Some(SECOND / 20),
                );
                assert!(!ready.unwrap().iter().any(|r| r.error));
                swap_on(&mut inner, &mut outer);
            }
        });
        carry(&mut source, 0, &mut sink, 0, &frames(5000, 60, 1514));
        stop.store(true, Relaxed);
    });
    assert_eq!((inner.drops(), outer.drops()), (vec![], vec![]));
    drop((source, sink, inner, outer));
    assert_all_buffers_returned();
}

fn buffers_of_2048(mode: &str) {
    let pair = Veth::new().mtu(2034).build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    assert_eq!((a.mode().as_str(), a.buf_size()), (mode, 2048));
    carry(&mut a, 0, &mut b, 0, &frames(1500, 1500, 2048));
    carry(&mut b, 0, &mut a, 0, &(0..1500).map(|seq| frame(seq, 2048)).collect::<Vec<_>>());
    assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
}

#[test]
fn frames_fill_buffers_of_2048_bytes_in_native_mode() {
    alone!("NETMAP_XDP_MODE" = "native");
    since!((6, 6), "frames of several buffers");
    buffers_of_2048("native");
}

#[test]
fn frames_fill_buffers_of_2048_bytes_in_generic_mode() {
    alone!("NETMAP_XDP_MODE" = "generic");
    since!((6, 6), "frames of several buffers");
    buffers_of_2048("generic");
}

#[test]
fn neighbours_of_a_buffer_stay_intact() {
    needs_root!();
    since!((6, 6), "frames of several buffers");
    let program = c_test("nic_buffers");
    for (mode, length) in [("native", "2048"), ("native", "61"), ("generic", "2048"), ("generic", "61")] {
        let env = [("NETMAP_XDP_MODE", mode), ("NETMAP_XDP_SLOTS", "64"), ("NETMAP_XDP_BUFFERS", "512")];
        run_scenario(&program, length, Veth::new().mtu(2034), &env);
    }
    let env = [("NETMAP_XDP_UMEM", "aligned"), ("NETMAP_XDP_SLOTS", "64"), ("NETMAP_XDP_BUFFERS", "512")];
    run_scenario(&program, "1514", Veth::new(), &env);
}

#[test]
fn aligned_buffers_carry_ordinary_frames() {
    alone!("NETMAP_XDP_UMEM" = "aligned");
    let pair = Veth::new().build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    carry(&mut a, 0, &mut b, 0, &frames(2000, 60, 1514));
    carry(&mut b, 0, &mut a, 0, &frames(2000, 1400, 1514));
    assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
}

#[test]
fn aligned_buffers_send_long_frames_whole() {
    needs_root!();
    since!((6, 6), "frames of several buffers");
    let pair = Veth::new().mtu(2034).build();
    transfer(&pair.a, &pair.b, 1000, "1700,2048", &[("NETMAP_XDP_UMEM", "aligned")], &[]);
}

#[test]
fn c_programs_send_and_receive_in_every_mode() {
    needs_root!();
    for mode in ["native", "generic"] {
        let pair = Veth::new().queues(2).build();
        let env = [("NETMAP_XDP_MODE", mode)];
        transfer(&pair.a, &pair.b, 2000, "60,1514", &env, &env);
        transfer(&pair.b, &pair.a, 2000, "60,1514", &env, &env);
        pair.assert_no_xdp();
    }
}

#[test]
fn sockets_that_are_bound_after_they_are_mapped_carry_the_same_traffic() {
    needs_root!();
    let late = [("NETMAP_XDP_BIND", "late")];
    let pair = Veth::new().queues(2).build();
    transfer(&pair.a, &pair.b, 1000, "60,1514", &late, &late);
    transfer(&pair.b, &pair.a, 1000, "60,1514", &late, &[]);
    pair.assert_no_xdp();
    // Through netmapd it takes one more message, and a queue that is taken is a failure of the registration.
    let daemons = Daemons::new();
    let holder = || {
        let hold = pair.a.command(c_program("nm-recv")).args(["-i", "netmap:veth0", "-V", "-n", "1", "-t", "60"]);
        daemons.with(hold.env("NETMAP_XDP_BIND", "late"), "auto")
    };
    let mut first = holder().spawn();
    first.wait_for("ready", SOON);
    let alone = pair.a.command(c_program("nm-recv")).args(["-i", "netmap:veth0", "-n", "1", "-t", "1"]);
    let refused = alone.preload().env("NETMAP_XDP_BIND", "late").env("NETMAP_XDP_ENGINE", "embedded").run();
    assert!(!refused.success(), "{refused}");
    let send = pair.b.command(c_program("nm-send")).args(["-i", "netmap:veth1", "-V", "-n", "1"]);
    send.preload().run().expect_success();
    first.wait(SOON).expect_success();
}

#[test]
fn jumbo_frames_are_chains_of_slots_both_ways() {
    alone!("NETMAP_XDP_MODE" = "native");
    since!((6, 6), "frames of several buffers");
    let pair = Veth::new().mtu(9000).build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    carry(&mut a, 0, &mut b, 0, &frames(500, 60, 9014));
    carry(&mut b, 0, &mut a, 0, &frames(500, 2049, 9014));
    assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
}

#[test]
fn c_programs_exchange_jumbo_frames() {
    needs_root!();
    since!((6, 6), "frames of several buffers");
    let pair = Veth::new().mtu(9000).build();
    transfer(&pair.a, &pair.b, 500, "60,9014", &[], &[]);
    transfer(&pair.b, &pair.a, 500, "60,9014", &[], &[]);
}

/// Fills `slots` slots of 100 bytes each, all of one frame; the last one ends it if `ends`.
fn chain(port: &mut Port, slots: u32, ends: bool) {
    let mut ring = port.tx(0);
    for n in 0..slots {
        let slot = ring.slot(n).unwrap();
        slot.write_at(0, &frame(u64::from(n), 100));
        slot.set_len(100);
        slot.set_flags(if ends && n + 1 == slots { 0 } else { NS_MOREFRAG });
    }
    ring.advance(slots);
}

#[test]
fn a_chain_of_too_many_slots_is_dropped_and_counted() {
    alone!("NETMAP_XDP_MODE" = "native");
    since!((6, 6), "frames of several buffers");
    let pair = Veth::new().mtu(9000).build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    chain(&mut a, 40, true);
    a.sync_tx().unwrap();
    carry(&mut a, 0, &mut b, 0, &frames(10, 60, 5000));
    assert_eq!(a.drops(), [("bad-chain", 1)]);
    assert!(drained(&mut a), "the slots of the chain did not come back");
}

fn drained(port: &mut Port) -> bool {
    wait_until(SOON, || {
        port.sync_tx().unwrap();
        port.tx(0).pending() == 0
    })
}

#[test]
fn a_chain_waits_for_its_end() {
    alone!("NETMAP_XDP_MODE" = "native");
    since!((6, 6), "frames of several buffers");
    let pair = Veth::new().mtu(9000).build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    chain(&mut a, 2, false);
    a.sync_tx().unwrap();
    assert!(!b.wait(Interest::READ, Some(SECOND / 10)).unwrap().read, "half a frame was sent");
    assert_eq!(a.tx(0).pending(), 2);
    chain(&mut a, 1, true);
    a.sync_tx().unwrap();
    assert!(b.wait(Interest::READ, Some(SOON)).unwrap().read);
    let got = take(&mut b, 0);
    assert_eq!(got, [[frame(0, 100), frame(1, 100), frame(0, 100)].concat()]);
    assert!(drained(&mut a));
    assert_eq!(a.drops(), vec![]);
}

#[test]
fn a_port_rests_between_packets() {
    alone!();
    let pair = Veth::new().build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    carry(&mut a, 0, &mut b, 0, &frames(100, 60, 60));
    let start = Instant::now();
    assert!(!b.wait(Interest::READ, Some(Duration::from_millis(100))).unwrap().read);
    assert!(start.elapsed() >= Duration::from_millis(100), "waited {:?} only", start.elapsed());
}

#[test]
fn a_program_linked_by_pkg_config_behaves_as_one_preloaded() {
    needs_root!();
    // What `make install` does, into a prefix of the test's own.
    let prefix = std::env::temp_dir().join(format!("nmx-{}-prefix", std::process::id()));
    let lib = prefix.join("lib");
    std::fs::create_dir_all(lib.join("pkgconfig")).unwrap();
    std::fs::copy(cdylib(), lib.join("libnetmap_xdp.so")).unwrap();
    Cmd::new("cp").arg("-r").arg(workspace().join("compat-c/include")).arg(&prefix).run().expect_success();
    let mut pc = std::fs::read_to_string(workspace().join("compat-c/netmap-xdp.pc.in")).unwrap();
    for (name, value) in [("PREFIX", prefix.clone()), ("LIBDIR", lib.clone()), ("INCLUDEDIR", prefix.join("include"))] {
        pc = pc.replace(&format!("@{name}@"), value.to_str().unwrap());
    }
    std::fs::write(lib.join("pkgconfig/netmap-xdp.pc"), pc.replace("@VERSION@", "0")).unwrap();
    let asked = Cmd::new("pkg-config").args(["--cflags", "--libs", "netmap-xdp"]);
    let flags = asked.env("PKG_CONFIG_PATH", lib.join("pkgconfig")).run().expect_success().stdout;
    let build = |source: &str, program: &str| {
        let path = prefix.join(program);
        let compile =
            Cmd::new("cc").args(["-O2", "-Wall", "-pthread"]).arg(workspace().join(source)).arg("-o").arg(&path);
        compile.args(flags.split_whitespace()).timeout(Duration::from_secs(60)).run().expect_success();
        path
    };
    let (send, recv) = (build("compat-c/examples/nm-send.c", "send"), build("compat-c/examples/nm-recv.c", "recv"));
    let semantics = build("tests/c/nic_semantics.c", "semantics");

    let pair = Veth::new().build();
    let receiver = pair.b.command(recv).args(["-i", "netmap:veth1", "-V", "-n", "1000", "-t", "15"]);
    let mut receiver = receiver.env("LD_LIBRARY_PATH", &lib).spawn();
    receiver.wait_for("ready", SOON);
    let sender = pair.a.command(send).args(["-i", "netmap:veth0", "-V", "-n", "1000", "-R", "10000"]);
    sender.env("LD_LIBRARY_PATH", &lib).run().expect_success();
    receiver.wait(SOON).expect_success();
    pair.assert_no_xdp();

    let pair = loop_pair(Veth::new());
    let done = pair.a.command(semantics).arg("all").env("LD_LIBRARY_PATH", &lib).run().expect_success();
    assert!(done.stdout.contains("ok"), "{done}");
    let _ = std::fs::remove_dir_all(&prefix);
}
