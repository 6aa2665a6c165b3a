//! NIC ports: the XDP program on a netdev, one AF_XDP socket per queue in use, and the rings over them.
//!
//! The engine calls this in the thread that registers or releases, inside the caller's network namespace. Sockets exist for
//! queues that somebody bound; the packets of all others go to the host stack.

mod health;
mod sockets;

use super::grant::{CarrierGrant, RingGrant};
use super::host::HostSide;
use super::region::Region;
use super::rings::{Private, RingTable};
use crate::ctl::{Condition, Failure, Register, RingCounts, Selection};
use crate::port::nic::{NicPlan, NicRx};
use crate::ring::{Dir, Kring};
use crate::sync::Ordering::*;
use crate::sys::netdev::{NetDev, Watch, XdpAttached, XdpMode, xdp_attached};
use crate::sys::{Error, Fd, Guarded, Level, Mode, comm, duplicate, eventfd, log, settings};
use crate::xsk::{
    AttachError, AttachMode, BindError, Geometry, Inherited, Loader, Program, Socket, SocketPlan, Steering,
    clean_host_filter, is_our_program,
};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// One queue in use.
struct Queue {
    socket: Socket,
    shared: Arc<Fd>,
    receiving: bool,
    /// Whether the client that asked for it has mapped its rings, so that it may be bound.
    mapped: bool,
}

/// How our program is to share the interface.
#[derive(Default)]
pub struct Terms {
    /// Which frames netmap gets; none: all.
    pub steering: Option<Steering>,
    /// Priority among other XDP programs, if it is to join any.
    pub chain: Option<u32>,
}

/// A NIC port.
pub struct NicPort {
    dev: NetDev,
    watch: Watch,
    /// Why it cannot go on, once it cannot.
    failed: Option<String>,
    /// Those of its offloads that we switched off.
    offloads: Option<Guarded>,
    program: Box<dyn Program>,
    mode: Mode,
    geometry: Geometry,
    multi_buffer: bool,
    /// Sockets are bound after the client has mapped them, since this kernel allows no mapping of a bound one.
    late: bool,
    rings: RingTable,
    queues: BTreeMap<u32, Queue>,
    host: HostSide,
    /// Wakes those who sleep on rings that others sync.
    bell: Arc<Fd>,
    steering: Option<Steering>,
    /// Whether a queue could not be had since another socket has it, or had it a moment ago.
    queue_busy: bool,
    /// Processes that have queues of the interface since before this engine was there.
    survivors: Vec<u32>,
}

/// A program of a dead engine's, how it runs, and the processes that use queues of it.
type TakenOver = (Box<dyn Program>, Mode, Vec<u32>);

/// Processes, by id and name, as far as they are alive.
fn people(pids: &[u32]) -> String {
    let names: Vec<String> = pids.iter().filter_map(|&pid| Some(format!("process {pid} ({})", comm(pid)?))).collect();
    if names.is_empty() { "a process that is gone".into() } else { names.join(", ") }
}

fn internal(why: String) -> Failure {
    Condition::System.says(why)
}

fn size_of_rings(slots: u32) -> u32 {
    slots.next_power_of_two()
}

fn refused(dev: &NetDev, e: AttachError) -> Failure {
    match e {
        AttachError::Busy { ref name, id, .. } => Failure::foreign_xdp(&dev.name, name, id),
        AttachError::NotSupported { .. } | AttachError::KernelTooOld { .. } => Failure::no_xdp(&dev.name, e),
        _ => Failure { errno: e.errno(), message: e.to_string() },
    }
}

fn unbound(dev: &NetDev, queue: u32, e: BindError) -> Failure {
    match e {
        BindError::Busy(_) => Failure::queue_taken(&dev.name, queue),
        BindError::NotSupported(_) | BindError::Down => Failure::no_xdp(&dev.name, e),
        BindError::Other(ref why) if why.errno.0 == libc::EPERM => {
            Failure::missing_capability(format!("{}: {why}", dev.name), "CAP_NET_RAW")
        }
        BindError::Other(ref why) if why.errno.0 == libc::EFAULT => Condition::ExtmemShared.says(format!(
            "{}: {why}: the kernel does not lock files of this file system in memory; use hugepages, tmpfs or a memfd",
            dev.name
        )),
        BindError::Other(ref why) if matches!(why.errno.0, libc::ENOBUFS | libc::ENOMEM) => Failure {
            errno: why.errno,
            message: format!(
                "{}: {why}: the buffers cannot be locked in memory; raise `ulimit -l` or give CAP_IPC_LOCK",
                dev.name
            ),
        },
        BindError::Other(why) => Failure::system(&why),
    }
}

/// Takes off what a killed process of ours left in the interface's chain; says whether there was anything.
fn tidy(loader: &dyn Loader, dev: &NetDev) -> bool {
    loader.clean(dev.ifindex).unwrap_or_else(|e| {
        log(Level::Warn, format_args!("{}: a program of a killed netmapd stays: {e}", dev.name));
        false
    })
}

impl NicPort {
    /// Ring counts that the first bind of this interface makes; it may ask for more host rings than one.
    pub fn counts(dev: &NetDev, register: &Register) -> RingCounts {
        let count = |n: u32| u16::try_from(n).unwrap_or(u16::MAX).max(1);
        let [host_tx, host_rx] = HostSide::counts(register);
        RingCounts { tx: count(dev.tx_queues), rx: count(dev.rx_queues), host_tx, host_rx }
    }

    /// Puts the program on the interface and makes its private memory; no queue is taken yet.
    pub fn open(
        dev: NetDev,
        counts: RingCounts,
        slots: [u32; 2],
        loader: &dyn Loader,
        terms: Terms,
    ) -> Result<NicPort, Failure> {
        let private = Private::new(RingTable::size(counts, slots))?;
        let bell = eventfd().map(Arc::new).map_err(|e| Failure::system(&Error::new("eventfd", &dev.name, e)))?;
        let watch = Watch::open(dev.ifindex).map_err(|e| Failure::system(&e))?;
        let Terms { steering, chain } = terms;
        let queues = dev.rx_queues.max(dev.tx_queues).max(1);
        let loaded = match chain {
            Some(priority) => loader.load_chained(queues, priority),
            None => loader.load(queues),
        };
        let mut program = loaded.map_err(|e| match e.errno.0 {
            libc::EPERM | libc::EACCES => Failure::missing_capability(&e, "CAP_BPF and CAP_NET_ADMIN"),
            _ => Failure::system(&e),
        })?;
        if chain.is_some() {
            tidy(loader, &dev);
        }
        let attached = match NicPort::attach(&mut *program, &dev) {
            Err(e) if e.errno.0 == libc::EBUSY && tidy(loader, &dev) => NicPort::attach(&mut *program, &dev),
            done => done,
        };
        let (mut survivors, mut inherited) = (Vec::new(), None);
        if attached.is_err()
            && let Some((old, mode, users)) = NicPort::take_over(loader, &dev)?
        {
            (program, survivors, inherited) = (old, users, Some((mode, None)));
        }
        let (mode, native_refused) = inherited.map_or(attached, Ok)?;
        if steering.is_some() || !survivors.is_empty() {
            program.steer(steering.as_ref()).map_err(|e| Failure::system(&e))?;
        }
        if let Some(rules) = &steering {
            log(Level::Info, format_args!("{}: frames are steered: {rules}", dev.name));
        }
        // The interface is ours now, so what else of us is there is a dead one's.
        clean_host_filter(&dev);
        if let Some(why) = native_refused {
            log(Level::Info, format_args!("{}: generic mode, since {why}", dev.name));
        }
        let geometry = if settings().aligned == Some(true) { Geometry::Aligned } else { Geometry::Unaligned };
        let offloads = health::tell_the_truth(&dev, mode);
        Ok(NicPort {
            dev,
            watch,
            failed: None,
            offloads,
            program,
            mode,
            geometry,
            multi_buffer: false,
            late: false,
            rings: RingTable::new(counts, slots, private, 0),
            queues: BTreeMap::new(),
            host: HostSide::default(),
            bell,
            steering,
            queue_busy: false,
            survivors,
        })
    }

    /// A program of ours may be there whose netmapd is dead, kept by a client that goes on. It serves again, with the client's
    /// queues beside ours, which are free as soon as it lets go. Returns the processes of such clients too.
    fn take_over(loader: &dyn Loader, dev: &NetDev) -> Result<Option<TakenOver>, Failure> {
        let there = xdp_attached(dev.ifindex).ok().flatten().filter(|_| settings().serves);
        let ours = |x: &XdpAttached| x.prog_name.as_deref().is_some_and(is_our_program);
        let Some(there) = there.filter(ours) else { return Ok(None) };
        match loader.take_over(there.prog_id) {
            Ok(Inherited::Program(program, users)) => {
                let names = people(&users);
                log(
                    Level::Info,
                    format_args!("{}: the XDP program of a netmapd that died is taken over from {names}", dev.name),
                );
                let mode = match there.mode {
                    XdpMode::Generic => Mode::Generic,
                    XdpMode::Native | XdpMode::Offload => settings().mode.unwrap_or(Mode::ZeroCopy),
                };
                Ok(Some((program, mode, users)))
            }
            Ok(Inherited::Alive(makers)) => Err(Failure::other_engine(&dev.name, people(&makers))),
            // It was not to be had: the message about a foreign program tells its id.
            Err(_) => Ok(None),
        }
    }

    /// Attaches at the highest step that is allowed and works. Whether the driver can also do without copying shows at the
    /// first bind of a socket.
    fn attach(program: &mut dyn Program, dev: &NetDev) -> Result<(Mode, Option<AttachError>), Failure> {
        let forced = settings().mode;
        let mut why = None;
        if forced != Some(Mode::Generic) {
            match program.attach(dev.ifindex, &dev.name, AttachMode::Native) {
                Ok(()) => return Ok((forced.unwrap_or(Mode::ZeroCopy), None)),
                Err(e @ AttachError::NotSupported { .. }) if forced.is_none() => why = Some(e),
                Err(e) => return Err(refused(dev, e)),
            }
        }
        program.attach(dev.ifindex, &dev.name, AttachMode::Generic).map_err(|e| refused(dev, e))?;
        Ok((Mode::Generic, why))
    }

    /// The interface.
    pub fn dev(&self) -> &NetDev {
        &self.dev
    }

    /// How it is driven.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The rules that decide which frames netmap gets; none: all.
    pub fn steering(&self) -> Option<&Steering> {
        self.steering.as_ref()
    }

    /// Changes them.
    pub fn steer(&mut self, rules: Option<Steering>) -> Result<(), Failure> {
        self.program.steer(rules.as_ref()).map_err(|e| Failure::system(&e))?;
        self.steering = rules;
        Ok(())
    }

    /// What keeps the interface as it is while a client holds it: the link of the program, and what keeps offloads off.
    pub fn share_links(&self) -> Result<Vec<Arc<Fd>>, Failure> {
        let copy = self.program.link_fd().map(duplicate).transpose();
        let link = copy
            .map(|fd| fd.map(Arc::new))
            .map_err(|e| Failure::system(&Error::new("fcntl F_DUPFD_CLOEXEC", "a link", e)))?;
        Ok(link.into_iter().chain(self.keep()).collect())
    }

    /// A bound socket of this port whose UMEM has `geometry`, and is registered for zero-copy, or for copies, as `mode` has it.
    pub fn sibling(&self, geometry: Geometry, mode: Mode) -> Option<RawFd> {
        let bound = self.queues.values().find(|q| q.socket.bound())?;
        let same = self.geometry == geometry && (self.mode == Mode::ZeroCopy) == (mode == Mode::ZeroCopy);
        same.then(|| bound.socket.as_raw_fd())
    }

    fn slots(&self, dir: Dir) -> u32 {
        self.rings.slots()[dir as usize]
    }

    /// Makes the selected rings work: rings and buffers, sockets, buffers for the kernel, steering.
    pub fn start(
        &mut self,
        selection: &Selection,
        region: &mut Region,
        sibling: &dyn Fn(Geometry, Mode) -> Option<RawFd>,
    ) -> Result<(), Failure> {
        self.check()?;
        self.host.start(&self.dev, self.mode, &mut *self.program, &mut self.rings, selection, region)?;
        let selection = &self.nic_part(selection);
        for (dir, range) in RingTable::ranges(selection) {
            for i in range {
                self.rings.make(dir, i, region, true)?;
            }
        }
        for i in selection.tx.start.min(selection.rx.start)..selection.tx.end.max(selection.rx.end) {
            if selection.tx.contains(&i) || selection.rx.contains(&i) {
                self.open_queue(u32::from(i), region, sibling)?;
            }
        }
        for i in selection.rx.clone() {
            self.receive(i, region)?;
        }
        self.set_pending(region);
        Ok(())
    }

    /// The NIC rings of a selection.
    fn nic_part(&self, all: &Selection) -> Selection {
        let counts = self.rings.counts();
        let part = |r: &std::ops::Range<u16>, n: u16| r.start.min(n)..r.end.min(n);
        Selection { tx: part(&all.tx, counts.tx), rx: part(&all.rx, counts.rx) }
    }

    /// Makes the socket of a queue that has none; the first one finds out whether the driver does without copying.
    fn open_queue(
        &mut self,
        queue: u32,
        region: &Region,
        sibling: &dyn Fn(Geometry, Mode) -> Option<RawFd>,
    ) -> Result<(), Failure> {
        if self.queues.contains_key(&queue) {
            return Ok(());
        }
        if self.queues.is_empty() {
            let _ = self.dev.refresh();
        }
        let (mtu, fits) = (self.dev.mtu, self.mtu_that_fits());
        let large = mtu > fits;
        if self.mode == Mode::ZeroCopy && large && self.queues.is_empty() && settings().mode.is_none() {
            self.step_down(format_args!(
                "MTU {mtu} is above {fits}, the most that its driver is trusted to receive without copying"
            ));
        }
        let fresh = self.rings.kring(Dir::Rx, queue as u16, region).filter(sockets::is_fresh);
        // Asked for without need, some kernels take room for it from every buffer, and 1500 bytes do not fit any more.
        let mut several = self.mode != Mode::ZeroCopy || large;
        loop {
            if self.mode == Mode::ZeroCopy {
                self.geometry = Geometry::Aligned;
            }
            let plan = SocketPlan {
                ifindex: self.dev.ifindex,
                queue,
                rx_size: size_of_rings(self.slots(Dir::Rx)),
                tx_size: size_of_rings(self.slots(Dir::Tx)),
                mode: self.mode,
                several,
            };
            // A socket that cannot be bound yet needs a registration of its own, as its sibling may be gone by then.
            let own = self.sibling(self.geometry, self.mode);
            let brother = if self.dev.up { own.or_else(|| sibling(self.geometry, self.mode)) } else { None };
            // What another NIC's driver was asked for may not be what ours takes.
            let brother = if self.mode == Mode::ZeroCopy { own } else { brother };
            if self.late {
                let socket = self.make_socket(plan, true, region, fresh.as_ref());
                return self.adopt(queue, socket.map_err(|e| unbound(&self.dev, queue, e))?, false);
            }
            match self.open_socket(plan, brother, region, fresh.as_ref()) {
                Ok(socket) if self.queues.is_empty() && socket.bound() && (settings().late || !socket.mappable()) => {
                    // It was good for finding mode and geometry.
                    self.late = true;
                    self.multi_buffer = socket.multi_buffer();
                }
                Ok(socket) => {
                    let socket = if !socket.bound() && brother.is_some() {
                        self.open_socket(plan, None, region, fresh.as_ref()).map_err(|e| self.refused(queue, e))?
                    } else {
                        socket
                    };
                    return self.adopt(queue, socket, brother.is_some());
                }
                // A registration of its own again: a refused one is not what it was.
                Err(BindError::NotSupported(_)) if self.mode == Mode::ZeroCopy && several => several = false,
                Err(BindError::NotSupported(why)) if self.mode == Mode::ZeroCopy && settings().mode.is_none() => {
                    self.step_down(format_args!("the driver has no zero-copy AF_XDP ({})", why.errno));
                    several = true;
                }
                Err(BindError::NotSupported(why))
                    if self.geometry == Geometry::Unaligned && settings().aligned.is_none() =>
                {
                    log(
                        Level::Info,
                        format_args!(
                            "{}: aligned buffers, since unaligned ones fail ({why}): frames above {} bytes are not received",
                            self.dev.name,
                            Geometry::Aligned.rx_limit()
                        ),
                    );
                    self.geometry = Geometry::Aligned;
                }
                Err(e) => return Err(self.refused(queue, e)),
            }
        }
    }

    fn refused(&mut self, queue: u32, e: BindError) -> Failure {
        self.queue_busy = matches!(e, BindError::Busy(_));
        if self.queue_busy && !self.survivors.is_empty() {
            return Failure::queue_of_survivor(&self.dev.name, queue, people(&self.survivors));
        }
        unbound(&self.dev, queue, e)
    }

    /// Whether the last start failed since another socket has a queue. One that was just closed has it for some
    /// milliseconds more.
    pub fn queue_busy(&self) -> bool {
        self.queue_busy
    }

    fn adopt(&mut self, queue: u32, socket: Socket, shares: bool) -> Result<(), Failure> {
        let shared = Arc::new(socket.share().map_err(|e| Failure::system(&e))?);
        if self.queues.is_empty() && !self.late {
            // A sibling on another NIC made the registration with fragments wherever the kernel has them, as we do.
            self.multi_buffer = socket.multi_buffer() || (shares && socket.bound());
            // Some kernels bind a socket all the same.
            if !self.dev.up || !socket.bound() {
                log(
                    Level::Warn,
                    format_args!(
                        "{0} is down: it is bound, and starts when it comes up: `ip link set {0} up`",
                        self.dev.name
                    ),
                );
            }
        }
        let mapped = socket.bound();
        self.queues.insert(queue, Queue { socket, shared, receiving: false, mapped });
        Ok(())
    }

    fn plan(&self) -> NicPlan {
        NicPlan {
            rx_size: size_of_rings(self.slots(Dir::Rx)),
            tx_size: size_of_rings(self.slots(Dir::Tx)),
            geometry: self.geometry,
            multi_buffer: self.multi_buffer,
        }
    }

    /// Gives the kernel the buffers of a receive ring and steers its queue into it.
    fn receive(&mut self, i: u16, region: &Region) -> Result<(), Failure> {
        let fits = self.mtu_that_fits();
        if self.dev.mtu > fits {
            if !self.multi_buffer {
                return Err(Failure::mtu_too_large(&self.dev.name, self.dev.mtu, fits));
            }
            log(
                Level::Info,
                format_args!(
                    "{}: MTU {} is above {fits}: larger frames arrive as NS_MOREFRAG chains",
                    self.dev.name, self.dev.mtu
                ),
            );
        }
        let plan = self.plan();
        let kring = self.rings.kring(Dir::Rx, i, region);
        let Some((kring, queue)) = kring.zip(self.queues.get_mut(&u32::from(i))) else {
            return Err(internal("a receive ring without a queue".into()));
        };
        if queue.receiving {
            return Ok(());
        }
        let side = NicRx::map(queue.shared.clone(), plan).map_err(|e| internal(e.to_string()))?;
        if sockets::is_fresh(&kring) {
            side.start(&kring).map_err(|e| internal(e.to_string()))?;
        }
        self.program.insert(u32::from(i), queue.socket.as_raw_fd()).map_err(|e| Failure::system(&e))?;
        queue.receiving = true;
        Ok(())
    }

    fn set_pending(&self, region: &Region) {
        for kring in self.rings.krings(region) {
            if HostSide::is_host(&self.rings, kring.dir(), kring.id()) {
                continue;
            }
            let waits = self.queues.get(&u32::from(kring.id())).is_some_and(|q| !q.socket.bound());
            kring.state().pending.store(waits.into(), Relaxed);
        }
    }

    /// Binds the socket of a queue whose client has mapped it, if it is not bound.
    fn bind(&mut self, i: u32) -> Result<(), BindError> {
        let bound = self.queues.values().any(|q| q.socket.bound());
        let Some(queue) = self.queues.get_mut(&i).filter(|q| q.mapped && !q.socket.bound()) else { return Ok(()) };
        match queue.socket.bind(None) {
            // It was down when it was asked for, or the socket had to be mapped first. The geometry stays: clients know it.
            Err(BindError::NotSupported(why)) if self.mode == Mode::ZeroCopy && !bound && settings().mode.is_none() => {
                self.step_down(format_args!("the driver has no zero-copy AF_XDP ({})", why.errno));
                self.geometry = Geometry::Aligned;
                self.queues.values_mut().for_each(|q| q.socket.step_down());
                return self.bind(i);
            }
            done => done?,
        }
        self.multi_buffer |= queue.socket.multi_buffer();
        if queue.receiving {
            let _ = self.program.insert(i, queue.socket.as_raw_fd());
        }
        Ok(())
    }

    /// Whether a client has to map the selected rings, and to say so, before their sockets can be bound.
    pub fn awaits(&self, selection: &Selection) -> bool {
        self.selected(selection).iter().any(|i| self.queues.get(i).is_some_and(|q| !q.mapped))
    }

    /// The client has mapped what it was granted.
    pub fn mapped(&mut self, selection: &Selection, region: &Region) -> Result<(), Failure> {
        for i in self.selected(selection) {
            self.queues.entry(i).and_modify(|queue| queue.mapped = true);
            match self.bind(i) {
                // It starts when the interface comes up.
                Ok(()) | Err(BindError::Down) => {}
                Err(e) => return Err(unbound(&self.dev, i, e)),
            }
        }
        self.set_pending(region);
        Ok(())
    }

    /// The queues of the selected rings.
    fn selected(&self, selection: &Selection) -> Vec<u32> {
        let Selection { tx, rx } = self.nic_part(selection);
        self.queues.keys().copied().filter(|&i| [&tx, &rx].iter().any(|r| r.contains(&(i as u16)))).collect()
    }

    /// What a client needs of the selected rings.
    pub fn grants(&self, selection: &Selection) -> [Vec<RingGrant>; 2] {
        RingTable::ranges(selection).map(|(dir, range)| {
            let grant = |i: u16| {
                let (ring, kring) = self.rings.place(dir, i)?;
                let bell = Some(self.bell.clone());
                if HostSide::is_host(&self.rings, dir, i) {
                    let carrier = self.host.grant(&self.rings, dir, i, self.program.link_fd())?;
                    return Some(RingGrant { ring, kring, carrier, bell });
                }
                let socket = self.queues.get(&u32::from(i))?.shared.clone();
                Some(RingGrant { ring, kring, carrier: CarrierGrant::Nic { socket, plan: self.plan() }, bell })
            };
            range.filter_map(grant).collect()
        })
    }

    /// The rings.
    pub fn rings(&self) -> &RingTable {
        &self.rings
    }

    /// The rings, to count users.
    pub fn rings_mut(&mut self) -> &mut RingTable {
        &mut self.rings
    }

    /// Every buffer that the port holds.
    pub fn buffers(&self, region: &Region) -> Vec<u32> {
        self.rings.krings(region).iter().flat_map(Kring::buffers).collect()
    }

    /// What the kernel says it dropped of the queue behind a ring; none of a host ring.
    pub fn kernel_drops(&self, ring: &Kring) -> Vec<(&'static str, u64)> {
        let queue = self.queues.get(&u32::from(ring.id()));
        let host = HostSide::is_host(&self.rings, ring.dir(), ring.id());
        let Some(seen) = queue.filter(|_| !host).and_then(|q| q.socket.statistics().ok()) else { return Vec::new() };
        match ring.dir() {
            Dir::Tx => vec![("tx-invalid-descs", seen.tx_invalid_descs)],
            Dir::Rx => vec![
                ("rx-dropped", seen.rx_dropped),
                ("rx-invalid-descs", seen.rx_invalid_descs),
                ("rx-ring-full", seen.rx_ring_full),
                ("rx-fill-ring-empty", seen.rx_fill_ring_empty),
            ],
        }
    }

    /// Takes down the queues that nobody uses any more; returns their rings, which are the region's to free. Clients have
    /// unmapped the sockets by now.
    pub fn stop(&mut self, region: &Region) -> Vec<Kring> {
        self.explain(region);
        let host = self.host.stop(&mut *self.program, &mut self.rings, region);
        let mut gone = Vec::new();
        for (&i, queue) in &mut self.queues {
            let users = |dir| {
                if HostSide::is_host(&self.rings, dir, i as u16) { 0 } else { self.rings.users(dir, i as u16) }
            };
            let [tx, rx] = [Dir::Tx, Dir::Rx].map(users);
            if rx == 0 && queue.receiving {
                // Packets of this queue go to the host from now on. An error means that they do already.
                let _ = self.program.remove(i);
                queue.receiving = false;
            }
            if tx + rx == 0 {
                gone.push(i);
            }
        }
        for i in &gone {
            self.queues.remove(i);
        }
        // A ring whose queue is still in use in the other direction keeps what the kernel holds of it.
        let counts = self.rings.counts();
        let all = [(Dir::Tx, counts.tx), (Dir::Rx, counts.rx)];
        let unused = all.into_iter().flat_map(|(dir, n)| (0..n).map(move |i| (dir, i)));
        let unused: Vec<_> = unused.filter(|&(_, i)| !self.queues.contains_key(&u32::from(i))).collect();
        let nic = unused.into_iter().filter_map(|(dir, i)| self.rings.retire(dir, i, region));
        nic.chain(host).collect()
    }
}
