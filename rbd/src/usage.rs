//! How much of an image is really there.

use std::{
    ffi::{c_int, c_void},
    ptr,
};

use crate::{
    errno::{ECANCELED, Error, Result, check},
    features::Features,
    image::Image,
    strings::c_string,
};

/// A part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes from the start.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Whether there is data; otherwise it is known to read as zeroes.
    pub exists: bool,
}

impl Image {
    /// The parts of a range that hold data, at the snapshot the image was opened at or at its head; with `since`, the parts
    /// that changed since that snapshot.
    ///
    /// Whole objects, from the object map where the image has one (`fast-diff`), by asking for each object where not. What a
    /// clone still takes from its parent is left out.
    ///
    /// Not for an image that others may resize or remove meanwhile, unless it was opened at a snapshot: librbd 16.2.15 then
    /// ends the process with a failed assertion.
    ///
    /// Implements: `rbd_diff_iterate2`.
    ///
    /// # Errors
    /// `NotFound` without that snapshot; `TimedOut`.
    pub async fn extents(&self, since: Option<&str>, offset: u64, length: u64) -> Result<Vec<Extent>> {
        let since = since.map(|snapshot| c_string("compare with snapshot", snapshot)).transpose()?;
        self.run("list the extents of", move |image, path| {
            let mut extents: Vec<Extent> = Vec::new();
            let since = since.as_deref().map_or(ptr::null(), std::ffi::CStr::as_ptr);
            // SAFETY: an open image, a C string or null, and a vector that outlives the call.
            check("list the extents of", path, unsafe {
                rbd_sys::rbd_diff_iterate2(image, since, offset, length, 0, 1, Some(push), (&raw mut extents).cast())
            })?;
            Ok(extents)
        })
        .await
    }

    /// Bytes of the objects that exist, at the snapshot the image was opened at or at its head.
    ///
    /// From the object map where the image has a valid one, by asking for each object where not. The image may be written
    /// to, resized and removed meanwhile.
    ///
    /// # Errors
    /// `NotFound` where it was removed meanwhile; `TimedOut`.
    pub async fn used(&self) -> Result<u64> {
        let stat = self.stat().await?;
        if self.features().await?.contains(Features::OBJECT_MAP) && !self.flags().await?.object_map_invalid() {
            let snapshot = match &self.open.snapshot {
                None => None,
                Some(name) => {
                    let found = self.snapshots().await?.into_iter().find(|snapshot| snapshot.name == *name);
                    // Gone meanwhile: the head's map would answer another question.
                    Some(found.ok_or_else(|| Error::not_found("read the usage of", self.open.path.as_str()))?)
                }
            };
            let id = self.id().await?;
            if let Some(map) = self.pool().object_map(&id, snapshot.map(|snapshot| snapshot.id)).await? {
                return Ok(map.used(stat.size, stat.object_size));
            }
            return Err(Error::not_found("read the object map of", self.open.path.as_str()));
        }
        let extents = self.extents(None, 0, stat.size).await?;
        Ok(extents.iter().filter(|extent| extent.exists).map(|extent| extent.length).sum())
    }
}

unsafe extern "C" fn push(offset: u64, length: usize, exists: c_int, extents: *mut c_void) -> c_int {
    // SAFETY: `extents` is the vector of the call under way, and librbd calls from one thread at a time.
    let extents = unsafe { &mut *extents.cast::<Vec<Extent>>() };
    if extents.try_reserve(1).is_err() {
        return -ECANCELED;
    }
    extents.push(Extent { offset, length: length as u64, exists: exists != 0 });
    0
}
