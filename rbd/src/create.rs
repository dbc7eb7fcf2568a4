//! Creating images, and what can be chosen about it.

use std::ptr;

use crate::{
    errno::{Result, check},
    features::Features,
    pool::Pool,
    strings::c_string,
};

/// How to create an image or a clone. What is not given is left to the cluster's configuration.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// log2 of the object size: 22 for 4 MiB, 23 for 8 MiB.
    pub order: Option<u8>,
    /// The features, all of them.
    pub features: Option<Features>,
    /// Bytes written to one object before the next; needs `stripe_count`.
    pub stripe_unit: Option<u64>,
    /// Objects to stripe over; needs `stripe_unit`.
    pub stripe_count: Option<u64>,
    /// The pool that data objects go to (an erasure-coded one, say), by name.
    pub data_pool: Option<String>,
    /// For clones: 1 (parent snapshot must be protected) or 2.
    pub clone_format: Option<u8>,
}

impl Pool {
    /// Creates an image of `size` bytes (format 2) and leaves it closed.
    ///
    /// Implements: `rbd_create4`.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSpace`, `PermissionDenied`, `InvalidArgument`.
    pub async fn create(&self, name: &str, size: u64, options: CreateOptions) -> Result<()> {
        let c_name = c_string("create image", name)?;
        let options = options.build()?;
        self.call("create image", name, move |io| {
            // SAFETY: live handles and a C string.
            unsafe { rbd_sys::rbd_create4(io, c_name.as_ptr(), size, options.raw()) }
        })
        .await
    }
}

/// librbd's bag of image options.
pub(crate) struct ImageOptions(rbd_sys::rbd_image_options_t);

impl ImageOptions {
    pub(crate) fn raw(&self) -> rbd_sys::rbd_image_options_t {
        self.0
    }
}

// SAFETY: a plain allocation that is used by one thread at a time.
unsafe impl Send for ImageOptions {}

impl Drop for ImageOptions {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once.
        unsafe { rbd_sys::rbd_image_options_destroy(self.0) }
    }
}

impl CreateOptions {
    /// Implements: `rbd_image_options_create`, `rbd_image_options_set_uint64`, `rbd_image_options_set_string`.
    pub(crate) fn build(&self) -> Result<ImageOptions> {
        let mut raw = ptr::null_mut();
        // SAFETY: an out pointer.
        unsafe { rbd_sys::rbd_image_options_create(&raw mut raw) };
        let built = ImageOptions(raw);
        let numbers = [
            (rbd_sys::RBD_IMAGE_OPTION_FORMAT, Some(2)),
            (rbd_sys::RBD_IMAGE_OPTION_ORDER, self.order.map(u64::from)),
            (rbd_sys::RBD_IMAGE_OPTION_FEATURES, self.features.map(|features| features.0)),
            (rbd_sys::RBD_IMAGE_OPTION_STRIPE_UNIT, self.stripe_unit),
            (rbd_sys::RBD_IMAGE_OPTION_STRIPE_COUNT, self.stripe_count),
            (rbd_sys::RBD_IMAGE_OPTION_CLONE_FORMAT, self.clone_format.map(u64::from)),
        ];
        for (option, value) in numbers {
            if let Some(value) = value {
                // SAFETY: live options; librbd checks option and value.
                let code = unsafe { rbd_sys::rbd_image_options_set_uint64(built.0, option.cast_signed(), value) };
                check("set", format!("image option {option} = {value}"), code)?;
            }
        }
        if let Some(pool) = &self.data_pool {
            let c_pool = c_string("set data pool", pool)?;
            // SAFETY: live options and a C string, which librbd copies.
            let code = unsafe {
                rbd_sys::rbd_image_options_set_string(
                    built.0,
                    rbd_sys::RBD_IMAGE_OPTION_DATA_POOL.cast_signed(),
                    c_pool.as_ptr(),
                )
            };
            check("set data pool", pool, code)?;
        }
        Ok(built)
    }
}
