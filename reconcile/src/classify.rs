//! What the facts mean. A function of facts, policy and a given `now`: no I/O, no clock, no environment.
//!
//! The rule behind every line: an image is called dead only by what is known. What was not looked at, may not be read or is
//! too young is in flight or blocked, never an orphan.

mod copies;
mod image;
mod location;
mod owners;
mod trash;

use std::{collections::HashSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use self::owners::Owners;
use crate::{
    facts::{Facts, GlanceImage, PoolFacts, RbdImage},
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

/// How far a database's latest row may be behind an image that it should have known: clocks differ, and a Glance writes its
/// row before the image and again after it.
const STALE: SignedDuration = SignedDuration::from_mins(5);

/// Glance's names are UUIDs as it prints them, and nothing else is.
#[must_use]
pub fn is_glance_name(name: &str) -> bool {
    name.len() == 36 && Uuid::try_parse(name).is_ok()
}

/// Facts, and what they are judged by.
struct Judge<'a> {
    facts: &'a Facts,
    owners: Owners<'a>,
    policy: &'a Policy,
    now: Timestamp,
}

/// All findings, worst first, then by pool and image.
#[must_use]
pub fn classify(facts: &Facts, policy: &Policy, now: Timestamp) -> Vec<Finding> {
    let judge = Judge { facts, owners: Owners::of(facts), policy, now };
    let mut findings = Vec::new();
    for (index, pool) in facts.pools.iter().enumerate() {
        findings.extend(pool.images.iter().filter_map(|image| judge.image(image, index)));
        findings.extend(pool.trash.iter().filter_map(|entry| judge.trashed(entry, index)));
        findings.extend(pool.broken.iter().map(|broken| Finding {
            image: broken.name.clone(),
            image_id: Some(broken.id.clone()),
            ..found(Kind::BrokenImage, pool).with("missing", &broken.missing)
        }));
    }
    findings.extend(facts.glance.locations.iter().flat_map(|location| judge.location(location)));
    findings.extend(judge.shared());
    findings.extend(judge.duplicates());
    findings.sort_by(|a, b| key(a).cmp(&key(b)));
    findings
}

/// What findings are sorted by.
fn key(finding: &Finding) -> impl Ord + use<'_> {
    let Finding { kind, pool, namespace, image, image_id, glance_id, location, .. } = finding;
    (kind, pool, namespace, image, image_id, glance_id, location)
}

fn found(kind: Kind, pool: &PoolFacts) -> Finding {
    Finding { namespace: pool.namespace.clone(), ..Finding::new(kind, &pool.name) }
}

/// The images of each pool, by their place in it, to look at more closely before they are judged: those of Glance's that no
/// active location owns.
pub(crate) fn suspects(facts: &Facts) -> Vec<Vec<usize>> {
    let owners = Owners::of(facts);
    let of_pool = |(index, pool): (usize, &PoolFacts)| {
        let suspect = |image: &RbdImage| is_glance_name(&image.name) && !owners.is_owned(index, &image.name);
        pool.images.iter().enumerate().filter(|(_, image)| suspect(image)).map(|(index, _)| index).collect()
    };
    facts.pools.iter().enumerate().map(of_pool).collect()
}

/// The images that locations name in vain: by name, with the Glance images that do, to look at again before anything is
/// called broken.
pub(crate) fn in_doubt(facts: &Facts) -> Vec<Finding> {
    let policy = Policy::default();
    let judge = Judge { facts, owners: Owners::of(facts), policy: &policy, now: Timestamp::UNIX_EPOCH };
    let doubts = facts.glance.locations.iter().flat_map(|location| judge.location(location));
    doubts.filter(|finding| location::IN_DOUBT.contains(&finding.kind)).collect()
}

impl Judge<'_> {
    fn row(&self, id: &str) -> Option<&GlanceImage> {
        self.facts.glance.images.get(id)
    }

    /// Whether a time is more than `age` ago. What is beyond time is not.
    fn is_older(&self, time: Timestamp, age: Duration) -> bool {
        let Ok(age) = SignedDuration::try_from(age) else { return false };
        self.now.checked_sub(age).is_ok_and(|limit| time <= limit)
    }

    /// What keeps an image from being removed, whatever it is; sorted.
    fn blocks(&self, image: &RbdImage, pool: usize) -> Vec<Block> {
        let row = self.row(&image.name);
        let closer = image.closer.as_ref();
        let watchers = closer.map_or(&[][..], |closer| &closer.watchers);
        // A writer that died leaves its lock behind; one that somebody asked for means "hands off" until it is removed.
        let holds = |lock: &crate::facts::Lock| {
            let is_holder = |watcher: &String| watcher.split(' ').next() == Some(lock.client.as_str());
            !lock.automatic || watchers.iter().any(is_holder)
        };
        let unknown = image.children.unknown
            || !image.unknown.is_empty()
            || closer.is_none()
            || self.owners.unreadable
            || self.owners.may_mean(pool, &image.name);
        let conditions = [
            (Block::Children, image.children.count > 0),
            (Block::Watchers, !watchers.is_empty()),
            (Block::Lock, closer.is_some_and(|closer| closer.locks.iter().any(holds))),
            (Block::Unknown, unknown),
            (Block::Group, image.group.is_some()),
            (Block::Mirror, image.mirrored),
            (Block::Migration, image.migrating),
            (Block::Snapshots, image.snapshots.iter().any(image::is_somebody_elses)),
            (Block::Protected, row.is_some_and(|row| row.protected && !row.deleted)),
            (Block::Stale, !self.policy.allow_stale && self.is_unattested(image)),
        ];
        conditions.into_iter().filter(|(_, holds)| *holds).map(|(block, _)| block).collect()
    }

    /// Whether some database is too old to know the image: a replica that lags behind, or a restored backup.
    fn is_unattested(&self, image: &RbdImage) -> bool {
        let databases = &self.facts.glance.databases;
        let knows = |newest: Timestamp| match image.created {
            Some(created) => newest.checked_add(STALE).is_ok_and(|limit| limit >= created),
            None => true, // of before Ceph 13
        };
        databases.is_empty() || databases.iter().any(|database| !database.newest.is_some_and(knows))
    }
}

/// A finding about an image, with the facts that say what it is.
fn describe(kind: Kind, image: &RbdImage, pool: &PoolFacts, row: Option<&GlanceImage>) -> Finding {
    let snapshots: Vec<&str> = image.snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
    let closer = image.closer.as_ref();
    let locks = closer.map(|closer| closer.locks.iter().map(|lock| lock.client.as_str()).collect::<HashSet<_>>());
    let some = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
    let finding = Finding {
        image: Some(image.name.clone()),
        image_id: Some(image.id.clone()),
        glance_id: row.map(|row| row.id.clone()),
        used_bytes: image.usage.map(crate::facts::Usage::total),
        ..found(kind, pool)
    };
    finding
        .with("created", image.created)
        .with("modified", image.modified)
        .with("size", image.size)
        .with("snapshots", snapshots)
        .with("upload", &image.mark)
        .with("watchers", closer.map(|closer| &closer.watchers))
        .with("locks", locks.filter(|locks| !locks.is_empty()))
        .with("children", some(image.children.some.iter().map(child).collect()))
        .with("children_count", Some(image.children.count).filter(|&count| count > 0))
        .with("group", &image.group)
        .with("unknown", Some(&image.unknown).filter(|unknown| !unknown.is_empty()))
        .with("row_status", row.map(|row| &row.status))
        .with("row_deleted", row.map(|row| row.deleted))
        .with("row_created", row.and_then(|row| row.created))
        .with("row_updated", row.and_then(|row| row.updated))
}

/// A clone as people name it.
fn child(child: &crate::facts::Child) -> String {
    child.path.clone().unwrap_or_else(|| match child.namespace.as_str() {
        "" => format!("pool {} (id {})", child.pool, child.id),
        namespace => format!("pool {}/{namespace} (id {})", child.pool, child.id),
    })
}

#[cfg(test)]
mod tests;
