//! Glance's tables, as far as a scan reads them, and how their rows are read. Releases from Havana on are understood.

use std::{collections::HashSet, fmt::Write};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::{
    DatabaseError,
    place::{Key, place},
    session::{Row, Session},
};
use crate::facts::{GlanceImage, GlanceLocation};

/// A table: its name, the columns that every release has, and those that came later.
pub(super) struct Table {
    pub(super) name: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

pub(super) const IMAGES: Table = Table {
    name: "images",
    required: &["id", "status", "deleted", "size", "created_at", "updated_at", "deleted_at", "checksum"],
    optional: &["disk_format", "owner", "visibility", "protected", "os_hash_algo", "os_hash_value"],
};

pub(super) const LOCATIONS: Table = Table {
    name: "image_locations",
    required: &["image_id", "value", "deleted", "created_at", "updated_at", "deleted_at"],
    optional: &["status", "meta_data"],
};

pub(super) const PROPERTIES: Table =
    Table { name: "image_properties", required: &["image_id", "name", "value", "deleted"], optional: &[] };

/// The queries for a database's own columns.
pub(super) struct Schema {
    /// Of all rows of `images`.
    pub(super) images: String,
    /// Of all rows of `image_locations`.
    pub(super) locations: String,
    /// Of the images that an import is copying.
    pub(super) importing: String,
    /// Of just enough of deleted images to tell whether they matter. There may be a million.
    pub(super) deleted_images: String,
    /// Of what all locations name, deleted or not.
    pub(super) places: String,
    /// Of the latest times in each table.
    pub(super) newest: [(&'static Table, String); 2],
    /// Of those in `images` that it has an index for.
    pub(super) newest_at_once: [(&'static Table, String); 1],
}

/// The condition for rows that are not deleted.
pub(super) const LIVE: &str = "deleted = FALSE";

/// The condition for all others: a row that is neither is then seen, and refused.
pub(super) const NOT_LIVE: &str = "(deleted IS NULL OR deleted <> FALSE)";

/// The columns with a row's times.
pub(super) const TIMES: [&str; 3] = ["created_at", "updated_at", "deleted_at"];

impl Schema {
    /// Recognises Glance's tables, or refuses what is something else by the name of what is missing.
    pub(super) async fn read(session: &mut Session<'_>, database: &str) -> Result<Self, DatabaseError> {
        let images = select(&IMAGES, session, database).await?;
        let locations = select(&LOCATIONS, session, database).await?;
        select(&PROPERTIES, session, database).await?;
        let of = |columns: &[&str]| {
            let texts: Vec<String> = columns.iter().map(|column| session.text_of(column, column)).collect();
            texts.join(", ")
        };
        let newest = |table: &'static Table| {
            let latest = TIMES.map(|column| session.text_of(&format!("MAX({column})"), column));
            (table, format!("SELECT {} FROM {}", latest.join(", "), table.name))
        };
        Ok(Self {
            images,
            locations,
            importing: format!(
                "SELECT {} FROM image_properties WHERE {LIVE} AND name = 'os_glance_importing_to_stores' AND value <> ''",
                of(&["image_id"])
            ),
            deleted_images: format!("SELECT {} FROM images WHERE {NOT_LIVE}", of(&["id", "deleted"])),
            places: format!("SELECT {} FROM image_locations", of(&["image_id", "value", "deleted"])),
            newest: [newest(&IMAGES), newest(&LOCATIONS)],
            newest_at_once: [(&IMAGES, {
                let latest = |column| session.text_of(&format!("(SELECT MAX({column}) FROM images)"), column);
                format!("SELECT {}, {}, NULL AS deleted_at", latest("created_at"), latest("updated_at"))
            })],
        })
    }
}

/// Checks a table, and makes the query for all of it: NULL stands for a column that this release does not have.
async fn select(table: &Table, session: &mut Session<'_>, database: &str) -> Result<String, DatabaseError> {
    let there: HashSet<String> = session.columns(table.name).await?;
    if there.is_empty() {
        return Err(DatabaseError::NotGlance(database.into(), format!("table {}", table.name)));
    }
    if let Some(missing) = table.required.iter().find(|column| !there.contains(**column)) {
        return Err(DatabaseError::NotGlance(database.into(), format!("column {}.{missing}", table.name)));
    }
    let mut sql = "SELECT ".to_owned();
    for (index, column) in table.required.iter().chain(table.optional).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let text = if there.contains(*column) { session.text_of(column, column) } else { format!("NULL AS {column}") };
        // Writing to a String cannot fail.
        let _ = write!(sql, "{comma}{text}");
    }
    let _ = write!(sql, " FROM {}", table.name);
    Ok(sql)
}

/// A row, with what is needed to say what is wrong with it.
pub(super) struct Reader<'a> {
    pub(super) database: &'a str,
    pub(super) table: &'static Table,
}

impl Reader<'_> {
    /// A column that may be NULL.
    pub(super) fn optional<'r>(&self, row: &Row<'r>, column: &str) -> Result<Option<&'r str>, DatabaseError> {
        row.text(column).map_err(|error| match error {
            sqlx::Error::ColumnDecode { source, .. } => self.malformed(column, &source.to_string()),
            error => DatabaseError::Read(self.database.into(), error),
        })
    }

    /// A column that always has a value.
    pub(super) fn text<'r>(&self, row: &Row<'r>, column: &str) -> Result<&'r str, DatabaseError> {
        self.optional(row, column)?.ok_or_else(|| self.malformed(column, "is NULL"))
    }

    /// A boolean, which two of three databases write as a number.
    pub(super) fn flag(&self, row: &Row<'_>, column: &str) -> Result<bool, DatabaseError> {
        match self.text(row, column)? {
            "0" | "false" => Ok(false),
            "1" | "true" => Ok(true),
            _ => Err(self.malformed(column, "is neither true nor false")),
        }
    }

    /// A time. All are UTC, written `2026-01-31 12:00:00.000000`.
    pub(super) fn time(&self, row: &Row<'_>, column: &str) -> Result<Option<Timestamp>, DatabaseError> {
        let Some(text) = self.optional(row, column)? else { return Ok(None) };
        match text.parse::<DateTime>().and_then(|time| time.to_zoned(TimeZone::UTC)) {
            Ok(time) => Ok(Some(time.timestamp())),
            Err(_) => Err(self.malformed(column, &format!("is {text:?}, not a time"))),
        }
    }

    fn malformed(&self, column: &str, what: &str) -> DatabaseError {
        DatabaseError::Malformed(self.database.into(), format!("{}.{column} {what}", self.table.name))
    }

    /// An image. Whether it is being imported is known elsewhere.
    pub(super) fn image(&self, row: &Row<'_>) -> Result<GlanceImage, DatabaseError> {
        let owned = |column| self.optional(row, column).map(|text| text.map(str::to_owned));
        let size = self.optional(row, "size")?.map(str::parse::<i64>);
        let size = size.transpose().map_err(|_| self.malformed("size", "is not a number"))?;
        Ok(GlanceImage {
            id: self.text(row, "id")?.to_owned(),
            status: self.text(row, "status")?.to_owned(),
            deleted: self.flag(row, "deleted")?,
            size: size.and_then(|size| u64::try_from(size).ok()),
            created: self.time(row, "created_at")?,
            updated: self.time(row, "updated_at")?,
            deleted_at: self.time(row, "deleted_at")?,
            disk_format: owned("disk_format")?,
            owner: owned("owner")?,
            visibility: owned("visibility")?,
            protected: self.optional(row, "protected")?.is_some() && self.flag(row, "protected")?,
            checksum: owned("checksum")?,
            multihash: owned("os_hash_algo")?.zip(owned("os_hash_value")?),
            ..GlanceImage::default()
        })
    }

    /// A location. Before Juno none had a status.
    pub(super) fn location(&self, row: &Row<'_>, key: Option<&Key>) -> Result<GlanceLocation, DatabaseError> {
        let deleted = self.flag(row, "deleted")?;
        let status = self.optional(row, "status")?.unwrap_or(if deleted { "deleted" } else { "active" });
        Ok(GlanceLocation {
            image_id: self.text(row, "image_id")?.to_owned(),
            database: 0,
            place: place(self.text(row, "value")?, key),
            status: status.to_owned(),
            deleted,
            store: self.optional(row, "meta_data")?.and_then(store_of),
            updated: self.time(row, "updated_at")?,
        })
    }
}

/// The name of the backend in a location's metadata. What is no JSON object names none.
fn store_of(metadata: &str) -> Option<String> {
    let metadata: serde_json::Value = serde_json::from_str(metadata).ok()?;
    // `backend` is what Rocky wrote.
    metadata.get("store").or_else(|| metadata.get("backend"))?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::store_of;

    #[test]
    fn the_store_is_in_the_metadata() {
        for (metadata, store) in [
            ("{}", None),
            (r#"{"store": "ceph"}"#, Some("ceph")),
            (r#"{"backend": "ceph"}"#, Some("ceph")),
            (r#"{"store": 1}"#, None),
            ("[]", None),
            ("garbage", None),
            ("", None),
        ] {
            assert_eq!(store_of(metadata).as_deref(), store, "{metadata}");
        }
    }
}
