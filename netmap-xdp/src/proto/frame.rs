//! Messages in pieces: a socket takes so many bytes and descriptors at once, and no more.
//!
//! Every piece starts with the same twelve bytes: magic, version, flags, number of the request. Their layout, and that of a
//! failure (see [`FromEngine::Failed`](super::FromEngine)), are the same in all versions, so that strangers understand why
//! they do not understand each other.

use super::wire::{Malformed, Reader, Wire, Writer};
use crate::sys::Fd;
use std::sync::Arc;

/// Version of the protocol. Another number on the other side is an error; it changes with every change of a message.
pub const VERSION: u16 = 11;
const MAGIC: u32 = u32::from_le_bytes(*b"NMXD");
/// Another piece follows.
const MORE: u16 = 1;
const HEADER: usize = 12;
/// Most bytes in a piece, header included.
pub const PIECE: usize = 32 * 1024;
/// Most descriptors in a piece.
const PIECE_FDS: usize = 128;
/// Most bytes and descriptors of a message to the client. A message to the engine has one piece.
const MOST_BYTES: usize = 4 << 20;
const MOST_FDS: usize = 4096;

/// One piece, ready to be sent.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its descriptors.
    pub fds: Vec<Arc<Fd>>,
}

/// Cuts a message into pieces; `number` is that of the request.
pub fn pieces(message: &impl Wire, number: u32) -> Vec<Piece> {
    let mut whole = Writer::default();
    message.put(&mut whole);
    let n = whole.bytes.len().div_ceil(PIECE - HEADER).max(whole.fds.len().div_ceil(PIECE_FDS)).max(1);
    let mut bytes = whole.bytes.chunks(PIECE - HEADER);
    let mut fds = whole.fds.chunks(PIECE_FDS);
    let piece = |i| {
        let mut head = Writer::default();
        MAGIC.put(&mut head);
        VERSION.put(&mut head);
        (if i + 1 < n { MORE } else { 0 }).put(&mut head);
        number.put(&mut head);
        head.bytes.extend_from_slice(bytes.next().unwrap_or_default());
        Piece { bytes: head.bytes, fds: fds.next().unwrap_or_default().to_vec() }
    };
    (0..n).map(piece).collect()
}

/// What a piece says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of who sent it.
    pub version: u16,
    /// Whether another piece follows.
    pub more: bool,
    /// Number of the request.
    pub number: u32,
}

/// The header of a piece, and the rest.
pub fn open(piece: &[u8]) -> Result<(Header, &[u8]), Malformed> {
    let (head, rest) = piece.split_at_checked(HEADER).ok_or(Malformed("no header"))?;
    let mut head = Reader::new(head, &[]);
    if u32::take(&mut head)? != MAGIC {
        return Err(Malformed("not a message of netmap-xdp"));
    }
    let (version, flags, number) = (u16::take(&mut head)?, u16::take(&mut head)?, u32::take(&mut head)?);
    Ok((Header { version, more: flags & MORE != 0, number }, rest))
}

/// Puts a message together again.
#[derive(Debug, Default)]
pub struct Assembly {
    bytes: Vec<u8>,
    fds: Vec<Arc<Fd>>,
}

impl Assembly {
    /// Adds the contents of a piece.
    pub fn add(&mut self, bytes: &[u8], fds: Vec<Fd>) -> Result<(), Malformed> {
        if self.bytes.len() + bytes.len() > MOST_BYTES || self.fds.len() + fds.len() > MOST_FDS {
            return Err(Malformed("too large"));
        }
        self.bytes.extend_from_slice(bytes);
        self.fds.extend(fds.into_iter().map(Arc::new));
        Ok(())
    }

    /// The message, all of whose pieces are there.
    pub fn finish<M: Wire>(self) -> Result<M, Malformed> {
        let mut reader = Reader::new(&self.bytes, &self.fds);
        let message = M::take(&mut reader)?;
        reader.end()?;
        Ok(message)
    }
}
