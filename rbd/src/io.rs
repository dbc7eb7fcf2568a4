//! Reading from and writing to an open image, many operations in flight.

use std::future::Future;

use bytes::{Bytes, BytesMut};

use crate::{
    completion::{RBD, submit},
    errno::{Error, ErrorKind, Result, check},
    image::Image,
};

impl Image {
    /// Writes `data` at `offset`. Submitted now; the future waits.
    ///
    /// Implements: `rbd_aio_write2`.
    ///
    /// # Errors
    /// `InvalidArgument` beyond the end; `NoSpace`, `ReadOnly`, `TimedOut`, `Blocklisted`.
    pub fn write(&self, offset: u64, data: Bytes) -> impl Future<Output = Result<()>> + Send + use<> {
        let (pointer, length) = (data.as_ptr(), data.len());
        // SAFETY: the payload owns the bytes, which do not move with it, and the image; librbd only reads them.
        self.submit("write to", data, move |image, _, completion| unsafe {
            rbd_sys::rbd_aio_write2(image, offset, length, pointer.cast(), completion, 0)
        })
    }

    /// Reads `length` bytes at `offset`; fewer at the end of the image. Submitted now; the future waits.
    ///
    /// Implements: `rbd_aio_read2`.
    ///
    /// # Errors
    /// `InvalidArgument` beyond the end; `TimedOut`, `Blocklisted`.
    pub fn read(&self, offset: u64, length: usize) -> impl Future<Output = Result<Bytes>> + Send + use<> {
        let buffer = BytesMut::with_capacity(length);
        // SAFETY: the payload owns the buffer, with room for `length` bytes at an address that does not move with it.
        let read = self.submit_value("read from", buffer, move |image, buffer: *mut BytesMut, completion| unsafe {
            let pointer = (*buffer).as_mut_ptr();
            rbd_sys::rbd_aio_read2(image, offset, length, pointer.cast(), completion, 0)
        });
        async move {
            let (read, mut buffer) = read.await?;
            let read = usize::try_from(read).unwrap_or(0).min(length);
            // SAFETY: librbd filled `read` bytes (holes as zeroes), which is at most the capacity.
            unsafe { buffer.set_len(read) };
            Ok(buffer.freeze())
        }
    }

    /// As [`read`](Self::read), into a buffer of the caller's; as long as that, or less at the end of the image. Submitted
    /// now; the future waits, and returns the buffer with how much of it was filled.
    ///
    /// The buffer stays with the operation, also when the future is dropped: what it is counted against is held for as long
    /// as librbd may write to it.
    ///
    /// Implements: `rbd_aio_read2`.
    ///
    /// # Errors
    /// As [`read`](Self::read); the buffer is dropped then.
    pub fn read_into<B: AsMut<[u8]> + Send + 'static>(
        &self,
        offset: u64,
        buffer: B,
    ) -> impl Future<Output = Result<(B, usize)>> + Send + use<B> {
        // SAFETY: the payload owns the buffer, which is asked for its memory where it stays, and not touched until librbd
        // has filled that.
        let read = self.submit_value("read from", buffer, move |image, buffer: *mut B, completion| unsafe {
            let memory = (*buffer).as_mut();
            rbd_sys::rbd_aio_read2(image, offset, memory.len(), memory.as_mut_ptr().cast(), completion, 0)
        });
        async move { read.await.map(|(read, buffer)| (buffer, usize::try_from(read).unwrap_or(0))) }
    }

    /// Makes a range read as zeroes, freeing its space where it can. Submitted now; the future waits.
    ///
    /// Implements: `rbd_aio_write_zeroes`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_zeroes(&self, offset: u64, length: u64) -> impl Future<Output = Result<()>> + Send + use<> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // SAFETY: an open image; no buffer.
        self.submit("write zeroes to", (), move |image, _, completion| unsafe {
            rbd_sys::rbd_aio_write_zeroes(image, offset, length, completion, 0, 0)
        })
    }

    /// Gives a range's space back where whole discard granules fall into it; what is read there afterwards is zeroes only
    /// for those. Submitted now; the future waits.
    ///
    /// Implements: `rbd_aio_discard`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn discard(&self, offset: u64, length: u64) -> impl Future<Output = Result<()>> + Send + use<> {
        // SAFETY: an open image; no buffer.
        self.submit("discard from", (), move |image, _, completion| unsafe {
            rbd_sys::rbd_aio_discard(image, offset, length, completion)
        })
    }

    /// Waits until all writes completed so far are durable. Submitted now; the future waits.
    ///
    /// Implements: `rbd_aio_flush`.
    ///
    /// # Errors
    /// What a write still in the cache failed with.
    pub fn flush(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        // SAFETY: an open image; no buffer.
        self.submit("flush", (), |image, _, completion| unsafe { rbd_sys::rbd_aio_flush(image, completion) })
    }

    /// Submits an asynchronous operation whose buffer it owns until the callback.
    fn submit<B, F>(
        &self,
        operation: &'static str,
        buffer: B,
        start: F,
    ) -> impl Future<Output = Result<()>> + Send + use<B, F>
    where
        B: Send + 'static,
        F: FnOnce(rbd_sys::rbd_image_t, *mut B, rbd_sys::rbd_completion_t) -> i32,
    {
        let value = self.submit_value(operation, buffer, start);
        async move { value.await.map(drop) }
    }

    fn submit_value<B, F>(
        &self,
        operation: &'static str,
        buffer: B,
        start: F,
    ) -> impl Future<Output = Result<(i64, B)>> + Send + use<B, F>
    where
        B: Send + 'static,
        F: FnOnce(rbd_sys::rbd_image_t, *mut B, rbd_sys::rbd_completion_t) -> i32,
    {
        let handle = self.raw();
        // SAFETY: the image is kept open; `start` hands C the buffer that the payload owns, and the completion, once.
        let submitted =
            unsafe { submit(&RBD, self.open.clone(), buffer, |buffer, completion| start(handle, buffer, completion)) };
        let cluster = self.open.pool.cluster();
        let (timeout, alarm, path) = (cluster.timeout(), cluster.alarm().clone(), self.open.path.clone());
        async move {
            match submitted.done(timeout).await {
                Some((value, buffer)) => alarm.noted(check(operation, path, value)).map(|value| (value, buffer)),
                None => Err(Error::of_kind(ErrorKind::TimedOut, operation, path)),
            }
        }
    }
}
