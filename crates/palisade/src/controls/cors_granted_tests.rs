//! What is learned, and what is added to failures.

use http::header::{ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, VARY};
use http::{HeaderValue, Response, StatusCode};

use super::granted::Granted;
use crate::refusal::Code;

const PAGE: &str = "https://app.example.com";

/// Sends an answer past it; `allowed` and `credentials` are the application's words. Returns what the client gets.
fn pass(
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
    shown(granted, origin, answer)
}

fn shown(granted: &Granted, origin: &str, answer: Response<()>) -> (Option<String>, bool) {
    let (mut parts, ()) = answer.into_parts();
    granted.response(&origin.parse().unwrap(), &mut parts);
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
        assert_eq!(shown(&granted, PAGE, answer).0, allowed);
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
