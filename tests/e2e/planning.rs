//! Plans: what is planned for, what is refused and why, and that planning changes nothing, to the byte.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::lab::{Ran, TestDatabase, TestPool, noise, rbd, repository, run, sh, uuid};

/// A pool, a database that knows what is in it, and a directory for scans and plans.
struct Cloud {
    pool: TestPool,
    database: TestDatabase,
    directory: tempfile::TempDir,
}

impl Cloud {
    /// With so many images that all is well with.
    fn new(healthy: usize) -> Self {
        let cloud =
            Self { pool: TestPool::new(), database: TestDatabase::new(), directory: tempfile::tempdir().unwrap() };
        for seed in 0..healthy {
            let id = uuid();
            cloud.database.active(&id, &cloud.pool.put(&id, &noise(seed as u64, 5000)));
        }
        cloud
    }

    /// Stores an image that the database has only a row of.
    fn leftover(&self, status: &str) -> String {
        let id = uuid();
        self.pool.put(&id, b"left behind");
        self.database.row(&id, status);
        id
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A scan as the reader, as JSON in a file.
    fn seen(&self) -> String {
        let file = self.file("seen.json").display().to_string();
        let ran = self.pool.scan(&self.database.url());
        assert!(ran.code == 0 || ran.code == 3, "{ran:?}");
        std::fs::write(&file, ran.stdout).unwrap();
        file
    }

    /// A plan as the reader, without a grace; what it printed, and the file.
    fn plan(&self, database: &str, options: &[&str]) -> (Ran, Value) {
        let file = self.file("plan.json").display().to_string();
        let base = ["plan", "--database", database, "--pool", &self.pool.0, "--user", "scan", "--grace", "0"];
        let before = bytes_of(&self.pool.0);
        let ran = run(&[&base, ["-o", &file].as_slice(), options].concat());
        assert_eq!(bytes_of(&self.pool.0), before, "planning changed the pool");
        let plan = std::fs::read(&file).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        (ran, serde_json::from_slice(&plan).unwrap())
    }

    /// The reason for which a plan is refused.
    fn refused(&self, database: &str, options: &[&str]) -> String {
        let (ran, plan) = self.plan(database, options);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert_eq!(plan["steps"], serde_json::json!([]), "a refused plan has no steps");
        assert_ne!(plan["refused"], serde_json::json!([]));
        assert!(ran.stderr.contains("refused"), "{}", ran.stderr);
        ran.stderr
    }
}

/// All of a pool's objects, their data, attributes and keys, in one number.
fn bytes_of(pool: &str) -> String {
    sh("sh", &["-c", &format!("rados -p {pool} export - | sha256sum")])
}

fn steps(plan: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    plan["steps"].as_array().unwrap().iter().map(|step| (text(&step["action"]), text(&step["image"]))).collect()
}

#[test]
fn a_plan_says_what_why_and_how_to_undo_it() {
    let cloud = Cloud::new(2);
    let deleted = cloud.leftover("deleted");
    let waiting = cloud.leftover("queued");
    let orphan = uuid();
    cloud.pool.put(&orphan, b"nobody knows it");
    let url = cloud.database.url();

    let (ran, plan) = cloud.plan(&url, &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(steps(&plan), [("adopt".into(), waiting.clone())], "what was seen once is not removed");
    assert!(plan["left_out"].to_string().contains("--seen"), "{plan}");

    let seen = cloud.seen();
    let options = ["--seen", &seen, "--max-percent", "50"];
    let (ran, plan) = cloud.plan(&url, &options);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(steps(&plan), [("adopt".into(), waiting.clone()), ("trash".into(), deleted.clone())]);
    let step = &plan["steps"][1];
    assert_eq!(step["kind"], "orphan-deleted");
    let id = step["image_id"].as_str().unwrap();
    assert!(rbd(&["info", &format!("{}/{deleted}", cloud.pool.0)]).contains(id), "by its id");
    assert!(step["bytes"].as_u64().unwrap() > 0);
    assert!(step["undo"].as_str().unwrap().contains(&format!("rbd trash restore {}/{id}", cloud.pool.0)));
    assert!(plan["steps"][0]["commands"].to_string().contains(&waiting));
    let printed = String::from_utf8(ran.stdout).unwrap();
    assert!(printed.contains(&deleted) && printed.contains("1 adopt, 1 trash"), "{printed}");

    let (_, plan) = cloud.plan(&url, &[&options, ["--only", "orphan"].as_slice()].concat());
    assert_eq!(steps(&plan), [("trash".into(), orphan)], "what no database ever knew is asked for by name");
}

/// A database of another cloud knows none of the pool's images: every one of them would look orphaned.
#[test]
fn the_wrong_database_is_refused() {
    let cloud = Cloud::new(3);
    let seen = cloud.seen();
    let always = ["--seen", &seen, "--only", "orphan,orphan-deleted", "--max-percent", "100"];

    let empty = TestDatabase::new();
    assert!(cloud.refused(&empty.url(), &always).contains("--allow no-locations"));

    let elsewhere = Cloud::new(1);
    assert!(cloud.refused(&elsewhere.database.url(), &always).contains("--allow no-locations"), "another pool's");

    let foreign = TestDatabase::new();
    foreign.row(&uuid(), "active");
    let id = uuid();
    foreign.row(&id, "active");
    foreign.location(&id, &format!("rbd://{}/{}/{id}/snap", uuid(), cloud.pool.0));
    assert!(cloud.refused(&foreign.url(), &always).contains("--allow foreign-fsid"), "another cluster's");

    let secret = TestDatabase::new();
    let id = uuid();
    secret.row(&id, "active");
    secret.location(&id, "Zm9yIGFuIGVuY3J5cHRlZCBsb2NhdGlvbg==");
    let reasons = cloud.refused(&secret.url(), &always);
    assert!(reasons.contains("--allow undecryptable"), "{reasons}");

    // The right one beside it does not make the wrong one right.
    let file = cloud.file("plan.json").display().to_string();
    let (right, wrong) = (cloud.database.url(), empty.url());
    let both = ["plan", "--database", &right, "--database", &wrong, "--pool", &cloud.pool.0, "-o", &file];
    let ran = run(&[&both, ["--user", "scan"].as_slice()].concat());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("has no location"), "{}", ran.stderr);
}

/// A replica that lags, or a backup that was restored: what came to the pool since then looks orphaned.
#[test]
fn a_database_older_than_the_pool_is_refused() {
    let cloud = Cloud::new(2);
    let newer = uuid();
    cloud.pool.put(&newer, b"registered since");
    let yesterday = "created_at = datetime('now', '-1 day'), updated_at = datetime('now', '-1 day')";
    cloud.database.sql(&format!("UPDATE images SET {yesterday}; UPDATE image_locations SET {yesterday}"));
    let options = ["--only", "orphan", "--allow", "unseen", "--max-percent", "50"];
    let reasons = cloud.refused(&cloud.database.url(), &options);
    assert!(reasons.contains("--allow stale"), "{reasons}");

    let (ran, plan) = cloud.plan(&cloud.database.url(), &[&options, ["--allow", "stale"].as_slice()].concat());
    assert_eq!((ran.code, steps(&plan)), (0, vec![("trash".into(), newer)]));
    assert!(ran.stderr.contains("--allow stale") && ran.stderr.contains("--allow unseen"), "loudly: {}", ran.stderr);
}

#[test]
fn too_many_at_once_are_refused() {
    let cloud = Cloud::new(1);
    for _ in 0..3 {
        cloud.leftover("deleted");
    }
    let (url, seen) = (cloud.database.url(), cloud.seen());
    assert!(cloud.refused(&url, &["--seen", &seen]).contains("--max-percent 10"));
    let reasons = cloud.refused(&url, &["--seen", &seen, "--max-percent", "75", "--max-images", "2"]);
    assert!(reasons.contains("--max-images 2") && !reasons.contains("--max-percent"), "{reasons}");
    let (ran, plan) = cloud.plan(&url, &["--seen", &seen, "--max-percent", "75", "--max-images", "3"]);
    assert_eq!((ran.code, steps(&plan).len()), (0, 3));
}

#[test]
fn a_scan_that_did_not_see_everything_plans_nothing() {
    let cloud = Cloud::new(2);
    cloud.leftover("deleted");
    let seen = cloud.seen();
    let damaged = uuid();
    cloud.pool.put(&damaged, b"its header is damaged");
    let info: Value =
        serde_json::from_str(&rbd(&["info", "--format", "json", &format!("{}/{damaged}", cloud.pool.0)])).unwrap();
    let header = format!("rbd_header.{}", info["id"].as_str().unwrap());
    sh("rados", &["-p", &cloud.pool.0, "setomapval", &header, "size", "x"]);
    let reasons = cloud.refused(&cloud.database.url(), &["--seen", &seen, "--max-percent", "100"]);
    assert!(reasons.contains("the scan is incomplete"), "{reasons}");
}

#[test]
fn what_cannot_be_planned_is_wrong_usage() {
    let run = |options: &[&str]| {
        run(&[&["plan", "--database", "sqlite:////nowhere", "-o", "/tmp/no-plan.json"], options].concat())
    };
    for options in
        [["--only", "in-flight"], ["--only", "foreign-image"], ["--only", "nothing"], ["--allow", "children"]]
    {
        let ran = run(&options);
        assert_eq!(ran.code, 2, "{options:?}: {ran:?}");
    }
    assert!(run(&["--allow", "everything"]).stderr.contains("undecryptable"), "it says what there is");
    assert_eq!(run(&["--max-percent", "101"]).code, 2);
    assert!(!Path::new("/tmp/no-plan.json").exists());
}

/// While an OSD is down, data that is there may not be seen.
#[test]
fn an_unhealthy_cluster_is_refused() {
    let directory = tempfile::Builder::new().prefix("ceph-").tempdir().unwrap();
    let demo = Demo(directory.path().join("c").display().to_string());
    // Of its own: another test may look for a free one at the same moment.
    let port = (26_000 + std::process::id() % 90 * 100).to_string();
    demo.call(&["up", "--osds", "2", "--osd-size", "1G", "--port", &port]);
    let conf = format!("{}/ceph.conf", demo.0);
    let ceph = |arguments: &[&str]| sh("ceph", &[&["-c", conf.as_str()], arguments].concat());
    let database = TestDatabase::new();
    let plan = directory.path().join("plan.json").display().to_string();
    let attempt = |options: &[&str]| {
        let url = database.url();
        let base = ["plan", "--database", &url, "--ceph-conf", &conf, "--user", "scan", "-o", &plan];
        run(&[&base, ["--allow", "no-locations"].as_slice(), options].concat())
    };
    let ran = attempt(&[]);
    assert_eq!(ran.code, 0, "{ran:?}");

    // It is to hold nothing when it dies, so that everything can still be read.
    ceph(&["osd", "crush", "reweight", "osd.1", "0"]);
    let moved = || {
        let groups: Value = serde_json::from_str(&ceph(&["pg", "ls", "--format", "json"])).unwrap();
        let has_moved = |group: &Value| group["state"] == "active+clean" && group["acting"] == serde_json::json!([0]);
        groups["pg_stats"].as_array().unwrap().iter().all(has_moved)
    };
    for _ in 0..180 {
        if moved() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    assert!(moved(), "{}", ceph(&["pg", "ls"]));
    sh("sh", &["-c", &format!("kill -9 $(cat {}/run/osd.1.pid)", demo.0)]);
    ceph(&["osd", "down", "osd.1"]);
    let ran = attempt(&["--timeout", "60s"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("not healthy") && ran.stderr.contains("--allow unhealthy"), "{}", ran.stderr);
}

/// docs/safety.md says of each promise which test shows it.
#[test]
fn every_test_that_the_promises_name_is_there() {
    fn sources(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    sources(&repository("tests/e2e"), &mut found);
    sources(&repository("reconcile/src"), &mut found);
    let text = std::fs::read_to_string(repository("docs/safety.md")).unwrap();
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let names: Vec<(&str, &str)> = text
        .split('`')
        .filter_map(|quoted| quoted.split_once("::"))
        .filter(|(module, name)| is_name(module) && is_name(name))
        .collect();
    assert!(names.len() > 40, "{names:?}");
    for (module, name) in names {
        let is_there = found.iter().any(|(path, source)| {
            let is_in =
                path.file_stem().is_some_and(|stem| stem == module) || path.ends_with(format!("{module}/mod.rs"));
            is_in && source.contains(&format!("fn {name}("))
        });
        assert!(is_there, "docs/safety.md names {module}::{name}");
    }
}

/// A cluster of one test.
struct Demo(String);

impl Demo {
    fn call(&self, arguments: &[&str]) -> String {
        sh(repository("docker/ceph-demo"), &[&[arguments[0], "--dir", &self.0], &arguments[1..]].concat())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.call(&["down"]);
    }
}
