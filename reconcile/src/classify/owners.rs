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
    facts: &'a Facts,
    /// What locations name, in whatever state: sorted, once for each of them,
    named: Vec<Named<'a>>,
    /// and in the same order those locations.
    naming: Vec<&'a GlanceLocation>,
    /// What live locations name in a pool of the same name on another cluster, or in another namespace: after a migration
    /// it may be this one.
    shadowed: HashSet<Named<'a>>,
    /// Whether a live location cannot be read, so that it may name any image.
    pub(super) unreadable: bool,
}

impl<'a> Owners<'a> {
    pub(super) fn of(facts: &'a Facts) -> Self {
        let mut owners = Self {
            present: HashMap::new(),
            trashed: HashMap::new(),
            facts,
            named: Vec::new(),
            naming: Vec::new(),
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
        let mut named: Vec<(Named<'a>, &GlanceLocation)> = Vec::with_capacity(facts.glance.locations.len());
        for location in &facts.glance.locations {
            named.extend(here(location, facts).map(|meant| (meant, location)));
            if is_live(location, facts) {
                owners.unreadable |= location.place == Place::Unreadable;
                owners.shadowed.extend(nearby(location, facts));
            }
        }
        named.sort_by_key(|(named, _)| *named);
        (owners.named, owners.naming) = named.into_iter().unzip();
        owners
    }

    /// Whether an active location names it.
    pub(super) fn is_owned(&self, pool: usize, name: &str) -> bool {
        self.naming(pool, name).iter().any(|location| is_active(location, self.facts))
    }

    /// The locations that name it, in whatever state.
    pub(super) fn naming(&self, pool: usize, name: &str) -> &[&'a GlanceLocation] {
        let start = self.named.partition_point(|named| *named < (pool, name));
        let count = self.named[start..].partition_point(|named| *named == (pool, name));
        &self.naming[start..start + count]
    }

    /// Every image that active locations of live rows name, with those.
    pub(super) fn owned(&self) -> impl Iterator<Item = (Named<'a>, Vec<&'a GlanceLocation>)> {
        let mut start = 0;
        self.named.chunk_by(|a, b| a == b).filter_map(move |named| {
            let naming = &self.naming[start..start + named.len()];
            start += named.len();
            let active = naming.iter().copied().filter(|location| is_active(location, self.facts));
            Some((named[0], active.collect::<Vec<_>>())).filter(|(_, active)| !active.is_empty())
        })
    }

    /// Whether a location of another cluster or namespace may mean it.
    pub(super) fn may_mean(&self, pool: usize, name: &str) -> bool {
        self.shadowed.contains(&(pool, name))
    }
}

/// The images that a location may name in the pools of this cluster.
pub(super) fn here<'a>(location: &'a GlanceLocation, facts: &'a Facts) -> impl Iterator<Item = Named<'a>> {
    named(location, facts, |fsid, pool, candidate| fsid == facts.fsid && pool == candidate.path())
}

/// The images that it may mean although it does not name them: of this pool's name on another cluster, or in another
/// namespace.
fn nearby<'a>(location: &'a GlanceLocation, facts: &'a Facts) -> impl Iterator<Item = Named<'a>> {
    named(location, facts, |fsid, pool, candidate| {
        let same_pool = pool.split('/').next() == Some(candidate.name.as_str());
        same_pool && !(fsid == facts.fsid && pool == candidate.path())
    })
}

fn named<'a>(
    location: &'a GlanceLocation,
    facts: &'a Facts,
    is_meant: impl Fn(&str, &str, &PoolFacts) -> bool,
) -> impl Iterator<Item = Named<'a>> {
    let names = move |candidate: &PoolFacts| match &location.place {
        // A one-part location means the configured pool, which may be this one.
        Place::Rbd(Location::Legacy { image }) => Some(image.as_str()),
        Place::Rbd(Location::Full { fsid, pool, image, .. }) => {
            is_meant(fsid, pool, candidate).then_some(image.as_str())
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
