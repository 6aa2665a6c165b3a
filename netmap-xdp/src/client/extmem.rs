//! External memory of a registration: found in this process, and made what an engine anywhere can map.

use super::remote;
use crate::ctl::{Condition, Failure, Register};
use crate::engine::{ProgramMemory, extmem_size, not_shared};
use crate::sys::{Errno, Error, Level, PAGE, file_of_mapping, log, make_shared, shared_mapping};
use std::sync::Arc;

/// The memory that a registration brings, if it brings any. Anonymous private memory is replaced by shared memory with the
/// same contents: the original pins its pages for the kernel to share, which nothing but a kernel can.
///
/// Errors: `EFAULT` nothing is mapped there; `EOPNOTSUPP` it is neither shared nor anonymous memory, not in whole pages, or
/// cannot be passed on to netmapd; `EINVAL`, `ENOMEM` for sizes.
pub(super) fn find(register: &Register) -> Result<Option<ProgramMemory>, Failure> {
    let Some(extmem) = &register.options.extmem else { return Ok(None) };
    let (address, len) = (extmem.address, extmem_size(&extmem.pools)?);
    if !address.is_multiple_of(PAGE as u64) {
        return Err(not_shared(&extmem.pools));
    }
    let failed = |e: Errno| match e.0 {
        libc::EFAULT => Condition::ExtmemAddress.says(format!("{len} bytes at {address:#x} are not all mapped")),
        libc::EINVAL => not_shared(&extmem.pools),
        _ => Failure::system(&Error::new("read", "/proc/self/maps", e)),
    };
    if shared_mapping(address, len) == Err(Errno(libc::EINVAL)) {
        let lost = make_shared(address, len).map_err(failed)?;
        let how = if lost {
            ", in ordinary pages since too few huge ones are free: map it MAP_SHARED to keep them"
        } else {
            ""
        };
        log(
            Level::Info,
            format_args!("{}: {len} bytes of private memory at {address:#x} became shared memory{how}", register.name),
        );
    }
    match file_of_mapping(address, len) {
        Ok((fd, file)) => Ok(Some(ProgramMemory::File { fd: Arc::new(fd), file, guarded: false })),
        Err(Errno(libc::EACCES)) if !remote::chosen() => {
            let file = shared_mapping(address, len).map_err(failed)?;
            Ok(Some(ProgramMemory::Here { address, file }))
        }
        Err(Errno(libc::EACCES)) => Err(Condition::ExtmemShared.says(format!(
            "{}: the shared memory at {address:#x} cannot be passed on to netmapd, since this process may not open it a \
             second time: keep the descriptor of its memfd or file open, or use private memory",
            register.name
        ))),
        Err(e) => Err(failed(e)),
    }
}
