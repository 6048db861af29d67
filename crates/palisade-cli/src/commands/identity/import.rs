//! `palisade user import`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use palisade_identity::Identity;
use palisade_identity::service::{Field, Format, ImportEvent, ImportOptions};
use serde_json::json;

use palisade::observe::visible;

use super::super::output::{self, print, say};
use super::with;
use crate::args::{self, Global, UserImport};
use crate::exit::{Done, Usage};

/// Exit code 1 when an account was not imported; it was said which and why.
pub(super) fn run(global: &Global, import: &UserImport) -> anyhow::Result<Done> {
    let options = options(import)?;
    let (from, bytes): (Box<dyn BufRead + Send>, Option<u64>) = if import.file.as_os_str() == "-" {
        (Box::new(BufReader::new(io::stdin())), None)
    } else {
        let file = File::open(&import.file).with_context(|| import.file.display().to_string())?;
        let bytes = file.metadata().ok().map(|data| data.len());
        (Box::new(BufReader::new(file)), bytes)
    };
    let mut failures = match &import.report {
        None => None,
        Some(path) => Some(BufWriter::new(File::create(path).with_context(|| path.display().to_string())?)),
    };
    let bar = bar(bytes.filter(|_| io::stderr().is_terminal() && !global.json));
    let mut unwritten = None;
    let report = with(global, async |identity: Identity| {
        let mut on = |event: ImportEvent<'_>| match event {
            ImportEvent::Progress { bytes, report } => {
                bar.set_position(bytes);
                bar.set_message(format!(
                    "{} imported, {} known, {} failed",
                    report.imported, report.known, report.failed
                ));
            }
            ImportEvent::Failed { line, name, why } => match &mut failures {
                Some(file) => {
                    let failure = json!({ "line": line, "name": name, "reason": why.to_string() });
                    if let Err(why) = writeln!(file, "{failure}") {
                        unwritten.get_or_insert(why);
                    }
                }
                None => bar.suspend(|| {
                    let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
                    say(&format!("{}\n", visible(&format!("line {line}{name}: {why}"))));
                }),
            },
        };
        Ok(identity.import_users(from, &options, &mut on).await?)
    })?;
    bar.finish_and_clear();
    if let Some(file) = &mut failures {
        file.flush().context("the report cannot be written")?;
    }
    if let Some(why) = unwritten {
        bail!("the report cannot be written: {why}");
    }
    if global.json {
        output::json(&json!({
            "read": report.read, "imported": report.imported, "known": report.known, "failed": report.failed,
            "without_password": report.without_password, "dry_run": import.dry_run,
        }))?;
    } else {
        let would = if import.dry_run { "would be imported" } else { "imported" };
        print(&format!(
            "{} accounts read: {} {would} ({} without a usable password), {} there already, {} failed\n",
            report.read, report.imported, report.without_password, report.known, report.failed
        ));
    }
    Ok(if report.failed == 0 { Done::Ok } else { Done::Findings })
}

fn options(import: &UserImport) -> anyhow::Result<ImportOptions> {
    let ending = import.file.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    let format = match (import.format, ending.as_deref()) {
        (Some(args::Format::Csv), _) | (None, Some("csv")) => Format::Csv,
        (Some(args::Format::Jsonl), _) | (None, Some("jsonl" | "ndjson")) => Format::JsonLines,
        (None, _) => {
            bail!(Usage("the name does not say how the file is written: `--format csv` or `--format jsonl`".into()))
        }
    };
    let columns = import.columns.iter().map(|column| {
        let field = column.split_once('=').and_then(|(name, field)| Some((name.to_owned(), Field::named(field)?)));
        field.ok_or_else(|| Usage(format!("`--column {column}`: a column and a field, such as `login_mail=email`")))
    });
    Ok(ImportOptions {
        format,
        columns: columns.collect::<Result<_, _>>()?,
        roles: import.roles.clone(),
        superusers: import.superuser_role.clone(),
        dry_run: import.dry_run,
    })
}

fn bar(bytes: Option<u64>) -> ProgressBar {
    let Some(bytes) = bytes else { return ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {percent}% {msg} ({eta} left)")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style)
}
