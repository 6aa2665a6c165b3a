//! Finding netmapd, and starting it when nobody answers.
//!
//! The lock file beside the socket lets one starter through and passes on to the daemon: of many programs that start at
//! once, one starts netmapd and all meet in it. Nothing else is done instead when that fails: the program is told how to
//! do without.

use super::remote::{Broken, Link};
use crate::ctl::Failure;
use crate::sys::{
    self, EngineChoice, Errno, LOCK_FD, Level, connect_to, effective_uid, executable, find_daemon, log, make_dir,
    monotonic, peer, program_name, settings, start_detached, try_lock_file,
};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The daemon of the machine, which root starts or a service manager.
const SYSTEM_SOCKET: &str = "/run/netmap-xdp/netmapd.sock";
/// How long a request may take.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a daemon may take to start.
const START: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(3);
/// How long a daemon that was started by a program stays without use, seconds.
const IDLE_EXIT: &str = "30";
/// Daemons that may die at their start before this gives up.
const STARTS: u32 = 3;

/// Nobody answers.
pub(super) struct Absent(pub Failure);

/// A place where a daemon may listen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    socket: PathBuf,
    /// Whether this user's program starts a daemon there.
    ours: bool,
    /// Whether a daemon of any user is believed, since somebody said so.
    named: bool,
}

/// The places to look at, in this order.
fn places() -> Vec<Place> {
    if let Some(socket) = settings().socket.clone() {
        return vec![Place { socket, ours: true, named: true }];
    }
    let uid = effective_uid();
    let system = Place { socket: SYSTEM_SOCKET.into(), ours: uid == 0, named: false };
    if uid == 0 {
        return vec![system];
    }
    let runtime = if sys::privileged_by_file() { None } else { std::env::var_os("XDG_RUNTIME_DIR") };
    let dir = match runtime.map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        Some(dir) => dir.join("netmap-xdp"),
        None => PathBuf::from(format!("/tmp/netmap-xdp-{uid}")),
    };
    vec![system, Place { socket: dir.join("netmapd.sock"), ours: true, named: false }]
}

/// Connects to a daemon that runs there. `Lost`: there is none.
fn knock(place: &Place) -> Result<Link, Broken> {
    let fd = connect_to(&place.socket, ANSWER)?;
    let owner = peer(&fd)?.uid;
    if !place.named && owner != 0 && owner != effective_uid() {
        let message =
            format!("{} belongs to user {owner}, who is neither root nor this user; remove it", place.socket.display());
        return Err(Broken::Nonsense(Failure { errno: Errno(libc::EPERM), message }));
    }
    Link::greet(fd, program_name())
}

/// Connects to a daemon that runs, and starts none.
pub(super) fn reach_quietly() -> Option<Link> {
    let all = places().into_iter();
    all.filter_map(|place| knock(&place).ok()).find(Link::admitted)
}

/// Connects, and starts a daemon if need be.
pub(super) fn reach() -> Result<Link, Absent> {
    let all = places();
    let may_start = settings().engine == EngineChoice::Auto;
    for (i, place) in all.iter().enumerate() {
        let last = i + 1 == all.len();
        match knock(place) {
            Ok(link) if link.admitted() || last => return Ok(link),
            Ok(_) => log(
                Level::Info,
                format_args!(
                    "netmapd at {} does not admit user {} (see its group); using one of this user's own, which cannot \
                     bind interfaces",
                    place.socket.display(),
                    effective_uid()
                ),
            ),
            Err(Broken::Nonsense(failure)) => return Err(Absent(failure)),
            Err(Broken::Lost(_)) if place.ours && may_start => return start(place),
            Err(Broken::Lost(errno)) if last => {
                return Err(absent(&format!("nobody answers at {} ({errno})", place.socket.display())));
            }
            Err(Broken::Lost(_)) => {}
        }
    }
    Err(absent("there is nowhere to look for it"))
}

/// What became of the look at one place.
pub(super) enum Look {
    /// Nobody answers there.
    Nobody(PathBuf, Errno),
    /// Somebody who makes no sense.
    Nonsense(PathBuf, Failure),
    /// A daemon.
    Daemon(PathBuf, Link),
}

/// Looks at all places, and starts nothing.
pub(super) fn survey() -> Vec<Look> {
    let look = |place: Place| match knock(&place) {
        Ok(link) => Look::Daemon(place.socket, link),
        Err(Broken::Nonsense(failure)) => Look::Nonsense(place.socket, failure),
        Err(Broken::Lost(errno)) => Look::Nobody(place.socket, errno),
    };
    places().into_iter().map(look).collect()
}

/// Connects to a daemon that runs, and starts none.
pub(super) fn reach_running() -> Result<Link, Absent> {
    let mut why = absent("there is nowhere to look for it");
    let mut stranger = None;
    for look in survey() {
        match look {
            Look::Daemon(_, link) if link.admitted() => return Ok(link),
            Look::Daemon(_, link) => stranger = stranger.or(Some(link)),
            Look::Nonsense(_, failure) => return Err(Absent(failure)),
            Look::Nobody(at, errno) => why = absent(&format!("nobody answers at {} ({errno})", at.display())),
        }
    }
    stranger.ok_or(why)
}

fn absent(why: &str) -> Absent {
    Absent(Failure {
        errno: Errno(libc::ENXIO),
        message: format!(
            "no netmapd: {why}; start it (`netmapd`, or `systemctl start netmapd`), or set \
             NETMAP_XDP_ENGINE=embedded to do without, alone in this process"
        ),
    })
}

/// Starts a daemon at `place`, unless somebody else just does, and connects to it.
fn start(place: &Place) -> Result<Link, Absent> {
    let failed = |e: sys::Error| absent(&format!("it cannot be started: {e}"));
    let (lock_file, log_file) = (place.socket.with_extension("lock"), place.socket.with_extension("log"));
    if let Some(dir) = place.socket.parent() {
        make_dir(dir, if effective_uid() == 0 || place.named { 0o755 } else { 0o700 }).map_err(failed)?;
        private(dir, place).map_err(failed)?;
    }
    let end = monotonic() + START;
    let mut starts = 0;
    let mut program = None;
    loop {
        match knock(place) {
            Ok(link) => return Ok(link),
            Err(Broken::Nonsense(failure)) => return Err(Absent(failure)),
            Err(Broken::Lost(_)) => {}
        }
        // Whoever has the lock is a daemon, or about to become one.
        if let Some(lock) = try_lock_file(&lock_file).map_err(failed)? {
            if starts == STARTS {
                return Err(absent(&format!("it ends as soon as it is started; see {}", log_file.display())));
            }
            starts += 1;
            let program = match &program {
                Some(program) => program,
                None => program.insert(find()?),
            };
            start_detached(program, &arguments(place), &environment(), &lock, &log_file).map_err(failed)?;
        }
        if monotonic() >= end {
            return Err(absent(&format!("it was started and does not answer; see {}", log_file.display())));
        }
        std::thread::sleep(STEP);
    }
}

/// In a directory that another user owns, that user could listen in the daemon's place.
fn private(dir: &Path, place: &Place) -> Result<(), sys::Error> {
    use std::os::unix::fs::MetadataExt;
    let failed = |errno| sys::Error::new("stat", dir.display().to_string(), errno);
    let facts = std::fs::symlink_metadata(dir).map_err(|e| failed(Errno(e.raw_os_error().unwrap_or(libc::EIO))))?;
    let owned = facts.is_dir() && (facts.uid() == effective_uid() || facts.uid() == 0);
    if owned || place.named { Ok(()) } else { Err(failed(Errno(libc::EPERM))) }
}

/// The daemon's program.
fn find() -> Result<PathBuf, Absent> {
    if let Some(set) = &settings().daemon
        && !executable(set)
    {
        return Err(absent(&format!("NETMAP_XDP_DAEMON={} cannot be executed", set.display())));
    }
    find_daemon().ok_or_else(|| {
        absent(
            "it cannot be started, since the program netmapd is neither beside the library nor in PATH \
                (NETMAP_XDP_DAEMON says where it is)",
        )
    })
}

fn c(text: impl AsRef<std::ffi::OsStr>) -> CString {
    // No text here has a zero byte: they come from the environment and from us.
    CString::new(text.as_ref().as_bytes()).unwrap_or_default()
}

fn arguments(place: &Place) -> Vec<CString> {
    let mut all = vec![c("netmapd"), c("--foreground"), c("--socket"), c(&place.socket)];
    all.extend([c("--lock-fd"), c(LOCK_FD.to_string()), c("--idle-exit"), c(IDLE_EXIT)]);
    all
}

/// What of the program's environment is the daemon's too: no preload, and of netmap's settings those of the engine.
fn environment() -> Vec<CString> {
    let ours = [
        "NETMAP_XDP_LOG",
        "NETMAP_XDP_MODE",
        "NETMAP_XDP_BUFFERS",
        "NETMAP_XDP_SLOTS",
        "NETMAP_XDP_UMEM",
        "NETMAP_XDP_BIND",
    ];
    let mut all = vec![c("PATH=/usr/sbin:/usr/bin:/sbin:/bin")];
    if !sys::privileged_by_file() {
        all.extend(ours.iter().filter_map(|name| Some(c(format!("{name}={}", std::env::var(name).ok()?)))));
    }
    all
}
