//! Classifiers on an interface without tcx (before Linux 6.6): a clsact qdisc and `bpf` filters on it, by rtnetlink.
//!
//! A filter belongs to the interface and stays when its maker is killed, unlike a link. Ours are known by their priority and
//! handle, so that the next to come can take them off. The engine's thread calls this, in the namespace of the interface.

use super::bpf::Tcx;
use super::rtnl::{Rtnl, attribute};
use crate::sys::Errno;
use std::os::fd::RawFd;

/// The parent of a clsact qdisc, and its handle.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

/// Where ours stand among filters; the handle spells it.
const PRIORITY: u32 = 0x4e4d;
const HANDLE: u32 = u32::from_be_bytes(*b"nmxd");

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// The program's answer is the verdict (`TCA_BPF_FLAG_ACT_DIRECT`).
const DIRECT: u32 = 1;
/// Filters see every protocol.
const ETH_P_ALL: u16 = 3;

fn parent(way: Tcx) -> u32 {
    match way {
        Tcx::Ingress => INGRESS,
        Tcx::Egress => EGRESS,
    }
}

/// `struct tcmsg`.
fn tcmsg(ifindex: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let words = [0, ifindex, handle, parent, info];
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

fn qdisc(ifindex: u32) -> Vec<u8> {
    let mut m = tcmsg(ifindex, CLSACT_HANDLE, CLSACT, 0);
    attribute(&mut m, TCA_KIND, b"clsact\0");
    m
}

fn filter(ifindex: u32, way: Tcx) -> Vec<u8> {
    let mut m = tcmsg(ifindex, HANDLE, parent(way), PRIORITY << 16 | u32::from(ETH_P_ALL.to_be()));
    attribute(&mut m, TCA_KIND, b"bpf\0");
    m
}

/// Makes the clsact qdisc; says whether it is new.
pub fn add_clsact(ifindex: u32) -> Result<bool, Errno> {
    let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
    match Rtnl::open().map_err(|e| e.errno)?.request(libc::RTM_NEWQDISC, flags, &qdisc(ifindex)) {
        Ok(()) => Ok(true),
        Err(Errno(libc::EEXIST)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes the qdisc, unless anybody has a filter on it.
pub fn remove_clsact(ifindex: u32) -> Result<(), Errno> {
    let rtnl = Rtnl::open().map_err(|e| e.errno)?;
    for way in [Tcx::Ingress, Tcx::Egress] {
        if rtnl.count(libc::RTM_GETTFILTER, libc::RTM_NEWTFILTER, &tcmsg(ifindex, 0, parent(way), 0))? > 0 {
            return Ok(());
        }
    }
    rtnl.request(libc::RTM_DELQDISC, 0, &qdisc(ifindex))
}

/// Puts a classifier on the qdisc, in place of one of ours.
pub fn add_filter(program: RawFd, name: &str, ifindex: u32, way: Tcx) -> Result<(), Errno> {
    let mut options = Vec::new();
    attribute(&mut options, TCA_BPF_FD, &(program as u32).to_ne_bytes());
    attribute(&mut options, TCA_BPF_NAME, format!("{name}\0").as_bytes());
    attribute(&mut options, TCA_BPF_FLAGS, &DIRECT.to_ne_bytes());
    let mut m = filter(ifindex, way);
    attribute(&mut m, TCA_OPTIONS, &options);
    Rtnl::open().map_err(|e| e.errno)?.request(libc::RTM_NEWTFILTER, libc::NLM_F_CREATE as u16, &m)
}

/// Takes ours off; says whether there was one.
pub fn remove_filter(ifindex: u32, way: Tcx) -> Result<bool, Errno> {
    match Rtnl::open().map_err(|e| e.errno)?.request(libc::RTM_DELTFILTER, 0, &filter(ifindex, way)) {
        Ok(()) => Ok(true),
        // No such filter; no qdisc; no interface.
        Err(Errno(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => Ok(false),
        Err(e) => Err(e),
    }
}
