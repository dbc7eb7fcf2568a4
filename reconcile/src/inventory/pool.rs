//! Reading a pool: its directory, then every image's header in one compound read each, many in flight.

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use rbd::{OpenOptions, Pool, ReadOp};
use store::UPLOAD_MARK;

use super::{encoding::Decoder, header};
use crate::facts::{Child, Children, Closer, Lock, ParentFacts, RbdImage, SnapshotFacts, Trashed};

/// Headers read at once. More gains nothing on one OSD, and a scan must not crowd out a cluster's own work.
const HEADERS_IN_FLIGHT: usize = 128;
/// Images opened at once for a closer look.
const OPENS_IN_FLIGHT: usize = 16;
/// Keys asked for in the first read of a header; images with more (thousands of clones or metadata) take more rounds.
const HEADER_KEYS: u64 = 512;

/// What an image turned out to be.
pub(super) enum Read {
    Image(Box<RbdImage>),
    /// In the directory, but without a header.
    Broken,
    /// Removed or renamed since the directory was read.
    Gone,
    Failed(rbd::Error),
}

/// Fails unless the pool's namespace is there: one that is not would look like an empty one.
pub(super) async fn check_exists(pool: &Pool) -> rbd::Result<()> {
    let namespace = pool.namespace();
    if namespace.is_empty() || pool.namespaces().await?.iter().any(|there| there == namespace) {
        return Ok(());
    }
    Err(rbd::Error::not_found("read namespace", pool.to_string()))
}

/// Names and ids of the pool's images, from its directory object.
///
/// A pool that never held an image has no directory, which is known to be empty, not unknown.
pub(super) async fn directory(pool: &Pool) -> rbd::Result<Vec<(String, String)>> {
    let pairs = match pool.omap("rbd_directory", "name_").await {
        Ok(pairs) => pairs,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut images = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let name = key.strip_prefix(b"name_").and_then(|name| String::from_utf8(name.to_vec()).ok());
        match (name, Decoder(&value).string()) {
            (Some(name), Ok(id)) => images.push((name, id)),
            _ => return Err(rbd::Error::malformed("read the directory of", pool.to_string())),
        }
    }
    Ok(images)
}

/// Reads the facts of every image named, in no particular order.
///
/// A cluster that has stopped to answer is an error at once: each further image would take as long to find it out.
pub(super) async fn images(
    pool: &Pool,
    directory: Vec<(String, String)>,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> rbd::Result<Vec<(String, String, Read)>> {
    let total = directory.len();
    let reads = directory.into_iter().map(|(name, id)| async {
        let read = image(pool, &name, &id).await;
        (name, id, read)
    });
    let mut reads = stream::iter(reads).buffer_unordered(HEADERS_IN_FLIGHT);
    let mut all = Vec::with_capacity(total);
    while let Some(read) = reads.next().await {
        if let (_, _, Read::Failed(error)) = &read
            && error.kind == rbd::ErrorKind::TimedOut
        {
            return Err(error.clone());
        }
        all.push(read);
        progress(all.len() as u64);
    }
    Ok(all)
}

/// Reads the facts of one image.
pub(super) async fn image(pool: &Pool, name: &str, id: &str) -> Read {
    let object = format!("rbd_header.{id}");
    let omap = match pool.read_object(&object, &ReadOp::new().omap("", "", HEADER_KEYS)).await {
        Ok(read) if !read.more => Ok(read.omap),
        Ok(_) => pool.omap(&object, "").await,
        Err(error) => Err(error),
    };
    let omap = match omap {
        Ok(omap) => omap,
        Err(error) if error.is_not_found() => return gone_or_broken(pool, name, id).await,
        Err(error) => return Read::Failed(error),
    };
    match header::decode(name, id, &omap) {
        Ok(image) => Read::Image(Box::new(image)),
        // A removal takes the keys away before the object.
        Err(_) if omap.is_empty() => gone_or_broken(pool, name, id).await,
        Err(_) => match ask_librbd(pool, name, id).await {
            Ok(image) => Read::Image(Box::new(image)),
            Err(error) if error.is_not_found() => gone_or_broken(pool, name, id).await,
            // Whatever librbd makes of it (some damaged headers hang it): this image is damaged, not the cluster.
            Err(_) => Read::Failed(rbd::Error::malformed("read the header of", pool.path(name))),
        },
    }
}

/// Whether an image without header was removed meanwhile, or is broken: then the directory still has it.
async fn gone_or_broken(pool: &Pool, name: &str, id: &str) -> Read {
    match id_of(pool, name).await {
        Ok(Some(now)) if now == id => Read::Broken,
        Ok(_) => Read::Gone,
        Err(error) => Read::Failed(error),
    }
}

/// The id that the directory gives a name now.
pub(super) async fn id_of(pool: &Pool, name: &str) -> rbd::Result<Option<String>> {
    let key = format!("name_{name}");
    let pairs = match pool.read_object("rbd_directory", &ReadOp::new().omap("", &key, 64)).await {
        Ok(read) if read.more => pool.omap("rbd_directory", &key).await?,
        Ok(read) => read.omap,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    match pairs.into_iter().find(|(found, _)| *found == key.as_bytes()) {
        None => Ok(None),
        Some((_, value)) => {
            let id = Decoder(&value).string();
            id.map(Some).map_err(|_| rbd::Error::malformed("read the directory of", pool.to_string()))
        }
    }
}

/// The same facts from librbd, for a header that is not understood. What librbd does not tell is unknown.
async fn ask_librbd(pool: &Pool, name: &str, id: &str) -> rbd::Result<RbdImage> {
    let image = pool.open_image_by_id(id, OpenOptions::read_only()).await?;
    let facts = async {
        // Images older than Ceph 13 have no times, which librbd gives as 1970.
        let time = |time| Timestamp::try_from(time).ok().filter(|&time| time > Timestamp::UNIX_EPOCH);
        let (stat, features) = (image.stat().await?, image.features().await?);
        let snapshots = image.snapshots().await?.into_iter();
        let mark = image.metadata(UPLOAD_MARK).await?;
        let mut unknown = vec!["group", "op_features", "snapshot flags"];
        let children = match image.children().await {
            Ok(children) => known(children),
            Err(error) if error.kind == rbd::ErrorKind::PermissionDenied => {
                Children { unknown: true, ..Children::default() }
            }
            Err(error) => return Err(error),
        };
        let parent = match image.parent().await {
            Ok(parent) => parent.map(|parent| {
                Box::new(ParentFacts {
                    pool: parent.image.pool_id,
                    namespace: parent.image.namespace,
                    id: parent.image.id,
                    snapshot: parent.snapshot_id,
                    overlap: parent.overlap,
                })
            }),
            Err(error) if error.kind == rbd::ErrorKind::PermissionDenied => {
                unknown.push("parent");
                None
            }
            Err(error) => return Err(error),
        };
        Ok(RbdImage {
            name: name.to_owned(),
            id: id.to_owned(),
            size: stat.size,
            order: u8::try_from(stat.object_size.trailing_zeros()).unwrap_or(0),
            features,
            flags: image.flags().await?,
            op_features: 0,
            created: time(image.created_at().await?),
            modified: time(image.modified_at().await?),
            snapshots: snapshots
                .map(|snapshot| SnapshotFacts {
                    id: snapshot.id,
                    name: snapshot.name,
                    size: snapshot.size,
                    protected: snapshot.protected,
                    namespace: snapshot.namespace,
                    flags: rbd::Flags::default(),
                    taken: time(snapshot.taken_at),
                })
                .collect(),
            parent,
            data_pool: None,
            group: None,
            migrating: features.contains(rbd::Features::MIGRATING),
            mirrored: false,
            mark: mark.map(|mark| Box::new(header::mark(mark.as_bytes()))),
            children,
            usage: None,
            unknown,
            closer: None,
        })
    };
    let facts = facts.await;
    image.close().await?;
    facts
}

/// Clones as librbd lists them.
fn known(children: Vec<rbd::LinkedImage>) -> Children {
    let count = children.len() as u64;
    let some = children.into_iter().take(header::CLONES_KEPT).map(|child| {
        let pool = if child.namespace.is_empty() { child.pool } else { format!("{}/{}", child.pool, child.namespace) };
        let path = Some(format!("{pool}/{}", child.name));
        Child { pool: child.pool_id, namespace: child.namespace, id: child.id, path }
    });
    Children { count, unknown: false, some: some.collect() }
}

/// The pool's trash, with the images in it as far as they can be read.
pub(super) async fn trash(pool: &Pool) -> rbd::Result<Vec<Trashed>> {
    let entries = pool.trash_list().await?.into_iter().map(|entry| async move {
        let image = match image(pool, &entry.name, &entry.id).await {
            Read::Image(image) => Some(image),
            Read::Failed(error) if error.kind == rbd::ErrorKind::TimedOut => return Err(error),
            Read::Broken | Read::Gone | Read::Failed(_) => None,
        };
        Ok(Trashed {
            deleted: Timestamp::try_from(entry.deleted_at).unwrap_or(Timestamp::MIN),
            deferred_until: Timestamp::try_from(entry.deferred_until).unwrap_or(Timestamp::MAX),
            id: entry.id,
            name: entry.name,
            source: entry.source,
            image,
        })
    });
    let mut entries = stream::iter(entries).buffer_unordered(HEADERS_IN_FLIGHT);
    let mut trash = Vec::new();
    while let Some(entry) = entries.next().await {
        trash.push(entry?);
    }
    trash.sort_by(|a, b| (&a.name, a.deleted, &a.id).cmp(&(&b.name, b.deleted, &b.id)));
    Ok(trash)
}

/// Reads suspects again, by id, with what only an opened image tells.
pub(super) async fn look_closer(
    pool: &Pool,
    suspects: Vec<RbdImage>,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Vec<(String, String, Read)> {
    let looks = suspects.into_iter().map(|image| async move {
        let read = closer(pool, &image).await;
        (image.name, image.id, read)
    });
    let mut looks = stream::iter(looks).buffer_unordered(OPENS_IN_FLIGHT);
    let mut all = Vec::new();
    while let Some(look) = looks.next().await {
        all.push(look);
        progress(all.len() as u64);
    }
    all
}

pub(super) async fn closer(pool: &Pool, suspect: &RbdImage) -> Read {
    match id_of(pool, &suspect.name).await {
        Ok(Some(id)) if id == suspect.id => {}
        // Another image of that name by now; too young to be a suspect.
        Ok(Some(id)) => return image(pool, &suspect.name, &id).await,
        Ok(None) => return Read::Gone,
        Err(error) => return Read::Failed(error),
    }
    let look = async {
        let image = pool.open_image_by_id(&suspect.id, OpenOptions::read_only()).await?;
        let closer = async {
            let watchers = image.watchers().await?.into_iter();
            let watchers = watchers.map(|watcher| format!("client.{} {}", watcher.id, watcher.address)).collect();
            let children = match image.children().await {
                Ok(children) => known(children),
                Err(error) if error.kind == rbd::ErrorKind::PermissionDenied => {
                    Children { unknown: true, ..Children::default() }
                }
                Err(error) => return Err(error),
            };
            Ok((watchers, children, image.used().await?))
        };
        let closer = closer.await;
        image.close().await?;
        let (watchers, children, used) = closer?;
        let locks = locks(pool, &suspect.id).await?;
        Ok((Closer { watchers, locks }, children, used))
    };
    let (closer, children, used) = match look.await {
        Ok(closer) => closer,
        Err(error) if rbd::Error::is_not_found(&error) => {
            return gone_or_broken(pool, &suspect.name, &suspect.id).await;
        }
        Err(error) => return Read::Failed(error),
    };
    // The header once more, after the watchers: an upload that ended in between shows its snapshot here.
    match image(pool, &suspect.name, &suspect.id).await {
        Read::Image(image) => {
            let usage = crate::facts::Usage { head: used, ..crate::facts::Usage::default() };
            Read::Image(Box::new(RbdImage { closer: Some(closer), children, usage: Some(usage), ..*image }))
        }
        other => other,
    }
}

/// Who holds a lock on an image, alive or dead.
async fn locks(pool: &Pool, id: &str) -> rbd::Result<Vec<Lock>> {
    let lockers = pool.object_lockers(&format!("rbd_header.{id}"), "rbd_lock").await?;
    let automatic = |cookie: &str| cookie.starts_with("auto ");
    Ok(lockers.into_iter().map(|locker| Lock { automatic: automatic(&locker.cookie), client: locker.client }).collect())
}
