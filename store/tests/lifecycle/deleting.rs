use std::time::Duration;

use rbd::{CreateOptions, OpenOptions};
use store::{CloneOptions, Config, Error, Location, Removed, Store};

use crate::scratch::{MIB, Scratch, get, in_scratch, put};

/// Deletes, which must be refused, and looks whether that changed anything.
async fn refused(scratch: &Scratch, store: &Store, location: &Location, why: &str) {
    let before = scratch.state(location.image()).await;
    let error = store.delete(location).await.unwrap_err();
    assert!(matches!(&error, Error::InUse(text) if text.contains(why)), "{error}");
    assert_eq!(scratch.state(location.image()).await, before);
    assert_eq!(scratch.trash().await, [""; 0]);
}

/// With a writer attached, the stock driver answers "in use" but has removed the snapshot already: downloads are empty from
/// then on, and the image can never be cloned again. A refused removal changes nothing.
#[test]
fn an_image_that_is_open_for_writing_is_left_as_it_is() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let location = put(&store, "precious").await;
        let writer = scratch.pool.open_image(location.image(), OpenOptions::default()).await.unwrap();
        refused(&scratch, &store, &location, "open for writing").await;
        // One that holds the exclusive lock, too.
        writer.write(0, "P".into()).await.unwrap();
        refused(&scratch, &store, &location, "open for writing").await;
        assert_eq!(get(&store, &location).await.unwrap(), b"precious");
        writer.close().await.unwrap();
        assert_eq!(store.delete(&location).await.unwrap(), Removed::Gone);
        assert!(matches!(store.delete(&location).await, Err(Error::NotFound(_))));
    });
}

/// A v1 clone lives off its parent: Glance answers 409, and the parent stays whole. A v2 clone keeps a parent that has been
/// removed, in the trash, until it goes itself.
#[test]
fn clones_of_both_kinds_keep_their_data() {
    in_scratch(async |scratch| {
        for format in [1, 2] {
            let store = scratch.store(format).await;
            let location = put(&store, "parent").await;
            store.clone_image(&location, &scratch.pool.to_string(), "child", CloneOptions::default()).await.unwrap();
            let child = scratch.pool.open_image("child", OpenOptions::read_only()).await.unwrap();
            if format == 1 {
                refused(&scratch, &store, &location, "clones").await;
            } else {
                assert_eq!(store.delete(&location).await.unwrap(), Removed::InTrash);
                assert!(matches!(get(&store, &location).await, Err(Error::NotFound(_))));
                assert!(matches!(store.delete(&location).await, Err(Error::NotFound(_))), "it is gone by name");
                assert_eq!(scratch.trash().await, [location.image()]);
            }
            assert_eq!(child.read(0, 6).await.unwrap(), "parent");
            child.close().await.unwrap();
            scratch.pool.remove("child").await.unwrap();
            if format == 1 {
                assert_eq!(store.delete(&location).await.unwrap(), Removed::Gone);
            } else {
                // Deleted once more, it takes the rest along, as a purge would.
                assert_eq!(store.delete(&location).await.unwrap(), Removed::Gone);
            }
            assert_eq!(scratch.trash().await, [""; 0]);
        }
    });
}

/// An image may have clones of both kinds; the v1 clone must be seen beside the v2 one.
#[test]
fn a_v1_clone_is_seen_beside_a_v2_clone() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let location = put(&store, "parent").await;
        for format in [2, 1] {
            let options = CloneOptions { format: Some(format), ..CloneOptions::default() };
            store.clone_image(&location, &scratch.pool.to_string(), &format!("child-{format}"), options).await.unwrap();
        }
        refused(&scratch, &store, &location, "clones").await;
    });
}

/// Glance's user may list only its own pool, and Nova's clones are in another: a v1 clone there made the listing of clones
/// fail with "permission denied", which Glance answers with 500 instead of 409. Whether there are clones may be asked.
#[test]
fn a_v1_clone_in_a_pool_that_may_not_be_listed_is_in_use() {
    in_scratch(async |scratch| {
        let admin = scratch.pool.cluster();
        let user = format!("test-{}", uuid::Uuid::new_v4());
        let create = serde_json::json!({
            "prefix": "auth get-or-create", "format": "json", "entity": format!("client.{user}"),
            "caps": ["mon", "profile rbd", "osd", "profile rbd pool=images"],
        });
        let created = admin.mon_command(&create.to_string()).await.unwrap();
        let created: serde_json::Value = serde_json::from_slice(&created).unwrap();
        let key = created[0]["key"].as_str().unwrap().to_owned();
        let config = Config { user: Some(user.clone()), ..scratch.config(1) };
        let settings = [("key".to_owned(), key)].into_iter().chain(config.settings.clone()).collect();
        let store = Store::open(Config { settings, ..config }).await.unwrap();

        let location = put(&store, "parent").await;
        let vms = admin.pool("vms").await.unwrap();
        vms.create_namespace(scratch.pool.namespace()).await.unwrap();
        let vms_here = vms.in_namespace(scratch.pool.namespace()).await.unwrap();
        let options = CreateOptions { clone_format: Some(1), ..CreateOptions::default() };
        scratch.pool.clone_image(location.image(), "snap", &vms_here, "disk", options).await.unwrap();
        refused(&scratch, &store, &location, "clones").await;
        vms_here.remove("disk").await.unwrap();
        assert_eq!(store.delete(&location).await.unwrap(), Removed::Gone);

        vms.remove_namespace(scratch.pool.namespace()).await.unwrap();
        let remove = serde_json::json!({ "prefix": "auth rm", "entity": format!("client.{user}") });
        admin.mon_command(&remove.to_string()).await.unwrap();
    });
}

/// Somebody's backup is a snapshot of the image; removing the image would take it along, or fail half-way.
#[test]
fn snapshots_of_others_keep_an_image() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let location = put(&store, "data").await;
        let image = scratch.pool.open_image(location.image(), OpenOptions::default()).await.unwrap();
        image.create_snapshot("backup").await.unwrap();
        image.close().await.unwrap();
        refused(&scratch, &store, &location, "\"backup\"").await;
        let image = scratch.pool.open_image(location.image(), OpenOptions::default()).await.unwrap();
        image.remove_snapshot("backup").await.unwrap();
        image.close().await.unwrap();
        assert_eq!(store.delete(&location).await.unwrap(), Removed::Gone);
    });
}

/// Ceph refuses to remove a member of a group only after its snapshot has gone.
#[test]
fn a_member_of_a_group_is_in_use() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let location = put(&store, "data").await;
        let image = scratch.pool.path(location.image());
        let group = scratch.pool.path("together");
        scratch.rbd(&["group", "create", &group]);
        scratch.rbd(&["group", "image", "add", &group, &image]);
        refused(&scratch, &store, &location, "the group \"together\"").await;
        scratch.rbd(&["group", "image", "rm", &group, &image]);
        scratch.rbd(&["group", "rm", &group]);
        assert_eq!(store.delete(&location).await.unwrap(), Removed::Gone);
    });
}

/// Moving a mirrored image to the trash ends its mirroring, for good: the copy on the other site would go as well.
#[test]
fn a_mirrored_image_is_in_use() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let location = put(&store, "data").await;
        let (pool, image) = (scratch.pool.to_string(), scratch.pool.path(location.image()));
        // Of its own accord it mirrors nothing; without it, Ceph cannot end the mirroring of an image in a namespace.
        scratch.rbd(&["mirror", "pool", "enable", "images", "image"]);
        scratch.rbd(&["mirror", "pool", "enable", &pool, "image"]);
        scratch.rbd(&["mirror", "image", "enable", &image, "snapshot"]);
        refused(&scratch, &store, &location, "is mirrored").await;
        scratch.rbd(&["mirror", "image", "disable", &image]);
        scratch.rbd(&["mirror", "pool", "disable", &pool]);
        assert_eq!(store.delete(&location).await.unwrap(), Removed::Gone);
    });
}

/// A snapshot that somebody has unprotected or removed is no reason to keep the image.
#[test]
fn a_snapshot_that_is_unprotected_or_missing_is_no_error() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        for missing in [false, true] {
            let location = put(&store, "data").await;
            let image = scratch.pool.open_image(location.image(), OpenOptions::default()).await.unwrap();
            image.unprotect_snapshot("snap").await.unwrap();
            if missing {
                image.remove_snapshot("snap").await.unwrap();
            }
            image.close().await.unwrap();
            assert_eq!(store.delete(&location).await.unwrap(), Removed::Gone);
        }
    });
}

/// Glance goes away in mid-request; half a removal is worse than either end of it.
#[test]
fn a_removal_that_nobody_waits_for_ends_all_the_same() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let location = put(&store, "data").await;
        // Polled until it has begun, then dropped.
        let _ = tokio::time::timeout(Duration::from_millis(20), store.delete(&location)).await;
        store.settled().await;
        let left = scratch.pool.images().await.unwrap();
        assert!(left.is_empty() || scratch.state(location.image()).await.contains("protected: true"), "{left:?}");
        assert_eq!(scratch.trash().await, [""; 0]);
        if !left.is_empty() {
            store.delete(&location).await.unwrap();
        }
    });
}

/// Two locations of different images may name one RBD image; deleting the first takes the second's data. The store cannot
/// know: the second answer is "not found", clearly, and the reconciler reports such images as `shared-location`.
#[test]
fn of_two_locations_of_one_image_the_second_is_not_found() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let first = put(&store, "shared").await;
        let second: Location = first.to_string().parse().unwrap();
        assert_eq!(store.delete(&first).await.unwrap(), Removed::Gone);
        assert!(matches!(get(&store, &second).await, Err(Error::NotFound(_))));
        assert!(matches!(store.delete(&second).await, Err(Error::NotFound(_))));
    });
}

/// What somebody has moved to the trash to be kept for a week is not Glance's to remove before that.
#[test]
fn an_image_that_is_kept_in_the_trash_stays_there() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let location = put(&store, "kept").await;
        scratch.pool.trash_move(location.image(), Duration::from_secs(7 * 86400)).await.unwrap();
        assert!(matches!(store.delete(&location).await, Err(Error::NotFound(_))));
        assert_eq!(scratch.trash().await, [location.image()]);
        // Another image of the same name is another image.
        scratch.pool.create(location.image(), MIB, CreateOptions::default()).await.unwrap();
        assert_eq!(store.delete(&location).await.unwrap(), Removed::Gone);
        assert_eq!(scratch.trash().await, [location.image()]);
    });
}
