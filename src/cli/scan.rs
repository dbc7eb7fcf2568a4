//! `scan`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{sources::SourceArgs, values::duration};

/// How to print a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs: all that is known.
    Json,
    /// For spreadsheets: one finding a line.
    Csv,
}

/// Options of `scan`.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads only: a Ceph user with `profile rbd-read-only`, and a database user that may only SELECT, are \
                        enough.\n\nExit codes: 0 nothing to act on; 1 an error, or not everything could be read; \
                        2 wrong usage; 3 findings of severity warning or critical; 130 interrupted.\n\nExamples:\n  \
                        glance-rbd scan --glance-conf /etc/glance/glance-api.conf\n  \
                        glance-rbd scan --database sqlite:////var/lib/glance/glance.sqlite --pool images --user scan\n  \
                        glance-rbd scan --glance-conf A.conf --glance-conf B.conf --format json -o scan.json \\\n    \
                        --metrics /var/lib/prometheus/node-exporter/glance-rbd.prom  # from cron, two Glances on one pool"
)]
pub(crate) struct ScanArgs {
    /// What to compare.
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
    /// How to print the findings.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Report these kinds only; the exit code too is then theirs.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Images and rows younger than this are in flight, never orphans.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub(crate) grace: Duration,
    /// Add up what every image takes, as `rbd du` counts it, and not only those whose space may be won.
    #[arg(long)]
    pub(crate) usage: bool,
    /// Compare so many images, picked at random, with what librbd says of them; the scan is incomplete if they differ.
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    pub(crate) verify_sample: usize,
    /// Write metrics for the textfile collector of Prometheus' node exporter, whatever becomes of the scan.
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics: Option<PathBuf>,
    /// Write the result to a file instead of standard output; it is replaced only when all is there.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
