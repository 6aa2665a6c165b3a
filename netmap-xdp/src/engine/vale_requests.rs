//! What is asked of switches and their ports: how a name becomes a port, and the control requests.

use super::registry::PipeKey;
use super::vale::{self, ValeId, ValePort};
use super::{Engine, MAIN_REGION, PortKey, Target, ValePeer, interface, region, vale_name};
use crate::abi::NR_ACCEPT_VNET_HDR;
use crate::ctl::{Failure, PipeRole, PortName, Register, ValeList, ValeListReply, ValeNewif, ValeNewifReply};
use crate::ring::Dir;
use crate::shm::Layout;
use crate::sys::settings;

impl Engine {
    /// An existing port, for a program that knows virtio-net headers if the port has them.
    pub(super) fn vale_target(&self, id: ValeId, register: &Register) -> Result<Target, Failure> {
        match self.ports.vales.get(id).map_or(0, ValePort::header) {
            bytes if bytes != 0 && register.flags & NR_ACCEPT_VNET_HDR == 0 => {
                Err(Failure::vnet_header(register.name, bytes))
            }
            _ => Ok(Target::Vale(id)),
        }
    }

    /// A port that is to be made, if it can be.
    pub(super) fn new_vale(&self, name: PortName) -> Result<Target, Failure> {
        let local = vale_name::local_name(name)?;
        if self.ports.vales.find(local).is_some() || (!local.is_empty() && interface(local).is_ok()) {
            return Err(Failure::not_a_vale_port(format!(
                "{name}: {local} is an interface or a persistent port, which `vale-ctl -a {name}` attaches to the switch"
            )));
        }
        Ok(Target::NewVale)
    }

    /// Makes a port of a switch.
    pub(super) fn open_vale(&mut self, register: &Register) -> Result<ValeId, Failure> {
        let mem_id = self.mem_id_for(register.mem_id);
        self.ports.vales.open(register, mem_id)
    }

    /// The region that is asked for, or a fresh id.
    pub(super) fn mem_id_for(&self, asked: u16) -> u16 {
        if asked != 0 {
            return asked;
        }
        let taken = |id: &u16| self.regions.contains_key(id) || self.vale_of(*id).is_some();
        (MAIN_REGION + 1..u16::MAX).find(|id| !taken(id)).unwrap_or(u16::MAX)
    }

    /// A port that lives in a region.
    pub(super) fn vale_of(&self, mem_id: u16) -> Option<&ValePort> {
        self.ports.vales.iter().map(|(_, p)| p).find(|p| p.mem_id() == mem_id)
    }

    /// A pipe on a port of a switch lives in its region, and keeps it there.
    pub(super) fn hang_on_vale(&mut self, key: PipeKey, register: &Register) -> Result<(), Failure> {
        let parent = match self.ports.vales.find(key.parent) {
            Some(id) => id,
            None if key.parent.as_bytes().starts_with(b"vale") => {
                let port = Register { mem_id: register.mem_id, ..Register::new(key.parent) };
                self.open_vale(&port)?
            }
            None if register.mem_id > MAIN_REGION => {
                self.settle_abroad(key, register.mem_id);
                return Ok(());
            }
            None => return Ok(()),
        };
        let mem_id = self.ports.mem_id(&PortKey::Vale(parent));
        self.ports.parents.insert(key, parent);
        self.settle_abroad(key, mem_id);
        Ok(())
    }

    fn settle_abroad(&mut self, key: PipeKey, mem_id: u16) {
        for role in [PipeRole::Master, PipeRole::Slave] {
            self.ports.abroad.insert(PortKey::Pipe(key, role), mem_id);
        }
    }

    /// The region that a port lives in, or would live in, and its sizes.
    pub(super) fn home_layout(&self, target: &Target, register: &Register) -> (u16, Layout) {
        let id = self.home(target, register);
        if matches!(target, Target::NewVale) && register.mem_id == 0 {
            let (counts, slots) = vale::shape(register);
            let buffers = vale::buffers(counts, slots, register.extra_bufs);
            return (id, Layout::plan(buffers, settings().priv_buf_size(), region::OBJECTS));
        }
        (id, self.layout(id))
    }

    /// `NETMAP_REQ_PORT_HDR_GET`: any port that is there.
    pub(super) fn header(&self, name: PortName) -> Result<u32, Failure> {
        if let Some(port) = self.ports.vales.find(name).and_then(|id| self.ports.vales.get(id)) {
            return Ok(port.header());
        }
        match self.target(&Register::new(name))? {
            Target::NewVale => Err(Failure::no_such_vale_port(name)),
            _ => Ok(0),
        }
    }

    /// `NETMAP_REQ_VALE_LIST`.
    pub(super) fn list(&mut self, list: &ValeList) -> Result<ValeListReply, Failure> {
        self.reap();
        if !list.name.is_empty() {
            let (bridge, port) = self.ports.vales.indexes(list.name)?;
            return Ok(ValeListReply { name: None, bridge, port });
        }
        let (name, bridge, port) = self.ports.vales.next_from(list.bridge, list.port)?;
        Ok(ValeListReply { name: Some(name), bridge, port })
    }

    /// `NETMAP_REQ_VALE_NEWIF`.
    pub(super) fn newif(&mut self, newif: &ValeNewif) -> Result<ValeNewifReply, Failure> {
        if interface(newif.name).is_ok() {
            return Err(Failure::port_exists(newif.name));
        }
        self.check_mem_id(newif.mem_id)?;
        let register = Register {
            tx_slots: newif.tx_slots,
            rx_slots: newif.rx_slots,
            tx_rings: newif.tx_rings,
            rx_rings: newif.rx_rings,
            mem_id: newif.mem_id,
            ..Register::new(newif.name)
        };
        let mem_id = self.mem_id_for(newif.mem_id);
        self.ports.vales.create(&register, mem_id)?;
        let (counts, [tx_slots, rx_slots]) = vale::shape(&register);
        Ok(ValeNewifReply { tx_slots, rx_slots, tx_rings: counts.tx, rx_rings: counts.rx, mem_id })
    }

    /// `NETMAP_REQ_VALE_DELIF`.
    pub(super) fn delif(&mut self, name: PortName) -> Result<(), Failure> {
        match self.ports.vales.delete(name) {
            Err(_) if self.ports.vales.find(name).is_none() && interface(name).is_ok() => {
                Err(Failure::not_a_vale_port(format!("{name}: an interface")))
            }
            done => done,
        }
    }

    /// What a sender needs to fill the receive rings of a port of a switch, if its generation is still that.
    pub fn vale_peer(&self, switch: u64, port: u8, generation: u32) -> Option<ValePeer> {
        let taps = |id, ring| self.ports.taps(&PortKey::Vale(id), Dir::Rx, ring, &self.regions);
        self.ports.vales.peer(switch, port, generation, taps)
    }
}
