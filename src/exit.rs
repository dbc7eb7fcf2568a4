//! The exit codes, which scripts rely on.

use std::{fmt, process::ExitCode};

use crate::hint;

/// Nothing found, or done.
pub(crate) const DONE: u8 = 0;
/// An error, or an incomplete scan.
pub(crate) const ERROR: u8 = 1;
/// Findings of severity warning or critical.
pub(crate) const FINDINGS: u8 = 3;
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

/// Prints an error, and what to do about it, and gives the code.
pub(crate) fn error(error: &anyhow::Error) -> ExitCode {
    if error.is::<Interrupted>() {
        eprintln!("interrupted");
        return INTERRUPTED.into();
    }
    eprintln!("error: {error:#}");
    if let Some(hint) = hint::hint(error) {
        eprintln!("hint: {hint}");
    }
    ERROR.into()
}
