//! A namespace of its own for each test, so that they run side by side; emptied and removed at the end.

use std::{future::Future, process::Command, sync::LazyLock, time::Duration};

use bytes::Bytes;
use futures_util::{TryStreamExt, future::join_all};
use store::{AddOptions, Added, Config, Error, Location, Reader, Store};

pub(crate) const MIB: usize = 1 << 20;

/// Images of 1 MiB objects in a namespace that is the test's alone.
pub(crate) struct Scratch {
    pub(crate) store: Store,
    pub(crate) namespace: String,
}

/// Runs a test with a scratch namespace of the pool `images`.
pub(crate) fn in_scratch<F: Future<Output = ()>>(settings: Config, test: impl FnOnce(std::sync::Arc<Scratch>) -> F) {
    assert!(std::env::var_os("CEPH_CONF").is_some(), "no CEPH_CONF: run `make test`, or `docker/ceph-demo up` first");
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
        let namespace = format!("test-{}", uuid::Uuid::new_v4());
        run("rbd", &["namespace", "create", &format!("images/{namespace}")]);
        let store = Store::open(Config { pool: format!("images/{namespace}"), ..settings }).await.unwrap();
        let scratch = std::sync::Arc::new(Scratch { store, namespace });
        test(scratch.clone()).await;
        let images = scratch.store.pool().images().await.unwrap();
        let deletions = images.iter().map(|image| async {
            scratch.store.delete(&scratch.store.location_of(&image.name)).await.unwrap();
        });
        join_all(deletions).await;
        run("rbd", &["namespace", "rm", &format!("images/{}", scratch.namespace)]);
        scratch.store.settled().await;
    });
}

/// How the tests store: as Glance's user, in small objects, with a timeout that no test should meet.
pub(crate) fn config() -> Config {
    Config { user: Some("glance".into()), chunk_size: 1, timeout: Some(Duration::from_secs(120)), ..Config::default() }
}

impl Scratch {
    /// Stores an image under a new id.
    pub(crate) async fn put(&self, data: &[u8]) -> Added {
        let options = AddOptions { size: Some(data.len() as u64), ..AddOptions::default() };
        let mut writer = self.store.add(&uuid::Uuid::new_v4().to_string(), options).await.unwrap();
        for chunk in data.chunks(MIB) {
            writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        writer.finish().await.unwrap()
    }

    /// Reads a whole image.
    pub(crate) async fn get(&self, location: &Location) -> Result<Vec<u8>, Error> {
        read(self.store.get(location, ..).await?).await
    }

    /// Runs `rados` on the namespace, as the administrator.
    pub(crate) fn rados(&self, arguments: &[&str]) -> Vec<u8> {
        run("rados", &[&["-p", "images", "-N", &self.namespace], arguments].concat())
    }
}

pub(crate) async fn read(mut reader: Reader) -> Result<Vec<u8>, Error> {
    let mut data = Vec::new();
    while let Some(chunk) = reader.try_next().await? {
        data.extend_from_slice(&chunk);
    }
    assert_eq!(reader.remaining(), 0);
    reader.close().await?;
    Ok(data)
}

/// A command that must succeed; its standard output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Bytes without zeroes, the same for the same seed: no two mebibytes alike, and none of them with a pattern (xorshift).
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    static MEBIBYTE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state | 0x0101_0101_0101_0101).to_le_bytes()
        };
        std::iter::repeat_with(&mut next).take(MIB / 8).flatten().collect()
    });
    let mut bytes = Vec::with_capacity(length.next_multiple_of(MIB));
    for number in 0..length.div_ceil(MIB) as u64 {
        let stamp = ((seed << 32) + number).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 0x0101_0101_0101_0101;
        bytes.extend_from_slice(&stamp.to_le_bytes());
        bytes.extend_from_slice(&MEBIBYTE[8..]);
    }
    bytes.truncate(length);
    bytes
}
