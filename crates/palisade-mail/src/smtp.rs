//! A mail server.

use std::net::IpAddr;
use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::{Error, PoolConfig};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use palisade_base::{BadValue, Secret};

use crate::BadTransport;
use crate::queue::Failure;

/// How the connection is protected. There is no way between: what uses TLS where it is offered does without it where
/// somebody in between wants that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// TLS from the first byte, as on port 465.
    Tls,
    /// Plain at first, then TLS or nothing, as on port 587.
    StartTls,
    /// None: to a server on this machine.
    None,
}

/// A mail server, and how to log in to it.
#[derive(Debug, Clone)]
pub struct Smtp {
    /// Its name, which its certificate is checked against.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub encryption: Encryption,
    /// User and password.
    pub login: Option<(String, Secret<String>)>,
    /// The authority (PEM) that its certificate must be of. Absent: those that browsers know.
    pub authority: Option<Vec<u8>>,
}

impl Smtp {
    /// Reads `smtps://mail.example.com` (TLS, port 465), `smtp://mail.example.com` (STARTTLS, port 587), or
    /// `smtp://localhost:25` (without TLS, which only this machine gets). `smtp+starttls://localhost` insists on STARTTLS
    /// there too.
    ///
    /// # Errors
    /// When it is neither, or holds more than host and port. A password above all: that is a secret, and has another place.
    pub fn at(url: &str) -> Result<Self, BadValue> {
        let by = |scheme: &str| url.strip_prefix(scheme);
        let (rest, asked) = match (by("smtps://"), by("smtp+starttls://"), by("smtp://")) {
            (Some(rest), ..) => (rest, Some(Encryption::Tls)),
            (_, Some(rest), _) => (rest, Some(Encryption::StartTls)),
            (.., Some(rest)) => (rest, None),
            _ => return Err(BadValue::new("begins with `smtps://`, `smtp://` or `smtp+starttls://`")),
        };
        if rest.contains('@') {
            return Err(BadValue::new("holds a user; `user` and `password` are keys of their own"));
        }
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let address = host.parse::<IpAddr>().ok();
        let name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if host.is_empty() || (address.is_none() && !host.chars().all(name)) {
            return Err(BadValue::new("names no host, such as `smtps://mail.example.com`"));
        }
        let local = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let encryption = asked.unwrap_or(if local { Encryption::None } else { Encryption::StartTls });
        let standard = match encryption {
            Encryption::Tls => 465,
            Encryption::StartTls => 587,
            Encryption::None => 25,
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(BadValue::new("the port is a number"))?,
            None => standard,
        };
        Ok(Self { host: host.to_owned(), port, encryption, login: None, authority: None })
    }
}

/// Connections to a server, kept for a while.
pub(crate) struct Server(AsyncSmtpTransport<Tokio1Executor>);

impl Smtp {
    /// Judges what can be judged without asking the server: the authority's certificate.
    ///
    /// # Errors
    /// [`BadTransport`].
    pub fn check(&self) -> Result<(), BadTransport> {
        self.tls().map(drop)
    }

    fn tls(&self) -> Result<Tls, BadTransport> {
        let parameters = || {
            let mut parameters = TlsParameters::builder(self.host.clone());
            if let Some(pem) = &self.authority {
                // Read as none, without an error, and nothing would ever be trusted.
                let begin = b"-----BEGIN CERTIFICATE-----";
                if !pem.windows(begin.len()).any(|window| window == begin) {
                    return Err(BadTransport::Authority("it holds no certificate in PEM".to_owned()));
                }
                let authority =
                    Certificate::from_pem(pem).map_err(|error| BadTransport::Authority(error.to_string()))?;
                parameters = parameters.certificate_store(CertificateStore::None).add_root_certificate(authority);
            }
            parameters.build_rustls().map_err(|error| BadTransport::Tls(error.to_string()))
        };
        Ok(match self.encryption {
            Encryption::Tls => Tls::Wrapper(parameters()?),
            Encryption::StartTls => Tls::Required(parameters()?),
            Encryption::None => Tls::None,
        })
    }
}

/// As a target: without the login.
impl std::fmt::Display for Smtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.encryption {
            Encryption::Tls => "smtps",
            Encryption::StartTls => "smtp+starttls",
            Encryption::None => "smtp",
        };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl Server {
    /// To be called within a runtime, which keeps the connections.
    pub(crate) fn new(smtp: &Smtp, at_once: u32, timeout: Duration) -> Result<Self, BadTransport> {
        let tls = smtp.tls()?;
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(smtp.host.clone())
            .port(smtp.port)
            .tls(tls)
            .timeout(Some(timeout))
            .pool_config(PoolConfig::new().max_size(at_once).idle_timeout(Duration::from_secs(30)));
        if let Some((user, password)) = &smtp.login {
            builder = builder.credentials(Credentials::new(user.clone(), password.expose().clone()));
        }
        Ok(Self(builder.build()))
    }

    pub(crate) async fn send(&self, message: Message) -> Result<(), Failure> {
        self.0.send(message).await.map(|_| ()).map_err(|error| failure(&error))
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

/// Whether it is worth another try. A server that does not take our login says a final no, and yet it is the operator who
/// can mend it while the mail waits.
fn failure(error: &Error) -> Failure {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !reason.contains(&inner_text) {
            reason = format!("{reason}: {inner_text}");
        }
        source = inner.source();
    }
    let about_login = error.status().is_some_and(|code| ["530", "534", "535", "538"].contains(&&*code.to_string()));
    let reason = without_addresses(&reason);
    if error.is_permanent() && !about_login { Failure::Final(reason) } else { Failure::Again(reason) }
}

/// Servers repeat the recipient in what they say, and that belongs to no log.
fn without_addresses(text: &str) -> String {
    let one_line: String = text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words = one_line.split(' ').map(|word| if word.contains('@') { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_by_their_address() {
        for (url, host, port, encryption) in [
            ("smtps://mail.example.com", "mail.example.com", 465, Encryption::Tls),
            ("smtp://mail.example.com", "mail.example.com", 587, Encryption::StartTls),
            ("smtp://mail.example.com:2525", "mail.example.com", 2525, Encryption::StartTls),
            ("smtp://localhost", "localhost", 25, Encryption::None),
            ("smtp://127.0.0.1:1025", "127.0.0.1", 1025, Encryption::None),
            ("smtps://[::1]:465", "::1", 465, Encryption::Tls),
            ("smtp+starttls://localhost", "localhost", 587, Encryption::StartTls),
            ("smtp://10.0.0.1", "10.0.0.1", 587, Encryption::StartTls),
            ("smtp://localhost.example.com", "localhost.example.com", 587, Encryption::StartTls),
        ] {
            let smtp = Smtp::at(url).unwrap();
            assert_eq!((smtp.host.as_str(), smtp.port, smtp.encryption), (host, port, encryption), "{url}");
        }
        for bad in [
            "",
            "mail.example.com",
            "http://x",
            "smtp://",
            "smtp://u:p@host",
            "smtp://host:0",
            "smtp://host:x",
            "smtp://a b",
            "smtp://host/x",
            "smtp://host?tls=off",
            "smtp://h\r\nQUIT",
        ] {
            assert!(Smtp::at(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_servers_say_names_nobody() {
        let said = without_addresses("550 5.1.1 <ada@example.com>: Recipient unknown\r\nx");
        assert_eq!(said, "550 5.1.1 … Recipient unknown  x");
    }
}
