//! An upload under way: a fixed window of chunk buffers is all the memory it uses.
//!
//! A full chunk goes to the digests and to librbd at the same time, shared; the last of them to be done with it gives its place
//! in the window back. Chunks begin and end where the image's objects do. What the source says is a hole, and in thin mode what
//! is found to be one, is not written.

use std::{
    future::Future,
    mem,
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tracing::Instrument;

use crate::{
    Store,
    add::Added,
    budget::{Buffer, Place, Share},
    claim::Interest,
    counters::Measured,
    error::{Error, Result},
    hash::{Hashers, Verifier},
    location::SNAPSHOT,
    mark::UploadMark,
    sparse::{Piece, SparseFile},
    thin,
    upload::{Remains, Upload},
};

/// The least and the most that an image of unknown size grows by in one step.
const STEPS: (u64, u64) = (1 << 30, 8 << 30);

/// How long ago the last write that was done may have been submitted before the way of the next is looked at again
/// ([`prepare_to_write`](rbd::Image::prepare_to_write) says why).
const SILENCE: Duration = Duration::from_secs(1);

/// An upload under way.
///
/// [`finish`](Self::finish) makes it an image. Whatever else happens to it (an error, [`abort`](Self::abort), a drop)
/// removes what was stored so far. A process killed meanwhile leaves an image, which carries an
/// [`UploadMark`] from the moment after its creation, and which the next upload of the same id removes.
pub struct Writer {
    pub(crate) upload: Upload,
    pub(crate) interest: Option<Interest>,
    pub(crate) store: Store,
    pub(crate) measured: Measured,
    pub(crate) hashers: Hashers,
    pub(crate) share: Share,
    /// The buffer being filled.
    pub(crate) chunk: Option<Chunk>,
    pub(crate) in_flight: InFlight,
    pub(crate) chunk_bytes: usize,
    pub(crate) thin: bool,
    /// Bytes handed on.
    pub(crate) submitted: u64,
    /// The RBD image's size now.
    pub(crate) image_size: u64,
    pub(crate) announced: Option<u64>,
    /// A call failed or was dropped half-way: the stream has lost its place.
    pub(crate) broken: bool,
}

type Write = Pin<Box<dyn Future<Output = (Instant, rbd::Result<()>)> + Send>>;

/// Writes submitted and not yet seen to be done.
pub(crate) struct InFlight {
    /// Each knows when it was submitted.
    writes: FuturesUnordered<Write>,
    /// When nothing stood in the way of a write: one that was submitted then was done. `None`: not yet, or not any more.
    clear: Option<Instant>,
}

impl InFlight {
    pub(crate) fn new() -> Self {
        Self { writes: FuturesUnordered::new(), clear: None }
    }

    /// Waits for one to be done; `None` where there is none.
    async fn next(&mut self) -> Option<rbd::Result<()>> {
        let (submitted, written) = self.writes.next().await?;
        self.clear = self.clear.map(|clear| clear.max(submitted));
        Some(written)
    }

    fn push(&self, write: impl Future<Output = rbd::Result<()>> + Send + 'static) {
        let submitted = Instant::now();
        self.writes.push(Box::pin(async move { (submitted, write.await) }));
    }
}

/// A buffer, and how much of it is filled.
pub(crate) struct Chunk {
    buffer: Buffer,
    filled: usize,
    /// Whether parts of it are known to be holes.
    holes: bool,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.buffer.bytes()[..self.filled]
    }
}

impl Chunk {
    fn rest(&mut self) -> &mut [u8] {
        &mut self.buffer.bytes_mut()[self.filled..]
    }
}

/// A chunk of the caller's, and its place in the window.
struct Taken {
    data: Bytes,
    _place: Place,
}

impl AsRef<[u8]> for Taken {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Writer {
    /// Lets a verifier see all data, on a thread of its own. Must come before any data.
    ///
    /// # Errors
    /// `Invalid` after data.
    pub fn verify(&mut self, verifier: impl Verifier + 'static) -> Result<()> {
        if self.taken() > 0 {
            return Err(Error::Invalid("a verifier must see the data from its beginning".into()));
        }
        self.hashers.verify(Box::new(verifier))
    }

    /// Takes the next bytes; returns when there is room for more, not when they are stored. Whole chunks
    /// ([`Config::chunk_size`](crate::Config::chunk_size)), at a multiple of their size, are not copied.
    ///
    /// # Errors
    /// `SizeMismatch` beyond the announced size; `Rejected`; what an earlier write failed with: `StorageFull`, `Timeout`, …. The
    /// upload cannot be continued after an error, nor after this future was dropped half-way.
    pub async fn write(&mut self, data: Bytes) -> Result<()> {
        let written = self.upload.cut_off().or(self.take_data(data)).await;
        self.tell(written)
    }

    async fn take_data(&mut self, mut data: Bytes) -> Result<()> {
        self.begin(data.len() as u64)?;
        while !data.is_empty() {
            if self.chunk.is_none() && data.len() >= self.chunk_bytes {
                let place = meanwhile(&mut self.in_flight, self.share.place(self.chunk_bytes)).await?;
                let whole = Taken { data: data.split_to(self.chunk_bytes), _place: place };
                self.submit(Bytes::from_owner(whole), self.thin).await?;
                continue;
            }
            let chunk = self.chunk().await?;
            let rest = chunk.rest();
            let fits = data.len().min(rest.len());
            rest[..fits].copy_from_slice(&data[..fits]);
            chunk.filled += fits;
            data.advance(fits);
            self.submit_if_full().await?;
        }
        self.broken = false;
        Ok(())
    }

    /// Takes so many zeroes, without storing them: a hole of the source.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn skip(&mut self, length: u64) -> Result<()> {
        let skipped = self.upload.cut_off().or(self.take_hole(length)).await;
        self.tell(skipped)
    }

    async fn take_hole(&mut self, mut length: u64) -> Result<()> {
        self.begin(length)?;
        while length > 0 {
            let chunk_bytes = self.chunk_bytes as u64;
            if self.chunk.as_ref().is_none_or(|chunk| chunk.filled == 0) && length >= chunk_bytes {
                let whole = length - length % chunk_bytes;
                self.hashers.zeroes(whole).await?;
                self.measured.add_bytes(whole);
                self.submitted += whole;
                length -= whole;
                continue;
            }
            let chunk = self.chunk().await?;
            let rest = chunk.rest();
            let fits = rest.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            rest[..fits].fill(0);
            chunk.filled += fits;
            chunk.holes = true;
            length -= fits as u64;
            self.submit_if_full().await?;
        }
        self.broken = false;
        Ok(())
    }

    /// Takes the next piece of a file, read straight into a chunk, or a hole of it, which is not read. Returns how many bytes
    /// that was; 0 at the end of the file.
    ///
    /// # Errors
    /// `Source`; and as [`write`](Self::write).
    pub async fn read_from(&mut self, file: &mut SparseFile) -> Result<u64> {
        let read = self.upload.cut_off().or(self.take_piece(file)).await;
        self.tell(read)
    }

    async fn take_piece(&mut self, file: &mut SparseFile) -> Result<u64> {
        self.begin(0)?;
        let Chunk { mut buffer, filled, holes } = match self.chunk.take() {
            Some(chunk) => chunk,
            None => self.new_chunk().await?,
        };
        let mut cursor = file.clone();
        let read = tokio::task::spawn_blocking(move || {
            let piece = cursor.next(&mut buffer.bytes_mut()[filled..]);
            (cursor, buffer, piece)
        });
        let (cursor, buffer, piece) = meanwhile(&mut self.in_flight, read)
            .await?
            .map_err(|error| Error::Invalid(format!("the thread that read a file died: {error}")))?;
        let piece = piece.map_err(Error::Source)?;
        *file = cursor;
        let mut chunk = Chunk { buffer, filled, holes };
        let length = match piece {
            Piece::End => 0,
            Piece::Data(length) => length as u64,
            Piece::Hole(length) => length,
        };
        if let Piece::Data(length) = piece {
            chunk.filled += length;
        }
        self.chunk = (chunk.filled > 0).then_some(chunk);
        if let Piece::Hole(length) = piece {
            self.broken = false;
            self.take_hole(length).await?;
        }
        self.check_announced()?;
        self.submit_if_full().await?;
        self.broken = false;
        Ok(length)
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.submitted + self.chunk.as_ref().map_or(0, |chunk| chunk.filled as u64)
    }

    /// Makes what was written an image: flushed, trimmed, with a protected snapshot.
    ///
    /// # Errors
    /// `SizeMismatch` for less than was announced; `Rejected`; what a write, or the snapshot, failed with. Nothing is left
    /// behind.
    pub async fn finish(mut self) -> Result<Added> {
        let background = self.store.background();
        // Dropped when the caller goes away: then nobody learns the location, and the image goes too.
        let _interest = self.interest.take();
        let undo = |(_, remains): (Added, Remains)| remains.clear();
        let measured = self.measured.clone();
        let complete = self.complete().instrument(measured.span().clone());
        let stored = background.finish(complete, undo).await;
        measured.end(&stored);
        let (added, _remains) = stored?;
        Ok(added)
    }

    /// Gives the upload up and waits until nothing of it is left, or the cluster does not answer.
    pub async fn abort(self) {
        let Self { upload, .. } = self;
        upload.discard().await;
    }

    async fn complete(mut self) -> Result<(Added, Remains)> {
        if let Err(error) = self.upload.cut_off().or(self.store_rest()).await {
            // A cluster that does not answer would not answer the removal either; that is left to the background.
            if !matches!(error, Error::Timeout(_)) {
                self.abort().await;
            }
            return Err(error);
        }
        let bytes = self.submitted;
        let Self { upload, hashers, store, .. } = self;
        let digests = hashers.finish().await;
        let (remains, closed) = upload.close().await;
        let (checksum, multihash) = match closed.and(digests) {
            Ok(digests) => digests,
            Err(error) => {
                remains.clear().await;
                return Err(error);
            }
        };
        let location = store.location_of(remains.name());
        let backend = store.config().backend.clone();
        let metadata = backend.map(|backend| ("store".to_owned(), backend)).into_iter().collect();
        Ok((Added { location, bytes, checksum, multihash, metadata }, remains))
    }

    async fn store_rest(&mut self) -> Result<()> {
        self.begin(0)?;
        self.submit_chunk().await?;
        if let Some(announced) = self.announced.filter(|&announced| announced != self.submitted) {
            return Err(Error::SizeMismatch { expected: announced, actual: self.submitted });
        }
        while let Some(written) = self.in_flight.next().await {
            written?;
        }
        let image = self.upload.image();
        image.flush().await?;
        tracing::debug!(target: "store::stored", bytes = self.submitted, "all data is stored");
        if self.image_size != self.submitted {
            image.resize(self.submitted).await?;
        }
        image.create_snapshot(SNAPSHOT).await?;
        image.protect_snapshot(SNAPSHOT).await?;
        UploadMark::clear(image).await
    }

    /// An upload ends with its first error, whatever becomes of the writer.
    fn tell<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.measured.end(&result);
        }
        result
    }

    /// The buffer being filled.
    async fn chunk(&mut self) -> Result<&mut Chunk> {
        if self.chunk.is_none() {
            self.chunk = Some(self.new_chunk().await?);
        }
        Ok(self.chunk.as_mut().expect("there is one"))
    }

    async fn new_chunk(&mut self) -> Result<Chunk> {
        let buffer = meanwhile(&mut self.in_flight, self.share.buffer(self.chunk_bytes)).await?;
        Ok(Chunk { buffer, filled: 0, holes: false })
    }

    async fn submit_if_full(&mut self) -> Result<()> {
        if self.chunk.as_ref().is_some_and(|chunk| chunk.filled == self.chunk_bytes) {
            self.submit_chunk().await?;
        }
        Ok(())
    }

    async fn submit_chunk(&mut self) -> Result<()> {
        let Some(chunk) = self.chunk.take().filter(|chunk| chunk.filled > 0) else { return Ok(()) };
        let thin = self.thin || chunk.holes;
        self.submit(Bytes::from_owner(chunk), thin).await
    }

    /// Hands a chunk to the digests and to librbd.
    async fn submit(&mut self, data: Bytes, thin: bool) -> Result<()> {
        self.measured.add_bytes(data.len() as u64);
        let end = self.submitted + data.len() as u64;
        if end > self.image_size {
            let size = end.max(self.image_size + self.image_size.clamp(STEPS.0, STEPS.1));
            self.upload.image().resize(size).await?;
            self.image_size = size;
            self.in_flight.clear = None;
        }
        self.hashers.data(&data).await?;
        let image = self.upload.image();
        if self.in_flight.clear.is_none_or(|clear| clear.elapsed() > SILENCE) {
            image.prepare_to_write().await?;
            self.in_flight.clear = Some(Instant::now());
        }
        if thin {
            for part in thin::data(&data) {
                let start = self.submitted + part.start as u64;
                self.in_flight.push(image.write(start, data.slice(part)));
            }
        } else {
            self.in_flight.push(image.write(self.submitted, data));
        }
        self.submitted = end;
        Ok(())
    }

    /// Begins a step, which is to end with `broken` unset; `more` bytes come with it.
    fn begin(&mut self, more: u64) -> Result<()> {
        if mem::replace(&mut self.broken, true) {
            return Err(Error::Invalid("the upload failed, or a write was dropped half-way; it cannot go on".into()));
        }
        self.check_announced_with(more)
    }

    fn check_announced(&self) -> Result<()> {
        self.check_announced_with(0)
    }

    fn check_announced_with(&self, more: u64) -> Result<()> {
        let arrived = self.taken().saturating_add(more);
        match self.announced {
            Some(announced) if arrived > announced => Err(Error::SizeMismatch { expected: announced, actual: arrived }),
            _ => Ok(()),
        }
    }
}

/// Waits, and learns meanwhile which writes are done; the first that failed ends it.
async fn meanwhile<T>(in_flight: &mut InFlight, wait: impl Future<Output = T>) -> Result<T> {
    let mut wait = pin!(wait);
    loop {
        tokio::select! {
            biased;
            Some(written) = in_flight.next() => written?,
            done = &mut wait => return Ok(done),
        }
    }
}
