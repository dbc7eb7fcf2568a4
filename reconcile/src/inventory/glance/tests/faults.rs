//! A database that goes, or stops, while it is read: always an error, never a part taken for the whole, never a hang.

use std::{
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    super::{Database, DatabaseError},
    lab::{Kind, TestDatabase, mysql, postgres, read, read_watched, server},
};

/// More rows than fit into what sockets and caches hold.
const MANY: u32 = 40_000;

/// Rows that do not come at once.
const SOME: u32 = 10_000;

/// A server that crashes in mid-read once made a scan see half of the rows, and the images of the other half were orphans.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_killed_in_mid_read_is_an_error() {
    for database in TestDatabase::all().await {
        database.images(MANY, false).await;
        let (runtime, killed) = (tokio::runtime::Handle::current(), Once::new());
        let kill = |rows: u64| {
            assert!(rows < u64::from(MANY), "it was read to the end");
            killed.call_once(|| tokio::task::block_in_place(|| runtime.block_on(kill(&database))));
        };
        let error = read_watched(&database.database(), &[], &kill).await.unwrap_err();
        assert!(killed.is_completed() && matches!(error, DatabaseError::Read(..)), "{:?}: {error}", database.kind);
    }
}

/// Ends every connection to a database; cuts an SQLite file in half.
async fn kill(database: &TestDatabase) {
    let name = &database.name;
    match database.kind {
        Kind::Sqlite => {
            let file = std::fs::OpenOptions::new().write(true).open(database.file()).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
        Kind::Mysql => {
            let kill = format!(
                "BEGIN NOT ATOMIC FOR c IN (SELECT id FROM information_schema.processlist WHERE db = '{name}') DO
                 EXECUTE IMMEDIATE concat('KILL ', c.id); END FOR; END"
            );
            mysql("", &kill).await;
        }
        Kind::Postgres => {
            let kill = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
            postgres("postgres", &kill).await;
        }
    }
}

/// Passes on what a server says until told to stop, and then keeps the connection and says nothing, as a failed switch does.
async fn stalling(port: u16, stalled: &'static AtomicBool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            });
            tokio::spawn(async move {
                let mut buffer = vec![0; 16 << 10];
                while let Ok(length) = from_server.read(&mut buffer).await {
                    while stalled.load(Ordering::SeqCst) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    if length == 0 || to_client.write_all(&buffer[..length]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address.port()
}

/// A database behind a network that has failed answers neither yes nor no.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stops_answering_is_an_error_in_time() {
    let one = |variable, kind| (variable, kind);
    for (variable, kind) in [one("GLANCE_RBD_TEST_MYSQL", Kind::Mysql), one("GLANCE_RBD_TEST_POSTGRES", Kind::Postgres)]
    {
        let stalled: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
        let url = server(variable, "x");
        let port: u16 = url.rsplit_once(':').unwrap().1.strip_suffix("/x").unwrap().parse().unwrap();
        let proxy = stalling(port, stalled).await;
        let database = TestDatabase::new(kind).await;
        database.images(SOME, false).await;
        let url = database.url().replace(&format!(":{port}/"), &format!(":{proxy}/"));
        let through: Database = url.parse().unwrap();

        // In mid-read. What has arrived by then is not taken for all.
        let stall = |_| stalled.store(true, Ordering::SeqCst);
        let patient = through.clone().with_timeout(Duration::from_millis(250));
        // On a busy machine it may even be too slow to connect, which is the same error.
        let error = read_watched(&patient, &[], &stall).await.unwrap_err();
        assert!(matches!(error, DatabaseError::Timeout(..)), "{error}");
        // At the first word.
        stalled.store(true, Ordering::SeqCst);
        let error = read(&patient, &[]).await.unwrap_err();
        assert!(matches!(error, DatabaseError::Timeout(..)), "{error}");
        assert!(error.to_string().contains(through.name()), "{error}");
        // And when it comes back it is read.
        stalled.store(false, Ordering::SeqCst);
        let facts = read(&through, &[]).await.unwrap();
        assert_eq!(facts.databases[0].images, u64::from(SOME));
    }
}

/// A writer that holds SQLite's file is waited for, as long as any database is.
#[tokio::test]
async fn a_locked_file_is_an_error_in_time() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database.file());
    let mut writer = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::Executor::execute(&mut writer, "BEGIN EXCLUSIVE").await.unwrap();
    let impatient = database.database().with_timeout(Duration::from_millis(100));
    let error = read(&impatient, &[]).await.unwrap_err();
    assert!(error.to_string().contains("locked") || matches!(error, DatabaseError::Timeout(..)), "{error}");
    sqlx::Executor::execute(&mut writer, "ROLLBACK").await.unwrap();
    read(&database.database(), &[]).await.unwrap();
}
