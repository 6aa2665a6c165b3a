//! The two kinds of ring index, which do not mix.
//!
//! A [`Cursor`] runs freely and wraps at 2^32, as producer and consumer of AF_XDP rings do; its ring has a power-of-two
//! size. A slot index is a `u32` in `0..num_slots` of a netmap ring of any size; [`next_slot`] and [`distance`] step it.

/// A free-running position in an AF_XDP ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Cursor(pub u32);

impl Cursor {
    /// Entries from `earlier` to here.
    #[inline]
    pub fn since(self, earlier: Cursor) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The position `n` entries on.
    #[inline]
    #[must_use]
    pub fn ahead(self, n: u32) -> Cursor {
        Cursor(self.0.wrapping_add(n))
    }

    /// Index into a ring of `mask + 1` entries.
    #[inline]
    pub fn at(self, mask: u32) -> usize {
        (self.0 & mask) as usize
    }
}

/// The slot after `i` in a ring of `n`.
#[inline]
pub fn next_slot(i: u32, n: u32) -> u32 {
    if i + 1 == n { 0 } else { i + 1 }
}

/// The slot before `i` in a ring of `n`.
#[inline]
pub fn prev_slot(i: u32, n: u32) -> u32 {
    if i == 0 { n - 1 } else { i - 1 }
}

/// Steps from `from` forward to `to` in a ring of `n`; both are below `n`. Of others, which somebody scribbled, any
/// number comes out.
#[inline]
pub fn distance(from: u32, to: u32, n: u32) -> u32 {
    if to >= from { to - from } else { to.wrapping_add(n).wrapping_sub(from) }
}

/// The slot `k` after `i` in a ring of `n`, `k` being at most `n`.
#[inline]
pub fn slots_on(i: u32, k: u32, n: u32) -> u32 {
    if i + k >= n { i + k - n } else { i + k }
}

/// What `all`, one for each slot of a ring, has for those from `from` to before `to`, as far as they lie side by side: at
/// most up to the end of the ring. Indices that somebody scribbled name nothing.
#[inline]
pub fn run<T>(all: &[T], from: u32, to: u32) -> &[T] {
    let end = if from <= to { to as usize } else { all.len() };
    all.get(from as usize..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_wrap_without_losing_the_distance() {
        for start in [0, 1, u32::MAX - 3, u32::MAX] {
            let a = Cursor(start);
            for n in 0..10 {
                assert_eq!(a.ahead(n).since(a), n);
            }
        }
    }

    #[test]
    fn slots_step_around_rings_of_any_size() {
        for n in 1..9 {
            for i in 0..n {
                assert_eq!(prev_slot(next_slot(i, n), n), i);
                for d in 0..n {
                    let mut j = i;
                    for _ in 0..d {
                        j = next_slot(j, n);
                    }
                    assert_eq!(distance(i, j, n), d);
                    assert_eq!(slots_on(i, d, n), j);
                }
            }
        }
    }
    #[test]
    fn runs_are_the_slots_in_between() {
        for n in 1..9 {
            let all: Vec<u32> = (0..n).collect();
            for from in 0..n {
                for to in 0..n {
                    let between = (0..distance(from, to, n)).map(|k| (from + k) % n).collect::<Vec<_>>();
                    let first = run(&all, from, to);
                    let second = run(&all, slots_on(from, first.len() as u32, n), to);
                    assert_eq!([first, second].concat(), between);
                }
            }
            for scribbled in [(n + 1, 0), (0, n + 1), (n + 2, n + 1), (u32::MAX, u32::MAX)] {
                assert_eq!(run(&all, scribbled.0, scribbled.1), []);
            }
        }
    }
}
