//! The safe Rust API: open a port, fill and empty rings, wait.
//!
//! ```no_run
//! use netmap_xdp::api::{Interest, Port};
//!
//! // Sends every received frame back.
//! let mut port = Port::open("netmap:veth0")?;
//! loop {
//!     port.wait(Interest::READ, None)?;
//!     let (mut rx, mut tx) = port.pair(0, 0);
//!     let n = rx.available().min(tx.space());
//!     for i in 0..n {
//!         if let (Some(from), Some(to)) = (rx.slot(i), tx.slot(i)) {
//!             from.swap_into(&to)?; // exchanges the buffers: nothing is copied
//!         }
//!     }
//!     rx.release(n);
//!     tx.advance(n);
//! }
//! # Ok::<(), netmap_xdp::api::Error>(())
//! ```
//!
//! A [`Port`] belongs to one thread at a time; several ports, for one ring each, serve several threads. Ring guards borrow
//! the port, so that a sync never meets a half-written ring; what they did reaches the ring when they are dropped, and the
//! wire or the kernel at the next [`Port::sync_tx`], [`Port::sync_rx`] or [`Port::wait`].

pub mod control;
pub mod doctor;
mod port;
mod ring;
pub mod status;

pub use port::{Builder, Port, wait_many};
pub use ring::{RxRing, Slot, TxRing};

use crate::ctl::{Failure, SpecError};
use crate::sys::Errno;

pub use crate::xsk::{Steering, SteeringError};

pub use crate::abi::{
    NS_BUF_CHANGED, NS_FORWARD, NS_INDIRECT, NS_MOREFRAG, NS_NO_LEARN, NS_PORT_SHIFT, NS_REPORT, NS_TXMON,
};

/// What failed, why, and what mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What the C API would report.
    pub errno: i32,
    /// For a person.
    pub message: String,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Failure> for Error {
    fn from(f: Failure) -> Error {
        Error { errno: f.errno.0, message: f.message }
    }
}

impl From<SpecError> for Error {
    fn from(e: SpecError) -> Error {
        Error { errno: e.errno.0, message: e.to_string() }
    }
}

impl From<Errno> for Error {
    fn from(e: Errno) -> Error {
        Error { errno: e.0, message: e.to_string() }
    }
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// Received packets.
    pub read: bool,
    /// Room to send.
    pub write: bool,
}

impl Interest {
    /// Received packets.
    pub const READ: Interest = Interest { read: true, write: false };
    /// Room to send.
    pub const WRITE: Interest = Interest { read: false, write: true };
    /// Either.
    pub const BOTH: Interest = Interest { read: true, write: true };
}

/// What waiting found. Nothing at all means that time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    /// There are packets.
    pub read: bool,
    /// There is room to send.
    pub write: bool,
    /// A ring was reinitialised, or its interface is gone.
    pub error: bool,
}

/// Counters of one ring since it was bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Packets that crossed the ring.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Syncs.
    pub syncs: u64,
    /// Packets dropped in the ring, all reasons.
    pub drops: u64,
}

/// A reason for drops, and how many there were.
pub type DropReason = (&'static str, u64);
