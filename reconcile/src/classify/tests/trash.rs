//! What is in the trash.

use super::*;

fn trashed(name: &str) -> Trashed {
    Trashed {
        id: format!("id-{name}"),
        name: name.into(),
        source: TrashSource::User,
        deleted: hours_ago(50),
        deferred_until: hours_ago(1),
        image: Some(Box::new(whole(name))),
    }
}

fn with(entry: Trashed, rows: Vec<GlanceImage>, locations: Vec<GlanceLocation>) -> Facts {
    let mut facts = facts(vec![], rows, locations);
    facts.pools[0].trash.push(entry);
    facts
}

fn judged(facts: &Facts) -> Vec<(&'static str, Vec<Block>)> {
    let findings = classify(facts, &Policy::default(), now());
    findings.into_iter().map(|finding| (finding.kind.name(), finding.blocked_by)).collect()
}

#[test]
fn an_entry_is_expired_deferred_or_blocked() {
    let alone = |entry| judged(&with(entry, vec![], vec![]));
    let deferred = Trashed { deferred_until: Timestamp::from_second(now().as_second() + 1).unwrap(), ..trashed(A) };
    let parent = |children| {
        let image = RbdImage { children: Children { count: children, ..Children::default() }, ..whole(A) };
        Trashed { image: Some(Box::new(image)), ..trashed(A) }
    };
    assert_eq!(alone(trashed(A)), [("trash-expired", vec![])]);
    assert_eq!(alone(deferred), [("trash-deferred", vec![Block::Age])]);
    assert_eq!(alone(parent(1)), [("trash-blocked", vec![Block::Children])]);
    assert_eq!(alone(parent(0)), [("trash-expired", vec![])]);
    assert_eq!(
        alone(Trashed { image: None, ..trashed(A) }),
        [("trash-expired", vec![Block::Unknown])],
        "its header is damaged"
    );
    assert_eq!(
        alone(Trashed { source: TrashSource::Mirroring, ..trashed(A) }),
        [("trash-blocked", vec![Block::Mirror])]
    );
    assert_eq!(
        alone(Trashed { source: TrashSource::Migration, ..trashed(A) }),
        [("trash-blocked", vec![Block::Migration])]
    );
    assert_eq!(alone(trashed("volume-1")), [("foreign-image", vec![])], "never touched");
}

/// Ceph moves an image to the trash before it removes it: one that is being removed is nobody's to purge.
#[test]
fn a_removal_under_way_is_in_flight() {
    let removing = |deleted| Trashed { source: TrashSource::Removing, deleted, ..trashed(A) };
    assert_eq!(judged(&with(removing(hours_ago(1)), vec![], vec![])), [("in-flight", vec![])]);
    assert_eq!(judged(&with(removing(hours_ago(25)), vec![], vec![])), [("trash-expired", vec![])], "it died");
    let just_now = Trashed { deleted: now(), deferred_until: now(), ..trashed(A) };
    assert_eq!(judged(&with(just_now, vec![], vec![])), [("in-flight", vec![])], "by a store that removes it");
    let mut entry = trashed(A);
    entry.image.as_mut().unwrap().closer.as_mut().unwrap().watchers.push("client.7".into());
    assert_eq!(judged(&with(entry, vec![], vec![])), [("in-flight", vec![])]);
}

#[test]
fn what_glance_still_knows_is_not_offered_for_the_purge() {
    assert_eq!(judged(&with(trashed(A), vec![row(A, "active")], vec![at(A)])), [("trashed-image", vec![])]);
    let entry = with(trashed(A), vec![row(A, "active")], vec![]);
    assert_eq!(judged(&entry), [("trash-expired", vec![Block::Unknown])], "its row is alive");
    let pending = GlanceLocation { status: "pending_delete".into(), ..at(A) };
    let entry = with(trashed(A), vec![row(A, "active")], vec![pending]);
    assert_eq!(judged(&entry), [("trash-expired", vec![Block::Unknown])]);
    let deleted = GlanceLocation { status: "deleted".into(), deleted: true, ..at(A) };
    let entry = with(trashed(A), vec![row(A, "deleted")], vec![deleted]);
    assert_eq!(judged(&entry), [("trash-expired", vec![])], "the parent of a v2 clone, which has gone");
}

/// Of several entries of one name, the latest is the one that a location has lost.
#[test]
fn the_latest_of_a_name_is_the_one_to_restore() {
    let mut facts = with(trashed(A), vec![row(A, "active")], vec![at(A)]);
    facts.pools[0].trash.push(Trashed { id: "later".into(), deleted: hours_ago(2), ..trashed(A) });
    facts.pools[0].trash.push(Trashed { id: "earlier".into(), deleted: hours_ago(90), ..trashed(A) });
    let findings = classify(&facts, &Policy::default(), now());
    let lost = findings.iter().find(|finding| finding.kind == Kind::TrashedImage).unwrap();
    assert_eq!(lost.image_id.as_deref(), Some("later"));
    let others = findings.iter().filter(|finding| finding.kind == Kind::TrashExpired);
    assert!(others.clone().all(|finding| finding.blocked_by == [Block::Unknown]) && others.count() == 2);
}

/// A removal that began after the scan was said to be kept for a while.
#[test]
fn what_is_removed_after_the_scan_began_is_in_flight() {
    let soon = Timestamp::from_second(now().as_second() + 3).unwrap();
    let removed = Trashed { deleted: soon, deferred_until: soon, ..trashed(A) };
    assert_eq!(judged(&with(removed, vec![], vec![])), [("in-flight", vec![])]);
}

/// librbd's move to the trash is several writes; cut off in the middle it leaves an image in both places.
#[test]
fn an_image_in_both_places_is_broken() {
    let mut facts = with(trashed(A), vec![row(A, "active")], vec![at(A)]);
    facts.pools[0].images.push(whole(A));
    assert_eq!(judged(&facts), [("broken-image", vec![])]);
    // A scan that read the trash while an image was on its way there called it broken.
    facts.pools[0].trash[0].deleted = now();
    assert_eq!(judged(&facts), [("in-flight", vec![])]);
}
