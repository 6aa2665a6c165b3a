//! A contender of the `nic` benchmark: one loop in a process of its own, on one processor. The C contender,
//! `benches/c/nm-loops.c`, does the same; both print one line that [`nic`](crate::nic) reads.

use crate::bare;
use crate::machine::{cpu_time, now, pin};
use clap::{Args, ValueEnum};
use netmap_xdp::api::{Builder, Error, Interest, Port};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

/// Packets between two calls of the kernel or of a sync.
pub const BATCH: u32 = 64;
/// What is sent: to everybody, of an EtherType for experiments, 60 bytes.
pub const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    let header = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    let mut i = 0;
    while i < header.len() {
        frame[i] = header[i];
        i += 1;
    }
    frame
};
/// Runs before the measurement begins.
const WARM_UP: Duration = Duration::from_millis(100);

/// What to do.
#[derive(Args, Clone, Debug)]
pub struct Job {
    pub kind: Kind,
    pub how: How,
    /// The device; to forward, FROM,TO
    pub dev: String,
    #[arg(long)]
    pub core: usize,
    /// Milliseconds of measurement
    #[arg(long)]
    pub window: u64,
    /// Packets per second, for a bare transmitter; it then only feeds others
    #[arg(long)]
    pub rate: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Tx,
    Rx,
    Forward,
    /// A bare transmitter for others
    Feed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum How {
    Bare,
    Api,
}

/// Counts packets, and says when a loop ends. A loop asks once per batch.
pub struct Meter {
    /// Packets so far.
    pub packets: u64,
    window: u64,
    /// At the start of the measurement: time, processor time, packets.
    start: Option<[u64; 3]>,
    warm: u64,
    /// At its end, the differences.
    result: [u64; 3],
    seen: u64,
}

impl Meter {
    fn new(window: Duration) -> Meter {
        let warm = now() + WARM_UP.as_nanos() as u64;
        Meter { packets: 0, window: window.as_nanos() as u64, start: None, warm, result: [0; 3], seen: 0 }
    }

    /// Whether the loop is to go on.
    #[inline]
    pub fn goes_on(&mut self) -> bool {
        let t = now();
        match self.start {
            None if t >= self.warm => self.start = Some([t, cpu_time(), self.packets]),
            Some([start, cpu, packets]) if t >= start + self.window => {
                self.result = [t - start, cpu_time() - cpu, self.packets - packets];
                return false;
            }
            _ => {}
        }
        true
    }

    /// A packet's first bytes.
    #[inline]
    pub fn look(&mut self, bytes: u64) {
        self.seen ^= bytes;
    }
}

/// Does it.
pub fn run(job: &Job) -> ExitCode {
    pin(job.core);
    let mut meter = Meter::new(Duration::from_millis(job.window));
    let mut mode = bare::mode().to_string();
    let (from, to) = job.dev.split_once(',').unwrap_or((&job.dev, ""));
    // A bare loop panics if something fails.
    match (job.how, job.kind) {
        (_, Kind::Feed) => bare::transmit(from, &mut meter, job.rate, false),
        (How::Bare, Kind::Tx) => bare::transmit(from, &mut meter, job.rate, true),
        (How::Bare, Kind::Rx) => bare::receive(from, &mut meter),
        (How::Bare, Kind::Forward) => bare::forward(from, to, &mut meter),
        (How::Api, kind) => match by_api(kind, from, to, &mut meter) {
            Ok(m) => mode = m,
            Err(e) => {
                eprintln!("{e}");
                return ExitCode::FAILURE;
            }
        },
    }
    black_box(meter.seen);
    let [ns, cpu, packets] = meter.result;
    println!("packets={packets} ns={ns} cpu={cpu} mode={mode}");
    ExitCode::SUCCESS
}

/// By the Rust API; returns the mode.
fn by_api(kind: Kind, from: &str, to: &str, meter: &mut Meter) -> Result<String, Error> {
    match kind {
        Kind::Tx | Kind::Feed => transmit(from, meter),
        Kind::Rx => receive(from, meter),
        Kind::Forward => forward(from, to, meter),
    }
}

fn open(dev: &str) -> Result<Port, Error> {
    Builder::new(&format!("netmap:{dev}")).open()
}

fn transmit(dev: &str, meter: &mut Meter) -> Result<String, Error> {
    let mut port = open(dev)?;
    // As netmap programs do that send the same again and again: every buffer is filled once.
    let mut fresh = port.tx(0).num_slots();
    while meter.goes_on() {
        let mut tx = port.tx(0);
        let n = tx.space().min(BATCH);
        for slot in (0..n).filter_map(|i| tx.slot(i)) {
            if fresh > 0 {
                slot.write_at(0, &FRAME);
                fresh -= 1;
            }
            slot.set_len(FRAME.len());
            slot.set_flags(0);
        }
        tx.advance(n);
        drop(tx);
        meter.packets += u64::from(n);
        if n > 0 {
            port.sync_tx()?;
        } else {
            port.wait(Interest::WRITE, Some(Duration::from_millis(1)))?;
        }
    }
    Ok(port.mode())
}

fn receive(dev: &str, meter: &mut Meter) -> Result<String, Error> {
    let mut port = open(dev)?;
    while meter.goes_on() {
        port.wait(Interest::READ, Some(Duration::from_millis(100)))?;
        let mut rx = port.rx(0);
        let n = rx.available().min(BATCH);
        for slot in (0..n).filter_map(|i| rx.slot(i)) {
            let mut first = [0; 8];
            slot.read_at(0, &mut first);
            meter.look(u64::from_ne_bytes(first));
        }
        rx.release(n);
        meter.packets += u64::from(n);
    }
    Ok(port.mode())
}

fn forward(from: &str, to: &str, meter: &mut Meter) -> Result<String, Error> {
    let (mut a, mut b) = (open(from)?, open(to)?);
    while meter.goes_on() {
        a.sync_rx()?;
        let (mut rx, mut tx) = (a.rx(0), b.tx(0));
        let waiting = rx.available();
        let n = waiting.min(tx.space()).min(BATCH);
        for i in 0..n {
            if let (Some(from), Some(to)) = (rx.slot(i), tx.slot(i)) {
                from.swap_into(&to)?;
            }
        }
        rx.release(n);
        tx.advance(n);
        drop((rx, tx));
        meter.packets += u64::from(n);
        if n > 0 {
            b.sync_tx()?;
        } else if waiting == 0 {
            a.wait(Interest::READ, Some(Duration::from_millis(1)))?;
        } else {
            b.wait(Interest::WRITE, Some(Duration::from_millis(1)))?;
        }
    }
    Ok(a.mode())
}
