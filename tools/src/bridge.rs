//! The program bridge: moves packets both ways between two ports, in one thread.
//!
//! RX ring `i` of a port feeds TX ring `i` (modulo their number) of the other, so packets of one ring keep their order.
//! A packet that does not fit stays where it is: its ring asks to be woken only for more, and the wait also covers room
//! on the other side. Other rings go on meanwhile.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser};
use netmap_xdp::api::{Interest, Port, wait_many};

use crate::forward::{How, Moved, Mover, Rest};
use crate::open::{self, Wishes};
use crate::ping::Reflector;
use crate::rx::Run;
use crate::signal;
use crate::stats::{Counters, Drops};
use crate::units::parse_seconds;

/// How long one wait may take, so that Ctrl-C is noticed.
const SLICE: Duration = Duration::from_millis(250);

/// Moves packets both ways between two netmap ports.
///
/// NICs should be promiscuous (`ip link set IF promisc on`), and offloads that merge or split packets should be off.
#[derive(Debug, Parser)]
#[command(
    name = "bridge",
    version,
    about,
    after_help = "Examples:\n  bridge -i eth1 -i eth2\n  bridge -i eth1 -i eth1^    eth1 and its own host stack\n\nExit status: 0 done, 1 failed, 2 wrong usage."
)]
struct Options {
    /// A port; given twice. A NIC alone is bridged with its own host stack
    #[arg(short = 'i', value_name = "PORT", action = ArgAction::Append, required = true)]
    ports: Vec<String>,
    /// Most packets per ring and round
    #[arg(short = 'b', value_name = "BURST", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=8192))]
    burst: u32,
    /// Copy packets even if the ports share memory
    #[arg(short = 'c')]
    copy: bool,
    /// Wait at most so many seconds for the links [default: 2; 0 on VALE ports and pipes]
    #[arg(short = 'w', value_name = "SECONDS", value_parser = parse_seconds)]
    wait_link: Option<Duration>,
    /// With one port: send its packets back out of it instead of to its host rings
    #[arg(short = 'L')]
    loopback: bool,
    /// Say more; may be repeated
    #[arg(short = 'v', action = ArgAction::Count)]
    verbose: u8,
}

/// Which ports to open.
#[derive(Debug, PartialEq, Eq)]
enum Ends {
    Two(String, String),
    /// Back out of the same port.
    Loop(String),
}

fn ends(o: &Options) -> Result<Ends, String> {
    let names = o.ports.iter().map(|p| open::port_name(p)).collect::<Result<Vec<_>, _>>()?;
    let (a, b) = match &names[..] {
        [a] => (a, a),
        [a, b] => (a, b),
        _ => return Err("a bridge has two ports; give -i twice".into()),
    };
    match (a == b, o.loopback) {
        (true, true) => Ok(Ends::Loop(a.clone())),
        (true, false) => open::host_name(a).map(|host| Ends::Two(a.clone(), host)),
        (false, true) => Err("-L sends packets back out of one port; give -i once, or leave out -L".into()),
        (false, false) => Ok(Ends::Two(a.clone(), b.clone())),
    }
}

/// Runs bridge with the arguments of the process.
pub fn main() -> ExitCode {
    let options = Options::parse();
    let ends = match ends(&options) {
        Ok(ends) => ends,
        Err(why) => Options::command().error(ErrorKind::ValueValidation, why).exit(),
    };
    let result = signal::install().and_then(|()| match ends {
        Ends::Two(a, b) => two(&options, &a, &b),
        Ends::Loop(name) => back(&options, &name),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bridge: {why}");
            ExitCode::from(1)
        }
    }
}

fn open_ready(o: &Options, names: &[&str]) -> Result<Vec<Port>, String> {
    let ports = names.iter().map(|n| open::open(n, Wishes::default())).collect::<Result<Vec<_>, _>>()?;
    for port in &ports {
        if port.tx_count() == 0 || port.rx_count() == 0 {
            return Err(format!("{} has no TX or no RX ring bound; a bridge needs both", port.name()));
        }
    }
    let most = o.wait_link.or_else(|| names.iter().map(|n| open::default_link_wait(n)).max()).unwrap_or_default();
    if !open::wait_for_link(&ports.iter().collect::<Vec<_>>(), most) && !signal::stopped() {
        eprintln!("a link is still down; going on all the same");
    }
    if o.verbose > 0 {
        for port in &ports {
            eprintln!(
                "{}: {}, {} TX and {} RX rings, memory id {}, buffers of {} bytes",
                port.name(),
                port.mode(),
                port.tx_count(),
                port.rx_count(),
                port.mem_id(),
                port.buf_size()
            );
        }
    }
    Ok(ports)
}

/// One direction: from whom to whom is the caller's.
struct Way {
    mover: Mover,
    burst: u64,
    total: Moved,
}

impl Way {
    /// Moves what there is. True if a packet waits for room at the other side.
    fn run(&mut self, from: &mut Port, to: &mut Port) -> Result<bool, String> {
        let (rx_rings, tx_rings) = (from.rx_count(), to.tx_count());
        let mut blocked = false;
        for i in 0..rx_rings {
            let (mut rx, mut tx) = (from.rx(i), to.tx(i % tx_rings));
            if rx.available() == 0 {
                continue;
            }
            let moved = match self.mover.run(&mut rx, &mut tx, self.burst, |_| {}) {
                Ok(moved) => moved,
                Err(e) if self.mover.how == How::Swap => {
                    eprintln!("buffers cannot be exchanged ({e}); copying from now on");
                    self.mover.how = How::Copy;
                    continue;
                }
                Err(e) => return Err(e.to_string()),
            };
            if moved.rest != Rest::None {
                rx.want_more();
            }
            blocked |= moved.rest == Rest::NoRoom;
            self.total += moved;
        }
        if blocked {
            // Only more room than there is now is worth waking up for.
            (0..tx_rings).for_each(|i| to.tx(i).want_more());
        }
        Ok(blocked)
    }

    fn summary(&self, from: &str, to: &str, seconds: f64) -> String {
        let Moved { frames, bytes, dropped, .. } = self.total;
        let rate = frames as f64 / seconds.max(1e-6);
        let long = if dropped > 0 { format!(", {dropped} too long to be moved") } else { String::new() };
        format!("{from} -> {to}: {frames} packets {bytes} bytes, {rate:.0} pps{long}")
    }
}

fn two(o: &Options, a: &str, b: &str) -> Result<(), String> {
    let mut ports = open_ready(o, &[a, b])?;
    let (left, right) = ports.split_at_mut(1);
    let (a, b) = (&mut left[0], &mut right[0]);
    let how = match (o.copy, a.mem_id() == b.mem_id()) {
        (true, _) => How::Copy,
        (false, true) => How::Swap,
        (false, false) => {
            eprintln!("the ports have no memory in common ({} and {}): packets are copied", a.mem_id(), b.mem_id());
            How::Copy
        }
    };
    let names = [a.name().to_string(), b.name().to_string()];
    eprintln!("{} <-> {}: {}", names[0], names[1], if how == How::Swap { "zero copy" } else { "copy" });
    let burst = u64::from(o.burst);
    let way = || Way { mover: Mover::new(how), burst, total: Moved::default() };
    let (mut there, mut back) = (way(), way());
    let start = Instant::now();
    let mut report = start;
    let result = loop {
        if signal::stopped() {
            break Ok(());
        }
        match step(a, b, &mut there, &mut back) {
            Ok(()) => {}
            Err(e) => break Err(e),
        }
        if o.verbose > 1 && report.elapsed() >= Duration::from_secs(1) {
            report = Instant::now();
            let seconds = start.elapsed().as_secs_f64();
            eprintln!("{}", there.summary(&names[0], &names[1], seconds));
            eprintln!("{}", back.summary(&names[1], &names[0], seconds));
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    println!("{}", there.summary(&names[0], &names[1], seconds));
    println!("{}", back.summary(&names[1], &names[0], seconds));
    for port in [&*a, &*b] {
        let mut drops = Drops::default();
        drops.add(port.drops());
        if !drops.is_empty() {
            println!("{}: {drops}", port.name());
        }
    }
    result
}

/// Moves both ways once, then waits for more input, and for room where it ran out. The wait syncs both ports.
fn step(a: &mut Port, b: &mut Port, there: &mut Way, back: &mut Way) -> Result<(), String> {
    let b_full = there.run(a, b)?;
    let a_full = back.run(b, a)?;
    let want = |full| Interest { read: true, write: full };
    match wait_many(&mut [(&mut *a, want(a_full)), (&mut *b, want(b_full))], Some(SLICE)) {
        Ok(ready) => {
            for (port, ready) in [&*a, &*b].into_iter().zip(ready) {
                if ready.error {
                    return Err(format!("{}: the port is in error; did the interface vanish or go down?", port.name()));
                }
            }
            Ok(())
        }
        Err(e) if signal::interrupted(&e) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

fn back(o: &Options, name: &str) -> Result<(), String> {
    let mut ports = open_ready(o, &[name])?;
    let port = &mut ports[0];
    eprintln!("{}: packets go back out of the same port", port.name());
    let counters = Counters::default();
    let run = Run { counters: &counters, deadline: None, dump: false, quiet_stdout: false };
    let how = if o.copy { How::Copy } else { How::Swap };
    let done = Reflector { run, burst: u64::from(o.burst), turn: false, how }.run(port, None)?;
    let total = Moved { frames: done.frames, bytes: counters.sample().bytes, dropped: done.dropped, rest: Rest::None };
    let way = Way { mover: Mover::new(how), burst: 1, total };
    println!("{}", way.summary(port.name(), port.name(), done.span.as_secs_f64()));
    let mut drops = Drops::default();
    drops.add(port.drops());
    println!("{drops}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Ends, String> {
        let args = std::iter::once("bridge").chain(line.split_whitespace());
        ends(&Options::try_parse_from(args).map_err(|e| e.to_string())?)
    }

    #[test]
    fn the_command_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn two_ports_are_bridged() {
        let two = Ends::Two("netmap:eth0".into(), "vale0:x".into());
        assert_eq!(parse("-i eth0 -i vale0:x -b 64 -w 1 -c -v"), Ok(two));
    }

    #[test]
    fn one_port_is_bridged_with_its_host_rings() {
        let host = Ends::Two("netmap:eth0".into(), "netmap:eth0^".into());
        for line in ["-i eth0", "-i eth0 -i eth0", "-i eth0 -i netmap:eth0", "-i eth0 -i eth0^"] {
            assert_eq!(parse(line).as_ref(), Ok(&host), "{line}");
        }
        assert!(parse("-i eth0^").unwrap_err().contains("second -i"));
        assert!(parse("-i vale0:x").unwrap_err().contains("second -i"));
    }

    #[test]
    fn loopback_takes_one_port() {
        assert_eq!(parse("-L -i eth0"), Ok(Ends::Loop("netmap:eth0".into())));
        assert_eq!(parse("-L -i eth0 -i eth0"), Ok(Ends::Loop("netmap:eth0".into())));
        assert!(parse("-L -i eth0 -i eth1").unwrap_err().contains("-L"));
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in ["", "-i a -i b -i c", "-i a -i b -b 0", "-i a -i b -x", "-i tap:x -i b"] {
            assert!(parse(line).is_err(), "{line} was accepted");
        }
    }
}
