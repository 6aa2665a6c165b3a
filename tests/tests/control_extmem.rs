//! Memory of the program as a region: what is refused, who meets whom in it, and packets that lie in it.

mod control_common;

use control_common::*;
use netmap_xdp::abi::*;
use netmap_xdp::client;
use netmap_xdp_tests::{Veth, needs_root, skip, wait_until};
use std::time::Duration;

const SIZE: usize = 8 << 20;

fn extmem(at: usize) -> nmreq_opt_extmem {
    let nro_info = nmreq_pools_info { nr_memsize: SIZE as u64, ..Default::default() };
    nmreq_opt_extmem { nro_opt: option(NETMAP_REQ_OPT_EXTMEM), nro_usrptr: at as u64, nro_info }
}

fn unmap(at: usize) {
    // SAFETY: a mapping of this test.
    unsafe { libc::munmap(at as *mut _, SIZE) };
}

#[test]
fn memory_that_cannot_be_a_region_is_refused() {
    let _turn = alone();
    let (shared, sealed) = (memory(2 * SIZE, libc::MAP_SHARED), memory(SIZE, libc::MAP_SHARED));
    // SAFETY: mappings of this test.
    unsafe {
        libc::mprotect(sealed as *mut _, SIZE, libc::PROT_READ);
        libc::mprotect((shared + SIZE) as *mut _, SIZE, libc::PROT_NONE);
    }
    let good = extmem(shared);
    let info = |change: fn(&mut nmreq_pools_info)| {
        let mut opt = good;
        change(&mut opt.nro_info);
        opt
    };
    for (mut opt, errno) in [
        (extmem(0x1000), libc::EFAULT),
        (extmem(sealed), libc::EOPNOTSUPP),
        (extmem(shared + 64), libc::EOPNOTSUPP),
        (info(|i| i.nr_memsize <<= 20), libc::EOPNOTSUPP),
        (info(|i| i.nr_memsize = 4096), libc::ENOMEM),
        (info(|i| i.nr_ring_pool_objsize = 1 << 20), libc::EINVAL),
        (info(|i| i.nr_buf_pool_objsize = 65537), libc::EINVAL),
    ] {
        let fd = Netmap::open();
        assert_eq!(fd.register("ext{1", 0, at(&mut opt)).map(drop), Err(errno), "{opt:x?}");
        assert_eq!(opt.nro_opt.nro_status, errno as u32);
        fd.register("ext{1", 0, 0).unwrap();
    }
    // SAFETY: a mapping of this test.
    unsafe { libc::munmap(shared as *mut _, 2 * SIZE) };
    unmap(sealed);
}

#[test]
fn a_pipe_lives_in_the_programs_memory_even_after_the_program_unmapped_it() {
    let _turn = alone();
    let (shared, a, b) = (memory(SIZE, libc::MAP_SHARED), Netmap::open(), Netmap::open());
    let mut opt = extmem(shared);
    let reg = a.register("ext{1", 0, at(&mut opt)).unwrap();
    assert_eq!((opt.nro_opt.nro_status, opt.nro_info.nr_memsize), (0, SIZE as u64));
    assert_eq!((opt.nro_info.nr_buf_pool_objsize, opt.nro_info.nr_ring_pool_objtotal), (2048, 4));
    assert!(reg.nr_mem_id > 1 && reg.nr_memsize == SIZE as u64);
    let nowhere = client::mmap_target(a.0, SIZE, libc::MAP_SHARED, 0).unwrap().map_err(|e| e.0);
    assert_eq!(nowhere, Err(libc::EINVAL), "the program has its own pointer");
    // The other end joins by asking for nothing, by the id, and not by another id.
    let body = nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_mem_id: 1, ..Default::default() };
    assert_eq!(Netmap::open().register_as("ext}1", body, 0).map(drop), Err(libc::EBUSY));
    let reg_b = b.register("ext}1", 0, 0).unwrap();
    assert_eq!(reg_b.nr_mem_id, reg.nr_mem_id);
    let (nif_a, nif_b) = (Nifp(shared + reg.nr_offset as usize), Nifp(shared + reg_b.nr_offset as usize));
    assert_eq!(nif_a.get().ni_flags, NI_PRIV_MEM);
    let (tx, rx) = (nif_a.tx(0), nif_b.rx(0));
    tx.slot(0).len = 100;
    tx.data(0, 0, 100).copy_from_slice(&[9; 100]);
    tx.give(1);
    a.ioctl(NIOCTXSYNC, 0).unwrap();
    b.ioctl(NIOCRXSYNC, 0).unwrap();
    assert_eq!((rx.get().tail, &*rx.data(0, 0, 100)), (1, &[9; 100][..]));
    // The same memory again is the same region.
    let c = Netmap::open();
    let reg_c = c.register("ext{2", 0, at(&mut extmem(shared))).unwrap();
    assert_eq!(reg_c.nr_mem_id, reg.nr_mem_id);
    unmap(shared);
    a.ioctl(NIOCTXSYNC, 0).unwrap();
    drop((a, b, c));
    let body = nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_mem_id: reg.nr_mem_id, ..Default::default() };
    assert_eq!(Netmap::open().register_as("ext{1", body, 0).map(drop), Err(libc::EINVAL), "gone with its last port");
}

/// Sends a packet from one end of a pipe that lies in memory at `at` to the other.
fn cross(at: usize, [a, b]: [(&Netmap, &nmreq_register); 2]) {
    let (tx, rx) = (Nifp(at + a.1.nr_offset as usize).tx(0), Nifp(at + b.1.nr_offset as usize).rx(0));
    let i = tx.get().head;
    tx.slot(i).len = 100;
    tx.data(i, 0, 100).fill(i as u8 + 1);
    tx.give((i + 1) % tx.get().num_slots);
    a.0.ioctl(NIOCTXSYNC, 0).unwrap();
    b.0.ioctl(NIOCRXSYNC, 0).unwrap();
    let got = rx.get().head;
    assert_eq!((rx.get().tail, &*rx.data(got, 0, 100)), ((i + 1) % 64, &[i as u8 + 1; 100][..]));
    rx.give((got + 1) % rx.get().num_slots);
}

#[test]
fn private_memory_is_made_shared_in_its_place() {
    let _turn = alone();
    let private = memory(SIZE + 8192, libc::MAP_PRIVATE);
    let place = private + 4096;
    // SAFETY: memory of this test, on both sides of the region.
    unsafe {
        (private as *mut u8).write(1);
        ((place + SIZE) as *mut u8).write(2);
    }
    let (a, b) = (Netmap::open(), Netmap::open());
    let reg_a = a.register("ext{1", 0, at(&mut extmem(place))).unwrap();
    let reg_b = b.register("ext}1", 0, at(&mut extmem(place))).unwrap();
    assert_eq!(reg_a.nr_mem_id, reg_b.nr_mem_id, "the same memory again is the same region");
    cross(place, [(&a, &reg_a), (&b, &reg_b)]);
    cross(place, [(&a, &reg_a), (&b, &reg_b)]);
    // SAFETY: as above.
    unsafe {
        assert_eq!(((private as *mut u8).read(), ((place + SIZE) as *mut u8).read()), (1, 2));
        libc::munmap(private as *mut _, SIZE + 8192);
    }
}

/// Huge pages that are free while this lives; as many as there were before are left.
struct HugePages(Option<String>);

impl HugePages {
    const COUNT: &str = "/proc/sys/vm/nr_hugepages";

    fn free() -> u64 {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap();
        let line = text.lines().find(|l| l.starts_with("HugePages_Free:"));
        line.and_then(|l| l.split_whitespace().nth(1)).map_or(0, |n| n.parse().unwrap())
    }

    /// `n` of them, reserved if need be and possible.
    fn reserve(n: u64) -> Option<HugePages> {
        if HugePages::free() >= n {
            return Some(HugePages(None));
        }
        let before = std::fs::read_to_string(HugePages::COUNT).ok()?;
        let count = before.trim().parse::<u64>().ok()? + n - HugePages::free();
        std::fs::write(HugePages::COUNT, count.to_string()).ok()?;
        let pages = HugePages(Some(before));
        (HugePages::free() >= n).then_some(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = std::fs::write(HugePages::COUNT, before);
        }
    }
}

#[test]
fn huge_pages_shared_or_private_carry_pipes_and_nics() {
    needs_root!();
    let _turn = alone();
    // As many again are needed while private ones become shared.
    let huge = 3 * SIZE as u64 / (2 << 20);
    let Some(_pages) = HugePages::reserve(huge) else { skip!("the kernel gives no {huge} huge pages") };
    let pair = Veth::new().build();
    for sharing in [libc::MAP_SHARED, libc::MAP_PRIVATE] {
        let place = memory(SIZE, sharing | libc::MAP_HUGETLB);
        let (a, b, nic) = (Netmap::open(), Netmap::open(), Netmap::open());
        let reg_a = a.register("huge{1", 0, at(&mut extmem(place))).unwrap();
        let reg_b = b.register("huge}1", 0, at(&mut extmem(place))).unwrap();
        let body = nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_tx_slots: 64, nr_rx_slots: 64, ..Default::default() };
        let reg_nic = pair.a.ns.run(|| nic.register_as("veth0", body, at(&mut extmem(place)))).unwrap();
        assert_eq!([reg_b.nr_mem_id, reg_nic.nr_mem_id], [reg_a.nr_mem_id; 2]);
        for _ in 0..100 {
            cross(place, [(&a, &reg_a), (&b, &reg_b)]);
        }
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let start = format!("{place:x}-");
        let mapping = maps.split_once(&start).map(|(_, rest)| rest).expect("it is still mapped");
        let size = mapping.lines().find(|l| l.starts_with("KernelPageSize:")).unwrap();
        assert_eq!(size.split_whitespace().nth(1), Some("2048"), "still huge pages: {size}");
        drop((a, b, nic));
        unmap(place);
    }
    pair.assert_no_xdp();
}

#[test]
fn a_switch_delivers_into_the_memory_of_a_program() {
    let _turn = alone();
    let (shared, a, b) = (memory(SIZE, libc::MAP_SHARED), Netmap::open(), Netmap::open());
    let reg_a = a.register("valeext:a", 0, 0).unwrap();
    let reg_b = b.register("valeext:b", 0, at(&mut extmem(shared))).unwrap();
    assert_ne!(reg_a.nr_mem_id, reg_b.nr_mem_id);
    let (tx, rx) = (a.map(&reg_a).tx(0), Nifp(shared + reg_b.nr_offset as usize).rx(0));
    tx.slot(0).len = 100;
    tx.data(0, 0, 100).fill(0xff);
    tx.give(1);
    a.ioctl(NIOCTXSYNC, 0).unwrap();
    b.ioctl(NIOCRXSYNC, 0).unwrap();
    assert_eq!((rx.get().tail, &*rx.data(0, 0, 100)), (1, &[0xff; 100][..]));
    drop((a, b));
    unmap(shared);
}

#[test]
fn rings_that_do_not_fit_are_refused_and_the_region_is_given_up() {
    let _turn = alone();
    let shared = memory(SIZE, libc::MAP_SHARED);
    let body = nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_tx_rings: 100, nr_rx_rings: 100, ..Default::default() };
    let fd = Netmap::open();
    assert_eq!(fd.register_as("ext{1", body, at(&mut extmem(shared))).map(drop), Err(libc::ENOMEM));
    fd.register("ext{1", 0, at(&mut extmem(shared))).unwrap();
    unmap(shared);
}

#[test]
fn a_nic_works_in_the_programs_memory() {
    needs_root!();
    let _turn = alone();
    let pair = Veth::new().build();
    let (shared, a, b) = (memory(SIZE, libc::MAP_SHARED), Netmap::open(), Netmap::open());
    let reg_a = pair.a.ns.run(|| a.register("veth0", 0, at(&mut extmem(shared)))).unwrap();
    let reg_b = pair.b.ns.run(|| b.register("veth1", 0, at(&mut extmem(shared)))).unwrap();
    assert_eq!(reg_a.nr_mem_id, reg_b.nr_mem_id);
    let tx = Nifp(shared + reg_a.nr_offset as usize).tx(0);
    let rx = Nifp(shared + reg_b.nr_offset as usize).rx(0);
    let n = tx.get().num_slots;
    let mut got = 0;
    for sent in 0..500u32 {
        let i = sent % n;
        let mut frame = [0xff; 60];
        frame[12..18].copy_from_slice(&[0x88, 0xb5, 3, 4, sent as u8, (sent >> 8) as u8]);
        tx.slot(i).len = 60;
        tx.data(i, 0, 60).copy_from_slice(&frame);
        tx.give((i + 1) % n);
        let arrived = wait_until(Duration::from_secs(5), || {
            a.ioctl(NIOCTXSYNC, 0).unwrap();
            b.ioctl(NIOCRXSYNC, 0).unwrap();
            while rx.get().head != rx.get().tail {
                let at = rx.get().head;
                got += u32::from(rx.data(at, 0, 60) == frame);
                rx.give((at + 1) % rx.get().num_slots);
            }
            got == sent + 1
        });
        assert!(arrived, "packet {sent}: {got} arrived");
    }
    drop((a, b));
    pair.assert_no_xdp();
    unmap(shared);
}

#[test]
fn all_of_it_holds_through_netmapd_too() {
    again_through_netmapd();
}
