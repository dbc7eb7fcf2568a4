//! Locks: the exclusive lock that a writer of an image holds, and named locks on any RADOS object.

use std::{ffi::c_char, ptr, time::Duration};

use crate::{
    errno::{ERANGE, ErrorKind, Result, check},
    image::Image,
    pool::Pool,
    strings::{c_string, c_strings, owned, text},
};

impl Image {
    /// Whether this handle holds the image's exclusive lock.
    ///
    /// Implements: `rbd_is_exclusive_lock_owner`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn holds_lock(&self) -> Result<bool> {
        self.run("read the lock of", |image, path| {
            let mut owner = 0;
            // SAFETY: an open image and an out pointer.
            check("read the lock of", path, unsafe { rbd_sys::rbd_is_exclusive_lock_owner(image, &raw mut owner) })?;
            Ok(owner != 0)
        })
        .await
    }

    /// Takes the exclusive lock and keeps it: other clients are refused rather than given it on request.
    ///
    /// Implements: `rbd_lock_acquire`.
    ///
    /// # Errors
    /// `Busy` or `ReadOnly` while another client keeps it; `InvalidArgument` without the `exclusive-lock` feature.
    pub async fn acquire_lock(&self) -> Result<()> {
        // SAFETY: an open image.
        self.call("lock", |image| unsafe { rbd_sys::rbd_lock_acquire(image, rbd_sys::RBD_LOCK_MODE_EXCLUSIVE) }).await
    }

    /// Makes sure that nothing stands between a write and the OSDs: that what is known of the header is the newest, and that this
    /// handle holds the exclusive lock, if the image has one.
    ///
    /// librbd does both by itself before a write. But where it cannot, for the cluster does not answer or the client was
    /// blocklisted, librbd 16 never completes a zero-copy write, and the image can never be closed. So call this before the
    /// first write, after the header was changed (a resize, metadata), and when the cluster has not been heard of for a while.
    ///
    /// Implements: `rbd_stat`, `rbd_is_exclusive_lock_owner`, `rbd_lock_acquire`.
    ///
    /// # Errors
    /// `Blocklisted`, `TimedOut`; as [`acquire_lock`](Self::acquire_lock).
    pub async fn prepare_to_write(&self) -> Result<()> {
        self.stat().await?;
        if self.holds_lock().await? {
            return Ok(());
        }
        match self.acquire_lock().await {
            Err(error) if error.kind == ErrorKind::InvalidArgument => Ok(()),
            acquired => acquired,
        }
    }

    /// Gives the exclusive lock back.
    ///
    /// Implements: `rbd_lock_release`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn release_lock(&self) -> Result<()> {
        // SAFETY: an open image.
        self.call("unlock", |image| unsafe { rbd_sys::rbd_lock_release(image) }).await
    }

    /// Who holds the exclusive lock, as [`break_lock`](Self::break_lock) takes it; alive or dead.
    ///
    /// Implements: `rbd_lock_get_owners`.
    ///
    /// # Errors
    /// As librbd reports them.
    pub async fn lock_owner(&self) -> Result<Option<String>> {
        self.run("read the lock owner of", |image, path| {
            let (mut mode, mut count) = (0, 8);
            let mut owners: [*mut c_char; 8] = [ptr::null_mut(); 8];
            // SAFETY: an open image, and room for `count` pointers. There is at most one owner.
            let code =
                unsafe { rbd_sys::rbd_lock_get_owners(image, &raw mut mode, owners.as_mut_ptr(), &raw mut count) };
            match check("read the lock owner of", path, code) {
                Ok(_) => {}
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
            // SAFETY: librbd filled `count` strings, which are freed right after the first is copied.
            Ok(unsafe {
                let owner = owners[..count.min(8)].first().map(|&owner| owned(owner));
                rbd_sys::rbd_lock_get_owners_cleanup(owners.as_mut_ptr(), count);
                owner
            })
        })
        .await
    }

    /// Takes the exclusive lock away from a dead client, which is blocklisted first unless the configuration says otherwise
    /// (`rbd_blocklist_on_break_lock`).
    ///
    /// Implements: `rbd_lock_break`.
    ///
    /// # Errors
    /// `NotFound` where that owner no longer holds it; `Busy` where it has changed hands.
    pub async fn break_lock(&self, owner: &str) -> Result<()> {
        let owner = c_string("break the lock of", owner)?;
        self.call("break the lock of", move |image| {
            // SAFETY: an open image and a C string.
            unsafe { rbd_sys::rbd_lock_break(image, rbd_sys::RBD_LOCK_MODE_EXCLUSIVE, owner.as_ptr()) }
        })
        .await
    }
}

/// A holder of a named lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locker {
    /// The client: `client.4242`.
    pub client: String,
    /// What the client called this lock.
    pub cookie: String,
    /// Its address.
    pub address: String,
}

impl Pool {
    /// Takes a named lock on a RADOS object, creating the object if need be. It lapses after `duration`; taking it again
    /// with the same cookie renews it.
    ///
    /// Implements: `rados_lock_exclusive`.
    ///
    /// # Errors
    /// `Busy` while another holds it.
    pub async fn lock_object(
        &self,
        object: &str,
        name: &str,
        cookie: &str,
        description: &str,
        duration: Duration,
    ) -> Result<()> {
        self.lock_with(object, name, cookie, description, duration, rbd_sys::LIBRADOS_LOCK_FLAG_MAY_RENEW).await
    }

    /// Prolongs a named lock that is still held: `duration` from now.
    ///
    /// Implements: `rados_lock_exclusive`.
    ///
    /// # Errors
    /// `NotFound` where it has lapsed, was broken, or is another client's.
    pub async fn renew_lock(
        &self,
        object: &str,
        name: &str,
        cookie: &str,
        description: &str,
        duration: Duration,
    ) -> Result<()> {
        self.lock_with(object, name, cookie, description, duration, rbd_sys::LIBRADOS_LOCK_FLAG_MUST_RENEW).await
    }

    async fn lock_with(
        &self,
        object: &str,
        name: &str,
        cookie: &str,
        description: &str,
        duration: Duration,
        flag: u32,
    ) -> Result<()> {
        let [c_object, c_name, c_cookie, c_description] =
            c_strings("lock object", [object, name, cookie, description])?;
        self.call("lock object", object, move |io| {
            let mut duration = rbd_sys::timeval {
                tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
                tv_usec: duration.subsec_micros().into(),
            };
            // SAFETY: a live handle, C strings, and a `timeval` that librados reads.
            unsafe {
                rbd_sys::rados_lock_exclusive(
                    io,
                    c_object.as_ptr(),
                    c_name.as_ptr(),
                    c_cookie.as_ptr(),
                    c_description.as_ptr(),
                    &raw mut duration,
                    flag as u8,
                )
            }
        })
        .await
    }

    /// Takes a named lock away from its holder, who is not told: only for one that is known to be dead.
    ///
    /// Implements: `rados_break_lock`.
    ///
    /// # Errors
    /// `NotFound` where that holder no longer has it.
    pub async fn break_object_lock(&self, object: &str, name: &str, holder: &Locker) -> Result<()> {
        let [c_object, c_name, c_client, c_cookie] =
            c_strings("break the lock of object", [object, name, &holder.client, &holder.cookie])?;
        self.call("break the lock of object", object, move |io| {
            // SAFETY: a live handle and C strings.
            unsafe {
                rbd_sys::rados_break_lock(io, c_object.as_ptr(), c_name.as_ptr(), c_client.as_ptr(), c_cookie.as_ptr())
            }
        })
        .await
    }

    /// Gives a named lock back.
    ///
    /// Implements: `rados_unlock`.
    ///
    /// # Errors
    /// `NotFound` where it is not held under this cookie.
    pub async fn unlock_object(&self, object: &str, name: &str, cookie: &str) -> Result<()> {
        let [c_object, c_name, c_cookie] = c_strings("unlock object", [object, name, cookie])?;
        self.call("unlock object", object, move |io| {
            // SAFETY: a live handle and C strings.
            unsafe { rbd_sys::rados_unlock(io, c_object.as_ptr(), c_name.as_ptr(), c_cookie.as_ptr()) }
        })
        .await
    }

    /// Who holds a named lock.
    ///
    /// Implements: `rados_list_lockers`.
    ///
    /// # Errors
    /// `NotFound` without the object.
    pub async fn object_lockers(&self, object: &str, name: &str) -> Result<Vec<Locker>> {
        let [c_object, c_name] = c_strings("list lockers of", [object, name])?;
        let path = self.path(object);
        let pool = self.clone();
        self.cluster()
            .blocking("list lockers of", path.clone(), move || {
                let mut size = 4096;
                loop {
                    let mut buffers: [Vec<c_char>; 4] = std::array::from_fn(|_| vec![0; size]);
                    let mut lengths = [size; 4];
                    let mut exclusive = 0;
                    let [tag, clients, cookies, addresses] = &mut buffers;
                    let [tag_len, clients_len, cookies_len, addresses_len] = &mut lengths;
                    // SAFETY: a live handle, C strings, and four buffers with their lengths, which librados sets.
                    let code = unsafe {
                        rbd_sys::rados_list_lockers(
                            pool.raw(),
                            c_object.as_ptr(),
                            c_name.as_ptr(),
                            &raw mut exclusive,
                            tag.as_mut_ptr(),
                            tag_len,
                            clients.as_mut_ptr(),
                            clients_len,
                            cookies.as_mut_ptr(),
                            cookies_len,
                            addresses.as_mut_ptr(),
                            addresses_len,
                        )
                    };
                    if code == -(ERANGE as isize) {
                        size *= 4;
                        continue;
                    }
                    let count = usize::try_from(check("list lockers of", path.as_str(), code as i64)?).unwrap_or(0);
                    let column = |buffer: &[c_char]| -> Vec<String> {
                        buffer.split(|&byte| byte == 0).take(count).map(text).collect()
                    };
                    let (clients, cookies, addresses) = (column(clients), column(cookies), column(addresses));
                    return Ok(clients
                        .into_iter()
                        .zip(cookies)
                        .zip(addresses)
                        .map(|((client, cookie), address)| Locker { client, cookie, address })
                        .collect());
                }
            })
            .await
    }
}
