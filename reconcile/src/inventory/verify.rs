//! Comparing what was read from headers with what librbd says of the same images.

use std::collections::HashSet;

use rbd::{ErrorKind, Pool};

use super::{
    Gathered, Problem,
    children::ClonePools,
    pool::{self, Read},
};
use crate::facts::RbdImage;

/// Compares `count` images, picked at random from all pools. A difference is a problem: then nothing that was read from
/// headers is to be believed.
pub(super) async fn sample(gathered: &mut Gathered, pools: &[Pool], clones: &[ClonePools], count: usize) {
    let mut all: Vec<(usize, usize)> = Vec::new();
    for (index, pool) in gathered.facts.pools.iter().enumerate() {
        all.extend((0..pool.images.len()).map(|image| (index, image)));
    }
    for _ in 0..count.min(all.len()) {
        let random = uuid::Uuid::new_v4().as_u64_pair().1 as usize;
        let (index, image) = all.swap_remove(random % all.len());
        let image = &gathered.facts.pools[index].images[image];
        if let Some(problem) = compare(&pools[index], &clones[index], image).await {
            gathered.problems.push(problem);
        }
    }
}

/// What differs, twice.
async fn compare(pool: &Pool, clones: &ClonePools, image: &RbdImage) -> Option<Problem> {
    let mut differs = String::new();
    for _ in 0..3 {
        let mut ours = match pool::image(pool, &image.name, &image.id).await {
            Read::Image(ours) => *ours,
            // Removed meanwhile, or told already.
            Read::Gone | Read::Broken | Read::Failed(_) => return None,
        };
        clones.complete(pool, &mut ours, &mut HashSet::new()).await;
        // By name, as Glance does.
        let theirs = match pool::ask_librbd(pool, &ours.name, None).await {
            Ok(theirs) => theirs,
            Err(error) => match pool::id_of(pool, &image.name).await {
                Ok(Some(id)) if id == image.id => {
                    differs = format!("librbd cannot open it: {error}");
                    if error.kind == ErrorKind::TimedOut {
                        break;
                    }
                    continue;
                }
                _ => return None, // it went away
            },
        };
        differs = difference(&ours, &theirs)?;
    }
    Some(Problem::new(pool.path(&image.name), &format_args!("it was not read as librbd reads it: {differs}")))
}

/// The first fact that is not the same.
fn difference(ours: &RbdImage, theirs: &RbdImage) -> Option<String> {
    let mut differs = None;
    let mut same = |what: &str, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug| {
        let (ours, theirs) = (format!("{ours:?}"), format!("{theirs:?}"));
        if ours != theirs && differs.is_none() {
            differs = Some(format!("{what} is {ours} in the header, and {theirs} to librbd"));
        }
    };
    same("id", &ours.id, &theirs.id);
    same("size", &ours.size, &theirs.size);
    same("order", &ours.order, &theirs.order);
    same("features", &ours.features, &theirs.features);
    same("flags", &ours.flags, &theirs.flags);
    same("creation", &ours.created, &theirs.created);
    same("last change", &ours.modified, &theirs.modified);
    same("upload mark", &ours.mark, &theirs.mark);
    if !theirs.unknown.contains(&"parent") {
        same("parent", &ours.parent, &theirs.parent);
    }
    if !ours.children.unknown && !theirs.children.unknown {
        same("number of clones", &ours.children.count, &theirs.children.count);
    }
    same("number of snapshots", &ours.snapshots.len(), &theirs.snapshots.len());
    for (ours, theirs) in ours.snapshots.iter().zip(&theirs.snapshots) {
        same("snapshot", &(ours.id, &ours.name), &(theirs.id, &theirs.name));
        same("size of a snapshot", &ours.size, &theirs.size);
        same("protection of a snapshot", &ours.protected, &theirs.protected);
        same("kind of a snapshot", &ours.namespace, &theirs.namespace);
        same("time of a snapshot", &ours.taken, &theirs.taken);
    }
    differs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::ParentFacts;

    /// A comparison that finds nothing whatever is compared would be worse than none.
    #[test]
    fn every_difference_is_seen() {
        let image = RbdImage { name: "a".into(), id: "1".into(), size: 5, ..RbdImage::default() };
        assert_eq!(difference(&image, &image.clone()), None);
        let changes: [fn(&mut RbdImage); 5] = [
            |image| image.size = 6,
            |image| image.features = rbd::Features::LAYERING,
            |image| image.children.count = 1,
            |image| image.created = Some(jiff::Timestamp::UNIX_EPOCH),
            |image| {
                let (namespace, id) = (String::new(), "p".into());
                image.parent = Some(Box::new(ParentFacts { pool: 1, namespace, id, snapshot: 4, overlap: 5 }));
            },
        ];
        for change in changes {
            let mut other = image.clone();
            change(&mut other);
            assert!(difference(&image, &other).is_some(), "{other:?}");
        }
    }
}
