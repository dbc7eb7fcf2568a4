//! A plan: what is to be done with what a scan found, as data that people read before anything is done.
//!
//! Planning is a function of a scan, earlier scans and policy: no I/O, no clock. A plan that cannot be trusted has no
//! steps and says at its head why. The file carries a digest over all that is in it, so that one edited by hand is not
//! taken for the one that was made; it names the cluster and the pools by their ids, and it goes stale.

mod file;
mod health;
mod planner;
mod policy;
mod refusals;
mod steps;
mod still;

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::{
    file::PlanError,
    health::Health,
    planner::plan,
    policy::{Allow, PlanPolicy},
};
pub(crate) use self::{refusals::of_scan as refused, still::still};
use crate::finding::Kind;

/// What is to be done. As JSON this is the file that `apply` takes; fields are only ever added to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The version of the schema: 1.
    pub schema: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// The cluster it was made for, and no other.
    pub fsid: String,
    /// The pools it was made for.
    pub pools: Vec<PlanPool>,
    /// The databases that were asked, by names without secrets.
    pub databases: Vec<String>,
    /// The scan it rests on.
    pub scan: PlanScan,
    /// What the admin decided.
    pub policy: PlanPolicy,
    /// Why it was refused as a whole, and has no steps; nothing if it was not.
    pub refused: Vec<Refusal>,
    /// What it leaves out of what was found, and why.
    #[serde(default)]
    pub left_out: Vec<Refusal>,
    /// The steps in numbers.
    pub summary: PlanSummary,
    /// What to do, in this order.
    pub steps: Vec<Step>,
    /// The SHA-256 of all of the above, in hexadecimal.
    pub digest: String,
}

/// A pool, by name and by number: a pool made anew under the old name is another pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlanPool {
    /// The name.
    pub name: String,
    /// The RBD namespace; empty for the default one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The number.
    pub id: i64,
}

/// The scan that a plan rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanScan {
    /// When it began.
    pub started_at: Timestamp,
    /// The SHA-256 of its JSON.
    pub digest: String,
}

/// Something that a plan does not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is the matter, or which image.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Plan {
    /// Whether it was refused as a whole.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        !self.refused.is_empty()
    }
}

/// A plan's steps in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSummary {
    /// Images in the pools.
    pub images: u64,
    /// Steps of each action.
    pub steps: BTreeMap<Action, u64>,
    /// Bytes that the steps win once what they move to the trash is purged.
    pub bytes: u64,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Puts an image back from the trash.
    Restore,
    /// Makes the snapshot that a location names, and protects it.
    Snapshot,
    /// Protects a snapshot.
    Protect,
    /// Prints how to register an image; writes nothing.
    Adopt,
    /// Moves an image to the trash.
    Trash,
    /// Removes an expired image from the trash for good.
    Purge,
}

impl Action {
    /// Whether it takes data away, now or when its deferment is over.
    #[must_use]
    pub const fn is_destructive(self) -> bool {
        matches!(self, Self::Trash | Self::Purge)
    }

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::Snapshot => "snapshot",
            Self::Protect => "protect",
            Self::Adopt => "adopt",
            Self::Trash => "trash",
            Self::Purge => "purge",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One step: one action on one RBD image, named by its id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its number, from 1.
    pub n: u64,
    /// What it does.
    pub action: Action,
    /// The kind of the finding it rests on.
    pub kind: Kind,
    /// The pool.
    pub pool: String,
    /// The RBD namespace; empty for the default one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The RBD image's name.
    pub image: String,
    /// Its id: an image made anew under that name is another image.
    pub image_id: String,
    /// The Glance image it belongs to, or did.
    pub glance_id: Option<String>,
    /// The location that names it.
    pub location: Option<String>,
    /// Bytes that it wins, if they are known and any.
    pub bytes: Option<u64>,
    /// Why, in words.
    pub why: String,
    /// The facts it rests on, as the scan had them.
    pub evidence: Map<String, Value>,
    /// How to undo it, in words or as a command.
    pub undo: String,
    /// For [`Action::Adopt`], the commands that register the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
}

#[cfg(test)]
mod tests;
