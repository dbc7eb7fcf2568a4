//! What a scan reads, from options and glance-api.conf files: pools of one cluster, and databases.

use std::{path::PathBuf, time::Duration};

use reconcile::{Database, GlanceConf, Sources};

use crate::{
    cli::sources::{ClusterArgs, ConnectArgs, PoolName, SourceArgs},
    exit::Usage,
};

/// What was asked for, before anything is connected to.
pub(super) struct Wanted {
    pools: Vec<Place>,
    databases: Vec<Database>,
    timeout: Duration,
    /// After what time Glance's scrubber should have removed what was deleted: the longest of all, where it is known.
    pub(super) scrub_time: Option<Duration>,
    /// The names of all configured backends; empty where not all are known.
    pub(super) stores: Vec<String>,
}

/// A pool, and how to reach it.
#[derive(Clone)]
struct Place {
    pool: PoolName,
    access: Access,
}

#[derive(Clone, PartialEq, Eq)]
struct Access {
    ceph_conf: Option<PathBuf>,
    user: Option<String>,
}

impl Wanted {
    /// Reads the files that the options name.
    ///
    /// # Errors
    /// A URL that is not understood, a file that cannot be read or names no pool.
    pub(super) fn read(args: &SourceArgs) -> anyhow::Result<Self> {
        let mut databases = Vec::new();
        let mut backends: Vec<Place> = Vec::new();
        let mut scrub_time = None;
        let mut stores = Vec::new();
        let access = Access { ceph_conf: args.connect.ceph_conf.clone(), user: args.connect.user.clone() };
        for url in &args.database {
            databases.push(url.parse::<Database>()?);
        }
        for path in &args.glance_conf {
            let conf = GlanceConf::read(path)?;
            databases.push(conf.database);
            scrub_time = scrub_time.max(Some(conf.scrub_time));
            stores.extend(conf.stores);
            for backend in conf.backends {
                let pool = backend.pool.parse().map_err(|why| Usage(format!("{}: {why}", path.display())))?;
                let access = Access {
                    ceph_conf: access.ceph_conf.clone().or(backend.ceph_conf),
                    user: access.user.clone().or(backend.user),
                };
                backends.push(Place { pool, access });
            }
        }
        if !args.database.is_empty() {
            // What that Glance is configured with is not known.
            (scrub_time, stores) = (None, Vec::new());
        }
        let mut pools: Vec<Place> = Vec::new();
        let asked = args.pool.iter().map(|pool| {
            // As the file says of this pool, else as it says of any.
            let of_file = backends.iter().find(|place| place.pool == *pool).or(backends.first());
            Place { pool: pool.clone(), access: of_file.map_or(&access, |place| &place.access).clone() }
        });
        let asked: Vec<Place> = asked.collect();
        for place in if asked.is_empty() { backends } else { asked } {
            if pools.iter().all(|known| known.pool != place.pool) {
                pools.push(place);
            }
        }
        if pools.is_empty() {
            if !args.glance_conf.is_empty() {
                return Err(Usage("no file has an rbd backend; name the pool with --pool".into()).into());
            }
            pools.push(Place { pool: "images".parse().map_err(Usage)?, access });
        }
        let timeout = args.connect.timeout;
        let databases = databases.into_iter().map(|database| database.with_timeout(timeout)).collect();
        Ok(Self { pools, databases, timeout, scrub_time, stores })
    }

    /// Opens the pools. They must be of one cluster: what is whose can be told only there.
    ///
    /// # Errors
    /// A cluster that cannot be reached, a pool that is not there, or pools of two clusters.
    pub(super) async fn open(&self) -> anyhow::Result<Sources> {
        let mut clusters: Vec<(&Access, rbd::Cluster)> = Vec::new();
        let mut pools = Vec::new();
        for place in &self.pools {
            let known = clusters.iter().find(|(access, _)| **access == place.access);
            let cluster = match known {
                Some((_, cluster)) => cluster.clone(),
                None => {
                    let Access { ceph_conf, user } = place.access.clone();
                    let cluster = connect(&ConnectArgs { ceph_conf, user, timeout: self.timeout }).await?;
                    clusters.push((&place.access, cluster.clone()));
                    cluster
                }
            };
            if cluster.fsid() != clusters[0].1.fsid() {
                let why = "is of another cluster than the pool before it; scan one cluster at a time, with --pool";
                return Err(Usage(format!("{} {why}", place.pool)).into());
            }
            pools.push(open(&cluster, &place.pool).await?);
        }
        Ok(Sources { pools, databases: self.databases.clone() })
    }
}

/// Connects to the cluster.
pub(super) async fn connect(args: &ConnectArgs) -> rbd::Result<rbd::Cluster> {
    rbd::Cluster::connect(rbd::ConnectOptions {
        conf: args.ceph_conf.clone(),
        user: args.user.clone(),
        timeout: Some(args.timeout),
        settings: Vec::new(),
    })
    .await
}

/// Opens one pool.
pub(super) async fn pool(args: &ClusterArgs) -> rbd::Result<rbd::Pool> {
    open(&connect(&args.connect).await?, &args.pool).await
}

async fn open(cluster: &rbd::Cluster, name: &PoolName) -> rbd::Result<rbd::Pool> {
    let pool = cluster.pool(&name.pool).await?;
    match name.namespace.as_str() {
        "" => Ok(pool),
        namespace => pool.in_namespace(namespace).await,
    }
}
