//! Safe, asynchronous handles over librados and librbd.
//!
//! ```text
//! Cluster ── Pool ── Image ── Snapshot, metadata, locks, watchers, extents
//!              ├──── trash, clones
//!              └──── ReadOp: compound reads of single objects
//! ```
//!
//! What holds throughout:
//!
//! - An operation in flight owns its buffers and keeps its image, pool and cluster open. Futures may be dropped at any
//!   moment; nothing is freed under the feet of C.
//! - Reads, writes and flushes of an [`Image`] and reads of objects are submitted when called; their futures only wait.
//!   Everything else is a blocking C call, run on tokio's blocking threads when first polled.
//! - A handle closes when its last reference goes, in the background; [`settled`] waits for that.
//! - A listing is whole or an error.
//! - Errors name operation, object and cause ([`Error`]); a NUL byte in a name is refused before it reaches C.
//!
//! - No operation waits longer than [`ConnectOptions::timeout`] for a cluster that has stopped to answer.
//!
//! All futures need a tokio runtime with its timer.

mod class;
mod clone;
mod cluster;
mod completion;
mod create;
mod errno;
mod features;
mod image;
mod io;
mod lock;
mod membership;
mod metadata;
mod object_map;
mod plain;
mod pool;
mod progress;
mod read_op;
mod reap;
mod snapshot;
mod strings;
mod trash;
mod trash_state;
mod usage;
mod watch;

pub use self::{
    clone::{LinkedImage, Parent},
    cluster::{Cluster, ConnectOptions, TIMEOUTS},
    create::CreateOptions,
    errno::{Error, ErrorKind, Result},
    features::{Features, Flags},
    image::{Image, ImageStat, OpenOptions},
    lock::Locker,
    object_map::ObjectMap,
    plain::PlainSnapshot,
    pool::{ImageSpec, Pool},
    progress::{Progress, silent},
    read_op::{ObjectRead, OmapEntry, ReadOp},
    reap::{closing, exit, settled},
    snapshot::{Snapshot, SnapshotNamespace},
    trash::{TrashEntry, TrashSource},
    trash_state::TrashState,
    usage::Extent,
    watch::Watcher,
};
