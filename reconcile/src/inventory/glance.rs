//! Reading a Glance database: one transaction, SELECT only, rows streamed.

use std::{collections::HashSet, path::Path};

use futures_util::TryStreamExt;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use sqlx::{
    ConnectOptions, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

use super::{Progress, Stage};
use crate::facts::{DatabaseFacts, GlanceFacts, GlanceImage, GlanceLocation, Place};

/// What was found in the pools, so that a database can tell which of its rows matter.
pub(super) struct Known<'a> {
    /// The cluster.
    pub(super) fsid: &'a str,
    /// The names of the pools that are scanned.
    pub(super) pools: HashSet<&'a str>,
    /// The names of their images, in and out of the trash.
    pub(super) names: HashSet<&'a str>,
}

/// Reads all databases. Deleted rows and locations are kept only if they name one of the known images.
pub(super) async fn read(
    databases: &[Database],
    known: &Known<'_>,
    progress: &Progress<'_>,
) -> Result<GlanceFacts, DatabaseError> {
    let mut all = GlanceFacts::default();
    for (index, database) in databases.iter().enumerate() {
        let read = database.read(known, progress).await?;
        merge(&mut all, read, index);
    }
    Ok(all)
}

/// Reads again, as they are now, the rows of these images, and every location that belongs to one of them or names one of
/// these RBD images. [`GlanceFacts::databases`] is left empty.
pub(super) async fn reread(
    databases: &[Database],
    ids: &HashSet<String>,
    names: &HashSet<String>,
) -> Result<GlanceFacts, DatabaseError> {
    let mut all = GlanceFacts::default();
    for (index, database) in databases.iter().enumerate() {
        let read = database.reread(&ids.union(names).cloned().collect()).await?;
        merge(&mut all, read, index);
    }
    Ok(all)
}

/// Adds one database's rows to those of others. A row that is not deleted wins.
fn merge(all: &mut GlanceFacts, one: GlanceFacts, index: usize) {
    all.databases.extend(one.databases);
    for (id, row) in one.images {
        let row = GlanceImage { database: index, ..row };
        if all.images.get(&id).is_none_or(|known| known.deleted) {
            all.images.insert(id, row);
        }
    }
    all.locations.extend(one.locations.into_iter().map(|location| GlanceLocation { database: index, ..location }));
}

/// Why a database could not be read. Its text tells all; there is no further source.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL is not one that is understood. It is not repeated here, for it may hold a password.
    #[error("the database URL is not understood: {0}")]
    Url(&'static str),
    /// There is no such file, or it may not be read.
    #[error("cannot open the database {0}: {1}")]
    Open(String, sqlx::Error),
    /// It is a database, but not Glance's.
    #[error("{0} is not a Glance database: it has no {1}")]
    NotGlance(String, String),
    /// A query failed.
    #[error("cannot read the database {0}: {1}")]
    Read(String, sqlx::Error),
    /// A row is not as Glance writes it.
    #[error("cannot read the database {0}: {1}")]
    Malformed(String, String),
}

/// Where a Glance keeps its rows: an SQLAlchemy URL, of SQLite so far.
#[derive(Debug, Clone)]
pub struct Database {
    path: String,
}

impl std::str::FromStr for Database {
    type Err = DatabaseError;

    /// Understands `sqlite:////absolute/path` and `sqlite:///relative/path`.
    fn from_str(url: &str) -> Result<Self, DatabaseError> {
        let rest = url
            .strip_prefix("sqlite://")
            .or_else(|| url.strip_prefix("sqlite+pysqlite://"))
            .ok_or(DatabaseError::Url("only sqlite:///FILE is supported so far"))?;
        match rest.strip_prefix('/').filter(|path| !path.is_empty()) {
            Some(path) => Ok(Self { path: path.to_owned() }),
            None => Err(DatabaseError::Url("an SQLite URL is sqlite:////absolute/path or sqlite:///relative/path")),
        }
    }
}

/// The three queries, of all rows or of those that a condition picks.
macro_rules! images {
    ($condition:literal) => {
        concat!(
            "SELECT id, status, deleted, size, created_at, updated_at, checksum, os_hash_algo, os_hash_value FROM images",
            $condition
        )
    };
}
macro_rules! locations {
    ($condition:literal) => {
        concat!("SELECT image_id, value, status, deleted FROM image_locations", $condition)
    };
}
macro_rules! importing {
    ($condition:literal) => {
        concat!(
            "SELECT image_id FROM image_properties WHERE deleted = 0 AND name = 'os_glance_importing_to_stores' \
             AND value IS NOT NULL AND value <> ''",
            $condition
        )
    };
}

/// The columns a scan reads, by table.
const COLUMNS: [(&str, &[&str]); 3] = [
    (
        "images",
        &["id", "status", "deleted", "size", "created_at", "updated_at", "checksum", "os_hash_algo", "os_hash_value"],
    ),
    ("image_locations", &["image_id", "value", "status", "deleted"]),
    ("image_properties", &["image_id", "name", "value", "deleted"]),
];

impl Database {
    /// Reads Glance's rows as they are at one moment. Deleted ones are kept only if they name a known image.
    async fn read(&self, known: &Known<'_>, progress: &Progress<'_>) -> Result<GlanceFacts, DatabaseError> {
        let mut connection = self.connect().await?;
        let read = self.read_from(&mut connection, known, progress).await;
        // Nothing was written; a failure to close cannot matter.
        let _ = sqlx::Connection::close(connection).await;
        read
    }

    /// Reads the rows of these images again, as they are now.
    async fn reread(&self, ids: &HashSet<String>) -> Result<GlanceFacts, DatabaseError> {
        let mut connection = self.connect().await?;
        let read = async {
            let mut facts = GlanceFacts::default();
            self.begin(&mut connection).await?;
            for id in ids {
                let row = sqlx::query(images!(" WHERE id = ?")).bind(id).fetch_optional(&mut connection).await;
                let Some(row) = row.map_err(|error| self.read_error(error))? else { continue };
                let importing = sqlx::query(importing!(" AND image_id = ?")).bind(id);
                let importing =
                    importing.fetch_optional(&mut connection).await.map_err(|error| self.read_error(error))?;
                facts.images.insert(id.clone(), self.image(&row, importing.is_some())?);
                let rows = sqlx::query(locations!(" WHERE image_id = ?")).bind(id);
                for row in rows.fetch_all(&mut connection).await.map_err(|error| self.read_error(error))? {
                    facts.locations.push(self.location(&row)?);
                }
            }
            self.end(&mut connection).await?;
            Ok(facts)
        };
        let read = read.await;
        let _ = sqlx::Connection::close(connection).await;
        read
    }

    async fn connect(&self) -> Result<SqliteConnection, DatabaseError> {
        // SQLite itself says "unable to open database file" for all of these, or waits for ever on a pipe.
        let path = Path::new(&self.path);
        let checked = path.metadata().and_then(|metadata| match metadata.is_file() {
            true => std::fs::File::open(path).map(drop),
            false => Err(std::io::Error::other("it is not a file")),
        });
        if let Err(error) = checked {
            return Err(DatabaseError::Open(self.path.clone(), sqlx::Error::Io(error)));
        }
        SqliteConnectOptions::new()
            .filename(&self.path)
            .read_only(true)
            .disable_statement_logging()
            .connect()
            .await
            .map_err(|error| DatabaseError::Open(self.path.clone(), error))
    }

    async fn read_from(
        &self,
        connection: &mut SqliteConnection,
        known: &Known<'_>,
        progress: &Progress<'_>,
    ) -> Result<GlanceFacts, DatabaseError> {
        self.begin(connection).await?;
        self.check_schema(connection).await?;
        let mut facts = GlanceFacts::default();
        facts.databases.push(DatabaseFacts { name: self.path.clone(), ..DatabaseFacts::default() });
        let mut rows = 0;

        let mut importing = HashSet::new();
        let mut found = sqlx::query(importing!("")).fetch(&mut *connection);
        while let Some(row) = found.try_next().await.map_err(|error| self.read_error(error))? {
            importing.insert(self.text(&row, "image_id")?);
        }
        drop(found);

        let mut found = sqlx::query(images!("")).fetch(&mut *connection);
        while let Some(row) = found.try_next().await.map_err(|error| self.read_error(error))? {
            rows += 1;
            progress(Stage::Database, rows, None);
            let id = self.text(&row, "id")?;
            if !self.flag(&row, "deleted")? || known.names.contains(id.as_str()) {
                let image = self.image(&row, importing.contains(&id))?;
                facts.images.insert(id, image);
            }
        }
        drop(found);

        let mut found = sqlx::query(locations!("")).fetch(&mut *connection);
        while let Some(row) = found.try_next().await.map_err(|error| self.read_error(error))? {
            rows += 1;
            progress(Stage::Database, rows, None);
            let location = self.location(&row)?;
            let of_a_known_image = matches!(&location.place, Place::Rbd(place) if known.names.contains(place.image()));
            if !location.deleted || of_a_known_image {
                facts.locations.push(location);
            }
        }
        drop(found);
        self.end(connection).await?;
        Ok(facts)
    }

    /// Begins a deferred transaction: one snapshot for all that is read. Unless the database is in WAL mode, writers wait
    /// until it ends, so nothing but reading happens in it.
    async fn begin(&self, connection: &mut SqliteConnection) -> Result<(), DatabaseError> {
        sqlx::query("BEGIN").execute(connection).await.map(drop).map_err(|error| self.read_error(error))
    }

    async fn end(&self, connection: &mut SqliteConnection) -> Result<(), DatabaseError> {
        sqlx::query("ROLLBACK").execute(connection).await.map(drop).map_err(|error| self.read_error(error))
    }

    fn image(&self, row: &SqliteRow, importing: bool) -> Result<GlanceImage, DatabaseError> {
        let multihash = match (self.optional(row, "os_hash_algo")?, self.optional(row, "os_hash_value")?) {
            (Some(algorithm), Some(value)) => Some((algorithm, value)),
            _ => None,
        };
        let size: Option<i64> = row.try_get("size").map_err(|error| self.read_error(error))?;
        Ok(GlanceImage {
            id: self.text(row, "id")?,
            status: self.text(row, "status")?,
            deleted: self.flag(row, "deleted")?,
            size: size.and_then(|size| u64::try_from(size).ok()),
            created: self.time(row, "created_at")?,
            updated: self.time(row, "updated_at")?,
            checksum: self.optional(row, "checksum")?,
            multihash,
            importing,
            ..GlanceImage::default()
        })
    }

    fn location(&self, row: &SqliteRow) -> Result<GlanceLocation, DatabaseError> {
        Ok(GlanceLocation {
            image_id: self.text(row, "image_id")?,
            place: place(&self.text(row, "value")?),
            status: self.text(row, "status")?,
            deleted: self.flag(row, "deleted")?,
            database: 0,
            store: None,
            updated: None,
        })
    }

    async fn check_schema(&self, connection: &mut SqliteConnection) -> Result<(), DatabaseError> {
        for (table, columns) in COLUMNS {
            let rows =
                sqlx::query("SELECT name FROM pragma_table_info(?)").bind(table).fetch_all(&mut *connection).await;
            let rows = rows.map_err(|error| self.read_error(error))?;
            let there: HashSet<String> = rows.iter().map(|row| self.text(row, "name")).collect::<Result<_, _>>()?;
            if there.is_empty() {
                return Err(DatabaseError::NotGlance(self.path.clone(), format!("table {table}")));
            }
            if let Some(missing) = columns.iter().find(|column| !there.contains(**column)) {
                return Err(DatabaseError::NotGlance(self.path.clone(), format!("column {table}.{missing}")));
            }
        }
        Ok(())
    }

    fn read_error(&self, error: sqlx::Error) -> DatabaseError {
        DatabaseError::Read(self.path.clone(), error)
    }

    fn text(&self, row: &SqliteRow, column: &str) -> Result<String, DatabaseError> {
        row.try_get(column).map_err(|error| self.read_error(error))
    }

    fn optional(&self, row: &SqliteRow, column: &str) -> Result<Option<String>, DatabaseError> {
        row.try_get(column).map_err(|error| self.read_error(error))
    }

    fn flag(&self, row: &SqliteRow, column: &str) -> Result<bool, DatabaseError> {
        row.try_get(column).map_err(|error| self.read_error(error))
    }

    /// Times are UTC, written `2026-01-31 12:00:00.000000`.
    fn time(&self, row: &SqliteRow, column: &str) -> Result<Option<Timestamp>, DatabaseError> {
        let Some(text) = self.optional(row, column)? else { return Ok(None) };
        let time = text.parse::<DateTime>().and_then(|time| time.to_zoned(TimeZone::UTC));
        match time {
            Ok(time) => Ok(Some(time.timestamp())),
            Err(_) => Err(DatabaseError::Malformed(self.path.clone(), format!("{column} is {text:?}, not a time"))),
        }
    }
}

/// What a location's value says.
fn place(value: &str) -> Place {
    match value.parse() {
        Ok(location) => Place::Rbd(location),
        Err(_) if value.starts_with("rbd://") => Place::Unreadable,
        Err(_) if has_scheme(value) => Place::Elsewhere,
        Err(_) => Place::Unreadable,
    }
}

/// Whether it is a URL of some kind, as RFC 3986 begins one.
fn has_scheme(value: &str) -> bool {
    value.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_elsewhere() {
        assert!(matches!(place("rbd://f/p/i/s"), Place::Rbd(_)));
        for elsewhere in ["file:///var/lib/glance/x", "swift+https://a/b", "cinder://x", "pending://x"] {
            assert_eq!(place(elsewhere), Place::Elsewhere, "{elsewhere}");
        }
        for unreadable in ["", "rbd://a/b", "gAAAAABk3kLw5oV_x1==", "://x", "a b://c"] {
            assert_eq!(place(unreadable), Place::Unreadable, "{unreadable}");
        }
    }

    #[test]
    fn urls_are_sqlalchemys() {
        let path = |url: &str| url.parse::<Database>().map(|database| database.path).ok();
        assert_eq!(path("sqlite:////var/lib/glance.sqlite").as_deref(), Some("/var/lib/glance.sqlite"));
        assert_eq!(path("sqlite:///glance.sqlite").as_deref(), Some("glance.sqlite"));
        assert_eq!(
            ["sqlite://", "sqlite:///", "mysql://u:secret@h/d", "/var/lib/glance.sqlite"].map(path),
            [const { None }; 4]
        );
    }

    #[test]
    fn a_refused_url_is_not_repeated() {
        let error = "mysql+pymysql://glance:secret@db/glance".parse::<Database>().unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }
}
