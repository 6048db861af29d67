//! Published vectors of operators and transformations, through the real code.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::expand::Macro;
use crate::operator::{Found, Lookups, Operator};
use crate::regex::Allowance;
use crate::transform::Transform;

#[derive(Debug)]
struct Nothing;
impl Lookups for Nothing {}

/// Vectors that this engine answers otherwise, by file and position, and why.
const EXCEPTIONS: &[(&str, usize, &str)] = &[
    ("ipMatch", 16, "10.0.0.0/100 is no network: an error when rules are read, instead of a rule that never matches"),
    ("cssDecode", 3, "expects one of two spaces to go, which the algorithm that passes all the others keeps"),
];

/// A folder of published vectors. `None`: it is not there, which the run of all tests counts and CI does not accept.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    use std::io::Write as _;

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    let line = format!("NOT RUN: {} is not there\n", path.display());
    assert!(std::env::var_os("CI").is_none(), "{line}");
    println!("{line}");
    if let Some(list) = std::env::var_os("PALISADE_NOT_RUN") {
        let list = std::fs::OpenOptions::new().append(true).create(true).open(list);
        list.and_then(|mut list| list.write_all(line.as_bytes())).unwrap();
    }
    None
}

/// Text of a vector as bytes: what still reads `\xHH` or `\uHHHH` becomes one byte.
fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or("").as_bytes();
    let mut out = Vec::new();
    let mut i = 0;
    while i < text.len() {
        let digits = match text.get(i..i + 2) {
            Some(b"\\x") => 2,
            Some(b"\\u") => 4,
            _ => 0,
        };
        let number = (digits > 0)
            .then(|| text.get(i + 2..i + 2 + digits))
            .flatten()
            .filter(|d| d.iter().all(u8::is_ascii_alphanumeric))
            // The harness takes letters beyond `f` for digits and then reads the number up to them.
            .map(|d| d.iter().map_while(|b| char::from(*b).to_digit(16)).fold(0, |n, d| n << 4 | d));
        match number {
            Some(n) => {
                out.push(n as u8);
                i += 2 + digits;
            }
            None => {
                out.push(text[i]);
                i += 1;
            }
        }
    }
    out
}

fn files(folder: &Path) -> Vec<(String, Vec<Value>)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|p| {
            let list = serde_json::from_slice(&std::fs::read(&p).unwrap()).unwrap();
            (p.file_stem().unwrap().to_string_lossy().into_owned(), list)
        })
        .collect()
}

/// Vectors of `@geoLookup`, which asks whoever embeds the engine.
const GEO: usize = 5;

fn judge(seen: &[String], ran: usize, least: usize, failures: Vec<(String, usize, String)>) {
    let expected = |f: &(String, usize, String)| EXCEPTIONS.iter().any(|(name, n, _)| *name == f.0 && *n == f.1);
    println!("{} of {ran} vectors pass", ran - failures.len());
    let unexpected: Vec<_> = failures.iter().filter(|f| !expected(f)).collect();
    for (name, n, what) in &unexpected {
        println!("  {name} {n}: {what}");
    }
    assert!(ran >= least, "only {ran} vectors were found");
    assert!(unexpected.is_empty(), "{} vectors fail", unexpected.len());
    let names: std::collections::HashSet<&String> = seen.iter().collect();
    let healed: Vec<_> = EXCEPTIONS
        .iter()
        .filter(|(name, n, _)| {
            names.contains(&(*name).to_owned()) && !failures.iter().any(|f| f.0 == *name && f.1 == *n)
        })
        .collect();
    assert!(healed.is_empty(), "these pass now: {healed:?}");
}

#[test]
fn transformations() {
    let Some(folder) = folder("seclang-vectors/transformations") else { return };
    let (mut ran, mut failures, mut seen) = (0, Vec::new(), Vec::new());
    for (name, list) in files(&folder) {
        seen.push(name.clone());
        let transform = Transform::find(&name).unwrap_or_else(|| panic!("{name} is unknown"));
        for (n, vector) in list.iter().enumerate() {
            ran += 1;
            let mut out = Vec::new();
            transform.apply(None, &bytes(&vector["input"]), &mut out);
            let want = bytes(&vector["output"]);
            if out != want {
                failures.push((
                    name.clone(),
                    n,
                    format!(
                        "{} gives {:?}, wanted {:?}",
                        vector["input"],
                        String::from_utf8_lossy(&out),
                        String::from_utf8_lossy(&want)
                    ),
                ));
            }
        }
    }
    judge(&seen, ran, 376, failures);
}

#[test]
fn operators() {
    let Some(folder) = folder("seclang-vectors/operators") else { return };
    let (mut ran, mut failures, mut seen, mut left_out) = (0, Vec::new(), Vec::new(), 0);
    let data = folder.join("op/rule.conf");
    for (name, list) in files(&folder) {
        seen.push(name.clone());
        for (n, vector) in list.iter().enumerate() {
            // Needs a country database; the lookup is handed in and tested where it is.
            if vector["resource"] == "geoip" || name == "geoLookup" {
                left_out += 1;
                continue;
            }
            ran += 1;
            let param = vector["param"].as_str().unwrap_or("");
            let param = if name == "pmFromFile" { param.rsplit('/').next().unwrap_or("") } else { param };
            let mut found = Found::default();
            let result = Operator::compile(&name, param, Some(&data)).map(|operator| {
                let argument = operator.argument().and_then(Macro::literal).map(<[u8]>::to_vec).unwrap_or_default();
                let mut left = Allowance::FIRST;
                let mut allowance = Allowance::new(&mut left, None);
                operator.matches(&bytes(&vector["input"]), &argument, (&Nothing, &mut allowance), true, &mut found)
            });
            let want = vector["ret"] == 1;
            match result {
                Ok(Ok(got)) if got == want => {
                    let input = bytes(&vector["input"]);
                    let groups: Vec<Vec<u8>> = if found.texts.is_empty() {
                        found.groups.iter().flatten().map(|(s, e)| input[*s..*e].to_vec()).collect()
                    } else {
                        found.texts.clone()
                    };
                    if let Some(wanted) = vector["re_groups"].as_array() {
                        let wanted: Vec<Vec<u8>> = wanted.iter().map(bytes).collect();
                        if !groups.starts_with(&wanted) {
                            failures.push((name.clone(), n, format!("groups {groups:?}, wanted {wanted:?}")));
                        }
                    }
                }
                // ModSecurity reads what is no number as 0; here it is a mistake in the rule.
                Err(_) if name == "validateByteRange" && matches!(param, "" | "xxx") => {}
                other => failures.push((name.clone(), n, format!("{vector} gives {other:?}"))),
            }
        }
    }
    assert_eq!(left_out, GEO, "vectors that ask for a country database");
    judge(&seen, ran, 3955 - GEO, failures);
}
