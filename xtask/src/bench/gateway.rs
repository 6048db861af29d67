//! The gateways that are compared: each a configuration of the same functions and a way to start it.
//!
//! The functions: TLS 1.3 with one ECDSA P-256 certificate, HTTP/1.1 and HTTP/2, a host check, a rate limit by address (too high to be
//! reached), X-Forwarded-* for the upstream, kept-alive upstream connections, six security headers, CORS for one origin, a JSON access log.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;

use super::process::{self, Server};
use super::site::{self, Site};
use super::{haproxy, nginx, palisade};

/// A gateway by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Kind {
    /// The subject.
    Palisade,
    /// The peer that sets the price.
    Nginx,
    /// The second peer.
    Haproxy,
}

impl Kind {
    /// As in tables and file names.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Palisade => "palisade",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "haproxy",
        }
    }

    /// Writes the configuration and prepares the command, on a core of its own or under another program (callgrind).
    fn launch(self, site: &Site, binary: Option<&PathBuf>, under: &[String]) -> Result<Launch> {
        match self {
            Kind::Nginx => nginx::launch(site, under),
            Kind::Haproxy => haproxy::launch(site, under),
            Kind::Palisade => palisade::launch(site, binary, under),
        }
    }
}

/// What a gateway's module hands over: how to start it, and how to learn where it listens.
pub(super) struct Launch {
    /// The pinned command.
    pub(super) command: std::process::Command,
    /// Name and text of its configuration, for the report.
    pub(super) config: (String, String),
    /// Where it writes its access log.
    pub(super) access_log: PathBuf,
    /// The port it will listen on, or the file in which it will name it.
    pub(super) port: Port,
}

/// How the port becomes known.
pub(super) enum Port {
    /// We chose it.
    Fixed(u16),
    /// The gateway prints an event that names it.
    Announced(PathBuf),
}

/// A gateway that answers.
pub(super) struct Gateway {
    /// Which one.
    pub(super) kind: Kind,
    /// Its processes.
    pub(super) server: Server,
    /// Its HTTPS port on 127.0.0.1.
    pub(super) port: u16,
    /// Name and text of its configuration.
    pub(super) config: (String, String),
    /// As one would start it by hand.
    pub(super) command: String,
    /// Where it writes its access log.
    pub(super) access_log: PathBuf,
    /// From the start of the process to the first accepted connection.
    pub(super) start: Duration,
}

impl Gateway {
    /// Starts it and waits until it accepts connections. `under`: a program that runs it, such as valgrind; empty for none.
    pub(super) fn start(kind: Kind, site: &Site, binary: Option<&PathBuf>, under: &[String]) -> Result<Gateway> {
        let Launch { command, config, access_log, port } = kind.launch(site, binary, under)?;
        fs::write(site.folder.join(&config.0), &config.1)?;
        let shown = process::shown(&command);
        let deadline = if under.is_empty() { site::READY } else { 10 * site::READY };
        let begin = Instant::now();
        let mut server = Server::start(kind.name(), command, &site.folder)?;
        let port = server.until(deadline, || {
            let port = match &port {
                Port::Fixed(port) => *port,
                Port::Announced(file) => palisade::announced(&fs::read_to_string(file).ok()?)?,
            };
            site::listening(port).map(|()| port)
        })?;
        Ok(Gateway { kind, server, port, config, command: shown, access_log, start: begin.elapsed() })
    }

    /// Empties the access log: at tens of thousands of lines a second it would fill the disk, and writing it back would disturb the next run.
    pub(super) fn empty_log(&self) {
        if let Ok(log) = fs::File::options().write(true).open(&self.access_log) {
            let _ = log.set_len(0);
        }
    }

    /// Address of a path as clients write it.
    pub(super) fn url(&self, path: &str) -> String {
        format!("https://{}:{}{path}", site::HOST, self.port)
    }
}
