//! Commands with captured output and bounded time, outside or inside a namespace.

use crate::artefacts::cdylib;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What [`Cmd::run`] allows a command that sets no time of its own.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long output is read after the command's own end, should a descendant hold its pipes.
const LAST_WORDS: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(2);

/// A bound on time for the machine at hand: `NMX_PATIENCE=4` makes it four times as long, for emulators.
pub fn patient(limit: Duration) -> Duration {
    let factor = std::env::var("NMX_PATIENCE").ok().and_then(|v| v.parse().ok());
    limit * factor.unwrap_or(1)
}

/// Polls `condition` until it holds or `limit` has passed, [`patient`]ly; says whether it held.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patient(limit);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(STEP);
    }
}

/// A command to be run: program, arguments, environment, namespace.
#[derive(Clone, Debug)]
pub struct Cmd {
    netns: Option<String>,
    env: Vec<OsString>,
    words: Vec<OsString>,
    timeout: Duration,
}

impl Cmd {
    /// A command in the caller's namespace; [`End::command`](crate::End::command) makes one inside another.
    pub fn new(program: impl AsRef<OsStr>) -> Cmd {
        Cmd { netns: None, env: Vec::new(), words: vec![program.as_ref().into()], timeout: DEFAULT_TIMEOUT }
    }

    pub(crate) fn inside(netns: &str, program: impl AsRef<OsStr>) -> Cmd {
        Cmd { netns: Some(netns.into()), ..Cmd::new(program) }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Cmd {
        self.words.push(arg.as_ref().into());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Cmd {
        self.words.extend(args.into_iter().map(|a| a.as_ref().into()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Cmd {
        let mut pair = OsString::from(name);
        pair.push("=");
        pair.push(value);
        self.env.push(pair);
        self
    }

    /// Loads our cdylib before the program, which so finds `/dev/netmap`.
    pub fn preload(self) -> Cmd {
        self.env("LD_PRELOAD", cdylib())
    }

    /// The longest that [`run`](Cmd::run) lets it take; 30 s otherwise.
    pub fn timeout(mut self, limit: Duration) -> Cmd {
        self.timeout = limit;
        self
    }

    /// Starts it, and waits for its end no longer than the timeout.
    pub fn run(self) -> Finished {
        let limit = self.timeout;
        self.spawn().wait(limit)
    }

    /// Starts it, with output captured and no input.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(self) -> Running {
        let mut line = Vec::<OsString>::new();
        if let Some(netns) = &self.netns {
            line.extend(["ip", "netns", "exec", netns].map(OsString::from));
        }
        // By env(1) and not by ourselves, so that a preload reaches the program alone, and not `ip`.
        if !self.env.is_empty() {
            line.push("env".into());
            line.extend(self.env);
        }
        line.extend(self.words);
        let name = line.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        die_with_the_test(&mut command);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start `{name}`: {e}"));
        let out = Tap::new(child.stdout.take());
        let err = Tap::new(child.stderr.take());
        Running { child, name, out, err }
    }
}

/// Makes the kernel kill the program when the test that started it dies, however it does: of a `cargo test` that was killed no
/// daemon is left over. The kernel goes by the thread, so a test starts programs in threads that live as long as they.
fn die_with_the_test(command: &mut Command) {
    let test = std::process::id();
    // SAFETY: between fork and exec nothing but two system calls is made.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // It may have died before the kernel knew.
            if libc::getppid() as u32 == test { Ok(()) } else { Err(std::io::ErrorKind::NotFound.into()) }
        });
    }
}

/// The text that comes out of a pipe, gathered by a thread that ends with the pipe.
struct Tap {
    text: Arc<Mutex<Vec<u8>>>,
    ended: Arc<AtomicBool>,
}

impl Tap {
    fn new(pipe: Option<impl Read + Send + 'static>) -> Tap {
        let tap = Tap { text: Arc::default(), ended: Arc::default() };
        let (text, ended) = (tap.text.clone(), tap.ended.clone());
        std::thread::spawn(move || {
            let mut pipe = pipe.expect("piped by Cmd::spawn");
            let mut part = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut part) {
                text.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&part[..n]);
            }
            ended.store(true, Ordering::Release);
        });
        tap
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// A command that runs. Dropping it kills it, with the descendants in its process group.
pub struct Running {
    child: Child,
    name: String,
    out: Tap,
    err: Tap,
}

impl Running {
    /// Its process id: the program's own, since `ip netns exec` and `env` become what they start.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal, such as `libc::SIGTERM`, if it still runs.
    pub fn signal(&mut self, signal: i32) {
        if self.is_alive() {
            // SAFETY: kill takes integers. The child was not reaped, so the id is its own.
            unsafe { libc::kill(self.child.id() as i32, signal) };
        }
    }

    /// What it has printed so far on standard output.
    pub fn stdout(&self) -> String {
        self.out.text()
    }

    /// What it has printed so far on standard error.
    pub fn stderr(&self) -> String {
        self.err.text()
    }

    /// Waits until it has printed `text` on either stream.
    ///
    /// # Panics
    /// If it has not within `limit`, or ended without.
    pub fn wait_for(&mut self, text: &str, limit: Duration) {
        let mut ended = false;
        let seen = wait_until(limit, || {
            let over = ended;
            ended =
                !self.is_alive() && self.out.ended.load(Ordering::Acquire) && self.err.ended.load(Ordering::Acquire);
            self.stdout().contains(text) || self.stderr().contains(text) || over
        }) && (self.stdout().contains(text) || self.stderr().contains(text));
        assert!(seen, "`{}` did not print {text:?}\n{}{}", self.name, self.stdout(), self.stderr());
    }

    /// Waits for its end; kills it after `limit`.
    pub fn wait(mut self, limit: Duration) -> Finished {
        let timed_out = !wait_until(limit, || !self.is_alive());
        if timed_out {
            self.kill();
        }
        let status = self.child.wait().unwrap_or_else(|e| panic!("cannot wait for `{}`: {e}", self.name));
        wait_until(LAST_WORDS, || self.out.ended.load(Ordering::Acquire) && self.err.ended.load(Ordering::Acquire));
        Finished { name: self.name.clone(), status, timed_out, stdout: self.out.text(), stderr: self.err.text() }
    }

    /// Kills its process group. To be called while the child is not reaped: until then nobody else bears the id.
    fn kill(&mut self) {
        // SAFETY: kill takes integers; `process_group(0)` made the group, of the child's id, at the start.
        unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_alive() {
            self.kill();
            // It was killed: this only reaps it.
            let _ = self.child.wait();
        }
    }
}

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command line.
    pub name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Whether it was killed because its time was over.
    pub timed_out: bool,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Finished {
    /// Whether it ended by itself and with status 0.
    pub fn success(&self) -> bool {
        !self.timed_out && self.status.success()
    }

    /// Goes on if it succeeded.
    ///
    /// # Panics
    /// With everything it printed, if not.
    #[track_caller]
    pub fn expect_success(self) -> Finished {
        assert!(self.success(), "{self}");
        self
    }

    /// The number `N` of the last `name=N` on standard output, fractions cut off.
    pub fn field(&self, name: &str) -> Option<u64> {
        let value = |word: &str| word.strip_prefix(name)?.strip_prefix('=')?.split('.').next()?.parse().ok();
        self.stdout.split_whitespace().filter_map(value).next_back()
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.timed_out { "ran out of time".into() } else { self.status.to_string() };
        write!(f, "`{}`: {end}\n--- stdout\n{}--- stderr\n{}", self.name, self.stdout, self.stderr)
    }
}
