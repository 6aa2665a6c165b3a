//! The two ends of a busy pair, for `pipe`, `vale` and `wakeup`: loops in processes of their own, one on each processor.
//!
//! They never sleep and never yield: a sender that finds no room, and a receiver that finds no packet, sync again. The C
//! contender, `benches/c/nm-pairs.c`, does the same as the functions here. The bare ones share a ring in a memfd that
//! knows one purpose: no validation, no lock, no sleepers, no other way to lay packets out.

use crate::machine::{cpu_time, now, pin};
use clap::{Args, ValueEnum};
use netmap_xdp::api::{Builder, Error, Interest, Port};
use netmap_xdp::shm::{Memory, Ref, Slice};
use netmap_xdp::sync::{AtomicU32, AtomicU64, Ordering::*};
use std::fs::File;
use std::hint::{black_box, spin_loop};
use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Slots of a netmap ring, by default, and entries of the bare one.
pub const SLOTS: u32 = 1024;
/// Bytes of a buffer.
const BUFFER: u64 = 2048;
/// Runs before the measurement begins.
const WARM_UP: u64 = 100_000_000;
/// Turns between two looks at the clock.
const TURNS: u32 = 16;
/// Where the entries of the bare ring begin, and its buffers: those of the sender, then those of the receiver.
const ENTRIES_AT: u64 = 4096;
const BUFFERS_AT: u64 = ENTRIES_AT + SLOTS as u64 * 16;
/// Bytes of the bare ring.
pub const SHARED: usize = BUFFERS_AT as usize + 2 * SLOTS as usize * BUFFER as usize;

/// What to do.
#[derive(Args, Clone, Debug)]
pub struct Job {
    pub end: End,
    pub how: How,
    /// A port; for a bare end, what both share
    pub port: String,
    #[arg(long)]
    pub core: usize,
    /// Milliseconds of measurement
    #[arg(long, default_value_t = 500)]
    pub window: u64,
    /// Bytes of a packet
    #[arg(long, default_value_t = 60)]
    pub len: u16,
    /// Packets of a turn at most
    #[arg(long, default_value_t = 256)]
    pub batch: u32,
    /// The receiver reads the first bytes of each packet
    #[arg(long)]
    pub look: bool,
    /// The bare sender copies packets, as a switch does
    #[arg(long)]
    pub copy: bool,
    /// Packets of a pair that sleeps
    #[arg(long, default_value_t = 1000)]
    pub count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum End {
    Tx,
    Rx,
    /// Sends a packet now and then, with the time in it
    Call,
    /// Sleeps until one comes, and prints how long it took
    Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum How {
    Bare,
    Api,
}

/// Does it.
pub fn run(job: &Job) -> ExitCode {
    pin(job.core);
    let done = match (job.how, job.end) {
        (How::Api, End::Tx) => transmit(job),
        (How::Api, End::Rx) => receive(job),
        (How::Api, End::Call) => call(job),
        (How::Api, End::Answer) => answer(job),
        (How::Bare, End::Tx) => Bare::open(job).transmit(job),
        (How::Bare, End::Rx) => Bare::open(job).receive(job),
        (How::Bare, End::Call) => call_bare(job),
        (How::Bare, End::Answer) => answer_bare(job),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Says when a loop ends, and prints what it did.
struct Meter {
    packets: u64,
    turns: u32,
    window: u64,
    warm: u64,
    /// At the start of the measurement: time, processor time, packets.
    start: Option<[u64; 3]>,
}

impl Meter {
    fn new(job: &Job) -> Meter {
        Meter { packets: 0, turns: 0, window: job.window * 1_000_000, warm: now() + WARM_UP, start: None }
    }

    /// Whether the loop is to go on; asked once a turn.
    #[inline]
    fn goes_on(&mut self) -> bool {
        self.turns += 1;
        !self.turns.is_multiple_of(TURNS) || self.look_at_clock()
    }

    #[inline(never)]
    fn look_at_clock(&mut self) -> bool {
        let t = now();
        match self.start {
            None if t >= self.warm => self.start = Some([t, cpu_time(), self.packets]),
            Some([start, cpu, packets]) if t >= start + self.window => {
                println!("packets={} ns={} cpu={}", self.packets - packets, t - start, cpu_time() - cpu);
                return false;
            }
            _ => {}
        }
        true
    }
}

/// Address of the sender of this bench, and of its receiver.
fn frame(len: u16, to: u8, from: u8) -> Vec<u8> {
    let mut frame = vec![0; usize::from(len)];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5]);
    frame
}

fn open(job: &Job) -> Result<Port, Error> {
    Builder::new(&job.port).open()
}

fn transmit(job: &Job) -> Result<(), Error> {
    let mut port = open(job)?;
    let frame = frame(job.len, 2, 1);
    let mut meter = Meter::new(job);
    // As netmap programs do that send the same again and again: every buffer is filled once.
    let mut fresh = port.tx(0).num_slots();
    while meter.goes_on() {
        let mut tx = port.tx(0);
        let n = tx.space().min(job.batch);
        for slot in (0..n).filter_map(|i| tx.slot(i)) {
            if fresh > 0 {
                slot.write_at(0, &frame);
                fresh -= 1;
            }
            slot.set_len(frame.len());
            slot.set_flags(0);
        }
        tx.advance(n);
        drop(tx);
        meter.packets += u64::from(n);
        if n == 0 {
            spin_loop();
        }
        port.sync_tx()?;
    }
    Ok(())
}

/// A switch learns where the receiver is: it sends a packet to nobody.
fn announce(port: &mut Port) -> Result<(), Error> {
    port.tx(0).push(&frame(60, 3, 2));
    port.sync_tx()
}

fn receive(job: &Job) -> Result<(), Error> {
    let mut port = open(job)?;
    if job.port.starts_with("vale") {
        announce(&mut port)?;
    }
    let mut meter = Meter::new(job);
    let mut seen = 0;
    while meter.goes_on() {
        port.sync_rx()?;
        let mut rx = port.rx(0);
        let n = rx.available().min(job.batch);
        for slot in (0..n).filter_map(|i| rx.slot(i)) {
            seen ^= slot.len() as u64;
            if job.look {
                let mut first = [0; 8];
                slot.read_at(0, &mut first);
                seen ^= u64::from_ne_bytes(first);
            }
        }
        rx.release(n);
        drop(rx);
        meter.packets += u64::from(n);
        if n == 0 {
            spin_loop();
        }
    }
    black_box(seen);
    Ok(())
}

/// Between two packets of a pair that sleeps: long enough for the other side to fall asleep.
const PAUSE: Duration = Duration::from_micros(300);

fn call(job: &Job) -> Result<(), Error> {
    let mut port = open(job)?;
    let mut frame = frame(60, 2, 1);
    for _ in 0..job.count {
        std::thread::sleep(PAUSE);
        frame[16..24].copy_from_slice(&now().to_ne_bytes());
        port.tx(0).push(&frame);
        port.sync_tx()?;
    }
    Ok(())
}

fn answer(job: &Job) -> Result<(), Error> {
    let mut port = open(job)?;
    if job.port.starts_with("vale") {
        announce(&mut port)?;
    }
    println!("ready");
    let mut times = Vec::with_capacity(job.count as usize);
    while (times.len() as u64) < job.count {
        port.wait(Interest::READ, None)?;
        let got = now();
        let mut rx = port.rx(0);
        let n = rx.available();
        for slot in (0..n).filter_map(|i| rx.slot(i)) {
            let mut sent = [0; 8];
            slot.read_at(16, &mut sent);
            times.push(got.saturating_sub(u64::from_ne_bytes(sent)));
        }
        rx.release(n);
    }
    print_times(&times);
    Ok(())
}

fn print_times(times: &[u64]) {
    times.iter().for_each(|t| println!("took={t}"));
}

/// A FIFO carries the time: a system call to send it, one to sleep and to read it.
fn call_bare(job: &Job) -> Result<(), Error> {
    let mut fifo = File::options().write(true).open(&job.port).expect("a FIFO");
    for _ in 0..job.count {
        std::thread::sleep(PAUSE);
        fifo.write_all(&now().to_ne_bytes()).expect("room in the FIFO");
    }
    Ok(())
}

fn answer_bare(job: &Job) -> Result<(), Error> {
    println!("ready");
    let mut fifo = File::open(&job.port).expect("a FIFO");
    let mut times = Vec::with_capacity(job.count as usize);
    let mut sent = [0; 8];
    while (times.len() as u64) < job.count && fifo.read_exact(&mut sent).is_ok() {
        times.push(now().saturating_sub(u64::from_ne_bytes(sent)));
    }
    print_times(&times);
    Ok(())
}

/// A ring for one sender and one receiver.
struct Bare {
    memory: Arc<Memory>,
    /// Packets sent so far, and packets taken so far.
    sent: Ref<AtomicU32>,
    taken: Ref<AtomicU32>,
    /// Two words each: length, and nothing.
    entries: Slice<AtomicU64>,
}

impl Bare {
    fn open(job: &Job) -> Bare {
        let file = File::options().read(true).write(true).open(&job.port).expect("what both share");
        let memory = Memory::map(&file, SHARED, 0, true).expect("a mapping");
        let place = |at| memory.object(at).expect("a place in it");
        Bare {
            sent: place(0),
            taken: place(128),
            entries: memory.slice(ENTRIES_AT, 2 * SLOTS as usize).expect("entries in it"),
            memory,
        }
    }

    fn buffer(side: u64, i: u32) -> u64 {
        BUFFERS_AT + (side * u64::from(SLOTS) + u64::from(i)) * BUFFER
    }

    fn transmit(&self, job: &Job) -> Result<(), Error> {
        let frame = frame(job.len, 2, 1);
        for i in 0..SLOTS {
            for side in 0..2 {
                self.memory.write(Bare::buffer(side, i), &frame).expect("a buffer");
            }
        }
        let mut meter = Meter::new(job);
        let (mut at, mut limit) = (self.sent.load(Relaxed), SLOTS);
        while meter.goes_on() {
            if limit.wrapping_sub(at) < job.batch {
                limit = self.taken.load(Acquire).wrapping_add(SLOTS);
            }
            let n = limit.wrapping_sub(at).min(job.batch);
            for _ in 0..n {
                let i = at % SLOTS;
                if job.copy {
                    let (from, to) = (Bare::buffer(0, i), Bare::buffer(1, i));
                    self.memory.copy(from, &self.memory, to, frame.len()).expect("two buffers");
                }
                self.entries[2 * i as usize].store(frame.len() as u64, Relaxed);
                self.entries[2 * i as usize + 1].store(0, Relaxed);
                at = at.wrapping_add(1);
            }
            self.sent.store(at, Release);
            meter.packets += u64::from(n);
            if n == 0 {
                spin_loop();
            }
        }
        Ok(())
    }

    fn receive(&self, job: &Job) -> Result<(), Error> {
        let mut meter = Meter::new(job);
        let mut at = self.taken.load(Relaxed);
        let mut seen = 0;
        while meter.goes_on() {
            let n = self.sent.load(Acquire).wrapping_sub(at).min(job.batch);
            for _ in 0..n {
                let i = at % SLOTS;
                seen ^= self.entries[2 * i as usize].load(Relaxed);
                if job.look {
                    let mut first = [0; 8];
                    self.memory.read(Bare::buffer(1, i), &mut first).expect("a buffer");
                    seen ^= u64::from_ne_bytes(first);
                }
                at = at.wrapping_add(1);
            }
            self.taken.store(at, Release);
            meter.packets += u64::from(n);
            if n == 0 {
                spin_loop();
            }
        }
        black_box(seen);
        Ok(())
    }
}
