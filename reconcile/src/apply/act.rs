//! The actions themselves: what is written to the pool. Whether to act was decided before.

use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use rbd::{OpenOptions, Pool, Snapshot, SnapshotNamespace, TrashEntry, TrashSource, TrashState};
use store::{Location, SNAPSHOT};

use super::{
    Acted,
    by_id::{self, MoveError, Whereabouts},
    decide::{self, Verdict},
};
use crate::{
    inventory::{Sources, examine},
    journal::{Event, Record},
    plan::{Action, PlanPolicy, Step},
};

/// What every action needs to know.
pub(super) struct Scene<'a> {
    pub(super) sources: &'a Sources,
    pub(super) policy: &'a PlanPolicy,
    pub(super) pool: &'a Pool,
}

impl Scene<'_> {
    /// Does what the step says.
    pub(super) async fn act(&self, step: &Step) -> Acted {
        let (pool, id) = (self.pool, step.image_id.as_str());
        let acted = match step.action {
            Action::Trash => return self.trash(step).await,
            Action::Purge => purge(pool, id, step.image.as_str()).await,
            Action::Restore => by_id::restore(pool, id, &step.image).await.map(|()| Acted::DONE),
            Action::Snapshot => protected_snapshot(pool, id, snapshot_of(step), true).await.map(|()| Acted::DONE),
            Action::Protect => protected_snapshot(pool, id, snapshot_of(step), false).await.map(|()| Acted::DONE),
            // It is for people to do.
            Action::Adopt => return Acted::DONE,
        };
        acted.unwrap_or_else(|error| Acted::failed(&error))
    }

    async fn trash(&self, step: &Step) -> Acted {
        match by_id::to_trash(self.pool, &step.image, &step.image_id, self.policy.defer).await {
            Ok(entry) => self.look_again(step, &entry).await,
            Err(MoveError::Renamed) => Acted::skipped("its name became another image's while it was being moved"),
            Err(MoveError::Ceph(error)) if error.is_not_found() => Acted::skipped("it is not there any more"),
            Err(MoveError::Ceph(error)) => Acted::failed(&error),
        }
    }

    /// Looks at what is in the trash now, and puts it back if anybody needs it: Ceph refuses neither a writer's image nor one
    /// with clones, and a row may have come since it was looked at.
    pub(super) async fn look_again(&self, step: &Step, entry: &TrashEntry) -> Acted {
        let why = match by_id::users(self.pool, &step.image_id).await {
            Ok(None) => self.owner(step).await,
            Ok(why) => why,
            Err(error) => Some(format!("it could not be looked at again: {error}")),
        };
        let Some(why) = why else { return Acted::Done { trashed_at: Some(by_id::trashed_at(entry)) } };
        match by_id::restore(self.pool, &step.image_id, &step.image).await {
            Ok(()) => Acted::Skipped { why: format!("{why}; it was put back") },
            Err(error) => Acted::Failed {
                why: format!("{why}, and it could not be put back from the trash: {error}"),
                fatal: matches!(error.kind, rbd::ErrorKind::TimedOut | rbd::ErrorKind::Blocklisted),
            },
        }
    }

    /// Who has come to own it in a database.
    async fn owner(&self, step: &Step) -> Option<String> {
        let image = (step.image.clone(), step.image_id.clone());
        match examine(self.sources, self.pool, &[image]).await {
            Ok((facts, problems)) => match decide::after(step, &facts, &problems, Timestamp::now(), self.policy) {
                Verdict::Go => None,
                Verdict::Skip(why) => Some(why),
            },
            Err(error) => Some(format!("the databases could not be asked again: {error}")),
        }
    }
}

/// The snapshot that the step's location names.
fn snapshot_of(step: &Step) -> &str {
    let location = step.location.as_deref().unwrap_or_default();
    // The last part of a location of four; others mean Glance's own.
    match location.parse::<Location>() {
        Ok(Location::Full { .. }) => location.rsplit('/').next().unwrap_or(SNAPSHOT),
        _ => SNAPSHOT,
    }
}

/// Makes sure that a snapshot is protected, and, with `create`, that it is there.
pub(super) async fn protected_snapshot(pool: &Pool, id: &str, name: &str, create: bool) -> rbd::Result<()> {
    let image = pool.open_image_by_id(id, OpenOptions::default()).await?;
    let protected = async {
        let found = image.snapshots().await?.into_iter().find(|snapshot| snapshot.name == name);
        if found.is_none() && create {
            image.create_snapshot(name).await?;
        }
        if found.is_none_or(|snapshot| !snapshot.protected) {
            image.protect_snapshot(name).await?;
        }
        Ok(())
    };
    let protected = protected.await;
    let closed = image.close().await;
    protected.and(closed)
}

/// Removes an image from the trash for good, with Glance's own snapshot. Whatever speaks against it is found before anything
/// is changed.
async fn purge(pool: &Pool, id: &str, name: &str) -> rbd::Result<Acted> {
    let now = Whereabouts::of(pool, id).await?;
    let Some((entry, state)) = now.trash.as_ref().filter(|_| now.is_trashed()) else {
        return Ok(Acted::skipped("it is not in the trash, or in its place as well"));
    };
    if entry.name != name {
        return Ok(Acted::skipped(format!("its name was {} when it was trashed", entry.name)));
    }
    if !matches!(entry.source, TrashSource::User | TrashSource::UserParent) {
        return Ok(Acted::skipped("Ceph itself put it into the trash"));
    }
    if entry.deferred_until >= SystemTime::now() {
        return Ok(Acted::skipped("its deferment has not ended"));
    }
    match state {
        // Its removal has begun; what is left of it is of no use.
        TrashState::Removing => return remove(pool, id).await,
        TrashState::Normal => {}
        _ => return Ok(Acted::skipped("a move or a restore of it was cut off")),
    }
    if let Some(why) = by_id::users(pool, id).await? {
        return Ok(Acted::skipped(why));
    }
    let had_snapshot = match remove_snapshot(pool, id).await? {
        Ok(had) => had,
        Err(why) => return Ok(Acted::skipped(why)),
    };
    let removed = remove(pool, id).await;
    if let Err(error) = &removed
        && had_snapshot
        && pool.trash_state(id).await? == Some(TrashState::Normal)
    {
        tracing::debug!(%error, id, "its snapshot is taken again");
        protected_snapshot(pool, id, SNAPSHOT, true).await?;
    }
    removed
}

async fn remove(pool: &Pool, id: &str) -> rbd::Result<Acted> {
    match pool.trash_remove(id, false, rbd::silent()).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Acted::DONE),
    }
}

/// Takes Glance's snapshot away, and tells whether there was one; or why the image is left alone.
async fn remove_snapshot(pool: &Pool, id: &str) -> rbd::Result<Result<bool, String>> {
    let image = pool.open_image_by_id(id, OpenOptions::default()).await?;
    let removed = async {
        let snapshots = image.snapshots().await?;
        let is_glances = |found: &Snapshot| found.name == SNAPSHOT && found.namespace == SnapshotNamespace::User;
        if let Some(foreign) = snapshots.iter().find(|found| !is_glances(found)) {
            return Ok(Err(format!("it has a snapshot that is not Glance's, {:?}", foreign.name)));
        }
        let Some(snapshot) = snapshots.first() else { return Ok(Ok(false)) };
        if snapshot.protected {
            // The last word on clones of the first kind.
            match image.unprotect_snapshot(SNAPSHOT).await {
                Err(error) if error.kind == rbd::ErrorKind::Busy => return Ok(Err("it has clones".into())),
                result => result?,
            }
        }
        match image.remove_snapshot(SNAPSHOT).await {
            Err(error) if !error.is_not_found() => {
                if snapshot.protected {
                    image.protect_snapshot(SNAPSHOT).await?;
                }
                Err(error)
            }
            _ => Ok(Ok(true)),
        }
    };
    let removed = removed.await;
    let closed = image.close().await;
    let removed = removed?;
    closed.map(|()| removed)
}

/// No move lasts longer: whoever made it was dead or done by then, and what is in the trash since later is somebody else's.
const MOVE: SignedDuration = SignedDuration::from_mins(10);

/// Whether a trash entry is from the very move that a journal tells of: the one that it saw end, or, where it saw none end,
/// one that began when it says and keeps the image exactly as long as the plan does.
pub(super) fn is_ours(entry: &TrashEntry, record: &Record, defer: Duration) -> bool {
    let since = by_id::trashed_at(entry);
    match (&record.last, record.trashed_at) {
        // It was left, or put back, in its place.
        (Event::Skipped { .. } | Event::Undone, _) => false,
        (_, Some(then)) => then == since,
        (_, None) => {
            let kept = entry.deferred_until.duration_since(entry.deleted_at).unwrap_or_default();
            // librbd tells whole seconds.
            let began = since.as_second() >= record.begun.as_second();
            entry.source == TrashSource::User
                && kept.as_secs() == defer.as_secs()
                && began
                && since.duration_since(record.begun) < MOVE
        }
    }
}
