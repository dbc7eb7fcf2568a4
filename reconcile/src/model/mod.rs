//! Whatever Glance, admins and clocks do, in whatever order, and wherever the reclaimer is killed: nothing that anybody
//! needs is purged, or left in the trash by it.
//!
//! The world is a model, of Ceph's and Glance's side; every decision in it is the real one: [`classify`](crate::classify),
//! [`plan`](crate::plan()), and the looks before and after a step.

mod reclaimer;
mod world;

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use self::{
    reclaimer::{Careless, GRACE, Reclaimer},
    world::{NAMES, World},
};

#[derive(Debug, Clone)]
enum Event {
    Create(usize),
    Upload(usize),
    /// A server's snapshot: an image that nobody has open while it is made.
    Snapshot(usize, usize),
    Finish(usize),
    Register(usize),
    Die(usize),
    Delete(usize),
    PurgeRow(usize),
    Boot(usize),
    CloneByHand(usize),
    EndServer,
    LoseSnapshot(usize),
    Adopt(usize, usize),
    BackUp,
    RestoreBackup,
    TrashByHand(usize, bool),
    RestoreByHand(u64),
    Wait(i64),
    Reclaim(usize),
    Crash,
    Undo,
}

fn event() -> impl Strategy<Value = Event> {
    let name = || 0..NAMES;
    prop_oneof![
        6 => name().prop_map(Event::Create),
        6 => name().prop_map(Event::Upload),
        2 => (name(), name()).prop_map(|(a, b)| Event::Snapshot(a, b)),
        5 => name().prop_map(Event::Finish),
        4 => name().prop_map(Event::Register),
        3 => name().prop_map(Event::Die),
        4 => name().prop_map(Event::Delete),
        2 => name().prop_map(Event::PurgeRow),
        2 => name().prop_map(Event::Boot),
        2 => name().prop_map(Event::CloneByHand),
        2 => Just(Event::EndServer),
        1 => name().prop_map(Event::LoseSnapshot),
        2 => (name(), name()).prop_map(|(a, b)| Event::Adopt(a, b)),
        1 => Just(Event::BackUp),
        1 => Just(Event::RestoreBackup),
        1 => (name(), any::<bool>()).prop_map(|(name, keep)| Event::TrashByHand(name, keep)),
        1 => (1..20_u64).prop_map(Event::RestoreByHand),
        6 => prop::sample::select(vec![1, 60, 600, GRACE, 2 * GRACE, 3 * GRACE]).prop_map(Event::Wait),
        20 => (1..10_usize).prop_map(Event::Reclaim),
        2 => Just(Event::Crash),
        1 => Just(Event::Undo),
    ]
}

/// A cloud: clocks that are minutes apart, a database that may be read from a replica that lags, and what happens.
fn cloud() -> impl Strategy<Value = ([i64; 3], i64, Vec<Event>)> {
    let skew = -120..120_i64;
    let lag = prop::sample::select(vec![0, 0, 0, 1, 600, 3 * GRACE, 1_000_000]);
    ([skew.clone(), skew.clone(), skew], lag, prop::collection::vec(event(), 20..150))
}

fn run(skew: [i64; 3], lag: i64, events: &[Event], careless: Careless, did: &mut [u64; 2]) -> Result<(), String> {
    let mut world = World::new(skew, lag);
    let mut reclaimer = Reclaimer::new(careless);
    for event in events {
        match *event {
            Event::Create(name) => world.create(name),
            Event::Upload(name) => world.upload(name, None),
            Event::Snapshot(name, parent) => world.upload(name, Some(parent)),
            Event::Finish(name) => world.finish(name),
            Event::Register(name) => world.register(name),
            Event::Die(name) => world.die(name),
            Event::Delete(name) => world.delete(name),
            Event::PurgeRow(name) => world.purge_row(name),
            Event::Boot(name) => world.boot(name),
            Event::CloneByHand(name) => world.clone_by_hand(name),
            Event::EndServer => world.end_server(),
            Event::LoseSnapshot(name) => world.lose_snapshot(name),
            Event::Adopt(owner, image) => world.adopt(owner, image),
            Event::BackUp => world.back_up(),
            Event::RestoreBackup => world.restore_backup(),
            Event::TrashByHand(name, keep) => world.trash_by_hand(name, if keep { GRACE } else { 0 }),
            Event::RestoreByHand(id) => {
                world.restore(id);
            }
            Event::Wait(seconds) => world.wait(seconds),
            Event::Reclaim(times) => {
                for _ in 0..times {
                    reclaimer.go_on(&mut world)?;
                }
            }
            Event::Crash => reclaimer.crash(),
            Event::Undo => reclaimer.undo(&mut world)?,
        }
        world.wait(1);
    }
    // When all is quiet again, what anybody needs is where it belongs.
    reclaimer.settle(&mut world)?;
    world.lag = 0;
    for _ in 0..2 {
        world.wait(1);
        reclaimer.round(&mut world)?;
    }
    for (id, disk) in &world.disks {
        let needs = world.needed(*id).filter(|_| disk.trash.is_some());
        let free = world.in_place(disk.name).is_none_or(|other| other == *id);
        if let Some(needs) = needs.filter(|needs| free && *needs == "a location") {
            return Err(format!("{id} stays in the trash, and {needs} needs it"));
        }
    }
    *did = [did[0] + reclaimer.trashed, did[1] + reclaimer.purged];
    Ok(())
}

/// Many clouds from one seed, until one loses something.
fn many(cases: u32, careless: Careless) -> (u64, Result<[u64; 2], String>) {
    let seed: u64 = std::env::var("GLANCE_RBD_SEED")
        .map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().expect("GLANCE_RBD_SEED is a number"));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 5_000, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let did = Cell::new([0; 2]);
    let result = runner.run(&cloud(), |(skew, lag, events)| {
        let mut now = did.get();
        let outcome = run(skew, lag, &events, careless, &mut now);
        did.set(now);
        outcome.map_err(TestCaseError::fail)
    });
    (seed, result.map(|()| did.get()).map_err(|error| error.to_string()))
}

#[test]
fn nothing_that_anybody_needs_is_purged_or_left_in_the_trash() {
    let cases = if std::env::var_os("GLANCE_RBD_LONG").is_some() { 20_000 } else { 500 };
    let (seed, result) = many(cases, Careless::No);
    println!("{cases} cases; GLANCE_RBD_SEED={seed} repeats them");
    let [trashed, purged] = result.unwrap_or_else(|error| panic!("GLANCE_RBD_SEED={seed}: {error}"));
    println!("{trashed} images were moved to the trash, {purged} purged");
    assert!(trashed > u64::from(cases) / 5 && purged > u64::from(cases) / 50, "one that does nothing is safe too");
}

/// A model that never finds anything proves nothing: each look that is left out loses something in some cloud.
#[test]
fn a_careless_reclaimer_is_caught() {
    for careless in [Careless::Before, Careless::Users, Careless::Owners] {
        let (seed, result) = many(5_000, careless);
        let found = result.expect_err("it lost nothing");
        println!(
            "without the look {careless:?} (GLANCE_RBD_SEED={seed}): {}",
            found.lines().next().unwrap_or_default()
        );
    }
}
