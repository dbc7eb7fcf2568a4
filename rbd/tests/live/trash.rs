use std::time::{Duration, SystemTime};

use rbd::{ErrorKind, OpenOptions, TrashSource, TrashState};

use crate::scratch::{MIB, golden, image, in_scratch};

#[test]
fn what_is_in_the_trash_comes_back() {
    in_scratch(async |pool| {
        golden(&pool, "a", MIB, b"data").await;
        pool.trash_move("a", Duration::from_secs(3600)).await.unwrap();
        assert_eq!(pool.images().await.unwrap(), []);
        let list = pool.trash_list().await.unwrap();
        let [entry] = list.as_slice() else { panic!("{list:?}") };
        assert_eq!((entry.name.as_str(), entry.source), ("a", TrashSource::User));
        assert!(entry.deferred_until > entry.deleted_at + Duration::from_secs(3500));
        let error = pool.trash_remove(&entry.id, false, rbd::silent()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "deferred: {error}");
        let inside = pool.open_image_by_id(&entry.id, OpenOptions::at_snapshot("snap")).await.unwrap();
        assert_eq!(inside.read(0, 4).await.unwrap(), "data");
        inside.close().await.unwrap();
        pool.trash_restore(&entry.id, "b").await.unwrap();
        let back = pool.open_image("b", OpenOptions::at_snapshot("snap")).await.unwrap();
        assert_eq!(back.id().await.unwrap(), entry.id);
        assert_eq!(back.read(0, 4).await.unwrap(), "data");
    });
}

/// The stock tools stop at the first entry they cannot remove, and do not say which it was.
#[test]
fn a_purge_goes_past_what_it_cannot_remove_and_names_it() {
    in_scratch(async |pool| {
        golden(&pool, "held", MIB, b"data").await;
        image(&pool, "free", MIB).await.close().await.unwrap();
        image(&pool, "deferred", MIB).await.close().await.unwrap();
        pool.trash_move("held", Duration::ZERO).await.unwrap();
        pool.trash_move("free", Duration::ZERO).await.unwrap();
        pool.trash_move("deferred", Duration::from_secs(3600)).await.unwrap();
        let later = SystemTime::now() + Duration::from_secs(2);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut purged: Vec<_> = pool
            .trash_purge(later)
            .await
            .unwrap()
            .into_iter()
            .map(|(e, r)| (e.name, r.err().map(|e| e.kind)))
            .collect();
        purged.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(purged, [("free".to_owned(), None), ("held".to_owned(), Some(ErrorKind::NotEmpty))]);
        let mut left: Vec<_> = pool.trash_list().await.unwrap().into_iter().map(|entry| entry.name).collect();
        left.sort();
        assert_eq!(left, ["deferred", "held"]);
    });
}

/// Ceph moves an image to the trash under the feet of its writer; whoever trashes must look for watchers afterwards.
#[test]
fn a_trashed_image_still_shows_its_writer() {
    in_scratch(async |pool| {
        let writer = image(&pool, "a", MIB).await;
        writer.write(0, b"data".as_slice().into()).await.unwrap();
        assert!(writer.holds_lock().await.unwrap());
        pool.trash_move("a", Duration::ZERO).await.unwrap();
        let entry = pool.trash_list().await.unwrap().remove(0);
        let reader = pool.open_image_by_id(&entry.id, OpenOptions::read_only()).await.unwrap();
        assert_eq!(reader.watchers().await.unwrap().len(), 1);
        reader.close().await.unwrap();
        pool.trash_restore(&entry.id, "a").await.unwrap();
        // Only a lock that its owner keeps, rather than gives up on request, is respected.
        writer.acquire_lock().await.unwrap();
        assert_eq!(pool.trash_move("a", Duration::ZERO).await.unwrap_err().kind, ErrorKind::Busy);
        writer.close().await.unwrap();
    });
}

/// librbd moves in several writes and marks the entry while it is at it. Cut off there, the image can be neither restored nor
/// removed by librbd any more: the mark must be read, and taken away, by somebody else.
#[test]
fn a_move_that_was_cut_off_can_be_ended() {
    in_scratch(async |pool| {
        golden(&pool, "a", MIB, b"data").await;
        assert_eq!(pool.trash_state("nothing").await.unwrap(), None);
        pool.trash_move("a", Duration::ZERO).await.unwrap();
        let id = pool.trash_list().await.unwrap().remove(0).id;
        assert_eq!(pool.trash_state(&id).await.unwrap(), Some(TrashState::Normal));
        assert_eq!(pool.name_of(&id).await.unwrap(), None);
        assert_eq!(pool.trash_state(&id[..id.len() - 1]).await.unwrap(), None, "another id that begins like it");

        pool.trash_set_state(&id, TrashState::Normal, TrashState::Moving).await.unwrap();
        assert_eq!(pool.trash_state(&id).await.unwrap(), Some(TrashState::Moving));
        assert_eq!(pool.trash_restore(&id, "a").await.unwrap_err().kind, ErrorKind::Busy);
        assert!(pool.trash_remove(&id, true, rbd::silent()).await.is_err());
        let wrong = pool.trash_set_state(&id, TrashState::Removing, TrashState::Normal).await;
        assert!(wrong.is_err(), "it is in neither state");

        pool.trash_set_state(&id, TrashState::Moving, TrashState::Normal).await.unwrap();
        pool.trash_set_state(&id, TrashState::Moving, TrashState::Normal).await.unwrap(); // is there already
        pool.trash_restore(&id, "a").await.unwrap();
        assert_eq!(pool.name_of(&id).await.unwrap().as_deref(), Some("a"));
        assert_eq!(pool.name_of(&id[..id.len() - 1]).await.unwrap(), None, "another id that begins like it");
        let gone = pool.trash_set_state(&id, TrashState::Moving, TrashState::Normal).await.unwrap_err();
        assert_eq!(gone.kind, ErrorKind::NotFound);
    });
}
