//! Settings of how the kernel and those who sync tell each other of work: they reach the sockets, packets flow with
//! each, and what the kernel refuses is a clear error.

mod nic_common;

use netmap_xdp::xsk::Rings;
use netmap_xdp_tests::{Cmd, Daemons, Veth, needs_root, since};
use nic_common::*;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

const SLOTS: u32 = 256;

fn option(fd: RawFd, name: i32) -> Option<i32> {
    let (mut value, mut len) = (0i32, 4);
    // SAFETY: the kernel writes at most `len` bytes.
    let done = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len) };
    (done == 0).then_some(value)
}

/// The AF_XDP sockets of this process.
fn sockets() -> Vec<RawFd> {
    let names = std::fs::read_dir("/proc/self/fd").unwrap();
    let all = names.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|&fd| option(fd, libc::SO_DOMAIN) == Some(libc::AF_XDP)).collect()
}

/// Opens both ends of a pair, carries frames both ways, and has a look at the sockets meanwhile.
fn works(look: impl Fn(RawFd)) {
    let pair = Veth::new().build();
    let name = format!("netmap:{{}}@conf:slots={SLOTS}");
    let (mut a, mut b) = (open(&pair.a, &name), open(&pair.b, &name));
    let all = sockets();
    assert!(all.len() >= 2, "{all:?}");
    all.into_iter().for_each(look);
    carry(&mut a, 0, &mut b, 0, &frames(2000, 60, 1514));
    carry(&mut b, 0, &mut a, 0, &frames(2000, 60, 1514));
    drop((a, b));
    assert_all_buffers_returned();
}

/// What can be asked for; the budget cannot.
fn busy(fd: RawFd) -> [Option<i32>; 2] {
    [libc::SO_PREFER_BUSY_POLL, libc::SO_BUSY_POLL].map(|name| option(fd, name))
}

/// Whether the kernel says in the transmit ring that it waits to be told: with copies it does so whatever it was bound with.
fn says_so(fd: RawFd) -> bool {
    // SAFETY: the descriptor is open while its port is.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    Rings::of(&fd, SLOTS, SLOTS).unwrap().tx().unwrap().0.needs_wakeup()
}

#[test]
fn unless_asked_for_sockets_are_not_polled() {
    alone!();
    works(|fd| {
        assert_eq!(busy(fd), [Some(0), Some(0)]);
        assert!(says_so(fd.as_raw_fd()));
    });
}

#[test]
fn busy_polling_reaches_every_socket() {
    alone!("NETMAP_XDP_BUSY_POLL" = "20", "NETMAP_XDP_BUSY_BUDGET" = "32");
    works(|fd| assert_eq!(busy(fd), [Some(1), Some(20)]));
}

#[test]
fn a_driver_that_is_always_told_sends_in_native_mode() {
    alone!("NETMAP_XDP_WAKEUP" = "always", "NETMAP_XDP_MODE" = "native");
    works(|fd| assert!(says_so(fd)));
}

#[test]
fn a_driver_that_is_always_told_sends_in_generic_mode() {
    alone!("NETMAP_XDP_WAKEUP" = "always", "NETMAP_XDP_MODE" = "generic");
    works(|fd| assert!(says_so(fd)));
}

#[test]
fn a_small_transmit_budget_sends_all_the_same() {
    alone!("NETMAP_XDP_TX_BUDGET" = "32");
    since!((6, 17), "XDP_MAX_TX_SKB_BUDGET");
    works(|_| ());
}

#[test]
fn a_value_that_the_kernel_refuses_is_an_error_that_names_the_setting() {
    alone!("NETMAP_XDP_TX_BUDGET" = "4096");
    let pair = Veth::new().build();
    let Err(e) = try_open(&pair.a, "netmap:{}@conf:slots=256") else { panic!("4096 of 256 slots") };
    let text = e.to_string();
    for part in ["XDP_MAX_TX_SKB_BUDGET", "NETMAP_XDP_TX_BUDGET", "slots", pair.a.dev] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_all_buffers_returned();
    assert_eq!(pair.a.ns.xdp(pair.a.dev), None);
}

/// In the process that another test starts: its port is netmapd's.
#[test]
fn a_socket_of_netmapd_has_what_its_file_says() {
    const INSIDE: &str = "NMX_POLLING_DEV";
    if let Ok(dev) = std::env::var(INSIDE) {
        let port = netmap_xdp::api::Port::open(&format!("netmap:{dev}")).unwrap();
        assert_eq!(sockets().into_iter().map(busy).collect::<Vec<_>>(), [[Some(1), Some(40)]]);
        drop(port);
        return;
    }
    needs_root!();
    let (pair, daemons) = (Veth::new().build(), Daemons::new());
    let file = daemons.dir().join("netmapd.conf");
    std::fs::write(&file, "busy-poll = 40\nbusy-budget = 16\n").unwrap();
    let _daemon = daemons.start(&["--config", &file.to_string_lossy()]);
    let here = std::env::current_exe().unwrap();
    let name = "a_socket_of_netmapd_has_what_its_file_says";
    let inside: Cmd = pair.a.command(here).args(["--exact", name, "--nocapture"]).env(INSIDE, pair.a.dev);
    let done = daemons.with(inside, "daemon").run().expect_success();
    assert!(done.stdout.contains("1 passed"), "{done}");
}
