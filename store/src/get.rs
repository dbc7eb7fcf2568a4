//! Reading an image: a range of its snapshot, in order, several pieces ahead, its holes not at all.
//!
//! Wrong bytes never. A deleted object reads as zeroes, and a reader leaves no watch that would keep an image from being
//! removed. So zeroes where an object may be missing are believed only when, after they were read, the snapshot is seen to be
//! still there: it goes before the data does. The same holds for the object map that tells the holes: it is asked whether
//! the snapshot is there after it was read. From then on it may go: a snapshot's holes stay what they were.

mod alive;
mod pieces;

use std::{
    ops::{Bound, RangeBounds},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{
    Stream,
    future::BoxFuture,
    stream::{FuturesOrdered, StreamExt},
};
use rbd::{Features, Image, ImageStat, ObjectMap, OpenOptions, Snapshot};

use self::{
    alive::Alive,
    pieces::{Piece, Pieces},
};
use crate::{
    Store,
    error::{Error, Result},
    location::Location,
};

/// The most bytes of one read.
const LONGEST_READ: u64 = 4 << 20;

/// What holes are given as.
static ZEROES: [u8; 1 << 20] = [0; 1 << 20];

/// A range of an image, as a stream of its bytes in pieces of a few MiB at most.
///
/// A window of [`Config::window`](crate::Config::window) chunks is read ahead, as soon as the stream is polled. A piece that
/// was given out belongs to the caller, and no longer to the window.
pub struct Reader {
    image: Image,
    alive: Alive,
    path: String,
    /// A piece of zeroes may be a missing object only where pieces are of one object each.
    plain: bool,
    pieces: Pieces,
    ahead: FuturesOrdered<BoxFuture<'static, Result<Ahead>>>,
    /// Bytes of the reads under way and of those not yet given out, and how many there may be.
    in_flight: usize,
    window: usize,
    /// Of the hole that is being given out.
    zeroes: u64,
    remaining: u64,
    size: u64,
}

/// What comes next.
enum Ahead {
    Zeroes(u64),
    Data(Bytes),
}

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
        let pool = self.pool_of(location).await?;
        let options = OpenOptions { read_only: true, snapshot: location.snapshot().map(Into::into) };
        let image = pool.open_image(location.image(), options).await?;
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
        Ok(Reader {
            path: pool.path(location.image()),
            image,
            alive,
            plain,
            ahead: FuturesOrdered::new(),
            in_flight: 0,
            window: (self.config().window * self.config().chunk_bytes()).max(pieces.longest()),
            zeroes: 0,
            remaining: pieces.bytes(),
            pieces,
            size: stat.size,
        })
    }

    /// What is known of a stored image.
    ///
    /// # Errors
    /// `NotFound`, `ForeignCluster`.
    pub async fn stat(&self, location: &Location) -> Result<Stat> {
        let reader = self.get(location, 0..0).await?;
        let image = &reader.image;
        let stat = async {
            Ok(Stat {
                image_id: image.id().await?,
                bytes: reader.size,
                used: image.used().await?,
                object_size: image.stat().await?.object_size,
                features: image.features().await?,
                snapshots: image.snapshots().await?,
            })
        };
        let stat = stat.await;
        reader.close().await?;
        stat
    }

    /// How long an image is, in bytes.
    ///
    /// # Errors
    /// `NotFound`, `ForeignCluster`.
    pub async fn size(&self, location: &Location) -> Result<u64> {
        let reader = self.get(location, 0..0).await?;
        reader.image.close().await?;
        Ok(reader.size)
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

/// Whether what was read may have come from a missing object.
fn may_be_missing(data: &[u8], plain: bool) -> bool {
    // Elsewhere a piece is made of parts of several objects, however small.
    if plain { data.chunks(ZEROES.len()).all(|part| *part == ZEROES[..part.len()]) } else { data.contains(&0) }
}

impl Reader {
    /// How long the image is, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes are still to come.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Closes the image and waits for it. Dropping the reader closes it in the background.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn close(self) -> Result<()> {
        drop(self.ahead);
        Ok(self.image.close().await?)
    }

    fn read_ahead(&mut self) {
        while self.in_flight + self.pieces.longest() <= self.window {
            let Some(piece) = self.pieces.next() else { break };
            match piece {
                Piece::Hole { length } => self.ahead.push_back(Box::pin(std::future::ready(Ok(Ahead::Zeroes(length))))),
                Piece::Data { offset, length } => {
                    self.in_flight += length;
                    let read = self.read(offset, length);
                    self.ahead.push_back(Box::pin(read));
                }
            }
        }
    }

    /// Reads a piece; submitted now.
    fn read(&self, offset: u64, length: usize) -> impl Future<Output = Result<Ahead>> + Send + use<> {
        let read = self.image.read(offset, length);
        let (alive, path, plain) = (self.alive.clone(), self.path.clone(), self.plain);
        async move {
            let data = read.await?;
            // A snapshot does not shrink: fewer bytes than asked for are an error, never the end.
            if data.len() != length {
                return Err(Error::Invalid(format!("{path} gave {} bytes of {length} at {offset}", data.len())));
            }
            if may_be_missing(&data, plain) {
                alive.check().await?;
            }
            Ok(Ahead::Data(data))
        }
    }

    fn give(&mut self, data: Bytes) -> Poll<Option<Result<Bytes>>> {
        self.remaining -= data.len() as u64;
        Poll::Ready(Some(Ok(data)))
    }
}

impl Stream for Reader {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.zeroes > 0 {
                let length = self.zeroes.min(ZEROES.len() as u64);
                self.zeroes -= length;
                return self.give(Bytes::from_static(&ZEROES[..length as usize]));
            }
            self.read_ahead();
            match ready!(self.ahead.poll_next_unpin(context)) {
                None => return Poll::Ready(None),
                Some(Ok(Ahead::Zeroes(length))) => self.zeroes = length,
                Some(Ok(Ahead::Data(data))) => {
                    self.in_flight -= data.len();
                    return self.give(data);
                }
                Some(Err(error)) => {
                    self.pieces.stop();
                    self.ahead.clear();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece of one object is zeroes as a whole when that is missing; elsewhere any zero may come from a missing one.
    #[test]
    fn what_may_be_missing() {
        let mut data = vec![0; ZEROES.len() + 10];
        assert!(may_be_missing(&data, true) && may_be_missing(&data, false));
        data[ZEROES.len() + 9] = 1;
        assert!(!may_be_missing(&data, true) && may_be_missing(&data, false));
        assert!(!may_be_missing(&[1; 9], false));
    }

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
