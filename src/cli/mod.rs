//! The command line. `build.rs` includes this directory too, for man pages and completions, so it knows nothing but clap.

pub(crate) mod image;
pub(crate) mod plan;
pub(crate) mod reclaim;
pub(crate) mod scan;
pub(crate) mod sources;
mod values;

use clap::{Parser, Subcommand, ValueEnum};

use self::{
    image::ImageCommand,
    plan::PlanArgs,
    reclaim::{ApplyArgs, TrashCommand, UndoArgs},
    scan::ScanArgs,
};

/// Finds what OpenStack Glance leaves behind in Ceph RBD, and stores, clones and flattens its images.
#[derive(Debug, Parser)]
#[command(
    name = "glance-rbd",
    version = option_env!("GLANCE_RBD_VERSION").unwrap_or(env!("CARGO_PKG_VERSION")),
    propagate_version = true,
    after_help = "Exit codes: 0 nothing found, or done; 1 an error, or an incomplete scan; 2 wrong usage; \
                  3 findings to act on; 4 applied, but some steps were skipped or failed; 130 interrupted."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compare a pool with a Glance database and report what is orphaned, partial, missing or duplicated.
    Scan(ScanArgs),
    /// Plan what to do about what a scan finds, for people to read before it is applied.
    Plan(PlanArgs),
    /// Do what a plan says; without --yes, say what would be done.
    Apply(ApplyArgs),
    /// Put back what a plan moved to the trash.
    Undo(UndoArgs),
    /// See what is in the trash, put it back, or remove it for good.
    #[command(subcommand)]
    Trash(TrashCommand),
    /// Store, read, remove and clone images by hand.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How to print results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}
