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

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some((image, remains)) = self.open.take() {
            remains.store.background().spawn(discard(image, remains));
        }
    }
}

async fn discard(image: Image, remains: Remains) {
    if let Err(error) = image.close().await {
        tracing::debug!(%error, "an abandoned upload did not close cleanly");
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
