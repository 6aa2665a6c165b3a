//! Options: the lists that hang on a request, and `@option...` in port names.
//!
//! ```text
//! @NAME                     if the option may stand alone
//! @NAME=VALUE               the value of its default key
//! @NAME:KEY=VALUE,KEY=...   `-` in a key is as good as `_`
//! ```
//! What options there are, the caller says by a list of parsers: those of `parsers`, or a program's own.

use super::context::show;
use super::types::*;
use libc::{EINVAL, ENOMEM, EOPNOTSUPP, c_char, c_int, c_void};
use netmap_xdp::abi::*;
use netmap_xdp::sync::Ordering;
use netmap_xdp::sys::Errno;
use std::cell::Cell;
use std::ffi::CStr;
use std::fmt;
use std::ptr;

/// `nmreq_push_option`.
pub fn push(header: &Cell<nmreq_header>, option: &Cell<nmreq_option>) -> Result<(), Errno> {
    let mut changed = header.get();
    option.set(nmreq_option { nro_next: changed.nr_options, ..option.get() });
    changed.nr_options = option.as_ptr() as u64;
    header.set(changed);
    Ok(())
}

/// The options of a request. The list is the program's, and so is its being one.
fn list(header: &Cell<nmreq_header>) -> impl Iterator<Item = &Cell<nmreq_option>> {
    // SAFETY: 0, or an option that the program, or this library, has put into the list.
    let at = |address: u64| unsafe { (address as *const Cell<nmreq_option>).as_ref() };
    std::iter::successors(at(header.get().nr_options), move |option| at(option.get().nro_next))
}

/// `nmreq_find_option`.
pub fn find(header: &Cell<nmreq_header>, kind: u32) -> Result<*mut nmreq_option, Errno> {
    let found = list(header).find(|option| option.get().nro_reqtype == kind);
    Ok(found.map_or(ptr::null_mut(), Cell::as_ptr))
}

/// `nmreq_remove_option`: takes an option off the list, if it is there.
pub fn remove(header: &Cell<nmreq_header>, option: &Cell<nmreq_option>) -> Result<(), Errno> {
    let next = option.get().nro_next;
    if ptr::eq(header.get().nr_options as *const Cell<nmreq_option>, option) {
        header.set(nmreq_header { nr_options: next, ..header.get() });
    } else if let Some(before) = list(header).find(|before| before.get().nro_next == option.as_ptr() as u64) {
        before.set(nmreq_option { nro_next: next, ..before.get() });
    } else {
        return Ok(());
    }
    option.set(nmreq_option { nro_next: 0, ..option.get() });
    Ok(())
}

/// `nmreq_free_options`: gives all options back to malloc, whatever the context.
pub fn free(header: &Cell<nmreq_header>) -> Result<(), Errno> {
    let mut next = header.replace(nmreq_header { nr_options: 0, ..header.get() }).nr_options;
    while next != 0 {
        let option = next as *mut nmreq_option;
        // SAFETY: an option of the list, which the program had from malloc and gives up with this call.
        next = unsafe {
            let after = (*option).nro_next;
            libc::free(option.cast());
            after
        };
    }
    Ok(())
}

/// The failures that options report after a request.
pub fn failures(header: &Cell<nmreq_header>) -> impl Iterator<Item = (&'static CStr, Errno)> {
    let failed = list(header).map(Cell::get).filter(|option| option.nro_status != 0);
    failed.map(|option| (name(option.nro_reqtype), Errno(option.nro_status as i32)))
}

/// What `nmreq_option_name` says.
pub fn name(kind: u32) -> &'static CStr {
    match kind {
        NETMAP_REQ_OPT_EXTMEM => c"extmem",
        NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS => c"sync-kloop-eventfds",
        NETMAP_REQ_OPT_CSB => c"csb",
        NETMAP_REQ_OPT_SYNC_KLOOP_MODE => c"sync-kloop-mode",
        NETMAP_REQ_OPT_OFFSETS => c"offsets",
        _ => c"unknown",
    }
}

/// Parses `@option@option...`, or nothing, calling the parser of each option. `whole` is what messages show.
///
/// # Safety
/// `parsers` is null or the first of a list of parsers; `token` is what their callbacks take.
pub unsafe fn decode(
    text: &CStr,
    whole: &CStr,
    parsers: *const OptionParser,
    token: *mut c_void,
    ctx: &Context,
) -> Result<(), Errno> {
    let mut parts = text.to_bytes().split(|&b| b == b'@');
    match (text.is_empty(), parts.next()) {
        (true, _) => return Ok(()),
        (false, Some(b"")) => {}
        _ => return Err(ctx.fail(EINVAL, format_args!("{}: options begin with `@`", show(whole)))),
    }
    for part in parts {
        if part.is_empty() {
            return Err(ctx.fail(EINVAL, format_args!("{}: an option is empty", show(whole))));
        }
        let copy = Copied::new(part, whole, ctx)?;
        // SAFETY: the caller's promise.
        unsafe { decode_one(&copy, parsers, token)? };
    }
    Ok(())
}

/// An option, in memory of the context, where its parts become C strings.
struct Copied<'a> {
    at: *mut c_char,
    len: usize,
    /// What messages show.
    whole: &'a CStr,
    ctx: &'a Context,
}

impl<'a> Copied<'a> {
    fn new(option: &[u8], whole: &'a CStr, ctx: &'a Context) -> Result<Copied<'a>, Errno> {
        let at = ctx.malloc(option.len() + 1).cast::<c_char>();
        if at.is_null() {
            return Err(ctx.fail(ENOMEM, format_args!("{}: no memory for an option", show(whole))));
        }
        // SAFETY: fresh memory of that size.
        unsafe {
            ptr::copy_nonoverlapping(option.as_ptr(), at.cast(), option.len());
            at.add(option.len()).write(0);
        }
        Ok(Copied { at, len: option.len(), whole, ctx })
    }

    /// Reports that something is wrong with the option whose name the first NUL ends.
    #[cold]
    fn fail<T>(&self, errno: c_int, what: fmt::Arguments<'_>) -> Result<T, Errno> {
        let message = format_args!("{}: option `{}` {what}", show(self.whole), show(self.text(0)));
        Err(self.ctx.fail(errno, message))
    }

    /// The first byte from `from` on that is one of `wanted`; else the length.
    fn find(&self, from: usize, wanted: &[u8]) -> usize {
        (from..self.len).find(|&i| wanted.contains(&self.byte(i).get())).unwrap_or(self.len)
    }

    /// Byte `i`, which is the NUL behind the text at last.
    fn byte(&self, i: usize) -> &Cell<u8> {
        assert!(i <= self.len);
        // SAFETY: within the memory, which was written whole.
        unsafe { &*self.at.add(i).cast() }
    }

    /// From byte `i` to the next NUL.
    fn text(&self, i: usize) -> &CStr {
        // SAFETY: `byte` checks that it is within the text, which ends with a NUL.
        unsafe { CStr::from_ptr(self.byte(i).as_ptr().cast()) }
    }
}

impl Drop for Copied<'_> {
    fn drop(&mut self) {
        // SAFETY: memory of this context; what pointed into it was lent for as long as this lived.
        unsafe { self.ctx.free(self.at.cast()) }
    }
}

/// # Safety
/// As for [`decode`].
unsafe fn decode_one(option: &Copied<'_>, parsers: *const OptionParser, token: *mut c_void) -> Result<(), Errno> {
    let end = option.find(0, b":=");
    let delimiter = option.byte(end).replace(0);
    // SAFETY: the caller's promise.
    let Some(parser) = (unsafe { find_parser(parsers, option.text(0)) }) else {
        return option.fail(EINVAL, format_args!("is not known"));
    };
    let flags = parser.flags.load(Ordering::Relaxed);
    if flags & OPTION_DISABLED != 0 {
        return option.fail(EOPNOTSUPP, format_args!("is disabled"));
    }
    let mut parsed = ParseContext { ctx: option.ctx, token, keys: [ptr::null(); MAX_KEYS] };
    match delimiter {
        b':' => keys(option, end + 1, parser, &mut parsed)?,
        b'=' => {
            let Some(value) = usize::try_from(parser.default_key).ok().and_then(|id| parsed.keys.get_mut(id)) else {
                return option.fail(EINVAL, format_args!("takes `:` and keys, not `=`"));
            };
            if end + 1 == option.len {
                return option.fail(EINVAL, format_args!("has no value after `=`"));
            }
            *value = option.text(end + 1).as_ptr();
        }
        _ if flags & OPTION_ALLOW_EMPTY == 0 => {
            return option.fail(EINVAL, format_args!("cannot stand alone"));
        }
        _ => {}
    }
    let Some(parse) = parser.parse else {
        return option.fail(EINVAL, format_args!("has no parser"));
    };
    // SAFETY: the callback of the list, with what it takes.
    if unsafe { parse(&mut parsed) } < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// The parser of the option `name`.
///
/// # Safety
/// `parsers` is null or the first of a list of parsers, which lives as long as the result.
pub unsafe fn find_parser<'a>(parsers: *const OptionParser, name: &CStr) -> Option<&'a OptionParser> {
    // SAFETY: null or in the list.
    let at = |parser: *const OptionParser| unsafe { parser.as_ref() };
    // SAFETY: the name of a parser is a C string.
    std::iter::successors(at(parsers), |p| at(p.next)).find(|p| unsafe { CStr::from_ptr(p.prefix) } == name)
}

/// `KEY=VALUE,...` from byte `from` on.
fn keys(option: &Copied<'_>, from: usize, parser: &OptionParser, parsed: &mut ParseContext) -> Result<(), Errno> {
    // SAFETY: names of keys are C strings, up to the first that is null.
    let known = parser.keys.iter().take_while(|k| !k.key.is_null()).map(|k| (k, unsafe { CStr::from_ptr(k.key) }));
    let mut at = from;
    let mut more = at < option.len;
    while more {
        // A key has a first byte, whatever it is.
        let end = option.find(at + 1, b"=,");
        (at + 1..end).map(|i| option.byte(i)).filter(|b| b.get() == b'-').for_each(|b| b.set(b'_'));
        let delimiter = option.byte(end).replace(0);
        let key = option.text(at);
        let Some((spec, _)) = known.clone().find(|&(_, known)| known == key) else {
            return option.fail(EINVAL, format_args!("has no key `{}`", show(key)));
        };
        let Some(slot) = usize::try_from(spec.id).ok().and_then(|id| parsed.keys.get_mut(id)) else {
            return option.fail(EINVAL, format_args!("has a bad id for key `{}`", show(key)));
        };
        if !slot.is_null() {
            return option.fail(EINVAL, format_args!("has key `{}` twice", show(key)));
        }
        if delimiter == b'=' {
            let value_end = option.find(end + 1, b",");
            more = option.byte(value_end).replace(0) == b',';
            if value_end > end + 1 {
                *slot = option.text(end + 1).as_ptr();
            }
            at = value_end + 1;
        } else if spec.flags & KEY_ALLOW_EMPTY != 0 {
            *slot = key.as_ptr();
            more = delimiter == b',';
            at = end + 1;
        } else {
            return option.fail(EINVAL, format_args!("takes a value for key `{}`", show(key)));
        }
    }
    for (key, text) in known {
        let set = usize::try_from(key.id).ok().and_then(|id| parsed.keys.get(id)).is_some_and(|v| !v.is_null());
        if key.flags & KEY_MUST_SET != 0 && !set {
            return option.fail(EINVAL, format_args!("needs key `{}`", show(text)));
        }
    }
    Ok(())
}
