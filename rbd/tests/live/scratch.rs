//! A namespace of its own for each test, so that they run side by side; emptied and removed at the end.

use std::{future::Future, time::Duration};

use rbd::{Cluster, ConnectOptions, CreateOptions, Image, OpenOptions, Pool};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn options() -> ConnectOptions {
    assert!(std::env::var_os("CEPH_CONF").is_some(), "no CEPH_CONF: run `make test`, or `docker/ceph-demo up` first");
    ConnectOptions { timeout: Some(Duration::from_secs(30)), ..ConnectOptions::default() }
}

/// Runs a test with a fresh namespace of the pool `images`, then removes it and all that is in it.
pub(crate) fn in_scratch<F: Future<Output = ()>>(test: impl FnOnce(Pool) -> F) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
        let cluster = Cluster::connect(options()).await.unwrap();
        let images = cluster.pool("images").await.unwrap();
        let namespace = format!("test-{}", uuid::Uuid::new_v4());
        images.create_namespace(&namespace).await.unwrap();
        let pool = images.in_namespace(&namespace).await.unwrap();
        test(pool.clone()).await;
        empty(&pool).await;
        images.remove_namespace(&namespace).await.unwrap();
        drop((pool, images, cluster));
        rbd::settled().await;
    });
}

/// Removes everything in a pool, clones before their parents.
async fn empty(pool: &Pool) {
    rbd::settled().await;
    for _round in 0..4 {
        for spec in pool.images().await.unwrap() {
            let image = pool.open_image(&spec.name, OpenOptions::default()).await.unwrap();
            for snapshot in image.snapshots().await.unwrap() {
                if snapshot.protected && image.unprotect_snapshot(&snapshot.name).await.is_err() {
                    continue;
                }
                let _ = image.remove_snapshot_by_id(snapshot.id).await;
            }
            image.close().await.unwrap();
            let _ = pool.remove(&spec.name).await;
        }
        for entry in pool.trash_list().await.unwrap() {
            if pool.trash_remove(&entry.id, true, rbd::silent()).await.is_err() {
                let _ = pool.trash_restore(&entry.id, &entry.name).await;
            }
        }
    }
    assert_eq!(pool.images().await.unwrap(), []);
}

/// Creates and opens an image of `size` bytes with 4 MiB objects.
pub(crate) async fn image(pool: &Pool, name: &str, size: u64) -> Image {
    let options = CreateOptions { order: Some(22), ..CreateOptions::default() };
    pool.create(name, size, options).await.unwrap();
    pool.open_image(name, OpenOptions::default()).await.unwrap()
}

/// An image with `data` at its start, and a protected snapshot `snap` of it.
pub(crate) async fn golden(pool: &Pool, name: &str, size: u64, data: &'static [u8]) {
    let image = image(pool, name, size).await;
    image.write(0, data.into()).await.unwrap();
    image.flush().await.unwrap();
    image.create_snapshot("snap").await.unwrap();
    image.protect_snapshot("snap").await.unwrap();
    image.close().await.unwrap();
}
