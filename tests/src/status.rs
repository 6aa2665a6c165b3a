//! What a netmapd says of itself, and whether it is sound.

use crate::artefacts::tool;
use crate::daemon::Daemons;
use crate::process::Cmd;
use serde_json::Value;

impl Daemons {
    /// Its answer to `nmx status`.
    ///
    /// # Panics
    /// If it gives none.
    pub fn status(&self) -> Value {
        let nmx = Cmd::new(tool("nmx")).args(["status", "--json"]).env("NETMAP_XDP_ENGINE", "daemon");
        let done = nmx.env("NETMAP_XDP_SOCKET", self.socket()).run().expect_success();
        serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done}"))
    }
}

/// A list in such an answer.
pub fn list<'a>(of: &'a Value, what: &str) -> &'a [Value] {
    of[what].as_array().map_or(&[], Vec::as_slice)
}

/// Checks what is told of every region and ring: no buffer is missing, every port has one holder, no ring is locked by the dead.
///
/// # Panics
/// If something is not as it should be.
#[track_caller]
pub fn expect_sound(now: &Value) {
    for region in list(now, "regions") {
        assert_eq!((region["missing"].as_u64(), region["twice"].as_u64()), (Some(0), Some(0)), "{region}");
        let parts = ["free", "slots", "kernel", "extra", "private"].iter().filter_map(|p| region[p].as_u64());
        assert_eq!(Some(parts.sum()), region["buffers"].as_u64(), "{region}");
    }
    for port in list(now, "ports") {
        let pids: Vec<_> = list(port, "holders").iter().map(|h| h["pid"].clone()).collect();
        assert_eq!(pids.len(), 1, "{port}");
        for ring in list(port, "rings") {
            // Of a pipe, either end may hold the lock at any moment; nobody else.
            let by = ring["syncing"].as_u64().unwrap_or(u64::MAX);
            let alive = by == 0 || std::path::Path::new(&format!("/proc/{by}")).exists();
            assert!(alive, "a ring is locked by the dead: {port}");
        }
    }
}

/// Mappings of shared memory that a process has.
pub fn mappings(pid: u32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    text.lines().filter(|l| l.contains("memfd:")).count()
}
