//! Transparent forwarding from NIC rings to the host (`NR_FORWARD`), which takes no host ring in the binding, as with
//! the module.
//!
//! Where the binding has host rings, their TAP is the way. Else a host transmit ring is bound beside it when the program
//! first asks for forwarding, by a binding that nobody sees but `nmx status`, and that goes with this one. So interfaces
//! whose programs never forward have no TAP. Called in the thread that syncs.

use super::Binding;
use super::binding::tell;
use crate::abi::NR_TX_RINGS_ONLY;
use crate::ctl::{Failure, Mode, PortName, Register};
use crate::port::PortRing;
use crate::port::host::{WayUp, forwards};
use crate::ring::Dir;
use crate::sys::Fd;
use std::sync::{Arc, OnceLock};

/// The way from a binding to the host.
pub(super) struct Uplink {
    way: WayUp,
    /// Whether the binding receives from a NIC.
    nic: bool,
    /// What was bound for it; nothing if that failed, which was said.
    own: OnceLock<Option<Box<Binding>>>,
}

impl Uplink {
    /// `tap` is that of host rings in the binding; `nic`: the binding receives from a NIC.
    pub(super) fn new(tap: Option<Arc<Fd>>, nic: bool) -> Uplink {
        let way = WayUp::default();
        tap.map(|tap| way.set(tap));
        Uplink { way, nic, own: OnceLock::new() }
    }

    /// For the rings that forward.
    pub(super) fn way(&self) -> &WayUp {
        &self.way
    }

    /// Whether a ring is to forward and has no way yet.
    #[inline]
    pub(super) fn wanted(&self, ring: &PortRing) -> bool {
        let k = ring.kring();
        self.nic && k.dir() == Dir::Rx && forwards(k) && self.way.get().is_none() && self.own.get().is_none()
    }

    /// Makes a way to the host of the port called `name`. Without one, marked packets are dropped.
    #[cold]
    pub(super) fn build(&self, name: &str) {
        self.own.get_or_init(|| match self.bind(name) {
            Ok(binding) => Some(Box::new(binding)),
            Err(e) => {
                tell(&Failure { message: format!("NR_FORWARD goes nowhere: {}", e.message), ..e });
                None
            }
        });
    }

    fn bind(&self, name: &str) -> Result<Binding, Failure> {
        let name = PortName::new(name)?;
        let request = Register { mode: Mode::OneSw, flags: NR_TX_RINGS_ONLY, ..Register::new(name) };
        let binding = Binding::new(None);
        if let Some(tap) = binding.register(&request)?.uplink().way.get() {
            let _ = self.way.set(tap.clone());
        }
        Ok(binding)
    }
}
