//! `pkt-gen`: send, receive and time packets through the netmap API. All of it is in the library.
use std::process::ExitCode;

fn main() -> ExitCode {
    netmap_xdp_tools::pktgen::main()
}
