//! Each kind of bad input: one clear error that names the thing and the next step, the exit code, and nothing changed.

use std::time::{Duration, Instant};

use crate::lab::{MIB, Ran, TestDatabase, TestPool, noise, run, sh, uuid};

/// One error, one hint, exit code 1, nothing on standard output.
fn refused(ran: &Ran, error: &str, hint: &str) {
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.is_empty(), "{ran:?}");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    let [first, second] = lines.as_slice() else { panic!("{ran:?}") };
    assert!(first.starts_with("error: ") && first.contains(error), "{ran:?}");
    assert!(second.starts_with("hint: ") && second.contains(hint), "{ran:?}");
}

fn conf(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn no_cluster_there() {
    let conf = conf("[global]\nmon_host = 127.0.0.1:1\nkey = AQBbWW5nAAAAABAAfZ0mZ7gMiw6T0qz6v3Vb0A==\n");
    let conf = conf.path().to_str().unwrap();
    let started = Instant::now();
    refused(&run(&["image", "list", "--ceph-conf", conf, "--timeout", "2"]), "timed out", "mon_host");
    let database = TestDatabase::new();
    let scan = ["scan", "--database", &database.url(), "--ceph-conf", conf, "--timeout", "2"];
    refused(&run(&scan), "cannot connect to the cluster", "mon_host");
    assert!(started.elapsed() < Duration::from_secs(30), "twice the timeout, and some");
}

#[test]
fn no_ceph_conf() {
    refused(&run(&["image", "list", "--ceph-conf", "/nonexistent.conf"]), "/nonexistent.conf", "--ceph-conf");
}

#[test]
fn a_ceph_conf_that_is_none() {
    let conf = conf("\0\x01 not a configuration");
    let ran = run(&["image", "list", "--ceph-conf", conf.path().to_str().unwrap(), "--timeout", "2"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.starts_with("error: "), "{ran:?}");
}

#[test]
fn a_wrong_key_and_an_unknown_user() {
    let live = std::fs::read_to_string(std::env::var("CEPH_CONF").unwrap()).unwrap();
    let conf = conf(&format!("{live}\n[client.glance]\nkey = AQBbWW5nAAAAABAAfZ0mZ7gMiw6T0qz6v3Vb0A==\n"));
    let ran = run(&["image", "list", "--user", "glance", "--ceph-conf", conf.path().to_str().unwrap()]);
    refused(&ran, "permission denied", "--user");
    refused(&run(&["image", "list", "--user", "nobody"]), "permission denied", "--user");
}

#[test]
fn a_wrong_pool() {
    refused(&run(&["image", "list", "--pool", "imagez"]), "cannot open pool imagez: not found", "ceph osd pool ls");
    let database = TestDatabase::new();
    refused(&run(&["scan", "--database", &database.url(), "--pool", "imagez"]), "pool imagez", "ceph osd pool ls");
}

#[test]
fn a_database_that_is_not_there_or_not_glances() {
    let scan = |url: &str| run(&["scan", "--user", "scan", "--database", url]);
    refused(&scan("sqlite:////nonexistent/glance.sqlite"), "/nonexistent/glance.sqlite", "--database");

    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("garbage"), noise(1, 8192)).unwrap();
    let ran = scan(&format!("sqlite:///{}", path("garbage")));
    assert!(ran.code == 1 && ran.stderr.contains("garbage") && ran.stdout.is_empty(), "{ran:?}");

    sh("mkfifo", &[&path("pipe")]);
    refused(&scan(&format!("sqlite:///{}", path("pipe"))), "it is not a file", "--database");
    refused(&scan(&format!("sqlite:///{}", directory.path().display())), "it is not a file", "--database");

    std::fs::write(path("empty"), "").unwrap();
    refused(&scan(&format!("sqlite:///{}", path("empty"))), "not a Glance database: it has no table images", "db sync");

    sh("sqlite3", &[&path("nova"), "CREATE TABLE images (id INTEGER)"]);
    refused(&scan(&format!("sqlite:///{}", path("nova"))), "it has no column images.status", "another service");

    for url in ["db2://glance:secret@db/glance", "mysql+pymysql://glance:secret@db/glance?tls=secret"] {
        let ran = scan(url);
        refused(&ran, "the database URL is not understood", "glance-api.conf");
        assert!(!ran.stderr.contains("secret"));
    }
    let ran = scan("mysql+pymysql://glance:secret@127.0.0.1:1/glance");
    refused(&ran, "cannot open the database mysql://127.0.0.1:1/glance", "--database");
    assert!(!ran.stderr.contains("secret"));
}

#[test]
fn locations_of_another_shape_and_of_another_cluster() {
    for bad in ["rbd://a/b/c", "file:///etc/passwd", "rbd://%FF/p/i/s", "rbd://"] {
        let ran = run(&["image", "stat", bad, "--user", "glance"]);
        assert!(ran.code == 1 && ran.stderr.contains("BadLocation") && ran.stderr.contains(bad), "{ran:?}");
    }
    let pool = TestPool::new();
    let id = uuid();
    pool.put(&id, b"data");
    let foreign = format!("rbd://{}/{}/{id}/snap", uuid(), pool.0);
    for command in ["stat", "rm", "get", "children"] {
        refused(&run(&["image", command, &foreign, "--user", "glance"]), "ForeignCluster", "--ceph-conf");
    }
    assert_eq!(pool.images(), [id]);
}

#[test]
fn wrong_usage_is_said_before_anything_is_touched() {
    for wrong in [
        vec!["frobnicate"],
        vec!["scan"],
        vec!["image", "put", "-", "--id", "not-a-uuid"],
        vec!["image", "clone", "x", "no-pool"],
        vec!["image", "put", "-", "--id", "6c0f5ba4-37b5-4a1e-9d1a-3b5f4dfc1e6e", "--size", "12X"],
        vec!["scan", "--database", "sqlite:////x", "--grace", "yesterday"],
    ] {
        let ran = run(&wrong);
        assert!(ran.code == 2 && ran.stdout.is_empty() && ran.stderr.contains("--help"), "{wrong:?}: {ran:?}");
    }
    let ran = run(&["scan", "--database", "sqlite:////x", "--only", "orphans"]);
    assert!(ran.code == 2 && ran.stderr.contains("orphan-deleted"), "{ran:?}");
}

#[test]
fn data_that_is_not_as_long_as_announced() {
    let pool = TestPool::new();
    for (announced, sent) in [("1M", 2 * MIB), ("3M", 2 * MIB), ("1", 0)] {
        let arguments =
            ["image", "put", "-", "--id", &uuid(), "--pool", &pool.0, "--user", "glance", "--size", announced];
        let ran = crate::lab::run_with_input(&arguments, &noise(1, sent));
        assert!(ran.code == 1 && ran.stderr.contains("SizeMismatch"), "{ran:?}");
    }
    assert!(pool.images().is_empty(), "nothing is left behind");
}

#[test]
fn what_is_there_already_and_what_is_not() {
    let pool = TestPool::new();
    let id = uuid();
    pool.put(&id, b"first");
    let put = ["image", "put", "/dev/null", "--id", &id, "--pool", &pool.0, "--user", "glance"];
    refused(&run(&put), "AlreadyExists", "--id");
    let get = ["image", "get", &id, "--pool", &pool.0, "--user", "glance"];
    assert_eq!(run(&get).ok().stdout, b"first", "and it is untouched");
    let other = ["image", "stat", &uuid(), "--pool", &pool.0, "--user", "glance"];
    refused(&run(&other), "NotFound", "image list");
    let missing = ["image", "put", "/nonexistent", "--id", &uuid(), "--pool", &pool.0, "--user", "glance"];
    let ran = run(&missing);
    assert!(ran.code == 1 && ran.stderr.contains("/nonexistent"), "{ran:?}");
}

#[test]
fn a_user_who_may_not_write() {
    let pool = TestPool::new();
    let put = ["image", "put", "/dev/null", "--id", &uuid(), "--pool", &pool.0, "--user", "scan"];
    refused(&run(&put), "PermissionDenied", "ceph auth get");
    assert!(pool.images().is_empty());
}
