//! Sending a packet through the rings of a port.
//!
//! The rings are shared with the engine and with other users of the port, so cursors are read once, and what they and the
//! slots lead to is checked against the mapping.

use super::types::{Port, Region};
use libc::c_int;
use netmap_xdp::abi::{NS_MOREFRAG, netmap_if, netmap_ring, netmap_slot};
use netmap_xdp::sys::Errno;
use std::ffi::c_void;
use std::ptr;

/// `nmport_inject`: copies a packet into the first ring, from the current one on, that has room for it. Returns its size, or 0
/// if no ring has.
pub fn inject(port: &Port, packet: *const c_void, size: usize) -> Result<c_int, Errno> {
    // SAFETY: null, or the region that the port uses.
    let (Some(region), nifp) = (unsafe { port.mem.get().as_ref() }, port.nifp.get()) else { return Ok(0) };
    let (first, last) = (port.first_tx_ring.get(), port.last_tx_ring.get());
    let mut index = port.cur_tx_ring.get();
    for _ in first..=last {
        if !(first..=last).contains(&index) {
            index = first;
        }
        if let Some(ring) = Ring::new(region, nifp, index)
            && ring.push(packet.cast(), size)
        {
            port.cur_tx_ring.set(index);
            return Ok(size as c_int);
        }
        index = index.wrapping_add(1);
    }
    Ok(0)
}

/// A transmit ring, with what was read from it.
struct Ring<'a> {
    region: &'a Region,
    at: *mut netmap_ring,
    num_slots: u32,
    tail: u32,
    buf_size: usize,
    buf_ofs: i64,
    offset_mask: u64,
}

impl<'a> Ring<'a> {
    #[inline]
    fn new(region: &'a Region, nifp: *mut netmap_if, index: u16) -> Option<Ring<'a>> {
        // SAFETY: the table was found to lie within the region when the port was mapped, for all rings of the port.
        let offset = unsafe { nifp.wrapping_add(1).cast::<i64>().wrapping_add(index.into()).read_volatile() };
        let at = nifp.wrapping_byte_offset(offset as isize).cast::<netmap_ring>();
        if !within(region, at.cast(), size_of::<netmap_ring>()) || !at.is_aligned() {
            return None;
        }
        macro_rules! read {
            ($field:ident) => {
                // SAFETY: within the region and aligned.
                unsafe { (&raw const (*at).$field).read_volatile() }
            };
        }
        let (num_slots, tail) = (read!(num_slots), read!(tail));
        let ring = Ring {
            region,
            at,
            num_slots,
            tail,
            buf_size: read!(nr_buf_size) as usize,
            buf_ofs: read!(buf_ofs),
            offset_mask: read!(offset_mask),
        };
        let slots = (num_slots as usize).checked_mul(size_of::<netmap_slot>())?;
        (tail < num_slots && within(region, at.wrapping_add(1).cast(), slots)).then_some(ring)
    }

    /// Copies a packet into the ring; false if it does not fit.
    #[inline]
    fn push(&self, packet: *const u8, size: usize) -> bool {
        // SAFETY: within the region.
        let cur = unsafe { (&raw const (*self.at).cur).read_volatile() };
        if cur >= self.num_slots {
            return false;
        }
        let Some((to, room)) = self.free(cur) else { return false };
        let mut last = cur;
        if size <= room {
            // SAFETY: the program's packet has `size` bytes, and the buffer has room for them.
            unsafe { ptr::copy_nonoverlapping(packet, to, size) };
            self.set(cur, size as u16, 0);
        } else {
            // First whether it fits, then the copy: slots are not to be touched in vain.
            let mut left = size;
            while let Some((_, room)) = self.free(last)
                && left > room
            {
                left -= room;
                last = self.next(last);
            }
            if self.free(last).is_none() || !self.fill(cur, last, packet, size) {
                return false;
            }
        }
        let head = self.next(last);
        // SAFETY: within the region.
        unsafe {
            (&raw mut (*self.at).cur).write_volatile(head);
            (&raw mut (*self.at).head).write_volatile(head);
        }
        true
    }

    /// Copies a packet into the slots from `first` to `last`; false if their sizes are not those of a moment ago.
    fn fill(&self, first: u32, last: u32, packet: *const u8, size: usize) -> bool {
        let (mut slot, mut done) = (first, 0);
        loop {
            let Some((to, room)) = self.free(slot) else { return false };
            let part = if slot == last { size - done } else { room };
            if part > room || part > size - done {
                return false;
            }
            // SAFETY: the program's packet has `size` bytes, of which `done` are done, and the buffer has room for `part`.
            unsafe { ptr::copy_nonoverlapping(packet.add(done), to, part) };
            self.set(slot, part as u16, if slot == last { 0 } else { NS_MOREFRAG });
            if slot == last {
                return true;
            }
            done += part;
            slot = self.next(slot);
        }
    }

    #[inline]
    fn next(&self, slot: u32) -> u32 {
        if slot + 1 == self.num_slots { 0 } else { slot + 1 }
    }

    #[inline]
    fn slot(&self, slot: u32) -> *mut netmap_slot {
        self.at.wrapping_add(1).cast::<netmap_slot>().wrapping_add(slot as usize)
    }

    #[inline]
    fn set(&self, slot: u32, len: u16, flags: u16) {
        let slot = self.slot(slot);
        // SAFETY: a slot of the ring, which lies within the region.
        unsafe {
            (&raw mut (*slot).len).write_volatile(len);
            (&raw mut (*slot).flags).write_volatile(flags);
        }
    }

    /// As [`Ring::room`], of a slot that is the program's: not at the tail.
    #[inline]
    fn free(&self, slot: u32) -> Option<(*mut u8, usize)> {
        if slot == self.tail { None } else { self.room(slot) }
    }

    /// Where data of a slot goes, behind the packet offset if there is one, and how much: all of it within the region.
    #[inline]
    fn room(&self, slot: u32) -> Option<(*mut u8, usize)> {
        // SAFETY: a slot of the ring, which lies within the region.
        let slot = unsafe { self.slot(slot).read_volatile() };
        let offset = usize::try_from(slot.ptr & self.offset_mask).ok()?;
        let room = self.buf_size.checked_sub(offset)?.min(usize::from(u16::MAX));
        let index = i64::from(slot.buf_idx).checked_mul(self.buf_size as i64)?;
        let at = self.buf_ofs.checked_add(index)?.checked_add(offset as i64)?;
        let to = self.at.cast::<u8>().wrapping_offset(at as isize);
        (room > 0 && within(self.region, to, room)).then_some((to, room))
    }
}

/// Whether `size` bytes from `at` on lie within the region.
#[inline]
fn within(region: &Region, at: *const u8, size: usize) -> bool {
    let offset = (at as usize).wrapping_sub(region.mem as usize);
    offset <= region.size && size <= region.size - offset
}
