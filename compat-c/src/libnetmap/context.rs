//! Contexts: where messages go, where memory comes from, who may touch the list of regions.
//!
//! The default context writes to standard error, uses malloc and free, and has a lock of its own, which serves copies of
//! that context too.

use super::types::Context;
use libc::{EINVAL, ENOMEM, c_char, c_int, c_void, size_t};
use netmap_xdp::sync::{AtomicUsize, Ordering};
use netmap_xdp::sys::Errno;
use std::borrow::Cow;
use std::cell::{Cell, UnsafeCell};
use std::ffi::CStr;
use std::fmt;
use std::ptr;

/// Longest message, with its NUL.
pub const LONGEST_MESSAGE: usize = 1000;
/// What is said in place of a longer one.
pub const TOO_LONG: &CStr = c"libnetmap: a message that is too long to be shown";

impl Context {
    /// Reports a failure, if the context wants to hear of it, and returns `errno`.
    #[cold]
    pub fn fail(&self, errno: c_int, message: fmt::Arguments<'_>) -> Errno {
        if self.verbose.get() != 0 {
            let mut text = message.to_string().into_bytes();
            text.retain(|&byte| byte != 0);
            if text.len() >= LONGEST_MESSAGE {
                self.say(TOO_LONG);
            } else {
                text.push(0);
                self.say(CStr::from_bytes_until_nul(&text).unwrap_or(TOO_LONG));
            }
        }
        Errno(errno)
    }

    /// Hands a message to the program.
    pub fn say(&self, message: &CStr) {
        if let Some(error) = self.error.get() {
            // SAFETY: the context's own function, with the arguments that it is for.
            unsafe { error(self.as_ptr(), message.as_ptr()) }
        }
    }

    /// The context as C wants it.
    pub fn as_ptr(&self) -> *mut Context {
        ptr::from_ref(self).cast_mut()
    }

    /// `size` bytes, or null.
    pub fn malloc(&self, size: size_t) -> *mut c_void {
        match self.malloc.get() {
            // SAFETY: the context's own function, with the arguments that it is for.
            Some(malloc) => unsafe { malloc(self.as_ptr(), size) },
            None => ptr::null_mut(),
        }
    }

    /// Puts `value` into memory of its own. `what` is for the message if there is none.
    pub fn keep<T: Copy>(&self, value: T, what: fmt::Arguments<'_>) -> Result<*mut T, Errno> {
        let at: *mut T = self.room(what)?;
        // SAFETY: fresh memory of that size.
        unsafe { at.write(value) };
        Ok(at)
    }

    /// Memory for a `T`.
    pub fn room<T>(&self, what: fmt::Arguments<'_>) -> Result<*mut T, Errno> {
        const { assert!(align_of::<T>() <= 16, "malloc aligns no better") };
        let at = self.malloc(size_of::<T>()).cast::<T>();
        if at.is_null() { Err(self.fail(ENOMEM, format_args!("no memory for {what}"))) } else { Ok(at) }
    }

    /// Gives memory back.
    ///
    /// # Safety
    /// It came from this context, and nobody uses it any more.
    pub unsafe fn free(&self, memory: *mut c_void) {
        if let Some(free) = self.free.get() {
            // SAFETY: the caller's promise.
            unsafe { free(self.as_ptr(), memory) }
        }
    }

    /// Holds the lock as long as the result lives.
    pub fn locked(&self) -> Locked<'_> {
        self.lock(1);
        Locked(self)
    }

    /// Locks (1) or unlocks (0).
    pub fn lock(&self, what: c_int) {
        if let Some(lock) = self.lock.get() {
            // SAFETY: the context's own function, with the arguments that it is for.
            unsafe { lock(self.as_ptr(), what) }
        }
    }
}

/// The lock of a context, held.
pub struct Locked<'a>(&'a Context);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.lock(0);
    }
}

/// A C string for a message.
pub fn show(text: &CStr) -> Cow<'_, str> {
    text.to_string_lossy()
}

/// A context of ours, with a lock.
struct Global {
    context: Context,
    mutex: UnsafeCell<libc::pthread_mutex_t>,
}

// SAFETY: the mutex is made for sharing. The context is what the C API shares between threads: its list is changed under
// the lock, its other fields while the program starts.
unsafe impl Sync for Global {}

static GLOBAL: Global = Global {
    context: Context {
        verbose: Cell::new(1),
        error: Cell::new(Some(error)),
        malloc: Cell::new(Some(malloc)),
        free: Cell::new(Some(free)),
        lock: Cell::new(Some(lock)),
        mem_descs: Cell::new(ptr::null()),
    },
    mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
};

/// Address of the default context; 0 is ours.
static DEFAULT: AtomicUsize = AtomicUsize::new(0);

fn at(address: usize) -> *mut Context {
    if address == 0 { GLOBAL.context.as_ptr() } else { address as *mut Context }
}

/// `nmctx_get`.
pub fn get() -> *mut Context {
    // SYNC default-context: pairs with the swap below; who gets a context sees how it was set up.
    at(DEFAULT.load(Ordering::Acquire))
}

/// `nmctx_set_default`; null brings ours back.
pub fn set_default(context: *mut Context) -> *mut Context {
    // SYNC default-context: pairs with the load above.
    at(DEFAULT.swap(context as usize, Ordering::AcqRel))
}

/// The default context.
pub fn default<'a>() -> &'a Context {
    // SAFETY: ours, or one that the program declared to be the default and thus keeps.
    unsafe { &*get() }
}

/// `nmctx_set_threadsafe`: makes ours the default, with the callbacks and regions of the one it replaces, and the lock.
pub fn set_threadsafe() {
    let (ours, old) = (&GLOBAL.context, default());
    if !ptr::eq(ours, old) {
        ours.verbose.set(old.verbose.get());
        ours.error.set(old.error.get());
        ours.malloc.set(old.malloc.get());
        ours.free.set(old.free.get());
        ours.mem_descs.set(old.mem_descs.get());
    }
    ours.lock.set(Some(lock));
    set_default(ptr::null_mut());
}

unsafe extern "C" {
    /// The C library's, with which a program may have done what it likes.
    static stderr: *mut libc::FILE;
}

unsafe extern "C-unwind" fn error(_: *mut Context, message: *const c_char) {
    // SAFETY: a C string, as promised by who calls; the format takes one.
    unsafe { libc::fprintf(stderr, c"%s\n".as_ptr(), message) };
}

unsafe extern "C-unwind" fn malloc(_: *mut Context, size: size_t) -> *mut c_void {
    // SAFETY: takes any size.
    unsafe { libc::malloc(size) }
}

unsafe extern "C-unwind" fn free(_: *mut Context, memory: *mut c_void) {
    // SAFETY: memory of `malloc`, as promised by who calls.
    unsafe { libc::free(memory) }
}

unsafe extern "C-unwind" fn lock(_: *mut Context, lock: c_int) {
    let mutex = GLOBAL.mutex.get();
    // SAFETY: initialised statically, and never moved or destroyed.
    let failed = unsafe { if lock != 0 { libc::pthread_mutex_lock(mutex) } else { libc::pthread_mutex_unlock(mutex) } };
    debug_assert!(failed == 0 || failed == EINVAL, "a plain mutex gives no other error");
}

/// The original's header refers to this variable, to pull the lock into static programs. Nobody reads it.
#[unsafe(no_mangle)]
pub static mut nmctx_threadsafe: c_int = 0;
