//! What holds for any facts.

use proptest::prelude::*;

use super::*;

prop_compose! {
    fn any_image()(
        name in prop::sample::select(vec![A, B, C, "volume-1"]),
        age in 0..100_i64,
        has_snap in any::<bool>(),
        taken in 0..100_i64,
        protected in prop::bool::weighted(0.8),
        has_parent in any::<bool>(),
        marked in any::<bool>(),
        watched in prop::bool::weighted(0.2),
        looked in prop::bool::weighted(0.9),
    ) -> RbdImage {
        let mut image = image(name);
        if has_snap {
            image.snapshots.push(SnapshotFacts { taken: Some(hours_ago(taken)), protected, ..snap("snap") });
        }
        image.created = Some(hours_ago(age));
        image.parent = parent().filter(|_| has_parent);
        let mark = store::UploadMark { client: "client.1".into(), started: 0, size: None };
        image.mark = (marked && has_snap).then(|| Box::new(mark));
        image.closer.as_mut().unwrap().watchers = if watched { vec!["w".into()] } else { vec![] };
        if !looked {
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
        size in 99..102_u64,
        importing in prop::bool::weighted(0.2),
    ) -> GlanceImage {
        GlanceImage { updated: Some(hours_ago(age)), importing, size: Some(size), ..row(id, status) }
    }
}

prop_compose! {
    fn any_location()(
        owner in prop::sample::select(vec![A, B, C]),
        name in prop::sample::select(vec![A, B, C, "volume-1"]),
        status in prop::sample::select(vec!["active", "pending_delete", "deleted"]),
        deleted in any::<bool>(),
        age in 0..100_i64,
        readable in prop::bool::weighted(0.9),
    ) -> GlanceLocation {
        let place = location(owner, &format!("rbd://{FSID}/images/{name}/snap")).place;
        GlanceLocation {
            place: if readable { place } else { Place::Unreadable },
            status: status.into(),
            deleted,
            updated: Some(hours_ago(age)),
            ..at(owner)
        }
    }
}

pub(super) fn any_policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(vec![0_u64, 1, 24, 80])
        .prop_map(|hours| Policy { grace: Duration::from_secs(hours * 3600), ..Policy::default() })
}

pub(super) fn any_facts() -> impl Strategy<Value = Facts> {
    let by_name = |images: Vec<RbdImage>| {
        let mut seen = HashSet::new();
        images.into_iter().filter(|image| seen.insert(image.name.clone())).collect()
    };
    (
        prop::collection::vec(any_image(), 0..4),
        prop::collection::vec(any_row(), 0..4),
        prop::collection::vec(any_location(), 0..5),
        prop::option::weighted(0.1, prop::sample::select(vec![A, B])),
        prop::option::weighted(0.1, prop::sample::select(vec![A, B])),
    )
        .prop_map(move |(images, rows, locations, going, unread)| {
            let mut facts = facts(by_name(images), rows, locations);
            facts.pools[0].going.extend(going.map(str::to_owned));
            if let Some(unread) = unread {
                facts.pools[0].images.retain(|image| image.name != unread);
                facts.pools[0].unread.insert(unread.to_owned());
            }
            facts
        })
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
                prop_assert!(row.deleted || ["queued", "saving", "uploading", "importing"].contains(&row.status.as_str()));
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
                    && ![Kind::Duplicate, Kind::SharedLocation, Kind::ExtraSnapshot].contains(&finding.kind)
            };
            let count = findings.iter().filter(own).count();
            prop_assert!(count <= 1);
            prop_assert!(count == 1 || !owners.naming(0, &image.name).is_empty());
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
