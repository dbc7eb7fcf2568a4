//! `glance-rbd scan`.

use std::{collections::HashMap, io::IsTerminal, sync::Mutex};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use reconcile::{Database, Kind, Policy, ScanOptions, Sources, Stage};

use super::{interruptible, output};
use crate::{
    cli::{
        Format,
        scan::ScanArgs,
        sources::{ConnectArgs, PoolName, SourceArgs},
    },
    exit::{self, Usage},
    report,
};

pub(super) async fn run(args: ScanArgs) -> anyhow::Result<u8> {
    // Wrong arguments are refused before anything is connected to.
    let only = kinds(&args.only)?;
    let (database, pool): (Database, PoolName) = sources(&args.sources)?;
    let result = interruptible(async {
        let cluster = connect(&args.sources.connect).await?;
        let pool = open(&cluster, &pool).await?;
        let bars = Bars::default();
        let sources = Sources { pools: vec![pool], databases: vec![database.clone()] };
        let policy = Policy { grace: args.grace, ..Policy::default() };
        let options = ScanOptions { policy, ..ScanOptions::default() };
        let scan = reconcile::scan(&sources, &options, Timestamp::now(), &|stage, done, total| {
            bars.show(stage, done, total);
        })
        .await;
        bars.clear();
        Ok(scan?)
    });
    let mut scan = result.await?;
    if !only.is_empty() {
        scan.retain(&only);
    }
    let text = match args.format {
        Format::Table => report::table::scan(&scan),
        Format::Json => report::json(&scan)?,
    };
    output::write(args.output.as_deref(), text.as_bytes())?;
    for problem in &scan.problems {
        eprintln!("incomplete: {}: {}", problem.what, problem.why);
    }
    Ok(match (scan.complete, scan.has_warnings()) {
        (false, _) => exit::ERROR,
        (true, true) => exit::FINDINGS,
        (true, false) => exit::DONE,
    })
}

/// One pool and one database, so far.
fn sources(args: &SourceArgs) -> anyhow::Result<(Database, PoolName)> {
    let pools = match args.pool.as_slice() {
        [] => vec!["images".parse().map_err(Usage)?],
        pools => pools.to_vec(),
    };
    match (pools.as_slice(), args.database.as_slice(), args.glance_conf.as_slice()) {
        ([pool], [database], []) => Ok((database.parse()?, pool.clone())),
        _ => Err(Usage("one pool and one database at a time, so far".into()).into()),
    }
}

async fn open(cluster: &rbd::Cluster, name: &PoolName) -> rbd::Result<rbd::Pool> {
    let pool = cluster.pool(&name.pool).await?;
    if name.namespace.is_empty() { Ok(pool) } else { pool.in_namespace(&name.namespace).await }
}

async fn connect(args: &ConnectArgs) -> rbd::Result<rbd::Cluster> {
    rbd::Cluster::connect(rbd::ConnectOptions {
        conf: args.ceph_conf.clone(),
        user: args.user.clone(),
        timeout: Some(args.timeout),
        settings: Vec::new(),
    })
    .await
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
struct Bars {
    all: MultiProgress,
    stages: Mutex<HashMap<Stage, ProgressBar>>,
}

impl Bars {
    fn show(&self, stage: Stage, done: u64, total: Option<u64>) {
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

    fn clear(&self) {
        // A bar that cannot be erased is no reason to fail.
        let _ = self.all.clear();
    }
}
