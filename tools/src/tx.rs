//! The sender: fills slots, hands them over, waits for room, and drains at the end.

use std::time::{Duration, Instant};

use netmap_xdp::api::{Interest, NS_BUF_CHANGED, NS_MOREFRAG, NS_REPORT, Port, TxRing};

use crate::pacing::{self, Pacer, Step};
use crate::rx::{End, Run, dump};
use crate::signal;
use crate::source::{Fragments, Source};

/// Longest wait for the last frames to leave.
const DRAIN: Duration = Duration::from_secs(3);
/// The same after Ctrl-C.
const DRAIN_INTERRUPTED: Duration = Duration::from_millis(500);
/// How long one wait may take, so that a stop or a time limit is noticed.
const SLICE: Duration = Duration::from_millis(100);
/// A sender without room for so long says so.
const STUCK: Duration = Duration::from_secs(2);

/// Which buffers of a ring hold the constant frame already.
///
/// The API shows free slots by their distance from `head`; counting what was handed over gives each slot a number of
/// its own. The buffer index beside it shows when a slot has got another buffer.
struct Filled {
    at: usize,
    buffers: Vec<u32>,
}

impl Filled {
    fn new(slots: u32) -> Filled {
        Filled { at: 0, buffers: vec![0; slots.max(1) as usize] }
    }

    /// True if the n-th free slot has to be written; it counts as written from now on.
    fn must_write(&mut self, n: u32, buffer: u32, changed: bool) -> bool {
        let at = self.place(n);
        let same = self.buffers[at] == buffer;
        self.buffers[at] = buffer;
        changed || !same
    }

    fn advance(&mut self, n: u32) {
        self.at = self.place(n);
    }

    /// Where the n-th free slot is noted; `n` is at most the number of slots.
    fn place(&self, n: u32) -> usize {
        let at = self.at + n as usize;
        if at >= self.buffers.len() { (at - self.buffers.len()) % self.buffers.len() } else { at }
    }
}

/// One sending thread.
pub struct Sender<'a> {
    /// What it shares with all loops.
    pub run: Run<'a>,
    /// The frames.
    pub source: Source,
    /// How they are cut.
    pub fragments: Fragments,
    /// Write slots even if they hold the frame already.
    pub refill: bool,
    /// Frames per ring and batch.
    pub burst: u64,
    /// Pacing, if any.
    pub pacer: Option<Pacer>,
    /// Only the first ring is used, to keep one order.
    pub one_ring: bool,
}

/// How a sender ended.
pub struct Sent {
    /// Why it ended.
    pub end: End,
    /// From the first frame to the end of the drain.
    pub span: Duration,
    /// Slots that had not left when the drain gave up.
    pub left: u64,
}

impl Sender<'_> {
    /// Sends until the count, the time limit or the user ends it.
    pub fn run(mut self, port: &mut Port, count: Option<u64>) -> Result<Sent, String> {
        let rings = if self.one_ring { 1.min(port.tx_count()) } else { port.tx_count() };
        if rings == 0 {
            return Err(format!("{} has no TX ring to send on", port.name()));
        }
        let mut filled: Vec<Filled> = (0..rings).map(|i| Filled::new(port.tx(i).num_slots())).collect();
        let start = Instant::now();
        let (mut sent, mut budget) = (0u64, 0u64);
        let mut stuck: Option<Instant> = None;
        let end = loop {
            if let Some(end) = self.run.must_end(count.is_some_and(|n| sent >= n)) {
                break end;
            }
            if budget == 0 {
                budget = match self.next_budget(start) {
                    Some(n) => n,
                    None => continue,
                };
            }
            let mut moved = 0;
            for (i, filled) in filled.iter_mut().enumerate() {
                let left = count.map_or(u64::MAX, |n| n - sent);
                let (frames, bytes) = self.fill(&mut port.tx(i), filled, budget.min(left));
                if frames > 0 {
                    self.run.counters.add(frames, bytes);
                    sent += frames;
                    moved += frames;
                }
                if let Some(pacer) = &mut self.pacer {
                    pacer.sent(frames);
                    budget -= frames;
                    if budget == 0 {
                        break;
                    }
                }
            }
            self.run.counters.offer_drops(|| port.drops());
            if moved > 0 {
                stuck = None;
                port.sync_tx().or_else(only_interrupted)?;
            } else {
                self.wait_for_room(port, rings)?;
                let since = *stuck.get_or_insert_with(Instant::now);
                if since.elapsed() > STUCK {
                    stuck = None;
                    eprintln!("{}: no room in the TX rings for 2 s: is the link up, does the peer read?", port.name());
                }
            }
        };
        let left = drain(port, rings)?;
        Ok(Sent { end, span: start.elapsed(), left })
    }

    /// Frames that may be sent now; None if the time has to be looked at again.
    fn next_budget(&mut self, start: Instant) -> Option<u64> {
        let Some(pacer) = &mut self.pacer else { return Some(self.burst) };
        match pacer.step(start.elapsed().as_nanos() as u64) {
            Step::Send(n) => Some(n),
            Step::Wait(ns) => {
                pacing::wait_until(Instant::now() + Duration::from_nanos(ns).min(SLICE));
                None
            }
        }
    }

    /// Fills up to `limit` frames into a ring and hands them over: (frames, bytes).
    fn fill(&mut self, ring: &mut TxRing<'_>, filled: &mut Filled, limit: u64) -> (u64, u64) {
        let space = ring.space();
        let (mut used, mut frames, mut bytes) = (0u32, 0u64, 0u64);
        let constant = self.source.is_constant() && !self.refill;
        let len = self.source.frame_len();
        if constant && !self.run.dump && self.fragments.cut(len).slots == 1 {
            let n = limit.min(space.into()) as u32;
            self.fill_same(ring, filled, n, len);
            return (n.into(), u64::from(n) * len as u64);
        }
        while frames < limit {
            let len = self.source.frame_len();
            let cut = self.fragments.cut(len);
            if used as usize + cut.slots > space as usize {
                break;
            }
            for (part, offset) in (0..len).step_by(cut.size).enumerate() {
                let n = used + part as u32;
                let Some(slot) = ring.slot(n) else { break };
                let size = cut.size.min(len - offset);
                let changed = slot.flags() & NS_BUF_CHANGED != 0;
                let write = filled.must_write(n, slot.buf_idx(), changed) || !constant || cut.slots > 1;
                if write && let Some(frame) = self.source.bytes() {
                    slot.write_at(0, &frame[offset..offset + size]);
                }
                slot.set_len(size);
                slot.set_flags(if offset + size < len { NS_MOREFRAG } else { 0 });
                if self.run.dump {
                    dump(&slot, self.run.quiet_stdout);
                }
            }
            used += cut.slots as u32;
            frames += 1;
            bytes += len as u64;
            self.source.advance();
        }
        if used > 0 {
            if let Some(last) = ring.slot(used - 1) {
                last.set_flags(NS_REPORT);
            }
            ring.advance(used);
            filled.advance(used);
        }
        (frames, bytes)
    }

    /// Hands over `n` frames that are all the same, each in one slot.
    fn fill_same(&mut self, ring: &mut TxRing<'_>, filled: &mut Filled, n: u32, len: usize) {
        for i in 0..n {
            let Some(slot) = ring.slot(i) else { break };
            let changed = slot.flags() & NS_BUF_CHANGED != 0;
            if filled.must_write(i, slot.buf_idx(), changed)
                && let Some(frame) = self.source.bytes()
            {
                slot.write_at(0, frame);
            }
            slot.set_len(len);
            slot.set_flags(if i + 1 == n { NS_REPORT } else { 0 });
        }
        if n > 0 {
            ring.advance(n);
            filled.advance(n);
        }
    }

    fn wait_for_room(&self, port: &mut Port, rings: usize) -> Result<(), String> {
        for i in 0..port.tx_count() {
            // What room there is was too little for a frame, or the ring is not used at all.
            if i >= rings || port.tx(i).space() > 0 {
                port.tx(i).want_more();
            }
        }
        self.run.wait(port, Interest::WRITE, SLICE).map(drop)
    }
}

/// A sync that a signal interrupted is no failure.
fn only_interrupted(error: netmap_xdp::api::Error) -> Result<(), String> {
    if signal::interrupted(&error) { Ok(()) } else { Err(error.to_string()) }
}

/// Waits until all slots have come back, for a bounded time; returns how many have not.
fn drain(port: &mut Port, rings: usize) -> Result<u64, String> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(20);
    loop {
        port.sync_tx().or_else(only_interrupted)?;
        let left: u64 = (0..rings).map(|i| u64::from(port.tx(i).pending())).sum();
        let most = if signal::stopped() { DRAIN_INTERRUPTED } else { DRAIN };
        if left == 0 || start.elapsed() >= most {
            return Ok(left);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_written_once_until_their_buffer_changes() {
        let mut filled = Filled::new(4);
        for n in 0..3 {
            assert!(filled.must_write(n, 10 + n, false));
        }
        filled.advance(3);
        assert!(filled.must_write(0, 13, false));
        // Slots 0, 1 and 2 again: as they were, flagged, another buffer.
        assert!(!filled.must_write(1, 10, false));
        assert!(filled.must_write(2, 11, true));
        assert!(filled.must_write(3, 99, false));
        filled.advance(4);
        assert!(!filled.must_write(0, 13, false));
        assert!(!filled.must_write(3, 99, false));
    }

    #[test]
    fn a_ring_without_slots_does_no_harm() {
        let mut filled = Filled::new(0);
        assert!(filled.must_write(0, 5, false));
        filled.advance(3);
    }
}
