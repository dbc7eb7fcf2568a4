//! Pools that are damaged: told, never guessed about, and never in the way of the rest.

use reconcile::{Block, GatherError, Kind};

use crate::lab::{Lab, the, uuid, wait};

#[test]
fn halves_of_images_are_told() {
    let lab = Lab::new();
    let [nameless, idless, headless, unlisted] = std::array::from_fn(|_| uuid());
    for name in [&nameless, &idless, &headless, &unlisted] {
        lab.create(name, &[]);
    }
    let [nameless_id, idless_id, headless_id, unlisted_id] =
        [&nameless, &idless, &headless, &unlisted].map(|name| lab.id_of(name));
    lab.rados(&["rmomapkey", "rbd_directory", &format!("name_{nameless}")]);
    lab.rados(&["rmomapkey", "rbd_directory", &format!("id_{idless_id}")]);
    lab.rados(&["rm", &format!("rbd_header.{headless_id}")]);
    lab.rados(&["rmomapkey", "rbd_directory", &format!("name_{unlisted}")]);
    lab.rados(&["rmomapkey", "rbd_directory", &format!("id_{unlisted_id}")]);
    // Nothing but a location leads to an image that the directory does not have at all.
    wait(async {
        let fsid = lab.sources(None).await.pools[0].cluster().fsid().to_owned();
        lab.active(&fsid, &unlisted);
        let scan = lab.scan(Some("scan")).await;
        let missing = |name: &str| the(&scan, Kind::BrokenImage, name).evidence["missing"].clone();
        assert_eq!(missing(&nameless), format!("name_{nameless} in rbd_directory"));
        assert_eq!(missing(&idless), format!("id_{idless_id} in rbd_directory"));
        assert_eq!(missing(&headless), format!("rbd_header.{headless_id}"));
        assert_eq!(missing(&unlisted), format!("name_{unlisted} in rbd_directory"));
        assert_eq!(the(&scan, Kind::BrokenImage, &nameless).image_id.as_deref(), Some(nameless_id.as_str()));
    });
}

/// A header that this program does not understand, but librbd does: believed, except for what librbd did not say.
#[test]
fn what_is_not_understood_is_left_to_librbd() {
    let lab = Lab::new();
    let id = uuid();
    lab.create(&id, &[]);
    lab.write(&id, 0, 2);
    lab.rados(&["setomapval", &format!("rbd_header.{}", lab.id_of(&id)), "snap_children_00000000000000ff", "newer"]);
    wait(async {
        let scan = lab.scan(Some("scan")).await;
        assert!(scan.complete, "{:#?}", scan.problems);
        let orphan = the(&scan, Kind::Orphan, &id);
        assert_eq!((orphan.used_bytes, &orphan.blocked_by), (Some(2 << 20), &vec![Block::Unknown]));
        assert_eq!(orphan.evidence["unknown"], serde_json::json!(["group", "op_features", "snapshot flags"]));
    });
}

/// One that neither understands makes the scan incomplete, in the trash too.
#[test]
fn a_garbled_header_makes_the_scan_incomplete() {
    let lab = Lab::new();
    let [free, garbled, trashed] = std::array::from_fn(|_| uuid());
    for name in [&free, &garbled, &trashed] {
        lab.create(name, &[]);
    }
    let ids = [&garbled, &trashed].map(|name| lab.id_of(name));
    crate::lab::sh("rbd", &["trash", "mv", &lab.at(&trashed)]);
    for id in ids {
        lab.rados(&["setomapval", &format!("rbd_header.{id}"), "size", "garbage"]);
    }
    wait(async {
        let scan = lab.scan(Some("scan")).await;
        assert!(!scan.complete);
        let told: Vec<&str> = scan.problems.iter().map(|problem| problem.what.as_str()).collect();
        let mut expected = [garbled.as_str(), trashed.as_str()];
        expected.sort_unstable();
        assert_eq!(told, expected);
        the(&scan, Kind::Orphan, &free);
        assert_eq!(the(&scan, Kind::TrashExpired, &trashed).blocked_by, [Block::Unknown]);
    });
}

/// `rbd create` and `rbd rm` were cut off: the image is listed, but Glance cannot open it by its name.
#[test]
fn the_sample_tells_what_librbd_cannot_open() {
    let lab = Lab::new();
    let id = uuid();
    lab.create(&id, &[]);
    wait(async {
        let scan = lab.scan(Some("scan")).await;
        assert!(scan.complete, "{:#?}", scan.problems);
        lab.rados(&["rm", &format!("rbd_id.{id}")]);
        let scan = lab.scan(Some("scan")).await;
        assert!(!scan.complete && scan.problems[0].why.contains("librbd cannot open it"), "{:#?}", scan.problems);
    });
}

/// A namespace that is not there would look like one whose images are all missing.
#[test]
fn a_missing_namespace_is_an_error() {
    let lab = Lab::new();
    wait(async {
        let mut sources = lab.sources(Some("scan")).await;
        sources.pools[0] = sources.pools[0].in_namespace("nowhere").await.unwrap();
        let scanned = reconcile::scan(&sources, &Default::default(), jiff::Timestamp::now(), &|_, _, _| {}).await;
        assert!(matches!(scanned, Err(GatherError::Pool(error)) if error.is_not_found()));
    });
}
