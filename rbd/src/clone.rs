//! Copy-on-write clones: making them, finding them, and making them independent.

use crate::{
    class::{encoded, exec},
    create::CreateOptions,
    errno::{ERANGE, Error, ErrorKind, Result, check},
    image::{Image, OpenOptions},
    pool::{Pool, RawIoctx},
    progress::Progress,
    strings::{c_strings, owned},
};

/// An image somewhere in the cluster, as clones and parents name each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedImage {
    /// The pool's number.
    pub pool_id: i64,
    /// The pool's name.
    pub pool: String,
    /// Empty for the default namespace.
    pub namespace: String,
    /// The id.
    pub id: String,
    /// The name; for an image in the trash, the one it had.
    pub name: String,
    /// Whether it is in the trash.
    pub in_trash: bool,
}

/// The parent of a clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The image.
    pub image: LinkedImage,
    /// The snapshot's id.
    pub snapshot_id: u64,
    /// The snapshot's name.
    pub snapshot: String,
    /// How many bytes of the clone still come from the parent, at most.
    pub overlap: u64,
}

impl Pool {
    /// Clones `parent@snapshot` of this pool into `child` (which may be another pool or namespace) under `name`.
    ///
    /// Implements: `rbd_clone3`.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists`; `InvalidArgument` where the snapshot is not protected and the clone would be v1.
    pub async fn clone_image(
        &self,
        parent: &str,
        snapshot: &str,
        child: &Self,
        name: &str,
        options: CreateOptions,
    ) -> Result<()> {
        let [c_parent, c_snapshot, c_name] = c_strings("clone", [parent, snapshot, name])?;
        let options = options.build()?;
        let object = format!("{}@{snapshot} into {}", self.path(parent), child.path(name));
        let (pool, child) = (self.clone(), child.clone());
        self.cluster()
            .blocking("clone", object.clone(), move || {
                // SAFETY: live handles and C strings.
                check("clone", object, unsafe {
                    rbd_sys::rbd_clone3(
                        pool.raw(),
                        c_parent.as_ptr(),
                        c_snapshot.as_ptr(),
                        child.raw(),
                        c_name.as_ptr(),
                        options.raw(),
                    )
                })?;
                Ok(())
            })
            .await
    }
}

impl Image {
    /// The clones of the snapshot this image was opened at, or of all its snapshots when it was opened at none: v1 and v2,
    /// in every pool and namespace, in the trash and out of it.
    ///
    /// Implements: `rbd_list_children3`.
    ///
    /// # Errors
    /// `PermissionDenied` where the user may not read every pool: the clones are then unknown, not none.
    pub async fn children(&self) -> Result<Vec<LinkedImage>> {
        self.run("list the clones of", |image, path| {
            let mut count = 64;
            loop {
                let mut list: Vec<rbd_sys::rbd_linked_image_spec_t> = Vec::with_capacity(count);
                // SAFETY: room for `count` entries, and librbd writes how many it filled or would have.
                let code = unsafe { rbd_sys::rbd_list_children3(image, list.as_mut_ptr(), &raw mut count) };
                if code == -ERANGE {
                    continue;
                }
                check("list the clones of", path, code)?;
                // SAFETY: librbd filled `count` entries, whose strings are freed right after they are copied.
                return Ok(unsafe {
                    list.set_len(count);
                    let children = list.iter().map(|spec| linked(spec)).collect();
                    rbd_sys::rbd_linked_image_spec_list_cleanup(list.as_mut_ptr(), count);
                    children
                });
            }
        })
        .await
    }

    /// Whether a snapshot has v1 clones, in whatever pool: also where the user may not list images, for every user with
    /// `profile rbd` may ask each pool this question. (v1 clones are in the namespace of their parent.)
    ///
    /// Implements: `rados_exec`.
    ///
    /// # Errors
    /// `PermissionDenied` where it may not be asked; unless the answer of another pool was yes.
    pub async fn has_v1_clones(&self, snapshot_id: u64) -> Result<bool> {
        let id = self.id().await?;
        let pool = self.pool().clone();
        let parent = [&pool.id().to_le_bytes(), encoded(&id).as_slice(), &snapshot_id.to_le_bytes()].concat();
        let work = move || {
            let mut unknown = None;
            for (pool_id, _) in pool.cluster().list_pools()? {
                let children = RawIoctx::open(pool.cluster(), pool_id, pool.namespace())
                    .and_then(|io| exec(&io, "rbd_children", c"get_children", &parent));
                match children {
                    Ok(children) if children.iter().any(|&byte| byte != 0) => return Ok(true),
                    Ok(_) => {}
                    // No clones in this pool, none that could be (no keys in an erasure-coded one), or the pool has gone.
                    Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Unsupported) => {}
                    Err(error) => unknown = Some(error),
                }
            }
            unknown.map_or(Ok(false), Err)
        };
        self.pool().cluster().blocking("look for the v1 clones of", self.open.path.as_str(), work).await
    }

    /// The parent, if the image is a clone that was not flattened.
    ///
    /// Implements: `rbd_get_parent`, `rbd_get_overlap`.
    ///
    /// # Errors
    /// `PermissionDenied` where the user may not read the parent's pool.
    pub async fn parent(&self) -> Result<Option<Parent>> {
        self.run("read the parent of", |image, path| {
            // SAFETY: all-zero bytes are valid values of both C structs.
            let (mut spec, mut snap): (rbd_sys::rbd_linked_image_spec_t, rbd_sys::rbd_snap_spec_t) =
                unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
            // SAFETY: an open image and two out pointers.
            match check("read the parent of", path, unsafe {
                rbd_sys::rbd_get_parent(image, &raw mut spec, &raw mut snap)
            }) {
                Ok(_) => {}
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
            // SAFETY: librbd filled both structs, whose strings are freed right after they are copied.
            let (image_spec, snapshot_id, snapshot) = unsafe {
                let copied = (linked(&spec), snap.id, owned(snap.name));
                rbd_sys::rbd_linked_image_spec_cleanup(&raw mut spec);
                rbd_sys::rbd_snap_spec_cleanup(&raw mut snap);
                copied
            };
            let mut overlap = 0;
            // SAFETY: an open image and an out pointer.
            check("read the overlap of", path, unsafe { rbd_sys::rbd_get_overlap(image, &raw mut overlap) })?;
            Ok(Some(Parent { image: image_spec, snapshot_id, snapshot, overlap }))
        })
        .await
    }

    /// All ancestors, nearest first; as many as the clone is deep.
    ///
    /// # Errors
    /// As [`parent`](Self::parent); `NotFound` where an ancestor's pool is gone.
    pub async fn ancestors(&self) -> Result<Vec<Parent>> {
        // librbd itself gives up at 16; a longer chain is a loop.
        const DEEPEST: usize = 64;
        let mut chain = Vec::new();
        let mut next = self.parent().await?;
        while let Some(parent) = next {
            if chain.len() == DEEPEST {
                return Err(Error::of_kind(ErrorKind::Malformed, "follow the parents of", self.open.path.as_str()));
            }
            let LinkedImage { pool, namespace, id, .. } = &parent.image;
            let pool = self.pool().cluster().pool(pool).await?.in_namespace(namespace).await?;
            let image = pool.open_image_by_id(id, OpenOptions::read_only()).await?;
            next = image.parent().await?;
            image.close().await?;
            chain.push(parent);
        }
        Ok(chain)
    }

    /// Copies what still comes from the parent, after which the image has none. `progress` counts objects; its `Break`, or
    /// dropping the future, stops the copying and leaves a clone as whole as it was.
    ///
    /// Implements: `rbd_flatten_with_progress`.
    ///
    /// # Errors
    /// `InvalidArgument` for an image without parent; `NoSpace`, `Canceled`.
    pub async fn flatten(&self, progress: Progress) -> Result<()> {
        self.call_watched("flatten", progress, move |image, callback, argument| {
            // SAFETY: an open image; the watch behind the argument outlives the call.
            unsafe { rbd_sys::rbd_flatten_with_progress(image, callback, argument) }
        })
        .await
    }
}

/// # Safety
/// librbd filled `spec`.
unsafe fn linked(spec: &rbd_sys::rbd_linked_image_spec_t) -> LinkedImage {
    // SAFETY: librbd's strings are NUL-terminated or null.
    unsafe {
        LinkedImage {
            pool_id: spec.pool_id,
            pool: owned(spec.pool_name),
            namespace: owned(spec.pool_namespace),
            id: owned(spec.image_id),
            name: owned(spec.image_name),
            in_trash: spec.trash,
        }
    }
}
