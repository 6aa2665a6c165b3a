//! Taps against rings made by hand: every position of small rings, spoilt slots, a lock that nobody gives back, threads.

use super::*;
use crate::ring::{KringPlace, RingPlace};
use crate::shm::Memory;
use crate::sys::{BUF_SIZE, eventfd, sealed_memfd};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BUFFERS: u32 = 64;
const BUFFERS_AT: u64 = 64 << 10;
const KINDS: [TapKind; 3] = [TapKind::Copy, TapKind::Exchange, TapKind::Chain];

/// Region and private memory; ring `k` lies at a place of its own in both, and its buffers are from `2 + 16 * k` on.
struct Stage {
    region: Arc<Memory>,
    private: Arc<Memory>,
}

impl Stage {
    fn new() -> Stage {
        let map = |len| Memory::map(&sealed_memfd(c"stage", len).unwrap(), len, 0, false).unwrap();
        Stage { region: map(BUFFERS_AT as usize + BUFFERS as usize * BUF_SIZE as usize), private: map(64 << 10) }
    }

    fn ring(&self, k: u32, dir: Dir, slots: u32) -> Kring {
        let offset = u64::from(k) * 8192;
        let place =
            RingPlace { offset, slots, buffers_at: BUFFERS_AT, buffers: BUFFERS, buf_size: BUF_SIZE, dir, id: 0 };
        let ring = Kring::attach(&self.region, place, &self.private, KringPlace { offset, room: 0 }).unwrap();
        for i in 0..slots {
            ring.slot(i).buf_idx.store(2 + 16 * k + i, Relaxed);
            ring.held(i).store(NO_BUFFER, Relaxed);
        }
        ring.format();
        ring
    }

    fn tap(&self, k: u32, slots: u32, kind: TapKind) -> Tap {
        let wake = Arc::new(eventfd().unwrap());
        Tap::new(self.ring(k, Dir::Rx, slots), Wake::new(wake.clone(), wake), kind)
    }
}

fn fill(k: &Kring, i: u32, value: u32) {
    let at = k.buffer(k.slot(i).buf_idx.load(Relaxed)).unwrap();
    k.region().write(at, &value.to_ne_bytes()).unwrap();
    k.slot(i).len.store(60, Relaxed);
    k.slot(i).flags.store(0, Relaxed);
}

fn value(k: &Kring, i: u32) -> u32 {
    let mut bytes = [0; 4];
    k.region().read(k.buffer(k.slot(i).buf_idx.load(Relaxed)).unwrap(), &mut bytes).unwrap();
    u32::from_ne_bytes(bytes)
}

/// Reads everything and gives it back, as `MonitorRx` does.
fn read(k: &Kring) -> Vec<u32> {
    let (from, to) = (k.hwcur(), k.state().peer_tail.load(Acquire));
    let slots = (0..distance(from, to, k.num_slots())).map(|d| (from + d) % k.num_slots());
    let got = slots.map(|i| value(k, i)).collect();
    fence(Release);
    k.set_hwcur(to);
    got
}

fn lost(k: &Kring) -> u64 {
    k.drops().iter().map(|d| d.2).sum()
}

fn all_buffers(rings: &[&Kring]) -> Vec<u32> {
    let mut all: Vec<u32> = rings.iter().flat_map(|k| k.slot_buffers()).collect();
    all.sort_unstable();
    all
}

#[test]
fn from_every_position_of_small_rings_the_latest_arrive_in_order() {
    for kind in KINDS {
        for (n, m) in (2..7).flat_map(|n| (2..7).map(move |m| (n, m))) {
            for (start, offset) in (0..n).flat_map(|s| (0..m).map(move |o| (s, o))) {
                let stage = Stage::new();
                let (source, tap) = (stage.ring(0, Dir::Rx, n), stage.tap(1, m, kind));
                let before = all_buffers(&[&source, &tap.ring]);
                tap.ring.set_hwcur(offset);
                tap.ring.state().peer_tail.store(offset, Relaxed);
                let (mut at, mut seq) = (start, 0);
                for count in 0..n {
                    (0..count).for_each(|d| fill(&source, (at + d) % n, seq + d));
                    tap.deliver(1, &source, at, count);
                    let fit = count.min(m - 1);
                    assert_eq!(
                        read(&tap.ring),
                        (seq + count - fit..seq + count).collect::<Vec<_>>(),
                        "{kind:?} {n} {m}"
                    );
                    (at, seq) = ((at + count) % n, seq + count);
                }
                assert_eq!(tap.ring.state().packets.load(Relaxed) + lost(&tap.ring), u64::from(seq));
                assert_eq!(all_buffers(&[&source, &tap.ring]), before, "{kind:?}");
            }
        }
    }
}

#[test]
fn a_spoilt_slot_on_either_side_loses_that_packet_and_no_buffer() {
    for kind in KINDS {
        for bad in [0, 1, BUFFERS, u32::MAX] {
            let stage = Stage::new();
            let (source, tap) = (stage.ring(0, Dir::Tx, 8), stage.tap(1, 8, kind));
            (0..4).for_each(|i| fill(&source, i, i));
            source.slot(1).buf_idx.store(bad, Relaxed);
            tap.deliver(1, &source, 0, 4);
            assert_eq!((read(&tap.ring), lost(&tap.ring)), (vec![0, 2, 3], 1), "{kind:?}");
            (4..8).for_each(|i| fill(&source, i, i));
            tap.ring.slot(3).buf_idx.store(bad, Relaxed);
            tap.deliver(1, &source, 4, 4);
            assert_eq!((read(&tap.ring), lost(&tap.ring)), (vec![], 5), "nothing can be put there");
            source.slot(1).buf_idx.store(3, Relaxed);
            tap.ring.slot(3).buf_idx.store(2 + 16 + 3, Relaxed);
            assert!(all_buffers(&[&source, &tap.ring]).windows(2).all(|w| w[0] != w[1]), "{kind:?}");
        }
    }
}

#[test]
fn cursors_that_cannot_be_lose_packets_and_do_not_panic() {
    for bad in [8, 9, u32::MAX] {
        let stage = Stage::new();
        let (source, tap) = (stage.ring(0, Dir::Rx, 8), stage.tap(1, 8, TapKind::Copy));
        tap.ring.set_hwcur(bad);
        tap.deliver(1, &source, 0, 3);
        tap.ring.set_hwcur(0);
        tap.ring.state().peer_tail.store(bad, Relaxed);
        tap.deliver(1, &source, 0, 3);
        assert_eq!(lost(&tap.ring), 6);
    }
}

#[test]
fn a_lock_that_is_never_given_back_loses_packets_and_stalls_nobody() {
    let stage = Stage::new();
    let (source, tap) = (stage.ring(0, Dir::Rx, 8), stage.tap(1, 8, TapKind::Copy));
    tap.ring.state().tap_lock.store(7, Relaxed);
    let start = Instant::now();
    (0..20).for_each(|_| tap.deliver(1, &source, 0, 5));
    assert_eq!((read(&tap.ring), lost(&tap.ring)), (vec![], 100));
    assert!(start.elapsed() < Duration::from_secs(2), "it was waited for again and again");
}

#[test]
fn two_rings_and_a_reader_at_once_lose_nothing_uncounted() {
    const EACH: u32 = if cfg!(miri) { 50 } else { 20_000 };
    for kind in KINDS {
        let stage = Stage::new();
        let rings = [stage.ring(0, Dir::Tx, 8), stage.ring(1, Dir::Rx, 8)];
        let tap = stage.tap(2, 16, kind);
        let before = all_buffers(&[&rings[0], &rings[1], &tap.ring]);
        let mut got = std::thread::scope(|scope| {
            let senders: Vec<_> = rings
                .iter()
                .zip(0..)
                .map(|(ring, who)| {
                    let tap = &tap;
                    scope.spawn(move || {
                        for seq in (0..EACH).step_by(4) {
                            (0..4).for_each(|d| fill(ring, (seq + d) % 8, who << 24 | (seq + d)));
                            tap.deliver(1 + who, ring, seq % 8, 4);
                        }
                    })
                })
                .collect();
            let mut got = Vec::new();
            while senders.iter().any(|s| !s.is_finished()) {
                got.extend(read(&tap.ring));
            }
            got
        });
        got.extend(read(&tap.ring));
        assert_eq!(got.len() as u64 + lost(&tap.ring), u64::from(2 * EACH), "{kind:?}");
        for who in 0..2 {
            let of_one: Vec<u32> = got.iter().copied().filter(|v| v >> 24 == who).collect();
            assert!(of_one.is_sorted_by(|a, b| a < b), "{kind:?}: out of order, or twice");
        }
        assert_eq!(all_buffers(&[&rings[0], &rings[1], &tap.ring]), before, "{kind:?}");
    }
}

#[test]
fn only_what_was_sent_is_marked_and_a_chain_keeps_the_mark() {
    for (dir, kind, flags, want) in [
        (Dir::Tx, TapKind::Copy, 0, NS_TXMON),
        (Dir::Tx, TapKind::Exchange, NS_MOREFRAG, NS_TXMON | NS_MOREFRAG),
        (Dir::Rx, TapKind::Copy, NS_TXMON, 0),
        (Dir::Rx, TapKind::Exchange, NS_TXMON, 0),
        (Dir::Rx, TapKind::Chain, NS_TXMON, NS_TXMON),
        (Dir::Rx, TapKind::Chain, 0, 0),
    ] {
        let stage = Stage::new();
        let (source, tap) = (stage.ring(0, dir, 8), stage.tap(1, 8, kind));
        fill(&source, 0, 1);
        source.slot(0).flags.store(flags, Relaxed);
        tap.deliver(1, &source, 0, 1);
        assert_eq!(tap.ring.slot(0).flags.load(Relaxed), want, "{dir:?} {kind:?}");
    }
}
