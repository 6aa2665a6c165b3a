//! Ctrl-C: the first one asks the loops to end cleanly, a second one kills. A closed stdout counts as Ctrl-C.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// Installs the handlers of SIGINT, SIGTERM and SIGHUP.
///
/// `SA_RESETHAND` puts the default back when the handler runs, so that a second signal ends the process at once.
/// No `SA_RESTART`: a wait that the signal interrupts returns and finds the flag.
pub fn install() -> Result<(), String> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: all-zero bytes are a valid sigaction: default action, empty mask, no flags.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESETHAND;
        // SAFETY: `action` is initialised above; the handler only stores to an atomic, which is async-signal-safe; no
        // old action is asked for.
        if unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } != 0 {
            return Err(format!("sigaction({signal}): {}", std::io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// Writes to stdout, or to stderr where stdout is kept for the result line. A reader that has gone (`| head`) ends the
/// program as Ctrl-C does.
pub fn print(text: &str, to_stderr: bool) {
    let written = if to_stderr {
        std::io::stderr().write_all(text.as_bytes())
    } else {
        std::io::stdout().write_all(text.as_bytes())
    };
    if written.is_err() {
        STOP.store(true, Ordering::Relaxed);
    }
}

/// True once the user asked to stop.
pub fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// True if the error of a wait only says that a signal came.
pub fn interrupted(error: &netmap_xdp::api::Error) -> bool {
    error.errno == libc::EINTR
}
