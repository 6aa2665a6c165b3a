//! Several clients of a netmapd, with an engine behind it that has ports in memory only.

use crate::Bytes;
use netmap_xdp::ctl::{
    Extmem, HdrSet, Mode, Offsets, Options, Pools, PoolsInfo, PortInfo, PortName, Register, Request, ValeAttach,
    ValeList, ValeNewif,
};
use netmap_xdp::daemon::{Core, Policy, Rule, What, Who};
use netmap_xdp::engine::Engine;
use netmap_xdp::proto::{Asked, FromEngine, PeerAsked, Reader, RegisterToken, RingOf, ToEngine, Wire};
use netmap_xdp::ring::Dir;
use netmap_xdp::sys::{Fd, Peer, sealed_memfd};
use netmap_xdp::xsk;
use std::sync::Arc;
use std::time::Duration;

/// Ports, none of which is an interface.
pub const PORTS: [&str; 12] = [
    "f{1",
    "f}1",
    "f{2",
    "f}2",
    "vale0:a",
    "vale0:b",
    "valeF:a",
    "vale0:a{3",
    "vale0:a}3",
    "nosuchdev7",
    "persist",
    "",
];
const MODES: [u32; 6] = [1, 1, 4, 7, 2, 99];
const SLOTS: [u32; 8] = [8, 16, 0, 64, 9, 100, 1, u32::MAX];
const FLAGS: [u64; 9] = [0, 0, 0x800, 0x2000, 0x4000, 0x100, 0x200, 0x500, 0x8000];

/// A registration of one of the ports.
fn registration(from: &mut Bytes<'_>) -> Register {
    let pools = Pools { memsize: 1 << 20, ..Pools::default() };
    let mut options = Options::default();
    match from.byte() % 8 {
        0 => options.extmem = Some(Extmem { address: from.value(), pools: Pools { memsize: from.value(), ..pools } }),
        1 => options.extmem = Some(Extmem { address: 0, pools }),
        2 => {
            options.offsets = Some(Offsets {
                max: from.value(),
                initial: from.value(),
                bits: from.byte().into(),
                tx_align: 0,
                min_gap: from.value(),
            });
        }
        _ => {}
    }
    Register {
        mode: Mode::from_raw(from.pick(&MODES)),
        flags: from.pick(&FLAGS),
        ring_id: from.value() as u16,
        mem_id: from.pick(&[0, 0, 0, 1, 2, 0x8000, 0x8001]),
        tx_slots: from.pick(&SLOTS),
        rx_slots: from.pick(&SLOTS),
        tx_rings: u16::from(from.byte() % 5),
        rx_rings: u16::from(from.byte() % 5),
        extra_bufs: from.value() as u32,
        options,
        ..Register::new(name(from))
    }
}

fn name(from: &mut Bytes<'_>) -> PortName {
    PortName::new(from.pick(&PORTS)).unwrap_or_else(|_| PortName::from_field(b""))
}

fn question(from: &mut Bytes<'_>) -> Request {
    match from.byte() % 8 {
        0 => Request::Register(registration(from)),
        1 => {
            let r = registration(from);
            Request::PortInfo(PortInfo {
                name: r.name,
                mem_id: r.mem_id,
                tx_slots: r.tx_slots,
                rx_slots: r.rx_slots,
                tx_rings: r.tx_rings,
                rx_rings: r.rx_rings,
                host_tx_rings: 0,
                host_rx_rings: 0,
            })
        }
        2 => Request::PoolsInfo(PoolsInfo { name: name(from), mem_id: from.byte().into() }),
        3 => Request::ValeList(ValeList { name: name(from), bridge: from.value() as u16, port: from.value() as u32 }),
        4 => Request::HdrSet(HdrSet { name: name(from), len: from.pick(&[0, 10, 12]) }),
        5 => Request::ValeNewif(ValeNewif {
            name: name(from),
            tx_slots: from.pick(&SLOTS),
            rx_slots: from.pick(&SLOTS),
            tx_rings: u16::from(from.byte() % 20),
            rx_rings: u16::from(from.byte() % 20),
            mem_id: from.byte().into(),
        }),
        6 => Request::ValeAttach(ValeAttach { register: Register::new(attached(from)) }),
        _ => Request::ValeDetach(attached(from)),
    }
}

/// The one port that can be attached, or something else that is none.
fn attached(from: &mut Bytes<'_>) -> PortName {
    PortName::new(from.pick(&["vale0:persist", "vale0:a", "valeF:persist", "f{1"])).expect("a name")
}

/// Messages of up to three clients, in the order in which they come.
pub fn daemon(data: &[u8]) {
    crate::small();
    let mut from = Bytes::new(data);
    let rules = vec![Rule { who: Who::User(1000), what: vec![What::Software] }];
    let mut core = Core::new(Engine::new(xsk::embedded(), None), Policy { own: u32::MAX, rules });
    let file = Arc::new(sealed_memfd(c"fuzz", 2 << 20).expect("a memfd"));
    let mut tokens: Vec<Arc<Fd>> = vec![];
    for _ in 0..200 {
        if from.end() {
            break;
        }
        let who = u64::from(from.byte() % 3);
        let token = |from: &mut Bytes<'_>, all: &[Arc<Fd>]| match all.len() {
            0 => file.clone(),
            n => all[usize::from(from.byte()) % n].clone(),
        };
        let message = match from.byte() % 12 {
            0 => {
                let uid = from.pick(&[0, 1000, 1001]);
                core.disconnect(who);
                core.connect(who, Peer { pid: std::process::id() as i32, uid, gid: uid, groups: vec![] });
                ToEngine::Hello("fuzz".into())
            }
            1 | 2 => ToEngine::Open,
            3 | 4 => {
                let (token, memory) = (token(&mut from, &tokens), from.byte());
                let memory = (memory & 1 == 1).then(|| (file.clone(), u64::from(memory / 2) * 4096));
                ToEngine::Register(RegisterToken { token, namespace: None, register: registration(&mut from), memory })
            }
            5 => ToEngine::Attach(token(&mut from, &tokens)),
            6 => ToEngine::Release(token(&mut from, &tokens)),
            7 => {
                let dir = from.pick(&[Dir::Tx, Dir::Rx]);
                ToEngine::Taps(RingOf { token: token(&mut from, &tokens), dir, ring: from.value() as u16 })
            }
            8 => {
                let (switch, port, generation) = (from.value(), from.byte(), from.value() as u32);
                ToEngine::ValePeer(PeerAsked { switch, port, generation })
            }
            9 => {
                if !tokens.is_empty() {
                    tokens.swap_remove(usize::from(from.byte()) % tokens.len());
                }
                core.sweep();
                core.tend(Duration::from_secs(1));
                continue;
            }
            10 => {
                // Whatever it says, it is only read: it might name an interface.
                let files = [file.clone()];
                let _ = ToEngine::take(&mut Reader::new(from.piece(), &files));
                continue;
            }
            _ => ToEngine::Ask(Asked { namespace: None, request: question(&mut from) }),
        };
        if let FromEngine::Opened(fd) = core.handle(who, message).answer {
            tokens.push(fd);
        }
    }
    for who in 0..3 {
        core.disconnect(who);
    }
    tokens.clear();
    core.sweep();
    assert_eq!(core.counts(), (0, 0));
    for mem_id in [1, 0x8000, 0x8001] {
        assert_eq!(core.registry().buffers(mem_id), None, "region {mem_id} is still there");
    }
}
