//! What was read: the pools' images and Glance's rows. Plain data, no opinion.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use rbd::{Features, Flags, SnapshotNamespace, TrashSource};
use serde::{Deserialize, Serialize};
use store::{Location, UploadMark};

/// Everything a scan read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The cluster.
    pub fsid: String,
    /// The pools that were read, each with one of its namespaces.
    pub pools: Vec<PoolFacts>,
    /// Glance's side.
    pub glance: GlanceFacts,
}

/// A pool, or one namespace of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PoolFacts {
    /// The pool's name.
    pub name: String,
    /// The namespace; empty for the default one.
    pub namespace: String,
    /// The pool's number.
    pub id: i64,
    /// Its images, by name.
    pub images: Vec<RbdImage>,
    /// What is in its trash.
    pub trash: Vec<Trashed>,
    /// Names of images that could not be read: what is not known of them is not missing.
    pub unread: HashSet<String>,
    /// Names of images that changed between two looks, or whose removal is under way.
    pub going: HashSet<String>,
    /// What has only one of a name and a header.
    pub broken: Vec<Broken>,
}

impl Facts {
    /// How many locations that are not deleted name a pool of this cluster.
    pub(crate) fn locations_in(&self, pool: &PoolFacts) -> u64 {
        let names = |place: &Place| match place {
            Place::Rbd(Location::Full { fsid, pool: name, .. }) => *fsid == self.fsid && *name == pool.name,
            Place::Rbd(Location::Legacy { .. }) => true,
            Place::Elsewhere | Place::Unreadable => false,
        };
        let locations = self.glance.locations.iter();
        locations.filter(|location| !location.deleted && names(&location.place)).count() as u64
    }
}

impl PoolFacts {
    /// `pool`, or `pool/namespace`.
    #[must_use]
    pub fn path(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.name, self.namespace) }
    }
}

/// An image, in the pool or in its trash.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RbdImage {
    /// The name; for an image in the trash, the one it had.
    pub name: String,
    /// The RBD id.
    pub id: String,
    /// Bytes of the head.
    pub size: u64,
    /// An object has 2^order bytes.
    pub order: u8,
    /// Its features.
    pub features: Features,
    /// What is wrong with the head's object map.
    pub flags: Flags,
    /// Operations that left marks, as bits: 1 parent of v2 clones, 2 v2 clone, 4 group, 8 snapshots in their trash.
    pub op_features: u64,
    /// When it was created; unknown for images older than Ceph 13.
    pub created: Option<Timestamp>,
    /// When it was last written to.
    pub modified: Option<Timestamp>,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<SnapshotFacts>,
    /// The parent, if it is a clone that was not flattened.
    pub parent: Option<Box<ParentFacts>>,
    /// The pool of its data, where that is another.
    pub data_pool: Option<i64>,
    /// The group it belongs to, by id.
    pub group: Option<String>,
    /// Whether it is the source or the target of a migration.
    pub migrating: bool,
    /// Whether it is mirrored.
    pub mirrored: bool,
    /// The mark of an upload that was not finished.
    pub mark: Option<Box<UploadMark>>,
    /// Its clones.
    pub children: Children,
    /// Bytes of the objects that exist, where that was asked for.
    pub usage: Option<Usage>,
    /// What could not be found out.
    pub unknown: Vec<&'static str>,
    /// What was looked at for suspects alone.
    pub closer: Option<Closer>,
}

impl RbdImage {
    /// Whether it is a clone that was not flattened.
    #[must_use]
    pub fn has_parent(&self) -> bool {
        self.parent.is_some()
    }
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// Its id, unique in the pool.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Bytes of the image when it was taken.
    pub size: u64,
    /// Whether it is protected, or only about to be unprotected: v1 clones may be there.
    pub protected: bool,
    /// What made it.
    pub namespace: SnapshotNamespace,
    /// What is wrong with its object map.
    pub flags: Flags,
    /// When it was taken.
    pub taken: Option<Timestamp>,
}

/// What a clone still takes data from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentFacts {
    /// The number of its pool.
    pub pool: i64,
    /// Its namespace; empty for the default one.
    pub namespace: String,
    /// Its id.
    pub id: String,
    /// The id of the snapshot.
    pub snapshot: u64,
    /// Bytes that may still come from it.
    pub overlap: u64,
}

/// The clones of an image's snapshots, v1 and v2, in and out of the trash.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Children {
    /// How many are known.
    pub count: u64,
    /// Whether there may be others, in pools that cannot be read. Unknown is not none.
    pub unknown: bool,
    /// Some of them.
    pub some: Vec<Child>,
}

/// A clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Child {
    /// The number of its pool.
    pub pool: i64,
    /// Its namespace; empty for the default one.
    pub namespace: String,
    /// Its id.
    pub id: String,
    /// `pool/name`, where that was looked up; `(id …)` stands for a name that the pool does not have, as in the trash.
    pub path: Option<String>,
}

/// What an image takes up, as `rbd du` counts it: whole objects of its own, not those of its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of the objects that its head has and its latest snapshot has not.
    pub head: u64,
    /// Bytes of the objects that its snapshots have, each less what the one before it has.
    pub snapshots: u64,
    /// Whether the object map was missing or not to be believed, so that every object was asked for.
    pub counted: bool,
}

impl Usage {
    /// All of it.
    #[must_use]
    pub fn total(self) -> u64 {
        self.head.saturating_add(self.snapshots)
    }
}

/// A closer look at a suspect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Closer {
    /// The clients that have it open for writing.
    pub watchers: Vec<String>,
    /// Who holds a lock on it, alive or dead.
    pub locks: Vec<Lock>,
}

/// A lock on an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// `client.4242`.
    pub client: String,
    /// Whether librbd took it for a writer, and lets go of it with the writer's watch; otherwise somebody asked for it
    /// (`rbd lock add`) and it stays until it is removed.
    pub automatic: bool,
}

/// An image in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// The RBD id.
    pub id: String,
    /// The name it had.
    pub name: String,
    /// Who put it there.
    pub source: TrashSource,
    /// When.
    pub deleted: Timestamp,
    /// Until when it is kept.
    pub deferred_until: Timestamp,
    /// The image itself; nothing where its header could not be read.
    pub image: Option<Box<RbdImage>>,
}

/// What has only one of a name and a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The name, if there is one.
    pub name: Option<String>,
    /// The id.
    pub id: String,
    /// What is missing: the name of an object or of a key of the directory.
    pub missing: String,
}

/// Glance's side: rows by image id, and locations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GlanceFacts {
    /// The databases, in the order they were given.
    pub databases: Vec<DatabaseFacts>,
    /// Rows that are not deleted, and deleted ones whose id names an image of a pool. Where several databases have an id,
    /// the row that is not deleted.
    pub images: HashMap<String, GlanceImage>,
    /// Locations that are not deleted, and deleted ones that name an image of a pool.
    pub locations: Vec<GlanceLocation>,
}

/// What a database knows at all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// Its name, without a secret.
    pub name: String,
    /// Images that are not deleted.
    pub images: u64,
    /// Images that are.
    pub deleted: u64,
    /// Locations that are not deleted, in the pools that were read, of this cluster.
    pub locations: u64,
    /// The latest time that any row has.
    pub newest: Option<Timestamp>,
}

/// A row of `images`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GlanceImage {
    /// The image id.
    pub id: String,
    /// The database it is from, by its place in [`GlanceFacts::databases`].
    pub database: usize,
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
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// `raw`, `qcow2`, ….
    pub disk_format: Option<String>,
    /// The project it belongs to.
    pub owner: Option<String>,
    /// `public`, `private`, `shared`, `community`; older releases have a flag instead.
    pub visibility: Option<String>,
    /// Whether Glance refuses to delete it.
    pub protected: bool,
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
    /// The database it is from, by its place in [`GlanceFacts::databases`].
    pub database: usize,
    /// Where that is.
    pub place: Place,
    /// `active`, `pending_delete`, `deleted`, ….
    pub status: String,
    /// Whether the row is marked as deleted.
    pub deleted: bool,
    /// The name of the backend, from its metadata.
    pub store: Option<String>,
    /// When it last changed.
    pub updated: Option<Timestamp>,
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
