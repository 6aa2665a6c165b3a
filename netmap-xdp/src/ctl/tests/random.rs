//! Requests that nobody would send: whatever comes, the answer is an errno.

use super::*;
use crate::ctl::{
    Geometry, OptionAnswer, PoolsInfoReply, PortInfoReply, RegisterReply, RingCounts, Spec, ValeListReply,
    ValeNewifReply, interp_ringid,
};
use crate::ctl::{Pools, PortName, Request};

/// Marsaglia's xorshift, 64 bits.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Often a small number, or one near an edge.
    fn value(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => self.below(20),
            2 => u64::MAX - self.below(64),
            3 => 4096 - 64 + self.below(128),
            4 => 1 << self.below(64),
            _ => self.next(),
        }
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }

    /// An address in the memory of the test, or none at all.
    fn address(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => self.value(),
            _ => BODY + self.below(40) * 24,
        }
    }
}

fn replies(random: &mut Random) -> Result<Reply, Errno> {
    let name = PortName::from_field(&random.bytes(70));
    Ok(match random.below(11) {
        0 => Reply::Done,
        1 => Reply::Register(RegisterReply { offset: random.next(), memsize: random.next(), ..Default::default() }),
        2 => Reply::PortInfo(PortInfoReply { memsize: random.next(), mem_id: 1, geometry: Some(Geometry::default()) }),
        3 => Reply::ValeAttach(1),
        4 => Reply::ValeDetach(1),
        5 => Reply::ValeList(ValeListReply { name: Some(name), bridge: 1, port: random.next() as u32 }),
        6 => Reply::HdrLen(random.next() as u32),
        7 => Reply::ValeNewif(ValeNewifReply::default()),
        8 => Reply::PoolsInfo(PoolsInfoReply::default()),
        9 => Reply::ValeConfig(Box::new([3; 256])),
        _ => return Err(Errno(random.below(100) as i32 + 1)),
    })
}

fn carry_out(mem: &FakeMem, cmd: u64, arg: u64, random: &mut Random) -> bool {
    let Ok(mut call) = decode(mem, cmd, arg) else { return false };
    if let Request::Register(register) = &call.request {
        let _ = register.kind();
        let n = random.next();
        let counts =
            RingCounts { tx: n as u16, rx: (n >> 16) as u16, host_tx: (n >> 32) as u16, host_rx: (n >> 48) as u16 };
        if let Ok(selection) = interp_ringid(register.mode, register.flags, register.ring_id, counts) {
            assert!(selection.tx.end as u32 <= counts.tx as u32 + counts.host_tx as u32);
            assert!(selection.rx.end as u32 <= counts.rx as u32 + counts.host_rx as u32);
        }
    }
    let status = || if random.0 & 1 == 0 { Ok(()) } else { Err(Errno(libc::EINVAL)) };
    call.answer_option(OptionAnswer::Csb(status()));
    call.answer_option(OptionAnswer::Offsets(status().map(|()| 77)));
    call.answer_option(OptionAnswer::Extmem(status().map(|()| Pools::default())));
    let unsupported = call.unsupported_option().map(Errno::from);
    let outcome = replies(random);
    let succeeded = outcome.is_ok();
    match call.finish(mem, outcome) {
        Ok(()) => assert!(succeeded && unsupported.is_none()),
        Err(errno) => assert!(errno.0 > 0),
    }
    true
}

#[test]
fn random_requests_are_answered_and_never_panic() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut decoded = 0;
    for _ in 0..150_000 {
        let mem = FakeMem::new();
        // The body and options share a stretch of memory, so that links meet bodies and each other.
        let mut page = random.bytes(24 * 40);
        for at in (0..40).filter(|_| random.below(4) > 0).collect::<Vec<usize>>() {
            let option = nmreq_option {
                nro_next: random.address(),
                nro_reqtype: random.below(9) as u32,
                nro_status: random.next() as u32,
                nro_size: random.value(),
            };
            page[at * 24..at * 24 + 24].copy_from_slice(crate::sys::pod_bytes(&option));
        }
        if random.below(16) == 0 {
            mem.map_read_only(BODY, &page);
        } else {
            mem.map(BODY, &page);
        }
        let mut head = header(random.below(18) as u16, "eth0", random.address(), random.address() * random.below(2));
        if random.below(8) == 0 {
            head.nr_name.copy_from_slice(&random.bytes(64));
        }
        if random.below(16) == 0 {
            head.nr_version = random.next() as u16;
        }
        if random.below(16) == 0 {
            head.nr_reserved = random.next() as u32;
        }
        // Requests without a body must not have one.
        if [0, 9, 14, 15].contains(&head.nr_reqtype) && random.below(4) > 0 {
            head.nr_body = 0;
        }
        mem.put(HEADER, &head);
        decoded += u32::from(carry_out(&mem, NIOCCTRL, HEADER, &mut random));
    }
    assert!(decoded > 30_000, "only {decoded} were worth it");
}

#[test]
fn random_bytes_are_answered_and_never_panic() {
    let mut random = Random(0xfeed_beef_dead_cafe);
    let mut decoded = 0;
    for _ in 0..150_000 {
        let mem = FakeMem::new();
        let len = random.below(400) as usize;
        let mut bytes = random.bytes(len);
        if len > 20 && random.below(2) == 0 {
            bytes[16..20].copy_from_slice(&(random.below(20) as u32).to_ne_bytes());
            if len > 44 {
                bytes[42..44].copy_from_slice(&(random.below(15) as u16).to_ne_bytes());
            }
        }
        mem.map(HEADER, &bytes);
        let cmd = [NIOCCTRL, NIOCREGIF, NIOCGINFO, NIOCCONFIG, NIOCTXSYNC, random.next()][random.below(6) as usize];
        let arg = if random.below(8) == 0 { random.value() } else { HEADER };
        decoded += u32::from(carry_out(&mem, cmd, arg, &mut random));
    }
    assert!(decoded > 20_000, "only {decoded} were worth it");
}

#[test]
fn random_names_are_understood_or_refused_and_never_panic() {
    const PARTS: &[&str] = &[
        "netmap",
        "vale",
        ":",
        "eth0",
        "-",
        "^",
        "*",
        "/",
        "@",
        "{",
        "}",
        "1",
        "x",
        "zrtRT",
        "conf",
        "share",
        "extmem",
        "=",
        ",",
        "rings",
        "host-rings",
        "file",
        "\u{e9}",
        "99999999999999999999",
        " ",
        "\0",
        "offset",
        "port",
    ];
    let mut random = Random(0x0dd_c0ffee);
    let mut understood = 0;
    for _ in 0..200_000 {
        let mut text = if random.below(4) > 0 { "netmap:e".to_string() } else { String::new() };
        for _ in 0..random.below(12) {
            text.push_str(PARTS[random.below(PARTS.len() as u64) as usize]);
        }
        match Spec::parse(&text) {
            Ok(spec) => {
                understood += 1;
                let _ = spec.register().kind();
            }
            Err(error) => {
                assert!(text.is_char_boundary(error.at), "{error:?}");
                assert!(!error.to_string().is_empty() && error.input == text);
            }
        }
    }
    assert!(understood > 5_000, "only {understood} were worth it");
}
