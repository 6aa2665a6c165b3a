//! From a command line to a running daemon: one per socket, whoever starts it.
//!
//! The lock file beside the socket decides: who holds it may listen. A client that starts a daemon takes the lock first and
//! passes it on, so that of many starters one gets through, and the lock goes with the daemon, however it ends.

use super::config::Config;
use super::core::Core;
use super::server::{Limits, Server};
use crate::engine::Engine;
use crate::sys::netdev::{NetDev, interfaces, xdp_attached};
use crate::sys::{
    Fd, LOCK_FD, Level, LoaderChoice, adjust_settings, connect_to, executable, inherited, is_listener, listen_at, log,
    make_dir, path_of, process_id, quit_signals, raise_file_limit, settings, start_detached, try_lock_file,
};
use crate::xsk::{self, Loader};
use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the daemon of the machine listens.
pub const SYSTEM_SOCKET: &str = "/run/netmap-xdp/netmapd.sock";
const CONFIG: &str = "/etc/netmap-xdp/netmapd.conf";
/// First descriptor that a service manager passes.
const LISTEN_FDS_START: i32 = 3;

/// The command line.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What flags say; wins over the file.
    pub flags: Config,
    /// The configuration file, if not the usual one.
    pub config: Option<PathBuf>,
    /// Stay in the foreground.
    pub foreground: bool,
    /// A descriptor that holds the lock already.
    pub lock: Option<i32>,
}

/// Runs a daemon, or starts one in the background, with `libbpf` to load XDP programs unless settings say otherwise. An
/// error is for a person.
pub fn run(options: Options, libbpf: &'static dyn Loader) -> Result<(), String> {
    let config = read_config(options.config.as_deref())?.under(options.flags.clone());
    let policy = config.policy()?;
    let passed = activated();
    let path = passed.as_ref().and_then(|fd| path_of(fd.as_raw_fd()));
    let path = path.or(config.socket.clone()).unwrap_or_else(|| SYSTEM_SOCKET.into());
    let lock = match options.lock {
        Some(raw) => Some(inherited(raw).map_err(|e| format!("descriptor {raw} of the lock: {e}"))?),
        None => take_lock(&path)?,
    };
    let Some(lock) = lock else {
        return Err(format!("netmapd runs on {} already: `fuser {}`", path.display(), lock_path(&path).display()));
    };
    if !options.foreground && passed.is_none() {
        return background(&options, &path, &lock);
    }
    adjust_settings(|settings| {
        settings.buffers = config.buffers.or(settings.buffers);
        settings.buf_size = config.buf_size.unwrap_or(settings.buf_size);
        settings.priv_buf_size = config.priv_buf_size.or(settings.priv_buf_size);
        settings.spares = config.spares.or(settings.spares);
        settings.polling = settings.polling.under(config.polling);
        settings.hardware_times = config.hardware_times.unwrap_or(settings.hardware_times);
        // The edge asks again: nobody else waits meanwhile.
        settings.rebind_wait = Duration::ZERO;
        settings.serves = true;
    });
    let signals = quit_signals().map_err(|e| format!("signalfd: {e}"))?;
    let files = raise_file_limit();
    let ours = passed.is_none();
    let listener = match passed {
        Some(fd) => fd,
        None => {
            // Nobody listens there: who does holds the lock.
            let _ = std::fs::remove_file(&path);
            listen_at(&path).map_err(|e| e.to_string())?
        }
    };
    let limits = Limits { idle_exit: config.idle_exit, ..Limits::default() };
    let loader = match settings().loader.or(config.loader).unwrap_or(LoaderChoice::Libbpf) {
        LoaderChoice::Libbpf => libbpf,
        LoaderChoice::Aya => xsk::embedded(),
    };
    clean_up(loader);
    let mut engine = Engine::new(loader, None);
    engine.configure_steering(config.steering.clone());
    engine.configure_chains(config.chains.clone());
    let core = Core::new(engine, policy);
    let mut server = Server::new(core, listener, Some(signals), limits).map_err(|e| format!("epoll: {e}"))?;
    log(
        Level::Info,
        format_args!(
            "netmapd {} listens at {}, {files} files, XDP programs by {}",
            process_id(),
            path.display(),
            loader.name()
        ),
    );
    let result = server.run().map_err(|e| format!("epoll: {e}"));
    if ours {
        // Whoever comes now finds nobody, and starts the next one as soon as the lock is free.
        let _ = std::fs::remove_file(&path);
    }
    log(Level::Info, format_args!("netmapd {} ends", process_id()));
    drop(server);
    drop(lock);
    result
}

/// Takes off the interfaces of our network namespace what a killed process left: programs in chains, filters. In other
/// namespaces, the next bind does.
fn clean_up(loader: &dyn Loader) {
    for ifindex in interfaces() {
        match xdp_attached(ifindex) {
            Ok(Some(_)) => {
                if let Err(e) = loader.clean(ifindex) {
                    log(Level::Warn, format_args!("an XDP program of a killed netmapd stays: {e}"));
                }
            }
            // No engine has it bound.
            Ok(None) => NetDev::by_index(ifindex).iter().for_each(xsk::clean_host_filter),
            Err(_) => {}
        }
    }
}

fn read_config(path: Option<&Path>) -> Result<Config, String> {
    let file = path.unwrap_or(Path::new(CONFIG));
    match std::fs::read_to_string(file) {
        Ok(text) => Config::parse(&text).map_err(|why| format!("{}: {why}", file.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && path.is_none() => Ok(Config::default()),
        Err(e) => Err(format!("{}: {e}", file.display())),
    }
}

/// The lock file of a socket.
pub fn lock_path(socket: &Path) -> PathBuf {
    socket.with_extension("lock")
}

/// The log file of a daemon in the background.
pub fn log_path(socket: &Path) -> PathBuf {
    socket.with_extension("log")
}

fn take_lock(socket: &Path) -> Result<Option<Fd>, String> {
    let dir = socket.parent().ok_or("a socket lies in a directory")?;
    make_dir(dir, 0o755).and_then(|()| try_lock_file(&lock_path(socket))).map_err(|e| e.to_string())
}

/// The socket of a service manager: `LISTEN_FDS`, `LISTEN_PID`.
fn activated() -> Option<Fd> {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(process_id()) || number("LISTEN_FDS") != Some(1) || !is_listener(LISTEN_FDS_START) {
        return None;
    }
    let fd = inherited(LISTEN_FDS_START).ok()?;
    // Accepting must not block, whatever the manager thinks.
    crate::sys::set_status(fd.as_raw_fd(), libc::O_NONBLOCK).ok()?;
    Some(fd)
}

/// Starts the same again, detached, and waits until it answers.
fn background(options: &Options, socket: &Path, lock: &Fd) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|e| format!("the path of this program: {e}"))?;
    if !executable(&program) {
        return Err(format!("{} cannot be executed", program.display()));
    }
    let mut args: Vec<Vec<u8>> = std::env::args_os().map(|a| a.as_bytes().to_vec()).collect();
    // Said again, since relative paths do not hold there.
    args.extend([b"--socket".to_vec(), socket.as_os_str().as_bytes().to_vec()]);
    if let Some(config) = &options.config {
        let absolute = std::path::absolute(config).map_err(|e| e.to_string())?;
        args.extend([b"--config".to_vec(), absolute.as_os_str().as_bytes().to_vec()]);
    }
    args.extend(["--foreground".into(), "--lock-fd".into(), LOCK_FD.to_string().into_bytes()]);
    let env: Vec<_> = std::env::vars_os().map(|(k, v)| [k.as_bytes(), b"=", v.as_bytes()].concat()).collect();
    let c = |all: Vec<Vec<u8>>| all.into_iter().filter_map(|s| CString::new(s).ok()).collect::<Vec<_>>();
    start_detached(&program, &c(args), &c(env), lock, &log_path(socket)).map_err(|e| e.to_string())?;
    for _ in 0..500 {
        if connect_to(socket, Duration::from_secs(1)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("netmapd does not answer at {}; see {}", socket.display(), log_path(socket).display()))
}
