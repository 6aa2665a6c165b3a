//! Starting a daemon from within somebody else's program: no child that the program could meet in `wait`, no signal, no
//! descriptor of the program's left open in it, and a lock file that lets one starter through.

use super::{Errno, Error, Fd, c_path, retry, settings, syscall};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The number at which the daemon finds its lock.
pub const LOCK_FD: RawFd = 3;

fn open_at(path: &Path, flags: i32, mode: usize) -> Result<Fd, Errno> {
    let name = c_path(path)?;
    let flags = (flags | libc::O_CLOEXEC) as usize;
    // SAFETY: the path is a C string; the new descriptor is ours.
    retry(|| unsafe { syscall(libc::SYS_openat, [libc::AT_FDCWD as usize, name.as_ptr() as usize, flags, mode, 0, 0]) })
        // SAFETY: as above.
        .map(|fd| unsafe { Fd::from_raw_high(fd as RawFd) })
}

/// Makes a directory for this user alone, or for everyone to look into; one that exists is left as it is, and must belong to
/// this user or to root.
pub fn make_dir(path: &Path, mode: usize) -> Result<(), Error> {
    let failed = |call: &'static str| move |e| Error::new(call, path.display().to_string(), e);
    let name = c_path(path).map_err(failed("mkdir"))?;
    // SAFETY: a C string and integers.
    let made = unsafe { syscall(libc::SYS_mkdirat, [libc::AT_FDCWD as usize, name.as_ptr() as usize, mode, 0, 0, 0]) };
    match made {
        Ok(_) | Err(Errno(libc::EEXIST)) => Ok(()),
        Err(e) => Err(failed("mkdir")(e)),
    }
}

/// Locks the file at `path`, making it if need be; `None` if somebody else holds it. The lock goes with the last copy of the
/// descriptor, in whatever process.
pub fn try_lock_file(path: &Path) -> Result<Option<Fd>, Error> {
    let failed = |call: &'static str| move |e| Error::new(call, path.display().to_string(), e);
    let fd = open_at(path, libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW, 0o600).map_err(failed("open"))?;
    let how = (libc::LOCK_EX | libc::LOCK_NB) as usize;
    // SAFETY: takes integers.
    match retry(|| unsafe { syscall(libc::SYS_flock, [fd.as_raw_fd() as usize, how, 0, 0, 0, 0]) }) {
        Ok(_) => Ok(Some(fd)),
        Err(Errno(libc::EWOULDBLOCK)) => Ok(None),
        Err(e) => Err(failed("flock")(e)),
    }
}

/// A descriptor that was passed by number to this program at its start; `EBADF` if there is none.
pub fn inherited(raw: RawFd) -> Result<Fd, Errno> {
    super::identity(raw)?;
    // SAFETY: it is open (just seen), and whoever started this program passed it for this purpose alone.
    Ok(unsafe { Fd::from_raw_high(raw) })
}

/// Whether the file is there and may be executed.
pub fn executable(path: &Path) -> bool {
    let Ok(name) = c_path(path) else { return false };
    let (at, mode) = (libc::AT_FDCWD as usize, libc::X_OK as usize);
    // SAFETY: a C string and integers.
    path.is_absolute() && unsafe { syscall(libc::SYS_faccessat, [at, name.as_ptr() as usize, mode, 0, 0, 0]) }.is_ok()
}

/// The file that this code was loaded from: the cdylib, or the program.
pub fn own_object() -> Option<PathBuf> {
    // SAFETY: all zero bytes are a valid structure; dladdr fills it, and the name it points at stays while we are loaded.
    let name = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let found = libc::dladdr(own_object as *const () as *const _, &raw mut info);
        if found == 0 || info.dli_fname.is_null() {
            return None;
        }
        CStr::from_ptr(info.dli_fname).to_bytes().to_vec()
    };
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(&name));
    Some(if path.is_absolute() { path } else { std::env::current_dir().ok()?.join(path) })
}

/// The daemon's program: as set, beside this library, or in `PATH`.
pub fn find_daemon() -> Option<PathBuf> {
    if let Some(set) = &settings().daemon {
        return executable(set).then(|| set.clone());
    }
    let mut dirs = Vec::new();
    if let Some(dir) = own_object().as_deref().and_then(Path::parent) {
        dirs.push(dir.to_path_buf());
        // lib/ and lib/TRIPLE/ have bin/ and sbin/ beside them; target/debug/deps lies in target/debug.
        for up in dir.ancestors().skip(1).take(2) {
            dirs.extend([up.to_path_buf(), up.join("sbin"), up.join("bin")]);
        }
    }
    if !privileged_by_file() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        dirs.extend(std::env::split_paths(&path));
    }
    dirs.extend(["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"].map(PathBuf::from));
    dirs.into_iter().map(|dir| dir.join("netmapd")).find(|file| executable(file))
}

/// Name of the program's file, for people.
pub fn program_name() -> String {
    let mut buffer = [0u8; 4096];
    let (at, path) = (libc::AT_FDCWD as usize, c"/proc/self/exe");
    // SAFETY: a C string, and a buffer of the length told.
    let n = unsafe {
        syscall(libc::SYS_readlinkat, [at, path.as_ptr() as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0])
    };
    let path = &buffer[..n.unwrap_or(0).min(buffer.len())];
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// Name of the program that a process runs, as the kernel has it: 15 bytes at most.
pub fn comm(pid: u32) -> Option<String> {
    let text = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    let text: String = String::from_utf8_lossy(&text).chars().filter(|c| !c.is_control()).collect();
    (!text.is_empty()).then_some(text)
}

/// Whether the program runs with more rights than who started it, so that the environment is not to be trusted.
pub fn privileged_by_file() -> bool {
    // SAFETY: takes an integer.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Starts `program` as nobody's child, in a session of its own, with `lock` at [`LOCK_FD`], output going to `log`, and no
/// other descriptor. Returns once it runs; `ENOENT`, `EACCES` and so on if it cannot.
pub fn start_detached(program: &Path, args: &[CString], env: &[CString], lock: &Fd, log: &Path) -> Result<(), Error> {
    let failed = |e| Error::new("execve", program.display().to_string(), e);
    let path = c_path(program).map_err(failed)?;
    let null = open_at(Path::new("/dev/null"), libc::O_RDWR, 0).map_err(failed)?;
    let output = open_at(log, libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_NOFOLLOW, 0o600);
    let output = output.map_or(null.as_raw_fd(), Fd::into_raw);
    let mut ends = [0i32; 2];
    // SAFETY: room for two integers; the descriptors are ours.
    let (told, teller) = unsafe {
        syscall(libc::SYS_pipe2, [ends.as_mut_ptr() as usize, libc::O_CLOEXEC as usize, 0, 0, 0, 0]).map_err(failed)?;
        (Fd::from_raw_high(ends[0]), Fd::from_raw_high(ends[1]))
    };
    let pointers = |strings: &[CString]| {
        let mut all: Vec<usize> = strings.iter().map(|s| s.as_ptr() as usize).collect();
        all.push(0);
        all
    };
    let (argv, envp) = (pointers(args), pointers(env));
    let plan = Plan {
        path: path.as_ptr() as usize,
        argv: argv.as_ptr() as usize,
        envp: envp.as_ptr() as usize,
        fds: [null.as_raw_fd(), output, output, lock.as_raw_fd()],
        teller: teller.as_raw_fd(),
    };
    // SAFETY: like fork without handlers and without a signal at the child's end. The children make system calls alone, on
    // memory prepared here, so it does not matter what other threads of the program held at that moment.
    let child = unsafe {
        match syscall(libc::SYS_clone, [0; 6]) {
            Ok(0) => plan.child(),
            other => other,
        }
    };
    drop(teller);
    if output != null.as_raw_fd() {
        super::close(output);
    }
    let child = child.map_err(failed)?;
    // __WALL: a child that sends no signal is waited for by who asks for such.
    // SAFETY: takes integers.
    let _ = retry(|| unsafe { syscall(libc::SYS_wait4, [child, 0, libc::__WALL as usize, 0, 0, 0]) });
    let mut why = [0u8; 4];
    let args = [told.as_raw_fd() as usize, why.as_mut_ptr() as usize, 4, 0, 0, 0];
    // SAFETY: room for four bytes.
    match retry(|| unsafe { syscall(libc::SYS_read, args) }) {
        Ok(4) => Err(failed(Errno(i32::from_ne_bytes(why)))),
        _ => Ok(()),
    }
}

/// What the children need, all of it prepared.
struct Plan {
    path: usize,
    argv: usize,
    envp: usize,
    fds: [RawFd; 4],
    teller: RawFd,
}

impl Plan {
    /// The first child: leaves the session and makes the second, which so has no parent that waits for it.
    ///
    /// # Safety
    /// Called in a new process that shares nothing.
    unsafe fn child(&self) -> ! {
        // SAFETY: integers; the caller's promise goes on to the second child.
        unsafe {
            let _ = syscall(libc::SYS_setsid, [0; 6]);
            match syscall(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0, 0]) {
                Ok(0) => self.grandchild(),
                Ok(_) => {}
                Err(e) => self.tell(e),
            }
            leave()
        }
    }

    /// # Safety
    /// As for `child`.
    unsafe fn grandchild(&self) -> ! {
        const CLOSE_RANGE_CLOEXEC: usize = 1 << 2;
        let none = 0u64;
        // SAFETY: integers, and pointers to what the parent prepared; memory is a copy of its.
        unsafe {
            for (onto, &fd) in self.fds.iter().enumerate() {
                let done = if fd as usize == onto {
                    syscall(libc::SYS_fcntl, [onto, libc::F_SETFD as usize, 0, 0, 0, 0])
                } else {
                    syscall(libc::SYS_dup3, [fd as usize, onto, 0, 0, 0, 0])
                };
                if let Err(e) = done {
                    self.tell(e);
                    leave();
                }
            }
            // Where the call is missing (before 5.11), descriptors that the program did not mark stay open.
            let _ = syscall(libc::SYS_close_range, [4, u32::MAX as usize, CLOSE_RANGE_CLOEXEC, 0, 0, 0]);
            let _ = syscall(libc::SYS_chdir, [c"/".as_ptr() as usize, 0, 0, 0, 0, 0]);
            let how = libc::SIG_SETMASK as usize;
            let _ = syscall(libc::SYS_rt_sigprocmask, [how, &raw const none as usize, 0, 8, 0, 0]);
            if let Err(e) = syscall(libc::SYS_execve, [self.path, self.argv, self.envp, 0, 0, 0]) {
                self.tell(e);
            }
        }
        leave()
    }

    fn tell(&self, why: Errno) {
        let bytes = why.0.to_ne_bytes();
        // SAFETY: four bytes that outlive the call. Nobody is left to hear of a failure.
        let _ = unsafe { syscall(libc::SYS_write, [self.teller as usize, bytes.as_ptr() as usize, 4, 0, 0, 0]) };
    }
}

fn leave() -> ! {
    loop {
        // SAFETY: ends the process.
        let _ = unsafe { syscall(libc::SYS_exit_group, [127, 0, 0, 0, 0, 0]) };
    }
}
