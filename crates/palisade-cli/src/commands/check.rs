//! `palisade check`: what is wrong with the policy, what is in force, and what happens when something is away.

use std::fmt::Write as _;

use palisade::controls::INFOS;
use palisade::controls::auth::config as auth;
use palisade::controls::rate_limit::{Store, WhenAway};
use palisade::live::Checked;
use palisade_policy::{Problems, Snapshot};
use serde_json::{Value, json};

use super::output::{json, print, say, table};
use super::policy;
use crate::args::{Check, Global};
use crate::exit::Done;

/// Reads the policy; every problem is shown at once. Exit code 2 when it would not start.
pub(crate) fn run(global: &Global, check: &Check) -> anyhow::Result<Done> {
    let sources = policy::sources(global);
    let outcome = palisade::live::check(&sources);
    if global.json {
        return as_json(outcome, check);
    }
    let (snapshot, problems) = outcome.map_err(palisade::Error::Policy)?;
    say(&problems.render(global.color()));
    if check.effective {
        let mut out = String::new();
        for line in effective(&snapshot)? {
            let _ = writeln!(out, "{line}");
        }
        print(&out);
        return Ok(Done::Ok);
    }
    print(&summary(&snapshot, &palisade::live::read(&sources).map_err(palisade::Error::Policy)?));
    Ok(Done::Ok)
}

fn effective(snapshot: &Snapshot) -> anyhow::Result<Vec<palisade_policy::Line>> {
    let schema = serde_json::to_value(palisade::policy::schema())?;
    Ok(snapshot.effective(&schema))
}

fn as_json(outcome: Result<(Snapshot, Problems), Problems>, check: &Check) -> anyhow::Result<Done> {
    let (snapshot, problems) = match outcome {
        Ok((snapshot, problems)) => (Some(snapshot), problems),
        Err(problems) => (None, problems),
    };
    let mut value = json!({
        "ok": snapshot.is_some(),
        "files": snapshot.as_ref().map(|snapshot| snapshot.files().map(|file| json!(file)).collect::<Vec<_>>()),
        "problems": problems.to_json(),
    });
    if let Some(snapshot) = &snapshot {
        let mut unused = snapshot.problems();
        if let Some(config) = snapshot.get("", &mut unused) {
            value["away"] = away(&config).into();
            value["static"] = static_files(&config).into();
        }
        if check.effective {
            let lines: Vec<Value> = effective(snapshot)?
                .iter()
                .map(|line| json!({ "key": line.key, "value": line.value, "origin": line.origin.to_string() }))
                .collect();
            value["effective"] = lines.into();
        }
    }
    json(&value)?;
    Ok(if snapshot.is_some() { Done::Ok } else { Done::Broken })
}

fn summary(snapshot: &Snapshot, checked: &Checked) -> String {
    let files: Vec<String> = snapshot.files().map(|file| file.display().to_string()).collect();
    let name = if files.is_empty() { "the starter policy".to_owned() } else { files.join(", ") };
    let mut out = format!("{name}: in order\n\ncontrols\n");
    let written = palisade::controls::section_modes(&checked.config);
    let rows: Vec<Vec<String>> = INFOS
        .iter()
        .zip(written)
        .map(|(info, mode)| {
            let idle = info.name == "waf" && checked.config.waf.config.rules.paths().is_empty();
            let mode = match info.judges {
                true if idle => "off",
                true => mode.as_str(),
                false => "always",
            };
            vec![info.name.to_owned(), mode.to_owned(), info.about.to_owned()]
        })
        .collect();
    out.push_str(&table(&rows, 2));
    let rows: Vec<Vec<String>> = static_files(&checked.config)
        .iter()
        .map(|row| ["path", "root", "host", "route"].map(|key| super::output::text(&row[key])).to_vec())
        .collect();
    if !rows.is_empty() {
        out.push_str("\nfiles: path, root, host, and the route that says who may read them\n");
        out.push_str(&table(&rows, 2));
    }
    out.push_str("\nwhen something is away\n");
    let rows: Vec<Vec<String>> = away(&checked.config)
        .iter()
        .map(|row| ["control", "dependency", "when_away"].map(|key| super::output::text(&row[key])).to_vec())
        .collect();
    out.push_str(&table(&rows, 2));
    out
}

/// The directories whose files are served, with the first route that takes all of their paths.
fn static_files(config: &palisade::controls::Config) -> Vec<Value> {
    let row = |files: &palisade::controls::static_files::Config| {
        let pattern = files.pattern();
        let route = config
            .route
            .iter()
            .map(|route| &route.route)
            .find(|route| route.path.covers(&pattern) && (route.host.is_none() || route.host == files.host));
        json!({
            "path": files.path.to_string(),
            "root": files.root,
            "host": files.host.as_ref().map_or("all hosts".to_owned(), ToString::to_string),
            "route": route.map_or("default", |route| route.path.as_str()),
        })
    };
    config.r#static.config.iter().map(row).collect()
}

/// What the gateway depends on, and what happens without it.
fn away(config: &palisade::controls::Config) -> Vec<Value> {
    let row = |control: &str, dependency: String, behaviour: &str| json!({ "control": control, "dependency": dependency, "when_away": behaviour });
    let closed = "closed: 502 `upstream.unreachable`; the gateway stays up";
    let mut rows = Vec::new();
    match (&config.upstream.url, config.upstream.command.first()) {
        (Some(url), _) => rows.push(row("upstream", url.to_string(), closed)),
        (None, Some(command)) => rows.push(row("upstream", format!("`{command}`"), closed)),
        // With others beside it, there may well be none.
        (None, None) if !config.upstreams.is_empty() => {}
        (None, None) => rows.push(row("upstream", "none named: `upstream.url` or `--upstream`".to_owned(), closed)),
    }
    for (name, upstream) in &config.upstreams {
        let url = upstream.url.as_ref().map(ToString::to_string).unwrap_or_default();
        rows.push(row(&format!("upstreams.{name}"), url, closed));
    }
    let limits = &config.rate_limit.config;
    if limits.store == Store::Redis
        && let Some(url) = &config.redis.url
    {
        let behaviour = match limits.when_away {
            WhenAway::Local => "local: each instance counts for itself",
            WhenAway::Open => "open: requests pass uncounted",
            WhenAway::Closed => "closed: 503 `rate_limit.away`",
        };
        rows.push(row("rate_limit", format!("redis: {url}"), behaviour));
    }
    if config.auth.config.present
        && let Some(server) = &config.mail.server
    {
        rows.push(row("auth", format!("mail: {server}"), palisade::mail::WHEN_AWAY));
    }
    let auth = &config.auth.config;
    if auth.present {
        let behaviour = match auth.when_away {
            auth::WhenAway::Closed => {
                "closed: 503 `auth.away` for who was not seen before, and after 5 s on routes with roles"
            }
            auth::WhenAway::Open => "open: 503 `auth.away` for who was not seen before; others by what was known last",
        };
        let url = config.database.url.as_ref().map_or("sqlite".to_owned(), |url| match url {
            auth::DatabaseUrl::Url(url) => url.to_string(),
            auth::DatabaseUrl::Secret(name) => format!("the secret `{}`", name.secret),
        });
        rows.push(row("auth", format!("database: {url}"), behaviour));
        let provider = config.secrets.provider.to_string();
        rows.push(row(
            "auth",
            format!("secrets `{provider}`"),
            "open: the keys of before sign; none yet: 503 `auth.away`",
        ));
    }
    if config.server.admin_token.is_some() {
        let provider = config.secrets.provider.to_string();
        rows.push(row("server.admin_token", format!("secrets `{provider}`"), "closed: the admin listener refuses"));
    }
    rows.push(row("log", "the targets of `[log]`".into(), "open: lines are dropped and counted"));
    rows
}
