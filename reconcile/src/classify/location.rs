//! What a location promises, and whether the pools keep it.

use jiff::Timestamp;
use rbd::Features;
use store::Location;

use super::{
    Judge, found,
    owners::{self, Named, is_active, is_live},
};
use crate::{
    facts::{GlanceImage, GlanceLocation, Place, PoolFacts, RbdImage},
    finding::{Finding, Kind},
};

/// What a location may only seem to be while its image is removed, registered or restored: looked at again.
pub(super) const IN_DOUBT: [Kind; 6] = [
    Kind::MissingImage,
    Kind::MissingSnapshot,
    Kind::TrashedImage,
    Kind::SizeMismatch,
    Kind::UnprotectedSnapshot,
    Kind::InFlight,
];

/// Formats that Nova boots from, but only from a copy that it has converted.
const CONVERTED: [&str; 6] = ["qcow2", "vmdk", "vdi", "vhd", "vhdx", "ploop"];

impl Judge<'_> {
    /// What is to be said of a location.
    pub(super) fn location(&self, location: &GlanceLocation) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Some(row) = self.row(&location.image_id).filter(|_| is_live(location, self.facts)) else {
            return findings;
        };
        let about = |kind: Kind, pool: &PoolFacts| Finding {
            glance_id: Some(location.image_id.clone()),
            ..found(kind, pool).with("row_status", &row.status).with("database", self.database(location.database))
        };
        if let Some(store) = self.unknown_store(location) {
            findings.push(about(Kind::UnknownStore, &self.some_pool()).with("store", store));
        }
        let place = match &location.place {
            Place::Rbd(place) if is_active(location, self.facts) => place,
            Place::Unreadable => {
                findings.push(about(Kind::UndecryptableLocation, &self.some_pool()));
                return findings;
            }
            Place::Rbd(_) | Place::Elsewhere => return findings,
        };
        let about = |kind: Kind, pool: &PoolFacts| Finding {
            image: Some(place.image().to_owned()),
            location: Some(place.to_string()),
            ..about(kind, pool)
        };
        if let (Some(fsid), Some(pool)) = (place.fsid(), place.pool())
            && fsid != self.facts.fsid
        {
            let other = PoolFacts { name: pool.to_owned(), ..PoolFacts::default() };
            findings.push(about(Kind::ForeignCluster, &other).with("fsid", fsid));
            return findings;
        }
        let meant: Vec<Named<'_>> = owners::here(location, self.facts).collect();
        let present = meant.iter().find_map(|named| Some((named.0, *self.owners.present.get(named)?)));
        if place.snapshot().is_none() {
            let pool = present.map_or_else(|| self.some_pool(), |(index, _)| self.facts.pools[index].clone_names());
            findings.push(about(Kind::LegacyLocation, &pool));
        }
        let broken =
            match present {
                None => self.absent(place, &meant, about),
                Some((index, image)) => {
                    let pool = &self.facts.pools[index];
                    let about = |kind| Finding { image_id: Some(image.id.clone()), ..about(kind, pool) };
                    let broken = unfit(place, image, row, about);
                    if broken.is_none() {
                        findings.extend(not_cloneable(place, image, row).map(|why| {
                            about(Kind::NotCloneable).with("why", why).with("disk_format", &row.disk_format)
                        }));
                    }
                    broken
                }
            };
        findings.extend(broken.and_then(|finding| self.unless_at_work(finding, &meant, row)));
        findings
    }

    /// A location whose image is in none of the pools it may mean.
    fn absent(
        &self,
        place: &Location,
        meant: &[Named<'_>],
        about: impl Fn(Kind, &PoolFacts) -> Finding,
    ) -> Option<Finding> {
        let trashed = meant.iter().find_map(|named| Some((named.0, *self.owners.trashed.get(named)?)));
        if let Some((index, entry)) = trashed {
            let finding = about(Kind::TrashedImage, &self.facts.pools[index])
                .with("trashed", entry.deleted)
                .with("deferred_until", entry.deferred_until);
            return Some(Finding { image_id: Some(entry.id.clone()), ..finding });
        }
        // A one-part location may mean a pool that was not read.
        place.fsid()?;
        meant.first().map(|&(index, _)| about(Kind::MissingImage, &self.facts.pools[index]))
    }

    /// Nothing is called broken that could not be read or is being worked on.
    fn unless_at_work(&self, finding: Finding, meant: &[Named<'_>], row: &GlanceImage) -> Option<Finding> {
        let pools = || meant.iter().map(|&(index, name)| (&self.facts.pools[index], name));
        if pools().any(|(pool, name)| pool.unread.contains(name)) {
            return None;
        }
        let because = if pools().any(|(pool, name)| pool.going.contains(name)) {
            "it changed while it was read"
        } else if !row.is(&["active", "deactivated"]) {
            "its row is not active yet"
        } else {
            return Some(finding);
        };
        let in_flight = Finding::new(Kind::InFlight, "");
        Some(Finding {
            kind: in_flight.kind,
            severity: in_flight.severity,
            action: in_flight.action,
            ..finding.with("because", because)
        })
    }

    /// The store that a location's metadata names, if it is not one of those configured.
    fn unknown_store<'a>(&self, location: &'a GlanceLocation) -> Option<&'a str> {
        let store = location.store.as_deref()?;
        let stores = &self.policy.stores;
        (!stores.is_empty() && !stores.iter().any(|known| known == store)).then_some(store)
    }

    /// Where a finding belongs to no pool: the only one, or none.
    fn some_pool(&self) -> PoolFacts {
        match self.facts.pools.as_slice() {
            [pool] => pool.clone_names(),
            _ => PoolFacts::default(),
        }
    }

    /// The name of a database, where there is more than one.
    fn database(&self, index: usize) -> Option<&str> {
        let databases = &self.facts.glance.databases;
        databases.get(index).filter(|_| databases.len() > 1).map(|database| database.name.as_str())
    }
}

impl PoolFacts {
    /// The pool without what is in it.
    fn clone_names(&self) -> Self {
        Self { name: self.name.clone(), namespace: self.namespace.clone(), id: self.id, ..Self::default() }
    }
}

/// An image that is there, but not as its location promises.
fn unfit(place: &Location, image: &RbdImage, row: &GlanceImage, about: impl Fn(Kind) -> Finding) -> Option<Finding> {
    let wanted = place.snapshot();
    let snapshot = image.snapshots.iter().find(|there| Some(there.name.as_str()) == wanted);
    let size = match (wanted, snapshot) {
        (Some(wanted), None) => {
            let there: Vec<&str> = image.snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
            let finding = about(Kind::MissingSnapshot).with("missing", wanted).with("snapshots", there);
            let watchers = image.closer.as_ref().map(|closer| &closer.watchers);
            return Some(
                finding
                    .with("size", image.size)
                    .with("row_size", row.size)
                    .with("created", image.created)
                    .with("upload", &image.mark)
                    .with("watchers", watchers)
                    .with("row_updated", row.updated),
            );
        }
        (_, Some(snapshot)) => snapshot.size,
        (None, None) => image.size,
    };
    if row.size.is_some_and(|registered| registered != size) && !row.importing {
        return Some(about(Kind::SizeMismatch).with("size", size).with("row_size", row.size));
    }
    let snapshot = snapshot.filter(|snapshot| !snapshot.protected)?;
    let taken: Option<Timestamp> = snapshot.taken;
    Some(about(Kind::UnprotectedSnapshot).with("snapshot", &snapshot.name).with("taken", taken))
}

/// Why Nova cannot boot from a clone of it.
fn not_cloneable(place: &Location, image: &RbdImage, row: &GlanceImage) -> Option<&'static str> {
    let format = row.disk_format.as_deref()?;
    if !row.is(&["active"]) {
        None
    } else if CONVERTED.contains(&format) {
        Some("only raw images can be cloned")
    } else if format != "raw" {
        None // not booted from, or not by Nova
    } else if place.snapshot().is_none() {
        Some("its location names no snapshot")
    } else if !image.features.contains(Features::LAYERING) {
        Some("it has no layering")
    } else {
        None
    }
}
