//! Facts of a few images, as they are now: what is looked at before and after a step that reclaims.

use std::collections::HashSet;

use rbd::Pool;

use super::{
    GatherError, Gathered, Problem, Sources,
    children::ClonePools,
    closer::{Closely, Place, notes},
    glance, keep, pool,
    pool::Read,
};
use crate::facts::{Facts, PoolFacts};

/// Facts of just these images (by name and id, wherever they are now: in the pool or its trash), each looked at closely,
/// with the database rows of their names and the locations that name them. For re-checks before a reclaiming step.
///
/// An image that is no longer there is not in the facts; one that could not be read is in the problems, and so are pools
/// whose clones are unknown.
///
/// # Errors
/// Where the pool's directory or trash cannot be read, or a database not at all.
pub async fn examine(
    sources: &Sources,
    pool: &Pool,
    images: &[(String, String)],
) -> Result<(Facts, Vec<Problem>), GatherError> {
    let mut gathered = Gathered::default();
    let clones = ClonePools::read(pool, &mut gathered.problems).await?;
    let closely = Closely { pool, clones: &clones };
    let mut facts = PoolFacts {
        name: pool.name().to_owned(),
        namespace: pool.namespace().to_owned(),
        id: pool.id(),
        ..PoolFacts::default()
    };
    let (looks, mut unread) = closely.images(images.to_vec(), Place::Pool, &|_| {}).await;
    for (name, id, read) in looks {
        keep(&mut facts, &mut gathered.problems, name, id, read);
    }
    let ids: HashSet<&str> = images.iter().map(|(_, id)| id.as_str()).collect();
    for (mut entry, error) in pool::trash(pool).await? {
        if !ids.contains(entry.id.as_str()) {
            continue;
        }
        gathered.problems.extend(error.map(|error| Problem::new(entry.name.as_str(), &error)));
        let spec = vec![(entry.name.clone(), entry.id.clone())];
        let (looks, pools) = closely.images(spec, Place::Trash, &|_| {}).await;
        unread.extend(pools);
        for (name, _, read) in looks {
            match read {
                Read::Image(image) => entry.image = Some(image),
                Read::Failed(error) => gathered.problems.push(Problem::new(name, &error)),
                Read::Broken | Read::Gone => {}
            }
        }
        facts.trash.push(entry);
    }
    gathered.problems.extend(notes(unread));
    let names: HashSet<String> = images.iter().map(|(name, _)| name.clone()).collect();
    gathered.facts = Facts {
        fsid: pool.cluster().fsid().to_owned(),
        pools: vec![facts],
        glance: glance::reread(&sources.databases, &names, &names).await?,
    };
    Ok((gathered.facts, gathered.problems))
}
