//! `palisade check`: what is wrong with the policy, what is in force, and what happens when something is away.

use std::fmt::Write as _;

use palisade::controls::INFOS;
use palisade::live::Checked;
use palisade_policy::{Problems, Snapshot};
use serde_json::{Value, json};

use super::output::{json, print, table};
use super::policy;
use crate::args::{Check, Global};
use crate::exit::Done;

/// Reads the policy; every problem is shown at once. Exit code 2 when it would not start.
#[expect(clippy::print_stderr, reason = "problems go to standard error")]
pub(crate) fn run(global: &Global, check: &Check) -> anyhow::Result<Done> {
    let sources = policy::sources(global);
    let outcome = palisade::live::check(&sources);
    if global.json {
        return as_json(outcome, check);
    }
    let (snapshot, problems) = outcome.map_err(palisade::Error::Policy)?;
    eprint!("{}", problems.render(global.color()));
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
    out.push_str("\nwhen something is away\n");
    let rows: Vec<Vec<String>> = away(&checked.config)
        .iter()
        .map(|row| ["control", "dependency", "when_away"].map(|key| super::output::text(&row[key])).to_vec())
        .collect();
    out.push_str(&table(&rows, 2));
    out
}

/// What the gateway depends on, and what happens without it.
fn away(config: &palisade::controls::Config) -> Vec<Value> {
    let row = |control: &str, dependency: String, behaviour: &str| json!({ "control": control, "dependency": dependency, "when_away": behaviour });
    let upstream = match (&config.upstream.url, config.upstream.command.first()) {
        (Some(url), _) => url.to_string(),
        (None, Some(command)) => format!("`{command}`"),
        (None, None) => "none named: `upstream.url` or `--upstream`".to_owned(),
    };
    let mut rows = vec![row("upstream", upstream, "closed: 502 `upstream.unreachable`; the gateway stays up")];
    if config.server.admin_token.is_some() {
        let provider = config.secrets.provider.to_string();
        rows.push(row("server.admin_token", format!("secrets `{provider}`"), "closed: the admin listener refuses"));
    }
    rows.push(row("log", "the targets of `[log]`".into(), "open: lines are dropped and counted"));
    rows
}
