//! The guide's own app: what is open when it stands alone is closed when it stands behind the gateway.
//!
//! Each hole is one probe, seen from a client. The same probe is sent to the app alone and through the gateway, under
//! the starter policy and under the files that `palisade init --yes` writes, so that both halves are shown: a probe that
//! finds nothing open in the app alone proves nothing, and fails. Only holes of what is built are here.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::Method;
use palisade_test::python::App;
use palisade_test::wire::Wire;
use palisade_test::{Answer, Body, Client, Need, Output, Palisade, Process, eventually, memory, need};

use crate::support::{heavy, timed};

/// The host that the guide's `TrustedHostMiddleware` names.
const HOST: &str = "yourdomain.com";
/// The origin that the guide's `CORSMiddleware` names.
const ORIGIN: &str = "https://yourdomain.com";
const FORM: &str = "application/x-www-form-urlencoded";
const MAIN: &str = include_str!("../apps/guide/main.py");
const HIDDEN: &str = "DATABASE_PASSWORD=hunter2-of-the-env-file";

/// Where a probe is sent.
struct Site {
    kind: Kind,
    running: Running,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// uvicorn as people start it, behind a proxy on the same machine that ends TLS and passes headers on.
    Alone,
    /// `palisade serve -- uvicorn …` without a file.
    Starter,
    /// With the file of `palisade init --yes`.
    Development,
    /// With the file of `palisade init --yes --production --host …`.
    Production,
}

enum Running {
    Alone(App),
    Behind(Palisade),
}

impl Site {
    /// The app, with a file in its static folder that was not meant for anybody.
    async fn alone() -> Result<Site> {
        let app = App::guide().await?;
        std::fs::write(app.directory().join("static/.env"), HIDDEN)?;
        Ok(Site { kind: Kind::Alone, running: Running::Alone(app) })
    }

    async fn starter() -> Result<Site> {
        Site::starter_where(&[]).await
    }

    /// Under the starter policy, with keys of it that the environment says.
    async fn starter_where(keys: &[(&str, &str)]) -> Result<Site> {
        need(Need::PythonGuide)?;
        let setup = Palisade::serve().file("main.py", MAIN).file("static/.env", HIDDEN).uvicorn("guide", &[]);
        // Without a file the hosts are those of loopback, which the app's own list has not.
        let setup = setup.env("PALISADE__SERVER__HOSTS", "[\"yourdomain.com\"]");
        let setup = keys.iter().fold(setup, |setup, (key, value)| setup.env(key, value));
        Site::up(Kind::Starter, setup.start().await?).await
    }

    /// Under the file that `init` writes after a run under the starter policy, with `more` of its flags, and with keys of
    /// the policy that the environment says.
    async fn written(kind: Kind, more: &[&str], keys: &[(&str, &str)]) -> Result<Site> {
        let Site { running: Running::Behind(before), .. } = Site::starter().await? else { anyhow::bail!("alone") };
        ensure!(before.interrupt().await?.success());
        let mut command = vec!["init", "--yes"];
        command.extend(more);
        let init = before.run(&command).await?;
        ensure!(init.code == Some(0), "{}", init.err);
        // Its listeners would be those of every address.
        let setup = Palisade::serve().after(&before).env("PALISADE__SERVER__HTTPS", "\"127.0.0.1:0\"");
        let setup = setup.env("PALISADE__SERVER__HTTP", "\"127.0.0.1:0\"");
        let setup = keys.iter().fold(setup, |setup, (key, value)| setup.env(key, value));
        Site::up(kind, setup.start().await?).await
    }

    /// Under the file that `init` writes for an app that runs already.
    async fn in_front_of(app: &App) -> Result<Site> {
        let url = app.url();
        let init = ["init", "--yes", "--upstream", url.as_str()];
        let palisade = Palisade::serve().file("main.py", MAIN).first(&init, "").start().await?;
        Site::up(Kind::Development, palisade).await
    }

    async fn up(kind: Kind, palisade: Palisade) -> Result<Site> {
        let site = Site { kind, running: Running::Behind(palisade) };
        let up = async || site.get("/", 250).await.is_ok_and(|answer| answer.status() == 200);
        eventually(Duration::from_secs(60), "the app is up", up).await.with_context(|| site.output().tail())?;
        Ok(site)
    }

    async fn development() -> Result<Site> {
        Site::written(Kind::Development, &[], &[]).await
    }

    async fn production() -> Result<Site> {
        Site::written(Kind::Production, &["--production", "--host", HOST], &[]).await
    }

    /// A client of its own address, 127.0.0.`last`.
    fn client(&self, last: u8) -> Result<Client> {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        Ok(match &self.running {
            // Behind its proxy, whose address is what uvicorn believes by default.
            Running::Alone(app) => app.client()?.host(HOST),
            Running::Behind(palisade) => palisade.https()?.host(HOST).from_address(from),
        })
    }

    /// A request, with what the proxy in front of the app alone adds.
    fn request<'c>(
        &self,
        client: &'c Client,
        method: Method,
        target: &str,
        last: u8,
    ) -> palisade_test::client::Request<'c> {
        let request = client.request(method, target);
        match self.kind {
            Kind::Alone => {
                let request = request.header("x-forwarded-proto", "https");
                request.header("x-forwarded-for", &format!("127.0.0.{last}"))
            }
            _ => request,
        }
    }

    async fn get(&self, target: &str, last: u8) -> Result<Answer> {
        self.request(&self.client(last)?, Method::GET, target, last).send().await
    }

    async fn post(&self, target: &str, kind: &str, body: impl Into<Body>, last: u8) -> Result<Answer> {
        let client = self.client(last)?;
        self.request(&client, Method::POST, target, last).header("content-type", kind).body(body).send().await
    }

    async fn of_origin(&self, method: Method, target: &str, last: u8) -> Result<Answer> {
        let client = self.client(last)?;
        let request = self.request(&client, method.clone(), target, last).header("origin", ORIGIN);
        match method {
            Method::OPTIONS => request.header("access-control-request-method", "POST").send().await,
            _ => request.send().await,
        }
    }

    /// A connection for raw bytes.
    async fn wire(&self) -> Result<Wire> {
        match &self.running {
            Running::Alone(app) => Wire::plain(app.address()).await,
            Running::Behind(palisade) => palisade.wire().await,
        }
    }

    fn process(&self) -> &Process {
        match &self.running {
            Running::Alone(app) => app.process(),
            Running::Behind(palisade) => palisade.process(),
        }
    }

    fn output(&self) -> &Output {
        self.process().output()
    }

    fn resident(&self) -> Result<u64> {
        Ok(memory::resident_memory_of_tree(self.process().id())?.resident)
    }
}

/// What was open, in words; none where it is closed.
type Seen = Result<Option<String>>;
type Probe = for<'s> fn(&'s Site) -> Pin<Box<dyn Future<Output = Seen> + Send + 's>>;

struct Hole {
    what: &'static str,
    probe: Probe,
    /// Where it is closed.
    closed: &'static [Kind],
}

const ALL: &[Kind] = &[Kind::Starter, Kind::Development, Kind::Production];
const WRITTEN: &[Kind] = &[Kind::Development, Kind::Production];
const PRODUCTION: &[Kind] = &[Kind::Production];

macro_rules! holes {
    ($($closed:ident $probe:ident $what:literal,)*) => {
        [$(Hole { what: $what, probe: |site| Box::pin($probe(site)), closed: $closed }),*]
    };
}

#[tokio::test]
async fn what_is_open_in_the_guides_app_is_closed_behind_the_gateway() -> Result<()> {
    let _timed = timed().await;
    let holes = holes![
        ALL token_is_kept "section 7: answers with a token may be kept by caches",
        WRITTEN limit_without_retry "section 8: 429 does not say when to come back",
        ALL forged_address "section 8: a forged X-Forwarded-For opens the limit",
        ALL shared_bucket "sections 7 and 8: behind a proxy on another address, a redirect to itself for ever",
        ALL bare_failure "sections 7 and 13: 500 without security headers",
        ALL bare_bad_host "section 7: the answer to a foreign host has no security headers",
        ALL bare_preflight "section 7: preflights without security headers",
        PRODUCTION bare_redirect "section 7: the redirect to https has no security headers",
        PRODUCTION no_hsts_on_failure "section 7: 500 without HSTS",
        ALL failure_without_cors "sections 9 and 13: 500 to the allowed origin without CORS headers",
        PRODUCTION password_over_http "section 7: a password over plain http is redirected, as if nothing had happened",
        PRODUCTION open_docs "section 7: the documentation is open to everybody",
        ALL broken_docs "section 7: the documentation pages are broken by the guide's own policy",
        ALL env_file "section 17: a hidden file is served",
        ALL rejected_body_in_log "sections 13 and 16: a rejected body with a password stands in the log",
        ALL query_in_log "sections 13 and 16: a token and a password of a query stand in the log",
        ALL exception_in_log "sections 13 and 16: the text of an exception with a password stands in the log",
        ALL no_log "section 16: nothing is logged as JSON",
        ALL names_its_server "section 7: the software is named",
    ];
    let sites = [Site::alone().await?, Site::starter().await?, Site::development().await?, Site::production().await?];
    check(&holes, &sites).await
}

#[tokio::test]
async fn a_large_body_does_not_fill_the_guides_app() -> Result<()> {
    let _heavy = heavy().await;
    let sites = [Site::alone().await?, Site::starter().await?, Site::development().await?];
    check(&holes![ALL large_json "section 2: 256 MiB of JSON are read into memory, without a login",], &sites).await
}

#[tokio::test]
async fn an_oversized_upload_does_not_reach_the_guides_app() -> Result<()> {
    let _heavy = heavy().await;
    // Under the starter policy files of any size stream through.
    let sites = [Site::alone().await?, Site::development().await?];
    check(&holes![WRITTEN large_upload "section 14: 512 MiB are taken, whatever the limit of 5 MiB says",], &sites)
        .await
}

#[tokio::test]
async fn one_limit_holds_for_all_workers_of_the_guides_app() -> Result<()> {
    let _timed = timed().await;
    need(Need::PythonGuide)?;
    let app = App::uvicorn("guide", &["--workers", "4"]).await?;
    let mut started = 0;
    let fourth = |line: &palisade_test::Line| {
        started += usize::from(line.text.contains("Application startup complete"));
        (started == 4).then_some(())
    };
    app.process().output().find(Duration::from_secs(60), "four workers have started", fourth).await?;
    let behind = Site::in_front_of(&app).await?;
    let sites = [Site { kind: Kind::Alone, running: Running::Alone(app) }, behind];
    check(&holes![WRITTEN limit_of_each_worker "section 8: each worker has a limit of its own",], &sites).await
}

#[tokio::test]
async fn slow_bodies_do_not_hold_the_guides_app() -> Result<()> {
    let _timed = timed().await;
    // Nobody waits a minute in a test.
    let short = [("PALISADE__LIMITS__BODY_TIME", "\"2s\"")];
    let (starter, development) =
        (Site::starter_where(&short).await?, Site::written(Kind::Development, &[], &short).await?);
    let sites = [Site::alone().await?, starter, development];
    let holes = holes![ALL slow_bodies "bodies that send a byte now and then hold the application for ever",];
    let (a, b, c) = tokio::join!(check(&holes, &sites[..1]), check(&holes, &sites[1..2]), check(&holes, &sites[2..]));
    a.and(b).and(c)
}

#[tokio::test]
async fn slow_heads_do_not_hold_the_guides_app() -> Result<()> {
    let _timed = timed().await;
    let sites = [Site::alone().await?, Site::starter().await?, Site::development().await?];
    let holes = holes![ALL slow_heads "connections that send a byte of their head now and then stay for ever",];
    // At the same time: each takes half a minute.
    let (a, b, c) = tokio::join!(check(&holes, &sites[..1]), check(&holes, &sites[1..2]), check(&holes, &sites[2..]));
    a.and(b).and(c)
}

async fn check(holes: &[Hole], sites: &[Site]) -> Result<()> {
    let mut wrong = Vec::new();
    for hole in holes {
        for site in sites {
            let open = (hole.probe)(site).await.with_context(|| format!("{} ({:?})", hole.what, site.kind))?;
            let expected = match site.kind {
                Kind::Alone => true,
                kind if hole.closed.contains(&kind) => false,
                // Not promised there, either way.
                _ => continue,
            };
            if open.is_some() != expected {
                wrong.push(format!("{:?}: {} -> {}", site.kind, hole.what, open.unwrap_or("closed".into())));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Which of these headers an answer lacks.
fn lacks(answer: &Answer, names: &[&str]) -> Option<String> {
    let missing: Vec<_> = names.iter().filter(|name| answer.header(name).is_none()).collect();
    (!missing.is_empty()).then(|| format!("{} without {missing:?}", answer.status()))
}

/// The headers of every policy; the ones that the starter policy leaves out are of the strict file.
fn bare(site: &Site, answer: &Answer) -> Option<String> {
    match site.kind {
        Kind::Starter => lacks(answer, &["x-content-type-options", "referrer-policy", "permissions-policy"]),
        _ => lacks(answer, &["x-content-type-options", "x-frame-options", "content-security-policy"]),
    }
}

/// `/form-submit` as the guide prints it fails whatever is sent.
const FAILS: &str = "/form-submit";

async fn token_is_kept(site: &Site) -> Seen {
    let mut login = site.post("/token", FORM, "username=alice&password=anything", 2).await?;
    ensure!(login.status() == 200, "{}", login.status());
    let token = login.json().await?["access_token"].as_str().context("no token")?.to_owned();
    let client = site.client(2)?;
    let hello = site.request(&client, Method::GET, "/secure-endpoint", 2);
    let hello = hello.header("authorization", &format!("Bearer {token}")).send().await?;
    ensure!(hello.status() == 200, "{}", hello.status());
    let kept = |answer: &Answer| !answer.header("cache-control").is_some_and(|value| value.contains("no-store"));
    Ok((kept(&login) || kept(&hello)).then(|| "no `no-store`".to_owned()))
}

async fn limit_without_retry(site: &Site) -> Seen {
    for _ in 0..8 {
        let answer = site.get("/", 3).await?;
        if answer.status() == 429 {
            return Ok(answer.header("retry-after").is_none().then(|| format!("429 {:?}", answer.headers())));
        }
        ensure!(answer.status() == 200, "{}", answer.status());
    }
    Ok(Some("no limit at all".to_owned()))
}

async fn forged_address(site: &Site) -> Seen {
    let client = site.client(4)?;
    let mut passed = 0;
    for forged in 0..10 {
        let request = client.get("/").header("x-forwarded-proto", "https");
        let answer = request.header("x-forwarded-for", &format!("198.51.100.{forged}")).send().await?;
        passed += usize::from(answer.status() == 200);
    }
    Ok((passed > 5).then(|| format!("{passed} of 10 passed")))
}

/// Two clients, through what comes from an address that uvicorn does not believe by default: in front of the app alone a
/// proxy on another machine; the gateway itself in the other case.
async fn shared_bucket(site: &Site) -> Seen {
    for last in [5, 6] {
        let client = site.client(last)?.from_address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
        for _ in 0..5 {
            let answer = site.request(&client, Method::GET, "/", last).send().await?;
            if answer.status() != 200 {
                let to = answer.header("location").unwrap_or_default();
                return Ok(Some(format!("client {last}: {} {to}", answer.status())));
            }
        }
    }
    Ok(None)
}

async fn bare_failure(site: &Site) -> Seen {
    let answer = site.post(FAILS, FORM, "a=b", 7).await?;
    ensure!(answer.status() == 500, "{}", answer.status());
    Ok(bare(site, &answer))
}

async fn no_hsts_on_failure(site: &Site) -> Seen {
    let answer = site.post(FAILS, FORM, "a=b", 7).await?;
    ensure!(answer.status() == 500, "{}", answer.status());
    Ok(lacks(&answer, &["strict-transport-security"]))
}

async fn bare_bad_host(site: &Site) -> Seen {
    let client = site.client(7)?;
    let answer = site.request(&client, Method::GET, "/", 7).header("host", "evil.example").send().await?;
    ensure!((400..500).contains(&answer.status()), "{}", answer.status());
    Ok(bare(site, &answer))
}

async fn bare_preflight(site: &Site) -> Seen {
    let answer = site.of_origin(Method::OPTIONS, "/token", 7).await?;
    ensure!(answer.header("access-control-allow-origin") == Some(ORIGIN), "{}", answer.status());
    Ok(bare(site, &answer))
}

/// Plain http, from the network.
async fn plain(site: &Site, method: Method) -> Result<Answer> {
    let client = match &site.running {
        Running::Alone(app) => app.client()?,
        Running::Behind(palisade) => palisade.http()?,
    };
    let client = client.host(HOST);
    match method {
        Method::GET => client.get("/").header("accept", "text/html").send().await,
        _ => client.post("/token").header("content-type", FORM).body("username=a&password=b").send().await,
    }
}

async fn bare_redirect(site: &Site) -> Seen {
    let answer = plain(site, Method::GET).await?;
    ensure!((300..400).contains(&answer.status()), "{}", answer.status());
    Ok(bare(site, &answer))
}

async fn password_over_http(site: &Site) -> Seen {
    let mut answer = plain(site, Method::POST).await?;
    let redirected = (300..400).contains(&answer.status());
    if !redirected {
        ensure!(answer.status() == 403 && answer.text().await?.contains("https_redirect.required"));
    }
    Ok(redirected.then(|| format!("{}", answer.status())))
}

async fn failure_without_cors(site: &Site) -> Seen {
    // As a browser does it: a preflight first.
    let preflight = site.of_origin(Method::OPTIONS, FAILS, 7).await?;
    ensure!(preflight.header("access-control-allow-origin") == Some(ORIGIN), "{}", preflight.status());
    let answer = site.of_origin(Method::POST, FAILS, 7).await?;
    ensure!(answer.status() == 500, "{}", answer.status());
    if site.kind != Kind::Alone {
        // What the app does not allow is not allowed on errors either.
        let client = site.client(7)?;
        let foreign = site.request(&client, Method::POST, FAILS, 7).header("origin", "https://evil.example");
        ensure!(foreign.send().await?.header("access-control-allow-origin").is_none(), "a foreign origin reads it");
        ensure!(answer.header("access-control-allow-credentials") == Some("true"), "without credentials");
    }
    let allowed = answer.header("access-control-allow-origin") == Some(ORIGIN);
    Ok((!allowed).then(|| "500 without Access-Control-Allow-Origin".to_owned()))
}

async fn open_docs(site: &Site) -> Seen {
    for page in ["/docs", "/redoc", "/openapi.json"] {
        let answer = site.get(page, 8).await?;
        if answer.status() == 200 {
            return Ok(Some(format!("{page}: 200")));
        }
    }
    Ok(None)
}

async fn broken_docs(site: &Site) -> Seen {
    let mut answer = site.get("/docs", 8).await?;
    if answer.status() != 200 {
        return Ok(None);
    }
    let policy = answer.header("content-security-policy").unwrap_or_default().to_owned();
    ensure!(answer.text().await?.contains("cdn.jsdelivr.net"), "the page loads from somewhere else now");
    let works = policy.is_empty() || (policy.contains("https://cdn.jsdelivr.net") && policy.contains("'sha256-"));
    Ok((!works).then_some(policy))
}

async fn env_file(site: &Site) -> Seen {
    for spelling in ["/static/.env", "/static/%2eenv", "/static/./.env", "/static//.env"] {
        let mut answer = site.get(spelling, 9).await?;
        if answer.text().await?.contains("hunter2") {
            return Ok(Some(format!("{spelling}: {}", answer.status())));
        }
    }
    Ok(None)
}

async fn rejected_body_in_log(site: &Site) -> Seen {
    // Of a field that is missing the whole body is the wrong input.
    let json = r#"{"username": "xy", "age": 7, "password": "correct-horse-in-a-body"}"#;
    let rejected = site.post("/users", "application/json", json, 10).await?;
    ensure!(rejected.status() == 400, "{}", rejected.status());
    printed(site, "/the-log-behind-a-body", &["correct-horse-in-a-body"]).await
}

async fn query_in_log(site: &Site) -> Seen {
    let answer = site.get("/secure-endpoint?access_token=token-in-a-query&password=horse-in-a-query", 10).await?;
    ensure!(answer.status() == 401, "{}", answer.status());
    printed(site, "/the-log-behind-a-query", &["token-in-a-query", "horse-in-a-query"]).await
}

async fn exception_in_log(site: &Site) -> Seen {
    let answer = site.get("/report", 10).await?;
    ensure!(answer.status() == 500, "{}", answer.status());
    printed(site, "/the-log-behind-an-exception", &["horse-in-an-exception"]).await
}

/// Which of these stand in the log. What came before `later` has been written once that is there.
async fn printed(site: &Site, later: &str, secrets: &[&str]) -> Seen {
    let last = site.get(later, 10).await?;
    ensure!(last.status() == 404, "{}", last.status());
    let there = |line: &palisade_test::Line| line.text.contains(later).then_some(());
    site.output().find(Duration::from_secs(20), "a later line", there).await?;
    let all = site.output().everything()?;
    let found: Vec<_> = secrets.iter().filter(|secret| all.contains(**secret)).collect();
    Ok((!found.is_empty()).then(|| format!("{found:?}")))
}

async fn no_log(site: &Site) -> Seen {
    let id = match site.get("/users/in-the-json-log", 11).await?.header("x-request-id") {
        Some(id) => id.to_owned(),
        None => "\"path\":\"/users/in-the-json-log\"".to_owned(),
    };
    let is_it = |line: &palisade_test::Line| (line.text.starts_with('{') && line.text.contains(&id)).then_some(());
    let logged = site.output().find(Duration::from_secs(3), "a line of JSON", is_it).await;
    Ok(logged.is_err().then(|| "no line of JSON".to_owned()))
}

async fn names_its_server(site: &Site) -> Seen {
    let answer = site.get("/users", 12).await?;
    Ok(answer.header("server").filter(|name| name.contains("uvicorn")).map(str::to_owned))
}

/// 256 MiB of one text in JSON.
async fn large_json(site: &Site) -> Seen {
    const MIB: usize = 1 << 20;
    let before = site.resident()?;
    let (feed, body) = Body::fed();
    let feeding = tokio::spawn(async move {
        let piece = Bytes::from(vec![b'a'; MIB]);
        feed.send("[\"").await?;
        for _ in 0..256 {
            feed.send(piece.clone()).await?;
        }
        feed.send("\"]").await
    });
    let watching = async {
        let mut most = 0;
        loop {
            most = most.max(site.resident().unwrap_or(0));
            if feeding.is_finished() {
                // What the app makes of it comes after.
                break most;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (answer, most) = tokio::join!(site.post("/users", "application/json", body, 13), watching);
    let status = answer.map(|answer| answer.status());
    let grown = most.max(site.resident()?).saturating_sub(before) / MIB as u64;
    if site.kind != Kind::Alone {
        ensure!(status.as_ref().is_ok_and(|status| *status == 413), "{status:?}");
    }
    Ok((grown > 64).then(|| format!("{grown} MiB of memory, {status:?}")))
}

/// A file that is a hundred times as large as the app allows. Never whole in memory here.
async fn large_upload(site: &Site) -> Seen {
    const LENGTH: u64 = 512 << 20;
    let before = site.resident()?;
    let (body, kind) = Body::multipart("file", "a.png", vec![b'a'; 64 << 10], LENGTH);
    let mut answer = site.post("/upload", &kind, body, 14).await?;
    let (status, text) = (answer.status(), answer.text().await?);
    if status == 413 {
        ensure!(text.contains("limits.body"), "{text}");
        return Ok(None);
    }
    // The app says so once it has read all of it.
    ensure!(status == 400 && text.contains("File too large"), "{status} {text}");
    let grown = site.resident()?.saturating_sub(before) >> 20;
    Ok(Some(format!("all of it was read, {grown} MiB of memory are still taken")))
}

/// 60 requests of one client at once, as often as it takes all workers to get some: how many pass.
async fn limit_of_each_worker(site: &Site) -> Seen {
    let (last, rounds) = if site.kind == Kind::Alone { (15, 10) } else { (16, 1) };
    let client = site.client(last)?;
    let mut passed = 0;
    // Sixty a round; more at once would meet the limit on handshakes first.
    for _ in 0..3 * rounds {
        let asked = (0..20).map(|_| site.request(&client, Method::GET, "/", last).send());
        for answer in try_join_all(asked).await? {
            ensure!(matches!(answer.status(), 200 | 429), "{}", answer.status());
            passed += usize::from(answer.status() == 200);
        }
        if passed > 5 {
            return Ok(Some(format!("{passed} of 60 and more passed")));
        }
    }
    ensure!(passed == 5, "only {passed} passed");
    Ok(None)
}

/// Bodies that never end, five bytes a second, for more than twice the time that a body may take.
async fn slow_bodies(site: &Site) -> Seen {
    let mut wires = Vec::new();
    for _ in 0..20 {
        wires.push(site.wire().await?);
    }
    let waited_for = try_join_all(wires.iter_mut().map(is_waited_for)).await?;
    let open = waited_for.iter().filter(|open| **open).count();
    Ok((open > 0).then(|| format!("{open} of 20 bodies are waited for")))
}

async fn is_waited_for(wire: &mut Wire) -> Result<bool> {
    // The last but one is what the proxy in front of the app alone says.
    let head = format!("POST /token HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {FORM}\r\nX-Forwarded-Proto: https");
    wire.send(format!("{head}\r\nContent-Length: 100000\r\n\r\nusername=")).await?;
    for _ in 0..25 {
        // Time is what this is about: there is nothing to wait for.
        tokio::time::sleep(Duration::from_millis(200)).await;
        if wire.send("a").await.is_err() {
            break;
        }
    }
    match tokio::time::timeout(Duration::from_secs(2), wire.answer()).await {
        Err(_) => Ok(true),
        Ok(Ok(answer)) => {
            ensure!(answer.status() == 408 && answer.text().contains("limits.body_time"), "{answer:?}");
            Ok(false)
        }
        // A reset, where the rest of the body met a closed door.
        Ok(Err(_)) => Ok(false),
    }
}

/// A head that never ends, a byte a second, for twice the time that a head may take.
async fn slow_heads(site: &Site) -> Seen {
    let mut wires = Vec::new();
    for _ in 0..30 {
        let mut wire = site.wire().await?;
        wire.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Slow: ")).await?;
        wires.push(wire);
    }
    for _ in 0..25 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut open = Vec::new();
        for mut wire in wires {
            // A reset, sooner or later, after it was closed.
            if wire.send("a").await.is_ok() {
                open.push(wire);
            }
        }
        wires = open;
    }
    Ok((!wires.is_empty()).then(|| format!("{} of 30 connections are open", wires.len())))
}
