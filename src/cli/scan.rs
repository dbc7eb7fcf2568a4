//! `scan`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{Format, sources::SourceArgs, values::duration};

/// Options of `scan`.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads only: a Ceph user with `profile rbd-read-only`, and a database user that may only SELECT, \
                        are enough.\n\nExample:\n  glance-rbd scan --database sqlite:////var/lib/glance/glance.sqlite \
                        --pool images --user glance"
)]
pub(crate) struct ScanArgs {
    /// What to compare.
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
    /// How to print the findings.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Report these kinds only.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Images and rows younger than this are in flight, never orphans.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub(crate) grace: Duration,
    /// Write the result to a file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
