//! Which buffers of a region are free. Private to the engine; control path only.

use crate::abi::NETMAP_FIRST_BUF;

/// Why a buffer could not be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// No such buffer, or one of the two that are never given out.
    NoSuchBuffer(u32),
    /// It is free already.
    AlreadyFree(u32),
}

/// The free buffers of a region.
#[derive(Debug)]
pub struct BufPool {
    free: Vec<u32>,
    is_free: Vec<bool>,
}

impl BufPool {
    /// All of `total` buffers, but for the first two.
    pub fn new(total: u32) -> BufPool {
        let mut is_free = vec![true; total as usize];
        is_free.iter_mut().take(NETMAP_FIRST_BUF as usize).for_each(|f| *f = false);
        BufPool { free: (NETMAP_FIRST_BUF..total).rev().collect(), is_free }
    }

    /// How many are free.
    pub fn available(&self) -> u32 {
        self.free.len() as u32
    }

    /// How many could be free at most.
    pub fn usable(&self) -> u32 {
        (self.is_free.len() as u32).saturating_sub(NETMAP_FIRST_BUF)
    }

    /// Which are free; the first two, which are never given out, count as such.
    pub fn free_map(&self) -> Vec<bool> {
        let mut map = self.is_free.clone();
        map.iter_mut().take(NETMAP_FIRST_BUF as usize).for_each(|f| *f = true);
        map
    }

    /// Takes one, lowest first while nothing has been given back.
    pub fn alloc(&mut self) -> Option<u32> {
        let i = self.free.pop()?;
        self.is_free[i as usize] = false;
        Some(i)
    }

    /// Gives one back.
    pub fn free(&mut self, i: u32) -> Result<(), FreeError> {
        match self.is_free.get_mut(i as usize) {
            Some(free) if i >= NETMAP_FIRST_BUF => {
                if *free {
                    return Err(FreeError::AlreadyFree(i));
                }
                *free = true;
                self.free.push(i);
                Ok(())
            }
            _ => Err(FreeError::NoSuchBuffer(i)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_buffer_is_given_out_once_and_never_the_first_two() {
        let mut p = BufPool::new(10);
        let mut got: Vec<u32> = std::iter::from_fn(|| p.alloc()).collect();
        got.sort_unstable();
        assert_eq!(got, (2..10).collect::<Vec<_>>());
        assert_eq!(p.usable(), 8);
        for i in got {
            p.free(i).unwrap();
        }
        assert_eq!(p.available(), 8);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut p = BufPool::new(4);
        let i = p.alloc().unwrap();
        assert_eq!(p.free(0), Err(FreeError::NoSuchBuffer(0)));
        assert_eq!(p.free(1), Err(FreeError::NoSuchBuffer(1)));
        assert_eq!(p.free(4), Err(FreeError::NoSuchBuffer(4)));
        assert_eq!(p.free(u32::MAX), Err(FreeError::NoSuchBuffer(u32::MAX)));
        p.free(i).unwrap();
        assert_eq!(p.free(i), Err(FreeError::AlreadyFree(i)));
    }
}
