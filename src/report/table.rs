//! Tables: no lines, columns as wide as what is in them.

use comfy_table::{Cell, CellAlignment, Table};
use indicatif::BinaryBytes;
use rbd::LinkedImage;
use reconcile::{Finding, RbdImage, Scan};

/// Bytes, as people read them.
pub(crate) fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header.iter().copied());
    table
}

fn print(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| harmless(line.trim_end()) + "\n").collect()
}

/// Names and locations may hold anything; what a terminal would obey is escaped.
fn harmless(line: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    line.chars().map(escape).collect()
}

/// One field a line.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    fields.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// Images, one a line.
pub(crate) fn images(images: &[RbdImage]) -> String {
    let mut table = table(&["NAME", "SIZE", "CREATED", "SNAPSHOTS"]);
    for image in images {
        let snapshots: Vec<&str> = image.snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
        let created = image.created.map_or_else(String::new, |created| created.strftime("%F %T").to_string());
        table.add_row([
            Cell::new(&image.name),
            Cell::new(size(image.size)).set_alignment(CellAlignment::Right),
            Cell::new(created),
            Cell::new(snapshots.join(", ")),
        ]);
    }
    print(table)
}

/// Clones, one a line.
pub(crate) fn children(children: &[LinkedImage]) -> String {
    let mut table = table(&["POOL", "NAMESPACE", "IMAGE", "IN TRASH"]);
    for child in children {
        let in_trash = if child.in_trash { "yes" } else { "no" };
        table.add_row([child.pool.as_str(), &child.namespace, &child.name, in_trash]);
    }
    print(table)
}

/// A scan: findings worst first, then what they come to.
pub(crate) fn scan(scan: &Scan) -> String {
    let mut text = String::new();
    if !scan.findings.is_empty() {
        let mut table = table(&["SEVERITY", "KIND", "IMAGE", "USED", "EVIDENCE", "ACTION"]);
        for finding in &scan.findings {
            let severity = serde_json::to_value(finding.severity).unwrap_or_default();
            let action = match finding.blocked_by.as_slice() {
                [] => finding.action.to_string(),
                blocks => {
                    let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
                    format!("none: blocked by {}", blocks.join(", "))
                }
            };
            table.add_row([
                Cell::new(severity.as_str().unwrap_or_default()),
                Cell::new(finding.kind),
                Cell::new(finding.image.as_deref().or(finding.glance_id.as_deref()).unwrap_or_default()),
                Cell::new(finding.used_bytes.map_or_else(String::new, size)).set_alignment(CellAlignment::Right),
                Cell::new(evidence(finding)),
                Cell::new(action),
            ]);
        }
        text = print(table) + "\n";
    }
    let counts: Vec<String> = scan.summary.findings.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let found = if counts.is_empty() { "nothing found".to_owned() } else { counts.join(", ") };
    text += &format!("{} images in {}: {found}\n", scan.summary.images, scan.pools.join(", "));
    if scan.summary.reclaimable_bytes > 0 {
        text += &format!("{} can be reclaimed\n", size(scan.summary.reclaimable_bytes));
    }
    if !scan.complete {
        text += &format!(
            "INCOMPLETE: {} things could not be read; nothing may be removed on this account\n",
            scan.problems.len()
        );
    }
    text
}

/// The facts that decide most, in a few words.
fn evidence(finding: &Finding) -> String {
    let fact = |name: &str| finding.evidence.get(name);
    let text = |name: &str| fact(name).and_then(|value| value.as_str()).map(str::to_owned);
    let mut words = Vec::new();
    if let Some(status) = text("row_status") {
        let deleted = fact("row_deleted").and_then(serde_json::Value::as_bool).unwrap_or(false);
        words.push(if deleted { "row deleted".to_owned() } else { format!("row {status}") });
    } else if fact("snapshots").is_some() {
        words.push("no row".to_owned());
    }
    for (name, word) in [("created", "created"), ("missing", "no"), ("deferred_until", "kept until")] {
        if let Some(value) = text(name) {
            words.push(format!("{word} {}", value.split('.').next().unwrap_or_default()));
        }
    }
    for (name, word) in [("watchers", "open at"), ("copies", "copies"), ("children", "clones")] {
        if let Some(list) = fact(name).and_then(|value| value.as_array()).filter(|list| !list.is_empty()) {
            let list: Vec<&str> = list.iter().filter_map(|item| item.as_str()).collect();
            words.push(format!("{word} {}", list.join(" ")));
        }
    }
    words.join("; ")
}
