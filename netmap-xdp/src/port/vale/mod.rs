//! VALE ports: a learning switch that lives in shared memory and runs in the senders' threads.
//!
//! ```text
//! ValeTx::sync      the sender: gather up to 1024 slots -> look destinations up -> one batch per destination ring
//!                   reserve slots there (lease.rs), copy, report, wake who sleeps
//! ValeRx::sync      the receiver: take what was reported, give back what was released
//! ```
//! `switch` is the state that ports share, `lease` how senders share a receive ring, `forward` the forwarding itself. A
//! sender reaches the rings of others through a [`Directory`]: the engine in the same process, or netmapd. What it found
//! is kept until the entry of the port in the switch says that it changed.

mod forward;
pub mod lease;
pub mod switch;

use super::{Audience, BadSlot, Carrier, Wake};
use crate::abi::{NS_BUF_CHANGED, NS_MOREFRAG};
use crate::index::{next_slot, prev_slot};
use crate::ring::{Drop, Kring};
use crate::shm::Patience;
use crate::sync::Ordering::*;
use crate::sys::Fd;
use forward::Scratch;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, TryLockError};
use switch::Switch;

/// The receive rings of a port, mapped for its peers to fill.
pub struct Destination {
    /// By number; none where nobody has bound the ring.
    pub rings: Vec<Option<Inlet>>,
}

/// A receive ring, from the side of those who fill it.
pub struct Inlet {
    kring: Kring,
    wake: Wake,
    /// A set that changes makes a new generation.
    monitors: Audience,
}

impl Inlet {
    /// `wake` is the eventfd of whoever sleeps on the ring.
    pub fn new(kring: Kring, wake: Arc<Fd>, monitors: Audience) -> Inlet {
        Inlet { kring, wake: Wake::new(wake.clone(), wake), monitors }
    }

    /// The receiver has something new: its monitors see it first, then it is woken.
    #[inline]
    fn announce(&self, client: u32) {
        self.monitors.show(client, &self.kring);
        self.wake.rouse(&self.kring);
    }

    /// Whether the ring has other monitors than these.
    #[inline]
    fn stale(&self) -> bool {
        self.monitors.stale(&self.kring)
    }
}

/// Finds the rings of a switch's ports. Asked once for each generation of a port, outside of any lease.
pub trait Directory: Send + Sync {
    /// The receive rings of port `port` of switch `switch`, if its generation is still that.
    fn resolve(&self, switch: u64, port: u8, generation: u32) -> Option<Arc<Destination>>;
}

/// A sender's place in a switch.
pub struct Seat {
    /// The switch's state.
    pub switch: Switch,
    /// Its name for the directory.
    pub id: u64,
    /// The sender's own port.
    pub port: u8,
    /// What the port's entry says while the sender sits there.
    pub tenant: u32,
}

/// The transmit side of a port.
pub struct ValeTx {
    seat: Option<Seat>,
    directory: Arc<dyn Directory>,
    /// Taken by the holder of the ring's lock; a lock of its own, since the ring's may be scribbled.
    scratch: Mutex<Scratch>,
}

impl ValeTx {
    /// A port without a seat, persistent and not attached to a switch, loses what it sends.
    pub fn new(seat: Option<Seat>, directory: Arc<dyn Directory>) -> ValeTx {
        ValeTx { seat, directory, scratch: Mutex::new(Scratch::new()) }
    }
}

impl Carrier for ValeTx {
    fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
        let mut scratch = match self.scratch.try_lock() {
            Ok(scratch) => scratch,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let (head, n) = (k.rhead(), k.num_slots());
        if head >= n {
            return Err(BadSlot);
        }
        let seated = self.seat.as_ref().filter(|s| s.switch.port(s.port).tenant.load(Relaxed) == s.tenant);
        if let Some(seat) = seated {
            let mut i = k.hwcur();
            while i != head {
                i = scratch.gather(k, seat, i, head);
                scratch.flush(k, seat, &*self.directory);
            }
        }
        k.set_hwcur(head);
        k.set_hwtail(prev_slot(head, n));
        Ok(())
    }

    /// A sync takes everything, so there is nothing to wait for.
    fn signal(&self) -> Option<(RawFd, i32)> {
        None
    }
}

/// The receive side of one ring of a port.
pub struct ValeRx {
    wake: Wake,
}

impl ValeRx {
    /// `wake` is the eventfd that senders write.
    pub fn new(wake: Arc<Fd>) -> ValeRx {
        ValeRx { wake: Wake::new(wake.clone(), wake) }
    }
}

impl Carrier for ValeRx {
    #[inline]
    fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
        let (head, n) = (k.rhead(), k.num_slots());
        let mut i = k.hwcur();
        // Both were checked, but other processes can write them.
        if i >= n || head >= n {
            return Err(BadSlot);
        }
        if i != head {
            let (mut packets, mut bytes) = (0, 0);
            while i != head {
                let slot = k.slot(i);
                let flags = slot.flags.load(Relaxed);
                if flags & NS_BUF_CHANGED != 0 {
                    slot.flags.store(flags & !NS_BUF_CHANGED, Relaxed);
                    if !k.is_buffer(slot.buf_idx.load(Relaxed)) {
                        // Senders find no buffer here either; what they would have put here is lost and counted.
                        k.dropped(Drop::BadBuffer);
                    }
                }
                packets += u64::from(flags & NS_MOREFRAG == 0);
                bytes += u64::from(slot.len.load(Relaxed));
                i = next_slot(i, n);
            }
            k.count(packets, bytes);
            // SYNC vale-cur: release pairs with the acquire in `lease::reserve`: the slots before hwcur are the senders'.
            k.state().hwcur.store(head, Release);
        }
        let s = k.state();
        // SYNC vale-tail: acquire pairs with the release in `lease::advance`: the slots before the tail are filled.
        // SYNC vale-shown: or with that in `monitor::show`: the monitors have their copies.
        let tail = if s.taps.load(Relaxed) == 0 { &s.peer_tail } else { &s.shown }.load(Acquire);
        if tail < n {
            k.set_hwtail(tail);
        }
        Ok(())
    }

    fn signal(&self) -> Option<(RawFd, i32)> {
        self.wake.signal()
    }

    fn bell(&self) -> bool {
        true
    }

    fn arm(&self, k: &Kring) -> bool {
        self.wake.arm(k)
    }

    fn filled_by_peers(&self) -> bool {
        true
    }

    fn bury_engine(&self, k: &Kring, client: u32) {
        lease::bury(k, lease::SERVER, client, &Patience::once());
    }
}
