//! What each action does, and what undoes it.

use serde_json::{Value, json};

use super::cloud::{Cloud, journal_of, results};
use crate::lab::{rbd, run, uuid};

/// Looking is the default; only --yes changes anything.
#[test]
fn a_plan_is_applied_only_when_told_to_and_taken_back_whole() {
    let cloud = Cloud::new();
    let garbage: Vec<String> = (1..4).map(|seed| cloud.garbage(seed)).collect();
    let before = cloud.images();
    let plan = cloud.plan(&[]);

    let dry = cloud.applying(&plan, &[]).output().unwrap();
    let applied: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!((dry.status.code(), &applied["dry_run"]), (Some(0), &json!(true)), "{applied:#}");
    assert_eq!(results(&applied), ["would"; 3]);
    assert_eq!((cloud.images(), cloud.trash()), (before.clone(), vec![]));
    assert!(!std::path::Path::new(&journal_of(&plan)).exists());

    let ran = cloud.apply(&plan).ok();
    let applied = ran.json();
    assert_eq!(results(&applied), ["done"; 3], "{applied:#}");
    assert_eq!(applied["summary"]["done"], 3);
    assert!(applied["summary"]["bytes"].as_u64().unwrap() >= 3 * 50_000, "{applied:#}");
    let mut names: Vec<String> = cloud.trash().into_iter().map(|(name, _)| name).collect();
    names.sort();
    let mut expected = garbage.clone();
    expected.sort();
    assert_eq!(names, expected);
    let list = run(&["trash", "list", "--pool", &cloud.pool.0, "--user", "scan", "--format", "json"]).ok().json();
    let kept = list.as_array().unwrap().iter().map(|entry| entry["kept"].as_str().unwrap());
    assert_eq!(kept.collect::<Vec<_>>(), ["its deferment has not ended"; 3], "a week, unless told otherwise");

    // The same plan again, with its journal, does nothing; without it, it finds nothing left to do.
    assert_eq!(results(&cloud.apply(&plan).ok().json()), ["done-before"; 3]);
    let other = cloud.file("other.journal").display().to_string();
    let replayed = cloud.applying(&plan, &["--yes", "--journal", &other]).output().unwrap();
    assert_eq!(replayed.status.code(), Some(4));
    for result in results(&serde_json::from_slice(&replayed.stdout).unwrap()) {
        assert!(result.starts_with("skipped: it is ") && result.contains("trash"), "{result}");
    }

    let dry = run(&["undo", &journal_of(&plan), "--user", "glance", "--format", "json"]).ok().json();
    assert_eq!((&dry["summary"]["restored"], cloud.trash().len()), (&json!(3), 3));
    let undone = cloud.undo(&plan).ok().json();
    assert_eq!(undone["summary"], json!({ "restored": 3, "in_place": 0, "lost": 0, "left": 0 }));
    assert_eq!((cloud.images(), cloud.trash()), (before, vec![]), "bit for bit");
    assert_eq!(cloud.undo(&plan).ok().json()["summary"]["in_place"], 3, "twice is as good as once");

    // What was undone is not done again by the same plan.
    let again = cloud.apply(&plan);
    assert_eq!(again.code, 4);
    assert_eq!(results(&again.json()), ["skipped: it was undone; make a new plan"; 3]);
    assert_eq!(cloud.trash(), []);
}

#[test]
fn what_glance_needs_is_given_back() {
    let cloud = Cloud::new();
    let (trashed, bare, unprotected) = (cloud.healthy(1), cloud.healthy(2), cloud.healthy(3));
    let before = cloud.images();
    rbd(&["trash", "mv", &cloud.path(&trashed)]);
    for image in [&bare, &unprotected] {
        rbd(&["snap", "unprotect", &format!("{}@snap", cloud.path(image))]);
    }
    rbd(&["snap", "rm", &format!("{}@snap", cloud.path(&bare))]);
    let plan = cloud.plan(&[]);
    let applied = cloud.apply(&plan).ok().json();
    let actions: Vec<_> = applied["steps"].as_array().unwrap().iter().map(|step| &step["action"]).collect();
    assert_eq!(actions, ["restore", "snapshot", "protect"]);
    assert_eq!(results(&applied), ["done"; 3], "{applied:#}");
    assert_eq!(cloud.images(), before);
    let scan = cloud.pool.scan(&cloud.database.url());
    assert_eq!((scan.code, &scan.json()["findings"]), (0, &json!([])), "all is well again");
}

/// The database is never written: people register an image, and are told how.
#[test]
fn adopting_is_left_to_people() {
    let cloud = Cloud::new();
    let id = uuid();
    cloud.pool.put(&id, b"whole");
    cloud.database.row(&id, "queued");
    let plan = cloud.plan(&[]);
    let before = cloud.images();
    let applied = cloud.apply(&plan).ok().json();
    assert_eq!(applied["steps"][0]["action"], "adopt", "{applied:#}");
    assert!(applied["steps"][0]["commands"].to_string().contains(&id), "{applied:#}");
    assert_eq!(cloud.images(), before);
}
