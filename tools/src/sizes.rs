//! Frame sizes and the small random generator behind random sizes and addresses.

/// xorshift64*: fast, good enough for test traffic, and repeatable from its seed.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator; equal seeds give equal numbers.
    pub fn new(seed: u64) -> Rng {
        // Spread small seeds, and avoid zero, where xorshift would stay for ever.
        Rng(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1))
    }

    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "an endless generator, not an iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in `0..bound`; `bound` is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Lengths of the frames to send, without CRC; `min <= max`, equal if all frames have one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Shortest frame in bytes.
    pub min: usize,
    /// Longest frame in bytes.
    pub max: usize,
}

impl Sizes {
    /// One length only.
    pub fn fixed(len: usize) -> Sizes {
        Sizes { min: len, max: len }
    }

    /// Reads `MIN..MAX` or a single number.
    pub fn parse(text: &str) -> Result<Sizes, String> {
        let hint = || format!("`{text}` is not a range of sizes; write 60..1514");
        let number = |s: &str| s.trim_start_matches('=').parse::<usize>().map_err(|_| hint());
        let (min, max) = match text.split_once("..") {
            Some((a, b)) => (number(a)?, number(b)?),
            None => (number(text)?, number(text)?),
        };
        if min > max {
            return Err(format!("`{text}`: the smaller size comes first"));
        }
        Ok(Sizes { min, max })
    }

    /// True if there is one length only.
    pub fn is_fixed(&self) -> bool {
        self.min == self.max
    }

    /// A length drawn evenly from the range.
    pub fn random(&self, rng: &mut Rng) -> usize {
        if self.is_fixed() { self.max } else { self.min + rng.below((self.max - self.min + 1) as u64) as usize }
    }

    /// Length of the test frame with this sequence number, the same for every sender.
    pub fn of_sequence(&self, seq: u64) -> usize {
        self.min + (seq.wrapping_mul(7919) % (self.max - self.min + 1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_ranges_are_read() {
        assert_eq!(Sizes::parse("60..1514"), Ok(Sizes { min: 60, max: 1514 }));
        assert_eq!(Sizes::parse("64"), Ok(Sizes::fixed(64)));
        for bad in ["", "..", "60..", "1514..60", "a..b", "-1..5"] {
            assert!(Sizes::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn random_sizes_stay_inside_and_reach_both_ends() {
        let sizes = Sizes { min: 60, max: 63 };
        let mut rng = Rng::new(3);
        let drawn: std::collections::BTreeSet<usize> = (0..1000).map(|_| sizes.random(&mut rng)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [60, 61, 62, 63]);
    }

    #[test]
    fn sequence_sizes_follow_the_shared_formula() {
        let sizes = Sizes { min: 60, max: 1514 };
        for seq in [0u64, 1, 2, 1000, 123_456_789] {
            assert_eq!(sizes.of_sequence(seq), 60 + ((seq * 7919) % 1455) as usize);
        }
        assert_eq!(Sizes::fixed(64).of_sequence(u64::MAX), 64);
    }

    #[test]
    fn generator_repeats_from_its_seed_and_never_sticks_at_zero() {
        let (mut a, mut b, mut zero) = (Rng::new(5), Rng::new(5), Rng::new(u64::MAX));
        for _ in 0..100 {
            assert_eq!(a.next(), b.next());
            assert_ne!(zero.next(), 0);
        }
    }
}
