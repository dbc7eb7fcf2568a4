//! What the facts mean. A function of facts, policy and a given `now`: no I/O, no clock, no environment.
//!
//! The rule behind every line: an image is called dead only by what is known. What was not looked at, may not be read or is
//! too young is in flight or blocked, never an orphan.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use store::{Location, SNAPSHOT};
use uuid::Uuid;

use crate::{
    facts::{Facts, GlanceImage, GlanceLocation, Place, PoolFacts, RbdImage, Usage},
    finding::{Block, Finding, Kind},
};

/// What the admin decided.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How old an image without owner must be before it is called dead; 24 h unless told otherwise.
    pub grace: Duration,
    /// Whether a database is believed although an image is newer than all its rows.
    pub allow_stale: bool,
    /// After what time Glance's scrubber should have removed what was deleted; the grace where it is not known.
    pub scrub_time: Option<Duration>,
    /// The names of all configured backends; empty where they are not known.
    pub stores: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { grace: Duration::from_secs(24 * 3600), allow_stale: false, scrub_time: None, stores: Vec::new() }
    }
}

/// Statuses of a row whose data is on its way.
const ARRIVING: &[&str] = &["queued", "saving", "uploading", "importing"];

/// Glance's names are UUIDs as it prints them, and nothing else is.
#[must_use]
pub fn is_glance_name(name: &str) -> bool {
    name.len() == 36 && Uuid::try_parse(name).is_ok()
}

/// All findings, worst first, then by image.
#[must_use]
pub fn classify(facts: &Facts, policy: &Policy, now: Timestamp) -> Vec<Finding> {
    let owners = Owners::of(facts);
    let mut findings = Vec::new();
    for (index, pool) in facts.pools.iter().enumerate() {
        let images = pool.images.iter();
        findings.extend(images.filter_map(|image| of_image(image, index, facts, &owners, policy, now)));
        findings.extend(pool.broken.iter().map(|broken| Finding {
            image: broken.name.clone(),
            image_id: Some(broken.id.clone()),
            ..finding(Kind::BrokenImage, pool).with("missing", &broken.missing)
        }));
    }
    findings.extend(facts.glance.locations.iter().filter_map(|location| of_location(location, facts, &owners)));
    findings.extend(duplicates(facts, &owners));
    findings.sort_by(|a, b| {
        let key = |finding: &Finding| (finding.kind, finding.image.clone(), finding.glance_id.clone());
        key(a).cmp(&key(b))
    });
    findings
}

fn finding(kind: Kind, pool: &PoolFacts) -> Finding {
    Finding { namespace: pool.namespace.clone(), ..Finding::new(kind, &pool.name) }
}

/// The images of each pool to look at more closely before they are judged: those that no active location owns.
pub(crate) fn suspects(facts: &Facts) -> Vec<Vec<usize>> {
    let owners = Owners::of(facts);
    let of_pool = |(index, pool): (usize, &PoolFacts)| {
        let suspect = |image: &RbdImage| is_glance_name(&image.name) && !owners.is_owned(index, &image.name);
        pool.images.iter().enumerate().filter(|(_, image)| suspect(image)).map(|(index, _)| index).collect()
    };
    facts.pools.iter().enumerate().map(of_pool).collect()
}

/// The locations to look at once more before they are called broken.
pub(crate) fn in_doubt(facts: &Facts) -> Vec<Finding> {
    let owners = Owners::of(facts);
    let doubts = facts.glance.locations.iter().filter_map(|location| of_location(location, facts, &owners));
    doubts.filter(|finding| finding.image.is_some()).collect()
}

/// Who names what, in these pools of this cluster. An image is meant by the index of its pool and its name.
struct Owners<'a> {
    /// Images of the pools.
    present: HashMap<(usize, &'a str), &'a RbdImage>,
    /// Active locations of live rows.
    active: HashMap<(usize, &'a str), Vec<&'a GlanceLocation>>,
    /// What any location names, in whatever state.
    named: HashSet<(usize, &'a str)>,
    /// Whether a live location cannot be read, so that it may name any image.
    unreadable: bool,
}

impl<'a> Owners<'a> {
    fn of(facts: &'a Facts) -> Self {
        let mut active: HashMap<_, Vec<&GlanceLocation>> = HashMap::new();
        let mut named = HashSet::new();
        for location in &facts.glance.locations {
            for (index, name) in here(location, facts) {
                named.insert((index, name));
                if is_active(location, facts) {
                    active.entry((index, name)).or_default().push(location);
                }
            }
        }
        let of_pool = |(index, pool): (usize, &'a PoolFacts)| {
            pool.images.iter().map(move |image| ((index, image.name.as_str()), image))
        };
        let present = facts.pools.iter().enumerate().flat_map(of_pool).collect();
        let unreadable = facts
            .glance
            .locations
            .iter()
            .any(|location| location.place == Place::Unreadable && is_live(location, facts));
        Self { present, active, named, unreadable }
    }

    fn is_owned(&self, pool: usize, name: &'a str) -> bool {
        self.active.contains_key(&(pool, name))
    }
}

/// The images that a location may name: of the pool it gives, in every namespace, for it gives none.
fn here<'a>(location: &'a GlanceLocation, facts: &'a Facts) -> impl Iterator<Item = (usize, &'a str)> {
    let pools = facts.pools.iter().enumerate();
    pools.filter_map(|(index, candidate)| match &location.place {
        // A one-part location means the configured pool, which may be this one.
        Place::Rbd(Location::Legacy { image }) => Some((index, image.as_str())),
        Place::Rbd(Location::Full { fsid, pool, image, .. }) => {
            (*fsid == facts.fsid && *pool == candidate.name).then_some((index, image.as_str()))
        }
        Place::Elsewhere | Place::Unreadable => None,
    })
}

fn is_active(location: &GlanceLocation, facts: &Facts) -> bool {
    location.status == "active" && is_live(location, facts)
}

/// Neither the location nor its row is deleted.
fn is_live(location: &GlanceLocation, facts: &Facts) -> bool {
    !location.deleted && facts.glance.images.get(&location.image_id).is_some_and(|row| !row.deleted)
}

/// What is wrong with an image of the pool that no active location owns.
fn of_image(
    image: &RbdImage,
    index: usize,
    facts: &Facts,
    owners: &Owners<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Option<Finding> {
    if owners.active.contains_key(&(index, image.name.as_str())) {
        return None;
    }
    let row = facts.glance.images.get(&image.name);
    let named = owners.named.contains(&(index, image.name.as_str()));
    let kind = if is_glance_name(&image.name) {
        unowned(image, row, named, policy, now)?
    } else if named {
        return None;
    } else {
        Kind::ForeignImage
    };
    let mut finding = Finding {
        image: Some(image.name.clone()),
        image_id: Some(image.id.clone()),
        glance_id: row.map(|row| row.id.clone()),
        ..finding(kind, &facts.pools[index])
    };
    if kind != Kind::ForeignImage {
        let snapshots: Vec<&str> = image.snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
        finding = finding
            .with("created", image.created)
            .with("modified", image.modified)
            .with("size", image.size)
            .with("snapshots", snapshots)
            .with("upload", &image.mark)
            .with("watchers", image.closer.as_ref().map(|closer| &closer.watchers))
            .with("row_status", row.map(|row| &row.status))
            .with("row_deleted", row.map(|row| row.deleted))
            .with("row_updated", row.and_then(|row| row.updated));
    }
    if kind.is_reclaimable() {
        finding.used_bytes = image.usage.map(Usage::total);
        if image.children.count > 0 {
            finding.blocked_by.push(Block::Children);
            let names: Vec<&str> = image.children.some.iter().filter_map(|child| child.path.as_deref()).collect();
            finding = finding.with("children", names);
        }
        if image.children.unknown || !image.unknown.is_empty() || owners.unreadable {
            finding.blocked_by.push(Block::Unknown);
        }
    }
    Some(finding)
}

/// The kind of a Glance-named image without an active location; `None` where another location still names it.
fn unowned(image: &RbdImage, row: Option<&GlanceImage>, named: bool, policy: &Policy, now: Timestamp) -> Option<Kind> {
    let watched = image.closer.as_ref().is_none_or(|closer| !closer.watchers.is_empty());
    let copying = row.is_some_and(|row| !row.deleted && row.importing);
    if watched || copying || is_young(image, row, policy, now) {
        return Some(Kind::InFlight);
    }
    if named {
        return None;
    }
    let whole = image.snapshots.iter().any(|snapshot| snapshot.name == SNAPSHOT);
    match row {
        Some(row) if row.deleted => Some(Kind::OrphanDeleted),
        Some(row) if !row.is(ARRIVING) => Some(Kind::InFlight), // its data is elsewhere; it may come back to this image
        _ if image.has_parent() && !whole => Some(Kind::LeakedClone),
        Some(_) if whole => Some(Kind::Unregistered),
        Some(_) => Some(Kind::PartialUpload),
        None if image.mark.is_some() && !whole => Some(Kind::PartialUpload),
        None => Some(Kind::Orphan),
    }
}

/// Whether anything of it happened within the grace, or cannot be told to have happened before.
fn is_young(image: &RbdImage, row: Option<&GlanceImage>, policy: &Policy, now: Timestamp) -> bool {
    let Ok(age) = jiff::SignedDuration::try_from(policy.grace) else { return true };
    let Ok(limit) = now.checked_sub(age) else { return true };
    let last =
        [image.created, row.and_then(|row| row.updated), row.and_then(|row| row.created)].into_iter().flatten().max();
    !policy.grace.is_zero() && last.is_none_or(|last| last > limit)
}

/// What is wrong with an active location.
fn of_location(location: &GlanceLocation, facts: &Facts, owners: &Owners<'_>) -> Option<Finding> {
    let found = |kind, pool: &PoolFacts| Finding {
        glance_id: Some(location.image_id.clone()),
        ..finding(kind, pool).with("row_status", facts.glance.images.get(&location.image_id).map(|row| &row.status))
    };
    if location.place == Place::Unreadable {
        return is_live(location, facts).then(|| found(Kind::UndecryptableLocation, &facts.pools[0]));
    }
    let meant: Vec<(usize, &str)> = here(location, facts).collect();
    let &(first, name) = meant.first()?;
    let pools = || meant.iter().map(|&(index, _)| &facts.pools[index]);
    if !is_active(location, facts) || pools().any(|pool| pool.unread.contains(name) || pool.going.contains(name)) {
        return None;
    }
    let Place::Rbd(place) = &location.place else { return None };
    let found =
        |kind, pool| Finding { image: Some(name.to_owned()), location: Some(place.to_string()), ..found(kind, pool) };
    let present = meant.iter().find_map(|place| Some((&facts.pools[place.0], owners.present.get(place)?)));
    let Some((pool, image)) = present else {
        for pool in pools() {
            if let Some(trashed) = pool.trash.iter().rfind(|entry| entry.name == name) {
                let finding = found(Kind::TrashedImage, pool).with("deferred_until", trashed.deferred_until);
                return Some(Finding { image_id: Some(trashed.id.clone()), ..finding });
            }
        }
        return match place {
            // Of another pool, perhaps: what a one-part location means is not known here.
            Location::Legacy { .. } => None,
            Location::Full { .. } => Some(found(Kind::MissingImage, &facts.pools[first])),
        };
    };
    let snapshot = place.snapshot()?;
    if image.snapshots.iter().any(|there| there.name == snapshot) {
        return None;
    }
    let there: Vec<&str> = image.snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
    let finding = found(Kind::MissingSnapshot, pool).with("missing", snapshot).with("snapshots", there);
    Some(Finding { image_id: Some(image.id.clone()), ..finding })
}

/// Groups of active images of the same data in this pool: one finding a group.
fn duplicates(facts: &Facts, owners: &Owners<'_>) -> Vec<Finding> {
    let mut groups: BTreeMap<Data<'_>, Vec<(&GlanceImage, &RbdImage)>> = BTreeMap::new();
    let mut counted = HashSet::new();
    let mut pools = HashMap::new();
    for (place, locations) in &owners.active {
        let Some(image) = owners.present.get(place) else { continue };
        pools.insert(&image.id, place.0);
        for location in locations {
            let Some(row) = facts.glance.images.get(&location.image_id) else { continue };
            let Some((algorithm, value, size)) = data_of(row) else { continue };
            // Two rows of one RBD image share it; there is nothing to win.
            if counted.insert(&image.id) {
                groups.entry((algorithm, value, size)).or_default().push((row, image));
            }
        }
    }
    let groups = groups.into_iter().filter(|(_, copies)| copies.len() > 1);
    groups
        .map(|((algorithm, value, size), mut copies)| {
            copies.sort_by(|(a, _), (b, _)| (a.created, &a.id).cmp(&(b.created, &b.id)));
            let (first, image) = copies[0];
            let ids: Vec<&str> = copies.iter().map(|(row, _)| row.id.as_str()).collect();
            Finding {
                image: Some(image.name.clone()),
                image_id: Some(image.id.clone()),
                glance_id: Some(first.id.clone()),
                used_bytes: Some(size.saturating_mul(copies.len() as u64 - 1)),
                ..finding(Kind::Duplicate, &facts.pools[pools[&image.id]])
                    .with("copies", ids)
                    .with("algorithm", algorithm)
                    .with("hash", value)
                    .with("size", size)
            }
        })
        .collect()
}

/// Algorithm, digest and size of an image's data.
type Data<'a> = (&'a str, &'a str, u64);

/// The data of an active image.
fn data_of(row: &GlanceImage) -> Option<Data<'_>> {
    if !row.is(&["active"]) {
        return None;
    }
    let (algorithm, value) = match (&row.multihash, &row.checksum) {
        (Some((algorithm, value)), _) => (algorithm.as_str(), value.as_str()),
        (None, Some(checksum)) => ("md5", checksum.as_str()),
        (None, None) => return None,
    };
    Some((algorithm, value, row.size?))
}

#[cfg(test)]
mod tests;
