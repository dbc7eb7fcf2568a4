//! Uploads that nobody wants any more, given up at any moment.

use std::time::Duration;

use store::{AddOptions, Error};
use tokio::time::timeout;

use crate::lab::{MIB, id, in_pool, noise};

/// The stock driver cleans up after an `Exception` only: a cancelled task leaves what it wrote.
#[test]
fn a_dropped_upload_is_removed_with_writes_in_flight() {
    in_pool(
        |_| {},
        async |lab| {
            for mib in [0, 1, 8, 40] {
                let mut writer = lab.store.add(&id(), AddOptions::default()).await.unwrap();
                writer.write(noise(1, mib * MIB)).await.unwrap();
                drop(writer);
            }
            let mut writer = lab.store.add(&id(), AddOptions::default()).await.unwrap();
            writer.write(noise(1, 20 * MIB)).await.unwrap();
            writer.abort().await;
            lab.holds_only(&[]).await;
        },
    );
}

/// A retry finds what its predecessor left half cleaned up; it waits for that, and is not told that the image exists.
#[test]
fn an_upload_dropped_at_any_moment_can_be_retried_at_once() {
    in_pool(
        |_| {},
        async |lab| {
            let (name, data) = (id(), noise(1, 12 * MIB));
            // While it is created, …
            for milliseconds in (0..120).step_by(6) {
                drop(timeout(Duration::from_millis(milliseconds), lab.store.add(&name, AddOptions::default())).await);
            }
            // … written, …
            for milliseconds in [0, 5, 20, 60] {
                let mut writer = lab.store.add(&name, AddOptions::default()).await.unwrap();
                let written = async {
                    for _ in 0..20 {
                        writer.write(data.clone()).await.unwrap();
                    }
                };
                drop(timeout(Duration::from_millis(milliseconds), written).await);
            }
            // … finished.
            for milliseconds in [0, 10, 50, 100, 200, 400, 600, 800, 1000] {
                let mut writer = lab.store.add(&name, AddOptions::default()).await.unwrap();
                writer.write(data.clone()).await.unwrap();
                if let Ok(finished) = timeout(Duration::from_millis(milliseconds), writer.finish()).await {
                    lab.store.delete(&finished.unwrap().location).await.unwrap();
                }
            }
            let added = lab.put(&name, AddOptions::default(), &data).await.unwrap();
            lab.check(&added, &data).await;
            lab.holds_only(&[&name]).await;
        },
    );
}

#[test]
fn a_write_dropped_half_way_ends_the_upload() {
    in_pool(
        |config| config.window = 1,
        async |lab| {
            let mut writer = lab.store.add(&id(), AddOptions::default()).await.unwrap();
            let write = timeout(Duration::ZERO, writer.write(noise(1, 64 * MIB))).await;
            assert!(write.is_err(), "64 MiB do not fit a window of one chunk");
            assert!(matches!(writer.write(noise(1, 1)).await, Err(Error::Invalid(_))));
            assert!(matches!(writer.finish().await, Err(Error::Invalid(_))));
            lab.holds_only(&[]).await;
        },
    );
}
