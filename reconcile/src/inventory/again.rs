//! The second look: what seems wrong is read again, and only what stays wrong is reported.
//!
//! A removal by a busy Glance takes seconds between the snapshot, the data and the row. What looks wrong is therefore read
//! again after a while, with its rows, and for longer as long as somebody has the image open, changes or removes it. What
//! still changes at the end is in flight.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use rbd::Pool;

use super::{
    GatherError, Gathered, Look, Progress, Sources, Stage,
    children::ClonePools,
    closer::{Closely, Place, notes},
    glance, keep,
    pool::{self, Read},
};
use crate::{
    classify::{in_doubt, is_glance_name, suspects},
    facts::{PoolFacts, RbdImage, Usage},
};

/// How long to wait before something is called broken for the first time.
const SETTLE: Duration = Duration::from_secs(3);
/// How long to wait for somebody who is at work on it, each time.
const AGAIN: Duration = Duration::from_secs(5);
/// How many times.
const ROUNDS: u32 = 10;
/// What happened as lately as this is looked at twice, if no grace covers it: an upload has moments without a watcher.
const FRESH: Duration = Duration::from_secs(60);

/// An image is in the directory before it has a header, and for a moment after it has none: only one that stays so is broken.
pub(super) async fn broken(gathered: &mut Gathered, pools: &[Pool]) -> rbd::Result<()> {
    if gathered.facts.pools.iter().all(|pool| pool.broken.is_empty()) {
        return Ok(());
    }
    tokio::time::sleep(SETTLE).await;
    for (pool, facts) in pools.iter().zip(&mut gathered.facts.pools) {
        for broken in std::mem::take(&mut facts.broken) {
            let (name, id) = (broken.name.unwrap_or_default(), broken.id);
            let still = match pool::still_broken(pool, &name, &id).await? {
                Some(still) => Some(still),
                None => pool::left_out(pool, &name).await?,
            };
            match still {
                Some(still) => facts.broken.push(still),
                None if facts.images.iter().any(|image| image.id == id) => {}
                None if pool::id_of(pool, &name).await?.as_deref() == Some(&id) => {
                    let read = pool::image(pool, &name, &id).await;
                    keep(facts, &mut gathered.problems, name, id, read);
                }
                None => {}
            }
        }
        facts.images.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(())
}

/// Reads what looks wrong again: the images that nobody owns, the trash, and what locations name in vain.
pub(super) async fn look(
    gathered: &mut Gathered,
    sources: &Sources,
    look: Look,
    clones: &[ClonePools],
    progress: &Progress<'_>,
) -> Result<(), GatherError> {
    let mut second = Second { gathered, sources, clones, unread: HashSet::new() };
    second.suspects(progress).await?;
    second.rounds(look).await?;
    let unread = second.unread;
    gathered.notes.extend(notes(unread));
    broken(gathered, &sources.pools).await?;
    Ok(())
}

/// Names, by the place of their pool.
type Names = BTreeMap<usize, BTreeSet<String>>;

/// A second look under way.
struct Second<'a> {
    gathered: &'a mut Gathered,
    sources: &'a Sources,
    clones: &'a [ClonePools],
    unread: HashSet<String>,
}

impl Second<'_> {
    /// Looks closely at what nobody owns, and at the trash.
    async fn suspects(&mut self, progress: &Progress<'_>) -> Result<(), GatherError> {
        let suspects = suspects(&self.gathered.facts);
        let spec = |image: &RbdImage| (image.name.clone(), image.id.clone());
        let mut wanted = Vec::new();
        for (pool, suspects) in self.gathered.facts.pools.iter().zip(suspects) {
            let images: Vec<_> = suspects.into_iter().map(|image| spec(&pool.images[image])).collect();
            wanted.push((images, trashed(pool)));
        }
        let total = wanted.iter().map(|(images, trash)| (images.len() + trash.len()) as u64).sum();
        let mut done = 0;
        let mut names = HashSet::new();
        for (index, (images, trash)) in wanted.into_iter().enumerate() {
            let closely = Closely { pool: &self.sources.pools[index], clones: &self.clones[index] };
            names.extend(images.iter().chain(&trash).map(|(name, _)| name.clone()));
            let (images_count, trash_count) = (images.len() as u64, trash.len() as u64);
            let tell = |looked| progress(Stage::Suspects, done + looked, Some(total));
            let (looks, unread) = closely.images(images, Place::Pool, &tell).await;
            self.unread.extend(unread);
            self.replace(index, looks);
            done += images_count;
            let tell = |looked| progress(Stage::Suspects, done + looked, Some(total));
            let (looks, unread) = closely.images(trash, Place::Trash, &tell).await;
            self.unread.extend(unread);
            replace_trashed(&mut self.gathered.facts.pools[index], looks);
            done += trash_count;
        }
        self.reread(names.clone(), names).await
    }

    /// Looks again at what is wrong until it is plain whether it stays so.
    async fn rounds(&mut self, look: Look) -> Result<(), GatherError> {
        let mut at_work = false;
        for round in 0..ROUNDS {
            let doubts = in_doubt(&self.gathered.facts);
            let mut ids: HashSet<String> = HashSet::new();
            let mut wanted = Names::new();
            for doubt in doubts {
                let is_pool = |pool: &&PoolFacts| (&pool.name, &pool.namespace) == (&doubt.pool, &doubt.namespace);
                let index = self.gathered.facts.pools.iter().position(|pool| is_pool(&pool));
                if let (Some(index), Some(name)) = (index, doubt.image) {
                    wanted.entry(index).or_default().insert(name);
                    ids.extend(doubt.glance_id);
                }
            }
            if round == 0 && look.grace < FRESH {
                self.fresh(&mut wanted);
            }
            if wanted.is_empty() || (round > 0 && !at_work) {
                break;
            }
            tokio::time::sleep(if round == 0 { SETTLE } else { AGAIN }).await;
            at_work = false;
            for (index, names) in &wanted {
                at_work |= self.round(*index, names).await?;
            }
            let names: HashSet<String> = wanted.into_values().flatten().collect();
            ids.extend(names.iter().cloned());
            self.reread(ids, names).await?;
        }
        Ok(())
    }

    /// Suspects of the last minute.
    fn fresh(&self, wanted: &mut Names) {
        let Ok(limit) = Timestamp::now().checked_sub(FRESH) else { return };
        let facts = &self.gathered.facts;
        for (index, suspects) in suspects(facts).into_iter().enumerate() {
            let pool = &facts.pools[index];
            for image in suspects.into_iter().map(|image| &pool.images[image]) {
                let row = facts.glance.images.get(&image.name).and_then(|row| row.updated);
                let snapshot = image.snapshots.iter().filter_map(|snapshot| snapshot.taken).max();
                if [image.created, image.modified, row, snapshot].into_iter().flatten().any(|time| time > limit) {
                    wanted.entry(index).or_default().insert(image.name.clone());
                }
            }
        }
    }

    /// Reads images of one pool by name once more, and its trash. Whether somebody is at work on one of them.
    async fn round(&mut self, index: usize, names: &BTreeSet<String>) -> rbd::Result<bool> {
        let pool = &self.sources.pools[index];
        let closely = Closely { pool, clones: &self.clones[index] };
        let mut images = Vec::new();
        let mut absent = Vec::new();
        for name in names {
            match pool::id_of(pool, name).await? {
                Some(id) => images.push((name.clone(), id)),
                None => absent.push((name.clone(), String::new(), Read::Gone)),
            }
        }
        let (mut looks, unread) = closely.images(images, Place::Pool, &|_| {}).await;
        self.unread.extend(unread);
        looks.extend(absent);

        // librbd lists an image that is being removed among the images; the directory no longer has it.
        let listed: HashSet<String> = pool.images().await?.into_iter().map(|spec| spec.name).collect();
        let mut at_work = false;
        let facts = &mut self.gathered.facts.pools[index];
        for (name, _, read) in &looks {
            let before = facts.images.iter().find(|image| image.name == *name);
            let (moves, open) = match (before, read) {
                (Some(before), Read::Image(now)) => {
                    let open = now.closer.as_ref().is_some_and(|closer| !closer.watchers.is_empty());
                    (header_of(before) != header_of(now), open)
                }
                (None, Read::Image(_)) | (Some(_), Read::Gone | Read::Broken) => (true, false),
                (None, Read::Gone) => (listed.contains(name), false),
                (None, Read::Broken) | (_, Read::Failed(_)) => (false, false),
            };
            at_work |= moves || open;
            if moves {
                facts.going.insert(name.clone());
            } else {
                facts.going.remove(name);
            }
            if matches!(read, Read::Gone)
                && let Some(left_out) = pool::left_out(pool, name).await?
                && !facts.broken.contains(&left_out)
            {
                facts.broken.push(left_out);
            }
        }
        self.replace(index, looks);

        super::read_trash(self.gathered, index, pool).await?;
        let (looks, unread) = closely.images(trashed(&self.gathered.facts.pools[index]), Place::Trash, &|_| {}).await;
        self.unread.extend(unread);
        replace_trashed(&mut self.gathered.facts.pools[index], looks);
        Ok(at_work)
    }

    /// Puts what was read again in the place of what was read before.
    fn replace(&mut self, index: usize, looks: Vec<(String, String, Read)>) {
        if looks.is_empty() {
            return;
        }
        let facts = &mut self.gathered.facts.pools[index];
        let names: HashSet<&str> = looks.iter().map(|(name, ..)| name.as_str()).collect();
        facts.images.retain(|image| !names.contains(image.name.as_str()));
        let header = |broken: &crate::facts::Broken| broken.missing.starts_with("rbd_header");
        facts
            .broken
            .retain(|broken| !header(broken) || !broken.name.as_deref().is_some_and(|name| names.contains(name)));
        for (name, id, read) in looks {
            keep(facts, &mut self.gathered.problems, name, id, read);
        }
        facts.images.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Reads the rows of images again, and the locations that name them.
    async fn reread(&mut self, ids: HashSet<String>, names: HashSet<String>) -> Result<(), GatherError> {
        if ids.is_empty() {
            return Ok(());
        }
        let now = glance::reread(&self.sources.databases, &ids, &names).await?;
        let glance = &mut self.gathered.facts.glance;
        glance.images.retain(|id, _| !ids.contains(id));
        glance.locations.retain(|location| {
            let names_one = match &location.place {
                crate::facts::Place::Rbd(place) => names.contains(place.image()),
                _ => false,
            };
            !names_one && !ids.contains(&location.image_id)
        });
        glance.images.extend(now.images);
        glance.locations.extend(now.locations);
        Ok(())
    }
}

/// Glance's images in the trash.
fn trashed(pool: &PoolFacts) -> Vec<(String, String)> {
    let readable = pool.trash.iter().filter(|entry| entry.image.is_some() && is_glance_name(&entry.name));
    readable.map(|entry| (entry.name.clone(), entry.id.clone())).collect()
}

fn replace_trashed(facts: &mut PoolFacts, looks: Vec<(String, String, Read)>) {
    for (_, id, read) in looks {
        // Anything else than an image leaves the header that was read before, which was not looked at closely.
        if let (Some(entry), Read::Image(image)) = (facts.trash.iter_mut().find(|entry| entry.id == id), read) {
            entry.image = Some(image);
        }
    }
}

/// An image without what was only looked at closely.
fn header_of(image: &RbdImage) -> RbdImage {
    let (usage, closer) = (None::<Usage>, None);
    RbdImage {
        usage,
        closer,
        children: crate::facts::Children::default(),
        mirrored: false,
        unknown: Vec::new(),
        ..image.clone()
    }
}
