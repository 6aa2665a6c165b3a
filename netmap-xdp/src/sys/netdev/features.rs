//! What a driver can do with XDP, as it says itself: one question to the generic netlink family `netdev` (since 6.3).
//!
//! The parser trusts no length; what does not fit, or is not known, is no answer.

use crate::sys::{Errno, Fd, retry, syscall};
use std::os::fd::{AsRawFd, RawFd};

const NETLINK_GENERIC: usize = 16;
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const TYPE_MASK: u16 = 0x3fff;
/// Message header and generic header.
const HEAD: usize = 16 + 4;

/// `enum netdev_xdp_act`: native XDP with its basic verdicts.
pub const XDP_BASIC: u64 = 1;
/// Redirection, to sockets for one.
pub const XDP_REDIRECT: u64 = 2;
/// AF_XDP without copies.
pub const XDP_ZERO_COPY: u64 = 8;
/// Frames of several buffers.
pub const XDP_FRAGS: u64 = 32;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut a = Vec::with_capacity(4 + value.len().next_multiple_of(4));
    a.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    a.extend_from_slice(&kind.to_ne_bytes());
    a.extend_from_slice(value);
    a.resize(a.len().next_multiple_of(4), 0);
    a
}

fn question(family: u16, command: u8, attribute: &[u8]) -> Vec<u8> {
    let mut m = Vec::new();
    m.extend_from_slice(&((HEAD + attribute.len()) as u32).to_ne_bytes());
    m.extend_from_slice(&family.to_ne_bytes());
    m.extend_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    m.extend_from_slice(&[0; 8]); // number, port
    m.extend_from_slice(&[command, 1, 0, 0]);
    m.extend_from_slice(attribute);
    m
}

/// The value of attribute `wanted` in a message.
fn find(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let len = u32::from_ne_bytes(message.get(..4)?.try_into().ok()?) as usize;
    let mut rest = message.get(HEAD..len)?;
    while rest.len() >= 4 {
        let word = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        let (n, kind) = (usize::from(word(0)), word(2) & TYPE_MASK);
        if n < 4 {
            return None;
        }
        if kind == wanted {
            return rest.get(4..n);
        }
        rest = rest.get(n.next_multiple_of(4)..)?;
    }
    None
}

fn ask(socket: &Fd, question: &[u8]) -> Result<Vec<u8>, Errno> {
    let fd = socket.as_raw_fd() as usize;
    let mut answer = vec![0u8; 16 * 1024];
    // SAFETY: both buffers outlive the calls, and the lengths are theirs. The kernel answers while it takes the question.
    unsafe {
        retry(|| syscall(libc::SYS_sendto, [fd, question.as_ptr() as usize, question.len(), 0, 0, 0]))?;
        let flags = libc::MSG_DONTWAIT as usize;
        let n = retry(|| syscall(libc::SYS_recvfrom, [fd, answer.as_mut_ptr() as usize, answer.len(), flags, 0, 0]))?;
        answer.truncate(n);
    }
    Ok(answer)
}

/// The features of an interface of the calling thread's namespace, as `XDP_*` bits; `None` where nobody tells.
pub fn xdp_features(ifindex: u32) -> Option<u64> {
    let kind = (libc::SOCK_RAW | libc::SOCK_CLOEXEC) as usize;
    // SAFETY: takes integers; the descriptor is new and ours.
    let socket = unsafe {
        let fd = syscall(libc::SYS_socket, [libc::AF_NETLINK as usize, kind, NETLINK_GENERIC, 0, 0, 0]).ok()?;
        Fd::from_raw(fd as RawFd)
    };
    let named = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let family = ask(&socket, &question(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &named)).ok()?;
    let family = u16::from_ne_bytes(find(&family, CTRL_ATTR_FAMILY_ID)?.try_into().ok()?);
    let index = attribute(NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
    let answer = ask(&socket, &question(family, NETDEV_CMD_DEV_GET, &index)).ok()?;
    Some(u64::from_ne_bytes(find(&answer, NETDEV_A_DEV_XDP_FEATURES)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_nonsense_is_not() {
        let body = [attribute(7, b"abcde"), attribute(3, &5u64.to_ne_bytes())].concat();
        let message = question(20, 1, &body);
        assert_eq!(find(&message, 3), Some(&5u64.to_ne_bytes()[..]));
        assert_eq!((find(&message, 7), find(&message, 4)), (Some(&b"abcde"[..]), None));
        for n in 0..message.len() {
            let _ = find(&message[..n], 3);
        }
        let mut seed = 7u32;
        for _ in 0..20_000 {
            let mut noise = message.clone();
            for _ in 0..3 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = seed as usize % noise.len();
                noise[at] = (seed >> 20) as u8;
            }
            let _ = find(&noise, 3);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn an_interface_that_does_not_exist_has_no_features() {
        assert_eq!(xdp_features(i32::MAX as u32), None);
    }
}
