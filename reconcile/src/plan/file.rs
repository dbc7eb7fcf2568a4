//! A plan as a file: its digest, reading it, and whether it may be acted on.

use jiff::{SignedDuration, Timestamp};
use openssl::sha::sha256;
use serde_json::Value;

use super::Plan;

/// How old a plan may be when it is applied.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);

/// How far ahead of this machine's clock the one that made the plan may be.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// The version of the schema that is read and written.
pub(super) const SCHEMA: u32 = 1;

/// Why a plan may not be acted on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It is no plan, or was cut off.
    #[error("this is no plan: {0}")]
    NotAPlan(#[from] serde_json::Error),
    /// It was made by a program of another time.
    #[error("the plan's schema is {0}; this program knows {SCHEMA}")]
    Schema(u64),
    /// Something in it was changed after it was made.
    #[error("the plan was changed after it was made: its digest is {found}, but {expected} is written in it")]
    Edited {
        /// What is written in it.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It was made for another cluster.
    #[error("the plan was made for the cluster {planned}, but this is {here}")]
    ForeignCluster {
        /// The plan's.
        planned: String,
        /// The one that is connected to.
        here: String,
    },
    /// It is too old: the world has moved on.
    #[error("the plan was made at {created_at}, more than 24 h ago; make a new one")]
    TooOld {
        /// When it was made.
        created_at: Timestamp,
    },
    /// It is from the future, so that its age cannot be told.
    #[error("the plan was made at {created_at}, which is yet to come; compare the clocks")]
    FromTheFuture {
        /// When it was made.
        created_at: Timestamp,
    },
}

impl Plan {
    /// Reads a plan, and sees that it is as it was written.
    ///
    /// # Errors
    /// [`PlanError::NotAPlan`], [`PlanError::Schema`]; [`PlanError::Edited`] where anything was changed, added or taken
    /// away since it was made.
    pub fn read(text: &[u8]) -> Result<Self, PlanError> {
        let value: Value = serde_json::from_slice(text)?;
        if let Some(schema) = value.get("schema").and_then(Value::as_u64).filter(|schema| *schema != u64::from(SCHEMA))
        {
            return Err(PlanError::Schema(schema));
        }
        let expected = value.get("digest").and_then(Value::as_str).unwrap_or_default().to_owned();
        // Of what the file holds, before any of it can be left out for not being known.
        let found = digest(&value);
        let plan: Self = serde_json::from_value(value)?;
        if expected != found {
            return Err(PlanError::Edited { expected, found });
        }
        Ok(plan)
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan is plain data") + "\n"
    }

    /// Sees that the plan is as it was made, was made for this cluster, and is not too old.
    ///
    /// # Errors
    /// [`PlanError::Edited`], [`PlanError::ForeignCluster`], [`PlanError::TooOld`], [`PlanError::FromTheFuture`].
    pub fn verify(&self, fsid: &str, now: Timestamp) -> Result<(), PlanError> {
        let found = self.compute_digest();
        if found != self.digest {
            return Err(PlanError::Edited { expected: self.digest.clone(), found });
        }
        if self.fsid != fsid {
            return Err(PlanError::ForeignCluster { planned: self.fsid.clone(), here: fsid.to_owned() });
        }
        let age = now.duration_since(self.created_at);
        if age > MAX_AGE {
            return Err(PlanError::TooOld { created_at: self.created_at });
        }
        if age < -SKEW {
            return Err(PlanError::FromTheFuture { created_at: self.created_at });
        }
        Ok(())
    }

    /// The digest of all but the digest.
    pub(super) fn compute_digest(&self) -> String {
        digest(&serde_json::to_value(self).expect("a plan is plain data"))
    }
}

/// The SHA-256 over the canonical form of an object without its `digest`: keys in order, no space.
pub(super) fn digest(value: &Value) -> String {
    let mut value = value.clone();
    if let Value::Object(fields) = &mut value {
        fields.remove("digest");
    }
    value.sort_all_objects();
    let hash = sha256(value.to_string().as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
