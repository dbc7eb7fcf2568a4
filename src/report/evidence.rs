//! The facts that decide most, in a few words.

use reconcile::{Finding, Kind};
use serde_json::Value;

/// What a finding rests on, for a line of a table; JSON has all of it.
pub(super) fn evidence(finding: &Finding) -> String {
    let fact = |name: &str| finding.evidence.get(name);
    let text = |name: &str| fact(name).and_then(Value::as_str);
    let mut words = Vec::new();
    if let Some(id) = finding.glance_id.as_deref().filter(|id| finding.image.as_deref().is_some_and(|name| name != *id))
    {
        words.push(format!("of {id}"));
    }
    if let Some(status) = text("row_status") {
        let deleted = fact("row_deleted").and_then(Value::as_bool).unwrap_or(false);
        words.push(if deleted { "row deleted".to_owned() } else { format!("row {status}") });
    } else if finding.kind == Kind::Orphan {
        words.push("no row".to_owned());
    }
    if finding.kind == Kind::SizeMismatch {
        let bytes = |name: &str| fact(name).and_then(Value::as_u64).unwrap_or_default();
        words.push(format!("{} bytes, and the row says {}", bytes("size"), bytes("row_size")));
    }
    for (name, word) in WORDS {
        if let Some(value) = fact(name).and_then(plain) {
            words.push(format!("{word} {value}").trim_start().to_owned());
        }
    }
    words.join("; ")
}

/// Facts that are worth a place, and what to call them.
const WORDS: [(&str, &str); 15] = [
    ("because", ""),
    ("why", ""),
    ("created", "created"),
    ("since", "since"),
    ("trashed", "trashed"),
    ("deferred_until", "kept until"),
    ("missing", "no"),
    ("snapshot", "snapshot"),
    ("extra", ""),
    ("store", "store"),
    ("fsid", "of cluster"),
    ("watchers", "open at"),
    ("copies", "copies"),
    ("glance_ids", "of"),
    ("children", "clones"),
];

/// A fact without brackets and fractions of seconds; nothing where there is nothing to tell.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(shorten(text).to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(items) if !items.is_empty() => {
            let items: Vec<String> = items.iter().filter_map(plain).collect();
            Some(items.join(" "))
        }
        Value::Object(fields) => fields.get("name").and_then(plain),
        _ => None,
    }
}

/// A time to the second; anything else as it is.
fn shorten(text: &str) -> &str {
    let is_time = text.parse::<jiff::Timestamp>().is_ok();
    if is_time { text.split('.').next().unwrap_or(text) } else { text }
}
