//! What the configuration says of interfaces: chains, and steering. Those of netmapd's configuration stand; otherwise
//! the first program that binds a port brings its own, and whoever has its rings bound may change them.

use super::registry::PortKey;
use super::{Engine, GrantId};
use crate::ctl::Failure;
use crate::sys::{name_matches, settings};
use crate::xsk::Steering;

/// Rules by pattern of interface names; the first pattern that matches counts.
pub type SteeringByName = Vec<(String, Steering)>;

impl Engine {
    /// Rules that hold for interfaces whatever programs ask for.
    pub fn configure_steering(&mut self, rules: SteeringByName) {
        self.steering = rules;
    }

    /// Interfaces on which our program joins others, with its priority among them.
    pub fn configure_chains(&mut self, chains: Vec<(String, u32)>) {
        self.chains = chains;
    }

    /// The priority on an interface, if our program is to join others there.
    pub(super) fn chain_for(&self, name: &str) -> Option<u32> {
        let found = self.chains.iter().find(|(pattern, _)| name_matches(pattern, name));
        found.map(|(_, priority)| *priority).or(settings().chain)
    }

    fn configured(&self, name: &str) -> Option<&Steering> {
        self.steering.iter().find(|(pattern, _)| name_matches(pattern, name)).map(|(_, rules)| rules)
    }

    /// The rules for an interface that is about to be opened by a program that asks for `asked`.
    pub(super) fn steering_for(&self, name: &str, asked: Option<&Steering>) -> Result<Option<Steering>, Failure> {
        match (self.configured(name), asked) {
            (Some(fixed), Some(asked)) if fixed != asked => Err(Failure::steering_fixed(name, fixed)),
            (fixed, asked) => Ok(fixed.or(asked).cloned()),
        }
    }

    /// Whether a program that asks for `asked` may join those that have the interface open.
    pub(super) fn check_steering(&self, port: &PortKey, asked: Option<&Steering>) -> Result<(), Failure> {
        let PortKey::Nic(key) = port else { return Ok(()) };
        let (Some(asked), Some(port)) = (asked, self.ports.nics.get(key)) else { return Ok(()) };
        if port.steering() == Some(asked) {
            return Ok(());
        }
        let now = port.steering().map_or("none".to_string(), ToString::to_string);
        Err(Failure::steering_in_use(&port.dev().name, now))
    }

    /// Changes the rules of the NIC that a grant has rings of; none: netmap gets every frame. Takes effect at once, for
    /// everybody who has it open.
    pub fn steer(&mut self, id: GrantId, rules: Option<Steering>) -> Result<(), Failure> {
        let held = self.grants.get(&id).ok_or_else(Failure::not_bound)?;
        let PortKey::Nic(key) = held.port else { return Err(Failure::not_steerable()) };
        let name = self.ports.nics.get(&key).map(|port| port.dev().name.clone()).unwrap_or_default();
        if let Some(fixed) = self.configured(&name).filter(|fixed| Some(*fixed) != rules.as_ref()) {
            return Err(Failure::steering_fixed(&name, fixed));
        }
        self.ports.nics.get_mut(&key).ok_or_else(Failure::not_bound)?.steer(rules)
    }
}
