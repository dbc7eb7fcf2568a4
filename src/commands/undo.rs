//! `glance-rbd undo`.

use reconcile::Journal;

use super::{interrupted, interruptible, output, sources};
use crate::{
    cli::{Format, reclaim::UndoArgs},
    exit, report,
};

pub(super) async fn run(args: UndoArgs) -> anyhow::Result<u8> {
    let mut journal = Journal::open(&args.journal)?;
    journal.inject(super::apply::faults());
    let opened = interruptible(async {
        let cluster = sources::connect(&args.connect).await?;
        let mut pools = Vec::new();
        for pool in &journal.header().pools {
            pools.push(cluster.pool(&pool.name).await?.in_namespace(&pool.namespace).await?);
        }
        Ok(pools)
    });
    let pools = opened.await?;
    let undone = reconcile::undo(&mut journal, &pools, !args.yes, &interrupted).await?;
    let text = match args.format {
        Format::Json => report::json(&undone)?,
        Format::Table => report::reclaim::undone(&undone),
    };
    output::print(&text)?;
    Ok(match (&undone.summary.left, undone.summary.lost) {
        (1.., _) if interrupted() => exit::INTERRUPTED,
        (0, 0) => exit::DONE,
        _ => exit::PARTLY,
    })
}
