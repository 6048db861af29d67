//! The guide's own app, its sections 1, 4, 5, 10 and 18: what is open when it logs people in itself is closed when the
//! gateway does.
//!
//! As in `guide.rs`, each hole is one probe that is sent to the app alone and through the gateway; one that finds nothing
//! open in the app alone fails. Behind the gateway stands the same app with all its holes (`glued.py`), in which one
//! dependency was replaced: it takes the caller from the gateway (`moved.py`, with `identity.py` of `examples/fastapi`).

use std::future::Future;
use std::pin::Pin;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use palisade_test::kept::Kept;
use palisade_test::python::App;
use palisade_test::{Answer, Client, Need, Palisade, Process, eventually, need, on_both, paths, provision};
use serde_json::{Value, json};

use crate::support::{SOON, heavy};

const PASSWORD: &str = "vier alte Kutschen im Nebel";
/// Of the account `long`: bcrypt does not look at what stands behind its 72nd byte.
const LONG: &str = "vier alte Kutschen im Nebel, fünf neue im Regen, und keine von ihnen da! secret tail";
/// The host that the guide's `TrustedHostMiddleware` names.
const HOST: &str = "yourdomain.com";
const EVIL: [(&str, &str); 2] = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")];

const POLICY: &str = r#"
[server]
mode = "development"
hosts = ["yourdomain.com", "localhost"]

[auth]
registration = "open"

[[route]]
path = "/"
public = true

[[route]]
path = "/glued/ping"
public = true
rate_limit = "100000/minute"

[[route]]
path = "/with-key"
key = true
scopes = ["machine"]

[[route]]
path = "/admin/*"
roles = ["admin"]
"#;

/// Where a probe is sent.
struct Site {
    client: Client,
    /// The addresses of what the app has itself, or the gateway in its place.
    token: &'static str,
    refresh: &'static str,
    csrf: &'static str,
    login: &'static str,
    /// What anybody can make who has read the guide.
    forged: Value,
    running: Running,
}

enum Running {
    Alone { _app: App },
    Behind(Box<Palisade>),
}

impl Site {
    async fn alone() -> Result<Site> {
        need(Need::PythonGuide)?;
        let app = App::named("guide", "glued:app", &[]).await?;
        let client = app.client()?.host(HOST);
        let forged = forged().await?;
        Ok(Site {
            client,
            token: "/glued/token",
            refresh: "/glued/refresh",
            csrf: "/glued/csrf",
            login: "/glued/token",
            forged,
            running: Running::Alone { _app: app },
        })
    }

    async fn behind(kept: &Kept) -> Result<Site> {
        need(Need::PythonGuide)?;
        let folder = paths::tests("apps/guide");
        let command = ["uvicorn", "moved:app", "--uds", "{socket}", "--app-dir", &*folder.to_string_lossy()];
        // `identity.py` is taken from the example.
        let path = paths::workspace().join("examples/fastapi");
        let setup = Palisade::serve().app(&command).env("PYTHONPATH", &path.to_string_lossy());
        let palisade = kept.under(setup, POLICY).start().await?;
        let client = palisade.https()?.host(HOST);
        for (name, password) in
            [("alice", PASSWORD), ("bob", PASSWORD), ("carol", PASSWORD), ("dora", PASSWORD), ("long", LONG)]
        {
            let account = json!({ "username": name, "email": format!("{name}@example.com"), "password": password });
            let mut made = client.post("/auth/register").json(&account).send().await?;
            ensure!(made.status() == 201, "{name}: {}", made.text().await?);
        }
        let up = async || client.get("/glued/ping").send().await.is_ok_and(|answer| answer.status() == 200);
        eventually(Duration::from_secs(120), "the app is up", up).await.with_context(|| palisade.output().tail())?;
        let forged = forged().await?;
        Ok(Site {
            client,
            token: "/auth/token",
            refresh: "/auth/token",
            csrf: "/auth/csrf",
            login: "/auth/login",
            forged,
            running: Running::Behind(Box::new(palisade)),
        })
    }

    fn gateway(&self) -> Option<&Palisade> {
        match &self.running {
            Running::Alone { .. } => None,
            Running::Behind(palisade) => Some(palisade),
        }
    }

    /// What a proxy that ends TLS adds in front of the app alone.
    fn request(&self, method: Method, target: &str) -> palisade_test::client::Request<'_> {
        let request = self.client.request(method, target);
        if self.gateway().is_some() { request } else { request.header("x-forwarded-proto", "https") }
    }

    async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let request = self.request(Method::GET, target);
        headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send().await
    }

    async fn post(&self, target: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Result<Answer> {
        let request = self.request(Method::POST, target).header("content-type", "application/x-www-form-urlencoded");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        request.body(fields.join("&")).send().await
    }

    /// A name and a password for tokens.
    async fn log_in(&self, name: &str, password: &str) -> Result<Answer> {
        self.post(self.token, &[], &[("grant_type", "password"), ("username", name), ("password", password)]).await
    }

    /// The tokens of a right password.
    async fn tokens(&self, name: &str) -> Result<(String, String)> {
        let mut answer = self.log_in(name, PASSWORD).await?;
        ensure!(answer.status() == 200, "{}", answer.text().await?);
        let tokens = answer.json().await?;
        let text = |member: &str| tokens[member].as_str().map(str::to_owned).context("a token");
        Ok((text("access_token")?, text("refresh_token")?))
    }

    async fn refreshed(&self, token: &str) -> Result<Answer> {
        self.post(self.refresh, &[], &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    /// Who the protected handler says hello to.
    async fn hello(&self, token: &str) -> Result<u16> {
        Ok(self.get("/secure-endpoint", &[("authorization", &format!("Bearer {token}"))]).await?.status())
    }

    /// What a visitor's browser has to post a form: its cookie, and the token for it. Behind the gateway of a session.
    async fn visitor(&self, name: &str) -> Result<(String, String)> {
        let mut cookie = String::new();
        if self.gateway().is_some() {
            let body = json!({ "username": name, "password": PASSWORD });
            let answer = self.client.post("/auth/login").json(&body).send().await?;
            cookie = cookie_of(&answer)?;
        }
        let mut answer = self.get(self.csrf, &[("cookie", &cookie)]).await?;
        if self.gateway().is_none() {
            cookie = cookie_of(&answer)?;
        }
        let token = answer.json().await?["csrf_token"].as_str().context("no token")?.to_owned();
        Ok((cookie, token))
    }
}

fn cookie_of(answer: &Answer) -> Result<String> {
    let cookies = answer.all("set-cookie");
    let cookie = cookies.iter().find(|cookie| cookie.contains("palisade=") || cookie.contains("csrf"));
    Ok(cookie.context("no cookie")?.split(';').next().unwrap_or_default().to_owned())
}

/// Everything but letters and digits is percent-encoded.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

async fn forged() -> Result<Value> {
    let mut command = Command::new(provision::python_program("python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(paths::tests("apps/guide/tokens.py"));
    let process = Process::spawn(command)?;
    let status = process.wait(Duration::from_secs(60)).await?;
    process.output().closed(Duration::from_secs(10)).await?;
    ensure!(status.success(), "{}", process.output().tail());
    let lines = process.output().since(0);
    let line = lines.iter().find(|line| line.text.starts_with('{')).context("it printed nothing")?;
    Ok(serde_json::from_str(&line.text)?)
}

/// What was open, in words; none where it is closed.
type Seen = Result<Option<String>>;
type Probe = for<'s> fn(&'s Site) -> Pin<Box<dyn Future<Output = Seen> + 's>>;

macro_rules! holes {
    ($($probe:ident $what:literal,)*) => {
        [$(($what, (|site| Box::pin($probe(site))) as Probe)),*]
    };
}

on_both!(what_is_open_in_the_guides_logins_is_closed_behind_the_gateway, who_may_still_can);

async fn what_is_open_in_the_guides_logins_is_closed_behind_the_gateway(kept: Kept) -> Result<()> {
    // It measures time and hashes without pause, so the two of it would disturb each other.
    let _alone = heavy().await;
    let holes = holes![
        any_password "section 1: the login as printed takes any password, for any name",
        forged_tokens "sections 1 and 10: tokens made with the printed secret, of any kind, are believed",
        refresh_as_access "sections 1 and 10: a refresh token opens what an access token opens",
        refreshed_again "section 10: a refresh token is good any number of times",
        never_ends "section 10: a login cannot be ended",
        no_expiry_said "section 1: the answer does not say how long its token is good for",
        names_by_time "section 4: how long an answer takes says whether a name is known",
        odd_passwords "section 4: a password with NUL, or of 5000 characters, is an error of the server",
        behind_72_bytes "section 4: what stands behind byte 72 of a password makes no difference",
        hashing_blocks "section 4: while passwords are checked, nobody else is served",
        guesses_without_end "sections 4, 8 and 16: passwords are guessed without end, and nothing is logged",
        foreign_token "section 5: the pair of another visitor passes, again and again",
        cross_site_form "section 5: a form of another site passes, if it has a pair",
        missing_token "section 5: a form without a token is an error of the server",
        plain_cookie "section 5: the cookie is sent over plain http too",
        login_csrf "section 5: a page of another site logs its visitor in as somebody else",
        literal_key "section 18: the key that is printed in the source opens",
        locked_out_admin "section 18: not even an administrator may use the route for administrators",
    ];
    let mut sites = Vec::new();
    // The app alone keeps what it knows in itself, and needs no second look.
    if matches!(kept, Kept::Embedded) {
        sites.push(Site::alone().await?);
    }
    sites.push(Site::behind(&kept).await?);
    let mut wrong = Vec::new();
    for (what, probe) in holes {
        for site in &sites {
            let alone = site.gateway().is_none();
            let place = if alone { "alone" } else { "behind the gateway" };
            let open = probe(site).await.with_context(|| format!("{what} ({place})"))?;
            if open.is_some() != alone {
                wrong.push(format!("{place}: {what} -> {}", open.unwrap_or("closed".into())));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The app still works for those who may: a probe that only finds refusals would call a gateway that refuses all closed.
async fn who_may_still_can(kept: Kept) -> Result<()> {
    let site = Site::behind(&kept).await?;
    let (access, _) = site.tokens("alice").await?;
    let bearer = format!("Bearer {access}");
    let mut hello = site.get("/secure-endpoint", &[("authorization", &bearer)]).await?;
    assert_eq!((hello.status(), hello.json().await?), (200, json!({ "message": "Hello, alice!" })));
    let (cookie, token) = site.visitor("alice").await?;
    let own = [("cookie", &*cookie), ("origin", "https://yourdomain.com"), ("sec-fetch-site", "same-origin")];
    assert_eq!(site.get("/secure-endpoint", &own).await?.status(), 200);
    // The app's own check of a pair of its own is still there, and fails: that is what says that the request arrived.
    let arrived = site.post("/glued/form", &[("cookie", &cookie), ("x-csrf-token", &token)], &[]).await?;
    ensure!(!matches!(arrived.status(), 401 | 403), "{}", arrived.status());
    Ok(())
}

async fn any_password(site: &Site) -> Seen {
    // The app's own `/token`, wherever it is reached, and the gateway's.
    for path in ["/token", site.token] {
        let fields = [("grant_type", "password"), ("username", "admin"), ("password", "anything")];
        let mut answer = site.post(path, &[], &fields).await?;
        if answer.status() == 200 {
            let token = answer.json().await?["access_token"].as_str().context("no token")?.to_owned();
            return Ok(Some(format!("{path}: a token, which is answered {}", site.hello(&token).await?)));
        }
        ensure!(matches!(answer.status(), 400 | 401), "{path}: {}", answer.status());
    }
    Ok(None)
}

async fn forged_tokens(site: &Site) -> Seen {
    let mut believed = Vec::new();
    for (what, token) in site.forged.as_object().context("tokens")? {
        match site.hello(token.as_str().context("a token")?).await? {
            200 => believed.push(what.as_str()),
            401 => {}
            other => anyhow::bail!("{what}: {other}"),
        }
    }
    ensure!(believed.is_empty() || believed.len() == 7, "only {believed:?}");
    Ok((!believed.is_empty()).then(|| believed.join(", ")))
}

async fn refresh_as_access(site: &Site) -> Seen {
    let (access, refresh) = site.tokens("alice").await?;
    ensure!(site.hello(&access).await? == 200, "the access token itself");
    Ok((site.hello(&refresh).await? == 200).then(|| "200".to_owned()))
}

async fn refreshed_again(site: &Site) -> Seen {
    let (_, first) = site.tokens("alice").await?;
    let mut answer = site.refreshed(&first).await?;
    ensure!(answer.status() == 200, "{}", answer.text().await?);
    let second = answer.json().await?["refresh_token"].as_str().context("the next")?.to_owned();
    // Once the successor has been used, the first is not a lost answer any more but a copy.
    ensure!(site.refreshed(&second).await?.status() == 200);
    let mut again = 0;
    for _ in 0..5 {
        again += usize::from(site.refreshed(&first).await?.status() == 200);
    }
    Ok((again > 0).then(|| format!("{again} of 5 times more")))
}

async fn never_ends(site: &Site) -> Seen {
    let (access, refresh) = site.tokens("alice").await?;
    let mut ended = Vec::new();
    for path in ["/auth/revoke", "/revoke", "/logout"] {
        ended.push(site.post(path, &[], &[("token", &refresh)]).await?.status());
    }
    let still = (site.hello(&access).await?, site.refreshed(&refresh).await?.status());
    Ok((still.0 == 200 || still.1 == 200).then(|| format!("{ended:?}, and then {still:?}")))
}

async fn no_expiry_said(site: &Site) -> Seen {
    let mut answer = site.log_in("alice", PASSWORD).await?;
    let kept = !answer.header("cache-control").is_some_and(|value| value.contains("no-store"));
    let tokens = answer.json().await?;
    Ok((kept || tokens["expires_in"].as_u64().is_none()).then(|| tokens.to_string().chars().take(60).collect()))
}

/// The medians of a few answers. The bench has the test with four hundred accounts a kind.
async fn names_by_time(site: &Site) -> Seen {
    let median = async |known: bool| {
        let mut times = Vec::new();
        for round in 0..7 {
            let name = if known { "bob".to_owned() } else { format!("nobody-{round}") };
            let start = Instant::now();
            let answer = site.log_in(&name, "a wrong password").await?;
            ensure!(matches!(answer.status(), 400 | 401), "{}", answer.status());
            times.push(start.elapsed());
        }
        times.sort_unstable();
        anyhow::Ok(times[times.len() / 2])
    };
    let (known, unknown) = (median(true).await?, median(false).await?);
    Ok((known > unknown * 3).then(|| format!("{known:?} and {unknown:?}")))
}

async fn odd_passwords(site: &Site) -> Seen {
    let mut failed = Vec::new();
    for (what, password) in [("NUL", "with \0 in it".to_owned()), ("5000 characters", "x".repeat(5000))] {
        let status = site.log_in("bob", &password).await?.status();
        if status >= 500 {
            failed.push(format!("{what}: {status}"));
        }
    }
    Ok((!failed.is_empty()).then(|| failed.join(", ")))
}

async fn behind_72_bytes(site: &Site) -> Seen {
    ensure!(LONG.find("secret").is_some_and(|place| place >= 72));
    ensure!(site.log_in("long", LONG).await?.status() == 200, "the right one");
    let other = LONG.replace("secret tail", "another one");
    Ok((site.log_in("long", &other).await?.status() == 200).then(|| "200".to_owned()))
}

async fn hashing_blocks(site: &Site) -> Seen {
    let ping = async || {
        let start = Instant::now();
        ensure!(site.get("/glued/ping", &[]).await?.status() == 200);
        anyhow::Ok(start.elapsed())
    };
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().context("no answer")
    };
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(ping().await?);
    }
    let idle = median(idle)?;
    let over = std::cell::Cell::new(false);
    let guess = async |number: usize| {
        for round in 0..4 {
            // An account of its own: once it is locked, the hash is still made.
            site.log_in("carol", &format!("wrong {number} {round}")).await?;
        }
        anyhow::Ok(())
    };
    let storm = async {
        let stormed = tokio::try_join!(guess(1), guess(2), guess(3), guess(4));
        over.set(true);
        stormed.map(drop)
    };
    let pings = async {
        let mut times = Vec::new();
        while !over.get() {
            times.push(ping().await?);
        }
        anyhow::Ok(times)
    };
    let (during, stormed) = tokio::join!(pings, storm);
    stormed?;
    let during = during?;
    // Most are lucky: what stands still does so for some hashes in a row.
    let during = during.into_iter().max().context("no answer")?;
    Ok((during > Duration::from_millis(400).max(idle * 4)).then(|| format!("{idle:?} and then {during:?}")))
}

async fn guesses_without_end(site: &Site) -> Seen {
    let mut answers = Vec::new();
    // With those of the probes before, more than ten.
    for round in 0..6 {
        answers.push(site.log_in("bob", &format!("guess {round}")).await?.status());
    }
    // Locked by now for whoever guesses; what the right one gets is no oracle.
    let right = site.log_in("bob", PASSWORD).await?.status();
    if let Some(gateway) = site.gateway() {
        let locked = |event: &Value| event["why"].as_str().is_some_and(|why| why.contains("locked from now on"));
        gateway.event("request.refused", locked).await.context("an event says so")?;
    }
    Ok((right == 200).then(|| format!("{answers:?}, and the right one {right}")))
}

async fn foreign_token(site: &Site) -> Seen {
    // A pair that an attacker got, planted in the browser of somebody who is logged in.
    let (own, token) = site.visitor("dora").await?;
    let (cookie, bearer) = match site.gateway() {
        None => (own, format!("Bearer {}", site.tokens("alice").await?.0)),
        Some(_) => (site.visitor("alice").await?.0, String::new()),
    };
    let mut headers = vec![("cookie", &*cookie), ("x-csrf-token", &*token)];
    headers.extend((!bearer.is_empty()).then_some(("authorization", &*bearer)));
    let mut passed = 0;
    for _ in 0..3 {
        let mut answer = site.post("/glued/form", &headers, &[]).await?;
        match answer.status() {
            200 => passed += 1,
            _ => assert_eq!(answer.json().await?["code"], "csrf.token_invalid"),
        }
    }
    Ok((passed > 0).then(|| format!("{passed} of 3")))
}

async fn cross_site_form(site: &Site) -> Seen {
    let (cookie, token) = site.visitor("alice").await?;
    let headers = [("cookie", &*cookie), ("x-csrf-token", &*token), EVIL[0], EVIL[1]];
    let mut answer = site.post("/glued/form", &headers, &[]).await?;
    if answer.status() != 200 {
        assert_eq!((answer.status(), &answer.json().await?["code"]), (403, &json!("csrf.origin")));
        return Ok(None);
    }
    Ok(Some("200".to_owned()))
}

async fn missing_token(site: &Site) -> Seen {
    let (cookie, _) = site.visitor("alice").await?;
    let status = site.post("/glued/form", &[("cookie", &cookie)], &[]).await?.status();
    ensure!(matches!(status, 403 | 500), "{status}");
    Ok((status == 500).then(|| "500".to_owned()))
}

async fn plain_cookie(site: &Site) -> Seen {
    let answer = match site.gateway() {
        None => site.get(site.csrf, &[]).await?,
        Some(_) => {
            let body = json!({ "username": "alice", "password": PASSWORD });
            site.client.post("/auth/login").json(&body).send().await?
        }
    };
    let cookies = answer.all("set-cookie").join("\n");
    ensure!(!cookies.is_empty(), "no cookie at all: {}", answer.status());
    Ok((!cookies.contains("; Secure")).then_some(cookies))
}

async fn login_csrf(site: &Site) -> Seen {
    let fields = [("grant_type", "password"), ("username", "alice"), ("password", PASSWORD)];
    let answer = site.post(site.login, &EVIL, &fields).await?;
    ensure!(matches!(answer.status(), 200 | 403), "{}", answer.status());
    Ok((answer.status() == 200).then(|| "200".to_owned()))
}

async fn literal_key(site: &Site) -> Seen {
    let printed = ("api-key", "expected-api-key");
    let status = site.get("/with-key", &[printed]).await?.status();
    let Some(gateway) = site.gateway() else { return Ok((status == 200).then(|| "200".to_owned())) };
    // What replaces it: made for one user and one purpose, shown once, ended at any time.
    let create = ["key", "create", "--user", "alice", "--name", "machine", "--scope", "machine", "--json"];
    let made = gateway.run(&create).await?.json()?;
    let key = made["key"].as_str().context("a key")?;
    assert_eq!(site.get("/with-key", &[printed, ("x-api-key", key)]).await?.status(), 200);
    assert_eq!(site.get("/secure-endpoint", &[("x-api-key", key)]).await?.status(), 403, "for one purpose");
    Ok((status != 401).then(|| status.to_string()))
}

async fn locked_out_admin(site: &Site) -> Seen {
    let delete = async |token: &str| {
        let request =
            site.request(Method::DELETE, "/admin/users/7").header("authorization", &format!("Bearer {token}"));
        anyhow::Ok(request.send().await?.status())
    };
    let Some(gateway) = site.gateway() else {
        let token = site.forged["of an administrator"].as_str().context("a token")?;
        let status = delete(token).await?;
        return Ok((status == 403).then(|| "403".to_owned()));
    };
    let (plain, _) = site.tokens("alice").await?;
    ensure!(delete(&plain).await? == 403, "a user who is none");
    let made = gateway.run(&["user", "set", "alice", "--role", "admin", "--json"]).await?;
    ensure!(made.code == Some(0), "{}", made.err);
    let (token, _) = site.tokens("alice").await?;
    // What a command changes is honoured within a second.
    let may = async || delete(&token).await.is_ok_and(|status| status == 200);
    Ok(eventually(SOON, "an administrator may", may).await.err().map(|_| "403".to_owned()))
}
