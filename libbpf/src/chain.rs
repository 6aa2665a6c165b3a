//! One of several XDP programs on a NIC: ours becomes a component of libxdp's dispatcher.
//!
//! ```text
//! packet -> dispatcher -> the component with the lowest priority number -> PASS: the next one -> ... -> stack
//!                                                                       -> anything else: the verdict
//! ```
//! libxdp attaches by netlink and pins the components, so they outlive us when we are killed; they do no harm then, for
//! without sockets all packets pass on. While we live, an abstract socket in the NIC's namespace says so; a component of ours
//! without it is a dead one's, and the next to come takes it out.
//!
//! A component is loaded anew (BPF_PROG_TYPE_EXT), over the maps of a program that is loaded as usual: so everything but
//! attaching is the same. Where the kernel refuses that type, and nothing else is on the NIC, ours is attached alone, by link.

use crate::open;
use libxdp_sys as xdp;
use netmap_xdp::sys::netdev::{NetDev, bpf, xdp_attached};
use netmap_xdp::sys::{Errno, Error, Fd, Level, bind_abstract, log};
use netmap_xdp::xsk::loaded::{Loaded, PROGRAM, PROGRAM_BEFORE_5_18, attach_error};
use netmap_xdp::xsk::{AttachError, AttachMode, Program, QueueCounters, Steering};
use std::ffi::{CStr, CString};
use std::os::fd::RawFd;
use std::ptr::NonNull;

/// The redirect program as a component.
pub(crate) struct Chained {
    loaded: Loaded,
    name: &'static str,
    priority: u32,
    component: Option<Component>,
}

/// What is attached.
struct Component {
    program: XdpProgram,
    ifindex: u32,
    mode: xdp::xdp_attach_mode,
    /// Says that we live, for as long as it is open.
    _alive: Fd,
}

/// A program of libxdp's, which owns the object that it is in.
struct XdpProgram(NonNull<xdp::xdp_program>);

// SAFETY: libxdp keeps no state of threads; whoever owns the program calls it.
unsafe impl Send for XdpProgram {}

impl Drop for XdpProgram {
    fn drop(&mut self) {
        // SAFETY: the pointer came from libxdp and is given up here.
        unsafe { xdp::xdp_program__close(self.0.as_ptr()) };
    }
}

/// What is on an interface, in libxdp's eyes.
struct Dispatcher(NonNull<xdp::xdp_multiprog>);

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { xdp::xdp_multiprog__close(self.0.as_ptr()) };
    }
}

/// A pointer of libxdp's, which may hide an error.
fn pointer<T>(raw: *mut T) -> Result<NonNull<T>, Errno> {
    // SAFETY: looks at the number of the pointer only.
    let error = unsafe { xdp::libxdp_get_error(raw.cast()) };
    if error != 0 {
        return Err(Errno(-error as i32));
    }
    NonNull::new(raw).ok_or(Errno(libc::ENOENT))
}

fn done(result: i32) -> Result<(), Errno> {
    if result < 0 { Err(Errno(-result)) } else { Ok(()) }
}

/// libxdp prints nothing by itself; what fails is told by our own errors.
pub(crate) fn quieten() {
    // SAFETY: no callback.
    unsafe { xdp::libxdp_set_print(None) };
}

/// The name of the socket that says that somebody lives who has a component on this interface.
fn alive_name(ifindex: u32) -> String {
    format!("netmap-xdp/chain/{ifindex}")
}

impl Dispatcher {
    fn on(ifindex: u32) -> Result<Dispatcher, Errno> {
        // SAFETY: takes an integer.
        pointer(unsafe { xdp::xdp_multiprog__get_from_ifindex(ifindex as i32) }).map(Dispatcher)
    }

    /// Whether it is one program, and no dispatcher.
    fn single(&self) -> bool {
        // SAFETY: the pointer is live.
        unsafe { xdp::xdp_multiprog__is_legacy(self.0.as_ptr()) }
    }

    /// Our components.
    fn ours(&self) -> Vec<*mut xdp::xdp_program> {
        let mut found = Vec::new();
        let mut program = std::ptr::null_mut();
        loop {
            // SAFETY: the pointers are live; components belong to the dispatcher.
            program = unsafe { xdp::xdp_multiprog__next_prog(program, self.0.as_ptr()) };
            if program.is_null() {
                return found;
            }
            // SAFETY: a program's name is a C string that lives as long as it.
            let name = unsafe { CStr::from_ptr(xdp::xdp_program__name(program)) };
            if [PROGRAM, PROGRAM_BEFORE_5_18].iter().any(|ours| name.to_bytes() == ours.as_bytes()) {
                found.push(program);
            }
        }
    }
}

/// Takes components off that a dead process of ours left on an interface; says whether there were any.
pub(crate) fn clean(ifindex: u32) -> Result<bool, Error> {
    let failed = |call: &'static str| move |e| Error::new(call, format!("on interface {ifindex}"), e);
    let Ok(dispatcher) = Dispatcher::on(ifindex) else { return Ok(false) };
    if dispatcher.single() {
        return Ok(false);
    }
    let mut ours = dispatcher.ours();
    if ours.is_empty() {
        return Ok(false);
    }
    let _alive = match bind_abstract(&alive_name(ifindex)) {
        Err(Errno(libc::EADDRINUSE)) => return Ok(false),
        other => other.map_err(failed("bind"))?,
    };
    // SAFETY: an array of live programs, and its length.
    let detached = unsafe {
        // Said as it is: the dispatcher without ours is to go where this one is.
        let mode = xdp::xdp_multiprog__attach_mode(dispatcher.0.as_ptr());
        xdp::xdp_program__detach_multi(ours.as_mut_ptr(), ours.len(), ifindex as i32, mode, 0)
    };
    done(detached).map_err(failed("xdp_program__detach_multi"))?;
    let name = NetDev::by_index(ifindex).map_or_else(|_| ifindex.to_string(), |dev| dev.name);
    log(Level::Info, format_args!("{name}: took a program off that a killed netmapd left in the chain"));
    Ok(true)
}

impl Chained {
    pub(crate) fn new(loaded: Loaded, name: &'static str, priority: u32) -> Chained {
        Chained { loaded, name, priority, component: None }
    }

    /// The program once more, over the same maps, not loaded yet: libxdp does that.
    fn component(&self) -> Result<XdpProgram, Error> {
        let failed = |call: &'static str| move |e| Error::new(call, "of the chained program", e);
        let mut object = open(self.loaded.queues(), self.name)?;
        for mut map in object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if let Some(fd) = self.loaded.map_named(&name) {
                map.reuse_fd(fd).map_err(|e| crate::failed("BPF_OBJ_GET_INFO_BY_FD", &e))?;
            }
        }
        let name = CString::new(self.name).map_err(|_| failed("xdp_program__create")(Errno(libc::EINVAL)))?;
        // SAFETY: all zeros are the defaults; the size is the structure's.
        let mut options: xdp::xdp_program_opts = unsafe { std::mem::zeroed() };
        options.sz = size_of::<xdp::xdp_program_opts>() as _;
        options.obj = object.take_ptr().as_ptr().cast();
        options.prog_name = name.as_ptr();
        // SAFETY: the options live through the call; the object is libxdp's from now on.
        let program =
            pointer(unsafe { xdp::xdp_program__create(&mut options) }).map_err(failed("xdp_program__create"))?;
        let program = XdpProgram(program);
        // SAFETY: the program is live and not attached.
        let set = unsafe {
            let raw = program.0.as_ptr();
            done(xdp::xdp_program__set_run_prio(raw, self.priority)).and_then(|()| {
                let pass = xdp::xdp_action_XDP_PASS;
                done(xdp::xdp_program__set_chain_call_enabled(raw, pass, true))
            })
        };
        set.map_err(failed("xdp_program__set_run_prio"))?;
        Ok(program)
    }
}

impl Program for Chained {
    fn attach(&mut self, ifindex: u32, ifname: &str, mode: AttachMode) -> Result<(), AttachError> {
        let failed = |errno| Error::new("xdp_program__attach", format!("on {ifname}"), errno);
        if self.component.is_some() || self.loaded.link_fd().is_some() {
            return Err(failed(Errno(libc::EALREADY)).into());
        }
        let alive = bind_abstract(&alive_name(ifindex)).map_err(failed)?;
        let program = self.component()?;
        let wanted = match mode {
            AttachMode::Native => xdp::xdp_attach_mode_XDP_MODE_NATIVE,
            AttachMode::Generic => xdp::xdp_attach_mode_XDP_MODE_SKB,
        };
        let before = xdp_attached(ifindex).ok().flatten();
        // Without the bpffs of its pins, libxdp takes a dispatcher for an ordinary program.
        let hidden = before.as_ref().is_some_and(|b| b.prog_name.as_deref() == Some("xdp_dispatcher"));
        // SAFETY: the program is live.
        let attached = done(unsafe { xdp::xdp_program__attach(program.0.as_ptr(), ifindex as i32, wanted, 0) });
        let component = Component { program, ifindex, mode: wanted, _alive: alive };
        match attached {
            Ok(()) if Dispatcher::on(ifindex).is_ok_and(|d| !d.single()) => {
                log(Level::Info, format_args!("{ifname}: chained with priority {}", self.priority));
                self.component = Some(component);
                Ok(())
            }
            // Alone on the NIC, and attached by netlink: by link, it goes when we go.
            Ok(()) => {
                component.detach()?;
                self.alone(ifindex, ifname, mode, Errno(libc::EOPNOTSUPP))
            }
            Err(errno) if before.is_none() && matches!(errno.0, libc::EPERM | libc::EOPNOTSUPP | libc::EACCES) => {
                self.alone(ifindex, ifname, mode, errno)
            }
            // A program that is no dispatcher: libxdp says EBUSY of it.
            Err(errno) if before.is_some() && !hidden && Dispatcher::on(ifindex).is_ok_and(|d| d.single()) => {
                log(Level::Debug, format_args!("{ifname}: chaining behind a program that is no dispatcher: {errno}"));
                Err(attach_error(ifindex, ifname, mode, Errno(libc::EBUSY)))
            }
            Err(errno) if before.is_some() => {
                let why = format!(
                    "on {ifname}, as a component of its dispatcher; libxdp needs a bpffs at /sys/fs/bpf (`mount -t bpf bpf \
                     /sys/fs/bpf`) and a kernel that loads BPF_PROG_TYPE_EXT"
                );
                Err(Error::new("xdp_program__attach", why, errno).into())
            }
            Err(errno) => Err(attach_error(ifindex, ifname, mode, errno)),
        }
    }

    fn detach(&mut self) -> Result<(), Error> {
        match self.component.take() {
            Some(component) => component.detach(),
            None => self.loaded.detach(),
        }
    }

    fn insert(&mut self, queue: u32, xsk: RawFd) -> Result<(), Error> {
        self.loaded.insert(queue, xsk)
    }

    fn remove(&mut self, queue: u32) -> Result<(), Error> {
        self.loaded.remove(queue)
    }

    fn admit(&mut self, head: Option<[u8; 14]>) -> Result<(), Error> {
        self.loaded.admit(head)
    }

    fn admitted(&self) -> Result<Option<[u8; 14]>, Error> {
        self.loaded.admitted()
    }

    fn steer(&mut self, rules: Option<&Steering>) -> Result<(), Error> {
        self.loaded.steer(rules)
    }

    fn counters(&self, queue: u32) -> Result<QueueCounters, Error> {
        self.loaded.counters(queue)
    }

    fn link_fd(&self) -> Option<RawFd> {
        self.loaded.link_fd()
    }

    fn id(&self) -> u32 {
        // SAFETY: the program is live.
        self.component.as_ref().map_or(self.loaded.id(), |c| unsafe { xdp::xdp_program__id(c.program.0.as_ptr()) })
    }
}

impl Chained {
    fn alone(&mut self, ifindex: u32, ifname: &str, mode: AttachMode, why: Errno) -> Result<(), AttachError> {
        self.loaded.attach(ifindex, ifname, mode)?;
        let (major, minor) = bpf::kernel_version();
        log(
            Level::Warn,
            format_args!(
                "{ifname}: no chaining, since libxdp could not set up a dispatcher ({why}; kernel {major}.{minor}; it needs \
                 BPF_PROG_TYPE_EXT and a bpffs at /sys/fs/bpf): attached alone, and others cannot join"
            ),
        );
        Ok(())
    }
}

impl Component {
    fn detach(&self) -> Result<(), Error> {
        // SAFETY: the program is live.
        let gone =
            done(unsafe { xdp::xdp_program__detach(self.program.0.as_ptr(), self.ifindex as i32, self.mode, 0) });
        match gone {
            // The interface has vanished, or somebody took it off.
            Ok(()) | Err(Errno(libc::ENOENT | libc::ENODEV)) => Ok(()),
            Err(e) => Err(Error::new("xdp_program__detach", format!("on interface {}", self.ifindex), e)),
        }
    }
}

impl Drop for Chained {
    fn drop(&mut self) {
        if let Err(e) = self.detach() {
            log(Level::Warn, format_args!("the program stays in the chain until the next bind: {e}"));
        }
    }
}
