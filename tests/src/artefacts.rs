//! Paths to what the workspace builds, built on demand: the cdylib, the tools, the C examples.
//!
//! The profile is that of the running test. Cargo's own lock makes test processes that build at once wait for each other.

use crate::process::Cmd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

const BUILD_LIMIT: Duration = Duration::from_secs(600);
const COMPILE_LIMIT: Duration = Duration::from_secs(60);

/// Root of the source tree.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie below the workspace")
}

/// The library for `LD_PRELOAD` and for linking.
pub fn cdylib() -> PathBuf {
    existing(built().join("libnetmap_xdp.so"))
}

/// One of our tools, such as `pkt-gen`.
pub fn tool(name: &str) -> PathBuf {
    existing(built().join(name))
}

/// One of the C programs in `compat-c/examples`, compiled by plain `cc` against `compat-c/include`.
pub fn c_program(name: &str) -> PathBuf {
    compile_c(&workspace().join("compat-c/examples").join(format!("{name}.c")), name, &[])
}

/// Compiles a C source file against `compat-c/include` into a program called `name`; `extra` follows the source on the
/// command line. Two programs of one name would replace each other. With `NMX_BUILT`, one that is there is taken as it is.
///
/// # Panics
/// If it does not compile, or not without a warning.
pub fn compile_c(source: &Path, name: &str, extra: &[&str]) -> PathBuf {
    let dir = profile_dir().join("c");
    let program = dir.join(name);
    if taken_as_built() && program.exists() {
        return program;
    }
    std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("cannot make {}: {e}", dir.display()));
    // Made beside its place and moved there at once: another test may be running the same program.
    let thread = format!("{:?}", std::thread::current().id()).replace(|c: char| !c.is_ascii_digit(), "");
    let fresh = dir.join(format!("{name}.{}-{thread}", std::process::id()));
    let flags = ["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-I"];
    let cc = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compile = Cmd::new(cc).args(flags).arg(workspace().join("compat-c/include")).arg("-o").arg(&fresh);
    compile.arg(source).args(extra).timeout(COMPILE_LIMIT).run().expect_success();
    std::fs::rename(&fresh, &program).unwrap_or_else(|e| panic!("cannot place {}: {e}", program.display()));
    program
}

/// The directory of the built artefacts, after a build. All of the workspace at once, as `make test` does it: a package by
/// itself may be given other features, and would be built again. With `NMX_BUILT` what is there is taken as it is, since the
/// virtual machine of `tests/vm.sh` would be slow to find that there is nothing to do.
fn built() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        if taken_as_built() {
            return profile_dir();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Cmd::new(cargo).args(["build", "--workspace", "--locked", "--quiet", "--manifest-path"]);
        build = build.arg(workspace().join("Cargo.toml"));
        if profile_dir().ends_with("release") {
            build = build.arg("--release");
        }
        build.timeout(BUILD_LIMIT).run().expect_success();
        profile_dir()
    })
}

fn taken_as_built() -> bool {
    std::env::var_os("NMX_BUILT").is_some()
}

/// `target/debug` or `target/release`: a test lies in its `deps`.
fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the running test");
    test.ancestors().nth(2).expect("a test lies in target/PROFILE/deps").to_path_buf()
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} was not built", path.display());
    path
}
