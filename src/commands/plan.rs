//! `glance-rbd plan`.

use jiff::Timestamp;
use reconcile::{Allow, Health, Kind, Plan, PlanPolicy, Policy, Scan, ScanOptions};

use super::{interruptible, output, scan};
use crate::{
    cli::plan::PlanArgs,
    exit::{self, Usage},
    report,
};

pub(super) async fn run(args: PlanArgs) -> anyhow::Result<u8> {
    // Wrong arguments are refused before anything is connected to.
    let policy = policy(&args)?;
    let earlier = args.seen.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<Scan>>>()?;
    for allow in &policy.allow {
        eprintln!("warning: --allow {allow}: {}", allow.meaning());
    }
    todo!()
}
