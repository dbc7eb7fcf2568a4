//! `image`: the store, by hand.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Format, sources::ClusterArgs, values::size};

/// Options of every `image` command.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImageArgs {
    /// Cluster and pool.
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// The `image` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Store a file, or standard input, as an image.
    #[command(after_help = "Example:\n  qemu-img convert -O raw disk.qcow2 /dev/stdout | \
                            glance-rbd image put - --id \"$(uuidgen)\"")]
    Put {
        /// The file; "-" is standard input.
        file: PathBuf,
        /// The Glance image id.
        #[arg(long, value_name = "UUID")]
        id: uuid::Uuid,
        /// How many bytes there will be (K, M, G, T mean 1024 and its powers); the upload fails if there are not.
        #[arg(long, value_name = "SIZE", value_parser = size)]
        size: Option<u64>,
        /// Options of every command.
        #[command(flatten)]
        args: ImageArgs,
    },
    /// Write an image's data to a file or to standard output.
    Get {
        /// A location (rbd://FSID/POOL/IMAGE/SNAPSHOT) or an image id.
        what: String,
        /// The file; "-" is standard output.
        #[arg(short, long, value_name = "FILE", default_value = "-")]
        output: PathBuf,
        /// The first byte to read.
        #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size)]
        offset: u64,
        /// How many bytes to read [default: all that follow].
        #[arg(long, value_name = "SIZE", value_parser = size)]
        length: Option<u64>,
        /// Options of every command.
        #[command(flatten)]
        args: ImageArgs,
    },
    /// Show an image.
    Stat {
        /// A location or an image id.
        what: String,
        /// Options of every command.
        #[command(flatten)]
        args: ImageArgs,
    },
    /// List the pool's images.
    List {
        /// Options of every command.
        #[command(flatten)]
        args: ImageArgs,
    },
    /// Remove an image that nobody uses.
    Rm {
        /// A location or an image id.
        what: String,
        /// Options of every command.
        #[command(flatten)]
        args: ImageArgs,
    },
    /// Clone an image, copy-on-write.
    Clone {
        /// A location or an image id.
        what: String,
        /// The clone: POOL/NAME or POOL/NAMESPACE/NAME.
        #[arg(value_name = "POOL/NAME")]
        target: Target,
        /// The clone's size, if it is to be larger than the image.
        #[arg(long, value_name = "SIZE", value_parser = size)]
        size: Option<u64>,
        /// Options of every command.
        #[command(flatten)]
        args: ImageArgs,
    },
    /// Copy what a clone still takes from its parent, so that it needs it no longer.
    Flatten {
        /// The clone: POOL/NAME or POOL/NAMESPACE/NAME.
        #[arg(value_name = "POOL/NAME")]
        target: Target,
        /// Options of every command.
        #[command(flatten)]
        args: ImageArgs,
    },
    /// List an image's clones, in all pools.
    Children {
        /// A location or an image id.
        what: String,
        /// Options of every command.
        #[command(flatten)]
        args: ImageArgs,
    },
}

/// An image in any pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The pool, or `POOL/NAMESPACE`.
    pub(crate) pool: String,
    /// The name.
    pub(crate) name: String,
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected POOL/NAME or POOL/NAMESPACE/NAME".to_owned();
        let (pool, name) = text.rsplit_once('/').ok_or_else(wrong)?;
        if name.is_empty() || pool.split('/').any(str::is_empty) || pool.split('/').count() > 2 {
            return Err(wrong());
        }
        Ok(Self { pool: pool.into(), name: name.into() })
    }
}
