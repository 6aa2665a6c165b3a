//! What the engine hands to a client for a registered fd: plain data and descriptors, as they would travel over a socket.

use crate::ctl::RegisterReply;
use crate::port::monitor::TapKind;
use crate::port::nic::NicPlan;
use crate::ring::{KringPlace, RingPlace};
use crate::shm::{Known, Memory};
use crate::sys::{Errno, Fd, Mode, identity};
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Names a registration until it is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrantId(pub u64);

/// A registration: what a client maps to sync the rings.
#[derive(Debug)]
pub struct Grant {
    /// Its name.
    pub id: GrantId,
    /// What the program is told.
    pub reply: RegisterReply,
    /// The region.
    pub region: RegionGrant,
    /// Private state of the port's rings.
    pub private: Arc<Fd>,
    /// Size of that, bytes.
    pub private_size: u64,
    /// The bound transmit rings, lowest first.
    pub tx: Vec<RingGrant>,
    /// The bound receive rings, lowest first.
    pub rx: Vec<RingGrant>,
    /// Name of the port.
    pub name: String,
    /// How the NIC is driven, for a port that is one.
    pub mode: Option<Mode>,
    /// What keeps the XDP program on the NIC, should the engine die.
    pub links: Vec<Arc<Fd>>,
    /// Nothing moves before the client says that it has mapped the rings: `Engine::mapped`.
    pub awaited: bool,
}

/// A region.
#[derive(Clone, Debug)]
pub struct RegionGrant {
    /// What to map.
    pub fd: Arc<Fd>,
    /// From where on, bytes.
    pub at: u64,
    /// Size, bytes.
    pub size: u64,
    /// Bytes of a buffer.
    pub buf_size: u32,
    /// Whether it is memory of a program, which has it already and maps nothing.
    pub of_program: bool,
    /// The mapping to use instead, where the memory has no descriptor: engine and client are one process then.
    pub here: Option<Arc<Memory>>,
}

/// A part of a file: device and inode, offset, size.
type Place = (u64, u64, u64, u64);

impl RegionGrant {
    /// Maps it, unless it is mapped.
    pub fn map(&self) -> Result<Arc<Memory>, Errno> {
        if let Some(memory) = &self.here {
            return Ok(memory.clone());
        }
        // Ports in one region share the mapping. It keeps its file, so that as long as there is one, the inode is of no other.
        static MAPPED: Known<Place, Memory> = Known::new();
        let (device, inode) = identity(self.fd.as_raw_fd())?;
        let place = (device, inode, self.at, self.size);
        MAPPED.get(place, || Memory::of_file(&*self.fd, self.at, self.size as usize, false))
    }
}

/// One bound ring.
#[derive(Clone, Debug)]
pub struct RingGrant {
    /// Where the ring lies in the region.
    pub ring: RingPlace,
    /// Where its private state lies.
    pub kring: KringPlace,
    /// What carries it.
    pub carrier: CarrierGrant,
    /// Eventfd by which a sync wakes those who sleep on the ring, where nothing else does.
    pub bell: Option<Arc<Fd>>,
}

/// What a client needs to sync one ring.
#[derive(Clone, Debug)]
pub enum CarrierGrant {
    /// A queue of a NIC.
    Nic {
        /// Its AF_XDP socket.
        socket: Arc<Fd>,
        /// Sizes and addresses of that socket.
        plan: NicPlan,
        /// Where the NIC's times are, if they are noted.
        stamps: Option<Arc<Fd>>,
    },
    /// The host stack behind a NIC.
    Host {
        /// A queue of the TAP device.
        tap: Arc<Fd>,
        /// What keeps the host's packets on their way to it: merely to be held.
        links: Vec<Arc<Fd>>,
    },
    /// The taps of a monitored port.
    Monitor {
        /// Eventfd that wakes who sleeps on this ring.
        wake: Arc<Fd>,
    },
    /// Nothing.
    Null,
    /// The transmit side of a VALE port.
    ValeTx {
        /// Its place in a switch, if it has one.
        seat: Option<SeatGrant>,
    },
    /// The receive side of a VALE port.
    ValeRx {
        /// Eventfd that wakes who sleeps on this ring.
        wake: Arc<Fd>,
    },
    /// The ring at the other end of a pipe, in the same region and the same private memory.
    Pipe {
        /// That ring.
        peer: RingPlace,
        /// Its state.
        peer_kring: KringPlace,
        /// Eventfd that wakes who sleeps on this ring.
        wake: Arc<Fd>,
        /// Eventfd that wakes who sleeps on the other one.
        wake_peer: Arc<Fd>,
    },
}

/// The monitors of one ring.
#[derive(Debug)]
pub struct TapsGrant {
    /// Number of this set, as the ring's state has it.
    pub number: u32,
    /// Their rings.
    pub taps: Vec<TapGrant>,
}

/// What a client needs to deliver to one ring of a monitor.
#[derive(Debug)]
pub struct TapGrant {
    /// The region and its size; none if it is that of the monitored ring.
    pub region: Option<(Arc<Fd>, u64)>,
    /// Private state of the monitor's rings.
    pub private: Arc<Fd>,
    /// Size of that, bytes.
    pub private_size: u64,
    /// Where the ring lies in the region.
    pub ring: RingPlace,
    /// Where its private state lies.
    pub kring: KringPlace,
    /// How packets get there.
    pub kind: TapKind,
    /// Eventfd that wakes its reader.
    pub wake: Arc<Fd>,
}

/// Place of a VALE port in its switch.
#[derive(Clone, Debug)]
pub struct SeatGrant {
    /// The switch's state.
    pub memory: Arc<Fd>,
    /// Names the switch when its ports are asked for.
    pub switch: u64,
    /// Index of the port.
    pub port: u8,
    /// What the port's entry says while it sits there.
    pub tenant: u32,
}

/// What a sender needs to fill the receive rings of a VALE port.
#[derive(Debug)]
pub struct ValePeer {
    /// The port's region.
    pub region: RegionGrant,
    /// Private state of the port's rings.
    pub private: Arc<Fd>,
    /// Size of that, bytes.
    pub private_size: u64,
    /// The receive rings; none where nobody has bound the ring.
    pub rings: Vec<Option<InletGrant>>,
}

/// What a sender needs to fill one receive ring of a VALE port.
#[derive(Debug)]
pub struct InletGrant {
    /// Where the ring lies in the region.
    pub ring: RingPlace,
    /// Where its private state lies.
    pub kring: KringPlace,
    /// Eventfd that wakes its sleepers.
    pub wake: Arc<Fd>,
    /// Its monitors; those without a region of their own lie in the port's.
    pub taps: TapsGrant,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sealed_memfd;

    #[test]
    fn ports_in_one_region_share_the_mapping() {
        let grant = |fd: &Arc<Fd>| RegionGrant {
            // As it comes from netmapd: another descriptor each time.
            fd: Arc::new(fd.try_clone().unwrap()),
            at: 0,
            size: 8192,
            buf_size: 2048,
            of_program: false,
            here: None,
        };
        let [one, other] = [(); 2].map(|()| Arc::new(sealed_memfd(c"test", 8192).unwrap()));
        let first = grant(&one).map().unwrap();
        assert!(Arc::ptr_eq(&first, &grant(&one).map().unwrap()));
        assert!(!Arc::ptr_eq(&first, &grant(&other).map().unwrap()));
        assert!(!Arc::ptr_eq(&first, &RegionGrant { size: 4096, ..grant(&one) }.map().unwrap()));
        first.write(0, b"netmap").unwrap();
        drop(first);
        let (again, mut got) = (grant(&one).map().unwrap(), [0; 6]);
        again.read(0, &mut got).unwrap();
        assert_eq!(&got, b"netmap");
    }
}
