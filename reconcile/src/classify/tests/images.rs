//! Images, by who names them.

use super::*;

/// An image of id A, its row, and what that makes.
#[test]
fn an_image_that_no_location_owns() {
    let marked = || {
        let mark = store::UploadMark { client: "client.1".into(), started: 0, size: None };
        RbdImage { mark: Some(Box::new(mark)), ..image(A) }
    };
    let clone = || RbdImage { parent: parent(), ..image(A) };
    let watched = |mut image: RbdImage| {
        image.closer.as_mut().unwrap().watchers.push("client.7".into());
        image
    };
    let young = |image: RbdImage| RbdImage { created: Some(hours_ago(23)), ..image };
    let ageless = |image: RbdImage| RbdImage { created: None, ..image };
    let unseen = |image: RbdImage| RbdImage { closer: None, ..image };
    let finished = |mut image: RbdImage| {
        image.snapshots[0].taken = Some(hours_ago(1));
        image
    };
    let written = |image: RbdImage| RbdImage { modified: Some(hours_ago(1)), ..image };
    let fresh = |row: GlanceImage| GlanceImage { updated: Some(hours_ago(1)), ..row };
    let copying = |row: GlanceImage| GlanceImage { importing: true, ..row };

    let table: Vec<(&str, RbdImage, Option<GlanceImage>, &[&str])> = vec![
        ("nobody knows it", whole(A), None, &["orphan"]),
        ("nor one without snapshot: it was not this store's upload", image(A), None, &["orphan"]),
        ("an upload of this store", marked(), None, &["partial-upload"]),
        ("its row is deleted", whole(A), Some(row(A, "deleted")), &["orphan-deleted"]),
        ("half an upload, deleted", image(A), Some(row(A, "deleted")), &["orphan-deleted"]),
        ("half an upload, queued", image(A), Some(row(A, "queued")), &["partial-upload"]),
        ("half an upload, saving", image(A), Some(row(A, "saving")), &["partial-upload"]),
        ("half an upload, uploading", image(A), Some(row(A, "uploading")), &["partial-upload"]),
        ("half an upload, importing", image(A), Some(row(A, "importing")), &["partial-upload"]),
        ("whole, saving", whole(A), Some(row(A, "saving")), &["unregistered"]),
        ("whole, queued", whole(A), Some(row(A, "queued")), &["unregistered"]),
        ("a snapshot that died, no row", clone(), None, &["leaked-clone"]),
        ("a snapshot that died, queued", clone(), Some(row(A, "queued")), &["leaked-clone"]),
        ("a clone, active, its data elsewhere", clone(), Some(row(A, "active")), &["in-flight"]),
        ("active, its data elsewhere", whole(A), Some(row(A, "active")), &["in-flight"]),
        ("active, a copy in progress", image(A), Some(copying(row(A, "active"))), &["in-flight"]),
        ("deleted in mid-copy", image(A), Some(copying(row(A, "deleted"))), &["orphan-deleted"]),
        ("watched, no row", watched(whole(A)), None, &["in-flight"]),
        ("watched, deleted", watched(image(A)), Some(row(A, "deleted")), &["in-flight"]),
        ("watched, saving", watched(image(A)), Some(row(A, "saving")), &["in-flight"]),
        ("young, no row", young(whole(A)), None, &["in-flight"]),
        ("young, saving", young(image(A)), Some(row(A, "saving")), &["in-flight"]),
        ("old, but its row has just changed", image(A), Some(fresh(row(A, "saving"))), &["in-flight"]),
        ("old, but its row has just been deleted", image(A), Some(fresh(row(A, "deleted"))), &["in-flight"]),
        ("of unknown age", ageless(whole(A)), None, &["in-flight"]),
        ("begun long ago, but just finished", finished(whole(A)), Some(row(A, "saving")), &["in-flight"]),
        ("begun long ago, but just written to", written(image(A)), Some(row(A, "saving")), &["in-flight"]),
        ("not looked at", unseen(whole(A)), None, &["in-flight"]),
    ];
    for (what, image, row, expected) in table {
        assert_eq!(kinds(&facts(vec![image], row.into_iter().collect(), vec![])), expected, "{what}");
    }
}

#[test]
fn an_image_that_some_location_names() {
    let deleted = |location: GlanceLocation| GlanceLocation { status: "deleted".into(), deleted: true, ..location };
    let pending = |location: GlanceLocation| GlanceLocation { status: "pending_delete".into(), ..location };
    let pending_row =
        |hours| GlanceImage { deleted: true, updated: Some(hours_ago(hours)), ..row(A, "pending_delete") };
    let other_cluster = || location(B, &format!("rbd://{}/images/{A}/snap", "0".repeat(36)));
    let other_pool = || location(A, &format!("rbd://{FSID}/backup/{A}/snap"));

    let table: Vec<(&str, GlanceImage, GlanceLocation, &[&str])> = vec![
        ("healthy", row(A, "active"), at(A), &[]),
        ("deactivated", row(A, "deactivated"), at(A), &[]),
        ("under another image's id", row(B, "active"), location(B, &format!("rbd://{FSID}/images/{A}/snap")), &[]),
        ("in one part", row(A, "active"), location(A, &format!("rbd://{A}")), &["legacy-location"]),
        ("pending delete", pending_row(90), pending(at(A)), &["pending-delete"]),
        ("pending delete, not for long", pending_row(3), pending(at(A)), &[]),
        ("restored by the scrubber", row(A, "active"), pending(at(A)), &[]),
        ("deleted, its image not", row(A, "deleted"), deleted(at(A)), &[]),
        (
            "in another cluster: this image is not meant",
            row(B, "active"),
            other_cluster(),
            &["foreign-cluster", "orphan"],
        ),
        ("in another pool", row(B, "active"), other_pool(), &["orphan"]),
    ];
    for (what, row, location, expected) in table {
        assert_eq!(kinds(&facts(vec![whole(A)], vec![row], vec![location])), expected, "{what}");
    }
}

/// Glance's own names are UUIDs. Other tools match parts of names, and take a volume of that name for an image.
#[test]
fn only_a_uuid_is_glances_name() {
    for (name, kind) in [
        (A.to_owned(), "orphan"),
        (A.to_uppercase(), "orphan"),
        (format!("volume-{A}"), "foreign-image"),
        (format!("{A}_disk"), "foreign-image"),
        (format!("{A}.clone_v1"), "foreign-image"),
        (format!("csi-vol-{A}"), "foreign-image"),
        (A.replace('-', ""), "foreign-image"),
        (format!("{{{A}}}"), "foreign-image"),
        (format!("urn:uuid:{A}"), "foreign-image"),
        (String::new(), "foreign-image"),
    ] {
        assert_eq!(kinds(&facts(vec![whole(&name)], vec![], vec![])), [kind], "{name}");
    }
    let elsewhere = location(A, &format!("rbd://{FSID}/images/golden/snap"));
    assert!(
        kinds(&facts(vec![whole("golden")], vec![row(A, "active")], vec![elsewhere])).is_empty(),
        "Glance's after all"
    );
}

#[test]
fn the_grace_is_the_admins() {
    let at = |hours: i64, grace: u64| {
        let image = RbdImage { created: Some(hours_ago(hours)), ..whole(A) };
        let policy = Policy { grace: Duration::from_secs(grace * 3600), ..Policy::default() };
        classify(&facts(vec![image], vec![], vec![]), &policy, now())[0].kind
    };
    assert_eq!(at(2, 24), Kind::InFlight);
    assert_eq!(at(2, 1), Kind::Orphan);
    assert_eq!(at(-1, 1), Kind::InFlight, "a clock that is ahead makes nothing old");
    assert_eq!(at(0, 0), Kind::Orphan);
    assert_eq!(at(1_000_000, u64::MAX / 3600), Kind::InFlight, "a grace beyond time keeps everything");
}
