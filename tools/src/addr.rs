//! Addresses and ports of the generated flows: parsing, ranges, and stepping through them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::sizes::Rng;

/// The port that is used when none is given.
pub const DEFAULT_PORT: u16 = 1234;

/// IP version of the generated frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// An address and a UDP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// IP address.
    pub addr: IpAddr,
    /// UDP port.
    pub port: u16,
}

/// First and last endpoint, both included; addresses of one family, `first <= last` in address and in port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Where the range starts.
    pub first: Endpoint,
    /// Where it ends.
    pub last: Endpoint,
}

/// Source and destination of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Source.
    pub src: Endpoint,
    /// Destination.
    pub dst: Endpoint,
}

fn parse_endpoint(text: &str, default_port: u16) -> Result<Endpoint, String> {
    let bad = || format!("`{text}` is not an address; write 10.0.0.1, 10.0.0.1:1234, fd00::1 or [fd00::1]:1234");
    let port = |p: &str| p.parse::<u16>().map_err(|_| format!("`{p}` is not a UDP port (0 to 65535)"));
    if let Some(rest) = text.strip_prefix('[') {
        let (addr, tail) = rest.split_once(']').ok_or_else(bad)?;
        let addr = IpAddr::V6(addr.parse::<Ipv6Addr>().map_err(|_| bad())?);
        return match tail.strip_prefix(':') {
            Some(p) => Ok(Endpoint { addr, port: port(p)? }),
            None if tail.is_empty() => Ok(Endpoint { addr, port: default_port }),
            None => Err(bad()),
        };
    }
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(Endpoint { addr, port: default_port });
    }
    let (addr, p) = text.rsplit_once(':').ok_or_else(bad)?;
    Ok(Endpoint { addr: IpAddr::V4(addr.parse::<Ipv4Addr>().map_err(|_| bad())?), port: port(p)? })
}

impl Range {
    /// Reads `IP[:port][-IP[:port]]`, or `IP:port-port` for a range of ports alone. The ends may come in any order.
    pub fn parse(text: &str) -> Result<Range, String> {
        let Some((first, last)) = text.split_once('-') else {
            let only = parse_endpoint(text, DEFAULT_PORT)?;
            return Ok(Range { first: only, last: only });
        };
        let first = parse_endpoint(first, DEFAULT_PORT)?;
        let last = match last.parse::<u16>() {
            Ok(port) => Endpoint { addr: first.addr, port },
            Err(_) => parse_endpoint(last, first.port)?,
        };
        if first.addr.is_ipv4() != last.addr.is_ipv4() {
            return Err(format!("`{text}` mixes IPv4 and IPv6"));
        }
        Ok(Range {
            first: Endpoint { addr: first.addr.min(last.addr), port: first.port.min(last.port) },
            last: Endpoint { addr: first.addr.max(last.addr), port: first.port.max(last.port) },
        })
    }

    /// A range of one endpoint.
    pub fn one(addr: IpAddr, port: u16) -> Range {
        let only = Endpoint { addr, port };
        Range { first: only, last: only }
    }

    /// IP version of the range.
    pub fn family(&self) -> Family {
        if self.first.addr.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The endpoint after `now`, ports first; the flag tells that the range started over.
    fn step(&self, now: Endpoint) -> (Endpoint, bool) {
        if now.port < self.last.port {
            return (Endpoint { port: now.port + 1, ..now }, false);
        }
        let port = self.first.port;
        if now.addr < self.last.addr {
            return (Endpoint { addr: successor(now.addr), port }, false);
        }
        (Endpoint { addr: self.first.addr, port }, true)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::SocketAddr::new(self.addr, self.port).fmt(f)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

fn successor(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits().wrapping_add(1))),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits().wrapping_add(1))),
    }
}

/// The flows of successive frames: source port, source address, destination port, destination address, each counting up
/// through its range and carrying into the next, or drawn at random.
#[derive(Debug, Clone)]
pub struct Flows {
    src: Range,
    dst: Range,
    random_src: bool,
    random_dst: bool,
    now: Flow,
}

impl Flows {
    /// Starts at the first endpoints of both ranges.
    pub fn new(src: Range, dst: Range, random_src: bool, random_dst: bool) -> Flows {
        Flows { src, dst, random_src, random_dst, now: Flow { src: src.first, dst: dst.first } }
    }

    /// True if all frames have the same addresses and ports.
    pub fn is_constant(&self) -> bool {
        let single = |range: &Range| range.first == range.last;
        !self.random_src && !self.random_dst && single(&self.src) && single(&self.dst)
    }

    /// The flow of the present frame.
    pub fn current(&self) -> Flow {
        self.now
    }

    /// Goes to the next frame's flow.
    pub fn advance(&mut self, rng: &mut Rng) {
        if self.random_src {
            self.now.src = random(self.now.src, rng);
        } else {
            let (next, wrapped) = self.src.step(self.now.src);
            self.now.src = next;
            if !wrapped && !self.random_dst {
                return;
            }
        }
        self.now.dst = if self.random_dst { random(self.now.dst, rng) } else { self.dst.step(self.now.dst).0 };
    }
}

/// A random port, and a random address: all of an IPv4 one, the last 16 bits of an IPv6 one, whose prefix stays.
fn random(now: Endpoint, rng: &mut Rng) -> Endpoint {
    let bits = rng.next();
    let addr = match now.addr {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits((a.to_bits() & !0xffff) | u128::from(bits as u16))),
    };
    Endpoint { addr, port: (bits >> 48) as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        Range::parse(text).unwrap()
    }

    #[test]
    fn addresses_ports_and_ranges_are_read() {
        assert_eq!(range("10.0.0.1").first.to_string(), "10.0.0.1:1234");
        assert_eq!(range("10.0.0.1:53").last.to_string(), "10.0.0.1:53");
        assert_eq!(range("10.0.0.1-10.0.0.9").to_string(), "10.0.0.1:1234-10.0.0.9:1234");
        assert_eq!(range("10.0.0.1:5-10.0.0.9:7").to_string(), "10.0.0.1:5-10.0.0.9:7");
        assert_eq!(range("10.0.0.9:7-10.0.0.1:5").to_string(), "10.0.0.1:5-10.0.0.9:7");
        assert_eq!(range("10.0.0.1:5-9").to_string(), "10.0.0.1:5-10.0.0.1:9");
        assert_eq!(range("fd00::1").first.to_string(), "[fd00::1]:1234");
        assert_eq!(range("[fd00::1]:5-[fd00::2]:6").to_string(), "[fd00::1]:5-[fd00::2]:6");
    }

    #[test]
    fn bad_addresses_are_rejected() {
        for bad in ["", "10.0.0", "10.0.0.1:", "10.0.0.1:70000", "10.0.0.1-fd00::1", "[fd00::1", "[fd00::1]x", "host"] {
            assert!(Range::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn ranges_count_through_ports_then_addresses_then_the_other_side() {
        let mut flows = Flows::new(range("10.0.0.1:1-10.0.0.2:2"), range("10.1.0.1:7-10.1.0.1:8"), false, false);
        let mut rng = Rng::new(1);
        let mut seen = Vec::new();
        for _ in 0..9 {
            let f = flows.current();
            seen.push(format!("{} {}", f.src, f.dst));
            flows.advance(&mut rng);
        }
        assert_eq!(seen[0], "10.0.0.1:1 10.1.0.1:7");
        assert_eq!(seen[1], "10.0.0.1:2 10.1.0.1:7");
        assert_eq!(seen[2], "10.0.0.2:1 10.1.0.1:7");
        assert_eq!(seen[3], "10.0.0.2:2 10.1.0.1:7");
        assert_eq!(seen[4], "10.0.0.1:1 10.1.0.1:8");
        assert_eq!(seen[8], seen[0]);
    }

    #[test]
    fn constant_flows_are_known_as_such() {
        let one = range("10.0.0.1");
        assert!(Flows::new(one, one, false, false).is_constant());
        assert!(!Flows::new(one, one, true, false).is_constant());
        assert!(!Flows::new(one, range("10.0.0.1:1-2"), false, false).is_constant());
    }

    #[test]
    fn random_sources_keep_an_ipv6_prefix_and_step_the_other_side() {
        let mut flows = Flows::new(range("fd00::1"), range("[fd00:1::1]:1-[fd00:1::1]:9"), true, false);
        let mut rng = Rng::new(7);
        let mut sources = std::collections::HashSet::new();
        for i in 0..9u16 {
            let f = flows.current();
            assert_eq!(f.dst.port, i + 1);
            assert!(f.src.addr.to_string().starts_with("fd00::"));
            sources.insert(f.src.to_string());
            flows.advance(&mut rng);
        }
        assert!(sources.len() > 5);
    }

    #[test]
    fn the_last_address_of_all_wraps() {
        assert_eq!(successor("255.255.255.255".parse().unwrap()).to_string(), "0.0.0.0");
    }
}
