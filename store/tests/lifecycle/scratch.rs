//! An RBD namespace of its own for each test, so that they run side by side; emptied and removed at the end.

use std::{
    future::Future,
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use rbd::{Cluster, ConnectOptions, OpenOptions, Pool};
use store::{AddOptions, Config, Location, Store};

pub(crate) const MIB: u64 = 1 << 20;

/// A namespace, and a way to it that no store under test shares.
pub(crate) struct Scratch {
    pub(crate) pool: Pool,
}

pub(crate) fn connect_options() -> ConnectOptions {
    assert!(std::env::var_os("CEPH_CONF").is_some(), "no CEPH_CONF: run `make test`, or `docker/ceph-demo up` first");
    ConnectOptions { timeout: Some(Duration::from_secs(60)), ..ConnectOptions::default() }
}

/// Runs a test with a fresh namespace of the pool `images`, then removes it and all that is in it.
pub(crate) fn in_scratch<F: Future<Output = ()>>(test: impl FnOnce(Scratch) -> F) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
        let images = Cluster::connect(connect_options()).await.unwrap().pool("images").await.unwrap();
        let namespace = format!("test-{}", uuid::Uuid::new_v4());
        images.create_namespace(&namespace).await.unwrap();
        let pool = images.in_namespace(&namespace).await.unwrap();
        test(Scratch { pool: pool.clone() }).await;
        rbd::settled().await;
        empty(&pool).await;
        images.remove_namespace(&namespace).await.unwrap();
    });
}

/// Removes everything in a pool, clones before their parents.
pub(crate) async fn empty(pool: &Pool) {
    for _round in 0..4 {
        for spec in pool.images().await.unwrap() {
            let image = pool.open_image_by_id(&spec.id, OpenOptions::default()).await.unwrap();
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
    assert_eq!(pool.trash_list().await.unwrap(), []);
}

impl Scratch {
    /// The options of a store in it, with clones of that format.
    pub(crate) fn config(&self, clone_format: u8) -> Config {
        Config {
            pool: self.pool.to_string(),
            timeout: Some(Duration::from_secs(60)),
            chunk_size: 1,
            settings: vec![("rbd_default_clone_format".into(), clone_format.to_string())],
            ..Config::default()
        }
    }

    pub(crate) async fn store(&self, clone_format: u8) -> Store {
        Store::open(self.config(clone_format)).await.unwrap()
    }

    /// Everything that is to be seen of an image: its id, size, snapshots with their protection, and data.
    pub(crate) async fn state(&self, name: &str) -> String {
        let image = self.pool.open_image(name, OpenOptions::read_only()).await.unwrap();
        let (id, size) = (image.id().await.unwrap(), image.stat().await.unwrap().size);
        let snapshots = image.snapshots().await.unwrap();
        let data = image.read(0, size.min(64) as usize).await.unwrap();
        image.close().await.unwrap();
        format!("{id} {size} {snapshots:?} {data:?}")
    }

    /// Runs `rados` in the namespace, with that input, and returns its output.
    pub(crate) fn rados(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let place = ["-p", self.pool.name(), "-N", self.pool.namespace()];
        let mut child = Command::new("rados")
            .args(place)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("rados of ceph-common");
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "rados {args:?}");
        output.stdout
    }

    /// Runs `rbd`.
    pub(crate) fn rbd(&self, args: &[&str]) {
        let status = Command::new("rbd").args(args).status().expect("rbd of ceph-common");
        assert!(status.success(), "rbd {args:?}");
    }

    /// What is in the trash, by name.
    pub(crate) async fn trash(&self) -> Vec<String> {
        self.pool.trash_list().await.unwrap().into_iter().map(|entry| entry.name).collect()
    }
}

/// Stores `data` under a new id.
pub(crate) async fn put(store: &Store, data: &'static str) -> Location {
    let id = uuid::Uuid::new_v4().to_string();
    let mut writer = store.add(&id, AddOptions::default()).await.unwrap();
    writer.write(data.into()).await.unwrap();
    writer.finish().await.unwrap().location
}

/// All of an image's data.
pub(crate) async fn get(store: &Store, location: &Location) -> store::Result<Vec<u8>> {
    use futures_util::TryStreamExt;
    let reader = store.get(location, ..).await?;
    let chunks: Vec<_> = reader.try_collect().await?;
    Ok(chunks.concat())
}
