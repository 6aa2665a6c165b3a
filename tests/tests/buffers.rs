//! Buffers of another size, frames that do not fit into them, and UMEMs that are registered twice.

mod nic_common;

use netmap_xdp::api::{Interest, NS_MOREFRAG, Port, wait_many};
use netmap_xdp_tests::{Daemons, End, Finished, Pair, Veth, needs_root, tool};
use nic_common::*;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Lengths around those at which a frame of 4096-byte buffers takes one piece more.
fn edges(most: usize) -> Vec<Vec<u8>> {
    let all = [60, 2047, 2048, 2049, 3839, 3840, 3841, 4095, 4096, 4097, 7679, 7680, 7681, 8191, 8192, 8193, 9014];
    let lengths: Vec<usize> = all.into_iter().filter(|&len| len <= most).chain([most]).collect();
    (0..20 * lengths.len() as u64).map(|seq| frame(seq, lengths[seq as usize % lengths.len()])).collect()
}

fn both_ways(a: &mut Port, b: &mut Port, most: usize) {
    carry(a, 0, b, 0, &edges(most));
    carry(b, 0, a, 0, &edges(most));
    carry(a, 0, b, 0, &frames(500, 60, most));
    carry(b, 0, a, 0, &frames(500, 2049, most));
    assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
}

fn jumbo_frames_in_buffers_of_4096() {
    let pair = Veth::new().mtu(9000).build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    assert_eq!((a.buf_size(), b.buf_size()), (4096, 4096));
    both_ways(&mut a, &mut b, 9014);
    drop((a, b));
    assert_all_buffers_returned();
}

#[test]
fn jumbo_frames_go_through_buffers_of_4096_bytes_in_native_mode() {
    alone!("NETMAP_XDP_MODE" = "native", "NETMAP_XDP_BUF_SIZE" = "4096");
    jumbo_frames_in_buffers_of_4096();
}

#[test]
fn jumbo_frames_go_through_buffers_of_4096_bytes_in_generic_mode() {
    alone!("NETMAP_XDP_MODE" = "generic", "NETMAP_XDP_BUF_SIZE" = "4096");
    jumbo_frames_in_buffers_of_4096();
}

#[test]
fn jumbo_frames_go_through_aligned_buffers_of_4096_bytes() {
    alone!("NETMAP_XDP_UMEM" = "aligned", "NETMAP_XDP_BUF_SIZE" = "4096");
    jumbo_frames_in_buffers_of_4096();
}

#[test]
fn the_largest_mtu_there_is_fits_in_chains_of_4096_bytes() {
    alone!("NETMAP_XDP_BUF_SIZE" = "4096");
    let pair = Veth::new().mtu(65535).build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    carry(&mut a, 0, &mut b, 0, &frames(60, 60_000, 65535));
    carry(&mut b, 0, &mut a, 0, &frames(60, 60, 65535));
    assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
}

fn whole_frames_of_3836() {
    let pair = Veth::new().mtu(3822).build();
    let (mut a, mut b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    carry(&mut a, 0, &mut b, 0, &frames(500, 3400, 3836));
    assert!(push(&mut a.tx(0), &frame(0, 3836)));
    a.sync_tx().unwrap();
    assert!(b.wait(Interest::READ, Some(SOON)).unwrap().read);
    let ring = b.rx(0);
    let slot = ring.slot(0).unwrap();
    assert_eq!((ring.available(), slot.len(), slot.flags() & NS_MOREFRAG), (1, 3836, 0));
}

#[test]
fn a_frame_that_fits_needs_no_chain_in_native_mode() {
    alone!("NETMAP_XDP_MODE" = "native", "NETMAP_XDP_BUF_SIZE" = "4096", "NETMAP_XDP_FRAGS" = "off");
    whole_frames_of_3836();
}

#[test]
fn a_frame_that_fits_needs_no_chain_in_generic_mode() {
    alone!("NETMAP_XDP_MODE" = "generic", "NETMAP_XDP_BUF_SIZE" = "4096", "NETMAP_XDP_FRAGS" = "off");
    whole_frames_of_3836();
}

#[test]
fn every_byte_of_a_buffer_of_4096_is_its_own() {
    needs_root!();
    let program = c_test("nic_buffers");
    let ways = [
        ("native", "unaligned", &["4096", "3840", "61"][..]),
        ("generic", "unaligned", &["4096"]),
        ("native", "aligned", &["4096"]),
    ];
    for (mode, umem, lengths) in ways {
        for length in lengths {
            let size = [("NETMAP_XDP_BUF_SIZE", "4096"), ("NETMAP_XDP_MODE", mode), ("NETMAP_XDP_UMEM", umem)];
            let env = [&size[..], &[("NETMAP_XDP_SLOTS", "64"), ("NETMAP_XDP_BUFFERS", "512")]].concat();
            let done = run_scenario(&program, length, Veth::new().mtu(4082), &env);
            assert_eq!(done.field("size"), Some(4096), "{done}");
        }
    }
}

#[test]
fn netmapd_decides_on_the_size_for_all_its_programs() {
    needs_root!();
    let daemons = Daemons::new();
    let mut daemon = daemons.start_with(&["--buf-size", "4096", "--buffers", "512"], &[("NETMAP_XDP_SLOTS", "64")]);
    let pair = loop_pair(Veth::new().mtu(4082));
    // What the program's own environment says is about an engine in its process.
    let program = pair.a.command(c_test("nic_buffers")).arg("4000").env("NETMAP_XDP_BUF_SIZE", "2048");
    let done = daemons.with(program, "daemon").run().expect_success();
    assert_eq!(done.field("size"), Some(4096), "{done}");
    daemon.signal(libc::SIGTERM);
    daemon.wait(SOON).expect_success();
    let why = netmap_xdp_tests::Cmd::new(tool("netmapd")).args(["--foreground", "--buf-size", "3000"]).run();
    assert!(!why.success() && why.stderr.contains("2048 or 4096"), "{why}");
}

/// Registers at `end`, and returns what the program said.
fn registered(end: &End, env: &[(&str, &str)]) -> Finished {
    let command = end.command(c_test("nic_register")).arg(end.dev).preload();
    env.iter().fold(command, |c, (name, value)| c.env(name, value)).run()
}

#[track_caller]
fn assert_refused(pair: &Pair, env: &[(&str, &str)], errno: &str, words: &[&str]) {
    let done = registered(&pair.a, env);
    assert!(done.stdout.contains(&format!("result={errno}")), "{done}");
    for word in words {
        assert!(done.stderr.contains(word), "{word:?} is not in {done}");
    }
}

#[test]
fn an_mtu_that_cannot_fit_is_refused_with_the_numbers_and_what_mends_it() {
    needs_root!();
    for mode in ["native", "generic"] {
        let off = [("NETMAP_XDP_MODE", mode), ("NETMAP_XDP_FRAGS", "off")];
        let large = [&off[..], &[("NETMAP_XDP_BUF_SIZE", "4096")]].concat();
        let pair = Veth::new().mtu(9000).build();
        let both = ["veth0", "MTU 9000", "9018 bytes", "ip link set veth0 mtu", "NETMAP_XDP_FRAGS=auto"];
        assert_refused(&pair, &off, "EINVAL", &[&both[..], &["2048", "mtu 2030"]].concat());
        assert_refused(&pair, &large, "EINVAL", &[&both[..], &["4096", "3840", "mtu 3822"]].concat());
        // What the message says mends it.
        pair.a.set(&["mtu", "3822"]);
        assert_refused(&pair, &off, "EINVAL", &["MTU 3822", "NETMAP_XDP_BUF_SIZE=4096"]);
        let done = registered(&pair.a, &large);
        assert!(done.stdout.contains("result=ok"), "{done}");
        pair.a.set(&["mtu", "3823"]);
        assert_refused(&pair, &large, "EINVAL", &["MTU 3823", "mtu 3822"]);
        pair.a.set(&["mtu", "2030"]);
        let done = registered(&pair.a, &off);
        assert!(done.stdout.contains("result=ok") && !done.stderr.contains("NS_MOREFRAG"), "{done}");
        pair.assert_no_xdp();
    }
}

#[test]
fn an_mtu_that_takes_more_slots_than_a_ring_has_is_refused() {
    needs_root!();
    let pair = Veth::new().mtu(65535).build();
    let slots = |n| [("NETMAP_XDP_SLOTS", n)];
    assert_refused(
        &pair,
        &slots("16"),
        "EINVAL",
        &["MTU 65535", "33 buffers of 2048", "16 slots", "mtu 30702", "NETMAP_XDP_SLOTS"],
    );
    let done = registered(&pair.a, &slots("34"));
    assert!(done.stdout.contains("result=ok") && done.stderr.contains("34816 bytes cannot be sent"), "{done}");
}

/// Moves what waits in the receive ring of one port to the transmit ring of the other by swapping, both ways.
fn swap_both_ways(x: &mut Port, y: &mut Port, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let ready = wait_many(&mut [(&mut *x, Interest::READ), (&mut *y, Interest::READ)], Some(SECOND / 20)).unwrap();
        assert!(!ready.iter().any(|r| r.error));
        for back in [false, true] {
            let (from, to) = if back { (&mut *y, &mut *x) } else { (&mut *x, &mut *y) };
            swap_on(from, to);
        }
    }
}

fn while_swapping(x: &mut Port, y: &mut Port, then: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| swap_both_ways(x, y, &stop));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(then));
        stop.store(true, Relaxed);
        if let Err(why) = done {
            std::panic::resume_unwind(why);
        }
    });
}

/// Frames pass from pair to pair through two ports whose settings differ by the names of their devices, and back.
fn between_unlike_ports(mtu: u32) {
    let (left, right) = (Veth::new().mtu(mtu).build(), Veth::new().mtu(mtu).build());
    let most = mtu as usize + 14;
    // veth1, then veth0 and veth1 of the other pair: whoever comes first registers, and each finds its like.
    let mut sink = open(&right.b, "netmap:{}");
    let (mut outer, mut inner) = (open(&right.a, "netmap:{}"), open(&left.b, "netmap:{}"));
    let mut source = open(&left.a, "netmap:{}");
    assert!([&sink, &outer, &source].iter().all(|p| p.mem_id() == inner.mem_id()), "one region for all");
    while_swapping(&mut inner, &mut outer, || {
        carry(&mut source, 0, &mut sink, 0, &frames(1500, 60, most));
        carry(&mut sink, 0, &mut source, 0, &frames(1500, 60, most));
        carry(&mut source, 0, &mut sink, 0, &frames(500, most - 40, most));
        carry(&mut sink, 0, &mut source, 0, &frames(500, most - 40, most));
    });
    // Who registered first may go: what it registered stays as long as somebody uses it.
    drop(sink);
    let mut sink = open(&right.b, "netmap:{}");
    while_swapping(&mut inner, &mut outer, || {
        carry(&mut source, 0, &mut sink, 0, &frames(500, 60, most));
        carry(&mut sink, 0, &mut source, 0, &frames(500, 60, most));
    });
    for port in [&source, &inner, &outer, &sink] {
        assert_eq!(port.drops(), vec![], "{}", port.name());
    }
    drop((source, inner, outer, sink));
    assert_all_buffers_returned();
}

#[test]
fn the_same_pages_are_registered_once_for_each_way_of_using_them() {
    needs_root!();
    let program = c_test("nic_buffers");
    let run = |umem: &str, length: &str| {
        let env = [("NETMAP_XDP_UMEM", umem), ("NETMAP_XDP_MODE", "native"), ("NETMAP_XDP_LOG", "debug")];
        let env = [&env[..], &[("NETMAP_XDP_SLOTS", "64"), ("NETMAP_XDP_BUFFERS", "512")]].concat();
        run_scenario(&program, length, Veth::new().mtu(2034), &env).stderr
    };
    let [first, second, shared] = [
        "registered, Unaligned chunks of 2304",
        "registered, Aligned chunks of 2048",
        "as a sibling has registered it",
    ];
    let alike = run("auto", "61");
    assert!(alike.contains(first) && alike.contains(shared), "{alike}");
    for unlike in [run("auto,veth1=aligned", "2048"), run("auto,veth0=aligned", "2048")] {
        assert!(unlike.contains(first) && unlike.contains(second) && !unlike.contains(shared), "{unlike}");
    }
}

#[test]
fn ports_whose_umems_are_registered_otherwise_exchange_buffers_both_ways() {
    alone!("NETMAP_XDP_UMEM" = "auto,veth1=aligned");
    between_unlike_ports(1500);
}

#[test]
fn chains_cross_from_one_registration_to_the_other() {
    alone!("NETMAP_XDP_UMEM" = "auto,veth1=aligned");
    between_unlike_ports(9000);
}

#[test]
fn buffers_of_4096_bytes_cross_from_one_registration_to_the_other() {
    alone!("NETMAP_XDP_UMEM" = "auto,veth1=aligned", "NETMAP_XDP_BUF_SIZE" = "4096");
    between_unlike_ports(9000);
}

#[test]
fn native_and_generic_ports_exchange_buffers_both_ways() {
    alone!("NETMAP_XDP_MODE" = "native,veth1=generic");
    let (left, right) = (Veth::new().build(), Veth::new().build());
    let (mut source, mut sink) = (open(&left.a, "netmap:{}"), open(&right.b, "netmap:{}"));
    let (mut inner, mut outer) = (open(&left.b, "netmap:{}"), open(&right.a, "netmap:{}"));
    let modes = [&source, &inner, &outer, &sink].map(|p| p.mode());
    assert_eq!(modes, ["native", "generic", "native", "generic"]);
    while_swapping(&mut inner, &mut outer, || {
        carry(&mut source, 0, &mut sink, 0, &frames(1000, 60, 1514));
        carry(&mut sink, 0, &mut source, 0, &frames(1000, 60, 1514));
    });
}

#[test]
fn frames_of_4096_byte_buffers_pass_nic_pipe_and_nic_by_swapping() {
    alone!("NETMAP_XDP_BUF_SIZE" = "4096");
    let (left, right) = (Veth::new().mtu(9000).build(), Veth::new().mtu(9000).build());
    let (mut source, mut sink) = (open(&left.a, "netmap:{}"), open(&right.b, "netmap:{}"));
    let (mut inner, mut outer) = (open(&left.b, "netmap:{}"), open(&right.a, "netmap:{}"));
    let (mut near, mut far) = (Port::open("netmap:p{1@1").unwrap(), Port::open("netmap:p}1").unwrap());
    assert_eq!((near.buf_size(), near.mem_id()), (4096, inner.mem_id()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| swap_both_ways(&mut inner, &mut near, &stop));
        scope.spawn(|| swap_both_ways(&mut far, &mut outer, &stop));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| both_ways(&mut source, &mut sink, 9014)));
        stop.store(true, Relaxed);
        if let Err(why) = done {
            std::panic::resume_unwind(why);
        }
    });
    assert_eq!((inner.drops(), outer.drops(), near.drops(), far.drops()), (vec![], vec![], vec![], vec![]));
    drop((source, sink, inner, outer, near, far));
    assert_all_buffers_returned();
}

#[test]
fn pipes_live_with_the_nic_whose_they_are_whether_it_is_open_or_not() {
    alone!();
    let pair = Veth::new().build();
    let (early, stranger) = (open(&pair.a, "netmap:{}{1"), open(&pair.a, "netmap:stranger{1"));
    let nic = open(&pair.a, "netmap:{}");
    let late = open(&pair.a, "netmap:{}}2");
    assert_eq!((early.mem_id(), nic.mem_id(), late.mem_id()), (1, 1, 1));
    assert_ne!(stranger.mem_id(), 1);
    drop((early, stranger, nic, late));
    assert_all_buffers_returned();
}

#[test]
fn ports_of_a_switch_pass_frames_of_4096_bytes() {
    alone!("NETMAP_XDP_PRIV_BUF_SIZE" = "4096");
    let (mut a, mut b) = (Port::open("vale0:a").unwrap(), Port::open("vale0:b").unwrap());
    assert_eq!((a.buf_size(), b.buf_size()), (4096, 4096));
    let all: Vec<_> =
        [4096, 60, 4095, 2049, 1024].iter().cycle().take(200).zip(0..).map(|(&n, i)| frame(i, n)).collect();
    carry(&mut a, 0, &mut b, 0, &all);
    carry(&mut b, 0, &mut a, 0, &all);
    assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
}

#[test]
fn a_port_of_a_switch_with_smaller_buffers_gets_what_fits_and_the_rest_is_counted() {
    alone!("NETMAP_XDP_BUF_SIZE" = "4096", "NETMAP_XDP_PRIV_BUF_SIZE" = "256");
    // The first lives in region 1, the second in one of its own.
    let (mut large, mut small) = (Port::open("vale0:a@1").unwrap(), Port::open("vale0:b").unwrap());
    assert_eq!((large.buf_size(), small.buf_size()), (4096, 256));
    carry(&mut small, 0, &mut large, 0, &frames(100, 60, 256));
    carry(&mut large, 0, &mut small, 0, &frames(100, 60, 256));
    for (seq, len) in [256, 257, 4096, 60, 1025, 255].into_iter().enumerate() {
        assert!(push(&mut large.tx(0), &frame(seq as u64, len)));
    }
    large.sync_tx().unwrap();
    assert!(small.wait(Interest::READ, Some(SOON)).unwrap().read);
    assert_eq!(take(&mut small, 0), [frame(0, 256), frame(3, 60), frame(5, 255)]);
    assert_eq!(large.drops(), [("too-long", 3)]);
    // A monitor has buffers of the port that it monitors.
    let monitor = Port::open("vale0:b/r").unwrap();
    assert_eq!(monitor.buf_size(), 256);
}

#[test]
fn a_nic_takes_no_region_whose_buffers_are_none_of_a_umem() {
    alone!("NETMAP_XDP_PRIV_BUF_SIZE" = "1024");
    let pair = Veth::new().build();
    let switch = Port::open("vale0:a").unwrap();
    let why = try_open(&pair.a, &format!("netmap:{{}}@{}", switch.mem_id())).err().expect("a refusal");
    assert_eq!(why.errno, libc::EINVAL);
    assert!(["veth0", "1024", "2048 or 4096"].iter().all(|word| why.message.contains(word)), "{why}");
    pair.assert_no_xdp();
}
