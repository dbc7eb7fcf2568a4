//! What an upload whose process was killed leaves under its id: how the next upload of that id knows it, and removes it.
//!
//! A live upload is never touched. It has its image open for writing, which is a watch that Ceph keeps until about 30 s after
//! its client was last heard of, and it answers when asked. So an image is a leftover if nobody who has it open answers, until
//! nobody has it open any more, and
//!
//! - it carries an [`UploadMark`](crate::UploadMark), which is the last thing that goes before an upload is reported as done;
//! - or it is empty in every way, has no mark (its writer was killed before it could set it) and stays so for longer than any
//!   writer takes from creating an image to opening it.
//!
//! Before it is removed its exclusive lock is broken, which blocklists the client that held it: one that was only cut off from
//! the cluster for a while can then write nothing any more, there or anywhere.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use rbd::{ErrorKind, Features, Image, OpenOptions, Pool, ReadOp};
use tokio::time::{Instant, sleep};

use crate::{
    Store,
    error::{Error, Result},
    location::SNAPSHOT,
    mark::UPLOAD_MARK,
    removal,
};

/// How long an image without mark must have been nobody's. Ceph has forgotten a dead client by then.
const SILENCE: Duration = Duration::from_secs(35);

/// How long to wait for a dead client to be forgotten.
const PATIENCE: Duration = Duration::from_secs(75);

/// How long a live client has to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// What is there under a name.
enum Found {
    Nothing,
    /// An image that is not an upload's, or one whose writer lives.
    Foreign,
    Leftover(Leftover),
}

struct Leftover {
    id: String,
    kind: Kind,
    /// Somebody has it open, and does not answer.
    watched: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It says itself that it is an unfinished upload.
    Marked,
    /// An image without anything.
    Empty,
    /// A name without an image: its creation was cut off.
    Torn,
}

/// Removes what a dead upload left under a name. `true`: the name is free now, as far as anybody can know; `false`: what is there
/// is no such thing, and was left alone.
pub(crate) async fn clear(store: &Store, pool: &Pool, name: &str) -> Result<bool> {
    let begun = Instant::now();
    // The image that nobody has been working on, and since when.
    let mut silent: Option<(String, Instant)> = None;
    while begun.elapsed() < PATIENCE {
        let leftover = match look(pool, name).await? {
            Found::Nothing => return Ok(true),
            Found::Foreign => return Ok(false),
            Found::Leftover(leftover) => leftover,
        };
        if silent.as_ref().is_none_or(|(id, _)| *id != leftover.id) {
            silent = Some((leftover.id.clone(), Instant::now()));
        }
        let long = silent.as_ref().is_some_and(|(_, since)| since.elapsed() > SILENCE);
        if !leftover.watched && (long || leftover.kind == Kind::Marked) {
            tracing::info!(image = %pool.path(name), id = leftover.id, "removing what a dead upload left");
            let (pool, name) = (pool.clone(), name.to_owned());
            // What became of it is seen in the next round.
            store.background().finish(async move { remove(&pool, &name, &leftover).await }, |()| async {}).await?;
            continue;
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(false)
}

async fn look(pool: &Pool, name: &str) -> Result<Found> {
    let image = match pool.open_image(name, OpenOptions::read_only()).await {
        Ok(image) => image,
        Err(error) if error.is_not_found() => return torn(pool, name).await,
        Err(error) => return Err(error.into()),
    };
    let found = look_at(&image).await;
    image.close().await?;
    match found {
        // Removed while it was looked at. What cannot be looked at for another reason is nobody's to remove.
        Err(error) if error.is_not_found() => match torn(pool, name).await? {
            Found::Nothing => Ok(Found::Nothing),
            _ => Ok(Found::Foreign),
        },
        found => Ok(found?),
    }
}

async fn look_at(image: &Image) -> rbd::Result<Found> {
    let kind = if image.metadata(UPLOAD_MARK).await?.is_some() {
        Kind::Marked
    } else if is_empty(image).await? {
        Kind::Empty
    } else {
        return Ok(Found::Foreign);
    };
    let watchers = image.watchers().await?;
    if !watchers.is_empty() {
        let answering = image.answering_watchers(ANSWER).await?;
        if watchers.iter().any(|watcher| answering.contains(&watcher.id.unsigned_abs())) {
            return Ok(Found::Foreign);
        }
    }
    Ok(Found::Leftover(Leftover { id: image.id().await?, kind, watched: !watchers.is_empty() }))
}

/// No data, no snapshot, no parent, and nothing that anybody wrote about it.
async fn is_empty(image: &Image) -> rbd::Result<bool> {
    if !image.snapshots().await?.is_empty()
        || image.parent().await?.is_some()
        || !image.all_metadata().await?.is_empty()
    {
        return Ok(false);
    }
    match image.used().await {
        Ok(used) => Ok(used == 0),
        // The object map is the last that is created of an image.
        Err(error) if error.is_not_found() => has_no_object(image).await,
        Err(error) => Err(error),
    }
}

/// Asks for each data object. Where they are in a pool of their own, it looks for none, and says no.
async fn has_no_object(image: &Image) -> rbd::Result<bool> {
    if image.features().await?.contains(Features::DATA_POOL) {
        return Ok(false);
    }
    let (pool, id, objects) = (image.pool(), image.id().await?, image.stat().await?.objects);
    let stat = ReadOp::new().stat();
    let mut reads = stream::iter(0..objects)
        .map(|number| pool.read_object(&format!("rbd_data.{id}.{number:016x}"), &stat))
        .buffer_unordered(64);
    while let Some(read) = reads.next().await {
        match read {
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// What is there if no image can be opened: nothing, or what a creation that was cut off left.
async fn torn(pool: &Pool, name: &str) -> Result<Found> {
    match pool.read_object(&format!("rbd_id.{name}"), &ReadOp::new().data(0, 256)).await {
        Ok(read) => {
            let id = String::from_utf8_lossy(read.data.get(4..).unwrap_or_default()).into_owned();
            Ok(Found::Leftover(Leftover { id, kind: Kind::Torn, watched: false }))
        }
        Err(error) if error.is_not_found() => Ok(Found::Nothing),
        Err(error) => Err(error.into()),
    }
}

/// Removes a leftover, unless somebody is there after all: another retry, perhaps.
async fn remove(pool: &Pool, name: &str, leftover: &Leftover) -> Result<()> {
    let removed = if leftover.kind == Kind::Torn {
        // There is no image to be wrong about. One that was created this very moment has a watcher, or nothing in it.
        pool.remove(name).await.map_err(Error::from)
    } else {
        match fence(pool, &leftover.id).await {
            Ok(()) => removal::remove(pool, name, SNAPSHOT, Some(&leftover.id)).await.map(drop),
            failed => failed,
        }
    };
    match removed {
        Err(error @ (Error::NotFound(_) | Error::InUse(_))) => {
            tracing::debug!(%error, "not a leftover any more");
            Ok(())
        }
        removed => removed,
    }
}

/// Breaks the lock of a dead client, which can write nothing from then on.
async fn fence(pool: &Pool, id: &str) -> Result<()> {
    let image = pool.open_image_by_id(id, OpenOptions::default()).await?;
    let broken = async {
        match image.lock_owner().await? {
            Some(owner) => image.break_lock(&owner).await,
            None => Ok(()),
        }
    };
    let broken = broken.await;
    image.close().await?;
    match broken {
        // Nobody holds it, or images here have no such lock.
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::InvalidArgument) => Ok(()),
        broken => Ok(broken?),
    }
}
