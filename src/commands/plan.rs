//! `glance-rbd plan`.

use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use reconcile::{Allow, Health, Kind, PlanPolicy, Policy, Scan, ScanOptions};

use super::{interruptible, output, scan::Bars, sources::Wanted};
use crate::{
    cli::plan::PlanArgs,
    exit::{self, Usage},
    report,
};

pub(super) async fn run(args: PlanArgs) -> anyhow::Result<u8> {
    // Wrong arguments are refused before anything is connected to.
    let policy = policy(&args)?;
    let wanted = Wanted::read(&args.sources)?;
    let earlier = args.seen.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<Scan>>>()?;
    for allow in &policy.allow {
        eprintln!("warning: --allow {allow}: {}", allow.meaning());
    }
    let result = interruptible(async {
        let sources = wanted.open().await?;
        let now = Timestamp::now();
        let bars = Bars::default();
        let scan = reconcile::scan(&sources, &options(&wanted, &policy), now, &|stage, done, total| {
            bars.show(stage, done, total);
        })
        .await;
        bars.clear();
        let scan = scan?;
        // After the scan: what was down while it read must be told.
        let health = Health::read(sources.pools[0].cluster()).await;
        Ok(reconcile::plan(&scan, &earlier, &health, &policy, now))
    });
    let plan = result.await?;
    output::write(Some(&args.output), plan.to_json().as_bytes())?;
    output::print(&report::plan::plan(&plan))?;
    for refusal in &plan.refused {
        eprintln!("refused: {}: {}", report::harmless(&refusal.what), report::harmless(&refusal.why));
    }
    Ok(if plan.is_refused() { exit::ERROR } else { exit::DONE })
}

fn policy(args: &PlanArgs) -> anyhow::Result<PlanPolicy> {
    let only = args.only.iter().map(|name| kind(name)).collect::<anyhow::Result<Vec<Kind>>>()?;
    let mut allow = Vec::new();
    for name in &args.allow {
        let this: Allow = name.parse().map_err(|error| Usage(format!("--allow: {error}")))?;
        if !allow.contains(&this) {
            allow.push(this);
        }
    }
    let (max_images, max_percent) = (args.max_images, args.max_percent);
    Ok(PlanPolicy { grace: args.grace, only, max_images, max_percent, defer: args.defer, allow })
}

/// A kind that something can be done about.
fn kind(name: &str) -> anyhow::Result<Kind> {
    let known = || Kind::ALL.into_iter().filter(|kind| kind.treatment().is_some());
    known().find(|kind| kind.name() == name).ok_or_else(|| {
        let known: Vec<&str> = known().map(Kind::name).collect();
        Usage(format!("--only: nothing is planned for {name:?}, but for {}", known.join(", "))).into()
    })
}

/// An earlier scan.
fn read(path: &Path) -> anyhow::Result<Scan> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is no scan, as `scan --format json` writes it", path.display()))
}

fn options(wanted: &Wanted, policy: &PlanPolicy) -> ScanOptions {
    let policy = Policy {
        grace: policy.grace,
        allow_stale: policy.allows(Allow::Stale),
        scrub_time: wanted.scrub_time,
        stores: wanted.stores.clone(),
    };
    ScanOptions { policy, ..ScanOptions::default() }
}
