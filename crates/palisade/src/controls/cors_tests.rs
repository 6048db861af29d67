use crate::testing_local::{Answer, App};

const POLICY: &str = r#"
[cors]
origins = ["https://app.example.com", "*.widgets.example.com", 'regex:https://pr-[0-9]+\.example\.com(:8443)?', "http://localhost:3000"]
credentials = true
methods = ["GET", "PUT", "DELETE"]
headers = ["Authorization", "Content-Type"]
expose_headers = ["X-Request-Id"]
max_age = "1h"

[[route]]
path = "/open/*"
cors = { origins = ["*"], credentials = false, headers = ["*"], private_network = true }

[[route]]
path = "/closed/*"
cors = { origins = [] }

[[route]]
path = "/only-get"
methods = ["GET"]

[[route]]
path = "/inside/*"
address = ["10.0.0.0/8"]

[[route]]
path = "/partner/*"
cors = { origins = ["https://partner.example.org:8443"], credentials = false }
"#;

const LISTED: &[&str] = &[
    "https://app.example.com",
    "https://a.widgets.example.com",
    "https://a.b.widgets.example.com",
    "https://pr-7.example.com",
    "https://pr-123.example.com:8443",
    "http://localhost:3000",
];

const UNLISTED: &[&str] = &[
    "null",
    "https://example.com",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com.evil",
    "https://app.example.com.",
    "https://APP.example.com",
    "https://app.example.com/",
    "https://evilexample.com",
    "https://example.com.evil",
    "http://a.widgets.example.com",
    "https://widgets.example.com",
    "https://evilwidgets.example.com",
    "https://a.widgets.example.com:8443",
    "https://a.widgets.example.com.evil",
    "https://.widgets.example.com",
    "https://evil/.widgets.example.com",
    "https://pr-.example.com",
    "https://pr-7xexample.com",
    "https://pr-7.example.com.evil",
    "https://xpr-7.example.com",
    "http://pr-7.example.com",
    "https://evil.com/https://pr-7.example.com",
    "http://localhost:3001",
    "http://localhost",
    "https://localhost:3000",
    "file://",
    "moz-extension://abc",
    "*",
    "https://*.widgets.example.com",
    "https://app.example.com, https://evil.com",
    "https://app.example.com https://evil.com",
    "",
];

fn origin(answer: &Answer) -> Option<String> {
    answer.header("access-control-allow-origin")
}

fn any_cors(answer: &Answer) -> Vec<String> {
    answer.headers.keys().map(ToString::to_string).filter(|name| name.starts_with("access-control-")).collect()
}

async fn preflight(app: &App, path: &str, origin: &str, method: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", method),
        ("access-control-request-headers", "authorization"),
        ("access-control-request-private-network", "true"),
    ];
    app.ask("203.0.113.5", "OPTIONS", path, &headers).await
}

#[tokio::test]
async fn only_listed_origins_are_answered_to() {
    let app = App::start(POLICY);
    let mut asked = 0;
    for listed in LISTED {
        let answer = preflight(&app, "/notes", listed, "PUT").await;
        assert_eq!((answer.status, origin(&answer).as_deref()), (204, Some(*listed)), "{listed}");
        assert_eq!(answer.header("access-control-allow-methods").as_deref(), Some("GET, PUT, DELETE"));
        assert_eq!(answer.header("access-control-allow-headers").as_deref(), Some("Authorization, Content-Type"));
        assert_eq!(answer.header("access-control-max-age").as_deref(), Some("3600"));
        assert_eq!(answer.header("access-control-allow-credentials").as_deref(), Some("true"));
        assert_eq!(answer.header("access-control-expose-headers"), None);
        assert_eq!(answer.header("access-control-allow-private-network"), None);
        assert_eq!(answer.header("vary").as_deref(), Some("Origin"));
        let simple = app.ask("203.0.113.5", "GET", "/notes", &[("origin", listed)]).await;
        assert_eq!((simple.status, origin(&simple).as_deref()), (200, Some(*listed)), "{listed}");
        assert_eq!(simple.header("access-control-expose-headers").as_deref(), Some("X-Request-Id"));
        assert_eq!(simple.header("vary").as_deref(), Some("Accept-Encoding, Origin"));
        asked += 2;
    }
    for unlisted in UNLISTED {
        let answer = preflight(&app, "/notes", unlisted, "PUT").await;
        assert_eq!((answer.status, answer.code().as_deref()), (403, Some("cors.origin")), "{unlisted}");
        assert_eq!(any_cors(&answer), Vec::<String>::new(), "{unlisted}");
        assert_eq!(answer.header("vary").as_deref(), Some("Origin"));
        // Passed on, with nothing that would let a page read it: also not what the application said.
        let simple = app.ask("203.0.113.5", "GET", "/notes", &[("origin", unlisted)]).await;
        assert_eq!((simple.status, simple.text.as_str()), (200, "app"), "{unlisted}");
        assert_eq!(any_cors(&simple), Vec::<String>::new(), "{unlisted}");
        assert_eq!(simple.header("vary").as_deref(), Some("Accept-Encoding, Origin"));
        asked += 2;
    }
    let twice = [("origin", "https://app.example.com"), ("origin", "https://evil.com")];
    assert_eq!(any_cors(&app.ask("203.0.113.5", "GET", "/notes", &twice).await), Vec::<String>::new());
    let none = app.get("203.0.113.5", "/notes").await;
    assert_eq!((any_cors(&none), none.header("vary").as_deref()), (Vec::new(), Some("Accept-Encoding, Origin")));
    assert!(asked + 2 >= 50, "{asked}");
}

#[tokio::test]
async fn a_preflight_needs_its_three_marks_and_asks_for_another_method() {
    let app = App::start(POLICY);
    let listed = ("origin", "https://app.example.com");
    // The browser compares: what the policy allows is said whatever was asked for.
    for method in ["PUT", "PATCH", "TRACE", "put", "PROPFIND", "\u{7f}"] {
        if method.contains('\u{7f}') {
            continue;
        }
        let answer = preflight(&app, "/notes", listed.1, method).await;
        assert_eq!(answer.header("access-control-allow-methods").as_deref(), Some("GET, PUT, DELETE"), "{method}");
    }
    // No preflights: the application answers.
    for (method, headers) in [
        ("OPTIONS", vec![listed]),
        ("OPTIONS", vec![("access-control-request-method", "PUT")]),
        ("GET", vec![listed, ("access-control-request-method", "PUT")]),
    ] {
        let answer = app.ask("203.0.113.5", method, "/notes", &headers).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "app"), "{method} {headers:?}");
    }
    // Above `access`: methods of the route do not stand in the way, and neither does its network.
    assert_eq!(preflight(&app, "/only-get", listed.1, "GET").await.status, 204);
    assert_eq!(preflight(&app, "/inside/x", listed.1, "GET").await.status, 204);
}

#[tokio::test]
async fn answers_of_other_layers_have_them_too() {
    let app = App::start(POLICY);
    let listed = ("origin", "https://app.example.com");
    for (method, path, length, status) in [
        ("POST", "/only-get", "0", 405),
        ("GET", "/inside/x", "0", 403),
        ("GET", "/panic", "0", 500),
        ("GET", "/.palisade/nothing", "0", 404),
        ("GET", "/a%00b", "0", 400),
        ("GET", "/.git/config", "0", 404),
        ("POST", "/echo", "9999999", 413),
    ] {
        let answer = app.ask("203.0.113.5", method, path, &[("content-length", length), listed]).await;
        assert_eq!((answer.status, origin(&answer).as_deref()), (status, Some(listed.1)), "{path}");
        assert_eq!(answer.header("vary").as_deref(), Some("Origin"), "{path}");
    }
    // A name that is not ours learns nothing about origins.
    let foreign = app.ask("203.0.113.5", "GET", "/", &[("host", "evil.example"), listed]).await;
    assert_eq!((foreign.status, any_cors(&foreign), foreign.header("vary")), (421, Vec::new(), None));
}

#[tokio::test]
async fn a_route_shares_otherwise() {
    let app = App::start(POLICY);
    let anybody = preflight(&app, "/open/x", "https://who.ever", "GET").await;
    assert_eq!((anybody.status, origin(&anybody).as_deref()), (204, Some("*")));
    assert_eq!(anybody.header("access-control-allow-headers").as_deref(), Some("*"));
    assert_eq!(anybody.header("access-control-allow-credentials"), None);
    assert_eq!(anybody.header("access-control-allow-private-network").as_deref(), Some("true"));
    assert_eq!(preflight(&app, "/open/x", "null", "GET").await.status, 403);
    assert_eq!(preflight(&app, "/closed/x", "https://app.example.com", "GET").await.status, 403);
    assert_eq!(preflight(&app, "/partner/x", "https://app.example.com", "GET").await.status, 403);
    let partner = preflight(&app, "/partner/x", "https://partner.example.org:8443", "GET").await;
    assert_eq!((partner.status, partner.header("access-control-allow-credentials")), (204, None));
}

#[tokio::test]
async fn without_the_section_the_application_answers() {
    let app = App::start("[[route]]\npath = \"/mine\"\ncors = { origins = [\"https://app.example.com\"] }\n");
    let answer = app.ask("203.0.113.5", "GET", "/", &[("origin", "https://who.ever")]).await;
    assert_eq!(origin(&answer).as_deref(), Some("*"));
    assert_eq!(answer.header("vary").as_deref(), Some("Accept-Encoding"));
    assert_eq!(preflight(&app, "/", "https://who.ever", "PUT").await.text, "app");
    assert_eq!(preflight(&app, "/mine", "https://who.ever", "PUT").await.status, 403);
    let off = App::start("[cors]\nerrors = false\n");
    assert!(!off.handle.live().controls().contains(&"cors"), "off means absent");
}

#[test]
fn what_the_guide_forbids_does_not_load() {
    for (policy, said) in [
        ("[cors]\norigins = [\"*\"]\ncredentials = true\n", "every page act as its visitor"),
        ("[cors]\norigins = [\"*.com\"]\ncredentials = true\n", "every page act as its visitor"),
        ("[cors]\norigins = ['regex:https://[a-z0-9.-]+']\ncredentials = true\n", "every page act as its visitor"),
        ("[cors]\norigins = [\"null\"]\n", "sandboxed"),
        ("[cors]\norigins = [\"https://app.example.com/\"]\n", "final slash"),
        ("[cors]\ncredentials = true\n", "names no origin"),
        ("[cors]\norigins = [\"https://a.b\"]\ncredentials = true\nheaders = [\"*\"]\n", "header of that name"),
        ("[cors]\norigins = [\"https://a.b\"]\nheaders = [\"a b\"]\n", "not the name of a header"),
        ("[cors]\norigins = [\"https://a.b\"]\nmode = \"detect\"\n", "mode"),
        (
            "[cors]\norigins = [\"*\"]\n[[route]]\npath = \"/x\"\ncors = { credentials = true }\n",
            "every page act as its visitor",
        ),
    ] {
        let problems = App::problems(policy);
        assert!(problems.contains("error") && problems.contains(said), "{policy}\n{problems}");
    }
    assert_eq!(App::problems(POLICY), "");
}
