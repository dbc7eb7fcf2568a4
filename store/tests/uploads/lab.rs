//! A pool of its own for each test, as Glance's user has it.

use std::{process::Command, time::Duration};

use bytes::Bytes;
use futures_util::TryStreamExt;
use openssl::hash::{MessageDigest, hash};
use rbd::OpenOptions;
use store::{AddOptions, Added, Config, Location, Result, Store};

pub(crate) const MIB: usize = 1 << 20;

/// A pool and a store in it. The pool goes when this is dropped.
pub(crate) struct Lab {
    pub(crate) store: Store,
    pool: TestPool,
}

struct TestPool(String);

impl Drop for TestPool {
    fn drop(&mut self) {
        let deleted = Command::new("ceph")
            .args(["osd", "pool", "delete", &self.0, &self.0, "--yes-i-really-really-mean-it"])
            .output();
        if !std::thread::panicking() {
            assert!(deleted.unwrap().status.success());
        }
    }
}

/// Runs a test in a fresh pool, with a store set up by `configure`.
pub(crate) fn in_pool<F: Future<Output = ()>>(configure: impl FnOnce(&mut Config), test: impl FnOnce(Lab) -> F) {
    runtime().block_on(async {
        let pool = TestPool(format!("test-{}", &id()[..8]));
        sh("ceph", &["osd", "pool", "create", &pool.0, "4"]);
        sh("rbd", &["pool", "init", &pool.0]);
        let mut options = config(&pool.0);
        configure(&mut options);
        test(Lab { store: Store::open(options).await.unwrap(), pool }).await;
        rbd::settled().await;
    });
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn config(pool: &str) -> Config {
    assert!(std::env::var_os("CEPH_CONF").is_some(), "no CEPH_CONF: run `make test`, or `docker/ceph-demo up` first");
    Config {
        pool: pool.to_owned(),
        user: Some("glance".into()),
        timeout: Some(Duration::from_secs(60)),
        ..Config::default()
    }
}

/// A command that must succeed; its standard output.
pub(crate) fn sh(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// A new image id.
pub(crate) fn id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Bytes without a run of zeroes, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&(state | 1).to_le_bytes());
    }
    data.truncate(length);
    data.into()
}

pub(crate) fn md5(data: &[u8]) -> String {
    hex(MessageDigest::md5(), data)
}

pub(crate) fn sha512(data: &[u8]) -> String {
    hex(MessageDigest::sha512(), data)
}

fn hex(algorithm: MessageDigest, data: &[u8]) -> String {
    hash(algorithm, data).unwrap().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Lab {
    pub(crate) fn pool_name(&self) -> &str {
        &self.pool.0
    }

    /// Stores an image whole.
    pub(crate) async fn put(&self, id: &str, options: AddOptions, data: &Bytes) -> Result<Added> {
        let mut writer = self.store.add(id, options).await?;
        writer.write(data.clone()).await?;
        writer.finish().await
    }

    /// Reads an image whole.
    pub(crate) async fn read(&self, location: &Location) -> Vec<u8> {
        let mut reader = self.store.get(location, ..).await.unwrap();
        let mut data = Vec::new();
        while let Some(chunk) = reader.try_next().await.unwrap() {
            data.extend_from_slice(&chunk);
        }
        data
    }

    /// That an image is as it should be in every respect.
    pub(crate) async fn check(&self, added: &Added, data: &[u8]) {
        assert_eq!(added.bytes, data.len() as u64);
        assert_eq!(added.checksum, md5(data));
        assert_eq!(added.multihash, sha512(data));
        assert!(self.read(&added.location).await == data, "{} reads differently", added.location);
        let stat = self.store.stat(&added.location).await.unwrap();
        assert_eq!(stat.bytes, data.len() as u64);
        assert_eq!(stat.snapshots.len(), 1);
        assert!(stat.snapshots[0].protected);
        let image = self.store.pool().open_image(added.location.image(), OpenOptions::read_only()).await.unwrap();
        assert_eq!(image.stat().await.unwrap().size, data.len() as u64, "trimmed");
        assert_eq!(image.all_metadata().await.unwrap().len(), 0, "no mark");
        assert_eq!(image.watchers().await.unwrap(), [], "nobody has it open");
        image.close().await.unwrap();
    }

    /// Names of the pool's images.
    pub(crate) async fn images(&self) -> Vec<String> {
        self.store.pool().images().await.unwrap().into_iter().map(|image| image.name).collect()
    }

    /// Bytes of the objects of an image.
    pub(crate) async fn stored(&self, added: &Added) -> u64 {
        let image = self.store.pool().open_image(added.location.image(), OpenOptions::read_only()).await.unwrap();
        let prefix = format!("rbd_data.{}.", image.id().await.unwrap());
        image.close().await.unwrap();
        let mut bytes = 0;
        for object in sh("rados", &["-p", self.pool_name(), "ls"]).lines().filter(|name| name.starts_with(&prefix)) {
            let stat = sh("rados", &["-p", self.pool_name(), "stat", object]);
            bytes += stat.trim().rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        }
        bytes
    }

    /// That the pool has these images and no more, after everything that was dropped is cleaned up; nothing in the trash.
    pub(crate) async fn holds_only(&self, images: &[&str]) {
        self.store.settled().await;
        let mut expected: Vec<String> = images.iter().map(ToString::to_string).collect();
        let mut found = self.images().await;
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(self.store.pool().trash_list().await.unwrap(), []);
        // Nor a data object, a header or a name of anything else.
        let objects = sh("rados", &["-p", self.pool_name(), "ls"]);
        let count = |prefix: &str| objects.lines().filter(|name| name.starts_with(prefix)).count();
        assert_eq!(count("rbd_header."), images.len(), "{objects}");
        assert_eq!(count("rbd_id."), images.len(), "{objects}");
        if images.is_empty() {
            assert_eq!(count("rbd_data.") + count("rbd_object_map."), 0, "{objects}");
        }
    }
}
