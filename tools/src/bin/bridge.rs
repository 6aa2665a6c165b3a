//! `bridge`: move packets between two netmap ports. All of it is in the library.
use std::process::ExitCode;

fn main() -> ExitCode {
    netmap_xdp_tools::bridge::main()
}
