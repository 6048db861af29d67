//! Prefixes and headers of the policy, through the whole stack: what the application gets, and what never reaches it.

use axum::Router;
use axum::extract::Request;
use http::Method;

use crate::controls::integrity;
use crate::policy::request_headers::MISSING_VALUE;
use crate::testing::Harness;

/// Says its path and every header, a line each; redirects and sets cookies as an application does that knows no prefix.
fn echo() -> Router {
    async fn say(request: Request) -> axum::response::Response {
        let mut text = format!("{}\n", request.uri());
        for (name, value) in request.headers() {
            text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
        }
        let mut answer = axum::response::Response::new(text.into());
        if let Some(to) = request.uri().query().and_then(|query| query.strip_prefix("to=")) {
            answer.headers_mut().insert("location", to.parse().unwrap());
        }
        answer.headers_mut().append("set-cookie", "a=1; Path=/login".parse().unwrap());
        answer.headers_mut().append("set-cookie", "__Host-b=1; Path=/; Secure".parse().unwrap());
        answer
    }
    Router::new().fallback(say)
}

fn path(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn values<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

const STRIPPED: &str = r#"
[[route]]
path = "/v2/admin/*"
address = ["10.0.0.0/8"]
strip_prefix = "/v2"

[[route]]
path = "/v2/*"
strip_prefix = "/v2"
encoded_slash = true
slashes = "keep"
path_parameters = true
"#;

#[tokio::test]
async fn a_prefix_is_taken_off_and_said() {
    let app = Harness::new(STRIPPED, echo());
    for (sent, forwarded) in [
        ("/v2/notes?a=/v2/", "/notes?a=/v2/"),
        ("/v2", "/"),
        ("/v2/", "/"),
        ("/v2?x", "/?x"),
        ("/%76%32/notes", "/notes"),
        ("/v2/a//b", "/a//b"),
        ("/v2/x/../notes", "/notes"),
        ("/v2/a%2Fb", "/a%2Fb"),
        ("/v22/notes", "/v22/notes"),
        ("/other", "/other"),
    ] {
        let answer =
            app.send(Method::GET, sent, &[("x-forwarded-prefix", "/public"), ("x-script-name", "/x")], "").await;
        assert_eq!((answer.status(), path(&answer.text())), (200, forwarded), "{sent}");
        let prefix: &[&str] = if forwarded == sent { &[] } else { &["/v2"] };
        assert_eq!(values(&answer.text(), "x-forwarded-prefix"), prefix, "{sent}");
        assert_eq!(values(&answer.text(), "x-script-name"), prefix, "{sent}");
    }
}

/// FastAPI under `root_path` answers `/admin` and `/v2/admin` alike: the second may not come in by another rule.
#[tokio::test]
async fn no_second_spelling_of_a_stripped_path_arrives() {
    let app = Harness::new(STRIPPED, echo());
    let answer = app.get("/v2/admin").await;
    assert_eq!(answer.refusal().map(|code| code.name), Some("access.address"));
    for sent in [
        "/v2/v2/admin",
        "/v2//v2/admin",
        "/v2/v2%2Fadmin",
        "/v2%2Fv2/admin",
        "/v2/%2Fv2/admin",
        "/v2/x/../v2/admin",
        "/v2/%76%32/admin",
        "/v2/v2;a=b/admin",
        "/v2/v2%3Ba/admin",
        "/v2/v2",
        "//v2/v2/admin",
        "//v2/admin",
    ] {
        let answer = app.get(sent).await;
        let code = answer.refusal();
        assert!(
            code == Some(&integrity::PATH) || code.map(|code| code.name) == Some("access.address"),
            "{sent}: {} {}",
            answer.status(),
            answer.text()
        );
    }
}

#[tokio::test]
async fn an_applications_own_prefix_is_one_with_its_paths() {
    let policy = r#"
[upstream]
root_path = "/api"

[[route]]
path = "/admin/*"
address = ["10.0.0.0/8"]

[[route]]
path = "/notes"
methods = ["GET"]
"#;
    let app = Harness::new(policy, echo());
    for (sent, forwarded) in [
        ("/notes", "/notes"),
        ("/api/notes", "/notes"),
        ("/api", "/"),
        ("/%61pi/notes?q", "/notes?q"),
        ("//api//notes", "/notes"),
        ("/apis/notes", "/apis/notes"),
    ] {
        let answer = app.get(sent).await;
        assert_eq!((answer.status(), path(&answer.text())), (200, forwarded), "{sent}");
        assert_eq!(values(&answer.text(), "x-forwarded-prefix"), ["/api"], "{sent}");
    }
    for sent in ["/admin", "/api/admin", "/api/admin/x", "//api/admin", "/api/x/../admin", "/api/%61dmin"] {
        let answer = app.get(sent).await;
        assert_eq!(answer.refusal().map(|code| code.name), Some("access.address"), "{sent}");
    }
    for sent in ["/api/api/admin", "/api/api/notes", "/api/api", "/api/x/../api/admin"] {
        assert_eq!(app.get(sent).await.refusal(), Some(&integrity::PATH), "{sent}");
    }
    let posted = app.send(Method::POST, "/api/notes", &[], "").await;
    assert_eq!((posted.status(), posted.header("allow")), (405, "GET, HEAD"));

    // With what a route allows, too: what could be read as the prefix selects the same rule, or is refused.
    let wide = Harness::new(
        &format!("{policy}\n[integrity]\nslashes = \"keep\"\nencoded_slash = true\npath_parameters = true\n"),
        echo(),
    );
    for sent in ["//api/admin", "/api//admin", "/api%2Fadmin", "/%2Fapi/admin", "/api;x/admin", "/x%2F..%2Fapi/admin"] {
        let answer = wide.get(sent).await;
        let code = answer.refusal().map(|code| code.name);
        assert!(matches!(code, Some("access.address" | "integrity.path")), "{sent}: {code:?} {}", answer.text());
    }
}

/// What is guarded without a route of its own goes by the path, too: no other reading of it may be for more people.
#[tokio::test]
async fn other_readings_pass_by_nothing_that_is_no_route() {
    const WIDE: &str = "[integrity]\nencoded_slash = true\npath_parameters = true\n";
    let closed = Harness::new(&format!("{WIDE}[headers]\ndocs = \"closed\"\n"), echo());
    for sent in
        ["/docs;x", "/docs%2F", "/docs%2Foauth2-redirect", "/docs/oauth2-redirect;x", "/%2Fredoc", "/openapi.json;x"]
    {
        assert_eq!(closed.get(sent).await.refusal(), Some(&integrity::PATH), "{sent}");
    }
    for sent in ["/notes;x", "/a%2Fb", "/docs2;x", "/x%2Fdocs"] {
        assert_eq!(closed.get(sent).await.status(), 200, "{sent}");
    }
    let open = Harness::new(&format!("{WIDE}[headers]\ndocs = \"open\"\n"), echo());
    assert_eq!(open.get("/docs;x").await.status(), 200);

    let with_auth = |auth: &str| {
        let state = tempfile::tempdir().unwrap();
        let server = format!("[server]\nstate = \"{}\"\n", state.path().display());
        (Harness::new(&format!("{server}{WIDE}[auth]\n{auth}"), echo()), state)
    };
    let (some, _state) = with_auth("routes = [\"/v2/*\"]\n");
    for sent in ["/v2%2Fadmin", "/v2;x/admin", "/v2;x%2Fadmin", "/%2Fv2/admin", "/v2%3Bx/admin"] {
        assert_eq!(some.get(sent).await.refusal(), Some(&integrity::PATH), "{sent}");
    }
    assert_eq!(some.get("/v2/admin").await.status(), 401);
    assert_eq!(some.get("/v2/a%2Fb").await.status(), 401, "every reading needs a login");
    assert_eq!(some.get("/v3%2Fadmin").await.status(), 200);

    // No document says what becomes of a path once it is decoded; a route does.
    let (by_document, _state_too) = with_auth("access = \"openapi\"\n[[route]]\npath = \"/files/*\"\npublic = true\n");
    for sent in ["/notes%2F7", "/notes;x/7"] {
        assert_eq!(by_document.get(sent).await.refusal(), Some(&integrity::PATH), "{sent}");
    }
    assert_eq!(by_document.get("/files/a%2Fb").await.status(), 200);
}

#[tokio::test]
async fn answers_of_an_application_without_a_prefix_get_it() {
    let policy = format!(
        "{STRIPPED}\n[upstreams.other]\nurl = \"http://127.0.0.1:1\"\n[[route]]\npath = \"/other/*\"\nupstream = \"other\"\n"
    );
    for app in [Harness::new(&policy, echo()), Harness::detect(&policy, echo())] {
        for (to, mended) in [
            ("/login?next=/a", "/v2/login?next=/a"),
            ("/v2/login", "/v2/login"),
            ("login", "login"),
            ("?page=2", "?page=2"),
            ("/other/x", "/other/x"),
            ("https://localhost/login", "https://localhost/v2/login"),
            ("https://localhost", "https://localhost/v2"),
            ("https://localhost/v2/login", "https://localhost/v2/login"),
            ("https://accounts.example/login", "https://accounts.example/login"),
            ("//accounts.example/login", "//accounts.example/login"),
        ] {
            let answer = app.get(&format!("/v2/x?to={to}")).await;
            assert_eq!(answer.header("location"), mended, "{to}");
            let cookies: Vec<_> = answer.headers().get_all("set-cookie").iter().collect();
            assert!(cookies[0].to_str().unwrap().starts_with("a=1; Path=/v2/login"), "{cookies:?}");
            assert!(cookies[1].to_str().unwrap().starts_with("__Host-b=1; Path=/;"), "{cookies:?}");
        }
        assert_eq!(app.get("/x?to=/login").await.header("location"), "/login");
    }
}

#[tokio::test]
async fn headers_are_set_from_facts_and_never_by_clients() {
    let policy = r#"
[upstream]
request_headers = { set = { X-Edge = "palisade", X-Host = "{host}" }, remove = ["X-Debug"] }

[[route]]
path = "/tenants/{tenant}/*"
[route.request_headers.set]
X-Tenant = "{path.tenant}"
X-Client = "{client.address}; id={request_id}"
X-Host = "route {route}"

[[route]]
path = "/sni"
request_headers = { set = { X-Sni = "{tls.server_name}" } }

[[route]]
path = "/either"
request_headers = { set = { X-Sni = "{tls.server_name|none}", X-Tls = "{tls.version|}" } }
"#;
    let app = Harness::new(policy, echo());
    // Names with dots and underscores as a client can send them; twice; under every route.
    let forged = [
        ("x-tenant", "victim"),
        ("X-Tenant", "victim"),
        ("x_tenant", "victim"),
        ("X.Tenant", "victim"),
        ("x_Tenant", "victim"),
        ("x-client", "1.2.3.4"),
        ("x-sni", "victim"),
        ("x-edge", "victim"),
        ("x-debug", "1"),
        ("x-own", "kept"),
    ];
    for (target, tenant) in [
        ("/tenants/acme/x", vec!["acme"]),
        ("/tenants/a%2Cb/x", vec!["a%2Cb"]),
        ("/tenants/a,b/x", vec!["a%2Cb"]),
        ("/tenants/%C3%A9/x", vec!["%C3%A9"]),
        ("/tenants/a'%22/x", vec!["a%27%22"]),
        ("/elsewhere", vec![]),
    ] {
        let answer = app.send(Method::GET, target, &forged, "").await;
        let text = answer.text();
        assert_eq!(values(&text, "x-tenant"), tenant, "{target}: {text}");
        for name in ["x_tenant", "x.tenant", "x-debug", "x-sni"] {
            assert!(values(&text, name).is_empty(), "{target}: {text}");
        }
        assert_eq!((values(&text, "x-edge"), values(&text, "x-own")), (vec!["palisade"], vec!["kept"]));
        let host = if tenant.is_empty() { "localhost" } else { "route /tenants/{tenant}/*" };
        assert_eq!(values(&text, "x-host"), [host]);
        let id = answer.header("x-request-id");
        let client = if tenant.is_empty() { vec![] } else { vec![format!("192.0.2.7; id={id}")] };
        assert_eq!(values(&text, "x-client"), client);
        assert!(!text.contains("victim"), "{text}");
    }
    let missing = app.send(Method::GET, "/sni", &forged, "").await;
    assert_eq!((missing.status(), missing.refusal()), (403, Some(&MISSING_VALUE)));
    let text = app.plain().send(Method::GET, "/either", &forged, "").await.text();
    assert_eq!((values(&text, "x-sni"), values(&text, "x-tls")), (vec!["none"], vec![]));
    let long = app_with_long(policy).get(&format!("/tenants/{}/x", "a".repeat(5000))).await;
    assert_eq!(long.refusal(), Some(&MISSING_VALUE));
}

fn app_with_long(policy: &str) -> Harness {
    Harness::new(&format!("[limits]\nurl_bytes = \"16KiB\"\nheader_bytes = \"32KiB\"\n{policy}"), echo())
}

const OWN: &str = r#"
[cors]
origins = ["https://app.example.com"]
[limits]
body = "1KiB"
[upstreams.billing]
url = "http://127.0.0.1:9"
cors = { origins = ["https://billing.example.com"], methods = ["PUT"] }
limits = { body = "2KiB", json_depth = 4 }
[[route]]
path = "/billing/*"
upstream = "billing"
[[route]]
path = "/large/*"
upstream = "billing"
limits = { body = "3KiB" }
cors = { methods = ["DELETE"] }
[[route]]
path = "/free/*"
upstream = "billing"
limits = { mode = "off" }
[[route]]
path = "/*"
"#;

#[tokio::test]
async fn an_upstream_has_limits_and_cors_of_its_own() {
    let app = Harness::new(OWN, echo());
    for (path, origin, methods) in [
        ("/x", "https://app.example.com", Some("GET, HEAD, POST")),
        ("/x", "https://billing.example.com", None),
        ("/billing/x", "https://billing.example.com", Some("PUT")),
        ("/billing/x", "https://app.example.com", None),
        ("/large/x", "https://billing.example.com", Some("DELETE")),
        ("/large/x", "https://app.example.com", None),
    ] {
        let asks = [("origin", origin), ("access-control-request-method", "GET")];
        let answer = app.send(Method::OPTIONS, path, &asks, "").await;
        let expected = if methods.is_some() { 204 } else { 403 };
        assert_eq!(answer.status(), expected, "{path} {origin}");
        assert_eq!(answer.header("access-control-allow-methods"), methods.unwrap_or_default(), "{path} {origin}");
    }
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    for (path, body, code) in [
        ("/x", "x".repeat(1025), Some("limits.body")),
        ("/x", nested(5), None),
        ("/billing/x", "x".repeat(2048), Some("upstream.unreachable")),
        ("/billing/x", "x".repeat(2049), Some("limits.body")),
        ("/billing/x", nested(4), Some("upstream.unreachable")),
        ("/large/x", "x".repeat(3072), Some("upstream.unreachable")),
        ("/large/x", "x".repeat(3073), Some("limits.body")),
        ("/free/x", "x".repeat(9000), Some("upstream.unreachable")),
    ] {
        let headers = [("content-type", "application/json")];
        let answer = app.send(Method::POST, path, &headers, body.clone()).await;
        assert_eq!(answer.refusal().map(|code| code.name), code, "{path} {}", body.len());
    }
}

#[test]
fn what_contradicts_itself_is_no_policy() {
    let problems = |text: &str| {
        let whole = format!("[server]\nmode = \"development\"\n{text}");
        let sources = palisade_policy::Sources::new().builtin("test", whole);
        match crate::live::check(&sources) {
            Ok((_, problems)) | Err(problems) => problems.render(false),
        }
    };
    for (text, said) in [
        ("[[route]]\npath = \"/v2/*\"\nstrip_prefix = \"/v3\"", "not every path of `/v2/*` begins with `/v3`"),
        ("[[route]]\npath = \"/{v}/*\"\nstrip_prefix = \"/v3\"", "not every path"),
        (
            "[[route]]\npath = \"/*\"\nupstream = \"blling\"\n[upstreams.billing]\nurl = \"http://a\"",
            "did you mean `\"billing\"`?",
        ),
        ("[[route]]\npath = \"/*\"\nupstream = \"x\"", "add `[upstreams.x]` with its `url`"),
        ("[upstreams.a]\nopenapi = \"off\"", "has no `url`"),
        ("[upstreams.a]\nurl = \"http://a\"", "no route leads to this upstream"),
        ("[upstreams.\"A b\"]\nurl = \"http://a\"", "not a name for an upstream"),
        ("[upstreams.a]\nurl = \"http://127.0.0.1:8443\"", "Palisade's own listener `server.https`"),
        ("[upstreams.a]\ncommand = [\"x\", \"{socket}\"]", "Palisade starts one application"),
        ("[upstreams.a]\nurl = \"http://a\"\nca = \"x.pem\"", "`ca` is for TLS"),
        ("[upstream]\nlimits = { body = \"1KiB\" }", "what holds for `[upstream]` is said in `[limits]`"),
        ("[upstream]\ncors = { origins = [] }", "what holds for `[upstream]` is said in `[cors]`"),
        ("[upstreams.a]\nurl = \"http://a\"\nlimits = { connections = 5 }", "unknown key `connections`"),
        ("[upstream]\nurl = \"https://a\"\nca = \"/none.pem\"", "not certificates in PEM"),
        ("[upstream]\nurl = \"https://a\"\nclient_cert = \"x.pem\"", "`client_key` is missing"),
        ("[upstream]\nrequest_headers = { set = { X-Forwarded-For = \"1\" } }", "the gateway's own to say"),
        ("[upstream]\nrequest_headers = { set = { x_forwarded_host = \"1\" } }", "the gateway's own to say"),
        ("[upstream]\nrequest_headers = { remove = [\"Content-Length\"] }", "the gateway's own to say"),
        ("[upstream]\nrequest_headers = { remove = [\"Host\"] }", "no request is without `Host`"),
        ("[upstream]\nrequest_headers = { set = { Host = \"{client.address}\" } }", "one fixed host"),
        ("[upstream]\nrequest_headers = { set = { \"a b\" = \"1\" } }", "not the name of a header"),
        ("[upstream]\nrequest_headers = { set = { X-A = \"1\" }, remove = [\"x_a\"] }", "removed and set"),
        ("[upstream]\nrequest_headers = { set = { X-A = \"{path.id}\" } }", "may be nothing"),
        ("[upstream]\nrequest_headers = { set = { X-A = \"{user.id}\" } }", "needs a login"),
        ("[upstream]\nrequest_headers = { set = { X-A = { secret = \"no-such-secret\" } } }", "no-such-secret"),
        (
            "[[route]]\npath = \"/a/{id}\"\nrequest_headers = { set = { X-A = \"{path.name}\" } }",
            "has no segment `{name}`",
        ),
    ] {
        let rendered = problems(text);
        assert!(rendered.contains(said), "{text}\n{rendered}");
    }
    let twice = "[upstreams.a]\nurl = \"http://a\"\ncors = { origins = [\"*\"], credentials = true }\n\
        [[route]]\npath = \"/a/*\"\nupstream = \"a\"\n[[route]]\npath = \"/b/*\"\nupstream = \"a\"\n";
    let rendered = problems(twice);
    assert_eq!(
        rendered.matches("lets every page act as its visitor").count(),
        1,
        "said once, where it stands:\n{rendered}"
    );
    assert!(rendered.contains("<test>:5"), "{rendered}");
    let fine = "[upstream]\nrequest_headers = { set = { Host = \"app.internal:8000\", X-A = \"{path.id|none}\" } }";
    assert!(!problems(fine).contains("error"), "{}", problems(fine));
}
