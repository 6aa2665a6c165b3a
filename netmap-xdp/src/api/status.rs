//! What there is: regions with an account of their buffers, ports, rings, counters, and who holds them.
//!
//! With netmapd this is about all of its clients, as far as its policy lets this user know; with the engine in the
//! process, about the process.

use super::Error;
use crate::client;

pub use crate::engine::{GrantId, Holder, Kind, PortStatus, RegionStatus, RingStatus, Status};
pub use crate::ring::Dir;
pub use crate::sys::Mode;

/// Everything, with each buffer accounted for. `EPERM`: this user is not admitted; `ENXIO`: there is no netmapd, and none was
/// to be started.
pub fn status() -> Result<Status, Error> {
    client::status(true).map_err(Error::from)
}

/// The same without an account of the buffers, which takes a look at each of them: for counters at short intervals.
pub fn counters() -> Result<Status, Error> {
    client::status(false).map_err(Error::from)
}
