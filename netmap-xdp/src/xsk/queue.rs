//! The four rings that the kernel and a socket's users share.
//!
//! A producer writes entries and publishes them with one store; a consumer reads entries and releases them with one store.
//! Positions live in the shared ring alone, so that several processes can take turns under the lock of the netmap ring that
//! the AF_XDP ring serves: fill and receive ring under the receive ring's lock, transmit and completion ring under the
//! transmit ring's.
//!
//! The kernel is trusted to order its writes; the rest of the words can be scribbled on by any process that maps the ring,
//! so a count that cannot be is an error, and every index is masked.

use crate::index::Cursor;
use crate::shm::{Memory, OutOfRange, Ref, Shared, Slice};
use crate::sync::{AtomicU32, AtomicU64, Ordering::*};
use crate::sys::xdp::{self, Which};
use std::os::fd::AsRawFd;

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
        "this queue is bound already, and Linux before 6.4 lets only the first one map its rings: bind it once, or \
         run a newer kernel"
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
    /// Maps ring `which`, of `size` entries (a power of two), of the socket `fd`.
    pub fn map(fd: &impl AsRawFd, which: Which, size: u32) -> Result<Queue<T>, QueueError> {
        let at = xdp::ring_offsets(fd.as_raw_fd(), which)?;
        let len = at.entries as usize + size as usize * which.entry();
        let memory = Memory::map(fd, len, which.page_offset(), true).map_err(|e| match e.0 {
            libc::EBUSY => QueueError::Taken,
            _ => crate::sys::Error::new("mmap of an AF_XDP ring", format!("{which:?}"), e).into(),
        })?;
        Queue::at(&memory, at, size)
    }

    /// Views a ring in memory that is mapped already; a benchmark's stand-in for the kernel uses it too.
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

    /// Producer side: where to write, and for how many entries there is room.
    #[inline]
    fn room(&self) -> Result<(Cursor, u32), QueueError> {
        let at = Cursor(self.producer.load(Relaxed));
        // SYNC xsk-ring: acquire pairs with the kernel's release of the consumer (`__xskq_cons_release`): entries that it
        // has read may be overwritten.
        let used = at.since(Cursor(self.consumer.load(Acquire)));
        if used > self.size() {
            return Err(QueueError::Corrupt);
        }
        Ok((at, self.size() - used))
    }

    /// Consumer side: where to read, and how many entries there are.
    #[inline]
    fn filled(&self) -> Result<(Cursor, u32), QueueError> {
        let at = Cursor(self.consumer.load(Relaxed));
        // SYNC xsk-ring: acquire pairs with the kernel's release of the producer (`__xskq_prod_submit`): the entries are
        // there.
        let n = Cursor(self.producer.load(Acquire)).since(at);
        if n > self.size() {
            return Err(QueueError::Corrupt);
        }
        Ok((at, n))
    }

    /// The same for who knows that at most `used` entries are in use, and wants to write `want`. The other side's position lies
    /// in a cache line that its processor writes for each entry, so it is looked at only if that leaves a doubt.
    #[inline]
    fn room_for(&self, want: u32, used: u32) -> Result<(Cursor, u32), QueueError> {
        if self.size().saturating_sub(used) < want {
            return self.room();
        }
        Ok((Cursor(self.producer.load(Relaxed)), want))
    }

    #[inline]
    fn publish_producer(&self, to: Cursor) {
        // SYNC xsk-ring: release pairs with the kernel's acquire of the producer (`__xskq_cons_peek`).
        self.producer.store(to.0, Release);
    }

    #[inline]
    fn publish_consumer(&self, to: Cursor) {
        // SYNC xsk-ring: release pairs with the kernel's acquire of the consumer (`xskq_prod_nb_free`).
        self.consumer.store(to.0, Release);
    }

    /// Entries that wait for the other side.
    #[inline]
    pub fn waiting(&self) -> u32 {
        let consumer = Cursor(self.consumer.load(Relaxed));
        Cursor(self.producer.load(Relaxed)).since(consumer)
    }

    /// After a death: passes over entries that were processed, and not released.
    pub fn skip(&self, n: u32) {
        self.publish_consumer(Cursor(self.consumer.load(Relaxed)).ahead(n.min(self.waiting())));
    }

    /// Raw positions, producer first: for who watches whether the other side moves.
    #[inline]
    pub fn positions(&self) -> (u32, u32) {
        (self.producer.load(Relaxed), self.consumer.load(Relaxed))
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
    /// Adds the addresses that `next` yields until it has no more or the ring is full; returns how many went in.
    #[inline]
    pub fn produce(&self, next: impl FnMut() -> Option<u64>) -> Result<u32, QueueError> {
        self.produce_by([u32::MAX, 0], next, |_, publish| publish())
    }

    /// The same for up to `want` addresses by who knows that at most `used` entries are in use. `by(position, publish)`
    /// is called once if anything went in, and calls `publish`, which moves the producer to `position`.
    #[inline]
    pub fn produce_by(
        &self,
        [want, used]: [u32; 2],
        mut next: impl FnMut() -> Option<u64>,
        by: impl FnOnce(u32, &dyn Fn()),
    ) -> Result<u32, QueueError> {
        let (at, room) = self.room_for(want, used)?;
        // In registers: after each of these loads and stores the compiler would look at the fields again.
        let (entries, mask): (&[_], _) = (&self.entries, self.mask);
        let mut n = 0;
        while n < room {
            let Some(addr) = next() else { break };
            entries[at.ahead(n).at(mask)].store(addr, Relaxed);
            n += 1;
        }
        if n > 0 {
            by(at.ahead(n).0, &|| self.publish_producer(at.ahead(n)));
        }
        Ok(n)
    }

    /// Hands every address in the ring to `take`.
    #[inline]
    pub fn consume(&self, mut take: impl FnMut(u64)) -> Result<u32, QueueError> {
        let (at, n) = self.filled()?;
        let (entries, mask): (&[_], _) = (&self.entries, self.mask);
        for i in 0..n {
            take(entries[at.ahead(i).at(mask)].load(Relaxed));
        }
        if n > 0 {
            self.publish_consumer(at.ahead(n));
        }
        Ok(n)
    }
}

impl Rx {
    /// Maps the receive ring.
    pub fn map(fd: &impl AsRawFd, size: u32) -> Result<Rx, QueueError> {
        Ok(Rx(Queue::map(fd, Which::Rx, size)?))
    }

    /// Hands received frames to `take(address, length, goes on)` until it returns false (that frame stays) or none is left.
    #[inline]
    pub fn consume(&self, take: impl FnMut(u64, u32, bool) -> bool) -> Result<u32, QueueError> {
        self.consume_by(take, |_, publish| publish())
    }

    /// The addresses of the frames that wait.
    pub fn addresses(&self) -> Vec<u64> {
        let q = &self.0;
        let Ok((at, n)) = q.filled() else { return Vec::new() };
        (0..n).map(|i| q.entries[at.ahead(i).at(q.mask)].addr.load(Relaxed)).collect()
    }

    /// As [`Rx::consume`]; `by(position, publish)` is called once if any was taken, and calls `publish`, which moves the
    /// consumer to `position`.
    #[inline]
    pub fn consume_by(
        &self,
        mut take: impl FnMut(u64, u32, bool) -> bool,
        by: impl FnOnce(u32, &dyn Fn()),
    ) -> Result<u32, QueueError> {
        let q = &self.0;
        let (at, n) = q.filled()?;
        let (entries, mask): (&[_], _) = (&q.entries, q.mask);
        let mut taken = 0;
        while taken < n {
            let d = &entries[at.ahead(taken).at(mask)];
            let more = d.options.load(Relaxed) & CONTINUED != 0;
            if !take(d.addr.load(Relaxed), d.len.load(Relaxed), more) {
                break;
            }
            taken += 1;
        }
        if taken > 0 {
            by(at.ahead(taken).0, &|| q.publish_consumer(at.ahead(taken)));
        }
        Ok(taken)
    }
}

/// Descriptors being written into a transmit ring; nobody sees them until [`TxBatch::publish`].
pub struct TxBatch<'a> {
    q: &'a Queue<Desc>,
    at: Cursor,
    room: u32,
    n: u32,
    /// Descriptors up to here belong to whole frames.
    whole: u32,
}

impl Tx {
    /// Maps the transmit ring.
    pub fn map(fd: &impl AsRawFd, size: u32) -> Result<Tx, QueueError> {
        Ok(Tx(Queue::map(fd, Which::Tx, size)?))
    }

    /// Starts a batch.
    #[inline]
    pub fn batch(&self) -> Result<TxBatch<'_>, QueueError> {
        let (at, room) = self.0.room()?;
        Ok(TxBatch { q: &self.0, at, room, n: 0, whole: 0 })
    }
}

impl TxBatch<'_> {
    /// Whether `n` more descriptors fit.
    #[inline]
    pub fn fits(&self, n: u32) -> bool {
        self.room - self.n >= n
    }

    /// Writes one descriptor; nothing happens when there is no room, which [`TxBatch::fits`] tells.
    #[inline]
    pub fn push(&mut self, d: super::TxDesc) {
        if self.n == self.room {
            return;
        }
        let entry = &self.q.entries[self.at.ahead(self.n).at(self.q.mask)];
        entry.addr.store(d.addr, Relaxed);
        entry.len.store(d.len, Relaxed);
        entry.options.store(if d.more { CONTINUED } else { 0 }, Relaxed);
        self.n += 1;
        if !d.more {
            self.whole = self.n;
        }
    }

    /// Writes descriptors of whole frames, `(address, length)`, until `next` has no more or there is no room.
    #[inline]
    pub fn push_whole(&mut self, mut next: impl FnMut() -> Option<(u64, u32)>) {
        let (entries, mask, at, room): (&[_], _, _, _) = (&self.q.entries, self.q.mask, self.at, self.room);
        let mut n = self.n;
        while n < room {
            let Some((addr, len)) = next() else { break };
            let entry: &Desc = &entries[at.ahead(n).at(mask)];
            entry.addr.store(addr, Relaxed);
            entry.len.store(len, Relaxed);
            entry.options.store(0, Relaxed);
            n += 1;
        }
        (self.n, self.whole) = (n, n);
    }

    /// Forgets the descriptors of a frame that was not finished.
    #[inline]
    pub fn abandon_frame(&mut self) {
        self.n = self.whole;
    }

    /// Where [`TxBatch::publish`] moves the producer.
    #[inline]
    pub fn end(&self) -> u32 {
        self.at.ahead(self.whole).0
    }

    /// Gives whole frames to the kernel; returns how many descriptors that were.
    #[inline]
    pub fn publish(self) -> u32 {
        if self.whole > 0 {
            self.q.publish_producer(self.at.ahead(self.whole));
        }
        self.whole
    }
}

#[cfg(test)]
mod tests;
