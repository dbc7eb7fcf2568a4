//! A pool, or one RBD namespace of it: what images live in.

use std::{ffi::c_void, fmt, ptr, sync::Arc};

use crate::{
    cluster::Cluster,
    completion::blocking,
    errno::{ERANGE, Result, check},
    progress::{Progress, Watch},
    strings::{c_string, c_strings, owned, strings},
};

/// A pool, or one namespace of it. Cheap to clone; all clones share one handle.
///
/// Every handle has full-try set: a write to a full cluster, or to a pool over its quota, fails with
/// [`NoSpace`](crate::ErrorKind::NoSpace) at once instead of waiting for ever.
#[derive(Clone)]
pub struct Pool(Arc<Opened>);

struct Opened {
    // Dropped before the cluster it belongs to.
    io: RawIoctx,
    cluster: Cluster,
    name: String,
    namespace: String,
    id: i64,
}

pub(crate) struct RawIoctx(rbd_sys::rados_ioctx_t);

// SAFETY: a `rados_ioctx_t` may be used from several threads as long as none changes it (namespace, snapshot, locator);
// it is set up before it is shared and never changed after.
unsafe impl Send for RawIoctx {}
// SAFETY: as above.
unsafe impl Sync for RawIoctx {}

impl RawIoctx {
    /// A namespace of the pool of that number.
    ///
    /// Implements: `rados_ioctx_create2`, `rados_ioctx_set_namespace`.
    pub(crate) fn open(cluster: &Cluster, id: i64, namespace: &str) -> Result<Self> {
        let namespace = c_string("open namespace", namespace)?;
        let mut io = ptr::null_mut();
        // SAFETY: a connected handle and an out pointer.
        let code = unsafe { rbd_sys::rados_ioctx_create2(cluster.raw(), id, &raw mut io) };
        check("open", format!("pool {id}"), code)?;
        // SAFETY: a new handle that nobody else has yet, and a C string.
        unsafe { rbd_sys::rados_ioctx_set_namespace(io, namespace.as_ptr()) };
        Ok(Self(io))
    }

    pub(crate) fn raw(&self) -> rbd_sys::rados_ioctx_t {
        self.0
    }
}

impl Drop for RawIoctx {
    fn drop(&mut self) {
        // SAFETY: the last reference; operations in flight hold their own. This does not block.
        unsafe { rbd_sys::rados_ioctx_destroy(self.0) }
    }
}

/// Name and id of an image, as its pool's directory has them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageSpec {
    /// The name, unique in its pool and namespace at any one time.
    pub name: String,
    /// The id, which stays with the image when it is renamed or moved to the trash, and is never given out again.
    pub id: String,
}

impl Pool {
    pub(crate) async fn open(cluster: Cluster, name: String, namespace: String) -> Result<Self> {
        let object = format!("pool {name}");
        cluster
            .clone()
            .blocking("open", object, move || {
                let c_name = c_string("open pool", &name)?;
                let c_namespace = c_string("open namespace", &namespace)?;
                let mut io = ptr::null_mut();
                // SAFETY: a connected handle, a C string and an out pointer.
                let code = unsafe { rbd_sys::rados_ioctx_create(cluster.raw(), c_name.as_ptr(), &raw mut io) };
                check("open", format!("pool {name}"), code)?;
                let io = RawIoctx(io);
                // SAFETY: a new handle that nobody else has yet.
                let id = unsafe {
                    rbd_sys::rados_set_pool_full_try(io.0);
                    rbd_sys::rados_ioctx_set_namespace(io.0, c_namespace.as_ptr());
                    rbd_sys::rados_ioctx_get_id(io.0)
                };
                Ok(Self(Arc::new(Opened { io, cluster, name, namespace, id })))
            })
            .await
    }

    /// The same pool in another RBD namespace; `""` is the default one. Whether it exists is not looked up.
    ///
    /// Implements: `rados_ioctx_set_namespace`.
    ///
    /// # Errors
    /// `NotFound` where the pool has gone.
    pub async fn in_namespace(&self, namespace: &str) -> Result<Self> {
        Self::open(self.cluster().clone(), self.name().to_owned(), namespace.to_owned()).await
    }

    /// The connection this pool was opened through.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The namespace; empty for the default one.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// The pool's number.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.0.id
    }

    pub(crate) fn raw(&self) -> rbd_sys::rados_ioctx_t {
        self.0.io.0
    }

    /// `pool/name` or `pool/namespace/name`, as errors and `rbd` write it.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        format!("{self}/{name}")
    }

    /// The images of the pool's directory, without those in the trash.
    ///
    /// Implements: `rbd_list2`.
    ///
    /// # Errors
    /// `PermissionDenied`, `TimedOut`; an error is never an empty or a shorter list.
    pub async fn images(&self) -> Result<Vec<ImageSpec>> {
        let pool = self.clone();
        self.cluster()
            .blocking("list images of", self.to_string(), move || {
                let mut count = 1024;
                loop {
                    let mut specs = Vec::with_capacity(count);
                    // SAFETY: room for `count` entries, and librbd writes how many it filled or would have.
                    let code = unsafe { rbd_sys::rbd_list2(pool.raw(), specs.as_mut_ptr(), &raw mut count) };
                    if code == -ERANGE {
                        continue;
                    }
                    check("list images of", pool.to_string(), code)?;
                    // SAFETY: librbd filled `count` entries, whose strings are freed right after they are copied.
                    return Ok(unsafe {
                        specs.set_len(count);
                        let images =
                            specs.iter().map(|spec| ImageSpec { name: owned(spec.name), id: owned(spec.id) }).collect();
                        rbd_sys::rbd_image_spec_list_cleanup(specs.as_mut_ptr(), count);
                        images
                    });
                }
            })
            .await
    }

    /// The pool's namespaces, without the default one.
    ///
    /// Implements: `rbd_namespace_list`.
    ///
    /// # Errors
    /// `PermissionDenied`, `TimedOut`.
    pub async fn namespaces(&self) -> Result<Vec<String>> {
        let pool = self.clone();
        self.cluster()
            .blocking("list namespaces of", self.to_string(), move || {
                strings("list namespaces of", pool.name(), |buffer, length| {
                    // SAFETY: `buffer` has `length` bytes, and librbd sets `length`.
                    unsafe { rbd_sys::rbd_namespace_list(pool.raw(), buffer, length) }
                })
            })
            .await
    }

    /// Creates a namespace.
    ///
    /// Implements: `rbd_namespace_create`.
    ///
    /// # Errors
    /// `AlreadyExists`, `PermissionDenied`.
    pub async fn create_namespace(&self, namespace: &str) -> Result<()> {
        let name = c_string("create namespace", namespace)?;
        // SAFETY: a live handle and a C string.
        self.call("create namespace", namespace, move |io| unsafe { rbd_sys::rbd_namespace_create(io, name.as_ptr()) })
            .await
    }

    /// Removes an empty namespace.
    ///
    /// Implements: `rbd_namespace_remove`.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while it has images, in the trash or out of it.
    pub async fn remove_namespace(&self, namespace: &str) -> Result<()> {
        let name = c_string("remove namespace", namespace)?;
        // SAFETY: a live handle and a C string.
        self.call("remove namespace", namespace, move |io| unsafe { rbd_sys::rbd_namespace_remove(io, name.as_ptr()) })
            .await
    }

    /// Renames an image; its id stays.
    ///
    /// Implements: `rbd_rename`.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let [c_from, c_to] = c_strings("rename image", [from, to])?;
        // SAFETY: a live handle and two C strings.
        self.call("rename image", from, move |io| unsafe { rbd_sys::rbd_rename(io, c_from.as_ptr(), c_to.as_ptr()) })
            .await
    }

    /// Runs a blocking call that answers 0 or an error, as long as it comes on.
    pub(crate) async fn call_watched(
        &self,
        operation: &'static str,
        name: &str,
        progress: Progress,
        call: impl FnOnce(rbd_sys::rados_ioctx_t, rbd_sys::librbd_progress_fn_t, *mut c_void) -> i32 + Send + 'static,
    ) -> Result<()> {
        let (mut watch, watched) = Watch::new(progress);
        let pool = self.clone();
        let object = self.path(name);
        let call = {
            let object = object.clone();
            move || {
                let (callback, argument) = watch.callback();
                check(operation, object, call(pool.raw(), callback, argument)).map(drop)
            }
        };
        let done = blocking(self.cluster().timeout(), || watched.ticks(), operation, object, call).await;
        self.cluster().alarm().noted(done)
    }

    /// Runs a blocking call that answers 0 or an error.
    pub(crate) async fn call(
        &self,
        operation: &'static str,
        name: &str,
        call: impl FnOnce(rbd_sys::rados_ioctx_t) -> i32 + Send + 'static,
    ) -> Result<()> {
        let pool = self.clone();
        let object = self.path(name);
        self.cluster()
            .blocking(operation, object.clone(), move || check(operation, object, call(pool.raw())).map(drop))
            .await
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if !self.namespace().is_empty() {
            write!(f, "/{}", self.namespace())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({self})")
    }
}
