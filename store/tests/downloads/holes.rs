//! Holes are not read, where the object map can be believed.

use std::path::PathBuf;

use futures_util::TryStreamExt;
use store::Location;

use crate::scratch::{MIB, Scratch, config, in_scratch, noise, run};

/// An image of three objects, all of which hold data, and the object map of its snapshot.
async fn image(scratch: &Scratch) -> (Vec<u8>, Location, String) {
    let data = noise(1, 3 * MIB);
    let location = scratch.put(&data).await.location;
    let image = scratch.store.pool().open_image(location.image(), rbd::OpenOptions::read_only()).await.unwrap();
    let (id, snapshot) = (image.id().await.unwrap(), image.snapshots().await.unwrap().remove(0).id);
    image.close().await.unwrap();
    (data, location, format!("rbd_object_map.{id}.{snapshot:016x}"))
}

/// Lets `change` edit a RADOS object.
fn edit(scratch: &Scratch, object: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let file = std::env::temp_dir().join(format!("{}-{object}", scratch.namespace));
    let _removed = Removed(file.clone());
    let path = file.display().to_string();
    scratch.rados(&["get", object, &path]);
    let mut bytes = std::fs::read(&file).unwrap();
    change(&mut bytes);
    std::fs::write(&file, bytes).unwrap();
    scratch.rados(&["put", object, &path]);
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn crc32c(data: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ (0x82F6_3B78 * (crc & 1));
    data.iter().fold(0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), bit))
}

/// Says that the second object does not exist; the checksum agrees.
fn hide_the_second(map: &mut [u8]) {
    const STATES: usize = 18;
    map[STATES] &= 0b1100_1111;
    let sum = crc32c(&map[STATES..=STATES]);
    let end = map.len() - 4;
    map[end..].copy_from_slice(&sum.to_le_bytes());
}

/// Shown by a map that lies: the object that it denies is not read.
#[test]
fn what_the_map_says_is_missing_is_not_read() {
    in_scratch(config(), |scratch| async move {
        let (data, location, map) = image(&scratch).await;
        edit(&scratch, &map, |map| hide_the_second(map));
        let got = scratch.get(&location).await.unwrap();
        assert!(got[..MIB] == data[..MIB] && got[2 * MIB..] == data[2 * MIB..]);
        assert!(got[MIB..2 * MIB].iter().all(|&byte| byte == 0));
    });
}

/// A map that is marked invalid (as after a crash of a writer), or whose checksum is wrong, or that is of another length:
/// believed, it would hide data.
#[test]
fn a_map_that_may_be_wrong_is_not_believed() {
    in_scratch(config(), |scratch| async move {
        let (data, location, map) = image(&scratch).await;
        edit(&scratch, &map, |map| hide_the_second(map));
        let header = format!("rbd_header.{}", map.split('.').nth(1).unwrap());
        let snapshot = u64::from_str_radix(map.split('.').nth(2).unwrap(), 16).unwrap();
        let flag = |flags: u64| {
            let script = "import os, rados, struct, sys\n\
                cluster = rados.Rados(conffile=os.environ['CEPH_CONF'], rados_id='glance'); cluster.connect()\n\
                pool = cluster.open_ioctx('images'); pool.set_namespace(sys.argv[1])\n\
                flags = struct.pack('<QQQ', int(sys.argv[4]), 3, int(sys.argv[3]))\n\
                pool.execute(sys.argv[2], 'rbd', 'set_flags', flags)";
            let (snapshot, flags) = (snapshot.to_string(), flags.to_string());
            run("/usr/bin/python3", &["-c", script, &scratch.namespace, &header, &snapshot, &flags]);
        };
        for flags in [1, 3] {
            flag(flags);
            assert!(scratch.get(&location).await.unwrap() == data, "with flags {flags}");
        }
        flag(0);
        assert!(scratch.get(&location).await.unwrap() != data, "this test shows nothing");
        // librbd of Ceph 16 cannot even open a snapshot whose map is damaged.
        edit(&scratch, &map, |map| *map.last_mut().unwrap() ^= 1);
        assert!(scratch.get(&location).await.unwrap() == data, "with a wrong checksum");
        edit(&scratch, &map, |map| map.truncate(9));
        assert!(scratch.get(&location).await.unwrap() == data, "cut short");
        scratch.rados(&["rm", &map]);
        assert!(scratch.get(&location).await.unwrap() == data, "without a map");
    });
}

/// What a clone does not have it takes from its parent: a hole of its own map is no hole.
#[test]
fn a_clones_holes_are_its_parents_data() {
    in_scratch(config(), |scratch| async move {
        let (data, location, _) = image(&scratch).await;
        let pool = format!("images/{}", scratch.namespace);
        for (format, name) in [("1", "first"), ("2", "second")] {
            let (parent, clone) = (format!("{pool}/{}@snap", location.image()), format!("{pool}/{name}"));
            run("rbd", &["--id", "glance", "clone", "--rbd-default-clone-format", format, &parent, &clone]);
            run("rbd", &["--id", "glance", "snap", "create", "--no-progress", &format!("{clone}@snap")]);
            let got = scratch.get(&scratch.store.location_of(name)).await.unwrap();
            assert!(got == data, "clone format {format}");
            scratch.store.delete(&scratch.store.location_of(name)).await.unwrap();
        }
    });
}

/// 2 TiB with two objects: two million reads, if holes were read.
#[test]
fn a_vast_empty_image_takes_a_moment() {
    in_scratch(config(), |scratch| async move {
        const SIZE: u64 = 2 << 40;
        let spec = format!("images/{}/vast", scratch.namespace);
        run("rbd", &["--id", "glance", "create", &spec, "--size", "2T", "--object-size", "1M"]);
        let image = scratch.store.pool().open_image("vast", rbd::OpenOptions::default()).await.unwrap();
        let (near, far) = (noise(5, 100), noise(6, 100));
        image.write(12_345_678, near.clone().into()).await.unwrap();
        image.write(SIZE - 100, far.clone().into()).await.unwrap();
        image.create_snapshot("snap").await.unwrap();
        image.protect_snapshot("snap").await.unwrap();
        image.close().await.unwrap();

        let mut reader = scratch.store.get(&scratch.store.location_of("vast"), ..).await.unwrap();
        let (mut at, mut found) = (0, Vec::new());
        while let Some(chunk) = reader.try_next().await.unwrap() {
            // Zeroes of holes are all the same ones.
            if chunk.first() != Some(&0) || chunk.last() != Some(&0) || chunk.len() != MIB || at == 11 * MIB as u64 {
                found.extend(chunk.iter().zip(at..).filter(|(byte, _)| **byte != 0).map(|(byte, at)| (at, *byte)));
            }
            at += chunk.len() as u64;
        }
        assert_eq!(at, SIZE);
        let expected = (12_345_678..).zip(near).chain((SIZE - 100..).zip(far));
        assert!(found.into_iter().eq(expected));
    });
}
