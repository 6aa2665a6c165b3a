//! Atomics, from one place, so that a model checker can take their place one day.
//!
//! Those in shared memory are the `std` types, whose layout is the ABI between processes.

pub use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
