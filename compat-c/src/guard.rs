//! The border between C and our code, crossed by every call that is about netmap.
//!
//! - A panic stops here: the program gets EIO. The first one is reported, further ones are not.
//! - errno is set on failure and left alone on success.
//! - Code of ours, or of a library that ours uses, may call `open`, `close`, `ioctl` or `mmap`. Those symbols lead back to
//!   this library, so a flag of the thread tells the shims to go straight to libc.

use netmap_xdp::sync::{AtomicBool, Ordering};
use netmap_xdp::sys::{Errno, Level, log};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Whether this thread runs our code. Needs neither initialisation nor a destructor, so it is usable at any time in the
    /// life of a thread.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread runs our code already.
pub fn inside() -> bool {
    INSIDE.get()
}

/// Says that this thread runs our code, as long as it lives.
struct Inside;

impl Inside {
    fn enter() -> Option<Inside> {
        (!INSIDE.replace(true)).then_some(Inside)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// Runs `call` as our own code. `None`: it was libc's turn, because `call` says so or because our code is what called.
/// `failed` is what the C function returns on failure.
pub fn ours<T>(failed: T, call: impl FnOnce() -> Option<Result<T, Errno>>) -> Option<T> {
    let _inside = Inside::enter()?;
    contained(failed, call)
}

/// As [`ours`] without the flag: for waits. They may sleep for long, and a signal handler may run meanwhile that calls
/// netmap functions or leaves by `siglongjmp`; neither should find the thread marked. A wait calls nothing that is
/// interposed.
pub fn contained<T>(failed: T, call: impl FnOnce() -> Option<Result<T, Errno>>) -> Option<T> {
    let errno = Errno::last();
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|cause| {
        // Dropping the payload could panic in turn.
        std::mem::forget(cause);
        complain();
        Some(Err(Errno(libc::EIO)))
    });
    match result {
        Some(Ok(value)) => {
            errno.set();
            Some(value)
        }
        Some(Err(errno)) => {
            errno.set();
            Some(failed)
        }
        None => {
            errno.set();
            None
        }
    }
}

#[cold]
fn complain() {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        let report = || {
            // The standard library has said where; a program that calls in a loop should not be flooded.
            std::panic::set_hook(Box::new(|_| ()));
            log(Level::Error, format_args!("a fault in netmap-xdp itself (above); the call failed with EIO"));
        };
        // A second panic while reporting the first has nowhere to go.
        if let Err(cause) = catch_unwind(report) {
            std::mem::forget(cause);
        }
    }
}
