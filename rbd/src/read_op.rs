//! Compound reads of one RADOS object: key-value pairs, size, class methods and data in a single round trip.

use std::{
    ffi::{CString, c_char, c_void},
    future::Future,
    ptr,
    time::SystemTime,
};

use crate::{
    completion::{RADOS, submit},
    errno::{Error, ErrorKind, Result, check},
    image::system_time,
    pool::Pool,
    strings::{c_string, take_buffer},
};

/// What to read; all of it at one moment of the object, or none.
///
/// ```no_run
/// # async fn example(pool: rbd::Pool) -> rbd::Result<()> {
/// let header = pool.read_object("rbd_header.1f2e", &rbd::ReadOp::new().omap("", "", 512).stat()).await?;
/// println!("{} keys", header.omap.len());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ReadOp {
    omap: Option<(Vec<u8>, Vec<u8>, u64)>,
    stat: bool,
    execs: Vec<(&'static str, &'static str, Vec<u8>)>,
    data: Option<(u64, usize)>,
    unasserted: bool,
}

impl ReadOp {
    /// Nothing yet; an empty operation still says whether the object exists.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// At most `max` key-value pairs whose key starts with `prefix` and sorts after `after`. The OSD may return fewer;
    /// [`ObjectRead::more`] then says so.
    #[must_use]
    pub fn omap(mut self, after: &str, prefix: &str, max: u64) -> Self {
        self.omap = Some((after.into(), prefix.into(), max));
        self
    }

    /// Size and modification time.
    #[must_use]
    pub fn stat(mut self) -> Self {
        self.stat = true;
        self
    }

    /// The output of a method of an object class. Several may be asked for, and are answered in order.
    #[must_use]
    pub fn exec(mut self, class: &'static str, method: &'static str, input: Vec<u8>) -> Self {
        self.execs.push((class, method, input));
        self
    }

    /// Leaves out the check that the object exists, which needs the right to read it: for users who may call a class method
    /// and nothing else. What becomes of an object that does not exist is then up to the method.
    #[must_use]
    pub fn unasserted(mut self) -> Self {
        self.unasserted = true;
        self
    }

    /// `length` bytes of data at `offset`; fewer at the end.
    #[must_use]
    pub fn data(mut self, offset: u64, length: usize) -> Self {
        self.data = Some((offset, length));
        self
    }
}

/// A key and its value.
pub type OmapEntry = (Vec<u8>, Vec<u8>);

/// What a [`ReadOp`] found.
#[derive(Debug, Clone, Default)]
pub struct ObjectRead {
    /// The key-value pairs, sorted by key.
    pub omap: Vec<OmapEntry>,
    /// Whether there are more pairs behind them.
    pub more: bool,
    /// Size in bytes and modification time.
    pub stat: Option<(u64, SystemTime)>,
    /// The output of each class method.
    pub execs: Vec<Vec<u8>>,
    /// The data.
    pub data: Vec<u8>,
}

/// Where librados writes, at addresses that stay until the operation is done.
struct Slots {
    op: rbd_sys::rados_read_op_t,
    iter: rbd_sys::rados_omap_iter_t,
    more: u8,
    omap_result: i32,
    size: u64,
    modified: rbd_sys::time_t,
    stat_result: i32,
    execs: Vec<Exec>,
    data: Vec<u8>,
    data_read: usize,
    data_result: i32,
    // Read by librados only while the operation is built, but simplest kept with it.
    _strings: Vec<CString>,
}

struct Exec {
    output: *mut c_char,
    length: usize,
    result: i32,
}

// SAFETY: raw pointers to memory that librados allocated for this operation and that nobody else knows.
unsafe impl Send for Slots {}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: whatever librados allocated for this operation, freed once, after it is done.
        unsafe {
            if !self.iter.is_null() {
                rbd_sys::rados_omap_get_end(self.iter);
            }
            for exec in &self.execs {
                if !exec.output.is_null() {
                    rbd_sys::rados_buffer_free(exec.output);
                }
            }
            rbd_sys::rados_release_read_op(self.op);
        }
    }
}

impl Slots {
    /// Implements: `rados_create_read_op`, `rados_read_op_omap_get_vals2`, `rados_read_op_stat`, `rados_read_op_exec`,
    /// `rados_read_op_read`, `rados_read_op_assert_exists`.
    fn build(wanted: &ReadOp) -> Result<Box<Self>> {
        const WHAT: &str = "read object with";
        let data_len = wanted.data.map_or(0, |(_, length)| length);
        let mut slots = Box::new(Self {
            // SAFETY: no precondition.
            op: unsafe { rbd_sys::rados_create_read_op() },
            iter: ptr::null_mut(),
            more: 0,
            omap_result: 0,
            size: 0,
            modified: 0,
            stat_result: 0,
            execs: wanted.execs.iter().map(|_| Exec { output: ptr::null_mut(), length: 0, result: 0 }).collect(),
            data: vec![0; data_len],
            data_read: 0,
            data_result: 0,
            _strings: Vec::new(),
        });
        let s = &mut *slots;
        if !wanted.unasserted {
            // SAFETY: here and in all blocks below, the operation is live, strings are NUL-terminated, and every out pointer is
            // a field of the box or an element of a vector that is not resized while the operation lasts.
            unsafe { rbd_sys::rados_read_op_assert_exists(s.op) };
        }
        if let Some((after, prefix, max)) = &wanted.omap {
            let after = CString::new(after.as_slice()).map_err(|_| Error::malformed(WHAT, "a key with a NUL byte"))?;
            let prefix =
                CString::new(prefix.as_slice()).map_err(|_| Error::malformed(WHAT, "a key with a NUL byte"))?;
            // SAFETY: as above.
            unsafe {
                rbd_sys::rados_read_op_omap_get_vals2(
                    s.op,
                    after.as_ptr(),
                    prefix.as_ptr(),
                    *max,
                    &raw mut s.iter,
                    &raw mut s.more,
                    &raw mut s.omap_result,
                );
            }
            s._strings.extend([after, prefix]);
        }
        if wanted.stat {
            // SAFETY: as above.
            unsafe { rbd_sys::rados_read_op_stat(s.op, &raw mut s.size, &raw mut s.modified, &raw mut s.stat_result) };
        }
        for ((class, method, input), slot) in wanted.execs.iter().zip(&mut s.execs) {
            let (class, method) = (c_string(WHAT, class)?, c_string(WHAT, method)?);
            // SAFETY: as above; librados copies the input.
            unsafe {
                rbd_sys::rados_read_op_exec(
                    s.op,
                    class.as_ptr(),
                    method.as_ptr(),
                    input.as_ptr().cast(),
                    input.len(),
                    &raw mut slot.output,
                    &raw mut slot.length,
                    &raw mut slot.result,
                );
            }
            s._strings.extend([class, method]);
        }
        if let Some((offset, length)) = wanted.data {
            // SAFETY: as above; the buffer has `length` bytes.
            unsafe {
                rbd_sys::rados_read_op_read(
                    s.op,
                    offset,
                    length,
                    s.data.as_mut_ptr().cast(),
                    &raw mut s.data_read,
                    &raw mut s.data_result,
                );
            }
        }
        Ok(slots)
    }

    /// Takes what librados wrote, once the operation as a whole has succeeded.
    fn take(&mut self, wanted_stat: bool, path: &str) -> Result<ObjectRead> {
        let results = [self.omap_result, self.stat_result, self.data_result];
        for result in results.into_iter().chain(self.execs.iter().map(|exec| exec.result)) {
            check("read object", path, result)?;
        }
        let mut omap = Vec::new();
        while !self.iter.is_null() {
            let (mut key, mut value, mut key_len, mut value_len) = (ptr::null_mut(), ptr::null_mut(), 0, 0);
            // SAFETY: a live iterator and four out pointers.
            let code = unsafe {
                rbd_sys::rados_omap_get_next2(
                    self.iter,
                    &raw mut key,
                    &raw mut value,
                    &raw mut key_len,
                    &raw mut value_len,
                )
            };
            check("read the keys of object", path, code)?;
            if key.is_null() {
                break;
            }
            // SAFETY: librados' own memory, valid while the iterator is.
            omap.push(unsafe { (bytes(key, key_len), bytes(value, value_len)) });
        }
        let execs = self
            .execs
            .iter_mut()
            .map(|exec| take_buffer(std::mem::replace(&mut exec.output, ptr::null_mut()), exec.length))
            .collect();
        self.data.truncate(self.data_read);
        Ok(ObjectRead {
            omap,
            more: self.more != 0,
            stat: wanted_stat.then(|| (self.size, system_time(self.modified, 0))),
            execs,
            data: std::mem::take(&mut self.data),
        })
    }
}

/// # Safety
/// `pointer` is null or has `length` bytes.
unsafe fn bytes(pointer: *const c_char, length: usize) -> Vec<u8> {
    if pointer.is_null() {
        Vec::new()
    } else {
        // SAFETY: as this function requires.
        unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), length) }.to_vec()
    }
}

impl Pool {
    /// Reads one object. Submitted now; the future waits. Thousands may be in flight at once.
    ///
    /// Implements: `rados_aio_read_op_operate`.
    ///
    /// # Errors
    /// `NotFound` without the object; what the first part failed with.
    pub fn read_object(
        &self,
        object: &str,
        wanted: &ReadOp,
    ) -> impl Future<Output = Result<ObjectRead>> + Send + use<> {
        let path = self.path(object);
        let prepared = c_string("read object", object).and_then(|object| Ok((object, Slots::build(wanted)?)));
        let submitted = prepared.map(|(object, slots)| {
            let pool = self.clone();
            let (io, op) = (pool.raw(), slots.op);
            // SAFETY: the payload owns everything the operation writes to, and the pool; the completion is passed once.
            unsafe {
                submit(&RADOS, pool, slots, move |_, completion: *mut c_void| {
                    rbd_sys::rados_aio_read_op_operate(op, io, completion, object.as_ptr(), 0)
                })
            }
        });
        let (wanted_stat, timeout, alarm) = (wanted.stat, self.cluster().timeout(), self.cluster().alarm().clone());
        async move {
            let Some((value, mut slots)) = submitted?.done(timeout).await else {
                return Err(Error::of_kind(ErrorKind::TimedOut, "read object", path));
            };
            alarm.noted(check("read object", path.as_str(), value))?;
            slots.take(wanted_stat, &path)
        }
    }

    /// The value of one key of an object; `None` without the key or the object.
    ///
    /// # Errors
    /// As [`read_object`](Self::read_object), but for a missing object.
    pub async fn omap_value(&self, object: &str, key: &str) -> Result<Option<Vec<u8>>> {
        // Asked for as a prefix: the key itself sorts before all that only begin with it.
        match self.read_object(object, &ReadOp::new().omap("", key, 1)).await {
            Ok(read) => Ok(read.omap.into_iter().find(|(found, _)| *found == key.as_bytes()).map(|(_, value)| value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All key-value pairs of an object whose key starts with `prefix`, in as many rounds as it takes.
    ///
    /// # Errors
    /// As [`read_object`](Self::read_object). A failure in a later round is an error too, never a shorter list.
    pub async fn omap(&self, object: &str, prefix: &str) -> Result<Vec<OmapEntry>> {
        const ROUND: u64 = 1024;
        let mut all: Vec<OmapEntry> = Vec::new();
        loop {
            let after = all.last().map_or(Ok(""), |(key, _)| std::str::from_utf8(key));
            let after = after.map_err(|_| Error::malformed("read the keys of object", self.path(object)))?.to_owned();
            let mut read = self.read_object(object, &ReadOp::new().omap(&after, prefix, ROUND)).await?;
            let (more, empty) = (read.more, read.omap.is_empty());
            all.append(&mut read.omap);
            if !more {
                return Ok(all);
            }
            if empty {
                return Err(Error::malformed("read the keys of object", self.path(object)));
            }
        }
    }
}
