//! What the sender sends: the frame of the moment, and how it goes on.

use crate::addr::Flows;
use crate::frame::UdpFrame;
use crate::pattern;
use crate::sizes::{Rng, Sizes};

/// Most slots that one packet may take (NETMAP_MAX_FRAGS).
pub const MOST_FRAGMENTS: usize = 64;

/// A stream of frames.
pub enum Source {
    /// The same bytes for ever: a packet from a file.
    Fixed(Vec<u8>),
    /// UDP frames whose addresses and lengths may change.
    Udp {
        /// The present frame.
        frame: Box<UdpFrame>,
        /// Its addresses and those of the next ones.
        flows: Flows,
        /// Lengths to draw from.
        sizes: Sizes,
        /// Behind random lengths and addresses.
        rng: Rng,
    },
    /// Test frames for `rx --verify`.
    Pattern {
        /// Sequence number of the present frame.
        seq: u64,
        /// Lengths, by sequence number.
        sizes: Sizes,
        /// Room for the longest frame; the present one is at its start.
        bytes: Vec<u8>,
    },
    /// Whatever the buffers hold; only lengths are given.
    Rubbish {
        /// Lengths to draw from.
        sizes: Sizes,
        /// Length of the present frame.
        len: usize,
        /// Behind random lengths.
        rng: Rng,
    },
}

impl Source {
    /// UDP frames.
    pub fn udp(mut frame: UdpFrame, flows: Flows, sizes: Sizes, mut rng: Rng) -> Source {
        frame.set_len(sizes.random(&mut rng));
        Source::Udp { frame: Box::new(frame), flows, sizes, rng }
    }

    /// Test frames from sequence number 0 on.
    pub fn pattern(sizes: Sizes) -> Source {
        let mut bytes = vec![0; sizes.max];
        pattern::fill(&mut bytes[..sizes.of_sequence(0)], 0);
        Source::Pattern { seq: 0, sizes, bytes }
    }

    /// Frames of unset contents.
    pub fn rubbish(sizes: Sizes, mut rng: Rng) -> Source {
        Source::Rubbish { sizes, len: sizes.random(&mut rng), rng }
    }

    /// True if all frames are the same, so that a slot that was filled once can be sent again as it is.
    pub fn is_constant(&self) -> bool {
        match self {
            Source::Fixed(_) | Source::Rubbish { .. } => true,
            Source::Udp { flows, sizes, .. } => flows.is_constant() && sizes.is_fixed(),
            Source::Pattern { .. } => false,
        }
    }

    /// Length of the present frame.
    pub fn frame_len(&self) -> usize {
        match self {
            Source::Fixed(bytes) => bytes.len(),
            Source::Udp { frame, .. } => frame.bytes().len(),
            Source::Pattern { seq, sizes, .. } => sizes.of_sequence(*seq),
            Source::Rubbish { len, .. } => *len,
        }
    }

    /// Bytes of the present frame; None if whatever the buffer holds is to be sent.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Source::Fixed(bytes) => Some(bytes),
            Source::Udp { frame, .. } => Some(frame.bytes()),
            Source::Pattern { bytes, .. } => Some(&bytes[..self.frame_len()]),
            Source::Rubbish { .. } => None,
        }
    }

    /// Goes to the next frame.
    pub fn advance(&mut self) {
        match self {
            Source::Fixed(_) => {}
            Source::Udp { frame, flows, sizes, rng } => {
                if !flows.is_constant() {
                    flows.advance(rng);
                    frame.set_flow(flows.current());
                }
                if !sizes.is_fixed() {
                    frame.set_len(sizes.random(rng));
                }
            }
            Source::Pattern { seq, sizes, bytes } => {
                *seq += 1;
                pattern::fill(&mut bytes[..sizes.of_sequence(*seq)], *seq);
            }
            Source::Rubbish { sizes, len, rng } => *len = sizes.random(rng),
        }
    }
}

/// How one frame is cut into slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Number of slots.
    pub slots: usize,
    /// Bytes in each slot but the last, which holds the rest.
    pub size: usize,
}

/// What the user and the port say about fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragments {
    /// Slots that each packet should take (`-F`).
    pub count: usize,
    /// Most bytes in one slot: `-M` or the size of a buffer, whichever is less.
    pub most: usize,
}

impl Fragments {
    /// The cut of a frame of `len` bytes: into as many equal parts as were asked for, more if those are too large, fewer
    /// if there are not enough bytes.
    pub fn cut(&self, len: usize) -> Cut {
        let size = len.div_ceil(self.count.max(1)).clamp(1, self.most.max(1));
        Cut { slots: len.div_ceil(size).max(1), size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Range;

    #[test]
    fn frames_are_cut_into_slots() {
        let whole = Fragments { count: 1, most: 2048 };
        assert_eq!(whole.cut(60), Cut { slots: 1, size: 60 });
        assert_eq!(whole.cut(2048), Cut { slots: 1, size: 2048 });
        assert_eq!(whole.cut(2049), Cut { slots: 2, size: 2048 });
        assert_eq!(whole.cut(9014), Cut { slots: 5, size: 2048 });
        assert_eq!(Fragments { count: 3, most: 2048 }.cut(60), Cut { slots: 3, size: 20 });
        assert_eq!(Fragments { count: 3, most: 2048 }.cut(61), Cut { slots: 3, size: 21 });
        assert_eq!(Fragments { count: 63, most: 2048 }.cut(60), Cut { slots: 60, size: 1 });
        assert_eq!(Fragments { count: 1, most: 16 }.cut(60), Cut { slots: 4, size: 16 });
    }

    #[test]
    fn every_cut_covers_the_frame_exactly() {
        for count in 1..=8 {
            for most in [1, 7, 64, 2048] {
                for len in 1..200 {
                    let cut = Fragments { count, most }.cut(len);
                    assert!((cut.slots - 1) * cut.size < len && len <= cut.slots * cut.size);
                }
            }
        }
    }

    #[test]
    fn only_streams_of_equal_frames_are_constant() {
        let one = Range::parse("10.0.0.1").unwrap();
        let udp = |dst: &str, sizes: Sizes| {
            let flows = Flows::new(one, Range::parse(dst).unwrap(), false, false);
            Source::udp(UdpFrame::new([2; 6], [4; 6], flows.current(), sizes.max), flows, sizes, Rng::new(1))
        };
        assert!(udp("10.1.0.1", Sizes::fixed(60)).is_constant());
        assert!(!udp("10.1.0.1:1-2", Sizes::fixed(60)).is_constant());
        assert!(!udp("10.1.0.1", Sizes { min: 60, max: 64 }).is_constant());
        assert!(!Source::pattern(Sizes::fixed(60)).is_constant());
    }

    #[test]
    fn pattern_frames_verify() {
        let mut source = Source::pattern(Sizes { min: 60, max: 300 });
        let mut verifier = pattern::Verifier::new();
        for _ in 0..1000 {
            assert_eq!(source.bytes().unwrap().len(), source.frame_len());
            assert!(verifier.take(source.bytes().unwrap()));
            source.advance();
        }
        assert!(verifier.tally(Some(1000)).is_clean());
    }

    #[test]
    fn random_udp_frames_have_the_announced_length() {
        let one = Range::parse("10.0.0.1").unwrap();
        let flows = Flows::new(one, one, true, true);
        let sizes = Sizes { min: 60, max: 300 };
        let frame = UdpFrame::new([2; 6], [4; 6], flows.current(), sizes.max);
        let mut source = Source::udp(frame, flows, sizes, Rng::new(1));
        for _ in 0..1000 {
            assert!((60..=300).contains(&source.frame_len()));
            assert_eq!(source.bytes().unwrap().len(), source.frame_len());
            source.advance();
        }
    }
}
