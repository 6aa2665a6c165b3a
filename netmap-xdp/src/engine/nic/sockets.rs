//! Making the sockets of a NIC port's queues. The engine calls this in the thread that registers.

use super::{NicPort, chunks_of};
use crate::engine::region::Region;
use crate::port::nic::NicRx;
use crate::ring::Kring;
use crate::sys::{Errno, Error, Level, Mode, log};
use crate::xsk::{BindError, QueueError, Socket, SocketPlan};
use std::os::fd::RawFd;
use std::sync::Arc;

/// Whether a receive ring has given the kernel nothing yet.
pub fn is_fresh(ring: &Kring) -> bool {
    ring.hwcur() == 0 && ring.hwtail() == 0 && ring.filled() == 0 && ring.spare() == 0
}

impl NicPort {
    /// From zero-copy to copies, before any queue has been given out.
    pub(super) fn step_down(&mut self, why: std::fmt::Arguments<'_>) {
        log(Level::Info, format_args!("{}: native mode with copies, since {why}", self.dev.name));
        self.mode = Mode::Native;
        self.geometry = self.geometry.with(chunks_of(&self.dev)).behind(self.reserve.into());
    }

    /// A socket that is yet to be bound. Of a fresh receive ring it has the buffers already: drivers without copying take
    /// theirs when it is bound, and may not ask again.
    pub(super) fn make_socket(
        &self,
        plan: SocketPlan,
        register: bool,
        region: &Region,
        fresh: Option<&Kring>,
    ) -> Result<Socket, BindError> {
        let socket = Socket::unbound(&region.umem(self.geometry), plan, register)?;
        if let Some(ring) = fresh {
            let failed = |e| match e {
                QueueError::Sys(e) => BindError::Other(e),
                e => BindError::Other(Error::new("mmap", e.to_string(), Errno(libc::EINVAL))),
            };
            let side = NicRx::map(Arc::new(socket.share()?), self.plan()).map_err(failed)?;
            side.start(ring).map_err(failed)?;
        }
        Ok(socket)
    }

    /// The same, bound. An interface that is down leaves it unbound.
    pub(super) fn open_socket(
        &self,
        plan: SocketPlan,
        sibling: Option<RawFd>,
        region: &Region,
        fresh: Option<&Kring>,
    ) -> Result<Socket, BindError> {
        let mut socket = self.make_socket(plan, sibling.is_none(), region, fresh)?;
        match socket.bind(sibling) {
            Ok(()) | Err(BindError::Down) => Ok(socket),
            Err(e) => Err(e),
        }
    }
}
