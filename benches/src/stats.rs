//! Medians and how they are shown.

/// Values of one quantity, one per round.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The middle one, or the mean of the two in the middle; not a number if there is none.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        match n {
            0 => f64::NAN,
            _ => (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
        }
    }

    /// The smallest.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    /// The largest.
    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    /// Round by round, this over `peer`.
    pub fn ratio_to(&self, peer: &Sample) -> Sample {
        Sample(self.0.iter().zip(&peer.0).map(|(a, b)| a / b).collect())
    }

    /// Where the true median is at most, nineteen times out of twenty (a sign test): the largest value as long as there
    /// are few.
    fn at_most(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len() as f64;
        let from_the_top = ((n - 1.96 * n.sqrt()) / 2.0).max(0.0) as usize;
        sorted.iter().rev().nth(from_the_top).copied().unwrap_or(f64::NAN)
    }

    /// Whether more values would not tell more about a goal: it is reached, or missed by more than chance.
    pub fn decided(&self, goal: f64) -> bool {
        self.median() >= goal || self.at_most() < goal
    }

    /// `median (min..max)`.
    pub fn show(&self, decimals: usize) -> String {
        format!("{:.decimals$} ({:.decimals$}..{:.decimals$})", self.median(), self.min(), self.max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: &[f64]) -> Sample {
        Sample(values.to_vec())
    }

    #[test]
    fn the_median_is_in_the_middle_and_the_spread_at_the_ends() {
        assert_eq!(sample(&[9.0, 1.0, 2.0]).show(1), "2.0 (1.0..9.0)");
        assert_eq!(sample(&[4.0, 1.0, 2.0, 8.0]).median(), 3.0);
        assert!(Sample::default().median().is_nan());
    }

    #[test]
    fn a_goal_is_missed_only_by_more_than_chance() {
        assert!(sample(&[0.9, 1.0, 1.1]).decided(1.0), "reached");
        assert!(!sample(&[0.9, 0.9, 1.1]).decided(1.0), "few values, and one of them above");
        let nine = |above: usize| sample(&[vec![0.9; 9 - above], vec![1.1; above]].concat());
        assert!(nine(1).decided(1.0) && !nine(2).decided(1.0) && nine(5).decided(1.0));
        assert!(!Sample::default().decided(1.0));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        assert_eq!(sample(&[2.0, 9.0]).ratio_to(&sample(&[1.0, 3.0])).0, [2.0, 3.0]);
    }
}
