//! Test frames that describe themselves, shared with the C examples, and the verifier of what arrives.
//!
//! | byte | what |
//! |---|---|
//! | 0 | destination MAC ff:ff:ff:ff:ff:ff, source MAC 02:00:00:00:00:01 |
//! | 12 | ethertype 0x88b5 (IEEE: local experiments) |
//! | 14 | magic, u32 big endian: 0x4e4d5844 |
//! | 18 | sequence number, u64 big endian, from 0 |
//! | 26 | length of the frame, u16 big endian |
//! | 28 on | byte `i` of the frame is `seq * 31 + i * 7 + (seq >> 8)`, its low eight bits |

use std::collections::BTreeMap;

/// The header; no test frame is shorter.
pub const HEADER: usize = 28;
/// Longest frame whose length fits the header field.
pub const LONGEST: usize = 65535;
/// A NIC pads shorter frames to this length.
const ETHER_MIN: usize = 60;
/// A jump over so many frames is a damaged sequence number, not a loss: the pattern repeats after 2^16 and so cannot tell.
const MOST_LOST: u64 = 1 << 32;
/// Gaps that are remembered to tell a late frame from a repeated one.
const MOST_GAPS: usize = 1 << 16;

const START: [u8; 18] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5, 0x4e, 0x4d, 0x58, 0x44];

/// First pattern byte of a frame; each next one is 7 more.
fn first_byte(seq: u64) -> u8 {
    (seq.wrapping_mul(31).wrapping_add(seq >> 8) as u8).wrapping_add((HEADER as u8).wrapping_mul(7))
}

fn pattern(seq: u64) -> impl Iterator<Item = u8> {
    let first = first_byte(seq);
    (0..=255u8).cycle().map(move |i| first.wrapping_add(i.wrapping_mul(7)))
}

/// Writes the test frame `seq` over all of `frame`, which has `HEADER..=LONGEST` bytes.
pub fn fill(frame: &mut [u8], seq: u64) {
    let len = frame.len() as u16;
    frame[..18].copy_from_slice(&START);
    frame[18..26].copy_from_slice(&seq.to_be_bytes());
    frame[26..28].copy_from_slice(&len.to_be_bytes());
    for (byte, expected) in frame[HEADER..].iter_mut().zip(pattern(seq)) {
        *byte = expected;
    }
}

/// What one received frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Not a test frame.
    Other,
    /// A test frame with wrong bytes or a wrong length; its sequence number may be wrong too.
    Corrupt(u64),
    Good(u64),
}

fn classify(frame: &[u8]) -> Kind {
    // The MAC addresses do not decide: a bridge or a responder may have changed them.
    if frame.len() < 18 || frame[12..18] != START[12..18] {
        return Kind::Other;
    }
    let Some(header) = frame.get(18..HEADER) else { return Kind::Corrupt(u64::MAX) };
    let seq = u64::from_be_bytes(std::array::from_fn(|i| header[i]));
    let len = usize::from(u16::from_be_bytes([header[8], header[9]]));
    let length_fits = frame.len() == len || (len < ETHER_MIN && frame.len() == ETHER_MIN);
    if len < HEADER || !length_fits || frame[..12] != START[..12] {
        return Kind::Corrupt(seq);
    }
    let same = frame[HEADER..len].iter().zip(pattern(seq)).all(|(&got, expected)| got == expected);
    if same { Kind::Good(seq) } else { Kind::Corrupt(seq) }
}

/// Counts of a verified stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames with the ethertype and the magic.
    pub received: u64,
    /// Sequence numbers that never came.
    pub lost: u64,
    /// Frames that came after a later one, and repeated ones.
    pub reordered: u64,
    /// Frames with a wrong length or a wrong byte.
    pub corrupt: u64,
    /// Frames of other traffic.
    pub other: u64,
}

impl Tally {
    /// True if nothing was lost, reordered or changed.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.reordered == 0 && self.corrupt == 0
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { received, lost, reordered, corrupt, other } = self;
        write!(f, "received={received} lost={lost} reordered={reordered} corrupt={corrupt} other={other}")
    }
}

/// Follows a stream that starts at sequence number 0.
#[derive(Debug, Default)]
pub struct Verifier {
    tally: Tally,
    /// The next sequence number in order.
    next: u64,
    /// Sequence numbers that were jumped over: start -> end, end excluded.
    gaps: BTreeMap<u64, u64>,
    /// A few words on the first fault, for the user.
    first_fault: Option<String>,
}

impl Verifier {
    /// Nothing received yet.
    pub fn new() -> Verifier {
        Verifier::default()
    }

    /// Takes the next frame as it arrived; true if it is one of the stream's, good or not.
    pub fn take(&mut self, frame: &[u8]) -> bool {
        let kind = match classify(frame) {
            Kind::Good(seq) if seq > self.next && seq - self.next > MOST_LOST => Kind::Corrupt(seq),
            kind => kind,
        };
        match kind {
            Kind::Other => {
                self.tally.other += 1;
                return false;
            }
            Kind::Corrupt(seq) => {
                self.tally.corrupt += 1;
                self.fault(|| format!("frame of {} bytes, sequence {seq}, has a wrong byte or length", frame.len()));
                // Take its number as seen if it is the expected one, so that it does not count as lost too.
                if seq == self.next {
                    self.next = self.next.saturating_add(1);
                }
            }
            Kind::Good(seq) if seq == self.next => self.next = self.next.saturating_add(1),
            Kind::Good(seq) if seq > self.next => {
                let next = self.next;
                self.fault(|| format!("sequence {seq} came when {next} was due"));
                self.tally.lost = self.tally.lost.saturating_add(seq - next);
                self.remember(next, seq);
                self.next = seq.saturating_add(1);
            }
            Kind::Good(seq) => {
                let next = self.next;
                self.fault(|| format!("sequence {seq} came when {next} was due"));
                self.tally.reordered += 1;
                if self.fill_gap(seq) {
                    self.tally.lost -= 1;
                }
            }
        }
        self.tally.received += 1;
        true
    }

    /// A frame that the ring could not deliver whole.
    pub fn take_broken(&mut self) {
        self.tally.received += 1;
        self.tally.corrupt += 1;
        self.fault(|| "a chain of fragments has no end".into());
    }

    /// Takes `seq` out of the gaps; false if it was in none.
    fn fill_gap(&mut self, seq: u64) -> bool {
        let Some((&start, &end)) = self.gaps.range(..=seq).next_back().filter(|&(_, &end)| seq < end) else {
            return false;
        };
        self.gaps.remove(&start);
        if start < seq {
            self.remember(start, seq);
        }
        if seq + 1 < end {
            self.remember(seq + 1, end);
        }
        true
    }

    /// Notes that `start..end` is missing, and forgets the oldest gap if there are too many.
    fn remember(&mut self, start: u64, end: u64) {
        if self.gaps.len() >= MOST_GAPS {
            self.gaps.pop_first();
        }
        self.gaps.insert(start, end);
    }

    fn fault(&mut self, words: impl FnOnce() -> String) {
        if self.first_fault.is_none() {
            self.first_fault = Some(words());
        }
    }

    /// The first thing that was wrong.
    pub fn first_fault(&self) -> Option<&str> {
        self.first_fault.as_deref()
    }

    /// Frames of the stream so far.
    pub fn received(&self) -> u64 {
        self.tally.received
    }

    /// The counts. If the sender is known to have sent `all` frames and to be done, what is missing at the end is lost
    /// as well.
    pub fn tally(&self, all: Option<u64>) -> Tally {
        let missing = all.unwrap_or(0).saturating_sub(self.next);
        Tally { lost: self.tally.lost.saturating_add(missing), ..self.tally }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizes::Sizes;

    fn frame(seq: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        fill(&mut bytes, seq);
        bytes
    }

    fn run(seqs: impl IntoIterator<Item = u64>) -> Tally {
        let mut v = Verifier::new();
        for seq in seqs {
            v.take(&frame(seq, 64));
        }
        v.tally(None)
    }

    #[test]
    fn frames_have_the_agreed_layout() {
        let f = frame(0x0102_0304_0506_0708, 300);
        assert_eq!(f[..14], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
        assert_eq!(f[14..18], [0x4e, 0x4d, 0x58, 0x44]);
        assert_eq!(f[18..26], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(f[26..28], [1, 44]);
        let seq = 0x0102_0304_0506_0708u64;
        for (i, &byte) in f.iter().enumerate().skip(HEADER) {
            let expected = seq.wrapping_mul(31).wrapping_add(i as u64 * 7).wrapping_add(seq >> 8) as u8;
            assert_eq!(byte, expected, "byte {i}");
        }
    }

    #[test]
    fn a_good_stream_of_mixed_sizes_is_clean() {
        let sizes = Sizes { min: 60, max: 1514 };
        let mut v = Verifier::new();
        for seq in 0..3000 {
            assert!(v.take(&frame(seq, sizes.of_sequence(seq))));
        }
        let tally = v.tally(Some(3000));
        assert_eq!(tally, Tally { received: 3000, ..Tally::default() });
        assert!(tally.is_clean());
        assert_eq!(v.first_fault(), None);
        assert_eq!(tally.to_string(), "received=3000 lost=0 reordered=0 corrupt=0 other=0");
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let good = frame(5, 90);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let mut v = Verifier::new();
            (0..5).for_each(|seq| assert!(v.take(&frame(seq, 90))));
            v.take(&bad);
            let tally = v.tally(None);
            assert!(!tally.is_clean() || tally.other == 1, "byte {at}: {tally}");
            // Of the sequence number the pattern tells the low 16 bits, and the range of the rest.
            assert_eq!(tally.corrupt + tally.other, u64::from(!matches!(at, 22 | 23)), "byte {at}: {tally}");
        }
    }

    #[test]
    fn wrong_lengths_are_corrupt_but_padding_of_short_frames_is_not() {
        let mut v = Verifier::new();
        v.take(&frame(0, 100)[..99]);
        v.take(&[frame(1, 100), vec![0]].concat());
        v.take(&frame(2, 64)[..20]);
        assert_eq!(v.tally(None).corrupt, 3);
        let mut short = frame(0, 40);
        short.resize(60, 0);
        let mut v = Verifier::new();
        v.take(&short);
        assert!(v.tally(None).is_clean());
        short.push(0);
        v.take(&short);
        assert_eq!(v.tally(None).corrupt, 1);
    }

    #[test]
    fn other_traffic_is_counted_apart() {
        let mut v = Verifier::new();
        for other in [&[][..], &[0; 13], &[0; 60], &frame(0, 60)[..17]] {
            assert!(!v.take(other));
        }
        assert_eq!(v.tally(None), Tally { other: 4, ..Tally::default() });
    }

    #[test]
    fn gaps_are_lost() {
        assert_eq!(run([0, 1, 4, 5]), Tally { received: 4, lost: 2, ..Tally::default() });
        assert_eq!(run([3]), Tally { received: 1, lost: 3, ..Tally::default() });
    }

    #[test]
    fn late_frames_are_reordered_and_no_longer_lost() {
        assert_eq!(run([0, 2, 1, 3]), Tally { received: 4, reordered: 1, ..Tally::default() });
        assert_eq!(run([0, 9, 5, 4, 6]), Tally { received: 5, lost: 5, reordered: 3, ..Tally::default() });
        assert_eq!(run([5, 0, 4, 2, 1, 3]), Tally { received: 6, reordered: 5, ..Tally::default() });
    }

    #[test]
    fn repeated_frames_count_as_reordered_and_hide_no_loss() {
        assert_eq!(run([0, 0, 2, 2, 0]), Tally { received: 5, lost: 1, reordered: 3, ..Tally::default() });
    }

    #[test]
    fn a_corrupt_frame_in_its_place_is_not_lost_too() {
        let mut v = Verifier::new();
        v.take(&frame(0, 64));
        let mut bad = frame(1, 64);
        bad[40] ^= 1;
        v.take(&bad);
        v.take(&frame(2, 64));
        assert_eq!(v.tally(Some(3)), Tally { received: 3, corrupt: 1, ..Tally::default() });
        assert!(v.first_fault().unwrap().contains("sequence 1"));
    }

    #[test]
    fn what_is_missing_at_the_end_is_lost_if_the_total_is_known() {
        let mut v = Verifier::new();
        (0..7).for_each(|seq| assert!(v.take(&frame(seq, 64))));
        assert_eq!(v.tally(Some(10)).lost, 3);
        assert_eq!(v.tally(None).lost, 0);
    }

    #[test]
    fn absurd_sequence_numbers_do_no_harm() {
        let mut v = Verifier::new();
        for seq in [u64::MAX, u64::MAX, 0, MOST_LOST - 1] {
            v.take(&frame(seq, 64));
        }
        assert_eq!(v.tally(None).corrupt, 2);
        for i in 1..2 * MOST_GAPS as u64 {
            v.take(&frame(i * 2, 64));
        }
        assert!(v.gaps.len() <= MOST_GAPS);
    }
}
