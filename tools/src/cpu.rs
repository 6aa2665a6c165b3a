//! Pinning threads to CPUs.

/// CPUs that this process may run on, in order.
pub fn allowed() -> Vec<usize> {
    // SAFETY: all-zero bytes are a valid, empty cpu_set_t.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable and its size is passed along; 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0 {
        return Vec::new();
    }
    // SAFETY: the index stays below CPU_SETSIZE, the number of bits in the set.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Pins the calling thread.
pub fn pin(cpu: usize) -> Result<(), String> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(format!("CPU {cpu} does not exist"));
    }
    // SAFETY: all-zero bytes are a valid, empty cpu_set_t.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: checked above: `cpu` is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is initialised and its size is passed along; 0 is the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } != 0 {
        let why = std::io::Error::last_os_error();
        return Err(format!("cannot pin a thread to CPU {cpu}: {why}; this process may use {:?}", allowed()));
    }
    Ok(())
}

/// CPU of thread `thread`, counting from `first` and going round after `cpus` CPUs.
pub fn of_thread(first: usize, thread: usize, cpus: usize) -> usize {
    (first + thread) % cpus.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_go_round_over_the_cpus() {
        let cpus: Vec<usize> = (0..4).map(|t| of_thread(1, t, 3)).collect();
        assert_eq!(cpus, [1, 2, 0, 1]);
    }

    #[test]
    fn a_thread_can_be_pinned_to_a_cpu_it_may_use() {
        let last = *allowed().last().expect("at least one CPU");
        std::thread::spawn(move || {
            pin(last).unwrap();
            assert_eq!(allowed(), [last]);
            assert!(pin(usize::MAX).is_err());
        })
        .join()
        .unwrap();
    }
}
