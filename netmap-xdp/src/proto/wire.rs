//! Values as bytes and back: fixed sizes in little-endian order, lengths in front of what varies, descriptors by their
//! place in the message's list. Pure; whatever comes in is checked, and nothing is allocated for what is only announced.

use crate::sys::{Errno, Fd};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Longest text, bytes.
pub const LONGEST_TEXT: usize = 4096;

/// A message that makes no sense, and what of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

/// A message that is being written.
#[derive(Debug, Default)]
pub struct Writer {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its descriptors, each once.
    pub fds: Vec<Arc<Fd>>,
}

/// A message that is being read.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    fds: &'a [Arc<Fd>],
    used: Vec<bool>,
}

impl<'a> Reader<'a> {
    /// Starts to read.
    pub fn new(bytes: &'a [u8], fds: &'a [Arc<Fd>]) -> Reader<'a> {
        Reader { bytes, fds, used: vec![false; fds.len()] }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.bytes.split_at_checked(n).ok_or(Malformed("too short"))?;
        self.bytes = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed("too short"))
    }

    /// Checks that nothing is left over.
    pub fn end(self) -> Result<(), Malformed> {
        match (self.bytes.is_empty(), self.used.iter().all(|u| *u)) {
            (false, _) => Err(Malformed("too long")),
            (_, false) => Err(Malformed("descriptors that nothing refers to")),
            _ => Ok(()),
        }
    }
}

/// A value that can travel.
pub trait Wire: Sized {
    /// Writes it.
    fn put(&self, to: &mut Writer);
    /// Reads one.
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed>;
}

macro_rules! numbers {
    ($($number:ty)*) => { $(
        impl Wire for $number {
            fn put(&self, to: &mut Writer) {
                to.bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                from.array().map(<$number>::from_le_bytes)
            }
        }
    )* };
}
numbers!(u8 u16 u32 u64 i32);

/// A structure whose public fields all travel, in the order given.
macro_rules! wire_struct {
    ($($name:ident { $($field:ident),* $(,)? })*) => { $(
        impl $crate::proto::wire::Wire for $name {
            fn put(&self, to: &mut $crate::proto::wire::Writer) {
                let $name { $($field),* } = self;
                $($crate::proto::wire::Wire::put($field, to);)*
            }
            fn take(from: &mut $crate::proto::wire::Reader<'_>) -> Result<Self, $crate::proto::wire::Malformed> {
                Ok($name { $($field: $crate::proto::wire::Wire::take(from)?),* })
            }
        }
    )* };
}

/// An enumeration: the number of the variant, then what it holds.
macro_rules! wire_enum {
    ($($name:ident {
        $($number:literal => $variant:ident $(($held:ident))? $({ $($field:ident),* })?),* $(,)?
    })*) => { $(
        impl $crate::proto::wire::Wire for $name {
            fn put(&self, to: &mut $crate::proto::wire::Writer) {
                match self { $(
                    $name::$variant $(($held))? $({ $($field),* })? => {
                        to.bytes.push($number);
                        $($crate::proto::wire::Wire::put($held, to);)?
                        $($($crate::proto::wire::Wire::put($field, to);)*)?
                    }
                )* }
            }
            fn take(from: &mut $crate::proto::wire::Reader<'_>) -> Result<Self, $crate::proto::wire::Malformed> {
                Ok(match <u8 as $crate::proto::wire::Wire>::take(from)? {
                    $($number => $name::$variant
                        $(({ let $held = $crate::proto::wire::Wire::take(from)?; $held }))?
                        $({ $($field: $crate::proto::wire::Wire::take(from)?),* })?,)*
                    _ => return Err($crate::proto::wire::Malformed(concat!("no such ", stringify!($name)))),
                })
            }
        }
    )* };
}
pub(super) use {wire_enum, wire_struct};

impl Wire for bool {
    fn put(&self, to: &mut Writer) {
        to.bytes.push((*self).into());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::take(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("neither yes nor no")),
        }
    }
}

impl Wire for Errno {
    fn put(&self, to: &mut Writer) {
        self.0.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        i32::take(from).map(Errno)
    }
}

impl Wire for Duration {
    fn put(&self, to: &mut Writer) {
        u64::try_from(self.as_nanos()).unwrap_or(u64::MAX).put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        u64::take(from).map(Duration::from_nanos)
    }
}

/// Cut at [`LONGEST_TEXT`] bytes when written, since it is for people.
impl Wire for String {
    fn put(&self, to: &mut Writer) {
        let text = &self[..self.floor_char_boundary(LONGEST_TEXT)];
        (text.len() as u32).put(to);
        to.bytes.extend_from_slice(text.as_bytes());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let len = u32::take(from)? as usize;
        if len > LONGEST_TEXT {
            return Err(Malformed("a text that is too long"));
        }
        String::from_utf8(from.take(len)?.to_vec()).map_err(|_| Malformed("a text that is none"))
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, to: &mut Writer) {
        self.0.put(to);
        self.1.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

impl<A: Wire, B: Wire, C: Wire> Wire for (A, B, C) {
    fn put(&self, to: &mut Writer) {
        self.0.put(to);
        self.1.put(to);
        self.2.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok((A::take(from)?, B::take(from)?, C::take(from)?))
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, to: &mut Writer) {
        self.is_some().put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        bool::take(from)?.then(|| T::take(from)).transpose()
    }
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn put(&self, to: &mut Writer) {
        self.is_ok().put(to);
        match self {
            Ok(value) => value.put(to),
            Err(error) => error.put(to),
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if bool::take(from)? { T::take(from).map(Ok) } else { E::take(from).map(Err) }
    }
}

/// As many as the bytes give: every element takes one at least, so a message bounds its own list.
impl<T: Wire> Wire for Vec<T> {
    fn put(&self, to: &mut Writer) {
        (self.len() as u32).put(to);
        self.iter().for_each(|value| value.put(to));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let n = u32::take(from)? as usize;
        if n > from.bytes.len() {
            return Err(Malformed("a list longer than the message"));
        }
        let mut all = Vec::new();
        for _ in 0..n {
            all.push(T::take(from)?);
        }
        Ok(all)
    }
}

impl<T: Wire> Wire for Range<T> {
    fn put(&self, to: &mut Writer) {
        self.start.put(to);
        self.end.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(T::take(from)?..T::take(from)?)
    }
}

impl<const N: usize> Wire for Box<[u8; N]> {
    fn put(&self, to: &mut Writer) {
        to.bytes.extend_from_slice(&**self);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.array().map(Box::new)
    }
}

/// A descriptor: its place in the list. The same one twice travels once.
impl Wire for Arc<Fd> {
    fn put(&self, to: &mut Writer) {
        let known = to.fds.iter().position(|fd| Arc::ptr_eq(fd, self));
        let at = known.unwrap_or_else(|| {
            to.fds.push(self.clone());
            to.fds.len() - 1
        });
        (at as u32).put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let at = u32::take(from)? as usize;
        let fd = from.fds.get(at).ok_or(Malformed("a descriptor that did not come"))?;
        from.used[at] = true;
        Ok(fd.clone())
    }
}
