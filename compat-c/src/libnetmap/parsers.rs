//! The options of the library: what `@share`, `@extmem`, `@conf` and `@offset` do to a port.
//!
//! Numbers are taken as `atoi` takes them: nonsense is 0, and too large a number loses its upper bits.

use super::context::show;
use super::types::*;
use super::{cleanup, options, port};
use crate::guard::contained;
use libc::{EINVAL, EOPNOTSUPP, c_char, c_int, c_uint};
use netmap_xdp::sync::{AtomicU32, Ordering};
use netmap_xdp::sys::Errno;
use std::ffi::CStr;
use std::ptr;

/// The first of the list.
pub fn all() -> *const OptionParser {
    &SHARE
}

static SHARE: OptionParser = parser(c"share", parse_share, 0, &[(c"port", KEY_DEFAULT | KEY_MUST_SET)], &EXTMEM);
static EXTMEM: OptionParser = parser(
    c"extmem",
    parse_extmem,
    0,
    &[
        (c"file", KEY_DEFAULT | KEY_MUST_SET),
        (c"if_num", 0),
        (c"if_size", 0),
        (c"ring_num", 0),
        (c"ring_size", 0),
        (c"buf_num", 0),
        (c"buf_size", 0),
    ],
    &CONF,
);
static CONF: OptionParser = parser(
    c"conf",
    parse_conf,
    0,
    &[
        (c"rings", 0),
        (c"host_rings", 0),
        (c"slots", 0),
        (c"tx_rings", 0),
        (c"rx_rings", 0),
        (c"host_tx_rings", 0),
        (c"host_rx_rings", 0),
        (c"tx_slots", 0),
        (c"rx_slots", 0),
    ],
    &OFFSET,
);
static OFFSET: OptionParser = parser(
    c"offset",
    parse_offset,
    OPTION_DISABLED,
    &[(c"initial", KEY_DEFAULT | KEY_MUST_SET), (c"bits", 0)],
    ptr::null(),
);

type Callback = unsafe extern "C-unwind" fn(*mut ParseContext) -> c_int;

/// A parser whose keys have the ids 0, 1, 2...
const fn parser(
    prefix: &'static CStr,
    parse: Callback,
    flags: c_uint,
    keys: &'static [(&'static CStr, c_uint)],
    next: *const OptionParser,
) -> OptionParser {
    let mut all = [OptionKey { key: ptr::null(), id: 0, flags: 0 }; MAX_KEYS];
    let (mut i, mut default_key) = (0, -1);
    while i < keys.len() {
        all[i] = OptionKey { key: keys[i].0.as_ptr(), id: i as c_int, flags: keys[i].1 };
        if keys[i].1 & KEY_DEFAULT != 0 {
            default_key = i as c_int;
        }
        i += 1;
    }
    let flags = AtomicU32::new(flags);
    let nr_keys = keys.len() as c_int;
    OptionParser { prefix: prefix.as_ptr(), parse: Some(parse), default_key, nr_keys, flags, next, keys: all }
}

/// `nmport_enable_option`.
pub fn enable(name: &CStr) -> Result<(), Errno> {
    let option = find(name).ok_or(Errno(EOPNOTSUPP))?;
    option.flags.fetch_and(!OPTION_DISABLED, Ordering::Relaxed);
    Ok(())
}

/// `nmport_disable_option`; nothing happens to an option that is not known.
pub fn disable(name: &CStr) -> Result<(), Errno> {
    if let Some(option) = find(name) {
        option.flags.fetch_or(OPTION_DISABLED, Ordering::Relaxed);
    }
    Ok(())
}

fn find(name: &CStr) -> Option<&'static OptionParser> {
    // SAFETY: the list above.
    unsafe { options::find_parser(all(), name) }
}

/// The values of an option, and the port that they are for.
struct Values<'a> {
    port: &'a Port,
    ctx: &'a Context,
    keys: [*const c_char; MAX_KEYS],
}

impl<'a> Values<'a> {
    fn get(&self, id: usize) -> Option<&'a CStr> {
        let value = self.keys[id];
        // SAFETY: not null, so a C string, which lives as long as the call.
        (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
    }

    /// As a number.
    fn number(&self, id: usize) -> Option<c_int> {
        // SAFETY: a C string.
        self.get(id).map(|value| unsafe { libc::strtol(value.as_ptr(), ptr::null_mut(), 10) } as c_int)
    }
}

/// Runs a parser for C.
///
/// # Safety
/// `parsed` is what a parser of this file gets from `options::decode`: its token is a port.
unsafe fn run(parsed: *mut ParseContext, parse: fn(Values<'_>) -> Result<(), Errno>) -> c_int {
    let call = || {
        // SAFETY: the caller's promise.
        let values = unsafe {
            let ParseContext { ctx, token, keys } = parsed.read();
            Values { port: &*token.cast::<Port>(), ctx: &*ctx, keys }
        };
        Some(parse(values).map(|()| 0))
    };
    contained(-1, call).unwrap_or(-1)
}

macro_rules! callbacks {
    ($($name:ident = $parse:ident;)*) => {$(
        unsafe extern "C-unwind" fn $name(parsed: *mut ParseContext) -> c_int {
            // SAFETY: the library passes its parsers to `options::decode` with a port as the token.
            unsafe { run(parsed, $parse) }
        }
    )*};
}

callbacks! {
    parse_share = share;
    parse_extmem = extmem;
    parse_conf = conf;
    parse_offset = offset;
}

fn share(values: Values<'_>) -> Result<(), Errno> {
    let ctx = values.ctx;
    let name = values.get(0).ok_or(Errno(EINVAL))?;
    let (mem_id, _) = port::mem_id_of(name, ctx)?;
    let mut register = values.port.reg.get();
    if register.nr_mem_id != 0 && register.nr_mem_id != mem_id {
        let before = register.nr_mem_id;
        let message = format_args!("memory id {mem_id} of {} contradicts {before}, which was set before", show(name));
        return Err(ctx.fail(EINVAL, message));
    }
    register.nr_mem_id = mem_id;
    values.port.reg.set(register);
    Ok(())
}

fn extmem(values: Values<'_>) -> Result<(), Errno> {
    cleanup::extmem_from_file(values.port, values.get(0).ok_or(Errno(EINVAL))?)?;
    // SAFETY: the option that was just made, which the port keeps.
    let Some(info) = (unsafe { values.port.extmem.get().as_mut() }).map(|option| &mut option.nro_info) else {
        return Ok(());
    };
    let fields = [
        &mut info.nr_if_pool_objtotal,
        &mut info.nr_if_pool_objsize,
        &mut info.nr_ring_pool_objtotal,
        &mut info.nr_ring_pool_objsize,
        &mut info.nr_buf_pool_objtotal,
        &mut info.nr_buf_pool_objsize,
    ];
    for (id, field) in (1..).zip(fields) {
        *field = values.number(id).map_or(*field, |number| number as u32);
    }
    Ok(())
}

/// Keys for both directions come first, so that those for one direction win.
fn conf(values: Values<'_>) -> Result<(), Errno> {
    let mut register = values.port.reg.get();
    let reg = &mut register;
    for id in 0..CONF.nr_keys as usize {
        let Some(number) = values.number(id) else { continue };
        let (rings, slots) = (number as u16, number as u32);
        match id {
            0 => (reg.nr_tx_rings, reg.nr_rx_rings) = (rings, rings),
            1 => (reg.nr_host_tx_rings, reg.nr_host_rx_rings) = (rings, rings),
            2 => (reg.nr_tx_slots, reg.nr_rx_slots) = (slots, slots),
            3 => reg.nr_tx_rings = rings,
            4 => reg.nr_rx_rings = rings,
            5 => reg.nr_host_tx_rings = rings,
            6 => reg.nr_host_rx_rings = rings,
            7 => reg.nr_tx_slots = slots,
            _ => reg.nr_rx_slots = slots,
        }
    }
    values.port.reg.set(register);
    Ok(())
}

fn offset(values: Values<'_>) -> Result<(), Errno> {
    let initial = i64::from(values.number(0).unwrap_or(0)) as u64;
    let bits = i64::from(values.number(1).unwrap_or(0)) as u64;
    cleanup::offset(values.port, initial, initial, bits, 0)
}
