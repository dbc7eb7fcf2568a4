//! Reading an image: a range of its snapshot, in order, several pieces ahead, its holes not at all.
//!
//! A snapshot of a plain image, such as Glance's all are, is read straight from its objects: librbd takes twelve round trips
//! to open an image. What is not plain is read through librbd.
//!
//! Wrong bytes never. A deleted object is as good as one that never was, and reads as zeroes; and a reader leaves no watch that
//! would keep an image from being removed. So a missing object is believed to be a hole only when, after that was seen, the
//! snapshot is seen to be still there: it goes before the data does. The same holds for the object map that tells the holes:
//! the snapshot must be there after it was read. From then on it may go: a snapshot's holes stay what they were.

mod alive;
mod pieces;
mod reader;

use std::ops::{Bound, RangeBounds};

use rbd::{Features, Image, ObjectMap, OpenOptions, PlainSnapshot, Snapshot};

pub use self::reader::Reader;
use self::{
    alive::Alive,
    pieces::Pieces,
    reader::{LONGEST_READ, Source},
};
use crate::{
    Store,
    add::LARGEST_WINDOW,
    counters::Operation,
    error::{Error, Result},
    location::Location,
};

/// What is known of a stored image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The RBD id.
    pub image_id: String,
    /// How long it is.
    pub bytes: u64,
    /// Bytes of the objects that exist.
    pub used: u64,
    /// Bytes of an object.
    pub object_size: u64,
    /// Its RBD features.
    pub features: Features,
    /// Its snapshots.
    pub snapshots: Vec<Snapshot>,
}

impl Store {
    /// Opens an image for reading, whole (`..`) or a range of its bytes. A range that reaches beyond the end ends there.
    ///
    /// # Errors
    /// `NotFound`; `ForeignCluster`; `Invalid` for a range that starts beyond the end, or runs backwards.
    pub async fn get(&self, location: &Location, range: impl RangeBounds<u64>) -> Result<Reader> {
        let measured = self.meters().begin(Operation::Get, location.image());
        match self.open_pieces(location, range).await {
            Ok((source, pieces)) => {
                let window = (self.config().window * self.config().chunk_bytes()) as u64;
                Ok(Reader::new(
                    source,
                    pieces,
                    self.budget().share(window.clamp(LONGEST_READ, LARGEST_WINDOW)),
                    measured,
                ))
            }
            Err(error) => {
                let failed = Err(error);
                measured.end(&failed);
                failed
            }
        }
    }

    /// What is known of a stored image.
    ///
    /// # Errors
    /// `NotFound`, `ForeignCluster`.
    pub async fn stat(&self, location: &Location) -> Result<Stat> {
        let stat = async {
            let image = self.open_to_read(location).await?;
            let stat = async {
                let stat = image.stat().await?;
                Ok(Stat {
                    image_id: image.id().await?,
                    bytes: stat.size,
                    used: image.used().await?,
                    object_size: stat.object_size,
                    features: image.features().await?,
                    snapshots: image.snapshots().await?,
                })
            };
            let stat = stat.await;
            image.close().await?;
            stat
        };
        self.meters().measure(Operation::Stat, location.image(), stat).await
    }

    /// How long an image is, in bytes.
    ///
    /// # Errors
    /// `NotFound`, `ForeignCluster`.
    pub async fn size(&self, location: &Location) -> Result<u64> {
        let size = async {
            let image = self.open_to_read(location).await?;
            let stat = image.stat().await;
            image.close().await?;
            Ok(stat?.size)
        };
        self.meters().measure(Operation::Stat, location.image(), size).await
    }

    async fn open_to_read(&self, location: &Location) -> Result<Image> {
        let options = OpenOptions { read_only: true, snapshot: location.snapshot().map(Into::into) };
        Ok(self.pool_of(location).await?.open_image(location.image(), options).await?)
    }

    async fn open_pieces(&self, location: &Location, range: impl RangeBounds<u64>) -> Result<(Source, Pieces)> {
        let pool = self.pool_of(location).await?;
        if let Some(name) = location.snapshot()
            && let Some(snapshot) = pool.plain_snapshot(location.image(), name).await?
        {
            let (start, end) = bounds(range, snapshot.size())?;
            let alive = Alive::snapshot(&pool, snapshot.image_id(), snapshot.id(), name, location);
            let map = if start < end { believed_map(&snapshot).await? } else { None };
            let pieces = Pieces::new(start, end, snapshot.object_size(), LONGEST_READ, map);
            if pieces.have_holes() {
                alive.check().await?;
            }
            return Ok((Source::Objects { size: snapshot.size(), snapshot, alive }, pieces));
        }
        // Clones, stripes, a head: what librbd knows how to read.
        let image = self.open_to_read(location).await?;
        let stat = image.stat().await?;
        let (start, end) = bounds(range, stat.size)?;
        let id = image.id().await?;
        let alive = match location.snapshot() {
            Some(name) => {
                let found = image.snapshots().await?.into_iter().find(|snapshot| snapshot.name == name);
                let found = found.ok_or_else(|| rbd::Error::not_found("read", location.to_string()))?;
                Alive::snapshot(&pool, &id, found.id, name, location)
            }
            None => Alive::head(&pool, &id, location),
        };
        let pieces = Pieces::new(start, end, stat.object_size, LONGEST_READ, None);
        Ok((Source::Image { size: stat.size, image, alive }, pieces))
    }
}

fn bounds(range: impl RangeBounds<u64>, size: u64) -> Result<(u64, u64)> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => size,
    };
    if start > size || end < start {
        return Err(Error::Invalid(format!("no bytes {start} to {end} in an image of {size}")));
    }
    Ok((start, end.min(size)))
}

/// The object map of a snapshot: where it is damaged, or cannot be had, the objects themselves are asked.
async fn believed_map(snapshot: &PlainSnapshot) -> rbd::Result<Option<ObjectMap>> {
    match snapshot.object_map().await {
        Err(error) if error.kind != rbd::ErrorKind::TimedOut => {
            tracing::warn!(%error, "no hole of this image is skipped");
            Ok(None)
        }
        map => map,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_with_the_image() {
        assert_eq!(bounds(.., 10).unwrap(), (0, 10));
        assert_eq!(bounds(3..=4, 10).unwrap(), (3, 5));
        assert_eq!(bounds(3..u64::MAX, 10).unwrap(), (3, 10));
        assert_eq!(bounds(10.., 10).unwrap(), (10, 10));
        assert!(bounds(11.., 10).is_err());
        #[expect(clippy::reversed_empty_ranges, reason = "what a caller may pass")]
        let backwards = bounds(4..3, 10);
        assert!(backwards.is_err());
    }
}
