//! Every buffer is in one place, whatever programs do to their rings and however they end.

use super::*;
use crate::ctl::{Register, Spec};
use crate::engine::Grant;
use crate::port::vale::lease;
use crate::ring::IfHeader;
use crate::shm::Patience;
use crate::xsk;

fn engine() -> Engine {
    Engine::new(xsk::embedded(), None)
}

fn open(engine: &mut Engine, name: &str, extra_bufs: u32) -> Grant {
    let register = Register { extra_bufs, ..Spec::parse(name).unwrap().register() };
    engine.register(&register).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn account(engine: &mut Engine, id: u16) -> RegionStatus {
    let all = engine.status(Part { from: 0, accounts: true }, &|_| true);
    let told = all.regions.into_iter().find(|r| r.id == id).expect("a region of this id");
    let sum = told.free + told.slots + told.kernel + told.spare + told.extra + told.private + told.missing;
    assert_eq!(sum, told.buffers, "{told:?}");
    told
}

/// The rings of a port, transmit rings first.
fn rings(engine: &Engine, grant: &Grant) -> Vec<Kring> {
    let key = &engine.grants[&grant.id].port;
    let view = engine.ports.view(key).unwrap();
    view.rings.krings(&engine.regions[&grant.reply.mem_id])
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn buffers_of_all_kinds_of_ports_add_up_and_come_back() {
    let mut e = engine();
    let keeper = open(&mut e, "netmap:keep{1@conf:slots=64", 0);
    let id = keeper.reply.mem_id;
    let before = account(&mut e, id);
    assert_eq!((before.slots, before.missing, before.twice), (128, 0, 0));
    let more =
        [("netmap:keep{2@conf:slots=32", 10), ("netmap:keep}2", 0), ("netmap:keep{2/z", 0), ("netmap:keep}2/r", 0)];
    let grants: Vec<Grant> = more.iter().map(|(name, extra)| open(&mut e, name, *extra)).collect();
    let told = account(&mut e, id);
    assert_eq!((told.extra, told.missing, told.twice), (10, 0, 0));
    let all = e.status(Part { from: 0, accounts: true }, &|_| true);
    assert_eq!(all.ports.len(), 5);
    let own = all.regions.iter().find(|r| !r.owner.is_empty()).expect("a copy monitor has a region");
    assert_eq!((own.free + own.slots, own.missing, own.twice), (own.buffers, 0, 0));
    let kinds: Vec<String> = all.ports.iter().map(|p| p.kind.to_string()).collect();
    assert_eq!(kinds.iter().filter(|k| *k == "monitor").count(), 2);
    assert!(all.ports.iter().all(|p| p.grants.len() == 1), "{all:?}");
    grants.iter().for_each(|g| e.release(g.id));
    assert_eq!(account(&mut e, id), before);
    e.release(keeper.id);
    assert_eq!(e.status(Part::default(), &|_| true), Status::default());
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn what_a_program_wrote_over_is_named_and_comes_back_with_its_port() {
    let mut e = engine();
    let keeper = open(&mut e, "netmap:keep{1@conf:slots=16", 0);
    let id = keeper.reply.mem_id;
    let before = account(&mut e, id);
    let grant = open(&mut e, "netmap:keep{2@conf:slots=16", 0);
    let ring = &rings(&e, &grant)[0];
    let (lost, doubled) = (ring.slot(3).buf_idx.load(Relaxed), ring.slot(4).buf_idx.load(Relaxed));
    ring.slot(3).buf_idx.store(doubled, Relaxed);
    let told = account(&mut e, id);
    assert_eq!((told.missing, told.twice, told.examples), (1, 1, vec![lost, doubled]));
    e.release(grant.id);
    assert_eq!(account(&mut e, id), before);
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn a_buffer_in_hand_at_death_comes_back_unless_others_have_some_in_hand() {
    let mut e = engine();
    let keeper = open(&mut e, "netmap:keep{1@conf:slots=16", 3);
    let dying = open(&mut e, "netmap:keep{2@conf:slots=16", 7);
    let take_all = |e: &Engine, g: &Grant| {
        let head = e.regions[&g.reply.mem_id].memory().object::<IfHeader>(g.reply.offset).unwrap();
        head.ni_bufs_head.store(0, Relaxed);
    };
    let id = keeper.reply.mem_id;
    take_all(&e, &dying);
    assert_eq!(account(&mut e, id).private, 7);
    // Dies in the middle of an exchange between its ring and one that stays.
    let (theirs, its) = (rings(&e, &keeper), rings(&e, &dying));
    its[0].slot(1).buf_idx.store(theirs[0].slot(1).buf_idx.load(Relaxed), Relaxed);
    take_all(&e, &keeper);
    let free = account(&mut e, id).free;
    e.release(dying.id);
    let told = account(&mut e, id);
    // Fifteen of its ring and as many of its other one; one more and its seven may be the keeper's by now.
    assert_eq!((told.private, told.free), (3, free + 31));
    assert_eq!((told.missing, told.twice), (8, 0));
    e.release(keeper.id);
    assert!(e.regions.is_empty());

    // The same, and nobody else has any in hand.
    let keeper = open(&mut e, "netmap:keep{1@conf:slots=16", 0);
    let id = keeper.reply.mem_id;
    let before = account(&mut e, id);
    let dying = open(&mut e, "netmap:keep{2@conf:slots=16", 7);
    take_all(&e, &dying);
    rings(&e, &dying)[1].slot(1).buf_idx.store(0, Relaxed);
    e.release(dying.id);
    assert_eq!(account(&mut e, id), before);
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn buffers_of_a_port_that_a_dead_sender_was_filling_come_back_when_it_is_buried() {
    const SENDER: u32 = 5;
    let mut e = engine();
    let keeper = open(&mut e, "vale0:keep", 0);
    let id = keeper.reply.mem_id;
    let before = account(&mut e, id);
    let name = format!("vale0:r@{id}");
    let going = open(&mut e, &name, 0);
    let ring = rings(&e, &going).into_iter().find(|k| k.dir() == Dir::Rx).unwrap();
    lease::reserve(&ring, 3, 3, SENDER, &Patience::none()).unwrap();
    let start = std::time::Instant::now();
    e.release(going.id);
    assert!(start.elapsed().as_millis() < 900, "nobody waits for a sender");
    assert!(e.unsettled());
    let told = account(&mut e, id);
    assert_eq!((told.missing, told.twice), (0, 0));
    assert!(told.free < before.free, "somebody may still write there");
    e.abandon(SENDER);
    assert!(!e.unsettled());
    assert_eq!(account(&mut e, id), before);
    // The name is free, and the port that comes next has rings of its own.
    open(&mut e, &name, 0);
    assert_eq!(account(&mut e, id).missing, 0);
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn a_long_answer_comes_in_parts() {
    let mut e = engine();
    let port = |i| format!("vale{}:p{i}@conf:rings=16,slots=2", i % 2);
    let _ports: Vec<Grant> = (0..150).map(|i| open(&mut e, &port(i), 0)).collect();
    let (mut seen, mut from, mut parts) = (Vec::new(), Some(0), 0);
    while let Some(at) = from {
        let part = e.status(Part { from: at, accounts: false }, &|_| true);
        seen.extend(part.ports.into_iter().map(|p| p.name));
        (from, parts) = (part.next, parts + 1);
    }
    let mut once = seen.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!((seen.len(), once.len(), parts), (150, 150, 2));
}
