//! Steps that were begun before: where a crash has left them, and how they are ended.

use rbd::{OpenOptions, Pool, TrashState};

use super::{
    Acted,
    act::{Scene, is_ours, protected_snapshot},
    by_id::{self, Whereabouts},
};
use crate::{
    journal::Record,
    plan::{Action, Step},
};

impl Scene<'_> {
    /// Ends a step whose beginning is in the journal; `None` where it is to be looked at like any other.
    pub(super) async fn resume(&self, step: &Step, record: &Record) -> rbd::Result<Option<Acted>> {
        let (pool, id) = (self.pool, step.image_id.as_str());
        let now = Whereabouts::of(pool, id).await?;
        match step.action {
            Action::Trash => self.resume_trash(step, record, now).await,
            Action::Restore => Ok(match (now.name, now.trash) {
                (Some(_), None) => Some(Acted::DONE),
                (_, Some((_, TrashState::Restoring))) => {
                    by_id::restore(pool, id, &step.image).await?;
                    Some(Acted::DONE)
                }
                _ => None,
            }),
            Action::Snapshot => match snapshot(pool, id).await? {
                Some(false) => {
                    protected_snapshot(pool, id, store::SNAPSHOT, false).await?;
                    Ok(Some(Acted::DONE))
                }
                found => Ok(found.map(|_| Acted::DONE)),
            },
            Action::Protect => Ok(snapshot(pool, id).await?.filter(|protected| *protected).map(|_| Acted::DONE)),
            Action::Purge if now == (Whereabouts { name: None, trash: None }) => Ok(Some(Acted::DONE)),
            Action::Purge if now.trash.is_some_and(|(_, state)| state == TrashState::Removing) => {
                Ok(Some(self.act(step).await))
            }
            Action::Purge | Action::Adopt => Ok(None),
        }
    }

    async fn resume_trash(&self, step: &Step, record: &Record, now: Whereabouts) -> rbd::Result<Option<Acted>> {
        let Some((entry, state)) = now.trash else { return Ok(None) };
        if !is_ours(&entry, record, self.policy.defer) {
            // In its place as well: whoever is moving it there is not this plan, and the look at it tells.
            let since = by_id::trashed_at(&entry);
            let others = || Acted::skipped(format!("it is in the trash since {since}, and not by this plan"));
            return Ok(now.name.is_none().then(others));
        }
        if now.name.is_some() {
            // A move or a putting back that was cut off.
            by_id::restore(self.pool, &step.image_id, &step.image).await?;
            return Ok(None);
        }
        if matches!(state, TrashState::Moving | TrashState::Restoring) {
            self.pool.trash_set_state(&step.image_id, state, TrashState::Normal).await?;
        }
        Ok(Some(self.look_again(step, &entry).await))
    }
}

/// Whether Glance's snapshot is protected, if there is one.
async fn snapshot(pool: &Pool, id: &str) -> rbd::Result<Option<bool>> {
    let image = match pool.open_image_by_id(id, OpenOptions::read_only()).await {
        Ok(image) => image,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let snapshots = image.snapshots().await;
    image.close().await?;
    Ok(snapshots?.into_iter().find(|snapshot| snapshot.name == store::SNAPSHOT).map(|snapshot| snapshot.protected))
}
