use super::*;
use crate::ctl::{
    Csb, EventFdPair, EventFds, Extmem, KloopMode, Offsets, OptionAnswer, Options, Pool, Pools, RegisterReply, Request,
};
use crate::sys::{UserMem, pod_bytes};

fn reply() -> Result<Reply, Errno> {
    Ok(Reply::Register(RegisterReply { tx_slots: 256, ..Default::default() }))
}

/// A registration with room for options.
fn memory_with_options() -> FakeMem {
    let mem = memory(NETMAP_REQ_REGISTER, "eth0", &register());
    mem.map(OPTION, &[0; 0x8000]);
    options_at(&mem, OPTION);
    mem
}

fn place<T: Pod>(mem: &FakeMem, at: u64, value: &T) {
    mem.write(at, pod_bytes(value)).unwrap();
}

/// Places a chain of options of these types, 0x100 bytes apart.
fn chain(mem: &FakeMem, kinds: &[u32]) {
    for (i, &kind) in kinds.iter().enumerate() {
        let at = OPTION + 0x100 * i as u64;
        let next = if i + 1 == kinds.len() { 0 } else { at + 0x100 };
        place(mem, at, &option(kind, next));
    }
}

fn statuses(mem: &FakeMem, n: usize) -> Vec<i32> {
    (0..n).map(|i| status(mem, OPTION + 0x100 * i as u64)).collect()
}

#[test]
fn an_unknown_option_fails_a_registration_that_would_succeed() {
    let mem = memory_with_options();
    chain(&mem, &[1234]);
    let call = control(&mem).unwrap();
    let failure = call.unsupported_option().unwrap();
    assert_eq!(failure.errno, Errno(libc::EOPNOTSUPP));
    assert!(failure.message.contains("1234"));
    assert_eq!(call.finish(&mem, reply()), err(libc::EOPNOTSUPP));
    assert_eq!(status(&mem, OPTION), libc::EOPNOTSUPP);
    assert_eq!(mem.get::<nmreq_register>(BODY), register(), "the body is not written");
}

#[test]
fn another_failure_comes_before_an_unknown_option() {
    let mem = memory_with_options();
    chain(&mem, &[1234]);
    assert_eq!(run(&mem, err(libc::ENXIO)), err(libc::ENXIO));
    assert_eq!(status(&mem, OPTION), libc::EOPNOTSUPP);
}

#[test]
fn requests_other_than_registration_ignore_what_they_do_not_know() {
    let mem = memory(NETMAP_REQ_PORT_HDR_GET, "eth0", &nmreq_port_hdr::default());
    mem.put(OPTION, &option(1234, 0));
    options_at(&mem, OPTION);
    let call = control(&mem).unwrap();
    assert_eq!(call.unsupported_option(), None);
    assert_eq!(call.finish(&mem, Ok(Reply::HdrLen(0))), OK);
    assert_eq!(status(&mem, OPTION), libc::EOPNOTSUPP, "but say so");
}

#[test]
fn type_zero_is_invalid_and_ends_the_reading() {
    let mem = memory_with_options();
    chain(&mem, &[NETMAP_REQ_OPT_CSB, 0, NETMAP_REQ_OPT_OFFSETS]);
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EINVAL));
    assert_eq!(statuses(&mem, 3), [0, libc::EINVAL, 99], "what was not reached is left alone");
}

#[test]
fn a_known_option_given_twice_is_invalid_and_both_say_so() {
    let mem = memory_with_options();
    chain(&mem, &[NETMAP_REQ_OPT_OFFSETS, 1234, NETMAP_REQ_OPT_OFFSETS]);
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EINVAL));
    assert_eq!(statuses(&mem, 3), [libc::EINVAL, 0, libc::EINVAL]);
}

#[test]
fn an_unknown_option_may_be_given_twice() {
    let mem = memory_with_options();
    chain(&mem, &[1234, 1234]);
    assert_eq!(run(&mem, reply()), err(libc::EOPNOTSUPP));
    assert_eq!(statuses(&mem, 2), [libc::EOPNOTSUPP; 2]);
}

#[test]
fn an_option_that_follows_itself_ends_somewhere() {
    let mem = memory_with_options();
    place(&mem, OPTION, &option(NETMAP_REQ_OPT_MAX + 1, OPTION));
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EMSGSIZE));
    assert_eq!(status(&mem, OPTION), 99, "an endless list is not answered");
    assert_eq!(mem.get::<nmreq_option>(OPTION).nro_next, OPTION);

    place(&mem, OPTION, &option(NETMAP_REQ_OPT_OFFSETS, OPTION));
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EINVAL), "a known one is a duplicate first");
    assert_eq!(status(&mem, OPTION), libc::EINVAL);
}

#[test]
fn the_list_holds_as_many_options_as_the_originals() {
    // 4096 bytes and a pointer for each known option, less the body; an option takes its header and a pointer.
    let most = (4096 + 6 * 8 - 56) / 32;
    for (n, expected) in [(most, OK), (most + 1, err(libc::EMSGSIZE))] {
        let mem = memory_with_options();
        for i in 0..n {
            let at = OPTION + 24 * i as u64;
            place(&mem, at, &option(NETMAP_REQ_OPT_MAX, if i + 1 == n { 0 } else { at + 24 }));
        }
        assert_eq!(control(&mem).map(|_| ()), expected, "{n}");
    }
}

#[test]
fn a_long_option_behind_many_is_too_long() {
    let mem = memory_with_options();
    for i in 0..100u64 {
        let at = OPTION + 24 * i;
        let last = nmreq_option { nro_size: 1000, ..option(NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, 0) };
        place(&mem, at, &if i == 99 { last } else { option(NETMAP_REQ_OPT_MAX, at + 24) });
    }
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EMSGSIZE));
    assert_eq!(status(&mem, OPTION), 0, "the list has an end, so it is answered");
}

#[test]
fn an_absurd_size_is_too_long_in_known_options_only() {
    for (kind, size, expected) in [
        (NETMAP_REQ_OPT_CSB, 4097, err(libc::EMSGSIZE)),
        (NETMAP_REQ_OPT_CSB, 4096, OK),
        (NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, u64::MAX, err(libc::EMSGSIZE)),
        (NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, 4096 - 55, err(libc::EMSGSIZE)),
        (NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, 4096 - 56, OK),
        (1234, u64::MAX, OK),
    ] {
        let mem = memory_with_options();
        place(&mem, OPTION, &nmreq_option { nro_size: size, ..option(kind, 0) });
        assert_eq!(control(&mem).map(|_| ()), expected, "{kind} {size}");
    }
}

#[test]
fn options_that_cannot_be_read_fault() {
    let mem = memory(NETMAP_REQ_REGISTER, "eth0", &register());
    options_at(&mem, 0xdead_0000);
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EFAULT));
    // The first is fine, the second is not there.
    mem.put(OPTION, &option(1234, 0xdead_0000));
    options_at(&mem, OPTION);
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EFAULT));
    assert_eq!(status(&mem, OPTION), 0);
    // A known option without its body.
    mem.put(OPTION, &option(NETMAP_REQ_OPT_CSB, 0));
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EFAULT));
    // An address at the very end of memory.
    options_at(&mem, u64::MAX);
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EFAULT));
}

#[test]
fn options_that_cannot_be_written_fault() {
    let mem = memory(NETMAP_REQ_REGISTER, "eth0", &register());
    mem.map_read_only(OPTION, pod_bytes(&option(1234, 0)));
    options_at(&mem, OPTION);
    assert_eq!(run(&mem, err(libc::ENXIO)), err(libc::EFAULT));
    mem.map_read_only(OPTION, pod_bytes(&option(0, 0)));
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EFAULT), "when decoding fails, too");
}

fn every_option(mem: &FakeMem) {
    let at = |i: u64| OPTION + 0x100 * i;
    let head = |kind, i: u64| option(kind, if i == 4 { 0 } else { at(i + 1) });
    let info = nmreq_pools_info { nr_memsize: 4096, nr_buf_pool_objtotal: 7, ..Default::default() };
    place(mem, at(0), &nmreq_opt_extmem { nro_opt: head(NETMAP_REQ_OPT_EXTMEM, 0), nro_usrptr: 0xabc, nro_info: info });
    place(mem, at(1), &nmreq_opt_csb { nro_opt: head(NETMAP_REQ_OPT_CSB, 1), csb_atok: 1, csb_ktoa: 2 });
    let offsets = nmreq_opt_offsets {
        nro_opt: head(NETMAP_REQ_OPT_OFFSETS, 2),
        nro_max_offset: 100,
        nro_initial_offset: 50,
        nro_offset_bits: 16,
        nro_tx_align: 8,
        nro_min_gap: 3,
    };
    place(mem, at(2), &offsets);
    let fds = nmreq_option { nro_size: 24 + 16, ..head(NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, 3) };
    place(mem, at(3), &fds);
    let numbers: Vec<u8> = [5i32, -1, 6, 7].iter().flat_map(|n| n.to_ne_bytes()).collect();
    mem.write(at(3) + 24, &numbers).unwrap();
    let mode = nmreq_opt_sync_kloop_mode { nro_opt: head(NETMAP_REQ_OPT_SYNC_KLOOP_MODE, 4), mode: 3, _pad: 0 };
    place(mem, at(4), &mode);
}

#[test]
fn every_option_is_typed() {
    let mem = memory_with_options();
    every_option(&mem);
    let Request::Register(register) = control(&mem).unwrap().request else { panic!() };
    let pools = Pools { memsize: 4096, buffers: Pool { count: 7, ..Default::default() }, ..Default::default() };
    let expected = Options {
        extmem: Some(Extmem { address: 0xabc, pools }),
        csb: Some(Csb { atok: 1, ktoa: 2 }),
        offsets: Some(Offsets { max: 100, initial: 50, bits: 16, tx_align: 8, min_gap: 3 }),
        kloop_eventfds: Some(EventFds {
            pairs: vec![EventFdPair { io: 5, irq: -1 }, EventFdPair { io: 6, irq: 7 }],
            size: 40,
        }),
        kloop_mode: Some(KloopMode { bits: 3 }),
        steering: None,
    };
    assert_eq!(register.options, expected);
}

#[test]
fn options_that_were_processed_are_answered() {
    let mem = memory_with_options();
    every_option(&mem);
    let mut call = control(&mem).unwrap();
    assert_eq!(call.options.unsupported(), Some(NETMAP_REQ_OPT_EXTMEM), "the first in the program's order");
    let pools = Pools { memsize: 8192, mem_id: 9, ..Default::default() };
    call.answer_option(OptionAnswer::Extmem(Ok(pools)));
    call.answer_option(OptionAnswer::Csb(Ok(())));
    call.answer_option(OptionAnswer::Offsets(Ok(200)));
    call.answer_option(OptionAnswer::KloopEventfds(Ok(())));
    assert_eq!(call.options.unsupported(), Some(NETMAP_REQ_OPT_SYNC_KLOOP_MODE));
    call.answer_option(OptionAnswer::KloopMode(Ok(())));
    assert_eq!(call.unsupported_option(), None);
    assert_eq!(call.finish(&mem, reply()), OK);
    assert_eq!(statuses(&mem, 5), [0; 5]);
    let extmem: nmreq_opt_extmem = mem.get(OPTION);
    assert_eq!((extmem.nro_info.nr_memsize, extmem.nro_info.nr_mem_id, extmem.nro_usrptr), (8192, 9, 0xabc));
    assert_eq!(extmem.nro_opt.nro_next, OPTION + 0x100, "the list is as it was");
    let offsets: nmreq_opt_offsets = mem.get(OPTION + 0x200);
    assert_eq!((offsets.nro_max_offset, offsets.nro_initial_offset), (200, 50));
    assert_eq!(mem.get::<nmreq_register>(BODY).nr_tx_slots, 256);
}

#[test]
fn an_option_that_failed_says_why_and_keeps_its_body() {
    let mem = memory_with_options();
    every_option(&mem);
    let mut call = control(&mem).unwrap();
    call.answer_option(OptionAnswer::Offsets(err(libc::EINVAL)));
    call.answer_option(OptionAnswer::Csb(Ok(())));
    assert_eq!(call.finish(&mem, err(libc::EINVAL)), err(libc::EINVAL));
    let unsupported = libc::EOPNOTSUPP;
    assert_eq!(statuses(&mem, 5), [unsupported, 0, libc::EINVAL, unsupported, unsupported]);
    assert_eq!(mem.get::<nmreq_opt_offsets>(OPTION + 0x200).nro_max_offset, 100);
}

#[test]
fn an_answer_to_an_option_that_is_not_there_is_no_harm() {
    let mem = memory(NETMAP_REQ_REGISTER, "eth0", &register());
    let mut call = control(&mem).unwrap();
    call.answer_option(OptionAnswer::Csb(Ok(())));
    assert_eq!(call.finish(&mem, reply()), OK);
}

#[test]
fn enabling_csb_needs_the_option() {
    let mem = bare(NETMAP_REQ_CSB_ENABLE, "");
    assert_eq!(control(&mem).unwrap_err(), Errno(libc::EINVAL));
    mem.put(OPTION, &nmreq_opt_csb { nro_opt: option(NETMAP_REQ_OPT_CSB, 0), csb_atok: 64, csb_ktoa: 128 });
    options_at(&mem, OPTION);
    let mut call = control(&mem).unwrap();
    assert_eq!(call.request, Request::CsbEnable(Csb { atok: 64, ktoa: 128 }));
    call.answer_option(OptionAnswer::Csb(Ok(())));
    assert_eq!(call.finish(&mem, Ok(Reply::Done)), OK);
    assert_eq!(status(&mem, OPTION), 0);
}

#[test]
fn the_sync_loop_gets_its_options() {
    let mem = memory(NETMAP_REQ_SYNC_KLOOP_START, "", &nmreq_sync_kloop_start::default());
    mem.map(OPTION, &[0; 0x1000]);
    options_at(&mem, OPTION);
    every_option(&mem);
    let Request::KloopStart(start) = control(&mem).unwrap().request else { panic!() };
    assert_eq!(start.mode, Some(KloopMode { bits: 3 }));
    assert!(start.eventfds.unwrap().fits(2));
}
