//! The host side of a NIC port: its host rings, and the TAP device behind them while somebody uses any.
//!
//! A ring that nobody receives from gets nothing: while no host receive ring is bound, what the host sends leaves by the
//! NIC as ever. A NIC all of whose transmit rings are bound, and no host ring, is cut off from its host.

use super::grant::CarrierGrant;
use super::region::Region;
use super::rings::RingTable;
use crate::ctl::{Failure, Register, Selection};
use crate::ring::{Dir, Kring};
use crate::sync::Ordering::*;
use crate::sys::netdev::NetDev;
use crate::sys::{Error, Fd, Level, Mode, duplicate, log};
use crate::xsk::{Cut, HostLink, HostLinkPlan, Loader, Program};
use std::os::fd::RawFd;
use std::sync::Arc;

/// Most host ring pairs of a port: queues of a TAP device.
const MAX_PAIRS: u16 = 64;
/// Fewest packets that wait in a queue for a program that is slow for a while.
const MIN_QUEUE: u32 = 2048;

/// Host rings in use.
#[derive(Default)]
pub struct HostSide {
    open: Option<Open>,
    cut: Option<Cut>,
    /// A cut that failed is not tried again.
    uncut: bool,
}

struct Open {
    link: HostLink,
    lost: bool,
    /// Whether others inject frames that begin like ours.
    joined: bool,
}

fn refused(dev: &NetDev, e: &Error) -> Failure {
    match e.errno.0 {
        libc::EPERM | libc::EACCES => Failure::missing_capability(format!("{}: {e}", dev.name), "CAP_NET_ADMIN"),
        libc::ENOENT | libc::ENXIO if e.call == "open" => Failure {
            errno: e.errno,
            message: format!("{}: host rings need a TAP device: {e}; `modprobe tun`", dev.name),
        },
        _ => Failure { errno: e.errno, message: format!("{}: host rings: {e}", dev.name) },
    }
}

impl HostSide {
    /// Host rings, transmit and receive, that the first bind of a port makes: one unless it asks for more.
    pub fn counts(register: &Register) -> [u16; 2] {
        [register.host_tx_rings, register.host_rx_rings].map(|n| n.clamp(1, MAX_PAIRS))
    }

    /// Number among the host rings of ring `i` of a direction, if it is one.
    fn number(rings: &RingTable, dir: Dir, i: u16) -> Option<u16> {
        let counts = rings.counts();
        i.checked_sub(if dir == Dir::Tx { counts.tx } else { counts.rx })
    }

    /// Whether ring `i` of a direction is a host ring.
    pub fn is_host(rings: &RingTable, dir: Dir, i: u16) -> bool {
        HostSide::number(rings, dir, i).is_some()
    }

    /// Every host ring.
    fn all(rings: &RingTable) -> Vec<(Dir, u16)> {
        let c = rings.counts();
        let tx = (c.tx..c.tx + c.host_tx).map(|i| (Dir::Tx, i));
        tx.chain((c.rx..c.rx + c.host_rx).map(|i| (Dir::Rx, i))).collect()
    }

    /// Makes the selected host rings work, those that are any.
    #[expect(clippy::too_many_arguments, reason = "what a port has, of which this is a part")]
    pub fn start(
        &mut self,
        dev: &NetDev,
        loader: &dyn Loader,
        mode: Mode,
        program: &mut dyn Program,
        rings: &mut RingTable,
        selection: &Selection,
        region: &mut Region,
    ) -> Result<(), Failure> {
        let [(_, tx), (_, rx)] = RingTable::ranges(selection);
        let mut wanted = HostSide::all(rings);
        wanted.retain(|(dir, i)| if *dir == Dir::Tx { tx.contains(i) } else { rx.contains(i) });
        if wanted.is_empty() {
            return Ok(());
        }
        if self.open.is_none() {
            self.open = Some(Open::new(dev, loader, mode, program, rings).map_err(|e| refused(dev, &e))?);
        }
        for (dir, i) in wanted {
            let fresh = rings.place(dir, i).is_none();
            rings.make(dir, i, region, true)?;
            if let Some(k) = rings.kring(dir, i, region).filter(|_| fresh && dir == Dir::Rx) {
                // All slots are ours to fill.
                (0..k.num_slots()).for_each(|s| k.held(s).store(k.slot(s).buf_idx.load(Relaxed), Relaxed));
            }
        }
        self.steer(rings).map_err(|e| refused(dev, &e))
    }

    /// Sends the host's packets to the rings that somebody receives from.
    fn steer(&mut self, rings: &RingTable) -> Result<(), Error> {
        let first = rings.counts().rx;
        let Some(open) = &mut self.open else { return Ok(()) };
        open.link.receive(|n| rings.users(Dir::Rx, first.saturating_add(n)) > 0)
    }

    /// Whether a selection has a host receive ring, of which none is in use yet.
    pub fn begins_to_hear(rings: &RingTable, selection: &Selection) -> bool {
        let [_, (_, rx)] = RingTable::ranges(selection);
        // The selection counts as a user by now.
        let others = |i| rings.users(Dir::Rx, i) > u32::from(rx.contains(&i));
        let all = HostSide::all(rings).into_iter().filter(|(dir, _)| *dir == Dir::Rx).map(|(_, i)| i);
        let (wanted, used) = all.fold((false, false), |(w, u), i| (w || rx.contains(&i), u || others(i)));
        wanted && !used
    }

    /// Whether the NIC is netmap's alone: as in the module, nothing of the host's leaves by it then.
    fn alone(rings: &RingTable) -> bool {
        let all = (0..rings.counts().tx).all(|i| rings.users(Dir::Tx, i) > 0);
        all && HostSide::all(rings).into_iter().all(|(dir, i)| rings.users(dir, i) == 0)
    }

    /// Cuts the host off from a NIC that is netmap's alone, unless `shared` says that it must not be, and ends that.
    pub fn cut(&mut self, dev: &NetDev, loader: &dyn Loader, rings: &RingTable, shared: bool) {
        if shared || !HostSide::alone(rings) {
            self.cut = None;
        } else if self.cut.is_none() && !self.uncut {
            self.cut = Cut::open(dev, loader).unwrap_or_else(|e| {
                log(Level::Warn, format_args!("{}: what the host sends still leaves by it: {e}", dev.name));
                None
            });
            self.uncut = self.cut.is_none();
        }
    }

    /// What keeps the host cut off, for a client.
    pub fn keep_cut(&self) -> Option<Arc<Fd>> {
        self.cut.as_ref().map(|cut| cut.link().clone())
    }

    /// Whether somebody took a program of theirs off; said once.
    pub fn lost(&mut self) -> bool {
        self.open
            .as_mut()
            .is_some_and(|open| !open.lost && open.link.lost() && !std::mem::replace(&mut open.lost, true))
    }

    /// What a client needs of host ring `i`.
    /// `xdp` is the link of the NIC's program, which tells as well as others that the NIC is gone.
    pub fn grant(&self, rings: &RingTable, dir: Dir, i: u16, xdp: Option<RawFd>) -> Option<CarrierGrant> {
        let open = self.open.as_ref()?;
        let tap = open.link.queue(HostSide::number(rings, dir, i)?)?.clone();
        let mut links = open.link.links();
        if links.is_empty() {
            links.extend(xdp.and_then(|fd| duplicate(fd).ok()).map(Arc::new));
        }
        Some(CarrierGrant::Host { tap, links })
    }

    /// Takes down what nobody uses any more; returns the rings, which are the region's to free.
    pub fn stop(&mut self, program: &mut dyn Program, rings: &mut RingTable, region: &Region) -> Vec<Kring> {
        let (unused, used): (Vec<_>, Vec<_>) =
            HostSide::all(rings).into_iter().partition(|&(dir, i)| rings.users(dir, i) == 0);
        if used.is_empty() {
            if let Some(open) = self.open.take() {
                open.close(program);
            }
        } else if let Err(e) = self.steer(rings) {
            log(Level::Warn, format_args!("host rings: {e}"));
        }
        unused.into_iter().filter_map(|(dir, i)| rings.retire(dir, i, region)).collect()
    }
}

impl Open {
    fn new(
        dev: &NetDev,
        loader: &dyn Loader,
        mode: Mode,
        program: &mut dyn Program,
        rings: &RingTable,
    ) -> Result<Open, Error> {
        let counts = rings.counts();
        let head = program.admitted()?;
        let plan = HostLinkPlan {
            nic: dev,
            queues: counts.host_tx.max(counts.host_rx),
            queue_len: rings.slots()[Dir::Rx as usize].max(MIN_QUEUE),
            headed: mode == Mode::Generic,
            head,
        };
        let link = HostLink::open(plan, loader)?;
        program.admit(link.head())?;
        let joined = head.is_some();
        log(Level::Debug, format_args!("{}: host rings by {}", dev.name, link.name()));
        Ok(Open { link, lost: false, joined })
    }

    fn close(self, program: &mut dyn Program) {
        drop(self.link);
        if self.joined {
            return;
        }
        // After the last frame with a head; what an error leaves is forgotten with the program.
        let _ = program.admit(None);
    }
}
