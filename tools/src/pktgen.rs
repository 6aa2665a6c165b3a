//! The program pkt-gen: from options to threads to a summary and an exit status.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use netmap_xdp::api::Port;

use crate::config::{self, Config, Contents};
use crate::forward::How;
use crate::frame::{ETHER, UdpFrame, show_mac};
use crate::open::{self, Side, Wishes};
use crate::options::{Function, Options};
use crate::pacing::Pacer;
use crate::pattern::Verifier;
use crate::ping::{Pinger, Reflector, Times};
use crate::rx::{End, Receiver, Run};
use crate::sizes::Rng;
use crate::source::{Fragments, MOST_FRAGMENTS, Source};
use crate::stats::{Counters, Drops, Sample, Style, report_until};
use crate::tx::Sender;
use crate::{cpu, pattern, pcap, signal};

const FAILED: u8 = 1;

/// Runs pkt-gen with the arguments of the process.
pub fn main() -> ExitCode {
    let options = Options::parse();
    let packet = match &options.pcap {
        None => None,
        Some(path) => match std::fs::read(path).map_err(|e| e.to_string()).and_then(|f| pcap::first_packet(&f)) {
            Ok(packet) => Some(packet),
            Err(why) => return fail(&format!("-P {}: {why}", path.display())),
        },
    };
    let config = match config::check(options, packet, &cpu::allowed()) {
        Ok(config) => config,
        Err(why) => Options::command().error(ErrorKind::ValueValidation, why).exit(),
    };
    match run(&config) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(why) => fail(&why),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("pkt-gen: {why}");
    ExitCode::from(FAILED)
}

/// What one thread hands back.
struct Outcome {
    end: End,
    span: Duration,
    drops: Drops,
    what: What,
}

/// What it did.
enum What {
    Sent { left: u64 },
    Received { times: Option<(Instant, Instant)>, verified: Option<(pattern::Tally, Option<String>)> },
    Pinged { sent: u64, times: Times },
    Answered { dropped: u64 },
}

/// Opens, runs and sums up; false if something was not as it should be.
fn run(config: &Config) -> Result<bool, String> {
    signal::install()?;
    let side = if config.function == Function::Tx { Side::Tx } else { Side::Rx };
    let wishes = Wishes { slots: config.slots, receive_only: config.function == Function::Rx };
    let mut ports = open::open_for_threads(&config.port, config.threads, side, wishes)?;
    if !open::wait_for_link(&ports.iter().collect::<Vec<_>>(), config.wait_link) && !signal::stopped() {
        eprintln!("{}: the link is still down; going on all the same", ports[0].name());
    }
    let plans = ports.iter_mut().enumerate().map(|(i, p)| plan(config, p, i)).collect::<Result<Vec<_>, _>>()?;
    introduce(config, &ports[0]);

    let style = Style { normalise: config.normalise, framing: config.framing, rate_stats: config.rate_stats };
    let counters: Vec<Counters> = ports.iter().map(|_| Counters::default()).collect();
    let (claimed, running) = (AtomicU64::new(0), AtomicUsize::new(ports.len()));
    let deadline = config.time.map(|t| Instant::now() + t);
    let outcomes = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (i, (port, plan)) in ports.iter_mut().zip(plans).enumerate() {
            let run = Run { counters: &counters[i], deadline, dump: config.dump, quiet_stdout: config.quiet_stdout() };
            let (claimed, running) = (&claimed, &running);
            threads.push(scope.spawn(move || {
                let _done = Leaving(running);
                if let Some(cpus) = &config.cpus {
                    cpu::pin(cpus[i])?;
                }
                work(config, port, plan, run, i, claimed)
            }));
        }
        if config.function == Function::Ping {
            // It reports by itself, with times.
        } else {
            report_until(|| running.load(Ordering::Acquire) == 0, &counters, config.report, style);
        }
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect::<Vec<_>>()
    });
    let mut done = Vec::new();
    let mut fine = true;
    for (i, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(outcome) => done.push(outcome),
            Err(why) => {
                eprintln!("pkt-gen: thread {i}: {why}");
                fine = false;
            }
        }
    }
    let total = counters.iter().map(Counters::sample).fold(Sample::default(), Sample::plus);
    Ok(conclude(config, &done, total, style) && fine)
}

/// Counts a thread as ended, also when it panics.
struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// What a thread sends, made before any thread starts, so that mistakes are reported first.
enum Plan {
    Send { source: Source, fragments: Fragments },
    Ping(UdpFrame),
    Nothing,
}

fn plan(config: &Config, port: &mut Port, thread: usize) -> Result<Plan, String> {
    if !matches!(config.function, Function::Tx | Function::Ping) {
        return Ok(Plan::Nothing);
    }
    let longest = config.sizes.max;
    if let Some(mtu) = port.mtu().filter(|&mtu| longest > mtu as usize + ETHER) {
        let name = port.name();
        return Err(format!(
            "frames of {longest} bytes exceed the MTU of {name}, {mtu} and {ETHER} bytes of header; use a smaller -l, or \
             `ip link set {name} mtu {}`",
            longest - ETHER
        ));
    }
    let fragments =
        Fragments { count: config.fragments, most: port.buf_size().min(config.fragment_size.unwrap_or(usize::MAX)) };
    let slots = fragments.cut(longest).slots;
    let room = (0..port.tx_count()).map(|i| port.tx(i).num_slots() as usize - 1).min().unwrap_or(usize::MAX);
    if slots > MOST_FRAGMENTS.min(room) {
        return Err(format!(
            "a frame of {longest} bytes takes {slots} slots of {} bytes, and a packet has at most {}; raise -M or lower -l",
            fragments.most,
            MOST_FRAGMENTS.min(room)
        ));
    }
    let src_mac = match config.src_mac.or_else(|| port.mac()) {
        Some(mac) => mac,
        // VALE ports and pipes have no address; a locally administered one serves.
        None => [2, 0, 0, 0, 0, thread as u8],
    };
    let seed = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_nanos() as u64);
    let rng = Rng::new(seed.wrapping_add(thread as u64));
    let udp = || UdpFrame::new(src_mac, config.dst_mac, config.flows.current(), longest);
    if config.function == Function::Ping {
        if longest > port.buf_size() {
            return Err(format!("a ping has one slot, here {} bytes; use a smaller -l", port.buf_size()));
        }
        return Ok(Plan::Ping(udp()));
    }
    let source = match &config.contents {
        Contents::Udp => Source::udp(udp(), config.flows.clone(), config.sizes, rng),
        Contents::Pattern => Source::pattern(config.sizes),
        Contents::Rubbish => Source::rubbish(config.sizes, rng),
        Contents::Packet(bytes) => Source::Fixed(bytes.clone()),
    };
    Ok(Plan::Send { source, fragments })
}

/// The share of thread `i` of a number for all.
fn share(total: u64, threads: usize, i: usize) -> u64 {
    let (threads, i) = (threads.max(1) as u64, i as u64);
    total / threads + u64::from(i < total % threads)
}

fn work(
    config: &Config,
    port: &mut Port,
    plan: Plan,
    run: Run<'_>,
    thread: usize,
    claimed: &AtomicU64,
) -> Result<Outcome, String> {
    let burst = config.burst;
    let pacer = config.rate.map(|r| Pacer::new(share(r, config.threads, thread), burst));
    let (end, span, what) = match (config.function, plan) {
        (_, Plan::Send { source, fragments }) => {
            let one_ring = config.verify;
            let sender = Sender { run, source, fragments, refill: config.refill, burst, pacer, one_ring };
            let sent = sender.run(port, config.count.map(|n| share(n, config.threads, thread)))?;
            (sent.end, sent.span, What::Sent { left: sent.left })
        }
        (_, Plan::Ping(frame)) => {
            let pinger = Pinger { run, frame, burst, pacer, report: config.report };
            let pinged = pinger.run(port, config.count)?;
            (pinged.end, pinged.span, What::Pinged { sent: pinged.sent, times: pinged.times })
        }
        (Function::Pong, Plan::Nothing) => {
            let reflected = Reflector { run, burst, turn: true, how: How::Swap }.run(port, config.count)?;
            (reflected.end, reflected.span, What::Answered { dropped: reflected.dropped })
        }
        (_, Plan::Nothing) => {
            let verifier = config.verify.then(Verifier::new);
            let receiver = Receiver { run, burst, idle: config.idle, count: config.count, claimed, verifier };
            let received = receiver.run(port)?;
            let span = received.times.map_or(Duration::ZERO, |(first, last)| last - first);
            (received.end, span, What::Received { times: received.times, verified: received.verified })
        }
    };
    let mut drops = Drops::default();
    drops.add(port.drops());
    Ok(Outcome { end, span, drops, what })
}

fn introduce(config: &Config, port: &Port) {
    let (verb, rings) = match config.function {
        Function::Tx => ("Sending on", port.nic_tx_rings()),
        Function::Rx => ("Receiving from", port.nic_rx_rings()),
        Function::Ping => ("Pinging on", port.nic_tx_rings()),
        Function::Pong => ("Answering on", port.nic_rx_rings()),
    };
    eprintln!("{verb} {}: {rings} queues, {} threads, {}.", config.port, config.threads, port.mode());
    let udp = config.contents == Contents::Udp;
    if udp && matches!(config.function, Function::Tx | Function::Ping) {
        let mac = config.src_mac.or_else(|| port.mac()).map_or("own".into(), |m| show_mac(&m));
        let flow = config.flows.current();
        eprintln!("{} -> {} ({mac} -> {})", flow.src, flow.dst, show_mac(&config.dst_mac));
    }
    if config.verbose > 0 {
        eprintln!(
            "memory id {}, buffers of {} bytes, {} TX and {} RX rings bound, MTU {:?}, batches of {}",
            port.mem_id(),
            port.buf_size(),
            port.tx_count(),
            port.rx_count(),
            port.mtu(),
            config.burst
        );
    }
}

/// Prints the summary and the result line; false if the run counts as failed.
fn conclude(config: &Config, done: &[Outcome], total: Sample, style: Style) -> bool {
    let to_stderr = config.quiet_stdout();
    let say = |text: &str| signal::print(&(text.to_string() + "\n"), to_stderr);
    let mut drops = Drops::default();
    done.iter().for_each(|o| drops.merge(&o.drops));
    let mut span = done.iter().map(|o| o.span).max().unwrap_or_default();
    let reached = done.iter().all(|o| matches!(o.end, End::Count | End::Interrupted));
    let mut fine = config.count.is_none() || reached;
    let mut line = None;
    let speed = |span: Duration, drops: &Drops| {
        let seconds = span.as_secs_f64();
        let mpps = if seconds > 0.0 { total.frames as f64 / seconds / 1e6 } else { 0.0 };
        format!("seconds={seconds:.6} mpps={mpps:.6} drops={}", drops.machine())
    };
    match config.function {
        Function::Tx => {
            say(&style.summary("Sent", &total, span));
            let left: u64 = done.iter().map(|o| if let What::Sent { left } = o.what { left } else { 0 }).sum();
            if left > 0 {
                eprintln!(
                    "{left} slots had not left when the wait for them ended: is the link up, does the peer read?"
                );
                fine &= done.iter().any(|o| o.end == End::Interrupted);
            }
            line = Some(format!("sent={} {}", total.frames, speed(span, &drops)));
        }
        Function::Rx => {
            let times = done.iter().filter_map(|o| match o.what {
                What::Received { times, .. } => times,
                _ => None,
            });
            let ends = times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
            span = ends.map_or(Duration::ZERO, |(first, last)| last - first);
            say(&style.summary("Received", &total, span));
            line = Some(format!("received={} {}", total.frames, speed(span, &drops)));
        }
        Function::Ping => {
            for outcome in done {
                let What::Pinged { sent, times } = &outcome.what else { continue };
                let (got, lost) = (times.len(), sent.saturating_sub(times.len()));
                say(&format!("{sent} pings, {got} answers, {lost} lost in {:.2} seconds.", span.as_secs_f64()));
                if !times.is_empty() {
                    say(&format!("RTT: {}", times.text()));
                }
                fine &= got > 0 || *sent == 0;
                line = Some(format!(
                    "sent={sent} received={got} lost={lost} {} drops={}",
                    times.machine(),
                    drops.machine()
                ));
            }
        }
        Function::Pong => {
            say(&style.summary("Answered", &total, span));
            let dropped: u64 =
                done.iter().map(|o| if let What::Answered { dropped } = o.what { dropped } else { 0 }).sum();
            if dropped > 0 {
                say(&format!("{dropped} packets were too long to be sent back"));
            }
            line = Some(format!("answered={} {}", total.frames, speed(span, &drops)));
        }
    }
    say(&drops.to_string());
    for outcome in done {
        if let What::Received { verified: Some((tally, fault)), .. } = &outcome.what {
            if let Some(fault) = fault {
                eprintln!("first fault: {fault}");
            }
            line = Some(tally.to_string());
            fine = tally.is_clean() && tally.received >= config.count.unwrap_or(1);
        }
    }
    if let Some(line) = line.filter(|_| config.quiet_stdout()) {
        signal::print(&format!("{line}\n"), false);
    }
    fine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_whole() {
        for total in [0, 1, 7, 1000] {
            for threads in 1..5 {
                let shares: Vec<u64> = (0..threads).map(|i| share(total, threads, i)).collect();
                assert_eq!(shares.iter().sum::<u64>(), total);
                assert!(shares[0] - shares[threads - 1] <= 1);
            }
        }
    }
}
