//! The Ceph RBD store of a Glance-compatible server.
//!
//! ```no_run
//! use futures_util::TryStreamExt;
//! use store::{AddOptions, Config, Error, OsloConf, Store};
//!
//! #[tokio::main]
//! async fn main() -> store::Result<()> {
//!     // The options Glance has, from its own file; or `Config { pool: "images".into(), ..Config::default() }`.
//!     let conf = OsloConf::read("/etc/glance/glance-api.conf")?;
//!     let store = Store::open(Config::from_glance_conf(&conf, None)?).await?;
//!
//!     // Upload: write as data comes; `write` waits when the cluster is slower than the source.
//!     let id = "6dc7c0f5-7b22-4d3a-a2a8-5f3c7c0e3a10";
//!     let mut writer = match store.add(id, AddOptions::default()).await {
//!         Ok(writer) => writer,
//!         Err(Error::AlreadyExists(error)) => return Ok(println!("409 Conflict: {error}")),
//!         Err(error) => return Err(error),
//!     };
//!     writer.write("some data".into()).await?;
//!     let added = writer.finish().await?; // dropped instead, nothing of the upload stays
//!     println!("{} {} {}", added.location, added.checksum, added.multihash);
//!
//!     // Download: any range, as a stream of `Bytes`.
//!     let mut reader = store.get(&added.location, 5..).await?;
//!     while let Some(chunk) = reader.try_next().await? {
//!         assert_eq!(chunk, "data");
//!     }
//!
//!     match store.delete(&added.location).await {
//!         Ok(_) | Err(Error::NotFound(_)) => {}
//!         Err(Error::InUse(why)) => println!("409 Conflict: {why}"), // and the image is as it was
//!         Err(error) => return Err(error),
//!     }
//!     store.settled().await; // what was dropped meanwhile is cleaned up
//!     Ok(())
//! }
//! ```
//!
//! A [`Store`] is one connection, kept and shared: clone it freely, use it from many tasks at once. It connects anew by itself if
//! the cluster has shut it out. Images it stores are those of Glance's `rbd` driver: named by the image id, data in the
//! protected snapshot `snap`, locations `rbd://fsid/pool/image/snap`. A Glance may go from one to the other and back;
//! `docs/contract.md` says what is the same and what is better.
//!
//! - [`Error`]'s variants are what a server reacts to; each says what state the image is in.
//! - Every operation is a `tracing` span `store` with `operation`, `image`, `bytes`, `seconds` and, if it failed, `error`; and
//!   [`Store::counters`] has the sums, for a metrics exporter.
//! - `examples/server` answers Glance's API with this crate and a database of Glance's schema.

mod add;
mod background;
mod budget;
mod claim;
mod clone;
mod config;
mod connection;
mod counters;
mod error;
mod get;
mod hash;
mod leftover;
mod location;
mod mark;
mod oslo;
mod removal;
mod sparse;
mod thin;
mod upload;
mod writer;

use std::sync::Arc;

pub use self::{
    add::{AddOptions, Added},
    clone::{CloneOptions, NotCloneable},
    config::Config,
    counters::{Counters, Operation, Tally},
    error::{Error, Result},
    get::{Reader, Stat},
    hash::{Refusal, Verifier},
    location::{BadLocation, Location, SNAPSHOT},
    mark::{UPLOAD_MARK, UploadMark},
    oslo::{BadConf, OsloConf},
    removal::Removed,
    sparse::SparseFile,
    writer::Writer,
};
use self::{
    background::Background, budget::Budget, claim::Claims, config::split_pool, connection::Connection, counters::Meters,
};
use rbd::Pool;
use tokio::sync::Semaphore;

/// A store: a pool of a cluster, and the connection to it.
#[derive(Clone)]
pub struct Store(Arc<Opened>);

struct Opened {
    connection: Connection,
    meters: Meters,
    /// Clean-ups, and uploads being finished, which go on when nobody waits for them any more.
    background: Background,
    /// Memory of all uploads and downloads.
    budget: Budget,
    /// The ids that are being stored.
    claims: Claims,
    /// One permit for each flatten that may run.
    flattens: Arc<Semaphore>,
}

impl Store {
    /// Connects to the cluster and opens the pool.
    ///
    /// # Errors
    /// `BadConfiguration`: an option that cannot work and, where it is one of [several backends](Config::several_backends),
    /// every failure to connect. Else `NotFound` for a missing `ceph.conf`, keyring or pool; `PermissionDenied` for a wrong
    /// key; `Timeout`.
    pub async fn open(config: Config) -> Result<Self> {
        config.order()?;
        let budget = Budget::new(config.memory);
        let flattens = Arc::new(Semaphore::new(config.flattens.max(1)));
        let connection = Connection::open(config).await?;
        Ok(Self(Arc::new(Opened {
            connection,
            meters: Meters::default(),
            background: Background::new(),
            budget,
            claims: Claims::default(),
            flattens,
        })))
    }

    /// The options it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.0.connection.config()
    }

    /// The pool that images are stored in, as it is connected now. Do not keep it: it goes with its connection.
    #[must_use]
    pub fn pool(&self) -> Pool {
        self.0.connection.pool()
    }

    /// The pool that images are stored in, through a connection that is alive.
    ///
    /// # Errors
    /// `Timeout`; where it has to connect anew, as [`open`](Self::open).
    pub async fn ready(&self) -> Result<Pool> {
        self.0.connection.ready().await
    }

    /// What all locations of the configured pool begin with: `rbd://FSID/POOL/`.
    #[must_use]
    pub fn url_prefix(&self) -> String {
        Location::prefix(&self.pool())
    }

    /// What this store and its clones have done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.0.meters.read()
    }

    /// The cluster's id.
    #[must_use]
    pub fn fsid(&self) -> &str {
        self.0.connection.fsid()
    }

    /// Removes an image; once begun it ends, even if the future is dropped. One that is in use (open for writing, with v1 clones
    /// or snapshots of its own, in a group, mirrored) is refused and stays as it was; one with v2 clones goes to the trash. What
    /// an earlier removal left that was cut off is taken up.
    ///
    /// # Errors
    /// `NotFound`, `InUse`, `ForeignCluster`, `PermissionDenied`, `Timeout`.
    pub async fn delete(&self, location: &Location) -> Result<Removed> {
        let delete = async {
            let (pool, name) = (self.pool_of(location).await?, location.image().to_owned());
            // Half a removal is worse than either end of it.
            let snapshot = location.snapshot().unwrap_or(SNAPSHOT).to_owned();
            let remove = async move { removal::remove(&pool, &name, &snapshot, None).await };
            self.background().finish(remove, |_| async {}).await
        };
        self.meters().measure(Operation::Delete, location.image(), delete).await
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
        Location::of(&self.pool(), id)
    }

    /// Makes sure, once, that what is stored can be removed again when the pool is full.
    async fn prepare_trash(&self) {
        self.0.connection.prepare_trash().await;
    }

    fn meters(&self) -> &Meters {
        &self.0.meters
    }

    fn flattens(&self) -> Arc<Semaphore> {
        self.0.flattens.clone()
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
        connection::open_pool(self.ready().await?.cluster(), pool, namespace).await
    }

    fn budget(&self) -> &Budget {
        &self.0.budget
    }

    fn claims(&self) -> &Claims {
        &self.0.claims
    }

    /// The pool that a location names; the configured one if it names none.
    async fn pool_of(&self, location: &Location) -> Result<Pool> {
        if location.fsid().is_some_and(|fsid| fsid != self.fsid()) {
            return Err(Error::ForeignCluster { location: location.clone(), fsid: self.fsid().to_owned() });
        }
        let pool = self.ready().await?;
        match location.pool() {
            Some(name) if name != pool.to_string() => self.open_pool(name).await,
            _ => Ok(pool),
        }
    }
}
