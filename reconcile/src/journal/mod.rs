//! The journal of a plan: what was about to be done, and what came of it.
//!
//! One JSON object a line, only ever appended to. The first names the plan. Each step has a line before anything is done
//! (`intent`) and one after (`done`, `skipped`, `failed`), and both are on the disk before the program goes on: wherever it is
//! cut off, the journal says which images it may have touched, and the pool says how far it came with the last of them.

mod file;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::file::{Faults, Journal, JournalError};
use crate::plan::{Action, Plan, PlanPool, Step};

/// What a journal belongs to: its first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format: 1.
    pub journal: u32,
    /// The digest of the plan.
    pub plan: String,
    /// The cluster.
    pub fsid: String,
    /// The pools that the plan is for.
    pub pools: Vec<PlanPool>,
    /// How long what is moved to the trash is kept there.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub defer: Duration,
    /// When the plan was applied for the first time.
    pub at: Timestamp,
}

impl Header {
    /// The header of a plan's journal.
    #[must_use]
    pub fn of(plan: &Plan, now: Timestamp) -> Self {
        Self {
            journal: 1,
            plan: plan.digest.clone(),
            fsid: plan.fsid.clone(),
            pools: plan.pools.clone(),
            defer: plan.policy.defer,
            at: now,
        }
    }
}

/// Every other line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was written.
    pub at: Timestamp,
    /// The number of the step.
    pub n: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened to a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// It is about to be done. With this line alone, it may have been.
    Intent(Target),
    /// It was done.
    Done {
        /// For what was moved to the trash: since when it is there. An image that is there since another time was trashed
        /// by somebody else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trashed_at: Option<Timestamp>,
        /// Bytes that it won, or will when they are purged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
    /// It was not done, and nothing was changed.
    Skipped {
        /// Why.
        why: String,
    },
    /// It was tried; the pool says how far it came.
    Failed {
        /// Why.
        why: String,
    },
    /// The image is about to be put back.
    Undoing,
    /// The image was put back.
    Undone,
}

/// What a step acts on; enough to undo it without the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// What is done.
    pub action: Action,
    /// The pool.
    pub pool: String,
    /// The RBD namespace; empty for the default one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The RBD image's name.
    pub image: String,
    /// Its id.
    pub image_id: String,
}

impl Target {
    /// What a step acts on.
    #[must_use]
    pub fn of(step: &Step) -> Self {
        Self {
            action: step.action,
            pool: step.pool.clone(),
            namespace: step.namespace.clone(),
            image: step.image.clone(),
            image_id: step.image_id.clone(),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.pool, self.image),
            namespace => write!(f, "{}/{namespace}/{}", self.pool, self.image),
        }
    }
}

/// What a journal says of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it acts on.
    pub target: Target,
    /// When the first attempt at it began.
    pub begun: Timestamp,
    /// The last that happened to it.
    pub last: Event,
    /// Since when the image is in the trash, if the journal knows.
    pub trashed_at: Option<Timestamp>,
}
