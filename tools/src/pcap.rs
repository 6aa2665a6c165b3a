//! The first packet of a pcap file, for `-P`.

/// Longest packet taken from a file.
const LONGEST: usize = 65535;
const ETHERNET: u32 = 1;

/// Finds the first packet in the bytes of a pcap file.
pub fn first_packet(file: &[u8]) -> Result<Vec<u8>, String> {
    let word = |at: usize| -> Result<[u8; 4], String> {
        file.get(at..at + 4).map(|b| [b[0], b[1], b[2], b[3]]).ok_or_else(|| "the file ends too early".to_string())
    };
    let read: fn([u8; 4]) -> u32 = match word(0)? {
        // Microseconds or nanoseconds; the order of bytes is the writer's.
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => u32::from_be_bytes,
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => u32::from_le_bytes,
        [0x0a, 0x0d, 0x0d, 0x0a] => return Err("this is pcapng; convert it with `editcap -F pcap IN OUT`".into()),
        _ => return Err("this is not a pcap file".into()),
    };
    let link = read(word(20)?) & 0xffff;
    if link != ETHERNET {
        return Err(format!("its link type is {link}, not Ethernet (1)"));
    }
    // File header: 24 bytes; record header: time, time, captured length, length on the wire.
    let captured = read(word(24 + 8)?) as usize;
    if captured == 0 || captured > LONGEST {
        return Err(format!("its first packet has {captured} bytes"));
    }
    if read(word(24 + 12)?) as usize != captured {
        return Err("its first packet was cut short when it was captured; capture with `-s 0`".into());
    }
    file.get(40..40 + captured).map(<[u8]>::to_vec).ok_or_else(|| "the file ends too early".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(magic: u32, link: u32, captured: u32, wire: u32, big: bool) -> Vec<u8> {
        let words = [magic, 0x0002_0004, 0, 0, 65535, link, 0, 0, captured, wire];
        let mut bytes: Vec<u8> =
            words.iter().flat_map(|w| if big { w.to_be_bytes() } else { w.to_le_bytes() }).collect();
        bytes.extend((0..captured).map(|i| i as u8));
        bytes
    }

    #[test]
    fn both_byte_orders_and_resolutions_are_read() {
        for magic in [0xa1b2_c3d4, 0xa1b2_3c4d] {
            for big in [false, true] {
                let packet = first_packet(&file(magic, 1, 60, 60, big)).unwrap();
                assert_eq!(packet, (0..60).collect::<Vec<u8>>());
            }
        }
    }

    #[test]
    fn bad_files_are_named() {
        let good = file(0xa1b2_c3d4, 1, 60, 60, false);
        for cut in 0..good.len() {
            assert!(first_packet(&good[..cut]).is_err());
        }
        assert!(first_packet(&[0x0a, 0x0d, 0x0d, 0x0a]).unwrap_err().contains("editcap"));
        assert!(first_packet(b"not a capture").is_err());
        assert!(first_packet(&file(0xa1b2_c3d4, 101, 60, 60, false)).unwrap_err().contains("101"));
        assert!(first_packet(&file(0xa1b2_c3d4, 1, 60, 1500, false)).unwrap_err().contains("cut short"));
        assert!(first_packet(&file(0xa1b2_c3d4, 1, 0, 0, false)).is_err());
        let mut huge = good;
        huge[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(first_packet(&huge).is_err());
    }
}
