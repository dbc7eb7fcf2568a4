//! What a scan reads: several pools, namespaces, databases and configurations, and no more rights than it needs.

use serde_json::Value;

use crate::lab::{GlanceDatabase, MIB, TestDatabase, TestPool, kinds, noise, rbd, run, uuid};

fn scan(arguments: &[&str]) -> (i32, Value) {
    let ran = run(&[&["scan", "--user", "scan", "--grace", "0", "--format", "json"], arguments].concat());
    assert!(ran.stderr.is_empty(), "{ran:?}");
    (ran.code, ran.json())
}

/// Two clouds share a pool: with one database alone, the other's images are orphans, and that is what tools called them.
#[test]
fn an_image_is_an_orphan_only_if_no_database_knows_it() {
    let (pool, ours, theirs) = (TestPool::new(), TestDatabase::new(), TestDatabase::new());
    for (seed, database) in [(1, &ours), (2, &theirs)] {
        let id = uuid();
        database.active(&id, &pool.put(&id, &noise(seed, 1000)));
    }
    let (code, one) = scan(&["--pool", &pool.0, "--database", &ours.url()]);
    assert_eq!((code, kinds(&one)), (3, vec![("orphan".to_owned(), 1)]));
    let (code, both) = scan(&["--pool", &pool.0, "--database", &ours.url(), "--database", &theirs.url()]);
    assert_eq!((code, kinds(&both)), (0, vec![]));
    assert_eq!(both["summary"]["knowledge"].as_array().unwrap().len(), 2);
}

/// Names are compared whole: others search for an id in a listing, and find it in `<id>-old`, or in a longer pool's name.
#[test]
fn a_name_that_is_part_of_another() {
    let (pool, database) = (TestPool::new(), TestDatabase::new());
    let id = uuid();
    let put = pool.put(&id, &noise(1, 1000));
    let location = put["location"].as_str().unwrap();
    let keeper = uuid();
    database.row(&keeper, "active");
    for not_it in [
        location.replace(&id, &format!("{id}-old")),
        location.replace(&id, &id[1..]),
        location.replace(&pool.0, &format!("{}0", pool.0)),
    ] {
        database.location(&keeper, &not_it);
    }
    let (_, found) = scan(&["--pool", &pool.0, "--database", &database.url(), "--only", "orphan"]);
    assert_eq!(found["findings"][0]["image"], id.as_str(), "{found:#}");
}

/// A Glance's configuration is all a scan needs, and what stands beside it comes first.
#[test]
fn configurations_give_pools_databases_and_users() {
    let (pools, databases) = ([TestPool::new(), TestPool::new()], [TestDatabase::new(), TestDatabase::new()]);
    let directory = tempfile::tempdir().unwrap();
    let mut confs = Vec::new();
    for (n, (pool, database)) in pools.iter().zip(&databases).enumerate() {
        let id = uuid();
        database.active(&id, &pool.put(&id, &noise(n as u64, 1000)));
        let path = directory.path().join(format!("glance-{n}.conf")).display().to_string();
        let conf = format!(
            "[DEFAULT]\nenabled_backends = fast:rbd, files:file\n[fast]\nrbd_store_pool = {}\nrbd_store_user = scan\n\
             rbd_store_ceph_conf = {}\n[database]\nconnection = {}\n",
            pool.0,
            std::env::var("CEPH_CONF").unwrap(),
            database.url()
        );
        std::fs::write(&path, conf).unwrap();
        confs.push(path);
    }
    let glance = |confs: &[String], more: &[&str]| {
        let mut command = crate::lab::program();
        command.env_remove("CEPH_CONF").args(["scan", "--grace", "0", "--format", "json"]).args(more);
        for conf in confs {
            command.args(["--glance-conf", conf]);
        }
        crate::lab::Ran::from(command.output().unwrap())
    };
    let one = glance(&confs[..1], &[]);
    assert_eq!((one.code, &one.json()["pools"]), (0, &serde_json::json!([pools[0].0])), "{one:?}");
    let both = glance(&confs, &[]);
    assert_eq!((both.code, &both.json()["pools"]), (0, &serde_json::json!([pools[0].0, pools[1].0])), "{both:?}");
    let other = glance(&confs[..1], &["--pool", &pools[1].0]);
    assert_eq!((other.code, kinds(&other.json())), (3, vec![("orphan".to_owned(), 1)]), "the first has no such image");
    let nobody = glance(&confs[..1], &["--user", "nobody"]);
    assert!(nobody.code == 1 && nobody.stderr.contains("--user"), "{nobody:?}");
    let none = glance(&["/nonexistent.conf".to_owned()], &[]);
    assert!(none.code == 1 && none.stderr.contains("/nonexistent.conf"), "{none:?}");
}

/// A namespace is a pool of its own: what is in it, and in the pool around it, are not mixed up.
#[test]
fn a_namespace() {
    let (pool, database) = (TestPool::new(), TestDatabase::new());
    rbd(&["namespace", "create", &format!("{}/cloud", pool.0)]);
    let (inside, outside) = (uuid(), uuid());
    pool.put(&outside, &noise(1, 1000));
    let place = format!("{}/cloud", pool.0);
    let put = ["image", "put", "-", "--id", &inside, "--user", "glance", "--pool", &place];
    crate::lab::run_with_input(&put, &noise(2, MIB)).ok();
    for (place, image, namespace) in [(&pool.0, &outside, Value::Null), (&place, &inside, "cloud".into())] {
        let (code, found) = scan(&["--pool", place, "--database", &database.url()]);
        let finding = &found["findings"][0];
        assert_eq!((code, kinds(&found)), (3, vec![("orphan".to_owned(), 1)]), "{found:#}");
        assert_eq!((&finding["image"], &finding["namespace"]), (&image.as_str().into(), &namespace), "{found:#}");
    }
    let absent = run(&["scan", "--user", "scan", "--database", &database.url(), "--pool", &format!("{}/none", pool.0)]);
    assert!(absent.code == 1 && absent.stderr.contains("none"), "no such namespace is no empty one: {absent:?}");
}

/// A database user who may only SELECT is enough, and a password is never printed.
#[test]
fn a_database_user_who_may_only_read() {
    for (database, reader) in [
        (GlanceDatabase::mariadb(), "GLANCE_RBD_TEST_MYSQL_READER"),
        (GlanceDatabase::postgresql(), "GLANCE_RBD_TEST_POSTGRES_READER"),
    ] {
        let pool = TestPool::new();
        pool.put(&uuid(), &noise(1, 1000));
        database.fill(100);
        let reader = std::env::var(reader).unwrap();
        let name = database.url().unwrap().rsplit_once('/').unwrap().1;
        let url = format!("{}/{name}", reader.rsplit_once('/').unwrap().0);
        let (code, found) = scan(&["--pool", &pool.0, "--database", &url]);
        assert_eq!((code, kinds(&found)), (3, vec![("orphan".to_owned(), 1)]));
        assert_eq!(found["summary"]["knowledge"][0]["deleted"], 100);
        assert!(!found.to_string().contains("secret"), "{found:#}");

        let wrong = url.replace("secret", "s3cr3t-w0rd");
        let mut command = crate::lab::program();
        command.args(["scan", "--user", "scan", "--pool", &pool.0]).env("GLANCE_RBD_DATABASE", &wrong);
        let ran = crate::lab::Ran::from(command.env("RUST_LOG", "trace").output().unwrap());
        assert!(ran.code == 1 && !ran.stderr.contains("s3cr3t-w0rd"), "{ran:?}");
    }
}
