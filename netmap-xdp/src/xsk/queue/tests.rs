//! The rings against a stand-in for the kernel's side, from cursor 0 and from just before the wrap.

use super::*;
use crate::sys::sealed_memfd;
use crate::xsk::TxDesc;
use std::sync::Arc;

const AT: xdp::RingOffsets = xdp::RingOffsets { producer: 0, consumer: 64, flags: 128, entries: 192 };

fn memory(start: u32) -> Arc<Memory> {
    let m = Memory::map(&sealed_memfd(c"q", 4096).unwrap(), 4096, 0, false).unwrap();
    for word in [AT.producer, AT.consumer] {
        m.object::<AtomicU32>(word).unwrap().store(start, Relaxed);
    }
    m
}

fn starts() -> [u32; 2] {
    [0, u32::MAX - 3]
}

/// Adds addresses until `next` has no more, or there is no room; how many.
fn produce(q: &Fill, mut next: impl FnMut() -> Option<u64>) -> Result<u32, QueueError> {
    fill(q.room()?, &mut next)
}

fn fill(mut walk: Walk<'_, AtomicU64>, next: &mut dyn FnMut() -> Option<u64>) -> Result<u32, QueueError> {
    while let Some(entry) = walk.run().first()
        && let Some(addr) = next()
    {
        entry.store(addr, Relaxed);
        walk.pass(1);
    }
    let n = walk.passed();
    walk.publish();
    Ok(n)
}

/// Takes every address.
fn consume(q: &Fill, got: &mut Vec<u64>) -> Result<u32, QueueError> {
    let mut walk = q.filled()?;
    while walk.left() > 0 {
        let run = walk.run();
        got.extend(run.iter().map(|a| a.load(Relaxed)));
        walk.pass(run.len() as u32);
    }
    let n = walk.passed();
    walk.publish();
    Ok(n)
}

/// Takes frames, `most` of them.
fn receive(rx: &Rx, most: usize) -> Vec<(u64, u32, bool)> {
    let (mut walk, mut seen) = (rx.0.filled().unwrap(), Vec::new());
    while let Some(d) = walk.run().first()
        && seen.len() < most
    {
        seen.push(d.read());
        walk.pass(1);
    }
    walk.publish();
    seen
}

#[test]
fn what_goes_in_comes_out_in_order_across_the_wrap() {
    for start in starts() {
        let m = memory(start);
        let (ours, theirs) = (Fill::at(&m, AT, 8).unwrap(), Fill::at(&m, AT, 8).unwrap());
        let (mut sent, mut got) = (0u64, Vec::new());
        for round in 0..50 {
            let want = round % 9;
            let end = sent + want;
            let n = produce(&ours, || (sent < end).then(|| (sent += 1, sent).1)).unwrap();
            assert_eq!(u64::from(n), want.min(8));
            assert_eq!(consume(&theirs, &mut got).unwrap(), n);
            sent = got.len() as u64;
        }
        assert_eq!(got, (1..=got.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn a_full_ring_takes_no_more() {
    for start in starts() {
        let q = Fill::at(&memory(start), AT, 8).unwrap();
        assert_eq!(produce(&q, || Some(1)).unwrap(), 8);
        assert_eq!(produce(&q, || Some(1)).unwrap(), 0);
        assert!(!q.add(1).unwrap());
        assert_eq!(q.waiting(), 8);
    }
}

#[test]
fn the_other_sides_position_is_looked_at_only_where_that_matters() {
    for start in starts() {
        let m = memory(start);
        let q = Fill::at(&m, AT, 8).unwrap();
        let add = |want, used| {
            let walk = q.room_for(want, used)?;
            assert!(walk.left() <= want);
            fill(walk, &mut || Some(7))
        };
        assert_eq!(add(6, 0).unwrap(), 6);
        assert_eq!(add(3, 6).unwrap(), 2, "a doubt, and there is room for two");
        m.object::<AtomicU32>(AT.consumer).unwrap().store(start.wrapping_sub(50), Relaxed);
        assert_eq!(add(5, 3).unwrap(), 5);
        assert!(matches!(add(5, 4), Err(QueueError::Corrupt)));
    }
}

#[test]
fn frames_that_are_not_taken_stay_in_the_ring() {
    for start in starts() {
        let m = memory(start);
        let (tx, rx) = (Tx(Queue::at(&m, AT, 8).unwrap()), Rx(Queue::at(&m, AT, 8).unwrap()));
        let mut batch = tx.batch().unwrap();
        for i in 0..5 {
            batch.push(TxDesc { addr: i, len: 60 + i as u32, more: false });
        }
        assert_eq!(batch.publish(), 5);
        assert_eq!(receive(&rx, 3), [(0, 60, false), (1, 61, false), (2, 62, false)]);
        assert_eq!(rx.addresses(), [3, 4]);
        assert_eq!(receive(&rx, 9).len(), 2);
    }
}

#[test]
fn an_unfinished_frame_is_not_published() {
    for start in starts() {
        let m = memory(start);
        let tx = Tx(Queue::at(&m, AT, 8).unwrap());
        let mut batch = tx.batch().unwrap();
        batch.push(TxDesc { addr: 1, len: 9, more: false });
        batch.push(TxDesc { addr: 2, len: 9, more: true });
        assert_eq!(batch.publish(), 1);
        let mut batch = tx.batch().unwrap();
        batch.push(TxDesc { addr: 3, len: 9, more: true });
        batch.abandon_frame();
        batch.push(TxDesc { addr: 4, len: 9, more: false });
        assert_eq!(batch.publish(), 1);
        let rx = Rx(Queue::at(&m, AT, 8).unwrap());
        assert_eq!(receive(&rx, 9), [(1, 9, false), (4, 9, false)]);
    }
}

#[test]
fn a_scribbled_cursor_is_an_error_and_not_a_runaway() {
    for start in starts() {
        let m = memory(start);
        let q = Fill::at(&m, AT, 8).unwrap();
        m.object::<AtomicU32>(AT.producer).unwrap().store(start.wrapping_add(9), Relaxed);
        assert!(matches!(q.filled().map(drop), Err(QueueError::Corrupt)));
        assert!(matches!(q.room().map(drop), Err(QueueError::Corrupt)));
        m.object::<AtomicU32>(AT.consumer).unwrap().store(start.wrapping_add(100), Relaxed);
        assert!(q.filled().is_err() && q.room().is_err() && q.add(1).is_err());
    }
}
