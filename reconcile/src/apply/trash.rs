//! The trash, looked at and given back from.

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use rbd::{Pool, TrashEntry, TrashSource, TrashState};
use serde::Serialize;

use super::{
    ApplyError,
    by_id::{self, Whereabouts},
    lock::PoolLock,
};

/// Entries that are opened at once.
const IN_FLIGHT: usize = 16;

/// An image in the trash, with what keeps it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrashedImage {
    /// The pool.
    pub pool: String,
    /// The RBD namespace; left out for the default one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The name it had.
    pub image: String,
    /// Its id.
    pub image_id: String,
    /// Who put it there: `user`, `mirroring`, `migration`, `removing`, `user-parent`.
    pub source: String,
    /// Since when it is there.
    pub trashed_at: Timestamp,
    /// Until when it is kept.
    pub deferred_until: Timestamp,
    /// Bytes of the image, if it can be opened.
    pub size: Option<u64>,
    /// Why it cannot be purged now; nothing if only the databases have to be asked.
    pub kept: Option<String>,
}

/// All that is in the trash of a pool, by name, and why each is kept.
///
/// # Errors
/// Where the trash cannot be listed.
pub async fn trash_list(pool: &Pool, now: Timestamp) -> rbd::Result<Vec<TrashedImage>> {
    let entries = pool.trash_list().await?;
    let looks = entries.into_iter().map(|entry| look(pool, entry, now));
    let mut all: Vec<TrashedImage> = stream::iter(looks).buffer_unordered(IN_FLIGHT).try_collect().await?;
    all.sort_by(|a, b| (&a.image, &a.image_id).cmp(&(&b.image, &b.image_id)));
    Ok(all)
}

async fn look(pool: &Pool, entry: TrashEntry, now: Timestamp) -> rbd::Result<TrashedImage> {
    let deferred_until = Timestamp::try_from(entry.deferred_until).unwrap_or(Timestamp::MAX);
    let is = Whereabouts::of(pool, &entry.id).await?;
    let half = is.name.is_some() || is.trash.is_some_and(|(_, state)| !is_settled(state));
    let (size, users) = opened(pool, &entry.id).await;
    let kept = if half {
        Some("a move or a restore was cut off".to_owned())
    } else if users.is_some() {
        users
    } else if !matches!(entry.source, TrashSource::User | TrashSource::UserParent) {
        Some("Ceph itself put it there".to_owned())
    } else {
        (deferred_until >= now).then(|| "its deferment has not ended".to_owned())
    };
    Ok(TrashedImage {
        pool: pool.name().to_owned(),
        namespace: pool.namespace().to_owned(),
        source: source(entry.source),
        trashed_at: by_id::trashed_at(&entry),
        deferred_until,
        size,
        kept,
        image: entry.name,
        image_id: entry.id,
    })
}

fn is_settled(state: TrashState) -> bool {
    matches!(state, TrashState::Normal | TrashState::Removing)
}

/// Its size, and who needs it; that it cannot be opened is said, and stops nothing.
async fn opened(pool: &Pool, id: &str) -> (Option<u64>, Option<String>) {
    match by_id::users(pool, id).await {
        Err(error) => (None, Some(format!("it cannot be opened: {error}"))),
        Ok(users) => (by_id::size(pool, id).await.ok(), users),
    }
}

fn source(source: TrashSource) -> String {
    match source {
        TrashSource::User => "user".into(),
        TrashSource::Mirroring => "mirroring".into(),
        TrashSource::Migration => "migration".into(),
        TrashSource::Removing => "removing".into(),
        TrashSource::UserParent => "user-parent".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Puts one image back from the trash, under the name it had or another; that name.
///
/// # Errors
/// [`ApplyError::Lock`] while the pool is being changed; `NotFound` where the id is not in the trash; `AlreadyExists` where
/// the name is taken.
pub async fn restore_trashed(pool: &Pool, id: &str, name: Option<&str>) -> Result<String, ApplyError> {
    let lock = PoolLock::take(pool, &uuid::Uuid::new_v4().to_string()).await?;
    let restored = async {
        let entry = pool.trash_get(id).await?;
        let entry =
            entry.ok_or_else(|| rbd::Error::not_found("restore from trash", pool.path(&format!("(id {id})"))))?;
        let name = name.unwrap_or(&entry.name);
        by_id::restore(pool, id, name).await?;
        Ok(name.to_owned())
    };
    let restored: rbd::Result<String> = restored.await;
    lock.release().await;
    restored.map_err(|error| ApplyError::Gather(error.into()))
}
