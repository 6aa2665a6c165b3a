//! The redirect program on a NIC, as the engine sees it: load, attach, say which queue goes to which socket.
//!
//! [`Loader`] and [`Program`] hide the BPF library; each backend passes the same tests. The engine owns a [`Program`]
//! per NIC and calls it in whatever thread binds or frees a port, inside the network namespace of the NIC; never on the
//! data path. Programs are attached by bpf_link alone, so none outlives its last holder. Choosing the mode, logging and
//! waiting are the engine's.

use super::steering::Steering;
use crate::sys::netdev::{XdpAttached, bpf};
use crate::sys::{Errno, Error, Fd};
use std::fmt;
use std::os::fd::RawFd;

pub use crate::sys::netdev::XdpMode;

/// The loader that lives inside a process, without libelf.
pub fn embedded() -> &'static dyn Loader {
    &super::aya_loader::AyaLoader
}

/// Whether the program of this name is one of ours, of any process.
pub fn is_our_program(name: &str) -> bool {
    ["netmap_redirect", "netmap_nofrags", "netmap_stamped"].contains(&name)
}

/// Makes programs.
pub trait Loader: Send + Sync {
    /// Its name in settings.
    fn name(&self) -> &'static str;

    /// Loads the redirect program with room for `queues` queues (at least 1), attached to nothing.
    ///
    /// `EPERM`: the error names what is missing. `EINVAL`: no queues.
    fn load(&self, queues: u32) -> Result<Box<dyn Program>, Error>;

    /// The same, to be attached as one of several programs; those with lower priorities come first. `EOPNOTSUPP`: this
    /// loader cannot.
    fn load_chained(&self, _queues: u32, _priority: u32) -> Result<Box<dyn Program>, Error> {
        let why = "into a chain of XDP programs: that takes netmapd (NETMAP_XDP_ENGINE=auto) with `loader = libbpf`";
        Err(Error::new("BPF_PROG_LOAD", why, Errno(libc::EOPNOTSUPP)))
    }

    /// Loads classifiers of host rings by name, attached to nothing. `plan` is the image of the object's constants.
    fn load_classifiers(&self, names: &[&str], plan: &ClassifierPlan) -> Result<Vec<Fd>, Error>;

    /// Takes programs off an interface that a killed process left in its chain; says whether there were any.
    fn clean(&self, _ifindex: u32) -> Result<bool, Error> {
        Ok(false)
    }

    /// The program of ours with this id, on an interface already, if who loaded it is dead and processes that it served keep it
    /// there.
    fn take_over(&self, id: u32) -> Result<Inherited, Error>;
}

/// The constants of the classifiers of host rings, as `struct plan` in `bpf/host_rings.bpf.c` has them.
pub type ClassifierPlan = [u8; 32];

/// What became of an attempt to take a program over.
pub enum Inherited {
    /// It is ours now; these processes keep using queues of it.
    Program(Box<dyn Program>, Vec<u32>),
    /// These processes, who loaded it, are alive.
    Alive(Vec<u32>),
}

/// A loaded redirect program, with the table of its sockets. A drop gives up the link: the program leaves the interface
/// unless somebody else holds a copy of [`Program::link_fd`].
pub trait Program: Send {
    /// Puts the program on an interface of the calling thread's network namespace. `ifname` is for messages. Attached
    /// already: `Other` with `EALREADY`; detach first.
    fn attach(&mut self, ifindex: u32, ifname: &str, mode: AttachMode) -> Result<(), AttachError>;

    /// Takes it off, whoever else holds the link. No error if it is not attached or the interface has vanished.
    fn detach(&mut self) -> Result<(), Error>;

    /// Sends the packets of `queue` to `xsk`, in place of a socket that got them before. `EINVAL`: no such queue;
    /// `EOPNOTSUPP`: not an AF_XDP socket, or one without rings to receive into.
    fn insert(&mut self, queue: u32, xsk: RawFd) -> Result<(), Error>;

    /// Sends the packets of `queue` to the host stack. No error if they go there already.
    fn remove(&mut self, queue: u32) -> Result<(), Error>;

    /// Passes frames that begin with `head` to the host stack, without it: what host rings send there, in generic mode.
    fn admit(&mut self, head: Option<[u8; 14]>) -> Result<(), Error>;

    /// How frames begin that it passes so.
    fn admitted(&self) -> Result<Option<[u8; 14]>, Error>;

    /// Lets rules decide which packets go to sockets at all; none: all of them. Each packet meets the old rules or the new
    /// ones as a whole.
    fn steer(&mut self, rules: Option<&Steering>) -> Result<(), Error>;

    /// Before it is attached: notes when the NIC received the last frame of each queue, as far as it will be attached to this
    /// interface in native mode. An error: it does not, and is as it was. `EOPNOTSUPP`: kernel or driver cannot.
    fn stamp(&mut self, _ifindex: u32) -> Result<(), Error> {
        let why = "of a chained program (one for a single device cannot be a component)";
        Err(Error::new("BPF_PROG_LOAD", why, Errno(libc::EOPNOTSUPP)))
    }

    /// While attached: the map with those times, to be mapped: for each queue nanoseconds by the NIC's clock, 0 for none yet,
    /// and how many frames the NIC was asked about. None unless it notes them.
    fn stamps(&self) -> Option<RawFd> {
        None
    }

    /// What became of the packets of `queue` so far.
    fn counters(&self, queue: u32) -> Result<QueueCounters, Error>;

    /// The link, while attached. Whoever holds a copy keeps the program on the interface, and can do nothing else.
    fn link_fd(&self) -> Option<RawFd>;

    /// Its id, as `bpftool prog` shows it.
    fn id(&self) -> u32;

    /// Whether it was attached and is not any more: somebody detached the link, or the interface is gone.
    fn lost(&self) -> bool {
        self.link_fd().is_some_and(|link| bpf::link_interface(link) == Ok(0))
    }
}

/// Where to put a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the stack: slower, works with every driver.
    Generic,
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AttachMode::Native => "native",
            AttachMode::Generic => "generic",
        })
    }
}

/// Packets of one queue since the program was loaded, on all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Sent to a socket, which may still have dropped them for want of room.
    pub redirected: u64,
    /// Left to the host stack.
    pub passed: u64,
}

/// Why a program is not on an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The driver refuses in this mode; the next one may do.
    #[error("{ifname} takes no XDP program in {mode} mode: {errno}{}", mode_hint(ifname, *mode, *errno))]
    NotSupported {
        /// The interface.
        ifname: String,
        /// The mode that was tried.
        mode: AttachMode,
        /// The driver's answer.
        errno: Errno,
    },
    /// Somebody else's program is there. It is never replaced.
    #[error(
        "{ifname} already has an XDP program in {mode} mode: {name} (id {id}); stop what put it there, or remove it with \
         `ip link set dev {ifname} {} off`; if that says \"busy\", the program is held by a link: find it with \
         `bpftool link` and remove it with `bpftool link detach id N`. \
         With netmapd's `chain` setting, programs of libxdp's dispatcher (`xdp-loader status`) are joined instead", off_word(*mode)
    )]
    Busy {
        /// The interface.
        ifname: String,
        /// Name of the foreign program, `(name unknown)` if it has none or it is not ours to ask.
        name: String,
        /// Its id, as `bpftool prog` shows it.
        id: u32,
        /// Where it runs.
        mode: XdpMode,
    },
    /// The caller may not.
    #[error("no permission to attach an XDP program to {ifname}: {}", needs(missing))]
    Permission {
        /// The interface.
        ifname: String,
        /// The capabilities that the calling thread lacks; empty if it has those it should need.
        missing: Vec<&'static str>,
    },
    /// The kernel has no links for XDP programs.
    #[error(
        "kernel {}.{} cannot hold an XDP program by a link, which takes 5.9; without one a program would stay on \
         {ifname} when netmap-xdp is killed: use a newer kernel", kernel.0, kernel.1
    )]
    KernelTooOld {
        /// The interface.
        ifname: String,
        /// Its release.
        kernel: (u32, u32),
    },
    /// Anything else; the interface is gone (`ENODEV`), for one.
    #[error(transparent)]
    Other(#[from] Error),
}

impl AttachError {
    /// The error number nearest to it.
    pub fn errno(&self) -> Errno {
        match self {
            AttachError::NotSupported { errno, .. } => *errno,
            AttachError::Busy { .. } => Errno(libc::EBUSY),
            AttachError::Permission { .. } => Errno(libc::EPERM),
            AttachError::KernelTooOld { .. } => Errno(libc::EOPNOTSUPP),
            AttachError::Other(e) => e.errno,
        }
    }
}

/// What a backend finds out when an attachment fails, beyond the error number.
pub(super) struct Circumstances {
    /// The interface is still there.
    pub exists: bool,
    /// The XDP program that is on it.
    pub foreign: Option<XdpAttached>,
    /// Capabilities that the calling thread lacks.
    pub missing: Vec<&'static str>,
    /// Release of the kernel.
    pub kernel: (u32, u32),
}

/// What a failed BPF_LINK_CREATE means. The kernel keeps few numbers of its own here (EBUSY, EEXIST, EPERM, EOPNOTSUPP);
/// the rest of what comes in native mode is the driver's choice.
pub(super) fn explain(ifname: &str, mode: AttachMode, errno: Errno, seen: Circumstances) -> AttachError {
    let other = |why: &str, errno| {
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        AttachError::Other(Error::new("BPF_LINK_CREATE", format!("on {ifname}, {mode} mode{why}"), errno))
    };
    let ifname = ifname.to_string();
    match errno.0 {
        libc::EPERM | libc::EACCES => AttachError::Permission { ifname, missing: seen.missing },
        // The kernel says EINVAL of an unknown index.
        _ if !seen.exists => other("the interface is gone", Errno(libc::ENODEV)),
        libc::EBUSY | libc::EEXIST if let Some(XdpAttached { mode, prog_id: id, prog_name }) = seen.foreign => {
            AttachError::Busy { ifname, name: prog_name.unwrap_or_else(|| "(name unknown)".into()), id, mode }
        }
        libc::EEXIST => other("the bond or team above it runs an XDP program: bind that one, or remove it", errno),
        libc::EINVAL if seen.kernel < (5, 9) => AttachError::KernelTooOld { ifname, kernel: seen.kernel },
        libc::EMFILE | libc::ENFILE => other("raise `ulimit -n`", errno),
        libc::EOPNOTSUPP => AttachError::NotSupported { ifname, mode, errno },
        _ if mode == AttachMode::Native => AttachError::NotSupported { ifname, mode, errno },
        _ => other("", errno),
    }
}

/// What a thread without `missing` should do about it.
pub fn needs(missing: &[&str]) -> String {
    let mend = "run as root or `setcap cap_net_admin,cap_net_raw,cap_bpf,cap_ipc_lock+ep` the program";
    if missing.is_empty() {
        // CAP_BPF of a user namespace looks like the real one, and does not count.
        "the needed capabilities are there, so a user namespace (container), a seccomp filter or a security module \
         forbids BPF; kernel.unprivileged_bpf_disabled=0 would not help: allow it where the container is set up"
            .into()
    } else {
        format!("this thread lacks {}: {mend}", missing.join(" and "))
    }
}

fn mode_hint(ifname: &str, mode: AttachMode, errno: Errno) -> String {
    if mode == AttachMode::Generic {
        return String::new();
    }
    let why = match errno.0 {
        libc::ERANGE | libc::EINVAL => &format!(
            "often the MTU (on veth, the peer's) is too large for native XDP: lower it with \
             `ip link set dev {ifname} mtu 1500`"
        ),
        libc::EOPNOTSUPP => "the driver cannot, or not with its present settings (LRO, channels); see `dmesg`",
        libc::ENOMEM | libc::ENOSPC => {
            &format!("often too few queues are left for XDP: use fewer with `ethtool -L {ifname} combined N`")
        }
        _ => "see `dmesg` for the driver's reason",
    };
    format!("; {why}, or use generic mode")
}

fn off_word(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Native => "xdpdrv",
        XdpMode::Generic => "xdpgeneric",
        XdpMode::Offload => "xdpoffload",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Circumstances {
        Circumstances { exists: true, foreign: None, missing: vec![], kernel: (6, 1) }
    }

    fn foreign() -> Option<XdpAttached> {
        Some(XdpAttached { mode: XdpMode::Generic, prog_id: 17, prog_name: Some("firewall".into()) })
    }

    fn said(mode: AttachMode, errno: i32, seen: Circumstances) -> (AttachError, String) {
        let e = explain("nic0", mode, Errno(errno), seen);
        let text = e.to_string();
        assert!(text.contains("nic0"), "{text}");
        (e, text)
    }

    #[test]
    fn a_driver_that_refuses_native_mode_leads_to_the_next_step() {
        for errno in [libc::EOPNOTSUPP, libc::ERANGE, libc::EINVAL, libc::ENOMEM, libc::ENOSPC, libc::EIO, libc::EBUSY]
        {
            let (e, text) = said(AttachMode::Native, errno, calm());
            assert!(matches!(e, AttachError::NotSupported { mode: AttachMode::Native, .. }), "{text}");
            assert_eq!(e.errno(), Errno(errno));
            assert!(text.contains("generic mode"), "{text}");
        }
        let (e, text) = said(AttachMode::Generic, libc::EOPNOTSUPP, calm());
        assert!(matches!(e, AttachError::NotSupported { mode: AttachMode::Generic, .. }), "{text}");
        assert!(matches!(said(AttachMode::Generic, libc::EIO, calm()).0, AttachError::Other(_)));
    }

    #[test]
    fn a_foreign_program_is_named_with_the_command_that_removes_it() {
        for errno in [libc::EBUSY, libc::EEXIST] {
            for mode in [AttachMode::Native, AttachMode::Generic] {
                let (e, text) = said(mode, errno, Circumstances { foreign: foreign(), ..calm() });
                assert!(matches!(e, AttachError::Busy { id: 17, mode: XdpMode::Generic, .. }), "{text}");
                assert_eq!(e.errno(), Errno(libc::EBUSY));
                for part in ["firewall", "id 17", "ip link set dev nic0 xdpgeneric off"] {
                    assert!(text.contains(part), "{text}");
                }
            }
        }
        let nameless = Some(XdpAttached { mode: XdpMode::Native, prog_id: 18, prog_name: None });
        let (_, text) = said(AttachMode::Native, libc::EBUSY, Circumstances { foreign: nameless, ..calm() });
        assert!(text.contains("id 18") && text.contains("xdpdrv off"), "{text}");
    }

    #[test]
    fn missing_capabilities_are_told() {
        let (e, text) = said(AttachMode::Native, libc::EPERM, Circumstances { missing: vec!["CAP_BPF"], ..calm() });
        assert_eq!(e.errno(), Errno(libc::EPERM));
        assert!(text.contains("lacks CAP_BPF") && text.contains("setcap"), "{text}");
        let (_, text) = said(AttachMode::Native, libc::EPERM, calm());
        assert!(text.contains("user namespace"), "{text}");
    }

    #[test]
    fn einval_is_told_apart() {
        let (e, _) = said(AttachMode::Native, libc::EINVAL, Circumstances { exists: false, ..calm() });
        assert_eq!(e.errno(), Errno(libc::ENODEV));
        assert!(matches!(e, AttachError::Other(_)));
        let (e, text) = said(AttachMode::Generic, libc::EINVAL, Circumstances { kernel: (5, 4), ..calm() });
        assert!(matches!(e, AttachError::KernelTooOld { kernel: (5, 4), .. }));
        assert!(text.contains("5.4") && text.contains("5.9"), "{text}");
    }
}
