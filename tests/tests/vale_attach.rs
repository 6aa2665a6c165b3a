//! NICs, host rings and persistent ports attached to switches: traffic through them, who is refused what, and what becomes of
//! them when interfaces, programs and netmapd die.

mod nic_common;

use netmap_xdp::api::control::{self, Shape};
use netmap_xdp_tests::{End, Veth, wait_until};
use nic_common::*;

/// In the namespace of an end.
fn at<T: Send>(end: &End, f: impl FnOnce() -> T + Send) -> T {
    end.ns.run(f)
}

fn attach(end: &End, name: &str) -> u32 {
    at(end, || control::attach(name, false, Shape::default()).unwrap_or_else(|e| panic!("{name}: {e}")))
}

fn detach(end: &End, name: &str) {
    at(end, || control::detach(name).unwrap_or_else(|e| panic!("{name}: {e}")));
}

#[test]
fn frames_cross_between_a_switch_and_the_wire_byte_by_byte() {
    alone!();
    let pair = Veth::new().build();
    let mut wire = open(&pair.b, "netmap:{}");
    let mut port = open(&pair.a, "vale0:p");
    assert_eq!(attach(&pair.a, "vale0:veth0"), 1);
    carry(&mut wire, 0, &mut port, 0, &frames(3000, 28, 1514));
    carry(&mut port, 0, &mut wire, 0, &frames(3000, 28, 1514));
    assert_eq!((port.drops(), wire.drops()), (vec![], vec![]));
    detach(&pair.a, "vale0:veth0");
    pair.a.assert_no_xdp();
    drop((wire, port));
    assert_all_buffers_returned();
    pair.assert_no_xdp();
}
