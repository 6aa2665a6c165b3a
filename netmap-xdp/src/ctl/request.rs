//! Requests, typed: what a program may ask of netmap, whatever door it came through.
//!
//! Values of programs stay as they were sent where the original judges them late (mode, ring, flags, counts): whoever
//! carries out the request does that, in the original's order. What the original judges at the door is judged here.

use super::errno::{Condition, Failure};
use super::options::{Csb, EventFds, KloopMode, Options};
use crate::abi::*;
use std::fmt;
use std::time::Duration;

/// Name of a port as in `nr_name`: at most 63 bytes, none of them zero, any encoding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortName {
    bytes: [u8; NETMAP_REQ_IFNAMSIZ - 1],
    len: u8,
}

impl PortName {
    /// The longest name, bytes.
    pub const MAX: usize = NETMAP_REQ_IFNAMSIZ - 1;

    /// The name in a field of a request: up to its first zero byte, and cut at 63 bytes.
    pub fn from_field(field: &[u8]) -> PortName {
        let end = field.iter().position(|&b| b == 0).unwrap_or(field.len()).min(Self::MAX);
        let mut bytes = [0; Self::MAX];
        bytes[..end].copy_from_slice(&field[..end]);
        PortName { bytes, len: end as u8 }
    }

    /// A name of one's own. `EINVAL` if it is longer than 63 bytes or has a zero byte.
    pub fn new(name: &str) -> Result<PortName, Failure> {
        if name.len() > Self::MAX {
            let message = format!("{name}: the name has {} bytes; {} are the most", name.len(), Self::MAX);
            return Err(Condition::BadName.says(message));
        }
        if name.contains('\0') {
            return Err(
                Condition::BadName.says(format!("{}: a zero byte cannot be part of a name", name.escape_debug()))
            );
        }
        Ok(PortName::from_field(name.as_bytes()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// As text, if it is text. No interface has a name that is not.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()).ok()
    }

    /// Whether it is empty: `PortInfo` then asks for a region.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The field of a request, filled up with zero bytes.
    pub fn to_field(&self) -> [u8; NETMAP_REQ_IFNAMSIZ] {
        let mut field = [0; NETMAP_REQ_IFNAMSIZ];
        field[..Self::MAX].copy_from_slice(&self.bytes);
        field
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// `NR_REG_*`: which of a port's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// All NIC rings.
    AllNic,
    /// The host rings.
    Sw,
    /// Both.
    NicSw,
    /// One pair of NIC rings.
    OneNic,
    /// Rings with nothing behind them.
    Null,
    /// One pair of host rings.
    OneSw,
    /// Anything else; `EINVAL`, but only once the port is known to exist.
    Invalid(u32),
}

impl Mode {
    /// From `nr_mode`.
    pub fn from_raw(raw: u32) -> Mode {
        match raw {
            NR_REG_ALL_NIC => Mode::AllNic,
            NR_REG_SW => Mode::Sw,
            NR_REG_NIC_SW => Mode::NicSw,
            NR_REG_ONE_NIC => Mode::OneNic,
            NR_REG_NULL => Mode::Null,
            NR_REG_ONE_SW => Mode::OneSw,
            raw => Mode::Invalid(raw),
        }
    }

    /// To `nr_mode`.
    pub fn raw(self) -> u32 {
        match self {
            Mode::AllNic => NR_REG_ALL_NIC,
            Mode::Sw => NR_REG_SW,
            Mode::NicSw => NR_REG_NIC_SW,
            Mode::OneNic => NR_REG_ONE_NIC,
            Mode::Null => NR_REG_NULL,
            Mode::OneSw => NR_REG_ONE_SW,
            Mode::Invalid(raw) => raw,
        }
    }

    /// Whether it is one of the two modes that named pipes before names did; `EINVAL` even before the port is looked
    /// up.
    pub fn is_deprecated_pipe(self) -> bool {
        matches!(self, Mode::Invalid(NR_REG_PIPE_MASTER | NR_REG_PIPE_SLAVE))
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Bind the fd to a port.
    Register(Register),
    /// Describe a port, or a region if the name is empty.
    PortInfo(PortInfo),
    /// Attach a port to a switch.
    ValeAttach(ValeAttach),
    /// Detach it.
    ValeDetach(PortName),
    /// List switches and their ports.
    ValeList(ValeList),
    /// Set the length of the virtio-net header.
    HdrSet(HdrSet),
    /// Get the length of the virtio-net header.
    HdrGet(PortName),
    /// Make a persistent switch port.
    ValeNewif(ValeNewif),
    /// Delete it.
    ValeDelif(PortName),
    /// Let threads of the engine poll a switch port.
    PollingOn(Polling),
    /// Stop them.
    PollingOff(Polling),
    /// Describe the pools of a region.
    PoolsInfo(PoolsInfo),
    /// Run the sync loop in the calling thread.
    KloopStart(KloopStart),
    /// Stop it.
    KloopStop,
    /// Exchange cursors through memory of the program.
    CsbEnable(Csb),
    /// Configure the module of a switch (`NIOCCONFIG`).
    ValeConfig(ValeConfig),
}

/// `NETMAP_REQ_REGISTER`: bind the fd to a port. 0 in a count means "as it is".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// The port.
    pub name: PortName,
    /// Which rings.
    pub mode: Mode,
    /// Which ring, for the modes that take one.
    pub ring_id: u16,
    /// `NR_*`; unknown bits are ignored.
    pub flags: u64,
    /// The region, 0 for that of the port.
    pub mem_id: u16,
    /// Slots wanted in a transmit ring.
    pub tx_slots: u32,
    /// Slots wanted in a receive ring.
    pub rx_slots: u32,
    /// NIC transmit rings wanted.
    pub tx_rings: u16,
    /// NIC receive rings wanted.
    pub rx_rings: u16,
    /// Host transmit rings wanted.
    pub host_tx_rings: u16,
    /// Host receive rings wanted.
    pub host_rx_rings: u16,
    /// Extra buffers wanted.
    pub extra_bufs: u32,
    /// Options that came with it.
    pub options: Options,
}

/// What a name, a mode and flags designate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// Rings with nothing behind them.
    Null,
    /// A tap on the rings of another port.
    Monitor,
    /// One end of a pipe.
    Pipe {
        /// The port that the pipe hangs on.
        parent: PortName,
        /// Its id, never empty.
        id: PortName,
        /// Which end.
        role: PipeRole,
    },
    /// A port of a switch.
    Vale,
    /// A network interface.
    Nic,
}

/// End of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PipeRole {
    /// `{`
    Master,
    /// `}`
    Slave,
}

impl Register {
    /// All NIC rings of a port, everything else as it is.
    pub fn new(name: PortName) -> Register {
        Register::from_raw(name, &nmreq_register { nr_mode: NR_REG_ALL_NIC, ..Default::default() }, Options::default())
    }

    /// From the body of the request. Zero-copy monitoring implies both directions (`netmap_get_monitor_na`).
    pub(super) fn from_raw(name: PortName, body: &nmreq_register, options: Options) -> Register {
        let mode = Mode::from_raw(body.nr_mode);
        let both =
            if mode != Mode::Null && body.nr_flags & NR_ZCOPY_MON != 0 { NR_MONITOR_TX | NR_MONITOR_RX } else { 0 };
        Register {
            name,
            mode,
            ring_id: body.nr_ringid,
            flags: body.nr_flags | both,
            mem_id: body.nr_mem_id,
            tx_slots: body.nr_tx_slots,
            rx_slots: body.nr_rx_slots,
            tx_rings: body.nr_tx_rings,
            rx_rings: body.nr_rx_rings,
            host_tx_rings: body.nr_host_tx_rings,
            host_rx_rings: body.nr_host_rx_rings,
            extra_bufs: body.nr_extra_bufs,
            options,
        }
    }

    /// The registration of the port that this one is to monitor: the same without the flags of a monitor.
    pub fn monitored(&self) -> Register {
        Register { flags: self.flags & !(NR_MONITOR_TX | NR_MONITOR_RX | NR_ZCOPY_MON), ..self.clone() }
    }

    /// Which kind of port this asks for, in the order in which netmap tries them: null, monitor, pipe, switch, and what
    /// is left is an interface. `EINVAL` for the modes that once meant pipes and for a name that is half a pipe's.
    ///
    /// Source: `netmap_get_na` and the functions that it tries.
    pub fn kind(&self) -> Result<PortKind, Failure> {
        let name = self.name.as_bytes();
        if self.mode.is_deprecated_pipe() {
            let message = format!("{}: pipe modes are not accepted; name the pipe NAME{{ID or NAME}}ID", self.name);
            return Err(Condition::DeprecatedPipeMode.says(message));
        }
        if self.mode == Mode::Null {
            return Ok(PortKind::Null);
        }
        if self.flags & (NR_MONITOR_TX | NR_MONITOR_RX | NR_ZCOPY_MON) != 0 {
            return Ok(PortKind::Monitor);
        }
        let bracket = |b| name.iter().rposition(|&c| c == b);
        let pipe =
            bracket(b'{').map(|at| (at, PipeRole::Master)).or_else(|| bracket(b'}').map(|at| (at, PipeRole::Slave)));
        if let Some((at, role)) = pipe {
            let (parent, id) = (PortName::from_field(&name[..at]), PortName::from_field(&name[at + 1..]));
            if parent.is_empty() || id.is_empty() {
                let message = format!("{}: a pipe is PORT{{ID or PORT}}ID", self.name);
                return Err(Condition::BadPipeName.says(message));
            }
            if !matches!(self.mode, Mode::AllNic | Mode::OneNic) {
                return Err(Condition::BadPipeName.says(format!("{}: a pipe has no host rings", self.name)));
            }
            return Ok(PortKind::Pipe { parent, id, role });
        }
        if name.starts_with(b"vale") {
            return Ok(PortKind::Vale);
        }
        Ok(PortKind::Nic)
    }
}

/// `NETMAP_REQ_PORT_INFO_GET`: describe a port, or the region `mem_id` (0: region 1) if the name is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// The port, may be empty.
    pub name: PortName,
    /// The region.
    pub mem_id: u16,
    /// Slots wanted in a transmit ring, for a port that this makes.
    pub tx_slots: u32,
    /// Slots wanted in a receive ring.
    pub rx_slots: u32,
    /// NIC transmit rings wanted.
    pub tx_rings: u16,
    /// NIC receive rings wanted.
    pub rx_rings: u16,
    /// Host transmit rings wanted.
    pub host_tx_rings: u16,
    /// Host receive rings wanted.
    pub host_rx_rings: u16,
}

impl PortInfo {
    pub(super) fn from_raw(name: PortName, body: &nmreq_port_info_get) -> PortInfo {
        PortInfo {
            name,
            mem_id: body.nr_mem_id,
            tx_slots: body.nr_tx_slots,
            rx_slots: body.nr_rx_slots,
            tx_rings: body.nr_tx_rings,
            rx_rings: body.nr_rx_rings,
            host_tx_rings: body.nr_host_tx_rings,
            host_rx_rings: body.nr_host_rx_rings,
        }
    }

    /// The registration that would bind this port: all NIC rings.
    pub fn as_register(&self) -> Register {
        Register {
            mem_id: self.mem_id,
            tx_slots: self.tx_slots,
            rx_slots: self.rx_slots,
            tx_rings: self.tx_rings,
            rx_rings: self.rx_rings,
            host_tx_rings: self.host_tx_rings,
            host_rx_rings: self.host_rx_rings,
            ..Register::new(self.name)
        }
    }
}

/// `NETMAP_REQ_VALE_ATTACH`: attach a port to a switch; the name holds both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValeAttach {
    /// How to register the port.
    pub register: Register,
}

/// `NETMAP_REQ_VALE_LIST`: with a name, its indexes; without, the first port from these indexes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValeList {
    /// A port of a switch, or empty.
    pub name: PortName,
    /// Switch to start from.
    pub bridge: u16,
    /// Port to start from.
    pub port: u32,
}

/// `NETMAP_REQ_PORT_HDR_SET`: set the length of the virtio-net header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HdrSet {
    /// The port.
    pub name: PortName,
    /// Bytes: 0, 10 or 12.
    pub len: u32,
}

impl HdrSet {
    /// `EINVAL` for another length, before the port is looked up.
    pub fn new(name: PortName, len: u32) -> Result<HdrSet, Failure> {
        match len {
            0 | 10 | 12 => Ok(HdrSet { name, len }),
            _ => {
                Err(Condition::HdrLength.says(format!("{name}: a virtio-net header has 0, 10 or 12 bytes, not {len}")))
            }
        }
    }
}

/// `NETMAP_REQ_VALE_NEWIF`: make a persistent switch port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValeNewif {
    /// Its name.
    pub name: PortName,
    /// Slots in a transmit ring.
    pub tx_slots: u32,
    /// Slots in a receive ring.
    pub rx_slots: u32,
    /// Transmit rings.
    pub tx_rings: u16,
    /// Receive rings.
    pub rx_rings: u16,
    /// The region.
    pub mem_id: u16,
}

impl ValeNewif {
    pub(super) fn from_raw(name: PortName, body: &nmreq_vale_newif) -> ValeNewif {
        ValeNewif {
            name,
            tx_slots: body.nr_tx_slots,
            rx_slots: body.nr_rx_slots,
            tx_rings: body.nr_tx_rings,
            rx_rings: body.nr_rx_rings,
            mem_id: body.nr_mem_id,
        }
    }
}

/// `NETMAP_REQ_VALE_POLLING_*`. All of it is judged against the port (`nm_bdg_polling`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polling {
    /// The port.
    pub name: PortName,
    /// `NETMAP_POLLING_MODE_*`.
    pub mode: u32,
    /// First CPU, or first ring.
    pub first_cpu: u32,
    /// How many.
    pub cpus: u32,
}

impl Polling {
    pub(super) fn from_raw(name: PortName, body: &nmreq_vale_polling) -> Polling {
        let (mode, first_cpu) = (body.nr_mode, body.nr_first_cpu_id);
        Polling { name, mode, first_cpu, cpus: body.nr_num_polling_cpus }
    }
}

/// `NETMAP_REQ_POOLS_INFO_GET`: describe the region of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolsInfo {
    /// The port.
    pub name: PortName,
    /// The region, 0 for that of the port.
    pub mem_id: u16,
}

/// `NETMAP_REQ_SYNC_KLOOP_START`: run the sync loop in the calling thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KloopStart {
    /// How long to sleep when idle, without eventfds; a second at most.
    pub sleep: Duration,
    /// Notification by eventfds.
    pub eventfds: Option<EventFds>,
    /// Direct modes.
    pub mode: Option<KloopMode>,
}

impl KloopStart {
    /// `EINVAL` for more than a second, before anything else.
    pub(super) fn new(sleep_us: u32, options: Options) -> Result<KloopStart, Failure> {
        if sleep_us > 1_000_000 {
            return Err(
                Condition::KloopSleep.says(format!("the sync loop sleeps for a second at most, not {sleep_us} us"))
            );
        }
        let sleep = Duration::from_micros(sleep_us.into());
        Ok(KloopStart { sleep, eventfds: options.kloop_eventfds, mode: options.kloop_mode })
    }
}

/// `NIOCCONFIG`: configure the module of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValeConfig {
    /// The switch.
    pub name: PortName,
    /// For its module.
    pub data: Box<[u8; 256]>,
}
