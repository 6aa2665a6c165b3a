//! Validation of the cursors that a program wrote: pure functions, no memory.
//!
//! The rules are those of `nm_txsync_prologue` and `nm_rxsync_prologue`: seen as a walk around the ring,
//!
//! * transmit: `rhead <= head <= cur <= rtail`
//! * receive: `hwcur <= head <= cur <= hwtail`
//!
//! where every `<=` means "comes no later on the way from the first to the last".

use crate::index::distance;

/// `head` and `cur` of one sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursors {
    /// First slot of the program's.
    pub head: u32,
    /// Wakeup point.
    pub cur: u32,
}

/// Which rule the program broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCursor {
    /// `head` or `cur` is no slot of the ring.
    #[error("cursor outside the ring")]
    Outside,
    /// `head` went back, or past `tail`.
    #[error("head is not between the last head and tail")]
    Head,
    /// `cur` is behind `head`, or past `tail`.
    #[error("cur is not between head and tail")]
    Cur,
}

fn ordered(first: u32, c: Cursors, last: u32, n: u32) -> Result<Cursors, BadCursor> {
    if c.head >= n || c.cur >= n {
        return Err(BadCursor::Outside);
    }
    let room = distance(first, last, n);
    let head = distance(first, c.head, n);
    if head > room {
        return Err(BadCursor::Head);
    }
    let cur = distance(first, c.cur, n);
    if cur < head || cur > room {
        return Err(BadCursor::Cur);
    }
    Ok(c)
}

/// Checks a transmit ring of `n` slots: `rhead` and `rtail` are what the last sync left.
#[inline]
pub fn tx_cursors(c: Cursors, rhead: u32, rtail: u32, n: u32) -> Result<Cursors, BadCursor> {
    ordered(rhead, c, rtail, n)
}

/// Checks a receive ring of `n` slots: `hwcur` and `hwtail` are what the last sync left.
#[inline]
pub fn rx_cursors(c: Cursors, hwcur: u32, hwtail: u32, n: u32) -> Result<Cursors, BadCursor> {
    ordered(hwcur, c, hwtail, n)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The naive model: walk from `first` to `last`, meeting `head` and then `cur` on the way.
    fn model(first: u32, c: Cursors, last: u32, n: u32) -> bool {
        let mut at = first;
        let mut seen_head = false;
        loop {
            seen_head |= at == c.head;
            if seen_head && at == c.cur {
                return true;
            }
            if at == last {
                return false;
            }
            at = (at + 1) % n;
        }
    }

    #[test]
    fn every_cursor_of_every_small_ring_agrees_with_the_model() {
        for n in 2..8 {
            for first in 0..n {
                for last in 0..n {
                    for head in 0..n + 2 {
                        for cur in 0..n + 2 {
                            let c = Cursors { head, cur };
                            let want = head < n && cur < n && model(first, c, last, n);
                            assert_eq!(tx_cursors(c, first, last, n).is_ok(), want, "{first} {c:?} {last} {n}");
                            assert_eq!(rx_cursors(c, first, last, n).is_ok(), want, "{first} {c:?} {last} {n}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn tx_head_going_back_is_rejected() {
        assert_eq!(tx_cursors(Cursors { head: 3, cur: 5 }, 4, 9, 16), Err(BadCursor::Head));
    }

    #[test]
    fn rx_head_past_tail_is_rejected() {
        assert_eq!(rx_cursors(Cursors { head: 10, cur: 10 }, 4, 9, 16), Err(BadCursor::Head));
    }

    #[test]
    fn cur_behind_head_is_rejected() {
        assert_eq!(rx_cursors(Cursors { head: 6, cur: 5 }, 4, 9, 16), Err(BadCursor::Cur));
    }

    #[test]
    fn cur_may_wait_at_tail_while_head_stays() {
        assert!(tx_cursors(Cursors { head: 4, cur: 9 }, 4, 9, 16).is_ok());
        assert!(rx_cursors(Cursors { head: 4, cur: 9 }, 4, 9, 16).is_ok());
    }

    #[test]
    fn huge_cursors_do_not_overflow() {
        for bad in [16, 17, u32::MAX, u32::MAX - 15] {
            assert_eq!(tx_cursors(Cursors { head: bad, cur: 0 }, 0, 15, 16), Err(BadCursor::Outside));
            assert_eq!(tx_cursors(Cursors { head: 0, cur: bad }, 0, 15, 16), Err(BadCursor::Outside));
        }
    }
}
