//! What ports of one process have in common.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

/// Things by their keys, each made once as long as somebody has it: mappings, which need not be made twice, or cannot be.
pub struct Known<K, T>(Mutex<All<K, T>>);

type All<K, T> = Vec<(K, Weak<T>)>;

/// Nobody makes anything for as long as that.
const PATIENCE: Duration = Duration::from_millis(200);

impl<K: PartialEq, T> Known<K, T> {
    /// Nothing yet.
    pub const fn new() -> Known<K, T> {
        Known(Mutex::new(Vec::new()))
    }

    /// What is known by `key`, or what `make` makes and is known by it from now on.
    pub fn get<E>(&self, key: K, make: impl FnOnce() -> Result<Arc<T>, E>) -> Result<Arc<T>, E> {
        let Some(mut all) = self.lock() else { return make() };
        all.retain(|(_, thing)| thing.strong_count() > 0);
        if let Some(thing) = all.iter().find(|(k, _)| *k == key).and_then(|(_, thing)| thing.upgrade()) {
            return Ok(thing);
        }
        let thing = make()?;
        all.push((key, Arc::downgrade(&thing)));
        Ok(thing)
    }

    /// In a forked child, whoever has the lock may not be there any more.
    fn lock(&self) -> Option<MutexGuard<'_, All<K, T>>> {
        let start = Instant::now();
        loop {
            match self.0.try_lock() {
                Ok(all) => return Some(all),
                Err(TryLockError::Poisoned(all)) => return Some(PoisonError::into_inner(all)),
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => std::thread::yield_now(),
                Err(TryLockError::WouldBlock) => return None,
            }
        }
    }
}

impl<K: PartialEq, T> Default for Known<K, T> {
    fn default() -> Known<K, T> {
        Known::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_made_once_as_long_as_somebody_has_it() {
        let known = Known::<u8, u8>::new();
        let get = |key, made| known.get(key, || Ok::<_, ()>(Arc::new(made))).unwrap();
        let first = get(1, 10);
        assert_eq!((*get(1, 11), *get(2, 20)), (10, 20));
        drop(first);
        assert_eq!(*get(1, 12), 12);
        assert_eq!(known.get(3, || Err(5)), Err(5));
        assert_eq!(*get(3, 30), 30);
    }

    #[test]
    fn who_finds_it_locked_for_ever_makes_its_own() {
        let known = Known::<u8, u8>::new();
        let _held = known.0.lock().unwrap();
        assert_eq!(*known.get(1, || Ok::<_, ()>(Arc::new(10))).unwrap(), 10);
    }
}
