//! Copy-on-write boots: clones of stored images, what keeps an image from being cloned, and making clones independent.
//!
//! Clones may be in any pool and namespace of the cluster, named as `POOL` or `POOL/NAMESPACE`. Those of the first kind (v1)
//! need a protected snapshot and stay in the namespace of their parent; v2 has neither rule.

use std::fmt;

use rbd::{CreateOptions, Features, LinkedImage, OpenOptions, Pool, Progress};

use crate::{
    Operation, Store,
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
    /// Its snapshot is not protected, and clones of the first kind need that.
    Unprotected,
    /// The clone would be in another namespace, and clones of the first kind are in that of their parent.
    OtherNamespace,
}

impl fmt::Display for NotCloneable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LegacyLocation => f.write_str("its location names no cluster, pool and snapshot"),
            Self::ForeignCluster(fsid) => write!(f, "it is in another cluster, {fsid}"),
            Self::NotRaw(format) => write!(f, "its disk format is {format}, not raw"),
            Self::NotReadable(why) => f.write_str(why),
            Self::Unprotected => f.write_str("its snapshot is not protected, which a clone of the first kind needs"),
            Self::OtherNamespace => f.write_str("a clone of the first kind stays in the namespace of its parent"),
        }
    }
}

/// The layout that a clone takes from its parent, and what decides whether it can be one.
struct Parent {
    size: u64,
    stripe_unit: u64,
    stripe_count: u64,
    protected: bool,
}

impl Parent {
    async fn read(pool: &Pool, image: &str, snapshot: &str) -> Result<Self> {
        let image = pool.open_image(image, OpenOptions::at_snapshot(snapshot)).await?;
        let read = async {
            Ok(Self {
                size: image.stat().await?.size,
                stripe_unit: image.stripe_unit().await?,
                stripe_count: image.stripe_count().await?,
                protected: image.snapshots().await?.iter().any(|found| found.name == snapshot && found.protected),
            })
        };
        let read = read.await;
        image.close().await?;
        read
    }
}

impl Store {
    /// Whether an image can be booted from by cloning it, as Nova and Cinder decide it, and whether clones, as this cluster
    /// makes them, need its snapshot protected; `Err` inside says why not.
    ///
    /// # Errors
    /// What cannot be answered: `Timeout`, `PermissionDenied`.
    pub async fn is_cloneable(
        &self,
        location: &Location,
        disk_format: &str,
    ) -> Result<std::result::Result<(), NotCloneable>> {
        self.meters().measure(Operation::Clone, location.image(), self.reason_against(location, disk_format)).await
    }

    async fn reason_against(
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
        let parent = match self.pool_of(location).await {
            Ok(pool) => Parent::read(&pool, image, snapshot).await,
            Err(error) => Err(error),
        };
        match parent {
            Ok(parent) if parent.protected || self.pool().cluster().default_clone_format().await? == 2 => Ok(Ok(())),
            Ok(_) => Ok(Err(NotCloneable::Unprotected)),
            Err(Error::NotFound(error)) => Ok(Err(NotCloneable::NotReadable(error.to_string()))),
            Err(error) => Err(error),
        }
    }

    /// Clones an image into the pool `into` (`POOL` or `POOL/NAMESPACE`), under `name`. Takes no space until the clone is
    /// written to. It has its parent's stripe unit and count.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`; `NotCloneable` with the reason; `Invalid` for a size smaller than the image. Nothing is left
    /// behind.
    pub async fn clone_image(&self, location: &Location, into: &str, name: &str, options: CloneOptions) -> Result<()> {
        let clone = self.make_clone(location, into, name, options);
        self.meters().measure(Operation::Clone, location.image(), clone).await
    }

    async fn make_clone(&self, location: &Location, into: &str, name: &str, options: CloneOptions) -> Result<()> {
        let refuse = |reason| Error::NotCloneable { location: location.to_string(), reason };
        let pool = self.pool_of(location).await?;
        let Location::Full { image, snapshot, .. } = location else {
            return Err(refuse(NotCloneable::LegacyLocation));
        };
        let child = self.open_pool(into).await?;
        let parent = Parent::read(&pool, image, snapshot).await?;
        let format = match options.format {
            Some(format) => format,
            None => pool.cluster().default_clone_format().await?,
        };
        if format == 1 && !parent.protected {
            return Err(refuse(NotCloneable::Unprotected));
        }
        if format == 1 && pool.namespace() != child.namespace() {
            return Err(refuse(NotCloneable::OtherNamespace));
        }
        let larger = match options.size {
            Some(size) if size < parent.size => {
                let why = format!("a clone of {size} bytes is smaller than {location} ({})", parent.size);
                return Err(Error::Invalid(why));
            }
            size => size.filter(|&size| size > parent.size),
        };
        let create = CreateOptions {
            features: options.features,
            stripe_unit: Some(parent.stripe_unit),
            stripe_count: Some(parent.stripe_count),
            clone_format: Some(format),
            ..CreateOptions::default()
        };
        let (image, snapshot, name) = (image.clone(), snapshot.clone(), name.to_owned());
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

    /// Copies what a clone still takes from its parent, after which it has none. `progress` counts objects; its `Break`, or
    /// dropping the future, stops it. At most [`Config::flattens`](crate::Config::flattens) run at once in a store; others
    /// wait for their turn.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for an image without parent; `StorageFull`; `Canceled`, after which the clone is as whole as it was.
    pub async fn flatten(&self, pool: &str, name: &str, mut progress: Progress) -> Result<()> {
        let flatten = async {
            let turn = self.flattens().acquire_owned().await.expect("never closed");
            let pool = self.open_pool(pool).await?;
            let clone = pool.open_image(name, OpenOptions::default()).await?;
            let flattened = match clone.parent().await {
                Ok(Some(_)) => {
                    // The turn ends with the copying itself, which may go on for a moment when this future is dropped.
                    let counted = move |done, total| {
                        let _turn = &turn;
                        progress(done, total)
                    };
                    clone.flatten(Box::new(counted)).await.map_err(Error::from)
                }
                Ok(None) => Err(Error::Invalid(format!("{} is no clone, or is flattened already", pool.path(name)))),
                Err(error) => Err(error.into()),
            };
            clone.close().await?;
            flattened
        };
        self.meters().measure(Operation::Flatten, name, flatten).await
    }

    /// The clones of an image: v1 and v2, in every pool and namespace, in the trash and out of it.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied` where a pool may not be read: its clones are then unknown, not none.
    pub async fn children(&self, location: &Location) -> Result<Vec<LinkedImage>> {
        let children = async {
            let pool = self.pool_of(location).await?;
            let options = OpenOptions { read_only: true, snapshot: location.snapshot().map(Into::into) };
            let image = pool.open_image(location.image(), options).await?;
            let children = image.children().await;
            image.close().await?;
            Ok(children?)
        };
        self.meters().measure(Operation::Children, location.image(), children).await
    }

    /// How many ancestors an image of the pool (`POOL` or `POOL/NAMESPACE`) has; 0 for one that is no clone. Cinder flattens at
    /// 5; librbd gives up at 16.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied` where an ancestor's pool may not be read.
    pub async fn depth(&self, pool: &str, name: &str) -> Result<usize> {
        let depth = async {
            let image = self.open_pool(pool).await?.open_image(name, OpenOptions::read_only()).await?;
            let ancestors = image.ancestors().await;
            image.close().await?;
            Ok(ancestors?.len())
        };
        self.meters().measure(Operation::Children, name, depth).await
    }
}
