//! The receiver, with or without verification, and what all loops share: waiting, ending, dumping.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netmap_xdp::api::{Interest, NS_MOREFRAG, Port, Ready, RxRing, Slot};

use crate::forward::{Chain, rx_chain};
use crate::pattern::{Tally, Verifier};
use crate::signal;
use crate::stats::Counters;

/// How long one wait may take, so that a stop or a time limit is noticed.
const SLICE: Duration = Duration::from_millis(100);

/// Why a loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The count was reached.
    Count,
    /// Nothing came for too long.
    Idle,
    /// The time was up.
    Time,
    /// The user stopped it.
    Interrupted,
}

/// What every loop has.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// Where it counts.
    pub counters: &'a Counters,
    /// When it ends at the latest.
    pub deadline: Option<Instant>,
    /// Dump frames.
    pub dump: bool,
    /// Only the result line may go to stdout.
    pub quiet_stdout: bool,
}

impl Run<'_> {
    /// The reason to end now, if there is one.
    pub fn must_end(&self, count_reached: bool) -> Option<End> {
        if count_reached {
            Some(End::Count)
        } else if signal::stopped() {
            Some(End::Interrupted)
        } else if self.deadline.is_some_and(|d| Instant::now() >= d) {
            Some(End::Time)
        } else {
            None
        }
    }

    /// Waits at most `most` and not past the deadline. A signal is no error; a port in error is.
    pub fn wait(&self, port: &mut Port, want: Interest, most: Duration) -> Result<Ready, String> {
        let left = self.deadline.map_or(most, |d| d.saturating_duration_since(Instant::now()).min(most));
        match port.wait(want, Some(left)) {
            Ok(ready) if ready.error => {
                Err(format!("{}: the port is in error; did the interface vanish or go down?", port.name()))
            }
            Ok(ready) => Ok(ready),
            Err(e) if signal::interrupted(&e) => Ok(Ready::default()),
            Err(e) => Err(format!("{}: {e}", port.name())),
        }
    }
}

/// One receiving thread.
pub struct Receiver<'a> {
    /// What it shares with all loops.
    pub run: Run<'a>,
    /// Slots per ring and round.
    pub burst: u64,
    /// Silence that ends the run: before the first frame, and after it.
    pub idle: Option<(Duration, Duration)>,
    /// Frames to receive over all threads, and how many were.
    pub count: Option<u64>,
    /// Shared by all threads.
    pub claimed: &'a AtomicU64,
    /// Checks frames, if asked for.
    pub verifier: Option<Verifier>,
}

/// How a receiver ended.
pub struct Received {
    /// Why it ended.
    pub end: End,
    /// First and last time that frames came.
    pub times: Option<(Instant, Instant)>,
    /// What the verifier counted, and the first fault it saw.
    pub verified: Option<(Tally, Option<String>)>,
}

impl Receiver<'_> {
    /// Receives until the count, silence, the time limit or the user ends it.
    pub fn run(mut self, port: &mut Port) -> Result<Received, String> {
        if port.rx_count() == 0 {
            return Err(format!("{} has no RX ring to receive from", port.name()));
        }
        let start = Instant::now();
        let mut times: Option<(Instant, Instant)> = None;
        let mut frame = Vec::new();
        let end = loop {
            if let Some(end) = self.run.must_end(self.count_reached()) {
                break end;
            }
            let quiet = times.map_or(start, |t| t.1).elapsed();
            let allowed = self.idle.map(|(first, later)| if times.is_some() { later } else { first });
            if allowed.is_some_and(|a| quiet >= a) {
                break End::Idle;
            }
            let most = allowed.map_or(SLICE, |a| (a - quiet).min(SLICE));
            // Syncs by itself, and returns at once if there are frames already.
            self.run.wait(port, Interest::READ, most)?;
            let mut got = false;
            for i in 0..port.rx_count() {
                got |= self.take(&mut port.rx(i), &mut frame);
            }
            if got {
                let now = Instant::now();
                times = Some((times.map_or(now, |t| t.0), now));
            }
            self.run.counters.offer_drops(|| port.drops());
        };
        // The other end of a pipe waits for what was released last. A port that failed meanwhile does not change what
        // was received.
        drop(port.sync_rx());
        let verified = self.verifier.map(|v| {
            // The sender is done if nothing came for long: what is missing will not come any more.
            let all = self.count.filter(|_| end == End::Idle);
            (v.tally(all), v.first_fault().map(str::to_string))
        });
        Ok(Received { end, times, verified })
    }

    fn count_reached(&self) -> bool {
        let done = match &self.verifier {
            Some(v) => v.received(),
            None => self.claimed.load(Ordering::Relaxed),
        };
        self.count.is_some_and(|n| done >= n)
    }

    /// Reserves up to `frames` of what is left of the count.
    fn claim(&self, frames: u64) -> u64 {
        let Some(count) = self.count else { return frames };
        let mut now = self.claimed.load(Ordering::Relaxed);
        loop {
            let take = frames.min(count.saturating_sub(now));
            match self.claimed.compare_exchange_weak(now, now + take, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return take,
                Err(other) => now = other,
            }
        }
    }

    /// Takes what one ring has, at most a burst; true if that was anything.
    fn take(&mut self, ring: &mut RxRing<'_>, frame: &mut Vec<u8>) -> bool {
        let available = ring.available();
        if available == 0 {
            return false;
        }
        if self.verifier.is_none() && !self.run.dump {
            let most = u64::from(available).min(self.burst);
            let (n, bytes) = whole(ring, most as u32);
            if n > 0 {
                let claimed = self.claim(n.into());
                let bytes = if claimed == u64::from(n) { bytes } else { whole(ring, claimed as u32).1 };
                ring.release(claimed as u32);
                self.run.counters.add(claimed, bytes);
                return claimed > 0;
            }
        }
        let (mut from, mut frames, mut bytes) = (0u32, 0u64, 0u64);
        while from < available && u64::from(from) < self.burst && !(self.verifier.is_some() && self.count_reached()) {
            let (slots, whole) = match rx_chain(ring, from, available) {
                Chain::Whole(slots) => (slots, true),
                Chain::Endless(slots) => (slots, false),
                Chain::Incomplete => {
                    ring.want_more();
                    break;
                }
            };
            if self.verifier.is_none() && self.claim(1) == 0 {
                break;
            }
            let slots_of = || (from..from + slots).filter_map(|n| ring.slot(n));
            bytes += slots_of().map(|s| s.len() as u64).sum::<u64>();
            if self.run.dump {
                slots_of().for_each(|s| dump(&s, self.run.quiet_stdout));
            }
            if let Some(verifier) = &mut self.verifier {
                if whole {
                    gather(slots_of(), frame);
                    verifier.take(frame);
                } else {
                    verifier.take_broken();
                }
            }
            frames += 1;
            from += slots;
        }
        if from == 0 {
            return false;
        }
        ring.release(from);
        self.run.counters.add(frames, bytes);
        true
    }
}

/// Packets of one slot each at the start of what waits, at most `most`, and their bytes.
fn whole(ring: &RxRing<'_>, most: u32) -> (u32, u64) {
    let mut bytes = 0;
    for n in 0..most {
        match ring.slot(n) {
            Some(slot) if slot.flags() & NS_MOREFRAG == 0 => bytes += slot.len() as u64,
            _ => return (n, bytes),
        }
    }
    (most, bytes)
}

/// The bytes of all slots of a packet, one after another.
fn gather<'a>(slots: impl Iterator<Item = Slot<'a>>, frame: &mut Vec<u8>) {
    frame.clear();
    for slot in slots {
        let at = frame.len();
        frame.resize(at + slot.len(), 0);
        let got = slot.read_at(0, &mut frame[at..]);
        frame.truncate(at + got);
    }
}

/// Shows a slot and the bytes in it.
pub fn dump(slot: &Slot<'_>, to_stderr: bool) {
    let mut bytes = vec![0; slot.len()];
    let got = slot.read_at(0, &mut bytes);
    let text =
        format!("buf {} flags 0x{:04x} len {}\n{}", slot.buf_idx(), slot.flags(), slot.len(), hex_lines(&bytes[..got]));
    signal::print(&text, to_stderr);
}

/// Sixteen bytes per line: offset, hexadecimal, text.
fn hex_lines(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (i, line) in bytes.chunks(16).enumerate() {
        let hex: String = line.iter().map(|b| format!("{b:02x} ")).collect();
        let text: String = line.iter().map(|&b| if (0x20..0x7f).contains(&b) { b as char } else { '.' }).collect();
        out += &format!("{:5}: {hex:<48} {text}\n", i * 16);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_show_offset_bytes_and_text() {
        let text = hex_lines(b"0123456789abcdef\x00~\xff");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "    0: 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef");
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["16:", "00", "7e", "ff", ".~."]);
        assert_eq!(hex_lines(&[]), "");
    }

    #[test]
    fn threads_claim_the_count_exactly() {
        let claimed = AtomicU64::new(0);
        let counters = Counters::default();
        let run = Run { counters: &counters, deadline: None, dump: false, quiet_stdout: false };
        let receiver = |count| Receiver { run, burst: 1, idle: None, count, claimed: &claimed, verifier: None };
        let r = receiver(Some(10));
        assert_eq!((r.claim(7), r.count_reached()), (7, false));
        assert_eq!((r.claim(7), r.count_reached()), (3, true));
        assert_eq!(r.claim(7), 0);
        assert_eq!(receiver(None).claim(7), 7);
    }

    #[test]
    fn the_deadline_ends_a_run_and_a_reached_count_comes_first() {
        let counters = Counters::default();
        let run = Run { counters: &counters, deadline: Some(Instant::now()), dump: false, quiet_stdout: false };
        assert_eq!(run.must_end(false), Some(End::Time));
        assert_eq!(run.must_end(true), Some(End::Count));
        assert_eq!(Run { deadline: None, ..run }.must_end(false), None);
    }
}
