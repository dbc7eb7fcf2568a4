//! Reading Glance databases: for each one transaction, SELECT only, rows streamed.

mod conf;
mod place;
mod rows;
mod schema;
mod session;
mod url;

use std::{collections::HashSet, fmt, time::Duration};

pub use self::conf::{ConfError, GlanceConf};
use self::{place::Key, rows::Rows, session::Session, url::Address};
use super::Progress;
use crate::facts::{GlanceFacts, GlanceImage, GlanceLocation, Place};

/// Why a database could not be read. Its text tells all; there is no further source.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL is not one that is understood. It is not repeated here, for it may hold a password.
    #[error("the database URL is not understood: {0}")]
    Url(String),
    /// The key cannot be Glance's `metadata_encryption_key`. It is not repeated here.
    #[error("metadata_encryption_key is not 16, 24 or 32 bytes long")]
    Key,
    /// It is not there, or does not let us in.
    #[error("cannot open the database {0}: {1}")]
    Open(String, sqlx::Error),
    /// It did not answer in time.
    #[error("the database {0} did not answer within {1:?}")]
    Timeout(String, Duration),
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

/// Where a Glance keeps its rows, from an SQLAlchemy URL.
///
/// ```
/// let database: reconcile::Database = "mysql+pymysql://glance:secret@db/glance".parse().unwrap();
/// assert_eq!(database.name(), "mysql://db/glance");
/// assert!(!format!("{database:?}").contains("secret"));
/// ```
#[derive(Clone)]
pub struct Database {
    address: Address,
    name: String,
    key: Option<Key>,
    timeout: Duration,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the address nor the key: they hold secrets.
        f.debug_struct("Database").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::str::FromStr for Database {
    type Err = DatabaseError;

    /// Understands SQLAlchemy's URLs of SQLite, MariaDB, MySQL and PostgreSQL, whatever the driver.
    fn from_str(url: &str) -> Result<Self, DatabaseError> {
        let (address, name) = url::parse(url).map_err(DatabaseError::Url)?;
        Ok(Self { address, name, key: None, timeout: Duration::from_secs(30) })
    }
}

/// What was found in the pools, so that a database can tell which of its rows matter.
pub(super) struct Known<'a> {
    /// The cluster.
    pub(super) fsid: &'a str,
    /// The names of the pools that are scanned.
    pub(super) pools: HashSet<&'a str>,
    /// The names of their images, in and out of the trash.
    pub(super) names: HashSet<&'a str>,
}

impl Known<'_> {
    /// Whether a place is in one of the pools, of this cluster.
    fn is_here(&self, place: &Place) -> bool {
        let Place::Rbd(place) = place else { return false };
        // A namespace follows its pool.
        let pool = place.pool().and_then(|pool| pool.split('/').next());
        place.fsid() == Some(self.fsid) && pool.is_some_and(|pool| self.pools.contains(pool))
    }
}

/// Reads all databases. Deleted rows and locations are kept only if they name one of the known images.
pub(super) async fn read(
    databases: &[Database],
    known: &Known<'_>,
    progress: &Progress<'_>,
) -> Result<GlanceFacts, DatabaseError> {
    let mut all = GlanceFacts::default();
    let mut rows = Rows { read: 0, progress };
    for (index, database) in distinct(databases).into_iter().enumerate() {
        let mut session = Session::begin(&database.address, &database.name, database.timeout).await?;
        let read = database.read(&mut session, known, &mut rows).await;
        session.end().await;
        merge(&mut all, read?, index);
    }
    rows.told();
    Ok(all)
}

/// Reads again, as they are now, the rows of these images, and every location that belongs to one of them or names one of
/// these RBD images. Of the databases themselves only the name and the time of the newest row are read.
pub(super) async fn reread(
    databases: &[Database],
    ids: &HashSet<String>,
    names: &HashSet<String>,
) -> Result<GlanceFacts, DatabaseError> {
    let mut all = GlanceFacts::default();
    for (index, database) in distinct(databases).into_iter().enumerate() {
        let mut session = Session::begin(&database.address, &database.name, database.timeout).await?;
        let read = database.reread(&mut session, ids, names).await;
        session.end().await;
        merge(&mut all, read?, index);
    }
    Ok(all)
}

/// Each database once, though several configurations may name it; with the key, if one of them has it.
fn distinct(databases: &[Database]) -> Vec<&Database> {
    let mut distinct: Vec<&Database> = Vec::new();
    for database in databases {
        match distinct.iter_mut().find(|known| known.name == database.name) {
            Some(known) if known.key.is_none() => *known = database,
            Some(_) => {}
            None => distinct.push(database),
        }
    }
    distinct
}

/// Adds one database's rows to those of others. A row that is not deleted wins.
fn merge(all: &mut GlanceFacts, one: GlanceFacts, index: usize) {
    if all.databases.is_empty() {
        // Not row by row: twice a hundred thousand of them are a lot of memory.
        *all = one;
        return;
    }
    all.databases.extend(one.databases);
    for (id, row) in one.images {
        let row = GlanceImage { database: index, ..row };
        if all.images.get(&id).is_none_or(|known| known.deleted) {
            all.images.insert(id, row);
        }
    }
    all.locations.extend(one.locations.into_iter().map(|location| GlanceLocation { database: index, ..location }));
}

impl Database {
    /// A name for people: which database on which server, and no secret.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long to wait for a connection; ten times that for a row. 30 s unless told otherwise.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Decrypts locations with Glance's `metadata_encryption_key`.
    ///
    /// # Errors
    /// [`DatabaseError::Key`] for a key of another length than AES has.
    pub fn with_key(self, key: &str) -> Result<Self, DatabaseError> {
        Ok(Self { key: Some(Key::new(key).ok_or(DatabaseError::Key)?), ..self })
    }
}

#[cfg(test)]
mod tests;
