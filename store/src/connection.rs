//! The one connection of a store: kept, shared, and made anew when the cluster has shut it out.
//!
//! A client that was blocklisted (by `ceph osd blocklist add`, or by another that broke its lock) gets nothing done any more,
//! for good. What it has in flight fails. Before each operation it is made sure that the connection is alive: an operation of
//! this connection that was refused is remembered, and one that was idle is tried with a small read, at most every three
//! seconds.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rbd::{Cluster, ConnectOptions, ErrorKind, Features, Pool, ReadOp};
use tokio::sync::OnceCell;

use crate::{
    config::Config,
    error::{Error, Result},
};

/// For how long a connection that was seen alive is taken to be so.
const FRESH: Duration = Duration::from_secs(3);

/// The connection of a store; all clones are the same one.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Shared>);

struct Shared {
    config: Config,
    fsid: String,
    current: Mutex<Arc<Generation>>,
}

/// One connection, until it is shut out.
struct Generation {
    pool: Pool,
    seen_alive: Mutex<Instant>,
    /// What takes its place; made once, however many operations find it dead.
    successor: OnceCell<Arc<Generation>>,
    trash: OnceCell<()>,
}

impl Connection {
    pub(crate) async fn open(config: Config) -> Result<Self> {
        let pool = connect(&config).await.map_err(|error| at_start(&config, error))?;
        let fsid = pool.cluster().fsid().to_owned();
        Ok(Self(Arc::new(Shared { config, fsid, current: Mutex::new(Generation::new(pool)) })))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn fsid(&self) -> &str {
        &self.0.fsid
    }

    /// The configured pool, as it is connected now.
    pub(crate) fn pool(&self) -> Pool {
        self.current().pool.clone()
    }

    /// The configured pool, through a connection that is alive.
    pub(crate) async fn ready(&self) -> Result<Pool> {
        Ok(self.alive().await?.pool.clone())
    }

    /// Makes sure, once for a connection, that what is stored can be removed again when the pool is full.
    pub(crate) async fn prepare_trash(&self) {
        let generation = self.current();
        let prepared = generation.trash.get_or_try_init(|| generation.pool.prepare_trash()).await;
        if let Err(error) = prepared {
            tracing::debug!(%error, "cannot make sure of the pool's trash");
        }
    }

    async fn alive(&self) -> Result<Arc<Generation>> {
        let generation = self.current();
        if generation.is_alive().await? {
            return Ok(generation);
        }
        let next = generation.successor.get_or_try_init(|| async {
            tracing::warn!(pool = %generation.pool, "this client was blocklisted; connecting anew");
            let pool = connect(&self.0.config).await?;
            let fsid = pool.cluster().fsid();
            if fsid != self.0.fsid {
                let why = format!("ceph.conf led to cluster {}, and leads to {fsid} now", self.0.fsid);
                return Err(Error::BadConfiguration(why));
            }
            Ok(Generation::new(pool))
        });
        let next = next.await?.clone();
        let mut current = lock(&self.0.current);
        if Arc::ptr_eq(&current, &generation) {
            *current = next;
        }
        Ok(current.clone())
    }

    fn current(&self) -> Arc<Generation> {
        lock(&self.0.current).clone()
    }
}

impl Generation {
    fn new(pool: Pool) -> Arc<Self> {
        let seen_alive = Mutex::new(Instant::now());
        Arc::new(Self { pool, seen_alive, successor: OnceCell::new(), trash: OnceCell::new() })
    }

    /// Whether the cluster still takes this client's operations; an error if it does not answer.
    async fn is_alive(&self) -> Result<bool> {
        if self.pool.cluster().is_blocklisted() {
            return Ok(false);
        }
        if lock(&self.seen_alive).elapsed() < FRESH {
            return Ok(true);
        }
        // Whether there is such an object does not matter, nor whether this user may read it: that it answers does.
        match self.pool.read_object("rbd_directory", &ReadOp::new().stat()).await {
            Err(error) if error.kind == ErrorKind::Blocklisted => return Ok(false),
            Err(error) if error.kind == ErrorKind::TimedOut => return Err(error.into()),
            _ => {}
        }
        *lock(&self.seen_alive) = Instant::now();
        Ok(true)
    }
}

async fn connect(config: &Config) -> Result<Pool> {
    let (pool, namespace) = config.pool_and_namespace()?;
    let cluster = Cluster::connect(ConnectOptions {
        conf: config.ceph_conf.clone(),
        user: config.user.clone(),
        timeout: config.timeout,
        settings: settings(config),
    })
    .await?;
    open_pool(&cluster, pool, namespace).await
}

/// A pool, or a namespace of it.
pub(crate) async fn open_pool(cluster: &Cluster, pool: &str, namespace: &str) -> Result<Pool> {
    let pool = cluster.pool(pool).await?;
    if namespace.is_empty() { Ok(pool) } else { Ok(pool.in_namespace(namespace).await?) }
}

/// The features of a new image, where the cluster's default will not do: without any it could not be cloned.
pub(crate) fn features(cluster: &Cluster) -> Result<Option<Features>> {
    let default = cluster.setting("rbd_default_features")?;
    Ok((default.is_empty() || default == "0").then_some(Features::LAYERING))
}

/// One of several backends that cannot be reached is a bad configuration of that one; the only one, what it is.
fn at_start(config: &Config, error: Error) -> Error {
    match error {
        Error::BadConfiguration(_) => error,
        error if config.several_backends => {
            let name = config.backend.as_deref().unwrap_or("rbd");
            Error::BadConfiguration(format!("backend {name}: {error}"))
        }
        error => error,
    }
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

/// A lock that is never held across a panic or an await.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
