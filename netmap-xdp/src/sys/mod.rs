//! System calls, made directly: never through a libc function that the preload interposes (`open`, `close`, `ioctl`,
//! `mmap`, `munmap`, `poll`, `ppoll`, `select`, `dup*`, `fcntl`), since code that runs under the shim would come back to
//! itself.
//!
//! A failed call is an [`Error`] that carries the call's name and its object. Nothing here knows netmap.

mod epoll;
mod fd;
mod guard;
mod log;
mod mem;
mod settings;
mod start;
mod thread;
mod unix;
mod usermem;
mod wait;

pub mod netdev;
pub mod tap;
pub mod xdp;

pub use epoll::*;
pub use fd::*;
pub use guard::*;
pub use log::*;
pub use mem::*;
pub use settings::*;
pub use start::*;
pub use thread::*;
pub use unix::*;
pub use usermem::*;
pub use wait::*;

use std::fmt;

/// An error number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The calling thread's `errno`.
    pub fn last() -> Errno {
        Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }

    /// Sets the calling thread's `errno`.
    pub fn set(self) {
        // SAFETY: the location is this thread's own.
        unsafe { *libc::__errno_location() = self.0 }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (errno {})", self, self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

/// A system call that failed: its name, what it was about, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{call} {object}: {errno}")]
pub struct Error {
    /// Name of the system call or socket option.
    pub call: &'static str,
    /// Interface, path, queue: what it was about.
    pub object: String,
    /// Why.
    pub errno: Errno,
}

impl Error {
    /// Makes one.
    pub fn new(call: &'static str, object: impl Into<String>, errno: Errno) -> Error {
        Error { call, object: object.into(), errno }
    }
}

/// A raw system call with up to six arguments.
///
/// # Safety
/// The arguments are what the system call `nr` asks for; pointers among them are valid for what it reads and writes.
#[inline]
pub unsafe fn syscall(nr: libc::c_long, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let r = unsafe { libc::syscall(nr, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if r < 0 { Err(Errno::last()) } else { Ok(r as usize) }
}

/// Runs a system call again while a signal interrupts it.
pub fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno(libc::EINTR)) => {}
            done => return done,
        }
    }
}
