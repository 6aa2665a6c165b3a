//! Forwarding from NIC to NIC without a copy: every frame arrives, once, in order and unchanged. A short run by default;
//! `make soak` carries ten million.

mod nic_common;

use netmap_xdp::api::{DropReason, Interest, Port, wait_many};
use netmap_xdp_tests::{Pair, Veth};
use nic_common::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::time::Instant;

/// Frames under way at most: below what the smallest ring on the way holds, veth's own of 256.
const UNDER_WAY: u64 = 192;
/// Slots of a ring, of which as many as are under way may have been released and not yet given back to the kernel.
const SLOTS: u64 = 1024;
const HEAD: usize = 24;

/// Content of all frames: each shows a window of it.
fn text() -> Vec<u8> {
    (0..80_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn length(seq: u64, most: usize) -> usize {
    match seq % 5 {
        0 => 60,
        1 => most,
        _ => 60 + (seq.wrapping_mul(7919) % (most as u64 - 59)) as usize,
    }
}

/// Frame `seq`: header, number, length, and a window of the text that its number tells.
fn build(seq: u64, most: usize, text: &[u8], frame: &mut Vec<u8>) {
    let len = length(seq, most);
    frame.clear();
    frame.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.extend(seq.to_be_bytes());
    frame.extend((len as u16).to_be_bytes());
    let from = (seq.wrapping_mul(31) % 70_000) as usize;
    frame.extend(&text[from..from + len - HEAD]);
}

fn send(port: &mut Port, count: u64, most: usize, received: &AtomicU64) {
    let (text, mut frame) = (text(), Vec::new());
    let under_way = UNDER_WAY.min(SLOTS / 2 / (most as u64).div_ceil(2048) - 1);
    let mut seq = 0;
    while seq < count {
        while seq < count && seq.saturating_sub(received.load(Acquire)) < under_way {
            build(seq, most, &text, &mut frame);
            if !push(&mut port.tx(0), &frame) {
                break;
            }
            seq += 1;
        }
        port.sync_tx().unwrap();
        // Leaves the processor to those who work on what is under way.
        std::thread::sleep(SECOND / 20_000);
    }
    // What a kick left behind.
    while received.load(Acquire) < count {
        port.sync_tx().unwrap();
        std::thread::sleep(SECOND / 1000);
    }
}

/// Forwards until it is to stop; returns what was dropped at either port.
fn forward(from: &mut Port, to: &mut Port, stop: &AtomicBool) -> [Vec<DropReason>; 2] {
    while !stop.load(Relaxed) {
        let ready = wait_many(&mut [(from, Interest::READ), (to, Interest::default())], Some(SECOND / 20));
        assert!(!ready.unwrap().iter().any(|r| r.error));
        swap_on(from, to);
    }
    [from.drops(), to.drops()]
}

fn receive(port: &mut Port, count: u64, most: usize, received: &AtomicU64) {
    let (text, mut expected) = (text(), Vec::new());
    let (mut seq, mut since) = (0, Instant::now());
    while seq < count {
        assert!(!port.wait(Interest::READ, Some(SECOND / 10)).unwrap().error);
        let frames = take(port, 0);
        if !frames.is_empty() {
            since = Instant::now();
        }
        assert!(since.elapsed() < 10 * SECOND, "frame {seq} of {count} is lost: {:?}", port.drops());
        for frame in frames {
            build(seq, most, &text, &mut expected);
            let number = u64::from_be_bytes(frame[14..22].try_into().unwrap());
            assert_eq!(number, seq, "lost, doubled or out of order");
            assert!(frame == expected, "frame {seq} of {} bytes was changed", expected.len());
            seq += 1;
        }
        received.store(seq, Release);
    }
    // Nothing comes twice.
    assert!(!port.wait(Interest::READ, Some(SECOND / 5)).unwrap().read, "more frames than were sent");
}

fn forwarded(mtu: u32, count: u64) {
    let shape = || Veth::new().mtu(mtu).build();
    let (left, right): (Pair, Pair) = (shape(), shape());
    let (mut source, mut sink) = (open(&left.a, "netmap:{}"), open(&right.b, "netmap:{}"));
    let (mut inner, mut outer) = (open(&left.b, "netmap:{}"), open(&right.a, "netmap:{}"));
    let (received, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let most = mtu as usize + 14;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let forwarder = scope.spawn(|| forward(&mut inner, &mut outer, &stop));
        scope.spawn(|| send(&mut source, count, most, &received));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            receive(&mut sink, count, most, &received);
        }));
        stop.store(true, Relaxed);
        if let Err(why) = done {
            // A drop that somebody counted, on the way or in a socket, or a loss of ours?
            for end in [&left.a, &left.b, &right.a, &right.b] {
                let counters = end.command("ip").args(["-s", "-s", "link", "show", "dev", end.dev]).run();
                println!("{}", counters.stdout);
            }
            println!("dropped while forwarding: {:?}", forwarder.join());
            received.store(u64::MAX / 2, Release);
            std::panic::resume_unwind(why);
        }
    });
    let rate = count as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("{count} frames of 60 to {most} bytes, none lost, doubled or changed; {rate:.3} Mpps");
    assert_eq!((inner.drops(), outer.drops(), sink.drops()), (vec![], vec![], vec![]));
    drop((source, sink, inner, outer));
    assert_all_buffers_returned();
}

#[test]
fn frames_of_all_sizes_are_forwarded_none_lost_doubled_or_changed() {
    alone!("NETMAP_XDP_MODE" = "native");
    forwarded(1500, soak().unwrap_or(20_000));
}

#[test]
fn jumbo_frames_are_forwarded_none_lost_doubled_or_changed() {
    alone!("NETMAP_XDP_MODE" = "native");
    netmap_xdp_tests::since!((6, 6), "frames of several buffers");
    forwarded(9000, soak().unwrap_or(5_000));
}
