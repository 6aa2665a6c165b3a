//! XDP programs run by hand: `BPF_PROG_TEST_RUN`, of `linux/bpf.h`.

use netmap_xdp::shm::{Memory, Ref};
use netmap_xdp::sync::{AtomicU32, Ordering::*};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const MAP_CREATE: i32 = 0;
const PROG_LOAD: i32 = 5;
const PROG_TEST_RUN: i32 = 10;
const PROG_GET_FD_BY_ID: i32 = 13;
const MAP_TYPE_ARRAY: u32 = 2;
const MAP_MMAPABLE: u32 = 1 << 10;
const PROG_TYPE_XDP: u32 = 6;
const HELPER_REDIRECT: u32 = 23;
/// What becomes of a frame is what the program says, as if it had been received (Linux 5.18).
const TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
/// Bytes of a page: what of a map can be mapped at least.
const PAGE: usize = 4096;

/// A loaded program.
pub struct Program(OwnedFd);

impl Program {
    /// The one of this id.
    pub fn by_id(id: u32) -> Result<Program> {
        // SAFETY: three integers.
        unsafe { bpf(PROG_GET_FD_BY_ID, &mut [id, 0, 0]) }.map(Program)
    }

    /// Its verdict on a frame.
    pub fn verdict(&self, frame: &[u8]) -> Result<u32> {
        let mut attr = self.test(frame, 1);
        // SAFETY: the frame is valid during the call.
        unsafe { test_run(&mut attr) }.map(|()| attr[1])
    }

    fn test(&self, frame: &[u8], times: u32) -> [u32; 20] {
        let [low, high] = words(frame.as_ptr() as u64);
        let (fd, len) = (self.0.as_raw_fd() as u32, frame.len() as u32);
        let mut attr = [0; 20];
        // Program, verdict, length in and out, data in and out, repetitions.
        attr[..9].copy_from_slice(&[fd, 0, len, 0, low, high, 0, 0, times]);
        attr
    }
}

/// A program that sends frames out of an interface of the calling thread's network namespace: of whichever it was told last.
pub struct Redirect {
    program: Program,
    to: Ref<AtomicU32>,
}

impl Redirect {
    /// Loads it; it knows no interface yet, and drops what it gets.
    pub fn load() -> Result<Redirect> {
        // SAFETY: five integers.
        let map = unsafe { bpf(MAP_CREATE, &mut [MAP_TYPE_ARRAY, 4, 4, 1, MAP_MMAPABLE]) }?;
        // struct bpf_insn: operation, two registers, constant. The first one takes two.
        let insn = |code: u8, registers: u8, constant: u32| {
            u64::from(constant) << 32 | u64::from(registers) << 8 | u64::from(code)
        };
        let (map_value, load, set, call, exit) = (0x18, 0x61, 0xb7, 0x85, 0x95);
        let insns = [
            insn(map_value, 0x21, map.as_raw_fd() as u32),
            insn(0, 0, 0),
            insn(load, 0x11, 0),
            insn(set, 0x02, 0),
            insn(call, 0, HELPER_REDIRECT),
            insn(exit, 0, 0),
        ];
        let [at, license] = [insns.as_ptr() as u64, c"Dual BSD/GPL".as_ptr() as u64].map(words);
        let mut attr = [PROG_TYPE_XDP, insns.len() as u32, at[0], at[1], license[0], license[1]];
        // SAFETY: both pointers are valid during the call, for as many instructions as it says.
        let program = Program(unsafe { bpf(PROG_LOAD, &mut attr) }?);
        let memory = Memory::map(&map, PAGE, 0, true).map_err(|e| Error::from_raw_os_error(e.0))?;
        Ok(Redirect { program, to: memory.object(0).map_err(Error::other)? })
    }

    /// From now on frames leave by this interface; 0: by none.
    pub fn aim(&self, ifindex: u32) {
        self.to.store(ifindex, Relaxed);
    }

    /// Sends a frame `times` times, `batch` at a time; a signal ends it early.
    pub fn send(&self, frame: &[u8], times: u32, batch: u32) -> Result<()> {
        let mut attr = self.program.test(frame, times);
        [attr[16], attr[18]] = [TEST_XDP_LIVE_FRAMES, batch];
        // SAFETY: the frame is valid during the call.
        unsafe { test_run(&mut attr) }
    }
}

/// # Safety
/// As of [`call`].
unsafe fn test_run(attr: &mut [u32; 20]) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { call(PROG_TEST_RUN, attr) }.map(drop)
}

/// A command that makes a descriptor.
///
/// # Safety
/// As of [`call`].
unsafe fn bpf(command: i32, attr: &mut [u32]) -> Result<OwnedFd> {
    // SAFETY: the caller's promise; the descriptor is new, and ours.
    unsafe { call(command, attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// # Safety
/// `attr` is what `command` asks for; pointers in it are valid for what the kernel reads and writes.
unsafe fn call(command: i32, attr: &mut [u32]) -> Result<i32> {
    // SAFETY: the length is the slice's own, the rest is the caller's promise.
    match unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) } {
        done @ 0.. => Ok(done as i32),
        _ => Err(Error::last_os_error()),
    }
}

fn words(n: u64) -> [u32; 2] {
    [n as u32, (n >> 32) as u32]
}
