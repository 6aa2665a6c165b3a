//! What a thread of ours asks of the kernel for itself.

use super::{Errno, syscall};

/// CPUs that a set names: the kernel's for machines of any size.
const CPUS: usize = 8192;

/// Blocks every signal in the calling thread: the handlers of a program that happens to host it are none of its business.
pub fn block_signals() {
    let all = u64::MAX;
    // SAFETY: the kernel's signal set has 8 bytes and outlives the call.
    unsafe {
        let _ = syscall(libc::SYS_rt_sigprocmask, [libc::SIG_BLOCK as usize, &raw const all as usize, 0, 8, 0, 0]);
    }
}

/// CPUs that are running.
pub fn online_cpus() -> u32 {
    // SAFETY: takes an integer.
    let n = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u32::try_from(n).unwrap_or(1).max(1)
}

/// Keeps the calling thread on one CPU. `EINVAL`: there is no such CPU, or this process may not run there.
pub fn stay_on(cpu: u32) -> Result<(), Errno> {
    let mut set = [0u64; CPUS / 64];
    let word = set.get_mut(cpu as usize / 64).ok_or(Errno(libc::EINVAL))?;
    *word = 1 << (cpu % 64);
    // SAFETY: the set outlives the call; 0 is the calling thread.
    unsafe { syscall(libc::SYS_sched_setaffinity, [0, size_of_val(&set), set.as_ptr() as usize, 0, 0, 0]).map(drop) }
}
