//! Views of shared mappings.

use crate::sync::{AtomicI64, AtomicU16, AtomicU32, AtomicU64};
use crate::sys::{Errno, Map};
use std::marker::PhantomData;
use std::mem::{align_of, size_of};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;

/// A type that may lie in memory that others write at any time.
///
/// # Safety
/// `repr(C)`, consists of atomics only (or arrays of them, or bytes that are never read), and every bit pattern is valid.
pub unsafe trait Shared {}

// SAFETY: an atomic integer; any bits are valid.
unsafe impl Shared for AtomicU16 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}
// SAFETY: as above.
unsafe impl Shared for AtomicI64 {}
// SAFETY: atomics side by side.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// Declares a `repr(C)` structure whose fields are all [`Shared`], and which therefore is too.
#[macro_export]
#[doc(hidden)]
macro_rules! shared_struct {
    ($(#[$doc:meta])* pub struct $name:ident { $( $(#[$field_doc:meta])* $vis:vis $field:ident: $t:ty, )* }) => {
        #[repr(C)]
        $(#[$doc])*
        pub struct $name { $( $(#[$field_doc])* $vis $field: $t, )* }

        const _: fn() = || {
            fn only_shared<T: $crate::shm::Shared>() {}
            $( only_shared::<$t>(); )*
        };
        $crate::shm::declare_shared!($name);
    };
}

/// The `unsafe` of [`shared_struct`], kept in this module.
#[macro_export]
#[doc(hidden)]
macro_rules! declare_shared {
    ($name:ident) => {
        #[allow(unsafe_code, reason = "stands in shm, where it is checked")]
        // SAFETY: repr(C), and `shared_struct` has checked that every field is Shared.
        unsafe impl $crate::shm::Shared for $name {}
    };
}
pub use {declare_shared, shared_struct};

/// An offset or a count that leaves the mapping, or is misaligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at offset {offset} do not lie in {size} bytes of shared memory")]
pub struct OutOfRange {
    /// Where.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// Size of the mapping.
    pub size: u64,
}

/// A shared mapping of a descriptor.
#[derive(Debug)]
pub struct Memory {
    map: Map,
}

impl Memory {
    /// Maps `len` bytes of `fd` from `offset`.
    pub fn map(fd: &impl AsRawFd, len: usize, offset: u64, populate: bool) -> Result<Arc<Memory>, Errno> {
        Ok(Arc::new(Memory { map: Map::shared(fd, len, offset, populate)? }))
    }

    /// Memory of the program, in its place; see [`Map::borrowed`] for what is trusted. Other threads of the program write
    /// it, which the views allow for. `EFAULT`.
    pub fn of_program(addr: u64, len: usize) -> Result<Arc<Memory>, Errno> {
        let addr = usize::try_from(addr).map_err(|_| Errno(libc::EFAULT))?;
        Ok(Arc::new(Memory { map: Map::borrowed(addr, len)? }))
    }

    /// `len` bytes of a file of a program's from `offset`; see [`Map::of_file`].
    pub fn of_file(fd: &impl AsRawFd, offset: u64, len: usize, guarded: bool) -> Result<Arc<Memory>, Errno> {
        Ok(Arc::new(Memory { map: Map::of_file(fd, offset, len, guarded)? }))
    }

    /// Makes the pages of a range present, see [`Map::populate`].
    pub fn populate(&self, range: std::ops::Range<usize>) {
        self.map.populate(range);
    }

    /// Whether pages of a guarded mapping vanished.
    pub fn broken(&self) -> bool {
        self.map.broken()
    }

    /// A second mapping of shared memory of the program, which stays when the program unmaps its own.
    pub fn shared_with_program(addr: u64, len: usize) -> Result<Arc<Memory>, Errno> {
        let addr = usize::try_from(addr).map_err(|_| Errno(libc::EFAULT))?;
        Ok(Arc::new(Memory { map: Map::second(addr, len)? }))
    }

    /// Length in bytes.
    pub fn size(&self) -> usize {
        self.map.len()
    }

    /// Address of the first byte in this process.
    pub fn address(&self) -> usize {
        self.map.addr().as_ptr() as usize
    }

    #[inline]
    pub(super) fn locate<T>(&self, offset: u64, count: usize) -> Result<NonNull<T>, OutOfRange> {
        let bytes = size_of::<T>() as u64 * count as u64;
        let bad = OutOfRange { offset, len: bytes, size: self.map.len() as u64 };
        let end = offset.checked_add(bytes).ok_or(bad)?;
        let at = self.address() as u64 + offset;
        if end > self.map.len() as u64 || !at.is_multiple_of(align_of::<T>() as u64) {
            return Err(bad);
        }
        // SAFETY: offset is inside the mapping.
        Ok(unsafe { self.map.addr().add(offset as usize) }.cast())
    }

    /// One object at `offset`.
    pub fn object<T: Shared>(self: &Arc<Self>, offset: u64) -> Result<Ref<T>, OutOfRange> {
        Ok(Ref { at: self.locate(offset, 1)?, memory: self.clone(), marker: PhantomData })
    }

    /// `count` objects at `offset`.
    pub fn slice<T: Shared>(self: &Arc<Self>, offset: u64, count: usize) -> Result<Slice<T>, OutOfRange> {
        Ok(Slice { at: self.locate(offset, count)?, count, memory: self.clone(), marker: PhantomData })
    }

    /// Copies bytes out of the mapping.
    #[inline]
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfRange> {
        let at = self.locate::<u8>(offset, into.len())?;
        // SAFETY: the source lies in the mapping, the destination is a slice of its own. Others may write the source
        // meanwhile: the copy then holds a mixture of bytes, as a network card would leave it.
        unsafe { std::ptr::copy_nonoverlapping(at.as_ptr(), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies bytes into the mapping.
    #[inline]
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfRange> {
        let at = self.locate::<u8>(offset, from.len())?;
        // SAFETY: as in `read`, the other way.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), at.as_ptr(), from.len()) };
        Ok(())
    }

    /// Copies bytes to another mapping, or elsewhere in this one.
    #[inline]
    pub fn copy(&self, from: u64, to: &Memory, at: u64, len: usize) -> Result<(), OutOfRange> {
        let (from, at) = (self.locate::<u8>(from, len)?, to.locate::<u8>(at, len)?);
        // SAFETY: both ranges lie in their mappings; they may overlap.
        unsafe { std::ptr::copy(from.as_ptr(), at.as_ptr(), len) };
        Ok(())
    }

    /// Moves bytes within the mapping; the ranges may overlap.
    pub fn shift(&self, from: u64, to: u64, len: usize) -> Result<(), OutOfRange> {
        let (from, to) = (self.locate::<u8>(from, len)?, self.locate::<u8>(to, len)?);
        // SAFETY: both ranges lie in the mapping.
        unsafe { std::ptr::copy(from.as_ptr(), to.as_ptr(), len) };
        Ok(())
    }
}

/// A shared object; keeps its mapping alive.
pub struct Ref<T: Shared> {
    at: NonNull<T>,
    memory: Arc<Memory>,
    marker: PhantomData<T>,
}

// SAFETY: `T` consists of atomics (the contract of `Shared`), and the mapping belongs to the process.
unsafe impl<T: Shared> Send for Ref<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Ref<T> {}

impl<T: Shared> Clone for Ref<T> {
    fn clone(&self) -> Self {
        Ref { at: self.at, memory: self.memory.clone(), marker: PhantomData }
    }
}

impl<T: Shared> Deref for Ref<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `at` was checked against the mapping, which `memory` keeps; `T` tolerates concurrent writes.
        unsafe { self.at.as_ref() }
    }
}

impl<T: Shared> Ref<T> {
    /// The mapping that it lies in.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

/// Shared objects side by side; keeps their mapping alive.
pub struct Slice<T: Shared> {
    at: NonNull<T>,
    count: usize,
    memory: Arc<Memory>,
    marker: PhantomData<T>,
}

// SAFETY: as for `Ref`.
unsafe impl<T: Shared> Send for Slice<T> {}
// SAFETY: as for `Ref`.
unsafe impl<T: Shared> Sync for Slice<T> {}

impl<T: Shared> Clone for Slice<T> {
    fn clone(&self) -> Self {
        Slice { at: self.at, count: self.count, memory: self.memory.clone(), marker: PhantomData }
    }
}

impl<T: Shared> Deref for Slice<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `count` objects at `at` were checked against the mapping, which `memory` keeps.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.count) }
    }
}

impl<T: Shared> Slice<T> {
    /// The mapping that it lies in.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Ordering;
    use crate::sys::sealed_memfd;

    fn memory(len: usize) -> Arc<Memory> {
        Memory::map(&sealed_memfd(c"test", len).unwrap(), len, 0, false).unwrap()
    }

    #[test]
    fn views_end_where_the_mapping_ends() {
        let m = memory(4096);
        assert!(m.object::<AtomicU64>(4088).is_ok());
        assert!(m.object::<AtomicU64>(4092).is_err(), "misaligned and past the end");
        assert!(m.object::<AtomicU32>(4096).is_err());
        assert!(m.object::<AtomicU32>(2).is_err(), "misaligned");
        assert!(m.object::<AtomicU32>(u64::MAX - 3).is_err(), "wraps around");
        assert!(m.slice::<AtomicU64>(8, 511).is_ok());
        assert!(m.slice::<AtomicU64>(8, 512).is_err());
        assert!(m.read(4000, &mut [0; 97]).is_err());
        assert!(m.shift(0, 4000, 97).is_err());
        assert!(m.copy(4000, &m, 0, 97).is_err() && m.copy(0, &memory(64), 0, 65).is_err());
    }

    #[test]
    fn two_mappings_of_one_memfd_see_each_other() {
        let fd = sealed_memfd(c"test", 4096).unwrap();
        let (a, b) = (Memory::map(&fd, 4096, 0, false).unwrap(), Memory::map(&fd, 4096, 0, true).unwrap());
        a.object::<AtomicU32>(64).unwrap().store(7, Ordering::Relaxed);
        assert_eq!(b.slice::<AtomicU32>(60, 2).unwrap()[1].load(Ordering::Relaxed), 7);
        a.write(100, b"netmap").unwrap();
        let mut got = [0; 6];
        b.read(100, &mut got).unwrap();
        assert_eq!(&got, b"netmap");
    }

    #[test]
    fn a_view_outlives_the_handle_it_came_from() {
        let r = memory(4096).object::<AtomicU32>(0).unwrap();
        r.store(1, Ordering::Relaxed);
        assert_eq!(r.load(Ordering::Relaxed), 1);
    }
}
