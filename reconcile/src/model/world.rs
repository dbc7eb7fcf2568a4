//! A pool, a database and a Glance that works on them, as far as it matters who needs which bytes. Every image remembers
//! what no scan can see: whose bytes it truly holds.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rbd::{SnapshotNamespace, TrashSource};

use crate::facts::{
    Child, Children, Closer, DatabaseFacts, Facts, GlanceFacts, GlanceImage, GlanceLocation, ParentFacts, Place,
    PoolFacts, RbdImage, SnapshotFacts, Trashed, Usage,
};

pub(super) const FSID: &str = "9b1c0a54-7f0c-4b52-a8e3-1f6f4a3f1a11";
/// How many Glance images there may be.
pub(super) const NAMES: usize = 5;
const SIZE: u64 = 4096;
/// After what time a service that had nothing open has given up. The grace is what tells slow from dead.
const PATIENCE: i64 = 20 * 60;

/// An id of Glance's.
pub(super) fn name(n: usize) -> String {
    format!("11111111-1111-4111-8111-{n:012}")
}

/// An RBD image.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) name: usize,
    created: i64,
    snapped: Option<i64>,
    parent: Option<u64>,
    /// Whether it is in the pool's directory.
    pub(super) in_place: bool,
    pub(super) trash: Option<Entry>,
}

/// An entry of the trash. An image may be there and in its place, while a move is half done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) since: i64,
    pub(super) until: i64,
}

/// Somebody who makes an image: a Glance that uploads, or a server's snapshot.
#[derive(Debug, Clone)]
struct Upload {
    disk: u64,
    /// Whether it has the image open; a server's snapshot does not.
    open: bool,
    written: bool,
    last: i64,
}

#[derive(Debug, Clone, Default)]
struct Row {
    status: &'static str,
    created: i64,
    updated: i64,
}

#[derive(Debug, Clone)]
struct Named {
    owner: usize,
    image: usize,
    /// The RBD image that was meant.
    disk: u64,
    deleted: bool,
    updated: i64,
}

/// The database.
#[derive(Debug, Clone, Default)]
struct Tables {
    rows: BTreeMap<usize, Row>,
    locations: Vec<Named>,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct World {
    /// True seconds.
    pub(super) now: i64,
    /// How far the cluster's, the database's and the reclaimer's clocks are off.
    pub(super) skew: [i64; 3],
    /// How far the database that the reclaimer reads is behind.
    pub(super) lag: i64,
    pub(super) disks: BTreeMap<u64, Disk>,
    tables: Tables,
    history: Vec<(i64, Tables)>,
    backup: Option<Tables>,
    uploads: BTreeMap<usize, Upload>,
    /// Servers, by the image they were cloned from.
    servers: Vec<u64>,
    next: u64,
}

impl World {
    pub(super) fn new(skew: [i64; 3], lag: i64) -> Self {
        Self { now: 1_800_000_000, skew, lag, ..Self::default() }
    }

    fn cluster(&self) -> i64 {
        self.now + self.skew[0]
    }

    fn database(&self) -> i64 {
        self.now + self.skew[1]
    }

    /// What the reclaimer's clock says.
    pub(super) fn ours(&self) -> Timestamp {
        time(self.now + self.skew[2])
    }

    pub(super) fn in_place(&self, name: usize) -> Option<u64> {
        self.disks.iter().find(|(_, disk)| disk.in_place && disk.name == name).map(|(id, _)| *id)
    }

    pub(super) fn has_children(&self, id: u64) -> bool {
        self.servers.contains(&id) || self.disks.values().any(|disk| disk.parent == Some(id))
    }

    pub(super) fn is_open(&self, id: u64) -> bool {
        self.uploads.values().any(|upload| upload.disk == id && upload.open)
    }

    /// Who needs an image's bytes, in truth.
    pub(super) fn needed(&self, id: u64) -> Option<&'static str> {
        let alive = |named: &&Named| !named.deleted && self.tables.rows.get(&named.owner).is_some_and(Row::is_live);
        if self.has_children(id) {
            Some("a clone")
        } else if self.uploads.values().any(|upload| upload.disk == id && self.now - upload.last <= PATIENCE) {
            Some("an upload")
        } else if self.tables.locations.iter().filter(alive).any(|named| named.disk == id) {
            Some("a location")
        } else {
            None
        }
    }

    /// After every change of the database.
    fn wrote(&mut self) {
        if self.lag > 0 {
            self.history.push((self.now, self.tables.clone()));
        }
    }

    pub(super) fn wait(&mut self, seconds: i64) {
        self.now += seconds;
        // A service that has nothing open gives up; one that has goes on as long as it likes.
        let now = self.now;
        for upload in self.uploads.values_mut().filter(|upload| upload.open) {
            upload.last = now;
        }
        self.uploads.retain(|_, upload| upload.open || now - upload.last <= PATIENCE);
    }

    // What Glance and the admin do. What is not possible does nothing.

    pub(super) fn create(&mut self, name: usize) {
        if !self.tables.rows.contains_key(&name) {
            let at = self.database();
            self.tables.rows.insert(name, Row { status: "queued", created: at, updated: at });
            self.wrote();
        }
    }

    /// A Glance begins an upload, or Nova a server's snapshot, which has nothing open meanwhile.
    pub(super) fn upload(&mut self, name: usize, snapshot_of: Option<usize>) {
        let queued = self.tables.rows.get(&name).is_some_and(|row| row.status == "queued");
        if !queued || self.uploads.contains_key(&name) || self.in_place(name).is_some() {
            return;
        }
        let parent = match snapshot_of {
            None => None,
            Some(parent) => match self.bootable(parent) {
                Some(parent) => Some(parent),
                None => return,
            },
        };
        if parent.is_none() {
            self.set(name, "saving");
        }
        self.next += 1;
        let disk = Disk { name, created: self.cluster(), snapped: None, parent, in_place: true, trash: None };
        self.disks.insert(self.next, disk);
        self.uploads.insert(name, Upload { disk: self.next, open: parent.is_none(), written: false, last: self.now });
    }

    /// All data is there; the snapshot is taken and the image closed.
    pub(super) fn finish(&mut self, name: usize) {
        let (now, cluster) = (self.now, self.cluster());
        let Some(upload) = self.uploads.get_mut(&name).filter(|upload| !upload.written) else { return };
        let disk = self.disks.get_mut(&upload.disk).expect("what is uploaded is there");
        (disk.snapped, disk.parent) = (Some(cluster), None);
        (upload.open, upload.written, upload.last) = (false, true, now);
    }

    /// Glance writes the location, unless the image was deleted meanwhile: then it removes the data.
    pub(super) fn register(&mut self, name: usize) {
        if !self.uploads.get(&name).is_some_and(|upload| upload.written) {
            return;
        }
        let upload = self.uploads.remove(&name).expect("it was just there");
        if self.tables.rows.get(&name).is_some_and(|row| matches!(row.status, "queued" | "saving")) {
            self.locate(name, name, upload.disk);
        } else {
            self.remove(upload.disk);
        }
    }

    fn locate(&mut self, owner: usize, image: usize, disk: u64) {
        let updated = self.database();
        self.tables.locations.push(Named { owner, image, disk, deleted: false, updated });
        self.set(owner, "active");
    }

    fn set(&mut self, name: usize, status: &'static str) {
        let updated = self.database();
        if let Some(row) = self.tables.rows.get_mut(&name) {
            (row.status, row.updated) = (status, updated);
        }
        self.wrote();
    }

    /// The Glance that uploads is killed.
    pub(super) fn die(&mut self, name: usize) {
        self.uploads.remove(&name);
    }

    pub(super) fn delete(&mut self, name: usize) {
        if !self.tables.rows.get(&name).is_some_and(Row::is_live) {
            return;
        }
        let mine = |named: &&mut Named| named.owner == name && !named.deleted;
        let ids: Vec<(u64, usize)> =
            self.tables.locations.iter_mut().filter(mine).map(|it| (it.disk, it.image)).collect();
        let shared = |id: u64| {
            let mut named = self.tables.locations.iter();
            named.any(|named| named.disk == id && named.owner != name && !named.deleted)
        };
        // What servers were cloned from stays (clones of the first kind).
        if ids.iter().any(|(id, _)| self.has_children(*id)) {
            return;
        }
        let own: Vec<u64> = ids.iter().map(|(id, _)| *id).filter(|id| !shared(*id)).collect();
        for id in own {
            if self.disks.get(&id).is_some_and(|disk| disk.in_place) {
                self.remove(id);
            }
        }
        let at = self.database();
        for named in self.tables.locations.iter_mut().filter(|named| named.owner == name) {
            (named.deleted, named.updated) = (true, at);
        }
        self.set(name, "deleted");
    }

    fn remove(&mut self, id: u64) {
        if !self.has_children(id) && self.disks.get(&id).is_some_and(|disk| disk.in_place && disk.trash.is_none()) {
            self.disks.remove(&id);
        }
    }

    /// `glance-manage db purge`, for images too: the id may be used again.
    pub(super) fn purge_row(&mut self, name: usize) {
        if self.tables.rows.get(&name).is_some_and(|row| !row.is_live()) {
            self.tables.rows.remove(&name);
            self.tables.locations.retain(|named| named.owner != name);
            self.wrote();
        }
    }

    fn bootable(&self, name: usize) -> Option<u64> {
        let row = self.tables.rows.get(&name)?;
        let named = self.tables.locations.iter().find(|named| named.owner == name && !named.deleted)?;
        let id = self.in_place(named.image)?;
        (row.status == "active" && self.disks[&id].snapped.is_some()).then_some(id)
    }

    pub(super) fn boot(&mut self, name: usize) {
        self.servers.extend(self.bootable(name));
    }

    /// A clone in spite of what Glance says: by hand, of whatever has a snapshot and is in its place.
    pub(super) fn clone_by_hand(&mut self, name: usize) {
        let id = self.in_place(name).filter(|id| self.disks[id].snapped.is_some());
        self.servers.extend(id);
    }

    /// A server goes, or is flattened.
    pub(super) fn end_server(&mut self) {
        self.servers.pop();
    }

    /// The snapshot goes, as when an image is deleted while somebody has it open.
    pub(super) fn lose_snapshot(&mut self, name: usize) {
        if let Some(id) = self.in_place(name).filter(|id| !self.has_children(*id)) {
            self.disks.get_mut(&id).expect("it was just found").snapped = None;
        }
    }

    /// Somebody registers an image that is there under an id that waits for data.
    pub(super) fn adopt(&mut self, owner: usize, image: usize) {
        let queued = self.tables.rows.get(&owner).is_some_and(|row| row.status == "queued");
        let id = self.in_place(image).filter(|id| self.disks[id].snapped.is_some());
        // A replica that lags cannot know of it, and nothing tells: see docs/safety.md.
        if let Some(id) = id.filter(|_| queued && !self.uploads.contains_key(&owner) && self.lag == 0) {
            self.locate(owner, image, id);
        }
    }

    pub(super) fn back_up(&mut self) {
        self.backup = Some(self.tables.clone());
    }

    pub(super) fn restore_backup(&mut self) {
        if let Some(backup) = self.backup.clone().filter(|_| self.lag == 0) {
            self.tables = backup;
            self.wrote();
        }
    }

    /// Somebody else moves an image to the trash, or out of it.
    pub(super) fn trash_by_hand(&mut self, name: usize, keep: i64) {
        let at = self.cluster();
        if let Some(id) = self.in_place(name).filter(|id| self.needed(*id).is_none()) {
            let disk = self.disks.get_mut(&id).expect("it was just found");
            if disk.trash.is_none() {
                (disk.in_place, disk.trash) = (false, Some(Entry { since: at, until: at + keep }));
            }
        }
    }

    pub(super) fn restore(&mut self, id: u64) -> bool {
        let Some(name) = self.disks.get(&id).map(|disk| disk.name) else { return false };
        match self.in_place(name) {
            Some(other) if other != id => false,
            _ => {
                let disk = self.disks.get_mut(&id).expect("it was just found");
                (disk.in_place, disk.trash) = (true, None);
                true
            }
        }
    }

    // What librbd does for the reclaimer: each a write of its own, between which anything may happen.

    /// The first half of a move: the trash has an entry, and the image is still in its place.
    pub(super) fn enter_trash(&mut self, id: u64, keep: i64) {
        let at = self.cluster();
        if let Some(disk) = self.disks.get_mut(&id) {
            disk.trash = Some(Entry { since: at, until: at + keep });
        }
    }

    /// The second half.
    pub(super) fn leave_place(&mut self, id: u64) {
        if let Some(disk) = self.disks.get_mut(&id) {
            disk.in_place = false;
        }
    }

    pub(super) fn purge(&mut self, id: u64) {
        self.disks.remove(&id);
    }

    pub(super) fn snap(&mut self, id: u64) {
        let at = self.cluster();
        if let Some(disk) = self.disks.get_mut(&id) {
            disk.snapped.get_or_insert(at);
        }
    }

    // What can be read.

    /// The pool's side: all of it, or only these.
    pub(super) fn pool(&self, only: Option<u64>) -> PoolFacts {
        let disks = || self.disks.iter().filter(move |(id, _)| only.is_none_or(|only| only == **id));
        PoolFacts {
            name: "images".into(),
            id: 2,
            images: disks().filter(|(_, disk)| disk.in_place).map(|(id, disk)| self.image(*id, disk)).collect(),
            trash: disks()
                .filter_map(|(id, disk)| {
                    let entry = disk.trash?;
                    Some(Trashed {
                        id: id.to_string(),
                        name: name(disk.name),
                        source: TrashSource::User,
                        deleted: time(entry.since),
                        deferred_until: time(entry.until),
                        image: Some(Box::new(self.image(*id, disk))),
                    })
                })
                .collect(),
            ..PoolFacts::default()
        }
    }

    fn image(&self, id: u64, disk: &Disk) -> RbdImage {
        let snapshot = |taken| SnapshotFacts {
            id: 1,
            name: store::SNAPSHOT.into(),
            size: SIZE,
            protected: true,
            namespace: SnapshotNamespace::User,
            flags: rbd::Flags::default(),
            taken: Some(time(taken)),
        };
        let child = Child { pool: 3, namespace: String::new(), id: "c".into(), path: Some("vms/server".into()) };
        let children = if self.has_children(id) { vec![child] } else { Vec::new() };
        let parent = ParentFacts { pool: 2, namespace: String::new(), id: "p".into(), snapshot: 1, overlap: SIZE };
        RbdImage {
            name: name(disk.name),
            id: id.to_string(),
            size: SIZE,
            created: Some(time(disk.created)),
            snapshots: disk.snapped.map(snapshot).into_iter().collect(),
            parent: disk.parent.map(|_| Box::new(parent)),
            children: Children { count: children.len() as u64, unknown: false, some: children },
            usage: Some(Usage { head: SIZE, ..Usage::default() }),
            closer: Some(Closer {
                watchers: self.is_open(id).then(|| "client.7".to_owned()).into_iter().collect(),
                ..Closer::default()
            }),
            ..RbdImage::default()
        }
    }

    /// The database's side, as the replica has it that is asked.
    pub(super) fn glance(&self) -> GlanceFacts {
        let horizon = self.now - self.lag;
        let empty = Tables::default();
        let tables = match self.lag {
            0 => &self.tables,
            _ => self.history.iter().rfind(|(at, _)| *at <= horizon).map_or(&empty, |(_, tables)| tables),
        };
        let present: BTreeSet<usize> = self.disks.values().map(|disk| disk.name).collect();
        let locations: Vec<GlanceLocation> = tables
            .locations
            .iter()
            .filter(|named| !named.deleted || present.contains(&named.image))
            .map(|named| GlanceLocation {
                image_id: name(named.owner),
                database: 0,
                place: Place::Rbd(
                    format!("rbd://{FSID}/images/{}/snap", name(named.image)).parse().expect("a location"),
                ),
                status: if named.deleted { "deleted" } else { "active" }.into(),
                deleted: named.deleted,
                store: None,
                updated: Some(time(named.updated)),
            })
            .collect();
        let newest = tables.rows.values().map(|row| row.updated).max();
        let images = tables.rows.iter().map(|(id, row)| (name(*id), row.facts(*id))).collect();
        let database = DatabaseFacts {
            name: "glance".into(),
            images: tables.rows.values().filter(|row| row.is_live()).count() as u64,
            deleted: tables.rows.values().filter(|row| !row.is_live()).count() as u64,
            locations: locations.iter().filter(|location| !location.deleted).count() as u64,
            newest: newest.map(time),
        };
        GlanceFacts { databases: vec![database], images, locations }
    }

    pub(super) fn facts(&self, pool: PoolFacts, glance: GlanceFacts) -> Facts {
        Facts { fsid: FSID.into(), pools: vec![pool], glance }
    }
}

impl Row {
    fn is_live(&self) -> bool {
        self.status != "deleted"
    }

    fn facts(&self, id: usize) -> GlanceImage {
        GlanceImage {
            id: name(id),
            status: self.status.into(),
            deleted: !self.is_live(),
            size: (self.status == "active").then_some(SIZE),
            created: Some(time(self.created)),
            updated: Some(time(self.updated)),
            deleted_at: (!self.is_live()).then(|| time(self.updated)),
            ..GlanceImage::default()
        }
    }
}

pub(super) fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}
