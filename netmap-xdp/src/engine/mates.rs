//! Where the receive rings of switch ports are, for senders that are threads of the engine's own process and must not ask the
//! engine, which may be waiting for them: those that serve attached ports.
//!
//! The engine writes it whenever it announces new rings of a port, and holds the lock until both are done, so that whoever
//! saw the announcement finds the rings.

use crate::port::vale::{Destination, Directory};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Rings by switch and port, with the generation of the port.
#[derive(Default)]
pub struct Mates(Mutex<HashMap<(u64, u8), (u32, Arc<Destination>)>>);

impl Mates {
    /// Runs `announce`, which changes what senders see of a port and returns the port's generation with the rings to be found
    /// from then on, if there are any.
    pub fn publish(&self, switch: u64, port: u8, announce: impl FnOnce() -> Option<(u32, Destination)>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match announce() {
            Some((generation, rings)) => all.insert((switch, port), (generation, Arc::new(rings))),
            None => all.remove(&(switch, port)),
        };
    }
}

impl Directory for Mates {
    fn resolve(&self, switch: u64, port: u8, generation: u32) -> Option<Arc<Destination>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(switch, port)).filter(|(g, _)| *g == generation).map(|(_, rings)| rings.clone())
    }
}
