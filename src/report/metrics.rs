//! Metrics, as a file for the textfile collector of Prometheus' node exporter.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
    time::Duration,
};

use jiff::Timestamp;
use reconcile::{Kind, Scan};

use super::{is_reclaimable, path, severity};

/// What a scan came to. Without one, because it failed, that is what is told: a count that nobody made is left out, not
/// nought.
pub(crate) fn text(scan: Option<&Scan>, started: Timestamp, took: Duration) -> String {
    let mut text = String::new();
    let complete = scan.is_some_and(|scan| scan.complete);
    let started = started.as_duration().as_secs_f64();
    gauge(&mut text, "scan_complete", "Whether the last scan could read everything.", [("", u8::from(complete))]);
    gauge(&mut text, "scan_timestamp_seconds", "When the last scan began.", [("", started)]);
    gauge(&mut text, "scan_duration_seconds", "How long it took.", [("", took.as_secs_f64())]);
    let Some(scan) = scan else { return text };

    gauge(&mut text, "scan_problems", "What the last scan could not read.", [("", scan.problems.len())]);
    let pools = &scan.summary.pools;
    let label = |pool: &str, namespace: &str| {
        path(pool, namespace).replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
    };
    let by_pool = || pools.iter().map(|pool| (format!(r#"pool="{}""#, label(&pool.pool, &pool.namespace)), pool));
    gauge(&mut text, "images", "Images in the pool.", by_pool().map(|(label, pool)| (label, pool.images)));
    gauge(&mut text, "trash_images", "Images in the pool's trash.", by_pool().map(|(label, pool)| (label, pool.trash)));
    let used = by_pool().filter_map(|(label, pool)| Some((label, pool.used_bytes?)));
    gauge(&mut text, "used_bytes", "What the pool's images take up, as rbd du counts it.", used);

    // Every kind in every pool, for an alert on what was never seen before needs its nought.
    let mut found: BTreeMap<(String, Kind), (u64, u64)> = BTreeMap::new();
    let mut reclaimable: BTreeMap<String, u64> = BTreeMap::new();
    for pool in pools {
        let label = label(&pool.pool, &pool.namespace);
        found.extend(Kind::ALL.map(|kind| ((label.clone(), kind), (0, 0))));
        reclaimable.insert(label, 0);
    }
    for finding in &scan.findings {
        let label = label(&finding.pool, &finding.namespace);
        let bytes = finding.used_bytes.unwrap_or(0);
        let (count, sum) = found.entry((label.clone(), finding.kind)).or_default();
        (*count, *sum) = (*count + 1, *sum + bytes);
        if is_reclaimable(finding) {
            *reclaimable.entry(label).or_default() += bytes;
        }
    }
    let labels =
        |pool: &str, kind: Kind| format!(r#"pool="{pool}",kind="{kind}",severity="{}""#, severity(kind.severity()));
    let counts = found.iter().map(|((pool, kind), (count, _))| (labels(pool, *kind), count));
    gauge(&mut text, "findings", "Findings.", counts);
    let bytes = found.iter().map(|((pool, kind), (_, bytes))| (labels(pool, *kind), bytes));
    gauge(&mut text, "findings_bytes", "What the images of these findings take up, where space is at stake.", bytes);
    let reclaimable = reclaimable.iter().map(|(pool, bytes)| (format!(r#"pool="{pool}""#), bytes));
    gauge(&mut text, "reclaimable_bytes", "What can be won by putting images into the trash.", reclaimable);
    text
}

fn gauge(text: &mut String, name: &str, help: &str, values: impl IntoIterator<Item = (impl AsRef<str>, impl Display)>) {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return;
    }
    // Writing to memory does not fail.
    let _ = writeln!(text, "# HELP glance_rbd_{name} {help}\n# TYPE glance_rbd_{name} gauge");
    for (labels, value) in values {
        let _ = match labels.as_ref() {
            "" => writeln!(text, "glance_rbd_{name} {value}"),
            labels => writeln!(text, "glance_rbd_{name}{{{labels}}} {value}"),
        };
    }
}
