//! The four rings that the kernel and a socket's users share.
//!
//! A producer writes entries and publishes them with one store; a consumer reads entries and releases them with one store.
//! Positions live in the shared ring alone, so that several processes can take turns under the lock of the netmap ring that
//! the AF_XDP ring serves: fill and receive ring under the receive ring's lock, transmit and completion ring under the
//! transmit ring's.
//!
//! Both are done by a [`Walk`]. It yields entries in runs that lie side by side, so that a loop over many of them needs
//! neither a mask nor a check of bounds for each.
//!
//! The kernel is trusted to order its writes; the rest of the words can be scribbled on by any process that maps the ring,
//! so a count that cannot be is an error, and every index is masked.

use crate::index::Cursor;
use crate::shm::{Memory, OutOfRange, Ref, Shared, Slice};
use crate::sync::{AtomicU32, AtomicU64, Ordering::*};
use crate::sys::xdp;

/// `XDP_RING_NEED_WAKEUP`: the kernel waits to be told.
const NEED_WAKEUP: u32 = 1;
/// `XDP_PKT_CONTD`: the frame goes on in the next descriptor.
const CONTINUED: u32 = 1;

/// Why a ring could not be mapped, or makes no sense.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] crate::sys::Error),
    /// The kernel's offsets leave the mapping.
    #[error("offsets of an AF_XDP ring: {0}")]
    Offsets(#[from] OutOfRange),
    /// The socket is bound, and the kernel is older than 6.4.
    #[error(
        "another process has this queue, and Linux before 6.4 lets only the first one map its rings: bind it in one process, \
         or run a newer kernel"
    )]
    Taken,
    /// More entries than the ring has.
    #[error("an AF_XDP ring holds more entries than it has room for: its memory was overwritten")]
    Corrupt,
}

/// `struct xdp_desc`.
#[repr(C)]
pub struct Desc {
    addr: AtomicU64,
    len: AtomicU32,
    options: AtomicU32,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Desc {}

/// Producer, consumer, flags and entries of one ring.
pub struct Queue<T: Shared> {
    producer: Ref<AtomicU32>,
    consumer: Ref<AtomicU32>,
    flags: Ref<AtomicU32>,
    entries: Slice<T>,
    mask: u32,
}

impl<T: Shared> Queue<T> {
    /// Views a ring of `size` entries, a power of two, in memory that is mapped already; a benchmark's stand-in for the kernel
    /// uses it too.
    pub fn at(memory: &std::sync::Arc<Memory>, at: xdp::RingOffsets, size: u32) -> Result<Queue<T>, QueueError> {
        Ok(Queue {
            producer: memory.object(at.producer)?,
            consumer: memory.object(at.consumer)?,
            flags: memory.object(at.flags)?,
            entries: memory.slice(at.entries, size as usize)?,
            mask: size - 1,
        })
    }

    /// Entries in the ring.
    pub fn size(&self) -> u32 {
        self.mask + 1
    }

    /// Whether the kernel waits to be told about new entries.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.flags.load(Relaxed) & NEED_WAKEUP != 0
    }

    /// Producer side: the entries that may be written.
    #[inline]
    pub fn room(&self) -> Result<Walk<'_, T>, QueueError> {
        // SYNC xsk-ring: acquire pairs with the kernel's release of the consumer (`__xskq_cons_release`): entries that it
        // has read may be overwritten.
        let (at, freed) = (Cursor(self.producer.load(Relaxed)), Cursor(self.consumer.load(Acquire)));
        let Some(left) = self.size().checked_sub(at.since(freed)) else { return Err(QueueError::Corrupt) };
        Ok(self.walk(&self.producer, at, left))
    }

    /// The same for who knows that at most `used` entries are in use, and wants to write up to `want`. The other side's
    /// position lies in a cache line that its processor writes for each entry, so it is looked at only if that leaves a
    /// doubt.
    #[inline]
    pub fn room_for(&self, want: u32, used: u32) -> Result<Walk<'_, T>, QueueError> {
        if self.size().saturating_sub(used) >= want {
            return Ok(self.walk(&self.producer, Cursor(self.producer.load(Relaxed)), want));
        }
        let room = self.room()?;
        Ok(Walk { left: room.left.min(want), ..room })
    }

    /// Consumer side: the entries that may be read.
    #[inline]
    pub fn filled(&self) -> Result<Walk<'_, T>, QueueError> {
        // SYNC xsk-ring: acquire pairs with the kernel's release of the producer (`__xskq_prod_submit`): the entries are
        // there.
        let (at, end) = (Cursor(self.consumer.load(Relaxed)), Cursor(self.producer.load(Acquire)));
        let left = end.since(at);
        if left > self.size() {
            return Err(QueueError::Corrupt);
        }
        Ok(self.walk(&self.consumer, at, left))
    }

    #[inline]
    fn walk<'a>(&'a self, own: &'a AtomicU32, at: Cursor, left: u32) -> Walk<'a, T> {
        Walk { own, entries: &self.entries, mask: self.mask, at, left, passed: 0 }
    }

    /// Entries that wait for the other side.
    #[inline]
    pub fn waiting(&self) -> u32 {
        let consumer = Cursor(self.consumer.load(Relaxed));
        Cursor(self.producer.load(Relaxed)).since(consumer)
    }

    /// After a death: passes over entries that were processed, and not released.
    pub fn skip(&self, n: u32) {
        let to = Cursor(self.consumer.load(Relaxed)).ahead(n.min(self.waiting()));
        // SYNC xsk-ring: as in `Walk::publish`.
        self.consumer.store(to.0, Release);
    }

    /// Raw positions, producer first: for who watches whether the other side moves.
    #[inline]
    pub fn positions(&self) -> (u32, u32) {
        (self.producer.load(Relaxed), self.consumer.load(Relaxed))
    }
}

/// A walk over entries that are this side's. The other side sees nothing of it until [`Walk::publish`].
pub struct Walk<'a, T> {
    /// This side's position, as the other one sees it.
    own: &'a AtomicU32,
    entries: &'a [T],
    mask: u32,
    /// Where the walk is.
    at: Cursor,
    left: u32,
    passed: u32,
}

impl<'a, T> Walk<'a, T> {
    /// The next entries, as many as lie side by side.
    #[inline]
    pub fn run(&self) -> &'a [T] {
        let from = self.at.at(self.mask);
        let until = self.entries.len().min(from + self.left as usize);
        self.entries.get(from..until).unwrap_or_default()
    }

    /// `n` of them are written, or read.
    #[inline]
    pub fn pass(&mut self, n: u32) {
        let n = n.min(self.left);
        (self.at, self.left, self.passed) = (self.at.ahead(n), self.left - n, self.passed + n);
    }

    /// How many are ahead.
    #[inline]
    pub fn left(&self) -> u32 {
        self.left
    }

    /// How many were passed.
    #[inline]
    pub fn passed(&self) -> u32 {
        self.passed
    }

    /// Where [`Walk::publish`] moves this side's position.
    #[inline]
    pub fn position(&self) -> u32 {
        self.at.0
    }

    /// What was passed is the other side's.
    #[inline]
    pub fn publish(self) {
        // SYNC xsk-ring: release pairs with the kernel's acquire, of the producer in `__xskq_cons_peek`, of the consumer in
        // `xskq_prod_nb_free`.
        self.own.store(self.at.0, Release);
    }
}

/// Buffers for the kernel to receive into.
pub type Fill = Queue<AtomicU64>;
/// Entries of the fill ring beside a receive ring of `rx_size`. In use are those of buffers that were not received, fewer than
/// `rx_size`, and those of buffers that were, as long as the kernel has said so in the receive ring and not yet here
/// (`xsk_flush`), which are no more than the receive ring holds. In twice the size there is room without a look.
pub const fn fill_size(rx_size: u32) -> u32 {
    2 * rx_size
}
/// Buffers that the kernel has sent.
pub type Completion = Queue<AtomicU64>;
/// Received frames. A type of its own, so that it cannot be written to as [`Tx`] can.
pub struct Rx(pub Queue<Desc>);
/// Frames to send.
pub struct Tx(pub Queue<Desc>);

impl Queue<AtomicU64> {
    /// Adds one address; false if there is no room.
    pub fn add(&self, addr: u64) -> Result<bool, QueueError> {
        let mut walk = self.room()?;
        let Some(entry) = walk.run().first() else { return Ok(false) };
        entry.store(addr, Relaxed);
        walk.pass(1);
        walk.publish();
        Ok(true)
    }
}

impl Desc {
    /// Address, length, and whether the frame goes on in the next descriptor.
    #[inline]
    pub fn read(&self) -> (u64, u32, bool) {
        let more = self.options.load(Relaxed) & CONTINUED != 0;
        (self.addr.load(Relaxed), self.len.load(Relaxed), more)
    }

    /// The same, to be sent.
    #[inline]
    pub fn write(&self, d: super::TxDesc) {
        self.addr.store(d.addr, Relaxed);
        self.len.store(d.len, Relaxed);
        self.options.store(if d.more { CONTINUED } else { 0 }, Relaxed);
    }
}

impl Rx {
    /// The addresses of the frames that wait.
    pub fn addresses(&self) -> Vec<u64> {
        let Ok(mut walk) = self.0.filled() else { return Vec::new() };
        let mut all = Vec::with_capacity(walk.left() as usize);
        while walk.left() > 0 {
            all.extend(walk.run().iter().map(|d| d.read().0));
            walk.pass(walk.run().len() as u32);
        }
        all
    }
}

/// Frames being written into a transmit ring; nobody sees them until [`TxBatch::publish`].
pub struct TxBatch<'a> {
    /// Behind the last whole frame.
    walk: Walk<'a, Desc>,
    /// Descriptors after it, of a frame that is not.
    begun: u32,
}

impl Tx {
    /// Starts a batch.
    #[inline]
    pub fn batch(&self) -> Result<TxBatch<'_>, QueueError> {
        Ok(TxBatch { walk: self.0.room()?, begun: 0 })
    }
}

impl<'a> TxBatch<'a> {
    /// Whether `n` more descriptors fit.
    #[inline]
    pub fn fits(&self, n: u32) -> bool {
        self.walk.left - self.begun >= n
    }

    /// Writes one descriptor; nothing happens when there is no room, which [`TxBatch::fits`] tells.
    #[inline]
    pub fn push(&mut self, d: super::TxDesc) {
        if !self.fits(1) {
            return;
        }
        let more = d.more;
        self.walk.entries[self.walk.at.ahead(self.begun).at(self.walk.mask)].write(d);
        self.begun += 1;
        if !more {
            self.walk.pass(std::mem::take(&mut self.begun));
        }
    }

    /// The next descriptors, for frames of one each: as many as lie side by side. [`TxBatch::wrote`] adds them.
    #[inline]
    pub fn run(&self) -> &'a [Desc] {
        self.walk.run()
    }

    /// The first `n` of a run are frames.
    #[inline]
    pub fn wrote(&mut self, n: u32) {
        self.walk.pass(n);
    }

    /// Forgets the descriptors of a frame that was not finished.
    #[inline]
    pub fn abandon_frame(&mut self) {
        self.begun = 0;
    }

    /// Where [`TxBatch::publish`] moves the producer.
    #[inline]
    pub fn end(&self) -> u32 {
        self.walk.position()
    }

    /// Gives whole frames to the kernel; returns how many descriptors that were.
    #[inline]
    pub fn publish(self) -> u32 {
        let n = self.walk.passed();
        if n > 0 {
            self.walk.publish();
        }
        n
    }
}

#[cfg(test)]
mod tests;
