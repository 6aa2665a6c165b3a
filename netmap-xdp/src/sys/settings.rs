//! Settings of the environment, `NETMAP_XDP_*`, read once.
//!
//! | variable | values | meaning |
//! |---|---|---|
//! | `NETMAP_XDP_LOG` | `off` `error` `warn` `info` `debug` | what goes to standard error; default `info` |
//! | `NETMAP_XDP_ENGINE` | `auto` `daemon` `embedded` | who plays the kernel's part: `netmapd`, started if nobody answers (default); `netmapd`, never started; the process itself |
//! | `NETMAP_XDP_SOCKET` | path | where netmapd listens; default `/run/netmap-xdp/netmapd.sock`, and for a user whom that one does not admit, `netmap-xdp/netmapd.sock` in `XDG_RUNTIME_DIR` |
//! | `NETMAP_XDP_DAEMON` | path | the netmapd to start; default: beside the library or the program, then in `PATH` |
//! | `NETMAP_XDP_MODE` | `auto` `zerocopy` `native` `generic` | the highest step of the mode ladder; others than `auto` are forced; for some interfaces alone: `auto,eth1=generic` |
//! | `NETMAP_XDP_BUFFERS` | number | buffers of region 1, and of each that pipes have to themselves; default from what is bound |
//! | `NETMAP_XDP_BUF_SIZE` | `2048` `4096` | bytes of a buffer where NICs are: region 1, those of attached NICs; default 2048 |
//! | `NETMAP_XDP_PRIV_BUF_SIZE` | number | the same of the regions that ports of switches have of their own: a multiple of 64 up to 65536; default as `NETMAP_XDP_BUF_SIZE` |
//! | `NETMAP_XDP_SLOTS` | number | slots of a NIC ring when the program does not ask; default 1024 |
//! | `NETMAP_XDP_SPARES` | number | spare buffers of a NIC receive ring, for what the program keeps; default as many as it has slots |
//! | `NETMAP_XDP_WAKEUP` | `need` `always` | whether the driver says when it wants to be told of new entries (default), or is told each time |
//! | `NETMAP_XDP_BUSY_POLL` | number | busy polling of the queue by who syncs it, microseconds (`SO_BUSY_POLL`, `SO_PREFER_BUSY_POLL`); default 0: off |
//! | `NETMAP_XDP_BUSY_BUDGET` | number | packets that it takes at once at most (`SO_BUSY_POLL_BUDGET`); default the kernel's |
//! | `NETMAP_XDP_TX_BUDGET` | number | packets that one `sendto` sends at most (`XDP_MAX_TX_SKB_BUDGET`); default the ring, where the kernel knows the option |
//! | `NETMAP_XDP_TIMESTAMPS` | `software` `hardware` | what `ts` of NIC receive rings is: the time of the sync (default), or when the NIC received the last frame, by its clock, where kernel and driver tell |
//! | `NETMAP_XDP_STEER` | rules | which frames of the NICs that the program binds go to netmap; default all. A text that makes no sense fails the bind |
//! | `NETMAP_XDP_HOST` | `auto` `tcx` `clsact` | how host rings hook into the NIC; `auto`: tcx where the kernel has it (6.6) |
//! | `NETMAP_XDP_LOADER` | `libbpf` `aya` | what netmapd loads the XDP program with; default `libbpf`. The engine in a process has `aya` alone |
//! | `NETMAP_XDP_CHAIN` | `off` `on` number | joins libxdp's chain of XDP programs, with this priority (`on`: 50); needs netmapd with libbpf |
//! | `NETMAP_XDP_UMEM` | `auto` `unaligned` `aligned` | how buffers lie in the UMEM; for some interfaces alone: `auto,eth1=aligned` |
//! | `NETMAP_XDP_FRAGS` | `auto` `off` | `off`: no frame of several buffers, as with kernels before 6.6: an MTU that needs them is refused |
//! | `NETMAP_XDP_BIND` | `auto` `late` | `late`: sockets are bound after the program has mapped them, as kernels before 6.4 need it |

use super::{PAGE, privileged_by_file};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// How long a queue is waited for that may have been closed just now: 15 to 25 ms on a machine that is idle, and on a
/// busy one more than half a second was seen.
pub const REBIND_WAIT: Duration = Duration::from_secs(2);

/// Who plays the kernel's part when `NETMAP_XDP_ENGINE` does not say.
pub const DEFAULT_ENGINE: EngineChoice = EngineChoice::Auto;

/// Who plays the kernel's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// netmapd, which is started if nobody answers.
    Auto,
    /// netmapd, which somebody else starts.
    Daemon,
    /// The process itself.
    Embedded,
}

/// How NICs are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The driver places packets in our buffers.
    ZeroCopy,
    /// The driver runs the XDP program, the kernel copies.
    Native,
    /// The stack runs the XDP program, the kernel copies.
    Generic,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::ZeroCopy => "zero-copy",
            Mode::Native => "native",
            Mode::Generic => "generic",
        })
    }
}

/// What netmapd loads the XDP program with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoaderChoice {
    /// libbpf, which can chain.
    Libbpf,
    /// aya.
    Aya,
}

impl LoaderChoice {
    /// By its name in settings.
    pub fn named(name: &str) -> Option<LoaderChoice> {
        match name {
            "libbpf" => Some(LoaderChoice::Libbpf),
            "aya" => Some(LoaderChoice::Aya),
            _ => None,
        }
    }
}

/// How the kernel and those who sync tell each other of work; what is `None` was not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polling {
    /// The driver is told of new entries each time, and not only when it says that it waits.
    pub always: Option<bool>,
    /// Busy polling, microseconds; 0: none.
    pub busy: Option<u32>,
    /// Packets that busy polling takes at once at most.
    pub budget: Option<u32>,
    /// Packets that one `sendto` sends at most.
    pub tx_budget: Option<u32>,
}

impl Polling {
    /// The settings by the keys that netmapd's file has for them, their variables, and the numbers that each can be.
    pub const NUMBERS: [(&str, &str, u32, u32); 3] = [
        ("busy-poll", "NETMAP_XDP_BUSY_POLL", 0, 1_000_000),
        ("busy-budget", "NETMAP_XDP_BUSY_BUDGET", 1, 65535),
        ("tx-budget", "NETMAP_XDP_TX_BUDGET", 32, 16384),
    ];

    /// What `wakeup` says.
    pub fn wakeup(value: &str) -> Option<bool> {
        match value {
            "need" => Some(false),
            "always" => Some(true),
            _ => None,
        }
    }

    /// Sets one of [`Polling::NUMBERS`].
    pub fn set(&mut self, key: &str, value: u32) {
        match key {
            "busy-poll" => self.busy = Some(value),
            "busy-budget" => self.budget = Some(value),
            _ => self.tx_budget = Some(value),
        }
    }

    /// What `over` says, and for the rest what this says.
    #[must_use]
    pub fn under(self, over: Polling) -> Polling {
        Polling {
            always: over.always.or(self.always),
            busy: over.busy.or(self.busy),
            budget: over.budget.or(self.budget),
            tx_budget: over.tx_budget.or(self.tx_budget),
        }
    }

    /// Whether who syncs polls the queue.
    pub fn is_busy(&self) -> bool {
        self.busy.is_some_and(|us| us > 0)
    }
}

/// Priority in a chain when none is said: libxdp's.
pub const CHAIN_PRIORITY: u32 = 50;
/// The largest priority.
pub const CHAIN_MOST: u32 = 65535;

/// Bytes of a buffer unless a setting says otherwise.
pub const BUF_SIZE: u32 = 2048;
/// Bytes that a buffer may have where NICs are: what the kernel takes as chunks of a UMEM, which end at a page.
pub const NIC_BUF_SIZES: [u32; 2] = [BUF_SIZE, PAGE as u32];
/// What every size of buffers is a multiple of: a cache line.
pub const BUF_ALIGN: u32 = 64;
/// Bytes that a buffer may have elsewhere: the original's bounds.
pub const BUF_SIZES: std::ops::RangeInclusive<u32> = BUF_ALIGN..=1 << 16;

/// Whether buffers of `size` bytes can be where no NIC is.
pub fn is_buf_size(size: u32) -> bool {
    BUF_SIZES.contains(&size) && size.is_multiple_of(BUF_ALIGN)
}

/// Whether a name is the pattern, or starts with what stands before a `*` at its end.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(name == pattern, |start| name.starts_with(start))
}

/// A setting that may differ from interface to interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerInterface<T> {
    /// For those that are not named.
    pub all: T,
    /// By pattern of names; the first that matches counts.
    pub some: Vec<(String, T)>,
}

impl<T: Copy + Default> PerInterface<T> {
    /// What holds for an interface.
    pub fn of(&self, name: &str) -> T {
        self.some.iter().find(|(pattern, _)| name_matches(pattern, name)).map_or(self.all, |(_, value)| *value)
    }

    /// Reads `value`, `interface=value`, or several of them with commas between; nothing if any is not understood.
    fn read(text: &str, known: impl Fn(&str) -> Option<T>) -> Option<PerInterface<T>> {
        let mut read = PerInterface::default();
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                Some((name, value)) if !name.is_empty() => read.some.push((name.to_string(), known(value)?)),
                _ => read.all = known(part)?,
            }
        }
        Some(read)
    }
}

/// The settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Highest level of line that is printed, 0 for none.
    pub log: u8,
    /// The one mode to use, or the whole ladder.
    pub mode: PerInterface<Option<Mode>>,
    /// Buffers of region 1, and of each that pipes have to themselves.
    pub buffers: Option<u32>,
    /// Bytes of each, and of those in other regions with NICs.
    pub buf_size: u32,
    /// Bytes of a buffer in regions of switch ports, if that was said.
    pub priv_buf_size: Option<u32>,
    /// Slots of a NIC ring.
    pub slots: u32,
    /// Spare buffers of a NIC receive ring; by default as many as slots.
    pub spares: Option<u32>,
    /// Receive rings tell when the NIC received the last frame, as far as it can be had.
    pub hardware_times: bool,
    /// Aligned chunks even where unaligned ones work.
    pub aligned: PerInterface<Option<bool>>,
    /// How the kernel and those who sync tell each other of work.
    pub polling: Polling,
    /// Sockets are bound after the client has mapped them on every kernel.
    pub late: bool,
    /// Sockets do without frames of several buffers.
    pub whole_frames: bool,
    /// Who plays the kernel's part.
    pub engine: EngineChoice,
    /// Where netmapd listens, if that was said.
    pub socket: Option<PathBuf>,
    /// The netmapd to start, if that was said.
    pub daemon: Option<PathBuf>,
    /// Host rings by clsact filters (true) or tcx links (false); whatever the kernel has.
    pub clsact: Option<bool>,
    /// What the host sends leaves by its NIC even where that is netmap's alone.
    pub host_passes: bool,
    /// Every packet is forwarded transparently, whatever rings and slots say.
    pub forward_all: bool,
    /// Whether NICs receive what is for others: all (true), none (false), those that are attached to switches.
    pub promiscuous: Option<bool>,
    /// What netmapd loads the XDP program with, if that was said.
    pub loader: Option<LoaderChoice>,
    /// Priority of our program in the chain of XDP programs, if it is to be in one.
    pub chain: Option<u32>,
    /// Steering rules of the NICs that this process binds, as text.
    pub steer: Option<String>,
    /// How long a bind waits for a queue that was just closed; not of the environment: who serves others does not wait.
    pub rebind_wait: Duration,
    /// Whether this process is netmapd; not of the environment.
    pub serves: bool,
    /// Lines about values that were not understood, for whoever can print them.
    pub complaints: Vec<String>,
}

impl Settings {
    /// Reads the settings through `get`, which returns the value of a variable.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Settings {
        let mut complaints = Vec::new();
        let mut bad = |name: &str, value: &str, want: &str| {
            complaints.push(format!("{name}={value} is not understood and was left out; use {want}"));
        };
        let log = match get("NETMAP_XDP_LOG").as_deref() {
            None | Some("" | "info") => 3,
            Some("off") => 0,
            Some("error") => 1,
            Some("warn") => 2,
            Some("debug") => 4,
            Some(v) => {
                bad("NETMAP_XDP_LOG", v, "off, error, warn, info or debug");
                3
            }
        };
        let known = |value: &str| match value {
            "" | "auto" => Some(None),
            "zerocopy" | "zero-copy" => Some(Some(Mode::ZeroCopy)),
            "native" => Some(Some(Mode::Native)),
            "generic" => Some(Some(Mode::Generic)),
            _ => None,
        };
        let text = get("NETMAP_XDP_MODE").unwrap_or_default();
        let mode = PerInterface::read(&text, known).unwrap_or_else(|| {
            bad("NETMAP_XDP_MODE", &text, "auto, zerocopy, native or generic, for some interfaces alone by IF=...");
            PerInterface::default()
        });
        let mut number = |name: &str, least: u32, most: u32| {
            let v = get(name)?;
            match v.parse::<u32>() {
                Ok(n) if (least..=most).contains(&n) => Some(n),
                _ => {
                    bad(name, &v, &format!("a number from {least} to {most}"));
                    None
                }
            }
        };
        let buffers = number("NETMAP_XDP_BUFFERS", 64, 1 << 24);
        let slots = number("NETMAP_XDP_SLOTS", 8, 16384).unwrap_or(1024);
        let spares = number("NETMAP_XDP_SPARES", 0, 16384);
        let mut polling = Polling::default();
        for (key, name, least, most) in Polling::NUMBERS {
            if let Some(n) = number(name, least, most) {
                polling.set(key, n);
            }
        }
        if let Some(v) = get("NETMAP_XDP_WAKEUP").filter(|v| !v.is_empty()) {
            polling.always = Polling::wakeup(&v);
            if polling.always.is_none() {
                bad("NETMAP_XDP_WAKEUP", &v, "need or always");
            }
        }
        let hardware_times = match get("NETMAP_XDP_TIMESTAMPS").as_deref() {
            None | Some("" | "software") => false,
            Some("hardware") => true,
            Some(v) => {
                bad("NETMAP_XDP_TIMESTAMPS", v, "software or hardware");
                false
            }
        };
        let buf_size = match get("NETMAP_XDP_BUF_SIZE").filter(|v| !v.is_empty()) {
            None => BUF_SIZE,
            Some(v) => v.parse().ok().filter(|n| NIC_BUF_SIZES.contains(n)).unwrap_or_else(|| {
                bad("NETMAP_XDP_BUF_SIZE", &v, &NIC_BUF_SIZES.map(|n| n.to_string()).join(" or "));
                BUF_SIZE
            }),
        };
        let priv_buf_size = get("NETMAP_XDP_PRIV_BUF_SIZE").filter(|v| !v.is_empty()).and_then(|v| {
            let size = v.parse().ok().filter(|&n| is_buf_size(n));
            if size.is_none() {
                let (least, most) = (BUF_SIZES.start(), BUF_SIZES.end());
                bad("NETMAP_XDP_PRIV_BUF_SIZE", &v, &format!("a multiple of {BUF_ALIGN} from {least} to {most}"));
            }
            size
        });
        let whole_frames = match get("NETMAP_XDP_FRAGS").as_deref() {
            None | Some("" | "auto") => false,
            Some("off") => true,
            Some(v) => {
                bad("NETMAP_XDP_FRAGS", v, "auto or off");
                false
            }
        };
        let known = |value: &str| match value {
            "" | "auto" => Some(None),
            "aligned" => Some(Some(true)),
            "unaligned" => Some(Some(false)),
            _ => None,
        };
        let text = get("NETMAP_XDP_UMEM").unwrap_or_default();
        let aligned = PerInterface::read(&text, known).unwrap_or_else(|| {
            bad("NETMAP_XDP_UMEM", &text, "auto, unaligned or aligned, for some interfaces alone by IF=...");
            PerInterface::default()
        });
        let late = match get("NETMAP_XDP_BIND").as_deref() {
            None | Some("" | "auto") => false,
            Some("late") => true,
            Some(v) => {
                bad("NETMAP_XDP_BIND", v, "auto or late");
                false
            }
        };
        let engine = match get("NETMAP_XDP_ENGINE").as_deref() {
            None | Some("") => DEFAULT_ENGINE,
            Some("auto") => EngineChoice::Auto,
            Some("daemon") => EngineChoice::Daemon,
            Some("embedded") => EngineChoice::Embedded,
            Some(v) => {
                bad("NETMAP_XDP_ENGINE", v, "auto, daemon or embedded");
                DEFAULT_ENGINE
            }
        };
        let mut path = |name: &str| {
            let v = get(name).filter(|v| !v.is_empty())?;
            if v.starts_with('/') {
                return Some(PathBuf::from(v));
            }
            bad(name, &v, "an absolute path");
            None
        };
        let (socket, daemon) = (path("NETMAP_XDP_SOCKET"), path("NETMAP_XDP_DAEMON"));
        let (rebind_wait, serves) = (REBIND_WAIT, false);
        let clsact = match get("NETMAP_XDP_HOST").as_deref() {
            None | Some("" | "auto") => None,
            Some("tcx") => Some(false),
            Some("clsact") => Some(true),
            Some(v) => {
                bad("NETMAP_XDP_HOST", v, "auto, tcx or clsact");
                None
            }
        };
        let mut switch = |name: &str, off: &str, on: &str| match get(name).filter(|v| !v.is_empty()) {
            None => false,
            Some(v) if v == on => true,
            Some(v) => {
                if v != off {
                    bad(name, &v, &format!("{off} or {on}"));
                }
                false
            }
        };
        let host_passes = switch("NETMAP_XDP_HOST_TX", "auto", "pass");
        let forward_all = switch("NETMAP_XDP_FORWARD", "marked", "all");
        let promiscuous = match get("NETMAP_XDP_PROMISC").as_deref() {
            None | Some("" | "auto") => None,
            Some("on") => Some(true),
            Some("off") => Some(false),
            Some(v) => {
                bad("NETMAP_XDP_PROMISC", v, "auto, on or off");
                None
            }
        };
        let loader = match get("NETMAP_XDP_LOADER").filter(|v| !v.is_empty()).map(|v| (LoaderChoice::named(&v), v)) {
            Some((None, v)) => {
                bad("NETMAP_XDP_LOADER", &v, "libbpf or aya");
                None
            }
            named => named.and_then(|n| n.0),
        };
        let chain = match get("NETMAP_XDP_CHAIN").as_deref() {
            None | Some("" | "off") => None,
            Some("on") => Some(CHAIN_PRIORITY),
            Some(v) => match v.parse::<u32>() {
                Ok(n) if n <= CHAIN_MOST => Some(n),
                _ => {
                    bad("NETMAP_XDP_CHAIN", v, &format!("off, on or a number up to {CHAIN_MOST}"));
                    None
                }
            },
        };
        let steer = get("NETMAP_XDP_STEER").filter(|v| !v.trim().is_empty());
        Settings {
            log,
            mode,
            buffers,
            buf_size,
            priv_buf_size,
            slots,
            spares,
            polling,
            hardware_times,
            aligned,
            late,
            whole_frames,
            engine,
            socket,
            daemon,
            rebind_wait,
            clsact,
            host_passes,
            forward_all,
            promiscuous,
            loader,
            chain,
            steer,
            serves,
            complaints,
        }
    }

    /// Bytes of a buffer in the regions that ports of switches have of their own.
    pub fn priv_buf_size(&self) -> u32 {
        self.priv_buf_size.unwrap_or(self.buf_size)
    }
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

fn from_environment() -> Settings {
    // The environment of a program with rights of its file is its caller's, who has not got them.
    if privileged_by_file() { Settings::read(|_| None) } else { Settings::read(|name| std::env::var(name).ok()) }
}

/// The settings of this process, read from the environment at the first call.
pub fn settings() -> &'static Settings {
    SETTINGS.get_or_init(from_environment)
}

/// Changes the settings before anybody asked for them; false if somebody did.
pub fn adjust_settings(change: impl FnOnce(&mut Settings)) -> bool {
    let mut settings = from_environment();
    change(&mut settings);
    SETTINGS.set(settings).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> Settings {
        Settings::read(move |n| (n == name).then(|| value.to_string()))
    }

    #[test]
    fn defaults_hold_without_an_environment() {
        let s = Settings::read(|_| None);
        assert_eq!((s.log, s.mode.of("eth0"), s.buffers, s.slots, s.aligned.of("eth0")), (3, None, None, 1024, None));
        assert_eq!((s.buf_size, s.priv_buf_size(), s.whole_frames), (2048, 2048, false));
        assert!(s.complaints.is_empty());
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named_and_left_out() {
        for (name, value) in [
            ("NETMAP_XDP_MODE", "fast"),
            ("NETMAP_XDP_SLOTS", "0"),
            ("NETMAP_XDP_BUFFERS", "-1"),
            ("NETMAP_XDP_SPARES", "16385"),
            ("NETMAP_XDP_TIMESTAMPS", "sundial"),
            ("NETMAP_XDP_WAKEUP", "never"),
            ("NETMAP_XDP_BUSY_POLL", "1000001"),
            ("NETMAP_XDP_BUSY_BUDGET", "0"),
            ("NETMAP_XDP_TX_BUDGET", "31"),
            ("NETMAP_XDP_LOG", "loud"),
            ("NETMAP_XDP_ENGINE", "kernel"),
            ("NETMAP_XDP_UMEM", "odd"),
            ("NETMAP_XDP_BIND", "never"),
            ("NETMAP_XDP_FRAGS", "on"),
            ("NETMAP_XDP_SOCKET", "here"),
            ("NETMAP_XDP_DAEMON", "./netmapd"),
            ("NETMAP_XDP_HOST", "xdp"),
            ("NETMAP_XDP_HOST_TX", "drop"),
            ("NETMAP_XDP_FORWARD", "1"),
            ("NETMAP_XDP_PROMISC", "yes"),
            ("NETMAP_XDP_LOADER", "bcc"),
            ("NETMAP_XDP_CHAIN", "65536"),
            ("NETMAP_XDP_BUF_SIZE", "9000"),
            ("NETMAP_XDP_PRIV_BUF_SIZE", "100"),
            ("NETMAP_XDP_PRIV_BUF_SIZE", "65600"),
            ("NETMAP_XDP_FRAGS", "on"),
            ("NETMAP_XDP_MODE", "native,eth0=fast"),
            ("NETMAP_XDP_UMEM", "=aligned"),
        ] {
            let s = with(name, value);
            assert_eq!(s.complaints.len(), 1, "{name}");
            assert!(s.complaints[0].contains(name) && s.complaints[0].contains(value));
            assert_eq!((s.mode.of("eth0"), s.slots, s.buffers), (None, 1024, None));
            assert_eq!((s.buf_size, s.priv_buf_size, s.whole_frames), (2048, None, false));
            assert_eq!((s.engine, s.socket, s.daemon), (DEFAULT_ENGINE, None, None));
            assert_eq!((s.loader, s.chain, s.clsact), (None, None, None));
            assert_eq!(s.polling, Polling::default());
            assert!(!s.host_passes && !s.forward_all && s.promiscuous.is_none());
        }
    }

    #[test]
    fn modes_can_be_forced() {
        assert_eq!(with("NETMAP_XDP_MODE", "generic").mode.of("eth0"), Some(Mode::Generic));
        assert_eq!(with("NETMAP_XDP_MODE", "zerocopy").mode.of("eth0"), Some(Mode::ZeroCopy));
    }

    #[test]
    fn interfaces_can_differ() {
        let mode = with("NETMAP_XDP_MODE", "native,eth1=generic,veth*=auto").mode;
        assert_eq!(
            ["eth0", "eth1", "eth10", "veth7"].map(|name| mode.of(name)),
            [Some(Mode::Native), Some(Mode::Generic), Some(Mode::Native), None]
        );
        let aligned = with("NETMAP_XDP_UMEM", "eth1=aligned").aligned;
        assert_eq!((aligned.of("eth0"), aligned.of("eth1")), (None, Some(true)));
    }

    #[test]
    fn buffers_have_the_size_that_is_set() {
        let s = with("NETMAP_XDP_BUF_SIZE", "4096");
        assert_eq!((s.buf_size, s.priv_buf_size()), (4096, 4096));
        let s = with("NETMAP_XDP_PRIV_BUF_SIZE", "65536");
        assert_eq!((s.buf_size, s.priv_buf_size()), (2048, 65536));
        assert!(with("NETMAP_XDP_BUF_SIZE", "3000").complaints[0].contains("2048 or 4096"));
    }
}
