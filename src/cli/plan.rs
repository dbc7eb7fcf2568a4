//! `plan`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{sources::SourceArgs, values::duration};

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads only, as `scan` does. What a plan may remove has to be seen the same by two scans, the grace \
                  apart.\n\nKinds planned unless --only names others: trashed-image, missing-snapshot, \
                  unprotected-snapshot, unregistered, orphan-deleted, partial-upload, leaked-clone. By name only: orphan, \
                  trash-expired.\n\nSafeguards that --allow switches off, each by its name:\n  \
                  unseen         act on what no earlier scan has seen\n  \
                  stale          believe a database that is older than what is in the pool\n  \
                  unhealthy      act although OSDs are down or placement groups inactive\n  \
                  no-locations   believe a database without any location in the pool\n  \
                  foreign-fsid   believe a database whose locations name another cluster\n  \
                  undecryptable  restore and protect although locations cannot be read (removing stays blocked)\n\n\
                  Example:\n  glance-rbd scan --glance-conf /etc/glance/glance-api.conf --format json -o monday.json\n  \
                  glance-rbd plan --glance-conf /etc/glance/glance-api.conf --seen monday.json -o plan.json # on Tuesday\n  \
                  glance-rbd apply plan.json --glance-conf /etc/glance/glance-api.conf # says what it would do"
)]
pub(crate) struct PlanArgs {
    /// What to compare.
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
    /// The plan, as JSON.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Plan for these kinds of findings only.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// How old what is removed must be, and how long ago an earlier scan must have seen it the same.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub(crate) grace: Duration,
    /// An earlier scan, as `scan --format json` wrote it; may be repeated.
    #[arg(long, value_name = "SCAN")]
    pub(crate) seen: Vec<PathBuf>,
    /// Refuse to remove more images than this.
    #[arg(long, value_name = "N", default_value_t = 25)]
    pub(crate) max_images: u64,
    /// Refuse to remove more than this many per cent of a pool's images.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub(crate) max_percent: u64,
    /// How long to keep in the trash what is removed.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub(crate) defer: Duration,
    /// Switch off a safeguard; may be repeated.
    #[arg(long, value_name = "WHAT")]
    pub(crate) allow: Vec<String>,
}
