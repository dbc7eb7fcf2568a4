use std::time::Duration;

use rbd::OpenOptions;
use store::{AddOptions, Error, Operation, Store};

use crate::scratch::{Scratch, get, in_scratch, put};

/// The address of a store's client, as the blocklist takes it: that of a writer's watch.
async fn address(scratch: &Scratch, store: &Store) -> String {
    let writer = store.add("probe", AddOptions::default()).await.unwrap();
    let image = scratch.pool.open_image("probe", OpenOptions::read_only()).await.unwrap();
    let watchers = image.watchers().await.unwrap();
    image.close().await.unwrap();
    writer.abort().await;
    watchers[0].address.clone()
}

/// A blocklisted client gets nothing done any more, for good. The stock driver connects anew for every operation, so it
/// does not notice; a store that keeps its connection must, also when it was idle meanwhile.
#[test]
fn a_store_that_was_blocklisted_while_idle_connects_anew() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let location = put(&store, "before").await;
        let old = store.pool().cluster().instance_id();
        let address = address(&scratch, &store).await;
        scratch.pool.cluster().blocklist(&address, Duration::from_secs(300)).await.unwrap();
        // An operation that begins while the connection is still taken to be alive may fail; none does after that.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(get(&store, &location).await.unwrap(), b"before");
        assert_ne!(store.pool().cluster().instance_id(), old);
        let after = put(&store, "after").await;
        store.delete(&location).await.unwrap();
        store.delete(&after).await.unwrap();
    });
}

/// In flight, an operation fails, clearly and soon; the next one works.
#[test]
fn an_operation_of_a_blocklisted_client_fails_and_the_next_one_works() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let address = address(&scratch, &store).await;
        let mut writer = store.add("cut", AddOptions::default()).await.unwrap();
        writer.write("data".into()).await.unwrap();
        scratch.pool.cluster().blocklist(&address, Duration::from_secs(300)).await.unwrap();
        let error = writer.finish().await.unwrap_err();
        assert!(matches!(&error, Error::Backend(error) if error.kind == rbd::ErrorKind::Blocklisted), "{error}");
        assert!(error.to_string().contains("blocklisted"), "{error}");
        // At once, without waiting for the connection to be looked at again.
        let location = put(&store, "next").await;
        assert_eq!(get(&store, &location).await.unwrap(), b"next");
        store.delete(&location).await.unwrap();
        // What was cut is removed through the new connection, once Ceph has forgotten the old one.
        store.settled().await;
        assert_eq!(scratch.pool.images().await.unwrap(), []);
        assert_eq!(scratch.trash().await, [""; 0]);
    });
}

/// With several backends, one whose cluster is away must not keep the others from starting: that is what Glance makes of
/// `BadStoreConfiguration`. The only backend fails with what is wrong.
#[test]
fn a_failure_to_connect_is_a_bad_configuration_of_one_of_several() {
    in_scratch(async |scratch| {
        let mut config = scratch.config(2);
        config.pool = "no-such-pool".into();
        let error = Store::open(config.clone()).await.err().unwrap();
        assert!(matches!(error, Error::NotFound(_)), "{error}");
        (config.several_backends, config.backend) = (true, Some("fast".into()));
        let error = Store::open(config).await.err().unwrap();
        assert!(matches!(&error, Error::BadConfiguration(why) if why.starts_with("backend fast: ")), "{error}");
    });
}

/// The stock driver makes a user named "None" of an unset `rbd_store_user`, and no key is that user's.
#[test]
fn without_a_user_librados_decides() {
    in_scratch(async |scratch| {
        let conf = format!("[glance_store]\nrbd_store_pool = {}\nrados_connect_timeout = 60", scratch.pool);
        let conf = store::OsloConf::parse(&conf, "glance-api.conf").unwrap();
        let store = Store::open(store::Config::from_glance_conf(&conf, None).unwrap()).await.unwrap();
        let location = put(&store, "data").await;
        assert_eq!(get(&store, &location).await.unwrap(), b"data");
        store.delete(&location).await.unwrap();
    });
}

/// A namespace is a part of the pool in a location, which another store of the same pool follows.
#[test]
fn a_location_names_its_namespace() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let location = put(&store, "data").await;
        let namespace = scratch.pool.namespace();
        assert_eq!(location.pool(), Some(format!("images/{namespace}").as_str()));
        let prefix = format!("rbd://{}/images%2F{namespace}/", store.fsid());
        assert_eq!(store.url_prefix(), prefix);
        assert_eq!(location.to_string(), format!("{prefix}{}/snap", location.image()));
        let other = store::Config { pool: "images".into(), ..scratch.config(2) };
        let other = Store::open(other).await.unwrap();
        let parsed = location.to_string().parse().unwrap();
        assert_eq!(get(&other, &parsed).await.unwrap(), b"data");
        assert!(matches!(get(&other, &other.location_of(location.image())).await, Err(Error::NotFound(_))));
        other.delete(&parsed).await.unwrap();
        assert!(matches!(get(&store, &location).await, Err(Error::NotFound(_))));
    });
}

/// The stock driver deletes a location of another cluster from this one: it never looks at the fsid.
#[test]
fn another_clusters_location_is_refused() {
    in_scratch(async |scratch| {
        let store = scratch.store(2).await;
        let location = put(&store, "mine").await;
        let text = location.to_string().replace(store.fsid(), "00000000-0000-4000-8000-000000000000");
        let foreign = text.parse().unwrap();
        assert!(matches!(store.delete(&foreign).await, Err(Error::ForeignCluster { .. })));
        assert!(matches!(store.get(&foreign, ..).await, Err(Error::ForeignCluster { .. })));
        assert_eq!(get(&store, &location).await.unwrap(), b"mine");
        store.delete(&location).await.unwrap();
        let deletes = store.counters().of(Operation::Delete);
        assert_eq!((deletes.begun, deletes.done, deletes.failed), (2, 1, 1));
    });
}

/// An embedder exports what its store does, and cannot if bytes and failures are known to nobody.
#[test]
fn what_a_store_does_is_counted() {
    in_scratch(async |scratch| {
        let store = Store::open(store::Config { backend: Some("fast".into()), ..scratch.config(2) }).await.unwrap();
        let tally = |operation| store.counters().of(operation);
        let mut writer = store.add("counted", AddOptions::default()).await.unwrap();
        writer.write(vec![7; 3 << 20].into()).await.unwrap();
        let added = writer.finish().await.unwrap();
        assert_eq!(added.metadata.get("store").map(String::as_str), Some("fast"));
        assert!(store.add("counted", AddOptions::default()).await.is_err());
        drop(store.add("dropped", AddOptions::default()).await.unwrap());
        store.settled().await;
        let adds = tally(Operation::Add);
        assert_eq!((adds.begun, adds.done, adds.failed, adds.dropped, adds.bytes), (3, 1, 1, 1, 3 << 20));

        assert_eq!(get(&store, &added.location).await.unwrap().len(), 3 << 20);
        drop(store.get(&added.location, ..).await.unwrap());
        assert!(store.get(&store.location_of("missing"), ..).await.is_err());
        let gets = tally(Operation::Get);
        assert_eq!((gets.begun, gets.done, gets.failed, gets.dropped, gets.bytes), (3, 1, 1, 1, 3 << 20));

        store.stat(&added.location).await.unwrap();
        store.delete(&added.location).await.unwrap();
        assert_eq!((tally(Operation::Stat).done, tally(Operation::Delete).done), (1, 1));
        assert!(tally(Operation::Add).time > Duration::ZERO);
    });
}

/// A store is used from many tasks at once, and so are the uploads and downloads begun by it.
#[test]
fn everything_may_be_sent_and_shared() {
    fn shared<T: Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Store>();
    shared::<store::Config>();
    shared::<store::OsloConf>();
    shared::<Error>();
    sent::<store::Writer>();
    sent::<store::Reader>();
    let futures = |store: &'static Store, location: &'static store::Location| {
        fn sent<T: Send>(_: T) {}
        sent(store.add("id", AddOptions::default()));
        sent(store.get(location, ..));
        sent(store.delete(location));
        sent(store.clone_image(location, "pool", "name", store::CloneOptions::default()));
        sent(store.flatten("pool", "name", rbd::silent()));
        sent(store.children(location));
    };
    let _ = futures;
}
