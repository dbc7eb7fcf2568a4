//! Reclaiming in the midst of a stock Glance's work: clients upload, take snapshots, boot and delete at random while scans,
//! plans and applies follow one another with a grace of seconds. At the end every active image and every clone is whole, and
//! what was planted is gone. Ten minutes with `GLANCE_RBD_LONG`.

use std::{
    collections::HashMap,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::cloud::wait_for;
use crate::lab::{Glance, Ran, TestPool, noise, program, rbd, uuid};

/// What an image holds: seed and length of its noise.
type Data = (u64, usize);

#[derive(Default)]
struct Known {
    /// Images that Glance calls active.
    active: HashMap<String, Data>,
    /// Servers' disks, by pool and name.
    clones: HashMap<String, Data>,
    /// Images that nobody knows.
    planted: Vec<String>,
}

struct Busy {
    pool: TestPool,
    glance: Glance,
    known: Mutex<Known>,
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

/// `rbd`, which may be refused.
fn try_rbd(arguments: &[&str]) -> bool {
    Command::new("rbd").args(["--id", "glance"]).args(arguments).output().unwrap().status.success()
}

impl Busy {
    fn client(&self, mut dice: Dice) {
        while !self.stop.load(Ordering::Relaxed) {
            match dice.below(10) {
                0..4 => self.upload(&mut dice),
                4..6 => self.boot(&mut dice),
                6 => self.snapshot(&mut dice),
                7 => self.plant(&mut dice),
                _ => self.delete(&mut dice),
            }
        }
    }

    fn any(&self, dice: &mut Dice) -> Option<(String, Data)> {
        let known = self.known.lock().unwrap();
        let count = known.active.len() as u64;
        let mut ids: Vec<_> = known.active.iter().collect();
        ids.sort();
        (count > 0).then(|| ids[dice.below(count) as usize]).map(|(id, data)| (id.clone(), *data))
    }

    fn upload(&self, dice: &mut Dice) {
        let data = (dice.below(1 << 40), dice.below(4 << 20) as usize + 1);
        let id = self.glance.create();
        if self.glance.upload(&id, noise(data.0, data.1).as_slice()).is_ok() {
            assert_eq!(self.glance.show(&id)["status"], "active");
            self.known.lock().unwrap().active.insert(id, data);
        }
    }

    /// As Nova boots a server.
    fn boot(&self, dice: &mut Dice) {
        let Some((id, data)) = self.any(dice) else { return };
        let clone = format!("vms/{}_disk", uuid());
        // It may be deleted at this moment.
        if try_rbd(&["clone", &format!("{}/{id}@snap", self.pool.0), &clone]) {
            self.known.lock().unwrap().clones.insert(clone, data);
        }
    }

    /// As Nova takes a snapshot of a server: a clone under the new image's id, flattened, protected, and then registered.
    fn snapshot(&self, dice: &mut Dice) {
        let Some((parent, data)) = self.any(dice) else { return };
        let id = self.glance.create();
        let image = format!("{}/{id}", self.pool.0);
        let taken = try_rbd(&["clone", &format!("{}/{parent}@snap", self.pool.0), &image])
            && try_rbd(&["flatten", "--no-progress", &image])
            && try_rbd(&["snap", "create", "--no-progress", &format!("{image}@snap")])
            && try_rbd(&["snap", "protect", &format!("{image}@snap")]);
        if taken && self.glance.add_location(&id, &self.pool).is_ok() {
            assert_eq!(self.glance.show(&id)["status"], "active");
            self.known.lock().unwrap().active.insert(id, data);
        }
    }

    fn plant(&self, dice: &mut Dice) {
        let id = uuid();
        self.pool.put(&id, &noise(dice.below(1 << 40), dice.below(1 << 20) as usize + 1));
        self.known.lock().unwrap().planted.push(id);
    }

    /// An image that has clones stays active.
    fn delete(&self, dice: &mut Dice) {
        let Some((id, data)) = self.any(dice) else { return };
        self.known.lock().unwrap().active.remove(&id);
        if self.glance.try_delete(&id).is_err() {
            self.known.lock().unwrap().active.insert(id, data);
        }
    }

    /// Plans for what is dead since some seconds, and applies that; how many images were moved.
    fn reclaim(&self, grace: &str) -> u64 {
        let directory = tempfile::tempdir().unwrap();
        let plan = directory.path().join("plan.json").display().to_string();
        let sources = ["--glance-conf", &self.glance.conf, "--pool", &self.pool.0];
        let kinds = "orphan,orphan-deleted,partial-upload,leaked-clone";
        let limits = ["--only", kinds, "--allow", "unseen", "--max-images", "1000", "--max-percent", "100"];
        let mut planning = program();
        planning.args(["plan", "-o", &plan, "--grace", grace, "--user", "scan"]).args(sources).args(limits);
        let planned: Ran = planning.output().unwrap().into();
        // A database that is written to at this moment may not be read: then nothing is planned.
        assert!(planned.code == 0 || planned.stderr.contains("refused"), "{planned:?}");
        if planned.code != 0 {
            return 0;
        }
        let mut applying = program();
        applying.args(["apply", &plan, "--yes", "--user", "glance", "--format", "json"]).args(sources);
        let applied: Ran = applying.output().unwrap().into();
        match applied.code {
            0 | 4 => applied.json()["summary"]["done"].as_u64().unwrap(),
            _ => {
                assert!(applied.stderr.contains("refused"), "{applied:?}");
                0
            }
        }
    }

    /// Everything that anybody needs, byte for byte.
    fn check(&self) {
        let known = self.known.lock().unwrap();
        for (id, data) in &known.active {
            assert!(self.glance.download(id) == noise(data.0, data.1), "{id} is not what was uploaded");
        }
        for (clone, data) in &known.clones {
            let export = Command::new("rbd").args(["--id", "glance", "export", "--no-progress", clone, "-"]).output();
            assert!(export.unwrap().stdout == noise(data.0, data.1), "{clone} is not what was booted");
        }
    }
}

#[test]
fn nothing_that_lives_is_touched_while_everything_moves() {
    let long = std::env::var_os("GLANCE_RBD_LONG").is_some();
    let (time, grace) = if long { (Duration::from_secs(600), "15s") } else { (Duration::from_secs(20), "5s") };
    let pool = TestPool::new();
    let glance = Glance::up_with(&pool, None, &["DEFAULT.show_multiple_locations=True"]);
    let busy = Busy { pool, glance, known: Mutex::default(), stop: AtomicBool::new(false) };
    let seed = u64::from(std::process::id()) + 1;
    println!("seed {seed}");
    busy.upload(&mut Dice(seed));
    let mut moved = 0;
    thread::scope(|scope| {
        let clients = [1, 2].map(|n| {
            let busy = &busy;
            scope.spawn(move || busy.client(Dice(seed.wrapping_mul(2 * n + 1))))
        });
        let started = Instant::now();
        while started.elapsed() < time && !clients.iter().any(thread::ScopedJoinHandle::is_finished) {
            moved += busy.reclaim(grace);
        }
        busy.stop.store(true, Ordering::Relaxed);
    });
    busy.plant(&mut Dice(seed));
    wait_for(|| {
        // A database testifies only against what is older than its newest row, by the grace.
        busy.glance.create();
        moved += busy.reclaim(grace);
        let images = busy.pool.images();
        !busy.known.lock().unwrap().planted.iter().any(|id| images.contains(id))
    });
    busy.check();
    {
        let known = busy.known.lock().unwrap();
        let counts = (known.active.len(), known.clones.len(), known.planted.len());
        println!("{} active, {} clones, {} planted; {moved} moved to the trash", counts.0, counts.1, counts.2);
        assert!(moved >= counts.2 as u64);
    }
    for clone in busy.known.lock().unwrap().clones.keys() {
        rbd(&["rm", "--no-progress", clone]);
    }
}

impl Glance {
    /// What a client gets.
    fn download(&self, id: &str) -> Vec<u8> {
        let mut response = ureq::get(format!("{}/v2/images/{id}/file", self.url)).call().unwrap();
        response.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap()
    }

    /// Registers an RBD image as the data of a queued one.
    fn add_location(&self, id: &str, pool: &TestPool) -> Result<(), ureq::Error> {
        let fsid = crate::lab::sh("ceph", &["fsid"]);
        let url = format!("rbd://{}/{}/{id}/snap", fsid.trim(), pool.0);
        let value: Value = json!({ "url": url, "metadata": {} });
        let patch = json!([{ "op": "add", "path": "/locations/-", "value": value }]).to_string();
        let request = ureq::patch(format!("{}/v2/images/{id}", self.url));
        request.header("Content-Type", "application/openstack-images-v2.1-json-patch").send(patch).map(drop)
    }
}
