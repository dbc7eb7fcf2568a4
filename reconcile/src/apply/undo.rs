//! Taking back what a plan moved to the trash, by what its journal says and the pool shows.

use jiff::Timestamp;
use rbd::{ErrorKind, Pool};
use serde::Serialize;

use super::{
    ApplyError,
    act::is_ours,
    by_id::{self, Whereabouts},
    lock::PoolLocks,
    run::check_pools,
};
use crate::{
    journal::{Event, Journal, Record},
    plan::{Action, PlanError},
};

/// What became of an undoing. As JSON this is what `undo --format json` prints; fields are only ever added to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undone {
    /// The version of the schema: 1.
    pub schema: u32,
    /// The digest of the plan that is undone.
    pub plan: String,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// Why it ended before its last step, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// The steps in numbers.
    pub summary: UndoneSummary,
    /// What became of each step, the last first.
    pub steps: Vec<UndoneStep>,
}

/// What became of the steps, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UndoneSummary {
    /// Put back, or what would be.
    pub restored: u64,
    /// In their place already.
    pub in_place: u64,
    /// What cannot be put back.
    pub lost: u64,
    /// Not come to.
    pub left: u64,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UndoneStep {
    /// Its number.
    pub n: u64,
    /// What it had done.
    pub action: Action,
    /// The pool.
    pub pool: String,
    /// The RBD namespace; left out for the default one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The RBD image's name.
    pub image: String,
    /// Its id.
    pub image_id: String,
    /// What became of it.
    pub result: Undoing,
    /// Why it was not put back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What became of a step, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undoing {
    /// It would be put back.
    Would,
    /// It was put back.
    Restored,
    /// It is in its place.
    InPlace,
    /// It cannot be put back.
    Lost,
}

/// What is to be done about a step.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Back,
    Nothing,
    No(String),
}

/// Puts back all that the plan of this journal moved to the trash and that is still there; with `dry`, says what it would.
///
/// # Errors
/// Before anything is changed: [`ApplyError::Plan`] for another cluster's journal, [`ApplyError::OtherPool`],
/// [`ApplyError::Lock`]. Later [`ApplyError::Journal`].
pub async fn undo(
    journal: &mut Journal,
    pools: &[Pool],
    dry: bool,
    stop: &(dyn Fn() -> bool + Send + Sync),
) -> Result<Undone, ApplyError> {
    let header = journal.header().clone();
    let fsid = pools.first().map_or("", |pool| pool.cluster().fsid());
    if header.fsid != fsid {
        return Err(PlanError::ForeignCluster { planned: header.fsid, here: fsid.to_owned() }.into());
    }
    check_pools(&header.pools, pools)?;
    let locks = if dry { PoolLocks::none() } else { PoolLocks::take(&header.pools, pools, &journal.token()).await? };
    let undone = all(journal, pools, dry, stop, &locks).await;
    locks.release().await;
    undone
}

async fn all(
    journal: &mut Journal,
    pools: &[Pool],
    dry: bool,
    stop: &(dyn Fn() -> bool + Send + Sync),
    locks: &PoolLocks,
) -> Result<Undone, ApplyError> {
    let header = journal.header().clone();
    let mut undone = Undone {
        schema: 1,
        plan: header.plan.clone(),
        dry_run: dry,
        stopped: None,
        summary: UndoneSummary::default(),
        steps: Vec::new(),
    };
    let records: Vec<(u64, Record)> = journal
        .records()
        .iter()
        .rev()
        .filter(|(_, record)| matches!(record.target.action, Action::Trash | Action::Purge))
        .map(|(n, record)| (*n, record.clone()))
        .collect();
    let total = records.len();
    for (n, record) in records {
        if stop() {
            undone.stopped = Some("interrupted".into());
            break;
        }
        if !locks.hold() {
            undone.stopped = Some("the lock of the pool was lost".into());
            break;
        }
        let target = &record.target;
        let pool = pools.iter().find(|pool| pool.name() == target.pool && pool.namespace() == target.namespace);
        let mut fatal = None;
        let (result, why) = match pool {
            None => (Undoing::Lost, Some("its pool was not given".to_owned())),
            Some(pool) => match way(pool, &record, &header).await {
                Ok(Way::Nothing) => (Undoing::InPlace, None),
                Ok(Way::No(why)) => (Undoing::Lost, Some(why)),
                Ok(Way::Back) if dry => (Undoing::Would, None),
                Ok(Way::Back) => {
                    journal.write(Timestamp::now(), n, Event::Undoing)?;
                    match by_id::restore(pool, &target.image_id, &target.image).await {
                        Ok(()) => {
                            journal.write(Timestamp::now(), n, Event::Undone)?;
                            (Undoing::Restored, None)
                        }
                        Err(error) => {
                            fatal = is_fatal(&error).then(|| error.to_string());
                            (Undoing::Lost, Some(not_restored(&error, pool, &target.image_id)))
                        }
                    }
                }
                Err(error) => {
                    fatal = is_fatal(&error).then(|| error.to_string());
                    (Undoing::Lost, Some(error.to_string()))
                }
            },
        };
        match result {
            Undoing::Would | Undoing::Restored => undone.summary.restored += 1,
            Undoing::InPlace => undone.summary.in_place += 1,
            Undoing::Lost => undone.summary.lost += 1,
        }
        undone.steps.push(UndoneStep {
            n,
            action: target.action,
            pool: target.pool.clone(),
            namespace: target.namespace.clone(),
            image: target.image.clone(),
            image_id: target.image_id.clone(),
            result,
            why,
        });
        if fatal.is_some() {
            undone.stopped = fatal;
            break;
        }
    }
    undone.summary.left = (total - undone.steps.len()) as u64;
    Ok(undone)
}

fn is_fatal(error: &rbd::Error) -> bool {
    matches!(error.kind, ErrorKind::TimedOut | ErrorKind::Blocklisted)
}

fn not_restored(error: &rbd::Error, pool: &Pool, id: &str) -> String {
    match error.kind {
        ErrorKind::AlreadyExists => {
            format!("its name is another image's now; choose one: rbd trash restore --image NAME {pool}/{id}")
        }
        _ => error.to_string(),
    }
}

/// Where the image is, and whether it was this plan that put it there.
async fn way(pool: &Pool, record: &Record, header: &crate::journal::Header) -> rbd::Result<Way> {
    let now = Whereabouts::of(pool, &record.target.image_id).await?;
    let Some((entry, _)) = now.trash else {
        return Ok(match now.name {
            Some(_) => Way::Nothing,
            None => Way::No("it is neither in its place nor in the trash: it was purged".into()),
        });
    };
    if record.target.action == Action::Purge {
        return Ok(Way::No("it was to be purged; it is still in the trash, where it was".into()));
    }
    let since = by_id::trashed_at(&entry);
    // Half a move is undone whoever began it: the image belongs in its place, where it is as well.
    if is_ours(&entry, record, header.defer) || now.name.is_some() {
        return Ok(Way::Back);
    }
    Ok(Way::No(format!("somebody else has put it into the trash since, at {since}")))
}
