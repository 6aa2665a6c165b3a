//! netmapd: reads the command line and runs the daemon of the library.

use clap::Parser;
use netmap_xdp::daemon::{self, Config, Options};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Serves netmap ports to all processes of this machine.
///
/// Programs start it when nobody answers; started by hand it goes to the background, unless told otherwise, and logs beside
/// its socket.
#[derive(Parser)]
#[command(version, args_override_self = true)]
struct Args {
    /// Where to listen [default: /run/netmap-xdp/netmapd.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Members of this group may bind everything; `none` for no group [default: netmap, if there is one]
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Configuration file [default: /etc/netmap-xdp/netmapd.conf, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Stay in the foreground, and log to standard error
    #[arg(long)]
    foreground: bool,
    /// End when nobody has used it for so long
    #[arg(long, value_name = "SECONDS")]
    idle_exit: Option<u32>,
    /// Packet buffers in the region that all NIC, host and pipe ports share
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(64..=1 << 24))]
    buffers: Option<u32>,
    /// Bytes of a buffer there, 2048 or 4096 [default: 2048]
    #[arg(long, value_name = "BYTES", value_parser = daemon::buf_size)]
    buf_size: Option<u32>,
    /// The lock beside the socket is held already, by this descriptor
    #[arg(long, value_name = "NUMBER", hide = true)]
    lock_fd: Option<i32>,
    /// Not a daemon: restores an interface's offloads once those who needed them off are gone
    #[arg(long, value_name = "WHAT", hide = true)]
    guard: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(what) = args.guard {
        return end(daemon::guard(&what));
    }
    // The daemon works in `/` when it is in the background.
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let flags = Config {
        socket: args.socket.map(absolute),
        group: args.group,
        buffers: args.buffers,
        buf_size: args.buf_size,
        idle_exit: args.idle_exit.map(|s| Duration::from_secs(s.into())),
        ..Config::default()
    };
    let options = Options { flags, config: args.config, foreground: args.foreground, lock: args.lock_fd };
    end(daemon::run(options, &netmap_xdp_libbpf::LOADER))
}

fn end(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("netmapd: {why}");
            ExitCode::FAILURE
        }
    }
}
