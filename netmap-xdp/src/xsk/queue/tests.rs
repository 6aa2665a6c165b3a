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

#[test]
fn what_goes_in_comes_out_in_order_across_the_wrap() {
    for start in starts() {
        let m = memory(start);
        let (ours, theirs) = (Fill::at(&m, AT, 8).unwrap(), Fill::at(&m, AT, 8).unwrap());
        let (mut sent, mut got) = (0u64, Vec::new());
        for round in 0..50 {
            let want = round % 9;
            let end = sent + want;
            let n = ours.produce(|| (sent < end).then(|| (sent += 1, sent).1)).unwrap();
            assert_eq!(u64::from(n), want.min(8));
            assert_eq!(theirs.consume(|a| got.push(a)).unwrap(), n);
            sent = got.len() as u64;
        }
        assert_eq!(got, (1..=got.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn a_full_ring_takes_no_more() {
    for start in starts() {
        let q = Fill::at(&memory(start), AT, 8).unwrap();
        assert_eq!(q.produce(|| Some(1)).unwrap(), 8);
        assert_eq!(q.produce(|| Some(1)).unwrap(), 0);
        assert_eq!(q.waiting(), 8);
    }
}

#[test]
fn the_other_sides_position_is_looked_at_only_where_that_matters() {
    for start in starts() {
        let m = memory(start);
        let q = Fill::at(&m, AT, 8).unwrap();
        let add = |want, used| {
            let mut left = want;
            let next = || (left > 0).then(|| (left -= 1, 7).1);
            q.produce_by([want, used], next, |_, publish| publish())
        };
        assert_eq!(add(6, 0).unwrap(), 6);
        assert_eq!(add(3, 6).unwrap(), 2, "a doubt, and there is room for two");
        m.object::<AtomicU32>(AT.consumer).unwrap().store(start.wrapping_sub(50), Relaxed);
        assert_eq!(add(5, 3).unwrap(), 5);
        assert!(matches!(add(5, 4), Err(QueueError::Corrupt)));
    }
}

#[test]
fn a_frame_that_is_refused_stays_in_the_ring() {
    for start in starts() {
        let m = memory(start);
        let (tx, rx) = (Tx(Queue::at(&m, AT, 8).unwrap()), Rx(Queue::at(&m, AT, 8).unwrap()));
        let mut batch = tx.batch().unwrap();
        for i in 0..5 {
            batch.push(TxDesc { addr: i, len: 60 + i as u32, more: false });
        }
        assert_eq!(batch.publish(), 5);
        let mut seen = Vec::new();
        let taken = rx.consume(|a, l, more| {
            assert!(!more);
            if seen.len() == 3 {
                return false;
            }
            seen.push((a, l));
            true
        });
        assert_eq!((taken.unwrap(), seen), (3, vec![(0, 60), (1, 61), (2, 62)]));
        assert_eq!(rx.consume(|_, _, _| true).unwrap(), 2);
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
        let mut seen = Vec::new();
        Rx(Queue::at(&m, AT, 8).unwrap()).consume(|a, _, _| (seen.push(a), true).1).unwrap();
        assert_eq!(seen, [1, 4]);
    }
}

#[test]
fn a_scribbled_cursor_is_an_error_and_not_a_runaway() {
    for start in starts() {
        let m = memory(start);
        let q = Fill::at(&m, AT, 8).unwrap();
        m.object::<AtomicU32>(AT.producer).unwrap().store(start.wrapping_add(9), Relaxed);
        assert!(matches!(q.consume(|_| ()), Err(QueueError::Corrupt)));
        assert!(matches!(q.produce(|| Some(1)), Err(QueueError::Corrupt)));
        m.object::<AtomicU32>(AT.consumer).unwrap().store(start.wrapping_add(100), Relaxed);
        assert!(q.consume(|_| ()).is_err() && q.produce(|| Some(1)).is_err());
    }
}
