//! What an image belongs to, as Ceph writes it down.

use rbd::{OpenOptions, silent};
use reconcile::{Block, Kind};

use crate::lab::{Lab, sh, the, uuid, wait};

#[test]
fn groups_migrations_mirrors_locks_and_snapshots_block() {
    let lab = Lab::new();
    let [grouped, migrating, mirrored, locked, backed_up] = std::array::from_fn(|_| uuid());
    for name in [&grouped, &migrating, &locked, &backed_up] {
        lab.create(name, &[]);
    }
    sh("rbd", &["group", "create", &lab.at("group")]);
    sh("rbd", &["group", "image", "add", &lab.at("group"), &lab.at(&grouped)]);
    sh("rbd", &["migration", "prepare", &lab.at(&migrating), &lab.at(&migrating)]);
    sh("rbd", &["lock", "add", &lab.at(&locked), "hands-off"]);
    lab.snapshot(&backed_up, "backup");
    lab.create(&mirrored, &["--image-feature", "exclusive-lock,journaling"]);
    sh("rbd", &["mirror", "pool", "enable", "images", "image"]);
    let namespace = format!("images/{}", lab.namespace);
    sh("rbd", &["mirror", "pool", "enable", &namespace, "image"]);
    sh("rbd", &["mirror", "image", "enable", &lab.at(&mirrored), "journal"]);
    wait(async {
        let scan = lab.scan(Some("scan")).await;
        assert!(scan.complete, "{:#?}", scan.problems);
        for (name, block) in [
            (&grouped, Block::Group),
            (&migrating, Block::Migration),
            (&mirrored, Block::Mirror),
            (&locked, Block::Lock),
            (&backed_up, Block::Snapshots),
        ] {
            assert!(the(&scan, Kind::Orphan, name).blocked_by.contains(&block), "{block}: {scan:#?}");
        }
        assert_eq!(scan.summary.reclaimable_bytes, 0);
    });
}

/// A writer that is at work has the image open: in flight, whatever else is true of it.
#[test]
fn what_somebody_has_open_is_in_flight() {
    let lab = Lab::new();
    let id = uuid();
    lab.create(&id, &[]);
    wait(async {
        let sources = lab.sources(None).await;
        let image = sources.pools[0].open_image(&id, OpenOptions::default()).await.unwrap();
        image.write(0, vec![1; 1 << 20].into()).await.unwrap();
        let scan = lab.scan(Some("scan")).await;
        let finding = the(&scan, Kind::InFlight, &id);
        assert_eq!(finding.evidence["watchers"].as_array().unwrap().len(), 1, "{finding:#?}");
        image.close().await.unwrap();
        let scan = lab.scan(Some("scan")).await;
        assert_eq!(the(&scan, Kind::Orphan, &id).blocked_by, []);
        // What is being removed is nobody's to remove.
        sources.pools[0].trash_move(&id, std::time::Duration::ZERO).await.unwrap();
        let scan = lab.scan(Some("scan")).await;
        assert_eq!(the(&scan, Kind::TrashExpired, &id).blocked_by, []);
        let trashed = sources.pools[0].trash_list().await.unwrap();
        sources.pools[0].trash_remove(&trashed[0].id, false, silent()).await.unwrap();
        assert_eq!(lab.scan(Some("scan")).await.findings, []);
    });
}
