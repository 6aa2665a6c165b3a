//! Attaching to switches: a NIC, a NIC with its host rings, or a persistent port that sits in another switch already.
//!
//! ```text
//! attach    bind what is attached, alone -> its side of the switch: a port in the same region, directions exchanged
//!           -> a lane for every ring -> threads (`service`)
//! detach    end the threads -> let go of both sides
//! ```
//! What is attached and its side of the switch are ports like any other, with the engine as their user. A NIC gets a region of
//! its own unless a memory id is given: senders of the switch map it, and see the packets of this NIC and of no other.

use super::grant::{CarrierGrant, RingGrant};
use super::registry::{self, PortKey};
use super::service::{PollPlan, Service, Way};
use super::vale::{Attached, ValeId};
use super::{Engine, Grant, GrantId, Region, Target, interface, vale_name};
use crate::abi::{NETMAP_POLLING_MODE_MULTI_CPU, NETMAP_POLLING_MODE_SINGLE_CPU, NR_ACCEPT_VNET_HDR, NR_EXCLUSIVE};
use crate::ctl::{Condition, Failure, Mode, Polling, PortName, Register, RingCounts, Selection};
use crate::port::host::{HostRx, HostTx};
use crate::port::lane::Lane;
use crate::port::nic::{NicRx, NicTx};
use crate::port::vale::lease::SERVER;
use crate::port::vale::switch::{MAX_RINGS, MAX_SLOTS};
use crate::port::vale::{ValeRx, ValeTx};
use crate::port::{Carrier, PortRing};
use crate::ring::Dir;
use crate::sys::{Fd, Inside, Level, log, namespace, online_cpus, settings};
use std::time::Duration;

/// How often attached interfaces are looked at: one that is down may come up, any may have vanished.
const LOOK_FOR_UP: Duration = Duration::from_millis(50);
const LOOK_FOR_GONE: Duration = Duration::from_secs(1);

/// Something that is attached.
pub(super) struct Attachment {
    /// `valeS:IF`.
    name: PortName,
    /// What is attached.
    outside: PortKey,
    /// Its side of the switch, and that of its host rings.
    ports: Vec<ValeId>,
    grants: Vec<GrantId>,
    /// Where the interface is.
    namespace: Option<Fd>,
    service: Service,
}

/// The rings of a port that the engine uses, transmit and receive.
type Rings = [Vec<PortRing>; 2];

impl Engine {
    /// `NETMAP_REQ_VALE_ATTACH`. Returns the index of the port.
    pub(super) fn attach(&mut self, register: &Register) -> Result<u32, Failure> {
        self.reap();
        self.ports.queue_busy = false;
        self.check_mem_id(register.mem_id)?;
        let name = register.name;
        if !name.as_bytes().starts_with(b"vale") {
            return Err(Failure::not_a_vale_port(name));
        }
        if self.ports.vales.find(name).is_some() {
            return Err(Failure::port_busy(name));
        }
        let local = vale_name::local_name(name)?;
        let target =
            match self.ports.vales.find(local) {
                Some(id) if self.ports.vales.index(id).is_none() => {
                    return self.ports.vales.attach(id, name).map(u32::from);
                }
                Some(id) => Target::Vale(id),
                None => Target::Nic(interface(local).map_err(|_| {
                    Failure::not_a_vale_port(format!("{name}: there is nothing called {local} to attach"))
                })?),
            };
        self.ports.vales.check_room(name)?;
        let outside = match &target {
            Target::Vale(id) => PortKey::Vale(*id),
            Target::Nic(dev) => PortKey::Nic(registry::nic_key(dev)),
            _ => return Err(Failure::not_a_vale_port(name)),
        };
        if !self.ports.unused(&outside) {
            return Err(Failure::port_busy(name));
        }
        if register.ring_id != 0 || !matches!(register.mode, Mode::AllNic | Mode::NicSw) {
            return Err(Failure::attached_whole(name));
        }
        let mut grants = Vec::new();
        match self.connect(register, local, outside, &mut grants) {
            Ok(attachment) => {
                let index = attachment.ports.first().and_then(|&id| self.ports.vales.index(id));
                self.attachments.push(attachment);
                Ok(index.unwrap_or_default().into())
            }
            Err(e) => {
                grants.into_iter().rev().for_each(|id| self.release(id));
                self.drop_idle();
                Err(e)
            }
        }
    }

    /// Binds both sides and starts what carries packets between them. What was bound is in `grants`, come what may.
    fn connect(
        &mut self,
        register: &Register,
        local: PortName,
        outside: PortKey,
        grants: &mut Vec<GrantId>,
    ) -> Result<Attachment, Failure> {
        let mut wanted = Register {
            mode: register.mode,
            flags: NR_EXCLUSIVE | NR_ACCEPT_VNET_HDR,
            mem_id: register.mem_id,
            tx_slots: register.tx_slots,
            rx_slots: register.rx_slots,
            ..Register::new(local)
        };
        if matches!(outside, PortKey::Nic(_)) && register.mem_id == 0 {
            wanted.mem_id = self.mem_id_for(0);
            let buffers = self.buffers_of_both(&wanted)?;
            self.regions.insert(wanted.mem_id, Region::new(wanted.mem_id, buffers, settings().buf_size)?);
        }
        let Grant { id, reply, .. } = self.register(&wanted)?;
        grants.push(id);
        if let PortKey::Nic(key) = outside
            && let Some(nic) = self.ports.nics.get_mut(&key)
        {
            // Behind a switch there are other addresses than the NIC's own.
            nic.hear_all();
        }
        let (counts, slots) = ((reply.tx_rings, reply.rx_rings), [reply.tx_slots, reply.rx_slots]);
        let host = (register.mode == Mode::NicSw).then_some((reply.host_tx_rings, reply.host_rx_rings));
        let header = match outside {
            PortKey::Vale(id) => self.ports.vales.get(id).map_or(0, |p| p.header()),
            _ => 0,
        };
        let all = Selection { tx: 0..counts.0 + host.map_or(0, |h| h.0), rx: 0..counts.1 + host.map_or(0, |h| h.1) };
        let [mut tx, mut rx] = self.rings_of(outside, &all)?;
        self.mapped(id)?;
        let (host_tx, host_rx) = (tx.split_off(counts.0.into()), rx.split_off(counts.1.into()));
        let mut sides = vec![(register.name, counts, [tx, rx])];
        if let Some(host) = host {
            sides.push((host_name(register.name)?, host, [host_tx, host_rx]));
        }
        let (mut lanes, mut ports) = (Vec::new(), Vec::new());
        for (name, counts, [tx, rx]) in sides {
            let (mem_id, [tx_slots, rx_slots]) = (reply.mem_id, slots.map(|n| n.min(MAX_SLOTS)));
            let counts = RingCounts { tx: counts.1, rx: counts.0.min(MAX_RINGS), host_tx: 0, host_rx: 0 };
            let shape = Attached { counts, slots: [rx_slots, tx_slots], mem_id, header };
            let id = self.ports.vales.open_attached(name, shape)?;
            let selection = Selection { tx: 0..counts.tx, rx: 0..counts.rx };
            let grant = self.admit(PortKey::Vale(id), selection.clone(), &Register::new(name))?;
            grants.push(grant.id);
            ports.push(id);
            let [inside_tx, inside_rx] = self.rings_of(PortKey::Vale(id), &selection)?;
            lanes.extend(rx.into_iter().zip(inside_tx).map(|(from, to)| (Way::In, Lane::new(from, to, SERVER))));
            lanes.extend(inside_rx.into_iter().zip(tx).map(|(from, to)| (Way::Out, Lane::new(from, to, SERVER))));
        }
        let service = Service::start(&register.name.to_string(), lanes, self.nudge).map_err(|e| Failure::system(&e))?;
        let namespace = namespace().ok().filter(|_| matches!(outside, PortKey::Nic(_)));
        Ok(Attachment { name: register.name, outside, ports, grants: grants.clone(), namespace, service })
    }

    /// Buffers for all rings of a NIC and for as many on its side of the switch.
    fn buffers_of_both(&self, register: &Register) -> Result<u32, Failure> {
        let Target::Nic(dev) = interface(register.name).map(Target::Nic)? else { return Ok(0) };
        let (counts, [tx, rx]) = self.shape(&Target::Nic(dev), register);
        let rings = |nic: u16, host: u16| u32::from(nic) + u32::from(host);
        let one = rings(counts.tx, counts.host_tx).saturating_mul(tx);
        let one = one.saturating_add(rings(counts.rx, counts.host_rx).saturating_mul(rx));
        // The first two are never given out, and the last one may be cut off.
        Ok(one.saturating_mul(2).saturating_add(8))
    }

    /// Handles of the selected rings of a port that the engine itself uses.
    fn rings_of(&self, key: PortKey, selection: &Selection) -> Result<Rings, Failure> {
        let view = self.ports.view(&key).ok_or_else(|| Condition::System.says("the port is gone"))?;
        let region = self.regions.get(&self.ports.mem_id(&key));
        let region = region.ok_or_else(|| Condition::System.says("the port has no region"))?;
        let ring = |g: RingGrant| -> Result<PortRing, Failure> {
            let (dir, i) = (g.ring.dir, g.ring.id);
            let kring = view.rings.kring(dir, i, region).ok_or_else(|| Condition::System.says("a ring is missing"))?;
            Ok(PortRing::new(kring, self.carrier(key, dir, g.carrier)?).with_bell(g.bell))
        };
        let [tx, rx] = self.ports.grants(&key, selection);
        Ok([tx.into_iter().map(ring).collect::<Result<_, _>>()?, rx.into_iter().map(ring).collect::<Result<_, _>>()?])
    }

    fn carrier(&self, key: PortKey, dir: Dir, grant: CarrierGrant) -> Result<Box<dyn Carrier>, Failure> {
        let bad = |e: crate::xsk::QueueError| Condition::System.says(e.to_string());
        Ok(match (grant, dir) {
            (CarrierGrant::Nic { socket, plan, .. }, Dir::Tx) => Box::new(NicTx::map(socket, plan).map_err(bad)?),
            (CarrierGrant::Nic { socket, plan, .. }, Dir::Rx) => Box::new(NicRx::map(socket, plan).map_err(bad)?),
            (CarrierGrant::Host { tap, links }, Dir::Tx) => Box::new(HostTx::new(tap, links)),
            (CarrierGrant::Host { tap, links }, Dir::Rx) => Box::new(HostRx::new(tap, links, None)),
            (CarrierGrant::ValeTx { .. }, _) => {
                let PortKey::Vale(id) = key else { return Err(Condition::System.says("a seat without a port")) };
                Box::new(ValeTx::new(self.ports.vales.seat(id), self.ports.vales.mates()))
            }
            (CarrierGrant::ValeRx { wake }, _) => Box::new(ValeRx::new(wake)),
            _ => return Err(Condition::System.says("this kind of port cannot be attached")),
        })
    }

    /// Whether a registration is for something that is attached, or hangs on it: the engine has it, and shares it with nobody.
    pub(super) fn check_attached(&self, target: &Target, name: PortName) -> Result<(), Failure> {
        let key = match target {
            Target::Nic(dev) => PortKey::Nic(registry::nic_key(dev)),
            Target::Vale(id) => PortKey::Vale(*id),
            Target::Monitor(key) => *key,
            Target::Pipe(pipe) => match self.ports.vales.find(pipe.parent) {
                Some(id) => PortKey::Vale(id),
                None => return Ok(()),
            },
            Target::Null | Target::NewVale => return Ok(()),
        };
        match self.attachments.iter().find(|a| a.has(key)) {
            Some(attachment) => Err(Failure::interface_busy(name, attachment.name)),
            None => Ok(()),
        }
    }

    /// `NETMAP_REQ_VALE_DETACH`. Returns the index that the port had.
    pub(super) fn detach(&mut self, name: PortName) -> Result<u32, Failure> {
        self.reap();
        let id = self.ports.vales.seated(name)?;
        if let Some(at) = self.attachments.iter().position(|a| a.ports.contains(&id)) {
            let attachment = &self.attachments[at];
            // The host rings go with the rest.
            if attachment.service.polled() || attachment.name != name {
                return Err(Failure::port_busy(name));
            }
            let index = self.ports.vales.index(id).unwrap_or_default();
            let attachment = self.attachments.swap_remove(at);
            self.disconnect(attachment);
            return Ok(index.into());
        }
        if self.attachments.iter().any(|a| a.outside == PortKey::Vale(id)) {
            return Err(Failure::port_busy(name));
        }
        self.ports.vales.detach(name).map(u32::from)
    }

    /// Takes something off its switch.
    fn disconnect(&mut self, attachment: Attachment) {
        let Attachment { service, grants, namespace, .. } = attachment;
        drop(service);
        let _inside = namespace.map(|fd| Inside::enter(&fd));
        // The switch's side first: nobody fills what nobody empties.
        grants.into_iter().rev().for_each(|id| self.release(id));
    }

    /// Takes off what has vanished.
    pub(super) fn reap(&mut self) {
        while let Some(at) = self.attachments.iter().position(|a| a.service.over()) {
            let attachment = self.attachments.swap_remove(at);
            log(Level::Warn, format_args!("{}: the interface is gone; detached", attachment.name));
            self.disconnect(attachment);
        }
    }

    /// Looks after what is attached; returns how soon to do so again, if anything is.
    pub fn tend_attached(&mut self) -> Option<Duration> {
        self.reap();
        let mut again = LOOK_FOR_GONE;
        for attachment in &self.attachments {
            let (PortKey::Nic(key), true) = (attachment.outside, attachment.service.pending()) else { continue };
            let home = self.ports.mem_id(&attachment.outside);
            let _inside = attachment.namespace.as_ref().map(Inside::enter);
            if let (Some(port), Some(region)) = (self.ports.nics.get_mut(&key), self.regions.get(&home))
                && port.tend(region)
            {
                again = LOOK_FOR_UP;
            }
        }
        (!self.attachments.is_empty()).then_some(again)
    }

    /// Whether something is there that stays without any program that uses it.
    pub fn lasting(&self) -> bool {
        !self.attachments.is_empty() || self.ports.vales.iter().any(|(_, p)| !p.is_ephemeral())
    }

    /// `NETMAP_REQ_VALE_POLLING_ENABLE` and `_DISABLE`.
    pub(super) fn polling(&mut self, polling: &Polling, on: bool) -> Result<(), Failure> {
        self.reap();
        let id = self.ports.vales.seated(polling.name)?;
        let attachment = self.attachments.iter_mut().find(|a| a.ports.first() == Some(&id));
        let attachment = attachment.ok_or_else(|| Failure::not_polled(polling.name))?;
        if attachment.service.polled() == on {
            return Err(Failure::polling_already(polling.name, on));
        }
        if !on {
            attachment.service.unpoll();
            return Ok(());
        }
        let rings = self.ports.vales.get(id).map_or(RingCounts::default(), |p| p.rings().counts());
        let plan = poll_plan(polling, rings, online_cpus())?;
        attachment.service.poll(plan).map_err(|e| Failure::system(&e))
    }
}

/// What is to be polled, and where: `get_polling_cfg`.
fn poll_plan(polling: &Polling, rings: RingCounts, online: u32) -> Result<PollPlan, Failure> {
    let Polling { name, mode, first_cpu, cpus } = *polling;
    let bad = |why: &str| Err(Failure::bad_polling(name, why));
    if cpus == 0 {
        return bad("at least one CPU must poll");
    }
    if cpus >= online {
        return bad(&format!("of {online} CPUs one at least must be left"));
    }
    match mode {
        // As there, ring i is polled by CPU i, and the rings that count are those of the switch's side.
        NETMAP_POLLING_MODE_MULTI_CPU => match first_cpu.checked_add(cpus) {
            Some(end) if end <= u32::from(rings.rx) && end <= online => {
                Ok(PollPlan { first: first_cpu, rings: cpus, cpu: first_cpu, each: true })
            }
            _ => bad(&format!("there are rings 0 to {} and CPUs 0 to {}", rings.rx.max(1) - 1, online - 1)),
        },
        NETMAP_POLLING_MODE_SINGLE_CPU if cpus != 1 => bad("this mode has one CPU for all rings"),
        NETMAP_POLLING_MODE_SINGLE_CPU if first_cpu >= online => bad(&format!("there are CPUs 0 to {}", online - 1)),
        NETMAP_POLLING_MODE_SINGLE_CPU => {
            Ok(PollPlan { first: 0, rings: rings.tx.into(), cpu: first_cpu, each: false })
        }
        _ => bad("the mode is one CPU for all rings, or one for each"),
    }
}

impl Attachment {
    /// Whether a port is part of it.
    fn has(&self, key: PortKey) -> bool {
        self.outside == key || matches!(key, PortKey::Vale(id) if self.ports.contains(&id))
    }
}

/// The port of the host rings: `valeS:IF^`.
fn host_name(name: PortName) -> Result<PortName, Failure> {
    PortName::new(&format!("{name}^")).map_err(|_| Failure::bad_switch_name(name))
}

impl Drop for Engine {
    /// Nothing stays on an interface; what was changed there is put back.
    fn drop(&mut self) {
        while let Some(attachment) = self.attachments.pop() {
            self.disconnect(attachment);
        }
    }
}
