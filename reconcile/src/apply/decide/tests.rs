//! The decisions one by one; what they come to together, the model shows.

use std::time::Duration;

use rbd::TrashSource;

use super::*;
use crate::{
    facts::{Closer, DatabaseFacts, GlanceFacts, GlanceImage, RbdImage, Trashed},
    plan::{Allow, Health, PlanPolicy},
    scan::{Scan, Summary},
};

const NAME: &str = "6b2d4a3e-1111-4222-8333-444455556666";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn image() -> RbdImage {
    RbdImage {
        name: NAME.into(),
        id: "10a".into(),
        created: Some(at(-90_000)),
        modified: Some(at(-90_000)),
        closer: Some(Closer::default()),
        ..RbdImage::default()
    }
}

fn trashed() -> Trashed {
    Trashed {
        id: "10a".into(),
        name: NAME.into(),
        source: TrashSource::User,
        deleted: at(-100),
        deferred_until: at(-50),
        image: Some(Box::new(image())),
    }
}

/// A pool with one image, whose row is deleted.
fn facts(images: Vec<RbdImage>, trash: Vec<Trashed>) -> Facts {
    let row = GlanceImage {
        id: NAME.into(),
        status: "deleted".into(),
        deleted: true,
        created: Some(at(-90_000)),
        updated: Some(at(-89_000)),
        ..GlanceImage::default()
    };
    let database = DatabaseFacts { name: "glance".into(), newest: Some(at(-1)), ..DatabaseFacts::default() };
    Facts {
        fsid: "f".into(),
        pools: vec![PoolFacts { name: "images".into(), images, trash, ..PoolFacts::default() }],
        glance: GlanceFacts {
            databases: vec![database],
            images: [(NAME.to_owned(), row)].into(),
            locations: Vec::new(),
        },
    }
}

/// The real plan for what these facts show.
fn planned(facts: &Facts, kind: Kind) -> (Plan, Step) {
    let policy = PlanPolicy {
        grace: Duration::from_secs(10),
        only: vec![kind],
        allow: vec![Allow::Unseen, Allow::NoLocations],
        max_percent: 100,
        ..PlanPolicy::default()
    };
    let findings = classify(facts, &policy_of(&policy), at(0));
    let scan = Scan {
        schema: 1,
        complete: true,
        started_at: at(0),
        fsid: "f".into(),
        pools: vec!["images".into()],
        summary: Summary { knowledge: facts.glance.databases.clone(), ..Summary::default() },
        problems: Vec::new(),
        notes: Vec::new(),
        findings,
    };
    let plan = plan::plan(&scan, &[], &Health::default(), &policy, at(0));
    let step = plan.steps.first().unwrap_or_else(|| panic!("{plan:#?}")).clone();
    (plan, step)
}

fn why(verdict: Verdict) -> String {
    match verdict {
        Verdict::Go => "go".into(),
        Verdict::Skip(why) => why,
    }
}

#[test]
fn only_what_is_still_what_was_planned_for_is_done() {
    let then = facts(vec![image()], vec![]);
    let (plan, step) = planned(&then, Kind::OrphanDeleted);
    let look = |facts: &Facts, problems: &[Problem]| why(before(&plan, &step, facts, problems, at(60)));
    assert_eq!(look(&then, &[]), "go");

    let problem = Problem { what: NAME.into(), why: "timed out".into() };
    assert!(look(&then, &[problem]).starts_with("not all could be read again"), "unknown is not the same");
    assert_eq!(look(&facts(vec![], vec![]), &[]), "it is not there any more");
    assert_eq!(look(&facts(vec![], vec![trashed()]), &[]), "it is trash-expired now, no longer orphan-deleted");
    let other = RbdImage { id: "10b".into(), ..image() };
    assert_eq!(look(&facts(vec![other], vec![]), &[]), "its name is another image's now (id 10b)");
    let mut row = then.clone();
    row.glance.images.clear();
    assert_eq!(look(&row, &[]), "it is orphan now, no longer orphan-deleted", "even of a kind that is as dead");
    let open = Closer { watchers: vec!["client.1 a".into()], locks: vec![] };
    let watched = RbdImage { closer: Some(open), ..image() };
    assert_eq!(look(&facts(vec![watched], vec![]), &[]), "it is in-flight now, no longer orphan-deleted");
    let mut cloned = image();
    cloned.children.count = 1;
    assert_eq!(look(&facts(vec![cloned], vec![]), &[]), "blocked by children");
    let young = RbdImage { modified: Some(at(55)), ..image() };
    assert_eq!(look(&facts(vec![young], vec![]), &[]), "it is in-flight now, no longer orphan-deleted");
}

#[test]
fn only_the_entry_that_was_planned_for_is_purged() {
    let then = facts(vec![], vec![trashed()]);
    let (plan, step) = planned(&then, Kind::TrashExpired);
    let look = |facts: &Facts| why(before(&plan, &step, facts, &[], at(60)));
    assert_eq!(look(&then), "go");
    let again = Trashed { deleted: at(20), deferred_until: at(20), ..trashed() };
    assert!(look(&facts(vec![], vec![again])).starts_with("it was trashed again"), "another stay in the trash");
    assert_ne!(look(&facts(vec![image()], vec![])), "go", "it was restored");
    assert_ne!(look(&facts(vec![image()], vec![trashed()])), "go", "it is in its place as well");
    let kept = Trashed { deferred_until: at(600), ..trashed() };
    assert_ne!(look(&facts(vec![], vec![kept])), "go");
    let mut row = then;
    row.glance.images.get_mut(NAME).unwrap().deleted = false;
    assert_ne!(look(&row), "go", "its row is alive again");
}

#[test]
fn what_somebody_came_to_own_does_not_stay_in_the_trash() {
    let (plan, step) = planned(&facts(vec![image()], vec![]), Kind::OrphanDeleted);
    let moved = || Trashed { deleted: at(60), deferred_until: at(9999), ..trashed() };
    let look = |facts: &Facts| why(after(&step, facts, &[], at(61), &plan.policy));
    assert_eq!(look(&facts(vec![], vec![moved()])), "go");
    let mut row = facts(vec![], vec![moved()]);
    row.glance.images.get_mut(NAME).unwrap().deleted = false;
    row.glance.images.get_mut(NAME).unwrap().status = "active".into();
    assert_eq!(look(&row), "its row is active by now");
    assert_eq!(look(&facts(vec![image()], vec![])), "it is not in the trash");
}
