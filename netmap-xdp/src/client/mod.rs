//! netmap file descriptors of this process: what `/dev/netmap` would be if it existed.
//!
//! The shims of the cdylib call the functions here; they return `None` when a descriptor (or a range of them) is not
//! netmap's, and the shim then calls libc. [`Binding`] is the same without a descriptor, for the Rust API.
//!
//! ```text
//! table     fd number -> Binding; read without locks
//! binding   one open of /dev/netmap: registration, sync, what poll answers
//! serve     its control requests
//! extmem    memory that a registration brings
//! epolls    epoll sets that hold netmap descriptors
//! ears      what a sleeper on bound rings watches
//! csb       cursors in memory of the program; kloop, the loop that works on them
//! wait      poll over netmap descriptors and others at once
//! mappings  which address ranges keep a binding alive
//! host      the engine inside this process
//! uplink    the way from NIC rings to the host, for NR_FORWARD
//! vale      how senders of this process reach the other ports of a switch
//! remote    the engine in netmapd: this process's connection to it
//! launch    finding netmapd, and starting it
//! ```
//! The data path runs in the calling thread and takes no lock but that of the ring.

mod binding;
mod csb;
mod ears;
mod epolls;
mod extmem;
mod host;
mod kloop;
mod launch;
mod mappings;
mod remote;
mod serve;
mod table;
mod uplink;
mod vale;
mod wait;

pub use binding::{Binding, Bound};
pub use epolls::{
    closed as epoll_closed, copied as epoll_copied, epoll_ctl, epoll_wait, nudged as epoll_nudged, watches as is_epoll,
};
pub use host::{ask, buf_size, settled, settled_in, status};
pub use mappings::touches as touches_mapping;
pub use remote::{Outlook, outlook};
pub use wait::wait;

use crate::abi::{NIOCRXSYNC, NIOCTXSYNC};
use crate::proto::TOKEN_NAME;
use crate::ring::Dir;
use crate::sys::{self, Errno};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Whether this process has any netmap descriptor or mapping, or a descriptor that serves one: one relaxed load, for shims
/// that want out of the way.
#[inline]
pub fn in_use() -> bool {
    sys::any_internal()
}

/// Whether `fd` is netmap's. Takes no lock.
#[inline]
pub fn is_netmap(fd: RawFd) -> bool {
    table::get(fd).is_some()
}

/// Whether netmap-xdp itself needs `fd`: a program that closes descriptors blindly gets `EBADF` for it.
#[inline]
pub fn is_internal(fd: RawFd) -> bool {
    sys::is_internal(fd)
}

/// The first such number in `from..=last`.
pub fn next_internal(from: u32, last: u32) -> Option<RawFd> {
    sys::next_internal(from, last)
}

/// Requests that the file layer of the kernel answers for every descriptor.
const EVERY_FILE: [u64; 4] = [libc::FIOCLEX, libc::FIONCLEX, libc::FIONBIO, libc::FIOASYNC];

/// `open("/dev/netmap", flags)`: `O_CLOEXEC` and `O_NONBLOCK` count.
pub fn open(flags: i32) -> Result<RawFd, Errno> {
    if remote::chosen() {
        return open_remote(flags);
    }
    let mut kind = 0;
    if flags & libc::O_CLOEXEC != 0 {
        kind |= libc::SOCK_CLOEXEC;
    }
    if flags & libc::O_NONBLOCK != 0 {
        kind |= libc::SOCK_NONBLOCK;
    }
    let (ours, engines) = sys::socket_pair(kind)?;
    let fd = ours.into_raw();
    if !table::set(fd, Some(Arc::new(Binding::new(Some(engines))))) {
        sys::close(fd);
        return Err(Errno(libc::EMFILE));
    }
    Ok(fd)
}

/// The same with netmapd, from which the descriptor comes.
fn open_remote(flags: i32) -> Result<RawFd, Errno> {
    let fd = remote::open(false).map_err(|failure| {
        binding::tell(&failure);
        failure.errno
    })?;
    if flags & libc::O_NONBLOCK != 0 {
        sys::set_status(fd.as_raw_fd(), libc::O_RDWR | libc::O_NONBLOCK)?;
    }
    if flags & libc::O_CLOEXEC == 0 {
        sys::set_cloexec(fd.as_raw_fd(), false)?;
    }
    let binding = Arc::new(Binding::remote(fd.try_clone()?));
    if !table::set(fd.as_raw_fd(), Some(binding)) {
        return Err(Errno(libc::EMFILE));
    }
    Ok(fd.into_raw())
}

/// Whether `fd`, which this process has not opened, is netmapd's: it came by `SCM_RIGHTS` or over `exec`. If so it is
/// netmap's from now on.
///
/// To be asked when a netmap call arrives on a descriptor that is not known.
#[cold]
pub fn adopt(fd: RawFd) -> bool {
    let ours = |name: String| name.starts_with(TOKEN_NAME);
    if !remote::chosen() || !sys::own_memory() || is_netmap(fd) || !sys::peer_name(fd).is_some_and(ours) {
        return false;
    }
    let Ok(inode) = sys::identity(fd) else { return false };
    let known = table::find_binding(|b| b.is_for(inode));
    let binding = match known {
        Some(binding) => binding,
        None => match sys::duplicate(fd) {
            Ok(token) => Arc::new(Binding::remote(token)),
            Err(_) => return false,
        },
    };
    table::set(fd, Some(binding))
}

/// `ioctl`. `arg` is the program's pointer, whose memory is copied with checks.
#[inline]
pub fn ioctl(fd: RawFd, request: u64, arg: usize) -> Option<Result<i32, Errno>> {
    let mut entry = table::get(fd);
    if !entry.is_some() && adopt(fd) {
        entry = table::get(fd);
    }
    let binding = entry.as_ref()?;
    Some(match request & 0xffff_ffff {
        NIOCTXSYNC => binding.sync(Dir::Tx),
        NIOCRXSYNC => binding.sync(Dir::Rx),
        other if EVERY_FILE.contains(&other) => return None,
        _ => binding.control(request, arg as u64),
    })
}

/// What to map in place of a netmap descriptor, with the same length, flags and offset; then say so with [`mapped`].
///
/// `EINVAL`: not bound, out of range, bound to memory of the program, or a private mapping, which would be a silent copy of
/// the rings.
pub fn mmap_target(fd: RawFd, len: usize, flags: i32, offset: i64) -> Option<Result<RawFd, Errno>> {
    let entry = table::get(fd);
    let binding = entry.as_ref()?;
    let target = binding.bound_by_anyone().ok_or(Errno(libc::EINVAL)).and_then(|b| {
        let end = u64::try_from(offset).ok().and_then(|o| o.checked_add(len as u64));
        let shared = flags & libc::MAP_TYPE != libc::MAP_PRIVATE;
        match end {
            Some(end) if shared && !b.extmem() && end <= b.reply().memsize => Ok(b.region().as_raw_fd()),
            _ => Err(Errno(libc::EINVAL)),
        }
    });
    Some(target)
}

/// A mapping of netmap descriptor `fd` was made; the port stays bound until it is unmapped.
pub fn mapped(fd: RawFd, addr: usize, len: usize) {
    if let Some(binding) = table::get(fd).as_ref() {
        mappings::add(addr, len, binding.clone());
    }
}

/// A range that [touches a mapping](touches_mapping) was unmapped.
pub fn unmapped(addr: usize, len: usize) {
    mappings::remove(addr, len);
}

/// `poll` and `ppoll` over netmap descriptors and others; `None` if there is no netmap descriptor among them.
pub fn poll(
    fds: &mut [libc::pollfd],
    timeout: Option<Duration>,
    sigmask: Option<&libc::sigset_t>,
) -> Option<Result<i32, Errno>> {
    if fds.iter().any(|p| is_epoll(p.fd)) {
        return Some(poll_sets(fds, timeout, sigmask));
    }
    if !fds.iter().any(|p| is_netmap(p.fd)) {
        return None;
    }
    Some(wait(fds, |_, fd| table::get(fd).as_ref().cloned(), timeout, sigmask))
}

/// The same with epoll sets that hold netmap descriptors: these are waited for too, and make the set readable.
#[cold]
fn poll_sets(
    fds: &mut [libc::pollfd],
    timeout: Option<Duration>,
    sigmask: Option<&libc::sigset_t>,
) -> Result<i32, Errno> {
    let (mut all, mut within) = (fds.to_vec(), Vec::new());
    for (i, p) in fds.iter().enumerate().filter(|(_, p)| p.events & libc::POLLIN != 0) {
        for (binding, events) in epolls::inside(p.fd) {
            all.push(libc::pollfd { fd: 0, events, revents: 0 });
            within.push((i, binding));
        }
    }
    let n = fds.len();
    let binding = |i: usize, fd| match i.checked_sub(n) {
        Some(i) => within.get(i).map(|(_, b)| b.clone()),
        None => table::get(fd).as_ref().cloned(),
    };
    wait(&mut all, binding, timeout, sigmask)?;
    for (p, found) in fds.iter_mut().zip(&all) {
        p.revents = found.revents;
    }
    for ((i, _), found) in within.iter().zip(&all[n..]) {
        if found.revents != 0 {
            fds[*i].revents |= libc::POLLIN;
        }
    }
    Ok(fds.iter().filter(|p| p.revents != 0).count() as i32)
}

/// `close`. A child of `vfork` only closes: the table is its parent's.
pub fn close(fd: RawFd) -> Option<Result<(), Errno>> {
    if !sys::own_memory() {
        return None;
    }
    let binding = table::take(fd)?;
    sys::close(fd);
    forget(binding);
    Some(Ok(()))
}

/// A number stands for `binding` no more.
fn forget(binding: Arc<Binding>) {
    epolls::gone(&binding);
    if binding.csb.running() && !table::holds(&binding) {
        // Its loop has no other way to end.
        binding.csb.ask_to_stop();
    }
}

/// Closes the netmap descriptors in `first..=last`; the others are the caller's.
pub fn close_range(first: u32, last: u32) {
    for fd in table::numbers(first, last) {
        close(fd);
    }
}

/// `dup`, `F_DUPFD`, `F_DUPFD_CLOEXEC`: the new number is `least` or more.
pub fn dup(fd: RawFd, least: RawFd, cloexec: bool) -> Option<Result<RawFd, Errno>> {
    let entry = table::get(fd);
    let binding = entry.as_ref().filter(|_| sys::own_memory())?;
    Some(sys::dup_from(fd, least, cloexec).and_then(|new| {
        if table::set(new, Some(binding.clone())) {
            return Ok(new);
        }
        sys::close(new);
        Err(Errno(libc::EMFILE))
    }))
}

/// `dup2` and `dup3` onto another number, where either end is netmap's.
pub fn dup_onto(old: RawFd, new: RawFd, cloexec: bool) -> Option<Result<RawFd, Errno>> {
    let from = table::get(old).as_ref().cloned();
    if (from.is_none() && !is_netmap(new)) || !sys::own_memory() {
        return None;
    }
    Some(sys::dup_onto(old, new, cloexec).and_then(|()| {
        let before = table::take(new);
        let fits = table::set(new, from);
        before.into_iter().for_each(forget);
        if fits { Ok(new) } else { Err(Errno(libc::EBADF)) }
    }))
}
