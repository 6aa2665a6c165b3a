//! Facts of the netmap ABI, version 14: structures, constants and ioctl numbers, as in `net/netmap.h` and
//! `net/netmap_legacy.h` for 64-bit Linux.
//!
//! C names live here and nowhere else. Layouts are locked by the const asserts at the end of each file and by
//! `tests/tests/abi.rs`, which compiles a C program against `compat-c/include` and compares its output with ours.
//! Nothing here touches memory or makes a system call.

mod legacy;
mod netmap;

pub use legacy::*;
pub use netmap::*;

/// Number of an ioctl that copies a structure both ways, `_IOWR('i', nr, size)`.
const fn iowr(nr: u64, size: usize) -> u64 {
    (3 << 30) | ((size as u64) << 16) | ((b'i' as u64) << 8) | nr
}

/// Number of an ioctl without an argument, `_IO('i', nr)`.
const fn io(nr: u64) -> u64 {
    ((b'i' as u64) << 8) | nr
}

/// Marks plain C data without padding: any bytes are a valid value, and every byte of a value is initialised.
///
/// # Safety
/// The type is `repr(C)`, made of integers and arrays of them, and has no padding.
pub unsafe trait Pod: Copy + 'static {}
