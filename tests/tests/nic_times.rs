//! `ts` of receive rings: the time of the sync, or what the NIC says, where it says something.
//!
//! A veth pair is asked and has nothing to tell, so what a NIC would have told is put where the XDP program would put it.

mod nic_common;

use netmap_xdp::api::{Interest, Port};
use netmap_xdp::sys::netdev::{Map, bpf};
use netmap_xdp::sys::{Fd, duplicate};
use netmap_xdp_tests::{End, Pair, Veth};
use nic_common::*;
use std::os::fd::RawFd;
use std::time::{Duration, SystemTime};

const STAMPED: &str = "netmap_stamped";

/// The map of the NIC's times, if this process has one.
fn times() -> Option<Map> {
    let names = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let maps = names.filter(|e| std::fs::read_link(e.path()).is_ok_and(|to| to.to_string_lossy().contains("bpf-map")));
    let mut fds = maps.filter_map(|e| e.file_name().to_str()?.parse::<RawFd>().ok());
    let found = fds.find(|&fd| bpf::map_name(fd).is_ok_and(|name| name == "stamps"))?;
    let copy: Fd = duplicate(found).unwrap();
    Some(Map::new(copy).unwrap())
}

/// The time that receive ring `i` tells.
fn told(port: &mut Port, i: usize) -> Duration {
    let (seconds, microseconds) = port.rx(i).timestamp();
    Duration::new(seconds as u64, microseconds as u32 * 1000)
}

/// The XDP program at an end.
fn program(end: &End) -> Option<String> {
    bpf::program_name(end.xdp()?.id)
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

fn pair() -> (Pair, Port, Port) {
    let pair = Veth::new().queues(2).build();
    let (a, b) = (open(&pair.a, "netmap:{}"), open(&pair.b, "netmap:{}"));
    (pair, a, b)
}

#[test]
fn rings_tell_the_nics_time_of_their_queue_once_it_told_one() {
    alone!("NETMAP_XDP_TIMESTAMPS" = "hardware", "NETMAP_XDP_MODE" = "native");
    netmap_xdp_tests::since!((6, 3), "times of drivers");
    let (pair, mut a, mut b) = pair();
    assert_eq!(program(&pair.b), Some(STAMPED.into()));
    // Two ports, two maps: that of b is the one that counts its frames.
    let before = now();
    carry(&mut a, 0, &mut b, 0, &frames(300, 60, 1514));
    carry(&mut a, 1, &mut b, 1, &frames(300, 60, 1514));
    let after = told(&mut b, 0);
    assert!(after + Duration::from_micros(1) >= before && after <= now(), "{before:?} {after:?}");
    drop(a);
    let times = times().expect("there is a map");
    let asked = |queue: u32| times.get(queue).unwrap()[1];
    assert!(asked(0) >= 300 && asked(1) >= 300, "{} {}", asked(0), asked(1));
    let (then, later) = (1_600_000_000_123_456_000u64, 1_600_000_001_000_001_000u64);
    times.set(1, &[then.to_ne_bytes(), [0; 8]].concat()).unwrap();
    b.sync_rx().unwrap();
    assert_eq!(told(&mut b, 1), Duration::from_nanos(then));
    assert!(told(&mut b, 0) >= before, "queue 0 was told nothing");
    times.set(1, &[later.to_ne_bytes(), [0; 8]].concat()).unwrap();
    assert!(!b.wait(Interest::READ, Some(Duration::ZERO)).unwrap().error);
    assert_eq!(told(&mut b, 1), Duration::from_nanos(later));
    drop(b);
    assert_all_buffers_returned();
    assert_eq!(program(&pair.b), None);
}

#[test]
fn in_generic_mode_rings_tell_the_time_of_the_sync_whatever_was_asked_for() {
    alone!("NETMAP_XDP_TIMESTAMPS" = "hardware", "NETMAP_XDP_MODE" = "generic");
    let (pair, mut a, mut b) = pair();
    assert_ne!(program(&pair.b), Some(STAMPED.into()));
    let before = now();
    carry(&mut a, 0, &mut b, 0, &frames(300, 60, 1514));
    let after = told(&mut b, 0);
    assert!(after + Duration::from_micros(1) >= before && after <= now(), "{before:?} {after:?}");
}

#[test]
fn the_usual_program_asks_nobody() {
    alone!("NETMAP_XDP_MODE" = "native");
    let (pair, mut a, mut b) = pair();
    assert_ne!(program(&pair.b), Some(STAMPED.into()));
    carry(&mut a, 0, &mut b, 0, &frames(100, 60, 1514));
    drop((a, b));
    assert_all_buffers_returned();
}
