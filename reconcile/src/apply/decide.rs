//! What to do with a step, by what was just seen of its image. Functions: no I/O, no clock; whoever executes decides nothing.

use jiff::Timestamp;

use crate::{
    classify::{Policy, classify},
    facts::{Facts, PoolFacts},
    finding::{Finding, Kind},
    inventory::Problem,
    plan::{self, Action, Allow, Plan, PlanPolicy, Step},
};

/// Whether a step is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Go,
    /// It is not, for this reason.
    Skip(String),
}

/// The classifier's policy for looking again at what a plan was made of.
#[must_use]
pub fn policy_of(policy: &PlanPolicy) -> Policy {
    Policy { grace: policy.grace, allow_stale: policy.allows(Allow::Stale), ..Policy::default() }
}

/// Decides on a step from facts that were gathered for it a moment ago: only what is still the very finding that was
/// planned for, of the same image, is acted on.
#[must_use]
pub fn before(plan: &Plan, step: &Step, facts: &Facts, problems: &[Problem], now: Timestamp) -> Verdict {
    if let Some(problem) = problems.first() {
        return Verdict::Skip(format!("not all could be read again: {}: {}", problem.what, problem.why));
    }
    let findings = classify(facts, &policy_of(&plan.policy), now);
    let Some(finding) = findings.iter().find(|finding| finding.kind == step.kind && is_of(finding, step)) else {
        return Verdict::Skip(what_it_is_now(step, facts, &findings));
    };
    if finding.location != step.location && step.action != Action::Adopt {
        return Verdict::Skip(format!(
            "another location names it now: {}",
            finding.location.as_deref().unwrap_or("none")
        ));
    }
    if let Err(why) = plan::still(finding, step.action, &plan.policy, now) {
        return Verdict::Skip(why);
    }
    let Some(pool) = pool_of(step, facts) else { return Verdict::Skip("its pool was not read".into()) };
    if step.action == Action::Purge {
        return purge(plan, step, pool);
    }
    Verdict::Go
}

/// What the trash must say beside: that it is there since before the scan, and nowhere else.
fn purge(plan: &Plan, step: &Step, pool: &PoolFacts) -> Verdict {
    if pool.images.iter().any(|image| image.id == step.image_id) {
        return Verdict::Skip("it is in its place as well: a move or a restore was cut off".into());
    }
    match pool.trash.iter().find(|entry| entry.id == step.image_id) {
        Some(entry) if entry.deleted > plan.scan.started_at => {
            Verdict::Skip(format!("it was trashed again, at {}", entry.deleted))
        }
        Some(_) => Verdict::Go,
        None => Verdict::Skip("it is no longer in the trash".into()),
    }
}

/// Decides whether an image that has just been moved to the trash stays there, from facts gathered after the move: a row or
/// a location that came in between is somebody's who needs it.
#[must_use]
pub fn after(step: &Step, facts: &Facts, problems: &[Problem], now: Timestamp, policy: &PlanPolicy) -> Verdict {
    if let Some(problem) = problems.first() {
        return Verdict::Skip(format!("not all could be read again: {}: {}", problem.what, problem.why));
    }
    let findings = classify(facts, &policy_of(policy), now);
    let needed = findings.iter().find(|finding| finding.kind == Kind::TrashedImage && is_of(finding, step));
    if let Some(needed) = needed {
        return Verdict::Skip(format!("{} names it by now", needed.location.as_deref().unwrap_or("a location")));
    }
    let row = facts.glance.images.get(&step.image);
    let came_alive = row.filter(|row| !row.deleted && row.is(&["saving", "uploading", "importing", "active"]));
    if let (Some(row), Kind::Orphan | Kind::OrphanDeleted) = (came_alive, step.kind) {
        return Verdict::Skip(format!("its row is {} by now", row.status));
    }
    match pool_of(step, facts).and_then(|pool| pool.trash.iter().find(|entry| entry.id == step.image_id)) {
        Some(_) => Verdict::Go,
        None => Verdict::Skip("it is not in the trash".into()),
    }
}

fn is_of(finding: &Finding, step: &Step) -> bool {
    finding.image_id.as_ref() == Some(&step.image_id)
        && finding.image.as_ref() == Some(&step.image)
        && finding.pool == step.pool
        && finding.namespace == step.namespace
}

fn pool_of<'a>(step: &Step, facts: &'a Facts) -> Option<&'a PoolFacts> {
    facts.pools.iter().find(|pool| pool.name == step.pool && pool.namespace == step.namespace)
}

/// Why the finding that a step rests on is gone, in words.
fn what_it_is_now(step: &Step, facts: &Facts, findings: &[Finding]) -> String {
    let is = findings.iter().find(|finding| is_of(finding, step));
    let pool = pool_of(step, facts);
    let in_place = pool.and_then(|pool| pool.images.iter().find(|image| image.name == step.image));
    let trashed = pool.and_then(|pool| pool.trash.iter().find(|entry| entry.id == step.image_id));
    match (is, in_place, trashed) {
        (Some(is), ..) => format!("it is {} now, no longer {}", is.kind, step.kind),
        (None, Some(other), _) if other.id != step.image_id => {
            format!("its name is another image's now (id {})", other.id)
        }
        (None, _, Some(entry)) => format!("it is in the trash, since {}", entry.deleted),
        (None, Some(_), None) => format!("it is no longer {}", step.kind),
        (None, None, None) => "it is not there any more".into(),
    }
}

#[cfg(test)]
mod tests;
