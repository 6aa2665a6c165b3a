//! Gives the library its name at run time, so that a program linked with `-lnetmap_xdp` asks for it by that name. One linked
//! with `-lnetmap` asks for the same name, since `libnetmap.so` is only another name of the file for the linker: whatever a
//! program is linked with or has preloaded, the library is in the process once.
//!
//! Which symbols it exports is not decided here: rustc hands the linker a version script of its own for a cdylib, with the
//! crate's `no_mangle` functions and nothing else, and GNU ld refuses a second anonymous one. The test
//! `only_the_intended_symbols_are_exported` holds that list to the table in `src/lib.rs`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnetmap_xdp.so");
}
