//! The life of a port: new, parse, register, (mmap,) and back; the whole of it by open and close.

use super::cleanup;
use super::context::{default, show};
use super::name::{PortName, Rings};
use super::types::{Context, Port};
use super::{options, parsers, region};
use libc::{EINVAL, O_RDWR, c_int, c_ulong};
use netmap_xdp::abi::*;
use netmap_xdp::sys::Errno;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;

const DEVICE: &CStr = c"/dev/netmap";

/// What `nmreq_header_init` makes of a header.
pub fn new_header(kind: u16, body: *mut c_void) -> nmreq_header {
    nmreq_header {
        nr_version: NETMAP_API,
        nr_reqtype: kind,
        nr_reserved: 0,
        nr_name: [0; NETMAP_REQ_IFNAMSIZ],
        nr_options: 0,
        nr_body: body as u64,
    }
}

/// `nmreq_header_init`.
pub fn init_header(header: &Cell<nmreq_header>, kind: u16, body: *mut c_void) -> Result<(), Errno> {
    header.set(new_header(kind, body));
    Ok(())
}

/// What `text` holds from byte `end` on.
fn rest(text: &CStr, end: usize) -> &CStr {
    CStr::from_bytes_with_nul(&text.to_bytes_with_nul()[end..]).unwrap_or_default()
}

/// `nmreq_header_decode`.
pub fn decode_header(text: &Cell<*const c_char>, header: &Cell<nmreq_header>, ctx: &Context) -> Result<(), Errno> {
    let start = string(text)?;
    text.set(decode_name(start, header, ctx)?.as_ptr());
    Ok(())
}

/// Puts the name that `text` begins with into a header, and returns the rest.
fn decode_name<'a>(text: &'a CStr, header: &Cell<nmreq_header>, ctx: &Context) -> Result<&'a CStr, Errno> {
    let name = PortName::parse(text, ctx)?;
    let mut changed = header.get();
    name.store(&mut changed);
    header.set(changed);
    Ok(rest(text, name.end))
}

/// `nmreq_register_decode`.
pub fn decode_register(
    text: &Cell<*const c_char>,
    register: &Cell<nmreq_register>,
    ctx: &Context,
) -> Result<(), Errno> {
    let start = string(text)?;
    text.set(decode_rings(start, start, register, ctx)?.as_ptr());
    Ok(())
}

/// Puts the rings that `text` begins with into a registration, and returns the rest. `whole` is for messages.
fn decode_rings<'a>(
    text: &'a CStr,
    whole: &CStr,
    register: &Cell<nmreq_register>,
    ctx: &Context,
) -> Result<&'a CStr, Errno> {
    let mut changed = register.get();
    let rings = Rings::parse(text, whole, changed.nr_mem_id, ctx)?;
    rings.store(&mut changed);
    register.set(changed);
    Ok(rest(text, rings.end))
}

/// The string that a pointer of the program's points to.
fn string(text: &Cell<*const c_char>) -> Result<&CStr, Errno> {
    // SAFETY: null or a C string, as the API demands.
    if text.get().is_null() { Err(Errno(EINVAL)) } else { Ok(unsafe { CStr::from_ptr(text.get()) }) }
}

/// `nmreq_get_mem_id`.
pub fn decode_mem_id(text: &Cell<*const c_char>, ctx: &Context) -> Result<c_int, Errno> {
    let start = string(text)?;
    let (mem_id, end) = mem_id_of(start, ctx)?;
    text.set(rest(start, end).as_ptr());
    Ok(c_int::from(mem_id))
}

/// Asks for the memory id of the port that `text` begins with; also says where its name ends.
pub fn mem_id_of(text: &CStr, ctx: &Context) -> Result<(u16, usize), Errno> {
    let device = Device::open(ctx)?;
    let name = PortName::parse(text, ctx)?;
    let mut info = nmreq_port_info_get::default();
    let mut header = new_header(NETMAP_REQ_PORT_INFO_GET, (&raw mut info).cast());
    name.store(&mut header);
    if let Err(errno) = device.control(&mut header) {
        return Err(ctx.fail(errno.0, format_args!("{}: no information about the port: {errno}", show(text))));
    }
    // SAFETY: plain data, which the request has filled in through `nr_body`.
    let info = unsafe { (&raw const info).read_volatile() };
    Ok((info.nr_mem_id, name.end))
}

/// An open `/dev/netmap`, closed in the end unless somebody takes it.
struct Device(c_int);

impl Device {
    fn open(ctx: &Context) -> Result<Device, Errno> {
        // SAFETY: a C string; the flags need no mode.
        let fd = unsafe { crate::open(DEVICE.as_ptr(), O_RDWR, 0) };
        if fd < 0 {
            let errno = Errno::last();
            return Err(ctx.fail(errno.0, format_args!("cannot open {}: {errno}", show(DEVICE))));
        }
        Ok(Device(fd))
    }

    fn control(&self, header: *mut nmreq_header) -> Result<(), Errno> {
        // SAFETY: a header with its body and options, as the API and this file make them.
        if unsafe { crate::ioctl(self.0, NIOCCTRL as c_ulong, header as usize) } < 0 {
            Err(Errno::last())
        } else {
            Ok(())
        }
    }

    fn take(self) -> c_int {
        let fd = self.0;
        std::mem::forget(self);
        fd
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: an integer; the descriptor is our own.
        unsafe { crate::close(self.0) };
    }
}

/// `nmport_new`.
pub fn new() -> Result<*mut Port, Errno> {
    new_in(default())
}

fn new_in(ctx: &Context) -> Result<*mut Port, Errno> {
    let at = ctx.room::<Port>(format_args!("a port"))?;
    let port = Port {
        hdr: Cell::new(new_header(NETMAP_REQ_REGISTER, body_of(at))),
        reg: Cell::default(),
        mem: Cell::new(ptr::null()),
        ctx: Cell::new(ctx),
        register_done: Cell::new(0),
        mmap_done: Cell::new(0),
        extmem: Cell::new(ptr::null_mut()),
        fd: Cell::new(-1),
        nifp: Cell::new(ptr::null_mut()),
        first_tx_ring: Cell::new(0),
        last_tx_ring: Cell::new(0),
        first_rx_ring: Cell::new(0),
        last_rx_ring: Cell::new(0),
        cur_tx_ring: Cell::new(0),
        cur_rx_ring: Cell::new(0),
        clist: Cell::new(ptr::null_mut()),
    };
    // SAFETY: memory for a port.
    unsafe { at.write(port) };
    Ok(at)
}

/// Where a port keeps the body of its request.
fn body_of(port: *const Port) -> *mut c_void {
    port.wrapping_byte_add(std::mem::offset_of!(Port, reg)).cast_mut().cast()
}

/// `nmport_delete`.
pub fn delete(port: &Port) {
    // SAFETY: a port from this context, which the program gives up with this call; it holds nothing to be dropped.
    unsafe { port.context().free(ptr::from_ref(port).cast_mut().cast()) }
}

/// `nmport_parse`.
pub fn parse(port: &Port, name: &CStr) -> Result<(), Errno> {
    let ctx = port.context();
    let token = ptr::from_ref(port).cast_mut().cast();
    decode_name(name, &port.hdr, ctx)
        .and_then(|rest| decode_rings(rest, name, &port.reg, ctx))
        // SAFETY: our parsers, and what they take.
        .and_then(|rest| unsafe { options::decode(rest, name, parsers::all(), token, ctx) })
        .inspect_err(|_| undo_parse(port))
}

/// `nmport_undo_parse`.
pub fn undo_parse(port: &Port) {
    cleanup::undo_all(port);
    port.reg.set(nmreq_register::default());
    port.hdr.set(new_header(NETMAP_REQ_REGISTER, body_of(port)));
}

/// `nmport_prepare`.
pub fn prepare(name: &CStr) -> Result<*mut Port, Errno> {
    let at = new()?;
    // SAFETY: a port that was just made.
    let port = unsafe { &*at };
    parse(port, name).inspect_err(|_| delete(port))?;
    Ok(at)
}

/// `nmport_undo_prepare`.
pub fn undo_prepare(port: &Port) {
    undo_parse(port);
    delete(port);
}

/// `nmport_register`.
pub fn register(port: &Port) -> Result<(), Errno> {
    if port.register_done.get() != 0 {
        return Err(port.fail(EINVAL, format_args!("the port is registered already")));
    }
    let device = Device::open(port.context())?;
    if let Err(errno) = device.control(port.hdr.as_ptr()) {
        let mut blamed = false;
        for (option, why) in options::failures(&port.hdr) {
            port.fail(why.0, format_args!("option {}: {why}", show(option)));
            blamed = true;
        }
        if !blamed {
            port.fail(errno.0, format_args!("cannot register the port: {errno}"));
        }
        return Err(errno);
    }
    port.fd.set(device.take());
    port.register_done.set(1);
    Ok(())
}

/// `nmport_undo_register`.
pub fn undo_register(port: &Port) {
    let fd = port.fd.replace(-1);
    port.register_done.set(0);
    if fd >= 0 {
        // SAFETY: an integer; the descriptor is the port's own.
        unsafe { crate::close(fd) };
    }
}

/// `nmport_open_desc`.
pub fn open_desc(port: &Port) -> Result<(), Errno> {
    register(port).and_then(|()| region::map(port)).inspect_err(|_| undo_open_desc(port))
}

/// `nmport_undo_open_desc`.
pub fn undo_open_desc(port: &Port) {
    region::unmap(port);
    undo_register(port);
}

/// `nmport_open`.
pub fn open(name: &CStr) -> Result<*mut Port, Errno> {
    let at = prepare(name)?;
    // SAFETY: a port that was just made.
    let port = unsafe { &*at };
    open_desc(port).inspect_err(|_| close(port))?;
    Ok(at)
}

/// `nmport_close`.
pub fn close(port: &Port) {
    undo_open_desc(port);
    undo_prepare(port);
}

/// `nmport_clone`: a port with the same request, without options, not registered.
pub fn clone(port: &Port) -> Result<*mut Port, Errno> {
    if !port.extmem.get().is_null() && port.register_done.get() == 0 {
        return Err(port.fail(EINVAL, format_args!("a port with extmem has to be registered before it is cloned")));
    }
    let at = new_in(port.context())?;
    // SAFETY: a port that was just made.
    let copy = unsafe { &*at };
    copy.hdr.set(nmreq_header { nr_options: 0, nr_body: body_of(at) as u64, ..port.hdr.get() });
    copy.reg.set(port.reg.get());
    Ok(at)
}
