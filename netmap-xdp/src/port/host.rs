//! Host rings: the host stack at the other end of a TAP device's descriptor.
//!
//! ```text
//! txsync: slots [hwcur, head) -> outbox -> write -> the stack, as if received on the NIC    all slots are free at once
//! rxsync: slots [hwcur, head) -> held[]    read -> inbox -> buffers in held[] -> slots from hwtail
//! ```
//! A `read` or `write` carries one frame, or many that follow each other in a TCP connection: [`inbox`] cuts them,
//! [`outbox`] puts them together. Frames that find no free slot stay in the inbox, and behind it in the TAP's queue. Runs in
//! the thread that calls the sync, in any process that holds the descriptor.
//!
//! Transparent forwarding (`NR_FORWARD` on the ring, `NS_FORWARD` on the slot): what the program releases goes on at the
//! next rxsync, from a NIC ring to the stack ([`ForwardUp`]), from a host ring to the NIC ([`ForwardDown`]).

mod inbox;
mod outbox;
mod packet;
#[cfg(test)]
mod tests;

use super::{BadSlot, Carrier, PortRing};
use crate::abi::{NR_FORWARD, NS_BUF_CHANGED, NS_FORWARD, NS_MOREFRAG, NS_REPORT};
use crate::index::{distance, next_slot, prev_slot};
use crate::ring::{Drop, Kring, NO_BUFFER, SlotView};
use crate::sync::Ordering::*;
use crate::sys::netdev::bpf;
use crate::sys::{Errno, Fd, settings, tap};
use inbox::Inbox;
use outbox::Outbox;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Shortest frame that a TAP takes: an Ethernet header.
const MIN_FRAME: usize = 14;
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

/// Copies the frame of `slots` slots from `i` on into `room`; returns its bytes, or why it cannot be sent. Clears the flags
/// that are for the sync.
fn frame(k: &Kring, mut i: u32, slots: u32, room: &mut [u8]) -> Result<usize, Drop> {
    let (mut at, mut wrong) = (0, None);
    for _ in 0..slots {
        let slot = k.slot(i);
        let flags = slot.flags.load(Relaxed);
        let (idx, len) = (slot.buf_idx.load(Relaxed), usize::from(slot.len.load(Relaxed)));
        let offset = k.offset(slot);
        match (k.buffer(idx), room.get_mut(at..at + len)) {
            (None, _) => wrong = Some(Drop::BadBuffer),
            (Some(_), _) if len > (k.buf_size() - offset) as usize => wrong = wrong.or(Some(Drop::TooLong)),
            (Some(_), None) => wrong = wrong.or(Some(Drop::BadChain)),
            (Some(from), Some(to)) => {
                // In the region, by what `buffer` and the length say.
                let _ = k.region().read(from + u64::from(offset), to);
                at += len;
            }
        }
        if flags & (NS_BUF_CHANGED | NS_REPORT | NS_FORWARD) != 0 {
            slot.flags.store(flags & !(NS_BUF_CHANGED | NS_REPORT | NS_FORWARD), Relaxed);
        }
        i = next_slot(i, k.num_slots());
    }
    if wrong.is_none() && at < MIN_FRAME {
        wrong = Some(Drop::TooShort);
    }
    wrong.map_or(Ok(at), Err)
}

/// How many slots from `i` on a received frame of `len` bytes takes; as many as the ring has if it finds no room at all.
#[inline]
fn slots_for(k: &Kring, mut i: u32, len: usize) -> u32 {
    let n = k.num_slots();
    if !k.has_offsets() {
        return len.div_ceil(k.buf_size() as usize) as u32;
    }
    let (mut room, mut slots) = (0, 0);
    while room < len && slots < n {
        room += k.rx_room(k.slot(i)) as usize;
        i = next_slot(i, n);
        slots += 1;
    }
    slots
}

/// The slot `by` slots after `i`.
fn ahead(i: u32, by: u32, n: u32) -> u32 {
    let to = i + by;
    if to >= n { to - n } else { to }
}

/// The TAP device was deleted under us.
fn note(k: &Kring, e: Errno) {
    if e == Errno(libc::EBADFD) {
        k.state().stopped.store(1, Relaxed);
    }
}

/// The way to the host.
struct Uplink {
    tap: Arc<Fd>,
    /// Used by whoever has the ring's lock.
    outbox: Mutex<Outbox>,
}

impl Uplink {
    fn new(tap: Arc<Fd>) -> Uplink {
        Uplink { tap, outbox: Mutex::new(Outbox::new()) }
    }

    /// Sends what is whole of slots `[hwcur, rhead)`, if `chosen` says so of a frame's first slot. Returns the slot after
    /// the last one looked at, the packets and bytes that the stack took, and whether a slot named no buffer.
    fn send(&self, k: &Kring, chosen: impl Fn(&SlotView) -> bool) -> (u32, [u64; 2], Result<(), BadSlot>) {
        let head = k.rhead();
        let (mut i, mut sent, mut result) = (k.hwcur(), [0; 2], Ok(()));
        let Ok(mut out) = self.outbox.try_lock() else { return (i, sent, result) };
        while i != head {
            let (slots, whole) = chain(k, i, head);
            if !whole && slots + 1 < k.num_slots() {
                // The rest has not been handed over. Of a ring full of it nothing more can come: it goes as it is.
                break;
            }
            if chosen(k.slot(i)) {
                match frame(k, i, slots, out.room()) {
                    Ok(len) => {
                        if !out.push(len) {
                            self.flush(k, &mut out, &mut sent);
                            out.restart(len);
                        }
                    }
                    Err(why) => {
                        k.dropped(why);
                        if why == Drop::BadBuffer {
                            result = Err(BadSlot);
                        }
                    }
                }
            }
            i = ahead(i, slots, k.num_slots());
        }
        self.flush(k, &mut out, &mut sent);
        (i, sent, result)
    }

    #[inline]
    fn flush(&self, k: &Kring, out: &mut Outbox, sent: &mut [u64; 2]) {
        let Some(train) = out.train() else { return };
        match tap::write(self.tap.as_raw_fd(), train.bytes) {
            Ok(_) => {
                sent[0] += u64::from(train.frames);
                sent[1] += train.frame_bytes;
            }
            Err(e) => {
                k.dropped_many(Drop::Refused, train.frames.into());
                note(k, e);
            }
        }
    }
}

/// To the host.
pub struct HostTx {
    up: Uplink,
    // Merely kept: they lead from the TAP to the stack.
    _links: Vec<Arc<Fd>>,
}

impl HostTx {
    /// Writes to `tap`.
    pub fn new(tap: Arc<Fd>, links: Vec<Arc<Fd>>) -> HostTx {
        HostTx { up: Uplink::new(tap), _links: links }
    }
}

impl Carrier for HostTx {
    fn sync(&self, k: &Kring) -> Result<(), BadSlot> {
        if k.hwcur() == k.rhead() {
            return Ok(());
        }
        let (i, [packets, bytes], result) = self.up.send(k, |_| true);
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
    /// Used by whoever has the ring's lock. What is left in it when the ring is full goes to the ring at the next sync of
    /// this handle.
    inbox: Mutex<Inbox>,
    down: Option<ForwardDown>,
    /// They keep the host's packets on their way to the TAP; the first is the one on the NIC.
    links: Vec<Arc<Fd>>,
}

impl HostRx {
    /// Reads from `tap`. `down` is where released packets go on to, if asked for.
    pub fn new(tap: Arc<Fd>, links: Vec<Arc<Fd>>, down: Option<ForwardDown>) -> HostRx {
        HostRx { tap, inbox: Mutex::new(Inbox::new()), down, links }
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
        let Ok(mut inbox) = self.inbox.try_lock() else { return };
        loop {
            let Some(len) = inbox.next_len() else {
                if at == stop {
                    break;
                }
                let filled = match tap::read(self.tap.as_raw_fd(), inbox.room()) {
                    Ok(got) => inbox.filled(got),
                    Err(e) => {
                        note(k, e);
                        break;
                    }
                };
                if let Err(why) = filled {
                    k.dropped(why);
                }
                continue;
            };
            let slots = slots_for(k, at, len);
            if slots >= n {
                inbox.skip();
                k.dropped(Drop::TooLong);
                continue;
            }
            if distance(at, stop, n) < slots || (0..slots).any(|s| HostRx::room(k, ahead(at, s, n)).is_none()) {
                break;
            }
            let Some(parts) = inbox.next() else { break };
            at = HostRx::place(k, at, slots, parts);
            packets += 1;
            bytes += len as u64;
        }
        k.set_hwtail(at);
        if packets > 0 {
            k.count(packets, bytes);
        }
    }

    /// Writes a frame into the held buffers of `slots` slots from `at` on; returns the slot behind. They have room for it,
    /// unless the program changes offsets of slots that are not its own: then the end is cut.
    #[inline]
    fn place(k: &Kring, mut at: u32, slots: u32, [head, body]: [&[u8]; 2]) -> u32 {
        let (mut head, mut body) = (head, body);
        for left in (0..slots).rev() {
            let slot = k.slot(at);
            let idx = k.held(at).load(Relaxed);
            let (mut len, offset, size) = (0, k.offset(slot), k.rx_room(slot) as usize);
            for part in [&mut head, &mut body] {
                let (now, later) = part.split_at(part.len().min(size - len));
                if let Some(to) = k.buffer(idx) {
                    // In the region, as `buffer` says.
                    let _ = k.region().write(to + u64::from(offset) + len as u64, now);
                }
                (*part, len) = (later, len + now.len());
            }
            let more = left > 0;
            let mut flags = if more { NS_MOREFRAG } else { 0 };
            if slot.buf_idx.load(Relaxed) != idx {
                slot.buf_idx.store(idx, Relaxed);
                flags |= NS_BUF_CHANGED;
            }
            // In this order, for `repair`.
            k.held(at).store(NO_BUFFER, Relaxed);
            slot.len.store(len as u16, Relaxed);
            slot.flags.store(flags, Relaxed);
            at = next_slot(at, k.num_slots());
        }
        at
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
        if self.links.first().is_some_and(|link| bpf::link_interface(link.as_raw_fd()) == Ok(0)) {
            k.state().stopped.store(1, Relaxed);
        }
    }
}

/// Whether transparent forwarding was asked for on a ring: by the program, or for all rings by whoever started it.
#[inline]
pub fn forwards(k: &Kring) -> bool {
    k.ring().flags.load(Relaxed) & NR_FORWARD != 0 || settings().forward_all
}

/// Whether the packet that begins in a slot of such a ring is to go on.
fn marked(slot: &SlotView) -> bool {
    slot.flags.load(Relaxed) & NS_FORWARD != 0 || settings().forward_all
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
            if marked(k.slot(i)) {
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
            if marked(k.slot(i)) {
                if distance(at, tail, m) < slots {
                    break;
                }
                let good = |s| {
                    let (from, slot) = (k.slot(ahead(i, s, n)), to.slot(ahead(at, s, m)));
                    k.is_buffer(from.buf_idx.load(Relaxed)) && to.is_buffer(slot.buf_idx.load(Relaxed))
                };
                if whole && (0..slots).all(good) {
                    for s in 0..slots {
                        let (from, slot) = (k.slot(ahead(i, s, n)), to.slot(ahead(at, s, m)));
                        let offset = k.offset(from);
                        exchange(from, slot);
                        settle(to, slot, offset);
                    }
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

/// The packet of `slot` begins at `offset` of its buffer: the ring learns that, or the packet moves to where the ring has it.
#[inline]
fn settle(k: &Kring, slot: &SlotView, offset: u32) {
    if !k.has_offsets() && offset == 0 {
        return;
    }
    k.set_offset(slot, offset.into());
    let (to, len) = (k.offset(slot), u32::from(slot.len.load(Relaxed)).min(k.buf_size() - offset));
    if let Some(start) = k.buffer(slot.buf_idx.load(Relaxed)).filter(|_| to < offset) {
        // In the buffer, since it was there before, and further on.
        let _ = k.region().shift(start + u64::from(offset), start + u64::from(to), len as usize);
    }
}

/// The TAP that leads from a NIC's rings to the stack, once there is one.
pub type WayUp = Arc<OnceLock<Arc<Fd>>>;

/// A NIC receive ring whose released packets go to the stack where the program marked them.
pub struct ForwardUp<C> {
    inner: C,
    way: WayUp,
    /// Made when it is first used: its buffers are large.
    up: OnceLock<Uplink>,
}

impl<C: Carrier> ForwardUp<C> {
    /// Adds forwarding to `inner`.
    pub fn new(inner: C, way: WayUp) -> ForwardUp<C> {
        ForwardUp { inner, way, up: OnceLock::new() }
    }

    #[cold]
    fn forward(&self, k: &Kring) {
        let Some(tap) = self.way.get() else { return };
        // What the stack refuses is counted, and what is no buffer is seen when the slots are released.
        let _ = self.up.get_or_init(|| Uplink::new(tap.clone())).send(k, marked);
    }
}

/// Everything else is as the inner carrier has it. A default here would hide its answer: a ring whose level counts would be
/// watched by edges, which stay in the socket's wait queue and cost the kernel a callback for each packet.
#[deny(clippy::missing_trait_methods)]
impl<C: Carrier> Carrier for ForwardUp<C> {
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

    fn bell(&self) -> bool {
        self.inner.bell()
    }

    fn level(&self, k: &Kring) -> bool {
        self.inner.level(k)
    }

    fn stalled(&self) -> bool {
        self.inner.stalled()
    }

    fn resting(&self) -> bool {
        self.inner.resting()
    }

    fn arrived(&self) -> Option<Duration> {
        self.inner.arrived()
    }

    fn socket(&self) -> Option<RawFd> {
        self.inner.socket()
    }

    fn filled_by_peers(&self) -> bool {
        self.inner.filled_by_peers()
    }

    fn arm(&self, k: &Kring) -> bool {
        self.inner.arm(k)
    }

    fn repair(&self, k: &Kring) {
        self.inner.repair(k);
    }

    fn bury_engine(&self, k: &Kring, client: u32) {
        self.inner.bury_engine(k, client);
    }

    fn probe(&self, k: &Kring) {
        self.inner.probe(k);
    }
}
