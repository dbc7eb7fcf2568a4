//! `apply`, `undo` and `trash`: what changes a pool, and changes it back.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    Format,
    sources::{ClusterArgs, ConnectArgs, SourceArgs},
};

/// Options of `apply`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --yes everything is looked at again, and what would be done is printed. With it, each step \
                        is looked at once more, written to the journal, done, and written to the journal again. \
                        Ctrl-C stops after the current step; the same command then finishes the plan.\n\n\
                        Example:\n  glance-rbd apply plan.json --glance-conf /etc/glance/glance-api.conf --yes"
)]
pub(crate) struct ApplyArgs {
    /// The plan, as `glance-rbd plan` wrote it.
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
    /// Where to write down what is done [default: the plan's name with ".journal" after it].
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,
    /// Do it.
    #[arg(long)]
    pub(crate) yes: bool,
    /// How to print what was done.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Pools and databases: those of the plan.
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
}

/// Options of `undo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glance-rbd undo plan.json.journal --user glance --yes")]
pub(crate) struct UndoArgs {
    /// The journal of the plan that is to be undone.
    #[arg(value_name = "JOURNAL")]
    pub(crate) journal: PathBuf,
    /// Do it; without it, what would be done is printed.
    #[arg(long)]
    pub(crate) yes: bool,
    /// How to print what was done.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// The cluster.
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// The `trash` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum TrashCommand {
    /// List what is in the trash, until when, and what else keeps it there.
    List {
        /// How to print the list.
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
        /// Cluster and pool.
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Put an image back.
    Restore {
        /// Its id, as `trash list` prints it.
        id: String,
        /// Another name, if its own is taken.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Cluster and pool.
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Remove for good what has been in the trash for as long as it was to be, and what no database knows and no clone needs.
    #[command(
        after_help = "Without --yes, what would be removed is printed. What cannot be removed is named, and stops \
                            nothing."
    )]
    Purge(PurgeArgs),
}

/// Options of `trash purge`.
#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    /// Do it. There is no way back.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Switch a safeguard off, by its name: stale, unhealthy, no-locations, foreign-fsid, undecryptable.
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// How to print what was done.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Pools and databases.
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
}
