//! The one place where a negative return value of librados or librbd becomes an [`Error`].

use std::{fmt, io};

/// The result of an operation on the cluster.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation: what was tried, on what, and why it failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {operation} {object}: {kind}{}", Errno(*.errno, *.kind))]
pub struct Error {
    /// What a caller reacts to.
    pub kind: ErrorKind,
    /// The operation, as a verb phrase: `open image`.
    pub operation: &'static str,
    /// What it was applied to: `images/3f0c…@snap`, `pool images`.
    pub object: String,
    /// The errno as librados or librbd returned it (positive); 0 where the error arose before the call.
    pub errno: i32,
}

/// What went wrong, as far as a caller would act differently on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `ENOENT`: no such pool, image, snapshot, object or key.
    NotFound,
    /// `EEXIST`.
    AlreadyExists,
    /// `EBUSY`: watched, locked, protected, or with children that hold it.
    Busy,
    /// `ENOTEMPTY`: the image still has snapshots or children.
    NotEmpty,
    /// `ENOSPC` or `EDQUOT`: the cluster is full or the pool over its quota.
    NoSpace,
    /// `EPERM` or `EACCES`: the user or its key may not do this.
    PermissionDenied,
    /// `ETIMEDOUT`: no answer within the configured time.
    TimedOut,
    /// `ESHUTDOWN`: this client was blocklisted; only a new connection helps.
    Blocklisted,
    /// `EROFS`: opened read-only, or at a snapshot.
    ReadOnly,
    /// `EINVAL`, `EDOM`, `ENAMETOOLONG`, or an argument with a NUL byte.
    InvalidArgument,
    /// `EOPNOTSUPP` or `ENOSYS`: this librbd, OSD or image cannot do that.
    Unsupported,
    /// `ECANCELED` or `ERESTART`: stopped on request.
    Canceled,
    /// The data that came back is not encoded as expected.
    Malformed,
    /// Anything else.
    Other,
}

impl Error {
    pub(crate) fn new(operation: &'static str, object: impl Into<String>, code: impl Into<i64>) -> Self {
        let errno = i32::try_from(-code.into()).unwrap_or(libc_errno::EIO);
        Self { kind: ErrorKind::from_errno(errno), operation, object: object.into(), errno }
    }

    pub(crate) fn of_kind(kind: ErrorKind, operation: &'static str, object: impl Into<String>) -> Self {
        Self { kind, operation, object: object.into(), errno: 0 }
    }

    /// Data that is not encoded as this program understands it.
    pub fn malformed(operation: &'static str, object: impl Into<String>) -> Self {
        Self::of_kind(ErrorKind::Malformed, operation, object)
    }

    /// Something that was there and has gone, or that a caller looked for in what it read.
    pub fn not_found(operation: &'static str, object: impl Into<String>) -> Self {
        Self::of_kind(ErrorKind::NotFound, operation, object)
    }

    /// Whether the thing itself is missing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}

impl ErrorKind {
    fn from_errno(errno: i32) -> Self {
        use libc_errno::*;
        match errno {
            ENOENT => Self::NotFound,
            EEXIST => Self::AlreadyExists,
            EBUSY => Self::Busy,
            ENOTEMPTY => Self::NotEmpty,
            ENOSPC | EDQUOT => Self::NoSpace,
            EPERM | EACCES => Self::PermissionDenied,
            ETIMEDOUT => Self::TimedOut,
            ESHUTDOWN => Self::Blocklisted,
            EROFS => Self::ReadOnly,
            EINVAL | EDOM | ENAMETOOLONG => Self::InvalidArgument,
            EOPNOTSUPP | ENOSYS => Self::Unsupported,
            ECANCELED | ERESTART => Self::Canceled,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Busy => "in use",
            Self::NotEmpty => "has snapshots or children",
            Self::NoSpace => "no space left, or over quota",
            Self::PermissionDenied => "permission denied",
            Self::TimedOut => "timed out",
            Self::Blocklisted => "this client was blocklisted",
            Self::ReadOnly => "read-only",
            Self::InvalidArgument => "invalid argument",
            Self::Unsupported => "not supported",
            Self::Canceled => "canceled",
            Self::Malformed => "not encoded as expected",
            Self::Other => "failed",
        })
    }
}

/// The errno in brackets, where there is one and the kind alone does not name it.
struct Errno(i32, ErrorKind);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (0, _) => Ok(()),
            (errno, ErrorKind::Other) => write!(f, ": {}", io::Error::from_raw_os_error(errno)),
            (errno, _) => write!(f, " (errno {errno})"),
        }
    }
}

/// Linux's numbers, which Ceph sends over the wire as they are.
mod libc_errno {
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const ENOENT: i32 = 2;
    pub(crate) const EIO: i32 = 5;
    pub(crate) const EACCES: i32 = 13;
    pub(crate) const EBUSY: i32 = 16;
    pub(crate) const EEXIST: i32 = 17;
    pub(crate) const EINVAL: i32 = 22;
    pub(crate) const ENOSPC: i32 = 28;
    pub(crate) const EROFS: i32 = 30;
    pub(crate) const EDOM: i32 = 33;
    pub(crate) const ERANGE: i32 = 34;
    pub(crate) const ENAMETOOLONG: i32 = 36;
    pub(crate) const ENOSYS: i32 = 38;
    pub(crate) const ENOTEMPTY: i32 = 39;
    pub(crate) const ERESTART: i32 = 85;
    pub(crate) const EOPNOTSUPP: i32 = 95;
    pub(crate) const ESHUTDOWN: i32 = 108;
    pub(crate) const ETIMEDOUT: i32 = 110;
    pub(crate) const EDQUOT: i32 = 122;
    pub(crate) const ECANCELED: i32 = 125;
}

pub(crate) use libc_errno::{ECANCELED, ERANGE, ETIMEDOUT};

/// `Ok(code)` unless it is negative.
pub(crate) fn check<C: Into<i64>>(operation: &'static str, object: impl Into<String>, code: C) -> Result<i64> {
    let code = code.into();
    if code < 0 { Err(Error::new(operation, object, code)) } else { Ok(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_operation_object_and_cause() {
        let error = Error::new("open image", "images/a", -2);
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert_eq!(error.to_string(), "cannot open image images/a: not found (errno 2)");
        let error = Error::new("read", "images/a", -5);
        assert_eq!(error.to_string(), "cannot read images/a: failed: Input/output error (os error 5)");
    }

    #[test]
    fn a_count_is_no_error() {
        assert_eq!(check("list", "images", 7).unwrap(), 7);
        assert_eq!(check("list", "images", -122).unwrap_err().kind, ErrorKind::NoSpace);
    }
}
