//! Memory of programs as regions of netmapd's. No rights needed.

use netmap_xdp_tests::{Cmd, Daemons, compile_c, workspace};

#[test]
fn processes_meet_in_a_file_and_its_end_harms_nobody() {
    let program = compile_c(&workspace().join("tests/c/daemon_extmem.c"), "daemon_extmem", &[]);
    let daemons = Daemons::new();
    let _daemon = daemons.start(&[]);
    let before = daemons.pids();
    let file = std::path::Path::new("/dev/shm").join(format!("nmx-extmem-{}", std::process::id()));
    let done = daemons.with(Cmd::new(program).arg(&file), "daemon").run();
    let _ = std::fs::remove_file(&file);
    let done = done.expect_success();
    assert_eq!(done.stdout, "two processes met in the file\nthe file was cut off\n", "{done}");
    assert_eq!(daemons.pids(), before, "netmapd lives");
}
