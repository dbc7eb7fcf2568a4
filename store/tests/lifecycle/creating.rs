use rbd::{Features, OpenOptions};
use store::{Config, OsloConf, Removed, Store};

use crate::scratch::{get, in_scratch, put};

/// Whoever reads an image with Glance's own driver, or boots from it, finds what that driver would have made.
#[test]
fn an_image_is_made_as_the_stock_driver_makes_it() {
    in_scratch(async |scratch| {
        for (chunk_size, order) in [(1, 20), (8, 23), (32, 25)] {
            let store = Store::open(Config { chunk_size, ..scratch.config(2) }).await.unwrap();
            let location = put(&store, "data").await;
            let image = scratch.pool.open_image(location.image(), OpenOptions::read_only()).await.unwrap();
            assert_eq!(image.stat().await.unwrap().object_size, 1 << order);
            assert_eq!(image.stat().await.unwrap().size, 4);
            let default: u64 = store.pool().cluster().setting("rbd_default_features").unwrap().parse().unwrap();
            assert_eq!(image.features().await.unwrap(), Features(default));
            let snapshots = image.snapshots().await.unwrap();
            assert_eq!((snapshots.len(), snapshots[0].name.as_str(), snapshots[0].protected), (1, "snap", true));
            // No mark is left, nor anything else that a stock image does not have.
            assert!(image.all_metadata().await.unwrap().is_empty());
            image.close().await.unwrap();
            // Only images of format 2 have an id.
            assert!(scratch.pool.id_in_directory(location.image()).await.unwrap().is_some());
        }
    });
}

/// A cluster whose `rbd_default_features` is 0 makes images that cannot be cloned, unless somebody asks for layering.
#[test]
fn an_image_can_be_cloned_whatever_the_default_features() {
    in_scratch(async |scratch| {
        let mut config = scratch.config(2);
        config.settings.push(("rbd_default_features".into(), "0".into()));
        let store = Store::open(config).await.unwrap();
        let location = put(&store, "data").await;
        assert_eq!(store.stat(&location).await.unwrap().features, Features::LAYERING);
        assert_eq!(store.is_cloneable(&location, "raw").await.unwrap(), Ok(()));
    });
}

/// Data in a pool of its own, as an erasure-coded one would be; names, headers and snapshots stay in the images' pool.
#[test]
fn data_goes_to_the_data_pool() {
    in_scratch(async |scratch| {
        let volumes = scratch.pool.cluster().pool("volumes").await.unwrap();
        volumes.create_namespace(scratch.pool.namespace()).await.unwrap();
        let conf = format!("[glance_store]\nrbd_store_pool = {}\nrbd_store_data_pool = volumes", scratch.pool);
        let config = Config::from_glance_conf(&OsloConf::parse(&conf, "glance-api.conf").unwrap(), None).unwrap();
        let store = Store::open(config).await.unwrap();
        let location = put(&store, "elsewhere").await;
        let stat = store.stat(&location).await.unwrap();
        assert!(stat.features.contains(Features::DATA_POOL));
        let data = |pool: &str| {
            let args = ["-p", pool, "-N", scratch.pool.namespace(), "ls"];
            let listed = std::process::Command::new("rados").args(args).output().unwrap();
            assert!(listed.status.success());
            String::from_utf8(listed.stdout).unwrap().lines().filter(|name| name.starts_with("rbd_data.")).count()
        };
        assert_eq!((data("images"), data("volumes")), (0, 1));
        assert_eq!(get(&store, &location).await.unwrap(), b"elsewhere");
        assert_eq!(store.delete(&location).await.unwrap(), Removed::Gone);
        assert_eq!((data("images"), data("volumes")), (0, 0));
        volumes.remove_namespace(scratch.pool.namespace()).await.unwrap();
    });
}

/// The stock driver sets three of librados' timeouts, or none.
#[test]
fn the_timeout_is_librados_own() {
    in_scratch(async |scratch| {
        let unset = Store::open(Config { timeout: None, ..scratch.config(2) }).await.unwrap();
        let default = rbd::TIMEOUTS.map(|name| unset.pool().cluster().setting(name).unwrap());
        for (seconds, expected) in
            [("-1", default), ("0", ["0"; 3].map(String::from)), ("47", ["47"; 3].map(String::from))]
        {
            let conf = format!("[glance_store]\nrbd_store_pool = {}\nrados_connect_timeout = {seconds}", scratch.pool);
            let config = Config::from_glance_conf(&OsloConf::parse(&conf, "glance-api.conf").unwrap(), None).unwrap();
            let store = Store::open(config).await.unwrap();
            let set = rbd::TIMEOUTS.map(|name| store.pool().cluster().setting(name).unwrap());
            assert_eq!(
                set.each_ref().map(|text| number(text)),
                expected.each_ref().map(|text| number(text)),
                "{seconds}"
            );
        }
    });
}

/// Seconds, which Ceph writes as `300` or as `300.000000`.
fn number(text: &str) -> u64 {
    text.split('.').next().unwrap().parse().unwrap()
}
