//! What the ports of a switch share: who is there, and which address was last seen behind which port.
//!
//! Owner of the data: the engine that made the memfd and writes the table of ports. Every sender maps it, reads that table
//! and writes the table of addresses. Everything read here may have been scribbled: an index is checked where it is used,
//! and a wrong entry misdirects packets and does nothing worse.
//!
//! An address is learned with the port it came from and stays until another address takes its place in the table, the same
//! address comes from another port, or its port leaves. The original has no expiry by time either; it keeps the
//! addresses of a port that left, though, and then loses their packets instead of flooding them.

use crate::shm::{Memory, OutOfRange, Ref, shared_struct};
use crate::sync::{AtomicU32, AtomicU64, Ordering::*};
use std::mem::size_of;
use std::sync::Arc;

/// Ports that a switch can have: `NM_BDG_MAXPORTS`.
pub const MAX_PORTS: usize = 254;
/// Rings of a port in each direction: `NM_BDG_MAXRINGS`.
pub const MAX_RINGS: u16 = 16;
/// Slots of a ring: `NM_BDG_MAXSLOTS`.
pub const MAX_SLOTS: u32 = 4096;
/// The destination that is every port but the sender's.
pub const BROADCAST: u8 = 254;
/// The destination that is none.
pub const NOWHERE: u8 = 255;
/// Addresses that a switch remembers: `NM_BDG_HASH`.
const MACS: usize = 1024;

/// Bytes of an Ethernet address in the low part of a word.
const MAC: u64 = 0xffff_ffff_ffff;
/// Marks an entry of the table of addresses that is in use.
const USED: u64 = 1 << 56;

shared_struct! {
    /// A port of a switch, as senders see it.
    pub struct PortEntry {
        /// Changes whenever the port's receive rings do: what a sender has mapped for another value is out of date.
        pub generation: AtomicU32,
        /// Who sits here; 0 if nobody does. No two tenants of a switch have the same number.
        pub tenant: AtomicU32,
        /// Bytes of the virtio-net header that its packets start with.
        pub header: AtomicU32,
        /// How many receive rings there are, and from bit 16 on which of them somebody has bound.
        pub rings: AtomicU32,
    }
}

shared_struct! {
    /// State of a switch.
    #[repr(align(64))]
    pub struct SwitchState {
        /// A bit for each port that is there.
        pub active: [AtomicU64; 4],
        _pad: [AtomicU64; 4],
        /// The ports.
        pub ports: [PortEntry; 256],
        macs: [AtomicU64; MACS],
    }
}

const _: () = assert!(size_of::<PortEntry>() == 16 && size_of::<SwitchState>() == 64 + 256 * 16 + MACS * 8);

/// Bytes of a switch's memfd.
pub const SIZE: usize = size_of::<SwitchState>().next_multiple_of(crate::sys::PAGE);

/// A switch, mapped.
#[derive(Clone)]
pub struct Switch(Ref<SwitchState>);

/// An Ethernet header as far as a switch reads it: the two addresses, and two bytes more.
pub type Head = [u8; 16];

/// Destination and source address of a header, in the low bytes of a word each.
#[inline]
pub(super) fn addresses(head: &Head) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
    (word(0) & MAC, word(4) >> 16)
}

/// Whether the group bit of an address is set.
#[inline]
fn is_group(mac: u64) -> bool {
    mac & 1 != 0
}

#[inline]
fn place(mac: u64) -> usize {
    (mac.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % MACS
}

impl Switch {
    /// Attaches to a switch's memory.
    pub fn attach(memory: &Arc<Memory>) -> Result<Switch, OutOfRange> {
        memory.object(0).map(Switch)
    }

    /// A port's entry.
    #[inline]
    pub fn port(&self, i: u8) -> &PortEntry {
        &self.0.ports[usize::from(i)]
    }

    /// Remembers that address `source` is behind port `me`.
    #[inline]
    pub(super) fn learn(&self, source: u64, me: u8) {
        if !is_group(source) {
            let (cell, entry) = (&self.0.macs[place(source)], source | u64::from(me) << 48 | USED);
            // A flow that is known costs no write: the line stays shared among all senders.
            if cell.load(Relaxed) != entry {
                cell.store(entry, Relaxed);
            }
        }
    }

    /// The port behind which address `destination` was seen last; `BROADCAST` if it was not, or is a group.
    #[inline]
    pub(super) fn lookup(&self, destination: u64) -> u8 {
        if is_group(destination) {
            return BROADCAST;
        }
        let entry = self.0.macs[place(destination)].load(Relaxed);
        if entry & (MAC | USED) == destination | USED { (entry >> 48) as u8 } else { BROADCAST }
    }

    /// The ports that are there, lowest first.
    pub fn active(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.active.iter().enumerate().flat_map(|(i, word)| {
            let mut bits = word.load(Relaxed);
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros();
                bits &= bits.checked_sub(1)?;
                Some((i as u32 * 64 + bit) as u8)
            })
        })
    }

    /// The engine: `tenant` (not 0) takes a port.
    pub fn enter(&self, i: u8, tenant: u32, header: u32) {
        let p = self.port(i);
        p.header.store(header, Relaxed);
        p.rings.store(0, Relaxed);
        p.generation.fetch_add(1, Release);
        p.tenant.store(tenant, Release);
        self.0.active[usize::from(i) / 64].fetch_or(1 << (i % 64), Release);
    }

    /// The engine: a port's receive rings are `count` now, those in `bound` are in use.
    pub fn rings(&self, i: u8, count: u16, bound: u16, changed: bool) {
        let p = self.port(i);
        p.rings.store(u32::from(count) | u32::from(bound) << 16, Relaxed);
        if changed {
            p.generation.fetch_add(1, Release);
        }
    }

    /// The engine: a port is left, and what was learned of it forgotten.
    pub fn leave(&self, i: u8) {
        self.0.active[usize::from(i) / 64].fetch_and(!(1 << (i % 64)), Release);
        let p = self.port(i);
        p.tenant.store(0, Release);
        p.rings.store(0, Relaxed);
        p.generation.fetch_add(1, Release);
        for cell in &self.0.macs {
            let entry = cell.load(Relaxed);
            if entry & USED != 0 && (entry >> 48) as u8 == i {
                let _ = cell.compare_exchange(entry, 0, Relaxed, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sealed_memfd;

    fn switch() -> Switch {
        Switch::attach(&Memory::map(&sealed_memfd(c"test", SIZE).unwrap(), SIZE, 0, false).unwrap()).unwrap()
    }

    fn address(bytes: [u8; 6]) -> u64 {
        let mut head = [0; 16];
        head[..6].copy_from_slice(&bytes);
        addresses(&head).0
    }

    #[test]
    fn both_addresses_of_a_header_are_read() {
        let head: Head = std::array::from_fn(|i| i as u8 + 1);
        assert_eq!(addresses(&head), (0x0605_0403_0201, 0x0c0b_0a09_0807));
    }

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

    #[test]
    fn an_address_is_learned_moves_and_is_forgotten_with_its_port() {
        let s = switch();
        assert_eq!(s.lookup(address(A)), BROADCAST);
        s.learn(address(A), 7);
        assert_eq!(s.lookup(address(A)), 7);
        s.learn(address(A), 9);
        assert_eq!(s.lookup(address(A)), 9);
        s.learn(address(B), 3);
        s.leave(9);
        assert_eq!((s.lookup(address(A)), s.lookup(address(B))), (BROADCAST, 3));
    }

    #[test]
    fn groups_are_neither_learned_nor_looked_up() {
        let s = switch();
        let group = [3, 0, 0, 0, 0, 1];
        s.learn(address(group), 7);
        assert_eq!(s.lookup(address(group)), BROADCAST);
        assert_eq!(s.lookup(address([0xff; 6])), BROADCAST);
    }

    #[test]
    fn the_address_of_zeroes_is_an_address_like_any_other() {
        let s = switch();
        assert_eq!(s.lookup(address([0; 6])), BROADCAST);
        s.learn(address([0; 6]), 0);
        assert_eq!(s.lookup(address([0; 6])), 0);
    }

    #[test]
    fn ports_come_and_go() {
        let s = switch();
        for i in [0, 63, 64, 200, 253] {
            s.enter(i, u32::from(i) + 1, 0);
        }
        s.leave(64);
        assert_eq!(s.active().collect::<Vec<_>>(), [0, 63, 200, 253]);
        assert_eq!((s.port(64).tenant.load(Relaxed), s.port(64).generation.load(Relaxed)), (0, 2));
    }
}
