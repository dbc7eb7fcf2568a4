//! `glance-rbd apply`.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use reconcile::{Applied, Faults, Health, Journal, Plan, Run, Step};

use super::{interrupted, interruptible, output, sources::Wanted};
use crate::{
    cli::{Format, reclaim::ApplyArgs},
    exit, report,
};

pub(super) async fn run(args: ApplyArgs) -> anyhow::Result<u8> {
    let text = std::fs::read(&args.plan).with_context(|| format!("cannot read {}", args.plan.display()))?;
    let plan = Plan::read(&text)?;
    let path = args.journal.unwrap_or_else(|| beside(&args.plan));
    let wanted = Wanted::read(&args.sources)?;
    let prepared = interruptible(async {
        let sources = wanted.open().await?;
        let health = match sources.pools.first() {
            Some(pool) => Health::read(pool.cluster()).await,
            None => Health::default(),
        };
        Ok((sources, health))
    });
    let (sources, health) = prepared.await?;
    let bar = Bar::new(plan.steps.len());
    let run = Run { sources: &sources, health, stop: &interrupted, progress: &|place, step| bar.show(place, step) };
    let applied = if args.yes {
        // A journal is begun only for a plan that is one for here and now.
        run.place(&plan)?;
        let mut journal = Journal::of(&plan, &path, Timestamp::now())?;
        journal.inject(faults());
        reconcile::apply(&plan, &run, &mut journal).await.map_err(anyhow::Error::from)
    } else {
        interruptible(async { Ok(reconcile::rehearse(&plan, &run).await?) }).await
    };
    bar.clear();
    let applied = applied?;
    let text = match args.format {
        Format::Json => report::json(&applied)?,
        Format::Table => report::reclaim::applied(&applied, &path),
    };
    output::print(&text)?;
    Ok(code(&applied))
}

/// The exit code of what was done.
pub(super) fn code(applied: &Applied) -> u8 {
    if interrupted() && applied.summary.left > 0 {
        return exit::INTERRUPTED;
    }
    let summary = &applied.summary;
    if summary.skipped + summary.failed + summary.left > 0 { exit::PARTLY } else { exit::DONE }
}

/// The journal that a plan has unless told otherwise.
fn beside(plan: &Path) -> PathBuf {
    let mut name = plan.as_os_str().to_owned();
    name.push(".journal");
    name.into()
}

/// What the tests of crashes and races ask for.
pub(super) fn faults() -> Faults {
    let abort_after = std::env::var("GLANCE_RBD_TEST_ABORT_AFTER").ok().and_then(|lines| lines.parse().ok());
    Faults { abort_after, hold: std::env::var_os("GLANCE_RBD_TEST_HOLD").map(PathBuf::from) }
}

/// How far it has come; nothing where standard error is no terminal.
pub(super) struct Bar(Option<ProgressBar>);

impl Bar {
    pub(super) fn new(steps: usize) -> Self {
        Self(std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("[{bar:40}] {human_pos}/{human_len} {msg}");
            ProgressBar::new(steps as u64).with_style(style.expect("a valid template").progress_chars("=> "))
        }))
    }

    pub(super) fn show(&self, place: usize, step: &Step) {
        if let Some(bar) = &self.0 {
            bar.set_position(place as u64);
            bar.set_message(format!("{} {}", step.action, report::harmless(&step.image)));
        }
    }

    pub(super) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
