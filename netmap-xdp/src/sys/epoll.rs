//! What the daemon's loop needs of the kernel: readiness by level, signals as a descriptor, network namespaces, limits.

use super::{Errno, Error, Fd, c_path, identity, syscall};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// A set of descriptors, each with a key of the caller's.
#[derive(Debug)]
pub struct Epoll(Fd);

/// One that is ready: its key and what holds (`EPOLLIN`, ...).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The key it was added with.
    pub key: u64,
    /// What holds.
    pub events: i32,
}

impl Epoll {
    /// An empty set.
    pub fn new() -> Result<Epoll, Errno> {
        // SAFETY: takes an integer; the new descriptor is ours.
        unsafe {
            let fd = syscall(libc::SYS_epoll_create1, [libc::EPOLL_CLOEXEC as usize, 0, 0, 0, 0, 0])?;
            Ok(Epoll(Fd::from_raw_high(fd as i32)))
        }
    }

    fn control(&self, op: i32, fd: RawFd, events: i32, key: u64) -> Result<(), Errno> {
        let event = libc::epoll_event { events: events as u32, u64: key };
        let args = [self.0.as_raw_fd() as usize, op as usize, fd as usize, &raw const event as usize, 0, 0];
        // SAFETY: the event outlives the call.
        unsafe { syscall(libc::SYS_epoll_ctl, args).map(drop) }
    }

    /// Watches `fd`; a hang-up is always told.
    pub fn add(&self, fd: RawFd, events: i32, key: u64) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_ADD, fd, events, key)
    }

    /// Watches it for something else.
    pub fn change(&self, fd: RawFd, events: i32, key: u64) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_MOD, fd, events, key)
    }

    /// Watches it no more.
    pub fn remove(&self, fd: RawFd) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// The descriptor, readable while something in the set is ready.
    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Waits; `None` has no limit. An interrupted wait finds nothing.
    pub fn wait(&self, limit: Option<Duration>) -> Result<Vec<Ready>, Errno> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        let millis = limit.map_or(-1, |l| i32::try_from(l.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
        let (ep, at) = (self.0.as_raw_fd() as usize, events.as_mut_ptr() as usize);
        // SAFETY: the array outlives the call; no signal mask is given.
        match unsafe { syscall(libc::SYS_epoll_pwait, [ep, at, events.len(), millis as usize, 0, 8]) } {
            Ok(n) => Ok(events[..n.min(64)].iter().map(|e| Ready { key: e.u64, events: e.events as i32 }).collect()),
            Err(Errno(libc::EINTR)) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }
}

/// Blocks `SIGTERM` and `SIGINT` in this thread and makes them readable, and ignores `SIGPIPE` and `SIGHUP`.
pub fn quit_signals() -> Result<Fd, Errno> {
    let set: u64 = [libc::SIGTERM, libc::SIGINT].iter().fold(0, |set, s| set | 1 << (s - 1));
    let flags = (libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) as usize;
    let how = libc::SIG_BLOCK as usize;
    // SAFETY: the kernel's signal set has 8 bytes and outlives the calls; no handler is installed; the descriptor is ours.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        syscall(libc::SYS_rt_sigprocmask, [how, &raw const set as usize, 0, 8, 0, 0])?;
        let fd = syscall(libc::SYS_signalfd4, [usize::MAX, &raw const set as usize, 8, flags, 0, 0])?;
        Ok(Fd::from_raw_high(fd as i32))
    }
}

/// Raises the limit of open files to what the process may have; returns it.
pub fn raise_file_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure outlives the calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            let most = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const most) == 0 {
                return most.rlim_cur;
            }
        }
    }
    limit.rlim_cur
}

/// The network namespace of the calling thread, as a descriptor.
pub fn namespace() -> Result<Fd, Errno> {
    let path = c"/proc/thread-self/ns/net";
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    // SAFETY: the path is a C string; the new descriptor is ours.
    unsafe {
        syscall(libc::SYS_openat, [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0, 0])
            .map(|fd| Fd::from_raw_high(fd as RawFd))
    }
}

/// The network namespace at `path`, of a process or a mount.
pub fn open_namespace(path: &std::path::Path) -> Result<Fd, Errno> {
    let path = c_path(path)?;
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    // SAFETY: the path is a C string; the new descriptor is ours.
    let opened = unsafe {
        syscall(libc::SYS_openat, [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0, 0])
            .map(|fd| Fd::from_raw(fd as RawFd))
    };
    opened.and_then(|fd| if is_namespace(&fd) { Ok(fd) } else { Err(Errno(libc::EINVAL)) })
}

/// Whether `fd` is a network namespace: `NS_GET_NSTYPE`.
pub fn is_namespace(fd: &Fd) -> bool {
    const NS_GET_NSTYPE: usize = 0xb703;
    // SAFETY: the request takes no argument.
    let kind = unsafe { syscall(libc::SYS_ioctl, [fd.as_raw_fd() as usize, NS_GET_NSTYPE, 0, 0, 0, 0]) };
    kind == Ok(libc::CLONE_NEWNET as usize)
}

/// Whether some thread of process `pid` is in the network namespace `fd`.
pub fn lives_in(pid: i32, fd: &Fd) -> bool {
    let Ok(wanted) = identity(fd.as_raw_fd()) else { return false };
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.take(4096).any(|thread| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(thread.path().join("ns/net")).is_ok_and(|m| (m.dev(), m.ino()) == wanted)
    })
}

/// Keeps the calling thread in another network namespace until it is dropped.
#[derive(Debug)]
pub struct Inside(Fd);

/// Moves the calling thread into a network namespace, for good. `EPERM`: it may not.
pub fn enter_namespace(fd: &Fd) -> Result<(), Errno> {
    // SAFETY: takes integers.
    unsafe { syscall(libc::SYS_setns, [fd.as_raw_fd() as usize, libc::CLONE_NEWNET as usize, 0, 0, 0, 0]).map(drop) }
}

impl Inside {
    /// Moves the calling thread into the namespace `fd`; `None` if it is there already. `EPERM`: it may not.
    pub fn enter(fd: &Fd) -> Result<Option<Inside>, Error> {
        let failed = |call| move |e| Error::new(call, "a network namespace", e);
        let home = namespace().map_err(failed("open"))?;
        let same = identity(home.as_raw_fd()).ok() == identity(fd.as_raw_fd()).ok();
        if same {
            return Ok(None);
        }
        enter_namespace(fd).map_err(failed("setns"))?;
        Ok(Some(Inside(home)))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if enter_namespace(&self.0).is_err() {
            // Whatever came next would happen to the wrong interfaces.
            std::process::abort();
        }
    }
}

/// Number of the user called `name`, or of the number that `name` is.
pub fn uid_of(name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| look_up("/etc/passwd", name))
}

/// Number of the group called `name`, or of the number that `name` is.
pub fn gid_of(name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| look_up("/etc/group", name))
}

/// The third field of the line of `file` that starts with `name`.
fn look_up(file: &str, name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split(':').nth(1)?.parse().ok()
}

/// The effective user of this process.
pub fn effective_uid() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}
