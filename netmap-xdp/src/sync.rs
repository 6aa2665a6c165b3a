//! Atomics, from one place, so that a model checker can take their place one day.
//!
//! Those in shared memory are the `std` types, whose layout is the ABI between processes. Tests of this crate have them
//! wrapped, so that a thread can die in the middle of a sync ([`dying`]).

#[cfg(test)]
pub mod dying;

#[cfg(test)]
pub use dying::{AtomicI64, AtomicU16, AtomicU32, AtomicU64};
pub use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering, compiler_fence, fence};
#[cfg(not(test))]
pub use std::sync::atomic::{AtomicI64, AtomicU16, AtomicU32, AtomicU64};
