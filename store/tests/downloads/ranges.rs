//! Any range of bytes. The stock driver takes an offset, ignores it, and returns the whole image.

use futures_util::TryStreamExt;
use store::{Config, Error};

use crate::scratch::{MIB, config, in_scratch, noise, read};

#[test]
fn any_range_is_what_was_asked_for() {
    in_scratch(config(), |scratch| async move {
        let data = noise(1, 5 * MIB + 1234);
        let end = data.len() as u64;
        let location = scratch.put(&data).await.location;
        let mib = MIB as u64;
        let ranges = [
            (0, end),
            (0, 0),
            (0, 1),
            (end, end),
            (end - 1, end),
            (mib - 1, mib + 1),
            (mib, 2 * mib),
            (1, end - 1),
            (3 * mib + 5, 3 * mib + 9),
            (2 * mib - 7, 5 * mib + 3),
        ];
        for (start, end) in ranges {
            let reader = scratch.store.get(&location, start..end).await.unwrap();
            assert_eq!((reader.size(), reader.remaining()), (data.len() as u64, end - start));
            assert!(read(reader).await.unwrap() == data[start as usize..end as usize], "{start}..{end}");
        }
        let beyond = scratch.store.get(&location, 10..u64::MAX).await.unwrap();
        assert!(read(beyond).await.unwrap() == data[10..], "ends with the image");
        let refused = scratch.store.get(&location, end + 1..).await.err();
        assert!(matches!(refused, Some(Error::Invalid(_))), "{refused:?}");
    });
}

/// However small the window, and whatever the sizes of objects and chunks: all bytes, in order.
#[test]
fn windows_and_objects_of_any_size() {
    for (chunk_size, window) in [(1, 1), (1, 64), (32, 1), (8, 3)] {
        in_scratch(Config { chunk_size, window, ..config() }, |scratch| async move {
            let data = noise(2, 41 * MIB + 7);
            let location = scratch.put(&data).await.location;
            assert!(scratch.get(&location).await.unwrap() == data);
            let range = scratch.store.get(&location, 4_000_000..40_000_000).await.unwrap();
            assert!(read(range).await.unwrap() == data[4_000_000..40_000_000]);
        });
    }
}

/// An image of stripes, such as `rbd create --stripe-count` makes: an object is no range of bytes there.
#[test]
fn striped_images_are_read_whole() {
    in_scratch(config(), |scratch| async move {
        let (name, data) = ("striped", noise(3, 3 * MIB));
        let spec = format!("images/{}/{name}", scratch.namespace);
        let run = |arguments: &[&str]| crate::scratch::run("rbd", &[&["--id", "glance"], arguments].concat());
        run(&["create", &spec, "--size", "12M", "--object-size", "1M", "--stripe-unit", "64K", "--stripe-count", "4"]);
        let pool = scratch.store.pool();
        let image = pool.open_image(name, rbd::OpenOptions::default()).await.unwrap();
        image.write(2 * MIB as u64, data.clone().into()).await.unwrap();
        image.close().await.unwrap();
        run(&["snap", "create", "--no-progress", &format!("{spec}@snap")]);
        run(&["snap", "protect", &format!("{spec}@snap")]);
        let got = scratch.get(&scratch.store.location_of(name)).await.unwrap();
        assert!(got.len() == 12 * MIB && got[2 * MIB..5 * MIB] == data);
        assert!(got[..2 * MIB].iter().chain(&got[5 * MIB..]).all(|&byte| byte == 0));
    });
}

/// Objects in another pool than the image's header, as with erasure coding.
#[test]
fn data_in_a_pool_of_its_own() {
    in_scratch(Config { data_pool: Some("volumes".into()), ..config() }, |scratch| async move {
        let data = noise(5, 3 * MIB + 5);
        let location = scratch.put(&data).await.location;
        assert!(!String::from_utf8(scratch.rados(&["ls"])).unwrap().contains("rbd_data"));
        assert!(scratch.get(&location).await.unwrap() == data);
    });
}

/// What a reader had in flight goes with it, and so does its hold on the image and on the connection.
#[test]
fn a_dropped_reader_leaves_nothing() {
    in_scratch(config(), |scratch| async move {
        let data = noise(4, 20 * MIB);
        let location = scratch.put(&data).await.location;
        for pieces in 0..4 {
            let mut reader = scratch.store.get(&location, ..).await.unwrap();
            for _ in 0..pieces {
                reader.try_next().await.unwrap().unwrap();
            }
        }
        // As its last part: an image that is still open somewhere is not closed yet.
        scratch.store.settled().await;
        scratch.store.delete(&location).await.unwrap();
        assert!(matches!(scratch.get(&location).await, Err(Error::NotFound(_))));
    });
}
