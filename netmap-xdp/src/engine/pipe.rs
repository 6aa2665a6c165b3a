//! Pipes: two ends, made together by whoever comes first and kept while either is in use, so that an end need not care
//! whether the other is there.
//!
//! A transmit ring of one end and the receive ring of the same number at the other end share one set of buffers; the state
//! of all rings of both ends lies in one memfd.

use super::grant::{CarrierGrant, RingGrant};
use super::region::Region;
use super::rings::{Private, RingTable};
use crate::ctl::{Failure, PipeRole, RingCounts, Selection};
use crate::index::distance;
use crate::port::pipe::{PipeRx, PipeTx};
use crate::port::{PortRing, Wake};
use crate::ring::{Dir, Kring};
use crate::sync::Ordering::*;
use crate::sys::{Error, Fd, eventfd};
use std::sync::Arc;

/// Bounds of the original: `NM_PIPE_MAXRINGS`, `NM_PIPE_MAXSLOTS`.
pub const MAX_RINGS: u16 = 256;
/// As above.
pub const MAX_SLOTS: u32 = 4096;

/// One end.
struct End {
    name: String,
    rings: RingTable,
    /// What wakes sleepers on each ring, by direction.
    wakes: [Vec<Arc<Fd>>; 2],
}

/// A pipe.
pub struct Pipe {
    ends: [End; 2],
    /// Tells who was there first.
    made: u64,
}

fn other(dir: Dir) -> Dir {
    match dir {
        Dir::Tx => Dir::Rx,
        Dir::Rx => Dir::Tx,
    }
}

impl Pipe {
    /// Makes both ends. `counts` and `slots` are those of the master; the slave's are the same, exchanged.
    /// `made` is larger than that of all pipes that were made before.
    pub fn new(parent: &str, id: &str, counts: RingCounts, slots: [u32; 2], made: u64) -> Result<Pipe, Failure> {
        let swapped = RingCounts { tx: counts.rx, rx: counts.tx, ..counts };
        let half = RingTable::size(counts, slots);
        let private = Private::new(half * 2)?;
        let end = |bracket: char, counts: RingCounts, slots, base| -> Result<End, Failure> {
            let wakes = |n: u16| (0..n).map(|_| eventfd().map(Arc::new)).collect::<Result<Vec<_>, _>>();
            let failed = |e| Failure::system(&Error::new("eventfd", format!("pipe {parent}{bracket}{id}"), e));
            let wakes = [wakes(counts.tx).map_err(failed)?, wakes(counts.rx).map_err(failed)?];
            let rings = RingTable::new(counts, slots, private.clone(), base);
            Ok(End { name: format!("{parent}{bracket}{id}"), rings, wakes })
        };
        Ok(Pipe { ends: [end('{', counts, slots, 0)?, end('}', swapped, [slots[1], slots[0]], half)?], made })
    }

    /// Larger than that of all pipes that were made before.
    pub fn made(&self) -> u64 {
        self.made
    }

    fn end(&self, role: PipeRole) -> (&End, &End) {
        let [master, slave] = &self.ends;
        if role == PipeRole::Master { (master, slave) } else { (slave, master) }
    }

    /// Name of an end, as programs write it.
    pub fn name(&self, role: PipeRole) -> &str {
        &self.end(role).0.name
    }

    /// The rings of an end.
    pub fn rings(&self, role: PipeRole) -> &RingTable {
        &self.end(role).0.rings
    }

    /// The rings of an end, to count users.
    pub fn rings_mut(&mut self, role: PipeRole) -> &mut RingTable {
        &mut self.ends[role as usize].rings
    }

    /// Whether nobody uses either end.
    pub fn idle(&self) -> bool {
        self.ends.iter().all(|e| e.rings.idle())
    }

    /// Makes the selected rings, each together with its counterpart; those that the other end has kept alive stay as they
    /// are.
    pub fn start(&mut self, role: PipeRole, selection: &Selection, region: &mut Region) -> Result<(), Failure> {
        let here = role as usize;
        for (dir, range) in RingTable::ranges(selection) {
            for i in range {
                let (tx, rx) = if dir == Dir::Tx { (here, 1 - here) } else { (1 - here, here) };
                if self.ends[tx].rings.place(Dir::Tx, i).is_some() {
                    continue;
                }
                self.ends[tx].rings.make(Dir::Tx, i, region, true)?;
                self.ends[rx].rings.make(Dir::Rx, i, region, false)?;
                let pair =
                    (self.ends[tx].rings.kring(Dir::Tx, i, region), self.ends[rx].rings.kring(Dir::Rx, i, region));
                if let (Some(tx), Some(rx)) = pair {
                    for k in 0..tx.num_slots().min(rx.num_slots()) {
                        let idx = tx.slot(k).buf_idx.load(Relaxed);
                        rx.slot(k).buf_idx.store(idx, Relaxed);
                        tx.held(k).store(idx, Relaxed);
                        rx.held(k).store(idx, Relaxed);
                    }
                }
            }
        }
        Ok(())
    }

    /// What a client needs of the selected rings.
    pub fn grants(&self, role: PipeRole, selection: &Selection) -> [Vec<RingGrant>; 2] {
        let (end, far) = self.end(role);
        RingTable::ranges(selection).map(|(dir, range)| {
            let grant = |i: u16| {
                let (ring, kring) = end.rings.place(dir, i)?;
                let (peer, peer_kring) = far.rings.place(other(dir), i)?;
                let wake = end.wakes[dir as usize].get(usize::from(i))?.clone();
                let wake_peer = far.wakes[other(dir) as usize].get(usize::from(i))?.clone();
                Some(RingGrant {
                    ring,
                    kring,
                    carrier: CarrierGrant::Pipe { peer, peer_kring, wake, wake_peer },
                    bell: None,
                })
            };
            range.filter_map(grant).collect()
        })
    }

    /// Pairs of a transmit ring and its counterpart.
    fn pairs(&self, region: &Region) -> Vec<(Kring, Kring)> {
        let [a, b] = &self.ends;
        let pairs = |tx: &End, rx: &End| -> Vec<(Kring, Kring)> {
            let n = tx.rings.counts().tx;
            (0..n).filter_map(|i| tx.rings.kring(Dir::Tx, i, region).zip(rx.rings.kring(Dir::Rx, i, region))).collect()
        };
        pairs(a, b).into_iter().chain(pairs(b, a)).collect()
    }

    /// Every buffer of the pipe, each once: what was sent and not given back is named by the receive ring, the rest by the
    /// transmit ring.
    pub fn buffers(&self, region: &Region) -> Vec<u32> {
        let mut all = Vec::new();
        for (tx, rx) in self.pairs(region) {
            let n = tx.num_slots().min(rx.num_slots());
            let (given_back, sent) = (rx.hwcur() % n, tx.hwcur() % n);
            for k in 0..n {
                let crossed = distance(given_back, k, n) < distance(given_back, sent, n);
                let idx = if crossed { rx.slot(k) } else { tx.slot(k) }.buf_idx.load(Relaxed);
                all.extend(Some(idx).filter(|&i| tx.is_buffer(i)));
            }
        }
        all
    }

    /// Somebody died in a sync: what had crossed is published at once, since nobody may ever sync that end again.
    pub fn mend(&self, region: &Region, engine: u32) {
        let [a, b] = &self.ends;
        for (from, to) in [(a, b), (b, a)] {
            for i in 0..from.rings.counts().tx {
                let kring = |end: &End, dir| end.rings.kring(dir, i, region);
                let wake = |end: &End, dir| end.wakes[dir as usize].get(usize::from(i)).cloned();
                let pair = || Some((kring(from, Dir::Tx)?, kring(to, Dir::Rx)?));
                let wakes = wake(from, Dir::Tx).zip(wake(to, Dir::Rx));
                let (Some((tx, rx)), Some((peer_tx, peer_rx)), Some((send, take))) = (pair(), pair(), wakes) else {
                    continue;
                };
                let sender = PipeTx::new(peer_rx, Wake::new(send.clone(), take.clone()));
                let receiver = PipeRx::new(peer_tx, Wake::new(take, send));
                PortRing::new(tx, Box::new(sender)).mend_for(engine);
                PortRing::new(rx, Box::new(receiver)).mend_for(engine);
            }
        }
    }

    /// Forgets all rings, which are the region's to free.
    pub fn stop(&mut self, region: &Region) -> Vec<Kring> {
        let mut gone = Vec::new();
        for end in &mut self.ends {
            let counts = end.rings.counts();
            for (dir, n) in [(Dir::Tx, counts.tx), (Dir::Rx, counts.rx)] {
                gone.extend((0..n).filter_map(|i| end.rings.retire(dir, i, region)));
            }
        }
        gone
    }
}
