//! The peer of the `nic` benchmark: AF_XDP as one would write it by hand for one purpose. No validation, no locks, no other
//! processes; positions cached in registers; addresses recycled as they come.
//!
//! What is a matter of taste is as the library has it, so that only the layer differs: copy mode, ring sizes, one UMEM for
//! both ports, the redirect program, the transmit budget, when the kernel is told. System calls that make a socket come from
//! the library's `sys`; the data path is here.

use crate::worker::{BATCH, FRAME, Meter};
use netmap_xdp::sys::netdev::NetDev;
use netmap_xdp::sys::xdp::{self, Which};
use netmap_xdp::sys::{Fd, Map, Mode, sealed_memfd, settings};
use netmap_xdp::xsk::{AttachMode, Program, embedded, fill_size};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering::*};

/// Entries of each ring but the fill ring, and buffers in flight each way: the library's default.
const ENTRIES: u32 = 1024;
const CHUNK: u32 = 2048;
const NEED_WAKEUP: u32 = 1;

/// `struct xdp_desc`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Desc {
    addr: u64,
    len: u32,
    options: u32,
}

/// Buffers in shared memory.
struct Umem {
    map: Map,
}

impl Umem {
    fn new(buffers: u32) -> Umem {
        let len = (buffers * CHUNK) as usize;
        let fd = sealed_memfd(c"umem", len).expect("a memfd");
        Umem { map: Map::shared(&fd, len, 0, true).expect("a mapping") }
    }

    /// Start of the packet at `addr`.
    fn at(&self, addr: u64) -> *mut u8 {
        assert!(addr as usize + FRAME.len() <= self.map.len());
        // SAFETY: inside of the mapping, as just checked.
        unsafe { self.map.addr().as_ptr().add(addr as usize) }
    }
}

/// One of a socket's rings, from the side that this program has. `position` is its own cursor, `limit` where the other's was
/// when it was last looked at.
struct Ring<T> {
    own: *const AtomicU32,
    other: *const AtomicU32,
    flags: *const AtomicU32,
    entries: *mut T,
    size: u32,
    position: u32,
    limit: u32,
    _map: Map,
}

impl<T: Copy> Ring<T> {
    fn map(fd: &Fd, which: Which) -> Ring<T> {
        let at = xdp::ring_offsets(fd.as_raw_fd(), which).expect("offsets of a ring");
        let size = size_of(which);
        let len = at.entries as usize + size as usize * which.entry();
        let map = Map::shared(fd, len, which.page_offset(), true).expect("a mapping of a ring");
        // SAFETY: the kernel says where in the mapping things lie.
        let place = |offset: u64| unsafe { map.addr().as_ptr().add(offset as usize) };
        let (producer, consumer) = (place(at.producer).cast(), place(at.consumer).cast());
        let produces = matches!(which, Which::Fill | Which::Tx);
        let (own, other) = if produces { (producer, consumer) } else { (consumer, producer) };
        let (flags, entries) = (place(at.flags).cast(), place(at.entries).cast());
        Ring { own, other, flags, entries, size, position: 0, limit: if produces { size } else { 0 }, _map: map }
    }

    fn look(&self) -> u32 {
        // SAFETY: the mapping lives as long as the ring, and both sides use this word as an atomic.
        unsafe { (*self.other).load(Acquire) }
    }

    /// Producer: entries that may be written, at least `want` if there are.
    #[inline]
    fn room(&mut self, want: u32) -> u32 {
        if self.limit.wrapping_sub(self.position) < want {
            self.limit = self.look().wrapping_add(self.size);
        }
        self.limit.wrapping_sub(self.position)
    }

    /// Consumer: entries that may be read.
    #[inline]
    fn filled(&mut self) -> u32 {
        if self.limit == self.position {
            self.limit = self.look();
        }
        self.limit.wrapping_sub(self.position)
    }

    /// The entry `n` after the own cursor, to be read or written before [`Ring::advance`].
    #[inline]
    fn entry(&self, n: u32) -> *mut T {
        let i = self.position.wrapping_add(n) & (self.size - 1);
        // SAFETY: below `size`, a power of two, which is what was mapped.
        unsafe { self.entries.add(i as usize) }
    }

    /// Producer: `n` entries are written. Consumer: `n` entries are read.
    #[inline]
    fn advance(&mut self, n: u32) {
        self.position = self.position.wrapping_add(n);
        // SAFETY: as in `look`.
        unsafe { (*self.own).store(self.position, Release) };
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        // SAFETY: as in `look`.
        unsafe { (*self.flags).load(Relaxed) & NEED_WAKEUP != 0 }
    }
}

impl Ring<u64> {
    #[inline]
    fn read(&self, n: u32) -> u64 {
        // SAFETY: an entry of the ring that the kernel has given to this side (`filled`).
        unsafe { self.entry(n).read() }
    }

    #[inline]
    fn write(&self, n: u32, addr: u64) {
        // SAFETY: an entry of the ring that the kernel has given to this side (`room`).
        unsafe { self.entry(n).write(addr) }
    }
}

impl Ring<Desc> {
    #[inline]
    fn read(&self, n: u32) -> Desc {
        // SAFETY: as above.
        unsafe { self.entry(n).read() }
    }

    #[inline]
    fn write(&self, n: u32, addr: u64, len: u32) {
        // SAFETY: as above.
        unsafe { self.entry(n).write(Desc { addr, len, options: 0 }) }
    }
}

fn size_of(which: Which) -> u32 {
    if matches!(which, Which::Fill) { fill_size(ENTRIES) } else { ENTRIES }
}

/// A socket on queue 0 of a device.
struct Port {
    fill: Ring<u64>,
    completion: Ring<u64>,
    rx: Ring<Desc>,
    tx: Ring<Desc>,
    // After the rings: mappings count as references.
    fd: Fd,
    _program: Option<Box<dyn Program>>,
}

impl Port {
    /// Makes the socket. It registers `umem`, or shares the one of `sibling`. `steer`: with the redirect program on the
    /// device, as the library has it even where nothing is received.
    fn open(dev: &str, umem: &Umem, sibling: Option<RawFd>, steer: bool) -> Port {
        let dev = NetDev::by_name(dev).unwrap_or_else(|e| panic!("{dev}: {e}"));
        let fd = xdp::socket().expect("a socket");
        if sibling.is_none() {
            let (addr, len) = (umem.map.addr().as_ptr() as usize, umem.map.len() as u64);
            // SAFETY: a shared mapping of its own that outlives the socket, and that nobody holds references into.
            unsafe { xdp::register_umem(&fd, addr, len, [CHUNK, 0], false) }.expect("UMEM");
        }
        for which in [Which::Fill, Which::Completion, Which::Rx, Which::Tx] {
            xdp::set_ring_size(&fd, which, size_of(which)).expect("ring size");
        }
        // Kernels before 6.17 do not know it.
        let _ = xdp::set_tx_budget(&fd, ENTRIES);
        let flags = if sibling.is_some() { libc::XDP_SHARED_UMEM } else { libc::XDP_COPY | libc::XDP_USE_NEED_WAKEUP };
        bind(&fd, dev.ifindex, flags, sibling);
        let program = steer.then(|| {
            let mut program = embedded().load(1).expect("the redirect program");
            let mode = if generic() { AttachMode::Generic } else { AttachMode::Native };
            program.attach(dev.ifindex, &dev.name, mode).expect("a device without XDP program");
            program.insert(0, fd.as_raw_fd()).expect("queue 0");
            program
        });
        Port {
            fill: Ring::map(&fd, Which::Fill),
            completion: Ring::map(&fd, Which::Completion),
            rx: Ring::map(&fd, Which::Rx),
            tx: Ring::map(&fd, Which::Tx),
            fd,
            _program: program,
        }
    }

    /// Offers buffers `0..n` to receive into.
    fn offer(&mut self, n: u32) {
        for i in 0..n {
            self.fill.write(i, u64::from(i * CHUNK));
        }
        self.fill.advance(n);
    }

    /// Tells the kernel until it has taken everything, or takes no more.
    #[inline]
    fn kick(&self) {
        let mut at = self.tx.look();
        while at != self.tx.position && self.tx.needs_wakeup() {
            // SAFETY: neither buffer nor address are passed.
            let sent = unsafe {
                libc::sendto(self.fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
            };
            let now = self.tx.look();
            let again = [libc::EBUSY, libc::EAGAIN, libc::ENOBUFS, libc::EINTR];
            if now == at || (sent < 0 && !again.contains(&last_errno())) {
                break;
            }
            at = now;
        }
    }

    fn wait(&self, events: i16, millis: i32) {
        let mut p = libc::pollfd { fd: self.fd.as_raw_fd(), events, revents: 0 };
        // SAFETY: one entry.
        unsafe { libc::poll(&mut p, 1, millis) };
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch(at: *const u8) {
    // SAFETY: a hint, which faults for no address.
    unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
fn prefetch(_: *const u8) {}

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// After the last close of a queue the kernel needs some milliseconds before the next bind.
fn bind(fd: &Fd, ifindex: u32, flags: u16, sibling: Option<RawFd>) {
    for _ in 0..200 {
        match xdp::bind(fd, ifindex, 0, flags, sibling) {
            Ok(()) => return,
            Err(e) if e.0 == libc::EBUSY => std::thread::sleep(std::time::Duration::from_millis(5)),
            Err(e) => panic!("bind: {e}"),
        }
    }
    panic!("bind: the queue stays busy");
}

fn generic() -> bool {
    settings().mode.all == Some(Mode::Generic)
}

/// What the sockets here are, in the library's words.
pub fn mode() -> &'static str {
    if generic() { "generic" } else { "native" }
}

/// Sends as fast as it goes, or `rate` packets a second in batches. `steer` as in [`Port::open`].
pub fn transmit(dev: &str, meter: &mut Meter, rate: Option<u64>, steer: bool) {
    let umem = Umem::new(ENTRIES);
    let mut port = Port::open(dev, &umem, None, steer);
    for i in 0..ENTRIES {
        // SAFETY: the frame fits, as `at` checked; nobody else knows this memory yet.
        unsafe { umem.at(u64::from(i * CHUNK)).copy_from_nonoverlapping(FRAME.as_ptr(), FRAME.len()) };
    }
    let (mut next, mut outstanding) = (0, 0);
    let start = crate::machine::now();
    let mut due = 0;
    while meter.goes_on() {
        if let Some(rate) = rate {
            let passed = crate::machine::now() - start;
            if passed < due {
                std::thread::sleep(std::time::Duration::from_nanos(due - passed));
            }
            due = due.max(passed.saturating_sub(10_000_000)) + u64::from(BATCH) * 1_000_000_000 / rate;
        }
        // Every frame is the same, so it does not matter which of them came back.
        let done = port.completion.filled();
        if done > 0 {
            port.completion.advance(done);
            outstanding -= done;
        }
        let n = BATCH.min(ENTRIES - 1 - outstanding).min(port.tx.room(BATCH));
        for i in 0..n {
            port.tx.write(i, u64::from(next * CHUNK), FRAME.len() as u32);
            next = (next + 1) % ENTRIES;
        }
        port.tx.advance(n);
        outstanding += n;
        meter.packets += u64::from(n);
        port.kick();
        if n == 0 {
            port.wait(libc::POLLOUT, 1);
        }
    }
}

/// Receives, looks at the first bytes of each packet, and gives its buffer back.
pub fn receive(dev: &str, meter: &mut Meter) {
    let umem = Umem::new(ENTRIES);
    let mut port = Port::open(dev, &umem, None, true);
    port.offer(ENTRIES);
    while meter.goes_on() {
        let n = port.rx.filled().min(BATCH);
        if n == 0 {
            port.wait(libc::POLLIN, 100);
            continue;
        }
        // There are as many entries as buffers, but the kernel says what it has received before it says what it took.
        let n = n.min(port.fill.room(n));
        for i in 0..n {
            let d = port.rx.read(i);
            // SAFETY: `at` checked the place; the kernel has given the buffer to us.
            meter.look(unsafe { umem.at(d.addr).cast::<u64>().read_unaligned() });
            port.fill.write(i, d.addr - d.addr % u64::from(CHUNK));
        }
        port.fill.advance(n);
        port.rx.advance(n);
        if port.fill.needs_wakeup() {
            // SAFETY: neither buffer nor address are passed.
            unsafe { libc::recv(port.fd.as_raw_fd(), std::ptr::null_mut(), 0, libc::MSG_DONTWAIT) };
        }
        meter.packets += u64::from(n);
    }
}

/// Sends on `to` what comes in at `from`, without copying.
pub fn forward(from: &str, to: &str, meter: &mut Meter) {
    let umem = Umem::new(ENTRIES);
    let mut a = Port::open(from, &umem, None, true);
    let mut b = Port::open(to, &umem, Some(a.fd.as_raw_fd()), true);
    a.offer(ENTRIES);
    while meter.goes_on() {
        let back = b.completion.filled();
        if back > 0 {
            let back = back.min(a.fill.room(back));
            for i in 0..back {
                let addr = b.completion.read(i);
                a.fill.write(i, addr - addr % u64::from(CHUNK));
            }
            a.fill.advance(back);
            b.completion.advance(back);
        }
        let n = a.rx.filled().min(BATCH).min(b.tx.room(BATCH));
        if n == 0 {
            a.wait(libc::POLLIN, 1);
            continue;
        }
        for i in 0..n {
            let d = a.rx.read(i);
            // The kernel will copy it.
            prefetch(umem.at(d.addr));
            b.tx.write(i, d.addr, d.len);
        }
        a.rx.advance(n);
        b.tx.advance(n);
        b.kick();
        meter.packets += u64::from(n);
    }
}
