//! Doing what a plan says, one step at a time, and taking it back.
//!
//! ```text
//! plan ─→ run: look (examine) ─→ decide (pure) ─→ journal ─→ act, by id ─→ look again ─→ journal
//!                                                            undo ←─────────────────────────┘
//! ```
//!
//! What holds at every moment: nothing is done that was not planned, looked at a moment before, and written down; an image
//! that is moved to the trash is looked at once more there, and put back if anybody needs it; only `purge` takes data away,
//! and only what has been in the trash since before the plan.

mod act;
mod by_id;
mod decide;
mod lock;
mod resume;
mod run;
mod trash;
mod undo;

use jiff::Timestamp;
use serde::Serialize;

pub use self::{
    decide::{Verdict, after, before, policy_of},
    lock::LockError,
    run::{Run, apply, purge, rehearse},
    trash::{TrashedImage, restore_trashed, trash_list},
    undo::{Undoing, Undone, UndoneStep, UndoneSummary, undo},
};
use crate::{
    finding::Kind,
    inventory::GatherError,
    journal::JournalError,
    plan::{Action, PlanError, PlanPool, Refusal, Step},
};

/// Why nothing was done, or nothing more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The plan is not one for here and now.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan was refused when it was made, or would be by now.
    #[error("refused: {}", reasons(.0))]
    Refused(Vec<Refusal>),
    /// A pool of the plan is not among the sources, or was made anew since.
    #[error("the plan is for the pool {} (id {}), which is not among the pools given{}", path(.planned), .planned.id,
            .here.map(|id| format!(": that name has the id {id} here")).unwrap_or_default())]
    OtherPool {
        /// The plan's.
        planned: PlanPool,
        /// The id that the name has now.
        here: Option<i64>,
    },
    /// The databases are not the ones that were asked for the plan.
    #[error("the plan was made with the databases {}, but these are {}", .planned.join(", "), .here.join(", "))]
    OtherDatabases {
        /// The plan's.
        planned: Vec<String>,
        /// Those given.
        here: Vec<String>,
    },
    /// Somebody else is at it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Pools or databases cannot be read.
    #[error(transparent)]
    Gather(#[from] GatherError),
    /// What is done can no longer be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

fn reasons(refused: &[Refusal]) -> String {
    let reasons: Vec<String> = refused.iter().map(|refusal| format!("{}: {}", refusal.what, refusal.why)).collect();
    reasons.join("; ")
}

fn path(pool: &PlanPool) -> String {
    if pool.namespace.is_empty() { pool.name.clone() } else { format!("{}/{}", pool.name, pool.namespace) }
}

/// What became of a plan. As JSON this is what `apply --format json` prints; fields are only ever added to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Applied {
    /// The version of the schema: 1.
    pub schema: u32,
    /// The digest of the plan.
    pub plan: String,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// Why it ended before its last step, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// The steps in numbers.
    pub summary: AppliedSummary,
    /// What became of each step that was come to.
    pub steps: Vec<AppliedStep>,
}

/// What became of a plan's steps, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AppliedSummary {
    /// Steps of the plan.
    pub steps: u64,
    /// Done, or what would be.
    pub done: u64,
    /// Left alone.
    pub skipped: u64,
    /// Tried in vain.
    pub failed: u64,
    /// Not come to.
    pub left: u64,
    /// Bytes that were won, or will be when the trash is purged.
    pub bytes: u64,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AppliedStep {
    /// Its number.
    pub n: u64,
    /// What it does.
    pub action: Action,
    /// The kind of the finding it rests on.
    pub kind: Kind,
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
    pub result: Outcome,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Bytes that it won, or will.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// What to type, where it is for people to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
}

/// What became of a step, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It would be done.
    Would,
    /// It was done.
    Done,
    /// It was done when this plan was applied before.
    DoneBefore,
    /// It was left alone.
    Skipped,
    /// It was tried in vain.
    Failed,
}

/// What an action came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Acted {
    /// Done; for the trash, since when it is there.
    Done { trashed_at: Option<Timestamp> },
    /// Nothing was changed, or all was put back.
    Skipped { why: String },
    /// Changed in part, perhaps.
    Failed { why: String, fatal: bool },
}

impl Acted {
    const DONE: Self = Self::Done { trashed_at: None };

    fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped { why: why.into() }
    }

    /// A cluster that does not answer, or does not want this client any more, ends the run: what comes next would only fail
    /// the same way.
    fn failed(error: &rbd::Error) -> Self {
        let fatal = matches!(error.kind, rbd::ErrorKind::TimedOut | rbd::ErrorKind::Blocklisted);
        Self::Failed { why: error.to_string(), fatal }
    }
}

impl AppliedStep {
    fn new(step: &Step, result: Outcome, why: Option<String>) -> Self {
        let done = matches!(result, Outcome::Would | Outcome::Done | Outcome::DoneBefore);
        Self {
            n: step.n,
            action: step.action,
            kind: step.kind,
            pool: step.pool.clone(),
            namespace: step.namespace.clone(),
            image: step.image.clone(),
            image_id: step.image_id.clone(),
            result,
            why,
            bytes: step.bytes.filter(|_| done),
            commands: if done { step.commands.clone() } else { Vec::new() },
        }
    }
}

impl AppliedSummary {
    fn of(total: usize, steps: &[AppliedStep]) -> Self {
        let mut summary = Self { steps: total as u64, left: (total - steps.len()) as u64, ..Self::default() };
        for step in steps {
            match step.result {
                Outcome::Would | Outcome::Done | Outcome::DoneBefore => summary.done += 1,
                Outcome::Skipped => summary.skipped += 1,
                Outcome::Failed => summary.failed += 1,
            }
            summary.bytes += step.bytes.unwrap_or(0);
        }
        summary
    }
}
