//! Scans in the midst of a stock Glance's work: nothing that lives, comes or goes may be called dead or missing.

use std::{
    collections::HashSet,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::lab::{Glance, MIB, TestPool, Trickle, noise};

/// What would be a lie about an image that lives.
const GRAVE: [&str; 9] = [
    "orphan",
    "orphan-deleted",
    "partial-upload",
    "unregistered",
    "leaked-clone",
    "missing-image",
    "missing-snapshot",
    "trashed-image",
    "unprotected-snapshot",
];

/// What the clients have done.
#[derive(Default)]
struct Images {
    /// Images that somebody uploads or deletes at this moment.
    at_work: HashSet<String>,
    /// Images that are whole, and nobody's at the moment.
    whole: Vec<String>,
    /// Images that something was done to when Glance was killed: they may be in any state.
    dead: HashSet<String>,
}

struct Churn {
    pool: TestPool,
    glance: Glance,
    images: Mutex<Images>,
    /// Operations begun.
    begun: AtomicUsize,
    stop: AtomicBool,
}

/// A sequence without pattern, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

impl Churn {
    /// A client: uploads, clones and deletes, until it is told to stop.
    fn work(&self, mut dice: Dice) {
        while !self.stop.load(Ordering::Relaxed) {
            self.begun.fetch_add(1, Ordering::Relaxed);
            match dice.below(10) {
                0..5 => self.upload(&mut dice),
                5..7 => self.clone(&mut dice),
                _ => self.delete(&mut dice),
            }
        }
    }

    /// While `work` is done, the image is at work; afterwards it is whole if `work` says so.
    fn at_work(&self, id: &str, work: impl FnOnce() -> bool) {
        self.images.lock().unwrap().at_work.insert(id.to_owned());
        let whole = work();
        let mut images = self.images.lock().unwrap();
        images.at_work.remove(id);
        if whole && !images.dead.contains(id) {
            images.whole.push(id.to_owned());
        }
    }

    fn upload(&self, dice: &mut Dice) {
        let Ok(id) = self.glance.try_create() else { return };
        let (seed, size) = (dice.below(1 << 40), dice.below(6 * MIB as u64) as usize);
        let slow = dice.below(4) == 0;
        self.at_work(&id, || {
            if !slow {
                return self.glance.upload(&id, noise(seed, size).as_slice()).is_ok();
            }
            let (trickle, stop) = Trickle::new(seed);
            thread::scope(|scope| {
                scope.spawn(move || {
                    thread::sleep(Duration::from_secs(3));
                    stop.store(true, Ordering::Relaxed);
                });
                self.glance.upload(&id, trickle).is_ok()
            })
        });
    }

    fn take(&self, dice: &mut Dice) -> Option<String> {
        let mut images = self.images.lock().unwrap();
        let count = images.whole.len() as u64;
        (count > 0).then(|| images.whole.swap_remove(dice.below(count) as usize))
    }

    /// As Nova boots a server: a clone of either kind, by the RBD image alone.
    fn clone(&self, dice: &mut Dice) {
        let Some(id) = self.take(dice) else { return };
        let (format, parent) = (["1", "2"][dice.below(2) as usize], format!("{}/{id}@snap", self.pool.0));
        let child = format!("{}/{}_disk", self.pool.0, dice.below(1 << 40));
        let arguments = ["--id", "glance", "clone", "--rbd-default-clone-format", format, &parent, &child];
        assert!(Command::new("rbd").args(arguments).output().unwrap().status.success(), "{id} is whole");
        self.images.lock().unwrap().whole.push(id);
    }

    /// Refused where there are clones of the first kind; into the trash with those of the second.
    fn delete(&self, dice: &mut Dice) {
        let Some(id) = self.take(dice) else { return };
        self.at_work(&id, || self.glance.try_delete(&id).is_err());
    }

    /// Kills Glance in the middle of whatever it does, and starts it again.
    fn kill(&self) {
        // Nothing begins meanwhile: the clients wait for this lock.
        let mut images = self.images.lock().unwrap();
        let dying: Vec<String> = images.at_work.iter().cloned().collect();
        images.dead.extend(dying);
        self.glance.crash();
    }

    /// Findings that say of an image that lives, comes or goes that it does not.
    fn lies(&self, scan: &Value) -> Vec<Value> {
        let images = self.images.lock().unwrap();
        let findings = scan["findings"].as_array().unwrap().iter();
        let grave = findings.filter(|finding| GRAVE.contains(&finding["kind"].as_str().unwrap()));
        let id = |finding: &Value| finding["image"].as_str().unwrap_or_default().to_owned();
        grave.filter(|finding| !images.dead.contains(&id(finding))).cloned().collect()
    }
}

/// Ends the clients, also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn nothing_that_lives_is_called_dead_while_a_glance_works() {
    let long = std::env::var_os("GLANCE_RBD_LONG").is_some();
    let (wanted, scans) = if long { (100, 20) } else { (25, 4) };
    let pool = TestPool::new();
    let churn = Churn {
        glance: Glance::up(&pool),
        pool,
        images: Mutex::default(),
        begun: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    };
    let database = &churn.glance.database;
    thread::scope(|scope| {
        for client in 1..=3 {
            let churn = &churn;
            scope.spawn(move || churn.work(Dice(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(client))));
        }
        let _end = Stop(&churn.stop);
        for scan in 1.. {
            let ran = churn.pool.scan(database);
            assert_eq!(ran.json()["complete"], true, "{ran:?}");
            assert_eq!(churn.lies(&ran.json()), Vec::<Value>::new());
            if scan >= scans && churn.begun.load(Ordering::Relaxed) >= wanted {
                break;
            }
            if scan % 4 == 2 {
                churn.kill();
            }
        }
    });

    // All is quiet; what is left of the dead is told, and nothing of the living.
    let scan = churn.pool.scan(database).json();
    assert_eq!(churn.lies(&scan), Vec::<Value>::new());
    let images = churn.images.lock().unwrap();
    assert!(images.whole.len() + images.dead.len() > 0, "nothing happened");
    for id in &images.whole {
        assert_eq!(churn.glance.show(id)["status"], "active", "{id}");
    }
}
