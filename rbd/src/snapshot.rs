//! Snapshots of an image, their protection and what made them.

use std::{ffi::c_void, ptr, time::SystemTime};

use crate::{
    errno::{ERANGE, Result, check},
    image::{Image, system_time},
    progress::Progress,
    strings::{c_string, owned},
};

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Unique in the pool.
    pub id: u64,
    /// Unique among the image's snapshots of one kind.
    pub name: String,
    /// Bytes of the image when it was taken.
    pub size: u64,
    /// Whether it is protected: it cannot be removed, and v1 clones may be made of it.
    pub protected: bool,
    /// What made it.
    pub namespace: SnapshotNamespace,
    /// When it was taken.
    pub taken_at: SystemTime,
}

/// Who made a snapshot, and so who may remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SnapshotNamespace {
    /// A user, by name.
    User,
    /// A snapshot of a whole group.
    Group,
    /// Removed by a user while v2 clones still needed it.
    Trash,
    /// Mirroring.
    Mirror,
    /// A kind this program does not know, by its number.
    Unknown(u32),
}

impl From<u32> for SnapshotNamespace {
    fn from(kind: u32) -> Self {
        match kind {
            rbd_sys::RBD_SNAP_NAMESPACE_TYPE_USER => Self::User,
            rbd_sys::RBD_SNAP_NAMESPACE_TYPE_GROUP => Self::Group,
            rbd_sys::RBD_SNAP_NAMESPACE_TYPE_TRASH => Self::Trash,
            rbd_sys::RBD_SNAP_NAMESPACE_TYPE_MIRROR => Self::Mirror,
            other => Self::Unknown(other),
        }
    }
}

impl Image {
    /// All snapshots, oldest first.
    ///
    /// Implements: `rbd_snap_list`, `rbd_snap_get_namespace_type`, `rbd_snap_is_protected`, `rbd_snap_get_timestamp`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>> {
        self.run("list the snapshots of", |image, path| {
            list(image, path)?.into_iter().map(|(id, size, name)| describe(image, path, id, size, name)).collect()
        })
        .await
    }

    /// Takes a snapshot. It freezes what has been flushed; flush first. Clients that have the image mapped as a disk are not
    /// asked to come to rest.
    ///
    /// Implements: `rbd_snap_create2` with `RBD_SNAP_CREATE_SKIP_QUIESCE`.
    ///
    /// # Errors
    /// `AlreadyExists`, `ReadOnly`, `NoSpace`.
    pub async fn create_snapshot(&self, name: &str) -> Result<()> {
        let name = c_string("create snapshot", name)?;
        self.call("create a snapshot of", move |image| {
            let flags = rbd_sys::RBD_SNAP_CREATE_SKIP_QUIESCE;
            // SAFETY: an open image and a C string; progress is told to a function that does nothing.
            unsafe { rbd_sys::rbd_snap_create2(image, name.as_ptr(), flags, Some(unwatched), ptr::null_mut()) }
        })
        .await
    }

    /// Removes an unprotected snapshot by name.
    ///
    /// Implements: `rbd_snap_remove`.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while it is protected.
    pub async fn remove_snapshot(&self, name: &str) -> Result<()> {
        let name = c_string("remove snapshot", name)?;
        // SAFETY: an open image and a C string.
        self.call("remove a snapshot of", move |image| unsafe { rbd_sys::rbd_snap_remove(image, name.as_ptr()) }).await
    }

    /// Removes an unprotected snapshot by id, of whatever namespace.
    ///
    /// Implements: `rbd_snap_remove_by_id`.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while it is protected or has v2 children.
    pub async fn remove_snapshot_by_id(&self, id: u64) -> Result<()> {
        // SAFETY: an open image.
        self.call("remove a snapshot of", move |image| unsafe { rbd_sys::rbd_snap_remove_by_id(image, id) }).await
    }

    /// Protects a snapshot: it cannot be removed, and v1 clones may be made of it.
    ///
    /// Implements: `rbd_snap_protect`.
    ///
    /// # Errors
    /// `NotFound`; `Busy` where it is protected already.
    pub async fn protect_snapshot(&self, name: &str) -> Result<()> {
        let name = c_string("protect snapshot", name)?;
        // SAFETY: an open image and a C string.
        self.call("protect a snapshot of", move |image| unsafe { rbd_sys::rbd_snap_protect(image, name.as_ptr()) })
            .await
    }

    /// Takes the protection away.
    ///
    /// Implements: `rbd_snap_unprotect`.
    ///
    /// # Errors
    /// `NotFound`; `Busy` with v1 children, anywhere; `InvalidArgument` where it is not protected.
    pub async fn unprotect_snapshot(&self, name: &str) -> Result<()> {
        let name = c_string("unprotect snapshot", name)?;
        // SAFETY: an open image and a C string.
        self.call("unprotect a snapshot of", move |image| unsafe { rbd_sys::rbd_snap_unprotect(image, name.as_ptr()) })
            .await
    }

    /// Puts the image back to what it was at a snapshot. Dropping the future stops it half-way.
    ///
    /// Implements: `rbd_snap_rollback_with_progress`.
    ///
    /// # Errors
    /// `NotFound`, `ReadOnly`, `Canceled`.
    pub async fn rollback_to_snapshot(&self, name: &str, progress: Progress) -> Result<()> {
        let name = c_string("roll back to snapshot", name)?;
        self.call_watched("roll back to a snapshot of", progress, move |image, callback, argument| {
            // SAFETY: an open image and a C string; the watch behind the argument outlives the call.
            unsafe { rbd_sys::rbd_snap_rollback_with_progress(image, name.as_ptr(), callback, argument) }
        })
        .await
    }
}

/// Id, size and name of each snapshot.
fn list(image: rbd_sys::rbd_image_t, path: &str) -> Result<Vec<(u64, u64, String)>> {
    let mut count: i32 = 16;
    loop {
        let mut list: Vec<rbd_sys::rbd_snap_info_t> = Vec::with_capacity(count.unsigned_abs() as usize);
        // SAFETY: room for `count` entries, and librbd writes how many it would have needed.
        let code = unsafe { rbd_sys::rbd_snap_list(image, list.as_mut_ptr(), &raw mut count) };
        if code == -ERANGE {
            // One more than there are: librbd also writes an empty entry behind the last.
            count += 1;
            continue;
        }
        let filled = usize::try_from(check("list the snapshots of", path, code)?).unwrap_or(0);
        if filled == 0 {
            return Ok(Vec::new());
        }
        // SAFETY: librbd filled `filled` entries, and frees their strings, up to the entry without a name.
        return Ok(unsafe {
            list.set_len(filled);
            let snapshots = list.iter().map(|snap| (snap.id, snap.size, owned(snap.name))).collect();
            rbd_sys::rbd_snap_list_end(list.as_mut_ptr());
            snapshots
        });
    }
}

fn describe(image: rbd_sys::rbd_image_t, path: &str, id: u64, size: u64, name: String) -> Result<Snapshot> {
    const WHAT: &str = "read a snapshot of";
    let object = || format!("{path}@{name}");
    let mut kind = 0;
    // SAFETY: an open image and an out pointer.
    check(WHAT, object(), unsafe { rbd_sys::rbd_snap_get_namespace_type(image, id, &raw mut kind) })?;
    let namespace = SnapshotNamespace::from(kind);
    let mut protected = 0;
    if namespace == SnapshotNamespace::User {
        let c_name = c_string(WHAT, &name)?;
        // SAFETY: an open image, a C string and an out pointer.
        check(WHAT, object(), unsafe { rbd_sys::rbd_snap_is_protected(image, c_name.as_ptr(), &raw mut protected) })?;
    }
    let mut taken = rbd_sys::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: an open image and an out pointer.
    check(WHAT, object(), unsafe { rbd_sys::rbd_snap_get_timestamp(image, id, &raw mut taken) })?;
    let taken_at = system_time(taken.tv_sec, taken.tv_nsec);
    Ok(Snapshot { id, name, size, protected: protected != 0, namespace, taken_at })
}

/// librbd calls it whether or not anybody wants to know.
unsafe extern "C" fn unwatched(_done: u64, _total: u64, _argument: *mut c_void) -> i32 {
    0
}
