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
        let tasks = TaskTracker::new();
        // Closed trackers still take tasks; it only lets `wait` end when there are none.
        tasks.close();
        Self { tasks, runtime: Handle::current() }
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
        F: Future<Output = ()> + Send + 'static,
    {
        let (done, wait) = oneshot::channel();
        let background = self.clone();
        self.spawn(async move {
            let result = work.await.map(|value| Unclaimed { value: Some((value, undo)), background });
            // Dropped unreceived, now or later, it undoes itself.
            let _ = done.send(result);
        });
        let unclaimed = wait.await.map_err(|_| Error::Invalid("the runtime ended".into()))??;
        Ok(unclaimed.claim())
    }

    /// Waits until all tasks have ended.
    pub(crate) async fn settled(&self) {
        self.tasks.wait().await;
    }
}

/// A result on its way to whoever waits for it.
struct Unclaimed<T, U, F>
where
    T: Send + 'static,
    U: FnOnce(T) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    value: Option<(T, U)>,
    background: Background,
}

impl<T, U, F> Unclaimed<T, U, F>
where
    T: Send + 'static,
    U: FnOnce(T) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    fn claim(mut self) -> T {
        self.value.take().expect("claimed once").0
    }
}

impl<T, U, F> Drop for Unclaimed<T, U, F>
where
    T: Send + 'static,
    U: FnOnce(T) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    fn drop(&mut self) {
        if let Some((value, undo)) = self.value.take() {
            self.background.spawn(undo(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static UNDONE: AtomicUsize = AtomicUsize::new(0);

    /// Dropped before, while and after the work is done: each time the result is undone, unless it was received.
    #[tokio::test]
    async fn what_nobody_receives_is_undone() {
        let background = Background::new();
        let undo = |_: u32| async {
            UNDONE.fetch_add(1, Ordering::SeqCst);
        };
        let work = || async {
            tokio::task::yield_now().await;
            Ok(1)
        };
        assert_eq!(background.finish(work(), undo).await.unwrap(), 1);
        background.settled().await;
        assert_eq!(UNDONE.load(Ordering::SeqCst), 0);
        for polls in 1..5 {
            let mut finish = std::pin::pin!(background.finish(std::future::ready(Ok(1)), undo));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            if finish.as_mut().poll(&mut context).is_pending() {
                for _ in 1..polls {
                    tokio::task::yield_now().await;
                }
            }
        }
        background.settled().await;
        assert_eq!(UNDONE.load(Ordering::SeqCst), 4);
    }
}
