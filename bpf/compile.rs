//! What the build scripts share: `bpf/NAME.bpf.c` becomes `$OUT_DIR/NAME.bpf.o`.
//!
//! `CLANG` and `LLVM_STRIP` name other tools than `clang` and `llvm-strip`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// Compiles the programs of these names.
pub fn compile(names: &[&str]) {
    let root = PathBuf::from(var("CARGO_MANIFEST_DIR")).join("..").join("bpf");
    println!("cargo::rerun-if-changed=build.rs");
    for shared in ["compile.rs", "steering.bpf.h"] {
        println!("cargo::rerun-if-changed={}", root.join(shared).display());
    }
    for name in ["CLANG", "LLVM_STRIP"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    for name in names {
        let source = format!("{name}.bpf.c");
        let object = PathBuf::from(var("OUT_DIR")).join(format!("{name}.bpf.o"));
        println!("cargo::rerun-if-changed={}", root.join(&source).display());
        clang(&root, &source, &object);
        strip(&object);
    }
}

fn clang(root: &Path, source: &str, object: &Path) {
    // The program runs on the target's kernel, so the byte order is the target's.
    let target = if var("CARGO_CFG_TARGET_ENDIAN") == "big" { "bpfeb" } else { "bpfel" };
    let mut clang = Command::new(tool("CLANG", "clang"));
    // -g makes BTF, which describes the maps; v3 is what every kernel with XDP links (5.9) runs.
    clang.args(["-target", target, "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror"]);
    // BTF names the source: by a name that is the same on every machine.
    clang.current_dir(root).arg("-fdebug-compilation-dir=bpf");
    if let Some(dir) = multiarch_include() {
        clang.arg("-idirafter").arg(dir);
    }
    clang.arg("-c").arg(source).arg("-o").arg(object);
    match clang.output() {
        Ok(done) if done.status.success() => {}
        Ok(done) => fail(&format!("{clang:?} failed:\n{}", String::from_utf8_lossy(&done.stderr))),
        Err(e) => fail(&format!("cannot run {:?}: {e}", clang.get_program())),
    }
}

/// Drops DWARF, keeps BTF. Only size is at stake, so a missing tool is no error.
fn strip(object: &Path) {
    let _ = Command::new(tool("LLVM_STRIP", "llvm-strip")).arg("-g").arg(object).output();
}

/// Where a Debian-like host keeps `asm/types.h`, which clang does not look at for the BPF target.
fn multiarch_include() -> Option<PathBuf> {
    let asked = Command::new("cc").arg("-print-multiarch").output().ok().filter(|done| done.status.success());
    let triple = asked.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_string());
    let triple = match triple {
        Some(triple) if !triple.is_empty() => triple,
        _ => match var("CARGO_CFG_TARGET_ARCH").as_str() {
            "x86" => "i386-linux-gnu".to_string(),
            "arm" => "arm-linux-gnueabihf".to_string(),
            "powerpc64" => "powerpc64le-linux-gnu".to_string(),
            arch => format!("{arch}-linux-gnu"),
        },
    };
    Some(Path::new("/usr/include").join(triple)).filter(|dir| dir.is_dir())
}

fn tool(name: &str, default: &str) -> OsString {
    env::var_os(name).filter(|value| !value.is_empty()).unwrap_or_else(|| default.into())
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| fail(&format!("{name} is not set: run this through cargo")))
}

fn fail(why: &str) -> ! {
    eprintln!("netmap-xdp: a BPF program could not be compiled: {why}");
    eprintln!("It needs clang, linux/bpf.h and bpf/bpf_helpers.h. On Debian and Ubuntu:");
    eprintln!("    apt-get install clang llvm libbpf-dev linux-libc-dev");
    exit(1)
}
