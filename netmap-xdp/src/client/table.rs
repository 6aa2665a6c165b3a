//! Tables from descriptor numbers to what they stand for. Readers take no lock; an entry that is closed while a reader works
//! on it lives until the reader is done.

use super::binding::Binding;
use arc_swap::{ArcSwapOption, Guard};
use std::os::fd::RawFd;
use std::sync::{Arc, OnceLock};

const LEAF: usize = 1024;
const LEAVES: usize = 1024;

type Leaf<T> = Box<[ArcSwapOption<T>]>;

/// A table of its own.
pub struct Table<T: 'static>([OnceLock<Leaf<T>>; LEAVES]);

/// Netmap descriptors.
static BINDINGS: Table<Binding> = Table::new();

/// An entry, held while it is used.
pub struct Entry<T = Binding>(Option<Guard<Option<Arc<T>>>>);

impl<T> Entry<T> {
    /// What the number stands for.
    #[inline]
    pub fn as_ref(&self) -> Option<&Arc<T>> {
        self.0.as_ref()?.as_ref()
    }

    /// Whether there is one.
    #[inline]
    pub fn is_some(&self) -> bool {
        self.as_ref().is_some()
    }
}

impl<T> Table<T> {
    /// An empty one.
    pub const fn new() -> Table<T> {
        Table([const { OnceLock::new() }; LEAVES])
    }

    #[inline]
    fn leaf(&self, fd: RawFd) -> Option<(&OnceLock<Leaf<T>>, usize)> {
        let n = usize::try_from(fd).ok()?;
        Some((self.0.get(n / LEAF)?, n % LEAF))
    }

    /// Looks `fd` up.
    #[inline]
    pub fn get(&self, fd: RawFd) -> Entry<T> {
        let cell = self.leaf(fd).and_then(|(leaf, i)| leaf.get()?.get(i));
        Entry(cell.map(ArcSwapOption::load))
    }

    /// Enters something for `fd`, or clears it; false if the number is beyond the table.
    pub fn set(&self, fd: RawFd, value: Option<Arc<T>>) -> bool {
        let Some((leaf, i)) = self.leaf(fd) else { return value.is_none() };
        if leaf.get().is_none() && value.is_none() {
            return true;
        }
        let cells = leaf.get_or_init(|| (0..LEAF).map(|_| ArcSwapOption::empty()).collect());
        cells[i].store(value);
        true
    }

    /// Clears the entry for `fd` and returns what was there.
    pub fn take(&self, fd: RawFd) -> Option<Arc<T>> {
        let (leaf, i) = self.leaf(fd)?;
        leaf.get()?[i].swap(None)
    }

    /// Numbers in `first..=last` that have an entry.
    pub fn numbers(&self, first: u32, last: u32) -> Vec<RawFd> {
        let (first, last) = (first as usize, (last as usize).min(LEAF * LEAVES - 1));
        let mut found = Vec::new();
        for (l, leaf) in self.0.iter().enumerate().take(last / LEAF + 1).skip(first / LEAF) {
            for (i, cell) in leaf.get().into_iter().flatten().enumerate() {
                let n = l * LEAF + i;
                if (first..=last).contains(&n) && cell.load().is_some() {
                    found.push(n as RawFd);
                }
            }
        }
        found
    }
}

/// The netmap descriptor `fd`.
#[inline]
pub fn get(fd: RawFd) -> Entry {
    BINDINGS.get(fd)
}

/// Enters `binding` for `fd`, or clears it; false if the number is beyond the table.
pub fn set(fd: RawFd, binding: Option<Arc<Binding>>) -> bool {
    BINDINGS.set(fd, binding)
}

/// Clears the entry for `fd` and returns what was there.
pub fn take(fd: RawFd) -> Option<Arc<Binding>> {
    BINDINGS.take(fd)
}

/// Whether any number still stands for `binding`.
pub fn holds(binding: &Arc<Binding>) -> bool {
    let cells = BINDINGS.0.iter().filter_map(OnceLock::get).flatten();
    cells.filter_map(ArcSwapOption::load_full).any(|b| Arc::ptr_eq(&b, binding))
}

/// Numbers in `first..=last` that are netmap's.
pub fn numbers(first: u32, last: u32) -> Vec<RawFd> {
    BINDINGS.numbers(first, last)
}

/// Numbers whose entry is `binding`.
pub fn numbers_of(binding: &Binding) -> Vec<RawFd> {
    find(|b| std::ptr::eq(&raw const **b, binding)).map(|(fd, _)| fd).collect()
}

/// The entry of the first number whose binding is as `wanted`.
pub fn find_binding(wanted: impl Fn(&Arc<Binding>) -> bool) -> Option<Arc<Binding>> {
    find(wanted).next().map(|(_, binding)| binding)
}

fn find(wanted: impl Fn(&Arc<Binding>) -> bool) -> impl Iterator<Item = (RawFd, Arc<Binding>)> {
    numbers(0, u32::MAX).into_iter().filter_map(move |fd| {
        let entry = get(fd);
        let binding = entry.as_ref().filter(|b| wanted(b))?;
        Some((fd, binding.clone()))
    })
}
