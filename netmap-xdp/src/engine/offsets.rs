//! Packet offsets (`NETMAP_REQ_OPT_OFFSETS`): checked against the port, and written into rings that nobody else uses yet.
//!
//! All rings but those of zero-copy monitors have them. Transmission starts at the offset. A NIC receives behind the largest
//! offset that its first user asked for, and what does not fit there goes on in the next slot. Where the offset of a slot is
//! another, the packet is moved, since the kernel places all packets alike: several slots in one buffer (`nro_min_gap`) are
//! refused there, for the kernel would write the next packet over one that was not moved yet. The others copy what they
//! receive straight to its place.

use super::monitor::shares_region;
use super::nic::NicPort;
use super::registry::PortKey;
use super::rings::RingTable;
use super::{Engine, GrantId};
use crate::ctl::{Condition, Failure, Offsets, PipeRole};
use crate::ring::{Dir, Kring};
use crate::sync::Ordering::Relaxed;

/// What is wrong with the option in buffers of `size` bytes whatever the port, or its mask: `netmap_offsets_init`.
fn mask(o: &Offsets, size: u32) -> Result<u64, Failure> {
    let mask = match o.bits {
        0 | 64 => u64::MAX,
        bits @ 1..64 => (1 << bits) - 1,
        bits => return Err(Condition::OffsetBits.says(format!("an offset field has 64 bits at most, not {bits}"))),
    };
    let refuse = |message| Err(Condition::OffsetTooLarge.says(message));
    if o.max > u64::from(size) {
        return refuse(format!("offsets up to {} do not lie in buffers of {size} bytes", o.max));
    }
    if o.max & mask != o.max {
        return refuse(format!("offsets up to {} do not fit in {} bits", o.max, o.bits));
    }
    if o.initial > o.max {
        return refuse(format!("the first offset {} is above the largest, {}", o.initial, o.max));
    }
    Ok(mask)
}

impl Engine {
    /// Lets the rings of a registration have offsets; returns the largest that holds. To be asked before the rings are used.
    pub fn offsets(&mut self, id: GrantId, flags: u64, o: &Offsets) -> Result<u64, Failure> {
        let held = self.grants.get(&id).ok_or_else(Failure::not_bound)?;
        let view = self.ports.view(&held.port);
        let region = self.ports.home(&held.port, &self.regions);
        let (Some(view), Some(region)) = (view, region) else { return Err(Failure::not_bound()) };
        let counts = view.rings.counts();
        // A gap as wide as a buffer is what every ring has.
        let size = region.layout().buf_size;
        let shared = (1..u64::from(size)).contains(&o.min_gap);
        let by_nic = held.selection.rx.start < counts.rx && !held.selection.rx.is_empty();
        // A kind of port whose carriers know no offsets is to say so here.
        let peer = match &held.port {
            PortKey::Nic(_) if shared && by_nic => {
                let message = format!(
                    "{}: AF_XDP writes whole frames to the start of a buffer, so slots of a NIC cannot share one \
                     (nro_min_gap); ask for 0, or for {size} or more",
                    view.name
                );
                return Err(Condition::NoOffsets.says(message));
            }
            PortKey::Monitor(_) if shares_region(flags) => {
                let message = format!("{}: a zero-copy monitor gets packets where they lie; capture copies", view.name);
                return Err(Condition::NoOffsets.says(message));
            }
            PortKey::Nic(_) | PortKey::Null(_) | PortKey::Vale(_) | PortKey::Monitor(_) => None,
            PortKey::Pipe(k, PipeRole::Master) => self.ports.view(&PortKey::Pipe(*k, PipeRole::Slave)),
            PortKey::Pipe(k, PipeRole::Slave) => self.ports.view(&PortKey::Pipe(*k, PipeRole::Master)),
        };
        let (mut mask, mut max) = (mask(o, size)?, o.max);
        if let PortKey::Nic(k) = &held.port
            && let Some(room) = self.ports.nics.get(k).map(NicPort::room_for_offsets).filter(|_| by_nic)
            && max > u64::from(room)
        {
            let message = format!(
                "{}: behind offsets up to {max}, buffers of {size} bytes have no room for what the NIC receives in one. They have \
                 up to {room}, and more where the program that opens the NIC first asks for it, or with buffers of 4096 bytes \
                 (NETMAP_XDP_BUF_SIZE)",
                view.name
            );
            return Err(Condition::OffsetTooLarge.says(message));
        }
        let rings: Vec<(Kring, u32)> = RingTable::ranges(&held.selection)
            .into_iter()
            .flat_map(|(dir, range)| range.map(move |i| (dir, i)))
            .filter_map(|(dir, i)| Some((view.rings.kring(dir, i, region)?, view.rings.users(dir, i))))
            .collect();
        for (k, _) in &rings {
            let (has, most) = (k.state().offset_mask.load(Relaxed), k.state().offset_max.load(Relaxed));
            if has == 0 {
                continue;
            }
            if has & mask != mask || most < max {
                let message = format!("{}: a ring in use has offsets up to {most} in mask {has:#x}", view.name);
                return Err(Condition::OffsetsFixed.says(message));
            }
            (mask, max) = (has, most);
        }
        for (k, users) in &rings {
            let far = peer.as_ref().and_then(|far| {
                let dir = if k.dir() == Dir::Tx { Dir::Rx } else { Dir::Tx };
                far.rings.kring(dir, k.id(), region)
            });
            if k.state().offset_mask.load(Relaxed) == 0 {
                k.allow_offsets(mask, max, o.min_gap);
                if let Some(far) = far.as_ref().filter(|far| far.state().offset_mask.load(Relaxed) == 0) {
                    // The other end finds packets by this, whether or not it asks for offsets of its own.
                    far.ring().offset_mask.store(mask, Relaxed);
                }
            }
            if o.initial != 0 && *users <= 1 {
                (0..k.num_slots()).for_each(|i| k.set_offset(k.slot(i), o.initial));
            }
        }
        Ok(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(max: u64, initial: u64, bits: u32) -> Result<u64, i32> {
        mask(&Offsets { max, initial, bits, tx_align: 0, min_gap: 0 }, 2048).map_err(|e| e.errno.0)
    }

    #[test]
    fn the_mask_has_as_many_bits_as_were_asked_for() {
        assert_eq!(asked(0, 0, 0), Ok(u64::MAX));
        assert_eq!(asked(2048, 2048, 64), Ok(u64::MAX));
        assert_eq!(asked(255, 10, 8), Ok(255));
    }

    #[test]
    fn offsets_outside_of_buffer_field_or_maximum_are_refused() {
        for (max, initial, bits) in [(0, 0, 65), (2049, 0, 0), (256, 0, 8), (10, 11, 0), (u64::MAX, 0, 0)] {
            assert_eq!(asked(max, initial, bits), Err(libc::EINVAL), "{max} {initial} {bits}");
        }
    }
}
