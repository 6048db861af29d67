//! Several services behind one gateway, their prefixes, and what they are told. Guide section 21.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_test::python::App;
use palisade_test::upstream::Reply;
use palisade_test::{Need, Palisade, Process, Upstream, browser, eventually, need, paths, provision};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{SOON, ways, written};

/// The plausible app on a Unix socket.
async fn on_a_socket(directory: &TempDir, options: &[&str]) -> Result<(Process, String)> {
    need(Need::Python)?;
    let socket = directory.path().join("app.sock");
    let mut command = Command::new(provision::python_program("uvicorn"));
    command.args(["main:app", "--uds"]).arg(&socket).args(options);
    command.arg("--app-dir").arg(paths::tests("apps/plausible")).current_dir(directory.path());
    command.envs([("PYTHONDONTWRITEBYTECODE", "1"), ("PYTHONUNBUFFERED", "1")]).env("HOME", directory.path());
    let process = Process::spawn(command)?;
    let up = |line: &palisade_test::Line| line.text.contains("running on unix socket").then_some(());
    process.output().find(Duration::from_secs(60), "it listens", up).await?;
    Ok((process, format!("unix:{}", socket.display())))
}

/// Both documentation pages load without a complaint, and "Try it out" reaches the app under its prefix.
async fn docs_work(base: &str) -> Result<()> {
    let seen = browser::run("docs_page.mjs", &[base]).await?;
    let (docs, redoc) = (&seen["docs"], &seen["redoc"]);
    assert_eq!((&docs["error"], &redoc["error"]), (&Value::Null, &Value::Null), "{base}: {seen}");
    assert_eq!((&docs["status_seen"], &docs["request_url"]), (&json!("200"), &json!(format!("{base}/notes?limit=20"))));
    for page in [docs, redoc] {
        for complaint in ["csp_violations", "console_errors", "page_errors", "unanswered"] {
            assert_eq!(page[complaint], json!([]), "{base}: {complaint}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn three_apps_by_prefix_and_by_host() -> Result<()> {
    let directory = TempDir::new()?;
    let (_billing, socket) = on_a_socket(&directory, &["--root-path", "/billing"]).await?;
    let shop = App::uvicorn("plausible", &["--root-path", "/team/shop"]).await?;
    let notes = App::plausible().await?;
    let mounted = App::uvicorn("mounted", &[]).await?;
    let policy = format!(
        r#"
[server]
mode = "development"
hosts = ["localhost", "127.0.0.1", "notes.localhost"]

[headers]
mode = "block"

[upstream]
url = "{mounted}"

[upstreams.billing]
url = "{socket}"

[upstreams.shop]
url = "{shop}"

[upstreams.notes]
url = "{notes}"

[[route]]
host = "notes.localhost"
path = "/*"
upstream = "notes"

[[route]]
path = "/billing/*"
upstream = "billing"
strip_prefix = "/billing"

[[route]]
path = "/team/shop/*"
upstream = "shop"
strip_prefix = "/team/shop"
"#,
        mounted = mounted.url(),
        shop = shop.url(),
        notes = notes.url(),
    );
    let gateway = Palisade::serve().policy(&policy).start().await?;
    let https = gateway.https()?;
    let port = gateway.address("https")?.port();
    let by_host = https.clone().host(&format!("notes.localhost:{port}"));

    // Each has notes of its own, under its prefix or its host.
    for (client, prefix, upstream) in
        [(&https, "/billing", "billing"), (&https, "/team/shop", "shop"), (&by_host, "", "notes")]
    {
        let note = json!({ "title": upstream });
        let made = client.post(&format!("{prefix}/notes")).json(&note).send().await?;
        assert_eq!(made.status(), 201, "{upstream}");
        let listed = client.get(&format!("{prefix}/notes?limit=20")).send().await?.json().await?;
        assert_eq!(listed[0]["title"], upstream);
        assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
        let answer = client.get(&format!("{prefix}/notes")).send().await?;
        let line = gateway.access_of(&answer).await?;
        assert_eq!((&line["upstream"], &line["path"]), (&json!(upstream), &json!(format!("{prefix}/notes"))));
        for target in [format!("{prefix}/docs"), format!("{prefix}/openapi.json")] {
            assert_eq!(client.get(&target).send().await?.status(), 200, "{target}");
        }
    }
    let index = https.get("/").send().await?.json().await?;
    assert_eq!(index["ran"], "index", "what no route names goes to `[upstream]`");
    // A route for a host is for that host.
    assert_eq!(https.get("/notes").send().await?.status(), 404);

    docs_work(&format!("{}/billing", gateway.url("https")?)).await?;
    docs_work(&format!("{}/team/shop", gateway.url("https")?)).await?;
    docs_work(&format!("https://notes.localhost:{port}")).await?;

    // `status` and `check` show each.
    let status = gateway.run(&["status", "--json"]).await?;
    let status: Value = serde_json::from_str(&status.out).with_context(|| status.err.clone())?;
    for name in ["billing", "shop", "notes"] {
        assert_eq!(status["upstreams"][name]["reachable"], true, "{status}");
    }
    drop(shop);
    let gone = async || https.get("/team/shop/notes").send().await.is_ok_and(|answer| answer.status() == 502);
    eventually(SOON, "the shop is gone", gone).await?;
    assert_eq!(https.get("/billing/notes").send().await?.status(), 200, "the others are not touched");
    let shown = gateway.run(&["status"]).await?;
    ensure!(shown.out.contains("NOT REACHABLE") && shown.out.contains("billing"), "{}", shown.out);
    let checked = gateway.run(&["check"]).await?;
    for said in ["upstreams.billing", "upstreams.shop", "upstreams.notes", "unix:"] {
        ensure!(checked.out.contains(said), "{said}: {}", checked.out);
    }
    Ok(())
}

#[tokio::test]
async fn a_supervised_app_is_told_its_prefix() -> Result<()> {
    let policy = "[server]\nmode = \"development\"\n[[route]]\npath = \"/shop/*\"\nstrip_prefix = \"/shop\"\n";
    let gateway = Palisade::serve().policy(policy).uvicorn("plausible", &[]).start().await?;
    gateway.app_answers("/shop/notes").await?;
    docs_work(&format!("{}/shop", gateway.url("https")?)).await
}

/// FastAPI answers `/admin` and `/api/admin` when its `root_path` is `/api`: one of them is guarded, and so is the other.
#[tokio::test]
async fn each_operation_is_reached_by_one_spelling() -> Result<()> {
    let guard =
        |path: &str, more: &str| format!("[[route]]\npath = \"{path}\"\naddress = [\"203.0.113.0/24\"]\n{more}\n");
    let plain = App::uvicorn("mounted", &[]).await?;
    let told = App::uvicorn("mounted", &["--root-path", "/api"]).await?;
    let rooted = App::named("mounted", "main:rooted", &[]).await?;
    let own = "root_path = \"/api\"\n";
    let stripped = "strip_prefix = \"/api\"\n";
    let rest = "[[route]]\npath = \"/api/*\"\nstrip_prefix = \"/api\"\n";
    for (what, app, upstream, routes, works) in [
        ("root_path, rooted", &rooted, own, guard("/admin/*", ""), "/items/"),
        ("root_path, told", &told, own, guard("/admin/*", ""), "/items/"),
        ("root_path, prefixed", &rooted, own, guard("/admin/*", ""), "/api/items/"),
        ("stripped, plain", &plain, "", guard("/api/admin/*", stripped) + rest, "/api/items/"),
        ("stripped, rooted", &rooted, "", guard("/api/admin/*", stripped) + rest, "/api/items/"),
        ("stripped, told", &told, "", guard("/api/admin/*", stripped) + rest, "/api/items/"),
        ("both", &rooted, own, guard("/api/admin/*", stripped) + rest, "/api/items/"),
    ] {
        let catch_all = "[[route]]\npath = \"/*\"\naddress = []\n";
        let policy = format!(
            "[server]\nmode = \"development\"\n[upstream]\nurl = \"{}\"\n{upstream}\n{routes}\n{catch_all}\n\
             [integrity]\nencoded_slash = true\npath_parameters = true\nslashes = \"keep\"\n",
            app.url()
        );
        let direct = policy.replace("203.0.113.0/24", "127.0.0.0/8");
        let gateway = Palisade::serve().policy(&policy).start().await.context(what)?;
        let client = gateway.http()?;
        let mut answer = client.get(works).send().await?;
        assert_eq!(answer.status(), 200, "{what}: {}", answer.text().await?);
        for target in [
            "/admin",
            "/admin/",
            "/api/admin",
            "/api/admin/",
            "/api/api/admin",
            "/api/api/api/admin",
            "//api/admin",
            "/api//admin",
            "//admin",
            "/api%2Fadmin",
            "/%2Fadmin",
            "/%2Fapi/admin",
            "/api/%2Fadmin",
            "/api%2Fapi/admin",
            "/%61pi/admin",
            "/%61pi/%61pi/admin",
            "/api/./admin",
            "/api/x/../admin",
            "/x/../api/admin",
            "/api/..%2Fadmin",
            "/api;x/admin",
            "/api/admin;x",
            "/api/api;x=1/admin",
            "/API/admin",
            "/api/%61dmin",
            "/api/inner/../admin",
            "/api/%2561dmin",
            "/api/admin%0A",
            "/api/admin%20",
            "/api%5Cadmin",
            "/api/admin?x=/api/admin",
        ] {
            for forged in [None, Some("/public"), Some("/api/api")] {
                let mut request = client.get(target);
                if let Some(forged) = forged {
                    for name in ["X-Forwarded-Prefix", "X_Forwarded_Prefix", "X-Script-Name", "X-Forwarded-Path"] {
                        request = request.header(name, forged);
                    }
                }
                let mut answer = request.send().await?;
                let text = answer.text().await?;
                // What is not guarded here is another app's in the stripped set-ups: the default route is the same app,
                // so no spelling may run the handler.
                let bare = what.starts_with("stripped") || what == "both";
                let bare = bare && !target.contains("api") && !target.contains("%61pi");
                ensure!(bare || !text.contains("\"admin\""), "{what}: {target} ran: {} {text}", answer.status());
            }
        }
        // The guard is a guard by address: for those whom it lets in the operation is there.
        gateway.write_policy(&direct)?;
        gateway.reload()?;
        let target = if what.starts_with("root_path") { "/admin" } else { "/api/admin" };
        let admitted = async || client.get(target).send().await.is_ok_and(|answer| answer.status() == 200);
        eventually(SOON, "the operation itself", admitted).await.context(what)?;
    }
    Ok(())
}

/// An application that knows no prefix: its redirects and cookies work all the same.
#[tokio::test]
async fn redirects_and_cookies_keep_the_prefix() -> Result<()> {
    let app = App::uvicorn("mounted", &[]).await?;
    let policy = format!(
        "[server]\nmode = \"development\"\n[upstreams.shop]\nurl = \"{}\"\n[[route]]\npath = \"/shop/*\"\nupstream = \
         \"shop\"\nstrip_prefix = \"/shop\"\n",
        app.url()
    );
    let gateway = Palisade::serve().policy(&policy).start().await?;
    let client = gateway.https()?;
    let answer = client.get("/shop/items").send().await?;
    let origin = gateway.url("https")?;
    assert_eq!(answer.header("location"), Some(&*format!("{origin}/shop/items/")), "the slash redirect");
    let answer = client.get("/shop/login").send().await?;
    assert_eq!((answer.status(), answer.header("location")), (303, Some("/shop/account")));
    let cookie = answer.header("set-cookie").context("a cookie")?;
    ensure!(cookie.contains("Path=/shop/account") && cookie.contains("Secure"), "{cookie}");
    assert_eq!(client.get("/shop/account").send().await?.json().await?["ran"], "account");
    assert_eq!(client.get("/shop/inner/deep").send().await?.json().await?["ran"], "deep");
    // Nothing is behind other paths.
    assert_eq!(client.get("/items/").send().await?.status(), 502);
    Ok(())
}

/// What a client writes under a name that some route sets never arrives, on any route, in either mode.
/// An application that wants another `Host` still learns which one its client asked for.
#[tokio::test]
async fn the_host_that_was_asked_for_is_told_beside_another_one() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("ok")).await?;
    let more = "request_headers = { set = { Host = \"app.internal:8000\" } }\n";
    let gateway = written(&upstream.url(), more).await?;
    for (way, client) in ways(&gateway)? {
        upstream.forget();
        assert_eq!(client.get("/").send().await?.status(), 200, "{way}");
        let requests = upstream.requests();
        let [request] = &requests[..] else { anyhow::bail!("{way}: {} requests", requests.len()) };
        let asked = gateway.address(if way == "http" { "http" } else { "https" })?.to_string();
        assert_eq!(request.header("host"), Some("app.internal:8000"), "{way}");
        assert_eq!(request.header("x-forwarded-host"), Some(&*asked), "{way}");
    }
    Ok(())
}

#[tokio::test]
async fn the_gateways_headers_are_its_own() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("ok")).await?;
    let policy = format!(
        r#"
[server]
mode = "development"

[secrets]
provider = "env"

[upstream]
url = "{}"
request_headers = {{ remove = ["X-Debug"] }}

[[route]]
path = "/tenants/{{tenant}}/*"
request_headers = {{ set = {{ X-Tenant = "{{path.tenant}}", X-Who = "{{client.address}} {{request_id}} {{host}}", Authorization = {{ secret = "app-token" }} }} }}

[[route]]
path = "/sni"
request_headers = {{ set = {{ X-Sni = "{{tls.server_name}}" }} }}
"#,
        upstream.url()
    );
    for arguments in [&[][..], &["--detect"]] {
        let mut setup = Palisade::serve().policy(&policy).env("PALISADE_SECRET_APP_TOKEN", "Bearer of-the-gateway");
        for argument in arguments {
            setup = setup.arg(argument);
        }
        let gateway = setup.start().await?;
        let spellings = "X-Tenant: victim\r\nx-tenant: victim2\r\nX_Tenant: victim\r\nX.Tenant: victim\r\nx_tenant: \
                         victim\r\nX-TENANT: victim\r\nX-Sni: victim\r\nX-Who: victim\r\nAuthorization: Bearer \
                         victim\r\nX-Debug: victim\r\nX-Own: kept\r\n";
        for (target, tenant) in [
            ("/tenants/acme/x", Some("acme")),
            ("/tenants/a,b/x", Some("a%2Cb")),
            ("/tenants/a%0d%0aX-Tenant:%20victim/x", None),
            ("/tenants/caf%C3%A9/x", Some("caf%C3%A9")),
            ("/elsewhere", None),
        ] {
            upstream.forget();
            let mut wire = gateway.wire_http().await?;
            let host = gateway.address("http")?;
            let body = "Transfer-Encoding: chunked\r\nTrailer: X-Tenant\r\n\r\n1\r\na\r\n0\r\nX-Tenant: victim\r\n\r\n";
            let answer = wire.ask(format!("POST {target} HTTP/1.1\r\nHost: {host}\r\n{spellings}{body}")).await?;
            if target.contains("%0d") {
                assert_eq!(answer.status(), 400);
                ensure!(upstream.requests().is_empty());
                continue;
            }
            assert_eq!(answer.status(), 200, "{target}: {}", answer.text());
            let requests = upstream.requests();
            let seen = requests.first().context("a request")?;
            ensure!(!format!("{seen:?}").contains("victim"), "{target}: {seen:?}");
            assert_eq!(seen.all("x-tenant").collect::<Vec<_>>(), tenant.into_iter().collect::<Vec<_>>(), "{target}");
            assert_eq!(seen.header("x-own"), Some("kept"));
            let who = tenant.and_then(|_| Some(format!("127.0.0.1 {} 127.0.0.1", answer.header("x-request-id")?)));
            assert_eq!(seen.header("x-who"), who.as_deref());
            assert_eq!(seen.header("authorization"), tenant.map(|_| "Bearer of-the-gateway"));
        }
        // A header that `Connection` names would be taken away by the next hop.
        let mut wire = gateway.wire_http().await?;
        let host = gateway.address("http")?;
        let named =
            wire.ask(format!("GET /tenants/a/x HTTP/1.1\r\nHost: {host}\r\nConnection: X-Tenant\r\n\r\n")).await?;
        assert_eq!(named.status(), 400);
        // No name was asked for: a template without a value refuses, and the log says which.
        upstream.forget();
        let refused = gateway.http()?.get("/sni").header("X-Sni", "victim").send().await?;
        assert_eq!(refused.status(), 403);
        let id = refused.header("x-request-id").context("an id")?.to_owned();
        let line = gateway.event("request.refused", |line| line["request_id"] == *id).await?;
        assert_eq!(line["code"], "upstream.missing_value");
        ensure!(line.to_string().contains("tls.server_name") && upstream.requests().is_empty(), "{line}");
        ensure!(!gateway.output().tail().contains("of-the-gateway"), "a secret is in the log");
    }
    Ok(())
}

/// The gateway asks nobody but the upstreams of the policy, whatever an answer or a target names.
#[tokio::test]
async fn it_never_follows_a_redirect() -> Result<()> {
    let trap = Upstream::answering(|_| Reply::text("trapped")).await?;
    let to = trap.url();
    let redirect = move |request: &palisade_test::wire::Message| {
        let to = match request.target() {
            "/metadata" => "http://169.254.169.254/latest/meta-data/".to_owned(),
            "/openapi.json" | "/docs" | "/trap" => to.clone(),
            target => target.trim_start_matches("/to=").to_owned(),
        };
        Reply::raw(format!(
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: {to}\r\nRefresh: 0; url={to}\r\nContent-Length: 0\r\n\r\n"
        ))
    };
    let upstream = Upstream::answering(redirect).await?;
    let policy = format!(
        "[server]\nmode = \"development\"\nready_needs = [\"upstream\"]\n[upstreams.a]\nurl = \"{0}\"\n[[route]]\npath = \
         \"/a/*\"\nupstream = \"a\"\nstrip_prefix = \"/a\"\n[upstream]\nurl = \"{0}\"\n",
        upstream.url()
    );
    let gateway = Palisade::serve().policy(&policy).start().await?;
    let admin = gateway.url("admin")?;
    for prefix in ["", "/a"] {
        for target in ["/metadata", "/trap", "/openapi.json", "/docs", &*format!("/to={admin}")] {
            let answer = gateway.http()?.get(&format!("{prefix}{target}")).send().await?;
            assert_eq!(answer.status(), 307, "{prefix}{target}");
        }
    }
    // The target of a request chooses no upstream either.
    let mut wire = gateway.wire_http().await?;
    for target in [trap.url() + "/", format!("{admin}/status"), "http://169.254.169.254/".to_owned()] {
        let host = target.split('/').nth(2).unwrap_or_default().to_owned();
        let Ok(answer) = wire.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await else {
            wire = gateway.wire_http().await?;
            continue;
        };
        // Loopback is a host of development: the request goes to the upstream, and nowhere else.
        ensure!(matches!(answer.status(), 307 | 400 | 421), "{target}: {}", answer.status());
    }
    assert_eq!(trap.connections(), 0);
    Ok(())
}

/// A reload keeps the connections of every upstream that it does not change, and takes up those that it adds.
#[tokio::test]
async fn a_reload_keeps_what_it_does_not_change() -> Result<()> {
    let (one, two) =
        (Upstream::answering(|_| Reply::text("one")).await?, Upstream::answering(|_| Reply::text("two")).await?);
    let policy = |more: &str| {
        format!(
            "[server]\nmode = \"development\"\n[upstreams.one]\nurl = \"{}\"\nidle_timeout = \"60s\"\n[[route]]\npath = \
             \"/one/*\"\nupstream = \"one\"\n{more}",
            one.url()
        )
    };
    let gateway = Palisade::serve().policy(&policy("")).start().await?;
    let client = gateway.http()?;
    let mut kept = client.connect().await?;
    assert_eq!(kept.get("/one/a").send().await?.text().await?, "one");
    let added = format!("[upstreams.aaa]\nurl = \"{}\"\n[[route]]\npath = \"/two/*\"\nupstream = \"aaa\"\n", two.url());
    gateway.write_policy(&policy(&added))?;
    gateway.reload()?;
    let both = async || client.get("/two/x").send().await.is_ok_and(|answer| answer.status() == 200);
    eventually(SOON, "the new upstream", both).await?;
    // Its number has changed, as it is no longer the first by name; its connection has not.
    assert_eq!(kept.get("/one/b").send().await?.text().await?, "one");
    assert_eq!(one.connections(), 1);
    assert_eq!(two.requests().last().map(|request| request.target().to_owned()).as_deref(), Some("/two/x"));
    Ok(())
}
