//! A closer look at single images: what only an opened image tells, and what is worth a read of its own.

use std::collections::HashSet;

use futures_util::{StreamExt, stream};
use rbd::{ErrorKind, OpenOptions, Pool, ReadOp};

use super::{
    Problem,
    children::ClonePools,
    pool::{self, Read},
    usage,
};
use crate::facts::{Closer, Lock};

/// Images opened at once.
const OPENS_IN_FLIGHT: usize = 16;

/// Whether an image is in its place or in the trash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Pool,
    Trash,
}

/// A pool, and where the clones of its images may be.
pub(super) struct Closely<'a> {
    pub(super) pool: &'a Pool,
    pub(super) clones: &'a ClonePools,
}

/// Names, ids and facts, and the pools whose clones are unknown.
pub(super) type Looks = (Vec<(String, String, Read)>, HashSet<String>);

impl Closely<'_> {
    /// Reads images again, by id, many at once.
    pub(super) async fn images(
        &self,
        images: Vec<(String, String)>,
        place: Place,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Looks {
        let looks = images.into_iter().map(|(name, id)| async move {
            let mut unread = HashSet::new();
            let read = self.image(&name, &id, place, &mut unread).await;
            (name, id, read, unread)
        });
        let mut looks = stream::iter(looks).buffer_unordered(OPENS_IN_FLIGHT);
        let (mut all, mut unread) = Looks::default();
        while let Some((name, id, read, pools)) = looks.next().await {
            all.push((name, id, read));
            unread.extend(pools);
            progress(all.len() as u64);
        }
        (all, unread)
    }

    /// Reads one image again. Another image that has its name by now is read too, but not closely: it is too young to be a
    /// suspect.
    async fn image(&self, name: &str, id: &str, place: Place, unread: &mut HashSet<String>) -> Read {
        let pool = self.pool;
        if place == Place::Pool {
            match pool::id_of(pool, name).await {
                Ok(Some(now)) if now == id => {}
                Ok(Some(now)) => return pool::image(pool, name, &now).await,
                Ok(None) => return Read::Gone,
                Err(error) => return Read::Failed(error),
            }
        }
        let closer = match closer(pool, id).await {
            Ok(closer) => closer,
            Err(error) if error.is_not_found() => return pool::gone_or_broken(pool, name, id).await,
            Err(error) => return Read::Failed(error),
        };
        // The header after the watchers: an upload that ended in between shows its snapshot here.
        let mut image = match pool::image(pool, name, id).await {
            Read::Image(image) => image,
            other => return other,
        };
        image.closer = Some(closer);
        self.clones.complete(pool, &mut image, unread).await;
        match is_mirrored(pool, id).await {
            Ok(Some(mirrored)) => image.mirrored = mirrored,
            Ok(None) => image.unknown.push("mirroring"),
            Err(error) => return Read::Failed(error),
        }
        match usage::usage(pool, &image).await {
            Ok(usage) => image.usage = usage,
            Err(error) => return Read::Failed(error),
        }
        Read::Image(image)
    }
}

/// Who has it open, and who holds a lock on it.
async fn closer(pool: &Pool, id: &str) -> rbd::Result<Closer> {
    let image = pool.open_image_by_id(id, OpenOptions::read_only()).await?;
    let watchers = image.watchers().await;
    image.close().await?;
    let watchers = watchers?.into_iter().map(|watcher| format!("client.{} {}", watcher.id, watcher.address));
    let lockers = pool.object_lockers(&format!("rbd_header.{id}"), "rbd_lock").await?;
    let lock = |locker: rbd::Locker| Lock { automatic: locker.cookie.starts_with("auto "), client: locker.client };
    Ok(Closer { watchers: watchers.collect(), locks: lockers.into_iter().map(lock).collect() })
}

/// Whether an image is mirrored; nothing where that may not be read.
async fn is_mirrored(pool: &Pool, id: &str) -> rbd::Result<Option<bool>> {
    let key = format!("image_{id}");
    match pool.read_object("rbd_mirroring", &ReadOp::new().omap("", &key, 1)).await {
        Ok(read) => Ok(Some(!read.omap.is_empty())),
        Err(error) if error.is_not_found() => Ok(Some(false)),
        Err(error) if error.kind == ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

/// What to say of pools whose clones are unknown.
pub(super) fn notes(unread: HashSet<String>) -> Vec<Problem> {
    let mut unread: Vec<String> = unread.into_iter().collect();
    unread.sort();
    let note = |pool: String| {
        let what = format!("clones in {pool}");
        Problem::new(what, &"the pool may not be read, so that what it may need is blocked by \"unknown\"")
    };
    unread.into_iter().map(note).collect()
}
