//! A netmap program in a few lines, over the client's own entry points: descriptors, requests, rings by address.
#![allow(dead_code, reason = "each test file uses a part")]

use netmap_xdp::abi::*;
use netmap_xdp::client;
use netmap_xdp_tests::{Cmd, Daemons, tool};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The process has one engine, so tests take turns.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the tests of this binary once more, but for those whose name has `netmapd` in it, with a netmapd of their own in
/// place of the engine in the process.
pub fn again_through_netmapd() {
    // A child that is born while another test has a descriptor open keeps a copy of it.
    let _turn = alone();
    let daemons = Daemons::new();
    let _daemon = daemons.start(&[]);
    let this = std::env::current_exe().expect("the path of the running test");
    let again = Cmd::new(this).args(["--skip", "netmapd"]).env("NETMAP_XDP_ENGINE", "daemon");
    let again = again.env("NETMAP_XDP_SOCKET", daemons.socket()).env("NETMAP_XDP_DAEMON", tool("netmapd"));
    let done = again.timeout(std::time::Duration::from_secs(120)).run();
    assert!(done.success(), "{done}");
    assert!(done.stdout.contains("test result: ok.") && !done.stdout.contains(" 0 passed"), "{done}");
}

/// An open of `/dev/netmap`.
pub struct Netmap(pub RawFd);

impl Netmap {
    pub fn open() -> Netmap {
        Netmap(client::open(0).expect("open"))
    }

    /// A control request; the errno if it is refused.
    pub fn control(&self, kind: u16, name: &str, body: u64, options: u64) -> Result<(), i32> {
        let mut header = nmreq_header {
            nr_version: NETMAP_API,
            nr_reqtype: kind,
            nr_reserved: 0,
            nr_name: [0; 64],
            nr_options: options,
            nr_body: body,
        };
        header.nr_name[..name.len()].copy_from_slice(name.as_bytes());
        self.ioctl(NIOCCTRL, &raw mut header as usize).map(drop)
    }

    pub fn ioctl(&self, request: u64, arg: usize) -> Result<i32, i32> {
        client::ioctl(self.0, request, arg).expect("a netmap descriptor").map_err(|e| e.0)
    }

    pub fn register_as(&self, name: &str, mut body: nmreq_register, options: u64) -> Result<nmreq_register, i32> {
        self.control(NETMAP_REQ_REGISTER, name, &raw mut body as u64, options).map(|()| body)
    }

    /// All NIC rings, with 64 slots each where the port is to be made.
    pub fn register(&self, name: &str, flags: u64, options: u64) -> Result<nmreq_register, i32> {
        let body = nmreq_register {
            nr_mode: NR_REG_ALL_NIC,
            nr_flags: flags,
            nr_tx_slots: 64,
            nr_rx_slots: 64,
            ..Default::default()
        };
        self.register_as(name, body, options)
    }

    /// What `poll` answers at once.
    pub fn poll(&self, events: i16) -> i16 {
        let mut fds = [libc::pollfd { fd: self.0, events, revents: 0 }];
        client::poll(&mut fds, Some(std::time::Duration::ZERO), None).expect("ours").expect("poll");
        fds[0].revents
    }

    /// Maps the region.
    pub fn map(&self, reg: &nmreq_register) -> Nifp {
        let len = reg.nr_memsize as usize;
        let fd = client::mmap_target(self.0, len, libc::MAP_SHARED, 0).expect("ours").expect("mmap");
        // SAFETY: a new mapping, which the test leaves behind.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0)
        };
        assert_ne!(at, libc::MAP_FAILED);
        Nifp(at as usize + reg.nr_offset as usize)
    }
}

impl Drop for Netmap {
    fn drop(&mut self) {
        client::close(self.0);
    }
}

/// A `netmap_if`, by its address in a mapping that stays.
#[derive(Clone, Copy)]
pub struct Nifp(pub usize);

impl Nifp {
    pub fn get(self) -> netmap_if {
        // SAFETY: the test mapped it.
        unsafe { (self.0 as *const netmap_if).read_volatile() }
    }

    fn ring(self, i: u32) -> Ring {
        // SAFETY: the offsets follow the structure; the test asks for rings that it bound.
        let offset = unsafe { ((self.0 + size_of::<netmap_if>()) as *const isize).add(i as usize).read_volatile() };
        assert_ne!(offset, 0, "ring {i} is not bound");
        Ring((self.0 as isize + offset) as *mut netmap_ring)
    }

    pub fn tx(self, i: u32) -> Ring {
        self.ring(i)
    }

    pub fn rx(self, i: u32) -> Ring {
        let nifp = self.get();
        self.ring(nifp.ni_tx_rings + nifp.ni_host_tx_rings + i)
    }
}

/// A ring, as the macros of netmap_user.h see it.
#[derive(Clone, Copy)]
pub struct Ring(pub *mut netmap_ring);

impl Ring {
    pub fn get(self) -> netmap_ring {
        // SAFETY: a ring in a mapping that stays.
        unsafe { self.0.read_volatile() }
    }

    pub fn slot(self, i: u32) -> &'static mut netmap_slot {
        assert!(i < self.get().num_slots);
        // SAFETY: slots follow the ring; the test uses one at a time.
        unsafe { &mut *self.0.add(1).cast::<netmap_slot>().add(i as usize) }
    }

    /// Bytes of the buffer of slot `i` from its offset on.
    pub fn data(self, i: u32, offset: usize, len: usize) -> &'static mut [u8] {
        let ring = self.get();
        let at = self.0 as isize + ring.buf_ofs as isize + (self.slot(i).buf_idx * ring.nr_buf_size) as isize;
        assert!(offset + len <= ring.nr_buf_size as usize);
        // SAFETY: inside a buffer of the region.
        unsafe { std::slice::from_raw_parts_mut((at as usize + offset) as *mut u8, len) }
    }

    /// `head` and `cur`.
    pub fn give(self, head: u32) {
        // SAFETY: as above.
        unsafe {
            (&raw mut (*self.0).head).write_volatile(head);
            (&raw mut (*self.0).cur).write_volatile(head);
        }
    }
}

/// Address of something that the library will read or write.
pub fn at<T>(value: &mut T) -> u64 {
    &raw mut *value as u64
}

pub fn option(kind: u32) -> nmreq_option {
    nmreq_option { nro_reqtype: kind, ..Default::default() }
}

/// A word of shared memory, read and written as the macros of netmap.h do.
pub fn word(value: &u32) -> &AtomicU32 {
    // SAFETY: same size and alignment; others write it atomically.
    unsafe { &*(&raw const *value).cast::<AtomicU32>() }
}

pub fn load(value: &u32) -> u32 {
    word(value).load(Ordering::Acquire)
}

pub fn store(value: &u32, n: u32) {
    word(value).store(n, Ordering::SeqCst);
}

/// `n` bytes of memory, shared or private.
pub fn memory(n: usize, sharing: i32) -> usize {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), n, prot, sharing | libc::MAP_ANONYMOUS, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at as usize
}
