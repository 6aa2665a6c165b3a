//! First-fit allocation of `netmap_if` objects and rings in the head of a region.
//!
//! The bookkeeping is private to the engine; only the objects lie in shared memory. Control path only.

/// Alignment of every object: that of `netmap_ring`.
const ALIGN: u64 = crate::abi::NM_CACHE_ALIGN as u64;

/// Free and used ranges of `[0, size)`.
#[derive(Debug)]
pub struct Arena {
    size: u64,
    /// Used ranges `(start, len)`, in order.
    used: Vec<(u64, u64)>,
}

impl Arena {
    /// An empty arena.
    pub fn new(size: u64) -> Arena {
        Arena { size, used: Vec::new() }
    }

    /// The first gap of `len` bytes; `None` when there is none.
    pub fn alloc(&mut self, len: u64) -> Option<u64> {
        let len = len.checked_next_multiple_of(ALIGN)?.max(ALIGN);
        let mut start = 0;
        let mut at = self.used.len();
        for (i, &(used, used_len)) in self.used.iter().enumerate() {
            if used - start >= len {
                at = i;
                break;
            }
            start = used + used_len;
        }
        if self.size.checked_sub(start)? < len {
            return None;
        }
        self.used.insert(at, (start, len));
        Some(start)
    }

    /// Gives back what `alloc` returned; an offset that it did not return changes nothing.
    pub fn free(&mut self, start: u64) {
        self.used.retain(|&(s, _)| s != start);
    }

    /// Objects in use.
    pub fn in_use(&self) -> usize {
        self.used.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_do_not_overlap_and_gaps_are_used_again() {
        let mut a = Arena::new(1024);
        let got: Vec<u64> = std::iter::from_fn(|| a.alloc(100)).collect();
        assert_eq!(got, (0..8).map(|i| i * 128).collect::<Vec<_>>());
        assert_eq!(a.alloc(1), None);
        a.free(256);
        a.free(384);
        assert_eq!(a.alloc(257), None);
        assert_eq!(a.alloc(256), Some(256));
        a.free(999);
        assert_eq!(a.in_use(), 7);
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let mut a = Arena::new(1024);
        assert_eq!(a.alloc(u64::MAX), None);
        assert_eq!(a.alloc(1025), None);
        assert_eq!(a.alloc(1024), Some(0));
    }
}
