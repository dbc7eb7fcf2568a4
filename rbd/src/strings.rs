//! Strings to C and back.

use std::ffi::{CStr, CString, c_char};

use crate::errno::{ERANGE, Error, ErrorKind, Result, check};

/// A C string of `text`, which must not hold a NUL byte.
pub(crate) fn c_string(operation: &'static str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::of_kind(ErrorKind::InvalidArgument, operation, format!("{text:?}")))
}

/// The text of a C buffer up to its NUL.
pub(crate) fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|&byte| byte.cast_unsigned()).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Copies a buffer that librados allocated, and frees it.
pub(crate) fn take_buffer(buffer: *mut c_char, length: usize) -> Vec<u8> {
    if buffer.is_null() {
        return Vec::new();
    }
    // SAFETY: librados says how long its buffer is, and gives it to us.
    unsafe {
        let copy = std::slice::from_raw_parts(buffer.cast::<u8>(), length).to_vec();
        rbd_sys::rados_buffer_free(buffer);
        copy
    }
}

/// Calls `fill` with a larger buffer until it no longer says `-ERANGE`; NUL-separated strings.
///
/// `fill` gets the buffer and its length, and sets the length to what it used or needs.
pub(crate) fn strings(
    operation: &'static str,
    object: &str,
    mut fill: impl FnMut(*mut c_char, &mut usize) -> i32,
) -> Result<Vec<String>> {
    let mut buffer: Vec<c_char> = vec![0; 4096];
    loop {
        let mut length = buffer.len();
        let code = fill(buffer.as_mut_ptr(), &mut length);
        if code == -ERANGE {
            buffer.resize(length.max(buffer.len() * 2), 0);
            continue;
        }
        check(operation, object, code)?;
        let bytes: Vec<u8> = buffer[..length.min(buffer.len())].iter().map(|&byte| byte.cast_unsigned()).collect();
        return bytes
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| {
                String::from_utf8(name.to_vec()).map_err(|_| {
                    Error::of_kind(ErrorKind::Malformed, operation, format!("{object} (a name is not UTF-8)"))
                })
            })
            .collect();
    }
}

/// A C string that librados or librbd owns; the empty string for null.
///
/// # Safety
/// `pointer` is null or a NUL-terminated string.
pub(crate) unsafe fn owned(pointer: *const c_char) -> String {
    if pointer.is_null() {
        String::new()
    } else {
        // SAFETY: as this function requires.
        unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
    }
}

/// As [`c_string`], for several at once.
pub(crate) fn c_strings<const N: usize>(operation: &'static str, texts: [&str; N]) -> Result<[CString; N]> {
    let strings: Vec<CString> = texts.into_iter().map(|text| c_string(operation, text)).collect::<Result<_>>()?;
    Ok(strings.try_into().expect("as many strings as texts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_byte_is_refused_before_it_reaches_c() {
        assert_eq!(c_string("open image", "a\0b").unwrap_err().kind, ErrorKind::InvalidArgument);
    }
}
