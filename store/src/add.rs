//! Storing an image: bytes in, location and digests out.
//!
//! A fixed number of chunk buffers is all the memory an upload uses. A full chunk goes to the digests and to librbd at the
//! same time, shared; the last of them to be done with it gives its place in the window back.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::{Buf, Bytes};
use futures_util::{StreamExt, stream::FuturesUnordered};
use rbd::{CreateOptions, Image, OpenOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    Store,
    background::Background,
    error::{Error, Result},
    hash::Hashers,
    location::{Location, SNAPSHOT},
    mark::UploadMark,
    removal,
};

/// The most that an image of unknown size grows by in one step.
const LARGEST_STEP: u64 = 8 << 30;

/// What is known of an image before its data.
#[derive(Debug, Clone)]
pub struct AddOptions {
    /// Bytes; `None` where the source does not say.
    pub size: Option<u64>,
    /// The multihash, by its name in Python's `hashlib`.
    pub hash_algorithm: String,
}

impl Default for AddOptions {
    fn default() -> Self {
        Self { size: None, hash_algorithm: "sha512".into() }
    }
}

/// An image that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Where it is.
    pub location: Location,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// The md5 of its data (Glance's `checksum`).
    pub checksum: String,
    /// The digest of its data in the algorithm asked for (Glance's `os_hash_value`).
    pub multihash: String,
}

/// An upload under way.
///
/// [`finish`](Self::finish) makes it an image. Whatever else happens to it (an error, [`abort`](Self::abort), a drop)
/// removes what was stored so far. A process killed meanwhile leaves an image, which carries an [`UploadMark`] from the moment
/// after its creation.
pub struct Writer {
    upload: Upload,
    /// The buffer being filled.
    chunk: Option<Chunk>,
    hashers: Hashers,
    /// Writes submitted and not yet seen to be done.
    in_flight: FuturesUnordered<Pin<Box<dyn Future<Output = rbd::Result<()>> + Send>>>,
    window: Arc<Semaphore>,
    chunk_bytes: usize,
    /// Bytes submitted.
    submitted: u64,
    /// The RBD image's size now.
    image_size: u64,
    announced: Option<u64>,
    /// A call failed or was dropped half-way: the stream has lost its place.
    broken: bool,
}

/// The image of an upload; dropped before it is finished, it removes itself.
struct Upload {
    /// Taken by whoever closes it.
    image: Option<Image>,
    pool: rbd::Pool,
    name: String,
    id: String,
    background: Background,
}

/// A buffer, and its place in the window.
struct Chunk {
    buffer: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Store {
    /// Begins to store an image under a Glance image id.
    ///
    /// ```no_run
    /// # async fn example(store: store::Store) -> store::Result<()> {
    /// let mut writer = store.add("6a3a…", store::AddOptions { size: Some(5), ..Default::default() }).await?;
    /// writer.write("hello".into()).await?;
    /// let added = writer.finish().await?;
    /// println!("{} has md5 {}", added.location, added.checksum);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `AlreadyExists`, `StorageFull`, `PermissionDenied`, `Timeout`.
    pub async fn add(&self, id: &str, options: AddOptions) -> Result<Writer> {
        let hashers = Hashers::start(&options.hash_algorithm)?;
        let (pool, name, config) = (self.pool().clone(), id.to_owned(), self.config().clone());
        let create = CreateOptions {
            order: Some(config.order()?),
            data_pool: config.data_pool.clone(),
            ..CreateOptions::default()
        };
        let image_size = options.size.unwrap_or(0);
        self.prepare_trash().await;
        let background = self.background();
        let create = async move {
            pool.create(&name, image_size, create).await?;
            match begin(&pool, &name, options.size).await {
                Ok((image, id)) => Ok(Upload { image: Some(image), pool, name, id, background }),
                Err(error) => {
                    // Created by this very call, so it is known by name to be ours.
                    if let Err(error) = pool.remove(&name).await {
                        tracing::warn!(%error, "an upload that could not begin stays behind");
                    }
                    Err(error)
                }
            }
        };
        let upload = self.background().finish(create, Upload::discard).await?;
        Ok(Writer {
            upload,
            chunk: None,
            hashers,
            in_flight: FuturesUnordered::new(),
            window: Arc::new(Semaphore::new(config.window.max(1))),
            chunk_bytes: config.chunk_bytes(),
            submitted: 0,
            image_size,
            announced: options.size,
            broken: false,
        })
    }
}

/// Opens and marks an image that was just created; on an error it is closed again.
async fn begin(pool: &rbd::Pool, name: &str, size: Option<u64>) -> Result<(Image, String)> {
    let image = pool.open_image(name, OpenOptions::default()).await?;
    let begun = async {
        let id = image.id().await?;
        UploadMark::set(&image, size).await?;
        Ok(id)
    };
    match begun.await {
        Ok(id) => Ok((image, id)),
        Err(error) => {
            if let Err(closing) = image.close().await {
                tracing::debug!(%closing, "an upload that could not begin did not close cleanly");
            }
            Err(error)
        }
    }
}

impl Writer {
    /// Takes the next bytes; returns when there is room for more, not when they are stored.
    ///
    /// # Errors
    /// `SizeMismatch` beyond the announced size; what an earlier write failed with: `StorageFull`, `Timeout`, …. The upload
    /// cannot be continued after an error, nor after this future was dropped half-way.
    pub async fn write(&mut self, mut data: Bytes) -> Result<()> {
        self.check_whole()?;
        self.broken = true;
        let arrived = self.taken() + data.len() as u64;
        if let Some(announced) = self.announced.filter(|&announced| arrived > announced) {
            return Err(Error::SizeMismatch { expected: announced, actual: arrived });
        }
        while !data.is_empty() {
            let chunk = match &mut self.chunk {
                Some(chunk) => chunk,
                None => {
                    let place = self.place().await?;
                    self.chunk.insert(Chunk { buffer: Vec::with_capacity(self.chunk_bytes), _place: place })
                }
            };
            let fits = data.len().min(self.chunk_bytes - chunk.buffer.len());
            chunk.buffer.extend_from_slice(&data[..fits]);
            data.advance(fits);
            if chunk.buffer.len() == self.chunk_bytes {
                self.submit().await?;
            }
        }
        self.broken = false;
        Ok(())
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.submitted + self.chunk.as_ref().map_or(0, |chunk| chunk.buffer.len() as u64)
    }

    /// Makes what was written an image: flushed, trimmed, with a protected snapshot.
    ///
    /// # Errors
    /// `SizeMismatch` for less than was announced; what a write, or the snapshot, failed with. Nothing is left behind.
    pub async fn finish(self) -> Result<Added> {
        let background = self.upload.background.clone();
        let (pool, name, id) = (self.upload.pool.clone(), self.upload.name.clone(), self.upload.id.clone());
        // If the caller goes away now, nobody learns the location, and the image goes too.
        let undo = move |_| async move { removal::discard(&pool, &name, &id).await };
        background.finish(self.complete(), undo).await
    }

    /// Gives the upload up and waits until nothing of it is left.
    pub async fn abort(mut self) {
        while self.in_flight.next().await.is_some() {}
        self.upload.discard().await;
    }

    async fn complete(mut self) -> Result<Added> {
        match self.complete_inner().await {
            Ok(()) => {}
            Err(error) => {
                self.abort().await;
                return Err(error);
            }
        }
        let bytes = self.submitted;
        let Self { mut upload, hashers, .. } = self;
        let digests = hashers.finish().await;
        let closed = match upload.image.take() {
            Some(image) => image.close().await.map_err(Error::from),
            None => Ok(()),
        };
        let (checksum, multihash) = match closed.and(digests) {
            Ok(digests) => digests,
            Err(error) => {
                removal::discard(&upload.pool, &upload.name, &upload.id).await;
                return Err(error);
            }
        };
        let location = Location::of(&upload.pool, std::mem::take(&mut upload.name));
        Ok(Added { location, bytes, checksum, multihash })
    }

    async fn complete_inner(&mut self) -> Result<()> {
        self.check_whole()?;
        if self.chunk.is_some() {
            self.submit().await?;
        }
        if let Some(announced) = self.announced.filter(|&announced| announced != self.submitted) {
            return Err(Error::SizeMismatch { expected: announced, actual: self.submitted });
        }
        while let Some(written) = self.in_flight.next().await {
            written?;
        }
        let image = self.upload.image();
        image.flush().await?;
        if self.image_size != self.submitted {
            image.resize(self.submitted).await?;
        }
        image.create_snapshot(SNAPSHOT).await?;
        image.protect_snapshot(SNAPSHOT).await?;
        UploadMark::clear(image).await
    }

    /// Waits for a place in the window, and learns on the way which writes are done.
    async fn place(&mut self) -> Result<OwnedSemaphorePermit> {
        loop {
            tokio::select! {
                biased;
                Some(written) = self.in_flight.next() => written?,
                place = self.window.clone().acquire_owned() => {
                    return Ok(place.expect("the window is never closed"));
                }
            }
        }
    }

    /// Hands the chunk to the digests and to librbd.
    async fn submit(&mut self) -> Result<()> {
        let length = self.chunk.as_ref().map_or(0, |chunk| chunk.buffer.len() as u64);
        let end = self.submitted + length;
        if end > self.image_size {
            let size = match self.announced {
                Some(announced) => announced,
                None => end.max(self.image_size + self.image_size.clamp(1 << 30, LARGEST_STEP)),
            };
            self.upload.image().resize(size).await?;
            self.image_size = size;
        }
        let Some(chunk) = self.chunk.take() else { return Ok(()) };
        let data = Bytes::from_owner(chunk);
        self.hashers.update(&data);
        self.in_flight.push(Box::pin(self.upload.image().write(self.submitted, data)));
        self.submitted = end;
        Ok(())
    }

    fn check_whole(&self) -> Result<()> {
        if self.broken {
            return Err(Error::Invalid("the upload failed, or a write was dropped half-way; it cannot go on".into()));
        }
        Ok(())
    }
}

impl Upload {
    fn image(&self) -> &Image {
        self.image.as_ref().expect("taken only by what ends the upload")
    }

    /// What removes the image. It holds no `Upload`, so that dropping it unrun begins nothing.
    fn discard(mut self) -> impl Future<Output = ()> + Send + use<> {
        let rest = (self.image.take(), self.pool.clone(), std::mem::take(&mut self.name), std::mem::take(&mut self.id));
        async move {
            let (Some(image), pool, name, id) = rest else { return };
            if let Err(error) = image.close().await {
                tracing::debug!(%error, "an abandoned upload did not close cleanly");
            }
            removal::discard(&pool, &name, &id).await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(image) = self.image.take() {
            let (pool, name, id) = (self.pool.clone(), std::mem::take(&mut self.name), std::mem::take(&mut self.id));
            let background = self.background.clone();
            let rest = Self { image: Some(image), pool, name, id, background };
            self.background.spawn(rest.discard());
        }
    }
}
