//! Before anything is measured: does each gateway do the same work?

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::gateway::Gateway;
use super::install;
use super::nginx::HEADERS;
use super::site::{HOST, MEBIBYTE, ORIGIN, Site, small_answer};

/// One exchange by curl.
pub(super) struct Answer {
    /// Its status.
    pub(super) status: u16,
    version: String,
    /// `name:value`, names in lower case.
    pub(super) headers: Vec<String>,
    /// Its body.
    pub(super) body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let start = format!("{}:", name.to_ascii_lowercase());
        self.headers.iter().find_map(|line| line.strip_prefix(&start)).map(str::trim)
    }
}

/// Asks for everything the cells ask for and looks at the answers, the log and what the upstream saw.
pub(super) fn check(site: &Site, gateway: &Gateway) -> Result<()> {
    all(site, gateway).with_context(|| format!("{} does not do what is compared", gateway.kind.name()))
}

fn all(site: &Site, gateway: &Gateway) -> Result<()> {
    for (protocol, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let get = curl(site, gateway, "/", &[protocol])?;
        ensure!(get.status == 200, "GET / over HTTP/{version} answered {}", get.status);
        ensure!(get.version == version, "HTTP/{} was spoken instead of HTTP/{version}", get.version);
        ensure!(
            get.body == small_answer().as_bytes(),
            "GET / over HTTP/{version} has another body than the upstream sent"
        );
        for (name, _) in HEADERS {
            ensure!(get.header(name).is_some(), "GET / over HTTP/{version} has no `{name}`: {:?}", get.headers);
        }
        let body = format!("@{}", site.folder.join("body.json").display());
        let post =
            curl(site, gateway, "/", &[protocol, "-H", "content-type: application/json", "--data-binary", &body])?;
        ensure!(post.status == 200, "POST / over HTTP/{version} answered {}", post.status);
        let large = curl(site, gateway, "/1m", &[protocol])?;
        ensure!(
            large.status == 200 && large.body.len() == MEBIBYTE,
            "GET /1m answered {} with {} bytes",
            large.status,
            large.body.len()
        );
    }

    let cors = curl(site, gateway, "/", &["-H", &format!("Origin: {ORIGIN}")])?;
    ensure!(
        cors.header("access-control-allow-origin") == Some(ORIGIN),
        "no CORS header for {ORIGIN}: {:?}",
        cors.headers
    );
    let foreign = curl(site, gateway, "/", &["-H", "Origin: https://evil.example"])?;
    ensure!(foreign.header("access-control-allow-origin").is_none(), "a CORS header for a foreign origin");

    let other_host = curl(site, gateway, "/", &["-H", "Host: other.test"])?;
    ensure!(other_host.status >= 400, "another host's request answered {}", other_host.status);

    let seen = curl(site, gateway, "/seen", &[])?;
    let seen = String::from_utf8_lossy(&seen.body).into_owned();
    let mut words = seen.split(' ');
    ensure!(words.next() == Some("127.0.0.1"), "the upstream saw another client address: {seen}");
    ensure!(words.next() == Some("https"), "the upstream saw another scheme: {seen}");
    ensure!(words.next().is_some_and(|host| host.starts_with(HOST)), "the upstream saw another host: {seen}");

    logged(gateway)
}

/// The access log holds a line of JSON within a few seconds: it is buffered.
fn logged(gateway: &Gateway) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let text = fs::read_to_string(&gateway.access_log).unwrap_or_default();
        let is_access = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|line| line["event"] == "access");
        if text.lines().any(is_access) {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("no line of JSON in the access log {}", gateway.access_log.display());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Asks a gateway by curl, with more arguments.
pub(super) fn curl(site: &Site, gateway: &Gateway, path: &str, args: &[&str]) -> Result<Answer> {
    let (head, body) = (site.folder.join("curl.head"), site.folder.join("curl.body"));
    let output = Command::new(install::program("curl")?)
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "10",
            "--noproxy",
            "*",
            "--tlsv1.3",
            "--write-out",
            "%{http_code} %{http_version}",
        ])
        .arg("--cacert")
        .arg(site.cert())
        .args(["--resolve", &format!("{HOST}:{}:127.0.0.1", gateway.port)])
        .arg("--dump-header")
        .arg(&head)
        .arg("--output")
        .arg(&body)
        .args(args)
        .arg(gateway.url(path))
        .output()?;
    if !output.status.success() {
        bail!("curl {path}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (status, version) = said.split_once(' ').context("curl printed no status")?;
    let headers = fs::read_to_string(&head)?
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| format!("{}:{}", name.to_ascii_lowercase(), value.trim()))
        .collect();
    Ok(Answer {
        status: status.parse()?,
        version: version.to_owned(),
        headers,
        body: fs::read(&body).unwrap_or_default(),
    })
}
