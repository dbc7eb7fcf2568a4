//! Moving to the trash and back, by id. librbd moves by name, in several writes: another image may have taken the name, and
//! a move that was cut off leaves the image in its place and in the trash at once.

use std::time::Duration;

use jiff::Timestamp;
use rbd::{ErrorKind, OpenOptions, Pool, TrashEntry, TrashState};

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whereabouts {
    /// The name it has in the pool's directory.
    pub(super) name: Option<String>,
    /// Its entry in the trash, and the state of that.
    pub(super) trash: Option<(TrashEntry, TrashState)>,
}

impl Whereabouts {
    pub(super) async fn of(pool: &Pool, id: &str) -> rbd::Result<Self> {
        // The trash last: a move to it writes there first, a restore there last.
        let name = pool.name_of(id).await?;
        let (entry, state) = (pool.trash_get(id).await?, pool.trash_state(id).await?);
        Ok(Self { name, trash: entry.zip(state) })
    }

    /// Whether it is in the trash and nowhere else.
    pub(super) fn is_trashed(&self) -> bool {
        self.name.is_none() && self.trash.is_some()
    }
}

/// Since when an entry is in the trash. librbd tells whole seconds.
pub(super) fn trashed_at(entry: &TrashEntry) -> Timestamp {
    Timestamp::try_from(entry.deleted_at).unwrap_or(Timestamp::MIN)
}

/// Why an image was not moved to the trash.
#[derive(Debug, thiserror::Error)]
pub(super) enum MoveError {
    /// The name is another image's by now; that one is where it was.
    #[error("its name is another image's by now")]
    Renamed,
    #[error(transparent)]
    Ceph(#[from] rbd::Error),
}

/// Moves the image of that name *and id* to the trash; its entry there. A move that was cut off before is finished.
///
/// On an error the image is where it was, unless the cluster does not answer: then [`Whereabouts`] tells.
pub(super) async fn to_trash(pool: &Pool, name: &str, id: &str, defer: Duration) -> Result<TrashEntry, MoveError> {
    let mut before = Whereabouts::of(pool, id).await?;
    if before.name.as_deref().is_some_and(|now| now != name) {
        return Err(MoveError::Renamed);
    }
    if before.name.is_some() && before.trash.is_some() {
        // A move that was cut off; its entry may say that it is kept no longer.
        restore(pool, id, name).await?;
        before.trash = None;
    }
    let known: Vec<String> = pool.trash_list().await?.into_iter().map(|entry| entry.id).collect();
    let moved = if before.is_trashed() { Ok(()) } else { pool.trash_move(name, defer).await };
    let after = Whereabouts::of(pool, id).await?;
    match (after.name, after.trash) {
        (None, Some((entry, state))) => {
            if state == TrashState::Moving {
                pool.trash_set_state(id, TrashState::Moving, TrashState::Normal).await?;
            }
            Ok(entry)
        }
        (Some(_), Some(_)) => {
            // Begun and not ended: by this move, or by an earlier one.
            restore(pool, id, name).await?;
            Err(moved.err().map_or(MoveError::Renamed, MoveError::Ceph))
        }
        (_, None) => {
            // Whatever was moved was not this image.
            for other in pool.trash_list().await? {
                if moved.is_ok() && other.name == name && !known.contains(&other.id) {
                    restore(pool, &other.id, name).await?;
                }
            }
            Err(moved.err().map_or(MoveError::Renamed, MoveError::Ceph))
        }
    }
}

/// Puts an image back from the trash, under `name`; a move or a restore that was cut off before is ended.
///
/// # Errors
/// `NotFound` where it is neither in the trash nor in its place; `AlreadyExists` where the name has been given out again;
/// `Busy` where its removal has begun; `NoSpace` in a full pool.
pub(super) async fn restore(pool: &Pool, id: &str, name: &str) -> rbd::Result<()> {
    match pool.trash_state(id).await? {
        None => {}
        Some(state) => {
            if state == TrashState::Moving {
                pool.trash_set_state(id, TrashState::Moving, TrashState::Normal).await?;
            }
            match pool.trash_restore(id, name).await {
                // Done by somebody else, or in spite of a time-out: what follows tells.
                Err(error) if error.is_not_found() || error.kind == ErrorKind::TimedOut => {}
                result => result?,
            }
        }
    }
    match Whereabouts::of(pool, id).await? {
        Whereabouts { name: Some(_), trash: None } => Ok(()),
        _ => Err(rbd::Error::not_found("restore from trash", pool.path(&format!("{name} (id {id})")))),
    }
}

/// Who needs an image, as only an opened image tells; `None` if nobody does. An image in the trash can be opened too.
pub(super) async fn users(pool: &Pool, id: &str) -> rbd::Result<Option<String>> {
    let image = pool.open_image_by_id(id, OpenOptions::read_only()).await?;
    let looked = async {
        if let Some(watcher) = image.watchers().await?.first() {
            return Ok(Some(format!("it is open for writing at {} (client.{})", watcher.address, watcher.id)));
        }
        match image.children().await {
            Ok(children) => Ok(children.first().map(|child| format!("{}/{} is its clone", child.pool, child.name))),
            Err(error) if error.kind == ErrorKind::PermissionDenied => {
                Ok(Some("its clones are unknown: a pool may not be read".into()))
            }
            Err(error) => Err(error),
        }
    };
    let looked = looked.await;
    image.close().await?;
    looked
}

/// Bytes of an image, in the trash or not.
pub(super) async fn size(pool: &Pool, id: &str) -> rbd::Result<u64> {
    let image = pool.open_image_by_id(id, OpenOptions::read_only()).await?;
    let stat = image.stat().await;
    image.close().await?;
    stat.map(|stat| stat.size)
}
