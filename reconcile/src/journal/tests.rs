//! The file on its own: what is read back, what is mended, what is refused untouched.

use std::path::Path;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn header() -> Header {
    Header {
        journal: 1,
        plan: "d1".into(),
        fsid: "f".into(),
        pools: Vec::new(),
        defer: Duration::from_secs(7 * 24 * 3600),
        at: at(0),
    }
}

fn target(image: &str) -> Target {
    Target {
        action: Action::Trash,
        pool: "images".into(),
        namespace: String::new(),
        image: image.into(),
        image_id: format!("id-{image}"),
    }
}

fn done() -> Event {
    Event::Done { trashed_at: Some(at(2)), bytes: Some(7) }
}

/// A journal of two steps, one of them without an end, as text.
fn text() -> String {
    let entry = |second, n, event| serde_json::to_string(&Entry { at: at(second), n, event }).unwrap();
    let lines = [
        serde_json::to_string(&header()).unwrap(),
        entry(1, 1, Event::Intent(target("a"))),
        entry(2, 1, done()),
        entry(3, 2, Event::Intent(target("b"))),
    ];
    lines.map(|line| line + "\n").concat()
}

fn with(text: &[u8], test: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    std::fs::write(&path, text).unwrap();
    test(&path);
}

#[test]
fn what_is_written_is_read_back() {
    with(text().as_bytes(), |path| {
        let mut journal = Journal::open(path).unwrap();
        assert_eq!(*journal.header(), header());
        assert_eq!(journal.records()[&1].trashed_at, Some(at(2)));
        assert_eq!(journal.records()[&2].last, Event::Intent(target("b")));
        assert!(matches!(Journal::open(path), Err(JournalError::InUse(_))), "one writer at a time");
        journal.write(at(4), 2, Event::Failed { why: "x".into() }).unwrap();
        journal.write(at(5), 2, Event::Intent(target("b"))).unwrap();
        journal.write(at(6), 2, done()).unwrap();
        let written = journal.records().clone();
        drop(journal);
        let journal = Journal::open(path).unwrap();
        assert_eq!(*journal.records(), written);
        assert_eq!(journal.records()[&2].begun, at(3), "the first attempt at it");
    });
}

/// A crash may cut the line that was being written anywhere; that line was not acted upon yet.
#[test]
fn a_torn_last_line_is_as_if_it_had_never_been() {
    let text = text();
    let last = text[..text.len() - 1].rfind('\n').unwrap() + 1;
    for end in last..text.len() {
        with(&text.as_bytes()[..end], |path| {
            let mut journal = Journal::open(path).unwrap();
            assert_eq!(journal.records().len(), 1, "cut at {end}");
            journal.write(at(9), 2, Event::Intent(target("b"))).unwrap();
            drop(journal);
            assert_eq!(Journal::open(path).unwrap().records().len(), 2);
        });
    }
}

/// Any other damage, and any other file, is refused, and left as it is to the byte.
#[test]
fn a_file_that_is_no_whole_journal_is_left_alone() {
    let text = text();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let newer = text.replacen("\"journal\":1", "\"journal\":2", 1);
    let other = [lines[0], lines[1], &lines[3].replace("\"n\":2", "\"n\":1")].concat();
    for wrong in [
        "",
        "no newline",
        "[]\n",
        "{}\n{\"torn",
        "#!/bin/sh\nexit\n",
        &newer,
        &lines[1..].concat(),
        &[lines[0], lines[2]].concat(),
        &[lines[0], "\u{0}\u{0}\n", lines[3]].concat(),
        &[lines[0], lines[1], &lines[2][..20], "\n"].concat(),
        &other,
    ] {
        with(wrong.as_bytes(), |path| {
            let refused = Journal::open(path);
            assert!(
                matches!(refused, Err(JournalError::NotAJournal(_) | JournalError::Damaged { .. })),
                "{wrong}: {refused:?}"
            );
            assert_eq!(std::fs::read(path).unwrap(), wrong.as_bytes());
        });
    }
}
