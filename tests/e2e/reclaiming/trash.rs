//! The trash: what is in it, what comes back, and what goes for good.

use serde_json::{Value, json};

use super::cloud::{Cloud, results};
use crate::lab::{rbd, run, sh, uuid};

fn trash(cloud: &Cloud, image: &str) {
    rbd(&["trash", "mv", &cloud.path(image)]);
}

/// Why each entry is kept, or nothing, by name.
fn kept(cloud: &Cloud) -> Vec<(String, Value)> {
    let list = run(&["trash", "list", "--pool", &cloud.pool.0, "--user", "scan", "--format", "json"]).ok().json();
    let entries = list.as_array().unwrap().iter();
    entries.map(|entry| (entry["image"].as_str().unwrap().to_owned(), entry["kept"].clone())).collect()
}

/// Other tools stop at the first entry they cannot remove, and do not say which it was.
#[test]
fn a_purge_removes_what_it_may_and_names_what_it_may_not() {
    let cloud = Cloud::new();
    let [free, known, cloned, snapped, deferred] = [1, 2, 3, 4, 5].map(|seed| cloud.garbage(seed));
    cloud.database.sql(&format!("UPDATE images SET deleted = 0, status = 'active' WHERE id = '{known}'"));
    let fsid = sh("ceph", &["fsid"]);
    cloud.database.location(&known, &format!("rbd://{}/{}/{known}/snap", fsid.trim(), cloud.pool.0));
    let clone = format!("vms/{}", uuid());
    rbd(&["clone", &format!("{}@snap", cloud.path(&cloned)), &clone]);
    rbd(&["snap", "create", "--no-progress", &format!("{}@mine", cloud.path(&snapped))]);
    rbd(&["create", "--size", "1M", &cloud.path("volume-1")]);
    for image in [&free, &known, &cloned, &snapped, "volume-1"] {
        trash(&cloud, image);
    }
    rbd(&["trash", "mv", &cloud.path(&deferred), "--expires-at", "tomorrow"]);
    let before = cloud.trash();

    let dry = cloud.purge(&[]);
    assert_eq!((dry.code, results(&dry.json())), (4, vec!["would".to_owned()]), "{dry:?}");
    assert_eq!(cloud.trash(), before);

    let purged = cloud.purge(&["--yes"]);
    assert_eq!((purged.code, results(&purged.json())), (4, vec!["done".to_owned()]), "{purged:?}");
    let named: Vec<_> = purged.json()["kept"].as_array().unwrap().iter().map(|entry| entry["image"].clone()).collect();
    let mut expected = [known.clone(), cloned.clone(), snapped.clone(), "volume-1".into()].map(Value::from);
    expected.sort_by_key(ToString::to_string);
    assert_eq!(named, expected);
    let left: Vec<String> = cloud.trash().into_iter().map(|(name, _)| name).collect();
    assert!(!left.contains(&free) && left.len() == 5, "{left:?}");
    let why = |image: &String| kept(&cloud).into_iter().find(|(name, _)| name == image).unwrap().1;
    assert_eq!(why(&cloned), format!("{clone} is its clone"));
    assert_eq!(why(&deferred), "its deferment has not ended");

    rbd(&["rm", "--no-progress", &clone]);
    cloud.purge(&["--yes"]);
    assert!(!cloud.trash().iter().any(|(name, _)| *name == cloned), "its clone is gone");
}

/// A move that was cut off leaves an image in the trash and in its place: purging it would take what is in use.
#[test]
fn an_image_in_the_trash_and_in_its_place_is_not_purged() {
    let cloud = Cloud::new();
    let (garbage, other) = (cloud.garbage(1), cloud.garbage(2));
    let id = cloud.id(&garbage);
    let before = cloud.images();
    trash(&cloud, &garbage);
    let entry = cloud.file("entry").display().to_string();
    sh("rados", &["-p", &cloud.pool.0, "getomapval", "rbd_trash", &format!("id_{id}"), &entry]);
    rbd(&["trash", "restore", "--pool", &cloud.pool.0, &id]);
    let pool = &cloud.pool.0;
    sh("sh", &["-c", &format!("rados -p {pool} setomapval rbd_trash id_{id} < {entry}")]);
    trash(&cloud, &other);
    cloud.purge(&["--yes"]);
    assert_eq!(kept(&cloud), [(garbage.clone(), json!("a move or a restore was cut off"))]);
    run(&["trash", "restore", &id, "--pool", &cloud.pool.0, "--user", "glance"]).ok();
    let without: Vec<_> = before.into_iter().filter(|(name, ..)| *name != other).collect();
    assert_eq!((cloud.images(), cloud.trash()), (without, vec![]));
}

/// Restored, or trashed anew, after the purge was planned: it is not the entry that was planned for.
#[test]
fn what_was_trashed_again_after_the_plan_is_not_purged() {
    let cloud = Cloud::new();
    let [again, back, gone] = [1, 2, 3].map(|seed| cloud.garbage(seed));
    for image in [&again, &back, &gone] {
        trash(&cloud, image);
    }
    let ids: Vec<(String, String)> = cloud.trash();
    let id = |image: &String| ids.iter().find(|(name, _)| name == image).unwrap().1.clone();
    let plan = cloud.plan(&["--only", "trash-expired"]);
    std::thread::sleep(std::time::Duration::from_secs(1)); // librbd tells whole seconds
    for image in [&again, &back] {
        rbd(&["trash", "restore", "--pool", &cloud.pool.0, &id(image)]);
    }
    trash(&cloud, &again);
    let ran = cloud.apply(&plan);
    assert_eq!(ran.code, 4, "{ran:?}");
    let applied = ran.json();
    let result = |image: &String| {
        let steps = applied["steps"].as_array().unwrap();
        let step = steps.iter().position(|step| step["image"] == image.as_str()).unwrap();
        results(&applied)[step].clone()
    };
    assert!(result(&again).starts_with("skipped: it was trashed again"), "{}", result(&again));
    assert!(result(&back).starts_with("skipped: "), "{}", result(&back));
    assert_eq!(result(&gone), "done");
    assert!(cloud.pool.images().contains(&back));
    assert_eq!(cloud.trash(), [(again.clone(), id(&again))]);
    let undone = cloud.undo(&plan);
    assert_eq!(undone.code, 4, "what was purged is named: {undone:?}");
    assert!(undone.json().to_string().contains("it was purged"), "{undone:?}");
}

#[test]
fn a_trashed_image_comes_back_under_any_free_name() {
    let cloud = Cloud::new();
    let garbage = cloud.garbage(1);
    let id = cloud.id(&garbage);
    trash(&cloud, &garbage);
    cloud.pool.put(&garbage, b"another");
    let restore = |options: &[&str]| {
        run(&[&["trash", "restore", &id, "--pool", &cloud.pool.0, "--user", "glance"], options].concat())
    };
    let taken = restore(&[]);
    assert!(taken.code == 1 && taken.stderr.contains("already exists"), "{taken:?}");
    assert_eq!(cloud.trash(), [(garbage.clone(), id.clone())]);
    let name = uuid();
    restore(&["--name", &name]).ok();
    assert_eq!((cloud.id(&name), cloud.trash()), (id.clone(), vec![]));
    let gone = restore(&[]);
    assert!(gone.code == 1 && gone.stderr.contains("not found"), "{gone:?}");
}
