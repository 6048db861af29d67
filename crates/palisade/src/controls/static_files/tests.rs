use std::os::unix::fs::symlink;
use std::path::PathBuf;

use axum::Router;
use http::Method;

use super::*;
use crate::testing::{Answer, Harness};

/// A directory of files, and what lies beside it.
struct Site {
    folder: tempfile::TempDir,
    root: PathBuf,
}

fn site() -> Site {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("files");
    std::fs::create_dir_all(root.join("docs")).unwrap();
    std::fs::create_dir_all(root.join("empty")).unwrap();
    std::fs::write(folder.path().join("secret.txt"), "outside").unwrap();
    for (name, text) in [
        ("app.js", "let x = 1;"),
        ("page.html", "<p>"),
        ("data.bin", "0123456789"),
        ("index.html", "<h1>top</h1>"),
        ("docs/index.html", "<h1>docs</h1>"),
        ("empty.txt", ""),
        ("é x.txt", "name"),
        (".env", "KEY=1"),
        ("prod.env", "KEY=1"),
    ] {
        std::fs::write(root.join(name), text).unwrap();
    }
    for (name, text) in
        [("app.js.br", "brotli"), ("app.js.gz", "gzip"), ("page.html.gz", "older"), ("data.bin.gz", "x")]
    {
        std::fs::write(root.join(name), text).unwrap();
    }
    let age = |name: &str, seconds: u64| {
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(seconds);
        std::fs::File::options().write(true).open(root.join(name)).unwrap().set_modified(time).unwrap();
    };
    age("page.html.gz", 5000);
    age("data.bin", 3600);
    symlink("../secret.txt", root.join("link.txt")).unwrap();
    Site { folder, root }
}

impl Site {
    fn app(&self, keys: &str, rest: &str) -> Harness {
        let state = self.folder.path().join("state");
        let policy = format!(
            "[server]\nstate = \"{}\"\n\n[[static]]\npath = \"/static\"\nroot = \"{}\"\n{keys}\n{rest}",
            state.display(),
            self.root.display()
        );
        Harness::new(&policy, Router::new().fallback(|| async { "application" }))
    }

    fn problems(&self, rest: &str) -> String {
        let text = format!(
            "[server]\nmode = \"development\"\nstate = \"{}\"\n{rest}",
            self.folder.path().join("state").display()
        );
        let text = text.replace("@ROOT@", self.root.to_str().unwrap());
        match crate::live::check(&palisade_policy::Sources::new().builtin("palisade.toml", text)) {
            Ok((_, problems)) | Err(problems) => problems.render(false),
        }
    }
}

async fn get(app: &Harness, path: &str, headers: &[(&str, &str)]) -> Answer {
    app.send(Method::GET, path, headers, "").await
}

#[tokio::test]
async fn files_are_served_and_nothing_else() {
    let site = site();
    let app = site.app("", "");
    for (path, status, code, text) in [
        ("/static/app.js", 200, None, "let x = 1;"),
        ("/static/%61pp.js", 200, None, "let x = 1;"),
        ("/static/docs/../app.js", 200, None, "let x = 1;"),
        ("/static//app.js", 200, None, "let x = 1;"),
        ("/static/%C3%A9%20x.txt", 200, None, "name"),
        ("/static/empty.txt", 200, None, ""),
        ("/static/", 200, None, "<h1>top</h1>"),
        ("/static/docs/", 200, None, "<h1>docs</h1>"),
        ("/static/app.js?v=1", 200, None, "let x = 1;"),
        ("/elsewhere", 200, None, "application"),
        ("/statics/app.js", 200, None, "application"),
        ("/static/APP.JS", 404, None, ""),
        ("/static/nothing.js", 404, None, ""),
        ("/static/empty", 404, None, ""),
        ("/static/empty/", 404, None, ""),
        ("/static/app.js/", 404, None, ""),
        ("/static/app.js/x", 404, None, ""),
        ("/static/link.txt", 404, Some(&NOT_FOUND), ""),
        ("/static/.env", 404, Some(&HIDDEN_FILE), ""),
        ("/static/prod.env", 404, Some(&HIDDEN_FILE), ""),
        ("/static/../secret.txt", 200, None, "application"),
    ] {
        let answer = get(&app, path, &[]).await;
        assert_eq!((answer.status(), answer.refusal()), (status, code), "{path}: {}", answer.text());
        assert!(status != 200 || answer.text() == text, "{path}: {}", answer.text());
        assert!(!answer.text().contains("outside") && !answer.text().contains("KEY="), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
}

#[tokio::test]
async fn a_directory_has_a_slash_or_no_index() {
    let site = site();
    let app = site.app("", "");
    for (path, location) in
        [("/static", "/static/"), ("/static/docs", "/static/docs/"), ("/static/docs?a=%20b", "/static/docs/?a=%20b")]
    {
        let answer = get(&app, path, &[]).await;
        assert_eq!((answer.status(), answer.header("location")), (308, location), "{path}");
    }
    let off = site.app("index = \"off\"", "");
    for path in ["/static", "/static/", "/static/docs", "/static/docs/"] {
        assert_eq!(get(&off, path, &[]).await.status(), 404, "{path}");
    }
    assert_eq!(get(&off, "/static/docs/index.html", &[]).await.status(), 200);
}

#[tokio::test]
async fn methods() {
    let site = site();
    let app = site.app("", "");
    let head = app.send(Method::HEAD, "/static/data.bin", &[("range", "bytes=0-1")], "").await;
    assert_eq!((head.status(), head.header("content-length"), head.text().as_str()), (200, "10", ""));
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        let own = app.send(method.clone(), "/static/app.js", &[], "").await;
        assert_eq!((own.status(), own.header("allow")), (405, "GET, HEAD"), "{method}");
        // Whatever a route allows.
        let routed = site.app("", "[[route]]\npath = \"/*\"").send(method.clone(), "/static/app.js", &[], "").await;
        assert_eq!((routed.refusal(), routed.header("allow")), (Some(&METHOD), "GET, HEAD"), "{method}");
    }
}

#[tokio::test]
async fn a_route_says_who_may_read() {
    let site = site();
    let closed = site.app("", "[[route]]\npath = \"/static/docs/*\"\naddress = [\"203.0.113.0/24\"]");
    assert_eq!(get(&closed, "/static/app.js", &[]).await.status(), 200);
    assert_eq!(get(&closed, "/static/docs/", &[]).await.status(), 403);
    assert_eq!(get(&closed.clone().from("203.0.113.7"), "/static/docs/", &[]).await.status(), 200);
    // What is there is not told either.
    assert_eq!(get(&closed, "/static/docs/nothing", &[]).await.status(), 403);
    let labels = |app: &Harness| {
        let live = app.handle().live();
        live.policy.rules().iter().map(|rule| rule.label.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(labels(&closed), ["default", "/static/docs/*", "/static/*"]);
    assert_eq!(labels(&site.app("", "[[route]]\npath = \"/static/*\"")), ["default", "/static/*"]);
    assert_eq!(labels(&site.app("", "[[route]]\npath = \"/static/*\"\nhost = \"a.example\"")).len(), 3);
}

#[tokio::test]
async fn hosts_and_the_longer_path() {
    let site = site();
    let more = format!(
        "host = \"*.example\"\n\n[[static]]\npath = \"/static/docs\"\nroot = \"{}\"\ncache = \"immutable\"",
        site.root.display()
    );
    let app = site.app(&more, "");
    let app = |host: &'static str, path: &'static str| {
        let app = app.clone();
        async move { app.send(Method::GET, path, &[("host", host)], "").await }
    };
    assert_eq!(app("localhost", "/static/app.js").await.text(), "application");
    let nested = app("localhost", "/static/docs/app.js").await;
    assert_eq!((nested.text().as_str(), nested.header("cache-control")), ("let x = 1;", "max-age=31536000, immutable"));
}

#[tokio::test]
async fn heads() {
    let site = site();
    let app = site.app("types = { \".BIN\" = \"application/x-own\" }", "");
    let answer = get(&app, "/static/app.js", &[]).await;
    for (name, value) in [
        ("content-type", "text/javascript; charset=utf-8"),
        ("content-length", "10"),
        ("accept-ranges", "bytes"),
        ("cache-control", "no-cache"),
        ("vary", "Accept-Encoding"),
        ("content-encoding", ""),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    // Just written: it could be written once more within the same second.
    assert_eq!((answer.header("last-modified"), &answer.header("etag")[..3]), ("", "W/\""));
    let older = get(&app, "/static/data.bin", &[]).await;
    assert!(older.header("last-modified").ends_with(" GMT"));
    assert_eq!(older.header("content-type"), "application/x-own");
    let personal = get(&site.app("cache = \"1h\"", ""), "/static/app.js", &[("cookie", "s=1")]).await;
    let varies: Vec<_> = personal.headers().get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!((personal.header("cache-control"), varies), ("no-store", vec!["Accept-Encoding", "Cookie"]));
    let shared = "[[route]]\npath = \"/static/*\"\ncache = \"upstream\"";
    let shared = get(&site.app("cache = \"1h\"", shared), "/static/app.js", &[("cookie", "s=1")]).await;
    assert_eq!((shared.header("cache-control"), shared.header("vary")), ("max-age=3600", "Accept-Encoding"));
    let silent = get(&site.app("cache = \"off\"", ""), "/static/app.js", &[]).await;
    assert_eq!(silent.header("cache-control"), "");
    let off = get(&site.app("", "[headers]\nmode = \"off\""), "/static/page.html", &[]).await;
    assert_eq!((off.header("x-content-type-options"), off.header("content-security-policy")), ("nosniff", ""));
}

#[tokio::test]
async fn conditions_and_ranges() {
    let site = site();
    let app = site.app("", "");
    let tag = get(&app, "/static/data.bin", &[]).await.header("etag").to_owned();
    for (headers, status, text) in [
        (&[("if-none-match", tag.as_str())][..], 304, ""),
        (&[("if-none-match", "\"other\"")], 200, "0123456789"),
        (&[("if-match", "\"other\"")], 412, ""),
        (&[("if-modified-since", "Tue, 01 Jan 2199 00:00:00 GMT")], 304, ""),
        (&[("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT")], 412, ""),
        (&[("range", "bytes=2-4")], 206, "234"),
        (&[("range", "bytes=-2")], 206, "89"),
        (&[("range", "bytes=10-")], 416, ""),
        (&[("range", "bytes=0-1,4-5")], 200, "0123456789"),
        (&[("range", "bytes=2-4"), ("if-range", "\"other\"")], 200, "0123456789"),
    ] {
        let answer = get(&app, "/static/data.bin", headers).await;
        assert_eq!(answer.status(), status, "{headers:?}");
        assert!(status > 299 || answer.text() == text, "{headers:?}: {}", answer.text());
        match status {
            206 => assert!(answer.header("content-range").ends_with("/10"), "{}", answer.header("content-range")),
            304 => assert!(answer.header("etag") == tag && answer.header("content-type").is_empty()),
            416 => assert_eq!(answer.header("content-range"), "bytes */10"),
            _ => assert_eq!(answer.header("content-range"), ""),
        }
    }
}

#[tokio::test]
async fn compressed_forms() {
    let site = site();
    let app = site.app("", "");
    for (path, accept, encoding, text) in [
        ("/static/app.js", "gzip, br", "br", "brotli"),
        ("/static/app.js", "gzip", "gzip", "gzip"),
        ("/static/app.js", "zstd, gzip;q=0.5", "gzip", "gzip"),
        ("/static/app.js", "deflate", "", "let x = 1;"),
        ("/static/app.js", "br;q=0, *;q=0", "", "let x = 1;"),
        // Older than the file itself.
        ("/static/page.html", "gzip", "", "<p>"),
        // Not worth it, and so not looked for.
        ("/static/data.bin", "gzip", "", "0123456789"),
    ] {
        let answer = get(&app, path, &[("accept-encoding", accept)]).await;
        assert_eq!((answer.header("content-encoding"), answer.text().as_str()), (encoding, text), "{path} {accept}");
    }
    let (br, plain) =
        (get(&app, "/static/app.js", &[("accept-encoding", "br")]).await, get(&app, "/static/app.js", &[]).await);
    assert_ne!(br.header("etag"), plain.header("etag"));
    assert_eq!(br.header("content-type"), plain.header("content-type"));
    let part = get(&app, "/static/app.js", &[("accept-encoding", "br"), ("range", "bytes=0-2")]).await;
    assert_eq!((part.status(), part.text().as_str(), part.header("content-encoding")), (206, "bro", "br"));
    let off = get(&site.app("precompressed = false", ""), "/static/app.js", &[("accept-encoding", "br")]).await;
    assert_eq!((off.header("content-encoding"), off.header("vary")), ("", ""));
}

#[test]
fn absent_means_off() {
    let app = Harness::policy("");
    assert!(!app.handle().live().controls().contains(&"static"));
}

#[test]
fn problems_name_the_place_and_the_fix() {
    let site = site();
    std::fs::remove_file(site.root.join(".env")).unwrap();
    let one = "[[static]]\npath = \"/static\"\nroot = \"@ROOT@\"\n";
    assert_eq!(site.problems(one), "");
    let upstream = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n";
    for (text, said) in [
        ("[[static]]\npath = \"/static\"\nroot = \"@ROOT@/nothing\"".to_owned(), "does not exist"),
        ("[[static]]\npath = \"/static\"\nroot = \"@ROOT@/app.js\"".to_owned(), "is not a directory"),
        ("[[static]]\npath = \"/static\"\nroot = \"@ROOT@/..\"".to_owned(), "holds `server.state`"),
        ("[[static]]\npath = \"/static\"\nroot = \"/\"".to_owned(), "holds `server.state`"),
        (format!("{one}{one}"), "is the path of another `[[static]]` too"),
        (format!("{upstream}[[static]]\npath = \"/\"\nroot = \"@ROOT@\""), "never be asked"),
        (format!("{one}[[route]]\npath = \"/static/up\"\nmethods = [\"POST\"]"), "whose files are only read"),
        (format!("{one}index = \".env\""), "not the name of a file"),
        (format!("{one}types = {{ glb = \"x\" }}"), "not an extension and its content type"),
        (format!("{one}cache = \"ever\""), "length of time"),
        ("[[static]]\nroot = \"@ROOT@\"".to_owned(), "path"),
        ("[[static]]\npath = \"/static/*\"\nroot = \"@ROOT@\"".to_owned(), "leave out"),
        ("[[static]]\npath = \"/static\"\nroot = \"@ROOT@\"\nmode = \"off\"".to_owned(), "mode"),
        (
            "[[static]]\npath = \"/static\"\nroot = \"@ROOT@\"\n[log]\naccess = \"@ROOT@/access.log\"".to_owned(),
            "holds `log.access`",
        ),
        (
            "[[static]]\npath = \"/static\"\nroot = \"@ROOT@\"\n[secrets]\nprovider = \"dir:@ROOT@/..\"".to_owned(),
            "lies in the directory of `secrets.provider`",
        ),
    ] {
        let problems = site.problems(&text);
        assert!(problems.contains("error") && problems.contains(said), "{text}: {problems}");
    }
    std::fs::write(site.root.join("pyproject.toml"), "").unwrap();
    let warned = site.problems(one);
    assert!(warned.contains("warning") && warned.contains("looks like the directory of an application"), "{warned}");
}
