//! Options after checking: every conflict and every unsupported wish has become a message before a port is opened.

use std::net::IpAddr;
use std::time::Duration;

use crate::addr::{DEFAULT_PORT, Family, Flows, Range};
use crate::frame::{Mac, headers};
use crate::open;
use crate::options::{Function, Options};
use crate::pattern;
use crate::ping;
use crate::sizes::Sizes;

/// Longest frame; an IP length field holds no more.
const LONGEST: usize = 65535;
/// Frame length if none is given.
const DEFAULT_LENGTH: usize = 60;

/// What the sender fills slots with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// UDP frames.
    Udp,
    /// Test frames.
    Pattern,
    /// Whatever the buffers hold.
    Rubbish,
    /// This packet.
    Packet(Vec<u8>),
}

/// A checked run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Port name with its prefix.
    pub port: String,
    /// What to do.
    pub function: Function,
    /// Most time to wait for the link.
    pub wait_link: Duration,
    /// Slots of the TX and RX rings to ask for.
    pub slots: (Option<u32>, Option<u32>),
    /// Frames to handle; None is no limit.
    pub count: Option<u64>,
    /// Frames per batch.
    pub burst: u64,
    /// Frames per second.
    pub rate: Option<u64>,
    /// Time limit.
    pub time: Option<Duration>,
    /// rx: silence that ends the run, before and after the first frame.
    pub idle: Option<(Duration, Duration)>,
    /// Lengths to send.
    pub sizes: Sizes,
    /// Source and destination addresses.
    pub flows: Flows,
    /// IP version.
    pub family: Family,
    /// Source MAC; None is the port's.
    pub src_mac: Option<Mac>,
    /// Destination MAC.
    pub dst_mac: Mac,
    /// What slots hold.
    pub contents: Contents,
    /// Check received frames (rx).
    pub verify: bool,
    /// Write slots even if they hold the frame already.
    pub refill: bool,
    /// Slots per packet.
    pub fragments: usize,
    /// Most bytes per slot.
    pub fragment_size: Option<usize>,
    /// Threads.
    pub threads: usize,
    /// CPU of each thread.
    pub cpus: Option<Vec<usize>>,
    /// Time between reports.
    pub report: Duration,
    /// Unit prefixes in reports.
    pub normalise: bool,
    /// Bytes per frame to add to the bandwidth.
    pub framing: u64,
    /// Mean and deviation in reports.
    pub rate_stats: bool,
    /// Dump frames.
    pub dump: bool,
    /// The result line for scripts.
    pub machine: bool,
    /// How much to say.
    pub verbose: u8,
}

impl Config {
    /// True if stdout carries nothing but the result line.
    pub fn quiet_stdout(&self) -> bool {
        self.machine || (self.verify && self.function == Function::Rx)
    }
}

fn bits(o: &mut Options) -> Result<bool, String> {
    for (bit, why) in [
        (1, "1 (prefetch): packets are copied whole, so there is nothing to prefetch"),
        (2, "2 (access): use --verify, which reads every byte"),
        (16, "16 (timestamp): use -f ping, which puts a time into each frame"),
        (32, "32 (indirect buffers): see -I"),
    ] {
        if o.bits & bit != 0 {
            return Err(format!("-o bit {why}"));
        }
    }
    let known = 4 | 8 | 64 | 256 | 512 | 1024 | 2048 | 4096;
    if o.bits & !known != 0 {
        return Err(format!("-o {}: there is no bit {}; pkt-gen --help lists them", o.bits, o.bits & !known));
    }
    o.dump |= o.bits & 64 != 0;
    o.rubbish |= o.bits & 256 != 0;
    o.random_src |= o.bits & 512 != 0;
    o.random_dst |= o.bits & 1024 != 0;
    o.rate_stats |= o.bits & 2048 != 0;
    Ok(o.bits & (4 | 8) != 0)
}

fn unsupported(o: &Options) -> Result<(), String> {
    if o.indirect {
        return Err("-I is not supported: indirect buffers are pointers into the sender's memory, which the receiver \
                    of a port in another process cannot follow; leave it out"
            .into());
    }
    if o.vnet_header != 0 {
        return Err("-H is not supported: no port here carries virtio-net headers; leave it out".into());
    }
    let only = |given: bool, option: &str, functions: &[Function]| {
        if given && !functions.contains(&o.function) {
            return Err(format!("{option} means nothing for this function; leave it out"));
        }
        Ok(())
    };
    use Function::{Ping, Pong, Rx, Tx};
    only(o.verify, "--verify", &[Tx, Rx])?;
    only(o.pcap.is_some(), "-P", &[Tx])?;
    only(o.fragments != 1 || o.fragment_size.is_some(), "-F and -M", &[Tx])?;
    only(o.rubbish, "-r", &[Tx])?;
    only(o.idle.is_some(), "--idle", &[Rx])?;
    only(o.rate.is_some(), "-R", &[Tx, Ping])?;
    if o.threads > 1 && matches!(o.function, Ping | Pong) {
        return Err("ping and pong run in one thread; leave out -p".into());
    }
    if o.threads > 1 && o.verify {
        return Err("--verify follows one sequence through one thread; leave out -p".into());
    }
    if o.verify && o.rubbish {
        return Err("--verify and rubbish frames (-r) exclude each other".into());
    }
    if o.rate == Some(0) {
        return Err("-R 0 would never send; leave it out for full speed".into());
    }
    Ok(())
}

fn flows(o: &Options) -> Result<(Flows, Family), String> {
    let given = [o.src, o.dst].into_iter().flatten().map(|r| r.family()).collect::<Vec<_>>();
    let wanted = match (o.ipv4, o.ipv6) {
        (true, _) => Some(Family::V4),
        (_, true) => Some(Family::V6),
        _ => None,
    };
    let family = wanted.or(given.first().copied()).unwrap_or(Family::V4);
    if given.iter().any(|&f| f != family) {
        return Err("-4, -6, -s and -d do not agree on the IP version; use addresses of one version".into());
    }
    let default = |v4: [u8; 4], v6: [u16; 8]| match family {
        Family::V4 => Range::one(IpAddr::from(v4), DEFAULT_PORT),
        Family::V6 => Range::one(IpAddr::from(v6), DEFAULT_PORT),
    };
    let src = o.src.unwrap_or_else(|| default([10, 0, 0, 1], [0xfd00, 0, 0, 0, 0, 0, 0, 1]));
    let dst = o.dst.unwrap_or_else(|| default([10, 1, 0, 1], [0xfd00, 1, 0, 0, 0, 0, 0, 1]));
    Ok((Flows::new(src, dst, o.random_src, o.random_dst), family))
}

/// The lengths asked for, at least what the headers need.
fn sizes(o: &Options, family: Family) -> Result<Sizes, String> {
    let (least, what) = match o.function {
        _ if o.verify => (pattern::HEADER, "a test frame"),
        _ if o.rubbish => (ETHER_LEAST, "an Ethernet frame"),
        Function::Ping => (headers(family) + ping::PAYLOAD, "a ping"),
        _ => (headers(family), "a UDP frame"),
    };
    let sizes = match (o.sizes, &o.length[..]) {
        (Some(sizes), _) => sizes,
        (None, []) => Sizes::fixed(DEFAULT_LENGTH.max(least)),
        (None, &[only]) => Sizes::fixed(only),
        (None, &[a, b]) => Sizes { min: a.min(b), max: a.max(b) },
        _ => return Err("-l is given at most twice, for the longest and the shortest frame".into()),
    };
    if o.function == Function::Ping && !sizes.is_fixed() {
        return Err("ping sends frames of one length; give -l once".into());
    }
    let sends = matches!(o.function, Function::Tx | Function::Ping) && o.pcap.is_none();
    if sends && (sizes.min < least || sizes.max > LONGEST) {
        return Err(format!("frames of {} to {} bytes: {what} here has {least} to {LONGEST}", sizes.min, sizes.max));
    }
    Ok(sizes)
}

/// An Ethernet header and something to carry.
const ETHER_LEAST: usize = 16;

/// `-C`: slots, and the rings as a suffix of the port name.
type PortConfig = ((Option<u32>, Option<u32>), String);

fn port_config(text: &str) -> Result<PortConfig, String> {
    let bad = || format!("-C {text}: write TX_SLOTS[,RX_SLOTS[,TX_RINGS[,RX_RINGS]]], 0 for the default");
    let numbers: Vec<u32> = text
        .split(',')
        .map(|n| if n.is_empty() { Ok(0) } else { n.parse() })
        .collect::<Result<_, _>>()
        .map_err(|_| bad())?;
    let some = |n: u32| (n != 0).then_some(n);
    let (slots, rings) = match numbers[..] {
        [both] => ((both, both), (0, 0)),
        [tx, rx] => ((tx, rx), (0, 0)),
        [tx, rx, rings] => ((tx, rx), (rings, rings)),
        [tx, rx, tx_rings, rx_rings] => ((tx, rx), (tx_rings, rx_rings)),
        _ => return Err(bad()),
    };
    let mut parts = Vec::new();
    parts.extend(some(rings.0).map(|n| format!("tx-rings={n}")));
    parts.extend(some(rings.1).map(|n| format!("rx-rings={n}")));
    let suffix = if parts.is_empty() { String::new() } else { format!("@conf:{}", parts.join(",")) };
    Ok(((some(slots.0), some(slots.1)), suffix))
}

/// CPUs of the threads, by `-a` and `-c`; `online` are the CPUs that the process may use.
fn cpus(o: &Options, online: &[usize]) -> Result<Option<Vec<usize>>, String> {
    let highest = online.last().map_or(0, |c| c + 1);
    if o.cpus > highest {
        return Err(format!("-c {}: CPUs here end at {highest}", o.cpus));
    }
    let Some(first) = o.affinity else { return Ok(None) };
    let among = if o.cpus == 0 { highest } else { o.cpus };
    if first >= among {
        return Err(format!("-a {first}: CPUs to use are 0 to {}", among.saturating_sub(1)));
    }
    Ok(Some((0..o.threads as usize).map(|t| crate::cpu::of_thread(first, t, among)).collect()))
}

/// Checks what the user typed. `packet` is the content of the `-P` file.
pub fn check(mut o: Options, packet: Option<Vec<u8>>, online: &[usize]) -> Result<Config, String> {
    let refill = bits(&mut o)?;
    unsupported(&o)?;
    let (flows, family) = flows(&o)?;
    let mut sizes = sizes(&o, family)?;
    let contents = match packet {
        Some(packet) => {
            sizes = Sizes::fixed(packet.len());
            Contents::Packet(packet)
        }
        None if o.verify => Contents::Pattern,
        None if o.rubbish => Contents::Rubbish,
        None => Contents::Udp,
    };
    let (slots, suffix) = o.port_config.as_deref().map(port_config).transpose()?.unwrap_or_default();
    let port = open::port_name(&o.interface)? + &suffix;
    let idle = match (o.idle, o.exit_when_idle) {
        (Some(idle), _) => Some((idle, idle)),
        (None, true) => Some((Duration::from_secs(10), Duration::from_secs(1))),
        (None, false) => None,
    };
    Ok(Config {
        wait_link: o.wait_link.unwrap_or_else(|| open::default_link_wait(&port)),
        function: o.function,
        slots,
        count: (o.count != 0).then_some(o.count),
        burst: u64::from(o.burst.unwrap_or(if o.function == Function::Ping { 1 } else { 512 })),
        rate: o.rate,
        time: o.time,
        idle,
        sizes,
        flows,
        family,
        src_mac: o.src_mac,
        dst_mac: o.dst_mac.unwrap_or([0xff; 6]),
        contents,
        verify: o.verify,
        refill,
        fragments: o.fragments as usize,
        fragment_size: o.fragment_size.map(|n| n as usize),
        threads: o.threads as usize,
        cpus: cpus(&o, online)?,
        report: Duration::from_millis(o.report_ms),
        normalise: !o.raw_numbers,
        framing: if o.framing { 24 } else { 0 },
        rate_stats: o.rate_stats,
        dump: o.dump,
        machine: o.machine,
        verbose: o.verbose,
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn run(line: &str) -> Result<Config, String> {
        let options = Options::try_parse_from(std::iter::once("pkt-gen").chain(line.split_whitespace())).unwrap();
        check(options, None, &[0, 1, 2, 3])
    }

    #[test]
    fn defaults_are_those_users_know() {
        let c = run("-i eth0 -f tx").unwrap();
        assert_eq!(c.port, "netmap:eth0");
        assert_eq!((c.count, c.burst, c.rate), (None, 512, None));
        assert_eq!(c.sizes, Sizes::fixed(60));
        assert_eq!(c.flows.current().src.to_string(), "10.0.0.1:1234");
        assert_eq!(c.flows.current().dst.to_string(), "10.1.0.1:1234");
        assert_eq!((c.src_mac, c.dst_mac), (None, [0xff; 6]));
        assert_eq!(c.wait_link, Duration::from_secs(2));
        assert_eq!(run("-i vale0:a -f tx").unwrap().wait_link, Duration::ZERO);
        assert_eq!(run("-i eth0 -f ping").unwrap().burst, 1);
    }

    #[test]
    fn ipv6_is_chosen_by_flag_or_address_and_raises_the_least_length() {
        let c = run("-i e -f tx -6").unwrap();
        assert_eq!((c.family, c.sizes), (Family::V6, Sizes::fixed(62)));
        assert_eq!(run("-i e -f tx -d fd00::5").unwrap().family, Family::V6);
        assert_eq!(run("-i e -f ping -6").unwrap().sizes.min, 62 + ping::PAYLOAD);
        assert!(run("-i e -f tx -6 -d 10.0.0.1").is_err());
        assert!(run("-i e -f tx -s 10.0.0.1 -d fd00::1").is_err());
        assert!(run("-i e -f tx -6 -l 60").is_err());
    }

    #[test]
    fn lengths_come_in_any_order_and_are_bounded() {
        assert_eq!(run("-i e -f tx -l 1514 -l 60").unwrap().sizes, Sizes { min: 60, max: 1514 });
        assert_eq!(run("-i e -f tx -l 60 -l 1514").unwrap().sizes, Sizes { min: 60, max: 1514 });
        assert_eq!(run("-i e -f tx --verify --sizes 28..9000").unwrap().sizes, Sizes { min: 28, max: 9000 });
        for bad in ["-l 41", "-l 70000", "-l 60 -l 61 -l 62", "--verify -l 27", "--sizes 10..60", "-r -l 15"] {
            assert!(run(&format!("-i e -f tx {bad}")).is_err(), "{bad} was accepted");
        }
        assert!(run("-i e -f ping -l 60 -l 64").is_err());
    }

    #[test]
    fn option_bits_do_what_their_letters_do_or_are_errors() {
        let c = run("-i e -f tx -o 7748").unwrap();
        assert!(c.refill && c.dump && c.rate_stats && !c.flows.is_constant());
        assert_eq!(run("-i e -f tx -o 256").unwrap().contents, Contents::Rubbish);
        for bit in [1, 2, 16, 32, 128, 8192] {
            assert!(run(&format!("-i e -f tx -o {bit}")).is_err(), "bit {bit} was accepted");
        }
    }

    #[test]
    fn what_is_not_supported_is_said_with_its_reason() {
        for (line, words) in [
            ("-i e -f tx -I", "not supported"),
            ("-i e -f tx -H 12", "not supported"),
            ("-i e -f ping -p 2", "one thread"),
            ("-i e -f tx --verify -p 2", "one thread"),
            ("-i e -f pong --verify", "means nothing"),
            ("-i e -f tx --idle 1", "means nothing"),
            ("-i e -f tx -R 0", "never send"),
            ("-i e -f tx -o 256 --verify", "exclude"),
            ("-i tap:x -f tx", "tap"),
        ] {
            let error = run(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn port_configs_become_slots_and_a_suffix() {
        let c = run("-i vale0:a -C 512").unwrap();
        assert_eq!((c.slots, c.port.as_str()), ((Some(512), Some(512)), "vale0:a"));
        let c = run("-i vale0:a -C 512,,2").unwrap();
        assert_eq!((c.slots, c.port.as_str()), ((Some(512), None), "vale0:a@conf:tx-rings=2,rx-rings=2"));
        let c = run("-i vale0:a -C 0,256,0,3").unwrap();
        assert_eq!((c.slots, c.port.as_str()), ((None, Some(256)), "vale0:a@conf:rx-rings=3"));
        assert!(run("-i vale0:a -C 1,2,3,4,5").is_err());
        assert!(run("-i vale0:a -C x").is_err());
    }

    #[test]
    fn threads_get_cpus_only_if_asked_for() {
        assert_eq!(run("-i e -p 3").unwrap().cpus, None);
        assert_eq!(run("-i e -p 3 -a 2").unwrap().cpus, Some(vec![2, 3, 0]));
        assert_eq!(run("-i e -p 3 -a 1 -c 2").unwrap().cpus, Some(vec![1, 0, 1]));
        assert!(run("-i e -a 4").is_err());
        assert!(run("-i e -c 5").is_err());
    }

    #[test]
    fn idle_times_are_one_second_with_w_and_as_given_otherwise() {
        let s = Duration::from_secs;
        assert_eq!(run("-i e").unwrap().idle, None);
        assert_eq!(run("-i e -W").unwrap().idle, Some((s(10), s(1))));
        assert_eq!(run("-i e -W --idle 3").unwrap().idle, Some((s(3), s(3))));
    }

    #[test]
    fn stdout_is_kept_for_the_result_line_when_scripts_read_it() {
        assert!(run("-i e --verify").unwrap().quiet_stdout());
        assert!(run("-i e -f tx --machine").unwrap().quiet_stdout());
        assert!(!run("-i e -f tx --verify").unwrap().quiet_stdout());
    }
}
