//! Receive offloads that come back, however the process ends that switched them off: a small process of its own waits for the
//! last copy of a descriptor to be closed, and then restores them. It is `netmapd --guard`, started detached, in the
//! interface's network namespace, and follows the interface to others.

use super::netdev::{Offloads, Trail, Watch};
use super::{
    Error, Fd, LOCK_FD, find_daemon, inherited, ppoll, receive_message, retry, send_message, socket_pair,
    start_detached, syscall,
};
use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

/// Offloads that were switched off, and who restores them.
pub struct Guarded {
    offloads: Offloads,
    /// As long as a copy is open, they stay off.
    keep: Option<Arc<Fd>>,
}

impl Guarded {
    /// Has `offloads` of an interface of the calling thread's network namespace watched. Without a guard, since netmapd is
    /// not installed for one, only [`Guarded::restore`] restores them.
    pub fn new(offloads: Offloads, ifindex: u32) -> Guarded {
        Guarded { offloads, keep: start(offloads, ifindex).ok().flatten().map(Arc::new) }
    }

    /// For whoever needs the offloads off, to hold; none if nobody watches.
    pub fn keep(&self) -> Option<&Arc<Fd>> {
        self.keep.as_ref()
    }

    /// Restores them now. An interface that was moved to another namespace is left to the guard, which does it as soon as
    /// nobody needs them off. `ENODEV`: without a guard, it is gone or was moved.
    pub fn restore(self, at: &Watch) -> Result<(), Error> {
        let done = self.offloads.restore(at);
        if let Some(keep) = &self.keep {
            if matches!(&done, Err(e) if e.errno.0 == libc::ENODEV) {
                return Ok(());
            }
            let word = b"d";
            let args = [keep.as_raw_fd() as usize, word.as_ptr() as usize, 1, libc::MSG_NOSIGNAL as usize, 0, 0];
            // SAFETY: one byte that outlives the call. A guard that has died needs no word.
            let _ = retry(|| unsafe { syscall(libc::SYS_sendto, args) });
        }
        done
    }
}

fn start(offloads: Offloads, ifindex: u32) -> Result<Option<Fd>, Error> {
    let Some(program) = find_daemon() else { return Ok(None) };
    let (ours, theirs) = socket_pair(libc::SOCK_CLOEXEC).map_err(|e| Error::new("socketpair", "of a guard", e))?;
    let words = ["netmapd".to_string(), "--guard".to_string(), format!("{ifindex},{}", offloads.to_text())];
    // No text here has a zero byte.
    let args = words.map(|w| CString::new(w).unwrap_or_default());
    start_detached(&program, &args, &[], &theirs, Path::new("/dev/null"))?;
    // Listened to from now on, and not from when the guard has come to it.
    let trail = Trail::open(ifindex)?;
    send_message(&ours, b"t", &[trail.fd()], 0).map_err(|e| Error::new("sendmsg", "to a guard", e))?;
    Ok(Some(ours.high()))
}

/// The guard's life; `what` is what the other side put on its command line.
pub fn guard(what: &str) -> Result<(), String> {
    let understood = what.split_once(',').and_then(|(i, rest)| Some((i.parse().ok()?, Offloads::from_text(rest)?)));
    let (ifindex, offloads): (u32, Offloads) = understood.ok_or(format!("--guard does not mean {what:?}"))?;
    let fd = inherited(LOCK_FD).map_err(|e| format!("descriptor {LOCK_FD}: {e}"))?;
    let mut word = [0u8; 1];
    let first = receive_message(&fd, &mut word, 0, true).map_err(|e| format!("recvmsg: {e}"))?;
    let trail = first.fds.into_iter().next().map_or_else(|| Trail::open(ifindex), |fd| Ok(Trail::of(fd, ifindex)));
    let mut trail = trail.map_err(|e| e.to_string())?;
    loop {
        let wanted = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [wanted(fd.as_raw_fd()), wanted(trail.fd())];
        retry(|| ppoll(&mut fds, None, None)).map_err(|e| format!("poll: {e}"))?;
        // An interface that is out of reach cannot be helped.
        trail.follow().map_err(|e| e.to_string())?;
        if fds[0].revents != 0 {
            break;
        }
    }
    let args = [fd.as_raw_fd() as usize, word.as_mut_ptr() as usize, 1, 0, 0, 0];
    // SAFETY: room for one byte.
    match retry(|| unsafe { syscall(libc::SYS_read, args) }) {
        Ok(1) => Ok(()),
        // The last copy was closed, by whatever death.
        _ => restore(&offloads, &mut trail).map_err(|e| e.to_string()),
    }
}

/// Where the interface is, also if it is moved meanwhile.
fn restore(offloads: &Offloads, trail: &mut Trail) -> Result<(), Error> {
    loop {
        let restored = Watch::open(trail.ifindex()).and_then(|at| offloads.restore(&at));
        if restored.is_ok() || !trail.follow()? {
            return restored;
        }
    }
}
