//! What can go wrong, named by what a caller does about it.

use crate::{
    clone::NotCloneable,
    location::{BadLocation, Location},
    oslo::BadConf,
};

/// The result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed store operation. Its text tells all; there is no further source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image, its snapshot or its pool is not there.
    #[error("NotFound: {0}")]
    NotFound(rbd::Error),
    /// An image of that id is in the pool already (Glance's `Duplicate`).
    #[error("AlreadyExists: {0}")]
    AlreadyExists(rbd::Error),
    /// Somebody has the image open for writing, or it has clones or snapshots that keep it. It was left as it was.
    #[error("InUse: {0}")]
    InUse(String),
    /// The cluster is full, or the pool over its quota. Nothing was left behind.
    #[error("StorageFull: {0}")]
    StorageFull(rbd::Error),
    /// The data was longer or shorter than announced (Glance's `Invalid`). Nothing was left behind.
    #[error("SizeMismatch: {expected} bytes were announced, but {} came", came(*.actual, *.expected))]
    SizeMismatch {
        /// Bytes announced.
        expected: u64,
        /// Bytes that came; for too much data, those that came before it was noticed.
        actual: u64,
    },
    /// A verifier did not accept the data. Nothing was left behind.
    #[error("Rejected: {0}")]
    Rejected(String),
    /// The source of the data cannot be read.
    #[error("Source: {0}")]
    Source(std::io::Error),
    /// Not a location of an RBD image.
    #[error("BadLocation: {0}")]
    BadLocation(BadLocation),
    /// The image is in another cluster, and nothing here is it.
    #[error("ForeignCluster: {location} names cluster {}, but this one is {fsid}", .location.fsid().unwrap_or("none"))]
    ForeignCluster {
        /// The location.
        location: Location,
        /// The cluster that the store is connected to.
        fsid: String,
    },
    /// The image cannot be cloned, or not so.
    #[error("NotCloneable: {location}: {reason}")]
    NotCloneable {
        /// Its location.
        location: String,
        /// What keeps it from being cloned.
        reason: NotCloneable,
    },
    /// A setting that cannot work.
    #[error("BadConfiguration: {0}")]
    BadConfiguration(String),
    /// The arguments cannot be meant.
    #[error("Invalid: {0}")]
    Invalid(String),
    /// The user may not do that.
    #[error("PermissionDenied: {0}")]
    PermissionDenied(rbd::Error),
    /// The cluster did not answer in time.
    #[error("Timeout: {0}")]
    Timeout(rbd::Error),
    /// The operation was stopped on request.
    #[error("Canceled: {0}")]
    Canceled(rbd::Error),
    /// Anything else that Ceph reports.
    #[error("Backend: {0}")]
    Backend(rbd::Error),
}

fn came(actual: u64, expected: u64) -> String {
    if actual > expected { format!("more than that ({actual} so far)") } else { actual.to_string() }
}

impl From<BadLocation> for Error {
    fn from(error: BadLocation) -> Self {
        Self::BadLocation(error)
    }
}

impl From<BadConf> for Error {
    fn from(error: BadConf) -> Self {
        Self::BadConfiguration(error.to_string())
    }
}

impl From<rbd::Error> for Error {
    fn from(error: rbd::Error) -> Self {
        use rbd::ErrorKind;
        match error.kind {
            ErrorKind::NotFound => Self::NotFound(error),
            ErrorKind::AlreadyExists => Self::AlreadyExists(error),
            ErrorKind::Busy | ErrorKind::NotEmpty => Self::InUse(error.to_string()),
            ErrorKind::NoSpace => Self::StorageFull(error),
            ErrorKind::PermissionDenied => Self::PermissionDenied(error),
            ErrorKind::TimedOut => Self::Timeout(error),
            ErrorKind::Canceled => Self::Canceled(error),
            _ => Self::Backend(error),
        }
    }
}
