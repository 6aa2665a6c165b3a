//! With libnetmap_xdp.so loaded, a program that has nothing to do with netmap runs exactly as without it: same results,
//! same errno, same outputs. And the library is what it should be from outside: its symbols, what it needs, its name.
//!
//! Needs a C compiler (`CC`, default `cc`), `nm` and `readelf`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// What the library puts before libc. Other symbols that it may export belong to the libnetmap API.
const INTERPOSED: &[&str] = &[
    "__close",
    "__dup2",
    "__fcntl",
    "__open",
    "__open64",
    "__open64_2",
    "__open_2",
    "__openat64_2",
    "__openat_2",
    "__poll",
    "__poll_chk",
    "__ppoll_chk",
    "__select",
    "access",
    "close",
    "close_range",
    "closefrom",
    "dup",
    "dup2",
    "dup3",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "fcntl",
    "fcntl64",
    "fopen",
    "fopen64",
    "ioctl",
    "mmap",
    "mmap64",
    "munmap",
    "open",
    "open64",
    "openat",
    "openat64",
    "poll",
    "ppoll",
    "pselect",
    "select",
];

/// How the names of the libnetmap API begin.
const LIBNETMAP: &[&str] = &["nmport_", "nmreq_", "nmctx_"];

/// What the library may need at run time.
const NEEDED: &[&str] = &["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn text_of(command: &mut Command) -> String {
    let out = run(command);
    assert!(out.status.success(), "{command:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// The library, built as the tests were.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let target = scratch().parent().expect("the target directory");
        let (profile, dir) = if cfg!(debug_assertions) { ("dev", "debug") } else { ("release", "release") };
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "netmap-xdp-compat-c", "--profile", profile, "--target-dir"]).arg(target);
        text_of(build.current_dir(env!("CARGO_MANIFEST_DIR")));
        target.join(dir).join("libnetmap_xdp.so")
    })
}

fn cc(arguments: &[&str], sources: &[&str], output: &Path) {
    let mut cc = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()));
    let c = Path::new(env!("CARGO_MANIFEST_DIR")).join("c");
    text_of(cc.args(sources.iter().map(|s| c.join(s))).args(arguments).arg("-o").arg(output));
}

/// How the C program is compiled.
#[derive(Clone, Copy, Debug)]
enum Build {
    Plain,
    /// So that the checking and the 64-bit names of functions are called.
    Fortified,
}

/// A directory with the C program, its library and room for its files.
struct Program {
    dir: PathBuf,
    path: PathBuf,
}

impl Program {
    fn build(test: &str, build: Build) -> Program {
        let dir = scratch().join(format!("transparency-{test}-{build:?}"));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a directory");
        cc(&["-shared", "-fPIC"], &["transparency_early.c"], &dir.join("libearly.so"));
        let path = dir.join("transparency");
        let place = dir.to_str().expect("a name in UTF-8");
        let (search, run_time) = (format!("-L{place}"), format!("-Wl,-rpath,{place}"));
        let mut arguments = vec!["-w", "-DEARLY", "-pthread", &search, &run_time, "-Wl,--no-as-needed", "-learly"];
        arguments.extend_from_slice(match build {
            Build::Plain => &["-O0", "-U_FORTIFY_SOURCE"],
            Build::Fortified => &["-O2", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-D_FILE_OFFSET_BITS=64"],
        });
        cc(&arguments, &["transparency.c"], &path);
        Program { dir, path }
    }

    fn run(&self, what: &str, preload: bool) -> Output {
        let mut command = Command::new(&self.path);
        command.arg(&self.dir).arg(what).env("NETMAP_XDP_LOG", "off");
        if preload {
            command.env("LD_PRELOAD", library());
        }
        run(&mut command)
    }
}

#[track_caller]
fn assert_same(without: &Output, with: &Output) {
    let lines = |out: &Output| {
        let text = [out.stdout.as_slice(), out.stderr.as_slice()].concat();
        String::from_utf8_lossy(&text).lines().map(String::from).collect::<Vec<_>>()
    };
    let (a, b) = (lines(without), lines(with));
    for (i, a) in a.iter().enumerate() {
        assert_eq!(Some(a), b.get(i), "line {i}: left without the library, right with it");
    }
    assert_eq!(a.len(), b.len(), "more lines with the library: {:?}", &b[a.len()..]);
    assert_eq!(without.status, with.status);
}

#[test]
fn a_program_without_netmap_sees_no_difference() {
    for build in [Build::Plain, Build::Fortified] {
        let program = Program::build("nothing", build);
        let without = program.run("nothing", false);
        assert!(without.status.success(), "{build:?}: {without:?}");
        assert_same(&without, &program.run("nothing", true));
    }
}

#[test]
fn descriptors_beside_a_netmap_fd_see_no_difference() {
    for build in [Build::Plain, Build::Fortified] {
        let program = Program::build("beside", build);
        let without = program.run("plain", false);
        assert!(without.status.success(), "{build:?}: {without:?}");
        assert_same(&without, &program.run("netmap", true));
    }
}

#[test]
fn checks_of_fortified_programs_still_stop_them() {
    let program = Program::build("overflow", Build::Fortified);
    let without = program.run("overflow", false);
    assert!(!without.status.success(), "the C library has no such check: {without:?}");
    assert_same(&without, &program.run("overflow", true));
}

#[test]
fn the_fortified_program_calls_the_other_names() {
    let program = Program::build("names", Build::Fortified);
    let names = text_of(Command::new("nm").args(["-D", "--undefined-only"]).arg(&program.path));
    for name in ["__open64_2", "__openat64_2", "__poll_chk", "__ppoll_chk", "open64", "openat64", "mmap64", "fcntl64"] {
        let called = names.lines().filter_map(|line| line.split_whitespace().last()?.split('@').next());
        assert!(called.into_iter().any(|n| n == name), "{name} is not called:\n{names}");
    }
}

#[test]
fn only_the_intended_symbols_are_exported() {
    let symbols = text_of(Command::new("nm").args(["-D", "--defined-only"]).arg(library()));
    let exported: BTreeSet<&str> = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .filter(|name| !LIBNETMAP.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    assert_eq!(exported, INTERPOSED.iter().copied().collect());
}

#[test]
fn the_library_has_its_name_and_needs_only_libc() {
    let dynamic = text_of(Command::new("readelf").args(["-d", "--wide"]).arg(library()));
    let entries = |tag: &str| -> Vec<&str> {
        let lines = dynamic.lines().filter(|line| line.contains(tag));
        lines.filter_map(|line| line.split_once('[')?.1.split_once(']').map(|(name, _)| name)).collect()
    };
    assert_eq!(entries("(SONAME)"), ["libnetmap_xdp.so"]);
    let needed = entries("(NEEDED)");
    assert!(needed.contains(&"libc.so.6"), "{dynamic}");
    for name in needed {
        assert!(NEEDED.contains(&name), "needs {name}");
    }
}

#[test]
fn a_linked_program_finds_the_library_by_its_name() {
    let dir = scratch().join("transparency-linked");
    std::fs::create_dir_all(&dir).expect("a directory");
    cc(&["-shared", "-fPIC"], &["transparency_early.c"], &dir.join("libearly.so"));
    let place = library().parent().and_then(Path::to_str).expect("a name in UTF-8");
    let path = dir.join("transparency");
    cc(&["-w", "-pthread", &format!("-L{place}"), "-lnetmap_xdp"], &["transparency.c"], &path);
    let mut command = Command::new(&path);
    command.arg(&dir).arg("nothing");
    let without_path = run(command.env_remove("LD_LIBRARY_PATH"));
    assert!(!without_path.status.success(), "it runs without the library, so it was not linked with it");
    let with_path = run(command.env("LD_LIBRARY_PATH", place));
    assert!(with_path.status.success(), "{with_path:?}");
}
