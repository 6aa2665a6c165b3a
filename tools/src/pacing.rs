//! When to send: the arithmetic of `-R`. Time is an argument in nanoseconds since the start, so tests need no clock.

use std::time::{Duration, Instant};

use crate::signal;

const SECOND: u64 = 1_000_000_000;
/// A sender that was held up catches up with at most this much of the past.
const MOST_BACKLOG: u64 = SECOND / 10;
/// Waits longer than this sleep; the rest is spun, because a sleep wakes this late.
const SPIN: Duration = Duration::from_micros(100);

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send up to so many frames.
    Send(u64),
    /// Send nothing for so many nanoseconds.
    Wait(u64),
}

/// Spreads frames evenly over time, in chunks.
///
/// Frame `i` is due at `i / rate` after the origin, an absolute time, so that errors of single waits do not add up.
#[derive(Debug, Clone)]
pub struct Pacer {
    rate: u64,
    chunk: u64,
    origin: u64,
    sent: u64,
}

impl Pacer {
    /// `rate` frames per second, at least 1, in chunks of at most `burst` frames and 1/300 s.
    pub fn new(rate: u64, burst: u64) -> Pacer {
        Pacer { rate: rate.max(1), chunk: burst.min(rate / 300).max(1), origin: 0, sent: 0 }
    }

    /// Frames that are sent at once.
    pub fn chunk(&self) -> u64 {
        self.chunk
    }

    /// When the next frame is due.
    fn due(&self) -> u64 {
        let offset = u128::from(self.sent) * u128::from(SECOND) / u128::from(self.rate);
        self.origin.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
    }

    /// What to do at time `now`.
    pub fn step(&mut self, now: u64) -> Step {
        let due = self.due();
        if now < due {
            return Step::Wait(due - now);
        }
        if now - due > MOST_BACKLOG {
            self.origin = now - MOST_BACKLOG;
            self.sent = 0;
        }
        Step::Send(self.chunk)
    }

    /// Tells that so many frames were sent.
    pub fn sent(&mut self, frames: u64) {
        self.sent += frames;
    }
}

/// Waits until `deadline`: sleeps while there is much to wait, spins for the rest. False if the user stopped the
/// program.
pub fn wait_until(deadline: Instant) -> bool {
    loop {
        if signal::stopped() {
            return false;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        if left > SPIN {
            std::thread::sleep((left - SPIN * 4 / 5).min(Duration::from_millis(100)));
        } else {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a pacer on a clock that moves only by waiting, and returns the frames sent in `span` nanoseconds.
    fn run(rate: u64, burst: u64, span: u64) -> u64 {
        let (mut pacer, mut now, mut total) = (Pacer::new(rate, burst), 0, 0);
        loop {
            match pacer.step(now) {
                Step::Wait(ns) => now += ns,
                Step::Send(n) => {
                    total += n;
                    pacer.sent(n);
                }
            }
            if now >= span {
                return total;
            }
        }
    }

    #[test]
    fn rate_is_exact_over_seconds() {
        for rate in [1, 7, 299, 1000, 10_000, 1_000_000, 14_880_952] {
            for burst in [1, 64, 512] {
                let sent = run(rate, burst, 10 * SECOND);
                let chunk = Pacer::new(rate, burst).chunk();
                assert!(sent.abs_diff(rate * 10) <= chunk, "{rate} pps, burst {burst}: {sent} in 10 s");
            }
        }
    }

    #[test]
    fn chunks_are_small_enough_to_look_smooth() {
        assert_eq!(Pacer::new(1_000_000, 512).chunk(), 512);
        assert_eq!(Pacer::new(30_000, 512).chunk(), 100);
        assert_eq!(Pacer::new(10, 512).chunk(), 1);
        assert_eq!(Pacer::new(1_000_000, 1).chunk(), 1);
    }

    #[test]
    fn late_waits_do_not_add_up() {
        let (mut pacer, mut now, mut total) = (Pacer::new(1000, 1), 0, 0);
        while now < 10 * SECOND {
            match pacer.step(now) {
                Step::Wait(ns) => now += ns + 70_000,
                Step::Send(n) => {
                    total += n;
                    pacer.sent(n);
                }
            }
        }
        assert!(total >= 9_990, "{total} of 10000");
    }

    #[test]
    fn a_long_stall_is_not_made_up_for_with_a_flood() {
        let mut pacer = Pacer::new(1000, 1);
        let mut burst = 0;
        while let Step::Send(n) = pacer.step(60 * SECOND) {
            pacer.sent(n);
            burst += n;
        }
        assert!((100..=102).contains(&burst), "{burst} frames at once");
    }

    #[test]
    fn partial_chunks_count_only_what_was_sent() {
        let mut pacer = Pacer::new(3000, 10);
        assert_eq!(pacer.step(0), Step::Send(10));
        pacer.sent(3);
        assert_eq!(pacer.step(0), Step::Wait(1_000_000));
    }
}
