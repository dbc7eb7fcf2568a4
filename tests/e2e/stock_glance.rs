//! A stock Glance from PyPI uploads, deletes and crashes; the scan tells what it left.

use std::{sync::atomic::Ordering, thread};

use crate::lab::{Glance, MIB, TestPool, Trickle, is_open, kinds, noise, rbd, repository, run, sqlite, until, uuid};

#[test]
fn what_a_stock_glance_leaves_behind_is_told_exactly() {
    let pool = TestPool::new();
    let glance = Glance::up(&pool);
    let image = |id: &str| format!("{}/{id}", pool.0);

    // The demo's schema is the part of Glance's that a scan reads.
    let database = glance.database.strip_prefix("sqlite:///").unwrap().to_owned();
    let ours = tempfile::tempdir().unwrap();
    let path = ours.path().join("schema.sqlite").display().to_string();
    sqlite(&path, &std::fs::read_to_string(repository("docker/glance-schema.sql")).unwrap());
    for table in ["images", "image_locations", "image_properties"] {
        let columns = |path: &str| sqlite(path, &format!("PRAGMA table_info({table})"));
        assert_eq!(columns(&path), columns(&database), "{table}");
    }

    // Uploads and deletions that go well leave a healthy pool.
    let kept = glance.active(&noise(1, 5 * MIB + 1));
    let lost = glance.active(&noise(2, 2 * MIB));
    let short_lived = glance.active(&noise(3, MIB));
    glance.delete(&short_lived);
    glance.create();
    let ran = pool.scan(&glance.database);
    assert_eq!((ran.code, kinds(&ran.json())), (0, vec![]), "{ran:?}");
    let location = format!("rbd://{}/{}/{kept}/snap", ran.json()["fsid"].as_str().unwrap(), pool.0);
    assert_eq!(run(&["image", "get", &location, "--user", "glance"]).ok().stdout, noise(1, 5 * MIB + 1));

    // Glance is killed in mid-upload, and the image is deleted afterwards.
    let killed = glance.create();
    let (trickle, stop) = Trickle::new(4);
    let (url, id) = (glance.url.clone(), killed.clone());
    let client = thread::spawn(move || {
        let body = &mut { trickle };
        let body = ureq::SendBody::from_reader(body);
        let request = ureq::put(format!("{url}/v2/images/{id}/file"));
        request.header("Content-Type", "application/octet-stream").send(body).map(drop)
    });
    until("a partial image", 120, || pool.images().contains(&killed));
    until("a writer", 120, || is_open(&image(&killed)) == Some(true));
    glance.crash();
    stop.store(true, Ordering::Relaxed);
    assert!(client.join().unwrap().is_err(), "its client must notice");
    glance.delete(&killed);

    // An RBD image goes behind Glance's back.
    rbd(&["snap", "unprotect", &image(&format!("{lost}@snap"))]);
    rbd(&["snap", "rm", &image(&format!("{lost}@snap"))]);
    rbd(&["rm", &image(&lost)]);

    // An image of a UUID's name is imported by hand.
    let by_hand = uuid();
    let file = ours.path().join("data");
    std::fs::write(&file, noise(5, MIB)).unwrap();
    rbd(&["import", file.to_str().unwrap(), &image(&by_hand)]);

    // Two equal uploads.
    let twins = [glance.active(&noise(6, 3 * MIB)), glance.active(&noise(6, 3 * MIB))];

    // One upload is still running, while the dead one's watch runs out.
    let running = glance.create();
    let (trickle, stop) = Trickle::new(7);
    thread::scope(|scope| {
        let client = scope.spawn(|| glance.upload(&running, trickle));
        until("a second partial image", 120, || pool.images().contains(&running));
        until("the dead writer to be given up", 120, || is_open(&image(&killed)) == Some(false));
        let ran = pool.scan(&glance.database);
        stop.store(true, Ordering::Relaxed);

        let scan = ran.json();
        let expected =
            [("missing-image", &lost), ("orphan", &by_hand), ("orphan-deleted", &killed), ("in-flight", &running)];
        let found = scan["findings"].as_array().unwrap();
        assert_eq!(found.len(), 5, "{scan:#}");
        for (finding, (kind, id)) in found.iter().zip(expected) {
            assert_eq!((&finding["kind"], &finding["image"]), (&kind.into(), &id.as_str().into()), "{scan:#}");
        }
        assert_eq!(found[4]["kind"], "duplicate");
        assert_eq!(found[4]["evidence"]["copies"], serde_json::json!(twins));
        assert_eq!((ran.code, &scan["complete"]), (3, &true.into()));
        client.join().unwrap().unwrap();
    });
    assert_eq!(glance.show(&running)["status"], "active");
    let left: Vec<String> = kinds(&pool.scan(&glance.database).json()).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(left, ["missing-image", "orphan", "orphan-deleted", "duplicate"]);
}
