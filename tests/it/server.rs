//! The server round the stack: reload, certificates, the admin listener, draining, limits.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_test::ca::Authority;
use palisade_test::upstream::{Reply, Step};
use palisade_test::{Client, Palisade, Trust, Upstream, Wire, eventually, metrics, paths};
use tokio::task::JoinSet;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const SOON: Duration = Duration::from_secs(10);

async fn hello() -> Result<Upstream> {
    Upstream::answering(|_| Reply::text("hello")).await
}

fn development(upstream: &Upstream, more: &str) -> String {
    // Load comes from one address here.
    let unlimited = "[rate_limit]\ndefault = \"off\"\n";
    format!(
        "[server]\nmode = \"development\"\n{more}\n[secrets]\nprovider = \"env\"\n[upstream]\nurl = \"{}\"\n{unlimited}",
        upstream.url()
    )
}

/// Clients that ask one after the other on connections they keep, until they are told to stop. Counts answers; anything
/// but a 200 (or what is expected) is a failure. A connection that was closed between two answers is replaced, as every client does.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    clients: JoinSet<Result<()>>,
}

impl Load {
    fn on(client: &Client, count: usize) -> Load {
        Load::expecting(client, count, 200)
    }

    fn expecting(client: &Client, count: usize, status: u16) -> Load {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for number in 0..count {
            let (client, stop, answers) = (client.clone(), stop.clone(), answers.clone());
            clients.spawn(async move {
                let mut connection = client.connect().await?;
                while !stop.load(Ordering::Relaxed) {
                    if connection.is_closed() {
                        connection = client.connect().await.context("connecting again")?;
                    }
                    let mut answer = connection.get("/").send().await.with_context(|| format!("client {number}"))?;
                    ensure!(answer.status() == status, "client {number}: {}", answer.status());
                    let closes = answer.header("connection") == Some("close");
                    answer.drain().await?;
                    answers.fetch_add(1, Ordering::Relaxed);
                    if closes {
                        connection = client.connect().await.context("connecting after the last answer")?;
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Ok(())
            });
        }
        Load { stop, answers, clients }
    }

    fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    async fn more(&self) -> Result<()> {
        let before = self.answers();
        eventually(SOON, "the load goes on", async || self.answers() > before + 50).await
    }

    async fn stop(mut self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended??;
        }
        Ok(self.answers())
    }
}

#[tokio::test]
async fn a_reload_under_load_loses_no_request() -> Result<()> {
    let upstream = hello().await?;
    let palisade = Palisade::serve().policy(&development(&upstream, "")).start().await?;
    let (https, http) = (Load::on(&palisade.https()?, 4), Load::on(&palisade.http()?, 4));
    for (round, by_signal) in [(1, false), (2, true), (3, false), (4, true)] {
        https.more().await?;
        let position = palisade.output().position();
        palisade.write_policy(&development(&upstream, &format!("drain = \"{}s\"", 20 + round)))?;
        if by_signal {
            palisade.reload()?;
        }
        palisade.event_since(position, "policy.reloaded", |_| true).await?;
        http.more().await?;
    }
    // A policy that is wrong in several ways at once leaves the old one in force and says all of it.
    let position = palisade.output().position();
    palisade.write_policy(&development(&upstream, "https = \"127.0.0.1:1\"\nworkers = 7\nnonsense = 1"))?;
    let rejected = palisade.event_since(position, "policy.rejected", |_| true).await?;
    ensure!(rejected["problems"].as_str().is_some_and(|text| text.contains("nonsense")), "{rejected}");
    let position = palisade.output().position();
    palisade.write_policy(&development(&upstream, "workers = 7"))?;
    let rejected = palisade.event_since(position, "policy.rejected", |_| true).await?;
    ensure!(
        rejected["problems"].as_str().is_some_and(|text| text.contains("`server.workers` cannot change")),
        "{rejected}"
    );
    ensure!(https.stop().await? > 100 && http.stop().await? > 100);
    Ok(())
}

#[tokio::test]
async fn a_swapped_link_is_a_change() -> Result<()> {
    let upstream = hello().await?;
    let folder = tempfile::tempdir()?;
    let version = |number: &str, text: &str| -> Result<()> {
        fs::create_dir(folder.path().join(number))?;
        Ok(fs::write(folder.path().join(number).join("palisade.toml"), text)?)
    };
    version("..1", &development(&upstream, "drain = \"21s\""))?;
    version("..2", &development(&upstream, "drain = \"22s\""))?;
    symlink("..1", folder.path().join("..data"))?;
    symlink("..data/palisade.toml", folder.path().join("palisade.toml"))?;
    let file = folder.path().join("palisade.toml");
    let palisade = Palisade::serve().arg("--policy").arg(&file.to_string_lossy()).start().await?;
    let load = Load::on(&palisade.https()?, 4);
    load.more().await?;
    symlink("..2", folder.path().join("..data_tmp"))?;
    fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data"))?;
    palisade.event("policy.reloaded", |_| true).await?;
    load.more().await?;
    load.stop().await?;
    Ok(())
}

fn production(upstream: &Upstream, more: &str) -> String {
    format!(
        "[server]\nmode = \"production\"\nhosts = [\"127.0.0.1\"]\nhttps = \"127.0.0.1:8443\"\nhttp = \"127.0.0.1:8080\"\n\
         admin_token = {{ secret = \"admin-token\" }}\n{more}\n[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n\
         [secrets]\nprovider = \"env\"\n[upstream]\nurl = \"{}\"\n[rate_limit]\ndefault = \"off\"\n",
        upstream.url()
    )
}

/// Threat 14: whatever becomes of the file that says who may come in, nobody comes in who did not before.
#[tokio::test]
async fn a_login_does_not_vanish_with_its_file() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let upstream = hello().await?;
    let authority = Authority::new("include")?;
    let folder = tempfile::tempdir()?;
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    authority.server(&["127.0.0.1"])?.write(&cert, &key)?;
    // With the usual store of secrets: logins are signed with keys of it.
    let policy = production(&upstream, "").replace("[secrets]\nprovider = \"env\"\n", "");
    let policy = policy.replace("admin_token = { secret = \"admin-token\" }\n", "");
    let policy = policy.replace("cert.pem", &cert.to_string_lossy());
    let policy = format!("include = [\"conf.d/*.toml\"]\n{}", policy.replace("key.pem", &key.to_string_lossy()));
    let auth = "[auth]\nissuer = \"https://127.0.0.1\"\n";
    let setup = Palisade::serve().policy(&policy).file("conf.d/auth.toml", auth);
    let key = folder.path().join("secrets.key");
    let palisade = setup.secrets_key(&key).start().await?;
    let client = Client::https(&palisade.url("https")?, &Trust::pem(authority.pem().as_bytes())?)?;
    ensure!(client.get("/").send().await?.status() == 401);
    let load = Load::expecting(&client, 2, 401);
    let file = palisade.directory().join("conf.d/auth.toml");
    let write = |text: &str, mode: u32| -> Result<()> {
        // In one step, as an editor does.
        let next = palisade.directory().join("next");
        fs::write(&next, text)?;
        fs::set_permissions(&next, fs::Permissions::from_mode(mode))?;
        Ok(fs::rename(&next, &file)?)
    };
    for (what, text, mode, said) in [
        ("removed", None, 0, "no file matches this pattern"),
        ("half written", Some("[auth]\nissuer = \"https://127"), 0o644, "auth.toml"),
        ("emptied", Some(""), 0o644, "`[auth]` is gone"),
        ("open to others", Some(auth), 0o664, "others may write this file"),
    ] {
        let position = palisade.output().position();
        match text {
            None => fs::remove_file(&file)?,
            Some(text) => write(text, mode)?,
        }
        palisade.reload()?;
        let about = |line: &serde_json::Value| line["problems"].as_str().is_some_and(|text| text.contains(said));
        palisade.event_since(position, "policy.rejected", about).await.with_context(|| what.to_owned())?;
        load.more().await?;
        let position = palisade.output().position();
        write(auth, 0o644)?;
        palisade.reload()?;
        palisade.event_since(position, "policy.reloaded", |_| true).await.with_context(|| what.to_owned())?;
    }
    ensure!(load.stop().await? > 8);
    ensure!(upstream.requests().is_empty(), "nothing reached the application");
    Ok(())
}

#[tokio::test]
async fn certificates_are_replaced_without_dropping_a_connection() -> Result<()> {
    let upstream = hello().await?;
    let (old, new) = (Authority::new("old")?, Authority::new("new")?);
    let identity = old.server(&["127.0.0.1"])?;
    let folder = tempfile::tempdir()?;
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    identity.write(&cert, &key)?;
    let policy = production(&upstream, "").replace("cert.pem", &cert.to_string_lossy());
    let policy = policy.replace("key.pem", &key.to_string_lossy());
    let palisade = Palisade::serve().policy(&policy).env("PALISADE_SECRET_ADMIN_TOKEN", TOKEN).start().await?;
    let url = palisade.url("https")?;
    let (by_old, by_new) = (
        Client::https(&url, &Trust::pem(old.pem().as_bytes())?)?,
        Client::https(&url, &Trust::pem(new.pem().as_bytes())?)?,
    );
    let mut kept = by_old.connect().await?;
    kept.get("/").send().await?.drain().await?;
    ensure!(by_new.get("/").send().await.is_err(), "the new authority is not in use yet");

    // A certificate without its key, then nonsense: the old pair stays.
    let position = palisade.output().position();
    let next = new.server(&["127.0.0.1"])?;
    fs::write(&cert, &next.certificate)?;
    palisade.event_since(position, "tls.rejected", |_| true).await?;
    ensure!(by_old.get("/").send().await?.status() == 200);
    let position = palisade.output().position();
    fs::write(&key, &next.key)?;
    palisade.event_since(position, "tls.certificate", |_| true).await?;
    ensure!(by_new.get("/").send().await?.status() == 200);
    ensure!(by_old.get("/").send().await.is_err(), "the old certificate is gone");
    ensure!(kept.get("/").send().await?.status() == 200, "a connection from before goes on");
    Ok(())
}

/// Threat 19: a connection belongs to the hosts of the certificate that was shown on it.
#[tokio::test]
async fn a_host_is_served_on_connections_made_to_it() -> Result<()> {
    let upstream = hello().await?;
    let authority = Authority::new("names")?;
    let folder = tempfile::tempdir()?;
    let mut pairs = String::new();
    for (file, names) in [("a", &["a.example.com", "shared.example.com"][..]), ("b", &["b.example.com"])] {
        let (cert, key) = (folder.path().join(format!("{file}.pem")), folder.path().join(format!("{file}.key")));
        authority.server(names)?.write(&cert, &key)?;
        pairs.push_str(&format!("[[tls.certificate]]\ncert = {cert:?}\nkey = {key:?}\n"));
    }
    let policy = |more: &str| {
        format!(
            "[server]\nmode = \"production\"\nhttps = \"127.0.0.1:8443\"\nhttp = \"off\"\n{more}\n\
             hosts = [\"a.example.com\", \"b.example.com\", \"shared.example.com\"]\n\
             [upstream]\nurl = \"{}\"\n{pairs}",
            upstream.url()
        )
    };
    let trust = Trust::pem(authority.pem().as_bytes())?;
    let ask = async |palisade: &Palisade, name: &str, host: &str| {
        let mut wire = Wire::tls(palisade.address("https")?, name, &trust).await?;
        let answer = wire.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await?;
        let code = answer.json().ok().and_then(|problem| problem["code"].as_str().map(str::to_owned));
        anyhow::Ok((answer.status(), code))
    };
    let palisade = Palisade::serve().policy(&policy("")).start().await?;
    for (name, host, expected) in [
        ("a.example.com", "a.example.com", None),
        ("b.example.com", "b.example.com", None),
        ("b.example.com", "B.EXAMPLE.COM:443", None),
        // As browsers do over HTTP/2 where one certificate is for both.
        ("a.example.com", "shared.example.com", None),
        ("shared.example.com", "a.example.com", None),
        ("a.example.com", "b.example.com", Some("hosts.misdirected")),
        ("b.example.com", "a.example.com", Some("hosts.misdirected")),
        ("b.example.com", "shared.example.com", Some("hosts.misdirected")),
        ("b.example.com", "evil.example", Some("hosts.unknown")),
    ] {
        let (status, code) = ask(&palisade, name, host).await.with_context(|| format!("{name} {host}"))?;
        ensure!(status == if expected.is_some() { 421 } else { 200 }, "{name} {host}: {status} {code:?}");
        ensure!(expected.is_none() || code.as_deref() == expected, "{name} {host}: {code:?}");
    }
    // A proxy asks by one name for all of them.
    let palisade = Palisade::serve().policy(&policy("trusted_proxies = [\"127.0.0.1\"]")).start().await?;
    ensure!(ask(&palisade, "a.example.com", "b.example.com").await?.0 == 200);
    Ok(())
}

#[tokio::test]
async fn unsafe_files_do_not_start_in_production() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let upstream = hello().await?;
    let authority = Authority::new("files")?;
    let expired = authority.issue(&["127.0.0.1"], rcgen::ExtendedKeyUsagePurpose::ServerAuth, |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    })?;
    for (what, identity, mode, said) in [
        ("a key for everybody", authority.server(&["127.0.0.1"])?, 0o644, "others may read the private key"),
        ("an expired certificate", expired, 0o600, "this certificate ended on 2021-01-01"),
        ("a short token", authority.server(&["127.0.0.1"])?, 0o600, "too short"),
    ] {
        let folder = tempfile::tempdir()?;
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        identity.write(&cert, &key)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(mode))?;
        fs::write(folder.path().join("palisade.toml"), production(&upstream, ""))?;
        let token = if what == "a short token" { "short" } else { TOKEN };
        let setup = Palisade::serve().arg("--policy").arg(&folder.path().join("palisade.toml").to_string_lossy());
        let ran = setup.env("PALISADE_SECRET_ADMIN_TOKEN", token).refused().await?;
        ensure!(ran.code == Some(2) && ran.err.contains(said), "{what}: {}", ran.err);
    }
    Ok(())
}

#[tokio::test]
async fn the_admin_listener_answers_to_its_own_names_and_the_token() -> Result<()> {
    let upstream = hello().await?;
    let policy =
        development(&upstream, "admin_token = { secret = \"admin-token\" }\nadmin_hosts = [\"ops.example.com\"]");
    let palisade = Palisade::serve().policy(&policy).env("PALISADE_SECRET_ADMIN_TOKEN", TOKEN).start().await?;
    let (address, trust) = (palisade.address("admin")?, palisade.trust()?);
    let own = format!("Host: {address}");
    let token = format!("Authorization: Bearer {TOKEN}");
    let (own, token) = (own.as_str(), token.as_str());
    let wrong = "Authorization: Bearer 0123456789abcdef0123456789abcdee";
    for path in ["/health", "/ready", "/status", "/metrics", "/", "/console"] {
        let opened = match path {
            "/" | "/console" => 404,
            _ => 200,
        };
        let closed = match path {
            "/ready" | "/status" | "/metrics" => 401,
            _ => opened,
        };
        for (headers, expected) in [
            (vec![own, token], opened),
            (vec!["Host: localhost", token], opened),
            (vec!["Host: LOCALHOST:9443", token], opened),
            (vec!["Host: [::1]:9443", token], opened),
            (vec!["Host: ops.example.com", token], opened),
            (vec![own, token, "Sec-Fetch-Site: none"], opened),
            (vec!["Host: localhost", token, "Origin: https://localhost", "Sec-Fetch-Site: same-origin"], opened),
            (vec![own], closed),
            (vec![own, wrong], closed),
            (vec![own, "Authorization: Bearer "], closed),
            (vec![own, "Authorization: Basic YTpi"], closed),
            (vec![own, token, token], closed),
            (vec!["Host: evil.example", token], 421),
            (vec!["Host: 127.0.0.1.nip.io", token], 421),
            (vec!["Host: localhost.evil.example", token], 421),
            (vec!["Host: 10.0.0.1", token], 421),
            (vec!["Host: localhost@evil", token], 421),
            (vec![token], 421),
            (vec![own, "Host: localhost", token], 421),
            (vec![own, token, "Sec-Fetch-Site: cross-site"], 403),
            (vec![own, token, "Sec-Fetch-Site: same-site"], 403),
            (vec![own, token, "Origin: https://evil.example"], 403),
            (vec![own, token, "Origin: null"], 403),
            (vec!["Host: localhost", token, "Origin: http://localhost"], 403),
        ] {
            let mut wire = Wire::tls(address, "127.0.0.1", &trust).await?;
            let request = format!("GET {path} HTTP/1.1\r\n{}\r\n\r\n", headers.join("\r\n"));
            let answer = wire.ask(request).await?;
            ensure!(answer.status() == expected, "{path} {headers:?}: {} {}", answer.status(), answer.text());
            ensure!(answer.header("access-control-allow-origin").is_none());
            ensure!(answer.status() == 200 || !answer.text().contains("palisade_"), "{}", answer.text());
        }
    }
    let admin = palisade.admin()?;
    ensure!(admin.get("/health").send().await?.text().await? == "ok");
    ensure!(admin.post("/status").header("authorization", &format!("Bearer {TOKEN}")).send().await?.status() == 405);
    Ok(())
}

#[tokio::test]
async fn without_a_token_the_key_is_named() -> Result<()> {
    let upstream = hello().await?;
    let palisade = Palisade::serve().policy(&development(&upstream, "")).start().await?;
    let mut answer = palisade.admin()?.get("/metrics").send().await?;
    ensure!(answer.status() == 401);
    ensure!(answer.text().await?.contains("server.admin_token"));
    Ok(())
}

#[tokio::test]
async fn metrics_and_status_tell_how_it_is() -> Result<()> {
    let upstream = hello().await?;
    let more = "admin_token = { secret = \"admin-token\" }\nprobes = \"127.0.0.1:0\"\nready_needs = [\"upstream\"]";
    let palisade = Palisade::serve()
        .policy(&development(&upstream, more))
        .env("PALISADE_SECRET_ADMIN_TOKEN", TOKEN)
        .start()
        .await?;
    ensure!(palisade.https()?.get("/").send().await?.status() == 200);
    ensure!(palisade.https()?.host("localhost").get("/%2e%2e%2f").send().await?.status() >= 400);
    let admin = palisade.admin()?;
    let bearer = format!("Bearer {TOKEN}");
    let mut scrape = admin.get("/metrics").header("authorization", &bearer).send().await?;
    ensure!(scrape.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    let text = scrape.text().await?;
    for name in [
        "palisade_request_seconds_bucket{",
        "palisade_upstream_seconds_count{",
        "palisade_refusals_total{control=",
        "palisade_saturation{resource=\"connections\"}",
        "palisade_certificate_expiry_seconds{certificate=\"local authority\"}",
    ] {
        ensure!(text.contains(name), "{name} is not in {text}");
    }
    metrics::check(&text)?;
    // And none that the documentation does not know.
    let page = fs::read_to_string(paths::workspace().join("docs/src/reference/metrics.md"))?;
    for (name, kind) in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')) {
        ensure!(page.contains(&format!("| `{name}` | {kind} |")), "{name} is not in the documentation");
    }
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let mut scrape = admin.get("/metrics").header("authorization", &bearer).header("accept", accept).send().await?;
    ensure!(scrape.header("content-type") == Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    ensure!(scrape.text().await?.ends_with("# EOF\n"));

    let status = admin.get("/status").header("authorization", &bearer).send().await?.json().await?;
    ensure!(status["ready"] == true && status["phase"] == "serving", "{status}");
    ensure!(status["upstream"]["reachable"] == true && status["connections"]["open"].is_u64(), "{status}");
    // Fewer where this machine has no descriptors for so many.
    let limit = status["connections"]["limit"].as_u64().unwrap_or_default();
    ensure!((100..=10_000).contains(&limit), "{status}");
    ensure!(status["modes"]["limits"]["mode"] == "block", "{status}");
    ensure!(status["modes"]["waf"]["mode"] == "off", "there are no rules: {status}");

    let probes = Client::http(&palisade.url("probes")?)?.host("10.1.2.3:9080");
    for (path, expected) in [("/health", 200), ("/ready", 200), ("/metrics", 200), ("/status", 404), ("/", 404)] {
        ensure!(probes.get(path).send().await?.status() == expected, "{path}");
    }
    drop(upstream);
    let gone = async || probes.get("/ready").send().await.is_ok_and(|answer| answer.status() == 503);
    eventually(SOON, "`/ready` misses the upstream", gone).await
}

/// As behind a balancer that asks `/ready` and takes three seconds to act on it: it opens connections and sends on those it
/// has all the while, and no request fails.
#[tokio::test]
async fn a_balancer_that_notices_late_loses_nothing() -> Result<()> {
    let upstream = Upstream::answering(|_| {
        Reply::steps([
            Step::Pause(Duration::from_millis(20)),
            Step::Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into()),
        ])
    })
    .await?;
    let authority = Authority::new("drain")?;
    let folder = tempfile::tempdir()?;
    authority.server(&["127.0.0.1"])?.write(&folder.path().join("cert.pem"), &folder.path().join("key.pem"))?;
    let file = folder.path().join("palisade.toml");
    // Whoever asks the plain port is the balancer.
    let more = "plaintext = true\ntrusted_proxies = [\"127.0.0.1\"]\nprobes = \"127.0.0.1:0\"\nlame_duck = \"4s\"\ndrain = \"15s\"";
    fs::write(&file, production(&upstream, more))?;
    let palisade = Palisade::serve()
        .arg("--policy")
        .arg(&file.to_string_lossy())
        .env("PALISADE_SECRET_ADMIN_TOKEN", TOKEN)
        .start()
        .await?;
    let https = Client::https(&palisade.url("https")?, &Trust::pem(authority.pem().as_bytes())?)?;
    let loads = [Load::on(&https, 8), Load::on(&https.clone().http2(), 4), Load::on(&palisade.http()?, 8)];
    for load in &loads {
        load.more().await?;
    }
    let probes = Client::http(&palisade.url("probes")?)?;
    ensure!(probes.get("/ready").send().await?.status() == 200);
    palisade.process().signal(nix::sys::signal::Signal::SIGTERM)?;
    palisade.event("server.draining", |_| true).await?;
    ensure!(probes.get("/ready").send().await?.status() == 503, "`/ready` fails at once");
    // A signal to reload in between ends nothing.
    palisade.reload()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut idle = palisade.http()?.connect().await?;
    ensure!(idle.get("/").send().await?.status() == 200, "connections are still accepted");
    for load in loads {
        ensure!(load.stop().await? > 100);
    }
    let status = palisade.process().wait(Duration::from_secs(20)).await?;
    ensure!(status.code() == Some(0), "{status}");
    let stopped = palisade.event("server.stopped", |_| true).await?;
    ensure!(stopped["cut"] == 0, "{stopped}");
    Ok(())
}

#[tokio::test]
async fn requests_that_run_are_finished_and_a_second_signal_ends_at_once() -> Result<()> {
    let upstream = Upstream::answering(|request| {
        let pause = if request.target() == "/slow" { 1500 } else { 60_000 };
        Reply::steps([
            Step::Pause(Duration::from_millis(pause)),
            Step::Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into()),
        ])
    })
    .await?;
    let policy = development(&upstream, "");
    let palisade = Palisade::serve().policy(&policy).start().await?;
    let client = palisade.https()?;
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.get("/slow").send().await?.text().await }
    });
    eventually(SOON, "the request arrived", async || upstream.requests().len() == 1).await?;
    let ended = palisade.terminate().await?;
    ensure!(ended.code() == Some(0) && slow.await?? == "ok");

    let palisade = Palisade::serve().policy(&policy).start().await?;
    let client = palisade.https()?;
    let endless = tokio::spawn(async move { client.get("/endless").send().await.map(drop) });
    eventually(SOON, "the request arrived", async || upstream.requests().len() == 2).await?;
    palisade.process().signal(nix::sys::signal::Signal::SIGTERM)?;
    palisade.event("server.draining", |_| true).await?;
    let start = std::time::Instant::now();
    palisade.process().signal(nix::sys::signal::Signal::SIGTERM)?;
    let status = palisade.process().wait(SOON).await?;
    ensure!(status.code() == Some(0) && start.elapsed() < Duration::from_secs(5), "{status}");
    ensure!(endless.await?.is_err(), "what still ran is cut");
    Ok(())
}

#[tokio::test]
async fn a_taken_port_names_its_owner_and_can_be_taken_over() -> Result<()> {
    let upstream = hello().await?;
    let first = Palisade::serve().policy(&development(&upstream, "")).start().await?;
    let port = |name: &str| Ok::<_, anyhow::Error>(first.address(name)?.port().to_string());
    let second = || {
        let setup = Palisade::serve().policy(&development(&upstream, ""));
        Ok::<_, anyhow::Error>(setup.arg("--https-port").arg(&port("https")?).arg("--http-port").arg(&port("http")?))
    };
    let refused = second()?.refused().await?;
    ensure!(refused.code == Some(1), "{}", refused.err);
    for said in ["by `palisade` (process ", "--https-port", "--takeover"] {
        ensure!(refused.err.contains(said), "{said} is not in {}", refused.err);
    }
    let load = Load::on(&first.http()?, 4);
    load.more().await?;
    let second = second()?.arg("--takeover").start().await?;
    ensure!(second.address("http")? == first.address("http")?);
    ensure!(first.terminate().await?.code() == Some(0));
    load.more().await?;
    load.stop().await?;
    Ok(())
}

/// The guard in front of the HTTP library: refused before there is a request, with a document, a line and an event.
#[tokio::test]
async fn ambiguous_framing_is_refused_by_name() -> Result<()> {
    let upstream = hello().await?;
    let palisade = Palisade::serve().policy(&development(&upstream, "")).start().await?;
    let big = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(70_000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(9_000));
    for (request, status, code) in [
        ("GET / HTTP/1.1\nHost: localhost\n\n", 400, "integrity.framing"),
        ("GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400, "integrity.framing"),
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "integrity.framing",
        ),
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            400,
            "integrity.framing",
        ),
        ("POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "integrity.framing"),
        (&big, 431, "limits.headers"),
        (&long, 414, "limits.url"),
    ] {
        for tls in [true, false] {
            let mut wire = if tls { palisade.wire().await? } else { palisade.wire_http().await? };
            let answer = wire.ask(request).await?;
            let what = &request[..request.len().min(80)];
            ensure!(answer.status() == status, "{what:?}: {} {}", answer.status(), answer.text());
            let document = answer.json()?;
            ensure!(document["code"] == code && answer.header("connection") == Some("close"), "{what:?}: {document}");
            let id = document["request_id"].clone();
            palisade.event("request.refused", |line| line["request_id"] == id && line["code"] == code).await?;
            palisade.access(|line| line["request_id"] == id && line["status"] == status).await?;
            wire.closed(SOON).await?;
        }
    }
    ensure!(upstream.requests().is_empty(), "nothing of it was forwarded");
    // What is correct passes, twice on one connection.
    let mut wire = palisade.wire_http().await?;
    for _ in 0..2 {
        ensure!(wire.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?.status() == 200);
    }
    Ok(())
}

#[tokio::test]
async fn connections_over_the_limits_are_refused_and_counted() -> Result<()> {
    let upstream = hello().await?;
    let more = "admin_token = { secret = \"admin-token\" }\n[limits]\nconnections_per_address = 3";
    let palisade = Palisade::serve()
        .policy(&development(&upstream, more))
        .env("PALISADE_SECRET_ADMIN_TOKEN", TOKEN)
        .start()
        .await?;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut connection = palisade.http()?.connect().await?;
        connection.get("/").send().await?.drain().await?;
        held.push(connection);
    }
    // Often, since who is answered before they asked (as some servers do) is lost in one try of a few.
    for _ in 0..20 {
        let mut refused = palisade.http()?.get("/").send().await?;
        ensure!(refused.status() == 503 && refused.header("retry-after") == Some("1"));
        ensure!(refused.json().await?["code"] == "limits.connections_per_address");
    }
    ensure!(palisade.https()?.get("/").send().await.is_err(), "under TLS it is closed");
    palisade.event("connection.failed", |line| line["reason"] == "limits.connections_per_address").await?;
    let mut scrape =
        palisade.admin()?.get("/metrics").header("authorization", &format!("Bearer {TOKEN}")).send().await?;
    let counted =
        "palisade_refusals_total{control=\"limits\",code=\"limits.connections_per_address\",mode=\"block\"} 21";
    ensure!(scrape.text().await?.contains(counted));
    drop(held);
    let free = async || palisade.https()?.get("/").send().await;
    let answer = eventually(SOON, "there is room again", free).await?;
    ensure!(answer.status() == 200);
    Ok(())
}

/// Clients who connect and then say nothing hold half of the places, and no more.
#[tokio::test]
async fn handshakes_that_never_end_leave_room() -> Result<()> {
    let upstream = hello().await?;
    let palisade = Palisade::serve().policy(&development(&upstream, "[limits]\nconnections = 8")).start().await?;
    let silent = async || tokio::net::TcpStream::connect(palisade.address("https")?).await.map_err(anyhow::Error::from);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(silent().await?);
    }
    let handshakes = async || {
        let status = palisade.run(&["status", "--json"]).await?.json()?;
        anyhow::Ok(status["saturation"]["handshakes"].as_f64())
    };
    let full = async || handshakes().await.is_ok_and(|share| share == Some(1.0));
    eventually(SOON, "four are counted", full).await.with_context(|| palisade.output().tail())?;
    ensure!(palisade.https()?.get("/").send().await.is_err(), "a fifth is not begun");
    palisade.event("connection.failed", |line| line["reason"] == "limits.handshakes").await?;
    // Plain http has its own half.
    assert_eq!(palisade.http()?.get("/").send().await?.status(), 200);
    drop(held);
    let free = async || palisade.https()?.get("/").send().await;
    assert_eq!(eventually(SOON, "there is room again", free).await?.status(), 200);
    Ok(())
}

/// As systemd does it: a socket that listens already is descriptor 3, and a datagram socket wants to know how things are.
#[tokio::test]
async fn a_service_manager_gives_sockets_and_is_told() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    const MANAGER: &str = "#!/usr/bin/env python3\n\
        import os, socket, sys\n\
        s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n\
        open('given', 'w').write(str(s.getsockname()[1]))\n\
        os.dup2(s.fileno(), 3); os.set_inheritable(3, True)\n\
        os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='http')\n\
        os.execv(os.environ['REAL'], ['palisade'] + sys.argv[1:])\n";
    let upstream = hello().await?;
    let folder = tempfile::tempdir()?;
    let manager = folder.path().join("manager");
    fs::write(&manager, MANAGER)?;
    fs::set_permissions(&manager, fs::Permissions::from_mode(0o755))?;
    let notified = std::os::unix::net::UnixDatagram::bind(folder.path().join("notify"))?;
    notified.set_read_timeout(Some(SOON))?;
    let palisade = Palisade::serve()
        .binary(&manager)
        .env("REAL", &palisade_test::paths::binary()?.to_string_lossy())
        .env("NOTIFY_SOCKET", &folder.path().join("notify").to_string_lossy())
        .env("WATCHDOG_USEC", "400000")
        .policy(&development(&upstream, ""))
        .start()
        .await?;
    let given = fs::read_to_string(palisade.directory().join("given"))?;
    ensure!(palisade.address("http")?.port().to_string() == given);
    ensure!(palisade.http()?.get("/").send().await?.status() == 200);
    ensure!(palisade.https()?.get("/").send().await?.status() == 200);
    palisade.reload()?;
    palisade.event("policy.reloaded", |_| true).await?;
    ensure!(palisade.terminate().await?.code() == Some(0));
    notified.set_nonblocking(true)?;
    let mut told = String::new();
    let mut buffer = [0; 256];
    while let Ok(count) = notified.recv(&mut buffer) {
        told.push_str(std::str::from_utf8(&buffer[..count])?);
    }
    ensure!(told.starts_with("READY=1\n") || told.starts_with("WATCHDOG=1\n"), "{told}");
    for state in ["READY=1\n", "WATCHDOG=1\n", "RELOADING=1\nMONOTONIC_USEC=", "STOPPING=1\n"] {
        ensure!(told.contains(state), "{state:?} is not in {told}");
    }
    ensure!(told.rfind("READY=1") > told.find("RELOADING=1"), "ready again after the reload: {told}");
    Ok(())
}

#[tokio::test]
async fn what_is_written_is_for_its_user_alone() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let upstream = hello().await?;
    let policy = format!("{}[log]\naccess = \"access.log\"\n", development(&upstream, ""));
    let palisade = Palisade::serve().policy(&policy).start().await?;
    ensure!(palisade.https()?.get("/").send().await?.status() == 200);
    palisade.terminate().await?;
    let mut folders = vec![palisade.state()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let (path, meta) = {
                let entry = entry?;
                (entry.path(), entry.metadata()?)
            };
            ensure!(meta.permissions().mode() & 0o077 == 0, "{}: {:o}", path.display(), meta.permissions().mode());
            seen += 1;
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    ensure!(seen >= 3, "the authority and its key at least");
    let log = fs::metadata(palisade.directory().join("access.log"))?;
    ensure!(log.permissions().mode() & 0o077 == 0);
    Ok(())
}
