use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rbd::{CreateOptions, Features, OpenOptions, Pool};
use store::{AddOptions, CloneOptions, Config, Error, Location, NotCloneable, Operation, Store};

use crate::scratch::{MIB, Scratch, in_scratch, put};

/// Runs a test with the same namespace in another pool too, where clones go.
async fn with_other_pool(scratch: &Scratch, test: impl AsyncFnOnce(Pool)) {
    let vms = scratch.pool.cluster().pool("vms").await.unwrap();
    vms.create_namespace(scratch.pool.namespace()).await.unwrap();
    test(vms.in_namespace(scratch.pool.namespace()).await.unwrap()).await;
    vms.remove_namespace(scratch.pool.namespace()).await.unwrap();
}

fn as_v(format: u8) -> CloneOptions {
    CloneOptions { format: Some(format), ..CloneOptions::default() }
}

/// A Nova that boots from a clone wants it in its own pool, as large as the flavour says, and Glance's image to stay as it is.
#[test]
fn clones_of_both_kinds_in_other_pools_larger_and_with_chosen_features() {
    in_scratch(async |scratch| {
        with_other_pool(&scratch, async |vms| {
            let store = scratch.store(1).await;
            let location = put(&store, "bootable").await;
            for format in [1, 2] {
                let features = Features::LAYERING | Features::EXCLUSIVE_LOCK;
                let options = CloneOptions { size: Some(64 * MIB), features: Some(features), ..as_v(format) };
                store.clone_image(&location, &vms.to_string(), "disk", options).await.unwrap();
                let disk = vms.open_image("disk", OpenOptions::default()).await.unwrap();
                assert_eq!(disk.stat().await.unwrap().size, 64 * MIB);
                assert_eq!(disk.features().await.unwrap().0 & !Features::OPERATIONS.0, features.0);
                assert_eq!(disk.read(0, 8).await.unwrap(), "bootable");
                disk.write(0, "B".into()).await.unwrap();
                disk.close().await.unwrap();
                assert_eq!(crate::scratch::get(&store, &location).await.unwrap(), b"bootable");
                let error = store.clone_image(&location, &vms.to_string(), "disk", as_v(format)).await.unwrap_err();
                assert!(matches!(error, Error::AlreadyExists(_)), "{error}");
                vms.remove("disk").await.unwrap();
                let smaller = CloneOptions { size: Some(4), ..as_v(format) };
                let error = store.clone_image(&location, &vms.to_string(), "disk", smaller).await.unwrap_err();
                assert!(matches!(error, Error::Invalid(_)), "{error}");
                assert_eq!(vms.images().await.unwrap(), [], "nothing is left behind");
            }
            store.delete(&location).await.unwrap();
        })
        .await;
    });
}

/// v2 clones cross namespaces; v1 clones do not, which librbd says as "Invalid cross-device link".
#[test]
fn a_clone_in_another_namespace_is_v2() {
    in_scratch(async |scratch| {
        let store = scratch.store(1).await;
        let location = put(&store, "data").await;
        let name = uuid::Uuid::new_v4().to_string();
        let error = store.clone_image(&location, "images", &name, CloneOptions::default()).await.unwrap_err();
        let other = NotCloneable::OtherNamespace;
        assert!(matches!(&error, Error::NotCloneable { reason, .. } if *reason == other), "{error}");
        store.clone_image(&location, "images", &name, as_v(2)).await.unwrap();
        let children = store.children(&location).await.unwrap();
        assert_eq!((children.len(), children[0].namespace.as_str(), &children[0].name), (1, "", &name));
        store.pool().cluster().pool("images").await.unwrap().remove(&name).await.unwrap();
    });
}

/// A clone with another striping than its parent's reads its parent's objects in another order than they were written.
#[test]
fn a_clone_has_its_parents_striping() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let striped = CreateOptions {
            order: Some(22),
            stripe_unit: Some(65536),
            stripe_count: Some(4),
            ..CreateOptions::default()
        };
        scratch.pool.create("striped", 16 * MIB, striped).await.unwrap();
        let parent = scratch.pool.open_image("striped", OpenOptions::default()).await.unwrap();
        parent.create_snapshot("snap").await.unwrap();
        parent.protect_snapshot("snap").await.unwrap();
        parent.close().await.unwrap();
        let location = store.location_of("striped");
        for format in [1, 2] {
            store.clone_image(&location, &scratch.pool.to_string(), "clone", as_v(format)).await.unwrap();
            let clone = scratch.pool.open_image("clone", OpenOptions::read_only()).await.unwrap();
            let stripes = (clone.stripe_unit().await.unwrap(), clone.stripe_count().await.unwrap());
            assert_eq!(stripes, (65536, 4));
            clone.close().await.unwrap();
            scratch.pool.remove("clone").await.unwrap();
        }
    });
}

/// Nova and Cinder fall back to copying all of an image, silently, when it cannot be cloned: an operator wants to know why.
#[test]
fn what_cannot_be_cloned_says_why() {
    in_scratch(async |scratch| {
        let v1 = scratch.store(1).await;
        let v2 = scratch.store(2).await;
        let location = put(&v1, "data").await;
        let ask = async |store: &Store, location: &str, format: &str| {
            let location: Location = location.parse().unwrap();
            store.is_cloneable(&location, format).await.unwrap()
        };
        let text = location.to_string();
        assert_eq!(ask(&v1, &text, "raw").await, Ok(()));
        assert_eq!(ask(&v1, &text, "qcow2").await, Err(NotCloneable::NotRaw("qcow2".into())));
        assert_eq!(ask(&v1, "rbd://name", "raw").await, Err(NotCloneable::LegacyLocation));
        let foreign = text.replace(v1.fsid(), "other");
        assert_eq!(ask(&v1, &foreign, "raw").await, Err(NotCloneable::ForeignCluster("other".into())));
        for missing in [text.replace("/snap", "/snip"), text.replace("images%2F", "no-pool%2F"), format!("{text}x")] {
            let answer = ask(&v1, &missing, "raw").await;
            assert!(matches!(answer, Err(NotCloneable::NotReadable(_))), "{missing}: {answer:?}");
        }
        let image = scratch.pool.open_image(location.image(), OpenOptions::default()).await.unwrap();
        image.unprotect_snapshot("snap").await.unwrap();
        image.close().await.unwrap();
        assert_eq!(ask(&v1, &text, "raw").await, Err(NotCloneable::Unprotected));
        assert_eq!(ask(&v2, &text, "raw").await, Ok(()));
        let into = scratch.pool.to_string();
        let error = v1.clone_image(&location, &into, "child", CloneOptions::default()).await.unwrap_err();
        assert!(matches!(error, Error::NotCloneable { reason: NotCloneable::Unprotected, .. }), "{error}");
        v2.clone_image(&location, &into, "child", CloneOptions::default()).await.unwrap();
    });
}

/// Clones that are not seen are clones that lose their data.
#[test]
fn clones_are_found_wherever_they_are() {
    in_scratch(async |scratch| {
        with_other_pool(&scratch, async |vms| {
            let store = scratch.store(2).await;
            let location = put(&store, "data").await;
            assert_eq!(store.children(&location).await.unwrap(), []);
            for (pool, name, format) in
                [(&scratch.pool, "here-1", 1), (&scratch.pool, "here-2", 2), (&vms, "there-1", 1), (&vms, "there-2", 2)]
            {
                store.clone_image(&location, &pool.to_string(), name, as_v(format)).await.unwrap();
            }
            vms.trash_move("there-2", Duration::ZERO).await.unwrap();
            let found = store.children(&location).await.unwrap().into_iter();
            let mut found: Vec<_> = found.map(|child| (child.pool, child.name, child.in_trash)).collect();
            found.sort();
            let expected = [("images", "here-1", false), ("images", "here-2", false), ("vms", "there-1", false)];
            let mut expected = expected.map(|(pool, name, trash)| (pool.to_owned(), name.to_owned(), trash)).to_vec();
            expected.push(("vms".into(), "there-2".into(), true));
            assert_eq!(found, expected);
            vms.remove("there-1").await.unwrap();
            let trashed = vms.trash_list().await.unwrap().remove(0);
            vms.trash_remove(&trashed.id, true, rbd::silent()).await.unwrap();
        })
        .await;
    });
}

#[test]
fn a_clone_of_a_clone_is_two_deep() {
    in_scratch(async |scratch| {
        for format in [1, 2] {
            let store = scratch.store(format).await;
            let into = scratch.pool.to_string();
            let mut location = put(&store, "data").await;
            assert_eq!(store.depth(&into, location.image()).await.unwrap(), 0);
            for depth in 1..=3 {
                let name = format!("v{format}-{depth}");
                store.clone_image(&location, &into, &name, CloneOptions::default()).await.unwrap();
                assert_eq!(store.depth(&into, &name).await.unwrap(), depth);
                let clone = scratch.pool.open_image(&name, OpenOptions::default()).await.unwrap();
                clone.create_snapshot("snap").await.unwrap();
                clone.protect_snapshot("snap").await.unwrap();
                clone.close().await.unwrap();
                location = store.location_of(&name);
            }
            store.flatten(&into, &format!("v{format}-2"), rbd::silent()).await.unwrap();
            assert_eq!(store.depth(&into, &format!("v{format}-3")).await.unwrap(), 1);
        }
    });
}

/// An image of `objects` objects of 1 MiB, all with data.
async fn large(store: &Store, objects: u64) -> Location {
    let id = uuid::Uuid::new_v4().to_string();
    let mut writer = store.add(&id, AddOptions::default()).await.unwrap();
    for _ in 0..objects {
        writer.write(vec![7; MIB as usize].into()).await.unwrap();
    }
    writer.finish().await.unwrap().location
}

/// A flatten copies hours of data: it must say how far it is, and stop when told to, leaving a clone that is whole.
#[test]
fn flattening_tells_how_far_it_is_and_can_be_stopped() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let into = scratch.pool.to_string();
        let location = large(&store, 40).await;
        store.clone_image(&location, &into, "clone", CloneOptions::default()).await.unwrap();

        let stop = Box::new(|done, _| if done >= 15 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        let error = store.flatten(&into, "clone", stop).await.unwrap_err();
        assert!(matches!(error, Error::Canceled(_)), "{error}");
        assert_eq!(store.depth(&into, "clone").await.unwrap(), 1);

        // Dropped, it stops at the next object.
        let slow = Box::new(|_, _| {
            std::thread::sleep(Duration::from_millis(50));
            ControlFlow::Continue(())
        });
        tokio::time::timeout(Duration::from_millis(300), store.flatten(&into, "clone", slow)).await.unwrap_err();
        store.settled().await;
        assert_eq!(store.depth(&into, "clone").await.unwrap(), 1);

        let seen = Arc::new(AtomicUsize::new(0));
        let shown = seen.clone();
        let progress = Box::new(move |done, total| {
            assert!(done <= total && total == 40);
            shown.fetch_max(done as usize, Ordering::Relaxed);
            ControlFlow::Continue(())
        });
        store.flatten(&into, "clone", progress).await.unwrap();
        assert!(seen.load(Ordering::Relaxed) > 20, "{seen:?} of 40 objects were told of");
        assert_eq!(store.depth(&into, "clone").await.unwrap(), 0);
        let error = store.flatten(&into, "clone", rbd::silent()).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error}");
        let flattens = store.counters().of(Operation::Flatten);
        assert_eq!((flattens.done, flattens.failed, flattens.dropped), (1, 2, 1));
        let clone = scratch.pool.open_image("clone", OpenOptions::read_only()).await.unwrap();
        assert_eq!(clone.read(39 * MIB, MIB as usize).await.unwrap(), vec![7; MIB as usize]);
        clone.close().await.unwrap();
    });
}

/// Cinder lets three flattens run at once: more of them starve the guests of the cluster.
#[test]
fn no_more_flattens_run_at_once_than_configured() {
    in_scratch(async |scratch| {
        let store = Store::open(Config { flattens: 2, ..scratch.config(2) }).await.unwrap();
        let into = scratch.pool.to_string();
        let location = large(&store, 64).await;
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let names: Vec<_> = (0..5).map(|index| format!("clone-{index}")).collect();
        for name in &names {
            store.clone_image(&location, &into, name, CloneOptions::default()).await.unwrap();
        }
        let mut flattens = tokio::task::JoinSet::new();
        for name in names {
            let (store, into, running, most) = (store.clone(), into.clone(), running.clone(), most.clone());
            flattens.spawn(async move {
                let (inside, mut first) = (running.clone(), true);
                let progress = move |_, _| {
                    if std::mem::take(&mut first) {
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    }
                    ControlFlow::Continue(())
                };
                store.flatten(&into, &name, Box::new(progress)).await.unwrap();
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        flattens.join_all().await;
        assert_eq!(running.load(Ordering::SeqCst), 0);
        let most = most.load(Ordering::SeqCst);
        assert!((1..=2).contains(&most), "{most} at once");
    });
}
