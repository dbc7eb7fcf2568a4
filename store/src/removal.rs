//! Removing an image so that a refusal changes nothing.
//!
//! The image is first moved to the trash, which is atomic and takes its name away; there it is looked at again, by id, and
//! restored if somebody still uses it. Only then are its snapshot and its data removed. (The stock driver removes the
//! snapshot first, and only then learns that the image is in use.)

use std::time::Duration;

use rbd::{ErrorKind, Image, OpenOptions, Pool, SnapshotNamespace};

use crate::{
    add::SNAPSHOT,
    error::{Error, Result},
};

/// What became of a removed image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Gone,
    /// Clones (v2) still need its data: it is in the trash, and goes with the last of them.
    InTrash,
}

/// Removes what an abandoned upload left; what cannot be removed keeps its mark for the reconciler.
pub(crate) async fn discard(pool: &Pool, name: &str, id: &str) {
    match remove(pool, name, Some(id)).await {
        Ok(_) | Err(Error::NotFound(_)) => {}
        Err(error) => tracing::warn!(%error, pool = %pool, image = name, "an abandoned upload stays behind"),
    }
}

/// Removes an image by name; with `expected`, only if it has that id.
pub(crate) async fn remove(pool: &Pool, name: &str, expected: Option<&str>) -> Result<Removed> {
    let image = pool.open_image(name, OpenOptions::read_only()).await?;
    let id = image.id().await?;
    let checked = refuse_if_used(&image, name).await;
    image.close().await?;
    checked?;
    if expected.is_some_and(|expected| expected != id) {
        return Err(Error::InUse(format!("{} is another image now (id {id})", pool.path(name))));
    }
    pool.trash_move(name, Duration::ZERO).await?;
    if let Err(error) = prepare_trashed(pool, name, &id).await {
        if let Err(restoring) = pool.trash_restore(&id, name).await {
            tracing::error!(%error, %restoring, pool = %pool, image = name, id, "an image stays in the trash");
            return Err(restoring.into());
        }
        return Err(error);
    }
    // From here on data may be gone, so whatever happens the image stays in the trash.
    match pool.trash_remove(&id, true, rbd::silent()).await {
        Ok(()) => Ok(Removed::Gone),
        // The snapshot has gone to the trash as well; librbd removes both with the last clone.
        Err(error) if matches!(error.kind, ErrorKind::NotEmpty | ErrorKind::Busy) => Ok(Removed::InTrash),
        Err(error) => Err(error.into()),
    }
}

/// Looks once more, by id, and takes the snapshot away; on an error the image is as it was before.
async fn prepare_trashed(pool: &Pool, name: &str, id: &str) -> Result<()> {
    let look = pool.open_image_by_id(id, OpenOptions::read_only()).await?;
    let checked = refuse_if_used(&look, name).await;
    look.close().await?;
    checked?;
    let image = pool.open_image_by_id(id, OpenOptions::default()).await?;
    let removed = remove_snapshot(&image, name).await;
    if let Err(error) = image.close().await {
        tracing::warn!(%error, "an image to be removed did not close cleanly");
    }
    removed
}

async fn remove_snapshot(image: &Image, name: &str) -> Result<()> {
    let snapshots = image.snapshots().await?;
    let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.name == SNAPSHOT) else { return Ok(()) };
    if snapshot.protected {
        // The one step that clones (v1) refuse; nothing has been changed before it.
        image.unprotect_snapshot(SNAPSHOT).await.map_err(|error| match error.kind {
            ErrorKind::Busy => Error::InUse(format!("{name} has clones that were not flattened")),
            _ => error.into(),
        })?;
    }
    match image.remove_snapshot(SNAPSHOT).await {
        Err(error) if snapshot.protected && !error.is_not_found() => {
            image.protect_snapshot(SNAPSHOT).await?;
            Err(error.into())
        }
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Refuses an image that a client has open for writing, or that has snapshots which are not the store's.
async fn refuse_if_used(image: &Image, name: &str) -> Result<()> {
    if let Some(watcher) = image.watchers().await?.first() {
        return Err(Error::InUse(format!("{name} is open for writing at {} (client.{})", watcher.address, watcher.id)));
    }
    let snapshots = image.snapshots().await?;
    let foreign = snapshots.iter().find(|snap| snap.name != SNAPSHOT && snap.namespace == SnapshotNamespace::User);
    match foreign {
        Some(snapshot) => Err(Error::InUse(format!("{name} has a snapshot of its own, {:?}", snapshot.name))),
        None => Ok(()),
    }
}
