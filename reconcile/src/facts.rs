//! What was read: the pool's images and Glance's rows. Plain data, no opinion.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use rbd::{LinkedImage, SnapshotNamespace};
use store::{Location, UploadMark};

/// Everything a scan read.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The cluster.
    pub fsid: String,
    /// The pool that was read.
    pub pool: String,
    /// The pool's images, in the order of its directory.
    pub images: Vec<RbdImage>,
    /// What is in the pool's trash, by the name it had; the latest where several had one name.
    pub trash: HashMap<String, Trashed>,
    /// Names of images that could not be read: what is not known of them is not missing.
    pub unread: HashSet<String>,
    /// Names of images whose removal is under way.
    pub going: HashSet<String>,
    /// Names that the pool's directory has without an image behind them, with the id it gives.
    pub broken: Vec<(String, String)>,
    /// Glance's side.
    pub glance: GlanceFacts,
}

/// An image in the pool, out of the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RbdImage {
    /// The name.
    pub name: String,
    /// The RBD id.
    pub id: String,
    /// Bytes of the head.
    pub size: u64,
    /// When it was created; unknown for images older than Ceph 13.
    pub created: Option<Timestamp>,
    /// When it was last written to.
    pub modified: Option<Timestamp>,
    /// Its snapshots.
    pub snapshots: Vec<SnapshotFacts>,
    /// Whether it is a clone that was not flattened.
    pub has_parent: bool,
    /// The mark of an upload that was not finished.
    pub mark: Option<UploadMark>,
    /// What was looked at for suspects alone.
    pub closer: Option<Closer>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// Its name.
    pub name: String,
    /// Bytes of the image when it was taken.
    pub size: u64,
    /// Whether it is protected.
    pub protected: bool,
    /// What made it.
    pub namespace: SnapshotNamespace,
}

/// A closer look at a suspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closer {
    /// The clients that have it open for writing.
    pub watchers: Vec<String>,
    /// Its clones; `None` where a pool may not be read, so that they are unknown.
    pub children: Option<Vec<LinkedImage>>,
    /// Bytes of the objects that exist.
    pub used: u64,
}

/// An image in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// The RBD id.
    pub id: String,
    /// When it was put there.
    pub deleted: Timestamp,
    /// Until when it is kept.
    pub deferred_until: Timestamp,
}

/// Glance's side: rows by image id, and locations.
#[derive(Debug, Clone, Default)]
pub struct GlanceFacts {
    /// Rows that are not deleted, and deleted ones whose id names an image of the pool.
    pub images: HashMap<String, GlanceImage>,
    /// Locations that are not deleted, and deleted ones that name an image of the pool.
    pub locations: Vec<GlanceLocation>,
}

/// A row of `images`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlanceImage {
    /// The image id.
    pub id: String,
    /// `active`, `queued`, `saving`, ….
    pub status: String,
    /// Whether the row is marked as deleted.
    pub deleted: bool,
    /// Bytes; unknown until the data is there.
    pub size: Option<u64>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When it last changed.
    pub updated: Option<Timestamp>,
    /// The md5 of its data.
    pub checksum: Option<String>,
    /// Algorithm and value of its multihash.
    pub multihash: Option<(String, String)>,
    /// Whether a copy to another store, or an import, is marked as in progress (`os_glance_importing_to_stores`).
    pub importing: bool,
}

impl GlanceImage {
    /// The row is there and not deleted, and its status is one of these.
    #[must_use]
    pub fn is(&self, statuses: &[&str]) -> bool {
        !self.deleted && statuses.contains(&self.status.as_str())
    }
}

/// A row of `image_locations`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlanceLocation {
    /// The image it belongs to.
    pub image_id: String,
    /// Where that is.
    pub place: Place,
    /// `active`, `pending_delete`, `deleted`, ….
    pub status: String,
    /// Whether the row is marked as deleted.
    pub deleted: bool,
}

/// What a location says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An RBD image.
    Rbd(Location),
    /// In another kind of store: `file://…`, `swift+https://…`.
    Elsewhere,
    /// Neither: encrypted, or damaged. What it names cannot be known.
    Unreadable,
}
