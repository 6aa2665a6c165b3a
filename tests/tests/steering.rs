//! Steering rules on a bound NIC: the host keeps what they leave to it, netmap gets the rest, and nobody gets anything
//! twice.

mod nic_common;

use netmap_xdp::api::{Builder, Interest, NS_MOREFRAG, Port, Steering};
use netmap_xdp_tests::{Daemons, Pair, Veth, compile_c, needs_root, wait_until, workspace};
use nic_common::has_chains;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);
const NEAR: &str = "10.58.0.1";
const FAR: &str = "10.58.0.2";

/// Two hosts; netmap will have the NIC of `a`.
fn hosts(mtu: u32) -> Pair {
    Veth::new().mtu(mtu).addresses(&format!("{NEAR}/24"), &format!("{FAR}/24")).build()
}

fn rules(text: &str) -> Steering {
    Steering::parse(text).unwrap()
}

/// A session like ssh's: what goes in comes back.
struct Session(TcpStream);

impl Session {
    fn open(pair: &Pair) -> Session {
        let listener = pair.a.ns.run(|| TcpListener::bind((NEAR, 2222)).unwrap());
        let mut far = pair.b.ns.run(|| TcpStream::connect((NEAR, 2222)).unwrap());
        far.set_read_timeout(Some(LIMIT)).unwrap();
        far.set_nodelay(true).unwrap();
        let mut near = listener.accept().unwrap().0;
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(n @ 1..) = near.read(&mut bytes) {
                if near.write_all(&bytes[..n]).is_err() {
                    break;
                }
            }
        });
        far.write_all(b"hello").unwrap();
        far.read_exact(&mut [0; 5]).unwrap();
        Session(far)
    }

    #[track_caller]
    fn works(&mut self) {
        let sent: Vec<u8> = (0..30_000u32).map(|i| (i * 7) as u8).collect();
        let mut back = vec![0; sent.len()];
        self.0.write_all(&sent).unwrap();
        self.0.read_exact(&mut back).expect("the session stands still");
        assert!(sent == back);
    }
}

/// UDP of the far host, with a number in each datagram.
struct Sender(UdpSocket);

impl Sender {
    fn send(&self, port: u16, numbers: std::ops::Range<u32>, size: usize) {
        for n in numbers {
            let mut bytes = vec![0x5a; size];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            self.0.send_to(&bytes, (NEAR, port)).unwrap();
        }
    }
}

/// Numbers of the datagrams that a socket of the near host gets, until `want` are there.
fn heard(socket: &UdpSocket, want: usize) -> Vec<u32> {
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (mut got, end, mut bytes) = (Vec::new(), Instant::now() + LIMIT, vec![0; 65536]);
    while got.len() < want && Instant::now() < end {
        if socket.recv(&mut bytes).is_ok() {
            got.push(u32::from_be_bytes(bytes[..4].try_into().unwrap()));
        }
    }
    got
}

/// Frames that netmap gets, chains put together: `want` of them, and for a while none more.
fn frames(port: &mut Port, want: usize) -> Vec<Vec<u8>> {
    frames_counted(port, want, &AtomicUsize::new(0))
}

/// The same; `seen` tells others how many there are.
fn frames_counted(port: &mut Port, want: usize, seen: &AtomicUsize) -> Vec<Vec<u8>> {
    let (mut got, end, mut frame, mut quiet) = (Vec::new(), Instant::now() + LIMIT, Vec::new(), 0);
    while quiet < 2 && Instant::now() < end {
        let ready = port.wait(Interest::READ, Some(Duration::from_millis(150))).unwrap();
        quiet = if got.len() >= want && !ready.read { quiet + 1 } else { 0 };
        let mut ring = port.rx(0);
        let n = ring.available();
        for i in 0..n {
            let slot = ring.slot(i).unwrap();
            let mut part = vec![0; slot.len()];
            slot.read_at(0, &mut part);
            frame.extend(part);
            if slot.flags() & NS_MOREFRAG == 0 {
                got.push(std::mem::take(&mut frame));
            }
        }
        ring.release(n);
        seen.store(got.len(), Relaxed);
    }
    got
}

/// Asserts that every frame is UDP over IPv4 to `port`; returns the numbers in them.
#[track_caller]
fn numbers(frames: &[Vec<u8>], port: u16) -> Vec<u32> {
    let number = |f: &Vec<u8>| {
        assert_eq!((&f[12..14], f[23]), (&[8, 0][..], 17), "not UDP: {:02x?}", &f[..42.min(f.len())]);
        assert_eq!(u16::from_be_bytes([f[36], f[37]]), port);
        u32::from_be_bytes(f[42..46].try_into().unwrap())
    };
    frames.iter().map(number).collect()
}

#[test]
fn a_session_goes_on_while_netmap_gets_exactly_the_matching_frames() {
    alone!("NETMAP_XDP_MODE" = "native");
    session_and_frames();
}

#[test]
fn a_session_goes_on_in_generic_mode() {
    alone!("NETMAP_XDP_MODE" = "generic");
    session_and_frames();
}

fn session_and_frames() {
    for (mtu, size) in [(1500, 700), (9000, 8000)].into_iter().take(if has_chains() { 2 } else { 1 }) {
        let pair = hosts(mtu);
        let mut session = Session::open(&pair);
        let sender = Sender(pair.b.ns.run(|| UdpSocket::bind((FAR, 0)).unwrap()));
        pair.a.ns.run(|| {
            let [taken, other] = [4789, 4790].map(|p| UdpSocket::bind((NEAR, p)).unwrap());
            let builder = Builder::new("netmap:veth0").steer(rules("udp dst port 4789 -> netmap; default host"));
            let mut port = builder.open().unwrap();
            let seen = AtomicUsize::new(0);
            let got = std::thread::scope(|scope| {
                scope.spawn(|| {
                    for part in 0..10 {
                        sender.send(4789, part * 20..part * 20 + 20, size);
                        // Few and small ones, which wait in the socket until they are counted; before Linux 6.6 it has room
                        // for 48, since each takes a page.
                        sender.send(4790, part * 4..part * 4 + 4, 60);
                        session.works();
                        // No faster than the ring takes them.
                        let all = (part as usize + 1) * 20;
                        assert!(wait_until(LIMIT, || seen.load(Relaxed) >= all), "{all} frames were sent");
                    }
                });
                frames_counted(&mut port, 200, &seen)
            });
            assert_eq!(numbers(&got, 4789), (0..200).collect::<Vec<_>>(), "MTU {mtu}");
            assert!(got.iter().all(|f| f.len() == size + 42));
            assert_eq!(heard(&other, 40), (0..40).collect::<Vec<_>>(), "MTU {mtu}");
            taken.set_nonblocking(true).unwrap();
            assert!(taken.recv(&mut [0; 64]).is_err(), "the host got what netmap got");
            assert_eq!(port.drops(), vec![]);

            // Other rules while all of it is open: the session's port is the host's, the rest is netmap's.
            port.steer(Some(&rules("tcp port 2222 -> host; arp -> host; default netmap"))).unwrap();
            sender.send(4790, 0..50, size);
            session.works();
            assert_eq!(numbers(&frames(&mut port, 50), 4790), (0..50).collect::<Vec<_>>());
            // And none at all: everything is netmap's.
            port.steer(None).unwrap();
            sender.send(4791, 0..50, size);
            assert_eq!(numbers(&frames(&mut port, 50), 4791), (0..50).collect::<Vec<_>>());
            port.steer(Some(&rules("default host"))).unwrap();
            sender.send(4790, 50..60, size);
            assert_eq!(heard(&other, 10), (50..60).collect::<Vec<_>>());
            session.works();
            assert!(frames(&mut port, 0).is_empty());
        });
        session.works();
        pair.assert_no_xdp();
    }
}

#[test]
fn of_a_fragmented_datagram_rules_on_ports_match_the_first_fragment_only() {
    alone!("NETMAP_XDP_MODE" = "generic");
    let pair = hosts(1500);
    let sender = Sender(pair.b.ns.run(|| UdpSocket::bind((FAR, 0)).unwrap()));
    pair.a.ns.run(|| {
        let host = UdpSocket::bind((NEAR, 4789)).unwrap();
        let text = "fragment udp dst port 4789 -> netmap; default host";
        let mut port = Builder::new("netmap:veth0").steer(rules(text)).open().unwrap();
        sender.send(4789, 0..1, 4000);
        let got = frames(&mut port, 1);
        assert_eq!((got.len(), numbers(&got, 4789)), (1, vec![0]));
        // Whoever wants all of it says so.
        port.steer(Some(&rules("fragment -> netmap; default host"))).unwrap();
        sender.send(4789, 1..2, 4000);
        assert_eq!(frames(&mut port, 3).len(), 3);
        port.steer(Some(&rules("fragment -> host; default host"))).unwrap();
        sender.send(4789, 2..3, 4000);
        assert_eq!(heard(&host, 1), [2]);
    });
}

#[test]
fn a_second_program_brings_the_same_rules_or_none() {
    alone!();
    let pair = hosts(1500);
    pair.a.ns.run(|| {
        let text = "udp -> netmap; default host";
        let first = Builder::new("netmap:veth0/R").steer(rules(text)).open().unwrap();
        let second = Builder::new("netmap:veth0/T").steer(rules("default host")).open().err().unwrap();
        assert_eq!(second.errno, libc::EBUSY, "{second}");
        assert!(second.message.contains(text), "{second}");
        let same = Builder::new("netmap:veth0/T").steer(rules(text)).open().unwrap();
        let plain = Port::open("netmap:veth0/T").unwrap();
        plain.steer(None).unwrap();
        drop((first, same, plain));
        let pipe = Builder::new("netmap:x{1").steer(rules(text)).open().err().unwrap();
        assert_eq!(pipe.errno, libc::EINVAL, "{pipe}");
        let pipe = Port::open("netmap:x{1").unwrap();
        assert_eq!(pipe.steer(None).unwrap_err().errno, libc::EINVAL);
    });
}

#[test]
fn the_variable_steers_and_a_fault_in_it_binds_nothing() {
    needs_root!();
    let pair = hosts(1500);
    let receiver = |text: &str| {
        let receiver =
            pair.a.command(netmap_xdp_tests::tool("pkt-gen")).args(["-i", "netmap:veth0", "-f", "rx", "-w", "0"]);
        receiver.env("NETMAP_XDP_STEER", text)
    };
    let refused = receiver("tcp prot 22 -> host; default netmap").timeout(LIMIT).run();
    assert!(!refused.success() && refused.stderr.contains("character 5, at `prot`"), "{refused}");
    pair.assert_no_xdp();
    let mut running = receiver("udp -> netmap; default host").spawn();
    pair.a.wait_xdp(LIMIT);
    let mut session = Session::open(&pair);
    session.works();
    running.signal(libc::SIGTERM);
    running.wait(LIMIT);
    session.works();
}

#[test]
fn rules_of_the_configuration_stand_whatever_a_program_asks_for() {
    needs_root!();
    let pair = hosts(1500);
    let daemons = Daemons::new();
    let config = daemons.dir().join("netmapd.conf");
    std::fs::write(&config, "steer = veth0 tcp port 2222 -> host; arp -> host; default netmap\n").unwrap();
    let _daemon = daemons.start(&["--config", &config.to_string_lossy()]);
    let receiver = |steer: &str| {
        let program =
            pair.a.command(netmap_xdp_tests::tool("pkt-gen")).args(["-i", "netmap:veth0", "-f", "rx", "-w", "0"]);
        let program = program.env("NETMAP_XDP_ENGINE", "daemon").env("NETMAP_XDP_SOCKET", daemons.socket());
        program.env("NETMAP_XDP_STEER", steer).timeout(LIMIT)
    };
    let refused = receiver("default netmap").run();
    assert!(!refused.success() && refused.stderr.contains("netmapd.conf"), "{refused}");
    let register = compile_c(&workspace().join("tests/c/nic_register.c"), "steering_register", &[]);
    let asks = |rules: &str| {
        let program = daemons.with(pair.a.command(&register).arg("veth0"), "daemon");
        program.env("NETMAP_XDP_STEER", rules).run().stdout
    };
    assert!(asks("default netmap").contains("result=EPERM"));
    assert!(asks("nothing -> netmap").contains("result=EINVAL"));
    let mut running = receiver("").spawn();
    pair.a.wait_xdp(LIMIT);
    let mut session = Session::open(&pair);
    session.works();
    let host = pair.a.ns.run(|| UdpSocket::bind((NEAR, 4789)).unwrap());
    host.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let sender = Sender(pair.b.ns.run(|| UdpSocket::bind((FAR, 0)).unwrap()));
    // The program is there before its socket is.
    let taken = wait_until(LIMIT, || {
        sender.send(4789, 0..1, 100);
        host.recv(&mut [0; 64]).is_err()
    });
    assert!(taken, "the host gets what is netmap's");
    session.works();
    running.signal(libc::SIGTERM);
    running.wait(LIMIT);
    assert!(wait_until(LIMIT, || pair.a.xdp().is_none()));
}
