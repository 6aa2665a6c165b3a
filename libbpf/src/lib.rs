//! netmapd's loader: the same object as everywhere, loaded by libbpf, and on request attached behind or before other XDP
//! programs by libxdp.
//!
//! A crate of its own, because libbpf brings libelf and zlib: the library that is preloaded into other people's programs
//! must not. Called in the daemon's only thread, inside the network namespace of the NIC. What is kept belongs to the engine.

mod chain;

use libbpf_rs::{MapCore, Object, ObjectBuilder, OpenObject, PrintLevel, ProgramType};
use netmap_xdp::sys::netdev::bpf;
use netmap_xdp::sys::{Errno, Error, Fd, Level, duplicate, log};
use netmap_xdp::xsk::loaded::{
    self, CLASSIFIERS, INJECTED, Loaded, MapFds, OBJECT, RULES, SCRATCH, SOCKETS, STAMPS, VERDICTS, load_either,
};
use netmap_xdp::xsk::program::needs;
use netmap_xdp::xsk::{ClassifierPlan, Inherited, Loader, Program};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Once;

/// Loads through libbpf.
pub struct LibbpfLoader;

/// The loader.
pub static LOADER: LibbpfLoader = LibbpfLoader;

impl Loader for LibbpfLoader {
    fn name(&self) -> &'static str {
        "libbpf"
    }

    fn load(&self, queues: u32) -> Result<Box<dyn Program>, Error> {
        load_either(queues, load)
    }

    fn load_chained(&self, queues: u32, priority: u32) -> Result<Box<dyn Program>, Error> {
        load_either(queues, |queues, name| Ok(chain::Chained::new(load(queues, name)?, name, priority)))
    }

    fn load_classifiers(&self, names: &[&str], plan: &ClassifierPlan) -> Result<Vec<Fd>, Error> {
        quieten();
        let unreadable = |e| failed("BPF_MAP_CREATE", &e);
        let mut object = ObjectBuilder::default().open_memory(CLASSIFIERS).map_err(unreadable)?;
        for mut map in object.maps_mut() {
            let constants = map.initial_value_mut().filter(|v| v.len() == plan.len());
            constants.ok_or_else(|| absent("constants"))?.copy_from_slice(plan);
        }
        for mut program in object.progs_mut() {
            let wanted = program.name().to_str().is_some_and(|name| names.contains(&name));
            program.set_autoload(wanted);
            program.set_prog_type(ProgramType::SchedCls);
        }
        let object = object.load().map_err(|e| failed("BPF_PROG_LOAD", &e))?;
        let find = |name: &&str| {
            let program = object.progs().find(|p| p.name() == *name).ok_or_else(|| absent(name))?;
            keep(&program)
        };
        names.iter().map(find).collect()
    }

    fn clean(&self, ifindex: u32) -> Result<bool, Error> {
        chain::clean(ifindex)
    }

    fn take_over(&self, id: u32) -> Result<Inherited, Error> {
        loaded::take_over(id)
    }
}

/// libbpf explains itself on standard error; here it goes where all other lines go, when somebody wants to know.
fn quieten() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Info, |_, line| {
            log(Level::Debug, format_args!("libbpf: {}", line.trim_end()));
        })));
        chain::quieten();
    });
}

/// The object with the sizes of its maps, about to load the one program.
fn open(queues: u32, name: &str) -> Result<OpenObject, Error> {
    quieten();
    let failed = |e| failed("BPF_MAP_CREATE", &e);
    let mut object = ObjectBuilder::default().open_memory(OBJECT).map_err(failed)?;
    for mut map in object.maps_mut() {
        if [SOCKETS, VERDICTS, STAMPS].iter().any(|name| map.name() == *name) {
            map.set_max_entries(queues).map_err(failed)?;
        }
    }
    for mut program in object.progs_mut() {
        let wanted = program.name() == name;
        program.set_autoload(wanted);
    }
    Ok(object)
}

fn load(queues: u32, name: &'static str) -> Result<Loaded, Error> {
    let object = open(queues, name)?.load().map_err(|e| failed("BPF_PROG_LOAD", &e))?;
    let program = object.progs().find(|p| p.name() == name).ok_or_else(|| absent(name))?;
    let maps = MapFds {
        sockets: map(&object, SOCKETS)?,
        verdicts: map(&object, VERDICTS)?,
        injected: map(&object, INJECTED)?,
        rules: map(&object, RULES)?,
        stamps: Some(map(&object, STAMPS)?),
        scratch: Some(map(&object, SCRATCH)?),
        globals: map(&object, ".bss")?,
    };
    Loaded::new(keep(&program)?, maps)
    // Here `object` closes its own descriptors.
}

fn map(object: &Object, name: &str) -> Result<Fd, Error> {
    // libbpf puts the object's name before that of a section.
    let found = object.maps().find(|m| m.name().to_string_lossy().ends_with(name));
    keep(&found.ok_or_else(|| absent(name))?)
}

fn keep(of: &impl AsFd) -> Result<Fd, Error> {
    duplicate(of.as_fd().as_raw_fd()).map_err(|e| Error::new("fcntl(F_DUPFD_CLOEXEC)", "of a BPF object", e))
}

fn absent(name: &str) -> Error {
    Error::new("BPF_PROG_LOAD", format!("(no {name} in the object)"), Errno(libc::ENOENT))
}

/// The system call under an error of libbpf's.
fn failed(call: &'static str, error: &libbpf_rs::Error) -> Error {
    let mut errno = None;
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        errno = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error).or(errno);
        source = e.source();
    }
    let errno = errno.unwrap_or(match error.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => libc::EPERM,
        libbpf_rs::ErrorKind::OutOfMemory => libc::ENOMEM,
        _ => libc::EINVAL,
    });
    let why = match errno {
        libc::EPERM => needs(&bpf::missing_capabilities()),
        libc::EMFILE | libc::ENFILE => "too many open files; raise `ulimit -n`".to_string(),
        _ => format!("{error}; NETMAP_XDP_LOG=debug shows the verifier's words"),
    };
    Error::new(call, format!("of a BPF program ({why})"), Errno(errno))
}
