//! The redirect program on veth: attached, counting, steering, and gone when its holder is.
//!
//! Each test makes two network namespaces of its own and deletes them when it ends, also by panic. It takes root; without
//! it the tests fail, they are not skipped.

mod loader_frames;
mod loader_times;

use loader_frames::*;
use loader_times::*;
use netmap_xdp::sys::netdev::{self, LinkState, NetDev};
use netmap_xdp::xsk::Steering;
use netmap_xdp::xsk::program::{self, AttachError, AttachMode, Loader, Program, XdpMode};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

const MODES: [AttachMode; 2] = [AttachMode::Native, AttachMode::Generic];
const OURS: &str = "netmap_redirect";
/// Set in the child process of the SIGKILL test: the mode to attach in, and the backend.
const HOLD: &str = "NETMAP_XDP_TEST_HOLD";

type Backend = &'static dyn Loader;

fn libbpf_loader() -> Backend {
    &netmap_xdp_libbpf::LOADER
}

/// The tests that every backend must pass, once for each.
macro_rules! conformance {
    ($($test:ident)*) => {
        mod aya { $( #[test] fn $test() { super::$test(super::program::embedded()) } )* }
        mod libbpf { $( #[test] fn $test() { super::$test(super::libbpf_loader()) } )* }
    };
}

/// As one of several XDP programs: a dispatcher where the kernel can, alone where it cannot; in both cases it works and leaves.
#[test]
fn a_chained_program_works_whether_or_not_the_kernel_can_chain() {
    for mode in MODES {
        let loader = libbpf_loader();
        let net = Net::new(loader);
        let nic = net.nic();
        let mut program = loader.load_chained(2, 20).unwrap();
        net.attach(&mut *program, mode).unwrap();
        let there = net.found().expect("something is attached");
        println!("{mode}: {there:?}, held by a link: {}", program.link_fd().is_some());
        assert!(program.link_fd().is_some() || there.prog_name.as_deref() == Some("xdp_dispatcher"));
        assert!(net.ping(), "{mode}");
        let socket = net.inside(|| Xsk::bind(nic.ifindex, 0));
        program.insert(0, socket.raw()).unwrap();
        assert!(!net.ping(), "{mode}: queue 0 is taken");
        program.steer(Some(&Steering::parse("icmp -> host; arp -> host; default netmap").unwrap())).unwrap();
        assert!(net.ping(), "{mode}: the rules leave it to the host");
        net.inside(|| drop(program));
        net.wait_gone();
    }
}

#[test]
fn chaining_leaves_a_program_alone_that_is_no_dispatcher() {
    let loader = libbpf_loader();
    let net = Net::new(loader);
    let foreign = Foreign::compile();
    ip(&format!("-n {} link set dev nic0 xdpdrv obj {} sec xdp", net.near, foreign.object.display()));
    let before = net.xdp();
    let e = net.attach(&mut *loader.load_chained(2, 20).unwrap(), AttachMode::Native).unwrap_err();
    assert_eq!(e.errno().0, libc::EBUSY, "{e}");
    assert!(e.to_string().contains("foreign_pass"), "{e}");
    assert!(!net.inside(|| loader.clean(NetDev::by_name("nic0").unwrap().ifindex).unwrap()));
    assert!(before.is_some() && net.xdp() == before);
}

#[test]
fn the_embedded_loader_says_what_chains() {
    let e = program::embedded().load_chained(1, 20).err().unwrap();
    assert_eq!(e.errno.0, libc::EOPNOTSUPP);
    assert!(e.to_string().contains("netmapd"), "{e}");
}

conformance! {
    a_queue_without_a_socket_passes_to_the_stack_and_is_counted
    a_queue_with_a_socket_is_redirected_until_it_is_removed
    wrong_queues_and_wrong_descriptors_are_errors
    the_program_leaves_with_its_last_holder
    descriptors_are_out_of_the_way_of_the_program
    a_driver_without_native_xdp_is_told_and_generic_mode_works
    jumbo_frames_do_not_stand_in_the_way_of_native_mode
    a_vanished_interface_is_no_trouble
    a_second_engine_finds_the_interface_busy
    a_foreign_program_is_named_and_stays
    a_thread_without_capabilities_is_told_which
    sigkill_of_the_holder_detaches
    rules_decide_frame_by_frame
    rules_change_while_they_are_in_use
    the_nic_is_asked_when_it_received_what_goes_to_a_socket
    in_generic_mode_nobody_is_asked_for_times
}

/// Set in the child process of a test that runs alone: its name.
const ALONE: &str = "NETMAP_XDP_TEST_ALONE";

/// Two namespaces, joined by `nic0` (two queues) in the near one and `peer0` in the far one.
struct Net {
    near: String,
    far: String,
    loader: Backend,
}

impl Net {
    fn new(loader: Backend) -> Net {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stem = format!("nmx-loader-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let net = Net { near: format!("{stem}-a"), far: format!("{stem}-b"), loader };
        for ns in [&net.near, &net.far] {
            ip(&format!("netns add {ns}"));
            ip(&format!("-n {ns} link set lo up"));
        }
        let Net { near, far, .. } = &net;
        // With one transmit queue on the far side, everything arrives on queue 0 of the near one.
        let peer = format!("peer name peer0 numrxqueues 1 numtxqueues 1 netns {far}");
        ip(&format!("-n {near} link add nic0 numrxqueues 2 numtxqueues 2 type veth {peer}"));
        for (ns, dev, address) in [(near, "nic0", "10.77.0.1/24"), (far, "peer0", "10.77.0.2/24")] {
            ip(&format!("-n {ns} address add {address} dev {dev}"));
            ip(&format!("-n {ns} link set {dev} up"));
        }
        let (nic, peer) = (within(near, || mac_of("nic0")), within(far, || mac_of("peer0")));
        ip(&format!("-n {near} neigh replace 10.77.0.2 lladdr {peer} dev nic0"));
        ip(&format!("-n {far} neigh replace 10.77.0.1 lladdr {nic} dev peer0"));
        // Frames are lost until the kernel has noticed the new carrier.
        wait_until("nic0 answers before anything is attached", || net.ping());
        net
    }

    /// Runs `f` in a thread that lives in the near namespace.
    fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        within(&self.near, f)
    }

    fn nic(&self) -> NetDev {
        self.inside(|| NetDev::by_name("nic0").unwrap())
    }

    fn attach(&self, program: &mut dyn Program, mode: AttachMode) -> Result<(), AttachError> {
        self.inside(|| program.attach(NetDev::by_name("nic0").unwrap().ifindex, "nic0", mode))
    }

    fn attached(&self, mode: AttachMode) -> Box<dyn Program> {
        let mut program = self.loader.load(2).unwrap();
        self.attach(&mut *program, mode).unwrap();
        program
    }

    /// Whether the far side gets an answer from the near one.
    fn ping(&self) -> bool {
        let args = ["netns", "exec", &self.far, "ping", "-c", "2", "-i", "0.2", "-W", "1", "10.77.0.1"];
        Command::new("ip").args(args).stdout(Stdio::null()).status().unwrap().success()
    }

    fn found(&self) -> Option<netdev::XdpAttached> {
        self.inside(|| netdev::xdp_attached(NetDev::by_name("nic0").unwrap().ifindex).unwrap())
    }

    /// Other tests fork, and their children hold copies of all descriptors until they execute something else.
    fn wait_gone(&self) {
        wait_until("the program leaves", || self.found().is_none());
        assert_eq!(self.xdp(), None);
    }

    /// What is on `nic0` while nothing changes, so that `ip` and we must agree.
    fn xdp(&self) -> Option<netdev::XdpAttached> {
        let text = ip(&format!("-n {} -d link show nic0", self.near));
        let found = self.found();
        assert_eq!(text.contains("prog/xdp"), found.is_some(), "{text}\n{found:?}");
        found
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for ns in [&self.near, &self.far] {
            let _ = Command::new("ip").args(["netns", "del", ns]).stderr(Stdio::null()).status();
        }
    }
}

fn within<T: Send>(ns: &str, f: impl FnOnce() -> T + Send) -> T {
    let body = || {
        let ns = std::fs::File::open(format!("/run/netns/{ns}")).unwrap();
        // SAFETY: setns takes integers and moves this thread only, which ends with `f`.
        let moved = unsafe { libc::setns(ns.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(moved, 0, "setns: {}", std::io::Error::last_os_error());
        f()
    };
    let done = std::thread::scope(|scope| scope.spawn(body).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn ip(args: &str) -> String {
    let done = Command::new("ip").args(args.split_whitespace()).output().expect("these tests need iproute2");
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {args}: {why}(these tests need root and network namespaces)");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn mac_of(name: &str) -> String {
    NetDev::by_name(name).unwrap().mac.map(|b| format!("{b:02x}")).join(":")
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A socket bound to a queue, with rings but no buffers: what is sent to it is dropped.
struct Xsk {
    fd: OwnedFd,
    umem: Box<Pages>,
}

#[repr(align(4096))]
struct Pages(#[expect(dead_code, reason = "the kernel's to fill")] [u8; 16 * 4096]);

impl Xsk {
    /// In the namespace of the calling thread.
    fn bind(ifindex: u32, queue: u32) -> Xsk {
        // SAFETY: socket takes integers.
        let raw = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(raw >= 0, "socket(AF_XDP): {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let xsk = Xsk { fd, umem: Box::new(Pages([0; 16 * 4096])) };
        // Address and length, then two words in each: chunk size and headroom, flags and metadata.
        let region = [&raw const *xsk.umem as u64, size_of::<Pages>() as u64, u64::from(2048u32.to_le()), 0];
        xsk.set(libc::XDP_UMEM_REG, &region);
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
            xsk.set(ring, &16u32);
        }
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_COPY,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: the address is a local of the length given.
        let bound = unsafe { libc::bind(xsk.raw(), (&raw const address).cast(), size_of_val(&address) as u32) };
        assert_eq!(bound, 0, "bind: {}", std::io::Error::last_os_error());
        xsk
    }

    fn set<T>(&self, option: libc::c_int, value: &T) {
        let len = size_of::<T>() as u32;
        // SAFETY: the value is alive for the call and has the length given.
        let done = unsafe { libc::setsockopt(self.raw(), libc::SOL_XDP, option, (value as *const T).cast(), len) };
        assert_eq!(done, 0, "setsockopt {option}: {}", std::io::Error::last_os_error());
    }

    fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[test]
fn facts_of_an_interface_follow_its_changes() {
    let net = Net::new(program::embedded());
    let mut nic = net.nic();
    assert_eq!((nic.name.as_str(), nic.mtu, nic.rx_queues, nic.tx_queues), ("nic0", 1500, 2, 2));
    assert_eq!(nic.driver.as_deref(), Some("veth"));
    assert_ne!(nic.mac, [0; 6]);
    assert!(nic.up && nic.running);

    ip(&format!("-n {} link set peer0 down", net.far));
    let state = net.inside(|| netdev::link_state(nic.ifindex).unwrap());
    assert_eq!(state, LinkState { up: true, running: false });
    ip(&format!("-n {} link set nic0 down", net.near));
    let state = net.inside(|| netdev::link_state(nic.ifindex).unwrap());
    assert_eq!(state, LinkState { up: false, running: false });

    ip(&format!("-n {} link set nic0 name other0 mtu 1400", net.near));
    net.inside(|| nic.refresh().unwrap());
    assert_eq!((nic.name.as_str(), nic.mtu, nic.up), ("other0", 1400, false));

    ip(&format!("-n {} link del other0", net.near));
    let gone = net.inside(|| nic.refresh().unwrap_err());
    assert_eq!(gone.errno.0, libc::ENODEV);
}

fn a_queue_without_a_socket_passes_to_the_stack_and_is_counted(loader: Backend) {
    for mode in MODES {
        let net = Net::new(loader);
        let program = net.attached(mode);
        assert!(net.ping(), "{mode}");
        let seen = program.counters(0).unwrap();
        assert!(seen.passed >= 2 && seen.redirected == 0, "{mode}: {seen:?}");
        assert_eq!(program.counters(1).unwrap(), Default::default(), "{mode}");
    }
}

fn a_queue_with_a_socket_is_redirected_until_it_is_removed(loader: Backend) {
    for mode in MODES {
        let net = Net::new(loader);
        let nic = net.nic();
        let mut program = net.attached(mode);
        let (first, second) = net.inside(|| (Xsk::bind(nic.ifindex, 0), Xsk::bind(nic.ifindex, 1)));

        program.insert(1, second.raw()).unwrap();
        assert!(net.ping(), "{mode}: only queue 1 is taken");

        program.insert(0, first.raw()).unwrap();
        program.insert(0, first.raw()).unwrap();
        let before = program.counters(0).unwrap();
        assert!(!net.ping(), "{mode}: queue 0 is taken");
        let after = program.counters(0).unwrap();
        assert!(after.redirected >= before.redirected + 2, "{mode}: {before:?} {after:?}");

        program.remove(0).unwrap();
        program.remove(0).unwrap();
        assert!(net.ping(), "{mode}: queue 0 is back");

        // A socket that is closed leaves by itself.
        program.insert(0, first.raw()).unwrap();
        drop(first);
        wait_until("the closed socket leaves queue 0", || net.ping());
    }
}

fn rules_decide_frame_by_frame(loader: Backend) {
    let net = Net::new(loader);
    let nic = net.nic();
    let mut program = loader.load(1).unwrap();
    let socket = net.inside(|| Xsk::bind(nic.ifindex, 0));
    program.insert(0, socket.raw()).unwrap();
    let (tcp, udp, later) = (6, 17, 0x2000 | 100);
    let vxlan = ether(&[], 0x800, &ipv4(udp, 0, 0, &ports(99, 4789)));
    let six = |e: &[(u8, Vec<u8>)]| ether(&[], 0x86dd, &ipv6(e, udp, &ports(99, 4789)));
    let all = [(0, vec![0; 6]), (60, vec![0; 14]), (43, vec![0; 22]), (51, vec![0; 10]), (60, vec![0; 6])];
    let fragment = |offset: u16| (44, [&offset.to_be_bytes()[..], &[0; 4]].concat());
    let cut = |frame: &[u8], n: usize| frame[..n].to_vec();
    /// A frame, and whether netmap gets it.
    type Case<'a> = (&'a [u8], bool);
    let table: &[(&str, &[Case])] = &[
        ("default netmap", &[(&vxlan, true), (&ether(&[], 0x806, &[0; 28]), true), (&[0; 14], true)]),
        ("default host", &[(&vxlan, false), (&[0; 14], false)]),
        (
            "udp dst port 4789 -> netmap; default host",
            &[
                (&vxlan, true),
                (&ether(&[7], 0x800, &ipv4(udp, 0, 0, &ports(99, 4789))), true),
                (&ether(&[7, 8], 0x800, &ipv4(udp, 0, 40, &ports(99, 4789))), true),
                (&ether(&[7, 8, 9], 0x800, &ipv4(udp, 0, 0, &ports(99, 4789))), false),
                (&six(&[]), true),
                (&six(&all), true),
                (&six(&[fragment(0)]), true),
                (&six(&[fragment(8 | 1)]), false),
                (&six(&vec![(60, vec![0; 6]); 7]), true),
                (&six(&vec![(60, vec![0; 6]); 8]), false),
                (&six(&[(60, vec![0; 2046]), (60, vec![0; 6])]), false),
                (&ether(&[], 0x800, &ipv4(udp, 0, 0, &ports(4789, 99))), false),
                (&ether(&[], 0x800, &ipv4(tcp, 0, 0, &ports(99, 4789))), false),
                (&ether(&[], 0x800, &ipv4(udp, 0x2000, 0, &ports(99, 4789))), true),
                (&ether(&[], 0x800, &ipv4(udp, later, 0, &ports(99, 4789))), false),
                // Not whole: no ports in the frame, or only behind the packet's own end.
                (&cut(&vxlan, 37), false),
                (&cut(&vxlan, 38), true),
                (&ether(&[], 0x800, &[ipv4(udp, 0, 0, &[]), ports(99, 4789)].concat()), false),
                (&cut(&six(&[]), 57), false),
                (&cut(&six(&[]), 58), true),
                (&cut(&six(&[]), 20), false),
                (&cut(&vxlan, 16), false),
                (&ether(&[], 0x800, &[0x4f; 24]), false),
                (&ether(&[], 0x800, &[0x44; 60]), false),
                (&ether(&[], 0x86dd, &[0x45; 60]), false),
            ],
        ),
        (
            "src 10.1.0.0/16 -> host; dst 2001:db8:2::/48 -> host; default netmap",
            &[
                (&vxlan, false),
                (&six(&[]), false),
                (&ether(&[5], 0x86dd, &ipv6(&all, 59, &[])), false),
                (&cut(&vxlan, 33), true),
                (&cut(&vxlan, 34), false),
                (&ether(&[], 0x806, &[10; 28]), true),
            ],
        ),
        ("net 10.9.8.7 -> host; default netmap", &[(&vxlan, false), (&six(&[]), true)]),
        (
            "vlan 7 -> netmap; vlan -> host; default netmap",
            &[
                (&ether(&[7], 0x806, &[]), true),
                (&ether(&[0xe007, 8], 0x806, &[]), true),
                (&ether(&[8, 7], 0x806, &[]), false),
                (&vxlan, true),
            ],
        ),
        (
            "untagged ether 0x88b5 -> host; default netmap",
            &[(&ether(&[], 0x88b5, &[]), false), (&ether(&[1], 0x88b5, &[]), true)],
        ),
        (
            "fragment -> host; port 90-99 -> netmap; default host",
            &[
                (&vxlan, true),
                (&ether(&[], 0x800, &ipv4(udp, 0x2000, 0, &ports(99, 1))), false),
                (&ether(&[], 0x800, &ipv4(tcp, 0x4000, 0, &ports(1, 90))), true),
                (&ether(&[], 0x800, &ipv4(1, 0, 0, &ports(1, 90))), false),
                (&six(&[fragment(0)]), false),
            ],
        ),
        (
            "icmp6 -> host; proto 0 -> host; default netmap",
            &[
                (&ether(&[], 0x86dd, &ipv6(&all, 58, &[128, 0])), false),
                (&ether(&[], 0x86dd, &ipv6(&[], 58, &[])), false),
                (&cut(&ether(&[], 0x86dd, &ipv6(&all, 58, &[])), 60), true),
                (&ether(&[], 0x800, &ipv4(0, 0, 0, &[])), false),
                (&ether(&[], 0x86dd, &[]), true),
            ],
        ),
    ];
    for (text, frames) in table {
        program.steer(Some(&Steering::parse(text).unwrap())).unwrap();
        for (frame, netmap) in *frames {
            assert_eq!(redirects(program.id(), frame), *netmap, "{text}: {frame:02x?}");
        }
    }
    program.steer(None).unwrap();
    assert!(redirects(program.id(), &vxlan));
    let seen = program.counters(0).unwrap();
    assert!(seen.redirected > 20 && seen.passed > 20, "{seen:?}");

    // The last rule of as many as there may be.
    let many = format!("{} udp -> netmap; default host", "proto 200 -> host;".repeat(63));
    program.steer(Some(&Steering::parse(&many).unwrap())).unwrap();
    assert!(redirects(program.id(), &vxlan));
    program.remove(0).unwrap();
    assert!(!redirects(program.id(), &vxlan), "nobody bound the queue");
}

fn rules_change_while_they_are_in_use(loader: Backend) {
    let net = Net::new(loader);
    let nic = net.nic();
    let mut program = loader.load(1).unwrap();
    let socket = net.inside(|| Xsk::bind(nic.ifindex, 0));
    program.insert(0, socket.raw()).unwrap();
    // Both leave TCP with the host, by rules in different places.
    let [a, b] = ["tcp -> host; default netmap", "arp -> host; tcp -> host; udp -> netmap; default host"]
        .map(|text| Steering::parse(text).unwrap());
    program.steer(Some(&a)).unwrap();
    let id = program.id();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        let watcher = scope.spawn(move || {
            let tcp = ether(&[], 0x800, &ipv4(6, 0, 0, &ports(1, 2)));
            let mut n = 0u64;
            while !over.load(Relaxed) {
                assert!(!redirects(id, &tcp), "a frame met rules that never held");
                n += 1;
            }
            n
        });
        for _ in 0..100 {
            program.steer(Some(&b)).unwrap();
            program.steer(Some(&a)).unwrap();
        }
        over.store(true, Relaxed);
        assert!(watcher.join().unwrap() > 0);
    });
}

fn wrong_queues_and_wrong_descriptors_are_errors(loader: Backend) {
    assert_eq!(loader.load(0).err().unwrap().errno.0, libc::EINVAL);
    let mut program = loader.load(2).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(program.insert(2, file.as_raw_fd()).unwrap_err().errno.0, libc::EINVAL);
    assert_eq!(program.remove(2).unwrap_err().errno.0, libc::EINVAL);
    assert_eq!(program.counters(u32::MAX).unwrap_err().errno.0, libc::EINVAL);
    assert_eq!(program.insert(0, -1).unwrap_err().errno.0, libc::EBADF);
    assert_eq!(program.insert(0, file.as_raw_fd()).unwrap_err().errno.0, libc::ENOTSOCK);
    assert!(program.remove(1).is_ok());
}

fn the_program_leaves_with_its_last_holder(loader: Backend) {
    let net = Net::new(loader);
    let copy_of = |program: &dyn Program| {
        // SAFETY: the link is open; the copy is new and ours.
        unsafe { OwnedFd::from_raw_fd(libc::dup(program.link_fd().unwrap())) }
    };
    for mode in MODES {
        let mut program = net.attached(mode);
        let there = net.xdp().unwrap();
        let want = if mode == AttachMode::Native { XdpMode::Native } else { XdpMode::Generic };
        assert_eq!((there.mode, there.prog_id, there.prog_name.as_deref()), (want, program.id(), Some(OURS)));
        let again = net.attach(&mut *program, mode).unwrap_err();
        assert_eq!(again.errno().0, libc::EALREADY, "{again}");
        drop(program);
        net.wait_gone();

        // A copy of the link keeps it there ...
        let program = net.attached(mode);
        let copy = copy_of(&*program);
        drop(program);
        assert!(net.xdp().is_some(), "{mode}");
        drop(copy);
        net.wait_gone();

        // ... but for an explicit detach, after which it can be attached anew.
        let mut program = net.attached(mode);
        let copy = copy_of(&*program);
        program.detach().unwrap();
        assert_eq!((net.xdp(), program.link_fd()), (None, None), "{mode}");
        program.detach().unwrap();
        net.attach(&mut *program, mode).unwrap();
        drop(copy);
        assert!(net.xdp().is_some(), "{mode}");
    }
}

fn descriptors_are_out_of_the_way_of_the_program(loader: Backend) {
    // In a process of its own: other tests load at the same time, and loading goes through low numbers.
    let name = format!("{}::descriptors_are_out_of_the_way_of_the_program", loader.name());
    if std::env::var(ALONE).as_deref() != Ok(name.as_str()) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let done = child.args(["--exact", &name]).env(ALONE, &name).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let net = Net::new(loader);
    let program = net.attached(AttachMode::Native);
    assert!(program.link_fd().unwrap() >= 512);
    let is_bpf = |n: &RawFd| {
        std::fs::read_link(format!("/proc/self/fd/{n}")).is_ok_and(|target| target.to_string_lossy().contains("bpf"))
    };
    let low: Vec<RawFd> = (0..512).filter(is_bpf).collect();
    assert!(low.is_empty(), "BPF objects stay at {low:?}");
}

fn a_driver_without_native_xdp_is_told_and_generic_mode_works(loader: Backend) {
    let net = Net::new(loader);
    net.inside(|| {
        let lo = NetDev::by_name("lo").unwrap();
        let mut program = loader.load(1).unwrap();
        let e = program.attach(lo.ifindex, "lo", AttachMode::Native).unwrap_err();
        assert!(matches!(e, AttachError::NotSupported { mode: AttachMode::Native, .. }), "{e}");
        assert_eq!(e.errno().0, libc::EOPNOTSUPP);
        program.attach(lo.ifindex, "lo", AttachMode::Generic).unwrap();
    });
}

fn jumbo_frames_do_not_stand_in_the_way_of_native_mode(loader: Backend) {
    let net = Net::new(loader);
    ip(&format!("-n {} link set nic0 mtu 9000", net.near));
    ip(&format!("-n {} link set peer0 mtu 9000", net.far));
    let _program = net.attached(AttachMode::Native);
    assert!(net.ping());
}

fn a_vanished_interface_is_no_trouble(loader: Backend) {
    let net = Net::new(loader);
    let nic = net.nic();
    let mut held = net.attached(AttachMode::Native);
    let mut late = loader.load(2).unwrap();
    ip(&format!("-n {} link del nic0", net.near));
    held.detach().unwrap();
    let e = net.inside(|| late.attach(nic.ifindex, "nic0", AttachMode::Native).unwrap_err());
    assert_eq!(e.errno().0, libc::ENODEV, "{e}");
    assert!(matches!(e, AttachError::Other(_)));
}

fn a_second_engine_finds_the_interface_busy(loader: Backend) {
    let net = Net::new(loader);
    let first = net.attached(AttachMode::Native);
    let mut second = loader.load(2).unwrap();
    for mode in MODES {
        let e = net.attach(&mut *second, mode).unwrap_err();
        let AttachError::Busy { name, id, mode: there, .. } = &e else { panic!("{e}") };
        assert_eq!((name.as_str(), *id, *there), (OURS, first.id(), XdpMode::Native));
        assert!(e.to_string().contains(OURS), "{e}");
    }
    drop(first);
    net.attach(&mut *second, AttachMode::Native).unwrap();
}

fn a_foreign_program_is_named_and_stays(loader: Backend) {
    let net = Net::new(loader);
    let foreign = Foreign::compile();
    for (word, there) in [("xdpdrv", XdpMode::Native), ("xdpgeneric", XdpMode::Generic)] {
        ip(&format!("-n {} link set dev nic0 {word} obj {} sec xdp", net.near, foreign.object.display()));
        let before = net.xdp();
        for mode in MODES {
            let e = net.attach(&mut *loader.load(2).unwrap(), mode).unwrap_err();
            let AttachError::Busy { name, mode, .. } = &e else { panic!("{e}") };
            assert_eq!((name.as_str(), *mode), ("foreign_pass", there));
            assert!(e.to_string().contains(&format!("ip link set dev nic0 {word} off")), "{e}");
        }
        assert!(before.is_some() && net.xdp() == before);
        // What the message says does mend it.
        ip(&format!("-n {} link set dev nic0 {word} off", net.near));
        drop(net.attached(AttachMode::Native));
    }
}

/// The object file of a program that is not ours.
struct Foreign {
    object: PathBuf,
}

impl Foreign {
    fn compile() -> Foreign {
        let stem = std::env::temp_dir().join(format!("nmx-loader-foreign-{}", std::process::id()));
        let (source, foreign) = (stem.with_extension("c"), Foreign { object: stem.with_extension("o") });
        let text = "struct xdp_md { unsigned data, data_end; };\n\
                    __attribute__((section(\"xdp\"), used)) int foreign_pass(struct xdp_md *ctx) { return 2; }\n\
                    char licence[] __attribute__((section(\"license\"), used)) = \"GPL\";\n";
        std::fs::write(&source, text).unwrap();
        let mut clang = Command::new("clang");
        clang.args(["-target", "bpf", "-O2", "-g", "-c"]).arg(&source).arg("-o").arg(&foreign.object);
        let done = clang.output();
        let _ = std::fs::remove_file(&source);
        let done = done.expect("this test needs clang");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        foreign
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.object);
    }
}

fn a_thread_without_capabilities_is_told_which(loader: Backend) {
    let refused = std::thread::spawn(|| {
        let header = [0x2008_0522u32, 0];
        let none = [0u32; 6];
        // SAFETY: capset reads two structures of three words, and takes rights from this thread only.
        let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
        assert_eq!(done, 0);
        loader.load(1).err().expect("loaded without capabilities")
    });
    let e = refused.join().unwrap();
    assert_eq!(e.errno.0, libc::EPERM);
    let text = e.to_string();
    assert!(text.contains("CAP_NET_ADMIN and CAP_BPF") && text.contains("setcap"), "{text}");
}

fn sigkill_of_the_holder_detaches(loader: Backend) {
    let net = Net::new(loader);
    for mode in MODES {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &net.near])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "the_child_that_is_killed", "--test-threads=1"])
            .env(HOLD, format!("{mode} {}", loader.name()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the child attaches", || net.found().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("the kernel detaches", || net.found().is_none());
        assert!(net.ping(), "{mode}");
    }
}

/// The other half of [`sigkill_of_the_holder_detaches`]; on its own it does nothing.
#[test]
fn the_child_that_is_killed() {
    let Ok(held) = std::env::var(HOLD) else { return };
    let (mode, name) = held.split_once(' ').unwrap();
    let mode = if mode == "native" { AttachMode::Native } else { AttachMode::Generic };
    let mut program = match name {
        "aya" => program::embedded().load(2),
        "libbpf" => libbpf_loader().load(2),
        _ => libbpf_loader().load_chained(2, 15),
    }
    .unwrap();
    program.attach(NetDev::by_name("nic0").unwrap().ifindex, "nic0", mode).unwrap();
    std::thread::sleep(Duration::from_secs(30));
    panic!("nobody killed this");
}

/// The real thing, where the kernel loads `BPF_PROG_TYPE_EXT` and there is a bpffs: `NMX_CHAIN=1`, set under `tests/vm.sh`.
#[test]
fn programs_share_an_interface_and_a_killed_one_is_taken_out() {
    if std::env::var_os("NMX_CHAIN").is_none() {
        return;
    }
    let loader = libbpf_loader();
    let foreign = Foreign::compile();
    for mode in MODES {
        for (theirs, ours) in [(10, 20), (20, 10)] {
            let net = Net::new(loader);
            let index = net.nic().ifindex;
            let _their_program = net.inside(|| Component::attach(&foreign, index, mode, theirs));
            let mut program = loader.load_chained(2, ours).unwrap();
            net.attach(&mut *program, mode).unwrap();
            assert_eq!(net.found().unwrap().prog_name.as_deref(), Some("xdp_dispatcher"));
            assert!(net.ping(), "{mode}");
            let seen = program.counters(0).unwrap();
            assert!(seen.passed >= 2, "{mode}: {seen:?}");
            let socket = net.inside(|| Xsk::bind(index, 0));
            program.insert(0, socket.raw()).unwrap();
            assert!(!net.ping(), "{mode}: queue 0 is taken");
            assert!(!net.inside(|| loader.clean(index).unwrap()), "the living are left alone");
            net.inside(|| drop(program));
            assert!(net.ping(), "{mode}");
            assert!(net.found().is_some(), "{mode}: the other program stays");

            // Killed, ours stays and does no harm, until the next one comes.
            let mut child = Command::new("nsenter")
                // `ip netns exec` would hide the bpffs.
                .arg(format!("--net=/run/netns/{}", net.near))
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "the_child_that_is_killed", "--test-threads=1"])
                .env(HOLD, format!("{mode} chain"))
                .spawn()
                .unwrap();
            let before = net.found().unwrap().prog_id;
            wait_until("the child attaches", || net.found().is_some_and(|f| f.prog_id != before));
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(net.ping(), "{mode}: a dead one's program is in the way");
            assert!(net.inside(|| loader.clean(index).unwrap()), "{mode}: nothing was cleaned");
            assert!(!net.inside(|| loader.clean(index).unwrap()));
            assert!(net.ping() && net.found().is_some(), "{mode}");
        }
    }
}

/// Somebody else's program in the dispatcher.
struct Component(*mut libxdp_sys::xdp_program);

impl Component {
    fn attach(foreign: &Foreign, ifindex: u32, mode: AttachMode, priority: u32) -> Component {
        use std::ffi::CString;
        let path = CString::new(foreign.object.to_str().unwrap()).unwrap();
        let mode = match mode {
            AttachMode::Native => libxdp_sys::xdp_attach_mode_XDP_MODE_NATIVE,
            AttachMode::Generic => libxdp_sys::xdp_attach_mode_XDP_MODE_SKB,
        };
        // SAFETY: the strings outlive the calls; the program is live from when it is opened until it is dropped.
        unsafe {
            let program = libxdp_sys::xdp_program__open_file(path.as_ptr(), c"xdp".as_ptr(), std::ptr::null_mut());
            assert_eq!(libxdp_sys::libxdp_get_error(program.cast()), 0, "open");
            let component = Component(program);
            assert_eq!(libxdp_sys::xdp_program__set_run_prio(program, priority), 0);
            assert_eq!(libxdp_sys::xdp_program__attach(program, ifindex as i32, mode, 0), 0, "attach");
            component
        }
    }
}

// SAFETY: one thread after the other uses it.
unsafe impl Send for Component {}

impl Drop for Component {
    fn drop(&mut self) {
        // SAFETY: see `attach`. What is attached goes with the namespace.
        unsafe { libxdp_sys::xdp_program__close(self.0) };
    }
}
