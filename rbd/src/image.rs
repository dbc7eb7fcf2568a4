//! An open image: reading, writing, resizing and asking about it.

use std::{
    ffi::{c_char, c_void},
    mem::MaybeUninit,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;

use crate::{
    cluster::Sendable,
    completion::{blocking, patiently},
    errno::{Error, ErrorKind, Result, check},
    features::{Features, Flags},
    pool::Pool,
    progress::{Progress, Watch},
    reap::{Unsettled, reap},
    strings::{c_string, text},
};

/// Whether an image is opened to write, and at which snapshot.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Open without registering a watch, for reading only.
    pub read_only: bool,
    /// The snapshot to read from; an image opened at one cannot be written to.
    pub snapshot: Option<String>,
}

impl OpenOptions {
    /// Read-only, at the head.
    #[must_use]
    pub fn read_only() -> Self {
        Self { read_only: true, snapshot: None }
    }

    /// Read-only, at a snapshot.
    pub fn at_snapshot(name: impl Into<String>) -> Self {
        Self { read_only: true, snapshot: Some(name.into()) }
    }
}

/// An open image.
///
/// Reads, writes and flushes are submitted when they are called; the future only waits for them. Many may be in flight at
/// once, and each owns its buffer, so a future may be dropped at any moment: the operation then completes unseen.
///
/// Call [`close`](Self::close) to wait for the image to be closed; dropping it closes it in the background, after the last
/// operation in flight.
///
/// ```no_run
/// # async fn example(pool: rbd::Pool) -> rbd::Result<()> {
/// use rbd::{CreateOptions, OpenOptions};
///
/// pool.create("disk", 1 << 30, CreateOptions::default()).await?;
/// let image = pool.open_image("disk", OpenOptions::default()).await?;
/// let first = image.write(0, vec![1; 4096].into());
/// let second = image.write(4096, vec![2; 4096].into()); // both in flight
/// first.await?;
/// second.await?;
/// image.flush().await?;
/// image.close().await
/// # }
/// ```
pub struct Image {
    pub(crate) open: Arc<OpenImage>,
}

pub(crate) struct OpenImage {
    handle: rbd_sys::rbd_image_t,
    pub(crate) pool: Pool,
    /// `pool/name@snap`, for errors.
    pub(crate) path: String,
    /// The snapshot it was opened at.
    pub(crate) snapshot: Option<String>,
    closing: Mutex<Closing>,
}

/// What is to happen when the last operation in flight is done and the image closes.
#[derive(Default)]
struct Closing {
    /// Who waits for it.
    waiting: Option<oneshot::Sender<Result<()>>>,
    /// Set once the [`Image`] is dropped: only operations in flight hold it open now.
    unsettled: Option<Unsettled>,
}

impl OpenImage {
    fn closing(&self) -> MutexGuard<'_, Closing> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // librbd 16 never completes a write without a copy that it refused for a client that was blocklisted: such an image
        // stays open, and there is no use in waiting for it.
        if self.pool().cluster().is_blocklisted() {
            return;
        }
        self.open.closing().unsettled = Some(Unsettled::new());
    }
}

// SAFETY: librbd locks inside; an `rbd_image_t` may be used from several threads at once. The calls that would change
// what a handle looks at (`rbd_snap_set`) are never made.
unsafe impl Send for OpenImage {}
// SAFETY: as above.
unsafe impl Sync for OpenImage {}

impl Drop for OpenImage {
    fn drop(&mut self) {
        let handle = Sendable(self.handle);
        let (pool, path) = (self.pool.clone(), std::mem::take(&mut self.path));
        let waiting = self.closing().waiting.take();
        reap(move || {
            // SAFETY: the last reference: no operation is in flight, and none can be started any more.
            let result = check("close image", path, unsafe { rbd_sys::rbd_close(handle.get()) }).map(drop);
            drop(pool);
            match (waiting, result) {
                (Some(waiting), result) => drop(waiting.send(result)),
                (None, Err(error)) => tracing::warn!(%error, "a dropped image did not close cleanly"),
                (None, Ok(())) => {}
            }
        });
    }
}

/// Size and layout of an open image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageStat {
    /// Bytes, at the snapshot the image was opened at, if any.
    pub size: u64,
    /// Bytes of a full object.
    pub object_size: u64,
    /// How many objects a full image has.
    pub objects: u64,
}

impl Pool {
    /// Opens an image by name.
    ///
    /// Implements: `rbd_open`, `rbd_open_read_only`.
    ///
    /// # Errors
    /// `NotFound` (image or snapshot), `PermissionDenied`.
    pub async fn open_image(&self, name: &str, options: OpenOptions) -> Result<Image> {
        let open = if options.read_only { rbd_sys::rbd_open_read_only } else { rbd_sys::rbd_open };
        self.open_with(name, self.path(name), options, open).await
    }

    /// Opens an image by id: also one in the trash, and never another of the same name.
    ///
    /// Implements: `rbd_open_by_id`, `rbd_open_by_id_read_only`.
    ///
    /// # Errors
    /// As [`open_image`](Self::open_image).
    pub async fn open_image_by_id(&self, id: &str, options: OpenOptions) -> Result<Image> {
        let open = if options.read_only { rbd_sys::rbd_open_by_id_read_only } else { rbd_sys::rbd_open_by_id };
        self.open_with(id, self.path(&format!("(id {id})")), options, open).await
    }

    async fn open_with(
        &self,
        what: &str,
        mut path: String,
        options: OpenOptions,
        open: unsafe extern "C" fn(
            rbd_sys::rados_ioctx_t,
            *const c_char,
            *mut rbd_sys::rbd_image_t,
            *const c_char,
        ) -> i32,
    ) -> Result<Image> {
        let what = c_string("open image", what)?;
        let snapshot = options.snapshot.as_deref().map(|snap| c_string("open snapshot", snap)).transpose()?;
        if let Some(snapshot) = &options.snapshot {
            path = format!("{path}@{snapshot}");
        }
        let (pool, snapshot_name) = (self.clone(), options.snapshot);
        self.cluster()
            .blocking("open image", path.clone(), move || {
                let mut handle = ptr::null_mut();
                let snapshot = snapshot.as_deref().map_or(ptr::null(), std::ffi::CStr::as_ptr);
                // SAFETY: live handles, C strings (the snapshot's may be null: the head) and an out pointer.
                let code = unsafe { open(pool.raw(), what.as_ptr(), &raw mut handle, snapshot) };
                check("open image", path.as_str(), code)?;
                Ok(Image {
                    open: Arc::new(OpenImage {
                        handle,
                        pool,
                        path,
                        snapshot: snapshot_name,
                        closing: Mutex::default(),
                    }),
                })
            })
            .await
    }

    /// Removes an image that has no snapshots.
    ///
    /// Implements: `rbd_remove`.
    ///
    /// # Errors
    /// `NotFound`; `NotEmpty` with snapshots; `Busy` with watchers, or in a group.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let c_name = c_string("remove image", name)?;
        // SAFETY: a live handle and a C string.
        self.call("remove image", name, move |io| unsafe { rbd_sys::rbd_remove(io, c_name.as_ptr()) }).await
    }
}

impl Image {
    /// The pool it was opened in.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.open.pool
    }

    pub(crate) fn raw(&self) -> rbd_sys::rbd_image_t {
        self.open.handle
    }

    /// Closes the image and waits for it: for operations in flight, for the cache and for the watch to go.
    ///
    /// Implements: `rbd_close`.
    ///
    /// # Errors
    /// What the last flush failed with.
    pub async fn close(self) -> Result<()> {
        let (closed, wait) = oneshot::channel();
        let (timeout, path) = (self.open.pool.cluster().timeout(), self.open.path.clone());
        self.open.closing().waiting = Some(closed);
        drop(self);
        match patiently(wait, timeout, || 0).await {
            Some(closed) => closed.unwrap_or(Ok(())),
            None => Err(Error::of_kind(ErrorKind::TimedOut, "close image", path)),
        }
    }

    /// Size and layout.
    ///
    /// Implements: `rbd_stat`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn stat(&self) -> Result<ImageStat> {
        self.query("stat image", |image| {
            let mut info = MaybeUninit::<rbd_sys::rbd_image_info_t>::zeroed();
            // SAFETY: an open image, and an out pointer of the size given. All-zero bytes are a valid `rbd_image_info_t`.
            let (code, info) = unsafe {
                let code = rbd_sys::rbd_stat(image, info.as_mut_ptr(), size_of::<rbd_sys::rbd_image_info_t>());
                (code, info.assume_init())
            };
            (code, ImageStat { size: info.size, object_size: info.obj_size, objects: info.num_objs })
        })
        .await
    }

    /// The id.
    ///
    /// Implements: `rbd_get_id`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn id(&self) -> Result<String> {
        self.query("read the id of", |image| {
            let mut id: [c_char; 256] = [0; 256];
            // SAFETY: an open image and a buffer of the length given; ids have at most 32 characters.
            let code = unsafe { rbd_sys::rbd_get_id(image, id.as_mut_ptr(), id.len()) };
            (code, text(&id))
        })
        .await
    }

    /// The features.
    ///
    /// Implements: `rbd_get_features`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn features(&self) -> Result<Features> {
        // SAFETY: an open image and an out pointer.
        self.number("read the features of", |image, out| unsafe { rbd_sys::rbd_get_features(image, out) })
            .await
            .map(Features)
    }

    /// Adds or takes away features.
    ///
    /// Implements: `rbd_update_features`.
    ///
    /// # Errors
    /// `InvalidArgument` for a feature that cannot be changed.
    pub async fn update_features(&self, features: Features, enabled: bool) -> Result<()> {
        self.call("change the features of", move |image| {
            // SAFETY: an open image.
            unsafe { rbd_sys::rbd_update_features(image, features.0, u8::from(enabled)) }
        })
        .await
    }

    /// Whether it has, or had, v2 clones.
    ///
    /// Implements: `rbd_get_op_features`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn is_v2_parent(&self) -> Result<bool> {
        // SAFETY: an open image and an out pointer.
        let features =
            self.number("read the op features of", |image, out| unsafe { rbd_sys::rbd_get_op_features(image, out) });
        Ok(features.await? & u64::from(rbd_sys::RBD_OPERATION_FEATURE_CLONE_PARENT) != 0)
    }

    /// The flags.
    ///
    /// Implements: `rbd_get_flags`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn flags(&self) -> Result<Flags> {
        // SAFETY: an open image and an out pointer.
        self.number("read the flags of", |image, out| unsafe { rbd_sys::rbd_get_flags(image, out) }).await.map(Flags)
    }

    /// Bytes written to one object before the next.
    ///
    /// Implements: `rbd_get_stripe_unit`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn stripe_unit(&self) -> Result<u64> {
        // SAFETY: an open image and an out pointer.
        self.number("read the stripe unit of", |image, out| unsafe { rbd_sys::rbd_get_stripe_unit(image, out) }).await
    }

    /// Objects striped over.
    ///
    /// Implements: `rbd_get_stripe_count`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn stripe_count(&self) -> Result<u64> {
        // SAFETY: an open image and an out pointer.
        self.number("read the stripe count of", |image, out| unsafe { rbd_sys::rbd_get_stripe_count(image, out) }).await
    }

    /// When the image was created.
    ///
    /// Implements: `rbd_get_create_timestamp`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn created_at(&self) -> Result<SystemTime> {
        // SAFETY: an open image and an out pointer.
        self.time("read the creation time of", |image, out| unsafe { rbd_sys::rbd_get_create_timestamp(image, out) })
            .await
    }

    /// When the image was last written to, within the cluster's granularity (`rbd_mtime_update_interval`).
    ///
    /// Implements: `rbd_get_modify_timestamp`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn modified_at(&self) -> Result<SystemTime> {
        // SAFETY: an open image and an out pointer.
        self.time("read the modification time of", |image, out| unsafe {
            rbd_sys::rbd_get_modify_timestamp(image, out)
        })
        .await
    }

    /// Changes the size; shrinking discards what is beyond.
    ///
    /// Implements: `rbd_resize`.
    ///
    /// # Errors
    /// `ReadOnly`, `NoSpace`.
    pub async fn resize(&self, size: u64) -> Result<()> {
        // SAFETY: an open image.
        self.call("resize", move |image| unsafe { rbd_sys::rbd_resize(image, size) }).await
    }

    /// Runs a blocking call that answers 0 or an error.
    pub(crate) async fn call(
        &self,
        operation: &'static str,
        call: impl FnOnce(rbd_sys::rbd_image_t) -> i32 + Send + 'static,
    ) -> Result<()> {
        self.query(operation, move |image| (call(image), ())).await
    }

    /// Runs a blocking call that answers 0 or an error, as long as it comes on.
    pub(crate) async fn call_watched(
        &self,
        operation: &'static str,
        progress: Progress,
        call: impl FnOnce(rbd_sys::rbd_image_t, rbd_sys::librbd_progress_fn_t, *mut c_void) -> i32 + Send + 'static,
    ) -> Result<()> {
        let (mut watch, watched) = Watch::new(progress);
        let open = self.open.clone();
        let call = move || {
            let (callback, argument) = watch.callback();
            check(operation, open.path.as_str(), call(open.handle, callback, argument)).map(drop)
        };
        let done =
            blocking(self.pool().cluster().timeout(), || watched.ticks(), operation, self.open.path.as_str(), call)
                .await;
        self.pool().cluster().alarm().noted(done)
    }

    /// Runs a blocking call that answers 0 or an error, and a value.
    async fn query<T: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl FnOnce(rbd_sys::rbd_image_t) -> (i32, T) + Send + 'static,
    ) -> Result<T> {
        self.run(operation, move |image, path| {
            let (code, value) = call(image);
            check(operation, path, code).map(|_| value)
        })
        .await
    }

    /// Runs a blocking piece of work on the open image, given its path for errors.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(rbd_sys::rbd_image_t, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let open = self.open.clone();
        self.pool().cluster().blocking(operation, self.open.path.as_str(), move || work(open.handle, &open.path)).await
    }

    async fn number(
        &self,
        operation: &'static str,
        call: impl FnOnce(rbd_sys::rbd_image_t, *mut u64) -> i32 + Send + 'static,
    ) -> Result<u64> {
        self.query(operation, |image| {
            let mut number = 0;
            (call(image, &raw mut number), number)
        })
        .await
    }

    async fn time(
        &self,
        operation: &'static str,
        call: impl FnOnce(rbd_sys::rbd_image_t, *mut rbd_sys::timespec) -> i32 + Send + 'static,
    ) -> Result<SystemTime> {
        self.query(operation, |image| {
            let mut time = rbd_sys::timespec { tv_sec: 0, tv_nsec: 0 };
            (call(image, &raw mut time), system_time(time.tv_sec, time.tv_nsec))
        })
        .await
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({})", self.open.path)
    }
}

/// Seconds and nanoseconds since 1970 as Ceph gives them; times before that, which no image has, become 1970.
pub(crate) fn system_time(seconds: i64, nanoseconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        + Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0).min(999_999_999))
}
