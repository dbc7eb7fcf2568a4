//! From what was found to what is to be done. A function: no I/O, no clock, no environment.
//!
//! What takes data away is planned only for an image that is Glance's by name, that nothing blocks, that is older than
//! the grace, and that an earlier scan saw the same at least the grace ago. What gives back (restoring, protecting) needs
//! none of that: it is planned as soon as it is found.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    Action, Allow, Health, Plan, PlanPolicy, PlanPool, PlanScan, PlanSummary, Refusal, Step, file, refusals, steps,
    still::{self, still},
};
use crate::{
    facts::DatabaseFacts,
    finding::{Finding, Kind},
    scan::Scan,
};

/// How far apart the clocks of the cluster and of the databases may be.
const CLOCKS: SignedDuration = SignedDuration::from_mins(5);

impl Kind {
    /// What a plan does about it, and whether only if it is asked for by name. Nothing about what people must judge.
    #[must_use]
    pub const fn treatment(self) -> Option<(Action, bool)> {
        Some(match self {
            Self::TrashedImage => (Action::Restore, false),
            Self::MissingSnapshot => (Action::Snapshot, false),
            Self::UnprotectedSnapshot => (Action::Protect, false),
            Self::Unregistered => (Action::Adopt, false),
            Self::OrphanDeleted | Self::PartialUpload | Self::LeakedClone => (Action::Trash, false),
            // No database has ever heard of it: it may be that of a Glance which was not asked.
            Self::Orphan => (Action::Trash, true),
            // There is no way back.
            Self::TrashExpired => (Action::Purge, true),
            _ => return None,
        })
    }
}

/// Plans what to do about what a scan found.
///
/// `earlier` are scans from before, as `scan --format json` wrote them: what is to be removed must have been the same in
/// one that is at least the grace old, and in all that came after it. `health` is the cluster's. The steps are in the
/// order in which they are to be done: what gives back comes first.
#[must_use]
pub fn plan(scan: &Scan, earlier: &[Scan], health: &Health, policy: &PlanPolicy, now: Timestamp) -> Plan {
    let judge = Judge { scan, earlier, policy, now };
    let mut left_out = Vec::new();
    let mut unasked: BTreeMap<Kind, u64> = BTreeMap::new();
    let mut steps = Vec::new();
    for finding in &scan.findings {
        let Some((action, by_name_only)) = finding.kind.treatment() else { continue };
        let asked = if policy.only.is_empty() { !by_name_only } else { policy.only.contains(&finding.kind) };
        if !asked {
            *unasked.entry(finding.kind).or_default() += 1;
            continue;
        }
        match judge.step(finding, action) {
            Ok(step) => steps.push(step),
            Err(why) => left_out.push(Refusal { what: path(finding), why }),
        }
    }
    left_out.extend(unasked.into_iter().map(|(kind, count)| Refusal {
        what: format!("{count} {kind}"),
        why: format!("not asked for: --only {kind}"),
    }));

    let key = |step: &Step| (step.action, step.pool.clone(), step.namespace.clone(), step.image.clone());
    steps.sort_by_key(|step| (key(step), step.image_id.clone()));
    // Two locations of one image ask for the same thing.
    let mut seen = BTreeSet::new();
    steps.retain(|step| seen.insert((step.action, step.pool.clone(), step.namespace.clone(), step.image_id.clone())));

    let mut refused = refusals::of_scan(scan, health, policy);
    refused.extend(refusals::of_steps(scan, &steps, policy));
    if !refused.is_empty() {
        steps.clear();
    }
    for (n, step) in (1..).zip(&mut steps) {
        step.n = n;
    }
    let mut summary = PlanSummary { images: scan.summary.images, ..PlanSummary::default() };
    for step in &steps {
        *summary.steps.entry(step.action).or_default() += 1;
        summary.bytes = summary.bytes.saturating_add(step.bytes.unwrap_or(0));
    }
    let pools = scan.summary.pools.iter();
    let mut plan = Plan {
        schema: file::SCHEMA,
        created_at: now,
        fsid: scan.fsid.clone(),
        pools: pools
            .map(|pool| PlanPool { name: pool.pool.clone(), namespace: pool.namespace.clone(), id: pool.id })
            .collect(),
        databases: scan.summary.knowledge.iter().map(|database| database.name.clone()).collect(),
        scan: PlanScan {
            started_at: scan.started_at,
            digest: file::digest(&serde_json::to_value(scan).expect("a scan is plain data")),
        },
        policy: policy.clone(),
        refused,
        left_out,
        summary,
        steps,
        digest: String::new(),
    };
    plan.digest = plan.compute_digest();
    plan
}

/// `pool/namespace/image`, as `rbd` writes it.
fn path(finding: &Finding) -> String {
    let image = finding.image.as_deref().or(finding.glance_id.as_deref()).unwrap_or("?");
    if finding.namespace.is_empty() {
        format!("{}/{image}", finding.pool)
    } else {
        format!("{}/{}/{image}", finding.pool, finding.namespace)
    }
}

struct Judge<'a> {
    scan: &'a Scan,
    earlier: &'a [Scan],
    policy: &'a PlanPolicy,
    now: Timestamp,
}

impl Judge<'_> {
    /// The step for a finding, or why there is none.
    fn step(&self, finding: &Finding, action: Action) -> Result<Step, String> {
        let (Some(image), Some(image_id)) = (&finding.image, &finding.image_id) else {
            return Err("the scan does not name the image and its id".into());
        };
        let mut evidence = finding.evidence.clone();
        still(finding, action, self.policy, self.now)?;
        if action.is_destructive() {
            self.testified(finding)?;
            if let Some(since) = self.seen(finding)? {
                evidence.insert("seen_since".into(), json!(since));
            }
        }
        let location = finding.location.clone().or_else(|| {
            let here = || format!("rbd://{}/{}/{image}/{}", self.scan.fsid, finding.pool, store::SNAPSHOT);
            (action == Action::Adopt).then(here)
        });
        let mut step = Step {
            n: 0,
            action,
            kind: finding.kind,
            pool: finding.pool.clone(),
            namespace: finding.namespace.clone(),
            image: image.clone(),
            image_id: image_id.clone(),
            glance_id: finding.glance_id.clone(),
            location,
            bytes: finding.used_bytes.filter(|_| action.is_destructive()),
            why: String::new(),
            evidence,
            undo: String::new(),
            commands: Vec::new(),
        };
        steps::describe(&mut step);
        Ok(step)
    }

    /// That a database has no row of an image says something only if it has heard of what came after: a replica that stands
    /// still, or a restored backup, knows nothing of the last images before it.
    fn testified(&self, finding: &Finding) -> Result<(), String> {
        let time = |fact: &str| finding.evidence.get(fact)?.as_str()?.parse::<Timestamp>().ok();
        let Some(created) = time("created").filter(|_| !finding.evidence.contains_key("row_status")) else {
            return Ok(());
        };
        let margin = SignedDuration::try_from(self.policy.grace).unwrap_or(CLOCKS).min(CLOCKS);
        let deaf =
            |database: &&DatabaseFacts| database.newest.is_none_or(|newest| newest.duration_since(created) < margin);
        match self.scan.summary.knowledge.iter().find(deaf) {
            Some(database) if !margin.is_zero() && !self.policy.allows(Allow::Stale) => Err(format!(
                "{} has no row younger than the image, so it may know nothing of it yet; --allow stale believes it",
                database.name
            )),
            _ => Ok(()),
        }
    }

    /// Since when scans have seen it the same, where that is at least the grace; nothing if nobody asks.
    fn seen(&self, finding: &Finding) -> Result<Option<Timestamp>, String> {
        let limit = still::before(self.now, self.policy.grace)?;
        let mut earlier: Vec<&Scan> = self
            .earlier
            .iter()
            .filter(|scan| scan.complete && scan.fsid == self.scan.fsid && scan.started_at <= self.scan.started_at)
            .collect();
        earlier.sort_by_key(|scan| Reverse(scan.started_at));
        let mut since = None;
        'scans: for scan in earlier {
            for then in scan.findings.iter().filter(|then| same_image(then, finding)) {
                if same_kind(then.kind, finding.kind) {
                    since = Some(scan.started_at);
                } else if then.kind == Kind::InFlight || then.kind.treatment().is_some() {
                    break 'scans; // it was something else then
                }
            }
        }
        match since {
            Some(since) if since <= limit => Ok(Some(since)),
            _ if self.policy.allows(Allow::Unseen) => Ok(None),
            Some(since) => Err(format!("seen for the first time at {since}, less than the grace ago")),
            None if self.earlier.is_empty() => {
                Err("not seen by an earlier scan: give one at least the grace old with --seen".into())
            }
            None => Err("not seen the same by an earlier scan that was given".into()),
        }
    }
}

fn same_image(a: &Finding, b: &Finding) -> bool {
    a.image_id.is_some() && (&a.pool, &a.namespace, &a.image_id) == (&b.pool, &b.namespace, &b.image_id)
}

/// What waits in the trash has been in the trash all the while.
fn same_kind(then: Kind, now: Kind) -> bool {
    then == now || (then == Kind::TrashDeferred && now == Kind::TrashExpired)
}
