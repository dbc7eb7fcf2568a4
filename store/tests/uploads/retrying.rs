//! An id that is stored again: after its writer was killed, while it is alive, and when it is no leftover at all.

use std::time::Duration;

use bytes::Bytes;
use rbd::{CreateOptions, OpenOptions};
use store::{AddOptions, Error, Store, UPLOAD_MARK};

use crate::{
    child::Uploader,
    lab::{Lab, MIB, config, id, in_pool, noise, sh},
};

/// With the stock driver the partial image stays, and every retry is told that it exists.
///
/// Twenty uploads are killed at different moments, the first before anything was created and some while they are being finished,
/// and each is retried at once, while Ceph still believes its writer to be alive.
#[test]
fn twenty_killed_uploads_are_retried_at_once() {
    in_pool(
        |_| {},
        async |lab| {
            let (lab, data) = (std::sync::Arc::new(lab), noise(7, 9 * MIB));
            let retries = (0..20_u64).map(|n| {
                let (lab, data) = (lab.clone(), data.clone());
                tokio::spawn(async move {
                    let name = id();
                    // Some are killed with all their data written, on their way to the snapshot.
                    let (pieces, delay) = if n % 4 == 3 { (2, 60 + n * 30) } else { (10_000, n * 23) };
                    let mut child = Uploader::start(lab.pool_name(), &name, pieces);
                    let done = tokio::task::spawn_blocking(move || {
                        child.wait_for("connected").expect("it connects");
                        std::thread::sleep(Duration::from_millis(delay));
                        child.kill()
                    });
                    let done = done.await.unwrap();
                    match lab.put(&name, AddOptions::default(), &data).await {
                        Ok(added) => {
                            assert!(!done, "a stored image was replaced, killed after {delay} ms");
                            lab.check(&added, &data).await;
                        }
                        // Killed when it was whole, be it only just: then it stays as it is.
                        Err(Error::AlreadyExists(_)) if pieces == 2 => {
                            let stat = lab.store.stat(&lab.store.location_of(&name)).await.unwrap();
                            assert_eq!((stat.bytes, stat.snapshots.len()), (2 * MIB as u64, 1));
                            assert_eq!(mark(&lab, &name).await, None);
                        }
                        Err(error) => panic!("killed after {delay} ms: {error}"),
                    }
                    name
                })
            });
            let names: Vec<String> =
                futures_util::future::join_all(retries).await.into_iter().map(Result::unwrap).collect();
            lab.holds_only(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        },
    );
}

async fn mark(lab: &Lab, name: &str) -> Option<String> {
    let image = lab.store.pool().open_image(name, OpenOptions::read_only()).await.unwrap();
    let mark = image.metadata(UPLOAD_MARK).await.unwrap();
    image.close().await.unwrap();
    mark
}

/// Two uploads of one id: the later is refused, through the same store or another, and the earlier notices nothing.
#[test]
fn a_live_upload_is_never_touched() {
    in_pool(
        |_| {},
        async |lab| {
            let (name, data) = (id(), noise(1, 20 * MIB));
            let mut writer = lab.store.add(&name, AddOptions::default()).await.unwrap();
            writer.write(data.slice(..9 * MIB)).await.unwrap();
            let other = Store::open(config(lab.pool_name())).await.unwrap();
            for store in [&lab.store, &other, &other] {
                // The other store is another client, which asks this one whether it lives.
                let refused = store.add(&name, AddOptions::default()).await.err().unwrap();
                assert!(matches!(refused, Error::AlreadyExists(_)), "{refused}");
            }
            writer.write(data.slice(9 * MIB..)).await.unwrap();
            let added = writer.finish().await.unwrap();
            lab.check(&added, &data).await;
            for store in [&lab.store, &other] {
                let refused = store.add(&name, AddOptions::default()).await.err().unwrap();
                assert!(matches!(refused, Error::AlreadyExists(_)), "{refused}");
            }
            lab.check(&added, &data).await;
            lab.holds_only(&[&name]).await;
        },
    );
}

/// Killed between creating its image and marking it, or in the middle of creating it: what is there could be somebody's who is
/// just beginning, so it is watched for a while first.
#[test]
fn an_upload_killed_before_it_could_mark_its_image_is_retried_too() {
    in_pool(
        |_| {},
        async |lab| {
            let (unmarked, mapless, headless, nameless) = (id(), id(), id(), id());
            let pool = lab.store.pool();
            for name in [&unmarked, &mapless, &headless] {
                pool.create(name, 8 << 20, CreateOptions::default()).await.unwrap();
            }
            for (name, object) in [(&mapless, "rbd_object_map"), (&headless, "rbd_header")] {
                let image = pool.open_image(name, OpenOptions::read_only()).await.unwrap();
                let object = format!("{object}.{}", image.id().await.unwrap());
                image.close().await.unwrap();
                sh("rados", &["-p", lab.pool_name(), "rm", &object]);
            }
            // The first thing that is written of an image: its length and its id.
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("id").display().to_string();
            std::fs::write(&file, b"\x0c\0\0\0aaaaaaaaaaaa").unwrap();
            sh("rados", &["-p", lab.pool_name(), "put", &format!("rbd_id.{nameless}"), &file]);
            let data = noise(1, MIB);
            let (a, b, c, d) = tokio::join!(
                lab.put(&unmarked, AddOptions::default(), &data),
                lab.put(&mapless, AddOptions::default(), &data),
                lab.put(&headless, AddOptions::default(), &data),
                lab.put(&nameless, AddOptions::default(), &data),
            );
            for added in [a, b, c, d] {
                lab.check(&added.unwrap(), &data).await;
            }
            lab.holds_only(&[&unmarked, &mapless, &headless, &nameless]).await;
        },
    );
}

/// What carries no mark is not this store's to remove: a partial upload of the stock driver, a disk of Nova's or Cinder's.
#[test]
fn what_is_no_leftover_is_left_alone() {
    in_pool(
        |_| {},
        async |lab| {
            let pool = lab.store.pool();
            let (partial, damaged, snapped, cloned, golden) = (id(), id(), id(), id(), id());
            for name in [&partial, &damaged, &snapped] {
                pool.create(name, 8 << 20, CreateOptions::default()).await.unwrap();
                let image = pool.open_image(name, OpenOptions::default()).await.unwrap();
                let map = format!("rbd_object_map.{}", image.id().await.unwrap());
                if name != &snapped {
                    image.write(0, Bytes::from_static(b"data")).await.unwrap();
                } else {
                    image.create_snapshot("backup").await.unwrap();
                }
                image.close().await.unwrap();
                if name == &damaged {
                    sh("rados", &["-p", lab.pool_name(), "rm", &map]);
                }
            }
            let parent = lab.put(&golden, AddOptions::default(), &noise(1, MIB)).await.unwrap();
            lab.store
                .clone_image(&parent.location, &pool.to_string(), &cloned, store::CloneOptions::default())
                .await
                .unwrap();
            let before = pool.images().await.unwrap();
            for name in [&partial, &damaged, &snapped, &cloned, &golden] {
                let refused = lab.put(name, AddOptions::default(), &noise(1, MIB)).await.unwrap_err();
                assert!(matches!(refused, Error::AlreadyExists(_)), "{refused}");
            }
            assert_eq!(pool.images().await.unwrap(), before, "the same, by id");
            assert_eq!(
                sh("rbd", &["snap", "ls", &format!("{}/{snapped}", lab.pool_name())]).matches("backup").count(),
                1
            );
        },
    );
}
