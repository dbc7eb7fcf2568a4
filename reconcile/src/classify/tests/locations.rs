//! Locations, and what is in the pool.

use super::*;

#[test]
fn a_location_whose_image_is_not_as_it_should_be() {
    let active = || (vec![row(A, "active")], vec![at(A)]);
    let with = |images: Vec<RbdImage>| {
        let (rows, locations) = active();
        facts(images, rows, locations)
    };
    assert_eq!(kinds(&with(vec![])), ["missing-image"]);
    assert_eq!(kinds(&with(vec![image(A)])), ["missing-snapshot"]);
    let other = RbdImage { snapshots: vec![snap("snap2"), snap("snapshot")], ..image(A) };
    assert_eq!(kinds(&with(vec![other])), ["missing-snapshot", "extra-snapshot"], "not by a part of the name");

    let mut trashed = with(vec![]);
    trashed.pools[0].trash.push(Trashed {
        id: "1".into(),
        name: A.into(),
        source: TrashSource::User,
        deleted: now(),
        deferred_until: now(),
        image: None,
    });
    assert_eq!(kinds(&trashed), ["trashed-image"]);

    let mut unread = with(vec![]);
    unread.pools[0].unread.insert(A.into());
    assert!(kinds(&unread).is_empty(), "what cannot be read is not missing");
    let mut going = with(vec![]);
    going.pools[0].going.insert(A.into());
    assert_eq!(kinds(&going), ["in-flight"], "a removal under way has not lost anything");

    let dead = facts(vec![], vec![row(A, "deleted")], vec![at(A)]);
    assert!(kinds(&dead).is_empty(), "a deleted row promises nothing");
    let legacy = facts(vec![], vec![row(A, "active")], vec![location(A, &format!("rbd://{A}"))]);
    assert_eq!(kinds(&legacy), ["legacy-location"], "in whatever pool is configured");
    let secret = GlanceLocation { place: Place::Unreadable, ..at(A) };
    assert_eq!(kinds(&facts(vec![], vec![row(A, "active")], vec![secret])), ["undecryptable-location"]);
}

/// Each of these is one thing that is wrong with an active location of a whole image.
#[test]
fn what_else_a_location_may_be() {
    let with = |change: &dyn Fn(&mut RbdImage, &mut GlanceImage, &mut GlanceLocation)| {
        let (mut image, mut row, mut location) = (whole(A), row(A, "active"), at(A));
        image.features = Features::LAYERING;
        change(&mut image, &mut row, &mut location);
        let policy = Policy { stores: vec!["ceph".into(), "file".into()], ..Policy::default() };
        let findings = classify(&facts(vec![image], vec![row], vec![location]), &policy, now());
        let kinds: Vec<_> = findings.iter().map(|finding| finding.kind.name()).collect();
        (kinds, findings.into_iter().next())
    };
    type Change = &'static dyn Fn(&mut RbdImage, &mut GlanceImage, &mut GlanceLocation);
    let table: Vec<(&str, Change, &[&str])> = vec![
        ("healthy", &|_, _, _| {}, &[]),
        ("of a known store", &|_, _, location| location.store = Some("ceph".into()), &[]),
        ("of another store", &|_, _, location| location.store = Some("ceph2".into()), &["unknown-store"]),
        ("unprotected", &|image, _, _| image.snapshots[0].protected = false, &["unprotected-snapshot"]),
        ("larger", &|_, row, _| row.size = Some(99), &["size-mismatch"]),
        ("resized after the snapshot", &|image, _, _| image.size = 1000, &[]),
        ("of unknown size", &|_, row, _| row.size = None, &[]),
        ("being copied", &|_, row, _| (row.size, row.importing) = (Some(99), true), &[]),
        ("raw", &|_, row, _| row.disk_format = Some("raw".into()), &[]),
        ("qcow2", &|_, row, _| row.disk_format = Some("qcow2".into()), &["not-cloneable"]),
        ("an installer", &|_, row, _| row.disk_format = Some("iso".into()), &[]),
        (
            "raw, without layering",
            &|image, row, _| (image.features, row.disk_format) = (Features::OBJECT_MAP, Some("raw".into())),
            &["not-cloneable"],
        ),
        ("deactivated", &|_, row, _| (row.status, row.disk_format) = ("deactivated".into(), Some("qcow2".into())), &[]),
        (
            "in one part",
            &|_, row, location| {
                row.disk_format = Some("raw".into());
                location.place = Place::Rbd(format!("rbd://{A}").parse().unwrap());
            },
            &["not-cloneable", "legacy-location"],
        ),
        ("with a backup", &|image, _, _| image.snapshots.push(snap("backup")), &["extra-snapshot"]),
        (
            "a removed snapshot that clones need",
            &|image, _, _| {
                image.snapshots.push(SnapshotFacts { namespace: SnapshotNamespace::Trash, ..snap("snap") });
            },
            &["extra-snapshot"],
        ),
    ];
    for (what, change, expected) in table {
        assert_eq!(with(change).0, expected, "{what}");
    }
    let (_, extra) = with(&|image, _, _| image.snapshots.push(snap("backup")));
    let evidence = extra.unwrap().evidence;
    assert_eq!(evidence["extra"][0]["name"], "backup");
    assert_eq!(evidence["extra"].as_array().unwrap().len(), 1);
}

#[test]
fn a_location_of_another_cluster() {
    let other = location(A, &format!("rbd://{}/images/{A}/snap", "0".repeat(36)));
    let findings = classify(&facts(vec![], vec![row(A, "active")], vec![other.clone()]), &Policy::default(), now());
    assert_eq!(findings[0].kind.name(), "foreign-cluster");
    assert_eq!(findings[0].evidence["fsid"], json!("0".repeat(36)));
    assert!(kinds(&facts(vec![], vec![row(A, "deleted")], vec![other])).is_empty());
}

/// The first of them to be deleted takes the others' data along.
#[test]
fn one_image_that_several_claim() {
    let image_of = |id: &str| location(id, &format!("rbd://{FSID}/images/{A}/snap"));
    let rows = || vec![row(A, "active"), row(B, "active"), row(C, "deleted")];
    let facts = facts(vec![whole(A)], rows(), vec![image_of(A), image_of(B), image_of(C), image_of(A)]);
    let findings = classify(&facts, &Policy::default(), now());
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!((findings[0].kind, &findings[0].evidence["glance_ids"]), (Kind::SharedLocation, &json!([A, B])));
}

#[test]
fn pools_and_namespaces_are_kept_apart() {
    let mut facts = facts(
        vec![whole(A)],
        vec![row(A, "active"), row(B, "active")],
        vec![at(A), location(B, &format!("rbd://{FSID}/images%2Fcloud/{B}/snap"))],
    );
    assert_eq!(kinds(&facts), [""; 0], "a namespace that was not read misses nothing");
    let cloud = PoolFacts { name: "images".into(), namespace: "cloud".into(), ..PoolFacts::default() };
    facts.pools.push(cloud);
    let findings = classify(&facts, &Policy::default(), now());
    assert_eq!(kinds(&facts), ["missing-image"]);
    assert_eq!((findings[0].namespace.as_str(), findings[0].image.as_deref()), ("cloud", Some(B)));
    facts.pools[1].images.push(whole(B));
    assert!(kinds(&facts).is_empty());
}

/// What is on its way is not yet wrong.
#[test]
fn a_row_that_is_not_active_yet() {
    for status in ["saving", "importing", "queued"] {
        assert_eq!(kinds(&facts(vec![], vec![row(A, status)], vec![at(A)])), ["in-flight"], "{status}");
    }
}

#[test]
fn a_broken_image_is_told() {
    let mut facts = facts(vec![], vec![], vec![]);
    facts.pools[0].broken.push(Broken { name: Some(A.into()), id: "1".into(), missing: "rbd_header.1".into() });
    let findings = classify(&facts, &Policy::default(), now());
    assert_eq!((findings[0].kind, &findings[0].evidence["missing"]), (Kind::BrokenImage, &json!("rbd_header.1")));
}

#[test]
fn equal_images_are_one_finding() {
    let same = |row: GlanceImage| GlanceImage { multihash: Some(("sha512".into(), "5e".into())), ..row };
    let rows = vec![same(row(B, "active")), same(row(A, "active")), row(C, "active")];
    let (images, locations) = (vec![whole(A), whole(B), whole(C)], vec![at(A), at(B), at(C)]);
    let findings = classify(&facts(images.clone(), rows.clone(), locations.clone()), &Policy::default(), now());
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].evidence["copies"], serde_json::json!([A, B]));
    assert_eq!((findings[0].used_bytes, findings[0].glance_id.as_deref()), (Some(100), Some(A)));

    let different = |change: fn(&mut GlanceImage)| {
        let mut rows = rows.clone();
        change(&mut rows[0]);
        let kinds = kinds(&facts(images.clone(), rows, locations.clone()));
        kinds.into_iter().filter(|kind| *kind != "size-mismatch").collect::<Vec<_>>()
    };
    let shared = vec![at(A), location(B, &format!("rbd://{FSID}/images/{A}/snap"))];
    assert_eq!(
        kinds(&facts(vec![whole(A)], rows.clone(), shared)),
        ["shared-location"],
        "one image with two rows is no duplicate"
    );
    let immense = rows.iter().cloned().map(|row| GlanceImage { size: Some(u64::MAX), ..row }).collect();
    assert_eq!(kinds(&facts(images.clone(), immense, locations.clone())).last(), Some(&"duplicate"));
    assert!(different(|row| row.size = Some(101)).is_empty());
    assert!(different(|row| row.size = None).is_empty());
    assert!(different(|row| row.multihash = Some(("sha256".into(), "5e".into()))).is_empty());
    assert!(different(|row| row.status = "deactivated".into()).is_empty());
    assert!(different(|row| row.multihash = None).is_empty(), "an md5 is no sha512");
}
