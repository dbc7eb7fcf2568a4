//! One file a command.

mod apply;
mod image;
mod output;
mod plan;
mod scan;
mod sources;
mod trash;
mod undo;

use std::{future::Future, sync::LazyLock};

use clap::CommandFactory;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    cli::{Cli, Command},
    exit::{self, Interrupted},
};

/// Runs a command.
pub(crate) async fn run(command: Command) -> anyhow::Result<u8> {
    listen()?;
    match command {
        Command::Scan(args) => scan::run(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Apply(args) => apply::run(args).await,
        Command::Undo(args) => undo::run(args).await,
        Command::Trash(command) => trash::run(command).await,
        Command::Image(command) => image::run(command).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "glance-rbd", &mut script);
            output::write(None, &script)?;
            Ok(exit::DONE)
        }
    }
}

/// Ctrl-C, SIGTERM or SIGHUP, from now on: the first is told to whoever asks, the second ends the process at once.
fn listen() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
            if last {
                rbd::exit(exit::INTERRUPTED);
            }
            INTERRUPTED.send_replace(true);
        }
    });
    Ok(())
}

static INTERRUPTED: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// Whether the user wants this to stop, once what was begun is ended.
fn interrupted() -> bool {
    *INTERRUPTED.borrow()
}

/// Runs `work` until it ends or the user interrupts it, which drops it.
async fn interruptible<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut interrupted = INTERRUPTED.subscribe();
    tokio::select! {
        biased;
        // Its sender is static.
        _ = interrupted.wait_for(|interrupted| *interrupted) => Err(Interrupted.into()),
        result = work => result,
    }
}
