//! nginx as a careful administrator sets it up: one worker, kept-alive upstream connections, buffered log, no spooling to disk.

use std::process::Command;

use anyhow::Result;

use super::gateway::{Launch, Port};
use super::process;
use super::site::{self, HOST, ORIGIN, Site};

/// The six headers, as both peers send them.
pub(super) const HEADERS: &[(&str, &str)] = &[
    ("Strict-Transport-Security", "max-age=31536000"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
];

/// ModSecurity as a module of nginx, where Debian puts it.
pub(super) const MODSECURITY: &str = "/usr/lib/nginx/modules/ngx_http_modsecurity_module.so";

pub(super) fn launch(site: &Site, under: &[String]) -> Result<Launch> {
    let port = site::free_port()?;
    let path = site.folder.join("nginx.conf");
    let mut command = site::nginx(site.cores.gateway, &site.folder, &path)?;
    if !under.is_empty() {
        // One process, so that the count is the worker's alone.
        let direct = site::nginx(site.cores.gateway, &site.folder, &path)?;
        command = process::under(under, &direct);
        command.args(["-g", "master_process off;"]);
    }
    Ok(launch_with(site, port, command))
}

fn launch_with(site: &Site, port: u16, command: Command) -> Launch {
    let access_log = site.folder.join("nginx-access.log");
    let headers: String =
        HEADERS.iter().map(|(name, value)| format!("            add_header {name} \"{value}\" always;\n")).collect();
    let (module, rules) = match &site.rules {
        Some(file) => (
            format!("load_module {MODSECURITY};\n"),
            format!("    modsecurity on;\n    modsecurity_rules_file {};\n", file.display()),
        ),
        None => Default::default(),
    };
    let text = format!(
        r#"{module}{head}{rules}
    log_format json escape=json '{{"time":"$time_iso8601","event":"access","client":"$remote_addr","host":"$host",'
        '"method":"$request_method","path":"$uri","query":"$args","protocol":"$server_protocol","status":$status,"bytes_in":$request_length,'
        '"bytes_out":$bytes_sent,"duration_ms":$request_time,"upstream":"$upstream_addr","upstream_ms":"$upstream_response_time",'
        '"user_agent":"$http_user_agent"}}';
    access_log {log} json buffer=64k flush=1s;
    server_tokens off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    limit_req_zone $binary_remote_addr zone=address:10m rate=1000000r/s;
    map $http_origin $allowed_origin {{ "{ORIGIN}" $http_origin; default ""; }}
    upstream app {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; keepalive_timeout 600s; }}
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.3;
    ssl_session_tickets off;
    server {{ listen 127.0.0.1:{port} ssl http2 default_server backlog=4096; return 421; }}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        server_name {HOST};
        client_max_body_size 1m;
        client_body_buffer_size 64k;
        location / {{
            limit_req zone=address burst=1000000 nodelay;
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host;
            proxy_buffer_size 8k;
            proxy_buffers 16 32k;
            proxy_busy_buffers_size 256k;
            proxy_max_temp_file_size 0;
{headers}            add_header Access-Control-Allow-Origin $allowed_origin always;
            add_header Vary Origin always;
        }}
    }}
}}
"#,
        head = site::nginx_head(&site.folder, "nginx"),
        log = access_log.display(),
        upstream = site.upstream,
        cert = site.cert().display(),
        key = site.key().display(),
    );
    Launch { command, config: ("nginx.conf".to_owned(), text), access_log, port: Port::Fixed(port) }
}
