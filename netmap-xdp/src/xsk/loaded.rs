//! The redirect program once it is loaded, whichever library did that: attached by link, its maps written by system call.
//!
//! A backend reads [`OBJECT`], creates the maps and loads one of the two programs in it; all else is the same for all of
//! them and lives here. Attaching is ours too: libraries fall back to netlink, and what is attached so stays on the NIC
//! after a kill.

use super::program::{AttachError, AttachMode, Circumstances, Inherited, Program, QueueCounters, explain, needs};
use super::stamped;
use super::steering::Steering;
use crate::sys::netdev::{self, Map, bpf};
use crate::sys::{Errno, Error, Fd};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Compiled from `bpf/xdp_redirect.bpf.c` by `build.rs`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp_redirect.bpf.o"));

/// Compiled from `bpf/host_rings.bpf.c`, with its constants in one section that holds nothing else.
pub static CLASSIFIERS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/host_rings.bpf.o"));
/// The variable in that section.
pub const PLAN: &str = "plan";

/// The program in the object, and the one for kernels that refuse the frags flag.
pub const PROGRAM: &str = "netmap_redirect";
/// For kernels before 5.18.
pub const PROGRAM_BEFORE_5_18: &str = "netmap_nofrags";
/// Queue -> socket; as many entries as queues.
pub const SOCKETS: &str = "xsks";
/// Counters; as many entries as queues.
pub const VERDICTS: &str = "verdicts";
/// How frames of host rings begin.
pub const INJECTED: &str = "injected";
/// When the NIC received the last frame of each queue; as many entries as queues.
pub const STAMPS: &str = "stamps";
/// What steering works on, frame by frame.
pub const SCRATCH: &str = "steer_keys";
/// Two sets of steering rules.
pub const RULES: &str = "steer_rules";

/// The maps of a loaded object. `globals` is its `.bss`: which of the rule sets holds, a 32-bit number.
pub struct MapFds {
    /// [`SOCKETS`].
    pub sockets: Fd,
    /// [`VERDICTS`].
    pub verdicts: Fd,
    /// [`INJECTED`].
    pub injected: Fd,
    /// [`RULES`].
    pub rules: Fd,
    /// [`STAMPS`]; the usual program does not use it.
    pub stamps: Option<Fd>,
    /// [`SCRATCH`], for another program over the same maps.
    pub scratch: Option<Fd>,
    /// The `.bss` of the object.
    pub globals: Fd,
}

/// A loaded program and its maps.
// The fields are closed in this order: off the NIC first.
pub struct Loaded {
    link: Option<Fd>,
    sockets: Map,
    verdicts: Map,
    injected: Map,
    rules: Map,
    stamps: Option<Map>,
    scratch: Option<Map>,
    globals: Map,
    /// Which set of rules holds, as the program's `steering` has it.
    chosen: u32,
    program: Fd,
    /// The usual program, while `program` is the one that notes times.
    plain: Option<Fd>,
    /// Whether it notes times where it is attached.
    stamping: bool,
    id: u32,
}

/// Loads by `load(queues, name)`, which gets the name of the program that this kernel takes. `EINVAL`: no queues; `EPERM`:
/// names the missing capabilities.
pub fn load_either<T: Program + 'static>(
    queues: u32,
    load: impl Fn(u32, &'static str) -> Result<T, Error>,
) -> Result<Box<dyn Program>, Error> {
    if queues == 0 {
        return Err(Error::new("BPF_MAP_CREATE", "for an interface without queues", Errno(libc::EINVAL)));
    }
    // Asked first, since libraries remember for good what they could not probe without them.
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

/// The program of ours with this id, which a link has on an interface already.
pub fn take_over(id: u32) -> Result<Inherited, Error> {
    let failed = |errno| Error::new("BPF_PROG_GET_FD_BY_ID", format!("of program {id}"), errno);
    let found = bpf::find_attached(id).map_err(failed)?;
    let (mut maps, mut ids) = (Vec::new(), Vec::new());
    for (id, fd) in found.maps {
        let name = bpf::map_name(fd.as_raw_fd()).map_err(failed)?;
        // Clients have this one.
        ids.extend((name != STAMPS).then_some(id));
        maps.push((name, fd));
    }
    let [users, makers] = bpf::holders(found.link_id, &ids);
    if !makers.is_empty() {
        return Ok(Inherited::Alive(makers));
    }
    // The kernel keeps the first 15 letters; those of the `.bss` are the object's, cut off.
    let mut map = |name: &str| {
        let at = maps.iter().position(|(n, _)| n == name || (name == ".bss" && n.ends_with(name)));
        at.map(|at| maps.swap_remove(at).1).ok_or(failed(Errno(libc::ENOENT)))
    };
    let maps = MapFds {
        sockets: map(SOCKETS)?,
        verdicts: map(VERDICTS)?,
        injected: map(INJECTED)?,
        rules: map(RULES)?,
        stamps: map(STAMPS).ok(),
        scratch: None,
        globals: map(".bss")?,
    };
    let mut program = Loaded::new(found.program, maps)?;
    program.stamping = bpf::program_name(id).as_deref() == Some(stamped::PROGRAM);
    let chosen = program.globals.get(0).map_err(failed)?;
    // A 32-bit number, the first of what is there.
    program.chosen = chosen.first().map_or(0, |&first| first as u32);
    program.link = Some(found.link);
    Ok(Inherited::Program(Box::new(program), users))
}

impl Loaded {
    /// Takes over what a backend loaded.
    pub fn new(program: Fd, maps: MapFds) -> Result<Loaded, Error> {
        let failed = |errno| Error::new("BPF_OBJ_GET_INFO_BY_FD", "of a map", errno);
        let id = bpf::program_id(program.as_raw_fd())
            .map_err(|errno| Error::new("BPF_OBJ_GET_INFO_BY_FD", "of a program", errno))?;
        Ok(Loaded {
            link: None,
            sockets: Map::new(maps.sockets).map_err(failed)?,
            verdicts: Map::new(maps.verdicts).map_err(failed)?,
            injected: Map::new(maps.injected).map_err(failed)?,
            rules: Map::new(maps.rules).map_err(failed)?,
            stamps: maps.stamps.map(Map::new).transpose().map_err(failed)?,
            scratch: maps.scratch.map(Map::new).transpose().map_err(failed)?,
            globals: Map::new(maps.globals).map_err(failed)?,
            chosen: 0,
            program,
            plain: None,
            stamping: false,
            id,
        })
    }

    /// Makes `program` the one to be attached; returns the one that was.
    fn exchange(&mut self, program: Fd) -> Result<Fd, Error> {
        let id = bpf::program_id(program.as_raw_fd())
            .map_err(|errno| Error::new("BPF_OBJ_GET_INFO_BY_FD", "of a program", errno))?;
        self.id = id;
        Ok(std::mem::replace(&mut self.program, program))
    }

    /// Queues that there is room for.
    pub fn queues(&self) -> u32 {
        self.sockets.entries()
    }

    /// The map of this name, for a second program over the same maps; the `.bss` has the object's name before its own.
    pub fn map_named(&self, name: &str) -> Option<BorrowedFd<'_>> {
        let map = match name {
            SOCKETS => &self.sockets,
            VERDICTS => &self.verdicts,
            INJECTED => &self.injected,
            RULES => &self.rules,
            STAMPS => self.stamps.as_ref()?,
            SCRATCH => self.scratch.as_ref()?,
            name if name.ends_with(".bss") => &self.globals,
            _ => return None,
        };
        // SAFETY: the descriptor is open for as long as `self` is borrowed.
        Some(unsafe { BorrowedFd::borrow_raw(map.as_raw_fd()) })
    }

    fn failed(&self, call: &'static str, queue: u32, errno: Errno) -> Error {
        Error::new(call, format!("for queue {queue} of {}", self.sockets.entries()), errno)
    }

    fn check(&self, call: &'static str, queue: u32) -> Result<(), Error> {
        if queue < self.sockets.entries() { Ok(()) } else { Err(self.failed(call, queue, Errno(libc::EINVAL))) }
    }
}

/// What a failed attachment means, asked of the kernel.
pub fn attach_error(ifindex: u32, ifname: &str, mode: AttachMode, errno: Errno) -> AttachError {
    let there = netdev::xdp_attached(ifindex);
    let exists = !matches!(&there, Err(e) if e.errno == Errno(libc::ENODEV));
    let seen = Circumstances {
        exists,
        foreign: there.ok().flatten(),
        missing: bpf::missing_capabilities(),
        kernel: bpf::kernel_version(),
    };
    explain(ifname, mode, errno, seen)
}

impl Program for Loaded {
    fn attach(&mut self, ifindex: u32, ifname: &str, mode: AttachMode) -> Result<(), AttachError> {
        if self.link.is_some() {
            return Err(Error::new("BPF_LINK_CREATE", format!("on {ifname}"), Errno(libc::EALREADY)).into());
        }
        if mode == AttachMode::Generic
            && let Some(plain) = self.plain.take()
        {
            // A program for one device is for its driver.
            drop(self.exchange(plain)?);
        }
        let flags = match mode {
            AttachMode::Native => bpf::XDP_FLAGS_DRV_MODE,
            AttachMode::Generic => bpf::XDP_FLAGS_SKB_MODE,
        };
        match bpf::xdp_link(self.program.as_raw_fd(), ifindex, flags) {
            Ok(link) => {
                self.link = Some(link);
                self.stamping = self.plain.is_some();
                Ok(())
            }
            Err(errno) => Err(attach_error(ifindex, ifname, mode, errno)),
        }
    }

    fn detach(&mut self) -> Result<(), Error> {
        let Some(link) = self.link.take() else { return Ok(()) };
        bpf::link_detach(link.as_raw_fd())
            .map_err(|errno| Error::new("BPF_LINK_DETACH", format!("of program {}", self.id), errno))
    }

    fn insert(&mut self, queue: u32, xsk: RawFd) -> Result<(), Error> {
        self.check("BPF_MAP_UPDATE_ELEM", queue)?;
        let set = self.sockets.set(queue, &(xsk as u32).to_ne_bytes());
        set.map_err(|e| self.failed("BPF_MAP_UPDATE_ELEM", queue, e))
    }

    fn remove(&mut self, queue: u32) -> Result<(), Error> {
        self.check("BPF_MAP_DELETE_ELEM", queue)?;
        match self.sockets.delete(queue) {
            Ok(()) | Err(Errno(libc::ENOENT)) => Ok(()),
            Err(e) => Err(self.failed("BPF_MAP_DELETE_ELEM", queue, e)),
        }
    }

    fn admit(&mut self, head: Option<[u8; 14]>) -> Result<(), Error> {
        let mut value = [0; 24];
        value[..8].copy_from_slice(&u64::from(head.is_some()).to_ne_bytes());
        value[8..22].copy_from_slice(&head.unwrap_or_default());
        let failed = |e| Error::new("BPF_MAP_UPDATE_ELEM", "for the head of injected frames", e);
        self.injected.set(0, &value).map_err(failed)
    }

    fn admitted(&self) -> Result<Option<[u8; 14]>, Error> {
        let failed = |e| Error::new("BPF_MAP_LOOKUP_ELEM", "for the head of injected frames", e);
        let value = self.injected.get(0).map_err(failed)?;
        let bytes: Vec<u8> = value.iter().skip(1).flat_map(|word| word.to_ne_bytes()).take(14).collect();
        let on = value.first().is_some_and(|&on| on != 0);
        Ok(<[u8; 14]>::try_from(bytes).ok().filter(|_| on))
    }

    fn steer(&mut self, rules: Option<&Steering>) -> Result<(), Error> {
        let failed = |e| Error::new("BPF_MAP_UPDATE_ELEM", "for steering rules", e);
        let chosen = match rules {
            None => 0,
            Some(rules) => {
                // The set that does not hold: nobody reads it but programs that began before the last change.
                let free = if self.chosen == 1 { 2 } else { 1 };
                bpf::let_programs_end();
                self.rules.set(free - 1, &rules.image()).map_err(failed)?;
                free
            }
        };
        self.globals.set(0, &chosen.to_ne_bytes()).map_err(failed)?;
        self.chosen = chosen;
        Ok(())
    }

    fn stamp(&mut self, ifindex: u32) -> Result<(), Error> {
        if self.link.is_some() || self.plain.is_some() {
            return Err(Error::new("BPF_PROG_LOAD", format!("of {}", stamped::PROGRAM), Errno(libc::EALREADY)));
        }
        let map = |name: &str| self.map_named(name).map(|fd| fd.as_raw_fd());
        let stamped = stamped::load(ifindex, map)?;
        self.plain = Some(self.exchange(stamped)?);
        Ok(())
    }

    fn stamps(&self) -> Option<RawFd> {
        self.stamps.as_ref().filter(|_| self.stamping).map(AsRawFd::as_raw_fd)
    }

    fn counters(&self, queue: u32) -> Result<QueueCounters, Error> {
        self.check("BPF_MAP_LOOKUP_ELEM", queue)?;
        let per_cpu = self.verdicts.get(queue).map_err(|e| self.failed("BPF_MAP_LOOKUP_ELEM", queue, e))?;
        let sum = |which: usize| per_cpu.iter().skip(which).step_by(2).fold(0u64, |n, &cpu| n.wrapping_add(cpu));
        Ok(QueueCounters { redirected: sum(0), passed: sum(1) })
    }

    fn link_fd(&self) -> Option<RawFd> {
        self.link.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn id(&self) -> u32 {
        self.id
    }
}
