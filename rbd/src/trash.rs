//! The trash: where images wait before they are gone.

use std::{
    ptr,
    time::{Duration, SystemTime},
};

use crate::{
    errno::{ERANGE, Result, check},
    image::system_time,
    pool::Pool,
    progress::Progress,
    strings::{c_string, c_strings, owned},
};

/// An image in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrashEntry {
    /// The id, by which alone it can be opened, restored and removed.
    pub id: String,
    /// The name it had.
    pub name: String,
    /// Who put it there.
    pub source: TrashSource,
    /// When.
    pub deleted_at: SystemTime,
    /// Until when librbd refuses to remove it unless forced.
    pub deferred_until: SystemTime,
}

/// Who put an image into the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TrashSource {
    /// `rbd trash mv`, or a program.
    User,
    /// Mirroring.
    Mirroring,
    /// Migration.
    Migration,
    /// A removal that is under way or was interrupted.
    Removing,
    /// A user, as the parent of v2 clones; it goes with the last of them.
    UserParent,
    /// A source this program does not know, by its number.
    Unknown(u32),
}

impl From<u32> for TrashSource {
    fn from(source: u32) -> Self {
        match source {
            rbd_sys::RBD_TRASH_IMAGE_SOURCE_USER => Self::User,
            rbd_sys::RBD_TRASH_IMAGE_SOURCE_MIRRORING => Self::Mirroring,
            rbd_sys::RBD_TRASH_IMAGE_SOURCE_MIGRATION => Self::Migration,
            rbd_sys::RBD_TRASH_IMAGE_SOURCE_REMOVING => Self::Removing,
            rbd_sys::RBD_TRASH_IMAGE_SOURCE_USER_PARENT => Self::UserParent,
            other => Self::Unknown(other),
        }
    }
}

impl Pool {
    /// Makes sure that the pool can move images to the trash, and so remove them, when it is full: the trash is an object
    /// that the first move creates, which a full pool refuses.
    ///
    /// Implements: `rados_write_op_create`, `rados_write_op_operate`.
    ///
    /// # Errors
    /// `PermissionDenied`, `NoSpace`.
    pub async fn prepare_trash(&self) -> Result<()> {
        self.call("create", "rbd_trash", |io| {
            // SAFETY: a live handle, a write operation that is released again, and C strings or nulls where they may be.
            unsafe {
                let op = rbd_sys::rados_create_write_op();
                rbd_sys::rados_write_op_create(op, rbd_sys::LIBRADOS_CREATE_IDEMPOTENT.cast_signed(), ptr::null());
                let code = rbd_sys::rados_write_op_operate(op, io, c"rbd_trash".as_ptr(), ptr::null_mut(), 0);
                rbd_sys::rados_release_write_op(op);
                code
            }
        })
        .await
    }

    /// Moves an image to the trash, where it stays at least `deferment`. It keeps its data, snapshots and clones.
    ///
    /// Ceph does not refuse an image that a client has open for writing: look at its watchers before *and after*.
    ///
    /// Implements: `rbd_trash_move`.
    ///
    /// # Errors
    /// `NotFound`; `Busy` for an image that is mirrored or being migrated.
    pub async fn trash_move(&self, name: &str, deferment: Duration) -> Result<()> {
        let c_name = c_string("move to trash", name)?;
        self.call("move to trash", name, move |io| {
            // SAFETY: a live handle and a C string.
            unsafe { rbd_sys::rbd_trash_move(io, c_name.as_ptr(), deferment.as_secs()) }
        })
        .await
    }

    /// Everything in the trash.
    ///
    /// Implements: `rbd_trash_list`.
    ///
    /// # Errors
    /// `PermissionDenied`, `TimedOut`; an error is never an empty list.
    pub async fn trash_list(&self) -> Result<Vec<TrashEntry>> {
        let pool = self.clone();
        self.cluster()
            .blocking("list the trash of", self.to_string(), move || {
                let mut count = 256;
                loop {
                    let mut list: Vec<rbd_sys::rbd_trash_image_info_t> = Vec::with_capacity(count);
                    // SAFETY: room for `count` entries, and librbd writes how many it filled or would have.
                    let code = unsafe { rbd_sys::rbd_trash_list(pool.raw(), list.as_mut_ptr(), &raw mut count) };
                    if code == -ERANGE {
                        continue;
                    }
                    check("list the trash of", pool.to_string(), code)?;
                    // SAFETY: librbd filled `count` entries, whose strings are freed right after they are copied.
                    return Ok(unsafe {
                        list.set_len(count);
                        let entries = list.iter().map(|info| entry(info)).collect();
                        rbd_sys::rbd_trash_list_cleanup(list.as_mut_ptr(), count);
                        entries
                    });
                }
            })
            .await
    }

    /// One image in the trash, if it is there.
    ///
    /// Implements: `rbd_trash_get`.
    ///
    /// # Errors
    /// `PermissionDenied`, `TimedOut`.
    pub async fn trash_get(&self, id: &str) -> Result<Option<TrashEntry>> {
        let c_id = c_string("look in the trash for", id)?;
        let (pool, object) = (self.clone(), self.path(&format!("(id {id})")));
        self.cluster()
            .blocking("look in the trash for", object.clone(), move || {
                // SAFETY: all-zero bytes are a valid value of the C struct.
                let mut info: rbd_sys::rbd_trash_image_info_t = unsafe { std::mem::zeroed() };
                // SAFETY: a live handle, a C string and an out pointer.
                match check("look in the trash for", object, unsafe {
                    rbd_sys::rbd_trash_get(pool.raw(), c_id.as_ptr(), &raw mut info)
                }) {
                    Ok(_) => {}
                    Err(error) if error.is_not_found() => return Ok(None),
                    Err(error) => return Err(error),
                }
                // SAFETY: librbd filled the struct, whose strings are freed right after they are copied.
                Ok(Some(unsafe {
                    let entry = entry(&info);
                    rbd_sys::rbd_trash_get_cleanup(&raw mut info);
                    entry
                }))
            })
            .await
    }

    /// Takes an image out of the trash, under `name`.
    ///
    /// Implements: `rbd_trash_restore`.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists` where the name has been given out again.
    pub async fn trash_restore(&self, id: &str, name: &str) -> Result<()> {
        let [c_id, c_name] = c_strings("restore from trash", [id, name])?;
        self.call("restore from trash", name, move |io| {
            // SAFETY: a live handle and two C strings.
            unsafe { rbd_sys::rbd_trash_restore(io, c_id.as_ptr(), c_name.as_ptr()) }
        })
        .await
    }

    /// Removes an image from the trash, for good. `force` ignores the deferment.
    ///
    /// Implements: `rbd_trash_remove_with_progress`.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied` before the deferment has ended; `NotEmpty` with snapshots or v2 clones; `Busy` with
    /// watchers.
    pub async fn trash_remove(&self, id: &str, force: bool, progress: Progress) -> Result<()> {
        let c_id = c_string("remove from trash", id)?;
        self.call_watched("remove from trash", id, progress, move |io, callback, argument| {
            // SAFETY: a live handle and a C string; the watch behind the argument outlives the call.
            unsafe { rbd_sys::rbd_trash_remove_with_progress(io, c_id.as_ptr(), force, callback, argument) }
        })
        .await
    }

    /// Removes everything whose deferment ended before `now`, and says for each entry whether that worked. One that cannot
    /// be removed stops nothing.
    ///
    /// # Errors
    /// Only if the trash cannot be listed.
    pub async fn trash_purge(&self, now: SystemTime) -> Result<Vec<(TrashEntry, Result<()>)>> {
        let mut purged = Vec::new();
        for entry in self.trash_list().await? {
            if entry.deferred_until < now {
                let removed = self.trash_remove(&entry.id, false, crate::silent()).await;
                purged.push((entry, removed));
            }
        }
        Ok(purged)
    }
}

/// # Safety
/// librbd filled `info`.
unsafe fn entry(info: &rbd_sys::rbd_trash_image_info_t) -> TrashEntry {
    // SAFETY: librbd's strings are NUL-terminated or null.
    let (id, name) = unsafe { (owned(info.id), owned(info.name)) };
    TrashEntry {
        id,
        name,
        source: info.source.into(),
        deleted_at: system_time(info.deletion_time, 0),
        deferred_until: system_time(info.deferment_end_time, 0),
    }
}
