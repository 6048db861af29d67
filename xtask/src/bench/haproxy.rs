//! haproxy with the same functions, one thread. It cannot write a log file itself: its lines go to standard output, which is a file here.

use anyhow::Result;

use super::gateway::{Launch, Port};
use super::install;
use super::nginx::HEADERS;
use super::process;
use super::site::{self, HOST, ORIGIN, Site};

pub(super) fn launch(site: &Site, under: &[String]) -> Result<Launch> {
    let port = site::free_port()?;
    let path = site.folder.join("haproxy.cfg");
    let mut command = process::pinned(site.cores.gateway, &install::program("haproxy")?)?;
    command.args(["-db", "-f"]).arg(&path);
    if !under.is_empty() {
        command = process::under(under, &command);
    }
    let headers: String =
        HEADERS.iter().map(|(name, value)| format!("    http-response set-header {name} \"{value}\"\n")).collect();
    let text = format!(
        r#"global
    nbthread 1
    maxconn 8000
    log stdout len 4096 format raw local0
    ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
    tune.ssl.cachesize 0
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 60s
    timeout http-keep-alive 600s
    option http-keep-alive
    http-reuse always
frontend edge
    bind 127.0.0.1:{port} ssl crt {both} alpn h2,http/1.1 backlog 4096
    log global
    log-format '{{"time":"%t","event":"access","client":"%ci","host":"%[capture.req.hdr(0),json(utf8s)]","method":"%HM","path":"%[capture.req.uri,json(utf8s)]","protocol":"%HV","status":%ST,"bytes_in":%U,"bytes_out":%B,"duration_ms":%Ta,"upstream":"%si:%sp","upstream_ms":%Tr,"user_agent":"%[capture.req.hdr(1),json(utf8s)]"}}'
    capture request header Host len 64
    capture request header User-Agent len 128
    stick-table type ip size 100k expire 10m store http_req_rate(10s)
    http-request track-sc0 src
    http-request deny deny_status 421 unless {{ req.hdr(host),field(1,:) -i {HOST} }}
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 10000000 }}
    http-request set-var(txn.origin) req.hdr(origin) if {{ req.hdr(origin) -m str {ORIGIN} }}
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Forwarded-Host %[req.hdr(host),field(1,:)]
{headers}    http-response set-header Access-Control-Allow-Origin %[var(txn.origin)] if {{ var(txn.origin) -m found }}
    http-response add-header Vary Origin
    default_backend app
backend app
    server app 127.0.0.1:{upstream}
"#,
        both = site.folder.join("both.pem").display(),
        upstream = site.upstream,
    );
    let access_log = site.folder.join("haproxy.stdout");
    Ok(Launch { command, config: ("haproxy.cfg".to_owned(), text), access_log, port: Port::Fixed(port) })
}
