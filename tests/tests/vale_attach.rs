//! NICs, host rings and persistent ports attached to switches: traffic through them, who is refused what, and what becomes of
//! them when interfaces go away. Through netmapd: `daemon_attach`.

mod nic_common;

use netmap_xdp::api::control::{
    self, NETMAP_POLLING_MODE_MULTI_CPU as MULTI, NETMAP_POLLING_MODE_SINGLE_CPU as SINGLE, Shape,
};
use netmap_xdp::api::{Error, Interest, Port};
use netmap_xdp::client::{self, settled_in};
use netmap_xdp::ctl::{Mode, PortName, Register, Request, ValeAttach};
use netmap_xdp_tests::{End, Pair, Veth, wait_until};
use nic_common::*;
use std::time::{Duration, Instant};

/// In the namespace of an end.
fn at<T: Send>(end: &End, f: impl FnOnce() -> T + Send) -> T {
    end.ns.run(f)
}

#[track_caller]
fn attach(end: &End, name: &str) -> u32 {
    at(end, || control::attach(name, false, Shape::default())).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[track_caller]
fn attach_with_host(end: &End, name: &str) -> u32 {
    at(end, || control::attach(name, true, Shape::default())).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[track_caller]
fn detach(end: &End, name: &str) -> u32 {
    at(end, || control::detach(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What is attached, by name and index.
fn listed(end: &End) -> Vec<(String, u32)> {
    at(end, control::list).unwrap().into_iter().map(|p| (p.name, p.port)).collect()
}

#[track_caller]
fn errno<T>(result: Result<T, Error>) -> i32 {
    result.err().expect("it ought to be refused").errno
}

/// Every buffer of the region of a port is free or in a slot.
#[track_caller]
fn every_buffer_is_somewhere(end: &End, name: &str) -> u16 {
    let id = at(end, || control::info(name)).unwrap().shape.mem_id;
    let mut counts = None;
    let all = wait_until(SOON, || {
        counts = settled_in(id);
        counts.is_some_and(|c| c.free + c.held == c.usable)
    });
    assert!(all, "{name}: {counts:?}");
    id
}

/// Sends until something arrives: what lies between may still be starting.
#[track_caller]
fn wait_for_passage(from: &mut Port, to: &mut Port) {
    let there = wait_until(SOON, || {
        push(&mut from.tx(0), &frame(0, 60));
        from.sync_tx().unwrap();
        to.wait(Interest::READ, Some(SECOND / 20)).unwrap();
        !take(to, 0).is_empty()
    });
    assert!(there, "nothing passes");
    // The rest of them.
    while !{
        to.wait(Interest::READ, Some(SECOND / 5)).unwrap();
        take(to, 0)
    }
    .is_empty()
    {}
}

/// The threads of this process that are called so: number of times that they went to sleep, and their CPUs.
fn threads(name: &str) -> Vec<(u64, String)> {
    let all = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let mine = all.filter(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.trim() == name));
    let status = |path: std::path::PathBuf| std::fs::read_to_string(path.join("status")).ok();
    let field = |text: &str, key: &str| {
        text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default().trim_start_matches(':').trim().to_string()
    };
    let read = |text: String| {
        (field(&text, "voluntary_ctxt_switches").parse().unwrap_or_default(), field(&text, "Cpus_allowed_list"))
    };
    mine.filter_map(|t| status(t.path())).map(read).collect()
}

#[test]
fn frames_cross_between_a_switch_and_the_wire_byte_by_byte() {
    alone!();
    let pair = Veth::new().build();
    let mut wire = open(&pair.b, "netmap:{}");
    let mut port = open(&pair.a, "vale0:p");
    assert_eq!(attach(&pair.a, "vale0:veth0"), 1);
    assert_eq!(listed(&pair.a), [("vale0:p".to_string(), 0), ("vale0:veth0".to_string(), 1)]);
    carry(&mut wire, 0, &mut port, 0, &frames(3000, 28, 1514));
    carry(&mut port, 0, &mut wire, 0, &frames(3000, 28, 1514));
    assert_eq!((port.drops(), wire.drops()), (vec![], vec![]));
    let id = every_buffer_is_somewhere(&pair.a, "vale0:veth0");
    assert_eq!(detach(&pair.a, "vale0:veth0"), 1);
    pair.a.assert_no_xdp();
    assert_eq!((settled_in(id), threads("netmap-port").len()), (None, 0));
    drop((wire, port));
    assert_all_buffers_returned();
    pair.assert_no_xdp();
}

#[test]
fn every_queue_of_a_nic_is_a_ring_of_its_port() {
    alone!();
    let pair = Veth::new().queues(2).build();
    let mut wire = open(&pair.b, "netmap:{}");
    attach(&pair.a, "vale0:veth0");
    let mut port = open(&pair.a, "vale0:p@conf:rings=2");
    let shape = at(&pair.a, || control::info("vale0:veth0")).unwrap().shape;
    assert_eq!((shape.tx_rings, shape.rx_rings), (2, 2));
    assert!(shape.mem_id > 1, "a region of its own");
    // Broadcasts go to ring 0, wherever they come from; known addresses to the ring of the sender's number.
    for queue in 0..2 {
        carry(&mut wire, queue, &mut port, 0, &frames(200, 60, 1514));
    }
    let to = |seq| {
        let mut f = frame(seq, 200);
        f[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        f
    };
    carry(&mut port, 1, &mut wire, 1, &(0..300).map(to).collect::<Vec<_>>());
    detach(&pair.a, "vale0:veth0");
}

#[test]
fn a_host_stack_attached_with_its_nic_talks_through_the_switch() {
    alone!();
    let pair = Veth::new().addresses("10.58.0.1/24", "10.58.0.2/24").build();
    assert_ping(&pair.b, "10.58.0.1");
    assert_eq!(attach_with_host(&pair.a, "vale0:veth0"), 0);
    assert_eq!(listed(&pair.a), [("vale0:veth0".to_string(), 0), ("vale0:veth0^".to_string(), 1)]);
    assert_ping(&pair.b, "10.58.0.1");
    assert_ping(&pair.a, "10.58.0.2");
    let mut port = open(&pair.a, "vale0:p");
    let mut ask = vec![0xff; 6];
    let me = [2, 0, 0, 0, 0, 0x77];
    ask.extend(me);
    ask.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    ask.extend(me);
    ask.extend([10, 58, 0, 77, 0, 0, 0, 0, 0, 0, 10, 58, 0, 1]);
    ask.resize(60, 0);
    push(&mut port.tx(0), &ask);
    port.sync_tx().unwrap();
    let mut answers = Vec::new();
    let answered = wait_until(SOON, || {
        port.wait(Interest::READ, Some(SECOND / 10)).unwrap();
        answers.extend(take(&mut port, 0));
        answers
            .iter()
            .any(|f| f[..6] == me && f[12..14] == [8, 6] && f[20..22] == [0, 2] && f[28..32] == [10, 58, 0, 1])
    });
    assert!(answered, "the host does not answer who has 10.58.0.1: {answers:02x?}");
    assert_eq!(at(&pair.a, || errno(control::detach("vale0:veth0^"))), libc::EBUSY, "it goes with its NIC");
    detach(&pair.a, "vale0:veth0");
    assert_eq!(listed(&pair.a), [("vale0:p".to_string(), 2)]);
    pair.a.assert_no_xdp();
    assert_ping(&pair.b, "10.58.0.1");
}

/// Two pairs whose ends `a` lie in one namespace, as `veth0` and `veth2`.
fn two_nics(first: Veth, second: Veth) -> (Pair, Pair) {
    let (one, two) = (first.build(), second.build());
    two.a.set(&["down"]);
    two.a.set(&["name", "veth2"]);
    let ip = |ns: &str, more: &[&str]| {
        let args = [&["-n", ns, "link", "set", "dev", "veth2"], more].concat();
        netmap_xdp_tests::Cmd::new("ip").args(args).run().expect_success();
    };
    ip(two.a.ns.name(), &["netns", one.a.ns.name()]);
    ip(one.a.ns.name(), &["up"]);
    (one, two)
}

#[test]
fn two_nics_on_a_switch_are_a_bridge() {
    alone!();
    let first = Veth::new().addresses("10.59.8.1/24", "10.59.0.1/24");
    let (one, two) = two_nics(first, Veth::new().addresses("10.59.9.1/24", "10.59.0.2/24"));
    attach(&one.a, "vale0:veth0");
    attach(&one.a, "vale0:veth2");
    assert_ping(&one.b, "10.59.0.2");
    let (mut left, mut right) = (open(&one.b, "netmap:{}"), open(&two.b, "netmap:{}"));
    wait_for_passage(&mut left, &mut right);
    carry(&mut left, 0, &mut right, 0, &frames(2000, 60, 1514));
    carry(&mut right, 0, &mut left, 0, &frames(2000, 60, 1514));
    detach(&one.a, "vale0:veth0");
    detach(&one.a, "vale0:veth2");
    assert_eq!(listed(&one.a), []);
}

#[test]
fn a_persistent_port_joins_two_switches() {
    alone!();
    let shape = Shape { tx_slots: 64, rx_slots: 64, tx_rings: 2, rx_rings: 2, mem_id: 0 };
    control::create("join", shape).unwrap();
    assert_eq!(control::attach("vale0:join", false, Shape::default()), Ok(0));
    assert_eq!(errno(control::attach("vale0:join", false, Shape::default())), libc::EBUSY, "twice in one switch");
    assert_eq!(control::attach("vale1:join", false, Shape::default()), Ok(0));
    assert_eq!(errno(control::attach("vale2:join", false, Shape::default())), libc::EBUSY, "a third switch");
    let (mut one, mut other) = (Port::open("vale0:x").unwrap(), Port::open("vale1:y").unwrap());
    carry(&mut one, 0, &mut other, 0, &frames(2000, 60, 1514));
    carry(&mut other, 0, &mut one, 0, &frames(2000, 60, 1514));
    for name in ["netmap:join", "vale0:join", "vale1:join"] {
        assert_eq!(errno(Port::open(name)), libc::EBUSY, "{name}");
    }
    assert_eq!(errno(control::remove("join")), libc::EBUSY);
    assert_eq!(errno(control::detach("vale0:join")), libc::EBUSY, "the second switch first");
    assert_eq!(control::detach("vale1:join"), Ok(0));
    assert_eq!(errno(control::remove("join")), libc::EBUSY);
    let port = Port::open("vale0:join").unwrap();
    assert_eq!(errno(control::attach("vale1:join", false, Shape::default())), libc::EBUSY, "somebody has it open");
    drop(port);
    assert_eq!(control::detach("vale0:join"), Ok(0));
    control::remove("join").unwrap();
}

#[test]
fn who_may_not_be_attached_or_bound_is_told_why() {
    alone!();
    let pair = Veth::new().build();
    let a = &pair.a;
    let try_attach = |name: &str| at(a, || control::attach(name, false, Shape::default()));
    assert_eq!(errno(try_attach("veth0")), libc::EINVAL, "no switch");
    assert_eq!(errno(try_attach("vale0:veth9")), libc::EINVAL, "no such interface");
    assert_eq!(errno(try_attach("vale-:veth0")), libc::ENOMEM, "no name of a switch");
    let shape = Shape { mem_id: 77, ..Shape::default() };
    assert_eq!(at(a, || errno(control::attach("vale0:veth0", false, shape))), libc::EINVAL, "no such region");
    let bound = open(a, "netmap:{}");
    assert_eq!(errno(try_attach("vale0:veth0")), libc::EBUSY, "somebody has it open");
    drop(bound);
    for (mode, ring) in [(Mode::OneNic, 0), (Mode::Sw, 0), (Mode::Invalid(0), 0), (Mode::AllNic, 1)] {
        let name = PortName::new("vale0:veth0").unwrap();
        let register = Register { mode, ring_id: ring, ..Register::new(name) };
        let failure = at(a, || client::ask(&Request::ValeAttach(ValeAttach { register }))).unwrap_err();
        assert_eq!(failure.errno.0, libc::EINVAL, "{mode:?} {ring}: {failure}");
    }
    assert!(pair.a.xdp().is_none() && listed(a).is_empty(), "nothing is left of what failed");
    for name in ["vale0:veth0", "vale0:none"] {
        assert_eq!(at(a, || errno(control::detach(name))), libc::ENXIO);
        assert_eq!(at(a, || errno(control::polling(name, true, SINGLE, 0, 1))), libc::ENXIO);
    }
    assert_eq!(errno(try_open(a, "vale0:{}")), libc::EINVAL, "an interface that is not attached");

    assert_eq!(attach(a, "vale0:veth0"), 0);
    assert_eq!(errno(try_attach("vale0:veth0")), libc::EBUSY);
    assert_eq!(errno(try_attach("vale1:veth0")), libc::EBUSY, "in another switch");
    for name in ["netmap:{}", "netmap:{}^", "netmap:{}*", "netmap:{}-0", "vale0:{}", "netmap:{}/r"] {
        assert_eq!(errno(try_open(a, name)), libc::EBUSY, "{name}");
    }
    let busy = try_open(a, "netmap:{}").map(drop).unwrap_err();
    assert!(busy.message.contains("it belongs to vale0:veth0; detach it there"), "{busy}");
    assert_eq!(at(a, || control::info("vale0:veth0")).unwrap().shape.tx_rings, 1);
    assert!(try_attach("vale0:veth0").unwrap_err().message.contains("in use"));
    assert_eq!(at(a, || errno(control::detach("veth0"))), libc::EINVAL);
    detach(a, "vale0:veth0");
    drop(open(a, "netmap:{}"));
    pair.assert_no_xdp();
}

#[test]
fn polled_rings_carry_traffic_on_the_cpu_that_was_asked_for() {
    alone!();
    // SAFETY: takes an integer.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) } as u32;
    if online < 2 {
        netmap_xdp_tests::skip!("polling leaves one CPU at least to others, and there is but one");
    }
    let pair = Veth::new().queues(2).build();
    let mut wire = open(&pair.b, "netmap:{}");
    let mut port = open(&pair.a, "vale0:p");
    attach(&pair.a, "vale0:veth0");
    let poll = |on, mode, first, cpus| at(&pair.a, || control::polling("vale0:veth0", on, mode, first, cpus));
    for (mode, first, cpus) in
        [(SINGLE, 0, 0), (SINGLE, 0, online), (SINGLE, 0, 2), (SINGLE, online, 1), (MULTI, 2, 1), (7, 0, 1)]
    {
        assert_eq!(errno(poll(true, mode, first, cpus)), libc::EINVAL, "{mode} {first} {cpus}");
    }
    assert_eq!(at(&pair.a, || errno(control::polling("vale0:p", true, SINGLE, 0, 1))), libc::EOPNOTSUPP);
    assert_eq!(at(&pair.a, || errno(control::polling("veth0", true, SINGLE, 0, 1))), libc::EINVAL);
    assert_eq!(errno(poll(false, SINGLE, 0, 0)), libc::EFAULT);
    for (mode, cpu) in [(SINGLE, 1), (MULTI, 1), (MULTI, 0)] {
        poll(true, mode, cpu, 1).unwrap();
        assert_eq!(threads("netmap-poll").iter().map(|t| t.1.clone()).collect::<Vec<_>>(), [cpu.to_string()]);
        assert_eq!(errno(poll(true, mode, cpu, 1)), libc::EFAULT);
        assert_eq!(at(&pair.a, || errno(control::detach("vale0:veth0"))), libc::EBUSY);
        for queue in 0..2 {
            carry(&mut wire, queue, &mut port, 0, &frames(500, 60, 1514));
        }
        carry(&mut port, 0, &mut wire, 0, &frames(500, 60, 1514));
        poll(false, SINGLE, 0, 0).unwrap();
        assert_eq!(threads("netmap-poll").len(), 0);
        carry(&mut wire, 1, &mut port, 0, &frames(500, 60, 1514));
    }
    every_buffer_is_somewhere(&pair.a, "vale0:veth0");
    detach(&pair.a, "vale0:veth0");
}

#[test]
fn an_idle_port_sleeps_and_is_woken_by_either_side() {
    alone!();
    let pair = Veth::new().build();
    let mut wire = open(&pair.b, "netmap:{}");
    let mut port = open(&pair.a, "vale0:p");
    attach(&pair.a, "vale0:veth0");
    for _ in 0..20 {
        carry(&mut wire, 0, &mut port, 0, &[frame(1, 60)]);
        carry(&mut port, 0, &mut wire, 0, &[frame(2, 60)]);
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = threads("netmap-port")[0].0;
    let start = Instant::now();
    std::thread::sleep(SECOND);
    let per_second = (threads("netmap-port")[0].0 - before) as f64 / start.elapsed().as_secs_f64();
    assert!(per_second < 20.0, "{per_second} wakeups a second");
    detach(&pair.a, "vale0:veth0");
}

#[test]
fn a_flood_from_the_switch_neither_stops_a_nic_nor_loses_a_buffer() {
    alone!();
    let pair = Veth::new().build();
    let mut wire = open(&pair.b, "netmap:{}");
    let mut port = open(&pair.a, "vale0:p");
    attach(&pair.a, "vale0:veth0");
    let end = Instant::now() + SECOND / 2;
    while Instant::now() < end {
        let mut ring = port.tx(0);
        while push(&mut ring, &frame(3, 60)) {}
        drop(ring);
        port.sync_tx().unwrap();
    }
    let quiet = |wire: &mut Port| {
        wire.wait(Interest::READ, Some(SECOND / 5)).unwrap();
        take(wire, 0).is_empty()
    };
    assert!(wait_until(SOON, || quiet(&mut wire)), "the flood does not end");
    carry(&mut port, 0, &mut wire, 0, &frames(500, 60, 1514));
    carry(&mut wire, 0, &mut port, 0, &frames(500, 60, 1514));
    every_buffer_is_somewhere(&pair.a, "vale0:veth0");
    // And taken off in the middle of the next one.
    let end = Instant::now() + SECOND / 4;
    let mut on = true;
    while Instant::now() < end {
        let mut ring = port.tx(0);
        while push(&mut ring, &frame(3, 60)) {}
        drop(ring);
        port.sync_tx().unwrap();
        if on && Instant::now() + SECOND / 8 > end {
            detach(&pair.a, "vale0:veth0");
            on = false;
        }
    }
    pair.a.assert_no_xdp();
    attach(&pair.a, "vale0:veth0");
    wait_for_passage(&mut port, &mut wire);
    carry(&mut port, 0, &mut wire, 0, &frames(100, 60, 1514));
    detach(&pair.a, "vale0:veth0");
}

/// Everything that other members of a switch can map of an attached port: its region but for the buffers, and the state of its
/// rings; mapped again, to be scribbled upon.
fn exposed(end: &End, name: &str) -> Vec<(usize, usize)> {
    let region = at(end, || control::info(name)).unwrap().memsize;
    let mut maps = Vec::new();
    for fd in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(target) = std::fs::read_link(fd.path()) else { continue };
        let Ok(size) = std::fs::metadata(fd.path()).map(|m| m.len()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let ours = target.contains("netmap-region") && size == region;
        if !ours && !target.contains("netmap-krings") {
            continue;
        }
        let file = std::fs::OpenOptions::new().read(true).write(true).open(fd.path()).unwrap();
        // Rings and interfaces come first, and are what makes an index dangerous.
        let len = if ours { size.min(64 << 10) } else { size } as usize;
        let (prot, raw) = (libc::PROT_READ | libc::PROT_WRITE, std::os::fd::AsRawFd::as_raw_fd(&file));
        // SAFETY: a mapping of its own, of a file that is as long, which nothing but this test writes through.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, raw, 0) };
        assert_ne!(map, libc::MAP_FAILED);
        maps.push((map as usize, len));
    }
    maps
}

#[test]
fn a_member_of_the_switch_that_scribbles_harms_neither_the_thread_nor_the_interface() {
    alone!();
    let pair = Veth::new().build();
    attach(&pair.a, "vale0:veth0");
    let maps = exposed(&pair.a, "vale0:veth0");
    assert!(maps.len() >= 2, "{maps:?}");
    let mut wire = open(&pair.b, "netmap:{}");
    let mut port = open(&pair.a, "vale0:p");
    let end = Instant::now() + SECOND;
    let mut x = 1u64;
    while Instant::now() < end {
        for _ in 0..200 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (map, len) = maps[(x >> 60) as usize % maps.len()];
            let value = if x & 0x10_0000 == 0 { (x >> 21) as u32 } else { (x >> 21) as u32 % 1100 };
            let at = (x >> 33) as usize % (len / 4);
            // SAFETY: inside the mapping, which is shared with threads that expect just this.
            unsafe { (map as *mut u32).add(at).write_volatile(value) };
        }
        for port in [&mut wire, &mut port] {
            push(&mut port.tx(0), &frame(0, 60));
            port.sync_tx().unwrap();
            let _ = port.sync_rx();
            let n = port.rx(0).available();
            port.rx(0).release(n);
        }
    }
    // The state of the NIC's own rings was fair game too, so that it may have been taken for vanished.
    let _ = at(&pair.a, || control::detach("vale0:veth0"));
    pair.a.assert_no_xdp();
    attach(&pair.a, "vale0:veth0");
    wait_for_passage(&mut port, &mut wire);
    carry(&mut port, 0, &mut wire, 0, &frames(100, 60, 1514));
    carry(&mut wire, 0, &mut port, 0, &frames(100, 60, 1514));
    detach(&pair.a, "vale0:veth0");
}

#[test]
fn an_interface_may_be_down_come_up_and_go_down_again() {
    alone!();
    let pair = Veth::new().build();
    pair.a.set(&["down"]);
    attach(&pair.a, "vale0:veth0");
    let mut port = open(&pair.a, "vale0:p");
    let mut wire = open(&pair.b, "netmap:{}");
    for _ in 0..2 {
        pair.a.set(&["up"]);
        wait_for_passage(&mut port, &mut wire);
        wait_for_passage(&mut wire, &mut port);
        carry(&mut port, 0, &mut wire, 0, &frames(100, 60, 1514));
        carry(&mut wire, 0, &mut port, 0, &frames(100, 60, 1514));
        pair.a.set(&["down"]);
        push(&mut port.tx(0), &frame(0, 60));
        port.sync_tx().unwrap();
    }
    detach(&pair.a, "vale0:veth0");
}

#[test]
fn an_interface_that_vanishes_is_taken_off_and_its_switch_goes_on() {
    alone!();
    let pair = Veth::new().addresses("10.58.1.1/24", "10.58.1.2/24").build();
    let (mut port, mut other) = (open(&pair.a, "vale0:p"), open(&pair.a, "vale0:q"));
    attach_with_host(&pair.a, "vale0:veth0");
    let id = at(&pair.a, || control::info("vale0:veth0")).unwrap().shape.mem_id;
    pair.a.command("ip").args(["link", "del", "dev", "veth0"]).run().expect_success();
    // Nobody asks: the thread finds out by itself.
    assert!(wait_until(SOON, || settled_in(id).is_none()), "it is still served");
    assert_eq!(listed(&pair.a).len(), 2);
    assert!(wait_until(SOON, || threads("netmap-port").is_empty()), "its thread is still there");
    carry(&mut port, 0, &mut other, 0, &frames(500, 60, 1514));
}
