//! What is not written: zeroes in thin mode, and holes of the source.

use std::{fs::File, os::unix::fs::FileExt};

use bytes::Bytes;
use store::{AddOptions, SparseFile};

use crate::lab::{MIB, id, in_pool, noise};

const KIB: usize = 1 << 10;

/// The stock driver leaves out chunks that are all zero, and no shorter run.
#[test]
fn thin_mode_leaves_out_runs_of_zeroes_inside_chunks() {
    let noise = noise(1, 20 * MIB);
    let mut data = noise.to_vec();
    // Inside a chunk, over the edge of one, a whole chunk and more, short ones, and the end.
    for (start, length) in [(MIB, 3 * MIB), (7 * MIB, 4 * MIB), (12 * MIB, 60 * KIB), (19 * MIB, MIB)] {
        data[start..start + length].fill(0);
    }
    data.resize(60 * MIB, 0);
    let data = Bytes::from(data);
    for thin in [false, true] {
        in_pool(
            |config| config.thin = thin,
            async |lab| {
                let added = lab.put(&id(), AddOptions::default(), &data).await.unwrap();
                lab.check(&added, &data).await;
                let used = lab.store.stat(&added.location).await.unwrap().used;
                let objects = lab.stored(&added).await;
                if thin {
                    // Objects are as long as their last byte: 7, 8 and 3 MiB.
                    assert_eq!((used, objects), (24 * MIB as u64, 18 * MIB as u64));
                } else {
                    assert_eq!(objects, 60 * MIB as u64);
                }
            },
        );
    }
}

/// A file of 64 GiB with 64 MiB of data: the holes are neither read nor written, so this takes seconds. The stock driver reads,
/// hashes and, unless told to be thin, writes all 64 GiB.
#[test]
fn holes_of_a_file_are_neither_read_nor_stored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse.raw");
    let file = File::create(&path).unwrap();
    let length = 64 << 30;
    file.set_len(length).unwrap();
    let data = noise(1, 4 * MIB);
    // Where objects do not begin, too.
    let places: Vec<u64> = (0..16).map(|n| n * (4 << 30) + (n % 3) * (8 * MIB as u64)).collect();
    for &place in &places {
        file.write_all_at(&data, place).unwrap();
    }
    in_pool(
        |_| {},
        async |lab| {
            let begun = std::time::Instant::now();
            let options = AddOptions { size: Some(length), digests: false, ..AddOptions::default() };
            let mut writer = lab.store.add(&id(), options).await.unwrap();
            let mut file = SparseFile::new(File::open(&path).unwrap());
            let mut taken = 0;
            loop {
                match writer.read_from(&mut file).await.unwrap() {
                    0 => break,
                    more => taken += more,
                }
            }
            assert_eq!(taken, length);
            let added = writer.finish().await.unwrap();
            assert_eq!(added.bytes, length);
            let stored = lab.stored(&added).await;
            println!("64 GiB with 64 MiB of data: {:?}, {} MiB stored", begun.elapsed(), stored >> 20);
            assert!(stored <= 72 << 20, "{stored} bytes");
            for place in places {
                use futures_util::TryStreamExt;
                let range = place.saturating_sub(4096)..place + data.len() as u64 + 4096;
                let before = (place - range.start) as usize;
                let read: Vec<Bytes> =
                    lab.store.get(&added.location, range).await.unwrap().try_collect().await.unwrap();
                let read = read.concat();
                assert!(read[before..before + data.len()] == data, "at {place}");
                assert!(read[..before].iter().chain(&read[before + data.len()..]).all(|&byte| byte == 0));
            }
        },
    );
}

/// A file of any shape is the same image as its bytes, digests included.
#[test]
fn a_sparse_file_is_stored_as_it_reads() {
    let directory = tempfile::tempdir().unwrap();
    let shapes: [(u64, &[(u64, usize)]); 5] = [
        (0, &[]),
        (30 << 20, &[]),
        (20 << 20, &[(0, 20 * MIB)]),
        ((33 << 20) + 5, &[(4096, 4096), (100 << 10, 4096), (9 << 20, 3 * MIB), (32 << 20, MIB + 5)]),
        (26 << 20, &[(0, 1), (8 << 20, 1), ((24 << 20) - 1, 1)]),
    ];
    in_pool(
        |_| {},
        async |lab| {
            for (number, (length, parts)) in shapes.into_iter().enumerate() {
                let path = directory.path().join(number.to_string());
                let file = File::create(&path).unwrap();
                file.set_len(length).unwrap();
                for &(start, length) in parts {
                    file.write_all_at(&noise(start, length), start).unwrap();
                }
                let mut writer = lab.store.add(&id(), AddOptions::default()).await.unwrap();
                let mut file = SparseFile::new(File::open(&path).unwrap());
                while writer.read_from(&mut file).await.unwrap() > 0 {}
                let added = writer.finish().await.unwrap();
                lab.check(&added, &std::fs::read(&path).unwrap()).await;
            }
        },
    );
}

/// Skipping is writing zeroes, wherever it begins and ends.
#[test]
fn holes_and_data_mix() {
    in_pool(
        |_| {},
        async |lab| {
            let mut writer = lab.store.add(&id(), AddOptions::default()).await.unwrap();
            let mut data = Vec::new();
            for (n, length) in [1, 5 * MIB, 8 * MIB, 1, 16 * MIB, 3 * MIB, 70 * KIB].into_iter().enumerate() {
                let written = noise(n as u64, length / 2 + 1);
                writer.write(written.clone()).await.unwrap();
                data.extend_from_slice(&written);
                writer.skip(length as u64).await.unwrap();
                data.resize(data.len() + length, 0);
            }
            lab.check(&writer.finish().await.unwrap(), &data).await;
        },
    );
}
