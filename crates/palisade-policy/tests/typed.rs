//! Typed values, and problems that the caller reports.

mod sample;

use std::collections::BTreeMap;

use palisade_policy::{Problems, Severity, Snapshot};
use serde::Deserialize;

fn snapshot(text: &str) -> Snapshot {
    Snapshot::from_text("policy", text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A reload reads and checks in one thread and reports in another.
#[test]
fn threads_may_share_them() {
    fn shared<T: Send + Sync>() {}
    shared::<Snapshot>();
    shared::<Problems>();
}

#[test]
fn sections_are_read_one_by_one() {
    let snapshot =
        snapshot("[waf]\nparanoia = 3\n[[route]]\npath = \"/a\"\n[[route]]\npath = \"/b\"\nsince = 2026-01-01\n");
    let mut problems = snapshot.problems();
    assert_eq!(snapshot.get::<sample::Waf>("waf", &mut problems).map(|waf| waf.paranoia), Some(3));
    assert_eq!(snapshot.get::<Vec<sample::Route>>("route", &mut problems).map(|routes| routes.len()), Some(2));
    assert_eq!(
        snapshot.get::<sample::Route>("route[1]", &mut problems).and_then(|route| route.since),
        Some(sample::Date("2026-01-01".into()))
    );
    assert_eq!(snapshot.get::<f64>("waf.paranoia", &mut problems), Some(3.0));
    assert!(snapshot.get::<sample::Cors>("cors", &mut problems).is_none());
    assert!(snapshot.get::<String>("route[2].path", &mut problems).is_none());
    assert!(problems.is_empty(), "what is absent is no problem: {problems}");
}

/// A type that knows more than a schema can say.
#[derive(Debug)]
struct Even;

impl<'de> Deserialize<'de> for Even {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        if number % 2 == 0 { Ok(Even) } else { Err(serde::de::Error::custom("expected an even number")) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only read")]
struct Odd {
    list: Vec<Even>,
    map: BTreeMap<String, Even>,
    choice: Choice,
    small: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only read")]
enum Choice {
    Plain,
    Number(Even),
    Table { even: Even },
    Pair(Even, Even),
}

#[test]
fn errors_of_types_point_at_their_value() {
    let good = "list = [2]\nmap = {}\nchoice = \"plain\"\n";
    for (text, expected) in [
        ("list = [2, 4, 5]\nmap = {}\nchoice = \"plain\"", "policy>:1:15"),
        ("list = []\nmap = { a = 2, \"b.c\" = 3 }\nchoice = \"plain\"", "policy>:2:24"),
        ("list = []\nmap = {}\nchoice = { number = 1 }", "policy>:3:21"),
        ("list = []\nmap = {}\nchoice = { table = { even = 1 } }", "policy>:3:29"),
        ("list = []\nmap = {}\nchoice = { pair = [2, 3] }", "policy>:3:23"),
        ("list = []\nmap = {}\nchoice = { plain = 2 }", "policy>:3:10"),
        ("list = []\nmap = {}\nchoice = { plain = 2, number = 2 }", "policy>:3:10"),
        ("list = []\nmap = {}\nchoice = \"fancy\"", "`fancy` is not one of the values this key takes"),
        ("list = []\nmap = {}\nchoice = 5", "expected one of `plain`, `number`, `table`, `pair`"),
        ("list = []\nmap = {}", "`choice` is missing"),
        ("list = []\nmap = {}\nchoice = \"plain\"\nother = 1", "policy>:4:1  other = 1"),
        ("list = []\nmap = {}\nchoice = \"plain\"\nsmall = 300", "expected u8"),
        ("list = []\nmap = {}\nchoice = \"plain\"\nsmall = \"x\"", "expected u8, not text"),
        ("list = 1\nmap = {}\nchoice = \"plain\"", "not a whole number"),
    ] {
        let snapshot = snapshot(text);
        let mut problems = snapshot.problems();
        assert!(snapshot.get::<Odd>("", &mut problems).is_none(), "{text}");
        let rendered = problems.render(false);
        assert!(rendered.contains(expected), "{text}\n{rendered}");
        assert_eq!(problems.iter().count(), 1, "{rendered}");
    }
    let snapshot = snapshot(good);
    assert!(snapshot.get::<Odd>("", &mut snapshot.problems()).is_some());
}

#[test]
fn what_the_check_has_said_is_not_said_again() {
    let (config, problems) = sample::load("[waf]\nparanoia = \"high\"\n[limits]\njson_depth = 8\n");
    assert!(config.is_none());
    assert_eq!(problems.iter().count(), 1, "{problems}");
}

fn report(text: &str, report: impl FnOnce(&mut Problems)) -> String {
    let snapshot = snapshot(text);
    let mut problems = snapshot.problems();
    sample::guides(&mut problems);
    report(&mut problems);
    problems.render(false)
}

#[test]
fn problems_of_the_caller() {
    let text = "[server]\nmode = \"production\"\n\n[[route]]\npath = \"/a\"\n\n[[route]]\npath = \"/b\"\nlimits = { body = \"10MiB\" }\n";
    let rendered = report(text, |problems| {
        problems.error("server.hosts", "a production policy names its hosts", "write `hosts = [\"api.example.com\"]`");
        problems.error("tls.cert", "there is no certificate", "name one, or write `self_signed = true`");
        problems.error("route[1].limits.body", "this is more than `[upload] max_size`", "lower it");
        problems
            .warn_at_key("route[0].path", "this route is never reached", "move it up")
            .with_note("the first match is `/a` on line 4");
        problems.error("", "nothing listens", "").with_guide(6, "06-https/server.html");
        let mut route = problems.scope("route[1]");
        route.scope("limits").error_at_key("body", "scoped", "");
        route.error("roles", "a path below `/admin` asks for a role", "add `roles = [\"admin\"]`");
        drop(route);
        problems.error("route[1].limits.body", "this is more than `[upload] max_size`", "lower it");
    });
    insta::assert_snapshot!("of_the_caller", rendered);
}

#[test]
fn a_value_nobody_wrote_is_named() {
    let rendered = report("", |problems| {
        problems.error("server.hosts", "a production policy names its hosts", "write `hosts = [\"api.example.com\"]`");
        problems.error("version", "which one", "");
    });
    insta::assert_snapshot!("of_nothing", rendered);
}

#[test]
fn colours_are_only_around_the_text() {
    let (_, problems) = sample::load("[cors]\norgins = []\n");
    let plain: String = problems
        .render(true)
        .split('\u{1b}')
        .enumerate()
        .map(|(n, part)| if n == 0 { part } else { part.split_once('m').map_or(part, |(_, rest)| rest) })
        .collect();
    assert_eq!(plain, problems.render(false));
    assert!(problems.render(true).contains("\u{1b}[1;31m^^^^^^\u{1b}[0m"));
}

#[test]
fn a_hundred_problems_are_shown_and_errors_come_first() {
    let text: String = (0..60).map(|n| format!("[[route]]\npath = \"/{n}\"\nx{n} = 1\n")).collect();
    let snapshot = snapshot(&text);
    let mut problems = snapshot.problems();
    for n in 0..60 {
        problems.warn_at_key(&format!("route[{n}].path"), format!("warning {n}"), "");
        problems.error_at_key(&format!("route[{n}].x{n}"), format!("error {n}"), "");
    }
    assert_eq!((problems.count(Severity::Error), problems.count(Severity::Warning)), (60, 60));
    let rendered = problems.render(false);
    assert_eq!(rendered.matches("error: ").count(), 60);
    assert_eq!(rendered.matches("warning: ").count(), 40);
    assert!(rendered.ends_with("\nand 20 more\n"), "{}", &rendered[rendered.len() - 200..]);
}

#[test]
fn more_than_anybody_reads_is_counted_only() {
    let snapshot = snapshot("");
    let mut problems = snapshot.problems();
    for n in 0..10_500 {
        problems.error("", format!("error {n}"), "").with_note("x");
    }
    assert_eq!(problems.count(Severity::Error), 10_500);
    assert!(problems.render(false).ends_with("and 10400 more\n"));
    let mut other = snapshot.problems();
    other.warn("", "w", "");
    other.append(problems);
    assert_eq!(other.count(Severity::Warning) + other.count(Severity::Error), 10_501);
    assert!(other.is_fatal());
}

#[test]
fn json_has_what_an_editor_needs() {
    let (_, problems) = sample::load("[cors]\norgins = [\"https://a\"]\n");
    let json = problems.to_json();
    let expected = serde_json::json!({
        "errors": 1, "warnings": 0, "problems": [{
            "severity": "error", "path": "cors.orgins", "message": "unknown key `orgins` in `[cors]`", "fix": "did you mean `origins`?",
            "file": "<policy>", "line": 2, "column": 1, "end_line": 2, "end_column": 7, "text": "orgins = [\"https://a\"]",
            "guide": { "section": 9, "docs": "09-cors/cors.html" },
        }],
    });
    assert_eq!(json, expected);
}

#[test]
fn debug_shows_no_text() {
    let snapshot = snapshot("[server]\nadmin_token = \"hunter2\"\n");
    assert_eq!(format!("{snapshot:?}"), "[\"<policy>\"]");
}

/// Shapes that serde and schemars write in ways of their own.
#[test]
fn flattened_and_tagged_types() {
    #[derive(Debug, Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Outer {
        name: String,
        backend: Backend,
        #[serde(default)]
        pair: Option<(u8, String)>,
    }

    #[derive(Debug, Deserialize, schemars::JsonSchema)]
    #[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    enum Backend {
        File { path: String },
        Vault { address: String, role: Option<String> },
    }

    #[derive(Debug, Deserialize, schemars::JsonSchema)]
    #[expect(dead_code, reason = "only read")]
    struct Flat {
        #[serde(flatten)]
        inner: Inner,
        own: u8,
    }

    #[derive(Debug, Deserialize, schemars::JsonSchema)]
    #[expect(dead_code, reason = "only read")]
    struct Inner {
        shared: String,
    }

    fn check<T: serde::de::DeserializeOwned + schemars::JsonSchema>(text: &str) -> String {
        let mut snapshot = snapshot(text);
        let mut problems = snapshot.problems();
        snapshot.check(&schemars::schema_for!(T).to_value(), &[], &mut problems);
        assert!(snapshot.get::<T>("", &mut problems).is_some() || problems.is_fatal(), "{problems}");
        problems.render(false)
    }

    let good = "name = \"x\"\nbackend = { kind = \"vault\", address = \"a\" }\npair = [1, \"x\"]";
    assert_eq!(check::<Outer>(good), "");
    assert_eq!(check::<Flat>("shared = \"x\"\nown = 1"), "");
    let outer = |backend: &str| check::<Outer>(&format!("name = \"x\"\nbackend = {backend}"));
    for (rendered, expected) in [
        (outer("{ kind = \"vault\", adress = \"a\" }"), "did you mean `address`?"),
        (outer("{ kind = \"valt\", address = \"a\" }"), "`kind` cannot be `\"valt\"`"),
        (outer("{ path = \"a\" }"), "`kind` is missing in `[backend]`"),
        (outer("{ kind = \"file\", path = \"a\" }\npair = [1]"), "needs at least 2 items"),
        (check::<Flat>("shared = 5\nown = 1"), "`shared` takes text"),
        (check::<Flat>("shard = \"x\"\nown = 1"), "did you mean `shared`?"),
    ] {
        assert!(rendered.contains(expected), "{expected}\n{rendered}");
    }
}

/// What one place says for several others is known by where it was written.
#[test]
fn a_table_lies_under_another() {
    let mut snapshot = snapshot(
        "[own.waf]\nparanoia = 9\nthreshold = 7\n[[route]]\npath = \"/a\"\n[[route]]\npath = \"/b\"\n[route.waf]\nparanoia = 2\n",
    );
    let mut problems = snapshot.problems();
    for place in 0..2 {
        snapshot.lay_under(&format!("route[{place}].waf"), "own.waf", &mut problems);
    }
    snapshot.lay_under("route[7].waf", "own.waf", &mut problems);
    snapshot.lay_under("route[0].cors", "own.cors", &mut problems);
    let number = |path: &str| snapshot.get::<i64>(path, &mut snapshot.problems());
    assert_eq!((number("route[0].waf.paranoia"), number("route[0].waf.threshold")), (Some(9), Some(7)));
    assert_eq!((number("route[1].waf.paranoia"), number("route[1].waf.threshold")), (Some(2), Some(7)));
    assert!(!snapshot.is_set("route[0].cors") && !snapshot.is_set("route[7]"));
    for place in 0..2 {
        problems.error(&format!("route[{place}].waf.threshold"), "too much", "write less");
    }
    assert_eq!(problems.to_string().matches("too much").count(), 1, "{problems}");
    assert!(problems.to_string().contains("<policy>:3"), "{problems}");
}
