//! How a sender of this process reaches the rings of the other ports of a switch: the engine is asked once, the answer is
//! mapped, and all senders of the process share the mapping.

use super::binding::map_tap;
use super::host;
use crate::engine::{InletGrant, SeatGrant};
use crate::port::Audience;
use crate::port::vale::switch::{SIZE, Switch};
use crate::port::vale::{Destination, Directory, Inlet, Seat, ValeTx};
use crate::ring::Kring;
use crate::shm::Memory;
use crate::sys::{Errno, Error};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A port of a switch, in one of its generations.
type Key = (u64, u8, u32);

static MAPPED: Mutex<Option<HashMap<Key, Weak<Destination>>>> = Mutex::new(None);

/// The directory of this process.
struct Here;

impl Directory for Here {
    fn resolve(&self, switch: u64, port: u8, generation: u32) -> Option<Arc<Destination>> {
        let key = (switch, port, generation);
        let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        let mapped = mapped.get_or_insert_default();
        if let Some(known) = mapped.get(&key).and_then(Weak::upgrade) {
            return Some(known);
        }
        let found = Arc::new(map(key)?);
        mapped.retain(|_, d| d.strong_count() > 0);
        mapped.insert(key, Arc::downgrade(&found));
        Some(found)
    }
}

fn map((switch, port, generation): Key) -> Option<Destination> {
    let peer = host::vale_peer(switch, port, generation)?;
    let region = peer.region.map().ok()?;
    let private = Memory::map(&peer.private, peer.private_size as usize, 0, false).ok()?;
    let inlet = |r: InletGrant| {
        let ring = Kring::attach(&region, r.ring, &private, r.kring).ok()?;
        let taps = r.taps.taps.iter().filter_map(|t| map_tap(t, &region)).collect();
        Some(Inlet::new(ring, r.wake, Audience::new(r.taps.number, taps)))
    };
    Some(Destination { rings: peer.rings.into_iter().map(|r| r.and_then(inlet)).collect() })
}

/// The transmit side of a port.
pub(super) fn sender(seat: Option<&SeatGrant>) -> Result<ValeTx, Error> {
    let taken = |grant: &SeatGrant| -> Result<Seat, Error> {
        let failed = |e| Error::new("mmap", "a switch", e);
        let memory = Memory::map(&*grant.memory, SIZE, 0, false).map_err(failed)?;
        let switch = Switch::attach(&memory).map_err(|_| failed(Errno(libc::EINVAL)))?;
        Ok(Seat { switch, id: grant.switch, port: grant.port, tenant: grant.tenant })
    };
    Ok(ValeTx::new(seat.map(taken).transpose()?, Arc::new(Here)))
}
