//! Where dropped handles are closed.
//!
//! `rbd_close` and `rados_shutdown` block, and deadlock when called from one of their own callbacks, which is where the
//! last reference to a handle may be dropped. So a dropped handle is closed on a thread of its own.

use std::{
    mem,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::sync::Notify;

static CLOSING: AtomicUsize = AtomicUsize::new(0);
static CLOSED: LazyLock<Notify> = LazyLock::new(Notify::new);

/// Something that [`settled`] waits for, from its making until it is dropped.
pub(crate) struct Unsettled(());

impl Unsettled {
    pub(crate) fn new() -> Self {
        CLOSING.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        CLOSING.fetch_sub(1, Ordering::SeqCst);
        CLOSED.notify_waiters();
    }
}

/// Whoever waits for a blocking call. Once dropped, the call is unsettled until it has ended and its result is dropped too.
pub(crate) struct Waiting(Arc<Mutex<Call>>);

enum Call {
    Running,
    Abandoned(Unsettled),
    Ended,
}

impl Waiting {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Call::Running)))
    }

    /// The call, to be run where it may block; its result, if somebody still waits for it.
    pub(crate) fn run<T, C: FnOnce() -> T>(&self, call: C) -> impl FnOnce() -> Option<T> + use<T, C> {
        let state = self.0.clone();
        move || {
            let result = call();
            let state = mem::replace(&mut *state.lock().unwrap_or_else(PoisonError::into_inner), Call::Ended);
            if let Call::Abandoned(unsettled) = state {
                drop(result);
                drop(unsettled);
                return None;
            }
            Some(result)
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, Call::Running) {
            *state = Call::Abandoned(Unsettled::new());
        }
    }
}

/// Runs `close` on a thread of its own.
pub(crate) fn reap(close: impl FnOnce() + Send + 'static) {
    let unsettled = Unsettled::new();
    let reaper = thread::Builder::new().name("rbd-close".into()).spawn(move || {
        close();
        drop(unsettled);
    });
    if let Err(error) = reaper {
        // Leaked rather than closed on a thread that must not block.
        tracing::error!(%error, "no thread to close a handle on; it stays open until the process ends");
    }
}

/// Waits until every handle dropped so far is closed, and every call that nobody waits for any more has ended.
///
/// A process that ends without this leaves its watches and locks to time out (about 30 s).
pub async fn settled() {
    loop {
        let closed = CLOSED.notified();
        if CLOSING.load(Ordering::SeqCst) == 0 {
            return;
        }
        closed.await;
    }
}

/// How many dropped handles are not closed yet; for tests that look for leaks.
#[must_use]
pub fn closing() -> usize {
    CLOSING.load(Ordering::SeqCst)
}

/// Ends the process at once, without the destructors of C++ statics, which crash under the threads that a cluster that
/// does not answer may have left in librados. Flush what was printed, and wait for [`settled`] as long as you care to.
///
/// Implements: `_exit`.
pub fn exit(code: u8) -> ! {
    unsafe extern "C" {
        fn _exit(code: std::ffi::c_int) -> !;
    }
    // SAFETY: ends the process whatever its state.
    unsafe { _exit(code.into()) }
}
