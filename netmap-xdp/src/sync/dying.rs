//! Atomics that can stop a thread at its n-th store, as a kill would: for tests that let a sync die at every step it has.
//!
//! From that store on nothing that the thread writes reaches memory until [`dies_at`] returns: the destructors that run
//! on the way out, of lock guards above all, leave no more behind than those of a killed process, which do not run.

use super::Ordering;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

thread_local! {
    /// Stores until death; `None`: not mortal.
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    static DEAD: Cell<bool> = const { Cell::new(false) };
}

struct Died;

/// Runs `f` and lets it die before its store number `n`, from 0; returns whether it did.
pub fn dies_at(n: u32, f: impl FnOnce()) -> bool {
    LEFT.set(Some(n));
    let end = catch_unwind(AssertUnwindSafe(f));
    LEFT.set(None);
    let died = DEAD.replace(false);
    match end {
        Ok(()) => died,
        Err(why) if why.is::<Died>() => true,
        Err(other) => resume_unwind(other),
    }
}

/// Whether the store that is to be made now is made.
fn alive() -> bool {
    if DEAD.get() {
        return false;
    }
    match LEFT.get() {
        None => true,
        Some(0) => {
            DEAD.set(true);
            // No hook is run: nothing is printed.
            resume_unwind(Box::new(Died))
        }
        Some(n) => {
            LEFT.set(Some(n - 1));
            true
        }
    }
}

macro_rules! dying {
    ($($name:ident $value:ty),*) => { $(
        /// The atomic of this name.
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(std::sync::atomic::$name);

        impl $name {
            /// Makes one.
            pub const fn new(value: $value) -> Self {
                Self(std::sync::atomic::$name::new(value))
            }
            /// As in std.
            pub fn load(&self, order: Ordering) -> $value {
                self.0.load(order)
            }
            /// As in std.
            pub fn store(&self, value: $value, order: Ordering) {
                if alive() {
                    self.0.store(value, order);
                }
            }
            /// As in std.
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                if alive() { self.0.swap(value, order) } else { self.0.load(Ordering::Relaxed) }
            }
            /// As in std.
            pub fn compare_exchange(&self, old: $value, new: $value, yes: Ordering, no: Ordering)
                -> Result<$value, $value> {
                if alive() { self.0.compare_exchange(old, new, yes, no) } else { Err(self.0.load(Ordering::Relaxed)) }
            }
            /// As in std.
            pub fn fetch_add(&self, by: $value, order: Ordering) -> $value {
                if alive() { self.0.fetch_add(by, order) } else { self.0.load(Ordering::Relaxed) }
            }
            /// As in std.
            pub fn fetch_sub(&self, by: $value, order: Ordering) -> $value {
                if alive() { self.0.fetch_sub(by, order) } else { self.0.load(Ordering::Relaxed) }
            }
            /// As in std.
            pub fn fetch_or(&self, bits: $value, order: Ordering) -> $value {
                if alive() { self.0.fetch_or(bits, order) } else { self.0.load(Ordering::Relaxed) }
            }
            /// As in std.
            pub fn fetch_and(&self, bits: $value, order: Ordering) -> $value {
                if alive() { self.0.fetch_and(bits, order) } else { self.0.load(Ordering::Relaxed) }
            }
        }
    )* };
}
dying!(AtomicU16 u16, AtomicU32 u32, AtomicU64 u64, AtomicI64 i64);

/// The client that dies.
pub const MORTAL: u32 = 7;
/// Who comes next.
pub const NEXT: u32 = 8;

/// A generator (xorshift); not 0.
pub struct Noise(pub u64);

impl Noise {
    /// A number below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as u32 % n
    }
}
