//! Moving whole packets from a receive ring to a transmit ring: the core of `bridge` and of `pong`.

use netmap_xdp::api::{Error, NS_MOREFRAG, RxRing, Slot, TxRing};

/// How a packet gets from slot to slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The slots exchange buffers.
    Swap,
    /// Bytes are copied.
    Copy,
}

/// What stood in the way in the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rest {
    /// Nothing is left, or the limit was reached.
    #[default]
    None,
    /// The next packet does not fit into the free transmit slots.
    NoRoom,
    /// The next packet has not arrived in full.
    Incomplete,
}

/// What was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Whole packets.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that can never be moved: longer than a ring or a buffer.
    pub dropped: u64,
    /// Why it ended.
    pub rest: Rest,
}

impl std::ops::AddAssign for Moved {
    fn add_assign(&mut self, o: Moved) {
        self.frames += o.frames;
        self.bytes += o.bytes;
        self.dropped += o.dropped;
        self.rest = o.rest;
    }
}

/// What is to be done with the packet that starts at a slot.
#[derive(Debug, PartialEq, Eq)]
pub enum Chain {
    /// It has so many slots, all of them here.
    Whole(u32),
    /// Its end has not arrived.
    Incomplete,
    /// Its end will never come: so many slots fill the whole ring.
    Endless(u32),
}

/// Looks at the packet that starts at slot `from` of `available`; `more(n)` tells whether slot n has NS_MOREFRAG.
pub fn chain(from: u32, available: u32, ring_slots: u32, more: impl Fn(u32) -> bool) -> Chain {
    match (from..available).find(|&n| !more(n)) {
        Some(last) => Chain::Whole(last - from + 1),
        // A ring keeps one slot empty: nothing more can arrive before these are released.
        None if from == 0 && available + 1 >= ring_slots => Chain::Endless(available),
        None => Chain::Incomplete,
    }
}

/// The packet that starts at slot `from` of a receive ring.
pub fn rx_chain(rx: &RxRing<'_>, from: u32, available: u32) -> Chain {
    chain(from, available, rx.num_slots(), |n| rx.slot(n).is_some_and(|s| s.flags() & NS_MOREFRAG != 0))
}

/// Moves packets between two rings, up to `limit` at a time.
pub struct Mover {
    /// By buffer or by byte.
    pub how: How,
    scratch: Vec<u8>,
}

impl Mover {
    /// A mover that swaps or copies.
    pub fn new(how: How) -> Mover {
        Mover { how, scratch: Vec::new() }
    }

    /// Moves up to `limit` packets; chains stay whole. `edit` sees the first slot of each packet in its new place. An
    /// error is a swap that was refused; what was moved before it is handed over.
    pub fn run(
        &mut self,
        rx: &mut RxRing<'_>,
        tx: &mut TxRing<'_>,
        limit: u64,
        mut edit: impl FnMut(&Slot<'_>),
    ) -> Result<Moved, Error> {
        let (available, space) = (rx.available(), tx.space());
        let (mut from, mut to) = (0u32, 0u32);
        let mut moved = Moved::default();
        let mut result = Ok(());
        while moved.frames + moved.dropped < limit && from < available {
            let slots = match rx_chain(rx, from, available) {
                Chain::Whole(slots) => slots,
                Chain::Incomplete => {
                    moved.rest = Rest::Incomplete;
                    break;
                }
                Chain::Endless(slots) => {
                    from += slots;
                    moved.dropped += 1;
                    continue;
                }
            };
            if slots >= tx.num_slots() {
                from += slots;
                moved.dropped += 1;
                continue;
            }
            if slots > space - to {
                moved.rest = Rest::NoRoom;
                break;
            }
            match self.packet(rx, from, tx, to, slots) {
                Ok(Some(bytes)) => {
                    if let Some(first) = tx.slot(to) {
                        edit(&first);
                    }
                    moved.frames += 1;
                    moved.bytes += bytes;
                    to += slots;
                }
                Ok(None) => moved.dropped += 1,
                Err(e) => {
                    result = Err(e);
                    break;
                }
            }
            from += slots;
        }
        tx.advance(to);
        rx.release(from);
        result.map(|()| moved)
    }

    /// Moves one packet; None if it does not fit into the other port's buffers.
    fn packet(
        &mut self,
        rx: &RxRing<'_>,
        from: u32,
        tx: &TxRing<'_>,
        to: u32,
        slots: u32,
    ) -> Result<Option<u64>, Error> {
        let pairs = || (0..slots).filter_map(|i| Some((rx.slot(from + i)?, tx.slot(to + i)?)));
        if pairs().any(|(src, dst)| src.len() > dst.capacity()) {
            return Ok(None);
        }
        let mut bytes = 0;
        for (src, dst) in pairs() {
            bytes += src.len() as u64;
            match self.how {
                How::Swap => src.swap_into(&dst)?,
                How::Copy => {
                    self.scratch.resize(src.len(), 0);
                    src.read_at(0, &mut self.scratch);
                    dst.write_at(0, &self.scratch);
                    dst.set_len(src.len());
                    dst.set_flags(src.flags() & NS_MOREFRAG);
                }
            }
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_measured_whole() {
        let flags = [false, true, true, false, true, false, true];
        let look = |from| chain(from, flags.len() as u32, 16, |n| flags[n as usize]);
        assert_eq!(look(0), Chain::Whole(1));
        assert_eq!(look(1), Chain::Whole(3));
        assert_eq!(look(4), Chain::Whole(2));
        assert_eq!(look(6), Chain::Incomplete);
    }

    #[test]
    fn a_chain_that_fills_the_ring_is_endless() {
        assert_eq!(chain(0, 7, 8, |_| true), Chain::Endless(7));
        assert_eq!(chain(0, 6, 8, |_| true), Chain::Incomplete);
        // Behind other packets it may still be completed once those are released.
        assert_eq!(chain(1, 7, 8, |_| true), Chain::Incomplete);
    }

    #[test]
    fn sums_keep_the_last_obstacle() {
        let mut sum = Moved { frames: 1, bytes: 60, dropped: 0, rest: Rest::NoRoom };
        sum += Moved { frames: 2, bytes: 120, dropped: 1, rest: Rest::None };
        assert_eq!(sum, Moved { frames: 3, bytes: 180, dropped: 1, rest: Rest::None });
    }
}
