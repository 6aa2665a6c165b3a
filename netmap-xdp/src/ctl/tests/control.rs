use super::*;
use crate::ctl::{
    Geometry, HdrSet, KloopStart, Mode, Options, PipeRole, Polling, Pool, Pools, PoolsInfo, PoolsInfoReply, PortInfo,
    PortInfoReply, PortKind, PortName, Register, RegisterReply, Request, ValeConfig, ValeList, ValeListReply,
    ValeNewif, ValeNewifReply, try_decode,
};
use crate::sys::UserMem;
use std::time::Duration;

fn name(text: &str) -> PortName {
    PortName::new(text).unwrap()
}

#[test]
fn an_ioctl_that_is_not_netmaps_is_not_supported() {
    let mem = FakeMem::new();
    for cmd in [0, 1, NIOCTXSYNC, NIOCRXSYNC, 0x5401, NIOCCTRL ^ 1] {
        assert_eq!(decode(&mem, cmd, 0).unwrap_err(), Errno(libc::EOPNOTSUPP), "{cmd:#x}");
    }
}

#[test]
fn only_32_bits_of_the_ioctl_count() {
    let mem = memory(NETMAP_REQ_REGISTER, "eth0", &register());
    assert!(decode(&mem, NIOCCTRL | 0xffff_ffff << 32, HEADER).is_ok(), "as sign extension of an int leaves it");
}

#[test]
fn no_argument_is_invalid_and_a_bad_one_faults() {
    let mem = FakeMem::new();
    for cmd in [NIOCCTRL, NIOCREGIF, NIOCGINFO, NIOCCONFIG] {
        assert_eq!(decode(&mem, cmd, 0).unwrap_err(), Errno(libc::EINVAL));
        assert_eq!(decode(&mem, cmd, 0x1000).unwrap_err(), Errno(libc::EFAULT));
        assert_eq!(decode(&mem, cmd, u64::MAX).unwrap_err(), Errno(libc::EFAULT));
    }
}

#[test]
fn versions_14_and_15_are_served() {
    for version in 0..20 {
        let mem = memory(NETMAP_REQ_REGISTER, "eth0", &register());
        let before = nmreq_header { nr_version: version, ..mem.get(HEADER) };
        mem.put(HEADER, &before);
        let result = run(&mem, Ok(Reply::Register(RegisterReply::default())));
        assert_eq!(result, if (14..=15).contains(&version) { OK } else { err(libc::EINVAL) }, "{version}");
        assert_eq!(mem.get::<nmreq_header>(HEADER).nr_version, version, "the version is left as it is");
    }
}

#[test]
fn a_message_says_which_version_is_served() {
    let mem = memory(NETMAP_REQ_REGISTER, "eth0", &register());
    mem.put(HEADER, &nmreq_header { nr_version: 12, ..mem.get(HEADER) });
    let message = try_decode(&mem, NIOCCTRL, HEADER).unwrap_err().message;
    assert!(message.contains("12") && message.contains("14 to 15"), "{message}");
}

#[test]
fn reserved_must_be_zero() {
    let mem = memory(NETMAP_REQ_REGISTER, "eth0", &register());
    mem.put(HEADER, &nmreq_header { nr_reserved: 1, ..mem.get(HEADER) });
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EINVAL));
}

/// Every request type, and whether it has a body.
const TYPES: [(u16, bool); 15] = [
    (NETMAP_REQ_REGISTER, true),
    (NETMAP_REQ_PORT_INFO_GET, true),
    (NETMAP_REQ_VALE_ATTACH, true),
    (NETMAP_REQ_VALE_DETACH, true),
    (NETMAP_REQ_VALE_LIST, true),
    (NETMAP_REQ_PORT_HDR_SET, true),
    (NETMAP_REQ_PORT_HDR_GET, true),
    (NETMAP_REQ_VALE_NEWIF, true),
    (NETMAP_REQ_VALE_DELIF, false),
    (NETMAP_REQ_VALE_POLLING_ENABLE, true),
    (NETMAP_REQ_VALE_POLLING_DISABLE, true),
    (NETMAP_REQ_POOLS_INFO_GET, true),
    (NETMAP_REQ_SYNC_KLOOP_START, true),
    (NETMAP_REQ_SYNC_KLOOP_STOP, false),
    (NETMAP_REQ_CSB_ENABLE, false),
];

#[test]
fn a_body_is_there_exactly_when_it_must_be() {
    for (kind, has_body) in TYPES {
        let mem = memory(kind, "eth0", &nmreq_pools_info::default());
        let body = if has_body { 0 } else { BODY };
        mem.put(HEADER, &header(kind, "eth0", body, 0));
        assert_eq!(control(&mem).unwrap_err(), Errno(libc::EINVAL), "{kind}");
        assert_eq!(mem.get::<nmreq_header>(HEADER).nr_reserved, 0, "the same header can be mended and sent again");
    }
}

#[test]
fn a_body_that_cannot_be_read_faults() {
    for (kind, has_body) in TYPES {
        if has_body {
            let mem = bare(kind, "eth0");
            mem.put(HEADER, &header(kind, "eth0", BODY, 0));
            assert_eq!(control(&mem).unwrap_err(), Errno(libc::EFAULT), "{kind}");
        }
    }
}

#[test]
fn an_unknown_type_is_invalid_with_or_without_a_body() {
    for kind in [0, 16, 17, 1000, u16::MAX] {
        assert_eq!(control(&bare(kind, "eth0")).unwrap_err(), Errno(libc::EINVAL), "{kind}");
        assert_eq!(control(&memory(kind, "eth0", &register())).unwrap_err(), Errno(libc::EINVAL), "{kind}");
    }
}

#[test]
fn an_unknown_type_still_answers_its_options() {
    let mem = bare(0, "eth0");
    mem.put(OPTION, &option(NETMAP_REQ_OPT_MAX, 0));
    options_at(&mem, OPTION);
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EINVAL));
    assert_eq!(status(&mem, OPTION), libc::EOPNOTSUPP);
}

#[test]
fn a_registration_is_decoded_field_by_field() {
    let mem = memory(NETMAP_REQ_REGISTER, "eth0", &register());
    let expected = Register {
        name: name("eth0"),
        mode: Mode::OneNic,
        ring_id: 18,
        flags: NR_EXCLUSIVE,
        mem_id: 17,
        tx_slots: 11,
        rx_slots: 12,
        tx_rings: 13,
        rx_rings: 14,
        host_tx_rings: 15,
        host_rx_rings: 16,
        extra_bufs: 19,
        options: Options::default(),
    };
    assert_eq!(control(&mem).unwrap().request, Request::Register(expected));
}

fn reply() -> RegisterReply {
    RegisterReply {
        offset: 0x1_0000_0001,
        memsize: 0x2_0000_0002,
        tx_slots: 1024,
        rx_slots: 512,
        tx_rings: 8,
        rx_rings: 4,
        host_tx_rings: 2,
        host_rx_rings: 1,
        mem_id: 3,
        extra_bufs: 7,
    }
}

#[test]
fn a_registration_is_answered_field_by_field() {
    let mem = memory(NETMAP_REQ_REGISTER, "eth0", &register());
    assert_eq!(run(&mem, Ok(Reply::Register(reply()))), OK);
    let expected = nmreq_register {
        nr_offset: 0x1_0000_0001,
        nr_memsize: 0x2_0000_0002,
        nr_tx_slots: 1024,
        nr_rx_slots: 512,
        nr_tx_rings: 8,
        nr_rx_rings: 4,
        nr_host_tx_rings: 2,
        nr_host_rx_rings: 1,
        nr_mem_id: 3,
        nr_extra_bufs: 7,
        ..register()
    };
    assert_eq!(mem.get::<nmreq_register>(BODY), expected);
}

#[test]
fn a_failure_leaves_the_body_alone_and_writes_the_header() {
    let mem = memory(NETMAP_REQ_REGISTER, "eth0", &register());
    let mut full = header(NETMAP_REQ_REGISTER, "", BODY, 0);
    full.nr_name = [b'a'; 64];
    mem.put(HEADER, &full);
    assert_eq!(run(&mem, err(libc::ENXIO)), err(libc::ENXIO));
    assert_eq!(mem.get::<nmreq_register>(BODY), register());
    let after: nmreq_header = mem.get(HEADER);
    assert_eq!(after.nr_name[63], 0, "the name was ended with a zero byte");
    assert_eq!(after.nr_name[62], b'a');
}

#[test]
fn an_answer_that_cannot_be_written_faults() {
    let mem = memory(NETMAP_REQ_REGISTER, "eth0", &register());
    mem.map_read_only(BODY, &[0; 56]);
    assert_eq!(run(&mem, Ok(Reply::Register(reply()))), err(libc::EFAULT));
    assert_eq!(run(&mem, err(libc::EBUSY)), err(libc::EBUSY), "a failure does not write the body");

    let mem = FakeMem::new();
    mem.map_read_only(HEADER, crate::sys::pod_bytes(&header(NETMAP_REQ_REGISTER, "eth0", BODY, 0)));
    mem.put(BODY, &register());
    assert_eq!(run(&mem, err(libc::EBUSY)), err(libc::EFAULT), "but it does write the header");
    assert_eq!(decode(&mem, NIOCCTRL, HEADER).map(|_| ()), OK);
    mem.map_read_only(HEADER, crate::sys::pod_bytes(&header(0, "eth0", 0, 0)));
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EFAULT), "even when decoding fails");
}

#[test]
fn zero_copy_monitors_see_both_directions_and_say_so() {
    let body = nmreq_register { nr_flags: NR_ZCOPY_MON, nr_mode: NR_REG_ALL_NIC, ..register() };
    let mem = memory(NETMAP_REQ_REGISTER, "eth0", &body);
    assert_eq!(run(&mem, Ok(Reply::Register(reply()))), OK);
    assert_eq!(mem.get::<nmreq_register>(BODY).nr_flags, NR_ZCOPY_MON | NR_MONITOR_TX | NR_MONITOR_RX);
}

#[test]
fn unknown_modes_and_flags_reach_the_handler() {
    let body = nmreq_register { nr_flags: !NR_ZCOPY_MON, nr_mode: 77, ..register() };
    let Request::Register(got) = control(&memory(NETMAP_REQ_REGISTER, "eth0", &body)).unwrap().request else {
        panic!()
    };
    assert_eq!((got.mode, got.flags), (Mode::Invalid(77), !NR_ZCOPY_MON));
}

#[test]
fn port_info_goes_both_ways() {
    let body = nmreq_port_info_get {
        nr_memsize: 1,
        nr_tx_slots: 2,
        nr_rx_slots: 3,
        nr_tx_rings: 4,
        nr_rx_rings: 5,
        nr_host_tx_rings: 6,
        nr_host_rx_rings: 7,
        nr_mem_id: 8,
        pad: [9; 3],
    };
    let mem = memory(NETMAP_REQ_PORT_INFO_GET, "eth0", &body);
    let Request::PortInfo(info) = control(&mem).unwrap().request else { panic!() };
    let PortInfo { mem_id, tx_slots, rx_slots, tx_rings, rx_rings, host_tx_rings, host_rx_rings, .. } = info;
    assert_eq!((mem_id, tx_slots, rx_slots, tx_rings), (8, 2, 3, 4));
    assert_eq!((rx_rings, host_tx_rings, host_rx_rings), (5, 6, 7));
    assert_eq!(info.as_register().kind(), Ok(PortKind::Nic));
    assert_eq!((info.as_register().tx_rings, info.as_register().mode), (4, Mode::AllNic));

    let geometry =
        Geometry { tx_slots: 20, rx_slots: 30, tx_rings: 40, rx_rings: 50, host_tx_rings: 60, host_rx_rings: 70 };
    let answer = PortInfoReply { memsize: 10, mem_id: 80, geometry: Some(geometry) };
    assert_eq!(run(&mem, Ok(Reply::PortInfo(answer))), OK);
    let expected = nmreq_port_info_get {
        nr_memsize: 10,
        nr_tx_slots: 20,
        nr_rx_slots: 30,
        nr_tx_rings: 40,
        nr_rx_rings: 50,
        nr_host_tx_rings: 60,
        nr_host_rx_rings: 70,
        nr_mem_id: 80,
        pad: [9; 3],
    };
    assert_eq!(mem.get::<nmreq_port_info_get>(BODY), expected);
}

#[test]
fn port_info_without_a_name_tells_of_the_region_only() {
    let body = nmreq_port_info_get { nr_tx_slots: 2, ..Default::default() };
    let mem = memory(NETMAP_REQ_PORT_INFO_GET, "", &body);
    let Request::PortInfo(info) = control(&mem).unwrap().request else { panic!() };
    assert!(info.name.is_empty());
    assert_eq!(run(&mem, Ok(Reply::PortInfo(PortInfoReply { memsize: 10, mem_id: 1, geometry: None }))), OK);
    let expected = nmreq_port_info_get { nr_memsize: 10, nr_mem_id: 1, ..body };
    assert_eq!(mem.get::<nmreq_port_info_get>(BODY), expected);
}

#[test]
fn switch_requests_go_both_ways() {
    let mem =
        memory(NETMAP_REQ_VALE_ATTACH, "vale0:eth0", &nmreq_vale_attach { reg: register(), ..Default::default() });
    let Request::ValeAttach(attach) = control(&mem).unwrap().request else { panic!() };
    assert_eq!((attach.register.mem_id, attach.register.mode), (17, Mode::OneNic));
    assert_eq!(run(&mem, Ok(Reply::ValeAttach(5))), OK);
    let body: nmreq_vale_attach = mem.get(BODY);
    assert_eq!((body.port_index, body.reg), (5, register()));

    let mem = memory(NETMAP_REQ_VALE_DETACH, "vale0:eth0", &nmreq_vale_detach::default());
    assert_eq!(control(&mem).unwrap().request, Request::ValeDetach(name("vale0:eth0")));
    assert_eq!(run(&mem, Ok(Reply::ValeDetach(6))), OK);
    assert_eq!(mem.get::<nmreq_vale_detach>(BODY).port_index, 6);

    let list = nmreq_vale_list { nr_bridge_idx: 2, pad1: 3, nr_port_idx: 4 };
    let mem = memory(NETMAP_REQ_VALE_LIST, "", &list);
    assert_eq!(control(&mem).unwrap().request, Request::ValeList(ValeList { name: name(""), bridge: 2, port: 4 }));
    let answer = ValeListReply { name: Some(name("vale1:a")), bridge: 7, port: 8 };
    assert_eq!(run(&mem, Ok(Reply::ValeList(answer))), OK);
    let body: nmreq_vale_list = mem.get(BODY);
    assert_eq!((body.nr_bridge_idx, body.pad1, body.nr_port_idx), (7, 3, 8));
    assert_eq!(mem.get::<nmreq_header>(HEADER).nr_name, field("vale1:a"), "the name of the port is in the header");

    let newif =
        nmreq_vale_newif { nr_tx_slots: 1, nr_rx_slots: 2, nr_tx_rings: 3, nr_rx_rings: 4, nr_mem_id: 5, pad1: 6 };
    let mem = memory(NETMAP_REQ_VALE_NEWIF, "v0", &newif);
    let expected = ValeNewif { name: name("v0"), tx_slots: 1, rx_slots: 2, tx_rings: 3, rx_rings: 4, mem_id: 5 };
    assert_eq!(control(&mem).unwrap().request, Request::ValeNewif(expected));
    let answer = ValeNewifReply { tx_slots: 10, rx_slots: 20, tx_rings: 30, rx_rings: 40, mem_id: 50 };
    assert_eq!(run(&mem, Ok(Reply::ValeNewif(answer))), OK);
    let body: nmreq_vale_newif = mem.get(BODY);
    assert_eq!((body.nr_tx_slots, body.nr_rx_slots, body.nr_mem_id), (10, 20, 50));
    assert_eq!((body.nr_tx_rings, body.nr_rx_rings, body.pad1), (30, 40, 6));

    let mem = bare(NETMAP_REQ_VALE_DELIF, "v0");
    assert_eq!(control(&mem).unwrap().request, Request::ValeDelif(name("v0")));
    assert_eq!(run(&mem, Ok(Reply::Done)), OK);
}

#[test]
fn polling_requests_differ_in_their_type_only() {
    let body = nmreq_vale_polling { nr_mode: 9, nr_first_cpu_id: 2, nr_num_polling_cpus: 3, pad1: 4 };
    let expected = Polling { name: name("vale0:1"), mode: 9, first_cpu: 2, cpus: 3 };
    let request = |kind| control(&memory(kind, "vale0:1", &body)).unwrap().request;
    assert_eq!(request(NETMAP_REQ_VALE_POLLING_ENABLE), Request::PollingOn(expected));
    assert_eq!(request(NETMAP_REQ_VALE_POLLING_DISABLE), Request::PollingOff(expected));
}

#[test]
fn virtio_net_headers_have_three_lengths() {
    for len in 0..20 {
        let mem = memory(NETMAP_REQ_PORT_HDR_SET, "vale0:1", &nmreq_port_hdr { nr_hdr_len: len, pad1: 0 });
        let request = control(&mem).map(|call| call.request);
        if [0, 10, 12].contains(&len) {
            assert_eq!(request, Ok(Request::HdrSet(HdrSet { name: name("vale0:1"), len })));
        } else {
            assert_eq!(request, err(libc::EINVAL));
        }
    }
    let mem = memory(NETMAP_REQ_PORT_HDR_GET, "eth0", &nmreq_port_hdr { nr_hdr_len: 77, pad1: 0 });
    assert_eq!(control(&mem).unwrap().request, Request::HdrGet(name("eth0")));
    assert_eq!(run(&mem, Ok(Reply::HdrLen(12))), OK);
    assert_eq!(mem.get::<nmreq_port_hdr>(BODY).nr_hdr_len, 12);
}

#[test]
fn pools_info_goes_both_ways() {
    let body = nmreq_pools_info { nr_mem_id: 4, pad1: [5; 3], ..Default::default() };
    let mem = memory(NETMAP_REQ_POOLS_INFO_GET, "eth0", &body);
    assert_eq!(control(&mem).unwrap().request, Request::PoolsInfo(PoolsInfo { name: name("eth0"), mem_id: 4 }));
    let pool = |n: u32| Pool { offset: n.into(), count: n + 1, size: n + 2 };
    let pools = Pools { memsize: 1, mem_id: 2, interfaces: pool(10), rings: pool(20), buffers: pool(30) };
    assert_eq!(run(&mem, Ok(Reply::PoolsInfo(PoolsInfoReply(pools)))), OK);
    let raw: nmreq_pools_info = mem.get(BODY);
    assert_eq!((raw.nr_memsize, raw.nr_mem_id, raw.pad1), (1, 2, [5; 3]));
    assert_eq!((raw.nr_if_pool_offset, raw.nr_if_pool_objtotal, raw.nr_if_pool_objsize), (10, 11, 12));
    assert_eq!((raw.nr_ring_pool_offset, raw.nr_ring_pool_objtotal, raw.nr_ring_pool_objsize), (20, 21, 22));
    assert_eq!((raw.nr_buf_pool_offset, raw.nr_buf_pool_objtotal, raw.nr_buf_pool_objsize), (30, 31, 32));
}

#[test]
fn the_sync_loop_sleeps_a_second_at_most() {
    let request = |sleep_us| {
        let mem = memory(NETMAP_REQ_SYNC_KLOOP_START, "", &nmreq_sync_kloop_start { sleep_us, pad1: 0 });
        control(&mem).map(|call| call.request)
    };
    let sleep = Duration::from_secs(1);
    assert_eq!(request(1_000_000), Ok(Request::KloopStart(KloopStart { sleep, eventfds: None, mode: None })));
    assert_eq!(request(1_000_001), err(libc::EINVAL));
    assert_eq!(control(&bare(NETMAP_REQ_SYNC_KLOOP_STOP, "")).unwrap().request, Request::KloopStop);
}

#[test]
fn a_switch_module_is_configured_as_a_whole() {
    let mem = FakeMem::new();
    mem.put(HEADER, &nm_ifreq { nifr_name: field("vale0:"), data: [7; 256] });
    let call = decode(&mem, NIOCCONFIG, HEADER).unwrap();
    assert_eq!(call.request, Request::ValeConfig(ValeConfig { name: name("vale0:"), data: Box::new([7; 256]) }));
    assert_eq!(call.finish(&mem, err(libc::EINVAL)), err(libc::EINVAL));
    assert_eq!(mem.get::<nm_ifreq>(HEADER).data, [7; 256]);
    let call = decode(&mem, NIOCCONFIG, HEADER).unwrap();
    assert_eq!(call.finish(&mem, Ok(Reply::ValeConfig(Box::new([8; 256])))), OK);
    assert_eq!(mem.get::<nm_ifreq>(HEADER).data, [8; 256]);
    assert_eq!(mem.get::<nm_ifreq>(HEADER).nifr_name, field("vale0:"));
}

#[test]
fn a_reply_of_another_kind_changes_nothing() {
    let mem = memory(NETMAP_REQ_REGISTER, "eth0", &register());
    assert_eq!(run(&mem, Ok(Reply::HdrLen(3))), OK);
    assert_eq!(mem.get::<nmreq_register>(BODY), register());
    let answer = ValeListReply { name: Some(name("x")), bridge: 0, port: 0 };
    assert_eq!(run(&mem, Ok(Reply::ValeList(answer))), OK);
    assert_eq!(mem.get::<nmreq_header>(HEADER).nr_name, field("eth0"));
}

#[test]
fn a_pipe_is_known_by_its_name() {
    let mem = memory(NETMAP_REQ_REGISTER, "eth0}7", &nmreq_register { nr_mode: NR_REG_ALL_NIC, ..register() });
    let Request::Register(got) = control(&mem).unwrap().request else { panic!() };
    assert_eq!(got.kind(), Ok(PortKind::Pipe { parent: name("eth0"), id: name("7"), role: PipeRole::Slave }));
}

#[test]
fn the_memory_of_this_process_serves_as_well() {
    let body = register();
    let mut head = header(NETMAP_REQ_REGISTER, "eth0", std::ptr::from_ref(&body) as u64, 0);
    let arg = std::ptr::from_mut(&mut head) as u64;
    let mem = crate::sys::OwnProcess;
    let call = decode(&mem, NIOCCTRL, arg).unwrap();
    assert_eq!(call.finish(&mem, err(libc::ENXIO)), err(libc::ENXIO));
    assert_eq!(decode(&mem, NIOCCTRL, 1).unwrap_err(), Errno(libc::EFAULT));
    let mut byte = [0];
    assert_eq!(mem.read(1, &mut byte), err(libc::EFAULT));
}
