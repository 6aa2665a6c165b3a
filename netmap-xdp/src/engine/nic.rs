//! NIC ports: the XDP program on a netdev, one AF_XDP socket per queue in use, and the rings over them.
//!
//! The engine calls this in the thread that registers or releases, inside the caller's network namespace. Sockets exist for
//! queues that somebody bound; the packets of all others go to the host stack.

mod health;
mod mtu;
mod sockets;

use super::grant::{CarrierGrant, RingGrant};
use super::host::HostSide;
use super::monitor::lock;
use super::region::Region;
use super::rings::{Private, RingTable};
use crate::ctl::{Condition, Failure, Register, RingCounts, Selection};
use crate::port::nic::{NicPlan, NicRx};
use crate::ring::{Dir, Kring};
use crate::sync::Ordering::*;
use crate::sys::netdev::{NetDev, Watch, XdpAttached, XdpMode, promiscuous, xdp_attached};
use crate::sys::{Error, Fd, Guarded, Inside, Level, Mode, comm, duplicate, eventfd, log, namespace, settings};
use crate::xsk::{
    AttachError, AttachMode, BindError, Chunks, Geometry, Inherited, Loader, Program, Rings, Socket, SocketPlan,
    Steering, clean_host_filter, end_cuts, host_survivors, is_our_program,
};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// One queue in use.
struct Queue {
    /// Mapped before a socket is bound that cannot be mapped afterwards.
    _rings: Option<Arc<Rings>>,
    socket: Socket,
    shared: Arc<Fd>,
    receiving: bool,
    /// Whether the client that asked for it has mapped its rings, so that it may be bound.
    mapped: bool,
}

/// What the sockets of a UMEM have in common, from the first one's bind on: a NIC that needs it otherwise registers the pages
/// once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    geometry: Geometry,
    zero_copy: bool,
}

/// A bound socket whose UMEM others may share.
#[derive(Clone, Copy, Debug)]
pub struct Sibling {
    socket: RawFd,
    multi_buffer: bool,
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
    /// Where it is.
    namespace: Fd,
    watch: Watch,
    /// Why it cannot go on, once it cannot.
    failed: Option<String>,
    /// Those of its offloads that we switched off.
    offloads: Option<Guarded>,
    program: Box<dyn Program>,
    mode: Mode,
    geometry: Geometry,
    /// The largest offset of packets for which its sockets leave room, from the first queue on.
    reserve: u32,
    multi_buffer: bool,
    /// Sockets are bound after the client has mapped them, since this kernel allows no mapping of a bound one.
    late: bool,
    /// Spare buffers that a receive ring gets.
    spares: u32,
    rings: RingTable,
    queues: BTreeMap<u32, Queue>,
    host: HostSide,
    /// Keeps it promiscuous.
    ears: Option<Arc<Fd>>,
    /// Loads what host rings take.
    loader: &'static dyn Loader,
    /// Wakes those who sleep on rings that others sync.
    bell: Arc<Fd>,
    /// The map with the NIC's times, if they are noted.
    stamps: Option<Arc<Fd>>,
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
        BindError::Setting { ref error, .. } => Failure { errno: error.errno, message: format!("{}: {e}", dev.name) },
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

/// How chunks are to lie in the UMEM of an interface, where it has a choice.
fn chunks_of(dev: &NetDev) -> Chunks {
    if settings().aligned.of(&dev.name) == Some(true) { Chunks::Aligned } else { Chunks::Unaligned }
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
        loader: &'static dyn Loader,
        terms: Terms,
    ) -> Result<NicPort, Failure> {
        let spares = settings().spares.unwrap_or(slots[1]);
        let room = slots[1] + spares;
        let private = Private::new(RingTable::size_with(counts, slots, room))?;
        let bell = eventfd().map(Arc::new).map_err(|e| Failure::system(&Error::new("eventfd", &dev.name, e)))?;
        let watch = Watch::open(dev.ifindex).map_err(|e| Failure::system(&e))?;
        let namespace = namespace().map_err(|e| Failure::system(&Error::new("open", "/proc/thread-self/ns/net", e)))?;
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
        let unstamped = if settings().hardware_times { program.stamp(dev.ifindex).err() } else { None };
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
        if survivors.is_empty() {
            clean_host_filter(&dev);
        } else {
            end_cuts(&dev);
        }
        if let Some(why) = native_refused {
            log(Level::Info, format_args!("{}: generic mode, since {why}", dev.name));
        }
        let stamps = program.stamps().and_then(|map| duplicate(map).ok()).map(Arc::new);
        if settings().hardware_times && stamps.is_none() {
            let why =
                unstamped.map_or("the program is not one for this device in native mode".into(), |e| e.to_string());
            log(
                Level::Warn,
                format_args!("{}: rings tell the times of syncs and not the NIC's, since {why}", dev.name),
            );
        }
        let geometry = Geometry::new(chunks_of(&dev), settings().buf_size)
            .ok_or_else(|| Failure::buffers_unfit(&dev.name, settings().buf_size))?;
        let offloads = health::tell_the_truth(&dev, mode);
        let mut port = NicPort {
            dev,
            namespace,
            watch,
            failed: None,
            offloads,
            program,
            mode,
            geometry,
            reserve: 0,
            multi_buffer: false,
            late: false,
            spares,
            rings: RingTable::new_with(counts, slots, private, 0, room),
            queues: BTreeMap::new(),
            host: HostSide::default(),
            ears: None,
            loader,
            bell,
            stamps,
            steering,
            queue_busy: false,
            survivors,
        };
        if settings().promiscuous == Some(true) {
            port.hear_all();
        }
        Ok(port)
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
                    XdpMode::Native | XdpMode::Offload => settings().mode.of(&dev.name).unwrap_or(Mode::ZeroCopy),
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
        let forced = settings().mode.of(&dev.name);
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

    fn forced(&self) -> Option<Mode> {
        settings().mode.of(&self.dev.name)
    }

    /// The interface.
    pub fn dev(&self) -> &NetDev {
        &self.dev
    }

    /// How it is driven.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Lets the NIC receive what is for others, unless nobody wants that. The membership goes with its holders.
    pub fn hear_all(&mut self) {
        if self.ears.is_some() || settings().promiscuous == Some(false) {
            return;
        }
        match promiscuous(self.dev.ifindex) {
            Ok(ears) => self.ears = Some(Arc::new(ears)),
            Err(e) => log(Level::Warn, format_args!("{}: it does not receive what is for others: {e}", self.dev.name)),
        }
    }

    /// The rules that decide which frames netmap gets; none: all.
    pub fn steering(&self) -> Option<&Steering> {
        self.steering.as_ref()
    }

    /// Changes them.
    pub fn steer(&mut self, rules: Option<Steering>) -> Result<(), Failure> {
        self.program.steer(rules.as_ref()).map_err(|e| Failure::system(&e))?;
        self.steering = rules;
        self.cut();
        Ok(())
    }

    /// Lets the host send by the NIC, or not, as it is used now. Where rules leave frames to the host, its answers must leave.
    fn cut(&mut self) {
        let shared = self.steering.is_some() || settings().host_passes || self.failed.is_some();
        // Whoever lets go of a port may be anywhere.
        let Ok(_inside) = Inside::enter(&self.namespace) else { return };
        self.host.cut(&self.dev, self.loader, &self.rings, shared);
    }

    /// What keeps the interface as it is while a client holds it: the link of the program, and what keeps offloads off.
    pub fn share_links(&self) -> Result<Vec<Arc<Fd>>, Failure> {
        let copy = self.program.link_fd().map(duplicate).transpose();
        let link = copy
            .map(|fd| fd.map(Arc::new))
            .map_err(|e| Failure::system(&Error::new("fcntl F_DUPFD_CLOEXEC", "a link", e)))?;
        Ok(link.into_iter().chain(self.keep()).chain(self.host.keep_cut()).chain(self.ears.clone()).collect())
    }

    fn registration(&self) -> Registration {
        Registration { geometry: self.geometry, zero_copy: self.mode == Mode::ZeroCopy }
    }

    /// A bound socket of this port, if its UMEM is registered as `like`.
    pub fn sibling(&self, like: Registration) -> Option<Sibling> {
        let bound = self.queues.values().find(|q| q.socket.bound())?;
        let sibling = Sibling { socket: bound.socket.as_raw_fd(), multi_buffer: self.multi_buffer };
        (self.registration() == like).then_some(sibling)
    }

    fn slots(&self, dir: Dir) -> u32 {
        self.rings.slots()[dir as usize]
    }

    /// Makes the selected rings work: rings and buffers, sockets, buffers for the kernel, steering. `offset` is the largest
    /// offset of packets that is asked for.
    pub fn start(
        &mut self,
        selection: &Selection,
        offset: u64,
        region: &mut Region,
        sibling: &dyn Fn(Registration) -> Option<Sibling>,
    ) -> Result<(), Failure> {
        self.check()?;
        if self.queues.is_empty() {
            let size = region.layout().buf_size;
            let geometry = Geometry::new(self.geometry.chunks(), size)
                .ok_or_else(|| Failure::buffers_unfit(&self.dev.name, size))?;
            let receives = !self.nic_part(selection).rx.is_empty();
            self.geometry = geometry.behind(if receives { offset } else { 0 });
            self.reserve = self.geometry.headroom();
        }
        if !self.survivors.is_empty() && HostSide::begins_to_hear(&self.rings, selection) {
            let others = host_survivors(&self.dev);
            if !others.is_empty() {
                return Err(Failure::host_rings_of_survivor(&self.dev.name, people(&others)));
            }
        }
        self.host.start(&self.dev, self.loader, self.mode, &mut *self.program, &mut self.rings, selection, region)?;
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
        self.check_mtu(selection)?;
        for i in selection.rx.clone() {
            self.receive(i, region)?;
        }
        self.tell(region);
        self.cut();
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
        sibling: &dyn Fn(Registration) -> Option<Sibling>,
    ) -> Result<(), Failure> {
        if self.queues.contains_key(&queue) {
            return Ok(());
        }
        if self.queues.is_empty() {
            let _ = self.dev.refresh();
        }
        let (mtu, fits) = (self.dev.mtu, self.mtu_that_fits());
        let large = mtu > fits;
        if self.mode == Mode::ZeroCopy && large && self.queues.is_empty() && self.forced().is_none() {
            self.step_down(format_args!(
                "MTU {mtu} is above {fits}, the most that its driver is trusted to receive without copying"
            ));
        }
        let fresh = self.rings.kring(Dir::Rx, queue as u16, region).filter(sockets::is_fresh);
        // Asked for without need, some kernels take room for it from every buffer, and 1500 bytes do not fit any more.
        let mut several = self.mode != Mode::ZeroCopy || large;
        loop {
            if self.mode == Mode::ZeroCopy {
                // Cards are told the size of what they may write in steps of their own: they get all there is.
                self.geometry = self.geometry.with(Chunks::Aligned).behind(0);
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
            let like = self.registration();
            let own = self.sibling(like);
            let brother = if self.dev.up { own.or_else(|| sibling(like)) } else { None };
            // What another NIC's driver was asked for may not be what ours takes.
            let brother = if self.mode == Mode::ZeroCopy { own } else { brother };
            if self.late {
                let socket = self.make_socket(plan, true, region, fresh.as_ref());
                return self.adopt(queue, socket.map_err(|e| unbound(&self.dev, queue, e))?, false);
            }
            match self.open_socket(plan, brother.map(|b| b.socket), region, fresh.as_ref()) {
                Ok(socket) if self.queues.is_empty() && socket.bound() && (settings().late || !socket.mappable()) => {
                    // It was good for finding mode and geometry.
                    self.late = true;
                    self.multi_buffer = socket.multi_buffer();
                }
                Ok(socket) => {
                    let how = if brother.is_some() { "as a sibling has registered it" } else { "registered" };
                    let (name, g) = (&self.dev.name, self.geometry);
                    log(
                        Level::Debug,
                        format_args!(
                            "{name} queue {queue}: UMEM {how}, {:?} chunks of {} bytes",
                            g.chunks(),
                            g.chunk()
                        ),
                    );
                    let socket = if !socket.bound() && brother.is_some() {
                        self.open_socket(plan, None, region, fresh.as_ref()).map_err(|e| self.refused(queue, e))?
                    } else {
                        socket
                    };
                    return self.adopt(queue, socket, brother.is_some_and(|b| b.multi_buffer));
                }
                // A registration of its own again: a refused one is not what it was.
                Err(BindError::NotSupported(_)) if self.mode == Mode::ZeroCopy && several => several = false,
                Err(BindError::NotSupported(why)) if self.mode == Mode::ZeroCopy && self.forced().is_none() => {
                    self.step_down(format_args!("the driver has no zero-copy AF_XDP ({})", why.errno));
                    several = true;
                }
                Err(BindError::NotSupported(why))
                    if self.geometry.chunks() == Chunks::Unaligned
                        && settings().aligned.of(&self.dev.name).is_none() =>
                {
                    self.geometry = self.geometry.with(Chunks::Aligned);
                    log(
                        Level::Info,
                        format_args!(
                            "{}: aligned buffers, since unaligned ones fail ({why}): frames above {} bytes are received in pieces",
                            self.dev.name,
                            self.geometry.rx_limit()
                        ),
                    );
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

    /// `multi_buffer`: the sibling whose UMEM it shares has frames of several buffers.
    fn adopt(&mut self, queue: u32, socket: Socket, multi_buffer: bool) -> Result<(), Failure> {
        let shared = Arc::new(socket.share().map_err(|e| Failure::system(&e))?);
        if self.queues.is_empty() && !self.late {
            self.multi_buffer = socket.multi_buffer() || (multi_buffer && socket.bound());
            // Some kernels bind a socket all the same.
            if !self.dev.up || !socket.bound() {
                self.says_down();
            }
        }
        let mapped = socket.bound();
        let rings = if self.late { Some(socket.rings().map_err(|e| internal(e.to_string()))?) } else { None };
        self.queues.insert(queue, Queue { _rings: rings, socket, shared, receiving: false, mapped });
        Ok(())
    }

    fn says_down(&self) {
        let name = &self.dev.name;
        log(
            Level::Warn,
            format_args!("{name} is down: it is bound, and starts when it comes up: `ip link set {name} up`"),
        );
    }

    fn plan(&self) -> NicPlan {
        NicPlan {
            rx_size: size_of_rings(self.slots(Dir::Rx)),
            tx_size: size_of_rings(self.slots(Dir::Tx)),
            geometry: self.geometry,
            always: settings().polling.always == Some(true),
            busy: settings().polling.is_busy(),
            copies: self.mode != Mode::ZeroCopy,
        }
    }

    /// Gives the kernel the buffers of a receive ring and steers its queue into it.
    fn receive(&mut self, i: u16, region: &Region) -> Result<(), Failure> {
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

    /// The receive rings of a selection, with what they are to have of spare buffers and have not.
    pub fn give_spares(&self, selection: &Selection, region: &mut Region) {
        for i in self.nic_part(selection).rx {
            let Some(kring) = self.rings.kring(Dir::Rx, i, region) else { continue };
            let lacking = (kring.num_slots() + self.spares).saturating_sub(region.given(&kring));
            if lacking > 0
                && let Some(_lock) = lock(&kring)
            {
                region.give_spares(&kring, lacking);
            }
        }
    }

    /// Gives up to `want` spare buffers back.
    pub fn take_spares(&self, mut want: u32, region: &mut Region) {
        for i in 0..self.rings.counts().rx {
            let Some(kring) = self.rings.kring(Dir::Rx, i, region).filter(|_| want > 0) else { continue };
            if let Some(_lock) = lock(&kring) {
                want -= region.take_spares(&kring, want);
            }
        }
    }

    /// Spare buffers of all receive rings, as many as they may get.
    pub fn most_spares(&self) -> u32 {
        self.spares.saturating_mul(self.rings.counts().rx.into())
    }

    /// Tells the rings whether they have started, and what is known since they did.
    fn tell(&self, region: &Region) {
        for kring in self.rings.krings(region) {
            if HostSide::is_host(&self.rings, kring.dir(), kring.id()) {
                continue;
            }
            let waits = self.queues.get(&u32::from(kring.id())).is_some_and(|q| !q.socket.bound());
            kring.state().pending.store(waits.into(), Relaxed);
            kring.state().chains.store(self.multi_buffer.into(), Relaxed);
        }
    }

    /// Binds the socket of a queue whose client has mapped it, if it is not bound.
    fn bind(&mut self, i: u32) -> Result<(), BindError> {
        let free = self.forced().is_none() && !self.queues.values().any(|q| q.socket.bound());
        let Some(queue) = self.queues.get_mut(&i).filter(|q| q.mapped && !q.socket.bound()) else { return Ok(()) };
        match queue.socket.bind(None) {
            // It was down when it was asked for, or the socket had to be mapped first. The geometry stays: clients know it.
            Err(BindError::NotSupported(why)) if self.mode == Mode::ZeroCopy && free => {
                self.step_down(format_args!("the driver has no zero-copy AF_XDP ({})", why.errno));
                self.geometry = self.geometry.with(Chunks::Aligned).behind(0);
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
        let mut down = !self.dev.up;
        for i in self.selected(selection) {
            self.queues.entry(i).and_modify(|queue| queue.mapped = true);
            match self.bind(i) {
                Ok(()) => {}
                Err(BindError::Down) => down = true,
                Err(e) => return Err(unbound(&self.dev, i, e)),
            }
        }
        // Otherwise that was said when the queues were opened.
        if down && self.late {
            self.says_down();
        }
        self.tell(region);
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
                let stamps = self.stamps.clone().filter(|_| dir == Dir::Rx);
                Some(RingGrant { ring, kring, carrier: CarrierGrant::Nic { socket, plan: self.plan(), stamps }, bell })
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
        // Filters are taken off by the interface's number.
        let inside = Inside::enter(&self.namespace);
        let host = self.host.stop(&mut *self.program, &mut self.rings, region);
        drop(inside);
        self.cut();
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
