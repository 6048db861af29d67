//! The promise of section 3, kept by reading this crate's own source: no statement is put together as text.

use std::path::Path;

/// What would take a statement as text. The exceptions are constants.
const RAW: [&str; 8] = [
    "from_string",
    "from_sql_and_values",
    "execute_unprepared",
    "query_with(",
    "raw_sql",
    "AssertSqlSafe",
    "cust(",
    "cust_with",
];

const ALLOWED: [&str; 3] = [
    "Statement::from_string(DbBackend::Postgres, FEED_LOCK)",
    "execute_unprepared(ONE_MIGRATES)",
    "Func::cust(\"current_schema\")",
];

fn lines(folder: &Path, out: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("the source") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            lines(&path, out);
        } else if path.file_name().is_some_and(|name| name != "source.rs") {
            let text = std::fs::read_to_string(&path).expect("text");
            out.extend(text.lines().map(|line| (path.display().to_string(), line.to_owned())));
        }
    }
}

#[test]
fn no_statement_is_text() {
    let mut found = Vec::new();
    lines(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 1000, "the whole crate was read: {} lines", found.len());
    let (mut allowed, mut bad) = (0, Vec::new());
    for (file, line) in found {
        if ALLOWED.iter().any(|known| line.contains(known)) {
            allowed += 1;
        } else if RAW.iter().any(|raw| line.contains(raw)) {
            bad.push(format!("{file}: {line}"));
        }
    }
    assert!(bad.is_empty(), "statements as text: {bad:#?}");
    assert_eq!(allowed, ALLOWED.len(), "an exception that is no longer needed goes");
}
