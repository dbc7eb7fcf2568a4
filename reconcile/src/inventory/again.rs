//! The second look: what seems wrong is read once more, and only what is wrong twice is reported.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use rbd::Pool;

use super::{
    GatherError, Gathered, Look, Progress, Sources, Stage, glance, keep,
    pool::{self, Read},
};
use crate::{
    classify::{in_doubt, suspects},
    facts::RbdImage,
};

/// How long to wait before a location is called broken: as long as a removal takes between the data and the row.
const SETTLE: Duration = Duration::from_secs(3);

/// An image is in the directory before it has a header, and for a moment after it has none: only one that stays so is broken.
pub(super) async fn broken(gathered: &mut Gathered, pools: &[Pool]) {
    if gathered.facts.pools.iter().all(|pool| pool.broken.is_empty()) {
        return;
    }
    tokio::time::sleep(SETTLE).await;
    for (pool, facts) in pools.iter().zip(&mut gathered.facts.pools) {
        for broken in std::mem::take(&mut facts.broken) {
            let name = broken.name.unwrap_or_default();
            let read = pool::image(pool, &name, &broken.id).await;
            keep(facts, &mut gathered.problems, name, broken.id, read);
        }
    }
}

/// Reads what looks wrong again: the images that nobody owns, the images that locations name in vain, and then the rows of
/// both.
pub(super) async fn look(
    gathered: &mut Gathered,
    sources: &Sources,
    _look: Look,
    progress: &Progress<'_>,
) -> Result<(), GatherError> {
    let mut rows = HashSet::new();
    let mut names = HashSet::new();
    let mut again: HashMap<usize, Vec<(String, String, Read)>> = HashMap::new();
    let suspects = suspects(&gathered.facts);
    let total = suspects.iter().map(|pool| pool.len() as u64).sum();
    let mut done = 0;
    for (index, suspects) in suspects.into_iter().enumerate() {
        let images: Vec<RbdImage> =
            suspects.iter().map(|&image| gathered.facts.pools[index].images[image].clone()).collect();
        names.extend(images.iter().map(|image| image.name.clone()));
        let count = images.len() as u64;
        let tell = |looked| progress(Stage::Suspects, done + looked, Some(total));
        let looks = pool::look_closer(&sources.pools[index], images, &tell).await;
        done += count;
        again.entry(index).or_default().extend(looks);
    }

    let doubts = in_doubt(&gathered.facts);
    if !doubts.is_empty() {
        tokio::time::sleep(SETTLE).await;
        for (index, pool) in sources.pools.iter().enumerate() {
            let facts = &mut gathered.facts.pools[index];
            let wanted: HashSet<&str> = doubts
                .iter()
                .filter(|doubt| doubt.pool == facts.name)
                .filter_map(|doubt| doubt.image.as_deref())
                .collect();
            // librbd lists an image that is being removed among the images; the directory no longer has it.
            let listed: HashSet<String> = pool.images().await?.into_iter().map(|spec| spec.name).collect();
            for name in wanted {
                let (id, read) = match pool::id_of(pool, name).await? {
                    Some(id) => (id.clone(), pool::image(pool, name, &id).await),
                    None => (String::new(), Read::Gone),
                };
                if matches!(read, Read::Gone) && listed.contains(name) {
                    facts.going.insert(name.to_owned());
                }
                again.entry(index).or_default().push((name.to_owned(), id, read));
            }
            facts.trash = pool::trash(pool).await?;
        }
        names.extend(doubts.iter().filter_map(|doubt| doubt.image.clone()));
        rows.extend(doubts.into_iter().filter_map(|doubt| doubt.glance_id));
    }

    for (index, again) in again {
        let facts = &mut gathered.facts.pools[index];
        let read_again: HashSet<&str> = again.iter().map(|(name, _, _)| name.as_str()).collect();
        facts.images.retain(|image| !read_again.contains(image.name.as_str()));
        facts.broken.retain(|broken| broken.name.as_deref().is_none_or(|name| !read_again.contains(name)));
        for (name, id, read) in again {
            keep(facts, &mut gathered.problems, name, id, read);
        }
        facts.images.sort_by(|a, b| a.name.cmp(&b.name));
    }
    rows.extend(names.iter().cloned());
    let now = glance::reread(&sources.databases, &rows, &names).await?;
    let of_these = |image_id: &str| rows.contains(image_id);
    gathered.facts.glance.images.retain(|id, _| !of_these(id));
    gathered.facts.glance.locations.retain(|location| !of_these(&location.image_id));
    gathered.facts.glance.images.extend(now.images);
    gathered.facts.glance.locations.extend(now.locations.into_iter().filter(|location| of_these(&location.image_id)));
    broken(gathered, &sources.pools).await;
    Ok(())
}
