//! The closest look, just before a step that reclaims.

use std::time::Duration;

use jiff::Timestamp;
use rbd::OpenOptions;
use reconcile::{Block, Kind, Policy, classify, examine};

use crate::lab::{Lab, uuid, wait};

/// It must find what a scan finds, wherever the image is by now, and nothing about another that took its name.
#[test]
fn an_image_is_examined_wherever_it_is() {
    let lab = Lab::new();
    let [orphan, busy, trashed, owned, gone] = std::array::from_fn(|_| uuid());
    for name in [&orphan, &busy, &trashed, &owned, &gone] {
        lab.create(name, &[]);
    }
    lab.snapshot(&owned, "snap");
    let wanted: Vec<(String, String)> =
        [&orphan, &busy, &trashed, &owned, &gone].map(|name| (name.clone(), lab.id_of(name))).to_vec();
    crate::lab::sh("rbd", &["trash", "mv", &lab.at(&trashed)]);
    crate::lab::sh("rbd", &["rm", "--no-progress", &lab.at(&gone)]);
    wait(async {
        let sources = lab.sources(Some("scan")).await;
        let admin = lab.sources(None).await;
        lab.active(admin.pools[0].cluster().fsid(), &owned);
        lab.row(&orphan, "deleted");
        let writer = admin.pools[0].open_image(&busy, OpenOptions::default()).await.unwrap();
        let (facts, problems) = examine(&sources, &sources.pools[0], &wanted).await.unwrap();
        assert_eq!(problems, []);
        assert_eq!((facts.pools[0].images.len(), facts.pools[0].trash.len()), (3, 1));
        let policy = Policy { grace: Duration::ZERO, allow_stale: true, ..Policy::default() };
        let findings = classify(&facts, &policy, Timestamp::now());
        let kind = |name: &str| {
            let found = findings.iter().find(|finding| finding.image.as_deref() == Some(name));
            found.map(|finding| (finding.kind, finding.blocked_by.clone()))
        };
        assert_eq!(kind(&orphan), Some((Kind::OrphanDeleted, vec![])));
        assert_eq!(kind(&busy).unwrap().0, Kind::InFlight);
        assert_eq!(kind(&trashed), Some((Kind::TrashExpired, vec![])));
        assert_eq!(kind(&owned), None);
        writer.close().await.unwrap();

        // Another image of the same name is another image.
        let reused = vec![(orphan.clone(), "0123456789ab".to_owned())];
        let (facts, _) = examine(&sources, &sources.pools[0], &reused).await.unwrap();
        assert!(facts.pools[0].images.iter().all(|image| image.closer.is_none()), "{facts:#?}");
        let findings = classify(&facts, &policy, Timestamp::now());
        assert!(findings.iter().all(|finding| finding.kind == Kind::InFlight), "{findings:#?}");
    });
}

/// A database that has gone quiet since the image was made says nothing about it.
#[test]
fn what_the_databases_know_is_examined_too() {
    let lab = Lab::new();
    let id = uuid();
    lab.create(&id, &[]);
    let wanted = [(id.clone(), lab.id_of(&id))];
    wait(async {
        let sources = lab.sources(Some("scan")).await;
        let blocks = async || {
            let (facts, _) = examine(&sources, &sources.pools[0], &wanted).await.unwrap();
            let policy = Policy { grace: Duration::ZERO, ..Policy::default() };
            classify(&facts, &policy, Timestamp::now())[0].blocked_by.clone()
        };
        assert_eq!(blocks().await, [Block::Stale], "an empty database");
        lab.row(&uuid(), "queued");
        assert_eq!(blocks().await, []);
        lab.sql("UPDATE images SET created_at = datetime('now', '-1 hour'), updated_at = datetime('now', '-1 hour')");
        assert_eq!(blocks().await, [Block::Stale]);
    });
}
