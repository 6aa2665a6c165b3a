//! Address ranges that map a netmap region through a descriptor: each keeps its binding, as a mapping of a device file
//! keeps the file open.

use super::binding::Binding;
use crate::sync::{AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError};

struct Range {
    start: usize,
    end: usize,
    binding: Arc<Binding>,
}

static RANGES: Mutex<Vec<Range>> = Mutex::new(Vec::new());
/// Everything in `RANGES` lies between these; widened before a range goes in, narrowed after it went.
static LOWEST: AtomicUsize = AtomicUsize::new(usize::MAX);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

fn ranges() -> std::sync::MutexGuard<'static, Vec<Range>> {
    RANGES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bounds(all: &[Range]) {
    LOWEST.store(all.iter().map(|r| r.start).min().unwrap_or(usize::MAX), Relaxed);
    HIGHEST.store(all.iter().map(|r| r.end).max().unwrap_or(0), Relaxed);
}

/// Whether `len` bytes at `addr` may touch a mapping. Takes no lock; the thread that made the mapping, and whoever it told
/// about it, see the truth.
#[inline]
pub fn touches(addr: usize, len: usize) -> bool {
    addr < HIGHEST.load(Relaxed) && addr.saturating_add(len) > LOWEST.load(Relaxed)
}

/// Records a mapping.
pub(super) fn add(start: usize, len: usize, binding: Arc<Binding>) {
    let mut all = ranges();
    all.push(Range { start, end: start.saturating_add(len.next_multiple_of(crate::sys::PAGE)), binding });
    bounds(&all);
}

/// Forgets `len` bytes at `addr`: a mapping may lose its head, its tail, or a hole in its middle.
pub(super) fn remove(addr: usize, len: usize) {
    let (from, to) = (addr, addr.saturating_add(len.next_multiple_of(crate::sys::PAGE)));
    let mut all = ranges();
    let before = std::mem::take(&mut *all);
    let mut gone = Vec::new();
    for r in before {
        if r.end <= from || r.start >= to {
            all.push(r);
            continue;
        }
        for (start, end) in [(r.start, from.min(r.end)), (to.max(r.start), r.end)] {
            if start < end {
                all.push(Range { start, end, binding: r.binding.clone() });
            }
        }
        gone.push(r.binding);
    }
    bounds(&all);
    drop(all);
    // Outside the lock: the last one tears its port down.
    drop(gone);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_keeps_its_binding_until_the_last_page_is_gone() {
        const AT: usize = 0x7000_0000_0000;
        let binding = Arc::new(Binding::new(None));
        add(AT, 0x5000, binding.clone());
        assert_eq!(Arc::strong_count(&binding), 2);
        assert!(touches(AT + 0x4fff, 1) && !touches(AT + 0x5000, 1) && !touches(AT - 1, 1));
        remove(AT + 0x1000, 0x1000);
        assert_eq!(Arc::strong_count(&binding), 3, "a hole leaves two ranges");
        remove(AT, 0x1000);
        assert_eq!(Arc::strong_count(&binding), 2);
        remove(AT + 0x1800, 1);
        remove(0, AT);
        assert_eq!(Arc::strong_count(&binding), 2);
        remove(AT, 0x10_0000);
        assert_eq!(Arc::strong_count(&binding), 1);
        assert!(!touches(0, usize::MAX));
    }
}
