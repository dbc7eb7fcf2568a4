//! How results are printed: tables for people, JSON for programs.

pub(crate) mod table;

/// JSON as programs read it and people can: indented, with a newline at the end.
pub(crate) fn json(value: &impl serde::Serialize) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}
