//! `/sys/module/netmap/parameters/`: what programs look up there of the module, answered where no module is.
//!
//! libc goes first: only a name that it does not find is looked at, so a module that is loaded answers for itself. The files
//! can be read, and hold what holds here; settings are changed by other means (`docs/settings.md`).

use crate::guard::{inside, ours};
use libc::{EACCES, ENOENT, FILE, O_ACCMODE, O_CLOEXEC, O_RDONLY, W_OK, X_OK, c_char, c_int};
use netmap_xdp::client;
use netmap_xdp::sys::{self, Errno, settings};

const PLACE: &[u8] = b"/sys/module/netmap/parameters/";
/// Longest name of a parameter, and the zero after it.
const LONGEST: usize = 32;

/// How to tell a parameter's value: to be called where the engine may be.
type Value = fn() -> u64;

/// The parameter of that name, if there is one.
fn parameter(name: &[u8]) -> Option<Value> {
    let value: Value = match name {
        b"buf_size" | b"buf_curr_size" => || client::buf_size().into(),
        b"priv_buf_size" => || settings().priv_buf_size().into(),
        b"buf_num" | b"buf_curr_num" => || settings().buffers.unwrap_or(16384).into(),
        // The largest ring: a header, and 16 bytes a slot.
        b"ring_size" | b"ring_curr_size" => || 256 + 16 * 16384,
        b"ring_num" | b"ring_curr_num" | b"if_num" | b"if_curr_num" => || 1024,
        b"if_size" | b"if_curr_size" | b"priv_if_size" => || 1024,
        b"priv_if_num" => || 2,
        b"priv_ring_size" => || 5 * 4096,
        b"priv_ring_num" => || 4,
        b"priv_buf_num" => || 4098,
        b"generic_ringsize" => || settings().slots.into(),
        b"generic_rings" | b"no_pendintr" | b"generic_txqdisc" => || 1,
        b"generic_mit" => || 100_000,
        b"generic_hwcsum" => || 0,
        b"txsync_retry" => || 2,
        b"bridge_batch" => || 1024,
        b"max_bridges" => || 256,
        b"fwd" => || settings().forward_all.into(),
        b"verbose" | b"debug" | b"no_timestamp" | b"admode" | b"default_pipes" | b"ptnet_vnet_hdr" => || 0,
        _ => return None,
    };
    Some(value)
}

/// The parameter that a path names. The path is one that the kernel has read just now, to its end.
///
/// # Safety
/// As for open(2), after a call that did not fail with EFAULT.
unsafe fn named(path: *const c_char) -> Option<Value> {
    // SAFETY: reading stops at the first difference, or at the end of the string.
    unsafe {
        if !PLACE.iter().enumerate().all(|(i, &byte)| path.add(i).cast::<u8>().read() == byte) {
            return None;
        }
        let mut name = [0u8; LONGEST];
        let rest = path.add(PLACE.len()).cast::<u8>();
        for (i, to) in name.iter_mut().enumerate() {
            match rest.add(i).read() {
                0 => return parameter(&name[..i]),
                byte => *to = byte,
            }
        }
    }
    None
}

/// Whether a call that failed may have been about a parameter.
#[inline]
fn missed() -> bool {
    Errno::last() == Errno(ENOENT) && !inside()
}

/// After an open that failed: a descriptor of a file with the value, if the path names a parameter.
///
/// # Safety
/// As for open(2), and libc has just looked at the path.
pub unsafe fn open(path: *const c_char, flags: c_int) -> Option<c_int> {
    if !missed() {
        return None;
    }
    // SAFETY: the kernel said that there is no such file, so it has read the name.
    let value = unsafe { named(path) }?;
    ours(-1, move || {
        Some(if flags & O_ACCMODE == O_RDONLY {
            sys::memory_file(c"netmap-parameter", format!("{}\n", value()).as_bytes(), flags & O_CLOEXEC != 0)
        } else {
            Err(Errno(EACCES))
        })
    })
}

/// # Safety
/// As for fopen(3).
#[inline]
pub unsafe fn fopen(libc: impl FnOnce() -> *mut FILE, path: *const c_char, mode: *const c_char) -> *mut FILE {
    let file = libc();
    if !file.is_null() || !missed() {
        return file;
    }
    // SAFETY: the path was looked up, so both are C strings; the descriptor is new, and the stream's from then on.
    unsafe {
        let text = std::ffi::CStr::from_ptr(mode).to_bytes();
        let reads = text.first() == Some(&b'r') && !text.contains(&b'+');
        let cloexec = if text.contains(&b'e') { O_CLOEXEC } else { 0 };
        match open(path, if reads { O_RDONLY | cloexec } else { libc::O_RDWR }) {
            Some(fd) if fd >= 0 => libc::fdopen(fd, c"r".as_ptr()),
            _ => file,
        }
    }
}

/// # Safety
/// As for access(2).
#[inline]
pub unsafe fn access(libc: impl FnOnce() -> c_int, path: *const c_char, mode: c_int) -> c_int {
    let before = Errno::last();
    let result = libc();
    // SAFETY: the kernel said that there is no such file, so it has read the name.
    if result == 0 || !missed() || unsafe { named(path) }.is_none() {
        return result;
    }
    if mode & (W_OK | X_OK) != 0 {
        Errno(EACCES).set();
        return -1;
    }
    before.set();
    0
}
