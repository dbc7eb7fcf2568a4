//! The exit codes, which scripts rely on.

use std::fmt;

use crate::hint;

/// Nothing found, or done.
pub(crate) const DONE: u8 = 0;
/// An error, or an incomplete scan.
pub(crate) const ERROR: u8 = 1;
/// Wrong usage, as clap has it.
pub(crate) const USAGE: u8 = 2;
/// Findings of severity warning or critical.
pub(crate) const FINDINGS: u8 = 3;
/// Applied, but some steps were skipped or failed.
pub(crate) const PARTLY: u8 = 4;
/// Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// The user stopped the command.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// An argument that clap could not know to be wrong.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Prints an error, and what to do about it, and gives the code.
pub(crate) fn error(error: &anyhow::Error) -> u8 {
    if error.is::<Interrupted>() {
        eprintln!("interrupted");
        return INTERRUPTED;
    }
    eprintln!("error: {error:#}");
    if error.is::<Usage>() {
        eprintln!("\nFor more information, try '--help'.");
        return USAGE;
    }
    if let Some(hint) = hint::hint(error) {
        eprintln!("hint: {hint}");
    }
    ERROR
}
