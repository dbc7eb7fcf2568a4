//! What an image of a pool is, by who names it.

use jiff::Timestamp;
use rbd::SnapshotNamespace;
use serde::Serialize;
use store::SNAPSHOT;

use super::{Judge, describe, found, is_glance_name};
use crate::{
    facts::{GlanceImage, GlanceLocation, PoolFacts, RbdImage, SnapshotFacts},
    finding::{Finding, Kind},
};

/// Statuses of a row whose data is on its way.
const ARRIVING: &[&str] = &["queued", "saving", "uploading", "importing"];

/// Whether others than Glance took a snapshot, who may want it back. Ceph itself keeps those in its trash for their clones.
pub(super) fn is_somebody_elses(snapshot: &SnapshotFacts) -> bool {
    match snapshot.namespace {
        SnapshotNamespace::User => snapshot.name != SNAPSHOT,
        SnapshotNamespace::Trash => false,
        _ => true,
    }
}

/// A snapshot, as evidence.
#[derive(Serialize)]
struct Extra<'a> {
    name: &'a str,
    id: u64,
    made_by: &'static str,
    taken: Option<Timestamp>,
}

impl Judge<'_> {
    /// What is to be said of an image of a pool.
    pub(super) fn image(&self, image: &RbdImage, index: usize) -> Option<Finding> {
        let pool = &self.facts.pools[index];
        let naming = self.owners.naming(index, &image.name);
        if self.owners.is_owned(index, &image.name) {
            return extra_snapshots(image, pool, naming);
        }
        let row = self.row(&image.name);
        let pending = |location: &&&GlanceLocation| {
            let row = self.row(&location.image_id);
            location.status == "pending_delete" && row.is_some_and(|row| row.status == "pending_delete")
        };
        if naming.iter().any(|location| pending(&location)) {
            return self.pending(image, pool, naming);
        }
        if !is_glance_name(&image.name) {
            let foreign = || Finding {
                image: Some(image.name.clone()),
                image_id: Some(image.id.clone()),
                used_bytes: image.usage.map(crate::facts::Usage::total),
                ..found(Kind::ForeignImage, pool)
            };
            return naming.is_empty().then(foreign);
        }
        let (kind, because) = match self.why_in_flight(image, pool, row) {
            Some(because) => (Kind::InFlight, Some(because)),
            None if !naming.is_empty() => return None,
            None => unowned(image, row),
        };
        let finding = describe(kind, image, pool, row).with("because", because);
        let blocked_by = if kind.is_reclaimable() { self.blocks(image, index) } else { Vec::new() };
        let used_bytes = finding.used_bytes.filter(|_| kind.is_reclaimable());
        Some(Finding { blocked_by, used_bytes, ..finding })
    }

    /// Why it may be somebody's work of this moment.
    fn why_in_flight(&self, image: &RbdImage, pool: &PoolFacts, row: Option<&GlanceImage>) -> Option<&'static str> {
        let watched = image.closer.as_ref().map(|closer| !closer.watchers.is_empty());
        if watched == Some(true) {
            Some("somebody has it open")
        } else if pool.going.contains(&image.name) {
            Some("it changed while it was read")
        } else if watched.is_none() {
            Some("it was not looked at closely")
        } else if row.is_some_and(|row| !row.deleted && row.importing) {
            Some("a copy is in progress")
        } else if self.is_young(image, row) {
            Some("it is younger than the grace")
        } else {
            None
        }
    }

    /// Whether anything of it happened within the grace, or cannot be told to have happened before.
    fn is_young(&self, image: &RbdImage, row: Option<&GlanceImage>) -> bool {
        let of_row = row.map_or([None; 3], |row| [row.created, row.updated, row.deleted_at]);
        let of_image = [image.created, image.modified].into_iter();
        let snapshots = image.snapshots.iter().map(|snapshot| snapshot.taken);
        let last = of_image.chain(of_row).chain(snapshots).flatten().max();
        let old = image.created.is_some() && last.is_some_and(|last| self.is_older(last, self.policy.grace));
        !self.policy.grace.is_zero() && !old
    }

    /// Deleted with a delay, which has been over for a while.
    fn pending(&self, image: &RbdImage, pool: &PoolFacts, naming: &[&GlanceLocation]) -> Option<Finding> {
        let rows = naming.iter().filter_map(|location| self.row(&location.image_id));
        let times = rows.flat_map(|row| [row.updated, row.deleted_at]);
        let since = times.chain(naming.iter().map(|location| location.updated)).flatten().max()?;
        let row = naming.iter().filter_map(|location| self.row(&location.image_id)).min_by_key(|row| &row.id);
        let scrub_time = self.policy.scrub_time.unwrap_or(self.policy.grace);
        let finding = || describe(Kind::PendingDelete, image, pool, row).with("since", since);
        self.is_older(since, scrub_time).then(finding)
    }
}

/// What an old image that nobody names and nobody works on is, and why where that is not plain.
fn unowned(image: &RbdImage, row: Option<&GlanceImage>) -> (Kind, Option<&'static str>) {
    let whole = image.snapshots.iter().any(|snapshot| snapshot.name == SNAPSHOT);
    let kind = match row {
        Some(row) if row.deleted => Kind::OrphanDeleted,
        Some(row) if !row.is(ARRIVING) => return (Kind::InFlight, Some("its row is alive, but has no location here")),
        _ if image.has_parent() && !whole => Kind::LeakedClone,
        Some(_) if whole => Kind::Unregistered,
        Some(_) => Kind::PartialUpload,
        None if image.mark.is_some() && !whole => Kind::PartialUpload,
        None => Kind::Orphan,
    };
    (kind, None)
}

/// Snapshots of an image of Glance's that no location names.
fn extra_snapshots(image: &RbdImage, pool: &PoolFacts, locations: &[&GlanceLocation]) -> Option<Finding> {
    let known = |snapshot: &SnapshotFacts| {
        let names = |location: &&&GlanceLocation| match &location.place {
            crate::facts::Place::Rbd(place) => place.snapshot() == Some(snapshot.name.as_str()),
            _ => false,
        };
        snapshot.namespace == SnapshotNamespace::User
            && (snapshot.name == SNAPSHOT || locations.iter().any(|location| names(&location)))
    };
    let made_by = |snapshot: &SnapshotFacts| match snapshot.namespace {
        SnapshotNamespace::User => "user",
        SnapshotNamespace::Group => "group",
        SnapshotNamespace::Trash => "trash",
        SnapshotNamespace::Mirror => "mirroring",
        _ => "unknown",
    };
    let extra: Vec<Extra<'_>> = image
        .snapshots
        .iter()
        .filter(|snapshot| !known(snapshot))
        .map(|snapshot| Extra {
            name: &snapshot.name,
            id: snapshot.id,
            made_by: made_by(snapshot),
            taken: snapshot.taken,
        })
        .collect();
    (!extra.is_empty()).then(|| Finding {
        image: Some(image.name.clone()),
        image_id: Some(image.id.clone()),
        glance_id: locations.iter().map(|location| location.image_id.clone()).min(),
        ..found(Kind::ExtraSnapshot, pool).with("extra", extra)
    })
}
