//! NIC rings over a stand-in for the kernel, and a program that is killed at each store of a sync: whoever comes next
//! loses no buffer, gives none away twice, and every packet is sent and received once and in order.

use super::*;
use crate::port::{PortRing, Synced};
use crate::ring::{KringPlace, RingPlace};
use crate::shm::{Layout, Memory};
use crate::sync::dying::{MORTAL, NEXT, Noise, dies_at};
use crate::sync::{AtomicU32, AtomicU64};
use crate::sys::sealed_memfd;
use crate::sys::xdp::RingOffsets;
use crate::xsk::{Queue, fill_size};
use std::collections::HashSet;

const SLOTS: u32 = 8;
const AT: [RingOffsets; 2] = [
    RingOffsets { producer: 0, consumer: 64, flags: 128, entries: 192 },
    RingOffsets { producer: 2048, consumer: 2112, flags: 2176, entries: 2240 },
];

fn map(size: u64) -> Arc<Memory> {
    Memory::map(&sealed_memfd(c"test", size as usize).unwrap(), size as usize, 0, false).unwrap()
}

/// A ring, its AF_XDP rings, and what the kernel has taken of them.
struct World {
    memory: [Arc<Memory>; 3],
    port: PortRing,
    /// Receive: buffers beside those of the slots.
    spares: u32,
    /// Transmit: descriptors under way. Receive: buffers to receive into.
    kernels: Vec<u64>,
    /// Packets by number: handed over and sent, or put on the wire and seen by the program.
    into: Vec<u16>,
    out: Vec<u16>,
    next: u16,
}

/// To come back to.
struct Snapshot(Vec<Vec<u8>>, Vec<u64>, [Vec<u16>; 2], u16);

impl World {
    fn new(dir: Dir, start: u32, spares: u32) -> World {
        let layout = Layout::plan(64, 2048, 8);
        let memory = [map(layout.size), map(4096), map(4096)];
        let [region, private, rings] = &memory;
        for at in AT {
            for word in [at.producer, at.consumer] {
                rings.object::<AtomicU32>(word).unwrap().store(start, Relaxed);
            }
        }
        let room = if dir == Dir::Rx { SLOTS + spares } else { 0 };
        let place = RingPlace {
            offset: 0,
            slots: SLOTS,
            buffers_at: layout.buffer(0),
            buffers: 64,
            buf_size: 2048,
            dir,
            id: 0,
        };
        let kring = Kring::attach(region, place, private, KringPlace { offset: 0, room }).unwrap();
        kring.format();
        kring.state().chains.store(1, Relaxed);
        for i in 0..SLOTS {
            kring.slot(i).buf_idx.store(i + 2, Relaxed);
            kring.held(i).store(NO_BUFFER, Relaxed);
        }
        let geometry = Geometry::new(Chunks::Unaligned, 2048).unwrap();
        let plan = NicPlan { rx_size: SLOTS, tx_size: SLOTS, geometry, always: false, busy: false, copies: true };
        let fd = Arc::new(sealed_memfd(c"no socket", 4096).unwrap());
        let carrier: Box<dyn Carrier> = match dir {
            Dir::Tx => {
                let tx = Tx(Queue::at(rings, AT[1], SLOTS).unwrap());
                Box::new(NicTx::over(tx, Completion::at(rings, AT[0], SLOTS).unwrap(), plan, fd))
            }
            Dir::Rx => {
                let rx = Rx(Queue::at(rings, AT[1], SLOTS).unwrap());
                let side = NicRx::over(Fill::at(rings, AT[0], fill_size(SLOTS)).unwrap(), rx, plan, fd);
                side.start(&kring).unwrap();
                (0..spares).for_each(|i| assert!(kring.add_spare(2 + SLOTS + i)));
                Box::new(side)
            }
        };
        let port = PortRing::new(kring, carrier);
        World { memory, port, spares, kernels: vec![], into: vec![], out: vec![], next: 0 }
    }

    fn save(&self) -> Snapshot {
        let bytes = self.memory.each_ref().map(|m| {
            let mut all = vec![0; m.size().min(4096)];
            m.read(0, &mut all).unwrap();
            all
        });
        Snapshot(bytes.to_vec(), self.kernels.clone(), [self.into.clone(), self.out.clone()], self.next)
    }

    fn restore(&mut self, s: &Snapshot) {
        for (memory, bytes) in self.memory.iter().zip(&s.0) {
            memory.write(0, bytes).unwrap();
        }
        self.kernels.clone_from(&s.1);
        [self.into, self.out] = s.2.clone();
        self.next = s.3;
    }

    fn word(&self, at: u64) -> crate::shm::Ref<AtomicU32> {
        self.memory[2].object(at).unwrap()
    }

    /// One step of the kernel's: entry of the ring that we produce into, of `size`, if there is one.
    fn taken(&self, ring: usize, words: u64, size: u32) -> Option<u64> {
        let (p, c) = (self.word(AT[ring].producer).load(Relaxed), self.word(AT[ring].consumer));
        let at = c.load(Relaxed);
        (p != at).then(|| {
            c.store(at.wrapping_add(1), Relaxed);
            u64::from(at % size) * words * 8 + AT[ring].entries
        })
    }

    /// The same for the ring that we consume; none if it is full.
    fn given(&self, ring: usize, words: u64) -> Option<u64> {
        let (p, c) = (self.word(AT[ring].producer), self.word(AT[ring].consumer).load(Relaxed));
        let at = p.load(Relaxed);
        (at.wrapping_sub(c) < SLOTS).then(|| {
            p.store(at.wrapping_add(1), Relaxed);
            u64::from(at % SLOTS) * words * 8 + AT[ring].entries
        })
    }

    fn entry(&self, at: u64) -> crate::shm::Slice<AtomicU64> {
        self.memory[2].slice(at, 2).unwrap()
    }

    /// Transmit: takes every descriptor, and completes up to `most` in no particular order.
    fn transmit(&mut self, noise: &mut Noise, most: u32) {
        while let Some(at) = self.taken(1, 2, SLOTS) {
            let e = self.entry(at);
            let addr = e[0].load(Relaxed);
            assert!(!self.kernels.contains(&addr), "the kernel has this buffer already");
            self.kernels.push(addr);
            self.out.push(e[1].load(Relaxed) as u16);
        }
        for _ in 0..most.min(self.kernels.len() as u32) {
            let which = noise.below(self.kernels.len() as u32) as usize;
            if let Some(at) = self.given(0, 1) {
                self.entry(at)[0].store(self.kernels.remove(which), Relaxed);
            }
        }
    }

    /// Receive: takes every buffer, and fills up to `most` of them in no particular order.
    fn arrive(&mut self, noise: &mut Noise, most: u32) {
        while let Some(at) = self.taken(0, 1, fill_size(SLOTS)) {
            let addr = self.entry(at)[0].load(Relaxed);
            assert!(!self.kernels.contains(&addr), "the kernel has this buffer already");
            self.kernels.push(addr);
        }
        for _ in 0..most.min(self.kernels.len() as u32) {
            let which = noise.below(3.min(self.kernels.len() as u32)) as usize;
            if let Some(at) = self.given(1, 2) {
                let e = self.entry(at);
                e[0].store(self.kernels.remove(which) | 256 << 48, Relaxed);
                self.next += 1;
                e[1].store(u64::from(60 + self.next), Relaxed);
                self.into.push(60 + self.next);
            }
        }
    }

    /// The program fills up to `most` slots.
    fn fill(&mut self, most: u32) {
        let ring = self.port.kring().ring();
        for _ in 0..most {
            let head = ring.head.load(Relaxed);
            if head == ring.tail.load(Relaxed) {
                break;
            }
            self.next += 1;
            let slot = self.port.kring().slot(head);
            slot.len.store(60 + self.next, Relaxed);
            slot.flags.store(0, Relaxed);
            self.into.push(60 + self.next);
            ring.head.store(next_slot(head, SLOTS), Relaxed);
        }
        ring.cur.store(ring.head.load(Relaxed), Relaxed);
    }

    /// The program reads and gives back up to `most` slots.
    fn read(&mut self, most: u32) {
        let ring = self.port.kring().ring();
        for _ in 0..most {
            let head = ring.head.load(Relaxed);
            if head == ring.tail.load(Relaxed) {
                break;
            }
            self.out.push(self.port.kring().slot(head).len.load(Relaxed));
            ring.head.store(next_slot(head, SLOTS), Relaxed);
        }
        ring.cur.store(ring.head.load(Relaxed), Relaxed);
    }

    /// What netmapd does after a death, and then the sync of somebody else.
    fn recover(&self) {
        self.port.kring().break_lock(MORTAL);
        self.sync();
    }

    fn sync(&self) {
        assert_eq!(self.port.sync(NEXT), Synced::Done);
    }

    /// Every buffer is in one place, and the kernel's side knows of the kernel's.
    fn check(&self) {
        let k = self.port.kring();
        let all: Vec<u32> = k.buffers();
        assert_eq!(all.len(), (SLOTS + self.spares) as usize, "{all:?}");
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "{all:?}");
        let index = |addr: &u64| ((addr & ((1 << 48) - 1)) / 2048) as u32;
        if k.dir() == Dir::Tx {
            let free = (0..).map(|i| (k.ring().head.load(Relaxed) + i) % SLOTS);
            let free: Vec<u32> =
                free.take_while(|&i| i != k.hwtail()).map(|i| k.slot(i).buf_idx.load(Relaxed)).collect();
            assert!(
                self.kernels.iter().all(|a| !free.contains(&index(a))),
                "a slot came back before its packet was sent"
            );
        } else {
            let program: Vec<u32> =
                (0..distance(k)).map(|i| k.slot((k.hwcur() + i) % SLOTS).buf_idx.load(Relaxed)).collect();
            let spare = k.spares().iter().take(k.spare() as usize).map(|cell| cell.load(Relaxed));
            let ours: Vec<u32> = program.into_iter().chain(spare).collect();
            assert!(
                self.kernels.iter().all(|a| !ours.contains(&index(a))),
                "the kernel writes to a buffer of the program's, or a spare one"
            );
        }
    }
}

fn distance(k: &Kring) -> u32 {
    crate::index::distance(k.hwcur(), k.hwtail(), SLOTS)
}

/// Every sync of a random run dies at every store that it makes; each time the run is brought to its end.
fn dies_everywhere(
    dir: Dir,
    spares: u32,
    mut end: impl FnMut(&mut World, &mut Noise),
    mut step: impl FnMut(&mut World, &mut Noise),
) {
    let mut deaths = 0;
    for (seed, start) in [(1u64, 0u32), (2, u32::MAX - 3), (3, 17), (4, u32::MAX - 30)] {
        let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = World::new(dir, start, spares);
        for round in 0..60 {
            step(&mut world, &mut noise);
            let before = world.save();
            for n in 0.. {
                if !dies_at(n, || assert_eq!(world.port.sync(MORTAL), Synced::Done)) {
                    break;
                }
                deaths += 1;
                world.recover();
                world.check();
                end(&mut world, &mut Noise(u64::from(n) + 99));
                world.check();
                assert_eq!(world.out, world.into, "seed {seed}, round {round}, store {n}");
                world.restore(&before);
            }
            world.check();
        }
        end(&mut world, &mut noise);
        assert_eq!(world.out, world.into);
        assert!(world.into.len() > 60);
    }
    assert!(deaths > 4000, "{deaths}");
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn a_sender_that_dies_at_any_store_loses_and_repeats_nothing() {
    dies_everywhere(
        Dir::Tx,
        0,
        |world, noise| {
            for _ in 0..4 {
                world.transmit(noise, SLOTS);
                world.sync();
            }
            let k = world.port.kring();
            assert!(world.kernels.is_empty());
            assert_eq!(crate::index::prev_slot(k.hwcur(), SLOTS), k.hwtail(), "slots are stuck");
        },
        |world, noise| {
            let most = noise.below(SLOTS);
            world.fill(most);
            let most = noise.below(SLOTS);
            world.transmit(noise, most);
        },
    );
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn a_receiver_that_dies_at_any_store_loses_and_repeats_nothing() {
    for spares in [0, 3, SLOTS] {
        receiver_dies(spares);
    }
}

fn receiver_dies(spares: u32) {
    dies_everywhere(
        Dir::Rx,
        spares,
        |world, noise| {
            for _ in 0..4 {
                world.read(SLOTS);
                world.sync();
            }
            // And once around: no buffer was lost on the way.
            let held = world.kernels.len();
            world.arrive(noise, 0);
            assert!(world.kernels.len() >= held);
            world.read(SLOTS);
            world.sync();
            world.arrive(noise, 0);
            assert_eq!(world.kernels.len(), SLOTS as usize - 1, "the kernel has fewer buffers than it was given");
        },
        |world, noise| {
            let most = noise.below(SLOTS);
            world.read(most);
            let most = noise.below(SLOTS);
            world.arrive(noise, most);
        },
    );
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn a_ring_tells_the_nics_time_once_there_is_one() {
    let world = World::new(Dir::Rx, 0, 0);
    let stamps = sealed_memfd(c"stamps", 4096).unwrap();
    let noted = Memory::map(&stamps, 4096, 0, false).unwrap();
    let [_, _, rings] = &world.memory;
    let (fill, rx) = (Fill::at(rings, AT[0], fill_size(SLOTS)).unwrap(), Rx(Queue::at(rings, AT[1], SLOTS).unwrap()));
    let plan = NicPlan {
        rx_size: SLOTS,
        tx_size: SLOTS,
        geometry: Geometry::new(Chunks::Unaligned, 2048).unwrap(),
        always: false,
        busy: false,
        copies: true,
    };
    let fd = Arc::new(sealed_memfd(c"no socket", 4096).unwrap());
    let side = NicRx::over(fill, rx, plan, fd).with_stamps(&stamps, 3).unwrap();
    assert_eq!(side.arrived(), None);
    noted.object::<AtomicU64>(2 * 16).unwrap().store(1, Relaxed);
    assert_eq!(side.arrived(), None, "that was another queue");
    noted.object::<AtomicU64>(3 * 16).unwrap().store(1_700_000_000_123_456_789, Relaxed);
    assert_eq!(side.arrived(), Some(Duration::new(1_700_000_000, 123_456_789)));
    let World { port, .. } = world;
    let PortRing { kring, .. } = port;
    let port = PortRing::new(kring, Box::new(side));
    assert_eq!(port.sync(NEXT), Synced::Done);
    let ring = port.kring().ring();
    assert_eq!((ring.ts_sec.load(Relaxed), ring.ts_usec.load(Relaxed)), (1_700_000_000, 123_456));
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn a_ring_without_offsets_on_a_socket_with_headroom_has_its_frames_at_the_start_of_the_buffers() {
    let world = World::new(Dir::Rx, 0, 0);
    let [region, _, rings] = &world.memory;
    let (fill, rx) = (Fill::at(rings, AT[0], fill_size(SLOTS)).unwrap(), Rx(Queue::at(rings, AT[1], SLOTS).unwrap()));
    let geometry = Geometry::new(Chunks::Unaligned, 2048).unwrap().behind(100);
    let plan = NicPlan { rx_size: SLOTS, tx_size: SLOTS, geometry, always: false, busy: false, copies: true };
    let fd = Arc::new(sealed_memfd(c"no socket", 4096).unwrap());
    let given = world.taken(0, 1, fill_size(SLOTS)).map(|at| world.entry(at)[0].load(Relaxed)).unwrap();
    let idx = geometry.received(given).0 as u32;
    let start = world.port.kring().buffer(idx).unwrap();
    region.write(start + 100, b"a frame").unwrap();
    let received = world.entry(world.given(1, 2).unwrap());
    received[0].store(geometry.arrival(idx), Relaxed);
    received[1].store(7, Relaxed);
    let World { port, memory, .. } = world;
    let port = PortRing::new(port.kring, Box::new(NicRx::over(fill, rx, plan, fd)));
    assert_eq!(port.sync(NEXT), Synced::Done);
    let slot = port.kring().slot(0);
    assert_eq!((slot.buf_idx.load(Relaxed), slot.len.load(Relaxed), slot.flags.load(Relaxed)), (idx, 7, 0));
    let mut frame = [0; 7];
    memory[0].read(start, &mut frame).unwrap();
    assert_eq!(&frame, b"a frame");
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn slots_that_a_program_keeps_leave_the_kernel_a_ring_full_of_buffers_as_far_as_there_are_spare_ones() {
    for spares in 0..=SLOTS {
        let (mut world, mut noise) = (World::new(Dir::Rx, 0, spares), Noise(7));
        for kept in 1..SLOTS {
            // One more arrives, and none is given back.
            world.sync();
            world.arrive(&mut noise, 1);
            world.sync();
            world.arrive(&mut noise, 0);
            world.check();
            let all = (SLOTS + spares - kept).min(SLOTS - 1);
            assert_eq!(world.kernels.len(), all as usize, "{spares} spare ones, {kept} kept");
        }
        // All that arrives now waits in the kernel's ring, and comes when there is room.
        world.arrive(&mut noise, SLOTS);
        for _ in 0..3 {
            world.read(SLOTS);
            world.sync();
        }
        assert_eq!(world.out, world.into);
        assert_eq!(world.into.len() as u32, SLOTS - 1 + (1 + spares).min(SLOTS - 1));
        world.check();
    }
}
