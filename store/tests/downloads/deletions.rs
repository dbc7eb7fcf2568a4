//! Deleting an image while it is read.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use store::{Config, Error};

use crate::scratch::{MIB, Scratch, config, in_scratch, noise};

/// How one download went.
#[derive(Debug, PartialEq)]
enum Ended {
    Whole,
    Refused,
}

/// Downloads an image at some pace, and deletes it after `pieces` were read, or before the first, or after all; from then on
/// both go on side by side, or the deletion first.
async fn download(scratch: Arc<Scratch>, number: u64) -> Ended {
    let data = noise(number, 12 * MIB);
    let location = scratch.put(&data).await.location;
    let mut reader = scratch.store.get(&location, ..).await.unwrap();
    let (delete_after, wait, pace) = (number % 14, number.is_multiple_of(3), Duration::from_millis(number * 7 % 150));
    let (mut got, mut deletion) = (Vec::new(), None);
    let mut ended = Ended::Whole;
    for piece in 0.. {
        if piece == delete_after {
            let (store, location) = (scratch.store.clone(), location.clone());
            let delete = tokio::spawn(async move { store.delete(&location).await });
            if wait {
                delete.await.unwrap().unwrap();
            } else {
                deletion = Some(delete);
            }
        }
        match reader.try_next().await {
            Ok(Some(piece)) => got.extend_from_slice(&piece),
            Ok(None) => break,
            Err(Error::NotFound(_)) => {
                ended = Ended::Refused;
                break;
            }
            Err(error) => panic!("{error}"),
        }
        if deletion.is_some() {
            tokio::time::sleep(pace).await;
        }
    }
    if let Some(deletion) = deletion {
        deletion.await.unwrap().unwrap();
    }
    assert!(got == data[..got.len()], "never wrong bytes: download {number}");
    assert!(ended == Ended::Refused || got.len() == data.len(), "never less with success: download {number}");
    ended
}

/// The stock driver goes on with success, and with zeroes from where the deletion has caught up: a reader holds no watch
/// that would make Ceph refuse the removal, and what is removed reads as zeroes.
#[test]
fn fifty_deletions_in_mid_download_never_give_wrong_bytes() {
    // A window of two objects: most are read after the deletion.
    in_scratch(Config { window: 2, ..config() }, |scratch| async move {
        let downloads = stream::iter(0..50).map(|number| tokio::spawn(download(scratch.clone(), number)));
        let ended: Vec<Ended> = downloads.buffer_unordered(25).map(Result::unwrap).collect().await;
        let refused = ended.iter().filter(|&ended| *ended == Ended::Refused).count();
        println!("{refused} of {} downloads were refused in the middle, the others whole", ended.len());
        assert!(refused > 0 && refused < ended.len(), "no deletion met a download; this test shows nothing");
    });
}

/// The holes of an image that was removed are its own, if it still was there when they were learnt, or an error.
#[test]
fn a_removed_image_has_no_holes() {
    in_scratch(Config { window: 1, ..config() }, |scratch| async move {
        let mut data = noise(1, 6 * MIB);
        data[2 * MIB..4 * MIB].fill(0);
        let location = scratch.put(&data).await.location;
        let mut reader = scratch.store.get(&location, ..).await.unwrap();
        reader.try_next().await.unwrap().unwrap();
        scratch.store.delete(&location).await.unwrap();
        let mut read = MIB;
        let error = loop {
            match reader.try_next().await {
                Ok(piece) => {
                    let piece = piece.expect("the last object cannot be read any more");
                    assert!(piece == data[read..read + piece.len()]);
                    read += piece.len();
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::NotFound(_)), "{error}");
        assert!(reader.next().await.is_none(), "the end, behind an error");
    });
}
