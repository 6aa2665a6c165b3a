//! netmap rings: the program's half in the region, the private half in a memfd of the port.
//!
//! `layout` holds the shared structures, `cursor` the pure validation of what a program wrote, `kring` the handle that a
//! sync works on. Who may touch what: the program writes `head`, `cur`, slots and `flags`; whoever holds the ring's lock
//! writes everything else. Knows nothing of what carries the packets.

mod cursor;
mod kring;
mod layout;

pub use cursor::{BadCursor, Cursors, rx_cursors, tx_cursors};
pub use kring::{Dir, Drop, Kring, KringPlace, LockGuard, NO_BUFFER, RingPlace};
pub use layout::{IfHeader, KringState, RingHeader, SlotView};
