//! The plan's rules, one by one.

mod file;
mod refusals;
mod rules;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::{
    facts::DatabaseFacts,
    finding::Finding,
    scan::{PoolSummary, Scan, Summary},
};

const FSID: &str = "9b1c0a54-7f0c-4b52-a8e3-1f6f4a3f1a11";
const A: &str = "11111111-1111-4111-8111-111111111111";
const B: &str = "22222222-2222-4222-8222-222222222222";
const C: &str = "33333333-3333-4333-8333-333333333333";

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn hours_ago(hours: i64) -> Timestamp {
    now() - SignedDuration::from_hours(hours)
}

/// A finding about an old image of the pool.
fn found(kind: Kind, image: &str) -> Finding {
    let finding = Finding {
        image: Some(image.into()),
        image_id: Some(format!("id-{image}")),
        used_bytes: Some(4096),
        ..Finding::new(kind, "images")
    };
    match kind {
        Kind::TrashExpired | Kind::TrashDeferred => finding.with("trashed", hours_ago(200)),
        _ => finding.with("created", hours_ago(100)),
    }
}

/// A complete scan of a pool of 1000 images whose database knows them, hours ago.
fn scan(hours: i64, findings: Vec<Finding>) -> Scan {
    let pool = PoolSummary { pool: "images".into(), id: 2, images: 1000, locations: 900, ..PoolSummary::default() };
    let database = DatabaseFacts {
        name: "sqlite:////glance.sqlite".into(),
        images: 900,
        locations: 900,
        newest: Some(hours_ago(hours)),
        ..DatabaseFacts::default()
    };
    let summary = Summary { images: 1000, pools: vec![pool], knowledge: vec![database], ..Summary::default() };
    Scan {
        schema: 1,
        complete: true,
        started_at: hours_ago(hours),
        fsid: FSID.into(),
        pools: vec!["images".into()],
        summary,
        problems: Vec::new(),
        notes: Vec::new(),
        findings,
    }
}

/// The plan for these findings, which two days of scans have seen the same.
fn planned(findings: Vec<Finding>, policy: &PlanPolicy) -> Plan {
    let earlier = [scan(48, findings.clone()), scan(24, findings.clone())];
    plan(&scan(0, findings), &earlier, &Health::default(), policy, now())
}

fn only(kinds: &[Kind]) -> PlanPolicy {
    PlanPolicy { only: kinds.to_vec(), ..PlanPolicy::default() }
}

fn allow(allow: Allow) -> PlanPolicy {
    PlanPolicy { allow: vec![allow], ..PlanPolicy::default() }
}

fn actions(plan: &Plan) -> Vec<(Action, &str)> {
    plan.steps.iter().map(|step| (step.action, step.image.as_str())).collect()
}

/// Why something was left out; the words that matter.
fn why(plan: &Plan) -> &str {
    assert!(plan.refused.is_empty() && plan.steps.is_empty(), "{plan:?}");
    &plan.left_out[0].why
}
