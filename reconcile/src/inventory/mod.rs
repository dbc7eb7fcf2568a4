//! Gathering the facts: all the I/O of a scan, and none of its opinions. Nothing here writes.
//!
//! The pool is read first and the database second: an image registered in between is then seen by both. What no location
//! owns, and what a location names in vain, is read a second time after that, since the world goes on while it is read.

mod encoding;
mod glance;
mod header;
mod pool;

use std::{collections::HashSet, time::Duration};

use rbd::Pool;
use serde::Serialize;

pub use self::glance::{Database, DatabaseError};
use self::pool::Read;
use crate::{
    classify::{in_doubt, suspects},
    facts::{Facts, GlanceFacts, RbdImage},
};

/// Something that could not be read. A scan with problems is incomplete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What could not be read.
    pub what: String,
    /// Why.
    pub why: String,
}

/// What a scan is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Reading the pool's images.
    Pool,
    /// Reading the database's rows.
    Database,
    /// Looking at suspects again.
    Suspects,
}

/// Told how far a stage has come, and how far it has to go if that is known.
pub type Progress<'a> = dyn Fn(Stage, u64, Option<u64>) + Send + Sync + 'a;

/// Why there are no facts at all.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The pool cannot be listed.
    #[error(transparent)]
    Pool(#[from] rbd::Error),
    /// The database cannot be read.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The images of a pool, by name, and what could not be read of them.
///
/// # Errors
/// Where the pool cannot be listed.
pub async fn images(pool: &Pool, progress: &Progress<'_>) -> rbd::Result<(Vec<RbdImage>, Vec<Problem>)> {
    let mut facts = Facts::default();
    let mut problems = Vec::new();
    let directory = pool::directory(pool).await?;
    for (name, id, read) in pool::images(pool, directory, progress).await? {
        keep(&mut facts, &mut problems, name, id, read);
    }
    look_again_at_broken(&mut facts, &mut problems, pool).await;
    problems.extend(facts.broken.iter().map(|(name, id)| Problem {
        what: name.clone(),
        why: format!("it is in the directory, but rbd_header.{id} is not there"),
    }));
    facts.images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((facts.images, problems))
}

/// Reads a pool and a database. What could not be read of single images is in the problems.
pub(crate) async fn gather(
    pool: &Pool,
    database: &Database,
    progress: &Progress<'_>,
) -> Result<(Facts, Vec<Problem>), GatherError> {
    let mut problems = Vec::new();
    let mut facts = Facts {
        fsid: pool.cluster().fsid().to_owned(),
        pool: pool.name().to_owned(),
        glance: GlanceFacts::default(),
        ..Facts::default()
    };
    let directory = pool::directory(pool).await?;
    for (name, id, read) in pool::images(pool, directory, progress).await? {
        keep(&mut facts, &mut problems, name, id, read);
    }
    facts.trash = pool::trash(pool).await?;

    let names: HashSet<&str> =
        facts.images.iter().map(|image| image.name.as_str()).chain(facts.trash.keys().map(String::as_str)).collect();
    facts.glance = database.read(&names, progress).await?;

    look_again(&mut facts, &mut problems, pool, database, progress).await?;
    facts.images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((facts, problems))
}

fn keep(facts: &mut Facts, problems: &mut Vec<Problem>, name: String, id: String, read: Read) {
    match read {
        Read::Image(image) => facts.images.push(*image),
        Read::Broken => facts.broken.push((name, id)),
        Read::Gone => {}
        Read::Failed(error) => {
            problems.push(Problem { what: name.clone(), why: error.to_string() });
            facts.unread.insert(name);
        }
    }
}

/// An image is in the directory before it has a header, and for a moment after it has none: only one that stays so is broken.
async fn look_again_at_broken(facts: &mut Facts, problems: &mut Vec<Problem>, pool: &Pool) {
    if facts.broken.is_empty() {
        return;
    }
    tokio::time::sleep(SETTLE).await;
    for (name, id) in std::mem::take(&mut facts.broken) {
        let read = pool::image(pool, &name, &id).await;
        keep(facts, problems, name, id, read);
    }
}

/// How long to wait before a location is called broken: as long as a removal takes between the data and the row.
const SETTLE: Duration = Duration::from_secs(3);

/// Reads what looks wrong a second time, so that only what is wrong twice is reported: the images that nobody owns, the
/// images that locations name in vain, and then the rows of both.
async fn look_again(
    facts: &mut Facts,
    problems: &mut Vec<Problem>,
    pool: &Pool,
    database: &Database,
    progress: &Progress<'_>,
) -> Result<(), GatherError> {
    let suspects: Vec<RbdImage> = suspects(facts).into_iter().map(|index| facts.images[index].clone()).collect();
    let mut rows: HashSet<String> = suspects.iter().map(|image| image.name.clone()).collect();
    let mut again = pool::look_closer(pool, suspects, progress).await;

    let doubts = in_doubt(facts);
    if !doubts.is_empty() {
        tokio::time::sleep(SETTLE).await;
        let names: HashSet<String> = doubts.iter().filter_map(|doubt| doubt.image.clone()).collect();
        // librbd lists an image that is being removed among the images; the directory no longer has it.
        let listed: HashSet<String> = pool.images().await?.into_iter().map(|spec| spec.name).collect();
        for name in names {
            let (id, read) = match pool::id_of(pool, &name).await? {
                Some(id) => (id.clone(), pool::image(pool, &name, &id).await),
                None => (String::new(), Read::Gone),
            };
            if matches!(read, Read::Gone) && listed.contains(&name) {
                facts.going.insert(name.clone());
            }
            again.push((name, id, read));
        }
        facts.trash = pool::trash(pool).await?;
        rows.extend(doubts.into_iter().filter_map(|doubt| doubt.glance_id));
    }

    let read_again: HashSet<&str> = again.iter().map(|(name, _, _)| name.as_str()).collect();
    facts.images.retain(|image| !read_again.contains(image.name.as_str()));
    facts.broken.retain(|(name, _)| !read_again.contains(name.as_str()));
    for (name, id, read) in again {
        keep(facts, problems, name, id, read);
    }
    let now = database.reread(&rows).await?;
    facts.glance.images.retain(|id, _| !rows.contains(id));
    facts.glance.locations.retain(|location| !rows.contains(&location.image_id));
    facts.glance.images.extend(now.images);
    facts.glance.locations.extend(now.locations);
    look_again_at_broken(facts, problems, pool).await;
    Ok(())
}
