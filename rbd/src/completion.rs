//! How an asynchronous call into C becomes a future.
//!
//! An operation in flight owns everything the C side may touch (buffers, the image or pool handle) in one boxed payload,
//! together with the sender of a oneshot channel. The callback takes the box back, sends the return value and the payload,
//! and does nothing else. A future that is dropped early therefore frees nothing: the payload lives until the callback
//! runs, and is then dropped by it. Dropping a payload may drop the last reference to a handle; handles close themselves
//! on a thread of their own ([`crate::reap`]), never inside a callback, where closing would deadlock.

use std::{
    ffi::{c_int, c_void},
    pin::pin,
    ptr,
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    errno::{Error, ErrorKind, Result},
    reap::Waiting,
};

/// librbd's or librados' completion functions, which differ in name only.
pub(crate) struct Api {
    create: unsafe extern "C" fn(*mut c_void, Option<Callback>, *mut *mut c_void) -> c_int,
    value: unsafe extern "C" fn(*mut c_void) -> i64,
    release: unsafe extern "C" fn(*mut c_void),
}

type Callback = unsafe extern "C" fn(*mut c_void, *mut c_void);

/// Implements: `rbd_aio_create_completion`, `rbd_aio_get_return_value`, `rbd_aio_release`.
pub(crate) const RBD: Api =
    Api { create: rbd_sys::rbd_aio_create_completion, value: rbd_value, release: rbd_sys::rbd_aio_release };

/// Implements: `rados_aio_create_completion2`, `rados_aio_get_return_value`, `rados_aio_release`.
pub(crate) const RADOS: Api =
    Api { create: rbd_sys::rados_aio_create_completion2, value: rados_value, release: rbd_sys::rados_aio_release };

unsafe extern "C" fn rbd_value(completion: *mut c_void) -> i64 {
    // SAFETY: called from the callback, with the completion librbd passed to it.
    unsafe { rbd_sys::rbd_aio_get_return_value(completion) as i64 }
}

unsafe extern "C" fn rados_value(completion: *mut c_void) -> i64 {
    // SAFETY: called from the callback, with the completion librados passed to it.
    unsafe { rbd_sys::rados_aio_get_return_value(completion).into() }
}

struct InFlight<K, P> {
    keep: K,
    payload: P,
    done: oneshot::Sender<(i64, P)>,
    api: &'static Api,
}

/// A submitted operation.
pub(crate) struct Submitted<P>(oneshot::Receiver<(i64, P)>);

impl<P> Submitted<P> {
    /// Waits for the return value, and for the payload to come back; `None` after `limit`.
    pub(crate) async fn done(self, limit: Option<Duration>) -> Option<(i64, P)> {
        let done = patiently(self.0, limit, || 0).await?;
        Some(done.expect("librados and librbd run every callback exactly once"))
    }
}

/// Submits an operation now.
///
/// `start` is given the address where the payload stays until the callback, and the completion to pass to C; it returns
/// what the C function returned. A negative value means that the operation was not submitted and that the callback will
/// not run.
///
/// `keep` is what must stay open meanwhile; it is dropped by the callback, not by the future, which may be kept for long.
///
/// # Safety
///
/// `start` must hand C only pointers into the payload (or into what it owns), and handles that `keep` holds open, pass the completion to exactly one
/// asynchronous call, and not touch the payload after that call: the callback may have taken it already.
pub(crate) unsafe fn submit<K: Send + 'static, P: Send + 'static>(
    api: &'static Api,
    keep: K,
    payload: P,
    start: impl FnOnce(*mut P, *mut c_void) -> c_int,
) -> Submitted<P> {
    let (done, receiver) = oneshot::channel();
    let in_flight = Box::into_raw(Box::new(InFlight { keep, payload, done, api }));
    let mut completion = ptr::null_mut();
    // SAFETY: `completion` is a valid out pointer; `in_flight` is what `finished::<K, P>` expects as its argument.
    let created = unsafe { (api.create)(in_flight.cast(), Some(finished::<K, P>), &raw mut completion) };
    let submitted = if created < 0 {
        created
    } else {
        // SAFETY: `in_flight` points to a live box; only an address is taken.
        let code = start(unsafe { &raw mut (*in_flight).payload }, completion);
        if code < 0 {
            // SAFETY: not submitted, so nobody else holds the completion.
            unsafe { (api.release)(completion) };
        }
        code
    };
    if submitted < 0 {
        // SAFETY: the callback will not run, so the box is still ours alone.
        let InFlight { payload, done, .. } = *unsafe { Box::from_raw(in_flight) };
        // The receiver is alive: it is in this function.
        let _ = done.send((submitted.into(), payload));
    }
    Submitted(receiver)
}

unsafe extern "C" fn finished<K, P>(completion: *mut c_void, argument: *mut c_void) {
    // SAFETY: `argument` is the box that `submit::<K, P>` leaked, and C runs the callback once.
    let InFlight { keep, payload, done, api } = *unsafe { Box::from_raw(argument.cast::<InFlight<K, P>>()) };
    // SAFETY: the completion is valid in its callback; librbd and librados hold their own reference to it meanwhile.
    let value = unsafe { (api.value)(completion) };
    // SAFETY: our reference, released once.
    unsafe { (api.release)(completion) };
    drop(keep);
    // A dropped receiver gives the payload back, and it is dropped here.
    let _ = done.send((value, payload));
}

/// Waits for `work`, but gives up when `limit` passes in which `progress` has not moved. `None`: it was given up.
///
/// Giving up frees nothing: an operation in flight owns its buffers, and a blocking call its thread.
pub(crate) async fn patiently<T>(
    work: impl Future<Output = T>,
    limit: Option<Duration>,
    progress: impl Fn() -> u64,
) -> Option<T> {
    let Some(limit) = limit else { return Some(work.await) };
    let mut work = pin!(work);
    let mut seen = progress();
    loop {
        if let Ok(done) = tokio::time::timeout(limit, work.as_mut()).await {
            return Some(done);
        }
        let now = progress();
        if now == seen {
            return None;
        }
        seen = now;
    }
}

/// Runs a blocking C call on tokio's pool for such calls: the only way from async code into one.
///
/// A dropped future does not stop the call; it goes on, and what it returns is dropped. So it is after `limit`. [`settled`](crate::settled)
/// waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    limit: Option<Duration>,
    progress: impl Fn() -> u64,
    operation: &'static str,
    object: impl Into<String>,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let waiting = Waiting::new();
    match patiently(tokio::task::spawn_blocking(waiting.run(call)), limit, progress).await {
        Some(Ok(Some(result))) => result,
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Some(Ok(None) | Err(_)) => Err(Error::of_kind(ErrorKind::Canceled, operation, object)),
        None => Err(Error::of_kind(ErrorKind::TimedOut, operation, object)),
    }
}
