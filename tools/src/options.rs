//! What the user of pkt-gen may type. [`crate::config`] checks it and turns it into decisions.
#![allow(rustdoc::broken_intra_doc_links, reason = "the comments are help texts: brackets mark what may be left out")]

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum};

use crate::addr::Range;
use crate::frame::{Mac, parse_mac};
use crate::sizes::Sizes;
use crate::units::{parse_count, parse_seconds};

/// `-f`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Function {
    /// Send frames
    Tx,
    /// Receive and count frames
    Rx,
    /// Send requests and time the answers
    Ping,
    /// Answer what comes in
    Pong,
}

const PORT: &str = "Port and function";
const FRAMES: &str = "Frames (tx, ping)";
const RUN: &str = "How much, how fast, how long";
const THREADS: &str = "Threads";
const REPORT: &str = "Reports";

const AFTER: &str = "\
Examples:
  pkt-gen -i eth1 -f rx
  pkt-gen -i eth1 -f tx -n 10M -l 60 -d 10.1.0.1:2000-10.1.0.9:2100 -D 00:07:43:29:2a:e0
  pkt-gen -i vale0:a -f tx -R 100k
  pkt-gen -i eth1 -f rx --verify -n 1M --idle 5        (with: pkt-gen -i eth2 -f tx --verify -n 1M)

Exit status: 0 done, 1 failed or not verified, 2 wrong usage.";

const AFTER_LONG: &str = "\
Bits of -o, added up:
     4  write every slot again even if the frame does not change
     8  the same (the original chose another copy routine)
    64  -X        256  -r        512  -z        1024  -Z        2048  -A
  4096  update checksums; always done
Bits that are errors here: 1 prefetch, 2 access, 16 timestamp (see -f ping), 32 -I.

Test frames (--verify): ethertype 0x88b5 at byte 12, magic 4e4d5844 at 14, sequence number (64 bits) at 18, length
(16 bits) at 26, all big endian; from byte 28 on byte i is seq*31 + i*7 + (seq>>8). With mixed sizes frame seq is
MIN + seq*7919 % (MAX-MIN+1) bytes long. `rx --verify` prints one line on stdout:
  received=N lost=N reordered=N corrupt=N other=N
Repeated frames count as reordered.";

/// Sends, receives and times packets through the netmap API.
#[derive(Debug, Clone, Parser)]
#[command(name = "pkt-gen", version, about, after_help = AFTER, after_long_help = format!("{AFTER_LONG}\n\n{AFTER}"))]
pub struct Options {
    /// Port: eth1, netmap:eth1-2, vale0:p, eth1{3 and the like
    #[arg(short = 'i', long = "interface", value_name = "IF", help_heading = PORT)]
    pub interface: String,
    /// What to do
    #[arg(short = 'f', long = "function", value_enum, default_value = "rx", hide_default_value = true, value_name = "FUNCTION", help_heading = PORT)]
    pub function: Function,
    /// Wait at most so many seconds for the link [default: 2; 0 on VALE ports and pipes]
    #[arg(short = 'w', value_name = "SECONDS", value_parser = parse_seconds, help_heading = PORT)]
    pub wait_link: Option<Duration>,
    /// Slots and rings of ports made on the fly: TX_SLOTS[,RX_SLOTS[,TX_RINGS[,RX_RINGS]]]
    #[arg(short = 'C', value_name = "CONFIG", help_heading = PORT)]
    pub port_config: Option<String>,

    /// Frames to send or receive, pings to send or answer; 0 is no limit
    #[arg(short = 'n', long = "count", value_name = "COUNT", value_parser = parse_count, default_value = "0", hide_default_value = true, help_heading = RUN)]
    pub count: u64,
    /// Frames per batch [default: 512; 1 for ping]
    #[arg(short = 'b', long = "burst", value_name = "BURST", value_parser = clap::value_parser!(u32).range(1..=65536), help_heading = RUN)]
    pub burst: Option<u32>,
    /// Frames per second over all threads: 1500, 10k, 1.5M [default: no limit]
    #[arg(short = 'R', long = "rate", value_name = "PPS", value_parser = parse_count, help_heading = RUN)]
    pub rate: Option<u64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, help_heading = RUN)]
    pub time: Option<Duration>,
    /// rx: stop after so many seconds without a frame, also before the first one
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, help_heading = RUN)]
    pub idle: Option<Duration>,
    /// rx: stop after one second without a frame; the first may take ten
    #[arg(short = 'W', help_heading = RUN)]
    pub exit_when_idle: bool,

    /// Frame length without CRC [default: 60]; twice for random lengths between the two
    #[arg(short = 'l', long = "length", value_name = "SIZE", action = ArgAction::Append, conflicts_with = "sizes", help_heading = FRAMES)]
    pub length: Vec<usize>,
    /// Random frame lengths
    #[arg(long, value_name = "MIN..MAX", value_parser = Sizes::parse, help_heading = FRAMES)]
    pub sizes: Option<Sizes>,
    /// IPv4 (default unless an address says otherwise)
    #[arg(short = '4', conflicts_with = "ipv6", help_heading = FRAMES)]
    pub ipv4: bool,
    /// IPv6; addresses default to fd00::1 and fd00:1::1
    #[arg(short = '6', help_heading = FRAMES)]
    pub ipv6: bool,
    /// Source, single or a range: IP[:PORT][-IP[:PORT]] [default: 10.0.0.1:1234]
    #[arg(short = 's', value_name = "RANGE", value_parser = Range::parse, help_heading = FRAMES)]
    pub src: Option<Range>,
    /// Destination, single or a range [default: 10.1.0.1:1234]
    #[arg(short = 'd', value_name = "RANGE", value_parser = Range::parse, help_heading = FRAMES)]
    pub dst: Option<Range>,
    /// Source MAC address [default: that of the port]
    #[arg(short = 'S', value_name = "MAC", value_parser = parse_mac, help_heading = FRAMES)]
    pub src_mac: Option<Mac>,
    /// Destination MAC address [default: ff:ff:ff:ff:ff:ff]
    #[arg(short = 'D', value_name = "MAC", value_parser = parse_mac, help_heading = FRAMES)]
    pub dst_mac: Option<Mac>,
    /// Random source addresses and ports
    #[arg(short = 'z', help_heading = FRAMES)]
    pub random_src: bool,
    /// Random destination addresses and ports
    #[arg(short = 'Z', help_heading = FRAMES)]
    pub random_dst: bool,
    /// Send the first packet of a pcap file
    #[arg(short = 'P', value_name = "FILE", conflicts_with_all = ["length", "sizes", "src", "dst", "src_mac", "dst_mac", "random_src", "random_dst", "verify", "rubbish"], help_heading = FRAMES)]
    pub pcap: Option<PathBuf>,
    /// Send whatever the buffers hold
    #[arg(short = 'r', conflicts_with = "verify", help_heading = FRAMES)]
    pub rubbish: bool,
    /// Slots per packet, for NS_MOREFRAG
    #[arg(short = 'F', value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=63), default_value = "1", hide_default_value = true, help_heading = FRAMES)]
    pub fragments: u32,
    /// Most bytes per slot [default: the buffer size]
    #[arg(short = 'M', value_name = "SIZE", value_parser = clap::value_parser!(u32).range(1..), help_heading = FRAMES)]
    pub fragment_size: Option<u32>,
    /// Indirect buffers: not supported
    #[arg(short = 'I', help_heading = FRAMES)]
    pub indirect: bool,
    /// Length of a virtio-net header: only 0 is supported
    #[arg(short = 'H', value_name = "LEN", default_value = "0", hide_default_value = true, help_heading = FRAMES)]
    pub vnet_header: u32,
    /// Numbered test frames: tx fills them, rx checks order, length and every byte
    #[arg(long, help_heading = FRAMES)]
    pub verify: bool,
    /// Sum of option bits; see --help
    #[arg(short = 'o', value_name = "BITS", default_value = "0", hide_default_value = true, help_heading = FRAMES)]
    pub bits: u32,

    /// Threads, one ring each [default: one thread for all rings]
    #[arg(short = 'p', long = "threads", value_name = "THREADS", value_parser = clap::value_parser!(u32).range(1..=1024), default_value = "1", hide_default_value = true, help_heading = THREADS)]
    pub threads: u32,
    /// CPU of the first thread; the others take the next ones
    #[arg(short = 'a', long = "affinity", value_name = "CPU", help_heading = THREADS)]
    pub affinity: Option<usize>,
    /// CPUs to use with -a: 0 to COUNT-1 [default, and 0: all]
    #[arg(short = 'c', long = "cpus", value_name = "COUNT", default_value = "0", hide_default_value = true, help_heading = THREADS)]
    pub cpus: usize,

    /// Milliseconds between reports [default: 1000]
    #[arg(short = 'T', value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=3_600_000), default_value = "1000", hide_default_value = true, help_heading = REPORT)]
    pub report_ms: u64,
    /// Raw numbers: pps and bps instead of Mpps, Kbps and the like
    #[arg(short = 'N', help_heading = REPORT)]
    pub raw_numbers: bool,
    /// Count CRC, preamble and gap (24 bytes per frame) in the bandwidth
    #[arg(short = 'B', help_heading = REPORT)]
    pub framing: bool,
    /// Mean and deviation of the rate over the last reports
    #[arg(short = 'A', help_heading = REPORT)]
    pub rate_stats: bool,
    /// Dump each frame in hexadecimal
    #[arg(short = 'X', help_heading = REPORT)]
    pub dump: bool,
    /// One line with the result on stdout, for scripts; all else on stderr
    #[arg(long, help_heading = REPORT)]
    pub machine: bool,
    /// Say more; may be repeated
    #[arg(short = 'v', action = ArgAction::Count, help_heading = REPORT)]
    pub verbose: u8,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("pkt-gen").chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn the_usual_command_lines_are_understood() {
        let o =
            parse("-i netmap:eth0-1/x -f tx -n 10M -l 1514 -l 60 -b 256 -R 1.5M -p 2 -c 2 -a 1 -w 4 -T 500").unwrap();
        assert_eq!((o.interface.as_str(), o.function), ("netmap:eth0-1/x", Function::Tx));
        assert_eq!((o.count, o.burst, o.rate), (10_000_000, Some(256), Some(1_500_000)));
        assert_eq!(o.length, [1514, 60]);
        assert_eq!((o.threads, o.cpus, o.affinity), (2, 2, Some(1)));
        assert_eq!((o.wait_link, o.report_ms), (Some(Duration::from_secs(4)), 500));
        let o = parse("-i vale0:a -4zZNXBrvvAW -f rx -o 12 -H 0").unwrap();
        assert!(o.ipv4 && o.random_src && o.random_dst && o.raw_numbers && o.dump && o.framing && o.rubbish);
        assert!(o.rate_stats && o.exit_when_idle);
        assert_eq!((o.verbose, o.bits), (2, 12));
        let o =
            parse("-i e -f ping -d 10.1.0.1:5-10.1.0.2:6 -s [fd00::1]:9 -D ff:ff:ff:ff:ff:ff -S 2:0:0:0:0:1").unwrap();
        assert_eq!(o.dst.unwrap().last.port, 6);
        assert_eq!(o.src_mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(parse("-i e").unwrap().function, Function::Rx);
        assert_eq!(parse("-i e --verify --sizes 60..1514 --idle 0.5 --time 3").unwrap().idle.unwrap().as_millis(), 500);
    }

    #[test]
    fn wrong_usage_is_exit_status_2_and_says_what_is_wrong() {
        for (line, words) in [
            ("", "--interface"),
            ("-i e -f txseq", "[possible values: tx, rx, ping, pong]"),
            ("-i e -n many", "10k"),
            ("-i e --verfy", "--verify"),
            ("-i e -4 -6", "cannot be used with"),
            ("-i e -l 60 --sizes 60..64", "cannot be used with"),
            ("-i e -P f -l 60", "cannot be used with"),
            ("-i e -F 64", "1..=63"),
            ("-i e -p 0", "1..=1024"),
            ("-i e -d host", "[fd00::1]:1234"),
            ("-i e -D 1:2", "aa:bb:cc:dd:ee:ff"),
            ("-i e -E 5", "-E"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(words), "{line}: {error}");
        }
    }
}
