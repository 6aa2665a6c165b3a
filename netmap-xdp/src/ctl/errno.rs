//! Everything that a control request can be refused for, with the errno that the original gives.
//!
//! The one place where an errno of the control path is chosen: [`Condition`] is the table, the constructors of
//! [`Failure`] add the words. What a user reads says what failed, why, and what mends it.

use crate::sys::{Errno, NIC_BUF_SIZES};
use std::fmt;

/// A refused request: what the program gets, and what a person reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the `ioctl` fails with.
    pub errno: Errno,
    /// What failed, why, and what mends it. One line, no full stop.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Errno {
    fn from(failure: Failure) -> Errno {
        failure.errno
    }
}

macro_rules! conditions {
    ($( $name:ident $errno:ident $why:literal $source:literal; )*) => {
        /// Why a request is refused. The names are those of the table in the documentation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Condition { $(
            #[doc = concat!("`", stringify!($errno), "`: ", $why, ". Original: `", $source, "`.")]
            $name,
        )* }

        impl Condition {
            /// Every row of the table, in its order.
            pub const ALL: &[Condition] = &[$( Condition::$name, )*];

            /// Name of the row.
            pub const fn name(self) -> &'static str {
                match self { $( Condition::$name => stringify!($name), )* }
            }

            /// Name of the errno.
            pub const fn errno_name(self) -> &'static str {
                match self { $( Condition::$name => stringify!($errno), )* }
            }

            /// The errno.
            pub const fn errno(self) -> Errno {
                match self { $( Condition::$name => Errno(libc::$errno), )* }
            }

            /// What is wrong, in a few words.
            pub const fn why(self) -> &'static str {
                match self { $( Condition::$name => $why, )* }
            }

            /// Where the original decides the same; `-` if it has no such case.
            pub const fn source(self) -> &'static str {
                match self { $( Condition::$name => $source, )* }
            }
        }
    };
}

conditions! {
    // The shape of a request.
    NullArgument          EINVAL     "the ioctl has no argument" "linux_netmap_ioctl";
    BadAddress            EFAULT     "an address in the request is not readable or writable" "copyin, copyout";
    BadVersion            EINVAL     "the API version is not one that is served" "netmap_ioctl";
    ReservedNotZero       EINVAL     "a reserved field is not zero" "nmreq_copyin";
    BodyMissing           EINVAL     "the request needs a body and has none" "nmreq_copyin";
    BodyUnexpected        EINVAL     "the request has a body and takes none" "nmreq_copyin";
    UnknownRequest        EINVAL     "the type of the request is not known" "netmap_ioctl";
    UnknownIoctl          EOPNOTSUPP "the ioctl is not one of netmap's" "netmap_ioctl_legacy";
    OptionInvalid         EINVAL     "an option has type 0" "nmreq_copyin";
    OptionDuplicate       EINVAL     "an option is given twice" "nmreq_copyin";
    OptionsTooLong        EMSGSIZE   "the options are too long, or their list is a loop" "nmreq_copyin";
    UnsupportedOption     EOPNOTSUPP "an option is not supported for this request or port" "nmreq_checkoptions";
    LegacyPassthrough     ENOMEM     "the legacy passthrough commands are not supported" "nmreq_from_legacy";
    HdrLength             EINVAL     "a virtio-net header has 0, 10 or 12 bytes" "netmap_ioctl";
    CsbMissing            EINVAL     "the request needs the CSB option" "netmap_ioctl";
    KloopSleep            EINVAL     "the sync loop sleeps for a second at most" "netmap_sync_kloop";
    KloopModeBits         EINVAL     "the mode of the sync loop has unknown bits" "netmap_sync_kloop";
    CsbNotExclusive       EINVAL     "a CSB needs rings that are bound exclusively" "netmap_csb_validate";
    CsbUnaligned          EINVAL     "the arrays of a CSB begin at multiples of 64 bytes" "netmap_csb_validate";
    CsbAddress            EFAULT     "the memory of a CSB cannot be read or written" "netmap_csb_validate";
    CsbInUse              EBUSY      "the sync loop is running" "netmap_csb_validate";
    KloopWithoutCsb       EINVAL     "the sync loop works on a CSB" "netmap_sync_kloop";
    KloopRunning          EBUSY      "the sync loop is running already" "netmap_sync_kloop";
    KloopEventfds         EINVAL     "one pair of eventfds per ring, and all that the mode needs" "netmap_sync_kloop";
    NoOffsets             EOPNOTSUPP "packets of this port cannot have such offsets" "netmap_offsets_init";
    OffsetBits            EINVAL     "an offset field has at most 64 bits" "netmap_offsets_init";
    OffsetTooLarge        EINVAL     "an offset lies in the buffer, in its field and below its largest" "netmap_offsets_init";
    OffsetsFixed          EBUSY      "a ring in use allows smaller offsets only" "netmap_offsets_init";
    ExtmemSizes           EINVAL     "objects of external memory have sizes that are not served" "netmap_config_obj_allocator";
    ExtmemShared          EOPNOTSUPP "external memory is neither one shared mapping nor anonymous" "-";
    ExtmemAddress         EFAULT     "external memory is not there" "nm_os_extmem_create";
    ExtmemTooSmall        ENOMEM     "external memory is too small for its pools" "netmap_mem_ext_create";
    RegionInUse           EBUSY      "the port lives in another region" "netmap_get_hw_na";
    BadName               EINVAL     "the name of the port cannot be understood" "nmreq_header_decode";

    // Binding.
    AlreadyBound          EBUSY      "the descriptor is bound already" "netmap_ioctl";
    NotBound              ENXIO      "the descriptor is not bound to a port" "netmap_ioctl";
    UnknownMemId          EINVAL     "no region has this memory id" "netmap_mem_find";
    DeprecatedPipeMode    EINVAL     "pipes are named by { and }, not by a mode" "netmap_get_na";
    NullWithoutRegion     EINVAL     "a null port has no region of its own and names none" "netmap_get_null_na";
    NotMonitorable        EINVAL     "nobody has the port open that is to be monitored" "netmap_get_monitor_na";
    BadPipeName           EINVAL     "the pipe has no name, no parent, or a mode without NIC rings" "netmap_get_pipe_na";
    NoSuchInterface       ENXIO      "there is no such interface" "netmap_get_na";
    NoHostRings           EINVAL     "the port has no host rings" "netmap_interp_ringid";
    RingOutOfRange        EINVAL     "the port has no ring of this number" "netmap_interp_ringid";
    InvalidMode           EINVAL     "the mode is not one of netmap's" "netmap_interp_ringid";
    RingsBusy             EBUSY      "a ring is bound exclusively, or exclusively asked for and bound" "netmap_krings_get";
    InterfaceBusy         EBUSY      "something else owns the interface" "netmap_ioctl";
    InterfaceFailed       ENXIO      "the interface has changed so that the open port cannot go on" "-";
    MtuTooLarge           EINVAL     "a packet of the interface does not fit a buffer" "netmap_buf_size_validate";
    BuffersUnfit          EINVAL     "the buffers of the region cannot be those of a NIC" "netmap_buf_size_validate";
    OutOfBuffers          ENOMEM     "the region has too few free buffers" "netmap_new_bufs";
    VnetHeader            EIO        "the port uses virtio-net headers, the program does not" "netmap_ioctl";
    NoVnetHeader          ENXIO      "only a VALE port has a virtio-net header" "netmap_ioctl";
    NoSwitchModule        EINVAL     "no switch has a module to configure" "netmap_bdg_config";

    // VALE.
    BadSwitchName         ENOMEM     "this cannot be the name of a port of a switch" "netmap_get_bdg_na";
    TooManySwitches       ENOMEM     "there are too many switches" "nm_find_bridge";
    SwitchFull            ENOMEM     "the switch has no room for another port" "netmap_get_bdg_na";
    NoSuchValePort        ENXIO      "there is no such port" "netmap_get_bdg_na";
    NotAValePort          EINVAL     "only the port of a switch can be meant here" "netmap_bdg_attach";
    NoSuchSwitch          ENOENT     "there is no such switch, or no further port" "netmap_vale_list";
    PortExists            EEXIST     "the name is taken" "netmap_vi_create";
    PortBusy              EBUSY      "the port is in use" "netmap_bdg_attach";
    AttachedWhole         EINVAL     "all NIC rings are attached, with or without the host rings" "netmap_bwrap_bdg_ctl";
    NotPolled             EOPNOTSUPP "only a NIC that is attached to a switch can be polled" "nm_bdg_polling";
    PollingAlready        EFAULT     "the port is polled already, or is not" "nm_bdg_ctl_polling_start";
    BadPolling            EINVAL     "no such rings or CPUs can poll" "get_polling_cfg";

    // AF_XDP.
    ForeignXdp            EBUSY      "another XDP program is attached to the interface" "-";
    BadSteering           EINVAL     "the steering rules cannot be understood, or the port is no NIC" "-";
    SteeringInUse         EBUSY      "the interface is open with other steering rules" "-";
    SteeringFixed         EPERM      "the steering rules of the interface are the administrator's" "-";
    QueueTaken            EBUSY      "another AF_XDP socket is bound to the queue" "-";
    MissingCapability     EPERM      "the process may not do this" "-";
    NoXdp                 EOPNOTSUPP "the kernel or the driver cannot run what AF_XDP needs" "netmap_get_hw_na";
    System                EIO        "a system call failed" "-";
}

impl Condition {
    /// The failure with words of its own.
    pub fn says(self, message: impl Into<String>) -> Failure {
        Failure { errno: self.errno(), message: message.into() }
    }

    /// The failure with the words of the table.
    pub fn plain(self) -> Failure {
        self.says(self.why())
    }
}

impl Failure {
    /// No interface is called `name` in the caller's network namespace.
    pub fn no_such_interface(name: impl fmt::Display) -> Failure {
        Condition::NoSuchInterface
            .says(format!("{name}: there is no such interface in this network namespace; see `ip link`"))
    }

    /// `ring` of the port does not exist; it has `have` rings of the `kind` ("NIC", "host") asked for.
    pub fn ring_out_of_range(ring: u16, kind: &str, have: u16) -> Failure {
        let last = have.saturating_sub(1);
        Condition::RingOutOfRange.says(format!("{kind} ring {ring} does not exist; there are {have}, 0 to {last}"))
    }

    /// The mode is none of `NR_REG_*`.
    pub fn invalid_mode(mode: u32) -> Failure {
        Condition::InvalidMode.says(format!("mode {mode} is not one of NR_REG_*"))
    }

    /// A null port was asked for without saying in which region.
    pub fn null_without_region(name: impl fmt::Display) -> Failure {
        Condition::NullWithoutRegion
            .says(format!("{name}: a null port needs a memory id; 1 is the region of all NICs (`@1`)"))
    }

    /// A monitor was asked for, of a port that nobody has open.
    pub fn not_open(name: impl fmt::Display) -> Failure {
        Condition::NotMonitorable
            .says(format!("{name}: only a port that is open can be monitored; start the program that uses it first"))
    }

    /// The port has no host rings.
    pub fn no_host_rings() -> Failure {
        Condition::NoHostRings.says("this port has no host rings; leave out `^` or `*` (NR_REG_SW, NR_REG_NIC_SW)")
    }

    /// A ring is taken: bound exclusively by another, or bound by another and exclusively asked for.
    pub fn rings_busy(name: impl fmt::Display, ring: u16, exclusive: bool) -> Failure {
        let why = if exclusive {
            "is bound by another descriptor, and exclusive use was asked for"
        } else {
            "is bound exclusively by another descriptor"
        };
        Condition::RingsBusy.says(format!("{name}: ring {ring} {why}; close that one, or bind another ring"))
    }

    /// The fd is bound to `name` already.
    pub fn already_bound(name: impl fmt::Display) -> Failure {
        Condition::AlreadyBound.says(format!("this descriptor is bound to {name} already; open /dev/netmap once more"))
    }

    /// A sync, `mmap` or the like on an fd that is not bound.
    pub fn not_bound() -> Failure {
        Condition::NotBound.says("this descriptor is not bound to a port; NETMAP_REQ_REGISTER comes first")
    }

    /// The region cannot hold what was asked for. `setting` is what to raise, e.g. `NETMAP_XDP_BUFFERS`; `set` is its
    /// present value, to which what is lacking is added.
    pub fn out_of_buffers(need: u64, have: u64, setting: &str, set: u64) -> Failure {
        let lack = need.saturating_sub(have);
        let enough = set.saturating_add(lack);
        Condition::OutOfBuffers.says(format!(
            "{need} buffers are needed and {have} are free: {lack} too few; set {setting}={enough} or more, or ask for \
             fewer rings, slots or extra buffers"
        ))
    }

    /// No region has this id.
    pub fn unknown_mem_id(id: u16) -> Failure {
        Condition::UnknownMemId.says(format!("no region has memory id {id}; leave it out to use that of the port"))
    }

    /// Frames of the interface do not fit into the buffers; `cures` says what mends it beside an MTU that `fits`.
    pub fn mtu_too_large(name: impl fmt::Display, mtu: u32, why: &str, fits: u32, cures: &str) -> Failure {
        Condition::MtuTooLarge
            .says(format!("{name}: its MTU {mtu} does not fit: {why}; lower it: ip link set {name} mtu {fits}{cures}"))
    }

    /// Buffers of this size are no UMEM.
    pub fn buffers_unfit(name: impl fmt::Display, size: u32) -> Failure {
        let sizes = NIC_BUF_SIZES.map(|n| n.to_string()).join(" or ");
        Condition::BuffersUnfit
            .says(format!("{name}: the region has buffers of {size} bytes, and those of a NIC have {sizes}"))
    }

    /// An XDP program that is not ours is attached to the interface. An empty name is a program without one.
    pub fn foreign_xdp(interface: impl fmt::Display, program: &str, id: u32) -> Failure {
        let program = if program.is_empty() { "(no name)" } else { program };
        Condition::ForeignXdp.says(format!(
            "{interface}: XDP program {program}, id {id}, is attached and is left alone; detach it: ip link set \
             {interface} xdp off (see `bpftool net`)"
        ))
    }

    /// Steering rules that make no sense; `whence` says where they were set.
    pub fn bad_steering(whence: &str, why: impl fmt::Display) -> Failure {
        Condition::BadSteering
            .says(format!("{whence}: {why}; nothing is bound, for without its rules netmap would get all"))
    }

    /// Steering is for NICs.
    pub fn not_steerable() -> Failure {
        Condition::BadSteering.says("only the rings of a NIC have steering rules; this port has none")
    }

    /// The interface is open with other rules.
    pub fn steering_in_use(interface: impl fmt::Display, now: impl fmt::Display) -> Failure {
        Condition::SteeringInUse.says(format!(
            "{interface}: it is open with other steering rules ({now}); bind it without any, or change them there with \
             Port::steer"
        ))
    }

    /// netmapd's configuration has rules for the interface.
    pub fn steering_fixed(interface: impl fmt::Display, fixed: impl fmt::Display) -> Failure {
        Condition::SteeringFixed.says(format!(
            "{interface}: its steering rules stand in netmapd.conf ({fixed}); bind it without others, or have root change \
             them there"
        ))
    }

    /// An AF_XDP socket of another program has the queue.
    pub fn queue_taken(interface: impl fmt::Display, queue: u32) -> Failure {
        Condition::QueueTaken.says(format!(
            "{interface}: queue {queue} is taken by another AF_XDP socket; end that program, or bind another ring (see \
             `ss --xdp`)"
        ))
    }

    /// The same of a program that outlived the netmapd that it bound the queue with.
    pub fn queue_of_survivor(interface: impl fmt::Display, queue: u32, who: impl fmt::Display) -> Failure {
        Condition::QueueTaken.says(format!(
            "{interface}: queue {queue} is still in use since before netmapd was restarted, by {who}; it is free when that \
             program closes it; other queues can be bound now"
        ))
    }

    /// The same of host rings.
    pub fn host_rings_of_survivor(interface: impl fmt::Display, who: impl fmt::Display) -> Failure {
        Condition::QueueTaken.says(format!(
            "{interface}: its host rings are still in use since before netmapd was restarted, by {who}; they are free when \
             that program closes them; what the host receives (`/T`) can be bound now"
        ))
    }

    /// Another engine of ours drives the interface.
    pub fn other_engine(interface: impl fmt::Display, who: impl fmt::Display) -> Failure {
        Condition::ForeignXdp.says(format!(
            "{interface}: netmap-xdp drives it in {who} already, which is another engine; close it there, or let both meet \
             in one netmapd (NETMAP_XDP_ENGINE=auto, the same NETMAP_XDP_SOCKET)"
        ))
    }

    /// Something else, e.g. a switch, owns the interface.
    pub fn interface_busy(name: impl fmt::Display, owner: impl fmt::Display) -> Failure {
        Condition::InterfaceBusy.says(format!("{name}: it belongs to {owner}; detach it there"))
    }

    /// The kernel refused `what` for lack of a capability.
    pub fn missing_capability(what: impl fmt::Display, capabilities: &str) -> Failure {
        Condition::MissingCapability.says(format!("{what}: not permitted; run as root or with {capabilities}"))
    }

    /// The kernel or the driver lacks what AF_XDP needs.
    pub fn no_xdp(name: impl fmt::Display, why: impl fmt::Display) -> Failure {
        Condition::NoXdp.says(format!("{name}: {why}"))
    }

    /// An option that nothing processed for this request.
    pub fn unsupported_option(option: u32) -> Failure {
        let name = super::option_name(option);
        Condition::UnsupportedOption
            .says(format!("option {name} ({option}) is not supported for this request and port"))
    }

    /// `valeS:P` is what the original does not take.
    pub fn bad_switch_name(name: impl fmt::Display) -> Failure {
        Condition::BadSwitchName.says(format!(
            "{name}: a port of a switch is valeS:P; valeS has letters, digits and _, 15 at most, and P 15 characters at most"
        ))
    }

    /// There are `most` switches already.
    pub fn too_many_switches(most: usize) -> Failure {
        Condition::TooManySwitches.says(format!("there are {most} switches already; close the ports of one"))
    }

    /// The switch has `most` ports already.
    pub fn switch_full(name: impl fmt::Display, most: usize) -> Failure {
        Condition::SwitchFull.says(format!("{name}: the switch has {most} ports already; use another switch"))
    }

    /// No switch has such a port.
    pub fn no_such_vale_port(name: impl fmt::Display) -> Failure {
        Condition::NoSuchValePort.says(format!("{name}: there is no such port; see `vale-ctl`"))
    }

    /// Something else than the port of a switch was named.
    pub fn not_a_vale_port(name: impl fmt::Display) -> Failure {
        Condition::NotAValePort.says(format!("{name}: a port of a switch is meant here, valeS:P"))
    }

    /// A port, or an interface, of this name is there already.
    pub fn port_exists(name: impl fmt::Display) -> Failure {
        Condition::PortExists.says(format!("{name}: the name is taken; choose another"))
    }

    /// The port is attached, or bound by somebody.
    pub fn port_busy(name: impl fmt::Display) -> Failure {
        Condition::PortBusy.says(format!("{name}: the port is in use; detach it, or end who has it open"))
    }

    /// Some of the rings of a NIC were to be attached.
    pub fn attached_whole(name: impl fmt::Display) -> Failure {
        Condition::AttachedWhole.says(format!(
            "{name}: all rings of a NIC are attached (NR_REG_ALL_NIC), or all and the host rings (NR_REG_NIC_SW)"
        ))
    }

    /// Polling of a port that is polled, or its end at one that is not.
    pub fn polling_already(name: impl fmt::Display, on: bool) -> Failure {
        Condition::PollingAlready.says(match on {
            true => format!("{name}: it is polled already; end that first"),
            false => format!("{name}: it is not polled"),
        })
    }

    /// Polling by CPUs, or of rings, that cannot be.
    pub fn bad_polling(name: impl fmt::Display, why: &str) -> Failure {
        Condition::BadPolling.says(format!("{name}: {why}"))
    }

    /// Polling of a port that is served by its own users.
    pub fn not_polled(name: impl fmt::Display) -> Failure {
        Condition::NotPolled
            .says(format!("{name}: only what is attached to a switch, a NIC or a port of another, can be polled"))
    }

    /// `NETMAP_REQ_PORT_HDR_SET` for a port that is no VALE port.
    pub fn no_vnet_header(name: impl fmt::Display) -> Failure {
        Condition::NoVnetHeader.says(format!("{name}: only a VALE port can have a virtio-net header"))
    }

    /// The port needs virtio-net headers and the program did not say that it knows them.
    pub fn vnet_header(name: impl fmt::Display, bytes: u32) -> Failure {
        Condition::VnetHeader.says(format!(
            "{name}: packets start with a virtio-net header of {bytes} bytes; the program must set NR_ACCEPT_VNET_HDR"
        ))
    }

    /// A system call failed in a way that is nobody's mistake; its own errno goes to the program.
    pub fn system(error: &crate::sys::Error) -> Failure {
        Failure { errno: error.errno, message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What programs of the original see, row by row; written down apart from the table so that neither changes alone.
    const EXPECTED: &[(Condition, i32)] = &[
        (Condition::NullArgument, libc::EINVAL),
        (Condition::BadAddress, libc::EFAULT),
        (Condition::BadVersion, libc::EINVAL),
        (Condition::ReservedNotZero, libc::EINVAL),
        (Condition::BodyMissing, libc::EINVAL),
        (Condition::BodyUnexpected, libc::EINVAL),
        (Condition::UnknownRequest, libc::EINVAL),
        (Condition::UnknownIoctl, libc::EOPNOTSUPP),
        (Condition::OptionInvalid, libc::EINVAL),
        (Condition::OptionDuplicate, libc::EINVAL),
        (Condition::OptionsTooLong, libc::EMSGSIZE),
        (Condition::UnsupportedOption, libc::EOPNOTSUPP),
        (Condition::LegacyPassthrough, libc::ENOMEM),
        (Condition::HdrLength, libc::EINVAL),
        (Condition::CsbMissing, libc::EINVAL),
        (Condition::KloopSleep, libc::EINVAL),
        (Condition::KloopModeBits, libc::EINVAL),
        (Condition::CsbNotExclusive, libc::EINVAL),
        (Condition::CsbUnaligned, libc::EINVAL),
        (Condition::CsbAddress, libc::EFAULT),
        (Condition::CsbInUse, libc::EBUSY),
        (Condition::KloopWithoutCsb, libc::EINVAL),
        (Condition::KloopRunning, libc::EBUSY),
        (Condition::KloopEventfds, libc::EINVAL),
        (Condition::NoOffsets, libc::EOPNOTSUPP),
        (Condition::OffsetBits, libc::EINVAL),
        (Condition::OffsetTooLarge, libc::EINVAL),
        (Condition::OffsetsFixed, libc::EBUSY),
        (Condition::ExtmemSizes, libc::EINVAL),
        (Condition::ExtmemShared, libc::EOPNOTSUPP),
        (Condition::ExtmemAddress, libc::EFAULT),
        (Condition::ExtmemTooSmall, libc::ENOMEM),
        (Condition::RegionInUse, libc::EBUSY),
        (Condition::BadName, libc::EINVAL),
        (Condition::AlreadyBound, libc::EBUSY),
        (Condition::NotBound, libc::ENXIO),
        (Condition::UnknownMemId, libc::EINVAL),
        (Condition::DeprecatedPipeMode, libc::EINVAL),
        (Condition::NullWithoutRegion, libc::EINVAL),
        (Condition::NotMonitorable, libc::EINVAL),
        (Condition::BadPipeName, libc::EINVAL),
        (Condition::NoSuchInterface, libc::ENXIO),
        (Condition::NoHostRings, libc::EINVAL),
        (Condition::RingOutOfRange, libc::EINVAL),
        (Condition::InvalidMode, libc::EINVAL),
        (Condition::RingsBusy, libc::EBUSY),
        (Condition::InterfaceBusy, libc::EBUSY),
        (Condition::InterfaceFailed, libc::ENXIO),
        (Condition::MtuTooLarge, libc::EINVAL),
        (Condition::BuffersUnfit, libc::EINVAL),
        (Condition::OutOfBuffers, libc::ENOMEM),
        (Condition::VnetHeader, libc::EIO),
        (Condition::NoVnetHeader, libc::ENXIO),
        (Condition::NoSwitchModule, libc::EINVAL),
        (Condition::BadSwitchName, libc::ENOMEM),
        (Condition::TooManySwitches, libc::ENOMEM),
        (Condition::SwitchFull, libc::ENOMEM),
        (Condition::NoSuchValePort, libc::ENXIO),
        (Condition::NotAValePort, libc::EINVAL),
        (Condition::NoSuchSwitch, libc::ENOENT),
        (Condition::PortExists, libc::EEXIST),
        (Condition::PortBusy, libc::EBUSY),
        (Condition::AttachedWhole, libc::EINVAL),
        (Condition::NotPolled, libc::EOPNOTSUPP),
        (Condition::PollingAlready, libc::EFAULT),
        (Condition::BadPolling, libc::EINVAL),
        (Condition::ForeignXdp, libc::EBUSY),
        (Condition::BadSteering, libc::EINVAL),
        (Condition::SteeringInUse, libc::EBUSY),
        (Condition::SteeringFixed, libc::EPERM),
        (Condition::QueueTaken, libc::EBUSY),
        (Condition::MissingCapability, libc::EPERM),
        (Condition::NoXdp, libc::EOPNOTSUPP),
        (Condition::System, libc::EIO),
    ];

    #[test]
    fn every_row_has_the_errno_that_programs_expect() {
        assert_eq!(EXPECTED.len(), Condition::ALL.len());
        for (&(expected, errno), &row) in EXPECTED.iter().zip(Condition::ALL) {
            assert_eq!(row, expected, "order of the table");
            assert_eq!(row.errno(), Errno(errno), "{}", row.name());
            assert_eq!(row.plain(), Failure { errno: Errno(errno), message: row.why().into() });
            assert_eq!(format!("{row:?}"), row.name());
            assert!(!row.source().is_empty() && row.errno_name().starts_with('E'));
        }
    }

    #[test]
    fn each_constructor_gives_its_row_and_says_what_mends_it() {
        use Condition as C;
        let error = crate::sys::Error::new("bind", "veth0 queue 1", Errno(libc::ENODEV));
        let table: &[(Failure, Condition, &[&str])] = &[
            (Failure::no_such_interface("eth9"), C::NoSuchInterface, &["eth9", "ip link"]),
            (Failure::ring_out_of_range(7, "NIC", 4), C::RingOutOfRange, &["ring 7", "4", "0 to 3"]),
            (Failure::ring_out_of_range(7, "NIC", 0), C::RingOutOfRange, &["there are 0"]),
            (Failure::invalid_mode(99), C::InvalidMode, &["99", "NR_REG"]),
            (Failure::not_open("eth0"), C::NotMonitorable, &["eth0", "open"]),
            (Failure::no_host_rings(), C::NoHostRings, &["host rings", "^"]),
            (Failure::rings_busy("eth0", 2, true), C::RingsBusy, &["eth0", "ring 2", "exclusive use"]),
            (Failure::rings_busy("eth0", 2, false), C::RingsBusy, &["bound exclusively"]),
            (Failure::already_bound("eth0"), C::AlreadyBound, &["eth0", "open /dev/netmap"]),
            (Failure::not_bound(), C::NotBound, &["REGISTER"]),
            (
                Failure::out_of_buffers(5000, 4100, "NETMAP_XDP_BUFFERS", 8192),
                C::OutOfBuffers,
                &["5000", "4100", "900 too few", "NETMAP_XDP_BUFFERS=9092"],
            ),
            (Failure::unknown_mem_id(7), C::UnknownMemId, &["memory id 7"]),
            (
                Failure::mtu_too_large("eth0", 9000, "a buffer of 2048", 1500, ", or use"),
                C::MtuTooLarge,
                &["eth0", "9000", "2048", "ip link set eth0 mtu 1500"],
            ),
            (Failure::buffers_unfit("eth0", 9024), C::BuffersUnfit, &["eth0", "9024", "2048 or 4096"]),
            (Failure::foreign_xdp("eth0", "drop_all", 42), C::ForeignXdp, &["eth0", "drop_all", "42", "xdp off"]),
            (Failure::foreign_xdp("eth0", "", 42), C::ForeignXdp, &["no name"]),
            (Failure::queue_taken("eth0", 3), C::QueueTaken, &["queue 3", "ss --xdp"]),
            (Failure::queue_of_survivor("eth0", 3, "process 7 (lb)"), C::QueueTaken, &["queue 3", "process 7"]),
            (Failure::host_rings_of_survivor("eth0", "process 7 (lb)"), C::QueueTaken, &["host rings", "process 7"]),
            (Failure::other_engine("eth0", "process 7 (lb)"), C::ForeignXdp, &["process 7", "NETMAP_XDP_ENGINE=auto"]),
            (Failure::bad_steering("NETMAP_XDP_STEER", "rule 1"), C::BadSteering, &["NETMAP_XDP_STEER", "rule 1"]),
            (Failure::not_steerable(), C::BadSteering, &["NIC"]),
            (Failure::steering_in_use("eth0", "default host"), C::SteeringInUse, &["eth0", "default host", "steer"]),
            (Failure::steering_fixed("eth0", "default host"), C::SteeringFixed, &["eth0", "netmapd.conf"]),
            (Failure::interface_busy("eth0", "vale0:"), C::InterfaceBusy, &["eth0", "vale0:"]),
            (C::InterfaceFailed.says("eth0 changed"), C::InterfaceFailed, &["eth0"]),
            (
                Failure::missing_capability("attaching to eth0", "CAP_NET_ADMIN"),
                C::MissingCapability,
                &["eth0", "CAP_NET_ADMIN"],
            ),
            (Failure::no_xdp("eth0", "the driver has no XDP"), C::NoXdp, &["eth0", "driver"]),
            (Failure::unsupported_option(5), C::UnsupportedOption, &["offsets", "5"]),
            (Failure::unsupported_option(1234), C::UnsupportedOption, &["unknown", "1234"]),
            (Failure::bad_switch_name("vale-:1"), C::BadSwitchName, &["vale-:1", "valeS:P"]),
            (Failure::too_many_switches(8), C::TooManySwitches, &["8"]),
            (Failure::switch_full("vale0:x", 254), C::SwitchFull, &["vale0:x", "254"]),
            (Failure::no_such_vale_port("vale0:x"), C::NoSuchValePort, &["vale0:x", "vale-ctl"]),
            (Failure::not_a_vale_port("eth0"), C::NotAValePort, &["eth0", "valeS:P"]),
            (Failure::port_exists("p"), C::PortExists, &["p", "taken"]),
            (Failure::port_busy("vale0:x"), C::PortBusy, &["vale0:x", "in use"]),
            (Failure::attached_whole("vale0:x"), C::AttachedWhole, &["vale0:x", "NR_REG_NIC_SW"]),
            (Failure::not_polled("vale0:x"), C::NotPolled, &["vale0:x", "NIC"]),
            (Failure::polling_already("vale0:x", true), C::PollingAlready, &["vale0:x", "already"]),
            (Failure::polling_already("vale0:x", false), C::PollingAlready, &["vale0:x", "not polled"]),
            (Failure::bad_polling("vale0:x", "too many"), C::BadPolling, &["vale0:x", "too many"]),
            (Failure::no_vnet_header("eth0"), C::NoVnetHeader, &["eth0", "VALE"]),
            (Failure::vnet_header("vale0:1", 12), C::VnetHeader, &["12 bytes", "NR_ACCEPT_VNET_HDR"]),
        ];
        for (failure, condition, words) in table {
            assert_eq!(failure.errno, condition.errno(), "{failure}");
            for word in *words {
                assert!(failure.message.contains(word), "{word:?} is not in {failure:?}");
            }
        }
        let system = Failure::system(&error);
        assert_eq!(system.errno, Errno(libc::ENODEV), "a system call's own errno is kept");
        assert!(system.message.contains("bind") && system.message.contains("veth0 queue 1"));
    }
}
