//! Whether what is being read is still there.

use rbd::{Image, Pool, Snapshot};

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
    /// Of a snapshot, or of the head if the location names none.
    pub(super) fn of(image: &Image, id: &str, snapshot: Option<&Snapshot>, location: &Location) -> Self {
        let (object, key, value) = match snapshot {
            Some(snapshot) => {
                // Its id and its name: a snapshot on its way out is renamed first.
                let mut value = snapshot.id.to_le_bytes().to_vec();
                value.extend((snapshot.name.len() as u32).to_le_bytes());
                value.extend(snapshot.name.as_bytes());
                (format!("rbd_header.{id}"), format!("snapshot_{:016x}", snapshot.id), value)
            }
            // Its removal begins in the directory.
            None => ("rbd_directory".to_owned(), format!("id_{id}"), Vec::new()),
        };
        Self { pool: image.pool().clone(), object, key, value, what: location.to_string() }
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
