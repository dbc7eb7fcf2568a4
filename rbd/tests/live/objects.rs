use futures_util::future::join_all;
use rbd::{CreateOptions, ErrorKind, ReadOp};

use crate::scratch::{MIB, golden, in_scratch};

/// What the scan lives on: everything about an image in one read of its header.
#[test]
fn one_read_tells_all_of_a_header() {
    in_scratch(async |pool| {
        golden(&pool, "a", MIB, b"data").await;
        let id = pool.images().await.unwrap().remove(0).id;
        let wanted = ReadOp::new().omap("", "", 1024).stat().exec("lock", "get_info", lock_name("rbd_lock"));
        let header = pool.read_object(&format!("rbd_header.{id}"), &wanted).await.unwrap();
        let value = |key: &str| header.omap.iter().find(|(k, _)| k == key.as_bytes()).map(|(_, value)| value.clone());
        assert_eq!(value("size").unwrap(), MIB.to_le_bytes());
        assert!(header.omap.iter().any(|(key, _)| key.starts_with(b"snapshot_")));
        assert!(!header.more);
        assert!(header.stat.unwrap().1.elapsed().unwrap().as_secs() < 60);
        assert!(!header.execs[0].is_empty(), "an empty list of lockers is still encoded");
        let directory = pool.omap("rbd_directory", "name_").await.unwrap();
        assert_eq!(directory.len(), 1);
        assert_eq!(directory[0].0, b"name_a");
    });
}

fn lock_name(name: &str) -> Vec<u8> {
    // A struct of version 1 with a single string.
    let mut encoded = vec![1, 1];
    encoded.extend((4 + name.len() as u32).to_le_bytes());
    encoded.extend((name.len() as u32).to_le_bytes());
    encoded.extend(name.as_bytes());
    encoded
}

#[test]
fn a_missing_object_and_an_unknown_method_are_errors() {
    in_scratch(async |pool| {
        let error = pool.read_object("none", &ReadOp::new()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert_eq!(error.object, pool.path("none"));
        assert_eq!(pool.omap("none", "").await.unwrap_err().kind, ErrorKind::NotFound);
        pool.create("a", 1, CreateOptions::default()).await.unwrap();
        let wanted = ReadOp::new().exec("rbd", "no_such_method", Vec::new());
        assert_eq!(pool.read_object("rbd_directory", &wanted).await.unwrap_err().kind, ErrorKind::Unsupported);
        let data = pool.read_object("rbd_id.a", &ReadOp::new().data(0, 100)).await.unwrap().data;
        assert!(data.len() > 4 && data.len() < 40, "a short object gives what there is");
    });
}

#[test]
fn many_reads_are_in_flight_at_once() {
    in_scratch(async |pool| {
        golden(&pool, "a", MIB, b"data").await;
        let reads =
            join_all((0..5000).map(|_| pool.read_object("rbd_directory", &ReadOp::new().omap("", "", 10)))).await;
        assert!(reads.into_iter().all(|read| read.is_ok_and(|read| !read.omap.is_empty())));
    });
}
