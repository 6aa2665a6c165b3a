//! External memory (`NETMAP_REQ_OPT_EXTMEM`): shared memory of the program as a region.
//!
//! The original pins the pages; here a second mapping of the same memory does the same: it stays when the program unmaps its
//! own, and it is what the kernel gets as UMEM. That needs one shared mapping (a file, hugepages, or `MAP_SHARED |
//! MAP_ANONYMOUS`): private pages cannot be mapped twice. Two registrations of the same memory meet in one region, as with the
//! original. The program uses its own pointer; `mmap` of the descriptor is refused.

use super::Engine;
use super::region::Region;
use crate::ctl::{Condition, Extmem, Failure, Pool, Pools};
use crate::shm::{BUF_SIZE, FRAME_SHIFT, Layout, Memory};
use crate::sys::{Errno, Error, PAGE, SharedFile, shared_mapping};

/// Ids of these regions start here, apart from those of switch ports.
const FIRST_ID: u16 = 0x8000;
/// Bounds and defaults of the pools: `nm_blueprint`, `netmap_min_priv_params`. Buffers have one size here.
const INTERFACES: Bounds = Bounds { size: 56..=4096, count: 1..=100, default: (1024, 2) };
const RINGS: Bounds = Bounds { size: 256..=32 * 4096, count: 2..=1024, default: (5 * 4096, 4) };
const BUFFERS: Bounds = Bounds { size: BUF_SIZE..=BUF_SIZE, count: 4..=1_000_000, default: (BUF_SIZE, 4098) };

struct Bounds {
    size: std::ops::RangeInclusive<u32>,
    count: std::ops::RangeInclusive<u32>,
    default: (u32, u32),
}

/// Which memory a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    file: SharedFile,
    len: u64,
}

fn pool(asked: Pool, bounds: &Bounds, what: &str) -> Result<Pool, Failure> {
    let size = if asked.size == 0 { bounds.default.0 } else { asked.size };
    let count = if asked.count == 0 { bounds.default.1 } else { asked.count };
    for (n, range, of) in [(size, &bounds.size, "bytes in one"), (count, &bounds.count, "of them")] {
        if !range.contains(&n) {
            let (least, most) = (range.start(), range.end());
            return Err(Condition::ExtmemSizes.says(format!("{what}: {n} {of}; {least} to {most} are served")));
        }
    }
    Ok(Pool { size, count, ..asked })
}

/// The pools with what was left open filled in, and how they lie in memory: objects from the start, then buffers, as many as
/// fit.
fn plan(asked: &Pools) -> Result<(Pools, Layout), Failure> {
    let pools = Pools {
        interfaces: pool(asked.interfaces, &INTERFACES, "interfaces")?,
        rings: pool(asked.rings, &RINGS, "rings")?,
        buffers: pool(asked.buffers, &BUFFERS, "buffers")?,
        ..*asked
    };
    let bytes = |p: &Pool| (u64::from(p.size) * u64::from(p.count)).next_multiple_of(PAGE as u64);
    let meta = bytes(&pools.interfaces) + bytes(&pools.rings);
    let size = asked.memsize / PAGE as u64 * PAGE as u64;
    let room = size.checked_sub(meta + u64::from(FRAME_SHIFT)).map_or(0, |n| n / u64::from(BUF_SIZE));
    let buffers = room.min(pools.buffers.count.into()) as u32;
    if buffers < *BUFFERS.count.start() {
        let enough = meta + bytes(&pools.buffers) + PAGE as u64;
        let message = format!("{} bytes are too few for these pools; {enough} hold them", asked.memsize);
        return Err(Condition::ExtmemTooSmall.says(message));
    }
    Ok((pools, Layout { meta, pool: meta, buffers, size }))
}

impl Engine {
    /// Makes a region of memory of the program, or finds the one that is made of it: its id, and its pools as the program is
    /// told. It goes with its last port, or by [`Engine::drop_idle`] if it gets none.
    ///
    /// Errors: `EFAULT` nothing is mapped there; `EOPNOTSUPP` not one shared mapping, or not page aligned; `EINVAL`, `ENOMEM`
    /// for sizes.
    pub fn extmem(&mut self, extmem: &Extmem) -> Result<(u16, Pools), Failure> {
        let (mut pools, layout) = plan(&extmem.pools)?;
        let not_shared = || {
            let message = format!(
                "{} bytes at {:#x} are not one shared, writable mapping: map them with MAP_SHARED (a file, hugepages, \
                 MAP_ANONYMOUS)",
                layout.size, extmem.address
            );
            Condition::ExtmemShared.says(message)
        };
        if !extmem.address.is_multiple_of(PAGE as u64) {
            return Err(not_shared());
        }
        let file = shared_mapping(extmem.address, layout.size).map_err(|e| match e {
            Errno(libc::EFAULT) => Condition::ExtmemAddress.says(format!("nothing is mapped at {:#x}", extmem.address)),
            Errno(libc::EINVAL) => not_shared(),
            e => Failure::system(&Error::new("read", "/proc/self/maps", e)),
        })?;
        let source = Source { file, len: layout.size };
        let known = self.regions.values().find(|r| r.source() == Some(source)).map(|r| r.id);
        let id = match known {
            Some(id) => id,
            None => {
                let free = (FIRST_ID..=u16::MAX).find(|id| !self.regions.contains_key(id));
                let id = free.ok_or_else(|| Condition::System.says("too many regions"))?;
                let memory = Memory::shared_with_program(extmem.address, layout.size as usize);
                let memory = memory.map_err(|_| not_shared())?;
                self.regions.insert(id, Region::of_program(id, memory, layout, source)?);
                id
            }
        };
        pools.mem_id = extmem.pools.mem_id;
        Ok((id, pools))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_that_were_left_open_get_the_originals_sizes() {
        let (pools, layout) = plan(&Pools { memsize: 16 << 20, ..Pools::default() }).unwrap();
        assert_eq!((pools.interfaces.count, pools.rings.size, pools.buffers.count), (2, 20480, 4098));
        assert_eq!((layout.meta, layout.buffers), (4096 + 81920, 4098));
        assert!(layout.buffer(layout.buffers - 1) + 2048 <= layout.size);
    }

    #[test]
    fn as_many_buffers_as_fit_and_too_little_memory_is_refused() {
        let (_, layout) = plan(&Pools { memsize: 1 << 20, ..Pools::default() }).unwrap();
        assert!(layout.buffers > 400 && layout.buffer(layout.buffers) <= layout.size);
        assert_eq!(plan(&Pools { memsize: 4096, ..Pools::default() }).unwrap_err().errno, Errno(libc::ENOMEM));
        assert_eq!(plan(&Pools::default()).unwrap_err().errno, Errno(libc::ENOMEM));
    }

    #[test]
    fn objects_out_of_bounds_are_refused() {
        let big = Pool { size: 1 << 20, ..Pool::default() };
        let odd = Pool { size: 2000, ..Pool::default() };
        let base = Pools { memsize: 16 << 20, ..Pools::default() };
        for pools in [Pools { rings: big, ..base }, Pools { interfaces: big, ..base }, Pools { buffers: odd, ..base }] {
            assert_eq!(plan(&pools).unwrap_err().errno, Errno(libc::EINVAL));
        }
    }
}
