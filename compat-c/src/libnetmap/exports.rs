//! All functions of `libnetmap.h`, but for `nmctx_ferror`, which is in `variadic`.
//!
//! A row is a function as C sees it, how each argument is taken, and the function that does it. Whatever the program
//! passes, the border does the same for all: NULL where something is needed is EINVAL; a panic stops here; errno is set on
//! failure, and left alone on success; the thread is not cancelled in between, since it would leak what it holds.

use super::types::{Context, OptionParser, Port};
use super::{cleanup, context, inject, options, parsers, port, region};
use crate::guard::contained;
use libc::{EINVAL, c_char, c_int, c_void, size_t};
use netmap_xdp::abi::{nmreq_header, nmreq_option, nmreq_pools_info, nmreq_register};
use netmap_xdp::sys::Errno;
use std::cell::Cell;
use std::ffi::CStr;
use std::ptr;

/// What a C function returns when it fails.
trait Failed {
    const FAILED: Self;
    /// Whether the program is told.
    const TELLS: bool = true;
}

impl Failed for () {
    const FAILED: () = ();
    const TELLS: bool = false;
}

impl Failed for c_int {
    const FAILED: c_int = -1;
}

impl<T> Failed for *mut T {
    const FAILED: *mut T = ptr::null_mut();
}

impl<T> Failed for *const T {
    const FAILED: *const T = ptr::null();
}

/// What a function of ours returns, as C takes it.
trait Outcome<T> {
    fn outcome(self) -> Result<T, Errno>;
}

impl<T> Outcome<T> for Result<T, Errno> {
    fn outcome(self) -> Result<T, Errno> {
        self
    }
}

impl Outcome<c_int> for Result<(), Errno> {
    fn outcome(self) -> Result<c_int, Errno> {
        self.map(|()| 0)
    }
}

impl<T> Outcome<T> for T {
    fn outcome(self) -> Result<T, Errno> {
        Ok(self)
    }
}

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// The thread cannot be cancelled while this lives.
struct Uncancelled(c_int);

impl Uncancelled {
    fn new() -> Uncancelled {
        const PTHREAD_CANCEL_DISABLE: c_int = 1;
        let mut old = 0;
        // SAFETY: the place is alive. A valid state is never refused.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &mut old) };
        Uncancelled(old)
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        let mut old = 0;
        // SAFETY: as above.
        unsafe { pthread_setcancelstate(self.0, &mut old) };
    }
}

/// Runs the part that is ours.
fn border<T: Failed + Copy>(call: impl FnOnce() -> Result<T, Errno>) -> T {
    let _uncancelled = Uncancelled::new();
    unhindered(call)
}

/// As [`border`] for functions that make no system call.
fn unhindered<T: Failed + Copy>(call: impl FnOnce() -> Result<T, Errno>) -> T {
    let call = || match call() {
        Err(_) if !T::TELLS => Ok(T::FAILED),
        result => result,
    };
    contained(T::FAILED, || Some(call())).unwrap_or(T::FAILED)
}

/// Something of the program's, by its address; null is refused.
///
/// # Safety
/// Null, or alive as long as the call.
unsafe fn one<'a, T>(at: *mut T) -> Result<&'a T, Errno> {
    // SAFETY: the caller's promise.
    unsafe { at.as_ref() }.ok_or(Errno(EINVAL))
}

/// As [`one`], for plain data that is read and written.
///
/// # Safety
/// As for [`one`].
unsafe fn cell<'a, T>(at: *mut T) -> Result<&'a Cell<T>, Errno> {
    // SAFETY: the caller's promise.
    unsafe { one(at.cast()) }
}

/// A string; null is refused.
///
/// # Safety
/// Null, or a C string that is alive as long as the call.
unsafe fn text<'a>(at: *const c_char) -> Result<&'a CStr, Errno> {
    // SAFETY: the caller's promise.
    if at.is_null() { Err(Errno(EINVAL)) } else { Ok(unsafe { CStr::from_ptr(at) }) }
}

/// Whatever it is.
///
/// # Safety
/// None needed.
unsafe fn value<T>(value: T) -> Result<T, Errno> {
    Ok(value)
}

fn decode_options(opt: &CStr, parsers: *mut OptionParser, token: *mut c_void, ctx: &Context) -> Result<(), Errno> {
    // SAFETY: the program promises a list of parsers, whose callbacks take the token.
    unsafe { options::decode(opt, opt, parsers, token, ctx) }
}

fn free(ctx: &Context, memory: *mut c_void) {
    // SAFETY: the program promises memory of this context that nobody uses any more.
    unsafe { ctx.free(memory) }
}

/// The table: `how name(argument: C type as what) -> result = function;`.
macro_rules! exports {
    ($($how:ident $name:ident($($arg:ident: $ty:ty as $taken:ident),*) $(-> $ret:ty)? = $function:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of `libnetmap.h`.")]
        ///
        /// # Safety
        /// Pointers are null or lead to what the header says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) $(-> $ret)? {
            $how(|| {
                // SAFETY: the program's promise.
                $(let $arg = unsafe { $taken($arg) }?;)*
                $function($($arg),*).outcome()
            })
        }
    )*};
}

exports! {
    border nmport_open(portspec: *const c_char as text) -> *mut Port = port::open;
    border nmport_close(d: *mut Port as one) = port::close;
    unhindered nmport_inject(d: *mut Port as one, buf: *const c_void as value, size: size_t as value) -> c_int
        = inject::inject;

    border nmport_new() -> *mut Port = port::new;
    border nmport_parse(d: *mut Port as one, portspec: *const c_char as text) -> c_int = port::parse;
    border nmport_register(d: *mut Port as one) -> c_int = port::register;
    border nmport_mmap(d: *mut Port as one) -> c_int = region::map;
    border nmport_delete(d: *mut Port as one) = port::delete;
    border nmport_undo_parse(d: *mut Port as one) = port::undo_parse;
    border nmport_undo_register(d: *mut Port as one) = port::undo_register;
    border nmport_undo_mmap(d: *mut Port as one) = region::unmap;
    border nmport_prepare(portspec: *const c_char as text) -> *mut Port = port::prepare;
    border nmport_open_desc(d: *mut Port as one) -> c_int = port::open_desc;
    border nmport_undo_prepare(d: *mut Port as one) = port::undo_prepare;
    border nmport_undo_open_desc(d: *mut Port as one) = port::undo_open_desc;
    border nmport_clone(d: *mut Port as one) -> *mut Port = port::clone;

    border nmport_extmem(d: *mut Port as one, base: *mut c_void as value, size: size_t as value) -> c_int
        = cleanup::extmem;
    border nmport_extmem_from_file(d: *mut Port as one, fname: *const c_char as text) -> c_int
        = cleanup::extmem_from_file;
    border nmport_extmem_getinfo(d: *mut Port as one) -> *mut nmreq_pools_info = cleanup::extmem_info;
    border nmport_offset(d: *mut Port as one, initial: u64 as value, maxoff: u64 as value, bits: u64 as value,
        mingap: u64 as value) -> c_int = cleanup::offset;
    border nmport_enable_option(opt: *const c_char as text) -> c_int = parsers::enable;
    border nmport_disable_option(opt: *const c_char as text) = parsers::disable;

    border nmreq_header_init(hdr: *mut nmreq_header as cell, reqtype: u16 as value, body: *mut c_void as value)
        = port::init_header;
    border nmreq_header_decode(ppspec: *mut *const c_char as cell, hdr: *mut nmreq_header as cell,
        ctx: *mut Context as one) -> c_int = port::decode_header;
    border nmreq_register_decode(pmode: *mut *const c_char as cell, reg: *mut nmreq_register as cell,
        ctx: *mut Context as one) -> c_int = port::decode_register;
    border nmreq_options_decode(opt: *const c_char as text, parsers: *mut OptionParser as value,
        token: *mut c_void as value, ctx: *mut Context as one) -> c_int
        = decode_options;
    border nmreq_get_mem_id(portname: *mut *const c_char as cell, ctx: *mut Context as one) -> c_int
        = port::decode_mem_id;
    border nmreq_push_option(hdr: *mut nmreq_header as cell, option: *mut nmreq_option as cell) = options::push;
    border nmreq_remove_option(hdr: *mut nmreq_header as cell, option: *mut nmreq_option as cell) = options::remove;
    border nmreq_find_option(hdr: *mut nmreq_header as cell, reqtype: u32 as value) -> *mut nmreq_option = options::find;
    border nmreq_free_options(hdr: *mut nmreq_header as cell) = options::free;
    border nmreq_option_name(reqtype: u32 as value) -> *const c_char = |kind| options::name(kind).as_ptr();

    border nmctx_get() -> *mut Context = context::get;
    border nmctx_set_default(ctx: *mut Context as value) -> *mut Context = context::set_default;
    border nmctx_set_threadsafe() = context::set_threadsafe;
    border nmctx_malloc(ctx: *mut Context as one, size: size_t as value) -> *mut c_void = Context::malloc;
    border nmctx_free(ctx: *mut Context as one, memory: *mut c_void as value)
        = free;
    unhindered nmctx_lock(ctx: *mut Context as one) = |ctx: &Context| ctx.lock(1);
    unhindered nmctx_unlock(ctx: *mut Context as one) = |ctx: &Context| ctx.lock(0);
}
