//! Killed anywhere: the same command finishes the plan, and undo takes all of it back.
//!
//! `GLANCE_RBD_LONG` strikes after every line of a plan of thirty steps, and kills at many random moments more.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use super::cloud::{Cloud, Held, journal_of, results};
use crate::lab::{Ran, rbd, run, sh, uuid};

fn long() -> bool {
    std::env::var_os("GLANCE_RBD_LONG").is_some()
}

/// Applies a plan with a journal of its own, until the program aborts after so many lines.
fn struck(cloud: &Cloud, plan: &Path, journal: &str, lines: usize) {
    let mut command = cloud.applying(plan, &["--yes", "--journal", journal]);
    let ran: Ran = command.env("GLANCE_RBD_TEST_ABORT_AFTER", lines.to_string()).output().unwrap().into();
    assert_eq!(ran.code, -1, "it was to be killed after line {lines}: {ran:?}");
}

fn resumed(cloud: &Cloud, plan: &Path, journal: &str) -> Value {
    Ran::from(cloud.applying(plan, &["--yes", "--journal", journal]).output().unwrap()).ok().json()
}

fn undone(journal: &str) -> Value {
    run(&["undo", journal, "--user", "glance", "--yes", "--format", "json"]).ok().json()
}

#[test]
fn killed_after_any_line_it_is_finished_and_undone() {
    let steps = if long() { 30 } else { 6 };
    let cloud = Cloud::new();
    for seed in 0..steps {
        cloud.garbage(seed);
    }
    let before = cloud.images();
    let plan = cloud.plan(&[]);
    let whole = cloud.file("whole.journal").display().to_string();
    assert_eq!(resumed(&cloud, &plan, &whole)["summary"]["done"], steps);
    let (after, trash) = (cloud.images(), cloud.trash());
    assert_eq!(undone(&whole)["summary"]["restored"], steps);

    let all = 1..=2 * steps as usize;
    let lines: Vec<usize> = if long() { all.collect() } else { vec![1, 4, 7, 12] };
    for line in lines {
        let journal = cloud.file(&format!("{line}.journal")).display().to_string();
        struck(&cloud, &plan, &journal, line);
        let applied = resumed(&cloud, &plan, &journal);
        assert_eq!(applied["summary"]["done"], steps, "line {line}: {applied:#}");
        assert_eq!(cloud.trash(), trash, "line {line}");
        let undone = undone(&journal);
        assert_eq!(undone["summary"]["restored"], steps, "line {line}: {undone:#}");
        assert_eq!(cloud.trash(), [], "line {line}");
        assert_eq!(cloud.pool.images().len(), before.len(), "line {line}");
    }
    assert_eq!(cloud.images(), before, "bit for bit");
    let last = cloud.file("last.journal").display().to_string();
    resumed(&cloud, &plan, &last);
    assert_eq!((cloud.images(), cloud.trash()), (after, trash));
}

/// Undo after a crash, without a resume, knows as well what may have been moved.
#[test]
fn killed_after_any_line_it_is_undone_without_being_finished() {
    let cloud = Cloud::new();
    for seed in 0..3 {
        cloud.garbage(seed);
    }
    let before = cloud.images();
    let plan = cloud.plan(&[]);
    for line in if long() { vec![1, 2, 3, 4, 5, 6] } else { vec![1, 4] } {
        let journal = cloud.file(&format!("{line}.journal")).display().to_string();
        struck(&cloud, &plan, &journal, line);
        undone(&journal);
        assert_eq!(cloud.trash(), [], "line {line}");
    }
    assert_eq!(cloud.images(), before);
}

#[test]
fn every_kind_of_step_survives_being_killed() {
    let cloud = Cloud::new();
    let lines: &[usize] = if long() { &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10] } else { &[3, 9] };
    for &line in lines {
        let (trashed, bare, unprotected) = (cloud.healthy(1), cloud.healthy(2), cloud.healthy(3));
        let (garbage, expired) = (cloud.garbage(4), cloud.garbage(5));
        let id = cloud.id(&garbage);
        rbd(&["trash", "mv", &cloud.path(&trashed)]);
        rbd(&["trash", "mv", &cloud.path(&expired)]);
        for image in [&bare, &unprotected] {
            rbd(&["snap", "unprotect", &format!("{}@snap", cloud.path(image))]);
        }
        rbd(&["snap", "rm", &format!("{}@snap", cloud.path(&bare))]);
        let kinds = "trashed-image,missing-snapshot,unprotected-snapshot,orphan-deleted,trash-expired";
        let plan = cloud.plan(&["--only", kinds]);
        let journal = journal_of(&plan);
        struck(&cloud, &plan, &journal, line);
        let applied = resumed(&cloud, &plan, &journal);
        assert_eq!(applied["summary"]["done"], 5, "line {line}: {applied:#}");
        assert!(cloud.trash().contains(&(garbage, id)), "line {line}");
        assert!(!cloud.trash().iter().any(|(name, _)| *name == expired), "line {line}");
        let scan = cloud.pool.scan(&cloud.database.url()).json();
        let kinds = scan["summary"]["findings"].as_object().unwrap().keys().collect::<Vec<_>>();
        assert!(kinds.iter().all(|kind| *kind == "trash-deferred" || *kind == "duplicate"), "line {line}: {scan:#}");
    }
}

/// A kill does not wait for a line to be written: it may strike between librbd's own writes.
#[test]
fn killed_at_random_moments_it_is_finished_and_undone() {
    let cloud = Cloud::new();
    for seed in 0..4 {
        cloud.garbage(seed);
    }
    let before = cloud.images();
    let plan = cloud.plan(&[]);
    let mut state = u64::from(std::process::id());
    println!("seed {state}");
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..if long() { 100 } else { 2 } {
        let journal = cloud.file(&format!("random-{round}.journal")).display().to_string();
        for _ in 0..2 {
            let mut child = cloud.applying(&plan, &["--yes", "--journal", &journal]).spawn().unwrap();
            // Until it has begun, or has been at it for a while.
            let wait = Duration::from_millis(random(1500));
            std::thread::sleep(wait);
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let applied = resumed(&cloud, &plan, &journal);
        assert_eq!(applied["summary"]["done"], 4, "{applied:#}");
        assert_eq!(cloud.trash().len(), 4);
        assert_eq!(undone(&journal)["summary"]["lost"], 0);
        assert_eq!(cloud.trash(), []);
    }
    assert_eq!(cloud.images(), before);
}

/// librbd's move to the trash is several writes: an entry in the trash, the image's name, the directory, the entry again. Cut
/// off in between, the image is both in the trash and in its place, or half of it, and librbd neither restores it nor
/// removes it. All of these are ended by the same command, and undone.
#[test]
fn a_move_that_was_cut_off_inside_librbd_is_finished_or_undone() {
    let cloud = Cloud::new();
    let garbage = cloud.garbage(1);
    let before = cloud.images();
    let id = cloud.id(&garbage);
    let plan = cloud.plan(&[]);
    // A journal that says what was about to be done, and a trash entry as this plan makes them.
    Held::start(&cloud, &plan).kill();
    let begun = std::fs::read(journal_of(&plan)).unwrap();
    resumed(&cloud, &plan, &journal_of(&plan));
    let entry = cloud.file("entry");
    let rados = |command: &str| sh("sh", &["-c", &format!("rados -p {} {command}", cloud.pool.0)]);
    rados(&format!("getomapval rbd_trash id_{id} {}", entry.display()));
    let entry_bytes = std::fs::read(&entry).unwrap();
    assert_eq!(*entry_bytes.last().unwrap(), 0, "the state is last, and normal");
    let mark = |state: u8| {
        let mut bytes = entry_bytes.clone();
        *bytes.last_mut().unwrap() = state;
        std::fs::write(&entry, bytes).unwrap();
        rados(&format!("setomapval rbd_trash id_{id} < {}", entry.display()));
    };
    let (moving, restoring) = (1, 3);
    let back = || rbd(&["trash", "restore", "--pool", &cloud.pool.0, &id]);
    let halves: [(&str, &dyn Fn()); 5] = [
        ("in the trash, and wholly in its place", &|| mark(moving)),
        ("its name is gone, its place in the directory is not", &|| {
            mark(moving);
            rados(&format!("rm rbd_id.{garbage}"));
        }),
        ("gone from its place, the entry not settled", &|| {
            rbd(&["trash", "mv", &cloud.path(&garbage)]);
            mark(moving);
        }),
        ("on its way back, with its place already", &|| mark(restoring)),
        ("on its way back, its place not yet taken", &|| {
            rbd(&["trash", "mv", &cloud.path(&garbage)]);
            mark(restoring);
        }),
    ];
    for (n, (what, make)) in halves.into_iter().enumerate() {
        // Undone at once, and undone after it was finished: each half in one of the two ways, or in both.
        for resume in if long() { vec![true, false] } else { vec![n % 2 == 0] } {
            let journal = cloud.file(&format!("{}.journal", uuid())).display().to_string();
            std::fs::write(&journal, &begun).unwrap();
            back();
            make();
            if resume {
                let applied = resumed(&cloud, &plan, &journal);
                assert_eq!(results(&applied), ["done"], "{what}");
                assert_eq!(cloud.trash(), [(garbage.clone(), id.clone())], "{what}");
                assert!(!cloud.pool.images().contains(&garbage), "{what}");
            }
            let undone = undone(&journal);
            assert_eq!(undone["summary"]["restored"], 1, "{what}: {undone:#}");
            assert_eq!((cloud.images(), cloud.trash()), (before.clone(), vec![]), "{what}");
            rbd(&["trash", "mv", &cloud.path(&garbage)]);
        }
    }
}

/// An image that somebody else trashed after the crash is theirs: neither finished nor brought back.
#[test]
fn what_others_trashed_after_a_crash_is_left_to_them() {
    let cloud = Cloud::new();
    let garbage = cloud.garbage(1);
    let plan = cloud.plan(&[]);
    Held::start(&cloud, &plan).kill();
    rbd(&["trash", "mv", &cloud.path(&garbage), "--expires-at", "tomorrow"]);
    let trash = cloud.trash();
    let ran = cloud.apply(&plan);
    assert_eq!(ran.code, 4);
    let result = &results(&ran.json())[0];
    assert!(result.starts_with("skipped: it is in the trash since") && result.contains("not by this plan"), "{result}");
    let ran = cloud.undo(&plan);
    assert_eq!((ran.code, &ran.json()["summary"]["lost"]), (4, &json!(1)), "named, not restored");
    assert_eq!(cloud.trash(), trash);
}

/// A journal that lost its end knows less, and does no harm: what it does not know of is looked at like anything else.
#[test]
fn a_truncated_journal_does_no_harm() {
    let cloud = Cloud::new();
    for seed in 0..3 {
        cloud.garbage(seed);
    }
    let before = cloud.images();
    let plan = cloud.plan(&[]);
    cloud.apply(&plan).ok();
    let trash = cloud.trash();
    let whole = std::fs::read(journal_of(&plan)).unwrap();
    let ends: Vec<usize> =
        whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(end, _)| end + 1).collect();
    let cuts = ends.iter().flat_map(|end| [*end, end + 20]).filter(|end| *end < whole.len());
    for end in cuts.step_by(if long() { 1 } else { 5 }) {
        std::fs::write(journal_of(&plan), &whole[..end]).unwrap();
        let ran = cloud.apply(&plan);
        assert!(ran.code == 0 || ran.code == 4, "{ran:?}");
        assert_eq!(cloud.trash(), trash, "cut at {end}");
    }
    for wrong in [&whole[..0], &whole[..10], &whole[1..]] {
        std::fs::write(journal_of(&plan), wrong).unwrap();
        assert_eq!((cloud.apply(&plan).code, cloud.undo(&plan).code), (1, 1), "refused");
        assert_eq!(std::fs::read(journal_of(&plan)).unwrap(), wrong, "and left as it is");
        assert_eq!(cloud.trash(), trash);
    }
    std::fs::write(journal_of(&plan), &whole).unwrap();
    cloud.undo(&plan).ok();
    assert_eq!((cloud.images(), cloud.trash()), (before, vec![]));
}
