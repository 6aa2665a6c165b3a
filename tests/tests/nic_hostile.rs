//! Programs that write nonsense into their rings: the ring is mended and `POLLERR` says so, traffic flows again, other
//! rings and ports notice nothing, and no buffer is lost that the program did not throw away.

mod nic_common;

use netmap_xdp::api::Interest;
use netmap_xdp::client::{Binding, settled};
use netmap_xdp::ctl::Spec;
use netmap_xdp::ring::Dir;
use netmap_xdp::sync::Ordering::Relaxed;
use netmap_xdp_tests::{End, Veth, needs_root};
use nic_common::*;
use std::path::PathBuf;
use std::sync::OnceLock;

macro_rules! scenarios {
    ($program:ident: $($name:ident)*) => {
        fn $program() -> &'static PathBuf {
            static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
            PROGRAM.get_or_init(|| c_test(stringify!($program)))
        }
        $(
            #[test]
            fn $name() {
                needs_root!();
                run_scenario($program(), stringify!($name), Veth::new().queues(2), &[]);
            }
        )*
    };
}

scenarios! {
    nic_scribble:
    bad_cursors_are_noticed_and_mended
    cursors_out_of_order_are_noticed_and_mended
    syncs_mend_bad_cursors
    bad_buffers_are_noticed_and_mended
    bad_lengths_and_flags_do_no_harm
    an_endless_chain_is_dropped
    a_transmit_ring_is_spoilt_while_it_works
    a_receive_ring_is_spoilt_while_it_works
}

/// A port with all that is in its memory.
fn bind(end: &End) -> Binding {
    let spec = Spec::parse(&format!("netmap:{}", end.dev)).unwrap();
    end.ns.run(|| {
        let binding = Binding::new(None);
        binding.register(&spec.register()).unwrap();
        binding
    })
}

#[test]
fn buffers_are_accounted_for_whatever_is_written_into_cursors() {
    alone!();
    let (left, right) = (Veth::new().build(), Veth::new().build());
    let (mut a, mut b) = (open(&left.a, "netmap:{}"), open(&left.b, "netmap:{}"));
    let before = settled();
    for turn in 0..3u32 {
        let spoilt = bind(&right.a);
        let bound = spoilt.bound().unwrap();
        for value in (0..200).map(|i: u32| i.wrapping_mul(2_654_435_761) >> (i % 3 * 10)) {
            for dir in [Dir::Tx, Dir::Rx] {
                let ring = bound.rings(dir)[0].kring().ring();
                let field = [&ring.head, &ring.cur, &ring.tail][(value % 3) as usize];
                field.store(value.wrapping_add(turn), Relaxed);
                let _ = spoilt.sync(dir);
                assert!(
                    ring.head.load(Relaxed) < 1024 && ring.cur.load(Relaxed) < 1024 && ring.tail.load(Relaxed) < 1024
                );
            }
        }
        drop(spoilt);
        assert_eq!(settled(), before);
        carry(&mut a, 0, &mut b, 0, &frames(50, 60, 1514));
    }
    drop((a, b));
    assert_all_buffers_returned();
}

#[test]
fn a_buffer_of_another_port_is_not_freed_with_the_one_that_claims_it() {
    alone!();
    let (left, right) = (Veth::new().build(), Veth::new().build());
    let (mut a, mut b) = (open(&left.a, "netmap:{}"), open(&left.b, "netmap:{}"));
    let victim = a.tx(0).slot(0).unwrap().buf_idx();
    let before = settled().unwrap();
    let thief = bind(&right.a);
    for dir in [Dir::Tx, Dir::Rx] {
        let kring = thief.bound().unwrap().rings(dir)[0].kring();
        for i in 0..64 {
            kring.slot(i).buf_idx.store(victim + i, Relaxed);
        }
    }
    drop(thief);
    // What it threw away stays lost until the region goes; what it stole is not given to anybody else.
    let after = settled().unwrap().free;
    assert!(after <= before.free && after + 128 >= before.free, "{before:?}, then {after} free");
    carry(&mut a, 0, &mut b, 0, &frames(1100, 60, 1514));
    let mut again = open(&right.a, "netmap:{}");
    let theirs: Vec<u32> = (0..1023).map(|i| again.tx(0).slot(i).unwrap().buf_idx()).collect();
    assert!(!theirs.contains(&victim), "one buffer in two ports");
    assert!(!again.wait(Interest::READ, Some(SECOND / 50)).unwrap().error);
    drop((a, b, again));
    assert_all_buffers_returned();
}
