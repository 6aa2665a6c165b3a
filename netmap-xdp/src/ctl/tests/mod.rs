//! Tests of the control path, through memory that is not there.

mod control;
mod legacy;
mod name;
mod options;
mod random;
mod request;
mod ringid;

use super::{Call, Reply, decode};
use crate::abi::*;
use crate::sys::{Errno, FakeMem};

/// Where the tests put the header, the body, and options.
pub const HEADER: u64 = 0x1000;
pub const BODY: u64 = 0x2000;
pub const OPTION: u64 = 0x3000;

pub const OK: Result<(), Errno> = Ok(());

pub fn err<T>(errno: i32) -> Result<T, Errno> {
    Err(Errno(errno))
}

pub fn field<const N: usize>(name: &str) -> [u8; N] {
    let mut field = [0; N];
    field[..name.len()].copy_from_slice(name.as_bytes());
    field
}

pub fn header(kind: u16, name: &str, body: u64, options: u64) -> nmreq_header {
    nmreq_header {
        nr_version: NETMAP_API,
        nr_reqtype: kind,
        nr_reserved: 0,
        nr_name: field(name),
        nr_options: options,
        nr_body: body,
    }
}

/// Memory with a header and a body.
pub fn memory<T: Pod>(kind: u16, name: &str, body: &T) -> FakeMem {
    let mem = FakeMem::new();
    mem.put(HEADER, &header(kind, name, BODY, 0));
    mem.put(BODY, body);
    mem
}

/// Memory with a header that has no body.
pub fn bare(kind: u16, name: &str) -> FakeMem {
    let mem = FakeMem::new();
    mem.put(HEADER, &header(kind, name, 0, 0));
    mem
}

/// A registration of eth0 that can be told from its reply.
pub fn register() -> nmreq_register {
    nmreq_register {
        nr_offset: 0x77,
        nr_memsize: 0x78,
        nr_tx_slots: 11,
        nr_rx_slots: 12,
        nr_tx_rings: 13,
        nr_rx_rings: 14,
        nr_host_tx_rings: 15,
        nr_host_rx_rings: 16,
        nr_mem_id: 17,
        nr_ringid: 18,
        nr_mode: NR_REG_ONE_NIC,
        nr_extra_bufs: 19,
        _pad: 20,
        nr_flags: NR_EXCLUSIVE,
    }
}

pub fn options_at(mem: &FakeMem, first: u64) {
    let mut header: nmreq_header = mem.get(HEADER);
    header.nr_options = first;
    mem.put(HEADER, &header);
}

pub fn option(kind: u32, next: u64) -> nmreq_option {
    nmreq_option { nro_next: next, nro_reqtype: kind, nro_status: 99, nro_size: 0 }
}

pub fn status(mem: &FakeMem, at: u64) -> i32 {
    mem.get::<nmreq_option>(at).nro_status as i32
}

pub fn control(mem: &FakeMem) -> Result<Call, Errno> {
    decode(mem, NIOCCTRL, HEADER)
}

/// Decodes and answers.
pub fn run(mem: &FakeMem, outcome: Result<Reply, Errno>) -> Result<(), Errno> {
    control(mem)?.finish(mem, outcome)
}
