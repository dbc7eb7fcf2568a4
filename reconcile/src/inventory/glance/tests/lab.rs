//! What the tests need: a database of their own with Glance's tables, and SQL to fill it.

use std::{collections::HashSet, path::PathBuf};

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection, SqliteConnection};
use tokio::sync::Mutex;

use super::super::{Database, DatabaseError, Known};
use crate::facts::GlanceFacts;

pub(super) const FSID: &str = "9b1c0a54-7f0c-4b52-a8e3-1f6f4a3f1a11";
pub(super) const KEY: &str = "0123456789abcdef";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Sqlite,
    Mysql,
    Postgres,
}

pub(super) const KINDS: [Kind; 3] = [Kind::Sqlite, Kind::Mysql, Kind::Postgres];

pub(super) fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("no {name}: run `make test`, or `tests/databases up` first"))
}

/// The directory of `tests/databases`.
pub(super) fn directory() -> PathBuf {
    setting("GLANCE_RBD_TEST_DATABASES").into()
}

/// A URL of the server, with another path.
pub(super) fn server(variable: &str, database: &str) -> String {
    let url = setting(variable);
    format!("{}/{database}", url.rsplit_once('/').unwrap().0)
}

/// What sqlx makes of such a URL.
fn plain(url: &str) -> String {
    url.replace("mysql+pymysql:", "mysql:").replace("postgresql+psycopg2:", "postgresql:")
}

pub(super) async fn mysql(database: &str, sql: &str) {
    let mut connection = MySqlConnection::connect(&plain(&server("GLANCE_RBD_TEST_MYSQL", database))).await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

pub(super) async fn postgres(database: &str, sql: &str) {
    let mut connection = PgConnection::connect(&plain(&server("GLANCE_RBD_TEST_POSTGRES", database))).await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// A database with Glance's tables and no rows. Those of servers go with the server.
pub(super) struct TestDatabase {
    pub(super) kind: Kind,
    pub(super) name: String,
    directory: tempfile::TempDir,
    /// Kept, since every PostgreSQL login costs both sides thousands of hashes.
    owner: Mutex<Option<Owner>>,
}

/// A connection of the user who may do all.
enum Owner {
    Sqlite(SqliteConnection),
    Mysql(MySqlConnection),
    Postgres(PgConnection),
}

impl TestDatabase {
    pub(super) async fn new(kind: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let database = Self { kind, name, directory, owner: Mutex::new(None) };
        let name = &database.name;
        match kind {
            Kind::Sqlite => {
                std::fs::copy(self::directory().join("glance.sqlite"), database.file()).unwrap();
            }
            Kind::Mysql => {
                let tables = ["images", "image_locations", "image_properties"];
                let tables = tables.map(|table| format!("CREATE TABLE {name}.{table} LIKE glance.{table};")).concat();
                mysql("", &format!("CREATE DATABASE {name}; {tables}")).await;
            }
            Kind::Postgres => postgres("postgres", &format!("CREATE DATABASE {name} TEMPLATE glance")).await,
        }
        database
    }

    /// One of each kind.
    pub(super) async fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for kind in KINDS {
            all.push(Self::new(kind).await);
        }
        all
    }

    pub(super) fn file(&self) -> PathBuf {
        self.directory.path().join("glance.sqlite")
    }

    /// As a user who may do all.
    pub(super) fn url(&self) -> String {
        match self.kind {
            Kind::Sqlite => format!("sqlite:///{}", self.file().display()),
            Kind::Mysql => server("GLANCE_RBD_TEST_MYSQL", &self.name),
            Kind::Postgres => server("GLANCE_RBD_TEST_POSTGRES", &self.name),
        }
    }

    /// As a user who may only SELECT, which must be enough.
    pub(super) fn database(&self) -> Database {
        let url = match self.kind {
            Kind::Sqlite => self.url(),
            Kind::Mysql => server("GLANCE_RBD_TEST_MYSQL_READER", &self.name),
            Kind::Postgres => server("GLANCE_RBD_TEST_POSTGRES_READER", &self.name),
        };
        url.parse::<Database>().unwrap().with_key(KEY).unwrap()
    }

    pub(super) async fn sql(&self, sql: &str) {
        let mut owner = self.owner.lock().await;
        if owner.is_none() {
            let url = plain(&self.url());
            *owner = Some(match self.kind {
                Kind::Sqlite => Owner::Sqlite(SqliteConnection::connect(&url).await.unwrap()),
                Kind::Mysql => Owner::Mysql(MySqlConnection::connect(&url).await.unwrap()),
                Kind::Postgres => Owner::Postgres(PgConnection::connect(&url).await.unwrap()),
            });
        }
        let query = sqlx::raw_sql(AssertSqlSafe(sql));
        let done = match owner.as_mut().unwrap() {
            Owner::Sqlite(connection) => connection.execute(query).await.map(drop),
            Owner::Mysql(connection) => connection.execute(query).await.map(drop),
            Owner::Postgres(connection) => connection.execute(query).await.map(drop),
        };
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// A row of `images`, created at noon and changed an hour later.
    pub(super) async fn image(&self, id: &str, status: &str, deleted: bool) {
        self.sql(&format!(
            "INSERT INTO images (id, status, created_at, updated_at, deleted_at, deleted, min_disk, min_ram, protected,
             visibility, os_hidden) VALUES ('{id}', '{status}', '2026-01-31 12:00:00', '2026-01-31 13:00:00', {}, {deleted},
             0, 0, FALSE, 'shared', FALSE)",
            if deleted { "'2026-01-31 14:00:00'" } else { "NULL" }
        ))
        .await;
    }

    /// A row of `image_locations`.
    pub(super) async fn location(&self, image_id: &str, value: &str, status: &str, metadata: &str) {
        let deleted = status.contains("delete");
        self.sql(&format!(
            "INSERT INTO image_locations (image_id, value, created_at, updated_at, deleted, meta_data, status)
             VALUES ('{image_id}', '{value}', '2026-01-31 12:00:00', '2026-01-31 13:00:00', {deleted}, '{metadata}',
             '{status}')"
        ))
        .await;
    }

    /// Many images, made by the database itself.
    pub(super) async fn images(&self, count: u32, deleted: bool) {
        let id = match self.kind {
            Kind::Mysql => "concat('many-', seq)",
            Kind::Sqlite | Kind::Postgres => "'many-' || seq",
        };
        let source = match self.kind {
            Kind::Mysql => format!("seq_1_to_{count}"),
            Kind::Postgres => format!("generate_series(1, {count}) AS seq"),
            Kind::Sqlite => {
                format!(
                    "(WITH RECURSIVE n(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < {count}) SELECT seq FROM n)"
                )
            }
        };
        self.sql(&format!(
            "INSERT INTO images (id, status, created_at, updated_at, deleted_at, deleted, min_disk, min_ram, protected,
             visibility, os_hidden, os_hash_value)
             SELECT {id}, 'active', '2026-01-01 00:00:00', '2026-01-01 00:00:00', '2026-01-01 00:00:00', {deleted}, 0, 0, FALSE,
             'shared', FALSE, '{}' FROM {source}",
            "0".repeat(128)
        ))
        .await;
    }
}

/// The location of an image in the pool `images`.
pub(super) fn at(name: &str) -> String {
    format!("rbd://{FSID}/images/{name}/snap")
}

/// Reads a database whose pool has these images.
pub(super) async fn read(database: &Database, names: &[&str]) -> Result<GlanceFacts, DatabaseError> {
    read_watched(database, names, &|_| ()).await
}

/// The same, and tells how many rows have been read.
pub(super) async fn read_watched(
    database: &Database,
    names: &[&str],
    rows: &(dyn Fn(u64) + Send + Sync),
) -> Result<GlanceFacts, DatabaseError> {
    let known = Known { fsid: FSID, pools: HashSet::from(["images"]), names: names.iter().copied().collect() };
    super::super::read(std::slice::from_ref(database), &known, &|_, done, _| rows(done)).await
}
