//! A scan for people: what was found, worst first, what it comes to, and what to do next.

use std::collections::HashMap;

use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, CellAlignment};
use reconcile::{Finding, Kind, Scan, Severity};

use super::{evidence::evidence, harmless, is_reclaimable, path, table};

/// Of findings that are only worth knowing, how many of a kind are listed.
const LISTED: usize = 10;

/// How the table is to look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Whether severities are coloured.
    pub(crate) colours: bool,
    /// Whether every finding is listed, were they thousands.
    pub(crate) all: bool,
}

/// A scan: findings by severity, then what they come to, then what to do.
pub(crate) fn scan(scan: &Scan, look: Look) -> String {
    let mut text = list(scan, look);
    let counts: Vec<String> = scan.summary.findings.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let found = if counts.is_empty() { "nothing found".to_owned() } else { counts.join(", ") };
    let used = scan.summary.used_bytes.map_or_else(String::new, |used| format!(" ({} used)", table::size(used)));
    text += &format!("{} images in {}{used}: {found}\n", scan.summary.images, harmless(&scan.pools.join(", ")));
    if scan.complete && scan.findings.iter().any(is_reclaimable) {
        let bytes = table::size(scan.summary.reclaimable_bytes);
        text += &format!(
            "{bytes} can be reclaimed. Next: glance-rbd plan, with the same sources and -o plan.json; it changes nothing\n"
        );
    }
    if !scan.complete {
        let incomplete = paint("INCOMPLETE", Severity::Critical, look);
        let count = scan.problems.len();
        text += &format!("{incomplete}: {count} things could not be read; nothing may be removed on this account\n");
    }
    text
}

/// One table, its columns as wide throughout, with a head for each severity.
fn list(scan: &Scan, look: Look) -> String {
    let mut table = table::plain();
    let mut heads = Vec::new();
    let mut rows = 0;
    let mut last = None;
    let mut listed: HashMap<Kind, usize> = HashMap::new();
    for finding in &scan.findings {
        let number = listed.entry(finding.kind).or_default();
        *number += 1;
        if finding.severity == Severity::Info && !look.all && *number > LISTED {
            continue;
        }
        if last != Some(finding.severity) {
            last = Some(finding.severity);
            heads.push((rows, finding.severity));
            let head = super::severity(finding.severity).to_uppercase();
            table.add_row([head.as_str(), "IMAGE", "USED", "EVIDENCE", "WHAT TO DO"]);
            rows += 1;
        }
        table.add_row([
            Cell::new(finding.kind),
            Cell::new(name(finding, scan)),
            Cell::new(finding.used_bytes.map_or_else(String::new, table::size)).set_alignment(CellAlignment::Right),
            Cell::new(harmless(&evidence(finding))),
            Cell::new(action(finding)),
        ]);
        rows += 1;
        let of_kind = scan.summary.findings.get(&finding.kind).copied().unwrap_or(0);
        if finding.severity == Severity::Info && !look.all && *number == LISTED && of_kind > LISTED as u64 {
            let more = format!("and {} more: --only {}", of_kind - LISTED as u64, finding.kind);
            table.add_row([finding.kind.name(), &more]);
            rows += 1;
        }
    }
    let mut text = String::new();
    for (row, line) in table::print(table).lines().enumerate() {
        match heads.iter().find(|(head, _)| *head == row) {
            Some((_, severity)) => {
                let (word, rest) = line.split_at(super::severity(*severity).len());
                let gap = if row == 0 { "" } else { "\n" };
                text += &format!("{gap}{}{rest}\n", paint(word, *severity, look));
            }
            None => text += &format!("{line}\n"),
        }
    }
    if rows > 0 { text + "\n" } else { text }
}

/// The image as it is called here, with its pool where there are several.
fn name(finding: &Finding, scan: &Scan) -> String {
    let name = finding.image.as_deref().or(finding.glance_id.as_deref()).or(finding.image_id.as_deref());
    let name = harmless(name.unwrap_or_default());
    match scan.pools.as_slice() {
        [_] => name,
        _ => format!("{}/{name}", harmless(&path(&finding.pool, &finding.namespace))),
    }
}

fn action(finding: &Finding) -> String {
    let blocks: Vec<String> = finding.blocked_by.iter().map(ToString::to_string).collect();
    match blocks.as_slice() {
        [] => finding.action.to_string(),
        blocks => format!("none: blocked by {}", blocks.join(", ")),
    }
}

fn paint(text: &str, severity: Severity, look: Look) -> String {
    if !look.colours {
        return text.to_owned();
    }
    let colour = match severity {
        Severity::Critical => AnsiColor::Red,
        Severity::Warning => AnsiColor::Yellow,
        Severity::Info => AnsiColor::Cyan,
    };
    let style = Style::new().bold().fg_color(Some(colour.into()));
    format!("{style}{text}{style:#}")
}
