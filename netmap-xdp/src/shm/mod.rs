//! Memory that others write: views at checked offsets, the layout of a region, allocation inside it.
//!
//! A [`Memory`] is a shared mapping. Nothing makes a plain reference to its bytes; the only views are of [`Shared`] types,
//! which consist of atomics, so that a write by another thread, process or the kernel is never a data race. Whoever holds a
//! [`Ref`] or a [`Slice`] keeps the mapping alive.
//!
//! Owner of the data: the engine that made the memfd. Called from control and data paths alike. Knows neither netmap
//! cursors nor AF_XDP.

mod arena;
mod buffers;
mod hold;
mod known;
mod layout;
mod memory;
mod packets;

pub use arena::Arena;
pub use buffers::{BufPool, FreeError};
pub use hold::{Hold, Patience};
pub use known::Known;
pub use layout::{FRAME_SHIFT, Layout};
pub use memory::{Memory, OutOfRange, Ref, Shared, Slice, declare_shared, shared_struct};
pub use packets::Packets;
