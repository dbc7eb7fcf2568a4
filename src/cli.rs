//! The command line. `build.rs` includes this file too, for man pages and completions, so it knows nothing but clap.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Finds what OpenStack Glance leaves behind in Ceph RBD, and stores, clones and flattens its images.
#[derive(Debug, Parser)]
#[command(
    name = "glance-rbd",
    version = option_env!("GLANCE_RBD_VERSION").unwrap_or(env!("CARGO_PKG_VERSION")),
    propagate_version = true,
    after_help = "Exit codes: 0 nothing found, or done; 1 an error, or an incomplete scan; 2 wrong usage; \
                  3 findings to act on; 130 interrupted."
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
    /// Store, read, remove and clone images by hand.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Which cluster and pool.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterArgs {
    /// The ceph.conf to connect with [default: $CEPH_CONF, else where Ceph's own tools look].
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) ceph_conf: Option<PathBuf>,
    /// The Ceph user, without "client." [default: as Ceph's own tools, "admin"].
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub(crate) user: Option<String>,
    /// The pool with Glance's images, or an RBD namespace of it.
    #[arg(long, value_name = "POOL[/NAMESPACE]", default_value = "images", help_heading = "Cluster")]
    pub(crate) pool: String,
    /// How long to wait for the cluster, to connect and for each operation.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, help_heading = "Cluster")]
    pub(crate) timeout: Duration,
}

/// How to print results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Options of `scan`.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads only: a Ceph user with `profile rbd-read-only`, and a database user that may only SELECT, \
                        are enough.\n\nExample:\n  glance-rbd scan --database sqlite:////var/lib/glance/glance.sqlite \
                        --pool images --user glance"
)]
pub(crate) struct ScanArgs {
    /// Cluster and pool.
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// The Glance database, as an SQLAlchemy URL: sqlite:////absolute/path.
    #[arg(long, value_name = "URL", env = "GLANCE_RBD_DATABASE", hide_env_values = true)]
    pub(crate) database: String,
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
    /// The pool.
    pub(crate) pool: String,
    /// The namespace; empty for the default one.
    pub(crate) namespace: String,
    /// The name.
    pub(crate) name: String,
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (pool, namespace, name) = match parts.as_slice() {
            [pool, name] => (*pool, "", *name),
            [pool, namespace, name] if !namespace.is_empty() => (*pool, *namespace, *name),
            _ => ("", "", ""),
        };
        if pool.is_empty() || name.is_empty() {
            return Err("expected POOL/NAME or POOL/NAMESPACE/NAME".into());
        }
        Ok(Self { pool: pool.into(), namespace: namespace.into(), name: name.into() })
    }
}

/// `90s`, `24h`, `7d`, `1h30m`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let hint = || format!("{text:?} is not a time: try 90s, 24h or 7d");
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let span: jiff::Span = text.parse().map_err(|_| hint())?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| hint())?;
    Duration::try_from(duration).map_err(|_| hint())
}

/// `4096`, `10M`, `2G`: bytes, or powers of 1024 as `rbd` has them.
fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let upper = text.to_ascii_uppercase();
    let plain = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let (number, shift) = match plain.chars().last() {
        Some('K') => (&plain[..plain.len() - 1], 10),
        Some('M') => (&plain[..plain.len() - 1], 20),
        Some('G') => (&plain[..plain.len() - 1], 30),
        Some('T') => (&plain[..plain.len() - 1], 40),
        _ => (plain, 0),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| format!("{text:?} is not a size: try 4096, 10M or 2G"))
}
