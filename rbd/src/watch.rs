//! Who has an image open for writing, and whether they are still there.

use std::{collections::BTreeSet, ptr, time::Duration};

use crate::{
    errno::{ERANGE, ETIMEDOUT, Result, check},
    image::Image,
    strings::{c_string, owned},
};

/// A client that has the image open for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watcher {
    /// Its address, as the blocklist takes it.
    pub address: String,
    /// The client's number (`client.ID`).
    pub id: i64,
    /// Tells several watches of one client apart.
    pub cookie: u64,
}

impl Image {
    /// The clients that have the image open for writing; this handle's own among them unless it is read-only.
    ///
    /// Implements: `rbd_watchers_list`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn watchers(&self) -> Result<Vec<Watcher>> {
        self.run("list the watchers of", |image, path| {
            let mut count = 16;
            loop {
                let mut list: Vec<rbd_sys::rbd_image_watcher_t> = Vec::with_capacity(count);
                // SAFETY: room for `count` entries, and librbd writes how many it filled or would have.
                let code = unsafe { rbd_sys::rbd_watchers_list(image, list.as_mut_ptr(), &raw mut count) };
                if code == -ERANGE {
                    continue;
                }
                check("list the watchers of", path, code)?;
                // SAFETY: librbd filled `count` entries, whose strings are freed right after they are copied.
                return Ok(unsafe {
                    list.set_len(count);
                    let watchers =
                        list.iter().map(|w| Watcher { address: owned(w.addr), id: w.id, cookie: w.cookie }).collect();
                    rbd_sys::rbd_watchers_list_cleanup(list.as_mut_ptr(), count);
                    watchers
                });
            }
        })
        .await
    }

    /// Tells the clients that have the image open for writing to look at its header again, and waits at most `limit` for their
    /// answers. Returns the numbers of those that answered: they are alive. One that did not may be dead, or stopped, or cut off.
    ///
    /// Implements: `rados_notify2`, `rados_decode_notify_response`.
    ///
    /// # Errors
    /// `NotFound` where the image has gone; `PermissionDenied`.
    pub async fn answering_watchers(&self, limit: Duration) -> Result<BTreeSet<u64>> {
        const WHAT: &str = "notify the watchers of";
        let header = c_string(WHAT, &format!("rbd_header.{}", self.id().await?))?;
        let pool = self.pool().clone();
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.run(WHAT, move |_, path| {
            let (mut reply, mut length) = (ptr::null_mut(), 0);
            // SAFETY: a live handle, a C string, no payload (librbd takes that for a changed header), two out pointers.
            let code = unsafe {
                let (reply, length) = (&raw mut reply, &raw mut length);
                rbd_sys::rados_notify2(pool.raw(), header.as_ptr(), ptr::null(), 0, limit, reply, length)
            };
            // That somebody did not answer is an answer.
            if code != -ETIMEDOUT {
                check(WHAT, path, code)?;
            }
            let (mut acks, mut acked, mut timeouts, mut timed_out) = (ptr::null_mut(), 0, ptr::null_mut(), 0);
            // SAFETY: what librados returned, and four out pointers; all is freed again after it was copied.
            unsafe {
                let code = rbd_sys::rados_decode_notify_response(
                    reply,
                    length,
                    &raw mut acks,
                    &raw mut acked,
                    &raw mut timeouts,
                    &raw mut timed_out,
                );
                rbd_sys::rados_buffer_free(reply);
                check(WHAT, path, code)?;
                let answered = (0..acked).map(|number| (*acks.add(number)).notifier_id).collect();
                rbd_sys::rados_free_notify_response(acks, acked, timeouts);
                Ok(answered)
            }
        })
        .await
    }
}
