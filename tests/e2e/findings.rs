//! Every finding from a pool and a database that were made to have it.

use std::{
    io::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::lab::{MIB, TestDatabase, TestPool, kinds, noise, rbd, run, uuid};

fn the<'a>(scan: &'a Value, kind: &str) -> &'a Value {
    let mut all = scan["findings"].as_array().unwrap().iter().filter(|finding| finding["kind"] == kind);
    let found = all.next().unwrap_or_else(|| panic!("no {kind} in {scan:#}"));
    assert!(all.next().is_none(), "more than one {kind} in {scan:#}");
    found
}

#[test]
fn a_healthy_pool_has_no_findings() {
    let (pool, database) = (TestPool::new(), TestDatabase::new());
    for n in 0..3 {
        let id = uuid();
        database.active(&id, &pool.put(&id, &noise(n, 100_000)));
    }
    database.row(&uuid(), "queued");
    database.row(&uuid(), "deleted");
    let ran = pool.scan(&database.url());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let scan = ran.json();
    assert_eq!(scan["findings"], Value::Array(Vec::new()));
    assert_eq!((&scan["complete"], &scan["summary"]["images"], &scan["schema"]), (&true.into(), &3.into(), &1.into()));
    assert_eq!(scan["pools"], serde_json::json!([pool.0]));

    let table = run(&["scan", "--database", &database.url(), "--pool", &pool.0, "--user", "scan"]).ok();
    assert_eq!(String::from_utf8(table.stdout).unwrap(), format!("3 images in {}: nothing found\n", pool.0));
}

#[test]
fn an_empty_pool_and_an_empty_database_are_healthy() {
    let (pool, database) = (TestPool::new(), TestDatabase::new());
    assert_eq!(pool.scan(&database.url()).ok().json()["summary"]["images"], 0);
}

#[test]
fn each_kind_is_found_with_its_evidence() {
    let (pool, database) = (TestPool::new(), TestDatabase::new());
    let put = |data: &[u8]| {
        let id = uuid();
        let put = pool.put(&id, data);
        (id, put)
    };

    let (orphan, _) = put(&noise(1, MIB));
    let (deleted, _) = put(&noise(2, MIB));
    database.row(&deleted, "deleted");
    let partial = uuid();
    rbd(&["create", &format!("{}/{partial}", pool.0), "--size", "4M"]);
    database.row(&partial, "saving");
    let (unregistered, _) = put(&noise(3, MIB));
    database.row(&unregistered, "saving");
    let (missing, location) = (uuid(), put(b"x").1["location"].as_str().unwrap().to_owned());
    let gone = location.split('/').nth(4).unwrap().to_owned();
    run(&["image", "rm", &location, "--user", "glance"]).ok();
    database.row(&missing, "active");
    database.location(&missing, &location);
    let (unsnapped, at) = put(&noise(4, MIB));
    database.active(&unsnapped, &at);
    let image = format!("{}/{unsnapped}", pool.0);
    rbd(&["snap", "unprotect", &format!("{image}@snap")]);
    rbd(&["snap", "rm", &format!("{image}@snap")]);
    let (trashed, at) = put(&noise(5, MIB));
    database.active(&trashed, &at);
    rbd(&["trash", "mv", &format!("{}/{trashed}", pool.0)]);
    let (first, at) = put(&noise(6, 3 * MIB));
    database.active(&first, &at);
    database.sql(&format!("UPDATE images SET created_at = datetime('now', '-1 minute') WHERE id = '{first}'"));
    for _ in 0..2 {
        let (copy, at) = put(&noise(6, 3 * MIB));
        database.active(&copy, &at);
    }
    let (encrypted, _) = put(&noise(7, MIB));
    database.row(&encrypted, "active");
    database.location(&encrypted, "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4");
    rbd(&["create", &format!("{}/volume-1", pool.0), "--size", "1G"]);

    let ran = pool.scan(&database.url());
    assert_eq!(ran.code, 3, "{ran:?}");
    let scan = ran.json();
    let counts: Vec<(String, u64)> = [
        ("missing-image", 1),
        ("missing-snapshot", 1),
        ("trashed-image", 1),
        ("undecryptable-location", 1),
        ("orphan", 1),
        ("orphan-deleted", 1),
        ("partial-upload", 1),
        ("unregistered", 1),
        // Its row is alive and its location cannot be read: it may well be this image.
        ("in-flight", 1),
        ("duplicate", 1),
        ("foreign-image", 1),
    ]
    .map(|(kind, count)| (kind.to_owned(), count))
    .to_vec();
    assert_eq!(kinds(&scan), counts, "{scan:#}");

    assert_eq!(the(&scan, "orphan")["image"], orphan.as_str());
    assert_eq!(the(&scan, "orphan")["used_bytes"], MIB);
    assert_eq!(the(&scan, "orphan")["blocked_by"], serde_json::json!(["unknown"]), "the location that cannot be read");
    assert_eq!(the(&scan, "orphan-deleted")["glance_id"], deleted.as_str());
    assert_eq!(the(&scan, "orphan-deleted")["evidence"]["row_deleted"], true);
    assert_eq!(the(&scan, "partial-upload")["evidence"]["row_status"], "saving");
    assert_eq!(the(&scan, "missing-image")["image"], gone.as_str());
    assert_eq!(the(&scan, "missing-image")["glance_id"], missing.as_str());
    assert_eq!(the(&scan, "missing-image")["location"], location.as_str());
    assert_eq!(the(&scan, "missing-image")["severity"], "critical");
    assert_eq!(the(&scan, "missing-snapshot")["evidence"]["missing"], "snap");
    assert_eq!(the(&scan, "duplicate")["glance_id"], first.as_str(), "the oldest is the one to keep");
    assert_eq!(the(&scan, "duplicate")["used_bytes"], 6 * MIB);
    assert_eq!(the(&scan, "duplicate")["evidence"]["copies"].as_array().unwrap().len(), 3);
    assert_eq!(the(&scan, "foreign-image")["image"], "volume-1");
    assert_eq!(scan["summary"]["reclaimable_bytes"], 0);
    database.sql(&format!("UPDATE image_locations SET deleted = 1 WHERE image_id = '{encrypted}'"));
    let scan = pool.scan(&database.url()).json();
    assert_eq!(the(&scan, "orphan")["blocked_by"], serde_json::json!([]));
    assert_eq!(scan["summary"]["reclaimable_bytes"], 3 * MIB, "orphan, orphan-deleted, unregistered");

    let only = ["scan", "--database", &database.url(), "--pool", &pool.0, "--user", "scan", "--grace", "0"];
    let ran = run(&[only.as_slice(), &["--only", "duplicate,foreign-image", "--format", "json"]].concat());
    assert_eq!(ran.code, 0, "neither is a warning");
    assert_eq!(ran.json()["findings"].as_array().unwrap().len(), 2);
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("scan.json").display().to_string();
    let ran = run(&[only.as_slice(), &["-o", &path, "--format", "json"]].concat());
    assert_eq!((ran.code, ran.stdout.len()), (3, 0));
    let written: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(written["findings"], scan["findings"]);

    // By default nothing that is younger than a day is called dead.
    let ran = run(&["scan", "--database", &database.url(), "--pool", &pool.0, "--user", "scan", "--format", "json"]);
    let young = ran.json();
    for dead in ["orphan", "orphan-deleted", "partial-upload", "unregistered"] {
        assert_eq!(young["summary"]["findings"][dead], Value::Null, "{dead}");
    }
    assert_eq!(young["summary"]["findings"]["in-flight"], 5);
}

/// A writer that is alive is in flight whatever the database says, and however short the grace.
#[test]
fn a_live_writer_is_never_an_orphan() {
    let (pool, database) = (TestPool::new(), TestDatabase::new());
    let id = uuid();
    let mut writer = pool.begin_put(&id);
    let mut stdin = writer.stdin.take().unwrap();
    stdin.write_all(&noise(1, 20 * MIB)).unwrap();
    let started = Instant::now();
    while pool.images().is_empty() {
        assert!(started.elapsed() < Duration::from_secs(30));
    }
    let ran = pool.scan(&database.url());
    assert_eq!(kinds(&ran.json()), [("in-flight".to_owned(), 1)]);
    let finding = ran.json()["findings"][0].clone();
    assert_eq!(finding["evidence"]["watchers"].as_array().unwrap().len(), 1, "{finding:#}");
    drop(stdin);
    assert!(writer.wait().unwrap().success());
    assert_eq!(kinds(&pool.scan(&database.url()).json()), [("orphan".to_owned(), 1)], "whole, and nobody knows it");
}

/// A clone keeps its parent: what needs the data is named, and nothing is offered for the trash.
#[test]
fn an_orphan_with_clones_is_blocked() {
    let (pool, database) = (TestPool::new(), TestDatabase::new());
    let id = uuid();
    database.row(&uuid(), "queued"); // a database without any row is believed nothing
    let location = pool.put(&id, &noise(1, MIB))["location"].as_str().unwrap().to_owned();
    let clone = format!("vms/{}", uuid());
    run(&["image", "clone", &location, &clone, "--user", "glance"]).ok();
    let scan = pool.scan(&database.url()).json();
    let orphan = the(&scan, "orphan");
    assert_eq!(orphan["blocked_by"], serde_json::json!(["children"]));
    assert_eq!(orphan["evidence"]["children"], serde_json::json!([clone]));
    assert_eq!(scan["summary"]["reclaimable_bytes"], 0);
    rbd(&["rm", &clone]);
}

/// Images come and go while they are scanned: no scan may stumble, or take what has just gone for missing or dead.
#[test]
fn images_deleted_while_they_are_scanned() {
    let (pool, database) = (TestPool::new(), TestDatabase::new());
    // A scan takes its time as long as somebody is at work; the work goes on until there were some.
    let scans = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            for n in 0.. {
                if n >= 12 && scans.load(Relaxed) >= 3 {
                    break;
                }
                let id = uuid();
                database.row(&id, "queued");
                let put = pool.put(&id, &noise(n, 2 * MIB));
                database
                    .sql(&format!("UPDATE images SET status = 'active', size = {} WHERE id = '{id}'", put["bytes"]));
                database.location(&id, put["location"].as_str().unwrap());
                std::thread::sleep(Duration::from_millis(50));
                run(&["image", "rm", &id, "--pool", &pool.0, "--user", "glance"]).ok();
                database.sql(&format!(
                    "UPDATE image_locations SET deleted = 1, status = 'deleted' WHERE image_id = '{id}';
                     UPDATE images SET deleted = 1, status = 'deleted' WHERE id = '{id}'"
                ));
            }
        });
        while !churn.is_finished() {
            let arguments = ["--pool", &pool.0, "--user", "scan", "--format", "json"];
            let ran = run(&[&["scan", "--database", &database.url()], arguments.as_slice()].concat());
            let scan = ran.json();
            assert_eq!(scan["complete"], true, "{scan:#}");
            // In flight, or in the trash for the moment that a removal takes: nothing to act on.
            for finding in scan["findings"].as_array().unwrap() {
                assert_eq!(finding["severity"], "info", "{scan:#}");
            }
            scans.fetch_add(1, Relaxed);
        }
    });
    assert_eq!(kinds(&pool.scan(&database.url()).json()), []);
}

/// Other tools stop at the first image they cannot read, or leave it out and say nothing.
#[test]
fn one_damaged_image_makes_the_scan_incomplete_and_hides_nothing() {
    let (pool, database) = (TestPool::new(), TestDatabase::new());
    let (orphan, damaged) = (uuid(), uuid());
    pool.put(&orphan, &noise(1, MIB));
    database.active(&damaged, &pool.put(&damaged, &noise(2, MIB)));
    pool.set_header(&damaged, "size", "garbage");

    let ran = pool.scan(&database.url());
    let scan = ran.json();
    assert_eq!((ran.code, &scan["complete"]), (1, &false.into()), "{scan:#}");
    assert_eq!(scan["problems"][0]["what"], damaged.as_str());
    assert_eq!(kinds(&scan), [("orphan".to_owned(), 1)], "and its location is not called missing");
    assert!(ran.stderr.contains(&damaged), "{}", ran.stderr);
    let list = run(&["image", "list", "--pool", &pool.0, "--user", "glance"]);
    assert!(
        list.code == 1 && String::from_utf8_lossy(&list.stdout).contains(&orphan) && list.stderr.contains(&damaged)
    );
}

/// A name may hold what a terminal would obey.
#[test]
fn names_are_printed_harmlessly() {
    let (pool, database) = (TestPool::new(), TestDatabase::new());
    rbd(&["create", &format!("{}/red\u{1b}[31m", pool.0), "--size", "1M"]);
    let ran = run(&["scan", "--database", &database.url(), "--pool", &pool.0, "--user", "scan"]).ok();
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(!text.contains('\u{1b}') && text.contains(r"red\u{1b}[31m"), "{text}");
}

/// An image whose header is gone is told once, and so is the location that names it.
#[test]
fn an_image_without_header_is_broken_once() {
    let (pool, database) = (TestPool::new(), TestDatabase::new());
    let id = uuid();
    database.active(&id, &pool.put(&id, &noise(1, MIB)));
    let info: Value = serde_json::from_str(&rbd(&["info", "--format", "json", &format!("{}/{id}", pool.0)])).unwrap();
    crate::lab::sh("rados", &["-p", &pool.0, "rm", &format!("rbd_header.{}", info["id"].as_str().unwrap())]);
    let found = kinds(&pool.scan(&database.url()).json());
    assert_eq!(found, [("missing-image".to_owned(), 1), ("broken-image".to_owned(), 1)]);
}
