//! Round trips: `ping` sends frames with a number and a time, `pong` turns around whatever comes in.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use netmap_xdp::api::{Interest, Port, Slot};

use crate::forward::{How, Mover, Rest};
use crate::frame::{Mac, TURN_AROUND_BYTES, UdpFrame, turn_around};
use crate::pacing::{self, Pacer, Step};
use crate::rx::{End, Run, dump};
use crate::signal;
use crate::units::show_ns;

/// Bytes of payload that a ping needs: magic, number, time.
pub const PAYLOAD: usize = 16;
const MAGIC: [u8; 4] = *b"NmXp";
/// How long to wait for an answer before the next ping.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pings without an answer that are remembered.
const MOST_PENDING: usize = 1 << 16;
const SLICE: Duration = Duration::from_millis(100);
/// Longest time that is told apart from a longer one.
const LONGEST_NS: u64 = 60_000_000_000;

/// The payload of ping `number`, sent `ns` nanoseconds after the start.
fn payload(number: u32, ns: u64) -> [u8; PAYLOAD] {
    let mut bytes = [0; PAYLOAD];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&ns.to_be_bytes());
    bytes
}

fn parse_payload(bytes: &[u8; PAYLOAD]) -> Option<(u32, u64)> {
    let number = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let ns = u64::from_be_bytes(std::array::from_fn(|i| bytes[8 + i]));
    (bytes[..4] == MAGIC).then_some((number, ns))
}

/// Times of round trips in nanoseconds.
#[derive(Debug, Clone)]
pub struct Times(Histogram<u64>);

impl Times {
    /// None yet.
    pub fn new() -> Result<Times, String> {
        Histogram::new_with_bounds(1, LONGEST_NS, 3).map(Times).map_err(|e| format!("histogram: {e}"))
    }

    fn add(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(1));
    }

    /// Number of answers.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// True if no answer came.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values of the summary.
    fn figures(&self) -> [(&'static str, u64); 7] {
        let at = |p| self.0.value_at_percentile(p);
        [
            ("min", self.0.min()),
            ("avg", self.0.mean() as u64),
            ("p50", at(50.0)),
            ("p90", at(90.0)),
            ("p99", at(99.0)),
            ("p99.9", at(99.9)),
            ("max", self.0.max()),
        ]
    }

    /// For people: `min 12.00 us avg ...`.
    pub fn text(&self) -> String {
        self.figures().map(|(name, ns)| format!("{name} {}", show_ns(ns))).join(" ")
    }

    /// For scripts: `min_ns=12000 avg_ns=...`.
    pub fn machine(&self) -> String {
        self.figures().map(|(name, ns)| format!("{}_ns={ns}", name.replace('.', "_"))).join(" ")
    }
}

/// The asking side.
pub struct Pinger<'a> {
    /// What it shares with all loops.
    pub run: Run<'a>,
    /// The frame; its payload is long enough.
    pub frame: UdpFrame,
    /// Pings at once.
    pub burst: u64,
    /// Pacing, if any.
    pub pacer: Option<Pacer>,
    /// Time between lines on stderr.
    pub report: Duration,
}

/// How pinging ended.
pub struct Pinged {
    /// Why it ended.
    pub end: End,
    /// Pings sent.
    pub sent: u64,
    /// Times of those that were answered.
    pub times: Times,
    /// From start to end.
    pub span: Duration,
}

impl Pinger<'_> {
    /// Pings until the count, the time limit or the user ends it. The next burst goes out when all of the last one were
    /// answered, or after a second.
    pub fn run(mut self, port: &mut Port, count: Option<u64>) -> Result<Pinged, String> {
        if port.tx_count() == 0 || port.rx_count() == 0 {
            return Err(format!("{}: ping needs a TX and an RX ring", port.name()));
        }
        let start = Instant::now();
        let mut times = Times::new()?;
        let mut recent = Times::new()?;
        let mut pending = BTreeSet::new();
        let mut sent = 0u64;
        let mut reported = start;
        let end = loop {
            if let Some(end) = self.run.must_end(count.is_some_and(|n| sent >= n)) {
                break end;
            }
            let mut burst = self.burst.min(count.map_or(u64::MAX, |n| n - sent));
            if let Some(pacer) = &mut self.pacer {
                match pacer.step(start.elapsed().as_nanos() as u64) {
                    Step::Wait(ns) => {
                        pacing::wait_until(Instant::now() + Duration::from_nanos(ns).min(SLICE));
                        continue;
                    }
                    Step::Send(n) => burst = burst.min(n),
                }
            }
            let pushed = self.send(port, burst, sent, start, &mut pending);
            sent += pushed;
            if pushed == 0 {
                self.run.wait(port, Interest::WRITE, SLICE)?;
                continue;
            }
            if let Some(pacer) = &mut self.pacer {
                pacer.sent(pushed);
            }
            self.run.counters.add(pushed, pushed * self.frame.bytes().len() as u64);
            port.sync_tx().or_else(|e| if signal::interrupted(&e) { Ok(()) } else { Err(e.to_string()) })?;
            let asked = Instant::now();
            let oldest = (sent - pushed) as u32;
            // Answers to earlier bursts are still welcome, but nobody waits for them.
            while pending.range(oldest..).next().is_some() && asked.elapsed() < PATIENCE {
                if self.run.must_end(false).is_some() {
                    break;
                }
                self.run.wait(port, Interest::READ, SLICE)?;
                self.receive(port, start, &mut pending, &mut |ns| {
                    times.add(ns);
                    recent.add(ns);
                });
            }
            if reported.elapsed() >= self.report {
                eprintln!(
                    "{} answers, RTT: {}",
                    recent.len(),
                    if recent.is_empty() { "-".into() } else { recent.text() }
                );
                recent.0.reset();
                reported = Instant::now();
            }
        };
        Ok(Pinged { end, sent, times, span: start.elapsed() })
    }

    /// Puts up to `burst` pings into the first ring.
    fn send(&mut self, port: &mut Port, burst: u64, sent: u64, start: Instant, pending: &mut BTreeSet<u32>) -> u64 {
        let mut ring = port.tx(0);
        let mut pushed = 0;
        while pushed < burst {
            let number = (sent + pushed) as u32;
            self.frame.set_payload(&payload(number, start.elapsed().as_nanos() as u64));
            if !ring.push(self.frame.bytes()) {
                break;
            }
            pending.insert(number);
            if pending.len() > MOST_PENDING {
                pending.pop_first();
            }
            pushed += 1;
        }
        pushed
    }

    /// Takes all that came in; `answer` gets the time of each ping that was under way.
    fn receive(&self, port: &mut Port, start: Instant, pending: &mut BTreeSet<u32>, answer: &mut impl FnMut(u64)) {
        let at = self.frame.payload();
        let ether_type = &self.frame.bytes()[12..14];
        for i in 0..port.rx_count() {
            let mut ring = port.rx(i);
            let available = ring.available();
            for slot in (0..available).filter_map(|n| ring.slot(n)) {
                let now = start.elapsed().as_nanos() as u64;
                if self.run.dump {
                    dump(&slot, self.run.quiet_stdout);
                }
                let (mut kind, mut bytes) = ([0; 2], [0; PAYLOAD]);
                let whole = slot.len() >= at + PAYLOAD
                    && slot.read_at(12, &mut kind) == 2
                    && slot.read_at(at, &mut bytes) == PAYLOAD;
                if let Some((number, ns)) = parse_payload(&bytes).filter(|_| whole && kind == *ether_type)
                    && pending.remove(&number)
                {
                    answer(now.saturating_sub(ns));
                }
            }
            ring.release(available);
        }
    }
}

/// The answering side, or any port whose input is to go out again: each RX ring is turned into a TX ring.
pub struct Reflector<'a> {
    /// What it shares with all loops.
    pub run: Run<'a>,
    /// Packets per ring and round.
    pub burst: u64,
    /// Exchange addresses; the port's own MAC stands in for a group address.
    pub turn: bool,
    /// Slots exchange buffers or bytes are copied.
    pub how: How,
}

/// How reflecting ended.
pub struct Reflected {
    /// Why it ended.
    pub end: End,
    /// Packets sent back.
    pub frames: u64,
    /// Packets that could not be.
    pub dropped: u64,
    /// From start to end.
    pub span: Duration,
}

impl Reflector<'_> {
    /// Reflects until the count, the time limit or the user ends it.
    pub fn run(self, port: &mut Port, count: Option<u64>) -> Result<Reflected, String> {
        if port.tx_count() == 0 || port.rx_count() == 0 {
            return Err(format!("{}: this needs a TX and an RX ring", port.name()));
        }
        let (start, own) = (Instant::now(), port.mac());
        let (rx_rings, tx_rings) = (port.rx_count(), port.tx_count());
        let mut mover = Mover::new(self.how);
        let (mut frames, mut dropped) = (0u64, 0u64);
        let mut want = Interest::READ;
        let end = loop {
            if let Some(end) = self.run.must_end(count.is_some_and(|n| frames >= n)) {
                break end;
            }
            self.run.wait(port, want, SLICE)?;
            want = Interest::READ;
            let before = frames;
            for i in 0..rx_rings {
                let out = i % tx_rings;
                let limit = self.burst.min(count.map_or(u64::MAX, |n| n - frames));
                let (mut rx, mut tx) = port.pair(i, out);
                let moved =
                    mover.run(&mut rx, &mut tx, limit, |slot| self.edit(slot, own)).map_err(|e| e.to_string())?;
                frames += moved.frames;
                dropped += moved.dropped;
                if moved.frames > 0 {
                    self.run.counters.add(moved.frames, moved.bytes);
                }
                if moved.rest != Rest::None {
                    rx.want_more();
                }
                if moved.rest == Rest::NoRoom {
                    want.write = true;
                }
            }
            if want.write {
                // Only more room than there is now is worth waking up for.
                (0..tx_rings).for_each(|i| port.tx(i).want_more());
            }
            if frames > before {
                port.sync_tx().or_else(|e| if signal::interrupted(&e) { Ok(()) } else { Err(e.to_string()) })?;
            }
            self.run.counters.offer_drops(|| port.drops());
        };
        Ok(Reflected { end, frames, dropped, span: start.elapsed() })
    }

    fn edit(&self, slot: &Slot<'_>, own: Option<Mac>) {
        if self.turn {
            let mut head = [0; TURN_AROUND_BYTES];
            let n = slot.len().min(head.len());
            let n = slot.read_at(0, &mut head[..n]);
            turn_around(&mut head[..n], own);
            slot.write_at(0, &head[..n]);
        }
        if self.run.dump {
            dump(slot, self.run.quiet_stdout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_read_back_and_strangers_are_not() {
        let bytes = payload(7, 123_456_789_012);
        assert_eq!(parse_payload(&bytes), Some((7, 123_456_789_012)));
        assert_eq!(parse_payload(&[0; PAYLOAD]), None);
    }

    #[test]
    fn times_are_summed_up_with_percentiles() {
        let mut times = Times::new().unwrap();
        assert!(times.is_empty());
        (1..=1000).for_each(|us| times.add(us * 1000));
        times.add(0);
        times.add(u64::MAX);
        assert_eq!(times.len(), 1002);
        let text = times.text();
        for name in ["min", "avg", "p50 5", "p90 90", "p99 99", "p99.9", "max"] {
            assert!(text.contains(name), "{name} in {text}");
        }
        let machine = times.machine();
        assert!(machine.starts_with("min_ns=1 ") && machine.contains(" p99_9_ns="), "{machine}");
    }
}
