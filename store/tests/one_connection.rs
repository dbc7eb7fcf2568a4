//! How many connections a store makes. In a process of its own, since it counts librados' threads.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::TryStreamExt;
use store::{AddOptions, Config, Store};

/// Each connection has one thread of this name.
fn connections() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.trim() == "ms_dispatch").count()
}

/// The stock driver connects three times for a download and twice for an upload, 11 ms each, and reads its configuration again
/// for each of them.
#[test]
fn one_connection_serves_everything() {
    assert!(std::env::var_os("CEPH_CONF").is_some(), "no CEPH_CONF: run `make test`, or `docker/ceph-demo up` first");
    let (done, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let watcher = thread::spawn({
        let (done, most) = (done.clone(), most.clone());
        move || {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(connections(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let config = Config { timeout: Some(Duration::from_secs(60)), ..Config::default() };
        let store = Store::open(config).await.unwrap();
        let client = store.pool().cluster().instance_id();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let store = store.clone();
            tasks.spawn(async move {
                let id = uuid::Uuid::new_v4().to_string();
                let mut writer = store.add(&id, AddOptions::default()).await.unwrap();
                writer.write("data".into()).await.unwrap();
                let location = writer.finish().await.unwrap().location;
                let read: Vec<_> = store.get(&location, ..).await.unwrap().try_collect().await.unwrap();
                assert_eq!(read.concat(), b"data");
                store.stat(&location).await.unwrap();
                store.children(&location).await.unwrap();
                store.delete(&location).await.unwrap();
            });
        }
        tasks.join_all().await;
        assert_eq!(store.pool().cluster().instance_id(), client);
        store.settled().await;
    });
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    assert_eq!(most.load(Ordering::Relaxed), 1);
}
