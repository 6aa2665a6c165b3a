//! What the engine hands to a client for a registered fd: plain data and descriptors, as they would travel over a socket.

use crate::ctl::RegisterReply;
use crate::port::nic::NicPlan;
use crate::ring::{KringPlace, RingPlace};
use crate::sys::{Fd, Mode};
use std::sync::Arc;

/// Names a registration until it is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrantId(pub u64);

/// A registration: what a client maps to sync the rings.
#[derive(Debug)]
pub struct Grant {
    /// Its name.
    pub id: GrantId,
    /// What the program is told.
    pub reply: RegisterReply,
    /// The region that the program maps.
    pub region: Arc<Fd>,
    /// Private state of the port's rings.
    pub private: Arc<Fd>,
    /// Size of that, bytes.
    pub private_size: u64,
    /// The bound transmit rings, lowest first.
    pub tx: Vec<RingGrant>,
    /// The bound receive rings, lowest first.
    pub rx: Vec<RingGrant>,
    /// Name of the port.
    pub name: String,
    /// How the NIC is driven, for a port that is one.
    pub mode: Option<Mode>,
    /// What keeps the XDP program on the NIC, should the engine die.
    pub link: Option<Arc<Fd>>,
}

/// One bound ring.
#[derive(Clone, Debug)]
pub struct RingGrant {
    /// Where the ring lies in the region.
    pub ring: RingPlace,
    /// Where its private state lies.
    pub kring: KringPlace,
    /// What carries it.
    pub carrier: CarrierGrant,
}

/// What a client needs to sync one ring.
#[derive(Clone, Debug)]
pub enum CarrierGrant {
    /// A queue of a NIC.
    Nic {
        /// Its AF_XDP socket.
        socket: Arc<Fd>,
        /// Sizes and addresses of that socket.
        plan: NicPlan,
    },
    /// Nothing.
    Null,
    /// The ring at the other end of a pipe, in the same region and the same private memory.
    Pipe {
        /// That ring.
        peer: RingPlace,
        /// Its state.
        peer_kring: KringPlace,
        /// Eventfd that wakes who sleeps on this ring.
        wake: Arc<Fd>,
        /// Eventfd that wakes who sleeps on the other one.
        wake_peer: Arc<Fd>,
    },
}
