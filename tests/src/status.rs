//! What a netmapd says of itself, and whether it is sound.

use crate::artefacts::tool;
use crate::daemon::Daemons;
use crate::process::{Cmd, wait_until};
use serde_json::Value;
use std::time::Duration;

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

    /// Waits until what it says of every region and ring is sound: who has just died may be seen for a moment.
    ///
    /// # Panics
    /// If it is not within `limit`.
    #[track_caller]
    pub fn expect_sound(&self, limit: Duration) {
        let mut last = None;
        let sound = wait_until(limit, || {
            last = fault(&self.status());
            last.is_none()
        });
        assert!(sound, "{}", last.unwrap_or_default());
    }
}

/// A list in such an answer.
pub fn list<'a>(of: &'a Value, what: &str) -> &'a [Value] {
    of[what].as_array().map_or(&[], Vec::as_slice)
}

/// What is wrong with it, if anything: buffers that are missing or in two places, a port without exactly one holder, a
/// ring that is locked by the dead.
fn fault(now: &Value) -> Option<String> {
    for region in list(now, "regions") {
        let parts = ["free", "slots", "kernel", "spare", "extra", "private"].iter().filter_map(|p| region[p].as_u64());
        let sum: u64 = parts.sum();
        if region["missing"] != 0 || region["twice"] != 0 || region["buffers"] != sum {
            return Some(format!("buffers do not add up: {region}"));
        }
    }
    for port in list(now, "ports") {
        if list(port, "holders").len() != 1 {
            return Some(format!("holders: {port}"));
        }
        for ring in list(port, "rings") {
            // Of a pipe, either end may hold the lock at any moment; nobody else.
            let by = ring["syncing"].as_u64().unwrap_or(u64::MAX);
            if by != 0 && !std::path::Path::new(&format!("/proc/{by}")).exists() {
                return Some(format!("a ring is locked by the dead: {port}"));
            }
        }
    }
    None
}

/// Mappings of shared memory that a process has.
pub fn mappings(pid: u32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    text.lines().filter(|l| l.contains("memfd:")).count()
}
