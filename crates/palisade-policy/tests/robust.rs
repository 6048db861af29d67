//! Any text is answered with a policy or with problems, never with a panic, and never with a secret.

mod sample;

use palisade_policy::{Snapshot, Sources, json_schema, reference_page};
use proptest::prelude::*;

/// One schema for all cases: making it costs more than using it.
static SCHEMA: std::sync::LazyLock<serde_json::Value> = std::sync::LazyLock::new(sample::schema);

/// Everything that is done with a policy, with everything that is shown of it.
fn all(snapshot: Result<Snapshot, palisade_policy::Problems>) -> String {
    let schema = &*SCHEMA;
    let (mut snapshot, mut problems) = match snapshot {
        Ok(snapshot) => {
            let problems = snapshot.problems();
            (snapshot, problems)
        }
        Err(problems) => return format!("{}{}{}", problems.render(false), problems.render(true), problems.to_json()),
    };
    sample::guides(&mut problems);
    snapshot.check(schema, sample::FORMATS, &mut problems);
    let config = snapshot.get::<sample::Config>("", &mut problems);
    assert!(config.is_some() || problems.is_fatal(), "a policy that cannot be read has a problem");
    let mut out = format!("{}{}{}", problems.render(false), problems.render(true), problems.to_json());
    for line in snapshot.effective(schema) {
        out.push_str(&line.to_string());
        out.push('\n');
        let _ = snapshot.origin(&line.key);
    }
    out
}

const POLICY: &str = r#"[server]
hosts = ["a", 'b']  # comment
admin_token = { secret = "x" }
[upstream]
env = { A = "b" }
command = ["uvicorn",
  "main:app"]
[upstreams."a.b"]
url = """http://x"""
[waf]
sample = 0.5
exclude = [{ path = "/a" }]
[rate_limit]
default = ["1/second", "2/day"]
[[route]]
path = "/é"
since = 2026-01-01
limits.body = "1MiB"
[[route]]
path = "/日本"
"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text(text in "\\PC{0,200}|(?s:.{0,100})") {
        all(Snapshot::from_text("policy", &text));
    }

    #[test]
    fn text_of_toml_tokens(tokens in prop::collection::vec(prop::sample::select(vec![
        "[", "]", "[[", "]]", "{", "}", "=", ".", ",", "\n", " ", "#", "\"", "'", "\"\"\"", "'''", "\\", "\r", "\t", "\0", "\u{1b}", "é",
        "a", "include", "server", "route", "path", "cors", "waf", "mode", "\"off\"", "1", "-1", "0x", "1.5", "inf", "true", "2026-01-01", "limits",
        "include", "secret", "upstreams", "[server]\n", "[[route]]\n", "path = \"/\"\n", "[[a.b]]\n", "[a.b.c]\n", "a.b = 1\n", "a = {}\n",
    ]), 0..60)) {
        all(Snapshot::from_text("policy", &tokens.concat()));
    }

    #[test]
    fn a_policy_with_cuts_and_pastes(edits in prop::collection::vec((0usize..700, 0usize..40, "\\PC{0,5}"), 1..6)) {
        let mut text: Vec<char> = POLICY.chars().collect();
        for (at, length, insert) in edits {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, insert.chars());
        }
        all(Snapshot::from_text("policy", &text.into_iter().collect::<String>()));
    }

    #[test]
    fn arbitrary_overrides(name in "[A-Z_]{0,20}", value in "\\PC{0,30}", path in "\\PC{0,20}") {
        let sources = Sources::new().environment([(format!("PALISADE__{name}"), value.clone())]).flag("--flag", path, value);
        all(Snapshot::read(&sources));
    }

    #[test]
    fn arbitrary_paths(path in "\\PC{0,30}") {
        let snapshot = Snapshot::from_text("policy", POLICY).expect("the policy is right");
        let mut problems = snapshot.problems();
        problems.error(&path, &path, &path).with_note(&path);
        problems.scope(&path).warn_at_key(&path, "x", "");
        prop_assert!(problems.is_fatal());
        let _ = problems.render(true);
        let _ = (snapshot.origin(&path), snapshot.text(&path), snapshot.len(&path), snapshot.base_dir(&path));
        let _ = snapshot.get::<u8>(&path, &mut problems);
    }
}

#[test]
fn the_policy_of_these_tests_is_right() {
    let (config, problems) = sample::load(POLICY);
    assert!(config.is_some(), "{problems}");
}

/// Each character of a policy taken out, and a sign put before each: no edit brings a secret into a message.
#[test]
fn no_single_edit_shows_a_secret() {
    const POLICY: &str = r#"[server]
admin_token = "hunter2"
hosts = ["a"]
[redis]
url = "redis://:hunter2@cache"
[database]
url = "postgres://app:hunter2@db/x"
[upstream]
password = "hunter2"
env = { API_TOKEN = "hunter2", A = "b" }
more = { token = '''hunter2''' }
signing_key = """
hunter2
"""
[[route]]
path = "/"
"#;
    let schema = sample::schema();
    let inserts = ["", "\"", "'", "=", "[", "}", "#", ".", "\n", " ", "\\"];
    let mut shown = Vec::new();
    let secrets: Vec<_> = POLICY.match_indices("hunter2").map(|(at, text)| at..at + text.len()).collect();
    for (at, c) in POLICY.char_indices() {
        if secrets.iter().any(|secret| secret.contains(&at)) {
            continue;
        }
        for insert in inserts {
            // Taken out where nothing comes in, else something comes before it.
            let after = at + if insert.is_empty() { c.len_utf8() } else { 0 };
            let text = format!("{}{insert}{}", &POLICY[..at], &POLICY[after..]);
            let problems = match Snapshot::from_text("policy", &text) {
                Ok(mut snapshot) => {
                    let mut problems = snapshot.problems();
                    snapshot.check(&schema, sample::FORMATS, &mut problems);
                    problems
                }
                Err(problems) => problems,
            };
            let out = problems.render(false) + &problems.to_json().to_string();
            if out.contains("hunter2") {
                shown.push(format!("--- {text}\n{}", problems.render(false)));
            }
        }
    }
    assert!(
        shown.is_empty(),
        "{} edits show a secret, such as\n{}",
        shown.len(),
        shown.iter().take(6).cloned().collect::<String>()
    );
}

/// A large text of the worst kind is answered in time and in few words.
#[test]
fn large_texts_are_answered_in_time() {
    const SIZE: usize = 1 << 18;
    let large = |unit: &str| unit.repeat(SIZE / unit.len());
    let numbered = |unit: &str| (0..SIZE / 16).map(|n| unit.replace('N', &n.to_string())).collect::<String>();
    let start = std::time::Instant::now();
    for text in [
        large("[a.b.c]\n"),
        large("a = 1\n"),
        large("a.b = \n"),
        large("["),
        large("a = \"x"),
        large("\"\"\"\n"),
        large("#\n"),
        large("[[route]]\n"),
        large("x"),
        numbered("keyN = 1\n"),
        numbered("[sectionN]\n"),
        numbered("[[route]]\npath = N\n"),
        format!("[upstream]\nenv = {{ {} }}", numbered("tokenN = 1, ")),
        format!("[server]\nhosts = [{}]", large("1, ")),
    ] {
        let out = all(Snapshot::from_text("policy", &text));
        assert!(out.len() < 32 << 20, "{} bytes are said about {:?}", out.len(), &text[..40]);
    }
    // Generous, since debug builds on a busy machine are slow; a quadratic step would take hours.
    assert!(start.elapsed().as_secs() < 120, "this took {:?}", start.elapsed());
}

#[test]
fn odd_schemas_end() {
    for schema in [
        serde_json::json!(true),
        serde_json::json!(false),
        serde_json::json!({}),
        serde_json::json!([]),
        serde_json::json!({ "$ref": "#" }),
        serde_json::json!({ "$ref": "#/nowhere", "properties": { "a": { "$ref": "#" } } }),
        serde_json::json!({ "anyOf": [{ "$ref": "#" }, { "$ref": "#" }] }),
        serde_json::json!({ "properties": { "a": { "$ref": "#" }, "b": { "items": { "$ref": "#" } } }, "additionalProperties": { "$ref": "#" } }),
        serde_json::json!({ "type": ["object", "string"], "enum": [], "required": [1], "minItems": -1 }),
    ] {
        let text = "a = { a = { a = 1 }, b = [{ a = 2 }] }\nb = [1, { b = [] }]\nc = \"x\"";
        let mut snapshot = Snapshot::from_text("policy", text).expect("this is TOML");
        let mut problems = snapshot.problems();
        snapshot.check(&schema, &[], &mut problems);
        let _ = (problems.render(false), snapshot.effective(&schema), json_schema(&schema), reference_page(&schema));
    }
}
