//! `glance-rbd scan`.

use std::{collections::HashMap, io::IsTerminal, path::Path, sync::Mutex, time::Instant};

use anstream::{AutoStream, ColorChoice};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use reconcile::{Kind, Policy, Scan, ScanOptions, Stage};

use super::{interruptible, output, sources::Wanted};
use crate::{
    cli::scan::{Format, ScanArgs},
    exit::{self, Usage},
    report::{self, findings::Look},
};

pub(super) async fn run(args: ScanArgs) -> anyhow::Result<u8> {
    // Wrong arguments are refused before anything is connected to.
    let only = kinds(&args.only)?;
    let wanted = Wanted::read(&args.sources)?;
    let (began, started) = (Instant::now(), Timestamp::now());
    let scanned = interruptible(scan(&args, &wanted, started)).await;
    let told = args.metrics.as_deref().map_or(Ok(()), |path| {
        let text = report::metrics::text(scanned.as_ref().ok(), started, began.elapsed());
        output::write(Some(path), text.as_bytes())
    });
    let mut scan = scanned?;
    if !only.is_empty() {
        scan.retain(&only);
    }
    output::write(args.output.as_deref(), &text(&scan, &args)?)?;
    for problem in &scan.problems {
        eprintln!("incomplete: {}: {}", report::harmless(&problem.what), report::harmless(&problem.why));
    }
    for note in &scan.notes {
        eprintln!("note: {}: {}", report::harmless(&note.what), report::harmless(&note.why));
    }
    told?;
    Ok(match (scan.complete, scan.has_warnings()) {
        (false, _) => exit::ERROR,
        (true, true) => exit::FINDINGS,
        (true, false) => exit::DONE,
    })
}

async fn scan(args: &ScanArgs, wanted: &Wanted, now: Timestamp) -> anyhow::Result<Scan> {
    let sources = wanted.open().await?;
    let options = ScanOptions {
        policy: Policy {
            grace: args.grace,
            scrub_time: wanted.scrub_time,
            stores: wanted.stores.clone(),
            ..Policy::default()
        },
        usage: args.usage,
        verify_sample: args.verify_sample,
    };
    let bars = Bars::default();
    let scan = reconcile::scan(&sources, &options, now, &|stage, done, total| bars.show(stage, done, total)).await;
    bars.clear();
    Ok(scan?)
}

/// The result, in the form that was asked for.
fn text(scan: &Scan, args: &ScanArgs) -> anyhow::Result<Vec<u8>> {
    Ok(match args.format {
        Format::Table => {
            let look = Look { colours: is_colourful(args.output.as_deref()), all: !args.only.is_empty() };
            report::findings::scan(scan, look).into_bytes()
        }
        Format::Json => report::json(scan)?.into_bytes(),
        Format::Csv => report::csv::scan(scan)?,
    })
}

/// Whether what is written there is for a terminal that shows colours; `NO_COLOR` and `CLICOLOR_FORCE` are heeded.
fn is_colourful(output: Option<&Path>) -> bool {
    output.is_none() && AutoStream::choice(&std::io::stdout()) != ColorChoice::Never
}

fn kinds(names: &[String]) -> anyhow::Result<Vec<Kind>> {
    let find = |name: &String| {
        Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            Usage(format!("--only: no kind {name:?}; there are {}", known.join(", "))).into()
        })
    };
    names.iter().map(find).collect()
}

/// A progress bar for each stage; none where standard error is no terminal.
#[derive(Default)]
pub(super) struct Bars {
    all: MultiProgress,
    stages: Mutex<HashMap<Stage, ProgressBar>>,
}

impl Bars {
    pub(super) fn show(&self, stage: Stage, done: u64, total: Option<u64>) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let (name, unit) = match stage {
            Stage::Pool => ("pool", "images"),
            Stage::Database => ("database", "rows"),
            Stage::Suspects => ("suspects", "images"),
        };
        let Ok(mut stages) = self.stages.lock() else { return };
        let bar = stages.entry(stage).or_insert_with(|| {
            let style = match total {
                Some(_) => "{prefix:9} [{bar:40}] {human_pos}/{human_len} {msg}",
                None => "{prefix:9} {human_pos} {msg}",
            };
            let style = ProgressStyle::with_template(style).expect("a valid template").progress_chars("=> ");
            let bar = ProgressBar::new(total.unwrap_or(0)).with_style(style).with_prefix(name).with_message(unit);
            self.all.add(bar)
        });
        bar.set_position(done);
    }

    pub(super) fn clear(&self) {
        // A bar that cannot be erased is no reason to fail.
        let _ = self.all.clear();
    }
}
