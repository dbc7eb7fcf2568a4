//! The Ceph RBD store of a Glance-compatible server.
//!
//! ```no_run
//! use futures_util::TryStreamExt;
//! use store::{AddOptions, Config, Store};
//!
//! # async fn example() -> store::Result<()> {
//! let store = Store::open(Config { user: Some("glance".into()), ..Config::default() }).await?;
//!
//! let mut writer = store.add("0b0c…", AddOptions::default()).await?;
//! writer.write("some data".into()).await?;
//! let added = writer.finish().await?;
//!
//! let mut reader = store.get(&added.location, 5..).await?;
//! while let Some(chunk) = reader.try_next().await? {
//!     assert_eq!(chunk, "data");
//! }
//! store.delete(&added.location).await?;
//! # Ok(()) }
//! ```
//!
//! A [`Store`] is one connection, kept and shared: clone it freely, use it from many tasks at once. Images it stores are
//! those of Glance's `rbd` driver: named by the image id, data in the protected snapshot `snap`, locations
//! `rbd://fsid/pool/image/snap`.

mod add;
mod background;
mod clone;
mod config;
mod error;
mod get;
mod hash;
mod location;
mod mark;
mod oslo;
mod removal;

use std::sync::Arc;

pub use self::{
    add::{AddOptions, Added, Writer},
    clone::{CloneOptions, NotCloneable},
    config::Config,
    error::{Error, Result},
    get::{Reader, Stat},
    location::{BadLocation, Location, SNAPSHOT},
    mark::{UPLOAD_MARK, UploadMark},
    oslo::{BadConf, OsloConf},
    removal::Removed,
};
use self::{background::Background, config::split_pool};
use rbd::{Cluster, ConnectOptions, Pool};
use tokio::sync::OnceCell;

/// A store: a pool of a cluster, and the connection to it.
#[derive(Clone)]
pub struct Store(Arc<Opened>);

struct Opened {
    config: Config,
    pool: Pool,
    /// Set once the pool is known to have a trash.
    trash: OnceCell<()>,
    /// Clean-ups, and uploads being finished, which go on when nobody waits for them any more.
    background: Background,
}

impl Store {
    /// Connects to the cluster and opens the pool.
    ///
    /// # Errors
    /// `BadConfiguration`; `NotFound` for a missing `ceph.conf`, keyring or pool; `PermissionDenied` for a wrong key;
    /// `Timeout`.
    pub async fn open(config: Config) -> Result<Self> {
        config.order()?;
        let cluster = Cluster::connect(ConnectOptions {
            conf: config.ceph_conf.clone(),
            user: config.user.clone(),
            timeout: config.timeout,
            settings: settings(&config),
        })
        .await?;
        let (pool, namespace) = config.pool_and_namespace()?;
        let pool = open_pool(&cluster, pool, namespace).await?;
        Ok(Self(Arc::new(Opened { config, pool, trash: OnceCell::new(), background: Background::new() })))
    }

    /// The options it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The pool that images are stored in.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// The cluster's id.
    #[must_use]
    pub fn fsid(&self) -> &str {
        self.pool().cluster().fsid()
    }

    /// Removes an image; once begun it ends, even if the future is dropped. One that is in use (open for writing, with v1 clones, with snapshots of its own) is refused and
    /// stays as it was; one with v2 clones goes
    /// to the trash.
    ///
    /// # Errors
    /// `NotFound`, `InUse`, `ForeignCluster`, `PermissionDenied`, `Timeout`.
    pub async fn delete(&self, location: &Location) -> Result<Removed> {
        let (pool, name) = (self.pool_of(location).await?, location.image().to_owned());
        // Half a removal is worse than either end of it.
        let snapshot = location.snapshot().unwrap_or(SNAPSHOT).to_owned();
        let remove = async move { removal::remove(&pool, &name, &snapshot, None).await };
        self.background().finish(remove, |_| async {}).await
    }

    /// Waits until everything that was dropped has been cleaned up: uploads removed, images closed. Call it before the
    /// process ends, or what an abandoned upload left stays until a scan finds it.
    pub async fn settled(&self) {
        self.0.background.settled().await;
        rbd::settled().await;
    }

    /// The location that an image of the configured pool has.
    #[must_use]
    pub fn location_of(&self, id: &str) -> Location {
        Location::of(self.pool(), id)
    }

    /// Makes sure, once, that what is stored can be removed again when the pool is full.
    async fn prepare_trash(&self) {
        let prepared = self.0.trash.get_or_try_init(|| self.pool().prepare_trash()).await;
        if let Err(error) = prepared {
            tracing::debug!(%error, "cannot make sure of the pool's trash");
        }
    }

    fn background(&self) -> Background {
        self.0.background.clone()
    }

    /// A pool, or a namespace of it, by `POOL` or `POOL/NAMESPACE`.
    ///
    /// # Errors
    /// `NotFound` without the pool; `Invalid` for another form.
    pub async fn open_pool(&self, name: &str) -> Result<Pool> {
        let (pool, namespace) =
            split_pool(name).ok_or_else(|| Error::Invalid(format!("{name:?} is neither POOL nor POOL/NAMESPACE")))?;
        open_pool(self.pool().cluster(), pool, namespace).await
    }

    /// The pool that a location names; the configured one if it names none.
    async fn pool_of(&self, location: &Location) -> Result<Pool> {
        if location.fsid().is_some_and(|fsid| fsid != self.fsid()) {
            return Err(Error::ForeignCluster { location: location.clone(), fsid: self.fsid().to_owned() });
        }
        match location.pool() {
            Some(name) if name != self.pool().to_string() => self.open_pool(name).await,
            _ => Ok(self.pool().clone()),
        }
    }
}

async fn open_pool(cluster: &Cluster, pool: &str, namespace: &str) -> Result<Pool> {
    let pool = cluster.pool(pool).await?;
    if namespace.is_empty() { Ok(pool) } else { Ok(pool.in_namespace(namespace).await?) }
}

/// How librbd is set up for a store: whole chunks, written once and read once.
fn settings(config: &Config) -> Vec<(String, String)> {
    let own = [
        // A cache copies every write and delays its error to the flush.
        ("rbd_cache", "false"),
        // The buffer stays with the operation until it is done, so librbd need not copy it.
        ("rbd_disable_zero_copy_writes", "false"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    own.into_iter().chain(config.settings.iter().cloned()).collect()
}
