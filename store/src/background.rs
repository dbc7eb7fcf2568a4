//! What must go on when nobody waits for it any more: clean-ups, and steps that may not stop half-way.

use std::future::Future;

use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

/// Tasks of a store that outlive the futures that began them.
#[derive(Debug, Clone)]
pub(crate) struct Background {
    tasks: TaskTracker,
    runtime: Handle,
}

impl Background {
    pub(crate) fn new() -> Self {
        Self { tasks: TaskTracker::new(), runtime: Handle::current() }
    }

    /// Runs a clean-up. May be called from anywhere, also from a drop outside the runtime.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(work, &self.runtime);
    }

    /// Runs `work` to its end, also if the returned future is dropped; then `undo` gets what nobody waits for.
    pub(crate) async fn finish<T, F>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
        undo: impl FnOnce(T) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let (done, wait) = oneshot::channel();
        self.spawn(async move {
            if let Err(Ok(unwanted)) = done.send(work.await) {
                undo(unwanted).await;
            }
        });
        wait.await.map_err(|_| Error::Invalid("the runtime ended".into()))?
    }

    /// Waits until all tasks have ended.
    pub(crate) async fn settled(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}
