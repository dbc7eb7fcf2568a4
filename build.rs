//! Man pages, shell completions and the version stamp.
//!
//! Packagers set `GLANCE_RBD_ASSETS` to a directory to find the pages and completions in; without it they go to `OUT_DIR`.

use std::{env, fs, io, path::PathBuf, process::Command};

use clap::{CommandFactory, ValueEnum};

#[path = "src/cli/mod.rs"]
mod cli;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src/cli");
    // Changes with every commit; a work tree of its own has it elsewhere. Cargo would run this each time for a file that is
    // not there.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
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
    match git(&["rev-parse", "--short=9", "HEAD"]) {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    }
}

/// What git says, where there is one and it is asked in a repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
