//! Port names and opening ports: one for all rings, or one per thread.

use std::time::{Duration, Instant};

use netmap_xdp::api::{Builder, Port};

use crate::signal;

/// The name to open: `netmap:` is put in front where it was left out.
pub fn port_name(typed: &str) -> Result<String, String> {
    for (prefix, instead) in [("tap:", "a TAP device's plain name"), ("pcap:", "libpcap's own tools")] {
        if typed.starts_with(prefix) {
            return Err(format!("`{typed}`: {prefix} ports are not netmap ports; use {instead}"));
        }
    }
    if typed.is_empty() || typed == "netmap:" {
        return Err("the interface name is empty".into());
    }
    let complete = typed.starts_with("netmap:") || typed.starts_with("vale");
    Ok(if complete { typed.to_string() } else { format!("netmap:{typed}") })
}

/// Splits a name into the port with its rings, and the flags and options (`/x`, `@conf:...`) that follow.
fn split_suffix(name: &str) -> (&str, &str) {
    name.split_at(name.find(['/', '@']).unwrap_or(name.len()))
}

/// The name of ring `ring` of the port.
pub fn ring_name(name: &str, ring: usize) -> Result<String, String> {
    let (base, suffix) = split_suffix(name);
    if base.contains(['-', '^', '*']) {
        return Err(format!("`{name}` names its rings already, and -p opens one ring per thread; give the port alone"));
    }
    Ok(format!("{base}-{ring}{suffix}"))
}

/// The name of the host rings of a NIC that is named as a whole.
pub fn host_name(name: &str) -> Result<String, String> {
    let (base, suffix) = split_suffix(name);
    if base.contains(['-', '^', '*']) || is_software(name) {
        return Err(format!(
            "`{name}` has no host rings of its own to go to; give a second -i, or -L to send back out"
        ));
    }
    Ok(format!("{base}^{suffix}"))
}

/// True if the name stands for a port without a link: a VALE port or a pipe.
fn is_software(name: &str) -> bool {
    name.starts_with("vale") || split_suffix(name).0.contains(['{', '}'])
}

/// How long to wait for the link if the user does not say.
pub fn default_link_wait(name: &str) -> Duration {
    if is_software(name) { Duration::ZERO } else { Duration::from_secs(2) }
}

/// What to ask for when opening.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    /// Slots of TX and of RX rings.
    pub slots: (Option<u32>, Option<u32>),
    /// The port will only receive: waiting must not push TX rings.
    pub receive_only: bool,
}

/// Opens one port.
pub fn open(name: &str, wishes: Wishes) -> Result<Port, String> {
    let mut builder = Builder::new(name);
    if let Some(n) = wishes.slots.0 {
        builder = builder.tx_slots(n);
    }
    if let Some(n) = wishes.slots.1 {
        builder = builder.rx_slots(n);
    }
    if wishes.receive_only {
        builder = builder.no_tx_poll();
    }
    builder.open().map_err(|e| format!("cannot open {name}: {e}"))
}

/// Which rings bound the number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Transmit rings.
    Tx,
    /// Receive rings.
    Rx,
}

/// One port for one thread, or one port per thread with one ring each.
pub fn open_for_threads(name: &str, threads: usize, side: Side, wishes: Wishes) -> Result<Vec<Port>, String> {
    if threads <= 1 {
        return Ok(vec![open(name, wishes)?]);
    }
    let first = open(&ring_name(name, 0)?, wishes)?;
    let (rings, what) = match side {
        Side::Tx => (first.nic_tx_rings(), "TX"),
        Side::Rx => (first.nic_rx_rings(), "RX"),
    };
    if threads > usize::from(rings) {
        return Err(format!(
            "{threads} threads need {threads} rings, but {} has {rings} {what} ring(s); use -p {rings} or less, or add \
             queues with `ethtool -L {} combined {threads}`",
            first.name(),
            first.name(),
        ));
    }
    let mut ports = vec![first];
    for ring in 1..threads {
        ports.push(open(&ring_name(name, ring)?, wishes)?);
    }
    Ok(ports)
}

/// Waits until all links are up, at most `most`. False if one is still down.
pub fn wait_for_link(ports: &[&Port], most: Duration) -> bool {
    let end = Instant::now() + most;
    loop {
        if ports.iter().all(|p| p.link_up()) {
            return true;
        }
        if Instant::now() >= end || signal::stopped() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_may_be_left_out() {
        assert_eq!(port_name("eth0-1/x").unwrap(), "netmap:eth0-1/x");
        assert_eq!(port_name("netmap:eth0").unwrap(), "netmap:eth0");
        assert_eq!(port_name("vale0:p").unwrap(), "vale0:p");
        assert!(port_name("").is_err());
        assert!(port_name("tap:tap0").is_err());
        assert!(port_name("pcap:eth0").is_err());
    }

    #[test]
    fn ring_numbers_go_before_flags_and_options() {
        assert_eq!(ring_name("netmap:eth0", 3).unwrap(), "netmap:eth0-3");
        assert_eq!(ring_name("netmap:eth0/x@conf:slots=64", 0).unwrap(), "netmap:eth0-0/x@conf:slots=64");
        assert!(ring_name("netmap:eth0-1", 0).is_err());
        assert!(ring_name("netmap:eth0^", 0).is_err());
        assert!(ring_name("netmap:eth0*/x", 0).is_err());
    }

    #[test]
    fn software_ports_do_not_wait_for_a_link() {
        assert_eq!(default_link_wait("vale0:a"), Duration::ZERO);
        assert_eq!(default_link_wait("netmap:eth0{1/x"), Duration::ZERO);
        assert_eq!(default_link_wait("netmap:eth0"), Duration::from_secs(2));
    }
}
