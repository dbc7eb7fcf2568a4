//! Futures dropped in flight: the buffer belongs to the operation, so nothing is freed that librbd still uses, and nothing
//! stays behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rbd::{OpenOptions, ReadOp};

use crate::scratch::{MIB, image, in_scratch};

/// Counts the buffers that are alive.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How many futures to drop; fewer under valgrind, where each costs fifty times as much.
fn drops() -> usize {
    std::env::var("RBD_TEST_DROPS").map_or(10_000, |drops| drops.parse().unwrap())
}

#[test]
fn ten_thousand_futures_dropped_in_flight() {
    in_scratch(async |pool| {
        let image = image(&pool, "a", 64 * MIB).await;
        let alive = Arc::new(AtomicUsize::new(0));
        let mut futures: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
        for n in 0..drops() {
            let offset = (n as u64 * 7919 * 512) % (63 * MIB);
            match n % 4 {
                0 | 1 => {
                    alive.fetch_add(1, Ordering::SeqCst);
                    let data = Bytes::from_owner(Counted(vec![n as u8; 1 + n % 8192], alive.clone()));
                    let write = image.write(offset, data);
                    futures.push(Box::pin(async move { write.await.unwrap() }));
                }
                2 => {
                    let read = image.read(offset, 1 + n % 8192);
                    futures.push(Box::pin(async move { drop(read.await.unwrap()) }));
                }
                _ => {
                    let read = pool.read_object("rbd_directory", &ReadOp::new().omap("", "", 10).stat());
                    futures.push(Box::pin(async move { drop(read.await.unwrap()) }));
                }
            }
            // Dropped unpolled, polled once and pending, or awaited: all three mixed.
            if futures.len() == 64 {
                for (k, mut future) in futures.drain(..).enumerate() {
                    match k % 3 {
                        0 => drop(future),
                        1 => drop(tokio::time::timeout(Duration::ZERO, &mut future).await),
                        _ => future.await,
                    }
                }
            }
        }
        drop(futures);
        // Closing waits for everything in flight; after it every buffer has come back.
        image.close().await.unwrap();
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    });
}

/// The last handle of an image may be dropped inside librbd's own callback, where closing it would deadlock.
#[test]
fn an_image_dropped_with_operations_in_flight_closes() {
    in_scratch(async |pool| {
        image(&pool, "a", 64 * MIB).await.close().await.unwrap();
        for round in 0..drops().div_ceil(500) {
            let image = pool.open_image("a", OpenOptions::default()).await.unwrap();
            for n in 0..8 {
                drop(image.write(n * MIB, vec![round as u8; MIB as usize].into()));
            }
            drop(image);
        }
        rbd::settled().await;
        let reader = pool.open_image("a", OpenOptions::read_only()).await.unwrap();
        assert_eq!(reader.watchers().await.unwrap(), [], "every writer is gone");
    });
}

/// A write that is done, but whose future nobody has asked yet, must not keep the image open.
#[test]
fn closing_does_not_wait_for_futures_that_nobody_asks() {
    in_scratch(async |pool| {
        let image = image(&pool, "a", MIB).await;
        let kept = image.write(0, vec![1; 4096].into());
        tokio::time::timeout(Duration::from_secs(20), image.close()).await.expect("it closes").unwrap();
        kept.await.unwrap();
    });
}

/// An open, or a connection, that nobody waits for any more is closed when it is there.
#[test]
fn opens_and_connections_dropped_half_way_leave_nothing() {
    in_scratch(async |pool| {
        image(&pool, "a", MIB).await.close().await.unwrap();
        for n in 0..drops().div_ceil(200) {
            let open = pool.open_image("a", OpenOptions::default());
            drop(tokio::time::timeout(Duration::from_micros(n as u64 * 100), open).await);
        }
        for n in 0..drops().div_ceil(2000) {
            let connect = rbd::Cluster::connect(crate::scratch::options());
            drop(tokio::time::timeout(Duration::from_millis(n as u64 * 3), connect).await);
        }
        // Whatever was still being opened is waited for, and for its closing.
        rbd::settled().await;
        let reader = pool.open_image("a", OpenOptions::read_only()).await.unwrap();
        assert_eq!(reader.watchers().await.unwrap(), []);
    });
}
