//! What is read.

use std::collections::HashSet;

use super::{
    super::{DatabaseError, Known, read as read_all, reread},
    lab::{FSID, KEY, KINDS, TestDatabase, at, directory, read, read_watched},
};
use crate::facts::{GlanceFacts, GlanceImage, Place};

/// Sorted, without the database's name.
fn comparable(mut facts: GlanceFacts) -> GlanceFacts {
    facts.locations.sort_by_key(|location| format!("{location:?}"));
    facts.databases.iter_mut().for_each(|knows| knows.name.clear());
    facts
}

/// What Glance's own `crypt` makes of a text.
fn encrypted(text: &str) -> String {
    let venv = std::env::var("GLANCE_LAB_VENV")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../target/glance-venv").into());
    let code = "import sys; from glance.common import crypt; print(crypt.urlsafe_encrypt(*sys.argv[1:]))";
    let output =
        std::process::Command::new(format!("{venv}/bin/python")).args(["-c", code, KEY, text]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn fill(database: &TestDatabase, encrypted: &str) {
    database.image("active", "active", false).await;
    database
        .sql(
            "UPDATE images SET size = 5368709120, disk_format = 'raw', owner = 'tenant', visibility = 'public',
             protected = TRUE, checksum = 'c', os_hash_algo = 'sha512', os_hash_value = 'h',
             updated_at = '2026-01-31 13:00:01' WHERE id = 'active'",
        )
        .await;
    database.location("active", &at("active"), "active", r#"{"store": "ceph"}"#).await;
    database.location("active", "file:///active", "active", r#"{"store": "files"}"#).await;
    database.image("queued", "queued", false).await;
    database.image("copying", "active", false).await;
    database.location("copying", encrypted, "active", "{}").await;
    for (name, value, deleted) in [
        ("os_glance_importing_to_stores", "ceph", false),
        ("os_glance_importing_to_stores", "", true),
        ("x", "y", false),
    ] {
        let id = if deleted { "queued" } else { "copying" };
        database
            .sql(&format!(
                "INSERT INTO image_properties (image_id, name, value, created_at, deleted)
                 VALUES ('{id}', '{name}', '{value}', '2026-01-31 12:00:00', FALSE)"
            ))
            .await;
    }
    database.image("uploading", "uploading", false).await;
    database.location("uploading", "pending://fast/x", "pending", "not JSON").await;
    database.image("unreadable", "active", false).await;
    database.location("unreadable", "%$garbage", "active", "{}").await;
    // Of deleted rows those that name an image of the pool are kept, and no others.
    for id in ["gone", "left"] {
        database.image(id, "deleted", true).await;
        database.location(id, &at(id), "deleted", "{}").await;
    }
    database.sql("UPDATE images SET deleted_at = '2026-02-01 00:00:00' WHERE id = 'gone'").await;
}

/// Glance's users have the same findings whatever database their deployer chose. A user who may only SELECT reads here.
#[tokio::test]
async fn the_same_facts_from_all_three() {
    let encrypted = encrypted(&at("copying"));
    let mut first = None;
    for database in TestDatabase::all().await {
        fill(&database, &encrypted).await;
        let facts = read(&database.database(), &["left"]).await.unwrap();

        let mut ids: Vec<&str> = facts.images.keys().map(String::as_str).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["active", "copying", "left", "queued", "unreadable", "uploading"], "{:?}", database.kind);
        let time = |text: &str| Some(text.parse().unwrap());
        let expected = GlanceImage {
            id: "active".into(),
            status: "active".into(),
            size: Some(5 << 30),
            created: time("2026-01-31T12:00:00Z"),
            updated: time("2026-01-31T13:00:01Z"),
            disk_format: Some("raw".into()),
            owner: Some("tenant".into()),
            visibility: Some("public".into()),
            protected: true,
            checksum: Some("c".into()),
            multihash: Some(("sha512".into(), "h".into())),
            ..GlanceImage::default()
        };
        assert_eq!(facts.images["active"], expected);
        assert_eq!(facts.images["left"].deleted_at, time("2026-01-31T14:00:00Z"));
        assert!(facts.images["copying"].importing && !facts.images["queued"].importing);
        assert_eq!(facts.images["queued"].size, None);

        let location = |id: &str| facts.locations.iter().find(|location| location.image_id == id).unwrap();
        assert_eq!(location("copying").place, Place::Rbd(at("copying").parse().unwrap()), "decrypted");
        assert_eq!(location("uploading").place, Place::Elsewhere);
        assert_eq!((location("uploading").status.as_str(), location("uploading").store.as_ref()), ("pending", None));
        assert_eq!(location("unreadable").place, Place::Unreadable);
        assert!(location("left").deleted && location("left").updated == time("2026-01-31T13:00:00Z"));
        assert!(!facts.locations.iter().any(|location| location.image_id == "gone"));
        let mut stores: Vec<_> = facts.locations.iter().filter_map(|location| location.store.as_deref()).collect();
        stores.sort_unstable();
        assert_eq!(stores, ["ceph", "files"]);

        let knows = &facts.databases[0];
        assert_eq!((knows.images, knows.deleted, knows.locations), (5, 2, 2));
        assert_eq!(knows.newest, time("2026-02-01T00:00:00Z"), "of a row that was not kept");

        let facts = comparable(facts);
        assert_eq!(&facts, first.get_or_insert(facts.clone()), "{:?}", database.kind);
    }
}

/// Without the key nothing is known of what an encrypted location names: it is not "in another store".
#[tokio::test]
async fn an_encrypted_location_without_its_key_is_unreadable() {
    let database = TestDatabase::new(KINDS[0]).await;
    database.image("a", "active", false).await;
    database.location("a", &encrypted(&at("a")), "active", "{}").await;
    let without: super::super::Database = database.url().parse().unwrap();
    let wrong = without.clone().with_key("another key16byt").unwrap();
    for reader in [without, wrong] {
        assert_eq!(read(&reader, &[]).await.unwrap().locations[0].place, Place::Unreadable);
    }
}

/// A Glance goes on while it is read. A row that came later than another that was missed would make facts that never were.
#[tokio::test(flavor = "multi_thread")]
async fn all_is_read_as_of_one_moment() {
    for database in TestDatabase::all().await {
        if database.kind == KINDS[0] {
            // Otherwise nobody can write as long as somebody reads.
            database.sql("PRAGMA journal_mode = WAL").await;
        }
        database.images(600, false).await;
        let (runtime, written) = (tokio::runtime::Handle::current(), std::sync::Once::new());
        let write = |_| {
            written.call_once(|| {
                tokio::task::block_in_place(|| {
                    runtime.block_on(async {
                        database.image("late", "active", false).await;
                        database.location("late", &at("late"), "active", "{}").await;
                    });
                });
            });
        };
        let facts = read_watched(&database.database(), &[], &write).await.unwrap();
        assert!(written.is_completed() && facts.locations.is_empty(), "{:?}", database.kind);
        assert_eq!(read(&database.database(), &[]).await.unwrap().locations.len(), 1, "{:?}", database.kind);
    }
}

/// A leftover is judged again before it is moved: by its row, by the row's locations, and by whoever else names it.
#[tokio::test]
async fn rows_are_read_again_by_id_and_by_whom_they_name() {
    let encrypted = encrypted(&at("shared"));
    for database in TestDatabase::all().await {
        fill(&database, &encrypted).await;
        for (id, name) in [("other", "shared"), ("unrelated", "shared-not"), ("another", "sha%2Fred")] {
            database.image(id, "active", false).await;
            database.location(id, &at(name), "active", "{}").await;
        }
        let set = |names: &[&str]| -> HashSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        let databases = [database.database()];
        let few = reread(&databases, &set(&["active", "gone", "nobody"]), &set(&["shared", "sha/red"])).await.unwrap();
        let mut ids: Vec<&str> = few.images.keys().map(String::as_str).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["active", "another", "copying", "gone", "other"], "{:?}", database.kind);
        let mut owners: Vec<&str> = few.locations.iter().map(|location| location.image_id.as_str()).collect();
        owners.sort_unstable();
        assert_eq!(owners, ["active", "active", "another", "copying", "gone", "other"], "{:?}", database.kind);
        assert!(few.images["copying"].importing);
        let newest = few.databases[0].newest;
        assert_eq!(newest, Some("2026-01-31T13:00:01Z".parse().unwrap()), "{:?}", database.kind);

        // Many names are looked for in another way, and many ids in several queries.
        let many = |prefix: &'static str| (0..500).map(move |n| format!("{prefix}-{n}"));
        let ids: HashSet<String> = many("id").chain(set(&["active", "gone"])).collect();
        let names: HashSet<String> = many("name").chain(set(&["shared", "sha/red"])).collect();
        assert_eq!(comparable(reread(&databases, &ids, &names).await.unwrap()), comparable(few), "{:?}", database.kind);
    }
}

/// A pool shared by several Glances: what one has deleted may live in another.
#[tokio::test]
async fn of_several_databases_the_living_row_wins() {
    let [old, new] = [TestDatabase::new(KINDS[0]).await, TestDatabase::new(KINDS[1]).await];
    old.image("a", "deleted", true).await;
    new.image("a", "active", false).await;
    new.location("a", &at("a"), "active", "{}").await;
    old.image("b", "active", false).await;
    new.image("b", "deleted", true).await;
    let databases = [old.database(), new.database()];
    let known = Known { fsid: FSID, pools: HashSet::from(["images"]), names: HashSet::from(["a", "b"]) };
    let facts = read_all(&databases, &known, &|_, _, _| ()).await.unwrap();
    let row = |id: &str| (facts.images[id].deleted, facts.images[id].database);
    assert_eq!((row("a"), row("b")), ((false, 1), (false, 0)));
    assert_eq!((facts.locations.len(), facts.locations[0].database), (1, 1));
    let names: Vec<&str> = facts.databases.iter().map(|knows| knows.name.as_str()).collect();
    assert_eq!(names, [databases[0].name(), databases[1].name()]);

    // Given twice, as two nodes' configurations do, it is read once, with the key that one of them has.
    let again = [new.url().parse().unwrap(), new.database()];
    let facts = read_all(&again, &known, &|_, _, _| ()).await.unwrap();
    assert_eq!((facts.databases.len(), facts.locations.len()), (1, 1));

    // One that cannot be read is no reason to believe the other alone.
    old.sql("DROP TABLE image_locations").await;
    assert!(matches!(read_all(&databases, &known, &|_, _, _| ()).await, Err(DatabaseError::NotGlance(..))));
}

/// Releases before Rocky have no multihash, those before Juno no location status, those before Pike no visibility.
#[tokio::test]
async fn the_tables_of_old_releases_are_understood() {
    for database in TestDatabase::all().await {
        fill(&database, "file:///x").await;
        for (table, column) in [
            ("images", "os_hash_algo"),
            ("images", "os_hash_value"),
            ("images", "visibility"),
            ("images", "protected"),
            ("image_locations", "status"),
            ("image_locations", "meta_data"),
        ] {
            // SQLite does not drop a column that an index is on.
            let index = match (column, database.kind) {
                ("os_hash_value", super::lab::Kind::Sqlite) => "DROP INDEX os_hash_value_image_idx;",
                ("visibility", super::lab::Kind::Sqlite) => "DROP INDEX visibility_image_idx;",
                _ => "",
            };
            database.sql(&format!("{index} ALTER TABLE {table} DROP COLUMN {column}")).await;
        }
        let facts = read(&database.database(), &["left"]).await.unwrap();
        let image = &facts.images["active"];
        assert_eq!((&image.multihash, &image.visibility, image.protected), (&None, &None, false));
        let status = |id: &str| &facts.locations.iter().find(|location| location.image_id == id).unwrap().status;
        assert_eq!((status("active").as_str(), status("left").as_str()), ("active", "deleted"));
    }
    assert!(directory().exists());
}

/// One cloud keeps 131,334 deleted rows for every thousand that live. They are looked at, and not kept.
#[tokio::test]
async fn a_million_deleted_rows_cost_no_memory() {
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let rows = if std::env::var_os("GLANCE_RBD_LONG").is_some() { 1_000_000 } else { 10_000 };
    for database in TestDatabase::all().await {
        database.images(rows, true).await;
        let (before, started) = (peak(), std::time::Instant::now());
        let facts = read(&database.database(), &["many-7"]).await.unwrap();
        println!("{:?}: {rows} rows in {:?}, {} KiB more", database.kind, started.elapsed(), peak() - before);
        assert_eq!((facts.images.len(), facts.databases[0].deleted), (1, u64::from(rows)));
        assert!(peak() - before < 64 << 10, "{:?}", database.kind);
    }
}
