//! What an upload does when the cluster fails: daemons are stopped and killed for real, each test in a cluster of its own.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use store::{AddOptions, Added, Config, Error, Store};
use tempfile::TempDir;

const MIB: usize = 1 << 20;

/// One cluster at a time, for small machines.
static TURN: Mutex<()> = Mutex::new(());

/// A cluster, which is taken down when this is dropped.
struct Cluster {
    directory: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    fn up(options: &[&str]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = Self { directory: tempfile::tempdir_in("/tmp").unwrap(), _turn: turn };
        cluster.demo(&[&["up", "--osd-size", "4G"], options].concat());
        cluster
    }

    fn demo(&self, arguments: &[&str]) {
        let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docker/ceph-demo");
        let output = Command::new(demo).args(arguments).args(["--dir", &self.path("")]).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join("ceph").join(name).display().to_string()
    }

    /// Sends a signal to a daemon.
    fn signal(&self, signal: &str, daemon: &str) {
        let process = std::fs::read_to_string(self.path(&format!("run/{daemon}.pid"))).unwrap();
        assert!(Command::new("kill").args([signal, process.trim()]).status().unwrap().success());
    }

    fn config(&self, timeout: Option<u64>) -> Config {
        Config {
            ceph_conf: Some(self.path("ceph.conf").into()),
            user: Some("glance".into()),
            timeout: timeout.map(Duration::from_secs),
            ..Config::default()
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Stopped daemons cannot be told to end.
        for daemon in ["mon.a", "osd.0"] {
            if let Ok(process) = std::fs::read_to_string(self.path(&format!("run/{daemon}.pid"))) {
                drop(Command::new("kill").args(["-CONT", process.trim()]).output());
            }
        }
        self.demo(&["down"]);
    }
}

/// Runs a test on a cluster.
fn on_cluster(options: &[&str], test: impl AsyncFnOnce(&Cluster)) {
    let cluster = Cluster::up(options);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        test(&cluster).await;
        rbd::settled().await;
    });
}

fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed | 1;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(length);
    data.into()
}

fn options(data: &Bytes) -> AddOptions {
    AddOptions { size: Some(data.len() as u64), ..AddOptions::default() }
}

async fn check(store: &Store, added: &Added, data: &Bytes) {
    let chunks: Vec<Bytes> = store.get(&added.location, ..).await.unwrap().try_collect().await.unwrap();
    assert!(chunks.concat() == *data, "it reads differently");
    assert_eq!(added.bytes, data.len() as u64);
}

/// That nothing is left once everything dropped or failed was cleaned up, which is tried until the cluster is back.
async fn nothing_is_left(store: &Store) {
    store.settled().await;
    let pool = store.ready().await.unwrap();
    assert_eq!(pool.images().await.unwrap(), []);
    assert_eq!(pool.trash_list().await.unwrap(), []);
}

/// Uploads while a fault comes and goes: it waits, goes on, and what is stored is right.
async fn survives(store: &Store, fault: impl FnOnce(), mend: impl FnOnce()) {
    let data = noise(1, 64 * MIB);
    let mut writer = store.add("a", options(&data)).await.unwrap();
    writer.write(data.slice(..20 * MIB)).await.unwrap();
    fault();
    let upload = async {
        writer.write(data.slice(20 * MIB..)).await?;
        writer.finish().await
    };
    let mended = async {
        // Long enough for writes to be stuck; the test is the same if they are not.
        tokio::time::sleep(Duration::from_secs(3)).await;
        mend();
    };
    let (added, ()) = tokio::join!(upload, mended);
    check(store, &added.unwrap(), &data).await;
}

#[test]
fn an_upload_goes_on_when_a_stopped_osd_does() {
    on_cluster(&[], async |cluster| {
        let store = Store::open(cluster.config(Some(120))).await.unwrap();
        survives(&store, || cluster.signal("-STOP", "osd.0"), || cluster.signal("-CONT", "osd.0")).await;
    });
}

#[test]
fn an_upload_goes_on_when_a_killed_osd_is_back() {
    on_cluster(&["--store", "bluestore"], async |cluster| {
        let store = Store::open(cluster.config(None)).await.unwrap();
        survives(&store, || cluster.signal("-KILL", "osd.0"), || cluster.demo(&["start", "osd.0"])).await;
    });
}

/// The stock driver's upload hangs, or leaves its image behind. Here the removal is tried until the cluster is back.
#[test]
fn an_osd_away_for_too_long_is_a_timeout_and_nothing_stays() {
    on_cluster(&[], async |cluster| {
        let store = Store::open(cluster.config(Some(5))).await.unwrap();
        let data = noise(1, 64 * MIB);
        for finish in [false, true] {
            let mut writer = store.add("a", AddOptions::default()).await.unwrap();
            writer.write(data.slice(..20 * MIB)).await.unwrap();
            cluster.signal("-STOP", "osd.0");
            let error = if finish {
                // One that waits past the timeout has lost its lock by then.
                let other = store.add("b", AddOptions::default()).await.err().unwrap();
                assert!(matches!(other, Error::Timeout(_)), "nor does another begin: {other}");
                writer.finish().await.unwrap_err()
            } else {
                // More than the window holds, and without a pause.
                let error = loop {
                    if let Err(error) = writer.write(data.clone()).await {
                        break error;
                    }
                };
                drop(writer);
                error
            };
            assert!(matches!(error, Error::Timeout(_)), "{error}");
            cluster.signal("-CONT", "osd.0");
            nothing_is_left(&store).await;
        }
        let mut writer = store.add("a", options(&data)).await.unwrap();
        writer.write(data.clone()).await.unwrap();
        check(&store, &writer.finish().await.unwrap(), &data).await;
    });
}

/// Data goes to OSDs without a monitor, but a snapshot does not.
#[test]
fn a_monitor_away_for_too_long_is_a_timeout_and_nothing_stays() {
    on_cluster(&[], async |cluster| {
        let store = Store::open(cluster.config(Some(5))).await.unwrap();
        let data = noise(1, 20 * MIB);
        let mut writer = store.add("a", options(&data)).await.unwrap();
        writer.write(data.clone()).await.unwrap();
        cluster.signal("-STOP", "mon.a");
        let error = writer.finish().await.unwrap_err();
        assert!(matches!(error, Error::Timeout(_)), "{error}");
        let error = Store::open(cluster.config(Some(3))).await.err().unwrap();
        assert!(matches!(error, Error::Timeout(_)), "{error}");
        cluster.signal("-CONT", "mon.a");
        nothing_is_left(&store).await;
        // What was given up while the monitor was away can be stored at once.
        let mut writer = store.add("a", options(&data)).await.unwrap();
        writer.write(data.clone()).await.unwrap();
        check(&store, &writer.finish().await.unwrap(), &data).await;
    });
}

/// A client that was shut out in mid-upload can do nothing more, not even clean up; through a new connection it can.
#[test]
fn an_upload_of_a_blocklisted_client_fails_and_nothing_stays() {
    on_cluster(&[], async |cluster| {
        let store = Store::open(cluster.config(Some(60))).await.unwrap();
        let data = noise(1, 40 * MIB);
        let mut writer = store.add("a", options(&data)).await.unwrap();
        writer.write(data.slice(..20 * MIB)).await.unwrap();
        let image = store.pool().open_image("a", rbd::OpenOptions::read_only()).await.unwrap();
        let address = image.watchers().await.unwrap()[0].address.clone();
        drop(image);
        let blocklisted =
            Command::new("ceph").args(["-c", &cluster.path("ceph.conf"), "osd", "blocklist", "add", &address]).output();
        assert!(blocklisted.unwrap().status.success());
        let finished = async {
            writer.write(data.slice(20 * MIB..)).await?;
            writer.finish().await
        };
        let error = finished.await.unwrap_err();
        assert!(error.to_string().contains("blocklisted"), "{error}");
        nothing_is_left(&store).await;
        let mut writer = store.add("a", options(&data)).await.unwrap();
        writer.write(data.clone()).await.unwrap();
        check(&store, &writer.finish().await.unwrap(), &data).await;
    });
}

/// A source that gives nothing for a long time costs nobody else anything.
#[test]
fn a_source_that_stalls_holds_up_nobody() {
    on_cluster(&[], async |cluster| {
        // One chunk for all: whoever stalls has it.
        let store = Store::open(Config { memory: 8 << 20, ..cluster.config(Some(60)) }).await.unwrap();
        let data = noise(1, 5 * MIB);
        let mut stalled = store.add("stalled", options(&data)).await.unwrap();
        stalled.write(data.slice(..2 * MIB)).await.unwrap();
        let mut writer = store.add("a", options(&data)).await.unwrap();
        writer.write(data.clone()).await.unwrap();
        check(&store, &writer.finish().await.unwrap(), &data).await;
        stalled.write(data.slice(2 * MIB..)).await.unwrap();
        check(&store, &stalled.finish().await.unwrap(), &data).await;
    });
}
