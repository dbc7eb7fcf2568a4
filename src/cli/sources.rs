//! Which cluster, which pools, which databases: what every command that compares them takes.

use std::{fmt, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};

use super::values::duration;

/// How to reach the cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConnectArgs {
    /// The ceph.conf to connect with [default: $CEPH_CONF, else where Ceph's own tools look].
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) ceph_conf: Option<PathBuf>,
    /// The Ceph user, without "client." [default: as Ceph's own tools, "admin"].
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub(crate) user: Option<String>,
    /// How long to wait for the cluster or a database, to connect and for each operation.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, help_heading = "Cluster")]
    pub(crate) timeout: Duration,
}

/// One pool of a cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterArgs {
    /// The cluster.
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// The pool with Glance's images.
    #[arg(long, value_name = "POOL[/NAMESPACE]", default_value = "images", help_heading = "Cluster")]
    pub(crate) pool: PoolName,
}

/// The pools and the databases to compare.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("glance").args(["glance_conf", "database"]).required(true).multiple(true))]
pub(crate) struct SourceArgs {
    /// Read databases, pools, Ceph user and ceph.conf from a glance-api.conf; options beside it come first. Repeat it for
    /// every Glance that shares the pools.
    #[arg(long, value_name = "FILE", help_heading = "Sources")]
    pub(crate) glance_conf: Vec<PathBuf>,
    /// A Glance database, as the SQLAlchemy URL of glance-api.conf; better in the environment if it holds a password.
    /// Repeat it for every Glance that shares the pools: an image is an orphan only if none knows it.
    #[arg(long, value_name = "URL", help_heading = "Sources", env = "GLANCE_RBD_DATABASE", hide_env_values = true)]
    pub(crate) database: Vec<String>,
    /// A pool with Glance's images; may be repeated [default: those of --glance-conf, else "images"].
    #[arg(long, value_name = "POOL[/NAMESPACE]", help_heading = "Sources")]
    pub(crate) pool: Vec<PoolName>,
    /// The cluster.
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// A pool, or a namespace in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolName {
    /// The pool.
    pub(crate) pool: String,
    /// The namespace; empty for the default one.
    pub(crate) namespace: String,
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.pool),
            namespace => write!(f, "{}/{namespace}", self.pool),
        }
    }
}

impl std::str::FromStr for PoolName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pool, namespace) = match text.split_once('/') {
            None => (text, ""),
            Some((pool, namespace)) if !namespace.is_empty() && !namespace.contains('/') => (pool, namespace),
            Some(_) => ("", ""),
        };
        if pool.is_empty() {
            return Err("expected POOL or POOL/NAMESPACE".into());
        }
        Ok(Self { pool: pool.into(), namespace: namespace.into() })
    }
}
