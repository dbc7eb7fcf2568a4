//! The forms a scan is printed in, held to the letter: scripts read them.

use std::collections::HashMap;

use serde_json::Value;

use crate::lab::{MIB, Ran, TestDatabase, TestPool, noise, rbd, run, uuid};

/// A pool with something of every severity, one clone, and a name that a spreadsheet would run.
struct Sample {
    pool: TestPool,
    database: TestDatabase,
    /// What differs from run to run, and what to call it.
    names: Vec<(String, &'static str)>,
}

impl Sample {
    fn new() -> Self {
        let (pool, database) = (TestPool::new(), TestDatabase::new());
        let [orphan, parent, missing, kept] = [(); 4].map(|()| uuid());
        pool.put(&orphan, &noise(1, MIB));
        pool.put(&parent, &noise(2, 2 * MIB));
        database.row(&parent, "deleted");
        let child = format!("{}/=child", pool.0);
        rbd(&["clone", &format!("{}/{parent}@snap", pool.0), &child]);
        let put = pool.put(&missing, &noise(3, 1000));
        database.active(&missing, &put);
        run(&["image", "rm", &missing, "--pool", &pool.0, "--user", "glance"]).ok();
        database.active(&kept, &pool.put(&kept, &noise(4, 1000)));
        let fsid = put["location"].as_str().unwrap().split('/').nth(2).unwrap().to_owned();
        let names = vec![
            (orphan, "ORPHAN------------------------------"),
            (parent, "PARENT------------------------------"),
            (missing, "MISSING-----------------------------"),
            (kept, "KEPT--------------------------------"),
            (fsid, "FSID"),
            (pool.0.clone(), "POOL---------"),
            (database.url().trim_start_matches("sqlite:///").to_owned(), "DATABASE"),
        ];
        Self { pool, database, names }
    }

    fn scan(&self, arguments: &[&str]) -> Ran {
        let url = self.database.url();
        let common = ["scan", "--database", &url, "--pool", &self.pool.0, "--user", "scan", "--grace", "0"];
        run(&[&common, arguments].concat())
    }

    /// Text without what differs from run to run.
    fn settled(&self, text: &str) -> String {
        let named = self.names.iter().fold(text.to_owned(), |text, (what, name)| text.replace(what, name));
        let is_end = |c: char| !(c.is_ascii_alphanumeric() || "-:.".contains(c));
        let settle = |word: &str| {
            let time = word.strip_suffix('Z').unwrap_or(word).parse::<jiff::civil::DateTime>();
            // As long in a table, where times are whole seconds.
            if word.contains(':') && time.is_ok() { "TIME---------------".to_owned() } else { word.to_owned() }
        };
        named
            .split_inclusive(is_end)
            .map(|piece| match piece.strip_suffix(is_end) {
                Some(word) => settle(word) + &piece[word.len()..],
                None => settle(piece),
            })
            .collect()
    }
}

#[test]
fn a_table_for_people() {
    let sample = Sample::new();
    let ran = sample.scan(&[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (3, ""));
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(!text.contains('\u{1b}'), "no colours where there is no terminal");
    insta::assert_snapshot!(sample.settled(&text));

    let mut coloured = crate::lab::program();
    let coloured = coloured.args(["scan", "--database", &sample.database.url(), "--pool", &sample.pool.0]);
    let coloured = coloured.args(["--user", "scan", "--grace", "0"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    let coloured = String::from_utf8(coloured.stdout).unwrap();
    assert!(coloured.contains("\u{1b}[1m\u{1b}[31mCRITICAL\u{1b}[0m "), "{coloured}");
}

#[test]
fn json_for_programs() {
    let sample = Sample::new();
    let mut scan = sample.scan(&["--format", "json", "--usage"]).json();
    settle_ids(&mut scan, &mut HashMap::new());
    insta::assert_snapshot!(sample.settled(&serde_json::to_string_pretty(&scan).unwrap()));
}

/// RBD's ids and pools' numbers differ from run to run; what is the same stays the same.
fn settle_ids(value: &mut Value, known: &mut HashMap<String, usize>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), &*field) {
                    ("image_id", Value::String(id)) => {
                        let next = known.len() + 1;
                        *field = format!("ID{}", known.entry(id.clone()).or_insert(next)).into();
                    }
                    ("id", Value::Number(_)) => *field = "NUMBER".into(),
                    _ => settle_ids(field, known),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| settle_ids(item, known)),
        _ => {}
    }
}

#[test]
fn csv_for_spreadsheets() {
    let sample = Sample::new();
    let csv = String::from_utf8(sample.scan(&["--format", "csv"]).stdout).unwrap();
    let lines: Vec<&str> = csv.split_terminator("\r\n").collect();
    assert!(lines.iter().all(|line| !line.contains('\n')), "{csv}");
    let columns =
        "severity,kind,pool,namespace,image,image_id,glance_id,location,used_bytes,blocked_by,action,evidence";
    assert_eq!(lines[0], columns);
    let kinds: Vec<&str> = lines[1..].iter().map(|line| line.split(',').nth(1).unwrap()).collect();
    assert_eq!(kinds, ["missing-image", "orphan", "orphan-deleted", "foreign-image"]);
    assert!(lines[2].contains(&format!(",{MIB},,trash,\"{{\"\"")), "quotes are doubled: {}", lines[2]);
    assert!(lines[4].contains(",'=child,"), "no formula: {}", lines[4]);
}

#[test]
fn metrics_for_prometheus() {
    let sample = Sample::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("glance.prom").display().to_string();
    // Of all that was found, whatever is reported.
    let ran = sample.scan(&["--metrics", &path, "--only", "foreign-image", "--usage"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let metrics = std::fs::read_to_string(&path).unwrap();
    let settled = metrics.lines().map(|line| match line.split_once(' ') {
        Some((name @ ("glance_rbd_scan_timestamp_seconds" | "glance_rbd_scan_duration_seconds"), _)) => {
            format!("{name} SECONDS\n")
        }
        _ => format!("{line}\n"),
    });
    insta::assert_snapshot!(sample.settled(&settled.collect::<String>()));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");

    // A scan that fails says so, and counts nothing.
    let ran = run(&["scan", "--database", "sqlite:////nonexistent", "--pool", &sample.pool.0, "--metrics", &path]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let metrics = std::fs::read_to_string(&path).unwrap();
    assert!(
        metrics.contains("\nglance_rbd_scan_complete 0\n") && !metrics.contains("glance_rbd_findings"),
        "{metrics}"
    );
}
