//! Why a plan is refused as a whole, each reason alone and with its override.

use super::*;
use crate::{finding::Block, inventory::Problem};

/// A plan for one orphan, when something else is wrong as well.
fn with(change: impl Fn(&mut Scan), health: &Health, policy: &PlanPolicy) -> Plan {
    let policy = PlanPolicy { only: vec![Kind::Orphan, Kind::TrashedImage], ..policy.clone() };
    let findings = vec![found(Kind::Orphan, A), found(Kind::TrashedImage, B)];
    let earlier = [scan(48, findings.clone())];
    let mut scan = scan(0, findings);
    change(&mut scan);
    plan(&scan, &earlier, health, &policy, now())
}

/// It is refused for this, once, and the override of this name, and no other, lifts it.
fn refused_unless(allowed: Option<Allow>, reason: &str, health: &Health, change: impl Fn(&mut Scan)) {
    let plan = with(&change, health, &PlanPolicy::default());
    assert!(plan.steps.is_empty() && plan.summary.steps.is_empty(), "{reason}: not even what gives back");
    let [refusal] = plan.refused.as_slice() else { panic!("{reason}: {:?}", plan.refused) };
    assert!(format!("{}: {}", refusal.what, refusal.why).contains(reason), "{reason}: {refusal:?}");
    for other in Allow::ALL {
        let lifted = with(&change, health, &allow(other)).refused.is_empty();
        assert_eq!(lifted, allowed == Some(other), "{reason}: --allow {other}");
        assert_eq!(
            refusal.why.contains(&format!("--allow {other}")),
            allowed == Some(other),
            "it says how: {refusal:?}"
        );
    }
}

#[test]
fn each_reason_refuses_the_whole_plan() {
    let healthy = Health::default();
    assert_eq!(with(|_| {}, &healthy, &PlanPolicy::default()).steps.len(), 2, "nothing is wrong");

    refused_unless(None, "the scan is incomplete: images/x: timed out", &healthy, |scan| {
        scan.complete = false;
        scan.problems = vec![Problem { what: "images/x".into(), why: "timed out".into() }];
    });
    refused_unless(None, "no database was read", &healthy, |scan| scan.summary.knowledge.clear());
    refused_unless(Some(Allow::NoLocations), "has no location in images", &healthy, |scan| {
        scan.summary.knowledge[0].locations = 0;
    });
    refused_unless(Some(Allow::NoLocations), "b.sqlite has no location in images", &healthy, |scan| {
        let empty = DatabaseFacts { name: "b.sqlite".into(), ..DatabaseFacts::default() };
        scan.summary.knowledge.push(empty);
    });
    refused_unless(Some(Allow::NoLocations), "no location is in backup/n", &healthy, |scan| {
        let unknown =
            PoolSummary { pool: "backup".into(), namespace: "n".into(), images: 10, ..PoolSummary::default() };
        scan.summary.pools.push(unknown);
    });
    refused_unless(Some(Allow::ForeignFsid), "has no location with this cluster's fsid", &healthy, |scan| {
        scan.summary.knowledge[0].locations = 0;
        scan.findings.push(found(Kind::ForeignCluster, B));
    });
    refused_unless(Some(Allow::Undecryptable), "1 locations cannot be read", &healthy, |scan| {
        scan.findings.push(found(Kind::UndecryptableLocation, B));
    });
    refused_unless(Some(Allow::Stale), "the database is older than what is in the pool", &healthy, |scan| {
        let stale = Finding { blocked_by: vec![Block::Stale], ..found(Kind::OrphanDeleted, B) };
        scan.findings.push(stale);
    });
    let sick = Health { problems: vec!["1 osds down: OSD_DOWN".into()] };
    refused_unless(Some(Allow::Unhealthy), "1 osds down", &sick, |_| {});
}

#[test]
fn every_reason_is_named_at_once() {
    let sick = Health { problems: vec!["1 osds down: OSD_DOWN".into()] };
    let plan = with(
        |scan| {
            scan.complete = false;
            scan.summary.knowledge[0].locations = 0;
        },
        &sick,
        &PlanPolicy { max_images: 0, ..PlanPolicy::default() },
    );
    assert_eq!(plan.refused.len(), 4, "incomplete, no location, sick, too many: {:?}", plan.refused);
}

#[test]
fn too_many_at_once_are_refused_to_the_image() {
    let orphans = |count: usize| -> Vec<Finding> {
        (0..count).map(|n| found(Kind::Orphan, &format!("11111111-1111-4111-8111-{n:012}"))).collect()
    };
    let refused = |count, max_images, max_percent| {
        planned(orphans(count), &PlanPolicy { max_images, max_percent, ..only(&[Kind::Orphan]) }).is_refused()
    };
    assert!(!refused(25, 25, 10));
    assert!(refused(26, 25, 10));
    assert!(!refused(100, 100, 10), "10 % of 1000");
    assert!(refused(101, 200, 10));
    assert!(refused(1, 200, 0));
    assert!(!refused(1000, u64::MAX, 100));

    // What gives back is not counted: more of it is better.
    let trashed = (0..500).map(|n| found(Kind::TrashedImage, &format!("11111111-1111-4111-8111-{n:012}"))).collect();
    assert_eq!(planned(trashed, &PlanPolicy::default()).steps.len(), 500);
}

/// One pool's hundred healthy images do not make another pool's loss small.
#[test]
fn the_percentage_is_each_pools_own() {
    let policy = only(&[Kind::Orphan]);
    let findings = vec![Finding { pool: "small".into(), ..found(Kind::Orphan, A) }];
    let both = |hours| {
        let mut scan = scan(hours, findings.clone());
        let small = PoolSummary { pool: "small".into(), id: 3, images: 5, locations: 4, ..PoolSummary::default() };
        scan.summary.pools.push(small);
        scan
    };
    let plan = plan(&both(0), &[both(48)], &Health::default(), &policy, now());
    assert_eq!(plan.refused[0].what, "1 of the 5 images in small would be removed (trash)");
}
