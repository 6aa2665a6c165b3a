//! The targets as ordinary tests: on the seeds, and on changes of them that are the same each time.

use netmap_xdp_fuzz::{TARGETS, use_library};
use netmap_xdp_tests::cdylib;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Changes of seeds, each of several bytes; fewer if that takes too long, but not much fewer.
const ROUNDS: u64 = 4000;
const LEAST: u64 = 100;
const LONG: Duration = Duration::from_secs(5);

/// Marsaglia's xorshift, 64 bits.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&dir).expect("seeds").map(|e| e.expect("a seed").path()).collect();
    files.sort();
    let seeds: Vec<_> = files.iter().map(|f| std::fs::read(f).expect("a seed")).collect();
    assert!(!seeds.is_empty(), "no seeds in {}", dir.display());
    seeds
}

fn changed(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next() as u8),
            2 => {
                let other = &seeds[random.below(seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len())..]);
            }
            3 if !bytes.is_empty() => bytes[at] = 0xff,
            4 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            _ if !bytes.is_empty() => bytes[at] = random.next() as u8,
            _ => {}
        }
    }
    bytes
}

fn replay(target: &str) {
    let (_, run) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let seeds = seeds(target);
    seeds.iter().for_each(|seed| run(seed));
    let (mut random, start) = (Random(0x9e37_79b9_7f4a_7c15), Instant::now());
    for round in 0..ROUNDS {
        if round >= LEAST && start.elapsed() > LONG {
            break;
        }
        let bytes = changed(&mut random, &seeds);
        if std::panic::catch_unwind(|| run(&bytes)).is_err() {
            panic!("{target} fails with {bytes:?}");
        }
    }
}

#[test]
fn requests_of_any_kind_get_an_answer() {
    replay("request");
}

#[test]
fn both_parsers_of_names_agree() {
    use_library(&cdylib());
    replay("names");
}

#[test]
fn messages_are_written_as_they_were_read() {
    replay("wire");
}

#[test]
fn clients_that_are_gone_leave_nothing() {
    replay("daemon");
}

#[test]
fn programs_that_closed_everything_leave_nothing() {
    replay("calls");
}
