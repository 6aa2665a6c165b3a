//! BPF maps that a loader has made, keyed by a 32-bit number: entries are set, deleted and read by system call, whatever
//! library loaded the object. The engine's thread calls this, never the data path.

use super::bpf::{bpf, object_info, words};
use crate::sys::{Errno, Fd};
use std::os::fd::{AsRawFd, RawFd};

const LOOKUP_ELEM: usize = 1;
const UPDATE_ELEM: usize = 2;
const DELETE_ELEM: usize = 3;
const PERCPU_ARRAY: u32 = 6;

/// A map, and how large its entries are.
pub struct Map {
    fd: Fd,
    /// Bytes that the kernel copies for one entry: for one CPU after the other in a per-CPU map.
    value_size: usize,
    copies: usize,
    entries: u32,
}

impl Map {
    /// Asks the kernel for the sizes. `EINVAL`: keys are no 32-bit numbers.
    pub fn new(fd: Fd) -> Result<Map, Errno> {
        // The head of `struct bpf_map_info`: type, id, sizes of key and value, entries.
        let mut info = [0u32; 5];
        object_info(fd.as_raw_fd(), &mut info)?;
        let [kind, _, key_size, value_size, entries] = info;
        if key_size != 4 {
            return Err(Errno(libc::EINVAL));
        }
        let copies = if kind == PERCPU_ARRAY { possible_cpus().ok_or(Errno(libc::ENOENT))? } else { 1 };
        Ok(Map { fd, value_size: value_size as usize, copies, entries })
    }

    /// Entries that it may have.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    fn attr(&self, key: &u32, value: *const u8) -> [u32; 8] {
        let ([k0, k1], [v0, v1]) = (words(std::ptr::from_ref(key) as u64), words(value as u64));
        [self.fd.as_raw_fd() as u32, 0, k0, k1, v0, v1, 0, 0]
    }

    /// Sets an entry. `EINVAL`: the value has another size; otherwise what the map says.
    pub fn set(&self, key: u32, value: &[u8]) -> Result<(), Errno> {
        if value.len() != self.value_size || self.copies != 1 {
            return Err(Errno(libc::EINVAL));
        }
        // SAFETY: the kernel reads a key of four bytes and a value of the size just checked.
        unsafe { bpf(UPDATE_ELEM, &mut self.attr(&key, value.as_ptr())).map(drop) }
    }

    /// Deletes an entry. `ENOENT`: there is none.
    pub fn delete(&self, key: u32) -> Result<(), Errno> {
        // SAFETY: the kernel reads a key of four bytes.
        unsafe { bpf(DELETE_ELEM, &mut self.attr(&key, std::ptr::null())).map(drop) }
    }

    /// An entry: of a per-CPU map one value after the other, each a multiple of eight bytes.
    pub fn get(&self, key: u32) -> Result<Vec<u64>, Errno> {
        let mut value = vec![0u64; self.value_size.div_ceil(8) * self.copies];
        // SAFETY: the kernel reads a key of four bytes and writes as many values as there may be CPUs, each rounded up to
        // eight bytes, for which there is room.
        unsafe { bpf(LOOKUP_ELEM, &mut self.attr(&key, value.as_mut_ptr().cast())) }?;
        Ok(value)
    }
}

impl AsRawFd for Map {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// At least as many CPUs as the machine may ever have.
fn possible_cpus() -> Option<usize> {
    last_cpu(&std::fs::read_to_string("/sys/devices/system/cpu/possible").ok()?).map(|last| last + 1)
}

/// The last of a list like `0-3,8-11`.
fn last_cpu(list: &str) -> Option<usize> {
    list.trim().rsplit([',', '-']).next()?.parse().ok().filter(|&n: &usize| n < 1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        for (list, last) in [("0\n", Some(0)), ("0-3\n", Some(3)), ("0,2-7,9\n", Some(9)), ("", None), ("x-y", None)] {
            assert_eq!(last_cpu(list), last, "{list:?}");
        }
    }
}
