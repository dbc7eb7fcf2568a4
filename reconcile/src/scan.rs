//! A scan: facts gathered and classified, in the form that is printed and stored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    classify::{Policy, classify},
    facts::{DatabaseFacts, Facts},
    finding::{Finding, Kind, Severity},
    inventory::{GatherError, Gathered, Look, Problem, Progress, Sources, gather},
};

/// What to look for, and how closely.
#[derive(Debug, Clone, Default)]
pub struct ScanOptions {
    /// What the admin decided.
    pub policy: Policy,
    /// Whether to find out what every image takes up, and not only those whose space may be won.
    pub usage: bool,
    /// How many images, picked at random, to compare with what librbd says of them.
    pub verify_sample: usize,
}

/// What a scan found. As JSON this is the schema that scripts read; fields are only ever added to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scan {
    /// The version of the schema.
    pub schema: u32,
    /// Whether everything could be read. Nothing may be reclaimed after a scan that is not complete.
    pub complete: bool,
    /// When it began.
    pub started_at: Timestamp,
    /// The cluster.
    pub fsid: String,
    /// The pools that were read: `pool`, or `pool/namespace`.
    pub pools: Vec<String>,
    /// Counts.
    pub summary: Summary,
    /// What could not be read, and why.
    pub problems: Vec<Problem>,
    /// What could be read only in part, so that single findings are blocked: pools whose clones are unknown.
    #[serde(default)]
    pub notes: Vec<Problem>,
    /// What was found, worst first.
    pub findings: Vec<Finding>,
}

/// The findings in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Images in the pools, without their trash.
    pub images: u64,
    /// Findings by kind; kinds without any are left out.
    pub findings: BTreeMap<Kind, u64>,
    /// Bytes of the images that can be trashed.
    pub reclaimable_bytes: u64,
    /// Bytes of all images, in and out of the trash, as `rbd du` counts them; only if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// The pools one by one.
    #[serde(default)]
    pub pools: Vec<PoolSummary>,
    /// What the databases know at all.
    #[serde(default)]
    pub knowledge: Vec<DatabaseFacts>,
}

impl PoolSummary {
    /// `pool`, or `pool/namespace`.
    #[must_use]
    pub fn path(&self) -> String {
        if self.namespace.is_empty() { self.pool.clone() } else { format!("{}/{}", self.pool, self.namespace) }
    }
}

/// A pool in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolSummary {
    /// The pool.
    pub pool: String,
    /// The namespace; left out for the default one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The pool's number.
    pub id: i64,
    /// Its images, without the trash.
    pub images: u64,
    /// Images in its trash.
    pub trash: u64,
    /// Locations of all databases that name it and are not deleted.
    #[serde(default)]
    pub locations: u64,
    /// Bytes of all of them, as `rbd du` counts them; only if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
}

impl Scan {
    /// Whether something was found that somebody should act on.
    #[must_use]
    pub fn has_warnings(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity <= Severity::Warning)
    }

    /// Leaves only findings of these kinds.
    pub fn retain(&mut self, kinds: &[Kind]) {
        self.findings.retain(|finding| kinds.contains(&finding.kind));
        self.summary.count(&self.findings);
    }
}

impl Summary {
    pub(crate) fn of(facts: &Facts, findings: &[Finding], usage: bool) -> Self {
        let pools: Vec<PoolSummary> = facts
            .pools
            .iter()
            .map(|pool| {
                let trashed = pool.trash.iter().filter_map(|entry| entry.image.as_deref());
                let used = pool.images.iter().chain(trashed).filter_map(|image| image.usage);
                PoolSummary {
                    pool: pool.name.clone(),
                    namespace: pool.namespace.clone(),
                    id: pool.id,
                    images: pool.images.len() as u64,
                    trash: pool.trash.len() as u64,
                    locations: facts.locations_in(pool),
                    used_bytes: usage.then(|| used.map(crate::facts::Usage::total).sum()),
                }
            })
            .collect();
        let mut summary = Self {
            images: pools.iter().map(|pool| pool.images).sum(),
            used_bytes: usage.then(|| pools.iter().filter_map(|pool| pool.used_bytes).sum()),
            pools,
            knowledge: facts.glance.databases.clone(),
            ..Self::default()
        };
        summary.count(findings);
        summary
    }

    fn count(&mut self, findings: &[Finding]) {
        self.findings.clear();
        self.reclaimable_bytes = 0;
        for finding in findings {
            *self.findings.entry(finding.kind).or_default() += 1;
            if finding.kind.is_reclaimable() && finding.blocked_by.is_empty() {
                self.reclaimable_bytes += finding.used_bytes.unwrap_or(0);
            }
        }
    }
}

/// Compares pools with Glance databases. Reads only.
///
/// # Errors
/// Where a pool cannot be listed or a database not be read at all. What could not be read of single images makes the scan
/// incomplete instead.
pub async fn scan(
    sources: &Sources,
    options: &ScanOptions,
    now: Timestamp,
    progress: &Progress<'_>,
) -> Result<Scan, GatherError> {
    let grace = options.policy.grace;
    let look = Look { usage: options.usage, verify_sample: options.verify_sample, grace };
    let Gathered { facts, problems, notes } = gather(sources, look, progress).await?;
    let findings = classify(&facts, &options.policy, now);
    Ok(Scan {
        schema: 1,
        complete: problems.is_empty(),
        started_at: now,
        pools: facts.pools.iter().map(crate::facts::PoolFacts::path).collect(),
        summary: Summary::of(&facts, &findings, options.usage),
        fsid: facts.fsid,
        problems,
        notes,
        findings,
    })
}
