//! Counters that the working threads publish, the reports that the main thread makes of them, and the final summary.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netmap_xdp::api::DropReason;

use crate::units::show;

/// Reports that the mean and deviation of `-A` look back on.
const WINDOW: usize = 40;

/// What one thread has done so far. Its own cache lines: only the owner writes, the main thread reads now and then.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    frames: AtomicU64,
    bytes: AtomicU64,
    batches: AtomicU64,
    drops: AtomicU64,
    want_drops: AtomicBool,
}

/// A snapshot of counters, or their difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Whole frames.
    pub frames: u64,
    /// Their bytes, without CRC.
    pub bytes: u64,
    /// Rounds that moved frames.
    pub batches: u64,
    /// Frames dropped for any reason.
    pub drops: u64,
}

impl Counters {
    /// Adds one batch; for the owning thread alone.
    pub fn add(&self, frames: u64, bytes: u64) {
        let bump = |c: &AtomicU64, n: u64| c.store(c.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        bump(&self.frames, frames);
        bump(&self.bytes, bytes);
        bump(&self.batches, 1);
    }

    /// Publishes the port's drops if the main thread asked for them; `drops` may cost system calls.
    pub fn offer_drops(&self, drops: impl FnOnce() -> Vec<DropReason>) {
        if self.want_drops.load(Ordering::Relaxed) {
            self.want_drops.store(false, Ordering::Relaxed);
            self.drops.store(drops().iter().map(|d| d.1).sum(), Ordering::Relaxed);
        }
    }

    /// The counters now.
    pub fn sample(&self) -> Sample {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Sample {
            frames: get(&self.frames),
            bytes: get(&self.bytes),
            batches: get(&self.batches),
            drops: get(&self.drops),
        }
    }
}

impl Sample {
    /// The sum of both.
    pub fn plus(self, o: Sample) -> Sample {
        Sample {
            frames: self.frames + o.frames,
            bytes: self.bytes + o.bytes,
            batches: self.batches + o.batches,
            drops: self.drops + o.drops,
        }
    }

    fn minus(self, o: Sample) -> Sample {
        Sample {
            frames: self.frames.saturating_sub(o.frames),
            bytes: self.bytes.saturating_sub(o.bytes),
            batches: self.batches.saturating_sub(o.batches),
            drops: self.drops.saturating_sub(o.drops),
        }
    }
}

/// How reports look.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Unit prefixes.
    pub normalise: bool,
    /// Bytes that each frame takes on the wire beside its own.
    pub framing: u64,
    /// Mean and deviation.
    pub rate_stats: bool,
}

impl Style {
    fn bits(&self, s: &Sample, framing: u64) -> f64 {
        8.0 * (s.bytes as f64 + s.frames as f64 * framing as f64)
    }

    /// One report over `span`.
    pub fn line(&self, s: &Sample, span: Duration, window: &[f64]) -> String {
        let seconds = span.as_secs_f64().max(1e-6);
        let rate = s.frames as f64 / seconds;
        let batch = if s.batches == 0 { 0.0 } else { s.frames as f64 / s.batches as f64 };
        let spread = match (self.rate_stats, mean_and_deviation(window)) {
            (true, Some((mean, dev))) => {
                format!("[avg/std {}/{}] ", show(mean, "pps", self.normalise), show(dev, "pps", self.normalise))
            }
            _ => String::new(),
        };
        format!(
            "{} {spread}({} {} in {} usec) {batch:.2} avg_batch {} drops",
            show(rate, "pps", self.normalise),
            show(s.frames as f64, "pkts", self.normalise),
            show(self.bits(s, self.framing) / seconds, "bps", self.normalise),
            span.as_micros(),
            s.drops,
        )
    }

    /// The summary after a run: what (`Sent`, `Received`), how many and how fast.
    pub fn summary(&self, verb: &str, s: &Sample, span: Duration) -> String {
        if s.frames == 0 {
            return format!("{verb} nothing.");
        }
        let seconds = span.as_secs_f64();
        let per = seconds.max(1e-6);
        format!(
            "{verb} {} packets {} bytes {} events {} bytes each in {seconds:.2} seconds.\n\
             Speed: {} Bandwidth: {} (with framing {}). Average batch: {:.2} packets",
            s.frames,
            s.bytes,
            s.batches,
            s.bytes / s.frames,
            show(s.frames as f64 / per, "pps", self.normalise),
            show(self.bits(s, 0) / per, "bps", self.normalise),
            show(self.bits(s, 24) / per, "bps", self.normalise),
            s.frames as f64 / s.batches.max(1) as f64,
        )
    }
}

fn mean_and_deviation(window: &[f64]) -> Option<(f64, f64)> {
    let n = window.len() as f64;
    if window.is_empty() {
        return None;
    }
    let mean = window.iter().sum::<f64>() / n;
    let variance = window.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    Some((mean, variance.sqrt()))
}

/// The main thread's side: prints a line every `interval` on stderr until `done` says that the threads have ended.
pub fn report_until(done: impl Fn() -> bool, threads: &[Counters], interval: Duration, style: Style) {
    let total = || threads.iter().fold(Sample::default(), |sum, c| sum.plus(c.sample()));
    let (mut before, mut since) = (total(), Instant::now());
    let mut window = Vec::new();
    while !done() {
        let left = interval.saturating_sub(since.elapsed());
        if !left.is_zero() {
            for c in threads {
                c.want_drops.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
            continue;
        }
        let (now, span) = (total(), since.elapsed());
        since = Instant::now();
        let moved = now.minus(before);
        before = now;
        window.push(moved.frames as f64 / span.as_secs_f64());
        if window.len() > WINDOW {
            window.remove(0);
        }
        eprintln!("{}", style.line(&moved, span, &window));
    }
}

/// Drops of several ports by reason, added up; drops of a port that several threads opened are counted by each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drops(BTreeMap<&'static str, u64>);

impl Drops {
    /// Adds what a port says.
    pub fn add(&mut self, drops: Vec<DropReason>) {
        for (reason, count) in drops.into_iter().filter(|d| d.1 != 0) {
            *self.0.entry(reason).or_default() += count;
        }
    }

    /// Adds the drops of another thread.
    pub fn merge(&mut self, other: &Drops) {
        self.add(other.0.iter().map(|(&r, &n)| (r, n)).collect());
    }

    /// True if nothing was dropped.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `reason:N,...` without blanks, or `none`.
    pub fn machine(&self) -> String {
        if self.is_empty() {
            return "none".into();
        }
        self.0.iter().map(|(r, n)| format!("{}:{n}", r.replace([' ', ',', ':'], "_"))).collect::<Vec<_>>().join(",")
    }
}

impl std::fmt::Display for Drops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("Drops: none");
        }
        let list = self.0.iter().map(|(r, n)| format!("{r} {n}")).collect::<Vec<_>>().join(", ");
        write!(f, "Drops: {list}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style { normalise: true, framing: 0, rate_stats: false };

    #[test]
    fn reports_look_as_users_know_them() {
        let s = Sample { frames: 1_488_095, bytes: 1_488_095 * 60, batches: 14_880, drops: 3 };
        let line = STYLE.line(&s, Duration::from_secs(1), &[]);
        assert_eq!(line, "1.488 Mpps (1.488 Mpkts 714.286 Mbps in 1000000 usec) 100.01 avg_batch 3 drops");
        let framed = Style { framing: 24, rate_stats: true, ..STYLE }.line(&s, Duration::from_secs(1), &[1e6, 3e6]);
        assert!(framed.contains("[avg/std 2.000 Mpps/1.000 Mpps]"), "{framed}");
        assert!(framed.contains("1000.000 Mbps"), "{framed}");
        assert!(!STYLE.line(&Sample::default(), Duration::ZERO, &[]).contains("NaN"));
    }

    #[test]
    fn summaries_carry_counts_and_speed() {
        let s = Sample { frames: 1000, bytes: 60_000, batches: 10, drops: 0 };
        let text = STYLE.summary("Sent", &s, Duration::from_millis(500));
        assert!(text.starts_with("Sent 1000 packets 60000 bytes 10 events 60 bytes each in 0.50 seconds.\n"), "{text}");
        assert!(text.contains("Speed: 2.000 Kpps Bandwidth: 960.000 Kbps (with framing 1.344 Mbps)"), "{text}");
        assert_eq!(STYLE.summary("Received", &Sample::default(), Duration::ZERO), "Received nothing.");
    }

    #[test]
    fn drops_are_added_by_reason() {
        let mut drops = Drops::default();
        assert_eq!((drops.machine().as_str(), drops.to_string().as_str()), ("none", "Drops: none"));
        drops.add(vec![("ring full", 2), ("too long", 0)]);
        drops.add(vec![("ring full", 3), ("bad length", 1)]);
        let mut all = Drops::default();
        all.merge(&drops);
        assert_eq!(all.machine(), "bad_length:1,ring_full:5");
        assert_eq!(all.to_string(), "Drops: bad length 1, ring full 5");
    }

    #[test]
    fn counters_add_up_and_give_drops_when_asked() {
        let c = Counters::default();
        c.add(3, 180);
        c.add(2, 120);
        c.offer_drops(|| panic!("nobody asked"));
        c.want_drops.store(true, Ordering::Relaxed);
        c.offer_drops(|| vec![("a", 1), ("b", 2)]);
        assert_eq!(c.sample(), Sample { frames: 5, bytes: 300, batches: 2, drops: 3 });
    }
}
