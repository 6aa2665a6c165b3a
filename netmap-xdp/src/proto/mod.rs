//! What client and daemon say to each other, over one Unix socket per process that keeps message boundaries.
//!
//! ```text
//! client                         daemon
//! Hello                       -> Welcome: the client's number in ring locks, whether it is admitted at all
//! Open                        -> Opened: the program's netmap descriptor (a socket; the daemon keeps the other end)
//! Register(token, namespace)  -> Granted: the grant with its descriptors; or Refused, with what became of its options
//! Attach(token)               -> Granted, Unbound or Unknown: for a descriptor that came from another process
//! Release(token)              -> Done: the binding is undone, the descriptor stays
//! Mapped(token)               -> Done: a granted NIC port whose rings were to be mapped first begins to work
//! Taps(token, ring)           -> Taps: the monitors of one of its rings
//! ValePeer(switch, port)      -> ValePeer: what a sender needs to fill the rings of a port of a switch
//! Steer(token, rules)         -> Done: which frames of its NIC netmap gets, from now on
//! Status(namespace, part)     -> Status: regions, ports, rings, holders, as far as the client may know of them
//! Ask(namespace, request)     -> Answer; for a registration: Done, if it would not be refused at once
//! anything                    -> Failed
//! ```
//! A *token* is a netmap descriptor passed along with the request that is about it. Pure data; who sends, and when, is the
//! business of `client` and `daemon`.

mod frame;
mod grant;
mod request;
mod status;
mod wire;

#[cfg(test)]
mod tests;

pub use frame::{Assembly, Header, PIECE, Piece, VERSION, open, pieces};
pub use wire::{Malformed, Reader, Wire, Writer};

use crate::ctl::{self, Condition, Failure};
use crate::engine::{Answers, Grant, Part, Status, TapsGrant, ValePeer};
use crate::ring::Dir;
use crate::sys::Fd;
use crate::xsk::Steering;
use std::sync::Arc;
use wire::{wire_enum, wire_struct};

/// Start of the abstract name that the daemon's end of every netmap descriptor has.
pub const TOKEN_NAME: &str = "netmap-xdp/";

/// From the client.
#[derive(Debug)]
pub enum ToEngine {
    /// The first message of a connection; the name of the program, for people.
    Hello(String),
    /// `open("/dev/netmap")`.
    Open,
    /// `NETMAP_REQ_REGISTER`.
    Register(RegisterToken),
    /// What is this descriptor?
    Attach(Arc<Fd>),
    /// The client could not use what it was granted.
    Release(Arc<Fd>),
    /// Any other request.
    Ask(Asked),
    /// Who monitors this ring?
    Taps(RingOf),
    /// Other steering rules for the NIC that a descriptor is bound to.
    Steer(Steer),
    /// How are the rings of this port of a switch filled?
    ValePeer(PeerAsked),
    /// What was granted is mapped.
    Mapped(Arc<Fd>),
    /// What is there?
    Status(StatusAsked),
}

/// A part of what there is.
#[derive(Debug)]
pub struct StatusAsked {
    /// The network namespace of who asks.
    pub namespace: Option<Arc<Fd>>,
    /// Which part.
    pub part: Part,
}

/// A ring of a bound descriptor.
#[derive(Debug)]
pub struct RingOf {
    /// The descriptor.
    pub token: Arc<Fd>,
    /// Direction of the ring.
    pub dir: Dir,
    /// Its index.
    pub ring: u16,
}

/// Steering rules for the NIC that a descriptor is bound to.
#[derive(Debug)]
pub struct Steer {
    /// The descriptor.
    pub token: Arc<Fd>,
    /// The rules; none: netmap gets every frame.
    pub rules: Option<Steering>,
}

/// A port of a switch, in one of its generations.
#[derive(Clone, Copy, Debug)]
pub struct PeerAsked {
    /// The switch.
    pub switch: u64,
    /// The port.
    pub port: u8,
    /// The generation that the sender saw.
    pub generation: u32,
}

/// A registration.
#[derive(Clone, Debug)]
pub struct RegisterToken {
    /// The descriptor to bind.
    pub token: Arc<Fd>,
    /// The network namespace in which the name counts; none where there is no `/proc`.
    pub namespace: Option<Arc<Fd>>,
    /// The request.
    pub register: ctl::Register,
    /// Memory of the program that it is to be bound in: a file, and where in it.
    pub memory: Option<(Arc<Fd>, u64)>,
}

/// A request that binds nothing.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The network namespace in which the name counts.
    pub namespace: Option<Arc<Fd>>,
    /// The request.
    pub request: ctl::Request,
}

/// From the daemon.
#[derive(Debug)]
pub enum FromEngine {
    /// Refused. The same bytes in every version.
    Failed(Failure),
    /// To `Hello`.
    Welcome(Welcome),
    /// To `Open`.
    Opened(Arc<Fd>),
    /// To `Register` and `Attach`.
    Granted(Granted),
    /// To `Attach`: open, and not bound.
    Unbound,
    /// To `Attach` and `Register`: no descriptor of this daemon's.
    Unknown,
    /// To `Ask`.
    Answer(ctl::Reply),
    /// To `Release`.
    Done,
    /// To `Taps`; nothing if there is no such ring.
    Taps(Option<TapsGrant>),
    /// To `Register`, in place of `Failed`.
    Refused(Refused),
    /// To `ValePeer`; nothing if that generation is over, or the sender has no port of that switch.
    ValePeer(Option<ValePeer>),
    /// To `Status`.
    Status(Status),
}

/// To `Hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// What the client writes into locks of rings; not 0.
    pub client: u32,
    /// Whether any rule lets this user bind anything.
    pub admitted: bool,
}

/// What a descriptor is bound to.
#[derive(Debug)]
pub struct Granted {
    /// What to map.
    pub grant: Arc<Grant>,
    /// `NR_*` of the registration.
    pub flags: u64,
    /// What became of its options.
    pub answers: Answers,
}

/// A registration that failed.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub failure: Failure,
    /// What became of its options.
    pub answers: Answers,
}

wire_struct! {
    RegisterToken { token, namespace, register, memory }
    Asked { namespace, request }
    RingOf { token, dir, ring }
    Steer { token, rules }
    PeerAsked { switch, port, generation }
    StatusAsked { namespace, part }
    Welcome { client, admitted }
    Granted { grant, flags, answers }
    Refused { failure, answers }
}

wire_enum! {
    ToEngine {
        1 => Hello(name), 2 => Open, 3 => Register(r), 4 => Attach(token), 5 => Release(token), 6 => Ask(r),
        7 => Taps(r), 8 => ValePeer(r), 9 => Mapped(token), 10 => Status(r),
        11 => Steer(r),
    }
    FromEngine {
        0 => Failed(f), 1 => Welcome(w), 2 => Opened(fd), 3 => Granted(g), 4 => Unbound, 5 => Unknown, 6 => Answer(r),
        7 => Done, 8 => Taps(t), 9 => ValePeer(p), 10 => Status(s), 11 => Refused(r),
    }
}

impl Wire for Arc<Grant> {
    fn put(&self, to: &mut Writer) {
        (**self).put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Grant::take(from).map(Arc::new)
    }
}

/// Says that the two sides speak different versions, and what mends it.
pub fn version_mismatch(engine: u16, client: u16) -> Failure {
    Failure {
        errno: crate::sys::Errno(libc::EPROTO),
        message: format!(
            "netmapd speaks version {engine} of the protocol and the program's netmap-xdp version {client}: install \
             both from the same release and restart the older one"
        ),
    }
}

/// A message that makes no sense.
impl From<Malformed> for Failure {
    fn from(why: Malformed) -> Failure {
        Condition::System.says(why.to_string())
    }
}
