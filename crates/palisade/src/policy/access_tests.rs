//! Which rule a request falls under, whatever it looks like: threats 1, 6 and 8 at the routing layer.

use axum::Router;
use axum::extract::Request;
use http::Method;
use proptest::prelude::*;

use crate::policy::config::Route;
use crate::policy::{Found, Rules};
use crate::testing::Harness;

/// Guarded by address, so that no login is needed to tell who is let in.
const POLICY: &str = r#"
[server]
hosts = ["localhost", "a.localhost", "b.localhost"]

[rate_limit]
mode = "off"

[[route]]
path = "/admin/*"
methods = ["GET", "PROPFIND"]
address = ["10.0.0.0/8"]

[[route]]
path = "/users/{id:int}/*"
address = ["10.0.0.0/8"]

[[route]]
path = "/objects/{id:uuid}"
address = ["10.0.0.0/8"]

[[route]]
host = "a.localhost"
path = "/shared/*"
address = ["10.0.0.0/8"]

[[route]]
path = "/*"
encoded_slash = true
slashes = "keep"
path_parameters = true
"#;

/// Says the path that arrived.
fn echo() -> Router {
    Router::new().fallback(async |request: Request| format!("ran {}", request.uri().path()))
}

fn app() -> Harness {
    Harness::new(POLICY, echo())
}

/// The path as a framework reads what arrives: decoded once, repeated and final slashes without meaning.
fn as_read(path: &str) -> Vec<String> {
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let hex: Option<u8> = (byte == b'%')
            .then(|| bytes.clone().take(2).map(char::from).collect::<String>())
            .and_then(|digits| u8::from_str_radix(&digits, 16).ok());
        if let Some(value) = hex {
            decoded.push(value);
            bytes.nth(1);
        } else {
            decoded.push(byte);
        }
    }
    let text = String::from_utf8_lossy(&decoded).into_owned();
    let segments = text.split('/').map(|segment| segment.split(';').next().unwrap_or_default().to_owned());
    segments.filter(|segment| !segment.is_empty()).collect()
}

/// A number as Python's `int` reads it, and as pydantic does.
fn number(text: &str) -> Option<i128> {
    let text = text.trim();
    let whole = text.strip_suffix(".0").unwrap_or(text);
    let digits: String = whole.chars().filter(|c| *c != '_').collect();
    digits.parse().ok()
}

fn is_guarded(path: &str) -> bool {
    let read = as_read(path);
    match (read.first().map(String::as_str), read.get(1)) {
        (Some("admin"), _) => true,
        (Some("users"), Some(id)) => number(id).is_some(),
        _ => false,
    }
}

#[tokio::test]
async fn a_pattern_has_its_root_and_a_final_slash_makes_no_difference() {
    let app = app();
    for path in ["/admin", "/admin/", "/admin//", "/admin/x", "/admin/x/", "/users/8", "/users/8/", "/users/8//x/"] {
        let answer = app.get(path).await;
        assert_eq!(answer.refusal().map(|code| code.name), Some("access.address"), "{path}: {}", answer.text());
        let inside = app.clone().from("10.1.2.3").get(path).await;
        assert_eq!(inside.status(), 200, "{path}");
    }
    assert_eq!(app.get("/administrator").await.text(), "ran /administrator");
}

/// Threat 8: twelve methods, with what turns one into another, on each host.
#[tokio::test]
async fn no_method_or_host_passes_a_route_by() {
    let app = app();
    let methods =
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get", "TRACE", "MKCOL", "GETX"];
    let extras: [&[(&str, &str)]; 4] = [
        &[],
        &[("x-http-method-override", "GET")],
        // A preflight without `Origin` is none.
        &[("access-control-request-method", "GET")],
        &[("x-original-url", "/free"), ("x-rewrite-url", "/free")],
    ];
    for host in
        ["localhost", "a.localhost", "b.localhost", "A.LOCALHOST", "a.localhost.", "a.localhost:8443", "B.localhost.:1"]
    {
        for method in methods {
            for extra in extras {
                for path in ["/admin", "/admin/x", "/admin/x?_method=GET", "/users/7", "/shared/x"] {
                    let mut headers = extra.to_vec();
                    headers.push(("host", host));
                    let sent = Method::from_bytes(method.as_bytes()).unwrap();
                    let answer = app.send(sent, path, &headers, "").await;
                    let shared = path.starts_with("/shared") && !host.to_ascii_lowercase().starts_with("a.");
                    let ran = answer.refusal().is_none() && answer.status() == 200;
                    assert!(!ran || shared, "{method} {host}{path} {extra:?}: {}", answer.text());
                    let what = answer.refusal().map(|code| code.name);
                    if path.starts_with("/admin") && ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"].contains(&method) {
                        assert_eq!(what, Some("access.method"), "{method} {host}{path}: claimed, not passed on");
                        assert_eq!(answer.header("allow"), "GET, HEAD, PROPFIND");
                    }
                    if ["get", "GETX", "MKCOL", "TRACE"].contains(&method) {
                        assert_eq!(what, Some("integrity.method"), "{method} {host}{path}");
                    }
                }
            }
        }
    }
}

fn pieces() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "admin",
        "Admin",
        "%61dmin",
        "adm%69n",
        "admin%20",
        "admin%0a",
        "admin;x",
        "admin%3bx",
        "users",
        "u%73ers",
        "7",
        "07",
        "%37",
        "+7",
        "%2b7",
        "7.0",
        "7_0",
        "%207",
        "7%20",
        "-7",
        "--7",
        "free",
        "x",
        "",
        ".",
        "..",
        "%2e",
        "%2e%2e",
        ".%2e",
        "%2f",
        "%2Fadmin",
        "%5c",
        "admin%2fx",
        "%252e%252e",
        "..%2f",
        ";",
        "..;",
        "%00",
        "é",
        "%c3%a9",
        "%ff",
        "%",
        "%zz",
        "shared",
        "objects",
        "0190aaaa-bbbb-7ccc-8ddd-eeeeffff0000",
        "0190AAAA-BBBB-7CCC-8DDD-EEEEFFFF0000",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever is sent: what arrives at the application is not what a guarded route stands before.
    #[test]
    fn nothing_guarded_arrives(path in proptest::collection::vec(pieces(), 1..6), slash in any::<bool>()) {
        static RUNTIME: std::sync::LazyLock<(tokio::runtime::Runtime, Harness)> =
            std::sync::LazyLock::new(|| (tokio::runtime::Runtime::new().unwrap(), app()));
        let target = format!("/{}{}", path.join("/"), if slash { "/" } else { "" });
        prop_assume!(target.parse::<http::Uri>().is_ok_and(|uri| uri.authority().is_none()));
        let (runtime, app) = &*RUNTIME;
        let answer = runtime.block_on(app.get(&target));
        if let Some(arrived) = answer.text().strip_prefix("ran ") {
            prop_assert!(!is_guarded(arrived), "{} arrived as {}", target, arrived);
        } else {
            prop_assert!(answer.refusal().is_some(), "{}: {}", target, answer.text());
        }
    }
}

fn patterns() -> impl Strategy<Value = String> {
    let segment = proptest::sample::select(vec!["a", "b", "{x}", "{n:int}", "1"]);
    let tail = proptest::sample::select(vec!["", "/*", "/+"]);
    (proptest::collection::vec(segment, 1..4), tail)
        .prop_map(|(segments, tail)| format!("/{}{tail}", segments.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The first route whose path fits has the request, for every method: none falls through to a wider path, HEAD is
    /// judged as GET, and a final slash changes nothing.
    #[test]
    fn a_route_claims_its_paths(
        routes in proptest::collection::vec((patterns(), proptest::sample::subsequence(vec!["GET", "POST", "PUT"], 0..3)), 1..6),
        path in proptest::collection::vec(proptest::sample::select(vec!["a", "b", "1", "2", "c"]), 1..5),
    ) {
        let routes: Vec<Route> = routes
            .iter()
            .map(|(path, methods)| Route {
                path: path.parse().unwrap(),
                methods: methods.iter().map(|method| method.parse().unwrap()).collect(),
                ..Route::default()
            })
            .collect();
        let rules = Rules::new(routes.iter(), |_| "test".into());
        let path = format!("/{}", path.join("/"));
        let claims = routes.iter().find(|route| route.path.matches(&path)).map(|route| route.path.clone());
        for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
            let found = rules.find("localhost", &path, &method);
            prop_assert_eq!(&rules.find("localhost", &format!("{path}/"), &method), &found, "{}", path);
            match (&found, &claims) {
                (Found::Rule(0) | Found::OtherMethods(0, _), claims) => prop_assert!(claims.is_none()),
                (Found::Rule(id) | Found::OtherMethods(id, _), Some(claims)) => {
                    prop_assert_eq!(rules.get(*id).path(), claims, "{} {}", method, path);
                }
                (found, claims) => prop_assert!(false, "{:?} {:?}", found, claims),
            }
        }
        let verdict = |method: Method| rules.find("localhost", &path, &method);
        match (verdict(Method::GET), verdict(Method::HEAD)) {
            (Found::OtherMethods(..), Found::OtherMethods(..)) => {}
            (get, head) => prop_assert_eq!(get, head),
        }
    }

    /// A pattern that covers another one has every path that the other has.
    #[test]
    fn covering_means_having_all_paths(
        (wide, narrow) in (patterns(), patterns()),
        path in proptest::collection::vec(proptest::sample::select(vec!["a", "b", "1", "2", "c"]), 1..5),
    ) {
        let (wide, narrow): (super::PathPattern, super::PathPattern) = (wide.parse().unwrap(), narrow.parse().unwrap());
        let path = format!("/{}", path.join("/"));
        prop_assert!(!wide.covers(&narrow) || !narrow.matches(&path) || wide.matches(&path), "{} {} {}", wide, narrow, path);
    }
}
