//! epoll on netmap descriptors: the scenarios are functions of these names in `c/epoll.c`, run with the library preloaded on
//! the ends of a netmap pipe, with the engine in the process and in `netmapd`.

use netmap_xdp_tests::{Cmd, Daemons, compile_c, workspace};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile_c(&workspace().join("tests/c/epoll.c"), "epoll", &["-pthread"]))
}

fn scenario(name: &str) {
    let command = || Cmd::new(program()).arg(name).timeout(Duration::from_secs(60));
    let done = command().preload().env("NETMAP_XDP_ENGINE", "embedded").run().expect_success();
    assert!(done.stdout.contains("ok"), "{done}");
    let daemons = Daemons::new();
    let done = daemons.with(command(), "auto").run().expect_success();
    assert!(done.stdout.contains("ok"), "through netmapd: {done}");
}

macro_rules! scenarios {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            scenario(stringify!($name));
        }
    )* };
}

scenarios! {
    level_triggered_is_told_as_long_as_it_holds
    a_wait_sends_what_was_put_into_rings
    edge_triggered_is_told_once_for_each_arrival
    one_shot_is_told_once_until_it_is_set_anew
    other_files_are_told_too_and_nobody_starves
    errors_are_those_of_linux
    a_descriptor_that_is_not_bound_is_an_error_until_it_is
    closing_takes_it_out_of_the_set_and_a_copy_keeps_it_there
    sleepers_are_woken_by_packets_and_by_changes_of_the_set
    threads_share_a_set_and_each_event_goes_to_one
    copies_children_and_other_waits_see_the_set
    limits_and_signals_end_a_wait
    a_thread_that_sleeps_on_a_port_can_be_cancelled
    longer_waits_than_one_slice_keep_their_limits_and_their_sets
}
