//! External memory (`NETMAP_REQ_OPT_EXTMEM`): shared memory of the program as a region.
//!
//! The original pins the pages; here a second mapping of the same memory does the same: it stays when the program unmaps its
//! own, and it is what the kernel gets as UMEM. Two registrations of the same memory meet in one region, as with the original.
//! The program uses its own pointer; `mmap` of the descriptor is refused.
//!
//! Whoever finds the memory (`client::extmem`) passes the file that it is of, which works in any process. Memory whose file
//! cannot be had is mapped a second time in place, if the engine is in the same process.

use super::region::Region;
use super::{Engine, Grant};
use crate::ctl::{Condition, Failure, Pool, Pools, Register};
use crate::shm::{FRAME_SHIFT, Layout, Memory};
use crate::sys::{BUF_ALIGN, BUF_SIZE, BUF_SIZES, Errno, Error, Fd, PAGE, SharedFile};
use std::sync::Arc;

/// Ids of these regions start here, apart from those of switch ports.
const FIRST_ID: u16 = 0x8000;
/// Bounds and defaults of the pools: `nm_blueprint`, `netmap_min_priv_params`. Buffers are rounded up to whole cache lines, and
/// those that NICs are to use have fewer sizes to choose from (`NicPort::start`).
const INTERFACES: Bounds = Bounds { size: 56..=4096, count: 1..=100, default: (1024, 2) };
const RINGS: Bounds = Bounds { size: 256..=32 * 4096, count: 2..=1024, default: (5 * 4096, 4) };
const BUFFERS: Bounds = Bounds { size: BUF_SIZES, count: 4..=1_000_000, default: (BUF_SIZE, 4098) };

struct Bounds {
    size: std::ops::RangeInclusive<u32>,
    count: std::ops::RangeInclusive<u32>,
    default: (u32, u32),
}

/// Memory of a program, to be a region.
#[derive(Clone, Debug)]
pub enum ProgramMemory {
    /// A file.
    File {
        /// Open for reading and writing.
        fd: Arc<Fd>,
        /// Which it is, and where in it the memory starts.
        file: SharedFile,
        /// Whether it may be truncated by somebody who could harm the engine's process.
        guarded: bool,
    },
    /// A shared mapping of this process.
    Here {
        /// Where it starts.
        address: u64,
        /// What it maps.
        file: SharedFile,
    },
}

impl ProgramMemory {
    fn file(&self) -> SharedFile {
        match self {
            ProgramMemory::File { file, .. } | ProgramMemory::Here { file, .. } => *file,
        }
    }
}

/// Which memory a region is.
#[derive(Clone, Debug)]
pub struct Source {
    file: SharedFile,
    len: u64,
    /// The file, if there is one to pass on.
    pub fd: Option<Arc<Fd>>,
}

impl Source {
    /// Where in the file the region starts, bytes.
    pub fn offset(&self) -> u64 {
        self.file.offset
    }
}

/// What became of the options of a registration that the engine carries out; none that was not reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The pools that external memory was divided into.
    pub extmem: Option<Result<Pools, Errno>>,
    /// The largest offset that holds.
    pub offsets: Option<Result<u64, Errno>>,
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
    let buffers =
        Pool { size: asked.buffers.size.saturating_add(BUF_ALIGN - 1) / BUF_ALIGN * BUF_ALIGN, ..asked.buffers };
    let pools = Pools {
        interfaces: pool(asked.interfaces, &INTERFACES, "interfaces")?,
        rings: pool(asked.rings, &RINGS, "rings")?,
        buffers: pool(buffers, &BUFFERS, "buffers")?,
        ..*asked
    };
    let bytes = |p: &Pool| (u64::from(p.size) * u64::from(p.count)).next_multiple_of(PAGE as u64);
    let meta = bytes(&pools.interfaces) + bytes(&pools.rings);
    let whole = asked.memsize / PAGE as u64 * PAGE as u64;
    // What no object would lie in is not mapped: a file may be said to be of any size.
    let size = whole.min(meta + bytes(&pools.buffers) + PAGE as u64);
    let room = size.checked_sub(meta + u64::from(FRAME_SHIFT)).map_or(0, |n| n / u64::from(pools.buffers.size));
    let buffers = room.min(pools.buffers.count.into()) as u32;
    if buffers < *BUFFERS.count.start() {
        let enough = meta + bytes(&pools.buffers) + PAGE as u64;
        let message = format!("{} bytes are too few for these pools; {enough} hold them", asked.memsize);
        return Err(Condition::ExtmemTooSmall.says(message));
    }
    Ok((pools, Layout { meta, pool: meta, buffers, buf_size: pools.buffers.size, size }))
}

impl Engine {
    /// Binds, in memory of the program and with offsets if options say so; nothing of it stays when it fails.
    pub fn register_with(
        &mut self,
        register: &Register,
        memory: Option<ProgramMemory>,
        answers: &mut Answers,
    ) -> Result<Grant, Failure> {
        let mut mem_id = register.mem_id;
        if let Some(extmem) = &register.options.extmem {
            let region = match memory {
                Some(memory) => self.extmem(&extmem.pools, memory),
                None => Err(Condition::ExtmemShared.says("external memory did not come with the request")),
            };
            answers.extmem = Some(region.as_ref().map(|r| r.1).map_err(|e| e.errno));
            mem_id = region?.0;
        }
        let grant = self.register(&Register { mem_id, ..register.clone() }).inspect_err(|_| self.drop_idle())?;
        if let Some(offsets) = &register.options.offsets {
            let done = self.offsets(grant.id, register.flags, offsets);
            answers.offsets = Some(done.as_ref().map(|&max| max).map_err(|e| e.errno));
            if let Err(e) = done {
                let id = grant.id;
                drop(grant);
                self.release(id);
                return Err(e);
            }
        }
        Ok(grant)
    }

    /// Makes a region of memory of a program, or finds the one that is made of it: its id, and its pools as the program is
    /// told. It goes with its last port, or by [`Engine::drop_idle`] if it gets none.
    fn extmem(&mut self, asked: &Pools, memory: ProgramMemory) -> Result<(u16, Pools), Failure> {
        let (mut pools, layout) = plan(asked)?;
        let (file, len) = (memory.file(), layout.size);
        let same = |s: &Source| s.file == file && s.len == len;
        let known = self.regions.values().find(|r| r.source().is_some_and(same)).map(|r| r.id);
        let id = match known {
            Some(id) => id,
            None => {
                let free = (FIRST_ID..=u16::MAX).find(|id| !self.regions.contains_key(id));
                let id = free.ok_or_else(|| Condition::System.says("too many regions"))?;
                let failed = |e| match e {
                    Errno(libc::EINVAL | libc::EACCES | libc::EPERM | libc::ENODEV) => not_shared(asked),
                    e => Failure::system(&Error::new("mmap", "memory of the program", e)),
                };
                let (memory, fd) = match memory {
                    ProgramMemory::File { fd, file, guarded } => {
                        (Memory::of_file(&*fd, file.offset, len as usize, guarded).map_err(failed)?, Some(fd))
                    }
                    ProgramMemory::Here { address, .. } => {
                        (Memory::shared_with_program(address, len as usize).map_err(failed)?, None)
                    }
                };
                self.regions.insert(id, Region::of_program(id, memory, layout, Source { file, len, fd })?);
                id
            }
        };
        pools.mem_id = asked.mem_id;
        Ok((id, pools))
    }
}

/// Refuses memory that cannot be shared.
pub fn not_shared(pools: &Pools) -> Failure {
    let message = format!(
        "the {} bytes of external memory are neither one shared, writable mapping (a file, hugepages, a memfd) nor anonymous \
         memory, in whole pages",
        pools.memsize
    );
    Condition::ExtmemShared.says(message)
}

/// Bytes of external memory that a request is about, whole pages, if its sizes are sound.
pub fn extmem_size(asked: &Pools) -> Result<u64, Failure> {
    plan(asked).map(|(_, layout)| layout.size)
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
    fn buffers_have_the_size_that_was_asked_for_in_whole_cache_lines() {
        for (asked, given) in [(1, 64), (2000, 2048), (2048, 2048), (4096, 4096), (9000, 9024), (65536, 65536)] {
            let buffers = Pool { size: asked, ..Pool::default() };
            let (pools, layout) = plan(&Pools { memsize: 16 << 20, buffers, ..Pools::default() }).unwrap();
            assert_eq!((pools.buffers.size, layout.buf_size), (given, given));
            assert!(layout.buffers > 100 && layout.buffer(layout.buffers) <= layout.size, "{asked}");
        }
    }

    #[test]
    fn objects_out_of_bounds_are_refused() {
        let big = Pool { size: 1 << 20, ..Pool::default() };
        let huge = Pool { size: 65537, ..Pool::default() };
        let base = Pools { memsize: 16 << 20, ..Pools::default() };
        for pools in [Pools { rings: big, ..base }, Pools { interfaces: big, ..base }, Pools { buffers: huge, ..base }]
        {
            assert_eq!(plan(&pools).unwrap_err().errno, Errno(libc::EINVAL));
        }
    }
}
