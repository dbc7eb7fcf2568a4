//! Why a plan is refused as a whole: what was read cannot be trusted to say that anything is dead.

use super::{Allow, Health, PlanPolicy, Refusal, Step};
use crate::{
    finding::{Block, Kind},
    plan::Action,
    scan::Scan,
};

/// How many examples are given of what may be many.
const EXAMPLES: usize = 3;

/// Why nothing may be planned from this scan, or be done any more that was. Every reason that holds, so that one run names
/// them all.
pub(crate) fn of_scan(scan: &Scan, health: &Health, policy: &PlanPolicy) -> Vec<Refusal> {
    let mut refused = Vec::new();
    let mut refuse = |what: &str, why: String| refused.push(Refusal { what: what.into(), why });
    if !scan.complete {
        let problems = scan.problems.iter().map(|problem| format!("{}: {}", problem.what, problem.why));
        refuse("the scan is incomplete", some(problems, scan.problems.len()));
    }
    if scan.summary.knowledge.is_empty() {
        refuse("no database was read", "nothing can be told to be nobody's".into());
    }
    let foreign = of_kind(scan, Kind::ForeignCluster);
    for database in scan.summary.knowledge.iter().filter(|database| database.locations == 0) {
        // It may be this cloud's after the pool has moved, or another cloud's altogether.
        if foreign.is_empty() {
            if !policy.allows(Allow::NoLocations) {
                refuse(
                    &format!("{} has no location in {}", database.name, scan.pools.join(", ")),
                    overridable("it is empty, or another cloud's: every image would look orphaned", Allow::NoLocations),
                );
            }
        } else if !policy.allows(Allow::ForeignFsid) {
            refuse(
                &format!("{} has no location with this cluster's fsid, {}", database.name, scan.fsid),
                overridable(
                    &format!("{} locations name another cluster: every image would look orphaned", foreign.len()),
                    Allow::ForeignFsid,
                ),
            );
        }
    }
    if scan.summary.knowledge.iter().any(|database| database.locations > 0) && !policy.allows(Allow::NoLocations) {
        for pool in scan.summary.pools.iter().filter(|pool| pool.locations == 0) {
            refuse(
                &format!("no location is in {}", pool.path()),
                overridable("no database given is this pool's: every image would look orphaned", Allow::NoLocations),
            );
        }
    }
    let unreadable = of_kind(scan, Kind::UndecryptableLocation);
    if !unreadable.is_empty() && !policy.allows(Allow::Undecryptable) {
        refuse(
            &format!("{} locations cannot be read", unreadable.len()),
            overridable("they may name any image; give the metadata_encryption_key", Allow::Undecryptable),
        );
    }
    let stale: Vec<_> = scan.findings.iter().filter(|finding| finding.blocked_by.contains(&Block::Stale)).collect();
    if !stale.is_empty() && !policy.allows(Allow::Stale) {
        let newest = scan.summary.knowledge.iter().filter_map(|database| database.newest).max();
        let newest =
            newest.map_or_else(|| "no row has a time".into(), |newest| format!("its newest row is of {newest}"));
        let images = some(stale.iter().filter_map(|finding| finding.image.clone()), stale.len());
        refuse(
            "the database is older than what is in the pool",
            overridable(
                &format!("{newest}; younger is {images}. A replica that lags, or a restored backup?"),
                Allow::Stale,
            ),
        );
    }
    if !health.problems.is_empty() && !policy.allows(Allow::Unhealthy) {
        refuse("the cluster is not healthy", overridable(&health.problems.join("; "), Allow::Unhealthy));
    }
    refused
}

/// Why these are too many steps at once.
pub(super) fn of_steps(scan: &Scan, steps: &[Step], policy: &PlanPolicy) -> Vec<Refusal> {
    let mut refused = Vec::new();
    let destructive = steps.iter().filter(|step| step.action.is_destructive()).count() as u64;
    if destructive > policy.max_images {
        refused.push(Refusal {
            what: format!("{destructive} images would be removed"),
            why: format!("more than --max-images {}", policy.max_images),
        });
    }
    for pool in &scan.summary.pools {
        for (action, of) in [(Action::Trash, pool.images), (Action::Purge, pool.images.saturating_add(pool.trash))] {
            let here =
                |step: &&Step| step.action == action && (&step.pool, &step.namespace) == (&pool.pool, &pool.namespace);
            let count = steps.iter().filter(here).count() as u64;
            if u128::from(count) * 100 > u128::from(policy.max_percent) * u128::from(of) {
                refused.push(Refusal {
                    what: format!("{count} of the {of} images in {} would be removed ({action})", pool.path()),
                    why: format!("more than --max-percent {}", policy.max_percent),
                });
            }
        }
    }
    refused
}

fn of_kind(scan: &Scan, kind: Kind) -> Vec<&crate::finding::Finding> {
    scan.findings.iter().filter(|finding| finding.kind == kind).collect()
}

fn overridable(why: &str, allow: Allow) -> String {
    format!("{why}. If you know better: --allow {allow}")
}

/// The first few, and how many more there are.
fn some(all: impl Iterator<Item = String>, count: usize) -> String {
    let shown: Vec<String> = all.take(EXAMPLES).collect();
    match count.saturating_sub(shown.len()) {
        0 => shown.join("; "),
        more => format!("{}; and {more} more", shown.join("; ")),
    }
}
