//! Every source cut off in turn: the scan says that it knows too little, and why, and nothing can be made of it.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    thread,
};

use serde_json::Value;

use crate::lab::{GlanceDatabase, Ran, TestDatabase, TestPool, kinds, noise, rbd, repository, run, sh, uuid};

/// Scans to a file that holds an older scan, with metrics.
fn scan(arguments: &[&str], directory: &Path) -> (Ran, String, String) {
    let path = |name: &str| directory.join(name).display().to_string();
    std::fs::write(path("scan.json"), "as it was").unwrap();
    let common =
        ["scan", "--grace", "0", "--format", "json", "-o", &path("scan.json"), "--metrics", &path("scan.prom")];
    let ran = run(&[&common, arguments].concat());
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
    (ran, read("scan.json"), read("scan.prom"))
}

/// No result at all: an error that says what, the old result as it was, and metrics that say that there is none.
fn refused(arguments: &[&str], why: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (ran, result, metrics) = scan(arguments, directory.path());
    assert_eq!((ran.code, result.as_str()), (1, "as it was"), "{ran:?}");
    assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains(why), "{ran:?}");
    assert!(metrics.contains("glance_rbd_scan_complete 0\n") && !metrics.contains("findings"), "{metrics}");
}

/// The cluster hangs: a time-out, and no word of images that are missing, or of clones that are none.
#[test]
fn an_osd_that_hangs() {
    let directory = tempfile::Builder::new().prefix("ceph-").tempdir_in("/tmp").unwrap();
    let cluster = Cluster(directory.path().join("c").display().to_string());
    cluster.demo(&["up", "--osd-size", "1G"]);
    let conf = format!("{}/ceph.conf", cluster.0);
    let database = TestDatabase::new();
    let id = uuid();
    let put = ["image", "put", "-", "--id", &id, "--user", "glance", "--ceph-conf", &conf, "--format", "json"];
    database.active(&id, &crate::lab::run_with_input(&put, &noise(1, 1000)).ok().json());
    let url = database.url();
    let sources = ["--database", &url, "--ceph-conf", &conf, "--user", "scan", "--timeout", "3"];
    let (ran, _, _) = scan(&sources, directory.path());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let osd = std::fs::read_to_string(format!("{}/run/osd.0.pid", cluster.0)).unwrap();
    sh("kill", &["-STOP", osd.trim()]);
    refused(&sources, "timed out");
    sh("kill", &["-CONT", osd.trim()]);
}

/// A cluster of a test's own.
struct Cluster(String);

impl Cluster {
    fn demo(&self, arguments: &[&str]) {
        sh(repository("docker/ceph-demo"), &[arguments, &["--dir", &self.0]].concat());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.demo(&["down"]);
    }
}

/// A user who may read one pool only.
struct Narrow {
    name: String,
    conf: tempfile::NamedTempFile,
}

impl Narrow {
    fn new(pool: &str) -> Self {
        let name = format!("narrow-{}", &uuid()[..8]);
        let osd = format!("profile rbd-read-only pool={pool}");
        let client = format!("client.{name}");
        let key = sh("ceph", &["auth", "get-or-create-key", &client, "mon", "profile rbd-read-only", "osd", &osd]);
        let live = std::fs::read_to_string(std::env::var("CEPH_CONF").unwrap()).unwrap();
        let conf = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(conf.path(), format!("{live}\n[{client}]\nkey = {key}\n")).unwrap();
        Self { name, conf }
    }

    fn conf(&self) -> &str {
        self.conf.path().to_str().unwrap()
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        sh("ceph", &["auth", "del", &format!("client.{}", self.name)]);
    }
}

/// A pool that is to be scanned and may not be read is an error, not an empty pool.
#[test]
fn a_pool_that_may_not_be_read() {
    let (pool, other, database) = (TestPool::new(), TestPool::new(), TestDatabase::new());
    let id = uuid();
    database.active(&id, &other.put(&id, &noise(1, 1000)));
    let narrow = Narrow::new(&pool.0);
    let url = database.url();
    let sources = ["--database", &url, "--user", &narrow.name, "--ceph-conf", narrow.conf(), "--pool", &pool.0];
    refused(&[&sources, ["--pool", &other.0].as_slice()].concat(), "permission denied");
}

/// Clones in a pool that may not be read are unknown, which is not none.
#[test]
fn clones_in_a_pool_that_may_not_be_read() {
    let (pool, database) = (TestPool::new(), TestDatabase::new());
    let id = uuid();
    pool.put(&id, &noise(1, 1000));
    let narrow = Narrow::new(&pool.0);
    let child = format!("vms/{}", uuid());
    rbd(&["clone", &format!("{}/{id}@snap", pool.0), &child]);
    let directory = tempfile::tempdir().unwrap();
    let url = database.url();
    let sources = ["--database", &url, "--user", &narrow.name, "--ceph-conf", narrow.conf(), "--pool", &pool.0];
    let (ran, result, _) = scan(&sources, directory.path());
    let result: Value = serde_json::from_str(&result).unwrap();
    rbd(&["rm", &child]);
    assert_eq!(kinds(&result), [("orphan".to_owned(), 1)], "{result:#}");
    let blocks = result["findings"][0]["blocked_by"].as_array().unwrap();
    assert!(blocks.contains(&"unknown".into()), "{result:#}");
    assert_eq!(result["summary"]["reclaimable_bytes"], 0);
    let notes: Vec<&str> =
        result["notes"].as_array().unwrap().iter().map(|note| note["what"].as_str().unwrap()).collect();
    assert!(notes.iter().any(|note| note.contains("vms")), "{notes:?}");
    assert!(ran.stderr.contains("vms"), "{ran:?}");
}

/// One header is garbled: the others are told, the scan is not complete, and no plan can be made from it.
#[test]
fn a_garbled_header() {
    let (pool, database) = (TestPool::new(), TestDatabase::new());
    let (orphan, garbled) = (uuid(), uuid());
    pool.put(&orphan, &noise(1, 1000));
    database.active(&garbled, &pool.put(&garbled, &noise(2, 1000)));
    pool.set_header(&garbled, "size", "garbage");
    let directory = tempfile::tempdir().unwrap();
    let url = database.url();
    let sources = ["--database", &url, "--user", "scan", "--pool", &pool.0];
    let (ran, result, metrics) = scan(&sources, directory.path());
    let result: Value = serde_json::from_str(&result).unwrap();
    assert_eq!((ran.code, &result["complete"]), (1, &false.into()), "{ran:?}");
    assert_eq!(kinds(&result), [("orphan".to_owned(), 1)], "{result:#}");
    assert!(ran.stderr.contains("incomplete") && ran.stderr.contains(&garbled), "{ran:?}");
    assert!(metrics.contains("glance_rbd_scan_complete 0\n"), "{metrics}");
    assert!(metrics.contains("glance_rbd_scan_problems 1\n"), "{metrics}");

    let plan = directory.path().join("plan.json").display().to_string();
    let planned =
        run(&[&["plan", "-o", &plan, "--only", "orphan", "--allow", "unseen", "--grace", "0"], sources.as_slice()]
            .concat());
    assert!(planned.code == 1 && format!("{planned:?}").contains("incomplete"), "{planned:?}");
    let plan = std::fs::read_to_string(plan).unwrap_or_else(|_| "{}".to_owned());
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert!(plan["steps"].as_array().is_none_or(Vec::is_empty), "{plan:#}");
}

/// A database is killed while its rows are read: rows that did not come are not rows that are not there.
#[test]
fn a_database_that_is_killed_while_it_is_read() {
    for database in [GlanceDatabase::mariadb(), GlanceDatabase::postgresql()] {
        let pool = TestPool::new();
        let url = database.url().unwrap();
        database.fill(20_000);
        pool.put(&uuid(), &noise(1, 1000));
        let sources = ["--user", "scan", "--pool", &pool.0, "--timeout", "5", "--database"];
        let directory = tempfile::tempdir().unwrap();
        let (ran, _, _) = scan(&[&sources, [url].as_slice()].concat(), directory.path());
        assert_eq!((ran.code, ran.stderr.as_str()), (3, ""));

        let (before, rest) = url.split_once('@').unwrap();
        let (server, name) = rest.split_once('/').unwrap();
        let through = format!("{before}@127.0.0.1:{}/{name}", cut_after(server, 400_000));
        refused(&[&sources, [through.as_str()].as_slice()].concat(), "cannot read the database");
    }
}

/// Passes a database's bytes on, until so many have come from it; then both ends are dropped, as when it is killed.
fn cut_after(server: &str, bytes: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = server.to_owned();
    // It ends with the test's process; the scan connects as often as it likes.
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(&server)) else { return };
            let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
            let (mut from, mut to) = (server.take(bytes as u64), client);
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.flush();
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.into_inner().shutdown(Shutdown::Both);
        }
    });
    port
}
