//! Key-value pairs attached to an image.

use std::{collections::BTreeMap, ffi::c_char};

use crate::{
    errno::{ERANGE, Error, ErrorKind, Result, check},
    image::Image,
    strings::{c_string, c_strings, text},
};

impl Image {
    /// One value, if it is set.
    ///
    /// Implements: `rbd_metadata_get`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn metadata(&self, key: &str) -> Result<Option<String>> {
        let key = c_string("read metadata of", key)?;
        self.run("read metadata of", move |image, path| {
            let mut value: Vec<c_char> = vec![0; 256];
            loop {
                let mut length = value.len();
                // SAFETY: an open image, a C string, and a buffer of the length given, which librbd sets.
                let code =
                    unsafe { rbd_sys::rbd_metadata_get(image, key.as_ptr(), value.as_mut_ptr(), &raw mut length) };
                match check("read metadata of", path, code) {
                    _ if code == -ERANGE => value.resize(length.max(value.len() * 2), 0),
                    Ok(_) => return Ok(Some(text(&value))),
                    Err(error) if error.is_not_found() => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
        })
        .await
    }

    /// All pairs.
    ///
    /// Implements: `rbd_metadata_list`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn all_metadata(&self) -> Result<BTreeMap<String, String>> {
        self.run("list the metadata of", |image, path| {
            let (mut keys, mut values): (Vec<c_char>, Vec<c_char>) = (vec![0; 4096], vec![0; 4096]);
            loop {
                let (mut keys_len, mut values_len) = (keys.len(), values.len());
                // SAFETY: an open image, and two buffers of the lengths given, which librbd sets.
                let code = unsafe {
                    rbd_sys::rbd_metadata_list(
                        image,
                        c"".as_ptr(),
                        0,
                        keys.as_mut_ptr(),
                        &raw mut keys_len,
                        values.as_mut_ptr(),
                        &raw mut values_len,
                    )
                };
                if code == -ERANGE {
                    keys.resize(keys_len.max(keys.len()), 0);
                    values.resize(values_len.max(values.len()), 0);
                    continue;
                }
                check("list the metadata of", path, code)?;
                let (keys, values) = (split(&keys[..keys_len]), split(&values[..values_len]));
                if keys.len() != values.len() {
                    return Err(Error::of_kind(ErrorKind::Malformed, "list the metadata of", path));
                }
                return Ok(keys.into_iter().zip(values).collect());
            }
        })
        .await
    }

    /// Sets a value.
    ///
    /// Implements: `rbd_metadata_set`.
    ///
    /// # Errors
    /// `ReadOnly`, `PermissionDenied`.
    pub async fn set_metadata(&self, key: &str, value: &str) -> Result<()> {
        let [key, value] = c_strings("set metadata of", [key, value])?;
        self.call("set metadata of", move |image| {
            // SAFETY: an open image and two C strings.
            unsafe { rbd_sys::rbd_metadata_set(image, key.as_ptr(), value.as_ptr()) }
        })
        .await
    }

    /// Removes a value.
    ///
    /// Implements: `rbd_metadata_remove`.
    ///
    /// # Errors
    /// `NotFound`, `ReadOnly`.
    pub async fn remove_metadata(&self, key: &str) -> Result<()> {
        let key = c_string("remove metadata of", key)?;
        // SAFETY: an open image and a C string.
        self.call("remove metadata of", move |image| unsafe { rbd_sys::rbd_metadata_remove(image, key.as_ptr()) }).await
    }
}

/// The strings of a buffer that has a NUL behind each, empty ones included.
fn split(buffer: &[c_char]) -> Vec<String> {
    buffer.split_inclusive(|&byte| byte == 0).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_keeps_its_place() {
        let buffer: Vec<c_char> = b"a\0\0c\0".iter().map(|&byte| byte.cast_signed()).collect();
        assert_eq!(split(&buffer), ["a", "", "c"]);
    }
}
