//! What a stock Glance leaves behind, state by state, on each database it supports: the scan tells all of it, and no more.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    sync::atomic::Ordering,
    thread,
};

use serde_json::Value;

use crate::lab::{Glance, GlanceDatabase, MIB, TestPool, Trickle, is_open, noise, rbd, run, until};

#[test]
fn on_sqlite() {
    every_state(&GlanceDatabase::sqlite(), true);
}

#[test]
fn on_mariadb() {
    every_state(&GlanceDatabase::mariadb(), false);
}

#[test]
fn on_postgresql() {
    every_state(&GlanceDatabase::postgresql(), true);
}

/// A kind, the pool and the image it is found at.
type Found = BTreeSet<(String, String, String)>;

fn found(scan: &Value) -> Found {
    let findings = scan["findings"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    findings.map(|finding| (text(&finding["kind"]), text(&finding["pool"]), text(&finding["image"]))).collect()
}

/// A Glance with two stores, `ceph` and `ceph2`.
struct Lab<'a> {
    glance: Glance,
    database: &'a GlanceDatabase,
    pools: [TestPool; 2],
    directory: tempfile::TempDir,
}

impl<'a> Lab<'a> {
    fn new(database: &'a GlanceDatabase, encrypted: bool) -> Self {
        let pools = [TestPool::new(), TestPool::new()];
        let directory = tempfile::tempdir().unwrap();
        let conf = std::env::var("CEPH_CONF").unwrap();
        // A cluster that is far away, so that Glance can be killed in the middle of what is done in a moment here.
        let slow =
            "\n[client]\nms_inject_delay_type = osd\nms_inject_delay_max = 0.3\nms_inject_delay_probability = 1\n";
        let far = std::fs::read_to_string(&conf).unwrap() + slow;
        std::fs::write(directory.path().join("far.conf"), far).unwrap();
        let settings = [
            "DEFAULT.enabled_backends=ceph:rbd,ceph2:rbd".to_owned(),
            "DEFAULT.enabled_import_methods=[glance-direct,copy-image]".to_owned(),
            "image_import_opts.max_parallel_stores=2".to_owned(),
            format!("DEFAULT.metadata_encryption_key={}", if encrypted { "0123456789abcdef" } else { "" }),
            format!("ceph2.rbd_store_ceph_conf={conf}"),
            format!("ceph2.rbd_store_pool={}", pools[1].0),
            "ceph2.rbd_store_user=glance".to_owned(),
            "ceph2.rbd_store_chunk_size=1".to_owned(),
        ];
        let settings = settings.each_ref().map(String::as_str);
        let glance = Glance::up_with(&pools[0], database.url(), &settings);
        Self { glance, database, pools, directory }
    }

    /// Both stores near, or far.
    fn restart(&self, near: bool, settings: &[&str]) {
        let far = self.directory.path().join("far.conf").display().to_string();
        let conf = if near { std::env::var("CEPH_CONF").unwrap() } else { far };
        let stores = ["ceph", "ceph2"].map(|store| format!("{store}.rbd_store_ceph_conf={conf}"));
        self.glance.restart(&[&stores.each_ref().map(String::as_str), settings].concat());
    }

    fn sql(&self, sql: &str) -> String {
        self.database.sql(&self.glance.database, sql)
    }

    fn status(&self, id: &str) -> String {
        self.sql(&format!("SELECT status FROM images WHERE id = '{id}'")).trim().to_owned()
    }

    fn at(&self, pool: usize, id: &str) -> String {
        format!("{}/{id}", self.pools[pool].0)
    }

    /// As the read-only user, with all that glance-api.conf says.
    fn scan(&self, grace: &str) -> (i32, Value) {
        let arguments = ["scan", "--user", "scan", "--format", "json", "--grace", grace, "--glance-conf"];
        let ran = run(&[&arguments, [self.glance.conf.as_str()].as_slice()].concat());
        assert_eq!((&ran.json()["complete"], ran.stderr.as_str()), (&true.into(), ""), "{ran:?}");
        (ran.code, ran.json())
    }

    fn clone(&self, id: &str, format: &str) -> String {
        let child = format!("vms/child-{id}");
        rbd(&["clone", "--rbd-default-clone-format", format, &format!("{}@snap", self.at(0, id)), &child]);
        child
    }
}

/// With encrypted locations, or plain ones: a Glance that begins to encrypt cannot read those it had before.
fn every_state(database: &GlanceDatabase, encrypted: bool) {
    let mut lab = Lab::new(database, encrypted);
    let mut seed = 0;
    let mut data = |size: usize| {
        seed += 1;
        noise(seed, size)
    };

    // A healthy pool: active, queued, deleted, deactivated, staged, and a client that vanished.
    lab.glance.active(&data(3 * MIB + 1));
    lab.glance.create();
    let deleted = lab.glance.active(&data(MIB));
    lab.glance.delete(&deleted);
    let deactivated = lab.glance.active(&data(MIB));
    lab.glance.deactivate(&deactivated);
    let staged = lab.glance.create();
    lab.glance.stage(&staged, &data(MIB));
    assert_eq!(lab.status(&staged), "uploading");
    let vanished = lab.glance.create();
    lab.glance.vanish(&vanished);
    until("the upload to be given up", 120, || lab.status(&vanished) == "queued" && !lab.exists(0, &vanished));
    let copied = lab.glance.active(&data(MIB));
    lab.glance.import(&copied, "copy-image", &["ceph2"]);
    until("the copy", 120, || lab.glance.show(&copied)["stores"].as_str().unwrap().contains("ceph2"));
    let importing =
        |id: &str| lab.glance.show(id)["os_glance_importing_to_stores"].as_str().is_some_and(|to| !to.is_empty());
    until("the end of the import", 120, || !importing(&copied));
    // With a clone of the first kind, deleting is refused, and nothing has changed.
    let parent = lab.glance.active(&data(MIB));
    let child = lab.clone(&parent, "1");
    assert!(lab.glance.try_delete(&parent).is_err());
    let (code, scan) = lab.scan("0");
    assert_eq!((code, found(&scan)), (0, Found::new()), "{scan:#}");
    rbd(&["rm", &child]);

    let mut expected = Found::new();
    let pools = lab.pools.each_ref().map(|pool| pool.0.clone());
    let mut expect = |kind: &str, pool: usize, id: &str| {
        expected.insert((kind.to_owned(), pools[pool].clone(), id.to_owned()));
    };

    // The database fails at the final save, and at the rollback too.
    for delete in [false, true] {
        let id = lab.glance.create();
        lab.database.refuse_to_save(&lab.glance.database, &id);
        assert!(lab.glance.upload(&id, data(MIB).as_slice()).is_err());
        lab.database.save_again(&lab.glance.database);
        assert_eq!(lab.status(&id), "saving");
        if delete {
            lab.glance.delete(&id);
        }
        expect(if delete { "orphan-deleted" } else { "unregistered" }, 0, &id);
    }

    // Deleted while a clone of the second kind needs it, Glance puts it into the trash.
    let trashed = lab.glance.active(&data(MIB));
    let child = lab.clone(&trashed, "2");
    lab.glance.delete(&trashed);
    expect("trash-blocked", 0, &trashed);

    // Deleted while somebody writes to it: refused, but the snapshot has gone by then.
    let attached = lab.glance.active(&data(MIB));
    let mut watcher = Command::new("rbd");
    let watcher = watcher.args(["--id", "glance", "watch", &lab.at(0, &attached)]).stdin(Stdio::piped());
    let mut watcher = watcher.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("a watcher", 60, || is_open(&lab.at(0, &attached)) == Some(true));
    assert!(lab.glance.try_delete(&attached).is_err());
    drop(watcher.stdin.take());
    watcher.wait().unwrap();
    assert_eq!(lab.status(&attached), "active");
    expect("missing-snapshot", 0, &attached);

    // Killed while it takes two uploads, copies an image to a second store, and imports one to both at once.
    let copying = lab.glance.active(&data(64 * MIB));
    let importing = lab.glance.create();
    lab.glance.stage(&importing, &data(64 * MIB));
    lab.restart(false, &[]);
    let uploads = [lab.glance.create(), lab.glance.create()];
    thread::scope(|scope| {
        let mut clients = Vec::new();
        let mut stops = Vec::new();
        for (seed, id) in uploads.iter().enumerate() {
            let (trickle, stop) = Trickle::new(100 + seed as u64);
            stops.push(stop);
            let glance = &lab.glance;
            clients.push(scope.spawn(move || glance.upload(id, trickle)));
        }
        for id in &uploads {
            until("a partial image", 120, || lab.exists(0, id));
            until("its writer", 120, || is_open(&lab.at(0, id)) == Some(true));
        }
        lab.glance.import(&copying, "copy-image", &["ceph2"]);
        lab.glance.import(&importing, "glance-direct", &["ceph", "ceph2"]);
        for (pool, id) in [(1, &copying), (0, &importing), (1, &importing)] {
            until("an import", 120, || lab.exists(pool, id));
        }
        lab.glance.kill();
        for stop in stops {
            stop.store(true, Ordering::Relaxed);
        }
        assert!(clients.into_iter().all(|client| client.join().unwrap().is_err()), "the clients must notice");
    });
    let rows = |id: &str, status: &str| {
        let sql = format!("SELECT count(*) FROM image_locations WHERE image_id = '{id}' AND status IN ({status})");
        lab.sql(&sql).trim().to_owned()
    };
    assert_eq!((lab.status(&copying), rows(&copying, "'active'")), ("active".into(), "1".into()));
    assert_eq!((lab.status(&importing), rows(&importing, "'pending', 'uploading'")), ("importing".into(), "2".into()));
    for (pool, id) in [(0, &uploads[0]), (0, &uploads[1]), (1, &copying), (0, &importing), (1, &importing)] {
        until("the dead to be given up", 120, || is_open(&lab.at(pool, id)) == Some(false));
    }
    lab.restart(true, &["DEFAULT.delayed_delete=True"]);
    lab.glance.delete(&uploads[1]);
    expect("partial-upload", 0, &uploads[0]);
    expect("orphan-deleted", 0, &uploads[1]);
    // Nobody can tell from the rows of an import or a copy that it has died.
    expect("in-flight", 1, &copying);
    expect("in-flight", 0, &importing);
    expect("in-flight", 1, &importing);

    // Restored, an image lists no location, but the row of it is there; purged, nothing tells any more where its data is.
    // It is nobody's leftover all the same.
    for purged in [true, false] {
        let id = lab.glance.active(&data(MIB));
        lab.glance.delete(&id);
        assert_eq!(lab.status(&id), "pending_delete");
        lab.glance.restore(&id);
        assert_eq!(lab.status(&id), "active");
        if purged {
            thread::sleep(std::time::Duration::from_millis(1100)); // what was deleted in this second is not yet purged
            lab.glance.tool("glance-manage", &["db", "purge", "--age_in_days", "0"]).ok();
            assert_eq!(rows(&id, "'active', 'pending_delete'"), "0");
            expect("in-flight", 0, &id);
        }
    }

    // Deleted for the scrubber, which never comes.
    let pending = lab.glance.active(&data(MIB));
    lab.glance.delete(&pending);
    expect("pending-delete", 0, &pending);

    let (code, scan) = lab.scan("0");
    assert_eq!((code, found(&scan)), (3, expected.clone()), "{scan:#}");
    assert_eq!(scan["summary"]["knowledge"].as_array().unwrap().len(), 1);

    // A day's grace: of what is young nothing is called dead.
    let (_, scan) = lab.scan("24h");
    for (kind, _, _) in found(&scan) {
        let dead =
            ["orphan", "orphan-deleted", "partial-upload", "unregistered", "leaked-clone"].contains(&kind.as_str());
        assert!(!dead, "{kind}: {scan:#}");
    }

    // The last clone goes, and what it held can go too.
    rbd(&["rm", &child]);
    let (_, scan) = lab.scan("0");
    expected.remove(&("trash-blocked".into(), lab.pools[0].0.clone(), trashed.clone()));
    expected.insert(("trash-expired".into(), lab.pools[0].0.clone(), trashed));
    assert_eq!(found(&scan), expected, "{scan:#}");

    // Without the key an encrypted location may name any image: it is told, and nothing may be reclaimed or is missing.
    let conf = std::fs::read_to_string(&lab.glance.conf).unwrap();
    assert_eq!(lab.sql("SELECT value FROM image_locations").contains("rbd://"), !encrypted);
    if encrypted {
        lab.glance.conf = lab.directory.path().join("keyless.conf").display().to_string();
        std::fs::write(&lab.glance.conf, conf.replace("metadata_encryption_key", "no_key")).unwrap();
        let (code, scan) = lab.scan("0");
        let kinds: BTreeSet<String> = found(&scan).into_iter().map(|(kind, ..)| kind).collect();
        assert!(code == 3 && kinds.contains("undecryptable-location"), "{scan:#}");
        assert_eq!(scan["summary"]["reclaimable_bytes"], 0, "{scan:#}");
        for not in ["orphan", "missing-image", "missing-snapshot", "trashed-image"] {
            assert!(!kinds.contains(not), "{not}: {scan:#}");
        }
    }
}

impl Lab<'_> {
    fn exists(&self, pool: usize, id: &str) -> bool {
        self.pools[pool].images().iter().any(|name| name == id)
    }
}
