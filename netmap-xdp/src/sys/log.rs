//! Lines on standard error, each with the level that `NETMAP_XDP_LOG` lets through: `off`, `error`, `warn`, `info`
//! (default), `debug`. Never used on the data path.

use super::settings::settings;
use super::syscall;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something asked for was refused.
    Error = 1,
    /// Something works, but not as well as it could.
    Warn = 2,
    /// What was set up, and how.
    Info = 3,
    /// For who debugs netmap-xdp.
    Debug = 4,
}

/// Writes one line, `netmap-xdp: ...`, if the setting lets `level` through.
pub fn log(level: Level, line: std::fmt::Arguments<'_>) {
    if level as u8 > settings().log {
        return;
    }
    let text = format!("netmap-xdp: {line}\n");
    // SAFETY: the buffer is alive for the call. A failure to write to standard error has nowhere to go.
    let _ = unsafe { syscall(libc::SYS_write, [2, text.as_ptr() as usize, text.len(), 0, 0, 0]) };
}
