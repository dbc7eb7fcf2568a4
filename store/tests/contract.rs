//! `docs/contract.md` names a test for each row, and each test it names is there.

use std::{collections::BTreeSet, fs, path::Path};

/// `FILE::FUNCTION` of every test below a directory; a file in a directory is also known as `DIRECTORY`'s, as modules are.
fn tests(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            // What follows the attribute of a test, as far as its name.
            for test in text.split("#[test]").skip(1).chain(text.split("#[tokio::test").skip(1)) {
                let name = test.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap();
                found.insert(format!("{file}::{name}"));
            }
        }
    }
}

#[test]
fn each_row_of_the_contract_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut known = BTreeSet::new();
    for directory in ["store/src", "store/tests", "tests/e2e"] {
        tests(&root.join(directory), &mut known);
    }
    let text = fs::read_to_string(root.join("docs/contract.md")).unwrap();
    let named: Vec<_> =
        text.split('`').skip(1).step_by(2).filter(|word| word.contains("::") && !word.contains('…')).collect();
    assert!(named.len() > 50, "{named:?}");
    let missing: Vec<_> = named.iter().filter(|name| !known.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let rows =
        text.lines().filter(|line| line.starts_with('|') && !line.contains("---") && !line.contains("| tests |"));
    let bare: Vec<_> = rows.filter(|row| !row.contains("::")).collect();
    assert!(bare.is_empty(), "rows without a test: {bare:#?}");
}
