//! `palisade init`: writes the strict policy for the application that is here, from what was found and what was seen.

mod app;
mod gitignore;
mod seen;
mod source;
mod write;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use palisade::policy::values::{HostPattern, UpstreamUrl};
use palisade_policy::{Snapshot, Sources};
use serde_json::json;

use self::write::Setting;
use super::output::print;
use super::running;
use crate::args::{Global, Init};
use crate::exit::{Done, Usage};

/// Where an application listens that says nothing else: uvicorn's default.
const USUAL_UPSTREAM: &str = "http://127.0.0.1:8000";

/// Looks, asks, writes, checks.
pub(crate) fn run(global: &Global, init: &Init) -> anyhow::Result<Done> {
    if init.starter {
        print(palisade::policy::STARTER);
        return Ok(Done::Ok);
    }
    if init.output.exists() && !init.force {
        return Err(Usage(format!(
            "`{}` is there already: `--force` overwrites it, `--output FILE` writes another",
            init.output.display()
        ))
        .into());
    }
    if !init.yes && !std::io::stdin().is_terminal() {
        return Err(Usage(
            "nobody can be asked, since standard input is no terminal: `--yes` takes what was found".into(),
        )
        .into());
    }
    let here = init.output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let app = app::look(here);
    let seen = seen::Seen::read(global, &running::state(global));
    let ask = Ask { quiet: init.yes };

    let found =
        init.upstream.clone().or(seen.upstream.clone()).or(app.port.map(|port| format!("http://127.0.0.1:{port}")));
    let upstream = ask.text("Where does the application listen?", found.as_deref().unwrap_or(USUAL_UPSTREAM))?;
    let upstream: UpstreamUrl =
        upstream.parse().map_err(|error| Usage(format!("`{upstream}` is no upstream: {error}")))?;
    let production = init.production || (!init.yes && ask.yes("Is this for production?", false)?);
    let mut hosts = init.host.clone();
    if hosts.is_empty() && production {
        let known =
            if app.source.hosts.is_empty() { "api.example.com".to_owned() } else { app.source.hosts.join(", ") };
        let named = ask.text("Which hosts does it serve (separated by commas)?", &known)?;
        hosts = named.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()).collect();
    }
    if hosts.is_empty() {
        // It refuses the others itself.
        hosts.clone_from(&app.source.hosts);
    }
    for host in &hosts {
        host.parse::<HostPattern>().map_err(|error| Usage(format!("`{host}` is no host: {error}")))?;
    }
    if !production && !hosts.is_empty() {
        // A written list takes the place of the default.
        let own = ["localhost", "127.0.0.1", "[::1]"].map(String::from);
        hosts.extend(own.into_iter().filter(|name| !hosts.contains(name)).collect::<Vec<_>>());
    }
    let mut allowed = seen.routes(|question| ask.yes(question, true))?;
    for (path, rates) in &app.source.limits {
        let limit = if let [rate] = rates.as_slice() { json!(rate) } else { json!(rates) };
        if ask.yes(
            &format!("The application limits `{path}` to {limit} by address. Limit it here, for all workers?"),
            true,
        )? {
            let note = "the application's own limit: here it holds over all workers, and says when to come back";
            seen::allow(&mut allowed, path.clone(), &format!("rate_limit = {limit}"), note.to_owned());
        }
    }

    let mut settings = vec![Setting::new("server.mode", json!(if production { "production" } else { "development" }))];
    // One that was started and supervised here goes on being so, unless an address was named.
    let place = match seen.command.as_slice() {
        [_, ..] if init.upstream.is_none() => {
            settings.push(Setting::new("upstream.command", json!(seen.command)));
            format!("started as `{}`", seen.command.join(" "))
        }
        _ => {
            settings.push(Setting::new("upstream.url", json!(upstream.to_string())));
            format!("at {upstream}")
        }
    };
    if !hosts.is_empty() {
        settings.push(Setting::new("server.hosts", json!(hosts)));
    }
    // Pages at another place than the usual would else stay open, and a prefix would be a second spelling of every path.
    settings.extend(app.source.places.settings());
    if let Some(cors) = &app.source.cors {
        let origins = cors.origins.join(", ");
        if ask.yes(
            &format!("The application shares with pages of {origins}. Answer for it here, also on errors?"),
            true,
        )? {
            settings.extend(cors.settings());
        }
    }
    if production {
        // What starts at once: a certificate of one's own, or of an authority, takes its place.
        settings.push(Setting::new("tls.self_signed", json!(true)));
    }
    let head = write::Head { app: app.module.as_deref(), production };
    let schema = serde_json::to_value(palisade::policy::schema())?;
    let text = write::policy(&schema, &head, &settings, &allowed);
    verify(&text)?;
    replace(&init.output, &text).with_context(|| format!("`{}`", init.output.display()))?;
    report(init, &app, &seen, &place, allowed.len());
    for line in gitignore::complete(here)? {
        print(&format!("  added `{line}` to `.gitignore`\n"));
    }
    Ok(Done::Ok)
}

fn report(init: &Init, app: &app::App, seen: &seen::Seen, place: &str, allowed: usize) {
    let mut said = format!("wrote `{}`\n", init.output.display());
    match (&app.module, app.files) {
        (Some(module), _) => said.push_str(&format!("  for the FastAPI application `{module}`, {place}\n")),
        (None, 0) => said.push_str(&format!("  for the application {place}\n")),
        (None, _) => said.push_str(&format!("  for the application {place} (no `FastAPI(…)` was found here)\n")),
    }
    match (seen.requests, allowed) {
        (0, _) => said.push_str(
            "  no run of `palisade serve` was seen here: routes are written without what it would have shown\n",
        ),
        (requests, 0) => said.push_str(&format!("  {requests} requests were seen; they need no exception\n")),
        (requests, routes) => {
            said.push_str(&format!("  {requests} requests were seen; {routes} exceptions are at its end\n"))
        }
    }
    said.push_str("  next: `palisade check`, then `palisade serve`\n");
    print(&said);
}

/// What is written has to start; that it does not would be a defect of ours, and nothing is written then.
fn verify(text: &str) -> anyhow::Result<()> {
    Snapshot::from_text("palisade.toml", text).map_err(palisade::Error::Policy)?;
    palisade::live::check(&Sources::new().builtin("palisade.toml", text)).map_err(palisade::Error::Policy)?;
    Ok(())
}

/// In one step, so that a running gateway never reads half a policy.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)
}

/// Questions on a terminal; their defaults with `--yes`.
struct Ask {
    quiet: bool,
}

impl Ask {
    fn text(&self, question: &str, default: &str) -> anyhow::Result<String> {
        if self.quiet {
            return Ok(default.to_owned());
        }
        print(&format!("{question} [{default}] "));
        std::io::stdout().flush()?;
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        let line = line.trim();
        Ok(if line.is_empty() { default } else { line }.to_owned())
    }

    fn yes(&self, question: &str, default: bool) -> anyhow::Result<bool> {
        let answer = self.text(question, if default { "yes" } else { "no" })?;
        Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}
