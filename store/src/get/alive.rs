//! Whether what is being read is still there.

use rbd::Pool;

use crate::location::Location;

/// A key of an object that goes, or changes, before the data does.
#[derive(Clone)]
pub(super) struct Alive {
    pool: Pool,
    object: String,
    key: String,
    /// What its value holds behind the encoding's version and length.
    value: Vec<u8>,
    what: String,
}

impl Alive {
    /// Of a snapshot.
    pub(super) fn snapshot(pool: &Pool, image_id: &str, id: u64, name: &str, location: &Location) -> Self {
        // Its id and its name: a snapshot on its way out is renamed first.
        let mut value = id.to_le_bytes().to_vec();
        value.extend((name.len() as u32).to_le_bytes());
        value.extend(name.as_bytes());
        let (object, key) = (format!("rbd_header.{image_id}"), format!("snapshot_{id:016x}"));
        Self { pool: pool.clone(), object, key, value, what: location.to_string() }
    }

    /// Of an image itself, whose removal begins in the directory.
    pub(super) fn head(pool: &Pool, image_id: &str, location: &Location) -> Self {
        let (object, key) = ("rbd_directory".to_owned(), format!("id_{image_id}"));
        Self { pool: pool.clone(), object, key, value: Vec::new(), what: location.to_string() }
    }

    /// The image, for errors.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Fails with `NotFound` if it has gone, or is going.
    pub(super) async fn check(&self) -> rbd::Result<()> {
        const VERSION_AND_LENGTH: usize = 6;
        let found = self.pool.omap_value(&self.object, &self.key).await?;
        let same = found.and_then(|value| {
            let rest = if self.value.is_empty() { value.as_slice() } else { value.get(VERSION_AND_LENGTH..)? };
            rest.starts_with(&self.value).then_some(())
        });
        same.ok_or_else(|| rbd::Error::not_found("go on reading", self.what.as_str()))
    }
}
