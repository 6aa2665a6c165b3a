//! Host rings: a network stack goes on working through a program that stands between it and its NIC.

use netmap_xdp::api::{Builder, Interest, NS_MOREFRAG, Port, Steering};
use netmap_xdp::client::settled;
use netmap_xdp::sys::netdev::bpf::kernel_version;
use netmap_xdp_tests::{
    Cmd, End, Pair, Running, Veth, compile_c, needs_root, patient, since, tool, wait_until, workspace,
};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const START: Duration = Duration::from_secs(20);
const MODES: [&str; 2] = ["native", "generic"];

/// The buffers of the process's one region are counted, and throughput is asserted, so tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two hosts on one wire. Host `a`, whose NIC will be netmap's, leaves checksums and segmentation to its NIC.
fn hosts() -> Pair {
    let pair = Veth::new().addresses("10.55.0.1/24", "10.55.0.2/24").build();
    for (end, address) in [(&pair.a, "fd55::1/64"), (&pair.b, "fd55::2/64")] {
        end.command("sysctl").arg(format!("net.ipv6.conf.{}.disable_ipv6=0", end.dev)).run().expect_success();
        end.command("ip").args(["addr", "add", address, "dev", end.dev, "nodad"]).run().expect_success();
    }
    lazy(&pair.a);
    pair
}

/// Whether a host is cut off a NIC that is netmap's alone: by what goes with its maker.
fn has_tcx() -> bool {
    kernel_version() >= (6, 6)
}

fn lazy(end: &End) {
    end.command("ethtool").args(["-K", end.dev, "tx", "on", "tso", "on", "gso", "on"]).run().expect_success();
}

#[track_caller]
fn ping(pair: &Pair) {
    pair.a.command("ping").args(["-c", "3", "-i", "0.2", "-W", "2", "10.55.0.2"]).run().expect_success();
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// A TCP connection from `a` to `b` and `bytes` each way, compared.
fn tcp(pair: &Pair, bytes: usize) {
    tcp_to(pair, "10.55.0.2:0", bytes);
}

fn tcp_to(pair: &Pair, address: &str, bytes: usize) {
    let listener = pair.b.ns.run(|| TcpListener::bind(address).unwrap());
    let to = listener.local_addr().unwrap();
    let data = &pattern(bytes);
    let limit = Some(Duration::from_secs(20));
    let talk = |mut s: TcpStream, first: bool| {
        s.set_read_timeout(limit).unwrap();
        s.set_write_timeout(limit).unwrap();
        for turn in [first, !first] {
            if turn {
                s.write_all(data).unwrap();
            } else {
                let mut got = vec![0; bytes];
                s.read_exact(&mut got).unwrap();
                assert!(&got == data, "TCP carried other bytes");
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| pair.b.ns.run(|| talk(listener.accept().unwrap().0, false)));
        scope.spawn(|| pair.a.ns.run(|| talk(TcpStream::connect(to).unwrap(), true)));
    });
}

/// Questions and answers as a resolver has them, from `a` to `b`.
fn resolve(pair: &Pair) {
    let [asker, server] = [(&pair.a, "10.55.0.1:0"), (&pair.b, "10.55.0.2:0")].map(|(end, at)| {
        let socket = end.ns.run(|| UdpSocket::bind(at).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    });
    let to = server.local_addr().unwrap();
    for size in [12, 60, 512, 1232] {
        asker.send_to(&pattern(40), to).unwrap();
        let mut got = [0; 2000];
        let (n, from) = server.recv_from(&mut got).unwrap();
        assert_eq!(got[..n], pattern(40));
        server.send_to(&pattern(size), from).unwrap();
        let n = asker.recv(&mut got).unwrap();
        assert_eq!(got[..n], pattern(size));
    }
}

/// All that a host does over its NIC.
fn works(pair: &Pair) {
    ping(pair);
    resolve(pair);
    tcp(pair, 1_000_000);
    tcp_to(pair, "[fd55::2]:0", 1_000_000);
}

fn bridge(pair: &Pair, mode: &str, ports: [&str; 2]) -> Running {
    let bridge = pair.a.command(tool("bridge")).env("NETMAP_XDP_MODE", mode);
    let mut bridge = bridge.args(["-i", ports[0], "-i", ports[1], "-w", "0"]).spawn();
    bridge.wait_for(" <-> ", START);
    bridge
}

fn links(end: &End) -> String {
    Cmd::new("ip").args(["-n", end.ns.name(), "-br", "link"]).run().expect_success().stdout
}

#[track_caller]
fn assert_nothing_is_left(pair: &Pair) {
    pair.assert_no_xdp();
    let gone = wait_until(Duration::from_secs(2), || !links(&pair.a).contains("netmap"));
    assert!(gone, "a TAP device is left: {}", links(&pair.a));
    works(pair);
}

#[test]
fn a_host_works_through_a_bridge_between_its_nic_and_itself() {
    needs_root!();
    let _turn = alone();
    for mode in MODES {
        let pair = hosts();
        works(&pair);
        let mut bridge = bridge(&pair, mode, ["netmap:veth0", "netmap:veth0^"]);
        assert_eq!(pair.a.xdp().unwrap().mode, if mode == "native" { 1 } else { 2 });
        works(&pair);
        tcp(&pair, 5_000_000);
        bridge.signal(libc::SIGINT);
        let done = bridge.wait(START).expect_success();
        assert!(!done.stdout.contains(": 0 packets"), "nothing went through it: {done}");
        assert_nothing_is_left(&pair);
    }
}

#[test]
fn a_killed_bridge_gives_the_nic_back() {
    needs_root!();
    let _turn = alone();
    for mode in MODES {
        let pair = hosts();
        let mut bridge = bridge(&pair, mode, ["netmap:veth0", "netmap:veth0^"]);
        ping(&pair);
        bridge.signal(libc::SIGKILL);
        bridge.wait(START);
        assert_nothing_is_left(&pair);
    }
}

/// The filters of clsact on the near NIC, as `tc` shows them.
fn filters(pair: &Pair) -> String {
    let shown = |way: &str| pair.a.command("tc").args(["filter", "show", "dev", "veth0", way]).run().stdout;
    shown("egress") + &shown("ingress")
}

#[test]
fn without_tcx_host_rings_hook_in_by_clsact_and_leave_nothing() {
    needs_root!();
    let _turn = alone();
    for mode in MODES {
        let pair = hosts();
        let command = pair.a.command(tool("bridge")).env("NETMAP_XDP_MODE", mode).env("NETMAP_XDP_HOST", "clsact");
        let mut bridge = command.args(["-i", "netmap:veth0", "-i", "netmap:veth0^", "-w", "0"]).spawn();
        bridge.wait_for(" <-> ", START);
        assert!(filters(&pair).contains("netmap_host_rings"), "{}", filters(&pair));
        ping(&pair);
        tcp(&pair, 2_000_000);
        bridge.signal(libc::SIGINT);
        let done = bridge.wait(START).expect_success();
        assert!(!done.stdout.contains(": 0 packets"), "nothing went through it: {done}");
        assert_eq!(filters(&pair), "");
        let qdiscs = pair.a.command("tc").args(["qdisc", "show", "dev", "veth0"]).run().stdout;
        assert!(!qdiscs.contains("clsact"), "{qdiscs}");
        assert_nothing_is_left(&pair);
    }
}

#[test]
fn a_clsact_filter_of_a_killed_program_does_no_harm_and_the_next_bind_takes_it_off() {
    needs_root!();
    let _turn = alone();
    let pair = hosts();
    // Somebody else's qdisc stays.
    pair.a.command("tc").args(["qdisc", "add", "dev", "veth0", "clsact"]).run().expect_success();
    let command = pair.a.command(tool("bridge")).env("NETMAP_XDP_HOST", "clsact");
    let mut bridge = command.args(["-i", "netmap:veth0", "-i", "netmap:veth0^", "-w", "0"]).spawn();
    bridge.wait_for(" <-> ", START);
    ping(&pair);
    bridge.signal(libc::SIGKILL);
    bridge.wait(START);
    // The TAP is gone: what the host sends leaves by the NIC, past the filter that stayed.
    assert_nothing_is_left(&pair);
    assert!(filters(&pair).contains("netmap_host_rings"), "{}", filters(&pair));
    pair.a.ns.run(|| drop(Port::open("netmap:veth0").unwrap()));
    assert_eq!(filters(&pair), "");
    let qdiscs = pair.a.command("tc").args(["qdisc", "show", "dev", "veth0"]).run().stdout;
    assert!(qdiscs.contains("clsact"), "{qdiscs}");
    assert_nothing_is_left(&pair);
}

#[test]
fn several_host_rings_share_the_work() {
    needs_root!();
    let _turn = alone();
    for mode in MODES {
        let pair = hosts();
        let _bridge = bridge(&pair, mode, ["netmap:veth0@conf:host-rings=3", "netmap:veth0^"]);
        ping(&pair);
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| tcp(&pair, 500_000)))));
    }
}

/// The firewall of `tests/c` that drops what belongs to port 777, between `ports`.
fn firewall(pair: &Pair, program: &Path, mode: &str, ports: &[&str]) -> Running {
    let program = pair.a.command(program).preload().env("NETMAP_XDP_MODE", mode).args(ports).arg("777");
    let mut running = program.env("NETMAP_XDP_LOG", "warn").spawn();
    running.wait_for("ready", START);
    running
}

/// A socket of UDP that does not wait for long.
fn udp(end: &End, at: &str) -> UdpSocket {
    let socket = end.ns.run(|| UdpSocket::bind(at).unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
}

/// Knocks at two ports of `a`, of which one is shut.
fn one_port_is_shut(pair: &Pair) {
    let [from, open, shut] = [(&pair.b, "10.55.0.2:0"), (&pair.a, "10.55.0.1:776"), (&pair.a, "10.55.0.1:777")]
        .map(|(end, at)| udp(end, at));
    for port in [776, 777] {
        from.send_to(b"knock", ("10.55.0.1", port)).unwrap();
    }
    assert_eq!(open.recv(&mut [0; 16]).unwrap(), 5);
    assert!(shut.recv(&mut [0; 16]).is_err(), "the dropped port was reached");
}

#[test]
fn transparent_forwarding_carries_a_host_and_a_c_program_drops_what_it_likes() {
    needs_root!();
    let _turn = alone();
    let program = compile_c(&workspace().join("tests/c/host_forward.c"), "host_forward", &[]);
    for mode in MODES {
        let pair = hosts();
        works(&pair);
        let mut running = firewall(&pair, &program, mode, &["netmap:veth0*"]);
        works(&pair);
        one_port_is_shut(&pair);
        running.signal(libc::SIGTERM);
        let done = running.wait(START).expect_success();
        assert_eq!(done.field("dropped"), Some(1), "{done}");
        assert!(done.field("nic") > Some(10) && done.field("host") > Some(10), "{done}");
        assert_nothing_is_left(&pair);
    }
}

#[test]
fn marked_packets_go_up_from_the_nic_rings_alone_and_the_host_sends_by_the_nic() {
    needs_root!();
    let _turn = alone();
    let program = compile_c(&workspace().join("tests/c/host_forward.c"), "host_forward", &[]);
    for mode in MODES {
        let pair = hosts();
        let mut running = firewall(&pair, &program, mode, &["netmap:veth0"]);
        // The way up is made when the program first asks for packets.
        assert!(wait_until(START, || links(&pair.a).contains("netmap")), "{}", running.stderr());
        works(&pair);
        one_port_is_shut(&pair);
        running.signal(libc::SIGTERM);
        let done = running.wait(START).expect_success();
        assert_eq!(done.field("dropped"), Some(1), "{done}");
        assert!(done.field("nic") > Some(10) && done.field("host") == Some(0), "{done}");
        assert_nothing_is_left(&pair);
    }
}

#[test]
fn every_packet_goes_up_where_whoever_starts_the_program_wants_it() {
    needs_root!();
    let _turn = alone();
    let pair = hosts();
    let command = pair.a.command(tool("pkt-gen")).env("NETMAP_XDP_FORWARD", "all");
    let mut running = command.args(["-i", "netmap:veth0", "-f", "rx", "-w", "0"]).spawn();
    assert!(wait_until(START, || links(&pair.a).contains("netmap")), "{}", running.stderr());
    works(&pair);
    running.signal(libc::SIGINT);
    let done = running.wait(START).expect_success();
    assert!(!done.stdout.contains("Received 0 packets"), "{done}");
    assert_nothing_is_left(&pair);
}

#[test]
fn a_firewall_of_two_descriptors_carries_a_host_but_for_one_port() {
    needs_root!();
    let _turn = alone();
    let program = compile_c(&workspace().join("tests/c/host_firewall.c"), "host_firewall", &[]);
    for mode in MODES {
        let pair = hosts();
        works(&pair);
        let mut running = firewall(&pair, &program, mode, &["netmap:veth0", "netmap:veth0^"]);
        works(&pair);
        one_port_is_shut(&pair);
        running.signal(libc::SIGTERM);
        let done = running.wait(START).expect_success();
        assert_eq!(done.field("dropped"), Some(1), "{done}");
        assert!(done.field("in") > Some(10) && done.field("out") > Some(10), "{done}");
        assert_nothing_is_left(&pair);
    }
}

/// Whether `a` gets a frame out of its NIC: to an address whose neighbour it knows.
fn gets_out(pair: &Pair) -> bool {
    let far = udp(&pair.b, "10.55.0.2:0");
    let near = udp(&pair.a, "10.55.0.1:0");
    let _ = near.send_to(b"out", far.local_addr().unwrap());
    far.recv(&mut [0; 16]).is_ok()
}

#[test]
fn nothing_of_the_host_leaves_by_a_nic_that_is_netmaps_alone() {
    needs_root!();
    since!((6, 6), "cutting a host off its NIC");
    let _turn = alone();
    let pair = hosts();
    still(&pair);
    assert!(gets_out(&pair));
    let open = |name: &str| pair.a.ns.run(|| Port::open(name).unwrap());
    let nic = open("netmap:veth0");
    assert!(!gets_out(&pair));
    let mut host = open("netmap:veth0^");
    assert!(!gets_out(&pair), "the packet was to stop at the ring");
    assert!(pair.a.ns.run(|| !gather(&mut host, b"out", 1).is_empty()));
    drop(host);
    assert!(!gets_out(&pair));
    drop(nic);
    assert!(gets_out(&pair));
    // Who only listens leaves the host its voice, as rules do.
    let listener = open("netmap:veth0/R");
    assert!(gets_out(&pair));
    drop(listener);
    let rules = Steering::parse("udp port 53 -> netmap; default host").unwrap();
    let steered = pair.a.ns.run(|| Builder::new("netmap:veth0").steer(rules).open().unwrap());
    assert!(gets_out(&pair));
    pair.a.ns.run(|| steered.steer(None).unwrap());
    assert!(!gets_out(&pair));
    drop(steered);
    assert_nothing_is_left(&pair);
}

#[test]
fn a_host_keeps_its_voice_by_setting_and_gets_it_back_after_a_kill() {
    needs_root!();
    let _turn = alone();
    for mode in MODES {
        let pair = hosts();
        still(&pair);
        for (setting, out) in [("auto", !has_tcx()), ("pass", true)] {
            let command =
                pair.a.command(tool("pkt-gen")).env("NETMAP_XDP_MODE", mode).env("NETMAP_XDP_HOST_TX", setting);
            let mut holder = command.args(["-i", "netmap:veth0", "-f", "rx", "-w", "0"]).spawn();
            assert!(wait_until(START, || pair.a.xdp().is_some()), "it is not bound");
            assert!(wait_until(Duration::from_secs(5), || gets_out(&pair) == out), "{mode} {setting}");
            holder.signal(libc::SIGKILL);
            holder.wait(START);
            assert!(wait_until(Duration::from_secs(5), || gets_out(&pair)), "{mode} {setting}: cut off by the dead");
        }
        assert_nothing_is_left(&pair);
    }
}

/// The packets of all receive rings of a port that carry `bytes`, until there are `want` or time is up; as (ring, frame).
fn gather(port: &mut Port, bytes: &[u8], want: usize) -> Vec<(usize, Vec<u8>)> {
    let mut found = Vec::new();
    for _ in 0..50 {
        port.wait(Interest::READ, Some(Duration::from_millis(100))).unwrap();
        for i in 0..port.rx_count() {
            let mut ring = port.rx(i);
            let n = ring.available();
            let mut frame = Vec::new();
            for s in 0..n {
                let slot = ring.slot(s).unwrap();
                let mut part = vec![0; slot.len()];
                slot.read_at(0, &mut part);
                frame.extend(part);
                if slot.flags() & NS_MOREFRAG == 0 {
                    let whole = std::mem::take(&mut frame);
                    if whole.windows(bytes.len()).any(|w| w == bytes) {
                        found.push((i, whole));
                    }
                }
            }
            ring.release(n);
        }
        if found.len() >= want {
            break;
        }
    }
    found
}

fn still(pair: &Pair) {
    for (end, peer) in [(&pair.a, ("10.55.0.2", &pair.b)), (&pair.b, ("10.55.0.1", &pair.a))] {
        let mac = peer.1.command("cat").arg(format!("/sys/class/net/{}/address", peer.1.dev)).run().stdout;
        let neighbour = ["neigh", "replace", peer.0, "lladdr", mac.trim(), "dev", end.dev];
        end.command("ip").args(neighbour).run().expect_success();
    }
}

#[test]
fn host_rings_alone_take_what_the_host_sends_and_leave_it_what_it_receives() {
    needs_root!();
    let _turn = alone();
    for mtu in [1500, 9000] {
        let pair = Veth::new().mtu(mtu).addresses("10.55.0.1/24", "10.55.0.2/24").build();
        lazy(&pair.a);
        still(&pair);
        let size = mtu as usize - 100;
        let far = pair.b.ns.run(|| UdpSocket::bind("10.55.0.2:5000").unwrap());
        far.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        pair.a.ns.run(|| {
            let near = UdpSocket::bind("10.55.0.1:5001").unwrap();
            near.set_read_timeout(Some(Duration::from_millis(2000))).unwrap();
            let mut port = Port::open("netmap:veth0^").unwrap();
            assert_eq!((port.tx_count(), port.rx_count()), (1, 1));
            let text = pattern(size);
            near.send_to(&text, "10.55.0.2:5000").unwrap();
            let frames = gather(&mut port, &text, 1);
            assert_eq!(frames.len(), 1);
            assert!(far.recv(&mut [0; 16]).is_err(), "the packet was to stop at the ring");
            // The same, turned round, enters the stack as if the peer had answered.
            let mut back = frames[0].1.clone();
            let swap = |b: &mut [u8], x: usize, y: usize, n: usize| (0..n).for_each(|i| b.swap(x + i, y + i));
            swap(&mut back, 0, 6, 6);
            swap(&mut back, 26, 30, 4);
            swap(&mut back, 34, 36, 2);
            let mut ring = port.tx(0);
            let parts = back.chunks(2048).count();
            for (i, part) in back.chunks(2048).enumerate() {
                let slot = ring.slot(i as u32).unwrap();
                slot.write_at(0, part);
                slot.set_len(part.len());
                slot.set_flags(if i + 1 < parts { NS_MOREFRAG } else { 0 });
            }
            ring.advance(parts as u32);
            drop(ring);
            port.sync_tx().unwrap();
            let mut got = vec![0; 10_000];
            let n = near.recv(&mut got).unwrap();
            assert!(got[..n] == text, "{n} bytes came");
            // What arrives at the NIC goes to the host, past us.
            far.send_to(b"past", "10.55.0.1:5001").unwrap();
            assert_eq!(near.recv(&mut got).unwrap(), 4);
            let counts = settled().expect("a region");
            assert_eq!(counts.free + counts.held, counts.usable, "{counts:?}");
            drop(port);
            assert_eq!(settled(), None);
            near.send_to(b"free again", "10.55.0.2:5000").unwrap();
        });
        assert_eq!(far.recv(&mut [0; 100]).unwrap(), 10);
        pair.assert_no_xdp();
        assert!(!links(&pair.a).contains("netmap"), "{}", links(&pair.a));
    }
}

#[test]
fn packets_go_to_the_host_rings_that_are_bound_and_a_burst_waits_for_a_slow_program() {
    needs_root!();
    let _turn = alone();
    let pair = hosts();
    still(&pair);
    pair.a.ns.run(|| {
        let all = Port::open("netmap:veth0^@conf:host-rings=4,slots=64").unwrap();
        assert_eq!((all.tx_count(), all.rx_count()), (4, 4));
        let mut one = Port::open("netmap:veth0^2").unwrap();
        assert_eq!((one.tx_count(), one.rx_count()), (1, 1));
        drop(all);
        let sockets: Vec<_> = (0..20).map(|_| UdpSocket::bind("10.55.0.1:0").unwrap()).collect();
        for _ in 0..50 {
            sockets.iter().for_each(|s| assert!(s.send_to(b"one of a thousand", "10.55.0.2:9").is_ok()));
        }
        assert_eq!(gather(&mut one, b"one of a thousand", 1000).len(), 1000);
        let mut every = Port::open("netmap:veth0^").unwrap();
        for _ in 0..5 {
            sockets.iter().for_each(|s| assert!(s.send_to(b"spread", "10.55.0.2:9").is_ok()));
        }
        let spread = gather(&mut every, b"spread", 100);
        assert_eq!(spread.len(), 100);
        assert!((0..4).filter(|i| spread.iter().any(|(ring, _)| ring == i)).count() > 1, "one ring got everything");
    });
    assert_nothing_is_left(&pair);
}

#[test]
fn offloads_that_lie_are_off_meanwhile_and_restored() {
    needs_root!();
    let _turn = alone();
    let pair = hosts();
    let offload = |name: &str| {
        let all = pair.a.command("ethtool").args(["-k", "veth0"]).run().expect_success().stdout;
        all.lines().find(|l| l.starts_with(&format!("{name}:"))).map(|l| l.contains(": on")).unwrap()
    };
    let names = ["generic-receive-offload", "rx-vlan-offload"];
    pair.a.command("ethtool").args(["-K", "veth0", "gro", "on", "rxvlan", "on"]).run().expect_success();
    assert_eq!(names.map(offload), [true, true]);
    let mut bridge = bridge(&pair, "generic", ["netmap:veth0", "netmap:veth0^"]);
    assert_eq!(names.map(offload), [false, false]);
    bridge.signal(libc::SIGINT);
    bridge.wait(START).expect_success();
    assert_eq!(names.map(offload), [true, true]);
}

#[test]
fn an_interface_that_vanishes_ends_a_wait_on_its_host_rings() {
    needs_root!();
    let _turn = alone();
    let pair = hosts();
    pair.a.ns.run(|| {
        let mut port = Port::open("netmap:veth0^").unwrap();
        Cmd::new("ip").args(["-n", pair.a.ns.name(), "link", "del", "veth0"]).run().expect_success();
        let mut error = false;
        wait_until(Duration::from_secs(5), || {
            error = port.wait(Interest::READ, Some(Duration::from_secs(1))).unwrap().error;
            error
        });
        assert!(error, "nothing tells that the interface is gone");
    });
    assert!(!links(&pair.a).contains("netmap"));
}

#[test]
fn tcp_through_a_bridge_reaches_a_decent_rate() {
    needs_root!();
    let _turn = alone();
    for mode in MODES {
        let pair = hosts();
        let _bridge = bridge(&pair, mode, ["netmap:veth0", "netmap:veth0^"]);
        let (bytes, start) = (20_000_000, std::time::Instant::now());
        tcp(&pair, bytes);
        let took = start.elapsed();
        let rate = bytes as f64 * 16.0 / took.as_secs_f64() / 1e6;
        println!("{mode}: {rate:.0} Mbit/s of TCP, one way after the other");
        // 50 Mbit/s.
        assert!(took < patient(Duration::from_millis(6400)), "{mode}: {rate:.0} Mbit/s");
    }
}
