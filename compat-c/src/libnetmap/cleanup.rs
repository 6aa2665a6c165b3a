//! What a port was given besides its name, extmem and offsets, and what therefore has to be undone in the end.

use super::context::show;
use super::options;
use super::types::{Context, Port};
use libc::{EINVAL, MAP_FAILED, MAP_SHARED, O_RDWR, PROT_READ, PROT_WRITE, SEEK_END, c_int, c_void, size_t};
use netmap_xdp::abi::*;
use netmap_xdp::sys::Errno;
use std::cell::Cell;
use std::ffi::CStr;
use std::ptr;

/// `struct nmport_cleanup_d`, of which C programs know the name only: a thing to undo, in the list of a port.
#[derive(Clone, Copy)]
pub struct Cleanup {
    next: *mut Cleanup,
    undo: Undo,
}

#[derive(Clone, Copy)]
enum Undo {
    /// The port's extmem option.
    Extmem,
    /// A file that was mapped for it.
    Mapping { at: *mut c_void, size: size_t },
    /// An offset option.
    Offsets(*mut nmreq_opt_offsets),
}

impl Port {
    /// The context that the port was made with.
    pub fn context(&self) -> &Context {
        // SAFETY: a port is made with a context that outlives it.
        unsafe { &*self.ctx.get() }
    }

    /// Reports a failure of this port, and returns `errno`.
    #[cold]
    pub fn fail(&self, errno: c_int, what: std::fmt::Arguments<'_>) -> Errno {
        self.context().fail(errno, format_args!("{}: {what}", self.name()))
    }

    /// The name in the header.
    pub fn name(&self) -> String {
        let name = self.hdr.get().nr_name;
        String::from_utf8_lossy(name.split(|&b| b == 0).next().unwrap_or(&name)).into_owned()
    }

    /// The header as an option list.
    fn header(&self) -> &Cell<nmreq_header> {
        &self.hdr
    }
}

/// Memory for the next thing to undo. Fetched before that thing is done, so that it cannot fail afterwards.
struct Reserved<'a> {
    port: &'a Port,
    at: *mut Cleanup,
}

impl<'a> Reserved<'a> {
    fn new(port: &'a Port) -> Result<Reserved<'a>, Errno> {
        Ok(Reserved { port, at: port.context().room(format_args!("a cleanup of {}", port.name()))? })
    }

    /// Puts the thing into the list.
    fn push(self, undo: Undo) {
        let port = self.port;
        // SAFETY: memory for it, reserved above.
        unsafe { self.at.write(Cleanup { next: port.clist.get(), undo }) };
        port.clist.set(self.at);
        std::mem::forget(self);
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        // SAFETY: from this context, and not used.
        unsafe { self.port.context().free(self.at.cast()) }
    }
}

/// Undoes everything, the latest first.
pub fn undo_all(port: &Port) {
    while undo_latest(port) {}
}

/// Undoes the latest thing; false if there was none.
fn undo_latest(port: &Port) -> bool {
    let at = port.clist.get();
    if at.is_null() {
        return false;
    }
    // SAFETY: in the list, so written by `push`.
    let Cleanup { next, undo } = unsafe { at.read() };
    port.clist.set(next);
    match undo {
        Undo::Extmem => {
            let option = port.extmem.replace(ptr::null_mut());
            if !option.is_null() {
                take_off(port, option.cast());
            }
        }
        Undo::Offsets(option) => take_off(port, option.cast()),
        Undo::Mapping { at, size } => {
            // SAFETY: mapped by `extmem_from_file` for this port alone, which is closed by now. That it is unmapped already
            // is possible, and nothing to be done about.
            unsafe { crate::munmap(at, size) };
        }
    }
    // SAFETY: from this context, and off the list.
    unsafe { port.context().free(at.cast()) };
    true
}

/// Takes an option of the library's off the list of a port, and frees it.
fn take_off(port: &Port, option: *mut nmreq_option) {
    // SAFETY: an option of the port's, alive until below.
    let _ = options::remove(port.header(), unsafe { Cell::from_mut(&mut *option) });
    // SAFETY: from this context, and off the list.
    unsafe { port.context().free(option.cast()) };
}

/// Puts an option of the library's on the list of a port.
fn put_on(port: &Port, option: *mut nmreq_option) {
    // SAFETY: the option was just made, and nobody else has it.
    let _ = options::push(port.header(), unsafe { Cell::from_mut(&mut *option) });
}

/// `nmport_extmem`.
pub fn extmem(port: &Port, base: *mut c_void, size: size_t) -> Result<(), Errno> {
    if port.register_done.get() != 0 {
        return Err(port.fail(EINVAL, format_args!("too late for extmem: the port is registered")));
    }
    if !port.extmem.get().is_null() {
        return Err(port.fail(EINVAL, format_args!("the port has extmem already")));
    }
    let reserved = Reserved::new(port)?;
    let option = nmreq_opt_extmem {
        nro_opt: nmreq_option { nro_reqtype: NETMAP_REQ_OPT_EXTMEM, ..Default::default() },
        nro_usrptr: base as u64,
        nro_info: nmreq_pools_info { nr_memsize: size as u64, ..Default::default() },
    };
    let option = port.context().keep(option, format_args!("the extmem option of {}", port.name()))?;
    port.extmem.set(option);
    put_on(port, option.cast());
    reserved.push(Undo::Extmem);
    Ok(())
}

/// A file descriptor that is closed in the end.
struct OpenFile(c_int);

impl Drop for OpenFile {
    fn drop(&mut self) {
        // SAFETY: an integer; the descriptor is our own.
        unsafe { crate::close(self.0) };
    }
}

/// `nmport_extmem_from_file`.
pub fn extmem_from_file(port: &Port, name: &CStr) -> Result<(), Errno> {
    let ctx = port.context();
    let failed = |what: &str| {
        let errno = Errno::last();
        ctx.fail(errno.0, format_args!("cannot {what} {}: {errno}", show(name)))
    };
    let reserved = Reserved::new(port)?;
    // SAFETY: a C string; the flags need no mode.
    let file = OpenFile(unsafe { crate::open(name.as_ptr(), O_RDWR, 0) });
    if file.0 < 0 {
        std::mem::forget(file);
        return Err(failed("open"));
    }
    // SAFETY: integers only.
    let size = unsafe { libc::lseek(file.0, 0, SEEK_END) };
    let Ok(size) = usize::try_from(size) else { return Err(failed("find the size of")) };
    // SAFETY: a new mapping, wherever there is room.
    let at = unsafe { crate::mmap(ptr::null_mut(), size, PROT_READ | PROT_WRITE, MAP_SHARED, file.0, 0) };
    if at == MAP_FAILED {
        return Err(failed("map"));
    }
    drop(file);
    reserved.push(Undo::Mapping { at, size });
    extmem(port, at, size).inspect_err(|_| {
        undo_latest(port);
    })
}

/// `nmport_extmem_getinfo`.
pub fn extmem_info(port: &Port) -> Result<*mut nmreq_pools_info, Errno> {
    let option = port.extmem.get();
    if option.is_null() {
        return Ok(ptr::null_mut());
    }
    // SAFETY: the option of the port; a field of it.
    Ok(unsafe { &raw mut (*option).nro_info })
}

/// `nmport_offset`.
pub fn offset(port: &Port, initial: u64, max: u64, bits: u64, min_gap: u64) -> Result<(), Errno> {
    let reserved = Reserved::new(port)?;
    let option = nmreq_opt_offsets {
        nro_opt: nmreq_option { nro_reqtype: NETMAP_REQ_OPT_OFFSETS, ..Default::default() },
        nro_max_offset: max,
        nro_initial_offset: initial,
        nro_offset_bits: bits as u32,
        nro_tx_align: 0,
        nro_min_gap: min_gap,
    };
    let option = port.context().keep(option, format_args!("the offset option of {}", port.name()))?;
    put_on(port, option.cast());
    reserved.push(Undo::Offsets(option));
    Ok(())
}
