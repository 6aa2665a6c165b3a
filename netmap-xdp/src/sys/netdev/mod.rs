//! Facts about network interfaces, asked of the kernel afresh each time.
//!
//! Everything is about the network namespace of the calling thread: each call opens a socket there and closes it again.
//! Only [`Watch`] keeps its socket. Nothing is cached here, nothing changed but the offloads, and no call waits for
//! anything but the kernel's own locks.

pub mod bpf;
mod ethtool;
pub mod features;
mod map;
mod moves;
mod promisc;
mod rtnl;
pub mod tc;

pub use map::Map;
pub use moves::Trail;
pub use promisc::promiscuous;

use super::{Errno, Error};
use rtnl::{Link, Rtnl, Which};
use std::fmt;

/// Longest interface name, in bytes (`IFNAMSIZ` less its terminator).
pub const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// An interface as it was when asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDev {
    /// Its index, which stays when it is renamed.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Largest payload of a frame, without the Ethernet header.
    pub mtu: u32,
    /// Set up by the administrator.
    pub up: bool,
    /// Up, and with carrier.
    pub running: bool,
    /// Ethernet address; zeros on an interface that has none.
    pub mac: [u8; 6],
    /// Receive queues in use; 1 where the driver does not tell.
    pub rx_queues: u32,
    /// Transmit queues in use; 1 where the driver does not tell.
    pub tx_queues: u32,
    /// Name of the driver, where it tells.
    pub driver: Option<String>,
}

/// What may change from moment to moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Set up by the administrator.
    pub up: bool,
    /// Up, and with carrier.
    pub running: bool,
}

/// Where on its way a packet meets an XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the driver made an skb.
    Generic,
    /// On the NIC.
    Offload,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::Offload => "offload",
        })
    }
}

/// The XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpAttached {
    /// Where it runs; with programs in several places, the one a packet meets in the driver.
    pub mode: XdpMode,
    /// Its id, as `bpftool prog` shows it.
    pub prog_id: u32,
    /// Its name, where the caller may ask for it (CAP_SYS_ADMIN) and it has one.
    pub prog_name: Option<String>,
}

impl NetDev {
    /// The interface called `name`. `EINVAL`: no interface can have this name; `ENODEV`: none has.
    pub fn by_name(name: &str) -> Result<NetDev, Error> {
        check_name(name).map_err(|errno| Error::new("RTM_GETLINK", name, errno))?;
        Self::ask(Which::Name(name))
    }

    /// The interface with this index. `ENODEV`: there is none.
    pub fn by_index(ifindex: u32) -> Result<NetDev, Error> {
        Self::ask(Which::Index(ifindex))
    }

    /// Asks again, by index: a new name is found, and a new interface of the old name is not mistaken for this one.
    pub fn refresh(&mut self) -> Result<(), Error> {
        *self = Self::by_index(self.ifindex)?;
        Ok(())
    }

    fn ask(which: Which<'_>) -> Result<NetDev, Error> {
        Self::ask_by(&Rtnl::open()?, which)
    }

    fn ask_by(rtnl: &Rtnl, which: Which<'_>) -> Result<NetDev, Error> {
        let link = rtnl.link(which)?;
        let (rx_queues, tx_queues) = ethtool::queues(rtnl.fd(), &link.name);
        let driver = ethtool::driver(rtnl.fd(), &link.name);
        let LinkState { up, running } = state(&link);
        let Link { ifindex, name, mtu, mac, .. } = link;
        Ok(NetDev { ifindex, name, mtu, up, running, mac, rx_queues, tx_queues, driver })
    }
}

/// A place to look at one interface from, of any network namespace: a socket that was opened in the interface's own.
pub struct Watch {
    rtnl: Rtnl,
    ifindex: u32,
}

impl Watch {
    /// Opens one in the calling thread's network namespace.
    pub fn open(ifindex: u32) -> Result<Watch, Error> {
        Ok(Watch { rtnl: Rtnl::open()?.high(), ifindex })
    }

    /// The interface as it is now. `ENODEV`: it is gone, or in another namespace.
    pub fn look(&self) -> Result<NetDev, Error> {
        NetDev::ask_by(&self.rtnl, Which::Index(self.ifindex))
    }
}

/// Whether the interface is up and has carrier; about four system calls. `ENODEV`: it is gone.
pub fn link_state(ifindex: u32) -> Result<LinkState, Error> {
    Ok(state(&Rtnl::open()?.link(Which::Index(ifindex))?))
}

/// Receive offloads that make frames differ from what was on the wire: GRO and LRO merge them, VLAN stripping takes a tag
/// out of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads(ethtool::Lying);

/// Which of them are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffloadsOn {
    /// Merging in the stack.
    pub gro: bool,
    /// Merging in the NIC.
    pub lro: bool,
    /// VLAN tags are stripped.
    pub vlan: bool,
}

impl Offloads {
    /// Which of them are on.
    pub fn on(dev: &NetDev) -> Result<OffloadsOn, Error> {
        let now = ethtool::lying(Rtnl::open()?.fd(), &dev.name);
        let has = |flag| now.flags & flag != 0;
        Ok(OffloadsOn { gro: now.gro, lro: has(ethtool::ETH_FLAG_LRO), vlan: has(ethtool::ETH_FLAG_RXVLAN) })
    }

    /// Switches off those that are on; `None` if there was nothing to do. `merging` says whether GRO counts: it comes after
    /// native XDP and before generic.
    pub fn switch_off(dev: &NetDev, merging: bool) -> Result<Option<Offloads>, Error> {
        let rtnl = Rtnl::open()?;
        let mut before = ethtool::lying(rtnl.fd(), &dev.name);
        before.gro &= merging;
        if before == ethtool::Lying::default() {
            return Ok(None);
        }
        let done = ethtool::switch(rtnl.fd(), &dev.name, before, false);
        // What a driver refuses to change stays, and is not to be restored.
        let after = ethtool::lying(rtnl.fd(), &dev.name);
        let changed = ethtool::Lying { gro: before.gro && !after.gro, flags: before.flags & !after.flags };
        if changed == ethtool::Lying::default() {
            return done.map(|()| None).map_err(|e| Error::new("SIOCETHTOOL", format!("offloads of {}", dev.name), e));
        }
        Ok(Some(Offloads(changed)))
    }

    /// As text, for another process.
    pub fn to_text(self) -> String {
        format!("{},{}", u8::from(self.0.gro), self.0.flags)
    }

    /// The reverse of [`Offloads::to_text`].
    pub fn from_text(text: &str) -> Option<Offloads> {
        let (gro, flags) = text.split_once(',')?;
        let gro = match gro {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let flags = flags.parse().ok().filter(|flags| flags & !ethtool::LYING_FLAGS == 0)?;
        Some(Offloads(ethtool::Lying { gro, flags }))
    }

    /// Switches them on again. The interface may have another name by now, or be gone.
    pub fn restore(self, at: &Watch) -> Result<(), Error> {
        let name = at.look()?.name;
        ethtool::switch(at.rtnl.fd(), &name, self.0, true)
            .map_err(|e| Error::new("SIOCETHTOOL", format!("offloads of {name}"), e))
    }
}

/// Indexes of all interfaces of the network namespace; none if they cannot be listed.
pub fn interfaces() -> Vec<u32> {
    // SAFETY: the list is read up to the entry without a name that ends it, and given back.
    unsafe {
        let list = libc::if_nameindex();
        let mut found = Vec::new();
        if !list.is_null() {
            found.extend((0..).map(|i| (*list.add(i)).if_index).take_while(|&index| index != 0));
            libc::if_freenameindex(list);
        }
        found
    }
}

/// The XDP program on the interface, if there is one. `ENODEV`: the interface is gone.
pub fn xdp_attached(ifindex: u32) -> Result<Option<XdpAttached>, Error> {
    let link = Rtnl::open()?.link(Which::Index(ifindex))?;
    Ok(link.xdp.map(|(mode, prog_id)| XdpAttached { mode, prog_id, prog_name: bpf::program_name(prog_id) }))
}

fn state(link: &Link) -> LinkState {
    let has = |flag: i32| link.flags & flag as u32 != 0;
    let up = has(libc::IFF_UP);
    // Not IFF_RUNNING, which follows the carrier some time later.
    LinkState { up, running: up && has(libc::IFF_LOWER_UP) }
}

/// The kernel's own rule for names of interfaces, so that a name is never anything else (a path, a pattern, a list).
fn check_name(name: &str) -> Result<(), Errno> {
    let odd = |b: u8| b == 0 || b == b'/' || b == b':' || b.is_ascii_whitespace() || b == 0x0b;
    if name.is_empty() || name.len() > NAME_MAX || name == "." || name == ".." || name.bytes().any(odd) {
        return Err(Errno(libc::EINVAL));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have_are_rejected() {
        for name in ["", ".", "..", "a/b", "../x", "a b", "a:1", "a\0", "a\nb", "sixteen-bytes-xx", &"x".repeat(1000)] {
            let e = NetDev::by_name(name).unwrap_err();
            assert_eq!(e.errno, Errno(libc::EINVAL), "{name:?}");
        }
        for name in ["lo", "eth0", "fifteen-bytes-x", "a.100", "veth@", "é"] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn the_loopback_interface_is_found_by_name_and_index() {
        let mut lo = NetDev::by_name("lo").unwrap();
        assert_eq!((lo.name.as_str(), lo.mac, lo.rx_queues, lo.tx_queues), ("lo", [0; 6], 1, 1));
        assert!(lo.mtu > 0);
        assert_eq!(NetDev::by_index(lo.ifindex).unwrap(), lo);
        let before = lo.clone();
        lo.refresh().unwrap();
        assert_eq!(lo, before);
        assert_eq!(link_state(lo.ifindex).unwrap(), LinkState { up: lo.up, running: lo.running });
    }

    #[test]
    fn offloads_are_understood_by_another_process() {
        for (gro, flags) in [(true, 0), (false, ethtool::LYING_FLAGS), (true, ethtool::LYING_FLAGS)] {
            let all = Offloads(ethtool::Lying { gro, flags });
            assert_eq!(Offloads::from_text(&all.to_text()), Some(all));
        }
        for text in ["", "1", "1,", "2,0", "1,1", "1,-256", "1,256,0"] {
            assert_eq!(Offloads::from_text(text), None, "{text}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn an_absent_interface_is_enodev() {
        assert_eq!(NetDev::by_name("no-such-if-0").unwrap_err().errno, Errno(libc::ENODEV));
        for ifindex in [0, i32::MAX as u32, u32::MAX] {
            assert_eq!(NetDev::by_index(ifindex).unwrap_err().errno, Errno(libc::ENODEV), "{ifindex}");
            assert_eq!(link_state(ifindex).unwrap_err().errno, Errno(libc::ENODEV), "{ifindex}");
            assert_eq!(xdp_attached(ifindex).unwrap_err().errno, Errno(libc::ENODEV), "{ifindex}");
        }
    }
}
