use crate::abi::*;
use crate::ctl::{Failure, Mode, RingCounts, Selection, interp_ringid};
use crate::sys::Errno;

const COUNTS: RingCounts = RingCounts { tx: 4, rx: 2, host_tx: 1, host_rx: 3 };
const NO_HOST: RingCounts = RingCounts { tx: 4, rx: 2, host_tx: 0, host_rx: 0 };

fn rings(tx: std::ops::Range<u16>, rx: std::ops::Range<u16>) -> Result<Selection, Failure> {
    Ok(Selection { tx, rx })
}

fn errno(result: Result<Selection, Failure>) -> Option<Errno> {
    result.err().map(|failure| failure.errno)
}

#[test]
fn every_mode_has_its_rings() {
    assert_eq!(interp_ringid(Mode::AllNic, 0, 0, COUNTS), rings(0..4, 0..2));
    assert_eq!(interp_ringid(Mode::AllNic, 0, 99, COUNTS), rings(0..4, 0..2), "the ring does not matter");
    assert_eq!(interp_ringid(Mode::Null, 0, 0, COUNTS), rings(0..4, 0..2));
    assert_eq!(interp_ringid(Mode::Sw, 0, 0, COUNTS), rings(4..5, 2..5));
    assert_eq!(interp_ringid(Mode::NicSw, 0, 0, COUNTS), rings(0..5, 0..5));
    assert_eq!(interp_ringid(Mode::OneNic, 0, 1, COUNTS), rings(1..2, 1..2));
    assert_eq!(interp_ringid(Mode::OneSw, 0, 0, COUNTS), rings(4..5, 2..3));
}

#[test]
fn a_direction_with_too_few_rings_gives_its_first() {
    assert_eq!(interp_ringid(Mode::OneNic, 0, 3, COUNTS), rings(3..4, 0..1));
    assert_eq!(interp_ringid(Mode::OneSw, 0, 2, COUNTS), rings(4..5, 4..5));
}

#[test]
fn a_ring_that_neither_direction_has_is_refused() {
    assert_eq!(errno(interp_ringid(Mode::OneNic, 0, 4, COUNTS)), Some(Errno(libc::EINVAL)));
    assert_eq!(errno(interp_ringid(Mode::OneSw, 0, 3, COUNTS)), Some(Errno(libc::EINVAL)));
    assert_eq!(errno(interp_ringid(Mode::OneNic, 0, u16::MAX, COUNTS)), Some(Errno(libc::EINVAL)));
}

#[test]
fn host_modes_need_host_rings() {
    for mode in [Mode::Sw, Mode::NicSw, Mode::OneSw] {
        let failure = interp_ringid(mode, 0, 0, NO_HOST).unwrap_err();
        assert_eq!(failure, Failure::no_host_rings());
    }
}

#[test]
fn an_unknown_mode_is_refused_unless_nothing_is_bound() {
    for raw in [0, 5, 6, 9, u32::MAX] {
        let mode = Mode::from_raw(raw);
        assert_eq!(errno(interp_ringid(mode, 0, 0, COUNTS)), Some(Errno(libc::EINVAL)), "{raw}");
        assert_eq!(errno(interp_ringid(mode, NR_TX_RINGS_ONLY, 0, COUNTS)), Some(Errno(libc::EINVAL)), "{raw}");
        assert_eq!(interp_ringid(mode, NR_TX_RINGS_ONLY | NR_RX_RINGS_ONLY, 0, COUNTS), rings(0..0, 0..0), "{raw}");
    }
}

#[test]
fn an_excluded_direction_is_empty() {
    assert_eq!(interp_ringid(Mode::AllNic, NR_TX_RINGS_ONLY, 0, COUNTS), rings(0..4, 0..0));
    assert_eq!(interp_ringid(Mode::AllNic, NR_RX_RINGS_ONLY, 0, COUNTS), rings(0..0, 0..2));
    assert_eq!(interp_ringid(Mode::Sw, NR_RX_RINGS_ONLY, 0, COUNTS), rings(0..0, 2..5));
    let none = interp_ringid(Mode::AllNic, NR_RX_RINGS_ONLY | NR_TX_RINGS_ONLY, 0, COUNTS).unwrap();
    assert!(none.is_empty());
    assert_eq!(interp_ringid(Mode::NicSw, 0, 0, COUNTS).unwrap().len(), 10);
}

#[test]
fn a_direction_without_rings_is_empty_rather_than_out_of_bounds() {
    let counts = RingCounts { tx: 0, rx: 2, host_tx: 0, host_rx: 1 };
    assert_eq!(interp_ringid(Mode::OneNic, 0, 1, counts), rings(0..0, 1..2));
    assert_eq!(interp_ringid(Mode::OneSw, 0, 0, counts), rings(0..0, 2..3));
}

/// One direction, written down from the manual page: the list of rings that a mode means.
fn model(mode: Mode, ring: u16, counts: RingCounts, tx: bool) -> Option<Vec<u16>> {
    let (nic, host) = if tx { (counts.tx, counts.host_tx) } else { (counts.rx, counts.host_rx) };
    let nics: Vec<u16> = (0..nic).collect();
    let hosts: Vec<u16> = (nic..nic + host).collect();
    let pick = |of: &[u16]| of.get(ring as usize).or(of.first()).copied().into_iter().collect();
    let has_host = counts.host_tx + counts.host_rx > 0;
    match mode {
        Mode::AllNic | Mode::Null => Some(nics),
        Mode::Sw => has_host.then_some(hosts),
        Mode::NicSw => has_host.then(|| [nics, hosts].concat()),
        Mode::OneNic => (ring < counts.tx || ring < counts.rx).then(|| pick(&nics)),
        Mode::OneSw => (ring < counts.host_tx || ring < counts.host_rx).then(|| pick(&hosts)),
        Mode::Invalid(_) => None,
    }
}

#[test]
fn all_small_ports_agree_with_the_model() {
    let mut cases = 0;
    for n in 0..4u16.pow(4) {
        let counts = RingCounts { tx: n & 3, rx: n >> 2 & 3, host_tx: n >> 4 & 3, host_rx: n >> 6 & 3 };
        for raw in 0..=9 {
            for ring in 0..5 {
                for flags in [0, NR_TX_RINGS_ONLY, NR_RX_RINGS_ONLY, NR_TX_RINGS_ONLY | NR_RX_RINGS_ONLY] {
                    let mode = Mode::from_raw(raw);
                    let tx = if flags & NR_RX_RINGS_ONLY != 0 { Some(vec![]) } else { model(mode, ring, counts, true) };
                    let rx =
                        if flags & NR_TX_RINGS_ONLY != 0 { Some(vec![]) } else { model(mode, ring, counts, false) };
                    let expected = tx.zip(rx);
                    let got = interp_ringid(mode, flags | NR_EXCLUSIVE, ring, counts)
                        .map_err(|failure| assert_eq!(failure.errno, Errno(libc::EINVAL)))
                        .ok()
                        .map(|s| (s.tx.collect::<Vec<_>>(), s.rx.collect::<Vec<_>>()));
                    assert_eq!(got, expected, "{mode:?} {flags:#x} {ring} {counts:?}");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 256 * 10 * 5 * 4);
}
