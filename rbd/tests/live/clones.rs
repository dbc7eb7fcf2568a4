use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use rbd::{CreateOptions, ErrorKind, OpenOptions, Pool};

use crate::scratch::{MIB, golden, in_scratch};

async fn clone(pool: &Pool, child: &str, format: u8) {
    let options = CreateOptions { clone_format: Some(format), ..CreateOptions::default() };
    pool.clone_image("golden", "snap", pool, child, options).await.unwrap();
}

#[test]
fn a_clone_reads_its_parent_and_writes_to_itself() {
    in_scratch(async |pool| {
        golden(&pool, "golden", 8 * MIB, b"parent").await;
        for format in [1, 2] {
            let name = format!("child-{format}");
            clone(&pool, &name, format).await;
            let child = pool.open_image(&name, OpenOptions::default()).await.unwrap();
            assert_eq!(child.read(0, 6).await.unwrap(), "parent");
            child.write(0, Bytes::from_static(b"child!")).await.unwrap();
            assert_eq!(child.read(0, 6).await.unwrap(), "child!");
            let parent = child.parent().await.unwrap().unwrap();
            assert_eq!((parent.image.name.as_str(), parent.snapshot.as_str()), ("golden", "snap"));
            assert_eq!((parent.image.pool.as_str(), parent.overlap), ("images", 8 * MIB));
            assert_eq!(parent.image.namespace, pool.namespace());
            assert_eq!(child.ancestors().await.unwrap(), [parent]);
        }
        let golden = pool.open_image("golden", OpenOptions::at_snapshot("snap")).await.unwrap();
        assert_eq!(golden.read(0, 6).await.unwrap(), "parent");
        assert_eq!(golden.parent().await.unwrap(), None);
        let mut children: Vec<_> = golden.children().await.unwrap().into_iter().map(|c| (c.name, c.in_trash)).collect();
        children.sort();
        assert_eq!(children, [("child-1".to_owned(), false), ("child-2".to_owned(), false)]);
        // Both show at the head too, and in the trash.
        pool.trash_move("child-2", std::time::Duration::ZERO).await.unwrap();
        let head = pool.open_image("golden", OpenOptions::read_only()).await.unwrap();
        assert_eq!(head.children().await.unwrap().iter().filter(|child| child.in_trash).count(), 1);
    });
}

#[test]
fn a_v1_clone_needs_protection_and_keeps_it() {
    in_scratch(async |pool| {
        golden(&pool, "golden", MIB, b"parent").await;
        clone(&pool, "child", 1).await;
        let head = pool.open_image("golden", OpenOptions::default()).await.unwrap();
        assert_eq!(head.unprotect_snapshot("snap").await.unwrap_err().kind, ErrorKind::Busy);
        head.create_snapshot("bare").await.unwrap();
        let options = CreateOptions { clone_format: Some(1), ..CreateOptions::default() };
        let error = pool.clone_image("golden", "bare", &pool, "other", options).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
    });
}

#[test]
fn flattening_reports_and_ends_the_relation() {
    in_scratch(async |pool| {
        golden(&pool, "golden", 64 * MIB, b"parent").await;
        clone(&pool, "child", 2).await;
        let child = pool.open_image("child", OpenOptions::default()).await.unwrap();
        let seen = Arc::new(AtomicU64::new(0));
        let progress = seen.clone();
        child
            .flatten(Box::new(move |done, total| {
                assert!(done <= total);
                progress.store(total, Ordering::Relaxed);
                ControlFlow::Continue(())
            }))
            .await
            .unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 16, "objects");
        assert_eq!(child.parent().await.unwrap(), None);
        assert_eq!(child.read(0, 6).await.unwrap(), "parent");
        assert_eq!(child.flatten(rbd::silent()).await.unwrap_err().kind, ErrorKind::InvalidArgument);
    });
}

#[test]
fn a_stopped_flatten_leaves_a_whole_clone() {
    in_scratch(async |pool| {
        golden(&pool, "golden", 4096 * MIB, b"parent").await;
        clone(&pool, "child", 2).await;
        let child = pool.open_image("child", OpenOptions::default()).await.unwrap();
        let stop = Box::new(|done, _| if done >= 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        assert_eq!(child.flatten(stop).await.unwrap_err().kind, ErrorKind::Canceled);
        assert!(child.parent().await.unwrap().is_some());
        assert_eq!(child.read(0, 6).await.unwrap(), "parent");
        // Dropping the future stops it as well: the next flatten finds a parent.
        drop(tokio::time::timeout(std::time::Duration::from_millis(20), child.flatten(rbd::silent())).await);
        child.close().await.unwrap();
        let child = pool.open_image("child", OpenOptions::default()).await.unwrap();
        assert_eq!(child.read(0, 6).await.unwrap(), "parent");
    });
}
