//! The memory of a store: what all its uploads and downloads may hold together, and each of them alone.
//!
//! Each upload or download takes a [`Share`], and from it a [`Place`] for every chunk before it has the chunk; the place goes
//! back when the chunk is dropped. Places are given in the order they were asked for.
//!
//! Nobody waits for ever: a share that holds nothing and has waited for [`PATIENCE`] gets one place beyond the budget. Without
//! that, downloads whose readers wait for uploads would keep those uploads from ever beginning.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use memmap2::{Advice, MmapMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Budgets are counted in these many bytes.
const UNIT: usize = 1 << 20;

/// How long a share that holds nothing waits before it goes beyond the budget.
const PATIENCE: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };

/// What all shares together may hold.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Inner>);

struct Inner {
    units: Arc<Semaphore>,
    total: usize,
    /// Buffers that nobody uses now, kept for those who come. With those in use they are never more than the budget.
    spare: Mutex<Vec<MmapMut>>,
}

/// The part of one upload or download.
pub(crate) struct Share {
    budget: Budget,
    window: Arc<Semaphore>,
    /// Units of the window.
    total: usize,
}

/// Leave to hold some memory, until dropped.
pub(crate) struct Place {
    _window: OwnedSemaphorePermit,
    /// `None` beyond the budget.
    _budget: Option<OwnedSemaphorePermit>,
}

/// A place, and the memory.
pub(crate) struct Buffer {
    memory: Option<MmapMut>,
    budget: Budget,
    /// Given back after the memory is.
    place: Option<Place>,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        let total = usize::try_from(bytes / UNIT as u64).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner { units: Arc::new(Semaphore::new(total)), total, spare: Mutex::default() }))
    }

    /// Begins an upload or download, which may hold `window` bytes, or a single chunk if that is more.
    pub(crate) fn share(&self, window: u64) -> Share {
        let total = usize::try_from(window.div_ceil(UNIT as u64)).unwrap_or(usize::MAX).clamp(1, self.0.total);
        Share { budget: self.clone(), window: Arc::new(Semaphore::new(total)), total }
    }

    /// A spare buffer of that size, if there is one; and none stays spare that others now have the place of.
    fn reuse(&self, bytes: usize) -> Option<MmapMut> {
        let mut spare = self.spare();
        let reused = spare.iter().position(|buffer| buffer.len() == bytes).map(|at| spare.swap_remove(at));
        let room = self.0.units.available_permits();
        while spare.iter().map(|buffer| units(buffer.len())).sum::<usize>() > room {
            spare.pop();
        }
        reused
    }

    /// Whether one more spare buffer is within what nobody uses.
    fn has_room_for(&self, spare: &[MmapMut], bytes: usize) -> bool {
        let spare: usize = spare.iter().map(|buffer| units(buffer.len())).sum();
        spare + units(bytes) <= self.0.units.available_permits()
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<MmapMut>> {
        self.0.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> bool {
        // This one and that of the buffer, or share, that asks.
        Arc::strong_count(&self.0) <= 2
    }
}

impl Share {
    /// Waits for a place for `bytes`.
    pub(crate) async fn place(&self, bytes: usize) -> Place {
        let place = self.wait(bytes).await;
        self.budget.reuse(0);
        place
    }

    /// Waits for a place for `bytes`, and the memory: zeroed, or as its last user left it.
    pub(crate) async fn buffer(&self, bytes: usize) -> Buffer {
        let place = self.wait(bytes).await;
        let memory = self.budget.reuse(bytes).unwrap_or_else(|| allocate(bytes));
        Buffer { memory: Some(memory), budget: self.budget.clone(), place: Some(place) }
    }

    async fn wait(&self, bytes: usize) -> Place {
        let wanted = units(bytes).min(self.total);
        let permits = u32::try_from(wanted).unwrap_or(u32::MAX);
        let window = self.window.clone().acquire_many_owned(permits).await.expect("a window is never closed");
        let mut budget = pin!(self.budget.0.units.clone().acquire_many_owned(permits));
        let budget = loop {
            match tokio::time::timeout(PATIENCE, budget.as_mut()).await {
                Ok(permit) => break Some(permit.expect("a budget is never closed")),
                // Whatever else this share holds will come back, so it can wait.
                Err(_) if self.window.available_permits() + wanted < self.total => {}
                Err(_) => break None,
            }
        };
        Place { _window: window, _budget: budget }
    }
}

impl Buffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.as_ref().expect("taken only when dropped")
    }

    /// Gives its place back already: it goes to somebody who may keep it for as long as they like.
    pub(crate) fn let_go(&mut self) {
        self.place = None;
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.as_mut().expect("taken only when dropped")
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else { return };
        let mut spare = self.budget.spare();
        if self.budget.idle() {
            spare.clear();
        } else if self.place.is_some() || self.budget.has_room_for(&spare, memory.len()) {
            spare.push(memory);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.budget.idle() {
            self.budget.spare().clear();
        }
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT)
}

fn allocate(bytes: usize) -> MmapMut {
    let memory = MmapMut::map_anon(bytes).expect("there is memory for a chunk");
    // A page fault for every 2 MiB rather than for every 4 KiB is worth 2 to 4 % of an upload; without it, it works too.
    let _ = memory.advise(Advice::HugePage);
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Whether it can be had at once.
    async fn at_once<T>(wait: impl Future<Output = T>) -> Option<T> {
        let mut wait = pin!(wait);
        std::future::poll_fn(|context| match wait.as_mut().poll(context) {
            std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn a_share_has_its_window_and_all_have_the_budget() {
        let budget = Budget::new(16 << 20);
        let (one, two) = (budget.share(8 << 20), budget.share(12 << 20));
        let first = one.buffer(8 * MIB).await;
        assert!(at_once(one.place(1)).await.is_none(), "its window is full");
        let _second = two.place(8 * MIB).await;
        assert!(at_once(two.place(4 * MIB)).await.is_none(), "the budget is full");
        drop(first);
        assert!(at_once(two.place(4 * MIB)).await.is_some());
        assert!(at_once(one.place(8 * MIB)).await.is_some());
    }

    #[tokio::test]
    async fn one_who_has_nothing_gets_a_place_in_the_end() {
        let budget = Budget::new(8 << 20);
        let (slow, other) = (budget.share(64 << 20), budget.share(64 << 20));
        let _kept = slow.place(8 * MIB).await;
        let beyond = other.place(8 * MIB).await;
        let more = tokio::time::timeout(10 * PATIENCE, other.place(8 * MIB)).await;
        assert!(more.is_err(), "but only one");
        drop(beyond);
        other.place(8 * MIB).await;
    }

    #[tokio::test]
    async fn a_chunk_larger_than_the_budget_is_not_waited_for_in_vain() {
        let budget = Budget::new(0);
        assert_eq!(budget.share(64 << 20).buffer(32 * MIB).await.bytes().len(), 32 * MIB);
    }

    #[tokio::test]
    async fn buffers_are_used_again_and_spare_ones_are_within_the_budget() {
        let budget = Budget::new(16 << 20);
        let share = budget.share(16 << 20);
        let mut buffer = share.buffer(8 * MIB).await;
        buffer.bytes_mut()[0] = 7;
        drop(buffer);
        assert_eq!(share.buffer(8 * MIB).await.bytes()[0], 7, "the same");
        let place = share.place(12 * MIB).await;
        assert_eq!(budget.spare().len(), 0, "12 in use and 8 spare would be more than 16");
        drop(place);
        drop(share.buffer(8 * MIB).await);
        assert_eq!(budget.spare().len(), 1);
        let mut gone = share.buffer(8 * MIB).await;
        gone.let_go();
        let place = at_once(share.place(16 * MIB)).await;
        assert!(place.is_some(), "what was let go does not count");
        drop(gone);
        assert_eq!(budget.spare().len(), 0, "and is not kept where there is no room for it");
        drop(place);
        drop(share.buffer(8 * MIB).await);
        assert_eq!(budget.spare().len(), 1);
        drop(share);
        assert_eq!(budget.spare().len(), 0, "nobody is left to use it");
    }
}
