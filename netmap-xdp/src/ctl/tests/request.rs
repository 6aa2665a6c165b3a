use crate::abi::*;
use crate::ctl::{EventFdPair, EventFds, KloopMode, Mode, PipeRole, PortKind, PortName, Register};
use crate::sys::Errno;

fn name(text: &str) -> PortName {
    PortName::new(text).unwrap()
}

fn kind(text: &str, mode: Mode, flags: u64) -> Result<PortKind, Errno> {
    Ok(Register { mode, flags, ..Register::new(name(text)) }.kind()?)
}

#[test]
fn names_end_at_the_first_zero_byte_or_at_63() {
    assert_eq!(PortName::from_field(b"eth0\0junk").as_str(), Some("eth0"));
    assert!(PortName::from_field(b"\0eth0").is_empty());
    assert_eq!(PortName::from_field(&[b'a'; 200]).as_bytes().len(), 63);
    let odd = PortName::from_field(&[0xff, b'a', b'\n']);
    assert_eq!(odd.as_str(), None);
    assert_eq!(odd.to_string(), r"\xffa\n");
    assert_eq!(format!("{:?}", name("eth0")), "\"eth0\"");
    assert_eq!(PortName::from_field(&name("eth0").to_field()), name("eth0"));
}

#[test]
fn names_of_ones_own_are_checked() {
    assert!(PortName::new(&"a".repeat(63)).is_ok());
    assert_eq!(PortName::new(&"a".repeat(64)).unwrap_err().errno, Errno(libc::EINVAL));
    assert_eq!(PortName::new("a\0b").unwrap_err().errno, Errno(libc::EINVAL));
}

#[test]
fn modes_go_both_ways() {
    for raw in (0..20).chain([u32::MAX]) {
        assert_eq!(Mode::from_raw(raw).raw(), raw);
        assert_eq!(Mode::from_raw(raw).is_deprecated_pipe(), raw == 5 || raw == 6);
    }
}

#[test]
fn kinds_are_told_in_the_order_of_the_original() {
    assert_eq!(kind("eth0", Mode::AllNic, 0), Ok(PortKind::Nic));
    assert_eq!(kind("eth0", Mode::Invalid(99), 0), Ok(PortKind::Nic), "a bad mode is refused later");
    assert_eq!(kind("", Mode::AllNic, 0), Ok(PortKind::Nic));
    assert_eq!(kind("vale0:1", Mode::AllNic, 0), Ok(PortKind::Vale));
    assert_eq!(kind("valeth", Mode::AllNic, 0), Ok(PortKind::Vale), "only the first four letters count");
    let pipe = |role| PortKind::Pipe { parent: name("eth0"), id: name("x1"), role };
    assert_eq!(kind("eth0{x1", Mode::AllNic, 0), Ok(pipe(PipeRole::Master)));
    assert_eq!(kind("eth0}x1", Mode::OneNic, 0), Ok(pipe(PipeRole::Slave)));
    assert!(matches!(kind("vale0:1{x", Mode::AllNic, 0), Ok(PortKind::Pipe { .. })));
    assert_eq!(kind("eth0{1", Mode::AllNic, NR_MONITOR_RX), Ok(PortKind::Monitor));
    assert_eq!(kind("eth0{1", Mode::Null, NR_MONITOR_RX), Ok(PortKind::Null));
    assert_eq!(kind("eth0", Mode::AllNic, NR_ZCOPY_MON), Ok(PortKind::Monitor));
}

#[test]
fn half_a_pipe_is_refused() {
    for (text, mode) in [
        ("eth0{", Mode::AllNic),
        ("{1", Mode::AllNic),
        ("}1", Mode::AllNic),
        ("eth0{1", Mode::NicSw),
        ("eth0", Mode::Invalid(NR_REG_PIPE_MASTER)),
        ("eth0", Mode::Invalid(NR_REG_PIPE_SLAVE)),
    ] {
        assert_eq!(kind(text, mode, 0), Err(Errno(libc::EINVAL)), "{text} {mode:?}");
    }
}

#[test]
fn a_master_bracket_wins_over_a_slave_bracket() {
    let pipe = PortKind::Pipe { parent: name("a}b"), id: name("c"), role: PipeRole::Master };
    assert_eq!(kind("a}b{c", Mode::AllNic, 0), Ok(pipe));
}

#[test]
fn eventfds_fit_only_when_there_is_one_pair_per_ring() {
    let pairs = vec![EventFdPair { io: 1, irq: 2 }; 3];
    assert!(EventFds { pairs: pairs.clone(), size: 48 }.fits(3));
    assert!(!EventFds { pairs: pairs.clone(), size: 48 }.fits(2));
    assert!(!EventFds { pairs, size: 50 }.fits(3));
    assert!(!EventFds { pairs: vec![], size: 0 }.fits(0));
}

#[test]
fn the_mode_of_the_sync_loop_has_two_bits() {
    assert_eq!(KloopMode { bits: 0 }.directions(), Ok((false, false)));
    assert_eq!(KloopMode { bits: 1 }.directions(), Ok((true, false)));
    assert_eq!(KloopMode { bits: 2 }.directions(), Ok((false, true)));
    assert_eq!(KloopMode { bits: 4 }.directions().unwrap_err().errno, Errno(libc::EINVAL));
}
