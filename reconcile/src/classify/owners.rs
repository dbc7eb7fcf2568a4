//! Who names what, in the pools of this cluster.

use std::collections::{HashMap, HashSet};

use store::Location;

use crate::facts::{Facts, GlanceLocation, Place, PoolFacts, RbdImage, Trashed};

/// An image, by the place of its pool among the facts' and its name.
pub(super) type Named<'a> = (usize, &'a str);

/// Images by name, and the locations that name them.
pub(super) struct Owners<'a> {
    /// Images of the pools.
    pub(super) present: HashMap<Named<'a>, &'a RbdImage>,
    /// What is in the trash; the latest of each name.
    pub(super) trashed: HashMap<Named<'a>, &'a Trashed>,
    /// Active locations of live rows.
    pub(super) active: HashMap<Named<'a>, Vec<&'a GlanceLocation>>,
    /// What any location names, in whatever state, with one of those that do.
    named: HashMap<Named<'a>, &'a GlanceLocation>,
    /// What live locations name in a pool of the same name on another cluster: after a migration it may be this one.
    shadowed: HashSet<Named<'a>>,
    /// Whether a live location cannot be read, so that it may name any image.
    pub(super) unreadable: bool,
}

impl<'a> Owners<'a> {
    pub(super) fn of(facts: &'a Facts) -> Self {
        let mut owners = Self {
            present: HashMap::new(),
            trashed: HashMap::new(),
            active: HashMap::new(),
            named: HashMap::new(),
            shadowed: HashSet::new(),
            unreadable: false,
        };
        for (index, pool) in facts.pools.iter().enumerate() {
            owners.present.extend(pool.images.iter().map(|image| ((index, image.name.as_str()), image)));
            for entry in &pool.trash {
                let latest = owners.trashed.entry((index, entry.name.as_str())).or_insert(entry);
                if latest.deleted <= entry.deleted {
                    *latest = entry;
                }
            }
        }
        for location in &facts.glance.locations {
            for meant in here(location, facts) {
                let known = owners.named.entry(meant).or_insert(location);
                // One that still waits for the scrubber says more than one that is done with.
                if location.status == "pending_delete" {
                    *known = location;
                }
                if is_active(location, facts) {
                    owners.active.entry(meant).or_default().push(location);
                }
            }
            if is_live(location, facts) {
                owners.unreadable |= location.place == Place::Unreadable;
                owners.shadowed.extend(elsewhere(location, facts));
            }
        }
        owners
    }

    /// Whether an active location names it.
    pub(super) fn is_owned(&self, pool: usize, name: &'a str) -> bool {
        self.active.contains_key(&(pool, name))
    }

    /// A location that names it, in whatever state.
    pub(super) fn naming(&self, pool: usize, name: &'a str) -> Option<&'a GlanceLocation> {
        self.named.get(&(pool, name)).copied()
    }

    /// Whether a location of another cluster may mean it.
    pub(super) fn may_mean(&self, pool: usize, name: &str) -> bool {
        self.shadowed.contains(&(pool, name))
    }
}

/// The images that a location may name: in the pool it gives, in every namespace of it, for it gives none.
pub(super) fn here<'a>(location: &'a GlanceLocation, facts: &'a Facts) -> impl Iterator<Item = Named<'a>> {
    named(location, facts, |fsid| fsid == facts.fsid)
}

/// The images that it would name if it were of this cluster.
fn elsewhere<'a>(location: &'a GlanceLocation, facts: &'a Facts) -> impl Iterator<Item = Named<'a>> {
    named(location, facts, |fsid| fsid != facts.fsid).filter(|_| !is_legacy(location))
}

fn is_legacy(location: &GlanceLocation) -> bool {
    matches!(location.place, Place::Rbd(Location::Legacy { .. }))
}

fn named<'a>(
    location: &'a GlanceLocation,
    facts: &'a Facts,
    is_cluster: impl Fn(&str) -> bool,
) -> impl Iterator<Item = Named<'a>> {
    let names = move |candidate: &PoolFacts| match &location.place {
        // A one-part location means the configured pool, which may be this one.
        Place::Rbd(Location::Legacy { image }) => Some(image.as_str()),
        Place::Rbd(Location::Full { fsid, pool, image, .. }) => {
            (is_cluster(fsid) && *pool == candidate.name).then_some(image.as_str())
        }
        Place::Elsewhere | Place::Unreadable => None,
    };
    facts.pools.iter().enumerate().filter_map(move |(index, pool)| Some((index, names(pool)?)))
}

pub(super) fn is_active(location: &GlanceLocation, facts: &Facts) -> bool {
    location.status == "active" && is_live(location, facts)
}

/// Neither the location nor its row is deleted.
pub(super) fn is_live(location: &GlanceLocation, facts: &Facts) -> bool {
    !location.deleted && facts.glance.images.get(&location.image_id).is_some_and(|row| !row.deleted)
}
