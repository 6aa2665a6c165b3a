//! What joins a NIC's host stack to host rings: a TAP device with a queue per ring, and three classifiers attached by link.
//!
//! ```text
//! host sends     NIC  tcx egress  -> TAP -> descriptor      while somebody receives
//! host receives  descriptor -> TAP  tcx ingress -> NIC, as if it came in there
//! ```
//! Owned by the engine, which gives clients the descriptors of the queues. Nothing of it stays once they are closed: links
//! and device are descriptors. Called in whatever process hosts the engine, inside the NIC's network namespace.
//!
//! A NIC without host rings is cut off from its host by a fourth classifier: [`Cut`].

use super::program::{ClassifierPlan, Loader};
use crate::sys::netdev::bpf::{self, Tcx};
use crate::sys::netdev::{NetDev, tc};
use crate::sys::{Errno, Error, Fd, Level, log, settings, tap};
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// How the kernel names the TAP devices.
const NAME: &str = "netmap%d";
/// The classifier of [`Cut`].
const CUT: &str = "netmap_host_cut";
/// How `tc filter show` names our filters.
const FILTER: &str = "netmap_host_rings";
/// An ethertype that no protocol has, for the head of injected frames.
const NO_PROTOCOL: [u8; 2] = [0xff, 0xff];

/// What a link is to be like.
#[derive(Clone, Copy, Debug)]
pub struct HostLinkPlan<'a> {
    /// The interface.
    pub nic: &'a NetDev,
    /// Queues of the TAP device: one per host ring pair.
    pub queues: u16,
    /// Packets of the host that wait in each queue.
    pub queue_len: u32,
    /// Whether the NIC's XDP program sees what is injected, and must tell it by a head: generic mode.
    pub headed: bool,
    /// The head that it knows already, of host rings of a dead engine whose clients go on.
    pub head: Option<[u8; 14]>,
}

/// The TAP device of a NIC's host rings.
pub struct HostLink {
    // The fields are closed in this order: off the NIC first.
    out: Option<Hook>,
    inward: Hook,
    guard: Hook,
    queues: Vec<Arc<Fd>>,
    attached: Vec<bool>,
    host_out: Fd,
    nic: u32,
    head: Option<[u8; 14]>,
    name: String,
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    tap::random(&mut bytes).map_err(|e| Error::new("getrandom", "for host rings", e))?;
    Ok(bytes)
}

/// The constants of the classifiers.
#[derive(Default)]
struct Constants {
    nic: u32,
    tap: u32,
    mark: u32,
    head: Option<[u8; 14]>,
}

impl Constants {
    fn image(&self) -> ClassifierPlan {
        let mut image = [0; 32];
        let words = [self.nic, self.tap, self.mark, self.head.is_some().into()];
        image[..16].copy_from_slice(&words.map(u32::to_ne_bytes).concat());
        image[16..30].copy_from_slice(&self.head.unwrap_or_default());
        image
    }
}

/// A classifier in its place.
enum Hook {
    /// Held by a link: it goes with its last holder.
    Tcx(Arc<Fd>),
    /// A filter on the interface: it stays until it is taken off.
    Clsact { ifindex: u32, way: Tcx, own_qdisc: bool },
}

impl Hook {
    fn link(&self) -> Option<&Arc<Fd>> {
        match self {
            Hook::Tcx(link) => Some(link),
            Hook::Clsact { .. } => None,
        }
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        // An error means that the interface is gone.
        match self {
            // Detached, not merely closed: clients hold copies.
            Hook::Tcx(link) => drop(bpf::link_detach(link.as_raw_fd())),
            Hook::Clsact { ifindex, way, own_qdisc } => {
                let _ = tc::remove_filter(*ifindex, *way);
                if *own_qdisc {
                    let _ = tc::remove_clsact(*ifindex);
                }
            }
        }
    }
}

/// Whether classifiers are filters of clsact here: before Linux 6.6, and where it was asked for.
fn by_clsact() -> bool {
    settings().clsact.unwrap_or_else(|| bpf::kernel_version() < (6, 6))
}

fn attach(program: &Fd, ifindex: u32, name: &str, way: Tcx) -> Result<Hook, Error> {
    if by_clsact() {
        let failed = |call: &'static str| move |e| Error::new(call, format!("clsact on {name}"), e);
        let own_qdisc = tc::add_clsact(ifindex).map_err(failed("RTM_NEWQDISC"))?;
        let hook = Hook::Clsact { ifindex, way, own_qdisc };
        tc::add_filter(program.as_raw_fd(), FILTER, ifindex, way).map_err(failed("RTM_NEWTFILTER"))?;
        return Ok(hook);
    }
    let link = bpf::tcx_link(program.as_raw_fd(), ifindex, way);
    link.map(|link| Hook::Tcx(Arc::new(link))).map_err(|errno| {
        let (major, minor) = bpf::kernel_version();
        if errno == Errno(libc::EINVAL) && (major, minor) < (6, 6) {
            let why =
                format!("on {name}: tcx came with Linux 6.6, this is {major}.{minor}; set NETMAP_XDP_HOST=clsact");
            return Error::new("BPF_LINK_CREATE", why, Errno(libc::EOPNOTSUPP));
        }
        Error::new("BPF_LINK_CREATE", format!("of tcx on {name}"), errno)
    })
}

/// Takes off the filter that a killed process left on a NIC. Only for an interface that no living engine has bound.
pub fn clean_host_filter(nic: &NetDev) {
    if matches!(tc::remove_filter(nic.ifindex, Tcx::Egress), Ok(true)) {
        log(Level::Info, format_args!("{}: took a filter off that a killed process left for its host rings", nic.name));
    }
}

/// Processes that hear what the host sends by a NIC, by host rings of an engine that is dead.
pub fn host_survivors(nic: &NetDev) -> Vec<u32> {
    let links = bpf::tcx_links(nic.ifindex, Tcx::Egress, "netmap_host_out");
    links.into_iter().flat_map(|link| bpf::holders(link, &[])[0].clone()).collect()
}

/// Takes off what an engine that is dead left to its clients to keep the host cut off.
pub fn end_cuts(nic: &NetDev) {
    for link in bpf::tcx_links(nic.ifindex, Tcx::Egress, CUT) {
        // Its holder may go at any time.
        let _ = bpf::detach_by_id(link);
    }
}

/// Keeps what the host sends off a NIC, while it exists.
pub struct Cut(Arc<Fd>);

impl Cut {
    /// Cuts the host off from `nic`. None where a classifier would outlive its maker, before Linux 6.6: a killed
    /// program must not leave a host without its NIC.
    pub fn open(nic: &NetDev, loader: &dyn Loader) -> Result<Option<Cut>, Error> {
        if by_clsact() {
            return Ok(None);
        }
        let loaded = loader.load_classifiers(&[CUT], &Constants::default().image())?;
        let attached = loaded.first().map(|program| bpf::tcx_link(program.as_raw_fd(), nic.ifindex, Tcx::Egress));
        let failed = |e| Error::new("BPF_LINK_CREATE", format!("of tcx on {}", nic.name), e);
        Ok(attached.transpose().map_err(failed)?.map(|link| Cut(Arc::new(link))))
    }

    /// What keeps it there, should the engine die: for clients to hold.
    pub fn link(&self) -> &Arc<Fd> {
        &self.0
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // Detached, not merely closed: clients hold copies. An error means that the interface is gone.
        let _ = bpf::link_detach(self.0.as_raw_fd());
    }
}

impl HostLink {
    /// Makes the device and lets what is written to it enter the stack; the host's own packets still leave by the NIC.
    pub fn open(plan: HostLinkPlan<'_>, loader: &dyn Loader) -> Result<HostLink, Error> {
        let several = plan.queues > 1;
        let (first, name) = tap::open(NAME, several)?;
        let mut queues = vec![Arc::new(first)];
        for _ in 1..plan.queues {
            queues.push(Arc::new(tap::open(&name, several)?.0));
        }
        let device = NetDev::by_name(&name)?;
        let mut head = [0; 14];
        head[..12].copy_from_slice(&random::<12>()?);
        head[12..].copy_from_slice(&NO_PROTOCOL);
        let head = plan.head.unwrap_or(head);
        let mark = u32::from_ne_bytes(random()?) | 1;
        let head = plan.headed.then_some(head);
        let constants = Constants { nic: plan.nic.ifindex, tap: device.ifindex, mark, head }.image();
        let outward = if by_clsact() { "netmap_host_lax" } else { "netmap_host_out" };
        let names = [outward, "netmap_host_in", "netmap_tap_out"];
        let absent = |_| Error::new("BPF_PROG_LOAD", "of host rings", Errno(libc::ENOENT));
        let loaded = loader.load_classifiers(&names, &constants)?;
        let [host_out, host_in, tap_out] = <[Fd; 3]>::try_from(loaded).map_err(absent)?;
        // Before the device is up, so that nothing of its own ever reaches a ring.
        let guard = attach(&tap_out, device.ifindex, &name, Tcx::Egress)?;
        let inward = attach(&host_in, device.ifindex, &name, Tcx::Ingress)?;
        tap::start(&name, plan.nic.mtu, plan.queue_len)?;
        let attached = vec![true; queues.len()];
        Ok(HostLink { out: None, inward, guard, queues, attached, host_out, nic: plan.nic.ifindex, head, name })
    }

    /// Lets the host's packets go to the queues whose ring somebody receives from; with none, they leave by the NIC.
    pub fn receive(&mut self, on: impl Fn(u16) -> bool) -> Result<(), Error> {
        let wanted: Vec<bool> = (0..self.queues.len()).map(|i| on(i as u16)).collect();
        let any = wanted.contains(&true);
        if !any {
            self.stop_receiving();
        }
        // A device of one queue keeps it. What an unused queue holds is stale.
        if self.queues.len() > 1 {
            for ((queue, now), then) in self.queues.iter().zip(&mut self.attached).zip(wanted) {
                if *now != then {
                    tap::attach_queue(queue, then)?;
                    *now = then;
                }
            }
        }
        if any && self.out.is_none() {
            self.out = Some(attach(&self.host_out, self.nic, "the interface", Tcx::Egress)?);
        }
        Ok(())
    }

    fn stop_receiving(&mut self) {
        self.out = None;
    }

    /// The descriptor of a queue: each `read` is a frame that the host sent, each `write` one that it receives.
    pub fn queue(&self, i: u16) -> Option<&Arc<Fd>> {
        self.queues.get(usize::from(i))
    }

    /// What keeps the host's packets on their way, should the engine die: for clients to hold.
    pub fn links(&self) -> Vec<Arc<Fd>> {
        self.out.iter().chain([&self.inward, &self.guard]).filter_map(Hook::link).cloned().collect()
    }

    /// Whether somebody took one of the programs off, or an interface is gone.
    pub fn lost(&self) -> bool {
        self.links().iter().any(|link| bpf::link_interface(link.as_raw_fd()) == Ok(0))
    }

    /// How injected frames begin, if the NIC's XDP program sees them.
    pub fn head(&self) -> Option<[u8; 14]> {
        self.head
    }

    /// Name of the TAP device.
    pub fn name(&self) -> &str {
        &self.name
    }
}
