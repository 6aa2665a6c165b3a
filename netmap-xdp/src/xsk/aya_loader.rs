//! The [`Loader`] of the embedded engine, by aya: no C library comes with it into other people's programs.
//!
//! aya reads the object, creates the maps and loads the program; the rest is [`Loaded`]'s. What is kept open is moved to
//! high descriptor numbers, out of the way of the program whose process this is, and declared internal, so that a program
//! that closes what it does not know leaves it alone.

use super::loaded::{
    self, CLASSIFIERS, INJECTED, Loaded, MapFds, OBJECT, PLAN, RULES, SCRATCH, SOCKETS, STAMPS, VERDICTS, load_either,
};
use super::program::{ClassifierPlan, Inherited, Loader, Program, needs};
use crate::sys::netdev::bpf;
use crate::sys::{Errno, Error, Fd};
use aya::maps::Map;
use aya::programs::{SchedClassifier, Xdp};
use aya::{EbpfError, EbpfLoader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Loads through aya.
pub(super) struct AyaLoader;

impl Loader for AyaLoader {
    fn name(&self) -> &'static str {
        "aya"
    }

    fn load(&self, queues: u32) -> Result<Box<dyn Program>, Error> {
        load_either(queues, load)
    }

    fn load_classifiers(&self, names: &[&str], plan: &ClassifierPlan) -> Result<Vec<Fd>, Error> {
        let object = EbpfLoader::new().btf(None).override_global(PLAN, plan, true).load(CLASSIFIERS);
        let mut object = object.map_err(|e| failed("BPF_MAP_CREATE", &e))?;
        let load = |name: &&str| {
            let program: &mut SchedClassifier =
                object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(|| absent(name))?;
            program.load().map_err(|e| failed("BPF_PROG_LOAD", &e.into()))?;
            let fd = program.fd().map_err(|e| failed("BPF_PROG_LOAD", &e.into()))?;
            high(fd.as_fd())
        };
        names.iter().map(load).collect()
    }

    fn take_over(&self, id: u32) -> Result<Inherited, Error> {
        loaded::take_over(id)
    }
}

fn load(queues: u32, name: &str) -> Result<Loaded, Error> {
    // No BTF of the kernel: the program touches nothing that moves between kernels, and parsing it takes long.
    let mut object = EbpfLoader::new()
        .btf(None)
        .map_max_entries(SOCKETS, queues)
        .map_max_entries(VERDICTS, queues)
        .map_max_entries(STAMPS, queues)
        .load(OBJECT)
        .map_err(|e| failed("BPF_MAP_CREATE", &e))?;
    let map = |name: &str| {
        let absent = || Error::new("BPF_MAP_CREATE", format!("(no {name} in the object)"), Errno(libc::ENOENT));
        match object.map(name).ok_or_else(absent)? {
            Map::XskMap(data) | Map::PerCpuArray(data) | Map::Array(data) => high(data.fd().as_fd()),
            _ => Err(absent()),
        }
    };
    let maps = MapFds {
        sockets: map(SOCKETS)?,
        verdicts: map(VERDICTS)?,
        injected: map(INJECTED)?,
        rules: map(RULES)?,
        stamps: Some(map(STAMPS)?),
        scratch: Some(map(SCRATCH)?),
        globals: map(".bss")?,
    };
    let program: &mut Xdp =
        object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(|| absent(name))?;
    program.load().map_err(|e| failed("BPF_PROG_LOAD", &e.into()))?;
    let fd = program.fd().map_err(|e| failed("BPF_PROG_LOAD", &e.into()))?;
    Loaded::new(high(fd.as_fd())?, maps)
    // Here `object` closes its own descriptors, all low ones.
}

fn absent(name: &str) -> Error {
    Error::new("BPF_PROG_LOAD", format!("(no {name} in the object)"), Errno(libc::ENOENT))
}

/// The same object at a high number.
fn high(fd: BorrowedFd<'_>) -> Result<Fd, Error> {
    // SAFETY: the borrowed descriptor is open, and is given back below without being closed.
    let low = unsafe { Fd::from_raw(fd.as_raw_fd()) };
    let copy = low.try_clone();
    let _ = low.into_raw();
    copy.map_err(|errno| Error::new("fcntl(F_DUPFD_CLOEXEC)", "of a BPF object", errno))
}

/// The system call under an error of aya's, with the verifier's words or aya's own.
fn failed(call: &'static str, error: &EbpfError) -> Error {
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
