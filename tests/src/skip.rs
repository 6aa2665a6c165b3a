//! Skipped tests: said aloud, counted, and a failure in CI.
//!
//! A line goes to the real standard error (the test harness does not capture it) and, when `NMX_SKIPS` names a file, to
//! that file, where `make test` counts them. With `CI=true` a skip panics instead.

use std::fs::OpenOptions;
use std::io::Write;

/// Leaves the test, saying why: `skip!("no {tool} here")`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        $crate::skipped(&format!($($reason)+));
        return;
    }};
}

/// Leaves the test under a kernel that is older than what it is about: `since!((6, 6), "tcx")`.
#[macro_export]
macro_rules! since {
    (($major:literal, $minor:literal), $what:literal) => {
        if netmap_xdp::sys::netdev::bpf::kernel_version() < ($major, $minor) {
            $crate::skip!("needs Linux {}.{} for {}", $major, $minor, $what);
        }
    };
}

/// Leaves the test unless it runs as root, which namespaces and XDP need.
#[macro_export]
macro_rules! needs_root {
    () => {
        if !$crate::is_root() {
            $crate::skip!("needs root for network namespaces and XDP");
        }
    };
}

/// Records a skip of the current test; [`skip!`](crate::skip!) then leaves it.
///
/// # Panics
/// With `CI=true`, where a skip is a failure.
pub fn skipped(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIP {}: {reason}\n", thread.name().unwrap_or("test"));
    assert!(std::env::var_os("CI").is_none_or(|v| v != "true"), "a skip is a failure in CI: {}", line.trim_end());
    // One write each: lines of tests that run at once must not mix. A skip that cannot be told has nowhere else to go.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("NMX_SKIPS") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut f| f.write_all(line.as_bytes()));
    }
}

/// Whether this process may create namespaces and attach XDP programs.
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}
