//! The same judgement once more, by naive loops over the specification's table, compared on random facts.

use proptest::prelude::*;

use super::{
    properties::{any_facts, any_policy},
    *,
};

/// Kind and image of every finding that is about who owns what.
type Verdicts = Vec<(&'static str, String)>;

fn oracle(facts: &Facts, policy: &Policy) -> Verdicts {
    let mut verdicts = Verdicts::new();
    let row = |id: &str| facts.glance.images.get(id);
    let live = |l: &GlanceLocation| !l.deleted && row(&l.image_id).is_some_and(|row| !row.deleted);
    let url = |name: &str| format!("rbd://{FSID}/images/{name}/snap");
    let names = |l: &GlanceLocation, name: &str| matches!(&l.place, Place::Rbd(p) if p.to_string() == url(name));
    let pool = &facts.pools[0];
    let old = |time: Timestamp| (now() - time).total(jiff::Unit::Second).unwrap() >= policy.grace.as_secs_f64();

    for image in &pool.images {
        let naming: Vec<_> = facts.glance.locations.iter().filter(|l| names(l, &image.name)).collect();
        if naming.iter().any(|l| live(l) && l.status == "active") {
            continue;
        }
        let pending = |l: &&&GlanceLocation| {
            l.status == "pending_delete" && row(&l.image_id).is_some_and(|row| row.status == "pending_delete")
        };
        if naming.iter().any(|l| pending(&l)) {
            let rows = naming.iter().filter_map(|l| row(&l.image_id));
            if rows.filter_map(|row| row.updated).chain(naming.iter().filter_map(|l| l.updated)).all(old) {
                verdicts.push(("pending-delete", image.name.clone()));
            }
            continue;
        }
        if image.name == "volume-1" {
            if naming.is_empty() {
                verdicts.push(("foreign-image", image.name.clone()));
            }
            continue;
        }
        let its = row(&image.name);
        let mut times = vec![image.created.unwrap()];
        times.extend(image.modified);
        times.extend(image.snapshots.iter().filter_map(|snapshot| snapshot.taken));
        times.extend(its.iter().flat_map(|row| [row.created, row.updated]).flatten());
        let whole = image.snapshots.iter().any(|snapshot| snapshot.name == "snap");
        let busy = image.closer.as_ref().is_none_or(|closer| !closer.watchers.is_empty())
            || pool.going.contains(&image.name)
            || its.is_some_and(|row| row.importing && !row.deleted)
            || !times.into_iter().all(old);
        let status = its.map(|row| if row.deleted { "deleted" } else { row.status.as_str() });
        let kind = match (busy, naming.is_empty(), status) {
            (true, ..) => "in-flight",
            (_, false, _) => continue,
            (.., Some("deleted")) => "orphan-deleted",
            (.., Some("queued" | "saving" | "uploading" | "importing") | None) if image.parent.is_some() && !whole => {
                "leaked-clone"
            }
            (.., Some("queued" | "saving" | "uploading" | "importing")) if whole => "unregistered",
            (.., Some("queued" | "saving" | "uploading" | "importing")) => "partial-upload",
            (.., Some(_)) => "in-flight",
            (.., None) => "orphan",
        };
        verdicts.push((kind, image.name.clone()));
    }
    for location in facts.glance.locations.iter().filter(|l| live(l)) {
        let Place::Rbd(place) = &location.place else {
            verdicts.push(("undecryptable-location", String::new()));
            continue;
        };
        let name = place.image();
        if location.status != "active" || pool.unread.contains(name) {
            continue;
        }
        let its = row(&location.image_id).unwrap();
        let snapshot = |image: &RbdImage| image.snapshots.iter().find(|snapshot| snapshot.name == "snap").cloned();
        let kind = match pool.images.iter().find(|image| image.name == name).map(snapshot) {
            None => "missing-image",
            Some(None) => "missing-snapshot",
            Some(Some(snapshot)) if its.size != Some(snapshot.size) && !its.importing => "size-mismatch",
            Some(Some(snapshot)) if !snapshot.protected => "unprotected-snapshot",
            Some(Some(_)) => continue,
        };
        let busy = pool.going.contains(name) || !["active", "deactivated"].contains(&its.status.as_str());
        verdicts.push((if busy { "in-flight" } else { kind }, name.to_owned()));
    }
    verdicts.sort();
    verdicts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_oracle_agrees(facts in any_facts(), policy in any_policy()) {
        let findings = classify(&facts, &policy, now());
        // These have tests of their own.
        let others = [Kind::Duplicate, Kind::SharedLocation, Kind::ExtraSnapshot];
        let mut verdicts: Verdicts = findings
            .into_iter()
            .filter(|finding| !others.contains(&finding.kind))
            .map(|finding| (finding.kind.name(), finding.image.unwrap_or_default()))
            .collect();
        verdicts.sort();
        prop_assert_eq!(verdicts, oracle(&facts, &policy));
    }
}
