//! The spare buffers of a NIC's receive ring, and how far the kernel has buffers. For whoever holds the ring's lock.

use super::{Kring, NO_BUFFER};
use crate::sync::{AtomicU32, Ordering::*};

impl Kring {
    /// NIC receive: the slot up to which the kernel has buffers.
    #[inline]
    pub fn filled(&self) -> u32 {
        self.state.filled.load(Relaxed)
    }

    /// NIC receive: how many buffers are spare.
    #[inline]
    pub fn spare(&self) -> u32 {
        self.state.spares.load(Relaxed)
    }

    /// Sets that: those that count are the first ones of [`Kring::spares`].
    #[inline]
    pub fn set_spare(&self, count: u32) {
        self.state.spares.store(count, Relaxed);
    }

    /// NIC receive: spare buffers, as far as they count.
    #[inline]
    pub fn spares(&self) -> &[AtomicU32] {
        &self.spares
    }

    /// One more that is spare; false if there is no room.
    pub fn add_spare(&self, idx: u32) -> bool {
        let count = self.spare();
        let Some(cell) = self.spares.get(count as usize) else { return false };
        cell.store(idx, Relaxed);
        self.set_spare(count + 1);
        true
    }

    /// Takes one that is spare.
    pub fn take_spare(&self) -> Option<u32> {
        let last = self.spare().checked_sub(1)?;
        let idx = self.spares.get(last as usize)?.load(Relaxed);
        self.set_spare(last);
        self.is_buffer(idx).then_some(idx)
    }

    /// NIC receive: how many buffers the kernel has.
    pub fn with_kernel(&self) -> u32 {
        self.span(self.hwtail(), self.filled()).filter(|&i| self.held(i).load(Relaxed) != NO_BUFFER).count() as u32
    }
}
