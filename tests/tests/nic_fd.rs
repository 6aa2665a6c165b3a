//! The life of a netmap descriptor: copies, fork, exec, mappings, and interfaces that change under it. The scenarios are
//! functions of these names in `c/nic_fd.c` and `c/nic_wait.c`, run with the library preloaded.

mod nic_common;

use netmap_xdp_tests::{Veth, needs_root};
use nic_common::{c_test, run_scenario};
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
                run_scenario($program(), stringify!($name), Veth::new(), &[]);
            }
        )*
    };
}

scenarios! {
    nic_fd:
    a_duplicate_is_the_same_port
    dup2_releases_what_it_replaces
    a_mapping_keeps_the_port
    a_port_that_is_never_mapped_works
    a_child_that_exits_leaves_the_port_alone
    a_child_uses_the_port_of_its_parent
    a_child_keeps_what_its_parent_closed
    a_daemon_keeps_the_port_of_its_dead_parent
    exec_releases_the_port
    a_program_that_runs_another_keeps_its_port
    closing_every_unknown_descriptor_keeps_the_port
    many_openings_leave_nothing_behind
    exit_without_a_close
}

scenarios! {
    nic_wait:
    poll_mixes_ports_and_files
    select_tells_what_poll_tells
    a_signal_interrupts_a_wait
    a_program_that_was_stopped_goes_on_waiting
    an_idle_wait_takes_its_time_and_no_processor
    two_waiters_on_one_ring_both_wake
    a_waiter_wakes_while_another_thread_syncs
    a_waiter_wakes_while_another_process_syncs
    every_sleeper_on_a_ring_is_woken
    a_receiver_notices_that_its_interface_is_gone
    a_sender_notices_that_its_interface_is_gone
    whoever_waits_for_either_notices_that_the_interface_is_gone
    syncs_alone_notice_that_the_interface_is_gone
    an_interface_goes_down_and_up_again
    an_interface_changes_its_name
    a_receiver_that_slept_leaves_nothing_in_wait_queues
}
