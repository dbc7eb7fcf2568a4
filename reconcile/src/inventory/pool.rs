//! Reading a pool: its directory, then every image's header in one compound read each, many in flight.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use rbd::{OpenOptions, Pool, ReadOp};
use store::{UPLOAD_MARK, UploadMark};

use super::{
    encoding::Decoder,
    header, {Progress, Stage},
};
use crate::facts::{Closer, RbdImage, SnapshotFacts, Trashed};

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
    progress: &Progress<'_>,
) -> rbd::Result<Vec<(String, String, Read)>> {
    let total = directory.len() as u64;
    let reads = directory.into_iter().map(|(name, id)| async {
        let read = image(pool, &name, &id).await;
        (name, id, read)
    });
    let mut reads = stream::iter(reads).buffer_unordered(HEADERS_IN_FLIGHT);
    let mut all = Vec::with_capacity(usize::try_from(total).unwrap_or(0));
    while let Some(read) = reads.next().await {
        if let (_, _, Read::Failed(error)) = &read
            && error.kind == rbd::ErrorKind::TimedOut
        {
            return Err(error.clone());
        }
        all.push(read);
        progress(Stage::Pool, all.len() as u64, Some(total));
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

/// The same facts from librbd, for a header that is not understood.
async fn ask_librbd(pool: &Pool, name: &str, id: &str) -> rbd::Result<RbdImage> {
    let image = pool.open_image_by_id(id, OpenOptions::read_only()).await?;
    let facts = async {
        // Images older than Ceph 13 have no times, which librbd gives as 1970.
        let time = |time| Timestamp::try_from(time).ok().filter(|&time| time > Timestamp::UNIX_EPOCH);
        let snapshots = image.snapshots().await?.into_iter();
        let mark = image.metadata(UPLOAD_MARK).await?;
        Ok(RbdImage {
            name: name.to_owned(),
            id: id.to_owned(),
            size: image.stat().await?.size,
            created: time(image.created_at().await?),
            modified: time(image.modified_at().await?),
            snapshots: snapshots
                .map(|snapshot| SnapshotFacts {
                    name: snapshot.name,
                    size: snapshot.size,
                    protected: snapshot.protected,
                    namespace: snapshot.namespace,
                })
                .collect(),
            has_parent: image.parent().await?.is_some(),
            mark: mark.map(|mark| {
                let unreadable = UploadMark { client: String::new(), started: 0, size: None };
                serde_json::from_str(&mark).unwrap_or(unreadable)
            }),
            closer: None,
        })
    };
    let facts = facts.await;
    image.close().await?;
    facts
}

/// The pool's trash, by the name each image had.
pub(super) async fn trash(pool: &Pool) -> rbd::Result<HashMap<String, Trashed>> {
    let mut trash: HashMap<String, Trashed> = HashMap::new();
    for entry in pool.trash_list().await? {
        let deleted = Timestamp::try_from(entry.deleted_at).unwrap_or(Timestamp::MIN);
        let deferred_until = Timestamp::try_from(entry.deferred_until).unwrap_or(Timestamp::MAX);
        if trash.get(&entry.name).is_none_or(|known| known.deleted < deleted) {
            trash.insert(entry.name, Trashed { id: entry.id, deleted, deferred_until });
        }
    }
    Ok(trash)
}

/// Reads suspects again, by id, with what only an opened image tells.
pub(super) async fn look_closer(
    pool: &Pool,
    suspects: Vec<RbdImage>,
    progress: &Progress<'_>,
) -> Vec<(String, String, Read)> {
    let total = suspects.len() as u64;
    let looks = suspects.into_iter().map(|image| async move {
        let read = closer(pool, &image).await;
        (image.name, image.id, read)
    });
    let mut looks = stream::iter(looks).buffer_unordered(OPENS_IN_FLIGHT);
    let mut all = Vec::new();
    while let Some(look) = looks.next().await {
        all.push(look);
        progress(Stage::Suspects, all.len() as u64, Some(total));
    }
    all
}

async fn closer(pool: &Pool, suspect: &RbdImage) -> Read {
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
            let children = match image.children().await {
                Ok(children) => Some(children),
                Err(error) if error.kind == rbd::ErrorKind::PermissionDenied => None,
                Err(error) => return Err(error),
            };
            let watchers = watchers.map(|watcher| format!("client.{} {}", watcher.id, watcher.address)).collect();
            Ok(Closer { watchers, children, used: image.used().await? })
        };
        let closer = closer.await;
        image.close().await?;
        closer
    };
    let closer = match look.await {
        Ok(closer) => closer,
        Err(error) if error.is_not_found() => return gone_or_broken(pool, &suspect.name, &suspect.id).await,
        Err(error) => return Read::Failed(error),
    };
    // The header once more, after the watchers: an upload that ended in between shows its snapshot here.
    match image(pool, &suspect.name, &suspect.id).await {
        Read::Image(image) => Read::Image(Box::new(RbdImage { closer: Some(closer), ..*image })),
        other => other,
    }
}
