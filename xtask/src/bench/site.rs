//! What all gateways of a run share: the folder, the certificate, the upstream, what a right answer is.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::install;
use super::machine::Cores;
use super::process::{self, Server};

/// The name the certificate is for. It need not resolve: every client is told the address.
/// Not `localhost`, to which no HSTS is sent.
pub(super) const HOST: &str = "api.bench.test";

/// The origin that the gateways' CORS rules list.
pub(super) const ORIGIN: &str = "https://app.example.com";

/// Longest a server may take to listen.
pub(super) const READY: Duration = Duration::from_secs(20);

/// A folder with everything of a run, the certificate, and the running upstream.
pub(super) struct Site {
    /// Configurations, logs and outputs of the run.
    pub(super) folder: PathBuf,
    /// Who runs where.
    pub(super) cores: Cores,
    /// Port of the upstream on 127.0.0.1.
    pub(super) upstream: u16,
    /// Rules that the gateways started from now on have to apply to each request.
    pub(super) rules: Option<PathBuf>,
    /// Port of a Redis server that the gateways started from now on count their limits on.
    pub(super) redis: Option<u16>,
    /// Whether the gateways started from now on log people in, and who may register there.
    pub(super) auth: Option<&'static str>,
    /// Port of the mail server of the gateways started from now on.
    pub(super) mail: Option<u16>,
    /// Whether the gateways started from now on use both cores, as they do where nobody measures.
    pub(super) both_cores: bool,
    /// Connections of one address that the gateways started from now on take: many, since all clients have the same one.
    pub(super) per_address: u32,
    /// Where the gateways started from now on listen.
    pub(super) listen: Ipv4Addr,
    /// Where the measured clients of those that listen everywhere connect to.
    pub(super) door: Ipv4Addr,
    /// Clients at a fixed rate share their core with programs that use all of it: they take it when they have something to do
    /// (`SCHED_FIFO`), as if it were theirs.
    pub(super) crowded: bool,
    upstream_server: Server,
}

impl Site {
    /// Makes folder and certificate and starts the upstream.
    pub(super) fn open(folder: PathBuf, cores: Cores) -> Result<Site> {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        certificate(&folder)?;
        fs::write(folder.join("1m"), vec![b'x'; MEBIBYTE])?;
        fs::write(folder.join("body.json"), posted())?;
        let upstream = free_port()?;
        let config = folder.join("upstream.conf");
        fs::write(&config, upstream_config(&folder, upstream))?;
        let mut upstream_server = Server::start("upstream", nginx(cores.load, &folder, &config)?, &folder)?;
        upstream_server.until(READY, || listening(upstream))?;
        Ok(Site {
            folder,
            cores,
            upstream,
            rules: None,
            redis: None,
            auth: None,
            mail: None,
            both_cores: false,
            per_address: 10_000,
            listen: Ipv4Addr::LOCALHOST,
            door: Ipv4Addr::LOCALHOST,
            crowded: false,
            upstream_server,
        })
    }

    /// Certificate chain, PEM.
    pub(super) fn cert(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    /// Its private key, PEM, mode 0600.
    pub(super) fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    /// What Palisade keeps.
    pub(super) fn state(&self) -> PathBuf {
        self.folder.join("palisade-state")
    }

    /// Where Palisade finds its secrets, one a file.
    pub(super) fn secrets(&self) -> PathBuf {
        self.folder.join("secrets")
    }

    /// Fails when the upstream has ended.
    pub(super) fn alive(&mut self) -> Result<()> {
        self.upstream_server.alive()
    }
}

/// Size of the large download.
pub(super) const MEBIBYTE: usize = 1 << 20;

/// The 200 bytes of JSON that `GET /` answers.
pub(super) fn small_answer() -> String {
    let head = r#"{"id":4711,"title":"a note","author":"ada","tags":["one","two"],"text":""#;
    format!("{head}{}\"}}", "n".repeat(200 - head.len() - 2))
}

/// The 1,000 bytes of JSON that are posted.
pub(super) fn posted() -> String {
    let head = r#"{"title":"a note","author":"ada","tags":["one","two"],"text":""#;
    format!("{head}{}\"}}", "n".repeat(1000 - head.len() - 2))
}

/// A port nobody uses now. Somebody else may take it before the server does: then that server says so and the run ends.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Something accepts connections there.
pub(super) fn listening(port: u16) -> Option<()> {
    TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
}

/// nginx in the foreground with a configuration of ours and nothing of the system's.
pub(super) fn nginx(core: usize, folder: &Path, config: &Path) -> Result<Command> {
    let mut command = process::pinned(core, &install::program("nginx")?)?;
    command.arg("-p").arg(folder).args(["-e", "stderr", "-c"]).arg(config);
    Ok(command)
}

/// The head that both of our nginx configurations need: paths of our own, and a worker that may read them.
pub(super) fn nginx_head(folder: &Path, name: &str) -> String {
    let folder = folder.display();
    let user = if install::is_root() { "user root;\n" } else { "" };
    format!(
        "{user}daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {folder}/{name}.pid;
error_log stderr error;
events {{ worker_connections 8192; multi_accept on; }}
http {{
    client_body_temp_path {folder}/{name}-body;
    proxy_temp_path {folder}/{name}-proxy;
    fastcgi_temp_path {folder}/{name}-fastcgi;
    uwsgi_temp_path {folder}/{name}-uwsgi;
    scgi_temp_path {folder}/{name}-scgi;
"
    )
}

fn upstream_config(folder: &Path, port: u16) -> String {
    format!(
        "{}    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        add_header Cache-Control no-cache;
        location / {{ default_type application/json; return 200 '{}'; }}
        # Read whole before it is answered.
        location = /body {{ proxy_pass http://127.0.0.1:{port}/; }}
        location = /1m {{ default_type application/octet-stream; root {}; }}
        location = /seen {{ default_type text/plain; return 200 \"$http_x_forwarded_for $http_x_forwarded_proto $http_x_forwarded_host $http_host\"; }}
    }}
}}
",
        nginx_head(folder, "upstream"),
        small_answer(),
        folder.display()
    )
}

fn certificate(folder: &Path) -> Result<()> {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let output = Command::new(install::program("openssl")?)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
        .args(["-subj", &format!("/CN={HOST}"), "-addext", &format!("subjectAltName=DNS:{HOST}")])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()?;
    if !output.status.success() {
        bail!("openssl could not make a certificate:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    // haproxy wants both in one file.
    let both = folder.join("both.pem");
    fs::write(&both, [fs::read(&cert)?, fs::read(&key)?].concat()).context("cannot write the certificate")?;
    fs::set_permissions(&both, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_of_the_stated_size() {
        for (body, size) in [(small_answer(), 200), (posted(), 1000)] {
            assert_eq!(body.len(), size);
            serde_json::from_str::<serde_json::Value>(&body).unwrap();
        }
    }
}
