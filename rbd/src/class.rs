//! Methods of the OSDs' `rbd` class that librbd does not offer one by one.

use std::ffi::{CStr, c_char};

use crate::{
    errno::{ERANGE, Error, Result, check},
    pool::{Pool, RawIoctx},
    strings::c_string,
};

/// Calls a method, with its output in a buffer that is as large as it takes. A method that writes has no output, and so is
/// called once.
///
/// Implements: `rados_exec`.
pub(crate) fn exec(io: &RawIoctx, object: &str, method: &CStr, input: &[u8]) -> Result<Vec<u8>> {
    const WHAT: &str = "call a class method of";
    let c_object = c_string(WHAT, object)?;
    let mut output: Vec<u8> = vec![0; 4096];
    loop {
        // SAFETY: a live handle, C strings, and two buffers with their lengths.
        let code = unsafe {
            rbd_sys::rados_exec(
                io.raw(),
                c_object.as_ptr(),
                c"rbd".as_ptr(),
                method.as_ptr(),
                input.as_ptr().cast::<c_char>(),
                input.len(),
                output.as_mut_ptr().cast::<c_char>(),
                output.len(),
            )
        };
        if code == -ERANGE {
            output.resize(output.len() * 8, 0);
            continue;
        }
        let used = check(WHAT, object, code)?;
        output.truncate(usize::try_from(used).unwrap_or(0));
        return Ok(output);
    }
}

/// Ceph's encoding of a string: its length in four bytes, and itself.
pub(crate) fn encoded(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), text.as_bytes()].concat()
}

/// Reads what [`encoded`] wrote, and moves on.
pub(crate) fn take_string(bytes: &mut &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *bytes = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

impl Pool {
    /// The id that the directory has for a name, even where the image cannot be opened by name.
    ///
    /// # Errors
    /// `PermissionDenied`, `TimedOut`.
    pub async fn id_in_directory(&self, name: &str) -> Result<Option<String>> {
        let value = self.omap_value("rbd_directory", &format!("name_{name}")).await?;
        let malformed = || Error::malformed("read the directory of", self.to_string());
        value.map(|value| take_string(&mut value.as_slice()).ok_or_else(malformed)).transpose()
    }
}
