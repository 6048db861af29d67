//! What is made of a schema: the effective policy, the schema for editors, the reference page.

mod sample;

use std::fmt::Write as _;

use palisade_policy::{Snapshot, Sources, json_schema, reference_page};

#[test]
fn the_effective_policy_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("palisade.toml");
    let text = r#"
rate_limit.default = ["10/second", "1000/day"]

[server]
hosts = ["api.example.com"]
admin_token = { secret = "admin-token" }

[upstreams.billing]
url = "http://127.0.0.1:9000"
env = { API_TOKEN = "hunter2", LANG = "C", DATABASE = "postgres://app:hunter2@db/x" }

[limits]
max_body = "2MiB"

[tls]
acme = { email = "ops@example.com" }

[log]
access = { file = { path = "access.log" } }

[[route]]
path = "/admin/*"
limits = { body = "10MiB" }
since = 2026-01-01
"#;
    std::fs::write(&path, text).unwrap();
    let sources = Sources::new()
        .builtin("starter policy", "[waf]\nmode = \"detect\"")
        .file(&path)
        .environment([("PALISADE__WAF__PARANOIA", "2")])
        .flag("--upstream", "upstream.url", "\"http://127.0.0.1:8000\"");
    let mut snapshot = Snapshot::read(&sources).unwrap();
    let schema = sample::schema();
    let mut problems = snapshot.problems();
    snapshot.check(&schema, sample::FORMATS, &mut problems);
    assert!(!problems.is_fatal(), "{problems}");
    let mut out = String::new();
    for line in snapshot.effective(&schema) {
        writeln!(out, "{line}").unwrap();
    }
    assert!(!out.contains("hunter2"), "{out}");
    insta::assert_snapshot!("effective", out.replace(&format!("{}/", folder.path().display()), ""));
}

#[test]
fn the_schema_for_editors() {
    let text = json_schema(&sample::schema());
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(json["properties"]["include"]["type"], "array");
    assert_eq!(json["additionalProperties"], false);
    assert_eq!(text, json_schema(&sample::schema()));
    insta::assert_snapshot!("json_schema", text);
}

#[test]
fn the_reference_page() {
    let page = reference_page(&sample::schema());
    assert_eq!(page, reference_page(&sample::schema()));
    // Every link leads to a heading of the page.
    let links: Vec<&str> = page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() >= 3, "{links:?}");
    for link in links {
        let heading =
            |line: &str| line.chars().filter(|c| c.is_alphanumeric() || "_-".contains(*c)).collect::<String>();
        assert!(page.lines().any(|line| line.starts_with('#') && heading(line).to_lowercase() == link), "{link}");
    }
    insta::assert_snapshot!("reference_page", page);
}
