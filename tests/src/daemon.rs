//! A netmapd of a test's own: a socket in a directory of its own, and no daemon left when the test is over.

use crate::artefacts::{cdylib, tool};
use crate::process::{Cmd, Running, wait_until};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A place for a daemon, with or without one.
#[derive(Debug)]
pub struct Daemons {
    dir: PathBuf,
}

impl Daemons {
    /// A fresh place, in which nobody listens yet.
    #[expect(clippy::new_without_default, reason = "makes something outside of this process")]
    pub fn new() -> Daemons {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("nmx-netmapd-{}-{n}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap_or_else(|e| panic!("cannot make {}: {e}", dir.display()));
        // So that other users can connect.
        Cmd::new("chmod").args(["755".as_ref(), dir.as_os_str()]).run().expect_success();
        Daemons { dir }
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("netmapd.sock")
    }

    /// The directory, where files of the test may lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The daemon's log, when a program started it.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("netmapd.log")).unwrap_or_default()
    }

    /// Makes `command` use this place: `engine` is `auto` or `daemon`.
    pub fn with(&self, command: Cmd, engine: &str) -> Cmd {
        let command = command.env("NETMAP_XDP_ENGINE", engine).env("NETMAP_XDP_SOCKET", self.socket());
        command.env("NETMAP_XDP_DAEMON", tool("netmapd")).env("LD_PRELOAD", cdylib())
    }

    /// Starts a daemon in the foreground, with `flags`, and waits until it listens.
    pub fn start(&self, flags: &[&str]) -> Running {
        self.start_with(flags, &[])
    }

    /// The same with settings of its own.
    pub fn start_with(&self, flags: &[&str], env: &[(&str, &str)]) -> Running {
        let command = Cmd::new(tool("netmapd")).args(["--foreground", "--socket"]).arg(self.socket()).args(flags);
        let mut running = env.iter().fold(command, |c, (name, value)| c.env(name, value)).spawn();
        running.wait_for("listens", Duration::from_secs(10));
        running
    }

    /// The daemons that run here, whoever started them.
    pub fn pids(&self) -> Vec<u32> {
        daemons_at(&self.socket())
    }
}

/// The daemons that were started for `socket`.
pub fn daemons_at(socket: &Path) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|e| e.file_name().to_string_lossy().parse().ok());
    let here = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
        words.first().is_some_and(|w| w.ends_with("netmapd")) && words.iter().any(|w| *w == socket.to_string_lossy())
    };
    pids.filter(here).collect()
}

/// Descriptors that a process has open.
pub fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

impl Drop for Daemons {
    fn drop(&mut self) {
        wait_until(Duration::from_secs(5), || {
            for pid in self.pids() {
                // SAFETY: kill takes integers. A netmapd on this socket was started by this test.
                unsafe { libc::kill(pid as i32, libc::SIGKILL) };
            }
            self.pids().is_empty()
        });
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
