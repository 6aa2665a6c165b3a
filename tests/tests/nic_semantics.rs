//! What netmap promises about rings, slots and poll, tried by a C program as the programs of others are: preloaded, on a
//! veth pair whose ends both lie in its namespace. The scenarios are functions of these names in `c/nic_semantics.c`.

mod nic_common;

use netmap_xdp_tests::{Veth, needs_root};
use nic_common::{c_test, run_scenario};
use std::path::PathBuf;
use std::sync::OnceLock;

fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| c_test("nic_semantics"))
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                needs_root!();
                run_scenario(program(), stringify!($name), Veth::new(), &[]);
            }
        )*
    };
}

scenarios! {
    tx_cur_at_tail_waits_for_more_room
    a_reported_slot_comes_back_with_its_own_sync
    rx_slots_behind_cur_are_held
    poll_for_packets_also_sends
    poll_does_not_send_when_told_so
    a_descriptor_that_is_not_bound_reports_an_error
    a_descriptor_is_bound_once
    sent_slots_keep_their_contents
    a_full_ring_is_sent_and_comes_back
    private_fields_are_left_alone
    a_receive_sync_tells_the_time
    extra_buffers_are_a_list_and_come_back
    one_buffer_may_be_in_several_slots
    buffers_move_between_rings
    slots_are_read_by_the_sync
    one_packet_per_sync
    a_frame_that_cannot_be_sent_leaves_its_slot
}

#[test]
fn all_of_it_holds_in_generic_mode() {
    needs_root!();
    run_scenario(program(), "all", Veth::new(), &[("NETMAP_XDP_MODE", "generic")]);
}

#[test]
fn all_of_it_holds_with_aligned_buffers() {
    needs_root!();
    run_scenario(program(), "all", Veth::new(), &[("NETMAP_XDP_UMEM", "aligned")]);
}
