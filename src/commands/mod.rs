//! One file a command.

mod image;
mod scan;

use std::future::Future;

use clap::CommandFactory;

use crate::{
    cli::{Cli, Command},
    exit::{self, Interrupted},
};

/// Runs a command.
pub(crate) async fn run(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Scan(args) => scan::run(args).await,
        Command::Image(command) => image::run(command).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "glance-rbd", &mut std::io::stdout());
            Ok(exit::DONE)
        }
    }
}

/// Runs `work` until it ends or Ctrl-C is pressed, which drops it. Pressed once more, it ends the process at once.
async fn interruptible<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => {
            tokio::spawn(async {
                if tokio::signal::ctrl_c().await.is_ok() {
                    rbd::exit(exit::INTERRUPTED);
                }
            });
            Err(Interrupted.into())
        }
    }
}
