//! What is learned, and what is added to failures.

use http::header::{ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, VARY};
use http::{HeaderValue, Response, StatusCode};
use palisade_test::Upstream;
use palisade_test::upstream::Reply;

use super::granted::{Asked, Granted};
use crate::policy::values::UpstreamUrl;
use crate::refusal::Code;
use crate::testing_local::{Answer, App};

const PAGE: &str = "https://app.example.com";
const EVIL: &str = "https://evil.example";

/// Who is asked.
#[derive(Clone, Copy)]
struct Place<'a> {
    app: Option<&'a UpstreamUrl>,
    host: &'a str,
    answered: bool,
}

const HERE: Place<'_> = Place { app: None, host: "localhost", answered: true };

/// Sends an answer past it; `allowed` and `credentials` are the application's words. Returns what the client gets.
fn pass(
    granted: &Granted,
    origin: &str,
    status: u16,
    allowed: Option<&str>,
    credentials: bool,
) -> (Option<String>, bool) {
    pass_at(HERE, granted, origin, status, allowed, credentials)
}

fn pass_at(
    place: Place<'_>,
    granted: &Granted,
    origin: &str,
    status: u16,
    allowed: Option<&str>,
    credentials: bool,
) -> (Option<String>, bool) {
    let mut answer = Response::builder().status(status).body(()).unwrap();
    if let Some(allowed) = allowed {
        answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed.parse().unwrap());
    }
    if credentials {
        answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    shown(place, granted, origin, answer)
}

fn shown(place: Place<'_>, granted: &Granted, origin: &str, answer: Response<()>) -> (Option<String>, bool) {
    let (mut parts, ()) = answer.into_parts();
    let origin = origin.parse().unwrap();
    let asked = Asked { app: place.app, host: place.host, origin: &origin, answered: place.answered };
    granted.response(&asked, &mut parts);
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    let added = parts.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(text);
    if added.is_some() && parts.status.is_server_error() {
        assert_eq!(parts.headers[VARY], "Origin");
    }
    (added, parts.headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS))
}

#[test]
fn a_failure_gets_what_the_origin_was_allowed_and_nothing_more() {
    let granted = Granted::default();
    let nothing = (None, false);
    assert_eq!(pass(&granted, PAGE, 500, None, false), nothing, "nothing is known yet");
    pass(&granted, PAGE, 200, Some(PAGE), true);
    assert_eq!(pass(&granted, PAGE, 500, None, false), (Some(PAGE.into()), true));
    for other in ["https://evil.example", "https://app.example.com.evil", "null", "http://app.example.com"] {
        assert_eq!(pass(&granted, other, 500, None, false), nothing, "{other}");
    }
    // Its own words on other errors are its own.
    assert_eq!(pass(&granted, PAGE, 404, None, false), nothing);
    // An answer that names somebody else teaches nothing.
    pass(&granted, "https://evil.example", 200, Some(PAGE), true);
    assert_eq!(pass(&granted, "https://evil.example", 500, None, false), nothing);
    // Public is public, without credentials.
    pass(&granted, "https://b.example", 200, Some("*"), false);
    assert_eq!(pass(&granted, "https://b.example", 502, None, false), (Some("*".into()), false));
    // Credentials that are taken back, and an origin that is no longer allowed.
    pass(&granted, PAGE, 200, Some(PAGE), false);
    assert_eq!(pass(&granted, PAGE, 500, None, false), (Some(PAGE.into()), false));
    pass(&granted, PAGE, 200, None, false);
    assert_eq!(pass(&granted, PAGE, 500, None, false), nothing);
}

#[test]
fn a_refusal_gets_it_unless_it_is_for_nobody_here() {
    static LARGE: Code = Code::client("limits.test", StatusCode::PAYLOAD_TOO_LARGE, 2, "too large");
    static HOST: Code = Code::client("hosts.test", StatusCode::MISDIRECTED_REQUEST, 7, "not here");
    let granted = Granted::default();
    pass(&granted, PAGE, 200, Some(PAGE), true);
    for (code, allowed) in [(&LARGE, Some(PAGE.to_owned())), (&HOST, None)] {
        let mut answer = Response::builder().status(413).body(()).unwrap();
        answer.extensions_mut().insert::<&'static Code>(code);
        assert_eq!(shown(HERE, &granted, PAGE, answer).0, allowed);
    }
}

#[test]
fn it_is_bounded_and_forgets_the_oldest() {
    let granted = Granted::default();
    for number in 0..100 {
        let origin = format!("https://{number}.example");
        pass(&granted, &origin, 200, Some(&origin), false);
    }
    let known = |number: u32| pass(&granted, &format!("https://{number}.example"), 500, None, false).0.is_some();
    assert_eq!((0..100).filter(|number| known(*number)).count(), 64);
    assert!(!known(35) && known(36) && known(99));
    let long = format!("https://{}.example", "a".repeat(400));
    pass(&granted, &long, 200, Some(&long), false);
    assert_eq!(pass(&granted, &long, 500, None, false).0, None);
}

#[test]
fn it_is_for_one_application_under_one_name() {
    let (one, two): (UpstreamUrl, UpstreamUrl) =
        ("http://127.0.0.1:8001".parse().unwrap(), "http://127.0.0.1:8002".parse().unwrap());
    let granted = Granted::default();
    let place = Place { app: Some(&one), ..HERE };
    pass_at(place, &granted, EVIL, 200, Some(EVIL), true);
    let readable = |place| pass_at(place, &granted, EVIL, 500, None, false).0.is_some();
    assert!(readable(place));
    assert!(!readable(Place { app: Some(&two), ..place }), "another application");
    assert!(!readable(HERE), "the one without an address");
    assert!(!readable(Place { host: "b.localhost", ..place }), "another host");
    // Another one takes back only what is its own.
    pass_at(Place { app: Some(&two), ..place }, &granted, EVIL, 200, None, false);
    pass_at(Place { host: "b.localhost", ..place }, &granted, EVIL, 200, None, false);
    assert!(readable(place));
}

#[test]
fn only_the_application_grants_and_takes_back() {
    let granted = Granted::default();
    let gateway = Place { answered: false, ..HERE };
    pass_at(gateway, &granted, EVIL, 200, Some(EVIL), true);
    assert_eq!(pass(&granted, EVIL, 500, None, false).0, None);
    pass(&granted, PAGE, 200, Some(PAGE), true);
    // A file, or an endpoint of our own.
    assert_eq!(pass_at(gateway, &granted, PAGE, 200, None, false).0, None);
    assert_eq!(pass_at(gateway, &granted, PAGE, 503, None, false).0, None);
    assert_eq!(pass(&granted, PAGE, 500, None, false).0.as_deref(), Some(PAGE));
}

/// Reflects every origin, with credentials; what fails says nothing.
async fn lax() -> Upstream {
    let answer = |request: &palisade_test::wire::Message| {
        let (status, allowed) = match (request.target().contains("fails"), request.header("origin")) {
            (true, _) => ("500 Internal Server Error", String::new()),
            (false, origin) => {
                let origin = origin.unwrap_or("null");
                let allowed = format!(
                    "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\nVary: Origin\r\n"
                );
                ("200 OK", allowed)
            }
        };
        Reply::raw(format!("HTTP/1.1 {status}\r\n{allowed}Content-Length: 0\r\n\r\n"))
    };
    Upstream::answering(answer).await.unwrap()
}

/// Allows nobody anything.
async fn strict() -> Upstream {
    let answer = |request: &palisade_test::wire::Message| {
        let status = if request.target().contains("fails") { "500 Internal Server Error" } else { "200 OK" };
        Reply::raw(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
    };
    Upstream::answering(answer).await.unwrap()
}

fn allowed(answer: &Answer) -> Option<String> {
    answer.header("access-control-allow-origin")
}

#[tokio::test]
async fn what_one_application_allows_is_nothing_to_another() {
    let (lax, strict) = (lax().await, strict().await);
    let policy = |lax_leads_to: &str| {
        format!(
            "[upstreams.lax]\nurl = \"{}\"\n[upstreams.strict]\nurl = \"{}\"\n\
             [[route]]\npath = \"/lax/*\"\nupstream = \"{lax_leads_to}\"\n\
             [[route]]\npath = \"/lax2/*\"\nupstream = \"lax\"\n\
             [[route]]\npath = \"/strict/only-get\"\nmethods = [\"GET\"]\nupstream = \"strict\"\n\
             [[route]]\npath = \"/strict/*\"\nupstream = \"strict\"\n",
            lax.url(),
            strict.url()
        )
    };
    let app = App::start(&policy("lax"));
    let ask = async |method: &str, path: &str, host: &str| {
        app.ask("203.0.113.5", method, path, &[("origin", EVIL), ("host", host)]).await
    };
    // Before anything is known nobody is told anything.
    for path in ["/lax/fails", "/strict/fails"] {
        let answer = ask("GET", path, "localhost").await;
        assert_eq!((answer.status, allowed(&answer)), (500, None), "{path}");
    }
    assert_eq!(allowed(&ask("GET", "/lax/x", "localhost").await).as_deref(), Some(EVIL));
    for (path, status) in [("/lax/fails", 500), ("/lax/.env", 404)] {
        let answer = ask("GET", path, "localhost").await;
        // The second was refused before it was known whose it would have been.
        let expected = (status == 500).then(|| EVIL.to_owned());
        assert_eq!((answer.status, allowed(&answer)), (status, expected), "{path}");
    }
    for (method, path, host, status) in [
        ("GET", "/strict/fails", "localhost", 500),
        ("POST", "/strict/only-get", "localhost", 405),
        ("GET", "/strict/x", "localhost", 200),
        ("GET", "/strict/a%00", "localhost", 400),
        ("GET", "/strict/.env", "localhost", 404),
        // The application without a name, which has a list of its own.
        ("GET", "/panic", "localhost", 500),
        // The same application by another way, or under another name.
        ("GET", "/lax2/fails", "localhost", 500),
        ("GET", "/lax/fails", "127.0.0.1", 500),
    ] {
        let answer = ask(method, path, host).await;
        assert_eq!((answer.status, allowed(&answer)), (status, None), "{method} {host}{path}");
        assert_eq!(answer.header("access-control-allow-credentials"), None, "{method} {host}{path}");
    }
    // What one knew under a route is not the next one's that the route leads to.
    app.reload(&policy("strict"));
    let answer = ask("GET", "/lax/fails", "localhost").await;
    assert_eq!((answer.status, allowed(&answer)), (500, None));
    app.reload(&policy("lax"));
    let answer = ask("GET", "/lax/fails", "localhost").await;
    assert_eq!((answer.status, allowed(&answer).as_deref()), (500, Some(EVIL)));
}

#[tokio::test]
async fn of_one_application_a_refused_path_is_read_as_before() {
    let app = App::start("");
    let ask = async |path: &str| app.ask("203.0.113.5", "GET", path, &[("origin", PAGE)]).await;
    assert_eq!(allowed(&ask("/a%00").await), None);
    assert_eq!(allowed(&ask("/x").await).as_deref(), Some("*"));
    for path in ["/a%00", "/.env", "/panic"] {
        assert_eq!(allowed(&ask(path).await).as_deref(), Some("*"), "{path}");
    }
}
