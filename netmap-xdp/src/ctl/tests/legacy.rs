use super::*;
use crate::ctl::{
    Geometry, HdrSet, Mode, PipeRole, Polling, PortInfoReply, PortKind, PortName, Register, RegisterReply, Request,
    ValeList, ValeListReply, ValeNewif, ValeNewifReply,
};

fn name(text: &str) -> PortName {
    PortName::new(text).unwrap()
}

/// A legacy request with a different number in each field.
fn legacy(text: &str, cmd: u16) -> nmreq {
    nmreq {
        nr_name: field(text),
        nr_version: 14,
        nr_offset: 1,
        nr_memsize: 2,
        nr_tx_slots: 3,
        nr_rx_slots: 4,
        nr_tx_rings: 5,
        nr_rx_rings: 6,
        nr_ringid: 7,
        nr_cmd: cmd,
        nr_arg1: 8,
        nr_arg2: 9,
        nr_arg3: 10,
        nr_flags: NR_REG_ALL_NIC,
        spare2: [11],
    }
}

fn with(raw: &nmreq) -> FakeMem {
    let mem = FakeMem::new();
    mem.put(HEADER, raw);
    mem
}

fn request(ioctl: u64, raw: nmreq) -> Result<Request, Errno> {
    decode(&with(&raw), ioctl, HEADER).map(|call| call.request)
}

fn registration(raw: nmreq) -> Register {
    match request(NIOCREGIF, raw) {
        Ok(Request::Register(register)) => register,
        other => panic!("{other:?}"),
    }
}

#[test]
fn versions_from_11_are_served() {
    for version in (0..60).chain([u32::MAX]) {
        let raw = nmreq { nr_version: version, ..legacy("eth0", 0) };
        let mem = with(&raw);
        let result = decode(&mem, NIOCREGIF, HEADER).map(|_| ());
        assert_eq!(result, if version >= 11 { OK } else { err(libc::EINVAL) }, "{version}");
        assert_eq!(mem.get::<nmreq>(HEADER), raw, "and left as they are");
    }
}

#[test]
fn a_program_that_counts_versions_up_finds_one() {
    let answered = (0..50).find(|&version| {
        let mem = with(&nmreq { nr_version: version, ..Default::default() });
        decode(&mem, NIOCGINFO, HEADER).is_ok_and(|call| {
            assert!(matches!(call.request, Request::PortInfo(info) if info.name.is_empty()));
            let reply = Reply::PortInfo(PortInfoReply { memsize: 4096, mem_id: 1, geometry: None });
            call.finish(&mem, Ok(reply)) == OK && mem.get::<nmreq>(HEADER).nr_memsize == 4096
        })
    });
    assert_eq!(answered, Some(11));
}

#[test]
fn a_registration_is_decoded_field_by_field() {
    let register = registration(legacy("eth0", 0));
    let expected = Register {
        name: name("eth0"),
        mode: Mode::AllNic,
        ring_id: 7,
        flags: 0,
        mem_id: 9,
        tx_slots: 3,
        rx_slots: 4,
        tx_rings: 5,
        rx_rings: 6,
        host_tx_rings: 0,
        host_rx_rings: 0,
        extra_bufs: 10,
        options: Default::default(),
    };
    assert_eq!(register, expected);
}

#[test]
fn mode_and_ring_hide_in_nr_ringid_when_there_is_no_mode() {
    for (ringid, mode, ring, flags) in [
        (0, Mode::AllNic, 0, 0),
        (NETMAP_HW_RING | 3, Mode::OneNic, 3, 0),
        (NETMAP_SW_RING, Mode::Sw, 0, 0),
        (NETMAP_SW_RING | NETMAP_HW_RING | 1, Mode::Sw, 1, 0),
        (NETMAP_NO_TX_POLL, Mode::AllNic, 0, NR_NO_TX_POLL),
        (NETMAP_DO_RX_POLL | NETMAP_HW_RING | 2, Mode::OneNic, 2, NR_DO_RX_POLL),
        (0xffff, Mode::Sw, 0xfff, NR_DO_RX_POLL | NR_NO_TX_POLL),
    ] {
        let got = registration(nmreq { nr_ringid: ringid, nr_flags: 0, ..legacy("eth0", 0) });
        assert_eq!((got.mode, got.ring_id, got.flags), (mode, ring, flags), "{ringid:#x}");
    }
}

#[test]
fn a_mode_in_nr_flags_wins_and_the_other_bits_are_flags() {
    for raw in [1, 2, 3, 4, 7, 8, 9, 15] {
        let nr_flags = raw | NR_EXCLUSIVE as u32 | NR_MONITOR_TX as u32;
        let ringid = NETMAP_SW_RING | NETMAP_NO_TX_POLL | 5;
        let got = registration(nmreq { nr_flags, nr_ringid: ringid, ..legacy("eth0", 0) });
        assert_eq!((got.mode, got.ring_id), (Mode::from_raw(raw), 5));
        assert_eq!(got.flags, NR_EXCLUSIVE | NR_MONITOR_TX | NR_NO_TX_POLL);
    }
}

#[test]
fn pipe_modes_become_pipe_names() {
    for (mode, bracket, role) in
        [(NR_REG_PIPE_MASTER, '{', PipeRole::Master), (NR_REG_PIPE_SLAVE, '}', PipeRole::Slave)]
    {
        let got = registration(nmreq { nr_flags: mode, nr_ringid: NETMAP_HW_RING | 42, ..legacy("eth0", 0) });
        assert_eq!(got.name, name(&format!("eth0{bracket}42")));
        assert_eq!((got.mode, got.ring_id), (Mode::AllNic, 0));
        assert_eq!(got.kind(), Ok(PortKind::Pipe { parent: name("eth0"), id: name("42"), role }));
    }
}

#[test]
fn the_longest_name_has_room_for_a_pipe_suffix() {
    let mut raw = nmreq { nr_name: [b'a'; 16], nr_flags: NR_REG_PIPE_SLAVE, nr_ringid: 0xfff, ..legacy("", 0) };
    raw.nr_cmd = 0;
    assert_eq!(registration(raw).name, name("aaaaaaaaaaaaaaa}4095"));
}

#[test]
fn a_name_without_an_end_is_cut_and_written_back() {
    let raw = nmreq { nr_name: [b'a'; 16], ..legacy("", 0) };
    let mem = with(&raw);
    let call = decode(&mem, NIOCREGIF, HEADER).unwrap();
    assert_eq!(call.finish(&mem, err(libc::ENXIO)), err(libc::ENXIO));
    let mut expected = raw;
    expected.nr_name[15] = 0;
    assert_eq!(mem.get::<nmreq>(HEADER), expected);
}

#[test]
fn every_command_has_its_request() {
    let raw = |cmd| legacy("vale0:1", cmd);
    let port = name("vale0:1");
    assert_eq!(request(NIOCREGIF, raw(NETMAP_BDG_DETACH)), Ok(Request::ValeDetach(port)));
    assert_eq!(request(NIOCREGIF, raw(NETMAP_VNET_HDR_GET)), Ok(Request::HdrGet(port)));
    assert_eq!(request(NIOCREGIF, raw(NETMAP_BDG_DELIF)), Ok(Request::ValeDelif(port)));
    let newif = ValeNewif { name: port, tx_slots: 3, rx_slots: 4, tx_rings: 5, rx_rings: 6, mem_id: 9 };
    assert_eq!(request(NIOCREGIF, raw(NETMAP_BDG_NEWIF)), Ok(Request::ValeNewif(newif)));
    let hdr = nmreq { nr_arg1: 12, ..raw(NETMAP_BDG_VNET_HDR) };
    assert_eq!(request(NIOCREGIF, hdr), Ok(Request::HdrSet(HdrSet { name: port, len: 12 })));
    assert_eq!(request(NIOCREGIF, raw(NETMAP_BDG_VNET_HDR)), err(libc::EINVAL), "8 is no length");
    for (nr_flags, mode) in [(NR_REG_ALL_NIC, 1), (NR_REG_ONE_NIC, 2), (NR_REG_SW, 0), (0, 0)] {
        let polling = Polling { name: port, mode, first_cpu: 7, cpus: 8 };
        let on = nmreq { nr_flags, nr_ringid: 0xf007, ..raw(NETMAP_BDG_POLLING_ON) };
        assert_eq!(request(NIOCREGIF, on), Ok(Request::PollingOn(polling)));
        assert_eq!(
            request(NIOCREGIF, nmreq { nr_cmd: NETMAP_BDG_POLLING_OFF, ..on }),
            Ok(Request::PollingOff(polling))
        );
    }
    for cmd in [NETMAP_PT_HOST_CREATE, NETMAP_PT_HOST_DELETE] {
        assert_eq!(request(NIOCREGIF, raw(cmd)), err(libc::ENOMEM));
    }
    for cmd in [NETMAP_BDG_REGOPS, NETMAP_BDG_LIST, 13, 1000, u16::MAX] {
        assert_eq!(request(NIOCREGIF, raw(cmd)), err(libc::EINVAL));
    }
}

#[test]
fn attaching_takes_its_mode_from_nr_arg1() {
    for (nr_arg1, mode) in [(NETMAP_BDG_HOST, Mode::NicSw), (0, Mode::AllNic), (2, Mode::AllNic)] {
        let raw =
            nmreq { nr_arg1, nr_flags: NR_REG_SW | NR_EXCLUSIVE as u32, ..legacy("vale0:eth0", NETMAP_BDG_ATTACH) };
        let Ok(Request::ValeAttach(attach)) = request(NIOCREGIF, raw) else { panic!() };
        assert_eq!((attach.register.mode, attach.register.flags), (mode, NR_EXCLUSIVE));
    }
}

#[test]
fn listing_is_a_question_of_nioginfo() {
    let expected = ValeList { name: name(""), bridge: 8, port: 9 };
    assert_eq!(request(NIOCGINFO, legacy("", NETMAP_BDG_LIST)), Ok(Request::ValeList(expected)));
    for cmd in [0, 1, NETMAP_PT_HOST_CREATE, u16::MAX] {
        let Ok(Request::PortInfo(info)) = request(NIOCGINFO, legacy("eth0", cmd)) else { panic!("{cmd}") };
        assert_eq!((info.name, info.tx_slots, info.rx_rings, info.mem_id), (name("eth0"), 3, 6, 9));
    }
}

fn answer(ioctl: u64, raw: nmreq, reply: Reply) -> nmreq {
    let mem = with(&raw);
    assert_eq!(decode(&mem, ioctl, HEADER).unwrap().finish(&mem, Ok(reply)), OK);
    mem.get(HEADER)
}

#[test]
fn replies_go_where_legacy_programs_look() {
    let raw = legacy("eth0", 0);
    let reply = RegisterReply {
        offset: 0x1_0000_0064,
        memsize: 101,
        tx_slots: 102,
        rx_slots: 103,
        tx_rings: 104,
        rx_rings: 105,
        host_tx_rings: 106,
        host_rx_rings: 107,
        mem_id: 108,
        extra_bufs: 109,
    };
    let expected = nmreq {
        nr_offset: 100,
        nr_memsize: 101,
        nr_tx_slots: 102,
        nr_rx_slots: 103,
        nr_tx_rings: 104,
        nr_rx_rings: 105,
        nr_arg2: 108,
        nr_arg3: 109,
        ..raw
    };
    assert_eq!(answer(NIOCREGIF, raw, Reply::Register(reply)), expected);

    let geometry = Geometry { tx_slots: 102, rx_slots: 103, tx_rings: 104, rx_rings: 105, ..Default::default() };
    let reply = PortInfoReply { memsize: 101, mem_id: 108, geometry: Some(geometry) };
    assert_eq!(answer(NIOCGINFO, raw, Reply::PortInfo(reply)), nmreq { nr_offset: 1, nr_arg3: 10, ..expected });
    let region = PortInfoReply { geometry: None, ..reply };
    let expected = nmreq { nr_memsize: 101, nr_arg2: 108, ..raw };
    assert_eq!(answer(NIOCGINFO, raw, Reply::PortInfo(region)), expected);
}

#[test]
fn replies_of_switches_go_where_legacy_programs_look() {
    let raw = legacy("", NETMAP_BDG_LIST);
    let reply = ValeListReply { name: Some(name("vale0:a-very-long-name")), bridge: 70, port: 71 };
    let expected = nmreq { nr_name: field("vale0:a-very-lo"), nr_arg1: 70, nr_arg2: 71, ..raw };
    assert_eq!(answer(NIOCGINFO, raw, Reply::ValeList(reply)), expected);

    let raw = legacy("vale0:1", NETMAP_VNET_HDR_GET);
    assert_eq!(answer(NIOCREGIF, raw, Reply::HdrLen(12)), nmreq { nr_arg1: 12, ..raw });

    let raw = legacy("v0", NETMAP_BDG_NEWIF);
    let reply = ValeNewifReply { tx_slots: 70, rx_slots: 71, tx_rings: 72, rx_rings: 73, mem_id: 74 };
    let expected = nmreq { nr_tx_slots: 70, nr_rx_slots: 71, nr_tx_rings: 72, nr_rx_rings: 73, nr_arg2: 74, ..raw };
    assert_eq!(answer(NIOCREGIF, raw, Reply::ValeNewif(reply)), expected);

    let raw = legacy("v0", NETMAP_BDG_DETACH);
    assert_eq!(answer(NIOCREGIF, raw, Reply::ValeDetach(4)), raw, "there is no place for the port's index");
}

#[test]
fn a_request_that_cannot_be_written_back_faults() {
    let mem = FakeMem::new();
    mem.map_read_only(HEADER, crate::sys::pod_bytes(&legacy("eth0", 0)));
    assert_eq!(decode(&mem, NIOCREGIF, HEADER).unwrap().finish(&mem, err(libc::ENXIO)), err(libc::EFAULT));
    mem.map_read_only(HEADER, crate::sys::pod_bytes(&legacy("eth0", 1000)));
    assert_eq!(decode(&mem, NIOCREGIF, HEADER).unwrap_err(), Errno(libc::EFAULT));
}
