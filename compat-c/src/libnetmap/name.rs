//! Port names: `netmap:IF` or `valeS:P`, then which rings and which region. Pure functions of the text; positions are
//! bytes from its start.

use super::context::show;
use super::types::Context;
use libc::{EINVAL, ERANGE, c_int};
use netmap_xdp::abi::*;
use netmap_xdp::sys::Errno;
use std::ffi::CStr;
use std::fmt;

/// What may follow the name of a port.
const SEPARATORS: &[u8] = b"-*^/@";
const PIPE: &[u8] = b"{}";

/// The name of a port, for `nr_name`, and what follows it.
#[derive(Debug)]
pub struct PortName<'a> {
    /// At least one byte, and fewer than `nr_name` has.
    pub name: &'a [u8],
    /// Where the rest of the text begins.
    pub end: usize,
}

impl<'a> PortName<'a> {
    /// Reads the part of `text` that names the port.
    pub fn parse(text: &'a CStr, ctx: &Context) -> Result<PortName<'a>, Errno> {
        let fail = |what: fmt::Arguments<'_>| Err(ctx.fail(EINVAL, format_args!("{}: {what}", show(text))));
        let bytes = text.to_bytes();
        let (prefix, is_vale) = match bytes {
            [b'n', b'e', b't', b'm', b'a', b'p', ..] => ("netmap", false),
            [b'v', b'a', b'l', b'e', ..] => ("vale", true),
            _ => return fail(format_args!("a port name begins with `netmap:` or `vale`")),
        };
        let Some(colon) = bytes.iter().position(|&b| b == b':') else {
            return fail(format_args!("no `:` in the port name"));
        };
        let id = &bytes[prefix.len()..colon];
        if !is_vale && !id.is_empty() {
            return fail(format_args!("nothing may stand between `{prefix}` and `:`"));
        }
        if !is_identifier(id) {
            return fail(format_args!("`{}` cannot be the name of a switch", lossy(id)));
        }
        let port = colon + 1;
        let end = find(bytes, port, SEPARATORS).unwrap_or(bytes.len());
        if let Some(brace) = find(&bytes[..end], port, PIPE) {
            if brace + 1 == bytes.len() {
                return fail(format_args!("the pipe has no name"));
            }
            let pipe = &bytes[brace + 1..end];
            if !is_identifier(pipe) {
                return fail(format_args!("`{}` cannot be the name of a pipe", lossy(pipe)));
            }
        }
        // A switch is part of the name, the prefix of an interface is not.
        let name = &bytes[if is_vale { 0 } else { port }..end];
        if name.len() >= NETMAP_REQ_IFNAMSIZ {
            return fail(format_args!("the name has more than {} characters", NETMAP_REQ_IFNAMSIZ - 1));
        }
        if name.is_empty() {
            return fail(format_args!("the name of the port is empty"));
        }
        Ok(PortName { name, end })
    }

    /// Puts the name into a header; bytes behind its NUL stay as they are.
    pub fn store(&self, header: &mut nmreq_header) {
        header.nr_name[..self.name.len()].copy_from_slice(self.name);
        header.nr_name[self.name.len()] = 0;
    }
}

fn is_identifier(text: &[u8]) -> bool {
    text.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The first of `wanted` in `text`, from `from` on.
fn find(text: &[u8], from: usize, wanted: &[u8]) -> Option<usize> {
    text[from..].iter().position(|b| wanted.contains(b)).map(|at| from + at)
}

fn lossy(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// Which rings of a port, and which region.
#[derive(Debug, PartialEq, Eq)]
pub struct Rings {
    pub mode: u32,
    pub ringid: u16,
    pub flags: u64,
    pub mem_id: u16,
    /// Where the rest of the text begins: at its end, or at the `@` of an option.
    pub end: usize,
}

impl Rings {
    /// Reads what follows the name of a port. `mem_id` is the region that was set before, 0 if none was; `whole` is what
    /// messages show.
    pub fn parse(text: &CStr, whole: &CStr, mem_id: u16, ctx: &Context) -> Result<Rings, Errno> {
        let rings = Rings { mode: NR_REG_ALL_NIC, ringid: 0, flags: 0, mem_id, end: 0 };
        let mut parser = Parser { whole, bytes: text.to_bytes(), ctx, rings, errno: EINVAL };
        parser.which()?;
        parser.suffixes()?;
        Ok(parser.rings)
    }

    /// Puts it into a registration.
    pub fn store(&self, register: &mut nmreq_register) {
        register.nr_mode = self.mode;
        register.nr_ringid = self.ringid;
        register.nr_flags = self.flags;
        register.nr_mem_id = self.mem_id;
    }
}

/// The text, and what was found in it up to `rings.end`.
struct Parser<'a> {
    whole: &'a CStr,
    bytes: &'a [u8],
    ctx: &'a Context,
    rings: Rings,
    /// Of a failure: ERANGE once there was a number that does not fit, whatever the failure is about.
    errno: c_int,
}

impl Parser<'_> {
    fn fail<T>(&self, what: fmt::Arguments<'_>) -> Result<T, Errno> {
        Err(self.ctx.fail(self.errno, format_args!("{}: {what}", show(self.whole))))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.rings.end).copied()
    }

    fn digit_next(&self) -> bool {
        self.peek().is_some_and(|b| b.is_ascii_digit())
    }

    /// `-N`, `^`, `^N`, `*` or nothing.
    fn which(&mut self) -> Result<(), Errno> {
        let mode = match self.peek() {
            None | Some(b'/' | b'@') => return Ok(()),
            Some(b'*') => NR_REG_NIC_SW,
            Some(b'^') => NR_REG_SW,
            Some(b'-') => NR_REG_ONE_NIC,
            Some(other) => return self.fail(format_args!("`{}` says nothing about rings", char::from(other))),
        };
        self.rings.end += 1;
        self.rings.mode = mode;
        match mode {
            NR_REG_SW if self.digit_next() => {
                self.rings.mode = NR_REG_ONE_SW;
                self.ring()
            }
            NR_REG_ONE_NIC if !self.digit_next() => self.fail(format_args!("`-` is followed by the number of a ring")),
            NR_REG_ONE_NIC => self.ring(),
            _ => Ok(()),
        }
    }

    fn ring(&mut self) -> Result<(), Errno> {
        let limit = i64::from(NETMAP_RING_MASK);
        match u16::try_from(self.number()) {
            Ok(ring) if i64::from(ring) < limit => {
                self.rings.ringid = ring;
                Ok(())
            }
            _ => self.fail(format_args!("the number of a ring is below {limit}")),
        }
    }

    /// A run of digits; the largest number if it does not fit.
    fn number(&mut self) -> i64 {
        let mut number = Some(0i64);
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number.and_then(|n| n.checked_mul(10)?.checked_add(i64::from(digit - b'0')));
            self.rings.end += 1;
        }
        number.unwrap_or_else(|| {
            self.errno = ERANGE;
            i64::MAX
        })
    }

    /// `/FLAGS` and `@MEMID` in any number, up to the end or an option.
    fn suffixes(&mut self) -> Result<(), Errno> {
        while let Some(next) = self.peek() {
            match next {
                b'/' => self.flags()?,
                b'@' => {
                    self.rings.end += 1;
                    match self.peek() {
                        None => return self.fail(format_args!("`@` is followed by a memory id or an option")),
                        Some(b'0'..=b'9') => self.mem_id()?,
                        Some(_) => {
                            self.rings.end -= 1;
                            return Ok(());
                        }
                    }
                }
                other => return self.fail(format_args!("`{}` is not expected here", char::from(other))),
            }
        }
        Ok(())
    }

    fn flags(&mut self) -> Result<(), Errno> {
        self.rings.end += 1;
        if self.peek().is_none() {
            return self.fail(format_args!("`/` is followed by flags"));
        }
        while let Some(flag) = self.peek() {
            self.rings.flags |= match flag {
                b'x' => NR_EXCLUSIVE,
                b'z' => NR_ZCOPY_MON,
                b't' => NR_MONITOR_TX,
                b'r' => NR_MONITOR_RX,
                b'R' => NR_RX_RINGS_ONLY,
                b'T' => NR_TX_RINGS_ONLY,
                b'@' => return Ok(()),
                other => return self.fail(format_args!("`{}` is not a flag", char::from(other))),
            };
            self.rings.end += 1;
        }
        Ok(())
    }

    /// Only 0 and contradictions are refused; of a large number the lower 16 bits count.
    fn mem_id(&mut self) -> Result<(), Errno> {
        let number = self.number();
        let before = self.rings.mem_id;
        if number == 0 {
            return self.fail(format_args!("0 is not a memory id"));
        }
        if before != 0 && i64::from(before) != number {
            return self.fail(format_args!("memory id {number} contradicts {before}, which was set before"));
        }
        self.rings.mem_id = number as u16;
        Ok(())
    }
}
