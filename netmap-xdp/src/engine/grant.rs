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
    pub region: Fd,
    /// Private state of the port's rings.
    pub private: Fd,
    /// Size of that, bytes.
    pub private_size: u64,
    /// The bound transmit rings, lowest first.
    pub tx: Vec<RingGrant>,
    /// The bound receive rings, lowest first.
    pub rx: Vec<RingGrant>,
    /// Name of the interface.
    pub ifname: String,
    /// How the NIC is driven.
    pub mode: Mode,
}

/// One bound ring.
#[derive(Clone, Debug)]
pub struct RingGrant {
    /// Where the ring lies in the region.
    pub ring: RingPlace,
    /// Where its private state lies.
    pub kring: KringPlace,
    /// The AF_XDP socket of its queue.
    pub socket: Arc<Fd>,
    /// Sizes and addresses of that socket.
    pub plan: NicPlan,
}
