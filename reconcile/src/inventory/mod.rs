//! Gathering the facts: all the I/O of a scan, and none of its opinions. Nothing here writes.
//!
//! The pools are read first and the databases second: an image registered in between is then seen by both. What no location
//! owns, and what a location names in vain, is read again after that, since the world goes on while it is read.

mod again;
mod children;
mod closer;
mod encoding;
mod examine;
mod glance;
mod header;
mod pool;
mod usage;
mod verify;

use std::{collections::HashSet, fmt, time::Duration};

use rbd::Pool;
use serde::{Deserialize, Serialize};

use self::{children::ClonePools, glance::Known, pool::Read};
pub use self::{
    examine::examine,
    glance::{ConfError, Database, DatabaseError, GlanceConf},
};
use crate::facts::{Broken, Facts, PoolFacts, RbdImage};

/// What is compared: pools of one cluster, each with one of its namespaces, and all the databases that may own their images.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The pools.
    pub pools: Vec<Pool>,
    /// The databases.
    pub databases: Vec<Database>,
}

/// Something that could not be read. A scan with problems is incomplete.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// What could not be read.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Problem {
    fn new(what: impl Into<String>, why: &dyn fmt::Display) -> Self {
        Self { what: what.into(), why: why.to_string() }
    }
}

/// What a scan is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Reading the pools' images.
    Pool,
    /// Reading the databases' rows.
    Database,
    /// Looking at suspects again.
    Suspects,
}

/// Told how far a stage has come, and how far it has to go if that is known.
pub type Progress<'a> = dyn Fn(Stage, u64, Option<u64>) + Send + Sync + 'a;

/// Why there are no facts at all.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// A pool cannot be listed.
    #[error(transparent)]
    Pool(#[from] rbd::Error),
    /// A database cannot be read.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// How closely to look.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// Whether to find out what every image takes up.
    pub(crate) usage: bool,
    /// How many images to compare with librbd's own answers.
    pub(crate) verify_sample: usize,
    /// What is younger will be called in flight whatever it is.
    pub(crate) grace: Duration,
}

/// Facts as far as they have been gathered, and what was in the way.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// The facts.
    pub(crate) facts: Facts,
    /// What could not be read.
    pub(crate) problems: Vec<Problem>,
    /// What could be read only in part.
    pub(crate) notes: Vec<Problem>,
}

/// The images of a pool, by name, and what could not be read of them.
///
/// # Errors
/// Where the pool cannot be listed.
pub async fn images(pool: &Pool, progress: &Progress<'_>) -> rbd::Result<(Vec<RbdImage>, Vec<Problem>)> {
    let mut gathered = Gathered::default();
    let pools = std::slice::from_ref(pool);
    read_pools(&mut gathered, pools, false, progress).await?;
    again::broken(&mut gathered, pools).await?;
    let Gathered { mut facts, mut problems, .. } = gathered;
    let facts = facts.pools.remove(0);
    problems.extend(facts.broken.into_iter().map(|broken| {
        let what = broken.name.unwrap_or(broken.id);
        Problem::new(what, &format_args!("{} is not there", broken.missing))
    }));
    Ok((facts.images, problems))
}

/// Reads pools and databases. What could not be read of single images is in the problems.
pub(crate) async fn gather(sources: &Sources, look: Look, progress: &Progress<'_>) -> Result<Gathered, GatherError> {
    let mut gathered = Gathered::default();
    read_pools(&mut gathered, &sources.pools, look.usage, progress).await?;
    for (index, pool) in sources.pools.iter().enumerate() {
        read_trash(&mut gathered, index, pool).await?;
    }
    let names = gathered.facts.pools.iter().flat_map(|pool| {
        pool.images.iter().map(|image| image.name.as_str()).chain(pool.trash.iter().map(|entry| entry.name.as_str()))
    });
    let known = Known {
        fsid: &gathered.facts.fsid,
        pools: sources.pools.iter().map(Pool::name).collect(),
        names: names.collect::<HashSet<_>>(),
    };
    let glance = glance::read(&sources.databases, &known, progress).await?;
    drop(known);
    gathered.facts.glance = glance;
    gathered.facts.glance.locations.shrink_to_fit();

    let mut clones = Vec::new();
    for pool in &sources.pools {
        clones.push(ClonePools::read(pool, &mut gathered.problems).await?);
    }
    again::look(&mut gathered, sources, look, &clones, progress).await?;
    verify::sample(&mut gathered, &sources.pools, &clones, look.verify_sample).await;
    // What was looked at several times is told once.
    gathered.problems.sort();
    gathered.problems.dedup();
    Ok(gathered)
}

/// Reads the pools' images, into facts without any.
async fn read_pools(
    gathered: &mut Gathered,
    pools: &[Pool],
    with_usage: bool,
    progress: &Progress<'_>,
) -> rbd::Result<()> {
    let mut directories = Vec::new();
    for pool in pools {
        gathered.facts.fsid = pool.cluster().fsid().to_owned();
        pool::check_exists(pool).await?;
        directories.push(pool::directory(pool).await?);
    }
    let total = directories.iter().map(|directory| directory.images.len() as u64).sum();
    let mut done = 0;
    for (pool, directory) in pools.iter().zip(directories) {
        let mut facts = PoolFacts {
            name: pool.name().to_owned(),
            namespace: pool.namespace().to_owned(),
            id: pool.id(),
            broken: directory.broken,
            ..PoolFacts::default()
        };
        facts.images.reserve_exact(directory.images.len());
        pool::images(pool, directory.images, with_usage, |name, id, read| {
            keep(&mut facts, &mut gathered.problems, name, id, read);
            done += 1;
            progress(Stage::Pool, done, Some(total));
        })
        .await?;
        facts.images.sort_by(|a, b| a.name.cmp(&b.name));
        facts.images.shrink_to_fit();
        gathered.facts.pools.push(facts);
    }
    Ok(())
}

/// Reads a pool's trash, and the headers of what is in it.
async fn read_trash(gathered: &mut Gathered, index: usize, pool: &Pool) -> rbd::Result<()> {
    let mut trash = Vec::new();
    for (entry, error) in pool::trash(pool).await? {
        gathered.problems.extend(error.map(|error| Problem::new(entry.name.as_str(), &error)));
        trash.push(entry);
    }
    gathered.facts.pools[index].trash = trash;
    Ok(())
}

/// Adds what was read under a name.
fn keep(facts: &mut PoolFacts, problems: &mut Vec<Problem>, name: String, id: String, read: Read) {
    match read {
        Read::Image(image) => {
            if facts.unread.remove(&name) {
                problems.retain(|problem| problem.what != name);
            }
            facts.images.push(*image);
        }
        Read::Broken => {
            // An image without its key `id_…` cannot be opened either; it is known as that already.
            if facts.broken.iter().all(|broken| broken.id != id) {
                let missing = format!("rbd_header.{id}");
                facts.broken.push(Broken { name: Some(name), id, missing });
            }
        }
        Read::Gone => {}
        Read::Failed(error) => {
            problems.push(Problem::new(name.as_str(), &error));
            facts.unread.insert(name);
        }
    }
}
