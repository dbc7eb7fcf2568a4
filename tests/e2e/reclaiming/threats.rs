//! The threats that docs/safety.md names, where they strike after the plan was made: wrong and changed databases, clocks,
//! plans that are not for here and now, and pools that are full or gone. Nothing is changed, to the byte.

use std::path::Path;

use serde_json::Value;

use super::cloud::{Cloud, Held, journal_of, results, wait_for};
use crate::lab::{Ran, TestDatabase, run, sh, uuid};

/// All of a pool's objects, their data, attributes and keys, in one number.
fn bytes_of(cloud: &Cloud) -> String {
    sh("sh", &["-c", &format!("rados -p {} export - | sha256sum", cloud.pool.0)])
}

/// Applies a plan that must be refused for this reason, and must not change anything.
fn refused(cloud: &Cloud, plan: &Path, why: &str) {
    // The lock's own trace is there from now on, so that nothing else may change.
    let before = cloud.images();
    let ran = cloud.apply(plan);
    assert!(ran.code == 1 && ran.stderr.contains(why), "{ran:?}");
    assert_eq!((cloud.images(), cloud.trash()), (before, vec![]));
}

fn with_database(cloud: &Cloud, plan: &Path, databases: &[&str]) -> Ran {
    let plan = plan.display().to_string();
    let mut arguments = vec!["apply", &plan, "--pool", &cloud.pool.0, "--user", "glance", "--yes"];
    for database in databases {
        arguments.extend(["--database", database]);
    }
    run(&arguments)
}

#[test]
fn wrong_database() {
    let cloud = Cloud::new();
    cloud.garbage(1);
    let plan = cloud.plan(&[]);
    let other = TestDatabase::new();
    let before = cloud.images();
    let ran = with_database(&cloud, &plan, &[&other.url()]);
    assert!(ran.code == 1 && ran.stderr.contains("the plan was made with the databases"), "{ran:?}");
    assert_eq!((cloud.images(), cloud.trash()), (before, vec![]));
}

/// Emptied after the plan was made: a database that was dropped and synced anew, say.
#[test]
fn empty_database() {
    let cloud = Cloud::new();
    cloud.garbage(1);
    let plan = cloud.plan(&[]);
    cloud.database.sql("DELETE FROM image_locations; DELETE FROM images");
    refused(&cloud, &plan, "refused: ");
}

/// A replica that lags behind, or a backup that was restored: its newest row is older than what is in the pool.
#[test]
fn stale_database() {
    let cloud = Cloud::new();
    cloud.garbage(1);
    let plan = cloud.plan(&[]);
    let aged = |table: &str| {
        format!(
            "UPDATE {table} SET created_at = datetime(created_at, '-1 hour'), updated_at = datetime(updated_at, '-1 hour');"
        )
    };
    cloud.database.sql(&(aged("images") + &aged("image_locations")));
    refused(&cloud, &plan, "older than what is in the pool");
}

/// Two Glances share a pool: an image that the other one knows, or comes to know, is not garbage.
#[test]
fn two_clouds_on_one_pool() {
    let cloud = Cloud::new();
    let other = TestDatabase::new();
    let theirs = uuid();
    other.active(&theirs, &cloud.pool.put(&theirs, b"theirs"));
    let (garbage, contested) = (cloud.garbage(1), cloud.garbage(2));
    let plan = cloud.plan(&["--database", &other.url()]);
    let planned: Value = serde_json::from_slice(&std::fs::read(&plan).unwrap()).unwrap();
    assert_eq!(planned["steps"].as_array().unwrap().len(), 2, "{planned:#}");

    let alone = with_database(&cloud, &plan, &[&cloud.database.url()]);
    assert!(alone.code == 1 && alone.stderr.contains("the plan was made with the databases"), "{alone:?}");

    other.row(&contested, "active");
    let fsid = sh("ceph", &["fsid"]);
    other.location(&contested, &format!("rbd://{}/{}/{contested}/snap", fsid.trim(), cloud.pool.0));
    let ran = with_database(&cloud, &plan, &[&cloud.database.url(), &other.url()]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let names: Vec<String> = cloud.trash().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [garbage]);
}

/// Clocks that differ by some minutes are no reason to refuse; by more, nothing tells them from a stale database.
#[test]
fn clock_skew() {
    let cloud = Cloud::new();
    cloud.garbage(1);
    let skewed = |minutes: i32| {
        format!(
            "UPDATE images SET created_at = datetime('now', '{minutes} minutes'), updated_at = datetime('now', '{minutes} minutes');
             UPDATE image_locations SET created_at = datetime('now', '{minutes} minutes')"
        )
    };
    for (minutes, done) in [(-3, true), (3, true), (-30, false)] {
        cloud.database.sql(&skewed(0));
        let plan = cloud.plan(&[]);
        cloud.database.sql(&skewed(minutes));
        let ran = cloud.apply(&plan);
        assert_eq!(ran.code == 0, done, "{minutes} minutes: {ran:?}");
        if done {
            assert_eq!(results(&ran.json()), ["done"], "{minutes} minutes");
            cloud.undo(&plan).ok();
        }
        assert_eq!(cloud.trash(), []);
    }
}

/// The plan, changed and signed anew as somebody would who knows how.
fn forged(cloud: &Cloud, plan: &Path, change: impl FnOnce(&mut Value)) -> std::path::PathBuf {
    let mut value: Value = serde_json::from_slice(&std::fs::read(plan).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("digest");
    change(&mut value);
    let canonical = cloud.file("canonical.json");
    value.sort_all_objects();
    std::fs::write(&canonical, value.to_string()).unwrap();
    let digest = sh("sha256sum", &[&canonical.display().to_string()]);
    value["digest"] = digest[..64].into();
    let forged = cloud.file(&format!("forged-{}.json", &uuid()[..8]));
    std::fs::write(&forged, value.to_string()).unwrap();
    forged
}

#[test]
fn plan_edited_by_hand_or_for_another_place_and_time() {
    let cloud = Cloud::new();
    let healthy = cloud.pool.images().into_iter().next().unwrap();
    cloud.garbage(1);
    let plan = cloud.plan(&[]);
    let text = std::fs::read_to_string(&plan).unwrap();
    let edited = cloud.file("edited.json");
    std::fs::write(&edited, text.replace("orphan-deleted", "orphan")).unwrap();
    refused(&cloud, &edited, "the plan was changed after it was made");
    std::fs::write(&edited, &text[..text.len() / 2]).unwrap();
    refused(&cloud, &edited, "this is no plan");

    refused(&cloud, &forged(&cloud, &plan, |plan| plan["fsid"] = uuid().into()), "was made for the cluster");
    let yesterday = forged(&cloud, &plan, |plan| plan["created_at"] = "2020-01-01T00:00:00Z".into());
    refused(&cloud, &yesterday, "more than 24 h ago");
    let tomorrow = forged(&cloud, &plan, |plan| plan["created_at"] = "2999-01-01T00:00:00Z".into());
    refused(&cloud, &tomorrow, "yet to come");
    refused(&cloud, &forged(&cloud, &plan, |plan| plan["pools"][0]["id"] = 4242.into()), "is for the pool");
    for file in [&edited, &yesterday] {
        assert!(!Path::new(&journal_of(file)).exists(), "nothing was even begun");
    }

    // Even a forged plan, of an image that Glance needs, does not get past the look before the step.
    let id = cloud.id(&healthy);
    let plan = forged(&cloud, &plan, |plan| {
        plan["steps"][0]["image"] = healthy.clone().into();
        plan["steps"][0]["image_id"] = id.into();
    });
    let before = cloud.images();
    let ran = cloud.apply(&plan);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!((cloud.images(), cloud.trash()), (before, vec![]));
}

/// A refusal changes nothing, to the byte; not even the lock leaves a trace that was not there before.
#[test]
fn refused_to_the_byte() {
    let cloud = Cloud::new();
    cloud.garbage(1);
    let plan = cloud.plan(&[]);
    let before = bytes_of(&cloud);
    let other = TestDatabase::new();
    assert_eq!(
        with_database(&cloud, &forged(&cloud, &plan, |plan| plan["fsid"] = "x".into()), &[&other.url()]).code,
        1
    );
    let dry = cloud.applying(&plan, &[]).output().unwrap();
    assert_eq!(dry.status.code(), Some(0));
    assert_eq!(bytes_of(&cloud), before);
}

/// A pool over its quota is when somebody needs this most: moving to the trash works there. Putting back does not, for Ceph
/// refuses the object that holds the name; it says so, and works as soon as there is room.
#[test]
fn full_pool() {
    let cloud = Cloud::new();
    cloud.garbage(1);
    cloud.garbage(2);
    let before = cloud.images();
    let plan = cloud.plan(&[]);
    // The trash is there from before, as in any pool that ever removed an image.
    let quota = |bytes: &str| sh("ceph", &["osd", "pool", "set-quota", &cloud.pool.0, "max_bytes", bytes]);
    quota("4096");
    wait_for(|| {
        sh("ceph", &["osd", "dump", "--format", "json"]).contains(&format!("\"{}\"", cloud.pool.0)) && is_full(&cloud)
    });
    let ran = cloud.apply(&plan);
    let applied = ran.json();
    let full = results(&applied).iter().all(|result| result == "done");
    assert!(full || ran.code == 4, "{applied:#}");
    if !full {
        // The trash itself was not there yet, and could not be made.
        assert!(applied.to_string().contains("no space left, or over quota"), "{applied:#}");
        assert_eq!(cloud.images(), before);
    }
    quota("0");
    wait_for(|| !is_full(&cloud));
    cloud.apply(&plan).ok();
    assert_eq!(cloud.trash().len(), 2);
    quota("4096");
    wait_for(|| is_full(&cloud));
    let undone = cloud.undo(&plan);
    assert_eq!(undone.code, 4, "{undone:?}");
    assert!(undone.json().to_string().contains("no space left, or over quota"), "{undone:?}");
    assert_eq!(cloud.trash().len(), 2, "still there");
    quota("0");
    wait_for(|| !is_full(&cloud));
    cloud.undo(&plan).ok();
    assert_eq!((cloud.images(), cloud.trash()), (before, vec![]));
}

fn is_full(cloud: &Cloud) -> bool {
    let dump: Value = serde_json::from_str(&sh("ceph", &["osd", "dump", "--format", "json"])).unwrap();
    let pools = dump["pools"].as_array().unwrap();
    let pool = pools.iter().find(|pool| pool["pool_name"] == cloud.pool.0.as_str()).unwrap();
    pool["flags_names"].as_str().unwrap().contains("full")
}

#[test]
fn pool_gone() {
    let cloud = Cloud::new();
    cloud.garbage(1);
    cloud.garbage(2);
    let plan = cloud.plan(&[]);
    let held = Held::start(&cloud, &plan);
    let remove = || sh("ceph", &["osd", "pool", "rm", &cloud.pool.0, &cloud.pool.0, "--yes-i-really-really-mean-it"]);
    remove();
    let ran = held.go();
    assert!(ran.code == 4 || ran.code == 1, "{ran:?}");
    let ran = cloud.apply(&plan);
    assert!(ran.code == 1 && ran.stderr.contains("not found"), "{ran:?}");
    // Another pool of that name is another pool.
    sh("ceph", &["osd", "pool", "create", &cloud.pool.0, "8"]);
    sh("rbd", &["pool", "init", &cloud.pool.0]);
    let ran = cloud.apply(&plan);
    assert!(ran.code == 1 && ran.stderr.contains("that name has the id"), "{ran:?}");
    assert_eq!(cloud.undo(&plan).code, 1);
}
