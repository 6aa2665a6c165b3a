//! The table from descriptor numbers to bindings. Readers take no lock; an entry that is closed while a reader works on it
//! lives until the reader is done.

use super::binding::Binding;
use arc_swap::{ArcSwapOption, Guard};
use std::os::fd::RawFd;
use std::sync::{Arc, OnceLock};

const LEAF: usize = 1024;
const LEAVES: usize = 1024;

type Leaf = Box<[ArcSwapOption<Binding>]>;

static TABLE: [OnceLock<Leaf>; LEAVES] = [const { OnceLock::new() }; LEAVES];

fn leaf(fd: RawFd) -> Option<(&'static OnceLock<Leaf>, usize)> {
    let n = usize::try_from(fd).ok()?;
    Some((TABLE.get(n / LEAF)?, n % LEAF))
}

/// An entry, held while it is used.
pub struct Entry(Option<Guard<Option<Arc<Binding>>>>);

impl Entry {
    /// The binding.
    #[inline]
    pub fn as_ref(&self) -> Option<&Arc<Binding>> {
        self.0.as_ref()?.as_ref()
    }

    /// Whether there is one.
    #[inline]
    pub fn is_some(&self) -> bool {
        self.as_ref().is_some()
    }
}

/// Looks `fd` up.
#[inline]
pub fn get(fd: RawFd) -> Entry {
    let cell = leaf(fd).and_then(|(leaf, i)| leaf.get()?.get(i));
    Entry(cell.map(ArcSwapOption::load))
}

/// Enters `binding` for `fd`, or clears it; false if the number is beyond the table.
pub fn set(fd: RawFd, binding: Option<Arc<Binding>>) -> bool {
    let Some((leaf, i)) = leaf(fd) else { return binding.is_none() };
    if leaf.get().is_none() && binding.is_none() {
        return true;
    }
    let cells = leaf.get_or_init(|| (0..LEAF).map(|_| ArcSwapOption::empty()).collect());
    cells[i].store(binding);
    true
}

/// Clears the entry for `fd` and returns what was there.
pub fn take(fd: RawFd) -> Option<Arc<Binding>> {
    let (leaf, i) = leaf(fd)?;
    leaf.get()?[i].swap(None)
}

/// Whether any number still stands for `binding`.
pub fn holds(binding: &Arc<Binding>) -> bool {
    let cells = TABLE.iter().filter_map(OnceLock::get).flatten();
    cells.filter_map(ArcSwapOption::load_full).any(|b| Arc::ptr_eq(&b, binding))
}

/// Numbers in `first..=last` that have an entry.
pub fn numbers(first: u32, last: u32) -> Vec<RawFd> {
    let (first, last) = (first as usize, (last as usize).min(LEAF * LEAVES - 1));
    let mut found = Vec::new();
    for (l, leaf) in TABLE.iter().enumerate().take(last / LEAF + 1).skip(first / LEAF) {
        for (i, cell) in leaf.get().into_iter().flatten().enumerate() {
            let n = l * LEAF + i;
            if (first..=last).contains(&n) && cell.load().is_some() {
                found.push(n as RawFd);
            }
        }
    }
    found
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
