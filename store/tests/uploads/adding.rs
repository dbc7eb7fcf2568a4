//! What is stored, and what is refused.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use store::{AddOptions, Error, Refusal, Verifier};

use crate::lab::{MIB, id, in_pool, noise};

const CHUNK: usize = 8 * MIB;

fn sized(size: u64) -> AddOptions {
    AddOptions { size: Some(size), ..AddOptions::default() }
}

#[test]
fn any_size_in_any_pieces_with_and_without_announcement() {
    in_pool(
        |_| {},
        async |lab| {
            let mut names = Vec::new();
            for (length, piece) in
                [(0, 1), (1, 1), (CHUNK, CHUNK), (CHUNK + 1, 100_000), (3 * CHUNK - 5, 5 * CHUNK / 2)]
            {
                for size in [None, Some(length as u64)] {
                    let (name, data) = (id(), noise(length as u64, length));
                    let options = AddOptions { size, ..AddOptions::default() };
                    let mut writer = lab.store.add(&name, options).await.unwrap();
                    for piece in data.chunks(piece) {
                        writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
                    }
                    assert_eq!(writer.taken(), length as u64);
                    lab.check(&writer.finish().await.unwrap(), &data).await;
                    names.push(name);
                }
            }
            lab.holds_only(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        },
    );
}

/// Glance passes no size for most uploads; the image grows ahead of the data, and is trimmed.
#[test]
fn an_image_of_unknown_size_grows_as_data_comes() {
    in_pool(
        |_| {},
        async |lab| {
            let (name, data) = (id(), noise(1, MIB));
            let mut writer =
                lab.store.add(&name, AddOptions { digests: false, ..AddOptions::default() }).await.unwrap();
            for _ in 0..5 {
                writer.write(data.clone()).await.unwrap();
                writer.skip((3 << 30) + 4096).await.unwrap();
            }
            writer.write(data.clone()).await.unwrap();
            let added = writer.finish().await.unwrap();
            let step = (3 << 30) + 4096 + MIB as u64;
            assert_eq!(added.bytes, 5 * step + MIB as u64);
            assert_eq!((added.checksum.as_str(), added.multihash.as_str()), ("", ""));
            assert_eq!(lab.store.size(&added.location).await.unwrap(), added.bytes);
            for n in 0..6 {
                use futures_util::TryStreamExt;
                let start = n * step;
                let reader = lab.store.get(&added.location, start..start + MIB as u64).await.unwrap();
                let read: Vec<Bytes> = reader.try_collect().await.unwrap();
                assert!(read.concat() == data, "piece {n}");
            }
            assert!(lab.stored(&added).await <= 12 * CHUNK as u64);
        },
    );
}

/// The stock driver answers Invalid too, but an exception that is not an `Exception` leaves the image behind.
#[test]
fn data_longer_or_shorter_than_announced_is_refused_and_gone() {
    in_pool(
        |_| {},
        async |lab| {
            let data = noise(1, CHUNK + 10);
            for announced in [0, 5, CHUNK as u64, data.len() as u64 - 1] {
                let error = lab.put(&id(), sized(announced), &data).await.unwrap_err();
                assert!(matches!(error, Error::SizeMismatch { expected, .. } if expected == announced), "{error}");
                let mut writer = lab.store.add(&id(), sized(announced)).await.unwrap();
                let error = writer.skip(data.len() as u64).await.unwrap_err();
                assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
                assert!(writer.write(data.clone()).await.is_err(), "it cannot go on");
                assert!(writer.finish().await.is_err());
            }
            for announced in [data.len() as u64 + 1, 1 << 40] {
                let error = lab.put(&id(), sized(announced), &data).await.unwrap_err();
                let said = (announced, data.len() as u64);
                assert!(
                    matches!(error, Error::SizeMismatch { expected, actual } if (expected, actual) == said),
                    "{error}"
                );
            }
            lab.holds_only(&[]).await;
        },
    );
}

/// Glance keeps with a location which of its stores it is in; where there is one only, nothing.
#[test]
fn what_is_stored_says_where_and_is_counted() {
    in_pool(
        |config| config.backend = Some("ceph-east".into()),
        async |lab| {
            let data = noise(1, MIB);
            let added = lab.put(&id(), AddOptions::default(), &data).await.unwrap();
            assert_eq!(added.metadata, [("store".to_owned(), "ceph-east".to_owned())].into());
            lab.put(&id(), sized(5), &data).await.unwrap_err();
            lab.put(added.location.image(), AddOptions::default(), &data).await.unwrap_err();
            drop(lab.store.add(&id(), AddOptions::default()).await.unwrap());
            let adds = lab.store.counters().of(store::Operation::Add);
            assert_eq!((adds.begun, adds.done, adds.failed, adds.dropped, adds.bytes), (4, 1, 2, 1, MIB as u64));
            lab.store.settled().await;
        },
    );
    in_pool(
        |_| {},
        async |lab| {
            let added = lab.put(&id(), AddOptions::default(), &noise(1, MIB)).await.unwrap();
            assert!(added.metadata.is_empty());
        },
    );
}

#[test]
fn an_unknown_digest_is_refused_before_anything_is_made() {
    in_pool(
        |_| {},
        async |lab| {
            let options = |name: &str| AddOptions { hash_algorithm: name.into(), ..AddOptions::default() };
            let error = lab.put(&id(), options("crc32"), &Bytes::new()).await.unwrap_err();
            assert!(matches!(error, Error::BadConfiguration(_)), "{error}");
            lab.holds_only(&[]).await;
            let added = lab.put(&id(), options("sha3_256"), &Bytes::from_static(b"abc")).await.unwrap();
            assert!(added.multihash.starts_with("3a985da7"), "{added:?}");
            let added = lab.put(&id(), options("md5"), &Bytes::from_static(b"abc")).await.unwrap();
            assert_eq!(added.multihash, added.checksum);
        },
    );
}

/// What a verifier saw.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<(Vec<u8>, bool)>>);

impl Verifier for Seen {
    fn update(&mut self, data: &[u8]) -> Result<(), Refusal> {
        self.0.lock().unwrap().0.extend_from_slice(data);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), Refusal> {
        self.0.lock().unwrap().1 = true;
        Ok(())
    }
}

/// Refuses data with more than so many bytes.
struct AtMost(usize);

impl Verifier for AtMost {
    fn update(&mut self, data: &[u8]) -> Result<(), Refusal> {
        self.0 = self.0.checked_sub(data.len()).ok_or("a bad signature")?;
        Ok(())
    }
}

#[test]
fn verifiers_see_all_in_order_and_may_refuse() {
    in_pool(
        |_| {},
        async |lab| {
            let (name, data) = (id(), noise(1, 2 * CHUNK + 77));
            let (seen, other) = (Seen::default(), Seen::default());
            let mut writer = lab.store.add(&name, AddOptions::default()).await.unwrap();
            writer.verify(seen.clone()).unwrap();
            writer.verify(other.clone()).unwrap();
            writer.write(data.clone()).await.unwrap();
            assert!(writer.verify(Seen::default()).is_err(), "too late");
            writer.skip(10).await.unwrap();
            writer.finish().await.unwrap();
            let expected = ([&data[..], &[0; 10]].concat(), true);
            assert!(*seen.0.lock().unwrap() == expected && *other.0.lock().unwrap() == expected);

            // At the beginning, and so late that only the end tells.
            for most in [0, data.len() - 1] {
                let mut writer = lab.store.add(&id(), AddOptions::default()).await.unwrap();
                writer.verify(AtMost(most)).unwrap();
                let written = async {
                    for _ in 0..4 {
                        writer.write(data.slice(..data.len() / 4 + 1)).await?;
                    }
                    writer.finish().await
                };
                let error = written.await.unwrap_err();
                assert!(matches!(&error, Error::Rejected(why) if why.contains("a bad signature")), "{error}");
            }
            // One of an upload that is given up is not told that it was all.
            let seen = Seen::default();
            let mut writer = lab.store.add(&id(), AddOptions::default()).await.unwrap();
            writer.verify(seen.clone()).unwrap();
            writer.write(data).await.unwrap();
            writer.abort().await;
            lab.holds_only(&[&name]).await;
            while Arc::strong_count(&seen.0) > 1 {
                tokio::task::yield_now().await;
            }
            assert!(!seen.0.lock().unwrap().1);
        },
    );
}

/// The stock driver waits for ever in a full pool, and what it wrote stays.
#[test]
fn a_full_pool_refuses_at_once_and_keeps_nothing() {
    in_pool(
        |_| {},
        async |lab| {
            crate::lab::sh("ceph", &["osd", "pool", "set-quota", lab.pool_name(), "max_bytes", "41943040"]);
            let mut stored: Vec<String> = Vec::new();
            let refused = loop {
                let name = id();
                match lab.put(&name, AddOptions { digests: false, ..AddOptions::default() }, &noise(1, CHUNK)).await {
                    Ok(_) => stored.push(name),
                    Err(error) => break error,
                }
                assert!(stored.len() < 500, "the quota must bite some time");
            };
            assert!(matches!(refused, Error::StorageFull(_)), "{refused}");
            // Full in mid-upload, before and after; nothing is left of any.
            for _ in 0..3 {
                let refused = lab.put(&id(), AddOptions::default(), &noise(2, 5 * CHUNK)).await.unwrap_err();
                assert!(matches!(refused, Error::StorageFull(_)), "{refused}");
            }
            lab.holds_only(&stored.iter().map(String::as_str).collect::<Vec<_>>()).await;
        },
    );
}
