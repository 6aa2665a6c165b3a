use crate::abi::*;
use crate::ctl::{Conf, ExtmemFile, Failure, Mode, Pool, Pools, PortKind, PortName, Spec};
use crate::sys::Errno;

fn parse(text: &str) -> Spec {
    Spec::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn name(text: &str) -> PortName {
    PortName::new(text).unwrap()
}

#[test]
fn rings_are_chosen_by_a_suffix() {
    for (text, port, mode, ring) in [
        ("netmap:eth0", "eth0", Mode::AllNic, 0),
        ("netmap:eth0-0", "eth0", Mode::OneNic, 0),
        ("netmap:eth0-13", "eth0", Mode::OneNic, 13),
        ("netmap:eth0-4094", "eth0", Mode::OneNic, 4094),
        ("netmap:eth0^", "eth0", Mode::Sw, 0),
        ("netmap:eth0^2", "eth0", Mode::OneSw, 2),
        ("netmap:eth0*", "eth0", Mode::NicSw, 0),
        ("netmap:eth0.100", "eth0.100", Mode::AllNic, 0),
        ("netmap:eth0{1", "eth0{1", Mode::AllNic, 0),
        ("netmap:eth0}word_2", "eth0}word_2", Mode::AllNic, 0),
        ("netmap:eth0{1-0", "eth0{1", Mode::OneNic, 0),
        ("netmap:eth:0", "eth:0", Mode::AllNic, 0),
        ("vale0:1", "vale0:1", Mode::AllNic, 0),
        ("vale:1", "vale:1", Mode::AllNic, 0),
        ("valeABC_9:port}x", "valeABC_9:port}x", Mode::AllNic, 0),
        ("vale0:1-1", "vale0:1", Mode::OneNic, 1),
    ] {
        let spec = parse(text);
        assert_eq!((spec.port_name, spec.mode, spec.ring_id), (name(port), mode, ring), "{text}");
        assert_eq!((spec.flags, spec.mem_id, spec.conf), (0, 0, Conf::default()), "{text}");
    }
}

#[test]
fn flags_and_memory_ids_follow() {
    for (text, flags, mem_id) in [
        ("netmap:eth0/x", NR_EXCLUSIVE, 0),
        ("netmap:eth0/xzrtRT", 0x800 | 0x400 | 0x200 | 0x100 | 0x2000 | 0x4000, 0),
        ("netmap:eth0/xx", NR_EXCLUSIVE, 0),
        ("netmap:eth0@7", 0, 7),
        ("netmap:eth0-1/R@2", NR_RX_RINGS_ONLY, 2),
        ("netmap:eth0@2/T", NR_TX_RINGS_ONLY, 2),
        ("netmap:eth0/x@2/T@2", NR_EXCLUSIVE | NR_TX_RINGS_ONLY, 2),
        ("netmap:eth0/@65535", 0, 65535),
        ("netmap:eth0^/x", NR_EXCLUSIVE, 0),
        ("netmap:eth0*@1", 0, 1),
    ] {
        let spec = parse(text);
        assert_eq!((spec.flags, spec.mem_id), (flags, mem_id), "{text}");
    }
}

#[test]
fn rings_and_slots_can_be_asked_for() {
    let conf = |text: &str| parse(&format!("netmap:eth0{text}")).conf;
    let all = Conf { tx_slots: 512, rx_slots: 512, tx_rings: 2, rx_rings: 2, host_tx_rings: 3, host_rx_rings: 3 };
    assert_eq!(conf("@conf:rings=2,slots=512,host-rings=3"), all);
    assert_eq!(conf("@conf:rings=2,slots=512,host_rings=3"), all, "_ is as good as -");
    let one = Conf { tx_slots: 1, rx_slots: 2, tx_rings: 3, rx_rings: 4, host_tx_rings: 5, host_rx_rings: 6 };
    let each = "tx-slots=1,rx-slots=2,tx-rings=3,rx-rings=4,host-tx-rings=5,host-rx-rings=6";
    assert_eq!(conf(&format!("@conf:{each}")), one);
    assert_eq!(conf(&format!("@conf:{each},rings=9,slots=9,host-rings=9")), one, "one direction beats both");
    assert_eq!(conf("-1/x@3@conf:rings=2").tx_rings, 2);
    assert_eq!(conf("@conf:rings=2@conf:tx-rings=1"), Conf { tx_rings: 1, rx_rings: 2, ..Default::default() });
    assert_eq!(conf("@conf:"), Conf::default());
    assert_eq!(conf("@conf:rings="), Conf::default(), "an empty value is none");
}

#[test]
fn the_region_can_be_another_ports_or_a_file() {
    assert_eq!(parse("netmap:eth0@share=netmap:eth1").share, Some(name("eth1")));
    assert_eq!(parse("netmap:eth0@share:port=vale0:1-2").share, Some(name("vale0:1")));
    assert_eq!(parse("netmap:eth0@share=netmap:eth1@share=netmap:eth1").share, Some(name("eth1")));
    let file = |pools| Some(ExtmemFile { path: "/dev/hugepages/x".into(), pools });
    assert_eq!(parse("netmap:eth0@extmem=/dev/hugepages/x").extmem, file(Pools::default()));
    let text =
        "netmap:eth0@extmem:file=/dev/hugepages/x,if-num=1,if-size=2,ring-num=3,ring-size=4,buf-num=5,buf-size=6";
    let pool = |count, size| Pool { offset: 0, count, size };
    let pools = Pools { interfaces: pool(1, 2), rings: pool(3, 4), buffers: pool(5, 6), ..Default::default() };
    assert_eq!(parse(text).extmem, file(pools));
}

#[test]
fn the_registration_carries_it_all() {
    let register = parse("netmap:eth0{7-1/x@4@conf:rings=2,tx-slots=64").register();
    assert_eq!(register.name, name("eth0{7"));
    assert_eq!((register.mode, register.ring_id, register.flags, register.mem_id), (Mode::OneNic, 1, NR_EXCLUSIVE, 4));
    assert_eq!((register.tx_rings, register.rx_rings, register.tx_slots, register.rx_slots), (2, 2, 64, 0));
    assert!(matches!(register.kind(), Ok(PortKind::Pipe { .. })));
    assert_eq!(register.extra_bufs, 0);
}

/// A name that is wrong, the byte where it is wrong, and a word of the message.
const WRONG: &[(&str, usize, &str)] = &[
    ("", 0, "netmap:"),
    ("eth0", 0, "netmap:"),
    ("netma:eth0", 0, "netmap:"),
    ("netmap", 6, "`:` is missing"),
    ("netmap0:eth0", 6, "nothing may stand"),
    ("netmap:", 7, "interface is missing"),
    ("netmap:-1", 7, "interface is missing"),
    ("netmap:/x", 7, "interface is missing"),
    ("vale0", 5, "`:` is missing"),
    ("vale-0:1", 4, "cannot be part of the name of a switch"),
    ("vale\u{e9}:1", 4, "cannot be part"),
    ("netmap:eth0{", 12, "id of the pipe is missing"),
    ("netmap:eth0{/x", 12, "id of the pipe is missing"),
    ("netmap:eth0{a.b", 13, "cannot be part of the id of a pipe"),
    ("netmap:eth0{1}2", 13, "cannot be part"),
    ("netmap:eth0-", 12, "number of a ring"),
    ("netmap:eth0-x", 12, "number of a ring"),
    ("netmap:br-lan", 10, "number of a ring"),
    ("netmap:eth0-4095", 12, "at most 4094"),
    ("netmap:eth0-99999999999999999999999", 12, "at most 4094"),
    ("netmap:eth0^4095", 12, "at most 4094"),
    ("netmap:eth0-1x", 13, "not expected"),
    ("netmap:eth0-1-2", 13, "not expected"),
    ("netmap:eth0^x", 12, "not expected"),
    ("netmap:eth0**", 12, "not expected"),
    ("netmap:eth0/", 12, "flags are missing"),
    ("netmap:eth0/q", 12, "flag 'q' is not known"),
    ("netmap:eth0/x/x", 13, "flag '/' is not known"),
    ("netmap:eth0@", 12, "missing after `@`"),
    ("netmap:eth0/x@", 14, "missing after `@`"),
    ("netmap:eth0@0", 12, "from 1 to 65535"),
    ("netmap:eth0@65536", 12, "from 1 to 65535"),
    ("netmap:eth0@1@2", 14, "was 1 already"),
    ("netmap:eth0@1x", 13, "not expected"),
    ("netmap:eth0@@1", 12, "option is missing"),
    ("netmap:eth0@conf:rings=1@", 25, "option is missing"),
    ("netmap:eth0@conf:rings=1@1", 25, "option \"1\" is not known"),
    ("netmap:eth0@confx:rings=1", 12, "not known; share"),
    ("netmap:eth0@conf", 16, "`:` and keys"),
    ("netmap:eth0@conf=1", 16, "followed by `:`"),
    ("netmap:eth0@conf:ring=1", 17, "no key \"ring\"; it has rings, host-rings"),
    ("netmap:eth0@conf:rings", 22, "value are missing"),
    ("netmap:eth0@conf:rings=1,", 25, "no key \"\""),
    ("netmap:eth0@conf:rings=1,rings=2", 25, "given twice"),
    ("netmap:eth0@conf:rings=one", 23, "not a number"),
    ("netmap:eth0@conf:slots=8,rings=+1", 31, "not a number"),
    ("netmap:eth0@conf:rings=65536", 23, "too large"),
    ("netmap:eth0@conf:slots=4294967296", 23, "too large"),
    ("netmap:eth0@share", 17, "followed by"),
    ("netmap:eth0@share=", 18, "value of share is missing"),
    ("netmap:eth0@share=eth1", 18, "netmap:"),
    ("netmap:eth0@share=netmap", 24, "`:` is missing"),
    ("netmap:eth0@share=netmap:a@share=netmap:b", 33, "already"),
    ("netmap:eth0@extmem:", 19, "needs a value for \"file\""),
    ("netmap:eth0@extmem:if-num=1", 27, "needs a value"),
    ("netmap:eth0@extmem=/a@extmem=/b", 29, "given twice"),
    ("netmap:eth0@extmem:file=/a,buf-num=x", 35, "not a number"),
    ("netmap:eth0@offset", 18, "followed by"),
    ("netmap:eth0@offset:bits=3", 25, "needs a value for \"initial\""),
    ("netmap:eth0@offset=-1", 19, "not a number"),
    ("netmap:eth0@offset=1@offset=1", 28, "given twice"),
];

#[test]
fn what_is_wrong_is_said_and_shown() {
    for &(text, at, word) in WRONG {
        let error = Spec::parse(text).expect_err(text);
        assert_eq!(error.errno, Errno(libc::EINVAL), "{text}");
        assert!(error.message.contains(word), "{text}: {}", error.message);
        assert_eq!(error.at, at, "{error}");
        assert_eq!(error.input, text);
    }
}

#[test]
fn packets_can_begin_further_into_their_buffers() {
    let offsets = |text: &str| parse(text).register().options.offsets.map(|o| (o.initial, o.max, o.bits));
    assert_eq!(offsets("netmap:eth0@offset=64"), Some((64, 64, 0)));
    assert_eq!(offsets("vale0:1-2@3@offset:initial=64,bits=16@conf:rings=2"), Some((64, 64, 16)));
    assert_eq!(offsets("netmap:eth0@conf:rings=2"), None);
}

#[test]
fn names_have_63_bytes_at_most() {
    let long = "a".repeat(63);
    assert_eq!(parse(&format!("netmap:{long}-1")).port_name, name(&long));
    let error = Spec::parse(&format!("netmap:{long}a-1")).unwrap_err();
    assert!(error.at == 7 && error.message.contains("64 bytes"), "{error}");
    assert!(Spec::parse(&format!("vale:{long}")).is_err(), "the name of a switch port is the whole");
    assert!(Spec::parse("netmap:a\0b").is_err());
}

#[test]
fn the_mark_stands_under_the_place() {
    let error = Spec::parse("netmap:eth0-x").unwrap_err();
    let lines: Vec<_> = error.to_string().lines().map(str::to_string).collect();
    assert_eq!(lines[1], "  netmap:eth0-x");
    assert_eq!(lines[2], "              ^");
    let error = Spec::parse("netmap:\u{e9}\u{e9}-x").unwrap_err();
    assert_eq!(error.to_string().lines().last(), Some("            ^"), "columns are characters, not bytes");
    let failure = Failure::from(error);
    assert_eq!(failure.errno, Errno(libc::EINVAL));
    assert!(failure.message.contains("column 11") && !failure.message.contains('\n'), "{failure}");
}

#[test]
fn every_start_of_a_name_is_understood_or_refused() {
    for text in [
        "netmap:eth0{1-2/xzrtRT@7@conf:rings=2,host-rings=1@share=netmap:b@extmem:file=/x,buf-num=3",
        "vale0:\u{e9}^1*",
    ] {
        for (at, _) in text.char_indices() {
            for (from, _) in text.char_indices().filter(|&(from, _)| from <= at) {
                if let Err(error) = Spec::parse(&text[from..at]) {
                    assert!(error.at <= error.input.len() && error.input.is_char_boundary(error.at));
                    let _ = error.to_string();
                }
            }
        }
    }
}
