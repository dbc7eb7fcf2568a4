//! The records: Glance's tables `images` and `image_locations`, in SQLite, with Glance's states.

use axum::http::StatusCode;
use serde_json::{Value, json};
use sqlx::{
    Row, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow},
};
use store::Added;

use crate::{failure::Failure, images::NewImage};

/// The database. Clones share it.
#[derive(Clone)]
pub(crate) struct Catalog(SqlitePool);

/// Where an active image's data is.
pub(crate) struct File {
    pub(crate) location: String,
    pub(crate) size: u64,
    pub(crate) checksum: String,
}

/// As SQLAlchemy writes a time to SQLite.
macro_rules! now {
    () => {
        "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
    };
}

impl Catalog {
    /// Opens the database, or makes it.
    pub(crate) async fn open(path: &str) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        let made: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = 'images'").fetch_one(&pool).await?;
        if made == 0 {
            sqlx::raw_sql(include_str!("../../../docker/glance-schema.sql")).execute(&pool).await?;
        }
        Ok(Self(pool))
    }

    /// Uploads that were cut off when the server was killed may be tried again. (A Glance leaves them saving for ever.)
    pub(crate) async fn end_uploads(&self) -> Result<(), sqlx::Error> {
        let sql = concat!("UPDATE images SET status = 'queued', updated_at = ", now!(), " WHERE status = 'saving'");
        sqlx::query(sql).execute(&self.0).await.map(drop)
    }

    pub(crate) async fn create(&self, id: &str, image: &NewImage) -> Result<(), Failure> {
        let sql = concat!(
            "INSERT INTO images (id, name, disk_format, container_format, protected, status, created_at, updated_at,",
            " deleted, min_disk, min_ram) VALUES (?, ?, ?, ?, ?, 'queued', ",
            now!(),
            ", ",
            now!(),
            ", 0, 0, 0)"
        );
        sqlx::query(sql)
            .bind(id)
            .bind(&image.name)
            .bind(&image.disk_format)
            .bind(&image.container_format)
            .bind(image.protected)
            .execute(&self.0)
            .await?;
        Ok(())
    }

    /// An image as Glance's API shows it.
    pub(crate) async fn show(&self, id: &str) -> Result<Value, Failure> {
        let row = self.row(id).await?;
        let text = |column| row.try_get::<Option<String>, _>(column);
        let number = |column| row.try_get::<Option<i64>, _>(column);
        let time =
            |column| Ok::<_, sqlx::Error>(text(column)?.map(|time| time.replacen(' ', "T", 1)[..19].to_owned() + "Z"));
        Ok(json!({
            "id": id, "name": text("name")?, "status": text("status")?, "size": number("size")?,
            "virtual_size": null, "checksum": text("checksum")?, "os_hash_algo": text("os_hash_algo")?,
            "os_hash_value": text("os_hash_value")?, "disk_format": text("disk_format")?,
            "container_format": text("container_format")?, "protected": row.try_get::<bool, _>("protected")?,
            "visibility": text("visibility")?, "min_disk": 0, "min_ram": 0, "tags": [],
            "created_at": time("created_at")?, "updated_at": time("updated_at")?,
            "self": format!("/v2/images/{id}"), "file": format!("/v2/images/{id}/file"), "schema": "/v2/schemas/image",
        }))
    }

    pub(crate) async fn is_protected(&self, id: &str) -> Result<bool, Failure> {
        Ok(self.row(id).await?.try_get("protected")?)
    }

    async fn row(&self, id: &str) -> Result<SqliteRow, Failure> {
        let row =
            sqlx::query("SELECT * FROM images WHERE id = ? AND deleted = 0").bind(id).fetch_optional(&self.0).await?;
        row.ok_or_else(|| Failure::no_image(id))
    }

    /// Where the data is; `None` for an image that has none yet.
    pub(crate) async fn file(&self, id: &str) -> Result<Option<File>, Failure> {
        let image = self.row(id).await?;
        let sql = "SELECT value FROM image_locations WHERE image_id = ? AND deleted = 0 AND status = 'active'";
        let location: Option<String> = sqlx::query_scalar(sql).bind(id).fetch_optional(&self.0).await?;
        let Some(location) = location else { return Ok(None) };
        let size = u64::try_from(image.try_get::<i64, _>("size")?).unwrap_or(0);
        Ok(Some(File { location, size, checksum: image.try_get("checksum")? }))
    }

    /// queued → saving.
    pub(crate) async fn begin_upload(&self, id: &str) -> Result<(), Failure> {
        let sql = concat!(
            "UPDATE images SET status = 'saving', updated_at = ",
            now!(),
            " WHERE id = ? AND status = 'queued' AND deleted = 0"
        );
        if sqlx::query(sql).bind(id).execute(&self.0).await?.rows_affected() == 1 {
            return Ok(());
        }
        let status: String = self.row(id).await?.try_get("status")?;
        Err(Failure::new(StatusCode::CONFLICT, format!("image {id} is {status}, and only a queued one takes data")))
    }

    /// saving → active, with its location; false if the image was deleted meanwhile.
    pub(crate) async fn end_upload(&self, id: &str, added: &Added) -> Result<bool, Failure> {
        let mut transaction = self.0.begin().await?;
        let sql = concat!(
            "UPDATE images SET status = 'active', size = ?, checksum = ?, os_hash_algo = 'sha512', os_hash_value = ?,",
            " updated_at = ",
            now!(),
            " WHERE id = ? AND status = 'saving' AND deleted = 0"
        );
        let size = i64::try_from(added.bytes).unwrap_or(i64::MAX);
        let updated = sqlx::query(sql).bind(size).bind(&added.checksum).bind(&added.multihash).bind(id);
        if updated.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Ok(false);
        }
        let sql = concat!(
            "INSERT INTO image_locations (image_id, value, meta_data, status, deleted, created_at, updated_at)",
            " VALUES (?, ?, '{}', 'active', 0, ",
            now!(),
            ", ",
            now!(),
            ")"
        );
        sqlx::query(sql).bind(id).bind(added.location.to_string()).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// saving → queued.
    pub(crate) async fn abandon_upload(&self, id: &str) -> Result<(), Failure> {
        let sql = concat!(
            "UPDATE images SET status = 'queued', updated_at = ",
            now!(),
            " WHERE id = ? AND status = 'saving'"
        );
        sqlx::query(sql).bind(id).execute(&self.0).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<(), Failure> {
        let mut transaction = self.0.begin().await?;
        for sql in [
            concat!(
                "UPDATE images SET status = 'deleted', deleted = 1, deleted_at = ",
                now!(),
                " WHERE id = ? AND deleted = 0"
            ),
            concat!(
                "UPDATE image_locations SET status = 'deleted', deleted = 1, deleted_at = ",
                now!(),
                " WHERE image_id = ? AND deleted = 0"
            ),
        ] {
            sqlx::query(sql).bind(id).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}
