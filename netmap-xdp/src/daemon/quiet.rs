//! Log lines that a client can cause, at a rate that it cannot choose.

use crate::sys::{Level, log};
use std::time::Duration;

/// Lines in one period.
const LINES: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// Counts lines.
pub struct Quiet {
    since: Duration,
    said: u32,
}

impl Quiet {
    /// Nothing was said.
    pub fn new() -> Quiet {
        Quiet { since: Duration::ZERO, said: 0 }
    }

    /// Whether a line may be written now; and how many were left out in the period that is over.
    fn admit(&mut self, now: Duration) -> (bool, u32) {
        let mut left_out = 0;
        if now.saturating_sub(self.since) >= PERIOD {
            left_out = self.said.saturating_sub(LINES);
            (self.since, self.said) = (now, 0);
        }
        self.said = self.said.saturating_add(1);
        (self.said <= LINES, left_out)
    }

    /// Writes a line unless there were too many.
    pub fn log(&mut self, now: Duration, level: Level, line: std::fmt::Arguments<'_>) {
        let (say, left_out) = self.admit(now);
        if left_out > 0 {
            log(level, format_args!("{left_out} lines like these were left out"));
        }
        if say {
            log(level, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut quiet = Quiet::new();
        let start = Duration::from_secs(100);
        let said = (0..1000).filter(|_| quiet.admit(start).0).count();
        assert_eq!(said, LINES as usize);
        assert_eq!(quiet.admit(start + PERIOD), (true, 1000 - LINES));
        assert_eq!(quiet.admit(start + PERIOD), (true, 0));
    }
}
