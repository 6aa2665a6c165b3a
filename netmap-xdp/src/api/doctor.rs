//! Will an interface work? What there is to know about it without touching it: nothing is attached, loaded, bound or changed.

use super::Error;
use crate::client::{self, Outlook};
use crate::ctl::Spec;
use crate::sys::netdev::{NetDev, Offloads, XdpMode, bpf, features, xdp_attached};
use crate::sys::{EngineChoice, settings};
use crate::xsk::{Chunks, Geometry, is_our_program, mtu_that_fits};

/// What an examination found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The interface.
    pub interface: String,
    /// One after the other, from the kernel up.
    pub findings: Vec<Finding>,
    /// The best mode that is to be expected: `zero-copy`, `native` or `generic`; none if it will not work.
    pub mode: Option<&'static str>,
}

/// How a finding is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// It works, and not as well as it could, or not for everything.
    Warn,
    /// It will not work.
    Fail,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verdict::Good => "good",
            Verdict::Note => "note",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What: one word, which stays the same from version to version.
    pub topic: &'static str,
    /// How it is meant.
    pub verdict: Verdict,
    /// For a person.
    pub text: String,
    /// The command or setting that mends it.
    pub mend: Option<String>,
}

impl Report {
    /// The worst of the findings.
    pub fn worst(&self) -> Verdict {
        self.findings.iter().map(|f| f.verdict).max().unwrap_or(Verdict::Good)
    }

    fn say(&mut self, topic: &'static str, verdict: Verdict, text: impl Into<String>) {
        self.findings.push(Finding { topic, verdict, text: text.into(), mend: None });
    }

    fn mend(&mut self, topic: &'static str, verdict: Verdict, text: impl Into<String>, mend: impl Into<String>) {
        self.findings.push(Finding { topic, verdict, text: text.into(), mend: Some(mend.into()) });
    }
}

/// Examines an interface of the calling thread's network namespace. `ENODEV`: there is none of this name; `EINVAL`: there
/// cannot be.
pub fn examine(interface: &str) -> Result<Report, Error> {
    let dev = NetDev::by_name(interface).map_err(|e| Error { errno: e.errno.0, message: e.to_string() })?;
    let mut report = Report { interface: dev.name.clone(), findings: Vec::new(), mode: None };
    let embedded = settings().engine == EngineChoice::Embedded;
    kernel(&mut report);
    driver(&mut report, &dev);
    program(&mut report, &dev);
    offloads(&mut report, &dev);
    netmapd(&mut report, &dev, embedded);
    rights(&mut report, embedded);
    surroundings(&mut report);
    if report.worst() == Verdict::Fail {
        report.mode = None;
    }
    Ok(report)
}

fn kernel(r: &mut Report) {
    let version @ (major, minor) = bpf::kernel_version();
    let lacks: Vec<&str> = [
        ((5, 18), "frames of several buffers in XDP (5.18)"),
        ((6, 3), "what drivers say of their XDP features (6.3)"),
        ((6, 6), "host rings, AF_XDP frames of several buffers (6.6)"),
    ]
    .iter()
    .filter(|(since, _)| version < *since)
    .map(|(_, what)| *what)
    .collect();
    if version < (5, 9) {
        let text = format!("Linux {major}.{minor} has no links for XDP programs, which take 5.9");
        r.mend("kernel", Verdict::Fail, text, "boot Linux 5.9 or newer; 6.6 has everything");
    } else if lacks.is_empty() {
        r.say("kernel", Verdict::Good, format!("Linux {major}.{minor}"));
    } else {
        let text = format!("Linux {major}.{minor} lacks {}", lacks.join("; "));
        r.mend("kernel", Verdict::Note, text, "boot Linux 6.6 or newer");
    }
}

/// The largest MTU whose frames fit in one buffer of this process's engine, and what such a buffer receives.
fn fitting() -> (u32, u32) {
    let geometry = Geometry::new(Chunks::Unaligned, settings().buf_size);
    geometry.map_or((0, 0), |g| (mtu_that_fits(g), g.rx_limit()))
}

fn driver(r: &mut Report, dev: &NetDev) {
    let (fits, one) = fitting();
    let name = dev.driver.as_deref().unwrap_or("unknown");
    match features::xdp_features(dev.ifindex) {
        Some(all) => {
            let has = |bit| all & bit != 0;
            let native = has(features::XDP_BASIC) && has(features::XDP_REDIRECT);
            let (mode, verdict, text) = match (native, has(features::XDP_ZERO_COPY)) {
                (true, true) => ("zero-copy", Verdict::Good, "native XDP, and AF_XDP without copies"),
                (true, false) => ("native", Verdict::Good, "native XDP; AF_XDP copies once"),
                (false, _) => ("generic", Verdict::Warn, "no native XDP: generic mode, which is slower"),
            };
            r.mode = Some(mode);
            r.say("driver", verdict, format!("{name}: {text}"));
            if native && dev.mtu > fits && !has(features::XDP_FRAGS) {
                let text = format!("MTU {} takes frames of several buffers, which the driver has not", dev.mtu);
                r.mend("mtu", Verdict::Fail, text, format!("ip link set dev {} mtu {}", dev.name, fits));
            }
        }
        None => {
            r.mode = Some("generic");
            let text = format!("{name}: the kernel does not tell what it can do; generic mode works, others may");
            r.say("driver", Verdict::Note, text);
        }
    }
    r.say("queues", Verdict::Good, format!("{} receive, {} transmit", dev.rx_queues, dev.tx_queues));
    match (dev.up, dev.running) {
        (false, _) => {
            let text = "the interface is down: it can be bound, and starts when it comes up";
            r.mend("link", Verdict::Warn, text, format!("ip link set dev {} up", dev.name));
        }
        (true, false) => r.mend("link", Verdict::Warn, "up, without carrier", "see to the cable, or the peer"),
        (true, true) => r.say("link", Verdict::Good, format!("up, MTU {}", dev.mtu)),
    }
    if dev.mtu > fits {
        let text = format!("MTU {}: frames above {one} bytes arrive as chains (NS_MOREFRAG)", dev.mtu);
        r.say("mtu", Verdict::Note, text);
    }
}

fn program(r: &mut Report, dev: &NetDev) {
    let Ok(attached) = xdp_attached(dev.ifindex) else { return };
    let Some(there) = attached else {
        r.say("xdp", Verdict::Good, "no XDP program is attached");
        return;
    };
    let name = there.prog_name.as_deref().unwrap_or("(name unknown)");
    let text = format!("XDP program {name}, id {}, is attached in {} mode", there.prog_id, there.mode);
    if there.prog_name.as_deref().is_some_and(is_our_program) {
        r.say(
            "xdp",
            Verdict::Good,
            format!("{text}: netmap-xdp's own, so somebody has the interface open (`nmx status`)"),
        );
        return;
    }
    let off = match there.mode {
        XdpMode::Native => "xdpdrv",
        XdpMode::Generic => "xdpgeneric",
        XdpMode::Offload => "xdpoffload",
    };
    let mend = format!("ip link set dev {} {off} off (if it says busy: bpftool link)", dev.name);
    r.mend("xdp", Verdict::Fail, format!("{text}; it is left alone, and netmap-xdp stays off"), mend);
}

fn offloads(r: &mut Report, dev: &NetDev) {
    let Ok(on) = Offloads::on(dev) else { return };
    let generic = r.mode == Some("generic");
    let mut lies = vec![];
    lies.extend(on.lro.then_some(("LRO merges received frames", "lro off")));
    lies.extend((on.gro && generic).then_some(("GRO merges received frames before generic XDP", "gro off")));
    lies.extend(on.vlan.then_some(("the NIC takes VLAN tags out of received frames", "rxvlan off")));
    if lies.is_empty() {
        let gro = if on.gro { " (GRO is on, and comes after native XDP)" } else { "" };
        r.say("offloads", Verdict::Good, format!("no offload falsifies received frames{gro}"));
        return;
    }
    let words: Vec<&str> = lies.iter().map(|l| l.0).collect();
    let off: Vec<&str> = lies.iter().map(|l| l.1).collect();
    r.mend("offloads", Verdict::Warn, words.join("; "), format!("ethtool -K {} {}", dev.name, off.join(" ")));
}

fn netmapd(r: &mut Report, dev: &NetDev, embedded: bool) {
    if embedded {
        r.say("netmapd", Verdict::Note, "not used: NETMAP_XDP_ENGINE=embedded hosts the engine in each process");
        return;
    }
    let spec = Spec::parse(&format!("netmap:{}", dev.name));
    let Ok(register) = spec.map(|s| s.register()) else { return };
    let start =
        "systemctl start netmapd, or start `netmapd`; programs do so by themselves unless NETMAP_XDP_ENGINE=daemon";
    match client::outlook(&register) {
        Outlook::Absent(why) => r.mend("netmapd", Verdict::Note, why, start),
        Outlook::Broken(why) => r.mend("netmapd", Verdict::Fail, why, "restart it: systemctl restart netmapd"),
        Outlook::Stranger(at) => {
            let text =
                format!("netmapd at {at} does not admit this user; programs get one of the user's own, without NICs");
            r.mend(
                "netmapd",
                Verdict::Warn,
                text,
                "usermod -aG netmap USER, or `allow = user:USER ...` in netmapd.conf",
            );
        }
        Outlook::Serves(at) => {
            r.say("netmapd", Verdict::Good, format!("serves at {at}, and lets this user bind {}", dev.name))
        }
        Outlook::Refuses(at, why) => {
            let mend = "what the message says; `nmx status` tells who has what";
            r.mend("netmapd", Verdict::Fail, format!("netmapd at {at} would refuse: {why}"), mend);
        }
    }
}

fn rights(r: &mut Report, embedded: bool) {
    let served = r.findings.iter().any(|f| f.topic == "netmapd" && f.verdict == Verdict::Good);
    let missing = bpf::missing_to_bind();
    let verdict = if embedded { Verdict::Fail } else { Verdict::Warn };
    if missing.is_empty() {
        r.say("rights", Verdict::Good, "this user has the capabilities that the engine needs");
    } else if served {
        r.say("rights", Verdict::Good, format!("without {}; netmapd has what is needed", missing.join(", ")));
    } else {
        let text = format!("an engine of this user's would lack {}", missing.join(", "));
        let mend =
            "run as root, or through a netmapd of root's; or setcap cap_net_admin,cap_net_raw,cap_bpf,cap_ipc_lock+ep";
        r.mend("rights", verdict, text, mend);
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|l| l.starts_with("Max locked memory")).unwrap_or_default();
    let soft = line.split_whitespace().nth(3).unwrap_or("unknown");
    if soft == "unlimited" || bpf::may_lock_memory() {
        r.say("memlock", Verdict::Good, "packet memory may be locked without limit");
    } else if served {
        r.say("memlock", Verdict::Good, "netmapd locks the packet memory");
    } else {
        let text = format!("{soft} bytes may be locked in memory; the default region takes 34 MB");
        r.mend("memlock", Verdict::Warn, text, "ulimit -l unlimited, or CAP_IPC_LOCK");
    }
}

fn surroundings(r: &mut Report) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let bpffs = mounts.lines().any(|l| l.split_whitespace().nth(2) == Some("bpf"));
    let btf = std::path::Path::new("/sys/kernel/btf/vmlinux").exists();
    let word = |has| if has { "there" } else { "not there" };
    let text = format!("bpffs is {}, the kernel's BTF is {}; netmap-xdp needs neither", word(bpffs), word(btf));
    r.say("bpf", Verdict::Good, text);
    let number = |what: &str| {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{what}");
        std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    };
    match (number("nr_hugepages"), number("free_hugepages")) {
        (Some(all), Some(free)) => {
            r.say("hugepages", Verdict::Good, format!("{free} of {all} pages of 2 MB are free; none are needed"));
        }
        _ => r.say("hugepages", Verdict::Good, "the kernel has none of 2 MB; none are needed"),
    }
}
