//! Whether a finding may be acted on, when it is planned and again when the step is done.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Action, Allow, PlanPolicy};
use crate::{
    classify::is_glance_name,
    finding::{Block, Finding, Kind},
};

/// Sees that nothing speaks against an action on what was found; else says what. Whether it was seen before is the
/// planner's to know.
pub(crate) fn still(finding: &Finding, action: Action, policy: &PlanPolicy, now: Timestamp) -> Result<(), String> {
    match action {
        Action::Trash | Action::Purge => {
            if !finding.image.as_deref().is_some_and(is_glance_name) {
                return Err("its name is not Glance's".into());
            }
            unblocked(finding, policy)?;
            old(finding, policy, now)
        }
        Action::Snapshot => whole(finding),
        Action::Adopt if !finding.namespace.is_empty() => Err("a location cannot name an RBD namespace".into()),
        Action::Adopt | Action::Protect | Action::Restore => Ok(()),
    }
}

/// The time that is `grace` ago.
pub(super) fn before(now: Timestamp, grace: Duration) -> Result<Timestamp, String> {
    let grace = SignedDuration::try_from(grace).ok();
    grace.and_then(|grace| now.checked_sub(grace).ok()).ok_or_else(|| "the grace is longer than time".into())
}

fn unblocked(finding: &Finding, policy: &PlanPolicy) -> Result<(), String> {
    let allowed = |block: &Block| *block == Block::Stale && policy.allows(Allow::Stale);
    let blocks: Vec<String> =
        finding.blocked_by.iter().filter(|block| !allowed(block)).map(ToString::to_string).collect();
    if blocks.is_empty() { Ok(()) } else { Err(format!("blocked by {}", blocks.join(", "))) }
}

/// The classifier has seen to the age with the scan's grace; a scan with a shorter one must not get round the plan's.
fn old(finding: &Finding, policy: &PlanPolicy, now: Timestamp) -> Result<(), String> {
    if policy.grace.is_zero() {
        return Ok(());
    }
    let limit = before(now, policy.grace)?;
    let facts: &[&str] =
        if finding.kind == Kind::TrashExpired { &["trashed"] } else { &["created", "row_updated", "row_created"] };
    let mut known = false;
    for fact in facts.iter().filter_map(|fact| finding.evidence.get(*fact)) {
        let time: Timestamp =
            fact.as_str().and_then(|time| time.parse().ok()).ok_or_else(|| "its age is not known".to_owned())?;
        if time > limit {
            return Err(format!("younger than the grace: something happened to it at {time}"));
        }
        known = true;
    }
    if known { Ok(()) } else { Err("its age is not known".into()) }
}

/// Only of an image that has all its data may a snapshot be taken for one that is missing.
fn whole(finding: &Finding) -> Result<(), String> {
    let bytes = |fact: &str| finding.evidence.get(fact).and_then(Value::as_u64);
    match (bytes("size"), bytes("row_size")) {
        (Some(size), Some(row)) if size == row => {}
        (Some(size), Some(row)) => return Err(format!("the image has {size} bytes, Glance's row says {row}")),
        _ => return Err("it is not known whether all its data is there".into()),
    }
    if finding.evidence.contains_key("upload") {
        return Err("its upload was not finished".into());
    }
    let watchers = finding.evidence.get("watchers").and_then(Value::as_array);
    if watchers.is_some_and(|watchers| !watchers.is_empty()) {
        return Err("somebody has it open for writing".into());
    }
    match finding.evidence.get("missing").and_then(Value::as_str) {
        Some(store::SNAPSHOT) => Ok(()),
        _ => Err("the snapshot that is missing is not one that Glance makes".into()),
    }
}
