//! Facts of a few images, as they are now: what is looked at before and after a step that reclaims.

use std::collections::HashSet;

use rbd::Pool;

use super::{
    GatherError, Gathered, Problem, Sources, glance, keep,
    pool::{self, Read},
};
use crate::facts::{Facts, PoolFacts};

/// Facts of just these images (by name and id, wherever they are now: in the pool or its trash), each looked at closely,
/// with the database rows of their names and the locations that name them. For re-checks before a reclaiming step.
///
/// An image that is no longer there is not in the facts; one that could not be read is in the problems.
///
/// # Errors
/// Where the pool's directory or trash cannot be read, or a database not at all.
pub async fn examine(
    sources: &Sources,
    pool: &Pool,
    images: &[(String, String)],
) -> Result<(Facts, Vec<Problem>), GatherError> {
    let mut gathered = Gathered::default();
    let ids: HashSet<&str> = images.iter().map(|(_, id)| id.as_str()).collect();
    let mut facts = PoolFacts {
        name: pool.name().to_owned(),
        namespace: pool.namespace().to_owned(),
        id: pool.id(),
        ..PoolFacts::default()
    };
    for (name, id) in images {
        let read = match pool::id_of(pool, name).await? {
            Some(now) if now == *id => pool::image(pool, name, id).await,
            _ => Read::Gone,
        };
        let read = match read {
            Read::Image(image) => pool::closer(pool, &image).await,
            other => other,
        };
        keep(&mut facts, &mut gathered.problems, name.clone(), id.clone(), read);
    }
    facts.trash = pool::trash(pool).await?.into_iter().filter(|entry| ids.contains(entry.id.as_str())).collect();
    let names: HashSet<String> = images.iter().map(|(name, _)| name.clone()).collect();
    gathered.facts = Facts {
        fsid: pool.cluster().fsid().to_owned(),
        pools: vec![facts],
        glance: glance::reread(&sources.databases, &names, &names).await?,
    };
    Ok((gathered.facts, gathered.problems))
}
