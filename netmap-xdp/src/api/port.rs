//! Opening ports and waiting on them.

use super::{DropReason, Error, Interest, Ready, RingCounters, RxRing, TxRing};
use crate::abi::{NR_ACCEPT_VNET_HDR, NR_EXCLUSIVE, NR_NO_TX_POLL};
use crate::client::{self, Binding, Bound};
use crate::ctl::{Extmem, Failure, Offsets, Pools, PortKind, Register, Spec};
use crate::ring::{Dir, Drop, Kring};
use crate::sync::Ordering::*;
use crate::sys::netdev::{NetDev, link_state};
use crate::sys::{Errno, map_whole_file, xdp};
use crate::xsk::Steering;
use smallvec::SmallVec;
use std::ops::Deref;
use std::time::Duration;

/// How to open a port.
#[derive(Debug, Clone)]
pub struct Builder {
    name: String,
    extra_bufs: u32,
    tx_slots: u32,
    rx_slots: u32,
    flags: u64,
    steering: Option<Steering>,
    mem_id: u16,
    offsets: Option<(u32, u32)>,
}

impl Builder {
    /// `name` as netmap programs take it: `netmap:eth0` (all queues), `netmap:eth0-1` (one), `netmap:eth0^`
    /// (its host rings), `netmap:eth0*` (both, host rings last), with `/R` (receive only), `/T`
    /// (transmit only), `/x` (exclusive), and any of `@ID` (the region of that memory id), `@share=NAME` (the region of that
    /// port), `@extmem=FILE` (a region in that file), `@offset=N` (packets begin N bytes into their buffers),
    /// `@conf:slots=512` and so on.
    pub fn new(name: &str) -> Builder {
        Builder {
            name: name.to_string(),
            extra_bufs: 0,
            tx_slots: 0,
            rx_slots: 0,
            flags: 0,
            steering: None,
            mem_id: 0,
            offsets: None,
        }
    }

    /// The port is to live in the region of this id: [`Port::mem_id`] of another port.
    #[must_use]
    pub fn mem_id(mut self, id: u16) -> Builder {
        self.mem_id = id;
        self
    }

    /// Packets begin `initial` bytes into their buffers, and slots may have offsets of up to `max`: see
    /// [`Slot::set_offset`](super::Slot::set_offset).
    #[must_use]
    pub fn offsets(mut self, initial: u32, max: u32) -> Builder {
        self.offsets = Some((initial, max));
        self
    }

    /// Buffers beside those of the rings; fewer may come.
    #[must_use]
    pub fn extra_buffers(mut self, n: u32) -> Builder {
        self.extra_bufs = n;
        self
    }

    /// Slots of a transmit ring, if nobody has the port open yet.
    #[must_use]
    pub fn tx_slots(mut self, n: u32) -> Builder {
        self.tx_slots = n;
        self
    }

    /// Slots of a receive ring, if nobody has the port open yet.
    #[must_use]
    pub fn rx_slots(mut self, n: u32) -> Builder {
        self.rx_slots = n;
        self
    }

    /// Nobody else may bind the rings.
    #[must_use]
    pub fn exclusive(mut self) -> Builder {
        self.flags |= NR_EXCLUSIVE;
        self
    }

    /// Waiting pushes transmit slots only when room to send is asked for.
    #[must_use]
    pub fn no_tx_poll(mut self) -> Builder {
        self.flags |= NR_NO_TX_POLL;
        self
    }

    /// Packets that start with a virtio-net header are understood ([`control::set_header`](super::control::set_header)).
    #[must_use]
    pub fn accept_vnet_header(mut self) -> Builder {
        self.flags |= NR_ACCEPT_VNET_HDR;
        self
    }

    /// Only frames of the NIC that these rules choose come to netmap; the host keeps the others. In place of what
    /// `NETMAP_XDP_STEER` says. `EINVAL`: the port is no NIC; `EBUSY`: it is open with other rules; `EPERM`: netmapd's
    /// configuration has other rules for it.
    #[must_use]
    pub fn steer(mut self, rules: Steering) -> Builder {
        self.steering = Some(rules);
        self
    }

    /// Opens the port.
    ///
    /// Errors as `NETMAP_REQ_REGISTER` gives them: `EINVAL` (name, ring out of range, MTU), `ENXIO` (no such interface),
    /// `EBUSY` (rings taken, foreign XDP program), `EPERM`, `ENOMEM`, `EOPNOTSUPP`.
    pub fn open(self) -> Result<Port, Error> {
        let spec = Spec::parse(&self.name)?;
        let asked: Register = spec.register();
        let pick = |own: u32, named: u32| if own == 0 { named } else { own };
        let register = Register {
            flags: asked.flags | self.flags,
            extra_bufs: pick(self.extra_bufs, asked.extra_bufs),
            tx_slots: pick(self.tx_slots, asked.tx_slots),
            rx_slots: pick(self.rx_slots, asked.rx_slots),
            ..asked
        };
        let mut register = register;
        if self.mem_id != 0 {
            register.mem_id = self.mem_id;
        }
        if let Some(share) = &spec.share {
            let mem_id = super::control::info(&share.to_string())?.shape.mem_id;
            if register.mem_id != 0 && register.mem_id != mem_id {
                let asked = register.mem_id;
                let message = format!("{}: memory id {asked} is not that of {share}, which is {mem_id}", self.name);
                return Err(Error { errno: libc::EINVAL, message });
            }
            register.mem_id = mem_id;
        }
        // The engine maps it for itself: this mapping is there for as long as it takes.
        let file = match &spec.extmem {
            Some(extmem) => {
                let failed = |e: Errno| Error { errno: e.0, message: format!("{}: cannot map it: {e}", extmem.path) };
                let map = map_whole_file(&extmem.path).map_err(failed)?;
                let pools = Pools { memsize: map.len() as u64, ..extmem.pools };
                register.options.extmem = Some(Extmem { address: map.addr().as_ptr() as u64, pools });
                Some(map)
            }
            None => None,
        };
        if let Some((initial, max)) = self.offsets {
            let (initial, max) = (initial.into(), max.into());
            register.options.offsets = Some(Offsets { initial, max, bits: 0, tx_align: 0, min_gap: 0 });
        }
        if self.steering.is_some() {
            if !matches!(register.kind(), Ok(PortKind::Nic)) {
                return Err(Failure::not_steerable().into());
            }
            register.options.steering = self.steering;
        }
        let binding = Binding::new(None);
        binding.register(&register)?;
        drop(file);
        Ok(Port { binding })
    }
}

/// A bound port.
pub struct Port {
    /// Registered: see `Builder::open`, the only place that makes one.
    binding: Binding,
}

impl Port {
    /// Opens a port by its name, with nothing special.
    pub fn open(name: &str) -> Result<Port, Error> {
        Builder::new(name).open()
    }

    fn bound(&self) -> &Bound {
        self.binding.bound().expect("a port is made only after its binding was registered")
    }

    fn kring(&self, dir: Dir, i: usize) -> &Kring {
        self.bound().rings(dir)[i].kring()
    }

    /// Name of the interface.
    pub fn name(&self) -> &str {
        self.bound().name()
    }

    /// Identity of the memory region: ports with the same one can exchange buffers.
    pub fn mem_id(&self) -> u16 {
        self.bound().reply().mem_id
    }

    /// Bytes of a buffer.
    pub fn buf_size(&self) -> usize {
        self.bound().buf_size() as usize
    }

    /// How the NIC is driven: `zero-copy`, `native` (the driver runs XDP, the kernel copies), `generic`; `memory` for a port
    /// that is no NIC.
    pub fn mode(&self) -> String {
        self.bound().mode().map_or_else(|| "memory".to_string(), |m| m.to_string())
    }

    /// Bound transmit rings.
    pub fn tx_count(&self) -> usize {
        self.bound().rings(Dir::Tx).len()
    }

    /// Bound receive rings.
    pub fn rx_count(&self) -> usize {
        self.bound().rings(Dir::Rx).len()
    }

    /// Transmit rings that the NIC has, bound or not.
    pub fn nic_tx_rings(&self) -> u16 {
        self.bound().reply().tx_rings
    }

    /// Receive rings that the NIC has, bound or not.
    pub fn nic_rx_rings(&self) -> u16 {
        self.bound().reply().rx_rings
    }

    /// Extra buffers that came with the port.
    pub fn extra_buffers(&self) -> u32 {
        self.bound().reply().extra_bufs
    }

    /// The `i`-th bound transmit ring; `i < tx_count()`, or it panics as an index does.
    pub fn tx(&mut self, i: usize) -> TxRing<'_> {
        TxRing::new(self.kring(Dir::Tx, i))
    }

    /// The `i`-th bound receive ring; `i < rx_count()`, or it panics as an index does.
    pub fn rx(&mut self, i: usize) -> RxRing<'_> {
        RxRing::new(self.kring(Dir::Rx, i))
    }

    /// A receive and a transmit ring at once, to answer or forward what came in.
    pub fn pair(&mut self, rx: usize, tx: usize) -> (RxRing<'_>, TxRing<'_>) {
        (RxRing::new(self.kring(Dir::Rx, rx)), TxRing::new(self.kring(Dir::Tx, tx)))
    }

    /// Pushes what was put into the transmit rings and takes back what was sent: `NIOCTXSYNC`. `EIO`: the interface is gone.
    pub fn sync_tx(&mut self) -> Result<(), Error> {
        self.sync(Dir::Tx)
    }

    /// Gives back released slots and takes what was received: `NIOCRXSYNC`. `EIO`: the interface is gone.
    pub fn sync_rx(&mut self) -> Result<(), Error> {
        self.sync(Dir::Rx)
    }

    fn sync(&self, dir: Dir) -> Result<(), Error> {
        let failed =
            |e: crate::sys::Errno| Error { errno: e.0, message: format!("{}: the interface is gone", self.name()) };
        self.binding.sync(dir).map(drop).map_err(failed)
    }

    /// `poll`: syncs, and waits until what is wanted is there; `None` waits without limit. `EINTR`: a signal came.
    pub fn wait(&mut self, want: Interest, timeout: Option<Duration>) -> Result<Ready, Error> {
        let mut fds = [entry(want)];
        client::wait(&mut fds, |_, _| Some(&self.binding), timeout, None)?;
        Ok(ready(&fds[0]))
    }

    /// Changes which frames of the NIC come to netmap, from now on and for everybody who has it open; none: all of them.
    /// `EINVAL`: the port is no NIC; `EPERM`: netmapd's configuration has rules for it.
    pub fn steer(&self, rules: Option<&Steering>) -> Result<(), Error> {
        self.binding.steer(rules.cloned()).map_err(Error::from)
    }

    /// Counters of the `i`-th bound transmit ring.
    pub fn tx_counters(&self, i: usize) -> RingCounters {
        counters(self.kring(Dir::Tx, i))
    }

    /// Counters of the `i`-th bound receive ring.
    pub fn rx_counters(&self, i: usize) -> RingCounters {
        counters(self.kring(Dir::Rx, i))
    }

    /// Drops on all bound rings by reason, the kernel's (`XDP_STATISTICS`) among them; those that occurred.
    pub fn drops(&self) -> Vec<DropReason> {
        let bound = self.bound();
        let mut all: Vec<DropReason> = Drop::ALL.iter().map(|&(_, name)| (name, 0)).collect();
        for ring in bound.rings(Dir::Tx).iter().chain(bound.rings(Dir::Rx)) {
            for (sum, (_, _, n)) in all.iter_mut().zip(ring.kring().drops()) {
                sum.1 += n;
            }
        }
        let mut kernel = xdp::Statistics::default();
        for s in bound.sockets().into_iter().filter_map(|fd| xdp::statistics(fd).ok()) {
            kernel.rx_dropped += s.rx_dropped;
            kernel.rx_invalid_descs += s.rx_invalid_descs;
            kernel.tx_invalid_descs += s.tx_invalid_descs;
            kernel.rx_ring_full += s.rx_ring_full;
            kernel.rx_fill_ring_empty += s.rx_fill_ring_empty;
        }
        all.extend([
            ("rx-dropped", kernel.rx_dropped),
            ("rx-invalid-descs", kernel.rx_invalid_descs),
            ("tx-invalid-descs", kernel.tx_invalid_descs),
            ("rx-ring-full", kernel.rx_ring_full),
            ("rx-fill-ring-empty", kernel.rx_fill_ring_empty),
        ]);
        all.retain(|&(_, n)| n > 0);
        all
    }

    fn dev(&self) -> Option<NetDev> {
        NetDev::by_name(self.name()).ok()
    }

    /// The interface's Ethernet address, if it is still in this network namespace.
    pub fn mac(&self) -> Option<[u8; 6]> {
        Some(self.dev()?.mac)
    }

    /// The interface's MTU, if it is still in this network namespace.
    pub fn mtu(&self) -> Option<u32> {
        Some(self.dev()?.mtu)
    }

    /// Whether the interface is up and has carrier; a port that is no NIC always has.
    pub fn link_up(&self) -> bool {
        if self.bound().mode().is_none() {
            return true;
        }
        self.dev().and_then(|d| link_state(d.ifindex).ok()).is_some_and(|l| l.up && l.running)
    }
}

fn counters(k: &Kring) -> RingCounters {
    let s = k.state();
    RingCounters {
        packets: s.packets.load(Relaxed),
        bytes: s.bytes.load(Relaxed),
        syncs: s.syncs.load(Relaxed),
        drops: k.drops().iter().map(|d| d.2).sum(),
    }
}

/// `poll` over several ports: answer `i` belongs to `ports[i]`. `EINTR`: a signal came.
pub fn wait_many(
    ports: &mut [(&mut Port, Interest)],
    timeout: Option<Duration>,
) -> Result<impl Deref<Target = [Ready]> + IntoIterator<Item = Ready> + use<>, Error> {
    let mut fds: SmallVec<[_; 8]> = ports.iter().map(|(_, want)| entry(*want)).collect();
    client::wait(&mut fds, |i, _| ports.get(i).map(|(port, _)| &port.binding), timeout, None)?;
    Ok(fds.iter().map(ready).collect::<SmallVec<[_; 8]>>())
}

/// What is asked of a port. The number is not used: the binding is found by its place.
fn entry(want: Interest) -> libc::pollfd {
    let events = (if want.read { libc::POLLIN } else { 0 }) | (if want.write { libc::POLLOUT } else { 0 });
    libc::pollfd { fd: 0, events, revents: 0 }
}

fn ready(p: &libc::pollfd) -> Ready {
    Ready {
        read: p.revents & libc::POLLIN != 0,
        write: p.revents & libc::POLLOUT != 0,
        error: p.revents & libc::POLLERR != 0,
    }
}
