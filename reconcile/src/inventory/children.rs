//! Clones. Those of version 2 are written in their parent's header; those of version 1 in an object of the pool that the
//! clone is in, so that every pool has to be asked, and one that may not be read leaves them unknown.

use std::collections::{HashMap, HashSet};

use rbd::{ErrorKind, Pool, ReadOp};

use super::{Problem, encoding::Decoder, header::CLONES_KEPT};
use crate::facts::{Child, RbdImage};

/// Where clones of version 1 may be: every pool of the cluster, in one namespace, for they are in that of their parent.
pub(super) struct ClonePools {
    namespace: String,
    pools: Vec<ClonePool>,
    names: HashMap<i64, String>,
}

struct ClonePool {
    pool: Pool,
    known: Known,
}

/// What was found in a pool's `rbd_children`.
enum Known {
    /// All of it, by parent.
    Listed(HashMap<Vec<u8>, Vec<String>>),
    /// Too much to list, or it may not be listed, only asked for each parent.
    Asked,
    /// It could not be read.
    Failed,
}

const OBJECT: &str = "rbd_children";

/// Parents of one pool that are listed in one read; a pool with more is asked for each.
const LISTED: u64 = 1000;

impl ClonePools {
    /// Reads what clones there are, of parents in the namespace of `parents`.
    pub(super) async fn read(parents: &Pool, problems: &mut Vec<Problem>) -> rbd::Result<Self> {
        let names: HashMap<i64, String> = parents.cluster().pools().await?.into_iter().collect();
        let mut all = Self { namespace: parents.namespace().to_owned(), pools: Vec::new(), names };
        for name in all.names.values() {
            let pool = match parents.cluster().pool(name).await {
                Ok(pool) if all.namespace.is_empty() => pool,
                Ok(pool) => pool.in_namespace(&all.namespace).await?,
                Err(error) if error.is_not_found() => continue, // removed meanwhile
                Err(error) => return Err(error),
            };
            let known = match pool.read_object(OBJECT, &ReadOp::new().omap("", "", LISTED)).await {
                Ok(read) if !read.more => match listed(read.omap) {
                    Some(listed) => Known::Listed(listed),
                    None => Known::Asked,
                },
                Ok(_) => Known::Asked,
                Err(error) if error.is_not_found() => continue,
                Err(error) if error.kind == ErrorKind::PermissionDenied => Known::Asked,
                Err(error) => {
                    problems.push(Problem::new(format!("clones in {pool}"), &error));
                    Known::Failed
                }
            };
            all.pools.push(ClonePool { pool, known });
        }
        Ok(all)
    }

    /// Adds an image's clones of version 1 to those in its header, and names some of them all.
    ///
    /// Pools that may not be read are added to `unread`.
    pub(super) async fn complete(&self, parent: &Pool, image: &mut RbdImage, unread: &mut HashSet<String>) {
        if image.unknown.contains(&"op_features") {
            return; // librbd was asked, and told all
        }
        for snapshot in image.snapshots.iter().filter(|snapshot| snapshot.protected) {
            // One that is not protected has no clones of version 1.
            let key = key(parent.id(), &image.id, snapshot.id);
            for ClonePool { pool, known } in &self.pools {
                let ids = match known {
                    Known::Listed(listed) => Some(listed.get(&key).cloned().unwrap_or_default()),
                    Known::Asked => ask(pool, &key).await.ok(),
                    Known::Failed => None,
                };
                let Some(ids) = ids else {
                    image.children.unknown = true;
                    unread.insert(pool.to_string());
                    continue;
                };
                for id in ids {
                    image.children.count += 1;
                    if image.children.some.len() < CLONES_KEPT {
                        let (pool, namespace) = (pool.id(), self.namespace.clone());
                        image.children.some.push(Child { pool, namespace, id, path: None });
                    }
                }
            }
        }
        for child in &mut image.children.some {
            child.path = self.path(parent, child).await;
        }
    }

    /// A clone's name, for people.
    async fn path(&self, parent: &Pool, child: &Child) -> Option<String> {
        let name = self.names.get(&child.pool)?;
        let pool = parent.cluster().pool(name).await.ok()?.in_namespace(&child.namespace).await.ok()?;
        let key = format!("id_{}", child.id);
        let read = pool.read_object("rbd_directory", &ReadOp::new().omap("", &key, 1)).await.ok()?;
        let name = match read.omap.as_slice() {
            [(found, value)] if *found == key.as_bytes() => Decoder(value).string().ok()?,
            _ => format!("(id {})", child.id),
        };
        Some(pool.path(&name))
    }
}

/// How a parent is named in `rbd_children`.
fn key(pool: i64, id: &str, snapshot: u64) -> Vec<u8> {
    let length = u32::try_from(id.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&pool.to_le_bytes()[..], &length, id.as_bytes(), &snapshot.to_le_bytes()].concat()
}

/// The object's pairs as parents and their clones; nothing where they are not understood.
fn listed(omap: Vec<rbd::OmapEntry>) -> Option<HashMap<Vec<u8>, Vec<String>>> {
    omap.into_iter().map(|(key, value)| Some((key, ids(&value)?))).collect()
}

/// A set of ids.
fn ids(value: &[u8]) -> Option<Vec<String>> {
    let mut set = Decoder(value);
    let count = set.u32().ok()?;
    (0..count).map(|_| set.string().ok()).collect()
}

/// Asks a pool for the clones of one snapshot, by the class method that librbd uses: many a user may call it in every pool,
/// and read nothing else there.
async fn ask(pool: &Pool, key: &[u8]) -> rbd::Result<Vec<String>> {
    match pool.read_object(OBJECT, &ReadOp::new().exec("rbd", "get_children", key.to_vec()).unasserted()).await {
        Ok(read) => {
            let output = read.execs.first().and_then(|output| ids(output));
            output.ok_or_else(|| rbd::Error::malformed("list the clones in", pool.to_string()))
        }
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
