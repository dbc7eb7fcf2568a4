use bytes::Bytes;
use rbd::{ErrorKind, OpenOptions, SnapshotNamespace};

use crate::scratch::{MIB, image, in_scratch};

#[test]
fn a_snapshot_keeps_what_was() {
    in_scratch(async |pool| {
        let head = image(&pool, "a", MIB).await;
        head.write(0, Bytes::from_static(b"old")).await.unwrap();
        head.create_snapshot("snap").await.unwrap();
        head.write(0, Bytes::from_static(b"new")).await.unwrap();
        head.resize(2 * MIB).await.unwrap();
        let snap = pool.open_image("a", OpenOptions::at_snapshot("snap")).await.unwrap();
        assert_eq!(snap.read(0, 3).await.unwrap(), "old");
        assert_eq!(snap.stat().await.unwrap().size, MIB);
        assert_eq!(head.read(0, 3).await.unwrap(), "new");
        snap.close().await.unwrap();
        head.rollback_to_snapshot("snap", rbd::silent()).await.unwrap();
        assert_eq!(head.read(0, 3).await.unwrap(), "old");
    });
}

#[test]
fn a_protected_snapshot_stays() {
    in_scratch(async |pool| {
        let image = image(&pool, "a", MIB).await;
        assert_eq!(image.snapshots().await.unwrap(), []);
        image.create_snapshot("snap").await.unwrap();
        assert_eq!(image.create_snapshot("snap").await.unwrap_err().kind, ErrorKind::AlreadyExists);
        image.protect_snapshot("snap").await.unwrap();
        let list = image.snapshots().await.unwrap();
        let [snap] = list.as_slice() else { panic!("{list:?}") };
        assert_eq!((snap.name.as_str(), snap.size, snap.protected), ("snap", MIB, true));
        assert_eq!(snap.namespace, SnapshotNamespace::User);
        assert!(snap.taken_at.elapsed().unwrap().as_secs() < 60);
        assert_eq!(image.protect_snapshot("snap").await.unwrap_err().kind, ErrorKind::Busy);
        assert_eq!(image.remove_snapshot("snap").await.unwrap_err().kind, ErrorKind::Busy);
        image.unprotect_snapshot("snap").await.unwrap();
        assert_eq!(image.unprotect_snapshot("snap").await.unwrap_err().kind, ErrorKind::InvalidArgument);
        image.remove_snapshot_by_id(snap.id).await.unwrap();
        assert_eq!(image.remove_snapshot("snap").await.unwrap_err().kind, ErrorKind::NotFound);
    });
}

/// `rbd_snap_list` writes one entry more than it counts: a list that just fits its first buffer must not overflow it.
#[test]
fn any_number_of_snapshots_is_listed() {
    in_scratch(async |pool| {
        let image = image(&pool, "a", MIB).await;
        for n in 1..=18 {
            image.create_snapshot(&format!("s{n}")).await.unwrap();
            if n >= 14 {
                assert_eq!(image.snapshots().await.unwrap().len(), n);
            }
        }
    });
}
