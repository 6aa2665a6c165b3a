//! Making the sockets of a NIC port's queues. The engine calls this in the thread that registers.

use super::NicPort;
use crate::engine::region::Region;
use crate::port::nic::NicRx;
use crate::ring::Kring;
use crate::sync::Ordering::*;
use crate::sys::{Errno, Error, Level, Mode, log, settings};
use crate::xsk::{BindError, Geometry, QueueError, Socket, SocketPlan, mtu_that_fits};
use std::os::fd::RawFd;
use std::sync::Arc;

/// Whether a receive ring has given the kernel nothing yet.
pub fn is_fresh(ring: &Kring) -> bool {
    ring.hwcur() == 0 && ring.hwtail() == 0 && ring.held(0).load(Relaxed) == 0
}

/// Drivers whose cards are told the size of buffers in steps of 1024 bytes: of the 1792 that an aligned buffer of ours has
/// they use 1024 and cut what is longer, which comes as several frames (`igb_setup_srrctl`, `igc_configure_rx_ring`).
const COARSE: [&str; 2] = ["igb", "igc"];
const COARSE_STEP: u32 = 1024;

impl NicPort {
    /// The largest MTU whose frames are received in one buffer.
    pub(super) fn mtu_that_fits(&self) -> u32 {
        let coarse = self.mode == Mode::ZeroCopy && self.dev.driver.as_deref().is_some_and(|d| COARSE.contains(&d));
        let geometry = if self.mode == Mode::ZeroCopy { Geometry::Aligned } else { self.geometry };
        let fits = mtu_that_fits(geometry);
        if coarse { fits - geometry.rx_limit() % COARSE_STEP } else { fits }
    }

    /// From zero-copy to copies, before any queue has been given out.
    pub(super) fn step_down(&mut self, why: std::fmt::Arguments<'_>) {
        log(Level::Info, format_args!("{}: native mode with copies, since {why}", self.dev.name));
        self.mode = Mode::Native;
        self.geometry = if settings().aligned == Some(true) { Geometry::Aligned } else { Geometry::Unaligned };
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
