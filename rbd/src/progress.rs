//! Progress and cancellation of long blocking calls.

use std::{
    ffi::{c_int, c_void},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
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

/// What the C side calls: the caller's closure, and what it shares with the future.
pub(crate) struct Watch {
    progress: Progress,
    shared: Arc<Shared>,
}

/// Held by the future: tells whether the operation comes on, and tells it to stop when the future is dropped.
pub(crate) struct Watched(Arc<Shared>);

#[derive(Default)]
struct Shared {
    ticks: AtomicU64,
    dropped: AtomicBool,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.dropped.store(true, Ordering::Relaxed);
    }
}

impl Watched {
    /// How often the operation has reported progress.
    pub(crate) fn ticks(&self) -> u64 {
        self.0.ticks.load(Ordering::Relaxed)
    }
}

impl Watch {
    pub(crate) fn new(progress: Progress) -> (Self, Watched) {
        let shared = Arc::new(Shared::default());
        (Self { progress, shared: shared.clone() }, Watched(shared))
    }

    /// The two arguments that every `…_with_progress` function takes. The watch must outlive the call.
    pub(crate) fn callback(&mut self) -> (rbd_sys::librbd_progress_fn_t, *mut c_void) {
        (Some(called), (&raw mut *self).cast())
    }
}

unsafe extern "C" fn called(done: u64, total: u64, watch: *mut c_void) -> c_int {
    // SAFETY: `watch` is the one whose call is under way, and librbd calls from one thread at a time.
    let watch = unsafe { &mut *watch.cast::<Watch>() };
    watch.shared.ticks.fetch_add(1, Ordering::Relaxed);
    let stop = watch.shared.dropped.load(Ordering::Relaxed) || (watch.progress)(done, total).is_break();
    if stop { -ECANCELED } else { 0 }
}
