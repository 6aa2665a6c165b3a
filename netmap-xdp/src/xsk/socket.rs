//! Making AF_XDP sockets: one per netdev and queue, all on one UMEM.
//!
//! The engine alone does this: `socket(AF_XDP)` needs privileges that a client may lack. The first socket of a UMEM
//! registers it; later ones, on any device, share it through any bound sibling.

use super::{Chunks, Geometry, QueueError, Rings, fill_size};
use crate::shm::Memory;
use crate::sys::xdp::{self, Which};
use crate::sys::{Errno, Error, Fd, Mode, settings};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

const REBIND_PAUSE: Duration = Duration::from_millis(2);

/// The buffer pool of a region as one UMEM registration: mode and geometry are fixed by its first bind.
#[derive(Clone)]
pub struct Umem {
    region: Arc<Memory>,
    pool: u64,
    len: u64,
    geometry: Geometry,
}

impl Umem {
    /// The `len` bytes of `region` from `pool`, which is page aligned.
    pub fn new(region: Arc<Memory>, pool: u64, len: u64, geometry: Geometry) -> Umem {
        Umem { region, pool, len, geometry }
    }

    /// How buffers lie in it.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn register(&self, fd: &Fd) -> Result<(), Error> {
        let fits = self.pool.checked_add(self.len).is_some_and(|end| end <= self.region.size() as u64);
        if !fits {
            return Err(Error::new("setsockopt XDP_UMEM_REG", "", Errno(libc::EINVAL)));
        }
        let addr = self.region.address() + self.pool as usize;
        let unaligned = self.geometry.chunks() == Chunks::Unaligned;
        // SAFETY: the range lies in a shared mapping (just checked) that `Socket` keeps; nobody holds plain references into
        // a `Memory`.
        unsafe { xdp::register_umem(fd, addr, self.len, [self.geometry.chunk(), self.geometry.headroom()], unaligned) }
    }
}

/// What a socket is to be.
#[derive(Clone, Copy, Debug)]
pub struct SocketPlan {
    /// The netdev, in the calling thread's network namespace.
    pub ifindex: u32,
    /// Its queue.
    pub queue: u32,
    /// Entries of the receive ring, a power of two; the fill ring has [`fill_size`] of them.
    pub rx_size: u32,
    /// Entries of transmit and completion ring, a power of two.
    pub tx_size: u32,
    /// How the driver is used.
    pub mode: Mode,
    /// Whether to ask for frames of several buffers. A refusal stays with the registration, so without copying one socket
    /// asks once; with copies nothing comes of it, and the socket asks again without.
    pub several: bool,
}

/// Why a socket is not bound.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BindError {
    /// The interface is down: bind again when it is up.
    #[error("the interface is down")]
    Down,
    /// The device or the kernel cannot do what the mode asks for.
    #[error("{0}")]
    NotSupported(Error),
    /// The kernel refuses what a setting asks for.
    #[error("{error}, which {setting} asks for: {mend}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// The kernel's answer.
        error: Error,
        /// What would do.
        mend: &'static str,
    },
    /// Somebody else holds the queue.
    #[error("{0}: another AF_XDP socket holds this queue")]
    Busy(Error),
    /// Anything else.
    #[error("{0}")]
    Other(#[from] Error),
}

/// An AF_XDP socket with its four rings sized, and bound or about to be.
pub struct Socket {
    fd: Fd,
    plan: SocketPlan,
    bound: bool,
    sg: bool,
    /// Pins the pages that the kernel knows by address.
    _umem: Umem,
}

impl Socket {
    /// Makes a socket that is yet to be bound; with a registration of its own it can be in an XSKMAP before.
    pub fn unbound(umem: &Umem, plan: SocketPlan, register: bool) -> Result<Socket, BindError> {
        let fd = xdp::socket()?;
        if register {
            umem.register(&fd)?;
        }
        for (which, size) in [
            (Which::Fill, fill_size(plan.rx_size)),
            (Which::Completion, plan.tx_size),
            (Which::Rx, plan.rx_size),
            (Which::Tx, plan.tx_size),
        ] {
            xdp::set_ring_size(&fd, which, size)?;
        }
        let polling = settings().polling;
        match polling.tx_budget {
            // Fewer system calls for the same work where the kernel knows the option; nothing is lost where it does not.
            None => drop(xdp::set_tx_budget(&fd, plan.tx_size.max(32))),
            Some(budget) => xdp::set_tx_budget(&fd, budget).map_err(|error| BindError::Setting {
                setting: "NETMAP_XDP_TX_BUDGET (tx-budget)",
                error,
                mend: "it takes Linux 6.17, and a number up to that of the transmit ring's slots; leave it out",
            })?,
        }
        if polling.is_busy() {
            xdp::set_busy_poll(&fd, polling.busy.unwrap_or(0), polling.budget).map_err(|error| BindError::Setting {
                setting: "NETMAP_XDP_BUSY_POLL (busy-poll)",
                error,
                mend: "it takes Linux 5.11 with CONFIG_NET_RX_BUSY_POLL, and CAP_NET_ADMIN; leave it out",
            })?;
        }
        Ok(Socket { fd, plan, bound: false, sg: false, _umem: umem.clone() })
    }

    /// Whether its rings can be mapped now. Before Linux 6.4 they cannot once it is bound (`xsk_mmap`).
    pub fn mappable(&self) -> bool {
        !matches!(self.rings(), Err(QueueError::Taken))
    }

    /// Its rings, as this process has them.
    pub fn rings(&self) -> Result<Arc<Rings>, QueueError> {
        Rings::of(self, self.plan.rx_size, self.plan.tx_size)
    }

    /// Binds a socket that is not bound yet; on one that is, nothing happens. `sibling` is a bound socket of the same UMEM, if
    /// there is one.
    pub fn bind(&mut self, sibling: Option<RawFd>) -> Result<(), BindError> {
        if self.bound {
            return Ok(());
        }
        let ladder = bind_flags(self.plan, sibling.is_some(), settings().polling.always == Some(true));
        let mut waited = Duration::ZERO;
        let mut step = 0;
        loop {
            let flags = ladder[step];
            let refused = match xdp::bind(&self.fd, self.plan.ifindex, self.plan.queue, flags, sibling) {
                Ok(()) => {
                    self.bound = true;
                    self.sg = flags & XDP_USE_SG != 0;
                    return Ok(());
                }
                Err(e) => Error::new("bind AF_XDP", format!("queue {}", self.plan.queue), e),
            };
            match refused.errno.0 {
                libc::ENETDOWN => return Err(BindError::Down),
                libc::EBUSY if waited < settings().rebind_wait => {
                    std::thread::sleep(REBIND_PAUSE);
                    waited += REBIND_PAUSE;
                }
                libc::EBUSY => return Err(BindError::Busy(refused)),
                libc::EINVAL | libc::EOPNOTSUPP if step + 1 < ladder.len() => step += 1,
                libc::EOPNOTSUPP | libc::EINVAL => return Err(BindError::NotSupported(refused)),
                _ => return Err(BindError::Other(refused)),
            }
        }
    }

    /// Lets a socket that is not bound yet be bound with copies.
    pub fn step_down(&mut self) {
        self.plan = SocketPlan { mode: Mode::Native, several: true, ..self.plan };
    }

    /// Whether it is bound.
    pub fn bound(&self) -> bool {
        self.bound
    }

    /// Whether frames of several buffers may be sent and received. For a socket that shares a UMEM, its first sibling
    /// tells.
    pub fn multi_buffer(&self) -> bool {
        self.sg
    }

    /// What it was made as.
    pub fn plan(&self) -> SocketPlan {
        self.plan
    }

    /// The kernel's counters.
    pub fn statistics(&self) -> Result<xdp::Statistics, Error> {
        xdp::statistics(self.fd.as_raw_fd())
    }

    /// Another descriptor of it, for a client.
    pub fn share(&self) -> Result<Fd, Error> {
        self.fd.try_clone().map_err(|e| Error::new("fcntl F_DUPFD_CLOEXEC", "an AF_XDP socket", e))
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// `XDP_USE_SG`: frames of several buffers (6.6).
const XDP_USE_SG: u16 = 1 << 4;

/// Flags to bind with, best first. `always`: the driver need not say when it waits to be told.
fn bind_flags(plan: SocketPlan, sibling: bool, always: bool) -> Vec<u16> {
    if sibling {
        // Exactly this one: mode, wakeup and fragments are the sibling's.
        return vec![libc::XDP_SHARED_UMEM];
    }
    let mode = match plan.mode {
        Mode::ZeroCopy => libc::XDP_ZEROCOPY,
        Mode::Native | Mode::Generic => libc::XDP_COPY,
    };
    let own = if always { mode } else { mode | libc::XDP_USE_NEED_WAKEUP };
    match plan.mode {
        _ if !plan.several || settings().whole_frames => vec![own],
        Mode::ZeroCopy => vec![own | XDP_USE_SG],
        Mode::Native | Mode::Generic => vec![own | XDP_USE_SG, own],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [Mode; 3] = [Mode::ZeroCopy, Mode::Native, Mode::Generic];

    fn plan(mode: Mode, several: bool) -> SocketPlan {
        SocketPlan { ifindex: 1, queue: 0, rx_size: 64, tx_size: 64, mode, several }
    }

    #[test]
    fn a_socket_asks_for_wakeups_unless_the_driver_is_always_told() {
        for plan in MODES.map(|mode| plan(mode, true)) {
            let wakes = |always| bind_flags(plan, false, always).iter().all(|f| f & libc::XDP_USE_NEED_WAKEUP != 0);
            assert!(wakes(false) && !wakes(true));
            assert!(bind_flags(plan, false, true).iter().all(|f| f & (libc::XDP_COPY | libc::XDP_ZEROCOPY) != 0));
            assert_eq!(bind_flags(plan, true, true), [libc::XDP_SHARED_UMEM]);
        }
    }

    #[test]
    fn chains_are_asked_for_where_they_are_wanted_and_again_without_where_a_refusal_costs_nothing() {
        let asked =
            |mode, several| bind_flags(plan(mode, several), false, false).iter().map(|f| f & XDP_USE_SG != 0).collect();
        let answers: [Vec<bool>; 3] = MODES.map(|mode| asked(mode, true));
        assert_eq!(answers, [vec![true], vec![true, false], vec![true, false]]);
        assert_eq!(MODES.map(|mode| asked(mode, false)), [(); 3].map(|()| vec![false]));
    }
}
