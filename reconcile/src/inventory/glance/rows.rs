//! Which rows are read, and which of them are kept.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use store::Location;

use super::{
    super::{Progress, Stage},
    Database, DatabaseError, Known,
    place::place,
    schema::{IMAGES, LIVE, LOCATIONS, NOT_LIVE, PROPERTIES, Reader, Schema, TIMES, Table},
    session::{Row, Session},
};
use crate::facts::{DatabaseFacts, GlanceFacts, GlanceImage, GlanceLocation, Place};

/// Counts rows for the progress, and tells now and then.
pub(super) struct Rows<'a> {
    pub(super) read: u64,
    pub(super) progress: &'a Progress<'a>,
}

impl Rows<'_> {
    fn another(&mut self) {
        self.read += 1;
        if self.read.is_multiple_of(256) {
            self.told();
        }
    }

    pub(super) fn told(&self) {
        (self.progress)(Stage::Database, self.read, None);
    }
}

/// How many values a query has at most.
const BATCH: usize = 200;

/// Up to how many names the database looks for itself; with more it is faster to look at every location here.
const FEW: usize = 32;

impl Database {
    fn reader(&self, table: &'static Table) -> Reader<'_> {
        Reader { database: &self.name, table }
    }

    /// All that matters.
    pub(super) async fn read(
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
        session.rows(&format!("{} WHERE {NOT_LIVE}", schema.places), &[], each).await?;
        let owners: Vec<String> = owners.into_iter().collect();
        let each = |location: GlanceLocation| {
            if location.deleted && names_known(&location.place) {
                facts.locations.push(location);
            }
        };
        self.locations(session, &schema, &owners, each).await?;

        knows.newest = self.newest(session, &schema.newest).await?;
        facts.databases.push(knows);
        Ok(facts)
    }

    /// What is of these images or names them.
    pub(super) async fn reread(
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
        self.naming(session, &schema, names, ids, |location| facts.locations.push(location)).await?;
        // A location means nothing without its row.
        let owners: HashSet<&String> = facts.locations.iter().map(|location| &location.image_id).collect();
        let owners: Vec<String> = owners.into_iter().filter(|id| !ids.contains(*id)).cloned().collect();
        self.images(session, &schema, &owners, &mut facts.images).await?;
        let newest = self.newest(session, &schema.newest_at_once).await?;
        facts.databases.push(DatabaseFacts { name: self.name.clone(), newest, ..DatabaseFacts::default() });
        Ok(facts)
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

    /// The latest of the times that these queries give: of all rows, be they kept or not.
    async fn newest(
        &self,
        session: &mut Session<'_>,
        queries: &[(&'static Table, String)],
    ) -> Result<Option<Timestamp>, DatabaseError> {
        let mut newest = None;
        for (table, sql) in queries {
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

    /// Every location, of images other than these, that names one of these RBD images. No index helps here.
    async fn naming(
        &self,
        session: &mut Session<'_>,
        schema: &Schema,
        names: &HashSet<String>,
        ids: &HashSet<String>,
        mut keep: impl FnMut(GlanceLocation),
    ) -> Result<(), DatabaseError> {
        let mut sql = schema.places.clone();
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
        let names_one = |place: &Place| matches!(place, Place::Rbd(place) if names.contains(place.image()));
        let mut owners = HashSet::new();
        let each = |row: &Row<'_>| {
            let id = reader.text(row, "image_id")?;
            if !ids.contains(id) && names_one(&place(reader.text(row, "value")?, self.key.as_ref())) {
                owners.insert(id.to_owned());
            }
            Ok(())
        };
        session.rows(&sql, &values, each).await?;
        let owners: Vec<String> = owners.into_iter().collect();
        let each = |location: GlanceLocation| {
            if names_one(&location.place) {
                keep(location);
            }
        };
        self.locations(session, schema, &owners, each).await
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
