//! What a program may do with its descriptors, in any order: open, bind, map, sync, poll, write anywhere, close.

use crate::Bytes;
use crate::daemon::PORTS;
use netmap_xdp::abi::*;
use netmap_xdp::client;
use std::os::fd::RawFd;
use std::time::Duration;

const MODES: [u32; 8] = [1, 1, 1, 4, 4, 7, 2, 99];
const FLAGS: [u64; 10] = [0, 0, 0x800, 0x2000, 0x4000, 0x100, 0x200, 0x500, 0x8000, 0x20000];

/// A region, mapped.
#[derive(Clone, Copy)]
struct Mapping {
    at: usize,
    len: usize,
    nifp: usize,
}

#[derive(Default)]
struct Program {
    fds: Vec<RawFd>,
    maps: Vec<Mapping>,
    /// What the last registration said.
    reply: nmreq_register,
}

fn control(fd: RawFd, kind: u16, name: &str, body: u64, options: u64) -> bool {
    let mut header = nmreq_header {
        nr_version: NETMAP_API,
        nr_reqtype: kind,
        nr_reserved: 0,
        nr_name: [0; 64],
        nr_options: options,
        nr_body: body,
    };
    header.nr_name[..name.len()].copy_from_slice(name.as_bytes());
    client::ioctl(fd, NIOCCTRL, &raw mut header as usize).is_some_and(|done| done.is_ok())
}

impl Program {
    fn fd(&self, from: &mut Bytes<'_>) -> Option<RawFd> {
        let n = usize::from(from.byte());
        (!self.fds.is_empty()).then(|| self.fds[n % self.fds.len()])
    }

    fn register(&mut self, fd: RawFd, from: &mut Bytes<'_>) {
        let name = from.pick(&PORTS);
        let mut body = nmreq_register {
            nr_mode: from.pick(&MODES),
            nr_flags: from.pick(&FLAGS),
            nr_ringid: from.value() as u16,
            nr_mem_id: from.pick(&[0, 0, 0, 1, 2]),
            nr_tx_slots: from.pick(&[8, 16, 0, 64, 9]),
            nr_rx_slots: from.pick(&[8, 16, 0, 64, 9]),
            nr_tx_rings: u16::from(from.byte() % 4),
            nr_rx_rings: u16::from(from.byte() % 4),
            nr_extra_bufs: from.pick(&[0, 0, 3, 100, u32::MAX]),
            ..Default::default()
        };
        let mut offsets = nmreq_opt_offsets {
            nro_opt: nmreq_option { nro_reqtype: NETMAP_REQ_OPT_OFFSETS, ..Default::default() },
            nro_max_offset: from.value(),
            nro_initial_offset: from.value(),
            nro_offset_bits: from.byte().into(),
            ..Default::default()
        };
        let options = if from.byte() & 3 == 0 { &raw mut offsets as u64 } else { 0 };
        if control(fd, NETMAP_REQ_REGISTER, name, &raw mut body as u64, options) {
            self.reply = body;
        }
    }

    fn map(&mut self, fd: RawFd, from: &mut Bytes<'_>) {
        let (len, nifp) = (self.reply.nr_memsize as usize, self.reply.nr_offset as usize);
        let (len, flags) = match from.byte() {
            0..8 => (from.value() as usize, libc::MAP_SHARED),
            8..16 => (len, libc::MAP_PRIVATE),
            _ => (len, libc::MAP_SHARED),
        };
        let Some(Ok(target)) = client::mmap_target(fd, len, flags, 0) else { return };
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, unmapped at the end.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, target, 0) };
        if at != libc::MAP_FAILED {
            client::mapped(fd, at as usize, len);
            self.maps.push(Mapping { at: at as usize, len, nifp });
        }
    }

    fn unmap(&mut self, n: usize) {
        if self.maps.is_empty() {
            return;
        }
        let map = self.maps.swap_remove(n % self.maps.len());
        // SAFETY: a mapping of this program's.
        unsafe { libc::munmap(map.at as *mut _, map.len) };
        client::unmapped(map.at, map.len);
    }

    /// Writes into a ring, or anywhere in the region.
    fn scribble(&self, from: &mut Bytes<'_>) {
        let Some(map) = self.maps.last() else { return };
        let put = |offset: usize, bytes: &[u8]| {
            if offset.checked_add(bytes.len()).is_some_and(|end| end <= map.len) {
                // SAFETY: inside the mapping, which everybody may write.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (map.at + offset) as *mut u8, bytes.len()) };
            }
        };
        if from.byte() & 7 == 0 {
            return put(from.value() as usize, &from.value().to_le_bytes());
        }
        let table = map.nifp + size_of::<netmap_if>() + usize::from(from.byte() % 8) * 8;
        if table + 8 > map.len {
            return;
        }
        // SAFETY: inside the mapping.
        let distance = unsafe { ((map.at + table) as *const i64).read_unaligned() };
        let ring = (map.nifp as i64).wrapping_add(distance) as usize;
        let head = std::mem::offset_of!(netmap_ring, head);
        let slots = size_of::<netmap_ring>();
        match from.byte() % 6 {
            0..3 => {
                // A program that gives back, or sends, some slots.
                let n = from.value() as u32;
                put(ring.wrapping_add(head), &n.to_le_bytes());
                put(ring.wrapping_add(head + 4), &n.to_le_bytes());
            }
            3 => put(ring.wrapping_add(head + 4), &(from.value() as u32).to_le_bytes()),
            _ => {
                let slot = ring.wrapping_add(slots + usize::from(from.byte() % 70) * 16);
                let (at, bytes) = match from.byte() % 4 {
                    0 => (0, (from.value() as u32).to_le_bytes().to_vec()),
                    1 => (4, from.word().to_le_bytes().to_vec()),
                    // Without NS_INDIRECT, which reads memory of the process by address.
                    2 => (6, (from.word() & !0x10).to_le_bytes().to_vec()),
                    _ => (8, from.value().to_le_bytes().to_vec()),
                };
                put(slot.wrapping_add(at), &bytes);
            }
        }
    }

    fn ask(&self, fd: RawFd, from: &mut Bytes<'_>) {
        let name = from.pick(&PORTS);
        match from.byte() % 7 {
            0 => {
                let mut body = nmreq_port_info_get { nr_mem_id: from.byte().into(), ..Default::default() };
                control(fd, NETMAP_REQ_PORT_INFO_GET, name, &raw mut body as u64, 0);
            }
            1 => {
                let mut body = nmreq_pools_info { nr_mem_id: from.byte().into(), ..Default::default() };
                control(fd, NETMAP_REQ_POOLS_INFO_GET, name, &raw mut body as u64, 0);
            }
            2 => {
                let mut body = nmreq_vale_newif { nr_tx_slots: from.byte().into(), ..Default::default() };
                control(fd, NETMAP_REQ_VALE_NEWIF, name, &raw mut body as u64, 0);
            }
            3 => {
                control(fd, NETMAP_REQ_VALE_DELIF, name, 0, 0);
            }
            4 => {
                let mut body = nmreq_vale_attach::default();
                body.reg.nr_mode = NR_REG_ALL_NIC;
                control(fd, NETMAP_REQ_VALE_ATTACH, "vale0:persist", &raw mut body as u64, 0);
            }
            5 => {
                let mut body = nmreq_vale_detach::default();
                control(fd, NETMAP_REQ_VALE_DETACH, "vale0:persist", &raw mut body as u64, 0);
            }
            _ => {
                let mut body = nmreq_port_hdr { nr_hdr_len: from.pick(&[0, 10, 12, 5]), ..Default::default() };
                control(fd, NETMAP_REQ_PORT_HDR_SET, name, &raw mut body as u64, 0);
            }
        }
    }

    fn step(&mut self, from: &mut Bytes<'_>) {
        let what = from.byte() % 16;
        if what == 0 && self.fds.len() < 6 {
            self.fds.extend(client::open(0).ok());
            return;
        }
        let Some(fd) = self.fd(from) else { return };
        match what {
            1 => {
                self.fds.retain(|f| *f != fd);
                client::close(fd);
            }
            2..5 => self.register(fd, from),
            5 => self.map(fd, from),
            6 => self.unmap(from.byte().into()),
            7 | 8 => {
                client::ioctl(fd, from.pick(&[NIOCTXSYNC, NIOCRXSYNC]), 0);
            }
            9 => {
                let events = from.pick(&[libc::POLLIN, libc::POLLOUT, libc::POLLIN | libc::POLLOUT, 0]);
                let mut fds = [libc::pollfd { fd, events, revents: 0 }];
                let timeout = Duration::from_micros(u64::from(from.byte()));
                let _ = client::poll(&mut fds, Some(timeout), None);
            }
            10 => self.ask(fd, from),
            11 if self.fds.len() < 6 => self.fds.extend(client::dup(fd, 0, true).and_then(Result::ok)),
            _ => self.scribble(from),
        }
    }
}

/// A program that calls, and then closes everything.
pub fn calls(data: &[u8]) {
    crate::small();
    let mut from = Bytes::new(data);
    let mut program = Program::default();
    for _ in 0..400 {
        if from.end() {
            break;
        }
        program.step(&mut from);
    }
    while !program.maps.is_empty() {
        program.unmap(0);
    }
    for fd in program.fds.drain(..) {
        client::close(fd);
    }
    let fd = client::open(0).expect("open");
    let mut body = nmreq_vale_detach::default();
    control(fd, NETMAP_REQ_VALE_DETACH, "vale0:persist", &raw mut body as u64, 0);
    for port in PORTS {
        control(fd, NETMAP_REQ_VALE_DELIF, port, 0, 0);
    }
    client::close(fd);
    assert_eq!(client::settled(), None, "all is closed, and the region is still there");
}
