//! A scan: facts gathered and classified, in the form that is printed and stored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rbd::Pool;
use serde::Serialize;

use crate::{
    classify::{Policy, classify},
    finding::{Finding, Kind, Severity},
    inventory::{Database, GatherError, Problem, Progress, gather},
};

/// What a scan found. As JSON this is the schema that scripts read; fields are only ever added to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scan {
    /// The version of the schema.
    pub schema: u32,
    /// Whether everything could be read. Nothing may be reclaimed after a scan that is not complete.
    pub complete: bool,
    /// When it began.
    pub started_at: Timestamp,
    /// The cluster.
    pub fsid: String,
    /// The pools that were read.
    pub pools: Vec<String>,
    /// Counts.
    pub summary: Summary,
    /// What could not be read, and why.
    pub problems: Vec<Problem>,
    /// What was found, worst first.
    pub findings: Vec<Finding>,
}

/// The findings in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Images in the pools.
    pub images: u64,
    /// Findings by kind; kinds without any are left out.
    pub findings: BTreeMap<Kind, u64>,
    /// Bytes of the images that can be trashed.
    pub reclaimable_bytes: u64,
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
        self.summary = Summary::of(self.summary.images, &self.findings);
    }
}

impl Summary {
    fn of(images: u64, findings: &[Finding]) -> Self {
        let mut summary = Self { images, ..Self::default() };
        for finding in findings {
            *summary.findings.entry(finding.kind).or_default() += 1;
            if finding.kind.is_reclaimable() && finding.blocked_by.is_empty() {
                summary.reclaimable_bytes += finding.used_bytes.unwrap_or(0);
            }
        }
        summary
    }
}

/// Compares a pool with a Glance database. Reads only.
///
/// # Errors
/// Where the pool cannot be listed or the database not be read at all. What could not be read of single images makes the
/// scan incomplete instead.
pub async fn scan(
    pool: &Pool,
    database: &Database,
    policy: &Policy,
    now: Timestamp,
    progress: &Progress<'_>,
) -> Result<Scan, GatherError> {
    let (facts, problems) = gather(pool, database, progress).await?;
    let findings = classify(&facts, policy, now);
    Ok(Scan {
        schema: 1,
        complete: problems.is_empty(),
        started_at: now,
        pools: vec![facts.pool],
        fsid: facts.fsid,
        summary: Summary::of(facts.images.len() as u64, &findings),
        problems,
        findings,
    })
}
