//! `glance-rbd trash …`.

use anyhow::bail;
use jiff::Timestamp;
use reconcile::{Allow, Finding, Health, Kind, Plan, PlanPolicy, Run, Scan, ScanOptions, TrashedImage, is_glance_name};

use super::{
    apply::{Bar, code},
    interrupted, interruptible, output,
    sources::{self, Wanted},
};
use crate::{
    cli::{
        Format,
        reclaim::{PurgeArgs, TrashCommand},
    },
    exit::{self, Usage},
    report,
};

pub(super) async fn run(command: TrashCommand) -> anyhow::Result<u8> {
    match command {
        TrashCommand::List { format, cluster } => {
            let list = interruptible(async {
                let pool = sources::pool(&cluster).await?;
                Ok(reconcile::trash_list(&pool, Timestamp::now()).await?)
            });
            let list = list.await?;
            output::print(&match format {
                Format::Json => report::json(&list)?,
                Format::Table => report::reclaim::trash(&list),
            })?;
            Ok(exit::DONE)
        }
        TrashCommand::Restore { id, name, cluster } => {
            // Once begun, it is ended.
            let pool = interruptible(async { Ok(sources::pool(&cluster).await?) }).await?;
            let name = reconcile::restore_trashed(&pool, &id, name.as_deref()).await?;
            output::print(&format!("{} is back\n", report::harmless(&pool.path(&name))))?;
            Ok(exit::DONE)
        }
        TrashCommand::Purge(args) => purge(args).await,
    }
}

/// A plan of purges alone, made and applied at once: the same safeguards, each entry looked at again.
async fn purge(args: PurgeArgs) -> anyhow::Result<u8> {
    let mut allow = vec![Allow::Unseen];
    for name in &args.allow {
        allow.push(name.parse().map_err(Usage)?);
    }
    let policy = PlanPolicy {
        only: vec![Kind::TrashExpired],
        grace: std::time::Duration::ZERO,
        max_images: u64::MAX,
        max_percent: 100,
        allow,
        ..PlanPolicy::default()
    };
    let wanted = Wanted::read(&args.sources)?;
    let prepared = interruptible(async {
        let sources = wanted.open().await?;
        let Some(pool) = sources.pools.first() else { bail!("no pool") };
        let health = Health::read(pool.cluster()).await;
        let options = ScanOptions { policy: reconcile::policy_of(&policy), ..ScanOptions::default() };
        let scan = reconcile::scan(&sources, &options, Timestamp::now(), &|_, _, _| {}).await?;
        Ok((sources, health, scan))
    });
    let (sources, health, scan) = prepared.await?;
    let plan = reconcile::plan(&scan, &[], &health, &policy, Timestamp::now());
    let bar = Bar::new(plan.steps.len());
    let run = Run { sources: &sources, health, stop: &interrupted, progress: &|place, step| bar.show(place, step) };
    let applied = reconcile::purge(&plan, &run, !args.yes).await;
    bar.clear();
    let applied = applied?;
    let mut kept = Vec::new();
    for pool in &sources.pools {
        let left = reconcile::trash_list(pool, Timestamp::now()).await?;
        kept.extend(left.into_iter().filter(|entry| entry.deferred_until < Timestamp::now()));
    }
    kept.retain(|entry| !applied.steps.iter().any(|step| step.image_id == entry.image_id));
    for entry in kept.iter_mut().filter(|entry| entry.kept.is_none()) {
        entry.kept = Some(why_kept(entry, &scan, &plan));
    }
    output::print(&match args.format {
        Format::Json => report::json(&report::reclaim::Purged { applied: &applied, kept: &kept })?,
        Format::Table => report::reclaim::purged(&applied, &kept),
    })?;
    Ok(match code(&applied) {
        exit::DONE if !kept.is_empty() => exit::PARTLY,
        code => code,
    })
}

/// Why nothing was planned for an entry that nothing in the pool speaks against.
fn why_kept(entry: &TrashedImage, scan: &Scan, plan: &Plan) -> String {
    if !is_glance_name(&entry.image) {
        return "its name is not Glance's".into();
    }
    let of_it = |finding: &&Finding| finding.image_id.as_deref() == Some(&entry.image_id);
    let owned = scan.findings.iter().filter(of_it).find(|finding| finding.kind != Kind::TrashExpired);
    if let Some(finding) = owned {
        let location = finding.location.as_deref().map_or_else(String::new, |location| format!(": {location}"));
        return format!("it is {}{location}", finding.kind);
    }
    let left_out = plan.left_out.iter().find(|left| left.what.ends_with(&entry.image));
    left_out.map_or_else(|| "it came after the look at the databases".into(), |left| left.why.clone())
}
