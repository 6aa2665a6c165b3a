//! One question to rtnetlink, RTM_GETLINK for a single interface, and its answer.
//!
//! The parser trusts no length in the answer: what does not fit is `EBADMSG`, what is not known is left out.

use super::XdpMode;
use super::moves::Departure;
use crate::sys::{Errno, Error, Fd, retry, syscall};
use std::os::fd::{AsRawFd, RawFd};

const HEADER: usize = 16;
const IFINFO: usize = 16;
/// An answer about one interface, without statistics and virtual functions, takes about 1 KB.
const ANSWER_MAX: usize = 32 * 1024;
/// Messages that are not the answer (there should be none) before the question is given up.
const STRANGERS_MAX: usize = 16;
const SEQ: u32 = 1;

const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;

/// Nesting and byte-order bits of an attribute's type (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// Which interface is meant.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// The one with this index.
    Index(u32),
    /// The one with this name, already checked.
    Name(&'a str),
}

impl std::fmt::Display for Which<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Which::Index(n) => write!(f, "of interface {n}"),
            Which::Name(name) => write!(f, "of interface {name}"),
        }
    }
}

/// What the answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub flags: u32,
    pub name: String,
    pub mtu: u32,
    pub mac: [u8; 6],
    pub xdp: Option<(XdpMode, u32)>,
}

/// A socket to rtnetlink in the calling thread's network namespace.
pub struct Rtnl(Fd);

impl Rtnl {
    pub fn open() -> Result<Rtnl, Error> {
        let kind = (libc::SOCK_RAW | libc::SOCK_CLOEXEC) as usize;
        // SAFETY: socket takes integers; the descriptor is new and ours.
        let fd = unsafe {
            syscall(libc::SYS_socket, [libc::AF_NETLINK as usize, kind, libc::NETLINK_ROUTE as usize, 0, 0, 0])
                .map(|raw| Fd::from_raw(raw as RawFd))
        };
        fd.map(Rtnl).map_err(|errno| Error::new("socket", "AF_NETLINK", errno))
    }

    /// The same of a socket that is open already.
    pub fn of(socket: Fd) -> Rtnl {
        Rtnl(socket)
    }

    /// One that hears what happens to the things of `groups` (`RTMGRP_*`), and is for nothing else; with CAP_NET_BROADCAST
    /// also in namespaces that its own has numbers for.
    pub fn listening(groups: u32) -> Result<Rtnl, Error> {
        let rtnl = Rtnl::open()?;
        let (option, on) = (libc::NETLINK_LISTEN_ALL_NSID as usize, 1i32);
        // SAFETY: the value is a local, with its own length.
        let _ = unsafe {
            let (at, len) = (&raw const on as usize, size_of_val(&on));
            syscall(libc::SYS_setsockopt, [rtnl.fd() as usize, libc::SOL_NETLINK as usize, option, at, len, 0])
        };
        let address = [u32::from(libc::AF_NETLINK as u16), 0, groups]; // sockaddr_nl: family, port, groups
        let (at, len) = (address.as_ptr() as usize, size_of_val(&address));
        // SAFETY: the address is a local, with its own length.
        let bound = unsafe { syscall(libc::SYS_bind, [rtnl.fd() as usize, at, len, 0, 0, 0]) };
        bound.map(|_| rtnl).map_err(|errno| Error::new("bind", "AF_NETLINK", errno))
    }

    /// The next notice of an interface that was moved from a namespace to another, if one has come. `is_from` is asked about
    /// the number that the socket's namespace has for the former, which may be its own, and may be none.
    pub fn departure(&self, is_from: impl Fn(Option<i32>) -> bool, ifindex: u32) -> Option<Departure> {
        loop {
            let found = self
                .receive_from(|datagram, number| Ok(Some(departure(datagram, ifindex).filter(|_| is_from(number)))));
            match found {
                Ok(None) => {}
                Ok(gone) => return gone,
                // Some were lost: whoever moves a thousand interfaces at once.
                Err(Errno(libc::ENOBUFS)) => {}
                Err(_) => return None,
            }
        }
    }

    /// The body of the message of type `of` that answers a request.
    pub fn ask(&self, kind: u16, of: u16, body: &[u8]) -> Result<Vec<u8>, Errno> {
        self.send(&message(kind, 0, body))?;
        self.receive(|datagram| {
            for (kind, body) in messages(datagram)? {
                match kind {
                    k if k == of => return Ok(Some(body.to_vec())),
                    k if k == libc::NLMSG_ERROR as u16 => verdict(body)?,
                    _ => {}
                }
            }
            Ok(None)
        })
    }

    /// The same at a high descriptor number, to be kept.
    pub fn high(self) -> Rtnl {
        Rtnl(self.0.high())
    }

    /// The socket, which takes interface ioctls too.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub fn link(&self, which: Which<'_>) -> Result<Link, Error> {
        let failed = |errno| Error::new("RTM_GETLINK", which.to_string(), errno);
        let index = match which {
            Which::Name(_) => 0,
            Which::Index(n) => i32::try_from(n).ok().filter(|&n| n != 0).ok_or(failed(Errno(libc::ENODEV)))?,
        };
        let question = question(index, which);
        self.send(&question).map_err(failed)?;
        self.answer().map_err(failed)
    }

    /// Sends a request about something else than a link; the kernel's answer is an errno or none.
    pub fn request(&self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
        self.send(&message(kind, flags | libc::NLM_F_ACK as u16, body))?;
        self.receive(acknowledged)
    }

    /// Counts the messages of type `of` that answer a dump.
    pub fn count(&self, kind: u16, of: u16, body: &[u8]) -> Result<usize, Errno> {
        self.send(&message(kind, libc::NLM_F_DUMP as u16, body))?;
        let mut all = 0;
        self.receive(|datagram| {
            let (some, end) = counted(datagram, of)?;
            all += some;
            Ok(end.then_some(()))
        })?;
        Ok(all)
    }

    fn send(&self, message: &[u8]) -> Result<(), Errno> {
        // SAFETY: the buffer is alive for the call, and the length is its own.
        retry(|| unsafe {
            let buffer = message.as_ptr() as usize;
            syscall(libc::SYS_sendto, [self.fd() as usize, buffer, message.len(), 0, 0, 0])
        })
        .map(drop)
    }

    fn answer(&self) -> Result<Link, Errno> {
        self.receive(parse)
    }

    /// Reads datagrams of the kernel until `take` makes something of one.
    fn receive<T>(&self, mut take: impl FnMut(&[u8]) -> Result<Option<T>, Errno>) -> Result<T, Errno> {
        self.receive_from(|datagram, _| take(datagram))
    }

    /// The same with the number of the namespace that each is about, if it has one.
    fn receive_from<T>(
        &self,
        mut take: impl FnMut(&[u8], Option<i32>) -> Result<Option<T>, Errno>,
    ) -> Result<T, Errno> {
        let mut buffer = vec![0u8; ANSWER_MAX];
        for _ in 0..STRANGERS_MAX {
            let mut from = [0u32; 3]; // sockaddr_nl: family, port, groups
            let mut control = [0u64; 3]; // cmsghdr: length, level and type; an int
            let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            // SAFETY: all zero bytes are a valid header.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_name = from.as_mut_ptr().cast();
            header.msg_namelen = size_of_val(&from) as libc::socklen_t;
            header.msg_iov = &raw mut part;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&control) as _;
            // The kernel answers while it takes the question: an answer that is not there never comes.
            let flags = (libc::MSG_DONTWAIT | libc::MSG_TRUNC) as usize;
            // SAFETY: the header and all it points at are locals, with their own lengths.
            let len = retry(|| unsafe {
                syscall(libc::SYS_recvmsg, [self.fd() as usize, &raw mut header as usize, flags, 0, 0, 0])
            })?;
            if header.msg_namelen as usize != size_of_val(&from) || from[1] != 0 {
                continue; // not from the kernel
            }
            let kind = control[1].to_ne_bytes();
            let told = u32_at(&kind, 0) == Some(libc::SOL_NETLINK as u32)
                && u32_at(&kind, 4) == Some(libc::NETLINK_LISTEN_ALL_NSID as u32);
            let number = i32_of(&control[2].to_ne_bytes()).filter(|_| told && header.msg_controllen as usize >= 20);
            // With MSG_TRUNC the length is the message's, which may be more than the buffer's.
            let message = buffer.get(..len).ok_or(Errno(libc::EMSGSIZE))?;
            if let Some(done) = take(message, number)? {
                return Ok(done);
            }
        }
        Err(Errno(libc::EBADMSG))
    }
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut m = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    m.extend_from_slice(&kind.to_ne_bytes());
    m.extend_from_slice(&(libc::NLM_F_REQUEST as u16 | flags).to_ne_bytes());
    m.extend_from_slice(&SEQ.to_ne_bytes());
    m.extend_from_slice(&[0; 4]); // port: the kernel knows
    m.extend_from_slice(body);
    m
}

/// Type and body of each message to us in a datagram.
fn messages(datagram: &[u8]) -> Result<Vec<(u16, &[u8])>, Errno> {
    numbered(datagram, SEQ)
}

/// The same of those with number `wanted`; notices have 0.
fn numbered(mut datagram: &[u8], wanted: u32) -> Result<Vec<(u16, &[u8])>, Errno> {
    let bad = Errno(libc::EBADMSG);
    let mut found = Vec::new();
    while !datagram.is_empty() {
        let len = u32_at(datagram, 0).ok_or(bad)? as usize;
        let kind = u16_at(datagram, 4).ok_or(bad)?;
        let seq = u32_at(datagram, 8).ok_or(bad)?;
        let body = datagram.get(HEADER..len).ok_or(bad)?;
        if seq == wanted {
            found.push((kind, body));
        }
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(found)
}

/// What an error message says; zero acknowledges.
fn verdict(body: &[u8]) -> Result<(), Errno> {
    let bad = Errno(libc::EBADMSG);
    match u32_at(body, 0).ok_or(bad)? as i32 {
        0 => Ok(()),
        code => Err(code.checked_neg().filter(|&e| e > 0).map_or(bad, Errno)),
    }
}

fn acknowledged(datagram: &[u8]) -> Result<Option<()>, Errno> {
    for (kind, body) in messages(datagram)? {
        if kind == libc::NLMSG_ERROR as u16 {
            return verdict(body).map(Some);
        }
    }
    Ok(None)
}

/// Messages of type `of`, and whether the dump ends here.
fn counted(datagram: &[u8], of: u16) -> Result<(usize, bool), Errno> {
    let (mut n, mut end) = (0, false);
    for (kind, body) in messages(datagram)? {
        match kind {
            k if k == of => n += 1,
            k if k == libc::NLMSG_DONE as u16 => end = true,
            k if k == libc::NLMSG_ERROR as u16 => verdict(body)?,
            _ => {}
        }
    }
    Ok((n, end))
}

/// Whether a notice tells that an interface was moved.
fn departure(datagram: &[u8], ifindex: u32) -> Option<Departure> {
    let left = |(kind, body): &(u16, &[u8])| *kind == libc::RTM_DELLINK && u32_at(body, 4) == Some(ifindex);
    let notices = numbered(datagram, 0).ok()?;
    let (_, body) = notices.into_iter().find(left)?;
    let (mut namespace, mut index) = (None, ifindex);
    for (kind, value) in Attributes(body.get(IFINFO..)?).flatten() {
        match kind {
            libc::IFLA_NEW_NETNSID => namespace = i32_of(value),
            libc::IFLA_NEW_IFINDEX => index = u32_at(value, 0).filter(|&i| i != 0).unwrap_or(ifindex),
            _ => {}
        }
    }
    Some(Departure { namespace: namespace?, ifindex: index })
}

fn question(index: i32, which: Which<'_>) -> Vec<u8> {
    let mut m = vec![0; 4]; // ifinfomsg: family, padding, type
    m.extend_from_slice(&index.to_ne_bytes());
    m.extend_from_slice(&[0; 8]); // flags, change
    attribute(&mut m, libc::IFLA_EXT_MASK, &(libc::RTEXT_FILTER_SKIP_STATS as u32).to_ne_bytes());
    if let Which::Name(name) = which {
        let mut name = name.as_bytes().to_vec();
        name.push(0);
        attribute(&mut m, libc::IFLA_IFNAME, &name);
    }
    message(libc::RTM_GETLINK, 0, &m)
}

/// Adds an attribute to a request.
pub fn attribute(m: &mut Vec<u8>, kind: u16, value: &[u8]) {
    m.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    m.extend_from_slice(&kind.to_ne_bytes());
    m.extend_from_slice(value);
    m.resize(m.len().next_multiple_of(4), 0);
}

/// The answer in a datagram, `None` if there is none, or the error that the kernel answered.
fn parse(datagram: &[u8]) -> Result<Option<Link>, Errno> {
    for (kind, body) in messages(datagram)? {
        match kind {
            libc::RTM_NEWLINK => return link(body).map(Some),
            // An acknowledgement is nothing that was asked for.
            k if k == libc::NLMSG_ERROR as u16 => return verdict(body).and(Err(Errno(libc::EBADMSG))),
            _ => {}
        }
    }
    Ok(None)
}

fn link(body: &[u8]) -> Result<Link, Errno> {
    let bad = Errno(libc::EBADMSG);
    let ifindex = u32_at(body, 4).ok_or(bad)?;
    let flags = u32_at(body, 8).ok_or(bad)?;
    let attributes = body.get(IFINFO..).ok_or(bad)?;
    let mut link = Link { ifindex, flags, name: String::new(), mtu: 0, mac: [0; 6], xdp: None };
    for attribute in Attributes(attributes) {
        let (kind, value) = attribute?;
        match kind {
            libc::IFLA_IFNAME => {
                let name = value.split(|&b| b == 0).next().unwrap_or_default();
                link.name = String::from_utf8_lossy(name).into_owned();
            }
            libc::IFLA_MTU => link.mtu = u32_at(value, 0).ok_or(bad)?,
            libc::IFLA_ADDRESS => {
                // Tunnels have addresses of other lengths.
                if let Ok(mac) = value.try_into() {
                    link.mac = mac;
                }
            }
            libc::IFLA_XDP => link.xdp = xdp(value)?,
            _ => {}
        }
    }
    if link.name.is_empty() || ifindex == 0 || ifindex > i32::MAX as u32 {
        return Err(bad);
    }
    Ok(link)
}

fn xdp(nest: &[u8]) -> Result<Option<(XdpMode, u32)>, Errno> {
    let (mut attached, mut any, mut drv, mut skb, mut hw) = (0, 0, 0, 0, 0);
    for attribute in Attributes(nest) {
        let (kind, value) = attribute?;
        let id = || u32_at(value, 0).ok_or(Errno(libc::EBADMSG));
        match kind {
            IFLA_XDP_ATTACHED => attached = *value.first().ok_or(Errno(libc::EBADMSG))?,
            IFLA_XDP_PROG_ID => any = id()?,
            IFLA_XDP_DRV_PROG_ID => drv = id()?,
            IFLA_XDP_SKB_PROG_ID => skb = id()?,
            IFLA_XDP_HW_PROG_ID => hw = id()?,
            _ => {}
        }
    }
    // XDP_ATTACHED_*; the id of the one program is in `any` too, of several it is not.
    let or_any = |id: u32| if id == 0 { any } else { id };
    Ok(match attached {
        0 => None,
        1 => Some((XdpMode::Native, or_any(drv))),
        2 => Some((XdpMode::Generic, or_any(skb))),
        3 => Some((XdpMode::Offload, or_any(hw))),
        _ if drv != 0 => Some((XdpMode::Native, drv)),
        _ if skb != 0 => Some((XdpMode::Generic, skb)),
        _ => Some((XdpMode::Offload, or_any(hw))),
    })
}

/// Type and value of each attribute; an error ends it.
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub fn new(bytes: &'a [u8]) -> Attributes<'a> {
        Attributes(bytes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Errno>;

    fn next(&mut self) -> Option<Self::Item> {
        // Fewer bytes than a header are padding.
        let len = u16_at(self.0, 0)? as usize;
        let kind = u16_at(self.0, 2)? & TYPE_MASK;
        let Some(value) = self.0.get(4..len) else {
            self.0 = &[];
            return Some(Err(Errno(libc::EBADMSG)));
        };
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Ok((kind, value)))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// The value of an attribute that is a signed number.
pub fn i32_of(value: &[u8]) -> Option<i32> {
    u32_at(value, 0).map(|n| n as i32)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(kind: u16, seq: u32, body: &[u8]) -> Vec<u8> {
        let mut m = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        m.extend_from_slice(&kind.to_ne_bytes());
        m.extend_from_slice(&[0; 2]);
        m.extend_from_slice(&seq.to_ne_bytes());
        m.extend_from_slice(&[0; 4]);
        m.extend_from_slice(body);
        m
    }

    fn nest(ids: &[(u16, u32)], attached: u8) -> Vec<u8> {
        let mut xdp = Vec::new();
        attribute(&mut xdp, IFLA_XDP_ATTACHED, &[attached]);
        for &(kind, id) in ids {
            attribute(&mut xdp, kind, &id.to_ne_bytes());
        }
        xdp
    }

    fn body(xdp: &[u8]) -> Vec<u8> {
        let mut b = vec![0; IFINFO];
        b[4..8].copy_from_slice(&7i32.to_ne_bytes());
        b[8..12].copy_from_slice(&(libc::IFF_UP as u32).to_ne_bytes());
        attribute(&mut b, libc::IFLA_IFNAME, b"veth7\0");
        attribute(&mut b, libc::IFLA_MTU, &1500u32.to_ne_bytes());
        attribute(&mut b, libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 9]);
        attribute(&mut b, libc::IFLA_XDP | 0x8000, xdp);
        b
    }

    fn answer() -> Vec<u8> {
        answered(libc::RTM_NEWLINK, SEQ, &body(&nest(&[(IFLA_XDP_PROG_ID, 42), (IFLA_XDP_DRV_PROG_ID, 42)], 1)))
    }

    #[test]
    fn an_answer_is_read() {
        let link = parse(&answer()).unwrap().unwrap();
        assert_eq!((link.ifindex, link.name.as_str(), link.mtu), (7, "veth7", 1500));
        assert_eq!(link.flags, libc::IFF_UP as u32);
        assert_eq!(link.mac, [2, 0, 0, 0, 0, 9]);
        assert_eq!(link.xdp, Some((XdpMode::Native, 42)));
    }

    #[test]
    fn the_xdp_program_is_found_in_every_mode() {
        let (any, drv, skb, hw) = (IFLA_XDP_PROG_ID, IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID, IFLA_XDP_HW_PROG_ID);
        for (attached, ids, want) in [
            (0, vec![], None),
            (1, vec![(any, 5)], Some((XdpMode::Native, 5))),
            (2, vec![(any, 6), (skb, 6)], Some((XdpMode::Generic, 6))),
            (3, vec![(any, 7), (hw, 7)], Some((XdpMode::Offload, 7))),
            (4, vec![(drv, 8), (hw, 9)], Some((XdpMode::Native, 8))),
            (4, vec![(skb, 8), (hw, 9)], Some((XdpMode::Generic, 8))),
            (200, vec![], Some((XdpMode::Offload, 0))),
        ] {
            assert_eq!(xdp(&nest(&ids, attached)), Ok(want), "{attached} {ids:?}");
        }
    }

    #[test]
    fn a_notice_of_an_interface_that_was_moved_is_understood() {
        let notice = |kind: u16, attributes: &[(u16, i32)]| {
            let mut b = body(&[]);
            attributes.iter().for_each(|&(kind, n)| attribute(&mut b, kind, &n.to_ne_bytes()));
            answered(kind, 0, &b)
        };
        let (there, index) = (libc::IFLA_NEW_NETNSID, libc::IFLA_NEW_IFINDEX);
        let moved = notice(libc::RTM_DELLINK, &[(there, 3), (index, 9)]);
        assert_eq!(departure(&moved, 7), Some(Departure { namespace: 3, ifindex: 9 }));
        assert_eq!(departure(&moved, 8), None);
        let same = notice(libc::RTM_DELLINK, &[(there, 0)]);
        assert_eq!(departure(&same, 7), Some(Departure { namespace: 0, ifindex: 7 }));
        for other in [notice(libc::RTM_DELLINK, &[]), notice(libc::RTM_NEWLINK, &[(there, 3)]), answer()] {
            assert_eq!(departure(&other, 7), None);
        }
        for n in 0..moved.len() {
            let _ = departure(&moved[..n], 7);
        }
    }

    #[test]
    fn messages_of_others_are_skipped() {
        let mut m = answered(libc::RTM_NEWLINK, SEQ + 1, &[]);
        m.extend(answered(libc::NLMSG_NOOP as u16, SEQ, &[1, 2, 3, 4]));
        assert_eq!(parse(&m), Ok(None));
        m.extend(answer());
        assert_eq!(parse(&m).unwrap().unwrap().ifindex, 7);
    }

    #[test]
    fn the_kernels_error_is_passed_on() {
        let error = |code: i32| parse(&answered(libc::NLMSG_ERROR as u16, SEQ, &code.to_ne_bytes()));
        assert_eq!(error(-libc::ENODEV), Err(Errno(libc::ENODEV)));
        for senseless in [0, 1, i32::MIN, i32::MAX] {
            assert_eq!(error(senseless), Err(Errno(libc::EBADMSG)), "{senseless}");
        }
        assert_eq!(parse(&answered(libc::NLMSG_ERROR as u16, SEQ, &[0; 3])), Err(Errno(libc::EBADMSG)));
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_truth() {
        let whole = answer();
        for len in 1..whole.len() {
            assert_eq!(parse(&whole[..len]), Err(Errno(libc::EBADMSG)), "{len} bytes");
            // The same with a header that tells the shorter length: attributes end early.
            let mut short = whole[..len].to_vec();
            if len >= 4 {
                short[..4].copy_from_slice(&(len as u32).to_ne_bytes());
                let _ = parse(&short);
            }
        }
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        for lie in [0u32, 1, 15, 17, u32::MAX] {
            let mut m = answer();
            m[..4].copy_from_slice(&lie.to_ne_bytes());
            assert_eq!(parse(&m), Err(Errno(libc::EBADMSG)), "message of {lie}");
        }
        for lie in [0u16, 1, 3, 4000, u16::MAX] {
            let mut m = answer();
            m[HEADER + IFINFO..][..2].copy_from_slice(&lie.to_ne_bytes());
            assert_eq!(parse(&m), Err(Errno(libc::EBADMSG)), "attribute of {lie}");
        }
    }

    #[test]
    fn values_of_the_wrong_size_are_errors() {
        for kind in [libc::IFLA_MTU, libc::IFLA_XDP] {
            let mut b = body(&[]);
            attribute(&mut b, kind, &[5, 0]);
            let whole = parse(&answered(libc::RTM_NEWLINK, SEQ, &b));
            if kind == libc::IFLA_MTU {
                assert_eq!(whole, Err(Errno(libc::EBADMSG)));
            } else {
                assert_eq!(whole.unwrap().unwrap().xdp, None);
            }
        }
        let mut id = Vec::new();
        attribute(&mut id, IFLA_XDP_PROG_ID, &[1]);
        assert_eq!(xdp(&id), Err(Errno(libc::EBADMSG)));
        let mut none = Vec::new();
        attribute(&mut none, IFLA_XDP_ATTACHED, &[]);
        assert_eq!(xdp(&none), Err(Errno(libc::EBADMSG)));
    }

    #[test]
    fn an_interface_without_name_or_index_is_an_error() {
        let mut b = body(&[]);
        b[4..8].copy_from_slice(&(-1i32).to_ne_bytes());
        assert_eq!(parse(&answered(libc::RTM_NEWLINK, SEQ, &b)), Err(Errno(libc::EBADMSG)));
        let nameless = &body(&[])[..IFINFO];
        assert_eq!(parse(&answered(libc::RTM_NEWLINK, SEQ, nameless)), Err(Errno(libc::EBADMSG)));
    }

    #[test]
    fn no_single_byte_makes_the_parser_panic() {
        let whole = answer();
        for at in 0..whole.len() {
            for value in [0, 1, 3, 4, 5, 0x7f, 0x80, 0xff] {
                let mut m = whole.clone();
                m[at] = value;
                let _ = parse(&m);
            }
        }
    }
}
