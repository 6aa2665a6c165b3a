//! Control: an untrusted request of a program becomes a typed one, and every failure gets its errno here.
//!
//! | file | job |
//! |---|---|
//! | `decode` | what an `ioctl` points at -> [`Call`]; the answer goes back where netmap puts it |
//! | `optlist` | the linked list of options behind a request |
//! | `legacy` | `struct nmreq` of the API before 14, in terms of the same requests |
//! | `request`, `options`, `reply` | the requests, what comes with them, and their answers, typed |
//! | `ringid` | mode, ring and flags -> the rings that an fd binds |
//! | `name` | port names as users type them, `netmap:eth0-1/x` |
//! | `errno` | the table of everything that can be refused |
//!
//! Nothing here knows ports, the engine or the client, nothing blocks, and nothing keeps state: whoever calls carries
//! out the request between [`decode`] and [`Call::finish`]. Bad input of any kind is an error value, never a panic.
//! Sizes and the order of checks are the original's (`netmap_ioctl`, `nmreq_copyin`), since programs see them through
//! errno.

mod decode;
mod errno;
mod legacy;
mod name;
mod options;
mod optlist;
mod reply;
mod request;
mod ringid;

#[cfg(test)]
mod tests;

pub use decode::{Call, decode, try_decode};
pub use errno::{Condition, Failure};
pub use name::{Conf, ExtmemFile, Spec, SpecError};
pub use options::{Csb, EventFdPair, EventFds, Extmem, KloopMode, Offsets, Options, Pool, Pools, option_name};
pub use optlist::{OptionAnswer, OptionList};
pub use reply::{Geometry, PoolsInfoReply, PortInfoReply, RegisterReply, Reply, ValeListReply, ValeNewifReply};
pub use request::{
    HdrSet, KloopStart, Mode, PipeRole, Polling, PoolsInfo, PortInfo, PortKind, PortName, Register, Request,
    ValeAttach, ValeConfig, ValeList, ValeNewif,
};
pub use ringid::{RingCounts, Selection, interp_ringid};
