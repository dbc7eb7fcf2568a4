//! The truth table of the classifier: facts to begin with here, a file for each thing that is judged.

mod blocks;
mod images;
mod locations;
mod mistakes;
mod oracle;
mod properties;
mod trash;

use rbd::{Features, SnapshotNamespace, TrashSource};
use serde_json::json;

use super::*;
use crate::facts::{
    Broken, Child, Children, Closer, DatabaseFacts, GlanceFacts, GlanceLocation, Lock, ParentFacts, Place,
    SnapshotFacts, Trashed, Usage,
};

const FSID: &str = "9b1c0a54-7f0c-4b52-a8e3-1f6f4a3f1a11";
const A: &str = "11111111-1111-4111-8111-111111111111";
const B: &str = "22222222-2222-4222-8222-222222222222";
const C: &str = "33333333-3333-4333-8333-333333333333";
const HOUR: i64 = 3600;

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn hours_ago(hours: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() - hours * HOUR).unwrap()
}

/// An old image that was looked at closely: no watchers, no clones, no snapshot.
fn image(name: &str) -> RbdImage {
    RbdImage {
        name: name.into(),
        id: format!("id-{name}"),
        size: 100,
        created: Some(hours_ago(100)),
        usage: Some(Usage { head: 50, ..Usage::default() }),
        closer: Some(Closer::default()),
        ..RbdImage::default()
    }
}

fn parent() -> Option<Box<ParentFacts>> {
    Some(Box::new(ParentFacts { pool: 1, namespace: String::new(), id: "p".into(), snapshot: 4, overlap: 100 }))
}

fn whole(name: &str) -> RbdImage {
    RbdImage { snapshots: vec![snap("snap")], ..image(name) }
}

fn snap(name: &str) -> SnapshotFacts {
    SnapshotFacts {
        id: 4,
        name: name.into(),
        size: 100,
        protected: true,
        namespace: SnapshotNamespace::User,
        flags: rbd::Flags::default(),
        taken: Some(hours_ago(99)),
    }
}

fn row(id: &str, status: &str) -> GlanceImage {
    GlanceImage {
        id: id.into(),
        status: status.into(),
        deleted: status == "deleted",
        size: Some(100),
        created: Some(hours_ago(100)),
        updated: Some(hours_ago(90)),
        checksum: Some(format!("md5-{id}")),
        ..GlanceImage::default()
    }
}

fn location(image_id: &str, url: &str) -> GlanceLocation {
    GlanceLocation {
        image_id: image_id.into(),
        database: 0,
        place: Place::Rbd(url.parse().unwrap()),
        status: "active".into(),
        deleted: false,
        store: None,
        updated: Some(hours_ago(90)),
    }
}

/// The location that an image of this pool has.
fn at(id: &str) -> GlanceLocation {
    location(id, &format!("rbd://{FSID}/images/{id}/snap"))
}

fn facts(images: Vec<RbdImage>, rows: Vec<GlanceImage>, locations: Vec<GlanceLocation>) -> Facts {
    Facts {
        fsid: FSID.into(),
        pools: vec![PoolFacts { name: "images".into(), images, ..PoolFacts::default() }],
        glance: GlanceFacts {
            images: rows.into_iter().map(|row| (row.id.clone(), row)).collect(),
            locations,
            databases: vec![DatabaseFacts { newest: Some(now()), ..DatabaseFacts::default() }],
        },
    }
}

fn kinds(facts: &Facts) -> Vec<&'static str> {
    classify(facts, &Policy::default(), now()).iter().map(|finding| finding.kind.name()).collect()
}
