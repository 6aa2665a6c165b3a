//! CSB and sync loop: what is refused and why, and packets that cross while the program makes no sync of its own.

mod control_common;

use control_common::*;
use netmap_xdp::abi::*;
use netmap_xdp::api::Port;
use netmap_xdp_tests::wait_until;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

const SECONDS: Duration = Duration::from_secs(10);

/// A CSB for two rings, aligned as it must be.
#[repr(C, align(64))]
struct Csb {
    atok: [nm_csb_atok; 2],
    ktoa: [nm_csb_ktoa; 2],
}

impl Csb {
    fn new() -> Box<Csb> {
        Box::new(Csb { atok: Default::default(), ktoa: Default::default() })
    }

    fn option(&mut self) -> nmreq_opt_csb {
        let nro_opt = option(NETMAP_REQ_OPT_CSB);
        nmreq_opt_csb { nro_opt, csb_atok: at(&mut self.atok), csb_ktoa: at(&mut self.ktoa) }
    }
}

fn start(fd: &Netmap, sleep_us: u32, options: u64) -> Result<(), i32> {
    let mut body = nmreq_sync_kloop_start { sleep_us, ..Default::default() };
    fd.control(NETMAP_REQ_SYNC_KLOOP_START, "", at(&mut body), options)
}

fn stop(fd: &Netmap) -> Result<(), i32> {
    fd.control(NETMAP_REQ_SYNC_KLOOP_STOP, "", 0, 0)
}

fn eventfd() -> OwnedFd {
    // SAFETY: a new descriptor.
    unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_NONBLOCK)) }
}

fn kick(fd: &OwnedFd) {
    let one = 1u64;
    // SAFETY: eight bytes of a local.
    assert_eq!(unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), 8) }, 8);
}

/// The option for two rings.
#[repr(C)]
struct EventFds {
    nro_opt: nmreq_option,
    pairs: [[i32; 2]; 2],
}

impl EventFds {
    fn new(pairs: [[i32; 2]; 2]) -> EventFds {
        let nro_size = size_of::<EventFds>() as u64;
        EventFds { nro_opt: nmreq_option { nro_size, ..option(NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS) }, pairs }
    }
}

fn mode(bits: u32, next: u64) -> nmreq_opt_sync_kloop_mode {
    let nro_opt = nmreq_option { nro_next: next, ..option(NETMAP_REQ_OPT_SYNC_KLOOP_MODE) };
    nmreq_opt_sync_kloop_mode { nro_opt, mode: bits, ..Default::default() }
}

#[test]
fn a_csb_needs_exclusive_rings_alignment_and_memory() {
    let _turn = alone();
    let mut csb = Csb::new();
    let good = csb.option();
    for (flags, atok, ktoa, errno) in [
        (0, good.csb_atok, good.csb_ktoa, libc::EINVAL),
        (NR_EXCLUSIVE, good.csb_atok + 4, good.csb_ktoa, libc::EINVAL),
        (NR_EXCLUSIVE, good.csb_atok, good.csb_ktoa + 32, libc::EINVAL),
        (NR_EXCLUSIVE, 0x40, good.csb_ktoa, libc::EFAULT),
        (NR_EXCLUSIVE, good.csb_atok, 0x800, libc::EFAULT),
    ] {
        let fd = Netmap::open();
        let mut option = nmreq_opt_csb { csb_atok: atok, csb_ktoa: ktoa, ..good };
        assert_eq!(fd.register("csb{1", flags, at(&mut option)).map(drop), Err(errno), "{atok:#x} {ktoa:#x}");
        assert_eq!(option.nro_opt.nro_status, errno as u32);
        // Nothing stays bound.
        fd.register("csb{1", flags, 0).unwrap();
    }
}

#[test]
fn with_a_csb_the_ordinary_syncs_are_refused_and_cursors_stand_in_it() {
    let _turn = alone();
    let (fd, mut csb) = (Netmap::open(), Csb::new());
    let mut option = csb.option();
    option.nro_opt.nro_status = 99;
    fd.register("csb{1", NR_EXCLUSIVE, at(&mut option)).unwrap();
    assert_eq!(option.nro_opt.nro_status, 0);
    assert_eq!(fd.ioctl(NIOCTXSYNC, 0), Err(libc::EBUSY));
    assert_eq!(fd.ioctl(NIOCRXSYNC, 0), Err(libc::EBUSY));
    assert_eq!(fd.poll(libc::POLLIN | libc::POLLOUT), libc::POLLERR);
    let (tx, rx) = ((csb.atok[0], csb.ktoa[0]), (csb.atok[1], csb.ktoa[1]));
    assert_eq!((tx.0.head, tx.0.cur, tx.0.appl_need_kick, tx.0.sync_flags), (0, 0, 1, 1));
    assert_eq!((tx.1.hwcur, tx.1.hwtail, tx.1.kern_need_kick), (0, 63, 1));
    assert_eq!((rx.1.hwcur, rx.1.hwtail, rx.1.kern_need_kick), (0, 0, 1));
}

#[test]
fn csb_enable_is_judged_like_the_option() {
    let _turn = alone();
    let mut csb = Csb::new();
    let mut option = csb.option();
    let fd = Netmap::open();
    assert_eq!(fd.control(NETMAP_REQ_CSB_ENABLE, "", 0, 0), Err(libc::EINVAL), "without the option");
    assert_eq!(fd.control(NETMAP_REQ_CSB_ENABLE, "", 0, at(&mut option)), Ok(()), "not bound: no rings, nothing to do");
    fd.register("csb{1", 0, 0).unwrap();
    assert_eq!(fd.control(NETMAP_REQ_CSB_ENABLE, "", 0, at(&mut option)), Err(libc::EINVAL), "not exclusive");
    assert_eq!(option.nro_opt.nro_status, libc::EINVAL as u32);
    assert_eq!(fd.ioctl(NIOCTXSYNC, 0), Ok(0));
    drop(fd);
    let fd = Netmap::open();
    fd.register("csb{1", NR_EXCLUSIVE, 0).unwrap();
    assert_eq!(fd.control(NETMAP_REQ_CSB_ENABLE, "", 0, at(&mut option)), Ok(()));
    assert_eq!((option.nro_opt.nro_status, fd.ioctl(NIOCTXSYNC, 0)), (0, Err(libc::EBUSY)));
}

#[test]
fn the_loop_needs_a_port_a_csb_and_sound_options() {
    let _turn = alone();
    let fd = Netmap::open();
    assert_eq!(start(&fd, 0, 0), Err(libc::ENXIO));
    assert_eq!(stop(&fd), Err(libc::ENXIO));
    assert_eq!(start(&fd, 1_000_001, 0), Err(libc::EINVAL), "more than a second");
    fd.register("csb{1", NR_EXCLUSIVE, 0).unwrap();
    assert_eq!(start(&fd, 0, 0), Err(libc::EINVAL), "no CSB");
    let mut csb = Csb::new();
    fd.control(NETMAP_REQ_CSB_ENABLE, "", 0, at(&mut csb.option())).unwrap();
    let mut bits = mode(4, 0);
    assert_eq!(start(&fd, 0, at(&mut bits)), Err(libc::EINVAL), "unknown mode");
    assert_eq!(bits.nro_opt.nro_status, libc::EINVAL as u32);
    let good = eventfd();
    let file = std::fs::File::open("/dev/null").unwrap();
    let good_fd = good.as_raw_fd();
    for (pairs, bits, errno) in [
        ([[good_fd, -1], [-1, -1]], NM_OPT_SYNC_KLOOP_DIRECT_TX, libc::EINVAL),
        ([[good_fd, -1], [file.as_raw_fd(), -1]], 0, libc::EINVAL),
        ([[good_fd, file.as_raw_fd()], [good_fd, -1]], 0, libc::EINVAL),
        ([[good_fd, -1], [1_000_000, -1]], 0, libc::EBADF),
    ] {
        let mut eventfds = EventFds::new(pairs);
        let mut bits = mode(bits, at(&mut eventfds));
        assert_eq!(start(&fd, 0, at(&mut bits)), Err(errno), "{pairs:?}");
    }
    let mut short = EventFds::new([[good_fd, -1]; 2]);
    short.nro_opt.nro_size -= 8;
    assert_eq!(start(&fd, 0, at(&mut short)), Err(libc::EINVAL), "one pair for two rings");
    assert_eq!(short.nro_opt.nro_status, libc::EINVAL as u32);
    // A stop that comes first ends the loop that starts later.
    stop(&fd).unwrap();
    assert_eq!(start(&fd, 0, 0), Ok(()));
}

#[test]
fn a_second_loop_and_a_new_csb_are_refused_while_one_runs_and_close_ends_it() {
    let _turn = alone();
    let (fd, mut csb) = (Netmap::open(), Csb::new());
    let mut option = csb.option();
    fd.register("csb{1", NR_EXCLUSIVE, at(&mut option)).unwrap();
    let running = |csb: &Csb| wait_until(SECONDS, || load(&csb.ktoa[0].kern_need_kick) == 0);
    std::thread::scope(|scope| {
        let looping = scope.spawn(|| start(&fd, 100, 0));
        assert!(running(&csb));
        assert_eq!(start(&fd, 0, 0), Err(libc::EBUSY));
        assert_eq!(fd.control(NETMAP_REQ_CSB_ENABLE, "", 0, at(&mut option)), Err(libc::EBUSY));
        stop(&fd).unwrap();
        assert_eq!(looping.join().unwrap(), Ok(()));
    });
    // Again: the second run is ended by closing the descriptor.
    store(&csb.ktoa[0].kern_need_kick, 1);
    let raw = fd.0;
    std::mem::forget(fd);
    let looping = std::thread::spawn(move || {
        let fd = Netmap(raw);
        let done = start(&fd, 100, 0);
        std::mem::forget(fd);
        done
    });
    assert!(running(&csb));
    netmap_xdp::client::close(raw);
    assert_eq!(looping.join().unwrap(), Ok(()));
}

/// Sends `count` packets from a transmit ring that only the loop syncs to a receive ring that only the loop syncs.
fn cross(options: [u64; 2], signals: Option<&[[OwnedFd; 2]; 4]>) {
    const COUNT: u32 = 2000;
    let (a, b, mut csb_a, mut csb_b) = (Netmap::open(), Netmap::open(), Csb::new(), Csb::new());
    let reg_a = a.register("kloop{1", NR_EXCLUSIVE, at(&mut csb_a.option())).unwrap();
    let reg_b = b.register("kloop}1", NR_EXCLUSIVE, at(&mut csb_b.option())).unwrap();
    let (tx, rx) = (a.map(&reg_a).tx(0), b.map(&reg_b).rx(0));
    let n = tx.get().num_slots;
    let wake = |ktoa: &nm_csb_ktoa, ring: usize| {
        if let Some(signals) = signals
            && load(&ktoa.kern_need_kick) != 0
        {
            kick(&signals[ring][0]);
        }
    };
    std::thread::scope(|scope| {
        let loops = [(&a, options[0]), (&b, options[1])];
        let loops = loops.map(|(fd, options)| scope.spawn(move || start(fd, 50, options)));
        let (mut sent, mut got) = (0u32, 0u32);
        let (mut head, mut tail) = (0, 0);
        let done = wait_until(SECONDS, || {
            while sent < COUNT && head != load(&csb_a.ktoa[0].hwtail) {
                tx.data(head, 0, 4).copy_from_slice(&sent.to_ne_bytes());
                tx.slot(head).len = 60;
                head = (head + 1) % n;
                sent += 1;
            }
            store(&csb_a.atok[0].cur, head);
            store(&csb_a.atok[0].head, head);
            wake(&csb_a.ktoa[0], 0);
            let hwtail = load(&csb_b.ktoa[1].hwtail);
            while tail != hwtail {
                assert_eq!((&*rx.data(tail, 0, 4), rx.slot(tail).len), (&got.to_ne_bytes()[..], 60));
                tail = (tail + 1) % n;
                got += 1;
            }
            store(&csb_b.atok[1].cur, tail);
            store(&csb_b.atok[1].head, tail);
            wake(&csb_b.ktoa[1], 3);
            got == COUNT
        });
        stop(&a).unwrap();
        stop(&b).unwrap();
        assert!(done, "{sent} sent, {got} arrived");
        assert!(loops.into_iter().all(|l| l.join().unwrap() == Ok(())));
    });
    assert_eq!((tx.get().head, rx.get().tail), (0, 0), "the rings' own cursors are the program's");
}

#[test]
fn packets_cross_while_loops_sleep_and_look() {
    let _turn = alone();
    cross([0, 0], None);
}

#[test]
fn packets_cross_by_eventfds_in_every_mode() {
    let _turn = alone();
    for bits in [0, NM_OPT_SYNC_KLOOP_DIRECT_TX, NM_OPT_SYNC_KLOOP_DIRECT_RX, 3] {
        let signals: [[OwnedFd; 2]; 4] = std::array::from_fn(|_| [eventfd(), eventfd()]);
        let pairs = |i: usize| [i, i + 1].map(|i| [signals[i][0].as_raw_fd(), signals[i][1].as_raw_fd()]);
        let (mut of_a, mut of_b) = (EventFds::new(pairs(0)), EventFds::new(pairs(2)));
        let (mut a, mut b) = (mode(bits, at(&mut of_a)), mode(bits, at(&mut of_b)));
        cross([at(&mut a), at(&mut b)], Some(&signals));
        assert_eq!([a.nro_opt.nro_status, of_b.nro_opt.nro_status], [0, 0]);
        let mut count = [0u8; 8];
        // SAFETY: eight bytes of a local.
        let read = unsafe { libc::read(signals[3][1].as_raw_fd(), count.as_mut_ptr().cast(), 8) };
        assert_eq!(read, 8, "the receiver was notified");
    }
}

#[test]
fn a_monitor_sees_what_the_loop_moves_and_no_kick_is_lost_over_it() {
    let _turn = alone();
    const ROUNDS: u32 = 20;
    let (a, b, mut csb) = (Netmap::open(), Netmap::open(), Csb::new());
    let reg_a = a.register("watched{1", NR_EXCLUSIVE, at(&mut csb.option())).unwrap();
    let reg_b = b.register("watched}1", 0, 0).unwrap();
    let (tx, rx) = (a.map(&reg_a).tx(0), b.map(&reg_b).rx(0));
    let signals: [OwnedFd; 2] = std::array::from_fn(|_| eventfd());
    let mut eventfds = EventFds::new([[signals[0].as_raw_fd(), -1], [signals[1].as_raw_fd(), -1]]);
    std::thread::scope(|scope| {
        let options = at(&mut eventfds);
        let a = &a;
        let looping = scope.spawn(move || start(a, 0, options));
        let send = |i: u32| {
            tx.data(i, 0, 60).copy_from_slice(&[i as u8; 60]);
            tx.slot(i).len = 60;
            store(&csb.atok[0].cur, i + 1);
            store(&csb.atok[0].head, i + 1);
            if load(&csb.ktoa[0].kern_need_kick) != 0 {
                kick(&signals[0]);
            }
            wait_until(SECONDS, || b.ioctl(NIOCRXSYNC, 0) == Ok(0) && rx.get().tail == i + 1)
        };
        assert!(wait_until(SECONDS, || load(&csb.ktoa[0].kern_need_kick) != 0), "the loop sleeps");
        let done = (0..ROUNDS).all(|i| {
            // Each round finds other monitors than the last one.
            let mut monitor = Port::open("netmap:watched{1/t").unwrap();
            let sent = send(i);
            monitor.sync_rx().unwrap();
            let ring = monitor.rx(0);
            let mut seen = [0; 60];
            ring.available() == 1 && ring.slot(0).unwrap().read_at(0, &mut seen) == 60 && sent && seen == [i as u8; 60]
        });
        stop(a).unwrap();
        assert_eq!((looping.join().unwrap(), done), (Ok(()), true));
    });
}

#[test]
fn a_kick_that_the_program_forgets_costs_a_moment_and_no_packet() {
    let _turn = alone();
    let (a, b, mut csb) = (Netmap::open(), Netmap::open(), Csb::new());
    let reg_a = a.register("unkicked{1", NR_EXCLUSIVE, at(&mut csb.option())).unwrap();
    let reg_b = b.register("unkicked}1", 0, 0).unwrap();
    let (tx, rx) = (a.map(&reg_a).tx(0), b.map(&reg_b).rx(0));
    let signals: [OwnedFd; 2] = std::array::from_fn(|_| eventfd());
    let mut eventfds = EventFds::new([[signals[0].as_raw_fd(), -1], [signals[1].as_raw_fd(), -1]]);
    std::thread::scope(|scope| {
        let (options, a) = (at(&mut eventfds), &a);
        let looping = scope.spawn(move || start(a, 0, options));
        let served = (0..3).all(|i| {
            let asleep = wait_until(SECONDS, || load(&csb.ktoa[0].kern_need_kick) != 0);
            tx.slot(i).len = 60;
            store(&csb.atok[0].cur, i + 1);
            store(&csb.atok[0].head, i + 1);
            asleep && wait_until(SECONDS, || b.ioctl(NIOCRXSYNC, 0) == Ok(0) && rx.get().tail == i + 1)
        });
        stop(a).unwrap();
        assert_eq!((looping.join().unwrap(), served), (Ok(()), true));
    });
}

#[test]
fn all_of_it_holds_through_netmapd_too() {
    again_through_netmapd();
}
