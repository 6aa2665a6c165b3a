//! Steering rules: text to what the XDP program runs (`bpf/steering.bpf.h`). Pure.
//!
//! ```text
//! rules   = rule { (";" | newline) rule } (";" | newline) "default" action
//! rule    = term { ["and"] term } "->" action                the first rule that matches counts
//! action  = "netmap" | "host"
//! term    = "any" | "ip" | "ip6" | "arp" | "ether" NUMBER    what an Ethernet header says behind VLAN tags
//!         | "vlan" [NUMBER] | "untagged"                     the outer tag
//!         | "tcp" | "udp" | "sctp" | "icmp" | "icmp6" | "proto" NUMBER
//!         | ("src" | "dst" | "net") PREFIX                   net: either of them
//!         | ["src" | "dst"] "port" NUMBER ["-" NUMBER]       neither word: either of them
//!         | "fragment"                                       of an IP packet, the first one too
//! ```
//! A header that a frame does not have, or not whole, matches no term about it: the ports of all fragments but the first, the
//! addresses of a frame that ends in the IP header. Looked at are two VLAN tags, eight IPv6 extension headers, and 1024
//! bytes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Most bytes of text.
pub const TEXT_MAX: usize = 8192;
/// Most rules, where one that asks for either direction counts as two: `STEER_RULES`.
pub const RULES_MAX: usize = 64;

const WORDS: usize = 5;
/// Size of `struct steer_rule` and `struct steer_rules`.
const RULE_SIZE: usize = 2 * 8 * WORDS + 16;
/// The value that the program's map takes.
pub const IMAGE_SIZE: usize = 8 + RULES_MAX * RULE_SIZE;

const TYPE: u64 = 0xffff;
const VLAN_SHIFT: u32 = 16;
const VLAN: u64 = 0xfff << VLAN_SHIFT;
const PROTO_SHIFT: u32 = 32;
const PROTO: u64 = 0xff << PROTO_SHIFT;
const FACTS_SHIFT: u32 = 40;
const ADDRESSES: u64 = 1 << FACTS_SHIFT;
const HAS_PROTO: u64 = 2 << FACTS_SHIFT;
const HAS_PORTS: u64 = 4 << FACTS_SHIFT;
const FRAGMENT: u64 = 8 << FACTS_SHIFT;
const TAGGED: u64 = 16 << FACTS_SHIFT;
/// Protocols that have ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u64; 5] = [6, 17, 33, 132, 136];
const IPV4: u64 = 0x0800;
const IPV6: u64 = 0x86dd;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// netmap gets it, if somebody bound its queue.
    Netmap,
    /// The host stack gets it, and netmap never sees it.
    Host,
}

/// A rule as the program has it: a value and a mask of the frame's key, and ranges of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    value: [u64; WORDS],
    mask: [u64; WORDS],
    src: (u16, u16),
    dst: (u16, u16),
    action: Action,
}

/// Rules that say which frames of a NIC go to netmap and which stay with the host. Cheap to clone; two are equal if
/// their texts are.
#[derive(Clone, Debug)]
pub struct Steering {
    text: Arc<str>,
    rules: Arc<[Rule]>,
    default: Action,
}

impl PartialEq for Steering {
    fn eq(&self, other: &Steering) -> bool {
        self.text == other.text
    }
}

impl Eq for Steering {}

impl fmt::Display for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("steering rules, {}: {why}", place(*rule, *column, word))]
pub struct SteeringError {
    /// Which rule, from 1.
    pub rule: usize,
    /// Which character of it, from 1.
    pub column: usize,
    /// The word there; empty at the end of the rule.
    pub word: String,
    /// What is wrong.
    pub why: String,
}

fn place(rule: usize, column: usize, word: &str) -> String {
    if word.is_empty() {
        format!("rule {rule}, at its end")
    } else {
        format!("rule {rule}, character {column}, at `{word}`")
    }
}

/// The words of a rule with the places where they begin, to be read one by one.
struct Words<'a> {
    rule: usize,
    text: &'a str,
    words: Vec<(usize, &'a str)>,
    next: usize,
}

type Alternatives = Vec<Rule>;

impl<'a> Words<'a> {
    fn new(rule: usize, text: &'a str) -> Words<'a> {
        let mut words = Vec::new();
        let mut push = |from: usize, to: usize| {
            if from < to {
                words.push((from, &text[from..to]));
            }
        };
        let (mut from, mut skip) = (0, 0);
        for (i, c) in text.char_indices() {
            if i < skip {
                continue;
            }
            if c.is_whitespace() {
                push(from, i);
                from = i + c.len_utf8();
            } else if text[i..].starts_with("->") {
                push(from, i);
                push(i, i + 2);
                (from, skip) = (i + 2, i + 2);
            }
        }
        push(from, text.len());
        Words { rule, text, words, next: 0 }
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).map(|w| w.1)
    }

    fn take(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.next += 1;
        Some(word)
    }

    fn accept(&mut self, word: &str) -> bool {
        let there = self.peek() == Some(word);
        self.next += usize::from(there);
        there
    }

    /// Blames word number `at`, or the end.
    fn blame(&self, at: usize, why: impl Into<String>) -> SteeringError {
        let (start, word) = self.words.get(at).copied().unwrap_or((self.text.len(), ""));
        let column = self.text[..start].chars().count() + 1;
        let word = word.chars().take(40).collect();
        SteeringError { rule: self.rule, column, word, why: why.into() }
    }

    fn number(&mut self, what: &str, most: u64) -> Result<u64, SteeringError> {
        let at = self.next;
        let word = self.take().unwrap_or_default();
        number(word, most).ok_or_else(|| self.blame(at, format!("expected {what}, a number up to {most}")))
    }

    fn action(&mut self) -> Result<Action, SteeringError> {
        let at = self.next;
        match self.take() {
            Some("netmap") => Ok(Action::Netmap),
            Some("host") => Ok(Action::Host),
            _ => Err(self.blame(at, "expected `netmap` or `host`")),
        }
    }
}

fn number(word: &str, most: u64) -> Option<u64> {
    let n = match word.strip_prefix("0x") {
        Some(hex) if !hex.starts_with('+') => u64::from_str_radix(hex, 16).ok()?,
        Some(_) => return None,
        None if word.bytes().all(|b| b.is_ascii_digit()) => word.parse().ok()?,
        None => return None,
    };
    (n <= most).then_some(n)
}

/// Both words of an address as the program reads them from a frame.
fn words_of(bytes: [u8; 16]) -> [u64; 2] {
    [0, 8].map(|at| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i])))
}

struct Prefix {
    kind: u64,
    value: [u64; 2],
    mask: [u64; 2],
}

fn prefix(word: &str) -> Result<Prefix, String> {
    let (address, len) = word.split_once('/').map_or((word, None), |(a, l)| (a, Some(l)));
    let bad = || "expected an address or a prefix, as 10.0.0.0/8 or 2001:db8::/32".to_string();
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let len = match len {
        None => most,
        Some(len) => number(len, most.into()).ok_or(format!("the length of this prefix is at most {most}"))? as u32,
    };
    let ones = |bits: u32| if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
    let mask = ones(len).to_be_bytes();
    let mut bytes = [0u8; 16];
    match address {
        IpAddr::V4(a) => bytes[..4].copy_from_slice(&a.octets()),
        IpAddr::V6(a) => bytes = a.octets(),
    }
    if bytes.iter().zip(mask).any(|(b, m)| b & !m != 0) {
        let cut: [u8; 16] = std::array::from_fn(|i| bytes[i] & mask[i]);
        let meant = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(cut[0], cut[1], cut[2], cut[3])),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(cut)),
        };
        return Err(format!("the address has more bits than its prefix: {meant}/{len}?"));
    }
    let kind = if address.is_ipv4() { IPV4 } else { IPV6 };
    Ok(Prefix { kind, value: words_of(bytes), mask: words_of(mask) })
}

impl Rule {
    const ANY: Rule =
        Rule { value: [0; WORDS], mask: [0; WORDS], src: (0, u16::MAX), dst: (0, u16::MAX), action: Action::Netmap };

    /// Asks for these bits of a word; false if others were asked for already.
    fn require(&mut self, word: usize, mask: u64, value: u64) -> bool {
        if (self.value[word] ^ value) & self.mask[word] & mask != 0 {
            return false;
        }
        self.mask[word] |= mask;
        self.value[word] |= value;
        true
    }

    fn ethertype(&mut self, kind: u64) -> bool {
        self.require(0, TYPE, kind)
    }

    fn proto(&mut self, proto: u64) -> bool {
        self.require(0, PROTO | HAS_PROTO, proto << PROTO_SHIFT | HAS_PROTO) && self.ports_make_sense()
    }

    fn ports_make_sense(&self) -> bool {
        let asked = self.mask[0] & PROTO != 0 && self.mask[0] & HAS_PORTS != 0;
        !asked || WITH_PORTS.contains(&((self.value[0] & PROTO) >> PROTO_SHIFT))
    }

    fn address(&mut self, first: usize, p: &Prefix) -> bool {
        self.ethertype(p.kind)
            && self.require(0, ADDRESSES, ADDRESSES)
            && (0..2).all(|i| self.require(first + i, p.mask[i], p.value[i]))
    }

    fn port(&mut self, src: bool, range: (u16, u16)) -> bool {
        let mine = if src { &mut self.src } else { &mut self.dst };
        *mine = (mine.0.max(range.0), mine.1.min(range.1));
        let some = mine.0 <= mine.1;
        some && self.require(0, HAS_PORTS, HAS_PORTS) && self.ports_make_sense()
    }

    fn write(&self, to: &mut Vec<u8>) {
        let words = self.value.into_iter().chain(self.mask);
        words.for_each(|w| to.extend_from_slice(&w.to_ne_bytes()));
        for port in [self.src.0, self.src.1, self.dst.0, self.dst.1] {
            to.extend_from_slice(&port.to_ne_bytes());
        }
        to.extend_from_slice(&u64::from(self.action == Action::Host).to_ne_bytes());
    }
}

/// What a term does to one alternative of a rule; false: it never matches then.
type Demand = Box<dyn Fn(&mut Rule) -> bool>;

/// Reads a term: the demands of which any one is enough.
fn term(words: &mut Words<'_>) -> Result<Vec<Demand>, SteeringError> {
    let at = words.next;
    let one = |f: Demand| Ok(vec![f]);
    let ethertype = |kind: u64| Ok(vec![Box::new(move |r: &mut Rule| r.ethertype(kind)) as Demand]);
    let proto = |n: u64| Ok(vec![Box::new(move |r: &mut Rule| r.proto(n)) as Demand]);
    match words.take().unwrap_or_default() {
        "any" => one(Box::new(|_| true)),
        "ip" | "ip4" => ethertype(IPV4),
        "ip6" => ethertype(IPV6),
        "arp" => ethertype(0x0806),
        "ether" => match words.number("an ethertype", 0xffff)? {
            0x8100 | 0x88a8 => Err(words.blame(at + 1, "VLAN tags are looked through: say `vlan` instead")),
            n @ 0x600.. => ethertype(n),
            _ => Err(words.blame(at + 1, "an ethertype is 0x600 or more")),
        },
        "vlan" => match words.peek().filter(|w| w.starts_with(|c: char| c.is_ascii_digit())) {
            None => one(Box::new(|r| r.require(0, TAGGED, TAGGED))),
            Some(_) => {
                let id = words.number("a VLAN", 0xfff)?;
                one(Box::new(move |r| r.require(0, TAGGED | VLAN, TAGGED | id << VLAN_SHIFT)))
            }
        },
        "untagged" => one(Box::new(|r| r.require(0, TAGGED, 0))),
        "fragment" => one(Box::new(|r| r.require(0, FRAGMENT, FRAGMENT))),
        "tcp" => proto(6),
        "udp" => proto(17),
        "sctp" => proto(132),
        "icmp" => one(Box::new(|r| r.ethertype(IPV4) && r.proto(1))),
        "icmp6" => one(Box::new(|r| r.ethertype(IPV6) && r.proto(58))),
        "proto" => proto(words.number("a protocol of IP", 0xff)?),
        "port" => ports(words, &[true, false]),
        "src" if words.accept("port") => ports(words, &[true]),
        "dst" if words.accept("port") => ports(words, &[false]),
        side @ ("src" | "dst" | "net") => {
            let sides: &[usize] = match side {
                "src" => &[1],
                "dst" => &[3],
                _ => &[1, 3],
            };
            let word = words.take().unwrap_or_default();
            let also = if side == "net" { "" } else { ", or `port`" };
            let parse = || {
                prefix(word).map_err(|why| {
                    let why = if word.contains(['.', ':']) { why } else { format!("{why}{also}") };
                    words.blame(at + 1, why)
                })
            };
            sides
                .iter()
                .map(|&first| {
                    let p = parse()?;
                    Ok(Box::new(move |r: &mut Rule| r.address(first, &p)) as Demand)
                })
                .collect()
        }
        _ => Err(words.blame(
            at,
            "expected any, ip, ip6, arp, ether, vlan, untagged, fragment, tcp, udp, sctp, icmp, icmp6, proto, src, dst, \
             net, port or ->",
        )),
    }
}

fn ports(words: &mut Words<'_>, sources: &[bool]) -> Result<Vec<Demand>, SteeringError> {
    let at = words.next;
    let word = words.take().unwrap_or_default();
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let port = |w: &str| number(w, 65535).map(|n| n as u16);
    let range = match (port(first), port(last)) {
        (Some(a), Some(b)) if a <= b => (a, b),
        (Some(_), Some(_)) => return Err(words.blame(at, "a range of ports starts with the lower one")),
        _ => return Err(words.blame(at, "expected a port or a range, as 4789 or 5000-5010")),
    };
    Ok(sources.iter().map(|&src| Box::new(move |r: &mut Rule| r.port(src, range)) as Demand).collect())
}

/// Reads the terms of a rule and its action.
fn rule(words: &mut Words<'_>) -> Result<Alternatives, SteeringError> {
    let mut all = vec![Rule::ANY];
    while words.next == 0 || !words.accept("->") {
        let at = words.next;
        if words.next > 0 && words.accept("and") && words.peek() == Some("->") {
            return Err(words.blame(words.next, "expected a term after `and`"));
        }
        if words.peek().is_none() {
            return Err(words.blame(words.next, "expected `-> netmap` or `-> host`"));
        }
        let demands = term(words)?;
        let mut kept = Vec::new();
        for demand in &demands {
            for alternative in &all {
                let mut narrower = *alternative;
                if demand(&mut narrower) {
                    kept.push(narrower);
                }
            }
        }
        if kept.is_empty() {
            return Err(words.blame(at, "no frame can match this and what is before it"));
        }
        if kept.len() > RULES_MAX {
            return Err(words.blame(at, format!("this makes more than {RULES_MAX} rules: say src or dst")));
        }
        all = kept;
    }
    let action = words.action()?;
    all.iter_mut().for_each(|r| r.action = action);
    Ok(all)
}

impl Steering {
    /// Reads rules; the error points at the fault.
    pub fn parse(text: &str) -> Result<Steering, SteeringError> {
        let whole = |why: String| SteeringError { rule: 1, column: 1, word: String::new(), why };
        if text.len() > TEXT_MAX {
            return Err(whole(format!("{} bytes are more than {TEXT_MAX}", text.len())));
        }
        let lines = text.split([';', '\n']).map(str::trim).filter(|line| !line.is_empty());
        let (mut rules, mut default, mut count, mut last) = (Vec::new(), None, 0, "");
        for (i, line) in lines.enumerate() {
            let mut words = Words::new(i + 1, line);
            (count, last) = (i + 1, line);
            if default.is_some() {
                return Err(words.blame(0, "nothing comes after `default`"));
            }
            if words.accept("default") {
                words.accept("->");
                default = Some(words.action()?);
            } else {
                rules.extend(rule(&mut words)?);
            }
            if words.peek().is_some() {
                return Err(words.blame(words.next, "expected `;` or the end"));
            }
            if rules.len() > RULES_MAX {
                let why =
                    format!("more than {RULES_MAX} rules; one with `net` or `port` alone counts for both directions");
                return Err(words.blame(0, why));
            }
        }
        let Some(default) = default else {
            let why = "say what becomes of all other frames: `; default host` or `; default netmap`";
            return Err(Words::new(count.max(1), last).blame(usize::MAX, why));
        };
        Ok(Steering { text: text.trim().into(), rules: rules.into(), default })
    }

    /// The rules as text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value that the program's map takes: `struct steer_rules`.
    pub fn image(&self) -> Vec<u8> {
        let mut image = Vec::with_capacity(IMAGE_SIZE);
        image.extend_from_slice(&(self.rules.len() as u32).to_ne_bytes());
        image.extend_from_slice(&u32::from(self.default == Action::Host).to_ne_bytes());
        self.rules.iter().for_each(|r| r.write(&mut image));
        image.resize(IMAGE_SIZE, 0);
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<Rule> {
        Steering::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).rules.to_vec()
    }

    #[track_caller]
    fn fault(text: &str) -> SteeringError {
        let e = Steering::parse(text).expect_err(text);
        assert!(e.to_string().contains("rule"), "{e}");
        e
    }

    #[test]
    fn a_rule_asks_for_what_it_says_and_nothing_else() {
        let [r] = rules("udp dst port 4789 -> netmap; default host")[..] else { panic!() };
        assert_eq!(r.mask, [PROTO | HAS_PROTO | HAS_PORTS, 0, 0, 0, 0]);
        assert_eq!(r.value[0], 17 << PROTO_SHIFT | HAS_PROTO | HAS_PORTS);
        assert_eq!((r.src, r.dst, r.action), ((0, 65535), (4789, 4789), Action::Netmap));

        let [r] = rules("ip src 10.1.0.0/16 and vlan 7 -> host\ndefault netmap")[..] else { panic!() };
        assert_eq!(r.mask[0], TYPE | ADDRESSES | TAGGED | VLAN);
        assert_eq!(r.value[0], IPV4 | ADDRESSES | TAGGED | 7 << VLAN_SHIFT);
        assert_eq!(r.value[1].to_ne_bytes(), [10, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(r.mask[1].to_ne_bytes(), [255, 255, 0, 0, 0, 0, 0, 0]);
        assert_eq!((r.action, &r.mask[2..]), (Action::Host, &[0, 0, 0][..]));

        let [r] = rules("dst 2001:db8::/33->netmap;default->host;")[..] else { panic!() };
        assert_eq!(r.mask[3].to_ne_bytes(), [255, 255, 255, 255, 128, 0, 0, 0]);
        assert_eq!(r.value[3].to_ne_bytes(), [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0]);
    }

    #[test]
    fn either_direction_makes_two_rules_and_contradictions_drop_out() {
        let r = rules("tcp port 20-22 -> host; default netmap");
        assert_eq!((r.len(), r[0].src, r[1].dst), (2, (20, 22), (20, 22)));
        assert_eq!(rules("net 10.0.0.0/8 port 53 -> host; default netmap").len(), 4);
        // Of the four, those that want another source than 10/8 fall away.
        assert_eq!(rules("src 10.0.0.0/8 net 11.0.0.0/8 -> host; default netmap").len(), 1);
        assert_eq!(rules("default netmap").len(), 0);
    }

    #[test]
    fn an_error_points_at_the_fault() {
        for (text, rule, column, word, why) in [
            ("udp dst prot 4789 -> netmap; default host", 1, 9, "prot", "or `port`"),
            ("tcp -> host; upd -> netmap; default host", 2, 1, "upd", "expected any"),
            ("tcp port 99999 -> host; default host", 1, 10, "99999", "expected a port"),
            ("tcp port 22-21 -> host; default host", 1, 10, "22-21", "lower"),
            ("src 10.0.0.1/8 -> host; default host", 1, 5, "10.0.0.1/8", "10.0.0.0/8?"),
            ("src 10.0.0.0/33 -> host; default host", 1, 5, "10.0.0.0/33", "at most 32"),
            ("net x -> host; default host", 1, 5, "x", "expected an address"),
            ("icmp port 5 -> host; default host", 1, 6, "port", "no frame can match"),
            ("ip6 src 10.0.0.1 -> host; default host", 1, 5, "src", "no frame can match"),
            ("tcp udp -> host; default host", 1, 5, "udp", "no frame can match"),
            ("vlan untagged -> host; default host", 1, 6, "untagged", "no frame can match"),
            ("ether 0x8100 -> host; default host", 1, 7, "0x8100", "vlan"),
            ("ether 100 -> host; default host", 1, 7, "100", "0x600"),
            ("vlan 5000 -> host; default host", 1, 6, "5000", "4095"),
            ("proto +6 -> host; default host", 1, 7, "+6", "up to 255"),
            ("tcp -> nowhere; default host", 1, 8, "nowhere", "`netmap` or `host`"),
            ("tcp ->; default host", 1, 7, "", "`netmap` or `host`"),
            ("tcp; default host", 1, 4, "", "-> netmap"),
            ("-> host; default host", 1, 1, "->", "expected any"),
            ("tcp and -> host; default host", 1, 9, "->", "after `and`"),
            ("tcp -> host host; default host", 1, 13, "host", "expected `;`"),
            ("default host; tcp -> netmap", 2, 1, "tcp", "after `default`"),
            ("tcp -> host", 1, 12, "", "all other frames"),
            ("default", 1, 8, "", "`netmap` or `host`"),
            ("", 1, 1, "", "all other frames"),
        ] {
            let e = fault(text);
            assert_eq!((e.rule, e.column, e.word.as_str()), (rule, column, word), "{text}: {e}");
            assert!(e.why.contains(why), "{text}: {e}");
        }
    }

    #[test]
    fn rules_are_bounded() {
        let many = |n: usize| "tcp -> host;".repeat(n) + "default host";
        assert_eq!(rules(&many(RULES_MAX)).len(), RULES_MAX);
        assert!(fault(&many(RULES_MAX + 1)).why.contains("more than 64"));
        let doubling = format!("{} -> host; default host", "net 0.0.0.0/0 ".repeat(8));
        assert!(fault(&doubling).why.contains("more than 64"));
        assert!(fault(&" ".repeat(TEXT_MAX + 1)).why.contains("8192"));
    }

    #[test]
    fn the_image_has_the_size_of_the_maps_value() {
        for text in ["default netmap", "udp port 1 -> netmap; arp -> host; default host"] {
            let steering = Steering::parse(text).unwrap();
            let image = steering.image();
            assert_eq!(image.len(), IMAGE_SIZE);
            let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| image[at + i]));
            assert_eq!(word(0) as usize, steering.rules.len());
            assert_eq!(word(4), u32::from(text.ends_with("host")));
            assert_eq!(Steering::parse(steering.text()).unwrap(), steering);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        let pieces = [
            "udp",
            "->",
            " ",
            ";",
            "\n",
            "port",
            "1-",
            "-",
            "é->",
            "default",
            "host",
            "10.0.0.0/",
            "0x",
            "vlan",
            "net",
        ];
        let mut seed = 1u32;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..8 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push_str(pieces[(seed >> 16) as usize % pieces.len()]);
                text.push_str(if seed & 0x100 == 0 { " " } else { "" });
            }
            let _ = Steering::parse(&text);
        }
    }
}
