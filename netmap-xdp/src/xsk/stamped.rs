//! The variant of the redirect program that notes when the NIC received a frame.
//!
//! It calls a function of the driver's (a kfunc), so it is loaded for one device, and can be attached there alone and
//! in native mode alone. Neither library does that in a way that both could share, so it is loaded here, over the maps
//! of the program that either has loaded: the number of the function is looked up in the kernel's BTF and put into the
//! instruction that waits for it.

use super::loaded::OBJECT;
use crate::sys::netdev::bpf;
use crate::sys::{Errno, Error, Fd};
use aya_obj::btf::{Btf, BtfKind};
use std::collections::HashSet;
use std::os::fd::RawFd;

/// Its name.
pub const PROGRAM: &str = "netmap_stamped";
const FUNCTION: &str = "bpf_xdp_metadata_rx_timestamp";
/// The call in the object: of a kernel function, by a number that is not known there.
const CALL: [u8; 8] = match cfg!(target_endian = "little") {
    true => [0x85, 0x20, 0, 0, 0x7e, 0x7e, 0x7e, 0x7e],
    false => [0x85, 0x02, 0, 0, 0x7e, 0x7e, 0x7e, 0x7e],
};

/// Loads it for an interface. `map` has the maps by their names in the object. `EOPNOTSUPP`: the kernel or the driver has no
/// such function.
pub fn load(ifindex: u32, map: impl Fn(&str) -> Option<RawFd>) -> Result<Fd, Error> {
    let failed = |what: String, errno| Error::new("BPF_PROG_LOAD", format!("of {PROGRAM} ({what})"), Errno(errno));
    let absent = |e: String| failed(format!("the kernel has no {FUNCTION}, which takes 6.3: {e}"), libc::EOPNOTSUPP);
    let number = Btf::from_sys_fs()
        .and_then(|kernel| kernel.id_by_type_name_kind(FUNCTION, BtfKind::Func))
        .map_err(|e| absent(e.to_string()))?;
    let broken = |e: String| failed(e, libc::EINVAL);
    let mut object = aya_obj::Object::parse(&numbered(number)).map_err(|e| broken(e.to_string()))?;
    let maps = std::mem::take(&mut object.maps);
    let mut fds = Vec::new();
    for (name, data) in &maps {
        fds.push((name.as_str(), map(name).ok_or_else(|| broken(format!("no map {name}")))?, data));
    }
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let linked = object.relocate_maps(fds.into_iter(), &text).and_then(|()| object.relocate_calls(&text));
    linked.map_err(|e| broken(e.to_string()))?;
    let function = object.programs.get(PROGRAM).and_then(|p| object.functions.get(&p.function_key()));
    let function = function.ok_or_else(|| broken("not in the object".into()))?;
    let code: Vec<[u8; 8]> = function.instructions.iter().map(encoded).collect();
    bpf::load_for_device(PROGRAM, &code, ifindex).map_err(|errno| {
        let why = match errno.0 {
            libc::EOPNOTSUPP | libc::EINVAL => "the driver tells no times of frames",
            _ => "for one device",
        };
        failed(why.into(), errno.0)
    })
}

/// The object with the number of the function in its place.
fn numbered(number: u32) -> Vec<u8> {
    let mut object = OBJECT.to_vec();
    // Instructions, and the section that holds them, are aligned to eight bytes.
    for at in (0..object.len() / 8 * 8).step_by(8) {
        if object[at..at + 8] == CALL {
            object[at + 4..at + 8].copy_from_slice(&number.to_ne_bytes());
        }
    }
    object
}

fn encoded(instruction: &aya_obj::generated::bpf_insn) -> [u8; 8] {
    let registers = |to: u8, from: u8| if cfg!(target_endian = "little") { to | from << 4 } else { to << 4 | from };
    let mut bytes = [instruction.code, registers(instruction.dst_reg(), instruction.src_reg()), 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&instruction.off.to_ne_bytes());
    bytes[4..8].copy_from_slice(&instruction.imm.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_calls_the_function_once() {
        let calls = |object: &[u8]| object.chunks_exact(8).filter(|c| **c == CALL).count();
        assert_eq!(calls(OBJECT), 1);
        assert_eq!(calls(&numbered(77)), 0);
        assert_eq!(numbered(77).len(), OBJECT.len());
    }
}
