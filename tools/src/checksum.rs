//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// Adds big-endian 16-bit words to `start`; an odd last byte counts as the high half of a word.
///
/// The result is folded, so calls can be chained without overflow.
pub fn sum(start: u32, bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(2);
    let odd = words.remainder().first().map_or(0, |&b| u64::from(b) << 8);
    let total = words.fold(u64::from(start) + odd, |acc, w| acc + u64::from(u16::from_be_bytes([w[0], w[1]])));
    u32::from(fold(total))
}

/// Folds carries until 16 bits are left. A sum that is not zero stays so.
fn fold(mut value: u64) -> u16 {
    while value > 0xffff {
        value = (value & 0xffff) + (value >> 16);
    }
    value as u16
}

/// The checksum field for a sum.
pub fn finish(sum: u32) -> u16 {
    !fold(u64::from(sum))
}

/// The checksum field after one word that it covers changed from `old` to `new` (RFC 1624, equation 3).
pub fn update(check: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!check) + u64::from(!old) + u64::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_ipv4_header_has_its_known_checksum() {
        // The usual textbook header, its checksum field zeroed; the sum is 0xb861.
        let header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(finish(sum(0, &header)), 0xb861);
    }

    #[test]
    fn odd_length_pads_with_zero() {
        assert_eq!(sum(0, &[1, 2, 3]), sum(0, &[1, 2, 3, 0]));
        assert_eq!(sum(0, &[]), 0);
    }

    #[test]
    fn incremental_update_equals_recomputation() {
        let mut bytes: Vec<u8> = (0..40u8).map(|i| i.wrapping_mul(37)).collect();
        let mut check = finish(sum(0, &bytes));
        for step in 0..5000u32 {
            let at = (step as usize * 2) % bytes.len();
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            let new = (step.wrapping_mul(2_654_435_761) >> 16) as u16;
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            check = update(check, old, new);
            assert_eq!(check, finish(sum(0, &bytes)), "step {step}");
        }
    }

    #[test]
    fn update_handles_the_extreme_words() {
        for (old, new) in [(0, 0xffff), (0xffff, 0), (0, 0), (0xffff, 0xffff)] {
            let before = [0x12, 0x34, (old >> 8) as u8, old as u8];
            let after = [0x12, 0x34, (new >> 8) as u8, new as u8];
            assert_eq!(update(finish(sum(0, &before)), old as u16, new as u16), finish(sum(0, &after)));
        }
    }
}
