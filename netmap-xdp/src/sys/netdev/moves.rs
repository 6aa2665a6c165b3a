//! Where an interface goes that somebody moves to another network namespace.
//!
//! The kernel tells listeners in the old namespace as it happens: `RTM_DELLINK` with the new namespace, by the number that the
//! old one has for it, and the new index. Nothing opens a namespace by such a number, so all that can be reached (of
//! processes, and those mounted by `ip netns`) are asked theirs. Called by the guard of offloads, a process of one thread,
//! which moves along.

use super::rtnl::{self, Rtnl, attribute, i32_of};
use crate::sys::{Errno, Error, Fd, enter_namespace, identity, open_namespace};
use std::collections::HashSet;
use std::os::fd::{AsRawFd, RawFd};

const RTMGRP_LINK: u32 = 1;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// Namespaces that are asked at most.
const MOST: usize = 4096;

/// An interface, and what tells where it goes.
pub struct Trail {
    ifindex: u32,
    notices: Rtnl,
}

/// What a notice says of an interface that has left: the namespace it is in now, and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    pub namespace: i32,
    pub ifindex: u32,
}

impl Trail {
    /// Of an interface of the calling thread's network namespace.
    pub fn open(ifindex: u32) -> Result<Trail, Error> {
        Ok(Trail { ifindex, notices: Rtnl::listening(RTMGRP_LINK)? })
    }

    /// One that another process opened and passed on, by its descriptor.
    pub fn of(notices: Fd, ifindex: u32) -> Trail {
        Trail { ifindex, notices: Rtnl::of(notices) }
    }

    /// Readable when there may be news.
    pub fn fd(&self) -> RawFd {
        self.notices.fd()
    }

    /// The index of the interface, in the namespace of the calling thread.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Reads the news, and moves the calling thread to where the interface is now; returns whether that is another place
    /// than before. An error: it is out of reach.
    pub fn follow(&mut self) -> Result<bool, Error> {
        let mut before: Option<(Rtnl, i32)> = None;
        // Somebody may go on moving it for ever.
        for _ in 0..MOST {
            let own = || number_of(&Rtnl::open().ok()?, &open_namespace("/proc/thread-self/ns/net".as_ref()).ok()?);
            let here = |number: Option<i32>| number.is_none() || number == own();
            // What left again before it was listened to there was heard from where it came from.
            let gone = self.notices.departure(here, self.ifindex).or_else(|| {
                let (notices, there) = before.as_ref()?;
                notices.departure(|number| number == Some(*there), self.ifindex)
            });
            let Some(gone) = gone else { return Ok(before.is_some()) };
            let failed = |e| Error::new("RTM_GETNSID", format!("of namespace {}", gone.namespace), e);
            let there = find(gone.namespace).ok_or(failed(Errno(libc::ENOENT)))?;
            enter_namespace(&there).map_err(|e| Error::new("setns", "to where an interface was moved", e))?;
            let next = Trail::open(gone.ifindex)?;
            before = Some((std::mem::replace(self, next).notices, gone.namespace));
        }
        Ok(true)
    }
}

/// The namespace that the calling thread's has this number for.
fn find(number: i32) -> Option<Fd> {
    let rtnl = Rtnl::open().ok()?;
    let mut seen = HashSet::new();
    let of_processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.path().join("ns/net"));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().filter(|line| line.contains(" - nsfs ")).filter_map(|line| line.split(' ').nth(4));
    let all = mounted.map(Into::into).chain(of_processes);
    all.filter_map(|path: std::path::PathBuf| open_namespace(&path).ok())
        .filter(|fd| identity(fd.as_raw_fd()).is_ok_and(|id| seen.insert(id)))
        .take(MOST)
        .find(|fd| number_of(&rtnl, fd) == Some(number))
}

/// The number of a namespace in that of `rtnl`, if it has one.
fn number_of(rtnl: &Rtnl, namespace: &Fd) -> Option<i32> {
    let mut body = vec![0; 4]; // rtgenmsg: family, padding
    attribute(&mut body, NETNSA_FD, &(namespace.as_raw_fd() as u32).to_ne_bytes());
    let answer = rtnl.ask(RTM_GETNSID, RTM_NEWNSID, &body).ok()?;
    let attributes = rtnl::Attributes::new(answer.get(4..)?);
    let (_, value) = attributes.flatten().find(|(kind, _)| *kind == NETNSA_NSID)?;
    i32_of(value)
}
