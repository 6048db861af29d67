//! Looks for a FastAPI application in a directory.

use std::fs;
use std::path::{Path, PathBuf};

use super::source::Source;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct App {
    /// `main:app`.
    pub(super) module: Option<String>,
    /// The port that its sources or its start script name.
    pub(super) port: Option<u16>,
    /// How many Python files were looked at.
    pub(super) files: usize,
    /// What its sources say of hosts, origins and limits.
    pub(super) source: Source,
}

const MAX_FILES: usize = 2_000;
const MAX_BYTES: u64 = 1 << 20;
const MAX_DEPTH: usize = 5;
/// Folders with code that is not the application's.
const SKIPPED: [&str; 8] = ["venv", "env", "node_modules", "__pycache__", "site-packages", "tests", "test", "target"];
/// Files that may start it, besides Python's.
const STARTERS: [&str; 7] =
    ["Dockerfile", "Procfile", "docker-compose.yml", "compose.yml", "compose.yaml", "Makefile", "pyproject.toml"];

/// Looks at the Python files, the ones nearest to the top first.
pub(super) fn look(directory: &Path) -> App {
    let mut files = Vec::new();
    collect(directory, 0, &mut files);
    files.sort_by_key(|path| (path.components().count(), !is_usual(path), path.clone()));
    let mut app = App { files: files.len(), ..App::default() };
    for path in &files {
        let Some(text) = read(path) else { continue };
        if app.module.is_none()
            && let Some(variable) = variable(&text)
        {
            app.module = module(directory, path).map(|module| format!("{module}:{variable}"));
            app.source.add(&text, variable);
        }
        if app.port.is_none() {
            app.port = port(&text);
        }
    }
    if app.port.is_none() {
        app.port = STARTERS.iter().find_map(|name| port(&read(&directory.join(name))?));
    }
    app
}

fn is_usual(path: &Path) -> bool {
    matches!(path.file_name().and_then(|name| name.to_str()), Some("main.py" | "app.py"))
}

fn read(path: &Path) -> Option<String> {
    let small = fs::metadata(path).ok().filter(|meta| meta.is_file() && meta.len() <= MAX_BYTES);
    small.and_then(|_| fs::read(path).ok()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn collect(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Ok(kind) = entry.file_type() else { continue };
        if files.len() >= MAX_FILES {
            return;
        }
        if kind.is_dir() && depth < MAX_DEPTH && !name.starts_with('.') && !SKIPPED.contains(&&*name) {
            collect(&entry.path(), depth + 1, files);
        } else if kind.is_file() && name.ends_with(".py") {
            files.push(entry.path());
        }
    }
}

/// The variable of `app = FastAPI(…)` at the left margin.
fn variable(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let (left, right) = line.split_once('=')?;
        let right = right.trim_start();
        let called = right.strip_prefix("fastapi.").unwrap_or(right);
        let name = left.split(':').next()?.trim_end();
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        (called.starts_with("FastAPI(") && plain).then_some(name)
    })
}

/// The module of a file as Python imports it from the directory.
fn module(directory: &Path, path: &Path) -> Option<String> {
    let relative = path.strip_prefix(directory).ok()?.with_extension("");
    let parts: Option<Vec<&str>> = relative.components().map(|part| part.as_os_str().to_str()).collect();
    let parts = parts?;
    let parts: Vec<&str> = parts.into_iter().filter(|part| *part != "__init__").collect();
    (!parts.is_empty()).then(|| parts.join("."))
}

/// The port of `uvicorn.run(…, port=8001)` or `uvicorn … --port 8001`.
fn port(text: &str) -> Option<u16> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut near = 0_usize;
    for line in lines {
        // Its arguments may stand on the lines below.
        near = if line.contains("uvicorn") || line.contains("fastapi run") || line.contains("fastapi dev") {
            8
        } else {
            near.saturating_sub(1)
        };
        if near == 0 {
            continue;
        }
        for mark in ["port=", "--port=", "--port ", "\"--port\", \""] {
            let Some((_, rest)) = line.split_once(mark) else { continue };
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if let Some(port) = rest[..digits].parse().ok().filter(|port| *port > 0) {
                return Some(port);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_of_the_application() {
        for (text, wanted) in [
            ("from fastapi import FastAPI\n\napp = FastAPI()\n", Some("app")),
            ("api: FastAPI = fastapi.FastAPI(title=\"x\")", Some("api")),
            ("def make():\n    app = FastAPI()\n", None),
            ("# app = FastAPI()", None),
            ("self.app = FastAPI()", None),
            ("application=FastAPI(\n", Some("application")),
            ("app = Flask(__name__)", None),
        ] {
            assert_eq!(variable(text), wanted, "{text}");
        }
    }

    #[test]
    fn the_port_it_is_started_with() {
        for (text, wanted) in [
            ("uvicorn.run(app, host=\"0.0.0.0\", port=8001)", Some(8001)),
            ("uvicorn.run(\n    app,\n    port=9000,\n)", Some(9000)),
            ("CMD [\"uvicorn\", \"main:app\", \"--port\", \"8080\"]", Some(8080)),
            ("web: uvicorn main:app --port 5000", Some(5000)),
            ("db = connect(port=5432)", None),
            ("uvicorn.run(app, port=PORT)", None),
            ("uvicorn.run(app, port=99999)", None),
        ] {
            assert_eq!(port(text), wanted, "{text}");
        }
    }

    #[test]
    fn the_file_nearest_to_the_top_is_the_application() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(look(folder.path()), App::default());
        write(".venv/lib/x.py", "app = FastAPI()");
        write("node_modules/x.py", "app = FastAPI()");
        write("service/api/__init__.py", "api = FastAPI()");
        assert_eq!(look(folder.path()).module.as_deref(), Some("service.api:api"));
        write("zz.py", "other = FastAPI()");
        write("main.py", "app = FastAPI()");
        write("Procfile", "web: uvicorn main:app --port 8123");
        assert_eq!(
            look(folder.path()),
            App { module: Some("main:app".into()), port: Some(8123), files: 3, ..App::default() }
        );
    }
}
