//! The linked list of options behind a request: read once, bounded, answered in place.
//!
//! The list belongs to the program, which may point it at itself. What ends a list that is too long is the room that
//! the original has for it, since the limit can be seen from outside: one page and a little for the body and all
//! options.

use super::errno::{Condition, Failure};
use super::options::{Csb, EventFdPair, EventFds, Extmem, KloopMode, Offsets, Options, Pools};
use crate::abi::*;
use crate::sys::{Errno, UserMem, pod_bytes, pod_from_bytes, read_pod};

/// Bytes of an option's header.
const HEADER: usize = size_of::<nmreq_option>();
/// Bytes that the original keeps beside each option: the program's pointer to the next one.
const LINK: usize = 8;

/// What was made of an option. One that nobody answers stays `EOPNOTSUPP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionAnswer {
    /// The pools that the region was divided into.
    Extmem(Result<Pools, Errno>),
    /// Cursors are exchanged there.
    Csb(Result<(), Errno>),
    /// The largest offset that holds now.
    Offsets(Result<u64, Errno>),
    /// The eventfds are in use.
    KloopEventfds(Result<(), Errno>),
    /// The modes are in use.
    KloopMode(Result<(), Errno>),
}

/// The options of one request as they came, and the answer to each.
#[derive(Debug, Default)]
pub struct OptionList {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Where the program has it.
    addr: u64,
    /// As read, except for the status.
    header: nmreq_option,
    /// What follows the header, for known options.
    body: Vec<u8>,
}

impl OptionList {
    /// Reads the list that starts at `first` and belongs to a request with a body of `body` bytes.
    ///
    /// On failure the options read so far have their status written back: `EINVAL` where an option was wrong, 0
    /// elsewhere, nothing at all for a list without an end. Errors: `EFAULT`; `EMSGSIZE` for too long a list or option;
    /// `EINVAL` for type 0 and for a known option that is there twice, in which case both say so.
    pub(super) fn read(mem: &dyn UserMem, first: u64, body: usize) -> Result<OptionList, Failure> {
        let mut list = OptionList::default();
        match list.fill(mem, first, body) {
            Ok(()) => {
                for entry in &mut list.entries {
                    entry.header.nro_status = libc::EOPNOTSUPP as u32;
                }
                Ok(list)
            }
            Err(failure) => {
                list.write_back(mem, false).map_err(|_| bad_address())?;
                Err(failure)
            }
        }
    }

    fn fill(&mut self, mem: &dyn UserMem, first: u64, body: usize) -> Result<(), Failure> {
        // Two limits hold: what a request may have in all, and the room for it, of which links take their part.
        let mut request = body;
        let mut room = NETMAP_REQ_MAXSIZE + NETMAP_REQ_OPT_MAX as usize * LINK - body;
        let mut addr = first;
        while addr != 0 {
            let Some(left) = room.checked_sub(LINK + HEADER) else {
                // Perhaps a loop: answering each entry could take for ever.
                self.entries.clear();
                return Err(too_long());
            };
            let mut header: nmreq_option = read_pod(mem, addr).map_err(|_| bad_address())?;
            header.nro_status = 0;
            room = left;
            request += HEADER;
            let kind = header.nro_reqtype;
            let earlier = self.find(kind);
            self.entries.push(Entry { addr, header, body: Vec::new() });
            let at = self.entries.len() - 1;
            if kind == 0 {
                self.entries[at].header.nro_status = libc::EINVAL as u32;
                return Err(Condition::OptionInvalid.plain());
            }
            if kind < NETMAP_REQ_OPT_MAX {
                if let Some(earlier) = earlier {
                    self.entries[earlier].header.nro_status = libc::EINVAL as u32;
                    self.entries[at].header.nro_status = libc::EINVAL as u32;
                    let name = super::option_name(kind);
                    return Err(Condition::OptionDuplicate.says(format!("option {name} is given twice")));
                }
                let size = body_size(kind, header.nro_size).ok_or_else(too_long)?;
                if request + size > NETMAP_REQ_MAXSIZE || size > room {
                    return Err(too_long());
                }
                request += size;
                room -= size;
                let mut bytes = vec![0; size];
                mem.read(addr.wrapping_add(HEADER as u64), &mut bytes).map_err(|_| bad_address())?;
                self.entries[at].body = bytes;
            }
            addr = header.nro_next;
        }
        Ok(())
    }

    fn find(&self, kind: u32) -> Option<usize> {
        self.entries.iter().position(|entry| entry.header.nro_reqtype == kind)
    }

    /// The options, typed.
    pub(super) fn typed(&self) -> Options {
        let mut options = Options::default();
        for entry in &self.entries {
            match entry.header.nro_reqtype {
                NETMAP_REQ_OPT_EXTMEM => {
                    options.extmem = entry
                        .whole::<nmreq_opt_extmem>()
                        .map(|raw| Extmem { address: raw.nro_usrptr, pools: Pools::from_raw(&raw.nro_info) });
                }
                NETMAP_REQ_OPT_CSB => {
                    options.csb =
                        entry.whole::<nmreq_opt_csb>().map(|raw| Csb { atok: raw.csb_atok, ktoa: raw.csb_ktoa });
                }
                NETMAP_REQ_OPT_OFFSETS => {
                    options.offsets = entry.whole::<nmreq_opt_offsets>().map(|raw| Offsets {
                        max: raw.nro_max_offset,
                        initial: raw.nro_initial_offset,
                        bits: raw.nro_offset_bits,
                        tx_align: raw.nro_tx_align,
                        min_gap: raw.nro_min_gap,
                    });
                }
                NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS => {
                    let (pairs, _) = entry.body.as_chunks::<8>();
                    let pair = |b: &[u8; 8]| EventFdPair {
                        io: i32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
                        irq: i32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
                    };
                    let size = entry.header.nro_size;
                    options.kloop_eventfds = Some(EventFds { pairs: pairs.iter().map(pair).collect(), size });
                }
                NETMAP_REQ_OPT_SYNC_KLOOP_MODE => {
                    options.kloop_mode =
                        entry.whole::<nmreq_opt_sync_kloop_mode>().map(|raw| KloopMode { bits: raw.mode });
                }
                _ => {}
            }
        }
        options
    }

    /// Answers an option; nothing happens if the request has none of this kind.
    pub fn answer(&mut self, answer: OptionAnswer) {
        let (kind, status) = match answer {
            OptionAnswer::Extmem(result) => (NETMAP_REQ_OPT_EXTMEM, result.err()),
            OptionAnswer::Csb(result) => (NETMAP_REQ_OPT_CSB, result.err()),
            OptionAnswer::Offsets(result) => (NETMAP_REQ_OPT_OFFSETS, result.err()),
            OptionAnswer::KloopEventfds(result) => (NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, result.err()),
            OptionAnswer::KloopMode(result) => (NETMAP_REQ_OPT_SYNC_KLOOP_MODE, result.err()),
        };
        let Some(at) = self.find(kind) else { return };
        let entry = &mut self.entries[at];
        entry.header.nro_status = status.map_or(0, |errno| errno.0 as u32);
        match answer {
            OptionAnswer::Extmem(Ok(pools)) => {
                if let Some(mut raw) = entry.whole::<nmreq_opt_extmem>() {
                    pools.put(&mut raw.nro_info);
                    entry.body = pod_bytes(&raw)[HEADER..].to_vec();
                }
            }
            OptionAnswer::Offsets(Ok(max)) => {
                if let Some(mut raw) = entry.whole::<nmreq_opt_offsets>() {
                    raw.nro_max_offset = max;
                    entry.body = pod_bytes(&raw)[HEADER..].to_vec();
                }
            }
            _ => {}
        }
    }

    /// The first option, in the program's order, that is still not supported.
    pub fn unsupported(&self) -> Option<u32> {
        self.unsupported_but(&[])
    }

    /// The same, without those that will be `served` later.
    pub fn unsupported_but(&self, served: &[u32]) -> Option<u32> {
        let open = self.entries.iter().filter(|e| e.header.nro_status == libc::EOPNOTSUPP as u32);
        open.map(|entry| entry.header.nro_reqtype).find(|kind| !served.contains(kind))
    }

    /// Writes every status, and the bodies of options that were processed if the request succeeded. `EFAULT`.
    pub(super) fn write_back(&self, mem: &dyn UserMem, success: bool) -> Result<(), Errno> {
        for entry in &self.entries {
            mem.write(entry.addr, pod_bytes(&entry.header))?;
            if success && entry.header.nro_status == 0 {
                mem.write(entry.addr.wrapping_add(HEADER as u64), &entry.body)?;
            }
        }
        Ok(())
    }
}

impl Entry {
    /// Header and body as one structure.
    fn whole<T: Pod>(&self) -> Option<T> {
        let mut bytes = pod_bytes(&self.header).to_vec();
        bytes.extend_from_slice(&self.body);
        pod_from_bytes(&bytes)
    }
}

/// Bytes that follow the header of a known option; `None` if its size is out of all bounds.
fn body_size(kind: u32, nro_size: u64) -> Option<usize> {
    let given = usize::try_from(nro_size).ok().filter(|&size| size <= NETMAP_REQ_MAXSIZE)?;
    let whole = match kind {
        NETMAP_REQ_OPT_EXTMEM => size_of::<nmreq_opt_extmem>(),
        NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS => given.max(HEADER),
        NETMAP_REQ_OPT_CSB => size_of::<nmreq_opt_csb>(),
        NETMAP_REQ_OPT_SYNC_KLOOP_MODE => size_of::<nmreq_opt_sync_kloop_mode>(),
        NETMAP_REQ_OPT_OFFSETS => size_of::<nmreq_opt_offsets>(),
        _ => HEADER,
    };
    Some(whole - HEADER)
}

fn bad_address() -> Failure {
    Condition::BadAddress.says("an option is at an address that cannot be read or written")
}

fn too_long() -> Failure {
    Condition::OptionsTooLong.plain()
}
