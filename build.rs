//! Man pages, shell completions and the version stamp.
//!
//! Packagers set `GLANCE_RBD_ASSETS` to a directory to find the pages and completions in; without it they go to `OUT_DIR`.

use std::{env, fs, io, path::PathBuf, process::Command};

use clap::{CommandFactory, ValueEnum};

#[path = "src/cli/mod.rs"]
mod cli;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src/cli");
    println!("cargo::rerun-if-changed=.git/logs/HEAD"); // changes with every commit
    println!("cargo::rerun-if-env-changed=GLANCE_RBD_ASSETS");
    println!("cargo::rustc-env=GLANCE_RBD_VERSION={}", version());

    let out = env::var_os("GLANCE_RBD_ASSETS")
        .or_else(|| env::var_os("OUT_DIR"))
        .map(PathBuf::from)
        .expect("cargo sets OUT_DIR");
    let (man, completions) = (out.join("man"), out.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let mut command = cli::Cli::command().name("glance-rbd");
    clap_mangen::generate_to(command.clone(), &man)?;
    for shell in clap_complete::Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut command, "glance-rbd", &completions)?;
    }
    Ok(())
}

/// `0.1.0`, with the commit where there is one.
fn version() -> String {
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let git = Command::new("git").args(["rev-parse", "--short=9", "HEAD"]).output();
    match git {
        Ok(output) if output.status.success() => {
            format!("{version} ({})", String::from_utf8_lossy(&output.stdout).trim())
        }
        _ => version,
    }
}
