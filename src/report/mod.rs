//! How results are printed: tables for people, JSON and CSV for programs, metrics for Prometheus.

pub(crate) mod csv;
mod evidence;
pub(crate) mod findings;
pub(crate) mod metrics;
pub(crate) mod plan;
pub(crate) mod reclaim;
pub(crate) mod table;

use reconcile::{Finding, Severity};

/// JSON as programs read it and people can: indented, with a newline at the end.
pub(crate) fn json(value: &impl serde::Serialize) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Names and locations may hold anything; what a terminal would obey is escaped.
pub(crate) fn harmless(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

/// `pool`, or `pool/namespace`.
fn path(pool: &str, namespace: &str) -> String {
    if namespace.is_empty() { pool.to_owned() } else { format!("{pool}/{namespace}") }
}

/// Whether its bytes can be won by putting the image into the trash.
fn is_reclaimable(finding: &Finding) -> bool {
    finding.kind.is_reclaimable() && finding.blocked_by.is_empty()
}
