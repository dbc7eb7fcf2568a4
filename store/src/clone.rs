//! Copy-on-write boots: clones of stored images, what keeps an image from being cloned, and making clones independent.

use std::fmt;

use rbd::{CreateOptions, Features, LinkedImage, OpenOptions, Pool, Progress};

use crate::{
    Store,
    error::{Error, Result},
    location::Location,
};

/// How to clone.
#[derive(Debug, Clone, Default)]
pub struct CloneOptions {
    /// The clone's size in bytes, if it is to be larger than the image.
    pub size: Option<u64>,
    /// Its features; `None` is the cluster's default.
    pub features: Option<Features>,
    /// 1 or 2; `None` is the cluster's default.
    pub format: Option<u8>,
}

/// Why an image cannot be cloned.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotCloneable {
    /// The location does not name cluster, pool and snapshot.
    LegacyLocation,
    /// It is in another cluster, whose fsid this is.
    ForeignCluster(String),
    /// Its disk format is this one; only `raw` is what a guest sees.
    NotRaw(String),
    /// The image or its snapshot is not there, or cannot be opened.
    NotReadable(String),
}

impl fmt::Display for NotCloneable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LegacyLocation => f.write_str("its location names no cluster, pool and snapshot"),
            Self::ForeignCluster(fsid) => write!(f, "it is in another cluster, {fsid}"),
            Self::NotRaw(format) => write!(f, "its disk format is {format}, not raw"),
            Self::NotReadable(why) => f.write_str(why),
        }
    }
}

impl Store {
    /// Whether an image can be booted from by cloning it, as Nova and Cinder decide it; `Err` inside says why not.
    ///
    /// # Errors
    /// What cannot be answered: `Timeout`, `PermissionDenied`.
    pub async fn is_cloneable(
        &self,
        location: &Location,
        disk_format: &str,
    ) -> Result<std::result::Result<(), NotCloneable>> {
        let Location::Full { fsid, image, snapshot, .. } = location else {
            return Ok(Err(NotCloneable::LegacyLocation));
        };
        if fsid != self.fsid() {
            return Ok(Err(NotCloneable::ForeignCluster(fsid.clone())));
        }
        if disk_format != "raw" {
            return Ok(Err(NotCloneable::NotRaw(disk_format.to_owned())));
        }
        let opened = match self.pool_of(location).await {
            Ok(pool) => pool.open_image(image, OpenOptions::at_snapshot(snapshot)).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        match opened {
            Ok(image) => {
                image.close().await?;
                Ok(Ok(()))
            }
            Err(Error::NotFound(error)) => Ok(Err(NotCloneable::NotReadable(error.to_string()))),
            Err(error) => Err(error),
        }
    }

    /// Clones an image into `child`, a pool or namespace of the same cluster, under `name`. Takes no space until the clone
    /// is written to.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`; `Invalid` for a size smaller than the image. Nothing is left behind.
    pub async fn clone_image(
        &self,
        location: &Location,
        child: &Pool,
        name: &str,
        options: CloneOptions,
    ) -> Result<()> {
        let Location::Full { image, snapshot, .. } = location else {
            return Err(Error::Invalid(format!("{location} cannot be cloned: {}", NotCloneable::LegacyLocation)));
        };
        let pool = self.pool_of(location).await?;
        let parent = pool.open_image(image, OpenOptions::at_snapshot(snapshot)).await?;
        let layout = async {
            let size = parent.stat().await?.size;
            Ok::<_, Error>((size, parent.stripe_unit().await?, parent.stripe_count().await?))
        };
        let layout = layout.await;
        parent.close().await?;
        let (parent_size, stripe_unit, stripe_count) = layout?;
        let larger = match options.size {
            Some(size) if size < parent_size => {
                return Err(Error::Invalid(format!(
                    "a clone of {size} bytes is smaller than {location} ({parent_size})"
                )));
            }
            size => size.filter(|&size| size > parent_size),
        };
        let create = CreateOptions {
            features: options.features,
            stripe_unit: Some(stripe_unit),
            stripe_count: Some(stripe_count),
            clone_format: options.format,
            ..CreateOptions::default()
        };
        let (image, snapshot, child, name) = (image.clone(), snapshot.clone(), child.clone(), name.to_owned());
        let undo = (child.clone(), name.clone());
        let clone = async move {
            pool.clone_image(&image, &snapshot, &child, &name, create).await?;
            let Some(size) = larger else { return Ok(()) };
            let resized = async {
                let clone = child.open_image(&name, OpenOptions::default()).await?;
                let resized = clone.resize(size).await;
                clone.close().await?;
                resized
            };
            if let Err(error) = resized.await {
                if let Err(error) = child.remove(&name).await {
                    tracing::warn!(%error, "a clone that could not be enlarged stays behind");
                }
                return Err(error.into());
            }
            Ok(())
        };
        let undo = |()| async move {
            let (child, name) = undo;
            if let Err(error) = child.remove(&name).await {
                tracing::warn!(%error, "a clone that nobody waited for stays behind");
            }
        };
        self.background().finish(clone, undo).await
    }

    /// Copies what a clone still takes from its parent, after which it has none. `progress` counts objects, and may stop it.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for an image without parent; `StorageFull`; `Canceled`, after which the clone is as it was.
    pub async fn flatten(&self, pool: &Pool, name: &str, progress: Progress) -> Result<()> {
        let clone = pool.open_image(name, OpenOptions::default()).await?;
        let flattened = match clone.parent().await {
            Ok(Some(_)) => clone.flatten(progress).await.map_err(Error::from),
            Ok(None) => Err(Error::Invalid(format!("{} is no clone, or is flattened already", pool.path(name)))),
            Err(error) => Err(error.into()),
        };
        clone.close().await?;
        flattened
    }

    /// The clones of an image: v1 and v2, in every pool and namespace, in the trash and out of it.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied` where a pool may not be read: its clones are then unknown, not none.
    pub async fn children(&self, location: &Location) -> Result<Vec<LinkedImage>> {
        let pool = self.pool_of(location).await?;
        let options = OpenOptions { read_only: true, snapshot: location.snapshot().map(Into::into) };
        let image = pool.open_image(location.image(), options).await?;
        let children = image.children().await;
        image.close().await?;
        Ok(children?)
    }
}
