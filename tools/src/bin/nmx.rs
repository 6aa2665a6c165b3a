//! `nmx`: what netmap ports there are, how fast they run, and whether an interface will work. All of it is in the library.
use std::process::ExitCode;

fn main() -> ExitCode {
    netmap_xdp_tools::nmx::main()
}
