//! Network namespaces of unique names, and veth pairs between two of them.
//!
//! A name is `nmx-PID-N`: who finds one whose process is gone may delete it, and [`Namespace::new`] does.

use crate::process::{Cmd, wait_until};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, OnceLock};
use std::time::Duration;

const PREFIX: &str = "nmx-";
const NETNS_DIR: &str = "/run/netns";
/// How long an XDP program may take to disappear after its last holder.
const DETACH_LIMIT: Duration = Duration::from_secs(2);
const CARRIER_LIMIT: Duration = Duration::from_secs(20);

/// A network namespace that is deleted when dropped, together with the processes and devices in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// Interfaces of the machine that it has for as long as it is there.
    lent: Vec<String>,
}

impl Namespace {
    /// Makes one, with loopback up and IPv6 silent.
    ///
    /// # Panics
    /// If that fails; tests say [`needs_root!`](crate::needs_root!) first.
    #[expect(clippy::new_without_default, reason = "makes something outside of this process")]
    pub fn new() -> Namespace {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let ns = Namespace { name: format!("{PREFIX}{}-{n}", std::process::id()), lent: Vec::new() };
        ip(&["netns", "add", &ns.name]);
        // Neighbour discovery would put packets on the line that no test asked for. Without IPv6 there is nothing to do.
        let knobs = ["all", "default"].map(|which| format!("net.ipv6.conf.{which}.disable_ipv6=1"));
        if Path::new("/proc/sys/net/ipv6").exists() {
            ns.command("sysctl").arg("-qw").args(knobs).run().expect_success();
        }
        ip(&["-n", &ns.name, "link", "set", "lo", "up"]);
        ns
    }

    /// Moves an interface of the caller's namespace here; it goes back at the end.
    ///
    /// # Panics
    /// If there is none of that name within some seconds: the kernel may still be giving it back.
    pub fn lend(&mut self, dev: &str) {
        let there = || Path::new("/sys/class/net").join(dev).exists();
        assert!(wait_until(Duration::from_secs(20), there), "there is no interface {dev}");
        ip(&["link", "set", "dev", dev, "netns", &self.name]);
        self.lent.push(dev.into());
    }

    /// Its name, for `ip -n` and `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Cmd {
        Cmd::inside(&self.name, program)
    }

    /// Runs `f` inside, in a thread of its own; a panic of `f` goes on here.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let file = File::open(Path::new(NETNS_DIR).join(&self.name)).expect("a namespace that exists");
        let inside = || {
            // SAFETY: setns takes integers, the fd is open, and only this new thread changes its namespace.
            let done = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(done, 0, "setns: {}", std::io::Error::last_os_error());
            f()
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|p| std::panic::resume_unwind(p))
    }

    /// The XDP program on a device.
    pub fn xdp(&self, dev: &str) -> Option<Xdp> {
        let link = Cmd::new("ip").args(["-n", &self.name, "-d", "-j", "link", "show", "dev", dev]).run();
        Xdp::parse(&link.expect_success().stdout)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for dev in &self.lent {
            // One that is not here any more is back already; deleting the namespace would bring it back too, later.
            let back = ["-n", &self.name, "link", "set", "dev", dev, "netns", &std::process::id().to_string()];
            Cmd::new("ip").args(back).run();
        }
        remove(&self.name);
    }
}

/// The processes in a namespace.
fn inside(name: &str) -> Vec<i32> {
    let pids = Cmd::new("ip").args(["netns", "pids", name]).run().stdout;
    pids.split_whitespace().filter_map(|p| p.parse().ok()).filter(|&pid| pid != std::process::id() as i32).collect()
}

/// Deletes a namespace, and ends the processes in it first, since they would keep it alive. A netmapd that puts an interface
/// in order just now is there for a moment, and gone at a second look.
fn remove(name: &str) {
    let mut there = inside(name);
    wait_until(Duration::from_secs(1), || {
        let now = inside(name);
        there.retain(|pid| now.contains(pid));
        there.is_empty()
    });
    for pid in there {
        // SAFETY: kill takes integers. Only descendants of the tests enter a namespace of this name.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    let gone = Cmd::new("ip").args(["netns", "del", name]).run();
    if !gone.success() && Path::new(NETNS_DIR).join(name).exists() {
        eprintln!("namespace {name} stays behind: {gone}");
    }
}

/// Deletes what killed test processes left behind.
fn sweep() {
    for name in namespaces() {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}

fn namespaces() -> Vec<String> {
    let entries = std::fs::read_dir(NETNS_DIR).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// The namespaces that exist on behalf of a test process.
pub fn namespaces_of(pid: u32) -> Vec<String> {
    let prefix = format!("{PREFIX}{pid}-");
    namespaces().into_iter().filter(|name| name.starts_with(&prefix)).collect()
}

/// An XDP program that is attached to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xdp {
    /// How: 1 native, 2 generic, 3 offloaded, 4 several of them.
    pub mode: u32,
    /// The kernel's number of the program.
    pub id: u32,
}

impl Xdp {
    /// Reads `ip -d -j link show dev DEV`.
    fn parse(json: &str) -> Option<Xdp> {
        let number = |text: &str, key: &str| {
            let digits = text.split_once(key)?.1;
            digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let (_, xdp) = json.split_once("\"xdp\":{")?;
        Some(Xdp { mode: number(xdp, "\"mode\":")?, id: number(xdp, "\"prog\":{\"id\":")? })
    }
}

/// One end of a veth pair, or of another wire, in a namespace of its own.
#[derive(Debug)]
pub struct End {
    /// The namespace.
    pub ns: Namespace,
    /// Name of the device: `veth0` at end `a`, `veth1` at end `b`.
    pub dev: &'static str,
}

impl End {
    /// A command that will run in this end's namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Cmd {
        self.ns.command(program)
    }

    /// Changes the device: `ip link set dev DEV ...`.
    pub fn set(&self, change: &[&str]) {
        ip(&[&["-n", self.ns.name(), "link", "set", "dev", self.dev], change].concat());
    }

    /// How many want the device promiscuous.
    pub fn promiscuity(&self) -> u32 {
        let said = self.command("ip").args(["-d", "-j", "link", "show", "dev", self.dev]).run().expect_success().stdout;
        let number = said.split_once("\"promiscuity\":").map(|(_, rest)| rest.trim_start());
        let end = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        number.and_then(|text| text[..end(text)].parse().ok()).expect("`ip -d` tells it")
    }

    /// The XDP program on the device.
    pub fn xdp(&self) -> Option<Xdp> {
        self.ns.xdp(self.dev)
    }

    /// Waits until an XDP program is attached: a netmap program has bound the device.
    ///
    /// # Panics
    /// If that does not happen within `limit`.
    #[track_caller]
    pub fn wait_xdp(&self, limit: Duration) -> Xdp {
        let mut found = None;
        wait_until(limit, || {
            found = self.xdp();
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("no XDP program on {} after {limit:?}", self.dev))
    }

    /// Checks that no XDP program is left on the device, once whoever held it is gone.
    #[track_caller]
    pub fn assert_no_xdp(&self) {
        let clean = wait_until(DETACH_LIMIT, || self.xdp().is_none());
        assert!(clean, "an XDP program is left on {}: {:?}", self.dev, self.xdp());
    }
}

/// How a veth pair shall be. The line is silent: no IPv6, real checksums, and no addresses unless asked for.
#[derive(Clone, Debug)]
pub struct Veth {
    queues: u32,
    mtu: u32,
    addresses: Option<(String, String)>,
}

impl Veth {
    /// One queue each way, MTU 1500, no addresses.
    #[expect(clippy::new_without_default, reason = "the start of a builder")]
    pub fn new() -> Veth {
        Veth { queues: 1, mtu: 1500, addresses: None }
    }

    /// Queues at both ends, receive and transmit.
    pub fn queues(mut self, n: u32) -> Veth {
        self.queues = n;
        self
    }

    /// MTU of both ends.
    pub fn mtu(mut self, bytes: u32) -> Veth {
        self.mtu = bytes;
        self
    }

    /// Addresses of end `a` and end `b`, such as `10.0.0.1/24`.
    pub fn addresses(mut self, a: &str, b: &str) -> Veth {
        self.addresses = Some((a.into(), b.into()));
        self
    }

    /// Makes the namespaces and the pair, both ends up.
    ///
    /// # Panics
    /// If that fails.
    pub fn build(self) -> Pair {
        let a = End { ns: Namespace::new(), dev: "veth0" };
        let b = End { ns: Namespace::new(), dev: "veth1" };
        let (queues, mtu) = (self.queues.to_string(), self.mtu.to_string());
        let shape = ["mtu", &mtu, "numtxqueues", &queues, "numrxqueues", &queues];
        let one = [&["-n", a.ns.name(), "link", "add", a.dev][..], &shape, &["type", "veth"]].concat();
        let other = [&["peer", "name", b.dev, "netns", b.ns.name()][..], &shape].concat();
        ip(&[one, other].concat());
        for end in [&a, &b] {
            end.command("ethtool").args(["-K", end.dev, "tx", "off"]).run().expect_success();
            end.set(&["up"]);
        }
        if let Some((of_a, of_b)) = &self.addresses {
            ip(&["-n", a.ns.name(), "addr", "add", of_a, "dev", a.dev]);
            ip(&["-n", b.ns.name(), "addr", "add", of_b, "dev", b.dev]);
        }
        let pair = Pair { a, b };
        pair.wait_carrier();
        pair
    }
}

/// The names of two interfaces with a wire between them, if the machine has such for tests: `NMX_NICS=eth0,eth1`.
pub fn real_nics() -> Option<[&'static str; 2]> {
    static NAMES: OnceLock<Option<String>> = OnceLock::new();
    let (a, b) = NAMES.get_or_init(|| std::env::var("NMX_NICS").ok()).as_deref()?.split_once(',')?;
    Some([a, b])
}

/// The MTU of [`wire`]: `NMX_MTU`, else 1500.
pub fn wire_mtu() -> u32 {
    std::env::var("NMX_MTU").ok().and_then(|v| v.parse().ok()).unwrap_or(1500)
}

/// Two namespaces joined by the two interfaces of `NMX_NICS`, or by a veth pair.
///
/// # Panics
/// If that fails.
pub fn wire() -> Pair {
    let Some(names) = real_nics() else { return Veth::new().mtu(wire_mtu()).build() };
    let [a, b] = names.map(|dev| {
        let mut ns = Namespace::new();
        ns.lend(dev);
        End { ns, dev }
    });
    for end in [&a, &b] {
        end.set(&["mtu", &wire_mtu().to_string(), "up"]);
    }
    let pair = Pair { a, b };
    pair.wait_carrier();
    pair
}

/// Two namespaces joined by a veth pair, or another wire.
#[derive(Debug)]
pub struct Pair {
    /// The end with `veth0`.
    pub a: End,
    /// The end with `veth1`.
    pub b: End,
}

impl Pair {
    /// Checks that neither end has an XDP program left.
    #[track_caller]
    pub fn assert_no_xdp(&self) {
        self.a.assert_no_xdp();
        self.b.assert_no_xdp();
    }

    /// Waits until both ends are up and have a carrier.
    ///
    /// # Panics
    /// If that takes longer than a driver's link negotiation may.
    #[track_caller]
    pub fn wait_carrier(&self) {
        for end in [&self.a, &self.b] {
            let show = Cmd::new("ip").args(["-n", end.ns.name(), "-j", "link", "show", "dev", end.dev]);
            let up = wait_until(CARRIER_LIMIT, || show.clone().run().stdout.contains("\"operstate\":\"UP\""));
            assert!(up, "{} has no carrier", end.dev);
        }
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    Cmd::new("ip").args(args).run().expect_success();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attached_program_is_read_from_the_json_of_ip() {
        let json =
            r#"[{"ifname":"v0","mtu":1500,"xdp":{"mode":2,"prog":{"id":106,"name":"p","jited":1},"attached":[]}}]"#;
        assert_eq!(Xdp::parse(json), Some(Xdp { mode: 2, id: 106 }));
        assert_eq!(Xdp::parse(r#"[{"ifname":"v0","mtu":1500,"qdisc":"noqueue"}]"#), None);
    }
}
