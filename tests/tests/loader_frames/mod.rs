//! Frames for the redirect program, and its answer to them.

use netmap_xdp_tests::Program;

/// What the program of this id answers to a frame: whether it goes to the socket of queue 0.
pub fn redirects(program: u32, frame: &[u8]) -> bool {
    let program = Program::by_id(program).unwrap_or_else(|e| panic!("program {program}: {e}"));
    match program.verdict(frame).unwrap_or_else(|e| panic!("test run of {} bytes: {e}", frame.len())) {
        4 => true,
        2 => false,
        other => panic!("verdict {other}"),
    }
}

/// An Ethernet frame with VLAN tags.
pub fn ether(tags: &[u16], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend([0x81, 0, (tag >> 8) as u8, *tag as u8]);
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet; `offset` is the fragment field, flags and all.
pub fn ipv4(proto: u8, offset: u16, options: usize, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let mut p = vec![0x40 | (header / 4) as u8, 0];
    p.extend(((header + payload.len()) as u16).to_be_bytes());
    p.extend([0, 0]);
    p.extend(offset.to_be_bytes());
    p.extend([64, proto, 0, 0, 10, 1, 2, 3, 10, 9, 8, 7]);
    p.extend(vec![0; options]);
    p.extend(payload);
    p
}

/// An IPv6 packet with extension headers, each with its number and its bytes from the third on.
pub fn ipv6(extensions: &[(u8, Vec<u8>)], proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    let next = |i: usize| extensions.get(i).map_or(proto, |e| e.0);
    for (i, (kind, body)) in extensions.iter().enumerate() {
        let len = body.len() + 2;
        rest.extend([next(i + 1), if *kind == 51 { len / 4 - 2 } else { len / 8 - 1 } as u8]);
        rest.extend(body);
    }
    rest.extend(payload);
    let mut p = vec![0x60, 0, 0, 0];
    p.extend((rest.len() as u16).to_be_bytes());
    p.extend([next(0), 64]);
    p.extend("2001:db8:1::5".parse::<std::net::Ipv6Addr>().unwrap().octets());
    p.extend("2001:db8:2::6".parse::<std::net::Ipv6Addr>().unwrap().octets());
    p.extend(rest);
    p
}

/// Ports, and some bytes after them.
pub fn ports(src: u16, dst: u16) -> Vec<u8> {
    [&src.to_be_bytes()[..], &dst.to_be_bytes(), &[0; 16]].concat()
}
