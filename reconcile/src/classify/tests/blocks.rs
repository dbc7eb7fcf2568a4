//! What keeps an image from being removed.

use super::*;

/// What blocks the only finding of these facts.
fn blocks(facts: &Facts) -> Vec<Block> {
    let findings = classify(facts, &Policy::default(), now());
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].used_bytes, Some(50));
    findings[0].blocked_by.clone()
}

fn of(image: RbdImage) -> Vec<Block> {
    blocks(&facts(vec![image], vec![], vec![]))
}

#[test]
fn clones_block_and_so_does_not_knowing() {
    let child = Child { pool: 2, namespace: String::new(), id: "c".into(), path: Some("vms/server".into()) };
    let known = |some: Vec<Child>| Children { count: some.len() as u64, unknown: false, some };
    let unknown = Children { unknown: true, ..Children::default() };
    for (children, expected) in
        [(known(vec![]), vec![]), (known(vec![child]), vec![Block::Children]), (unknown, vec![Block::Unknown])]
    {
        assert_eq!(of(RbdImage { children, ..whole(A) }), expected);
    }
}

/// A killed writer leaves its lock; it must not keep what it left for ever. One that somebody asked for must.
#[test]
fn a_lock_blocks_unless_it_is_a_dead_writers() {
    let locked = |automatic| {
        let locks = vec![Lock { client: "client.7".into(), automatic }];
        RbdImage { closer: Some(Closer { watchers: vec![], locks }), ..whole(A) }
    };
    assert_eq!(of(locked(true)), []);
    assert_eq!(of(locked(false)), [Block::Lock]);
}

#[test]
fn what_belongs_to_something_else_blocks() {
    let with = |change: fn(&mut RbdImage)| {
        let mut image = whole(A);
        change(&mut image);
        of(image)
    };
    assert_eq!(with(|image| image.group = Some("g".into())), [Block::Group]);
    assert_eq!(with(|image| image.mirrored = true), [Block::Mirror]);
    assert_eq!(with(|image| image.migrating = true), [Block::Migration]);
    assert_eq!(with(|image| image.unknown.push("group")), [Block::Unknown]);
    assert_eq!(with(|image| image.snapshots.push(snap("backup"))), [Block::Snapshots]);
    let by = |namespace| SnapshotFacts { namespace, ..snap("x") };
    let with = |namespace| of(RbdImage { snapshots: vec![by(namespace)], ..image(A) });
    assert_eq!(with(SnapshotNamespace::Group), [Block::Snapshots]);
    assert_eq!(with(SnapshotNamespace::Mirror), [Block::Snapshots]);
    assert_eq!(with(SnapshotNamespace::Unknown(9)), [Block::Snapshots]);
    assert_eq!(with(SnapshotNamespace::Trash), [], "Ceph's own, for clones, which block by themselves");
}

#[test]
fn what_glance_protects_is_blocked() {
    let protected = |row: GlanceImage| GlanceImage { protected: true, ..row };
    let with = |status| blocks(&facts(vec![image(A)], vec![protected(row(A, status))], vec![]));
    assert_eq!(with("saving"), [Block::Protected]);
    assert_eq!(with("deleted"), []);
}

/// A location that cannot be read may name any image.
#[test]
fn an_unreadable_location_blocks_all_reclaiming() {
    let secret = GlanceLocation { place: Place::Unreadable, ..at(B) };
    let blocked = |location: GlanceLocation| {
        let findings =
            classify(&facts(vec![whole(A)], vec![row(B, "active")], vec![location]), &Policy::default(), now());
        findings.into_iter().find(|finding| finding.kind == Kind::Orphan).unwrap().blocked_by
    };
    assert_eq!(blocked(secret.clone()), [Block::Unknown]);
    assert!(blocked(GlanceLocation { deleted: true, ..secret }).is_empty());
}

/// After a migration to a new cluster every location still has the old fsid: no image may be called free for it.
#[test]
fn a_location_of_another_cluster_or_namespace_blocks_its_namesake() {
    for url in [format!("rbd://{}/images/{A}/snap", "0".repeat(36)), format!("rbd://{FSID}/images%2Fcloud/{A}/snap")] {
        let facts = facts(vec![whole(A)], vec![row(B, "active")], vec![location(B, &url)]);
        let findings = classify(&facts, &Policy::default(), now());
        let orphan = findings.iter().find(|finding| finding.kind == Kind::Orphan).unwrap();
        assert_eq!(orphan.blocked_by, [Block::Unknown], "{url}");
    }
}

/// A replica that lags behind does not know the newest images; neither does a backup that was restored this morning.
#[test]
fn a_database_older_than_the_image_does_not_testify() {
    let minutes = |minutes: i64| Timestamp::from_second(hours_ago(100).as_second() + 60 * minutes).unwrap();
    let with = |newest: Vec<Option<Timestamp>>, policy: &Policy| {
        let mut facts = facts(vec![whole(A)], vec![], vec![]);
        facts.glance.databases =
            newest.into_iter().map(|newest| DatabaseFacts { newest, ..DatabaseFacts::default() }).collect();
        classify(&facts, policy, now())[0].blocked_by.clone()
    };
    let policy = Policy::default();
    assert_eq!(with(vec![Some(minutes(-4))], &policy), [], "clocks differ");
    assert_eq!(with(vec![Some(minutes(-6))], &policy), [Block::Stale]);
    assert_eq!(with(vec![Some(now()), Some(minutes(-6))], &policy), [Block::Stale], "each may be the one that knew");
    assert_eq!(with(vec![None], &policy), [Block::Stale], "an empty one knows nothing");
    assert_eq!(with(vec![], &policy), [Block::Stale], "nobody was asked");
    assert_eq!(with(vec![Some(minutes(-6))], &Policy { allow_stale: true, ..policy }), []);
}
