//! Removing an image so that a refusal changes nothing, and so that being killed leaves nothing for good.
//!
//! The image is first moved to the trash, which takes its name away; there it is looked at again, by id, and restored if
//! somebody still uses it. Only then are its snapshot and its data removed. (The stock driver removes the snapshot first, and
//! only then learns that the image is in use.)
//!
//! A removal that is cut off leaves the image in the trash, or half-way to it ([`cut_off`]). The next removal of the same name
//! goes on from there. It takes from the trash only what could be purged from it anyway: an image whose deferment is over, as
//! that of a removal always is. What somebody put there to be kept for a while stays.
//!
//! A step that fails may have been done all the same (a time-out), so what became of it is looked up.

use std::time::{Duration, SystemTime};

use rbd::{ErrorKind, Image, OpenOptions, Pool, Snapshot, SnapshotNamespace, TrashSource, TrashState};

use crate::error::{Error, Result};

/// What became of a removed image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Gone,
    /// Clones (v2) still need its data: it is in the trash, to be purged from there when they are gone or flattened.
    InTrash,
}

/// Where a removal that was cut off has left the image.
enum CutOff {
    /// Its name is in the directory, though it cannot be opened by it: to be moved to the trash.
    Named(String),
    /// In the trash, without a name.
    InTrash(String),
}

/// Removes an image by name, with its `snapshot`; with `expected`, only if it has that id.
pub(crate) async fn remove(pool: &Pool, name: &str, snapshot: &str, expected: Option<&str>) -> Result<Removed> {
    let found = match pool.open_image(name, OpenOptions::read_only()).await {
        Ok(image) => {
            let looked = look(&image, name, snapshot).await;
            image.close().await?;
            Ok(CutOff::Named(looked?))
        }
        Err(error) if error.is_not_found() => cut_off(pool, name).await?.ok_or(error),
        Err(error) => Err(error),
    };
    let found = found?;
    let (CutOff::Named(id) | CutOff::InTrash(id)) = &found;
    if expected.is_some_and(|expected| expected != id) {
        return Err(Error::InUse(format!("{} is another image now (id {id})", pool.path(name))));
    }
    if let CutOff::InTrash(id) = &found {
        tracing::info!(pool = %pool, image = name, id, "going on with a removal that was cut off");
        return match finish(pool, name, snapshot, id, true).await {
            // Nothing was left to do but to wait for its clones: by name it has been gone since then.
            Ok(Removed::InTrash) => Err(rbd::Error::not_found("open image", pool.path(name)).into()),
            result => result,
        };
    }
    trash(pool, name, id).await?;
    finish(pool, name, snapshot, id, false).await
}

/// Refuses an image that may not be removed; else its id.
async fn look(image: &Image, name: &str, snapshot: &str) -> Result<String> {
    let snapshots = refuse_if_used(image, name, snapshot).await?;
    for found in snapshots.iter().filter(|found| found.protected) {
        match image.has_v1_clones(found.id).await {
            Ok(true) => return Err(has_clones(name)),
            Ok(false) => {}
            // Taking the protection away asks again, and changes nothing if it is refused.
            Err(error) if error.kind == ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(image.id().await?)
}

/// Refuses an image that a client has open for writing, or that belongs to something else too; else its snapshots.
async fn refuse_if_used(image: &Image, name: &str, snapshot: &str) -> Result<Vec<Snapshot>> {
    if let Some(watcher) = image.watchers().await?.first() {
        return Err(Error::InUse(format!("{name} is open for writing at {} (client.{})", watcher.address, watcher.id)));
    }
    if let Some(group) = image.group().await? {
        return Err(Error::InUse(format!("{name} is in the group {group:?}")));
    }
    if image.is_mirrored().await? {
        return Err(Error::InUse(format!("{name} is mirrored")));
    }
    let snapshots = image.snapshots().await?;
    // Those in the snapshots' trash are kept by v2 clones, and removed with them.
    let foreign =
        snapshots.iter().find(|found| !is_own(found, snapshot) && found.namespace != SnapshotNamespace::Trash);
    match foreign {
        Some(found) => Err(Error::InUse(format!("{name} has a snapshot of its own, {:?}", found.name))),
        None => Ok(snapshots),
    }
}

fn is_own(found: &Snapshot, snapshot: &str) -> bool {
    found.name == snapshot && found.namespace == SnapshotNamespace::User
}

fn has_clones(name: &str) -> Error {
    Error::InUse(format!("{name} has clones that were not flattened"))
}

/// What an earlier removal left of an image that cannot be opened by name, if one did.
async fn cut_off(pool: &Pool, name: &str) -> Result<Option<CutOff>> {
    if let Some(id) = pool.id_in_directory(name).await? {
        // Without an entry in the trash it is not half-way there: it is being created, or broken.
        let moving = pool.trash_state(&id).await?;
        return Ok(moving.map(|_| CutOff::Named(id)));
    }
    let now = SystemTime::now();
    let entries = pool.trash_list().await?.into_iter();
    let left = entries.filter(|entry| {
        let over = entry.deferred_until <= entry.deleted_at.max(now);
        entry.name == name && over && matches!(entry.source, TrashSource::User)
    });
    let Some(entry) = left.max_by_key(|entry| entry.deleted_at) else { return Ok(None) };
    match pool.trash_state(&entry.id).await? {
        // Gone meanwhile.
        None => Ok(None),
        Some(TrashState::Moving) => {
            pool.trash_set_state(&entry.id, TrashState::Moving, TrashState::Normal).await?;
            Ok(Some(CutOff::InTrash(entry.id)))
        }
        Some(TrashState::Restoring) => Ok(Some(CutOff::Named(entry.id))),
        Some(_) => Ok(Some(CutOff::InTrash(entry.id))),
    }
}

/// Moves the image of that name *and id* to the trash. The move knows names only, so another image that has just taken the
/// name is put back.
async fn trash(pool: &Pool, name: &str, id: &str) -> Result<()> {
    if pool.trash_state(id).await? == Some(TrashState::Restoring) {
        // It was on its way back when its restorer was killed; librbd moves nothing that is.
        pool.trash_restore(id, name).await?;
    }
    let moved = pool.trash_move(name, Duration::ZERO).await;
    match pool.trash_state(id).await? {
        Some(TrashState::Normal) => {
            return match moved {
                Ok(()) => Ok(()),
                // Timed out, say, and moved all the same.
                Err(error) => Err(restore(pool, name, id, error.into()).await),
            };
        }
        // Half-way, and nobody goes on with it: the next removal does.
        Some(state) => {
            let why = || Error::InUse(format!("{} is on its way to the trash ({state:?})", pool.path(name)));
            return Err(moved.err().map_or_else(why, Error::from));
        }
        None => moved?,
    }
    let entries = pool.trash_list().await?;
    let other = entries.into_iter().filter(|entry| entry.name == name).max_by_key(|entry| entry.deleted_at);
    if let Some(other) = other {
        pool.trash_restore(&other.id, name).await?;
    }
    Err(Error::InUse(format!("{} became another image while it was being removed", pool.path(name))))
}

/// Removes an image that is in the trash, or puts it back if it is in use; but not one whose snapshot an earlier removal has
/// taken: that is no image any more.
async fn finish(pool: &Pool, name: &str, snapshot: &str, id: &str, resumed: bool) -> Result<Removed> {
    if let Err(error) = prepare_trashed(pool, name, snapshot, id).await {
        let whole = !resumed || has_snapshot(pool, id, snapshot).await.unwrap_or(false);
        return Err(if whole { restore(pool, name, id, error).await } else { error });
    }
    // From here on data may be gone, so whatever happens the image stays in the trash.
    let Err(error) = pool.trash_remove(id, true, rbd::silent()).await else { return Ok(Removed::Gone) };
    match error.kind {
        // The snapshot has gone to a trash of its own, where the clones keep it.
        ErrorKind::NotEmpty => Ok(Removed::InTrash),
        _ if pool.trash_state(id).await?.is_none() => Ok(Removed::Gone),
        _ => Err(error.into()),
    }
}

/// Takes the image back out of the trash, and says why.
async fn restore(pool: &Pool, name: &str, id: &str, error: Error) -> Error {
    if let Err(restoring) = pool.trash_restore(id, name).await
        && !matches!(pool.trash_state(id).await, Ok(None))
    {
        tracing::error!(%restoring, pool = %pool, image = name, id, "an image stays in the trash; rbd trash restore");
    }
    error
}

async fn has_snapshot(pool: &Pool, id: &str, snapshot: &str) -> Result<bool> {
    let image = pool.open_image_by_id(id, OpenOptions::read_only()).await?;
    let found = own(&image, snapshot).await;
    image.close().await?;
    Ok(found?.is_some())
}

/// Looks once more, by id, and takes the snapshot away; on an error the image is as it was before.
async fn prepare_trashed(pool: &Pool, name: &str, snapshot: &str, id: &str) -> Result<()> {
    let look = match pool.open_image_by_id(id, OpenOptions::read_only()).await {
        // An earlier removal had come as far as the header, which goes last.
        Err(error) if error.is_not_found() => return Ok(()),
        opened => opened?,
    };
    let checked = refuse_if_used(&look, name, snapshot).await;
    look.close().await?;
    if !checked?.iter().any(|found| is_own(found, snapshot)) {
        return Ok(());
    }
    let image = pool.open_image_by_id(id, OpenOptions::default()).await?;
    let removed = remove_snapshot(&image, name, snapshot).await;
    if let Err(error) = image.close().await {
        tracing::warn!(%error, "an image to be removed did not close cleanly");
    }
    removed
}

async fn remove_snapshot(image: &Image, name: &str, snapshot: &str) -> Result<()> {
    let Some(found) = own(image, snapshot).await? else { return Ok(()) };
    if found.protected
        && let Err(error) = image.unprotect_snapshot(snapshot).await
    {
        // The one step that clones (v1) refuse; nothing has been changed before it.
        match (error.kind, own(image, snapshot).await?) {
            (_, None) => return Ok(()),
            (ErrorKind::Busy, Some(left)) if left.protected => return Err(has_clones(name)),
            (_, Some(left)) if left.protected => return Err(error.into()),
            (_, Some(_)) => {}
        }
    }
    let Err(error) = image.remove_snapshot(snapshot).await else { return Ok(()) };
    if own(image, snapshot).await?.is_none_or(|left| left.id != found.id) {
        return Ok(());
    }
    if found.protected {
        image.protect_snapshot(snapshot).await?;
    }
    Err(error.into())
}

/// The snapshot of that name, as it is now.
async fn own(image: &Image, snapshot: &str) -> Result<Option<Snapshot>> {
    Ok(image.snapshots().await?.into_iter().find(|found| is_own(found, snapshot)))
}
