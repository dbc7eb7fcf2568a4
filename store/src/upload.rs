//! The image of an upload, and how it goes away when the upload does not end well.

use std::{future::Future, time::Duration};

use rbd::{CreateOptions, Image, OpenOptions, Pool};
use tokio::time::Instant;

use crate::{
    Store,
    claim::Claim,
    error::{Error, Result},
    leftover,
    location::SNAPSHOT,
    mark::UploadMark,
    removal,
};

/// For how long the removal of a failed upload is tried again, while the cluster is away.
const PATIENCE: Duration = Duration::from_secs(600);

/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_secs(8);

/// How often an upload that waits looks whether its client was blocklisted: librbd may wait for ever then.
const LOOK: Duration = Duration::from_secs(5);

/// How long the removal waits for the image to be closed. One that cannot be is removed all the same.
const CLOSE: Duration = Duration::from_secs(30);

/// The image of an upload, open; dropped before the upload is done, it is removed in the background.
pub(crate) struct Upload {
    /// Taken by whoever closes it.
    open: Option<(Image, Remains)>,
}

/// An image that is not, or not yet, a stored one.
pub(crate) struct Remains {
    store: Store,
    claim: Claim,
    /// `None` where it is not known: by name, it is removed only if it is nobody's.
    id: Option<String>,
}

/// What became of an attempt to create an image.
pub(crate) enum Created {
    /// It is there, open and marked.
    Upload(Upload),
    /// The name is taken.
    Taken(Claim, rbd::Error),
}

impl Created {
    /// Creates, opens and marks an image; after an error nothing of it is left, or will not be for long.
    pub(crate) async fn create(
        store: Store,
        pool: Pool,
        claim: Claim,
        size: Option<u64>,
        options: CreateOptions,
    ) -> Result<Self> {
        let name = claim.name().to_owned();
        let mut remains = Remains { store, claim, id: None };
        match pool.create(&name, size.unwrap_or(0), options).await {
            Ok(()) => {}
            Err(error) if error.kind == rbd::ErrorKind::AlreadyExists => return Ok(Self::Taken(remains.claim, error)),
            Err(error) => {
                // It may have been created all the same, or half.
                if error.kind == rbd::ErrorKind::TimedOut {
                    remains.clear_later();
                }
                return Err(error.into());
            }
        }
        let image = match pool.open_image(&name, OpenOptions::default()).await {
            Ok(image) => image,
            Err(error) => {
                // Created by this very call, so its name tells that it is ours.
                if pool.remove(&name).await.is_err() {
                    remains.clear_later();
                }
                return Err(error.into());
            }
        };
        let marked = async {
            remains.id = Some(image.id().await?);
            UploadMark::set(&image, size).await
        };
        match marked.await {
            Ok(()) => Ok(Self::Upload(Upload { open: Some((image, remains)) })),
            Err(error) => {
                discard(image, remains).await;
                Err(error)
            }
        }
    }

    /// Undoes it.
    pub(crate) async fn discard(self) {
        if let Self::Upload(upload) = self {
            upload.discard().await;
        }
    }
}

impl Upload {
    pub(crate) fn image(&self) -> &Image {
        &self.open.as_ref().expect("taken only by what ends the upload").0
    }

    /// What tells that the client of this image was blocklisted.
    pub(crate) fn cut_off(&self) -> CutOff {
        let (image, remains) = self.open.as_ref().expect("taken only by what ends the upload");
        CutOff { store: remains.store.clone(), pool: image.pool().clone(), name: remains.name().to_owned() }
    }

    /// Closes the image, which is whole.
    pub(crate) async fn close(mut self) -> (Remains, Result<()>) {
        let (image, remains) = self.open.take().expect("taken only by what ends the upload");
        let closed = image.close().await;
        (remains, closed.map_err(Error::from))
    }

    /// Removes the image. It holds no `Upload`, so that dropping it unrun begins nothing.
    pub(crate) fn discard(mut self) -> impl Future<Output = ()> + Send + use<> {
        let open = self.open.take();
        async move {
            if let Some((image, remains)) = open {
                discard(image, remains).await;
            }
        }
    }
}

/// Tells whether another connection took the place of an upload's.
pub(crate) struct CutOff {
    store: Store,
    pool: Pool,
    name: String,
}

impl CutOff {
    /// Does some work on the image, but gives up when its client is found to be blocklisted.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.found() => Err(rbd::Error {
                kind: rbd::ErrorKind::Blocklisted,
                operation: "go on writing to",
                object: self.pool.path(&self.name),
                errno: 0,
            }
            .into()),
        }
    }

    async fn found(&self) {
        let client = self.pool.cluster().instance_id();
        loop {
            tokio::time::sleep(LOOK).await;
            if matches!(self.store.ready().await, Ok(pool) if pool.cluster().instance_id() != client) {
                return;
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some((image, remains)) = self.open.take() {
            remains.store.background().spawn(discard(image, remains));
        }
    }
}

async fn discard(image: Image, remains: Remains) {
    if image.pool().cluster().is_blocklisted() {
        // It may never close, and nobody minds: its watch has gone.
        drop(image);
    } else if !matches!(tokio::time::timeout(CLOSE, image.close()).await, Ok(Ok(()))) {
        tracing::debug!(image = remains.name(), "an abandoned upload did not close cleanly");
    }
    remains.clear().await;
}

impl Remains {
    pub(crate) fn name(&self) -> &str {
        self.claim.name()
    }

    /// Removes it. If that cannot be done now, it is tried again in the background; what never can be keeps its mark, for the
    /// next upload of this id and for the reconciler.
    pub(crate) async fn clear(self) {
        if let Err(error) = self.try_clear().await {
            tracing::debug!(%error, image = self.claim.name(), "an abandoned upload cannot be removed yet");
            self.clear_later();
        }
    }

    fn clear_later(self) {
        let background = self.store.background();
        background.spawn(async move {
            let until = Instant::now() + PATIENCE;
            // Where a creation timed out, Ceph may be at it still for as long again.
            let mut pause = match &self.id {
                Some(_) => Duration::from_secs(1),
                None => self.store.config().timeout.unwrap_or(PAUSE),
            };
            let error = loop {
                tokio::time::sleep(pause).await;
                match self.try_clear().await {
                    Ok(()) => return,
                    Err(error) if Instant::now() > until => break error,
                    // Waiting does not change that.
                    Err(error @ Error::PermissionDenied(_)) => break error,
                    Err(_) => pause = (2 * pause).min(PAUSE),
                }
            };
            tracing::warn!(%error, image = self.claim.name(), "an abandoned upload stays behind");
        });
    }

    async fn try_clear(&self) -> Result<()> {
        let (pool, name) = (self.store.ready().await?, self.claim.name());
        let cleared = match &self.id {
            Some(id) => removal::remove(&pool, name, SNAPSHOT, Some(id)).await.map(drop),
            None => leftover::clear(&self.store, &pool, name).await.map(drop),
        };
        match cleared {
            Err(Error::NotFound(_)) => Ok(()),
            cleared => cleared,
        }
    }
}
