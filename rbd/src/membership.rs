//! What else an image may belong to: a group, a mirror.

use crate::{
    errno::{ErrorKind, Result, check},
    image::Image,
    strings::owned,
};

impl Image {
    /// The name of the group the image is in, if it is in one.
    ///
    /// Implements: `rbd_get_group`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn group(&self) -> Result<Option<String>> {
        self.run("read the group of", |image, path| {
            // SAFETY: all-zero bytes are a valid value of the C struct.
            let mut info: rbd_sys::rbd_group_info_t = unsafe { std::mem::zeroed() };
            let size = size_of::<rbd_sys::rbd_group_info_t>();
            // SAFETY: an open image, and an out pointer of the size given.
            check("read the group of", path, unsafe { rbd_sys::rbd_get_group(image, &raw mut info, size) })?;
            // SAFETY: librbd filled the struct, whose string is freed right after it is copied.
            let name = unsafe {
                let name = owned(info.name);
                rbd_sys::rbd_group_info_cleanup(&raw mut info, size);
                name
            };
            Ok((!name.is_empty()).then_some(name))
        })
        .await
    }

    /// Whether the image is mirrored, or was until just now.
    ///
    /// Implements: `rbd_mirror_image_get_info`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn is_mirrored(&self) -> Result<bool> {
        self.run("read the mirroring of", |image, path| {
            // SAFETY: all-zero bytes are a valid value of the C struct.
            let mut info: rbd_sys::rbd_mirror_image_info_t = unsafe { std::mem::zeroed() };
            let size = size_of::<rbd_sys::rbd_mirror_image_info_t>();
            // SAFETY: an open image, and an out pointer of the size given.
            let code = unsafe { rbd_sys::rbd_mirror_image_get_info(image, &raw mut info, size) };
            match check("read the mirroring of", path, code) {
                Ok(_) => {}
                // A pool without mirroring.
                Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::InvalidArgument) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
            // SAFETY: librbd filled the struct, whose string is freed.
            unsafe { rbd_sys::rbd_mirror_image_get_info_cleanup(&raw mut info) };
            Ok(info.state != rbd_sys::RBD_MIRROR_IMAGE_DISABLED)
        })
        .await
    }
}
