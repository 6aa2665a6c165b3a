//! CSB: cursors in memory of the program instead of in the rings, one entry per bound ring and direction, transmit first.
//!
//! The program passes addresses. They are validated as the original does it, by copies that the kernel checks; from then on
//! the memory is used in its place by the sync loop, which reads `atok` and writes `ktoa`, as another thread of the program
//! would. It is trusted to stay mapped while the descriptor is open, and nothing more: what it holds is checked like what
//! stands in a ring.

use super::binding::Bound;
use crate::abi::{nm_csb_atok, nm_csb_ktoa};
use crate::ctl::{self, Condition, Failure};
use crate::port::PortRing;
use crate::ring::{Cursors, Dir};
use crate::shm::{Memory, Slice, shared_struct};
use crate::sync::{AtomicBool, AtomicU32, Ordering::*, fence};
use crate::sys::{Errno, Fd, OwnProcess, UserMem, write_pod};
use std::mem::{offset_of, size_of};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

shared_struct! {
    /// `struct nm_csb_atok`.
    #[repr(align(64))]
    pub struct Atok {
        head: AtomicU32,
        cur: AtomicU32,
        appl_need_kick: AtomicU32,
        _sync_flags: AtomicU32,
        _pad: [AtomicU32; 12],
    }
}

shared_struct! {
    /// `struct nm_csb_ktoa`.
    #[repr(align(64))]
    pub struct Ktoa {
        hwcur: AtomicU32,
        hwtail: AtomicU32,
        kern_need_kick: AtomicU32,
        _pad: [AtomicU32; 13],
    }
}

const _: () = {
    assert!(size_of::<Atok>() == size_of::<nm_csb_atok>() && size_of::<Ktoa>() == size_of::<nm_csb_ktoa>());
    assert!(offset_of!(Atok, appl_need_kick) == offset_of!(nm_csb_atok, appl_need_kick));
    assert!(offset_of!(Ktoa, kern_need_kick) == offset_of!(nm_csb_ktoa, kern_need_kick));
};

impl Atok {
    /// What the program wrote: `cur` is at least as new as `head`.
    pub fn cursors(&self) -> Cursors {
        // SYNC csb-atok: acquire pairs with the barriers of `nm_sync_kloop_appl_write`, which writes `cur` first: slots before
        // `head` are there, and `cur` is not older than `head`.
        let head = self.head.load(Acquire);
        let cur = self.cur.load(Acquire);
        Cursors { head, cur }
    }

    /// Whether the program wants to be notified.
    pub fn wants_irq(&self) -> bool {
        self.appl_need_kick.load(Relaxed) != 0
    }
}

impl Ktoa {
    /// Tells what a sync reached: `hwcur` is at least as new as `hwtail`.
    pub fn tell(&self, hwcur: u32, hwtail: u32) {
        // SYNC csb-ktoa: release pairs with the barriers of `nm_sync_kloop_appl_read`, which reads `hwtail` first.
        self.hwcur.store(hwcur, Release);
        self.hwtail.store(hwtail, Release);
    }

    /// Says whether the program has to kick.
    pub fn want_kicks(&self, wanted: bool) {
        self.kern_need_kick.store(wanted.into(), Relaxed);
        // SYNC csb-kick: after this either the read of `atok` that follows sees the program's new `head`, or the program, which
        // has a full barrier between writing `head` and reading this, sees that it must kick.
        fence(SeqCst);
    }
}

/// The entries of a descriptor's rings.
pub struct Csb {
    /// From the program.
    pub atok: Slice<Atok>,
    /// To the program.
    pub ktoa: Slice<Ktoa>,
}

/// Bits of [`CsbState::kloop`].
const RUNNING: u32 = 1;
const STOPPING: u32 = 2;

/// CSB and sync loop of one descriptor.
#[derive(Default)]
pub struct CsbState {
    csb: Mutex<Option<Arc<Csb>>>,
    on: AtomicBool,
    kloop: AtomicU32,
    stop: OnceLock<Option<Fd>>,
}

impl CsbState {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Csb>>> {
        self.csb.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether cursors are exchanged through a CSB: the ordinary syncs are refused then.
    #[inline]
    pub fn on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// Validates a CSB for the rings of `bound`, writes their cursors into it and uses it from now on:
    /// `netmap_csb_validate`. Nothing happens without rings.
    pub fn enable(&self, bound: &Bound, option: &ctl::Csb) -> Result<(), Failure> {
        let mut current = self.lock();
        if self.running() {
            return Err(Condition::CsbInUse.says("the CSB cannot change while the sync loop is running; stop it first"));
        }
        let rings: Vec<&PortRing> = bound.rings(Dir::Tx).iter().chain(bound.rings(Dir::Rx)).collect();
        if rings.is_empty() {
            return Ok(());
        }
        if !bound.exclusive() {
            let message = format!("{}: a CSB needs NR_EXCLUSIVE (`/x`)", bound.name());
            return Err(Condition::CsbNotExclusive.says(message));
        }
        let aligned = |addr: u64, what: &str| {
            let says = || Condition::CsbUnaligned.says(format!("{what} {addr:#x} is not a multiple of 64"));
            addr.is_multiple_of(64).then_some(()).ok_or_else(says)
        };
        let fault = |what: &'static str| {
            move |_: Errno| Condition::CsbAddress.says(format!("{what}: memory of the CSB is not there"))
        };
        let bytes = rings.len() * size_of::<Atok>();
        aligned(option.atok, "csb_atok")?;
        OwnProcess.read(option.atok, &mut vec![0; bytes]).map_err(fault("csb_atok"))?;
        aligned(option.ktoa, "csb_ktoa")?;
        OwnProcess.write(option.ktoa, &vec![0; bytes]).map_err(fault("csb_ktoa"))?;
        for (i, ring) in rings.iter().enumerate() {
            let (k, s, at) = (ring.kring(), ring.kring().state(), (i * size_of::<Atok>()) as u64);
            let (head, cur) = (s.rhead.load(Relaxed), s.rcur.load(Relaxed));
            let atok = nm_csb_atok { head, cur, appl_need_kick: 1, sync_flags: 1, ..Default::default() };
            let ktoa = nm_csb_ktoa { hwcur: k.hwcur(), hwtail: k.hwtail(), kern_need_kick: 1, ..Default::default() };
            write_pod(&OwnProcess, option.atok + at, &atok).map_err(fault("csb_atok"))?;
            write_pod(&OwnProcess, option.ktoa + at, &ktoa).map_err(fault("csb_ktoa"))?;
        }
        let atok = Memory::of_program(option.atok, bytes).map_err(fault("csb_atok"))?;
        let ktoa = Memory::of_program(option.ktoa, bytes).map_err(fault("csb_ktoa"))?;
        let view = |_| Condition::CsbAddress.plain();
        let csb =
            Csb { atok: atok.slice(0, rings.len()).map_err(view)?, ktoa: ktoa.slice(0, rings.len()).map_err(view)? };
        *current = Some(Arc::new(csb));
        self.on.store(true, Relaxed);
        Ok(())
    }

    /// Whether the sync loop is running.
    pub fn running(&self) -> bool {
        // SYNC kloop-state: acquire pairs with the release in `Running::drop`.
        self.kloop.load(Acquire) & RUNNING != 0
    }

    /// Starts the loop, for the calling thread to run.
    pub(super) fn start(&self, name: &str) -> Result<Running<'_>, Failure> {
        let current = self.lock();
        let Some(csb) = current.as_ref() else {
            let message = format!("{name}: the sync loop needs a CSB (NETMAP_REQ_OPT_CSB or NETMAP_REQ_CSB_ENABLE)");
            return Err(Condition::KloopWithoutCsb.says(message));
        };
        if self.kloop.fetch_or(RUNNING, AcqRel) & RUNNING != 0 {
            return Err(Condition::KloopRunning.says(format!("{name}: the sync loop is running already")));
        }
        Ok(Running { csb: csb.clone(), state: self })
    }

    /// Tells the loop to stop, and does not wait. A loop that starts later stops at once, as with the original, so that a stop
    /// does not race with a start.
    pub fn ask_to_stop(&self) {
        let _current = self.lock();
        self.kloop.fetch_or(STOPPING, AcqRel);
        if let Some(stop) = self.stop_signal() {
            crate::sys::signal_eventfd(stop);
        }
    }

    /// Written when the loop is to stop.
    pub(super) fn stop_signal(&self) -> Option<&Fd> {
        self.stop.get_or_init(|| crate::sys::eventfd().ok()).as_ref()
    }
}

/// The right to run the loop, given back when dropped.
pub(super) struct Running<'a> {
    /// The entries.
    pub csb: Arc<Csb>,
    state: &'a CsbState,
}

impl Running<'_> {
    /// Whether the loop is to end.
    pub fn stopping(&self) -> bool {
        self.state.kloop.load(Acquire) & STOPPING != 0
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _current = self.state.lock();
        // SYNC kloop-state: release, so that whoever waited for the end sees what the loop wrote.
        self.state.kloop.store(0, Release);
    }
}
