//! The control path as only a C program sees it, preloaded: with the engine in the process, and with a netmapd. No rights
//! needed. The scenarios are functions of `c/control.c`.

use netmap_xdp_tests::{Cmd, Daemons, compile_c, workspace};
use std::path::PathBuf;
use std::sync::LazyLock;

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| compile_c(&workspace().join("tests/c/control.c"), "control", &[]));

fn run(scenario: &str) {
    let daemons = Daemons::new();
    let _daemon = daemons.start(&[]);
    for engine in ["embedded", "daemon"] {
        let done = daemons.with(Cmd::new(&*PROGRAM).arg(scenario), engine).run().expect_success();
        assert_eq!(done.stdout, "ok\n", "{done}");
    }
}

#[test]
fn interface_requests_go_to_sockets_and_not_to_netmap() {
    run("interface_requests");
}

#[test]
fn a_mapping_is_shared_and_within_the_region() {
    run("mapping");
}

#[test]
fn a_null_port_swallows_packets() {
    run("null_port");
}

#[test]
fn parameters_of_the_module_are_answered_without_one() {
    run("parameters");
}
