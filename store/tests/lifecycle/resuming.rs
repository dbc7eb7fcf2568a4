//! Removals that were cut off: the next one of the same location goes on.

use std::time::Duration;

use rbd::{OpenOptions, TrashState};
use store::{Error, Location, Removed, Store};

use crate::scratch::{Scratch, in_scratch, put};

/// Takes back writes of a finished move to the trash, so that it looks as if its program had been killed after `writes` of the
/// four: the trash's entry, the name's object, the directory, the entry's state.
async fn cut_off_after(scratch: &Scratch, name: &str, id: &str, writes: usize, state: TrashState) {
    let string = |text: &str| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    if writes < 3 {
        scratch.rados(&["setomapval", "rbd_directory", &format!("name_{name}")], &string(id));
        scratch.rados(&["setomapval", "rbd_directory", &format!("id_{id}")], &string(name));
    }
    if writes < 2 {
        scratch.rados(&["put", &format!("rbd_id.{name}"), "-"], &string(id));
    }
    let key = format!("id_{id}");
    let mut entry = scratch.pool.omap_value("rbd_trash", &key).await.unwrap().unwrap();
    *entry.last_mut().unwrap() = match state {
        TrashState::Moving => 1,
        TrashState::Removing => 2,
        TrashState::Restoring => 3,
        _ => 0,
    };
    scratch.rados(&["setomapval", "rbd_trash", &key], &entry);
    assert_eq!(scratch.pool.trash_state(id).await.unwrap(), Some(state));
}

async fn trashed(scratch: &Scratch, store: &Store) -> (Location, String) {
    let location = put(store, "data").await;
    let image = scratch.pool.open_image(location.image(), OpenOptions::read_only()).await.unwrap();
    let id = image.id().await.unwrap();
    image.close().await.unwrap();
    scratch.pool.trash_move(location.image(), Duration::ZERO).await.unwrap();
    (location, id)
}

/// Nothing of it is left: neither by name nor by id, in the trash, or as objects.
async fn gone(scratch: &Scratch, name: &str, id: &str) {
    assert_eq!(scratch.pool.images().await.unwrap(), []);
    assert_eq!(scratch.trash().await, [""; 0]);
    let left = String::from_utf8(scratch.rados(&["ls"], b"")).unwrap();
    assert!(!left.contains(id) && !left.contains(name), "{left}");
}

/// A Glance that is killed in mid-delete left an image in the trash half-way: not to be opened by name, so that every later
/// delete said "not found", and not to be removed from the trash either ("pending moving"). Its space was lost.
#[test]
fn a_move_to_the_trash_that_was_cut_off_is_taken_up() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        for state in [TrashState::Moving, TrashState::Restoring] {
            for writes in 1..=3 {
                let (location, id) = trashed(&scratch, &store).await;
                cut_off_after(&scratch, location.image(), &id, writes, state).await;
                let removed = store.delete(&location).await;
                assert_eq!(removed.unwrap(), Removed::Gone, "after {writes} writes, {state:?}");
                gone(&scratch, location.image(), &id).await;
            }
        }
    });
}

/// Killed later, the image is in the trash with or without its snapshot, or is being removed from there.
#[test]
fn a_removal_that_was_cut_off_in_the_trash_is_taken_up() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        for step in ["trashed", "unprotected", "without snapshot", "removing", "without header"] {
            let (location, id) = trashed(&scratch, &store).await;
            if step != "trashed" {
                let image = scratch.pool.open_image_by_id(&id, OpenOptions::default()).await.unwrap();
                image.unprotect_snapshot("snap").await.unwrap();
                if step != "unprotected" {
                    image.remove_snapshot("snap").await.unwrap();
                }
                image.close().await.unwrap();
            }
            if step == "without header" {
                scratch.rados(&["rm", &format!("rbd_header.{id}")], b"");
                scratch.rados(&["rm", &format!("rbd_object_map.{id}")], b"");
                scratch.rados(&["rm", &format!("rbd_data.{id}.0000000000000000")], b"");
            }
            if step.starts_with("removing") || step == "without header" {
                cut_off_after(&scratch, location.image(), &id, 3, TrashState::Removing).await;
            }
            assert_eq!(store.delete(&location).await.unwrap(), Removed::Gone, "{step}");
            gone(&scratch, location.image(), &id).await;
            assert!(matches!(store.delete(&location).await, Err(Error::NotFound(_))), "{step}");
        }
    });
}

/// What was cut off and is in use now is put back, whole; without its snapshot it is no image any more and stays in the trash.
#[test]
fn what_is_in_use_again_is_put_back_if_it_is_whole() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        for whole in [true, false] {
            let (location, id) = trashed(&scratch, &store).await;
            let user = scratch.pool.open_image_by_id(&id, OpenOptions::default()).await.unwrap();
            if !whole {
                user.unprotect_snapshot("snap").await.unwrap();
                user.remove_snapshot("snap").await.unwrap();
            }
            assert!(matches!(store.delete(&location).await, Err(Error::InUse(_))));
            if whole {
                assert!(scratch.state(location.image()).await.contains("protected: true"));
            }
            assert_eq!(scratch.trash().await.len(), usize::from(!whole));
            user.close().await.unwrap();
            assert_eq!(store.delete(&location).await.unwrap(), Removed::Gone);
            gone(&scratch, location.image(), &id).await;
        }
    });
}

/// Processes killed at random moments of a removal: each time the next one gets to the end of it, once the watch of the dead
/// has gone (about 30 s), and nothing is left.
#[test]
fn removals_killed_at_random_moments_are_taken_up() {
    if let Some(location) = std::env::var_os("TEST_DELETE") {
        return delete_and_die(&location.into_string().unwrap());
    }
    let kills = if std::env::var_os("GLANCE_RBD_LONG").is_some() { 100 } else { 8 };
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let mut cases = tokio::task::JoinSet::new();
        for case in 0..kills {
            let (store, pool) = (store.clone(), scratch.pool.to_string());
            cases.spawn(async move {
                let location = put(&store, "data").await;
                let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "resuming::removals_killed_at_random_moments_are_taken_up", "--nocapture"])
                    .env("TEST_DELETE", location.to_string())
                    .env("TEST_DELETE_POOL", pool)
                    .stdout(std::process::Stdio::piped())
                    .stderr(std::process::Stdio::null())
                    .spawn()
                    .unwrap();
                // It says when it begins; the moment after that is what varies.
                let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap());
                let mut line = String::new();
                while !line.contains("DELETING") {
                    line.clear();
                    let read = tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line).await.unwrap();
                    assert_ne!(read, 0, "the child ended early");
                }
                tokio::time::sleep(Duration::from_millis(case * 1500 / kills)).await;
                child.start_kill().unwrap();
                child.wait().await.unwrap();
                loop {
                    match store.delete(&location).await {
                        Ok(_) | Err(Error::NotFound(_)) => return,
                        Err(Error::InUse(_)) => tokio::time::sleep(Duration::from_secs(1)).await,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        cases.join_all().await;
        gone(&scratch, "rbd_id.", "rbd_header.").await;
    });
}

fn delete_and_die(location: &str) {
    let pool = std::env::var("TEST_DELETE_POOL").unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Store::open(store::Config { pool, ..store::Config::default() }).await.unwrap();
        println!("DELETING");
        let _ = store.delete(&location.parse().unwrap()).await;
        // Killed here at the latest.
        std::future::pending::<()>().await;
    });
}
