//! Reading Glance databases: for each one transaction, SELECT only, rows streamed.

mod conf;
mod place;
mod schema;
mod session;
mod url;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Duration,
};

use jiff::Timestamp;
use store::Location;

pub use self::conf::{ConfError, GlanceConf};
use self::{
    place::{Key, place},
    schema::{IMAGES, LIVE, LOCATIONS, PROPERTIES, Reader, Schema, TIMES},
    session::{Row, Session},
    url::Address,
};
use super::{Progress, Stage};
use crate::facts::{DatabaseFacts, GlanceFacts, GlanceImage, GlanceLocation, Place};

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
    for (index, database) in databases.iter().enumerate() {
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
    for (index, database) in databases.iter().enumerate() {
        let mut session = Session::begin(&database.address, &database.name, database.timeout).await?;
        let read = database.reread(&mut session, ids, names).await;
        session.end().await;
        merge(&mut all, read?, index);
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

/// Counts rows for the progress, and tells now and then.
struct Rows<'a> {
    read: u64,
    progress: &'a Progress<'a>,
}

impl Rows<'_> {
    fn another(&mut self) {
        self.read += 1;
        if self.read.is_multiple_of(256) {
            self.told();
        }
    }

    fn told(&self) {
        (self.progress)(Stage::Database, self.read, None);
    }
}

/// How many values a query has at most.
const BATCH: usize = 200;

/// Up to how many names the database looks for itself; with more it is faster to look at every location here.
const FEW: usize = 32;

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

    fn reader(&self, table: &'static schema::Table) -> Reader<'_> {
        Reader { database: &self.name, table }
    }

    async fn read(
        &self,
        session: &mut Session<'_>,
        known: &Known<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<GlanceFacts, DatabaseError> {
        let schema = Schema::read(session, &self.name).await?;
        let mut facts = GlanceFacts::default();
        let mut knows = DatabaseFacts { name: self.name.clone(), ..DatabaseFacts::default() };

        let importing = self.importing(session, &schema.importing, &[]).await?;
        let reader = self.reader(&IMAGES);
        let each = |row: &Row<'_>| {
            rows.another();
            let image = reader.image(row)?;
            let importing = importing.contains(&image.id);
            facts.images.insert(image.id.clone(), GlanceImage { importing, ..image });
            Ok(())
        };
        session.rows(&format!("{} WHERE {LIVE}", schema.images), &[], each).await?;
        knows.images = facts.images.len() as u64;

        let mut known_ids = Vec::new();
        let each = |row: &Row<'_>| {
            rows.another();
            knows.deleted += u64::from(reader.flag(row, "deleted")?);
            let id = reader.text(row, "id")?;
            if known.names.contains(id) {
                known_ids.push(id.to_owned());
            }
            Ok(())
        };
        session.rows(&schema.deleted_images, &[], each).await?;
        self.images(session, &schema, &known_ids, &mut facts.images).await?;

        let reader = self.reader(&LOCATIONS);
        let each = |row: &Row<'_>| {
            rows.another();
            let location = reader.location(row, self.key.as_ref())?;
            knows.locations += u64::from(known.is_here(&location.place));
            facts.locations.push(location);
            Ok(())
        };
        session.rows(&format!("{} WHERE {LIVE}", schema.locations), &[], each).await?;

        let mut owners = HashSet::new();
        let names_known = |place: &Place| matches!(place, Place::Rbd(place) if known.names.contains(place.image()));
        let each = |row: &Row<'_>| {
            rows.another();
            reader.flag(row, "deleted")?;
            if names_known(&place(reader.text(row, "value")?, self.key.as_ref())) {
                owners.insert(reader.text(row, "image_id")?.to_owned());
            }
            Ok(())
        };
        session.rows(&schema.deleted_locations, &[], each).await?;
        let owners: Vec<String> = owners.into_iter().collect();
        let each = |location: GlanceLocation| {
            if location.deleted && names_known(&location.place) {
                facts.locations.push(location);
            }
        };
        self.locations(session, &schema, &owners, each).await?;

        knows.newest = self.newest(session, &schema).await?;
        facts.databases.push(knows);
        Ok(facts)
    }

    async fn reread(
        &self,
        session: &mut Session<'_>,
        ids: &HashSet<String>,
        names: &HashSet<String>,
    ) -> Result<GlanceFacts, DatabaseError> {
        let schema = Schema::read(session, &self.name).await?;
        let mut facts = GlanceFacts::default();
        let all: Vec<String> = ids.iter().cloned().collect();
        self.images(session, &schema, &all, &mut facts.images).await?;
        self.locations(session, &schema, &all, |location| facts.locations.push(location)).await?;
        self.naming(session, &schema, names, |location| {
            if !ids.contains(&location.image_id) {
                facts.locations.push(location);
            }
        })
        .await?;
        // A location means nothing without its row.
        let owners: HashSet<&String> = facts.locations.iter().map(|location| &location.image_id).collect();
        let owners: Vec<String> = owners.into_iter().filter(|id| !ids.contains(*id)).cloned().collect();
        self.images(session, &schema, &owners, &mut facts.images).await?;
        let newest = self.newest(session).await?;
        facts.databases.push(DatabaseFacts { name: self.name.clone(), newest, ..DatabaseFacts::default() });
        Ok(facts)
    }

    /// The time of the newest row, as far as indices give it quickly.
    async fn newest(&self, session: &mut Session<'_>) -> Result<Option<Timestamp>, DatabaseError> {
        let (created, updated) = (session.text_of("created_at"), session.text_of("updated_at"));
        let sql = format!(
            "SELECT {created}, {updated}, NULL AS deleted_at FROM (SELECT (SELECT MAX(created_at) FROM images) AS created_at, \
             (SELECT MAX(updated_at) FROM images) AS updated_at) AS newest"
        );
        let (reader, mut newest) = (self.reader(&IMAGES), Newest::default());
        session.rows(&sql, &[], |row| newest.see(&reader, row)).await?;
        Ok(newest.time)
    }

    /// The rows of these images.
    async fn images(
        &self,
        session: &mut Session<'_>,
        schema: &Schema,
        ids: &[String],
        images: &mut HashMap<String, GlanceImage>,
    ) -> Result<(), DatabaseError> {
        let reader = self.reader(&IMAGES);
        for batch in ids.chunks(BATCH) {
            let importing = format!("{} AND image_id IN ({})", schema.importing, marks(batch));
            let importing = self.importing(session, &importing, batch).await?;
            let each = |row: &Row<'_>| {
                let image = reader.image(row)?;
                images.insert(image.id.clone(), GlanceImage { importing: importing.contains(&image.id), ..image });
                Ok(())
            };
            session.rows(&format!("{} WHERE id IN ({})", schema.images, marks(batch)), batch, each).await?;
        }
        Ok(())
    }

    /// The locations of these images.
    async fn locations(
        &self,
        session: &mut Session<'_>,
        schema: &Schema,
        ids: &[String],
        mut keep: impl FnMut(GlanceLocation),
    ) -> Result<(), DatabaseError> {
        let reader = self.reader(&LOCATIONS);
        for batch in ids.chunks(BATCH) {
            let each = |row: &Row<'_>| {
                keep(reader.location(row, self.key.as_ref())?);
                Ok(())
            };
            session.rows(&format!("{} WHERE image_id IN ({})", schema.locations, marks(batch)), batch, each).await?;
        }
        Ok(())
    }

    /// The latest time that any row has, be it kept or not.
    async fn newest(&self, session: &mut Session<'_>, schema: &Schema) -> Result<Option<Timestamp>, DatabaseError> {
        let mut newest = None;
        for (table, sql) in &schema.newest {
            let reader = self.reader(table);
            let each = |row: &Row<'_>| {
                for column in TIMES {
                    newest = newest.max(reader.time(row, column)?);
                }
                Ok(())
            };
            session.rows(sql, &[], each).await?;
        }
        Ok(newest)
    }

    /// The images that an import is copying.
    async fn importing(
        &self,
        session: &mut Session<'_>,
        sql: &str,
        ids: &[String],
    ) -> Result<HashSet<String>, DatabaseError> {
        let reader = self.reader(&PROPERTIES);
        let mut importing = HashSet::new();
        let each = |row: &Row<'_>| {
            importing.insert(reader.text(row, "image_id")?.to_owned());
            Ok(())
        };
        session.rows(sql, ids, each).await?;
        Ok(importing)
    }

    /// Every location, of whatever image, that names one of these RBD images. No index helps here.
    async fn naming(
        &self,
        session: &mut Session<'_>,
        schema: &Schema,
        names: &HashSet<String>,
        mut keep: impl FnMut(GlanceLocation),
    ) -> Result<(), DatabaseError> {
        let mut sql = schema.locations.clone();
        let mut values: Vec<String> = Vec::new();
        if names.is_empty() {
            return Ok(());
        }
        if names.len() <= FEW {
            // The database looks for them, which is faster; what it finds is looked at again here.
            values.extend(names.iter().map(|name| quoted(name)));
            let mut conditions = vec![format!("{} > 0", session.position("value", "?")); values.len()];
            if self.key.is_some() {
                conditions.push(format!("{} = 0", session.position("value", "'://'")));
            }
            sql = format!("{sql} WHERE {}", conditions.join(" OR "));
        }
        let reader = self.reader(&LOCATIONS);
        let each = |row: &Row<'_>| {
            let location = reader.location(row, self.key.as_ref())?;
            if matches!(&location.place, Place::Rbd(place) if names.contains(place.image())) {
                keep(location);
            }
            Ok(())
        };
        session.rows(&sql, &values, each).await
    }
}

/// A mark for each value.
fn marks(values: &[String]) -> String {
    vec!["?"; values.len()].join(", ")
}

/// A name as it stands in a location.
fn quoted(name: &str) -> String {
    let location = Location::Legacy { image: name.to_owned() }.to_string();
    location.strip_prefix("rbd://").map(str::to_owned).unwrap_or(location)
}

#[cfg(test)]
mod tests;
