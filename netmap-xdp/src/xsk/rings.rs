//! The rings of a socket, as this process has them.
//!
//! Before Linux 6.4 the rings of a bound socket cannot be mapped (`xsk_mmap`). So whoever maps one maps all, before the socket
//! is bound, and every port that this process has on the queue shares them, whichever rings it is for.

use super::queue::{Completion, Fill, Queue, QueueError, Rx, Tx, fill_size};
use crate::shm::{Known, Memory, Shared};
use crate::sys::xdp::{self, RingOffsets, Which};
use crate::sys::{Error, identity};
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// One of them.
struct Mapped {
    memory: Arc<Memory>,
    at: RingOffsets,
    size: u32,
}

/// All four. They count as references to the socket: they go first.
pub struct Rings {
    fill: Mapped,
    completion: Mapped,
    rx: Mapped,
    tx: Mapped,
}

impl Mapped {
    /// Ring `which`, of `size` entries (a power of two), of `socket`.
    fn new(socket: &impl AsRawFd, which: Which, size: u32) -> Result<Mapped, QueueError> {
        let at = xdp::ring_offsets(socket.as_raw_fd(), which)?;
        let len = at.entries as usize + size as usize * which.entry();
        let memory = Memory::map(socket, len, which.page_offset(), true).map_err(|e| match e.0 {
            libc::EBUSY => QueueError::Taken,
            _ => Error::new("mmap of an AF_XDP ring", format!("{which:?}"), e).into(),
        })?;
        Ok(Mapped { memory, at, size })
    }

    fn queue<T: Shared>(&self) -> Result<Queue<T>, QueueError> {
        Queue::at(&self.memory, self.at, self.size)
    }
}

impl Rings {
    /// The rings of `socket`, whose receive and transmit rings have so many entries.
    pub fn of(socket: &impl AsRawFd, rx_size: u32, tx_size: u32) -> Result<Arc<Rings>, QueueError> {
        static MAPPED: Known<(u64, u64), Rings> = Known::new();
        // A mapping keeps its socket, so that as long as there is one, the inode is of no other.
        let socket_id = identity(socket.as_raw_fd()).map_err(|e| Error::new("fstat", "an AF_XDP socket", e))?;
        MAPPED.get(socket_id, || {
            Ok(Arc::new(Rings {
                fill: Mapped::new(socket, Which::Fill, fill_size(rx_size))?,
                completion: Mapped::new(socket, Which::Completion, tx_size)?,
                rx: Mapped::new(socket, Which::Rx, rx_size)?,
                tx: Mapped::new(socket, Which::Tx, tx_size)?,
            }))
        })
    }

    /// Addresses to receive into.
    pub fn fill(&self) -> Result<Fill, QueueError> {
        self.fill.queue()
    }

    /// Addresses of what was sent.
    pub fn completion(&self) -> Result<Completion, QueueError> {
        self.completion.queue()
    }

    /// Received frames.
    pub fn rx(&self) -> Result<Rx, QueueError> {
        self.rx.queue().map(Rx)
    }

    /// Frames to send.
    pub fn tx(&self) -> Result<Tx, QueueError> {
        self.tx.queue().map(Tx)
    }
}
