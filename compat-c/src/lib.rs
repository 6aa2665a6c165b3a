//! `libnetmap_xdp.so`: the libc functions that a netmap program calls on `/dev/netmap`, interposed.
//!
//! The library is preloaded (`LD_PRELOAD`) or linked (`-lnetmap_xdp`). Each function of the table below looks whether
//! the call is about netmap; if so it goes to [`netmap_xdp::client`], else to libc with the arguments as they came. The
//! code runs in the calling thread of the program; the only data owned here are the pointers to the real functions and
//! one flag per thread.
//!
//! | file | job |
//! |---|---|
//! | this | the table: prototype, real pointer and exported symbol of each function |
//! | `real` | finds the real functions |
//! | `guard` | the border: panics, errno, calls that our own code makes |
//! | `files` | open, close, close_range, dup, fcntl |
//! | `control` | ioctl |
//! | `memory` | mmap, munmap |
//! | `params` | open, fopen, access of the module's parameters |
//! | `wait`, `select` | poll, ppoll; select, pselect |
//! | `epoll` | epoll_ctl, epoll_wait and its kin |
//! | `libnetmap` | the libnetmap C API on top of these, for programs that link with `-lnetmap` |
//!
//! # Calls that are not ours
//! Until the program uses netmap, a shim is one relaxed load more than libc (`client::in_use`); afterwards, a lock-free
//! look-up more. No allocation, lock, log or change of errno, so what is safe in a signal handler stays safe. Every
//! function is `C-unwind` and holds nothing that wants dropping while libc runs, so thread cancellation unwinds through
//! it, and `poll`, `open` and the others remain cancellation points. Waits on netmap fds are our code, which must not
//! be unwound: they end every 250 ms, and there the thread may.
//!
//! # Variadic functions
//! `open`, `openat`, `fcntl` and `ioctl` are variadic in C, and stable Rust cannot define variadic functions. They are
//! defined with the last argument fixed. That is sound on the supported targets because there a caller passes the first
//! six (x86-64) or eight (aarch64, Linux) integer or pointer arguments in the same registers whether or not the callee is
//! variadic; `al` on x86-64 (how many vector registers are in use) is only a hint to the callee. When the program passes no
//! last argument the register holds whatever was in it: that value is carried on to libc, which reads it in the cases in
//! which C requires the argument, and we look at it in those cases only. An `int` argument leaves the upper half of the
//! register undefined, so whoever wants an `int` truncates. The real functions are called through variadic pointers.
//!
//! # Not interposed
//! `read` and `write` (netmap has none), `fopen` of the device (stdio on a netmap fd makes no sense), and calls that
//! libc makes within itself, which do not pass through symbols.

mod control;
mod epoll;
mod files;
mod guard;
mod libnetmap;
mod memory;
mod params;
mod real;
mod select;
mod wait;

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("the treatment of variadic functions was thought through for 64-bit x86 and ARM Linux only");

#[cfg(not(panic = "unwind"))]
compile_error!("a panic must not end the program that the library is loaded into: build with panic = \"unwind\"");

/// The table. `name(fixed arguments; last variadic argument) -> result = shim, or missing;` becomes:
/// - `slots::name`, the pointer to the real function, with its C prototype,
/// - the exported function `name`: it calls `shim(libc, arguments)`, where `libc` is a closure that calls the real
///   function with the same arguments.
///
/// `missing` stands in where the C library has no such function; without it, the answer is ENOSYS.
macro_rules! interpose {
    ($($name:ident($($arg:ident: $ty:ty),* $(; $last:ident: $last_ty:ty)?) -> $ret:ty = $shim:path $(, or $missing:path)?;)*) => {
        /// The real functions.
        #[expect(non_upper_case_globals, reason = "named as the functions that they point to")]
        mod slots {
            use super::*;
            $(pub static $name: real::Real<interpose!(@type ($($ty),*) ($($last_ty)?) $ret)> =
                real::Real::new(interpose!(@cstr $name), interpose!(@missing $($missing)?));)*

            /// Finds all of them.
            pub fn resolve() {
                $($name.resolve();)*
            }
        }

        $(
            #[doc = concat!("Interposed `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As for the function of that name in libc.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($($arg: $ty,)* $($last: $last_ty)?) -> $ret {
                // SAFETY: the real function has this prototype, and gets the caller's arguments.
                let libc = move || unsafe { slots::$name.get()($($arg,)* $($last)?) };
                // SAFETY: the caller's arguments again, on the same terms.
                unsafe { $shim(libc, $($arg,)* $($last)?) }
            }
        )*
    };
    (@type ($($ty:ty),*) () $ret:ty) => { unsafe extern "C-unwind" fn($($ty),*) -> $ret };
    (@type ($($ty:ty),*) ($last:ty) $ret:ty) => { unsafe extern "C-unwind" fn($($ty,)* ...) -> $ret };
    (@cstr $name:ident) => {
        match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
            Ok(name) => name,
            Err(_) => panic!(),
        }
    };
    (@missing) => { real::no_such_function as *const () };
    (@missing $missing:path) => { $missing as *const () };
}

use libc::{
    c_char, c_int, c_uint, c_ulong, c_void, epoll_event, fd_set, nfds_t, off64_t, pollfd, sigset_t, size_t, timespec,
    timeval,
};

interpose! {
    open(path: *const c_char, flags: c_int; mode: c_uint) -> c_int = files::open;
    open64(path: *const c_char, flags: c_int; mode: c_uint) -> c_int = files::open;
    __open(path: *const c_char, flags: c_int; mode: c_uint) -> c_int = files::open;
    __open64(path: *const c_char, flags: c_int; mode: c_uint) -> c_int = files::open;
    __open_2(path: *const c_char, flags: c_int) -> c_int = files::open_2;
    __open64_2(path: *const c_char, flags: c_int) -> c_int = files::open_2;
    openat(dir: c_int, path: *const c_char, flags: c_int; mode: c_uint) -> c_int = files::openat;
    openat64(dir: c_int, path: *const c_char, flags: c_int; mode: c_uint) -> c_int = files::openat;
    __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int = files::openat_2;
    __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int = files::openat_2;

    fopen(path: *const c_char, mode: *const c_char) -> *mut libc::FILE = params::fopen;
    fopen64(path: *const c_char, mode: *const c_char) -> *mut libc::FILE = params::fopen;
    access(path: *const c_char, mode: c_int) -> c_int = params::access;

    close(fd: c_int) -> c_int = files::close;
    __close(fd: c_int) -> c_int = files::close;
    close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int = files::close_range, or real::close_range;
    closefrom(low: c_int) -> () = files::closefrom, or real::closefrom;

    dup(old: c_int) -> c_int = files::dup;
    dup2(old: c_int, new: c_int) -> c_int = files::dup2;
    __dup2(old: c_int, new: c_int) -> c_int = files::dup2;
    dup3(old: c_int, new: c_int, flags: c_int) -> c_int = files::dup3;
    fcntl(fd: c_int, command: c_int; arg: usize) -> c_int = files::fcntl;
    fcntl64(fd: c_int, command: c_int; arg: usize) -> c_int = files::fcntl, or real::fcntl64;
    __fcntl(fd: c_int, command: c_int; arg: usize) -> c_int = files::fcntl;

    ioctl(fd: c_int, request: c_ulong; arg: usize) -> c_int = control::ioctl;

    mmap(addr: *mut c_void, len: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off64_t) -> *mut c_void
        = memory::mmap, or real::mmap;
    mmap64(addr: *mut c_void, len: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off64_t) -> *mut c_void
        = memory::mmap, or real::mmap;
    munmap(addr: *mut c_void, len: size_t) -> c_int = memory::munmap, or real::munmap;

    poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int = wait::poll;
    __poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int = wait::poll;
    __poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int = wait::poll_chk;
    ppoll(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int = wait::ppoll;
    __ppoll_chk(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t, room: size_t) -> c_int
        = wait::ppoll_chk;
    select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval) -> c_int
        = wait::select;
    __select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval) -> c_int
        = wait::select;
    pselect(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *const timespec,
        mask: *const sigset_t) -> c_int = wait::pselect;

    epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int = epoll::epoll_ctl;
    epoll_wait(epfd: c_int, events: *mut epoll_event, room: c_int, timeout: c_int) -> c_int = epoll::epoll_wait;
    epoll_pwait(epfd: c_int, events: *mut epoll_event, room: c_int, timeout: c_int, mask: *const sigset_t) -> c_int
        = epoll::epoll_pwait;
    epoll_pwait2(epfd: c_int, events: *mut epoll_event, room: c_int, timeout: *const timespec, mask: *const sigset_t)
        -> c_int = epoll::epoll_pwait2;
}

/// Finds all real functions when the library is loaded, so that the first call of each need not. Calls that come earlier,
/// from constructors of other libraries, look up what they need.
extern "C" fn at_load() {
    slots::resolve();
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;
