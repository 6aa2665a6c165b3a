//! libnetmap: the C API, from C programs. Layouts and names need nothing; ports are opened on veth pairs in namespaces.
//!
//! The checks are in `c/libnetmap_*.c` for the most part. Needs gcc and clang, for C and C++, and valgrind.

use netmap_xdp_tests::{Cmd, Namespace, Veth, cdylib, compile_c, needs_root, tool, workspace};
use std::collections::BTreeMap;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// What the cdylib lays out, for the comparison with the header.
#[path = "../../compat-c/src/libnetmap/types.rs"]
mod types;

/// Stands in for the type that C programs never see.
mod cleanup {
    pub struct Cleanup;
}

/// Compilers and languages that the header must please.
const MATRIX: &[(&str, &str, &[&str])] = &[
    ("gcc", "c", &["c11", "gnu17"]),
    ("clang", "c", &["c11", "gnu17"]),
    ("g++", "c++", &["c++11", "c++17", "c++20"]),
    ("clang++", "c++", &["c++11", "c++17", "c++20"]),
];

fn source(name: &str) -> PathBuf {
    workspace().join("tests/c").join(name)
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// A C program, linked with the library; compiled once.
fn program(name: &'static str) -> &'static Path {
    static PROGRAMS: OnceLock<BTreeMap<&str, PathBuf>> = OnceLock::new();
    let compile = |name| {
        let dir = cdylib().parent().expect("a directory").display().to_string();
        let flags = [format!("-L{dir}"), "-lnetmap_xdp".into(), format!("-Wl,-rpath,{dir}")];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        (name, compile_c(&source(&format!("{name}.c")), name, &flags))
    };
    let all = ["libnetmap_names", "libnetmap_unit", "libnetmap_port"];
    &PROGRAMS.get_or_init(|| all.into_iter().map(compile).collect())[name]
}

/// A file for extmem, of two pages.
fn extmem_file(name: &str) -> PathBuf {
    let path = scratch(name);
    std::fs::write(&path, [0; 8192]).expect("a file");
    path
}

/// The same lines that `c/libnetmap_layout.c` prints, from the Rust side.
fn rust_layout() -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    macro_rules! structures {
        ($($c:ident $t:ident { $($f:ident)* })*) => { $(
            lines.insert(stringify!($c).to_string(), size_of::<types::$t>());
            $(lines.insert(concat!(stringify!($c), ".", stringify!($f)).to_string(), offset_of!(types::$t, $f));)*
        )* };
    }
    structures! {
        nmport_d Port {
            hdr reg mem ctx register_done mmap_done extmem fd nifp first_tx_ring last_tx_ring first_rx_ring last_rx_ring
            cur_tx_ring cur_rx_ring clist
        }
        nmctx Context { verbose error malloc free lock mem_descs }
        nmem_d Region { mem_id refcount mem size is_extmem next prev }
        nmreq_opt_key OptionKey { key id flags }
        nmreq_opt_parser OptionParser { prefix parse default_key nr_keys flags next keys }
        nmreq_parse_ctx ParseContext { ctx token keys }
    }
    for (name, value) in [
        ("nmreq_opt_parser:align", align_of::<types::OptionParser>()),
        ("NMREQ_OPT_MAXKEYS", types::MAX_KEYS),
        ("NMREQ_OPTK_ALLOWEMPTY", types::KEY_ALLOW_EMPTY as usize),
        ("NMREQ_OPTK_MUSTSET", types::KEY_MUST_SET as usize),
        ("NMREQ_OPTK_DEFAULT", types::KEY_DEFAULT as usize),
        ("NMREQ_OPTF_DISABLED", types::OPTION_DISABLED as usize),
        ("NMREQ_OPTF_ALLOWEMPTY", types::OPTION_ALLOW_EMPTY as usize),
    ] {
        lines.insert(name.into(), value);
    }
    lines
}

#[test]
fn c_and_rust_have_the_same_layout_and_no_compiler_complains() {
    for &(compiler, language, standards) in MATRIX {
        for standard in standards {
            let path = scratch(&format!("libnetmap_layout-{compiler}-{standard}"));
            let flags = ["-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-x", language, "-I"];
            let cc = Cmd::new(compiler).arg(format!("-std={standard}")).args(flags);
            let cc = cc.arg(workspace().join("compat-c/include")).arg(source("libnetmap_layout.c"));
            cc.arg("-o").arg(&path).run().expect_success();
            let out = Cmd::new(&path).run().expect_success().stdout;
            let line =
                |line: &str| line.split_once(' ').map(|(name, value)| (name.into(), value.parse().expect("a size")));
            assert_eq!(
                out.lines().filter_map(line).collect::<BTreeMap<_, _>>(),
                rust_layout(),
                "{compiler} {standard}"
            );
        }
    }
}

/// What `c/libnetmap_names.c` prints for a name: `errno N`, or the request, of which the parts that are zero are left out
/// here.
const NAMES: &[(&str, &str)] = &[
    ("netmap:eth0", "eth0 mode 1"),
    ("netmap:eth0-1", "eth0 mode 4 ring 1"),
    ("netmap:eth0-4094", "eth0 mode 4 ring 4094"),
    ("netmap:eth0^", "eth0 mode 2"),
    ("netmap:eth0^3/R", "eth0 mode 8 ring 3 flags 2000"),
    ("netmap:eth0*", "eth0 mode 3"),
    ("netmap:eth0.100", "eth0.100 mode 1"),
    ("netmap:a:b", "a:b mode 1"),
    ("netmap:eth0/xzrtRT", "eth0 mode 1 flags 6f00"),
    ("netmap:eth0/x@7", "eth0 mode 1 flags 800 mem 7"),
    ("netmap:eth0@7/T@7", "eth0 mode 1 flags 4000 mem 7"),
    ("netmap:eth0/@7", "eth0 mode 1 mem 7"),
    ("netmap:eth0@65537", "eth0 mode 1 mem 1"),
    ("netmap:eth0{1", "eth0{1 mode 1"),
    ("netmap:eth0}word_2-0/x", "eth0}word_2 mode 4 flags 800"),
    ("netmap:eth0{-1", "eth0{ mode 4 ring 1"),
    ("vale0:1", "vale0:1 mode 1"),
    ("vale:1", "vale:1 mode 1"),
    ("vale:", "vale: mode 1"),
    ("valeA_b:x}y-4", "valeA_b:x}y mode 4 ring 4"),
    ("netmap:e@conf:rings=2,slots=512,host-rings=3", "e mode 1 rings 2 2 host 3 3 slots 512 512"),
    ("netmap:e@conf:tx-rings=3,rings=2,rx_slots=7", "e mode 1 rings 3 2 slots 0 7"),
    ("netmap:e@conf:host-tx-rings=1,tx_slots=5@conf:rx-rings=4", "e mode 1 rings 0 4 host 1 0 slots 5 0"),
    ("netmap:e@conf:rings=65538,slots= +6,host-rings=x", "e mode 1 rings 2 2 slots 6 6"),
    ("netmap:e@conf:rings=,rings=1", "e mode 1 rings 1 1"),
    ("netmap:e@conf:", "e mode 1"),
    ("", "errno 22"),
    ("eth0", "errno 22"),
    ("netmap", "errno 22"),
    ("netmap0:eth0", "errno 22"),
    ("netmap:", "errno 22"),
    ("netmap:^", "errno 22"),
    ("netmap:eth0{", "errno 22"),
    ("netmap:eth0{a.b", "errno 22"),
    ("netmap:eth0{1}2", "errno 22"),
    ("vale-0:1", "errno 22"),
    ("vale0", "errno 22"),
    ("netmap:br-lan", "errno 22"),
    ("netmap:eth0-", "errno 22"),
    ("netmap:eth0-4095", "errno 22"),
    ("netmap:eth0-99999999999999999999", "errno 34"),
    ("netmap:eth0^x", "errno 22"),
    ("netmap:eth0-1-2", "errno 22"),
    ("netmap:eth0/", "errno 22"),
    ("netmap:eth0/q", "errno 22"),
    ("netmap:eth0/x/x", "errno 22"),
    ("netmap:eth0@", "errno 22"),
    ("netmap:eth0@0", "errno 22"),
    ("netmap:eth0@1@2", "errno 22"),
    ("netmap:eth0@@1", "errno 22"),
    ("netmap:e@conf", "errno 22"),
    ("netmap:e@conf=1", "errno 22"),
    ("netmap:e@conf:rings", "errno 22"),
    ("netmap:e@conf:rings=1,", "errno 22"),
    ("netmap:e@conf:rings=1,rings=2", "errno 22"),
    ("netmap:e@conf:ring=1", "errno 22"),
    ("netmap:e@conf:rings=1@1", "errno 22"),
    ("netmap:e@nothing", "errno 22"),
    ("netmap:e@offset=8", "errno 95"),
    ("netmap:e@extmem=/nonexistent", "errno 2"),
    ("netmap:e@extmem:if-num=1", "errno 22"),
    ("netmap:e@share=", "errno 22"),
    ("netmap:e@share=bogus", "errno 22"),
];

/// Parses names, and returns a line for each without the parts that are zero.
fn parse(first: &[&str], names: &[String]) -> Vec<String> {
    let out = Cmd::new(program("libnetmap_names")).args(first).args(names).run().expect_success().stdout;
    let short = |line: &str| {
        ["ring 0", "flags 0", "mem 0", "rings 0 0", "host 0 0", "slots 0 0"]
            .iter()
            .fold(format!("{line} "), |line, zero| line.replace(&format!(" {zero} "), " "))
    };
    out.lines().map(|line| short(line).trim_end().to_string()).collect()
}

#[test]
fn names_become_requests_or_errors() {
    let names: Vec<String> = NAMES.iter().map(|(name, _)| name.to_string()).collect();
    let lines = parse(&[], &names);
    assert_eq!(lines.len(), NAMES.len());
    for ((name, expected), line) in NAMES.iter().zip(lines) {
        assert_eq!(line, *expected, "{name:?}");
    }
    for (prefix, limit) in [("netmap:", 63), ("vale:", 58)] {
        let long = |n: usize| format!("{prefix}{}", "a".repeat(n));
        let lines = parse(&[], &[long(limit), long(limit + 1)]);
        assert!(lines[0].contains(" mode 1") && lines[1] == "errno 22", "{lines:?}");
    }
}

#[test]
fn extmem_and_offsets_become_options() {
    let file = extmem_file("libnetmap-names");
    let name = |keys: &str| format!("netmap:e@extmem{keys}").replace("FILE", file.to_str().expect("a name in UTF-8"));
    let keys = ":file=FILE,if-num=1,if-size=2,ring-num=3,ring_size=4,buf-num=5,buf-size=-1";
    let lines = parse(
        &["-o"],
        &[name("=FILE"), name(keys), "netmap:e@offset=8".into(), "netmap:e@offset:bits=12,initial=9".into()],
    );
    let info = ["extmem(8192 0*0 0*0 0*0)", "extmem(8192 1*2 3*4 5*4294967295)", "offsets(8 8 0)", "offsets(9 9 12)"];
    assert_eq!(lines, info.map(|option| format!("e mode 1 {option}")));
}

#[test]
fn contexts_options_and_memory_behave() {
    let file = extmem_file("libnetmap-unit");
    Cmd::new(program("libnetmap_unit")).arg(&file).run().expect_success();
}

#[test]
fn no_memory_is_leaked_or_misused() {
    let file = extmem_file("libnetmap-valgrind");
    let valgrind = Cmd::new("valgrind").args(["--quiet", "--leak-check=full", "--error-exitcode=9"]);
    valgrind.arg(program("libnetmap_unit")).arg(&file).timeout(Duration::from_secs(120)).run().expect_success();
}

/// What `make install` installs of it, in a directory.
fn installed() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = scratch("libnetmap-installed");
        let _ = std::fs::remove_dir_all(&dir);
        let built = tool("libnetmap_xdp.so").parent().expect("a directory").to_path_buf();
        // Not `build`: that would build for release.
        let make = Cmd::new("make").arg("-C").arg(workspace()).args(["--old-file=build", "install", "PREFIX=/p"]);
        let make = make.arg(format!("RELEASE={}", built.display())).arg(format!("DESTDIR={}", dir.display()));
        make.run().expect_success();
        dir.join("p")
    })
}

#[test]
fn programs_link_with_lnetmap_and_with_the_archive() {
    let lib = installed().join("lib");
    let dir = lib.display().to_string();
    let ways: [&[&str]; 3] = [
        &[&format!("-L{dir}"), "-lnetmap"],
        &[&format!("-L{dir}"), "-l:libnetmap.a"],
        &[&format!("{dir}/libnetmap.a")],
    ];
    for (i, way) in ways.into_iter().enumerate() {
        let path = scratch(&format!("libnetmap_names-linked-{i}"));
        let cc = Cmd::new("cc").arg("-I").arg(installed().join("include")).arg(source("libnetmap_names.c"));
        cc.args(way).arg("-o").arg(&path).run().expect_success();
        let needed = Cmd::new("readelf").args(["-d", "--wide"]).arg(&path).run().expect_success().stdout;
        assert!(needed.contains("[libnetmap_xdp.so]") && !needed.contains("[libnetmap.so]"), "{needed}");
        let run = Cmd::new(&path).env("LD_LIBRARY_PATH", &dir).arg("netmap:eth0-1").run().expect_success();
        assert!(run.stdout.starts_with("eth0 mode 4 ring 1 "), "{run}");
    }
}

#[test]
fn pkg_config_finds_it() {
    let dir = installed().join("lib/pkgconfig");
    let flags = Cmd::new("pkg-config").env("PKG_CONFIG_PATH", &dir).args(["--cflags", "--libs", "libnetmap"]).run();
    assert_eq!(flags.expect_success().stdout.trim(), "-I/p/include -L/p/lib -lnetmap");
}

#[test]
fn frames_travel_between_ports_that_were_opened_by_name() {
    needs_root!();
    // Fewer than the receiver's ring holds, so that none is lost however slow it is.
    const FRAMES: &str = "500";
    let pair = Veth::new().build();
    let mut receiver = pair.b.command(program("libnetmap_port")).args(["recv", "netmap:veth1-0", FRAMES]).spawn();
    receiver.wait_for("ready", Duration::from_secs(10));
    let sender = pair.a.command(program("libnetmap_port")).args(["send", "netmap:veth0-0", FRAMES]).run();
    sender.expect_success();
    assert_eq!(receiver.wait(Duration::from_secs(10)).expect_success().field("received"), Some(500));
    pair.assert_no_xdp();
}

#[test]
fn inject_fills_rings_and_touches_nothing_else() {
    needs_root!();
    let pair = Veth::new().queues(2).build();
    pair.a.command(program("libnetmap_port")).args(["rings", "netmap:veth0"]).run().expect_success();
    pair.assert_no_xdp();
}

#[test]
fn ports_of_one_region_share_its_mapping() {
    needs_root!();
    let pair = Veth::new().build();
    pair.a.command(program("libnetmap_port")).args(["share", "netmap:veth0"]).run().expect_success();
    pair.assert_no_xdp();
}

#[test]
fn a_port_that_cannot_be_opened_leaves_nothing_behind() {
    needs_root!();
    let ns = Namespace::new();
    ns.command(program("libnetmap_port")).args(["fail", "any"]).run().expect_success();
}

#[test]
fn threads_open_and_close_ports_at_once() {
    needs_root!();
    let pair = Veth::new().build();
    pair.a.command(program("libnetmap_port")).args(["threads", "netmap:veth0"]).run().expect_success();
    pair.assert_no_xdp();
}

#[test]
fn a_port_of_another_is_shared_by_name() {
    needs_root!();
    let ns = Namespace::new();
    // No region exists yet, so any id will do; what counts is that the name was looked up.
    let names =
        ns.command(program("libnetmap_names")).args(["netmap:x@share=netmap:lo", "netmap:x@share=netmap:none"]).run();
    let lines = names.expect_success().stdout;
    assert!(lines.starts_with("x mode 1") && lines.ends_with("errno 6\n"), "{lines}");
}
