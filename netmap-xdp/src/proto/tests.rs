//! Round trips of every message, and noise: nothing panics, nothing is believed, nothing grows.

use super::*;
use crate::ctl::{
    Csb, EventFdPair, EventFds, Geometry, KloopMode, Offsets, Options, Pool, Pools, PortInfo, PortInfoReply, PortName,
    Register, RegisterReply, Reply, Request, ValeAttach, ValeConfig, ValeList, ValeListReply,
};
use crate::engine::{
    Answers, CarrierGrant, GrantId, Holder, Kind, PortStatus, RegionGrant, RegionStatus, RingGrant, RingStatus,
};
use crate::port::nic::NicPlan;
use crate::ring::{Dir, KringPlace, RingPlace};
use crate::sys::{Errno, Mode, sealed_memfd};
use crate::xsk::Chunks;
use std::time::Duration;

/// Numbers that look random and are the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn file() -> Arc<Fd> {
    Arc::new(sealed_memfd(c"proto-test", 4096).unwrap())
}

fn name(text: &str) -> PortName {
    PortName::new(text).unwrap()
}

fn register() -> Register {
    let pool = Pool { offset: 7, count: 8, size: 9 };
    let pools = Pools { memsize: 1 << 40, mem_id: 3, interfaces: pool, rings: pool, buffers: pool };
    let options = Options {
        extmem: Some(crate::ctl::Extmem { address: u64::MAX, pools }),
        csb: Some(Csb { atok: 1, ktoa: 2 }),
        offsets: Some(Offsets { max: 1, initial: 2, bits: 3, tx_align: 4, min_gap: 5 }),
        kloop_eventfds: Some(EventFds { pairs: vec![EventFdPair { io: -1, irq: 5 }; 3], size: 48 }),
        kloop_mode: Some(KloopMode { bits: 1 }),
        steering: crate::xsk::Steering::parse("udp -> netmap; default host").ok(),
    };
    Register {
        ring_id: 5,
        flags: 0x7f,
        extra_bufs: 77,
        mem_id: 9,
        tx_slots: 8,
        options,
        ..Register::new(name("vale0:x"))
    }
}

fn grant(queues: u16) -> Grant {
    let ring =
        |dir, id| RingPlace { offset: 4096, slots: 512, buffers_at: 1 << 20, buffers: 9000, buf_size: 4096, dir, id };
    let geometry = crate::xsk::Geometry::new(Chunks::Aligned, 4096).unwrap().behind(100);
    let plan = NicPlan { rx_size: 512, tx_size: 1024, geometry, always: false, busy: false, copies: true };
    let (mut tx, mut rx) = (Vec::new(), Vec::new());
    for i in 0..queues {
        let socket = file();
        let nic = CarrierGrant::Nic { socket, plan, stamps: None };
        let one = |dir| RingGrant {
            ring: ring(dir, i),
            kring: KringPlace { offset: 64, room: 0 },
            carrier: nic.clone(),
            bell: None,
        };
        tx.push(one(Dir::Tx));
        rx.push(one(Dir::Rx));
    }
    let reply = RegisterReply { offset: 1, memsize: 2, tx_slots: 3, rx_slots: 4, extra_bufs: 6, ..Default::default() };
    let (region, private, links) = (file(), file(), vec![file()]);
    let (name, mode) = ("veth0".to_string(), Some(Mode::Generic));
    let region = RegionGrant { fd: region, at: 8192, size: 1 << 20, buf_size: 4096, of_program: true, here: None };
    let (id, private_size, awaited) = (GrantId(99), 8192, true);
    Grant { id, reply, region, private, private_size, tx, rx, name, mode, links, awaited }
}

fn answers() -> Answers {
    Answers { extmem: Some(Ok(Pools { memsize: 5, ..Pools::default() })), offsets: Some(Err(Errno(libc::EBUSY))) }
}

/// A grant of software rings.
fn pipe_grant() -> Grant {
    let mut grant = grant(2);
    for ring in grant.tx.iter_mut().chain(&mut grant.rx) {
        let (peer, peer_kring) = (ring.ring, ring.kring);
        ring.carrier = CarrierGrant::Pipe { peer, peer_kring, wake: file(), wake_peer: file() };
    }
    grant.rx[1].carrier = CarrierGrant::Null;
    (grant.links, grant.mode) = (vec![], None);
    grant
}

fn requests() -> Vec<Request> {
    vec![
        Request::Register(register()),
        Request::PortInfo(PortInfo { name: name(""), mem_id: 1, ..port_info() }),
        Request::ValeAttach(ValeAttach { register: register() }),
        Request::ValeDetach(name("vale0:x")),
        Request::ValeList(ValeList { name: name(""), bridge: 1, port: 2 }),
        Request::HdrSet(crate::ctl::HdrSet { name: name("v"), len: 12 }),
        Request::HdrGet(name("v")),
        Request::ValeNewif(crate::ctl::ValeNewif {
            name: name("v"),
            tx_slots: 1,
            rx_slots: 2,
            tx_rings: 3,
            rx_rings: 4,
            mem_id: 5,
        }),
        Request::ValeDelif(name(&"x".repeat(63))),
        Request::PollingOn(crate::ctl::Polling { name: name("v"), mode: 1, first_cpu: 2, cpus: 3 }),
        Request::PollingOff(crate::ctl::Polling { name: name("v"), mode: 1, first_cpu: 2, cpus: 3 }),
        Request::PoolsInfo(crate::ctl::PoolsInfo { name: name("v"), mem_id: 1 }),
        Request::KloopStart(crate::ctl::KloopStart {
            sleep: Duration::from_micros(7),
            eventfds: None,
            mode: Some(KloopMode { bits: 3 }),
        }),
        Request::KloopStop,
        Request::CsbEnable(Csb { atok: 5, ktoa: 6 }),
        Request::ValeConfig(ValeConfig { name: name("v"), data: Box::new([3; 256]) }),
    ]
}

fn port_info() -> PortInfo {
    PortInfo {
        name: name("eth0"),
        mem_id: 0,
        tx_slots: 1,
        rx_slots: 2,
        tx_rings: 3,
        rx_rings: 4,
        host_tx_rings: 5,
        host_rx_rings: 6,
    }
}

fn replies() -> Vec<Reply> {
    let geometry = Geometry { tx_slots: 1, rx_slots: 2, tx_rings: 3, rx_rings: 4, host_tx_rings: 5, host_rx_rings: 6 };
    vec![
        Reply::Done,
        Reply::Register(RegisterReply { offset: 5, ..Default::default() }),
        Reply::PortInfo(PortInfoReply { memsize: 1, mem_id: 2, geometry: Some(geometry) }),
        Reply::ValeAttach(7),
        Reply::ValeDetach(8),
        Reply::ValeList(ValeListReply { name: Some(name("vale1:a")), bridge: 1, port: 2 }),
        Reply::HdrLen(12),
        Reply::ValeNewif(Default::default()),
        Reply::PoolsInfo(Default::default()),
        Reply::ValeConfig(Box::new([1; 256])),
    ]
}

fn to_engine() -> Vec<ToEngine> {
    let mut all = vec![
        ToEngine::Hello("pkt-gen".into()),
        ToEngine::Open,
        ToEngine::Attach(file()),
        ToEngine::Release(file()),
        ToEngine::Register(RegisterToken { token: file(), namespace: None, register: register(), memory: None }),
        ToEngine::Register(RegisterToken {
            token: file(),
            namespace: Some(file()),
            register: register(),
            memory: Some((file(), 4096)),
        }),
    ];
    all.push(ToEngine::Status(StatusAsked { namespace: Some(file()), part: Part { from: 7, accounts: true } }));
    all.extend(requests().into_iter().map(|request| ToEngine::Ask(Asked { namespace: Some(file()), request })));
    all
}

fn status() -> Status {
    let ring = RingStatus {
        dir: Dir::Rx,
        id: 1,
        host: true,
        slots: 64,
        users: 2,
        exclusive: true,
        pending: true,
        stopped: false,
        monitored: true,
        syncing: 9,
        kernel: 63,
        packets: 1 << 40,
        bytes: 2,
        syncs: 3,
        reinits: 4,
        drops: vec![("no-room".into(), 5)],
    };
    let holder = Holder { pid: 1, uid: 2, comm: "lb".into() };
    let port = PortStatus {
        name: "eth0".into(),
        kind: Kind::Nic,
        namespace: 1,
        region: 1,
        mode: None,
        rings: vec![ring],
        grants: vec![GrantId(3)],
        holders: vec![holder],
    };
    let region = RegionStatus { id: 1, owner: "x".into(), buffers: 9, examples: vec![5, 6], ..Default::default() };
    Status { regions: vec![region], ports: vec![port], next: Some(4) }
}

fn from_engine() -> Vec<FromEngine> {
    let mut all = vec![
        FromEngine::Failed(Failure { errno: Errno(libc::EPERM), message: "é no".into() }),
        FromEngine::Welcome(Welcome { client: 5, admitted: true }),
        FromEngine::Opened(file()),
        FromEngine::Granted(Granted { grant: Arc::new(grant(3)), flags: 5, answers: answers() }),
        FromEngine::Granted(Granted { grant: Arc::new(pipe_grant()), flags: 0, answers: Answers::default() }),
        FromEngine::Refused(Refused {
            failure: Failure { errno: Errno(libc::EBUSY), message: String::new() },
            answers: answers(),
        }),
        FromEngine::Unbound,
        FromEngine::Unknown,
        FromEngine::Done,
    ];
    all.push(FromEngine::Status(status()));
    all.extend(replies().into_iter().map(FromEngine::Answer));
    all
}

/// Cuts, carries over (descriptors are duplicated, as a socket does it) and puts together.
fn carried<M: Wire>(message: &M) -> M {
    let all = pieces(message, 17);
    let mut assembly = Assembly::default();
    for (i, piece) in all.iter().enumerate() {
        let (header, rest) = open(&piece.bytes).unwrap();
        assert_eq!(header, Header { version: VERSION, more: i + 1 < all.len(), number: 17 });
        assert!(piece.bytes.len() <= PIECE && piece.fds.len() <= 128);
        assembly.add(rest, piece.fds.iter().map(|fd| fd.try_clone().unwrap()).collect()).unwrap();
    }
    assembly.finish().unwrap()
}

fn bytes<M: Wire>(message: &M) -> (Vec<u8>, usize) {
    let mut writer = Writer::default();
    message.put(&mut writer);
    (writer.bytes, writer.fds.len())
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn every_message_arrives_as_it_was_sent() {
    for message in to_engine() {
        assert_eq!(bytes(&carried(&message)), bytes(&message), "{message:?}");
        assert_eq!(pieces(&message, 1).len(), 1, "a message to the engine has one piece");
    }
    for message in from_engine() {
        assert_eq!(bytes(&carried(&message)), bytes(&message), "{message:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn a_grant_of_many_queues_takes_several_pieces_and_each_socket_once() {
    for queues in [0, 1, 127, 300] {
        let message =
            FromEngine::Granted(Granted { grant: Arc::new(grant(queues)), flags: 0, answers: Answers::default() });
        let sent: usize = pieces(&message, 0).iter().map(|p| p.fds.len()).sum();
        assert_eq!(sent, usize::from(queues) + 3);
        let FromEngine::Granted(got) = carried(&message) else { panic!() };
        for (tx, rx) in got.grant.tx.iter().zip(&got.grant.rx) {
            let (CarrierGrant::Nic { socket: a, .. }, CarrierGrant::Nic { socket: b, .. }) = (&tx.carrier, &rx.carrier)
            else {
                panic!()
            };
            assert!(Arc::ptr_eq(a, b));
        }
    }
}

#[test]
fn the_bytes_of_a_failure_are_the_same_in_every_version() {
    let failure = FromEngine::Failed(Failure { errno: Errno(5), message: "ab".into() });
    let mut expected = b"NMXD".to_vec();
    expected.extend(VERSION.to_le_bytes());
    expected.extend([0, 0, 9, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, b'a', b'b']);
    assert_eq!(pieces(&failure, 9)[0].bytes, expected);
}

#[test]
fn a_mismatch_names_both_versions() {
    let text = version_mismatch(3, 41).message;
    assert!(text.contains("version 3 ") && text.contains("version 41"), "{text}");
}

fn decode<M: Wire>(bytes: &[u8], fds: usize) -> Result<M, Malformed> {
    let fds: Vec<_> = (0..fds).map(|_| file()).collect();
    let mut reader = Reader::new(bytes, &fds);
    let message = M::take(&mut reader)?;
    reader.end().map(|()| message)
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn every_truncation_and_every_surplus_is_an_error() {
    for message in to_engine() {
        let (whole, fds) = bytes(&message);
        for n in 0..whole.len() {
            assert!(decode::<ToEngine>(&whole[..n], fds).is_err(), "{n} of {message:?}");
        }
        assert!(decode::<ToEngine>(&[&whole[..], &[0]].concat(), fds).is_err());
        assert_eq!(decode::<ToEngine>(&whole, fds + 1).err(), Some(Malformed("descriptors that nothing refers to")));
        if fds > 0 {
            assert!(decode::<ToEngine>(&whole, fds - 1).is_err());
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn noise_is_an_error_or_a_message_and_never_a_panic() {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let seeds: Vec<Vec<u8>> =
        to_engine().iter().map(bytes).chain(from_engine().iter().map(bytes)).map(|(bytes, _)| bytes).collect();
    let fds: Vec<_> = (0..2).map(|_| file()).collect();
    for round in 0..60_000 {
        let mut bytes = seeds[noise.below(seeds.len())].clone();
        if round % 4 == 0 {
            bytes = (0..noise.below(200)).map(|_| noise.next() as u8).collect();
        }
        for _ in 0..noise.below(6) {
            let at = noise.below(bytes.len());
            match noise.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, noise.next() as u8),
                _ if bytes.is_empty() => {}
                2 => bytes[at] = noise.next() as u8,
                _ => bytes[at] = 0xff,
            }
        }
        let mut reader = Reader::new(&bytes, &fds);
        let _ = ToEngine::take(&mut reader);
        let mut reader = Reader::new(&bytes, &fds);
        let _ = FromEngine::take(&mut reader);
        let _ = open(&bytes);
    }
}

#[test]
fn a_list_is_no_longer_than_its_message() {
    let announced = [&u32::MAX.to_le_bytes()[..], &[0; 8]].concat();
    assert!(decode::<Vec<u8>>(&announced, 0).is_err());
    let text = [&5000u32.to_le_bytes()[..], &[b'a'; 5000]].concat();
    assert!(decode::<String>(&text, 0).is_err(), "a text has a bound of its own");
    let long = bytes(&"é".repeat(4000)).0;
    assert_eq!(decode::<String>(&long, 0).unwrap().len(), wire::LONGEST_TEXT);
}

#[test]
fn an_assembly_is_bounded() {
    let mut assembly = Assembly::default();
    let part = vec![0; PIECE];
    let taken = (0..1000).take_while(|_| assembly.add(&part, vec![]).is_ok()).count();
    assert!((100..200).contains(&taken), "{taken}");
}
