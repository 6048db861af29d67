//! One path, one route: the handler that ran in a real FastAPI app is the one whose route the gateway checked. Threats 1, 6
//! and 8.

use anyhow::{Context as _, Result, ensure};
use palisade_test::Palisade;
use palisade_test::python::App;

use crate::support::written_policy;

const ROUTES: &str = r#"
[[route]]
path = "/admin/*"
address = ["10.0.0.0/8"]

[[route]]
path = "/users/me"

[[route]]
path = "/users/1"
address = ["10.0.0.0/8"]

[[route]]
path = "/users/{user_id:int}/delete"
address = ["10.0.0.0/8"]

[[route]]
path = "/users/{user_id:int}"

[[route]]
path = "/items/{item_id:uuid}"

[[route]]
path = "/names/@root"
address = ["10.0.0.0/8"]

[[route]]
path = "/names/wurzel é"
address = ["10.0.0.0/8"]

[[route]]
path = "/names/root"
address = ["10.0.0.0/8"]

[[route]]
path = "/names/{name}"
encoded_slash = true
path_parameters = true

[[route]]
path = "/files/secret/*"
address = ["10.0.0.0/8"]

[[route]]
path = "/files/*"
encoded_slash = true
path_parameters = true

[[route]]
path = "/mount/*"

[[route]]
path = "/*"
"#;

/// Which handler may run under which route.
const HANDLERS: [(&str, &str); 8] = [
    ("me", "/users/me"),
    ("user", "/users/{user_id:int}"),
    ("item", "/items/{item_id:uuid}"),
    ("name", "/names/{name}"),
    ("files", "/files/*"),
    ("mount", "/mount/*"),
    ("anything", "/*"),
    // Forbidden to everybody here: they never run.
    ("none", "none"),
];

const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// A target, and the handler that runs, or the code that it is refused with.
fn table() -> Vec<(String, &'static str)> {
    let mut table: Vec<(String, &'static str)> = Vec::new();
    let mut all = |expected: &'static str, targets: &[&str]| {
        table.extend(targets.iter().map(|target| ((*target).to_owned(), expected)));
    };
    all("me", &["/users/me", "/users/%6de", "/users//me", "/users/./me", "/x/../users/me"]);
    all("user", &["/users/7", "/users/%37", "/users/-7", "//users/7", "/users/7?x=/admin"]);
    all(
        "integrity.path",
        &[
            "/users/07",
            "/users/+7",
            "/users/%207",
            "/users/7%20",
            "/users/7%C2%A0",
            "/users/7.0",
            "/users/7_0",
            "/users/00",
            "/users/-07",
            "/users/%D9%A7",
            "/users/%EF%BC%97",
            "/users/7e0",
            "/users/0x7",
            "/users/7/../07",
            "/users/01",
            "/users/1.0",
            "/users/%201",
            "/users/+1",
            "/users/0x1/delete",
            "/users/07/delete",
            "/users/7%2Fdelete",
            "/users/7%2fdelete",
            "/users/7%252Fdelete",
            "/users/7%25252Fdelete",
            "/users/7;x",
            "/users/7%3Bx",
            "/users/me;x",
            "/users/..;/admin",
            "/users/7%0A",
            "/users/7%00",
            "/users/7%09",
            "/users/7%7F",
            "/users/7\\delete",
            "/users/7%5Cdelete",
            "/users/7%",
            "/users/7%2",
            "/users/7%zz",
            "/users/%ff",
            "/users/%C0%AF",
            "/users/%ED%A0%80",
            "/admin%0A",
            "/admin%00",
            "/admin;x",
            "/admin%2F",
            "/admin%2Fx",
            "/%2Fadmin",
            "/x%2F..%2Fadmin",
            "/%2e%2e%2Fadmin",
            "/x/..;/admin",
            "/x/%252e%252e/admin",
            "/x/%25%32%65%25%32%65/admin",
            "/users/7%25%32%46delete",
            "/users/7%252%46delete",
            "/x/%2e%2e%5cadmin",
            "/mount%2Fx",
            "/names/a%2F..%2Froot",
            "/names/..;/admin",
            "/names/root;x",
            "/names/root%3Bx",
            "/names/%2Froot",
            "/names/a%2Fb",
            "/files/%2e%2e%2Fadmin",
            "/files/..%2F..%2Fadmin",
            "/files/.;/admin",
            "/files/..;/admin",
            "/files/secret%2Fx",
            "/files/secret;x/y",
            "/files/secret%3B/y",
            "/files/%2Fsecret/x",
            "/files/;/secret/x",
            "/files/a;%2F../secret",
        ],
    );
    all(
        "access.address",
        &[
            "/admin",
            "/admin/",
            "/admin//",
            "//admin",
            "/./admin",
            "/admin/.",
            "/admin/x/..",
            "/x/../admin",
            "/x/%2e%2e/admin",
            "/x/.%2e/admin",
            "/../admin",
            "/%61dmin",
            "/%61%64%6D%69%6e",
            "/admin?x",
            "/admin/x%20",
            "/users/1",
            "/users/1/",
            "/users/%31",
            "/users/7/delete",
            "/users/7/delete/",
            "/users//7//delete",
            "/users/7/x/../delete",
            "/names/root",
            "/names/r%6Fot",
            "/names/@root",
            "/names/%40root",
            "/names/%40r%6fot",
            "/names/wurzel%20%C3%A9",
            "/names/wurzel%20%c3%a9/",
            "/files/secret",
            "/files//secret/x",
            "/files/x/../secret/y",
            "/files/%73ecret/x",
        ],
    );
    all(
        "item",
        &["/items/01234567-89ab-cdef-0123-456789abcdef", "/items/%3001234567-89ab-cdef-0123-456789abcdef"][..1],
    );
    let spellings = [
        UUID.to_uppercase(),
        UUID.replace('-', ""),
        format!("urn:uuid:{UUID}"),
        format!("%7B{UUID}%7D"),
        format!("%7b{}%7d", UUID.to_uppercase()),
        format!("%20{UUID}"),
        format!("URN:UUID:{UUID}"),
    ];
    table.extend(spellings.map(|spelling| (format!("/items/{spelling}"), "integrity.path")));
    let mut all = |expected: &'static str, targets: &[&str]| {
        table.extend(targets.iter().map(|target| ((*target).to_owned(), expected)));
    };
    all(
        "name",
        &["/names/a", "/names/a;x=1", "/names/e%CC%81", "/names/%C3%A9", "/names/a%20b", "/names/root.", "/names/Root"],
    );
    all("files", &["/files/a/b", "/files/a%2Fb", "/files/a;b", "/files/secrets", "/files/a//b", "/files/"]);
    all("mount", &["/mount/", "/mount/x", "/mount//x", "/mount/x/../y", "/mount/%78"]);
    all(
        "anything",
        &[
            "/",
            "/x",
            "/Admin",
            "/admin.",
            "/admi%6e.",
            "/administrator",
            "/%C3%A9",
            "/a%20b",
            "/100%25",
            "/usersx/7",
            "/admin%20",
        ],
    );
    all(
        "integrity.hidden_file",
        &["/.env", "/x/.git/config", "/files/a%2F.env", "/files/x;/.git", "/%2eenv", "/files/a%2Fb.pem"],
    );
    table
}

#[tokio::test]
async fn the_handler_that_ran_is_the_one_that_was_checked() -> Result<()> {
    let app = App::uvicorn("paths", &[]).await?;
    let block = Palisade::serve().policy(&written_policy(&app.url(), ROUTES)).start().await?;
    let detect = Palisade::serve().policy(&written_policy(&app.url(), ROUTES)).arg("--detect").start().await?;
    let table = table();
    ensure!(table.len() >= 100, "{}", table.len());
    let mut wrong = Vec::new();
    for (mode, gateway) in [("block", &block), ("detect", &detect)] {
        let mut wire = gateway.wire_http().await?;
        let mut ran: Vec<(String, String, String)> = Vec::new();
        for (target, expected) in &table {
            let framed = target.contains(['\\']) || target.contains("%zz");
            let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let answer = wire.ask(request).await.with_context(|| target.clone())?;
            let document = answer.json().unwrap_or_default();
            let got = match answer.status() {
                200 => document["handler"].as_str().unwrap_or_default().to_owned(),
                // A path that no handler takes, or a value that is none: nothing ran.
                422 | 404 if document["code"].is_null() => format!("the app's {}", answer.status()),
                _ => document["code"].as_str().unwrap_or_default().to_owned(),
            };
            let fits = got == *expected || (framed && got == "integrity.framing");
            if !fits {
                wrong.push(format!("{mode} {target}: {got}, not {expected}: {document}"));
            }
            if answer.status() == 200 {
                let id = answer.header("x-request-id").unwrap_or_default().to_owned();
                ran.push((target.clone(), got, id));
            }
            if answer.header("connection") == Some("close") {
                wire = gateway.wire_http().await?;
            }
        }
        // The route in the log is the one of the handler that ran.
        for (target, handler, id) in ran {
            let line = gateway.access(|line| line["request_id"] == *id).await?;
            let route = HANDLERS.iter().find(|(name, _)| *name == handler).map(|(_, route)| *route);
            if line["route"].as_str() != route {
                wrong.push(format!("{mode} {target}: {handler} ran under {}", line["route"]));
            }
        }
    }
    ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// The same paths under the starter policy, which allows more: nothing that it refuses is needed, and what it passes on is the
/// client's own path or its normal form.
#[tokio::test]
async fn the_starter_policy_passes_on_what_an_app_may_mean() -> Result<()> {
    let app = App::uvicorn("paths", &[]).await?;
    let gateway = crate::support::starter(&app.url()).await?;
    let mut wire = gateway.wire_http().await?;
    for (target, handler) in [
        ("/users/07", "user"),
        ("/users/7%2Fdelete", "delete"),
        ("/names/a;x=1", "name"),
        ("/files/a//b", "files"),
        ("/items/0123456789abcdef0123456789abcdef", "item"),
    ] {
        let direct = app.client()?.get(target).send().await?.json().await?;
        let answer = wire.ask(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await?;
        ensure!(answer.json()? == direct && direct["handler"] == handler, "{target}: {} {direct}", answer.text());
    }
    Ok(())
}
