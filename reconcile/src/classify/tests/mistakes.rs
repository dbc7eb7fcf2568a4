//! What other tools got wrong, a test for each (RECONCILE.md, section 7), as far as it is for the classifier to get right.

use super::*;

/// "Substring match of names": a script took `volume-<uuid>` for the image of that id, and `<uuid>2` too.
#[test]
fn substring_match_of_names() {
    let near = format!("{A}2");
    let facts = facts(vec![whole(&near), whole(&format!("volume-{A}"))], vec![row(A, "deleted")], vec![]);
    assert_eq!(kinds(&facts), ["foreign-image", "foreign-image"]);
    let healthy = super::facts(vec![whole(A)], vec![row(A, "active")], vec![at(A)]);
    assert!(kinds(&healthy).is_empty());
}

/// "A time-out read as no children": what could not be asked is unknown, and blocks.
#[test]
fn a_time_out_read_as_no_children() {
    let children = Children { unknown: true, ..Children::default() };
    let findings = classify(&facts(vec![RbdImage { children, ..whole(A) }], vec![], vec![]), &Policy::default(), now());
    assert_eq!(findings[0].blocked_by, [Block::Unknown]);
}

/// "Trash ignored as an owner, so its data looked orphaned": what is in the trash is told as such and nothing else.
#[test]
fn trash_ignored_as_an_owner() {
    let mut facts = facts(vec![], vec![row(A, "active")], vec![at(A)]);
    facts.pools[0].trash.push(Trashed {
        id: "1".into(),
        name: A.into(),
        source: TrashSource::User,
        deleted: hours_ago(30),
        deferred_until: now(),
        image: Some(Box::new(whole(A))),
    });
    assert_eq!(kinds(&facts), ["trashed-image"], "not missing, and not to be purged");
}

/// "Recursive deletion that took live children": an image with clones is never offered.
#[test]
fn recursive_deletion_that_took_live_children() {
    let children = Children { count: 1, ..Children::default() };
    let findings = classify(&facts(vec![RbdImage { children, ..whole(A) }], vec![], vec![]), &Policy::default(), now());
    assert_eq!(findings[0].blocked_by, [Block::Children]);
}

/// "A partial upload adopted as an image": half an image is nothing to register.
#[test]
fn a_partial_upload_adopted_as_an_image() {
    assert_eq!(kinds(&facts(vec![image(A)], vec![row(A, "saving")], vec![])), ["partial-upload"]);
    assert_eq!(kinds(&facts(vec![whole(A)], vec![row(A, "saving")], vec![])), ["unregistered"]);
}

/// "One bad image failing the whole listing": one that cannot be read hides nothing else, and is not called missing.
#[test]
fn one_bad_image_failing_the_whole_listing() {
    let mut facts = facts(vec![whole(B)], vec![row(A, "active")], vec![at(A)]);
    facts.pools[0].unread.insert(A.into());
    assert_eq!(kinds(&facts), ["orphan"]);
}

/// "No guard against running with the wrong (or an empty) database": it makes every image an orphan that is blocked.
#[test]
fn no_guard_against_an_empty_database() {
    let mut facts = facts(vec![whole(A), whole(B)], vec![], vec![]);
    facts.glance.databases[0].newest = None;
    let findings = classify(&facts, &Policy::default(), now());
    assert!(findings.iter().all(|finding| finding.blocked_by == [Block::Stale]), "{findings:#?}");
}
