//! The variant of the redirect program that asks the NIC when it received a frame: part of the conformance test of loaders.

use super::{Backend, Net, OURS, Xsk};
use netmap_xdp::sys::Fd;
use netmap_xdp::sys::netdev::{Map, NetDev};
use netmap_xdp::xsk::Steering;
use netmap_xdp::xsk::program::{AttachMode, Program};
use netmap_xdp_tests::since;
use std::os::fd::{BorrowedFd, IntoRawFd};

/// How many frames of queue 0 the NIC has been asked about, and the last answer.
fn asked(program: &dyn Program) -> Option<(u64, u64)> {
    // SAFETY: the program keeps its map open.
    let map = unsafe { BorrowedFd::borrow_raw(program.stamps()?) }.try_clone_to_owned().unwrap();
    // SAFETY: the descriptor is new, and given up here.
    let map = Map::new(unsafe { Fd::from_raw(map.into_raw_fd()) }).unwrap();
    let entry = map.get(0).unwrap();
    Some((entry[1], entry[0]))
}

/// A program that is to ask the NIC.
fn stamping(loader: Backend) -> (Net, Box<dyn Program>) {
    let net = Net::new(loader);
    let mut program = loader.load(2).unwrap();
    net.inside(|| program.stamp(net.nic().ifindex)).unwrap();
    (net, program)
}

pub fn the_nic_is_asked_when_it_received_what_goes_to_a_socket(loader: Backend) {
    since!((6, 3), "times of drivers");
    let (net, mut program) = stamping(loader);
    let nic = net.nic();
    assert_eq!(net.inside(|| program.stamp(nic.ifindex)).unwrap_err().errno.0, libc::EALREADY);
    assert_eq!(asked(&*program), None, "it is not attached");
    net.attach(&mut *program, AttachMode::Native).unwrap();
    let there = net.found().expect("it is attached");
    assert_eq!((there.prog_name.as_deref(), there.prog_id), (Some("netmap_stamped"), program.id()));
    assert!(net.ping());
    assert_eq!(asked(&*program), Some((0, 0)), "what goes to the stack is not asked about");
    let socket = net.inside(|| Xsk::bind(nic.ifindex, 0));
    program.insert(0, socket.raw()).unwrap();
    assert!(!net.ping());
    let redirected = program.counters(0).unwrap().redirected;
    let (asked, _) = asked(&*program).unwrap();
    assert!(asked >= 2 && asked <= redirected, "{asked} of {redirected}");
    // Rules, and the way back to the stack, are the same.
    program.steer(Some(&Steering::parse("icmp -> host; arp -> host; default netmap").unwrap())).unwrap();
    assert!(net.ping());
    net.inside(|| drop(program));
    net.wait_gone();
}

pub fn in_generic_mode_nobody_is_asked_for_times(loader: Backend) {
    since!((6, 3), "times of drivers");
    let (net, mut program) = stamping(loader);
    net.attach(&mut *program, AttachMode::Generic).unwrap();
    assert_eq!(net.found().and_then(|x| x.prog_name).as_deref(), Some(OURS));
    assert_eq!(asked(&*program), None);
    assert!(net.ping());
    // A driver that tells no times refuses, and leaves the program as it was.
    let loopback = net.inside(|| NetDev::by_name("lo").unwrap().ifindex);
    let mut other = loader.load(1).unwrap();
    let before = other.id();
    let e = net.inside(|| other.stamp(loopback)).unwrap_err();
    assert!(e.to_string().contains("netmap_stamped"), "{e}");
    assert_eq!((other.id(), asked(&*other)), (before, None));
    net.inside(|| drop(program));
    net.wait_gone();
}
