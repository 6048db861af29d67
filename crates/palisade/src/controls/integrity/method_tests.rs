//! What arrives of a parameter that names another method.

use axum::Router;
use axum::extract::Request;
use http::header::HeaderValue;

use super::*;
use crate::policy::values::FORMATS;
use crate::testing::Harness;

/// `/notes/7` is judged by method, `/shop/*` is an application that honours `_verb`, `/rails/*` one whose operator knows.
const POLICY: &str = r#"
[[route]]
path = "/notes/{id}"
methods = ["DELETE"]
address = ["10.0.0.0/8"]

[[route]]
path = "/notes/{id}"
methods = ["GET", "POST"]

[[route]]
path = "/shop/*"
method_parameter = "_Verb"

[[route]]
path = "/rails/*"
method_parameter = "off"
"#;

const FORM: &str = "application/x-www-form-urlencoded";
const PARTS: &str = "multipart/form-data; boundary=b";

/// Says what arrives.
fn echo() -> Router {
    Router::new().fallback(async |request: Request| {
        let said = format!("{} {}", request.method(), request.uri());
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default();
        format!("{said} {}", String::from_utf8_lossy(&body))
    })
}

async fn arrives(app: &Harness, method: Method, target: &str) -> String {
    let answer = app.send(method, target, &[], "").await;
    assert_eq!(answer.status(), 200, "{target}: {}", answer.text());
    let text = answer.text();
    text.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_query_does_not_turn_a_request_into_one_of_another_route() {
    let app = Harness::new(POLICY, echo());
    for (sent, forwarded) in [
        ("/notes/7?_method=DELETE", "/notes/7"),
        ("/notes/7?_method=delete", "/notes/7"),
        ("/notes/7?a=1&_method=DELETE", "/notes/7?a=1"),
        ("/notes/7?_method=DELETE&a=1", "/notes/7?a=1"),
        ("/notes/7?a=1&_method=DELETE&b=%26_method=x?", "/notes/7?a=1&b=%26_method=x?"),
        ("/notes/7?_method=POST&_method=DELETE", "/notes/7?_method=POST"),
        ("/notes/7?a=1;_method=DELETE", "/notes/7?a=1"),
        ("/notes/7?&&_method=DELETE&&", "/notes/7?&&&"),
        ("/notes/7?a=?&_method=DELETE", "/notes/7?a=?"),
        ("/notes/7?_method=DELETE&_method=PUT", "/notes/7"),
        // One name to some reader.
        ("/notes/7?%5Fmethod=DELETE", "/notes/7"),
        ("/notes/7?_%6dethod=%44ELETE", "/notes/7"),
        ("/notes/7?_METHOD=Delete", "/notes/7"),
        ("/notes/7?.method=DELETE", "/notes/7"),
        ("/notes/7?+%20_method=DELETE", "/notes/7"),
        ("/notes/7?_method[]=DELETE", "/notes/7"),
        ("/notes/7?_method%5B0%5D=DELETE", "/notes/7"),
        ("/notes/7?_method%00x=DELETE", "/notes/7"),
        // No route of the path is for these.
        ("/notes/7?_method=PUT", "/notes/7"),
        ("/notes/7?_method=PURGE", "/notes/7"),
        // The same route, another parameter, or no method.
        ("/notes/7?_method=GET", "/notes/7?_method=GET"),
        ("/notes/7?_method=post", "/notes/7?_method=post"),
        ("/notes/7?method=DELETE", "/notes/7?method=DELETE"),
        ("/notes/7?_methods=DELETE", "/notes/7?_methods=DELETE"),
        ("/notes/7?_metho=DELETE", "/notes/7?_metho=DELETE"),
        ("/notes/7?x_method=DELETE", "/notes/7?x_method=DELETE"),
        ("/notes/7?a=_method=DELETE", "/notes/7?a=_method=DELETE"),
        ("/notes/7?_method", "/notes/7?_method"),
        ("/notes/7?_method=", "/notes/7?_method="),
        ("/notes/7?_method=a/b", "/notes/7?_method=a/b"),
        ("/notes/7?%=1&%5=2&%zz", "/notes/7?%=1&%5=2&%zz"),
        ("/notes/7", "/notes/7"),
        ("/notes/7?", "/notes/7?"),
        // Nothing is told apart there.
        ("/free?_method=DELETE", "/free?_method=DELETE"),
        ("/rails/7?_method=DELETE", "/rails/7?_method=DELETE"),
        // There the policy knows.
        ("/shop/7?_verb=DELETE", "/shop/7"),
        ("/shop/7?_verb", "/shop/7"),
        ("/shop/7?_VERB[]=anything&a=1", "/shop/7?a=1"),
        ("/shop/7?_method=DELETE", "/shop/7?_method=DELETE"),
    ] {
        assert_eq!(arrives(&app, Method::POST, sent).await, forwarded, "{sent}");
    }
}

/// Routes are not all that goes by the method.
#[tokio::test]
async fn what_else_goes_by_the_method_is_not_passed_by_either() {
    let app = Harness::new(POLICY, echo());
    assert_eq!(arrives(&app, Method::GET, "/free?_method=DELETE").await, "/free", "`csrf` asks for no proof of a GET");
    assert_eq!(arrives(&app, Method::GET, "/free?_method=card").await, "/free?_method=card");
    assert_eq!(arrives(&app, Method::GET, "/free?_method=HEAD").await, "/free?_method=HEAD");
    let watched = Harness::new("[csrf]\nmode = \"detect\"", echo());
    assert_eq!(arrives(&watched, Method::GET, "/free?_method=DELETE").await, "/free?_method=DELETE");
    let section = Harness::new("[integrity]\nmethod_parameter = \"do\"", echo());
    assert_eq!(arrives(&section, Method::POST, "/free?do=DELETE&_method=DELETE").await, "/free?_method=DELETE");
}

#[tokio::test]
async fn a_form_is_refused_where_it_would_be_one_of_another_route() {
    let app = Harness::new(POLICY, echo());
    let part = |head: &str| format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\nDELETE\r\n--b--\r\n");
    let (field, file) = (part("name=\"_method\""), part("name=\"f\"; filename=\"_method\""));
    let (field, file) = (field.as_str(), file.as_str());
    for (path, kind, body, refused) in [
        ("/notes/7", FORM, "_method=DELETE", true),
        ("/notes/7", FORM, "title=a&%5Fmethod=put", true),
        ("/notes/7", FORM, "title=a;_method=DELETE", true),
        ("/notes/7", "Application/X-WWW-Form-Urlencoded; charset=utf-8", "_method=DELETE", true),
        ("/notes/7", "", "_method=DELETE", true),
        ("/notes/7", PARTS, field, true),
        ("/notes/7", "multipart/mixed; boundary=b", field, true),
        ("/notes/7", FORM, "title=_method%3DDELETE&method=DELETE&_method", false),
        ("/notes/7", PARTS, file, false),
        ("/notes/7", "application/json", r#"{"_method":"DELETE"}"#, false),
        ("/free", FORM, "_method=DELETE", false),
        ("/free", PARTS, field, false),
        ("/rails/7", FORM, "_method=DELETE", false),
        ("/shop/7", FORM, "_verb=anything", true),
        ("/shop/7", FORM, "_method=DELETE", false),
    ] {
        let typed = [("content-type", kind)];
        let headers = if kind.is_empty() { &typed[..0] } else { &typed[..] };
        let answer = app.send(Method::POST, path, headers, body.to_owned()).await;
        let expected = if refused { (400, Some(&METHOD_OVERRIDE)) } else { (200, None) };
        assert_eq!((answer.status(), answer.refusal()), expected, "{path} {kind} {body}");
        if !refused {
            assert!(answer.text().ends_with(body), "{path} {kind} {body}: {}", answer.text());
        }
    }
    // Whoever may delete says so by the method, and the form is none of the methods that are told apart.
    let inside = app.clone().from("10.1.2.3").send(Method::DELETE, "/notes/7", &[], "").await;
    assert_eq!(inside.status(), 200);
}

fn form(kind: &str) -> Form {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(kind).unwrap())]);
    Form::of(&headers).unwrap()
}

#[test]
fn fields_by_their_names() {
    let wanted = USUAL_NAME.as_bytes();
    let reads = |kind: &str, body: &str| {
        let whole = form(kind).has(body.as_bytes(), wanted);
        // However it is cut, it is found or not, and not later than with the piece that completes it.
        for size in 1..body.len().min(40) {
            let mut read = form(kind);
            let pieces = body.as_bytes().chunks(size).any(|piece| read.has(piece, wanted));
            assert_eq!(pieces, whole, "{body} in pieces of {size}");
        }
        whole
    };
    let head = |line: &str| format!("--b\r\n{line}\r\n\r\nDELETE\r\n--b--\r\n");
    for line in [
        "Content-Disposition: form-data; name=\"_method\"",
        "content-disposition:form-data;name=_method",
        "CONTENT-DISPOSITION: form-data; filename=\"x\"; NAME=\"_Method\"",
        "Content-Disposition: form-data; name='_method'",
        "Content-Disposition: form-data; name=\"_\\method\"",
        "Content-Disposition: form-data; name = \"_method\" ",
        "Content-Disposition: form-data; name*=utf-8''_method",
        "Content-Disposition: form-data; name*=UTF-8'en'%5fmethod",
        "Content-Disposition: form-data; name=\"%5Fmethod\"",
        "Content-Disposition: form-data; name=\"_method[]\"",
        "Content-Disposition: form-data;\r\n name=\"_method\"",
        "Content-Disposition: form-data;\n\tname=\"_method\"",
        "Content-Type: text/plain\r\nContent-Disposition: form-data; name=\"_method\"\r\nX-A: b",
        "Content-Type: text/plain\nContent-Disposition: form-data; name=\"_method\"",
        "Content-Type: text/plain\rContent-Disposition: form-data; name=\"_method\"",
    ] {
        assert!(reads(PARTS, &head(line)), "{line}");
    }
    let long = format!("Content-Disposition: form-data; filename=\"{}\"; name=\"_method\"", "x".repeat(MAX_LINE));
    assert!(form("multipart/form-data").has(head(&long).as_bytes(), wanted), "what is too long to be read");
    for line in [
        "Content-Disposition: form-data; name=\"method\"",
        "Content-Disposition: form-data; name=\"_methods\"",
        "Content-Disposition: form-data; name=\"a\"; filename=\"_method\"",
        "Content-Disposition: form-data; name=\"a\"; filename*=utf-8''_method",
        "Content-Type: text/plain; name=_method",
        "X-Content-Disposition: form-data; name=\"_method\"",
        "Content-Disposition: form-data; name=\"a\"\r\n\r\n name=\"_method\"",
    ] {
        assert!(!reads(PARTS, &head(line)), "{line}");
    }
    let page = "<form method=post><input type=hidden name=\"_method\" value=\"DELETE\"></form>\r\n".repeat(3);
    assert!(!reads(PARTS, &format!("--b\r\nX: y\r\n\r\n{page}--b--\r\n")));
    for body in ["_method=x", "a=1&_method=", "a=%zz&+_method=x", "&&;_method=x", "_meth=1&_method=x", "a&b&_method=x"]
    {
        assert!(reads(FORM, body), "{body}");
    }
    for body in ["", "_method", "_metho", "a=_method=x", "x_method=1", "_method%=x", "%_method=x", "_met%hod=x"] {
        assert!(!reads(FORM, body), "{body}");
    }
    // Of two types nobody knows which one the application goes by.
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
    assert!(Form::of(&headers).is_none());
    headers.append(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    assert!(Form::of(&headers).is_some_and(|mut form| form.has(b"_method=x", wanted)));
}

#[test]
fn names_of_parameters() {
    let check = FORMATS.iter().find(|format| format.name == MethodParameter::FORMAT).unwrap().check;
    for good in ["_method", "off", "X-Verb", "m", "a".repeat(64).as_str()] {
        assert_eq!(check(good), Ok(()), "{good}");
        assert_eq!(good.parse::<MethodParameter>().unwrap().to_string(), good);
    }
    for bad in ["", "a b", "_method[]", "a=b", "é", "a.b", "a".repeat(65).as_str()] {
        assert!(check(bad).is_err(), "{bad}");
    }
}
