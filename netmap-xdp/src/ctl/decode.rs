//! From an `ioctl` to a [`Request`], and its answer back into the program's memory.
//!
//! ```text
//! decode(mem, cmd, arg) -> Call { request, options }        read once, checked, typed
//!     somebody carries out the request, answering options
//! call.finish(mem, outcome) -> errno                        header, body, options written back
//! ```
//! The program's memory is read once and written once; what changes in between does no harm.

use super::errno::{Condition, Failure};
use super::legacy::{self, Legacy};
use super::optlist::{OptionAnswer, OptionList};
use super::reply::Reply;
use super::request::{
    HdrSet, KloopStart, Polling, PoolsInfo, PortInfo, PortName, Register, Request, ValeAttach, ValeConfig, ValeList,
    ValeNewif,
};
use crate::abi::*;
use crate::sys::{Errno, UserMem, pod_bytes, read_pod, write_pod};

/// A request that was decoded and waits to be carried out.
#[derive(Debug)]
pub struct Call {
    /// What is asked for.
    pub request: Request,
    /// Its options, to be answered by whoever processes them.
    pub options: OptionList,
    back: Back,
}

/// Where the answer goes.
#[derive(Debug)]
enum Back {
    Control { arg: u64, header: nmreq_header, body: Body },
    Legacy(Legacy),
    Config { arg: u64, name: [u8; IFNAMSIZ] },
}

/// Decodes the control `ioctl` number `cmd` with argument `arg`: `NIOCCTRL`, `NIOCREGIF`, `NIOCGINFO`, `NIOCCONFIG`.
///
/// On failure everything that netmap writes back has been written already, and the errno is what the `ioctl` fails
/// with. `NIOCTXSYNC` and `NIOCRXSYNC` are no control requests and must not come here; like any number that is not
/// netmap's they give `EOPNOTSUPP`. As in the kernel, only the low 32 bits of `cmd` count.
///
/// Source: `linux_netmap_ioctl`, `netmap_ioctl`, `nmreq_copyin`.
pub fn decode(mem: &dyn UserMem, cmd: u64, arg: u64) -> Result<Call, Errno> {
    try_decode(mem, cmd, arg).map_err(Errno::from)
}

/// [`decode`], with the reason in words.
pub fn try_decode(mem: &dyn UserMem, cmd: u64, arg: u64) -> Result<Call, Failure> {
    match cmd & 0xffff_ffff {
        NIOCCTRL | NIOCREGIF | NIOCGINFO | NIOCCONFIG if arg == 0 => Err(Condition::NullArgument.plain()),
        NIOCCTRL => {
            let mut header: nmreq_header = read_pod(mem, arg).map_err(|_| bad_address())?;
            decode_control(mem, arg, &mut header).or_else(|failure| {
                write_pod(mem, arg, &header).map_err(|_| bad_address())?;
                Err(failure)
            })
        }
        cmd @ (NIOCREGIF | NIOCGINFO) => {
            let mut raw: nmreq = read_pod(mem, arg).map_err(|_| bad_address())?;
            match legacy::decode(cmd, &mut raw) {
                Ok(request) => Ok(Call::new(request, OptionList::default(), Back::Legacy(Legacy::new(arg, raw)))),
                Err(failure) => {
                    write_pod(mem, arg, &raw).map_err(|_| bad_address())?;
                    Err(failure)
                }
            }
        }
        NIOCCONFIG => {
            let raw: nm_ifreq = read_pod(mem, arg).map_err(|_| bad_address())?;
            let request = ValeConfig { name: PortName::from_field(&raw.nifr_name), data: Box::new(raw.data) };
            let back = Back::Config { arg, name: raw.nifr_name };
            Ok(Call::new(Request::ValeConfig(request), OptionList::default(), back))
        }
        other => Err(Condition::UnknownIoctl.says(format!("ioctl {other:#x} is not one of netmap's"))),
    }
}

fn bad_address() -> Failure {
    Condition::BadAddress.plain()
}

/// The part for `NIOCCTRL`. The header is left as it is to be written back if this fails.
///
/// One thing differs from the original: with a body missing or unexpected it leaves a 1 in `nr_reserved`, so that the
/// same header is refused for ever after. Here the field stays 0.
fn decode_control(mem: &dyn UserMem, arg: u64, header: &mut nmreq_header) -> Result<Call, Failure> {
    if !(NETMAP_MIN_API..=NETMAP_MAX_API).contains(&header.nr_version) {
        return Err(Condition::BadVersion.says(format!(
            "API version {} is not served; {NETMAP_MIN_API} to {NETMAP_MAX_API} are. Rebuild the program with our headers",
            header.nr_version
        )));
    }
    if header.nr_reserved != 0 {
        return Err(Condition::ReservedNotZero.says(format!("nr_reserved is {}, not zero", header.nr_reserved)));
    }
    let size = Body::size(header.nr_reqtype);
    match (size > 0, header.nr_body != 0) {
        (true, false) => return Err(Condition::BodyMissing.says(format!("request {} has no body", header.nr_reqtype))),
        (false, true) => {
            return Err(Condition::BodyUnexpected.says(format!("request {} has a body", header.nr_reqtype)));
        }
        _ => {}
    }
    let body = Body::read(mem, header.nr_reqtype, header.nr_body).map_err(|_| bad_address())?;
    let options = OptionList::read(mem, header.nr_options, size)?;
    header.nr_name[NETMAP_REQ_IFNAMSIZ - 1] = 0;
    let name = PortName::from_field(&header.nr_name);
    match body.request(header.nr_reqtype, name, &options) {
        Ok(request) => Ok(Call::new(request, options, Back::Control { arg, header: *header, body })),
        Err(failure) => {
            options.write_back(mem, false).map_err(|_| bad_address())?;
            Err(failure)
        }
    }
}

impl Call {
    fn new(request: Request, options: OptionList, back: Back) -> Call {
        Call { request, options, back }
    }

    /// Says what became of an option; nothing happens if the request has none of this kind.
    pub fn answer_option(&mut self, answer: OptionAnswer) {
        self.options.answer(answer);
    }

    /// The failure that [`Call::finish`] will report although the handler succeeds: a registration with an option that
    /// nobody answered. To be asked after all other checks and before anything is changed, since the program will
    /// believe that nothing was. Other requests ignore what they do not know.
    ///
    /// Source: `nmreq_checkoptions`.
    pub fn unsupported_option(&self) -> Option<Failure> {
        match self.request {
            Request::Register(_) => self.options.unsupported().map(Failure::unsupported_option),
            _ => None,
        }
    }

    /// Writes the answer back and gives the result of the `ioctl`.
    ///
    /// The header always goes back; the body and those of processed options only on success; the status of each option
    /// always. `EFAULT` if any of it cannot be written, even though the request may have been carried out.
    ///
    /// A reply of another kind than the request counts as no news: the body goes back as it came.
    ///
    /// Source: `nmreq_copyout`.
    pub fn finish(self, mem: &dyn UserMem, outcome: Result<Reply, Errno>) -> Result<(), Errno> {
        let unsupported = self.unsupported_option().map(Errno::from);
        let outcome = outcome.and_then(|reply| unsupported.map_or(Ok(reply), Err));
        match self.back {
            Back::Control { arg, mut header, mut body } => {
                let result = match outcome {
                    Ok(reply) => {
                        if let Reply::ValeList(list) = &reply
                            && let (Body::ValeList(_), Some(name)) = (&body, list.name)
                        {
                            header.nr_name = name.to_field();
                        }
                        body.put(&reply, &self.request);
                        mem.write(header.nr_body, body.bytes()).and_then(|()| self.options.write_back(mem, true))
                    }
                    Err(errno) => self.options.write_back(mem, false).and(Err(errno)),
                };
                write_pod(mem, arg, &header)?;
                result
            }
            Back::Legacy(back) => back.finish(mem, outcome),
            Back::Config { arg, name } => {
                let data = match (&outcome, &self.request) {
                    (Ok(Reply::ValeConfig(data)), _) | (_, Request::ValeConfig(ValeConfig { data, .. })) => **data,
                    _ => [0; 256],
                };
                write_pod(mem, arg, &nm_ifreq { nifr_name: name, data })?;
                outcome.map(|_| ())
            }
        }
    }
}

/// The body of a control request, as it came.
#[derive(Debug)]
enum Body {
    None,
    Register(nmreq_register),
    PortInfo(nmreq_port_info_get),
    ValeAttach(nmreq_vale_attach),
    ValeDetach(nmreq_vale_detach),
    ValeList(nmreq_vale_list),
    PortHdr(nmreq_port_hdr),
    ValeNewif(nmreq_vale_newif),
    Polling(nmreq_vale_polling),
    PoolsInfo(nmreq_pools_info),
    KloopStart(nmreq_sync_kloop_start),
}

impl Body {
    /// Bytes of the body of a request of this type; unknown types have none.
    fn size(kind: u16) -> usize {
        match kind {
            NETMAP_REQ_REGISTER => size_of::<nmreq_register>(),
            NETMAP_REQ_PORT_INFO_GET => size_of::<nmreq_port_info_get>(),
            NETMAP_REQ_VALE_ATTACH => size_of::<nmreq_vale_attach>(),
            NETMAP_REQ_VALE_DETACH => size_of::<nmreq_vale_detach>(),
            NETMAP_REQ_VALE_LIST => size_of::<nmreq_vale_list>(),
            NETMAP_REQ_PORT_HDR_SET | NETMAP_REQ_PORT_HDR_GET => size_of::<nmreq_port_hdr>(),
            NETMAP_REQ_VALE_NEWIF => size_of::<nmreq_vale_newif>(),
            NETMAP_REQ_VALE_POLLING_ENABLE | NETMAP_REQ_VALE_POLLING_DISABLE => size_of::<nmreq_vale_polling>(),
            NETMAP_REQ_POOLS_INFO_GET => size_of::<nmreq_pools_info>(),
            NETMAP_REQ_SYNC_KLOOP_START => size_of::<nmreq_sync_kloop_start>(),
            _ => 0,
        }
    }

    fn read(mem: &dyn UserMem, kind: u16, addr: u64) -> Result<Body, Errno> {
        Ok(match kind {
            NETMAP_REQ_REGISTER => Body::Register(read_pod(mem, addr)?),
            NETMAP_REQ_PORT_INFO_GET => Body::PortInfo(read_pod(mem, addr)?),
            NETMAP_REQ_VALE_ATTACH => Body::ValeAttach(read_pod(mem, addr)?),
            NETMAP_REQ_VALE_DETACH => Body::ValeDetach(read_pod(mem, addr)?),
            NETMAP_REQ_VALE_LIST => Body::ValeList(read_pod(mem, addr)?),
            NETMAP_REQ_PORT_HDR_SET | NETMAP_REQ_PORT_HDR_GET => Body::PortHdr(read_pod(mem, addr)?),
            NETMAP_REQ_VALE_NEWIF => Body::ValeNewif(read_pod(mem, addr)?),
            NETMAP_REQ_VALE_POLLING_ENABLE | NETMAP_REQ_VALE_POLLING_DISABLE => Body::Polling(read_pod(mem, addr)?),
            NETMAP_REQ_POOLS_INFO_GET => Body::PoolsInfo(read_pod(mem, addr)?),
            NETMAP_REQ_SYNC_KLOOP_START => Body::KloopStart(read_pod(mem, addr)?),
            _ => Body::None,
        })
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Body::None => &[],
            Body::Register(raw) => pod_bytes(raw),
            Body::PortInfo(raw) => pod_bytes(raw),
            Body::ValeAttach(raw) => pod_bytes(raw),
            Body::ValeDetach(raw) => pod_bytes(raw),
            Body::ValeList(raw) => pod_bytes(raw),
            Body::PortHdr(raw) => pod_bytes(raw),
            Body::ValeNewif(raw) => pod_bytes(raw),
            Body::Polling(raw) => pod_bytes(raw),
            Body::PoolsInfo(raw) => pod_bytes(raw),
            Body::KloopStart(raw) => pod_bytes(raw),
        }
    }

    /// The typed request. What the original refuses before it looks at any port or fd is refused here.
    fn request(&self, kind: u16, name: PortName, options: &OptionList) -> Result<Request, Failure> {
        Ok(match self {
            Body::Register(raw) => Request::Register(Register::from_raw(name, raw, options.typed())),
            Body::PortInfo(raw) => Request::PortInfo(PortInfo::from_raw(name, raw)),
            Body::ValeAttach(raw) => {
                Request::ValeAttach(ValeAttach { register: Register::from_raw(name, &raw.reg, options.typed()) })
            }
            Body::ValeDetach(_) => Request::ValeDetach(name),
            Body::ValeList(raw) => {
                Request::ValeList(ValeList { name, bridge: raw.nr_bridge_idx, port: raw.nr_port_idx })
            }
            Body::PortHdr(raw) if kind == NETMAP_REQ_PORT_HDR_SET => {
                Request::HdrSet(HdrSet::new(name, raw.nr_hdr_len)?)
            }
            Body::PortHdr(_) => Request::HdrGet(name),
            Body::ValeNewif(raw) => Request::ValeNewif(ValeNewif::from_raw(name, raw)),
            Body::Polling(raw) if kind == NETMAP_REQ_VALE_POLLING_ENABLE => {
                Request::PollingOn(Polling::from_raw(name, raw))
            }
            Body::Polling(raw) => Request::PollingOff(Polling::from_raw(name, raw)),
            Body::PoolsInfo(raw) => Request::PoolsInfo(PoolsInfo { name, mem_id: raw.nr_mem_id }),
            Body::KloopStart(raw) => Request::KloopStart(KloopStart::new(raw.sleep_us, options.typed())?),
            Body::None => match kind {
                NETMAP_REQ_VALE_DELIF => Request::ValeDelif(name),
                NETMAP_REQ_SYNC_KLOOP_STOP => Request::KloopStop,
                NETMAP_REQ_CSB_ENABLE => Request::CsbEnable(options.typed().csb.ok_or(Condition::CsbMissing.plain())?),
                _ => Err(Condition::UnknownRequest.says(format!("request type {kind} is not known")))?,
            },
        })
    }

    fn put(&mut self, reply: &Reply, request: &Request) {
        match (self, reply) {
            (Body::Register(raw), Reply::Register(reply)) => {
                reply.put(raw);
                if let Request::Register(register) = request {
                    raw.nr_flags = register.flags;
                }
            }
            (Body::PortInfo(raw), Reply::PortInfo(reply)) => reply.put(raw),
            (Body::ValeAttach(raw), Reply::ValeAttach(port)) => raw.port_index = *port,
            (Body::ValeDetach(raw), Reply::ValeDetach(port)) => raw.port_index = *port,
            (Body::ValeList(raw), Reply::ValeList(reply)) => {
                raw.nr_bridge_idx = reply.bridge;
                raw.nr_port_idx = reply.port;
            }
            (Body::PortHdr(raw), Reply::HdrLen(len)) => raw.nr_hdr_len = *len,
            (Body::ValeNewif(raw), Reply::ValeNewif(reply)) => reply.put(raw),
            (Body::PoolsInfo(raw), Reply::PoolsInfo(reply)) => reply.put(raw),
            _ => {}
        }
    }
}
