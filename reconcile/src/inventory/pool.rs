//! Reading a pool: its directory, then every image's header in one compound read each, many in flight.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use rbd::{OpenOptions, Pool, ReadOp};
use store::UPLOAD_MARK;

use super::{encoding::Decoder, header, usage};
use crate::facts::{Broken, Child, Children, ParentFacts, RbdImage, SnapshotFacts, Trashed};

/// Headers read at once. More gains nothing on one OSD, and a scan must not crowd out a cluster's own work.
const HEADERS_IN_FLIGHT: usize = 128;
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

/// A pool's directory object.
#[derive(Default)]
pub(super) struct Directory {
    /// Names and ids.
    pub(super) images: Vec<(String, String)>,
    /// Names without ids and ids without names.
    pub(super) broken: Vec<Broken>,
}

/// Reads the directory of a pool. It has each image twice, by name and by id.
///
/// A pool that never held an image has no directory, which is known to be empty, not unknown.
pub(super) async fn directory(pool: &Pool) -> rbd::Result<Directory> {
    let pairs = match pool.omap(DIRECTORY, "").await {
        Ok(pairs) => pairs,
        Err(error) if error.is_not_found() => return Ok(Directory::default()),
        Err(error) => return Err(error),
    };
    let mut directory = Directory::default();
    let mut names: HashMap<String, String> = HashMap::new();
    for (key, value) in pairs {
        let key = String::from_utf8(key).map_err(|_| malformed(pool))?;
        // Keys are sorted: ids come first.
        if let Some(id) = key.strip_prefix("id_") {
            names.insert(id.to_owned(), text(pool, &value)?);
        } else if let Some(name) = key.strip_prefix("name_") {
            let id = text(pool, &value)?;
            if names.remove(&id).as_deref() != Some(name) {
                directory.broken.push(Broken { name: Some(name.to_owned()), missing: id_key(&id), id: id.clone() });
            }
            directory.images.push((name.to_owned(), id));
        }
    }
    let nameless = names.into_iter().map(|(id, name)| Broken { missing: name_key(&name), name: Some(name), id });
    directory.broken.extend(nameless);
    Ok(directory)
}

const DIRECTORY: &str = "rbd_directory";

fn id_key(id: &str) -> String {
    format!("id_{id} in {DIRECTORY}")
}

fn name_key(name: &str) -> String {
    format!("name_{name} in {DIRECTORY}")
}

fn malformed(pool: &Pool) -> rbd::Error {
    rbd::Error::malformed("read the directory of", pool.to_string())
}

fn text(pool: &Pool, value: &[u8]) -> rbd::Result<String> {
    Decoder(value).string().map_err(|_| malformed(pool))
}

/// Reads the facts of every image named, in no particular order, and hands each on.
///
/// A cluster that has stopped to answer is an error at once: each further image would take as long to find it out.
pub(super) async fn images(
    pool: &Pool,
    directory: Vec<(String, String)>,
    with_usage: bool,
    mut keep: impl FnMut(String, String, Read),
) -> rbd::Result<()> {
    let reads = directory.into_iter().map(|(name, id)| async {
        let read = match image(pool, &name, &id).await {
            Read::Image(mut image) if with_usage => match usage::usage(pool, &image).await {
                Ok(usage) => {
                    image.usage = usage;
                    Read::Image(image)
                }
                Err(error) => Read::Failed(error),
            },
            read => read,
        };
        (name, id, read)
    });
    let mut reads = stream::iter(reads).buffer_unordered(HEADERS_IN_FLIGHT);
    while let Some((name, id, read)) = reads.next().await {
        match read {
            Read::Failed(error) if error.kind == rbd::ErrorKind::TimedOut => return Err(error),
            read => keep(name, id, read),
        }
    }
    Ok(())
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
        Err(_) => match ask_librbd(pool, name, Some(id)).await {
            Ok(image) => Read::Image(Box::new(image)),
            Err(error) if error.is_not_found() => gone_or_broken(pool, name, id).await,
            // Whatever librbd makes of it (some damaged headers hang it): this image is damaged, not the cluster.
            Err(_) => Read::Failed(rbd::Error::malformed("read the header of", pool.path(name))),
        },
    }
}

/// Whether an image without header was removed meanwhile, or is broken: then the directory still has it.
pub(super) async fn gone_or_broken(pool: &Pool, name: &str, id: &str) -> Read {
    match id_of(pool, name).await {
        Ok(Some(now)) if now == id => Read::Broken,
        Ok(_) => Read::Gone,
        Err(error) => Read::Failed(error),
    }
}

/// The id that the directory gives a name now.
pub(super) async fn id_of(pool: &Pool, name: &str) -> rbd::Result<Option<String>> {
    entry(pool, &format!("name_{name}")).await
}

/// What the directory has under a key now.
async fn entry(pool: &Pool, key: &str) -> rbd::Result<Option<String>> {
    let pairs = match pool.read_object(DIRECTORY, &ReadOp::new().omap("", key, 64)).await {
        Ok(read) if read.more => pool.omap(DIRECTORY, key).await?,
        Ok(read) => read.omap,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = pairs.into_iter().find(|(found, _)| *found == key.as_bytes());
    found.map(|(_, value)| text(pool, &value)).transpose()
}

async fn has_header(pool: &Pool, id: &str) -> rbd::Result<bool> {
    match pool.read_object(&format!("rbd_header.{id}"), &ReadOp::new()).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is still missing of a broken image: nothing where it is whole by now, or gone.
pub(super) async fn still_broken(pool: &Pool, name: &str, id: &str) -> rbd::Result<Option<Broken>> {
    let by_name = id_of(pool, name).await?.as_deref() == Some(id);
    let by_id = entry(pool, &format!("id_{id}")).await?.as_deref() == Some(name);
    let missing = match (by_name, by_id, has_header(pool, id).await?) {
        (false, false, _) | (true, true, true) => return Ok(None),
        (_, _, false) => format!("rbd_header.{id}"),
        (true, false, true) => id_key(id),
        (false, true, true) => name_key(name),
    };
    Ok(Some(Broken { name: Some(name.to_owned()), id: id.to_owned(), missing }))
}

/// An image that the directory does not have, but that still has its header, and its name in an object of its own.
pub(super) async fn left_out(pool: &Pool, name: &str) -> rbd::Result<Option<Broken>> {
    let id = match pool.read_object(&format!("rbd_id.{name}"), &ReadOp::new().data(0, 4096)).await {
        Ok(read) => text(pool, &read.data)?,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let there =
        id_of(pool, name).await?.is_none() && has_header(pool, &id).await? && pool.trash_get(&id).await?.is_none();
    Ok(there.then(|| Broken { missing: name_key(name), name: Some(name.to_owned()), id }))
}

/// The same facts from librbd, for a header that is not understood. What librbd does not tell is unknown.
///
/// By id, or by name where there is none.
pub(super) async fn ask_librbd(pool: &Pool, name: &str, id: Option<&str>) -> rbd::Result<RbdImage> {
    let image = match id {
        Some(id) => pool.open_image_by_id(id, OpenOptions::read_only()).await?,
        None => pool.open_image(name, OpenOptions::read_only()).await?,
    };
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
            id: image.id().await?,
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
pub(super) async fn trash(pool: &Pool) -> rbd::Result<Vec<(Trashed, Option<rbd::Error>)>> {
    let entries = pool.trash_list().await?.into_iter().map(|entry| async move {
        let (image, error) = match image(pool, &entry.name, &entry.id).await {
            Read::Image(image) => (Some(image), None),
            Read::Failed(error) if error.kind == rbd::ErrorKind::TimedOut => return Err(error),
            Read::Failed(error) => (None, Some(error)),
            Read::Broken | Read::Gone => (None, None),
        };
        let trashed = Trashed {
            deleted: Timestamp::try_from(entry.deleted_at).unwrap_or(Timestamp::MIN),
            deferred_until: Timestamp::try_from(entry.deferred_until).unwrap_or(Timestamp::MAX),
            id: entry.id,
            name: entry.name,
            source: entry.source,
            image,
        };
        Ok((trashed, error))
    });
    let mut entries = stream::iter(entries).buffer_unordered(HEADERS_IN_FLIGHT);
    let mut trash = Vec::new();
    while let Some(entry) = entries.next().await {
        trash.push(entry?);
    }
    trash.sort_by(|(a, _), (b, _)| (&a.name, a.deleted, &a.id).cmp(&(&b.name, b.deleted, &b.id)));
    Ok(trash)
}
