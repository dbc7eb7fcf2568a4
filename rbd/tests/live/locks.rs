use std::time::Duration;

use rbd::{Cluster, ErrorKind, OpenOptions};

use crate::scratch::{MIB, image, in_scratch, options};

#[test]
fn a_kept_lock_shuts_others_out_until_it_is_broken() {
    in_scratch(async |pool| {
        let first = image(&pool, "a", MIB).await;
        assert_eq!(first.lock_owner().await.unwrap(), None);
        first.acquire_lock().await.unwrap();
        assert!(first.holds_lock().await.unwrap());

        let other = Cluster::connect(options()).await.unwrap();
        let there = other.pool("images").await.unwrap().in_namespace(pool.namespace()).await.unwrap();
        let second = there.open_image("a", OpenOptions::default()).await.unwrap();
        first.prepare_to_write().await.unwrap();
        second.prepare_to_write().await.unwrap_err();
        let error = second.acquire_lock().await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::ReadOnly | ErrorKind::Busy), "{error}");
        assert!(!second.holds_lock().await.unwrap());
        assert_eq!(second.break_lock("nobody").await.unwrap_err().kind, ErrorKind::Busy);

        let owner = second.lock_owner().await.unwrap().unwrap();
        first.release_lock().await.unwrap();
        assert_eq!(second.break_lock(&owner).await.unwrap_err().kind, ErrorKind::NotFound);
        second.acquire_lock().await.unwrap();
        assert!(second.holds_lock().await.unwrap());
        second.close().await.unwrap();
    });
}

#[test]
fn a_named_lock_is_one_holders_until_it_lapses() {
    in_scratch(async |pool| {
        let minute = Duration::from_secs(60);
        pool.lock_object("lock", "apply", "one", "a test", minute).await.unwrap();
        pool.lock_object("lock", "apply", "one", "a test", minute).await.unwrap(); // renewed
        let error = pool.lock_object("lock", "apply", "two", "", minute).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Busy, "{error}");
        let lockers = pool.object_lockers("lock", "apply").await.unwrap();
        assert_eq!(lockers.len(), 1);
        assert_eq!(lockers[0].client, format!("client.{}", pool.cluster().instance_id()));
        assert_eq!(lockers[0].cookie, "one");
        pool.renew_lock("lock", "apply", "one", "a test", minute).await.unwrap();
        let other = Cluster::connect(options()).await.unwrap();
        let there = other.pool("images").await.unwrap().in_namespace(pool.namespace()).await.unwrap();
        let error = there.renew_lock("lock", "apply", "one", "a test", minute).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound, "the same cookie of another client: {error}");
        pool.unlock_object("lock", "apply", "one").await.unwrap();
        let error = pool.renew_lock("lock", "apply", "one", "a test", minute).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound, "what has lapsed is not renewed: {error}");
        assert_eq!(pool.unlock_object("lock", "apply", "one").await.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(pool.object_lockers("lock", "apply").await.unwrap(), []);
        pool.lock_object("lock", "apply", "two", "", Duration::from_secs(1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        pool.lock_object("lock", "apply", "three", "", minute).await.unwrap();
        let dead = there.object_lockers("lock", "apply").await.unwrap().remove(0);
        there.break_object_lock("lock", "apply", &dead).await.unwrap();
        assert_eq!(there.break_object_lock("lock", "apply", &dead).await.unwrap_err().kind, ErrorKind::NotFound);
        there.lock_object("lock", "apply", "four", "", minute).await.unwrap();
    });
}
