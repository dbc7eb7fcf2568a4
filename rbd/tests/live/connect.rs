use std::time::{Duration, Instant};

use rbd::{Cluster, ConnectOptions, ErrorKind};

use crate::scratch::{in_scratch, options};

#[tokio::test]
async fn the_cluster_says_who_it_is() {
    let cluster = Cluster::connect(options()).await.unwrap();
    assert_eq!(cluster.fsid().len(), 36);
    let pools = cluster.pools().await.unwrap();
    assert!(pools.iter().any(|(id, name)| *id > 0 && name == "images"), "{pools:?}");
    let health = cluster.mon_command(r#"{"prefix":"health","format":"json"}"#).await.unwrap();
    assert!(String::from_utf8(health).unwrap().contains("HEALTH_"));
    assert!(cluster.instance_id() > 0);
}

#[tokio::test]
async fn a_missing_conf_is_named() {
    let options = ConnectOptions { conf: Some("/nonexistent/ceph.conf".into()), ..ConnectOptions::default() };
    let error = Cluster::connect(options).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(error.object, "/nonexistent/ceph.conf");
}

#[tokio::test]
async fn an_unknown_setting_is_named() {
    let settings = vec![("rbd_no_such_setting".to_owned(), "1".to_owned())];
    let error = Cluster::connect(ConnectOptions { settings, ..options() }).await.err().unwrap();
    assert!(error.to_string().contains("rbd_no_such_setting = 1"), "{error}");
}

/// A monitor that never answers: librados waits five minutes unless told otherwise.
#[tokio::test]
async fn a_dead_monitor_costs_no_more_than_the_timeout() {
    let settings = vec![
        ("mon_host".to_owned(), "127.0.0.1:1".to_owned()),
        ("key".to_owned(), "AQBbWW5nAAAAABAAfZ0mZ7gMiw6T0qz6v3Vb0A==".to_owned()),
    ];
    let started = Instant::now();
    let options = ConnectOptions { timeout: Some(Duration::from_secs(2)), settings, ..options() };
    let error = Cluster::connect(options).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_wrong_key_is_refused() {
    let settings = vec![("key".to_owned(), "AQBbWW5nAAAAABAAfZ0mZ7gMiw6T0qz6v3Vb0A==".to_owned())];
    let error = Cluster::connect(ConnectOptions { settings, ..options() }).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
}

#[tokio::test]
async fn a_pool_that_is_not_there_is_named() {
    let cluster = Cluster::connect(options()).await.unwrap();
    let error = cluster.pool("no-such-pool").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(error.object, "pool no-such-pool");
}

/// What the user may not do is said to be forbidden, never an empty list.
#[test]
fn a_read_only_user_reads_and_writes_nothing() {
    in_scratch(async |pool| {
        let cluster = Cluster::connect(ConnectOptions { user: Some("scan".into()), ..options() }).await.unwrap();
        let same = cluster.pool("images").await.unwrap().in_namespace(pool.namespace()).await.unwrap();
        assert_eq!(same.images().await.unwrap(), []);
        let error = same.create("image", 1, rbd::CreateOptions::default()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    });
}
