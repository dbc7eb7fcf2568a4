//! Removing an image so that a refusal changes nothing.
//!
//! The image is first moved to the trash, which is atomic and takes its name away; there it is looked at again, by id, and
//! restored if somebody still uses it. Only then are its snapshot and its data removed. (The stock driver removes the
//! snapshot first, and only then learns that the image is in use.)

use std::time::Duration;

use rbd::{ErrorKind, Image, OpenOptions, Pool, SnapshotNamespace};

use crate::error::{Error, Result};

/// What became of a removed image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Gone,
    /// Clones (v2) still need its data: it is in the trash, to be purged from there when they are gone or flattened.
    InTrash,
}

/// Removes an image by name, with its `snapshot`; with `expected`, only if it has that id.
pub(crate) async fn remove(pool: &Pool, name: &str, snapshot: &str, expected: Option<&str>) -> Result<Removed> {
    let image = pool.open_image(name, OpenOptions::read_only()).await?;
    let looked = async {
        let id = image.id().await?;
        refuse_if_used(&image, name, snapshot).await?;
        // Clones of the first kind are refused here, before anything moves; those made from now on, further down.
        if !image.is_v2_parent().await? && !image.children().await?.is_empty() {
            return Err(has_clones(name));
        }
        Ok(id)
    };
    let looked = looked.await;
    image.close().await?;
    let id = looked?;
    if expected.is_some_and(|expected| expected != id) {
        return Err(Error::InUse(format!("{} is another image now (id {id})", pool.path(name))));
    }
    trash(pool, name, &id).await?;
    if let Err(error) = prepare_trashed(pool, name, snapshot, &id).await {
        return Err(restore(pool, name, &id, error).await);
    }
    // From here on data may be gone, so whatever happens the image stays in the trash.
    match pool.trash_remove(&id, true, rbd::silent()).await {
        Ok(()) => Ok(Removed::Gone),
        // The snapshot has gone to a trash of its own, where the clones keep it.
        Err(error) if error.kind == ErrorKind::NotEmpty => Ok(Removed::InTrash),
        Err(error) => Err(error.into()),
    }
}

/// Moves the image of that name *and id* to the trash. The move knows names only, so another image that has just taken the
/// name is put back.
async fn trash(pool: &Pool, name: &str, id: &str) -> Result<()> {
    let moved = pool.trash_move(name, Duration::ZERO).await;
    if pool.trash_get(id).await?.is_some() {
        return match moved {
            Ok(()) => Ok(()),
            // Timed out, say, and moved all the same.
            Err(error) => Err(restore(pool, name, id, error.into()).await),
        };
    }
    moved?;
    let entries = pool.trash_list().await?;
    let other = entries.into_iter().filter(|entry| entry.name == name).max_by_key(|entry| entry.deleted_at);
    if let Some(other) = other {
        pool.trash_restore(&other.id, name).await?;
    }
    Err(Error::InUse(format!("{} became another image while it was being removed", pool.path(name))))
}

/// Takes the image back out of the trash, and says why.
async fn restore(pool: &Pool, name: &str, id: &str, error: Error) -> Error {
    if let Err(restoring) = pool.trash_restore(id, name).await {
        tracing::error!(%restoring, pool = %pool, image = name, id, "an image stays in the trash; rbd trash restore");
    }
    error
}

/// Looks once more, by id, and takes the snapshot away; on an error the image is as it was before.
async fn prepare_trashed(pool: &Pool, name: &str, snapshot: &str, id: &str) -> Result<()> {
    let look = pool.open_image_by_id(id, OpenOptions::read_only()).await?;
    let checked = refuse_if_used(&look, name, snapshot).await;
    look.close().await?;
    checked?;
    let image = pool.open_image_by_id(id, OpenOptions::default()).await?;
    let removed = remove_snapshot(&image, name, snapshot).await;
    if let Err(error) = image.close().await {
        tracing::warn!(%error, "an image to be removed did not close cleanly");
    }
    removed
}

async fn remove_snapshot(image: &Image, name: &str, snapshot: &str) -> Result<()> {
    let snapshots = image.snapshots().await?;
    let Some(found) = snapshots.iter().find(|found| found.name == snapshot) else { return Ok(()) };
    if found.protected {
        // The one step that clones (v1) refuse; nothing has been changed before it.
        image.unprotect_snapshot(snapshot).await.map_err(|error| match error.kind {
            ErrorKind::Busy => has_clones(name),
            _ => error.into(),
        })?;
    }
    let Err(error) = image.remove_snapshot(snapshot).await else { return Ok(()) };
    // Reported as failed and done all the same (a time-out): then there is nothing to put back, and the removal goes on.
    if error.is_not_found() || !image.snapshots().await?.iter().any(|left| left.id == found.id) {
        return Ok(());
    }
    if found.protected {
        image.protect_snapshot(snapshot).await?;
    }
    Err(error.into())
}

fn has_clones(name: &str) -> Error {
    Error::InUse(format!("{name} has clones that were not flattened"))
}

/// Refuses an image that a client has open for writing, or that has snapshots which are not the store's.
async fn refuse_if_used(image: &Image, name: &str, snapshot: &str) -> Result<()> {
    if let Some(watcher) = image.watchers().await?.first() {
        return Err(Error::InUse(format!("{name} is open for writing at {} (client.{})", watcher.address, watcher.id)));
    }
    let snapshots = image.snapshots().await?;
    let foreign = snapshots.iter().find(|found| found.name != snapshot && found.namespace == SnapshotNamespace::User);
    match foreign {
        Some(found) => Err(Error::InUse(format!("{name} has a snapshot of its own, {:?}", found.name))),
        None => Ok(()),
    }
}
