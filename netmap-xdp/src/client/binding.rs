//! One open of `/dev/netmap`, and what it is bound to.

use super::csb::CsbState;
use super::ears::Rack;
use super::remote::{self, Known};
use super::uplink::Uplink;
use super::{extmem, host, serve, table, vale};
use crate::abi::{NR_EXCLUSIVE, NR_NO_TX_POLL};
use crate::ctl::{self, Failure, OptionList, PortKind, Register, RegisterReply};
use crate::engine::{Answers, CarrierGrant, Grant, GrantId, ProgramMemory, RingGrant, TapGrant};
use crate::port::host::{ForwardDown, ForwardUp, HostRx, HostTx};
use crate::port::monitor::{MonitorRx, MonitorTx, Tap};
use crate::port::nic::{NicRx, NicTx};
use crate::port::null::Null;
use crate::port::pipe::{PipeRx, PipeTx};
use crate::port::vale::ValeRx;
use crate::port::{Carrier, PortRing, Synced, Wake};
use crate::ring::{Dir, Kring, RingPlace};
use crate::shm::Memory;
use crate::sync::{AtomicBool, AtomicU32, Ordering::*};
use crate::sys::{Errno, Error, Fd, Level, Mode, OwnProcess, dup_onto, hung_up, identity, log, monotonic, settings};
use crate::xsk::Steering;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Events that ask for room to send, and for packets.
pub(super) const WANT_TX: i16 = libc::POLLOUT | libc::POLLWRNORM;
pub(super) const WANT_RX: i16 = libc::POLLIN | libc::POLLRDNORM;
/// A ring that another thread held is tried again this soon: the edge that announced packets may be gone, and what the other
/// took in makes none.
pub(super) const RETRY: Duration = Duration::from_millis(1);
/// Calls after which a program that never sleeps looks after its rings.
const GLANCE: u32 = 1024;

/// One open of `/dev/netmap`.
pub struct Binding {
    seat: Seat,
    bound: OnceLock<Bound>,
    registering: Mutex<()>,
    /// Cursors in memory of the program, and the loop that works on them.
    pub(super) csb: CsbState,
}

/// Who plays the kernel's part for it.
enum Seat {
    /// This process, which holds the other end of the descriptor; none for a binding that is not a descriptor.
    Embedded(Option<Fd>),
    /// netmapd. A copy of the descriptor: as long as it is open, the port stays bound, as a mapping or a running call keeps a
    /// device file open. Made at registration for a binding that is not a descriptor.
    Remote(Mutex<Option<Arc<Fd>>>),
}

/// A registration, mapped.
pub struct Bound {
    id: GrantId,
    reply: RegisterReply,
    name: String,
    mode: Option<Mode>,
    tx_poll: bool,
    exclusive: bool,
    /// From the rings of a NIC to its host.
    uplink: Uplink,
    tx: Vec<PortRing>,
    rx: Vec<PortRing>,
    /// What its sleepers watch.
    pub(super) rack: Rack,
    calls: AtomicU32,
    /// Whether it was seen that a ring has stopped.
    told: AtomicBool,
    memory: Arc<Memory>,
    extmem: bool,
    buf_size: u32,
    region: Arc<Fd>,
    /// The descriptor, for netmapd, to ask about it: it stays open as long as this, as for a mapping.
    token: Option<Arc<Fd>>,
    /// Keep the XDP program on the NIC, and its offloads off, while the rings are mapped, should the engine die.
    _links: Vec<Arc<Fd>>,
}

impl Binding {
    /// A fresh one; `end` is the engine's end of its descriptor, if it has one and the engine is in this process.
    pub fn new(end: Option<Fd>) -> Binding {
        let remote = end.is_none() && remote::chosen();
        Binding::seated(if remote { Seat::Remote(Mutex::new(None)) } else { Seat::Embedded(end) })
    }

    /// A fresh one for a descriptor of netmapd's, of which `token` is a copy.
    pub(super) fn remote(token: Fd) -> Binding {
        Binding::seated(Seat::Remote(Mutex::new(Some(Arc::new(token)))))
    }

    fn seated(seat: Seat) -> Binding {
        Binding { seat, bound: OnceLock::new(), registering: Mutex::new(()), csb: CsbState::default() }
    }

    /// What it is bound to, if it is.
    #[inline]
    pub fn bound(&self) -> Option<&Bound> {
        self.bound.get()
    }

    /// What it is bound to, though another process may have bound it.
    #[inline]
    pub(super) fn bound_by_anyone(&self) -> Option<&Bound> {
        self.bound.get().or_else(|| self.look())
    }

    #[cold]
    fn look(&self) -> Option<&Bound> {
        let Seat::Remote(token) = &self.seat else { return None };
        let _one = self.registering.lock().unwrap_or_else(PoisonError::into_inner);
        let token = token.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        match remote::attach(&token) {
            Ok(Known::Bound(grant, flags)) => self.map(*grant, flags, token).ok(),
            Ok(Known::Unbound | Known::Unknown) | Err(_) => None,
        }
    }

    /// Whether netmapd knows this descriptor by `inode`.
    pub(super) fn is_for(&self, inode: (u64, u64)) -> bool {
        let Seat::Remote(token) = &self.seat else { return false };
        let token = token.lock().unwrap_or_else(PoisonError::into_inner);
        token.as_ref().is_some_and(|fd| identity(fd.as_raw_fd()) == Ok(inode))
    }

    fn map(&self, grant: Grant, flags: u64, token: Arc<Fd>) -> Result<&Bound, Failure> {
        let bound = Bound::map(grant, flags, Some(token))?;
        Ok(self.bound.get_or_init(|| bound))
    }

    /// `NETMAP_REQ_REGISTER`.
    pub fn register(&self, request: &Register) -> Result<&Bound, Failure> {
        self.register_with(request, &mut OptionList::default())
    }

    /// The same for a request with options, each of which gets its answer.
    pub(super) fn register_with(&self, request: &Register, options: &mut OptionList) -> Result<&Bound, Failure> {
        let _one = self.registering.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bound) = self.bound.get() {
            return Err(Failure::already_bound(&bound.name));
        }
        let steered = steered(request)?;
        let request = steered.as_ref().unwrap_or(request);
        let memory = extmem::find(request).inspect_err(|e| {
            serve::answer(options, &Answers { extmem: Some(Err(e.errno)), offsets: None });
        })?;
        let mut answers = Answers::default();
        let mapped = match &self.seat {
            Seat::Embedded(_) => {
                let granted = host::register(request, memory, &mut answers);
                serve::answer(options, &answers);
                let grant = granted?;
                let id = grant.id;
                let mapped = Bound::map(grant, request.flags, None);
                let mapped = mapped.and_then(|bound| self.with_csb(bound, request, options));
                mapped.inspect_err(|_| host::release(id, None))
            }
            Seat::Remote(token) => {
                let mut token = token.lock().unwrap_or_else(PoisonError::into_inner);
                let granted = self.register_remotely(&mut token, request, memory.as_ref(), &mut answers);
                serve::answer(options, &answers);
                let (grant, flags) = granted?;
                let mapped =
                    Bound::map(*grant, flags, token.clone()).and_then(|bound| self.with_csb(bound, request, options));
                mapped.inspect_err(|_| token.iter().for_each(remote::release))
            }
        };
        mapped.map(|bound| self.bound.get_or_init(|| bound))
    }

    /// Changes the steering rules of the NIC that it is bound to, for everybody who has it open.
    pub fn steer(&self, rules: Option<Steering>) -> Result<(), Failure> {
        let bound = self.bound_by_anyone().ok_or_else(Failure::not_bound)?;
        match &bound.token {
            Some(token) => remote::steer(token, rules),
            None => host::steer(bound.id, rules),
        }
    }

    /// The CSB option of a registration.
    fn with_csb(&self, bound: Bound, request: &Register, options: &mut OptionList) -> Result<Bound, Failure> {
        match &request.options.csb {
            Some(csb) => self.enable_csb(Some(&bound), csb, options).map(|()| bound),
            None => Ok(bound),
        }
    }

    pub(super) fn could_register(&self, request: &Register) -> Result<(), Failure> {
        match self.bound.get() {
            Some(bound) => Err(Failure::already_bound(&bound.name)),
            None => host::check(request),
        }
    }

    /// A descriptor that netmapd does not know, since it was restarted, is exchanged for one that it does.
    fn register_remotely(
        &self,
        token: &mut Option<Arc<Fd>>,
        request: &Register,
        memory: Option<&ProgramMemory>,
        answers: &mut Answers,
    ) -> Result<(Box<Grant>, u64), Failure> {
        for _ in 0..3 {
            let known = match token {
                Some(token) => token.clone(),
                None => token.insert(Arc::new(remote::open(true)?)).clone(),
            };
            if let Known::Bound(grant, flags) = remote::register(&known, request, memory, answers)? {
                return Ok((grant, flags));
            }
            let fresh = Arc::new(remote::open(true)?);
            for fd in table::numbers_of(self) {
                let kept = crate::sys::cloexec(fd);
                dup_onto(fresh.as_raw_fd(), fd, kept).map_err(|e| remote::failed("dup3", e))?;
            }
            *token = Some(fresh);
        }
        Err(ctl::Condition::System.says("netmapd forgets descriptors as soon as they are made"))
    }

    /// `NIOCTXSYNC`, `NIOCRXSYNC`. `ENXIO`: not bound; `EIO`: a ring is gone; `EBUSY`: its cursors
    /// are in a CSB.
    #[inline]
    pub fn sync(&self, dir: Dir) -> Result<i32, Errno> {
        let bound = self.bound_by_anyone().ok_or(Errno(libc::ENXIO))?;
        if self.csb.on() {
            return Err(Errno(libc::EBUSY));
        }
        bound.glance();
        let mut result = Ok(0);
        for ring in bound.rings(dir) {
            match bound.sync(ring) {
                Synced::Stopped => result = Err(Errno(libc::EIO)),
                Synced::Done | Synced::Busy | Synced::Reinit | Synced::Stale => {}
            }
            if ring.kring().state().pending.load(Relaxed) != 0 {
                host::tend();
            }
        }
        result
    }

    /// Every other ioctl; `arg` is an address in this process.
    pub fn control(&self, request: u64, arg: u64) -> Result<i32, Errno> {
        let told = |f: Failure| {
            tell(&f);
            f.errno
        };
        let mut call = ctl::try_decode(&OwnProcess, request, arg).map_err(told)?;
        let outcome = self.carry_out(&mut call);
        call.finish(&OwnProcess, outcome.map_err(told)).map(|()| 0)
    }

    /// What `poll` does and answers: implicit syncs as `netmap_poll` makes them, and the events that hold then.
    pub(super) fn poll_now(&self, events: i16) -> Polled {
        let Some(bound) = self.bound_by_anyone().filter(|_| !self.csb.on()) else {
            return Polled { revents: libc::POLLERR, busy: false };
        };
        bound.glance();
        let (mut want_tx, want_rx) = (events & WANT_TX, events & WANT_RX);
        let mut now = Polled { revents: 0, busy: false };
        if bound.tx_poll || want_tx != 0 {
            for ring in &bound.tx {
                if want_tx == 0 && !ring.has_work() && !ring.carrier().stalled() {
                    continue;
                }
                if now.sync(bound, ring) {
                    now.revents |= want_tx;
                    want_tx = 0;
                }
            }
        }
        if want_rx != 0 {
            for ring in &bound.rx {
                if now.sync(bound, ring) {
                    now.revents |= want_rx;
                }
            }
        }
        now
    }
}

/// The registration of a NIC with the steering rules of the environment, if there are any and it has none of its own.
fn steered(request: &Register) -> Result<Option<Register>, Failure> {
    let Some(text) = settings().steer.as_deref().filter(|_| request.options.steering.is_none()) else {
        return Ok(None);
    };
    if !matches!(request.kind(), Ok(PortKind::Nic)) {
        return Ok(None);
    }
    let rules = Steering::parse(text).map_err(|e| Failure::bad_steering("NETMAP_XDP_STEER", e))?;
    let mut request = request.clone();
    request.options.steering = Some(rules);
    Ok(Some(request))
}

/// What `poll` found without waiting.
#[derive(Clone, Copy)]
pub(super) struct Polled {
    /// Events of a `pollfd`.
    pub(super) revents: i16,
    /// Whether a ring was skipped since another thread had it.
    pub(super) busy: bool,
}

impl Polled {
    /// Syncs a ring; says whether it is ready.
    #[inline]
    fn sync(&mut self, bound: &Bound, ring: &PortRing) -> bool {
        match bound.sync(ring) {
            Synced::Busy | Synced::Stale => self.busy = true,
            Synced::Reinit | Synced::Stopped => self.revents |= libc::POLLERR,
            Synced::Done => {}
        }
        ring.kring().ready()
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if let Some(bound) = self.bound.take() {
            let id = bound.id;
            // A mapping of a socket's rings counts as a reference to the socket: unmap first. For netmapd, the hang-up of
            // the descriptor comes next and says the rest.
            drop(bound);
            if let Seat::Embedded(end) = &mut self.seat {
                host::release(id, end.take());
            }
        }
    }
}

/// Tells netmapd that the rings are mapped. A queue that was closed a moment ago takes a while to be free; netmapd does
/// not wait for it, since it has others to serve.
fn begin(token: &Arc<Fd>) -> Result<(), Failure> {
    let end = monotonic() + settings().rebind_wait;
    loop {
        match remote::mapped(token) {
            Err(e) if e.errno == Errno(libc::EBUSY) && monotonic() < end => std::thread::sleep(RETRY),
            done => return done,
        }
    }
}

/// Prints a failure, unless it repeats the last one: programs try again and again. One without words is an answer.
pub(super) fn tell(failure: &Failure) {
    if failure.message.is_empty() {
        return;
    }
    static LAST: Mutex<String> = Mutex::new(String::new());
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if *last != failure.message {
        log(Level::Error, format_args!("{failure}"));
        last.clone_from(&failure.message);
    }
}

/// Maps a ring of a monitor; one that cannot be mapped gets nothing. `shared` is the region of the monitored ring.
pub(super) fn map_tap(grant: &TapGrant, shared: &Arc<Memory>) -> Option<Tap> {
    let region = match &grant.region {
        Some((fd, size)) => Memory::map(fd, *size as usize, 0, false).ok()?,
        None => shared.clone(),
    };
    let private = Memory::map(&grant.private, grant.private_size as usize, 0, false).ok()?;
    let kring = Kring::attach(&region, grant.ring, &private, grant.kring).ok()?;
    Some(Tap::new(kring, Wake::new(grant.wake.clone(), grant.wake.clone()), grant.kind))
}

impl Bound {
    fn map(grant: Grant, flags: u64, token: Option<Arc<Fd>>) -> Result<Bound, Failure> {
        let failed = |what: &str| {
            let object = format!("{what} of {}", grant.name);
            move |e| Failure::system(&Error::new("mmap", object, e))
        };
        let extmem = grant.region.of_program;
        let memory = grant.region.map().map_err(failed("the region"))?;
        let copies = |g: &RingGrant| matches!(&g.carrier, CarrierGrant::Nic { plan, .. } if plan.copies);
        if let Some(RingPlace { buffers_at, buffers, buf_size, .. }) =
            grant.tx.iter().find(|g| copies(g)).map(|g| g.ring)
        {
            // What is sent is prefetched, which does nothing where a page is not present. All of them exist: the UMEM's.
            let start = buffers_at as usize;
            memory.populate(start..start.saturating_add(buffers as usize * buf_size as usize));
        }
        let size = grant.private_size as usize;
        let private = Memory::map(&grant.private, size, 0, false).map_err(failed("the ring state"))?;
        let bad = |e: &dyn std::fmt::Display| ctl::Condition::System.says(format!("{}: {e}", grant.name));
        // With NIC and host rings in one binding, what the program releases may go on to the other side: `NR_FORWARD`.
        let tap = grant.tx.iter().chain(&grant.rx).find_map(|g| match &g.carrier {
            CarrierGrant::Host { tap, .. } => Some(tap.clone()),
            _ => None,
        });
        let nic = grant.rx.iter().any(|g| matches!(g.carrier, CarrierGrant::Nic { .. }));
        let uplink = Uplink::new(tap, nic);
        let down = || -> Result<Option<ForwardDown>, Failure> {
            let mut to = Vec::new();
            for g in &grant.tx {
                if let CarrierGrant::Nic { socket, plan, .. } = &g.carrier {
                    let kring = Kring::attach(&memory, g.ring, &private, g.kring).map_err(|e| bad(&e))?;
                    let carrier = NicTx::map(socket.clone(), *plan).map_err(|e| bad(&e))?;
                    to.push(PortRing::new(kring, Box::new(carrier)).with_bell(g.bell.clone()));
                }
            }
            // As in the module, only with all of the NIC's transmit rings.
            let all = to.len() == usize::from(grant.reply.tx_rings);
            Ok(all.then(|| ForwardDown::new(to, remote::client_id())))
        };
        let ring = |g: &RingGrant| -> Result<PortRing, Failure> {
            let kring = Kring::attach(&memory, g.ring, &private, g.kring).map_err(|e| bad(&e))?;
            let carrier: Box<dyn Carrier> = match (&g.carrier, g.ring.dir) {
                (CarrierGrant::Nic { socket, plan, .. }, Dir::Tx) => {
                    Box::new(NicTx::map(socket.clone(), *plan).map_err(|e| bad(&e))?)
                }
                (CarrierGrant::Nic { socket, plan, stamps }, Dir::Rx) => {
                    let nic = NicRx::map(socket.clone(), *plan).map_err(|e| bad(&e))?;
                    let nic = match stamps {
                        Some(fd) => nic.with_stamps(fd, g.ring.id).map_err(|e| bad(&e))?,
                        None => nic,
                    };
                    Box::new(ForwardUp::new(nic, uplink.way().clone()))
                }
                (CarrierGrant::Host { tap, links, .. }, Dir::Tx) => Box::new(HostTx::new(tap.clone(), links.clone())),
                (CarrierGrant::Host { tap, links }, Dir::Rx) => {
                    Box::new(HostRx::new(tap.clone(), links.clone(), down()?))
                }
                (CarrierGrant::Monitor { .. }, Dir::Tx) => Box::new(MonitorTx),
                (CarrierGrant::Monitor { wake }, Dir::Rx) => {
                    Box::new(MonitorRx::new(Wake::new(wake.clone(), wake.clone())))
                }
                (CarrierGrant::Null, _) => Box::new(Null),
                (CarrierGrant::ValeTx { seat }, _) => Box::new(vale::sender(seat.as_ref()).map_err(|e| bad(&e))?),
                (CarrierGrant::ValeRx { wake }, _) => Box::new(ValeRx::new(wake.clone())),
                (CarrierGrant::Pipe { peer, peer_kring, wake, wake_peer }, dir) => {
                    let peer = Kring::attach(&memory, *peer, &private, *peer_kring).map_err(|e| bad(&e))?;
                    let wake = Wake::new(wake.clone(), wake_peer.clone());
                    if dir == Dir::Tx { Box::new(PipeTx::new(peer, wake)) } else { Box::new(PipeRx::new(peer, wake)) }
                }
            };
            Ok(PortRing::new(kring, carrier).with_bell(g.bell.clone()))
        };
        let bound = Bound {
            id: grant.id,
            reply: grant.reply,
            tx_poll: flags & NR_NO_TX_POLL == 0,
            exclusive: flags & NR_EXCLUSIVE != 0,
            tx: grant.tx.iter().map(ring).collect::<Result<_, _>>()?,
            rx: grant.rx.iter().map(ring).collect::<Result<_, _>>()?,
            uplink,
            rack: Rack::default(),
            calls: AtomicU32::new(0),
            told: AtomicBool::new(false),
            memory,
            extmem,
            buf_size: grant.region.buf_size,
            region: grant.region.fd,
            token,
            _links: grant.links,
            name: grant.name,
            mode: grant.mode,
        };
        if grant.awaited {
            match &bound.token {
                Some(token) => begin(token)?,
                None => host::mapped(bound.id)?,
            }
        }
        Ok(bound)
    }

    /// Syncs one ring.
    #[inline]
    fn sync(&self, ring: &PortRing) -> Synced {
        if self.uplink.wanted(ring) {
            self.uplink.build(&self.name);
        }
        match ring.sync(remote::client_id()) {
            Synced::Stale => self.sync_monitored(ring),
            Synced::Stopped => {
                self.stopped();
                Synced::Stopped
            }
            other => other,
        }
    }

    /// A ring has stopped: the engine says why, if it is in this process and did not yet.
    #[cold]
    fn stopped(&self) {
        if self.mode.is_some() && !self.told.swap(true, Relaxed) {
            host::tend_now();
        }
    }

    /// Finds out which monitors a ring has now, and syncs it.
    #[cold]
    fn sync_monitored(&self, ring: &PortRing) -> Synced {
        // They may change again meanwhile, but not for ever.
        for _ in 0..4 {
            self.learn_monitors(ring);
            match ring.sync(remote::client_id()) {
                Synced::Stale => {}
                other => return other,
            }
        }
        Synced::Stale
    }

    /// Finds out which monitors a ring has now.
    pub(super) fn learn_monitors(&self, ring: &PortRing) {
        let k = ring.kring();
        let number = k.state().taps.load(Relaxed);
        let taps = match &self.token {
            Some(token) => remote::taps(token, k.dir(), k.id()),
            None => host::taps(self.id, k.dir(), k.id()),
        };
        match taps {
            Some(now) => ring.monitor(now.number, now.taps.iter().filter_map(|t| map_tap(t, &self.memory)).collect()),
            // Traffic goes on without them.
            None => ring.monitor(number, Vec::new()),
        }
    }

    /// From the rings of a NIC to its host.
    pub(super) fn uplink(&self) -> &Uplink {
        &self.uplink
    }

    /// What the program was told.
    pub fn reply(&self) -> &RegisterReply {
        &self.reply
    }

    /// Whether nobody else can bind its rings.
    pub fn exclusive(&self) -> bool {
        self.exclusive
    }

    /// Name of the port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the NIC is driven, for a port that is one.
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// Whether the region is memory of the program, which maps nothing then.
    pub fn extmem(&self) -> bool {
        self.extmem
    }

    /// Bytes of a buffer of the region.
    pub fn buf_size(&self) -> u32 {
        self.buf_size
    }

    /// The region's memfd.
    pub fn region(&self) -> &Fd {
        &self.region
    }

    /// The region, mapped.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The bound rings of a direction, lowest first.
    #[inline]
    pub fn rings(&self, dir: Dir) -> &[PortRing] {
        match dir {
            Dir::Tx => &self.tx,
            Dir::Rx => &self.rx,
        }
    }

    /// Called once per call of a program, which may never sleep: the interface is looked at every so many of them.
    #[inline]
    fn glance(&self) {
        if self.mode.is_some() {
            let calls = self.calls.load(Relaxed).wrapping_add(1);
            // Two threads may lose a count.
            self.calls.store(calls, Relaxed);
            if calls.is_multiple_of(GLANCE) {
                host::tend_calmly();
            }
        }
    }

    /// Whether netmapd, which granted it, is dead.
    pub(super) fn orphaned(&self) -> bool {
        self.token.as_ref().is_some_and(|token| hung_up(token))
    }

    /// Descriptor numbers of the sockets behind the rings, each once: for statistics.
    pub fn sockets(&self) -> Vec<std::os::fd::RawFd> {
        let mut all: Vec<_> = self.tx.iter().chain(&self.rx).filter_map(|r| r.carrier().socket()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}
