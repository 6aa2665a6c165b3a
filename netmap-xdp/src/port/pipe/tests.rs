//! A pipe whose ends are killed at each store of a sync: whoever comes next loses and repeats no packet, and no buffer.

use super::*;
use crate::port::{PortRing, Synced};
use crate::ring::{KringPlace, RingPlace};
use crate::shm::{Layout, Memory};
use crate::sync::dying::{MORTAL, NEXT, Noise, dies_at};
use crate::sys::{eventfd, sealed_memfd};
use std::collections::HashSet;
use std::sync::Arc;

const SLOTS: u32 = 8;

fn map(size: u64) -> Arc<Memory> {
    Memory::map(&sealed_memfd(c"test", size as usize).unwrap(), size as usize, 0, false).unwrap()
}

struct World {
    memory: [Arc<Memory>; 2],
    tx: PortRing,
    rx: PortRing,
    sent: Vec<u16>,
    seen: Vec<u16>,
    spare: u32,
}

type Snapshot = (Vec<Vec<u8>>, Vec<u16>, Vec<u16>, u32);

impl World {
    fn new() -> World {
        let layout = Layout::plan(64, 2048, 16);
        let memory = [map(layout.size), map(4096)];
        let ring = |dir: Dir| {
            let place = |offset| RingPlace {
                offset,
                slots: SLOTS,
                buffers_at: layout.buffer(0),
                buffers: 64,
                buf_size: 2048,
                dir,
                id: 0,
            };
            let at = dir as u64;
            Kring::attach(&memory[0], place(at * 1024), &memory[1], KringPlace { offset: at * 1024, room: 0 }).unwrap()
        };
        for k in [ring(Dir::Tx), ring(Dir::Rx)] {
            k.format();
            for i in 0..SLOTS {
                k.slot(i).buf_idx.store(i + 2, Relaxed);
                k.held(i).store(i + 2, Relaxed);
            }
        }
        let wake = || Arc::new(eventfd().unwrap());
        let (a, b) = (wake(), wake());
        let tx = PortRing::new(ring(Dir::Tx), Box::new(PipeTx::new(ring(Dir::Rx), Wake::new(a.clone(), b.clone()))));
        let rx = PortRing::new(ring(Dir::Rx), Box::new(PipeRx::new(ring(Dir::Tx), Wake::new(b, a))));
        World { memory, tx, rx, sent: vec![], seen: vec![], spare: 40 }
    }

    fn save(&self) -> Snapshot {
        let bytes = self.memory.each_ref().map(|m| {
            let mut all = vec![0; 4096];
            m.read(0, &mut all).unwrap();
            all
        });
        (bytes.to_vec(), self.sent.clone(), self.seen.clone(), self.spare)
    }

    fn restore(&mut self, s: &Snapshot) {
        self.memory.iter().zip(&s.0).for_each(|(memory, bytes)| memory.write(0, bytes).unwrap());
        (self.sent, self.seen, self.spare) = (s.1.clone(), s.2.clone(), s.3);
    }

    /// The sender hands over up to `most` packets, each of one or two slots.
    fn fill(&mut self, noise: &mut Noise, most: u32) {
        let k = self.tx.kring();
        let ring = k.ring();
        for _ in 0..most {
            let (mut head, tail) = (ring.head.load(Relaxed), ring.tail.load(Relaxed));
            let pieces = 1 + noise.below(2);
            if crate::index::distance(head, tail, SLOTS) < pieces {
                break;
            }
            for piece in 0..pieces {
                let len = 60 + self.sent.len() as u16;
                self.sent.push(len);
                k.slot(head).len.store(len, Relaxed);
                k.slot(head).flags.store(if piece + 1 < pieces { NS_MOREFRAG } else { 0 }, Relaxed);
                head = next_slot(head, SLOTS);
            }
            ring.head.store(head, Relaxed);
        }
        ring.cur.store(ring.head.load(Relaxed), Relaxed);
    }

    /// The receiver reads and gives back up to `most` slots, and exchanges the buffer of some.
    fn read(&mut self, noise: &mut Noise, most: u32) {
        let k = self.rx.kring();
        let ring = k.ring();
        for _ in 0..most {
            let head = ring.head.load(Relaxed);
            if head == ring.tail.load(Relaxed) {
                break;
            }
            self.seen.push(k.slot(head).len.load(Relaxed));
            if noise.below(3) == 0 {
                self.spare = k.slot(head).buf_idx.swap(self.spare, Relaxed);
                k.slot(head).flags.fetch_or(NS_BUF_CHANGED, Relaxed);
            }
            ring.head.store(next_slot(head, SLOTS), Relaxed);
        }
        ring.cur.store(ring.head.load(Relaxed), Relaxed);
    }

    /// Each buffer is named once: by the receive ring if it crossed, else by the transmit ring (`engine::pipe`).
    fn check(&self) {
        let (tx, rx) = (self.tx.kring(), self.rx.kring());
        let crossed =
            |i| crate::index::distance(rx.hwcur(), i, SLOTS) < crate::index::distance(rx.hwcur(), tx.hwcur(), SLOTS);
        let name = |i| if crossed(i) { rx.slot(i) } else { tx.slot(i) }.buf_idx.load(Relaxed);
        let mut all: HashSet<u32> = (0..SLOTS).map(name).collect();
        all.insert(self.spare);
        let expected: HashSet<u32> = (2..2 + SLOTS).chain([40]).collect();
        assert_eq!(all, expected);
    }

    /// Everything that was sent arrives, and all slots come back.
    fn end(&mut self) {
        for _ in 0..3 {
            for ring in [&self.tx, &self.rx] {
                assert_eq!(ring.sync(NEXT), Synced::Done);
            }
            self.read(&mut Noise(5), SLOTS);
            assert_eq!(self.rx.sync(NEXT), Synced::Done);
        }
        assert_eq!(self.tx.sync(NEXT), Synced::Done);
        assert_eq!(self.tx.kring().hwtail(), prev_slot(self.tx.kring().hwcur(), SLOTS), "slots are stuck");
        assert_eq!(self.seen, self.sent);
        self.check();
    }
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn an_end_that_dies_at_any_store_loses_and_repeats_nothing() {
    let mut deaths = 0;
    for seed in 1..6u64 {
        let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = World::new();
        for round in 0..60 {
            let most = noise.below(SLOTS);
            world.fill(&mut noise, most);
            let most = noise.below(SLOTS);
            world.read(&mut noise, most);
            let before = world.save();
            for sender in [true, false] {
                for n in 0.. {
                    let ring = if sender { &world.tx } else { &world.rx };
                    if !dies_at(n, || assert_eq!(ring.sync(MORTAL), Synced::Done)) {
                        break;
                    }
                    deaths += 1;
                    assert_eq!(ring.kring().break_lock(MORTAL), n > 0, "its first store is the lock");
                    world.check();
                    // Whoever goes first: the other end, or the one that takes the dead one's place.
                    if (n + round) % 2 == 0 {
                        let other = if sender { &world.rx } else { &world.tx };
                        assert_eq!(other.sync(NEXT), Synced::Done);
                    }
                    world.end();
                    world.restore(&before);
                }
            }
            world.restore(&before);
            assert_eq!(world.tx.sync(NEXT), Synced::Done);
            assert_eq!(world.rx.sync(NEXT), Synced::Done);
            world.check();
        }
        world.end();
        assert!(world.sent.len() > 60);
    }
    assert!(deaths > 4000, "{deaths}");
}
