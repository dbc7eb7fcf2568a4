//! The truth table of the classifier, and properties that hold for any facts.

use proptest::prelude::*;

use super::*;
use crate::facts::{Child, Children, Closer, GlanceFacts, ParentFacts, SnapshotFacts, Trashed};

const FSID: &str = "9b1c0a54-7f0c-4b52-a8e3-1f6f4a3f1a11";
const A: &str = "11111111-1111-4111-8111-111111111111";
const B: &str = "22222222-2222-4222-8222-222222222222";
const C: &str = "33333333-3333-4333-8333-333333333333";
const HOUR: i64 = 3600;

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn hours_ago(hours: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() - hours * HOUR).unwrap()
}

/// An old image that was looked at closely: no watchers, no clones, no snapshot.
fn image(name: &str) -> RbdImage {
    RbdImage {
        name: name.into(),
        id: format!("id-{name}"),
        size: 100,
        created: Some(hours_ago(100)),
        usage: Some(Usage { head: 50, ..Usage::default() }),
        closer: Some(Closer::default()),
        ..RbdImage::default()
    }
}

fn parent() -> Option<Box<ParentFacts>> {
    Some(Box::new(ParentFacts { pool: 1, namespace: String::new(), id: "p".into(), snapshot: 4, overlap: 100 }))
}

fn whole(name: &str) -> RbdImage {
    RbdImage { snapshots: vec![snap("snap")], ..image(name) }
}

fn snap(name: &str) -> SnapshotFacts {
    SnapshotFacts {
        id: 4,
        name: name.into(),
        size: 100,
        protected: true,
        namespace: rbd::SnapshotNamespace::User,
        flags: rbd::Flags::default(),
        taken: Some(hours_ago(99)),
    }
}

fn row(id: &str, status: &str) -> GlanceImage {
    GlanceImage {
        id: id.into(),
        status: status.into(),
        deleted: status == "deleted",
        size: Some(100),
        created: Some(hours_ago(100)),
        updated: Some(hours_ago(90)),
        checksum: Some(format!("md5-{id}")),
        ..GlanceImage::default()
    }
}

fn location(image_id: &str, url: &str) -> GlanceLocation {
    GlanceLocation {
        image_id: image_id.into(),
        database: 0,
        place: Place::Rbd(url.parse().unwrap()),
        status: "active".into(),
        deleted: false,
        store: None,
        updated: Some(hours_ago(90)),
    }
}

/// The location that an image of this pool has.
fn at(id: &str) -> GlanceLocation {
    location(id, &format!("rbd://{FSID}/images/{id}/snap"))
}

fn facts(images: Vec<RbdImage>, rows: Vec<GlanceImage>, locations: Vec<GlanceLocation>) -> Facts {
    Facts {
        fsid: FSID.into(),
        pools: vec![PoolFacts { name: "images".into(), images, ..PoolFacts::default() }],
        glance: GlanceFacts {
            images: rows.into_iter().map(|row| (row.id.clone(), row)).collect(),
            locations,
            ..GlanceFacts::default()
        },
    }
}

fn kinds(facts: &Facts) -> Vec<&'static str> {
    classify(facts, &Policy::default(), now()).iter().map(|finding| finding.kind.name()).collect()
}

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
    let other_cluster = || location(A, &format!("rbd://{}/images/{A}/snap", "0".repeat(36)));
    let other_pool = || location(A, &format!("rbd://{FSID}/backup/{A}/snap"));

    let table: Vec<(&str, GlanceImage, GlanceLocation, &[&str])> = vec![
        ("healthy", row(A, "active"), at(A), &[]),
        ("deactivated", row(A, "deactivated"), at(A), &[]),
        ("under another image's id", row(B, "active"), location(B, &format!("rbd://{FSID}/images/{A}/snap")), &[]),
        ("in one part", row(A, "active"), location(A, &format!("rbd://{A}")), &[]),
        ("pending delete", row(A, "pending_delete"), pending(at(A)), &[]),
        ("restored by the scrubber", row(A, "active"), pending(at(A)), &[]),
        ("deleted, its image not", row(A, "deleted"), deleted(at(A)), &[]),
        ("in another cluster: this image is not meant", row(B, "active"), other_cluster(), &["orphan"]),
        ("in another pool", row(B, "active"), other_pool(), &["orphan"]),
    ];
    for (what, row, location, expected) in table {
        assert_eq!(kinds(&facts(vec![whole(A)], vec![row], vec![location])), expected, "{what}");
    }
}

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
    assert_eq!(kinds(&with(vec![other])), ["missing-snapshot"], "not by a part of the name");

    let mut trashed = with(vec![]);
    trashed.pools[0].trash.push(Trashed {
        id: "1".into(),
        name: A.into(),
        source: rbd::TrashSource::User,
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
    assert!(kinds(&going).is_empty(), "a removal under way has not lost anything");

    let dead = facts(vec![], vec![row(A, "deleted")], vec![at(A)]);
    assert!(kinds(&dead).is_empty(), "a deleted row promises nothing");
    let legacy = facts(vec![], vec![row(A, "active")], vec![location(A, &format!("rbd://{A}"))]);
    assert!(kinds(&legacy).is_empty(), "in whatever pool is configured");
    let secret = GlanceLocation { place: Place::Unreadable, ..at(A) };
    assert_eq!(kinds(&facts(vec![], vec![row(A, "active")], vec![secret])), ["undecryptable-location"]);
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
fn clones_block_and_so_does_not_knowing() {
    let child = Child { pool: 2, namespace: String::new(), id: "c".into(), path: Some("vms/server".into()) };
    let known = |some: Vec<Child>| Children { count: some.len() as u64, unknown: false, some };
    let unknown = Children { unknown: true, ..Children::default() };
    for (children, blocked) in
        [(known(vec![]), vec![]), (known(vec![child]), vec![Block::Children]), (unknown, vec![Block::Unknown])]
    {
        let image = RbdImage { children, ..whole(A) };
        let findings = classify(&facts(vec![image], vec![], vec![]), &Policy::default(), now());
        assert_eq!(findings[0].blocked_by, blocked);
        assert_eq!(findings[0].used_bytes, Some(50));
    }
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
        kinds(&facts(images.clone(), rows, locations.clone()))
    };
    let shared = vec![at(A), location(B, &format!("rbd://{FSID}/images/{A}/snap"))];
    assert!(kinds(&facts(vec![whole(A)], rows.clone(), shared)).is_empty(), "one image with two rows is no duplicate");
    let immense = rows.iter().cloned().map(|row| GlanceImage { size: Some(u64::MAX), ..row }).collect();
    assert_eq!(kinds(&facts(images.clone(), immense, locations.clone())), ["duplicate"]);
    assert!(different(|row| row.size = Some(101)).is_empty());
    assert!(different(|row| row.size = None).is_empty());
    assert!(different(|row| row.multihash = Some(("sha256".into(), "5e".into()))).is_empty());
    assert!(different(|row| row.status = "deactivated".into()).is_empty());
    assert!(different(|row| row.multihash = None).is_empty(), "an md5 is no sha512");
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

prop_compose! {
    fn any_image()(
        name in prop::sample::select(vec![A, B, C, "volume-1"]),
        age in 0..100_i64,
        has_snap in any::<bool>(),
        has_parent in any::<bool>(),
        watched in any::<bool>(),
        closer in any::<bool>(),
    ) -> RbdImage {
        let mut image = if has_snap { whole(name) } else { image(name) };
        image.created = Some(hours_ago(age));
        image.parent = parent().filter(|_| has_parent);
        image.closer.as_mut().unwrap().watchers = if watched { vec!["w".into()] } else { vec![] };
        if !closer {
            image.closer = None;
        }
        image
    }
}

prop_compose! {
    fn any_row()(
        id in prop::sample::select(vec![A, B, C]),
        status in prop::sample::select(vec![
            "queued", "saving", "uploading", "importing", "active", "deactivated", "pending_delete", "deleted", "killed",
        ]),
        age in 0..100_i64,
        importing in any::<bool>(),
    ) -> GlanceImage {
        GlanceImage { updated: Some(hours_ago(age)), importing, ..row(id, status) }
    }
}

prop_compose! {
    fn any_location()(
        owner in prop::sample::select(vec![A, B, C]),
        name in prop::sample::select(vec![A, B, C, "volume-1"]),
        status in prop::sample::select(vec!["active", "pending_delete", "deleted"]),
        deleted in any::<bool>(),
        readable in prop::bool::weighted(0.9),
    ) -> GlanceLocation {
        let place = location(owner, &format!("rbd://{FSID}/images/{name}/snap")).place;
        GlanceLocation {
            place: if readable { place } else { Place::Unreadable },
            status: status.into(),
            deleted,
            ..at(owner)
        }
    }
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let by_name = |images: Vec<RbdImage>| {
        let mut seen = HashSet::new();
        images.into_iter().filter(|image| seen.insert(image.name.clone())).collect()
    };
    (
        prop::collection::vec(any_image(), 0..4),
        prop::collection::vec(any_row(), 0..4),
        prop::collection::vec(any_location(), 0..5),
    )
        .prop_map(move |(images, rows, locations)| facts(by_name(images), rows, locations))
}

proptest! {
    /// What may be trashed is Glance's by name, old, unwatched, looked at, and named by no location in any state.
    #[test]
    fn nothing_that_may_be_needed_is_offered_for_the_trash(facts in any_facts()) {
        for finding in classify(&facts, &Policy::default(), now()).iter().filter(|finding| finding.kind.is_reclaimable()) {
            let name = finding.image.as_deref().unwrap();
            let image = facts.pools[0].images.iter().find(|image| image.name == name).unwrap();
            prop_assert!(is_glance_name(name));
            prop_assert!(image.closer.as_ref().is_some_and(|closer| closer.watchers.is_empty()));
            prop_assert!(image.created.unwrap() <= hours_ago(24));
            let named = |location: &GlanceLocation| matches!(&location.place, Place::Rbd(place) if place.image() == name);
            prop_assert!(!facts.glance.locations.iter().any(named));
            if let Some(row) = facts.glance.images.get(name) {
                prop_assert!(row.deleted || ARRIVING.contains(&row.status.as_str()));
                prop_assert!(row.updated.unwrap() <= hours_ago(24));
            }
        }
    }

    /// No image is two things at once, and every image without an owner is something unless a location still names it.
    #[test]
    fn an_image_has_at_most_one_finding_of_its_own(facts in any_facts()) {
        let findings = classify(&facts, &Policy::default(), now());
        let owners = Owners::of(&facts);
        for image in &facts.pools[0].images {
            let own = |finding: &&Finding| {
                finding.image.as_deref() == Some(&image.name)
                    && finding.location.is_none()
                    && finding.kind != Kind::Duplicate
            };
            let count = findings.iter().filter(own).count();
            prop_assert!(count <= 1);
            prop_assert!(count == 1 || owners.named.contains(&(0, image.name.as_str())));
        }
    }

    /// The order in which facts were read changes nothing.
    #[test]
    fn findings_do_not_depend_on_the_order_of_facts(facts in any_facts()) {
        let mut turned = facts.clone();
        turned.pools[0].images.reverse();
        turned.glance.locations.reverse();
        prop_assert_eq!(classify(&facts, &Policy::default(), now()), classify(&turned, &Policy::default(), now()));
    }
}
