//! Null ports: a table of rings and nothing else. Each registration makes one of its own.

use super::grant::{CarrierGrant, RingGrant};
use super::region::Region;
use super::rings::{Private, RingTable};
use crate::ctl::{Failure, RingCounts, Selection};
use crate::ring::{Dir, Kring};

/// A null port.
pub struct NullPort {
    /// What the program called it.
    pub name: String,
    rings: RingTable,
}

impl NullPort {
    /// Makes one.
    pub fn new(name: &str, counts: RingCounts, slots: [u32; 2]) -> Result<NullPort, Failure> {
        let private = Private::new(RingTable::size(counts, slots))?;
        Ok(NullPort { name: format!("null:{name}"), rings: RingTable::new(counts, slots, private, 0) })
    }

    /// The rings.
    pub fn rings(&self) -> &RingTable {
        &self.rings
    }

    /// The rings, to count users.
    pub fn rings_mut(&mut self) -> &mut RingTable {
        &mut self.rings
    }

    /// Makes the selected rings.
    pub fn start(&mut self, selection: &Selection, region: &mut Region) -> Result<(), Failure> {
        for (dir, range) in RingTable::ranges(selection) {
            for i in range {
                self.rings.make(dir, i, region, true)?;
            }
        }
        Ok(())
    }

    /// What a client needs of the selected rings.
    pub fn grants(&self, selection: &Selection) -> [Vec<RingGrant>; 2] {
        RingTable::ranges(selection).map(|(dir, range)| {
            let place = |i| self.rings.place(dir, i);
            let grant = |(ring, kring)| RingGrant { ring, kring, carrier: CarrierGrant::Null, bell: None };
            range.filter_map(place).map(grant).collect()
        })
    }

    /// Every buffer that the port holds: all stay in their slots.
    pub fn buffers(&self, region: &Region) -> Vec<u32> {
        self.rings.krings(region).iter().flat_map(Kring::slot_buffers).collect()
    }

    /// Forgets all rings, which are the region's to free.
    pub fn stop(&mut self, region: &Region) -> Vec<Kring> {
        let counts = self.rings.counts();
        let all = [(Dir::Tx, counts.tx), (Dir::Rx, counts.rx)];
        all.into_iter()
            .flat_map(|(dir, n)| (0..n).map(move |i| (dir, i)))
            .filter_map(|(dir, i)| self.rings.retire(dir, i, region))
            .collect()
    }
}
