//! Packet offsets: what is refused, what the rings say, and where packets lie.

mod control_common;

use control_common::*;
use netmap_xdp::abi::*;
use netmap_xdp_tests::{Veth, needs_root, since, wait_until};
use std::time::Duration;

fn offsets(max: u64, initial: u64, bits: u32) -> nmreq_opt_offsets {
    nmreq_opt_offsets {
        nro_opt: option(NETMAP_REQ_OPT_OFFSETS),
        nro_max_offset: max,
        nro_initial_offset: initial,
        nro_offset_bits: bits,
        ..Default::default()
    }
}

#[test]
fn offsets_out_of_their_bounds_are_refused_and_nothing_stays_bound() {
    let _turn = alone();
    for (max, initial, bits) in [(2049, 0, 0), (256, 0, 8), (10, 11, 0), (0, 0, 65)] {
        let fd = Netmap::open();
        let mut opt = offsets(max, initial, bits);
        assert_eq!(fd.register("ofs{1", 0, at(&mut opt)).map(drop), Err(libc::EINVAL), "{max} {initial} {bits}");
        assert_eq!(opt.nro_opt.nro_status, libc::EINVAL as u32);
        fd.register("ofs{1", 0, 0).unwrap();
    }
}

#[test]
fn a_ring_in_use_grants_no_larger_offsets_and_tells_its_own() {
    let _turn = alone();
    let (a, b) = (Netmap::open(), Netmap::open());
    let mut opt = offsets(100, 20, 16);
    let reg = a.register("ofs{1", 0, at(&mut opt)).unwrap();
    let ring = a.map(&reg).tx(0);
    assert_eq!((ring.get().offset_mask, ring.slot(5).ptr), (0xffff, 20));
    let mut more = offsets(101, 0, 16);
    assert_eq!(b.register("ofs{1", 0, at(&mut more)).map(drop), Err(libc::EBUSY));
    let mut less = offsets(50, 30, 8);
    b.register("ofs{1", 0, at(&mut less)).unwrap();
    assert_eq!((less.nro_opt.nro_status, less.nro_max_offset), (0, 100));
    assert_eq!(ring.slot(5).ptr, 20, "slots in use keep their offset");
}

#[test]
fn no_alignment_of_offsets_is_needed() {
    let _turn = alone();
    let fd = Netmap::open();
    let mut opt = nmreq_opt_offsets { nro_tx_align: 64, ..offsets(100, 0, 0) };
    let reg = fd.register("ofs{1", 0, at(&mut opt)).unwrap();
    assert_eq!((opt.nro_opt.nro_status, fd.map(&reg).tx(0).get().buf_align), (0, 0));
}

#[test]
fn a_pipe_carries_offsets_and_honours_those_of_the_receiver() {
    let _turn = alone();
    for wanted in [0, 64] {
        let (a, b) = (Netmap::open(), Netmap::open());
        let reg_a = a.register("ofs{1", 0, at(&mut offsets(200, 10, 0))).unwrap();
        let reg_b = b.register("ofs}1", 0, at(&mut offsets(200, wanted, 0))).unwrap();
        let (tx, rx) = (a.map(&reg_a).tx(0), b.map(&reg_b).rx(0));
        tx.slot(0).len = 60;
        tx.data(0, 10, 60).copy_from_slice(&[7; 60]);
        tx.give(1);
        a.ioctl(NIOCTXSYNC, 0).unwrap();
        b.ioctl(NIOCRXSYNC, 0).unwrap();
        assert_eq!(rx.get().tail, 1);
        let at = rx.slot(0).ptr as usize & rx.get().offset_mask as usize;
        assert_eq!((at, &*rx.data(0, at, 60)), (10.max(wanted as usize), &[7; 60][..]));
    }
}

#[test]
fn a_switch_takes_packets_from_offsets_and_puts_them_behind_those_of_the_receiver() {
    let _turn = alone();
    for (mine, theirs) in [(0, 64), (37, 0), (37, 64), (500, 129)] {
        let (a, b) = (Netmap::open(), Netmap::open());
        let mut opts = [mine, theirs].map(|first| offsets(1000, first, 16));
        let reg_a = a.register("valeofs:a", 0, if mine == 0 { 0 } else { at(&mut opts[0]) }).unwrap();
        let reg_b = b.register("valeofs:b", 0, if theirs == 0 { 0 } else { at(&mut opts[1]) }).unwrap();
        let (tx, rx) = (a.map(&reg_a).tx(0), b.map(&reg_b).rx(0));
        // The last one fits behind the receiver's offset, and not by a byte more.
        let lengths = [60, 1025, 2048 - mine as usize - theirs as usize, 2048 - theirs as usize + 1];
        let fitting = lengths.iter().filter(|&&len| len <= 2048 - mine.max(theirs) as usize).count() as u32;
        for (i, &len) in lengths.iter().enumerate() {
            tx.slot(i as u32).len = len as u16;
            if mine as usize + len <= 2048 {
                tx.data(i as u32, mine as usize, len).fill(0xf0 | i as u8 | 1);
            }
        }
        tx.give(4);
        a.ioctl(NIOCTXSYNC, 0).unwrap();
        b.ioctl(NIOCRXSYNC, 0).unwrap();
        let mut seen = 0;
        for i in 0..rx.get().tail {
            let slot = *rx.slot(i);
            if slot.len == 0 {
                continue;
            }
            assert_eq!(slot.ptr & 0xffff, theirs, "packet {i}");
            assert_eq!(slot.len as usize, lengths[i as usize]);
            assert!(
                rx.data(i, theirs as usize, slot.len.into()).iter().all(|&b| b == 0xf0 | i as u8 | 1),
                "packet {i}"
            );
            seen += 1;
        }
        assert_eq!(seen, fitting, "{mine} {theirs}");
    }
}

#[test]
fn a_copy_monitor_finds_packets_at_their_offsets_and_has_offsets_of_its_own() {
    let _turn = alone();
    let (a, tap) = (Netmap::open(), Netmap::open());
    let reg = a.register("ofs{9", 0, at(&mut offsets(200, 10, 0))).unwrap();
    let mut zero_copy = offsets(100, 30, 0);
    let refused = Netmap::open().register("ofs{9", NR_MONITOR_TX | NR_ZCOPY_MON, at(&mut zero_copy)).map(drop);
    assert_eq!(refused, Err(libc::EOPNOTSUPP), "a zero-copy monitor gets packets where they lie");
    let reg_tap = tap.register("ofs{9", NR_MONITOR_TX, at(&mut offsets(100, 30, 0))).unwrap();
    let (tx, rx) = (a.map(&reg).tx(0), tap.map(&reg_tap).rx(0));
    tx.slot(0).len = 2038;
    tx.data(0, 10, 2038).fill(7);
    tx.give(1);
    a.ioctl(NIOCTXSYNC, 0).unwrap();
    tap.ioctl(NIOCRXSYNC, 0).unwrap();
    assert_eq!((rx.get().tail, rx.slot(0).ptr, rx.slot(0).len), (1, 30, 2018), "cut to the room behind the offset");
    assert!(rx.data(0, 30, 2018).iter().all(|&b| b == 7));
}

/// Frames of `lengths` from one end of a wire, in pieces that begin at all sorts of offsets, to the other, where slots ask for
/// the offsets of `places` in turn and `max` is the largest; every piece leaves room for that, and every frame is the same.
fn a_nic_receives_behind(mtu: u32, max: u64, places: &[u64], lengths: &[usize]) {
    let pair = Veth::new().mtu(mtu).build();
    let (a, b) = (Netmap::open(), Netmap::open());
    let reg_a = pair.a.ns.run(|| a.register("veth0", 0, at(&mut offsets(200, 100, 0)))).unwrap();
    let reg_b = pair.b.ns.run(|| b.register("veth1", 0, at(&mut offsets(max, places[0], 16)))).unwrap();
    let (tx, rx) = (a.map(&reg_a).tx(0), b.map(&reg_b).rx(0));
    let (n, m) = (tx.get().num_slots, rx.get().num_slots);
    let (mut asked, mut turn) = (vec![places[0]; m as usize], 0);
    for sent in 0..3 * n {
        let mut frame: Vec<u8> =
            (0..lengths[sent as usize % lengths.len()]).map(|b| (b * 7 + sent as usize) as u8).collect();
        frame[..14].copy_from_slice(&[255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
        let mut head = tx.get().head;
        let pieces = frame.chunks(1800);
        for (k, piece) in pieces.clone().enumerate() {
            let offset = (sent as usize * 7 + k) % 200;
            let flags = if k + 1 < pieces.len() { NS_MOREFRAG } else { 0 };
            *tx.slot(head) = netmap_slot { len: piece.len() as u16, flags, ptr: offset as u64, ..*tx.slot(head) };
            tx.data(head, offset, piece.len()).copy_from_slice(piece);
            head = (head + 1) % n;
        }
        tx.give(head);
        let (mut whole, mut there) = (Vec::new(), false);
        let arrived = wait_until(Duration::from_secs(5), || {
            a.ioctl(NIOCTXSYNC, 0).unwrap();
            b.ioctl(NIOCRXSYNC, 0).unwrap();
            while rx.get().head != rx.get().tail {
                let i = rx.get().head;
                let slot = *rx.slot(i);
                assert_eq!(slot.ptr, asked[i as usize]);
                assert!(u64::from(slot.len) <= 2048 - max, "a piece of {} bytes", slot.len);
                whole.extend_from_slice(rx.data(i, slot.ptr as usize, slot.len.into()));
                if slot.flags & NS_MOREFRAG == 0 {
                    // The host speaks too.
                    if whole[12..14] == [0x88, 0xb5] {
                        assert!(whole == frame, "frame {sent} of {} bytes, {} came", frame.len(), whole.len());
                        there = true;
                    }
                    whole.clear();
                }
                turn += 1;
                asked[i as usize] = places[turn % places.len()];
                rx.slot(i).ptr = asked[i as usize];
                rx.give((i + 1) % m);
            }
            there && (tx.get().tail + 1) % n == tx.get().head
        });
        assert!(arrived, "frame {sent} of {} bytes", frame.len());
    }
}

#[test]
fn a_nic_sends_from_offsets_and_receives_behind_them() {
    needs_root!();
    let _turn = alone();
    let small: Vec<usize> = (0..97).map(|i| 60 + 15 * i).collect();
    for (max, places) in [(64, &[64][..]), (200, &[0]), (530, &[64, 0, 530, 529, 5])] {
        a_nic_receives_behind(1500, max, places, &small);
    }
}

#[test]
fn what_does_not_fit_behind_the_largest_offset_goes_on_in_the_next_slot() {
    needs_root!();
    since!((6, 6), "frames of several buffers");
    let _turn = alone();
    a_nic_receives_behind(1500, 1000, &[1000, 64], &[60, 1048, 1049, 1514]);
    a_nic_receives_behind(1500, 1536, &[1536], &[60, 512, 513, 1514]);
    a_nic_receives_behind(9000, 200, &[200, 64], &[60, 1848, 1849, 3696, 3697, 9014]);
}

#[test]
fn a_nic_has_no_offsets_behind_which_there_is_no_room_and_no_buffers_that_slots_share() {
    needs_root!();
    let _turn = alone();
    let pair = Veth::new().queues(2).build();
    let register = |ring: u16, flags: u64, opt: nmreq_opt_offsets| {
        let (fd, mut opt) = (Netmap::open(), opt);
        let body = nmreq_register {
            nr_mode: NR_REG_ONE_NIC,
            nr_ringid: ring,
            nr_flags: flags,
            nr_tx_slots: 64,
            nr_rx_slots: 64,
            ..Default::default()
        };
        pair.a.ns.run(|| fd.register_as("veth0", body, at(&mut opt))).map(|_| fd)
    };
    let shared = nmreq_opt_offsets { nro_min_gap: 512, ..offsets(200, 0, 0) };
    assert_eq!(register(0, 0, shared).err(), Some(libc::EOPNOTSUPP), "received packets cannot share a buffer");
    for max in [1537, 2048] {
        assert_eq!(register(0, 0, offsets(max, 0, 0)).err(), Some(libc::EINVAL), "too little fits there");
    }
    drop(register(0, NR_TX_RINGS_ONLY, offsets(2048, 0, 0)).expect("what is sent can begin anywhere"));
    // The first one says where the NIC is to put what it receives.
    let first = register(0, 0, offsets(0, 0, 0)).unwrap();
    assert_eq!(register(1, 0, offsets(531, 0, 0)).err(), Some(libc::EINVAL), "1518 bytes are received in one buffer");
    drop(register(1, 0, offsets(530, 0, 0)).unwrap());
    drop(first);
    since!((6, 6), "frames of several buffers");
    let _first = register(0, 0, offsets(600, 0, 0)).unwrap();
    drop(register(1, 0, offsets(600, 0, 0)).unwrap());
    assert_eq!(register(1, 0, offsets(601, 0, 0)).err(), Some(libc::EINVAL));
}

#[test]
fn host_rings_have_offsets_both_ways_and_slots_that_share_a_buffer() {
    needs_root!();
    let _turn = alone();
    let pair = Veth::new().addresses("10.56.0.1/24", "10.56.0.2/24").build();
    let fd = Netmap::open();
    let body = nmreq_register { nr_mode: NR_REG_SW, nr_tx_slots: 16, nr_rx_slots: 16, ..Default::default() };
    let mut opt = nmreq_opt_offsets { nro_min_gap: 512, ..offsets(1536, 100, 16) };
    let reg = pair.a.ns.run(|| fd.register_as("veth0", body, at(&mut opt))).unwrap();
    assert_eq!(opt.nro_opt.nro_status, 0);
    let nifp = fd.map(&reg);
    let (tx, rx) = (nifp.tx(nifp.get().ni_tx_rings), nifp.rx(nifp.get().ni_rx_rings));
    assert_eq!((rx.get().offset_mask, rx.slot(3).ptr, tx.slot(3).ptr), (0xffff, 100, 100));
    let n = rx.get().num_slots;
    let buffers: Vec<u32> = (0..n).map(|i| rx.slot(i).buf_idx).collect();
    // What is released gets a quarter of a buffer: 512 bytes, as many as the gap.
    let mut places: Vec<(u32, u64)> = buffers.iter().map(|&idx| (idx, 100)).collect();
    let share = |i: u32| (buffers[i as usize / 4], u64::from(i % 4) * 512);
    let peer = std::net::SocketAddr::from(([10, 56, 0, 2], 9));
    let socket = pair.a.ns.run(|| std::net::UdpSocket::bind("10.56.0.1:0").unwrap());
    let neighbour = ["neigh", "replace", "10.56.0.2", "lladdr", "02:00:00:00:00:99", "dev", "veth0"];
    pair.a.command("ip").args(neighbour).run().expect_success();
    let text = |len: usize| -> Vec<u8> { (0..len).map(|b| (b * 31 + len) as u8).collect() };
    // The longer ones take two and three slots.
    for len in [10, 400, 470, 471, 900, 1400].repeat(10) {
        socket.send_to(&text(len), peer).unwrap();
        let (mut frame, mut there) = (Vec::new(), false);
        let arrived = wait_until(Duration::from_secs(10), || {
            fd.ioctl(NIOCRXSYNC, 0).unwrap();
            while rx.get().head != rx.get().tail {
                let i = rx.get().head;
                let slot = rx.slot(i);
                assert_eq!((slot.buf_idx, slot.ptr), places[i as usize]);
                assert!(slot.len <= 512, "the gap");
                frame.extend_from_slice(rx.data(i, slot.ptr as usize, slot.len.into()));
                if slot.flags & NS_MOREFRAG == 0 {
                    let whole = std::mem::take(&mut frame);
                    let ours = whole.len() > 42 && whole[23] == 17 && whole[36..38] == [0, 9];
                    there |= ours && whole[42..] == text(len);
                }
                places[i as usize] = share(i);
                (slot.buf_idx, slot.ptr, slot.flags) = (share(i).0, share(i).1, NS_BUF_CHANGED);
                rx.give((i + 1) % n);
            }
            there
        });
        assert!(arrived, "{len}");
    }
    // To the host: from the offset of the slot, and nothing that would reach beyond the buffer.
    let listener = pair.a.ns.run(|| std::net::UdpSocket::bind("10.56.0.1:7777").unwrap());
    listener.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mac: Vec<u8> = {
        let text = pair.a.command("cat").arg("/sys/class/net/veth0/address").run().expect_success().stdout;
        text.trim().split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect()
    };
    let mut out = mac;
    out.extend([2, 0, 0, 0, 0, 0x99, 8, 0, 0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0, 10, 56, 0, 2, 10, 56, 0, 1]);
    let sum: u32 = out[14..34].chunks(2).map(|p| u32::from(u16::from_be_bytes([p[0], p[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    out[24..26].copy_from_slice(&sum.to_be_bytes());
    out.extend([0x11, 0x11, 0x1e, 0x61, 0, 13, 0, 0]);
    out.extend(b"hello");
    for (i, ptr) in [(0, 1536u64), (1, 0), (2, 1001)] {
        *tx.slot(i) = netmap_slot { ptr, len: if i == 1 { 2049 } else { out.len() as u16 }, ..*tx.slot(i) };
        tx.data(i, ptr as usize, out.len()).copy_from_slice(&out);
    }
    tx.give(3);
    fd.ioctl(NIOCTXSYNC, 0).unwrap();
    for _ in 0..2 {
        let mut got = [0; 64];
        let n = listener.recv(&mut got).unwrap();
        assert_eq!(&got[..n], b"hello");
    }
}

#[test]
fn all_of_it_holds_through_netmapd_too() {
    again_through_netmapd();
}
