//! Which rings a request binds: mode, ring number and flags become two ranges of ring indexes.
//!
//! In the index space of each direction the host rings follow the NIC rings. Pure; called by whoever binds a port,
//! after the port is known (so that an unknown interface is `ENXIO` before a bad ring is `EINVAL`).

use super::errno::{Condition, Failure};
use super::request::Mode;
use crate::abi::{NR_RX_RINGS_ONLY, NR_TX_RINGS_ONLY};
use std::ops::Range;

/// Rings of a port. A port without host rings has zero of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RingCounts {
    /// NIC transmit rings.
    pub tx: u16,
    /// NIC receive rings.
    pub rx: u16,
    /// Host transmit rings.
    pub host_tx: u16,
    /// Host receive rings.
    pub host_rx: u16,
}

/// Rings that a request binds, as half-open ranges of indexes; host rings come after NIC rings.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Selection {
    /// Transmit rings.
    pub tx: Range<u16>,
    /// Receive rings.
    pub rx: Range<u16>,
}

impl Selection {
    /// Rings in both directions.
    pub fn len(&self) -> usize {
        self.tx.len() + self.rx.len()
    }

    /// Whether nothing is bound, which is what both `NR_TX_RINGS_ONLY` and `NR_RX_RINGS_ONLY` together ask for.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The rings that `mode`, `ring` and `flags` select of a port with `counts`.
///
/// A direction that the flags exclude is empty, and then nothing about it is checked. With one pair of rings asked for,
/// a direction that has too few rings for this number gives its ring 0; it is an error only if both have too few.
///
/// Errors (all `EINVAL`): no host rings, no such ring, no such mode. Source: `netmap_interp_ringid`.
pub fn interp_ringid(mode: Mode, flags: u64, ring: u16, counts: RingCounts) -> Result<Selection, Failure> {
    let tx = if flags & NR_RX_RINGS_ONLY != 0 { 0..0 } else { select(mode, ring, counts, counts.tx, counts.host_tx)? };
    let rx = if flags & NR_TX_RINGS_ONLY != 0 { 0..0 } else { select(mode, ring, counts, counts.rx, counts.host_rx)? };
    Ok(Selection { tx, rx })
}

/// One direction, which has `nic` and `host` rings.
fn select(mode: Mode, ring: u16, counts: RingCounts, nic: u16, host: u16) -> Result<Range<u16>, Failure> {
    let all = nic.saturating_add(host);
    let has_host = counts.host_tx > 0 || counts.host_rx > 0;
    let one = |kind, first: u16, here: u16, most: u16| {
        if ring >= most {
            return Err(Failure::ring_out_of_range(ring, kind, most));
        }
        // A direction without any ring of this kind has nothing to fall back on.
        let at = first.saturating_add(if ring < here { ring } else { 0 });
        Ok(at..at.saturating_add(here.min(1)))
    };
    match mode {
        Mode::AllNic | Mode::Null => Ok(0..nic),
        Mode::Sw | Mode::NicSw | Mode::OneSw if !has_host => Err(Failure::no_host_rings()),
        Mode::Sw => Ok(nic..all),
        Mode::NicSw => Ok(0..all),
        Mode::OneNic => one("NIC", 0, nic, counts.tx.max(counts.rx)),
        Mode::OneSw => one("host", nic, host, counts.host_tx.max(counts.host_rx)),
        Mode::Invalid(raw) if mode.is_deprecated_pipe() => Err(Condition::DeprecatedPipeMode
            .says(format!("mode {raw} is not accepted; name the pipe NAME{{ID or NAME}}ID"))),
        Mode::Invalid(raw) => Err(Failure::invalid_mode(raw)),
    }
}
