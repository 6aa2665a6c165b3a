//! The redirect program on veth: attached, counting, steering, and gone when its holder is.
//!
//! Each test makes two network namespaces of its own and deletes them when it ends, also by panic. It takes root; without
//! it the tests fail, they are not skipped.

use netmap_xdp::sys::netdev::{self, LinkState, NetDev};
use netmap_xdp::xsk::program::{self, AttachError, AttachMode, Loader, Program, XdpMode};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

const MODES: [AttachMode; 2] = [AttachMode::Native, AttachMode::Generic];
const OURS: &str = "netmap_redirect";
/// Set in the child process of the SIGKILL test: the mode to attach in.
const HOLD: &str = "NETMAP_XDP_TEST_HOLD";

fn loader() -> &'static dyn Loader {
    program::embedded()
}

/// Two namespaces, joined by `nic0` (two queues) in the near one and `peer0` in the far one.
struct Net {
    near: String,
    far: String,
}

impl Net {
    fn new() -> Net {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stem = format!("nmx-loader-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let net = Net { near: format!("{stem}-a"), far: format!("{stem}-b") };
        for ns in [&net.near, &net.far] {
            ip(&format!("netns add {ns}"));
            ip(&format!("-n {ns} link set lo up"));
        }
        let Net { near, far } = &net;
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
        let mut program = loader().load(2).unwrap();
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
    let end = Instant::now() + Duration::from_secs(5);
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
    let net = Net::new();
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

#[test]
fn a_queue_without_a_socket_passes_to_the_stack_and_is_counted() {
    for mode in MODES {
        let net = Net::new();
        let program = net.attached(mode);
        assert!(net.ping(), "{mode}");
        let seen = program.counters(0).unwrap();
        assert!(seen.passed >= 2 && seen.redirected == 0, "{mode}: {seen:?}");
        assert_eq!(program.counters(1).unwrap(), Default::default(), "{mode}");
    }
}

#[test]
fn a_queue_with_a_socket_is_redirected_until_it_is_removed() {
    for mode in MODES {
        let net = Net::new();
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

#[test]
fn wrong_queues_and_wrong_descriptors_are_errors() {
    assert_eq!(loader().load(0).err().unwrap().errno.0, libc::EINVAL);
    let mut program = loader().load(2).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(program.insert(2, file.as_raw_fd()).unwrap_err().errno.0, libc::EINVAL);
    assert_eq!(program.remove(2).unwrap_err().errno.0, libc::EINVAL);
    assert_eq!(program.counters(u32::MAX).unwrap_err().errno.0, libc::EINVAL);
    assert_eq!(program.insert(0, -1).unwrap_err().errno.0, libc::EBADF);
    assert_eq!(program.insert(0, file.as_raw_fd()).unwrap_err().errno.0, libc::ENOTSOCK);
    assert!(program.remove(1).is_ok());
}

#[test]
fn the_program_leaves_with_its_last_holder() {
    let net = Net::new();
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
        assert_eq!(net.xdp(), None, "{mode}");

        // A copy of the link keeps it there ...
        let program = net.attached(mode);
        let copy = copy_of(&*program);
        drop(program);
        assert!(net.xdp().is_some(), "{mode}");
        drop(copy);
        assert_eq!(net.xdp(), None, "{mode}");

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

#[test]
fn descriptors_are_out_of_the_way_of_the_program() {
    let net = Net::new();
    let program = net.attached(AttachMode::Native);
    assert!(program.link_fd().unwrap() >= 512);
    let is_bpf = |n: &RawFd| {
        std::fs::read_link(format!("/proc/self/fd/{n}")).is_ok_and(|target| target.to_string_lossy().contains("bpf"))
    };
    // Other tests load at the same time, and loading goes through low numbers: they must not stay.
    let mut low: Vec<RawFd> = (0..512).filter(is_bpf).collect();
    wait_until("no BPF object stays at a low number", || {
        low.retain(is_bpf);
        low.is_empty()
    });
}

#[test]
fn a_driver_without_native_xdp_is_told_and_generic_mode_works() {
    let net = Net::new();
    net.inside(|| {
        let lo = NetDev::by_name("lo").unwrap();
        let mut program = loader().load(1).unwrap();
        let e = program.attach(lo.ifindex, "lo", AttachMode::Native).unwrap_err();
        assert!(matches!(e, AttachError::NotSupported { mode: AttachMode::Native, .. }), "{e}");
        assert_eq!(e.errno().0, libc::EOPNOTSUPP);
        program.attach(lo.ifindex, "lo", AttachMode::Generic).unwrap();
    });
}

#[test]
fn jumbo_frames_do_not_stand_in_the_way_of_native_mode() {
    let net = Net::new();
    ip(&format!("-n {} link set nic0 mtu 9000", net.near));
    ip(&format!("-n {} link set peer0 mtu 9000", net.far));
    let _program = net.attached(AttachMode::Native);
    assert!(net.ping());
}

#[test]
fn a_vanished_interface_is_no_trouble() {
    let net = Net::new();
    let nic = net.nic();
    let mut held = net.attached(AttachMode::Native);
    let mut late = loader().load(2).unwrap();
    ip(&format!("-n {} link del nic0", net.near));
    held.detach().unwrap();
    let e = net.inside(|| late.attach(nic.ifindex, "nic0", AttachMode::Native).unwrap_err());
    assert_eq!(e.errno().0, libc::ENODEV, "{e}");
    assert!(matches!(e, AttachError::Other(_)));
}

#[test]
fn a_second_engine_finds_the_interface_busy() {
    let net = Net::new();
    let first = net.attached(AttachMode::Native);
    let mut second = loader().load(2).unwrap();
    for mode in MODES {
        let e = net.attach(&mut *second, mode).unwrap_err();
        let AttachError::Busy { name, id, mode: there, .. } = &e else { panic!("{e}") };
        assert_eq!((name.as_str(), *id, *there), (OURS, first.id(), XdpMode::Native));
        assert!(e.to_string().contains(OURS), "{e}");
    }
    drop(first);
    net.attach(&mut *second, AttachMode::Native).unwrap();
}

#[test]
fn a_foreign_program_is_named_and_stays() {
    let net = Net::new();
    let foreign = Foreign::compile();
    for (word, there) in [("xdpdrv", XdpMode::Native), ("xdpgeneric", XdpMode::Generic)] {
        ip(&format!("-n {} link set dev nic0 {word} obj {} sec xdp", net.near, foreign.object.display()));
        let before = net.xdp();
        for mode in MODES {
            let e = net.attach(&mut *loader().load(2).unwrap(), mode).unwrap_err();
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
        let text = "__attribute__((section(\"xdp\"), used)) int foreign_pass(void *ctx) { return 2; }\n\
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

#[test]
fn a_thread_without_capabilities_is_told_which() {
    let refused = std::thread::spawn(|| {
        let header = [0x2008_0522u32, 0];
        let none = [0u32; 6];
        // SAFETY: capset reads two structures of three words, and takes rights from this thread only.
        let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
        assert_eq!(done, 0);
        loader().load(1).err().expect("loaded without capabilities")
    });
    let e = refused.join().unwrap();
    assert_eq!(e.errno.0, libc::EPERM);
    let text = e.to_string();
    assert!(text.contains("CAP_NET_ADMIN and CAP_BPF") && text.contains("setcap"), "{text}");
}

#[test]
fn sigkill_of_the_holder_detaches() {
    let net = Net::new();
    for mode in MODES {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &net.near])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "the_child_that_is_killed", "--test-threads=1"])
            .env(HOLD, mode.to_string())
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
    let Some(mode) = std::env::var_os(HOLD) else { return };
    let mode = if mode == "native" { AttachMode::Native } else { AttachMode::Generic };
    let mut program = loader().load(2).unwrap();
    program.attach(NetDev::by_name("nic0").unwrap().ifindex, "nic0", mode).unwrap();
    std::thread::sleep(Duration::from_secs(30));
    panic!("nobody killed this");
}
