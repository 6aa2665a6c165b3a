//! Memory of the program, at addresses that nobody has checked: a bad one is `EFAULT`, as it is in the kernel, and not
//! a `SIGSEGV` in the middle of the program's `ioctl`.
//!
//! Called by whatever thread made the request, in the program's own process. Nothing is cached, and no reference to the
//! program's memory is ever made: another thread may write or unmap it meanwhile.

use super::{Errno, Fd, syscall};
use crate::abi::Pod;
use std::cell::RefCell;
use std::mem::{MaybeUninit, size_of, size_of_val};
use std::os::fd::AsRawFd;

/// Checked access to a program's memory.
pub trait UserMem {
    /// Fills `into` from the memory at `addr`. `EFAULT` if any byte of it cannot be read.
    fn read(&self, addr: u64, into: &mut [u8]) -> Result<(), Errno>;

    /// Stores `from` at `addr`. `EFAULT` if any byte cannot be written; those before it may have been.
    fn write(&self, addr: u64, from: &[u8]) -> Result<(), Errno>;
}

/// Reads a structure at `addr`, which need not be aligned.
pub fn read_pod<T: Pod>(mem: &dyn UserMem, addr: u64) -> Result<T, Errno> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the slice covers `value`, whose bytes are all initialised (zero); nothing else refers to it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
    mem.read(addr, bytes)?;
    // SAFETY: any bytes are a valid `T` (Pod).
    Ok(unsafe { value.assume_init() })
}

/// Writes a structure to `addr`, which need not be aligned.
pub fn write_pod<T: Pod>(mem: &dyn UserMem, addr: u64, value: &T) -> Result<(), Errno> {
    mem.write(addr, pod_bytes(value))
}

/// The bytes of a structure.
pub fn pod_bytes<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: Pod has no padding, so every byte is initialised; the slice borrows `value`.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of_val(value)) }
}

/// A structure from the first of `bytes`; `None` if there are too few.
pub fn pod_from_bytes<T: Pod>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: there are enough bytes, any bytes are a valid `T` (Pod), and the read does not ask for alignment.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The memory of the calling process.
///
/// The kernel does the copying (`process_vm_readv(2)` on ourselves), so it does the checking too. Where that call is
/// refused, as some seccomp filters do, the bytes go through a pipe instead: `read(2)` and `write(2)` check as well.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnProcess;

impl UserMem for OwnProcess {
    fn read(&self, addr: u64, into: &mut [u8]) -> Result<(), Errno> {
        let Some(addr) = span(addr, into.len())? else { return Ok(()) };
        match vm_copy(libc::SYS_process_vm_readv, into.as_mut_ptr() as usize, addr, into.len()) {
            Err(errno) if errno.0 != libc::EFAULT => through_pipe(into.len(), addr, into.as_mut_ptr() as usize),
            done => done,
        }
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result<(), Errno> {
        let Some(addr) = span(addr, from.len())? else { return Ok(()) };
        match vm_copy(libc::SYS_process_vm_writev, from.as_ptr() as usize, addr, from.len()) {
            Err(errno) if errno.0 != libc::EFAULT => through_pipe(from.len(), from.as_ptr() as usize, addr),
            done => done,
        }
    }
}

const FAULT: Errno = Errno(libc::EFAULT);

/// The address as this machine's, if the span does not wrap around; `None` if it is empty.
fn span(addr: u64, len: usize) -> Result<Option<usize>, Errno> {
    if len == 0 {
        return Ok(None);
    }
    let addr = usize::try_from(addr).map_err(|_| FAULT)?;
    addr.checked_add(len).ok_or(FAULT)?;
    Ok(Some(addr))
}

/// Copies between `ours` and `theirs`, both in this process; the call decides which way. A part is not enough.
fn vm_copy(call: libc::c_long, ours: usize, theirs: usize, len: usize) -> Result<(), Errno> {
    let local = libc::iovec { iov_base: ours as *mut _, iov_len: len };
    let remote = libc::iovec { iov_base: theirs as *mut _, iov_len: len };
    let (local, remote) = (std::ptr::from_ref(&local) as usize, std::ptr::from_ref(&remote) as usize);
    // SAFETY: `ours` is a live buffer of `len` bytes (both callers pass a slice of theirs); the kernel checks `theirs`.
    let done = unsafe {
        let pid = syscall(libc::SYS_getpid, [0; 6])?;
        syscall(call, [pid, local, 1, remote, 1, 0])?
    };
    if done == len { Ok(()) } else { Err(FAULT) }
}

/// Copies `len` bytes from `from` to `to`, one of which is unchecked, a page at a time so that a pipe never fills.
fn through_pipe(len: usize, from: usize, to: usize) -> Result<(), Errno> {
    let mut ends = [0i32; 2];
    let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as usize;
    // SAFETY: `ends` has room for two integers; both descriptors are new.
    let (source, sink) = unsafe {
        syscall(libc::SYS_pipe2, [ends.as_mut_ptr() as usize, flags, 0, 0, 0, 0])?;
        (Fd::from_raw_high(ends[0]), Fd::from_raw_high(ends[1]))
    };
    for at in (0..len).step_by(4096) {
        let n = (len - at).min(4096);
        for (call, fd, addr) in [(libc::SYS_write, &sink, from + at), (libc::SYS_read, &source, to + at)] {
            // SAFETY: the span is a live buffer of ours or one that the kernel checks (both callers).
            if unsafe { syscall(call, [fd.as_raw_fd() as usize, addr, n, 0, 0, 0])? } != n {
                return Err(FAULT);
            }
        }
    }
    Ok(())
}

/// Memory that only tests know: some segments, and nothing between them.
#[derive(Debug, Default)]
pub struct FakeMem(RefCell<Vec<Segment>>);

#[derive(Debug)]
struct Segment {
    at: u64,
    bytes: Vec<u8>,
    writable: bool,
}

impl FakeMem {
    /// No memory at all.
    pub fn new() -> FakeMem {
        FakeMem::default()
    }

    /// Maps `bytes` at `at`, in front of what is there.
    pub fn map(&self, at: u64, bytes: &[u8]) {
        self.0.borrow_mut().insert(0, Segment { at, bytes: bytes.to_vec(), writable: true });
    }

    /// Maps `bytes` at `at`, not to be written.
    pub fn map_read_only(&self, at: u64, bytes: &[u8]) {
        self.0.borrow_mut().insert(0, Segment { at, bytes: bytes.to_vec(), writable: false });
    }

    /// Maps a structure at `at`.
    pub fn put<T: Pod>(&self, at: u64, value: &T) {
        self.map(at, pod_bytes(value));
    }

    /// The structure at `at`; panics if nothing is mapped there.
    pub fn get<T: Pod>(&self, at: u64) -> T {
        read_pod(self, at).expect("nothing is mapped there")
    }

    fn with(&self, at: u64, len: usize, f: impl FnOnce(&mut [u8], bool) -> Result<(), Errno>) -> Result<(), Errno> {
        if len == 0 {
            return Ok(());
        }
        for segment in self.0.borrow_mut().iter_mut() {
            let Some(start) = at.checked_sub(segment.at).and_then(|n| usize::try_from(n).ok()) else { continue };
            let Some(end) = start.checked_add(len) else { continue };
            if let Some(bytes) = segment.bytes.get_mut(start..end) {
                return f(bytes, segment.writable);
            }
        }
        Err(FAULT)
    }
}

impl UserMem for FakeMem {
    fn read(&self, addr: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.with(addr, into.len(), |bytes, _| {
            into.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result<(), Errno> {
        self.with(addr, from.len(), |bytes, writable| {
            if !writable {
                return Err(FAULT);
            }
            bytes.copy_from_slice(from);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::nmreq_option;

    /// A readable and writable page, then a page that is neither, then one that can only be read.
    fn pages() -> usize {
        let prot = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
        // SAFETY: a new mapping that the test leaves behind, and changes of protection within it.
        unsafe {
            let at = syscall(libc::SYS_mmap, [0, 3 * 4096, prot, flags, usize::MAX, 0]).unwrap();
            syscall(libc::SYS_mprotect, [at + 4096, 4096, 0, 0, 0, 0]).unwrap();
            syscall(libc::SYS_mprotect, [at + 8192, 4096, libc::PROT_READ as usize, 0, 0, 0]).unwrap();
            at
        }
    }

    type Read = fn(usize, &mut [u8]) -> Result<(), Errno>;
    type Write = fn(usize, &[u8]) -> Result<(), Errno>;

    /// Both ways of copying must behave alike.
    const WAYS: [(Read, Write); 2] = [
        (|at, into| OwnProcess.read(at as u64, into), |at, from| OwnProcess.write(at as u64, from)),
        (
            |at, into| through_pipe(into.len(), at, into.as_mut_ptr() as usize),
            |at, from| through_pipe(from.len(), from.as_ptr() as usize, at),
        ),
    ];

    #[test]
    fn what_is_written_is_read_back() {
        let at = pages();
        for (read, write) in WAYS {
            let data: Vec<u8> = (0..4000u32).map(|i| (i * 7) as u8).collect();
            let mut back = vec![0; data.len()];
            write(at + 3, &data).unwrap();
            read(at + 3, &mut back).unwrap();
            assert_eq!(back, data);
        }
    }

    #[test]
    fn more_than_a_page_goes_through_a_pipe() {
        let data: Vec<u8> = (0..20_000u32).map(|i| (i / 3) as u8).collect();
        let mut back = vec![0; data.len()];
        through_pipe(data.len(), data.as_ptr() as usize, back.as_mut_ptr() as usize).unwrap();
        assert_eq!(back, data);
    }

    #[test]
    fn bad_addresses_fault_and_do_not_kill() {
        let at = pages();
        let mut into = [0; 64];
        for (read, write) in WAYS {
            for bad in [0, 1, at + 4096, at + 4096 - 32, usize::MAX - 100, 0x8000_0000_0000_0000] {
                assert_eq!(read(bad, &mut into), Err(FAULT), "{bad:#x}");
                assert_eq!(write(bad, &into), Err(FAULT), "{bad:#x}");
            }
            assert_eq!(read(at + 8192, &mut into), Ok(()), "a read-only page can be read");
            assert_eq!(write(at + 8192, &into), Err(FAULT), "and not written");
        }
    }

    #[test]
    fn a_span_that_wraps_around_faults() {
        assert_eq!(OwnProcess.read(u64::MAX - 3, &mut [0; 8]), Err(FAULT));
        assert_eq!(OwnProcess.write(u64::MAX, &[0; 2]), Err(FAULT));
    }

    #[test]
    fn nothing_can_be_copied_anywhere() {
        assert_eq!(OwnProcess.read(0, &mut []), Ok(()));
        assert_eq!(OwnProcess.write(u64::MAX, &[]), Ok(()));
    }

    #[test]
    fn structures_need_no_alignment() {
        let mut room = [0u8; 64];
        let at = room.as_mut_ptr() as u64 + 1;
        let option = nmreq_option { nro_next: 0x1122, nro_reqtype: 3, nro_status: 4, nro_size: 5 };
        write_pod(&OwnProcess, at, &option).unwrap();
        let back: nmreq_option = read_pod(&OwnProcess, at).unwrap();
        assert_eq!((back.nro_next, back.nro_reqtype, back.nro_status, back.nro_size), (0x1122, 3, 4, 5));
        let again: nmreq_option = pod_from_bytes(&room[1..]).unwrap();
        assert_eq!(again.nro_next, 0x1122);
        assert!(pod_from_bytes::<nmreq_option>(&room[..23]).is_none());
    }

    #[test]
    fn fake_memory_has_edges() {
        let mem = FakeMem::new();
        mem.map(0x1000, &[1, 2, 3, 4]);
        mem.map_read_only(0x2000, &[5; 4]);
        let mut two = [0; 2];
        assert_eq!(mem.read(0x1002, &mut two), Ok(()));
        assert_eq!(two, [3, 4]);
        assert_eq!(mem.read(0x1003, &mut two), Err(FAULT));
        assert_eq!(mem.read(0xfff, &mut two), Err(FAULT));
        assert_eq!(mem.write(0x1000, &[9]), Ok(()));
        assert_eq!(mem.get::<Byte>(0x1000).0, 9);
        assert_eq!(mem.write(0x2000, &[9]), Err(FAULT));
    }

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Byte(u8);
    // SAFETY: one byte.
    unsafe impl Pod for Byte {}
}
