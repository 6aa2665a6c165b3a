//! Unix sockets that keep message boundaries, with descriptors and credentials passed along.
//!
//! Nothing here blocks longer than the socket's own time limits, and nothing is trusted: a peer may send any number of
//! bytes and descriptors, and gets told apart by what the kernel says of it.

use super::{Errno, Error, Fd, retry, syscall};
use std::ffi::OsStr;
use std::mem::size_of;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most descriptors that the kernel takes in one message (`SCM_MAX_FD`).
pub const MOST_FDS: usize = 253;
const HEAD: usize = size_of::<libc::cmsghdr>();
/// Room for one control message with [`MOST_FDS`] descriptors, in words so that it is aligned.
const CONTROL: usize = (HEAD + MOST_FDS * 4).div_ceil(8);
/// `SO_PEERGROUPS`, from Linux 4.13.
const SO_PEERGROUPS: i32 = 59;

/// Who is at the other end of a socket, as it was when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id in our namespace; 0 if it has none there.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A message that came.
#[derive(Debug)]
pub struct Received {
    /// Its bytes; 0 at the end of the connection.
    pub len: usize,
    /// Its descriptors.
    pub fds: Vec<Fd>,
    /// Whether bytes or descriptors were cut off, since there were too many.
    pub cut: bool,
}

struct Address {
    raw: libc::sockaddr_un,
    len: usize,
}

impl Address {
    fn of(name: &[u8], terminated: bool) -> Result<Address, Errno> {
        // SAFETY: all zero bytes are a valid address.
        let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        raw.sun_family = libc::AF_UNIX as u16;
        if name.len() + usize::from(terminated) > raw.sun_path.len() {
            return Err(Errno(libc::ENAMETOOLONG));
        }
        for (to, from) in raw.sun_path.iter_mut().zip(name) {
            *to = *from as libc::c_char;
        }
        Ok(Address { raw, len: 2 + name.len() + usize::from(terminated) })
    }

    fn path(path: &Path) -> Result<Address, Errno> {
        Address::of(path.as_os_str().as_bytes(), true)
    }
}

fn seqpacket(flags: i32) -> Result<Fd, Errno> {
    let kind = (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | flags) as usize;
    // SAFETY: takes integers; the new descriptor is ours.
    unsafe {
        syscall(libc::SYS_socket, [libc::AF_UNIX as usize, kind, 0, 0, 0, 0]).map(|fd| Fd::from_raw_high(fd as i32))
    }
}

fn bind(fd: RawFd, address: &Address) -> Result<(), Errno> {
    // SAFETY: the address outlives the call and is as long as told.
    unsafe { syscall(libc::SYS_bind, [fd as usize, &raw const address.raw as usize, address.len, 0, 0, 0]).map(drop) }
}

/// A listening socket at `path`, open to every user of the machine; whoever owns the path has removed what was there.
pub fn listen_at(path: &Path) -> Result<Fd, Error> {
    let failed = |call| move |e| Error::new(call, path.display().to_string(), e);
    let fd = seqpacket(libc::SOCK_NONBLOCK).map_err(failed("socket"))?;
    bind(fd.as_raw_fd(), &Address::path(path).map_err(failed("bind"))?).map_err(failed("bind"))?;
    let name = c_path(path).map_err(failed("chmod"))?;
    // SAFETY: a C string and integers.
    unsafe {
        syscall(libc::SYS_fchmodat, [libc::AT_FDCWD as usize, name.as_ptr() as usize, 0o666, 0, 0, 0])
            .map_err(failed("chmod"))?;
        syscall(libc::SYS_listen, [fd.as_raw_fd() as usize, 128, 0, 0, 0, 0]).map_err(failed("listen"))?;
    }
    Ok(fd)
}

/// Takes a connection, not blocking; `EAGAIN` if there is none.
pub fn accept(listener: &Fd) -> Result<Fd, Errno> {
    let flags = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as usize;
    // SAFETY: no address is asked for; the new descriptor is ours.
    unsafe {
        syscall(libc::SYS_accept4, [listener.as_raw_fd() as usize, 0, 0, flags, 0, 0])
            .map(|fd| Fd::from_raw_high(fd as i32))
    }
}

/// Connects to the listener at `path`; sends and receives wait for `limit` at most, and then give `EAGAIN`.
pub fn connect_to(path: &Path, limit: Duration) -> Result<Fd, Errno> {
    let fd = seqpacket(0)?;
    let limit = libc::timeval { tv_sec: limit.as_secs() as i64, tv_usec: limit.subsec_micros().into() };
    for option in [libc::SO_SNDTIMEO, libc::SO_RCVTIMEO] {
        let (at, size) = (&raw const limit as usize, size_of::<libc::timeval>());
        // SAFETY: the value outlives the call and its size is told.
        unsafe {
            let args = [fd.as_raw_fd() as usize, libc::SOL_SOCKET as usize, option as usize, at, size, 0];
            syscall(libc::SYS_setsockopt, args)?;
        }
    }
    let address = Address::path(path)?;
    // SAFETY: the address outlives the call and is as long as told.
    retry(|| unsafe {
        syscall(libc::SYS_connect, [fd.as_raw_fd() as usize, &raw const address.raw as usize, address.len, 0, 0, 0])
    })?;
    Ok(fd)
}

/// Gives a socket a name in the abstract namespace, which its peer can ask for.
pub fn name_socket(fd: &Fd, name: &str) -> Result<(), Errno> {
    bind(fd.as_raw_fd(), &Address::of(format!("\0{name}").as_bytes(), false)?)
}

/// A socket with a name in the abstract namespace of the calling thread's network namespace, for as long as it is open.
/// `EADDRINUSE`: somebody has one.
pub fn bind_abstract(name: &str) -> Result<Fd, Errno> {
    let (end, _) = super::socket_pair(libc::SOCK_CLOEXEC)?;
    name_socket(&end, name)?;
    Ok(end.high())
}

fn named(fd: RawFd, call: libc::c_long) -> Option<Vec<u8>> {
    // SAFETY: all zero bytes are a valid address.
    let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: address and length outlive the call; the kernel writes at most that length.
    unsafe { syscall(call, [fd as usize, &raw mut raw as usize, &raw mut len as usize, 0, 0, 0]).ok()? };
    if i32::from(raw.sun_family) != libc::AF_UNIX {
        return None;
    }
    let n = (len as usize).saturating_sub(2).min(raw.sun_path.len());
    Some(raw.sun_path[..n].iter().map(|&c| c as u8).collect())
}

/// The abstract name of the socket that `fd` is connected to; `None` if `fd` is no Unix socket or that one has no such name.
pub fn peer_name(fd: RawFd) -> Option<String> {
    let name = named(fd, libc::SYS_getpeername)?;
    String::from_utf8(name.strip_prefix(b"\0")?.to_vec()).ok()
}

/// The path that a socket is bound to, if it is bound to one.
pub fn path_of(fd: RawFd) -> Option<PathBuf> {
    let name = named(fd, libc::SYS_getsockname)?;
    let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    (end > 0).then(|| PathBuf::from(OsStr::from_bytes(&name[..end])))
}

/// Whether `fd` is a listening socket that keeps message boundaries, as a service manager passes it.
pub fn is_listener(fd: RawFd) -> bool {
    let option = |option: i32| {
        let (mut value, mut len) = (0i32, 4u32);
        let args =
            [fd as usize, libc::SOL_SOCKET as usize, option as usize, &raw mut value as usize, &raw mut len as usize];
        // SAFETY: value and length outlive the call.
        unsafe { syscall(libc::SYS_getsockopt, [args[0], args[1], args[2], args[3], args[4], 0]) }.ok().map(|_| value)
    };
    option(libc::SO_TYPE) == Some(libc::SOCK_SEQPACKET) && option(libc::SO_ACCEPTCONN) == Some(1)
}

/// Who is at the other end.
pub fn peer(fd: &Fd) -> Result<Peer, Errno> {
    let get = |option: i32, at: usize, room: usize| {
        let mut len = room as libc::socklen_t;
        let args = [fd.as_raw_fd() as usize, libc::SOL_SOCKET as usize, option as usize, at, &raw mut len as usize, 0];
        // SAFETY: `at` has `room` bytes (both callers), and the kernel writes at most that.
        unsafe { syscall(libc::SYS_getsockopt, args).map(|_| len as usize) }
    };
    let mut cred = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    get(libc::SO_PEERCRED, &raw mut cred as usize, size_of::<libc::ucred>())?;
    let mut groups = vec![0u32; 256];
    // More groups than that: those beyond do not count, and neither does any on a kernel that cannot tell.
    let n = get(SO_PEERGROUPS, groups.as_mut_ptr() as usize, 4 * groups.len()).unwrap_or(0) / 4;
    groups.truncate(n);
    Ok(Peer { pid: cred.pid, uid: cred.uid, gid: cred.gid, groups })
}

/// Sends one message. `flags` are `MSG_*`; no `SIGPIPE` ever comes of it.
pub fn send_message(fd: &Fd, bytes: &[u8], fds: &[RawFd], flags: i32) -> Result<(), Errno> {
    if fds.len() > MOST_FDS {
        return Err(Errno(libc::EINVAL));
    }
    let mut control = [0u64; CONTROL];
    let length = HEAD + fds.len() * 4;
    // `struct cmsghdr` of 64-bit Linux, word by word: length, then level and type.
    control[0] = length as u64;
    control[1] = u64::from_ne_bytes(pair(libc::SOL_SOCKET, libc::SCM_RIGHTS));
    for (i, fd) in fds.iter().enumerate() {
        let shift = (i % 2) * 32;
        control[2 + i / 2] |= u64::from(*fd as u32) << if cfg!(target_endian = "little") { shift } else { 32 - shift };
    }
    let mut part = libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    // SAFETY: all zero bytes are a valid header.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = length.next_multiple_of(8) as _;
    }
    let flags = (flags | libc::MSG_NOSIGNAL) as usize;
    // SAFETY: the header and all it points at outlive the call; the bytes are only read.
    retry(|| unsafe {
        syscall(libc::SYS_sendmsg, [fd.as_raw_fd() as usize, &raw const message as usize, flags, 0, 0, 0])
    })
    .map(drop)
}

fn pair(a: i32, b: i32) -> [u8; 8] {
    let mut both = [0; 8];
    both[..4].copy_from_slice(&a.to_ne_bytes());
    both[4..].copy_from_slice(&b.to_ne_bytes());
    both
}

/// Receives one message. Descriptors are close-on-exec; `high` moves them out of the program's way, else they have the
/// lowest free numbers, as `open` would give them.
pub fn receive_message(fd: &Fd, into: &mut [u8], flags: i32, high: bool) -> Result<Received, Errno> {
    let mut control = [0u64; CONTROL];
    let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: all zero bytes are a valid header.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<[u64; CONTROL]>() as _;
    let flags = (flags | libc::MSG_CMSG_CLOEXEC) as usize;
    // SAFETY: the header and all it points at outlive the call; the kernel writes no more than the lengths say.
    let len = retry(|| unsafe {
        syscall(libc::SYS_recvmsg, [fd.as_raw_fd() as usize, &raw mut message as usize, flags, 0, 0, 0])
    })?;
    let cut = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    let mut fds = Vec::new();
    let filled = (message.msg_controllen as usize).min(size_of::<[u64; CONTROL]>());
    if filled >= HEAD && control[1] == u64::from_ne_bytes(pair(libc::SOL_SOCKET, libc::SCM_RIGHTS)) {
        let bytes = (control[0] as usize).min(filled).saturating_sub(HEAD);
        for i in 0..bytes / 4 {
            let word = control[2 + i / 2].to_ne_bytes();
            let at = (i % 2) * 4;
            let raw = i32::from_ne_bytes([word[at], word[at + 1], word[at + 2], word[at + 3]]);
            // SAFETY: the kernel made this descriptor for us with this message.
            fds.push(unsafe { if high { Fd::from_raw_high(raw) } else { Fd::from_raw(raw) } });
        }
    }
    Ok(Received { len, fds, cut })
}

/// A path as a C string. `EINVAL`: it has a zero byte.
pub fn c_path(path: &Path) -> Result<std::ffi::CString, Errno> {
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{identity, socket_pair};

    fn seq_pair() -> (Fd, Fd) {
        let thread = format!("{:?}", std::thread::current().id()).replace(|c: char| !c.is_ascii_digit(), "");
        let path = std::env::temp_dir().join(format!("nmx-unix-{}-{thread}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = listen_at(&path).unwrap();
        let near = connect_to(&path, Duration::from_secs(5)).unwrap();
        let far = accept(&listener).unwrap();
        std::fs::remove_file(&path).unwrap();
        (near, far)
    }

    #[test]
    fn messages_keep_their_bounds_and_their_descriptors() {
        let (near, far) = seq_pair();
        for n in [0, 1, 2, 3, 252, 253] {
            let (file, _other) = socket_pair(libc::SOCK_CLOEXEC).unwrap();
            send_message(&near, &[7; 11], &vec![file.as_raw_fd(); n], 0).unwrap();
            let mut buffer = [0; 64];
            let got = receive_message(&far, &mut buffer, 0, true).unwrap();
            assert_eq!((got.len, got.fds.len(), got.cut, buffer[10]), (11, n, false, 7));
            let id = identity(file.as_raw_fd()).unwrap();
            assert!(got.fds.iter().all(|fd| identity(fd.as_raw_fd()).unwrap() == id && fd.as_raw_fd() >= 512));
        }
        assert!(send_message(&near, &[1], &[0; 254], 0).is_err());
        send_message(&near, &[1; 100], &[], 0).unwrap();
        assert!(receive_message(&far, &mut [0; 10], 0, true).unwrap().cut);
        drop(near);
        assert_eq!(receive_message(&far, &mut [0; 10], 0, true).unwrap().len, 0);
    }

    #[test]
    fn the_kernel_tells_who_is_there() {
        let (near, far) = seq_pair();
        let me = peer(&far).unwrap();
        assert_eq!(me.pid, std::process::id() as i32);
        assert_eq!(peer(&near).unwrap().uid, me.uid);
    }

    #[test]
    fn the_end_of_a_pair_is_known_by_the_name_of_the_other() {
        let (near, far) = socket_pair(libc::SOCK_CLOEXEC).unwrap();
        assert_eq!(peer_name(near.as_raw_fd()), None);
        let name = format!("nmx-test/{}", std::process::id());
        name_socket(&far, &name).unwrap();
        assert_eq!(peer_name(near.as_raw_fd()), Some(name));
        assert_eq!(peer_name(2), None);
    }
}
