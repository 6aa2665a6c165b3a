//! The layer alone: what one `txsync` or `rxsync` costs per packet, without the kernel.
//!
//! The rings of an AF_XDP socket lie in a memfd, and this file plays the kernel on them: it completes what was sent and
//! fills what was offered. Its NEED_WAKEUP flags stay clear, so that no system call is made but for the clock that stamps
//! receive rings. Only the call of the sync is timed; the program's part and the stand-in's are outside. What two looks
//! at the clock cost by themselves is measured with a call that does nothing, and taken off.

use crate::count::{What, instructions};
use crate::machine::Calm;
use crate::stats::Sample;
use crate::{Effort, Reached};
use netmap_xdp::index::next_slot;
use netmap_xdp::port::nic::{NicPlan, NicRx, NicTx};
use netmap_xdp::port::{PortRing, Synced};
use netmap_xdp::ring::{Dir, Kring, KringPlace, NO_BUFFER, RingPlace};
use netmap_xdp::shm::{Layout, Memory};
use netmap_xdp::sync::{AtomicU32, AtomicU64, Ordering::*};
use netmap_xdp::sys::{BUF_SIZE, sealed_memfd, xdp::RingOffsets};
use netmap_xdp::xsk::{Chunks, Completion, Fill, Geometry, Queue, Rx, Tx, fill_size};
use std::hint::black_box;
use std::sync::Arc;

const BATCHES: [u32; 4] = [1, 8, 64, 256];
/// Slots of the netmap ring, and entries of each AF_XDP ring: the default of the library.
const SLOTS: u32 = 1024;
const LEN: u32 = 60;
/// Most that a packet may cost at [`GOAL_BATCH`].
const GOAL_NS: f64 = 8.0;
const GOAL_BATCH: u32 = 64;
/// Syncs before the ring and the caches are in their steady state: several times around.
const WARM: u32 = 4 * SLOTS;

/// One AF_XDP ring in the shared memory, with room for the largest entries.
const RING_BYTES: u64 = 4096 + SLOTS as u64 * 16;

/// A netmap ring over a socket that is not one.
struct Bench {
    port: PortRing,
    dir: Dir,
    kernel: Kernel,
}

/// The kernel's ends of the two rings.
struct Kernel {
    producer: [netmap_xdp::shm::Ref<AtomicU32>; 2],
    consumer: [netmap_xdp::shm::Ref<AtomicU32>; 2],
    /// Fill or completion ring.
    addresses: netmap_xdp::shm::Slice<AtomicU64>,
    /// Receive or transmit ring, two words an entry.
    descriptors: netmap_xdp::shm::Slice<AtomicU64>,
}

fn offsets(ring: u64) -> RingOffsets {
    let at = ring * RING_BYTES;
    RingOffsets { producer: at, consumer: at + 64, flags: at + 128, entries: at + 4096 }
}

impl Bench {
    fn new(dir: Dir) -> Bench {
        let memfd = |size: u64| {
            let fd = sealed_memfd(c"bench", size as usize).expect("a memfd");
            Memory::map(&fd, size as usize, 0, true).expect("a mapping of a memfd")
        };
        let layout = Layout::plan(2 * SLOTS, BUF_SIZE, 64);
        let (region, private) = (memfd(layout.size), memfd(KringPlace::size(SLOTS, 2 * SLOTS)));
        let rings = memfd(2 * RING_BYTES);
        let (buffers_at, buf_size) = (layout.buffer(0), layout.buf_size);
        let place = RingPlace { offset: 0, slots: SLOTS, buffers_at, buffers: 2 * SLOTS, buf_size, dir, id: 0 };
        let kring =
            Kring::attach(&region, place, &private, KringPlace { offset: 0, room: 2 * SLOTS }).expect("rings that fit");
        kring.format();
        for i in 0..SLOTS {
            kring.slot(i).buf_idx.store(i + 2, Relaxed);
            kring.held(i).store(NO_BUFFER, Relaxed);
        }
        let geometry = Geometry::new(Chunks::Unaligned, BUF_SIZE).expect("a size of NICs");
        let plan = NicPlan { rx_size: SLOTS, tx_size: SLOTS, geometry, always: false, busy: false, copies: true };
        let fd = Arc::new(sealed_memfd(c"no socket", 4096).expect("a memfd"));
        let (first, second) = (offsets(0), offsets(1));
        let ok = "rings that fit";
        let port = match dir {
            Dir::Tx => {
                let completion = Completion::at(&rings, first, SLOTS).expect(ok);
                let tx = Tx(Queue::at(&rings, second, SLOTS).expect(ok));
                PortRing::new(kring, Box::new(NicTx::over(tx, completion, plan, fd)))
            }
            Dir::Rx => {
                let fill = Fill::at(&rings, first, fill_size(SLOTS)).expect(ok);
                let rx = Rx(Queue::at(&rings, second, SLOTS).expect(ok));
                let side = NicRx::over(fill, rx, plan, fd);
                side.start(&kring).expect("an empty fill ring");
                PortRing::new(kring, Box::new(side))
            }
        };
        let word = |at: u64| rings.object(at).expect(ok);
        let kernel = Kernel {
            producer: [word(first.producer), word(second.producer)],
            consumer: [word(first.consumer), word(second.consumer)],
            addresses: rings.slice(first.entries, fill_size(SLOTS) as usize).expect(ok),
            descriptors: rings.slice(second.entries, 2 * SLOTS as usize).expect(ok),
        };
        Bench { port, dir, kernel }
    }

    /// The program's part of one turn: transmit, `batch` slots are filled; receive, what the last sync brought is given
    /// back. And the kernel's: transmit, what the last sync sent is completed; receive, `batch` packets arrive.
    fn prepare(&self, batch: u32) {
        let (k, ring) = (self.port.kring(), self.port.kring().ring());
        let mut head = ring.head.load(Relaxed);
        match self.dir {
            Dir::Tx => {
                for _ in 0..batch {
                    let slot = k.slot(head);
                    slot.len.store(LEN as u16, Relaxed);
                    slot.flags.store(0, Relaxed);
                    head = next_slot(head, SLOTS);
                }
                self.kernel.complete();
            }
            Dir::Rx => {
                head = ring.tail.load(Relaxed);
                self.kernel.deliver(batch);
            }
        }
        ring.cur.store(head, Relaxed);
        ring.head.store(head, Release);
    }

    /// `turns` syncs of `batch` packets each, in steady state; `sync` is called for each and timed or counted by itself.
    fn turns(&self, turns: u32, batch: u32, mut sync: impl FnMut(&PortRing)) {
        for _ in 0..turns {
            self.prepare(batch);
            sync(&self.port);
        }
    }

    /// Packets that crossed the ring so far.
    fn packets(&self) -> u64 {
        self.port.kring().state().packets.load(Relaxed)
    }
}

impl Kernel {
    /// Takes every transmit descriptor and completes it.
    fn complete(&self) {
        let (mut at, end) = (self.consumer[1].load(Relaxed), self.producer[1].load(Acquire));
        let mut done = self.producer[0].load(Relaxed);
        while at != end {
            let addr = self.descriptors[2 * (at % SLOTS) as usize].load(Relaxed);
            self.addresses[(done % SLOTS) as usize].store(addr, Relaxed);
            (at, done) = (at.wrapping_add(1), done.wrapping_add(1));
        }
        self.consumer[1].store(at, Release);
        self.producer[0].store(done, Release);
    }

    /// Receives `n` packets into the buffers of the fill ring.
    fn deliver(&self, n: u32) {
        let (mut from, end) = (self.consumer[0].load(Relaxed), self.producer[0].load(Acquire));
        let mut to = self.producer[1].load(Relaxed);
        for _ in 0..n.min(end.wrapping_sub(from)) {
            let addr = self.addresses[(from % fill_size(SLOTS)) as usize].load(Relaxed);
            let entry = 2 * (to % SLOTS) as usize;
            self.descriptors[entry].store(addr | 256 << 48, Relaxed);
            // Length below, options above: the kernel writes both.
            self.descriptors[entry + 1].store(u64::from(LEN), Relaxed);
            (from, to) = (from.wrapping_add(1), to.wrapping_add(1));
        }
        self.consumer[0].store(from, Release);
        self.producer[1].store(to, Release);
    }
}

const _: () = assert!(cfg!(target_endian = "little"), "`Kernel::deliver` writes two 32-bit fields as one word");

/// What is measured. Not inlined, so that callgrind finds it by its name.
#[inline(never)]
fn layer_sync_of_interest(port: &PortRing) {
    assert_eq!(port.sync(1), Synced::Done);
}

/// The same without the sync.
#[inline(never)]
fn no_sync(port: &PortRing) {
    black_box(port);
}

/// A clock finer and cheaper than `clock_gettime`, and how many of its ticks make a nanosecond.
mod ticks {
    use std::time::{Duration, Instant};

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub fn now() -> u64 {
        use std::arch::x86_64::{_mm_lfence, _rdtsc};
        // SAFETY: instructions of every x86-64. The fences keep what is timed between the two readings.
        unsafe {
            _mm_lfence();
            let t = _rdtsc();
            _mm_lfence();
            t
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    pub fn now() -> u64 {
        crate::machine::now()
    }

    pub fn per_ns() -> f64 {
        let (wall, ticks) = (Instant::now(), now());
        while wall.elapsed() < Duration::from_millis(20) {}
        (now() - ticks) as f64 / wall.elapsed().as_nanos() as f64
    }
}

/// Mean ticks of one call of `sync`, without the slowest tenth, which interrupts and other programs met. Not the median:
/// the counter of some processors steps by ten nanoseconds.
fn mean_ticks(bench: &Bench, turns: u32, batch: u32, sync: impl Fn(&PortRing)) -> f64 {
    let mut all = Vec::with_capacity(turns as usize);
    bench.turns(turns, batch, |port| {
        let start = ticks::now();
        sync(port);
        all.push(ticks::now() - start);
    });
    let kept = all.len() * 9 / 10;
    all.select_nth_unstable(kept);
    all[..kept].iter().sum::<u64>() as f64 / kept as f64
}

fn name(dir: Dir) -> &'static str {
    match dir {
        Dir::Tx => "txsync",
        Dir::Rx => "rxsync",
    }
}

/// The whole benchmark.
pub fn run(effort: &Effort) -> Reached {
    println!(
        "\nlayer: one sync against a stand-in for the kernel, per packet; goal {GOAL_NS} ns at batch {GOAL_BATCH}"
    );
    println!("{:<8} {:>5}  {:<22} {:>12}", "", "batch", "ns (min..max)", "instructions");
    let turns = if effort.quick { 2_000 } else { 20_000 };
    let per_ns = ticks::per_ns();
    let mut reached = true;
    let mut calm = Calm::new(effort);
    for dir in [Dir::Tx, Dir::Rx] {
        for batch in BATCHES {
            let (bench, nothing) = (Bench::new(dir), Bench::new(dir));
            bench.turns(WARM, batch, layer_sync_of_interest);
            let mut ns = Sample::default();
            for _ in 0..effort.rounds() {
                ns.add(calm.measure(None, || {
                    // Without packets, since nobody takes them.
                    let idle = mean_ticks(&nothing, turns, 0, no_sync);
                    let busy = mean_ticks(&bench, turns, batch, layer_sync_of_interest);
                    (busy - idle) / per_ns / f64::from(batch)
                }));
            }
            let met = batch != GOAL_BATCH || ns.median() <= GOAL_NS;
            let what = if dir == Dir::Tx { What::Txsync } else { What::Rxsync };
            let instructions = instructions(what, batch, effort).map_or_else(|why| why.into(), |n| format!("{n:.1}"));
            let verdict = if met { "" } else { "  missed" };
            println!("{:<8} {batch:>5}  {:<22} {instructions:>12}{verdict}", name(dir), ns.show(2));
            reached &= met;
        }
    }
    calm.report();
    reached
}

/// A few syncs that are counted, after as many as fill the rings.
pub fn count(dir: Dir, batch: u32, turns: u32) {
    let bench = Bench::new(dir);
    bench.turns(WARM / batch + 2, batch, |port| assert_eq!(port.sync(1), Synced::Done));
    let before = bench.packets();
    bench.turns(turns, batch, layer_sync_of_interest);
    assert_eq!(bench.packets() - before, u64::from(turns) * u64::from(batch), "every packet crossed");
}
