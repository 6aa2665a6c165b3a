//! Ring guards and slots.
//!
//! A guard caches head and tail while it lives and publishes head and cur when it is dropped; the port is borrowed
//! meanwhile, so no sync comes in between. Buffers are shared with the kernel and possibly with other processes, so their
//! bytes are copied in and out and never lent as a slice.

use super::Error;
use crate::abi::{NR_FORWARD, NS_BUF_CHANGED, NS_MOREFRAG};
use crate::index::{distance, next_slot};
use crate::ring::{Kring, SlotView};
use crate::sync::Ordering::*;

/// What both kinds of guard have.
struct Guard<'a> {
    ring: &'a Kring,
    // Both are the ring's: here the compiler sees that they stay as they are.
    slots: &'a [SlotView],
    n: u32,
    head: u32,
    tail: u32,
    /// `cur` is to be `tail`: wake me when there is more.
    beyond: bool,
}

impl<'a> Guard<'a> {
    fn new(ring: &'a Kring) -> Guard<'a> {
        let n = ring.num_slots();
        // SYNC ring-tail: acquire pairs with the release in `Kring::finish`: the slots before tail are as the sync left
        // them. A cursor outside the ring was scribbled by somebody; the next sync reinitialises the ring.
        let (head, tail) = (ring.ring().head.load(Relaxed), ring.ring().tail.load(Acquire));
        let (head, tail) = if head < n && tail < n { (head, tail) } else { (0, 0) };
        Guard { ring, slots: ring.slots(), n, head, tail, beyond: false }
    }

    #[inline]
    fn left(&self) -> u32 {
        distance(self.head, self.tail, self.n)
    }

    #[inline]
    fn slot(&self, n: u32) -> Option<Slot<'_>> {
        if n >= self.left() {
            return None;
        }
        let i = self.head + n;
        let i = if i >= self.n { i - self.n } else { i };
        Some(Slot { view: self.slots.get(i as usize)?, ring: self.ring })
    }

    #[inline]
    fn step(&mut self, n: u32) {
        let n = n.min(self.left());
        let to = self.head + n;
        self.head = if to >= self.n { to - self.n } else { to };
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        let ring = self.ring.ring();
        ring.cur.store(if self.beyond { self.tail } else { self.head }, Relaxed);
        // SYNC ring-head: release pairs with the acquire in `Kring::begin`: the slots before head are filled.
        ring.head.store(self.head, Release);
    }
}

/// A transmit ring: slots `[head, tail)` are the program's to fill.
pub struct TxRing<'a>(Guard<'a>);

impl<'a> TxRing<'a> {
    pub(super) fn new(ring: &'a Kring) -> TxRing<'a> {
        TxRing(Guard::new(ring))
    }

    /// Slots in the ring.
    pub fn num_slots(&self) -> u32 {
        self.0.n
    }

    /// Free slots.
    #[inline]
    pub fn space(&self) -> u32 {
        self.0.left()
    }

    /// Slots that were handed over and have not come back yet.
    pub fn pending(&self) -> u32 {
        let n = self.num_slots();
        distance(next_slot(self.0.tail, n), self.0.head, n)
    }

    /// The `n`-th free slot.
    #[inline]
    pub fn slot(&self, n: u32) -> Option<Slot<'_>> {
        self.0.slot(n)
    }

    /// Hands the first `n` free slots over to the next sync.
    #[inline]
    pub fn advance(&mut self, n: u32) {
        self.0.step(n);
    }

    /// Copies a frame into the next free slot and hands it over; false if the ring is full or the frame too long.
    #[inline]
    pub fn push(&mut self, frame: &[u8]) -> bool {
        match self.slot(0) {
            Some(slot) if frame.len() <= slot.capacity() => {
                slot.write_at(0, frame);
                slot.set_len(frame.len());
                slot.set_flags(0);
            }
            _ => return false,
        }
        self.advance(1);
        true
    }

    /// Room to send is to be reported only when there is more of it than now (`cur = tail`).
    pub fn want_more(&mut self) {
        self.0.beyond = true;
    }
}

/// A receive ring: slots `[head, tail)` hold packets.
pub struct RxRing<'a>(Guard<'a>);

impl<'a> RxRing<'a> {
    pub(super) fn new(ring: &'a Kring) -> RxRing<'a> {
        RxRing(Guard::new(ring))
    }

    /// Slots in the ring.
    pub fn num_slots(&self) -> u32 {
        self.0.n
    }

    /// Packets, or fragments of packets, that wait.
    #[inline]
    pub fn available(&self) -> u32 {
        self.0.left()
    }

    /// The `n`-th of them.
    #[inline]
    pub fn slot(&self, n: u32) -> Option<Slot<'_>> {
        self.0.slot(n)
    }

    /// Gives the first `n` slots back.
    #[inline]
    pub fn release(&mut self, n: u32) {
        self.0.step(n);
    }

    /// Packets are to be reported only when there are more of them than now (`cur = tail`), while the slots stay.
    pub fn want_more(&mut self) {
        self.0.beyond = true;
    }

    /// Released packets that are marked `NS_FORWARD` go on to the other side at the next sync (`NR_FORWARD`): from the NIC to
    /// its host stack, from a host ring to the NIC. Takes a port with both kinds of rings, `netmap:IF*`.
    pub fn forward(&mut self, on: bool) {
        let flags = &self.0.ring.ring().flags;
        if on {
            flags.fetch_or(NR_FORWARD, Relaxed)
        } else {
            flags.fetch_and(!NR_FORWARD, Relaxed)
        };
    }

    /// Time of the last sync: seconds and microseconds since 1970. Of a NIC with `NETMAP_XDP_TIMESTAMPS=hardware`,
    /// where it tells: when it received the last frame of the queue, by its own clock.
    pub fn timestamp(&self) -> (i64, i64) {
        let ring = self.0.ring.ring();
        (ring.ts_sec.load(Relaxed), ring.ts_usec.load(Relaxed))
    }
}

/// A slot and its buffer.
pub struct Slot<'a> {
    view: &'a SlotView,
    ring: &'a Kring,
}

impl Slot<'_> {
    /// Bytes in the slot.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.view.len.load(Relaxed))
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the length; more than the buffer holds is cut.
    #[inline]
    pub fn set_len(&self, n: usize) {
        self.view.len.store(n.min(self.capacity()) as u16, Relaxed);
    }

    /// `NS_*` flags.
    #[inline]
    pub fn flags(&self) -> u16 {
        self.view.flags.load(Relaxed)
    }

    /// Sets them.
    #[inline]
    pub fn set_flags(&self, flags: u16) {
        self.view.flags.store(flags, Relaxed);
    }

    /// VALE, with `NS_INDIRECT`: address in this process of the bytes to send instead of the buffer's. They are read at the
    /// next sync; a bad address sends an empty packet.
    #[inline]
    pub fn set_ptr(&self, address: u64) {
        self.view.ptr.store(address, Relaxed);
    }

    /// Index of the buffer.
    #[inline]
    pub fn buf_idx(&self) -> u32 {
        self.view.buf_idx.load(Relaxed)
    }

    /// Where in the buffer the packet begins; 0 unless offsets were asked for, at this end or at the other end of a pipe.
    #[inline]
    pub fn offset(&self) -> usize {
        match self.mask() {
            0 => 0,
            mask => (self.view.ptr.load(Relaxed) & mask).min(self.ring.buf_size().into()) as usize,
        }
    }

    /// Moves the beginning of the packet, up to the largest offset that the port was opened with; the bytes stay where they
    /// are. False if the ring has no such offset.
    #[inline]
    pub fn set_offset(&self, offset: usize) -> bool {
        let (mask, offset) = (self.mask(), offset as u64);
        let fits = offset & mask == offset && offset <= self.ring.state().offset_max.load(Relaxed);
        if fits && mask != 0 {
            self.view.ptr.store(self.view.ptr.load(Relaxed) & !mask | offset, Relaxed);
        }
        fits
    }

    #[inline]
    fn mask(&self) -> u64 {
        self.ring.ring().offset_mask.load(Relaxed)
    }

    /// Bytes that the buffer holds, from the slot's offset on.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.ring.buf_size() as usize - self.offset()
    }

    /// Where `len` bytes from byte `at` on lie, if the buffer has them.
    #[inline]
    fn place(&self, at: usize, len: usize) -> Option<u64> {
        // Read once: a peer may change it meanwhile.
        let offset = self.offset();
        if (self.ring.buf_size() as usize - offset).checked_sub(at)? < len {
            return None;
        }
        Some(self.ring.buffer(self.buf_idx())? + (offset + at) as u64)
    }

    /// Copies bytes out of the packet from byte `at`; returns how many.
    #[inline]
    pub fn read_at(&self, at: usize, into: &mut [u8]) -> usize {
        // On its own, since a length that the compiler knows, as of a header, makes this a load.
        match self.place(at, into.len()) {
            Some(place) => self.ring.region().read(place, into).map_or(0, |()| into.len()),
            None => self.read_less(at, into),
        }
    }

    /// Copies bytes into the packet from byte `at`; returns how many.
    #[inline]
    pub fn write_at(&self, at: usize, from: &[u8]) -> usize {
        match self.place(at, from.len()) {
            Some(place) => self.ring.region().write(place, from).map_or(0, |()| from.len()),
            None => self.write_less(at, from),
        }
    }

    /// As much as there is.
    #[cold]
    fn read_less(&self, at: usize, into: &mut [u8]) -> usize {
        let n = into.len().min(self.capacity().saturating_sub(at));
        let done = self.place(at, n).and_then(|place| self.ring.region().read(place, &mut into[..n]).ok());
        done.map_or(0, |()| n)
    }

    /// As much as there is room for.
    #[cold]
    fn write_less(&self, at: usize, from: &[u8]) -> usize {
        let n = from.len().min(self.capacity().saturating_sub(at));
        let done = self.place(at, n).and_then(|place| self.ring.region().write(place, &from[..n]).ok());
        done.map_or(0, |()| n)
    }

    /// Start of the packet, for programs that know that nobody else writes it; null if the slot names no buffer.
    pub fn as_ptr(&self) -> *mut u8 {
        let at = self.ring.buffer(self.buf_idx()).map(|at| at + self.offset() as u64);
        at.map_or(std::ptr::null_mut(), |o| (self.ring.region().address() + o as usize) as *mut u8)
    }

    /// Passes the packet on without copying: exchanges buffers with a slot of another ring, which gets this one's length
    /// and `NS_MOREFRAG`. `EINVAL`: the rings lie in different regions, or the other one cannot have the packet's offset.
    #[inline]
    pub fn swap_into(&self, other: &Slot<'_>) -> Result<(), Error> {
        if self.ring.place().buffers_at != other.ring.place().buffers_at {
            let message = "the ports have different memory regions: copy the packet instead".to_string();
            return Err(Error { errno: libc::EINVAL, message });
        }
        let offset = self.offset();
        if offset != other.offset() && !other.set_offset(offset) {
            let message = format!("the other ring has no offset {offset}: copy the packet instead");
            return Err(Error { errno: libc::EINVAL, message });
        }
        let (mine, theirs) = (self.buf_idx(), other.buf_idx());
        self.view.buf_idx.store(theirs, Relaxed);
        other.view.buf_idx.store(mine, Relaxed);
        other.view.len.store(self.view.len.load(Relaxed), Relaxed);
        other.view.flags.store(NS_BUF_CHANGED | (self.flags() & NS_MOREFRAG), Relaxed);
        self.view.flags.store(NS_BUF_CHANGED, Relaxed);
        Ok(())
    }
}
