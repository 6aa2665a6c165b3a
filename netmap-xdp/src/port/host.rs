//! Host rings: the host stack at the other end of a TAP device's descriptor, one packet per `read` and `write`.
//!
//! ```text
//! txsync: slots [hwcur, head) -> write -> the stack, as if received on the NIC       done at once, so all slots are free
//! rxsync: slots [hwcur, head) -> held[]   read -> buffers in held[] -> slots from hwtail
//! ```
//! Packets that find no free slot stay in the TAP's queue. Runs in the thread that calls the sync, in any process that
//! holds the descriptor; the kernel copies straight from and to netmap buffers.
//!
//! Transparent forwarding (`NR_FORWARD` on the ring, `NS_FORWARD` on the slot): what the program releases goes on at the
//! next rxsync, from a NIC ring to the stack ([`ForwardUp`]), from a host ring to the NIC ([`ForwardDown`]).

use super::{BadSlot, Carrier, PortRing};
use crate::abi::{NR_FORWARD, NS_BUF_CHANGED, NS_FORWARD, NS_MOREFRAG, NS_REPORT};
use crate::index::{distance, next_slot, prev_slot};
use crate::ring::{Drop, Kring, NO_BUFFER, SlotView};
use crate::shm::BUF_SIZE;
use crate::sync::Ordering::*;
use crate::sys::netdev::bpf;
use crate::sys::{Errno, Fd};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// Shortest frame that a TAP takes: an Ethernet header.
const MIN_FRAME: u32 = 14;
/// Most buffers in one frame: 64 KB, the largest that a TAP takes or gives.
const MAX_CHAIN: usize = 32;

/// The pieces of memory that make a frame.
struct Pieces {
    all: [(u64, usize); MAX_CHAIN],
    n: usize,
}

impl Pieces {
    const NONE: Pieces = Pieces { all: [(0, 0); MAX_CHAIN], n: 0 };

    /// Adds one; false if there are too many.
    fn push(&mut self, at: u64, len: u32) -> bool {
        let Some(place) = self.all.get_mut(self.n) else { return false };
        *place = (at, len as usize);
        self.n += 1;
        true
    }

    fn get(&self) -> &[(u64, usize)] {
        &self.all[..self.n]
    }

    fn bytes(&self) -> u64 {
        self.get().iter().map(|p| p.1 as u64).sum()
    }
}

/// How many slots the frame takes that begins in slot `i` of those before `head`, and whether its end is among them.
fn chain(k: &Kring, i: u32, head: u32) -> (u32, bool) {
    let (n, mut last, mut slots) = (k.num_slots(), i, 1);
    while k.slot(last).flags.load(Relaxed) & NS_MOREFRAG != 0 {
        last = next_slot(last, n);
        if last == head {
            return (slots, false);
        }
        slots += 1;
    }
    (slots, true)
}

/// The pieces of a frame of `slots` slots from `i` on, or why it cannot be sent; clears the flags that are for the sync.
fn frame(k: &Kring, mut i: u32, slots: u32) -> Result<Pieces, Drop> {
    let (mut pieces, mut wrong) = (Pieces::NONE, None);
    for _ in 0..slots {
        let slot = k.slot(i);
        let flags = slot.flags.load(Relaxed);
        let (idx, len) = (slot.buf_idx.load(Relaxed), u32::from(slot.len.load(Relaxed)));
        match k.buffer(idx) {
            None => wrong = Some(Drop::BadBuffer),
            Some(_) if len > BUF_SIZE => wrong = wrong.or(Some(Drop::TooLong)),
            Some(at) => {
                if !pieces.push(at, len) {
                    wrong = wrong.or(Some(Drop::BadChain));
                }
            }
        }
        if flags & (NS_BUF_CHANGED | NS_REPORT | NS_FORWARD) != 0 {
            slot.flags.store(flags & !(NS_BUF_CHANGED | NS_REPORT | NS_FORWARD), Relaxed);
        }
        i = next_slot(i, k.num_slots());
    }
    if wrong.is_none() && pieces.bytes() < u64::from(MIN_FRAME) {
        wrong = Some(Drop::TooShort);
    }
    wrong.map_or(Ok(pieces), Err)
}

/// The slot `by` slots after `i`.
fn ahead(i: u32, by: u32, n: u32) -> u32 {
    let to = i + by;
    if to >= n { to - n } else { to }
}

/// Hands a frame to the stack.
fn inject(k: &Kring, tap: &Fd, pieces: &Pieces) -> Result<(), Errno> {
    k.region().write_to(tap.as_raw_fd(), pieces.get()).map(drop).inspect_err(|_| k.dropped(Drop::Refused))
}

/// The TAP device was deleted under us.
fn note(k: &Kring, e: Errno) {
    if e == Errno(libc::EBADFD) {
        k.state().stopped.store(1, Relaxed);
    }
}

/// To the host.
pub struct HostTx {
    tap: Arc<Fd>,
    // Merely kept: they lead from the TAP to the stack.
    _links: Vec<Arc<Fd>>,
}

impl HostTx {
    /// Writes to `tap`.
    pub fn new(tap: Arc<Fd>, links: Vec<Arc<Fd>>) -> HostTx {
        HostTx { tap, _links: links }
    }
}

impl Carrier for HostTx {
    fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
        let head = k.rhead();
        let (mut i, mut result) = (k.hwcur(), Ok(()));
        let (mut packets, mut bytes) = (0, 0);
        while i != head {
            let (slots, whole) = chain(k, i, head);
            if !whole && slots + 1 < k.num_slots() {
                // The rest has not been handed over. Of a ring full of it nothing more can come: it goes as it is.
                break;
            }
            match frame(k, i, slots) {
                Ok(pieces) => match inject(k, &self.tap, &pieces) {
                    Ok(()) => {
                        packets += 1;
                        bytes += pieces.bytes();
                    }
                    Err(e) => note(k, e),
                },
                Err(why) => {
                    k.dropped(why);
                    if why == Drop::BadBuffer {
                        result = Err(BadSlot);
                    }
                }
            }
            i = ahead(i, slots, k.num_slots());
        }
        k.set_hwcur(i);
        k.set_hwtail(prev_slot(i, k.num_slots()));
        k.count(packets, bytes);
        result
    }

    fn signal(&self) -> Option<(RawFd, i32)> {
        // Every sync frees every slot: there is nothing to wait for.
        None
    }
}

/// From the host.
pub struct HostRx {
    tap: Arc<Fd>,
    /// Buffers that hold the longest frame.
    slots_per_frame: u32,
    down: Option<ForwardDown>,
    /// They keep the host's packets on their way to the TAP; the first is the one on the NIC.
    links: Vec<Arc<Fd>>,
}

impl HostRx {
    /// Reads from `tap` frames of up to `frame` bytes. `down` is where released packets go on to, if asked for.
    pub fn new(tap: Arc<Fd>, frame: u32, links: Vec<Arc<Fd>>, down: Option<ForwardDown>) -> HostRx {
        // A byte more than the longest tells a frame that was cut.
        let slots_per_frame = (frame + 1).div_ceil(BUF_SIZE).clamp(1, MAX_CHAIN as u32);
        HostRx { tap, slots_per_frame, down, links }
    }

    /// Slots `[hwcur, rhead)` lend their buffers to what comes next.
    fn release(&self, k: &Kring) -> Result<(), BadSlot> {
        let (head, n) = (k.rhead(), k.num_slots());
        let (mut i, mut result) = (k.hwcur(), Ok(()));
        while i != head {
            let idx = k.slot(i).buf_idx.load(Relaxed);
            let good = k.is_buffer(idx);
            k.held(i).store(if good { idx } else { NO_BUFFER }, Relaxed);
            if !good {
                // The ring works on with one buffer less.
                k.dropped(Drop::BadBuffer);
                result = Err(BadSlot);
            }
            i = next_slot(i, n);
        }
        k.set_hwcur(i);
        result
    }

    /// A buffer for slot `at`, by its held index: its own, or that of a later slot if it has none.
    fn room(k: &Kring, at: u32) -> Option<u64> {
        let (n, stop) = (k.num_slots(), k.hwcur());
        let idx = k.held(at).load(Relaxed);
        if let Some(place) = k.buffer(idx) {
            return Some(place);
        }
        let mut i = next_slot(at, n);
        while i != stop && i != at {
            let other = k.held(i).load(Relaxed);
            if let Some(place) = k.buffer(other) {
                // In this order, so that a death in between loses nothing: see `Kring::recover_held`.
                k.held(at).store(other, Relaxed);
                k.held(i).store(NO_BUFFER, Relaxed);
                return Some(place);
            }
            i = next_slot(i, n);
        }
        None
    }

    /// What the host has sent becomes slots from `hwtail` on.
    fn receive(&self, k: &Kring) {
        let (n, stop) = (k.num_slots(), k.rx_stop());
        let mut at = k.hwtail();
        let (mut packets, mut bytes) = (0, 0);
        while distance(at, stop, n) >= self.slots_per_frame {
            let (mut pieces, mut i) = (Pieces::NONE, at);
            for _ in 0..self.slots_per_frame {
                let Some(place) = HostRx::room(k, i) else { break };
                pieces.push(place, BUF_SIZE);
                i = next_slot(i, n);
            }
            if pieces.n < self.slots_per_frame as usize {
                break;
            }
            let got = match k.region().read_from(self.tap.as_raw_fd(), pieces.get()) {
                Ok(got) => got as u64,
                Err(e) => {
                    note(k, e);
                    break;
                }
            };
            if got >= pieces.bytes() {
                k.dropped(Drop::TooLong);
                continue;
            }
            let mut left = got as u32;
            loop {
                let (slot, len) = (k.slot(at), left.min(BUF_SIZE));
                left -= len;
                let idx = k.held(at).load(Relaxed);
                let mut flags = if left > 0 { NS_MOREFRAG } else { 0 };
                if slot.buf_idx.load(Relaxed) != idx {
                    slot.buf_idx.store(idx, Relaxed);
                    flags |= NS_BUF_CHANGED;
                }
                k.held(at).store(NO_BUFFER, Relaxed);
                slot.len.store(len as u16, Relaxed);
                slot.flags.store(flags, Relaxed);
                at = next_slot(at, n);
                if left == 0 {
                    break;
                }
            }
            packets += 1;
            bytes += got;
        }
        k.set_hwtail(at);
        if packets > 0 {
            k.count(packets, bytes);
        }
    }
}

impl Carrier for HostRx {
    fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
        if let Some(down) = &self.down
            && k.hwcur() != k.rhead()
            && forwards(k)
        {
            down.forward(k);
        }
        let released = self.release(k);
        self.receive(k);
        released
    }

    fn signal(&self) -> Option<(RawFd, i32)> {
        Some((self.tap.as_raw_fd(), libc::EPOLLIN))
    }

    /// Frames that were read and did not become the program's are lost, as on a wire; their buffers are in the slots.
    fn repair(&self, k: &Kring) {
        let n = k.num_slots();
        let kernels = (0..n).filter(|&i| distance(k.hwcur(), i, n) >= distance(k.hwcur(), k.hwtail(), n));
        let taken = kernels.filter(|&i| k.held(i).load(Relaxed) == NO_BUFFER);
        k.recover_held(taken.map(|i| k.slot(i).buf_idx.load(Relaxed)).collect::<Vec<_>>());
    }

    fn probe(&self, k: &Kring) {
        // Whoever may not ask learns of it by the NIC rings, if at all.
        if self.links.first().is_some_and(|link| bpf::tcx_target(link.as_raw_fd()) == Ok(0)) {
            k.state().stopped.store(1, Relaxed);
        }
    }
}

/// Whether the program asked for transparent forwarding on a ring.
#[inline]
fn forwards(k: &Kring) -> bool {
    k.ring().flags.load(Relaxed) & NR_FORWARD != 0
}

/// Sends what a host ring releases to the NIC: the buffers change places with those of free transmit slots.
pub struct ForwardDown {
    to: Vec<PortRing>,
    client: u32,
}

impl ForwardDown {
    /// `to` are handles of the NIC's transmit rings, which are synced on behalf of `client`.
    pub fn new(to: Vec<PortRing>, client: u32) -> ForwardDown {
        ForwardDown { to, client }
    }

    /// Moves marked frames in `[hwcur, rhead)` of the host ring `k`, and sends them. As in the module, this may touch the
    /// transmit rings since the program does not while it is in a sync, and what finds no room is dropped.
    #[cold]
    fn forward(&self, k: &Kring) {
        let (head, n) = (k.rhead(), k.num_slots());
        let mut i = k.hwcur();
        for to in &self.to {
            let ring = to.kring();
            let m = ring.num_slots();
            if distance(ring.ring().head.load(Relaxed) % m, ring.hwtail() % m, m) < distance(i, head, n) {
                // What was sent meanwhile makes room.
                to.sync(self.client);
            }
            i = ForwardDown::fill(k, i, head, ring);
            if to.has_work() {
                to.sync(self.client);
            }
        }
        while i != head {
            let (slots, _) = chain(k, i, head);
            if k.slot(i).flags.load(Relaxed) & NS_FORWARD != 0 {
                k.dropped(Drop::NoRoom);
            }
            i = ahead(i, slots, n);
        }
    }

    /// Fills free slots of `to`; returns the first slot of the frame that found no room.
    fn fill(k: &Kring, mut i: u32, head: u32, to: &Kring) -> u32 {
        let (ring, n, m) = (to.ring(), k.num_slots(), to.num_slots());
        let (mut at, tail) = (ring.head.load(Relaxed), to.hwtail());
        if at >= m || tail >= m {
            return i;
        }
        while i != head {
            let (slots, whole) = chain(k, i, head);
            if k.slot(i).flags.load(Relaxed) & NS_FORWARD != 0 {
                if distance(at, tail, m) < slots {
                    break;
                }
                let good = |s| {
                    let (from, slot) = (k.slot(ahead(i, s, n)), to.slot(ahead(at, s, m)));
                    k.is_buffer(from.buf_idx.load(Relaxed)) && to.is_buffer(slot.buf_idx.load(Relaxed))
                };
                if whole && (0..slots).all(good) {
                    (0..slots).for_each(|s| exchange(k.slot(ahead(i, s, n)), to.slot(ahead(at, s, m))));
                    at = ahead(at, slots, m);
                } else {
                    k.dropped(Drop::BadChain);
                }
            }
            i = ahead(i, slots, n);
        }
        ring.cur.store(at, Relaxed);
        // SYNC ring-head: as the program would publish it; pairs with the acquire in `Kring::begin`.
        ring.head.store(at, Release);
        i
    }
}

/// Gives `to` the packet of `from`, and `from` the buffer of `to`.
fn exchange(from: &SlotView, to: &SlotView) {
    let theirs = to.buf_idx.load(Relaxed);
    to.buf_idx.store(from.buf_idx.load(Relaxed), Relaxed);
    to.len.store(from.len.load(Relaxed), Relaxed);
    to.flags.store(NS_BUF_CHANGED | (from.flags.load(Relaxed) & NS_MOREFRAG), Relaxed);
    from.buf_idx.store(theirs, Relaxed);
    from.flags.store(NS_BUF_CHANGED, Relaxed);
}

/// A NIC receive ring whose released packets go to the stack where the program marked them.
pub struct ForwardUp {
    inner: Box<dyn Carrier>,
    tap: Arc<Fd>,
}

impl ForwardUp {
    /// Adds forwarding to `inner`.
    pub fn new(inner: Box<dyn Carrier>, tap: Arc<Fd>) -> ForwardUp {
        ForwardUp { inner, tap }
    }

    #[cold]
    fn forward(&self, k: &Kring) {
        let (head, mut i) = (k.rhead(), k.hwcur());
        while i != head {
            let (slots, _) = chain(k, i, head);
            if k.slot(i).flags.load(Relaxed) & NS_FORWARD != 0 {
                match frame(k, i, slots) {
                    Ok(pieces) => {
                        // Counted; a TAP that is gone is its own rings' business.
                        let _ = inject(k, &self.tap, &pieces);
                    }
                    Err(why) => k.dropped(why),
                }
            }
            i = ahead(i, slots, k.num_slots());
        }
    }
}

impl Carrier for ForwardUp {
    #[inline]
    fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
        if k.hwcur() != k.rhead() && forwards(k) {
            self.forward(k);
        }
        self.inner.sync(k)
    }

    fn signal(&self) -> Option<(RawFd, i32)> {
        self.inner.signal()
    }

    fn stalled(&self) -> bool {
        self.inner.stalled()
    }

    fn socket(&self) -> Option<RawFd> {
        self.inner.socket()
    }

    fn arm(&self, k: &Kring) -> bool {
        self.inner.arm(k)
    }

    fn repair(&self, k: &Kring) {
        self.inner.repair(k);
    }

    fn probe(&self, k: &Kring) {
        self.inner.probe(k);
    }
}
