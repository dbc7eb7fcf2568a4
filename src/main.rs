//! `glance-rbd`: the command line. This file only maps results to exit codes.

mod cli;
mod commands;
mod exit;
mod hint;
mod report;

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use clap::Parser;

/// How long to wait for handles to close when all is done. A cluster that does not answer must not keep the process.
const CLOSE: Duration = Duration::from_secs(10);

fn main() {
    let cli = cli::Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter.unwrap_or_else(|_| "warn".into()))
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => end(exit::error(&error.into())),
    };
    runtime.block_on(async {
        let code = commands::run(cli.command).await.unwrap_or_else(|error| exit::error(&error));
        // What stays open then is given up with the process.
        let _ = tokio::time::timeout(CLOSE, rbd::settled()).await;
        // In here, for a runtime that is dropped waits for its blocking calls, into a cluster that may never answer.
        end(code)
    });
}

fn end(code: u8) -> ! {
    // What cannot be printed cannot be told either.
    let _ = std::io::stdout().flush();
    rbd::exit(code)
}
