//! `vale-ctl`: switches and their ports. All of it is in the library.
use std::process::ExitCode;

fn main() -> ExitCode {
    netmap_xdp_tools::valectl::main()
}
