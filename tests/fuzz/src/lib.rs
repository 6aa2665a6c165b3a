//! What is fuzzed: functions that take any bytes and must come back, with everything that they promise.
//!
//! | target | bytes are | must hold |
//! |---|---|---|
//! | [`request`] | an `ioctl` and the memory that it points at | an errno or an answer; what was written lies in the memory |
//! | [`names`] | a port name | what the parser of `ctl` understands, libnetmap understands alike |
//! | [`wire`] | a message between client and netmapd | what is understood is written as it was read |
//! | [`daemon`] | messages of several clients | nothing is left when they are gone |
//! | [`calls`] | calls of a program, descriptors and memory | nothing is left when all is closed |
//!
//! `tests/replay.rs` runs them on the seeds and on changes of these that are always the same, as ordinary tests;
//! `engine` is libFuzzer around them, for `make fuzz`.

mod bytes;
mod calls;
mod daemon;
mod names;
mod request;
mod wire;

pub use bytes::Bytes;
pub use calls::calls;
pub use daemon::daemon;
pub use names::{Parser, names, use_library};
pub use request::request;
pub use wire::wire;

/// Small regions and no lines on standard error: what is looked for needs neither.
fn small() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        netmap_xdp::sys::adjust_settings(|s| (s.log, s.buffers, s.slots) = (0, Some(1000), 16));
    });
}

/// A target, by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 5] =
    [("request", request), ("names", names), ("wire", wire), ("daemon", daemon), ("calls", calls)];
