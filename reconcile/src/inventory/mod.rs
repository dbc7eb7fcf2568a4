//! Gathering the facts: all the I/O of a scan, and none of its opinions. Nothing here writes.
//!
//! The pool is read first and the database second: an image registered in between is then seen by both. What no location
//! owns, and what a location names in vain, is read a second time after that, since the world goes on while it is read.

mod encoding;
mod glance;
mod header;
mod pool;

use std::collections::HashSet;

use rbd::Pool;
use serde::Serialize;

pub use self::glance::{Database, DatabaseError};
use self::pool::Read;
use crate::{
    classify::{absent, suspects},
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

impl Problem {
    pub(crate) fn new(what: impl Into<String>, why: &impl ToString) -> Self {
        Self { what: what.into(), why: why.to_string() }
    }
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
    for (name, id, read) in pool::images(pool, directory, progress).await {
        keep(&mut facts, &mut problems, name, id, read);
    }
    problems.extend(
        facts.broken.iter().map(|(name, id)| Problem::new(pool.path(name), &format!("rbd_header.{id} is missing"))),
    );
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
    for (name, id, read) in pool::images(pool, directory, progress).await {
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
        Read::Failed(problem) => problems.push(problem),
    }
}

/// Reads what looks wrong a second time, so that only what is wrong twice is reported.
async fn look_again(
    facts: &mut Facts,
    problems: &mut Vec<Problem>,
    pool: &Pool,
    database: &Database,
    progress: &Progress<'_>,
) -> Result<(), GatherError> {
    let suspects = suspects(facts).into_iter().map(|index| (index, facts.images[index].clone())).collect();
    let mut gone = HashSet::new();
    for (index, read) in pool::look_closer(pool, suspects, progress).await {
        match read {
            Read::Image(image) => facts.images[index] = *image,
            Read::Gone => drop(gone.insert(index)),
            Read::Broken => {
                let image = &facts.images[index];
                facts.broken.push((image.name.clone(), image.id.clone()));
                gone.insert(index);
            }
            Read::Failed(problem) => {
                problems.push(problem);
                gone.insert(index);
            }
        }
    }
    // An upload that ended after the database was read has its location now.
    let doubtful: Vec<(usize, String)> = suspects_left(facts, &gone);
    for (index, name) in doubtful {
        if database.is_active(&name).await? {
            gone.insert(index);
        }
    }
    let mut index = 0;
    facts.images.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });

    // An image uploaded after the pool was listed, or one deleted from both sides after the database was read.
    for name in absent(facts) {
        match pool::id_of(pool, &name).await? {
            Some(id) => {
                let read = pool::image(pool, &name, &id).await;
                keep(facts, problems, name, id, read);
            }
            None => {
                let mut owners = HashSet::new();
                for location in &facts.glance.locations {
                    if matches!(&location.place, crate::facts::Place::Rbd(place) if place.image() == name) {
                        owners.insert(location.image_id.clone());
                    }
                }
                for owner in owners {
                    if !database.is_active(&owner).await? {
                        facts.glance.images.remove(&owner);
                    }
                }
            }
        }
    }
    Ok(())
}

fn suspects_left(facts: &Facts, gone: &HashSet<usize>) -> Vec<(usize, String)> {
    let left = suspects(facts).into_iter().filter(|index| !gone.contains(index));
    left.map(|index| (index, facts.images[index].name.clone())).collect()
}
