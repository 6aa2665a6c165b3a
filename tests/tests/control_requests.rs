//! Requests that bind nothing, flags of a registration, and what this release refuses: each with its errno.

mod control_common;

use control_common::*;
use netmap_xdp::abi::*;

fn port_info(fd: &Netmap, name: &str, mem_id: u16) -> Result<nmreq_port_info_get, i32> {
    let mut body = nmreq_port_info_get { nr_mem_id: mem_id, ..Default::default() };
    fd.control(NETMAP_REQ_PORT_INFO_GET, name, at(&mut body), 0).map(|()| body)
}

fn pools_info(fd: &Netmap, name: &str) -> Result<nmreq_pools_info, i32> {
    let mut body = nmreq_pools_info::default();
    fd.control(NETMAP_REQ_POOLS_INFO_GET, name, at(&mut body), 0).map(|()| body)
}

#[test]
fn a_port_and_its_region_are_described_before_and_after_they_are_bound() {
    let _turn = alone();
    let fd = Netmap::open();
    let (mut ids, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let info = port_info(&fd, "ask{1", 0).unwrap();
        assert!(info.nr_memsize > 0 && info.nr_tx_slots > 0 && info.nr_rx_slots > 0);
        assert_eq!((info.nr_tx_rings, info.nr_rx_rings), (1, 1));
        let pools = pools_info(&fd, "ask{1").unwrap();
        assert_eq!((pools.nr_memsize, pools.nr_mem_id), (info.nr_memsize, info.nr_mem_id));
        assert!(pools.nr_if_pool_objtotal > 0 && pools.nr_ring_pool_objtotal > 0 && pools.nr_buf_pool_objtotal > 2);
        assert_eq!(pools.nr_buf_pool_objsize, 2048);
        ids.push(info.nr_mem_id);
        sizes.push(info.nr_memsize);
        // The second time as it is.
        let _ = fd.register("ask{1", 0, 0).inspect(|reg| {
            ids.push(reg.nr_mem_id);
            sizes.push(reg.nr_memsize);
        });
    }
    assert_eq!(sizes[1], sizes[2]);
    assert!(ids[0] > 1 && ids.iter().all(|&id| id == ids[0]) && ids.len() == 3, "a region of its own: {ids:?}");
    let region = port_info(&fd, "", ids[0]).unwrap();
    assert_eq!((region.nr_memsize > 0, region.nr_mem_id, region.nr_tx_rings), (true, ids[0], 0));
    let main = port_info(&fd, "ask{2", 1).unwrap();
    assert_eq!((main.nr_memsize, main.nr_mem_id), (port_info(&fd, "", 1).unwrap().nr_memsize, 1));
    assert_eq!(port_info(&fd, "", 99).map(drop), Err(libc::EINVAL), "no such region");
    assert_eq!(port_info(&fd, "nosuchdev", 0).map(drop), Err(libc::ENXIO));
    assert_eq!(pools_info(&fd, "").map(drop), Err(libc::ENXIO), "of which port?");
}

#[test]
fn the_pipes_of_a_parent_share_memory_of_their_own_unless_an_id_says_otherwise() {
    let _turn = alone();
    let open = |name: &str, nr_mem_id: u16| {
        let body = nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_mem_id, ..Default::default() };
        let fd = Netmap::open();
        let id = fd.register_as(name, body, 0).unwrap_or_else(|e| panic!("{name}: {e}")).nr_mem_id;
        (fd, id)
    };
    let (master, slave, sibling) = (open("own{1", 0), open("own}1", 0), open("own}2", 0));
    let (stranger, main, far_end) = (open("strange{1", 0), open("own{3", 1), open("own}3", 0));
    assert!(master.1 > 1 && stranger.1 > 1 && stranger.1 != master.1, "{} {}", master.1, stranger.1);
    assert_eq!((slave.1, sibling.1, main.1, far_end.1), (master.1, master.1, 1, 1));
}

#[test]
fn only_ports_of_switches_have_virtio_net_headers() {
    let _turn = alone();
    let fd = Netmap::open();
    let mut body = nmreq_port_hdr { nr_hdr_len: 12, ..Default::default() };
    assert_eq!(fd.control(NETMAP_REQ_PORT_HDR_SET, "hdr{1", at(&mut body), 0), Err(libc::ENXIO));
    body.nr_hdr_len = 11;
    assert_eq!(fd.control(NETMAP_REQ_PORT_HDR_SET, "hdr{1", at(&mut body), 0), Err(libc::EINVAL));
    assert_eq!(fd.control(NETMAP_REQ_PORT_HDR_GET, "hdr{1", at(&mut body), 0), Ok(()));
    assert_eq!(body.nr_hdr_len, 0);
}

#[test]
fn a_descriptor_binds_once_and_exclusive_rings_belong_to_one() {
    let _turn = alone();
    let (a, b) = (Netmap::open(), Netmap::open());
    assert_eq!(a.ioctl(NIOCTXSYNC, 0), Err(libc::ENXIO));
    assert_eq!(a.poll(libc::POLLIN), libc::POLLERR);
    a.register("excl{1", NR_EXCLUSIVE | NR_TX_RINGS_ONLY, 0).unwrap();
    assert_eq!(a.register("excl{2", 0, 0).map(drop), Err(libc::EBUSY));
    assert_eq!(b.register("excl{1", 0, 0).map(drop), Err(libc::EBUSY));
    let reg = b.register("excl{1", NR_RX_RINGS_ONLY, 0).expect("the other direction is free");
    b.map(&reg).rx(0);
    assert_eq!(Netmap::open().register("excl{1", NR_EXCLUSIVE | NR_RX_RINGS_ONLY, 0).map(drop), Err(libc::EBUSY));
}

#[test]
fn poll_sends_unasked_unless_told_not_to() {
    let _turn = alone();
    for (flags, sent) in [(0, 1), (NR_NO_TX_POLL, 0)] {
        let (a, b) = (Netmap::open(), Netmap::open());
        let reg_a = a.register("nopoll{1", flags, 0).unwrap();
        let reg_b = b.register("nopoll}1", 0, 0).unwrap();
        let (tx, rx) = (a.map(&reg_a).tx(0), b.map(&reg_b).rx(0));
        tx.slot(0).len = 60;
        tx.give(1);
        a.poll(libc::POLLIN);
        b.ioctl(NIOCRXSYNC, 0).unwrap();
        assert_eq!(rx.get().tail, sent, "flags {flags:#x}");
    }
}

#[test]
fn extra_buffers_are_a_list_that_ends() {
    let _turn = alone();
    let fd = Netmap::open();
    let body = nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_extra_bufs: 5, ..Default::default() };
    let reg = fd.register_as("extra{1", body, 0).unwrap();
    assert_eq!(reg.nr_extra_bufs, 5);
    let nifp = fd.map(&reg);
    let ring = nifp.tx(0).get();
    let base = nifp.tx(0).0 as isize + ring.buf_ofs as isize;
    let (mut i, mut n) = (nifp.get().ni_bufs_head, 0);
    while i != 0 && n < 10 {
        assert!(i >= NETMAP_FIRST_BUF);
        // SAFETY: the first word of a buffer of the region.
        i = unsafe { ((base + (i * ring.nr_buf_size) as isize) as *const u32).read() };
        n += 1;
    }
    assert_eq!(n, 5);
}

#[test]
fn extra_buffers_without_end_are_given_as_far_as_is_sensible() {
    let _turn = alone();
    let body = nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_extra_bufs: u32::MAX, ..Default::default() };
    let reg = Netmap::open().register_as("greedy{1", body, 0).unwrap();
    assert!((1000..1 << 18).contains(&reg.nr_extra_bufs), "{}", reg.nr_extra_bufs);
    assert!(reg.nr_memsize < 1 << 29, "{}", reg.nr_memsize);
}

#[test]
fn modes_and_options_that_do_not_fit_the_port_are_refused() {
    let _turn = alone();
    let fd = Netmap::open();
    let mode = |nr_mode| nmreq_register { nr_mode, nr_tx_slots: 64, nr_rx_slots: 64, ..Default::default() };
    for (name, nr_mode, errno) in [
        ("mode{1", NR_REG_SW, libc::EINVAL),
        ("mode{1", NR_REG_NIC_SW, libc::EINVAL),
        ("mode", NR_REG_PIPE_MASTER, libc::EINVAL),
        ("mode", NR_REG_NULL, libc::EINVAL),
        ("mode{1", 99, libc::EINVAL),
        ("nosuchdev", NR_REG_ALL_NIC, libc::ENXIO),
    ] {
        assert_eq!(fd.register_as(name, mode(nr_mode), 0).map(drop), Err(errno), "{name} {nr_mode}");
    }
    let mut unknown = option(1234);
    assert_eq!(fd.register("mode{1", 0, at(&mut unknown)).map(drop), Err(libc::EOPNOTSUPP));
    assert_eq!(unknown.nro_status, libc::EOPNOTSUPP as u32);
    let mut kloop = option(NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS);
    assert_eq!(fd.register("mode{1", 0, at(&mut kloop)).map(drop), Err(libc::EOPNOTSUPP), "not for a registration");
    fd.register("mode{1", 0, 0).expect("nothing of it stayed");
}

#[test]
fn poll_receives_when_asked_for_packets_whatever_the_flag_says() {
    let _turn = alone();
    for flags in [0, NR_DO_RX_POLL] {
        let (a, b) = (Netmap::open(), Netmap::open());
        let reg_a = a.register("rxpoll{1", 0, 0).unwrap();
        let reg_b = b.register("rxpoll}1", flags, 0).unwrap();
        let (tx, rx) = (a.map(&reg_a).tx(0), b.map(&reg_b).rx(0));
        tx.slot(0).len = 60;
        tx.give(1);
        a.ioctl(NIOCTXSYNC, 0).unwrap();
        b.poll(libc::POLLOUT);
        assert_eq!(rx.get().tail, 0, "flags {flags:#x}");
        assert_eq!(b.poll(libc::POLLIN), libc::POLLIN);
        assert_eq!(rx.get().tail, 1, "flags {flags:#x}");
    }
}

#[test]
fn a_switch_has_no_module_to_configure() {
    let _turn = alone();
    let (fd, port) = (Netmap::open(), Netmap::open());
    port.register("valecfg:a", 0, 0).unwrap();
    for name in ["valecfg:", "valecfg", "nosuch:", ""] {
        let mut ask = nm_ifreq { nifr_name: [0; 16], data: [7; 256] };
        ask.nifr_name[..name.len()].copy_from_slice(name.as_bytes());
        assert_eq!(fd.ioctl(NIOCCONFIG, &raw mut ask as usize), Err(libc::EINVAL), "{name}");
        assert_eq!(ask.data, [7; 256]);
    }
}

#[test]
fn there_are_as_many_switches_as_fit_and_no_more() {
    let _turn = alone();
    let mut open = Vec::new();
    let small = nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_tx_slots: 8, nr_rx_slots: 8, ..Default::default() };
    for i in 0..300 {
        let fd = Netmap::open();
        match fd.register_as(&format!("valeN{i}:a"), small, 0) {
            Ok(_) => open.push(fd),
            Err(errno) => {
                assert_eq!((errno, open.len()), (libc::ENOMEM, 256));
                return;
            }
        }
    }
    panic!("300 switches");
}

#[test]
fn all_of_it_holds_through_netmapd_too() {
    again_through_netmapd();
}
