//! CSV (RFC 4180), for spreadsheets and scripts: one finding a line.

use reconcile::{Finding, Scan};

use super::severity;

const COLUMNS: [&str; 12] = [
    "severity",
    "kind",
    "pool",
    "namespace",
    "image",
    "image_id",
    "glance_id",
    "location",
    "used_bytes",
    "blocked_by",
    "action",
    "evidence",
];

/// The findings, worst first, under a line of column names.
///
/// # Errors
/// None in practice: memory takes every byte.
pub(crate) fn scan(scan: &Scan) -> anyhow::Result<Vec<u8>> {
    let mut csv = ::csv::WriterBuilder::new().terminator(::csv::Terminator::CRLF).from_writer(Vec::new());
    csv.write_record(COLUMNS)?;
    for finding in &scan.findings {
        csv.write_record(record(finding)?)?;
    }
    Ok(csv.into_inner()?)
}

fn record(finding: &Finding) -> anyhow::Result<[String; 12]> {
    let blocks: Vec<String> = finding.blocked_by.iter().map(ToString::to_string).collect();
    let text = |text: &Option<String>| inert(text.as_deref().unwrap_or_default());
    Ok([
        severity(finding.severity).to_owned(),
        finding.kind.to_string(),
        inert(&finding.pool),
        inert(&finding.namespace),
        text(&finding.image),
        text(&finding.image_id),
        text(&finding.glance_id),
        text(&finding.location),
        finding.used_bytes.map_or_else(String::new, |bytes| bytes.to_string()),
        blocks.join(" "),
        finding.action.to_string(),
        serde_json::to_string(&finding.evidence)?,
    ])
}

/// Whoever may name an image must not run formulas in the spreadsheet of whoever reads this.
fn inert(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { format!("'{text}") } else { text.to_owned() }
}
