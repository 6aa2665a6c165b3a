//! The system calls of AF_XDP sockets: creation, ring sizes, UMEM, bind, kick, statistics.
//!
//! Numbers only: what an address means is `xsk`'s business. Source: `net/xdp/xsk.c`, `include/uapi/linux/if_xdp.h`.

use super::{Errno, Error, Fd, syscall};
use std::mem::size_of;
use std::os::fd::{AsRawFd, RawFd};

/// The four rings of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Buffers for the kernel to receive into.
    Fill,
    /// Buffers that the kernel has sent.
    Completion,
    /// Received descriptors.
    Rx,
    /// Descriptors to send.
    Tx,
}

impl Which {
    fn option(self) -> (i32, &'static str) {
        match self {
            Which::Fill => (libc::XDP_UMEM_FILL_RING, "setsockopt XDP_UMEM_FILL_RING"),
            Which::Completion => (libc::XDP_UMEM_COMPLETION_RING, "setsockopt XDP_UMEM_COMPLETION_RING"),
            Which::Rx => (libc::XDP_RX_RING, "setsockopt XDP_RX_RING"),
            Which::Tx => (libc::XDP_TX_RING, "setsockopt XDP_TX_RING"),
        }
    }

    /// Offset at which the ring is mapped.
    pub fn page_offset(self) -> u64 {
        match self {
            Which::Rx => 0,
            Which::Tx => 0x8000_0000,
            Which::Fill => 0x1_0000_0000,
            Which::Completion => 0x1_8000_0000,
        }
    }

    /// Bytes of one entry.
    pub fn entry(self) -> usize {
        match self {
            Which::Fill | Which::Completion => 8,
            Which::Rx | Which::Tx => 16,
        }
    }
}

/// Where producer, consumer, entries and flags of one ring lie in its mapping; `struct xdp_ring_offset`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RingOffsets {
    /// Offset of the producer.
    pub producer: u64,
    /// Offset of the consumer.
    pub consumer: u64,
    /// Offset of the entries.
    pub entries: u64,
    /// Offset of the flags.
    pub flags: u64,
}

/// Counters that the kernel keeps for a socket, `XDP_STATISTICS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames dropped for other reasons than the two below, such as a frame too large.
    pub rx_dropped: u64,
    /// Descriptors with invalid contents that were received.
    pub rx_invalid_descs: u64,
    /// Descriptors with invalid contents that were to be sent.
    pub tx_invalid_descs: u64,
    /// Frames dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Frames dropped because the fill ring was empty.
    pub rx_fill_ring_empty: u64,
}

fn set<T>(fd: &Fd, option: i32, call: &'static str, value: &T) -> Result<(), Error> {
    set_at(fd, libc::SOL_XDP, option, call, value)
}

fn set_at<T>(fd: &Fd, level: i32, option: i32, call: &'static str, value: &T) -> Result<(), Error> {
    let (fd, level) = (fd.as_raw_fd() as usize, level as usize);
    // SAFETY: the value outlives the call and its size is told.
    unsafe {
        let at = value as *const T as usize;
        syscall(libc::SYS_setsockopt, [fd, level, option as usize, at, size_of::<T>(), 0])
            .map(drop)
            .map_err(|e| Error::new(call, "", e))
    }
}

fn get<T>(fd: RawFd, option: i32, call: &'static str, value: &mut T) -> Result<usize, Error> {
    let mut len = size_of::<T>() as libc::socklen_t;
    let (fd, level) = (fd as usize, libc::SOL_XDP as usize);
    // SAFETY: the value outlives the call and its size is told; the kernel writes at most that.
    unsafe {
        let (at, size) = (value as *mut T as usize, &raw mut len as usize);
        syscall(libc::SYS_getsockopt, [fd, level, option as usize, at, size, 0])
            .map_err(|e| Error::new(call, "", e))?;
    }
    Ok(len as usize)
}

/// A new AF_XDP socket.
pub fn socket() -> Result<Fd, Error> {
    let kind = (libc::SOCK_RAW | libc::SOCK_CLOEXEC) as usize;
    // SAFETY: takes integers; the new descriptor is ours.
    unsafe {
        syscall(libc::SYS_socket, [libc::AF_XDP as usize, kind, 0, 0, 0, 0])
            .map(|fd| Fd::from_raw_high(fd as i32))
            .map_err(|e| Error::new("socket AF_XDP", "", e))
    }
}

/// Registers memory of this process as the socket's UMEM. Received data begins `headroom` bytes further into its chunk than the
/// 256 that the kernel keeps (`XDP_PACKET_HEADROOM`).
///
/// # Safety
/// `[addr, addr + len)` is a shared mapping that stays while the socket lives, and whose contents the kernel may overwrite
/// wherever the fill ring says.
pub unsafe fn register_umem(
    fd: &Fd,
    addr: usize,
    len: u64,
    [chunk, headroom]: [u32; 2],
    unaligned: bool,
) -> Result<(), Error> {
    // `struct xdp_umem_reg` as every kernel since 5.4 takes it; later fields are for transmit metadata.
    #[repr(C)]
    struct UmemReg {
        addr: u64,
        len: u64,
        chunk_size: u32,
        headroom: u32,
        flags: u32,
        pad: u32,
    }
    let flags = if unaligned { libc::XDP_UMEM_UNALIGNED_CHUNK_FLAG } else { 0 };
    let reg = UmemReg { addr: addr as u64, len, chunk_size: chunk, headroom, flags, pad: 0 };
    set(fd, libc::XDP_UMEM_REG, "setsockopt XDP_UMEM_REG", &reg)
}

/// Gives one of the socket's rings its size, a power of two.
pub fn set_ring_size(fd: &Fd, which: Which, entries: u32) -> Result<(), Error> {
    let (option, call) = which.option();
    set(fd, option, call, &entries)
}

/// Lets one `sendto` send up to `budget` frames, where the kernel knows the option (6.17).
pub fn set_tx_budget(fd: &Fd, budget: u32) -> Result<(), Error> {
    const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
    set(fd, XDP_MAX_TX_SKB_BUDGET, "setsockopt XDP_MAX_TX_SKB_BUDGET", &budget)
}

/// Busy polling: for so many microseconds, and at most `budget` packets at once.
pub fn set_busy_poll(fd: &Fd, us: u32, budget: Option<u32>) -> Result<(), Error> {
    let level = libc::SOL_SOCKET;
    set_at(fd, level, libc::SO_PREFER_BUSY_POLL, "setsockopt SO_PREFER_BUSY_POLL", &1i32)?;
    set_at(fd, level, libc::SO_BUSY_POLL, "setsockopt SO_BUSY_POLL", &us)?;
    match budget {
        Some(budget) => set_at(fd, level, libc::SO_BUSY_POLL_BUDGET, "setsockopt SO_BUSY_POLL_BUDGET", &budget),
        None => Ok(()),
    }
}

/// Offsets of the rings in their mappings.
pub fn ring_offsets(fd: RawFd, which: Which) -> Result<RingOffsets, Error> {
    let mut all = [RingOffsets::default(); 4];
    let got = get(fd, libc::XDP_MMAP_OFFSETS, "getsockopt XDP_MMAP_OFFSETS", &mut all)?;
    if got < size_of::<[RingOffsets; 4]>() {
        // Before 5.4 the structure had no flags.
        return Err(Error::new("getsockopt XDP_MMAP_OFFSETS", "kernel before 5.4", Errno(libc::EOPNOTSUPP)));
    }
    Ok(match which {
        Which::Rx => all[0],
        Which::Tx => all[1],
        Which::Fill => all[2],
        Which::Completion => all[3],
    })
}

/// Binds to a queue. `flags` are `XDP_COPY`, `XDP_ZEROCOPY`, `XDP_USE_NEED_WAKEUP`, `XDP_USE_SG`, or `XDP_SHARED_UMEM` with
/// the descriptor of a bound sibling.
pub fn bind(fd: &Fd, ifindex: u32, queue: u32, flags: u16, sibling: Option<RawFd>) -> Result<(), Errno> {
    let addr = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: sibling.unwrap_or(0) as u32,
    };
    let (fd, at) = (fd.as_raw_fd() as usize, &raw const addr as usize);
    // SAFETY: the address outlives the call.
    unsafe { syscall(libc::SYS_bind, [fd, at, size_of::<libc::sockaddr_xdp>(), 0, 0, 0]).map(drop) }
}

/// Tells the kernel to send what lies in the transmit ring.
#[inline]
pub fn kick_tx(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: no buffer and no address are passed.
    let r = unsafe { libc::sendto(fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    if r < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// Tells the driver that the fill ring has buffers again.
#[inline]
pub fn kick_rx(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: no buffer and no address are passed.
    let r = unsafe {
        libc::recvfrom(fd, std::ptr::null_mut(), 0, libc::MSG_DONTWAIT, std::ptr::null_mut(), std::ptr::null_mut())
    };
    if r < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// The kernel's counters of the socket.
pub fn statistics(fd: RawFd) -> Result<Statistics, Error> {
    let mut raw = [0u64; 6];
    get(fd, libc::XDP_STATISTICS, "getsockopt XDP_STATISTICS", &mut raw)?;
    Ok(Statistics {
        rx_dropped: raw[0],
        rx_invalid_descs: raw[1],
        tx_invalid_descs: raw[2],
        rx_ring_full: raw[3],
        rx_fill_ring_empty: raw[4],
    })
}
