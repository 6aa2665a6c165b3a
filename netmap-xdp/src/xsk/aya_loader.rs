//! The [`Loader`] of the embedded engine, by aya: no C library comes with it into other people's programs.
//!
//! aya reads the object, creates the maps and loads the program. Attaching is ours: aya's falls back to netlink, and
//! what is attached so stays on the NIC after a kill. What is kept open is moved to high descriptor numbers, out of the
//! way of the program whose process this is, and declared internal, so that a program that closes what it does not know
//! leaves it alone.

use super::program::{
    AttachError, AttachMode, Circumstances, Inherited, Loader, Program, QueueCounters, explain, needs,
};
use crate::sys::netdev::{self, bpf};
use crate::sys::{Errno, Error, Fd, Internal};
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfError, EbpfLoader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Compiled from `bpf/xdp_redirect.bpf.c` by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp_redirect.bpf.o"));

const PROGRAM: &str = "netmap_redirect";
const PROGRAM_BEFORE_5_18: &str = "netmap_nofrags";
const SOCKETS: &str = "xsks";
const VERDICTS: &str = "verdicts";
const INJECTED: &str = "injected";

/// Loads through aya.
pub(super) struct AyaLoader;

impl Loader for AyaLoader {
    fn load(&self, queues: u32) -> Result<Box<dyn Program>, Error> {
        if queues == 0 {
            return Err(Error::new("BPF_MAP_CREATE", "for an interface without queues", Errno(libc::EINVAL)));
        }
        // Asked first, since aya remembers for good what it could not probe without them.
        let missing = bpf::missing_capabilities();
        if !missing.is_empty() {
            return Err(Error::new("BPF_PROG_LOAD", format!("({})", needs(&missing)), Errno(libc::EPERM)));
        }
        match load(queues, PROGRAM) {
            Err(e) if e.errno == Errno(libc::EINVAL) && bpf::kernel_version() < (5, 18) => {
                load(queues, PROGRAM_BEFORE_5_18)
            }
            done => done,
        }
        .map(|program| Box::new(program) as Box<dyn Program>)
    }

    fn take_over(&self, id: u32) -> Result<Option<Inherited>, Error> {
        let failed = |errno| Error::new("BPF_PROG_GET_FD_BY_ID", format!("of program {id}"), errno);
        let found = bpf::find_attached(id).map_err(failed)?;
        let ids: Vec<u32> = found.maps.iter().map(|(id, _)| *id).collect();
        let [users, makers] = bpf::holders(found.link_id, &ids);
        if !makers.is_empty() {
            return Ok(Some(Inherited::Alive(makers)));
        }
        let program = adopt(found, id)?;
        Ok(Some(Inherited::Program(Box::new(program), users)))
    }
}

/// A program that another process loaded.
fn adopt(found: bpf::Found, id: u32) -> Result<AyaProgram, Error> {
    let strange = || Error::new("BPF_OBJ_GET_INFO_BY_FD", format!("of the maps of program {id}"), Errno(libc::EINVAL));
    let (mut sockets, mut verdicts, mut injected, mut internal, mut queues) = (None, None, None, Vec::new(), 0);
    for (_, fd) in found.maps {
        let (map, mark, entries) = as_map(fd)?;
        internal.push(mark);
        match map {
            Map::XskMap(_) => (sockets, queues) = (XskMap::try_from(map).ok(), entries),
            Map::PerCpuArray(_) => verdicts = PerCpuArray::try_from(map).ok(),
            Map::Array(_) => injected = Array::try_from(map).ok(),
            _ => return Err(strange()),
        }
    }
    Ok(AyaProgram {
        link: Some(found.link),
        _internal: internal.try_into().map_err(|_| strange())?,
        sockets: sockets.ok_or_else(strange)?,
        verdicts: verdicts.ok_or_else(strange)?,
        injected: injected.ok_or_else(strange)?,
        program: found.program,
        id,
        queues,
    })
}

// The fields are closed in this order: off the NIC first.
struct AyaProgram {
    link: Option<Fd>,
    /// The numbers of the maps.
    _internal: [Internal; 3],
    sockets: XskMap<MapData>,
    verdicts: PerCpuArray<MapData, [u64; 2]>,
    injected: Array<MapData, [u64; 3]>,
    program: Fd,
    id: u32,
    queues: u32,
}

fn load(queues: u32, name: &str) -> Result<AyaProgram, Error> {
    // No BTF of the kernel: the program touches nothing that moves between kernels, and parsing it takes long.
    let mut object = EbpfLoader::new()
        .btf(None)
        .map_max_entries(SOCKETS, queues)
        .map_max_entries(VERDICTS, queues)
        .load(OBJECT)
        .map_err(|e| failed("BPF_MAP_CREATE", &e))?;
    let (sockets, xsks_fd) = take_map(&mut object, SOCKETS)?;
    let (verdicts, verdicts_fd) = take_map(&mut object, VERDICTS)?;
    let (injected, injected_fd) = take_map(&mut object, INJECTED)?;
    let (sockets, verdicts) = (XskMap::try_from(sockets), PerCpuArray::try_from(verdicts));
    let injected = Array::try_from(injected);
    let program: &mut Xdp = object
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| Error::new("BPF_PROG_LOAD", format!("(no {name} in the object)"), Errno(libc::ENOENT)))?;
    program.load().map_err(|e| failed("BPF_PROG_LOAD", &e.into()))?;
    let id = program.info().map_err(|e| failed("BPF_OBJ_GET_INFO_BY_FD", &e.into()))?.id();
    let fd = program.fd().map_err(|e| failed("BPF_PROG_LOAD", &e.into()))?;
    Ok(AyaProgram {
        link: None,
        _internal: [xsks_fd, verdicts_fd, injected_fd],
        sockets: sockets.map_err(|e| failed("BPF_MAP_CREATE", &e.into()))?,
        verdicts: verdicts.map_err(|e| failed("BPF_MAP_CREATE", &e.into()))?,
        injected: injected.map_err(|e| failed("BPF_MAP_CREATE", &e.into()))?,
        program: high(fd.as_fd())?,
        id,
        queues,
    })
    // Here `object` closes its own descriptors, all low ones.
}

fn take_map(object: &mut Ebpf, name: &str) -> Result<(Map, Internal), Error> {
    let absent = || Error::new("BPF_MAP_CREATE", format!("(no {name} in the object)"), Errno(libc::ENOENT));
    let fd = match object.map(name).ok_or_else(absent)? {
        Map::XskMap(data) | Map::PerCpuArray(data) | Map::Array(data) => high(data.fd().as_fd())?,
        _ => return Err(absent()),
    };
    as_map(fd).map(|(map, internal, _)| (map, internal))
}

/// A map by its descriptor, and its number of entries.
fn as_map(fd: Fd) -> Result<(Map, Internal, u32), Error> {
    // SAFETY: the number is given up by its only owner.
    let owned = unsafe { OwnedFd::from_raw_fd(fd.into_raw()) };
    let internal = Internal::mark(&owned);
    let data = MapData::from_fd(owned).map_err(|e| failed("BPF_OBJ_GET_INFO_BY_FD", &e.into()))?;
    let entries = data.info().map_or(0, |info| info.max_entries());
    let map = Map::from_map_data(data).map_err(|e| failed("BPF_OBJ_GET_INFO_BY_FD", &e.into()))?;
    Ok((map, internal, entries))
}

/// The same object at a high number.
pub(super) fn high(fd: BorrowedFd<'_>) -> Result<Fd, Error> {
    // SAFETY: the borrowed descriptor is open, and is given back below without being closed.
    let low = unsafe { Fd::from_raw(fd.as_raw_fd()) };
    let copy = low.try_clone();
    let _ = low.into_raw();
    copy.map_err(|errno| Error::new("fcntl(F_DUPFD_CLOEXEC)", "of a BPF object", errno))
}

/// The system call under an error of aya's, with the verifier's words or aya's own.
pub(super) fn failed(call: &'static str, error: &EbpfError) -> Error {
    let mut errno = Errno(libc::EINVAL);
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if let Some(io) = e.downcast_ref::<std::io::Error>() {
            errno = Errno(io.raw_os_error().unwrap_or(libc::EINVAL));
        }
        source = e.source();
    }
    let why = match errno.0 {
        libc::EPERM => needs(&bpf::missing_capabilities()),
        libc::EMFILE | libc::ENFILE => "too many open files; raise `ulimit -n`".to_string(),
        _ => error.to_string(),
    };
    Error::new(call, format!("of a BPF program ({why})"), errno)
}

impl AyaProgram {
    fn failed(&self, call: &'static str, queue: u32, error: &MapError) -> Error {
        let errno = match error {
            MapError::SyscallError(e) => Errno(e.io_error.raw_os_error().unwrap_or(libc::EIO)),
            _ => Errno(libc::EINVAL),
        };
        Error::new(call, format!("for queue {queue} of {}", self.queues), errno)
    }
}

impl Program for AyaProgram {
    fn attach(&mut self, ifindex: u32, ifname: &str, mode: AttachMode) -> Result<(), AttachError> {
        if self.link.is_some() {
            return Err(Error::new("BPF_LINK_CREATE", format!("on {ifname}"), Errno(libc::EALREADY)).into());
        }
        let flags = match mode {
            AttachMode::Native => bpf::XDP_FLAGS_DRV_MODE,
            AttachMode::Generic => bpf::XDP_FLAGS_SKB_MODE,
        };
        match bpf::xdp_link(self.program.as_raw_fd(), ifindex, flags) {
            Ok(link) => {
                self.link = Some(link);
                Ok(())
            }
            Err(errno) => {
                let there = netdev::xdp_attached(ifindex);
                let exists = !matches!(&there, Err(e) if e.errno == Errno(libc::ENODEV));
                let seen = Circumstances {
                    exists,
                    foreign: there.ok().flatten(),
                    missing: bpf::missing_capabilities(),
                    kernel: bpf::kernel_version(),
                };
                Err(explain(ifname, mode, errno, seen))
            }
        }
    }

    fn detach(&mut self) -> Result<(), Error> {
        let Some(link) = self.link.take() else { return Ok(()) };
        bpf::link_detach(link.as_raw_fd())
            .map_err(|errno| Error::new("BPF_LINK_DETACH", format!("of program {}", self.id), errno))
    }

    fn insert(&mut self, queue: u32, xsk: RawFd) -> Result<(), Error> {
        self.sockets.set(queue, xsk, 0).map_err(|e| self.failed("BPF_MAP_UPDATE_ELEM", queue, &e))
    }

    fn remove(&mut self, queue: u32) -> Result<(), Error> {
        match self.sockets.unset(queue) {
            Ok(()) => Ok(()),
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(e) => Err(self.failed("BPF_MAP_DELETE_ELEM", queue, &e)),
        }
    }

    fn admit(&mut self, head: Option<[u8; 14]>) -> Result<(), Error> {
        let mut bytes = [0; 16];
        bytes[..14].copy_from_slice(&head.unwrap_or_default());
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        let value = [head.is_some().into(), word(0), word(8)];
        self.injected.set(0, value, 0).map_err(|e| self.failed("BPF_MAP_UPDATE_ELEM", 0, &e))
    }

    fn counters(&self, queue: u32) -> Result<QueueCounters, Error> {
        let per_cpu = self.verdicts.get(&queue, 0).map_err(|e| self.failed("BPF_MAP_LOOKUP_ELEM", queue, &e))?;
        let sum = |which: usize| per_cpu.iter().fold(0u64, |n, cpu| n.wrapping_add(cpu[which]));
        Ok(QueueCounters { redirected: sum(0), passed: sum(1) })
    }

    fn link_fd(&self) -> Option<RawFd> {
        self.link.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn id(&self) -> u32 {
        self.id
    }
}
