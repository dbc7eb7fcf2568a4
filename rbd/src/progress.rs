//! Progress and cancellation of long blocking calls.

use std::{
    ffi::{c_int, c_void},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::errno::ECANCELED;

/// Called with how much is done and how much there is to do (in objects, not bytes); `Break` stops the operation.
pub type Progress = Box<dyn FnMut(u64, u64) -> ControlFlow<()> + Send>;

/// A [`Progress`] that does nothing.
#[must_use]
pub fn silent() -> Progress {
    Box::new(|_, _| ControlFlow::Continue(()))
}

/// What the C side calls: the caller's closure, and the flag that a dropped future sets.
pub(crate) struct Watch {
    progress: Progress,
    dropped: Arc<AtomicBool>,
}

/// Held by the future; tells the operation to stop when the future is dropped.
pub(crate) struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Watch {
    pub(crate) fn new(progress: Progress) -> (Self, StopOnDrop) {
        let dropped = Arc::new(AtomicBool::new(false));
        (Self { progress, dropped: dropped.clone() }, StopOnDrop(dropped))
    }

    /// The two arguments that every `…_with_progress` function takes. The watch must outlive the call.
    pub(crate) fn callback(&mut self) -> (rbd_sys::librbd_progress_fn_t, *mut c_void) {
        (Some(called), (&raw mut *self).cast())
    }
}

unsafe extern "C" fn called(done: u64, total: u64, watch: *mut c_void) -> c_int {
    // SAFETY: `watch` is the one whose call is under way, and librbd calls from one thread at a time.
    let watch = unsafe { &mut *watch.cast::<Watch>() };
    let stop = watch.dropped.load(Ordering::Relaxed) || (watch.progress)(done, total).is_break();
    if stop { -ECANCELED } else { 0 }
}
