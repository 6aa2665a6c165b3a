//! Pointers to the functions that the shims stand before: the next definition after ours in the loader's search order,
//! which is libc's, or that of another preloaded library.
//!
//! A pointer is found once, by `dlsym`, and kept in an atomic; there is no lock. Whoever loses a race finds the same
//! address again.

use libc::{c_int, c_uint, c_void, off64_t, size_t};
use netmap_xdp::sync::{AtomicUsize, Ordering};
use netmap_xdp::sys::Errno;
use std::ffi::CStr;
use std::marker::PhantomData;

/// A real function of the C type `F`, which is a function pointer type.
pub struct Real<F> {
    name: &'static CStr,
    /// 0 until found. Relaxed is enough: the value is the address of code that was in place before it was published.
    found: AtomicUsize,
    missing: Code,
    prototype: PhantomData<F>,
}

/// The address of a function.
struct Code(*const ());

// SAFETY: code may be called from any thread.
unsafe impl Sync for Code {}

impl<F: Copy> Real<F> {
    /// The function `name`, or `missing` if libc has none of that name. `missing` takes the same arguments in the same
    /// registers as `F`, or ignores its arguments.
    pub const fn new(name: &'static CStr, missing: *const ()) -> Self {
        Real { name, found: AtomicUsize::new(0), missing: Code(missing), prototype: PhantomData }
    }

    /// The function to call.
    #[inline]
    pub fn get(&self) -> F {
        let found = self.found.load(Ordering::Relaxed);
        // SAFETY: `found` is what `resolve` found for this name.
        if found != 0 { unsafe { typed(found) } } else { self.find() }
    }

    /// The function if it was looked for before, else the stand-in: for what memory allocators call, since the `dlsym` of
    /// an older libc allocates.
    #[inline]
    pub fn get_without_looking(&self) -> F {
        let found = self.found.load(Ordering::Relaxed);
        // SAFETY: as in `get`; the stand-in fits `F` as `new` says.
        unsafe { typed(if found != 0 { found } else { self.missing.0 as usize }) }
    }

    #[cold]
    fn find(&self) -> F {
        let errno = Errno::last();
        let found = self.resolve();
        errno.set();
        // SAFETY: an address for this name.
        unsafe { typed(found) }
    }

    /// Looks the function up and keeps it.
    pub fn resolve(&self) -> usize {
        // SAFETY: the name is a C string. The call comes from this library, which is what RTLD_NEXT goes by.
        let next = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) } as usize;
        let found = if next != 0 { next } else { self.missing.0 as usize };
        self.found.store(found, Ordering::Relaxed);
        found
    }
}

/// An address as a function pointer.
///
/// # Safety
/// `F` is a function pointer type, and what is at `address` can be called as `F`.
#[inline]
unsafe fn typed<F: Copy>(address: usize) -> F {
    const { assert!(size_of::<F>() == size_of::<usize>()) };
    // SAFETY: same size; the caller's promise.
    unsafe { std::mem::transmute_copy(&address) }
}

/// For a function that libc does not have: fails with ENOSYS. The result reads as -1 in any integer type, and as
/// MAP_FAILED.
pub unsafe extern "C-unwind" fn no_such_function() -> isize {
    Errno(libc::ENOSYS).set();
    -1
}

/// `fcntl64` of a libc before 2.28, which on 64-bit machines is `fcntl`.
pub unsafe extern "C-unwind" fn fcntl64(fd: c_int, command: c_int, arg: usize) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { super::slots::fcntl.get()(fd, command, arg) }
}

/// `close_range` of a libc before 2.34.
pub unsafe extern "C-unwind" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // SAFETY: integers only.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) as c_int }
}

/// `closefrom` of a libc before 2.34.
pub unsafe extern "C-unwind" fn closefrom(low: c_int) {
    super::files::close_each(low.max(0) as u32, u32::MAX);
}

/// `mmap` before the real one was looked up.
pub unsafe extern "C-unwind" fn mmap(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off64_t,
) -> *mut c_void {
    // SAFETY: the caller's arguments, which the kernel checks.
    unsafe { libc::syscall(libc::SYS_mmap, addr, len, prot, flags, fd, offset) as *mut c_void }
}

/// `munmap` before the real one was looked up.
pub unsafe extern "C-unwind" fn munmap(addr: *mut c_void, len: size_t) -> c_int {
    // SAFETY: the caller's arguments, which the kernel checks.
    unsafe { libc::syscall(libc::SYS_munmap, addr, len) as c_int }
}
