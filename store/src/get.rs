//! Reading an image: its snapshot, in order, several chunks ahead.
//!
//! A deleted object reads as zeroes, and a reader leaves no watch that would keep an image from being removed. So a hole is
//! believed only when, after it was read, the snapshot is seen to be still there: it goes before the data does.

use std::{
    collections::VecDeque,
    future::Future,
    ops::{Bound, RangeBounds},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::Stream;
use rbd::{Features, Image, OpenOptions, Pool, ReadOp, Snapshot};

use crate::{
    Store,
    error::{Error, Result},
    location::Location,
};

/// A range of an image, as a stream of chunks. Up to [`Config::window`](crate::Config::window) chunks are read ahead.
pub struct Reader {
    image: Image,
    alive: Alive,
    path: String,
    chunk: u64,
    window: usize,
    /// The next byte to ask for, and the end.
    next: u64,
    end: u64,
    size: u64,
    ahead: VecDeque<Read>,
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

/// A read under way.
struct Read {
    length: usize,
    done: Pin<Box<dyn Future<Output = rbd::Result<Bytes>> + Send>>,
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
        let alive = Alive::of(&image, location).await?;
        // Reads end where objects end, so that each is one request.
        let chunk = stat.object_size.clamp(1 << 20, 32 << 20);
        let path = pool.path(location.image());
        let window = self.config().window.max(1);
        Ok(Reader { image, alive, path, chunk, window, next: start, end, size: stat.size, ahead: VecDeque::new() })
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

/// How to see that what is read has not been removed: a key of an object that goes before the data does.
#[derive(Clone)]
struct Alive {
    pool: Pool,
    object: String,
    key: String,
    what: String,
}

impl Alive {
    async fn of(image: &Image, location: &Location) -> rbd::Result<Self> {
        let (pool, what) = (image.pool().clone(), location.to_string());
        let id = image.id().await?;
        let snapshots = image.snapshots().await?;
        let snapshot = location.snapshot().and_then(|name| snapshots.iter().find(|snapshot| snapshot.name == name));
        let (object, key) = match snapshot {
            Some(snapshot) => (format!("rbd_header.{id}"), format!("snapshot_{:016x}", snapshot.id)),
            // The head: its removal begins in the directory.
            None => ("rbd_directory".to_owned(), format!("id_{id}")),
        };
        Ok(Self { pool, object, key, what })
    }

    async fn check(&self) -> rbd::Result<()> {
        let found = self.pool.read_object(&self.object, &ReadOp::new().omap("", &self.key, 1)).await?;
        if found.omap.first().is_none_or(|(key, _)| key != self.key.as_bytes()) {
            return Err(rbd::Error::not_found("go on reading", self.what.as_str()));
        }
        Ok(())
    }
}

/// Whether there is a block of zeroes such as a missing object, or a part of one, would leave.
fn has_hole(data: &[u8]) -> bool {
    const BLOCK: usize = 4096;
    static ZEROES: [u8; BLOCK] = [0; BLOCK];
    data.chunks(BLOCK).any(|block| *block == ZEROES[..block.len()])
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
        self.end - self.next + self.ahead.iter().map(|read| read.length as u64).sum::<u64>()
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
        while self.ahead.len() < self.window && self.next < self.end {
            let until = ((self.next / self.chunk + 1) * self.chunk).min(self.end);
            let length = usize::try_from(until - self.next).expect("a chunk fits in memory");
            let (read, alive) = (self.image.read(self.next, length), self.alive.clone());
            let done = async move {
                let data = read.await?;
                if has_hole(&data) {
                    alive.check().await?;
                }
                Ok(data)
            };
            self.ahead.push_back(Read { length, done: Box::pin(done) });
            self.next = until;
        }
    }
}

impl Stream for Reader {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.read_ahead();
        let Some(read) = self.ahead.front_mut() else { return Poll::Ready(None) };
        let length = read.length;
        let data = ready!(read.done.as_mut().poll(context));
        self.ahead.pop_front();
        // A snapshot does not shrink: fewer bytes than asked for are an error, never the end.
        let data = match data {
            Ok(data) if data.len() == length => Ok(data),
            Ok(data) => Err(Error::Invalid(format!("{} gave {} bytes of {length}", self.path, data.len()))),
            Err(error) => Err(error.into()),
        };
        if data.is_err() {
            self.next = self.end;
            self.ahead.clear();
        }
        Poll::Ready(Some(data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_seen_wherever_it_is() {
        let mut data = vec![1; 3 * 4096 + 10];
        assert!(!has_hole(&data));
        data[4096..8192].fill(0);
        assert!(has_hole(&data));
        data[5000] = 1;
        assert!(!has_hole(&data));
        data[3 * 4096..].fill(0);
        assert!(has_hole(&data), "the last block is shorter");
        assert!(!has_hole(b""));
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
