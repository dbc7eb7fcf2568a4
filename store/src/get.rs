//! Reading an image: a range of its snapshot, in order, several pieces ahead, its holes not at all.
//!
//! Wrong bytes never. A deleted object reads as zeroes, and a reader leaves no watch that would keep an image from being
//! removed. So zeroes where an object may be missing are believed only when, after they were read, the snapshot is seen to be
//! still there: it goes before the data does. The same holds for the object map that tells the holes: it is asked whether
//! the snapshot is there after it was read. From then on it may go: a snapshot's holes stay what they were.

mod alive;
mod pieces;
mod reader;

use std::ops::{Bound, RangeBounds};

use rbd::{Features, Image, ImageStat, ObjectMap, OpenOptions, Snapshot};

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
        let image = self.open_to_read(location).await?;
        let stat = image.stat().await?;
        let (start, end) = bounds(range, stat.size)?;
        let id = image.id().await?;
        let snapshot = match location.snapshot() {
            Some(name) => {
                let found = image.snapshots().await?.into_iter().find(|snapshot| snapshot.name == name);
                Some(found.ok_or_else(|| rbd::Error::not_found("read", location.to_string()))?)
            }
            None => None,
        };
        let alive = Alive::of(&image, &id, snapshot.as_ref(), location);
        let plain = image.stripe_count().await? == 1 && image.stripe_unit().await? == stat.object_size;
        let map = match snapshot {
            Some(snapshot) if plain && start < end => believed_map(&image, &id, &snapshot, &stat).await?,
            _ => None,
        };
        let pieces = Pieces::new(start, end, stat.object_size, LONGEST_READ, map);
        if pieces.have_holes() {
            alive.check().await?;
        }
        Ok((Source { image, alive, plain, size: stat.size }, pieces))
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

/// The object map of a snapshot, where every object it says is missing must read as zeroes.
///
/// Not of a head, which changes under the reader, nor of a clone, which takes from its parent what is missing, nor of an
/// image being migrated.
async fn believed_map(
    image: &Image,
    id: &str,
    snapshot: &Snapshot,
    stat: &ImageStat,
) -> rbd::Result<Option<ObjectMap>> {
    let (features, flags) = (image.features().await?, image.flags().await?);
    // Invalid fast differences do not matter: what exists, exists.
    if !features.contains(Features::OBJECT_MAP)
        || features.contains(Features::MIGRATING)
        || flags.object_map_invalid()
        || image.parent().await?.is_some()
    {
        return Ok(None);
    }
    match image.pool().object_map(id, Some(snapshot.id)).await {
        Ok(map) => Ok(map.filter(|map| map.objects() == stat.objects)),
        Err(error) if error.kind == rbd::ErrorKind::TimedOut => Err(error),
        // Damaged, or not to be read: the objects themselves are asked.
        Err(error) => {
            tracing::warn!(%error, "no hole of this image is skipped");
            Ok(None)
        }
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
