//! Connections that nobody waits for any more are closed. In a process of its own, since it counts librados' threads.

use std::{
    fs,
    time::{Duration, Instant},
};

use rbd::{Cluster, ConnectOptions, Pool};

/// How many connections this process has: each has one thread of this name.
fn connections() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.trim() == "ms_dispatch").count()
}

async fn open() -> rbd::Result<Pool> {
    assert!(std::env::var_os("CEPH_CONF").is_some(), "no CEPH_CONF: run `make test`, or `docker/ceph-demo up` first");
    let options = ConnectOptions { timeout: Some(Duration::from_secs(30)), ..ConnectOptions::default() };
    Cluster::connect(options).await?.pool("images").await
}

#[test]
fn no_connection_outlives_its_last_user() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let pool = open().await.unwrap();
        assert_eq!(connections(), 1);
        let list = pool.images();
        drop(pool.clone());
        list.await.unwrap();
        drop(pool);
        rbd::settled().await;
        assert_eq!(connections(), 0);

        // Given up at every stage of connecting, and with operations in flight.
        for n in 0..60 {
            drop(tokio::time::timeout(Duration::from_micros(n * 700), open()).await);
            if n % 10 == 0 {
                let pool = open().await.unwrap();
                drop(pool.read_object("rbd_directory", &rbd::ReadOp::new().stat()));
            }
        }
    });
    let started = Instant::now();
    loop {
        runtime.block_on(rbd::settled());
        // What was being connected must first arrive to be closed.
        if connections() == 0 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{} connections stay", connections());
        std::thread::sleep(Duration::from_millis(50));
    }
}
