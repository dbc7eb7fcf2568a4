//! What is planned, and what is left out.

use serde_json::json;

use super::*;
use crate::finding::Block;

#[test]
fn what_is_safe_is_planned_unasked_and_the_rest_by_name_only() {
    let table = [
        (Kind::TrashedImage, Some(Action::Restore), true),
        (Kind::UnprotectedSnapshot, Some(Action::Protect), true),
        (Kind::Unregistered, Some(Action::Adopt), true),
        (Kind::OrphanDeleted, Some(Action::Trash), true),
        (Kind::PartialUpload, Some(Action::Trash), true),
        (Kind::LeakedClone, Some(Action::Trash), true),
        (Kind::Orphan, Some(Action::Trash), false),
        (Kind::TrashExpired, Some(Action::Purge), false),
    ];
    for (kind, action, unasked) in table {
        let expected: Vec<(Action, &str)> = action.into_iter().map(|action| (action, A)).collect();
        assert_eq!(actions(&planned(vec![found(kind, A)], &only(&[kind]))), expected, "{kind}");
        let plan = planned(vec![found(kind, A)], &PlanPolicy::default());
        assert_eq!(actions(&plan), if unasked { expected } else { vec![] }, "{kind}");
        if !unasked {
            assert_eq!(why(&plan), format!("not asked for: --only {kind}"));
        }
        let other = planned(vec![found(kind, A)], &only(&[Kind::MissingSnapshot]));
        assert!(other.steps.is_empty(), "{kind} was not asked for");
    }
    for kind in Kind::ALL.into_iter().filter(|kind| kind.treatment().is_none()) {
        let plan = planned(vec![found(kind, A)], &only(&[kind]));
        assert!(plan.steps.is_empty() && plan.left_out.is_empty(), "{kind} is for people to judge");
    }
}

#[test]
fn what_gives_back_comes_first() {
    let kinds = [Kind::TrashExpired, Kind::Orphan, Kind::UnprotectedSnapshot, Kind::TrashedImage];
    let findings = kinds.into_iter().chain([Kind::Orphan]).zip([A, B, A, B, C]);
    let plan = planned(findings.map(|(kind, image)| found(kind, image)).collect(), &only(&kinds));
    let expected =
        [(Action::Restore, B), (Action::Protect, A), (Action::Trash, B), (Action::Trash, C), (Action::Purge, A)];
    assert_eq!(actions(&plan), expected);
    assert_eq!(plan.steps.iter().map(|step| step.n).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(plan.summary.bytes, 3 * 4096, "what is restored wins nothing");
    assert_eq!(plan.summary.steps[&Action::Trash], 2);
}

/// Two locations may name one image, and ask for the same thing.
#[test]
fn one_image_is_acted_on_once() {
    let twice = vec![found(Kind::TrashedImage, A), found(Kind::TrashedImage, A)];
    assert_eq!(planned(twice, &PlanPolicy::default()).steps.len(), 1);
}

#[test]
fn nothing_that_is_blocked_is_removed_and_no_override_changes_that() {
    let everything = PlanPolicy { allow: Allow::ALL.to_vec(), ..only(&[Kind::Orphan, Kind::TrashExpired]) };
    for kind in [Kind::Orphan, Kind::TrashExpired] {
        for block in [
            Block::Children,
            Block::Watchers,
            Block::Lock,
            Block::Age,
            Block::Unknown,
            Block::Group,
            Block::Mirror,
            Block::Migration,
            Block::Snapshots,
            Block::Protected,
        ] {
            let finding = Finding { blocked_by: vec![block], ..found(kind, A) };
            assert_eq!(why(&planned(vec![finding], &everything)), format!("blocked by {block}"));
        }
        let stale = Finding { blocked_by: vec![Block::Stale], ..found(kind, A) };
        assert_eq!(planned(vec![stale.clone()], &everything).steps.len(), 1, "that one may be overridden");
        assert!(planned(vec![stale], &only(&[kind])).is_refused());
    }
}

/// A pool holds more than Glance's images: volumes, servers' disks, Kubernetes'.
#[test]
fn only_what_glance_named_is_removed() {
    for name in ["volume-1", &format!("{A}_disk"), "golden", ""] {
        for kind in [Kind::Orphan, Kind::TrashExpired] {
            assert_eq!(why(&planned(vec![found(kind, name)], &only(&[kind]))), "its name is not Glance's");
        }
    }
}

#[test]
fn nothing_young_is_removed() {
    let policy = only(&[Kind::Orphan, Kind::TrashExpired]);
    for fact in ["created", "row_updated"] {
        let finding = found(Kind::Orphan, A).with(fact, hours_ago(23));
        assert!(why(&planned(vec![finding], &policy)).starts_with("younger than the grace"), "{fact}");
    }
    let ahead = found(Kind::Orphan, A).with("created", hours_ago(-1));
    assert!(why(&planned(vec![ahead], &policy)).starts_with("younger"), "a clock that is ahead makes nothing old");
    let just_trashed = found(Kind::TrashExpired, A).with("trashed", hours_ago(23));
    assert!(why(&planned(vec![just_trashed], &policy)).starts_with("younger"));
    for value in [json!("yesterday"), json!(null)] {
        let mut finding = found(Kind::Orphan, A);
        finding.evidence.insert("created".into(), value);
        assert_eq!(why(&planned(vec![finding], &policy)), "its age is not known");
    }
}

/// One look is not enough: what is dead is dead for days.
#[test]
fn what_is_removed_was_seen_the_same_before() {
    let orphan = || found(Kind::Orphan, A);
    let policy = only(&[Kind::Orphan]);
    let seen = |earlier: &[Scan], policy: &PlanPolicy| {
        plan(&scan(0, vec![orphan()]), earlier, &Health::default(), policy, now())
    };
    let ok = |earlier: &[Scan]| {
        let plan = seen(earlier, &policy);
        assert!(plan.refused.is_empty());
        assert_eq!(plan.steps.len() + plan.left_out.len(), 1);
        plan.steps.len() == 1
    };
    assert!(ok(&[scan(24, vec![orphan()])]));
    assert_eq!(seen(&[scan(24, vec![orphan()])], &policy).steps[0].evidence["seen_since"], json!(hours_ago(24)));
    assert!(ok(&[scan(1, vec![orphan()]), scan(30, vec![orphan()])]), "in whatever order");
    assert!(!ok(&[]), "never");
    assert!(!ok(&[scan(23, vec![orphan()])]), "too late");
    assert!(!ok(&[scan(30, vec![])]), "not there");
    assert!(!ok(&[scan(30, vec![found(Kind::Orphan, B)])]), "another");
    assert!(!ok(&[scan(30, vec![found(Kind::PartialUpload, A)])]), "as something else");
    assert!(!ok(&[scan(30, vec![orphan()]), scan(12, vec![found(Kind::InFlight, A)])]), "alive in between");
    assert!(!ok(&[scan(30, vec![Finding { image_id: Some("another".into()), ..orphan() }])]), "an earlier image");
    assert!(!ok(&[scan(30, vec![Finding { image_id: None, ..orphan() }])]), "whose id is not known");
    assert!(!ok(&[scan(30, vec![Finding { pool: "backup".into(), ..orphan() }])]), "in another pool");
    assert!(!ok(&[scan(30, vec![Finding { namespace: "n".into(), ..orphan() }])]), "in another namespace");
    assert!(!ok(&[Scan { complete: false, ..scan(30, vec![orphan()]) }]), "by a scan that did not see everything");
    assert!(!ok(&[Scan { fsid: "another".into(), ..scan(30, vec![orphan()]) }]), "in another cluster");
    assert!(!ok(&[scan(-30, vec![orphan()])]), "in the future");

    let overridden = PlanPolicy { allow: vec![Allow::Unseen], ..policy.clone() };
    assert_eq!(seen(&[], &overridden).steps.len(), 1);
    assert!(!seen(&[], &overridden).steps[0].evidence.contains_key("seen_since"), "nothing is made up");
}

/// A replica that has stood still since an image came has no row of it, nor anything that would tell.
#[test]
fn a_database_testifies_only_against_what_it_outlived() {
    let newest = |newest: Option<Timestamp>, finding: Finding, policy: &PlanPolicy| {
        let mut scan = scan(0, vec![finding.clone()]);
        let mut other = scan.summary.knowledge[0].clone();
        other.newest = newest;
        scan.summary.knowledge.push(other);
        let earlier = self::scan(48, vec![finding]);
        plan(&scan, &[earlier], &Health::default(), policy, now())
    };
    let policy = only(&[Kind::Orphan, Kind::OrphanDeleted]);
    let orphan = || found(Kind::Orphan, A); // made 100 hours ago
    let minutes = |minutes| Some(hours_ago(100) + SignedDuration::from_mins(minutes));
    assert_eq!(newest(minutes(5), orphan(), &policy).steps.len(), 1);
    for silent in [minutes(4), minutes(-60), None] {
        assert!(why(&newest(silent, orphan(), &policy)).contains("has no row younger than the image"));
        let known = orphan().with("row_status", "deleted");
        assert_eq!(newest(silent, known, &policy).steps.len(), 1, "it knows the image");
        let believed = PlanPolicy { allow: vec![Allow::Stale], ..policy.clone() };
        assert_eq!(newest(silent, orphan(), &believed).steps.len(), 1);
    }
}

#[test]
fn what_has_waited_in_the_trash_was_seen_there() {
    let findings = vec![found(Kind::TrashExpired, A)];
    let earlier = [scan(30, vec![found(Kind::TrashDeferred, A)])];
    let planned = plan(&scan(0, findings), &earlier, &Health::default(), &only(&[Kind::TrashExpired]), now());
    assert_eq!(actions(&planned), [(Action::Purge, A)]);
    assert_eq!(planned.steps[0].undo, "cannot be undone");
}

/// What gives back is planned as soon as it is found: data that Glance promises is missing.
#[test]
fn what_gives_back_waits_for_nothing() {
    for kind in [Kind::TrashedImage, Kind::UnprotectedSnapshot, Kind::Unregistered] {
        let young = found(kind, A).with("created", hours_ago(0));
        let plan = plan(&scan(0, vec![young]), &[], &Health::default(), &PlanPolicy::default(), now());
        assert_eq!(plan.steps.len(), 1, "{kind}");
    }
}

/// A snapshot of half an image would be served as the whole.
#[test]
fn a_snapshot_is_made_of_a_whole_image_only() {
    let whole = || found(Kind::MissingSnapshot, A).with("missing", "snap").with("size", 4096).with("row_size", 4096);
    let make = |finding: Finding| planned(vec![finding], &PlanPolicy::default());
    assert_eq!(actions(&make(whole())), [(Action::Snapshot, A)]);
    for (finding, expected) in [
        (whole().with("size", 4095), "the image has 4095 bytes, Glance's row says 4096"),
        (found(Kind::MissingSnapshot, A).with("missing", "snap").with("size", 1), "it is not known"),
        (whole().with("upload", json!({ "client": "client.1" })), "its upload was not finished"),
        (whole().with("watchers", ["10.0.0.1:0/1"]), "somebody has it open for writing"),
        (whole().with("missing", "yesterday"), "the snapshot that is missing is not one that Glance makes"),
    ] {
        assert!(why(&make(finding)).starts_with(expected), "{expected}");
    }
}

#[test]
fn adopting_is_said_and_not_done() {
    let adopt = |status: &str| {
        let finding = Finding { glance_id: Some(A.into()), ..found(Kind::Unregistered, A) };
        planned(vec![finding.with("row_status", status)], &PlanPolicy::default()).steps.remove(0)
    };
    let location = format!("rbd://{FSID}/images/{A}/snap");
    let queued = adopt("queued");
    assert_eq!(queued.location.as_ref(), Some(&location));
    assert_eq!(queued.bytes, None, "it wins nothing");
    assert!(queued.commands.last().unwrap().contains(&format!("location-add --url {location} {A}")));
    // Glance takes no location for an image that is being saved.
    assert!(adopt("saving").commands.iter().any(|command| command.contains("image-create")));
    let elsewhere = Finding { namespace: "n".into(), ..found(Kind::Unregistered, A) };
    let plan = planned(vec![elsewhere], &PlanPolicy::default());
    assert_eq!(why(&plan), "a location cannot name an RBD namespace");
}

/// What is in the file is what people read; fields are only ever added to it.
#[test]
fn the_file_is_like_this() {
    let findings = vec![
        Finding { glance_id: Some(B.into()), ..found(Kind::OrphanDeleted, B) },
        Finding { blocked_by: vec![Block::Children], ..found(Kind::PartialUpload, A) },
        found(Kind::Orphan, A),
    ];
    let text = |policy: &PlanPolicy| {
        let plan = planned(findings.clone(), policy);
        assert_eq!(planned(findings.clone(), policy), plan, "the same facts give the same plan");
        plan.to_json().replace(&plan.digest, "SHA-256 OF THE PLAN").replace(&plan.scan.digest, "SHA-256 OF THE SCAN")
    };
    insta::assert_snapshot!("a_plan", text(&PlanPolicy::default()));
    insta::assert_snapshot!("a_refused_plan", text(&PlanPolicy { max_images: 0, ..PlanPolicy::default() }));
}
