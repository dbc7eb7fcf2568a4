//! Where dropped handles are closed.
//!
//! `rbd_close` and `rados_shutdown` block, and deadlock when called from one of their own callbacks, which is where the
//! last reference to a handle may be dropped. So a dropped handle is closed on a thread of its own.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::sync::Notify;

static CLOSING: AtomicUsize = AtomicUsize::new(0);
static CLOSED: LazyLock<Notify> = LazyLock::new(Notify::new);

/// Runs `close` on a thread of its own.
pub(crate) fn reap(close: impl FnOnce() + Send + 'static) {
    CLOSING.fetch_add(1, Ordering::SeqCst);
    let reaper = thread::Builder::new().name("rbd-close".into()).spawn(move || {
        close();
        done();
    });
    if let Err(error) = reaper {
        // Leaked rather than closed on a thread that must not block.
        tracing::error!(%error, "no thread to close a handle on; it stays open until the process ends");
        done();
    }
}

fn done() {
    CLOSING.fetch_sub(1, Ordering::SeqCst);
    CLOSED.notify_waiters();
}

/// Waits until every handle dropped so far is closed.
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

/// How many dropped handles are still being closed; for tests that look for leaks.
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
