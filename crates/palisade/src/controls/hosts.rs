//! Trusted hosts: a name that is not ours is answered 421, and so is one of ours on a connection that was made to another.
//!
//! Guide sections 6 and 7. Above rate limits and everything that answers, so that a rebound or probed name learns nothing.

use std::sync::Arc;

use http::{StatusCode, request};
use palisade_base::Cidr;
use palisade_policy::Problems;

use crate::context::Context;
use crate::control::{Asked, Check, Control, Info, NoRoute, Remedy, Routes};
use crate::policy::Env;
use crate::policy::values::HostPattern;
use crate::refusal::{Code, Stop};
use crate::server::tls::{Certificates, certificates};

/// The host is not one of `server.hosts`.
pub static UNKNOWN: Code =
    Code::client("hosts.unknown", StatusCode::MISDIRECTED_REQUEST, 7, "this host is not served here");

/// The host belongs to another certificate than the one that the connection was made with. Threat 19.
pub static MISDIRECTED: Code = Code::client(
    "hosts.misdirected",
    StatusCode::MISDIRECTED_REQUEST,
    6,
    "this host is served on a connection of its own",
);

/// The control. Its key is `server.hosts`.
#[derive(Debug)]
pub struct Hosts {
    named: Vec<HostPattern>,
    loopback: bool,
    certificates: Arc<Certificates>,
    proxies: Vec<Cidr>,
}

impl Control for Hosts {
    type Config = NoRoute;
    type Route = NoRoute;
    const INFO: Info = Info {
        name: "hosts",
        section: 7,
        codes: &[&UNKNOWN, &MISDIRECTED],
        judges: false,
        about: "Only the names of `server.hosts` are served.",
    };

    fn compile(_: &NoRoute, _: &Routes<'_, NoRoute>, env: &Env, problems: &mut Problems) -> Option<Self> {
        let development = env.server.is_development();
        let named = env.server.hosts.clone();
        if !development {
            if named.is_empty() {
                problems.error(
                    "server.hosts",
                    "`hosts` is required in production",
                    "name the hosts this gateway serves: `hosts = [\"api.example.com\"]`",
                );
            }
            if let Some(place) = named.iter().position(|host| *host == HostPattern::Any) {
                problems.error(
                    &format!("server.hosts[{place}]"),
                    "`*` accepts every host, which production does not",
                    "name the hosts this gateway serves",
                );
            }
        }
        // In development a page that has rebound its name to loopback must not reach the application.
        let loopback = development && named.is_empty();
        let (certificates, proxies) = (certificates(env), env.server.trusted_proxies.clone());
        (!named.contains(&HostPattern::Any)).then(|| Self { named, loopback, certificates, proxies })
    }
}

impl Check for Hosts {
    fn request(&self, ctx: &Context, _: &mut request::Parts) -> Result<(), Stop> {
        let host = ctx.host();
        let ours = self.named.iter().any(|pattern| pattern.matches(host)) || (self.loopback && is_loopback(host, ctx));
        if !ours {
            return Err(UNKNOWN.refuse("not in `server.hosts`").into());
        }
        // A proxy asks for one name on behalf of all hosts.
        if let Some(asked) = ctx.connection.tls.as_ref().and_then(|tls| tls.server_name.as_deref())
            && *asked != *host
            && self.certificates.is_anothers(host, asked)
            && !ctx.connection.is_from(&self.proxies)
        {
            return Err(MISDIRECTED.refuse("its certificate is another than the one of the connection's name").into());
        }
        Ok(())
    }

    fn remedy(&self, asked: &Asked<'_>) -> Option<Remedy> {
        if *asked.judged.code == MISDIRECTED {
            return Some(Remedy::Elsewhere(
                "the client asks for the host by its own name in TLS (SNI), or one certificate is for both".into(),
            ));
        }
        let mut hosts: Vec<String> = self.named.iter().map(ToString::to_string).collect();
        if self.loopback {
            // A written list takes the place of the default.
            hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(String::from));
        }
        asked.host.parse::<HostPattern>().ok()?;
        hosts.push(asked.host.to_owned());
        Some(Remedy::Section(format!("[server]\nhosts = {hosts:?}")))
    }
}

/// `localhost`, names below it, loopback literals, and the address the client connected to.
fn is_loopback(host: &str, ctx: &Context) -> bool {
    let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host == "localhost"
        || host.ends_with(".localhost")
        || literal.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == ctx.connection.local.ip())
}
