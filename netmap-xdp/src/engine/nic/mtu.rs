//! Whether frames of an interface's MTU fit: into one buffer, or into a chain of them that the rings have room for. Decided at
//! the bind, in the engine's thread; what changes later is said by `health`.

use super::NicPort;
use crate::ctl::{Failure, Selection};
use crate::port::nic::MAX_CHAIN;
use crate::sys::netdev::bpf;
use crate::sys::{Level, Mode, NIC_BUF_SIZES, log, settings};
use crate::xsk::{Chunks, Geometry, HEADERS};

/// Drivers whose cards are told the size of buffers in steps of 1024 bytes: of the 1792 that an aligned buffer of 2048 has they
/// use 1024 and cut what is longer, which comes as several frames (`igb_setup_srrctl`, `igc_configure_rx_ring`).
const COARSE: [&str; 2] = ["igb", "igc"];
const COARSE_STEP: u32 = 1024;

/// What is asked about.
#[derive(Clone, Copy, Debug)]
struct Asked {
    mtu: u32,
    geometry: Geometry,
    /// What of a buffer the card uses is a multiple of this.
    step: u32,
    /// Whether frames of several buffers can be had; why not, if not.
    chains: Result<(), &'static str>,
    /// Slots of the receive rings, if any are bound.
    receives: Option<u32>,
}

/// What of it cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Misfit {
    why: String,
    /// The largest MTU that fits.
    fits: u32,
}

impl Asked {
    /// What one buffer receives.
    fn one(&self) -> u32 {
        let limit = self.geometry.rx_limit();
        limit - limit % self.step
    }

    /// How many buffers a received frame takes at most; whether the rings have them.
    fn received(&self) -> Result<u32, Misfit> {
        let (one, size) = (self.one(), self.geometry.stride());
        let behind = match self.geometry.headroom() {
            0 => String::new(),
            offset => format!(" behind offsets up to {offset}"),
        };
        let (frame, fits) = (self.mtu + HEADERS, one - HEADERS);
        let pieces = frame.div_ceil(one);
        let Some(slots) = self.receives.filter(|_| pieces > 1) else { return Ok(pieces) };
        if let Err(why) = self.chains {
            let why =
                format!("its frames have up to {frame} bytes, a buffer of {size} receives {one}{behind}, and {why}");
            return Err(Misfit { why, fits });
        }
        // One slot of a ring is always empty.
        let room = slots - 1;
        if pieces > room {
            let why = format!(
                "its frames have up to {frame} bytes, which take {pieces} buffers of {one} bytes{behind}, and a receive ring of {slots} \
                 slots holds {room}"
            );
            return Err(Misfit { why, fits: room * one - HEADERS });
        }
        Ok(pieces)
    }

    /// Settings that would mend a misfit, as words of a sentence.
    fn cures(&self) -> String {
        let larger = NIC_BUF_SIZES.iter().filter(|size| **size > self.geometry.stride());
        let helps = |size: &&u32| {
            let geometry = Geometry::new(self.geometry.chunks(), **size);
            let behind = |g: Geometry| g.behind(self.geometry.headroom().into());
            geometry.map(behind).is_some_and(|geometry| Asked { geometry, ..*self }.received().is_ok())
        };
        let mut cures: Vec<String> = larger.filter(helps).map(|size| format!("NETMAP_XDP_BUF_SIZE={size}")).collect();
        if self.chains.is_err() && settings().whole_frames {
            cures.push("NETMAP_XDP_FRAGS=auto".into());
        }
        if self.chains.is_ok() {
            cures.push("more slots (NETMAP_XDP_SLOTS)".into());
        }
        if cures.is_empty() { String::new() } else { format!(", or use {}", cures.join(" or ")) }
    }
}

impl NicPort {
    /// In which steps its card is told the size of buffers, as it is driven now.
    fn step(&self) -> u32 {
        let coarse = self.mode == Mode::ZeroCopy && self.dev.driver.as_deref().is_some_and(|d| COARSE.contains(&d));
        if coarse { COARSE_STEP } else { 1 }
    }

    /// The largest MTU whose frames are received in one buffer, behind the offsets that are reserved.
    pub(super) fn mtu_that_fits(&self) -> u32 {
        let geometry = match self.mode {
            Mode::ZeroCopy => self.geometry.with(Chunks::Aligned).behind(0),
            Mode::Native | Mode::Generic => self.geometry,
        };
        let limit = geometry.rx_limit();
        (limit - limit % self.step()).min(geometry.stride() - self.reserve) - HEADERS
    }

    /// The largest offset of packets behind which everything fits that a buffer receives, as far as the MTU tells.
    pub fn room_for_offsets(&self) -> u32 {
        let limit = self.geometry.rx_limit();
        // What is longer comes in pieces, or not at all.
        self.geometry.stride() - limit.min(self.dev.mtu + HEADERS)
    }

    /// Refuses receive rings that frames of the interface's MTU do not fit into: the kernel would drop them. What a program
    /// sends is its own choice, and counted if it is too long, so that transmit rings get a line.
    pub(super) fn check_mtu(&self, selection: &Selection) -> Result<(), Failure> {
        let nic = self.nic_part(selection);
        let [tx, rx] = self.rings.slots();
        // Of an interface that is down it is not known yet, unless the kernel has none of them.
        let unknown = !self.queues.values().any(|q| q.socket.bound()) && bpf::kernel_version() >= (6, 6);
        let chains = match settings().whole_frames {
            true => Err("NETMAP_XDP_FRAGS=off allows no chains of them"),
            false if self.multi_buffer || unknown => Ok(()),
            false => Err("this kernel, or the driver, has no chains of them (Linux 6.6)"),
        };
        let (name, mtu) = (&self.dev.name, self.dev.mtu);
        let asked = Asked {
            mtu,
            geometry: self.geometry,
            step: self.step(),
            chains,
            receives: (!nic.rx.is_empty()).then_some(rx),
        };
        let pieces = asked
            .received()
            .map_err(|Misfit { why, fits }| Failure::mtu_too_large(name, mtu, &why, fits, &asked.cures()))?;
        if pieces > 1 && asked.receives.is_some() {
            let one = asked.one();
            log(
                Level::Info,
                format_args!(
                    "{name}: MTU {mtu} is above {}: frames of more than {one} bytes arrive as NS_MOREFRAG chains",
                    one - HEADERS
                ),
            );
        }
        let most = if chains.is_ok() { MAX_CHAIN.min(tx - 1) * self.geometry.stride() } else { self.geometry.stride() };
        if !nic.tx.is_empty() && mtu + HEADERS > most {
            log(
                Level::Warn,
                format_args!(
                    "{name}: MTU {mtu}: frames of more than {most} bytes cannot be sent, and are counted as dropped"
                ),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(mtu: u32, size: u32, slots: u32) -> Asked {
        let geometry = Geometry::new(Chunks::Unaligned, size).unwrap();
        Asked { mtu, geometry, step: 1, chains: Ok(()), receives: Some(slots) }
    }

    fn alone(mtu: u32, size: u32) -> Asked {
        Asked { chains: Err("no chains"), ..asked(mtu, size, 1024) }
    }

    #[test]
    fn what_fits_one_buffer_needs_no_chains() {
        for (mtu, size) in [(1500, 2048), (2030, 2048), (3822, 4096)] {
            assert_eq!(alone(mtu, size).received(), Ok(1));
            let misfit = alone(mtu + 1, size).received();
            assert_eq!(misfit.is_ok(), mtu == 1500, "{mtu}");
        }
        let Misfit { why, fits } = alone(9000, 2048).received().unwrap_err();
        assert_eq!(fits, 2030);
        assert!(["9018", "2048", "no chains"].iter().all(|word| why.contains(word)), "{why}");
        assert_eq!(alone(9000, 4096).received().unwrap_err().fits, 3822);
    }

    #[test]
    fn a_card_that_is_told_in_steps_fills_no_more_than_whole_ones() {
        for (size, fits) in [(2048, 1024 - 18), (4096, 3072 - 18)] {
            let geometry = Geometry::new(Chunks::Aligned, size).unwrap();
            let card = |mtu| Asked { geometry, step: COARSE_STEP, ..alone(mtu, size) };
            assert_eq!(card(fits).received(), Ok(1));
            assert_eq!(card(fits + 1).received().unwrap_err().fits, fits);
        }
    }

    #[test]
    fn chains_fit_as_far_as_the_ring_has_slots() {
        assert_eq!(asked(9000, 2048, 1024).received(), Ok(5));
        assert_eq!(asked(9000, 4096, 1024).received(), Ok(3));
        assert_eq!(asked(65535, 2048, 34).received(), Ok(33));
        let Misfit { why, fits } = asked(65535, 2048, 16).received().unwrap_err();
        assert_eq!(fits, 15 * 2048 - 18);
        assert!(["65553", "33 buffers", "16 slots", "15"].iter().all(|word| why.contains(word)), "{why}");
        assert_eq!(asked(fits, 2048, 16).received(), Ok(15));
    }

    #[test]
    fn a_program_that_receives_nothing_is_not_asked() {
        assert_eq!(Asked { receives: None, ..alone(9000, 2048) }.received(), Ok(5));
    }

    #[test]
    fn larger_buffers_are_recommended_where_they_help() {
        assert!(alone(3000, 2048).cures().contains("NETMAP_XDP_BUF_SIZE=4096"));
        assert!(!alone(9000, 2048).cures().contains("BUF_SIZE"));
        assert!(!alone(9000, 4096).cures().contains("BUF_SIZE"));
        assert!(asked(65535, 2048, 20).cures().contains("BUF_SIZE=4096 or more slots"));
    }
}
