//! Atomics, from one place: `std`, or `loom` in the model tests of `tests/loom`.
//!
//! Shared memory uses the `std` types always, since their layout is the ABI between processes.

pub use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
