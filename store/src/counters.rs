//! What a store has done so far, for an embedder to export, and the `tracing` span of each operation.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tracing::{Instrument, Span, field};

use crate::error::Result;

/// What a store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Storing an image, from the first byte to the snapshot.
    Add,
    /// Reading an image, until its reader is closed or dropped.
    Get,
    /// Asking about an image.
    Stat,
    /// Removing an image.
    Delete,
    /// Cloning an image, and asking whether it can be.
    Clone,
    /// Making a clone independent.
    Flatten,
    /// Listing clones, and how deep they are.
    Children,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Add, Self::Get, Self::Stat, Self::Delete, Self::Clone, Self::Flatten, Self::Children];

    /// Its name, as a metric's label has it: `add`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Get => "get",
            Self::Stat => "stat",
            Self::Delete => "delete",
            Self::Clone => "clone",
            Self::Flatten => "flatten",
            Self::Children => "children",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often a store did something, and how it went. All of it only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Begun; those that have not ended are under way.
    pub begun: u64,
    /// Ended well.
    pub done: u64,
    /// Ended with an error.
    pub failed: u64,
    /// Dropped by their caller before they ended.
    pub dropped: u64,
    /// Bytes of image data taken or given.
    pub bytes: u64,
    /// How long those that ended took, in sum.
    pub time: Duration,
}

/// What a store has done since it was opened, by operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters([Tally; Operation::ALL.len()]);

impl Counters {
    /// Of one operation.
    #[must_use]
    pub fn of(&self, operation: Operation) -> Tally {
        self.0[operation as usize]
    }

    /// Of each operation.
    pub fn iter(&self) -> impl Iterator<Item = (Operation, Tally)> {
        Operation::ALL.into_iter().zip(self.0)
    }
}

#[derive(Debug, Default)]
struct Cells {
    begun: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

/// The counters themselves, shared by all operations of a store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meters(Arc<[Cells; Operation::ALL.len()]>);

impl Meters {
    pub(crate) fn read(&self) -> Counters {
        Counters(std::array::from_fn(|index| {
            let cells = &self.0[index];
            // Ends before beginnings, so that no more have ended than begun.
            let [done, failed, dropped] = [&cells.done, &cells.failed, &cells.dropped].map(|cell| cell.load(Relaxed));
            let (bytes, time) = (cells.bytes.load(Relaxed), Duration::from_nanos(cells.nanoseconds.load(Relaxed)));
            Tally { begun: cells.begun.load(Relaxed), done, failed, dropped, bytes, time }
        }))
    }

    /// Counts an operation from now on, until the result is told to [`Measured::end`].
    pub(crate) fn begin(&self, operation: Operation, image: &str) -> Measured {
        self.0[operation as usize].begun.fetch_add(1, Relaxed);
        let span = tracing::info_span!(
            "store",
            operation = operation.name(),
            image,
            bytes = field::Empty,
            seconds = field::Empty,
            error = field::Empty,
        );
        let (bytes, ended) = (AtomicU64::new(0), AtomicBool::new(false));
        Measured(Arc::new(UnderWay { meters: self.clone(), operation, span, begun: Instant::now(), bytes, ended }))
    }

    /// Runs an operation that takes no data in its span, and counts it.
    pub(crate) async fn measure<T>(
        &self,
        operation: Operation,
        image: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let measured = self.begin(operation, image);
        let result = work.instrument(measured.span().clone()).await;
        measured.end(&result);
        result
    }
}

/// An operation under way. When the last clone is dropped before its end was told, it counts as dropped.
#[derive(Debug, Clone)]
pub(crate) struct Measured(Arc<UnderWay>);

#[derive(Debug)]
struct UnderWay {
    meters: Meters,
    operation: Operation,
    span: Span,
    begun: Instant,
    bytes: AtomicU64,
    ended: AtomicBool,
}

impl Measured {
    /// The operation's span, to do its work in.
    pub(crate) fn span(&self) -> &Span {
        &self.0.span
    }

    /// Data was taken or given.
    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Relaxed);
        self.0.cells().bytes.fetch_add(bytes, Relaxed);
    }

    /// It ended so. Told again, it stays as it was first.
    pub(crate) fn end<T>(&self, result: &Result<T>) {
        let UnderWay { span, ended, .. } = &*self.0;
        if ended.swap(true, Relaxed) {
            return;
        }
        let elapsed = self.0.record();
        self.0.cells().nanoseconds.fetch_add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        match result {
            Ok(_) => {
                self.0.cells().done.fetch_add(1, Relaxed);
                tracing::debug!(parent: span, "done");
            }
            Err(error) => {
                self.0.cells().failed.fetch_add(1, Relaxed);
                span.record("error", field::display(error));
                tracing::debug!(parent: span, %error, "failed");
            }
        }
    }
}

impl UnderWay {
    fn cells(&self) -> &Cells {
        &self.meters.0[self.operation as usize]
    }

    fn record(&self) -> Duration {
        let elapsed = self.begun.elapsed();
        self.span.record("bytes", self.bytes.load(Relaxed)).record("seconds", elapsed.as_secs_f64());
        elapsed
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !*self.ended.get_mut() {
            self.cells().dropped.fetch_add(1, Relaxed);
            self.record();
            tracing::debug!(parent: &self.span, "dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn every_operation_is_counted_once_however_it_ends() {
        let meters = Meters::default();
        meters.measure(Operation::Delete, "a", async { Ok(()) }).await.unwrap();
        let failed: Result<()> = Err(Error::Invalid("no".into()));
        meters.measure(Operation::Delete, "b", async { failed }).await.unwrap_err();
        drop(meters.measure(Operation::Delete, "never polled", async { Ok(()) }));
        let mut dropped = Box::pin(meters.measure(Operation::Delete, "c", std::future::pending::<Result<()>>()));
        assert!(futures_util::poll!(dropped.as_mut()).is_pending());
        assert_eq!(meters.read().of(Operation::Delete).begun, 3);
        drop(dropped);
        let add = meters.begin(Operation::Add, "d");
        add.add_bytes(5);
        assert_eq!((meters.read().of(Operation::Add).bytes, meters.read().of(Operation::Add).done), (5, 0));
        add.end(&Ok(()));
        let deletes = meters.read().of(Operation::Delete);
        assert_eq!((deletes.begun, deletes.done, deletes.failed, deletes.dropped), (3, 1, 1, 1));
        let all: Vec<_> =
            meters.read().iter().filter(|(_, tally)| tally.begun > 0).map(|(what, _)| what.name()).collect();
        assert_eq!(all, ["add", "delete"]);
    }
}
