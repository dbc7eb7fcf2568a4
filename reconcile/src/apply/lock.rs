//! One at a time: whoever changes a pool holds a lock in it, which lapses by itself when its holder dies.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use rbd::{ErrorKind, Locker, Pool};
use tokio::{sync::watch, task::AbortHandle};

use super::run::find;
use crate::plan::PlanPool;

/// The object that carries the lock: every pool that ever held an image has it, so that a full pool can be locked too.
const OBJECT: &str = "rbd_directory";
/// The lock's name.
const NAME: &str = "glance-rbd";
/// How long it lasts after its holder has died.
pub(super) const LASTS: Duration = Duration::from_secs(60);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(15);
/// It is not relied upon any more when it would soon lapse.
const MARGIN: Duration = Duration::from_secs(15);

/// Why a pool cannot be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else changes it.
    #[error(
        "{pool} is being changed by {holder}; were that one dead, its lock would lapse within {} s",
        LASTS.as_secs()
    )]
    Held {
        /// The pool.
        pool: String,
        /// Who, where and as which client.
        holder: String,
    },
    /// The cluster refused.
    #[error(transparent)]
    Ceph(#[from] rbd::Error),
}

/// The lock of a pool; given back by [`release`](Self::release), or by lapsing.
#[derive(Debug)]
pub(super) struct PoolLock {
    pool: Pool,
    cookie: Arc<str>,
    /// Until when it certainly holds.
    until: watch::Receiver<Instant>,
    renewer: AbortHandle,
}

impl Drop for PoolLock {
    fn drop(&mut self) {
        self.renewer.abort();
    }
}

/// The locks of all pools that a run changes.
#[derive(Debug)]
pub(super) struct PoolLocks(Vec<PoolLock>);

impl PoolLocks {
    /// For a run that changes nothing.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Takes all or none, in an order that two runs share.
    pub(super) async fn take(planned: &[PlanPool], pools: &[Pool], token: &str) -> Result<Self, LockError> {
        let mut locks = Self::none();
        for planned in planned.iter().collect::<BTreeSet<_>>() {
            let Some(pool) = find(pools, planned) else { continue };
            match PoolLock::take(pool, token).await {
                Ok(lock) => locks.0.push(lock),
                Err(error) => {
                    locks.release().await;
                    return Err(error);
                }
            }
        }
        Ok(locks)
    }

    /// Whether all certainly hold, and for some seconds more.
    pub(super) fn hold(&self) -> bool {
        self.0.iter().all(PoolLock::holds)
    }

    /// Gives all back.
    pub(super) async fn release(self) {
        for lock in self.0 {
            lock.release().await;
        }
    }
}

impl PoolLock {
    /// Takes the lock.
    ///
    /// `token` names what only one process can hold on this machine (the journal, which is locked as a file): a holder with
    /// the same token is this one's dead predecessor, and is not waited for.
    pub(super) async fn take(pool: &Pool, token: &str) -> Result<Self, LockError> {
        let cookie: Arc<str> = format!("{} pid {} [{token}]", host(), std::process::id()).into();
        let mut asked = Instant::now();
        if let Err(error) = lock(pool, &cookie).await {
            if error.kind != ErrorKind::Busy {
                return Err(error.into());
            }
            let holders = pool.object_lockers(OBJECT, NAME).await?;
            if let Some(living) = holders.iter().find(|holder| !holder.cookie.ends_with(&format!(" [{token}]"))) {
                return Err(LockError::Held { pool: pool.to_string(), holder: name_of(living) });
            }
            for dead in &holders {
                match pool.break_object_lock(OBJECT, NAME, dead).await {
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                }
            }
            asked = Instant::now();
            lock(pool, &cookie).await.map_err(|error| match error.kind {
                ErrorKind::Busy => LockError::Held { pool: pool.to_string(), holder: "another program".into() },
                _ => error.into(),
            })?;
        }
        let (sender, until) = watch::channel(asked + LASTS);
        let renewer = tokio::spawn(renew(pool.clone(), cookie.clone(), sender)).abort_handle();
        Ok(Self { pool: pool.clone(), cookie, until, renewer })
    }

    fn holds(&self) -> bool {
        Instant::now() + MARGIN < *self.until.borrow()
    }

    /// Gives it back.
    pub(super) async fn release(self) {
        self.renewer.abort();
        if let Err(error) = self.pool.unlock_object(OBJECT, NAME, &self.cookie).await {
            tracing::warn!(%error, pool = %self.pool, "the lock was not given back, and lapses by itself");
        }
    }
}

async fn lock(pool: &Pool, cookie: &str) -> rbd::Result<()> {
    pool.lock_object(OBJECT, NAME, cookie, "glance-rbd changes images", LASTS).await
}

/// Renews until it is told that the lock is lost; errors that may pass are tried again.
async fn renew(pool: Pool, cookie: Arc<str>, until: watch::Sender<Instant>) {
    loop {
        tokio::time::sleep(RENEW).await;
        let asked = Instant::now();
        match pool.renew_lock(OBJECT, NAME, &cookie, "glance-rbd changes images", LASTS).await {
            Ok(()) => {
                until.send_replace(asked + LASTS);
            }
            Err(error) if error.is_not_found() => {
                until.send_replace(asked);
                return;
            }
            Err(error) => tracing::warn!(%error, pool = %pool, "the lock could not be renewed"),
        }
    }
}

/// A holder, for people: not its token.
fn name_of(holder: &Locker) -> String {
    let who = holder.cookie.split(" [").next().unwrap_or_default();
    format!("{who} ({} at {})", holder.client, holder.address)
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
